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
    for name in files.listdir(dir_fd):
        found = files.lstat(name, dir_fd)
        if files.kind(found) == files.S_IFDIR:
            flags = files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW
            inner = files.open(name, flags, dir_fd=dir_fd)
            _remove_tree(inner)
            files.close(inner)
            files.rmdir(name, dir_fd)
        else:
            files.unlink(name, dir_fd)


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
