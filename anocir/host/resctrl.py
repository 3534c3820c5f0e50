"""Intel Resource Director Technology: the container's group below /sys/fs/resctrl.

Side: host.  Sources: config-linux.md, IntelRdt; Documentation/filesystems/resctrl.rst.
"""

from __future__ import annotations

from ..errors import at, Error, strerror
from ..linux import entries, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final
    from ..model.schema import IntelRdt, ResctrlRecord

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


def plan(entry: IntelRdt, container_id: str) -> ResctrlRecord:
    """Say which directories the container uses and which of them it will make; makes nothing."""
    top = mountpoint()
    closid = entry.get("closID") or container_id
    group = top if closid == "/" else f"{top}/{closid}"
    there = files.exists(group)
    asked = entry.get("l3CacheSchema") or entry.get("memBwSchema") or entry.get("schemata")
    if entry.get("closID") and not there and not asked:
        raise at("linux.intelRdt.closID", f"{group} does not exist and no schema is given")
    monitor = f"{group}/mon_groups/{container_id}" if entry.get("enableMonitoring") else ""
    # A group that was asked for by name MUST NOT be removed with the container.
    made = [] if there or entry.get("closID") else [group]
    if monitor:
        made.append(monitor)
    return {"group": group, "monitor": monitor, "made": made, "there": there}


def apply(record: ResctrlRecord, entry: IntelRdt, pid: int) -> None:
    """Make the group with its schemata and put the process into it."""
    if record["there"]:
        if entry.get("closID"):
            _compare(record, entry)
            write_schemata(record, {"schemata": entry.get("schemata") or []})
        else:
            write_schemata(record, entry)
    else:
        _mkdir(record["group"])
        write_schemata(record, entry)
    if record["monitor"]:
        _mkdir(record["monitor"])
    join(record, pid)


def join(record: ResctrlRecord, pid: int) -> None:
    """Put a process, of create or of exec, into the group and its monitoring group."""
    files.write_file(f"{record['group']}/tasks", str(pid))
    if record["monitor"]:
        files.write_file(f"{record['monitor']}/tasks", str(pid))


def _mkdir(path: str) -> None:
    try:
        entries.mkdir(path, 0o755)
    except OSError as error:
        raise at("linux.intelRdt", f"mkdir {path}: {strerror(error.errno or 0)}") from None


def _lines(entry: IntelRdt) -> list[str]:
    """Return the lines to write: l3CacheSchema, memBwSchema, and `schemata` last."""
    return [
        *_schema(entry, "l3CacheSchema"),
        *_schema(entry, "memBwSchema"),
        *(entry.get("schemata") or []),
    ]


def _schema(entry: IntelRdt, key: str) -> list[str]:
    text: str = entry.get(key) or ""  # type: ignore[assignment]
    lines = [line for line in text.split("\n") if line]
    if key == "l3CacheSchema":
        # A line for memory bandwidth in the L3 schema would overwrite the one that is meant.
        lines = [line for line in lines if not line.strip().startswith("MB:")]
    return lines


def write_schemata(record: ResctrlRecord, entry: IntelRdt) -> None:
    """Write the schemata line by line."""
    for line in _lines(entry):
        try:
            files.write_file(f"{record['group']}/schemata", line + "\n")
        except OSError as error:
            reason = strerror(error.errno or 0)
            raise Error(f"linux.intelRdt: write schemata {line!r}: {reason}") from None


def _compare(record: ResctrlRecord, entry: IntelRdt) -> None:
    """Refuse a schema that differs from the one of a group that others use as well."""
    path = f"{record['group']}/schemata"
    present: dict[tuple[str, str], int | str] = {}
    for line in files.decode(files.read_file(path)).split("\n"):
        present.update(_domains(line))
    for key in ("l3CacheSchema", "memBwSchema"):
        for line in _schema(entry, key):
            for domain, value in _domains(line).items():
                if present.get(domain) != value:
                    raise at(
                        f"linux.intelRdt.{key}",
                        f"{line!r} is not what {path} has for {domain[0]} domain {domain[1]}",
                        "a class that exists is not changed; leave the schema out to join it",
                    )


def _domains(line: str) -> dict[tuple[str, str], int | str]:
    """Parse `L3:0=7f0;1=1f`: (resource, domain) to value, which is hexadecimal but for MB."""
    resource, _, rest = line.strip().partition(":")
    result: dict[tuple[str, str], int | str] = {}
    for part in filter(None, rest.split(";")):
        domain, _, value = part.partition("=")
        number: int | str = value.strip()
        try:
            number = int(value, 10 if resource == "MB" else 16)
        except ValueError:
            pass
        result[resource, domain.strip()] = number
    return result


def remove(record: ResctrlRecord) -> None:
    """Remove the directories that create made, innermost first."""
    for path in reversed(record["made"]):
        try:
            files.rmdir(path)
        except FileNotFoundError:
            continue
