"""cgroup v2: one directory, controllers enabled from the top, devices by an eBPF program.

Side: host.  Sources: Documentation/admin-guide/cgroup-v2.rst; cgroups(7).  The memory limits are
written last (`finish`), when the set-up work is done: what the interpreter needs meanwhile does
not have to fit in them.
"""

from __future__ import annotations

from ..linux.errnos import EBUSY, EINVAL, ENOENT, ENOSYS, ESRCH

from ..base import log
from ..errors import Error, at, strerror
from ..linux import entries, files
from . import joining, knobs, making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .convert import Write
    from .devices import Rule
    from .joining import Joining
    from ..model.schema import CgroupRecord, Resources
    from ..wire.shapes import CgroupView

_DELEGATE: Final = "/sys/kernel/cgroup/delegate"


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


class Maker:
    """The cgroup of one container while it is made; cgroup.Maker describes the methods.

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
        from . import devices

        _writes(resources)
        devices.parse(resources.get("devices"))
        warn_of_ignored(resources)

    def begin(self, _resources: Resources, _middle: int) -> None:
        """Nobody else is asked."""

    def prepare(self, resources: Resources) -> None:
        """Make the directory and write all limits but memory's."""
        from . import devices

        self.check(resources)
        writes = _writes(resources)
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
                from . import refusals

                raise refusals.not_delegated(writes[0][3]) from None
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
        from . import devices

        making.make(self.home, self.place["mountpoint"])
        writes = _writes(resources)
        if not in_place or not self.place.get("at_top", True):
            Maker.join(self, pid)
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
                    from . import refusals

                    raise refusals.not_delegated(source)
                from . import refusals

                error = refusals.unavailable(controller, source)
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
                from . import refusals

                raise refusals.too_low(f"{self.directory}/{file}", value, source)
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

    # Looking

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


def _writes(resources: Resources) -> list[Write]:
    """Return the writes to the files of the cgroup."""
    if not knobs.limited(resources):
        return []
    from . import convert

    return convert.v2(resources)


def warn_of_ignored(resources: Resources) -> None:
    """Say which of what is asked for has no meaning here."""
    if not knobs.limited(resources):
        return
    from . import convert

    for path in convert.ignored(resources, 2):
        log.warn(f"{path} is ignored: cgroup v2 has no such limit")
