"""What a process of the runtime may do at each moment at which a process of a container can get at it.

`attack watch` is the enemy: a process with CAP_SYS_PTRACE in the same pid namespace, which looks into every process
that is no program of the image.
"""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import pytest

from tests import drive
from tests.security.conftest import Arena
from tests.security.test_identity import SLEEP, status
from tests.wait import others_go_on

FIELDS = (
    "Uid",
    "Gid",
    "Groups",
    "Umask",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "NoNewPrivs",
    "Seccomp",
)
FILTER = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
    {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13}]}  # fmt: skip
FEW = ["CAP_CHOWN", "CAP_KILL"]
PROGRAMS = {
    "root": (0, True, False),
    "root, filter": (0, False, True),
    "user": (1000, True, True),
    "user, no filter": (1000, False, False),
}


def limited(container: drive.Container, uid: int, no_new_privileges: bool, filtered: bool) -> None:
    """Give the container's process little."""
    container.process["user"] = {"uid": uid, "gid": uid, "additionalGids": [7], "umask": 0o027}
    container.process["capabilities"] = {
        "bounding": FEW, "permitted": FEW, "effective": FEW, "inheritable": [], "ambient": [],
    }  # fmt: skip
    container.process["noNewPrivileges"] = no_new_privileges
    container.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
    ]
    if filtered:
        container.linux["seccomp"] = FILTER


# created -----------------------------------------------------------------------------------------


def as_created(arena: Arena, program: str, runtime: drive.Runtime | None = None) -> dict[str, Any]:
    """The status, limits and cgroups of a created init, and of what it has become a moment later."""
    container = arena.container(runtime)
    limited(container, *PROGRAMS[program])
    # Another program than a shell, which would read the files of init.
    container.process["args"] = ["/bin/sleep", "100"]
    container.create()
    pid = container.pid
    found = {}
    for moment in ("created", "running"):
        rows = status(open(f"/proc/{pid}/status").read())
        found[moment] = {name: " ".join(rows[name].split()) for name in FIELDS}
        found[moment]["limits"] = [
            line.split()[-3:-1]
            for line in open(f"/proc/{pid}/limits")
            if line.startswith(("Max open files", "Max core file size"))
        ]
        found[moment]["cgroup"] = open(f"/proc/{pid}/cgroup").read()
        found[moment]["fds"] = sorted(
            os.readlink(f"/proc/{pid}/fd/{name}").rpartition("/")[2].partition(":")[0]
            for name in os.listdir(f"/proc/{pid}/fd")
            if int(name) > 2
        )
        if moment == "created":
            container.start()
            drive.until("the program", lambda: "sleep" in open(f"/proc/{pid}/comm").read())
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_created_init_has_the_rights_of_its_program(arena: Arena, program: str) -> None:
    found = as_created(arena, program)
    created, running = found["created"], found["running"]
    print(created)
    # what start writes to and hears from, and what tells of signals
    assert created["fds"] == ["anon_inode", "report.fifo", "start.fifo"] and running["fds"] == []
    uid = PROGRAMS[program][0]
    if uid:
        # execve(2) takes away from a user what is not ambient.
        assert running["CapPrm"] == "0" * 16
        for name in ("CapPrm", "CapEff"):
            assert int(created.pop(name), 16) == 1 << 0 | 1 << 5
            del running[name]
    del created["fds"], running["fds"]
    assert created == running
    assert created["Uid"].split() == [str(uid)] * 4 and created["Umask"] == "0027"
    assert created["Seccomp"] == ("2" if PROGRAMS[program][2] else "0")


LATER = """
STAY = ('chdir', 'close_descriptors', 'own_stdio', 'reopen_null')
_compile_create_as_it_is = compile_create
def compile_create(config, facts):
    plan = _compile_create_as_it_is(config, facts)
    plan['start'] += [step for step in plan['launch'] if step[0] not in STAY]
    plan['launch'] = [step for step in plan['launch'] if step[0] in STAY]
    return plan
"""


def test_control_an_init_that_drops_them_after_start_is_seen(arena: Arena) -> None:
    found = as_created(arena, "user", arena.altered(model__plan=LATER))
    assert found["created"]["CapEff"] != found["running"]["CapEff"]
    assert found["created"]["Seccomp"] == "0" and found["running"]["Seccomp"] == "2"
    assert found["created"]["Uid"].split() == ["0"] * 4


@pytest.mark.needs("runc-1.1.5+ds1")
@pytest.mark.parametrize("program", PROGRAMS)
def test_control_runc_has_dropped_the_same_by_then(arena: Arena, program: str) -> None:
    """Field by field what runc shows; its limits are set by the parent."""
    ours = as_created(arena, program)["created"]
    theirs = as_created(arena, program, arena.installed("runc"))["created"]
    for name in FIELDS:
        assert ours[name] == theirs[name], name


def test_a_container_without_a_process_has_no_rights(arena: Arena) -> None:
    container = arena.container()
    container.bundle.config.pop("process")
    container.create()
    rows = status(open(f"/proc/{container.pid}/status").read())
    assert int(rows["CapPrm"], 16) == int(rows["CapBnd"], 16) == 0 and rows["NoNewPrivs"] == "1"


# what exec shows ---------------------------------------------------------------------------------


def watched(
    arena: Arena, *, uid: int, runtime: drive.Runtime | None = None, wanted: str = ""
) -> list[str]:
    """What a process of the container sees of a dozen execs."""
    container = arena.container(runtime)
    arena.install(container, "attack", "/bin/attack")
    limited(container, 0, False, True)
    for names in ("bounding", "permitted", "effective"):
        container.process["capabilities"][names] = [*FEW, "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    container.process["args"] = ["/bin/attack", "watch", "/etc/passwd-"]
    container.process["rlimits"] = []
    container.launch()
    drive.until("the watcher", lambda: "ready" in container.output())
    process = {
        "cwd": "/", "args": ["/bin/true"], "env": ["PATH=/bin", "HOME=/"], "noNewPrivileges": False,
        "user": {"uid": uid, "gid": uid}, "capabilities": container.process["capabilities"],
    }  # fmt: skip
    deadline = time.monotonic() + drive.PATIENCE
    for number in range(1000):
        container.exec_process(process, ok=None)
        if number >= 12 and (wanted in container.output() or time.monotonic() > deadline):
            break
    container.exec("/bin/touch", "/tmp/stop", options=["--user", f"{uid}:{uid}"], ok=None)
    drive.until("its answer", lambda: "\nend" in container.output())
    print(container.output())
    return [
        line
        for line in container.output().splitlines()
        if line.startswith(("rights", "holds", "reads"))
    ]


ALLOWED = 1 << 0 | 1 << 5 | 1 << 19 | 1 << 2


def rights(lines: list[str]) -> list[dict[str, str]]:
    rows = []
    for line in lines:
        if line.startswith("rights"):
            words = line.split()
            rows.append({w[:-1]: words[i + 1] for i, w in enumerate(words) if w.endswith(":")})
    return rows


@pytest.mark.parametrize("uid", [0, 1000])
def test_exec_shows_a_container_no_process_with_more_rights_than_its_own(
    arena: Arena, uid: int
) -> None:
    lines = watched(arena, uid=uid, wanted="rights")
    assert lines, "nothing of twelve and more execs was seen"
    for row in rights(lines):
        assert row["Uid"] == row["Gid"] == str(uid)
        for name in ("CapPrm", "CapEff", "CapBnd"):
            assert int(row[name], 16) & ~ALLOWED == 0, row
        assert row["Seccomp"] == "2", row
    assert [line for line in lines if not line.startswith("rights")] in ([], ["holds socket:"])


FIRST = """
_compile_exec_as_it_is = compile_exec
def compile_exec(*args):
    plan = _compile_exec_as_it_is(*args)
    plan['born'] = plan['born'][:1] + plan['launch'] + plan['born'][1:]
    plan['launch'] = []
    return plan
"""


def test_control_one_that_is_cloned_first_is_seen_with_all(arena: Arena) -> None:
    lines = watched(
        arena, uid=1000, runtime=arena.altered(model__entering=FIRST), wanted="Seccomp: 0"
    )
    assert any(int(row["CapPrm"], 16) & 1 << 21 and row["Seccomp"] == "0" for row in rights(lines))


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_shows_one_with_all(arena: Arena) -> None:
    lines = watched(arena, uid=1000, runtime=arena.installed("runc"), wanted="Seccomp: 0")
    assert any(int(row["CapPrm"], 16) & 1 << 21 for row in rights(lines))


# a pod: the pid namespace of another container --------------------------------------------------------


def pod(
    arena: Arena, runtime: drive.Runtime | None = None, rounds: int = 6, **more: Any
) -> list[str]:
    """What the first container of a pod sees while others are created into its pid namespace, and of the created."""
    canary = os.path.join(arena.directory(), "canary")
    with open(canary, "w") as file:
        file.write("of the host\n")
    os.chmod(canary, 0o600)
    first = arena.container(runtime)
    arena.install(first, "attack", "/bin/attack")
    for names in ("bounding", "permitted", "effective"):
        first.process["capabilities"][names] = [*FEW, "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
    first.process["args"] = ["/bin/attack", "watch", canary]
    pid = first.launch()
    drive.until("the watcher", lambda: "ready" in first.output())
    for _ in range(rounds):
        second = arena.container(runtime)
        limited(second, 1000, True, True)
        second.process["args"] = ["/bin/sleep", "100"]
        second.bundle.set_namespace("pid", f"/proc/{pid}/ns/pid")
        second.bundle.hook("createRuntime", "/bin/sleep 0.1")
        second.bundle.hook("createContainer", "/bin/sleep 0.1")
        second.create(**more)
        assert second.status == "created"
        others_go_on()
        second.start()
        assert second.status == "running"
        # Its /proc is that of the pod.
        told = second.exec("/bin/cat", "/proc/1/comm").line
        assert told == "attack"
        second.delete("--force")
    first.exec("/bin/touch", "/tmp/stop", ok=None)
    drive.until("its answer", lambda: "\nend" in first.output())
    print(first.output())
    return [
        line
        for line in first.output().splitlines()
        if line.startswith(("rights", "holds", "reads"))
    ]


OLD_PROC = "def fsconfig_fd(fs_fd, key, fd):\n    raise OSError(22, 'fsconfig', key)\n"


@pytest.mark.parametrize("kernel", ["this", "before 6.18"])
def test_the_first_of_a_pod_sees_neither_the_host_nor_rights(arena: Arena, kernel: str) -> None:
    lines = pod(arena, arena.altered(linux__mounts=OLD_PROC) if kernel != "this" else None)
    assert [line for line in lines if line.startswith("reads")] == []
    found = rights(lines)
    assert found, "no created init was seen"
    # Root of a user namespace without anything in it; and the exec that ends the test is root.
    helper = [row for row in found if row["Uid"] == "0" and kernel != "this"]
    for row in found:
        if row in helper or (row["Uid"] == "0" and int(row["CapPrm"], 16) & ~ALLOWED == 0):
            continue
        assert row["Uid"] == row["Gid"] == "1000" and row["NoNewPrivs"] == "1", row
        assert int(row["CapPrm"], 16) & ~ALLOWED == int(row["CapBnd"], 16) & ~ALLOWED == 0, row
        assert row["Seccomp"] == "2", row
    held = {
        line.rpartition("/")[2].partition(" (")[0] for line in lines if line.startswith("holds")
    }
    assert held <= {"start.fifo", "report.fifo", "holds socket:"} | (
        {"holds anon_inode:"} if helper else set()
    )


def test_control_an_init_that_is_cloned_first_is_looked_through(arena: Arena) -> None:
    lines = pod(arena, arena.altered(model__plan="def is_late(config):\n    return False\n"))
    assert "reads the host by root" in lines
    assert any(int(row["CapPrm"], 16) & 1 << 21 for row in rights(lines))


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_is_looked_through(arena: Arena) -> None:
    assert "reads the host by root" in pod(arena, arena.installed("runc"))


# startContainer hooks ---------------------------------------------------------------------------------


def of_the_hook(
    arena: Arena, program: str, runtime: drive.Runtime | None = None
) -> dict[str, dict[str, str]]:
    """The status, directory and environment of a startContainer hook and of the process."""
    container = arena.container(runtime)
    limited(container, *PROGRAMS[program])
    container.process["cwd"] = "/work"
    container.process["env"] = ["PATH=/bin", "OF=process"]
    container.bundle.make_directory("/out", 0o777)
    container.bundle.make_directory("/work", 0o777)
    ask = "(cat /proc/self/status; echo Cwd: $(pwd); echo Env: $OF; mkdir /out/made; true) > /out/{0} 2>&1"
    container.bundle.hook("startContainer", ask.format("hook"))
    container.launch(ask.format("program") + f"; mv /out/program /out/done; {SLEEP}")
    texts = {"hook": container.wait_file("/out/hook"), "program": container.wait_file("/out/done")}
    found = {}
    for who, text in texts.items():
        rows = status(text)
        found[who] = {name: rows[name] for name in (*FIELDS, "Cwd", "Env")}
        found[who]["mkdir"] = str("denied" in text)
    return found


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_start_container_hook_runs_as_the_process(arena: Arena, program: str) -> None:
    found = of_the_hook(arena, program)
    assert found["hook"].pop("Umask") == "0022"  # the caller's
    del found["program"]["Umask"]
    assert found["hook"] == found["program"]
    assert found["hook"]["Env"] == "process" and found["hook"]["Cwd"] == "/work"


def test_control_one_that_runs_before_is_root(arena: Arena) -> None:
    early = (
        "_compile_create_as_it_is = compile_create\n"
        "def compile_create(config, facts):\n"
        "    plan = _compile_create_as_it_is(config, facts)\n"
        "    plan['setup'], plan['start'] = plan['setup'] + plan['start'], []\n"
        "    return plan\n"
    )
    # Its plan has no process yet where it looks for an environment.
    found = of_the_hook(arena, "user", arena.altered(model__plan=early, inside__init=(
        "_hooks_as_it_is = _hooks\n"
        "def _hooks(context, entries, name):\n"
        "    _hooks_as_it_is(context, entries, 'createContainer')\n"
        "STEPS['hooks'] = _hooks\n"
    )))  # fmt: skip
    assert found["hook"]["Uid"] == "0\t0\t0\t0" and found["hook"]["Seccomp"] == "0"


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_hooks_have_the_umask_of_the_caller(arena: Arena, mask: int) -> None:
    container = arena.container()
    container.process["args"] = ["/bin/sleep", "100"]
    container.process["user"]["umask"] = 0o007
    made = {}
    for name in (
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
        "poststop",
    ):
        path = made[name] = os.path.join(arena.directory(), name)
        if name == "startContainer":
            path, made[name] = "/tmp/hook", os.path.join(container.bundle.rootfs, "tmp/hook")
        container.bundle.hook(name, f"/bin/touch {path}.of")
        made[name] += ".of"
    for verb in (["create", "--bundle", container.bundle.path], ["start"], ["delete", "--force"]):
        if verb[0] == "create":
            container.bundle.write()
        command = container.runtime.command(*verb, container.id)
        with open(container.stdout_path, "ab") as out:
            drive.call(
                ["/bin/sh", "-c", f'umask {mask:o}; exec "$@"', "sh", *command],
                stdout=out,
                stderr=out,
            )
    for name, path in made.items():
        assert os.stat(path).st_mode & 0o777 == 0o666 & ~mask, name


# what is left of init's hold on the host ---------------------------------------------------------------


def test_the_command_line_of_init_names_nothing_of_the_host(arena: Arena) -> None:
    container = arena.container()
    container.create()
    with open(f"/proc/{container.pid}/cmdline") as file:
        words = file.read().split("\0")
    assert not [
        word for word in words if container.runtime.path in word or arena.defender.directory in word
    ], words
    assert shutil.which("python3") or words


@pytest.mark.parametrize("number", [2, 15])
def test_a_signal_to_a_created_init_does_nothing_to_it(arena: Arena, number: int) -> None:
    """From within, whatever it says of its sender; Python has a handler for SIGINT."""
    container = attacked(arena, number)
    assert container.status == "created"
    container.start()
    assert container.status == "running"


def attacked(arena: Arena, number: int, runtime: drive.Runtime | None = None) -> drive.Container:
    """A created container, and a process inside has sent a signal to its init in every way."""
    container = arena.container(runtime)
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/sleep", "100"]
    container.create()
    container.exec("/bin/kill", f"-{number}", "1")
    container.exec("/bin/attack", "queue", str(number))
    others_go_on()
    return container


def test_control_an_init_that_believes_what_is_said_of_the_sender_ends(arena: Arena) -> None:
    container = attacked(arena, 15, arena.altered(inside__process="_SI_USER: Final = -1\n"))
    container.wait("stopped")


@pytest.mark.parametrize("number", [2, 9, 15, 19])
def test_exec_ends_and_says_so_when_its_init_is_hit(arena: Arena, number: int) -> None:
    """SIGINT, SIGKILL, SIGTERM and SIGSTOP by root of the container to whatever exec makes."""
    container = arena.container()
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/attack", "signal", str(number)]
    container.process["capabilities"]["permitted"] = container.process["capabilities"][
        "effective"
    ] = ["CAP_KILL"]
    container.process["capabilities"]["bounding"] = ["CAP_KILL"]
    container.launch()
    drive.until("the attacker", lambda: "ready" in container.output())
    hit = 0
    for _ in range(20):
        result = container.exec("/bin/true", ok=None, timeout=30)
        assert "bug" not in result.stderr, result.stderr
        assert len(result.stderr.splitlines()) <= 2
        hit += result.status != 0
        if number == 19 and hit:
            assert "stopped" in result.stderr
            break
    print(hit, "of them hit")


# numbers of processes -----------------------------------------------------------------------------------

DIES = """
_open_as_it_is = _namespaces
def _namespaces(pid, pidfd, join):
    posix.kill(pid, 9)
    while not processes.exited(pidfd):
        pass
    # And the number is another's: that of a process of the host.
    processes.directory = lambda number: files.open('/proc/self', files.O_PATH | files.O_DIRECTORY)
    return _open_as_it_is(pid, pidfd, join)
"""


def test_exec_never_enters_the_namespaces_of_who_got_the_number(arena: Arena) -> None:
    """Init dies after the check, and another process has its number when the namespaces are opened."""
    container = arena.container(arena.altered(host__exec=DIES))
    container.launch(SLEEP)
    result = container.exec("/bin/true", ok=False)
    assert "cannot exec in a stopped container" in result.stderr


LIES = """
_child_as_it_is = Init._child
def _named(payload):
    return {pid}, True, True
"""


@pytest.mark.parametrize("whose", ["init of the host", "somebody", "nobody"])
def test_a_process_that_is_none_of_ours_is_not_taken_for_init(arena: Arena, whose: str) -> None:
    """What comes over the socket that init shares is believed of children of the runtime only."""
    other = arena.helper("/bin/sleep", "300")
    pid = {"init of the host": 1, "somebody": other.pid, "nobody": 4194303}[whose]
    container = arena.container(arena.altered(host__launch=LIES.format(pid=pid)))
    said = container.refused()
    assert "is none of ours" in said and "bug" not in said, said
    assert other.poll() is None


def test_a_first_thread_that_ends_alone_stops_nothing(arena: Arena) -> None:
    container = arena.container()
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/attack", "leave"]
    pid = container.launch()
    drive.until(
        "its end", lambda: open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
    )
    assert container.status == "running"
    assert "not stopped" in container.delete(ok=False).stderr
    assert container.exec("/bin/echo", "there").line == "there"
    container.kill("KILL")
    container.wait("stopped")
    assert not os.path.exists(f"/proc/{pid}") or container.wait_exit(pid) == 137


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_takes_it_for_stopped(arena: Arena) -> None:
    container = arena.container(arena.installed("runc"))
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/attack", "leave"]
    pid = container.launch()
    drive.until(
        "its end", lambda: open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
    )
    assert container.status == "stopped"
    os.kill(pid, 9)
    container.wait_exit(pid)


def test_the_clocks_are_not_written_into_the_procfs_of_others(arena: Arena) -> None:
    """A mount namespace that is joined may have anything in the place of /proc."""
    other = arena.helper(
        "unshare", "-m", "/bin/sh", "-c",
        "mount -t tmpfs none /proc; mkdir /proc/self /proc/thread-self; : > /proc/self/timens_offsets; "
        "echo ready > /proc/ready; exec sleep 300",
    )  # fmt: skip
    drive.until("its procfs", lambda: os.path.exists(f"/proc/{other.pid}/root/proc/ready"))
    # By descriptor: the container's root becomes that of the namespace.
    fake = os.open(f"/proc/{other.pid}/root/proc/self/timens_offsets", os.O_RDONLY)
    container = arena.container()
    container.bundle.set_namespace("mount", f"/proc/{other.pid}/ns/mnt")
    container.bundle.set_namespace("time")
    container.linux["timeOffsets"] = {"boottime": {"secs": 1000000}}
    container.config["mounts"] = []
    container.linux["maskedPaths"] = container.linux["readonlyPaths"] = []
    container.process["args"] = ["/bin/sleep", "100"]
    container.create()
    with open(f"/proc/{container.pid}/timens_offsets") as file:
        assert "1000000" in file.read()
    assert os.read(fake, 100) == b""
    os.close(fake)
