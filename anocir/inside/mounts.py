"""The steps for the entries of `mounts`.

Side: inside.  How a mount is made and attached is in attach.py.

Sources: mount(2), config.md, config-linux.md; CVE-2019-16884, CVE-2019-19921, CVE-2021-30465,
CVE-2025-52881.
"""

from __future__ import annotations


import posix

from ..base import inroot
from ..errors import CONTRACT, Error, strerror
from ..linux import descriptors, entries, files, inodes, mounts
from ..linux.const import MOUNT_ATTR_RDONLY, PROC_SUPER_MAGIC
from ..linux.errnos import EACCES, EBUSY, EEXIST, EINVAL, ELOOP, ENODEV, ENOENT, ENOTDIR, EPERM
from ..wire import channel
from . import attach, copyup, places, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .context import Context
    from ..wire.shapes import CgroupView, FileSystem, MountOptions


def source(
    context: Context,
    index: int,
    path: str,
    link: str,
    destination: str,
    inside: str,
    covered: bool,
    ask: bool,
) -> None:
    """Open the source of a bind mount as the caller, before the first mount is made.

    `link` is as for inroot.source.  A source that lies `inside` the root, by its text or by what
    is there of it, may come from an earlier mount, and does where that has `covered` it: it is
    opened later, and never outside of the root.  With `ask` the host side may open what a user
    namespace may not.
    """
    if covered:
        context.later[index] = (path, link, inside)
        return
    try:
        context.sources[index] = inroot.source(path, link)
    except OSError as error:
        if error.errno == ENOENT and not inside:
            inside = inroot.beneath(_rootfs(context), path)
        if error.errno == ENOENT and inside:
            context.later[index] = (path, link, inside)
        elif error.errno == EACCES and ask:
            context.denied.append(index)
        else:
            raise _no_source(error, path, destination) from None


def _rootfs(context: Context) -> str:
    steps = context.plan["prepare"] + context.plan["setup"]
    return next(str(step[2]) for step in steps if step[0] == "root")


def _no_source(error: OSError, path: str, destination: str) -> Error:
    why = f"stat {path}: {strerror(error.errno or 0)}"
    return Error(CONTRACT["mount"].format(source=path, destination=destination, reason=why))


def denied_sources(context: Context) -> None:
    """Have the host side open the sources below directories that root here may not search.

    Before the first mount, so that none of this container can come to lie under their paths.
    """
    asked = [index for index in context.denied if index not in context.spare_fds]
    if not asked:
        return
    context.sources.update(zip(asked, _ask(context, asked)))


def _ask(context: Context, indices: list[int]) -> list[int | str]:
    """Return what the host side opens for the mounts with these numbers, all or none."""
    line = context.channel
    line.send(channel.SOURCES, channel.packed(indices))
    opened: list[int | str] = []
    for _ in indices:
        kind, payload = line.receive()
        if kind != channel.OPENED:
            posix._exit(1)
        # A frame with a text has no descriptor: it is the text of a link to copy.
        fds, line.fds = line.fds, []
        opened.append(fds[0] if fds else files.decode(payload))
    return opened


def filesystem(
    context: Context, kind: str, source: str, destination: str, options: MountOptions
) -> None:
    """Mount a new file system."""
    target, made = _directory_target(context, destination, kind)
    try:
        _check_target(context, target, destination, kind)
        if kind == "tmpfs" and not made:
            _keep_mode(target, options)
        read_only = bool(options["set"] & MOUNT_ATTR_RDONLY)
        # A tmpfs gets its contents (devices, copies, mount points) first.
        late = kind == "tmpfs" and read_only
        attributes = options["set"] & ~(MOUNT_ATTR_RDONLY if late else 0)
        if kind == "proc" and context.plan["pids"] >= 0:
            mount_fd = procfs.of_others(context, source, options, attributes)
            mounts.move_mount(mount_fd, target)
        else:
            mount_fd = attach.filesystem(
                kind,
                source,
                target,
                lambda: inroot.open(context.root_fd, destination),
                options,
                attributes,
                (lambda fd: copyup.copy(target, fd)) if options["copyup"] else None,
            )
        attach.recursive(mount_fd, options)
        attach.propagate(mount_fd, options)
        places.own(context, mount_fd)
        if late:
            context.late_ro.append(mount_fd)
        else:
            files.close(mount_fd)
    finally:
        files.close(target)


def _directory_target(context: Context, destination: str, kind: str) -> tuple[int, bool]:
    """Open the mount point of a file system, making it where it is missing; tell whether it was.

    For proc and sysfs it must be a plain directory: were it reached by a link of the image, the
    masked and read-only paths would lie elsewhere (CVE-2019-19921, CVE-2023-27561).
    """
    if kind not in ("proc", "sysfs"):
        made: list[int] = []

        def may_make(fd: int) -> None:
            places.check(context, fd, destination)
            made.append(fd)

        fd = inroot.make_directory(context.root_fd, destination, may_make=may_make)
        return fd, bool(made)
    flags = files.O_PATH | files.O_DIRECTORY
    for missing in (True, False):
        try:
            fd = inroot.open(context.root_fd, destination, flags, follow_links=False)
        except OSError as error:
            if error.errno == ENOENT and missing:
                files.close(places.make_directory(context, destination))
                continue
            if error.errno in (ELOOP, ENOTDIR):
                words = "must be mounted on ordinary directory"
                raise Error(f'mount of {kind}: {words}, "{destination}" is a link') from None
            raise
        return fd, not missing
    raise OSError(ENOENT, "open", destination)


def _check_target(context: Context, target: int, destination: str, kind: str) -> None:
    """Refuse procfs and the root by their descriptors, however the path read."""
    if places.is_root(context, target):
        raise Error(f'"{destination}" is the root itself, which cannot be a mount\'s destination')
    if kind != "proc" and inodes.fstatfs_type(target) == PROC_SUPER_MAGIC:
        raise Error(f'"{destination}" must not be inside of /proc')


def _keep_mode(target: int, options: MountOptions) -> None:
    """Give a tmpfs the mode of the directory that it covers, unless one is asked for.

    On a mount point that was made for it, it has that of tmpfs(5): 1777.
    """
    if not any(option.startswith("mode=") for option in options["data"]):
        mode = files.fstat(target).st_mode & 0o7777
        options["data"] = [*options["data"], f"mode={mode:o}"]


def bind(
    context: Context, index: int, source: str, destination: str, options: MountOptions
) -> None:
    """Mount a directory or a file of the host, or a mount that the host side has prepared."""
    opened = _opened(context, index, destination, options["idmap"] is not None)
    if isinstance(opened, str):
        _copy_link(context, opened, destination)
        return
    is_directory = files.kind(files.fstat(opened)) == files.S_IFDIR
    target = _bind_target(context, destination, is_directory, options["dest_nofollow"])
    try:
        if files.kind(files.fstat(target)) == files.S_IFDIR and not is_directory:
            # move_mount(2) calls it EINVAL, mount(2) and everybody who reads the text ENOTDIR.
            raise OSError(ENOTDIR, "move_mount", destination)
        _check_bind(context, target, opened, destination)
        mount_fd = context.spare_fds.pop(index, -1)
        if mount_fd >= 0:
            attach.set_flags(mount_fd, options)
            if not attach.move(mount_fd, target):
                release = posix.uname().release
                raise Error(f"an id-mapped mount needs Linux 5.12, this is {release}")
        else:
            mount_fd = attach.bind(
                opened,
                target,
                lambda: _bind_target(context, destination, is_directory, options["dest_nofollow"]),
                options["rec"],
                options,
            )
        attach.recursive(mount_fd, options)
        attach.propagate(mount_fd, options)
        places.bound(context, mount_fd, destination)
        files.close(mount_fd)
    finally:
        files.close(target)
        files.close(opened)


def _opened(context: Context, index: int, destination: str, mapped: bool) -> int | str:
    """Return the source of a bind mount, which is opened now if it may be an earlier mount's.

    One that is to be id-mapped the host side copies for `spare_fds`: before the first mount, or
    now if it was not there by then.
    """
    if index in context.sources:
        return context.sources.pop(index)
    if index not in context.spare_fds:
        path, link, inside = context.later[index]
        try:
            opened = inroot.source(inside, link, context.root_fd)
        except OSError as error:
            raise _no_source(error, path, destination) from None
        if not mapped or isinstance(opened, str):
            return opened
        files.close(opened)
        (copy,) = _ask(context, [index])
        if isinstance(copy, str):
            posix._exit(1)
        context.spare_fds[index] = copy
    return descriptors.dup_above(context.spare_fds[index], 0)


def _bind_target(context: Context, destination: str, is_directory: bool, nofollow: bool) -> int:
    """Open the mount point of a bind mount, made where it is missing.

    With `nofollow` it has to be there, and a link is one itself.
    """
    if not nofollow:
        make = places.make_directory if is_directory else places.make_file
        return make(context, destination)
    directory, _, name = destination.rpartition("/")
    parent = inroot.open(context.root_fd, directory or "/")
    try:
        return files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=parent)
    finally:
        files.close(parent)


def _check_bind(context: Context, target: int, opened: int, destination: str) -> None:
    """Refuse to put anything in the place of procfs but the files that lxcfs provides."""
    if places.is_root(context, target):
        raise Error(f'"{destination}" is the root itself, which cannot be a mount\'s destination')
    if destination == "/proc":
        is_root = files.fstat(opened).st_ino == attach.PROC_ROOT_INODE
        if not is_root or inodes.fstatfs_type(opened) != PROC_SUPER_MAGIC:
            raise Error('only procfs may be mounted on "/proc"')
    elif inodes.fstatfs_type(target) == PROC_SUPER_MAGIC and not destination.startswith("/proc/"):
        raise Error(f'"{destination}" must not be inside of /proc')


def _copy_link(context: Context, text: str, destination: str) -> None:
    directory, name = places.parent(context, destination)
    try:
        if entries.readlink(name, dir_fd=directory) != text:
            raise OSError(EEXIST, "symlink", destination)
    except FileNotFoundError:
        places.check(context, directory, destination)
        entries.symlink(text, name, dir_fd=directory)
    finally:
        files.close(directory)


def remount(context: Context, destination: str, options: MountOptions) -> None:
    """Change the flags of a mount that is there already."""
    fd = inroot.open(context.root_fd, destination)
    try:
        attach.set_flags(fd, options)
        attach.recursive(fd, options)
        attach.propagate(fd, options)
    finally:
        files.close(fd)


def cgroup_mount(
    context: Context,
    destination: str,
    view: CgroupView,
    fallback: CgroupView | None,
    own_namespace: bool,
    options: MountOptions,
) -> None:
    """Mount the container's cgroups as it may see them.

    `fallback` is the view of who could not make a cgroup of its own: the caller's.

    With a cgroup namespace the kernel shows its root; without one, the container's own cgroup is
    bound in the place of the whole tree.
    """
    if fallback is not None and not _is_there(view):
        view = fallback

    def again() -> int:
        return inroot.open(context.root_fd, destination)

    target = places.make_directory(context, destination)
    try:
        _check_target(context, target, destination, "cgroup")
        if view["version"] == 2:
            host = f"{view['host_mountpoint']}{view['own_path']}"
            mount_fd = _cgroup("cgroup2", [], host, target, again, own_namespace, options)
            attach.propagate(mount_fd, options)
            files.close(mount_fd)
            return
        plain: FileSystem = {"super": [], "data": ["mode=755"], "ms": 0}
        attributes = options["set"] & ~MOUNT_ATTR_RDONLY
        tmpfs = attach.filesystem("tmpfs", "tmpfs", target, again, plain, attributes)
        for name, data, own_path, mountpoint in view["hierarchies"]:
            _hierarchy(tmpfs, name, data, f"{mountpoint}{own_path}", own_namespace, options)
        for link, text in view["links"]:
            entries.symlink(text, link, dir_fd=tmpfs)
        attach.propagate(tmpfs, options)
        places.own(context, tmpfs)
        if options["set"] & MOUNT_ATTR_RDONLY:
            context.late_ro.append(tmpfs)
        else:
            files.close(tmpfs)
    finally:
        files.close(target)


def _is_there(view: CgroupView) -> bool:
    if view["version"] == 2:
        return files.exists(f"{view['host_mountpoint']}{view['own_path']}")
    return all(
        files.exists(f"{mountpoint}{path}") for _, _, path, mountpoint in view["hierarchies"]
    )


def _cgroup(
    kind: str,
    data: list[str],
    host: str,
    target: int,
    again: Callable[[], int],
    own_namespace: bool,
    options: MountOptions,
) -> int:
    """Mount a hierarchy, or bind its directory `host` where the kernel does not permit that."""
    attributes = options["set"] | attach.RESTRICTED
    if own_namespace:
        plain: FileSystem = {"super": [], "data": data, "ms": 0}
        try:
            return attach.filesystem(kind, "cgroup", target, again, plain, attributes)
        except OSError as error:
            if error.errno not in (EPERM, EBUSY, EINVAL, ENODEV):
                raise
    fd = files.open(host, files.O_PATH)
    try:
        return attach.bind(fd, target, again, False, {"set": attributes, "clear": 0})
    finally:
        files.close(fd)


def _hierarchy(
    tmpfs: int, name: str, data: str, own: str, own_namespace: bool, options: MountOptions
) -> None:
    """Mount one hierarchy of cgroup v1 below the tmpfs."""
    entries.mkdir(name, 0o755, dir_fd=tmpfs)

    def again() -> int:
        return files.open(name, files.O_PATH | files.O_DIRECTORY, dir_fd=tmpfs)

    target = again()
    kind = "cgroup2" if data == "cgroup2" else "cgroup"
    words = [] if kind == "cgroup2" else data.split(",")
    try:
        files.close(_cgroup(kind, words, own, target, again, own_namespace, options))
    finally:
        files.close(target)


def late_readonly(context: Context) -> None:
    """Make the mounts read-only that got their contents in the meantime."""
    for fd in context.late_ro:
        attach.read_only(fd)
        files.close(fd)
    context.late_ro = []
