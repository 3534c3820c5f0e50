"""Start processes and wait for them, with what the interpreter offers itself.

Side: host and init.  No ctypes.
"""

from __future__ import annotations

import _signal

import posix

from . import descriptors, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

# What the C library keeps for itself: 32 and 33, with musl also 34.
RESERVED: Final = range(32, _signal.SIGRTMIN)
ALL_SIGNALS: Final = [
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
    try:
        return posix.posix_spawn(
            path, list(argv), env, file_actions=actions, setsid=session, setsigmask=[],
            setsigdef=ALL_SIGNALS,
        )  # fmt: skip
    except PermissionError as error:
        if not files.missing(error):  # EACCES
            raise
    # glibc asks clone3(2) and takes EPERM, which a filter around us may say, for an answer.
    return _spawn_by_fork(path, argv, env, actions, session)


def _spawn_by_fork(
    path: bytes,
    argv: Sequence[bytes],
    env: Mapping[bytes, bytes],
    actions: Sequence[tuple[int, ...]],
    session: bool,
) -> int:
    """Do what `spawn` does by fork(2), of which no C library makes a clone3(2)."""
    read_end, write_end = descriptors.pipe()
    pid = posix.fork()
    if pid == 0:
        try:
            if session:
                posix.setsid()
            for kind, fd, *rest in actions:
                if kind == posix.POSIX_SPAWN_DUP2:
                    posix.dup2(fd, rest[0])
                else:
                    posix.close(fd)
            for number in ALL_SIGNALS:
                if _signal.getsignal(number) != _signal.SIG_DFL:
                    _signal.signal(number, _signal.SIG_DFL)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, ())
            posix.execve(path, list(argv), env)
        except OSError as error:
            files.write(write_end, str(error.errno).encode())
        finally:
            posix._exit(127)
    files.close(write_end)
    try:
        failure = files.read(read_end, 16)
    finally:
        files.close(read_end)
    if failure:
        wait(pid)
        raise OSError(int(failure), "execve", path)
    return pid


def default_signals() -> None:
    """Undo what the interpreter does to signals, as `spawn` has it, before execve(2)."""
    for number in ALL_SIGNALS:
        _signal.signal(number, _signal.SIG_DFL)
    _signal.pthread_sigmask(_signal.SIG_SETMASK, [])


def wait(pid: int) -> int:
    """waitpid(2): the exit status, or 128 + N for signal N."""
    _, status = posix.waitpid(pid, 0)
    return exit_code(status)


def exit_code(status: int) -> int:
    """Turn a wait status into an exit status, 128 + N for signal N."""
    if posix.WIFSIGNALED(status):
        return 128 + posix.WTERMSIG(status)
    return posix.WEXITSTATUS(status)


def kill_group(pid: int) -> None:
    """Send 9 to the process group of `pid`, which leads it."""
    try:
        posix.killpg(pid, 9)
    except ProcessLookupError:
        return
