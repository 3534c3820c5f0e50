"""Namespaces that the host side makes: real ones, looked at from both sides."""

from __future__ import annotations

import errno
import os

import pytest

from anocir.host import network
from anocir.inside import namespaces
from anocir.errors import Error
from anocir.linux import oneself, tasks
from anocir.linux.const import CLONE_NEWNET, CLONE_NEWUSER
from tests.kernel import child

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]


def own_network() -> str:
    return os.readlink("/proc/self/ns/net")


def test_a_network_is_made_from_outside_with_its_loopback_up() -> None:
    def action() -> tuple[bool, bool, bool, list[str]]:
        before, open_before = own_network(), sorted(os.listdir("/proc/self/fd"))
        fd = network.make()
        same = own_network() == before
        made = os.readlink(f"/proc/self/fd/{fd}")
        namespaces.enter_network(fd)
        left = sorted(set(os.listdir("/proc/self/fd")) - set(open_before))
        return same, own_network() == made != before, child.loopback_is_up(), left

    assert child.run(action) == (True, True, True, [])


def test_without_the_right_it_fails_and_nothing_is_left_open() -> None:
    def action() -> tuple[str, bool, bool]:
        before, open_before = own_network(), sorted(os.listdir("/proc/self/fd"))
        oneself.capset(0, 0, 0)
        try:
            network.make()
        except Error as error:
            said = error.text
        return said, own_network() == before, sorted(os.listdir("/proc/self/fd")) == open_before

    said = "linux.namespaces: network: operation not permitted"
    assert child.run(action) == (said, True, True)


def test_when_the_loopback_cannot_come_up_we_are_back_in_our_own() -> None:
    def action() -> tuple[str, bool]:
        before = own_network()

        def fail() -> None:
            assert own_network() != before
            raise OSError(errno.ENODEV, "SIOCSIFFLAGS", "lo")

        tasks.loopback_up = fail
        try:
            network.make()
        except Error as error:
            said = error.text
        return said, own_network() == before

    said, back = child.run(action)
    assert said == "linux.namespaces: network: lo: no such device"
    assert back


def test_the_loopback_of_a_user_namespace_comes_up_too() -> None:
    def action() -> bool:
        tasks.unshare(CLONE_NEWUSER)
        tasks.unshare(CLONE_NEWNET)
        tasks.loopback_up()
        return child.loopback_is_up()

    assert child.run(action)
