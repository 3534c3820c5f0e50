"""Cgroup namespaces and user namespaces on cgroup v2 with nsdelegate, where the kernel refuses to be born across a border."""

from __future__ import annotations

import pytest

from tests.vm.inside.container import Box, cgroup_of


@pytest.fixture
def box():
    made = Box("bordered")
    made.config["root"]["readonly"] = False
    made.config["linux"]["cgroupsPath"] = "/anocir-bordered"
    made.config["linux"]["namespaces"].append({"type": "cgroup"})
    yield made
    made.remove()


def mapped(box: Box) -> None:
    """Give the container a user namespace."""
    box.config["linux"]["namespaces"].append({"type": "user"})
    for key in ("uidMappings", "gidMappings"):
        box.config["linux"][key] = [{"containerID": 0, "hostID": 100000, "size": 65536}]


@pytest.mark.parametrize("user", [False, True])
def test_create_and_exec_are_in_the_containers_cgroup(box, user):
    if user:
        mapped(box)
    pid = box.create()
    assert cgroup_of(pid) == "/sys/fs/cgroup/anocir-bordered"
    assert box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout == "0::/\n"
    with open("/sys/fs/cgroup/anocir-bordered/cgroup.procs") as file:
        assert [int(line) for line in file] == [pid]


@pytest.mark.parametrize("user", [False, True])
def test_a_container_joins_the_cgroup_namespace_of_another(box, user):
    pid = box.create()
    second = Box("joined")
    try:
        second.config["linux"]["cgroupsPath"] = "/anocir-joined"
        second.config["linux"]["namespaces"].append(
            {"type": "cgroup", "path": f"/proc/{pid}/ns/cgroup"}
        )
        second.config["process"]["args"] = ["/bin/cat", "/proc/self/cgroup"]
        if user:
            mapped(second)
        assert second.run() == "0::/../anocir-joined\n"
    finally:
        second.remove()
