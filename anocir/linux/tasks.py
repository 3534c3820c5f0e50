"""Processes, namespaces, limits: system calls that the interpreter does not offer.

Side: host and init.  What a process does to itself alone is in `oneself`.
"""

from __future__ import annotations

from _struct import pack, unpack

from ..errors import named
from . import descriptors, ffi, files, sockets
from .const import CLONE_INTO_CGROUP, CLONE_PARENT, PR_CAPBSET_DROP, SIGCHLD

_SIOCSIFFLAGS = 0x8914  # include/uapi/linux/sockios.h
_IFF_UP = 1

_INT, _STR, _BUF = ffi.INT, ffi.STR, ffi.BUF
_unshare = ffi.syscall("unshare", _INT)
_setns = ffi.syscall("setns", _INT, _INT)
_clone = ffi.syscall("clone", _INT, _INT, _INT, _INT, _INT)
_clone3 = ffi.syscall("clone3", _BUF, _INT)
_prctl = ffi.syscall("prctl", _INT, _INT, _INT, _INT, _INT)
_prctl_short = ffi.syscall("prctl", _INT, _INT)
_pidfd_getfd = ffi.syscall("pidfd_getfd", _INT, _INT, _INT)
_prlimit = ffi.syscall("prlimit64", _INT, _INT, _BUF, _BUF)
_signalfd4 = ffi.syscall("signalfd4", _INT, _BUF, _INT, _INT)


def unshare(flags: int) -> None:
    """unshare(2): make new namespaces."""
    _unshare(flags)


def setns(fd: int, kind: int) -> None:
    """setns(2): join a namespace, or several by a pidfd (Linux 5.8)."""
    _setns(fd, kind)


def loopback_up() -> None:
    """SIOCSIFFLAGS (netdevice(7)): bring up the loopback interface of our network namespace."""
    fd = named("socket", sockets.datagram)
    try:
        descriptors.ioctl(fd, _SIOCSIFFLAGS, pack("=16sH22x", b"lo", _IFF_UP))
    except OSError as error:
        raise OSError(error.errno, "SIOCSIFFLAGS", "lo") from None
    finally:
        files.close(fd)


def clone(flags: int = 0) -> int:
    """clone(2) without a new stack, as fork(2) with flags: 0 in the child, else its pid.

    The interpreter's fork hooks do not run: there is one thread, it holds the interpreter's lock
    over the call, and the child is going to execve(2).  CLONE_PARENT makes the child a sibling.
    """
    return _clone(flags | SIGCHLD, 0, 0, 0, 0)


def clone_into(cgroup_fd: int) -> int:
    """clone3(2) with CLONE_PARENT and CLONE_INTO_CGROUP (Linux 5.7): a sibling in that cgroup.

    Moving a process afterwards waits for a grace period of RCU; being born there does not.
    """
    flags = CLONE_PARENT | CLONE_INTO_CGROUP
    # The exit signal comes from our own parent's choice: with CLONE_PARENT it must be 0.
    return _clone3(pack("=11Q", flags, 0, 0, 0, 0, 0, 0, 0, 0, 0, cgroup_fd), 88)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2)."""
    return _prctl(option, arg2, arg3, arg4, arg5)


def drop_bounding(capability: int) -> None:
    """prctl(2) PR_CAPBSET_DROP, which looks at no other argument: there are 40 to drop."""
    _prctl_short(PR_CAPBSET_DROP, capability)


def pidfd_getfd(pidfd: int, target: int) -> int:
    """pidfd_getfd(2), Linux 5.6: a copy of the descriptor `target` of another process."""
    return _pidfd_getfd(pidfd, target, 0)


def signalfd(mask: int) -> int:
    """signalfd4(2): a descriptor that reads the blocked signals in `mask` (bit N-1 for N).

    Each read gives 128 bytes, the first four of which are the signal's number.
    """
    return _signalfd4(-1, pack("=Q", mask), 8, 0o2000000 | 0o4000)


def eventfd() -> int:
    """eventfd2(2): a counter that starts at 0, close-on-exec and non-blocking."""
    return ffi.syscall("eventfd2", _INT, _INT)(0, 0o2000000 | 0o4000)


def getrlimit(kind: int, pid: int = 0) -> tuple[int, int]:
    """prlimit(2): the soft and the hard limit, ours or a process's; 2**64 - 1 is RLIM_INFINITY."""
    limits = bytearray(16)
    _prlimit(pid, kind, None, limits)
    soft, hard = unpack("=QQ", limits)
    return soft, hard


def setrlimit(kind: int, soft: int, hard: int, pid: int = 0) -> None:
    """prlimit(2) on ourselves or on a process; 2**64 - 1 is RLIM_INFINITY.

    Not by the module `resource`, a shared library that would have to be found and loaded.
    """
    _prlimit(pid, kind, pack("=QQ", soft, hard), None)
