"""The systemd cgroup driver, with systemd as PID 1: the container is a scope that systemd knows and limits."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.vm.inside.container import Box, awaited, becomes, cgroup_of, gone, shown, value


def systemctl(*words: str) -> str:
    """What systemctl prints."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True).stdout


@pytest.fixture
def box():
    made = Box("scoped", "--systemd-cgroup")
    made.config["linux"]["cgroupsPath"] = "system.slice:anocir:scoped"
    yield made
    made.remove()


UNIT = "anocir-scoped.scope"


def test_a_container_is_a_scope_with_its_limits_until_it_is_deleted(box):
    box.config["linux"]["resources"] = {
        "memory": {"limit": 64 << 20, "swap": 80 << 20, "reservation": 32 << 20},
        "pids": {"limit": 40},
        "cpu": {"quota": 20000, "period": 50000, "shares": 2048, "cpus": "0", "mems": "0"},
        "blockIO": {"weight": 500},
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10, "minor": 183, "access": "r"},
        ],
    }
    box.config["annotations"] = {
        "org.systemd.property.TimeoutStopUSec": "uint64 7000000",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
    }
    pid = box.create()
    directory = cgroup_of(pid)
    assert directory.endswith("/system.slice/anocir-scoped.scope")
    expected = {
        "ActiveState": "active",
        "Slice": "system.slice",
        "Delegate": "yes",
        "MemoryMax": str(64 << 20),
        "MemorySwapMax": str(16 << 20),
        "MemoryLow": str(32 << 20),
        "TasksMax": "40",
        "CPUQuotaPerSecUSec": "400ms",
        "CPUQuotaPeriodUSec": "50ms",
        "CPUWeight": "174",
        "AllowedCPUs": "0",
        "AllowedMemoryNodes": "0",
        "IOWeight": "4950",
        "DevicePolicy": "strict",
        "TimeoutStopUSec": "7s",
        "CollectMode": "inactive-or-failed",
    }
    assert shown(UNIT, *expected) == expected
    assert "/dev/char/10:183 r\n" in systemctl("show", UNIT, "--property=DeviceAllow") + "\n"
    assert value(directory, "memory.max") == str(64 << 20)
    assert value(directory, "memory.swap.max") == str(16 << 20)
    assert value(directory, "pids.max") == "40"
    assert value(directory, "cpu.max") == "20000 50000"
    assert value(directory, "cpu.weight") == "174"
    assert value(directory, "cpuset.cpus") == "0"

    # later commands know the driver from the state: callers leave the option out
    words = f"--memory {96 << 20} --memory-swap {128 << 20} --pids-limit 50 --cpu-quota 30000 --cpu-share 512"
    box.call("update", *words.split(), "--cpuset-cpus", "0-1", "--blkio-weight", "100", box.id)
    expected.update(
        MemoryMax=str(96 << 20),
        MemorySwapMax=str(32 << 20),
        TasksMax="50",
        CPUQuotaPerSecUSec="600ms",
        CPUWeight="59",
        AllowedCPUs="0-1",
        IOWeight="910",
    )
    systemctl("daemon-reload")  # it writes all its limits anew
    assert shown(UNIT, *expected) == expected
    assert value(directory, "memory.max") == str(96 << 20)
    assert value(directory, "memory.swap.max") == str(32 << 20)
    assert value(directory, "pids.max") == "50"
    assert value(directory, "cpu.max") == "30000 50000"
    assert value(directory, "cpu.weight") == "59"
    assert value(directory, "cpuset.cpus") == "0-1"
    inside = box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    assert "0::" in inside
    box.call("pause", box.id)
    assert box.state()["status"] == "paused"
    assert "frozen 1" in value(directory, "cgroup.events")
    box.call("resume", box.id)
    box.call("kill", box.id, "KILL")
    box.call("delete", "--force", box.id)
    gone(directory)
    becomes(UNIT, "inactive")
    failed = subprocess.run(
        ["systemctl", "--failed", "--no-legend"], capture_output=True, text=True, check=True
    )
    assert "anocir" not in failed.stdout


def test_a_failed_unit_of_the_same_name_is_in_nobodys_way(box):
    box.create()
    # what is left when systemd itself ended a unit for a fault: it stays under its name as failed
    subprocess.run(["systemctl", "kill", "--signal=KILL", UNIT], check=True)
    box.remove()
    becomes(UNIT, "inactive")
    command = ["systemd-run", "--quiet", f"--unit={UNIT}", "--scope", "--property=RuntimeMaxSec=1"]
    subprocess.run([*command, "sleep", "1000"], capture_output=True, check=False)
    becomes(UNIT, "failed")
    again = Box("scoped", "--systemd-cgroup")
    try:
        again.config["linux"]["cgroupsPath"] = "system.slice:anocir:scoped"
        again.create()
        assert shown(UNIT, "ActiveState") == {"ActiveState": "active"}
    finally:
        again.remove()
    becomes(UNIT, "inactive")


def test_a_container_that_failed_to_start_leaves_no_unit(box):
    box.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/nonexistent", "options": ["bind"]}
    )
    box.write()
    failed = box.call("create", "--bundle", box.dir, box.id, root=box.options, check=False)
    assert failed.returncode == 1
    gone("/sys/fs/cgroup/system.slice/anocir-scoped.scope")
    awaited(lambda: "anocir-scoped" not in systemctl("list-units", "--all"), "no unit")


def test_run_and_list_need_no_option_afterwards(box):
    box.create()
    listed = json.loads(box.call("list", "--format", "json").stdout)
    assert [(entry["id"], entry["status"]) for entry in listed] == [("scoped", "running")]
    assert os.path.isdir("/sys/fs/cgroup/system.slice/anocir-scoped.scope")
