"""The host side of create, run and exec: start init, hand it the plan, answer it.

Side: host.  How it is started, and from what, is in boot.py.
"""

from __future__ import annotations

import marshal

from ..base import activation, log
from . import boot
from ..wire import channel
from ..errors import Error, reason, strerror
from ..linux import files, processes
from ..linux.const import EACCES, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..wire.channel import Channel
    from ..cli import Options, Settings


class Init:
    """The process being made: first the middle process, then the container's init."""

    __slots__ = (
        "born_in", "channel", "console", "early", "gone", "holes", "in_cgroup", "killed",
        "listen_fds", "middle", "middle_fd", "pid", "pidfd", "start_time", "waiting",
    )  # fmt: skip

    def __init__(
        self, middle: int, line: Channel, listen_fds: int, holes: Sequence[int] = ()
    ) -> None:
        """Take the pid of the sealed interpreter, our end of its channel, LISTEN_FDS."""
        self.listen_fds = listen_fds
        # Descriptors among those to pass on that the caller has not open.
        self.holes = list(holes)
        self.middle = middle
        self.middle_fd = -1
        self.channel = line
        self.pid = 0
        self.pidfd = -1
        self.start_time = 0
        self.in_cgroup = False
        # The detached mount of the cgroup that init is born in (create.send_cgroups).
        self.born_in = -1
        # The master of the terminal and its name, once init has sent it.
        self.console: tuple[int, str] | None = None
        # A frame that init has sent before the middle process has sent the pid.
        self.early: tuple[int, bytes] | None = None
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
            self.gone, self.early = True, None
            self.expect(-1, self.waiting)

    def expect(self, wanted: int, waiting: str) -> bytes:
        """Return the payload of the frame that must come next, after warnings and the console.

        Raises Error with init's own words, or with how it died and what it was doing.
        """
        self.waiting = waiting
        while True:
            if self.early and wanted != channel.PID:
                kind, payload = self.early
                self.early = None
            else:
                self._watch_middle()
                kind, payload = self.channel.receive()
            if kind == wanted:
                return payload
            if kind == channel.LOG:
                log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
            elif kind == channel.CONSOLE:
                self.console = self.channel.fds.pop(), payload.decode()
            elif kind == channel.ERROR:
                raise error_of(payload)
            elif wanted == channel.PID and kind in (channel.HOOKS, channel.READY):
                self.early = kind, payload  # init was faster than the middle process
            elif kind == 0:
                raise Error(f"init died while {waiting} ({self._end()})")
            else:
                raise Error(f"unexpected frame {kind} while {waiting}")

    def _watch_middle(self) -> None:
        """Wait for a frame or for the end of the middle process.

        When it dies right after it has cloned init, init keeps the channel open, so that there
        is no end of file; closing our end lets init go.
        """
        if self.pid or self.channel.buffer:
            return
        import select

        if self.middle_fd < 0:
            self.middle_fd = processes.pidfd_open(self.middle)
        poll = select.poll()
        poll.register(self.channel.sock, select.POLLIN)
        poll.register(self.middle_fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        if ready == [self.middle_fd]:
            # It may have sent its last frame between our two looks.
            poll.unregister(self.middle_fd)
            if not poll.poll(0):
                raise Error(f"init died while {self.waiting} ({self._end()})")

    def _end(self) -> str:
        """Say how the process ended."""
        pid = self.pid or self.middle
        try:
            status = processes.wait(pid)
        except ChildProcessError:
            return "its parent has reaped it"
        self.killed = status == 128 + processes.SIGKILL
        return f"signal {status - 128}" if status > 128 else f"exit status {status}"

    def adopt(self, payload: bytes) -> None:
        """Take the pid of init from the middle process, which is about to end."""
        self.pid, self.in_cgroup = marshal.loads(payload)
        self.pidfd = processes.pidfd_open(self.pid)
        self.start_time = processes.stat(self.pid)[3]

    def reap_middle(self) -> None:
        """Wait for the end of the middle process, which has nothing to do any more.

        And close the cgroup now that both have: who closes a detached mount last waits for a
        grace period of RCU, and init is the one who has no time.
        """
        middle, self.middle = self.middle, 0
        processes.wait(middle)
        if self.born_in >= 0:
            files.close(self.born_in)
            self.born_in = -1
        if self.middle_fd >= 0:
            files.close(self.middle_fd)
            self.middle_fd = -1

    def kill(self) -> None:
        """End it whatever it does, and reap it."""
        self.channel.close()
        for pid in (self.middle, self.pid):
            if pid:
                try:
                    processes.kill(pid, processes.SIGKILL)
                    processes.wait(pid)
                except (ProcessLookupError, ChildProcessError):
                    continue
        self.middle = self.pid = 0


def error_of(payload: bytes) -> Error:
    """Return the error that init has sent: text, NUL, hint."""
    text, _, hint = payload.decode("utf-8", "surrogateescape").partition("\0")
    return Error(text, hint)


def ahead(settings: Settings, options: Options, operation: Callable[[Init], int]) -> int:
    """Do the operation with init, which is started unless it is already; on failure it ends."""
    listen_fds = activation.listen_fds()
    # Those that a service manager has passed come before those that the caller names.
    preserved = listen_fds + options["preserve_fds"]
    if preserved:
        boot.drop_early()  # it would close them
    holes = boot.holes(preserved) if preserved else []
    pid, line = boot.take_early() or boot.start(settings.import_path, preserved, holes)
    init = Init(pid, channel.of(line), listen_fds, holes)
    try:
        status = operation(init)
        init.channel.close()
        return status
    except BaseException:
        init.kill()
        raise


def hand_over(init: Init, plan: dict[str, Any], fds: Sequence[int], settings: Settings) -> None:
    """Send the plan with the descriptors that it counts on."""
    extra = []
    plan["trace"] = None
    if settings.trace:
        from ..linux import trace

        plan["trace"] = (settings.trace_format, trace.trace_id())
        extra.append(trace.fd())
    init.send(channel.PLAN, marshal.dumps(plan), [*fds, *extra])


def adjust(init: Init, config: dict[str, Any], rootless: bool) -> None:
    """Do for init what only the host side may: the OOM score, hard limits above ours."""
    process = config.get("process") or {}
    score = process.get("oomScoreAdj")
    if score is not None:
        try:
            files.write_file(f"/proc/{init.pid}/oom_score_adj", str(score))
        except OSError as error:
            if not rootless or error.errno not in (EACCES, EPERM):
                raise Error(
                    f"process.oomScoreAdj: write {score}: {strerror(error.errno or 0)}"
                ) from None
            log.warn(f"process.oomScoreAdj: {reason(error)}")
    raise_limits(init.pid, process)


def raise_limits(pid: int, process: dict[str, Any]) -> None:
    """Raise hard resource limits that init, in a user namespace, could not raise itself."""
    limits = process.get("rlimits")
    if not limits:
        return
    from ..linux import tasks
    from ..model.spec.process import RLIMITS

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


RLIMIT_NOFILE = 7  # asm-generic/resource.h


def raise_descriptors(pid: int, limit: tuple[int, int]) -> None:
    """Raise the soft limit of open files to the hard one, ours and that of a process."""
    from ..linux import tasks

    for each in (0, pid):
        tasks.setrlimit(RLIMIT_NOFILE, limit[1], limit[1], each)


def _is_special(path: str) -> bool:
    try:
        kind = files.stat(path).st_mode & files.S_IFMT
    except OSError:
        return False
    return kind not in (files.S_IFREG, files.S_IFDIR)


def write_pid_file(path: str, pid: int) -> None:
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
    files.rename(temporary, path)
