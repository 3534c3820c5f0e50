"""The container's file system: mounts, devices, the change of the root, masked paths.

Side: init.  Every function is a step of the plan.  A mount is made detached, given its flags
while nobody can see it, and then moved onto a descriptor that was resolved inside the root: no
path is looked up twice, so there is nothing to swap in between.  Kernels without the newer calls
get mount(2) on /proc/self/fd/N, which names the same descriptor.

Sources: mount(2), open_tree(2), fsopen(2), mount_setattr(2), pivot_root(2), config-linux.md;
CVE-2019-16884, CVE-2019-19921, CVE-2021-30465, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881.
"""

from __future__ import annotations

import posix

from . import copyup, inroot
from ..errors import cwd_error, Error, strerror
from ..linux import files, mounts
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    EBUSY,
    EEXIST,
    EINVAL,
    ELOOP,
    ENODEV,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    EPERM,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .context import Context

    Options = dict[str, Any]

_PROC_ROOT_INODE: Final = 1
_CLONE: Final = OPEN_TREE_CLONE | AT_EMPTY_PATH

# Whether the calls of Linux 5.2 (fsopen, open_tree, move_mount) are used; the tests turn it off.
use_new_calls = True


def propagation(context: Context, flags: int) -> None:
    """Set the propagation of every mount of the new mount namespace, before anything is made."""
    mounts.mount("", "/", "", flags)


def source(context: Context, index: int, path: str, copy_symlink: bool, destination: str) -> None:
    """Open the source of a bind mount as the caller, before the first mount is made."""
    try:
        if copy_symlink:
            found = files.lstat(path)
            if found.st_mode & files.S_IFMT == files.S_IFLNK:
                context.sources[index] = files.readlink(path)
                return
        context.sources[index] = files.open(path, files.O_PATH)
    except OSError as error:
        reason = strerror(error.errno or 0)
        raise Error(
            f'error mounting "{path}" to rootfs at "{destination}": stat {path}: {reason}'
        ) from None


def root(context: Context, path: str, own_namespace: bool) -> None:
    """Open the rootfs and mount it onto itself, since pivot_root(2) needs a mount."""
    fd = files.open(path, files.O_PATH | files.O_DIRECTORY)
    if own_namespace:
        _make_parent_private(path)
    tree = _clone(fd, recursive=True)
    if tree is None:
        target = f"/proc/self/fd/{fd}"
        mounts.mount(target, target, "", MS_BIND | MS_REC)
        tree = files.open(path, files.O_PATH | files.O_DIRECTORY)
    else:
        mounts.move_mount(tree, fd)
    files.close(fd)
    context.root_fd = tree


def _make_parent_private(path: str) -> None:
    """Make the mount that holds the rootfs private: pivot_root(2) refuses a shared one.

    Only its mount point can be named, so the path is tried from the end.
    """
    while True:
        try:
            mounts.mount("", path, "", MS_PRIVATE)
        except OSError as error:
            if error.errno != EINVAL or path in ("", "/"):
                raise
            path = path.rstrip("/").rpartition("/")[0] or "/"
        else:
            return


def _clone(fd: int, recursive: bool) -> int | None:
    """Return a detached copy of the mount at `fd`, or None where open_tree(2) is missing."""
    if not use_new_calls:
        return None
    try:
        return mounts.open_tree(fd, "", _CLONE | (AT_RECURSIVE if recursive else 0))
    except OSError as error:
        if error.errno == ENOSYS:
            return None
        raise


def filesystem(
    context: Context, kind: str, source: str, destination: str, options: Options
) -> None:
    """Mount a new file system."""
    target = _directory_target(context, destination, kind)
    try:
        _check_target(target, destination, kind)
        if kind == "tmpfs":
            _keep_mode(target, options)
        read_only = bool(options["set"] & MOUNT_ATTR_RDONLY)
        # A tmpfs gets its contents (devices, copies, mount points) first.
        late = kind == "tmpfs" and read_only
        attributes = options["set"] & ~(MOUNT_ATTR_RDONLY if late else 0)
        mount_fd = _new(kind, source, options, attributes)
        if mount_fd is None:
            flags = options["ms"] & ~(MS_RDONLY if late else 0)
            _mount_onto(target, kind, source, flags, ",".join(options["data"]))
            mount_fd = inroot.open(context.root_fd, destination)
            if options["copyup"]:
                copyup.copy(target, mount_fd)
        else:
            if options["copyup"]:
                copyup.copy(target, mount_fd)
            mounts.move_mount(mount_fd, target)
        _recursive(mount_fd, options)
        _propagate(mount_fd, options)
        if late:
            context.late_ro.append(mount_fd)
        else:
            files.close(mount_fd)
    finally:
        files.close(target)


def _directory_target(context: Context, destination: str, kind: str) -> int:
    """Open the mount point of a file system, making it where it is missing.

    For proc and sysfs it must be a plain directory: were it reached by a link of the image, the
    masked and read-only paths would lie elsewhere (CVE-2019-19921, CVE-2023-27561).
    """
    if kind not in ("proc", "sysfs"):
        return inroot.make_directory(context.root_fd, destination)
    flags = files.O_PATH | files.O_DIRECTORY
    for attempt in (1, 2):
        try:
            return inroot.open(context.root_fd, destination, flags, follow_links=False)
        except OSError as error:
            if error.errno == ENOENT and attempt == 1:
                files.close(inroot.make_directory(context.root_fd, destination))
            elif error.errno in (ELOOP, ENOTDIR):
                raise Error(
                    f'mount of {kind}: "{destination}" must be a directory, not a link'
                ) from None
            else:
                raise
    raise OSError(ENOENT, "open", destination)


def _check_target(target: int, destination: str, kind: str) -> None:
    """Refuse what lies on procfs by its descriptor, however its path read."""
    if kind != "proc" and mounts.fstatfs_type(target) == PROC_SUPER_MAGIC:
        raise Error(f'"{destination}" must not be inside of /proc')


def _keep_mode(target: int, options: Options) -> None:
    """Give a tmpfs the mode of the directory that it covers, unless one is asked for."""
    if not any(option.startswith("mode=") for option in options["data"]):
        mode = files.fstat(target).st_mode & 0o7777
        options["data"] = [*options["data"], f"mode={mode:o}"]


def _new(kind: str, source: str, options: Options, attributes: int) -> int | None:
    """Return a new detached file system, or None where mount(2) has to do it.

    fsconfig(2) takes one option at a time and no value beyond 255 bytes, which overlay's
    lower directories exceed.
    """
    data = options["data"]
    if not use_new_calls or options["ms"] & (1 << 23) or any(len(item) > 250 for item in data):
        return None
    try:
        fs_fd = mounts.fsopen(kind)
    except OSError as error:
        if error.errno == ENODEV:
            raise Error(f'file system type "{kind}": no such device') from None
        return None
    try:
        mounts.fsconfig_string(fs_fd, "source", source)
        for name in options["super"]:
            mounts.fsconfig_flag(fs_fd, name)
        for item in data:
            key, equals, value = item.partition("=")
            if equals:
                mounts.fsconfig_string(fs_fd, key, value.strip('"') if key == "context" else value)
            else:
                mounts.fsconfig_flag(fs_fd, key)
        mounts.fsconfig_create(fs_fd)
        return mounts.fsmount(fs_fd, attributes)
    except OSError:
        # mount(2) parses a little differently, and its errno is the one that people know.
        return None
    finally:
        files.close(fs_fd)


def _mount_onto(target: int, kind: str, source: str, flags: int, data: str) -> None:
    mounts.mount(source, f"/proc/self/fd/{target}", kind, flags, data)


def _propagate(mount_fd: int, options: Options) -> None:
    for flags in options["propagation"]:
        _set_propagation(mount_fd, flags)


def _set_propagation(mount_fd: int, flags: int) -> None:
    try:
        recursive = AT_RECURSIVE if flags & MS_REC else 0
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH | recursive, propagation=flags & ~MS_REC)
    except OSError as error:
        if error.errno != ENOSYS:
            raise
        mounts.mount("", f"/proc/self/fd/{mount_fd}", "", flags)


def _recursive(mount_fd: int, options: Options) -> None:
    """Apply rro and its like to the mount and to all below it."""
    if not options["recursive_set"] and not options["recursive_clear"]:
        return
    try:
        mounts.mount_setattr(
            mount_fd,
            AT_EMPTY_PATH | AT_RECURSIVE,
            options["recursive_set"],
            options["recursive_clear"],
        )
    except OSError as error:
        if error.errno == ENOSYS:
            raise Error(
                "recursive mount options need mount_setattr(2)",
                f"Linux 5.12 has it, this is {posix.uname().release}",
            ) from None
        if error.errno == EINVAL and options["recursive_set"] & MOUNT_ATTR_NOSYMFOLLOW:
            raise Error(
                "rnosymfollow: invalid argument",
                f"it needs Linux 5.14, this is {posix.uname().release}",
            ) from None
        raise


def bind(context: Context, index: int, source: str, destination: str, options: Options) -> None:
    """Mount a directory or a file of the host, or a mount that the host side has prepared."""
    opened = context.sources[index]
    if isinstance(opened, str):
        _copy_link(context, opened, destination)
        return
    is_directory = files.fstat(opened).st_mode & files.S_IFMT == files.S_IFDIR
    make = inroot.make_directory if is_directory else inroot.make_file
    target = make(context.root_fd, destination)
    try:
        if files.fstat(target).st_mode & files.S_IFMT == files.S_IFDIR and not is_directory:
            # move_mount(2) calls it EINVAL, mount(2) and everybody who reads the text ENOTDIR.
            raise OSError(ENOTDIR, "move_mount", destination)
        _check_bind(target, opened, destination)
        mount_fd = context.spare_fds.pop(index, -1)
        attached = False
        if mount_fd < 0:
            clone = _clone(opened, options["rec"])
            if clone is None:
                flags = MS_BIND | (MS_REC if options["rec"] else 0)
                mounts.mount(f"/proc/self/fd/{opened}", f"/proc/self/fd/{target}", "", flags)
                clone = _on_top(context, destination, opened)
                attached = True
            mount_fd = clone
        _flags(mount_fd, options)
        if not attached:
            mounts.move_mount(mount_fd, target)
        _recursive(mount_fd, options)
        _propagate(mount_fd, options)
        files.close(mount_fd)
    finally:
        files.close(target)
        files.close(opened)
        del context.sources[index]


def _check_bind(target: int, opened: int, destination: str) -> None:
    """Refuse to put anything in the place of procfs but the files that lxcfs provides."""
    if destination == "/proc":
        is_root = files.fstat(opened).st_ino == _PROC_ROOT_INODE
        if not is_root or mounts.fstatfs_type(opened) != PROC_SUPER_MAGIC:
            raise Error('only procfs may be mounted on "/proc"')
    elif mounts.fstatfs_type(target) == PROC_SUPER_MAGIC and not destination.startswith("/proc/"):
        raise Error(f'"{destination}" must not be inside of /proc')


def _copy_link(context: Context, text: str, destination: str) -> None:
    directory, name = inroot.parent(context.root_fd, destination)
    try:
        files.symlink(text, name, dir_fd=directory)
    except FileExistsError:
        found = files.readlink(name, dir_fd=directory)
        if found != text:
            raise
    finally:
        files.close(directory)


def _flags(mount_fd: int, options: Options) -> None:
    """Give a bind mount its flags; those of the source that it does not name stay."""
    if not options["set"] and not options["clear"]:
        return
    try:
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, options["set"], options["clear"])
    except OSError as error:
        if error.errno == EPERM and options["clear"]:
            # A user namespace may not take away what the mount's owner has locked.
            mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, options["set"], 0)
        elif error.errno == ENOSYS:
            flags = options["ms"] & ~MS_REC | MS_REMOUNT | MS_BIND
            mounts.mount("", f"/proc/self/fd/{mount_fd}", "", flags | _old_flags(mount_fd))
        else:
            raise


def _old_flags(mount_fd: int) -> int:
    """Return the flags that a mount has, as MS_*: a remount replaces all of them."""
    flags = files.fstatvfs(mount_fd).f_flag
    # ST_RDONLY, ST_NOSUID, ST_NODEV and ST_NOEXEC have the numbers of MS_*.
    return flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC)


def remount(context: Context, destination: str, options: Options) -> None:
    """Change the flags of a mount that is there already."""
    fd = inroot.open(context.root_fd, destination)
    try:
        _flags(fd, options)
        _recursive(fd, options)
        _propagate(fd, options)
    finally:
        files.close(fd)


def cgroup_mount(
    context: Context,
    destination: str,
    view: dict[str, Any],
    fallback: dict[str, Any] | None,
    own_namespace: bool,
    options: Options,
) -> None:
    """Mount the container's cgroups as it may see them.

    `fallback` is the view of who could not make a cgroup of its own: the caller's.

    With a cgroup namespace the kernel shows its root; without one, the container's own cgroup is
    bound in the place of the whole tree.
    """
    if fallback is not None and not _is_there(view):
        view = fallback
    target = inroot.make_directory(context.root_fd, destination)
    try:
        if view["version"] == 2:
            mount_fd = _cgroup2(view, own_namespace, options)
            mounts.move_mount(mount_fd, target)
            _propagate(mount_fd, options)
            files.close(mount_fd)
            return
        plain = {**options, "super": [], "data": ["mode=755"], "ms": 0}
        tmpfs = _new("tmpfs", "tmpfs", plain, options["set"] & ~MOUNT_ATTR_RDONLY)
        if tmpfs is None:
            _mount_onto(target, "tmpfs", "tmpfs", options["ms"] & ~MS_RDONLY, "mode=755")
            tmpfs = inroot.open(context.root_fd, destination)
        else:
            mounts.move_mount(tmpfs, target)
        for name, data, own_path, mountpoint in view["hierarchies"]:
            _hierarchy(tmpfs, name, data, f"{mountpoint}{own_path}", own_namespace, options)
        for link, text in view["links"]:
            files.symlink(text, link, dir_fd=tmpfs)
        _propagate(tmpfs, options)
        if options["set"] & MOUNT_ATTR_RDONLY:
            context.late_ro.append(tmpfs)
        else:
            files.close(tmpfs)
    finally:
        files.close(target)


def _is_there(view: dict[str, Any]) -> bool:
    if view["version"] == 2:
        return files.exists(f"{view['host_mountpoint']}{view['own_path']}")
    return all(files.exists(f"{row[3]}{row[2]}") for row in view["hierarchies"])


_CGROUP_ATTRIBUTES: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC


def _cgroup2(view: dict[str, Any], own_namespace: bool, options: Options) -> int:
    if own_namespace:
        plain = {**options, "super": [], "data": [], "ms": 0}
        mount_fd = _new("cgroup2", "cgroup", plain, options["set"])
        if mount_fd is not None:
            return mount_fd
    fd = files.open(f"{view['host_mountpoint']}{view['own_path']}", files.O_PATH)
    try:
        mount_fd = mounts.open_tree(fd, "", _CLONE)
    finally:
        files.close(fd)
    mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, options["set"] | _CGROUP_ATTRIBUTES)
    return mount_fd


def _hierarchy(
    tmpfs: int, name: str, data: str, own: str, own_namespace: bool, options: Options
) -> None:
    """Mount one hierarchy of cgroup v1 below the tmpfs."""
    files.mkdir(name, 0o755, dir_fd=tmpfs)
    target = files.open(name, files.O_PATH | files.O_DIRECTORY, dir_fd=tmpfs)
    attributes = options["set"] | _CGROUP_ATTRIBUTES
    mount_fd = None
    try:
        if own_namespace:
            kind = "cgroup2" if data == "cgroup2" else "cgroup"
            words = [] if kind == "cgroup2" else data.split(",")
            plain = {**options, "super": [], "data": words, "ms": 0}
            mount_fd = _new(kind, "cgroup", plain, attributes)
        if mount_fd is None:
            fd = files.open(own, files.O_PATH)
            mount_fd = mounts.open_tree(fd, "", _CLONE)
            files.close(fd)
            mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, attributes)
        mounts.move_mount(mount_fd, target)
        files.close(mount_fd)
    finally:
        files.close(target)


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
    directory, name = inroot.parent(context.root_fd, path)
    wanted = (_KINDS[kind], files.makedev(major, minor) if kind != "p" else 0)
    try:
        if bind and kind != "p":
            _bind_device(directory, name, path, wanted)
            return
        try:
            files.mknod(name, wanted[0] | mode, wanted[1], dir_fd=directory)
        except FileExistsError:
            if not _is_device(directory, name, wanted):
                # config-linux.md, Devices: another file in its place MUST be an error.
                raise Error(f"{path} is there already and is not that device") from None
            _set_mode(directory, name, mode)
        except OSError as error:
            if error.errno != EPERM or kind == "p":
                raise OSError(error.errno, "mknod", path) from None
            _bind_device(directory, name, path, wanted)
            return
        if uid or gid:
            files.chown(name, uid, gid, dir_fd=directory, follow=False)
    finally:
        files.close(directory)


def _is_device(directory: int, name: str, wanted: tuple[int, int]) -> bool:
    found = files.lstat(name, dir_fd=directory)
    return (found.st_mode & files.S_IFMT, found.st_rdev) == wanted


def _set_mode(directory: int, name: str, mode: int) -> None:
    fd = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
    try:
        if files.fstat(fd).st_mode & 0o7777 != mode:
            files.chmod(f"/proc/self/fd/{fd}", mode)
    finally:
        files.close(fd)


def _bind_device(directory: int, name: str, path: str, wanted: tuple[int, int]) -> None:
    """Bind the host's node of the same path, having checked that it is the same device."""
    fd = files.open(path, files.O_PATH)
    try:
        found = files.fstat(fd)
        if (found.st_mode & files.S_IFMT, found.st_rdev) != wanted:
            raise Error(f"{path} of the host is another device")
        target = _plain_file(directory, name)
        try:
            _bind_onto(fd, target)
        finally:
            files.close(target)
    finally:
        files.close(fd)


def _bind_onto(fd: int, target: int) -> None:
    """Mount the file that `fd` refers to on the one that `target` refers to."""
    clone = _clone(fd, recursive=False)
    if clone is None:
        mounts.mount(f"/proc/self/fd/{fd}", f"/proc/self/fd/{target}", "", MS_BIND)
    else:
        mounts.move_mount(clone, target)
        files.close(clone)


def _plain_file(directory: int, name: str) -> int:
    """Open a mount point for a file, made if it is missing, never through a link (O_PATH)."""
    try:
        flags = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
        files.close(files.open(name, flags, 0o644, dir_fd=directory))
    except OSError as error:
        if error.errno != EEXIST:
            raise
    fd = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
    if files.fstat(fd).st_mode & files.S_IFMT in (files.S_IFLNK, files.S_IFDIR):
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
    directory = inroot.make_directory(context.root_fd, "/dev")
    try:
        links = list(_LINKS)
        if files.exists("/proc/kcore"):
            links.append(("core", "/proc/kcore"))
        for name, text in links:
            try:
                files.symlink(text, name, dir_fd=directory)
            except FileExistsError:
                continue
        try:
            files.unlink("ptmx", dir_fd=directory)
        except OSError as error:
            if error.errno not in (ENOENT, EBUSY, EPERM):
                raise
        try:
            files.symlink("pts/ptmx", "ptmx", dir_fd=directory)
        except FileExistsError:
            return
    finally:
        files.close(directory)


def make_cwd(context: Context, path: str) -> None:
    """Make the working directory where it is missing, before the root may be read-only.

    What it is, and whether the user may be there, shows when it is entered.
    """
    try:
        files.close(inroot.make_directory(context.root_fd, path))
    except OSError as error:
        if error.errno not in (ELOOP, ENOTDIR):
            raise
        raise cwd_error(path, error.errno) from None


def own_proc(context: Context) -> None:
    """Mount a procfs of our own, attached nowhere, that nothing of the image can cover.

    Inside a container whose procfs has masks the kernel refuses a new one to a user namespace:
    then the one at /proc in the root is used, once it proves to be a procfs.
    """
    plain = {"ms": 0, "super": [], "data": []}
    mount_fd = _new("proc", "proc", plain, _CGROUP_ATTRIBUTES)
    if mount_fd is None:
        flags = files.O_PATH | files.O_DIRECTORY
        mount_fd = inroot.open(context.root_fd, "/proc", flags, follow_links=False)
        is_root = files.fstat(mount_fd).st_ino == _PROC_ROOT_INODE
        if not is_root or mounts.fstatfs_type(mount_fd) != PROC_SUPER_MAGIC:
            raise Error("/proc of the container is not a procfs")
    context.proc_fd = mount_fd


def open_proc(context: Context, path: str, flags: int) -> int:
    """Open a file of the own procfs: beneath its root, on it, through no magic link."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    try:
        return mounts.openat2(context.proc_fd, path, flags, resolve)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise OSError(error.errno, "open", f"/proc/{path}") from None
    return files.open(path, flags | files.O_NOFOLLOW, dir_fd=context.proc_fd)


def sysctl(context: Context, path: str, value: str) -> None:
    """Write one kernel parameter of the container's namespaces."""
    name = path.replace("/", ".")
    try:
        fd = open_proc(context, "sys/" + path, files.O_WRONLY)
        try:
            files.write(fd, files.encode(value))
        finally:
            files.close(fd)
    except OSError as error:
        raise Error(f"write sysctl {name}={value}: {strerror(error.errno or 0)}") from None


def open_attributes(context: Context) -> None:
    """Open the files that take the LSM's labels, while the own procfs is at hand."""
    if context.proc_fd < 0:
        own_proc(context)
    for _, _, name, _ in [step for step in context.plan["launch"] if step[0] == "label"]:
        try:
            fd = open_proc(context, f"thread-self/attr/{name}", files.O_WRONLY)
        except OSError as error:
            if error.errno != ENOENT or "/" not in name:
                raise
            # Before Linux 5.8 AppArmor had no directory of its own.
            fd = open_proc(context, "thread-self/attr/exec", files.O_WRONLY)
        context.attributes[name] = fd


def readonly_path(context: Context, path: str) -> None:
    """Make a path read-only by a mount onto itself; one that is missing is passed over."""
    try:
        target = inroot.open(context.root_fd, path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return
        raise
    try:
        clone = _clone(target, recursive=True)
        if clone is None:
            name = f"/proc/self/fd/{target}"
            mounts.mount(name, name, "", MS_BIND | MS_REC)
            clone = _on_top(context, path, target)
            _read_only(clone)
        else:
            _read_only(clone)
            mounts.move_mount(clone, target)
        files.close(clone)
    finally:
        files.close(target)


def _on_top(context: Context, path: str, same: int) -> int:
    """Open what mount(2) has just put at a path, and check that it is the same file as `same`.

    Only for kernels without open_tree(2), where a mount has no descriptor of its own: somebody
    may have put another directory at the path meanwhile.
    """
    fd = inroot.open(context.root_fd, path)
    found, wanted = files.fstat(fd), files.fstat(same)
    if (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
        files.close(fd)
        raise Error(f"{path} was replaced while it was being mounted")
    return fd


def _read_only(mount_fd: int) -> None:
    options = {"set": MOUNT_ATTR_RDONLY, "clear": 0, "ms": MS_RDONLY}
    _flags(mount_fd, options)


def masked_path(context: Context, path: str, label: str) -> None:
    """Cover a directory by an empty read-only tmpfs, anything else by the host's /dev/null.

    The null device is ours, never the image's (CVE-2025-31133); only a missing path is passed
    over.  All directories share one tmpfs, a superblock being the dearest part of it.
    """
    try:
        target = inroot.open(context.root_fd, path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return
        raise
    try:
        if files.fstat(target).st_mode & files.S_IFMT == files.S_IFDIR:
            _mask_directory(context, target, label)
        else:
            _mask_file(target)
    finally:
        files.close(target)


def _mask_directory(context: Context, target: int, label: str) -> None:
    if context.mask_fd >= 0:
        # A copy of the first one, which is attached by now.
        clone = mounts.open_tree(context.mask_fd, "", _CLONE)
        mounts.move_mount(clone, target)
        files.close(clone)
        return
    data = ["nr_blocks=1", "nr_inodes=1", "mode=755"]
    if label:
        data.append(f'context="{label}"')
    plain = {"ms": 0, "super": ["ro"], "data": data}
    mount_fd = _new("tmpfs", "tmpfs", plain, MOUNT_ATTR_RDONLY)
    if mount_fd is None:
        _mount_onto(target, "tmpfs", "tmpfs", MS_RDONLY, ",".join(data))
        return
    mounts.move_mount(mount_fd, target)
    context.mask_fd = mount_fd


def _mask_file(target: int) -> None:
    fd = files.open("/dev/null", files.O_PATH | files.O_NOFOLLOW)
    try:
        found = files.fstat(fd)
        if (found.st_mode & files.S_IFMT, found.st_rdev) != (files.S_IFCHR, files.makedev(1, 3)):
            raise Error("/dev/null of the host is not the null device")
        _bind_onto(fd, target)
    finally:
        files.close(fd)


def late_readonly(context: Context) -> None:
    """Make the mounts read-only that got their contents in the meantime."""
    for fd in context.late_ro:
        _read_only(fd)
        files.close(fd)
    context.late_ro = []


def root_readonly(context: Context) -> None:
    """Make the root mount read-only; what is mounted below keeps its own flags."""
    _read_only(context.root_fd)


def pivot_root(context: Context) -> None:
    """Enter the root by pivot_root(2) and let go of the old one.

    Both arguments are ".", so that no directory for the old root is needed: it lies on top of
    the new one and is detached at once (pivot_root(2), NOTES).
    """
    old_root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    files.fchdir(context.root_fd)
    try:
        mounts.pivot_root(".", ".")
    except OSError as error:
        hint = "a root on the initramfs needs --no-pivot" if error.errno == EINVAL else ""
        raise Error(f"pivot_root: {strerror(error.errno or 0)}", hint) from None
    files.fchdir(old_root)
    # The unmounting must not propagate to the host.
    mounts.mount("", ".", "", MS_SLAVE | MS_REC)
    mounts.umount2(".", MNT_DETACH)
    files.close(old_root)
    files.chdir("/")


def move_root(context: Context) -> None:
    """Enter the root by moving its mount over "/": where pivot_root(2) cannot work."""
    slash = files.open("/", files.O_PATH | files.O_DIRECTORY)
    try:
        mounts.move_mount(context.root_fd, slash)
    finally:
        files.close(slash)
    files.fchdir(context.root_fd)
    files.chroot(".")
    files.chdir("/")


def chroot(context: Context) -> None:
    """Enter the root without a mount namespace."""
    files.fchdir(context.root_fd)
    files.chroot(".")
    files.chdir("/")


def root_here(context: Context) -> None:
    """Take the root of the joined mount namespace as the container's (exec)."""
    context.root_fd = files.open("/", files.O_PATH | files.O_DIRECTORY)
    files.chdir("/")


def final_propagation(context: Context, flags: int) -> None:
    """Set linux.rootfsPropagation on the container's root."""
    mounts.mount("", "/", "", flags)
