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


def send(fd: int, kind: int, payload: bytes = b"") -> None:
    """Send one frame.  Raises OSError when nobody is there to read it."""
    header = len(payload).to_bytes(4, byteorder) + bytes([kind])
    files.write_all(fd, header + payload)


def receive(fd: int) -> tuple[int, bytes]:
    """Return the next frame as (kind, payload); (0, b"") at the end of the stream."""
    header = _take(fd, 5)
    if len(header) < 5:
        return 0, b""
    size, kind = int.from_bytes(header[:4], byteorder), header[4]
    payload = _take(fd, size)
    return (kind, payload) if len(payload) == size else (0, b"")


def _take(fd: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = files.read(fd, size - len(data))
        if not part:
            break
        data += part
    return data


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
