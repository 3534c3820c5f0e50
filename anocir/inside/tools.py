"""A root with one directory more, for a process of exec alone: `exec --tools`.

Side: inside, in the container's namespaces.  The root of the container may be read-only, and
nothing may be made in it that its own processes would see.  So the process gets a mount namespace
of its own, whose root is a small tmpfs: in it every entry of the container's root is mounted at
its place, with all that lies below, and the tools at /.anocir/tools.  It ends with the process.

Sources: mount_namespaces(7), pivot_root(2), open_tree(2).
"""

from __future__ import annotations

from ..errors import Error, strerror
from ..linux import entries, files, mounts, tasks
from ..linux.const import (
    AT_RECURSIVE,
    AT_SYMLINK_NOFOLLOW,
    CLONE_NEWNS,
    MNT_DETACH,
    MS_REC,
    MS_SLAVE,
    OPEN_TREE_CLONE,
)
from . import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .context import Context

DIRECTORY: Final = ".anocir"
NAME: Final = "tools"
_MOST: Final = 1000  # entries of a root: each becomes a mount


def tools(context: Context, index: int) -> None:
    """Enter a root that shows the container's own and the tools, a mount of the host side's."""
    fd = context.host_fds[index]
    tasks.unshare(CLONE_NEWNS)
    # What is mounted from here on stays here; what the container mounts still arrives.
    mounts.mount("", "/", "", MS_SLAVE | MS_REC)
    old = files.open("/", files.O_PATH | files.O_DIRECTORY)
    new = _new_root()
    mounts.move_mount(new, old)
    _show(old, new)
    entries.mkdir(DIRECTORY, 0o755, new)
    entries.mkdir(f"{DIRECTORY}/{NAME}", 0o755, new)
    _mount_at(fd, f"{DIRECTORY}/{NAME}", new, files.O_DIRECTORY)
    attach.read_only(new)
    files.fchdir(new)
    mounts.pivot_root(".", ".")
    mounts.umount2(".", MNT_DETACH)
    entries.chdir("/")
    for each in (old, new, fd):
        files.close(each)


def _new_root() -> int:
    fs_fd = mounts.fsopen("tmpfs")
    try:
        mounts.fsconfig_options(fs_fd, ("source=anocir", "size=64k", "mode=0755"))
        mounts.fsconfig_create(fs_fd)
        return mounts.fsmount(fs_fd, 0)
    finally:
        files.close(fs_fd)


def _show(old: int, new: int) -> None:
    """Show every entry of the old root in the new one."""
    top = files.open(".", files.O_RDONLY | files.O_DIRECTORY, dir_fd=old)
    names = files.listdir(top)
    files.close(top)
    if len(names) > _MOST:
        raise Error(f"--tools: the root has {len(names)} entries, {_MOST} at most can be shown")
    for name in names:
        if name != DIRECTORY:
            try:
                _show_one(name, old, new)
            except FileNotFoundError:
                continue  # removed meanwhile
            except OSError as error:
                raise Error(f"--tools: show /{name}: {strerror(error.errno or 0)}") from None


def _show_one(name: str, old: int, new: int) -> None:
    if files.kind(files.lstat(name, old)) == files.S_IFLNK:
        entries.symlink(entries.readlink(name, old), name, new)
        return
    flags = OPEN_TREE_CLONE | AT_RECURSIVE | AT_SYMLINK_NOFOLLOW
    mount_fd = mounts.open_tree(old, name, flags)
    try:
        kind = files.kind(files.fstat(mount_fd))  # of what was opened
        if kind == files.S_IFLNK:
            return  # exchanged meanwhile
        if kind == files.S_IFDIR:
            entries.mkdir(name, 0o755, new)
            _mount_at(mount_fd, name, new, files.O_DIRECTORY)
        else:
            flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
            files.close(files.open(name, flags, 0o644, dir_fd=new))
            _mount_at(mount_fd, name, new, 0)
    finally:
        files.close(mount_fd)


def _mount_at(mount_fd: int, path: str, new: int, kind: int) -> None:
    """Mount on a place that we have made in the new root."""
    target = files.open(path, files.O_PATH | files.O_NOFOLLOW | kind, dir_fd=new)
    try:
        mounts.move_mount(mount_fd, target)
    finally:
        files.close(target)
