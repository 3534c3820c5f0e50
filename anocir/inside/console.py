"""Terminals: the container's pty, and the relay of a command in the foreground.

Side: init (`console`) and host (the rest).  Sources: pty(7), ioctl_tty(2), CVE-2025-52565.
"""

from __future__ import annotations

from _struct import pack

import posix
import termios

from ..wire import channel
from . import inroot
from ..errors import Error
from ..linux import files, mounts
from ..linux.const import (
    AT_EMPTY_PATH,
    DEVPTS_SUPER_MAGIC,
    EIO,
    ENOENT,
    OPEN_TREE_CLONE,
    TIOCGPTN,
    TIOCGPTPEER,
    TIOCGWINSZ,
    TIOCSCTTY,
    TIOCSPTLCK,
    TIOCSWINSZ,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .context import Context

_UNIX98_PTY_SLAVE_MAJOR: Final = range(136, 144)
_CHUNK: Final = 1 << 16


def console(context: Context, uid: int, height: int, width: int, bind: bool) -> None:
    """Open a pty in the container's devpts and make it our standard streams.

    The slave comes from the master by TIOCGPTPEER, never by its name, which the image could
    have put something else under.  The master goes up the channel.
    """
    try:
        master = inroot.open(
            context.root_fd, "/dev/pts/ptmx", files.O_RDWR | files.O_NOCTTY, follow_links=False
        )
    except OSError as error:
        if error.errno != ENOENT:
            raise
        raise Error("a terminal needs a mount of type devpts on /dev/pts") from None
    found = files.fstat(master)
    if mounts.fstatfs_type(master) != DEVPTS_SUPER_MAGIC or found.st_rdev != files.makedev(5, 2):
        raise Error("/dev/pts/ptmx of the container is not the pty multiplexer")
    files.ioctl(master, TIOCSPTLCK, pack("=i", 0))
    flags = files.O_RDWR | files.O_NOCTTY | files.O_CLOEXEC
    slave = files.ioctl(master, TIOCGPTPEER, flags)
    if not isinstance(slave, int):
        raise Error("no slave for the pty")
    if posix.major(files.fstat(slave).st_rdev) not in _UNIX98_PTY_SLAVE_MAJOR:
        raise Error("the slave of the pty is another device")
    if height or width:
        set_size(slave, (height, width))
    if uid:
        files.fchown(slave, uid, -1)
    if bind:
        _bind_console(context, slave)
    number = files.ioctl(master, TIOCGPTN, bytes(4))
    index = int.from_bytes(number, "little") if isinstance(number, bytes) else 0
    context.channel.send(channel.CONSOLE, f"/dev/pts/{index}".encode(), [master])
    files.close(master)
    files.ioctl(slave, TIOCSCTTY, 0)
    for fd in (0, 1, 2):
        files.dup2(slave, fd)
    files.close(slave)


def _bind_console(context: Context, slave: int) -> None:
    """Mount the slave on /dev/console, a plain file that is never reached by a link."""
    directory = inroot.make_directory(context.root_fd, "/dev")
    try:
        flags = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
        try:
            files.close(files.open("console", flags, 0o666, dir_fd=directory))
        except FileExistsError:
            pass
        target = files.open("console", files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
        if files.fstat(target).st_mode & files.S_IFMT in (files.S_IFLNK, files.S_IFDIR):
            raise Error("/dev/console of the image is a link or a directory")
        tree = mounts.open_tree(slave, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
        mounts.move_mount(tree, target)
        files.close(tree)
        files.close(target)
    finally:
        files.close(directory)


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal."""
    data = files.ioctl(fd, TIOCGWINSZ, bytes(8))
    if not isinstance(data, bytes):
        return 0, 0
    return int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")


def set_size(fd: int, rows_columns: tuple[int, int]) -> None:
    """Set the size of a terminal."""
    files.ioctl(fd, TIOCSWINSZ, pack("=HHHH", *rows_columns, 0, 0))


class Relay:
    """Between the caller's terminal and the master of the container's, until it closes."""

    __slots__ = ("master", "pending", "saved")

    def __init__(self, master: int) -> None:
        """Take the master; the caller's terminal becomes raw, if descriptor 0 is one."""
        self.master = master
        self.pending = b""
        self.saved: list[Any] | None = None
        posix.set_blocking(master, False)
        if files.isatty(0):
            set_size(master, size(0))
            self.saved = termios.tcgetattr(0)
            termios.tcsetattr(0, termios.TCSANOW, _raw(self.saved))

    def restore(self) -> None:
        """Give the caller's terminal its settings back."""
        if self.saved is not None:
            termios.tcsetattr(0, termios.TCSADRAIN, self.saved)
            self.saved = None

    def resize(self) -> None:
        """Pass on the size of the caller's terminal (SIGWINCH)."""
        if files.isatty(0):
            set_size(self.master, size(0))

    def output(self) -> bool:
        """Copy from the container to descriptor 1; False at the end."""
        try:
            data = files.read(self.master, _CHUNK)
        except OSError as error:
            if error.errno != EIO:
                raise
            return False
        if data:
            files.write_all(1, data)
        return bool(data)

    def input(self) -> bool:
        """Take from descriptor 0 what `flush` then writes; False at the end of the input."""
        try:
            self.pending = files.read(0, 4096)
        except OSError as error:
            if error.errno != EIO:
                raise
            self.pending = b""
        return bool(self.pending)

    def flush(self) -> None:
        """Write pending input to the container, as much as its terminal takes now."""
        try:
            self.pending = self.pending[files.write(self.master, self.pending) :]
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != EIO:
                raise
            self.pending = b""


def _raw(attributes: list[Any]) -> list[Any]:
    """Return termios(3) attributes as cfmakeraw would make them."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
        | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    oflag &= ~termios.OPOST
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]
