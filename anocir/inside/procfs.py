"""A procfs of our own, and what is written through it: sysctls, labels.

Side: inside.  Sources: proc(5), CVE-2025-52881.
"""

from __future__ import annotations


import posix

from ..base import inroot
from ..errors import Error, named, strerror
from ..linux import entries, files, inodes, mounts, oneself, sockets, spawn, tasks
from ..linux.const import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    MNT_DETACH,
    MOUNT_ATTR_RDONLY,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
)
from ..linux.errnos import EINVAL, ENOENT, EXDEV
from ..wire import channel
from . import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .context import Context
    from ..wire.shapes import FileSystem


def own_proc(context: Context) -> None:
    """Mount a procfs of our own, attached nowhere, that nothing of the image can cover.

    Inside a container whose procfs has masks the kernel refuses a new one to a user namespace:
    then the one at /proc in the root is used, once it proves to be a procfs.
    """
    plain: FileSystem = {"ms": 0, "super": [], "data": []}
    mount_fd = attach.new_filesystem("proc", "proc", plain, attach.RESTRICTED)
    if mount_fd is None:
        flags = files.O_PATH | files.O_DIRECTORY
        mount_fd = inroot.open(context.root_fd, "/proc", flags, follow_links=False)
        is_root = files.fstat(mount_fd).st_ino == attach.PROC_ROOT_INODE
        if not is_root or inodes.fstatfs_type(mount_fd) != PROC_SUPER_MAGIC:
            raise Error("/proc of the container is not a procfs")
    context.proc_fd = mount_fd


def reopen(context: Context, fd: int, flags: int) -> int:
    """Open what an O_PATH descriptor has been looked at through: nothing can have been put there.

    By the host's procfs, which `context.host_proc` is until all descriptors are closed.
    """
    if context.host_proc < 0:
        raise OSError(ENOENT, "open", "/proc")
    return files.open(f"self/fd/{fd}", flags, dir_fd=context.host_proc)


def open_proc(context: Context, path: str, flags: int) -> int:
    """Open a file of the own procfs: beneath its root, on it, through no magic link."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    try:
        return inodes.openat2(context.proc_fd, path, flags, resolve)
    except OSError as error:
        if not files.missing(error):
            raise OSError(error.errno, "open", f"/proc/{path}") from None
    return _walk(context.proc_fd, path, flags)


def _walk(proc_fd: int, path: str, flags: int) -> int:
    """Open a file one component at a time, each on the same file system none through a link."""
    device = files.fstat(proc_fd).st_dev
    if path.startswith("thread-self/"):  # a plain link to PID/task/TID
        path = entries.readlink("thread-self", dir_fd=proc_fd) + path[len("thread-self") :]
    *directories, name = path.split("/")
    fd = files.open(".", files.O_PATH | files.O_DIRECTORY, dir_fd=proc_fd)
    try:
        for part in directories:
            below = files.open(part, files.O_PATH | files.O_DIRECTORY | files.O_NOFOLLOW, dir_fd=fd)
            files.close(fd)
            fd = below
            if files.fstat(fd).st_dev != device:
                raise OSError(EXDEV, "open", f"/proc/{path}")
        found = files.open(name, flags | files.O_NOFOLLOW, dir_fd=fd)
        if files.fstat(found).st_dev != device:
            files.close(found)
            raise OSError(EXDEV, "open", f"/proc/{path}")
        return found
    finally:
        files.close(fd)


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
    """Open the files that take the LSM's labels, in the procfs of the host."""
    labels = [step for phase in ("launch", "born") for step in context.plan[phase]]
    for name in [step[2] for step in labels if step[0] == "label"]:
        flags = files.O_WRONLY | files.O_NOFOLLOW
        try:
            fd = files.open(f"thread-self/attr/{name}", flags, dir_fd=context.host_proc)
        except OSError as error:
            if error.errno != ENOENT or "/" not in name:
                raise
            # Before Linux 5.8 AppArmor had no directory of its own.
            fd = files.open("thread-self/attr/exec", flags, dir_fd=context.host_proc)
        context.attributes[name] = fd


def of_others(context: Context, source: str, options: FileSystem, attributes: int) -> int:
    """Return a new procfs of the pid namespace that the process which is cloned later will join.

    Linux 6.18 is told which.  Before, a procfs is that of the process that asks for it: one in
    there, which has no rights but over a mount namespace of its own that is empty.
    """
    pids_fd = context.host_fds[context.plan["pids"]]
    try:
        fs_fd = mounts.fsopen("proc")
        try:
            mounts.fsconfig_fd(fs_fd, "pidns", pids_fd)
        except OSError as error:
            if error.errno != EINVAL:
                raise
            files.close(fs_fd)
            fs_fd = _opened_in_there(pids_fd)
        try:
            mounts.fsconfig_string(fs_fd, "source", source)
            for name in options["super"]:
                mounts.fsconfig_flag(fs_fd, name)
            mounts.fsconfig_options(fs_fd, options["data"])
            mounts.fsconfig_create(fs_fd)
            return mounts.fsmount(fs_fd, attributes)
        finally:
            files.close(fs_fd)
    except OSError as error:
        raise OSError(error.errno, "mount", source) from None


def _opened_in_there(pids_fd: int) -> int:
    """Return a descriptor of fsopen(2) of "proc" by a process in a pid namespace of others.

    They may trace it.  So it is root of nothing: of a user namespace without a map, with a mount
    namespace where nothing is mounted, in no network.
    """
    ours, only = named("socketpair", sockets.pair)
    first = tasks.clone()
    if first == 0:
        try:
            files.close(ours)
            tasks.setns(pids_fd, CLONE_NEWPID)
            oneself.close_range(0, only - 1)
            oneself.close_range(only + 1, oneself.LAST_FD)
            tasks.unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS)
            _leave_for(_empty())
            inside = tasks.clone()
            if inside == 0:
                channel.Channel(only).send(channel.MADE, b"", [mounts.fsopen("proc")])
            else:
                spawn.wait(inside)
        finally:
            posix._exit(0)
    files.close(only)
    line = channel.Channel(ours)
    try:
        kind, _ = line.receive()
        if kind != channel.MADE or len(line.fds) != 1:
            raise Error(
                "no procfs of the pid namespace that is joined",
                "before Linux 6.18 it takes user namespaces: see user.max_user_namespaces",
            )
        return line.fds[0]
    finally:
        line.close()
        spawn.wait(first)


def _leave_for(mount_fd: int) -> None:
    """Enter a detached mount as the root, and let go of all other mounts."""
    old_root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    mounts.move_mount(mount_fd, old_root)
    files.fchdir(mount_fd)
    mounts.pivot_root(".", ".")
    files.fchdir(old_root)
    mounts.umount2(".", MNT_DETACH)
    entries.chdir("/")
    files.close(old_root)
    files.close(mount_fd)


def _empty() -> int:
    """Return a detached tmpfs with nothing in it."""
    fs_fd = mounts.fsopen("tmpfs")
    try:
        mounts.fsconfig_flag(fs_fd, "ro")
        mounts.fsconfig_create(fs_fd)
        return mounts.fsmount(fs_fd, MOUNT_ATTR_RDONLY)
    finally:
        files.close(fs_fd)
