"""The mounts of a container that come from outside of it: what CRIU is to leave to us.

Side: host.  Cold.  CRIU keeps `mnt[KEY]:VALUE` as text.  At checkpoint the key is where the mount
lies, which the image's links have a say in; at restore it is the name from the images.  So:

* a name holds nothing of the image: `anocir-N` by the index in config.json;
* a place in which the text could end early, or which two mounts share, is refused;
* which mount lies at a destination is asked of the kernel by mount id, never by the text.

Sources: CVE-2026-119101, CVE-2026-115520 (a destination resolved in the root named the mount, and
its links decided which source it got), CVE-2021-30465; criu(8), --external.
"""

from __future__ import annotations

from ..base import inroot, normal
from ..errors import Error, at, reason
from ..linux import files
from ..linux.errnos import ELOOP, ENOENT, ENOTDIR
from ..model import mountoptions, namespaces, plan
from . import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Final

    from .mountinfo import Mount
    from ..model.schema import Config, Mount as Entry
    from ..wire.shapes import CgroupView

# The name of every masked file, as runc has it: the null device, whoever asks for it.
NULL: Final = "/dev/null"
NOTIFY: Final = "anocir-notify"


class External:
    """One mount: its name for CRIU, the place in config.json, where it goes, where it is from."""

    __slots__ = ("below", "destination", "device", "key", "mount", "point", "source", "where")

    def __init__(
        self,
        key: str,
        where: str,
        destination: str,
        source: str,
        mount: Entry | None = None,
        device: tuple[int, int] | None = None,
    ) -> None:
        """Take what config.json says; `mount` is its entry, `device` the node that is bound."""
        self.key = key
        self.where = where
        self.destination = destination
        self.source = source
        self.mount = mount
        self.device = device
        # Where it lies in the container, links resolved.
        self.point = ""
        # The place below a bind with `rbind`, for a mount that came along.
        self.below = ""


def of_config(
    config: Config, bundle: str, view: Callable[[str], CgroupView], nested: bool
) -> list[External]:
    """Return what config.json brings from outside, in the order in which it is mounted.

    `view` is the cgroup manager's mount_view, `nested` whether we are in a user namespace.
    """
    found = []
    own_cgroups = "cgroup" in namespaces.of(config)
    for index, mount in enumerate(config.get("mounts") or []):
        where = f"mounts[{index}]"
        destination = normal(mount["destination"])
        kind = mount.get("type") or ""
        if mountoptions.is_bind(mount):
            source = mount.get("source") or ""
            if not source:
                raise at(f"{where}.source", "a bind mount needs a source")
            if not source.startswith("/"):
                source = f"{bundle}/{source}"
            if not _is_copied_link(mount, source):
                found.append(External(f"anocir-{index}", where, destination, source, mount))
        elif kind in ("cgroup", "cgroup2") and not own_cgroups:
            for name, path in _cgroups(view(kind)):
                key = f"anocir-{index}" + (f"-{name}" if name else "")
                place = f"{destination}/{name}" if name else destination
                found.append(External(key, where, place, path, mount))
    if namespaces.own_user(config) or nested:
        found += _devices(config)
    return found


def _cgroups(view: CgroupView) -> Iterator[tuple[str, str]]:
    """Return (name below the mount, directory of the container's own cgroup)."""
    if view["version"] == 2:
        yield "", f"{view['host_mountpoint']}{view['own_path']}"
        return
    for name, data, own, mountpoint in view["hierarchies"]:
        if data == "cgroup2":
            continue  # see plan._view
        yield name, f"{mountpoint}{own}"


def _devices(config: Config) -> Iterator[External]:
    """Return the device nodes that are bound, since mknod(2) is not permitted."""
    for mount in config.get("mounts") or []:
        if mountoptions.is_bind(mount) and normal(mount["destination"]) == "/dev":
            return
    listed = {}
    for number, (path, kind, major, minor) in enumerate(plan.DEFAULT_DEVICES):
        listed[path] = (f"anocir-default-{number}", "", kind, major, minor)
    for index, device in enumerate((config.get("linux") or {}).get("devices") or []):
        where = f"linux.devices[{index}]"
        numbers = device.get("major", 0), device.get("minor", 0)
        listed[normal(device["path"])] = (
            f"anocir-device-{index}", where, device["type"], *numbers
        )  # fmt: skip
    for path, (key, where, kind, major, minor) in listed.items():
        if kind != "p":
            wanted = (files.S_IFBLK if kind == "b" else files.S_IFCHR, files.makedev(major, minor))
            yield External(key, where, path, path, device=wanted)


def _is_copied_link(mount: Entry, source: str) -> bool:
    """Tell whether `copy-symlink` made a link of it and no mount."""
    if "copy-symlink" not in (mount.get("options") or []):
        return False
    try:
        return files.kind(files.lstat(source)) == files.S_IFLNK
    except OSError:
        return False


class Seen:
    """The mounts of a running container, and a way to say which one lies at a path."""

    __slots__ = ("by_id", "points", "root_fd", "taken")

    def __init__(self, pid: int) -> None:
        """Look at the mounts of process `pid`."""
        self.root_fd = files.open(f"/proc/{pid}/root", files.O_PATH | files.O_DIRECTORY)
        self.by_id: dict[int, Mount] = mountinfo.of(pid)
        self.points: dict[str, list[int]] = {}
        for mount in self.by_id.values():
            self.points.setdefault(mount.point, []).append(mount.id)
        # What each mount that has been found is: the place in config.json.
        self.taken: dict[int, str] = {}

    def close(self) -> None:
        """Close the container's root."""
        files.close(self.root_fd)

    def at(self, path: str) -> tuple[Mount | None, tuple[int, int], int]:
        """Return the mount whose top is at a path inside, its (device, inode) and kind (S_IF*).

        None when the path leads to no mount point.
        """
        fd = inroot.open(self.root_fd, path)
        try:
            stat = files.fstat(fd)
            found = self.by_id.get(mountinfo.id_of(fd))
        finally:
            files.close(fd)
        same = (stat.st_dev, stat.st_ino)
        if found is None or found.point == "/" or self._top(found) != same:
            return None, same, files.kind(stat)
        return found, same, files.kind(stat)

    def _top(self, mount: Mount) -> tuple[int, int]:
        """Return (device, inode) of what lies at a mount's place, which has no link in it."""
        try:
            fd = inroot.open(self.root_fd, mount.point, follow_links=False)
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR, ELOOP):
                return 0, 0  # removed, or under another mount
            raise
        try:
            stat = files.fstat(fd)
            return (stat.st_dev, stat.st_ino) if mountinfo.id_of(fd) == mount.id else (0, 0)
        finally:
            files.close(fd)

    def take(self, mount: Mount, where: str) -> None:
        """Note whose a mount is; refuse one that is another's already."""
        other = self.taken.get(mount.id)
        if other is not None:
            raise Error(
                f"{where}: it leads to the mount of {other}, at {shown(mount.point)}",
                "links in the container's root have changed since it was created",
            )
        self.taken[mount.id] = where


def shown(path: str) -> str:
    """Return a path of an image in one printable line."""
    return ascii(path)


def check_text(where: str, point: str) -> None:
    """Refuse a place whose text CRIU could read otherwise than it is."""
    if any(char in "]:\\" or ord(char) < 32 or ord(char) == 127 for char in point):
        raise Error(
            f"{where}: it lies at {shown(point)}, a path that cannot be handed to criu",
            "a mount point with ], :, a backslash or a control character cannot be checkpointed",
        )


def find(config: Config, wanted: list[External], pid: int) -> list[External]:
    """Return the external mounts of a running container, each with its place (`point`).

    Raises Error for one that is not where config.json says, or that cannot be named safely.
    """
    seen = Seen(pid)
    try:
        found = [external for external in wanted if _place(seen, external)]
        _own_mounts(seen, config)
        for external in list(found):
            if external.mount is not None and "rbind" in (external.mount.get("options") or []):
                found += _came_along(seen, external)
        found += _notify(seen)
        masks = _masks(seen, config)
        for external in found:
            check_text(external.where or external.key, external.point)
            if len(seen.points[external.point]) > 1:
                raise Error(
                    f"{external.where or external.key}: another mount lies at "
                    f"{shown(external.point)} too, and criu cannot tell them apart"
                )
        return found + masks
    finally:
        seen.close()


def _place(seen: Seen, external: External) -> bool:
    """Find the mount of one entry; False for a device node that is no mount."""
    where = external.where or external.destination
    try:
        mount, same, _ = seen.at(external.destination)
    except OSError as error:
        hint = "it was mounted when the container was created"
        raise Error(f"{where}: {reason(error)}", hint) from None
    if mount is None:
        if external.device:
            return False  # the file system allowed mknod(2) after all
        raise Error(
            f"{where}: {shown(external.destination)} does not lead to its mount any more",
            "links in the container's root have changed since it was created, or it was unmounted",
        )
    _check_source(external, mount, same)
    seen.take(mount, where)
    external.point = mount.point
    return True


def _check_source(external: External, mount: Mount, same: tuple[int, int]) -> None:
    """Refuse a mount that has another source than config.json names, when links led to it.

    A source may have been replaced since; but then nothing else could have led to the mount.
    """
    if external.device or external.mount is None or not mountoptions.is_bind(external.mount):
        return
    try:
        found = files.stat(external.source)
    except OSError:
        found = None
    if found is not None and (found.st_dev, found.st_ino) == same:
        return
    if mount.point != external.destination:
        raise Error(
            f"{external.where}: at {shown(mount.point)}, where "
            f"{shown(external.destination)} leads, lies another mount than that of "
            f"{external.source}"
        )


def _own_mounts(seen: Seen, config: Config) -> None:
    """Note the file systems that config.json has made: CRIU makes them again."""
    for index, mount in enumerate(config.get("mounts") or []):
        if mountoptions.is_bind(mount):
            continue
        try:
            found, _, _ = seen.at(normal(mount["destination"]))
        except OSError:
            continue
        if found is not None:
            seen.taken.setdefault(found.id, f"mounts[{index}]")


def _came_along(seen: Seen, external: External) -> Iterator[External]:
    """Return the mounts below a source that `rbind` has brought along with it."""
    top = next(m.id for m in seen.by_id.values() if m.point == external.point)
    inside = {top}
    count = 0
    for mount in seen.by_id.values():
        if mount.parent not in inside or mount.id in seen.taken:
            continue
        below = mount.point[len(external.point.rstrip("/")) + 1 :]
        found, same, _ = seen.at(mount.point)
        if found is None or found.id != mount.id or not _is_there(external.source, below, same):
            continue  # the container made it itself, or it is hidden
        inside.add(mount.id)
        where = f"{external.where}: the mount below it"
        seen.take(mount, where)
        came = External(f"{external.key}.{count}", where, mount.point, external.source)
        came.below, came.point = below, mount.point
        count += 1
        yield came


def _is_there(source: str, below: str, same: tuple[int, int]) -> bool:
    """Tell whether the host has this directory or file below a source."""
    try:
        found = files.lstat(f"{source}/{below}")
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == same


def _notify(seen: Seen) -> Iterator[External]:
    """Return the mount of the notify socket's directory, if the container got one."""
    try:
        mount, _, _ = seen.at(plan.NOTIFY_AT)
    except OSError:
        return
    if mount is not None and mount.id not in seen.taken:
        external = External(NOTIFY, "NOTIFY_SOCKET", plan.NOTIFY_AT, "")
        external.point = mount.point
        seen.take(mount, "NOTIFY_SOCKET")
        yield external


def _masks(seen: Seen, config: Config) -> list[External]:
    """Return the masked files; masked directories are a tmpfs, which CRIU makes again."""
    found = []
    for index, path in enumerate((config.get("linux") or {}).get("maskedPaths") or []):
        where = f"linux.maskedPaths[{index}]"
        try:
            mount, _, kind = seen.at(normal(path))
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR, ELOOP):
                continue
            raise
        if mount is None or mount.id in seen.taken or kind != files.S_IFCHR:
            continue
        check_text(where, mount.point)
        external = External(NULL, where, normal(path), NULL, device=files.NULL_DEVICE)
        external.point = mount.point
        seen.taken[mount.id] = where
        found.append(external)
    return found
