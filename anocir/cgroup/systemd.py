"""The systemd manager: a container is a transient unit, asked for over D-Bus.

Side: host, cold: only --systemd-cgroup loads this and jeepney.  Sources:
org.freedesktop.systemd1(5), systemd.resource-control(5), https://systemd.io/CGROUP_DELEGATION,
the D-Bus specification.

What systemd does not know of (and it knows less on v1) is done by the cgroupfs manager on the
unit's directory: `fs`.
"""

from __future__ import annotations

import time

import posix

from ..base import log
from ..errors import Error, reason
from ..linux import files
from . import convert, devices, hierarchy, tree, unit, v1, v1_record, v2, v2_record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Final

    from .convert import Resources

_NAME: Final = "org.freedesktop.systemd1"
_PATH: Final = "/org/freedesktop/systemd1"
_MANAGER: Final = "org.freedesktop.systemd1.Manager"
_PROPERTIES: Final = "org.freedesktop.DBus.Properties"
_UNIT: Final = "org.freedesktop.systemd1.Unit"
_TIMEOUT: Final = 30.0
# The controllers whose v1 directories systemd makes and removes itself.
_MANAGED: Final = ("name=systemd", "cpu", "cpuacct", "memory", "blkio", "devices", "pids")


def choose(
    config: dict[str, Any],
    container_id: str,
    path: str,
    user: bool,
    v1_all: list[tuple[str, str, str]],
    v2_one: tuple[str, str, str] | None,
) -> dict[str, Any]:
    """Return the record of a container that becomes a unit; make nothing."""
    where, name = unit.parse(path, container_id, user)
    if v2_one is not None and not any("=" not in controllers for _, controllers, _ in v1_all):
        below = _top(user, v2_one[2]) + unit.expand(where) + f"/{name}"
        fs = v2_record(v2_one[0], below, config, tolerant=user)
        fs["made"] = 1  # systemd keeps the slices
    else:
        own = next((own for _, controllers, own in v1_all if controllers == "name=systemd"), "")
        below = _top(user, own) + unit.expand(where) + f"/{name}"
        hierarchies = [*v1_all, *([v2_one] if v2_one else [])]
        fs = v1_record(hierarchies, below[1:].split("/"), container_id, tolerant=user)
        for row in fs["hierarchies"]:
            if any(word in _MANAGED for word in row[1].split(",")):
                row[3] = 1
    return {
        "manager": "systemd",
        "user": user,
        "slice": where,
        "unit": name,
        # By this the unit is known as ours before it is stopped: a name may have been taken.
        "description": f"anocir container {container_id} ({time.time_ns():x})",
        "properties": unit.annotated(config.get("annotations") or {}),
        "fs": fs,
    }


def _top(user: bool, own: str) -> str:
    """Return the cgroup of the manager that is asked, as seen from the mount point."""
    if not user:
        return ""
    words = own.split("/")
    for index, word in enumerate(words):
        if word.startswith("user@") and word.endswith(".service"):
            return "/".join(words[: index + 1])
    with _Bus(user=True) as bus:
        path = bus.get(_PATH, _MANAGER, "ControlGroup")
    return "" if path == "/" else str(path)


def _real_uid() -> int:
    """Return the uid that the bus sees, which is another one inside of a user namespace."""
    uid = posix.geteuid()
    for line in files.read_file("/proc/self/uid_map").split(b"\n"):
        words = [int(word) for word in line.split()]
        if len(words) == 3 and words[0] <= uid < words[0] + words[2]:
            return words[1] + uid - words[0]
    return uid


def _environment(name: str) -> str:
    return files.decode(posix.environ.get(name.encode(), b""))


def _addresses(user: bool) -> list[str]:
    """Return where the bus may be, best first."""
    if not user:
        address = _environment("DBUS_SYSTEM_BUS_ADDRESS")
        return [address or "unix:path=/run/dbus/system_bus_socket"]
    runtime = _environment("XDG_RUNTIME_DIR") or f"/run/user/{_real_uid()}"
    addresses = [_environment("DBUS_SESSION_BUS_ADDRESS"), f"unix:path={runtime}/bus"]
    return [address for address in addresses if address]


class BusError(Exception):
    """A D-Bus call was answered with an error; `name` is the D-Bus name of it."""

    __slots__ = ("name",)

    def __init__(self, name: str, text: str) -> None:
        """Take the name and the text of the answer."""
        super().__init__(text)
        self.name = name.rsplit(".", 1)[-1]


class _Bus:
    """A connection to systemd's manager."""

    __slots__ = ("connection", "subscribed", "user")

    def __init__(self, user: bool) -> None:
        self.subscribed = False
        try:
            import jeepney  # noqa: F401
        except ImportError:
            text = "the systemd cgroup manager needs the Python package jeepney"
            raise Error(text, "the archive that `make` builds contains it") from None
        self.user = user
        failure = ""
        for address in _addresses(user):
            try:
                self.connection = self._connect(address)
                return
            except (OSError, ValueError, RuntimeError) as error:
                failure = f"{address}: {reason(error) if isinstance(error, OSError) else error}"
        raise Error(
            f"connect to the {'user' if user else 'system'} bus: {failure}",
            "without systemd use the cgroupfs manager",
        )

    def _connect(self, address: str) -> Any:
        import socket

        from jeepney.bus import get_connectable_addresses
        from jeepney.io.blocking import DBusConnection

        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.settimeout(_TIMEOUT)
            sock.connect(next(get_connectable_addresses(address)))
            # jeepney would send the uid of this user namespace; the bus compares the real one.
            uid = str(_real_uid()).encode().hex()
            sock.sendall(b"\0AUTH EXTERNAL " + uid.encode() + b"\r\n")
            answer = b""
            while not answer.endswith(b"\r\n"):
                data = sock.recv(1024)
                if not data:
                    break
                answer += data
            if not answer.startswith(b"OK "):
                raise ValueError(f"authentication failed: {answer.decode(errors='replace')!a}")
            sock.sendall(b"BEGIN\r\n")
            return DBusConnection(sock)
        except BaseException:
            sock.close()
            raise

    def __enter__(self) -> _Bus:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.connection.close()

    def call(self, path: str, interface: str, method: str, signature: str, *body: Any) -> Any:
        """Call a method and return the body of the answer.  Raises BusError or Error."""
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        address = DBusAddress(path, bus_name=_NAME, interface=interface)
        message = new_method_call(address, method, signature or None, body)
        try:
            answer = self.connection.send_and_get_reply(message, timeout=_TIMEOUT)
        except TimeoutError:
            raise Error(f"systemd: {method}: no answer within {_TIMEOUT:.0f} seconds") from None
        if answer.header.message_type is MessageType.error:
            name = answer.header.fields.get(HeaderFields.error_name, "")
            text = answer.body[0] if answer.body else name
            raise BusError(name, str(text))
        return answer.body

    def get(self, path: str, interface: str, name: str) -> Any:
        """Return a property."""
        return self.call(path, _PROPERTIES, "Get", "ss", interface, name)[0][1]

    def version(self) -> int:
        """Return systemd's version: 252 for "252.39-1~deb12u1" or "v252"."""
        text = str(self.get(_PATH, _MANAGER, "Version")).lstrip("v")
        digits = ""
        for char in text:
            if not char.isdigit():
                break
            digits += char
        return int(digits or 0)

    def job(self, method: str, signature: str, *body: Any) -> None:
        """Call a method that makes a job, and wait for the job's end."""
        from jeepney import MatchRule
        from jeepney.bus_messages import message_bus

        rule = MatchRule(type="signal", interface=_MANAGER, member="JobRemoved", path=_PATH)
        self.connection.send_and_get_reply(message_bus.AddMatch(rule), timeout=_TIMEOUT)
        with self.connection.filter(rule, bufsize=1000) as queue:
            if not self.subscribed:  # a second time is an error
                self.call(_PATH, _MANAGER, "Subscribe", "")
                self.subscribed = True
            (job,) = self.call(_PATH, _MANAGER, method, signature, *body)
            deadline = time.monotonic() + _TIMEOUT
            while True:
                try:
                    left = deadline - time.monotonic()
                    signal = self.connection.recv_until_filtered(queue, timeout=max(left, 0.0))
                except TimeoutError:
                    text = f"systemd: {method} {body[0]}: not done within {_TIMEOUT:.0f} seconds"
                    raise Error(text) from None
                _, path, name, result = signal.body
                if path == job:
                    break
        if result != "done":
            raise Error(
                f"systemd: {method} {name}: the job ended with {result}",
                f"look into `journalctl -u {name}`",
            )


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


class Manager:
    """The unit of one container.  The methods are described in v1.Manager."""

    __slots__ = ("fs", "record", "resources")

    def __init__(self, record: dict[str, Any]) -> None:
        """Take what `choose` has written down."""
        self.record = record
        fs = record["fs"]
        self.fs: v1.Manager | v2.Manager
        self.fs = v1.Manager(fs) if fs["manager"] == "v1" else v2.Manager(fs)
        self.resources: Resources = {}

    def _version(self) -> int:
        return 1 if isinstance(self.fs, v1.Manager) else 2

    # Making

    def prepare(self, resources: Resources) -> None:
        """Refuse what cannot be converted; the unit is made with its first process."""
        self.resources = resources
        convert.v2(resources) if self._version() == 2 else convert.v1(resources)
        unit.resources(resources, self._version(), 255)
        devices.parse(resources.get("devices"))

    def self_join(self, subs: list[str] | None = None) -> dict[str, Any]:
        """Init cannot join by itself before the unit is there; a process of exec can."""
        if subs is None:
            return {"tasks": [], "late": [], "into": ""}
        return self.fs.self_join(subs)

    def join(self, pid: int) -> None:
        """Start the unit with this process in it, and write what systemd does not know."""
        name: str = self.record["unit"]
        with _Bus(self.record["user"]) as bus:
            properties = self._properties(bus.version(), pid)
            body = [(key, (signature, value)) for key, signature, value in properties]
            arguments: Any = ("StartTransientUnit", "ssa(sv)a(sa(sv))", name, "replace", body, [])
            try:
                try:
                    bus.job(*arguments)
                except BusError as error:
                    if error.name != "UnitExists" or name.endswith(".slice"):
                        raise
                    # A unit that failed stays loaded under its name until someone resets it.
                    self._reset(bus)
                    bus.job(*arguments)
            except BusError as error:
                if error.name == "UnitExists" and name.endswith(".slice"):
                    log.debug(f"slice {name} is there already")
                else:
                    if error.name == "UnitExists":
                        self.fs.record["foreign"] = True  # nothing there may be killed or removed
                    raise Error(f"systemd: start unit {name}: {error}") from None
        if not name.endswith(".slice"):
            self._verify(pid)
        self._write_files(pid)

    def _properties(self, systemd: int, pid: int) -> list[unit.Property]:
        name: str = self.record["unit"]
        version = self._version()
        result: list[unit.Property] = [("Description", "s", self.record["description"])]
        if name.endswith(".slice"):
            result.append(("Wants", "as", [self.record["slice"]]))
        else:
            result += [
                ("Slice", "s", self.record["slice"]),
                ("Delegate", "b", True),
                ("PIDs", "au", [pid]),
            ]
            if systemd >= 236:
                result.append(("CollectMode", "s", "inactive-or-failed"))
        result += [
            ("DefaultDependencies", "b", False),
            ("MemoryAccounting", "b", True),
            ("CPUAccounting", "b", True),
            ("IOAccounting" if version == 2 else "BlockIOAccounting", "b", True),
            ("TasksAccounting", "b", True),
            *unit.resources(self.resources, version, systemd),
            *self._device_properties(self.resources),
        ]
        for key, signature, value in self.record["properties"]:
            result = [item for item in result if item[0] != key]
            result.append((key, signature, value))
        return result

    def _device_properties(self, resources: Resources) -> list[unit.Property]:
        """Return the device rules as properties; a unit of a user has none (no rights to BPF)."""
        if self.record["user"]:
            return []
        rules = devices.effective(devices.parse(resources.get("devices")))
        properties = unit.devices(rules, _drivers())
        for _, _, value in properties[2:]:
            value[:] = [entry for entry in value if self._known(entry[0])]
        return properties

    def _known(self, path: str) -> bool:
        """Tell whether systemd can resolve a device; the links in /dev/char come from sysfs."""
        if not path.startswith("/dev/") or files.exists(f"/sys{path}"):
            return True
        log.debug(f"device {path} is not there, so it is not passed to systemd")
        return False

    def _reset(self, bus: _Bus) -> None:
        try:
            bus.call(_PATH, _MANAGER, "ResetFailedUnit", "s", self.record["unit"])
        except BusError as error:
            log.debug(f"systemd: reset {self.record['unit']}: {error}")

    def _cgroup(self, controllers: str) -> str:
        fs = self.record["fs"]
        if fs["manager"] == "v2":
            return str(fs["path"])
        return next((str(row[2]) for row in fs["hierarchies"] if row[1] == controllers), "")

    def _verify(self, pid: int) -> None:
        """Make sure that the process is where systemd says (runc issue 2313)."""
        controllers = "" if self._version() == 2 else "name=systemd"
        wanted = self._cgroup(controllers)
        actual = ""
        for _ in range(100):
            actual = hierarchy.of_process(pid).get(controllers, "")
            if not wanted or actual.endswith(wanted):
                return
            time.sleep(0.01)
        raise Error(
            f"systemd: start unit {self.record['unit']}: process {pid} is in cgroup {actual}, "
            f"not in {wanted}"
        )

    def _write_files(self, pid: int) -> None:
        """Write all limits to the files, also those that systemd has set already."""
        if isinstance(self.fs, v1.Manager):
            self.fs.fill(self.resources)
            self.fs.join(pid)
        else:
            rules = devices.parse(self.resources.get("devices"))
            if self.record["unit"].endswith(".slice"):
                self.fs.join(pid)
            self.fs.limit(convert.v2(self.resources), rules, fresh=True)
            self.fs.delegate()

    def finish(self, pid: int) -> None:
        """Do the last part on the files."""
        self.fs.finish(pid)

    def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
        """Put a process of exec into the unit's cgroups."""
        self.fs.exec_join(pid, init_pid, subs)

    # Living

    def update(self, resources: Resources, old: Resources) -> None:
        """Set the properties, then the files; when one is refused, set back what was there."""
        with _Bus(self.record["user"]) as bus:
            systemd = bus.version()
            self._set(bus, unit.resources(resources, self._version(), systemd), resources, old)
            try:
                self.fs.update(resources, old)
            except (Error, OSError):
                before = unit.resources(old, self._version(), systemd)
                try:
                    self._set(bus, before, old, resources)
                except Error as error:
                    log.warn(f"undo of an update: {error.text}")
                raise

    def _set(
        self, bus: _Bus, properties: list[unit.Property], resources: Resources, old: Resources
    ) -> None:
        if devices.changed(resources, old):
            properties = properties + self._device_properties(resources)
        if not properties:
            return
        body = [(key, (signature, value)) for key, signature, value in properties]
        name = self.record["unit"]
        try:
            bus.call(_PATH, _MANAGER, "SetUnitProperties", "sba(sv)", name, True, body)
        except BusError as error:
            raise Error(f"systemd: set properties of unit {name}: {error}") from None

    def freeze(self) -> None:
        """Stop all processes, by the files: the manager's own state follows."""
        self.fs.freeze()

    def thaw(self) -> None:
        """Let all processes run again."""
        self.fs.thaw()

    def frozen(self) -> bool:
        """Tell whether the container is paused."""
        return self.fs.frozen()

    def pids(self) -> list[int]:
        """Return the host pids of all processes of the container."""
        return self.fs.pids()

    def kill(self, signal: int) -> None:
        """Send a signal to all processes."""
        self.fs.kill(signal)

    def destroy(self, patience: float = tree.PATIENCE) -> None:
        """Stop our unit, forget that it failed, and remove what it leaves behind."""
        with _Bus(self.record["user"]) as bus:
            try:
                (path,) = bus.call(_PATH, _MANAGER, "GetUnit", "s", self.record["unit"])
                if bus.get(path, _UNIT, "Description") != self.record["description"]:
                    return  # someone else's, and so are its cgroups
                bus.job("StopUnit", "ss", self.record["unit"], "replace")
            except BusError as error:
                if error.name not in ("NoSuchUnit", "UnknownObject"):
                    raise Error(f"systemd: stop unit {self.record['unit']}: {error}") from None
            self._reset(bus)
        self.fs.destroy(patience)

    # Looking

    def stats(self) -> dict[str, Any]:
        """Return what `events` shows."""
        return self.fs.stats()

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        return self.fs.oom_kills()

    def gone(self) -> bool:
        """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""
        return self.fs.gone()

    def oom_watch(self) -> tuple[int, int]:
        """Return a descriptor and the poll(2) event by which it tells of an OOM."""
        return self.fs.oom_watch()

    def mount_view(self) -> dict[str, Any]:
        """Return what a mount of type cgroup shows."""
        return self.fs.mount_view()
