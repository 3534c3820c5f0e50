"""Start, watch and signal processes, with what the interpreter offers itself.

Side: host and init.  No ctypes.
"""

from __future__ import annotations

import _signal
import select

import posix

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

SIGKILL: Final = 9
SIGTERM: Final = 15
# include/uapi/asm-generic/errno-base.h; not from const.py, which hot commands do without
_ESRCH: Final = 3
_ECHILD: Final = 10
# EINVAL, with newer kernels (6.18) ENOENT: the number is a thread's by now.
_NO_PROCESS: Final = (_ESRCH, 22, 2)

_LOOK_EVERY: Final = 10  # milliseconds

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
    try:
        return posix.posix_spawn(
            path, list(argv), env, file_actions=actions, setsid=session, setsigmask=[],
            setsigdef=_ALL_SIGNALS,
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
    read_end, write_end = files.pipe()
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
            for number in _ALL_SIGNALS:
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
    for number in _ALL_SIGNALS:
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


# The processes behind the descriptors that stand in for pidfds: pid and start time.
_watched: dict[int, tuple[int, int]] = {}


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3: readable once the process has exited.

    Where the kernel, or an interpreter that was built for an older one, has no such call, a
    descriptor that takes its place here: `pidfd_send_signal` and poll(2) do with it what they do
    with a pidfd; for anything else ask `is_pidfd`.
    """
    try:
        return posix.pidfd_open(pid, 0)
    except AttributeError:
        return _watch(pid)
    except OSError as error:
        if not files.missing(error):
            raise
    return _watch(pid)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2), Linux 5.1: never reaches another process of the same number."""
    if pidfd not in _watched or is_pidfd(pidfd):
        try:
            _signal.pidfd_send_signal(pidfd, number)
        except AttributeError:
            pass
        except OSError as error:
            if not files.missing(error):
                raise
        else:
            return
        pid = _pid_behind(pidfd)
    else:
        pid, started = _watched[pidfd]
        if not alive(pid, started):
            raise ProcessLookupError(_ESRCH, "kill", str(pid))
    posix.kill(pid, number)


def has_pidfds() -> bool:
    """Tell whether kernel and interpreter have pidfd_open(2), or `pidfd_open` has a stand-in."""
    try:
        posix.close(posix.pidfd_open(posix.getpid(), 0))
    except AttributeError:
        return False
    except OSError as error:
        return not files.missing(error)
    return True


def is_pidfd(fd: int) -> bool:
    """Tell whether a descriptor of `pidfd_open` is one that other programs can use as well."""
    return posix.fstat(fd).st_mode & files.S_IFMT != files.S_IFIFO


def _pid_behind(pidfd: int) -> int:
    """Return the process that a pidfd refers to (proc_pid_fdinfo(5)), for a moment."""
    for line in files.read_file(f"/proc/self/fdinfo/{pidfd}").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"Pid" and int(value) > 0:
            return int(value)
    raise ProcessLookupError(_ESRCH, "kill", str(pidfd))


def _watch(pid: int) -> int:
    """Return a descriptor that is at its end once this process has exited.

    It is the end of a pipe of which a child of ours holds the other one; the child looks at the
    process, known by pid and start time, a hundred times a second, and ends when we let go.
    """
    try:
        started = stat(pid)[3]
    except FileNotFoundError:
        raise ProcessLookupError(_ESRCH, "pidfd_open", str(pid)) from None
    read_end, write_end = files.pipe()
    child = posix.fork()
    if child == 0:
        try:
            posix.setsid()  # what a terminal sends is not for us
            _signal.pthread_sigmask(_signal.SIG_BLOCK, _ALL_SIGNALS)
            for name in posix.listdir("/proc/self/fd"):
                if int(name) != write_end:
                    _close_any(int(name))
            poll = select.poll()
            poll.register(write_end, 0)  # POLLERR: nobody reads any more
            while _runs(pid, started) and not poll.poll(_LOOK_EVERY):
                continue
        finally:
            posix._exit(0)
    files.close(write_end)
    _watched[read_end] = pid, started
    return read_end


def _runs(pid: int, started: int) -> bool:
    """Do what `alive` does with calls that `--trace`, whose file is closed, does not show."""
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY)
    except OSError:
        return False
    try:
        fields = posix.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return False
    finally:
        posix.close(fd)
    # The letter is the first thread's: with others it may end alone.
    gone = fields[0] in (b"Z", b"X") and int(fields[17]) < 2
    return not gone and int(fields[19]) == started


def _close_any(fd: int) -> None:
    try:
        posix.close(fd)
    except OSError:
        return  # it listed them


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
    fd = files.open(f"/proc/{pid}/stat", files.O_RDONLY)
    try:
        data = files.read(fd, 4096).decode("utf-8", "replace")
    finally:
        files.close(fd)
    # The name may hold anything, also parentheses and blanks.
    name, _, rest = data.partition("(")[2].rpartition(")")
    fields = rest.split()
    return name, fields[0], int(fields[1]), int(fields[19])


def exited(pidfd: int, patience: float = 0.0) -> bool:
    """Tell whether a process has exited, all of its threads, within so many seconds.

    pidfd_open(2): readable then.

    The letter of /proc/PID/stat is that of the first thread, which may end alone.
    """
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(patience * 1000))


def hold(pid: int, start_time: int) -> int:
    """Return a pidfd of the process that had this pid at this start time; -1 when it has exited.

    First the pidfd, then the look into /proc: the start time is that of whom the pidfd holds, or
    of one who got the number later and has another one.
    """
    if pid <= 1:
        return -1
    try:
        pidfd = pidfd_open(pid)
    except OSError as error:
        if error.errno not in _NO_PROCESS:
            raise
        return -1
    if alive(pid, start_time, pidfd):
        return pidfd
    files.close(pidfd)
    return -1


def alive(pid: int, start_time: int, pidfd: int = -1) -> bool:
    """Tell whether the process that had this pid at this start time still runs.

    A zombie counts as gone: it has exited, and only its parent has not looked yet.  The letter in
    /proc is that of its first thread, which may have ended alone: then the pidfd says it.
    """
    if pid <= 1:
        return False
    try:
        _, letter, _, started = stat(pid)
    except (OSError, IndexError, ValueError):
        return False
    if started != start_time:
        return False
    if letter not in "ZX":
        return True
    if pidfd >= 0:
        return not exited(pidfd)
    try:
        own = posix.pidfd_open(pid, 0)
    except AttributeError:
        return _runs(pid, start_time)
    except OSError as error:
        return files.missing(error) and _runs(pid, start_time)
    try:
        return not exited(own)
    finally:
        files.close(own)


def hold_child(pid: int, parent: int) -> tuple[int, int]:
    """Return a pidfd and the start time of a child of ours, the process `parent`.

    Raises ChildProcessError when `pid` is not one.  Until we wait for it, a child keeps its
    number, also when it has exited.
    """
    try:
        _, _, its_parent, started = stat(pid)
        if pid > 1 and its_parent == parent:
            return pidfd_open(pid), started
    except (OSError, IndexError, ValueError):
        pass  # then it is nobody's, so not ours
    raise ChildProcessError(_ECHILD, "wait", str(pid))


def directory(pid: int) -> int:
    """Open /proc/PID.  What is opened below it is that process's, also when it has exited.

    Whose pidfd is held, ask for it again afterwards: until then it had the number.
    """
    try:
        return files.open(f"/proc/{pid}", files.O_PATH | files.O_DIRECTORY)
    except FileNotFoundError:
        raise ProcessLookupError(_ESRCH, "open", f"/proc/{pid}") from None


# include/linux/proc_ns.h, PROC_USER_INIT_INO
_INITIAL: Final = 0xEFFFFFFD


def in_user_namespace() -> bool:
    """Tell whether root here is not root of the host, also where each id is mapped to itself."""
    try:
        return files.stat("/proc/self/ns/user").st_ino != _INITIAL
    except OSError:  # a kernel without user namespaces
        return False
