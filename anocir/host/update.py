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
    from typing import Any, Final

    from ..cli import Options, Settings
    from .store import Container

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


def apply(container: Container, manager: Any, options: Options) -> None:
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
    schemas = {
        key: options[option]
        for key, option in (
            ("l3CacheSchema", "l3_cache_schema"), ("memBwSchema", "mem_bw_schema"),
        )
        if options[option]
    }  # fmt: skip
    if schemas:
        from . import resctrl

        if not container.intent.get("resctrl"):
            raise Error("--l3-cache-schema: the container has no linux.intelRdt")
        linux["intelRdt"] = {**(linux.get("intelRdt") or {}), **schemas}
        resctrl.write_schemata(container.intent["resctrl"], linux["intelRdt"])
    container.save_config(config)


def _wanted(options: Options) -> dict[str, Any]:
    source = options["resources"]
    if source:
        if source == "-":
            value = jsonio.loads(files.read_fd(0), "--resources")
        else:
            value = jsonio.load(source)
        spec.check_resources(value, "resources")
        return dict(value)
    wanted: dict[str, Any] = {}
    for option, (group, key) in _PLACES.items():
        if options[option] is not None:
            wanted.setdefault(group, {})[key] = options[option]
    return wanted


def given(new: dict[str, Any]) -> dict[str, Any]:
    """Return what an update names, zeros that mean nothing left out: that is written."""
    result: dict[str, Any] = {}
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
    return result


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Return `old` with what `new` gives; objects are merged one level down.

    What `unified` said of a limit that is given now counts no more.
    """
    result = dict(old)
    named = given(new)
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
    return result


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
