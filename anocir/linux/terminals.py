"""The size of terminals.  Source: ioctl_tty(2)."""

from __future__ import annotations

from _struct import pack

from . import files
from .const import TIOCGWINSZ, TIOCSCTTY, TIOCSWINSZ


def control(fd: int) -> None:
    """Make it the terminal of our session, which has none."""
    files.ioctl(fd, TIOCSCTTY, 0)


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal."""
    data = files.ioctl(fd, TIOCGWINSZ, bytes(8))
    if not isinstance(data, bytes):
        return 0, 0
    return int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")


def set_size(fd: int, rows_columns: tuple[int, int]) -> None:
    """Set the size of a terminal."""
    files.ioctl(fd, TIOCSWINSZ, pack("=HHHH", *rows_columns, 0, 0))
