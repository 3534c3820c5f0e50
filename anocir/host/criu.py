"""Talking to CRIU, which does the work of checkpoint and restore.

Side: host.  Cold.  `criu swrk FD` is a worker that serves one caller over a SOCK_SEQPACKET socket:
a message of images/rpc.proto (CRIU 4.2) each way, and in between it tells where it is (`notify`)
and waits for a word.  The command line would give no terminal's master, no place for hooks and no
text of an error.
"""

from __future__ import annotations

import _socket
from _struct import iter_unpack

import posix

from ..base import protobuf
from ..base.protobuf import INT, TEXT
from ..errors import Error, reason
from ..linux import descriptors, files, oneself, processes, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final, TypedDict

    Notify = Callable[[str, int, list[int]], None]

    class Place(TypedDict):
        """Where the source of an external mount is (ExtMountMap)."""

        key: str
        val: str

    class Inherited(TypedDict):
        """A descriptor of the worker's that the container gets (InheritFd)."""

        key: str
        fd: int

    class CgroupRoot(TypedDict):
        """The cgroup below which those of the images are made (CgroupRoot)."""

        ctrl: str
        path: str

    class Joined(TypedDict):
        """A namespace that is there already (JoinNamespace)."""

        ns: str
        ns_file: str

    class PageServer(TypedDict):
        """Where the memory goes."""

        address: str
        port: int

    class Opts(TypedDict, total=False):
        """The fields of _OPTS; flags may be numbers."""

        images_dir_fd: int
        pid: int
        leave_running: bool
        ext_unix_sk: bool
        tcp_established: bool
        evasive_devices: bool
        shell_job: bool
        file_locks: bool
        log_level: int
        log_file: str
        ps: PageServer
        notify_scripts: bool
        root: str
        parent_img: str
        track_mem: bool
        auto_dedup: bool
        work_dir_fd: int
        link_remap: bool
        ext_mnt: list[Place]
        manage_cgroups: bool
        cg_root: list[CgroupRoot]
        rst_sibling: bool
        inherit_fd: list[Inherited]
        manage_cgroups_mode: int
        external: list[str]
        empty_ns: int
        join_ns: list[Joined]
        freeze_cgroup: str
        tcp_skip_in_flight: bool
        lazy_pages: bool
        orphan_pts_master: bool
        config_file: str
        tcp_close: bool
        lsm_profile: str
        lsm_mount_context: str

    class Features(TypedDict, total=False):
        """What is asked of a kernel, and answered."""

        mem_track: bool
        lazy_pages: bool

    class Release(TypedDict, total=False):
        """The version of CRIU."""

        major: int
        minor: int
        sublevel: int

    class Said(TypedDict, total=False):
        """Where CRIU is: the name of the point, and a process."""

        script: str
        pid: int

    class Restored(TypedDict, total=False):
        """The first process, as CRIU's caller sees it."""

        pid: int

    class Request(TypedDict, total=False):
        """What CRIU is asked or told."""

        type: int
        opts: Opts | None
        notify_success: bool
        features: Features | None

    class Response(TypedDict, total=False):
        """What CRIU answers."""

        type: int
        success: int
        restore: Restored
        notify: Said
        errno: int
        features: Features
        errmsg: str
        version: Release


# images/rpc.proto, criu_req_type
DUMP: Final = 1
RESTORE: Final = 2
PRE_DUMP: Final = 4
_NOTIFY: Final = 6
FEATURE_CHECK: Final = 9
VERSION: Final = 10
_NAMES: Final = {
    DUMP: "dump", RESTORE: "restore", PRE_DUMP: "pre-dump", FEATURE_CHECK: "feature check",
    VERSION: "version",
}  # fmt: skip

# criu_cg_mode
CGROUP_MODES: Final = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}

_PAGE_SERVER: Final = {"address": (1, TEXT), "port": (2, INT)}
_MAPPED: Final = {"key": (1, TEXT), "val": (2, TEXT)}
_OPTS: Final[protobuf.Table] = {
    "images_dir_fd": (1, INT),
    "pid": (2, INT),
    "leave_running": (3, INT),
    "ext_unix_sk": (4, INT),
    "tcp_established": (5, INT),
    "evasive_devices": (6, INT),
    "shell_job": (7, INT),
    "file_locks": (8, INT),
    "log_level": (9, INT),
    "log_file": (10, TEXT),
    "ps": (11, _PAGE_SERVER),
    "notify_scripts": (12, INT),
    "root": (13, TEXT),
    "parent_img": (14, TEXT),
    "track_mem": (15, INT),
    "auto_dedup": (16, INT),
    "work_dir_fd": (17, INT),
    "link_remap": (18, INT),
    "ext_mnt": (23, [_MAPPED]),
    "manage_cgroups": (24, INT),
    "cg_root": (25, [{"ctrl": (1, TEXT), "path": (2, TEXT)}]),
    "rst_sibling": (26, INT),
    "inherit_fd": (27, [{"key": (1, TEXT), "fd": (2, INT)}]),
    "manage_cgroups_mode": (34, INT),
    "external": (37, [TEXT]),
    "empty_ns": (38, INT),
    "join_ns": (39, [{"ns": (1, TEXT), "ns_file": (2, TEXT)}]),
    "freeze_cgroup": (44, TEXT),
    "tcp_skip_in_flight": (46, INT),
    "lazy_pages": (48, INT),
    "orphan_pts_master": (50, INT),
    "config_file": (51, TEXT),
    "tcp_close": (52, INT),
    "lsm_profile": (53, TEXT),
    "lsm_mount_context": (63, TEXT),
}
_FEATURES: Final = {"mem_track": (1, INT), "lazy_pages": (2, INT)}
_REQUEST: Final[protobuf.Table] = {
    "type": (1, INT),
    "opts": (2, _OPTS),
    "notify_success": (3, INT),
    "features": (5, _FEATURES),
}
_VERSION: Final = {"major": (1, INT), "minor": (2, INT), "sublevel": (4, INT)}
_RESPONSE: Final[protobuf.Table] = {
    "type": (1, INT),
    "success": (2, INT),
    "restore": (4, {"pid": (1, INT)}),
    "notify": (5, {"script": (1, TEXT), "pid": (2, INT)}),
    "errno": (7, INT),
    "features": (8, _FEATURES),
    "errmsg": (9, TEXT),
    "version": (10, _VERSION),
}

# The first one that answers VERSION, and so the first that anybody uses.
LEAST: Final = (3, 0, 0)
# Before it a container can have other credentials written into the images than it has, by a
# restartable sequence that the dump runs into (CVE-2026-18107).
MENDED: Final = (4, 2, 1)

# Where engines that give no PATH expect programs.
_PATH: Final = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_LARGEST: Final = 1 << 20
_FIRST_FD: Final = 3  # of what a worker inherits: its socket


class Failed(Error):
    """CRIU has answered that it could not; `errno` is its number for the reason, or 0."""

    __slots__ = ("errno",)

    def __init__(self, text: str, number: int) -> None:
        """Take one line of text and CRIU's number."""
        super().__init__(text)
        self.errno = number


def find() -> bytes:
    """Return the path of the program.  Raises Error with what to install."""
    for directory in posix.environ.get(b"PATH", _PATH).split(b":"):
        path = directory + b"/criu"
        if directory and posix.access(path, posix.X_OK):
            return path
    raise Error(
        "criu is not installed: no program of that name in PATH",
        "the package criu has it; Debian 13 and newer, Fedora and Arch Linux have one",
    )


class Worker:
    """A `criu swrk` of our own; what it makes with `rst_sibling` are our children."""

    __slots__ = ("held", "pid", "sock")

    def __init__(
        self, fds: Sequence[int] = (), quiet: bool = True, setup: Callable[[], None] | None = None
    ) -> None:
        """Start it; it inherits `fds` as 4, 5, ..., and 0 to 2 of ours unless it is `quiet`.

        With `setup` the process waits for `go` and calls that before it becomes CRIU.
        """
        self.held = -1
        path = find()
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        opened = []
        try:
            # Out of the way of the numbers that they get.
            for fd in (theirs.fileno(), *fds):
                opened.append(descriptors.dup_above(fd, _FIRST_FD + len(fds) + 1))
            oneself.close_on_exec(3)
            actions: list[tuple[Any, ...]] = [
                (posix.POSIX_SPAWN_DUP2, fd, _FIRST_FD + index) for index, fd in enumerate(opened)
            ]
            if quiet:
                actions += [
                    (posix.POSIX_SPAWN_OPEN, fd, b"/dev/null", posix.O_RDWR, 0) for fd in (0, 1, 2)
                ]
            argv = [b"criu", b"swrk", b"%d" % _FIRST_FD]
            if setup:
                self.pid, self.held = _hold(path, argv, opened, setup)
            else:
                self.pid = spawn.spawn(path, argv, posix.environ, actions, session=False)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for fd in opened:
                files.close(fd)
        self.sock = ours

    def go(self) -> None:
        """Let the process that has waited become CRIU."""
        files.write(self.held, b"\0")
        files.close(self.held)
        self.held = -1

    def ask(
        self,
        kind: int,
        opts: Opts | None = None,
        features: Features | None = None,
        notify: Notify | None = None,
    ) -> Response:
        """Return the answer to a request; `notify` gets (script, pid, descriptors) on the way.

        Raises Failed when CRIU could not, and what `notify` raised after CRIU has given up.
        """
        self._send({"type": kind, "opts": opts, "features": features})
        refused: BaseException | None = None
        while True:
            data, fds = self._receive()
            if not data:
                if refused:
                    raise refused
                raise Failed(f"criu: it ended during {_NAMES[kind]} ({self.close()})", 0)
            answer: Response = protobuf.decode(data, _RESPONSE)
            if answer.get("type") != _NOTIFY:
                break
            said: Said = answer.get("notify") or {}
            try:
                if notify and refused is None:
                    notify(said.get("script", ""), said.get("pid", 0), fds)
            except BaseException as error:  # told to CRIU first, then raised
                refused = error
            for fd in fds:
                files.close(fd)
            self._send({"type": _NOTIFY, "notify_success": refused is None})
        if refused:
            raise refused
        if not answer.get("success"):
            text = answer.get("errmsg", "").strip() or f"{_NAMES[kind]} failed"
            raise Failed(f"criu: {text}", answer.get("errno", 0))
        return answer

    def _send(self, message: Request) -> None:
        try:
            self.sock.send(protobuf.encode(message, _REQUEST), _socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            return  # the end of the file that comes next tells

    def _receive(self) -> tuple[bytes, list[int]]:
        try:
            data, ancillary, _, _ = self.sock.recvmsg(
                _LARGEST, _socket.CMSG_SPACE(64), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            return b"", []
        fds = [
            fd
            for level, kind, rights in ancillary
            if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS
            for (fd,) in iter_unpack("=i", rights[: len(rights) // 4 * 4])
        ]
        return data, fds

    def close(self) -> str:
        """Let it go and wait for its end; say how it ended."""
        self.sock.close()
        if self.held >= 0:
            files.close(self.held)
            self.held = -1
        if not self.pid:
            return "it was not there"
        pid, self.pid = self.pid, 0
        try:
            status = spawn.wait(pid)
        except ChildProcessError:
            return "its parent has reaped it"
        return f"signal {status - 128}" if status > 128 else f"exit status {status}"

    def kill(self) -> None:
        """End it now."""
        if self.pid:
            processes.kill(self.pid, processes.SIGKILL)
        self.close()


def _hold(
    path: bytes, argv: list[bytes], opened: Sequence[int], setup: Callable[[], None]
) -> tuple[int, int]:
    """Fork a process that waits for a byte and then executes CRIU: its pid, where to write."""
    read_end, write_end = descriptors.pipe()
    pid = posix.fork()
    if pid:
        files.close(read_end)
        return pid, write_end
    status = 1
    try:
        files.close(write_end)
        if files.read(read_end, 1):
            setup()
            spawn.default_signals()
            for index, fd in enumerate(opened):
                files.dup2(fd, _FIRST_FD + index)
            posix.execve(path, argv, posix.environ)
    except OSError as error:
        posix.write(2, b"anocir: criu: %s\n" % reason(error).encode("utf-8", "replace"))
        status = 127
    finally:
        posix._exit(status)


def version() -> tuple[int, int, int]:
    """Ask for the version: (4, 2, 1).  Raises Error where there is no CRIU that answers."""
    worker = Worker()
    try:
        answer = worker.ask(VERSION).get("version") or {}
    except Failed as error:
        raise Error(f"{error.text}: it does not tell its version: older than 3.0") from None
    finally:
        worker.close()
    return answer.get("major", 0), answer.get("minor", 0), answer.get("sublevel", 0)


def features(wanted: str) -> bool:
    """Ask whether this kernel and CRIU have a feature: "mem_track" or "lazy_pages"."""
    worker = Worker()
    try:
        asked: Features = {wanted: True}  # type: ignore[misc]
        answer = worker.ask(FEATURE_CHECK, features=asked)
    finally:
        worker.close()
    return bool((answer.get("features") or {}).get(wanted))


def usable(old: bool) -> str:
    """Return a warning, or nothing, about the CRIU that is there.  Raises Error for none.

    `old`: the caller takes one with known holes.
    """
    found = version()
    text = ".".join(str(number) for number in found)
    if found < LEAST:
        raise Error(f"criu {text} is too old: 3.0 is the least")
    if found >= MENDED:
        return ""
    hole = f"criu {text} lets a container forge its credentials in the images (CVE-2026-18107)"
    if not old:
        raise Error(hole, "criu 4.2.1 does not; --old-criu, before the command, takes this one")
    return hole
