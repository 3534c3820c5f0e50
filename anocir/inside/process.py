"""What the container's process runs with: session, limits, scheduling, cgroups, descriptors 0 to 2.

Side: inside.  Sources: sched_setattr(2), set_mempolicy(2), setrlimit(2), config.md.
"""

from __future__ import annotations


from _struct import unpack_from

import posix

from ..base import inroot
from ..errors import Error, named, strerror
from ..linux import entries, files, oneself, tasks
from ..linux.errnos import EBUSY, EINVAL, ENOSYS, ENOTSUP, EPERM
from . import attach, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Final

    from .context import Context
    from ..wire.shapes import FileSystem

SCHED_DEADLINE: Final = 6
# Modes of set_mempolicy(2) and the kernel that brought them: PREFERRED_MANY, WEIGHTED_INTERLEAVE.
_MEMORY_SINCE: Final = {5: "5.15", 6: "6.9"}
_NUMA_BALANCING: Final = 1 << 13


def session(context: Context) -> None:
    """Lead a session without a terminal, so that nothing can type into the caller's."""
    oneself.setsid()


def affinity(context: Context, cpus: Sequence[int]) -> None:
    """Run on these CPUs only (process.execCPUAffinity)."""
    posix.sched_setaffinity(0, cpus)


def reset_affinity() -> None:
    """Give up the CPU mask and the scheduler of the caller; the cpuset cgroup still applies."""
    try:
        foreign = named("sched_getscheduler", posix.sched_getscheduler, 0) != 0
    except OSError as error:
        # musl's functions around the scheduler make no system call.
        if error.errno not in (ENOSYS, EPERM):
            raise
        foreign = True
    if foreign:
        try:
            oneself.sched_setattr(0, 0, posix.getpriority(posix.PRIO_PROCESS, 0), 0, 0, 0, 0)
        except OSError as error:
            if error.errno not in (ENOSYS, EPERM):
                raise
    own_processors()


def own_processors() -> None:
    """Run on all CPUs of the cpuset cgroup.

    Who is born in one (clone3) keeps its parent's until asked, on kernels from 5.7 on that lack
    "cgroup/cpuset: Make cpuset_fork() handle CLONE_INTO_CGROUP properly" (Linux 6.4).
    """
    try:
        oneself.run_anywhere()
    except OSError as error:
        if error.errno not in (EINVAL, ENOSYS, EPERM):  # none of them is in the cpuset
            raise


def join_late(context: Context) -> None:
    """Join the cgroups that count what is done in them, after most of the work is done."""
    join_cgroups(context.late_join)
    context.late_join = []


def join_cgroups(fds: Sequence[int]) -> None:
    """Join cgroups of version 1 by their open tasks files, as the only thread of a process.

    A thread that moves itself does not wait for a grace period of RCU, as it would have to when
    another process wrote its pid (cgroup_procs_write_start in kernel/cgroup/cgroup.c).
    """
    for fd in fds:
        try:
            files.write(fd, b"0")
        except OSError as error:
            raise Error(f"join {_name(fd)}: {strerror(error.errno or 0)}") from None
        files.close(fd)


def _name(fd: int) -> str:
    """Return the path of an open file where a procfs tells it, for an error."""
    try:
        return entries.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return "the container's cgroup"


def streams(
    context: Context, piped: Sequence[tuple[int, int]] = (), own_null: bool = False
) -> None:
    """Note which of descriptors 0 to 2 the caller may give away, while ids are the host's.

    First take the pipes that the host side gives in the place of the caller's devices.  Pipes,
    sockets and regular files of its own: never a device or a terminal, whose node is one
    for the whole host, nor what belongs to somebody else.
    """
    for fd, index in piped:
        files.dup2(context.host_fds[index], fd)
        context.given.append(fd)
    if own_null:
        _replace_nulls(_private_null)
    caller = posix.geteuid()
    for fd in (0, 1, 2):
        found = files.fstat(fd)
        kind = files.kind(found)
        passed = kind in (files.S_IFIFO, files.S_IFSOCK, files.S_IFREG)
        if passed and found.st_uid == caller and fd not in context.given:
            context.given.append(fd)


def own_stdio(context: Context, uid: int) -> None:
    """Give descriptors 0 to 2 to the user, so that /dev/stdout can be opened by path.

    The group stays as it is, as with runc.
    """
    for fd in context.given:
        if files.fstat(fd).st_uid == uid:
            continue
        try:
            files.fchown(fd, uid, -1)
        except OSError as error:
            # Not ours to give away: a read-only file system, or an owner that is not mapped.
            if error.errno not in (EINVAL, EPERM, 30):
                raise


def scheduler(
    context: Context, policy: int, flags: int, nice: int, priority: int, runtime: int,
    deadline: int, period: int,
) -> None:  # fmt: skip
    """Set process.scheduler."""
    try:
        oneself.sched_setattr(policy, flags, nice, priority, runtime, deadline, period)
    except OSError as error:
        number = error.errno or 0
        raise Error(
            f"sched_setattr: {strerror(number)}", _scheduler_hint(number, policy, flags)
        ) from None


def _scheduler_hint(number: int, policy: int, flags: int) -> str:
    release = posix.uname().release
    if number == ENOSYS:
        return f"process.scheduler needs Linux 3.14, this is {release}"
    if number in (EINVAL, ENOTSUP) and flags & ~1:
        return (
            "of its flags RECLAIM needs Linux 4.13, DL_OVERRUN 4.16, KEEP_POLICY, KEEP_PARAMS and "
            f"UTIL_CLAMP 5.3 (with CONFIG_UCLAMP_TASK), this is {release}"
        )
    if number == EBUSY and policy == SCHED_DEADLINE:
        return "the processors have not that much time left for deadline processes"
    if number == EPERM and policy == SCHED_DEADLINE:
        return (
            "the process scheduler can't be used together with AllowedCPUs "
            "(linux.resources.cpu.cpus): a deadline process needs CAP_SYS_NICE and every processor "
            "of its root domain"
        )
    if number == EPERM:
        return "it needs CAP_SYS_NICE, and real time a share in each cgroup (cpu.rt_runtime_us)"
    return ""


def io_priority(context: Context, value: int) -> None:
    """Set process.ioPriority."""
    try:
        oneself.ioprio_set(value)
    except OSError as error:
        hint = "the kernel is built without CONFIG_BLOCK" if error.errno == ENOSYS else ""
        raise Error(f"ioprio_set: {strerror(error.errno or 0)}", hint) from None


def personality(context: Context, domain: int) -> None:
    """Set linux.personality, before a filter may forbid it."""
    oneself.personality(domain)


def memory_policy(context: Context, mode: int, nodes: int) -> None:
    """Set linux.memoryPolicy."""
    try:
        oneself.set_mempolicy(mode, nodes)
    except OSError as error:
        hint = ""
        if error.errno == ENOSYS:
            hint = "linux.memoryPolicy needs a kernel with CONFIG_NUMA"
        elif error.errno == EINVAL:
            since = _MEMORY_SINCE.get(mode & 0xFF)
            since = "5.12" if mode & _NUMA_BALANCING and not since else since
            hint = f"this mode needs Linux {since}, this is {posix.uname().release}" if since else (
                "are these nodes there, and does the mode take nodes?")  # fmt: skip
        raise Error(f"set_mempolicy: {strerror(error.errno or 0)}", hint) from None


def rlimits(context: Context, limits: Sequence[tuple[int, int, int]]) -> None:
    """Set the resource limits; the host side has raised the hard ones that need it."""
    for kind, soft, hard in limits:
        try:
            tasks.setrlimit(kind, soft, hard)
        except OSError as error:
            reason = strerror(error.errno or 0)
            raise Error(f"error setting rlimit type {kind}: {reason}") from None


def umask(context: Context, mask: int) -> None:
    """Set the file mode creation mask."""
    files.umask(mask)


def _own_null(context: Context, null: tuple[int, int]) -> int:
    """Open the container's null device, or return -1."""
    try:
        seen = inroot.open(context.root_fd, "/dev/null", files.O_PATH, follow_links=False)
    except OSError:
        return -1
    try:
        found = files.fstat(seen)
        if files.device(found) != null:
            return -1
        return procfs.reopen(context, seen, files.O_RDWR | files.O_NOCTTY)
    except OSError:
        return -1  # on a mount without devices
    finally:
        files.close(seen)


def _private_null(null: tuple[int, int]) -> int:
    """Make a null device in a tmpfs that is attached nowhere and open it, or return -1."""
    options: FileSystem = {"ms": 0, "super": [], "data": ["nr_blocks=1", "nr_inodes=3", "mode=755"]}
    mount_fd = attach.new_filesystem("tmpfs", "tmpfs", options, 0)
    if mount_fd is None:
        return -1
    try:
        entries.mknod("null", null[0] | 0o666, null[1], dir_fd=mount_fd)
        return files.open("null", files.O_RDWR | files.O_NOCTTY, dir_fd=mount_fd)
    except OSError:
        return -1  # a user namespace makes no devices; its root does not own the host's
    finally:
        files.close(mount_fd)


def reopen_null(context: Context) -> None:
    """Replace descriptors 0 to 2 that are the host's null device by the container's own.

    It is looked at before it is opened, and never reached through a link (CVE-2026-88265).  Where
    the container has none, it is a node of a file system that nobody else has: with the host's
    the container's root could change the mode of /dev/null.
    """

    def opened(null: tuple[int, int]) -> int:
        own = _own_null(context, null)
        return own if own >= 0 else _private_null(null)

    _replace_nulls(opened)


def _replace_nulls(opener: Callable[[tuple[int, int]], int]) -> None:
    null = files.NULL_DEVICE
    wanted = []
    for fd in (0, 1, 2):
        found = files.fstat(fd)
        if files.device(found) == null:
            wanted.append(fd)
    if not wanted:
        return
    opened = opener(null)
    if opened < 0:
        return
    for fd in wanted:
        files.dup2(opened, fd)
    files.close(opened)


# SIGHUP, SIGINT, SIGQUIT, SIGTERM: they end a container that waits for start, as with runc.
_ENDING: Final = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14
_SI_USER: Final = 0  # include/uapi/asm-generic/siginfo.h


def hold_signals(context: Context) -> None:
    """Block the signals that end a container before its start, and have them told.

    The kernel drops a signal that the first process of a pid namespace has no handler for, and
    with one every process inside could send it.  A blocked one says who has.
    """
    context.signal_mask = oneself.block_signals(_ENDING)
    try:
        context.signal_fd = tasks.signalfd(_ENDING & ~context.signal_mask)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise
        oneself.set_signals(context.signal_mask)  # a filter around us


def wait_or_end(context: Context) -> None:
    """Wait until `start` writes; end by a signal from outside of the pid namespace meanwhile.

    Its sender has no number in here; nor needs one that a sender inside makes up, but then the
    signal is not kill(2)'s.
    """
    start = context.line_fds[0]
    try:
        while start not in oneself.wait_readable(start, context.signal_fd):
            number, code, pid = unpack_from("=I4xiI", files.read(context.signal_fd, 128))
            if code == _SI_USER and not pid:
                posix._exit(128 + number)
    except OSError as error:
        if error.errno not in (EINVAL, ENOSYS, EPERM):
            raise
        # RLIMIT_NOFILE is below two, or a filter around us: whoever waits reads.
    oneself.set_signals(context.signal_mask)
    context.signal_fd = -1
