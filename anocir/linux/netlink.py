"""rtnetlink: network interfaces and their addresses.

Side: init (the loopback interface) and host (interfaces that move into a container).
Source: rtnetlink(7), netlink(7), include/uapi/linux/{rtnetlink,if_link,if_addr}.h.

A socket belongs to the network namespace in which it was made, whoever uses it later.
"""

from __future__ import annotations

import _socket
from _struct import pack, unpack_from

from ..errors import named

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Final

_AF_NETLINK: Final = 16
_SOCK_RAW: Final = 3
_NLM_F_REQUEST: Final = 0x001
_NLM_F_ACK: Final = 0x004
_NLM_F_DUMP: Final = 0x300
_NLM_F_CREATE_EXCL: Final = 0x600
_NLMSG_ERROR: Final = 2
_NLMSG_DONE: Final = 3
_RTM_NEWLINK: Final = 16
_RTM_GETLINK: Final = 18
_RTM_NEWADDR: Final = 20
_RTM_GETADDR: Final = 22
_IFLA_IFNAME: Final = 3
_IFLA_NET_NS_FD: Final = 28
_IFA_LABEL: Final = 3
_IFA_FLAGS: Final = 8
_BUFFER: Final = 1 << 18

IFF_UP: Final = 1
IFA_F_PERMANENT: Final = 0x80
RT_SCOPE_UNIVERSE: Final = 0
# What a caller may say of an address: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE,
# MCAUTOJOIN.  The other flags tell how the kernel is getting on with it.
_IFA_F_SETTABLE: Final = 0x02 | 0x10 | 0x100 | 0x200 | 0x400

# family, prefix length, flags, scope, attributes (number, bytes)
if TYPE_CHECKING:
    Address = tuple[int, int, int, int, list[tuple[int, bytes]]]


def open() -> _socket.socket:
    """socket(2) AF_NETLINK in the present network namespace, close-on-exec."""
    sock = named("socket", _socket.socket, _AF_NETLINK, _SOCK_RAW, 0)
    sock.bind((0, 0))
    return sock


def _attribute(number: int, value: bytes) -> bytes:
    """Return one struct rtattr, padded to 4 bytes."""
    return pack("=HH", 4 + len(value), number) + value + bytes(-len(value) % 4)


def _attributes(data: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    while offset + 4 <= len(data):
        size, number = unpack_from("=HH", data, offset)
        if size < 4:
            return
        yield number & 0x3FFF, data[offset + 4 : offset + size]
        offset += (size + 3) & ~3


def _request(sock: _socket.socket, kind: int, flags: int, body: bytes) -> list[tuple[int, bytes]]:
    """Send one message and return the answers (type, body).  Raises OSError for an error."""
    header = pack("=IHHII", 16 + len(body), kind, _NLM_F_REQUEST | flags, 1, 0)
    sock.send(header + body)
    answers: list[tuple[int, bytes]] = []
    while True:
        data = sock.recv(_BUFFER)
        offset = 0
        while offset + 16 <= len(data):
            size, answer = unpack_from("=IH", data, offset)
            if answer == _NLMSG_ERROR:
                code = unpack_from("=i", data, offset + 16)[0]
                if code:
                    raise OSError(-code, "netlink")
                return answers
            if answer == _NLMSG_DONE:
                return answers
            answers.append((answer, data[offset + 16 : offset + size]))
            offset += (size + 3) & ~3
        if not data:
            return answers


def _change(sock: _socket.socket, index: int, flags: int, mask: int, attributes: bytes) -> None:
    body = pack("=BxHiII", 0, 0, index, flags, mask) + attributes
    _request(sock, _RTM_NEWLINK, _NLM_F_ACK, body)


def link(sock: _socket.socket, name: str) -> tuple[int, int]:
    """RTM_GETLINK: (index, IFF_* flags) of an interface.  Raises OSError (ENODEV)."""
    body = pack("=BxHiII", 0, 0, 0, 0, 0) + _attribute(_IFLA_IFNAME, name.encode() + b"\0")
    try:
        # With an acknowledgement, so that the answer has an end.
        for kind, data in _request(sock, _RTM_GETLINK, _NLM_F_ACK, body):
            if kind == _RTM_NEWLINK:
                _, index, flags = unpack_from("=HiI", data, 2)
                return index, flags
    except OSError as error:
        raise OSError(error.errno, "netlink", name) from None
    raise OSError(19, "netlink", name)  # ENODEV


def set_link_up(index: int, sock: _socket.socket) -> None:
    """RTM_NEWLINK: bring an interface of the socket's namespace up; the loopback has index 1."""
    try:
        _change(sock, index, IFF_UP, IFF_UP, b"")
    except OSError as error:
        name = "lo" if index == 1 else f"interface {index}"
        raise OSError(error.errno, "netlink", name) from None


def set_link_namespace(sock: _socket.socket, index: int, netns_fd: int, name: str) -> None:
    """RTM_NEWLINK IFLA_NET_NS_FD: move an interface into another namespace, under a new name.

    It goes down and loses its addresses; its index there may be another.
    """
    attributes = _attribute(_IFLA_NET_NS_FD, pack("=i", netns_fd))
    _change(sock, index, 0, 0, attributes + _attribute(_IFLA_IFNAME, name.encode() + b"\0"))


def set_link_name(sock: _socket.socket, index: int, name: str) -> None:
    """RTM_NEWLINK IFLA_IFNAME: rename an interface; the kernel puts a number for %d."""
    _change(sock, index, 0, 0, _attribute(_IFLA_IFNAME, name.encode() + b"\0"))


def addresses(sock: _socket.socket, index: int) -> list[Address]:
    """RTM_GETADDR: the addresses of an interface, of every family."""
    found: list[Address] = []
    for kind, data in _request(sock, _RTM_GETADDR, _NLM_F_DUMP, pack("=BBBBI", 0, 0, 0, 0, 0)):
        if kind != _RTM_NEWADDR or unpack_from("=I", data, 4)[0] != index:
            continue
        family, prefix, flags, scope = unpack_from("=BBBB", data, 0)
        attributes = list(_attributes(data, 8))
        for number, value in attributes:
            if number == _IFA_FLAGS:  # all 32 bits; the header has room for 8
                flags = unpack_from("=I", value)[0]
        found.append((family, prefix, flags, scope, attributes))
    return found


def add_address(sock: _socket.socket, index: int, address: Address) -> None:
    """RTM_NEWADDR: give an interface an address that `addresses` has told of another.

    The label is left out, since it begins with the name of the old interface.
    """
    family, prefix, flags, scope, attributes = address
    flags &= _IFA_F_SETTABLE
    body = pack("=BBBBI", family, prefix, flags & 0xFF, scope, index)
    for number, value in attributes:
        if number not in (_IFA_FLAGS, _IFA_LABEL):
            body += _attribute(number, value)
    body += _attribute(_IFA_FLAGS, pack("=I", flags))
    _request(sock, _RTM_NEWADDR, _NLM_F_ACK | _NLM_F_CREATE_EXCL, body)
