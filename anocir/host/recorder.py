"""Record the system calls of a container by the kernel's notifications, and write a profile.

Side: host; cold.  The recorder is a process of its own, since init's calls are reported from the
moment that its filter is loaded, long before the runtime waits for the container's end.  Each
process that loads the filter (init, those of exec) sends its listener to <root>/<id>/recorder, as
to any seccomp agent; every call is let go on by SECCOMP_USER_NOTIF_FLAG_CONTINUE.  So this is no
sandbox: what the filter reports is only written down.

    run ---- control ----> recorder <---- listeners of init and of exec
                              |
                              +--> FILE, when the container has ended

Source: seccomp_unotify(2).
"""

from __future__ import annotations

import _socket
import select
import time
from _struct import Struct

import posix

from ..base import jsonio, log
from ..errors import Error, at, reason, strerror
from ..linux import entries, files, notifications, oneself, spawn, watch
from ..model.spec import seccomp as seccomp_spec
from ..seccomp import recording
from . import facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..cli import Options, Settings
    from .store import Container
    from ..model.schema import Config, Seccomp

SOCKET: Final = "recorder"
_OPTION: Final = "--record-seccomp"
_BASE: Final = "--record-base"
_END: Final = b"E"
_NOTHING: Final = b"N"
_LARGEST: Final = 1 << 16
_FD: Final = Struct("=i")


class Recorder:
    """The caller's end of a recorder: replaces the profile, starts it, waits for it."""

    __slots__ = ("base", "control", "own", "path", "traced")

    def __init__(
        self, settings: Settings, container_id: str, options: Options, config: Config
    ) -> None:
        """Check what is asked for; config.json's profile becomes one that reports.  Raises Error.

        Nothing is made yet.
        """
        if not options["record_seccomp"]:
            raise Error(f"{_BASE}: is only for {_OPTION}")
        if not watch.has_pidfd_getfd():
            raise Error(f"{_OPTION} needs Linux 5.6, this is {posix.uname().release}")
        self.path = facts.absolute(options["record_seccomp"])
        _check_place(self.path)
        linux = config.setdefault("linux", {})
        self.base, where = linux.get("seccomp"), "linux.seccomp"
        if options["record_base"]:
            self.base, where = _load_base(options["record_base"]), _BASE
        if self.base is not None:
            recording.check_base(self.base, where)
        self.own = recording.needed(config.get("process") or {})
        listener = f"{settings.root}/{container_id}/{SOCKET}"
        linux["seccomp"] = recording.reporting(self.base, self.own, listener)
        self.control: Any = None
        self.traced = bool(settings.trace)

    def start(self, container: Container) -> None:
        """Make the socket in the state directory, and the process that serves it."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            sock.bind(f"/proc/self/fd/{container.dir_fd}/{SOCKET}")
            sock.listen(16)
            self.control, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM)
            try:
                if posix.fork() == 0:
                    _serve(self, theirs, sock)
            finally:
                theirs.close()  # else nobody would see the end of a recorder that is not there
        finally:
            sock.close()

    def leave(self) -> None:
        """Let the recorder go on alone, until no process of the container is left."""
        self.control.close()

    def abandon(self) -> None:
        """There will be no container: nothing is written."""
        if self.control is not None:
            self._ask(_NOTHING)

    def finish(self) -> None:
        """The container has ended: wait for the file, and say what is in it or why not."""
        text = self._ask(_END)
        if text.startswith("!"):
            log.error(f"{_OPTION}: {text[1:]}")
        elif text:
            files.write_all(2, f"anocir: {text}\n".encode())

    def _ask(self, what: bytes) -> str:
        said = b""
        try:
            self.control.send(what)
            while True:
                part = self.control.recv(_LARGEST)
                if not part:
                    break
                said += part
        except OSError as error:
            said = f"!{strerror(error.errno or 0)}".encode()
        self.control.close()
        return said.decode("utf-8", "replace")


def _check_place(path: str) -> None:
    """Refuse a file that could not be written at the end.  Raises Error."""
    directory = path.rpartition("/")[0] or "/"
    try:
        files.close(files.open(directory, files.O_PATH | files.O_DIRECTORY))
        kind = files.kind(files.stat(path)) if files.exists(path) else files.S_IFREG
    except OSError as error:
        raise Error(f"{_OPTION}: {path}: {strerror(error.errno or 0)}") from None
    if kind != files.S_IFREG:
        raise Error(f"{_OPTION}: {path} is not a regular file")
    if not posix.access(directory, posix.W_OK):
        raise Error(f"{_OPTION}: {path}: the directory cannot be written to")


def _load_base(path: str) -> Seccomp:
    """Return the profile of --record-base: an object as linux.seccomp has it."""
    base: Seccomp = jsonio.load(path)
    if "archMap" in base:
        raise at(_BASE, f"{path}: is a profile of an engine, not one of config.json: archMap")
    try:
        seccomp_spec.check(base)
    except Error as error:
        raise Error(f"{_BASE}: {path}: {error.text}", error.hint) from None
    return base


def _serve(caller: Recorder, control: Any, listening: Any) -> None:
    """Be the recorder: never returns."""
    status = 0
    kept = [control.fileno(), listening.fileno()]
    try:
        posix.setsid()
        spawn.default_signals()
        oneself.set_name("anocir:record")
        if caller.traced:
            from ..linux import trace

            kept.append(trace.fd())
        _keep_only(kept)
        entries.chdir("/")
        said = _record(control, listening, caller)
    except (Error, OSError) as error:
        said, status = "!" + reason(error), 1
    except BaseException as error:
        said, status = f"!bug in anocir: {type(error).__name__}", 1
    try:
        control.sendall(said.encode())
        control.shutdown(_socket.SHUT_WR)  # also where the caller could not close its copy
    except OSError:
        status = 1  # the caller has gone, who would have said it
    posix._exit(status)


def _keep_only(kept: list[int]) -> None:
    """Close every descriptor but these: init must see the end of the runtime, not of us."""
    null = files.open("/dev/null", files.O_RDWR)
    for fd in range(3):
        files.dup2(null, fd)
    first = 3
    for fd in sorted(kept):
        if fd > first:
            oneself.close_range(first, fd - 1)
        first = fd + 1
    oneself.close_range(first, oneself.LAST_FD)


def _record(control: Any, listening: Any, caller: Recorder) -> str:
    """Write the profile once the container has ended; a line about it, empty without one."""
    base, own, path = caller.base, caller.own, caller.path
    calls = _Calls()
    if not calls.collect(control, listening):
        return ""
    seen, words, nameless = recording.names(calls.found)
    profile = recording.result(base, own, seen, words)
    _write(path, jsonio.dumps(profile, indent=4) + "\n")
    count = sum(calls.found.values())
    text = f"{path}: {len({*seen, *own})} system calls"
    if count:
        text += f", {count} reports of {calls.seconds / count * 1e6:.0f} us each"
    if base is not None:
        total, idle = recording.unused(base, own, seen)
    if base is not None and total:
        text += f"; of the {total} that the base allows {total - len(idle)} were used"
        if idle:
            text += ", not: " + " ".join(idle)
    if nameless:
        text += "; libseccomp has no name for " + ", ".join(nameless)
    return text


def _write(path: str, text: str) -> None:
    """Write a file that appears whole."""
    directory, slash, name = path.rpartition("/")
    aside = f"{directory}{slash}.{name}.{posix.getpid()}"
    fd = files.open(aside, files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW, 0o644)
    try:
        files.write_all(fd, text.encode())
        entries.rename(aside, path)
    except OSError:
        files.unlink(aside)
        raise
    finally:
        files.close(fd)


class _Calls:
    """What was reported: how often each call of each architecture."""

    def __init__(self) -> None:
        self.found: dict[tuple[int, int], int] = {}
        self.seconds = 0.0

    def collect(self, control: Any, listening: Any) -> bool:
        """Let calls go on until the caller says that it is over, or it and all listeners have gone.

        Tells whether there is anything to be written.
        """
        poll = select.poll()
        poll.register(control, select.POLLIN)
        poll.register(listening, select.POLLIN)
        attached, listeners, any_yet = True, 0, False
        while attached or listeners:
            for fd, events in poll.poll():
                if fd == control.fileno():
                    said = control.recv(1)
                    if said:
                        return any_yet and said == _END
                    attached = False
                    poll.unregister(control)
                elif fd == listening.fileno():
                    got = _accept(listening)
                    if got >= 0:
                        any_yet = True
                        listeners += 1
                        poll.register(got, select.POLLIN)
                elif events & select.POLLIN:
                    self._let_go(fd)
                else:  # POLLHUP: the last process behind this filter has ended
                    poll.unregister(fd)
                    listeners -= 1
                    files.close(fd)
        return any_yet

    def _let_go(self, fd: int) -> None:
        """Let the call go on that waits at this listener."""
        began = time.perf_counter()
        call = notifications.let_go(fd)
        if call is not None:
            self.found[call] = self.found.get(call, 0) + 1
        self.seconds += time.perf_counter() - began


def _accept(listening: Any) -> int:
    """Take the listener that a runtime of ours sends; -1 for nothing."""
    fd, _ = listening._accept()
    sock = _socket.socket(fileno=fd)
    try:
        _, ancillary, _, _ = sock.recvmsg(_LARGEST, 64, _socket.MSG_CMSG_CLOEXEC)
    except OSError:
        return -1
    finally:
        sock.close()
    for level, kind, rights in ancillary:
        if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS) and len(rights) >= _FD.size:
            return int(_FD.unpack_from(rights)[0])
    return -1
