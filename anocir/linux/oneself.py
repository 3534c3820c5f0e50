"""What a process does to itself before it becomes the program: the calls that only init makes.

Side: init, and the host's children.  System calls that the interpreter does not offer.
"""

from __future__ import annotations

from _struct import iter_unpack, pack, unpack

import posix

from . import ffi, files, tasks
from .const import (
    AT_EMPTY_PATH,
    CLOSE_RANGE_CLOEXEC,
    KEYCTL_DESCRIBE,
    KEYCTL_GET_KEYRING_ID,
    KEYCTL_JOIN_SESSION_KEYRING,
    KEYCTL_SETPERM,
    KEY_SPEC_SESSION_KEYRING,
    LINUX_CAPABILITY_VERSION_3,
    PR_SET_NAME,
    RLIMIT_NOFILE,
    SECCOMP_SET_MODE_FILTER,
)
from .errnos import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

_INT, _STR, _BUF = ffi.INT, ffi.STR, ffi.BUF
LAST_FD = 0xFFFFFFFF  # the highest number of a descriptor, as close_range(2) takes it
_prctl_name = ffi.syscall("prctl", _INT, _BUF, _INT, _INT, _INT)
_capget = ffi.syscall("capget", _BUF, _BUF)
_capset = ffi.syscall("capset", _BUF, _BUF)
_close_range = ffi.syscall("close_range", _INT, _INT, _INT)
_execve = ffi.syscall("execve", _STR, _BUF, _BUF, at_once=True)
_execveat = ffi.syscall("execveat", _INT, _STR, _BUF, _BUF, _INT, at_once=True)
_keyctl = ffi.syscall("keyctl", _INT, _INT, _INT, _INT, _INT)
_keyctl_name = ffi.syscall("keyctl", _INT, _STR, _INT, _INT, _INT)
_keyctl_buffer = ffi.syscall("keyctl", _INT, _INT, _BUF, _INT, _INT)
_sethostname = ffi.syscall("sethostname", _STR, _INT)
_setdomainname = ffi.syscall("setdomainname", _STR, _INT)
_personality = ffi.syscall("personality", _INT)
_ioprio_set = ffi.syscall("ioprio_set", _INT, _INT, _INT)
_sched_setaffinity = ffi.syscall("sched_setaffinity", _INT, _INT, _BUF)
_sched_setattr = ffi.syscall("sched_setattr", _INT, _BUF, _INT)
_set_mempolicy = ffi.syscall("set_mempolicy", _INT, _BUF, _INT)
_rt_sigaction = ffi.syscall("rt_sigaction", _INT, _BUF, _INT, _INT)
_rt_sigprocmask = ffi.syscall("rt_sigprocmask", _INT, _BUF, _BUF, _INT, at_once=True)
_ppoll = ffi.syscall("ppoll", _BUF, _INT, _BUF, _BUF, _INT, at_once=True)
_seccomp = ffi.syscall("seccomp", _INT, _INT, _BUF, at_once=True)
# Whether /proc is the host's: init says no before it enters the container's root.
host_proc = True
# The number above every descriptor that can be open, as it was at the first question.
_most = 0


def set_name(name: str) -> None:
    """prctl(2) PR_SET_NAME: the first 15 bytes are what ps and /proc/PID/comm show."""
    _prctl_name(PR_SET_NAME, ffi.encode(name)[:15] + b"\0", 0, 0, 0)


def capget(pid: int = 0) -> tuple[int, int, int]:
    """capget(2): the effective, permitted and inheritable sets as bit masks."""
    data = bytearray(24)
    _capget(bytearray(pack("=Ii", LINUX_CAPABILITY_VERSION_3, pid)), data)
    low_e, low_p, low_i, high_e, high_p, high_i = unpack("=6I", data)
    return low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """capset(2): set the three sets, as bit masks, of the calling process."""
    low = 0xFFFFFFFF
    data = pack(
        "=6I",
        effective & low,
        permitted & low,
        inheritable & low,
        effective >> 32,
        permitted >> 32,
        inheritable >> 32,
    )
    _capset(bytearray(pack("=Ii", LINUX_CAPABILITY_VERSION_3, 0)), data)


def close_on_exec(first: int) -> None:
    """close_range(2) with CLOSE_RANGE_CLOEXEC (Linux 5.11): for every descriptor from `first`."""
    try:
        _close_range(first, LAST_FD, CLOSE_RANGE_CLOEXEC)
    except OSError as error:
        if error.errno != EINVAL and not files.missing(error):
            raise
        for fd in _open_ones(first, LAST_FD):
            try:
                posix.set_inheritable(fd, False)
            except OSError:
                continue  # not open


def close_range(first: int, last: int) -> None:
    """close_range(2) (Linux 5.9): close the descriptors from `first` to `last`."""
    try:
        _close_range(first, last, 0)
    except OSError:  # whatever it is, for each one alone is another way
        if last < first:
            raise
        found = _open_ones(first, last)
        if isinstance(found, range):
            posix.closerange(found.start, found.stop)  # in C, and passes over what is not open
            return
        for fd in found:
            try:
                posix.close(fd)
            except OSError:
                continue  # the one that listed them


def _open_ones(first: int, last: int) -> Sequence[int]:
    """Return the open descriptors between two numbers, or a range in which all of them are.

    A limit may be lowered below a descriptor that is open, so it is taken before any is.
    """
    global _most
    if not _most:
        _most = min(max(tasks.getrlimit(RLIMIT_NOFILE)), 1 << 20)
    if host_proc:
        try:
            found = [int(name) for name in files.listdir("/proc/self/fd")]
        except OSError:
            found = []  # no /proc at all
        if found:
            return [fd for fd in found if first <= fd <= last]
    return range(first, min(last + 1, _most))


def strings(values: Sequence[str | bytes]) -> tuple[bytearray, list[bytearray]]:
    """Return a NULL-terminated array of C strings, and what keeps its strings alive.

    They end in a word of zeros: an address of less takes a class more (ffi).
    """
    kept = [bytearray(ffi.encode(value) + bytes(8)) for value in values]
    addresses = [ffi.address(value) for value in kept]
    return bytearray(pack(f"={len(kept) + 1}Q", *addresses, 0)), kept


def execve(path: bytes, argv: bytearray, envp: bytearray) -> None:
    """execve(2) by number, so that nothing is allocated or looked up after a filter is loaded.

    `argv` and `envp` come from `strings`.  Returns only by raising OSError.
    """
    _execve(path, argv, envp)


def execveat(fd: int, argv: bytearray, envp: bytearray) -> None:
    """execveat(2) of the file that `fd` refers to; `argv` and `envp` come from `strings`.

    Returns only by raising OSError.
    """
    _execveat(fd, "", argv, envp, AT_EMPTY_PATH)


def join_session_keyring(name: str) -> int:
    """keyctl(2) KEYCTL_JOIN_SESSION_KEYRING: the serial number of the keyring.

    One of that name that we may search, else a new one; without a name always a new one.
    """
    if not name:
        return _keyctl(KEYCTL_JOIN_SESSION_KEYRING, 0, 0, 0, 0)
    return _keyctl_name(KEYCTL_JOIN_SESSION_KEYRING, name, 0, 0, 0)


def keyring_permissions(serial: int) -> int:
    """keyctl(2) KEYCTL_DESCRIBE: the permission mask of a key."""
    text = bytearray(1024)
    size = _keyctl_buffer(KEYCTL_DESCRIBE, serial, text, len(text), 0)
    return int(bytes(text[:size]).split(b";")[3], 16)


def set_keyring_permissions(serial: int, mask: int) -> None:
    """keyctl(2) KEYCTL_SETPERM."""
    _keyctl(KEYCTL_SETPERM, serial, mask, 0, 0)


def session_keyring() -> int:
    """keyctl(2) KEYCTL_GET_KEYRING_ID of the session keyring: its serial number."""
    return _keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_SESSION_KEYRING, 0, 0, 0)


def sethostname(name: str) -> None:
    """sethostname(2)."""
    _sethostname(name, len(ffi.encode(name)))


def setdomainname(name: str) -> None:
    """setdomainname(2): the NIS domain name."""
    _setdomainname(name, len(ffi.encode(name)))


def personality(domain: int) -> int:
    """personality(2): the old one."""
    return _personality(domain)


def ioprio_set(value: int) -> None:
    """ioprio_set(2) for the calling process: class << 13 | level."""
    _ioprio_set(1, 0, value)  # IOPRIO_WHO_PROCESS


def sched_setattr(
    policy: int, flags: int, nice: int, priority: int, runtime: int, deadline: int, period: int
) -> None:
    """sched_setattr(2) for the calling process; times in nanoseconds."""
    size = 48
    data = pack("=IIQiIQQQ", size, policy, flags, nice, priority, runtime, deadline, period)
    _sched_setattr(0, data, 0)


def run_anywhere() -> None:
    """sched_setaffinity(2): run on every one of the first 1024 CPUs that the cpuset cgroup has.

    The interpreter's own call makes the mask bit by bit, in ten times the time.
    """
    _sched_setaffinity(0, len(_EVERY_CPU), _EVERY_CPU)


_EVERY_CPU: Final = b"\xff" * 128


def set_mempolicy(mode: int, nodes: int) -> None:
    """set_mempolicy(2): a mode with its flags, and the NUMA nodes as a bit mask."""
    if nodes == 0:
        _set_mempolicy(mode, None, 0)
        return
    words = (nodes.bit_length() + 63) // 64
    mask = nodes.to_bytes(words * 8, "little")
    _set_mempolicy(mode, mask, words * 64 + 1)


def seccomp_filter(program: bytes, flags: int) -> int:
    """seccomp(2) SECCOMP_SET_MODE_FILTER; the listener's descriptor with NEW_LISTENER, else 0.

    `program` is an array of struct sock_filter, 8 bytes each.
    """
    code = bytearray(program)
    fprog = pack("=HxxxxxxQ", len(program) // 8, ffi.address(code))
    return _seccomp(SECCOMP_SET_MODE_FILTER, flags, fprog)


def seccomp(operation: int, flags: int, argument: bytes | None) -> int:
    """seccomp(2) to ask the kernel what it knows; a filter is loaded by `seccomp_filter`."""
    return _seccomp(operation, flags, argument)


def setsid() -> None:
    """setsid(2)."""
    posix.setsid()


_NGROUPS_MAX: Final = 65536  # include/uapi/linux/limits.h


def setgroups(gids: Sequence[int]) -> None:
    """setgroups(2); Python has no errno for more than NGROUPS_MAX."""
    if len(gids) > _NGROUPS_MAX:
        raise OSError(EINVAL, "setgroups")
    posix.setgroups(list(gids))


def setresgid(gid: int) -> None:
    """setresgid(2): real, effective and saved id."""
    posix.setresgid(gid, gid, gid)


def setresuid(uid: int) -> None:
    """setresuid(2): real, effective and saved id."""
    posix.setresuid(uid, uid, uid)


def set_fs_ids(uid: int, gid: int) -> None:
    """setfsgid(2), setfsuid(2): who makes files from now on; a uid above 0 has no CAP_DAC_*."""
    ffi.syscall("setfsgid", _INT)(gid)
    ffi.syscall("setfsuid", _INT)(uid)


def default_signal(number: int) -> None:
    """rt_sigaction(2) with SIG_DFL, also for the signals that the C library keeps for itself.

    glibc's posix_spawn(3) leaves 32 and 33 ignored, which survives execve(2), and its
    sigaction(3) refuses to touch them.
    """
    _rt_sigaction(number, bytes(32), 0, 8)


_SIG_BLOCK = 0  # include/uapi/asm-generic/signal-defs.h
_SIG_SETMASK = 2
_POLLIN = 1  # include/uapi/asm-generic/poll.h


def block_signals(mask: int) -> int:
    """rt_sigprocmask(2): block the signals in `mask` too (bit N-1 for N); returns the old mask."""
    before = bytearray(8)
    _rt_sigprocmask(_SIG_BLOCK, pack("=Q", mask), before, 8)
    return int(unpack("=Q", before)[0])


def set_signals(mask: int) -> None:
    """rt_sigprocmask(2): block the signals in `mask` and no other.  May come after a filter."""
    _rt_sigprocmask(_SIG_SETMASK, pack("=Q", mask), None, 8)


def wait_readable(*fds: int) -> list[int]:
    """ppoll(2): wait until some of the descriptors can be read, and return them.

    May come after a filter, for which the module `select` would have to be there already.
    """
    wanted = bytearray(b"".join([pack("=ihh", fd, _POLLIN, 0) for fd in fds]))
    _ppoll(wanted, len(fds), None, None, 8)
    return [fd for fd, _, found in iter_unpack("=ihh", wanted) if found]
