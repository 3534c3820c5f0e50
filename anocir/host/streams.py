"""Pipes in the place of the caller's terminals and devices, for a process in the foreground.

Side: host.  Sources: pipe(7), poll(2), `setupProcessPipes` in tty.go of runc.

Root of the container owns what has its uid, the caller's terminal too, and could change its mode
through /proc/self/fd/0.  So it gets a pipe, and what goes through is copied here.
"""

from __future__ import annotations

import fcntl
import select

import posix

from ..linux import descriptors, files
from ..linux.errnos import EIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from ..model.schema import Config, IDMapping

# Bytes at a time, and in a pipe: so that both sides have something to do.
_CHUNK: Final = 1 << 16
_ROOM: Final = 1 << 19
_GLANCE: Final = 200  # milliseconds until the next look at who has the terminal
_F_SETPIPE_SZ: Final = 1031  # include/uapi/linux/fcntl.h
_FIONREAD: Final = 0x541B  # include/uapi/asm-generic/ioctls.h


class Flow:
    """One direction: what has been read from `source` and not yet been written to `target`."""

    __slots__ = ("inward", "open", "paused", "pending", "polled", "source", "target")

    def __init__(self, source: int, target: int, inward: bool) -> None:
        """Copy to the container (`inward`) or from it."""
        self.source = source
        self.target = target
        self.inward = inward
        self.pending = b""
        # Whether the caller's terminal is somebody else's for now.
        self.paused = False
        self.open = True
        self.polled: dict[int, int] = {}

    def move(self) -> bool:
        """Copy one piece, as much as there is and as the other end takes; False at the end.

        Also where an end fails: the container then reads the end of its input, or writes to a
        pipe that nobody reads.
        """
        try:
            if not self.pending:
                self.pending = files.read(self.source, _CHUNK)
                if not self.pending:
                    return False
            self.pending = self.pending[files.write(self.target, self.pending) :]
        except BlockingIOError:
            return True
        except OSError as error:
            if self.inward and not self.pending and error.errno == EIO:
                self.paused = _in_background(self.source)
            return self.paused
        return True

    def follow(self, poll: Any) -> None:
        """Let `poll` wait for what this flow waits for: an end of the input, or of the output."""
        wanted: dict[int, int] = {}
        if self.open:
            if self.inward:
                wanted[self.target] = 0  # POLLERR: nobody reads any more
            if self.pending:
                wanted[self.target] = select.POLLOUT
            elif not self.paused:
                wanted[self.source] = select.POLLIN
        for fd in self.polled:
            if fd not in wanted:
                poll.unregister(fd)
        for fd, events in wanted.items():
            if self.polled.get(fd) != events:
                poll.register(fd, events)
        self.polled = wanted

    def end(self, poll: Any) -> None:
        """Close the pipe."""
        self.open = False
        self.follow(poll)
        files.close(self.target if self.inward else self.source)

    def drain(self) -> None:
        """Write out what is in the pipe now: nobody waits for what others add who still have it."""
        counted = descriptors.ioctl(self.source, _FIONREAD, bytes(4))
        left = int.from_bytes(counted, "little") if isinstance(counted, bytes) else 0
        poll = select.poll()
        poll.register(self.target, select.POLLOUT)
        try:
            while self.pending or left:
                if not self.pending:
                    self.pending = files.read(self.source, min(left, _CHUNK))
                    left -= len(self.pending) or left
                    continue
                poll.poll()
                try:
                    self.pending = self.pending[files.write(self.target, self.pending) :]
                except BlockingIOError:
                    continue
        except OSError:
            return  # the caller has gone, or the container has read its own pipe


class Streams:
    """The pipes, and what copies between them and the caller's descriptors."""

    __slots__ = ("ends", "flows", "places")

    def __init__(self, piped: Sequence[int], owner: tuple[int, int]) -> None:
        """Make pipes for these of descriptors 0 to 2; their `owner` is a user and a group or -1.

        `ends` are the container's, `places` pairs of a descriptor and an index in `ends`.  Where 1
        and 2 are one device they are one pipe, so that what is written stays in its order.
        """
        self.ends: list[int] = []
        self.places: list[tuple[int, int]] = []
        self.flows: list[Flow] = []
        outputs: dict[tuple[int, int], int] = {}
        for fd in piped:
            found = files.fstat(fd)
            device = found.st_dev, found.st_ino
            if fd and device in outputs:
                self.places.append((fd, outputs[device]))
                continue
            reading, writing = descriptors.pipe()
            if fd:
                outputs[device] = len(self.ends)
                flow = Flow(reading, _reopened(fd, files.O_WRONLY), inward=False)
            else:
                flow = Flow(_reopened(fd, files.O_RDONLY), writing, inward=True)
            posix.set_blocking(reading if fd else writing, False)
            _widen(writing)
            _give(writing, owner)
            self.flows.append(flow)
            self.places.append((fd, len(self.ends)))
            self.ends.append(writing if fd else reading)

    def register(self, poll: Any) -> None:
        """Begin to copy."""
        for flow in self.flows:
            flow.follow(poll)

    def wake(self, poll: Any) -> int | None:
        """Read again from a terminal that is ours again; how long to wait, in milliseconds.

        The shell that gives it back need not send a signal.
        """
        for flow in self.flows:
            if flow.paused and flow.open:
                if _in_background(flow.source):
                    return _GLANCE
                flow.paused = False
                flow.follow(poll)
        return None

    def serve(self, poll: Any, fd: int) -> None:
        """Go on where this descriptor is ready."""
        for flow in self.flows:
            if fd not in flow.polled:
                continue
            unread = flow.inward and fd == flow.target and not flow.pending
            if unread or not flow.move():
                flow.end(poll)
            else:
                flow.follow(poll)
            return

    def drain(self) -> None:
        """Write out what the process has left in its pipes when it ended."""
        for flow in self.flows:
            if flow.open and not flow.inward:
                flow.drain()


def _in_background(terminal: int) -> bool:
    """Tell whether another process group has this terminal, which we may not read then."""
    try:
        return posix.tcgetpgrp(terminal) != posix.getpgrp()
    except OSError:
        return False  # it has been hung up


def root_of(config: Config) -> tuple[int, int]:
    """Return the user and group that are root of the container's user namespace, -1 without one.

    Root of it cannot give itself a pipe of who is not in there, as init does otherwise.
    """
    linux = config.get("linux") or {}
    return _first(linux.get("uidMappings")), _first(linux.get("gidMappings"))


def _first(mappings: Sequence[IDMapping] | None) -> int:
    """Return the id outside that is 0 inside, -1 if none is."""
    return next((each["hostID"] for each in mappings or () if each["containerID"] == 0), -1)


def _give(fd: int, owner: tuple[int, int]) -> None:
    """Give a pipe to the container's root, where this user may."""
    if owner != (-1, -1):
        try:
            files.fchown(fd, *owner)
        except OSError:
            return


def _widen(fd: int) -> None:
    """Make a pipe larger than usual, where this user may have so much (pipe(7))."""
    try:
        fcntl.fcntl(fd, _F_SETPIPE_SZ, _ROOM)
    except OSError:
        return


def _reopened(fd: int, flags: int) -> int:
    """Return the caller's terminal as a file of our own, which does not block.

    To set that on the caller's would change it for the shell as well.  Other devices stay.
    """
    if not files.isatty(fd):
        return fd
    try:
        return files.open(f"/proc/self/fd/{fd}", flags | files.O_NONBLOCK | files.O_NOCTTY)
    except OSError:
        return fd  # it belongs to somebody else since su(1)
