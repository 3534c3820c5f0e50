"""Files by descriptor: system calls that the interpreter does not offer.

Side: host and init.  Sources: openat2(2), fstatfs(2), statx(2), xattr(7).
"""

from __future__ import annotations

from _struct import pack, unpack_from

from . import ffi, files
from .const import AT_EMPTY_PATH, STATX_MNT_ID
from .files import O_CLOEXEC, read_file

_INT, _STR, _BUF = ffi.INT, ffi.STR, ffi.BUF
_openat2 = ffi.syscall("openat2", _INT, _STR, _BUF, _INT)
_fstatfs = ffi.syscall("fstatfs", _INT, _BUF)
_statx = ffi.syscall("statx", _INT, _STR, _INT, _INT, _BUF)
# An interpreter that is linked with musl does not offer these.
_flistxattr = ffi.syscall("flistxattr", _INT, _BUF, _INT)
_fgetxattr = ffi.syscall("fgetxattr", _INT, _STR, _BUF, _INT)
_fsetxattr = ffi.syscall("fsetxattr", _INT, _STR, _BUF, _INT, _INT)
# XATTR_LIST_MAX and XATTR_SIZE_MAX of include/uapi/linux/limits.h
_XATTR_MAX = 65536


def openat2(dir_fd: int, path: str | bytes, flags: int, resolve: int, mode: int = 0) -> int:
    """openat2(2), since Linux 5.6, always with O_CLOEXEC.  Returns a descriptor.

    EAGAIN means that a rename raced with a `..` of the path: the caller may try again.
    """
    how = pack("=QQQ", flags | O_CLOEXEC, mode, resolve)
    return _openat2(dir_fd, path, how, len(how))


def fstatfs_type(fd: int) -> int:
    """fstatfs(2): the magic number of the file system that `fd` lies on."""
    data = bytearray(120)
    _fstatfs(fd, data)
    return int(unpack_from("=q", data)[0])


def mount_id(fd: int) -> int:
    """statx(2) STATX_MNT_ID, since Linux 5.8: the number of the mount that `fd` lies on.

    On older kernels from /proc/self/fdinfo, which is the host's until the root is entered.
    """
    data = bytearray(256)
    try:
        _statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, data)
        if unpack_from("=I", data)[0] & STATX_MNT_ID:
            return int(unpack_from("=Q", data, 144)[0])
    except OSError as error:
        if not files.missing(error):
            raise
    return int(read_file(f"/proc/self/fdinfo/{fd}").partition(b"mnt_id:")[2].split()[0])


def flistxattr(fd: int) -> list[bytes]:
    """flistxattr(2): the names of a file's extended attributes."""
    names = bytearray(_XATTR_MAX)
    size = _flistxattr(fd, names, len(names))
    return bytes(names[:size]).split(b"\0")[:-1]


def fgetxattr(fd: int, name: bytes) -> bytes:
    """fgetxattr(2): the value of an extended attribute."""
    value = bytearray(_XATTR_MAX)
    size = _fgetxattr(fd, name, value, len(value))
    return bytes(value[:size])


def fsetxattr(fd: int, name: bytes, value: bytes) -> None:
    """fsetxattr(2): set an extended attribute, whether or not it was there."""
    _fsetxattr(fd, name, value, len(value), 0)
