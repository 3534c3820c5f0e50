"""Why a step failed: looked for after the failure, and told as its hint.

Side: host.  Cold: imported when something has failed, and by nothing else.  It looks and changes
nothing; a call that is tried gets arguments that the kernel must refuse, so that another answer
than the kernel's is a filter's.

A finder takes the failure and returns the cause, or "" where it does not know: what it says it has
seen.  Which finders a failure has stands in TABLE, by step (of inside/init.py, or what `_step`
calls the host's) and errno.  No cause has the words of an errno in it: engines look for them.

Sources: capabilities(7), user_namespaces(7), mount_namespaces(7), cgroups(7), seccomp(2), proc(5);
mount_too_revealing and its like in fs/namespace.c.
"""

from __future__ import annotations

from errno import (
    EACCES,
    EAGAIN,
    EBADF,
    EBUSY,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOSPC,
    ENOSYS,
    EOPNOTSUPP,
    EPERM,
    ERANGE,
    EROFS,
)

import posix

from .. import errors
from ..base import codes
from ..linux import descriptors, files, mounts, oneself, processes, tasks
from ..linux.capabilities import NAMES
from ..model import namespaces
from . import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, Final

    from .mountinfo import Mount
    from ..model.schema import Config, Mount as Entry, Process

    Finder = Callable[["Failure"], str]


def _search_for(pattern: str, text: str) -> re.Match[str] | None:
    import re

    return re.search(pattern, text)


class Failure:
    """What is known of a failure: its text, errno and step, and what was to be made."""

    __slots__ = ("config", "destination", "errno", "path", "rootfs", "step", "text")

    def __init__(self, text: str, number: int = 0) -> None:
        """Take the text, and the errno if it is not in there; the rest is in `errors.scene`."""
        self.text = text
        self.errno = codes.errno_of(text) or number
        self.path = codes.json_path(self.text)
        config: Config | None = errors.scene.get("config")
        self.config: Config = config or {}
        self.rootfs: str = errors.scene.get("rootfs") or ""
        self.step = errors.scene.get("step") or _step(self.text)
        entry = self.entry()
        self.destination: str = (entry or {}).get("destination") or ""

    def entry(self) -> Entry | None:
        """Return the entry of `mounts` that the failure is about."""
        found = _search_for(r"^mounts\[(\d+)\]", self.path)
        listed = self.config.get("mounts") or []
        return listed[int(found[1])] if found and int(found[1]) < len(listed) else None

    def namespaces(self) -> dict[str, str]:
        """Return the namespaces of the configuration: kind and path, empty for a new one."""
        return namespaces.of(self.config)

    def process(self) -> Process:
        """Return the process object: exec's, or the container's."""
        found: Process = errors.scene.get("process") or self.config.get("process") or {}
        return found

    def outside(self, number: int, kind: str = "uid") -> int:
        """Return what an id of the container is for the host; -1 where nothing maps it."""
        if self.namespaces().get("user") is None:
            return number
        mapped = namespaces.outside(
            namespaces.id_mappings(self.config.get("linux") or {}, kind), number
        )
        return -1 if mapped is None else mapped


def explain(text: str, hint: str, root: str, number: int = 0) -> str:
    """Return the hint of a failure: the cause if it is found, else the one that it has.

    `root` is the state directory, `number` the errno where the text does not end with its words.
    """
    errors.scene.update({"root": root, "searched": True})
    failure = Failure(text, number)
    try:
        hidden = _hidden(f"{text}; {hint}")
        if hidden:
            return f"{hint}; {hidden}" if hint else hidden
        return _completed(failure, hint) if hint else _search(failure)
    except (errors.Error, OSError, ValueError, LookupError):
        return hint


def _search(failure: Failure) -> str:
    for finder in TABLE.get((failure.step, failure.errno)) or TABLE.get(("", failure.errno), ()):
        try:
            found = finder(failure)
        except (errors.Error, OSError, ValueError, LookupError):
            continue  # what cannot be looked at is not known
        if found:
            return found
    return ""


def _step(text: str) -> str:
    """Name what the host's side was doing, by what its error speaks of."""
    for step, words in (
        ("clone", ("clone init", "clone3 into")),
        ("id_map", ("write uid_map", "write gid_map")),
        ("idmapped", ("id-mapped mount of",)),
        ("oom_score", ("process.oomScoreAdj",)),
        ("raise_limits", ("process.rlimits",)),
        ("exec", ('exec: "',)),
        ("cgroup", ("join cgroup", "/cgroup", "make cgroup")),
        ("setns", ("setns",)),
        ("loopback", ("network: lo:",)),
        ("unshare", ("linux.namespaces: network:",)),
        ("user_namespace", ("unshare user namespace",)),
    ):
        if any(word in text for word in words):
            return step
    return "state"


# rights ------------------------------------------------------------------------------------------


def _status(pid: int | str, name: str) -> str:
    for line in files.read_file(f"/proc/{pid}/status").split(b"\n"):
        key, _, value = line.partition(b":")
        if key == name.encode():
            return files.decode(value.strip())
    return ""


def _has(pid: int | str, field: str, name: str) -> bool:
    return bool(int(_status(pid, field) or "0", 16) >> NAMES.index(name) & 1)


def _mapped(failure: Failure) -> bool:
    """Tell whether init's rights are those in a user namespace of the container's."""
    return "user" in failure.namespaces()


def _not_root(failure: Failure) -> str:
    """Find a user who wants a container without a user namespace."""
    if posix.geteuid() == 0 or _mapped(failure) or not failure.config:
        return ""
    return (
        f"this is user {posix.geteuid()}, not root: rootless containers need a user namespace: "
        "anocir spec --rootless"
    )


def _capability(name: str, anywhere: bool = False) -> Finder:
    """Return a finder of one capability that the runtime itself has not.

    Init in a user namespace of its own has all of them there, so only what is asked of the host
    (`anywhere`) can lack it then.
    """

    def look(failure: Failure) -> str:
        if (_mapped(failure) and not anywhere) or _has("self", "CapEff", name):
            return ""
        need = ", which a container runtime needs" if name == "CAP_SYS_ADMIN" else ""
        who = "root" if posix.geteuid() == 0 else f"user {posix.geteuid()}"
        return f"this process is {who} without {name}{need}: {_where_lost(name)}"

    return look


def _where_lost(name: str) -> str:
    """Say which process of our line was the first without a capability that its parent has."""
    field = "CapEff" if _has("self", "CapBnd", name) else "CapBnd"
    kind = "bounding set" if field == "CapBnd" else "effective set"
    pid, lacks = posix.getpid(), []
    while pid > 0:
        try:
            if _has(pid, field, name):
                break
            lacks.append(pid)
            pid = int(_status(pid, "PPid") or "0")
        except OSError:
            break
    first = lacks[-1] if lacks else posix.getpid()
    told = f"process {first} ({_status(first, 'Name')})"
    if first == posix.getpid():
        told = "this process"
    if pid > 0:
        return f"the first without it in the {kind} is {told}"
    return f"no process from here up to {told} has it in the {kind}"


def _no_new_call(name: str) -> Callable[[], object]:
    nothing = "/proc/self/fd/-1/none"  # no path leads there
    return {
        "mount": lambda: mounts.mount("", nothing, "", 0),
        "umount2": lambda: mounts.umount2(nothing, 0),
        "pivot_root": lambda: mounts.pivot_root(nothing, nothing),
        "unshare": lambda: tasks.unshare(1),
        "setns": lambda: tasks.setns(-1, 0),
        "open_tree": lambda: mounts.open_tree(-2, "x", 0),
        "move_mount": lambda: mounts.move_mount(-2, -2),
        "mount_setattr": lambda: mounts.mount_setattr(-2, 0x1000),
        "set_mempolicy": lambda: oneself.set_mempolicy(99, 0),
        "ioprio_set": lambda: oneself.ioprio_set(1 << 20),
    }[name]


_KERNELS: Final = (EBADF, EINVAL, ENOENT)


def _filter(*calls: str) -> Finder:
    """Return a finder of a seccomp filter around the runtime that refuses one of these calls."""

    def look(failure: Failure) -> str:
        if _status("self", "Seccomp") != "2":
            return ""
        for name in calls:
            try:
                _no_new_call(name)()
            except OSError as error:
                if error.errno not in _KERNELS and error.errno in (failure.errno, EPERM, ENOSYS):
                    return (
                        f"a seccomp filter around the runtime itself refuses {name}(2): nested in "
                        "a container? It takes a profile that allows it"
                    )
        return ""

    return look


def _hidden(said: str) -> str:
    """Say what hides a call where the kernel's age is blamed, and the kernel is new enough."""
    needs = _search_for(r"needs Linux (\d+)\.(\d+)", said)
    if needs and _status("self", "Seccomp") == "2":
        release = [int(word) for word in posix.uname().release.split("-")[0].split(".")[:2]]
        if release >= [int(needs[1]), int(needs[2])]:
            return (
                "a seccomp filter around the runtime itself hides it from this kernel, which has "
                "it: nested in a container, or under an engine that is older than that?"
            )
    return ""


def _completed(failure: Failure, hint: str) -> str:
    """Give a better hint where the one of the place that failed could not know the cause."""
    if failure.path == "linux.resources.devices" and failure.errno == EPERM:
        return _ADMIN(failure) or hint
    if failure.errno in (EPERM, ENOSYS):
        step = {"memory_policy": "set_mempolicy", "io_priority": "ioprio_set"}.get(failure.step)
        if step:
            return _filter(step)(failure) or hint
    return hint


def _security_module(failure: Failure) -> str:
    """Find the denial of a security module in the kernel's log: it names what was denied."""
    del failure
    try:
        fd = files.open("/dev/kmsg", files.O_RDONLY | files.O_NONBLOCK)
    except OSError:
        return ""
    pids = {posix.getpid(), *errors.scene.get("pids", ())}
    last = ""
    try:
        while True:
            try:
                line = files.decode(files.read(fd, 8192))
            except BrokenPipeError:
                continue  # overwritten meanwhile
            last = denial(line, pids) or last
    except OSError:
        return last
    finally:
        files.close(fd)


def denial(line: str, pids: set[int]) -> str:
    """Return what a line of the kernel's log says was denied to one of these processes."""
    found = _search_for(r"\bpid=(\d+)\b", line)
    if not found or int(found[1]) not in pids:
        return ""
    if 'apparmor="DENIED"' in line:
        words = dict(pair.split("=", 1) for pair in line.replace('"', "").split() if "=" in pair)
        what = " ".join(words[key] for key in ("operation", "name") if words.get(key))
        return f"AppArmor's profile {words.get('profile', '?')} denies {what}"
    avc = _search_for(r"avc:\s+denied\s+\{ ([^}]*) \}.*\bscontext=(\S+) tcontext=(\S+)", line)
    return f"SELinux denies {avc[1].strip()} to {avc[2]} on {avc[3]}" if avc else ""


# paths and mounts --------------------------------------------------------------------------------


def _holder(path: str) -> Mount | None:
    """Return the mount that a path of the host lies on: the last one of the longest mount point."""
    best = None
    for mount in mountinfo.of("self").values():
        point = mount.point.rstrip("/")
        fits = path == point or path.startswith(point + "/")
        if fits and (best is None or len(point) >= len(best.point.rstrip("/"))):
            best = mount
    return best


def _covering(failure: Failure, path: str) -> tuple[int, Entry] | None:
    """Return the last entry of `mounts` below which a path of the container lies, and its index."""
    best = None
    for index, entry in enumerate(failure.config.get("mounts") or []):
        point = entry["destination"].rstrip("/")
        if entry is failure.entry():
            break  # what comes after it is not mounted yet
        if not (path + "/").startswith(point + "/"):
            continue
        if best is None or len(point) >= len(best[1]["destination"].rstrip("/")):
            best = index, entry
    return best


def _wanted(failure: Failure) -> str:
    """Return the path in the container that a step was about."""
    if failure.destination:
        return failure.destination
    found = _search_for(r"^linux\.(devices|maskedPaths|readonlyPaths)\[(\d+)\]", failure.path)
    if found:
        linux: Mapping[str, Any] = failure.config.get("linux") or {}
        one = (linux.get(found[1]) or [])[int(found[2])]
        return str(one["path"] if isinstance(one, dict) else one)
    if failure.step in ("make_cwd", "chdir"):
        return str(failure.process().get("cwd") or "")
    return "/dev/ptmx" if failure.step == "device_links" else ""


def _read_only(failure: Failure) -> str:
    """Find the read-only mount that a mount point, a device or a directory would be made in."""
    wanted = _wanted(failure)
    covering = _covering(failure, wanted) if wanted else None
    if covering:
        index, entry = covering
        options = entry.get("options") or []
        source = entry.get("source") or ""
        if "ro" in options or "rro" in options:
            why = "is read-only"
        elif source.startswith("/") and _is_read_only(_holder(source)):
            why = f"shows {source}, which is mounted read-only"
        else:
            return ""
        return f"mounts[{index}] on {entry['destination']} {why}, and has no {wanted} yet"
    holder = _holder(failure.rootfs) if failure.rootfs else None
    if holder is not None and wanted and _is_read_only(holder):
        return (
            f"the root file system lies on {holder.point}, which is mounted read-only, and has no "
            f"{wanted}: make it there"
        )
    return ""


def _locked_below(failure: Failure) -> str:
    """Find what is mounted below the source of a bind in a user namespace, which locks it."""
    entry = failure.entry() or {}
    source = (entry.get("source") or "").rstrip("/") + "/"
    if not (_mapped(failure) or processes.in_user_namespace()) or source[:1] != "/":
        return ""
    if "rbind" in (entry.get("options") or []):
        return ""
    for mount in mountinfo.of("self").values():
        if mount.point.startswith(source):
            return (
                f"{mount.point} is mounted below it, and a user namespace may not show what that "
                "covers: rbind takes both"
            )
    return ""


def _unbindable(failure: Failure) -> str:
    """Find the unbindable mount of config.json that would have to be bound."""
    covering = _covering(failure, _wanted(failure))
    if covering is None:
        return ""
    index, over = covering
    words = over.get("options") or []
    if "unbindable" not in words and "runbindable" not in words:
        return ""
    return f"mounts[{index}] on {over['destination']} is unbindable, and would have to be bound"


def _no_node(failure: Failure) -> str:
    """Find that the host has no node that a user namespace could bind."""
    path = _wanted(failure)
    if not path or files.exists(path) or not (_mapped(failure) or processes.in_user_namespace()):
        return ""
    return f"in a user namespace a device is bound from the host, which has no {path}"


def _is_read_only(mount: Mount | None) -> bool:
    return mount is not None and ("ro" in mount.options or "ro" in mount.whole)


def _full(path: str) -> str:
    """Say of which resource the file system of a path has nothing left."""
    while not files.exists(path):
        path = path.rpartition("/")[0] or "/"
    found = posix.statvfs(path)
    holder = _holder(path)
    where = holder.point if holder else path
    if found.f_blocks and not found.f_bavail:
        return f"the file system on {where} is full"
    if found.f_files and not found.f_favail:
        return f"the file system on {where} has no inode left of {found.f_files}"
    return ""


def _state_full(_: Failure) -> str:
    return _full(errors.scene["root"])


def _root_full(failure: Failure) -> str:
    return _full(failure.rootfs) if failure.rootfs else ""


def _state_read_only(_: Failure) -> str:
    path: str = errors.scene["root"]
    while not files.exists(path):
        path = path.rpartition("/")[0] or "/"
    holder = _holder(path)
    if holder is not None and _is_read_only(holder):
        return f"{holder.point} is mounted read-only: --root names another place for the state"
    return ""


def _no_runtime_directory(_: Failure) -> str:
    root: str = errors.scene["root"]
    if root.startswith("/run/anocir") and posix.geteuid() != 0:
        return (
            "XDG_RUNTIME_DIR, below which a user's containers have their state, is not set: set it "
            "to a directory of your own, or name one by --root"
        )
    return ""


def _too_many_mounts(_: Failure) -> str:
    """Find the limit of mounts in a mount namespace reached, or nearly: init has some more."""
    limit = int(files.read_file("/proc/sys/fs/mount-max"))
    count = len(mountinfo.of("self"))
    if count * 2 < limit:
        return ""
    return f"there are {count} mounts here, and fs.mount-max allows {limit} in a namespace"


def _no_rule(failure: Failure) -> str:
    """Find that the file system lies on a block device, which the device rules have to allow."""
    source = (failure.entry() or {}).get("source") or ""
    if not source.startswith("/") or _mapped(failure):
        return ""
    try:
        found = files.stat(source)
    except OSError:
        return ""
    if files.kind(found) != files.S_IFBLK:
        return ""
    number = f"b {posix.major(found.st_rdev)}:{posix.minor(found.st_rdev)}"
    return f"linux.resources.devices has to allow {number}: r, and w unless the mount is ro"


# Directories of procfs and sysfs that are always empty, so that a mount on them hides nothing.
_HOLLOW: Final = (
    "/sys/fs/binfmt_misc", "/fs/nfsd", "/fs/cgroup", "/kernel/debug", "/kernel/security",
    "/kernel/tracing", "/kernel/config", "/fs/pstore", "/fs/bpf", "/fs/fuse/connections",
    "/firmware/efi/efivars", "/fs/selinux", "/fs/smackfs",
)  # fmt: skip
_NO_MORE: Final = (
    "the kernel lets a user namespace show no more than there is (mount_too_revealing)"
)
_SHOWS: Final = {"sysfs": ("network", "/sys"), "proc": ("pid", "/proc"), "mqueue": ("ipc", "")}


def _revealing(failure: Failure) -> str:
    """Find why a user namespace may not mount a procfs, sysfs or mqueue of its own."""
    kind = (failure.entry() or {}).get("type") or ""
    if kind not in _SHOWS or not (_mapped(failure) or processes.in_user_namespace()):
        return ""
    owner, point = _SHOWS[kind]
    instead = f"; else bind {point or '/dev/mqueue'}"
    if failure.namespaces().get(owner) != "":
        a = "an" if owner == "ipc" else "a"
        own = "of the container's own user namespace"
        return f"it takes {a} {owner} namespace {own}{instead}"
    if not point:
        return ""
    all_of_them = mountinfo.of("self")
    covered: list[str] = []
    for mount in all_of_them.values():
        if mount.kind == kind and mount.root == "/":
            below = [
                other.point
                for other in all_of_them.values()
                if other.parent == mount.id
                and not other.point[len(mount.point.rstrip("/")) :].endswith(_HOLLOW)
            ]
            if not below and "ro" not in mount.options:
                return ""
            covered += below
    if not covered:
        return f"no whole {kind} is mounted here for writing, and {_NO_MORE}{instead}"
    more = f" and {len(covered) - 1} others" if len(covered) > 1 else ""
    return f"the {kind} here is covered on {covered[0]}{more}, and {_NO_MORE}{instead}"


def _unmapped_option(failure: Failure) -> str:
    """Find the owner among the options of a file system who is nobody in the user namespace."""
    for word in (failure.entry() or {}).get("options") or []:
        kind, _, value = word.partition("=")
        if kind not in ("uid", "gid") or not value.isdigit():
            continue
        own = failure.namespaces().get("user")
        if own == "" and failure.outside(int(value), kind) < 0:
            return f"its option {word}: linux.{kind}Mappings map no {kind} {value}"
        if own is None and not _has_id(kind, int(value)):
            return f"its option {word}: the user namespace of the caller has no {kind} {value}"
    return ""


def _has_id(kind: str, number: int) -> bool:
    """Tell whether an id is somebody here: user_namespaces(7), uid_map and gid_map."""
    rows = (line.split() for line in _text(f"/proc/self/{kind}_map").splitlines())
    return any(int(row[0]) <= number < int(row[0]) + int(row[2]) for row in rows)


def _kernels_words(failure: Failure) -> str:
    """Have the kernel say what it dislikes about the options of a file system."""
    entry = failure.entry()
    kind = (entry or {}).get("type") or ""
    if not entry or kind in ("", "bind", "cgroup", "cgroup2"):
        return ""
    from ..model import mountoptions

    parsed = mountoptions.parse(entry.get("options") or [])
    fd = mounts.fsopen(kind)
    try:
        try:
            if kind != "tmpfs":
                mounts.fsconfig_string(fd, "source", entry.get("source") or kind)
            mounts.fsconfig_options(fd, parsed["data"])
            if kind == "overlay":
                mounts.fsconfig_create(fd)
        except OSError:
            return kernels_words(fd)
    finally:
        files.close(fd)
    return ""


def kernels_words(fs_fd: int) -> str:
    """Return what the kernel has written down on a descriptor of fsopen(2), as a hint; else ""."""
    try:
        told = files.decode(files.read(fs_fd, 1024)).strip()
    except OSError:
        return ""
    return f"the kernel says: {told[2:]}" if told[1:2] == " " else ""


def _no_such_type(failure: Failure) -> str:
    kind = (failure.entry() or {}).get("type") or ""
    known = files.decode(files.read_file("/proc/filesystems")).split()
    if not kind or kind in known:
        return ""
    return f"this kernel has no file system {kind}: /proc/filesystems lists those that it has"


def _initramfs(failure: Failure) -> str:
    holder = _holder(failure.rootfs)
    if holder is not None and holder.kind in ("rootfs", "ramfs") and holder.point == "/":
        return "a root on the initramfs needs --no-pivot"
    return ""


def _foreign_fuse(failure: Failure) -> str:
    """Find a FUSE file system that lets nobody in but the user who mounted it."""
    source = str((failure.entry() or {}).get("source") or "") or failure.rootfs
    holder = _holder(source)
    if holder is None or not holder.kind.startswith("fuse") or "allow_other" in holder.whole:
        return ""
    owner = [word[8:] for word in holder.whole if word.startswith("user_id=")]
    if not owner or int(owner[0]) == posix.geteuid():
        return ""
    return (
        f"{holder.point} is a FUSE file system of user {owner[0]}, who alone may enter it: mount "
        "it with allow_other"
    )


# who may go where --------------------------------------------------------------------------------


_MANY: Final = 10000  # files are looked at
_NOBODY: Final = 65534  # what stands for an id that the user namespace has not


def _may_enter(found: posix.stat_result, uid: int, gids: Sequence[int]) -> bool:
    if found.st_uid == uid:
        return bool(found.st_mode & 0o100)
    return bool(found.st_mode & (0o010 if found.st_gid in gids else 0o001))


def _has_list(path: str) -> bool:
    try:
        posix.getxattr(path, "system.posix_acl_access")
    except OSError:
        return False
    return True


def _barred(start: str, path: str, uid: int, gids: Sequence[int]) -> str:
    """Return the first directory of a path that does not let a user pass; "" if all do.

    Raises ValueError where that cannot be told: a link, or an access control list.
    """
    here = start
    for part in ["", *(part for part in path.split("/") if part)]:
        here = f"{here.rstrip('/')}/{part}" if part else here or "/"
        found = files.lstat(here)
        kind = files.kind(found)
        if kind == files.S_IFLNK or _has_list(here):
            raise ValueError(here)
        if kind == files.S_IFDIR and not _may_enter(found, uid, gids):
            return here
    return ""


def _mode(path: str) -> str:
    found = files.lstat(path)
    return f"mode {found.st_mode & 0o7777:04o}, of {found.st_uid}:{found.st_gid}"


def _unmapped_owner(failure: Failure) -> str:
    """Find the directory on the way that lets the container's root not pass, as no owner of it."""
    if not _mapped(failure):
        return ""
    uid, gid = failure.outside(0), failure.outside(0, "gid")
    entry = failure.entry() or {}
    source = str(entry.get("source") or "")
    target = source if source.startswith("/") and failure.step == "bind" else failure.rootfs
    barred = _barred("", target, uid, [gid])
    if not barred:
        return ""
    return (
        f"{barred} ({_mode(barred)}) does not let user {uid} pass, who is root in the container's "
        "user namespace: its owner is not mapped there"
    )


def _is_mapped(failure: Failure, number: int, kind: str) -> bool:
    """Tell whether an id of the host is somebody where init is: user_namespaces(7)."""
    if not _mapped(failure):
        return number != _NOBODY or not processes.in_user_namespace()
    listed = namespaces.id_mappings(failure.config.get("linux") or {}, kind)
    return any(row["hostID"] <= number < row["hostID"] + row["size"] for row in listed)


def _root_may(failure: Failure, found: posix.stat_result, bits: int) -> bool:
    """Tell whether the container's root has these of r, w, x (4, 2, 1) on what it may not own."""
    if _is_mapped(failure, found.st_uid, "uid") and _is_mapped(failure, found.st_gid, "gid"):
        return True  # CAP_DAC_OVERRIDE counts there
    shift = 0
    if found.st_uid == failure.outside(0):
        shift = 6
    elif found.st_gid == failure.outside(0, "gid"):
        shift = 3
    return found.st_mode >> shift & bits == bits


def _start(failure: Failure, wanted: str) -> tuple[str, str]:
    """Return where a path of the container begins on the host, and what of it is below that."""
    covering = _covering(failure, wanted)
    if covering is None:
        return failure.rootfs, wanted
    entry = covering[1]
    words = entry.get("options") or []
    source = entry.get("source") or ""
    bound = entry.get("type") == "bind" or "bind" in words or "rbind" in words
    mapped = entry.get("uidMappings") or any("idmap" in word for word in words)
    if not bound or mapped or not source.startswith("/"):
        raise ValueError(source)
    return source, wanted[len(entry["destination"].rstrip("/")) :]


def _unmapped_place(failure: Failure) -> str:
    """Find the directory in the root that bars the container's root, as no owner of it.

    From passing on the way to what a step was about, or from making what is missing of it.
    """
    wanted = _wanted(failure)
    if not wanted or not (_mapped(failure) or processes.in_user_namespace()):
        return ""
    start, rest = _start(failure, wanted)
    here = start
    parts = rest.split("/")[::-1]
    links = 0
    while parts and links < 40:
        name = parts.pop()
        if name in ("", "."):
            continue
        found = files.lstat(here)
        if files.kind(found) != files.S_IFDIR or _has_list(here):
            return ""
        if not _root_may(failure, found, 1):
            return _bars(failure, here, "pass")
        if name == "..":
            here = here if here == start else here.rpartition("/")[0]
            continue
        try:
            below = files.lstat(f"{here}/{name}")
        except FileNotFoundError:
            may = _root_may(failure, found, 3)
            return "" if may else _bars(failure, here, f"make {name} there")
        if files.kind(below) != files.S_IFLNK:
            here += f"/{name}"
            continue
        links += 1
        text = posix.readlink(f"{here}/{name}")
        if text.startswith("/"):
            here = failure.rootfs
        parts += text.split("/")[::-1]
    return _uncopied(failure, here) if "tmpcopyup" in _options(failure) else ""


def _options(failure: Failure) -> list[str]:
    return (failure.entry() or {}).get("options") or []


def _uncopied(failure: Failure, top: str) -> str:
    """Find what below a directory the container's root may not read, to copy it up."""
    left = [top]
    for _ in range(_MANY):
        if not left:
            break
        here = left.pop()
        found = files.lstat(here)
        kind = files.kind(found)
        if kind == files.S_IFDIR:
            if not _root_may(failure, found, 5):
                return _bars(failure, here, "read it")
            left += [f"{here}/{name}" for name in files.listdir(here)]
        elif kind == files.S_IFREG and not _root_may(failure, found, 4):
            return _bars(failure, here, "read it")
    return ""


def _bars(failure: Failure, directory: str, what: str) -> str:
    whose = "the container's" if _mapped(failure) else "this"
    return (
        f"{directory} ({_mode(directory)}) does not let user {failure.outside(0)} {what}, who is "
        f"root in {whose} user namespace: its owner or group is not mapped there"
    )


def _ids(failure: Failure) -> tuple[int, list[int]]:
    user = failure.process().get("user") or {}
    groups = [user.get("gid", 0), *(user.get("additionalGids") or [])]
    return failure.outside(user.get("uid", 0)), [failure.outside(gid, "gid") for gid in groups]


def _cwd(failure: Failure) -> str:
    """Find the directory of the image that the user may not enter on the way to the cwd."""
    path = str(failure.process().get("cwd") or "/")
    if _covering(failure, path):
        return ""
    uid, gids = _ids(failure)
    barred = _barred(failure.rootfs, path, uid, gids)
    if not barred:
        return ""
    inner = barred[len(failure.rootfs) :] or "/"
    return f"{inner} ({_mode(barred)}) does not let user {uid} of the host's counting enter"


def _program(failure: Failure) -> str:
    """Find what keeps a program that is there from being executed."""
    name = str((failure.process().get("args") or [""])[0])
    candidates = [name]
    if "/" not in name:
        paths = [e[5:] for e in failure.process().get("env") or [] if e.startswith("PATH=")]
        candidates = [f"{one}/{name}" for one in (paths or [""])[-1].split(":") if one[:1] == "/"]
    elif name[:1] != "/":
        candidates = [f"{(failure.process().get('cwd') or '/').rstrip('/')}/{name}"]
    for path in candidates:
        covering = _covering(failure, path)
        if covering is None:
            if files.exists(failure.rootfs + path):
                return _not_executable(failure, path)
            barred = _no_pass(failure, path)
            if barred:
                return barred
        if covering and "noexec" in (covering[1].get("options") or []):
            index, entry = covering
            return f"mounts[{index}] on {entry['destination']} is noexec, and {path} lies there"
    return ""


def _no_pass(failure: Failure, path: str) -> str:
    """Find the directory of the image that does not let the user pass on the way to a program."""
    uid, gids = _ids(failure)
    directory = path.rpartition("/")[0]
    try:
        barred = _barred(failure.rootfs, directory, uid, gids) if uid else ""
    except FileNotFoundError:
        return ""
    if not barred:
        return ""
    inner = barred[len(failure.rootfs) :] or "/"
    return f"{inner} ({_mode(barred)}) does not let user {uid} of the host's counting pass"


def _not_executable(failure: Failure, path: str) -> str:
    here = failure.rootfs + path
    uid, gids = _ids(failure)
    barred = _no_pass(failure, path)
    if barred:
        return barred
    found = files.stat(here)
    if not found.st_mode & 0o111 or (uid and not _may_enter(found, uid, gids)):
        return f"{path} ({_mode(here)}) may not be executed by user {uid} of the host's counting"
    holder = _holder(here)
    if holder is not None and "noexec" in holder.options:
        return f"the root file system lies on {holder.point}, which is mounted noexec"
    return ""


# namespaces --------------------------------------------------------------------------------------

_KINDS: Final = {
    "user": "user", "pid": "pid", "network": "net", "mount": "mnt", "ipc": "ipc", "uts": "uts",
    "cgroup": "cgroup", "time": "time",
}  # fmt: skip


def _namespace_limit(failure: Failure) -> str:
    """Find a limit of namespaces that is reached: by those that can be seen, at the least."""
    for kind, path in failure.namespaces().items():
        if path or kind not in _KINDS:
            continue
        name = f"user.max_{_KINDS[kind]}_namespaces"
        try:
            limit = int(files.read_file(f"/proc/sys/{name.replace('.', '/')}"))
        except OSError:
            continue
        if limit == 0:
            return f"{name} is 0: no {kind} namespace can be made here"
        if limit <= _seen(_KINDS[kind]):
            return f"{name} is {limit}, and so many {kind} namespaces are in use"
    return ""


def _seen(name: str) -> int:
    found = set()
    for pid in files.listdir("/proc"):
        try:
            found.add(pid.isdigit() and files.stat(f"/proc/{pid}/ns/{name}").st_ino)
        except OSError:
            continue
    return len(found - {False}) - 1


def _userns_forbidden(_: Failure) -> str:
    for name, wanted in (
        ("kernel.unprivileged_userns_clone", 1),
        ("kernel.apparmor_restrict_unprivileged_userns", 0),
    ):
        try:
            value = int(files.read_file(f"/proc/sys/{name.replace('.', '/')}"))
        except (OSError, ValueError):
            continue
        if value != wanted and posix.geteuid() != 0:
            return f"{name} is {value}: only root may make user namespaces here"
    return ""


_NS_GET_USERNS: Final = 0xB701


def _foreign_namespace(failure: Failure) -> str:
    """Find a namespace given by path that belongs to a user namespace above this process's."""
    own = files.stat("/proc/self/ns/user").st_ino
    for kind, path in failure.namespaces().items():
        if not path:
            continue
        fd = files.open(path, files.O_RDONLY)
        try:
            owner = int(descriptors.ioctl(fd, _NS_GET_USERNS))
        except PermissionError:
            owner = -1
        finally:
            files.close(fd)
        theirs = -1
        if owner >= 0:
            theirs = files.fstat(owner).st_ino
            files.close(owner)
        if theirs != own and (owner < 0 or not _has("self", "CapEff", "CAP_SYS_ADMIN")):
            return (
                f"the {kind} namespace {path} belongs to a user namespace in which this process "
                "has no rights"
            )
    return ""


def _id_map(failure: Failure) -> str:
    """Find ids of the host that this process's own user namespace does not have."""
    kind = "gid" if "gid_map" in failure.text else "uid"
    rows = [
        [int(word) for word in line.split()]
        for line in files.read_file(f"/proc/self/{kind}_map").splitlines()
    ]
    for index, entry in enumerate(namespaces.id_mappings(failure.config.get("linux") or {}, kind)):
        first, last = entry["hostID"], entry["hostID"] + entry["size"] - 1
        if not any(row[0] <= first and last < row[0] + row[2] for row in rows):
            have = ", ".join(f"{row[0]}-{row[0] + row[2] - 1}" for row in rows)
            return (
                f"linux.{kind}Mappings[{index}] wants {first}-{last} of the user namespace that "
                f"the runtime is in, which has {have}"
            )
    return ""


def _setgroups_denied(failure: Failure) -> str:
    if "setgroups" not in failure.text:
        return ""
    denied = files.read_file("/proc/self/setgroups").strip() == b"deny"
    single = posix.geteuid() != 0 and len(
        (failure.config.get("linux") or {}).get("gidMappings") or []
    ) == 1 and failure.config["linux"]["gidMappings"][0]["size"] == 1  # fmt: skip
    if not denied and not single:
        return ""
    return (
        "setgroups(2) is denied in a user namespace whose one group a user has mapped without "
        "newgidmap: leave process.user.additionalGids out, or map ranges of /etc/subgid"
    )


# cgroups and limits ------------------------------------------------------------------------------


def _cgroup_directory(failure: Failure) -> str:
    found = _search_for(
        r"(/\S*cgroup\S*?)(/(cgroup\.procs|tasks|cpuset\.\w+))?:", failure.text + ":"
    )
    return found[1] if found else ""


def _text(path: str) -> str:
    try:
        return files.decode(files.read_file(path)).strip()
    except OSError:
        return ""


def _takes_no_process(failure: Failure) -> str:
    directory = _cgroup_directory(failure)
    kind = _text(f"{directory}/cgroup.type")
    if kind in ("domain invalid", "threaded"):
        return f"the cgroup {directory} is of type {kind!r}: it takes threads and no processes"
    passed = _text(f"{directory}/cgroup.subtree_control")
    if passed:
        return (
            f"the cgroup {directory} gives controllers to its children ({passed}), and then it "
            "takes no process itself"
        )
    for name in ("cpus", "mems"):
        file = f"{directory}/cpuset.{name}"
        if files.exists(f"{directory}/tasks") and files.exists(file) and not _text(file):
            return f"{file} is empty: such a cgroup takes no process"
    return ""


def _parents_share(failure: Failure) -> str:
    """Name the processors or nodes that the parent cgroup has to give."""
    found = _search_for(
        r"write '?\"?([^'\"]*)'?\"? to (\S+)/(cpuset\.(?:cpus|mems)):", failure.text
    )
    if not found:
        return ""
    parent = found[2].rpartition("/")[0]
    have = _text(f"{parent}/{found[3]}.effective") or _text(f"{parent}/{found[3]}")
    have = have or _text(f"{parent}/cpuset.effective_{found[3][7:]}")
    return f"the parent cgroup {parent} has {have}" if have else ""


def _too_many_cgroups(failure: Failure) -> str:
    directory = _cgroup_directory(failure)
    depth = 0
    while directory.count("/") > 1:
        directory = directory.rpartition("/")[0]
        depth += 1
        stat = _text(f"{directory}/cgroup.stat")
        below = _search_for(r"nr_descendants (\d+)", stat)
        most = _text(f"{directory}/cgroup.max.descendants")
        if below and most.isdigit() and int(below[1]) >= int(most):
            return f"{directory}/cgroup.max.descendants is {most}, and as many are there"
        levels = _text(f"{directory}/cgroup.max.depth")
        if levels.isdigit() and depth > int(levels):
            return f"{directory}/cgroup.max.depth is {levels}"
    return ""


def _not_delegated(failure: Failure) -> str:
    directory = _cgroup_directory(failure)
    while directory and not files.exists(directory):
        directory = directory.rpartition("/")[0]
    if not directory or posix.geteuid() == 0:
        return ""
    owner = files.stat(directory).st_uid
    if owner == posix.geteuid():
        return ""
    return (
        f"the cgroup {directory} belongs to user {owner} and is not delegated to {posix.geteuid()}"
    )


def _processes(_: Failure) -> str:
    """Find the limit of processes that is used up: of the container's cgroup, or of one above."""
    for first in _pids_directories():
        directory = first
        while directory.count("/") > 1:
            most, now = _text(f"{directory}/pids.max"), _text(f"{directory}/pids.current")
            if most.isdigit() and now.isdigit() and int(now) >= int(most):
                return f"{directory}/pids.max is {most}, and {now} processes are there"
            hit = _search_for(r"max (\d+)", _text(f"{directory}/pids.events"))
            if most.isdigit() and hit and int(hit[1]):
                return f"{directory}/pids.max is {most}, which has been reached"
            directory = directory.rpartition("/")[0]
    return ""


def _pids_directories() -> list[str]:
    from ..cgroup import hierarchy

    record = errors.scene.get("cgroup") or {}
    v1, v2 = hierarchy.own()
    own = [f"{point}{path}" for point, names, path in v1 if "pids" in names.split(",")]
    if v2 is not None:
        own.append(f"{v2[0]}{v2[2]}")
    rows = own + [
        f"{point}{path}"
        for point, names, path, _ in record.get("hierarchies") or []
        if "pids" in names.split(",") or not names
    ]
    if record.get("manager") == "v2":
        rows.append(f"{record['mountpoint']}{record['path']}")
    return rows


def _user_processes(failure: Failure) -> str:
    for limit in failure.process().get("rlimits") or []:
        if limit["type"] == "RLIMIT_NPROC":
            uid = _ids(failure)[0]
            return (
                f"process.rlimits allows user {uid} {limit['soft']} processes (RLIMIT_NPROC), and "
                f"{_owned(uid)} of that user are on this host"
            )
    return ""


def _owned(uid: int) -> int:
    count = 0
    for pid in files.listdir("/proc"):
        try:
            count += pid.isdigit() and files.stat(f"/proc/{pid}").st_uid == uid
        except OSError:
            continue
    return count


def _processors(_failure: Failure) -> str:
    return f"here are processors {_status('self', 'Cpus_allowed_list')} to run on"


def _apparmor_profile(failure: Failure) -> str:
    profile = failure.process().get("apparmorProfile") or ""
    if not profile:
        return ""
    loaded = files.decode(files.read_file("/sys/kernel/security/apparmor/profiles"))
    if any(line.rpartition(" (")[0] == profile for line in loaded.split("\n")):
        return ""
    return f"the AppArmor profile {profile} is not loaded: apparmor_parser -r FILE loads one"


_ADMIN = _capability("CAP_SYS_ADMIN")
_MOUNTING: Final = (
    _not_root, _ADMIN, _filter("mount", "open_tree", "move_mount", "mount_setattr"),
)  # fmt: skip
_MAKING: Final = (_not_root, _ADMIN, _filter("unshare", "setns"), _security_module)

# What may be the cause of a failure, the surest first.
TABLE: Final[dict[tuple[str, int], tuple[Finder, ...]]] = {
    ("unshare", EPERM): _MAKING,
    ("unshare", ENOSPC): (_namespace_limit,),
    ("unshare", ENOSYS): (_filter("unshare"),),
    ("new_user_namespace", EPERM): (_userns_forbidden, _filter("unshare"), _security_module),
    ("new_user_namespace", ENOSPC): (_namespace_limit,),
    ("new_user_namespace", EACCES): (_security_module,),
    ("join_all", EPERM): (_foreign_namespace, _ADMIN, _filter("setns")),
    ("join_pids", EPERM): (_foreign_namespace, _ADMIN, _filter("setns")),
    ("setns", EPERM): (_foreign_namespace, _ADMIN, _filter("setns")),
    ("propagation", EPERM): _MOUNTING,
    ("propagation", EACCES): (*_MOUNTING, _security_module),
    ("root", EPERM): _MOUNTING,
    ("root", EACCES): (_unmapped_owner, _foreign_fuse, _security_module),
    ("root", ENOSPC): (_too_many_mounts,),
    ("source", EACCES): (_foreign_fuse, _security_module),
    ("bind", EPERM): _MOUNTING,
    ("bind", EACCES): (_unmapped_owner, _unmapped_place, _foreign_fuse, _security_module),
    ("bind", EROFS): (_read_only,),
    ("bind", EINVAL): (_locked_below,),
    ("bind", ENOSPC): (_root_full, _too_many_mounts),
    ("filesystem", EPERM): (_revealing, *_MOUNTING, _no_rule),
    ("filesystem", EACCES): (_unmapped_owner, _unmapped_place, _security_module),
    ("filesystem", EINVAL): (_unmapped_option, _kernels_words),
    ("filesystem", ENOENT): (_kernels_words,),
    ("filesystem", ENODEV): (_no_such_type,),
    ("filesystem", EROFS): (_read_only,),
    ("filesystem", ENOSPC): (_root_full, _too_many_mounts),
    ("cgroup_mount", EROFS): (_read_only,),
    ("cgroup_mount", EACCES): (_unmapped_owner, _unmapped_place, _security_module),
    ("cgroup_mount", EPERM): _MOUNTING,
    ("device", EROFS): (_read_only,),
    ("device", EPERM): (_capability("CAP_MKNOD"),),
    ("device", ENOENT): (_no_node,),
    ("device", EACCES): (_unmapped_owner, _unmapped_place),
    ("device_links", EROFS): (_read_only,),
    ("device_links", EACCES): (_unmapped_owner, _unmapped_place),
    ("remount", EACCES): (_unmapped_place, _security_module),
    ("masked_path", EPERM): _MOUNTING,
    ("masked_path", EACCES): (_unmapped_place, _security_module),
    ("readonly_path", EPERM): _MOUNTING,
    ("readonly_path", EINVAL): (_unbindable,),
    ("readonly_path", EACCES): (_unmapped_place, _security_module),
    ("make_cwd", EROFS): (_read_only,),
    ("make_cwd", EACCES): (_unmapped_owner, _cwd, _unmapped_place),
    ("pivot_root", EINVAL): (_initramfs,),
    ("pivot_root", EPERM): (_ADMIN, _filter("pivot_root"), _security_module),
    ("move_root", EPERM): _MOUNTING,
    ("chroot", EPERM): (_capability("CAP_SYS_CHROOT"),),
    ("loopback", EPERM): (_capability("CAP_NET_ADMIN"),),
    ("user", EPERM): (_setgroups_denied, _capability("CAP_SETGID"), _capability("CAP_SETUID")),
    ("drop_bounding", EPERM): (_capability("CAP_SETPCAP"),),
    ("rlimits", EPERM): (_capability("CAP_SYS_RESOURCE", anywhere=True),),
    ("raise_limits", EPERM): (_capability("CAP_SYS_RESOURCE", anywhere=True),),
    ("oom_score", EACCES): (_capability("CAP_SYS_RESOURCE", anywhere=True),),
    ("time_offsets", EPERM): (_capability("CAP_SYS_TIME"),),
    ("affinity", EINVAL): (_processors,),
    ("chdir", EACCES): (_cwd, _security_module),
    ("exec", EACCES): (_program, _security_module),
    ("exec", EAGAIN): (_user_processes,),
    ("label", ENOENT): (_apparmor_profile,),
    ("id_map", EPERM): (_id_map,),
    ("clone", EAGAIN): (_processes,),
    ("cgroup", EACCES): (_parents_share, _not_delegated, _security_module),
    ("cgroup", EPERM): (_not_delegated, _security_module),
    ("cgroup", EINVAL): (_parents_share,),
    ("cgroup", ERANGE): (_parents_share,),
    ("cgroup", EAGAIN): (_too_many_cgroups,),
    ("cgroup", EBUSY): (_takes_no_process,),
    ("cgroup", EOPNOTSUPP): (_takes_no_process,),
    ("cgroup", ENOSPC): (_takes_no_process,),
    ("state", EACCES): (_no_runtime_directory,),
    ("state", EAGAIN): (_processes,),
    ("state", ENOSPC): (_state_full,),
    ("state", EROFS): (_state_read_only,),
    ("", EPERM): (_not_root, _security_module),
}
# The program is looked for by init, and executed by it.
for _name in ("command", "no_process"):
    TABLE[_name, EACCES] = TABLE["exec", EACCES]
