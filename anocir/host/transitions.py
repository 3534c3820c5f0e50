"""Which operation is allowed in which state of a container.

Sources: runtime.md (Operations, Lifecycle), runc's texts in errors.CONTRACT.

Side: host.
"""

from __future__ import annotations

from ..errors import CONTRACT, Error
from .states import CREATED, CREATING, PAUSED, RUNNING, STOPPED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .store import Container


# Which operation is allowed in which state: None, or the text that refuses it.
TRANSITIONS: Final[dict[str, dict[str, str | None]]] = {
    "start": {
        CREATING: "cannot start a container that is being created",
        CREATED: None,
        RUNNING: CONTRACT["already running"],
        PAUSED: CONTRACT["start paused"],
        STOPPED: CONTRACT["already stopped"],
    },
    "kill": {
        CREATING: None,
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: CONTRACT["not running"],
    },
    "delete": {
        # runtime.md: a container that is not stopped MUST NOT be deleted.
        CREATING: CONTRACT["not stopped"],
        CREATED: CONTRACT["not stopped"],
        RUNNING: CONTRACT["not stopped"],
        PAUSED: CONTRACT["not stopped"],
        STOPPED: None,
    },
    "exec": {
        CREATING: "cannot exec in a container that is being created",
        CREATED: None,
        RUNNING: None,
        PAUSED: CONTRACT["exec paused"],
        STOPPED: CONTRACT["exec stopped"],
    },
    "pause": {
        CREATING: CONTRACT["not running"],
        CREATED: None,
        RUNNING: None,
        PAUSED: "container is paused already",
        STOPPED: CONTRACT["not running"],
    },
    "resume": {
        CREATING: CONTRACT["not paused"],
        CREATED: CONTRACT["not paused"],
        RUNNING: CONTRACT["not paused"],
        PAUSED: None,
        STOPPED: CONTRACT["not paused"],
    },
    "update": {
        CREATING: CONTRACT["not running"],
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: CONTRACT["not running"],
    },
    # In the words of runc.
    "checkpoint": {
        CREATING: "container cannot be checkpointed in {status} state",
        CREATED: "container cannot be checkpointed in {status} state",
        RUNNING: None,
        PAUSED: None,
        STOPPED: "container cannot be checkpointed in {status} state",
    },
    "events": {
        CREATING: "container with id {id} is not running",
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: "container with id {id} is not running",
    },
}


def check(operation: str, container: Container, status: str) -> None:
    """Raise Error unless the operation is allowed in this state."""
    refused = TRANSITIONS[operation][status]
    if refused is not None:
        raise Error(refused.format(id=container.id, status=status))
