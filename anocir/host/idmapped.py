"""Id-mapped mounts: files of one owner appear as another's.

Side: host.  Source: mount_setattr(2), "ID-mapped mounts" (Linux 5.12); config.md, mounts.
"""

from __future__ import annotations

import posix

from . import idmaps, sources
from ..base import inroot
from ..errors import at, strerror
from ..linux import files, mounts, processes
from ..model import namespaces
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MOUNT_ATTR_IDMAP,
    MS_PRIVATE,
    MS_SLAVE,
    OPEN_TREE_CLONE,
)
from ..linux.errnos import EINVAL, ENOSYS, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final
    from ..model.schema import Linux, Mount

    Mapping = tuple[int, int, int]

_PRIVATE: Final = ("private", "rprivate", "unbindable", "runbindable")


def mount(
    source: str,
    entry: Mount,
    words: list[str],
    pid: int,
    where: str,
    linux: Linux | None = None,
    own: bool = False,
    inside: tuple[str, str] | None = None,
) -> int:
    """Return a detached id-mapped copy of the mount at `source`.

    `words` are the options idmap and ridmap; the mapping is the mount's own, the one in the
    option (crun's form `idmap=uids=0-1000-10;gids=...`, in which `@` before a mapping makes it
    relative to the container's in `linux`), or else the container's, whose user namespace
    process `pid` is in.  `own` tells whether that has a user namespace of its own.  With `inside`,
    the root and a path in it, the source is what that process has mounted there by now.
    """
    word = words[-1] if words else "idmap"
    name, _, text = word.partition("=")
    recursive = name == "ridmap"
    bind_rec = "rbind" in (entry.get("options") or [])
    if entry.get("uidMappings"):
        pairs = [
            [(m["containerID"], m["hostID"], m["size"]) for m in mappings]
            for mappings in (entry["uidMappings"], entry.get("gidMappings") or [])
        ]
        userns = idmaps.make_user_namespace(*pairs)
    elif text:
        userns = idmaps.make_user_namespace(*_parse(text, where, linux or {}))
    else:
        userns = files.open(f"/proc/{pid}/ns/user", files.O_RDONLY)
    mount_fd = -1
    try:
        mount_fd = _clone(source, bind_rec, pid, own, inside)
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        mounts.mount_setattr(mount_fd, flags, MOUNT_ATTR_IDMAP, userns_fd=userns)
        # A copy of a shared mount is its peer: what the container mounts there would be the host's.
        # Every other bind is made in a namespace whose mounts are private or slaves already.
        private = (linux or {}).get("rootfsPropagation") in _PRIVATE
        propagation = MS_PRIVATE if private else MS_SLAVE
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH | AT_RECURSIVE, propagation=propagation)
    except OSError as error:
        if mount_fd >= 0:
            files.close(mount_fd)
        number = error.errno or 0
        raise at(where, f"id-mapped mount of {source}: {strerror(number)}", _hint(number)) from None
    finally:
        files.close(userns)
    return mount_fd


def _clone(
    source: str, recursive: bool, pid: int, own: bool, inside: tuple[str, str] | None
) -> int:
    """Return a detached copy of the mount at `source`, or of the tree of mounts there.

    Taken in a copy of our mount namespace, which has no mounts of mount namespaces: those could be
    neither mapped nor mounted.  With an `own` user namespace in the container's, where all flags
    are locked that it may not change.  What is `inside` its root is looked up as init does it.
    """

    def work() -> list[int]:
        if inside is None:
            fd = files.open(source, files.O_PATH)
        else:
            # What is mounted over "/" itself only "/.." reaches.
            root = "/.." if inside[0] == "/" else inside[0]
            fd = inroot.open(files.open(root, files.O_PATH | files.O_DIRECTORY), inside[1])
        tree = AT_RECURSIVE if recursive else 0
        return [mounts.open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | tree)]

    try:
        there = pid if own or inside else posix.getpid()
        (mount_fd,) = sources.within(there, work, fresh=not own)
    except OSError as error:
        # Of a mount alone, where others below it are locked to it: the kernel hides nothing of it
        # from this side.
        if error.errno != EINVAL or recursive or inside:
            raise
        (mount_fd,) = work()
    return int(mount_fd)


def _hint(number: int) -> str:
    """Say what is missing: the kernel, the file system's part of it, or the right."""
    release = posix.uname().release
    if number == ENOSYS or (
        number == EPERM and not (mounts.has_mount_setattr() and mounts.has_open_tree())
    ):
        return f"an id-mapped mount needs Linux 5.12, this is {release}"
    if number == EINVAL:
        return (
            "the file system does not support id-mapped mounts: ext4, xfs and fat need Linux 5.12, "
            f"btrfs 5.15, overlay 5.19, tmpfs 6.3, this is {release}"
        )
    if number == EPERM and (posix.geteuid() or processes.in_user_namespace()):
        return "it takes CAP_SYS_ADMIN over the file system, which a rootless runtime has not"
    if number == EPERM:
        return "a mount that is id-mapped already cannot be once more"
    return ""


def _parse(text: str, where: str, linux: Linux) -> tuple[list[Mapping], list[Mapping]]:
    """Parse `uids=C-H-N#@C-H-N;gids=C-H-N`."""
    result: dict[str, list[Mapping]] = {"uids": [], "gids": []}
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name not in result:
            raise at(f"{where}.options", f'idmap needs uids= and gids=, got "{name}"')
        for mapping in value.split("#"):
            relative = mapping.startswith("@")
            numbers = mapping[relative:].split("-")
            if len(numbers) != 3 or not all(n.isascii() and n.isdigit() for n in numbers):
                raise at(f"{where}.options", f'idmap: "{mapping}" is not CONTAINER-HOST-SIZE')
            inside, outside, size = (int(n) for n in numbers)
            if relative:
                mapped = namespaces.outside(namespaces.id_mappings(linux, name[:3]), outside)
                outside = outside if mapped is None else mapped
            result[name].append((inside, outside, size))
    return result["uids"], result["gids"]
