"""What CRIU restores a container from: its root and its external mounts, at places of our own.

Side: host.  Cold.  Everything that config.json names is opened before, as the caller, checked to
be what it was, and copied as a detached mount with its flags on.  Then we enter a mount namespace
that only CRIU will share, and put the copies in the place of the state directory, where nothing of
an image has a say in the path.  The mount points are made there too, through the resolver that
stays inside the root, on a copy of the root in which file systems to come are stood in for by empty
ones: a read-only source is read-only from the first moment, so a mount point that is missing below
one is an error.  What is mounted dies with the namespace, also when we are killed.

Sources: CVE-2026-119101, CVE-2026-115520, CVE-2021-30465, CVE-2019-16884.
"""

from __future__ import annotations

import posix

from ..base import inroot, log, normal
from ..errors import Error, at, reason, strerror
from ..linux import descriptors, entries, files, inodes, mounts, tasks
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    CLONE_NEWNS,
    MNT_DETACH,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)
from ..linux.errnos import EROFS
from ..model import mountoptions, namespaces
from . import externals, idmapped, mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .externals import External
    from ..model.schema import Config, Linux, Mount
    from ..wire.shapes import MountOptions

_CLONE: Final = OPEN_TREE_CLONE | AT_EMPTY_PATH
_DEEPEST: Final = 64  # pre-dumps on one another


class Stage:
    """A mount namespace of our own, entered and left again, with the sources at fixed places."""

    __slots__ = ("cwd", "fds", "flags", "own", "path", "places", "points", "root_fd", "wide")

    def __init__(self, path: str) -> None:
        """Stage in the place of `path`, the state directory, or of what keeps others out of it.

        Root of the container's user namespace has to come to the sources too.
        """
        self.path = _closed(path)
        self.own = self.cwd = self.root_fd = -1
        # By name: the mount; its restricting flags (ST_*); where it goes inside; where it is now.
        self.fds: dict[str, int] = {}
        self.flags: dict[str, int] = {}
        self.points: dict[str, str] = {}
        self.places: dict[str, str] = {}
        # By name: the whole mount that a source lies on, and where it lies there.
        self.wide: dict[str, tuple[int, str]] = {}

    @property
    def root(self) -> str:
        """The place of the container's root."""
        return f"{self.path}/root"

    def open_root(self, rootfs: str) -> None:
        """Copy the root's mount, while the host's mounts are still before us."""
        fd = files.open(rootfs, files.O_PATH | files.O_DIRECTORY)
        try:
            self.root_fd = mounts.open_tree(fd, "", _CLONE | AT_RECURSIVE)
        finally:
            files.close(fd)

    def open_source(self, external: External, config: Config, wide: bool) -> None:
        """Copy one source with the flags that config.json gives it.

        With `wide` also the whole mount that it lies on: a mount that gets the host's by
        propagation takes its peers from a source, and of several such that have the same peers
        CRIU asks only one, which must show all that the others do.
        """
        options = _options(external)
        words = mountoptions.idmap_words(external.mount) if external.mount else None
        try:
            if words is not None and external.mount is not None:
                fd = _idmapped(external, words, config)
            else:
                fd = _clone(external, options["rec"])
                if wide:
                    self._open_wide(external, options)
        except OSError as error:
            text = strerror(error.errno or 0)
            raise at(
                external.where or external.destination,
                f'error mounting "{external.source}" to rootfs at "{external.destination}": '
                f"stat {external.source}: {text}",
            ) from None
        self.fds[external.key] = fd
        mounts.mount_setattr(fd, AT_EMPTY_PATH, options["set"], options["clear"])
        if options["recursive_set"] or options["recursive_clear"]:
            mounts.mount_setattr(
                fd, AT_EMPTY_PATH | AT_RECURSIVE, options["recursive_set"],
                options["recursive_clear"],
            )  # fmt: skip
        # A mask may allow more: it is the null device, and older ones and runc's do.
        self.flags[external.key] = 0 if external.key == externals.NULL else restricting(fd)
        if _is_cgroup_of_runc(external):
            # It adds no flags to those of config.json, as we do.
            asked = (external.mount or {}).get("options") or []
            self.flags[external.key] &= mountoptions.parse(asked)["set"]

    def _open_wide(self, external: External, options: MountOptions) -> None:
        fd = files.open(external.source, files.O_PATH)
        top = -1
        try:
            path = entries.readlink(f"/proc/self/fd/{fd}")
            mount = mountinfo.of(posix.getpid()).get(mountinfo.id_of(fd))
            if mount is None or not path.startswith(mount.point.rstrip("/") + "/"):
                return
            top = files.open(mount.point, files.O_PATH)
            if mountinfo.id_of(top) != mount.id:
                return  # something else lies there now
            copy = mounts.open_tree(top, "", _CLONE)
            mounts.mount_setattr(copy, AT_EMPTY_PATH, options["set"], options["clear"])
            self.wide[external.key] = copy, path[len(mount.point.rstrip("/")) + 1 :]
        finally:
            files.close(fd)
            if top >= 0:
                files.close(top)

    def open_below(self, external: External, top: str) -> None:
        """Copy a mount that came along below another source."""
        resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
        try:
            fd = inodes.openat2(self.fds[top], external.below, files.O_PATH, resolve)
        except OSError as error:
            text = f"{external.source}/{external.below}: {reason(error)}"
            raise at(external.where, text) from None
        try:
            self.fds[external.key] = mounts.open_tree(fd, "", _CLONE)
        finally:
            files.close(fd)
        self.flags[external.key] = restricting(self.fds[external.key])

    def enter(self) -> None:
        """Enter the new mount namespace, in which all this will be mounted."""
        self.own = files.open("/proc/self/ns/mnt", files.O_RDONLY)
        self.cwd = files.open(".", files.O_PATH | files.O_DIRECTORY)
        tasks.unshare(CLONE_NEWNS)
        mounts.mount("", "/", "", MS_SLAVE | MS_REC)

    def open_places(self) -> None:
        """Cover the state directory, in the new namespace, and put the root there."""
        mounts.mount("anocir", self.path, "tmpfs", 0, "mode=711")
        mounts.mount("", self.path, "", MS_PRIVATE)
        entries.mkdir(self.root, 0o711)
        _attach(self.root_fd, self.root)

    def leave(self) -> None:
        """Come back to the host's mounts; a process that was started meanwhile stays."""
        if self.own < 0:
            return
        tasks.setns(self.own, CLONE_NEWNS)
        files.fchdir(self.cwd)
        files.close(self.own)
        files.close(self.cwd)
        self.own = self.cwd = -1

    def close(self) -> None:
        """Leave, and close all copies."""
        self.leave()
        for fd in (*self.fds.values(), *(fd for fd, _ in self.wide.values()), self.root_fd):
            if fd >= 0:
                files.close(fd)
        self.fds = {}
        self.root_fd = -1

    def images(self, image_fd: int, config: Config) -> str:
        """Return a path by which root of the container's user namespace can read the images.

        A restored process opens them itself, as us at first and as that root later, and the
        directory may be entered by nobody but us.  So an overlay is shown in its place, which only
        CRIU has and anybody may search.  Empty where there is no need, or no overlay.
        """
        if namespaces.of(config).get("user") != "":
            return ""
        fds = [descriptors.dup_above(image_fd, 3)]
        try:
            for level in range(_DEEPEST):
                target = f"{self.path}/images{level}"
                upper, work = f"{self.path}/upper{level}", f"{self.path}/work{level}"
                for directory in (target, upper, work):
                    entries.mkdir(directory, 0o711)
                entries.chmod(upper, 0o711)
                try:
                    link = entries.readlink("parent", fds[-1])
                except OSError:
                    link = ""
                if link:
                    entries.symlink(f"../images{level + 1}", f"{upper}/parent")
                data = f"lowerdir=/proc/self/fd/{fds[-1]},upperdir={upper},workdir={work}"
                mounts.mount("anocir", target, "overlay", 0, data)
                if not link:
                    break
                flags = files.O_PATH | files.O_DIRECTORY
                fds.append(files.open(link, flags, dir_fd=fds[-1]))
        except OSError as error:
            log.debug(f"images: {reason(error)}")
            return ""
        finally:
            for fd in fds:
                files.close(fd)
        return f"{self.path}/images0"

    def make_points(self, config: Config, found: Sequence[External]) -> None:
        """Make the mount points that are missing, in the order in which create mounts.

        Fills `points`: where the mount of each name lies, links resolved.
        """
        build = f"{self.path}/build"
        entries.mkdir(build, 0o700)
        _attach(mounts.open_tree(self.root_fd, "", _CLONE | AT_RECURSIVE), build, close=True)
        root_fd = files.open(build, files.O_PATH | files.O_DIRECTORY)
        by_where: dict[str, list[External]] = {}
        for external in found:
            by_where.setdefault(external.where, []).append(external)
        try:
            for index, mount in enumerate(config.get("mounts") or []):
                where = f"mounts[{index}]"
                try:
                    if not mountoptions.is_bind(mount):
                        self._stand_in(root_fd, build, mount)
                    for external in by_where.pop(where, []):
                        self._mount(root_fd, build, external)
                except OSError as error:
                    raise _refused(where, error) from None
            for rest in by_where.values():
                for external in rest:
                    if external.destination:
                        self._mount(root_fd, build, external)
            if (config.get("process") or {}).get("terminal"):
                files.close(inroot.make_file(root_fd, "/dev/console"))
        finally:
            files.close(root_fd)
            mounts.umount2(build, MNT_DETACH)
            files.rmdir(build)

    def _stand_in(self, root_fd: int, build: str, mount: Mount) -> None:
        """Put an empty file system where CRIU will put one with its contents."""
        options = mount.get("options") or []
        if "remount" in options:
            return
        target = inroot.make_directory(root_fd, normal(mount["destination"]))
        try:
            _refuse_leaving(target, build)
            mounts.mount("anocir", f"/proc/self/fd/{target}", "tmpfs", 0, "")
        finally:
            files.close(target)

    def _mount(self, root_fd: int, build: str, external: External) -> None:
        source = self.fds[external.key]
        is_directory = files.kind(files.fstat(source)) == files.S_IFDIR
        make = inroot.make_directory if is_directory else inroot.make_file
        target = make(root_fd, external.destination)
        try:
            self.points[external.key] = _refuse_leaving(target, build)
            copy = mounts.open_tree(source, "", _CLONE | AT_RECURSIVE)
            try:
                mounts.move_mount(copy, target)
            finally:
                files.close(copy)
        finally:
            files.close(target)

    def publish(self, key: str) -> str:
        """Attach a source at its place, which is returned."""
        path = f"{self.path}/{len(self.places)}"
        fd = self.fds[key]
        if files.kind(files.fstat(fd)) == files.S_IFDIR:
            entries.mkdir(path, 0o711)
        else:
            files.close(files.open(path, files.O_CREAT | files.O_EXCL | files.O_WRONLY, 0o600))
        _attach(fd, path)
        if key in self.wide:
            path = self._publish_wide(key, path)
        self.places[key] = path
        return path

    def _publish_wide(self, key: str, narrow: str) -> str:
        """Attach the whole mount of a source; the source's path there, if it is the same file."""
        fd, below = self.wide[key]
        path = f"{narrow}-wide"
        entries.mkdir(path, 0o711)
        _attach(fd, path)
        found, wanted = files.lstat(f"{path}/{below}"), files.fstat(self.fds[key])
        same = (found.st_dev, found.st_ino) == (wanted.st_dev, wanted.st_ino)
        return f"{path}/{below}" if same else narrow

    def identity(self, key: str) -> tuple[int, int]:
        """Return (device, inode) of a source."""
        found = files.fstat(self.fds[key])
        return found.st_dev, found.st_ino


def _closed(path: str) -> str:
    """Return the first directory on the way that not everybody may search, or the path itself."""
    at = ""
    for part in path.strip("/").split("/"):
        at += "/" + part
        if not files.stat(at).st_mode & 0o001:
            return at
    return path


def restricting(fd: int) -> int:
    """Return the flags by which a mount allows less: ST_RDONLY, NOSUID, NODEV, NOEXEC.

    They have the numbers of MS_*, which the images hold.
    """
    return files.fstatvfs(fd).f_flag & 0xF


def _options(external: External) -> MountOptions:
    if external.mount is not None and mountoptions.is_bind(external.mount):
        words = external.mount.get("options") or []
        options = mountoptions.parse(words)
        if options["exact"]:  # as inside/attach.py
            restricted = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID
            restricted |= MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
            options["clear"] |= restricted & ~options["set"]
        return options
    if external.key == externals.NOTIFY:
        return mountoptions.parse(["bind", "ro", "nosuid", "nodev", "noexec"])
    options = mountoptions.parse([])
    if external.key == externals.NULL:
        # As `create` covers a file; CRIU gives flags to the first of several alike only.
        options["set"] = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
    if external.mount is not None:  # a cgroup
        words = external.mount.get("options") or []
        options = mountoptions.parse(words)
        options["set"] |= MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC
        options["clear"] &= ~options["set"]
    return options


def _is_cgroup_of_runc(external: External) -> bool:
    if external.mount is None or mountoptions.is_bind(external.mount):
        return False
    return not external.key.startswith("anocir-")


def _clone(external: External, recursive: bool) -> int:
    """Return a detached copy of the mount at a source, which must be what config.json wants."""
    fd = files.open(external.source, files.O_PATH)
    try:
        found = files.fstat(fd)
        if external.device and files.device(found) != external.device:
            raise at(external.where, f"{external.source} of the host is another device")
        return mounts.open_tree(fd, "", _CLONE | (AT_RECURSIVE if recursive else 0))
    finally:
        files.close(fd)


def _idmapped(external: External, words: list[str], config: Config) -> int:
    linux: Linux = config.get("linux") or {}
    mount: Mount = {**(external.mount or {})}
    if not mount.get("uidMappings") and not words[-1].partition("=")[2]:
        # The container's own, whose user namespace is not there yet.
        mount["uidMappings"], mount["gidMappings"] = linux["uidMappings"], linux["gidMappings"]
    return idmapped.mount(external.source, mount, words, 0, external.where, linux)


def _attach(fd: int, path: str, close: bool = False) -> None:
    target = files.open(path, files.O_PATH)
    try:
        mounts.move_mount(fd, target)
    finally:
        files.close(target)
        if close:
            files.close(fd)


def _refuse_leaving(target: int, build: str) -> str:
    """Return the place of a mount point inside the root."""
    path = entries.readlink(f"/proc/self/fd/{target}")
    if not path.startswith(f"{build}/"):
        raise Error(f"a mount point lies outside of the root, at {path!a}")
    return path[len(build) :]


def _refused(where: str, error: OSError) -> Error:
    if error.errno == EROFS:
        return at(
            where, f"{reason(error)}: its mount point is missing below a read-only mount",
            "it was there when the checkpoint was made",
        )  # fmt: skip
    return at(where, reason(error))
