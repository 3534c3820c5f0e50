"""Wait for a process in the foreground: its terminal, its signals, its exit status.

Side: host.  Source: signalfd(2), pty(7).
"""

from __future__ import annotations

import _signal
import select

import posix

from ..linux import files, processes, spawn, tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from ..model.schema import Config, Process


# What the kernel sends for a fault of ours, and what cannot be blocked, is not forwarded; nor is
# SIGTTOU, which has to stop us should we set a terminal that a shell is just taking back.
_NOT_FORWARDED: Final = {
    int(number)
    for number in (
        _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGILL,
        _signal.SIGFPE, _signal.SIGTRAP, _signal.SIGABRT, _signal.SIGSYS, _signal.SIGTTOU,
        *spawn.RESERVED,
    )
}  # fmt: skip
_FORWARDED: Final = [n for n in range(1, 65) if n not in _NOT_FORWARDED]
# Not for the process: our own children, our own terminal (an httpd stops on SIGWINCH), urgent data.
_OURS: Final = {int(_signal.SIGCHLD), int(_signal.SIGURG), int(_signal.SIGWINCH)}


def block_signals() -> None:
    """Block the signals that `Watcher` forwards, before there is a process to forward them to."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _FORWARDED)


def pipes(config: Config, process: Process | None, fds: Sequence[int] = (0, 1, 2)) -> Any:
    """Return the `streams.Streams` that a process without a terminal gets, or None.

    For those of `fds` that are the caller's terminals and devices.  Its own pipes, sockets and
    files it hands on as they are, and for the null device init takes one of the container's.
    """
    if not process or process.get("terminal"):
        return None
    piped = [fd for fd in fds if not _handed_on(files.fstat(fd))]
    if not piped:
        return None
    from . import streams

    return streams.Streams(piped, streams.root_of(config))


def _handed_on(found: posix.stat_result) -> bool:
    regular = files.kind(found) in (files.S_IFIFO, files.S_IFSOCK, files.S_IFREG)
    return regular or files.device(found) == files.NULL_DEVICE


# How soon we see that a shell has made us the foreground without a SIGCONT, as bash does.
_GLANCE: Final = 200  # milliseconds


class Watcher:
    """Forwards signals and what goes through the terminal until the process has ended."""

    __slots__ = ("ended", "notify", "pid", "pidfd", "relay", "signals", "streams")

    def __init__(self, pid: int, pidfd: int, master: int = -1, streams: Any = None) -> None:
        """Take a child of ours, its pidfd, the master of its terminal or -1, its pipes or None."""
        self.pid = pid
        self.pidfd = pidfd
        self.signals = tasks.signalfd(sum(1 << (number - 1) for number in _FORWARDED))
        # Whether there is no more input.
        self.ended = False
        self.relay: Any = None
        if master >= 0:
            from . import relay

            self.relay = relay.Relay(master)
        self.streams = streams
        # A notify.Proxy until the container is ready.
        self.notify: Any = None

    def close(self) -> None:
        """Restore the caller's terminal."""
        if self.relay is not None:
            self.relay.restore()

    def wait(self) -> int:
        """Return the exit status of the process, 128 + N for signal N."""
        poll = select.poll()
        poll.register(self.signals, select.POLLIN)
        if self.notify is not None:
            poll.register(self.notify, select.POLLIN)
        if self.relay is not None:
            self._listen(poll)
            poll.register(self.relay.master, select.POLLIN)
        if self.streams is not None:
            self.streams.register(poll)
        status = self._reap()
        while status is None:
            patience = self.streams.wake(poll) if self.streams is not None else None
            if behind := self.relay is not None and not self.relay.front:
                patience = _GLANCE
            for fd, events in poll.poll(patience):
                if fd == self.signals:
                    self._signals(poll)
                elif self.notify is not None and fd == self.notify.fileno():
                    if self.notify.receive(self.pid):
                        poll.unregister(fd)
                        self.notify.close()
                        self.notify = None
                elif self.relay is not None:
                    self._relay(poll, fd, events)
                elif self.streams is not None:
                    self.streams.serve(poll, fd)
            if behind:
                self._continue(poll)
            status = self._reap()
        if self.notify is not None:
            self.notify.receive(self.pid)  # what it said last of all
        if self.relay is not None:
            self._drain(self.relay)
        if self.streams is not None:
            self.streams.drain()
        return status

    def _listen(self, poll: Any) -> None:
        """Wait for input, unless it is that of a terminal which is not ours now."""
        if self.ended or self.relay.pending:
            return
        if self.relay.listens():
            poll.register(0, select.POLLIN)
        else:
            poll.register(0, 0)

    def _continue(self, poll: Any) -> None:
        """Take the terminal if it is ours now, or let go of it."""
        self.relay.take()
        self._listen(poll)

    def _signals(self, poll: Any) -> None:
        data = files.read(self.signals, 128 * 16)
        for offset in range(0, len(data), 128):
            number = int.from_bytes(data[offset : offset + 4], "little")
            if number == _signal.SIGPIPE and _sender(data, offset) == posix.getpid():
                continue  # for what we wrote ourselves
            if number == _signal.SIGWINCH and self.relay is not None:
                self.relay.resize()
                continue
            if number == _signal.SIGCONT and self.relay is not None:
                self._continue(poll)
            if number not in _OURS:
                try:
                    processes.pidfd_send_signal(self.pidfd, number)
                except ProcessLookupError:
                    continue

    def _reap(self) -> int | None:
        """Reap what has ended; return the status of our process once it has."""
        result = None
        while True:
            try:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return result
            if pid == 0:
                return result
            if pid == self.pid:
                result = spawn.exit_code(status)

    def _relay(self, poll: Any, fd: int, events: int) -> None:
        relay = self.relay
        if relay is None:
            return
        if fd == 0:
            if not relay.listens() and not events & select.POLLHUP:
                return  # it was taken from us together with this event
            if not relay.input():
                self.ended = True
                poll.unregister(0)
                return
            # Nothing more is read until the container's terminal has taken this.
            poll.unregister(0)
            poll.modify(relay.master, select.POLLIN | select.POLLOUT)
            return
        if events & select.POLLOUT:
            relay.flush()
            if not relay.pending:
                poll.modify(relay.master, select.POLLIN)
                self._listen(poll)
        if events & (select.POLLIN | select.POLLHUP) and not relay.output():
            poll.unregister(relay.master)

    @staticmethod
    def _drain(relay: Any) -> None:
        """Write out what the process has left in its terminal."""
        while True:
            try:
                if not relay.output():
                    return
            except BlockingIOError:
                return


def _sender(data: bytes, offset: int) -> int:
    """Return ssi_pid of a signalfd_siginfo: the kernel's SIGPIPE names its own receiver."""
    return int.from_bytes(data[offset + 12 : offset + 16], "little")
