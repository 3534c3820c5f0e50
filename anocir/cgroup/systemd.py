"""The systemd manager: a container is a transient unit, asked for over D-Bus.

Side: host, cold: only --systemd-cgroup loads this.  Sources: org.freedesktop.systemd1(5),
systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION.

What systemd does not know of (and it knows less on v1) is done by the cgroupfs manager on the
unit's directory; so this one is that one, with the unit around it.  systemd is asked only where
something cannot be had otherwise: once to start the unit, once to change it, and to stop it if
it is still there.
"""

from __future__ import annotations

from time import sleep, time_ns

from ..base import log
from ..errors import Error, at, keyed
from ..linux import files
from . import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

    from . import Maker
    from .bus import Bus
    from .devices import Rule
    from .joining import Joining
    from .unit import Property
    from ..model.schema import CgroupRecord, Config, Resources

    class _Files:
        """The cgroupfs manager that a unit is added to: v1.Maker or v2.Maker."""

        place: CgroupRecord
        record: CgroupRecord
        directories: dict[str, str]
        version: int

        def __init__(self, record: CgroupRecord) -> None: ...
        def check(self, resources: Resources) -> None: ...
        def fill(self, resources: Resources) -> None: ...
        def join(self, pid: int, joining: Joining | None = None) -> None: ...
        def adopt(self, pid: int, resources: Resources, in_place: bool) -> None: ...
        def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:
            raise NotImplementedError

else:
    _Files = object

# The controllers whose v1 directories systemd makes and removes itself.
_MANAGED: Final = ("name=systemd", "cpu", "cpuacct", "memory", "blkio", "devices", "pids")
# Asked for as if it knew all the properties; only one that refuses is asked for its version.
_NEWEST: Final = 254
_START: Final = "StartTransientUnit"
# What a unit must have room for that is begun with the middle process, which clones init there.
_ROOM: Final = {"TasksMax": 2, "MemoryMax": 16 << 20, "MemoryLimit": 16 << 20}


def choose(
    config: Config,
    container_id: str,
    path: str,
    user: bool,
    v1_all: list[hierarchy.Hierarchy],
    v2_one: hierarchy.Hierarchy | None,
) -> CgroupRecord:
    """Return the record of a container that becomes a unit; make nothing."""
    from . import unit
    from .choice import subgroups, v1_record, v2_record

    properties = unit.annotated(config.get("annotations") or {})
    where, name = unit.parse(path, container_id, user)
    where = _other_slice(properties, where, name)
    subgroup, _ = subgroups(config)
    if v2_one is not None and hierarchy.only_v2(v1_all):
        mountpoint, _, own = v2_one
        cgroup = f"{_top(user, own)}{unit.expand(where)}/{name}"
        directory = mountpoint + cgroup
        fs = v2_record(mountpoint, cgroup + subgroup, config, tolerant=user)
        fs["fresh"] = fs["made"] > 0
        fs["made"] = 1 + subgroup.count("/")  # systemd keeps the slices
        fs["at_top"] = not subgroup and not fs["leaf"]
    elif user:
        raise Error(
            "the systemd cgroup manager without root needs cgroup v2, and this host has v1",
            "use --cgroup-manager=cgroupfs, or boot with systemd.unified_cgroup_hierarchy=1",
        )
    else:
        cgroup = f"{unit.expand(where)}/{name}"
        directory = ""
        words = (cgroup + subgroup)[1:].split("/")
        hierarchies = [*v1_all, *([v2_one] if v2_one else [])]
        fs = v1_record(hierarchies, words, container_id, False, config)
        rows: Any = []
        for mountpoint, controllers, below, made in fs["hierarchies"]:
            managed = any(word in _MANAGED for word in controllers.split(","))
            rows.append(
                [mountpoint, controllers, below, 1 + subgroup.count("/") if managed else made]
            )
            if controllers == "name=systemd":
                directory = mountpoint + cgroup
        fs["hierarchies"] = rows
    return {
        "manager": "systemd",
        "user": user,
        "slice": where,
        "unit": name,
        # By this the unit is known as ours before it is stopped: a name may have been taken.
        "description": f"anocir container {container_id} ({time_ns():x})",
        "properties": properties,
        "cgroup": cgroup,
        "directory": directory,
        "fs": fs,
    }


def _other_slice(properties: list[Property], where: str, name: str) -> str:
    """Return the slice that the annotation org.systemd.property.Slice names, or the one there."""
    from . import unit

    for key, signature, value in properties:
        if key == "Slice":
            source = keyed("annotations", "org.systemd.property.Slice")
            if signature != "s" or name.endswith(".slice"):
                raise at(source, "must be the name of a slice, and the unit no slice itself")
            unit.expand(value, source)
            return str(value)
    return where


def _top(user: bool, own: str) -> str:
    """Return the cgroup of the manager that is asked, as seen from the mount point."""
    if not user:
        return ""
    words = own.split("/")
    for index, word in enumerate(words):
        if word.startswith("user@") and word.endswith(".service"):
            return "/".join(words[: index + 1])
    from . import bus

    with bus.Bus(user=True) as connection:
        path = connection.get(bus.PATH, bus.MANAGER, "ControlGroup")
    return "" if path == "/" else path


def maker(record: CgroupRecord) -> Maker:
    """Return who makes a container that is a unit, on the cgroups that there are."""
    if record["fs"]["manager"] == "v1":
        from . import v1

        directories: type = v1.Maker
    else:
        from . import v2

        directories = v2.Maker
    made: Maker = on_unit(Unit, directories, record)
    return made


def on_unit(unit: type, directories: type, record: CgroupRecord) -> Any:
    """Return a manager that is both: what it does otherwise with a unit comes first."""
    # No class statement: how Python 3.13 writes down its name depends on what else the process has
    # compiled, and the archive must not.
    slots = {"__slots__": ("connection", "job", "limits", "middle")}
    return type("OnUnit", (unit, directories), slots)(record)


class Unit(_Files):
    """What a manager of files does otherwise when its directories are systemd's."""

    __slots__ = ()
    limits: Resources
    # Who is in the unit that `begin` has asked for, where, and the job that is waited for.
    middle: int
    connection: Bus | None
    job: str

    def __init__(self, record: CgroupRecord) -> None:
        """Take what `choose` has written down."""
        super().__init__(record)
        self.limits = {}
        self.middle = 0
        self.connection = None
        self.job = ""

    # Making

    def begin(self, resources: Resources, middle: int) -> None:
        """Have the unit started with the middle process, while that boots; with 0 later.

        `prepare` waits for systemd then, and init, which the middle process clones before it ends,
        gets in as it does without systemd: born there, and by itself where systemd knows nothing.
        Not where there is no room for both.
        """
        found = [*self._check(resources), *self.record["properties"]]
        if not middle or self.record["user"] or self.record["unit"].endswith(".slice"):
            return
        crowded = any(
            value < _ROOM[key] for key, kind, value in found if kind == "t" and key in _ROOM
        )
        if crowded or not super().joining().into:
            return
        from . import bus

        connection = bus.Bus(False)
        self.job = self._begin(connection, middle)
        self.middle = middle
        self.connection = connection

    def prepare(self, resources: Resources) -> None:
        """Refuse what cannot be set.  The unit is made with its first process, if not yet begun."""
        if self.connection is not None:
            self._end(self.middle, self.connection, self.job)
            self.connection = None
        elif self.limits is not resources:  # `begin` has looked at them
            self._check(resources)

    def _check(self, resources: Resources) -> list[Property]:
        """Refuse what cannot be set, once: it may warn.  Returns the limits that systemd knows."""
        from . import unit

        self.check(resources)
        self.limits = resources
        return unit.resources(resources, self.version, _NEWEST)

    def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:
        """Say how a process gets in: init by systemd, which starts the unit with it."""
        if subs is not None or self.middle:
            return super().joining(subs, born)
        from .joining import Joining

        return Joining(asked=True)

    def join(self, pid: int, joining: Joining | None = None) -> None:
        """Start the unit with this process in it, and write what systemd does not know."""
        if joining is not None and not joining.asked:
            super().join(pid, joining)
            return
        from . import bus

        connection = bus.Bus(self.record["user"])
        self._end(pid, connection, self._begin(connection, pid))

    def _begin(self, connection: Bus, pid: int) -> str:
        """Ask for the unit with this process in it: the job, or "" where there is none."""
        from . import bus

        name: str = self.record["unit"]
        try:
            return self._start(connection, name, pid)
        except bus.BusError as error:
            if error.name != "UnitExists" or not name.endswith(".slice"):
                if error.name == "UnitExists":
                    self.place["foreign"] = True  # nothing there may be killed or removed
                raise Error(f"systemd: start unit {name}: {error}") from None
            log.debug(f"slice {name} is there already")
            return ""

    def _end(self, pid: int, connection: Bus, job: str) -> None:
        """Wait for the unit with this process in it, and write what systemd does not know."""
        name: str = self.record["unit"]
        is_slice = name.endswith(".slice")
        with connection:
            if job:
                connection.finish(name, _START, job)
        if not is_slice:
            self._verify(pid)
        if self.version == 1 and pid == self.middle:
            self.fill(self.limits)  # where systemd has not put it, it has no business
        else:
            self.adopt(pid, self.limits, in_place=not is_slice)

    def _start(self, connection: Bus, name: str, pid: int) -> str:
        """Start the unit; one that has failed stays loaded under its name until it is reset."""
        from . import bus

        def send(systemd: int) -> str:
            body = [(key, (kind, value)) for key, kind, value in self._properties(systemd, pid)]
            return connection.begin(_START, "ssa(sv)a(sa(sv))", name, "replace", body, [])

        try:
            return negotiate(connection, send)
        except bus.BusError as error:
            if error.name != "UnitExists" or name.endswith(".slice"):
                raise
            if self._is_ours(connection):  # systemd has started anew before it could answer
                connection.settle(name)
                return ""
            reset(connection, name)
            return negotiate(connection, send)

    def _is_ours(self, connection: Bus) -> bool:
        from . import bus

        path = bus.unit_path(self.record["unit"])
        try:
            description = connection.get(path, bus.UNIT, "Description")
        except bus.BusError as error:
            if error.name in ("NoSuchUnit", "UnknownObject"):
                return False
            raise
        return bool(description == self.record["description"])

    def _properties(self, systemd: int, pid: int) -> list[Property]:
        from . import devices, unit

        name: str = self.record["unit"]
        result: list[Property] = [("Description", "s", self.record["description"])]
        if name.endswith(".slice"):
            result.append(("Wants", "as", [self.record["slice"]]))
        else:
            result += [
                ("Slice", "s", self.record["slice"]),
                ("Delegate", "b", True),
                ("PIDs", "au", [pid]),
                ("CollectMode", "s", "inactive-or-failed"),
            ]
        result += [
            ("DefaultDependencies", "b", False),
            ("MemoryAccounting", "b", True),
            ("CPUAccounting", "b", True),
            ("IOAccounting" if self.version == 2 else "BlockIOAccounting", "b", True),
            ("TasksAccounting", "b", True),
            *unit.resources(self.limits, self.version, systemd),
            *self._device_properties(devices.parse(self.limits.get("devices")), []),
        ]
        for key, signature, value in self.record["properties"]:
            result = [item for item in result if item[0] != key]
            result.append((key, signature, value))
        return result

    def _device_properties(self, rules: list[Rule], changed: list[Rule]) -> list[Property]:
        """Return the device rules as properties; a unit of a user has none (no rights to BPF)."""
        if self.record["user"]:
            return []
        from . import devices, unit

        properties = unit.devices([*devices.effective(rules), *changed], _drivers())
        for _, _, value in properties[2:]:
            value[:] = [entry for entry in value if _known(entry[0])]
        return properties

    def _verify(self, pid: int) -> None:
        """Make sure that the process is where systemd says (runc issue 2313)."""
        wanted: str = self.record["cgroup"]
        controllers = "" if self.version == 2 else "name=systemd"
        actual = ""
        for _ in range(100):
            actual = hierarchy.of_process(pid).get(controllers, "")
            if not actual or actual.endswith(wanted):
                return
            sleep(0.01)
        raise Error(
            f"systemd: start unit {self.record['unit']}: process {pid} is in cgroup {actual}, "
            f"not in {wanted}"
        )


def negotiate(connection: Bus, send: Callable[[int], str]) -> str:
    """Send what the newest systemd knows; if that is refused, what this one knows."""
    from . import bus

    try:
        return send(_NEWEST)
    except bus.BusError as error:
        if error.name not in ("PropertyReadOnly", "InvalidArgs"):
            raise
        version = connection.version()
        if version >= _NEWEST:
            raise
        return send(version)


def reset(connection: Bus, name: str) -> None:
    """Have systemd forget a unit that has failed."""
    from . import bus

    try:
        connection.call(bus.PATH, bus.MANAGER, "ResetFailedUnit", "s", name)
    except bus.BusError as error:
        log.debug(f"systemd: reset {name}: {error}")


def _drivers() -> dict[tuple[str, int], str]:
    """Return the names of drivers by type and major number: proc(5), /proc/devices."""
    result: dict[tuple[str, int], str] = {}
    kind = "c"
    for line in files.decode(files.read_file("/proc/devices")).split("\n"):
        words = line.split()
        if line.startswith("Block"):
            kind = "b"
        elif len(words) == 2 and words[0].isdigit():
            result.setdefault((kind, int(words[0])), words[1])
    return result


def _known(path: str) -> bool:
    """Tell whether systemd can resolve a device; the links in /dev/char come from sysfs."""
    if not path.startswith("/dev/") or files.exists(f"/sys{path}"):
        return True
    log.debug(f"device {path} is not there, so it is not passed to systemd")
    return False
