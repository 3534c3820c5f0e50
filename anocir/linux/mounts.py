"""Mounts: system calls that the interpreter does not offer.

Side: host and init.  Sources: mount(2), umount2(2), pivot_root(2), fsopen(2),
fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2).
"""

from __future__ import annotations

from _struct import pack

from . import ffi, files
from .const import (
    AT_EMPTY_PATH,
    FSCONFIG_CMD_CREATE,
    FSCONFIG_SET_FD,
    FSCONFIG_SET_FLAG,
    FSCONFIG_SET_STRING,
    FSMOUNT_CLOEXEC,
    FSOPEN_CLOEXEC,
    MOVE_MOUNT_F_EMPTY_PATH,
    MOVE_MOUNT_T_EMPTY_PATH,
    OPEN_TREE_CLOEXEC,
)
from .errnos import EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_INT, _STR, _BUF = ffi.INT, ffi.STR, ffi.BUF
_mount = ffi.syscall("mount", _STR, _STR, _STR, _INT, _BUF)
_umount2 = ffi.syscall("umount2", _STR, _INT)
_pivot_root = ffi.syscall("pivot_root", _STR, _STR)
_fsopen = ffi.syscall("fsopen", _STR, _INT)
_fsconfig = ffi.syscall("fsconfig", _INT, _INT, _BUF, _BUF, _INT)
_fsmount = ffi.syscall("fsmount", _INT, _INT, _INT)
_open_tree = ffi.syscall("open_tree", _INT, _STR, _INT)
_move_mount = ffi.syscall("move_mount", _INT, _STR, _INT, _STR, _INT)
_mount_setattr = ffi.syscall("mount_setattr", _INT, _STR, _INT, _BUF, _INT)


def mount(
    source: str | bytes, target: str | bytes, fstype: str, flags: int, data: str | bytes = b""
) -> None:
    """mount(2).  `data` is the comma-joined options of the file system, empty for none."""
    options = ffi.encode(data)
    try:
        _mount(source, target, fstype, flags, options + b"\0" if options else None)
    except OSError as error:
        raise OSError(error.errno, "mount", target) from None


def umount2(target: str | bytes, flags: int) -> None:
    """umount2(2)."""
    _umount2(target, flags)


def pivot_root(new_root: str | bytes, put_old: str | bytes) -> None:
    """pivot_root(2): both may be "." when the new root is the working directory."""
    _pivot_root(new_root, put_old)


def fsopen(fstype: str) -> int:
    """fsopen(2), since Linux 5.2: the descriptor of a file system that is being set up."""
    return _fsopen(fstype, FSOPEN_CLOEXEC)


def fsconfig_string(fs_fd: int, key: str, value: str | bytes) -> None:
    """fsconfig(2) FSCONFIG_SET_STRING: the option key=value."""
    _fsconfig(fs_fd, FSCONFIG_SET_STRING, ffi.encode(key) + b"\0", ffi.encode(value) + b"\0", 0)


def fsconfig_flag(fs_fd: int, key: str) -> None:
    """fsconfig(2) FSCONFIG_SET_FLAG: an option without a value."""
    _fsconfig(fs_fd, FSCONFIG_SET_FLAG, ffi.encode(key) + b"\0", None, 0)


def fsconfig_options(fs_fd: int, options: Sequence[str]) -> None:
    """Set options as mount(8) spells them: key=value, or a word that is a flag."""
    for option in options:
        key, equals, value = option.partition("=")
        if equals:
            fsconfig_string(fs_fd, key, value)
        else:
            fsconfig_flag(fs_fd, key)


def fsconfig_fd(fs_fd: int, key: str, fd: int) -> None:
    """fsconfig(2) FSCONFIG_SET_FD: an option whose value is a descriptor."""
    _fsconfig(fs_fd, FSCONFIG_SET_FD, ffi.encode(key) + b"\0", None, fd)


def fsconfig_create(fs_fd: int) -> None:
    """fsconfig(2) FSCONFIG_CMD_CREATE: make the superblock."""
    _fsconfig(fs_fd, FSCONFIG_CMD_CREATE, None, None, 0)


def fsmount(fs_fd: int, attributes: int) -> int:
    """fsmount(2): a detached mount as an O_PATH descriptor; MOUNT_ATTR_* as attributes."""
    return _fsmount(fs_fd, FSMOUNT_CLOEXEC, attributes)


def open_tree(dir_fd: int, path: str | bytes, flags: int) -> int:
    """open_tree(2), since Linux 5.2; with OPEN_TREE_CLONE a detached copy of the mount."""
    return _open_tree(dir_fd, path, flags | OPEN_TREE_CLOEXEC)


def move_mount(mount_fd: int, target_fd: int) -> None:
    """move_mount(2): attach a (detached) mount onto what `target_fd` refers to.

    Both ends are descriptors, so no path is looked up again.
    """
    _move_mount(mount_fd, "", target_fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH)


def mount_setattr(
    mount_fd: int,
    flags: int,
    set_attributes: int = 0,
    clear_attributes: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
    path: str = "",
) -> None:
    """mount_setattr(2), since Linux 5.12: change MOUNT_ATTR_* and MS_* propagation of a mount.

    `flags` are AT_EMPTY_PATH and AT_RECURSIVE; id-mapping takes the user namespace `userns_fd`.
    """
    attributes = pack("=QQQQ", set_attributes, clear_attributes, propagation, userns_fd)
    _mount_setattr(mount_fd, path, flags, attributes, len(attributes))


def has_mount_setattr() -> bool:
    """Tell whether mount_setattr(2) is there: then arguments of no size are EINVAL."""
    try:
        _mount_setattr(-1, "", 0, None, 0)
    except OSError as error:
        return not files.missing(error)
    return True


def has_open_tree() -> bool:
    """Tell whether open_tree(2) is there: then flags that nobody knows are EINVAL."""
    try:
        _open_tree(-1, "", 1 << 30)
    except OSError as error:
        return not files.missing(error)
    return True


def has_detached() -> bool:
    """Tell whether all calls for detached mounts are there: since Linux 5.12, the first since 5.2.

    Each is asked for nonsense.  EPERM is a filter's word only where mount(2) does not say it too.
    """
    may_mount = True
    calls: tuple[Callable[[], object], ...] = (
        lambda: mount("", "/", "nothing", 0), lambda: open_tree(-1, "", 0),
        lambda: move_mount(-1, -1), lambda: fsopen("nothing"), lambda: fsconfig_create(-1),
        lambda: fsmount(-1, 0), lambda: mount_setattr(-1, AT_EMPTY_PATH),
    )  # fmt: skip
    for index, call in enumerate(calls):
        try:
            call()
        except OSError as error:
            if files.missing(error) and (error.errno != EPERM or (index and may_mount)):
                return False
            may_mount = may_mount and error.errno != EPERM
    return True
