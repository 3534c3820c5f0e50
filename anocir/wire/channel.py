"""The frames between the host side and init, and the way that start takes later.

Side: host and init.

    create (host)                                      middle, then init (container)
    boots the sealed interpreter, reads, checks, plans  boots, loads its modules
    PLAN + descriptors ------------------------------>  middle: joins namespaces
         <------------------------------------- MAP     only with a new user namespace
    uid_map, gid_map ------------------------ MAPPED ->  middle: makes the other namespaces
    cgroups, network namespace -------------- CGROUP ->  middle: joins the network, clones init
         <------------------------------------- PID     middle exits; init joins its cgroups
    what only this side may do ------------------ GO ->  only if init needs it: a cgroup that it
                                                        cannot join, id maps, hard limits, devices
         <--------------------------------- SOURCES     only with a user namespace that may not
    opens them ---------------------------- OPENED ->  search a directory: numbers of mounts
                                                        init: mounts, devices
         <--------------------------------- SOURCES     only at an id-mapped mount whose source an
    maps a copy --------------------------- OPENED ->  earlier one has brought: its number
         <----------------------------------- HOOKS     only with prestart, createRuntime hooks
    runs them -------------------------------- DONE ->  createContainer hooks, pivot_root, masks
         <--------------------------------- CONSOLE     only with a terminal: the master's fd
                                                        limits, credentials, the filter
         <-------------------------------- LISTENER     only with SCMP_ACT_NOTIFY
    sends it to the agent --------------------- DONE ->
         <----------------------------------- READY     from here on: read, write, close, execve
    last limits, state "created" ----------- COMMIT ->  waits: read(2) of start.fifo

    start (host, later)
    writes into start.fifo ------------------ START ->  startContainer hooks, or with END, by
                                                        kill: exits, as a signal would have it
         <---------- report.fifo -------------- EXEC     the next call is execve(2)
         <------------------------------------- EOF     close-on-exec: the program runs
         <----------------------------------- ERROR     or it failed: start tells why

    exec, and create into a pid namespace that is there already, where others could see init
    PLAN + descriptors ------------------------------>  middle
    cgroups, network namespace -------------- CGROUP ->  middle: clones a worker into the cgroup
         <---------------------------------- WORKER     middle exits
                                                        worker: namespaces (MAP, MAPPED)
         <------------------------------------ MADE     only if the worker needs something
    what only this side may do ------------------ GO ->  worker: all that needs a right, up to the
                                                        filter, outside of the pid namespace
         <------------------------------------- PID     worker clones init there, and exits
         <----------------------------------- READY     init: a session, the terminal
    COMMIT, or for exec START ----------------------->  as above

    WORKER and PID come from another process than the frames after them, so that one of those may
    overtake them.  At every place init may send ERROR (what, where, why), FULL (the same, and
    that there is no room in the cgroups for two) or LOG (a warning, a debug line), or die: then
    its end of the socket closes, the reader sees EOF, and `Init.expect` says what it was waiting
    for and how the process ended.  When the host side dies before COMMIT, init sees EOF and
    exits: what is left is on disk for `delete --force`.  Exec's init reads START from this
    socket, and EOF follows.

A frame is a header of 5 bytes (length of the payload, kind) and the payload.  What comes from the
container's side is text or struct (`PID_FRAME`), never marshal.
"""

from __future__ import annotations

from _struct import calcsize, iter_unpack, pack, unpack

from ..errors import Error, named
from ..linux import files, sockets
from . import line
from .line import (
    PLAN as PLAN,
    MAP as MAP,
    MAPPED as MAPPED,
    PID as PID,
    CGROUP as CGROUP,
    GO as GO,
    HOOKS as HOOKS,
    DONE as DONE,
    CONSOLE as CONSOLE,
    READY as READY,
    COMMIT as COMMIT,
    START as START,
    EXEC as EXEC,
    ERROR as ERROR,
    LOG as LOG,
    LISTENER as LISTENER,
    WORKER as WORKER,
    MADE as MADE,
    FULL as FULL,
    END as END,
    SOURCES as SOURCES,
    OPENED as OPENED,
    wait_unless_stopped as wait_unless_stopped,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

# WORKER and PID: the pid, whether it is in its cgroups.  CGROUP: whether the network namespace
# comes along, whether a cgroup to be born in does, how many of the others are joined at once, and
# whether GO has to be waited for.
PID_FRAME: Final = "=i?"
CGROUP_FRAME: Final = "=??i?"

# What fits into report.fifo beside other frames, also when nobody reads it.
MOST_TEXT: Final = 32 << 10

_LONGEST_PATH: Final = 107  # sun_path of unix(7), without the NUL
_MAX_FRAME = 128 << 20


def packed(numbers: Sequence[int]) -> bytes:
    """Return the payload of GO and SOURCES: numbers of sources; `unpacked` reads it."""
    return pack(f"={len(numbers)}i", *numbers)


def unpacked(payload: bytes) -> list[int]:
    """Return the numbers of `packed`.  Raises ValueError for what is none of its payloads."""
    if len(payload) % calcsize("=i"):
        raise ValueError(f"{len(payload)} bytes are no numbers")
    return [number for (number,) in iter_unpack("=i", payload)]


class Channel:
    """One end of the socket; frames are sent and received whole."""

    __slots__ = ("buffer", "came", "fd", "fds")

    def __init__(self, fd: int) -> None:
        """Take a connected stream socket; `fd` is -1 once it is closed."""
        self.fd = fd
        self.buffer = b""
        self.fds: list[int] = []
        # Descriptors of a frame of which more has been read than of the present one.
        self.came: list[int] = []

    def send(self, kind: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send one frame, with descriptors.  Raises OSError (EPIPE) when the peer is gone."""
        data = pack("=IB", len(payload), kind) + payload
        if fds:
            data = data[sockets.send(self.fd, data, fds) :]
        # write(2): the one way out that a container's seccomp profile surely allows.
        files.write_all(self.fd, data)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame as (kind, payload); (0, b"") at the end of the stream.

        Descriptors that came along are appended to `fds`, close-on-exec.  recvmsg(2) stops after
        bytes that have some, so that they are the last frame's of what was read at once; and the
        rest of a frame is read by itself.
        """
        header = self._take(5, 16384)
        if len(header) < 5:
            return 0, b""
        size, kind = unpack("=IB", header)
        if size > _MAX_FRAME:
            raise Error(f"frame of {size} bytes on the channel")
        payload = self._take(size, 0)
        if len(payload) < size:
            return 0, b""
        if not self.buffer:
            self.fds += self.came
            self.came = []
        return kind, payload

    def _take(self, size: int, ahead: int) -> bytes:
        parts = [self.buffer]
        have = len(self.buffer)
        while have < size:
            try:
                data, fds = sockets.receive(self.fd, max(ahead, min(size - have, 1 << 20)))
            except ConnectionResetError:
                break
            self.came += fds
            if not data:
                break
            parts.append(data)
            have += len(data)
        joined = b"".join(parts)
        self.buffer = joined[size:]
        return joined[:size]

    def close(self) -> None:
        """Close this end, if it is open."""
        if self.fd >= 0:
            files.close(self.fd)
        self.fd = -1


class Line:
    """Frames by read(2), write(2) and close(2) alone, which a container's filter surely allows."""

    __slots__ = ("read_fd", "write_fd")

    def __init__(self, read_fd: int, write_fd: int) -> None:
        """Take descriptors, which may be one and the same."""
        self.read_fd = read_fd
        self.write_fd = write_fd

    def send(self, kind: int, payload: bytes = b"") -> None:
        """Send one frame.  Raises OSError when nobody is there to read it."""
        line.send(self.write_fd, kind, payload)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame as (kind, payload); (0, b"") at the end of the stream."""
        return line.receive(self.read_fd)

    def close(self) -> None:
        """Close both; a filter that forbids it leaves it to execve(2)."""
        for fd in {self.read_fd, self.write_fd}:
            try:
                files.close(fd)
            except OSError:
                continue


def send_fd(path: str, fd: int, data: bytes, option: str = "") -> None:
    """Connect to the socket at `path` and send one message: `data` and one descriptor.

    An error names the `option` that the path is of.

    Raises Error for a path that no socket can have, OSError for the rest.
    """
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _LONGEST_PATH:
        raise Error(
            f"connect {path}: the path of a socket may have {_LONGEST_PATH} bytes, this one has "
            f"{length}"
        )
    import _socket

    sock = named("socket", _socket.socket, _socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path.encode("utf-8", "surrogateescape"))
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", fd))]
        sock.sendmsg([data], rights, _socket.MSG_NOSIGNAL)
    except OSError as error:
        path = f"{option}: {path}" if option else path
        raise OSError(error.errno, "connect", path) from None
    finally:
        sock.close()
