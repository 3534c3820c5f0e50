"""The state directory: what is on disk about a container.

Side: host.

    <root>/<id>/            mode 0700; its flock is the container's lock
        intent.json         written before the first cgroup exists: id, bundle, cgroups
        config.json         the configuration as it was at create
        state.json          pid and start time of init with a copy of the intent, replaced whole
        start.fifo          where init waits for start, as long as init has it open
        report.fifo         what init says to start; its absence means that a start is on its way
        recorder            the socket of the recorder of system calls, if there is one
    <root>/:seccomp/        compiled seccomp programs (an id has no colon)

A file is written under another name and renamed, so a killed runtime leaves it whole or not at
all.  Nothing is synced to a disk: what the files are about, processes and cgroups, does not outlive
a power failure either, and a file that is not whole then is one more that `delete --force` takes.
With the intent alone it removes everything that was made, whenever the runtime was killed.
"""

from __future__ import annotations

import posix

from ..base import jsonio
from ..errors import CONTRACT, Error, strerror
from ..linux import files, processes
from . import record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from ..model.schema import Config, Intent, StateFile

    Check = Callable[[Any, str], "str | None"]

VERSION: Final = 1
START: Final = "start.fifo"
REPORT: Final = "report.fifo"


class Container:
    """An open state directory."""

    def __init__(self, path: str, container_id: str, dir_fd: int) -> None:
        """Take the directory's path and descriptor, which this object owns."""
        self.path = path
        self.id = container_id
        self.dir_fd = dir_fd
        # Of init, once it has been seen alive.
        self.pidfd = -1
        self.intent: Intent = {}
        self.state: StateFile = {}

    def load(self, damaged: bool = False) -> None:
        """Read the intent and the state.  Raises Error unless both are whole.

        With `damaged` what cannot be read is left empty: for delete --force.
        """
        self.state = self._read("state.json", record.state, damaged)
        # state.json has a copy of the intent, and either file alone is enough.
        self.intent = self.state.get("intent") or {}
        if not self.intent:
            self.intent = self._read("intent.json", record.intent, damaged)
            if not self.intent and not damaged:
                raise missing()

    def _read(self, name: str, check: Check, damaged: bool) -> Any:
        """Return what a file holds, empty when it is not there or, with `damaged`, not whole."""
        try:
            value = jsonio.loads(_content(name, self.dir_fd), name)
            wrong = check(value, self.id)
            if wrong is None:
                return value
            text = _unlike(name, wrong)
        except FileNotFoundError:
            return {}  # killed before init existed, or while it was being removed
        except Error as error:
            text = error.text
        except OSError as error:
            text = f"{name}: {strerror(error.errno or 0)}"
        if damaged:
            return {}
        raise self._damaged(text)

    def _damaged(self, text: str) -> Error:
        """Return the error for a file that is not as it was written."""
        return Error(f"container {self.id}: {text}", "delete --force removes it")

    def config(self) -> Config:
        """Return the configuration as it was at create."""
        try:
            value: Config = jsonio.loads(_content("config.json", self.dir_fd), "config.json")
        except Error as error:
            raise self._damaged(error.text) from None
        except OSError as error:
            raise self._damaged(f"config.json: {strerror(error.errno or 0)}") from None
        wrong = record.config(value)
        if wrong is not None:
            raise self._damaged(_unlike("config.json", wrong))
        return value

    def hooks(self) -> Config:
        """Return what start and delete need of the configuration, in its form: the hooks.

        They are in the intent; config.json serves for a container of a version that had them not.
        """
        hooks = self.intent.get("hooks")
        return self.config() if hooks is None else {"hooks": hooks}

    def waits(self) -> bool:
        """Tell whether an init that lives still waits for start: it has start.fifo open.

        It is closed by execve(2), and `start` removes it: nothing that the container could say.
        """
        try:
            flags = files.O_WRONLY | files.O_NONBLOCK | files.O_NOFOLLOW
            files.close(files.open(START, flags, dir_fd=self.dir_fd))
        except OSError:
            return False
        return True

    def alive(self) -> bool:
        """Tell whether init runs."""
        if self.pidfd >= 0:
            return not processes.exited(self.pidfd)
        return processes.alive(self.state.get("pid", 0), self.state.get("start_time", -1))

    def hold(self) -> int:
        """Return a pidfd of init, which stays ours to close; -1 when it has exited.

        Whoever acts on init asks for it first, and for the state afterwards.
        """
        if self.pidfd < 0:
            start_time = self.state.get("start_time", -1)
            self.pidfd = processes.hold(self.state.get("pid", 0), start_time)
            return self.pidfd
        return self.pidfd if self.alive() else -1

    def close(self) -> None:
        """Close the directory and so give back the lock."""
        for fd in (self.dir_fd, self.pidfd):
            if fd >= 0:
                files.close(fd)
        self.dir_fd = self.pidfd = -1


def _unlike(name: str, wrong: str) -> str:
    return f"{name}: {wrong.lstrip('.')} is not what was written there" if wrong else (
        f"{name}: not an object")  # fmt: skip


def _content(name: str, dir_fd: int) -> bytes:
    """Return what a regular file of bounded size holds; waits for nobody, follows no link."""
    flags = files.O_RDONLY | files.O_NONBLOCK | files.O_NOFOLLOW | files.O_NOCTTY
    fd = files.open(name, flags, dir_fd=dir_fd)
    try:
        found = files.fstat(fd)
        if files.kind(found) != files.S_IFREG:
            raise Error(f"{name}: not a regular file")
        if found.st_size > jsonio.MAX_SIZE:
            raise Error(f"{name}: larger than {jsonio.MAX_SIZE >> 20} MiB")
        return files.read_fd(fd)
    finally:
        files.close(fd)


def unlink(name: str, dir_fd: int) -> bool:
    """Remove a file; tell whether it was there.  A directory keeps `remove` from ending here."""
    try:
        files.unlink(name, dir_fd)
    except (FileNotFoundError, IsADirectoryError):
        return False
    return True


def missing(root: str = "", container_id: str = "") -> Error:
    """Return the error for an id that is not there."""
    where = f"{container_id} in {root}: anocir --root {root} list shows what is there"
    return Error(CONTRACT["missing"], where if root else "", kind="missing")


def open_container(root: str, container_id: str) -> Container:
    """Open the directory of a container.  Raises Error when it does not exist."""
    path = f"{root}/{container_id}"
    try:
        check_root(root, files.stat(root))
        fd = files.open(path, files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW)
    except FileNotFoundError:
        raise missing(root, container_id) from None
    except NotADirectoryError:
        text = f"container {container_id}: {path} is no directory"
        raise Error(text, "delete --force removes it") from None
    try:
        _check_owner(path, files.fstat(fd))
    except Error:
        files.close(fd)
        raise
    return Container(path, container_id, fd)


def _check_owner(path: str, found: posix.stat_result) -> None:
    """Refuse a directory whose files somebody else could have written: their hooks run as us."""
    if found.st_uid != posix.geteuid():
        hint = "set XDG_RUNTIME_DIR to a directory of your own, or name one by --root"
        hint = hint if posix.geteuid() else ""
        raise Error(f"state directory {path} belongs to another user", hint)
    if found.st_mode & 0o022:
        raise Error(f"state directory {path} can be written by others")


def check_root(root: str, found: posix.stat_result) -> None:
    """Refuse a state root that is not ours, but for one like /tmp, where each has its own."""
    if files.kind(found) != files.S_IFDIR:
        raise Error(f"--root: {root}: not a directory")
    if found.st_mode & 0o1000 and found.st_uid in (0, posix.geteuid()):
        return
    _check_owner(root, found)
