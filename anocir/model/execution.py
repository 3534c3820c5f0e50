"""The steps to a process of the container: its streams, its labels, its own rights.

Side: pure.  The plan of exec (entering.py) is hardly more; that of create (plan.py, which says what
a plan is) ends with them.
"""

from __future__ import annotations

from . import namespaces
from ..linux.capabilities import masks
from ..linux.const import CAP_SYS_ADMIN, RLIMIT_NOFILE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from .schema import Config, Facts, Linux, MemoryPolicy, Process, Scheduler
    from ..wire.shapes import Program, Step

# include/uapi/linux/personality.h
PERSONALITIES: Final = {"LINUX": 0x0000, "LINUX32": 0x0008}
# include/uapi/asm-generic/resource.h: the place in the tuple is the number.
RLIMITS: Final = (
    "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS",
    "RLIMIT_NPROC", "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
)  # fmt: skip

# include/uapi/linux/sched.h; no kernel implements SCHED_ISO
SCHEDULER_POLICIES: Final = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
SCHEDULER_FLAGS: Final = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}
# include/uapi/linux/ioprio.h
IO_CLASSES: Final = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}
# include/uapi/linux/mempolicy.h
MEMORY_MODES: Final = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}
MEMORY_FLAGS: Final = {
    "MPOL_F_STATIC_NODES": 1 << 15,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_NUMA_BALANCING": 1 << 13,
}


def cpus(text: str) -> list[int]:
    """Return the numbers of a list such as `0-3,7` (cpuset(7), FORMATS); empty for no text."""
    numbers: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            numbers.update(range(int(first), int(last or first) + 1))
    return sorted(numbers)


def console(process: Process, bind: bool, own: bool) -> Step:
    """Return the step that makes the terminal."""
    size: Mapping[str, Any] = process.get("consoleSize") or {}
    return (
        "console", "process.terminal", user_id(process), size.get("height", 0),
        size.get("width", 0), bind, own,
    )  # fmt: skip


def stream_steps(config: Config, process: Process | None, facts: Facts, before: int) -> list[Step]:
    """Look at the standard streams before any namespace is entered.

    Those that are pipes of the host side come after the descriptors of namespaces, `before` in
    number.  A user namespace that has the host's root owns the host's /dev/null, and can make none
    of its own: it gets another one beforehand.
    """
    if not process or process.get("terminal"):
        return []
    piped = [(fd, before + index) for fd, index in facts.get("piped", ())]
    own_null = False
    if "user" in namespaces.of(config):
        maps = config["linux"].get("uidMappings")
        own_null = not maps or any(entry["hostID"] == 0 and entry["size"] for entry in maps)
    if own_null:
        return [("streams", "process", piped, True)]
    return [("streams", "process", piped) if piped else ("streams", "process")]


def passed_on(facts: Facts) -> int:
    """Return how many descriptors from 3 on the program gets."""
    return int(facts.get("preserve_fds", 0)) + int(facts.get("listen_fds", 0))


def user_id(process: Process) -> int:
    """Return the uid of the program."""
    return int((process.get("user") or {}).get("uid", 0))


def has_home(process: Process) -> bool:
    """Tell whether HOME is there and not empty; an empty one is filled in, as Docker relies on."""
    home = ""
    for entry in process.get("env") or ():
        if entry.startswith("HOME="):
            home = entry[5:]
    return bool(home)


def program(process: Process, facts: Facts) -> Program:
    """Return what to execute; of an environment variable that stands twice the last one wins."""
    variables: dict[str, str] = {}
    for entry in process.get("env") or ():
        name = entry.partition("=")[0]
        variables.pop(name, None)
        variables[name] = entry
    if facts.get("listen_fds"):
        variables["LISTEN_FDS"] = f"LISTEN_FDS={facts['listen_fds']}"
        variables["LISTEN_PID"] = "LISTEN_PID=1"
    if facts.get("notify"):
        variables["NOTIFY_SOCKET"] = f"NOTIFY_SOCKET={facts['notify']}"
    return {
        "args": list(process.get("args") or ()),
        "env": [entry for entry in variables.values() if entry != "HOME="],
        "cwd": process["cwd"],
        "terminal": bool(process.get("terminal")),
    }


def domain_steps(linux: Linux) -> list[Step]:
    """Return what holds for every process of the container, exec's as well."""
    steps: list[Step] = []
    if linux.get("personality"):
        domain = PERSONALITIES[linux["personality"]["domain"]]
        steps.append(("personality", "linux.personality", domain))
    if linux.get("memoryPolicy"):
        steps.append(_memory_policy(linux["memoryPolicy"]))
    return steps


def _memory_policy(policy: MemoryPolicy) -> Step:
    mode = MEMORY_MODES[policy["mode"]]
    for flag in policy.get("flags") or []:
        mode |= MEMORY_FLAGS[flag]
    nodes = 0
    for node in cpus(policy.get("nodes") or ""):
        nodes |= 1 << node
    return ("memory_policy", "linux.memoryPolicy", mode, nodes)


def labels(process: Process, facts: Facts) -> list[tuple[str, str, str]]:
    """Return (JSON path, file below /proc/self/attr, label) for the labels that apply."""
    found = []
    if process.get("apparmorProfile") and facts["apparmor"]:
        found.append(
            ("process.apparmorProfile", "apparmor/exec", "exec " + process["apparmorProfile"])
        )
    if process.get("selinuxLabel") and facts["selinux"]:
        found.append(("process.selinuxLabel", "exec", process["selinuxLabel"]))
    return found


def keeps_groups(annotations: Mapping[str, str]) -> bool:
    """Tell whether the caller's supplementary groups are wanted (crun's annotation)."""
    return annotations.get("run.oci.keep_original_groups") in ("1", "true")


# What a clone does not pass on: SCHED_DEADLINE, SCHED_FLAG_RESET_ON_FORK (sched(7)).
_DEADLINE: Final = SCHEDULER_POLICIES["SCHED_DEADLINE"]


_RESET_ON_FORK: Final = SCHEDULER_FLAGS["SCHED_FLAG_RESET_ON_FORK"]


_NPROC: Final = RLIMITS.index("RLIMIT_NPROC")


def process_steps(
    process: Process | None,
    facts: Facts,
    annotations: Mapping[str, str],
    late: bool,
) -> tuple[list[Step], list[Step]]:
    """Return the steps to the program's own rights, from most to least: before and after a clone.

    When they are done all that is left is execve(2).  Without noNewPrivileges a filter needs
    CAP_SYS_ADMIN, so it is loaded before that goes.  When init is cloned `late`, everything comes
    before, unless the filter or the scheduler stands in the way (`facts["clone"]`): then the
    clone comes first, as in runc.
    """
    if process is None:
        # What could be executed there is nothing, and so are its rights.
        return _identity(None, {}, False), [("session", "")] if late else []
    steps: list[Step] = []
    scheduler = process.get("scheduler")
    if not process.get("terminal"):
        user = process.get("user") or {}
        steps.append(("reopen_null", ""))
        steps.append(("own_stdio", "process.user.uid", user.get("uid", 0)))
    if scheduler:
        steps.append(_scheduler(scheduler))
    if process.get("ioPriority"):
        priority = process["ioPriority"]
        value = IO_CLASSES[priority["class"]] << 13 | priority.get("priority", 0)
        steps.append(("io_priority", "process.ioPriority", value))
    for path, name, label in labels(process, facts):
        steps.append(("label", path, name, label))
    # Resolved while init is still root, so that a directory of mode 0700 works, and again as
    # the user, who must be able to be there.
    steps.append(("chdir", "process.cwd", process["cwd"], False))
    limits = [
        (RLIMITS.index(limit["type"]), limit["soft"], limit["hard"])
        for limit in process.get("rlimits") or []
    ]
    own = facts.get("descriptors")
    if own and all(kind != RLIMIT_NOFILE for kind, _, _ in limits):
        limits.append((RLIMIT_NOFILE, *own))  # raised for the set-up's sake
    program = facts["seccomp"]
    can_clone = not program or facts["clone"]
    born: list[Step] = []
    if late:
        born.append(("session", ""))
        if process.get("terminal"):
            born.append(("controlling_terminal", "process.terminal"))
        # It would count the process that clones init as well.
        later = [limit for limit in limits if limit[0] == _NPROC] if can_clone else []
        if later:
            born.append(("rlimits", "process.rlimits", later))
            limits = [limit for limit in limits if limit[0] != _NPROC]
    if limits:
        # Late, because the runtime itself must live with them from here on.
        steps.append(("rlimits", "process.rlimits", limits))
    keep = keeps_groups(annotations)
    no_new_privileges = bool(process.get("noNewPrivileges"))
    steps += _identity(process, facts, keep)
    if program and no_new_privileges:
        (steps if can_clone or not late else born).append(("seccomp", "linux.seccomp", program))
    flags = _scheduler(scheduler)[2:4] if scheduler else (0, 0)
    sticky = flags[0] == _DEADLINE or flags[1] & _RESET_ON_FORK
    if late and (sticky or not (can_clone or no_new_privileges)):
        return [], born[:2] + steps + born[2:]
    return steps, born


def _identity(process: Process | None, facts: Facts, keep_groups: bool) -> list[Step]:
    """Return the steps to the process's user, capabilities and filter; without one to nothing."""
    wanted = process or {}
    user = wanted.get("user") or {}
    bounding, effective, permitted, inheritable, ambient = _masks(wanted)
    inheritable &= bounding  # else capset(2) fails; spec.process.not_granted has told of it
    no_new_privileges = process is None or bool(wanted.get("noNewPrivileges"))
    program = facts.get("seccomp") if not no_new_privileges else None
    mask = user.get("umask")
    steps: list[Step] = [
        ("drop_bounding", "process.capabilities.bounding", bounding),
        ("user", "process.user", user.get("uid", 0), user.get("gid", 0),
         None if keep_groups else list(user.get("additionalGids") or [])),
        ("capabilities", "process.capabilities", effective, permitted, inheritable, ambient,
         1 << CAP_SYS_ADMIN if program else 0),
        ("umask", "process.user.umask", 0o022 if mask is None else mask & 0o777),
    ]  # fmt: skip
    if process is not None:
        steps.append(("chdir", "process.cwd", wanted["cwd"], True))
    steps.append(("close_descriptors", ""))
    if no_new_privileges:
        steps.append(("no_new_privs", "process.noNewPrivileges"))
    if program:
        steps.append(("seccomp", "linux.seccomp", program))
        steps.append(("shed", "process.capabilities", effective, permitted, inheritable))
    return steps


def _masks(process: Process) -> tuple[int, int, int, int, int]:
    sets: Mapping[str, list[str]] = process.get("capabilities") or {}  # type: ignore[assignment]
    return masks(sets)


def _scheduler(scheduler: Scheduler) -> Step:
    flags = 0
    for flag in scheduler.get("flags") or []:
        flags |= SCHEDULER_FLAGS[flag]
    return (
        "scheduler", "process.scheduler", SCHEDULER_POLICIES[scheduler["policy"]], flags,
        scheduler.get("nice", 0), scheduler.get("priority", 0), scheduler.get("runtime", 0),
        scheduler.get("deadline", 0), scheduler.get("period", 0),
    )  # fmt: skip
