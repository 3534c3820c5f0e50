"""Start, watch and signal processes, with what the interpreter offers itself.

Side: host and init.  No ctypes.
"""

from __future__ import annotations

import _signal
import posix

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

SIGKILL: Final = 9
SIGTERM: Final = 15

# What the C library keeps for itself: 32 and 33, with musl also 34.
RESERVED: Final = range(32, _signal.SIGRTMIN)
_ALL_SIGNALS: Final = [
    number
    for number in range(1, 65)
    if number not in (9, 19) and number not in RESERVED  # KILL, STOP
]


def spawn(
    path: bytes,
    argv: Sequence[bytes],
    env: Mapping[bytes, bytes],
    actions: Sequence[tuple[int, ...]],
    session: bool = True,
) -> int:
    """posix_spawn(3), which is vfork(2) underneath: the pid of the child.

    The child has default signal dispositions, an empty mask and, with `session`, a session and
    so a process group of its own.  Raises OSError when the program cannot be executed.
    """
    if _signal.getsignal(_signal.SIGCHLD) != _signal.SIG_DFL:
        # A caller that ignores it would have the kernel reap our children.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
    return posix.posix_spawn(
        path, list(argv), env, file_actions=actions, setsid=session, setsigmask=[],
        setsigdef=_ALL_SIGNALS,
    )  # fmt: skip


def wait(pid: int) -> int:
    """waitpid(2): the exit status, or 128 + N for signal N."""
    _, status = posix.waitpid(pid, 0)
    return exit_code(status)


def exit_code(status: int) -> int:
    """Turn a wait status into an exit status, 128 + N for signal N."""
    if posix.WIFSIGNALED(status):
        return 128 + posix.WTERMSIG(status)
    return posix.WEXITSTATUS(status)


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3: readable once the process has exited."""
    return posix.pidfd_open(pid, 0)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2), Linux 5.1: never reaches another process of the same number."""
    _signal.pidfd_send_signal(pidfd, number)


def kill(pid: int, number: int) -> None:
    """kill(2)."""
    posix.kill(pid, number)


def kill_group(pid: int) -> None:
    """Send SIGKILL to the process group of `pid`, which leads it."""
    try:
        posix.killpg(pid, SIGKILL)
    except ProcessLookupError:
        return


def stat(pid: int) -> tuple[str, str, int, int]:
    """Return (name, state letter, parent, start time in clock ticks) from proc_pid_stat(5).

    Raises OSError when there is no such process.
    """
    data = files.read_file(f"/proc/{pid}/stat").decode("utf-8", "replace")
    # The name may hold anything, also parentheses and blanks.
    name, _, rest = data.partition("(")[2].rpartition(")")
    fields = rest.split()
    return name, fields[0], int(fields[1]), int(fields[19])


def alive(pid: int, start_time: int) -> bool:
    """Tell whether the process that had this pid at this start time still runs.

    A zombie counts as gone: it has exited, and only its parent has not looked yet.
    """
    if pid <= 1:
        return False
    try:
        _, letter, _, started = stat(pid)
    except OSError:
        return False
    return letter not in "ZX" and started == start_time
