"""What this host gives and lacks: what `anocir check` asks.

Side: host.  Cold.  It looks and probes, and changes nothing: a probed system call gets arguments
that it must refuse, so that only "there is no such call" tells something.  Without root privileges
it says what a rootless container will have.

Each finding is one thing: its state (ok, limited, missing), what was found, what it costs, what to
do.  Only what anocir cannot do without is "missing".
"""

from __future__ import annotations

import posix

from ..errors import Error, reason, strerror
from ..linux import entries, files, inodes, mounts, oneself, tasks
from ..linux.capabilities import NAMES
from ..linux.const import AT_EMPTY_PATH, AT_FDCWD, CLONE_NEWUSER, MOUNT_ATTR_IDMAP, OPEN_TREE_CLONE
from ..linux.errnos import EINVAL, ENOSYS, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..cli import Settings
    from ..model.schema import Config, Mount, Resources

OK, LIMITED, MISSING = "ok", "limited", "missing"

# Call, the kernel that brought it, a way to ask for it in vain, what is done without.
_CALLS: Final[tuple[tuple[str, str, Callable[[], object], str], ...]] = (
    ("openat2", "5.6", lambda: inodes.openat2(-2, "x", 0, 0), "paths are walked by hand"),
    ("open_tree", "5.2", lambda: mounts.open_tree(-2, "x", 0), "mounts are made by mount(2)"),
    ("move_mount", "5.2", lambda: mounts.move_mount(-2, -2), "mounts are made by mount(2)"),
    ("mount_setattr", "5.12", lambda: mounts.mount_setattr(-2, AT_EMPTY_PATH),
     "no recursive mount attributes (rro) and no id-mapped mounts"),
    ("close_range", "5.9", lambda: oneself.close_range(3, 2), "descriptors are closed one by one"),
    ("pidfd_open", "5.3", lambda: posix.close(posix.pidfd_open(posix.getpid(), 0)),
     "processes are known by pid and start time"),
)  # fmt: skip
_OLDEST: Final = (4, 18)
# What create needs to make a container with namespaces of all kinds as root.
_NEEDED: Final = ("CAP_SYS_ADMIN", "CAP_SETPCAP", "CAP_SETUID", "CAP_SETGID")
_USEFUL: Final = {
    "CAP_SYS_RESOURCE": "hard limits above the caller's and a lower oomScoreAdj are refused",
    "CAP_NET_ADMIN": "the loopback of a new network namespace stays down, no netDevices",
    "CAP_MKNOD": "device nodes are bound from the host instead of made",
    "CAP_SYS_CHROOT": "no container without a mount namespace, and none with --no-pivot",
    "CAP_CHOWN": "files cannot be given to the container's user",
    "CAP_DAC_OVERRIDE": "root file systems of other users cannot be changed",
    "CAP_SYS_PTRACE": "a process in another user namespace cannot be entered",
    "CAP_BPF": "",
}
_NAMESPACES: Final = {
    "cgroup": "4.6", "ipc": "2.6.19", "mnt": "2.4.19", "net": "2.6.24", "pid": "2.6.24",
    "time": "5.6", "user": "3.8", "uts": "2.6.19",
}  # fmt: skip


class Finding:
    """One thing: `name`, `state`, `text` (what was found), `costs`, `remedy`, `path` (JSON)."""

    __slots__ = ("costs", "name", "path", "remedy", "state", "text")

    def __init__(
        self, name: str, state: str, text: str, costs: str = "", remedy: str = "", path: str = ""
    ) -> None:
        """Take what was found in one line, what that costs, and what to do about it."""
        self.name = name
        self.state = state
        self.text = text
        self.costs = costs
        self.remedy = remedy
        self.path = path

    def row(self) -> dict[str, str]:
        """Return it for a JSON document, without what is empty."""
        return {key: getattr(self, key) for key in self.__slots__ if getattr(self, key)}


def survey(settings: Settings) -> list[Finding]:
    """Return what this host gives, a finding for each thing."""
    found: list[Finding] = []
    for look in (
        _kernel, _calls, _capabilities, _filter, _namespaces, _user_namespaces, _id_maps,
        _cgroups, _systemd, _seccomp, _security_modules, _interpreter, _state_directory, _criu,
    ):  # fmt: skip
        try:
            found += look(settings)
        except (Error, OSError) as error:
            found.append(Finding(look.__name__[1:], LIMITED, f"cannot be told: {reason(error)}"))
    return found


def _release() -> tuple[int, int]:
    numbers = posix.uname().release.split(".")
    digits = [
        "".join(c for c in part[: len(part) - len(part.lstrip("0123456789"))]) for part in numbers
    ]
    return int(digits[0] or 0), int(digits[1] or 0) if len(digits) > 1 else 0


def _kernel(_: Settings) -> list[Finding]:
    system = posix.uname()
    text = f"Linux {system.release}, {system.machine}"
    if _release() < _OLDEST:
        wanted = ".".join(str(number) for number in _OLDEST)
        return [Finding("kernel", MISSING, text, f"anocir needs Linux {wanted}", "a newer kernel")]
    return [Finding("kernel", OK, text)]


def _calls(_: Settings) -> list[Finding]:
    found = []
    # Without the right to mount some of them say EPERM before they look at their arguments.
    admin = int(_status("CapEff") or "0", 16) >> NAMES.index("CAP_SYS_ADMIN") & 1
    filtered = bool(admin) and _status("Seccomp") == "2"
    for name, since, ask, costs in _CALLS:
        try:
            ask()
        except OSError as error:
            if error.errno == ENOSYS:
                newer = _release() >= tuple(int(number) for number in since.split("."))
                why = (
                    "a seccomp filter around this process hides it"
                    if newer
                    else f"it came with Linux {since}"
                )
                found.append(Finding(name, LIMITED, f"no such system call: {why}", costs))
            elif error.errno == EPERM and filtered:
                text = "answers EPERM: a seccomp filter around this process refuses it"
                found.append(Finding(name, LIMITED, text, costs))
        except AttributeError:
            continue  # Python does not offer it; nor do we use it then
    if not found:
        found.append(Finding("system calls", OK, "all that anocir uses are there"))
    return found


def _status(name: str) -> str:
    for line in files.read_file("/proc/self/status").split(b"\n"):
        key, _, value = line.partition(b":")
        if key == name.encode():
            return files.decode(value.strip())
    return ""


def _capabilities(_: Settings) -> list[Finding]:
    effective = int(_status("CapEff") or "0", 16)
    lacking = [name for index, name in enumerate(NAMES) if not effective >> index & 1]
    if posix.geteuid() != 0:
        return [
            Finding("capabilities", LIMITED, f"user {posix.geteuid()}, not root",
                    "containers need a user namespace: anocir spec --rootless")
        ]  # fmt: skip
    bounding = int(_status("CapBnd") or "0", 16)
    found = []
    for name in _NEEDED:
        if name in lacking:
            gone = not bounding >> NAMES.index(name) & 1
            where = "the bounding set of this process lacks it" if gone else "dropped by the caller"
            found.append(
                Finding(name, MISSING, where, "no container can be made",
                        "start anocir with it (for a nested container: --cap-add)")
            )  # fmt: skip
    for name, costs in _USEFUL.items():
        if name in lacking and costs:
            found.append(Finding(name, LIMITED, "not in this process's effective set", costs))
    return found or [Finding("capabilities", OK, "root with all capabilities that anocir uses")]


def _filter(_: Settings) -> list[Finding]:
    if _status("Seccomp") == "2":
        return [
            Finding("filter", LIMITED, "this process runs under a seccomp filter (nested?)",
                    "calls that it refuses look like missing rights")
        ]  # fmt: skip
    return []


def _number(path: str) -> int | None:
    try:
        return int(files.read_file(path))
    except (OSError, ValueError):
        return None


def _namespaces(_: Settings) -> list[Finding]:
    lacking = [name for name in _NAMESPACES if not files.exists(f"/proc/self/ns/{name}")]
    found = [
        Finding(f"{name} namespaces", LIMITED, "not in this kernel",
                f"they need Linux {_NAMESPACES[name]} and a kernel built with them")
        for name in lacking
    ]  # fmt: skip
    limits = ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts")
    for name in limits:
        if _number(f"/proc/sys/user/max_{name}_namespaces") == 0:
            found.append(
                Finding(f"{name} namespaces", LIMITED, f"user.max_{name}_namespaces is 0",
                        "none can be made", f"sysctl user.max_{name}_namespaces=10000")
            )  # fmt: skip
    return found or [Finding("namespaces", OK, "all eight kinds")]


def _user_namespaces(_: Settings) -> list[Finding]:
    found = []
    for name, wanted, remedy in (
        ("kernel/unprivileged_userns_clone", 1, "sysctl kernel.unprivileged_userns_clone=1"),
        ("kernel/apparmor_restrict_unprivileged_userns", 0,
         "an AppArmor profile for anocir with `userns,`, or "
         "sysctl kernel.apparmor_restrict_unprivileged_userns=0"),
    ):  # fmt: skip
        value = _number(f"/proc/sys/{name}")
        if value is not None and value != wanted:
            found.append(
                Finding("unprivileged user namespaces", LIMITED,
                        f"{name.replace('/', '.')} is {value}", "no rootless containers", remedy)
            )  # fmt: skip
    if not found and files.exists("/proc/self/ns/user"):
        try:
            pid = tasks.clone(CLONE_NEWUSER)
        except OSError as error:
            text = f"making one: {strerror(error.errno or 0)}"
            return [Finding("user namespaces", LIMITED, text, "no userns-remap, no rootless")]
        if pid == 0:
            posix._exit(0)
        posix.waitpid(pid, 0)
        found.append(Finding("user namespaces", OK, "can be made"))
    return found


def _id_maps(_: Settings) -> list[Finding]:
    if posix.geteuid() == 0:
        return []
    found = []
    for helper in ("newuidmap", "newgidmap"):
        if not _program(helper):
            found.append(
                Finding(helper, LIMITED, "not in PATH", "only one id can be mapped",
                        "install the package uidmap")
            )  # fmt: skip
    name = _user_name()
    for path in ("/etc/subuid", "/etc/subgid"):
        try:
            lines = files.decode(files.read_file(path)).split("\n")
        except OSError:
            lines = []
        if not any(line.split(":")[0] in (name, str(posix.geteuid())) for line in lines if line):
            found.append(
                Finding(path, LIMITED, f"has no line for {name or posix.geteuid()}",
                        "only one id can be mapped", f"usermod --add-sub{path[-3:]}s 100000-165535")
            )  # fmt: skip
    return found or [Finding("id maps", OK, "newuidmap, newgidmap and ranges of ids are there")]


def _user_name() -> str:
    from . import facts

    return facts.owner()


def _program(name: str) -> str:
    searched = files.decode(posix.environ.get(b"PATH") or b"/usr/local/bin:/usr/bin:/bin")
    for directory in [*searched.split(":"), "/usr/sbin", "/sbin"]:
        path = f"{directory}/{name}"
        if directory and posix.access(path, posix.X_OK):
            return path
    return ""


def _cgroups(_: Settings) -> list[Finding]:
    from ..cgroup import hierarchy

    v1, v2 = hierarchy.own()
    if not v1 and v2 is None:
        return [
            Finding("cgroups", LIMITED, "no cgroup file system is mounted",
                    "no limits, no pause, no ps",
                    "mount -t cgroup2 cgroup2 /sys/fs/cgroup, or --cgroup-manager disabled")
        ]  # fmt: skip
    found = []
    controllers: set[str] = set()
    for _mountpoint, names, _path in v1:
        controllers.update(names.split(","))
    layout = "version 1"
    if v2 is not None:
        layout = "version 2" if not v1 else "version 1 with a version 2 beside it (hybrid)"
        own = f"{v2[0]}{v2[2]}"
        try:
            controllers.update(files.decode(files.read_file(f"{own}/cgroup.controllers")).split())
        except OSError as error:
            found.append(Finding("cgroups", LIMITED, reason(error)))
    text = f"{layout}; controllers here: {' '.join(sorted(controllers)) or 'none'}"
    found.append(Finding("cgroups", OK, text))
    lacking = [name for name in ("memory", "pids", "cpu") if name not in controllers]
    if lacking:
        remedy = "run in a delegated cgroup (systemd: Delegate=yes), or with --systemd-cgroup"
        found.append(
            Finding("controllers", LIMITED, f"not delegated to this cgroup: {' '.join(lacking)}",
                    "limits of these are refused", remedy)
        )  # fmt: skip
    writable = [
        f"{mountpoint}{path}"
        for mountpoint, _, path in [*v1, *([v2] if v2 else [])]
        if posix.access(f"{mountpoint}{path}", posix.W_OK)
    ]
    if not writable:
        found.append(
            Finding("cgroups", LIMITED, "none of this process's cgroups can be written",
                    "containers stay in the caller's cgroup, limits are refused",
                    "a user with a systemd of its own: --systemd-cgroup; nested: mount "
                    "/sys/fs/cgroup rw, or --cgroup-manager disabled")
        )  # fmt: skip
    devices = any("devices" in names.split(",") for _, names, _ in v1)
    if not devices and v2 is None:
        found.append(
            Finding("device rules", LIMITED, "no devices hierarchy and no version 2",
                    "containers with device rules are refused")
        )  # fmt: skip
    return found


def _systemd(_: Settings) -> list[Finding]:
    if not files.exists("/run/systemd/system"):
        return [Finding("systemd", OK, "not the init of this host: use the cgroupfs manager")]
    try:
        from ..cgroup import bus

        del bus  # importing it opens the library
    except (Error, OSError) as error:
        return [
            Finding("systemd", LIMITED, reason(error), "--systemd-cgroup cannot be used",
                    "install the package libsystemd0")
        ]  # fmt: skip
    address = "/run/dbus/system_bus_socket"
    if posix.geteuid() != 0:
        address = f"/run/user/{posix.geteuid()}/bus"
    if not files.exists(address) and not files.exists("/run/systemd/private"):
        return [
            Finding("systemd", LIMITED, f"no bus at {address}", "--systemd-cgroup cannot be used",
                    "install the packages dbus and dbus-user-session, log in anew")
        ]  # fmt: skip
    return [Finding("systemd", OK, "--systemd-cgroup can be used")]


def _seccomp(_: Settings) -> list[Finding]:
    from .. import seccomp

    found = []
    version = seccomp.library_version()
    if not version:
        found.append(
            Finding("libseccomp", LIMITED, "libseccomp.so.2 cannot be loaded",
                    "containers with linux.seccomp are refused", "install the package libseccomp2")
        )  # fmt: skip
    elif tuple(int(number) for number in version.split(".")[:2]) < (2, 5):
        found.append(
            Finding("libseccomp", LIMITED, f"version {version}", "no SCMP_ACT_NOTIFY",
                    "libseccomp 2.5 has it")
        )  # fmt: skip
    else:
        found.append(Finding("libseccomp", OK, f"version {version}"))
    if not files.exists("/proc/sys/kernel/seccomp/actions_avail"):
        found.append(
            Finding("seccomp", LIMITED, "this kernel has no filters",
                    "containers with linux.seccomp are refused")
        )  # fmt: skip
    return found


def _security_modules(_: Settings) -> list[Finding]:
    from . import program

    found = []
    for name, key in (("apparmor", "process.apparmorProfile"), ("selinux", "process.selinuxLabel")):
        text = "enabled" if program.lsm(name) else f"not enabled: {key} is passed over"
        found.append(Finding(name, OK, text))
    return found


def _interpreter(settings: Settings) -> list[Finding]:
    from . import boot

    path = entries.readlink("/proc/self/exe")
    found = []
    ways = {
        boot.seal_overlay: "a read-only overlay",
        boot.seal_mount: "a detached read-only mount",
        boot.seal_memory: "a sealed copy in memory (6 MB more for each container that is made)",
    }
    for way, text in ways.items():
        try:
            fd, _name = way(path)
        except OSError:
            continue
        files.close(fd)
        found.append(Finding("interpreter", OK, f"{path}, protected by {text}"))
        break
    else:
        found.append(
            Finding("interpreter", MISSING, f"{path} cannot be protected from containers",
                    "no container is made")
        )  # fmt: skip
    return [*found, *_compiled(settings.import_path)]


def _compiled(import_path: str) -> list[Finding]:
    """Tell whether the archive has compiled modules for this Python."""
    import sys

    path, inside, _ = import_path.rpartition("/site-packages")
    if not inside:
        return []
    from ..base import archive

    fd = files.open(path, files.O_RDONLY)
    try:
        versions = archive.versions(files.read(fd, archive.HEAD))
    finally:
        files.close(fd)
    number = f"Python {sys.version_info[0]}.{sys.version_info[1]}"
    if sys.modules["_frozen_importlib_external"].MAGIC_NUMBER in versions:
        return [Finding("archive", OK, f"has compiled modules for {number}")]
    return [
        Finding("archive", LIMITED, f"has no compiled modules for {number}",
                "each call takes longer", "anocir repack")
    ]  # fmt: skip


def _state_directory(settings: Settings) -> list[Finding]:
    root = settings.root
    probe = root
    while probe and not files.exists(probe):
        probe = probe.rpartition("/")[0]
    if not posix.access(probe or "/", posix.W_OK):
        return [
            Finding("state", MISSING, f"{root}: {probe or '/'} cannot be written",
                    "no container can be made", "--root DIR, or XDG_RUNTIME_DIR for a user")
        ]  # fmt: skip
    return [Finding("state", OK, root)]


def _criu(_: Settings) -> list[Finding]:
    path = _program("criu")
    if path:
        return [Finding("criu", OK, path)]
    return [
        Finding("criu", LIMITED, "not installed", "no checkpoint and restore",
                "install the package criu")
    ]  # fmt: skip


def bundle(config: Config, rootfs: str) -> list[Finding]:
    """Return what of a checked configuration this host cannot give, with its JSON path."""
    found: list[Finding] = []
    linux = config.get("linux") or {}
    for index, entry in enumerate(linux.get("namespaces") or []):
        name = {"network": "net", "mount": "mnt"}.get(entry["type"], entry["type"])
        if not files.exists(f"/proc/self/ns/{name}"):
            found.append(
                Finding("namespace", MISSING, f"this kernel has no {entry['type']} namespaces",
                        f"they need Linux {_NAMESPACES[name]}",
                        path=f"linux.namespaces[{index}].type")
            )  # fmt: skip
    found += _wanted_controllers(linux.get("resources") or {})
    if linux.get("seccomp"):
        from .. import seccomp

        if not seccomp.library_version():
            found.append(
                Finding("seccomp", MISSING, "libseccomp.so.2 cannot be loaded",
                        remedy="install the package libseccomp2", path="linux.seccomp")
            )  # fmt: skip
    from . import program

    process = config.get("process") or {}
    for name, path, wanted in (
        ("apparmor", "process.apparmorProfile", process.get("apparmorProfile")),
        ("selinux", "process.selinuxLabel", process.get("selinuxLabel")),
        ("selinux", "linux.mountLabel", linux.get("mountLabel")),
    ):
        if wanted and not program.lsm(name):
            text = f"{name} is not enabled on this host, passed over"
            found.append(Finding(name, LIMITED, text, path=path))
    for index, mount in enumerate(config.get("mounts") or []):
        found += _wanted_mount(index, mount, rootfs)
    return found


_FILES: Final = {
    "memory": ("memory",), "cpu": ("cpu",), "pids": ("pids",), "blockIO": ("blkio", "io"),
    "hugepageLimits": ("hugetlb",), "rdma": ("rdma",),
}  # fmt: skip


def _wanted_controllers(resources: Resources) -> list[Finding]:
    from ..cgroup import hierarchy

    v1, v2 = hierarchy.own()
    have: set[str] = set()
    for _mountpoint, names, _path in v1:
        have.update(names.split(","))
    if v2 is not None:
        try:
            have.update(files.decode(files.read_file(f"{v2[0]}/cgroup.controllers")).split())
        except OSError:
            have.update(())
    return [
        Finding("controller", MISSING, f"this host has no {names[-1]} controller",
                path=f"linux.resources.{key}")
        for key, names in _FILES.items()
        if resources.get(key) and not have & set(names)
    ]  # fmt: skip


def _wanted_mount(index: int, mount: Mount, rootfs: str) -> list[Finding]:
    path = f"mounts[{index}]"
    options = mount.get("options") or []
    kind = mount.get("type") or ""
    found = []
    bound = kind == "bind" or "bind" in options or "rbind" in options
    if not bound and kind not in ("", "cgroup"):
        listed = files.decode(files.read_file("/proc/filesystems")).split()
        if kind not in listed:
            found.append(
                Finding("file system", LIMITED, f"the kernel does not list {kind}",
                        "it is there only if its module can be loaded", path=f"{path}.type")
            )  # fmt: skip
    source = mount.get("source") or ""
    if bound and source.startswith("/") and not files.exists(source):
        found.append(Finding("source", MISSING, f"{source} does not exist", path=f"{path}.source"))
    wants_idmap = mount.get("uidMappings") or any(
        option.partition("=")[0] in ("idmap", "ridmap") for option in options
    )
    if wants_idmap:
        where = source if bound and source.startswith("/") else rootfs
        why = id_mapped(where)
        if why:
            found.append(Finding("id-mapped mount", MISSING, f"{where}: {why}", path=path))
    return found


def id_mapped(path: str) -> str:
    """Say why a mount of this path cannot be id-mapped here; empty if it can."""
    from . import idmaps

    try:
        userns = idmaps.make_user_namespace([(0, 100000, 1)], [(0, 100000, 1)])
        try:
            fd = mounts.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)
            try:
                mounts.mount_setattr(fd, AT_EMPTY_PATH, MOUNT_ATTR_IDMAP, userns_fd=userns)
            finally:
                files.close(fd)
        finally:
            files.close(userns)
    except OSError as error:
        if error.errno == ENOSYS:
            return "id-mapped mounts need Linux 5.12"
        if error.errno == EINVAL:
            return "its file system cannot be id-mapped in this kernel"
        return strerror(error.errno or 0)
    return ""
