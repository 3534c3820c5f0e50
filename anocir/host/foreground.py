"""Wait for a process in the foreground: its terminal, its signals, its exit status.

Side: host.  Source: signalfd(2), pty(7).
"""

from __future__ import annotations

import _signal
import select

import posix

from ..linux import files, processes, tasks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final


# What the kernel sends for a fault of ours, and what cannot be blocked, is not forwarded.
_NOT_FORWARDED: Final = {
    int(number)
    for number in (
        _signal.SIGKILL, _signal.SIGSTOP, _signal.SIGSEGV, _signal.SIGBUS, _signal.SIGILL,
        _signal.SIGFPE, _signal.SIGTRAP, _signal.SIGABRT, _signal.SIGSYS,
        *processes.RESERVED,
    )
}  # fmt: skip
_FORWARDED: Final = [n for n in range(1, 65) if n not in _NOT_FORWARDED]
# Not for the process: our own children, our own terminal (an httpd stops on SIGWINCH), urgent data.
_OURS: Final = {int(_signal.SIGCHLD), int(_signal.SIGURG), int(_signal.SIGWINCH)}


def block_signals() -> None:
    """Block the signals that `Watcher` forwards, before there is a process to forward them to."""
    _signal.pthread_sigmask(_signal.SIG_BLOCK, _FORWARDED)


class Watcher:
    """Forwards signals and the terminal until the process has ended."""

    __slots__ = ("notify", "pid", "pidfd", "relay", "signals")

    def __init__(self, pid: int, pidfd: int, master: int = -1) -> None:
        """Take a child of ours, its pidfd, and the master of its terminal or -1."""
        self.pid = pid
        self.pidfd = pidfd
        self.signals = tasks.signalfd(sum(1 << (number - 1) for number in _FORWARDED))
        self.relay: Any = None
        if master >= 0:
            from . import relay

            self.relay = relay.Relay(master)
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
            poll.register(0, select.POLLIN)
            poll.register(self.relay.master, select.POLLIN)
        status = self._reap()
        while status is None:
            for fd, events in poll.poll():
                if fd == self.signals:
                    self._signals()
                elif self.notify is not None and fd == self.notify.fileno():
                    if self.notify.receive(self.pid):
                        poll.unregister(fd)
                        self.notify.close()
                        self.notify = None
                elif self.relay is not None:
                    self._relay(poll, fd, events)
            status = self._reap()
        if self.notify is not None:
            self.notify.receive(self.pid)  # what it said last of all
        if self.relay is not None:
            self._drain(self.relay)
        return status

    def _signals(self) -> None:
        data = files.read(self.signals, 128 * 16)
        for offset in range(0, len(data), 128):
            number = int.from_bytes(data[offset : offset + 4], "little")
            if number == _signal.SIGWINCH and self.relay is not None:
                self.relay.resize()
            elif number not in _OURS:
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
                result = processes.exit_code(status)

    def _relay(self, poll: Any, fd: int, events: int) -> None:
        relay = self.relay
        if relay is None:
            return
        if fd == 0:
            if not relay.input():
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
                poll.register(0, select.POLLIN)
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
