"""cgroup v1, and hybrid: what there is to do and to see once a container is made.

Side: host.  Sources: cgroups(7); Documentation/admin-guide/cgroup-v1/.
"""

from __future__ import annotations

from time import sleep

from ..errors import Error, strerror
from ..linux import files
from ..linux.errnos import EBUSY, EOPNOTSUPP, EPERM
from . import hierarchy, joining, knobs, refusals, removal, tree, undoing
from .v1 import GONE, Maker, warn_of_ignored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .changes import Change
    from .devices import Rule
    from ..model.schema import Resources, Stats

_FILES: Final = {
    "memory": (
        "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes",
    ),
    "cpu": ("cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.shares", "cpu.idle"),
    "pids": ("pids.max",),
}  # fmt: skip


class Manager(Maker):
    """The cgroups of one container; cgroup.Manager describes the methods."""

    __slots__ = ()

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
                    raise refusals.not_added(target, pid, error) from error
                if error.errno not in (EBUSY, EOPNOTSUPP, *knobs.DENIED, *GONE):
                    raise
                reason = error
            present = present or hierarchy.directories_of(init_pid)
            fallback = present.get(controllers[0])
            if reason.errno in knobs.DENIED:
                if fallback == directory:
                    raise refusals.stays_outside(directory, reason) from reason
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

    def update(self, resources: Resources, _old: Resources, named: Resources | None = None) -> None:
        """Write new limits; when one is refused, write back what was there."""
        from . import convert

        self._present()
        wanted = resources if named is None else convert.named(resources, named, 1)
        writes = convert.v1(wanted)
        unified = convert.unified(wanted)
        warn_of_ignored(named or {})
        self._check_writes(writes, unified)
        if "memory" in self.directories:
            file = f"{self.directories['memory']}/memory.usage_in_bytes"
            refusals.check_usage(resources, file)
        undo: list[tuple[str, str]] = []
        try:
            self._write(writes, undo)
            self._write_unified(unified, undo)
        except (Error, OSError):
            undoing.restore(undo)
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
                raise refusals.unavailable("devices", new[0][0])
            from . import v2_living

            return v2_living.change_devices(self.directories[""], rules, before, after, new[0][0])
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
            from . import v2_living

            there = "" in self.directories
            return v2_living.devices_now(self.directories[""], rules, changed) if there else []
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
        raise refusals.no_cgroup()

    def _present(self) -> None:
        """Refuse what needs a cgroup when none could be made."""
        if self.tolerant and self.gone():
            raise refusals.no_cgroup()

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
