"""Sockets without the socket module, which costs 0.15 ms in each of the two processes.

Side: host and init.  Sources: socketpair(2), socket(2), sendmsg(2), unix(7), cmsg(3).
"""

from __future__ import annotations

from _struct import calcsize, iter_unpack, pack, unpack, unpack_from

from . import ffi
from .files import O_CLOEXEC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_socketpair = ffi.syscall("socketpair", ffi.INT, ffi.INT, ffi.INT, ffi.BUF)
_socket = ffi.syscall("socket", ffi.INT, ffi.INT, ffi.INT)
_sendmsg = ffi.syscall("sendmsg", ffi.INT, ffi.BUF, ffi.INT)
_recvmsg = ffi.syscall("recvmsg", ffi.INT, ffi.BUF, ffi.INT)

# include/linux/socket.h, include/linux/net.h
_AF_UNIX = 1
_SOCK_STREAM = 1
_SOCK_DGRAM = 2
_SOL_SOCKET = 1
_SCM_RIGHTS = 1
_MSG_NOSIGNAL = 0x4000
_MSG_CMSG_CLOEXEC = 0x40000000

_MAX_FDS = 253  # SCM_MAX_FD
# struct msghdr without a name, struct iovec and struct cmsghdr, of 64 bits.
_MESSAGE = "=QQQQQQQ"
_VECTOR = "=QQ"
_CONTROL = "=Qii"


def pair() -> tuple[int, int]:
    """socketpair(2): two connected Unix stream sockets, closed by execve.  Raises OSError."""
    fds = bytearray(8)
    _socketpair(_AF_UNIX, _SOCK_STREAM | O_CLOEXEC, 0, fds)
    one, other = unpack("=2i", fds)
    return one, other


def datagram() -> int:
    """socket(2): a Unix datagram socket, closed by execve: a place to ask the network stack at."""
    return _socket(_AF_UNIX, _SOCK_DGRAM | O_CLOEXEC, 0)


def send(fd: int, data: bytes, fds: Sequence[int]) -> int:
    """sendmsg(2): send bytes with descriptors, one of each at the least; return how many went.

    Raises OSError: EPIPE, without a signal, when nobody is there.
    """
    size = calcsize(_CONTROL) + 4 * len(fds)
    control = pack(_CONTROL, size, _SOL_SOCKET, _SCM_RIGHTS) + pack(f"={len(fds)}i", *fds)
    return _message(_sendmsg, fd, bytearray(data), bytearray(control), _MSG_NOSIGNAL)[0]


def receive(fd: int, size: int) -> tuple[bytes, list[int]]:
    """recvmsg(2): up to `size` bytes, none at the end of the stream, and the descriptors with them.

    Those are closed by execve.  Raises OSError.
    """
    data = bytearray(size)
    control = bytearray(calcsize(_CONTROL) + 4 * _MAX_FDS)
    count, filled = _message(_recvmsg, fd, data, control, _MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    at = 0
    while at + calcsize(_CONTROL) <= filled:
        length, level, kind = unpack_from(_CONTROL, control, at)
        rights = control[at + calcsize(_CONTROL) : min(at + length, filled)]
        if (level, kind) == (_SOL_SOCKET, _SCM_RIGHTS):
            fds += [one for (one,) in iter_unpack("=i", rights[: len(rights) // 4 * 4])]
        at += max(length + 7 & ~7, calcsize(_CONTROL))
    return bytes(data[:count]), fds


def _message(
    call: Callable[..., int], fd: int, data: bytearray, control: bytearray, flags: int
) -> tuple[int, int]:
    """Send or receive one message; return its length, and that of what came with it."""
    vector = bytearray(pack(_VECTOR, ffi.address(data), len(data)))
    message = bytearray(
        pack(_MESSAGE, 0, 0, ffi.address(vector), 1, ffi.address(control), len(control), 0)
    )
    count = call(fd, message, flags)
    return count, unpack_from("=Q", message, 40)[0]
