"""Where the runtime may make something by itself: never in a directory of the host that is bound.

Side: inside.  The image decides where its links lead.  What is made for the container (devices,
links, mount points, the working directory) is made in the container's own root, or in a file
system that was mounted for it.  A mount point and the working directory are also made in a bind
mount that config.json itself names: with volumes on /data and /data/cache, the directory `cache`
belongs into the first.

A place is known by the mount that its descriptor lies on, whatever path led there.
"""

from __future__ import annotations

from ..base import inroot
from ..errors import Error
from ..linux import files, inodes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Callable

    from .context import Context


def own(context: Context, mount_fd: int) -> None:
    """Remember a mount whose contents are the container's alone."""
    context.own_mounts.add(inodes.mount_id(mount_fd))


def bound(context: Context, mount_fd: int, destination: str) -> None:
    """Remember a bind mount, whose contents are the host's."""
    context.bound_mounts[inodes.mount_id(mount_fd)] = destination


def bind_at(context: Context, fd: int) -> str | None:
    """Return the destination of the bind mount that `fd` lies in, None in a place of our own."""
    if not context.bound_mounts:
        return None
    number = inodes.mount_id(fd)
    if number in context.own_mounts:
        return None
    # Else a mount below one of these: in a tree that was bound, or in the root as it was given.
    parents = {} if number in context.bound_mounts else _parents()
    while number not in context.bound_mounts:
        if number in context.own_mounts or number not in parents:
            return None
        number = parents[number]
    return context.bound_mounts[number]


def _parents() -> dict[int, int]:
    """Return the parent of each mount (proc_pid_mountinfo(5))."""
    rows = files.read_file("/proc/self/mountinfo").split(b"\n")
    return {int(row.split(b" ", 2)[0]): int(row.split(b" ", 2)[1]) for row in rows if row}


def check(context: Context, fd: int, path: str, named: bool = True) -> None:
    """Raise Error when something would be made for `path` in a bind that it does not name."""
    there = bind_at(context, fd)
    if there is None:
        return
    above = [d for d in context.bound_mounts.values() if path == d or path.startswith(d + "/")]
    if not named or there != max(above, key=len, default=None):
        raise outside(path, there)


def outside(path: str, there: str) -> Error:
    """Return the error for what would have to be made in a bind mount."""
    return Error(f'"{path}" leads into the bind mount on "{there}", where nothing is made')


def _checker(context: Context, path: str, named: bool = True) -> Callable[[int], None]:
    return lambda fd: check(context, fd, path, named)


def make_directory(context: Context, path: str) -> int:
    """Open the directory `path` (O_PATH), making what is missing of it where that may be."""
    return inroot.make_directory(context.root_fd, path, may_make=_checker(context, path))


def make_file(context: Context, path: str) -> int:
    """Open `path` (O_PATH), making an empty file where nothing is and where that may be."""
    return inroot.make_file(context.root_fd, path, may_make=_checker(context, path))


def parent(context: Context, path: str, named: bool = True) -> tuple[int, str]:
    """Return (descriptor, name) for the last component of `path`, making its directory.

    Unless `named`, a bind mount is out of bounds also where `path` names it.
    """
    return inroot.parent(context.root_fd, path, may_make=_checker(context, path, named))


def is_root(context: Context, fd: int, found: posix.stat_result | None = None) -> bool:
    """Tell whether a descriptor, which fstat(2) has `found` to be so, is the container's root."""
    found = found or files.fstat(fd)
    if context.root_file is None:
        root = files.fstat(context.root_fd)
        context.root_file = (root.st_dev, root.st_ino)
    if (found.st_dev, found.st_ino) != context.root_file:
        return False
    return inodes.mount_id(fd) == inodes.mount_id(context.root_fd)
