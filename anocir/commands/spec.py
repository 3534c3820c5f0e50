"""Write a config.json to start from.

Side: host.  Cold: imports json.
"""

from __future__ import annotations

from .. import SPEC_VERSION, errors
from ..cgroup import hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..model.schema import Config, Mount, Namespace, NamespaceType

HELP = "write a config.json to start from"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("bundle", "b", "text", "", "DIR", "where to write; default: the working directory"),
    ("rootless", "", "flag", False, "", "for a user without root privileges"),
)
ARGS = (0, 0)

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")
# Files of procfs and sysfs that are not namespaced and tell about, or change, the host.
_MASKED = (
    "/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
    "/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
    "/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
)  # fmt: skip
_READONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


def _cgroup() -> tuple[NamespaceType, ...]:
    """Ask for a cgroup namespace where cgroups are version 2, as runc does."""
    return ("cgroup",) if hierarchy.only_v2(hierarchy.own()[0]) else ()


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Write DIR/config.json, and refuse to replace one."""
    del settings, args
    import json

    path = f"{options['bundle']}/config.json" if options["bundle"] else "config.json"
    text = json.dumps(template(options["rootless"]), indent="\t") + "\n"
    try:
        with open(path, "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise errors.Error(f"{path}: file exists, remove it first") from None
    except FileNotFoundError:
        # open(2) of a new file says so of its directory alone.
        what = "--bundle" if options["bundle"] else "the working directory"
        raise errors.Error(f"{what}: {path}: {errors.strerror(2)}") from None
    return 0


def template(rootless: bool) -> Config:
    """Return a container that runs sh with few rights, as runc's template does."""
    import posix

    config: Config = {
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": True,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": [
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "TERM=xterm",
            ],
            "cwd": "/",
            "capabilities": {
                "bounding": list(_CAPABILITIES),
                "effective": list(_CAPABILITIES),
                "permitted": list(_CAPABILITIES),
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "anocir",
        "mounts": _mounts(rootless),
        "linux": {
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
            "namespaces": _namespaces("pid", "network", "ipc", "uts", "mount", *_cgroup()),
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READONLY),
        },
    }
    if rootless:
        linux = config["linux"]
        del linux["resources"]
        # Without privileges nobody could connect an own network, so the host's is kept.
        linux["namespaces"] = _namespaces("pid", "ipc", "uts", "mount", *_cgroup(), "user")
        linux["uidMappings"] = [{"containerID": 0, "hostID": posix.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": posix.getegid(), "size": 1}]
    return config


def _namespaces(*kinds: NamespaceType) -> list[Namespace]:
    return [{"type": kind} for kind in kinds]


def _mount(destination: str, kind: str, source: str, *options: str) -> Mount:
    mount: Mount = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = list(options)
    return mount


def _mounts(rootless: bool) -> list[Mount]:
    # Group 5 (tty) is not mapped for a single user.
    tty = () if rootless else ("gid=5",)
    safe = ("nosuid", "noexec", "nodev")
    # sysfs belongs to the network namespace, which a rootless container shares with the host.
    sys_ = ("none", "/sys", "rbind") if rootless else ("sysfs", "sysfs")
    return [
        _mount("/proc", "proc", "proc"),
        _mount("/dev", "tmpfs", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        _mount("/dev/pts", "devpts", "devpts", "nosuid", "noexec", "newinstance",
               "ptmxmode=0666", "mode=0620", *tty),
        _mount("/dev/shm", "tmpfs", "shm", *safe, "mode=1777", "size=65536k"),  # noqa: S108
        _mount("/dev/mqueue", "mqueue", "mqueue", *safe),
        _mount("/sys", *sys_, *safe, "ro"),
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", *safe, "relatime", "ro"),
    ]  # fmt: skip
