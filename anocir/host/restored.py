"""What a restored container may do, held against config.json, before it runs on.

Side: host.  Cold.  CRIU gives a process the credentials and namespaces that the images say
(CVE-2026-18107: a container can have others written there than it has).  All processes are stopped
here; whatever is more than config.json allows ends the container.
"""

from __future__ import annotations

from ..base import inroot, normal
from ..errors import Error
from ..linux import capabilities, files, processes
from ..linux.errnos import ELOOP, ENOENT, ENOTDIR
from ..model import distrust, execution, mountoptions, namespaces
from . import mountinfo

TYPE_CHECKING = False
if TYPE_CHECKING:
    import posix
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final
    from ..model.schema import Config, Mount
    from .mountinfo import Mount as Place

# SCHED_OTHER, SCHED_BATCH, SCHED_IDLE
_HARMLESS: Final = (0, 3, 5)
_UNLIMITED: Final = (1 << 64) - 1
_CGROUPS: Final = ("cgroup", "cgroup2")
# MOUNT_ATTR_*, as MS_* and ST_* are.
_RESTRICTING: Final = ((1, "ro"), (2, "nosuid"), (4, "nodev"), (8, "noexec"))
_SETS: Final = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def check(
    config: Config, pids: Sequence[int], init: int, joined: Mapping[str, int], root: tuple[int, int]
) -> None:
    """Raise Error when a process, or one thread of it, has more than config.json gives.

    `joined` is the inode of each namespace that config.json names by path, `root` the device and
    inode of the container's root.
    """
    _namespaces(config, init, joined)
    found = files.stat(f"/proc/{init}/root")
    if "mount" in namespaces.of(config) and (found.st_dev, found.st_ino) != root:
        raise Error(f"restored process {init} has another root than root.path")
    for pid in {init, *pids}:
        for directory in _tasks(pid):
            try:
                status = _status(directory)
            except (FileNotFoundError, ProcessLookupError):
                continue  # a zombie that init has reaped
            _credentials(config, pid, status)
            _scheduling(config, pid, directory)
        _limits(config, pid)


def _tasks(pid: int) -> list[str]:
    """Return the directory in /proc of each thread: each has credentials and cgroups of its own."""
    try:
        return [f"/proc/{pid}/task/{name}" for name in files.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


def family(init: int) -> set[int]:
    """Return init and all its descendants, in whatever cgroup they are."""
    below: dict[int, list[int]] = {}
    for name in files.listdir("/proc"):
        if name.isdigit():
            try:
                below.setdefault(processes.stat(int(name))[2], []).append(int(name))
            except OSError:
                continue  # it has ended
    found: set[int] = set()
    left = [init]
    while left:
        pid = left.pop()
        if pid not in found:
            found.add(pid)
            left += below.get(pid, [])
    return found


def check_cgroups(pids: Iterable[int], roots: Mapping[str, str]) -> None:
    """Raise Error unless each thread is in the container's cgroups or below.

    `roots` are their paths by controllers, as cgroups(7) has them in /proc/PID/cgroup.
    """
    for pid in pids:
        for directory in _tasks(pid):
            try:
                found = cgroups(directory)
            except (FileNotFoundError, ProcessLookupError):
                continue
            for controllers, path in found.items():
                root = roots.get(controllers, "/")
                if not f"{path}/".startswith(f"{root.rstrip('/')}/"):
                    raise Error(f"restored process {pid} is in the cgroup {path!a} of another")


def cgroups(directory: str) -> dict[str, str]:
    """Return the paths in the file `cgroup` of a directory in /proc, by controllers."""
    found = {}
    for line in files.read_file(f"{directory}/cgroup").decode("utf-8", "replace").split("\n"):
        _, _, rest = line.partition(":")
        controllers, colon, path = rest.partition(":")
        if colon:
            found[controllers] = path
    return found


def check_mounts(init: int, mounted: Mapping[str, tuple[tuple[int, int], int]]) -> None:
    """Raise Error unless at each place lies what was handed over, with its flags or stricter."""
    root_fd = files.open(f"/proc/{init}/root", files.O_PATH | files.O_DIRECTORY)
    try:
        for point, (wanted, flags) in mounted.items():
            fd = inroot.open(root_fd, point, follow_links=False)
            try:
                found = files.fstat(fd)
                lost = flags & ~files.fstatvfs(fd).f_flag
            finally:
                files.close(fd)
            if (found.st_dev, found.st_ino) != wanted or lost:
                raise Error(f"the restored container has another mount at {point!a}")
    finally:
        files.close(root_fd)


def check_rules(config: Config, pids: Iterable[int], init: int, mounted: Sequence[str]) -> None:
    """Raise Error unless the mounts that CRIU has made itself are those of config.json.

    With their flags, the masks and the read-only paths, no other mount, and no other namespace than
    that of init; `mounted` are the places of what was handed over.  Who has CAP_SYS_ADMIN may have
    changed all that.
    """
    if namespaces.of(config).get("mount") != "" or "CAP_SYS_ADMIN" in distrust.bounding_set(config):
        return
    for name in namespaces.FILES.values():
        _same_namespace(name, pids, init)
    table = mountinfo.of(init)
    root_fd = files.open(f"/proc/{init}/root", files.O_PATH | files.O_DIRECTORY)
    try:
        known = {"/", *mounted, *_known(config, root_fd, table)}
    finally:
        files.close(root_fd)
    host = {one.device for one in mountinfo.of("self").values()}
    for one in table.values():
        came = one.kind not in ("proc", "sysfs") and one.device in host  # with a source
        if came and any(one.point.startswith(f"{place}/") for place in mounted):
            continue
        if one.point not in known:
            raise Error(
                f"--image-path: the images mount {one.kind} at {one.point!a}, where config.json "
                "has no mount"
            )


def _same_namespace(name: str, pids: Iterable[int], init: int) -> None:
    for pid in pids:
        try:
            same = files.stat(f"/proc/{pid}/ns/{name}") == files.stat(f"/proc/{init}/ns/{name}")
        except OSError:
            continue  # not in this kernel, or a zombie
        if not same:
            raise Error(f"restored process {pid} has a {name} namespace of its own")


def _known(config: Config, root_fd: int, table: Mapping[int, Place]) -> set[str]:
    """Check what config.json mounts itself; return the places of it all."""
    listed = config.get("mounts") or []
    last = {normal(mount["destination"]): index for index, mount in enumerate(listed)}
    known = set()
    for place, index in last.items():
        mount = listed[index]
        if not mountoptions.is_bind(mount) and "remount" not in (mount.get("options") or []):
            known |= _file_system(root_fd, table, f"mounts[{index}]", place, mount)
    linux = config.get("linux") or {}
    for key, check in (("readonlyPaths", _read_only), ("maskedPaths", _masked)):
        paths: list[str] = linux.get(key) or []  # type: ignore[assignment]
        for index, path in enumerate(paths):
            try:
                one, found = _at(root_fd, table, path)
            except OSError as error:
                if error.errno not in (ENOENT, ENOTDIR, ELOOP):
                    raise
                continue
            check(f"linux.{key}[{index}]", one, found)
            known.add(one.point)
    if (config.get("process") or {}).get("terminal"):
        known.add(_at(root_fd, table, "/dev/console")[0].point)
    return known


def _at(root_fd: int, table: Mapping[int, Place], path: str) -> tuple[Place, posix.stat_result]:
    """Return the mount that a path of the container lies on, and what is there."""
    fd = inroot.open(root_fd, normal(path))
    try:
        one = table.get(mountinfo.id_of(fd))
        if one is None:
            raise Error(f"the restored container has an unknown mount at {path!a}")
        return one, files.fstat(fd)
    finally:
        files.close(fd)


def _file_system(
    root_fd: int, table: Mapping[int, Place], where: str, place: str, mount: Mount
) -> set[str]:
    """Check a file system that config.json has; return the places that come with it."""
    kind, words = mount.get("type") or "", mount.get("options") or []
    kinds = (*_CGROUPS, "tmpfs") if kind in _CGROUPS else (kind,)
    try:
        one = _at(root_fd, table, place)[0]
    except OSError:
        one = None
    if one is None or one.kind not in kinds or one.point == "/":
        # A later mount may hide it.
        one = next((row for row in table.values() if row.point == place), None)
        if one is None or one.kind not in kinds:
            raise Error(f"{where}: the restored container has no {kind} at {place}")
    rows = [one]
    if kind in _CGROUPS:
        rows += [row for row in table.values() if row.kind in _CGROUPS and _below(row, one)]
    wanted = mountoptions.parse(words)["set"]
    for row in rows:
        if kind in _CGROUPS and row.kind not in _CGROUPS:
            continue  # only directories and links are there, which runc leaves writable
        has = {*row.options, *(word for word in row.whole if word == "ro")}
        lacks = [word for bit, word in _RESTRICTING if wanted & bit and word not in has]
        if lacks:
            raise Error(f"{where}: restored at {row.point!a} without {', '.join(lacks)}")
    if "subset=pid" in words and "subset=pid" not in one.whole:
        raise Error(f"{where}: restored without subset=pid")
    return {row.point for row in rows}


def _below(one: Place, other: Place) -> bool:
    return one.point.startswith(f"{other.point.rstrip('/')}/")


def _read_only(where: str, one: Place, found: posix.stat_result) -> None:
    del found
    if "ro" not in (*one.options, *one.whole):
        raise Error(f"{where}: restored writable")


def _masked(where: str, one: Place, found: posix.stat_result) -> None:
    if files.kind(found) == files.S_IFDIR:
        hidden = one.kind == "tmpfs" and "ro" in (*one.options, *one.whole)
    else:
        hidden = files.device(found) == files.NULL_DEVICE
    if not hidden:
        raise Error(f"{where}: restored without the mask")


def _namespaces(config: Config, init: int, joined: Mapping[str, int]) -> None:
    spaces = namespaces.of(config)
    for kind, name in namespaces.FILES.items():
        if kind == "time":
            continue  # CRIU makes one, so that clocks go on
        try:
            inode = files.stat(f"/proc/{init}/ns/{name}").st_ino
            ours = files.stat(f"/proc/self/ns/{name}").st_ino
        except FileNotFoundError:
            continue  # not in this kernel
        if spaces.get(kind):
            right = inode == joined[kind]
        else:
            right = (inode == ours) == (kind not in spaces)
        if not right:
            raise Error(f"linux.namespaces: the restored process has another {kind} namespace")
    if spaces.get("user") == "":
        for name in ("uid", "gid"):
            _maps(config, init, name)


def _maps(config: Config, init: int, name: str) -> None:
    listed = namespaces.id_mappings(config.get("linux") or {}, name)
    wanted = sorted((m["containerID"], m["hostID"], m["size"]) for m in listed)
    lines = files.read_file(f"/proc/{init}/{name}_map").split(b"\n")
    found = sorted(tuple(int(word) for word in line.split()) for line in lines if line)
    if found != wanted:
        raise Error(f"linux.{name}Mappings: the restored user namespace has others")


def _status(directory: str) -> dict[str, list[str]]:
    """Return proc_pid_status(5): name to words."""
    found = {}
    for line in files.read_file(f"{directory}/status").decode("utf-8", "replace").split("\n"):
        name, _, value = line.partition(":")
        found[name] = value.split()
    return found


def _credentials(config: Config, pid: int, status: Mapping[str, Sequence[str]]) -> None:
    if status["State"][0] in "ZX":
        return
    _groups(config, pid, status)
    process = config.get("process") or {}
    bounding = 0
    for name in distrust.bounding_set(config):
        bounding |= 1 << capabilities.NAMES.index(name)
    for name in _SETS:
        more = int(status[name][0], 16) & ~bounding
        if more:
            words = [n for i, n in enumerate(capabilities.NAMES) if more >> i & 1]
            raise Error(
                f"process.capabilities: restored process {pid} has {', '.join(words) or hex(more)} "
                f"in {name}"
            )
    if process.get("noNewPrivileges") and status["NoNewPrivs"][0] != "1":
        raise Error(f"process.noNewPrivileges: restored process {pid} has it not")
    if (config.get("linux") or {}).get("seccomp") and status["Seccomp"][0] != "2":
        raise Error(f"linux.seccomp: restored process {pid} has no filter")
    _user(config, pid, status, bounding)


def _scheduling(config: Config, pid: int, directory: str) -> None:
    """Check what nobody raises without CAP_SYS_NICE, or a limit for it: nice value and policy."""
    process = config.get("process") or {}
    kinds = {limit["type"] for limit in process.get("rlimits") or []}
    if "CAP_SYS_NICE" in distrust.bounding_set(config) or kinds & {"RLIMIT_NICE", "RLIMIT_RTPRIO"}:
        return
    wanted = process.get("scheduler") or {}
    (nice, policy), own = _nice(directory), _nice("/proc/self")
    if nice < min(0, own[0], wanted.get("nice", 0)):
        raise Error(f"process.scheduler: restored process {pid} has the nice value {nice}")
    if policy not in (*_HARMLESS, own[1]) and not wanted:
        raise Error(f"process.scheduler: restored process {pid} has the policy {policy}")


def _nice(directory: str) -> tuple[int, int]:
    """Return nice value and policy from proc_pid_stat(5)."""
    words = files.read_file(f"{directory}/stat").rpartition(b")")[2].split()
    return int(words[16]), int(words[38])


def _limits(config: Config, pid: int) -> None:
    """Check what nobody raises without CAP_SYS_RESOURCE: hard limits, the OOM killer's score."""
    if "CAP_SYS_RESOURCE" in distrust.bounding_set(config):
        return
    process = config.get("process") or {}
    try:
        rows = files.read_file(f"/proc/{pid}/limits").decode().split("\n")[1:]
        score = int(files.read_file(f"/proc/{pid}/oom_score_adj"))
    except (FileNotFoundError, ProcessLookupError):
        return
    for index, limit in enumerate(process.get("rlimits") or []):
        # In the order of their numbers; the columns have a width.
        hard = rows[execution.RLIMITS.index(limit["type"])][47:67].strip()
        if limit["hard"] < (int(hard) if hard.isdigit() else _UNLIMITED):
            text = f"restored process {pid} has {hard} as its hard limit"
            raise Error(f"process.rlimits[{index}]: {text}")
    own = int(files.read_file("/proc/self/oom_score_adj"))
    if score < min(0, own, process.get("oomScoreAdj", 0)):
        raise Error(f"process.oomScoreAdj: restored process {pid} has {score}")


def _user(config: Config, pid: int, status: Mapping[str, Sequence[str]], bounding: int) -> None:
    """Check the user where nothing can have changed it: no setuid program, no CAP_SETUID."""
    process = config.get("process") or {}
    user = process.get("user") or {}
    setuid = 1 << capabilities.NAMES.index("CAP_SETUID")
    if not process.get("noNewPrivileges") or bounding & setuid:
        return
    wanted = outside(config, "uid", user.get("uid", 0))
    if any(int(word) != wanted for word in status["Uid"]):
        raise Error(f"process.user: restored process {pid} has the ids {' '.join(status['Uid'])}")


def _groups(config: Config, pid: int, status: Mapping[str, Sequence[str]]) -> None:
    """Check the groups where nothing can have changed them: no CAP_SETGID, no setgid program."""
    process = config.get("process") or {}
    if "CAP_SETGID" in distrust.bounding_set(config) or not process.get("noNewPrivileges"):
        return
    if execution.keeps_groups(config.get("annotations") or {}):
        return
    user = process.get("user") or {}
    gid = outside(config, "gid", user.get("gid", 0))
    more = {outside(config, "gid", number) for number in user.get("additionalGids") or []}
    has = {int(word) for word in status["Gid"]}, {int(word) for word in status["Groups"]}
    if has[0] != {gid} or has[1] - more - {gid}:
        words = " ".join([*status["Gid"], *status["Groups"]])
        raise Error(f"process.user: restored process {pid} has the groups {words}")


def outside(config: Config, name: str, number: int) -> int:
    """Return what an id of the container is on the host."""
    mapped = namespaces.outside(namespaces.id_mappings(config.get("linux") or {}, name), number)
    return number if mapped is None else mapped
