"""What stands in for pidfds where the kernel, or the interpreter, has none.

Side: host.
"""

from __future__ import annotations

import _signal
import select

import posix

from . import descriptors, files, processes, spawn
from .errnos import EBADF, ESRCH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_LOOK_EVERY: Final = 10  # milliseconds

# The processes behind the descriptors that stand in for pidfds: pid and start time.
_watched: dict[int, tuple[int, int]] = {}


def has_pidfds() -> bool:
    """Tell whether kernel and interpreter have pidfd_open(2), or `pidfd_open` has a stand-in."""
    try:
        posix.close(posix.pidfd_open(posix.getpid(), 0))
    except AttributeError:
        return False
    except OSError as error:
        return not files.missing(error)
    return True


def has_pidfd_getfd() -> bool:
    """Tell whether there is pidfd_getfd(2), Linux 5.6, and pidfds to ask it with."""
    from . import tasks

    try:
        tasks.pidfd_getfd(-1, 0)
    except OSError as error:
        return not files.missing(error) and has_pidfds()
    return True


def send_signal(pidfd: int, number: int) -> None:
    """Do the work of pidfd_send_signal(2) where that cannot be asked, or not with this one."""
    if is_pidfd(pidfd):
        pid = _pid_behind(pidfd)
    elif pidfd in _watched:
        pid, started = _watched[pidfd]
        if not processes.alive(pid, started):
            raise ProcessLookupError(ESRCH, "kill", str(pid))
    else:
        raise OSError(EBADF, "pidfd_send_signal", str(pidfd))
    posix.kill(pid, number)


def is_pidfd(fd: int) -> bool:
    """Tell whether a descriptor of `pidfd_open` is one that other programs can use as well."""
    return files.kind(posix.fstat(fd)) != files.S_IFIFO


def _pid_behind(pidfd: int) -> int:
    """Return the process that a pidfd refers to (proc_pid_fdinfo(5)), for a moment."""
    for line in files.read_file(f"/proc/self/fdinfo/{pidfd}").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError(ESRCH, "kill", str(pidfd))


def pidfd(pid: int) -> int:
    """Return a descriptor that is at its end once this process has exited.

    It is the end of a pipe of which a child of ours holds the other one; the child looks at the
    process, known by pid and start time, a hundred times a second, and ends when we let go.
    """
    try:
        started = processes.stat(pid)[3]
    except FileNotFoundError:
        raise ProcessLookupError(ESRCH, "pidfd_open", str(pid)) from None
    read_end, write_end = descriptors.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.setsid()  # what a terminal sends is not for us
            _signal.pthread_sigmask(_signal.SIG_BLOCK, spawn.ALL_SIGNALS)
            for name in posix.listdir("/proc/self/fd"):
                if int(name) != write_end:
                    _close_any(int(name))
            poll = select.poll()
            poll.register(write_end, 0)  # POLLERR: nobody reads any more
            while runs(pid, started) and not poll.poll(_LOOK_EVERY):
                continue
        finally:
            posix._exit(0)
    files.close(write_end)
    _watched[read_end] = pid, started
    return read_end


def runs(pid: int, started: int) -> bool:
    """Do what `alive` does with calls that `--trace`, whose file is closed, does not show."""
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY)
    except OSError:
        return False
    try:
        fields = posix.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return False
    finally:
        posix.close(fd)
    # The letter is the first thread's: with others it may end alone.
    gone = fields[0] in (b"Z", b"X") and int(fields[17]) < 2
    return not gone and int(fields[19]) == started


def _close_any(fd: int) -> None:
    try:
        posix.close(fd)
    except OSError:
        return  # it listed them
