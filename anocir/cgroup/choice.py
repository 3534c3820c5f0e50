"""Which manager of cgroups a container gets, and where its cgroups are.

Side: host.  For create, which has to decide; `lost` looks for the cgroups of a lost record.

Where a cgroupsPath leads (config-linux.md, "Cgroups Path"):

    /a/b            below the mount point of each hierarchy
    a/b             the same: "the runtime MUST consistently attach to the same place given the
                    same value", which a path below the runtime's own cgroup would not
    absent          /anocir/ID; without rights at the top, ID beside the runtime's own cgroup (v2)
                    or below it (v1)
    slice:prefix:x  the systemd manager's unit prefix-x.scope in that slice
"""

from __future__ import annotations

from ..errors import Error, at, keyed, reason
from ..linux import files, processes
from . import making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, Protocol

    from ..model.schema import CgroupRecord, Config
    from . import Maker
    from .hierarchy import Hierarchy

    class Settings(Protocol):
        """What is read of the command line."""

        systemd_cgroup: bool
        cgroup_manager: str
        rootless: str


# The longest name of a cgroup, and what we take for a path: mount point and file come to it.
_NAME_MAX: Final = 255
_PATH_MAX: Final = 3800


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
        below = place_of(words, container_id, tolerant, own[: own.rfind("/")] if own else "")
        return v2_record(mountpoint, below, config, tolerant)
    if not words and _wants_realtime(config) and not tolerant:
        words = [container_id]  # as runc places it: our own parent has no real-time to give
    return v1_record([*v1, *([v2] if v2 else [])], words, container_id, tolerant, config)


def maker(record: CgroupRecord) -> Maker:
    """Return who makes what `choose` has decided on."""
    name = record["manager"]
    if name == "v1":
        from . import v1

        return v1.Maker(record)
    if name == "v2":
        from . import v2

        return v2.Maker(record)
    if name == "systemd":
        from . import systemd

        return systemd.maker(record)
    from . import disabled

    return disabled.Manager(record)


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
        words = components(value, keyed("annotations", name))
        if value and not words:
            raise at(keyed("annotations", name), "must be the name of a cgroup")
        paths.append("".join(f"/{word}" for word in words))
    return paths[0], paths[1]


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


def place_of(words: list[str], container_id: str, tolerant: bool, own: str) -> str:
    """Return the path below the mount point, beginning with a slash."""
    if words:
        return "/" + "/".join(words)
    return f"{own}/{container_id}" if tolerant else f"/anocir/{container_id}"


def _missing(mountpoint: str, path: str) -> int:
    """Return how many directories are to be made; refuse a cgroup that is in use."""
    count = making.missing(mountpoint, path)
    error = None if count else making.in_use(mountpoint + path)
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
        source = keyed("annotations", "run.oci.delegate-cgroup")
        raise at(source, "needs cgroup v2: on v1 nothing can be delegated safely")
    rows: Any = []
    for mountpoint, controllers, own in hierarchies:
        path = place_of(words, container_id, tolerant, own)
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
    from ..model import namespaces

    mapped = namespaces.outside(namespaces.id_mappings(linux, "uid"), uid)
    return -1 if mapped is None else mapped
