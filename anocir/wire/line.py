"""What frames there are, and frames by read(2) and write(2): all that start and kill need.

Side: host and init.  Who sends which frame when is drawn in channel.py, which has the socket.
"""

from __future__ import annotations

import select
from sys import byteorder

from ..errors import Error
from ..linux import files, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

PLAN: Final = 1
MAP: Final = 2
MAPPED: Final = 3
PID: Final = 4
CGROUP: Final = 16
GO: Final = 5
HOOKS: Final = 6
DONE: Final = 7
CONSOLE: Final = 8
READY: Final = 9
COMMIT: Final = 10
START: Final = 11
EXEC: Final = 12
ERROR: Final = 13
LOG: Final = 14
LISTENER: Final = 15
WORKER: Final = 17
MADE: Final = 18
FULL: Final = 19
END: Final = 20
SOURCES: Final = 21
OPENED: Final = 22

_STOPPED_PATIENCE = 10  # seconds


class Line:
    """Frames by read(2), write(2) and close(2) alone, which a container's filter surely allows."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        """Take descriptors, which may be one and the same."""
        self.read_fd = read_fd
        self.write_fd = write_fd

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame.  Raises OSError when nobody is there to read it."""
        header = len(payload).to_bytes(4, byteorder) + bytes([kind])
        files.write_all(self.write_fd, header + payload)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame as (kind, payload); (0, b"") at the end of the stream."""
        header = self._take(5)
        if len(header) < 5:
            return 0, b""
        size, kind = int.from_bytes(header[:4], byteorder), header[4]
        payload = self._take(size)
        return (kind, payload) if len(payload) == size else (0, b"")

    def _take(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = files.read(self.read_fd, size - len(data))
            if not part:
                break
            data += part
        return data

    def close(self) -> None:
        """Close both; a filter that forbids it leaves it to execve(2)."""
        for fd in {self.read_fd, self.write_fd}:
            try:
                files.close(fd)
            except OSError:
                continue


def wait_unless_stopped(fd: int, pid: int, what: str) -> None:
    """Wait until `fd` can be read; raises Error when the process is kept stopped meanwhile.

    Side: host.  A process of the container may stop others of its user in its pid namespace.
    """
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    stopped = 0
    while not poll.poll(1000):
        try:
            stopped = stopped + 1 if processes.stat(pid)[1] in "tT" else 0
        except OSError:
            continue
        if stopped >= _STOPPED_PATIENCE:
            raise Error(
                f"process {pid} has been stopped for {stopped} seconds while {what}",
                "by whom may signal or trace it: a process of the container?",
            )
