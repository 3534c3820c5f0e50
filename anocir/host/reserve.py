"""A place for a new container in the state directory.

Side: host.
"""

from __future__ import annotations

import time

from ..errors import CONTRACT, Error
from ..linux import entries, files
from . import lock, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .store import Container


def reserve(root: str, container_id: str) -> Container:
    """Make the directory of a new container and hold its lock.  Raises Error when it exists.

    A directory without intent and state is what a killed create or delete left: it is taken over.
    """
    _make_root(root)
    path = f"{root}/{container_id}"
    while True:
        try:
            entries.mkdir(path, 0o700)
        except FileExistsError:
            if _taken(path):
                raise _there(root, container_id) from None
        try:
            container = store.open_container(root, container_id)
        except Error as error:
            if error.kind != "missing":
                raise
            continue  # removed between our two calls
        lock.take_fd(container.dir_fd)
        if files.fstat(container.dir_fd).st_nlink == 0:
            container.close()  # removed between our two calls
            continue
        if _taken(path):
            container.close()
            raise _there(root, container_id)
        return container


def check_free(root: str, container_id: str) -> None:
    """Raise Error when the id is taken, before any work is done; `reserve` decides."""
    if _taken(f"{root}/{container_id}"):
        raise _there(root, container_id)


def _taken(path: str) -> bool:
    """Tell whether a container is in the directory: either file alone says so."""
    return files.exists(path + "/intent.json") or files.exists(path + "/state.json")


def _make_root(root: str) -> None:
    """Make the state root, mode 0700, and refuse one that others can write to."""
    try:
        found = files.stat(root)
    except FileNotFoundError:
        parent = root.rpartition("/")[0]
        if parent and not files.exists(parent):
            _make_root(parent)
        try:
            entries.mkdir(root, 0o700)
        except FileExistsError:
            found = files.stat(root)
        else:
            return
    store.check_root(root, found)


def _there(root: str, container_id: str) -> Error:
    """Return the error for an id that is taken."""
    again = f"anocir --root {root} delete {container_id}"
    return Error(CONTRACT["exists"], f"{container_id} in {root}: `{again}` removes it")


def make_line(container: Container) -> list[int]:
    """Make the two FIFOs between init and start; descriptors for init.

    Each is open for reading and writing, so that init neither sees an end of what others
    write nor gets SIGPIPE for what nobody reads.
    """
    fds = []
    for name in (store.START, store.REPORT):
        store.unlink(name, container.dir_fd)  # of a delete that was killed
        entries.mknod(name, files.S_IFIFO | 0o600, 0, container.dir_fd)
        fds.append(files.open(name, files.O_RDWR | files.O_NOFOLLOW, dir_fd=container.dir_fd))
    return fds


def now() -> str:
    """Return the time as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
