"""What a command costs, counted and not timed: system calls, forks and execs, by strace(1).

The bounds are what was counted when they were written, with a tenth to spare. A bare interpreter's
own calls are counted on the same machine and taken off, since they differ between versions.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import drive, machine
from tests.bench import timeline
from tests.bundle import smallest_bundle
from tests.repo.test_imports import await_end

PYTHON = "/usr/bin/python3"

pytestmark = [
    pytest.mark.repo,
    pytest.mark.needs("root"),
    pytest.mark.skipif(not shutil.which("strace"), reason="[strace] this machine has not strace"),
]


def hierarchies() -> int:
    """How many cgroup hierarchies a container gets a directory in."""
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return sum(" - cgroup" in line for line in lines)


class Counted:
    """Runs commands of one container under strace."""

    def __init__(self, archive: str, directory: Path) -> None:
        self.archive = archive
        self.directory = directory
        self.id = f"cost-{os.getpid()}"
        self.bundle = directory / "bundle"
        smallest_bundle(archive, str(self.bundle))
        self.write("/bin/sleep", "600")
        self.bare = sum(self.strace([PYTHON, "-IBSc", "import posix;posix._exit(0)"]).values())

    def write(self, *args: str, **more: object) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(terminal=False, args=list(args))
        config.update(more)
        path.write_text(json.dumps(config))

    def strace(self, argv: list[str], *options: str) -> Counter[str]:
        out = self.directory / "strace"
        # to a file: a container keeps what it is given
        with open(self.directory / "output", "wb") as output:
            done = subprocess.run(
                ["strace", "-qq", *options, "-o", str(out), *argv],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                timeout=drive.TIMEOUT, check=False,
            )  # fmt: skip
        assert done.returncode == 0, (self.directory / "output").read_text()
        calls = Counter[str]()
        for line in out.read_text(errors="replace").splitlines():
            # "<unfinished ...>" counts where it begins; "resumed", signals and exits do not
            call = re.match(r"(?:\d+ +)?(\w+)\(", line)
            if call and not (call[1] == "execve" and ") = -1" in line):
                calls[call[1]] += 1
            elif "<... execve resumed>" in line and ") = -1" in line:
                calls["execve"] -= 1
        return calls

    def call(self, *words: str, options: tuple[str, ...] = ()) -> Counter[str]:
        root = str(self.directory / "state")
        return self.strace([self.archive, "--root", root, *words], *options)

    def remove(self) -> None:
        root = str(self.directory / "state")
        words = [self.archive, "--root", root, "delete", "--force", self.id]
        subprocess.run(words, check=False, stderr=subprocess.DEVNULL)


@pytest.fixture
def counted(archive: str, tmp_path: Path) -> Iterator[Counted]:
    if not os.access("/bin/busybox", os.X_OK):
        pytest.skip("[busybox] this machine has not /bin/busybox")
    made = Counted(archive, tmp_path)
    yield made
    made.remove()


# More than a bare interpreter; of create and exec the host side alone.
# Where in the archive a buffer ends: the table of modules takes one read(2) more or less.
LUCK = 1
BOUNDS = {
    "create": (272, 11),
    "state": (66, 0),
    "start": (94, 0),
    "exec": (214, 3),
    "list": (76, 0),
    "kill": (75, 0),
    "delete": (66, 4),
}


def test_a_command_makes_no_more_system_calls_than_it_did(counted: Counted) -> None:
    calls = {
        "create": ["create", "--bundle", str(counted.bundle), counted.id],
        "state": ["state", counted.id],
        "start": ["start", counted.id],
        "exec": ["exec", counted.id, "/bin/true"],
        "list": ["list"],
        "kill": ["kill", counted.id, "KILL"],
        "delete": ["delete", "--force", counted.id],
    }
    found = {}
    for name, words in calls.items():
        found[name] = sum(counted.call(*words).values()) - counted.bare
        if name == "kill":
            await_end(counted.directory / "state", counted.id)
    bounds = {name: base + each * hierarchies() for name, (base, each) in BOUNDS.items()}
    assert set(found) == set(bounds), "BOUNDS: a row for each command that is called here"
    assert {name: count for name, count in found.items() if count > bounds[name] + LUCK} == {}, (
        f"find the calls that came with strace -c; if they are meant, raise BOUNDS: {bounds}"
    )
    # a bound that is far off guards nothing
    assert {name: count for name, count in found.items() if count < bounds[name] // 2} == {}, (
        f"lower BOUNDS to what is made now: {bounds}"
    )


# Instructions in millions more than those of a bare interpreter, which differ between machines by
# little: callgrind counts, and no clock. The bounds are what was counted with a tenth to spare.
INSTRUCTIONS = {"state": 3.8, "start": 4.5, "list": 4.0, "kill": 4.0, "delete": 4.5}
# Before `kill`: valgrind 3.19 knows no pidfd_open(2), and what stands in for it where a kernel has
# none, with a process of its own, would be 1.6 of what is counted. So calls that it knows do that.
PIDFDS = """
import posix, _signal
pids = {}
def pidfd_open(pid, flags):
    fd = posix.open(f"/proc/{pid}", posix.O_DIRECTORY | posix.O_CLOEXEC)
    pids[fd] = pid
    return fd
posix.pidfd_open = pidfd_open
_signal.pidfd_send_signal = lambda pidfd, number: posix.kill(pids[pidfd], number)
"""


@pytest.mark.skipif(not shutil.which("valgrind"), reason="[valgrind] this machine has not valgrind")
def test_a_command_executes_no_more_instructions_than_it_did(counted: Counted) -> None:
    def instructions(*command: str) -> int:
        done = subprocess.run(
            ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=drive.TIMEOUT,
            check=True, env={"PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        found = re.search(r"Collected : (\d+)", done.stderr)
        assert found, done.stderr
        return int(found[1])

    first_line = Path(counted.archive).open("rb").readline().decode().partition("-IBSc")[2]
    bare = {
        before: instructions(PYTHON, "-IBSc", f"{before}import posix;posix._exit(0)")
        for before in ("", PIDFDS)
    }
    counted.call("create", "--bundle", str(counted.bundle), counted.id)
    found = {}
    for name in INSTRUCTIONS:
        words = {"list": [], "kill": [counted.id, "KILL"]}.get(name, [counted.id])
        before = PIDFDS if name == "kill" else ""
        start = [PYTHON, f"-IBSc{before}{first_line}", counted.archive]
        root = ["--root", str(counted.directory / "state")]
        found[name] = (instructions(*start, *root, name, *words) - bare[before]) / 1e6
        if name == "kill":
            await_end(counted.directory / "state", counted.id)
    assert {name: n for name, n in found.items() if n > INSTRUCTIONS[name]} == {}, (
        f"millions of instructions, INSTRUCTIONS allows less: {found}"
    )
    # a bound that is far off guards nothing
    assert {name: n for name, n in found.items() if n < INSTRUCTIONS[name] / 2} == {}, (
        f"lower INSTRUCTIONS to what is executed now: {found}"
    )


def test_no_module_is_read_twice(counted: Counted) -> None:
    """A record that is read again gives a module a second time, and two of what it defines."""
    create = ["create", "--bundle", str(counted.bundle), counted.id]
    for words in (create, ["start", counted.id], ["exec", counted.id, "/bin/true"]):
        counted.call(*words)
        calls = (counted.directory / "strace").read_text(errors="replace")
        read = re.findall(r"pread64\(1000, .*, (\d+)\) += \d+$", calls, re.MULTILINE)
        assert read, calls
        assert len(read) == len(set(read)), words


def test_only_what_needs_init_starts_a_process(counted: Counted) -> None:
    forks = ("fork", "vfork", "clone", "clone3")
    follow = ("-f", "--seccomp-bpf", "-e", "trace=execve,fork,vfork,clone,clone3")
    create = ["create", "--bundle", str(counted.bundle), counted.id]
    # not followed, as the container lives on: the sealed interpreter, which clones init
    made = counted.call(*create)
    assert sum(made[name] for name in forks) == 1, f"create starts one process, init: {made}"
    for words in (["state", counted.id], ["list"], ["start", counted.id]):
        made = counted.call(*words, options=follow)
        assert made == {"execve": 1}, words
    # the interpreter, the sealed one, the program; one spawn, the worker where there is a cgroup2
    # to be born in, the clone of init
    inside = counted.call("exec", counted.id, "/bin/true", options=follow)
    assert inside["execve"] == 3, inside
    assert sum(inside[name] for name in forks) == (3 if machine.v2_mountpoint() else 2), inside
    for words in (["kill", counted.id, "KILL"], ["delete", "--force", counted.id]):
        assert counted.call(*words, options=follow) == {"execve": 1}, words
    counted.write("/bin/true")
    run = counted.call("run", "--bundle", str(counted.bundle), counted.id, options=follow)
    assert run["execve"] == 3, run
    assert sum(run[name] for name in forks) == 2, run


def test_what_is_not_asked_for_costs_nothing(counted: Counted) -> None:
    """No hook, no terminal, no seccomp: none of their calls, in the runtime or in init."""
    counted.write("/bin/true", hooks={})
    run = counted.call("run", "--bundle", str(counted.bundle), counted.id, options=("-f",))
    unwanted = {"seccomp", "pipe", "pipe2", "fsync", "ioprio_set", "bpf", "sched_setattr"}
    made = {name: run[name] for name in unwanted if run[name]}
    assert not made, "nothing in the configuration asks for these calls"
    # each state file is written once for a phase: config, intent, state with the pid, created
    assert run["rename"] + run["renameat"] + run["renameat2"] == 4, run
    assert run["unshare"] <= 3, "host/network, init's namespaces and the one of time are the three"
    assert run["pivot_root"] == 1, run


def test_the_timeline_of_a_create_has_every_stage_that_it_knows(archive: str) -> None:
    """It wraps functions by their names, in a copy of the archive's first text."""
    if not os.access("/bin/busybox", os.X_OK):
        pytest.skip("[busybox] this machine has not /bin/busybox")
    found = timeline.measure(archive, 1)
    text = timeline.HOST + timeline.INIT
    known = {name for name in re.findall(r'"([^"\n]+)"\)', text) if " " in name or name == "plan"}
    seen = {name for rows in found.values() for name, _, _ in rows}
    assert {"waits for the pid", "clone of init", "plan"} <= seen
    assert sorted(known - seen) == []
