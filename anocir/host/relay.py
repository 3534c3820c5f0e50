"""The relay between the caller's terminal and the container's, for a command in the foreground.

Side: host.  Sources: pty(7), termios(3).
"""

from __future__ import annotations

import termios

import posix

from ..linux import files, terminals
from ..linux.errnos import EIO

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final


_CHUNK: Final = 1 << 16


def _callers_terminal() -> int:
    """Return a descriptor of the caller's terminal, as runc looks for it, or -1."""
    for fd in (0, 1, 2):
        if files.isatty(fd):
            return fd
    try:
        return files.open("/dev/tty", files.O_RDWR | files.O_NOCTTY)
    except OSError:
        return -1


def make_ready(master: int) -> None:
    """Give a terminal the size of the caller's, and let a line feed stay one, as from runc.

    The caller's own terminal adds what it needs.  Before the program runs, which may look, or set
    it as it wants it.
    """
    attributes = termios.tcgetattr(master)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(master, termios.TCSANOW, attributes)
    caller = _callers_terminal()
    if caller >= 0:
        terminals.set_size(master, terminals.size(caller))
    if caller > 2:
        files.close(caller)


class Relay:
    """Between the caller's terminal and the master of the container's, until it closes.

    In the background (`run x &`) the caller's terminal is its shell's: neither set nor read from.
    """

    __slots__ = ("caller", "front", "master", "pending", "saved", "typed")

    def __init__(self, master: int) -> None:
        """Take the master; the caller's terminal becomes raw, if we are in its foreground."""
        self.master = master
        self.pending = b""
        self.saved: list[Any] | None = None
        posix.set_blocking(master, False)
        self.caller = _callers_terminal()
        # Whether input comes from a terminal, which has a foreground, and not from a pipe.
        self.typed = files.isatty(0)
        self.front = True
        self.resize()
        self.take()

    def take(self) -> None:
        """Make the caller's terminal raw if it is ours now: at first, and when we are continued."""
        if self.caller < 0:
            return
        self.front = terminals.foreground(self.caller)
        if not self.front:
            return
        if self.saved is None:
            self.saved = termios.tcgetattr(self.caller)
        termios.tcsetattr(self.caller, termios.TCSANOW, _raw(self.saved))

    def listens(self) -> bool:
        """Return whether descriptor 0 may be read."""
        return self.front or not self.typed

    def restore(self) -> None:
        """Give the caller's terminal its settings back, unless its shell has taken it already."""
        if self.saved is not None and terminals.foreground(self.caller):
            termios.tcsetattr(self.caller, termios.TCSADRAIN, self.saved)
        self.saved = None

    def resize(self) -> None:
        """Pass on the size of the caller's terminal (SIGWINCH)."""
        if self.caller >= 0:
            terminals.set_size(self.master, terminals.size(self.caller))

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
    """Return termios(3) attributes as cfmakeraw would make them, but for what is done to output.

    The container's own terminal passes a line feed on as it is (`make_ready`): the caller's
    begins the line.
    """
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    iflag &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR
        | termios.IGNCR | termios.ICRNL | termios.IXON
    )  # fmt: skip
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, cc]
