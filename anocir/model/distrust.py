"""What the images of a checkpoint say of mounts, held against config.json, before CRIU starts.

Side: pure.  CRIU mounts what the images list with the flags that they list.  Without this an image
could leave out `ro`, bind a read-only source a second time, or mount the host's disk.
Sources: images/mnt.proto; criu/mount.c (validate_mounts, do_bind_mount), criu/filesystems.c.
"""

from __future__ import annotations

from ..base import normal
from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, TypedDict

    from .schema import Config

    class Entry(TypedDict, total=False):
        """A mount in the images: the fields of images.ENTRY."""

        fstype: int
        id: int
        device: int
        parent: int
        flags: int
        root: str
        point: str
        source: str
        options: str
        shared: int
        master: int
        with_plugin: int
        ext_mount: int
        fsname: str
        deleted: int
        key: str


# enum fstype; 0 is what CRIU does not know, of which only external mounts can be restored.
KINDS: Final = {
    1: "proc", 2: "sysfs", 3: "devtmpfs", 4: "binfmt_misc", 5: "tmpfs", 6: "devpts", 7: "simfs",
    8: "pstore", 9: "securityfs", 10: "fusectl", 11: "debugfs", 12: "cgroup", 13: "aufs",
    14: "mqueue", 15: "fuse", 16: "auto", 17: "overlay", 18: "autofs", 19: "tracefs",
    23: "cgroup2",
}  # fmt: skip
# What a container with CAP_SYS_ADMIN can mount by itself, and it is still its own.
_OWN: Final = {"tmpfs", "proc", "devpts", "mqueue"}
# What shows directories that CRIU looks up where it still sees the host's.
_LAYERED: Final = {"overlay", "aufs"}
_LAYERS: Final = ("lowerdir", "lowerdir+", "datadir+", "upperdir", "workdir", "br", "dirs")
_SYSTEM: Final = ("device", "fstype", "fsname", "source", "options")
_RDONLY: Final = 1
_RESTRICTING: Final = {1: "ro", 2: "nosuid", 4: "nodev", 8: "noexec"}


def check(
    tables: Sequence[Sequence[Entry]],
    flags: Mapping[str, int],
    points: Mapping[str, str],
    config: Config,
) -> None:
    """Refuse images whose mounts are not those of config.json.

    `flags` are the restricting flags (ST_*) that each external mount must keep, by its name, and
    `points` where it lies; a name without a place may lie anywhere.  Each table is one mount
    namespace, and processes of a container may have made their own.  Raises Error.
    """
    used: dict[str, int] = {}
    allowed = _allowed(config)
    root = config.get("root") or {}
    for table in tables:
        here: dict[str, int] = {}
        externals = [entry for entry in table if entry.get("key") or entry.get("ext_mount")]
        for entry in table:
            point = entry.get("point", "")
            for text in (point, entry.get("root", "")):
                if ".." in text.split("/"):
                    raise Error(f"--image-path: {text!a} is no path of a mount")
            if entry.get("with_plugin"):
                raise Error(f"--image-path: a mount at {point!a} is a plug-in's")
            if entry in externals:
                _external(entry, flags, points)
                name = entry.get("key") or entry.get("root", "")
                here[name] = here.get(name, 0) + 1
                used[name] = max(used.get(name, 0), here[name])
            elif point == "/" or _same_device_root(entry, table):
                if root.get("readonly"):
                    _keeps(entry, _RDONLY, "root.readonly")
            else:
                _own(entry, externals, flags, allowed)
                _layers(entry, config)
    for name in points:
        if used.get(name, 0) != 1:
            raise Error(
                f"--image-path: the images have {used.get(name, 0)} mounts {name}, not one",
                "config.json must have the mounts that the container had",
            )


def _external(entry: Entry, flags: Mapping[str, int], points: Mapping[str, str]) -> None:
    name = entry.get("key") or entry.get("root", "")
    place = entry.get("point", "")
    if name not in flags:
        raise Error(f"--image-path: a mount at {place!a} wants {name!a}, which config.json has not")
    if name in points and points[name] != place:
        raise Error(
            f"--image-path: the images mount {name} at {place!a}, but its place is "
            f"{points[name]!a}",
            "links in the container's root have changed since the checkpoint",
        )
    if entry.get("deleted"):
        raise Error(f"--image-path: the source of the mount at {place!a} was removed")
    _keeps(entry, flags[name], name)


def _keeps(entry: Entry, wanted: int, what: str) -> None:
    """Refuse flags that allow more than `wanted`."""
    lost = wanted & ~entry.get("flags", 0)
    if lost:
        words = ", ".join(word for bit, word in _RESTRICTING.items() if lost & bit)
        place = entry.get("point", "")
        raise Error(f"--image-path: the images mount {what} at {place!a} without {words}")


def _same_device_root(entry: Entry, table: Sequence[Entry]) -> bool:
    """Tell whether a mount is a bind of the container's root."""
    for other in table:
        if other.get("point") == "/":
            return _same(entry, other) and not any(
                e.get("device") == entry.get("device") for e in table if e.get("key")
            )
    return False


def _same(one: Entry, other: Entry) -> bool:
    """Tell whether two mounts are of one file system: where only one is, CRIU makes a new one."""
    return all(one.get(key) == other.get(key) for key in _SYSTEM)


def _own(
    entry: Entry, externals: Sequence[Entry], flags: Mapping[str, int], allowed: set[str]
) -> None:
    """Check a mount that CRIU makes: its kind, and that it is no wider copy of an external one."""
    place = entry.get("point", "")
    copied = [e for e in externals if _same(e, entry) and _covers(e, entry)]
    if copied:
        for external in copied:
            name = external.get("key") or external.get("root", "")
            _keeps(entry, flags.get(name, 0), f"a copy of {name}")
        return
    kind = KINDS.get(entry.get("fstype", 0), "unknown")
    if kind not in allowed:
        raise Error(
            f"--image-path: the images mount a file system of type {kind} at {place!a}, which "
            "config.json does not"
        )


def _layers(entry: Entry, config: Config) -> None:
    """Refuse a file system of other directories than config.json has at that place."""
    kind = KINDS.get(entry.get("fstype", 0), "unknown")
    if kind not in _LAYERED:
        return
    place = entry.get("point", "")
    wanted = [
        _directories(mount.get("options") or [])
        for mount in config.get("mounts") or []
        if mount.get("type") == kind and normal(mount["destination"]) == place
    ]
    if _directories(entry.get("options", "").split(",")) not in wanted:
        raise Error(
            f"--image-path: the images mount an {kind} of other directories at {place!a} than "
            "config.json"
        )


def _directories(words: Sequence[str]) -> list[str]:
    return sorted(word for word in words if word.partition("=")[0] in _LAYERS)


def _covers(external: Entry, entry: Entry) -> bool:
    """Tell whether CRIU could make a mount from an external one: it shows a part of it."""
    top = external.get("root", "/").rstrip("/")
    root = entry.get("root", "/")
    return bool(root == top or root.startswith(top + "/") or not top)


def bounding_set(config: Config) -> list[str]:
    """Return the names of the bounding set of config.json."""
    listed = (config.get("process") or {}).get("capabilities") or {}
    return listed.get("bounding") or []


def _allowed(config: Config) -> set[str]:
    """Return the kinds of file systems that the container may have mounted."""
    kinds = {mount.get("type") or "" for mount in config.get("mounts") or []}
    if kinds & {"cgroup", "cgroup2"}:
        kinds |= {"cgroup", "cgroup2", "tmpfs"}
    if (config.get("linux") or {}).get("maskedPaths"):
        kinds.add("tmpfs")
    if "CAP_SYS_ADMIN" in bounding_set(config) or any(
        space.get("type") == "user" for space in (config.get("linux") or {}).get("namespaces") or []
    ):
        kinds |= _OWN
    return kinds & {*KINDS.values()} - {"auto", "devtmpfs", "simfs"} | (kinds & {"devtmpfs"})
