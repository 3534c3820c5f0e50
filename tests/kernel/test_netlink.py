"""Every function of linux.netlink in a network namespace of its own, seen by ip(8)."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from anocir.linux import netlink
from tests import machine
from tests.kernel import child

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.needs("root"),
    pytest.mark.skipif(not shutil.which("ip"), reason="[ip] this machine has not ip(8)"),
]

NEWNET = machine.CLONE_NEWNET


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], capture_output=True, text=True, check=True).stdout


def show(name: str) -> dict:
    """What ip(8) says of an interface; empty when there is none."""
    done = subprocess.run(["ip", "-j", "addr", "show", "dev", name], capture_output=True, text=True)
    rows = [row for row in json.loads(done.stdout or "[]") if row]
    return rows[0] if rows else {}


def make_pair(one: str = "one", two: str = "two") -> None:
    """A veth pair: kernels without dummy links have it too."""
    ip("link", "add", one, "type", "veth", "peer", "name", two)


def inside(action):
    return child.run(action, NEWNET)


class OtherNamespace:
    """A network namespace that a child holds open."""

    def __enter__(self) -> OtherNamespace:
        self.ready, self.done = os.pipe(), os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.done[1])
            machine.unshare(NEWNET)
            os.write(self.ready[1], b"x")
            os.read(self.done[0], 1)
            os._exit(0)
        os.read(self.ready[0], 1)
        self.fd = os.open(f"/proc/{self.pid}/ns/net", os.O_RDONLY)
        return self

    def __exit__(self, *_: object) -> None:
        for end in (*self.ready, *self.done, self.fd):
            os.close(end)
        os.waitpid(self.pid, 0)

    def call(self, action):
        """Call a function of the test inside, and return what it returns."""

        def enter():
            machine.check(machine.LIBC.setns(self.fd, NEWNET), "setns")
            return action()

        return child.run(enter)


@pytest.fixture(autouse=True)
def _veth() -> None:
    if not machine.in_child(lambda: (machine.unshare(NEWNET), make_pair())):
        pytest.skip("[veth] this machine has not virtual Ethernet pairs")


def test_open_makes_a_socket_of_the_present_namespace() -> None:
    def action() -> tuple[int, bool, bool]:
        make_pair()
        sock = netlink.open()
        machine.unshare(NEWNET)  # the socket stays where it was
        index, _ = netlink.link(sock, "one")
        return sock.family, os.get_inheritable(sock.fileno()), index > 0, show("one")

    assert inside(action) == (socket.AF_NETLINK, False, True, {})


def test_link_tells_index_and_flags() -> None:
    def action():
        make_pair()
        ip("link", "set", "one", "up")
        with closing(netlink.open()) as sock:
            found = [netlink.link(sock, name) for name in ("lo", "one", "two")]
        return found, [show(name) for name in ("lo", "one", "two")]

    found, shown = inside(action)
    assert [index for index, _ in found] == [row["ifindex"] for row in shown]
    assert [bool(flags & netlink.IFF_UP) for _, flags in found] == [False, True, False]
    assert ["UP" in row["flags"] for row in shown] == [False, True, False]


@pytest.mark.parametrize("name", ["missing", "x" * 15])
def test_link_that_is_not_there_is_enodev_with_its_name(name: str) -> None:
    def action() -> None:
        with closing(netlink.open()) as sock:
            netlink.link(sock, name)

    with pytest.raises(OSError) as caught:
        inside(action)
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, name)


def test_link_finds_one_among_many() -> None:
    def action() -> bool:
        for number in range(60):
            make_pair(f"a{number}", f"b{number}")
        with closing(netlink.open()) as sock:
            return all(netlink.link(sock, f"a{number}")[0] == show(f"a{number}")["ifindex"]
                       for number in range(0, 60, 7))  # fmt: skip

    assert inside(action)


def test_set_link_up_brings_the_loopback_interface_up() -> None:
    def action() -> list[str]:
        with closing(netlink.open()) as sock:
            netlink.set_link_up(1, sock)
        return show("lo")["flags"]

    assert "UP" in inside(action)


def test_set_link_up_by_a_socket_and_its_errors() -> None:
    def action():
        make_pair()
        with closing(netlink.open()) as sock:
            netlink.set_link_up(netlink.link(sock, "two")[0], sock)
            netlink.set_link_up(1, sock)
        return show("two")["flags"], show("lo")["flags"]

    two, lo = inside(action)
    assert "UP" in two and "UP" in lo
    with pytest.raises(OSError) as caught:
        inside(lambda: netlink.set_link_up(4242, netlink.open()))
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "interface 4242")


def test_set_link_namespace_moves_under_a_new_name() -> None:
    with OtherNamespace() as other:

        def action():
            make_pair()
            ip("link", "set", "one", "address", "02:00:00:00:00:07", "mtu", "1400")
            with closing(netlink.open()) as sock:
                netlink.set_link_namespace(sock, netlink.link(sock, "one")[0], other.fd, "moved")
            here = show("one")
            return here, other.call(lambda: show("moved"))

        here, there = inside(action)
    assert here == {}
    assert (there["address"], there["mtu"]) == ("02:00:00:00:00:07", 1400)


def test_set_link_name_renames_and_numbers() -> None:
    def action():
        make_pair()
        make_pair("eth0", "peer")
        with closing(netlink.open()) as sock:
            netlink.set_link_name(sock, netlink.link(sock, "one")[0], "other")
            netlink.set_link_name(sock, netlink.link(sock, "two")[0], "eth%d")
            try:
                netlink.set_link_name(sock, netlink.link(sock, "other")[0], "eth0")
            except OSError as error:
                number = error.errno
        return bool(show("other")), bool(show("eth1")), number

    assert inside(action) == (True, True, errno.EEXIST)


ADDRESSES = ["10.9.8.7/24", "10.9.8.8/24", "192.0.2.1/32", "2001:db8::5/64"]


def test_addresses_are_those_of_one_interface() -> None:
    def action():
        make_pair()
        for address in ADDRESSES:
            ip("addr", "add", address, "dev", "one")
        ip("addr", "add", "10.1.1.1/8", "dev", "two")
        ip("link", "set", "one", "up")
        ip("link", "set", "two", "up")
        # The kernel adds a link-local address some time after an interface is up.
        end = time.monotonic() + 60
        after = show("one")["addr_info"]
        with closing(netlink.open()) as sock:
            index = netlink.link(sock, "one")[0]
            while time.monotonic() < end:
                before = after
                found = netlink.addresses(sock, index)
                after = show("one")["addr_info"]
                if before == after:
                    break
        return found, after

    found, shown = inside(action)
    texts = set()
    for family, prefix, flags, scope, attributes in found:
        values = dict(attributes)
        texts.add((socket.inet_ntop(family, values.get(2) or values[1]), prefix, scope,
                   bool(flags & netlink.IFA_F_PERMANENT)))  # fmt: skip
    scopes = {"global": 0, "link": 253}
    assert texts == {(row["local"], row["prefixlen"], scopes[row["scope"]],
                      row["valid_life_time"] == 0xFFFFFFFF) for row in shown}  # fmt: skip
    assert len(texts) >= len(ADDRESSES)


def test_addresses_of_an_interface_without_any() -> None:
    def action():
        make_pair()
        with closing(netlink.open()) as sock:
            return netlink.addresses(sock, netlink.link(sock, "one")[0])

    assert inside(action) == []


def test_addresses_are_read_to_the_end_of_a_long_answer() -> None:
    def action() -> int:
        make_pair()
        batch = "".join(f"addr add 10.{n // 250}.{n % 250}.1/32 dev one\n" for n in range(1500))
        subprocess.run(["ip", "-b", "-"], input=batch, text=True, check=True)
        with closing(netlink.open()) as sock:
            return len(netlink.addresses(sock, netlink.link(sock, "one")[0]))

    assert inside(action) == 1500


def test_add_address_gives_the_same_address_to_another_interface() -> None:
    def action():
        make_pair()
        ip("addr", "add", "10.9.8.7/24", "brd", "10.9.8.255", "dev", "one")
        ip("addr", "add", "10.9.8.8", "peer", "10.9.9.9/32", "dev", "one", "metric", "77")
        ip("addr", "add", "2001:db8::5/64", "dev", "one", "nodad", "noprefixroute")
        before = show("one")["addr_info"]
        with closing(netlink.open()) as sock:
            kept = netlink.addresses(sock, netlink.link(sock, "one")[0])
            ip("addr", "flush", "dev", "one")
            other = netlink.link(sock, "two")[0]
            for address in kept:
                netlink.add_address(sock, other, address)
            again = netlink.addresses(sock, other)
            try:
                netlink.add_address(sock, other, again[0])
            except OSError as error:
                number = error.errno
        return before, show("two")["addr_info"], number

    before, after, number = inside(action)
    for row in before + after:
        row.pop("label", None)
        row.pop("tentative", None)
    assert after == before and len(after) == 3 and number == errno.EEXIST


def test_without_the_right_it_is_eperm() -> None:
    def action() -> list[int]:
        make_pair()
        os.setresuid(65534, 65534, 65534)
        numbers = []
        with closing(netlink.open()) as sock:
            index = netlink.link(sock, "one")[0]
            for call in (lambda: netlink.set_link_up(index, sock),
                         lambda: netlink.set_link_name(sock, index, "x")):  # fmt: skip
                try:
                    call()
                except OSError as error:
                    numbers.append(error.errno)
        return numbers

    assert inside(action) == [errno.EPERM, errno.EPERM]
    assert Path("/proc/self/ns/net").exists()
