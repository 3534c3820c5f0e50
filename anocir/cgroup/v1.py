"""cgroup v1, and hybrid: one directory for each hierarchy, and one in the cgroup2 mount beside.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/.  The memory controller is
joined last (`finish`), so that the interpreter's own pages stay with the caller's cgroup.

A process that is moved by another one costs a grace period of RCU (cgroup_threadgroup_rwsem),
10 to 18 ms; a single-threaded process that writes 0 to `tasks` itself is moved in 10 us
(kernel/cgroup/cgroup.c, cgroup_procs_write_start, since 5.5).  `joining` says where to write.
"""

from __future__ import annotations

from ..linux.errnos import EBUSY, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM, ESRCH
from time import sleep

from ..base import log
from ..errors import Error, strerror
from ..linux import files
from . import joining, knobs, making, removal, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .changes import Change
    from .convert import Write
    from .devices import Rule
    from .joining import Joining
    from ..model.schema import CgroupRecord, Resources, Stats
    from ..wire.shapes import CgroupView

_GONE = (ENOENT, ENODEV)
_FILES: Final = {
    "memory": (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
    ),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpu.idle"),
    "pids": ("pids.max",),
}  # fmt: skip


class Manager:
    """The cgroups of one container; cgroup.Manager describes the methods.

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
        from . import convert, devices

        rules = devices.parse(resources.get("devices"))
        self._check_writes(convert.v1(resources), convert.unified(resources))
        if rules and not (self._guards() or self.place.get("shielded")):
            raise knobs.unavailable("devices", "linux.resources.devices")
        warn_of_ignored(resources)

    def _check_writes(self, writes: list[Write], unified: list[Write]) -> None:
        for controller, _, _, source, _ in writes:
            if controller not in self.directories:
                raise knobs.unavailable(controller, source)
        for controller, _, _, source, _ in unified[:1]:
            if "" not in self.directories:
                raise knobs.unavailable(controller, source, "version 2")

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
        from . import convert, devices

        writes = convert.v1(resources)
        for mountpoint, controllers, path, _ in self.hierarchies:
            self._make(mountpoint, controllers, path, writes)
            if not controllers or "freezer" in controllers:
                making.frozen(mountpoint + path, mountpoint)
        if "cpuset" in self.directories:
            given = [write[1] for write in writes if write[0] == "cpuset"]
            self._inherit_cpuset(self.directories["cpuset"], given)
        self._write(writes)
        self._write_unified(convert.unified(resources))
        self._guard_devices(devices.parse(resources.get("devices")))

    def adopt(self, pid: int, resources: Resources, in_place: bool) -> None:  # noqa: ARG002
        """Take a process into directories of which somebody else has made some (systemd.py)."""
        self.fill(resources)
        there = set(_present(pid).values())  # each move costs a grace period of RCU
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
                    raise knobs.not_delegated(write[3]) from None
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
                raise knobs.unavailable(controller, source, "version 2")
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
        if joining and joining.asked and _present(pid).get("memory") == directory:
            return  # systemd has put it there
        self._join(pid, [directory])

    def _join(self, pid: int, directories: list[str]) -> None:
        late = self.directories.get("memory")
        for directory in dict.fromkeys(directories):
            try:
                files.write_file(f"{directory}/cgroup.procs", str(pid))
            except OSError as error:
                if self.tolerant and error.errno in (*knobs.DENIED, *_GONE):
                    continue
                if error.errno == ESRCH:
                    raise Error(f"join cgroup {directory}: process {pid} is gone") from None
                if error.errno == EINVAL and directory == late:
                    raise knobs.too_low(
                        f"{late}/memory.limit_in_bytes",
                        knobs.read_text(f"{late}/memory.limit_in_bytes"),
                        "linux.resources.memory.limit",
                    ) from None
                raise

    def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
        """Put a process of exec into the container's cgroups.

        `subs` are "[controllers:]path" below them.  Where the container's own cgroup is gone or
        takes no process, init's present one is taken (systemd in a container moves itself).
        """
        present = None
        for controllers, directory, down in joining.targets(self.directories, subs):
            target = directory + down
            try:
                files.write_file(f"{target}/cgroup.procs", str(pid))
                continue
            except OSError as error:
                if subs:  # who names a cgroup wants this one
                    raise Error(
                        f"join cgroup {target}: adding pid {pid}: {strerror(error.errno or 0)}"
                    ) from error
                if error.errno not in (EBUSY, EOPNOTSUPP, *knobs.DENIED, *_GONE):
                    raise
                reason = error
            present = present or _present(init_pid)
            fallback = present.get(controllers[0])
            if reason.errno in knobs.DENIED:
                if fallback == directory:
                    raise knobs.stays_outside(directory, reason) from reason
                continue  # where it could not be made, the container has none
            if fallback is None or fallback == directory:
                if self.tolerant:
                    continue
                raise Error(f"join cgroup {directory}: it is gone, and init is in no other one")
            try:
                files.write_file(f"{fallback}/cgroup.procs", str(pid))
            except OSError as error:
                if not self.tolerant or error.errno not in knobs.DENIED:
                    raise

    # Living

    def update(self, resources: Resources, _old: Resources, named: Resources | None = None) -> None:
        """Write new limits; when one is refused, write back what was there."""
        from . import convert

        self._present()
        wanted = resources if named is None else convert.named(resources, named, 1)
        writes = convert.v1(wanted)
        unified = convert.unified(wanted)
        warn_of_ignored(named or {})
        self._check_writes(writes, unified)
        self._check_memory(resources)
        undo: list[tuple[str, str]] = []
        try:
            self._write(writes, undo)
            self._write_unified(unified, undo)
        except (Error, OSError):
            knobs.restore(undo)
            raise

    def change_devices(
        self, rules: list[Rule], before: list[Rule], after: list[Rule], new: list[Change]
    ) -> Callable[[], None]:
        """Write what changes and nothing else: what a GPU agent has allowed meanwhile stays.

        So there is no moment in which nothing or everything is allowed (runc issue 2994).
        """
        self._present()
        if "devices" not in self.directories:
            if "" not in self.directories:
                raise knobs.unavailable("devices", new[0][0])
            from . import v2

            return v2.change_devices(self.directories[""], rules, before, after, new[0][0])
        from . import changes

        directory = self.directories["devices"]
        done: list[tuple[str, str]] = []

        def undo() -> None:
            for file, line in reversed(done):
                files.write_file(f"{directory}/{file}", line)

        known = list(before)
        try:
            for change in new:
                exempt = changes.listed(files.decode(files.read_file(f"{directory}/devices.list")))
                others = changes.exceptions(rules, known) if exempt is None else exempt
                known.append(change[1])
                for file, line, back in changes.v1_lines(change, others, exempt is None):
                    try:
                        files.write_file(f"{directory}/{file}", line)
                    except OSError as error:
                        raise Error(
                            f"{change[0]}: write {line!a} to {directory}/{file}: "
                            f"{strerror(error.errno or 0)}",
                            "a parent cgroup denies this device" if error.errno == EPERM else "",
                        ) from None
                    done.append((back, line))
        except (Error, OSError):
            undo()
            raise
        return undo

    def devices_now(
        self, rules: list[Rule], changed: list[Rule]
    ) -> list[tuple[str, str | None, str | None]]:
        """Compare devices.list with what it would say by the rules of config.json alone."""
        from . import changes

        if "devices" not in self.directories:
            from . import v2

            there = "" in self.directories
            return v2.devices_now(self.directories[""], rules, changed) if there else []
        path = f"{self.directories['devices']}/devices.list"
        if not files.exists(path):
            return []
        found = changes.listed(files.decode(files.read_file(path)))
        return changes.v1_differences(rules, changed, found)

    def expected(self, resources: Resources) -> list[tuple[str, str, str, str]]:
        """Return the files and values of limits."""
        from . import convert

        writes = [(self.directories.get(write[0]), write) for write in convert.v1(resources)]
        writes += [(self.directories.get(""), write) for write in convert.unified(resources)]
        return [
            (source, f"{directory}/{file}", value, rule)
            for directory, (_, file, value, source, rule) in writes
            if directory
        ]

    def files(self) -> list[str]:
        """Return the files of limits that have a default."""
        return [
            f"{self.directories[controller]}/{file}"
            for controller, names in _FILES.items()
            if controller in self.directories
            for file in names
        ]

    def _check_memory(self, resources: Resources) -> None:
        memory = resources.get("memory") or {}
        limit = memory.get("limit") or 0
        if memory.get("checkBeforeUpdate") and limit > 0 and "memory" in self.directories:
            usage = knobs.read_int(f"{self.directories['memory']}/memory.usage_in_bytes") or 0
            if limit <= usage:
                raise Error(f"rejecting memory limit {limit} <= usage {usage}")

    def _freezer(self) -> str:
        self._present()
        directory = self.directories.get("freezer")
        if directory is None:
            raise Error("pause needs the cgroup controller freezer, which is not available here")
        return f"{directory}/freezer.state"

    def freeze(self) -> None:
        """Stop all processes; thaw again when they do not stop within two seconds.

        A process that forks all the time can keep the cgroup at FREEZING; writing FROZEN again
        helps, and now and then a short thaw does (kernel 4.x and 5.x).
        """
        state = self._freezer()
        for attempt in range(400):
            if attempt % 100 == 99:
                files.write_file(state, "THAWED")
            files.write_file(state, "FROZEN")
            if knobs.read_text(state) == "FROZEN":
                return
            sleep(0.001 if attempt < 20 else 0.005)
        files.write_file(state, "THAWED")
        raise Error(f"pause: the processes did not stop: {state} stays at FREEZING")

    def thaw(self) -> None:
        """Let all processes run again."""
        files.write_file(self._freezer(), "THAWED")

    def thaw_below(self) -> None:
        """Let run again what was frozen, also by the container itself, further down."""
        directory = self.directories.get("freezer")
        if directory is not None and "foreign" not in self.place:
            tree.thaw_all(directory)

    def frozen(self) -> bool:
        """Tell whether the container is paused."""
        directory = self.directories.get("freezer")
        return directory is not None and (
            knobs.read_text(f"{directory}/freezer.state") in ("FROZEN", "FREEZING")
        )

    def _main(self) -> str:
        """Return the directory by which processes are found: one that containers leave alone."""
        for controller in ("freezer", "devices", "pids", "name=systemd", ""):
            if controller in self.directories:
                return self.directories[controller]
        for directory in self.directories.values():
            return directory
        raise knobs.no_cgroup()

    def _present(self) -> None:
        """Refuse what needs a cgroup when none could be made."""
        if self.tolerant and self.gone():
            raise knobs.no_cgroup()

    def pids(self) -> list[int]:
        """Return the host pids of all processes of the container."""
        self._present()
        return tree.processes(self._main())

    def kill(self, signal: int, mine: Callable[[int], bool] | None = None) -> None:
        """Send a signal to all processes; SIGKILL leaves none behind, however fast they fork."""
        if not self.directories or "foreign" in self.place:
            return
        directory = self._main()
        if signal != tree.SIGKILL:
            tree.signal_all(directory, signal, mine)
            return
        unified = self.directories.get("")
        if unified and not mine and tree.kill_all(unified) and not tree.processes(directory):
            self.thaw_below()
            return
        frozen = False
        if "freezer" in self.directories and not mine and tree.processes(directory):
            try:
                self.freeze()
                frozen = True
            except (Error, OSError):
                pass  # without it the loop below may need more than one round
        for _ in range(1 if frozen else 50):
            if not tree.signal_all(directory, signal, mine):
                break
            if not frozen:
                self.thaw_below()
                sleep(0.002)
        self.thaw_below()

    def destroy(self, patience: float = removal.PATIENCE) -> None:
        """Remove what was made, and nothing else; what is gone already is fine."""
        if "foreign" in self.place:
            return
        removal.remove([(m + path, made) for m, _, path, made in self.hierarchies], patience)

    # Looking

    def stats(self) -> Stats:
        """Return what `events` shows."""
        from . import stats

        return {} if self.tolerant and self.gone() else stats.v1(self.directories)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        directory = self.directories.get("memory", "")
        return knobs.read_map(f"{directory}/memory.oom_control").get("oom_kill", 0)

    def gone(self) -> bool:
        """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""
        # One hierarchy after the other, and that of the memory may be the first.
        found = [files.exists(path) for path in self.directories.values()]
        return not found or not all(found)

    def oom_watch(self) -> tuple[int, int]:
        """Return a descriptor and the poll(2) event by which it tells of an OOM."""
        from . import stats

        if self.tolerant and self.gone():
            return -1, 0  # there is nothing to wait for
        if "memory" not in self.directories:
            raise Error("events: the cgroup controller memory is not available here")
        return stats.v1_oom_watch(self.directories["memory"])

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


def _present(pid: int) -> dict[str, str]:
    """Return the directories of the cgroups in which a process is now, by controller."""
    from . import hierarchy

    result = {}
    cgroups = hierarchy.of_process(pid)
    for mountpoint, root, options in hierarchy.mounts():
        for controllers, path in cgroups.items():
            words = controllers.split(",")
            if (options and words[0] in options) or (not options and not controllers):
                below = hierarchy.below(path, root)
                if below is not None:
                    result.update(dict.fromkeys(words, mountpoint + below))
    return result


def warn_of_ignored(resources: Resources) -> None:
    """Say which of what is asked for has no meaning here."""
    from . import convert

    for path in convert.ignored(resources, 1):
        log.warn(f"{path} is ignored: the kernel has no such limit any more")
