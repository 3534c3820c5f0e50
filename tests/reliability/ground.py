"""The ground that a measuring script stands on: a directory, a cgroup parent and a mount namespace of its own.

bench.py, crash.py, inject.py, storm.py and fuzz.py all do the same things to any runtime: build bundles, run
commands with a time limit, and look afterwards for what a command left behind. That census is only
worth something if nothing else can make or hide a leftover, hence the own corner of the machine.

The scripts are subreapers (prctl(2), PR_SET_CHILD_SUBREAPER), so every process that a runtime leaves
behind becomes a descendant of the script: it can be found, waited for, and its processor time counted.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable, NamedTuple

from tests.bundle import make_root, static_busybox, usual_mounts
from tests.host import WITNESSES
from tests.wait import last, until

Config = dict[str, Any]

MS_REC = 0x4000  # /usr/include/linux/mount.h
MS_PRIVATE = 0x40000
MNT_DETACH = 2  # /usr/include/x86_64-linux-gnu/sys/mount.h
CLONE_NEWNS = 0x20000  # /usr/include/linux/sched.h
PR_SET_CHILD_SUBREAPER = 36  # /usr/include/linux/prctl.h
PYTHON = "/usr/bin/python3"
# Seconds until a command hangs, or a thing that is on its way out is left. Only what is broken takes that long:
# a machine may have much else to do.
PATIENCE = 120.0

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")


def mount(source: str, target: str, kind: str | None, flags: int, data: str = "") -> None:
    """mount(2)."""
    _checked(
        _libc.mount(
            source.encode(),
            target.encode(),
            kind.encode() if kind else None,
            ctypes.c_ulong(flags),
            data.encode(),
        ),
        f"mount {target}",
    )


def unmount(target: str) -> None:
    """umount2(2), detached: what a broken runtime left may be busy."""
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"unmount {target}")


def unshare_mounts() -> None:
    """Go into a private mount namespace, so that nothing that a runtime forgets shows on the host."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare mounts")
    mount("none", "/", None, MS_REC | MS_PRIVATE)


class Progress:
    """Where a long run is, on standard error: rewritten in place on a terminal, else a line now and then."""

    __slots__ = ("began", "done", "label", "quiet_until", "total", "tty")

    def __init__(self, label: str, total: int) -> None:
        self.label = label
        self.total = total
        self.done = 0
        self.began = time.monotonic()
        self.tty = sys.stderr.isatty()
        self.quiet_until = 0.0

    def step(self, text: str) -> None:
        """Count one step and say what is being done now."""
        self.done += 1
        now = time.monotonic()
        minutes, seconds = divmod(int(now - self.began), 60)
        line = f"{self.label} [{self.done}/{self.total}] {minutes}:{seconds:02d} {text}"
        if self.tty:
            sys.stderr.write(f"\r\033[K{line[:118]}")
        elif now >= self.quiet_until or self.done == self.total:
            sys.stderr.write(f"{line}\n")
            self.quiet_until = now + 5
        sys.stderr.flush()

    def end(self) -> None:
        """Leave the line that a terminal was rewriting."""
        if self.tty:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()


class Result(NamedTuple):
    """How a command ended: exit status (-signal; None for a hang), seconds, processor seconds, texts."""

    status: int | None
    wall: float
    cpu: float
    out: str
    err: str


class Runtime:
    """A runtime under test: NAME=COMMAND or COMMAND, with options of its own after spaces."""

    __slots__ = ("argv", "name", "namespace_fd", "root")

    def __init__(self, text: str) -> None:
        name, separator, command = text.partition("=")
        if not separator or "/" in name or " " in name:
            name, command = "", text
        words = command.split()
        found = shutil.which(words[0])
        if not found:
            raise SystemExit(f"{words[0]}: no such runtime")
        self.argv = [os.path.abspath(found), *words[1:]]
        self.name = name or os.path.basename(found)
        self.root = ""
        self.namespace_fd = -1

    def version(self) -> str:
        """The first line of --version, for tables."""
        reader, writer = os.pipe()
        actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
        pid = os.posix_spawn(
            self.argv[0], [*self.argv, "--version"], os.environ, file_actions=actions
        )
        os.close(writer)
        with os.fdopen(reader, "r") as stream:
            text = stream.read()
        os.waitpid(pid, 0)
        return text.splitlines()[0].strip() if text else "unknown"


def hierarchies() -> list[tuple[str, str]]:
    """(name, mount point) of each cgroup hierarchy that this process sees."""
    found: dict[str, str] = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as stream:
        for line in stream:
            left, right = line.rstrip("\n").split(" - ", 1)
            kind = right.split()[0]
            if kind in ("cgroup", "cgroup2"):
                point = left.split()[4]
                found.setdefault(os.path.basename(point) if kind == "cgroup" else "unified", point)
    return sorted(found.items())


def is_cgroup2() -> bool:
    """True on a machine with no cgroup v1 hierarchy."""
    return [name for name, _ in hierarchies()] == ["unified"]


def children_of(pid: int) -> list[int]:
    """Every descendant of a process, children first, but for the guard of the host."""
    by_parent: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stream:
                fields = stream.read().rpartition(b")")[2].split()
                by_parent.setdefault(int(fields[1]), []).append(int(entry))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        for child in by_parent.get(waiting.pop(), []):
            if child not in WITNESSES:
                found.append(child)
                waiting.append(child)
    return found


def patience(runtime: Runtime) -> float:
    """Seconds that what a runtime killed may take to end; few for those whose leftovers are no news."""
    return PATIENCE if runtime.name.startswith("anocir") else 1.0


def proc_state(pid: int) -> str:
    """The state letter of a process, empty when it is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stream:
            return stream.read().rpartition(b")")[2].split()[0].decode()
    except OSError:
        return ""


def proc_name(pid: int) -> str:
    """The command line of a process, for messages."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as stream:
            return stream.read().replace(b"\0", b" ").decode("utf-8", "replace")[:80]
    except OSError:
        return "?"


class Ground:
    """See the module's text. Use as a context manager; leaving it removes everything."""

    __slots__ = (
        "dir",
        "entered",
        "host_fd",
        "mine",
        "orphans_cpu",
        "parent",
        "rootfs",
        "runtimes",
        "wakeup",
    )

    def __init__(self, tool: str, runtimes: Sequence[Runtime]) -> None:
        _checked(_libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl PR_SET_CHILD_SUBREAPER")
        unshare_mounts()
        self.host_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self.dir = tempfile.mkdtemp(prefix=f"anocir-{tool}-")
        os.chmod(self.dir, 0o755)
        # what is measured should be the runtime and not the disk below /tmp
        mount("tmpfs", self.dir, "tmpfs", 0, "mode=755")
        self.parent = f"/{os.path.basename(self.dir)}"
        self.mine: set[int] = set()
        self.entered = False
        self.orphans_cpu = 0.0
        # a SIGCHLD makes this readable, so that wait() can sleep on it
        self.wakeup, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self.rootfs = os.path.join(self.dir, "rootfs")
        make_root(self.rootfs, static_busybox())
        self.runtimes = list(runtimes)
        for runtime in self.runtimes:
            runtime.root = os.path.join(self.dir, "state", runtime.name)
            os.makedirs(runtime.root, 0o700)
            if os.path.basename(runtime.argv[0]) == "crun" and not is_cgroup2():
                self._hide_unified(runtime)

    def __enter__(self) -> Ground:
        return self

    def __exit__(self, *unused: object) -> None:
        self.sweep()
        for _, point in hierarchies():
            _remove_tree(point + self.parent)
        with contextlib.suppress(OSError):
            unmount(self.dir)
        with contextlib.suppress(OSError):
            os.rmdir(self.dir)

    def _hide_unified(self, runtime: Runtime) -> None:
        """Debian's crun refuses a host with both cgroup versions, so it gets one where v2 is covered."""
        point = dict(hierarchies()).get("unified")
        if not point:
            return
        with open(f"{point}/cgroup.controllers", encoding="utf-8") as stream:
            if not stream.read().strip():
                return  # one that only follows processes is no trouble
        ready, tell = os.pipe()
        go, let = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                unshare_mounts()
                mount("tmpfs", point, "tmpfs", 0)
                os.write(tell, b"1")
                os.close(let)
                os.read(go, 1)
            finally:
                os._exit(0)
        os.close(tell)
        os.read(ready, 1)
        runtime.namespace_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        for fd in (ready, go, let):
            os.close(fd)
        os.waitpid(pid, 0)

    @contextlib.contextmanager
    def inside(self, runtime: Runtime) -> Iterator[None]:
        """The mount namespace that the runtime is run in."""
        if runtime.namespace_fd < 0 or self.entered:
            yield
            return
        _checked(_libc.setns(runtime.namespace_fd, CLONE_NEWNS), "setns")
        self.entered = True
        try:
            yield
        finally:
            self.entered = False
            _checked(_libc.setns(self.host_fd, CLONE_NEWNS), "setns")

    # ------------------------------------------------------------------ bundles

    def bundle(
        self,
        name: str,
        args: Sequence[str] = ("/bin/true",),
        change: Callable[[Config], None] | None = None,
        own_rootfs: bool = False,
    ) -> str:
        """A bundle directory; `change` edits the configuration before it is written."""
        path = os.path.join(self.dir, "bundles", name)
        os.makedirs(path)
        rootfs = self.rootfs
        if own_rootfs:
            rootfs = os.path.join(path, "rootfs")
            make_root(rootfs, static_busybox())
        config = base_config(rootfs, args)
        config["linux"]["cgroupsPath"] = f"{self.parent}/{name}"
        if change:
            change(config)
        with open(os.path.join(path, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(config, stream)
        return path

    def drop_bundle(self, path: str) -> None:
        """Remove a bundle; by rm(1), as a runtime that was told so made directories 2,000 deep."""
        self.wait(self.spawn_argv(["/bin/rm", "-rf", "--", path]))

    # ------------------------------------------------------------------ commands

    def spawn(
        self, runtime: Runtime, words: Sequence[str], out: str = "", prefix: Sequence[str] = ()
    ) -> int:
        """Start a command of the runtime; its output goes to files, since a container may keep it open."""
        argv = [*prefix, *runtime.argv, "--root", runtime.root, *words]
        return self.spawn_argv(argv, out, runtime)

    def spawn_argv(self, argv: Sequence[str], out: str = "", runtime: Runtime | None = None) -> int:
        """posix_spawn(3) with /dev/null or the file `out` (and `out`.err) as the standard descriptors."""
        actions: list[tuple[Any, ...]] = [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
        if out:
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            actions.append((os.POSIX_SPAWN_OPEN, 1, out, flags, 0o644))
            actions.append((os.POSIX_SPAWN_OPEN, 2, out + ".err", flags, 0o644))
        else:
            actions.append((os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0))
            actions.append((os.POSIX_SPAWN_DUP2, 1, 2))
        place = self.inside(runtime) if runtime else contextlib.nullcontext()
        with place:
            pid = os.posix_spawn(argv[0], list(argv), ENVIRON, file_actions=actions)
        self.mine.add(pid)
        return pid

    def wait(self, pid: int, seconds: float = PATIENCE) -> tuple[int | None, float]:
        """(status, processor time) of a spawned command; status None if it had to be killed for hanging.

        Orphans are collected meanwhile, as an init of the host would: a process that exec put into a pid
        namespace, and whose runtime was killed, otherwise keeps the namespace's init from ending.
        """
        hung = False
        end = time.monotonic() + seconds
        fd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self.wakeup, select.POLLIN)
        try:
            while True:
                ready = [
                    found for found, _ in poll.poll(max(0, int(1000 * (end - time.monotonic()))))
                ]
                if fd in ready:
                    break
                if not ready:
                    hung = True
                    for victim in [*children_of(pid), pid]:
                        with contextlib.suppress(OSError):
                            os.kill(victim, signal.SIGKILL)
                    break
                self._collect()
        finally:
            os.close(fd)
        _, status, usage = os.wait4(pid, 0)
        self.mine.discard(pid)
        cpu = usage.ru_utime + usage.ru_stime
        return None if hung else os.waitstatus_to_exitcode(status), cpu

    def _collect(self) -> None:
        """Wait for each dead child that is no command of ours."""
        with contextlib.suppress(BlockingIOError):
            while os.read(self.wakeup, 4096):
                pass
        with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as stream:
            orphans = [int(word) for word in stream.read().split()]
        for pid in orphans:
            if pid not in self.mine:
                with contextlib.suppress(ChildProcessError):
                    _, _, usage = os.wait4(pid, os.WNOHANG)
                    self.orphans_cpu += usage.ru_utime + usage.ru_stime

    def call(
        self,
        runtime: Runtime,
        *words: str,
        seconds: float = PATIENCE,
        prefix: Sequence[str] = (),
    ) -> Result:
        """Run one command of the runtime to its end."""
        out = os.path.join(self.dir, f"out-{len(self.mine)}")
        began = time.perf_counter()
        pid = self.spawn(runtime, words, out, prefix)
        status, cpu = self.wait(pid, seconds)
        wall = time.perf_counter() - began
        return Result(status, wall, cpu, _read(out), _read(out + ".err"))

    def timed(self, runtime: Runtime, *words: str, seconds: float = 120.0) -> Result:
        """As call(), with nothing but the command between the two looks at the clock."""
        out = os.path.join(self.dir, "out")
        argv = [*runtime.argv, "--root", runtime.root, *words]
        return self.timed_argv(argv, out, runtime, seconds)

    def timed_argv(
        self, argv: Sequence[str], out: str, runtime: Runtime | None = None, seconds: float = 120.0
    ) -> Result:
        """The clock around posix_spawn and wait4 of any command."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, out, flags, 0o644),
            (os.POSIX_SPAWN_OPEN, 2, out + ".err", flags, 0o644),
        ]
        words = list(argv)
        place = self.inside(runtime) if runtime else contextlib.nullcontext()
        with place:
            began = time.perf_counter()
            pid = os.posix_spawn(words[0], words, ENVIRON, file_actions=actions)
            self.mine.add(pid)
            status, cpu = self.wait(pid, seconds)
            wall = time.perf_counter() - began
        return Result(status, wall, cpu, _read(out), _read(out + ".err"))

    def wait_gone(self, pid: int, seconds: float = 10.0) -> None:
        """Wait until a container's init, which became our child, has ended."""
        until(
            f"the end of process {pid}", lambda: proc_state(pid) in ("", "Z"), seconds, pause=0.0005
        )
        self._collect()

    def reap(self) -> float:
        """Collect dead orphans; returns the processor time of all that were collected since the last call."""
        self._collect()
        spent, self.orphans_cpu = self.orphans_cpu, 0.0
        return spent

    # ------------------------------------------------------------------ census

    def leftovers(self, runtime: Runtime, container: str = "") -> list[str]:
        """What is still there of a container (or of any): processes, cgroups, mounts, state."""
        self.reap()
        found = []
        for pid in children_of(os.getpid()):
            if pid not in self.mine and proc_state(pid) not in ("", "Z", "X"):
                found.append(f"process {pid} ({proc_name(pid).strip()})")
        for name, point in hierarchies():
            for path in _cgroups_below(point + self.parent):
                if not container or container in path.split("/"):
                    found.append(f"cgroup {name}:{path[len(point) :]}")
        with self.inside(runtime), open("/proc/thread-self/mountinfo", encoding="utf-8") as stream:
            for line in stream:
                point = line.split()[4]
                if point.startswith(self.dir + "/"):
                    found.append(f"mount {point}")
        entries = os.listdir(runtime.root) if os.path.isdir(runtime.root) else []
        for entry in entries:
            if entry == container if container else not entry.startswith("."):
                found.append(f"state {entry}")
        return found

    def settled(self, runtime: Runtime, container: str = "") -> list[str]:
        """leftovers(), but a process that is already dying gets a moment for it."""
        found: list[str] = last(
            lambda: self.leftovers(runtime, container),
            patience(runtime),
            found=lambda left: not any(one.startswith("process") for one in left),
        )
        return found

    def sweep(self) -> None:
        """Kill and remove whatever is there, by force and without the runtime's help."""
        for _ in range(50):
            for name, point in hierarchies():
                for path in [*_cgroups_below(point + self.parent), point + self.parent]:
                    if name == "freezer":
                        _write(path + "/freezer.state", "THAWED")
                    for member in _read(path + "/cgroup.procs").split():
                        with contextlib.suppress(OSError):
                            os.kill(int(member), signal.SIGKILL)
            for pid in children_of(os.getpid()):
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            self.mine.clear()
            self.reap()
            if not children_of(os.getpid()):
                break
            time.sleep(0.02)
        for _, point in hierarchies():
            for path in _cgroups_below(point + self.parent):
                _remove_tree(path)
        for runtime in self.runtimes:
            with self.inside(runtime):
                with open("/proc/thread-self/mountinfo", encoding="utf-8") as stream:
                    points = [line.split()[4] for line in stream]
                for point in reversed(points):
                    if point.startswith(self.dir + "/"):
                        with contextlib.suppress(OSError):
                            unmount(point)
            shutil.rmtree(runtime.root, ignore_errors=True)
            with contextlib.suppress(OSError):
                os.makedirs(runtime.root, 0o700)


ENVIRON = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}
if os.environ.get("XDG_RUNTIME_DIR"):
    ENVIRON["XDG_RUNTIME_DIR"] = os.environ["XDG_RUNTIME_DIR"]


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> None:
    with contextlib.suppress(OSError), open(path, "w", encoding="utf-8") as stream:
        stream.write(text)


def _cgroups_below(path: str) -> list[str]:
    """Directories below a cgroup, the deepest first."""
    found = []
    for directory, names, _ in os.walk(path, topdown=False):
        found += [os.path.join(directory, name) for name in names]
    return found


def _remove_tree(path: str) -> None:
    for directory in [*_cgroups_below(path), path]:
        for _ in range(20):
            try:
                os.rmdir(directory)
            except FileNotFoundError:
                break
            except OSError:
                time.sleep(0.01)
            else:
                break


CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")


def base_config(rootfs: str, args: Sequence[str]) -> Config:
    """A configuration like the one that `spec` writes, without a terminal."""
    mounts = usual_mounts()
    next(one for one in mounts if one["type"] == "devpts")["options"].append("gid=5")
    return {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0},
            "args": list(args),
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                kind: list(CAPABILITIES) for kind in ("bounding", "effective", "permitted")
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": rootfs, "readonly": True},
        "hostname": "anocir",
        "mounts": mounts,
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": [
                "/proc/kcore",
                "/proc/keys",
                "/proc/latency_stats",
                "/proc/timer_list",
                "/proc/sched_debug",
                "/sys/firmware",
                "/proc/scsi",
            ],
            "readonlyPaths": [
                "/proc/bus",
                "/proc/fs",
                "/proc/irq",
                "/proc/sys",
                "/proc/sysrq-trigger",
            ],
        },
    }
