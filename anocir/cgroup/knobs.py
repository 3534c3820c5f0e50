"""Writing the control files of a cgroup, with the reason and the config's path when one refuses.

Side: host.  Takes the writes that `convert` makes.
"""

from __future__ import annotations

from ..linux.errnos import EACCES, EBUSY, EINVAL, ENOENT, EOPNOTSUPP, EPERM, EROFS

from ..base import log
from ..errors import Error, at, strerror
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .convert import Write
    from ..model.schema import Resources

DENIED: Final = (EACCES, EPERM, EROFS)
_MEMORY_LIMITS: Final = ("memory.limit_in_bytes", "memory.max")

# Files with one line for each device: how a line that was not there before is taken away.
_KEYED: Final = {
    "blkio.throttle.read_bps_device": "0",
    "blkio.throttle.write_bps_device": "0",
    "blkio.throttle.read_iops_device": "0",
    "blkio.throttle.write_iops_device": "0",
    "blkio.weight_device": "0",
    "blkio.leaf_weight_device": "0",
    "blkio.bfq.weight_device": "0",
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "net_prio.ifpriomap": "0",
    "rdma.max": "hca_handle=max hca_object=max",
}


def read_int(path: str) -> int | None:
    """Return the number in a control file; None for "max", no number, or no file."""
    try:
        return int(files.read_file(path))
    except (OSError, ValueError):
        return None


def read_text(path: str) -> str:
    """Return a control file's text without the newline, "" when it is not there."""
    try:
        return files.decode(files.read_file(path)).strip()
    except OSError:
        return ""


def read_map(path: str) -> dict[str, int]:
    """Return the lines "name number" of a control file like memory.stat, {} if it is missing."""
    result = {}
    for line in read_text(path).split("\n"):
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            result[words[0]] = int(words[1])
    return result


def limited(resources: Resources) -> bool:
    """Tell whether there is anything but rules for devices: else `convert` is not asked."""
    return any(value and key != "devices" for key, value in resources.items())


def write(
    writes: list[Write], directories: dict[str, str], undo: list[tuple[str, str]] | None = None
) -> None:
    """Do the writes in the cgroups `directories` (by controller).

    With `undo`, what was there before is noted, newest last.  Raises Error with the JSON path.
    """
    later: list[tuple[str, Write]] = []
    satisfied = True
    for index, item in enumerate(writes):
        controller, file, value, source, rule = item
        if rule in ("else", "spare") and satisfied:
            continue
        directory = directories.get(controller)
        if directory is None:
            raise unavailable(controller, source)
        path = f"{directory}/{file}"
        try:
            _put(path, file, value, undo)
            satisfied = True
        except OSError as error:
            satisfied = False
            following = writes[index + 1][4] if index + 1 < len(writes) else ""
            if error.errno == EINVAL and following == "spare":
                continue  # before Linux 5.4 bfq takes no device
            if error.errno == ENOENT:
                if following in ("else", "spare") or rule == "optional":
                    continue
                if rule == "spare":
                    log.warn(f"{source} is ignored: the kernel has no weights of single devices")
                    continue
            elif error.errno in (EINVAL, EBUSY) and rule == "retry":
                later.append((path, item))
                continue
            raise refused(path, item, error) from None
    for path, item in reversed(later):
        try:
            _put(path, item[1], item[2], undo)
        except OSError as error:
            raise refused(path, item, error) from None


def restore(undo: list[tuple[str, str]]) -> None:
    """Write back what `write` noted, newest first; the error that led here is the one to tell."""
    again = []
    for path, value in reversed(undo):
        try:
            files.write_file(path, value)
        except OSError:
            again.append((path, value))
    for path, value in again:  # period and quota, or limit and memsw: the other order
        try:
            files.write_file(path, value)
        except OSError:
            continue


def _put(path: str, file: str, value: str, undo: list[tuple[str, str]] | None) -> None:
    before = _before(path, file, value) if undo is not None else ""
    files.write_file(path, value)
    if undo is not None and before:
        undo.append((path, before))


def _before(path: str, file: str, value: str) -> str:
    """Return what to write to `file` to have again what it says now."""
    text = read_text(path)
    key = value.split(" ", 1)[0] if file in _KEYED or ":" in value.split(" ", 1)[0] else ""
    if not key:
        return text.split("\n")[0] if file != "memory.oom_control" else text.split()[1]
    for line in text.split("\n"):
        if line.startswith(key + " "):
            return line
    return f"{key} {_KEYED.get(file, 'default')}"


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
