"""The container's process: credentials, limits, labels, the filter, execve.

Side: init.  Every function but `prepare` and `execute` is a step of the plan.
Sources: credentials(7), capabilities(7), prctl(2), sched_setattr(2), execve(2), config.md.
"""

from __future__ import annotations

import _signal

import posix

from ..wire import channel
from . import inroot
from ..linux.capabilities import names
from ..errors import CONTRACT, cwd_error, Error, strerror
from ..linux import files, mounts, processes, tasks
from ..linux.const import (
    EACCES,
    EBUSY,
    EINVAL,
    EISDIR,
    ENOENT,
    ENOSYS,
    ENOTDIR,
    ENOTSUP,
    EPERM,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_CAPBSET_READ,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    PROC_SUPER_MAGIC,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final, NoReturn

    from .context import Context

_KEY_USR_SEARCH: Final = 0x00080000
_MAX_CAPABILITY: Final = 63
SCHED_DEADLINE: Final = 6
# Modes of set_mempolicy(2) and the kernel that brought them: PREFERRED_MANY, WEIGHTED_INTERLEAVE.
_MEMORY_SINCE: Final = {5: "5.15", 6: "6.9"}
_NUMA_BALANCING: Final = 1 << 13


def session(context: Context) -> None:
    """Lead a session without a terminal, so that nothing can type into the caller's."""
    tasks.setsid()


def keyring(context: Context, name: str, label: str) -> None:
    """Join a session keyring of the container's own: keyrings are not part of a namespace."""
    if label:
        _label_keys(label)
    try:
        serial = tasks.join_session_keyring(name)
        wanted = tasks.keyring_permissions(serial) | _KEY_USR_SEARCH
        tasks.set_keyring_permissions(serial, wanted)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise Error(f"join session keyring: {strerror(error.errno or 0)}",
                        "--no-new-keyring does without") from None  # fmt: skip
        context.warn(f"no session keyring: {strerror(error.errno)}")


def _label_keys(text: str) -> None:
    """Ask the LSM for the label of the keys that this process makes from here on."""
    path = "/proc/thread-self/attr/keycreate"
    fd = files.open(path, files.O_WRONLY)
    try:
        # The mount namespace may be one that was joined, with anything in the place of /proc.
        if mounts.fstatfs_type(fd) != PROC_SUPER_MAGIC:
            raise Error(f"{path} is not on a procfs")
        files.write(fd, files.encode(text))
    except OSError as error:
        raise Error(
            f"process.selinuxLabel: write {text} to {path}: {strerror(error.errno or 0)}"
        ) from None
    finally:
        files.close(fd)


def home(context: Context, uid: int) -> None:
    """Set HOME from the container's /etc/passwd, else to "/", as runc does."""
    directory = "/"
    try:
        flags = files.O_RDONLY | files.O_NONBLOCK | files.O_NOCTTY
        fd = inroot.open(context.root_fd, "/etc/passwd", flags)
    except OSError:
        fd = -1
    if fd >= 0:
        try:
            if files.fstat(fd).st_mode & files.S_IFMT == files.S_IFREG:
                directory = _home_in(files.read_fd(fd, 1 << 20), uid) or "/"
        finally:
            files.close(fd)
    context.env.append("HOME=" + directory)


def _home_in(passwd: bytes, uid: int) -> str:
    wanted = str(uid).encode()
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted and b"\0" not in fields[5]:
            return files.decode(fields[5])
    return ""


def affinity(context: Context, cpus: Sequence[int]) -> None:
    """Run on these CPUs only (process.execCPUAffinity)."""
    posix.sched_setaffinity(0, cpus)


def reset_affinity() -> None:
    """Give up the CPU mask and the scheduler of the caller; the cpuset cgroup still applies."""
    try:
        foreign = posix.sched_getscheduler(0) != 0
    except OSError as error:
        # musl's functions around the scheduler make no system call.
        if error.errno != ENOSYS:
            raise
        foreign = True
    if foreign:
        try:
            tasks.sched_setattr(0, 0, posix.getpriority(posix.PRIO_PROCESS, 0), 0, 0, 0, 0)
        except OSError as error:
            if error.errno != EPERM:
                raise
    try:
        posix.sched_setaffinity(0, range(1024))
    except OSError as error:
        if error.errno not in (EINVAL, EPERM):  # none of them is in the cpuset
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
        files.write(fd, b"0")
        files.close(fd)


def own_stdio(context: Context, uid: int, gid: int) -> None:
    """Give descriptors 0 to 2 to the user, so that /dev/stdout can be opened by path.

    The null device and what belongs to the user already are left alone.
    """
    null = files.makedev(1, 3)
    for fd in (0, 1, 2):
        found = files.fstat(fd)
        if found.st_uid == uid:
            continue
        if found.st_mode & files.S_IFMT == files.S_IFCHR and found.st_rdev == null:
            continue
        try:
            files.fchown(fd, uid, gid)
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
        tasks.sched_setattr(policy, flags, nice, priority, runtime, deadline, period)
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
        return "a deadline process needs CAP_SYS_NICE and every processor of its root domain"
    if number == EPERM:
        return "it needs CAP_SYS_NICE, and real time a share in each cgroup (cpu.rt_runtime_us)"
    return ""


def io_priority(context: Context, value: int) -> None:
    """Set process.ioPriority."""
    try:
        tasks.ioprio_set(value)
    except OSError as error:
        hint = "the kernel is built without CONFIG_BLOCK" if error.errno == ENOSYS else ""
        raise Error(f"ioprio_set: {strerror(error.errno or 0)}", hint) from None


def personality(context: Context, domain: int) -> None:
    """Set linux.personality, before a filter may forbid it."""
    tasks.personality(domain)


def memory_policy(context: Context, mode: int, nodes: int) -> None:
    """Set linux.memoryPolicy."""
    try:
        tasks.set_mempolicy(mode, nodes)
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


def label(context: Context, name: str, text: str) -> None:
    """Ask the LSM for the label that execve will give to the process."""
    fd = context.attributes[name]
    try:
        files.write(fd, files.encode(text))
    except OSError as error:
        reason = strerror(error.errno or 0)
        raise Error(f"write {text} to /proc/thread-self/attr/{name}: {reason}") from None


def chdir(context: Context, path: str, as_user: bool) -> None:
    """Enter the working directory, resolved inside the root and through no magic link.

    Tried as root first, and once more as the user where root itself is not let in (a mapped
    root, a network file system).  CVE-2024-21626.
    """
    if as_user:
        if not context.cwd_refused:
            return
        try:
            files.chdir(path)
            inside = files.getcwd().startswith("/")
        except OSError as error:
            raise cwd_error(path, error.errno or 0) from None
        if not inside:
            raise Error(f'cwd "{path}" is outside of the container')
        return
    try:
        fd = inroot.open(context.root_fd, path, files.O_PATH | files.O_DIRECTORY)
    except OSError as error:
        if error.errno == EACCES:
            context.cwd_refused = True
            return
        raise cwd_error(path, error.errno or 0) from None
    try:
        files.fchdir(fd)
    except OSError as error:
        if error.errno != EACCES:
            raise cwd_error(path, error.errno or 0) from None
        context.cwd_refused = True
    files.close(fd)


def rlimits(context: Context, limits: Sequence[tuple[int, int, int]]) -> None:
    """Set the resource limits; the host side has raised the hard ones that need it."""
    for kind, soft, hard in limits:
        try:
            tasks.setrlimit(kind, soft, hard)
        except OSError as error:
            reason = strerror(error.errno or 0)
            raise Error(f"error setting rlimit type {kind}: {reason}") from None


def close_descriptors(context: Context) -> None:
    """Close all but 0 to 2, those that the caller passes on, and the channel.

    The channel is moved above the others and closes itself in execve.  CVE-2024-21626.
    """
    keep = 3 + context.plan["process"]["fds"]
    fd = context.channel.sock.fileno()
    if fd != keep:
        files.dup2(fd, keep, inheritable=False)
        context.channel = channel.of(keep)
    for preserved in range(3, keep):
        files.set_inheritable(preserved, True)  # hooks have run without them
    first = keep + 1
    if context.plan["trace"]:
        # Imported when the plan came; only looked up here.
        from ..linux import trace

        trace.move(first)
        first += 1
    tasks.close_range(first, 0xFFFFFFFF)
    context.root_fd = -1
    # The last chance for calls that a filter may forbid.
    _, context.capabilities, _ = tasks.capget()
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, *processes.RESERVED):
        # Ignored by the interpreter, by posix_spawn(3), or by the caller where the C library does
        # not let posix_spawn(3) reset them: that would survive execve.
        tasks.default_signal(number)


def no_new_privs(context: Context) -> None:
    """Let execve give no privileges any more."""
    tasks.prctl(PR_SET_NO_NEW_PRIVS, 1)


def seccomp(context: Context, program: dict[str, Any]) -> None:
    """Load the filter; with a listener, wait until the host side has taken its descriptor."""
    flags = program["flags"]
    if program["notify"]:
        flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        listener = tasks.seccomp_filter(program["bpf"], flags)
    except OSError as error:
        hint = ""
        if program["notify"] and error.errno == EINVAL:
            hint = f"SCMP_ACT_NOTIFY needs Linux 5.0, this is {posix.uname().release}"
        raise Error(f"load seccomp filter: {strerror(error.errno or 0)}", hint) from None
    if program["notify"]:
        # The profile may trap sendmsg, so the descriptor is fetched, not sent.
        context.channel.send(channel.LISTENER, str(listener).encode())
        context.channel.receive()
        files.close(listener)


def drop_bounding(context: Context, keep: int) -> None:
    """Drop what is not in the bounding set, while CAP_SETPCAP is still there."""
    for capability in range(_MAX_CAPABILITY + 1):
        if keep >> capability & 1:
            continue
        try:
            tasks.prctl(PR_CAPBSET_DROP, capability)
        except OSError as error:
            if error.errno == EINVAL:  # past the kernel's last one
                return
            if error.errno == EPERM and not tasks.prctl(PR_CAPBSET_READ, capability):
                continue
            raise
    return


def user(context: Context, uid: int, gid: int, additional_gids: Sequence[int] | None) -> None:
    """Become the user; `additional_gids` None keeps the caller's supplementary groups."""
    tasks.prctl(PR_SET_KEEPCAPS, 1)
    if additional_gids is not None:
        try:
            tasks.setgroups(additional_gids)
        except OSError as error:
            # An unprivileged user namespace denies it (user_namespaces(7)).
            if error.errno != EPERM or additional_gids:
                raise Error(f"setgroups: {strerror(error.errno or 0)}") from None
    try:
        tasks.setresgid(gid)
        tasks.setresuid(uid)
    except OSError as error:
        hint = "the id is not mapped in the user namespace" if error.errno == EINVAL else ""
        raise Error(f"set user {uid}:{gid}: {strerror(error.errno or 0)}", hint) from None
    tasks.prctl(PR_SET_KEEPCAPS, 0)
    try:
        kept = posix.getresuid() != (uid, uid, uid) or posix.getresgid() != (gid, gid, gid)
    except OSError:
        return  # the filter forbids to ask; that -1 is no id was checked with the rest of it
    if kept:
        # setresuid(-1) would have changed nothing and said so to nobody.
        raise Error(f"set user {uid}:{gid}: the kernel kept another one")


def capabilities(
    context: Context, effective: int, permitted: int, inheritable: int, ambient: int
) -> None:
    """Set the process's capability sets; what cannot be granted is dropped with a warning."""
    have = context.capabilities
    missing = (effective | permitted | inheritable | ambient) & ~have
    if missing:
        context.warn("capabilities that cannot be granted: " + " ".join(names(missing)))
    tasks.capset(effective & have, permitted & have, inheritable & have)
    try:
        tasks.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != EINVAL or ambient:  # Linux < 4.3 has none
            raise
    raised = ambient & permitted & inheritable & have
    if ambient & have & ~raised:
        context.warn("ambient capabilities must also be permitted and inheritable")
    for capability in range(raised.bit_length()):
        if raised >> capability & 1:
            tasks.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def umask(context: Context, mask: int) -> None:
    """Set the file mode creation mask."""
    files.umask(mask)


def no_process(context: Context) -> None:
    """Fail: config.json has no process, so there is nothing that start could run."""
    raise Error("process property must not be empty")


def reopen_null(context: Context) -> None:
    """Replace descriptors 0 to 2 that are the host's null device by the container's own.

    It is opened without following a link and used only if it is that device (CVE-2026-88265).
    """
    null = (files.S_IFCHR, files.makedev(1, 3))
    opened = -1
    for fd in (0, 1, 2):
        found = files.fstat(fd)
        if (found.st_mode & files.S_IFMT, found.st_rdev) != null:
            continue
        if opened < 0:
            try:
                opened = inroot.open(context.root_fd, "/dev/null", files.O_RDWR, follow_links=False)
            except OSError:
                return  # the image has none: the host's serves as well
            found = files.fstat(opened)
            if (found.st_mode & files.S_IFMT, found.st_rdev) != null:
                break
        files.dup2(opened, fd)
    if opened >= 0:
        files.close(opened)


class Command:
    """A prepared execve: the files to try and the arrays for the kernel."""

    __slots__ = ("argv", "candidates", "envp", "kept", "name")

    def __init__(self, args: Sequence[str], env: Sequence[str]) -> None:
        """Look the name up in the PATH of `env`, as execvp(3) would; nothing is opened yet."""
        self.name = args[0]
        self.candidates = [files.encode(path) for path in _candidates(args[0], env)]
        self.argv, kept = tasks.strings(args)
        self.envp, kept_env = tasks.strings(env)
        self.kept = kept + kept_env


def _candidates(name: str, env: Sequence[str]) -> list[str]:
    if "/" in name:
        return [name]
    path = ""
    for entry in env:
        if entry.startswith("PATH="):
            path = entry[5:]
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if path else []


def prepare(context: Context, check: bool) -> None:
    """Prepare execve while the container is made; with `check`, fail now if it cannot work.

    Podman and Docker map the text of create's error to their exit statuses 126 and 127.  What
    only execve itself finds out is reported by start.
    """
    wanted = context.plan["process"]
    context.command = Command(wanted["args"], wanted["env"] + context.env)
    if check:
        _look_up(context, context.command, wanted["cwd"])


def _look_up(context: Context, command: Command, cwd: str) -> None:
    failure = ENOENT
    for path in command.candidates:
        text = files.decode(path)
        try:
            fd = inroot.open(context.root_fd, text if text.startswith("/") else f"{cwd}/{text}")
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                if "/" in command.name:
                    failure = error.errno
                continue
            return  # a magic link, or one that root may not follow: execve will say
        mode = files.fstat(fd).st_mode
        files.close(fd)
        if mode & files.S_IFMT == files.S_IFREG and mode & 0o111:
            return
        failure = EISDIR if mode & files.S_IFMT == files.S_IFDIR else EACCES
    name = command.name
    if failure == ENOENT and "/" not in name:
        raise Error(CONTRACT["not in PATH"].format(name=name))
    raise Error(CONTRACT["exec"].format(name=name, reason=_exec_reason(name, failure)))


def execute(command: Command) -> NoReturn:
    """execve(2) the first candidate that can be; raise Error in the words that engines know."""
    failure = 0
    for path in command.candidates:
        try:
            tasks.execve(path, command.argv, command.envp)
        except OSError as error:
            code = error.errno or 0
        if code == EACCES and _is_directory(path):
            code = EISDIR
        if code == ENOENT and "/" not in command.name and files.exists(path):
            # It is there: what is missing is its interpreter.
            raise Error(CONTRACT["exec"].format(
                name=files.decode(path), reason=strerror(code)))  # fmt: skip
        if len(command.candidates) == 1 and "/" in command.name:
            raise Error(CONTRACT["exec"].format(name=command.name, reason=_exec_reason(
                command.name, code)))  # fmt: skip
        if code not in (ENOENT, ENOTDIR, EACCES, EISDIR):
            raise Error(CONTRACT["exec"].format(name=command.name, reason=strerror(code)))
        if code == EACCES:
            failure = code
    if failure:
        raise Error(CONTRACT["exec"].format(name=command.name, reason=strerror(failure)))
    raise Error(CONTRACT["not in PATH"].format(name=command.name))


def _exec_reason(name: str, code: int) -> str:
    if code in (ENOENT, ENOTDIR):
        return f"stat {name}: {strerror(code)}"
    if code == EISDIR:
        # The docker CLI answers 126 for the second part, newer ones for the first as well.
        return f"{strerror(EISDIR)}: {strerror(EACCES)}"
    return strerror(code)


def _is_directory(path: bytes) -> bool:
    try:
        return files.stat(path).st_mode & files.S_IFMT == files.S_IFDIR
    except OSError:
        return False
