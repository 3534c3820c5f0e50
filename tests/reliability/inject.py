"""Every system call of a command once killed, once failing: strace(1) counts and injects.

Random kills find the wide gaps; the enumeration finds the narrow ones and can be repeated. A plain run is traced
first; then the command is run again for each (system call, occurrence) with SIGKILL or an errno injected there.
What Python does before the archive's first line (`python3 -IS -c pass`, traced too) is left out for errnos.
"""

from __future__ import annotations

import collections
import os
import re
import shutil
import sys
from typing import Any, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.reliability.crash import SLEEP, clean_up, config_for, prepare, words_of  # noqa: E402
from tests.reliability.ground import PYTHON, Ground, Progress, Runtime  # noqa: E402

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
    """How often each system call occurs in a trace; with -ff the most of any one process."""
    most: collections.Counter[str] = collections.Counter()
    directory, name = os.path.split(path)
    for entry in os.listdir(directory):
        if entry != name and not entry.startswith(name + "."):
            continue
        counts: collections.Counter[str] = collections.Counter()
        with open(os.path.join(directory, entry), encoding="utf-8", errors="replace") as stream:
            for line in stream:
                found = re.match(r"(\w+)\(", line)
                if found:
                    counts[found.group(1)] += 1
        for call, count in counts.items():
            most[call] = max(most[call], count)
        os.unlink(os.path.join(directory, entry))
    return most


def tracer(follow: bool, *options: str) -> tuple[str, ...]:
    """strace as a grandchild (-D), so that the runtime is our own child and can be waited for."""
    return (str(shutil.which("strace")), "-D", *(("-ff",) if follow else ()), "-qq", *options)


def trace(
    ground: Ground, runtime: Runtime, words: tuple[str, ...], follow: bool
) -> collections.Counter[str]:
    """Count the system calls of one undisturbed run."""
    out = os.path.join(ground.dir, "trace")
    pid = ground.spawn(runtime, words, prefix=tracer(follow, "-o", out))
    status, _ = ground.wait(pid)
    if status != 0:
        raise RuntimeError(f"{runtime.name} {words[0]} under strace: {status}")
    end_tracer(ground)
    return counts_in(out)


def end_tracer(ground: Ground) -> None:
    """Let a tracer that still follows the container go."""
    import signal
    import time

    from tests.reliability.ground import children_of, proc_name, proc_state

    for _ in range(200):
        alive = [
            pid
            for pid in children_of(os.getpid())
            if "strace" in proc_name(pid).split(" ")[0] and proc_state(pid) not in ("", "Z")
        ]
        if not alive:
            break
        for pid in alive:
            try:
                os.kill(pid, signal.SIGTERM)
            except ProcessLookupError:
                continue
        time.sleep(0.01)
    ground.reap()


def interpreter_counts(ground: Ground, runtime: Runtime) -> collections.Counter[str]:
    """The system calls of the bare interpreter, if the runtime is a script of it."""
    with open(runtime.argv[0], "rb") as stream:
        if b"python" not in stream.readline(200):
            return collections.Counter()
    out = os.path.join(ground.dir, "trace")
    pid = ground.spawn_argv([*tracer(False, "-o", out), PYTHON, "-IS", "-c", "pass"])
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


def enumerate_points(
    ground: Ground,
    runtime: Runtime,
    command: str,
    kinds: tuple[str, ...] = ("SIGKILL", *FAILURES),
    every: int = 1,
    follow: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Strike at every point (or each `every`-th) of a command; counts of what went wrong, with examples."""
    bundle = ground.bundle(f"inject-{command}", SLEEP)
    figures: dict[str, Any] = {
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
    boot = interpreter_counts(ground, runtime)
    container = f"inject-{command}"
    config_for(ground, bundle, container)
    words = words_of(command, container, bundle)
    prepare(ground, runtime, command, container, bundle)
    counts = trace(ground, runtime, words, follow)
    clean_up(ground, runtime, container, "undisturbed", figures)
    strikes = [point for kind in kinds for point in points(counts, boot, kind)]
    # an offset that differs by command and kind, so that samples do not always take the same calls
    strikes = strikes[len(command) % every :: every]
    if progress:
        progress.total += len(strikes)
    for point in strikes:
        if progress:
            progress.step(
                f"{runtime.name}: {command}, {point.what} at {point.call} {point.occurrence}"
            )
        figures["points"] += 1
        prepare(ground, runtime, command, container, bundle)
        strike(ground, runtime, command, words, container, point, follow, figures)
    ground.drop_bundle(bundle)
    return figures


def strike(
    ground: Ground,
    runtime: Runtime,
    command: str,
    words: tuple[str, ...],
    container: str,
    point: Point,
    follow: bool,
    figures: dict[str, Any],
) -> None:
    """Run the command with one injection, judge it, and clean up."""
    log = os.path.join(ground.dir, "trace")
    prefix = tracer(follow, "-o", log, "-e", f"trace={point.call}", "-e", point.option())
    result = ground.call(runtime, *words, prefix=prefix, seconds=15)
    end_tracer(ground)
    hit = False
    for entry in os.listdir(ground.dir):
        if entry == "trace" or entry.startswith("trace."):
            path = os.path.join(ground.dir, entry)
            with open(path, encoding="utf-8", errors="replace") as stream:
                text = stream.read()
            hit = hit or "(INJECTED)" in text or "killed by SIGKILL" in text
            os.unlink(path)
    figures["hit"] += hit
    note = f"{command}: {point.what} at {point.call} {point.occurrence}"
    if result.status is None:
        figures["hangs"] += 1
        figures["examples"].append(f"{note}: hangs")
    if 'File "<string>", line 1, in <module>' in result.err and ", in main" not in result.err:
        # the interpreter could not read the archive: none of its lines has run yet that could say it better
        figures["unloaded"] += 1
    elif "Traceback" in result.err or "panic:" in result.err or "goroutine " in result.err:
        figures["tracebacks"] += 1
        figures["examples"].append(f"{note}: traceback: {result.err.strip()[-300:]}")
    if command in ("create", "run") and result.status == 0:
        state = ground.call(runtime, "state", container)
        if state.status != 0:
            figures["false success"] += 1
            figures["examples"].append(
                f"{note}: exit status 0, but state: {state.err.strip()[-200:]}"
            )
    clean_up(ground, runtime, container, note, figures)
