"""Detached mounts, and moving them onto descriptors: what every mount is made of.

Side: inside.  A mount is made detached, given its flags while nobody can see it, and then moved
onto a descriptor that was resolved inside the root: no path is looked up twice, so there is
nothing to swap in between.

Kernels before 5.2, and seccomp filters around us, lack open_tree(2), fsopen(2) and move_mount(2):
there mount(2) does it on /proc/self/fd/N, which names the same descriptor.  Those before 5.12 lack
mount_setattr(2): there a mount is attached first and gets its flags by remounting.

Sources: mount(2), open_tree(2), fsopen(2), mount_setattr(2), statfs(2).
"""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import entries, files, mounts
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_I_VERSION,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_STRICTATIME,
    OPEN_TREE_CLONE,
)
from ..linux.errnos import EINVAL, ENODEV, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final
    from ..wire.shapes import FileSystem, Flags, MountOptions

CLONE: Final = OPEN_TREE_CLONE | AT_EMPTY_PATH

# Whether the calls of Linux 5.2 (fsopen, open_tree, move_mount) and of 5.12 (mount_setattr) are
# used: until one is missing; the tests turn them off.
use_new_calls = True
use_setattr = True


def clone(fd: int, recursive: bool) -> int | None:
    """Return a detached copy of the mount at `fd`, or None where open_tree(2) is missing."""
    global use_new_calls
    if not use_new_calls:
        return None
    try:
        return mounts.open_tree(fd, "", CLONE | (AT_RECURSIVE if recursive else 0))
    except OSError as error:
        if not files.missing(error):
            raise
        use_new_calls = False
    return None


def move(mount_fd: int, target: int) -> bool:
    """Attach a detached mount; tell whether move_mount(2) is there to do it."""
    global use_new_calls
    try:
        mounts.move_mount(mount_fd, target)
    except OSError as error:
        if not files.missing(error):
            raise
        use_new_calls = False
    return use_new_calls


def bind(fd: int, target: int, again: Callable[[], int], recursive: bool, options: Flags) -> int:
    """Mount what `fd` refers to on what `target` does: a descriptor of the new mount.

    `again` opens the place of `target` once more, for `on_top`.  The caller closes the descriptor.
    """
    mount_fd = clone(fd, recursive)
    if mount_fd is not None:
        done = set_flags(mount_fd, options, attached=False)
        if move(mount_fd, target):
            if not done:
                set_flags(mount_fd, options)
            return mount_fd
        files.close(mount_fd)
    flags = MS_BIND | (MS_REC if recursive else 0)
    mounts.mount(f"/proc/self/fd/{fd}", f"/proc/self/fd/{target}", "", flags)
    mount_fd = on_top(target, again, fd)
    set_flags(mount_fd, options)
    return mount_fd


def new_filesystem(kind: str, source: str, options: FileSystem, attributes: int) -> int | None:
    """Return a new detached file system, or None where mount(2) has to do it.

    fsconfig(2) takes one option at a time and no value beyond 255 bytes, which overlay's
    lower directories exceed.
    """
    data = options["data"]
    if not use_new_calls or options["ms"] & MS_I_VERSION or any(len(item) > 250 for item in data):
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


def mount_onto(target: int, kind: str, source: str, flags: int, data: list[str]) -> None:
    """Mount a file system on a descriptor by mount(2)."""
    mounts.mount(source, f"/proc/self/fd/{target}", kind, flags, ",".join(data))


def propagate(mount_fd: int, options: MountOptions) -> None:
    """Set the propagation that the options of a mount ask for."""
    for flags in options["propagation"]:
        set_propagation(mount_fd, flags)


def set_propagation(mount_fd: int, flags: int) -> None:
    """Set the propagation of an attached mount, MS_PRIVATE and its like."""
    if use_setattr:
        try:
            tree = AT_RECURSIVE if flags & MS_REC else 0
            mounts.mount_setattr(mount_fd, AT_EMPTY_PATH | tree, propagation=flags & ~MS_REC)
        except OSError as error:
            if not files.missing(error):
                raise
        else:
            return
    mounts.mount("", f"/proc/self/fd/{mount_fd}", "", flags)


def recursive(mount_fd: int, options: MountOptions) -> None:
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
        release = posix.uname().release
        if files.missing(error) and not mounts.has_mount_setattr():
            raise Error(
                f"a recursive mount option such as rro needs Linux 5.12, this is {release}",
                "the call is mount_setattr(2)",
            ) from None
        if error.errno == EINVAL and options["recursive_set"] & MOUNT_ATTR_NOSYMFOLLOW:
            raise Error(f"rnosymfollow needs Linux 5.14, this is {release}") from None
        if error.errno == EPERM and options["recursive_clear"]:
            cleared = options["recursive_clear"]  # of this mount, or of one below it
            raise _locked(_names(_has(mount_fd)[0] & cleared or cleared)) from None
        raise


def _names(attributes: int) -> list[str]:
    return [name for attribute, _, _, name in _FLAGS if attributes & attribute]


def _locked(names: list[str]) -> Error:
    text = f"cannot clear flags that are locked: {','.join(names)}"
    return Error(text, "the mount is another user namespace's")


# What a bind mount that names any flag has not unless it is named, as runc and mount(8) have it.
_EXACT: Final = (
    MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
    | MOUNT_ATTR_NOSYMFOLLOW
)  # fmt: skip
# The attribute, the flag of mount(2), the flag of statfs(2) (include/linux/statfs.h), the option.
_FLAGS: Final = (
    (MOUNT_ATTR_RDONLY, MS_RDONLY, 0x0001, "ro"),
    (MOUNT_ATTR_NOSUID, MS_NOSUID, 0x0002, "nosuid"),
    (MOUNT_ATTR_NODEV, MS_NODEV, 0x0004, "nodev"),
    (MOUNT_ATTR_NOEXEC, MS_NOEXEC, 0x0008, "noexec"),
    (MOUNT_ATTR_NODIRATIME, MS_NODIRATIME, 0x0800, "nodiratime"),
    (MOUNT_ATTR_NOSYMFOLLOW, MS_NOSYMFOLLOW, 0x2000, "nosymfollow"),
)
_ST_NOATIME: Final = 0x0400
_ST_RELATIME: Final = 0x1000


def set_flags(mount_fd: int, options: Flags, attached: bool = True) -> bool:
    """Give a mount its flags; those of the source that it does not name stay.

    With "exact" among the options, those that could be named and are not go.  Returns False when
    that has to wait until the mount is attached.
    """
    global use_setattr
    add, remove = options["set"], options["clear"]
    if options.get("exact"):
        remove |= _EXACT & ~add
    if not add and not remove:
        return True
    if not use_setattr and not attached:
        return False
    try:
        _change(mount_fd, add, remove)
    except OSError as error:
        if use_setattr and files.missing(error) and not mounts.has_mount_setattr():
            use_setattr = False
            return set_flags(mount_fd, options, attached)
        if error.errno != EPERM:
            raise
        _keep_locked(mount_fd, options)
    return True


def _change(mount_fd: int, add: int, remove: int) -> None:
    if use_setattr:
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, add, remove)
    else:
        _remount(mount_fd, add, remove)


_MS_ATIMES: Final = {
    MOUNT_ATTR_NOATIME: MS_NOATIME,
    MOUNT_ATTR_STRICTATIME: MS_STRICTATIME,
    0: MS_RELATIME,
}
_MS_FLAGS: Final = sum(row[1] for row in _FLAGS) | MS_NOATIME | MS_STRICTATIME | MS_RELATIME


def _ms(attributes: int) -> int:
    """Return MOUNT_ATTR_* as the flags of mount(2), without relatime, which is the default."""
    flags = sum(flag for attribute, flag, _, _ in _FLAGS if attributes & attribute)
    return flags | (_MS_ATIMES[attributes & MOUNT_ATTR__ATIME] & ~MS_RELATIME)


def _has(mount_fd: int) -> tuple[int, int]:
    """Return the flags that a mount has as MOUNT_ATTR_*, and its way to keep access times."""
    found = files.fstatvfs(mount_fd).f_flag
    flags = sum(attribute for attribute, _, bit, _ in _FLAGS if found & bit)
    if found & _ST_NOATIME:
        return flags, MOUNT_ATTR_NOATIME
    return flags, 0 if found & _ST_RELATIME else MOUNT_ATTR_STRICTATIME


_ATIMES: Final = {MOUNT_ATTR_NOATIME: "noatime", MOUNT_ATTR_STRICTATIME: "strictatime"}


def _keep_locked(mount_fd: int, options: Flags) -> None:
    """Do what can be done where a user namespace has locked flags of the mount's owner.

    What is asked away in so many words, and cannot go, is an error.
    """
    flags, atime = _has(mount_fd)
    add, remove = options["set"], options["clear"]
    asked = flags & remove & _EXACT & ~MOUNT_ATTR_NOSYMFOLLOW
    names = _names(asked)
    if remove & MOUNT_ATTR__ATIME and (
        add & MOUNT_ATTR__ATIME != atime or (add ^ flags) & MOUNT_ATTR_NODIRATIME
    ):
        names.append(_ATIMES.get(atime, "relatime"))
    if names:
        raise _locked(names) from None
    # The one flag that is never locked goes as it does elsewhere.
    free = MOUNT_ATTR_NOSYMFOLLOW & (~add if options.get("exact") else remove)
    _change(mount_fd, add & ~(MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME), free)


def _remount(mount_fd: int, add: int, remove: int) -> None:
    """Change the flags of an attached mount by mount(2), which replaces all of them.

    Access times stay as they are when none of their flags is given.
    """
    flags, atime = _has(mount_fd)
    wanted = flags & ~remove | add
    ms = sum(flag for attribute, flag, _, _ in _FLAGS if wanted & attribute)
    if (add | remove) & (MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME):
        ms |= _MS_ATIMES[add & MOUNT_ATTR__ATIME if remove & MOUNT_ATTR__ATIME else atime]
    else:
        ms &= ~MS_NODIRATIME
    mounts.mount("", f"/proc/self/fd/{mount_fd}", "", MS_REMOUNT | MS_BIND | ms)
    if add & MOUNT_ATTR_NOSYMFOLLOW and not _has(mount_fd)[0] & MOUNT_ATTR_NOSYMFOLLOW:
        raise Error(f"nosymfollow needs Linux 5.10, this is {posix.uname().release}")


def filesystem(
    kind: str,
    source: str,
    target: int,
    again: Callable[[], int],
    options: FileSystem,
    attributes: int,
    fill: Callable[[int], None] | None = None,
) -> int:
    """Mount a new file system on what `target` refers to: a descriptor of it.

    `again` is as for `bind`; `fill` is given the mount before anybody can see it.
    """
    mount_fd = new_filesystem(kind, source, options, attributes)
    if mount_fd is not None:
        if fill is not None:
            fill(mount_fd)
        if move(mount_fd, target):
            return mount_fd
        files.close(mount_fd)
    mount_onto(target, kind, source, options["ms"] & ~_MS_FLAGS | _ms(attributes), options["data"])
    mount_fd = on_top(target, again)
    if fill is not None:
        fill(mount_fd)
    return mount_fd


# A device node is the host's, whose mode, owner and times are to stay; read-only says nothing about
# the device itself.
NODE: Final[Flags] = {"set": MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, "clear": 0}


def on_top(target: int, again: Callable[[], int], same: int = -1) -> int:
    """Open what mount(2) has just put on `target`, by opening its place `again`.

    Only for kernels without open_tree(2) and move_mount(2), where a mount has no descriptor of its
    own.  Somebody may have put another directory there meanwhile, so what is found must lie where
    `target` lies, and be the same file as `same` if that is one.
    """
    fd = again()
    places = {entries.readlink(f"/proc/self/fd/{one}") for one in (fd, target)}
    found, wanted = files.fstat(fd), files.fstat(same if same >= 0 else fd)
    if len(places) > 1 or (found.st_dev, found.st_ino) != (wanted.st_dev, wanted.st_ino):
        files.close(fd)
        raise Error(f"{places.pop()} was replaced while it was being mounted")
    return fd


def read_only(mount_fd: int) -> None:
    """Make one mount read-only."""
    set_flags(mount_fd, READ_ONLY)


READ_ONLY: Final[Flags] = {"set": MOUNT_ATTR_RDONLY, "clear": 0}
NO_FLAGS: Final[Flags] = {"set": 0, "clear": 0}
RESTRICTED: Final = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
PROC_ROOT_INODE: Final = 1
