"""Control groups (config-linux.md, "Control groups" to "Unified"), version 1 and version 2."""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
from functools import partial
from typing import Any

import pytest

from tests import drive, leftovers, machine
from tests.drive import Container, Runtime

MEBI = 1 << 20
memory = pytest.mark.needs("cgroup:memory")
cpu = pytest.mark.needs("cgroup:cpu")
cpuset = pytest.mark.needs("cgroup:cpuset")
pids = pytest.mark.needs("cgroup:pids")


def created(container: Container, **resources: Any) -> Container:
    """Create the container with resources, beside its device rules."""
    container.bundle.resources.update(resources)
    container.create()
    return container


def v2(controller: str) -> bool:
    """Whether a controller is in the version 2 hierarchy."""
    return not machine.v1_mountpoint(controller)


def blocks() -> str:
    """A block device of the host as MAJOR:MINOR."""
    for path in sorted(glob.glob("/sys/block/*/dev")):
        if "/loop" not in path and "/ram" not in path:
            with open(path) as file:
                return file.read().strip()
    return ""


# paths --------------------------------------------------------------------------------------------


def test_the_process_is_in_the_configured_cgroup_of_every_hierarchy(container: Container) -> None:
    container.create()
    with open(f"/proc/{container.pid}/cgroup") as file:
        lines = [line.strip().split(":", 2) for line in file]
    for number, controllers, path in lines:
        if number != "0" or len(lines) == 1:
            assert path == container.cgroup, controllers


def test_children_of_the_program_are_in_the_cgroup_too(container: Container) -> None:
    container.launch("sleep 100 & sleep 100 & echo > /ready; wait")
    container.wait_file("/ready")
    directory = machine.cgroup_directory("pids", container.cgroup)
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert len(file.read().split()) == 3


def test_delete_removes_the_cgroup_at_once(container: Container) -> None:
    container.launch("true")
    container.wait("stopped")
    container.delete()
    for hierarchy in machine.hierarchies():
        assert not os.path.exists(hierarchy.mountpoint + container.cgroup)


def test_delete_leaves_a_cgroup_that_it_did_not_make(container: Container) -> None:
    foreign = machine.cgroup_directory("pids", container.cgroup + "-foreign")
    os.mkdir(foreign)
    try:
        pid = container.launch("sleep 100")
        machine.write_file(os.path.join(foreign, "cgroup.procs"), str(pid))
        container.kill("KILL")
        container.wait("stopped")
        container.delete()
        assert os.path.isdir(foreign)
    finally:
        drive.until("no process is left", lambda: leftovers.rmdir(foreign))


def test_the_parents_that_a_container_made_go_with_it(container: Container) -> None:
    container.linux["cgroupsPath"] = container.cgroup + "/deep/er"
    container.launch("true")
    container.wait("stopped")
    container.delete()
    for hierarchy in machine.hierarchies():
        assert not os.path.exists(hierarchy.mountpoint + container.cgroup)


def test_two_containers_below_one_new_parent_do_not_disturb_each_other(
    container: Container, new_container: Any
) -> None:
    other = new_container()
    other.linux["cgroupsPath"] = container.cgroup + "/b"
    container.linux["cgroupsPath"] = container.cgroup + "/a"
    other.launch("sleep 100")
    container.launch("true")
    container.wait("stopped")
    container.delete()
    assert other.status == "running"
    assert os.path.isdir(machine.cgroup_directory("pids", container.cgroup + "/b"))


def test_a_relative_path_ends_the_same_way_in_every_hierarchy(container: Container) -> None:
    relative = f"anocir-relative-{container.id}"
    container.linux["cgroupsPath"] = relative
    container.create()
    with open(f"/proc/{container.pid}/cgroup") as file:
        lines = [line.strip().split(":", 2) for line in file]
    found = [path for number, _, path in lines if number != "0" or len(lines) == 1]
    assert found and all(path.endswith(relative) for path in found)


@memory
@pids
@cpuset
@pytest.mark.needs("two-cpus")
def test_a_relative_path_has_its_limits(container: Container) -> None:
    container.linux["cgroupsPath"] = f"anocir-relative-{container.id}"
    limits = {"limit": 64 * MEBI}
    created(container, memory=limits, pids={"limit": 100}, cpu={"cpus": "0-1", "mems": "0"})
    with open(f"/proc/{container.pid}/cgroup") as file:
        lines = [line.strip().split(":", 2) for line in file]
    for _, controllers, path in lines:
        container.cgroup = path
        if "memory" in controllers.split(",") or len(lines) == 1:
            found = container.limit("memory", "memory.limit_in_bytes", "memory.max")
            assert found == str(64 * MEBI)
        if "pids" in controllers.split(",") or len(lines) == 1:
            assert container.limit("pids", "pids.max", "pids.max") == "100"
        if "cpuset" in controllers.split(",") or len(lines) == 1:
            assert container.limit("cpuset", "cpuset.cpus", "cpuset.cpus") == "0-1"


def test_without_a_path_the_container_has_a_cgroup_of_its_own(container: Container) -> None:
    del container.linux["cgroupsPath"]
    container.create()
    with open(f"/proc/{container.pid}/cgroup") as file:
        lines = [line.strip().split(":", 2) for line in file]
    found = [path for number, _, path in lines if number != "0" or len(lines) == 1]
    assert all(container.id in path for path in found), found


@pytest.mark.parametrize("path", ["/../../escape", "../escape", "/a/../../b"])
def test_a_path_cannot_climb_out(container: Container, path: str) -> None:
    name = f"{path}-{container.id}"
    container.linux["cgroupsPath"] = name
    container.create(ok=None)
    strays = []
    for hierarchy in machine.hierarchies():
        parent = os.path.dirname(hierarchy.mountpoint)
        for place in {parent, os.path.dirname(parent)}:
            strays += glob.glob(f"{place}/*{container.id}")
    for stray in set(strays):
        shutil.rmtree(stray, ignore_errors=True)
    assert not strays


def test_a_cgroup_with_a_stranger_in_it_is_left_as_it_is(container: Container, helper: Any) -> None:
    child = helper(["sleep", "1000"])
    directory = machine.cgroup_directory("pids", container.cgroup)
    os.mkdir(directory)
    machine.write_file(os.path.join(directory, "cgroup.procs"), str(child.pid))
    try:
        container.create(ok=None)
        container.delete("--force", ok=None)
        assert child.poll() is None, "a process that is not the container's was killed"
    finally:
        root = machine.cgroup_directory("pids", "")
        machine.write_file(os.path.join(root, "cgroup.procs"), str(child.pid))
        drive.until("no process is left", lambda: leftovers.rmdir(directory))


# memory -------------------------------------------------------------------------------------------


@memory
def test_the_memory_limit_is_set(container: Container) -> None:
    created(container, memory={"limit": 64 * MEBI})
    assert container.limit("memory", "memory.limit_in_bytes", "memory.max") == str(64 * MEBI)


@memory
def test_the_memory_reservation_is_set(container: Container) -> None:
    created(container, memory={"limit": 64 * MEBI, "reservation": 32 * MEBI})
    found = container.limit("memory", "memory.soft_limit_in_bytes", "memory.low")
    assert found == str(32 * MEBI)


@memory
def test_the_swap_limit_is_memory_and_swap_together(container: Container) -> None:
    created(container, memory={"limit": 64 * MEBI, "swap": 96 * MEBI})
    found = container.limit("memory", "memory.memsw.limit_in_bytes", "memory.swap.max")
    assert found == str((32 if v2("memory") else 96) * MEBI)


@memory
def test_minus_one_is_no_limit(container: Container) -> None:
    created(container, memory={"limit": -1})
    found = container.limit("memory", "memory.limit_in_bytes", "memory.max")
    assert found == "max" or int(found) > 1 << 60


@pytest.mark.needs("cgroup1:memory")
@pytest.mark.parametrize("value", [0, 10, 50, 100])
def test_swappiness_is_set(container: Container, value: int) -> None:
    created(container, memory={"swappiness": value})
    assert container.limit("memory", "memory.swappiness", "") == str(value)


@pytest.mark.needs("cgroup1:memory")
@pytest.mark.parametrize("value", [True, False])
def test_the_oom_killer_is_switched(container: Container, value: bool) -> None:
    created(container, memory={"limit": 64 * MEBI, "disableOOMKiller": value})
    line = container.limit("memory", "memory.oom_control", "").splitlines()[0]
    assert line == f"oom_kill_disable {int(value)}"


@pytest.mark.needs("cgroup1:memory")
def test_the_limit_of_tcp_buffers_is_set(container: Container) -> None:
    created(container, memory={"kernelTCP": 50593792})
    assert container.limit("memory", "memory.kmem.tcp.limit_in_bytes", "") == "50593792"


@memory
@pytest.mark.needs("compiler")
def test_the_memory_limit_is_enforced(container: Container) -> None:
    container.bundle.resources["memory"] = {"limit": 32 * MEBI, "swap": 32 * MEBI}
    container.process["args"] = ["/bin/probe", "eat", str(200 * MEBI)]
    result = container.try_run()
    assert result.status == 137
    assert "eaten" not in result.stdout


@memory
@pytest.mark.needs("compiler")
def test_what_fits_into_the_memory_limit_is_not_disturbed(container: Container) -> None:
    container.bundle.resources["memory"] = {"limit": 32 * MEBI, "swap": 32 * MEBI}
    container.process["args"] = ["/bin/probe", "eat", str(20 * MEBI)]
    assert container.run() == "eaten 1\n"


@memory
def test_a_container_starts_with_a_small_memory_limit(container: Container) -> None:
    container.bundle.resources["memory"] = {"limit": 4 * MEBI}
    assert container.run("echo fine") == "fine\n"


@memory
@pytest.mark.parametrize("value", ["64m", 1.5, True, -2])
def test_a_memory_limit_that_makes_no_sense_is_refused(container: Container, value: Any) -> None:
    container.bundle.resources["memory"] = {"limit": value}
    container.refused()


# cpu ----------------------------------------------------------------------------------------------


@cpu
@pytest.mark.parametrize(
    ("shares", "weight"), [(2, "1"), (1024, "100"), (262144, "10000"), (512, None)]
)
def test_cpu_shares_are_set(container: Container, shares: int, weight: str | None) -> None:
    created(container, cpu={"shares": shares})
    found = container.limit("cpu", "cpu.shares", "cpu.weight")
    if v2("cpu"):
        assert weight is None or found == weight
    else:
        assert found == str(shares)


@cpu
@pytest.mark.parametrize(
    ("quota", "period"), [(50000, 100000), (200000, 500000), (25000, None), (-7, 200000)]
)
def test_cpu_quota_and_period_are_set(container: Container, quota: int, period: int | None) -> None:
    limits = {"quota": quota, **({"period": period} if period else {})}
    created(container, cpu=limits)
    if v2("cpu"):
        wanted = f"{'max' if quota < 0 else quota} {period or 100000}"
        assert container.limit("cpu", "", "cpu.max") == wanted
    else:
        assert container.limit("cpu", "cpu.cfs_quota_us", "") == str(max(quota, -1))
        assert container.limit("cpu", "cpu.cfs_period_us", "") == str(period or 100000)


@pytest.mark.needs("cpu-burst")
@cpu
def test_cpu_burst_is_set(container: Container) -> None:
    created(container, cpu={"quota": 50000, "period": 100000, "burst": 20000})
    assert container.limit("cpu", "cpu.cfs_burst_us", "cpu.max.burst") == "20000"


@pytest.mark.needs("cpu-idle")
@cpu
def test_cpu_idle_is_set(container: Container) -> None:
    created(container, cpu={"idle": 1})
    assert container.limit("cpu", "cpu.idle", "cpu.idle") == "1"


@pytest.mark.needs("cgroup1:cpu")
def test_the_realtime_budget_is_set(container: Container) -> None:
    budget = machine.realtime_budget()
    if not budget:
        pytest.skip("[rt-groups] this kernel has no realtime budgets of cgroups")
    created(container, cpu=budget)
    assert container.limit("cpu", "cpu.rt_runtime_us", "") == "10000"
    assert container.limit("cpu", "cpu.rt_period_us", "") == "1000000"


@cpuset
@pytest.mark.needs("two-cpus")
@pytest.mark.parametrize("cpus", ["0", "0-1", "1"])
def test_the_processors_are_set(container: Container, cpus: str) -> None:
    container.bundle.resources["cpu"] = {"cpus": cpus, "mems": "0"}
    assert container.run("grep Cpus_allowed_list /proc/self/status").split()[1] == cpus


@pytest.mark.needs("cgroup1:cpuset")
def test_without_processors_a_cpuset_has_those_of_its_parent(container: Container) -> None:
    container.create()
    with open(machine.v1_mountpoint("cpuset") + "/cpuset.cpus") as file:
        assert container.limit("cpuset", "cpuset.cpus", "") == file.read().strip()
    assert container.limit("cpuset", "cpuset.mems", "") == "0"


@cpu
def test_zeros_mean_unset(container: Container) -> None:
    created(
        container,
        cpu={"shares": 0, "quota": 0, "period": 0},
        memory={"limit": 0, "disableOOMKiller": False},
        blockIO={"weight": 0},
    )
    assert container.limit("cpu", "cpu.shares", "cpu.weight") in ("1024", "100")


@cpuset
def test_a_processor_that_does_not_exist_is_refused(container: Container) -> None:
    container.bundle.resources["cpu"] = {"cpus": "4000"}
    container.refused()


# pids ---------------------------------------------------------------------------------------------


@pids
@pytest.mark.parametrize(("limit", "text"), [(1000, "1000"), (-1, "max"), (7, "7")])
def test_the_limit_of_tasks_is_set(container: Container, limit: int, text: str) -> None:
    created(container, pids={"limit": limit})
    assert container.limit("pids", "pids.max", "pids.max") == text


@pids
def test_each_limit_of_tasks_below_zero_is_none(container: Container) -> None:
    container.bundle.resources["pids"] = {"limit": -6}
    container.launch("sleep 1000")
    assert container.limit("pids", "pids.max", "pids.max") == "max"
    container.runtime("update", "--pids-limit", "40", container.id)
    container.runtime("update", "--pids-limit=-3", container.id)
    assert container.limit("pids", "pids.max", "pids.max") == "max"


@pids
@pytest.mark.needs("compiler")
def test_the_limit_of_tasks_is_enforced(container: Container) -> None:
    container.bundle.resources["pids"] = {"limit": 10}
    container.process["args"] = ["/bin/probe", "forks", "50"]
    assert container.run() == "9\n"


@pids
def test_a_container_with_one_task_runs(container: Container) -> None:
    container.bundle.resources["pids"] = {"limit": 1}
    container.process["args"] = ["/bin/echo", "alone"]
    assert container.run() == "alone\n"


# block io -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "v1_file", "v2_word"),
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
        ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
    ],
)
def test_a_rate_of_a_block_device_is_limited(
    container: Container, key: str, v1_file: str, v2_word: str
) -> None:
    device = blocks()
    assert device, "no block device"
    major, minor = (int(word) for word in device.split(":"))
    created(container, blockIO={key: [{"major": major, "minor": minor, "rate": 102400}]})
    if machine.v1_mountpoint("blkio"):
        assert container.limit("blkio", v1_file, "") == f"{device} 102400"
    else:
        assert f"{v2_word}=102400" in container.limit("io", "", "io.max")


@pytest.mark.needs("cgroup1:blkio")
def test_a_weight_is_set_or_an_error_but_never_dropped(container: Container) -> None:
    container.bundle.resources["blockIO"] = {"weight": 500}
    if container.create(ok=None).status == 0:
        files = glob.glob(machine.cgroup_directory("blkio", container.cgroup) + "/blkio.*weight")
        assert any("500" in _text(path).split() for path in files), files


@pytest.mark.needs("cgroup1:blkio")
def test_a_leaf_weight_that_the_kernel_does_not_know_is_an_error(container: Container) -> None:
    if os.path.exists(machine.v1_mountpoint("blkio") + "/blkio.leaf_weight"):
        pytest.skip("[leaf-weight] this kernel has CFQ weights")
    container.bundle.resources["blockIO"] = {"leafWeight": 300}
    container.refused()


def _text(path: str) -> str:
    with open(path) as file:
        return file.read()


# hugetlb, network, unified ------------------------------------------------------------------------


@pytest.mark.needs("hugepages", "cgroup:hugetlb")
def test_the_limit_of_huge_pages_is_set(container: Container) -> None:
    created(container, hugepageLimits=[{"pageSize": "2MB", "limit": 4 * MEBI}])
    found = container.limit("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max")
    assert found == str(4 * MEBI)


def test_a_huge_page_size_that_does_not_exist_is_refused(container: Container) -> None:
    container.bundle.resources["hugepageLimits"] = [{"pageSize": "3MB", "limit": 100}]
    container.refused()


@pytest.mark.needs("cgroup1:net_cls")
def test_the_class_of_network_packets_is_set(container: Container) -> None:
    created(container, network={"classID": 1048577})
    assert container.limit("net_cls", "net_cls.classid", "") == "1048577"


@pytest.mark.needs("cgroup1:net_prio")
def test_the_priorities_of_interfaces_are_set(container: Container) -> None:
    created(container, network={"priorities": [{"name": "lo", "priority": 30}]})
    assert "lo 30" in container.limit("net_prio", "net_prio.ifpriomap", "").splitlines()


@pytest.mark.needs("cgroup2:memory")
def test_unified_values_are_written(container: Container) -> None:
    created(container, unified={"memory.high": str(50 * MEBI), "pids.max": "77"})
    assert container.limit("memory", "", "memory.high") == str(50 * MEBI)
    assert container.limit("pids", "", "pids.max") == "77"


@pytest.mark.needs("cgroup2:memory")
@pytest.mark.parametrize("key", ["no.such.file", "../memory.max", "a/b", ""])
def test_a_unified_key_that_is_no_file_is_refused(container: Container, key: str) -> None:
    container.bundle.resources["unified"] = {key: "1"}
    container.refused()


@pytest.mark.needs("cgroup1")
def test_unified_values_are_an_error_with_version_one(container: Container) -> None:
    container.bundle.resources["unified"] = {"memory.high": "1000000"}
    container.refused()


def test_a_refused_resource_leaves_no_cgroup(container: Container) -> None:
    container.bundle.resources["hugepageLimits"] = [{"pageSize": "bogus", "limit": 1}]
    container.refused()
    for hierarchy in machine.hierarchies():
        assert not os.path.exists(hierarchy.mountpoint + container.cgroup)


# update -------------------------------------------------------------------------------------------


@memory
@pids
def test_update_changes_only_what_it_is_given(container: Container, runtime: Runtime) -> None:
    created(container, memory={"limit": 64 * MEBI}, pids={"limit": 50})
    runtime("update", "--resources", "-", container.id, stdin=json.dumps({"pids": {"limit": 60}}))
    assert container.limit("pids", "pids.max", "pids.max") == "60"
    assert container.limit("memory", "memory.limit_in_bytes", "memory.max") == str(64 * MEBI)


@memory
def test_update_raises_and_lowers_memory_with_swap(container: Container, runtime: Runtime) -> None:
    created(container, memory={"limit": 64 * MEBI, "swap": 64 * MEBI})
    for size in (128 * MEBI, 32 * MEBI, 256 * MEBI):
        document = json.dumps({"memory": {"limit": size, "swap": size}})
        runtime("update", "--resources", "-", container.id, stdin=document)
        found = container.limit("memory", "memory.limit_in_bytes", "memory.max")
        assert found == str(size)


@cpu
def test_update_takes_single_options(container: Container, runtime: Runtime) -> None:
    container.create()
    runtime("update", "--cpu-share", "512", "--pids-limit", "33", container.id)
    assert container.limit("pids", "pids.max", "pids.max") == "33"
    if runtime.name == "anocir":
        told = runtime("update", "--kernel-memory", "64m", container.id).stderr
        assert "linux.resources.memory.kernel is ignored" in told
    if not v2("cpu"):
        assert container.limit("cpu", "cpu.shares", "") == "512"


@memory
def test_update_of_a_running_container_from_a_file(container: Container, runtime: Runtime) -> None:
    container.launch("sleep 100")
    path = container.bundle.outside("new.json", json.dumps({"memory": {"limit": 48 * MEBI}}))
    runtime("update", "--resources", path, container.id)
    assert container.limit("memory", "memory.limit_in_bytes", "memory.max") == str(48 * MEBI)


@memory
def test_update_of_devices_changes_nothing(container: Container, runtime: Runtime) -> None:
    container.launch("sleep 100")
    document = json.dumps({"devices": [{"allow": False, "access": "rwm"}]})
    runtime("update", "--resources", "-", container.id, stdin=document)
    assert container.exec("head", "-c", "1", "/dev/zero").status == 0


def test_update_of_a_stopped_or_unknown_container_is_an_error(
    container: Container, runtime: Runtime
) -> None:
    container.launch("true")
    container.wait("stopped")
    runtime("update", "--pids-limit", "5", container.id, ok=False)
    runtime("update", "--pids-limit", "5", "nobody", ok=False)


# the rest -----------------------------------------------------------------------------------------


def test_ps_lists_the_host_pids_of_the_container(container: Container, runtime: Runtime) -> None:
    pid = container.launch("sleep 100 & echo > /ready; wait")
    container.wait_file("/ready")
    found = json.loads(runtime("ps", "--format", "json", container.id).stdout)
    assert pid in found and len(found) == 2


def test_ps_shows_a_table_by_default(container: Container, runtime: Runtime) -> None:
    pid = container.launch("exec sleep 100")
    lines = runtime("ps", container.id).stdout.splitlines()
    assert "PID" in lines[0] and len(lines) == 2 and str(pid) in lines[1].split()


@memory
def test_events_with_stats_tells_what_is_used(container: Container, runtime: Runtime) -> None:
    container.bundle.resources["memory"] = {"limit": 64 * MEBI}
    container.launch("exec sleep 100")
    event = json.loads(runtime("events", "--stats", container.id).stdout)
    assert event["type"] == "stats" and event["id"] == container.id
    assert event["data"]["pids"]["current"] == 1
    assert event["data"]["memory"]["usage"]["limit"] == 64 * MEBI
    assert event["data"]["cpu"]["usage"]["total"] >= 0


def test_delete_force_clears_what_the_program_left_in_its_cgroup(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    container.launch("setsid sleep 100 & setsid sleep 100 & echo > /ready; exit 0")
    container.wait_file("/ready")
    container.wait("stopped")
    container.delete("--force")
    for hierarchy in machine.hierarchies():
        assert not os.path.exists(hierarchy.mountpoint + container.cgroup)


def test_sub_cgroups_that_the_program_made_are_removed(container: Container) -> None:
    container.launch("sleep 100")
    directory = machine.cgroup_directory("pids", container.cgroup)
    os.makedirs(os.path.join(directory, "a", "b"))
    container.delete("--force")
    assert not os.path.exists(directory)


def test_the_runtime_itself_is_never_in_the_containers_cgroup(container: Container) -> None:
    container.create()
    directory = machine.cgroup_directory("pids", container.cgroup)
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert file.read().split() == [str(container.pid)]


def test_a_frozen_cgroup_is_refused_or_thawed_but_never_waited_for(container: Container) -> None:
    v1 = machine.v1_mountpoint("freezer")
    directory = (v1 or machine.v2_mountpoint()) + container.cgroup
    name, frozen = ("freezer.state", "FROZEN") if v1 else ("cgroup.freeze", "1")
    os.mkdir(directory)
    machine.write_file(os.path.join(directory, name), frozen)
    try:
        container.create(ok=None)
        container.delete("--force", ok=None)
    finally:
        if os.path.isdir(directory):
            machine.write_file(os.path.join(directory, name), "THAWED" if v1 else "0")
            drive.until("no process is left", lambda: drive.reap() or leftovers.rmdir(directory))


@pytest.mark.parametrize("version", [1, 2])
def test_a_parent_that_is_frozen_is_named_and_nobody_waits(
    container: Container, version: int
) -> None:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime says it")
    mountpoint = machine.v1_mountpoint("freezer") if version == 1 else machine.v2_mountpoint()
    if not mountpoint:
        pytest.skip(f"[freezer{version}] this machine has not the freezer of version {version}")
    name, frozen, thawed = (
        ("freezer.state", "FROZEN", "THAWED") if version == 1 else ("cgroup.freeze", "1", "0")
    )
    parent = mountpoint + container.cgroup
    container.linux["cgroupsPath"] = f"{container.cgroup}/a/b"
    os.mkdir(parent)
    machine.write_file(f"{parent}/{name}", frozen)
    try:
        said = container.refused()
        assert said.strip() == (
            f"anocir: container's cgroup unexpectedly frozen: {parent}, above {parent}/a/b"
        )
        assert not os.path.exists(f"{parent}/a")
    finally:
        machine.write_file(f"{parent}/{name}", thawed)
        os.rmdir(parent)


def test_whose_own_cgroup_was_killed_makes_containers_all_the_same(container: Container) -> None:
    """From Linux 6.14 to 6.18 who is cloned from there into another cgroup is killed at once."""
    mountpoint = machine.v2_mountpoint()
    parent = mountpoint + os.path.dirname(container.cgroup)
    if not mountpoint or not os.path.exists(f"{parent}/cgroup.kill"):
        pytest.skip("[cgroup.kill] this machine has not cgroup.kill, which Linux 5.14 has")
    own = f"{mountpoint}{container.cgroup}-caller"
    os.mkdir(own)
    try:
        machine.write_file(f"{own}/cgroup.kill", "1")
        enter = lambda: machine.write_file(f"{own}/cgroup.procs", "0")  # noqa: E731
        container.bundle.sh("echo up; exec sleep 1000")
        container.create(preexec_fn=enter)
        container.start()
        drive.until("it is up", lambda: "up" in container.output())
        words = ("exec", container.id, "/bin/cat", "/proc/self/cgroup")
        said = container.runtime(*words, preexec_fn=enter).stdout
        assert f"0::{container.cgroup}\n" in said
    finally:
        drive.until("the cgroup is empty", partial(leftovers.rmdir, own))


@memory
def test_who_is_killed_for_memory_is_told_by_run_exec_and_events(container: Container) -> None:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    hog = "dd if=/dev/zero of=/dev/null bs=200M count=1"
    told = r"process \d+ \((sh|dd|busybox)\) was killed for want of memory: the limit is 33554432 bytes"
    peak = not machine.missing("memory-peak")
    told += r", the peak was \d+" if peak else ""
    container.bundle.resources["memory"] = {"limit": 32 * MEBI}
    result = container.try_run(f"exec {hog}")
    said = result.stderr or container.errors()
    assert result.status == 137
    assert re.fullmatch("anocir: warning: " + told, said.splitlines()[-1]), said
    # The kernel's log has the host's numbers, which a runtime in a container does not know.
    words = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    result = drive.call(["unshare", "-pf", "--mount-proc", "--", *words], ok=False)
    assert re.fullmatch("anocir: warning: " + told, result.stderr.splitlines()[-1]), (
        result.explain()
    )
    container.launch("sleep 1000")
    with open(container.bundle.outside("events", ""), "w+") as file:
        lines = lambda: [json.loads(line) for line in open(file.name)]  # noqa: E731
        watch = container.runtime.command("events", "--interval", "50ms", container.id)
        child = drive.spawn(watch, stdout=file)
        drive.until("events looks", lambda: os.path.getsize(file.name))
        result = container.exec("sh", "-c", f"exec {hog}", ok=False)
        assert result.status == 137
        assert re.fullmatch("anocir: warning: " + told, result.stderr.splitlines()[-1]), (
            result.stderr
        )
        drive.until("an event", lambda: any(line["type"] == "oom-kill" for line in lines()))
        event = [line for line in lines() if line["type"] == "oom-kill"][0]
        # runc's own line stays what it is, byte by byte
        with open(file.name) as text:
            assert f'{{"type":"oom","id":"{container.id}"}}\n' in text.readlines()
        container.kill("KILL")
        drive.finish(child)
    assert event["id"] == container.id
    assert event["data"]["limit"] == 32 * MEBI and event["data"]["kills"] >= 1
    assert not peak or event["data"]["peak"] > 16 * MEBI
    assert event["data"]["process"] in ("dd", "sh", "busybox")


@memory
def test_what_the_runtime_wanted_itself_is_told(container: Container) -> None:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    container.bundle.resources["memory"] = {"limit": 40960}
    said = container.cannot_run("true")
    if "unable to set memory limit to 40960 (current usage: " in said:
        return  # version 2 refuses before it kills; the usage is told there too
    assert re.search(
        r"OOM-killed \(memory limit too low\?\): process \d+ \(\S+\), the limit is \d+ bytes", said
    ), said
    assert "the peak was" in said
