"""Detached mounts, and moving them onto descriptors: what every mount is made of.

Side: inside.  A mount is made detached, given its flags while nobody can see it, and then moved
onto a descriptor that was resolved inside the root: no path is looked up twice, so there is
nothing to swap in between.  Kernels without the newer calls get mount(2) on /proc/self/fd/N,
which names the same descriptor.

Sources: mount(2), open_tree(2), fsopen(2), mount_setattr(2).
"""

from __future__ import annotations

import posix

from ..base import inroot
from ..errors import Error
from ..linux import files, mounts
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    EINVAL,
    ENODEV,
    ENOSYS,
    EPERM,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
    MS_REC,
    MS_REMOUNT,
    OPEN_TREE_CLONE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from .context import Context

    Options = dict[str, Any]

CLONE: Final = OPEN_TREE_CLONE | AT_EMPTY_PATH

# Whether the calls of Linux 5.2 (fsopen, open_tree, move_mount) are used; the tests turn it off.
use_new_calls = True


def clone(fd: int, recursive: bool) -> int | None:
    """Return a detached copy of the mount at `fd`, or None where open_tree(2) is missing."""
    if not use_new_calls:
        return None
    try:
        return mounts.open_tree(fd, "", CLONE | (AT_RECURSIVE if recursive else 0))
    except OSError as error:
        if error.errno == ENOSYS:
            return None
        raise


def new_filesystem(kind: str, source: str, options: Options, attributes: int) -> int | None:
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


def mount_onto(target: int, kind: str, source: str, flags: int, data: str) -> None:
    """Mount a file system on a descriptor by mount(2)."""
    mounts.mount(source, f"/proc/self/fd/{target}", kind, flags, data)


def propagate(mount_fd: int, options: Options) -> None:
    """Set the propagation that the options of a mount ask for."""
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


def recursive(mount_fd: int, options: Options) -> None:
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


def set_flags(mount_fd: int, options: Options) -> None:
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


def bind_node(fd: int, target: int, on_top: Callable[[], int]) -> None:
    """Mount the device node of the host that `fd` refers to on what `target` refers to.

    Read-only: that says nothing about the device, but the node's mode, owner and times are the
    host's.  `on_top` opens what lies there, for kernels where a new mount has no descriptor.
    """
    flags = {
        "set": MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC,
        "clear": 0,
        "ms": MS_RDONLY | MS_NOSUID | MS_NOEXEC,
    }
    copy = clone(fd, recursive=False)
    if copy is None:
        mounts.mount(f"/proc/self/fd/{fd}", f"/proc/self/fd/{target}", "", MS_BIND)
        copy = on_top()
        set_flags(copy, flags)
    else:
        set_flags(copy, flags)
        mounts.move_mount(copy, target)
    files.close(copy)


def on_top(context: Context, path: str, same: int) -> int:
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


def read_only(mount_fd: int) -> None:
    """Make one mount read-only."""
    options = {"set": MOUNT_ATTR_RDONLY, "clear": 0, "ms": MS_RDONLY}
    set_flags(mount_fd, options)


RESTRICTED: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
PROC_ROOT_INODE: Final = 1
