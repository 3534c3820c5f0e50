"""The sd_notify proxy: a container tells the caller's service manager that it is ready.

Side: host.  Sources: sd_notify(3), systemd.service(5) NotifyAccess=, unix(7).

    the caller's NOTIFY_SOCKET     <-- READY=1, MAINPID=..., BARRIER=1 -- start
    <root>/<id>/notify/notify.sock --- READY=1 -----------------------> start
    /run/notify in the container       the same directory, read-only

A manager listens to the processes of its service only, and a pid of the container means nothing
to it.  So nothing but READY is passed on, with the pid that init has on the host.  `start` waits
for it, and the socket ends with `start`: what is said later has no listener, as with runc.
"""

from __future__ import annotations

import _socket
import select
from _struct import pack

import posix

from ..base import log
from ..errors import Error, named, reason, strerror
from ..linux import descriptors, entries, files, processes
from ..linux.errnos import ENAMETOOLONG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final
    from ..model.schema import Facts

DIRECTORY: Final = "notify"
SOCKET: Final = "notify.sock"
TARGET: Final = "/run/notify"

_LARGEST: Final = 1 << 16
_BARRIER_PATIENCE: Final = 5.0  # seconds that the manager may take to read what it was sent


def wanted() -> bool:
    """Tell whether the caller has a service manager that listens."""
    return bool(_address(posix.environ.get(b"NOTIFY_SOCKET", b"")))


def reachable() -> bool:
    """Tell whether the service manager listens at its address."""
    try:
        check_reachable()
    except Error:
        return False
    return True


def check_reachable() -> None:
    """Refuse to wait for what nobody would be told.  Raises Error."""
    address = _address(posix.environ.get(b"NOTIFY_SOCKET", b""))
    if not address:
        return
    sock = named("socket", _socket.socket, _socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        sock.connect(address)
    except OSError as error:
        shown = address.replace(b"\0", b"@").decode("utf-8", "surrogateescape")
        raise Error(
            f"NOTIFY_SOCKET: connect {shown}: {strerror(error.errno or ENAMETOOLONG)}"
        ) from None
    finally:
        sock.close()


def facts(container_path: str) -> Facts:
    """Return what the plan has to know: the socket inside, and the directory to be mounted."""
    if not wanted():
        return {}
    return {"notify": f"{TARGET}/{SOCKET}", "notify_source": f"{container_path}/{DIRECTORY}"}


def prepare(container_fd: int) -> None:
    """Make the directory below the state directory; every user of the container may enter it."""
    entries.mkdir(DIRECTORY, 0o755, container_fd)
    fd = _open_directory(container_fd)
    entries.chmod(f"/proc/self/fd/{fd}", 0o755)
    files.close(fd)


def open_proxy(container_fd: int) -> Proxy | None:
    """Return the listening proxy; None when `create` made none or the caller wants none."""
    address = _address(posix.environ.get(b"NOTIFY_SOCKET", b""))
    if not address:
        return None
    try:
        fd = _open_directory(container_fd)
    except FileNotFoundError:
        return None
    try:
        return Proxy(fd, address)
    finally:
        files.close(fd)


def _open_directory(container_fd: int) -> int:
    flags = files.O_PATH | files.O_DIRECTORY | files.O_NOFOLLOW
    return files.open(DIRECTORY, flags, dir_fd=container_fd)


def _address(value: bytes) -> bytes:
    """Return the address of NOTIFY_SOCKET: a path, or abstract with a NUL in the place of @."""
    if value[:1] == b"@" and len(value) > 1:
        return b"\0" + value[1:]
    return value if value[:1] == b"/" else b""


def ready(message: bytes) -> bytes:
    """Return the line that begins with READY=, empty when a message has none."""
    for line in message.split(b"\n"):
        if line.startswith(b"READY="):
            return line
    return b""


class Proxy:
    """The socket of one container, until it is ready."""

    __slots__ = ("address", "sock")

    def __init__(self, directory_fd: int, address: bytes) -> None:
        """Listen in a directory of any path length, and forward to `address`."""
        self.address = address
        self.sock = named("socket", _socket.socket, _socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            files.unlink(SOCKET, directory_fd)
        except FileNotFoundError:
            pass
        # Whoever the program becomes may write: nobody else has a way to the directory.
        mask = files.umask(0)
        try:
            self.sock.bind(f"/proc/self/fd/{directory_fd}/{SOCKET}")
        except OSError:
            self.sock.close()
            raise
        finally:
            files.umask(mask)

    def fileno(self) -> int:
        """Return the descriptor to poll for `receive`."""
        return self.sock.fileno()

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()

    def receive(self, pid: int) -> bool:
        """Take what has arrived; True once READY was among it, which is then forwarded.

        Descriptors that came along are closed by the kernel, and so every barrier opens.
        """
        while True:
            try:
                message = self.sock.recv(_LARGEST, _socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            line = ready(message)
            if line:
                self._forward(line, pid)
                return True

    def wait(self, pid: int, pidfd: int = -1) -> None:
        """Wait until process `pid` and its container are ready, or it has exited."""
        own = pidfd
        try:
            if pidfd < 0:
                own = processes.pidfd_open(pid)
        except ProcessLookupError:
            self.receive(pid)
            return
        try:
            poll = select.poll()
            poll.register(self.sock, select.POLLIN)
            poll.register(own, select.POLLIN)
            while True:
                events = dict(poll.poll())
                # First what it has said: it may have been its last word.
                if self.receive(pid) or own in events:
                    return
        finally:
            if pidfd < 0:
                files.close(own)

    def _forward(self, line: bytes, pid: int) -> None:
        """Tell the manager, and wait until it has read it: it asks /proc who we are."""
        sock = named("socket", _socket.socket, _socket.AF_UNIX, _socket.SOCK_DGRAM)
        try:
            sock.connect(self.address)
            sock.send(line + b"\nMAINPID=%d" % pid, _socket.MSG_NOSIGNAL)
            _barrier(sock)
        except OSError as error:
            log.warn(f"NOTIFY_SOCKET: {reason(error)}")
        finally:
            sock.close()


def _barrier(sock: Any) -> None:
    """Send BARRIER=1 with the end of a pipe, and wait until the manager has closed it."""
    read_end, write_end = descriptors.pipe()
    try:
        rights = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", write_end))]
        sock.sendmsg([b"BARRIER=1"], rights, _socket.MSG_NOSIGNAL)
    finally:
        files.close(write_end)
    poll = select.poll()
    poll.register(read_end, select.POLLHUP)
    poll.poll(_BARRIER_PATIENCE * 1000)
    files.close(read_end)
