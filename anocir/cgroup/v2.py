"""cgroup v2: one directory, controllers enabled from the top, devices by an eBPF program.

Side: host.  Sources: Documentation/admin-guide/cgroup-v2.rst; cgroups(7).  The memory limits are
written last (`finish`), when the set-up work is done: what the interpreter needs meanwhile does
not have to fit in them.
"""

from __future__ import annotations

from ..linux.errnos import EBUSY, EINVAL, ENODEV, ENOENT, ENOSYS, EOPNOTSUPP, ESRCH
from time import sleep

from ..base import log
from ..errors import Error, at, strerror
from ..linux import entries, files
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

_BUSY: Final = (EBUSY, EOPNOTSUPP, ENOENT, ENODEV)
_DELEGATE: Final = "/sys/kernel/cgroup/delegate"


_FILES: Final = (
    "memory.max", "memory.high", "memory.swap.max", "memory.low", "cpu.max", "cpu.weight",
    "cpu.idle", "pids.max",
)  # fmt: skip
# Controllers that can limit single threads; the others have no place in a threaded cgroup.
_THREADED: Final = ("cgroup", "cpu", "cpuset", "perf_event", "pids")


def _outside(number: int | None) -> str:
    """Say so when it is ENOENT because the kernel moves nothing over the border of a namespace."""
    if number != ENOENT:
        return ""
    from . import hierarchy

    own = hierarchy.of_process().get("", "")
    if not own.startswith("/.."):
        return ""
    return (
        f"this process is outside of its cgroup namespace (/proc/self/cgroup is {own}), and cgroup "
        "v2 is mounted with nsdelegate: the kernel moves nobody in there"
    )


class Manager:
    """The cgroup of one container; cgroup.Manager describes the methods.

    `directory` has the limits; `home` is where the processes are: it, or a leaf below it that
    was asked for (run.oci.delegate-cgroup).
    """

    __slots__ = ("directory", "home", "late", "place", "record", "tolerant")
    version = 2

    def __init__(self, record: CgroupRecord) -> None:
        """Take what `choose` has written down."""
        self.record = record
        # A unit of systemd keeps what is ours in a record of its own.
        self.place: CgroupRecord = record.get("fs", record)
        self.tolerant: bool = self.place["tolerant"]
        self.directory: str = self.place["mountpoint"] + self.place["path"]
        self.home: str = self.directory + self.place.get("leaf", "")
        self.late: list[Write] = []

    # Making

    def check(self, resources: Resources) -> None:
        """Refuse what has no meaning, before anything is made; warn of what is left out."""
        from . import convert, devices

        convert.v2(resources)
        devices.parse(resources.get("devices"))
        warn_of_ignored(resources)

    def begin(self, _resources: Resources, _middle: int) -> None:
        """Nobody else is asked."""

    def prepare(self, resources: Resources) -> None:
        """Make the directory and write all limits but memory's."""
        from . import convert, devices

        self.check(resources)
        writes = convert.v2(resources)
        rules = devices.parse(resources.get("devices"))
        made: int = self.place["made"]
        error = None
        try:
            if not making.make(self.directory, self.place["mountpoint"]):
                error = making.taken(self.directory, made)
        except OSError as refusal:
            if not self.tolerant or refusal.errno not in knobs.DENIED:
                raise
            if writes:
                raise knobs.not_delegated(writes[0][3]) from None
            return
        if error:
            self.place["foreign"] = True  # nothing there may be killed or removed
            raise error
        self._thread(writes)
        self.limit(writes, rules, made > 0)
        self.branch()
        self.delegate()

    def _thread(self, writes: list[Write]) -> None:
        """Become a threaded cgroup where the parent leaves no other choice (cgroup-v2.rst)."""
        kind = knobs.read_text(f"{self.directory}/cgroup.type")
        if kind in ("", "domain"):
            return
        for controller, _, _, source, _ in writes:
            if controller not in _THREADED:
                raise at(
                    source,
                    f"the cgroup {self.directory} is {kind}, where {controller} limits nothing",
                    "take a cgroupsPath whose parents have no threaded cgroups",
                )
        if kind == "domain invalid":
            files.write_file(f"{self.directory}/cgroup.type", "threaded")

    def limit(self, writes: list[Write], rules: list[Rule], fresh: bool) -> None:
        """Write the limits into the directory that is there; `late` ones wait for `finish`."""
        from . import devices

        making.frozen(self.directory, self.place["mountpoint"])
        self._enable(writes)
        self.late = [write for write in writes if write[0] == "memory"]
        self._write([write for write in writes if write[0] != "memory"])
        if not (fresh and devices.allows_all(rules)):
            shielded = bool(self.place.get("shielded")) or not rules
            attach_devices(self.directory, rules, fresh, shielded)

    def adopt(self, pid: int, resources: Resources, in_place: bool) -> None:
        """Take a process into a directory that somebody else has made (systemd.py).

        `in_place` says that the process is in it already.  With a cgroup of our own below it goes
        there first: the one above can pass no controller on while a process is in it.
        """
        from . import convert, devices

        making.make(self.home, self.place["mountpoint"])
        writes = convert.v2(resources)
        if not in_place or not self.place.get("at_top", True):
            Manager.join(self, pid)
        if (resources.get("cpu") or {}).get("idle") == 1:
            # By systemd the cgroup is idle already, and the kernel takes no weight then.
            writes = [write for write in writes if write[3] != "linux.resources.cpu.shares"]
        self.limit(writes, devices.parse(resources.get("devices")), fresh=True)
        self.branch()
        self.delegate()

    def branch(self) -> None:
        """Make the leaf for the processes and pass all controllers on to it."""
        directory = self.directory
        if self.home == directory:
            return
        making.make(self.home, directory)
        for word in self.home[len(directory) + 1 :].split("/"):
            reason = self._pass_on(directory)
            if reason:
                log.debug(f"delegate: {reason}")
            directory += f"/{word}"

    def _enable(self, writes: list[Write]) -> None:
        """Have all controllers passed on from the top; those that limits need must be there."""
        mountpoint: str = self.place["mountpoint"]
        have = knobs.read_text(f"{self.directory}/cgroup.controllers").split()
        wanted = knobs.read_text(f"{mountpoint}/cgroup.controllers").split()
        busy = ""
        if any(name not in have for name in wanted):
            directory = mountpoint
            for word in self.place["path"].strip("/").split("/"):
                busy = self._pass_on(directory) or busy
                directory += f"/{word}"
            have = knobs.read_text(f"{self.directory}/cgroup.controllers").split()
        for controller, _, _, source, _ in writes:
            if controller not in have and controller != "cgroup":
                if self.tolerant and controller not in wanted:
                    raise knobs.not_delegated(source)
                error = knobs.unavailable(controller, source)
                raise Error(error.text, busy or error.hint)

    def _pass_on(self, directory: str) -> str:
        """Enable in a directory what it has for those below; return why something is not."""
        have = knobs.read_text(f"{directory}/cgroup.controllers").split()
        file = f"{directory}/cgroup.subtree_control"
        enabled = knobs.read_text(file).split()
        lacking = [f"+{name}" for name in have if name not in enabled]
        if not lacking:
            return ""
        try:
            files.write_file(file, " ".join(lacking))
            return ""
        except OSError:
            pass  # one of them is refused: try each, so that the others are there
        reason = ""
        for word in lacking:
            try:
                files.write_file(file, word)
            except OSError as error:
                reason = f"write {word} to {file}: {strerror(error.errno or 0)}"
                if error.errno == EBUSY:
                    reason += ", processes in this cgroup have to move to one below it"
        return reason

    def delegate(self) -> None:
        """Give the directory to the container's user (config-linux.md, "Cgroup ownership")."""
        owner: int = self.place["owner"]
        if owner < 0:
            return
        names = knobs.read_text(_DELEGATE).split() or [
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ]
        for path in (self.home, *(f"{self.home}/{name}" for name in names)):
            try:
                entries.chown(path, owner, -1)
            except OSError as error:
                if error.errno != ENOENT and not (self.tolerant and error.errno in knobs.DENIED):
                    raise

    def _write(self, writes: list[Write], undo: list[tuple[str, str]] | None = None) -> None:
        knobs.write(writes, {write[0]: self.directory for write in writes}, undo)

    # Joining

    def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:
        """Say whether a process can be born there."""
        return joining.v2(self.place, subs, born)

    def join(self, pid: int, joining: Joining | None = None) -> None:
        """Put a process into the cgroup, unless it was born there."""
        for directory in [self.home] if joining is None else joining.by_host:
            try:
                files.write_file(f"{directory}/cgroup.procs", str(pid))
            except OSError as error:
                if self.tolerant and error.errno in (*knobs.DENIED, ENOENT):
                    continue
                if error.errno == ESRCH:
                    raise Error(f"join cgroup {directory}: process {pid} is gone") from None
                raise Error(
                    f"join cgroup {directory}: {strerror(error.errno or 0)}",
                    _outside(error.errno)
                    or f"its cgroup.type is {knobs.read_text(f'{directory}/cgroup.type')}",
                ) from None

    def finish(self, pid: int, joining: Joining | None = None) -> None:  # noqa: ARG002
        """Put the memory limit into force.

        The kernel would kill init to get below a limit that is exceeded already; so say it.
        """
        for _, file, value, source, _ in self.late:
            if file == "memory.max" and value.isdigit() and not self._fits(int(value)):
                raise knobs.too_low(f"{self.directory}/{file}", value, source)
        self._write(self.late)

    def _fits(self, limit: int) -> bool:
        """Tell whether what is used now is below a limit, if need be after some reclaim."""
        usage = knobs.read_int(f"{self.directory}/memory.current") or 0
        if usage > limit:
            try:
                files.write_file(f"{self.directory}/memory.reclaim", str(usage - limit))
            except OSError:
                pass  # before 5.19, or there is not as much to reclaim
            usage = knobs.read_int(f"{self.directory}/memory.current") or 0
        return usage <= limit

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
                raise Error(
                    f"join cgroup {target}: adding pid {pid}: {strerror(error.errno or 0)}"
                ) from error
            if error.errno not in (*_BUSY, *knobs.DENIED):
                raise
            reason = error
        from . import hierarchy

        path = hierarchy.of_process(init_pid).get("")
        if reason.errno in knobs.DENIED:
            if path is None or not f"{path}/".endswith(self.place["path"] + "/"):
                return  # where it could not be made, the container has none
            raise knobs.stays_outside(target, reason) from reason
        if path is None or self.place["mountpoint"] + path == target:
            if self.tolerant:
                return
            raise reason
        try:
            files.write_file(f"{self.place['mountpoint']}{path}/cgroup.procs", str(pid))
        except OSError as error:
            if not self.tolerant or error.errno not in knobs.DENIED:
                raise

    # Living

    def update(self, resources: Resources, _old: Resources, named: Resources | None = None) -> None:
        """Write new limits; when one is refused, write back what was there."""
        from . import convert

        self._present()
        wanted = resources if named is None else convert.named(resources, named, 2)
        writes = convert.v2(wanted)
        warn_of_ignored(named or {})
        memory = resources.get("memory") or {}
        limit = memory.get("limit") or 0
        if memory.get("checkBeforeUpdate") and limit > 0:
            usage = knobs.read_int(f"{self.directory}/memory.current") or 0
            if limit <= usage:
                raise Error(f"rejecting memory limit {limit} <= usage {usage}")
        self._enable(writes)
        undo: list[tuple[str, str]] = []
        try:
            self._write(writes, undo)
        except (Error, OSError):
            knobs.restore(undo)
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
            raise knobs.no_cgroup()

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

    # Looking

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

    def mount_view(self, kind: str = "cgroup") -> CgroupView:  # noqa: ARG002
        """Return what a mount of type cgroup or cgroup2 shows."""
        return {
            "version": 2,
            "own_path": self.place["path"] + self.place.get("leaf", ""),
            "host_mountpoint": self.place["mountpoint"],
        }


def attach_devices(directory: str, rules: list[Rule], fresh: bool, shielded: bool) -> None:
    """Have devices denied by a program on a cgroup2 directory.

    `shielded` says that a container who has none is not dangerous: a user namespace keeps it from
    devices, or no rule was asked for.
    """
    from ..linux import bpf
    from . import devices

    try:
        bpf.replace_device_program(directory, devices.program(rules), fresh)
    except OSError as error:
        if shielded and error.errno in (EINVAL, ENOSYS, *knobs.DENIED):
            log.debug(f"devices: attach a program to {directory}: {strerror(error.errno or 0)}")
            return
        hint = ""
        if error.errno in (EINVAL, ENOSYS):
            hint = "the kernel lacks CONFIG_CGROUP_BPF or device programs (4.15)"
        raise Error(
            f"linux.resources.devices: attach a device program to {directory}: "
            f"{strerror(error.errno or 0)}",
            hint,
        ) from None


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


def warn_of_ignored(resources: Resources) -> None:
    """Say which of what is asked for has no meaning here."""
    from . import convert

    for path in convert.ignored(resources, 2):
        log.warn(f"{path} is ignored: cgroup v2 has no such limit")
