"""Cgroups: which manager a container gets, and where its cgroups are.

Side: host.  `choose` decides and makes nothing: its record, plain JSON, is in the state before
the first directory is made, so that `destroy` can remove what a killed runtime left behind.
Later commands come without --systemd-cgroup and use the record (`load`).

Where a cgroupsPath leads (config-linux.md, "Cgroups Path"):

    /a/b            below the mount point of each hierarchy
    a/b             the same: "the runtime MUST consistently attach to the same place given the
                    same value", which a path below the runtime's own cgroup would not
    absent          /anocir/ID; without rights at the top, ID beside the runtime's own cgroup (v2)
                    or below it (v1)
    slice:prefix:x  the systemd manager's unit prefix-x.scope in that slice

Managers are imported when they are used: `v1` (also hybrid), `v2`, `systemd`, and `Disabled`
here.
"""

from __future__ import annotations

from ..errors import Error, at, reason
from ..linux import files, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Protocol

    from .hierarchy import Hierarchy
    from .joining import Joining
    from ..model.schema import CgroupRecord, Config, Resources
    from ..wire.shapes import CgroupView

    class Settings(Protocol):
        """What is read of the command line."""

        systemd_cgroup: bool
        cgroup_manager: str
        rootless: str

    class Manager(Protocol):
        """What all managers can do: those of `v1`, `v2` and `systemd`, and `Disabled`."""

        record: CgroupRecord

        def check(self, resources: Resources) -> None:
            """Refuse what cannot be set, before anything is made."""

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

        def exec_join(self, pid: int, init_pid: int, subs: list[str]) -> None:
            """Put a process of exec into the cgroups, or where init is by now."""

        def update(
            self, resources: Resources, old: Resources, named: Resources | None = None
        ) -> None:
            """Write new limits: of `resources` what `named` names, all of them without it.

            When one is refused, what was there is written back.
            """

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

        def stats(self) -> dict[str, Any]:
            """Return what `events` shows."""

        def oom_kills(self) -> int:
            """Return how many processes the kernel has killed for want of memory."""

        def gone(self) -> bool:
            """Tell whether somebody has removed the cgroup, as systemd does with an empty one."""

        def oom_watch(self) -> tuple[int, int]:
            """Return a descriptor and the poll(2) event by which it tells of an OOM."""

        def mount_view(self, kind: str = "cgroup") -> CgroupView:
            """Return what a mount of type cgroup, or cgroup2, shows."""


# The longest name of a cgroup, and what we take for a path: mount point and file come to it.
_NAME_MAX: Final = 255
_PATH_MAX: Final = 3800
# How many cgroups are looked at, and how deep, for one that is named after a container.
_MOST: Final = 10000
_DEEPEST: Final = 6


def choose(settings: Settings, config: Config, container_id: str) -> CgroupRecord:
    """Decide on a manager and on the paths; make nothing.

    Raises Error for a cgroupsPath that is none.
    """
    linux = config.get("linux") or {}
    path = linux.get("cgroupsPath") or ""
    wanted = settings.cgroup_manager or ("systemd" if settings.systemd_cgroup else "cgroupfs")
    if wanted == "disabled":
        return {"manager": "disabled", "reason": "--cgroup-manager=disabled"}
    if wanted not in ("cgroupfs", "systemd"):
        raise Error(f"--cgroup-manager: must be cgroupfs, systemd or disabled, got {wanted!a}")
    from . import hierarchy

    tolerant = _tolerant(settings)
    try:
        v1, v2 = hierarchy.own()
    except PermissionError as error:
        if not tolerant:
            raise Error(f"cgroups: look into {reason(error)}") from None
        return {"manager": "disabled", "reason": f"cgroups: look into {reason(error)}"}
    if not v1 and v2 is None:
        if tolerant:
            return {"manager": "disabled", "reason": "no cgroup file system is mounted"}
        raise Error(
            "no cgroup file system is mounted",
            "mount cgroup2 on /sys/fs/cgroup, or use --cgroup-manager=disabled",
        )
    if wanted == "systemd":
        from . import systemd

        return systemd.choose(config, container_id, path, tolerant, v1, v2)
    words = components(path, "linux.cgroupsPath")
    if path and not words:
        raise at("linux.cgroupsPath", "must not be the top of the hierarchy")
    if v2 is not None and hierarchy.only_v2(v1):
        mountpoint, _, own = v2
        below = _place(words, container_id, tolerant, own[: own.rfind("/")] if own else "")
        return v2_record(mountpoint, below, config, tolerant)
    if not words and _wants_realtime(config) and not tolerant:
        words = [container_id]  # as runc places it: our own parent has no real-time to give
    return v1_record([*v1, *([v2] if v2 else [])], words, container_id, tolerant, config)


def _wants_realtime(config: Config) -> bool:
    resources = (config.get("linux") or {}).get("resources") or {}
    return bool((resources.get("cpu") or {}).get("realtimeRuntime"))


def subgroups(config: Config) -> tuple[str, str]:
    """Return the paths of run.oci.systemd.subgroup and run.oci.delegate-cgroup, or "".

    The first is the cgroup below systemd's unit that has the limits, the second one below that,
    without limits, in which the container may do what it likes: crun(1), annotations.
    """
    annotations = config.get("annotations") or {}
    paths = []
    for name in ("run.oci.systemd.subgroup", "run.oci.delegate-cgroup"):
        value = annotations.get(name) or ""
        words = components(value, f"annotations[{name!a}]")
        if value and not words:
            raise at(f"annotations[{name!a}]", "must be the name of a cgroup")
        paths.append("".join(f"/{word}" for word in words))
    return paths[0], paths[1]


def load(record: CgroupRecord) -> Manager:
    """Return the manager of a container from what `choose` gave."""
    name = record.get("manager")
    if name == "v1":
        from . import v1

        return v1.Manager(record)
    if name == "v2":
        from . import v2

        return v2.Manager(record)
    if name == "systemd":
        from . import systemd

        return systemd.load(record)
    return Disabled(record)


def frozen(record: CgroupRecord) -> bool:
    """Tell whether a container is paused, by its record alone: every `state` asks."""
    inner = record.get("fs", record)
    name = ""
    if inner.get("manager") == "v2":
        name = f"{inner['mountpoint']}{inner['path']}/cgroup.freeze"
    for mountpoint, controllers, path, _ in inner.get("hierarchies", ()):
        if "freezer" in controllers.split(","):
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


def destroy(record: CgroupRecord) -> None:
    """Remove what was made for a container, and nothing else; what is gone already is fine."""
    if record.get("manager") not in ("v1", "v2") or "foreign" in record:
        load(record).destroy()
        return
    from . import tree

    if record["manager"] == "v2":
        tree.remove([(record["mountpoint"] + record["path"], record["made"])])
    else:
        tree.remove([(mount + path, made) for mount, _, path, made in record["hierarchies"]])


def components(path: str, source: str) -> list[str]:
    """Return the directories of a cgroup path, refusing what would lead out (crun CVEs of 2026)."""
    words = [word for word in path.split("/") if word not in ("", ".")]
    if ".." in words:
        raise at(source, "must not contain .." + _got(path, source))
    if "\0" in path or "\n" in path:
        raise at(source, "must not contain a newline or NUL" + _got(path, source))
    if any(len(files.encode(word)) > _NAME_MAX for word in words):
        raise at(source, f"must not have a part of more than {_NAME_MAX} bytes")
    if len(files.encode(path)) > _PATH_MAX:
        raise at(source, f"must not have more than {_PATH_MAX} bytes")
    return words


def _got(path: str, source: str) -> str:
    """Quote a value in an error, unless it is an annotation's, which is nobody's business."""
    return "" if source.startswith("annotations") else f", got {path!a}"


def _place(words: list[str], container_id: str, tolerant: bool, own: str) -> str:
    """Return the path below the mount point, beginning with a slash."""
    if words:
        return "/" + "/".join(words)
    return f"{own}/{container_id}" if tolerant else f"/anocir/{container_id}"


def _missing(mountpoint: str, path: str) -> int:
    """Return how many directories are to be made; refuse a cgroup that is in use."""
    from . import tree

    count = tree.missing(mountpoint, path)
    error = None if count else tree.in_use(mountpoint + path)
    if error:
        raise error
    return count


def v1_record(
    hierarchies: list[Hierarchy],
    words: list[str],
    container_id: str,
    tolerant: bool,
    config: Config,
) -> CgroupRecord:
    """Return the record of a container with a directory in each of these hierarchies."""
    if subgroups(config)[1]:
        source = "annotations['run.oci.delegate-cgroup']"
        raise at(source, "needs cgroup v2: on v1 nothing can be delegated safely")
    rows: Any = []
    for mountpoint, controllers, own in hierarchies:
        path = _place(words, container_id, tolerant, own)
        rows.append([mountpoint, controllers, path, _missing(mountpoint, path)])
    return {
        "manager": "v1",
        "tolerant": tolerant,
        "hierarchies": rows,
        "shielded": _shielded(config),
    }


def v2_record(mountpoint: str, path: str, config: Config, tolerant: bool) -> CgroupRecord:
    """Return the record of a container on cgroup v2."""
    _, leaf = subgroups(config)
    return {
        "manager": "v2",
        "tolerant": tolerant,
        "mountpoint": mountpoint,
        "path": path,
        "made": _missing(mountpoint, path),
        "owner": _owner(config, leaf),
        "leaf": leaf,
        "shielded": _shielded(config),
    }


def _shielded(config: Config) -> bool:
    """Tell whether the container can use no device nodes of its own, whatever its cgroups say.

    A user namespace keeps it from that, or that its creator could make none.
    """
    import posix

    spaces = (config.get("linux") or {}).get("namespaces") or []
    return (
        posix.geteuid() != 0
        or any(space.get("type") == "user" for space in spaces)
        or processes.in_user_namespace()
    )


def remembered(config: Config, container_id: str) -> CgroupRecord:
    """Return a record of the cgroups that are there for a container whose own record is lost.

    They are looked for where `choose` would have put them: by the cgroupsPath of its configuration,
    if that is whole, else by its id.  One directory of each is removed.
    """
    from . import hierarchy

    path = (config.get("linux") or {}).get("cgroupsPath") or ""
    v1, v2 = hierarchy.own()
    if path.count(":") == 2 and not path.startswith("/"):
        from . import unit

        where, name = unit.parse(path, container_id, user=False)
        words = [word for word in f"{unit.expand(where)}/{name}".split("/") if word]
    else:
        words = components(path, "linux.cgroupsPath")
    rows: Any = []
    for mountpoint, controllers, own in [*v1, *([v2] if v2 else [])]:
        found = {_place(words, container_id, tolerant, own) for tolerant in (False, True)}
        if not config:
            found.update(_named(mountpoint, container_id))
        rows += [
            [mountpoint, controllers, below, 1]
            for below in sorted(found)
            if files.exists(mountpoint + below)
        ]
    if v2 is not None and hierarchy.only_v2(v1):
        if not rows:
            return {"manager": "disabled", "reason": "its cgroup is not known"}
        return {
            "manager": "v2", "tolerant": True, "mountpoint": rows[0][0], "path": rows[0][2],
            "made": 1, "owner": -1, "leaf": "", "shielded": False,
        }  # fmt: skip
    return {"manager": "v1", "tolerant": True, "hierarchies": rows, "shielded": False}


def _named(mountpoint: str, container_id: str) -> list[str]:
    """Return the cgroups that are named after a container, where its configuration is lost too.

    Not those at the top, where slices and engines have theirs, and not below what was found.
    """
    found = []
    todo = [""]
    for _ in range(_MOST):
        if not todo:
            break
        above = todo.pop()
        try:
            fd = files.open(mountpoint + above, files.O_RDONLY | files.O_DIRECTORY)
        except OSError:
            continue  # gone meanwhile
        names = files.subdirectories(fd)
        files.close(fd)
        for name in names:
            if above and (name == container_id or name.endswith(f"-{container_id}.scope")):
                found.append(f"{above}/{name}")
            elif above.count("/") < _DEEPEST:
                todo.insert(0, f"{above}/{name}")
    return found


def _tolerant(settings: Settings) -> bool:
    """Tell whether it is no error that no cgroup can be made."""
    if settings.rootless in ("true", "false"):
        return settings.rootless == "true"
    import posix

    return posix.geteuid() != 0 or processes.in_user_namespace()


def _owner(config: Config, leaf: str = "") -> int:
    """Return the host uid that gets the cgroup (config-linux.md, "Cgroup ownership"), or -1.

    Only with a new cgroup namespace and a writable mount of the cgroups: the container's processes
    can then divide what they have got, and nothing above it.  A `leaf` is given in any case.
    """
    linux = config.get("linux") or {}
    spaces = linux.get("namespaces") or []
    if not leaf and not any(
        space.get("type") == "cgroup" and not space.get("path") for space in spaces
    ):
        return -1
    if not leaf and not any(
        mount.get("destination") == "/sys/fs/cgroup"
        and "cgroup" in (mount.get("source"), mount.get("type"))
        and "ro" not in (mount.get("options") or [])
        for mount in config.get("mounts") or []
    ):
        return -1
    uid: int = ((config.get("process") or {}).get("user") or {}).get("uid") or 0
    if not any(space.get("type") == "user" for space in spaces):
        return uid or -1
    from ..model import plan

    mapped = plan.outside(plan.id_mappings(linux, "uid"), uid)
    return -1 if mapped is None else mapped


class Disabled:
    """No cgroups at all: the container stays in its creator's.  See Manager for the methods."""

    __slots__ = ("record",)

    def __init__(self, record: CgroupRecord) -> None:
        """Take what `choose` has written down."""
        self.record = record

    def _refuse(self) -> Error:
        return Error(f"the container has no cgroup of its own ({self.record.get('reason')})")

    def check(self, resources: Resources) -> None:
        """Refuse what `prepare` refuses, which makes nothing here."""
        self.prepare(resources)

    def prepare(self, resources: Resources) -> None:
        """Limits are left out, as the caller asked; rootless callers did not ask."""
        from . import convert

        reason = self.record.get("reason") or ""
        if reason.startswith("--"):
            return
        asked = convert.v1(resources) + convert.v2(resources)
        if asked:
            raise Error(
                f"{asked[0][3]}: cannot set limits: container could not join or create cgroup",
                reason,
            )

    def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:  # noqa: ARG002
        """Nothing to join, and so nothing below it."""
        from .joining import Joining

        if subs:
            raise self._refuse()
        return Joining()

    def join(self, _pid: int, _joining: Joining | None = None) -> None:
        """Nothing to join."""

    def finish(self, _pid: int, _joining: Joining | None = None) -> None:
        """Nothing is limited."""

    def exec_join(self, _pid: int, _init_pid: int, subs: list[str]) -> None:
        """Nothing to join."""
        if subs:
            raise self._refuse()

    def update(
        self, _resources: Resources, _old: Resources, _named: Resources | None = None
    ) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def freeze(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def thaw(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def thaw_below(self) -> None:
        """Nothing is frozen."""

    def frozen(self) -> bool:
        """Tell whether the container is paused: it cannot be."""
        return False

    def pids(self) -> list[int]:
        """Refuse: only init is known."""
        raise self._refuse()

    def kill(self, _signal: int, _mine: Callable[[int], bool] | None = None) -> None:
        """Do nothing: only init is known, and the caller has signalled it."""

    def destroy(self, _patience: float = 0.0) -> None:
        """Nothing was made."""

    def stats(self) -> dict[str, Any]:
        """Refuse: nothing is counted."""
        raise self._refuse()

    def oom_kills(self) -> int:
        """Nothing is counted."""
        return 0

    def gone(self) -> bool:
        """Nothing was made that somebody could have removed."""
        return False

    def oom_watch(self) -> tuple[int, int]:
        """Refuse: nothing is counted."""
        raise self._refuse()

    def mount_view(self, kind: str = "cgroup") -> CgroupView:
        """Return what a mount of type cgroup shows: the creator's own cgroups."""
        from . import hierarchy

        v1, v2 = hierarchy.own()
        if v2 is not None and (kind == "cgroup2" or not v1):
            mountpoint, _, own = v2
            return {"version": 2, "own_path": own or "/", "host_mountpoint": mountpoint}
        from . import v1 as manager

        rows = [(mount, controllers, own or "/", 0) for mount, controllers, own in v1]
        return manager.Manager({"tolerant": True, "hierarchies": rows}).mount_view()
