"""linux.netDevices: interfaces of the host become the container's.

Side: host.  Source: config-linux.md, Network Devices; rtnetlink(7), network_namespaces(7).

The kernel takes an interface down and flushes its addresses when it moves.  Those that the
specification wants kept are given to it again.  What fails half-way is undone: a virtual
interface would otherwise be destroyed together with the namespace of the failed container.
"""

from __future__ import annotations

from ..base import log
from ..errors import at, Error, keyed, reason, strerror
from ..linux import files, netlink, tasks
from ..linux.const import CLONE_NEWNET
from ..linux.errnos import EEXIST, EINVAL, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

    from _socket import socket

    from ..linux.netlink import Address
    from ..model.schema import NetDevice

    # name here, index there, whether it was up, addresses
    Link = tuple[str, int, bool, list[Address]]

_HINTS: Final = {
    EEXIST: "the container's network namespace has an interface of this name",
    EINVAL: "the kernel does not let every interface leave its namespace",
    EPERM: "CAP_NET_ADMIN is needed over both network namespaces",
}


def move(entries: Mapping[str, NetDevice], pid: int) -> None:
    """Move interfaces of our network namespace into that of process `pid`.

    `entries` maps the name here to an object with the name there ("name"), in which the kernel
    replaces %d by a free number.  Raises Error that names the entry.
    """
    ours = files.open("/proc/self/ns/net", files.O_RDONLY)
    theirs = files.open(f"/proc/{pid}/ns/net", files.O_RDONLY)
    here = netlink.open()
    try:
        there = _open_inside(theirs, ours)
        done: list[Link] = []
        try:
            for name, entry in entries.items():
                _move(name, (entry or {}).get("name") or name, here, there, theirs, done)
        except Error:
            for link in reversed(done):
                _bring_back(link, here, there, ours)
            raise
        finally:
            there.close()
    finally:
        here.close()
        files.close(theirs)
        files.close(ours)


def _open_inside(netns_fd: int, home_fd: int) -> socket:
    """Return a socket of another network namespace; this process is back home afterwards."""
    try:
        tasks.setns(netns_fd, CLONE_NEWNET)
    except OSError as error:
        text = f"join the container's network namespace: {strerror(error.errno or 0)}"
        raise at("linux.netDevices", text, _HINTS.get(error.errno or 0, "")) from None
    try:
        return netlink.open()
    finally:
        tasks.setns(home_fd, CLONE_NEWNET)


def _move(
    name: str, wanted: str, here: socket, there: socket, netns_fd: int, done: list[Link]
) -> None:
    """Move one interface; `done` gets it as soon as it has left."""
    try:
        index, flags = netlink.link(here, name)
        kept = [address for address in netlink.addresses(here, index) if _is_kept(address)]
        # Under a name that nobody else has: the wanted one may be a pattern, or taken, and the
        # index may be another over there.
        passing = f"ano{index}"
        netlink.set_link_namespace(here, index, netns_fd, passing)
        moved, _ = netlink.link(there, passing)
        done.append((name, moved, bool(flags & netlink.IFF_UP), kept))
        netlink.set_link_name(there, moved, wanted)
        _settle(there, moved, kept, up=True)
    except OSError as error:
        text = strerror(error.errno or 0)
        hint = _HINTS.get(error.errno or 0, "")
        raise at(keyed("linux.netDevices", name), text, hint) from None


def _bring_back(link: Link, here: socket, there: socket, netns_fd: int) -> None:
    name, moved, up, kept = link
    try:
        netlink.set_link_namespace(there, moved, netns_fd, name)
        index, _ = netlink.link(here, name)
        _settle(here, index, kept, up)
    except OSError as error:
        log.warn(f"{keyed('linux.netDevices', name)}: bringing it back: {reason(error)}")


def _is_kept(address: Address) -> bool:
    """Tell whether the specification wants an address kept: permanent and of global scope."""
    _, _, flags, scope, _ = address
    return bool(flags & netlink.IFA_F_PERMANENT) and scope == netlink.RT_SCOPE_UNIVERSE


def _settle(sock: socket, index: int, kept: list[Address], up: bool) -> None:
    for address in kept:
        netlink.add_address(sock, index, address)
    if up:
        netlink.set_link_up(index, sock)
