"""cgroup v1, and hybrid: one directory for each hierarchy, and one in the cgroup2 mount beside.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/.  The memory controller is
joined last (`finish`), so that the interpreter's own pages stay with the caller's cgroup.

A process that is moved by another one costs a grace period of RCU (cgroup_threadgroup_rwsem),
10 to 18 ms; a single-threaded process that writes 0 to `tasks` itself is moved in 10 us
(kernel/cgroup/cgroup.c, cgroup_procs_write_start, since 5.5).  `joining` says where to write.
"""

from __future__ import annotations

from ..linux.errnos import EINVAL, ENODEV, ENOENT, EPERM, ESRCH

from ..base import log
from ..errors import Error, strerror
from ..linux import files
from . import joining, knobs, making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .convert import Write
    from .devices import Rule
    from .joining import Joining
    from ..model.schema import CgroupRecord, Resources
    from ..wire.shapes import CgroupView

GONE = (ENOENT, ENODEV)


class Maker:
    """The cgroups of one container while it is made; cgroup.Maker describes the methods.

    `hierarchies` are (mount point, controllers, path, made): path is below the mount point and
    begins with a slash; made is how many directories at its end did not exist before.
    """

    __slots__ = ("directories", "hierarchies", "place", "record", "tolerant")
    version = 1

    def __init__(self, record: CgroupRecord) -> None:
        """Take what `choose` has written down."""
        self.record = record
        # A unit of systemd keeps what is ours in a record of its own.
        self.place: CgroupRecord = record.get("fs", record)
        self.tolerant: bool = self.place["tolerant"]
        self.hierarchies: list[tuple[str, str, str, int]] = [
            (mountpoint, controllers, path, made)
            for mountpoint, controllers, path, made in self.place["hierarchies"]
        ]
        self.directories: dict[str, str] = joining.directories(self.place)

    # Making

    def begin(self, _resources: Resources, _middle: int) -> None:
        """Nobody else is asked."""

    def prepare(self, resources: Resources) -> None:
        """Make the directories and write the limits; the cgroups are empty then."""
        self.check(resources)
        self._claim()
        self.fill(resources)

    def check(self, resources: Resources) -> None:
        """Refuse what cannot be set, before anything is made; warn of what has no meaning."""
        from . import devices

        rules = devices.parse(resources.get("devices"))
        self._check_writes(*_writes(resources))
        if rules and not (self._guards() or self.place.get("shielded")):
            from . import refusals

            raise refusals.unavailable("devices", "linux.resources.devices")
        if "devices" in self.directories:
            devices.v1_lines(rules)
        warn_of_ignored(resources)

    def _check_writes(self, writes: list[Write], unified: list[Write]) -> None:
        for controller, _, _, source, _ in writes:
            if controller not in self.directories:
                from . import refusals

                raise refusals.unavailable(controller, source)
        for controller, _, _, source, _ in unified[:1]:
            if "" not in self.directories:
                from . import refusals

                raise refusals.unavailable(controller, source, "version 2")

    def _guards(self) -> bool:
        """Tell whether there is something to guard devices with: the controller, or cgroup2."""
        return "devices" in self.directories or "" in self.directories

    def _claim(self) -> None:
        """Make sure of the first cgroup: whose it is, the others are.

        Where somebody else came first, nothing there may be killed or removed.
        """
        mountpoint, _, path, made = self.hierarchies[0]
        error = None
        try:
            if not making.make(mountpoint + path, mountpoint):
                error = making.taken(mountpoint + path, made)
        except OSError as refusal:
            if not self.tolerant or refusal.errno not in knobs.DENIED:
                raise
        if error:
            self.place["foreign"] = True
            raise error

    def fill(self, resources: Resources) -> None:
        """Make what is not there and write the limits, without a look at who is there."""
        from . import devices

        writes, unified = _writes(resources)
        for mountpoint, controllers, path, _ in self.hierarchies:
            self._make(mountpoint, controllers, path, writes)
            if not controllers or "freezer" in controllers:
                making.frozen(mountpoint + path, mountpoint)
        if "cpuset" in self.directories:
            given = [write[1] for write in writes if write[0] == "cpuset"]
            self._inherit_cpuset(self.directories["cpuset"], given)
        self._write(writes)
        self._write_unified(unified)
        self._guard_devices(devices.parse(resources.get("devices")))

    def adopt(self, pid: int, resources: Resources, in_place: bool) -> None:  # noqa: ARG002
        """Take a process into directories of which somebody else has made some (systemd.py)."""
        self.fill(resources)
        from . import hierarchy

        there = set(hierarchy.directories_of(pid).values())  # each move costs a grace period of RCU
        self._join(
            pid,
            [
                directory
                for controller, directory in self.directories.items()
                if controller != "memory" and directory not in there
            ],
        )

    def _make(self, mountpoint: str, controllers: str, path: str, writes: list[Write]) -> None:
        try:
            making.make(mountpoint + path, mountpoint)
        except OSError as error:
            if not self.tolerant or error.errno not in knobs.DENIED:
                raise
            names = controllers.split(",")
            for write in writes:
                if write[0] in names:
                    from . import refusals

                    raise refusals.not_delegated(write[3]) from None
            for name in names:
                del self.directories[name]

    def _inherit_cpuset(self, directory: str, given: list[str]) -> None:
        """Fill cpuset.cpus and mems from the parents, top down: empty ones take no process."""
        for file in ("cpuset.cpus", "cpuset.mems"):
            if file not in given:
                _inherited(directory, file)
            else:
                _inherited(directory[: directory.rindex("/")], file)

    def _write(self, writes: list[Write], undo: list[tuple[str, str]] | None = None) -> None:
        knobs.write(writes, self.directories, undo)

    def _write_unified(
        self, writes: list[Write], undo: list[tuple[str, str]] | None = None
    ) -> None:
        """Write what is meant for cgroup2 on a hybrid host: the controllers that are not v1's."""
        if not writes:
            return
        directory = self.directories[""]
        have = knobs.read_text(f"{directory}/cgroup.controllers").split()
        for controller, _, _, source, _ in writes:
            if controller != "cgroup" and controller not in have:
                from . import refusals

                raise refusals.unavailable(controller, source, "version 2")
        knobs.write(writes, {write[0]: directory for write in writes}, undo)

    def _guard_devices(self, rules: list[Rule]) -> None:
        """Have devices denied: by the controller, else by a program on cgroup2's directory."""
        if "devices" in self.directories:
            self._write_devices(rules)
        elif "" in self.directories:
            from . import v2

            shielded = bool(self.place.get("shielded")) or not rules
            v2.attach_devices(self.directories[""], rules, True, shielded)

    def _write_devices(self, rules: list[Rule]) -> None:
        from . import devices

        shielded = self.place.get("shielded")
        directory = self.directories["devices"]
        fds = {}
        try:
            for name in ("devices.allow", "devices.deny"):
                fds[name] = files.open(f"{directory}/{name}", files.O_WRONLY)
            for name, line, own in devices.v1_lines(rules):
                try:
                    files.write(fds[name], line.encode())
                except OSError as error:
                    if error.errno == EPERM and (own or shielded):
                        continue
                    raise Error(
                        f"linux.resources.devices: write {line!a} to {directory}/{name}: "
                        f"{strerror(error.errno or 0)}",
                        "a parent cgroup denies this device" if error.errno == EPERM else "",
                    ) from None
        except OSError as error:
            if not shielded or error.errno not in knobs.DENIED:
                raise
        finally:
            for fd in fds.values():
                files.close(fd)

    # Joining

    def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:
        """Say how a process gets in: born in cgroup2's, by itself in the others, memory's last."""
        return joining.v1(self.place, self.directories, subs, born)

    def join(self, pid: int, joining: Joining | None = None) -> None:
        """Put a process into what it cannot join by itself; without `joining` all but memory's."""
        if joining is None:
            self._join(pid, [d for c, d in self.directories.items() if c != "memory"])
        else:
            self._join(pid, joining.by_host)

    def finish(self, pid: int, joining: Joining | None = None) -> None:
        """Put the memory limit into force: by its cgroup, unless the process has joined it."""
        directory = self.directories.get("memory")
        if directory is None or (joining and joining.late):
            return
        if joining and joining.asked:
            from . import hierarchy

            if hierarchy.directories_of(pid).get("memory") == directory:
                return  # systemd has put it there
        self._join(pid, [directory])

    def _join(self, pid: int, directories: list[str]) -> None:
        late = self.directories.get("memory")
        for directory in dict.fromkeys(directories):
            try:
                files.write_file(f"{directory}/cgroup.procs", str(pid))
            except OSError as error:
                if self.tolerant and error.errno in (*knobs.DENIED, *GONE):
                    continue
                if error.errno == ESRCH:
                    raise Error(f"join cgroup {directory}: process {pid} is gone") from None
                if error.errno == EINVAL and directory == late:
                    from . import refusals

                    raise refusals.too_low(
                        f"{late}/memory.limit_in_bytes",
                        knobs.read_text(f"{late}/memory.limit_in_bytes"),
                        "linux.resources.memory.limit",
                    ) from None
                raise

    # Looking

    def mount_view(self, kind: str = "cgroup") -> CgroupView:
        """Return what a mount of type cgroup shows: a directory for each hierarchy, and links.

        The option of the one that is cgroup v2 is "cgroup2"; a mount of that type shows it alone.
        """
        if kind == "cgroup2":
            for mountpoint, controllers, path, _ in self.hierarchies:
                if not controllers:
                    return {"version": 2, "own_path": path, "host_mountpoint": mountpoint}
        hierarchies = []
        links = []
        for mountpoint, controllers, path, _ in self.hierarchies:
            name = mountpoint[mountpoint.rindex("/") + 1 :]
            hierarchies.append((name, controllers or "cgroup2", path, mountpoint))
            links += [
                (controller, name)
                for controller in controllers.split(",")
                if "," in controllers and controller != name
            ]
        return {"version": 1, "hierarchies": hierarchies, "links": links}


def _inherited(directory: str, file: str) -> str:
    """Return a cpuset file's value, filling it from the parent's if it is empty."""
    value = files.read_file(f"{directory}/{file}").strip()
    if value:
        return value.decode()
    parent = _inherited(directory[: directory.rindex("/")], file)
    files.write_file(f"{directory}/{file}", parent)
    return parent


def _writes(resources: Resources) -> tuple[list[Write], list[Write]]:
    """Return the writes to files of version 1, and to those of version 2 beside it."""
    if not knobs.limited(resources):
        return [], []
    from . import convert

    return convert.v1(resources), convert.unified(resources)


def warn_of_ignored(resources: Resources) -> None:
    """Say which of what is asked for has no meaning here."""
    if not knobs.limited(resources):
        return
    from . import convert

    for path in convert.ignored(resources, 1):
        log.warn(f"{path} is ignored: the kernel has no such limit any more")
