"""`process`: the program, its user, and what the kernel lets it have.

Side: pure.  Spec: config.md "Process", "POSIX process", "Linux Process", "User".
"""

from __future__ import annotations

from ...linux.capabilities import NAMES, SETS
from ..execution import IO_CLASSES, RLIMITS, SCHEDULER_FLAGS, SCHEDULER_POLICIES
from .kinds import (
    ABSOLUTE,
    array,
    BOOLEAN,
    choice,
    choices,
    IDENTITY,
    INT32,
    integer,
    Mistake,
    ranges,
    record,
    run,
    some_strings,
    STRING,
    STRINGS,
    text,
    UINT32,
    UINT16,
    UINT64,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..schema import Capabilities

NGROUPS_MAX: Final = 65536  # include/uapi/linux/limits.h
LAST_CPU: Final = 65535  # far above every kernel's NR_CPUS, and a mask of 8 KiB


def _user(user: Any) -> None:
    # Go's callers always write both; a hand-written config that does not means 0, as in runc.
    user.setdefault("uid", 0)
    user.setdefault("gid", 0)
    groups = user.get("additionalGids", ())
    if len(groups) > NGROUPS_MAX:
        text = f"must not have more than {NGROUPS_MAX} entries, got {len(groups)}"
        raise Mistake(text, "additionalGids")


def _rlimit(limit: Any) -> None:
    if limit["soft"] > limit["hard"]:
        raise Mistake(
            f"must not be above the hard limit {limit['hard']}, got {limit['soft']}", "soft"
        )


def _scheduler(scheduler: Any) -> None:
    """What sched_setattr(2) would refuse, and values that the policy would leave unused."""
    policy = scheduler["policy"]
    priority = scheduler.get("priority", 0)
    if policy in ("SCHED_FIFO", "SCHED_RR"):
        if not 1 <= priority <= 99:
            raise Mistake(f"must be between 1 and 99 with {policy}, got {priority}", "priority")
    elif priority:
        raise Mistake(f"is only for SCHED_FIFO and SCHED_RR, policy is {policy}", "priority")
    if policy == "SCHED_DEADLINE":
        _deadline(scheduler)
        return
    for key in ("runtime", "deadline", "period"):
        if scheduler.get(key):
            raise Mistake(f"is only for SCHED_DEADLINE, policy is {policy}", key)


def _deadline(scheduler: Any) -> None:
    """Apply the bounds of __checkparam_dl in the kernel: runtime <= deadline <= period."""
    runtime = scheduler.get("runtime", 0)
    deadline = scheduler.get("deadline", 0)
    period = scheduler.get("period", 0)
    if runtime < 1024:
        raise Mistake(f"must be at least 1024 ns with SCHED_DEADLINE, got {runtime}", "runtime")
    if deadline < runtime:
        raise Mistake(f"must not be below runtime {runtime}, got {deadline}", "deadline")
    if period and period < deadline:
        raise Mistake(f"must not be below deadline {deadline}, got {period}", "period")


def _io_priority(priority: Any) -> None:
    priority.setdefault("priority", 0)


def _cpus(value: str) -> str:
    ranges(value, LAST_CPU)
    return ""


_NO_NAME: Final = "must be NAME=value, with a name before the ="


def environment(value: Any, _: Any) -> None:
    """Take environ(7): NAME=value; getenv(3) could not find anything else."""
    STRINGS[0](value, None)
    for index, entry in enumerate(value):
        if entry.find("=") < 1:
            raise Mistake(_NO_NAME, index)  # the entry itself may be a secret


def _later(_: Any, _none: Any) -> None:
    """Leave a value to the rule of the object that holds it."""


def _process(process: Any) -> None:
    if "consoleSize" in process:
        try:
            record(process["consoleSize"], _SIZE)
        except Mistake as mistake:
            # spec: it must be ignored without a terminal, so it may hold anything then
            if process.get("terminal"):
                mistake.path.append("consoleSize")
                raise
            del process["consoleSize"]
    _user(process.setdefault("user", {}))
    seen = set()
    for index, limit in enumerate(process.get("rlimits", ())):
        if limit["type"] in seen:
            raise Mistake(
                f"must be unique, {limit['type']} is there twice", "rlimits", index, "type"
            )
        seen.add(limit["type"])


_CAPABILITIES: Final = (choices, (frozenset(NAMES), "a capability that the kernel knows"))
_UINT64: Final = (integer, UINT64)
_CELLS: Final = (integer, UINT16)
_SIZE: Final = ({"height": _CELLS, "width": _CELLS}, ("height", "width"), None)
_CPUS: Final = (text, _cpus)
_RLIMIT: Final = (
    {
        "type": (choice, (frozenset(RLIMITS), "a limit of getrlimit(2)")),
        "soft": _UINT64,
        "hard": _UINT64,
    },
    ("type", "soft", "hard"),
    _rlimit,
)
_USER: Final = (
    {
        "uid": IDENTITY,
        "gid": IDENTITY,
        "umask": (integer, UINT32),
        "additionalGids": (array, IDENTITY),
        "username": STRING,
    },
    (),
    _user,
)
_SCHEDULER: Final = (
    {
        "policy": (choice, (frozenset(SCHEDULER_POLICIES), "a scheduling policy")),
        "nice": (integer, (-20, 19)),
        "priority": (integer, INT32),
        "flags": (choices, (frozenset(SCHEDULER_FLAGS), "a scheduling flag")),
        "runtime": _UINT64,
        "deadline": _UINT64,
        "period": _UINT64,
    },
    ("policy",),
    _scheduler,
)
PROCESS: Final = (
    {
        "args": (some_strings, "the first entry is the program to run"),
        "commandLine": STRING,
        "consoleSize": (_later, None),
        "cwd": ABSOLUTE,
        "env": (environment, None),
        "terminal": BOOLEAN,
        "user": (record, _USER),
        "capabilities": (
            record,
            (dict.fromkeys(SETS, _CAPABILITIES), (), None),
        ),
        "apparmorProfile": STRING,
        "oomScoreAdj": (integer, (-1000, 1000)),
        "selinuxLabel": STRING,
        "ioPriority": (
            record,
            (
                {
                    "class": (choice, (frozenset(IO_CLASSES), "an I/O scheduling class")),
                    "priority": (integer, (0, 7)),
                },
                ("class",),
                _io_priority,
            ),
        ),
        "noNewPrivileges": BOOLEAN,
        "scheduler": (record, _SCHEDULER),
        "rlimits": (array, (record, _RLIMIT)),
        "execCPUAffinity": (record, ({"initial": _CPUS, "final": _CPUS}, (), None)),
    },
    ("cwd", "args"),
    _process,
)


def check(process: Any, path: str = "process") -> None:
    """Check a process object, as `exec --process` has it.  Raises Error."""
    run((record, PROCESS), process, path)


def not_granted(sets: Capabilities) -> list[str]:
    """Return a line for each capability that the process cannot have, by its sets alone."""
    lines = []
    inheritable = set(sets.get("inheritable", ())) & set(sets.get("bounding", ()))
    for key, given, names in (
        ("inheritable", inheritable, "bounding"),
        ("effective", sets.get("permitted", ()), "permitted"),
        ("ambient", inheritable.intersection(sets.get("permitted", ())),
         "permitted and inheritable"),
    ):  # fmt: skip
        wanted: list[str] = sets.get(key, [])  # type: ignore[assignment]
        for index, capability in enumerate(wanted):
            if capability not in given:
                text = f"{capability} cannot be granted, it must be in {names} too"
                if key == "ambient":
                    text = f"can't raise ambient capability {capability}: it must be in {names} too"
                lines.append(f"process.capabilities.{key}[{index}]: {text}")
    return lines
