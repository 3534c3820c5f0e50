"""Directories of a cgroup hierarchy: those below one, and the processes in them.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/cgroups.rst.  `making`
makes them, `removal` takes them away.

A container that may write to its cgroups can make thousands of levels below them, of names so
long that no path reaches the last.  So whatever goes down does it by descriptors, one level at a
time, holding one of them, and comes back by "..": the kernel moves no cgroup to another parent.
"""

from __future__ import annotations

from time import monotonic, sleep

from ..errors import Error, strerror
from ..linux import entries, files
from ..linux import processes as pidfds
from ..linux.errnos import EBUSY, ENODEV, ENOENT, EOPNOTSUPP
from . import removal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

SIGKILL: Final = 9
# And for processes that live on, as somebody else's do, once they have been seen twice.
STRANGERS: Final = 1.0
_GONE: Final = (ENOENT, ENODEV)
_AT_ONCE: Final = 32  # pidfds


def _below(fd: int) -> list[str]:
    """Return the names of the cgroups directly below an open one."""
    # A cgroup directory has one link for itself, its name and each child.
    return [] if files.fstat(fd).st_nlink == 2 else entries.subdirectories(fd)


def walk(directory: str, leave: Callable[[str, int], None] | None = None) -> Iterator[int]:
    """Yield a descriptor of a cgroup and of each one below it, parents first; none if it is gone.

    A descriptor is good until the next one is asked for.  `leave` is called with the name of a
    cgroup, and a descriptor of its parent, when all below it have been visited.
    """
    flags = files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW
    try:
        fd = files.open(directory, flags)
    except FileNotFoundError:
        return
    names: list[str] = []
    waiting: list[list[str]] = []
    try:
        yield fd
        waiting.append(_below(fd))
        while True:
            if waiting[-1]:
                name = waiting[-1].pop()
                try:
                    following = files.open(name, flags, dir_fd=fd)
                except FileNotFoundError:
                    continue
                files.close(fd)
                fd = following
                names.append(name)
                yield fd
                waiting.append(_below(fd))
                continue
            waiting.pop()
            if not waiting:
                return
            following = files.open("..", flags, dir_fd=fd)
            files.close(fd)
            fd = following
            if leave:
                leave(names[-1], fd)
            names.pop()
    finally:
        files.close(fd)


def processes(directory: str) -> list[int]:
    """Return the host pids in a cgroup and all below it, without those of other namespaces.

    A threaded cgroup (v2) does not say which processes are in it: the threads in it do.
    """
    pids: list[int] = []
    for fd in walk(directory):
        try:
            data = files.read_file("cgroup.procs", fd)
        except OSError as error:
            if error.errno == EOPNOTSUPP:
                pids += _of_threads(fd)
                continue
            if error.errno in _GONE:
                continue
            raise
        pids += [int(word) for word in data.split()]
    return [pid for pid in dict.fromkeys(pids) if pid > 0]


def _of_threads(fd: int) -> list[int]:
    """Return the processes that the threads of a cgroup belong to: proc_pid_status(5), Tgid."""
    pids = []
    for thread in files.read_file("cgroup.threads", fd).split():
        try:
            status = files.read_file(b"/proc/" + thread + b"/status")
        except OSError:
            continue  # it has ended, or is of another namespace (0)
        pids.append(int(status.partition(b"\nTgid:")[2].split(None, 1)[0]))
    return pids


def signal_all(directory: str, signal: int, mine: Callable[[int], bool] | None = None) -> int:
    """Send a signal to each process of a cgroup that is `mine`; return how many there were.

    A number may be another process's by now, of the host as well: so it is held, and signalled
    where it is in the cgroup still.
    """
    pids = processes(directory)
    count = 0
    for first in range(0, len(pids), _AT_ONCE):
        held = _held(pids[first : first + _AT_ONCE])
        try:
            there = set(processes(directory)) if held else ()
            for pid, pidfd in held:
                if pid in there and (mine is None or mine(pid)):
                    count += 1
                    _signal(pidfd, signal)
        finally:
            for _, pidfd in held:
                files.close(pidfd)
    return count


def _held(pids: Sequence[int]) -> list[tuple[int, int]]:
    """Return these processes with a pidfd each, but for those that have gone."""
    held: list[tuple[int, int]] = []
    for pid in pids:
        try:
            held.append((pid, pidfds.pidfd_open(pid)))
        except ProcessLookupError:
            continue
    return held


def _signal(pidfd: int, number: int) -> None:
    try:
        pidfds.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def kill_all(directory: str) -> bool:
    """Kill a whole cgroup at once; False where the kernel has no cgroup.kill (before 5.14)."""
    try:
        files.write_file(f"{directory}/cgroup.kill", "1")
    except OSError as error:
        if error.errno in (*_GONE, EOPNOTSUPP):
            return False
        raise
    return True


def thaw_all(directory: str) -> None:
    """Thaw a v1 cgroup and those below it that were frozen on their own."""
    for fd in walk(directory):
        try:
            files.write_file("freezer.state", "THAWED", fd)
        except OSError as error:
            if error.errno not in _GONE:
                raise


def _is_dying(pid: int) -> bool:
    """Tell whether a process is gone, or hangs in the kernel: proc_pid_stat(5), state."""
    try:
        stat = files.read_file(f"/proc/{pid}/stat")
    except OSError:
        return True
    return stat[stat.rindex(b")") + 2 : stat.rindex(b")") + 3] in (b"D", b"X", b"Z", b"x")


def _remove_below(directory: str) -> bool:
    """Remove what is below a cgroup, the deepest first; tell whether something is left."""
    left = False

    def leave(name: str, parent_fd: int) -> None:
        nonlocal left
        left = not removal.rmdir(name, parent_fd) or left

    for _ in walk(directory, leave):
        pass
    return left


def after(seconds: float) -> float:
    """Return the moment so many seconds from now, for `insist`."""
    return monotonic() + seconds


def insist(directory: str, deadline: float) -> None:
    """Remove a cgroup that was busy, as soon as it is empty; raises Error at the deadline."""
    pause = 0.01
    before: list[int] = []
    while not removal.rmdir(directory):
        if not _remove_below(directory) and removal.rmdir(directory):
            return
        pids = processes(directory)
        stay = [pid for pid in pids if pid in before and not _is_dying(pid)]
        if stay and stay == before:
            deadline = min(deadline, monotonic() + STRANGERS)
        before = pids
        if monotonic() > deadline:
            text = f"remove cgroup {directory}: {strerror(EBUSY)}"
            if pids:
                text += f", processes in it: {', '.join(str(pid) for pid in pids[:20])}"
                text += ", ..." if len(pids) > 20 else ""
            raise Error(text, "they may hang in the kernel (state D) or belong to someone else")
        sleep(pause)
        pause = min(pause * 2, 1.28)
