"""The delete operation: remove what create made.

Side: host.
"""

from __future__ import annotations

import posix

from .. import cgroup
from ..base import log
from ..errors import Error, reason
from ..linux import files, processes
from . import ending, states, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings
    from .store import Container
    from ..model.schema import Config


def delete(settings: Settings, container_id: str, options: Options) -> None:
    """Remove what create made; with force, whatever state it is in."""
    force = bool(options["force"])
    try:
        try:
            container = store.open_container(settings.root, container_id)
        except Error as error:
            if not force or error.kind == "missing":
                raise
            if not store.remove_other(settings.root, container_id):
                raise
            return
        try:
            _delete(settings, container, force)
        finally:
            container.close()
    except Error as error:
        # Also when another delete was faster.
        if not force or error.kind != "missing":
            raise


def _delete(settings: Settings, container: Container, force: bool) -> None:
    container.lock()
    container.load(damaged=force)
    status = states.status_of(container) if container.intent else states.STOPPED
    if not force:
        states.check("delete", container, status)
    elif not container.intent.get("cgroup"):
        _remember(container)
    if status != states.STOPPED or not container.state.get("created"):
        _kill_creator(container)
        ending.kill_and_wait(container)
    config: Config = {}
    try:
        config = container.config()
    except (OSError, Error) as error:
        if not force:
            raise
        log.warn(f"delete: {reason(error)}")
    if force:
        # Whatever the state said of init: nothing may be left in the container's cgroups.
        ending.kill_rest(container)
    ending.destroy(settings, container, config)


def _remember(container: Container) -> None:
    """Find the cgroups of a container whose record of them is lost: by its configuration and id."""
    config: Config = {}
    try:
        config = container.config()
    except (OSError, Error) as error:
        log.warn(f"delete: {reason(error)}")
    try:
        found = cgroup.remembered(config, container.id)
    except (OSError, Error) as error:
        log.warn(f"delete: the cgroups of {container.id}: {reason(error)}")
        return
    container.intent = {**container.intent, "cgroup": found}


def _kill_creator(container: Container) -> None:
    """End a create that is still at work, so that it makes nothing while we remove it."""
    creator = container.intent.get("creator")
    if container.state.get("created") or not creator or creator[0] == posix.getpid():
        return
    pidfd = processes.hold(creator[0], creator[1])
    if pidfd < 0:
        return
    try:
        processes.pidfd_send_signal(pidfd, processes.SIGKILL)
        processes.exited(pidfd, ending.KILL_PATIENCE)
    except ProcessLookupError:
        return
    finally:
        files.close(pidfd)
