"""Cgroups on the real kernel: limits are read back and felt, and what was made is gone after.

Runs on whatever the machine has: v1, hybrid or v2 (the virtual machine has the other one).
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import resource
import select
import signal
import struct
import time
from functools import partial

import pytest

from anocir import cgroup
from anocir.cgroup import choice, devices, hierarchy
from anocir.errors import Error
from tests import drive, machine
from tests.wait import others_go_on, until

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]

TOP = f"/anocir-kernel-{os.getpid()}"
MIB = 1 << 20
PATIENCE = 60  # seconds, on a machine that is emulated and busy
CLONE_INTO_CGROUP = 0x200000000
SYS_CLONE3 = 435
KMSG = (1, 11)  # a device that is in no default rule


class Settings:
    systemd_cgroup = False
    cgroup_manager = "cgroupfs"
    rootless = "false"


def directories() -> list[str]:
    v1, v2 = hierarchy.own()
    return [row[0] for row in [*v1, *([v2] if v2 else [])]]


def choose(name: str, **config):
    config.setdefault("linux", {})["cgroupsPath"] = f"{TOP}/{name}"
    return choice.choose(Settings, config, name)


@pytest.fixture
def make():
    managers = []

    def one(resources, name="x", **config):
        record = json.loads(json.dumps(choose(name, **config)))
        manager = cgroup.load(record)
        managers.append(manager)
        manager.prepare(resources)
        return manager

    yield one
    for manager in reversed(managers):
        members = manager.pids()
        manager.kill(signal.SIGKILL)
        reap(members)
        manager.destroy()
    for mountpoint in directories():
        assert not os.path.exists(mountpoint + TOP)


def reap(members: list[int]) -> None:
    """Wait for the killed ones and for nobody else: other tests have children too."""
    for pid in members:
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # a child of ours had made it: somebody else reaps it
            drive.until(f"{pid} is dead", partial(is_dead, pid))


def is_dead(pid: int) -> bool:
    return machine.process_status(pid).get("State", "X")[0] in "XZ"


def rmdir(directory: str) -> None:
    """Remove a cgroup; some kernels count a process for a moment that was reaped already."""

    def removed() -> bool:
        try:
            os.rmdir(directory)
        except OSError as error:
            assert error.errno == errno.EBUSY, error
            return False
        return True

    drive.until(f"{directory} is removed", removed)


def spawn(manager, action=None, join=None):
    """Fork a child that waits until it was put into the cgroups, then runs the action."""
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            status = action() if action else time.sleep(300)
            os._exit(status or 0)
        except BaseException:
            os._exit(99)
    os.close(ready)
    try:
        if join:
            join(pid)
        else:
            manager.join(pid)
            manager.finish(pid)
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        raise
    finally:
        os.close(go)
    return pid


def status_of(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def read(manager, v1: tuple[str, str], v2: str) -> str:
    """The text of a control file, by (controller, file) on v1 and by file on v2."""
    if manager.record["manager"] == "v1":
        path = f"{manager.directories[v1[0]]}/{v1[1]}"
    else:
        path = f"{manager.directory}/{v2}"
    with open(path) as file:
        return file.read().strip()


def memory(manager) -> str:
    return read(manager, ("memory", "memory.limit_in_bytes"), "memory.max")


def pids_max(manager) -> str:
    return read(manager, ("pids", "pids.max"), "pids.max")


LIMITS = {
    "memory": {"limit": 64 * MIB, "swap": 96 * MIB, "reservation": 32 * MIB},
    "cpu": {"shares": 2048, "quota": 50000, "period": 200000, "cpus": "0", "mems": "0"},
    "pids": {"limit": 20},
}


def test_limits_are_read_back(make):
    manager = make(LIMITS)
    pid = spawn(manager)
    assert memory(manager) == str(64 * MIB)
    assert pids_max(manager) == "20"
    assert read(manager, ("cpuset", "cpuset.cpus"), "cpuset.cpus") == "0"
    if manager.record["manager"] == "v1":
        assert read(manager, ("memory", "memory.memsw.limit_in_bytes"), "") == str(96 * MIB)
        assert read(manager, ("memory", "memory.soft_limit_in_bytes"), "") == str(32 * MIB)
        assert read(manager, ("cpu", "cpu.shares"), "") == "2048"
        assert read(manager, ("cpu", "cpu.cfs_quota_us"), "") == "50000"
        assert read(manager, ("cpu", "cpu.cfs_period_us"), "") == "200000"
    else:
        assert read(manager, ("", ""), "memory.swap.max") == str(32 * MIB)
        assert read(manager, ("", ""), "memory.low") == str(32 * MIB)
        assert read(manager, ("", ""), "cpu.weight") == "174"
        assert read(manager, ("", ""), "cpu.max") == "50000 200000"
    assert manager.pids() == [pid]
    assert set(hierarchy.of_process(pid).values()) <= {f"{TOP}/x", "/"}


def test_a_process_over_the_memory_limit_is_killed_and_counted(make):
    manager = make({"memory": {"limit": 16 * MIB, "swap": 16 * MIB}})

    def eat():
        block = bytearray(64 * MIB)
        for index in range(0, len(block), 4096):
            block[index] = 1
        return 3

    assert status_of(spawn(manager, eat)) == -signal.SIGKILL
    assert manager.oom_kills() == 1


def test_a_fork_bomb_stops_at_the_limit(make):
    manager = make({"pids": {"limit": 4}})

    def bomb():
        children = 0
        try:
            while children < 50:
                if os.fork() == 0:
                    time.sleep(300)
                    os._exit(0)
                children += 1
        except OSError as error:
            assert error.errno == errno.EAGAIN
        return children

    assert status_of(spawn(manager, bomb)) == 3
    manager.kill(signal.SIGKILL)


def test_pids_limit_zero_lets_the_process_run_and_nothing_else(make):
    manager = make({"pids": {"limit": 0}})

    def fork():
        try:
            os.fork()
        except OSError as error:
            return error.errno
        return 0

    assert status_of(spawn(manager, fork)) == errno.EAGAIN


def test_cpu_quota_holds_over_a_second(make):
    manager = make({"cpu": {"quota": 20000, "period": 100000}})

    def spin():
        start = time.monotonic()
        while time.monotonic() < start + 1.0:
            pass
        usage = resource.getrusage(resource.RUSAGE_SELF)
        spent = (usage.ru_utime + usage.ru_stime) / (time.monotonic() - start)
        return min(int(spent * 100), 99)

    def throttled() -> int:
        rows = read(manager, ("cpu", "cpu.stat"), "cpu.stat").splitlines()
        return int(dict(row.split() for row in rows)["nr_throttled"])

    def held() -> bool:
        # Hundredths: 20 and what a busy machine adds. An emulated one sometimes loses the ticks,
        # and on one that is too busy the quota is not reached: then this second says nothing.
        before = throttled()
        return status_of(spawn(manager, spin)) <= 45 and throttled() > before

    drive.until("a second in which the quota held", held)


def device(number, mode=os.O_RDONLY):
    path = f"/dev/anocir-node-{os.getpid()}"  # /tmp may be mounted nodev
    os.mknod(path, 0o20666, os.makedev(*number))
    try:
        os.close(os.open(path, mode | os.O_NONBLOCK))
    except OSError as error:
        return error.errno
    finally:
        os.unlink(path)
    return 0


DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}


def test_a_denied_device_is_refused_and_an_allowed_one_opens(make):
    manager = make({"devices": [DENY_ALL, ALLOW_KMSG]})
    assert status_of(spawn(manager, lambda: device(KMSG))) == 0
    assert status_of(spawn(manager, lambda: device(KMSG, os.O_RDWR))) == errno.EPERM
    assert status_of(spawn(manager, lambda: device((1, 3), os.O_RDWR))) == 0
    assert status_of(spawn(manager, lambda: device((1, 1)))) == errno.EPERM  # /dev/mem


def test_without_rules_only_the_usual_devices_work(make):
    manager = make({})
    assert status_of(spawn(manager, lambda: device(KMSG))) == errno.EPERM
    assert status_of(spawn(manager, lambda: device((1, 5)))) == 0


def test_a_privileged_container_may_use_every_device(make):
    manager = make({"devices": [DENY_ALL, {"allow": True, "access": "rwm"}]})
    assert status_of(spawn(manager, lambda: device(KMSG))) == 0


def test_devices_change_by_what_is_asked_and_by_no_update_of_limits(make):
    old = {"devices": [DENY_ALL], "pids": {"limit": 9}}
    manager = make(old)
    rules, more = devices.parse([DENY_ALL]), devices.parse([ALLOW_KMSG])
    for _ in range(70):  # 64 programs would be the kernel's limit
        manager.change_devices(rules, [], more, [("test", more[0])])
        if manager.record["manager"] == "v1":
            break
    assert status_of(spawn(manager, lambda: device(KMSG))) == 0
    manager.update({"memory": {"limit": 64 * MIB}, "devices": [DENY_ALL]}, {})
    assert status_of(spawn(manager, lambda: device(KMSG))) == 0
    less = devices.parse([{**ALLOW_KMSG, "allow": False}])
    back = manager.change_devices(rules, more, less, [("test", less[0])])
    assert status_of(spawn(manager, lambda: device(KMSG))) == errno.EPERM
    back()
    assert status_of(spawn(manager, lambda: device(KMSG))) == 0


def test_devices_change_without_a_moment_of_nothing_or_everything(make):
    """Who opens devices all the time is never kept from one of them, nor let to another."""
    manager = make({"devices": [DENY_ALL]})
    go, done = os.pipe()
    often, enough = os.pipe()

    def work():
        os.close(done)
        count = 0
        while not select.select([go], [], [], 0)[0]:
            if device((1, 3), os.O_RDWR) or device((1, 1)) != errno.EPERM:
                return 1
            count += 1
            if count == 100:
                os.close(enough)
        return 0

    pid = spawn(manager, work)
    os.close(enough)
    rules, more = devices.parse([DENY_ALL]), devices.parse([ALLOW_KMSG])
    # Also as long as it takes the process to look a hundred times; its end ends the wait too.
    changes = 0
    while changes < 300 or not select.select([often], [], [], 0)[0]:
        back = manager.change_devices(rules, [], more, [("test", more[0])])
        back()
        changes += 1
    os.close(done)
    os.close(often)
    assert status_of(pid) == 0, "a device was kept from the process, or another one let to it"


def test_memory_limits_go_up_and_down(make):
    manager = make({"memory": {"limit": 64 * MIB, "swap": 64 * MIB}})
    spawn(manager)
    for limit, swap in ((256, 512), (16, 16), (64, 128), (32, 512), (512, 512), (-1, 0), (64, 64)):
        size = limit if limit < 0 else limit * MIB
        manager.update({"memory": {"limit": size, "swap": swap * MIB}}, {})
        text = memory(manager)
        assert text in ("max", "9223372036854771712") if limit < 0 else text == str(size)


def test_cpu_quota_and_period_change_in_both_directions(make):
    manager = make({"cpu": {"quota": 50000, "period": 100000}})
    for quota, period, burst in ((500000, 1000000, 0), (1000, 1000, 0), (200000, 100000, 0)):
        manager.update({"cpu": {"quota": quota, "period": period, "burst": burst}}, {})
        assert read(manager, ("cpu", "cpu.cfs_quota_us"), "cpu.max").split()[0] == str(quota)


def test_a_refused_update_leaves_everything_as_it_was(make):
    manager = make(LIMITS)
    files = [
        (("pids", "pids.max"), "pids.max"),
        (("cpu", "cpu.cfs_quota_us"), "cpu.max"),
        (("cpu", "cpu.shares"), "cpu.weight"),
        (("memory", "memory.limit_in_bytes"), "memory.max"),
    ]
    spawn(manager)
    before = [read(manager, *file) for file in files]
    new = {
        "cpu": {"shares": 100, "quota": 70000, "period": 100000},
        "memory": {"limit": 32 * MIB, "swap": 64 * MIB},
        "pids": {"limit": 30},
        "blockIO": {"throttleReadBpsDevice": [{"major": 4000, "minor": 77, "rate": 5}]},
    }
    with pytest.raises(Error, match=r"^linux\.resources\.blockIO\.throttleReadBpsDevice\[0\]"):
        manager.update(new, LIMITS)
    assert [read(manager, *file) for file in files] == before


def test_a_limit_below_the_usage_is_rejected_when_asked(make):
    manager = make({"memory": {"limit": 64 * MIB}})
    ready, told = os.pipe()

    def hold():
        block = bytearray(8 * MIB)
        for index in range(0, len(block), 4096):
            block[index] = 1
        os.write(told, b"x")
        time.sleep(300)

    spawn(manager, hold)
    os.read(ready, 1)
    with pytest.raises(Error, match=r"rejecting memory limit 1048576 <= usage \d+"):
        manager.update({"memory": {"limit": MIB, "checkBeforeUpdate": True}}, {})
    if manager.record["manager"] == "v1":
        resource_path = manager.directories["memory"] + "/memory.swappiness"
        with open(resource_path, "w") as file:
            file.write("0")
    assert memory(manager) == str(64 * MIB)


def test_pause_and_resume(make):
    manager = make({})
    counter, told = os.pipe()

    def tick():
        while True:
            os.write(told, b"x")
            time.sleep(0.005)

    spawn(manager, tick)
    os.read(counter, 1)
    assert not manager.frozen()
    manager.freeze()
    assert cgroup.load(manager.record).frozen()
    os.set_blocking(counter, False)
    try:
        while os.read(counter, 65536):
            pass
    except BlockingIOError:
        pass
    others_go_on()
    with pytest.raises(BlockingIOError):
        os.read(counter, 1)
    manager.thaw()
    assert not manager.frozen()
    assert select.select([counter], [], [], PATIENCE)[0]


@pytest.mark.parametrize("paused", [False, True])
def test_kill_takes_a_whole_tree_also_while_paused(make, paused):
    manager = make({})

    def family():
        for _ in range(5):
            if os.fork() == 0:
                os.setsid()
                time.sleep(300)
        time.sleep(300)

    spawn(manager, family)
    until("the family of six", manager.pids, found=lambda pids: len(pids) == 6)
    if paused:
        manager.freeze()
    members = manager.pids()
    manager.kill(signal.SIGKILL)
    reap(members)
    until("no process is left", manager.pids, found=lambda pids: pids == [])
    assert not manager.frozen()


def test_another_signal_reaches_every_process(make):
    manager = make({})
    pids = [spawn(manager) for _ in range(3)]
    manager.kill(signal.SIGTERM)
    assert [status_of(pid) for pid in pids] == [-signal.SIGTERM] * 3


def test_processes_below_are_listed_and_directories_below_removed(make):
    manager = make({})
    pid = spawn(manager)
    base = manager.directories["pids"] if manager.record["manager"] == "v1" else manager.directory
    if manager.record["manager"] == "v1":
        base = manager._main()
    os.makedirs(f"{base}/a.service/b")
    with open(f"{base}/a.service/b/cgroup.procs", "w") as file:
        file.write(str(pid))
    assert manager.pids() == [pid]
    manager.kill(signal.SIGKILL)
    reap([pid])
    manager.destroy()
    assert not os.path.exists(base)


def test_destroy_names_the_processes_in_the_way(make):
    manager = make({})
    pid = spawn(manager)
    with pytest.raises(Error, match=rf"processes in it: {pid}$"):
        manager.destroy(patience=0.2)


def test_destroy_works_on_nothing_and_on_a_half(make):
    record = choose("half")
    cgroup.load(record).destroy()
    manager = make({}, name="whole")
    half = (
        [row[0] + row[2] for row in manager.hierarchies][::2]
        if manager.record["manager"] == "v1"
        else [manager.directory]
    )
    for directory in half:
        os.rmdir(directory)
    manager.destroy()
    manager.destroy()


def test_only_what_was_made_is_removed():
    mountpoints = directories()
    for mountpoint in mountpoints:
        os.mkdir(mountpoint + TOP)
    try:
        manager = cgroup.load(choose("a/b"))
        manager.prepare({})
        assert all(os.path.isdir(f"{mountpoint}{TOP}/a/b") for mountpoint in mountpoints)
        manager.destroy()
        assert all(os.path.isdir(mountpoint + TOP) for mountpoint in mountpoints)
        assert not any(os.path.exists(f"{mountpoint}{TOP}/a") for mountpoint in mountpoints)
    finally:
        for mountpoint in mountpoints:
            os.rmdir(mountpoint + TOP)


def test_a_parent_that_another_container_uses_stays(make):
    first = cgroup.load(choose("p/one"))
    first.prepare({})
    second = make({}, name="p/two")
    first.destroy()
    pid = spawn(second)
    assert second.pids() == [pid]
    second.kill(signal.SIGKILL)
    reap([pid])
    second.destroy()
    for mountpoint in directories():  # the parents are the first one's, which is gone
        for path in (f"{mountpoint}{TOP}/p", mountpoint + TOP):
            if os.path.exists(path):
                os.rmdir(path)


def test_it_counts_as_gone_from_the_first_hierarchy_that_systemd_removes(make):
    manager = make({})
    assert not manager.gone()
    rmdir(directories()[0] + TOP + "/x")
    assert manager.gone()


def test_a_cgroup_in_use_is_refused_and_its_processes_live_on(make):
    early = choose("x")
    manager = make({})
    pid = spawn(manager)
    with pytest.raises(Error, match="container's cgroup is not empty: 1 process"):
        choose("x")
    # One that was chosen before the other was made finds out when it makes its own.
    late = cgroup.load(early)
    with pytest.raises(Error, match="someone else made it"):
        late.prepare({})
    cgroup.load(late.record).kill(signal.SIGKILL)
    cgroup.load(late.record).destroy()
    assert manager.pids() == [pid]


def test_an_empty_cgroup_that_was_there_is_used_and_stays():
    mountpoints = directories()
    for mountpoint in mountpoints:
        os.mkdir(mountpoint + TOP)
        os.mkdir(f"{mountpoint}{TOP}/old")
    try:
        manager = cgroup.load(choose("old"))
        manager.prepare({"pids": {"limit": 5}})
        assert pids_max(manager) == "5"
        pid = spawn(manager)
        manager.kill(signal.SIGKILL)
        status_of(pid)
        manager.destroy()
        assert all(os.path.isdir(f"{mountpoint}{TOP}/old") for mountpoint in mountpoints)
    finally:
        for mountpoint in mountpoints:
            rmdir(f"{mountpoint}{TOP}/old")
            rmdir(mountpoint + TOP)


def test_nothing_is_made_for_a_bad_value():
    for resources in (
        {"hugepageLimits": [{"pageSize": "3XB", "limit": 1}]},
        {"unified": {"../x": "1"}},
        {"memory": {"limit": 5, "swap": 4}},
        {"devices": [{"allow": True, "type": "x"}]},
    ):
        manager = cgroup.load(choose("bad"))
        with pytest.raises(Error, match=r"^linux\.resources"):
            manager.prepare(resources)
        assert not any(os.path.exists(mountpoint + TOP) for mountpoint in directories())


def test_a_page_size_that_the_kernel_lacks_is_refused_and_undone():
    manager = cgroup.load(choose("huge"))
    with pytest.raises(Error, match=r"^linux\.resources\.hugepageLimits\[0\]"):
        manager.prepare({"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})
    manager.destroy()
    assert not any(os.path.exists(mountpoint + TOP) for mountpoint in directories())


def test_init_joins_by_itself_without_waiting(make):
    manager = make({"pids": {"limit": 1}, "memory": {"limit": 16 * MIB}})
    way = manager.joining()
    writable = [os.open(path, os.O_WRONLY) for path in way.tasks + way.late]
    into = way.into or "".join(way.by_host[:1])
    if into:
        directory = os.open(into, os.O_PATH | os.O_DIRECTORY)
        fields = [CLONE_INTO_CGROUP, 0, 0, 0, signal.SIGCHLD, 0, 0, 0, 0, 0, directory]
        attributes = ctypes.create_string_buffer(struct.pack("<11Q", *fields))
        pid = ctypes.CDLL(None, use_errno=True).syscall(SYS_CLONE3, attributes, 88)
        assert pid >= 0, os.strerror(ctypes.get_errno())
    else:
        pid = os.fork()
    if pid == 0:
        try:
            for fd in writable:
                os.write(fd, b"0")
            time.sleep(300)
        finally:
            os._exit(1)
    until(
        "it is in each cgroup",
        lambda: [c for c, path in hierarchy.of_process(pid).items() if path == f"{TOP}/x"],
        found=lambda ours: len(ours) == len(writable) + bool(into),
    )
    assert manager.pids() == [pid]


def test_exec_joins_the_container_or_a_sub_cgroup(make):
    manager = make({})
    init = spawn(manager)
    second = spawn(manager, join=lambda pid: manager.exec_join(pid, init, []))
    assert sorted(manager.pids()) == sorted([init, second])
    base = manager._main() if manager.record["manager"] == "v1" else manager.directory
    if manager.record["manager"] == "v1":
        for directory in set(manager.directories.values()):
            os.mkdir(f"{directory}/sub")
            for file in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{directory}/{file}"):
                    with open(f"{directory}/{file}") as source:
                        value = source.read()
                    with open(f"{directory}/sub/{file}", "w") as target:
                        target.write(value)
    else:
        os.mkdir(f"{base}/sub")
    third = spawn(manager, join=lambda pid: manager.exec_join(pid, init, ["/sub"]))
    with open(f"{base}/sub/cgroup.procs") as file:
        assert file.read().split() == [str(third)]
    with pytest.raises(Error, match="join cgroup"):
        spawn(manager, join=lambda pid: manager.exec_join(pid, init, ["/none"]))


def test_exec_follows_init_where_the_container_s_cgroup_takes_no_process(make):
    """A systemd in the container moves itself away; on v2 its own cgroup is then busy."""
    manager = make({})
    init = spawn(manager)
    if manager.record["manager"] == "v1":
        directory = manager.directories["pids"]
        elsewhere = directory + "-moved"
        os.mkdir(elsewhere)
        with open(f"{elsewhere}/cgroup.procs", "w") as file:
            file.write(str(init))
        os.rmdir(directory)
    else:
        elsewhere = f"{manager.directory}/init.scope"
        os.mkdir(elsewhere)
        with open(f"{elsewhere}/cgroup.procs", "w") as file:
            file.write(str(init))
        with open(f"{manager.directory}/cgroup.subtree_control", "w") as file:
            file.write("+pids")
    second = spawn(manager, join=lambda pid: manager.exec_join(pid, init, []))
    with open(f"{elsewhere}/cgroup.procs") as file:
        assert str(second) in file.read().split()
    if manager.record["manager"] == "v1":
        for pid in (init, second):
            os.kill(pid, signal.SIGKILL)
        reap([init, second])
        rmdir(elsewhere)


def test_a_vanished_process_is_named(make):
    manager = make({})
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(Error, match=f"process {pid} is gone"):
        manager.join(pid)


def test_statistics_have_runc_s_shape_and_count(make):
    manager = make({"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}})
    ready, told = os.pipe()

    def work():
        block = bytearray(4 * MIB)
        for index in range(0, len(block), 4096):
            block[index] = 1
        os.write(told, b"x")
        time.sleep(300)

    spawn(manager, work)
    os.read(ready, 1)
    data = json.loads(json.dumps(manager.stats()))
    assert set(data) >= {"cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt"}
    assert data["pids"] == {"current": 1, "limit": 9}
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert data["memory"]["usage"]["usage"] > 0
    assert data["cpu"]["usage"]["total"] > 0
    assert data["memory"]["raw"]


def test_an_oom_is_news(make):
    manager = make({"memory": {"limit": 8 * MIB, "swap": 8 * MIB}})
    fd, event = manager.oom_watch()
    poll = select.poll()
    poll.register(fd, event)
    assert not poll.poll(0)

    def eat():
        return len([bytearray(MIB) for _ in range(64)]) and 3

    pid = spawn(manager, eat)
    assert poll.poll(PATIENCE * 1000)
    os.close(fd)
    reap([pid])
    assert manager.oom_kills() >= 1


def test_the_view_for_a_mount_shows_the_container_s_own_part(make):
    view = make({}).mount_view()
    if view["version"] == 2:
        assert os.path.isdir(view["host_mountpoint"] + view["own_path"])
    else:
        for name, options, own, mountpoint in view["hierarchies"]:
            assert os.path.isdir(mountpoint + own)
            assert "/" not in name
            assert (options == "cgroup2") == os.path.exists(f"{mountpoint}/cgroup.controllers")


def test_the_cgroup_is_given_to_the_container_s_user_on_v2(make):
    manager = make(
        {},
        process={"user": {"uid": 1234}},
        mounts=[{"source": "cgroup", "type": "cgroup", "destination": "/sys/fs/cgroup"}],
        linux={"namespaces": [{"type": "cgroup"}]},
    )
    if manager.record["manager"] == "v1":
        # Delegation is not safe on v1, so nothing may be given away there.
        paths = [f"{d}/{f}" for d in manager.directories.values() for f in ("", "cgroup.procs")]
        assert {os.stat(path).st_uid for path in paths} == {0}
        return
    for name in ("", "cgroup.procs", "cgroup.subtree_control", "cgroup.threads"):
        assert os.stat(f"{manager.directory}/{name}").st_uid == 1234
    for name in ("memory.max", "pids.max", "cgroup.kill"):
        assert os.stat(f"{manager.directory}/{name}").st_uid == 0


def test_unified_is_written_line_by_line_and_last(make):
    _, v2 = hierarchy.own()
    if v2 is None:
        nowhere = cgroup.load(choose("nowhere"))
        with pytest.raises(Error, match="cgroup controller cgroup is not available here"):
            nowhere.prepare({"unified": {"cgroup.max.depth": "7"}})
        return
    manager = make({"unified": {"cgroup.max.depth": "7"}})
    base = manager.directories[""] if manager.record["manager"] == "v1" else manager.directory
    with open(f"{base}/cgroup.max.depth") as file:
        assert file.read().strip() == "7"
    if manager.record["manager"] == "v2":
        other = make({"pids": {"limit": 5}, "unified": {"pids.max": "8"}}, name="y")
        assert pids_max(other) == "8"
    third = cgroup.load(choose("z"))
    with pytest.raises(Error, match="nothing is not available here"):
        third.prepare({"unified": {"nothing.max": "8"}})
    third.destroy()
