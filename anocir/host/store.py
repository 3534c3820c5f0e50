"""The state directory: what is on disk about a container.

Side: host.

    <root>/<id>/            mode 0700; its flock is the container's lock
        intent.json         written before the first cgroup exists: id, bundle, cgroups
        config.json         the configuration as it was at create
        state.json          pid and start time of init with a copy of the intent, replaced whole
        start.sock          where init waits for start; its absence means that start came
    <root>/:seccomp/        compiled seccomp programs (an id has no colon)

A file is written under another name and renamed, so a killed runtime leaves it whole or not at
all.  Nothing is synced to a disk: what the files are about, processes and cgroups, does not outlive
a power failure either, and a file that is not whole then is one more that `delete --force` takes.
With the intent alone it removes everything that was made, whenever the runtime was killed.
"""

from __future__ import annotations

import time

import posix

from ..base import jsonio
from ..errors import CONTRACT, Error
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

VERSION: Final = 1
SOCKET: Final = "start.sock"
_FILES: Final = ("state.json", "config.json", SOCKET, "intent.json")


class Container:
    """An open state directory."""

    __slots__ = ("dir_fd", "id", "intent", "path", "state")

    def __init__(self, path: str, container_id: str, dir_fd: int) -> None:
        """Take the directory's path and descriptor, which this object owns."""
        self.path = path
        self.id = container_id
        self.dir_fd = dir_fd
        self.intent: dict[str, Any] = {}
        self.state: dict[str, Any] = {}

    def lock(self) -> None:
        """Wait for the lock; raise Error when the container was removed in the meantime.

        It is held over a change of the state, never while a hook or a program of the container
        runs, and the kernel gives it back when we die.
        """
        files.flock(self.dir_fd)
        if files.fstat(self.dir_fd).st_nlink == 0:
            raise missing()

    def unlock(self) -> None:
        """Give the lock back."""
        files.funlock(self.dir_fd)

    def load(self, damaged: bool = False) -> None:
        """Read the intent and the state.  Raises Error unless both are whole.

        With `damaged` what cannot be read is left empty: for delete --force.
        """
        self.state = self._read("state.json", damaged)
        # state.json has a copy of the intent, and either file alone is enough.
        intent = self.state.get("intent")
        if not isinstance(intent, dict) or not intent:
            intent = self._read("intent.json", damaged)
            if not intent and not damaged:
                raise missing()
        self.intent = intent

    def _read(self, name: str, damaged: bool) -> dict[str, Any]:
        """Return what a file holds, empty when it is not there or, with `damaged`, not whole."""
        try:
            value = jsonio.loads(files.read_file(name, self.dir_fd), name)
            if isinstance(value, dict):
                return value
            text = f"{name}: not an object"
        except FileNotFoundError:
            return {}  # killed before init existed, or while it was being removed
        except Error as error:
            text = error.text
        if damaged:
            return {}
        raise Error(f"container {self.id}: {text}", "delete --force removes it")

    def config(self) -> dict[str, Any]:
        """Return the configuration as it was at create."""
        value = jsonio.loads(files.read_file("config.json", self.dir_fd), "config.json")
        if not isinstance(value, dict):
            raise Error(f"container {self.id}: config.json: not an object")
        return value

    def save_intent(self, intent: dict[str, Any]) -> None:
        """Write what will be made, before it is."""
        self.intent = {"version": VERSION, "id": self.id, **intent}
        self._write("intent.json", jsonio.dumps(self.intent))

    def save_state(self, **changes: Any) -> None:
        """Replace the state by itself with these changes."""
        self.state = {**self.state, **changes, "intent": self.intent}
        self._write("state.json", jsonio.dumps(self.state))

    def save_config(self, config: dict[str, Any]) -> None:
        """Keep the configuration (also with changed resources, after update)."""
        self._write("config.json", jsonio.dumps(config))

    def _write(self, name: str, text: str) -> None:
        temporary = f".{name}.{posix.getpid()}"
        flags = files.O_WRONLY | files.O_CREAT | files.O_TRUNC | files.O_NOFOLLOW
        try:
            fd = files.open(temporary, flags, 0o600, dir_fd=self.dir_fd)
            try:
                files.write_all(fd, files.encode(text))
            finally:
                files.close(fd)
            files.rename(temporary, name, self.dir_fd, self.dir_fd)
        except OSError as error:
            raise OSError(error.errno, "write", f"{self.path}/{name}") from None

    def remove(self) -> None:
        """Remove the directory with all that is in it; the intent goes last."""
        for name in _FILES[:-1]:
            _unlink(name, self.dir_fd)
        _unlink(_FILES[-1], self.dir_fd)
        try:
            files.rmdir(self.path)
        except FileNotFoundError:
            return
        except OSError:
            # Temporary files of a runtime that was killed, or files that somebody put there.
            _remove_tree(self.dir_fd)
            files.rmdir(self.path)

    def close(self) -> None:
        """Close the directory and so give back the lock."""
        if self.dir_fd >= 0:
            files.close(self.dir_fd)
            self.dir_fd = -1


def _unlink(name: str, dir_fd: int) -> None:
    try:
        files.unlink(name, dir_fd)
    except FileNotFoundError:
        return


def _remove_tree(dir_fd: int) -> None:
    for name in files.listdir(dir_fd):
        found = files.lstat(name, dir_fd)
        if found.st_mode & files.S_IFMT == files.S_IFDIR:
            flags = files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW
            inner = files.open(name, flags, dir_fd=dir_fd)
            _remove_tree(inner)
            files.close(inner)
            files.rmdir(name, dir_fd)
        else:
            files.unlink(name, dir_fd)


def missing() -> Error:
    """Return the error for an id that is not there."""
    return Error(CONTRACT["missing"])


def open_container(root: str, container_id: str) -> Container:
    """Open the directory of a container.  Raises Error when it does not exist."""
    path = f"{root}/{container_id}"
    try:
        fd = files.open(path, files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW)
    except FileNotFoundError:
        raise missing() from None
    return Container(path, container_id, fd)


def reserve(root: str, container_id: str) -> Container:
    """Make the directory of a new container and hold its lock.  Raises Error when it exists.

    A directory without intent and state is what a killed create or delete left: it is taken over.
    """
    _make_root(root)
    path = f"{root}/{container_id}"
    while True:
        try:
            files.mkdir(path, 0o700)
        except FileExistsError:
            if _taken(path):
                raise Error(CONTRACT["exists"]) from None
        try:
            container = open_container(root, container_id)
        except Error:
            continue  # removed between our two calls
        files.flock(container.dir_fd)
        found = files.fstat(container.dir_fd)
        if found.st_uid != posix.geteuid() or found.st_mode & 0o022:
            container.close()
            raise Error(f"{path} is there and belongs to somebody else")
        if found.st_nlink == 0:
            container.close()  # removed between our two calls
            continue
        if _taken(path):
            container.close()
            raise Error(CONTRACT["exists"])
        return container


def check_free(root: str, container_id: str) -> None:
    """Raise Error when the id is taken, before any work is done; `reserve` decides."""
    if _taken(f"{root}/{container_id}"):
        raise Error(CONTRACT["exists"])


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
            files.mkdir(root, 0o700)
        except FileExistsError:
            found = files.stat(root)
        else:
            return
    if found.st_mode & 0o022 and not found.st_mode & 0o1000:
        raise Error(f"state directory {root} can be written by others")
    if found.st_uid != posix.geteuid() and found.st_mode & 0o1000 == 0:
        raise Error(f"state directory {root} belongs to another user")


def ids(root: str) -> list[str]:
    """Return the ids below a state root, sorted; none when the root does not exist."""
    try:
        names = files.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ":" not in name)


def now() -> str:
    """Return the time as RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(time.time_ns(), 10**9)
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{rest:09d}Z"
