"""The states of a container, and which operation is allowed in which.

Side: host.  Sources: runtime.md (Operations, Lifecycle), runc's texts in errors.CONTRACT.

What only some operations need is imported by them: `state`, `start`, `kill` and `delete` do
without ctypes, the plan and the check of config.json.
"""

from __future__ import annotations


from .. import SPEC_VERSION, cgroup
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


def state(settings: Settings, container_id: str) -> State:
    """Return the state of one container."""
    container, status = open_(settings, container_id)
    found = oci_state(container, status)
    added = container.state.get("added")
    if added and status != STOPPED:
        keys: Final = ("destination", "source", "type")
        found["mounts"] = [{key: row[key] for key in keys} for row in added]
    plugged = container.state.get("devices")
    if plugged and status != STOPPED:
        names: Final = ("path", "type", "major", "minor", "access")
        found["devices"] = [{name: row[name] for name in names} for row in plugged]
    return found


def signal_process(container: Container, number: int) -> bool:
    """Signal init by its pidfd; False when it is gone, was never made, or the state is damaged."""
    # Who holds it already has looked: what exits in between is signalled in vain, as by kill(1).
    pidfd = container.pidfd if container.pidfd >= 0 else container.hold()
    if pidfd < 0:
        return False
    try:
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True
