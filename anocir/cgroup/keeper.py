"""A process that does nothing but be in a cgroup, until it is ended.

Side: host, cold: only the systemd manager uses it, which can start a unit with a process alone.
"""

from __future__ import annotations

import _signal

import posix

from ..linux import processes, spawn, tasks
from ..linux.const import PR_SET_PDEATHSIG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def start() -> int:
    """Start it and return its pid.  It has no descriptor, takes no signal, and ends with us."""
    parent = posix.getpid()
    # Before it is there: no handler of the interpreter's may run in it.
    mask = _signal.pthread_sigmask(_signal.SIG_BLOCK, spawn.ALL_SIGNALS)
    try:
        pid = tasks.clone()
        if pid == 0:
            _keep(parent)
    finally:
        _signal.pthread_sigmask(_signal.SIG_SETMASK, mask)
    return pid


def _keep(parent: int) -> NoReturn:
    try:
        tasks.prctl(PR_SET_PDEATHSIG, processes.SIGKILL)
        # The caller's lock and the channel to init end with us, and not with this one.
        tasks.close_range(0, 0xFFFFFFFF)
        while posix.getppid() == parent:  # else it was gone before we could ask for the signal
            _signal.pause()
    finally:
        posix._exit(1)


def end(pid: int) -> None:
    """End and reap it."""
    processes.kill(pid, processes.SIGKILL)
    spawn.wait(pid)
