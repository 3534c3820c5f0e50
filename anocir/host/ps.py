"""The processes of a container.

Side: host.
"""

from __future__ import annotations


import posix

from . import belonging, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Settings


def ps(settings: Settings, container_id: str) -> list[int]:
    """Return the host's pids of the container's processes, empty when it has stopped."""
    container, status = states.open_(settings, container_id)
    if status == states.STOPPED:
        return []
    record = container.intent.get("cgroup") or {}
    manager = states.manager(container)
    without = record.get("manager") == "disabled" or (record.get("tolerant") and manager.gone())
    known = container.intent.get("private_pids") or container.state.get("mount_namespace")
    if without and known:
        # Without a cgroup, or the right to make one: by the namespaces.
        mine = belonging.mine(container)
        return sorted(
            int(name) for name in posix.listdir("/proc") if name.isdigit() and mine(int(name))
        )
    return sorted(manager.pids())
