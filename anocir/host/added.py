"""Mounts that a container gets while it runs.

Side: host; cold.  Each mount is made detached and with the rights of the host; then a child of ours
enters the container's mount namespace and root, opens the destination in that root, and attaches
the mount to the descriptor.  Nothing is looked up twice, so a container that exchanges the
destination meanwhile gets the mount at another place of its own, and never one of the host's.

Sources: open_tree(2), move_mount(2), mount_setattr(2); crun-mounts(1) for the form of the file.
"""

from __future__ import annotations

import posix

from ..base import inroot, jsonio
from ..errors import Error, at, concealed, strerror
from ..linux import entries, files, inodes, mounts, processes
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    MNT_DETACH,
    MS_PRIVATE,
    MS_SLAVE,
    OPEN_TREE_CLONE,
    PROC_SUPER_MAGIC,
    SYSFS_MAGIC,
)
from ..model import mountoptions
from ..model.spec import whole
from . import idmapped, lock, saving, sources, states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from ..cli import Settings
    from ..model.schema import AddedMount, Config, Mount
    from .store import Container

_BINDS: Final = ("", "none", "bind")
_SHARED: Final = ("shared", "rshared")
_SLAVE: Final = ("slave", "rslave")


def add(settings: Settings, container_id: str, path: str) -> None:
    """Add the mounts of a JSON array to the container: all of them, or none.  Raises Error."""
    container = _open(settings, container_id)
    entries = _load(path)
    if not mounts.has_detached():
        raise Error(f"mounts add needs Linux 5.12, this is {posix.uname().release}")
    config = container.config()
    pid, pidfd = process(container)
    made: list[int] = []
    try:
        for index, entry in enumerate(entries):
            made.append(_detached(entry, config, pid, f"mounts[{index}]"))
        numbers = sources.in_container(pid, pidfd, lambda proc: _attach(entries, made, proc))
    finally:
        for fd in made:
            files.close(fd)
    if processes.exited(pidfd):
        raise Error(f"container {container_id} has ended")
    rows: list[AddedMount] = list(container.state.get("added") or [])
    for entry, number in zip(entries, numbers):
        rows.append(
            {
                "destination": entry["destination"],
                "source": entry.get("source") or "",
                "type": "bind" if entry.get("type") in (None, *_BINDS) else entry["type"],
                "number": int(number),
            }
        )
    saving.state(container, added=rows)


def remove(settings: Settings, container_id: str, path: str) -> None:
    """Remove mounts that `add` made, by their destinations, the last one first.  Raises Error."""
    container = _open(settings, container_id)
    rows: list[AddedMount] = list(container.state.get("added") or [])
    gone: list[AddedMount] = []
    for index, entry in enumerate(_load(path)):
        place = entry["destination"]
        found = next((row for row in reversed(rows) if row["destination"] == place), None)
        if found is None:
            raise at(f"mounts[{index}].destination", f'"{place}" was not added')
        rows.remove(found)
        gone.append(found)
    pid, pidfd = process(container)
    # What the container has unmounted itself is only forgotten.
    table = files.read_file(f"/proc/{pid}/mountinfo").split(b"\n")
    there = {int(line.split(b" ", 1)[0]) for line in table if line}
    gone = [row for row in gone if row["number"] in there]
    sources.in_container(pid, pidfd, lambda proc: _detach(gone, proc))
    saving.state(container, added=rows)


def _open(settings: Settings, container_id: str) -> Container:
    container, _ = states.open_(settings, container_id, hold=True)
    lock.take(container)
    container.load()
    transitions.check("update", container, states.status_of(container))
    return container


def process(container: Container, what: str = "mounts") -> tuple[int, int]:
    """Return pid and pidfd of init.  Raises Error where its mounts are the host's."""
    pid, pidfd = container.state["pid"], container.hold()
    if pidfd < 0:
        raise Error(f"container {container.id} has ended")
    theirs = files.stat(f"/proc/{pid}/ns/mnt").st_ino
    if theirs == files.stat("/proc/self/ns/mnt").st_ino:
        raise Error(f"{what}: the container has no mount namespace of its own")
    return pid, pidfd


def _load(path: str) -> list[Mount]:
    """Return a checked array of mounts."""
    entries: list[Mount] = jsonio.load(path, piped=True, kind=list)
    whole.check_mounts(entries)
    for index, entry in enumerate(entries):
        if not entry["destination"].startswith("/"):
            raise at(f"mounts[{index}].destination", "must be absolute")
    return entries


def _detached(entry: Mount, config: Config, pid: int, where: str) -> int:
    """Return the mount that an entry asks for, attached nowhere yet."""
    kind, words = entry.get("type") or "", entry.get("options") or []
    options = mountoptions.parse(words)
    for word in words:
        if word in (*_SHARED, "remount", "tmpcopyup", "copy-symlink"):
            raise at(f"{where}.options", f'"{word}" cannot be had in a container that runs')
    mount_fd = -1
    try:
        if kind == "tmpfs" and not options["bind"]:
            mount_fd = _tmpfs(entry, options["data"], where)
        elif kind not in _BINDS:
            raise at(f"{where}.type", f'must be "bind" or "tmpfs", got "{kind}"')
        elif options["data"]:
            raise at(
                f"{where}.options",
                f'"{concealed(options["data"][0])}" is no option of a bind mount',
            )
        elif not (entry.get("source") or "").startswith("/"):
            raise at(f"{where}.source", "must be an absolute path")
        else:
            mount_fd = _bind(entry, config, pid, where, options["rec"])
        tree = AT_EMPTY_PATH | AT_RECURSIVE
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, options["set"], options["clear"])
        if options["recursive_set"] or options["recursive_clear"]:
            wanted = options["recursive_set"], options["recursive_clear"]
            mounts.mount_setattr(mount_fd, tree, *wanted)
        slave = any(word in _SLAVE for word in words)
        mounts.mount_setattr(mount_fd, tree, propagation=MS_SLAVE if slave else MS_PRIVATE)
    except OSError as error:
        if mount_fd >= 0:
            files.close(mount_fd)
        source = entry.get("source") or kind
        raise at(where, f"{source}: {strerror(error.errno or 0)}") from None
    return mount_fd


def _tmpfs(entry: Mount, data: Sequence[str], where: str) -> int:
    fs_fd = mounts.fsopen("tmpfs")
    try:
        mounts.fsconfig_string(fs_fd, "source", entry.get("source") or "tmpfs")
        mounts.fsconfig_options(fs_fd, data)
        mounts.fsconfig_create(fs_fd)
        return mounts.fsmount(fs_fd, 0)
    except OSError as error:
        from . import causes

        text = f"tmpfs: {strerror(error.errno or 0)}"
        raise at(where, text, causes.kernels_words(fs_fd)) from None
    finally:
        files.close(fs_fd)


def _bind(entry: Mount, config: Config, pid: int, where: str, recursive: bool) -> int:
    words = [word for word in entry.get("options") or [] if word.split("=")[0] in _IDMAP]
    if words or entry.get("uidMappings"):
        return idmapped.mount(entry["source"], entry, words, pid, where, config.get("linux"))
    fd = files.open(entry["source"], files.O_PATH)
    try:
        tree = AT_RECURSIVE if recursive else 0
        return mounts.open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH | tree)
    finally:
        files.close(fd)


_IDMAP: Final = ("idmap", "ridmap")


def _attach(entries: Sequence[Mount], made: Sequence[int], proc: int) -> list[str]:
    """Attach the mounts in the container's root, where this process is; their mount ids."""
    root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    own = inodes.mount_id(root)
    places: list[int] = []
    numbers: list[str] = []

    def may_make(fd: int) -> None:
        if inodes.mount_id(fd) != own:
            raise Error("is missing, and is made only in the container's own root")

    try:
        for index, (entry, mount_fd) in enumerate(zip(entries, made)):
            where = f"mounts[{index}].destination"
            try:
                make = inroot.make_directory if _is_directory(mount_fd) else inroot.make_file
                target = make(root, entry["destination"], may_make=may_make)
                if inodes.fstatfs_type(target) in (PROC_SUPER_MAGIC, SYSFS_MAGIC):
                    raise at(where, "lies in procfs or sysfs, where nothing can be mounted")
                if inodes.mount_id(target) == own and _same(target, root):
                    raise at(where, "leads to the root of the container")
                mounts.move_mount(mount_fd, target)
            except OSError as error:
                text = f'"{entry["destination"]}": {strerror(error.errno or 0)}'
                raise at(where, text) from None
            except Error as error:
                raise error if error.text.startswith("mounts[") else at(where, error.text) from None
            places.append(mount_fd)
            numbers.append(str(inodes.mount_id(mount_fd)))
    except Error:
        for fd in reversed(places):
            unmount(fd, proc)
        raise
    return numbers


def _detach(rows: Sequence[AddedMount], proc: int) -> list[str]:
    """Take mounts away that lie where they were added: all of them, or none."""
    root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    found = []
    for row in rows:
        where = f'mounts: "{row["destination"]}"'
        try:
            fd = inroot.open(root, row["destination"])
        except OSError as error:
            raise Error(f"{where}: {strerror(error.errno or 0)}") from None
        if inodes.mount_id(fd) != row["number"]:
            raise Error(f"{where}: another mount lies over it")
        found.append(fd)
    for fd in found:
        unmount(fd, proc)
    return []


def unmount(fd: int, proc: int) -> None:
    """Unmount what the root of a mount refers to, by no path of the container's.

    `proc` is the procfs of the host, in which this process is found: in that of the container it
    is not, whose pid namespace it has not entered.
    """
    files.fchdir(proc)
    mounts.umount2(f"{posix.getpid()}/fd/{fd}", MNT_DETACH)
    entries.chdir("/")


def _same(one: int, other: int) -> bool:
    return files.fstat(one).st_ino == files.fstat(other).st_ino


def _is_directory(fd: int) -> bool:
    return files.kind(files.fstat(fd)) == files.S_IFDIR
