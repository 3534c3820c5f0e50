"""containerd with `ctr run --runc-binary`: tasks under anocir and under runc."""

from __future__ import annotations

import re
from typing import Any, Callable, Iterator, List, Tuple

import pytest

from tests.drive import until
from tests.engines.box import Box
from tests.engines.conftest import PEER, need, new_box
from tests.engines.containerd import Containerd, Ctr
from tests.engines.shim import calls, write_shim
from tests.engines.sides import COUNT, goes_on, normal, phrases, same, settle


@pytest.fixture(scope="module")
def daemon(engine_runtime: str) -> Iterator[Containerd]:
    """Give a containerd in a box."""
    need("containerd", "ctr", "runc", "busybox")
    box = new_box("containerd")
    try:
        yield containerd_in(box, engine_runtime)
    finally:
        box.close()


def containerd_in(box: Box, engine_runtime: str) -> Containerd:
    """Start a containerd; the runtime under test stands behind a recording shim."""
    shim = write_shim(box, "anocir", engine_runtime, recorded=True)
    daemon = Containerd(box, {"anocir": shim, "peer": PEER})
    for name in daemon.binaries:
        Ctr(daemon, name).run([], ["true"])
    return daemon


@pytest.fixture
def pair(daemon: Containerd) -> Iterator[Tuple[Ctr, Ctr]]:
    """Give both sides; each test leaves nothing behind."""
    before = daemon.box.traces()
    ours, peer = Ctr(daemon, "anocir"), Ctr(daemon, "peer")
    yield ours, peer
    for container in ours("containers", "ls", "-q").out.split():
        ours("tasks", "rm", "-f", container)
        ours("containers", "rm", container)
    settle(daemon.box.traces, before)


RUN_CASES: Tuple[Tuple[str, List[str], List[str], int, str], ...] = (
    ("echo and status", [], ["sh", "-c", "echo hi; echo err >&2; exit 3"], 3, "hi"),
    ("environment", ["--env", "A=b", "--cwd", "/tmp"], ["sh", "-c", "pwd; echo $A"], 0, "/tmp\nb"),
    ("network host", ["--net-host"], ["ls", "/sys/class/net"], 0, "lo"),
    ("no network", [], ["sh", "-c", "ip -o link | wc -l"], 0, "1"),
    ("read-only", ["--read-only"], ["touch", "/x"], 1, "Read-only"),
    (
        "capabilities",
        ["--cap-add", "CAP_NET_ADMIN"],
        ["grep", "Cap", "/proc/self/status"],
        0,
        "Cap",
    ),
    ("seccomp", ["--seccomp"], ["grep", "Seccomp:", "/proc/self/status"], 0, "2"),
    ("new privileges", ["--allow-new-privs"], ["grep", "NoNew", "/proc/self/status"], 0, "0"),
    ("no pivot", ["--no-pivot"], ["cat", "/etc/group"], 0, "anna"),
    (
        "user namespace",
        ["--uidmap", "0:100000:65536", "--gidmap", "0:200000:65536"],
        ["sh", "-c", "cat /proc/self/uid_map /proc/self/gid_map; id; ls -ln /bin/busybox"],
        0,
        "100000",
    ),
    (
        "bind mount",
        ["--mount", "type=bind,src=/run/tmp,dst=/mnt,options=rbind:ro"],
        ["touch", "/mnt/x"],
        1,
        "Read-only",
    ),
    (
        "limits",
        ["--memory-limit", "67108864", "--cpu-quota", "50000", "--cpu-period", "100000"],
        [
            "sh",
            "-c",
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max 2>/dev/null; :",
        ],
        0,
        "",
    ),
    ("namespaces by path", ["--with-ns", "uts:/proc/1/ns/uts"], ["hostname"], 0, "box"),
    (
        "device",
        ["--device", "/dev/kmsg"],
        # The time is that of its making.
        ["sh", "-c", "ls -l /dev/kmsg | awk '{print $1,$2,$3,$4,$5,$6,$10}'"],
        0,
        "kmsg",
    ),
    ("missing executable", [], ["no-such-program"], 1, "executable file not found in $PATH"),
    ("missing path", [], ["/no/such"], 1, "no such file or directory"),
    ("directory", [], ["/etc"], 1, ""),
    (
        "bad bind",
        ["--mount", "type=bind,src=/nope,dst=/x,options=rbind"],
        ["true"],
        1,
        "no such file",
    ),
    (
        "missing user namespace",
        ["--with-ns", "ipc:/no/ns"],
        ["true"],
        1,
        "no such file or directory",
    ),
)


@pytest.mark.parametrize(
    ("options", "command", "status", "text"),
    [pytest.param(*case[1:], id=case[0]) for case in RUN_CASES],
)
def test_ctr_run_is_the_same(
    pair: Tuple[Ctr, Ctr], options: List[str], command: List[str], status: int, text: str
) -> None:
    """ctr run gives the same status, output and kind of error."""

    def scenario(side: Ctr) -> List[Any]:
        result = side.run(options, command)
        assert text in result.out + result.err, result
        return [result.status, normal(result.out), phrases(result.err)]

    # Two remapped snapshots of one image cannot be made at once.
    assert same(scenario, *pair, together="--uidmap" not in options)[0] == status


def test_ctr_tasks(pair: Tuple[Ctr, Ctr]) -> None:
    """exec, pause, resume, metrics, ps, kill, delete of a detached task."""

    def scenario(side: Ctr) -> List[Any]:
        name = f"tasks-{side.name}"
        # Two processes, and these two to the end: what `tasks ps` says must not hang on the moment.
        script = "trap 'exit 5' TERM; sleep 1000 & wait"
        side(*side.words(["-d"], name, ["sh", "-c", script])).ok()
        until("both", lambda: len(side("tasks", "ps", name).ok().out.splitlines()) == 3)

        def told(*words: str) -> List[Any]:
            result = side(*words)
            out = re.sub(r"\d+", "N", result.out.replace(name, "NAME"))
            return [words[1], result.status, re.sub(r"[ \t]+", " ", out), phrases(result.err)]

        seen = [
            told("tasks", "exec", "--exec-id", "e1", name, "sh", "-c", "id; exit 4"),
            told(
                "tasks", "exec", "--exec-id", "e2", "--user", "1000", "--cwd", "/tmp", name, "pwd"
            ),
            told("tasks", "exec", "--exec-id", "e3", name, "no-such-program"),
            told("tasks", "exec", "--exec-id", "e4", name, "/etc"),
            [state(side, name)],
            told("tasks", "pause", name),
            [state(side, name)],
            told("tasks", "exec", "--exec-id", "e5", name, "true")[:2],
            told("tasks", "resume", name),
            [state(side, name)],
            [metric_names(side("tasks", "metrics", name).ok().out)],
            told("tasks", "ps", name),
            told("tasks", "kill", "-s", "SIGTERM", name),
        ]
        side.box.wait(side.argv("tasks", "ls"), f"{name} ")
        stops(side, name)
        seen.append([state(side, name)])
        seen.append(told("tasks", "exec", "--exec-id", "e6", name, "true")[:2])
        seen.append(told("tasks", "kill", name)[:2])
        seen.append(told("tasks", "rm", name)[:2])
        seen.append(told("containers", "rm", name))
        return seen

    steps = same(scenario, *pair)
    assert steps[0][1] == 4
    assert [step[0] for step in steps if len(step) == 1][:3] == ["RUNNING", "PAUSED", "RUNNING"]
    assert ["STOPPED"] in steps


def state(side: Ctr, name: str) -> str:
    """Give a task's status."""
    for line in side("tasks", "ls").ok().out.splitlines():
        if line.startswith(name + " "):
            return line.split()[-1]
    return "none"


def stops(side: Ctr, name: str) -> None:
    """Wait until a task has stopped."""
    until(f"{name} stops", lambda: state(side, name), found=lambda word: word == "STOPPED")


def metric_names(out: str) -> List[str]:
    """Give the names in the table of metrics."""
    return [line.split()[0] for line in out.splitlines()[3:] if line.strip()]


def test_ctr_terminal(pair: Tuple[Ctr, Ctr]) -> None:
    """run -t and exec -t in a real pty."""

    def scenario(side: Ctr) -> List[Any]:
        name = f"tty-{side.name}"
        seen: List[Any] = []
        with side.terminal(*side.words(["-t", "--rm"], name, ["sh"])) as terminal:
            terminal.expect("# ")
            terminal.await_size("24 80", "# ")
            terminal.type("tty; stty size\n")
            terminal.expect("/dev/pts/0")
            terminal.expect("24 80")
            with side.terminal("tasks", "exec", "-t", "--exec-id", "x", name, "sh") as second:
                second.expect("# ")
                second.type("tty; exit 3\n")
                second.expect("/dev/pts/1")
                seen.append(second.finish())
            terminal.type("exit 6\n")
            seen.append(terminal.finish())
        return seen

    assert same(scenario, *pair) == [3, 6]


def test_checkpoint_is_refused_clearly(pair: Tuple[Ctr, Ctr]) -> None:
    """Without criu a checkpoint fails with a reason, and the task runs on."""
    side = pair[0]
    name = "refused"
    side(*side.words(["-d"], name, ["sleep", "1000"])).ok()
    result = side("tasks", "checkpoint", name)
    assert result.status == 1, result
    assert "unable to retrieve OCI runtime error" not in result.err
    assert re.search("checkpoint|criu", result.err.split("exit status 1", 1)[-1]), result
    assert state(side, name) == "RUNNING"


@pytest.mark.needs("criu")
def test_checkpoint_and_restore(
    daemon: Containerd, pair: Tuple[Ctr, Ctr], criu: Callable[[Box], None]
) -> None:
    """`ctr containers checkpoint --task` writes an image, from which a container of another name goes on."""
    criu(daemon.box)
    box = daemon.box

    def scenario(side: Ctr) -> List[Any]:
        name, image = f"counts-{side.name}", f"localhost/counts-{side.name}"
        log = f"/run/tmp/{name}"
        command = ["sh", "-c", COUNT[-1].replace("echo $i", "echo $i >>/mnt/log")]
        box.run(["mkdir", log]).ok()
        mount = ["--mount", f"type=bind,src={log},dst=/mnt,options=rbind:rw"]
        side(*side.words(["-d", *mount], name, command)).ok()

        def said() -> str:
            return box.run(["cat", f"{log}/log"]).out

        until("it counts", lambda: said().count("\n") > 2)
        side("containers", "checkpoint", "--task", "--rw", name, image).ok()
        seen: List[Any] = [state(side, name), goes_on(said)]
        side("tasks", "kill", "-s", "SIGKILL", name).ok()
        stops(side, name)
        side("tasks", "rm", "-f", name)
        side("containers", "rm", name).ok()
        box.run(["rm", f"{log}/log"]).ok()
        side("containers", "restore", "--live", f"{name}-again", image).ok()
        seen += [state(side, f"{name}-again"), goes_on(said, joined=False)]
        return seen

    assert same(scenario, *pair) == ["RUNNING", True, "RUNNING", True]


def test_a_container_in_a_cgroup_of_choice(pair: Tuple[Ctr, Ctr]) -> None:
    """--cgroup names the container's cgroup."""

    def scenario(side: Ctr) -> List[Any]:
        name = f"cgroup-{side.name}"
        side(*side.words(["-d", "--cgroup", f"/deep/{name}"], name, ["sleep", "1000"])).ok()
        pid = side("tasks", "ls").ok().out.split(name)[1].split()[0]
        table = side.box.run(["cat", f"/proc/{pid}/cgroup"]).ok().out
        side("tasks", "rm", "-f", name)
        return sorted({line.split(":")[2].replace(side.name, "NAME") for line in table.split()})

    assert "/deep/cgroup-NAME" in same(scenario, *pair)
    pair[0].box.remove_cgroup("/deep")


def test_the_shim_finds_one_error_in_the_log(pair: Tuple[Ctr, Ctr], daemon: Containerd) -> None:
    """The error that ctr shows is the runtime's own sentence, not the shim's excuse."""
    result = pair[0].run([], ["no-such-program"])
    assert re.search("OCI runtime (create|start) failed", result.err), result
    assert "unable to retrieve" not in result.err
    assert result.err.count("\n") == 1


def test_tasks_outlive_containerd(daemon: Containerd, pair: Tuple[Ctr, Ctr]) -> None:
    """A killed and restarted containerd finds the task again and can exec, kill and delete."""
    side = pair[0]
    side(*side.words(["-d"], "outlives", ["sleep", "1000"])).ok()
    # pgrep sees the processes of the box only.
    for pid in daemon.box.run(["pgrep", "-x", "containerd"]).ok().out.split():
        daemon.box.run(["kill", "-9", pid]).ok()
    daemon.process.wait()
    daemon.start()
    assert state(side, "outlives") == "RUNNING"
    result = side(
        "tasks", "exec", "--exec-id", "after", "outlives", "sh", "-c", "echo here; exit 2"
    )
    assert (result.status, result.out) == (2, "here\n"), result
    side("tasks", "kill", "-s", "SIGKILL", "outlives").ok()
    stops(side, "outlives")
    side("tasks", "rm", "-f", "outlives")
    side("containers", "rm", "outlives").ok()


def test_calls_of_the_shim_are_the_known_ones(
    pair: Tuple[Ctr, Ctr], daemon: Containerd, golden: Any
) -> None:
    """The command lines that containerd's shim sent in this module are those of the golden list."""
    golden("containerd", calls(daemon.box, daemon.binaries["anocir"]))
