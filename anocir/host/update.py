"""The update operation: new limits for a container that is there.

Side: host.
"""

from __future__ import annotations


from ..base import jsonio
from ..errors import Error
from ..linux import files
from ..model.spec import resources as resources_spec
from . import lock, saving, states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from ..cli import Options, Settings
    from .store import Container
    from ..model.schema import Config, IntelRdt, Resources
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
    "kernel_memory": ("memory", "kernel"),
    "kernel_memory_tcp": ("memory", "kernelTCP"),
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
    lock.take(container)
    container.load()
    status = states.status_of(container)
    transitions.check("update", container, status)
    apply(container, states.manager(container), options, status)


def apply(container: Container, manager: Manager, options: Options, status: str) -> None:
    """Apply new limits and device rules, all or nothing, and keep what is there now.

    The rules of config.json stay as they are, what has changed of them is in the state.  Without
    `devices` nothing of them is touched: a device plugin may have allowed more (runc issue 2994).
    """
    wanted = _wanted(options)
    rules = wanted.pop("devices", None) or []
    config = container.config()
    plug = None
    if rules or options["device_add"] or options["device_remove"]:
        from . import hotplug

        plug = hotplug.Plug(container, manager, config, rules, options)
    linux = config.setdefault("linux", {})
    old = linux.get("resources") or {}
    new = merge(old, wanted)
    resources_spec.check(new, "linux.resources")
    if plug:
        plug.do(status)
    try:
        if "resources" not in container.state:
            saving.state(container, resources=old)  # what config.json said: for `diff`
        _limit(container, manager, options, config, new, given(wanted))
    except (Error, OSError):
        if plug:
            plug.undo()
        raise
    if plug:
        plug.keep()


def _limit(
    container: Container,
    manager: Manager,
    options: Options,
    config: Config,
    new: Resources,
    named: Resources,
) -> None:
    linux = config["linux"]
    schemas: IntelRdt = {}
    if options["l3_cache_schema"]:
        schemas["l3CacheSchema"] = options["l3_cache_schema"]
    if options["mem_bw_schema"]:
        schemas["memBwSchema"] = options["mem_bw_schema"]
    if not named and not schemas and (options["device_add"] or options["device_remove"]):
        return
    manager.update(new, linux.get("resources") or {}, named)
    linux["resources"] = new
    if schemas:
        from . import resctrl

        classes = container.intent.get("resctrl")
        if not classes:
            given_by = "--l3-cache-schema" if options["l3_cache_schema"] else "--mem-bw-schema"
            raise Error(f"{given_by}: the container has no linux.intelRdt")
        linux["intelRdt"] = {**(linux.get("intelRdt") or {}), **schemas}
        resctrl.write_schemata(classes, linux["intelRdt"])
    saving.config(container, config)


def _wanted(options: Mapping[str, Any]) -> Resources:
    source = options["resources"]
    if source:
        if source == "-":
            value: Resources = jsonio.loads(files.read_fd(0), "--resources")
        else:
            value = jsonio.load(source, option="--resources")
        resources_spec.check(value, "resources")
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
