"""The frames between the host side and init, and the start socket.

Side: host and init.

    create (host)                                      middle, then init (container)
    boots the sealed interpreter, reads, checks, plans  boots, loads its modules
    PLAN + descriptors ------------------------------>  middle: joins namespaces
         <------------------------------------- MAP     only with a new user namespace
    uid_map, gid_map ------------------------ MAPPED ->  middle: makes the other namespaces
    cgroups, network namespace -------------- CGROUP ->  middle: joins the network, clones init
         <------------------------------------- PID     middle exits; init joins its cgroups
    what only this side may do ------------------ GO ->  only if init needs it: a cgroup that it
                                                        cannot join, id maps, network devices
                                                        init: mounts, devices
         <----------------------------------- HOOKS     only with prestart, createRuntime hooks
    runs them -------------------------------- DONE ->  createContainer hooks, pivot_root, masks
         <--------------------------------- CONSOLE     only with a terminal: the master's fd
         <----------------------------------- READY
    last limits, state "created" ----------- COMMIT ->  waits on the start socket

    start (host, later)
    connects ------------------------------- start ->  startContainer hooks, credentials, seccomp
         <------------------------------------ EXEC     the next call is execve(2)
         <------------------------------------- EOF     close-on-exec: the program runs
         <----------------------------------- ERROR     or it failed: start tells why

    PID comes from another process than the frames after it, so one of those may overtake it.
    At every place init may send ERROR (what, where, why) or LOG (a warning, a debug line), or
    die: then its end of the socket closes, the reader sees EOF, and `Channel.expect` says what
    it was waiting for and how the process ended.  When the host side dies before COMMIT, init
    sees EOF and exits: what is left is on disk for `delete --force`.  `exec` and `run` use the
    same frames; for them init reads START right after COMMIT from this socket, and EOF follows.

A frame is a header of 5 bytes (length of the payload, kind) and the payload.
"""

from __future__ import annotations

import _socket
from _struct import iter_unpack, pack, unpack

from ..errors import Error
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

PLAN: Final = 1
MAP: Final = 2
MAPPED: Final = 3
PID: Final = 4
CGROUP: Final = 16
GO: Final = 5
HOOKS: Final = 6
DONE: Final = 7
CONSOLE: Final = 8
READY: Final = 9
COMMIT: Final = 10
START: Final = 11
EXEC: Final = 12
ERROR: Final = 13
LOG: Final = 14
LISTENER: Final = 15

# include/linux/socket.h
_SCM_RIGHTS = 1
_SOL_SOCKET = 1
_MSG_CMSG_CLOEXEC = 0x40000000
_MSG_NOSIGNAL = 0x4000
_LONGEST_PATH: Final = 107  # sun_path of unix(7), without the NUL
_MAX_FDS = 250  # SCM_MAX_FD is 253
_MAX_FRAME = 128 << 20


class Channel:
    """One end of the socket; frames are sent and received whole."""

    __slots__ = ("buffer", "came", "fds", "sock")

    def __init__(self, sock: _socket.socket) -> None:
        """Take a connected stream socket."""
        self.sock = sock
        self.buffer = b""
        self.fds: list[int] = []
        # Descriptors of a frame of which more has been read than of the present one.
        self.came: list[int] = []

    def send(self, kind: int, payload: bytes = b"", fds: Sequence[int] = ()) -> None:
        """Send one frame, with descriptors.  Raises OSError (EPIPE) when the peer is gone."""
        data = pack("=IB", len(payload), kind) + payload
        if fds:
            rights = [(_SOL_SOCKET, _SCM_RIGHTS, pack(f"={len(fds)}i", *fds))]
            data = data[self.sock.sendmsg([data], rights, _MSG_NOSIGNAL) :]
        # write(2): the one way out that a container's seccomp profile surely allows.
        files.write_all(self.sock.fileno(), data)

    def receive(self) -> tuple[int, bytes]:
        """Return the next frame as (kind, payload); (0, b"") at the end of the stream.

        Descriptors that came along are appended to `fds`, close-on-exec.  recvmsg(2) stops after
        bytes that have some, so that they are the last frame's of what was read at once; and the
        rest of a frame is read by itself.
        """
        header = self._take(5, 65536)
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
                data, ancillary, _, _ = self.sock.recvmsg(
                    max(ahead, min(size - have, 1 << 20)), 4 * _MAX_FDS + 64, _MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                data, ancillary = b"", []
            for level, kind, rights in ancillary:
                if level == _SOL_SOCKET and kind == _SCM_RIGHTS:
                    whole = rights[: len(rights) // 4 * 4]
                    self.came += [fd for (fd,) in iter_unpack("=i", whole)]
            if not data:
                break
            parts.append(data)
            have += len(data)
        joined = b"".join(parts)
        self.buffer = joined[size:]
        return joined[:size]

    def close(self) -> None:
        """Close this end."""
        self.sock.close()


def of(fd: int) -> Channel:
    """Return a channel on an inherited descriptor."""
    return Channel(_socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM, 0, fd))


def listen(directory_fd: int, name: str) -> _socket.socket:
    """Return a socket that listens at `name` in a directory of any path length.

    The path of a Unix socket ends at 107 bytes, so it goes through /proc/self/fd.
    """
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.bind(f"/proc/self/fd/{directory_fd}/{name}")
        sock.listen(1)
    except OSError:
        sock.close()
        raise
    return sock


def connect(directory_fd: int, name: str) -> Channel:
    """Connect to the socket `name` in a directory.  Raises OSError when nobody listens."""
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(f"/proc/self/fd/{directory_fd}/{name}")
    except OSError:
        sock.close()
        raise
    return Channel(sock)


def send_fd(path: str, fd: int, data: bytes) -> None:
    """Connect to the socket at `path` and send one message: `data` and one descriptor.

    Raises Error for a path that no socket can have, OSError for the rest.
    """
    length = len(path.encode("utf-8", "surrogateescape"))
    if length > _LONGEST_PATH:
        raise Error(
            f"connect {path}: the path of a socket may have {_LONGEST_PATH} bytes, this one has "
            f"{length}"
        )
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(path.encode("utf-8", "surrogateescape"))
        rights = [(_SOL_SOCKET, _SCM_RIGHTS, pack("=i", fd))]
        sock.sendmsg([data], rights, _MSG_NOSIGNAL)
    except OSError as error:
        raise OSError(error.errno, "connect", path) from None
    finally:
        sock.close()
