"""cgroup v2: one directory, controllers enabled from the top, devices by an eBPF program.

Side: host.  Sources: Documentation/admin-guide/cgroup-v2.rst; cgroups(7).  The memory limits are
written last (`finish`), when the set-up work is done: what the interpreter needs meanwhile does
not have to fit in them.
"""

from __future__ import annotations

from errno import EBUSY, EINVAL, ENODEV, ENOENT, ENOSYS, EOPNOTSUPP, EPERM, ESRCH
from time import sleep

from ..base import log
from ..errors import Error, strerror
from ..linux import files
from . import knobs, tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .convert import Resources, Write
    from .devices import Rule

_BUSY: Final = (EBUSY, EOPNOTSUPP, ENOENT, ENODEV)
_DELEGATE: Final = "/sys/kernel/cgroup/delegate"


class Manager:
    """The cgroup of one container.  The methods are described in v1.Manager."""

    __slots__ = ("directory", "late", "record", "tolerant")

    def __init__(self, record: dict[str, Any]) -> None:
        """Take what `choose` has written down."""
        self.record = record
        self.tolerant: bool = record["tolerant"]
        self.directory: str = record["mountpoint"] + record["path"]
        self.late: list[Write] = []

    # Making

    def prepare(self, resources: Resources) -> None:
        """Make the directory and write all limits but memory's."""
        from . import convert, devices

        writes = convert.v2(resources)
        rules = devices.parse(resources.get("devices"))
        for path in convert.ignored(resources, 2):
            log.warn(f"{path} is ignored: cgroup v2 has no such limit")
        made: int = self.record["made"]
        error = None
        try:
            if not tree.make(self.directory, self.record["mountpoint"]):
                error = tree.taken(self.directory, made)
        except OSError as refusal:
            if not self.tolerant or refusal.errno not in knobs.DENIED:
                raise
            if writes:
                raise knobs.not_delegated(writes[0][3]) from None
            return
        if error:
            self.record["foreign"] = True  # nothing there may be killed or removed
            raise error
        self.limit(writes, rules, made > 0)
        self.delegate()

    def limit(self, writes: list[Write], rules: list[Rule], fresh: bool) -> None:
        """Write the limits into the directory that is there; `late` ones wait for `finish`."""
        from . import devices

        self._enable(writes)
        self.late = [write for write in writes if write[0] == "memory"]
        self._write([write for write in writes if write[0] != "memory"])
        if not (fresh and devices.allows_all(rules)):
            self._write_devices(rules, fresh)

    def _enable(self, writes: list[Write]) -> None:
        """Have all controllers passed on from the top; those that limits need must be there."""
        mountpoint: str = self.record["mountpoint"]
        have = knobs.read_text(f"{self.directory}/cgroup.controllers").split()
        wanted = knobs.read_text(f"{mountpoint}/cgroup.controllers").split()
        busy = ""
        if any(name not in have for name in wanted):
            directory = mountpoint
            for word in self.record["path"].strip("/").split("/"):
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
        owner: int = self.record["owner"]
        if owner < 0:
            return
        names = knobs.read_text(_DELEGATE).split() or [
            "cgroup.procs",
            "cgroup.subtree_control",
            "cgroup.threads",
        ]
        for path in (self.directory, *(f"{self.directory}/{name}" for name in names)):
            try:
                files.chown(path, owner, -1)
            except OSError as error:
                if error.errno != ENOENT and not (self.tolerant and error.errno in knobs.DENIED):
                    raise

    def _write(self, writes: list[Write], undo: list[tuple[str, str]] | None = None) -> None:
        knobs.write(writes, {write[0]: self.directory for write in writes}, undo)

    def _write_devices(self, rules: list[Rule], fresh: bool) -> None:
        from ..linux import bpf
        from . import devices

        try:
            bpf.replace_device_program(self.directory, devices.program(rules), fresh)
        except OSError as error:
            if error.errno == EPERM and self.tolerant:
                return
            hint = ""
            if error.errno in (EINVAL, ENOSYS):
                hint = "the kernel lacks CONFIG_CGROUP_BPF or device programs (4.15)"
            raise Error(
                f"linux.resources.devices: attach a device program to {self.directory}: "
                f"{strerror(error.errno or 0)}",
                hint,
            ) from None

    # Joining

    def self_join(self, subs: list[str] | None = None) -> dict[str, Any]:
        """Say into which directory init can be cloned (clone3, CLONE_INTO_CGROUP, 5.7)."""
        below = tree.sub_cgroups(subs or [], set()).get("*", "")
        into = self.directory + below
        return {"tasks": [], "late": [], "into": into if files.exists(into) else ""}

    def join(self, pid: int) -> None:
        """Put a process into the cgroup."""
        try:
            files.write_file(f"{self.directory}/cgroup.procs", str(pid))
        except OSError as error:
            if self.tolerant and error.errno in (*knobs.DENIED, ENOENT):
                return
            if error.errno == ESRCH:
                text = f"join cgroup {self.directory}: process {pid} is gone"
                raise Error(text) from None
            raise

    def finish(self, pid: int) -> None:  # noqa: ARG002
        """Write the memory limits, when the set-up work is done.

        The kernel would kill init to get below a limit that is exceeded already; so say it.
        """
        for _, file, value, source, _ in self.late:
            if file == "memory.max" and value != "max" and not self._fits(int(value)):
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
        below = tree.sub_cgroups(subs, set()).get("*", "")
        target = self.directory + below
        try:
            files.write_file(f"{target}/cgroup.procs", str(pid))
            return
        except OSError as error:
            if below:
                raise Error(f"join cgroup {target}: {strerror(error.errno or 0)}") from None
            if self.tolerant and error.errno in knobs.DENIED:
                return
            if error.errno not in _BUSY:
                raise
            reason = error
        from . import hierarchy

        path = hierarchy.of_process(init_pid).get("")
        if path is None or self.record["mountpoint"] + path == target:
            if self.tolerant:
                return
            raise reason
        try:
            files.write_file(f"{self.record['mountpoint']}{path}/cgroup.procs", str(pid))
        except OSError as error:
            if not self.tolerant or error.errno not in knobs.DENIED:
                raise

    # Living

    def update(self, resources: Resources, old: Resources) -> None:
        """Write new limits; when one is refused, write back what was there."""
        from . import convert, devices

        self._present()
        writes = convert.v2(resources)
        rules = devices.parse(resources.get("devices"))
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
            if devices.changed(resources, old):
                self._write_devices(rules, fresh=False)
        except (Error, OSError):
            knobs.restore(undo)
            raise

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

    def frozen(self) -> bool:
        """Tell whether the container is paused."""
        return knobs.read_text(f"{self.directory}/cgroup.freeze") == "1"

    def pids(self) -> list[int]:
        """Return the host pids of all processes of the container."""
        self._present()
        return tree.processes(self.directory)

    def kill(self, signal: int) -> None:
        """Send a signal to all processes; SIGKILL leaves none behind, however fast they fork."""
        if "foreign" in self.record:
            return
        if signal != tree.SIGKILL:
            tree.signal_all(self.directory, signal)
            return
        if tree.kill_all(self.directory):
            if self.frozen():
                self.thaw()
            return
        frozen = False
        if tree.processes(self.directory):
            try:
                self.freeze()
                frozen = True
            except (Error, OSError):
                pass  # without it the loop below may need more than one round
        for _ in range(1 if frozen else 50):
            if not tree.signal_all(self.directory, signal):
                break
            if not frozen:
                sleep(0.002)
        if self.frozen():
            self.thaw()

    def destroy(self, patience: float = tree.PATIENCE) -> None:
        """Remove what was made, and nothing else; what is gone already is fine."""
        if "foreign" in self.record:
            return
        tree.remove([(self.directory, self.record["made"])], patience)

    # Looking

    def stats(self) -> dict[str, Any]:
        """Return what `events` shows."""
        from . import stats

        self._present()
        return stats.v2(self.directory)

    def oom_kills(self) -> int:
        """Return how many processes of the container the kernel has killed for want of memory."""
        return knobs.read_map(f"{self.directory}/memory.events").get("oom_kill", 0)

    def gone(self) -> bool:
        """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""
        return not files.exists(self.directory)

    def oom_watch(self) -> tuple[int, int]:
        """Return a descriptor and the poll(2) event by which it tells of an OOM."""
        from . import stats

        self._present()
        return stats.v2_oom_watch(self.directory)

    def mount_view(self) -> dict[str, Any]:
        """Return what a mount of type cgroup shows."""
        return {
            "version": 2,
            "own_path": self.record["path"],
            "host_mountpoint": self.record["mountpoint"],
        }
