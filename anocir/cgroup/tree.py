"""Directories of a cgroup hierarchy: make, remove, and the processes in them.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/cgroups.rst.  What is made
is known before (`missing`, written to the state), so that a removal after a crash takes away
exactly that.

A container that may write to its cgroups can make thousands of levels below them, of names so
long that no path reaches the last.  So whatever goes down does it by descriptors, one level at a
time, holding one of them, and comes back by "..": the kernel moves no cgroup to another parent.
"""

from __future__ import annotations

from ..linux.errnos import EBUSY, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP, EROFS
from time import monotonic, sleep


from ..errors import Error, strerror
from ..linux import files
from ..linux import processes as pidfds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Final

# How long a removal waits for processes to go away.  Also for those that cgroup.procs lists no
# more: a process that exits holds its cgroup until it has given back all else.
PATIENCE: Final = 10.0
# And for processes that live on, as somebody else's do, once they have been seen twice.
STRANGERS: Final = 1.0
SIGKILL: Final = 9
_GONE: Final = (ENOENT, ENODEV)
_AT_ONCE: Final = 32  # pidfds


def missing(mountpoint: str, path: str) -> int:
    """Return how many directories at the end of `path` are not there yet."""
    count = 0
    while path and not files.exists(mountpoint + path):
        count += 1
        path = path[: path.rindex("/")]
    return count


def make(directory: str, mountpoint: str) -> bool:
    """Make a directory and the parents it lacks; False when it was there.

    A parent can vanish between two calls, when the last other container in it is deleted.
    """
    lacking = [directory]
    for _ in range(100):
        try:
            while lacking:
                files.mkdir(lacking[-1])
                lacking.pop()
            return True
        except FileExistsError:
            if len(lacking) == 1:
                return False
            lacking.pop()
        except FileNotFoundError:
            parent = lacking[-1][: lacking[-1].rindex("/")]
            while len(parent) > len(mountpoint) and not files.exists(parent):
                lacking.append(parent)
                parent = parent[: parent.rindex("/")]
            if not files.exists(mountpoint):
                raise
        except OSError as error:
            if error.errno != EROFS:
                raise
            raise Error(
                f"make cgroup {directory}: {strerror(EROFS)}",
                "mount the cgroup file system for writing, or use --cgroup-manager=disabled",
            ) from None
    raise Error(f"make cgroup {directory}: its parent directory keeps vanishing")


def _below(fd: int) -> list[str]:
    """Return the names of the cgroups directly below an open one."""
    # A cgroup directory has one link for itself, its name and each child.
    return [] if files.fstat(fd).st_nlink == 2 else files.subdirectories(fd)


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


def in_use(directory: str) -> Error | None:
    """Return the error for a cgroup that was there before and whose processes are not ours."""
    pids = processes(directory)
    if pids:
        return Error(
            f"container's cgroup is not empty: {len(pids)} process(es) found in {directory}"
        )
    return None


def frozen(directory: str, mountpoint: str) -> None:
    """Raise Error when nothing would run in a cgroup, since it or one above it is frozen.

    `freezer.state` of version 1 and `cgroup.events` of version 2 tell of those above as well.
    """
    for file, own, words in (
        ("cgroup.events", "cgroup.freeze", (b"frozen 1",)),
        ("freezer.state", "freezer.self_freezing", (b"FROZEN", b"FREEZING")),
    ):
        try:
            fd = files.open(f"{directory}/{file}", files.O_RDONLY)
        except OSError:
            continue
        try:
            told = files.read(fd, 256)
        finally:
            files.close(fd)
        if not any(word in told for word in words):
            return
        above = directory
        while len(above) > len(mountpoint) and not _says_one(f"{above}/{own}"):
            above = above.rpartition("/")[0]
        where = above if above == directory else f"{above}, above {directory}"
        raise Error(f"container's cgroup unexpectedly frozen: {where}")


def _says_one(file: str) -> bool:
    try:
        return files.read_file(file).strip() == b"1"
    except OSError:
        return False


def taken(directory: str, made: int) -> Error | None:
    """Return why a cgroup that is there cannot be used; `made` says what was missing before."""
    if made:
        return Error(f"make cgroup {directory}: someone else made it at the same time")
    return in_use(directory)


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


def sub_cgroups(subs: list[str], controllers: set[str]) -> dict[str, str]:
    """Return the paths below the container's cgroups by controller, "*" for all others."""
    result = {}
    for sub in subs:
        names, colon, path = sub.rpartition(":")
        words = [word for word in path.split("/") if word not in ("", ".")]
        if ".." in words:
            raise Error(f"--cgroup {sub}: bad sub cgroup path, it leads out of the container's")
        below = "".join(f"/{word}" for word in words)
        for name in names.split(",") if colon else ["*"]:
            if name != "*" and name not in controllers:
                raise Error(f"--cgroup {sub}: unknown controller {name!a} in the container")
            result[name] = below
    return result


def remove(directories: list[tuple[str, int]], patience: float = PATIENCE) -> None:
    """Remove cgroups: (directory, how many at its end were made by us) each.

    A cgroup that is busy is tried again with growing pauses, `patience` seconds for all together;
    then the error names the processes in it.  Parents that others use by now stay.  What fails
    in one hierarchy keeps nothing in the others; the first failure is raised.
    """
    deadline = monotonic() + patience
    failure: Exception | None = None
    for directory, made in directories:
        if made <= 0:
            continue
        try:
            _remove(directory, deadline)
            parent = directory
            for _ in range(made - 1):
                parent = parent[: parent.rindex("/")]
                if not _rmdir(parent):
                    break
        except (Error, OSError) as error:
            failure = failure or error
    if failure:
        raise failure


def _rmdir(path: str, dir_fd: int | None = None) -> bool:
    """Remove a directory: whether it is gone now.  Raises OSError for another reason than use."""
    try:
        files.rmdir(path, dir_fd)
    except OSError as error:
        if error.errno in (EBUSY, ENOTEMPTY):
            return False
        # A file system that is read-only says so also of what is not there.
        if error.errno not in _GONE and (error.errno != EROFS or files.exists(path, dir_fd)):
            raise
    return True


def _remove(directory: str, deadline: float) -> None:
    pause = 0.01
    before: list[int] = []
    while not _rmdir(directory):
        if not _remove_below(directory) and _rmdir(directory):
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
        left = not _rmdir(name, parent_fd) or left

    for _ in walk(directory, leave):
        pass
    return left
