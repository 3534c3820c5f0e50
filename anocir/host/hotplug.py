"""Devices that a container gets or loses while it runs: their rules, and their nodes.

Side: host; cold.  What is added is in the state before it is made, and what is removed until it is
gone: whenever the runtime is killed, a later `update` knows.  Nodes are made by a child of ours in
the container's mount namespace and root, with the rights of the host, on descriptors: what the
container exchanges meanwhile leads to another place of its own.  Where it has a user namespace the
node is a bind of the host's, as at create.

Sources: mknod(2), cgroup-v1/devices.rst; fs/namei.c, inode_permission: access(2) asks the rules of
devices and opens nothing.
"""

from __future__ import annotations

import posix

from ..base import inroot, log, normal
from ..cgroup import changes, devices
from ..errors import Error, reason, strerror
from ..linux import descriptors, entries, files, inodes, mounts, oneself, processes, spawn
from ..linux.const import (
    AT_EMPTY_PATH,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    MS_PRIVATE,
    OPEN_TREE_CLONE,
)
from ..linux.errnos import ENOENT, ENOTDIR, EOVERFLOW
from ..model import namespaces
from . import added, saving, sources, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from ..cgroup import Manager
    from ..cgroup.changes import Change
    from ..cgroup.devices import Rule
    from ..cli import Options
    from ..model.schema import AddedDevice, Config, DeviceRule
    from .store import Container

_KINDS: Final = {files.S_IFCHR: "c", files.S_IFBLK: "b"}
_TYPES: Final = {"c": files.S_IFCHR, "b": files.S_IFBLK}
_ADD: Final = "--device-add"
_REMOVE: Final = "--device-remove"
_ST_NODEV: Final = 4  # statvfs(3)
_NODE: Final = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC
_PATIENCE: Final = 5.0
_ALL: Final = devices.MKNOD | devices.READ | devices.WRITE


class Plug:
    """The changes of one `update`: checked when it is made, then done, undone or kept."""

    __slots__ = (
        "after", "before", "bound", "config", "container", "gone", "made", "manager", "new", "rows",
        "rules", "undoing",
    )  # fmt: skip

    def __init__(
        self,
        container: Container,
        manager: Manager,
        config: Config,
        named: list[DeviceRule],
        options: Options,
    ) -> None:
        """Check everything that can be checked before anything is done.  Raises Error."""
        self.container = container
        self.manager = manager
        self.config = config
        linux = config.get("linux") or {}
        self.rules = devices.parse((linux.get("resources") or {}).get("devices"))
        self.before = devices.parse(container.state.get("rules"), "state.json: rules")
        self.bound = namespaces.own_user(config) or processes.in_user_namespace()
        self.rows: list[AddedDevice] = list(container.state.get("devices") or [])
        self.made: list[tuple[AddedDevice, str]] = []
        self.gone: list[AddedDevice] = []
        self.undoing: list[Callable[[], None]] = []
        new: list[Change] = [
            (f"resources.devices[{index}]", rule)
            for index, rule in enumerate(devices.parse(named, "resources.devices"))
        ]
        self.new = changes.asked(self.rules, self.before, new)
        self.after = self.before
        for _, rule in self.new:
            self.after = changes.merged(self.after, rule)
        for text in options["device_remove"]:
            self._remove(text)
        for text in options["device_add"]:
            self._add(text)

    def _change(self, source: str, rule: Rule) -> None:
        if not rule[0] or changes.allowed(self.rules, self.after, rule) != rule[4]:
            self.new.append((source, rule))
            self.after = changes.merged(self.after, rule)

    def _add(self, text: str) -> None:
        source, place, access = _parsed(text)
        where = f"{_ADD} {text}"
        try:
            fd = files.open(source, files.O_PATH)
            found, flags = files.fstat(fd), files.fstatvfs(fd).f_flag
            files.close(fd)
        except OSError as error:
            raise Error(f"{where}: {source}: {strerror(error.errno or 0)}") from None
        kind, number = files.device(found)
        if kind not in _KINDS:
            raise Error(f"{where}: {source} is not a device")
        if self.bound and flags & _ST_NODEV:  # a bind has it too
            raise Error(f"{where}: {source} lies in a mount with nodev")
        if any(row["path"] == place for row in (*self.rows, *(one for one, _ in self.made))):
            raise Error(f"{where}: {place} was added already")
        major, minor = posix.major(number), posix.minor(number)
        row: AddedDevice = {
            "path": place, "type": _KINDS[kind], "major": major, "minor": minor,
            "mode": found.st_mode & 0o7777, "uid": found.st_uid, "gid": found.st_gid,
            "access": access, "number": 0, "own": True,
        }  # fmt: skip
        self._change(where, _rule(row))
        self.made.append((row, source))

    def _remove(self, text: str) -> None:
        where = f"{_REMOVE} {text}"
        if not text.startswith("/"):
            raise Error(f"{where}: must be an absolute path")
        place = normal(text)
        row = next((each for each in self.rows if each["path"] == place), None)
        if row is None:
            self._remove_first(where, place)
            return
        self.rows.remove(row)
        self.gone.append(row)
        rule = _rule(row)
        if rule in self.after:
            # What was allowed before it was added stays so, and what it has by another path.
            self.after = [one for one in self.after if one != rule]
            for other in map(_rule, self.rows):
                if other[1:4] == rule[1:4]:
                    self.after = changes.merged(self.after, other)
        self._deny(where, (False, *rule[1:4], _ALL))

    def _remove_first(self, where: str, place: str) -> None:
        """Take away a device that config.json has."""
        linux = self.config.get("linux") or {}
        found = [each for each in linux.get("devices") or [] if normal(each["path"]) == place]
        taken = self.container.state.get("taken") or []
        if not found or place in taken:
            text = "is no device of the container that could be taken away"
            raise Error(f"{where}: {place} {text}", "anocir diff shows what was added")
        device = found[-1]
        if device["type"] == "p":
            raise Error(f"{where}: {place} is not a device")
        kind = "b" if device["type"] == "b" else "c"
        major, minor = device.get("major", 0), device.get("minor", 0)
        self.gone.append(
            {
                "path": place, "type": kind, "major": major, "minor": minor, "mode": 0, "uid": 0,
                "gid": 0, "access": "rwm", "number": -1, "own": True,
            }
        )  # fmt: skip
        # Who may make any node may make this one.
        rule: Rule = (False, kind, major, minor, _ALL & ~devices.MKNOD)
        if changes.allowed([], [], (True, *rule[1:])):
            return  # one of those that every container may use
        self.new.append((where, rule))
        self.after = changes.merged(self.after, rule)

    def _deny(self, where: str, rule: Rule) -> None:
        """Have denied of a rule what is not allowed otherwise; nothing of that is a change."""
        left = 0
        for bit in (devices.READ, devices.WRITE, devices.MKNOD):
            left |= changes.allowed(self.rules, self.after, (True, *rule[1:4], bit))
        if rule[4] & ~left:
            self.new.append((where, (False, *rule[1:4], rule[4] & ~left)))

    def do(self, status: str) -> None:
        """Do it all, or nothing.  Raises Error."""
        rows = [*self.rows, *self.gone, *(row for row, _ in self.made)]
        pid = pidfd = -1
        if self.made or self.gone:
            pid, pidfd = added.process(self.container, "devices")
        state = {
            key: self.container.state.get(key) or [] for key in ("rules", "devices", "taken")
        }  # fmt: skip
        if self.made or self.new:
            self._save([row for row in rows if row["number"] >= 0])
            self.undoing.append(lambda: saving.state(self.container, **state))
        try:
            if self.made:
                self._make(pid)
            if self.new:
                back = self.manager.change_devices(self.rules, self.before, self.after, self.new)
                self.undoing.append(back)
                if status != states.PAUSED:
                    self._feel()
            if self.gone:
                self._unmake(pid)
            if pidfd >= 0 and processes.exited(pidfd):
                raise Error(f"container {self.container.id} has ended")
        except (Error, OSError):
            self.undo()
            raise

    def undo(self) -> None:
        """Take back what `do` has done, the last first; what was removed stays so."""
        while self.undoing:
            try:
                self.undoing.pop()()
            except (Error, OSError) as error:
                log.warn(f"undo of an update: {reason(error)}")

    def keep(self) -> None:
        """Write down what there is now."""
        taken = [row["path"] for row in self.gone if row["number"] < 0]
        self._save([*self.rows, *(row for row, _ in self.made)], taken)

    def _save(self, rows: list[AddedDevice], taken: Sequence[str] = ()) -> None:
        before = self.container.state.get("taken") or []
        saving.state(
            self.container,
            rules=[changes.document(rule) for rule in self.after],
            devices=rows,
            taken=[path for path in (*before, *taken) if all(path != row["path"] for row in rows)],
        )

    # Nodes

    def _make(self, pid: int) -> None:
        if self.bound and self.made and not mounts.has_detached():
            release = posix.uname().release
            raise Error(f"{_ADD} in a user namespace needs Linux 5.12, this is {release}")
        made: list[int] = []
        try:
            for row, source in self.made:
                made.append(_detached(row, source) if self.bound else -1)
            rows = [row for row, _ in self.made]
            bounds = _bounds(self.config)
            owner = _owner_of(pid) if self.bound else (0, 0)
            said = sources.in_container(
                pid,
                self.container.pidfd,
                lambda proc: _in_root(rows, made, proc, bounds, owner),
            )
        finally:
            for fd in made:
                if fd >= 0:
                    files.close(fd)
        for row, text in zip(rows, said):
            row["own"] = text != "there"
            row["number"] = int(text) if str(text).isdigit() else 0
        own = [row for row in rows if row["own"]]
        self.undoing.append(lambda: self._take(own, pid))

    def _unmake(self, pid: int) -> None:
        self._take([row for row in self.gone if row["own"]], pid)

    def _take(self, rows: list[AddedDevice], pid: int) -> None:
        bounds = _bounds(self.config)
        sources.in_container(
            pid, self.container.pidfd, lambda proc: _out_of_root(rows, proc, bounds)
        )

    # Rules

    def _feel(self) -> None:
        """Ask the kernel, from within the cgroup, whether what was added is allowed now.

        On v2 each cgroup above has a program of its own, which nobody can read.  Raises Error for
        what they deny.
        """
        tried = [
            (source, rule)
            for source, rule in self.new
            if rule[0] and rule[1] in "cb" and None not in rule[2:4] and rule[4] & ~devices.MKNOD
        ]
        if not tried or self.manager.version != 2:
            return
        fds = _nodes([rule for _, rule in tried])
        try:
            denied = self._denied([rule for _, rule in tried], fds)
        finally:
            for fd in fds:
                files.close(fd)
        if denied is not None:
            source, rule = tried[denied]
            raise Error(
                f"{source}: {changes.name(rule)} stays denied",
                "a program of a cgroup above, or another one of the container's own, denies it",
            )

    def _denied(self, rules: list[Rule], fds: list[int]) -> int | None:
        """Return the first of these rules that is not in force for a process of the container."""
        if len(fds) < len(rules):
            return None
        read_end, write_end = descriptors.pipe()
        child = posix.fork()
        if child == 0:
            code = 0
            try:
                files.close(write_end)
                if files.read(read_end, 1):
                    for index, (fd, rule) in enumerate(zip(fds, rules)):
                        bits = (devices.READ, posix.R_OK), (devices.WRITE, posix.W_OK)
                        mode = sum(flag for bit, flag in bits if rule[4] & bit)
                        if not posix.access(f"/proc/self/fd/{fd}", mode):
                            code = min(index + 1, 100)
                            break
            finally:
                posix._exit(code)
        pidfd = processes.pidfd_open(child)
        try:
            files.close(read_end)
            try:
                self.manager.exec_join(child, self.container.state["pid"], [])
                files.write(write_end, b"x")
            except (Error, OSError) as error:
                log.debug(f"devices: {reason(error)}")
            files.close(write_end)
            if not processes.exited(pidfd, _PATIENCE):
                processes.kill(child, processes.SIGKILL)
            code = spawn.wait(child)
        finally:
            files.close(pidfd)
        return code - 1 if 0 < code <= 100 else None


def _wanted(row: AddedDevice) -> tuple[int, int]:
    """Return file type and number of a node, as `files.device` tells them of one that is there."""
    return _TYPES[row["type"]], files.makedev(row["major"], row["minor"])


def _rule(row: AddedDevice) -> Rule:
    """Return the rule that was added with a device."""
    keys = ("type", "major", "minor", "access")
    entry: Any = {"allow": True, **{key: row[key] for key in keys}}  # type: ignore[literal-required]
    return devices.parse([entry], "state.json: devices")[0]


def _parsed(text: str) -> tuple[str, str, str]:
    """Return source, place and access of PATH[:PATH][:rwm], as Docker takes it."""
    words = text.split(":")
    access = "rwm"
    if len(words) > 1 and not words[-1].startswith("/"):
        access = words.pop()
        if not access or any(access.count(c) > 1 or c not in "rwm" for c in access):
            raise Error(f"{_ADD} {text}: access must be made of r, w and m, got {access!a}")
    if len(words) > 2:
        raise Error(f"{_ADD} {text}: must be PATH[:PATH][:rwm]")
    for word in words:
        if not word.startswith("/"):
            raise Error(f"{_ADD} {text}: must be an absolute path, got {word!a}")
    place = normal(words[-1])
    if place == "/":
        raise Error(f"{_ADD} {text}: must be below the root")
    return words[0], place, access


def _bounds(config: Config) -> set[str]:
    """Return where config.json has bind mounts: what is there is the host's."""
    from ..model import mountoptions

    return {
        normal(mount["destination"])
        for mount in config.get("mounts") or []
        if mountoptions.is_bind(mount)
    }


def _detached(row: AddedDevice, source: str) -> int:
    """Return a mount of the host's node, read-only as at create: of its mode and times."""
    fd = files.open(source, files.O_PATH)
    try:
        found = files.fstat(fd)
        wanted = _wanted(row)
        if files.device(found) != wanted:
            raise Error(f"{_ADD}: {source} has become another device")
        mount_fd = mounts.open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
    finally:
        files.close(fd)
    mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, _NODE, propagation=MS_PRIVATE)
    return mount_fd


class _Places:
    """Where something may be made: in the root, or in a file system of the container's own.

    A file system that the host's processes see too is the host's, whatever way it came there.
    """

    __slots__ = ("host", "root", "table")

    def __init__(self, root: int, proc: int, bounds: set[str]) -> None:
        self.root = inodes.mount_id(root)
        files.fchdir(proc)
        theirs = files.read_file(f"{posix.getppid()}/mountinfo").split(b"\n")
        mine = files.read_file(f"{posix.getpid()}/mountinfo").split(b"\n")
        entries.chdir("/")
        self.host = {row.split(b" ", 3)[2] for row in theirs if row}
        self.table = {
            int(words[0]): words[2] not in self.host and files.decode(words[4]) not in bounds
            for words in (row.split(b" ", 5) for row in mine if row)
        }

    def check(self, fd: int) -> None:
        """Raise Error for a directory in which nothing may be made or removed."""
        number = inodes.mount_id(fd)
        if number != self.root and not self.table.get(number, False):
            raise Error("lies in a mount of the host's, where nothing is made")


def _in_root(
    rows: Sequence[AddedDevice],
    made: Sequence[int],
    proc: int,
    bounds: set[str],
    owner: tuple[int, int],
) -> list[str]:
    """Make the nodes; "made", "there", or the mount id of each.  All of them, or none."""
    root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    places = _Places(root, proc, bounds)
    files.umask(0)
    said: list[str] = []
    done: list[AddedDevice] = []
    try:
        for row, mount_fd in zip(rows, made):
            try:
                said.append(_one_by(owner, root, row, mount_fd, places))
            except OSError as error:
                why = strerror(error.errno or 0)
                raise Error(f"{_ADD} {row['path']}: {why}") from None
            except Error as error:
                raise Error(f"{_ADD} {row['path']}: {row['path']} {error.text}") from None
            if said[-1] != "there":
                number = int(said[-1]) if said[-1].isdigit() else 0
                row["number"] = number  # here, in the child
                done.append(row)
    except Error:
        _out_of_root(done, proc, bounds)
        raise
    return said


def _owner_of(pid: int) -> tuple[int, int]:
    """Return who root of a container is: proc_pid_uid_map(5)."""
    uid, gid = (
        next((outside for inside, outside, _ in processes.id_map(pid, kind) if not inside), 0)
        for kind in ("uid", "gid")
    )
    return uid, gid


def _one_by(
    owner: tuple[int, int], root: int, row: AddedDevice, mount_fd: int, places: _Places
) -> str:
    """Make one node, as root of the container where the host's cannot.

    In a file system of a user namespace nobody can make a file whom it does not map.
    """
    try:
        return _one(root, row, mount_fd, places)
    except OSError as error:
        if error.errno != EOVERFLOW or not any(owner):
            raise
    oneself.set_fs_ids(*owner)
    try:
        return _one(root, row, mount_fd, places)
    finally:
        oneself.set_fs_ids(0, 0)


def _one(root: int, row: AddedDevice, mount_fd: int, places: _Places) -> str:
    directory, name = inroot.parent(root, row["path"], may_make=places.check)
    wanted = _wanted(row)
    try:
        try:
            found = files.lstat(name, directory)
        except FileNotFoundError:
            pass
        else:
            if files.device(found) != wanted:
                raise Error("is there already and is not that device")
            return "there"
        places.check(directory)
        if mount_fd >= 0:
            return _bind(directory, name, mount_fd)
        if files.fstatvfs(directory).f_flag & _ST_NODEV:
            raise Error("lies in a mount with nodev, where no device can be opened")
        entries.mknod(name, wanted[0] | row["mode"], wanted[1], dir_fd=directory)
        entries.chown(name, row["uid"], row["gid"], dir_fd=directory, follow=False)
        return "made"
    finally:
        files.close(directory)


def _bind(directory: int, name: str, mount_fd: int) -> str:
    flags = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
    files.close(files.open(name, flags, 0o644, dir_fd=directory))
    target = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
    try:
        if files.kind(files.fstat(target)) != files.S_IFREG:
            raise Error("was exchanged meanwhile")
        mounts.move_mount(mount_fd, target)
    finally:
        files.close(target)
    return str(inodes.mount_id(mount_fd))


def _out_of_root(rows: Sequence[AddedDevice], proc: int, bounds: set[str]) -> list[str]:
    """Remove nodes that are still what was made; one that is not there any more is forgotten."""
    root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    places = _Places(root, proc, bounds)
    for row in rows:
        above, _, name = row["path"].rpartition("/")
        wanted = _wanted(row)
        try:
            directory = inroot.open(root, above or "/", files.O_PATH | files.O_DIRECTORY)
            fd = files.open(name, files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
            if files.device(files.fstat(fd)) != wanted:
                continue
            bound = inodes.mount_id(fd) != inodes.mount_id(directory)
            if bound and row["number"] in (inodes.mount_id(fd), -1):
                added.unmount(fd, proc)
            elif bound:
                raise Error("is covered by another mount")
            places.check(directory)
            found = files.lstat(name, directory)
            if files.device(found) == wanted or (
                bound and files.kind(found) == files.S_IFREG and not found.st_size
            ):
                files.unlink(name, directory)
        except OSError as error:
            if error.errno not in (ENOENT, ENOTDIR):
                why = strerror(error.errno or 0)
                raise Error(f"{_REMOVE} {row['path']}: {why}") from None
        except Error as error:
            raise Error(f"{_REMOVE} {row['path']}: {error.text}") from None
    return []


def _nodes(rules: Sequence[Rule]) -> list[int]:
    """Return nodes in a file system that nobody sees; fewer where that is not allowed."""
    fds: list[int] = []
    try:
        fs_fd = mounts.fsopen("tmpfs")
        mounts.fsconfig_create(fs_fd)
        directory = mounts.fsmount(fs_fd, 0)
        files.close(fs_fd)
        for index, (_, kind, major, minor, _access) in enumerate(rules):
            number = files.makedev(major or 0, minor or 0)
            entries.mknod(f"{index}", _TYPES[kind] | 0o666, number, dir_fd=directory)
            flags = files.O_PATH | files.O_NOFOLLOW
            fds.append(files.open(f"{index}", flags, dir_fd=directory))
        files.close(directory)
    except OSError as error:
        log.debug(f"devices: {reason(error)}")
    return fds
