"""Directories of a cgroup hierarchy are made.

Side: host.  What is made is known before (`missing`, written to the state), so that a removal after
a crash takes away exactly that.
"""

from __future__ import annotations

from ..errors import Error, strerror
from ..linux import entries, files
from ..linux.errnos import EROFS


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
                entries.mkdir(lacking[-1])
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


def in_use(directory: str) -> Error | None:
    """Return the error for a cgroup that was there before and whose processes are not ours."""
    from . import tree

    pids = tree.processes(directory)
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
