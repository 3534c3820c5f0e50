"""What a restored container may do, held against config.json, before it runs on.

Side: host.  Cold.  CRIU gives a process the credentials and namespaces that the images say
(CVE-2026-18107: a container can have others written there than it has).  All processes are stopped
here; whatever is more than config.json allows ends the container.
"""

from __future__ import annotations

from ..base import inroot
from ..errors import Error
from ..linux import capabilities, files, processes
from ..model import execution, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Final
    from ..model.schema import Config

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
    listed = process.get("capabilities")
    for name in (listed or {}).get("bounding") or []:
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
    bounding = (process.get("capabilities") or {}).get("bounding") or []
    if "CAP_SETGID" in bounding or not process.get("noNewPrivileges"):
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
