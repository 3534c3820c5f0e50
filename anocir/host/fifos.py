"""The two FIFOs between init and start, which `reserve` makes, and what start answers there.

Side: host.  exec answers the same on the channel.
"""

from __future__ import annotations

from ..base import log
from ..errors import Error, received
from ..linux import files
from ..wire import line
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Container


def open_(container: Container) -> tuple[int, int]:
    """Open what init reads and what it writes, for start.

    Raises FileNotFoundError when another start is on its way and OSError (ENXIO) when init
    has closed it.
    """
    start = _open_fifo(container, store.START, files.O_WRONLY)
    try:
        return start, _open_fifo(container, store.REPORT, files.O_RDONLY)
    except OSError:
        files.close(start)
        raise


def started(container: Container) -> None:
    """Take away what another start would need."""
    files.unlink(store.REPORT, container.dir_fd)


def _open_fifo(container: Container, name: str, flags: int) -> int:
    fd = files.open(name, flags | files.O_NONBLOCK | files.O_NOFOLLOW, dir_fd=container.dir_fd)
    if files.kind(files.fstat(fd)) != files.S_IFIFO:
        files.close(fd)
        raise FileNotFoundError(2, "open", f"{container.path}/{name}")
    return fd


def close(container: Container) -> None:
    """Take away the other one too, after `started`: the program runs, or never will."""
    store.unlink(store.START, container.dir_fd)


def serve_start(container: Container, pid: int, fd: int) -> None:
    """Answer init until execve has succeeded; raises Error when something failed before it."""
    executing = False
    while True:
        line.wait_unless_stopped(fd, pid, "starting the program")
        kind, payload = line.receive(fd)
        if kind == line.EXEC:
            executing = True
        elif kind == line.LOG:
            log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
        elif kind == line.ERROR:
            raise Error(*received(payload))
        elif kind == 0 and executing:
            return
        elif kind == 0:
            from . import oom

            raise oom.died(container)
