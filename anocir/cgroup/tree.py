"""Directories of a cgroup hierarchy: make, remove, and the processes in them.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/cgroups.rst.  What is made
is known before (`missing`, written to the state), so that a removal after a crash takes away
exactly that.
"""

from __future__ import annotations

from errno import EBUSY, ENODEV, ENOENT, ENOTEMPTY, EOPNOTSUPP
from time import monotonic, sleep

import posix

from ..errors import Error, strerror
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# How long a removal waits for processes to go away.  Also for those that cgroup.procs lists no
# more: a process that exits holds its cgroup until it has given back all else.
PATIENCE: Final = 10.0
SIGKILL: Final = 9


def missing(mountpoint: str, path: str) -> int:
    """Return how many directories at the end of `path` are not there yet."""
    count = 0
    while path and not files.exists(mountpoint + path):
        count += 1
        path = path[: path.rindex("/")]
    return count


def make(directory: str, mountpoint: str) -> bool:
    """Make a directory and the parents it lacks; False when it was there.

    A parent can vanish between the two calls, when the last other container in it is deleted.
    """
    for _ in range(100):
        try:
            files.mkdir(directory)
            return True
        except FileExistsError:
            return False
        except FileNotFoundError:
            parent = directory[: directory.rindex("/")]
            if len(parent) <= len(mountpoint):
                raise
            make(parent, mountpoint)
    raise Error(f"make cgroup {directory}: its parent directory keeps vanishing")


def children(directory: str) -> list[str]:
    """Return the paths of the cgroups directly below; nothing if there is no such cgroup."""
    try:
        # A cgroup directory has one link for itself, its name and each child.
        if files.stat(directory).st_nlink == 2:
            return []
        names = files.listdir(directory)
    except FileNotFoundError:
        return []
    return [f"{directory}/{name}" for name in names if is_directory(f"{directory}/{name}")]


def is_directory(path: str) -> bool:
    """Tell whether a path in a hierarchy is a cgroup and not a control file."""
    try:
        mode = files.lstat(path).st_mode
    except FileNotFoundError:
        return False
    return mode & files.S_IFMT == files.S_IFDIR


def in_use(directory: str) -> Error | None:
    """Return the error for a cgroup that was there before and whose processes are not ours."""
    pids = processes(directory)
    if pids:
        return Error(
            f"container's cgroup is not empty: {len(pids)} process(es) found in {directory}"
        )
    for file, value in (("freezer.state", b"THAWED"), ("cgroup.freeze", b"0")):
        try:
            if files.read_file(f"{directory}/{file}").strip() != value:
                return Error(f"container's cgroup is frozen: {directory}")
        except OSError:
            continue
    return None


def taken(directory: str, made: int) -> Error | None:
    """Return why a cgroup that is there cannot be used; `made` says what was missing before."""
    if made:
        return Error(f"make cgroup {directory}: someone else made it at the same time")
    return in_use(directory)


def processes(directory: str, file: str = "cgroup.procs") -> list[int]:
    """Return the host pids in a cgroup and all below it, without those of other namespaces."""
    try:
        data = files.read_file(f"{directory}/{file}")
    except OSError as error:
        if error.errno in (ENOENT, ENODEV):
            return []
        raise
    pids = [int(word) for word in data.split()]
    for child in children(directory):
        pids += processes(child, file)
    return [pid for pid in pids if pid > 0]


def signal_all(directory: str, signal: int) -> int:
    """Send a signal to each process of a cgroup; return how many there were."""
    pids = processes(directory)
    for pid in pids:
        try:
            posix.kill(pid, signal)
        except ProcessLookupError:
            continue
    return len(pids)


def kill_all(directory: str) -> bool:
    """Kill a whole cgroup at once; False where the kernel has no cgroup.kill (before 5.14)."""
    try:
        files.write_file(f"{directory}/cgroup.kill", "1")
    except OSError as error:
        if error.errno in (ENOENT, ENODEV, EOPNOTSUPP):
            return False
        raise
    return True


def sub_cgroups(subs: list[str], controllers: set[str]) -> dict[str, str]:
    """Return the paths below the container's cgroups by controller, "*" for all others."""
    result = {}
    for sub in subs:
        names, colon, path = sub.rpartition(":")
        words = [word for word in path.split("/") if word not in ("", ".")]
        if ".." in words:
            raise Error(f"--cgroup {sub}: must not leave the container's cgroup")
        below = "".join(f"/{word}" for word in words)
        for name in names.split(",") if colon else ["*"]:
            if name != "*" and name not in controllers:
                raise Error(f"--cgroup {sub}: the container has no cgroup controller {name!a}")
            result[name] = below
    return result


def remove(directories: list[tuple[str, int]], patience: float = PATIENCE) -> None:
    """Remove cgroups: (directory, how many at its end were made by us) each.

    A cgroup that is busy is tried again with growing pauses, `patience` seconds for all together;
    then the error names the processes in it.  Parents that others use by now stay.
    """
    deadline = monotonic() + patience
    for directory, made in directories:
        if made <= 0:
            continue
        _remove_tree(directory, deadline)
        parent = directory
        for _ in range(made - 1):
            parent = parent[: parent.rindex("/")]
            try:
                files.rmdir(parent)
            except OSError as error:
                if error.errno not in (EBUSY, ENOTEMPTY, ENOENT):
                    raise
                break


def _remove_tree(directory: str, deadline: float) -> None:
    pause = 0.01
    while True:
        try:
            files.rmdir(directory)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno not in (EBUSY, ENOTEMPTY):
                raise
        below = children(directory)
        for child in below:
            _remove_tree(child, deadline)
        pids = processes(directory)
        if monotonic() > deadline:
            text = f"remove cgroup {directory}: {strerror(EBUSY)}"
            if pids:
                text += f", processes in it: {', '.join(str(pid) for pid in pids[:20])}"
                text += ", ..." if len(pids) > 20 else ""
            raise Error(text, "they may hang in the kernel (state D) or belong to someone else")
        if not below:
            sleep(pause)
            pause = min(pause * 2, 1.28)
