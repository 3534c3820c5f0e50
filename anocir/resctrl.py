"""Intel Resource Director Technology: the container's group below /sys/fs/resctrl.

Side: host.  Sources: config-linux.md, IntelRdt; Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

from .errors import Error, at, strerror
from .linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_MOUNTINFO: Final = "/proc/self/mountinfo"


def mountpoint() -> str:
    """Return where the resctrl file system is mounted.  Raises Error when it is not."""
    for line in files.read_file(_MOUNTINFO).split(b"\n"):
        before, _, after = line.partition(b" - ")
        if after.startswith(b"resctrl "):
            return files.decode(before.split(b" ")[4])
    raise at(
        "linux.intelRdt",
        "no resctrl file system is mounted",
        "mount -t resctrl resctrl /sys/fs/resctrl; needs a CPU with Intel RDT or AMD QoS",
    )


def plan(entry: dict[str, Any], container_id: str) -> dict[str, Any]:
    """Say which directories the container uses and which of them it will make; makes nothing."""
    top = mountpoint()
    closid = entry.get("closID") or container_id
    group = top if closid == "/" else f"{top}/{closid}"
    made = [] if files.exists(group) else [group]
    if (
        entry.get("closID")
        and made
        and not (entry.get("l3CacheSchema") or entry.get("memBwSchema") or entry.get("schemata"))
    ):
        raise at("linux.intelRdt.closID", f"{group} does not exist and no schema is given")
    monitor = ""
    if entry.get("enableMonitoring"):
        monitor = f"{group}/mon_groups/{container_id}"
        made.append(monitor)
    return {"group": group, "monitor": monitor, "made": made}


def apply(record: dict[str, Any], entry: dict[str, Any], pid: int) -> None:
    """Make the group with its schemata and put the process into it."""
    for path in record["made"]:
        try:
            files.mkdir(path, 0o755)
        except OSError as error:
            raise at("linux.intelRdt", f"mkdir {path}: {strerror(error.errno or 0)}") from None
    write_schemata(record, entry)
    files.write_file(f"{record['group']}/tasks", str(pid))
    if record["monitor"]:
        files.write_file(f"{record['monitor']}/tasks", str(pid))


def write_schemata(record: dict[str, Any], entry: dict[str, Any]) -> None:
    """Write the schemata line by line; a group that was there before keeps what it had."""
    lines = [*(entry.get("schemata") or [])]
    for key in ("l3CacheSchema", "memBwSchema"):
        text = entry.get(key) or ""
        # A line for memory bandwidth in the L3 schema would overwrite the one that is meant.
        wanted = [line for line in text.split("\n") if line]
        if key == "l3CacheSchema":
            wanted = [line for line in wanted if not line.strip().startswith("MB:")]
        lines += wanted
    for line in lines:
        try:
            files.write_file(f"{record['group']}/schemata", line + "\n")
        except OSError as error:
            reason = strerror(error.errno or 0)
            raise Error(f"linux.intelRdt: write schemata {line!r}: {reason}") from None


def remove(record: dict[str, Any]) -> None:
    """Remove the directories that create made, innermost first."""
    for path in reversed(record["made"]):
        try:
            files.rmdir(path)
        except FileNotFoundError:
            continue
