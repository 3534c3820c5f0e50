"""Know, watch and signal processes, with what the interpreter offers itself.

Side: host and init.  No ctypes.  `spawn` starts them; `watch` is for kernels without pidfds.
"""

from __future__ import annotations

import _signal

import posix

from . import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

SIGKILL: Final = 9
SIGTERM: Final = 15
# include/uapi/asm-generic/errno-base.h; not from const.py, which hot commands do without
_ESRCH: Final = 3
_EBADF: Final = 9
_ECHILD: Final = 10
# EINVAL, with newer kernels (6.18) ENOENT: the number is a thread's by now.
_NO_PROCESS: Final = (_ESRCH, 22, 2)


def pidfd_open(pid: int) -> int:
    """pidfd_open(2), Linux 5.3: readable once the process has exited.

    Where the kernel, or an interpreter that was built for an older one, has no such call, a
    descriptor that takes its place here: `pidfd_send_signal` and poll(2) do with it what they do
    with a pidfd; for anything else ask `watch.is_pidfd`.
    """
    pidfd = _pidfd_open(pid)
    if pidfd >= 0:
        return pidfd
    from . import watch

    return watch.pidfd(pid)


def child_pidfd(pid: int) -> int:
    """pidfd_open(2) of a child; -1 where there is no such call.

    What stands in for a pidfd looks into a /proc that knows the process, and inside a container
    there may be none; a child can be waited for.
    """
    return _pidfd_open(pid)


def _pidfd_open(pid: int) -> int:
    try:
        return posix.pidfd_open(pid, 0)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and not files.missing(error):
            raise
    return -1


def pidfd_send_signal(pidfd: int, number: int) -> None:
    """pidfd_send_signal(2), Linux 5.1: never reaches another process of the same number."""
    try:
        _signal.pidfd_send_signal(pidfd, number)
    except (AttributeError, OSError) as error:
        # EBADF: it may be what stands in for one.
        if isinstance(error, OSError) and error.errno != _EBADF and not files.missing(error):
            raise
    else:
        return
    from . import watch

    watch.send_signal(pidfd, number)


def kill(pid: int, number: int) -> None:
    """kill(2)."""
    posix.kill(pid, number)


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
    fields = rest.split(None, 20)  # of fifty
    return name, fields[0], int(fields[1]), int(fields[19])


def exited(pidfd: int, patience: float = 0.0) -> bool:
    """Tell whether a process has exited, all of its threads, within so many seconds.

    pidfd_open(2): readable then.

    The letter of /proc/PID/stat is that of the first thread, which may end alone.
    """
    import select

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
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and not files.missing(error):
            return False
        from . import watch

        return watch.runs(pid, start_time)
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


def id_map(pid: int | str, kind: str) -> list[tuple[int, int, int]]:
    """Return the map of a user namespace (proc_pid_uid_map(5)): inside, outside, how many.

    That of the process `pid`, or "self"; `kind` is "uid" or "gid".  Raises OSError.
    """
    words = files.read_file(f"/proc/{pid}/{kind}_map").split()
    return [(int(a), int(b), int(c)) for a, b, c in zip(words[::3], words[1::3], words[2::3])]


# include/linux/proc_ns.h, PROC_USER_INIT_INO
_INITIAL: Final = 0xEFFFFFFD


def in_user_namespace() -> bool:
    """Tell whether root here is not root of the host, also where each id is mapped to itself."""
    try:
        return files.stat("/proc/self/ns/user").st_ino != _INITIAL
    except OSError:  # a kernel without user namespaces
        return False
