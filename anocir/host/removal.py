"""What is on disk about a container goes away.

Side: host.
"""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import files
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .store import Container


_FILES: Final = ("state.json", "config.json", store.START, store.REPORT, "intent.json")


def remove(container: Container) -> None:
    """Remove the directory with all that is in it; the intent goes last."""
    for name in _FILES[:-1]:
        if not store.unlink(name, container.dir_fd) and name == store.START:
            break  # it was started, and the other one has gone before this one
    store.unlink(_FILES[-1], container.dir_fd)
    try:
        files.rmdir(container.path)
    except FileNotFoundError:
        return
    except OSError:
        # Temporary files of a runtime that was killed, or files that somebody put there.
        _remove_tree(container.dir_fd)
        files.rmdir(container.path)


def _remove_tree(dir_fd: int) -> None:
    """Remove what is in a directory, however deep: what lies below is moved up into it first.

    The container may have had a hand in it, in the directory of its notify socket.
    """
    from ..linux import entries

    left = files.listdir(dir_fd)
    seen = set(left)
    while left:
        name = left.pop()
        if files.kind(files.lstat(name, dir_fd)) != files.S_IFDIR:
            files.unlink(name, dir_fd)
            continue
        inner = files.open(name, files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW, 0, dir_fd)
        for below in files.listdir(inner):
            if files.kind(files.lstat(below, inner)) != files.S_IFDIR:
                files.unlink(below, inner)
                continue
            moved = str(len(seen))
            while moved in seen:
                moved += "."
            entries.rename(below, moved, inner, dir_fd)
            seen.add(moved)
            left.append(moved)
        files.close(inner)
        files.rmdir(name, dir_fd)


def other(root: str, container_id: str) -> bool:
    """Remove what is no directory where one should be; tell whether there was such a thing."""
    path = f"{root}/{container_id}"
    found = files.lstat(path)
    if files.kind(found) == files.S_IFDIR:
        return False
    store.check_root(root, files.stat(root))
    if found.st_uid != posix.geteuid():
        raise Error(f"{path} belongs to another user")
    files.unlink(path)
    return True
