"""Cgroups of a container by its record: is it paused, which manager.

Side: host.  `choice.choose` decides and makes nothing: its record, plain JSON, is in the state
before the first directory is made, so that `removal` can remove what a killed runtime left behind.
Later commands come without --systemd-cgroup and use the record: what they ask for is here.

Managers are imported when they are used: `v1` (also hybrid), `v2` and `systemd`, each with what
makes a container's cgroups and `_living` with the rest, and `disabled`.
"""

from __future__ import annotations

from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..model.schema import CgroupRecord, Resources, Stats
    from ..wire.shapes import CgroupView
    from .changes import Change
    from .devices import Rule
    from .joining import Joining

    class Maker(Protocol):
        """What create asks of who makes the cgroups: of those of `choice.maker`."""

        record: CgroupRecord
        version: int

        def check(self, resources: Resources) -> None:
            """Refuse what cannot be set, before anything is made."""

        def begin(self, resources: Resources, middle: int) -> None:
            """Ask for what somebody else has to make, with process `middle` in it unless 0.

            Nothing where nobody else is asked: only systemd's managers do more.
            """

        def prepare(self, resources: Resources) -> None:
            """Make the cgroups, empty, with their limits; refuse what cannot be set."""

        def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:
            """Say how a process gets in: init, or with `subs` ("[controllers:]path") one of exec.

            Without `born` it cannot be born in a cgroup: where it becomes root of a user
            namespace, or has joined a cgroup namespace.
            """

        def join(self, pid: int, joining: Joining | None = None) -> None:
            """Do what `joining` leaves to the host, as soon as the pid is known."""

        def finish(self, pid: int, joining: Joining | None = None) -> None:
            """Put the memory limit into force, when the set-up work is done."""

        def mount_view(self, kind: str = "cgroup") -> CgroupView:
            """Return what a mount of type cgroup, or cgroup2, shows."""

    class Manager(Maker, Protocol):
        """What all managers can do."""

        def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
            """Put a process of exec into the cgroups, or where init is by now."""

        def update(
            self, resources: Resources, old: Resources, named: Resources | None = None
        ) -> None:
            """Write new limits: of `resources` what `named` names, all of them without it.

            When one is refused, what was there is written back.
            """

        def change_devices(
            self, rules: list[Rule], before: list[Rule], after: list[Rule], new: list[Change]
        ) -> Callable[[], None]:
            """Have device rules changed, and return what undoes it.

            After `rules`, those of config.json, and the runtime's own came the changes `before`,
            now come those of `after`; `new`, with who asked for each, leads there.
            """
            raise NotImplementedError

        def devices_now(
            self, rules: list[Rule], changed: list[Rule]
        ) -> list[tuple[str, str | None, str | None]]:
            """Return where the kernel's device rules differ: what, by `rules`, and at present.

            `changed` are those that `change_devices` has put in force.
            """
            raise NotImplementedError

        def expected(self, resources: Resources) -> list[tuple[str, str, str, str]]:
            """Return what the limits are: JSON path, file, value, and the rule of `convert`."""
            raise NotImplementedError

        def files(self) -> list[str]:
            """Return the files of limits that have a default."""
            raise NotImplementedError

        def freeze(self) -> None:
            """Stop all processes; thaw again when they do not stop within two seconds."""

        def thaw(self) -> None:
            """Let all processes run again."""

        def thaw_below(self) -> None:
            """Let run again what the container has frozen below its cgroup, so that it can die."""

        def frozen(self) -> bool:
            """Tell whether the container is paused."""

        def pids(self) -> list[int]:
            """Return the host pids of all processes of the container."""

        def kill(self, signal: int, mine: Callable[[int], bool] | None = None) -> None:
            """Send a signal to all processes, or to those of them that are `mine`."""

        def destroy(self, patience: float = 10.0) -> None:
            """Remove what was made, and nothing else; what is gone already is fine."""

        def stats(self) -> Stats:
            """Return what `events` shows."""

        def oom_kills(self) -> int:
            """Return how many processes the kernel has killed for want of memory."""

        def gone(self) -> bool:
            """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""

        def oom_watch(self) -> tuple[int, int]:
            """Return a descriptor and the poll(2) event by which it tells of an OOM."""


def load(record: CgroupRecord) -> Manager:
    """Return the manager of a container from what `choose` gave."""
    name = record.get("manager")
    if name == "v1":
        from . import v1_living

        return v1_living.Manager(record)
    if name == "v2":
        from . import v2_living

        return v2_living.Manager(record)
    if name == "systemd":
        from . import systemd_living

        return systemd_living.load(record)
    from . import disabled

    return disabled.Manager(record)


def frozen(record: CgroupRecord) -> bool:
    """Tell whether a container is paused, by its record alone: every `state` asks."""
    inner = record.get("fs", record)
    name = ""
    if inner.get("manager") == "v2":
        name = f"{inner['mountpoint']}{inner['path']}/cgroup.freeze"
    for mountpoint, controllers, path, _ in inner.get("hierarchies", ()):
        if "freezer" in controllers and "freezer" in controllers.split(","):
            name = f"{mountpoint}{path}/freezer.state"
    if not name:
        return False
    try:
        fd = files.open(name, files.O_RDONLY)
        try:
            return files.read(fd, 64) in (b"1\n", b"FROZEN\n", b"FREEZING\n")
        finally:
            files.close(fd)
    except OSError:
        return False  # gone, with the last process


def members(record: CgroupRecord) -> list[int]:
    """Return the processes in a container's cgroup itself, by its record alone; [] without one."""
    inner = record.get("fs", record)
    name = ""
    if inner.get("manager") == "v2":
        name = f"{inner['mountpoint']}{inner['path']}"
    for mountpoint, _, path, _ in inner.get("hierarchies", ())[:1]:
        name = mountpoint + path
    if not name:
        return []
    try:
        return [int(word) for word in files.read_file(f"{name}/cgroup.procs").split()]
    except OSError:
        return []  # gone, with the last process


def is_made(record: CgroupRecord) -> bool:
    """Tell whether a container's cgroup is one that was not there before it."""
    place = record.get("fs", record)
    if place.get("manager") == "v2":
        return bool(place.get("fresh", place["made"] > 0))
    return any(made > 0 for _, _, _, made in place.get("hierarchies", ()))


def has_parts(record: CgroupRecord) -> bool:
    """Tell whether there are cgroups below that the container may have frozen on its own (v1)."""
    for mountpoint, controllers, path, _ in record.get("fs", record).get("hierarchies", ()):
        if "freezer" in controllers.split(","):
            try:
                # one link for itself, its name and each child
                return files.stat(mountpoint + path).st_nlink != 2
            except OSError:
                return False
    return False
