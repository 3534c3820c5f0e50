"""From a checked config.json to the ordered list of what has to be done.

Side: pure.  OCI words stop here.  A step is a tuple: the name of a function in `init.STEPS`, the
JSON path that asks for it (for errors and the trace), and plain values.  A plan is a dict:

    "prepare"  steps of the middle process: join and make namespaces
    "setup"    steps of init until the container is there
    "launch"   steps that take away what the program will not have
    "born"     steps of init when it is cloned after all of these (late), else none
    "start"    steps of init after start, up to execve
    "process"  what to execute: args, env, cwd, or None without process
    "late"     whether init is cloned last: where others are in its pid namespace already
    "pids"     the place of that namespace among the host's descriptors, or -1

Init executes the plan and never reads config.json.  The order of the steps is the order in which
the kernel has to be asked; where it matters the comment says why.
"""

from __future__ import annotations

from . import mountoptions, namespaces
from ..base import HOOK_OUTPUTS, normal
from ..errors import at, concealed, keyed
from ..linux.const import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWTIME,
    MS_PRIVATE,
    MS_REC,
    MS_SHARED,
    MS_SLAVE,
)
from .execution import (
    console,
    domain_steps,
    has_home,
    keeps_groups,
    labels,
    passed_on,
    process_steps,
    program,
    stream_steps,
    user_id,
)
from .spec.linux import sysctl_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final

    from .schema import Config, Facts, IDMapping
    from ..wire.shapes import CgroupView, MountOptions, Plan, Step


# config-linux.md, Default Devices; type, major, minor.
DEFAULT_DEVICES: Final = (
    ("/dev/null", "c", 1, 3),
    ("/dev/zero", "c", 1, 5),
    ("/dev/full", "c", 1, 7),
    ("/dev/random", "c", 1, 8),
    ("/dev/urandom", "c", 1, 9),
    ("/dev/tty", "c", 5, 0),
)


# The only files below /proc that a mount may cover: what lxcfs provides.
PROC_FILES: Final = (
    "/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps",
    "/proc/uptime", "/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
)  # fmt: skip


def compile_create(config: Config, facts: Facts) -> Plan:
    """Return the plan for `create` and `run`.

    `facts` is what the host side knows: `id`, `bundle`, `rootfs` (absolute), `state` (for hooks
    in the container), `cgroup` (the manager's mount_view or None), `seccomp` (compiled program or
    None), `apparmor`, `selinux` (whether the host has them), `no_pivot`, `no_new_keyring`,
    `listen_fds`, `notify` and `notify_source` (where the caller has a service manager),
    `user_namespace` (whether the runtime itself is inside one), `piped` (descriptors 0 to 2 that
    are pipes of the host side, with their places among these).
    """
    spaces = namespaces.of(config)
    process = config.get("process")
    late = is_late(config)
    prepare = _namespace_steps(config, facts)
    setup: list[Step] = []
    if spaces.get("network") == "" and not namespaces.host_makes_network(
        config, facts["user_namespace"]
    ):
        setup.append(("loopback", "linux.namespaces"))
    setup.append(("session", ""))
    if not facts["no_new_keyring"]:
        label = (process or {}).get("selinuxLabel", "") if facts["selinux"] else ""
        setup.append(("keyring", "", facts["keyring"], label))
    if "user" not in spaces:
        setup += _root_steps(config, facts)
    elif any(step[0] == "source" for step in prepare):
        setup.append(("denied_sources", "mounts"))
    setup += _mount_steps(config, facts)
    if facts.get("notify"):
        setup.append(_notify_mount(facts))
    setup += _device_steps(config, facts)
    if process and process.get("terminal"):
        setup.append(console(process, bind=True, own=not late))
    if process:
        # Made before the root becomes read-only.
        setup.append(("make_cwd", "process.cwd", process["cwd"]))
    hooks = config.get("hooks") or {}
    if hooks.get("prestart") or hooks.get("createRuntime") or hooks.get("createContainer"):
        # All mounts are there, the old root is still visible: the place config.md names, and
        # the one that GPU hooks rely on.  Also where the host side notes that hooks have run.
        setup.append(("host_hooks", "hooks"))
    if hooks.get("createContainer"):
        setup.append(
            ("hooks", "hooks.createContainer", hooks["createContainer"], "createContainer")
        )
    setup += _finish_steps(config, facts)
    if process is not None:
        if not has_home(process):
            setup.append(("home", "process.env", user_id(process)))
        setup.append(("command", "process.args", facts["check_command"]))
    if late and not _pids_first(spaces):
        # Only now that the root is entered: who is in there could look through /proc/PID/root.
        setup.append(("join_pids", "linux.namespaces", _pids_index(spaces)))
    _join_cgroups(setup, spaces.get("cgroup") == "")
    start: list[Step] = []
    if hooks.get("startContainer"):
        start.append(("hooks", "hooks.startContainer", hooks["startContainer"], "startContainer"))
    if process is None:
        start.append(("no_process", "process"))
    launch, born = process_steps(process, facts, config.get("annotations") or {}, late)
    if spaces.get("pid") == "" and facts["signals"]:
        # The kernel drops what is sent to the first process of a pid namespace; others it ends.
        launch.insert(0, ("hold_signals", ""))
    annotations = config.get("annotations") or {}
    outputs = {name: annotations[name] for name in HOOK_OUTPUTS if annotations.get(name)}
    if outputs and (hooks.get("createContainer") or hooks.get("startContainer")):
        prepare.insert(0, ("hook_outputs", "annotations", outputs))
    return {
        "prepare": stream_steps(config, process, facts, sum(map(bool, spaces.values()))) + prepare,
        "setup": setup,
        "launch": launch,
        "born": born,
        "start": start,
        "process": program(process, facts) if process else None,
        "fds": passed_on(facts) if process else 0,
        "holes": facts.get("holes", []) if process else [],
        "late": late,
        "pids": _pids_index(spaces) if late else -1,
        "outside": False,
        "state": facts["state"],
        "bundle": facts["bundle"],
    }


def is_late(config: Config) -> bool:
    """Tell whether init is cloned last, since others are in its pid namespace already."""
    return bool(namespaces.of(config).get("pid"))


def _pids_index(spaces: Mapping[str, str]) -> int:
    """Return the place of the pid namespace among the namespaces that are opened by path."""
    return [kind for kind, path in spaces.items() if path].index("pid")


def _pids_first(spaces: Mapping[str, str]) -> bool:
    """Tell whether the pid namespace has to be joined before a new user namespace is made.

    Nobody in there has rights over it.
    """
    return bool(spaces.get("pid")) and spaces.get("user") == ""


# The steps that make what is the container's, before which the cgroup that counts memory is joined.
_CHARGED: Final = frozenset(
    (
        "filesystem",
        "cgroup_mount",
        "device",
        "masked_path",
        "host_hooks",
        "hooks",
        "home",
        "command",
    )
)


def _join_cgroups(setup: list[Step], new_namespace: bool) -> None:
    """Put the late cgroups, and the cgroup namespace after them, before what is the container's.

    Memory that is used before is not charged to the container: that of the interpreter and of the
    plan is not, but file systems, what is copied into them, and what hooks are told are.  The root
    of a cgroup namespace is where its maker is in each hierarchy, and a mount of type cgroup shows
    it.
    """
    steps: list[Step] = [("join_late", "linux.resources")]
    if new_namespace:
        steps.append(("unshare", "linux.namespaces", CLONE_NEWCGROUP))
    where = len(setup)
    for index, step in enumerate(setup):
        if step[0] in _CHARGED:
            where = index
            break
    setup[where:where] = steps


def _namespace_steps(config: Config, facts: Facts) -> list[Step]:
    """Join the namespaces given by path, then make the others.

    The user namespace comes before what is made, so that it owns the new ones.  With one, the
    rootfs and the sources are opened as the caller, who may pass directories that the container's
    root may not; what belongs to whoever made it (message queues, tmpfs) is made by that root.
    """
    steps: list[Step] = []
    linux = config.get("linux") or {}
    spaces = namespaces.of(config)
    listed = [entry["type"] for entry in linux.get("namespaces") or []]
    joined = [
        (namespaces.FLAGS[kind], index, path)
        for index, (kind, path) in enumerate((k, p) for k, p in spaces.items() if p)
        if kind != "pid" or _pids_first(spaces) or not is_late(config)
    ]
    if joined:
        steps.append(("join_all", "linux.namespaces", joined))
    if spaces.get("user") == "":
        where = f"linux.namespaces[{listed.index('user')}]"
        steps.append(("new_user_namespace", where))
    flags = 0
    for kind, path in spaces.items():
        # The cgroup namespace's root is the cgroup of the process at that moment: init makes it
        # after it has come into the container's cgroup.
        if not path and kind not in ("user", "cgroup"):
            flags |= namespaces.FLAGS[kind]
    if namespaces.host_makes_network(config, facts["user_namespace"]):
        flags &= ~CLONE_NEWNET
    first = flags & (CLONE_NEWNS | CLONE_NEWTIME) if "user" in spaces else flags
    if first:
        steps.append(("unshare", "linux.namespaces", first))
    offsets = linux.get("timeOffsets") or {}
    if offsets:
        # Must be written before the first process is in the new time namespace: the middle
        # process itself stays in its old one (time_namespaces(7)).
        lines = "".join(
            f"{clock} {value.get('secs', 0)} {value.get('nanosecs', 0)}\n"
            for clock, value in offsets.items()
        )
        steps.append(("time_offsets", "linux.timeOffsets", lines))
    if "user" in spaces:
        steps += _root_steps(config, facts)
        steps.append(
            ("become_root", "linux.uidMappings", keeps_groups(config.get("annotations") or {}))
        )
        if flags & ~first:
            steps.append(("unshare", "linux.namespaces", flags & ~first))
    return steps


_ROOTFS_PROPAGATION: Final = {
    "": MS_SLAVE | MS_REC,
    **mountoptions.PROPAGATION,
}


# The place among the bind sources of the directory with the notify socket, and its mount point.
_NOTIFY: Final = -1
NOTIFY_AT: Final = "/run/notify"


# What a symbolic link as the source of a bind mount is, by the option that says so.
_LINKS: Final = (("copy-symlink", "copy"), ("src-nofollow", "nofollow"))


def _root_steps(config: Config, facts: Facts) -> list[Step]:
    """Open the rootfs and every bind source while the host's mounts are untouched.

    A source is opened before the first mount is made, so that no mount of this container can
    come to lie under its path (CVE-2021-30465).
    """
    steps: list[Step] = []
    spaces = namespaces.of(config)
    ask = "user" in spaces
    linux = config.get("linux") or {}
    if "mount" in spaces:
        propagation = _ROOTFS_PROPAGATION[linux.get("rootfsPropagation") or ""]
        if propagation & ~MS_REC not in (MS_PRIVATE, MS_SLAVE, MS_SHARED):
            propagation = MS_PRIVATE | MS_REC  # unbindable only makes sense for the new root
        steps.append(("propagation", "linux.rootfsPropagation", propagation))
    for index, mount in enumerate(config.get("mounts") or []):
        options = mount.get("options") or []
        if mountoptions.is_bind(mount):
            source = mount.get("source") or ""
            where = f"mounts[{index}].source"
            if not source:
                raise at(where, "a bind mount needs a source")
            if not source.startswith("/"):
                source = f"{facts['bundle']}/{source}"
            link = next((way for word, way in _LINKS if word in options), "follow")
            inside, covered = in_root(config, facts["rootfs"], index, source)
            steps.append(
                ("source", where, index, source, link, mount["destination"], inside, covered, ask)
            )
    if facts.get("notify"):
        paths = (_NOTIFY, facts["notify_source"], "follow", NOTIFY_AT)
        steps.append(("source", "NOTIFY_SOCKET", *paths, "", False, ask))
    word = linux.get("rootfsPropagation") or ""
    own = "mount" in spaces
    # Without "r" or with rshared the mount that holds the rootfs may still be shared.
    shared = own and word not in ("", "rslave", "rprivate", "unbindable", "runbindable")
    private = own and word not in ("slave", "rslave")
    steps.append(("root", "root.path", facts["rootfs"], shared, private))
    return steps


def in_root(config: Config, rootfs: str, index: int, source: str) -> tuple[str, bool]:
    """Return where in the root a source lies, if an earlier mount may bring it; whether one must.

    By the text of the paths alone.
    """
    root = rootfs.rstrip("/") + "/"
    path = normal(source)
    if not index or not path.startswith(root):
        return "", False
    path = path[len(root) - 1 :]
    above = [normal(mount["destination"]) for mount in config["mounts"][:index]]
    return path, any(path == there or path.startswith(there + "/") for there in above)


def _mount_steps(config: Config, facts: Facts) -> list[Step]:
    steps: list[Step] = []
    linux = config.get("linux") or {}
    label = linux.get("mountLabel", "") if facts["selinux"] else ""
    for index, mount in enumerate(config.get("mounts") or []):
        where = f"mounts[{index}]"
        options = mountoptions.parse(mount.get("options") or [])
        destination = normal(mount["destination"])
        kind = mount.get("type") or ""
        source = mount.get("source") or ""
        if destination == "/" and not options["remount"]:
            raise at(f"{where}.destination", "the root itself cannot be a mount's destination")
        if mount.get("uidMappings") or mount.get("gidMappings"):
            options["idmap"] = options["idmap"] or ""
            options["mappings"] = [
                _mappings(mount.get("uidMappings") or []),
                _mappings(mount.get("gidMappings") or []),
            ]
        if options["idmap"] is not None and not options["bind"] and kind != "bind":
            raise at(where, "id-mapped mounts are only supported for bind mounts")
        if options["bind"] or kind == "bind":
            _check_proc(destination, where, bind=True)
            _check_bind(mount.get("options") or [], options, where)
            steps.append(("bind", where, index, source, destination, options))
        elif options["remount"]:
            steps.append(("remount", where, destination, {**options, "exact": False}))
        elif kind in ("cgroup", "cgroup2"):
            _check_proc(destination, where, bind=False)
            view, fallback = facts["cgroup"], facts["cgroup_fallback"]
            if view is None:
                raise at(where, "the container has no cgroup to mount")
            unified = facts.get("cgroup2")
            if kind == "cgroup2" and unified:
                view, fallback = unified
            own = "cgroup" in namespaces.of(config)
            steps.append(
                (
                    "cgroup_mount",
                    where,
                    destination,
                    _view(view, kind),
                    fallback and _view(fallback, kind),
                    own,
                    options,
                )
            )
        else:
            if not kind:
                raise at(f"{where}.type", "a mount needs a type, or the option bind")
            if kind != "proc":
                _check_proc(destination, where, bind=False)
            if label and kind not in ("mqueue", "proc", "sysfs"):
                options["data"].append(f'{_context_type(config)}="{label}"')
            steps.append(("filesystem", where, kind, source or kind, destination, options))
    return steps


_TMPFS_VALUES: Final = ("mode", "size")


def _check_bind(words: Sequence[str], options: MountOptions, where: str) -> None:
    """Refuse what the kernel would pass over in silence: an option that a bind mount has not.

    But for two values of a tmpfs, which the validation suite gives to bind mounts and wants passed
    over; `spec.whole.warnings` tells of it.
    """
    for word in options["data"]:
        name, equals, _ = word.partition("=")
        if not equals or name not in _TMPFS_VALUES:
            raise at(
                f"{where}.options[{words.index(word)}]",
                f'"{concealed(word)}" is no option of a bind mount',
            )
    options["data"] = []
    for name in ("src-nofollow", "dest-nofollow"):
        if options["copy_symlink"] and options[name.replace("-", "_")]:  # type: ignore[literal-required]
            raise at(f"{where}.options", f"copy-symlink and {name} exclude each other")


def _notify_mount(facts: Facts) -> Step:
    options = mountoptions.parse(["bind", "ro", "nosuid", "nodev", "noexec"])
    return ("bind", "NOTIFY_SOCKET", _NOTIFY, facts["notify_source"], NOTIFY_AT, options)


def _check_proc(destination: str, where: str, bind: bool) -> None:
    """Refuse a mount that would put something else in the place of procfs (CVE-2019-16884)."""
    if destination == "/proc":
        if not bind:
            raise at(f"{where}.type", "only proc may be mounted on /proc")
    elif destination.startswith("/proc/") and destination not in PROC_FILES:
        raise at(f"{where}.destination", f'"{destination}" must not be inside of /proc')


def _mappings(entries: Sequence[IDMapping]) -> list[tuple[int, int, int]]:
    return [(entry["containerID"], entry["hostID"], entry["size"]) for entry in entries]


def _device_steps(config: Config, facts: Facts) -> list[Step]:
    linux = config.get("linux") or {}
    for mount in config.get("mounts") or []:
        if mountoptions.is_bind(mount) and normal(mount["destination"]) == "/dev":
            return []  # the caller brings a /dev: nothing of it is touched
    devices: dict[str, Step] = {
        path: ("device", "", path, kind, major, minor, 0o666, 0, 0)
        for path, kind, major, minor in DEFAULT_DEVICES
    }
    for index, device in enumerate(linux.get("devices") or []):
        path = normal(device["path"])
        kind = device["type"]
        major, minor = device.get("major", 0), device.get("minor", 0)
        if kind == "p":
            major = minor = 0  # config-linux.md: required unless type is p
        mode = device.get("fileMode")
        devices[path] = (
            "device", f"linux.devices[{index}]", path, kind, major, minor,
            # Podman sends the bits of the file type along.
            0o666 if mode is None else mode & 0o7777, device.get("uid", 0), device.get("gid", 0),
        )  # fmt: skip
    # In a user namespace mknod(2) of a device is not permitted: the host's node is bound.
    bind = namespaces.own_user(config) or facts["user_namespace"]
    steps: list[Step] = [(*step, bind) for step in devices.values()]
    steps.append(("device_links", ""))
    return steps


def _finish_steps(config: Config, facts: Facts) -> list[Step]:
    """Enter the root and take away what the container must not see or write."""
    linux = config.get("linux") or {}
    spaces = namespaces.of(config)
    steps: list[Step] = []
    if linux.get("sysctl"):
        # A procfs of our own, so that nothing of the image can stand in for it; mounted while
        # the host's is still visible, which a user namespace needs (mount_too_revealing).
        steps.append(("own_proc", "linux.sysctl"))
    process = config.get("process") or {}
    if labels(process, facts):
        steps.append(("open_attributes", "process"))
    if config.get("hostname"):
        steps.append(("hostname", "hostname", config["hostname"]))
    if config.get("domainname"):
        steps.append(("domainname", "domainname", config["domainname"]))
    for name, value in (linux.get("sysctl") or {}).items():
        steps.append(("sysctl", keyed("linux.sysctl", name), sysctl_path(name), value))
    for index, path in _once(linux.get("readonlyPaths") or []):
        steps.append(("readonly_path", f"linux.readonlyPaths[{index}]", path))
    label = linux.get("mountLabel", "") if facts["selinux"] else ""
    for index, path in _once(linux.get("maskedPaths") or []):
        steps.append(("masked_path", f"linux.maskedPaths[{index}]", path, label))
    if (config.get("root") or {}).get("readonly"):
        steps.append(("root_readonly", "root.readonly"))
    steps.append(("late_readonly", ""))
    # Everything above works on descriptors from the outside, with the host's null device at hand.
    if "mount" not in spaces:
        steps.append(("chroot", "root.path"))
    elif facts["no_pivot"]:
        steps.append(("move_root", "root.path"))
    else:
        steps.append(("pivot_root", "root.path"))
    propagation = linux.get("rootfsPropagation")
    if propagation and "mount" in spaces:
        steps.append(
            ("final_propagation", "linux.rootfsPropagation", mountoptions.PROPAGATION[propagation])
        )
    return steps + domain_steps(linux)


def _view(view: CgroupView, kind: str) -> CgroupView:
    """Return what a mount of type cgroup or cgroup2 shows: of a hybrid host the part asked for.

    Version 2 is not shown beside version 1, as with runc: a systemd in the container would take it
    for its own, and Podman makes that of version 1 writable for it.
    """
    rows = view.get("hierarchies") or ()
    for _, data, path, mountpoint in rows:
        if kind == "cgroup2" and data == "cgroup2":
            return {"version": 2, "own_path": path, "host_mountpoint": mountpoint}
    if kind == "cgroup2" or not rows:
        return view
    return {**view, "hierarchies": [row for row in rows if row[1] != "cgroup2"]}


def _once(paths: Sequence[str]) -> list[tuple[int, str]]:
    """Return (index, path) of each path in its normal form, the first time that it is there."""
    first: dict[str, int] = {}
    for index, path in enumerate(paths):
        first.setdefault(normal(path), index)
    return [(index, path) for path, index in first.items()]


# mount(8), the options that give a mount an SELinux context.
_CONTEXT_TYPES: Final = ("context", "fscontext", "defcontext", "rootcontext")


def _context_type(config: Config) -> str:
    """Return the option that takes linux.mountLabel; Podman asks for rootcontext (label=nested)."""
    name = "run.oci.mount_context_type"
    kind = (config.get("annotations") or {}).get(name) or "context"
    if kind not in _CONTEXT_TYPES:
        raise at(keyed("annotations", name), f"must be one of {', '.join(_CONTEXT_TYPES)}")
    return kind
