"""Which operation is allowed in which state of a container.

Sources: runtime.md (Operations, Lifecycle), runc's texts in errors.CONTRACT.

Side: host.
"""

from __future__ import annotations

from ..errors import CONTRACT, Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .store import Container

# In which states an operation is allowed.
ALLOWED: Final = {
    "start": ("created",),
    "kill": ("creating", "created", "running", "paused"),
    # runtime.md: a container that is not stopped MUST NOT be deleted.
    "delete": ("stopped",),
    "exec": ("created", "running"),
    "pause": ("created", "running"),
    "resume": ("paused",),
    "update": ("created", "running", "paused"),
    "checkpoint": ("running", "paused"),
    "events": ("created", "running", "paused"),
}


def check(operation: str, container: Container, status: str) -> None:
    """Raise Error unless the operation is allowed in this state."""
    if status not in ALLOWED[operation]:
        refused = _refusal(operation, status)
        text = CONTRACT.get(refused, refused)
        raise Error(text.format(id=container.id, status=status))


def _refusal(operation: str, status: str) -> str:
    """Return what refuses an operation, in words or by the name of the words in CONTRACT."""
    words: dict[str, str | dict[str, str]] = {
        "start": {
            "creating": "cannot start a container that is being created",
            "running": "already running",
            "paused": "start paused",
            "stopped": "already stopped",
        },
        "kill": "not running",
        "delete": "not stopped",
        "exec": {
            "creating": "cannot exec in a container that is being created",
            "paused": "exec paused",
            "stopped": "exec stopped",
        },
        "pause": {
            "creating": "not running",
            "paused": "container is paused already",
            "stopped": "not running",
        },
        "resume": "not paused",
        "update": "not running",
        # In the words of runc.
        "checkpoint": "container cannot be checkpointed in {status} state",
        "events": "container with id {id} is not running",
    }
    found = words[operation]
    return found if isinstance(found, str) else found[status]
