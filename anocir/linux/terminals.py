"""The size of terminals, and whose they are.  Source: ioctl_tty(2)."""

from __future__ import annotations

from _struct import pack

import posix

from . import descriptors
from .const import TIOCGPGRP, TIOCGWINSZ, TIOCSCTTY, TIOCSWINSZ
from .errnos import EIO, ENOTTY


def control(fd: int) -> None:
    """Make it the terminal of our session, which has none."""
    descriptors.ioctl(fd, TIOCSCTTY, 0)


def foreground(fd: int) -> bool:
    """Return whether our process group may change a terminal and read from it.

    Nobody is in the background of a terminal of another session, or in the foreground of one that
    hung up.
    """
    try:
        data = descriptors.ioctl(fd, TIOCGPGRP, bytes(4))
    except OSError as error:
        if error.errno not in (ENOTTY, EIO):
            raise
        return error.errno == ENOTTY
    return isinstance(data, bytes) and int.from_bytes(data, "little") == posix.getpgrp()


def size(fd: int) -> tuple[int, int]:
    """Return (rows, columns) of a terminal."""
    data = descriptors.ioctl(fd, TIOCGWINSZ, bytes(8))
    if not isinstance(data, bytes):
        return 0, 0
    return int.from_bytes(data[0:2], "little"), int.from_bytes(data[2:4], "little")


def set_size(fd: int, rows_columns: tuple[int, int]) -> None:
    """Set the size of a terminal."""
    descriptors.ioctl(fd, TIOCSWINSZ, pack("=HHHH", *rows_columns, 0, 0))
