"""The lock of a container: flock(2) of its state directory.

Side: host.
"""

from __future__ import annotations

from ..errors import strerror
from ..linux import descriptors, files
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .store import Container


def take_fd(fd: int, call: Callable[[int], Any] = descriptors.flock) -> None:
    """Take the lock, or give it back; where there is none to be had, do without as runc does."""
    try:
        call(fd)
    except OSError as error:
        from ..base import log

        log.debug(f"the state directory cannot be locked: {strerror(error.errno or 0)}")


def take(container: Container, meanwhile: Callable[[], object] | None = None) -> None:
    """Wait for the lock; raise Error when the container was removed in the meantime.

    It is held over a change of the state, never while a hook or a program of the container
    runs, and the kernel gives it back when we die.  `meanwhile` is called where somebody has it.
    """

    def call(fd: int) -> None:
        if meanwhile and not descriptors.flock(fd, wait=False):
            meanwhile()
            descriptors.flock(fd)

    take_fd(container.dir_fd, call if meanwhile else descriptors.flock)
    if files.fstat(container.dir_fd).st_nlink == 0:
        raise store.missing()


def give(container: Container) -> None:
    """Give the lock back."""
    take_fd(container.dir_fd, descriptors.funlock)
