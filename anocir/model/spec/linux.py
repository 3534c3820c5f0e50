"""`linux`: namespaces, id maps, devices, sysctls and the smaller properties.

Side: pure.  Spec: config-linux.md.
"""

from __future__ import annotations

from ..execution import MEMORY_FLAGS, MEMORY_MODES
from .kinds import (
    RUNCS_WORDS,
    ABSOLUTE,
    array,
    BOOLEAN,
    choice,
    choices,
    IDENTITY,
    INT64,
    integer,
    interface,
    mapping,
    Mistake,
    ranges,
    record,
    show,
    STRING,
    STRINGS,
    text,
    UINT32,
)
from .resources import MAJOR, MINOR, RESOURCES
from .seccomp import SECCOMP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

NAMESPACES: Final = frozenset(
    ("mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time")
)  # fmt: skip
# Docker and Podman write the recursive forms too; "" is Go's "not set".
PROPAGATIONS: Final = frozenset(
    ("", "private", "shared", "slave", "unbindable",
     "rprivate", "rshared", "rslave", "runbindable")
)  # fmt: skip
LAST_NODE: Final = 65535  # far above every kernel's MAX_NUMNODES, and a mask of 8 KiB
MOST_MAPPINGS: Final = 340  # UID_GID_MAP_MAX_EXTENTS, include/linux/user_namespace.h
# ipc_namespaces(7); everything else in kernel/ but the domain name is the host's
_IPC_SYSCTLS: Final = frozenset(
    "kernel/" + each
    for each in ("msgmax", "msgmnb", "msgmni", "sem", "shmall", "shmmax", "shmmni",
                 "shm_rmid_forced")
)  # fmt: skip


# pid_namespaces(7): of each one since Linux 6.14 and 6.3; before, there is only the host's
_PID_SYSCTLS: Final = frozenset(("kernel/pid_max", "vm/memfd_noexec"))


def namespaces(linux: Any) -> dict[str, str]:
    """Return the namespaces of a checked configuration: type to path, "" for a new one."""
    return {each["type"]: each.get("path", "") for each in linux.get("namespaces", ())}


def sysctl_path(name: str) -> str:
    """Return the path of a sysctl below /proc/sys.  Raises Mistake.

    The first separator decides, as for sysctl(8): in net/ipv4/conf/eth0.1/mtu the dot belongs
    to a name, and in net.ipv4.conf.eth0/1.mtu the slash stands for it.
    """
    dot = name.find(".")
    slash = name.find("/")
    if dot >= 0 and (slash < 0 or dot < slash):
        name = name.translate({ord("."): "/", ord("/"): "."})
    for part in name.split("/"):
        if part in ("", ".", ".."):
            raise Mistake("must be the name of a kernel parameter, like net.ipv4.ip_forward")
    return name


def _sysctls(sysctls: Any, present: dict[str, str]) -> None:
    """Allow only parameters that belong to a namespace which is not the host's."""
    for key in sysctls:
        try:
            path = sysctl_path(key)
        except Mistake as mistake:
            raise Mistake(mistake.text, "sysctl", key) from None
        if path.startswith("net/"):
            needed = "network"
        elif path in _IPC_SYSCTLS or path.startswith("fs/mqueue/"):
            needed = "ipc"
        elif path == "kernel/domainname":
            needed = "uts"
        elif path == "kernel/hostname":
            raise Mistake("must not be set here, hostname is the property for it", "sysctl", key)
        elif path in _PID_SYSCTLS or path.startswith("user/"):
            kind = "pid" if path in _PID_SYSCTLS else "user"
            if present.get(kind) != "":
                raise Mistake(
                    f"must not be set without a new namespace of type {kind}", "sysctl", key
                )
            continue
        else:
            raise Mistake("is not in a separate kernel namespace, it would change the host",
                          "sysctl", key)  # fmt: skip
        if needed not in present:
            raise Mistake(f"must not be set without a namespace of type {needed}", "sysctl", key)


def mappings(value: Any, _: Any) -> None:
    """Take an id map that the kernel takes: no empty, overflowing or overlapping ranges."""
    array(value, (record, _MAPPING))
    if len(value) > MOST_MAPPINGS:
        raise Mistake(f"must not have more than {MOST_MAPPINGS} entries, got {len(value)}")
    for key in ("containerID", "hostID"):
        spans = sorted((each[key], each["size"], index) for index, each in enumerate(value))
        end = 0
        for first, size, index in spans:
            if first < end:
                raise Mistake(f"must not overlap another range, got {first}", index, key)
            end = first + size


def _mapping(mapping: Any) -> None:
    for key in ("containerID", "hostID"):
        # user_namespaces(7): the id 2^32-1 cannot be mapped
        if mapping[key] + mapping["size"] > UINT32[1]:
            raise Mistake(f"reaches above {UINT32[1] - 1} from {key} {mapping[key]}, "
                          f"got {mapping['size']}", "size")  # fmt: skip


def _namespace_path(value: Any, _: Any) -> None:
    if value != "":  # Go's "not set", so a new namespace
        ABSOLUTE[0](value, None)


def _device(device: Any) -> None:
    if device["type"] == "p":  # a fifo has no numbers: whatever is there is passed over
        return
    for key, kind in (("major", MAJOR), ("minor", MINOR)):
        if key not in device:
            raise Mistake(f"is missing, must be an integer for type {device['type']}", key)
        try:
            kind[0](device[key], kind[1])
        except Mistake as mistake:
            raise Mistake(mistake.text, key) from None


def _new_interface(value: str) -> str:
    if not value:  # Go's "not set": the name stays
        return ""
    if value.count("%") > 1 or ("%" in value and "%d" not in value):
        return f"must have no % but one %d, got {show(value)}"
    return interface(value)


def _cgroups_path(value: str) -> str:
    if ".." in value.split("/"):
        return f'must not have ".." in it, got {show(value)}'
    # What the kernel will not make it cannot look for either, when the container is deleted.
    names = value.encode("utf-8", "surrogateescape").split(b"/")
    if max(map(len, names)) > 255 or len(value) > 3000:
        return "must not have a name of more than 255 bytes, nor more than 3000 characters"
    return ""


def _one_line(value: str) -> str:
    return "must not have a newline in it" if "\n" in value else ""


def _memory_bandwidth(value: str) -> str:
    if value and not value.startswith("MB:"):
        return f'must begin with "MB:", got {show(value)}'
    return _one_line(value)


def _class_of_service(value: str) -> str:
    # It becomes a directory of resctrl; "/" alone is the root of it.
    if value != "/" and ("/" in value or "\n" in value or value in (".", "..")):
        return f'must be the name of a directory, or "/", got {show(value)}'
    return ""


def _nodes(value: str) -> str:
    ranges(value, LAST_NODE)
    return ""


RUNCS_WORDS["linux.memoryPolicy.flags"] = "invalid memory policy flag: "
RUNCS_WORDS["linux.memoryPolicy.mode"] = "invalid memory policy mode: "
RUNCS_WORDS["linux.memoryPolicy.nodes"] = "invalid memory policy node: "


def _memory_policy(policy: Any) -> None:
    """What set_mempolicy(2) would refuse."""
    mode = policy["mode"]
    nodes = ranges(policy.get("nodes", ""), LAST_NODE)
    flags = policy.get("flags", ())
    if mode in ("MPOL_DEFAULT", "MPOL_LOCAL"):
        if nodes:
            count = len({number for low, high in nodes for number in range(low, high + 1)})
            told = f"the mode requires 0 nodes but got {count}"
            raise Mistake(f"must be empty with {mode}: {told}", "nodes")
        if flags:
            raise Mistake(f"must be empty with {mode}", "flags")
    elif not nodes and mode != "MPOL_PREFERRED":
        raise Mistake(f"must name at least one node with {mode}", "nodes")
    if "MPOL_F_STATIC_NODES" in flags and "MPOL_F_RELATIVE_NODES" in flags:
        raise Mistake("must not have both MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES", "flags")
    if "MPOL_F_NUMA_BALANCING" in flags and mode not in ("MPOL_BIND", "MPOL_PREFERRED_MANY"):
        raise Mistake(f"must not have MPOL_F_NUMA_BALANCING with {mode}", "flags")


def _clock(value: str) -> str:
    if value in ("boottime", "monotonic"):
        return ""
    return "must be boottime or monotonic, the clocks of time_namespaces(7)"


def _linux(linux: Any) -> None:
    """Check what has to hold between namespaces and the properties that need one."""
    present: dict[str, str] = {}
    for index, each in enumerate(linux.get("namespaces", ())):
        kind = each["type"]
        if kind in present:
            raise Mistake(f"must be unique, {kind} is there twice", "namespaces", index, "type")
        present[kind] = each.get("path", "")
    _id_maps(linux, present)
    if linux.get("timeOffsets") and present.get("time") != "":
        raise Mistake("must not be set without a new time namespace", "timeOffsets")
    if linux.get("netDevices"):
        if "network" not in present:
            raise Mistake("must not be set without a network namespace", "netDevices")
        _net_devices(linux["netDevices"])
    for key in ("maskedPaths", "readonlyPaths"):
        if linux.get(key) and "mount" not in present:
            raise Mistake("must not be set without a mount namespace: the host would be changed",
                          key)  # fmt: skip
    if "sysctl" in linux:
        _sysctls(linux["sysctl"], present)


def _id_maps(linux: Any, present: dict[str, str]) -> None:
    # Without a user namespace they mean nothing, as with runc.
    maps = [key for key in ("uidMappings", "gidMappings") if linux.get(key)]
    if present.get("user") == "" and len(maps) != 2:
        missing = "gidMappings" if "uidMappings" in maps else "uidMappings"
        raise Mistake("is missing, must be set for a new user namespace", missing)


def _net_devices(devices: Any) -> None:
    seen: set[str] = set()
    for key, device in devices.items():
        new = device.get("name") or key
        if new in seen and "%" not in new:
            raise Mistake(f"must be unique, {show(new)} is there twice", "netDevices", key)
        seen.add(new)


_UINT32: Final = (integer, UINT32)
_MAPPING: Final = (
    {"containerID": _UINT32, "hostID": _UINT32, "size": (integer, (1, UINT32[1]))},
    ("containerID", "hostID", "size"),
    _mapping,
)
_DEVICE: Final = (
    {
        "type": (choice, (frozenset("cbup"), "a device type")),
        "path": ABSOLUTE,
        "major": (integer, INT64),
        "minor": (integer, INT64),
        "fileMode": _UINT32,
        "uid": IDENTITY,
        "gid": IDENTITY,
    },
    ("type", "path"),
    _device,
)
_INTEL_RDT: Final = {
    "closID": (text, _class_of_service),
    "schemata": (array, (text, _one_line)),
    "l3CacheSchema": (text, _one_line),
    "memBwSchema": (text, _memory_bandwidth),
    "enableMonitoring": BOOLEAN,
}
LINUX: Final = (
    {
        "devices": (array, (record, _DEVICE)),
        "netDevices": (
            mapping,
            (interface, (record, ({"name": (text, _new_interface)}, (), None))),
        ),
        "uidMappings": (mappings, None),
        "gidMappings": (mappings, None),
        "namespaces": (
            array,
            (
                record,
                (
                    {
                        "type": (choice, (NAMESPACES, "a namespace type")),
                        "path": (_namespace_path, None),
                    },
                    ("type",),
                    None,
                ),
            ),
        ),
        "resources": (record, RESOURCES),
        "cgroupsPath": (text, _cgroups_path),
        "rootfsPropagation": (choice, (PROPAGATIONS, "a mount propagation")),
        "seccomp": (record, SECCOMP),
        "sysctl": (mapping, (None, STRING)),
        "maskedPaths": (array, ABSOLUTE),
        "readonlyPaths": (array, ABSOLUTE),
        "mountLabel": STRING,
        "intelRdt": (record, (_INTEL_RDT, (), None)),
        "memoryPolicy": (
            record,
            (
                {
                    "mode": (choice, (frozenset(MEMORY_MODES), "a mode")),
                    "nodes": (text, _nodes),
                    "flags": (choices, (frozenset(MEMORY_FLAGS), "a memory policy flag")),
                },
                ("mode",),
                _memory_policy,
            ),
        ),
        "personality": (
            record,
            (
                {
                    "domain": (choice, (frozenset(("LINUX", "LINUX32")), "a domain")),
                    "flags": STRINGS,
                },
                ("domain",),
                None,
            ),
        ),
        "timeOffsets": (
            mapping,
            (
                _clock,
                (
                    record,
                    (
                        {"secs": (integer, INT64), "nanosecs": (integer, (0, 999999999))},
                        (),
                        None,
                    ),
                ),
            ),
        ),
    },
    (),
    _linux,
)
