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
    disabled = (container.intent.get("cgroup") or {}).get("manager") == "disabled"
    known = container.intent.get("private_pids") or container.state.get("mount_namespace")
    if disabled and known:
        # Without a cgroup: by the namespaces.
        mine = belonging.mine(container)
        return sorted(
            int(name) for name in posix.listdir("/proc") if name.isdigit() and mine(int(name))
        )
    return sorted(states.manager(container).pids())
