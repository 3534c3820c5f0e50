"""Every system call of a command once killed, once failing: strace(1) counts and injects.

Random kills find the wide gaps; the enumeration finds the narrow ones and can be repeated. A plain run is traced
first; then the command is run again for each (system call, occurrence) with SIGKILL or an errno injected there.
What Python does before the archive's first line (`python3 -IS -c pass`, traced too) is left out.

strace counts in each process alike. What a command starts (the container's init above all) is struck by strike.py,
one process at a time; there only errnos pass over what Python does before the first line.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.reliability.crash import SLEEP, clean_up, config_for, prepare, words_of  # noqa: E402
from tests.reliability.ground import (  # noqa: E402
    PATIENCE,
    PYTHON,
    Ground,
    Progress,
    Result,
    Runtime,
    children_of,
    proc_name,
    proc_state,
)
from tests.wait import last  # noqa: E402

STRIKE = os.path.join(HERE, "strike.py")

# Which calls an errno is plausible for (their man pages); an errno that a call cannot give proves nothing.
FAILURES = {
    "ENOSPC": "mkdir mkdirat open openat openat2 write pwrite64 writev rename renameat renameat2 symlink "
    "symlinkat mknod mknodat fsync fdatasync ftruncate link linkat",
    "EMFILE": "open openat openat2 socket socketpair pipe pipe2 dup dup2 dup3 memfd_create pidfd_open fsopen "
    "fsmount open_tree accept accept4 epoll_create1 eventfd2 inotify_init1 fcntl",
    "ENOMEM": "clone clone3 fork vfork mount umount2 mkdir mkdirat open openat openat2 socket socketpair "
    "memfd_create fsopen fsconfig fsmount move_mount mount_setattr setns unshare add_key keyctl bpf read "
    "rename symlink rmdir unlink",
    "EAGAIN": "clone clone3 fork vfork flock sendmsg recvmsg sendto recvfrom connect",
    "EINTR": "read write open openat connect accept4 poll ppoll select pselect6 wait4 waitid flock sendmsg "
    "recvmsg sendto recvfrom close fsync",
}
# never to be interrupted at: the call that ends the process, or that the tracer itself makes
UNTOUCHED = frozenset(("exit", "exit_group", "execve", "rt_sigreturn", "restart_syscall"))


class Point(NamedTuple):
    """Where to strike: a system call, its occurrence, and SIGKILL or an errno."""

    call: str
    occurrence: int
    what: str

    def option(self) -> str:
        """strace's -e argument."""
        effect = "signal=SIGKILL" if self.what == "SIGKILL" else f"error={self.what}"
        return f"inject={self.call}:{effect}:when={self.occurrence}"

    def __str__(self) -> str:
        """How reports and the progress line name it."""
        return f"{self.what} at {self.call} {self.occurrence}"


Where = TypeVar("Where")  # a Point, or a Descendant


class Aim(NamedTuple):
    """A command to strike at, and the counters of what went wrong."""

    ground: Ground
    runtime: Runtime
    command: str
    words: tuple[str, ...]
    container: str
    figures: dict[str, Any]


def can_inject() -> bool:
    """True if strace is there and may inject: tried, since ptrace is often forbidden."""
    strace = shutil.which("strace")
    if not strace:
        return False
    argv = [strace, "-o", "/dev/null", "-e", "inject=getppid:error=ENOSYS", "/bin/true"]
    return (
        os.waitstatus_to_exitcode(os.waitpid(os.posix_spawn(strace, argv, os.environ), 0)[1]) == 0
    )


def counts_in(path: str) -> collections.Counter[str]:
    """How often each system call occurs in a trace, which is removed."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        found = [re.match(r"(\w+)\(", line) for line in stream]
    os.unlink(path)
    return collections.Counter(match.group(1) for match in found if match)


def tracer(*options: str) -> tuple[str, ...]:
    """strace as a grandchild (-D), so that the runtime is our own child and can be waited for."""
    return (str(shutil.which("strace")), "-D", "-qq", *options)


def trace(ground: Ground, runtime: Runtime, words: tuple[str, ...]) -> collections.Counter[str]:
    """Count the system calls of one undisturbed run."""
    out = os.path.join(ground.dir, "trace")
    # a file as output, as every other command has: criu gives a container only what it had
    pid = ground.spawn(runtime, words, os.path.join(ground.dir, "out"), tracer("-o", out))
    status, _ = ground.wait(pid)
    if status != 0:
        raise RuntimeError(f"{runtime.name} {words[0]} under strace: {status}")
    end_tracer(ground)
    return counts_in(out)


def end_tracer(ground: Ground) -> None:
    """Let a tracer that has not ended yet go."""

    def told_to_end() -> list[int]:
        alive = [
            pid
            for pid in children_of(os.getpid())
            if "strace" in proc_name(pid).split(" ")[0] and proc_state(pid) not in ("", "Z")
        ]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return alive

    last(told_to_end, PATIENCE, found=lambda alive: not alive)
    ground.reap()


def interpreter_counts(ground: Ground, runtime: Runtime) -> collections.Counter[str]:
    """The system calls of the bare interpreter, if the runtime is a script of it."""
    with open(runtime.argv[0], "rb") as stream:
        if b"python" not in stream.readline(200):
            return collections.Counter()
    out = os.path.join(ground.dir, "trace")
    pid = ground.spawn_argv([*tracer("-o", out), PYTHON, "-IS", "-c", "pass"])
    ground.wait(pid)
    end_tracer(ground)
    return counts_in(out)


def points(
    counts: collections.Counter[str], boot: collections.Counter[str], what: str
) -> list[Point]:
    """All points for SIGKILL or an errno, in a fixed order."""
    if what == "SIGKILL":
        calls = sorted(set(counts) - UNTOUCHED)
    else:
        calls = [call for call in FAILURES[what].split() if call in counts]
    return [
        Point(call, occurrence, what)
        for call in calls
        for occurrence in range(boot[call] + 1, counts[call] + 1)
    ]


def no_figures() -> dict[str, Any]:
    """The counters of an enumeration."""
    return {
        "points": 0,
        "hit": 0,
        "left after delete": 0,
        "delete failed": 0,
        "hangs": 0,
        "tracebacks": 0,
        "unloaded": 0,
        "false success": 0,
        "examples": [],
    }


def enumerate_points(
    ground: Ground,
    runtime: Runtime,
    command: str,
    kinds: tuple[str, ...] = ("SIGKILL", *FAILURES),
    every: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Strike at every point (or each `every`-th) of a command; counts of what went wrong, with examples."""
    boot = interpreter_counts(ground, runtime)

    def look(words: tuple[str, ...], container: str) -> list[Point]:
        counts = trace(ground, runtime, words)
        return [point for kind in kinds for point in points(counts, boot, kind)]

    return each_point(ground, runtime, command, look, strike, every, progress)


def each_point(
    ground: Ground,
    runtime: Runtime,
    command: str,
    look: Callable[[tuple[str, ...], str], list[Where]],
    hit: Callable[[Aim, Where], None],
    every: int,
    progress: Progress | None,
) -> dict[str, Any]:
    """Let `look` find the points in one undisturbed command, then `hit` each in a command of its own."""
    container = f"inject-{command}"
    bundle = ground.bundle(container, SLEEP)
    figures = no_figures()
    config_for(ground, bundle, container)
    words = words_of(command, container, bundle)
    aim = Aim(ground, runtime, command, words, container, figures)
    prepare(ground, runtime, command, container, bundle)
    strikes = look(words, container)
    clean_up(ground, runtime, container, "undisturbed", figures)
    # an offset that differs by command and kind, so that samples do not always take the same calls
    strikes = strikes[len(command) % every :: every]
    if progress:
        progress.total += len(strikes)
    for where in strikes:
        if progress:
            progress.step(f"{runtime.name}: {command}, {where}")
        figures["points"] += 1
        prepare(ground, runtime, command, container, bundle)
        hit(aim, where)
    ground.drop_bundle(bundle)
    return figures


def strike(aim: Aim, point: Point) -> None:
    """Run the command with one injection, judge it, and clean up."""
    log = os.path.join(aim.ground.dir, "trace")
    prefix = tracer("-o", log, "-e", f"trace={point.call}", "-e", point.option())
    result = aim.ground.call(aim.runtime, *aim.words, prefix=prefix)
    end_tracer(aim.ground)
    with open(log, encoding="utf-8", errors="replace") as stream:
        text = stream.read()
    os.unlink(log)
    aim.figures["hit"] += "(INJECTED)" in text or "killed by SIGKILL" in text
    judge(aim, f"{aim.command}: {point}", result)


def judge(aim: Aim, note: str, result: Result) -> None:
    """Look at how a struck command ended, and clean up."""
    ground, runtime, _, _, container, figures = aim
    if result.status is None:
        figures["hangs"] += 1
        figures["examples"].append(f"{note}: hangs")
    if 'File "<string>", line 1, in <module>' in result.err and ", in main" not in result.err:
        # the interpreter could not read the archive: none of its lines has run yet that could say it better
        figures["unloaded"] += 1
    elif "Traceback" in result.err or "panic:" in result.err or "goroutine " in result.err:
        figures["tracebacks"] += 1
        figures["examples"].append(f"{note}: traceback: {result.err.strip()[-300:]}")
    if note.startswith(("create", "run", "restore")) and result.status == 0:
        state = ground.call(runtime, "state", container)
        if state.status != 0:
            figures["false success"] += 1
            figures["examples"].append(
                f"{note}: exit status 0, but state: {state.err.strip()[-200:]}"
            )
    if note.startswith("checkpoint"):
        judge_checkpoint(aim, note, result)
    clean_up(ground, runtime, container, note, figures)


def goes_on(pid: int) -> bool:
    """Tell whether a process is neither stopped nor frozen; it may wait for a page (D) for a moment."""
    return last(lambda: proc_state(pid), found=lambda state: state != "D") in ("S", "R")


def judge_checkpoint(aim: Aim, note: str, result: Result) -> None:
    """After a failure the container runs on, unless the images were whole and it was being removed."""
    if result.status in (None, 0, -signal.SIGKILL):
        return
    ground, runtime, _, _, container, figures = aim
    told = ground.call(runtime, "state", container)
    state = json.loads(told.out) if told.status == 0 else {}
    written = os.path.exists(os.path.join(ground.dir, "bundles", container, "images/inventory.img"))
    if state.get("status") == "running" and goes_on(state["pid"]):
        return
    if state.get("status") in (None, "stopped") and written:
        return
    figures["not running on"] = figures.get("not running on", 0) + 1
    figures["examples"].append(f"{note}: {state.get('status')} after: {result.err.strip()[-200:]}")


# ---------------------------------------------------------------------- what a command starts


class Descendant(NamedTuple):
    """Where to strike in what a command starts: the process by its number, then as in Point."""

    process: int
    point: Point

    def __str__(self) -> str:
        """How reports and the progress line name it."""
        return f"{self.point} of process {self.process}"


def striker(ground: Ground, runtime: Runtime, container: str, *options: str) -> tuple[str, ...]:
    """The prefix of a command whose descendants, or whose waiting init, are counted and struck."""
    attach = []
    if options[0] == "start":
        told = ground.call(runtime, "state", container)
        attach = ["--attach", str(json.loads(told.out)["pid"])]
    log = os.path.join(ground.dir, "strike")
    return (PYTHON, "-IS", STRIKE, "--log", log, *attach, *options[1:], "--")


def struck(ground: Ground) -> dict[str, Any]:
    """What the tracer wrote, once it has ended; empty if it was killed in a hang's wake."""
    log = os.path.join(ground.dir, "strike")
    if not last(lambda: os.path.exists(log), PATIENCE):
        return {"struck": False, "calls": []}
    with open(log, encoding="ascii") as stream:
        told: dict[str, Any] = json.load(stream)
    os.unlink(log)
    ground.reap()
    return told


def descendants(
    calls: list[list[str]], boot: collections.Counter[str], what: str
) -> list[Descendant]:
    """All points of all processes for SIGKILL or an errno, in the order of the calls.

    Of a run of the same call (64 times rt_sigaction before execve) the first and the last are killed.
    """
    wanted = set(FAILURES[what].split()) if what != "SIGKILL" else set()
    found = []
    for process, sequence in enumerate(calls, 1):
        inner = [
            before == call == after
            for before, call, after in zip(sequence, sequence[1:], sequence[2:])
        ]
        repeated = [False, *inner, False]
        counts: collections.Counter[str] = collections.Counter()
        passed: collections.Counter[str] = collections.Counter()
        for call, again in zip(sequence, repeated):
            counts[call] += 1
            if call == "execve":
                passed = counts + boot
            elif call in UNTOUCHED:
                continue
            elif (what == "SIGKILL" and not again) or (
                call in wanted and counts[call] > passed[call]
            ):
                found.append(Descendant(process, Point(call, counts[call], what)))
    return found


def enumerate_descendants(
    ground: Ground,
    runtime: Runtime,
    command: str,
    kinds: tuple[str, ...] = ("SIGKILL", *FAILURES),
    every: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Strike at every point (or each `every`-th) of each process that a command starts."""
    boot = interpreter_counts(ground, runtime)

    def look(words: tuple[str, ...], container: str) -> list[Descendant]:
        done = ground.call(runtime, *words, prefix=striker(ground, runtime, container, command))
        if done.status != 0:
            raise RuntimeError(
                f"{runtime.name} {command} under strike.py: {done.status}: {done.err}"
            )
        calls = struck(ground)["calls"]
        return [point for kind in kinds for point in descendants(calls, boot, kind)]

    return each_point(ground, runtime, command, look, strike_descendant, every, progress)


def strike_descendant(aim: Aim, where: Descendant) -> None:
    """Run the command with one of its processes struck, judge it, and clean up."""
    process, point = where
    prefix = striker(
        aim.ground, aim.runtime, aim.container, aim.command, "--process", str(process),
        "--call", point.call, "--occurrence", str(point.occurrence), "--what", point.what,
    )  # fmt: skip
    result = aim.ground.call(aim.runtime, *aim.words, prefix=prefix)
    aim.figures["hit"] += struck(aim.ground)["struck"]
    judge(aim, f"{aim.command}: {where}", result)
