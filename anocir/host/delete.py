"""The delete operation: remove what create made.

Side: host.
"""

from __future__ import annotations

import posix

from .. import cgroup
from ..base import log
from ..errors import Error, reason
from ..linux import files, processes
from . import ending, lock, removal, states, store, transitions

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
            if not removal.other(settings.root, container_id):
                raise
            return
        try:
            _delete(container, force)
        finally:
            container.close()
    except Error as error:
        # Also when another delete was faster.
        if not force or error.kind != "missing":
            raise


def _delete(container: Container, force: bool) -> None:
    lock.take(container, (lambda: _end(container)) if force else None)
    container.load(damaged=force)
    status = states.status_of(container) if container.intent else states.STOPPED
    if not force:
        transitions.check("delete", container, status)
    elif not container.intent.get("cgroup"):
        _remember(container)
    if status != states.STOPPED or not container.state.get("created"):
        _kill_creator(container)
    _kill_criu(container)
    if status != states.STOPPED or not container.state.get("created"):
        ending.kill_and_wait(container)
    config: Config = {}
    try:
        config = container.hooks()
    except (OSError, Error) as error:
        if not force:
            raise
        log.warn(f"delete: {reason(error)}")
    if force:
        # Whatever the state said of init: nothing may be left in the container's cgroups.
        ending.kill_rest(container)
        _kill_renumbered(container)
    ending.destroy(container, config)


def _end(container: Container) -> None:
    """End the container first: who has the lock may wait for a file system that it serves."""
    try:
        container.load(damaged=True)
        ending.kill_and_wait(container)
    except (Error, OSError) as error:
        log.debug(f"delete: {reason(error)}")


def _remember(container: Container) -> None:
    """Find the cgroups of a container whose record of them is lost: by its configuration and id."""
    from ..cgroup import lost

    config: Config = {}
    try:
        config = container.config()
    except (OSError, Error) as error:
        log.warn(f"delete: {reason(error)}")
    try:
        found = lost.remembered(config, container.id)
    except (OSError, Error) as error:
        log.warn(f"delete: the cgroups of {container.id}: {reason(error)}")
        return
    container.intent = {**container.intent, "cgroup": found}


def _kill_renumbered(container: Container) -> None:
    """End an init that lives although no process has the number that the state gives it.

    It is in the container's cgroup, the first of its pid namespace, and began when the state says.
    """
    started = container.state.get("start_time", -1)
    if started < 0 or not container.intent.get("private_pids"):
        return
    for pid in cgroup.members(container.intent.get("cgroup") or {}):
        try:
            if processes.stat(pid)[3] != started:
                continue
            status = files.read_file(f"/proc/{pid}/status")
        except OSError:
            continue  # it has ended meanwhile
        numbers = status.partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
        if numbers[1:] and numbers[-1] == b"1":
            _kill(pid, started)


def _kill_creator(container: Container) -> None:
    """End a create that is still at work, so that it makes nothing while we remove it."""
    creator = container.intent.get("creator")
    if container.state.get("created") or not creator or creator[0] == posix.getpid():
        return
    _kill(creator[0], creator[1])


def _kill_criu(container: Container) -> None:
    """End the CRIU of a restore that was killed, and its helpers: they are in the cgroups too.

    When init ends before the restore has, it waits for init for ever.
    """
    found = container.intent.get("criu")
    if not found or not processes.alive(found[0], found[1]):
        return
    mine = [(found[0], found[1])]
    for pid in states.manager(container).pids():
        try:
            stat = processes.stat(pid)
        except OSError:
            continue
        if stat[2] == found[0]:
            mine.append((pid, stat[3]))
    for pid, started in mine:
        _kill(pid, started)


def _kill(pid: int, started: int) -> None:
    """Kill a process and wait for its end."""
    pidfd = processes.hold(pid, started)
    if pidfd < 0:
        return
    try:
        processes.pidfd_send_signal(pidfd, processes.SIGKILL)
        processes.exited(pidfd, ending.KILL_PATIENCE)
    except ProcessLookupError:
        return
    finally:
        files.close(pidfd)
