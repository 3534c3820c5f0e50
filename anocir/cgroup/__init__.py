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

from ..errors import at, Error
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol, Union

    from .convert import Resources
    from .systemd import Manager as SystemdManager
    from .v1 import Manager as V1Manager
    from .v2 import Manager as V2Manager

    Record = dict[str, Any]
    Config = dict[str, Any]

    class Settings(Protocol):
        """What is read of the command line."""

        systemd_cgroup: bool
        cgroup_manager: str
        rootless: str

    # All have the methods of v1.Manager, which describes them.
    Manager = Union[SystemdManager, V1Manager, V2Manager, "Disabled"]


def choose(settings: Settings, config: Config, container_id: str) -> Record:
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
    v1, v2 = hierarchy.own()
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
    # A hierarchy that only names things, as systemd's own beside cgroup v2, holds no limits.
    if v2 is not None and not any("=" not in controllers for _, controllers, _ in v1):
        below = _place(words, container_id, tolerant, v2[2][: v2[2].rfind("/")] if v2[2] else "")
        return v2_record(v2[0], below, config, tolerant)
    return v1_record([*v1, *([v2] if v2 else [])], words, container_id, tolerant)


def load(record: Record) -> Manager:
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

        return systemd.Manager(record)
    return Disabled(record)


def frozen(record: Record) -> bool:
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
        return files.read_file(name) in (b"1\n", b"FROZEN\n", b"FREEZING\n")
    except OSError:
        return False  # gone, with the last process


def destroy(record: Record) -> None:
    """Remove what was made for a container, and nothing else; what is gone already is fine."""
    if record.get("manager") not in ("v1", "v2") or "foreign" in record:
        load(record).destroy()
        return
    from . import tree

    if record["manager"] == "v2":
        tree.remove([(record["mountpoint"] + record["path"], record["made"])])
    else:
        tree.remove([(row[0] + row[2], row[3]) for row in record["hierarchies"]])


def components(path: str, source: str) -> list[str]:
    """Return the directories of a cgroup path, refusing what would lead out (crun CVEs of 2026)."""
    words = [word for word in path.split("/") if word not in ("", ".")]
    if ".." in words:
        raise at(source, f"must not contain .., got {path!a}")
    if "\0" in path or "\n" in path:
        raise at(source, f"must not contain a newline or NUL, got {path!a}")
    return words


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
    hierarchies: list[tuple[str, str, str]], words: list[str], container_id: str, tolerant: bool
) -> Record:
    """Return the record of a container with a directory in each of these hierarchies."""
    rows = []
    for mountpoint, controllers, own in hierarchies:
        path = _place(words, container_id, tolerant, own)
        rows.append([mountpoint, controllers, path, _missing(mountpoint, path)])
    return {"manager": "v1", "tolerant": tolerant, "hierarchies": rows}


def v2_record(mountpoint: str, path: str, config: Config, tolerant: bool) -> Record:
    """Return the record of a container on cgroup v2."""
    return {
        "manager": "v2",
        "tolerant": tolerant,
        "mountpoint": mountpoint,
        "path": path,
        "made": _missing(mountpoint, path),
        "owner": _owner(config),
    }


def _tolerant(settings: Settings) -> bool:
    """Tell whether it is no error that no cgroup can be made."""
    if settings.rootless in ("true", "false"):
        return settings.rootless == "true"
    import posix

    from . import hierarchy

    return posix.geteuid() != 0 or hierarchy.in_user_namespace()


def _owner(config: Config) -> int:
    """Return the host uid that gets the cgroup (config-linux.md, "Cgroup ownership"), or -1.

    Only with a new cgroup namespace and a writable mount of the cgroups: the container's processes
    can then divide what they have got, and nothing above it.
    """
    linux = config.get("linux") or {}
    spaces = linux.get("namespaces") or []
    if not any(space.get("type") == "cgroup" and not space.get("path") for space in spaces):
        return -1
    if not any(
        mount.get("destination") == "/sys/fs/cgroup"
        and "cgroup" in (mount.get("source"), mount.get("type"))
        and "ro" not in (mount.get("options") or [])
        for mount in config.get("mounts") or []
    ):
        return -1
    uid: int = ((config.get("process") or {}).get("user") or {}).get("uid") or 0
    if not any(space.get("type") == "user" for space in spaces):
        return uid or -1
    for line in linux.get("uidMappings") or []:
        if line["containerID"] <= uid < line["containerID"] + line["size"]:
            return int(line["hostID"] + uid - line["containerID"])
    return -1


class Disabled:
    """No cgroups at all: the container stays in its creator's."""

    __slots__ = ("record",)

    def __init__(self, record: Record) -> None:
        """Take what `choose` has written down."""
        self.record = record

    def _refuse(self) -> Error:
        return Error(f"the container has no cgroup of its own ({self.record.get('reason')})")

    def prepare(self, resources: Resources) -> None:
        """Limits are left out, as the caller asked; rootless callers did not ask."""
        reason = self.record.get("reason") or ""
        if not reason.startswith("--") and any(
            resources.get(key) for key in ("memory", "cpu", "pids", "blockIO", "hugepageLimits")
        ):
            raise Error(
                "linux.resources: cannot set limits: container could not join or create cgroup",
                reason,
            )

    def self_join(self, _subs: list[str] | None = None) -> dict[str, Any]:
        """Nothing to join."""
        return {"tasks": [], "late": [], "into": ""}

    def join(self, _pid: int) -> None:
        """Nothing to join."""

    def finish(self, _pid: int) -> None:
        """Nothing to join."""

    def exec_join(self, _pid: int, _init_pid: int, subs: list[str]) -> None:
        """Nothing to join."""
        if subs:
            raise self._refuse()

    def update(self, _resources: Resources, _old: Resources) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def freeze(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def thaw(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def frozen(self) -> bool:
        """Tell whether the container is paused: it cannot be."""
        return False

    def pids(self) -> list[int]:
        """Refuse: only init is known."""
        raise self._refuse()

    def kill(self, _signal: int) -> None:
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

    def mount_view(self) -> dict[str, Any]:
        """Return what a mount of type cgroup shows: the creator's own cgroups."""
        from . import hierarchy

        v1, v2 = hierarchy.own()
        if v2 is not None and not v1:
            return {"version": 2, "own_path": v2[2] or "/", "host_mountpoint": v2[0]}
        record = {"tolerant": True, "hierarchies": [[m, c, own or "/", 0] for m, c, own in v1]}
        from . import v1 as manager

        return manager.Manager(record).mount_view()
