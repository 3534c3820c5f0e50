"""Containers of a user without any privilege: user namespaces, subordinate ids, a delegated cgroup."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.vm.inside.container import Box, cgroup_of, gone, value

SYSTEMD = os.path.exists("/run/systemd/system")


def unprivileged(box: Box, ranges: bool = False) -> None:
    """Make the configuration one that a user may have: a user namespace, and no mount that needs more."""
    linux = box.config["linux"]
    linux["namespaces"].append({"type": "user"})
    for kind, own in (("uidMappings", os.getuid()), ("gidMappings", os.getgid())):
        linux[kind] = [{"containerID": 0, "hostID": own, "size": 1}]
        if ranges:
            linux[kind].append({"containerID": 1, "hostID": 100000, "size": 65536})
    for entry in box.config["mounts"]:
        if entry["destination"] == "/dev/pts" and not ranges:
            entry["options"] = [word for word in entry["options"] if word != "gid=5"]
    box.config["process"]["rlimits"] = []


@pytest.fixture
def box():
    if SYSTEMD:
        made = Box("mine", "--systemd-cgroup")
        made.config["linux"]["cgroupsPath"] = "user.slice:anocir:mine"
    else:
        made = Box("mine")
        made.config["linux"]["cgroupsPath"] = f"/user-{os.getuid()}/mine"
    made.config["linux"]["resources"] = {}
    yield made
    made.remove()


def test_root_inside_is_the_user_outside(box):
    assert os.getuid() != 0
    unprivileged(box)
    box.config["process"]["args"] = [
        "/bin/sh",
        "-c",
        "id -u; cat /proc/self/uid_map; echo x >/tmp/x && echo written",
    ]
    box.config["root"]["readonly"] = False
    lines = box.run().splitlines()
    assert lines[0] == "0"
    assert lines[1].split() == ["0", str(os.getuid()), "1"]
    assert lines[2] == "written"
    assert os.stat(os.path.join(box.dir, "rootfs/tmp/x")).st_uid == os.getuid()


def test_subordinate_ids_come_through_newuidmap(box):
    unprivileged(box, ranges=True)
    box.config["process"]["user"] = {"uid": 1000, "gid": 1000}
    box.config["process"]["args"] = ["/bin/sh", "-c", "id -u; id -g"]
    assert box.run().split() == ["1000", "1000"]


def test_limits_are_set_in_the_delegated_cgroup_and_it_goes_with_the_container(box):
    unprivileged(box)
    box.config["linux"]["resources"] = {"memory": {"limit": 64 << 20}, "pids": {"limit": 30}}
    directory = cgroup_of(box.create())
    assert value(directory, "memory.max") == str(64 << 20)
    assert value(directory, "pids.max") == "30"
    if SYSTEMD:
        words = ["show", "anocir-mine.scope", "--property=MemoryMax,TasksMax,Slice,Delegate"]
        said = subprocess.run(["systemctl", "--user", *words], capture_output=True, text=True)
        expected = {f"MemoryMax={64 << 20}", "TasksMax=30", "Slice=user.slice", "Delegate=yes"}
        assert set(said.stdout.split()) == expected, said.stderr
    assert box.call("exec", box.id, "/bin/id", "-u").stdout.strip() in ("0", "uid=0")
    box.call("pause", box.id)
    box.call("resume", box.id)
    box.call("kill", box.id, "KILL")
    box.call("delete", "--force", box.id)
    gone(directory)


def test_a_container_without_a_cgroup_path_runs(box):
    unprivileged(box)
    del box.config["linux"]["cgroupsPath"]
    box.config["process"]["args"] = ["/bin/echo", "here"]
    assert box.run() == "here\n"
