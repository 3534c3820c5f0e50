"""tmpcopyup: what a directory of the image holds is copied into the tmpfs that will cover it.

Side: init.  Works on descriptors only and follows no link.  Source: Podman's and crun's mount
option of that name.
"""

from __future__ import annotations

import posix

from ..linux import ffi, files
from ..linux.const import ELOOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_CHUNK: Final = 1 << 20
_NOFOLLOW: Final = files.O_PATH | files.O_NOFOLLOW
# XATTR_LIST_MAX and XATTR_SIZE_MAX of include/uapi/linux/limits.h
_ATTRIBUTES_MAX: Final = 65536

# An interpreter that is linked with musl does not offer these.
_flistxattr = ffi.syscall("flistxattr", ffi.INT, ffi.BUF, ffi.INT)
_fgetxattr = ffi.syscall("fgetxattr", ffi.INT, ffi.STR, ffi.BUF, ffi.INT)
_fsetxattr = ffi.syscall("fsetxattr", ffi.INT, ffi.STR, ffi.BUF, ffi.INT, ffi.INT)


def copy(source_fd: int, target_fd: int) -> None:
    """Copy the contents of a directory: modes, owners, times, extended attributes, links."""
    found = files.fstat(source_fd)
    readable = files.open(".", files.O_RDONLY | files.O_DIRECTORY, dir_fd=source_fd)
    try:
        for name in files.listdir(readable):
            _entry(source_fd, target_fd, name)
    finally:
        files.close(readable)
    writable = files.open(".", files.O_RDONLY | files.O_DIRECTORY, dir_fd=target_fd)
    try:
        files.fchown(writable, found.st_uid, found.st_gid)
        files.fchmod(writable, found.st_mode & 0o7777)
    finally:
        files.close(writable)


def _entry(source_fd: int, target_fd: int, name: str) -> None:
    found = files.lstat(name, dir_fd=source_fd)
    kind = found.st_mode & files.S_IFMT
    if kind == files.S_IFLNK:
        files.symlink(files.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        files.chown(name, found.st_uid, found.st_gid, dir_fd=target_fd, follow=False)
        return
    if kind == files.S_IFDIR:
        files.mkdir(name, 0o700, dir_fd=target_fd)
        inner = files.open(name, _NOFOLLOW | files.O_DIRECTORY, dir_fd=source_fd)
        outer = files.open(name, _NOFOLLOW | files.O_DIRECTORY, dir_fd=target_fd)
        try:
            copy(inner, outer)
        finally:
            files.close(inner)
            files.close(outer)
        return
    if kind != files.S_IFREG:
        files.mknod(name, found.st_mode, found.st_rdev, dir_fd=target_fd)
        files.chown(name, found.st_uid, found.st_gid, dir_fd=target_fd, follow=False)
        return
    looked_at = files.open(name, _NOFOLLOW, dir_fd=source_fd)
    try:
        # Opening a device has effects, and somebody may have put one here meanwhile.
        if files.fstat(looked_at).st_mode & files.S_IFMT != files.S_IFREG:
            raise OSError(ELOOP, "open", name)
        inner = files.open(f"/proc/self/fd/{looked_at}", files.O_RDONLY)
    finally:
        files.close(looked_at)
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
    outer = files.open(name, flags, 0o600, dir_fd=target_fd)
    try:
        while True:
            data = files.read(inner, _CHUNK)
            if not data:
                break
            files.write_all(outer, data)
        files.fchown(outer, found.st_uid, found.st_gid)
        files.fchmod(outer, found.st_mode & 0o7777)
        _copy_attributes(inner, outer)
        posix.utime(outer, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        files.close(inner)
        files.close(outer)


def _copy_attributes(source_fd: int, target_fd: int) -> None:
    """Copy the extended attributes of a file: xattr(7)."""
    names, value = bytearray(_ATTRIBUTES_MAX), bytearray(_ATTRIBUTES_MAX)
    size = _flistxattr(source_fd, names, len(names))
    for name in bytes(names[:size]).split(b"\0")[:-1]:
        length = _fgetxattr(source_fd, name, value, len(value))
        _fsetxattr(target_fd, name, value, length, 0)
