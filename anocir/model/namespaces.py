"""Namespaces, and the ids that a user namespace maps, as config.json names them.

Side: pure.  Spec: config-linux.md, "Namespaces" and "User namespace mappings".
"""

from __future__ import annotations

from ..linux.const import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .schema import Config, IDMapping, Linux

FLAGS: Final = {
    "user": CLONE_NEWUSER,
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "uts": CLONE_NEWUTS,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "time": CLONE_NEWTIME,
    "mount": CLONE_NEWNS,
}
# The name of each namespace's file in /proc/PID/ns.
FILES: Final = {
    "user": "user",
    "cgroup": "cgroup",
    "ipc": "ipc",
    "uts": "uts",
    "network": "net",
    "pid": "pid",
    "time": "time",
    "mount": "mnt",
}


def of(config: Config) -> dict[str, str]:
    """Return the namespaces that the config lists: type to path, empty for a new one."""
    listed = (config.get("linux") or {}).get("namespaces") or []
    return {entry["type"]: entry.get("path") or "" for entry in listed}


def own_user(config: Config) -> bool:
    """Tell whether the container has a user namespace of its own."""
    return "user" in of(config)


def id_mappings(linux: Linux, name: str) -> list[IDMapping]:
    """Return linux.uidMappings or linux.gidMappings, by "uid" or "gid"."""
    return (linux.get("uidMappings") if name == "uid" else linux.get("gidMappings")) or []


def outside(mappings: Sequence[IDMapping], number: int) -> int | None:
    """Return what an id of the container is outside of it; None when it is not mapped."""
    for entry in mappings:
        if entry["containerID"] <= number < entry["containerID"] + entry["size"]:
            return entry["hostID"] + number - entry["containerID"]
    return None


def host_makes_network(config: Config, nested: bool) -> bool:
    """Tell whether the host side makes the network namespace.

    With a user namespace of the container it belongs to that one, so init makes it; and where
    the runtime is `nested` in one itself, it could not come back to the host's.
    """
    spaces = of(config)
    return spaces.get("network") == "" and "user" not in spaces and not nested
