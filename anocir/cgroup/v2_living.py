"""cgroup v2: what there is to do and to see once a container is made.

Side: host.  Sources: Documentation/admin-guide/cgroup-v2.rst; cgroups(7).
"""

from __future__ import annotations

from time import sleep

from ..base import log
from ..errors import Error, strerror
from ..linux import files
from ..linux.errnos import EBUSY, ENODEV, ENOENT, EOPNOTSUPP
from . import joining, knobs, refusals, removal, tree, undoing
from .v2 import Maker, warn_of_ignored

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .changes import Change
    from .devices import Rule
    from ..model.schema import Resources, Stats

_BUSY: Final = (EBUSY, EOPNOTSUPP, ENOENT, ENODEV)
_FILES: Final = (
    "memory.max", "memory.high", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight",
    "cpu.idle", "pids.max",
)  # fmt: skip


class Manager(Maker):
    """The cgroup of one container; cgroup.Manager describes the methods."""

    __slots__ = ()

    def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
        """Put a process of exec into the cgroup, or where init is by now.

        A systemd in the container moves itself to a cgroup below and enables controllers; the
        container's own then takes no process (EBUSY, runc issue 2416).
        """
        below = joining.sub_cgroups(subs, set()).get("*", "")
        target = (self.directory if subs else self.home) + below
        try:
            files.write_file(f"{target}/cgroup.procs", str(pid))
            return
        except OSError as error:
            if subs:  # who names a cgroup wants this one
                raise refusals.not_added(target, pid, error) from error
            if error.errno not in (*_BUSY, *knobs.DENIED):
                raise
            reason = error
        from . import hierarchy

        path = hierarchy.of_process(init_pid).get("")
        if reason.errno in knobs.DENIED:
            if path is None or not f"{path}/".endswith(self.place["path"] + "/"):
                return  # where it could not be made, the container has none
            raise refusals.stays_outside(target, reason) from reason
        if path is None or self.place["mountpoint"] + path == target:
            if self.tolerant:
                return
            raise reason
        try:
            files.write_file(f"{self.place['mountpoint']}{path}/cgroup.procs", str(pid))
        except OSError as error:
            if not self.tolerant or error.errno not in knobs.DENIED:
                raise

    def update(self, resources: Resources, _old: Resources, named: Resources | None = None) -> None:
        """Write new limits; when one is refused, write back what was there."""
        from . import convert

        self._present()
        wanted = resources if named is None else convert.named(resources, named, 2)
        writes = convert.v2(wanted)
        warn_of_ignored(named or {})
        refusals.check_usage(resources, f"{self.directory}/memory.current")
        self._enable(writes)
        undo: list[tuple[str, str]] = []
        try:
            self._write(writes, undo)
        except (Error, OSError):
            undoing.restore(undo)
            raise

    def change_devices(
        self, rules: list[Rule], before: list[Rule], after: list[Rule], new: list[Change]
    ) -> Callable[[], None]:
        """Have a program with the changes take the place of the present one."""
        self._present()
        return change_devices(self.directory, rules, before, after, new[0][0])

    def devices_now(
        self, rules: list[Rule], changed: list[Rule]
    ) -> list[tuple[str, str | None, str | None]]:
        """Compare what is allowed by the rules of config.json, and now; look for other programs."""
        return devices_now(self.directory, rules, changed)

    def expected(self, resources: Resources) -> list[tuple[str, str, str, str]]:
        """Return the files and values of limits."""
        from . import convert

        return [
            (source, f"{self.directory}/{file}", value, rule)
            for _, file, value, source, rule in convert.v2(resources)
        ]

    def files(self) -> list[str]:
        """Return the files of limits that have a default."""
        return [f"{self.directory}/{file}" for file in _FILES]

    def _present(self) -> None:
        if self.tolerant and self.gone():
            raise refusals.no_cgroup()

    def freeze(self) -> None:
        """Stop all processes; thaw again when they do not stop within two seconds."""
        self._present()
        state = f"{self.directory}/cgroup.freeze"
        files.write_file(state, "1")
        for attempt in range(400):
            if knobs.read_map(f"{self.directory}/cgroup.events").get("frozen", 1):
                return
            sleep(0.001 if attempt < 20 else 0.005)
        files.write_file(state, "0")
        raise Error(f"pause: the processes did not stop: {state} is 1, frozen stays 0")

    def thaw(self) -> None:
        """Let all processes run again."""
        self._present()
        files.write_file(f"{self.directory}/cgroup.freeze", "0")

    def thaw_below(self) -> None:
        """Do nothing: the freezer of v2 lets a process die."""

    def frozen(self) -> bool:
        """Tell whether the container is paused."""
        return knobs.read_text(f"{self.directory}/cgroup.freeze") == "1"

    def pids(self) -> list[int]:
        """Return the host pids of all processes of the container."""
        self._present()
        return tree.processes(self.directory)

    def kill(self, signal: int, mine: Callable[[int], bool] | None = None) -> None:
        """Send a signal to all processes; SIGKILL leaves none behind, however fast they fork."""
        if "foreign" in self.place:
            return
        if signal != tree.SIGKILL:
            tree.signal_all(self.directory, signal, mine)
            return
        if not mine and tree.kill_all(self.directory):
            if self.frozen():
                self.thaw()
            return
        frozen = False
        if not mine and tree.processes(self.directory):
            try:
                self.freeze()
                frozen = True
            except (Error, OSError):
                pass  # without it the loop below may need more than one round
        for _ in range(1 if frozen else 50):
            if not tree.signal_all(self.directory, signal, mine):
                break
            if not frozen:
                sleep(0.002)
        if self.frozen():
            self.thaw()

    def destroy(self, patience: float = removal.PATIENCE) -> None:
        """Remove what was made, and nothing else; what is gone already is fine."""
        if "foreign" in self.place:
            return
        removal.remove([(self.directory, self.place["made"])], patience)

    def stats(self) -> Stats:
        """Return what `events` shows."""
        from . import stats

        return {} if self.tolerant and self.gone() else stats.v2(self.directory)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        return knobs.read_map(f"{self.directory}/memory.events").get("oom_kill", 0)

    def gone(self) -> bool:
        """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""
        return not files.exists(self.directory)

    def oom_watch(self) -> tuple[int, int]:
        """Return a descriptor and the poll(2) event by which it tells of an OOM."""
        from . import stats

        if self.tolerant and self.gone():
            return -1, 0  # there is nothing to wait for
        return stats.v2_oom_watch(self.directory)


# systemd's own on the cgroup of a unit: it has what the unit's properties say.
_OF_SYSTEMD: Final = b"sd_devices"


def change_devices(
    directory: str, rules: list[Rule], before: list[Rule], after: list[Rule], source: str
) -> Callable[[], None]:
    """Replace the program on a cgroup2 directory; the function that undoes it.

    The kernel exchanges one program for the other; before 5.6 both are there for a moment, and what
    both allow is allowed.  Raises Error where somebody else has put theirs in the place of ours: it
    would go on denying, and what it allows would be lost with ours beside it.
    """
    from ..linux import bpf
    from . import devices

    def put(changes: list[Rule]) -> None:
        bpf.replace_device_program(directory, devices.program(rules, changes), False)

    try:
        names = bpf.names(directory)
        others = [name for name in names if name not in (bpf.NAME, _OF_SYSTEMD)]
        if others and bpf.NAME not in names and not devices.allows_all(rules):
            shown = files.decode(others[0]) or "without a name"
            raise Error(
                f"{source}: another program decides about the devices of {directory}: {shown}",
                "who has put it in the place of the runtime's has to change it",
            )
        put(after)
    except OSError as error:
        denied = error.errno in knobs.DENIED
        raise Error(
            f"{source}: attach a device program to {directory}: {strerror(error.errno or 0)}",
            "without root nobody is kept from devices, and nobody let to them" if denied else "",
        ) from None
    return lambda: put(before)


def devices_now(
    directory: str, rules: list[Rule], changed: list[Rule]
) -> list[tuple[str, str | None, str | None]]:
    """Compare what a program allows by config.json and now; look for programs of others."""
    from ..linux import bpf
    from . import changes, devices

    found = changes.differences(rules, changed)
    try:
        names = bpf.names(directory)
    except OSError as error:
        log.debug(f"devices: look for programs on {directory}: {strerror(error.errno or 0)}")
        return found
    if bpf.NAME not in names and (changed or not devices.allows_all(rules)):
        found.append(("the device program", "anocir", None))
    for name in names:
        if name not in (bpf.NAME, _OF_SYSTEMD):
            found.append(("a device program", None, files.decode(name) or "without a name"))
    return found
