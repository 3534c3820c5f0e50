"""The host side of create, run and exec: start init, hand it the plan, answer it.

Side: host.  How it is started, and from what, is in boot.py.
"""

from __future__ import annotations

import marshal
from _struct import calcsize, unpack

import posix

from ..base import activation, log
from . import boot
from ..wire import channel
from ..errors import Error, reason, received, strerror
from ..linux import entries, files, processes, spawn
from ..linux.errnos import EACCES, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from ..wire.channel import Channel
    from ..cli import Options, Settings
    from ..model.schema import Config, Process
    from ..wire.shapes import Plan


class Full(Error):
    """There is no room for init and who clones it in the container's cgroups."""

    __slots__ = ()


class Init:
    """The process being made: first the middle process, then the container's init.

    Between them, where init is cloned last, a worker.  What comes from the container's side is
    believed of a process only if that is a child of ours, which keeps its number until we reap it.
    """

    __slots__ = (
        "born", "born_in", "channel", "console", "descriptors", "early", "filters_late", "gone",
        "heard", "holes", "in_cgroup", "killed", "listen_fds", "listener", "mapped", "middle",
        "middle_fd", "own_pid", "pid", "pidfd", "sources", "start_time", "streams", "waiting",
        "worker", "worker_fd",
    )  # fmt: skip

    def __init__(
        self, middle: int, line: Channel, listen_fds: int, holes: Sequence[int] = ()
    ) -> None:
        """Take the pid of the sealed interpreter, our end of its channel, LISTEN_FDS."""
        self.listen_fds = listen_fds
        # Descriptors among those to pass on that the caller has not open.
        self.holes = list(holes)
        # The pipes that it gets in the place of the caller's devices (streams.Streams).
        self.streams: Any = None
        # The limits of open files that it gets beforehand (facts.descriptors).
        self.descriptors: tuple[int, int] | None = None
        self.own_pid = posix.getpid()
        self._begin(middle, line)

    def _begin(self, middle: int, line: Channel) -> None:
        self.middle = middle
        self.middle_fd = -1
        self.channel = line
        self.worker = 0
        self.worker_fd = -1
        self.pid = 0
        self.pidfd = -1
        self.start_time = 0
        self.in_cgroup = False
        # Whether it is to be born in a cgroup, and whether there was a frame from who was.
        self.born = False
        self.heard = False
        # The detached mount of the cgroup that init is born in (create.send_cgroups).
        self.born_in = -1
        # The master of the terminal and its name, once init has sent it.
        self.console: tuple[int, str] | None = None
        # What to do with the seccomp listener: a function of its descriptor.
        self.listener: Any = None
        # Steps that open sources in a user namespace, by the number of the mount, until init asks.
        self.sources: dict[int, Sequence[Any]] = {}
        # What idmapped.mount needs for the mounts whose source an earlier one brings, likewise.
        self.mapped: dict[int, Sequence[Any]] = {}
        # Whether it is init that loads the filter, also where a worker clones it.
        self.filters_late = False
        # Frames that init has sent before another process has sent its pid.
        self.early: list[tuple[int, bytes]] = []
        self.waiting = "booting"
        # Whether it was found ended by SIGKILL.
        self.killed = False
        # A frame could not be sent any more.
        self.gone = False

    def send(
        self, kind: int, payload: bytes = b"", fds: Sequence[int] = (), waiting: str = ""
    ) -> None:
        """Send a frame; when init has ended meanwhile, raise why, as `expect` does."""
        self.waiting = waiting or self.waiting
        try:
            self.channel.send(kind, payload, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.gone, self.early = True, []
            self.expect(-1, self.waiting)

    def expect(self, wanted: int, waiting: str) -> bytes:
        """Return the payload of the frame that must come next, after warnings and the console.

        Raises Error with init's own words, or with how it died and what it was doing.
        """
        self.waiting = waiting
        named = wanted in (channel.WORKER, channel.PID)
        while True:
            holder = self._holder()
            kinds = (wanted, channel.LISTENER) if holder else (wanted,)
            if self.subject():
                kinds = (*kinds, channel.SOURCES)
            early = [index for index, frame in enumerate(self.early) if frame[0] in kinds]
            if early:
                kind, payload = self.early.pop(early[0])
            else:
                # A worker says something in any case, and what it says may come first.
                if wanted != channel.WORKER or self.early:
                    self._watch()
                kind, payload = self.channel.receive()
            self.heard = self.heard or bool(kind and self.subject())
            if kind == wanted:
                return payload
            if kind == channel.LOG:
                log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
            elif kind == channel.CONSOLE and self.channel.fds:
                self.console = self.channel.fds.pop(), payload.decode("ascii", "replace")
            elif kind == channel.LISTENER and holder:
                self._fetch_listener(payload)
            elif kind == channel.SOURCES and self.subject():
                from . import sources

                sources.answer(self, payload)
            elif kind in (channel.ERROR, channel.FULL):
                raise error_of(payload, kind)
            elif named and kind in _OVERTAKING:
                self.early.append((kind, payload))
            elif kind == 0:
                raise Error(f"init died while {waiting} ({self._end()})")
            else:
                raise Error(f"unexpected frame {kind} while {waiting}")

    def _watch(self) -> None:
        """Wait for a frame, or for the end of the process whose turn it is.

        When one dies right after it has cloned the next, that one keeps the channel open, so
        that there is no end of file; closing our end lets it go.
        """
        if self.channel.buffer:
            return
        if not self.pid:
            if not self.worker and self.middle_fd < 0:
                self.middle_fd = processes.pidfd_open(self.middle)
            self._watch_maker(self.worker_fd if self.worker else self.middle_fd)
        elif self.worker:
            channel.wait_unless_stopped(self.channel.fd, self.pid, self.waiting)

    def _watch_maker(self, pidfd: int) -> None:
        import select

        poll = select.poll()
        poll.register(self.channel.fd, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        if ready == [pidfd]:
            # It may have sent its last frame between our two looks.
            poll.unregister(pidfd)
            if not poll.poll(0):
                raise Error(f"init died while {self.waiting} ({self._end()})")

    def _fetch_listener(self, payload: bytes) -> None:
        """Take the seccomp listener out of the process: its profile may trap sendmsg."""
        from ..linux import tasks

        if not payload.isdigit() or len(payload) > 6 or self.listener is None:
            raise Error(f"unexpected listener while {self.waiting}")
        try:
            fd = tasks.pidfd_getfd(self.pidfd if self.pid else self.worker_fd, int(payload))
        except OSError:
            from ..errors import at
            from ..linux import watch

            if watch.has_pidfd_getfd():
                raise
            text = f"SCMP_ACT_NOTIFY needs Linux 5.6, this is {posix.uname().release}"
            raise at("linux.seccomp", text) from None
        try:
            self.listener(fd, self.subject())
        finally:
            files.close(fd)
        self.send(channel.DONE)

    def _holder(self) -> int:
        """Return the pid of the process that has the seccomp listener, 0 before it is known."""
        return self.pid or (0 if self.filters_late else self.worker)

    def _end(self) -> str:
        """Say how the process ended."""
        pid = self.pid or self.worker or self.middle
        try:
            status = spawn.wait(pid)
        except ChildProcessError:
            return "its parent has reaped it"
        self.killed = status == 128 + processes.SIGKILL
        return f"signal {status - 128}" if status > 128 else f"exit status {status}"

    def subject(self) -> int:
        """Return the pid of the process that is in the container's namespaces."""
        return self.pid or self.worker

    def adopt(self, payload: bytes) -> None:
        """Take the pid of init from the process that has cloned it, which is about to end."""
        self.pid, self.in_cgroup, self.pidfd, self.start_time = self._child(payload)

    def adopt_worker(self, payload: bytes) -> None:
        """Take the pid of the worker from the middle process, which is the worker or ends now."""
        pid, _, _ = _named(payload)
        if pid == self.middle:
            self.middle = 0
        self.worker, self.in_cgroup, self.worker_fd, self.start_time = self._child(payload)
        self.reap_middle()

    def _child(self, payload: bytes) -> tuple[int, bool, int, int]:
        pid, in_cgroup, whole = _named(payload)
        try:
            if not whole or pid in (self.middle, self.worker):
                raise ChildProcessError
            return (pid, in_cgroup, *processes.hold_child(pid, self.own_pid))
        except ChildProcessError:
            if not self._own_proc():
                hint = "mount that of this one: unshare --mount-proc does"
                raise Error("/proc is that of another pid namespace", hint) from None
            raise Error(f"process {pid} was named as init and is none of ours") from None

    def _own_proc(self) -> bool:
        """Tell whether /proc is that of our pid namespace: `unshare -pf` leaves the old one."""
        try:
            return entries.readlink("/proc/self") == str(self.own_pid)
        except OSError:
            return False

    def reap_middle(self) -> None:
        """Wait for the end of the middle process, which has nothing to do any more.

        And close the cgroup now that both have: who closes a detached mount last waits for a
        grace period of RCU, and init is the one who has no time.
        """
        middle, self.middle = self.middle, 0
        if middle:
            spawn.wait(middle)
        if self.born_in >= 0:
            files.close(self.born_in)
            self.born_in = -1
        if self.middle_fd >= 0:
            files.close(self.middle_fd)
            self.middle_fd = -1

    def reap_worker(self) -> None:
        """Wait for the end of the worker, which has cloned init."""
        if self.worker_fd >= 0:
            spawn.wait(self.worker)
            files.close(self.worker_fd)
            self.worker_fd = -1

    def again(self, settings: Settings, preserve_fds: int) -> None:
        """End it, and begin with another sealed interpreter in its place."""
        self.kill()
        passed = preserve_fds + self.listen_fds
        middle, end = boot.start(settings.import_path, passed, self.holes)
        self._begin(middle, channel.Channel(end))
        if self.descriptors:
            raise_descriptors(middle, self.descriptors)

    def kill(self) -> None:
        """End it whatever it does, and reap it."""
        self.channel.close()
        for pid in (self.middle, self.worker if self.worker_fd >= 0 else 0, self.pid):
            if pid:
                try:
                    processes.kill(pid, processes.SIGKILL)
                    spawn.wait(pid)
                except (ProcessLookupError, ChildProcessError):
                    continue
        self.middle = self.worker = self.pid = 0


# What the next process may send before the one that has cloned it has said so.
_OVERTAKING: Final = (
    channel.MAP, channel.MADE, channel.SOURCES, channel.HOOKS, channel.PID, channel.LISTENER,
    channel.READY,
)  # fmt: skip


def _named(payload: bytes) -> tuple[int, bool, bool]:
    """Return (pid, whether in its cgroups, whether the frame is whole)."""
    if len(payload) != calcsize(channel.PID_FRAME):
        return 0, False, False
    pid, in_cgroup = unpack(channel.PID_FRAME, payload)
    return pid, in_cgroup, pid > 1


def error_of(payload: bytes, kind: int = channel.ERROR) -> Error:
    """Return the error that init has sent: text, NUL, hint, NUL, step."""
    return (Full if kind == channel.FULL else Error)(*received(payload))


def ahead(settings: Settings, options: Options, operation: Callable[[Init], int]) -> int:
    """Do the operation with init, which is started unless it is already; on failure it ends."""
    listen_fds = activation.listen_fds()
    # Those that a service manager has passed come before those that the caller names.
    preserved = listen_fds + options["preserve_fds"]
    if preserved:
        boot.drop_early()  # it would close them
    holes = boot.holes(preserved) if preserved else []
    pid, line = boot.take_early() or boot.start(settings.import_path, preserved, holes)
    init = Init(pid, channel.Channel(line), listen_fds, holes)
    try:
        status = operation(init)
        init.channel.close()
        return status
    except BaseException:
        init.kill()
        raise


def hand_over(init: Init, plan: Plan, fds: Sequence[int], settings: Settings) -> None:
    """Send the plan with the descriptors that it counts on."""
    extra = []
    plan["trace"] = None
    if settings.trace:
        from ..linux import trace

        plan["trace"] = (settings.trace_format, trace.trace_id())
        extra.append(trace.fd())
    init.sources = {step[2]: step[1:] for step in plan.get("prepare", ()) if step[0] == "source"}
    init.filters_late = any(step[0] == "seccomp" for step in plan.get("born", ()))
    data = marshal.dumps(plan)  # type: ignore[arg-type]
    init.send(channel.PLAN, data, [*fds, *extra])


def adjust(init: Init, config: Config, rootless: bool) -> None:
    """Do for init what only the host side may: the OOM score."""
    process = config.get("process") or {}
    score = process.get("oomScoreAdj")
    if score is None:
        return
    try:
        files.write_file(f"/proc/{init.pid}/oom_score_adj", str(score))
    except OSError as error:
        if not rootless or error.errno not in (EACCES, EPERM):
            raise Error(
                f"process.oomScoreAdj: write {score}: {strerror(error.errno or 0)}"
            ) from None
        log.warn(f"process.oomScoreAdj: {reason(error)}")


def must_raise(process: Process) -> bool:
    """Tell whether a hard limit is above ours: init waits then for `raise_limits`."""
    limits = process.get("rlimits")
    if not limits:
        return False
    from ..linux import tasks
    from ..model.execution import RLIMITS

    return any(limit["hard"] > tasks.getrlimit(RLIMITS.index(limit["type"]))[1] for limit in limits)


def raise_limits(pid: int, process: Process) -> None:
    """Raise hard resource limits that init, in a user namespace, could not raise itself."""
    limits = process.get("rlimits")
    if not limits:
        return
    from ..linux import tasks
    from ..model.execution import RLIMITS

    for index, limit in enumerate(limits):
        kind = RLIMITS.index(limit["type"])
        soft_now, hard_now = tasks.getrlimit(kind, pid)
        if limit["hard"] > hard_now:
            try:
                tasks.setrlimit(kind, soft_now, limit["hard"], pid)
            except OSError as error:
                raise Error(
                    f"process.rlimits[{index}]: error setting rlimit type {kind}: {reason(error)}",
                    "a hard limit above the caller's needs CAP_SYS_RESOURCE",
                ) from None


def raise_descriptors(pid: int, limit: tuple[int, int]) -> None:
    """Raise the soft limit of open files to the hard one, ours and that of a process."""
    from ..linux import tasks
    from ..linux.const import RLIMIT_NOFILE

    for each in (0, pid):
        tasks.setrlimit(RLIMIT_NOFILE, limit[1], limit[1], each)


def _is_special(path: str) -> bool:
    try:
        kind = files.kind(files.stat(path))
    except OSError:
        return False
    return kind not in (files.S_IFREG, files.S_IFDIR)


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid to the file of --pid-file."""
    try:
        _write_pid_file(path, pid)
    except OSError as error:
        raise Error(f"--pid-file: {path}: {strerror(error.errno or 0)}") from None


def _write_pid_file(path: str, pid: int) -> None:
    """Write the pid without a newline; the file appears whole (written aside, renamed).

    A device, a pipe or a terminal that is there is written to, and stays.
    """
    if _is_special(path):
        flags = files.O_WRONLY | files.O_NOCTTY | files.O_NONBLOCK
        fd = files.open(path, flags)
        try:
            files.write_all(fd, str(pid).encode())
        except OSError as error:
            raise Error(f"--pid-file: write {path}: {strerror(error.errno or 0)}") from None
        finally:
            files.close(fd)
        return
    directory, slash, name = path.rpartition("/")
    temporary = f"{directory}{slash}.{name}"
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
    try:
        fd = files.open(temporary, flags, 0o644)
    except FileExistsError:
        # Left by a runtime that was killed, or put there by somebody: never written through.
        files.unlink(temporary)
        fd = files.open(temporary, flags, 0o644)
    try:
        files.write_all(fd, str(pid).encode())
    finally:
        files.close(fd)
    entries.rename(temporary, path)
