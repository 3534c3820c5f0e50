"""The pause and resume operations.

Side: host.
"""

from __future__ import annotations


from . import states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Settings


def pause(settings: Settings, container_id: str) -> None:
    """Freeze every process of the container."""
    container, status = states.open_(settings, container_id)
    transitions.check("pause", container, status)
    states.manager(container).freeze()


def resume(settings: Settings, container_id: str) -> None:
    """Thaw the processes of the container."""
    container, status = states.open_(settings, container_id)
    transitions.check("resume", container, status)
    states.manager(container).thaw()
