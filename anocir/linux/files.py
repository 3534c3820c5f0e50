"""Files, directories and descriptors: the calls that the interpreter offers itself.

Side: host and init.  No ctypes.  A path is str (UTF-8, surrogateescape) or bytes; every
descriptor that is made is close-on-exec.  Callers write `files.open(...)`: with `--trace` the
functions of this module are replaced by ones that log.
"""

from __future__ import annotations

import fcntl as _fcntl
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


def open(path: str | bytes, flags: int, mode: int = 0o666, dir_fd: int | None = None) -> int:
    """open(2) or openat(2), always with O_CLOEXEC.  Returns a descriptor the caller owns."""
    return posix.open(encode(path), flags | O_CLOEXEC, mode, dir_fd=dir_fd)


def close(fd: int) -> None:
    """close(2)."""
    posix.close(fd)


def read(fd: int, size: int) -> bytes:
    """read(2): up to `size` bytes, empty at the end of the file."""
    return posix.read(fd, size)


def write(fd: int, data: bytes) -> int:
    """write(2): the number of bytes that were written."""
    return posix.write(fd, data)


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


def dup2(fd: int, target: int, inheritable: bool = True) -> None:
    """dup2(2); `inheritable` says whether the copy survives execve(2)."""
    posix.dup2(fd, target, inheritable)


def dup_above(fd: int, lowest: int) -> int:
    """fcntl(2) F_DUPFD_CLOEXEC: a copy with a number of at least `lowest`."""
    return _fcntl.fcntl(fd, _fcntl.F_DUPFD_CLOEXEC, lowest)


def set_inheritable(fd: int, inheritable: bool) -> None:
    """Clear or set close-on-exec."""
    posix.set_inheritable(fd, inheritable)


def status_flags(fd: int) -> int:
    """fcntl(2) F_GETFL: how a descriptor was opened, and its O_NONBLOCK."""
    return _fcntl.fcntl(fd, _fcntl.F_GETFL)


def pipe() -> tuple[int, int]:
    """pipe2(2) with O_CLOEXEC: the end to read, the end to write."""
    return posix.pipe2(O_CLOEXEC)


def flock(fd: int, wait: bool = True) -> bool:
    """flock(2) LOCK_EX; without `wait`, tell whether the lock was had."""
    try:
        _fcntl.flock(fd, _fcntl.LOCK_EX | (0 if wait else _fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


def funlock(fd: int) -> None:
    """flock(2) LOCK_UN."""
    _fcntl.flock(fd, _fcntl.LOCK_UN)


def ioctl(fd: int, request: int, argument: int | bytes = 0) -> int | bytes:
    """ioctl(2): the result, or the changed bytes when `argument` is bytes."""
    return _fcntl.ioctl(fd, request, argument)


def stat(path: str | bytes, dir_fd: int | None = None) -> posix.stat_result:
    """stat(2): follows a symbolic link."""
    return posix.stat(encode(path), dir_fd=dir_fd)


def lstat(path: str | bytes, dir_fd: int | None = None) -> posix.stat_result:
    """lstat(2): does not follow a symbolic link."""
    return posix.stat(encode(path), dir_fd=dir_fd, follow_symlinks=False)


def fstat(fd: int) -> posix.stat_result:
    """fstat(2), also of an O_PATH descriptor."""
    return posix.fstat(fd)


def kind(found: posix.stat_result) -> int:
    """Return what a file is, as S_IF*."""
    return found.st_mode & S_IFMT


def device(found: posix.stat_result) -> tuple[int, int]:
    """Return what a file is, and which device if it is one: makedev(3)."""
    return found.st_mode & S_IFMT, found.st_rdev


def fstatvfs(fd: int) -> posix.statvfs_result:
    """statvfs(3): f_flag has the ST_* flags of the mount."""
    return posix.fstatvfs(fd)


def exists(path: str | bytes, dir_fd: int | None = None) -> bool:
    """Tell whether a path is there, following links."""
    try:
        stat(path, dir_fd)
    except OSError:
        return False
    return True


def mkdir(path: str | bytes, mode: int = 0o755, dir_fd: int | None = None) -> None:
    """mkdir(2) or mkdirat(2); the umask applies."""
    posix.mkdir(encode(path), mode, dir_fd=dir_fd)


def rmdir(path: str | bytes, dir_fd: int | None = None) -> None:
    """rmdir(2)."""
    posix.rmdir(encode(path), dir_fd=dir_fd)


def unlink(path: str | bytes, dir_fd: int | None = None) -> None:
    """unlink(2)."""
    posix.unlink(encode(path), dir_fd=dir_fd)


def rename(
    source: str | bytes,
    target: str | bytes,
    source_dir_fd: int | None = None,
    target_dir_fd: int | None = None,
) -> None:
    """rename(2) or renameat(2)."""
    posix.rename(encode(source), encode(target), src_dir_fd=source_dir_fd, dst_dir_fd=target_dir_fd)


def symlink(target: str | bytes, path: str | bytes, dir_fd: int | None = None) -> None:
    """symlink(2): make the link `path` that says `target`."""
    posix.symlink(encode(target), encode(path), dir_fd=dir_fd)


def readlink(path: str | bytes, dir_fd: int | None = None) -> str:
    """readlink(2), as text."""
    return decode(posix.readlink(encode(path), dir_fd=dir_fd))


def mknod(path: str | bytes, mode: int, device: int = 0, dir_fd: int | None = None) -> None:
    """mknod(2); the umask applies."""
    posix.mknod(encode(path), mode, device, dir_fd=dir_fd)


def makedev(major: int, minor: int) -> int:
    """makedev(3)."""
    return posix.makedev(major, minor)


def chmod(path: str | bytes, mode: int) -> None:
    """chmod(2): follows a symbolic link."""
    posix.chmod(encode(path), mode)


def fchmod(fd: int, mode: int) -> None:
    """fchmod(2)."""
    posix.fchmod(fd, mode)


def chown(
    path: str | bytes, uid: int, gid: int, dir_fd: int | None = None, follow: bool = True
) -> None:
    """chown(2) or fchownat(2); -1 leaves an id as it is."""
    posix.chown(encode(path), uid, gid, dir_fd=dir_fd, follow_symlinks=follow)


def fchown(fd: int, uid: int, gid: int) -> None:
    """fchown(2)."""
    posix.fchown(fd, uid, gid)


def listdir(path: str | bytes | int) -> list[str]:
    """getdents(2): the names in a directory, without . and .."""
    if isinstance(path, int):
        # Decoded by the locale, unlike every other name.
        encoding = _sys.getfilesystemencoding()
        return [decode(name.encode(encoding, "surrogateescape")) for name in posix.listdir(path)]
    return [decode(name) for name in posix.listdir(encode(path))]


def subdirectories(fd: int) -> list[str]:
    """getdents(2): the names of the directories in an open directory, by what it says they are."""
    encoding = _sys.getfilesystemencoding()
    with posix.scandir(fd) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [decode(name.encode(encoding, "surrogateescape")) for name in names]


def chdir(path: str | bytes) -> None:
    """chdir(2)."""
    posix.chdir(encode(path))


def fchdir(fd: int) -> None:
    """fchdir(2)."""
    posix.fchdir(fd)


def chroot(path: str | bytes) -> None:
    """chroot(2)."""
    posix.chroot(encode(path))


def getcwd() -> str:
    """getcwd(2)."""
    return decode(posix.getcwdb())


def umask(mask: int) -> int:
    """umask(2): the old mask."""
    return posix.umask(mask)


def isatty(fd: int) -> bool:
    """Tell whether a descriptor is a terminal."""
    return posix.isatty(fd)
