"""The systemd manager against a real systemd: `systemctl show` is the second witness.

In the virtual machine: with cgroup v2, with systemd's legacy layout, and as a user with a session.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest

from anocir import cgroup
from anocir.cgroup import choice, hierarchy
from anocir.errors import Error
from tests.kernel import child
from tests.wait import others_go_on, until

USER = os.geteuid() != 0

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(
        not os.path.isdir("/run/systemd/system"),
        reason="[systemd] this machine has not systemd as its first process",
    ),
]

# Where the host has all controllers in v1 hierarchies, there is none left for a systemd on v2.
LIMITED = pytest.mark.needs("cgroup:memory", "cgroup:cpu", "cgroup:pids")
MIB = 1 << 20
SLICE = "anocirtest-a.slice"
UNIT = "anocir-test-x1.scope"
LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 64 * MIB},
    "cpu": {"shares": 1024, "quota": 50000, "period": 100000},
    "pids": {"limit": 11},
}


class Settings:
    systemd_cgroup = True
    cgroup_manager = ""
    rootless = "auto"


def systemctl(*arguments: str) -> str:
    command = ["systemctl", *(["--user"] if USER else []), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def show(*names: str) -> dict[str, str]:
    lines = systemctl("show", UNIT, "-p", ",".join(names)).splitlines()
    return dict(line.split("=", 1) for line in lines)


def choose(**config):
    config.setdefault("linux", {})["cgroupsPath"] = f"{SLICE}:anocir-test:x1"
    return json.loads(json.dumps(choice.choose(Settings, config, "x1")))


def start(pid: int, **properties: tuple[str, object]) -> None:
    """Have somebody else start a unit of this name."""
    from anocir.cgroup import bus

    with bus.Bus(USER) as connection:
        body = [("PIDs", ("au", [pid])), *properties.items()]
        words = ("StartTransientUnit", "ssa(sv)a(sa(sv))", UNIT, "fail", body, [])
        connection.job(UNIT, *words)


@pytest.fixture
def make():
    managers = []
    pids = []

    def one(resources, **config):
        manager = cgroup.load(choose(**config))
        managers.append(manager)
        manager.prepare(resources)
        pids.append(child.sleeper())
        manager.join(pids[-1])
        manager.finish(pids[-1])
        return manager, pids[-1]

    yield one
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    for manager in managers:
        manager.destroy()
    assert show("ActiveState") == {"ActiveState": "inactive"}


def version() -> int:
    return 2 if os.path.exists("/sys/fs/cgroup/cgroup.controllers") else 1


@LIMITED
def test_limits_are_properties_and_files(make):
    manager, pid = make(LIMITS)
    memory = "MemoryMax" if version() == 2 else "MemoryLimit"
    shown = show(memory, "TasksMax", "CPUQuotaPerSecUSec", "Slice", "Delegate", "ActiveState")
    assert shown == {
        memory: str(64 * MIB),
        "TasksMax": "11",
        "CPUQuotaPerSecUSec": "500ms",
        "Slice": SLICE,
        "Delegate": "yes",
        "ActiveState": "active",
    }
    name = "" if version() == 2 else "memory"
    assert hierarchy.of_process(pid)[name].endswith(f"/anocirtest.slice/{SLICE}/{UNIT}")
    assert manager.pids() == [pid]
    assert manager.stats()["pids"]["limit"] == 11


@LIMITED
def test_an_update_survives_a_daemon_reload(make):
    manager, _ = make(LIMITS)
    new = {**LIMITS, "memory": {"limit": 96 * MIB, "swap": 128 * MIB}, "pids": {"limit": 22}}
    cgroup.load(manager.record).update(new, LIMITS)
    systemctl("daemon-reload")
    memory = "MemoryMax" if version() == 2 else "MemoryLimit"
    assert show(memory, "TasksMax") == {memory: str(96 * MIB), "TasksMax": "22"}
    assert manager.stats()["memory"]["usage"]["limit"] == 96 * MIB
    assert manager.stats()["pids"]["limit"] == 22


@LIMITED
def test_a_refused_update_is_undone_in_the_unit_as_well(make):
    manager, _ = make(LIMITS)
    new = {
        **LIMITS,
        "pids": {"limit": 30},
        "blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 77, "rate": 5}]},
    }
    with pytest.raises(Error):
        manager.update(new, LIMITS)
    assert show("TasksMax") == {"TasksMax": "11"}
    assert manager.stats()["pids"]["limit"] == 11


def test_annotations_set_properties(make):
    make({}, annotations={"org.systemd.property.TimeoutStopSec": "7"})
    assert show("TimeoutStopUSec") == {"TimeoutStopUSec": "7s"}


def test_exec_pause_kill(make):
    manager, pid = make({})
    second = child.sleeper()
    manager.exec_join(second, pid, [])
    assert sorted(manager.pids()) == sorted([pid, second])
    manager.freeze()
    assert manager.frozen()
    manager.thaw()
    manager.kill(signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == -signal.SIGTERM


def test_devices_are_a_policy_of_the_unit_and_ours_as_well(make):
    manager, pid = make({"devices": [{"allow": False}]})
    if USER:  # no rights to device programs: the host's file permissions decide
        assert show("DevicePolicy") == {"DevicePolicy": "auto"}
        return
    assert show("DevicePolicy") == {"DevicePolicy": "strict"}
    systemctl("daemon-reload")
    joined, go = os.pipe()
    second = os.fork()
    if second == 0:
        try:
            os.read(joined, 1)
            os.close(os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK))
            os._exit(7)
        except PermissionError:
            os._exit(1)
        finally:
            os._exit(99)
    manager.exec_join(second, pid, [])
    os.write(go, b"x")
    assert os.waitstatus_to_exitcode(os.waitpid(second, 0)[1]) == 1


def test_a_failed_unit_of_the_same_name_is_reset():
    """A scope that hit its time limit stays as failed under its name (runc issue 3780)."""
    pid = child.sleeper()
    start(pid, RuntimeMaxUSec=("t", 100000))
    os.waitpid(pid, 0)
    until(
        "its time is over",
        lambda: show("ActiveState")["ActiveState"],
        pause=0.1,
        found=lambda state: state == "failed",
    )
    manager = cgroup.load(choose())
    manager.prepare({})
    pid = child.sleeper()
    manager.join(pid)
    assert manager.pids() == [pid]
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    manager.destroy()


def test_someone_else_s_unit_is_neither_taken_nor_stopped():
    record = choose()
    other = child.sleeper()
    start(other)
    pid = child.sleeper()
    try:
        manager = cgroup.load(record)
        manager.prepare({})
        with pytest.raises(Error, match=f"start unit {UNIT}"):
            manager.join(pid)
        manager.kill(signal.SIGKILL)
        manager.destroy()
        others_go_on(100)
        assert show("ActiveState") == {"ActiveState": "active"}
        assert os.waitpid(other, os.WNOHANG) == (0, 0)
    finally:
        for each in (pid, other):
            os.kill(each, signal.SIGKILL)
            os.waitpid(each, 0)


def test_destroy_of_a_unit_that_never_was_is_fine():
    cgroup.load(choose()).destroy()


def test_a_slice_on_top_and_an_absent_path_have_units():
    record = choice.choose(Settings, {}, "c1")
    assert record["unit"] == "anocir-c1.scope"
    assert record["slice"] == ("user.slice" if USER else "system.slice")
