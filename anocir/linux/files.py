"""Files, directories and descriptors: the calls that the interpreter offers itself.

Side: host and init.  No ctypes.  A path is str (UTF-8, surrogateescape) or bytes; every
descriptor that is made is close-on-exec.  Callers write `files.open(...)`: with `--trace` the
functions of this module are replaced by ones that log.
"""

from __future__ import annotations

import sys as _sys
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# include/uapi/asm-generic/fcntl.h
AT_FDCWD: Final = -100
O_RDONLY: Final = posix.O_RDONLY
O_WRONLY: Final = posix.O_WRONLY
O_RDWR: Final = posix.O_RDWR
O_CREAT: Final = posix.O_CREAT
O_EXCL: Final = posix.O_EXCL
O_APPEND: Final = posix.O_APPEND
O_TRUNC: Final = posix.O_TRUNC
O_CLOEXEC: Final = posix.O_CLOEXEC
O_DIRECTORY: Final = posix.O_DIRECTORY
O_NOFOLLOW: Final = posix.O_NOFOLLOW
O_NONBLOCK: Final = posix.O_NONBLOCK
O_NOCTTY: Final = posix.O_NOCTTY
O_PATH: Final = posix.O_PATH
# include/uapi/linux/stat.h
S_IFMT: Final = 0o170000
S_ISGID: Final = 0o2000
S_IFDIR: Final = 0o040000
S_IFREG: Final = 0o100000
S_IFLNK: Final = 0o120000
S_IFCHR: Final = 0o020000
S_IFBLK: Final = 0o060000
S_IFIFO: Final = 0o010000
S_IFSOCK: Final = 0o140000
# What `device` says of the null device (Documentation/admin-guide/devices.txt).
NULL_DEVICE: Final = (S_IFCHR, 1 << 8 | 3)


# include/uapi/asm-generic/errno-base.h and errno.h
_EPERM: Final = 1
_ENOSYS: Final = 38


def missing(error: OSError) -> bool:
    """Tell whether an error may mean that there is no such system call.

    The kernel says ENOSYS; a container engine that is older than the call has a seccomp filter
    around us that says EPERM.  Where the call itself may say EPERM as well, what is tried in its
    place says so again.
    """
    return error.errno in (_ENOSYS, _EPERM)


def encode(path: str | bytes) -> bytes:
    """Return the bytes of a path, whatever the locale says."""
    return path.encode("utf-8", "surrogateescape") if isinstance(path, str) else path


def decode(path: bytes) -> str:
    """Return the text of a path; `encode` gives the same bytes back."""
    return path.decode("utf-8", "surrogateescape")


# Those of descriptors alone are the interpreter's own, without a frame of ours around them.
# close(2).
close: Final = posix.close
# read(2): up to `size` bytes, empty at the end of the file.
read: Final = posix.read
# write(2): the number of bytes that were written.
write: Final = posix.write
# dup2(2); `inheritable` says whether the copy survives execve(2).
dup2: Final = posix.dup2
# Clear or set close-on-exec.
set_inheritable: Final = posix.set_inheritable
# fstat(2), also of an O_PATH descriptor.
fstat: Final = posix.fstat
# statvfs(3): f_flag has the ST_* flags of the mount.
fstatvfs: Final = posix.fstatvfs
# makedev(3).
makedev: Final = posix.makedev
# fchmod(2).
fchmod: Final = posix.fchmod
# fchown(2).
fchown: Final = posix.fchown
# fchdir(2).
fchdir: Final = posix.fchdir
# umask(2): the old mask.
umask: Final = posix.umask
# Tell whether a descriptor is a terminal.
isatty: Final = posix.isatty


def open(path: str | bytes, flags: int, mode: int = 0o666, dir_fd: int | None = None) -> int:
    """open(2) or openat(2), always with O_CLOEXEC.  Returns a descriptor the caller owns."""
    return posix.open(encode(path), flags | O_CLOEXEC, mode, dir_fd=dir_fd)


def write_all(fd: int, data: bytes) -> None:
    """write(2) until all of `data` is written."""
    while data:
        data = data[write(fd, data) :]


def read_fd(fd: int, limit: int = 64 << 20) -> bytes:
    """Read a descriptor to its end, `limit` bytes at the most."""
    data = read(fd, 65536)
    if len(data) < 4096:  # files of /proc and /sys give all that they have in one read
        more = read(fd, 65536) if data else b""
        if not more:
            return data
        data += more
    parts = [data]
    size = len(data)
    while size < limit:
        data = read(fd, min(1 << 20, limit - size))
        if not data:
            break
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def read_file(path: str | bytes, dir_fd: int | None = None, limit: int = 64 << 20) -> bytes:
    """Return what a file holds, `limit` bytes at the most."""
    fd = open(path, O_RDONLY, dir_fd=dir_fd)
    try:
        return read_fd(fd, limit)
    finally:
        close(fd)


def write_file(path: str | bytes, data: str | bytes, dir_fd: int | None = None) -> None:
    """Write `data` with one write(2) into a file that exists: the way of /proc and /sys.

    Raises OSError with the path also where the write fails.
    """
    fd = open(path, O_WRONLY, dir_fd=dir_fd)
    try:
        write(fd, encode(data))
    except OSError as error:
        raise OSError(error.errno, error.strerror, path) from None
    finally:
        close(fd)


def stat(path: str | bytes, dir_fd: int | None = None) -> posix.stat_result:
    """stat(2): follows a symbolic link."""
    return posix.stat(encode(path), dir_fd=dir_fd)


def lstat(path: str | bytes, dir_fd: int | None = None) -> posix.stat_result:
    """lstat(2): does not follow a symbolic link."""
    return posix.stat(encode(path), dir_fd=dir_fd, follow_symlinks=False)


def kind(found: posix.stat_result) -> int:
    """Return what a file is, as S_IF*."""
    return found.st_mode & S_IFMT


def device(found: posix.stat_result) -> tuple[int, int]:
    """Return what a file is, and which device if it is one: makedev(3)."""
    return found.st_mode & S_IFMT, found.st_rdev


def exists(path: str | bytes, dir_fd: int | None = None) -> bool:
    """Tell whether a path is there, following links."""
    try:
        stat(path, dir_fd)
    except OSError:
        return False
    return True


def rmdir(path: str | bytes, dir_fd: int | None = None) -> None:
    """rmdir(2)."""
    posix.rmdir(encode(path), dir_fd=dir_fd)


def unlink(path: str | bytes, dir_fd: int | None = None) -> None:
    """unlink(2)."""
    posix.unlink(encode(path), dir_fd=dir_fd)


def listdir(path: str | bytes | int) -> list[str]:
    """getdents(2): the names in a directory, without . and .."""
    if isinstance(path, int):
        # Decoded by the locale, unlike every other name.
        encoding = _sys.getfilesystemencoding()
        return [decode(name.encode(encoding, "surrogateescape")) for name in posix.listdir(path)]
    return [decode(name) for name in posix.listdir(encode(path))]
