"""The processes of a container.

Side: host.
"""

from __future__ import annotations


from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Settings


def ps(settings: Settings, container_id: str) -> list[int]:
    """Return the host's pids of the container's processes, empty when it has stopped."""
    container, status = states.open_(settings, container_id)
    if status == states.STOPPED:
        return []
    return sorted(states.manager(container).pids())
