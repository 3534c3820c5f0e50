"""The systemd cgroup driver, with systemd as PID 1: the container is a scope that systemd knows and limits."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.vm.inside.container import Box, cgroup_of, gone, value


def shown(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    words = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    text = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


@pytest.fixture
def box():
    made = Box("scoped", "--systemd-cgroup")
    made.config["linux"]["cgroupsPath"] = "system.slice:anocir:scoped"
    yield made
    made.remove()


def test_a_container_is_a_scope_with_its_limits_until_it_is_deleted(box):
    box.config["linux"]["resources"] = {
        "memory": {"limit": 64 << 20},
        "pids": {"limit": 40},
        "cpu": {"quota": 20000, "period": 100000, "shares": 2048},
    }
    pid = box.create()
    directory = cgroup_of(pid)
    assert directory.endswith("/system.slice/anocir-scoped.scope")
    properties = shown(
        "anocir-scoped.scope",
        "ActiveState",
        "MemoryMax",
        "TasksMax",
        "CPUQuotaPerSecUSec",
        "Delegate",
    )
    assert properties == {
        "ActiveState": "active",
        "MemoryMax": str(64 << 20),
        "TasksMax": "40",
        "CPUQuotaPerSecUSec": "200ms",
        "Delegate": "yes",
    }
    assert value(directory, "memory.max") == str(64 << 20)
    assert value(directory, "pids.max") == "40"
    assert value(directory, "cpu.max") == "20000 100000"
    assert value(directory, "cpu.weight") != "100"

    # later commands know the driver from the state: callers leave the option out
    box.call("update", "--memory", str(96 << 20), box.id)
    assert shown("anocir-scoped.scope", "MemoryMax") == {"MemoryMax": str(96 << 20)}
    assert value(directory, "memory.max") == str(96 << 20)
    inside = box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    assert "0::" in inside
    box.call("pause", box.id)
    assert box.state()["status"] == "paused"
    assert "frozen 1" in value(directory, "cgroup.events")
    box.call("resume", box.id)
    box.call("kill", box.id, "KILL")
    box.call("delete", "--force", box.id)
    assert gone(directory)
    assert shown("anocir-scoped.scope", "ActiveState") == {"ActiveState": "inactive"}
    failed = subprocess.run(
        ["systemctl", "--failed", "--no-legend"], capture_output=True, text=True, check=True
    )
    assert "anocir" not in failed.stdout


def test_device_rules_hold_under_systemd(box):
    box.config["linux"]["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"},
        ]
    }
    # the rules are what refuses here, not the capabilities
    box.config["linux"]["devices"] = [
        {"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11, "fileMode": 0o666}
    ]
    box.config["root"]["readonly"] = False
    box.config["process"]["args"] = [
        "/bin/sh",
        "-c",
        "echo x >/dev/null && echo null; cat /dev/kmsg 2>&1 | head -c 200",
    ]
    said = box.run()
    assert said.startswith("null\n")
    assert "not permitted" in said


def test_a_container_that_failed_to_start_leaves_no_unit(box):
    box.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/nonexistent", "options": ["bind"]}
    )
    box.write()
    failed = box.call("create", "--bundle", box.dir, box.id, root=box.options, check=False)
    assert failed.returncode == 1
    assert gone("/sys/fs/cgroup/system.slice/anocir-scoped.scope")
    assert (
        "anocir"
        not in subprocess.run(
            ["systemctl", "list-units", "--all"], capture_output=True, text=True
        ).stdout
    )


def test_run_and_list_need_no_option_afterwards(box):
    box.create()
    listed = json.loads(box.call("list", "--format", "json").stdout)
    assert [(entry["id"], entry["status"]) for entry in listed] == [("scoped", "running")]
    assert os.path.isdir("/sys/fs/cgroup/system.slice/anocir-scoped.scope")
