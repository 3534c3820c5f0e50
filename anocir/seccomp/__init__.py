"""linux.seccomp of config.json as a BPF program, and what that program would do.

Side: host, before any namespace is entered; pure but for libseccomp and the cache.  Init only
loads the bytes with the flags: seccomp(SECCOMP_SET_MODE_FILTER, flags, program).

    __init__   compile, the check against the runtime's own calls, the listener's message
    cache      programs kept by content under the state root
    generate   profile -> program, through libseccomp; imported when the cache has no answer
    rules      the profile's rules, in portions that libseccomp compiles right
    library    libseccomp itself
    program    classic BPF: the ENOSYS prologue, chaining, an evaluator
    support    what the library and the kernel at hand can do

Sources: config-linux.md "Seccomp", seccomp(2), seccomp_rule_add(3).
"""

from __future__ import annotations

from ..base import log
from ..errors import at, Error, strerror
from . import cache

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Final
    from ..model.schema import ProcessState, Seccomp, SeccompFeatures, State
    from ..wire.shapes import Filter

# include/uapi/linux/seccomp.h
RET_KILL_PROCESS: Final = 0x80000000
RET_KILL_THREAD: Final = 0x00000000
RET_TRAP: Final = 0x00030000
RET_ERRNO: Final = 0x00050000
RET_USER_NOTIF: Final = 0x7FC00000
RET_LOG: Final = 0x7FFC0000
RET_ALLOW: Final = 0x7FFF0000
RET_ACTION: Final = 0xFFFF0000
RET_DATA: Final = 0x0000FFFF
FLAG_TSYNC: Final = 1
FLAG_LOG: Final = 2
FLAG_SPEC_ALLOW: Final = 4
FLAG_NEW_LISTENER: Final = 8
FLAG_TSYNC_ESRCH: Final = 16
FLAG_WAIT_KILLABLE_RECV: Final = 32

# What init calls between loading the filter and the new program.  With noNewPrivileges the filter
# comes last; without it, loading needs CAP_SYS_ADMIN (seccomp(2), EACCES), which is given up
# afterwards.  Needed: init gives up when the call fails.  Optional: init goes on.
NEEDED_LAST: Final = ("read", "write", "execve")
NEEDED_EARLY: Final = ("capset", *NEEDED_LAST)
OPTIONAL: Final = ("close",)
# With a listener init tells its number and waits until the host side has it.
NEEDED_LISTENER: Final = ("write", "read", "close")
# What the process that clones init and init itself call where the filter is there before: else
# init is cloned before the filter.
CLONING: Final = ("clone", "exit_group", "setsid", "prlimit64")
# What init calls besides while it waits for start, so that signals from outside end it.
WAITING: Final = ("exit_group", "ppoll", "rt_sigprocmask")
# The calls whose outcome is kept with a cached program, so that the check after a cache hit
# evaluates nothing.
PROBED: Final = tuple(
    sorted({*NEEDED_EARLY, *OPTIONAL, *NEEDED_LISTENER, *CLONING, *WAITING, "ioctl"} - {"clone"})
)


def compile(  # noqa: A001
    profile: Seccomp, cache_dir: str | None, warn: Callable[[str], object]
) -> Filter:
    """Return {"bpf", "flags", "notify", ...} for a type-checked linux.seccomp object.

    `cache_dir` is a directory for compiled programs, made when it is missing; without one every
    call compiles.  `warn` gets what the profile asks for in vain.  Raises Error for a profile
    that cannot be turned into a program.
    """
    found = cache.key({k: v for k, v in profile.items() if not k.startswith("listener")})
    entry = cache.load(cache_dir, found) if cache_dir else None
    if entry is None:
        from . import generate

        entry = generate.generate(profile)
        if cache_dir:
            cache.store(cache_dir, found, entry)
    _check_listener(profile, entry["notify"])
    for text in entry["ignored"]:
        log.debug(f"linux.seccomp: {text}")
    for text in entry["warnings"]:
        warn(f"linux.seccomp: {text}")
    return entry


def _check_listener(profile: Seccomp, notify: bool) -> None:
    """Refuse what "listenerPath" and "listenerMetadata" of config-linux.md rule out."""
    path = profile.get("listenerPath")
    if profile.get("listenerMetadata") and not path:
        raise at("linux.seccomp.listenerMetadata", "must not be set without listenerPath")
    if notify and not path:
        raise at("linux.seccomp.listenerPath", "must be set, since SCMP_ACT_NOTIFY is used")


def check_after_load(
    program: Filter,
    needed: Iterable[str] = NEEDED_EARLY,
    optional: Iterable[str] = OPTIONAL,
    handover: Iterable[str] = ("write",),
) -> None:
    """Refuse a program under which init could not reach the container's own program.

    `needed` are calls without which init fails: neither a signal nor an errno will do.  `optional`
    are calls whose failure init survives: only a signal is refused.  `handover` are calls made
    before the listener's descriptor has reached its agent: nobody would answer their notification.
    A call is refused only when every value of its arguments leads there, since the arguments are
    not looked at; calls that only some containers need (chdir, sendmsg ...) are not in the lists.
    SCMP_ACT_TRACE passes: a tracer may be there.  Raises Error naming the call.
    """
    trapped = tuple(handover)
    for name in (*needed, *(NEEDED_LISTENER if program["notify"] else ())):
        _refuse(name, _outcomes(program, name), True, name in trapped)
    for name in optional:
        _refuse(name, _outcomes(program, name), False, name in trapped)


def lets_clone(program: Filter, terminal: bool) -> bool:
    """Tell whether a process behind the filter can clone init, and init can lead a session."""
    return _lets(program, (*CLONING, "ioctl") if terminal else CLONING)


def lets_wait(program: Filter) -> bool:
    """Tell whether an init behind the filter can wait for signals too (init.hold_signals)."""
    return _lets(program, WAITING)


def _lets(program: Filter, names: Iterable[str]) -> bool:
    return all(
        value & RET_ACTION in (RET_ALLOW, RET_LOG)
        for name in names
        for value in _outcomes(program, name)
    )


def _refuse(name: str, outcomes: list[int], needed: bool, trapped: bool) -> None:
    reasons = [_failure(name, value, needed, trapped) for value in outcomes]
    if reasons and all(reasons):
        raise Error(
            f"linux.seccomp: the profile {reasons[0]}, which the runtime calls after the filter"
            " is loaded",
            hint=f"allow {name} in linux.seccomp.syscalls",
        )


def _failure(name: str, value: int, needed: bool, trapped: bool) -> str:
    """Say what a filter's answer does to init, or nothing when init lives with it."""
    action = value & RET_ACTION
    if action in (RET_KILL_PROCESS, RET_KILL_THREAD):
        return f"kills the process at {name}"
    if action == RET_TRAP:
        return f"raises SIGSYS at {name}"
    if action == RET_USER_NOTIF and trapped:
        return f"waits for an agent that is not connected yet at {name}"
    if action == RET_ERRNO and needed:
        code = value & RET_DATA
        return f'answers "{strerror(code) if code else "done"}" to {name}'
    return ""


def _outcomes(program: Filter, name: str) -> list[int]:
    """Return every value that the program can give for a call of this process."""
    known = program.get("outcomes", {}).get(name)
    if known is not None:
        return known
    from . import generate

    return generate.outcomes(program["bpf"], name)


def run(bpf: bytes, nr: int, args: tuple[int, ...] = (), arch: int = 0, ip: int = 0) -> int:
    """Return what the program answers to a call: an action and 16 bits of data.

    `arch` is an AUDIT_ARCH_* value, 0 for this machine's own.  Pure.
    """
    from . import program

    return program.run(bpf, nr, args, arch or program.native_arch(), ip)


def features() -> SeccompFeatures:
    """Return the "seccomp" object of features-linux.md."""
    from . import support

    return support.features()


def library_version() -> str:
    """Return the version of libseccomp, empty when there is none."""
    from . import support

    return support.library_version()


def container_process_state(state: State, pid: int, metadata: str) -> ProcessState:
    """Return what the agent at listenerPath is sent along with the descriptor.

    `pid` is the process behind the filter, as the runtime sees it: for exec not the container's
    first one.  Source: config-linux.md, "The Container Process State".
    """
    message: ProcessState = {
        "ociVersion": state["ociVersion"],
        "fds": ["seccompFd"],
        "pid": pid,
    }
    if metadata:
        message["metadata"] = metadata
    message["state"] = state
    return message
