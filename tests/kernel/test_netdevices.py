"""linux.netDevices: what ip(8) sees in both namespaces, and that a failure changes nothing."""

from __future__ import annotations

import os

import pytest

from anocir.host import netdevices
from anocir.errors import Error
from tests import machine
from tests.kernel import child
from tests.kernel.test_netlink import OtherNamespace, _veth, ip, make_pair, pytestmark, show

__all__ = ["_veth", "pytestmark"]


def moved(entries, prepare=lambda: None, look=lambda: None, there=lambda: None, prepared=None):
    """Move in namespaces of the test's own; return what `look` sees here and `there` there."""
    with OtherNamespace() as other:
        if prepared is not None:
            other.call(prepared)

        def action():
            make_pair()
            prepare()
            home = os.readlink("/proc/self/ns/net")
            descriptors = len(os.listdir("/proc/self/fd"))
            try:
                netdevices.move(entries, other.pid)
                error = None
            except Error as caught:
                error = (caught.text, caught.hint)
            assert os.readlink("/proc/self/ns/net") == home, "we are back"
            assert len(os.listdir("/proc/self/fd")) == descriptors
            return error, look(), other.call(there)

        return child.run(action, machine.CLONE_NEWNET)


def names() -> list[str]:
    # /sys shows the namespace in which it was mounted, so ask the kernel's own list.
    with open("/proc/net/dev") as file:
        return sorted(line.split(":")[0].strip() for line in file.readlines()[2:])


def test_an_interface_moves_and_keeps_its_name_and_is_up() -> None:
    error, here, there = moved({"one": {}}, look=names, there=lambda: show("one"))
    assert error is None and here == ["lo", "two"]
    assert "UP" in there["flags"]


def test_an_interface_gets_its_new_name() -> None:
    error, here, there = moved({"one": {"name": "eth0"}}, look=names, there=names)
    assert (error, here, there) == (None, ["lo", "two"], ["eth0", "lo"])


def test_several_interfaces_move() -> None:
    entries = {"one": {"name": "two"}, "two": {"name": "one"}}
    error, here, there = moved(entries, look=names, there=names)
    assert (error, here, there) == (None, ["lo"], ["lo", "one", "two"])


def test_a_template_is_numbered_by_the_kernel() -> None:
    entries = {"one": {"name": "eth%d"}, "two": {"name": "eth%d"}}
    error, _, there = moved(entries, there=names, prepared=lambda: make_pair("eth0", "other"))
    assert (error, there) == (None, ["eth0", "eth1", "eth2", "lo", "other"])


def test_global_permanent_addresses_are_kept_and_others_are_not() -> None:
    def prepare() -> None:
        ip("addr", "add", "10.9.8.7/24", "brd", "+", "dev", "one")
        ip("addr", "add", "10.9.8.8/24", "dev", "one", "label", "one:x")
        ip("addr", "add", "169.254.3.3/16", "scope", "link", "dev", "one")
        ip("addr", "add", "10.5.5.5/24", "valid_lft", "500", "preferred_lft", "400", "dev", "one")
        ip("addr", "add", "2001:db8::5/64", "dev", "one", "nodad")
        ip("link", "set", "one", "mtu", "1300", "address", "02:00:00:00:00:09", "up")

    _, _, there = moved({"one": {"name": "eth0"}}, prepare, there=lambda: show("eth0"))
    kept = {
        (row["local"], row["prefixlen"]) for row in there["addr_info"] if row["scope"] == "global"
    }
    assert kept == {("10.9.8.7", 24), ("10.9.8.8", 24), ("2001:db8::5", 64)}
    assert {row["local"] for row in there["addr_info"] if row["family"] == "inet"} == {
        "10.9.8.7",
        "10.9.8.8",
    }
    assert (there["mtu"], there["address"]) == (1300, "02:00:00:00:00:09")
    assert "UP" in there["flags"]
    assert [row["broadcast"] for row in there["addr_info"] if row["local"] == "10.9.8.7"] == [
        "10.9.8.255"
    ]


def test_the_index_may_be_taken_over_there() -> None:
    """Indices are numbers of one namespace: the same one can be somebody else's there."""

    def crowd() -> None:
        for number in range(12):
            make_pair(f"a{number}", f"b{number}")

    error, _, there = moved(
        {"one": {"name": "eth0"}},
        lambda: ip("addr", "add", "10.9.8.7/24", "dev", "one"),
        there=lambda: (show("eth0"), show("a0")), prepared=crowd,
    )  # fmt: skip
    assert error is None
    assert [row["local"] for row in there[0]["addr_info"] if row["family"] == "inet"] == [
        "10.9.8.7"
    ]
    assert there[1]["addr_info"] == [] and "UP" not in there[1]["flags"]


def test_one_that_is_not_there_is_named() -> None:
    error, here, there = moved({"missing": {"name": "x"}}, look=names, there=names)
    assert error[0] == 'linux.netDevices["missing"]: no such device'
    assert here == ["lo", "one", "two"] and there == ["lo"]


def test_the_loopback_interface_cannot_move() -> None:
    error, here, _ = moved({"lo": {"name": "x"}}, look=names)
    assert error[0] == 'linux.netDevices["lo"]: invalid argument' and "kernel" in error[1]
    assert here == ["lo", "one", "two"]


@pytest.mark.parametrize("up", [False, True])
def test_a_name_that_is_taken_is_an_error_and_all_is_as_before(up: bool) -> None:
    def prepare() -> None:
        ip("addr", "add", "10.9.8.7/24", "dev", "one")
        if up:
            ip("link", "set", "one", "up")

    error, here, there = moved(
        {"one": {"name": "eth0"}}, prepare, look=lambda: show("one"), there=names,
        prepared=lambda: make_pair("eth0", "other"),
    )  # fmt: skip
    assert (
        error[0] == 'linux.netDevices["one"]: file exists' and "interface of this name" in error[1]
    )
    assert there == ["eth0", "lo", "other"]
    assert [row["local"] for row in here["addr_info"] if row["family"] == "inet"] == ["10.9.8.7"]
    assert ("UP" in here["flags"]) == up


def test_what_moved_before_a_failure_comes_back() -> None:
    """Else a veth would be destroyed together with the failed container."""
    entries = {"one": {"name": "eth5"}, "missing": {}}
    error, here, there = moved(entries, look=names, there=names)
    assert error[0].startswith('linux.netDevices["missing"]')
    assert (here, there) == (["lo", "one", "two"], ["lo"])


def test_a_process_that_is_gone_is_an_error() -> None:
    with pytest.raises(OSError):
        netdevices.move({"lo": {}}, 1 << 22)
