"""rtnetlink: what a new network namespace needs.

Side: init.  Source: rtnetlink(7), netlink(7).
"""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

_RTM_NEWLINK = 16
_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_NLMSG_ERROR = 2
_IFF_UP = 1
_AF_NETLINK = 16
_SOCK_RAW = 3


def _request(message: bytes) -> None:
    sock = _socket.socket(_AF_NETLINK, _SOCK_RAW, 0)
    try:
        sock.send(message)
        reply = sock.recv(4096)
    finally:
        sock.close()
    kind = unpack_from("=H", reply, 4)[0]
    code = unpack_from("=i", reply, 16)[0] if kind == _NLMSG_ERROR else 0
    if code:
        raise OSError(-code, "netlink")


def set_link_up(index: int) -> None:
    """Bring the interface with this index up: the loopback interface has index 1."""
    body = pack("=BxHiII", 0, 0, index, _IFF_UP, _IFF_UP)
    header = pack("=IHHII", 16 + len(body), _RTM_NEWLINK, _NLM_F_REQUEST | _NLM_F_ACK, 1, 0)
    try:
        _request(header + body)
    except OSError as error:
        raise OSError(error.errno, "netlink", "lo") from None
