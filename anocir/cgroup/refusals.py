"""What is said when a cgroup, or a control file of one, refuses.

Side: host, cold.
"""

from __future__ import annotations

from ..errors import Error, at, strerror
from ..linux.errnos import EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM
from .knobs import read_int

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..model.schema import Resources
    from .convert import Write

_MEMORY_LIMITS: Final = ("memory.limit_in_bytes", "memory.max")


def unavailable(controller: str, source: str, version: str = "") -> Error:
    """Return the error for a limit whose controller the container's cgroup does not have.

    `version` is that of cgroups if the other one may well have it.
    """
    told = f"invalid configuration: in {version} " if version else ""
    return at(
        source,
        f"{told}the cgroup controller {controller} is not available here",
        "the kernel lacks it, it is not mounted, or it is not delegated to this cgroup",
    )


def refused(path: str, item: Write, error: OSError) -> Error:
    """Return the error for a control file that did not take a value."""
    _, file, value, source, _ = item
    number = error.errno or EINVAL
    if file in _MEMORY_LIMITS and number == EBUSY:
        return too_low(path, value, source)
    hint = ""
    if number == ENOENT:
        hint = f"the kernel lacks {file}"
        if "memsw" in file or "swap" in file:
            hint += ", boot it with swapaccount=1"
    elif number in (EINVAL, EOPNOTSUPP) and file.startswith(("cpu.rt_", "cpuset.")):
        hint = "the parent cgroup has to allow as much"
    elif number == EINVAL and file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        hint = "memory.swap, which is memory plus swap, must not be below memory.limit"
    return at(source, f"write {value!a} to {path}: {strerror(number)}", hint)


def too_low(path: str, value: str, source: str) -> Error:
    """Return the error for a memory limit below what is used; docker and podman users know it."""
    directory = path[: path.rindex("/")]
    if path.endswith("memory.max"):
        usage, peak = read_int(f"{directory}/memory.current"), read_int(f"{directory}/memory.peak")
    else:
        usage = read_int(f"{directory}/memory.usage_in_bytes")
        peak = read_int(f"{directory}/memory.max_usage_in_bytes")
    used = f"current usage: {usage}, peak usage: {peak if peak is not None else 'unknown'}"
    return at(source, f"unable to set memory limit to {value} ({used})")


def check_usage(resources: Resources, file: str) -> None:
    """Refuse a memory limit that is not above what `file` has, where checkBeforeUpdate asks."""
    memory = resources.get("memory") or {}
    limit = memory.get("limit") or 0
    if memory.get("checkBeforeUpdate") and limit > 0:
        usage = read_int(file) or 0
        if limit <= usage:
            raise Error(f"rejecting memory limit {limit} <= usage {usage}")


def not_added(directory: str, pid: int, error: OSError) -> Error:
    """Return the error for a process that a cgroup which its caller names does not take."""
    return Error(f"join cgroup {directory}: adding pid {pid}: {strerror(error.errno or 0)}")


def no_cgroup() -> Error:
    """Return the error for what needs a cgroup when the container has none."""
    return Error("the container has no cgroup of its own", "it was made without rights to one")


def stays_outside(directory: str, error: OSError) -> Error:
    """Return the error for a process that may not be moved into the container's cgroup."""
    return Error(
        f"join cgroup {directory}: {strerror(error.errno or EPERM)}",
        "without root a process can only be moved within what was delegated: call the runtime from "
        "there, as with systemd-run --user --scope",
    )


def not_delegated(source: str) -> Error:
    """Return the error for a limit that was asked for without rights to any cgroup."""
    return Error(
        f"{source}: cannot set the limit: container could not join or create cgroup",
        "without root, limits need a cgroup that was delegated to the user",
    )
