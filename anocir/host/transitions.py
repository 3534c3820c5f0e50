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

STATES: Final = ("creating", "created", "running", "paused", "stopped")
# Which operation is allowed in which state, in their order: None, or what refuses it, in words or
# by the name that these have in errors.CONTRACT.
TRANSITIONS: Final = {
    "start": (
        "cannot start a container that is being created", None, "already running", "start paused",
        "already stopped",
    ),
    "kill": (None, None, None, None, "not running"),
    # runtime.md: a container that is not stopped MUST NOT be deleted.
    "delete": ("not stopped", "not stopped", "not stopped", "not stopped", None),
    "exec": (
        "cannot exec in a container that is being created", None, None, "exec paused",
        "exec stopped",
    ),
    "pause": ("not running", None, None, "container is paused already", "not running"),
    "resume": ("not paused", "not paused", "not paused", None, "not paused"),
    "update": ("not running", None, None, None, "not running"),
    # In the words of runc.
    "checkpoint": (
        "container cannot be checkpointed in {status} state",
        "container cannot be checkpointed in {status} state", None, None,
        "container cannot be checkpointed in {status} state",
    ),
    "events": (
        "container with id {id} is not running", None, None, None,
        "container with id {id} is not running",
    ),
}  # fmt: skip


def check(operation: str, container: Container, status: str) -> None:
    """Raise Error unless the operation is allowed in this state."""
    refused = TRANSITIONS[operation][STATES.index(status)]
    if refused is not None:
        text = CONTRACT.get(refused, refused)
        raise Error(text.format(id=container.id, status=status))
