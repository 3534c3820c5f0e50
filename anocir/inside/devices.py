"""Device nodes and the links of /dev.

Side: inside.  Sources: mknod(2), config-linux.md (Default Devices, Dev symbolic links).
"""

from __future__ import annotations


from ..errors import Error
from ..linux import entries, files
from ..linux.errnos import EBUSY, EEXIST, ELOOP, ENOENT, EPERM
from . import attach, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from typing import Final

    from .context import Context


_KINDS: Final = {
    "c": files.S_IFCHR,
    "u": files.S_IFCHR,
    "b": files.S_IFBLK,
    "p": files.S_IFIFO,
}


def device(
    context: Context, path: str, kind: str, major: int, minor: int, mode: int, uid: int, gid: int,
    bind: bool,
) -> None:  # fmt: skip
    """Make a device node, or bind the host's where mknod(2) is not permitted."""
    directory, name, lends, there = _place(context, path)
    wanted = (_KINDS[kind], files.makedev(major, minor) if kind != "p" else 0)
    if there is not None:
        # It may be there, and is then as the host has it; it is never made there.
        if not _is_there(directory, name, path, wanted):
            raise places.outside(path, there)
        return
    if bind and kind != "p":
        _bind_device(directory, name, path, wanted)
        return
    try:
        entries.mknod(name, wanted[0] | mode, wanted[1], dir_fd=directory)
    except FileExistsError:
        _take_over(context, directory, name, path, wanted, (mode, uid, gid))
        return
    except OSError as error:
        if error.errno != EPERM or kind == "p":
            raise OSError(error.errno, "mknod", path) from None
        _bind_device(directory, name, path, wanted)
        return
    if uid or gid or lends:
        entries.chown(name, uid, gid, dir_fd=directory, follow=False)


def _place(context: Context, path: str) -> tuple[int, str, bool, str | None]:
    """Return where a device is made: (directory, name, whether it gives its group, bind mount).

    The directory stays open for the next one: most have the same.
    """
    above, _, name = path.rstrip("/").rpartition("/")
    if context.device_place[0] != above or name in ("", ".", ".."):
        directory, name = places.parent(context, path, named=False)
        if context.device_place[1] >= 0:
            files.close(context.device_place[1])
        # What is made there gets its group with S_ISGID (inode(7)).
        lends = bool(files.fstat(directory).st_mode & files.S_ISGID)
        context.device_place = above, directory, lends, places.bind_at(context, directory)
    _, directory, lends, there = context.device_place
    return directory, name, lends, there


def _is_there(directory: int, name: str, path: str, wanted: tuple[int, int]) -> bool:
    """Tell whether the device is there; raise Error for another file in its place."""
    try:
        found = files.lstat(name, dir_fd=directory)
    except FileNotFoundError:
        return False
    return _check_kind(found, path, wanted)


def _check_kind(found: posix.stat_result, path: str, wanted: tuple[int, int]) -> bool:
    if files.device(found) != wanted:
        # config-linux.md, Devices: another file in its place MUST be an error.
        raise Error(f"{path} is there already and is not that device")
    return True


def _take_over(
    context: Context,
    directory: int,
    name: str,
    path: str,
    wanted: tuple[int, int],
    rights: tuple[int, int, int],
) -> None:
    """Give a node of the image its mode and owner; one that is bound there keeps the host's."""
    mode, uid, gid = rights
    fd = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
    try:
        found = files.fstat(fd)
        _check_kind(found, path, wanted)
        if places.bind_at(context, fd) is not None:
            return
        itself = f"/proc/self/fd/{fd}"
        if uid or gid:
            entries.chown(itself, uid, gid)
        if found.st_mode & 0o7777 != mode:
            entries.chmod(itself, mode)
    finally:
        files.close(fd)


def _bind_device(directory: int, name: str, path: str, wanted: tuple[int, int]) -> None:
    """Bind the host's node of the same path, having checked that it is the same device."""
    fd = files.open(path, files.O_PATH)
    try:
        found = files.fstat(fd)
        if files.device(found) != wanted:
            raise Error(f"{path} of the host is another device")
        target = _plain_file(directory, name)
        try:
            node = attach.bind(fd, target, lambda: _plain_file(directory, name), False, attach.NODE)
            files.close(node)
        finally:
            files.close(target)
    finally:
        files.close(fd)


def _plain_file(directory: int, name: str) -> int:
    """Open a mount point for a file, made if it is missing, never through a link (O_PATH)."""
    try:
        flags = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
        files.close(files.open(name, flags, 0o644, dir_fd=directory))
    except OSError as error:
        if error.errno != EEXIST:
            raise
    fd = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
    if files.kind(files.fstat(fd)) in (files.S_IFLNK, files.S_IFDIR):
        files.close(fd)
        raise OSError(ELOOP, "open", f"/dev/{name}")
    return fd


_LINKS: Final = (
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
)


def device_links(context: Context) -> None:
    """Make the links of /dev: config-linux.md, Dev symbolic links; ptmx of the own devpts."""
    directory = places.make_directory(context, "/dev")
    try:
        there = places.bind_at(context, directory)
        if there is not None:
            raise places.outside("/dev", there)
        links = list(_LINKS)
        if files.exists("/proc/kcore"):
            links.append(("core", "/proc/kcore"))
        for name, text in links:
            try:
                entries.symlink(text, name, dir_fd=directory)
            except FileExistsError:
                continue
        try:
            entries.symlink("pts/ptmx", "ptmx", dir_fd=directory)
        except FileExistsError:
            _replace_ptmx(directory)
    finally:
        files.close(directory)


def _replace_ptmx(directory: int) -> None:
    """Put the link in the place of what the image has, unless that must stay."""
    try:
        files.unlink("ptmx", dir_fd=directory)
    except OSError as error:
        if error.errno not in (ENOENT, EBUSY, EPERM):
            raise
    try:
        entries.symlink("pts/ptmx", "ptmx", dir_fd=directory)
    except FileExistsError:
        return
