"""cgroup v1, and hybrid: one directory for each hierarchy, and one in the cgroup2 mount beside.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/.  The memory controller is
joined last (`finish`), so that the interpreter's own pages stay with the caller's cgroup.

A process that is moved by another one costs a grace period of RCU (cgroup_threadgroup_rwsem),
10 to 18 ms; a single-threaded process that writes 0 to `tasks` itself is moved in 10 us
(kernel/cgroup/cgroup.c, cgroup_procs_write_start, since 5.5).  `self_join` says where to write.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, ENOENT, EOPNOTSUPP, EPERM, ESRCH
from time import sleep

from ..base import log
from ..errors import Error, strerror
from ..linux import files
from . import knobs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .convert import Resources, Write
    from .devices import Rule

_GONE = (ENOENT, ENODEV)


class Manager:
    """The cgroups of one container.

    `hierarchies` are (mount point, controllers, path, made): path is below the mount point and
    begins with a slash; made is how many directories at its end did not exist before.
    """

    __slots__ = ("directories", "hierarchies", "record", "tolerant")

    def __init__(self, record: dict[str, Any]) -> None:
        """Take what `choose` has written down."""
        self.record = record
        self.tolerant: bool = record["tolerant"]
        self.hierarchies: list[tuple[str, str, str, int]] = [
            (h[0], h[1], h[2], h[3]) for h in record["hierarchies"]
        ]
        # By single controller; "name=systemd" and "" (cgroup2) under these names.
        self.directories: dict[str, str] = {
            controller: mountpoint + path
            for mountpoint, controllers, path, _ in self.hierarchies
            for controller in controllers.split(",")
        }

    # Making

    def prepare(self, resources: Resources) -> None:
        """Make the directories and write the limits; the cgroups are empty then."""
        from . import convert, devices

        writes = convert.v1(resources)
        unified = convert.unified(resources)
        devices.parse(resources.get("devices"))
        for controller, _, _, source, _ in writes:
            if controller not in self.directories:
                raise knobs.unavailable(controller, source)
        if unified and "" not in self.directories:
            raise knobs.unavailable(unified[0][0], unified[0][3])
        for path in convert.ignored(resources, 1):
            log.warn(f"{path} is ignored: the kernel has no such limit any more")
        self._claim()
        self.fill(resources)

    def _claim(self) -> None:
        """Make sure of the first cgroup: whose it is, the others are.

        Where somebody else came first, nothing there may be killed or removed.
        """
        mountpoint, _, path, made = self.hierarchies[0]
        error = None
        try:
            if not tree.make(mountpoint + path, mountpoint):
                error = tree.taken(mountpoint + path, made)
        except OSError as refusal:
            if not self.tolerant or refusal.errno not in knobs.DENIED:
                raise
        if error:
            self.record["foreign"] = True
            raise error

    def fill(self, resources: Resources) -> None:
        """Make what is not there and write the limits, without a look at who is there."""
        from . import convert, devices

        writes = convert.v1(resources)
        for mountpoint, controllers, path, _ in self.hierarchies:
            self._make(mountpoint, controllers, path, writes)
        if "cpuset" in self.directories:
            given = [write[1] for write in writes if write[0] == "cpuset"]
            self._inherit_cpuset(self.directories["cpuset"], given)
        self._write(writes)
        self._write_unified(convert.unified(resources))
        if "devices" in self.directories:
            self._write_devices(devices.parse(resources.get("devices")))

    def _make(self, mountpoint: str, controllers: str, path: str, writes: list[Write]) -> None:
        try:
            tree.make(mountpoint + path, mountpoint)
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
                raise knobs.unavailable(controller, source)
        knobs.write(writes, {write[0]: directory for write in writes}, undo)

    def _write_devices(self, rules: list[Rule]) -> None:
        from . import devices

        directory = self.directories["devices"]
        fds = {}
        try:
            for name in ("devices.allow", "devices.deny"):
                fds[name] = files.open(f"{directory}/{name}", files.O_WRONLY)
            for name, line, own in devices.v1_lines(rules):
                try:
                    files.write(fds[name], line.encode())
                except OSError as error:
                    if error.errno == EPERM and (own or self.tolerant):
                        continue
                    raise Error(
                        f"linux.resources.devices: write {line!a} to {directory}/{name}: "
                        f"{strerror(error.errno or 0)}",
                        "a parent cgroup denies this device" if error.errno == EPERM else "",
                    ) from None
        except OSError as error:
            if not self.tolerant or error.errno not in knobs.DENIED:
                raise
        finally:
            for fd in fds.values():
                files.close(fd)

    # Joining

    def self_join(self, subs: list[str] | None = None) -> dict[str, Any]:
        """Say how init joins by itself, which is faster by a grace period of RCU.

        `tasks`: files to open while the host's mount namespace is there, and to write b"0" into
        from the last process, single-threaded, in this order; `late`: the same, after all set-up
        work; `into`: a cgroup2 directory for clone3 with CLONE_INTO_CGROUP, or "".
        """
        below = tree.sub_cgroups(subs or [], set(self.directories))
        tasks, late, into = [], [], ""
        for controller, directory in self._order():
            target = directory + below.get(controller, below.get("*", ""))
            if self.tolerant and not files.exists(target):
                continue
            if controller == "":
                into = target
            elif controller == "memory":
                late.append(f"{target}/tasks")
            else:
                tasks.append(f"{target}/tasks")
        return {"tasks": tasks, "late": late, "into": into}

    def join(self, pid: int) -> None:
        """Put a process into all cgroups but memory's."""
        self._join(pid, [d for c, d in self.directories.items() if c != "memory"])

    def finish(self, pid: int) -> None:
        """Put the process under the memory limit, when it has done its set-up work."""
        if "memory" in self.directories:
            self._join(pid, [self.directories["memory"]])

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
        below = tree.sub_cgroups(subs, set(self.directories))
        present = None
        for controller, directory in self._order():
            target = directory + below.get(controller, below.get("*", ""))
            try:
                files.write_file(f"{target}/cgroup.procs", str(pid))
                continue
            except OSError as error:
                if target != directory:
                    raise Error(f"join cgroup {target}: {strerror(error.errno or 0)}") from None
                if self.tolerant and error.errno in knobs.DENIED:
                    continue
                if error.errno not in (EBUSY, EOPNOTSUPP, *_GONE):
                    raise
            present = present or _present(init_pid)
            fallback = present.get(controller)
            if fallback is None or fallback == directory:
                if self.tolerant:
                    continue
                raise Error(f"join cgroup {directory}: it is gone, and init is in no other one")
            try:
                files.write_file(f"{fallback}/cgroup.procs", str(pid))
            except OSError as error:
                if not self.tolerant or error.errno not in knobs.DENIED:
                    raise

    def _order(self) -> list[tuple[str, str]]:
        """Return one controller and the directory of each hierarchy, memory last."""
        seen = {directory: controller for controller, directory in self.directories.items()}
        order = [(controller, directory) for directory, controller in seen.items()]
        return sorted(order, key=lambda item: item[1] == self.directories.get("memory"))

    # Living

    def update(self, resources: Resources, old: Resources) -> None:
        """Write new limits, the whole of them; when one is refused, write back what was there.

        Devices are written only where they differ: an update must not undo what a GPU agent
        allowed meanwhile (runc issue 2994).
        """
        from . import convert, devices

        self._present()
        writes = convert.v1(resources)
        unified = convert.unified(resources)
        for controller, _, _, source, _ in writes:
            if controller not in self.directories:
                raise knobs.unavailable(controller, source)
        if unified and "" not in self.directories:
            raise knobs.unavailable(unified[0][0], unified[0][3])
        rules = devices.parse(resources.get("devices"))
        self._check_memory(resources)
        undo: list[tuple[str, str]] = []
        try:
            self._write(writes, undo)
            self._write_unified(unified, undo)
            if devices.changed(resources, old) and "devices" in self.directories:
                self._write_devices(rules)
        except (Error, OSError):
            knobs.restore(undo)
            raise

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

    def kill(self, signal: int) -> None:
        """Send a signal to all processes; SIGKILL leaves none behind, however fast they fork."""
        if not self.directories or "foreign" in self.record:
            return
        directory = self._main()
        if signal != tree.SIGKILL:
            tree.signal_all(directory, signal)
            return
        unified = self.directories.get("")
        if unified and tree.kill_all(unified) and not tree.processes(directory):
            if self.frozen():
                self.thaw()
            return
        frozen = False
        if "freezer" in self.directories and tree.processes(directory):
            try:
                self.freeze()
                frozen = True
            except (Error, OSError):
                pass  # without it the loop below may need more than one round
        for _ in range(1 if frozen else 50):
            if not tree.signal_all(directory, signal):
                break
            if not frozen:
                sleep(0.002)
        if "freezer" in self.directories and self.frozen():
            self.thaw()

    def destroy(self, patience: float = tree.PATIENCE) -> None:
        """Remove what was made, and nothing else; what is gone already is fine."""
        if "foreign" in self.record:
            return
        tree.remove([(m + path, made) for m, _, path, made in self.hierarchies], patience)

    # Looking

    def stats(self) -> dict[str, Any]:
        """Return what `events` shows."""
        from . import stats

        self._present()
        return stats.v1(self.directories)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        directory = self.directories.get("memory", "")
        return knobs.read_map(f"{directory}/memory.oom_control").get("oom_kill", 0)

    def gone(self) -> bool:
        """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""
        return not files.exists(self._main())

    def oom_watch(self) -> tuple[int, int]:
        """Return a descriptor and the poll(2) event by which it tells of an OOM."""
        from . import stats

        self._present()
        if "memory" not in self.directories:
            raise Error("events: the cgroup controller memory is not available here")
        return stats.v1_oom_watch(self.directories["memory"])

    def mount_view(self) -> dict[str, Any]:
        """Return what a mount of type cgroup shows: a directory for each hierarchy, and links.

        The option of the one that is cgroup v2 is "cgroup2".
        """
        hierarchies = []
        links = []
        for mountpoint, controllers, path, _ in self.hierarchies:
            name = mountpoint[mountpoint.rindex("/") + 1 :]
            hierarchies.append([name, controllers or "cgroup2", path, mountpoint])
            links += [
                [controller, name]
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
