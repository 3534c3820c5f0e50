"""The systemd manager: what there is to do with the unit of a container once it is made.

Side: host, cold.  Sources: org.freedesktop.systemd1(5), systemd.resource-control(5).
"""

from __future__ import annotations

from ..base import log
from ..errors import Error
from ..linux import files
from ..linux.errnos import EACCES, EPERM, EROFS
from .systemd import Unit, negotiate, on_unit, reset

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from . import Manager
    from .bus import Bus
    from .changes import Change, Listed
    from .devices import Rule
    from .unit import Property
    from ..model.schema import CgroupRecord, Resources

    class _Files(Unit):
        """The cgroupfs manager that a unit is added to: that of v1_living or v2_living."""

        def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None: ...
        def destroy(self, patience: float = 10.0) -> None: ...
        def update(
            self, resources: Resources, old: Resources, named: Resources | None = None
        ) -> None: ...
        def change_devices(
            self, rules: list[Rule], before: list[Rule], after: list[Rule], new: list[Change]
        ) -> Callable[[], None]:
            raise NotImplementedError

        def freeze(self) -> None: ...
        def thaw(self) -> None: ...
        def frozen(self) -> bool:
            raise NotImplementedError

else:
    _Files = Unit


def load(record: CgroupRecord) -> Manager:
    """Return the manager of a container that is a unit, on the cgroups that there are."""
    if record["fs"]["manager"] == "v1":
        from . import v1_living

        directories: type = v1_living.Manager
    else:
        from . import v2_living

        directories = v2_living.Manager
    manager: Manager = on_unit(LivingUnit, directories, record)
    return manager


class LivingUnit(_Files):
    """What a manager of files does otherwise when its directories are systemd's."""

    __slots__ = ()

    def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
        """Put a process of exec into the unit's cgroups; without rights systemd moves it there.

        From a login's cgroup a user may not: nobody owns what is above both.
        """
        try:
            super().exec_join(pid, init_pid, subs)
        except Error as error:
            number = getattr(error.__cause__, "errno", None)
            if not self.record["user"] or number not in (EACCES, EPERM, EROFS):
                raise
            self._attach(pid, subs)

    def _attach(self, pid: int, subs: list[str]) -> None:
        from . import bus, joining

        name: str = self.record["unit"]
        directory: str = self.record["directory"]
        below = f"{self.place['mountpoint']}{self.place['path']}"[len(directory) :]
        below += joining.sub_cgroups(subs, set()).get(
            "*", "" if subs else self.place.get("leaf", "")
        )
        with bus.Bus(user=True) as connection:
            try:
                connection.call(
                    bus.PATH, bus.MANAGER, "AttachProcessesToUnit", "ssau", name, below, [pid]
                )
            except bus.BusError as error:
                raise Error(f"systemd: move process {pid} into unit {name}: {error}") from None

    def update(self, resources: Resources, old: Resources, named: Resources | None = None) -> None:
        """Set the properties, then the files; when one is refused, set back what was there."""
        from . import bus, convert

        wanted = resources if named is None else convert.named(resources, named, self.version)
        before = old if named is None else convert.previous(old, wanted)
        with bus.Bus(self.record["user"]) as connection:
            self._set(connection, wanted)
            try:
                super().update(resources, old, named)
            except (Error, OSError):
                try:
                    self._set(connection, before)
                except Error as error:
                    log.warn(f"undo of an update: {error.text}")
                raise

    def _set(self, connection: Bus, resources: Resources) -> None:
        from . import unit

        self._send(connection, lambda systemd: unit.resources(resources, self.version, systemd))

    def _send(self, connection: Bus, properties: Callable[[int], list[Property]]) -> None:
        from . import bus

        name: str = self.record["unit"]

        def send(systemd: int) -> str:
            body = [(key, (kind, value)) for key, kind, value in properties(systemd)]
            if body:
                connection.call(
                    bus.PATH, bus.MANAGER, "SetUnitProperties", "sba(sv)", name, True, body
                )
            return ""

        try:
            negotiate(connection, send)
        except bus.BusError as error:
            raise Error(f"systemd: set properties of unit {name}: {error}") from None

    def change_devices(
        self, rules: list[Rule], before: list[Rule], after: list[Rule], new: list[Change]
    ) -> Callable[[], None]:
        """Change the properties of the unit too, by which systemd sets its own rules at a reload.

        On v2 those of systemd first: what it denies nobody else can allow.
        """
        set_ = self._in_peace if self.version == 1 else self._set_devices
        if self.version == 1:
            back = super().change_devices(rules, before, after, new)
            try:
                set_(rules, after)
            except (Error, OSError):
                back()
                raise
        else:
            set_(rules, after)
            try:
                back = super().change_devices(rules, before, after, new)
            except (Error, OSError):
                set_(rules, before)
                raise

        def undo() -> None:
            back()
            set_(rules, before)

        return undo

    def _set_devices(self, rules: list[Rule], changed: list[Rule]) -> None:
        from . import bus

        with bus.Bus(self.record["user"]) as connection:
            self._send(connection, lambda _: self._device_properties(rules, changed))

    def _in_peace(self, rules: list[Rule], changed: list[Rule]) -> None:
        """Set the properties on v1, and write again what the list of devices said.

        Nobody runs meanwhile, since systemd begins anew with nothing.
        """
        from . import changes

        directory = self.directories.get("devices")
        if directory is None:
            self._set_devices(rules, changed)
            return
        wanted = _list_of(directory)
        frozen = self.frozen()
        try:
            if not frozen:
                self.freeze()
        except Error as error:
            log.debug(f"devices: {error.text}")
        try:
            self._set_devices(rules, changed)
        finally:
            try:
                _put_list(directory, wanted, changes.exceptions(rules, changed))
            finally:
                if not frozen:
                    self.thaw()

    def destroy(self, patience: float = 10.0) -> None:
        """Stop our unit unless it is gone, and remove what it leaves behind."""
        if "foreign" in self.place:
            return
        there = files.exists(self.record.get("directory") or "/")
        # Without processes a scope ends, and its cgroup with it; only who said so has it stay as
        # a failed one.  A slice stays.
        lasting = self.record["unit"].endswith(".slice") or any(
            key == "CollectMode" for key, _, _ in self.record["properties"]
        )
        # Of a runtime that was killed meanwhile systemd may be making the unit now.
        if there or lasting or self.record.get("unfinished"):
            try:
                if not self._stop(lasting):
                    return  # someone else's, and so are its cgroups
            except Error as error:
                if there:
                    raise
                log.debug(f"nothing to stop: {error.text}")
        super().destroy(patience)

    def _stop(self, lasting: bool) -> bool:
        """Stop the unit and wait for its end; False when it is another one of this name."""
        from . import bus

        name: str = self.record["unit"]
        with bus.Bus(self.record["user"]) as connection:
            try:
                if not self._is_ours(connection):
                    return self._is_free(connection)
                connection.job(name, "StopUnit", "ss", name, "replace")
            except bus.BusError as error:
                if error.name not in ("NoSuchUnit", "UnknownObject"):
                    raise Error(f"systemd: stop unit {name}: {error}") from None
            if lasting:
                reset(connection, name)
        return True

    def _is_free(self, connection: Bus) -> bool:
        """Tell whether nobody has a unit of this name: what is left of its cgroup is ours."""
        from . import bus

        try:
            path = bus.unit_path(self.record["unit"])
            return connection.get(path, bus.UNIT, "ActiveState") in ("inactive", "failed")
        except bus.BusError:
            return True


def _list_of(directory: str) -> Listed | None:
    from . import changes

    return changes.listed(files.decode(files.read_file(f"{directory}/devices.list")))


def _put_list(directory: str, wanted: Listed | None, denied: Listed) -> None:
    """Have in force what devices.list said, None for all but what is `denied`, and nothing else."""
    from . import changes

    present = _list_of(directory)
    pairs: list[tuple[str, Listed, Listed]] = []
    if wanted is None:
        files.write_file(f"{directory}/devices.allow", "a")
        pairs = [("deny", denied, {})]
    else:
        if present is None:
            files.write_file(f"{directory}/devices.deny", "a")
            present = {}
        pairs = [("allow", wanted, present), ("deny", present, wanted)]
    for file, some, others in pairs:
        for key, bits in some.items():
            lacking = bits & ~others.get(key, 0)
            if lacking:
                line = changes.name((True, *key, lacking))
                files.write_file(f"{directory}/devices.{file}", line)
