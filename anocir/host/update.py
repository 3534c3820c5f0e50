"""The update operation: new limits for a container that is there.

Side: host.
"""

from __future__ import annotations


from ..base import jsonio
from ..errors import Error
from ..linux import files
from ..model import spec
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from ..cli import Options, Settings
    from .store import Container
    from ..model.schema import IntelRdt, Resources
    from ..cgroup import Manager

# Option of `update` -> where its value stands in linux.resources.
_PLACES: Final = {
    "blkio_weight": ("blockIO", "weight"),
    "cpu_period": ("cpu", "period"),
    "cpu_quota": ("cpu", "quota"),
    "cpu_burst": ("cpu", "burst"),
    "cpu_share": ("cpu", "shares"),
    "cpu_rt_period": ("cpu", "realtimePeriod"),
    "cpu_rt_runtime": ("cpu", "realtimeRuntime"),
    "cpu_idle": ("cpu", "idle"),
    "cpuset_cpus": ("cpu", "cpus"),
    "cpuset_mems": ("cpu", "mems"),
    "memory": ("memory", "limit"),
    "memory_reservation": ("memory", "reservation"),
    "memory_swap": ("memory", "swap"),
    "pids_limit": ("pids", "limit"),
}
# Where an update's zero or empty text means that it leaves things as they are: dockerd and
# kubelet send every field. In the others it is a value.
_UNSET_BY_ZERO: Final = {
    "cpu": {"shares", "quota", "period", "realtimeRuntime", "realtimePeriod", "cpus", "mems"},
    "memory": {"limit", "swap", "reservation", "kernel", "kernelTCP"},
    "blockIO": {"weight", "leafWeight"},
}


def update(settings: Settings, container_id: str, options: Options) -> None:
    """Change the limits of a container."""
    container, _ = states.open_(settings, container_id)
    container.lock()
    states.check("update", container, states.status_of(container))
    apply(container, states.manager(container), options)


def apply(container: Container, manager: Manager, options: Options) -> None:
    """Apply new limits and keep them in the saved configuration."""
    wanted = _wanted(options)
    # An update must not undo what a device plugin allowed meanwhile (runc issue 2994).
    wanted.pop("devices", None)
    config = container.config()
    linux = config.setdefault("linux", {})
    old = linux.get("resources") or {}
    new = merge(old, wanted)
    spec.check_resources(new, "linux.resources")
    manager.update(new, old, given(wanted))
    linux["resources"] = new
    schemas: IntelRdt = {}
    if options["l3_cache_schema"]:
        schemas["l3CacheSchema"] = options["l3_cache_schema"]
    if options["mem_bw_schema"]:
        schemas["memBwSchema"] = options["mem_bw_schema"]
    if schemas:
        from . import resctrl

        classes = container.intent.get("resctrl")
        if not classes:
            raise Error("--l3-cache-schema: the container has no linux.intelRdt")
        linux["intelRdt"] = {**(linux.get("intelRdt") or {}), **schemas}
        resctrl.write_schemata(classes, linux["intelRdt"])
    container.save_config(config)


def _wanted(options: Mapping[str, Any]) -> Resources:
    source = options["resources"]
    if source:
        if source == "-":
            value: Resources = jsonio.loads(files.read_fd(0), "--resources")
        else:
            value = jsonio.load(source)
        spec.check_resources(value, "resources")
        return {**value}
    wanted: Any = {}
    for option, (group, key) in _PLACES.items():
        if options[option] is not None:
            wanted.setdefault(group, {})[key] = options[option]
    return wanted  # type: ignore[no-any-return]


def given(new: Resources) -> Resources:
    """Return what an update names, zeros that mean nothing left out: that is written."""
    result: Any = {}
    value: Any
    for key, value in new.items():
        if isinstance(value, dict):
            unset = _UNSET_BY_ZERO.get(key, ())
            value = {name: item for name, item in value.items() if item or name not in unset}  # noqa: PLW2901
        if value is not None and value != {}:
            result[key] = value
    memory = new.get("memory") or {}
    if memory.get("limit") == -1 and not memory.get("swap"):
        # Without a limit of memory there is none of memory and swap together.
        result["memory"]["swap"] = -1
    return result  # type: ignore[no-any-return]


def merge(old: Resources, new: Resources) -> Resources:
    """Return `old` with what `new` gives; objects are merged one level down.

    What `unified` said of a limit that is given now counts no more.
    """
    result: Any = dict(old)
    named: Mapping[str, Any] = given(new)
    for key, value in named.items():
        before = result.get(key)
        both = isinstance(value, dict) and isinstance(before, dict)
        result[key] = {**(before or {}), **value} if both else value
    over = {
        file
        for key, name, *names in _UNIFIED
        for file in names
        if name in (named.get(key) or {}) and file not in (named.get("unified") or {})
    }
    if over & set(result.get("unified") or {}):
        kept = {file: text for file, text in result["unified"].items() if file not in over}
        result["unified"] = kept
    return result  # type: ignore[no-any-return]


# A limit, and the files of cgroup v2 that `unified` may have named for it.
_UNIFIED: Final = (
    ("cpu", "quota", "cpu.max"),
    ("cpu", "period", "cpu.max"),
    ("cpu", "burst", "cpu.max.burst"),
    ("cpu", "shares", "cpu.weight"),
    ("cpu", "idle", "cpu.idle"),
    ("cpu", "cpus", "cpuset.cpus"),
    ("cpu", "mems", "cpuset.mems"),
    ("memory", "limit", "memory.max"),
    ("memory", "swap", "memory.swap.max"),
    ("memory", "reservation", "memory.low"),
    ("pids", "limit", "pids.max"),
    ("blockIO", "weight", "io.weight", "io.bfq.weight"),
)
