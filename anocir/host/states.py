"""The states of a container, and which operation is allowed in which.

Side: host.  Sources: runtime.md (Operations, Lifecycle), runc's texts in errors.CONTRACT.

What only some operations need is imported by them: `state`, `start`, `kill` and `delete` do
without ctypes, the plan and the check of config.json.
"""

from __future__ import annotations


from .. import SPEC_VERSION, cgroup
from ..base import log
from ..errors import CONTRACT, Error, reason
from ..linux import processes
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..cli import Settings
    from .store import Container
    from ..model.schema import State, Status
    from ..cgroup import Manager

CREATING: Final = "creating"
CREATED: Final = "created"
RUNNING: Final = "running"
PAUSED: Final = "paused"
STOPPED: Final = "stopped"
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


def status_of(container: Container, alive: bool | None = None) -> Status:
    """Tell the state of a loaded container from its files and its init, which may be known."""
    final = container.state.get("created", False)
    if not final:
        return CREATING if _being_created(container) else STOPPED
    if not (container.alive() if alive is None else alive):
        return STOPPED
    if cgroup.frozen(container.intent.get("cgroup") or {}):
        return PAUSED
    return CREATED if container.waits() else RUNNING


def _being_created(container: Container) -> bool:
    """Tell whether the runtime that makes the container is still at it."""
    creator: list[int] = container.intent.get("creator") or []
    return bool(creator) and processes.alive(creator[0], creator[1])


def manager(container: Container) -> Manager:
    """Return the manager of the container's cgroups."""
    return cgroup.load(container.intent.get("cgroup") or {})


def open_(settings: Settings, container_id: str, hold: bool = False) -> tuple[Container, Status]:
    """Open and load a container: itself and its status.  Raises Error when it does not exist.

    With `hold` the status is that of the init whose pidfd it has.
    """
    container = store.open_container(settings.root, container_id)
    container.load()
    return container, status_of(container, container.hold() >= 0 if hold else None)


def oci_state(container: Container, status: Status, pid: int | None = None) -> State:
    """Return the state of runtime.md; the pid of a stopped container is 0."""
    intent = container.intent
    if pid is None:
        pid = 0 if status == STOPPED else container.state.get("pid", 0)
    result: State = {
        "ociVersion": SPEC_VERSION,
        "id": container.id,
        "pid": pid,
        "status": status,
        "bundle": intent.get("bundle", ""),
        "rootfs": intent.get("rootfs", ""),
        "created": intent.get("created", ""),
        "owner": intent.get("owner", ""),
    }
    if intent.get("annotations"):
        result["annotations"] = intent["annotations"]
    return result


# Of a mount or a device that was added to a container while it ran.
_SHOWN: Final = ("destination", "source", "type")
_DEVICE: Final = ("path", "type", "major", "minor", "access")


def state(settings: Settings, container_id: str) -> State:
    """Return the state of one container."""
    container, status = open_(settings, container_id)
    found = oci_state(container, status)
    added = container.state.get("added")
    if added and status != STOPPED:
        found["mounts"] = [{key: row[key] for key in _SHOWN} for row in added]
    plugged = container.state.get("devices")
    if plugged and status != STOPPED:
        found["devices"] = [{key: row[key] for key in _DEVICE} for row in plugged]
    return found


def list_(settings: Settings) -> list[State]:
    """Return the states of all containers; one that cannot be read is passed over."""
    states = []
    for container_id in store.ids(settings.root):
        try:
            container, status = open_(settings, container_id)
        except (Error, OSError) as error:
            log.warn(f"list: {container_id}: {reason(error)}")
            continue
        states.append(oci_state(container, status))
        container.close()
    return states
