"""Who ran out of memory: the kernel's count of a container's cgroup, its limits, and its log.

Side: host.
"""

from __future__ import annotations


from ..base import log
from ..errors import Error, reason
from ..linux import files
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .store import Container
    from ..cgroup import Manager
    from ..model.schema import Config, MemoryStats, MemoryUse, Victim

_TICKS: Final = 100  # USER_HZ, in which start times are counted
_HOSTS_PIDS: Final = 0xEFFFFFFC  # PROC_PID_INIT_INO, include/linux/proc_ns.h
_EARLIER: Final = 2_000_000  # microseconds by which the log's clock may differ from that


def memory_limit(config: Config) -> int | None:
    """Return the memory limit of a configuration in bytes; None without one."""
    resources = (config.get("linux") or {}).get("resources") or {}
    limit: int | None = (resources.get("memory") or {}).get("limit")
    return limit


def want_of_memory(container: Container, config: Config, killed: bool = True) -> str:
    """Say, of an init that is dead, that its memory limit was too low; empty if it was not.

    systemd removes the cgroup, with the kernel's count in it, together with the last process:
    then a limit, and that init was `killed`, is all that is known.
    """
    manager = states.manager(container)
    try:
        if manager.oom_kills():
            return "container init was OOM-killed (memory limit too low?)"
    except (Error, OSError) as error:
        log.debug(f"oom: {reason(error)}")
    if killed and memory_limit(config) and manager.gone():
        return "container init was killed (memory limit too low?)"
    return ""


def killed(container: Container, pid: int) -> str:
    """Say of a process that has ended by SIGKILL that it, or another one, was killed for memory.

    Empty if the kernel has killed none of the container's.
    """
    manager = states.manager(container)
    try:
        count = manager.oom_kills()
        if not count:
            return ""
        found = victim(container, pid)
        if not found and count == 1 and _nested() and (found := victim(container)):
            found["pid"] = pid  # the log has the host's numbers
        who = f"{count} of the container's processes"
        if found:
            who = f"process {found['pid']} ({found['process']})"
        verb = "was" if found or count == 1 else "were"
        return f"{who} {verb} killed for want of memory: {figures(manager, found)}"
    except (Error, OSError) as error:
        log.debug(f"oom: {reason(error)}")
        return ""


def told(container: Container, config: Config) -> str:
    """Return whom the kernel killed while the container was made, the limit and the peak."""
    manager = states.manager(container)
    found: Victim = {}
    try:
        found = victim(container)
        text = figures(manager, found)
    except (Error, OSError):  # systemd has removed it: what was asked is known
        text = f"the limit is {memory_limit(config)} bytes"
    return f"process {found['pid']} ({found['process']}), {text}" if found else text


def figures(manager: Manager, found: Victim) -> str:
    """Return "the limit is N bytes, the peak was M", or whose limit it was if not its own."""
    use = usage(manager)
    peak = f", the peak was {use['peak']}" if use.get("peak") else ""
    if found.get("above"):
        return f"the limit of the cgroup {found['above']} above it was reached{peak}"
    if "limit" not in use:
        return f"the host has no more{peak}"
    return f"the limit is {use['limit']} bytes{peak}"


def usage(manager: Manager) -> MemoryUse:
    """Return `limit` and `peak` of a container's memory in bytes, where there are any."""
    memory: MemoryStats = manager.stats().get("memory") or {}
    seen = memory.get("usage")
    if not seen:
        return {}
    limit, peak = seen.get("limit"), seen.get("max") or 0
    found: MemoryUse = {"limit": limit} if limit is not None and limit < 1 << 62 else {}
    if peak:
        found["peak"] = peak
    return found


def victim(container: Container, pid: int = 0) -> Victim:
    """Return whom the kernel killed last, by its log: `process`, `pid`, and `above`.

    `above` is the cgroup whose limit was reached if it was none of the container's own.  Only
    `pid`, if one is given.  Empty where nobody may read the log, or it has run over.
    """
    own = _memory_path(container)
    since = container.state.get("start_time", 0) * 1_000_000 // _TICKS - _EARLIER
    found: Victim = {}
    for line in _kernel_log():
        head, _, text = line.partition(";")
        if not text.startswith("oom-kill:") or not own:
            continue
        words = dict(word.split("=", 1) for word in text.strip().split(",") if "=" in word)
        where = words.get("task_memcg", "")
        time = head.split(",")[2]
        if not (where == own or where.startswith(own + "/")) or int(time) < since:
            continue
        if pid and words.get("pid") != str(pid):
            continue
        found = {"process": words.get("task", "?"), "pid": int(words.get("pid", 0))}
        limited = words.get("oom_memcg", "")
        if limited and not (limited == own or limited.startswith(own + "/")):
            found["above"] = limited
    return found


def _memory_path(container: Container) -> str:
    """Return the path of the container's memory cgroup, from the top of its hierarchy."""
    record = container.intent.get("cgroup") or {}
    record = record.get("fs") or record  # systemd's
    for _, names, path, _ in record.get("hierarchies") or ():
        if "memory" in names.split(","):
            return str(path)
    return str(record.get("path") or "")


def _nested() -> bool:
    """Tell whether this pid namespace is another one than the host's (in a container)."""
    return files.stat("/proc/self/ns/pid").st_ino != _HOSTS_PIDS


def _kernel_log() -> list[str]:
    """Return the lines of the kernel's log: priority, number, microseconds, flags; text."""
    lines = []
    try:
        fd = files.open("/dev/kmsg", files.O_RDONLY | files.O_NONBLOCK)
    except OSError:
        return []
    try:
        while True:
            try:
                lines.append(files.decode(files.read(fd, 8192)))
            except BrokenPipeError:
                continue  # overwritten meanwhile: the next one is there
    except OSError:
        return lines
    finally:
        files.close(fd)


def died(container: Container) -> Error:
    """Say why init is gone: out of memory by the kernel's count, or it is not known."""
    config = config_of(container)
    text = want_of_memory(container, config)
    if not text:
        return Error("init died before the program was executed")
    where = "linux.resources.memory.limit: " if memory_limit(config) else ""
    return Error(f"{where}{text}: {told(container, config)}")


def config_of(container: Container) -> Config:
    """Return the configuration for an error's sake, empty when it is damaged."""
    try:
        return container.config()
    except Error as error:
        log.debug(error.text)
        return {}
