"""Cgroups that are shared, abused from inside, read-only, or lack a controller; updates that must change little."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from tests import drive, leftovers, machine
from tests.drive import Container, Runtime

V1 = pytest.mark.needs("cgroup1:freezer", "cgroup1:cpu", "cgroup1:memory")


def directory(container: Container, controller: str = "pids") -> str:
    return machine.cgroup_directory(controller, container.cgroup)


def written(container: Container, controller: str, file: str, value: str) -> None:
    """Set a limit by hand."""
    with open(f"{directory(container, controller)}/{file}", "w") as stream:
        stream.write(value)


# update: what it names and nothing else -----------------------------------------------------------


@V1
def test_an_update_leaves_what_was_set_by_hand(container: Container, runtime: Runtime) -> None:
    """runc rewrites everything; we do not (7594ecb: pids.max went back to 50)."""
    container.bundle.resources.update(pids={"limit": 50}, cpu={"shares": 512})
    container.create()
    written(container, "pids", "pids.max", "77")
    written(container, "cpu", "cpu.shares", "300")
    runtime("update", "--memory", str(64 << 20), container.id)
    assert container.limit("pids", "pids.max", "") == "77"
    assert container.limit("cpu", "cpu.shares", "") == "300"
    assert container.limit("memory", "memory.limit_in_bytes", "") == str(64 << 20)


@V1
def test_other_updates_work_while_the_cgroup_is_idle(
    container: Container, runtime: Runtime
) -> None:
    """The kernel takes no weight then, and nobody named one."""
    if not os.path.exists(f"{machine.v1_mountpoint('cpu')}/cpu.idle") and not _has_idle():
        pytest.skip("[cpu.idle] this machine has not cpu.idle (Linux 5.15)")
    container.bundle.resources.update(cpu={"shares": 512})
    container.create()
    runtime("update", "--cpu-idle", "1", container.id)
    runtime("update", "--pids-limit", "33", container.id)
    runtime("update", "--cpu-quota", "20000", container.id)
    assert container.limit("cpu", "cpu.idle", "") == "1"
    assert container.limit("pids", "pids.max", "") == "33"
    runtime("update", "--cpu-idle", "0", container.id)
    assert container.limit("cpu", "cpu.shares", "") == "512"


def _has_idle() -> bool:
    made = f"{machine.v1_mountpoint('cpu')}/anocir-idle-{os.getpid()}"
    os.mkdir(made)
    try:
        return os.path.exists(f"{made}/cpu.idle")
    finally:
        os.rmdir(made)


@V1
def test_a_refused_update_puts_the_old_values_back(container: Container, runtime: Runtime) -> None:
    container.bundle.resources.update(pids={"limit": 50}, cpu={"quota": 50000, "period": 100000})
    container.create()
    document = '{"pids": {"limit": 60}, "cpu": {"cpus": "4000"}}'
    runtime("update", "--resources", "-", container.id, stdin=document, ok=False)
    assert container.limit("pids", "pids.max", "") == "50"
    assert container.limit("cpu", "cpu.cfs_quota_us", "") == "50000"


@V1
@pytest.mark.needs("root")
def test_real_time_needs_no_path(container: Container) -> None:
    """The parent that we would make has none to give."""
    if not os.path.exists(f"{machine.v1_mountpoint('cpu')}/cpu.rt_runtime_us"):
        pytest.skip("[rt-group] this machine has not CONFIG_RT_GROUP_SCHED")
    del container.linux["cgroupsPath"]
    container.bundle.resources["cpu"] = {"realtimeRuntime": 10000, "realtimePeriod": 1000000}
    container.create()
    with open(f"/proc/{container.pid}/cgroup") as file:
        path = next(
            line.split(":")[2].strip() for line in file if ":cpu:" in line or ":cpu," in line
        )
    with open(f"{machine.v1_mountpoint('cpu')}{path}/cpu.rt_runtime_us") as file:
        assert file.read().strip() == "10000"


# two in one cgroup --------------------------------------------------------------------------------


def shared(new_container: Callable[[], Container]) -> tuple[Container, Container]:
    """A container that has stopped, and one that runs in its cgroup."""
    one, two = new_container(), new_container()
    one.launch("exit 0")
    one.wait()
    two.linux["cgroupsPath"] = one.cgroup
    two.launch("sleep 1000")
    return one, two


def test_delete_by_force_kills_nobody_else(
    new_container: Callable[[], Container], runtime: Runtime
) -> None:
    """7594ecb killed the second container. runc's delete fails as well, and names the processes."""
    one, two = shared(new_container)
    said = runtime("delete", "--force", one.id, ok=False)
    assert str(two.pid) in said.stderr
    assert "device or resource busy" in said.stderr
    assert two.status == "running"
    two.delete("--force")
    runtime("delete", "--force", one.id)


def test_kill_all_and_kill_of_the_first_reach_nobody_else(
    new_container: Callable[[], Container], runtime: Runtime
) -> None:
    one, two = shared(new_container)
    runtime("kill", "--all", one.id, "KILL", ok=None)
    runtime("kill", one.id, "KILL", ok=False)
    assert two.status == "running"
    two.delete("--force")
    runtime("delete", "--force", one.id)


def test_a_process_that_somebody_put_there_is_not_killed(
    container: Container, runtime: Runtime, helper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    container.launch("sleep 1000")
    stranger = helper(["sleep", "1000"])
    with open(f"{directory(container)}/cgroup.procs", "w") as file:
        file.write(str(stranger.pid))
    said = runtime("delete", "--force", container.id, ok=False)
    assert str(stranger.pid) in said.stderr
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    runtime("delete", "--force", container.id)


def test_what_outlives_init_of_a_shared_pid_namespace_is_still_ours(container: Container) -> None:
    container.linux["namespaces"] = [
        space for space in container.linux["namespaces"] if space["type"] != "pid"
    ]
    container.launch("setsid sleep 1000 & echo > /ready; exit 0")
    container.wait()
    with open(f"{directory(container)}/cgroup.procs") as file:
        orphans = [int(word) for word in file.read().split()]
    assert orphans
    container.delete("--force")
    for pid in orphans:
        drive.until(
            f"{pid} is gone",
            lambda pid=pid: machine.process_status(pid).get("State", "X")[0] in "XZ",
        )


def test_nobody_else_s_process_is_taken_for_an_orphan(
    container: Container, runtime: Runtime, helper: Callable[..., subprocess.Popen[bytes]]
) -> None:
    """Without a pid namespace: what has not the container's mount namespace is a stranger."""
    container.linux["namespaces"] = [
        space for space in container.linux["namespaces"] if space["type"] != "pid"
    ]
    container.launch("exit 0")
    container.wait()
    stranger = helper(["sleep", "1000"])
    with open(f"{directory(container)}/cgroup.procs", "w") as file:
        file.write(str(stranger.pid))
    runtime("delete", "--force", container.id, ok=False)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    runtime("delete", "--force", container.id)


# from inside --------------------------------------------------------------------------------------


def move(pid: int, fd: int) -> None:
    procs = os.open("cgroup.procs", os.O_WRONLY, dir_fd=fd)
    os.write(procs, str(pid).encode())
    os.close(procs)


@pytest.mark.parametrize("names", [["d"] * 1500, ["n" * 250] * 40], ids=["deep", "long"])
def test_no_depth_makes_a_container_undeletable(
    container: Container, runtime: Runtime, names: list[str]
) -> None:
    container.launch("sleep 1000")
    for controller in ("pids", "freezer") if machine.v1_mountpoint("freezer") else ("pids",):
        fd = leftovers.dig(directory(container, controller), names)
        move(container.pid, fd)
        os.close(fd)
    assert str(container.pid) in runtime("ps", container.id).stdout
    said = runtime("kill", "--all", container.id, "KILL")
    assert len(said.stderr) < 1000
    container.wait()
    container.delete("--force")


@V1
@pytest.mark.parametrize("command", ["kill", "kill --all", "delete --force"])
def test_a_part_that_froze_itself_dies(
    container: Container, runtime: Runtime, command: str
) -> None:
    """A process in a frozen v1 cgroup takes no signal, and init waits for all in its pid namespace."""
    container.launch("sleep 1000 & wait")
    fd = leftovers.dig(directory(container, "freezer"), ["a", "b"])
    children = Path(f"/proc/{container.pid}/task/{container.pid}/children")
    child = int(drive.until("its child", children.read_text).split()[0])
    move(child, fd)
    state = os.open("freezer.state", os.O_RDWR, dir_fd=fd)
    os.write(state, b"FROZEN")
    drive.until("it is frozen", lambda: os.pread(state, 20, 0) == b"FROZEN\n")
    os.close(state)
    os.close(fd)
    words = command.split()
    runtime(*words, container.id, *(["KILL"] if words[0] == "kill" else []))
    if words[0] == "kill":
        container.wait()
        container.delete()


# exec ---------------------------------------------------------------------------------------------


@V1
def test_exec_joins_a_cgroup_by_any_controller_of_its_hierarchy(
    container: Container, runtime: Runtime
) -> None:
    container.launch("sleep 1000")
    for controller in ("pids", "memory"):
        os.mkdir(f"{directory(container, controller)}/inner")
    said = runtime(
        "exec",
        "--cgroup",
        "pids:inner",
        "--cgroup",
        "memory:/inner",
        container.id,
        "/bin/cat",
        "/proc/self/cgroup",
    ).stdout
    rows = {line.split(":")[1]: line.split(":")[2] for line in said.splitlines()}
    assert rows["pids"].endswith("/inner") and rows["memory"].endswith("/inner")
    assert not rows["freezer"].endswith("/inner")
    runtime("exec", "--cgroup", "pids:none", container.id, "/bin/true", ok=False)


def test_exec_in_the_containers_own_cgroup_by_a_slash(
    container: Container, runtime: Runtime
) -> None:
    container.launch("sleep 1000")
    said = runtime("exec", "--cgroup", "/", container.id, "/bin/cat", "/proc/self/cgroup").stdout
    assert f"{container.cgroup}\n" in said


# the host's file systems --------------------------------------------------------------------------


def inside(runtime: Runtime, script: str, *words: str, ok: bool | None = True) -> drive.Result:
    """Run the runtime in a mount namespace of its own, changed by a script."""
    command = [
        "unshare",
        "-m",
        "--propagation",
        "private",
        "sh",
        "-ec",
        f'{script}; exec "$@"',
        "sh",
    ]
    return drive.call([*command, *runtime.command(*words)], ok=ok)


READ_ONLY = (
    "for each in $(findmnt -rno TARGET -t cgroup,cgroup2); do mount -o remount,bind,ro $each; done"
)


def test_a_read_only_cgroup_file_system_is_said_and_leaves_nothing(
    container: Container, runtime: Runtime
) -> None:
    """As in every container without privileges: rmdir(2) then says EROFS also of what is not there."""
    container.bundle.write()
    words = ("create", "--bundle", container.bundle.path, container.id)
    said = inside(runtime, READ_ONLY, *words, ok=False)
    assert "read-only file system" in said.stderr
    assert "--cgroup-manager=disabled" in said.stderr
    inside(runtime, READ_ONLY, "delete", "--force", container.id)
    assert container.id not in runtime("list").stdout


RULES = [{"allow": False, "access": "rwm"}]


def with_kmsg(container: Container) -> None:
    container.bundle.resources["devices"] = list(RULES)
    container.linux["devices"] = [{"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11}]
    container.process["args"] = ["/bin/probe", "open", "/dev/kmsg2", "w"]


@pytest.mark.needs("cgroup1:devices")
def test_device_rules_hold_without_the_controller_by_a_program(
    container: Container, runtime: Runtime
) -> None:
    """A hybrid host: cgroup2 beside v1 hierarchies of which devices is not mounted."""
    if not machine.v2_mountpoint():
        pytest.skip("[hybrid] this machine has not cgroup v2 beside version 1")
    with_kmsg(container)
    container.bundle.write()
    script = f"umount -l {machine.v1_mountpoint('devices')}"
    said = inside(runtime, script, "run", "--bundle", container.bundle.path, container.id)
    assert said.line == "EPERM"


@pytest.mark.needs("cgroup1:devices")
def test_device_rules_that_nothing_can_enforce_are_refused(
    container: Container, runtime: Runtime
) -> None:
    with_kmsg(container)
    container.bundle.write()
    script = f"umount -l {machine.v1_mountpoint('devices')}"
    if machine.v2_mountpoint():
        script += f"; umount -l {machine.v2_mountpoint()}"
    words = ("run", "--bundle", container.bundle.path, container.id)
    said = inside(runtime, script, *words, ok=False)
    assert said.stderr.startswith(
        "anocir: linux.resources.devices: the cgroup controller devices is not"
    )
    # what was not asked for does not have to hold
    del container.bundle.resources["devices"]
    container.bundle.write()
    assert inside(runtime, script, *words).line == "ok"


@pytest.mark.needs("cgroup1")
def test_a_mount_of_type_cgroup2_is_one_beside_version_1(container: Container) -> None:
    if not machine.v2_mountpoint():
        pytest.skip("[hybrid] this machine has not cgroup v2 beside version 1")
    container.bundle.add_mount("/c2", "cgroup2", "cgroup2", "ro", "nosuid", "nodev", "noexec")
    rows = [line.split() for line in container.run("cat /proc/self/mountinfo").splitlines()]
    assert [row[row.index("-") + 1] for row in rows if row[4] == "/c2"] == ["cgroup2"]


def test_a_cgroup_mount_that_cannot_be_bound_is_used_all_the_same(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.write()
    script = "mount --make-runbindable /"
    said = inside(runtime, script, "run", "--bundle", container.bundle.path, container.id, ok=None)
    assert (
        "unified" not in said.stderr
        and "invalid argument" not in said.stderr.partition("mounts")[0]
    )


def test_control_a_rule_that_allows_the_device_opens_it(container: Container) -> None:
    with_kmsg(container)
    container.bundle.resources["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "w"}
    )
    assert container.make("run").status == 0
    assert container.output().strip() == "ok"


@pytest.mark.needs("cgroup1")
def test_a_hybrid_host_shows_version_1_alone(container: Container) -> None:
    """As with runc: a systemd in the container would take a version 2 beside it for its own."""
    if not machine.v2_mountpoint():
        pytest.skip("[cgroup2-mount] this machine has not a cgroup2 mount")
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro")
    table = container.run("cat /proc/mounts")
    assert " cgroup rw" in table or " cgroup ro" in table
    assert " cgroup2 " not in table


@pytest.mark.needs("cgroup1:devices")
def test_a_device_rule_that_cannot_be_taken_back_is_refused_before_anything_is_made(
    container: Container,
) -> None:
    """The kernel would pass over the line, and the device stay allowed."""
    container.linux["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "major": 10},
            {"allow": False, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        ]
    }
    told = "linux.resources.devices[2]: c 10:229 rw is allowed by the rule c 10:* rwm, of which"
    assert told in container.refused()
    words = ("create", "--dry-run", "--bundle", container.bundle.path, container.id)
    assert told in container.runtime(*words, ok=False).stderr
