"""Descriptors: copied, locked, asked: fcntl(2), flock(2), ioctl(2), pipe(2).

Side: host and init.  No ctypes.  Apart from `files` because `_fcntl` makes a name for each of its
constants, and hot commands that take no lock do without.
"""

from __future__ import annotations

import fcntl as _fcntl

import posix


def dup_above(fd: int, lowest: int) -> int:
    """fcntl(2) F_DUPFD_CLOEXEC: a copy with a number of at least `lowest`."""
    return _fcntl.fcntl(fd, _fcntl.F_DUPFD_CLOEXEC, lowest)


def pipe() -> tuple[int, int]:
    """pipe2(2) with O_CLOEXEC: the end to read, the end to write."""
    return posix.pipe2(posix.O_CLOEXEC)


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


def status_flags(fd: int) -> int:
    """fcntl(2) F_GETFL: how a descriptor was opened, and its O_NONBLOCK."""
    return _fcntl.fcntl(fd, _fcntl.F_GETFL)
