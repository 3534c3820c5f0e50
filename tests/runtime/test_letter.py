"""Sentences of the specification that nothing else here would miss if they ceased to hold (tests/specification.md)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable

import pytest

from tests.drive import Container

Helper = Callable[..., "subprocess.Popen[bytes]"]


def inside(pid: int, namespaces: str, *command: str) -> str:
    """What a program of the host says in namespaces of a process, which are options of nsenter."""
    words = ["nsenter", "-t", str(pid), *namespaces.split(), "--", *command]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout.strip()


def test_between_create_and_start_all_is_in_place_but_the_program(container: Container) -> None:
    container.config["hostname"] = "quiet"
    container.linux["sysctl"] = {"kernel.msgmax": "16384", "net.ipv4.ip_forward": "1"}
    container.bundle.add_mount("/made", "tmpfs", "tmpfs", "size=64k")
    container.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 4096}]
    seen = container.bundle.outside("seen", "")
    container.bundle.hook("createContainer", f"cat > {seen}")
    container.bundle.hook("startContainer", "cat > /seen")
    container.bundle.sh("echo ran > /ran; exec sleep 100")
    container.create()
    pid = container.pid
    assert inside(pid, "-u", "hostname") == "quiet"
    assert inside(pid, "-i", "cat", "/proc/sys/kernel/msgmax") == "16384"
    assert inside(pid, "-n", "cat", "/proc/sys/net/ipv4/ip_forward") == "1"
    with open(f"/proc/{pid}/mountinfo") as mounts:
        assert "/made" in [line.split()[4] for line in mounts]
    assert not container.bundle.has("/ran") and not container.bundle.has("/seen")
    # a hook in the container's namespaces is told the pid that the container has there
    with open(seen) as state:
        assert json.load(state)["pid"] == 1
    container.start()
    assert json.loads(container.bundle.read("/seen"))["pid"] == 1


@pytest.fixture
def link(container: Container) -> object:
    """One end of a pair of virtual links, which kernels without dummy links have too."""
    name = f"ano{os.getpid() % 100000}"
    subprocess.run(
        ["ip", "link", "add", name, "type", "veth", "peer", "name", name + "p"], check=True
    )
    yield name
    subprocess.run(["ip", "link", "del", name + "p"], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.needs("veth")
def test_an_interface_is_left_to_the_container_until_the_end(
    container: Container, helper: Helper, link: str
) -> None:
    """It is not managed after it was moved, and goes nowhere while its namespace is there."""
    holder = helper(["unshare", "--net", "sh", "-c", "echo up; exec sleep 1000"], stdout=-1)
    assert holder.stdout is not None and holder.stdout.readline() == b"up\n"
    holder.stdout.close()
    container.bundle.set_namespace("network", f"/proc/{holder.pid}/ns/net")
    # one whose name is taken there is refused, and stays where it is
    container.linux["netDevices"] = {link: {"name": "lo"}}
    assert "netDevices" in container.refused()
    assert os.path.exists(f"/sys/class/net/{link}")
    container.linux["netDevices"] = {link: {"name": "moved%d"}}
    container.launch("exec sleep 100")
    assert not os.path.exists(f"/sys/class/net/{link}")
    assert "UP" in inside(holder.pid, "-n", "ip", "link", "show", "moved0").split(">")[0]
    inside(holder.pid, "-n", "ip", "link", "set", "moved0", "down")
    inside(holder.pid, "-n", "ip", "addr", "add", "10.98.7.9/24", "dev", "moved0")
    container.exec("true")
    container.runtime("pause", container.id)
    container.runtime("resume", container.id)
    container.kill("KILL")
    container.wait("stopped")

    def untouched() -> bool:
        shown = inside(holder.pid, "-n", "ip", "addr", "show", "moved0")
        return "UP" not in shown.split(">")[0] and "10.98.7.9/24" in shown

    assert untouched()
    container.delete()
    assert untouched() and not os.path.exists(f"/sys/class/net/{link}")
