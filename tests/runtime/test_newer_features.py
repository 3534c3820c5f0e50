"""What newer kernels and specifications brought: resctrl, memory policy, clocks, scheduling, personality.

The values are read back by the kernel's own calls from outside of the container, for create and for exec.
"""

from __future__ import annotations

import ctypes
import os
import struct
import subprocess
from types import SimpleNamespace
from typing import Any, Callable, Iterator

import pytest

from anocir.host import idmapped as idmap
from anocir.inside import attach, credentials, namespaces, process
from anocir.errors import Error
from anocir.linux import files, mounts, oneself, processes, tasks
from tests import drive, machine
from tests.drive import Container

HERE = os.path.dirname(os.path.abspath(__file__))
needs_compiler = pytest.mark.needs("compiler")
LIBC = machine.LIBC
LIBC.syscall.restype = ctypes.c_long

# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h
SCHED_GETATTR, IOPRIO_GET = (315, 252) if os.uname().machine == "x86_64" else (275, 31)


def scheduling(pid: int) -> dict[str, int]:
    """sched_getattr(2) of a process."""
    data = ctypes.create_string_buffer(48)
    machine.check(LIBC.syscall(SCHED_GETATTR, pid, data, 48, 0), "sched_getattr")
    _, policy, flags, nice, priority, runtime, deadline, period = struct.unpack(
        "=IIQiIQQQ", data.raw
    )
    return {"policy": policy, "flags": flags, "nice": nice, "priority": priority,
            "runtime": runtime, "deadline": deadline, "period": period}  # fmt: skip


def executed(container: Container, **more: Any) -> int:
    """The pid of a detached process of exec that sleeps."""
    process_object = {**container.process, "args": ["sleep", "100"], **more}
    path = os.path.join(container.bundle.path, "exec.pid")
    container.exec_process(process_object, "--detach", "--pid-file", path)
    with open(path) as file:
        return int(file.read())


# scheduling ---------------------------------------------------------------------------------------

MILLION = 1_000_000
SCHEDULERS = [
    ({"policy": "SCHED_OTHER", "nice": -5}, {"policy": 0, "nice": -5}),
    ({"policy": "SCHED_BATCH", "nice": 19}, {"policy": 3, "nice": 19}),
    ({"policy": "SCHED_IDLE"}, {"policy": 5}),
    ({"policy": "SCHED_RR", "priority": 7}, {"policy": 2, "priority": 7}),
    (
        {"policy": "SCHED_FIFO", "priority": 99, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        {"policy": 1, "priority": 99, "flags": 1},
    ),
]


@pytest.mark.parametrize(("scheduler", "wanted"), SCHEDULERS)
def test_the_scheduler_of_create_and_exec_is_the_configured_one(
    container: Container, scheduler: dict[str, Any], wanted: dict[str, int]
) -> None:
    container.bundle.resources["cpu"] = machine.realtime_budget()
    container.process["scheduler"] = scheduler
    pid = container.launch("sleep 100")
    for one in (pid, executed(container)):
        found = scheduling(one)
        # with reset-on-fork the shell's child would have it no more; both are the first process
        assert {key: found[key] for key in wanted} == wanted


def test_a_deadline_process_has_its_times(container: Container) -> None:
    # by this flag whoever overruns gets SIGXCPU: time enough for execve, also on a host that is taken away
    container.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 500 * MILLION,
        "deadline": 2000 * MILLION,
        "period": 4000 * MILLION,
        "flags": ["SCHED_FLAG_DL_OVERRUN"],
    }
    container.process["args"] = ["/bin/sleep", "1000"]
    pid = container.launch()
    found = scheduling(pid)
    assert (found["policy"], found["flags"]) == (6, 4)
    times = (found["runtime"], found["deadline"], found["period"])
    assert times == (500 * MILLION, 2000 * MILLION, 4000 * MILLION)


def test_deadlines_that_make_no_sense_are_refused_in_a_sentence(container: Container) -> None:
    container.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 100 * MILLION,
        "deadline": 50 * MILLION,
        "period": 100 * MILLION,
    }
    said = container.cannot_run("true")
    assert "process.scheduler" in said


@pytest.mark.parametrize(
    ("name", "number"), [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)]
)
def test_the_io_priority_of_create_and_exec_is_the_configured_one(
    container: Container, name: str, number: int
) -> None:
    container.process["ioPriority"] = {"class": name, "priority": 6}
    pid = container.launch("sleep 100")
    for one in (pid, executed(container)):
        assert LIBC.syscall(IOPRIO_GET, 1, one) == number << 13 | 6


@pytest.mark.needs("two-cpus")
@pytest.mark.parametrize(
    ("affinity", "wanted"),
    [
        ({"final": "1"}, {1}),
        ({"initial": "0", "final": "1"}, {1}),
        ({"initial": "1"}, {1}),
        ({"initial": "0-1", "final": "0"}, {0}),
    ],
)
def test_the_processors_of_exec_are_the_configured_ones(
    container: Container, affinity: dict[str, str], wanted: set[int]
) -> None:
    container.launch("sleep 100")
    assert os.sched_getaffinity(executed(container, execCPUAffinity=affinity)) == wanted
    assert os.sched_getaffinity(container.pid) == os.sched_getaffinity(0)


@pytest.mark.needs("two-cpus")
def test_the_processors_of_exec_come_from_the_config_as_well(container: Container) -> None:
    container.process["execCPUAffinity"] = {"final": "1"}
    pid = container.launch("sleep 100")
    assert os.sched_getaffinity(pid) == os.sched_getaffinity(0)  # not for the first process
    assert container.exec("taskset", "-p", "1").status == 0
    found = container.exec("sh", "-c", "grep Cpus_allowed_list /proc/self/status").stdout.split()
    assert found[1] == "1"


# personality, memory, names, clocks ---------------------------------------------------------------


def test_the_personality_is_that_of_exec_too(container: Container) -> None:
    container.linux["personality"] = {"domain": "LINUX32"}
    pid = container.launch("sleep 100")
    for one in (pid, executed(container)):
        with open(f"/proc/{one}/personality") as file:
            assert file.read() == "00000008\n"
    name = {"x86_64": "i686", "aarch64": "armv8l"}.get(os.uname().machine)
    assert name is None or container.exec("uname", "-m").line == name


def test_a_caller_with_the_personality_linux32_is_served_too(container: Container) -> None:
    # As by "linux32 podman run": the machine has another name there, the numbers of its calls stay.
    container.process["args"] = ["true"]
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    container.bundle.write()
    runtime = container.runtime
    words = ["run", "--bundle", container.bundle.path, container.id]
    drive.call(["setarch", "linux32", *runtime.command(*words)])


def policy_of(pid: int) -> str:
    """The policy of a process's first mapping; without one of its own a mapping has the process's."""
    with open(f"/proc/{pid}/numa_maps") as file:
        return file.readline().split()[1]


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="[numa] no NUMA")
@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0"}, "interleave:0"),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        pytest.param(
            {"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0",
            marks=pytest.mark.needs("preferred-many"),
        ),
        ({"mode": "MPOL_LOCAL"}, "local"),
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}, "bind=static:0"),
        ({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]}, "bind=relative:0"),
    ],
)  # fmt: skip
def test_the_memory_policy_is_set_for_create_and_exec(
    container: Container, policy: dict[str, Any], wanted: str
) -> None:
    container.linux["memoryPolicy"] = policy
    pid = container.launch("sleep 100")
    for one in (pid, executed(container)):
        # "prefer (many):0" has a blank in it
        assert policy_of(one) == wanted.split()[0]


@pytest.mark.skipif(not os.path.exists("/proc/self/numa_maps"), reason="[numa] no NUMA")
@pytest.mark.parametrize(
    "policy",
    [
        {"mode": "MPOL_BIND"},
        {"mode": "MPOL_DEFAULT", "nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "0,63"},
        {"mode": "MPOL_BOGUS", "nodes": "0"},
        {"mode": "MPOL_BIND", "nodes": "x"},
        {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_BOGUS"]},
    ],
)
def test_a_memory_policy_that_makes_no_sense_is_refused_with_its_path(
    container: Container, policy: dict[str, Any]
) -> None:
    container.linux["memoryPolicy"] = policy
    result = container.create(ok=None)
    if policy.get("nodes") == "0,63":
        return  # the kernel takes what is there of it
    assert result.status != 0 and "linux.memoryPolicy" in result.stderr


def test_the_domain_name_is_set_and_the_hosts_stays(container: Container) -> None:
    with open("/proc/sys/kernel/domainname") as file:
        before = file.read()
    container.config["domainname"] = "inner.example"
    container.launch("sleep 100")
    assert container.exec("cat", "/proc/sys/kernel/domainname").line == "inner.example"
    with open("/proc/sys/kernel/domainname") as file:
        assert file.read() == before


def test_a_domain_name_of_the_hosts_uts_namespace_is_refused(container: Container) -> None:
    container.bundle.drop_namespace("uts")
    del container.config["hostname"]
    container.config["domainname"] = "inner.example"
    assert "domainname" in container.refused()


@needs_compiler
@pytest.mark.needs("time-namespace")
@pytest.mark.parametrize("mapped", [False, True])
def test_clocks_are_moved_for_create_and_exec(container: Container, mapped: bool) -> None:
    container.bundle.set_namespace("time")
    if mapped:
        container.bundle.use_user_namespace()
    container.linux["timeOffsets"] = {
        "monotonic": {"secs": 1000000, "nanosecs": 500},
        "boottime": {"secs": 2000000},
    }
    container.launch("sleep 100")
    before = machine.clocks()
    monotonic, boottime = map(int, container.exec("/bin/probe", "clocks").stdout.split())
    after = machine.clocks()
    assert before[0] <= monotonic - 1000000 <= after[0]
    assert before[1] <= boottime - 2000000 <= after[1]
    lines = container.exec("cat", "/proc/self/timens_offsets").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["monotonic", "1000000", "500"], ["boottime", "2000000", "0"]
    ]  # fmt: skip


@pytest.mark.needs("time-namespace")
def test_offsets_that_the_kernel_refuses_are_an_error_with_their_path(container: Container) -> None:
    container.bundle.set_namespace("time")
    container.linux["timeOffsets"] = {"monotonic": {"secs": -(1 << 62)}}
    assert "linux.timeOffsets" in container.refused()


# what a kernel lacks ------------------------------------------------------------------------------


def failing(number: int) -> Any:
    """A function that fails as a system call does."""

    def call(*args: Any, **more: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return call


ENOSYS, EINVAL, EPERM, EOPNOTSUPP, EBUSY = 38, 22, 1, 95, 16
CONTEXT: Any = None
LACKING = [
    (tasks, "unshare", EINVAL, lambda: namespaces.unshare(CONTEXT, machine.CLONE_NEWTIME), "time namespaces", "5.6"),
    (tasks, "unshare", EINVAL, lambda: namespaces.unshare(CONTEXT, machine.CLONE_NEWCGROUP), "cgroup namespaces", "4.6"),
    (oneself, "sched_setattr", ENOSYS, lambda: process.scheduler(CONTEXT, 6, 0, 0, 0, 1, 1, 1), "process.scheduler", "3.14"),
    (oneself, "sched_setattr", EINVAL, lambda: process.scheduler(CONTEXT, 6, 2, 0, 0, 1, 1, 1), "RECLAIM", "4.13"),
    (oneself, "sched_setattr", EOPNOTSUPP, lambda: process.scheduler(CONTEXT, 0, 0x20, 0, 0, 0, 0, 0), "UTIL_CLAMP", "5.3"),
    (oneself, "set_mempolicy", ENOSYS, lambda: process.memory_policy(CONTEXT, 2, 1), "linux.memoryPolicy", "CONFIG_NUMA"),
    (oneself, "set_mempolicy", EINVAL, lambda: process.memory_policy(CONTEXT, 5, 1), "mode", "5.15"),
    (oneself, "set_mempolicy", EINVAL, lambda: process.memory_policy(CONTEXT, 6, 1), "mode", "6.9"),
    (oneself, "set_mempolicy", EINVAL, lambda: process.memory_policy(CONTEXT, 2 | 1 << 13, 1), "mode", "5.12"),
    (oneself, "ioprio_set", ENOSYS, lambda: process.io_priority(CONTEXT, 1), "kernel", "CONFIG_BLOCK"),
    (oneself, "seccomp_filter", EINVAL, lambda: credentials.seccomp(CONTEXT, {"bpf": b"", "flags": 0, "notify": True}),
     "SCMP_ACT_NOTIFY", "5.6"),
    (mounts, "mount_setattr", ENOSYS,
     lambda: attach.recursive(3, {"recursive_set": 1, "recursive_clear": 0}), "recursive mount option", "5.12"),
    (mounts, "mount_setattr", EINVAL,
     lambda: attach.recursive(3, {"recursive_set": 0x200000, "recursive_clear": 0}), "rnosymfollow", "5.14"),
    (mounts, "mount_setattr", ENOSYS, lambda: mapped_mount(), "id-mapped mount", "5.12"),
    (mounts, "mount_setattr", EINVAL, lambda: mapped_mount(), "tmpfs", "6.3"),
    (mounts, "mount_setattr", EPERM, lambda: mapped_mount(), "id-mapped already", "once more"),
    (mounts, "mount_setattr", EPERM, lambda: rootless(mapped_mount), "file system", "CAP_SYS_ADMIN"),
]  # fmt: skip


def mapped_mount() -> int:
    """An id-mapped mount of a directory that is always there."""
    one = [{"containerID": 0, "hostID": 1000, "size": 1}]
    return idmap.mount("/usr", {"uidMappings": one, "gidMappings": one}, ["idmap"], 0, "mounts[0]")


def rootless(action: Callable[[], object]) -> object:
    """Do it as a runtime in a user namespace."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "in_user_namespace", lambda: True)
        return action()


@pytest.mark.parametrize(("module", "name", "number", "action", "feature", "since"), LACKING)
def test_a_kernel_that_lacks_something_is_told_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, module: Any, name: str, number: int, action: Any,
    feature: str, since: str,
) -> None:  # fmt: skip
    exists = files.exists
    monkeypatch.setattr(module, name, failing(number))
    # asked of the kernel itself, which has the call here
    monkeypatch.setattr(mounts, "has_mount_setattr", lambda: number != ENOSYS)
    monkeypatch.setattr(files, "exists", lambda path: "/ns/" not in path and exists(path))
    with pytest.raises(Error) as caught:
        action()
    said = f"{caught.value.text} ({caught.value.hint})"
    assert feature in said and since in said
    assert os.strerror(number).lower() in said or "need" in said


def test_a_kernel_without_time_namespaces_is_told_when_offsets_are_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files, "write_file", failing(2))
    monkeypatch.setattr(tasks, "prctl", lambda *args: 0)
    with pytest.raises(Error) as caught:
        namespaces.time_offsets(SimpleNamespace(host_proc=-1), "monotonic 1 0\n")
    assert "time namespaces need Linux 5.6" in caught.value.hint


# resctrl ------------------------------------------------------------------------------------------

pytestmark = pytest.mark.needs("root")


class Resctrl:
    """A mounted stand-in for resctrl, and the runtime with it in its mountinfo."""

    def __init__(self, container: Container, top: str) -> None:
        self.container = container
        self.top = top

    def make(self, verb: str, *words: str, ok: bool | None = True) -> drive.Result:
        """Run the runtime in a mount namespace where its mountinfo shows the tree as resctrl."""
        self.container.bundle.write()
        line = f"999 1 0:99 / {self.top} rw,relatime - resctrl resctrl rw"
        script = (
            'f=$1; shift; cat /proc/self/mountinfo > "$f"; echo "' + line + '" >> "$f"; '
            'mount --bind "$f" /proc/$$/mountinfo && exec "$@"'
        )
        info = os.path.join(self.container.bundle.path, "mountinfo")
        command = ["unshare", "--mount", "sh", "-c", script, "sh", info]
        command += self.container.runtime.command(verb, *words)
        with open(self.container.stdout_path, "ab") as out:
            return drive.call(command, ok=ok, stdout=out)

    def create(self, ok: bool | None = True) -> drive.Result:
        """Create the container."""
        return self.make("create", "--bundle", self.container.bundle.path, self.container.id, ok=ok)

    def read(self, *parts: str) -> list[str]:
        """The lines of a file of the tree."""
        with open(os.path.join(self.top, *parts)) as file:
            return [line.strip() for line in file]

    def has(self, *parts: str) -> bool:
        """Whether a directory is there."""
        return os.path.isdir(os.path.join(self.top, *parts))

    def clear(self) -> None:
        """Remove every group."""
        for directory in (self.top, os.path.join(self.top, "mon_groups")):
            for name in os.listdir(directory):
                if os.path.exists(os.path.join(directory, name, "tasks")):
                    os.rmdir(os.path.join(directory, name))


@pytest.fixture(scope="module")
def tree(runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A mounted tree with room for three groups; there before each test, as the hardware is."""
    if machine.missing("fuse"):
        pytest.skip(f"[fuse] this machine has not {machine.missing('fuse')}")
    if runtime.name != "anocir":
        pytest.skip("the other runtimes look for resctrl elsewhere")
    top = str(tmp_path_factory.mktemp("resctrl"))
    words = ["/usr/bin/python3", os.path.join(HERE, "fake_resctrl.py"), top, "3"]
    server = subprocess.Popen(words, stdout=subprocess.PIPE)
    drive.OWN.add(server.pid)
    assert server.stdout is not None and server.stdout.readline() == b"mounted\n"
    yield top
    machine.umount(top, machine.MNT_DETACH)
    server.wait(drive.TIMEOUT)
    server.stdout.close()
    drive.OWN.discard(server.pid)


@pytest.fixture
def resctrl(container: Container, tree: str) -> Iterator[Resctrl]:
    """The tree without any group, and a container that sleeps."""
    made = Resctrl(container, tree)
    made.clear()
    container.process["args"] = ["sleep", "100"]
    yield made
    made.clear()


def test_without_resctrl_the_error_says_what_to_mount(container: Container) -> None:
    container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f"}
    said = container.refused()
    assert "linux.intelRdt" in said and "resctrl" in said


def test_a_group_of_the_containers_id_lives_as_long_as_the_container(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f;1=1f", "memBwSchema": "MB:0=20;1=70"}
    resctrl.create()
    assert resctrl.read(container.id, "schemata") == ["L3:0=f;1=1f", "MB:0=20;1=70"]
    assert resctrl.read(container.id, "tasks") == [str(container.pid)]
    container.start()
    container.delete("--force")
    assert not resctrl.has(container.id)


def test_without_intel_rdt_nothing_touches_resctrl(resctrl: Resctrl) -> None:
    def all_of_it() -> dict[str, str]:
        found = {}
        for directory, _, names in os.walk(resctrl.top):
            for name in names:
                with open(os.path.join(directory, name)) as file:
                    found[os.path.join(directory, name)] = file.read()
        return found

    before = all_of_it()
    container = resctrl.container
    resctrl.create()
    assert all_of_it() == before
    name = container.id
    for words in (
        ("start", name),
        ("exec", name, "true"),
        ("update", "--pids-limit", "50", name),
        ("delete", "--force", name),
    ):
        resctrl.make(*words)
        assert all_of_it() == before


def test_schemata_are_written_last(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {
        "l3CacheSchema": "L3:0=f;1=f",
        "schemata": ["L3:0=3;1=3", "MB:0=10;1=10"],
    }
    resctrl.create()
    assert sorted(resctrl.read(container.id, "schemata")) == ["L3:0=3;1=3", "MB:0=10;1=10"]


def test_a_named_class_that_exists_is_joined_and_stays(resctrl: Resctrl) -> None:
    container = resctrl.container
    os.mkdir(os.path.join(resctrl.top, "gold"))
    container.linux["intelRdt"] = {"closID": "gold", "l3CacheSchema": "L3:0=07FF;1=7ff"}
    resctrl.create()
    assert resctrl.read("gold", "tasks") == [str(container.pid)]
    container.delete("--force")
    assert resctrl.has("gold")


def test_a_named_class_with_another_schema_is_refused_and_not_changed(resctrl: Resctrl) -> None:
    os.mkdir(os.path.join(resctrl.top, "gold"))
    before = resctrl.read("gold", "schemata")
    resctrl.container.linux["intelRdt"] = {"closID": "gold", "l3CacheSchema": "L3:0=1;1=1"}
    said = resctrl.create(ok=False).stderr
    assert "linux.intelRdt.l3CacheSchema" in said
    assert resctrl.read("gold", "schemata") == before and resctrl.has("gold")


def test_a_named_class_is_made_with_a_schema_and_stays(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"closID": "silver", "memBwSchema": "MB:0=50;1=50"}
    resctrl.create()
    assert resctrl.read("silver", "tasks") == [str(container.pid)]
    container.delete("--force")
    assert resctrl.has("silver")


def test_a_named_class_that_is_missing_needs_a_schema(resctrl: Resctrl) -> None:
    resctrl.container.linux["intelRdt"] = {"closID": "bronze"}
    assert "linux.intelRdt.closID" in resctrl.create(ok=False).stderr
    assert not resctrl.has("bronze")


def test_the_class_slash_is_the_default_group(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"closID": "/", "enableMonitoring": True}
    resctrl.create()
    assert resctrl.read("tasks") == [str(container.pid)]
    assert resctrl.read("mon_groups", container.id, "tasks") == [str(container.pid)]
    container.delete("--force")
    assert not resctrl.has("mon_groups", container.id)


def test_monitoring_gets_a_group_that_goes_with_the_container(resctrl: Resctrl) -> None:
    container = resctrl.container
    os.mkdir(os.path.join(resctrl.top, "gold"))
    container.linux["intelRdt"] = {"closID": "gold", "enableMonitoring": True}
    resctrl.create()
    assert resctrl.read("gold", "mon_groups", container.id, "tasks") == [str(container.pid)]
    container.delete("--force")
    assert resctrl.has("gold") and not resctrl.has("gold", "mon_groups", container.id)


def test_exec_joins_the_group_and_its_monitoring_group(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f;1=1f", "enableMonitoring": True}
    resctrl.create()
    container.start()
    file = container.bundle.outside("pid", "")
    resctrl.make("exec", "--detach", "--pid-file", file, container.id, "sleep", "100")
    with open(file) as opened:
        pids = sorted([container.pid, int(opened.read())])
    for group in ([container.id], [container.id, "mon_groups", container.id]):
        assert sorted(map(int, resctrl.read(*group, "tasks"))) == pids


def test_when_the_hardware_has_no_class_left_the_error_says_so(resctrl: Resctrl) -> None:
    for name in ("a", "b", "c"):
        os.mkdir(os.path.join(resctrl.top, name))
    resctrl.container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f;1=f"}
    assert "no space left on device" in resctrl.create(ok=False).stderr
    assert sorted(name for name in os.listdir(resctrl.top) if len(name) == 1) == ["a", "b", "c"]


@pytest.mark.parametrize("named", [False, True])
def test_a_create_that_fails_later_leaves_no_group(resctrl: Resctrl, named: bool) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f;1=f", "enableMonitoring": True}
    if named:
        container.linux["intelRdt"]["closID"] = "silver"
    container.bundle.add_mount("/x", "no-such-file-system", "x")
    assert "no-such-file-system" in resctrl.create(ok=False).stderr
    assert not resctrl.has(container.id) and not resctrl.has("silver")


def test_a_schema_that_the_kernel_refuses_is_named(resctrl: Resctrl) -> None:
    resctrl.container.linux["intelRdt"] = {"schemata": ["L9:0=f"]}
    assert "L9:0=f" in resctrl.create(ok=False).stderr


def test_update_changes_the_schemata(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f;1=f", "memBwSchema": "MB:0=20;1=20"}
    resctrl.create()
    container.runtime(
        "update", "--l3-cache-schema", "L3:0=3;1=3", "--mem-bw-schema", "MB:0=30;1=30", container.id
    )
    assert resctrl.read(container.id, "schemata") == ["L3:0=3;1=3", "MB:0=30;1=30"]


def test_without_schemata_none_is_written(resctrl: Resctrl) -> None:
    container = resctrl.container
    container.linux["intelRdt"] = {}
    resctrl.create()
    assert resctrl.read(container.id, "schemata") == ["L3:0=7ff;1=7ff", "MB:0=100;1=100"]
