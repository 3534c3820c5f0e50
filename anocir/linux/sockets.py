"""Sockets without the socket module, which costs 0.15 ms where each 0.1 ms is felt.

Side: host.  Source: socketpair(2).
"""

from __future__ import annotations

from _struct import unpack

from . import ffi
from .files import O_CLOEXEC

_socketpair = ffi.syscall("socketpair", ffi.INT, ffi.INT, ffi.INT, ffi.BUF)

# include/linux/socket.h, include/linux/net.h
_AF_UNIX = 1
_SOCK_STREAM = 1


def pair() -> tuple[int, int]:
    """socketpair(2): two connected Unix stream sockets, closed by execve.  Raises OSError."""
    fds = bytearray(8)
    _socketpair(_AF_UNIX, _SOCK_STREAM | O_CLOEXEC, 0, fds)
    one, other = unpack("=2i", fds)
    return one, other
