"""Where a container that runs differs from its config.json: devices, limits, mounts.

Side: host; cold.  Asked is the kernel, and not what the runtime remembers; config.json is what it
was when the container was made.  Nothing is entered and nothing is changed.

Sources: proc_pid_mountinfo(5), cgroups(7); the defaults of the files are the kernel's.
"""

from __future__ import annotations

import posix

from ..base import inroot, normal
from ..cgroup import devices
from ..errors import CONTRACT, Error
from ..linux import files
from ..model import mountoptions, plan
from . import mountinfo, states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final, TypedDict

    from ..cgroup import Manager
    from ..cli import Settings
    from ..model.schema import Config, Resources
    from .store import Container

    class Difference(TypedDict):
        """What is meant, the place in config.json, and both values; None where there is none."""

        kind: str
        what: str
        path: str
        config: str | None
        running: str | None


_NO_LIMIT: Final = (1 << 63) - 4096
# Limits that nobody has set, by their files, and the place in config.json.
_UNSET: Final = {
    "memory.limit_in_bytes": ("max", "memory.limit"),
    "memory.memsw.limit_in_bytes": ("max", "memory.swap"),
    "memory.soft_limit_in_bytes": ("max", "memory.reservation"),
    "cpu.cfs_quota_us": ("max", "cpu.quota"),
    "cpu.cfs_period_us": ("100000", "cpu.period"),
    "cpu.shares": ("1024", "cpu.shares"),
    "memory.max": ("max", "memory.limit"),
    "memory.high": ("max", 'unified["memory.high"]'),
    "memory.swap.max": ("max", "memory.swap"),
    "memory.low": ("0", "memory.reservation"),
    "cpu.max": ("max 100000", "cpu.quota"),
    "cpu.weight": ("100", "cpu.shares"),
    "cpu.idle": ("0", "cpu.idle"),
    "pids.max": ("max", "pids.limit"),
}
_FLAGS: Final = ("ro", "nosuid", "nodev", "noexec")


def diff(settings: Settings, container_id: str) -> list[Difference]:
    """Return the differences.  Raises Error for a container that does not run."""
    container, status = states.open_(settings, container_id, hold=True)
    transitions.check("update", container, status)
    config = container.config()
    manager = states.manager(container)
    created = container.state.get("resources")
    if created is None:
        created = (config.get("linux") or {}).get("resources") or {}
    found = [*_devices(container, manager, created), *_limits(manager, created)]
    found += _mounts(container, config)
    if container.hold() < 0:
        raise Error(CONTRACT["not running"])  # whose mounts they are nobody can tell then
    return found


def _row(kind: str, what: str, path: str, config: str | None, running: str | None) -> Difference:
    return {"kind": kind, "what": what, "path": path, "config": config, "running": running}


# Devices


def _devices(container: Container, manager: Manager, created: Resources) -> list[Difference]:
    rules = devices.parse(created.get("devices"))
    changed = devices.parse(container.state.get("rules"), "state.json: rules")
    found = [
        _row("device", what, "linux.resources.devices", config, running)
        for what, config, running in manager.devices_now(rules, changed)
    ]
    for each in container.state.get("devices") or []:
        what = f"{each['type']} {each['major']}:{each['minor']} {each['access']}"
        found.append(_row("device", each["path"], "linux.devices", None, what))
    for path in container.state.get("taken") or []:
        found.append(_row("device", path, "linux.devices", "there", None))
    return found


# Limits


def _limits(manager: Manager, created: Resources) -> list[Difference]:
    found = []
    named = set()
    present = False
    for source, path, value, rule in manager.expected(created):
        text = _text(path)
        if text is None or (rule in ("else", "spare") and present):
            present = text is not None
            continue
        present = True
        named.add(path)
        now = _now(path.rpartition("/")[2], value, text)
        if now is not None:
            found.append(_row("limit", path, source, value, now))
    for path in manager.files():
        default, source = _UNSET[path.rpartition("/")[2]]
        text = _text(path)
        if path in named or text is None or _plain(text) == default:
            continue
        if path.endswith("cpu.weight") and text == "0":
            continue  # cpu.idle says it
        found.append(_row("limit", path, f"linux.resources.{source}", None, text))
    return found


def _text(path: str) -> str | None:
    try:
        return files.decode(files.read_file(path)).strip()
    except OSError:
        return None


def _plain(text: str) -> str:
    """Return a limit in one form: "max" where there is none."""
    return "max" if text == "-1" or (text.isdigit() and int(text) >= _NO_LIMIT) else text


def _now(file: str, value: str, text: str) -> str | None:
    """Return what a file says where it is something else than was written to it."""
    if file.startswith("cpuset.") and file.endswith(("cpus", "mems")):
        return None if _numbers(value) == _numbers(text) else text
    key, _, rest = value.partition(" ")
    if ":" in key or file == "net_prio.ifpriomap":
        line = next((row for row in text.split("\n") if row.startswith(f"{key} ")), "")
        return None if set(rest.split()) <= set(line.split()) else line or "nothing"
    if file == "memory.oom_control":
        text = text.split("\n", maxsplit=1)[0]
        return None if text.endswith(f" {value}") else text
    text = text.removeprefix("default ").split("\n")[0]
    if _plain(value) == _plain(text):
        return None
    if value.isdigit() and text.isdigit() and file.startswith(("memory.", "hugetlb.")):
        page = _size(file)
        if int(value) // page * page == int(text):
            return None
    return text


def _size(file: str) -> int:
    if file.startswith("hugetlb."):
        word = file.split(".")[1]
        return int(word[:-2]) << {"K": 10, "M": 20, "G": 30}.get(word[-2], 0)
    return 4096


def _numbers(text: str) -> set[int]:
    """Return the numbers of a list such as 0-2,7."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first.isdigit() and (last or first).isdigit():
            found.update(range(int(first), int(last or first) + 1))
    return found


# Mounts


def _mounts(container: Container, config: Config) -> list[Difference]:
    pid = container.state["pid"]
    if files.stat(f"/proc/{pid}/ns/mnt").st_ino == files.stat("/proc/self/ns/mnt").st_ino:
        return []
    root = files.open(f"/proc/{pid}/root", files.O_PATH | files.O_DIRECTORY)
    table = mountinfo.of(pid)
    known = _runtimes_own(root, config)
    ours = {mountinfo.id_of(root)}
    trees: set[int] = set()
    found: list[Difference] = []
    top = table.get(mountinfo.id_of(root))
    if top and (config.get("root") or {}).get("readonly") and "ro" not in top.options:
        found.append(_row("mount", "/", "root.readonly", "ro", "rw"))
    for index, mount in enumerate(config.get("mounts") or []):
        where = f"mounts[{index}]"
        words = mount.get("options") or []
        kind = "bind" if mountoptions.is_bind(mount) else mount.get("type") or "none"
        one = table.get(_id_at(root, mount["destination"]))
        if one is None or one.id in ours:
            wanted = f"{kind} of {mount.get('source') or kind}"
            found.append(_row("mount", mount["destination"], where, wanted, None))
            continue
        ours.add(one.id)
        if "rbind" in words or kind == "cgroup":
            trees.add(one.id)
        present = {*one.options, *(one.whole if kind != "bind" else [])}
        lacking = [word for word in _FLAGS if word in words and word not in present]
        if lacking:
            has = ",".join(one.options)
            found.append(
                _row("mount", mount["destination"], f"{where}.options", ",".join(lacking), has)
            )
    added = {each["number"] for each in container.state.get("added") or []}
    plugged = {each["number"] for each in container.state.get("devices") or []}
    for one in table.values():
        if one.id in ours or one.id in plugged or one.point in known or _below(one, trees, table):
            continue
        if one.id not in added and one.parent not in table:
            continue  # the root that lies below the container's own
        how = "mounts add" if one.id in added else one.kind
        text = f"{how}: {one.root} of {one.kind}, {','.join(one.options)}"
        found.append(_row("mount", one.point, "mounts", None, text))
    return found


def _below(one: mountinfo.Mount, trees: set[int], table: dict[int, mountinfo.Mount]) -> bool:
    """Tell whether a mount came with a tree that config.json names."""
    parent = one.parent
    for _ in range(len(table)):
        if parent in trees:
            return True
        if parent not in table:
            break
        parent = table[parent].parent
    return False


def _id_at(root: int, path: str) -> int:
    """Return the id of the mount at a path in the root; -1 when nothing is there."""
    try:
        fd = inroot.open(root, path)
    except OSError:
        return -1
    try:
        return mountinfo.id_of(fd)
    finally:
        files.close(fd)


def _runtimes_own(root: int, config: Config) -> set[str]:
    """Return where the runtime mounts something for other parts of config.json."""
    linux = config.get("linux") or {}
    paths = [*(linux.get("maskedPaths") or []), *(linux.get("readonlyPaths") or [])]
    paths += [device["path"] for device in linux.get("devices") or []]
    paths += [path for path, *_ in plan.DEFAULT_DEVICES]
    paths.append("/run/notify")  # NOTIFY_SOCKET's directory, with a service manager
    if (config.get("process") or {}).get("terminal"):
        paths.append("/dev/console")
    known = {normal(path) for path in paths}
    for path in paths:
        try:
            fd = inroot.open(root, path)
        except OSError:
            continue
        known.add(posix.readlink(f"/proc/self/fd/{fd}"))
        files.close(fd)
    return known


def lines(found: list[Difference]) -> list[str]:
    """Return the differences as people read them."""
    rows = []
    for each in found:
        before = "nothing" if each["config"] is None else each["config"]
        now = "nothing" if each["running"] is None else each["running"]
        what = each["path"] if each["kind"] == "limit" else each["what"]
        at = f" ({each['what']})" if each["kind"] == "limit" else ""
        rows.append(f"{each['kind']:<7} {what}: config.json {before}, now {now}{at}")
    return rows
