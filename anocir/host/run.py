"""The run operation: create, start, wait, delete.

Side: host.
"""

from __future__ import annotations


import posix

from ..base import log
from ..errors import Error, reason
from ..linux import tasks
from ..linux.const import PR_SET_CHILD_SUBREAPER
from . import create, delete, foreground, start, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..cli import Options, Settings
    from .launch import Init


_KILLED: Final = 128 + 9  # the exit status of SIGKILL, and a shell's for a child of its own


def run(settings: Settings, container_id: str, options: Options, init: Init) -> int:
    """create, start, wait, delete: the exit status of the process, 0 when detached."""
    detached = bool(options["detach"])
    if not detached and not options["no_subreaper"]:
        # Orphans of the container without a pid namespace come to us and are reaped.
        tasks.prctl(PR_SET_CHILD_SUBREAPER, 1)
    if not detached:
        foreground.block_signals()
    recorder = create.make(settings, container_id, options, init, foreground=not detached)
    init.channel.close()
    master = init.console[0] if init.console else -1
    watcher = None
    try:
        if not detached:
            watcher = foreground.Watcher(init.pid, init.pidfd, master, init.streams)
            watcher.notify = _notify_proxy(settings, container_id)
        start.start(settings, container_id, notified=not detached, detached=detached)
        if watcher is None:
            if recorder is not None:
                recorder.leave()
            return 0
        status = watcher.wait()
    except BaseException:
        if watcher is not None:
            watcher.close()
        _remove(settings, container_id)
        if recorder is not None:
            recorder.abandon()
        raise
    watcher.close()
    if status == _KILLED:
        _tell_of_memory(settings, container_id, init.pid)
    if not options["keep"]:
        delete.delete(settings, container_id, {"force": True})
    if recorder is not None:
        recorder.finish()
    return status


def _tell_of_memory(settings: Settings, container_id: str, pid: int) -> None:
    """Say so if it was the kernel that killed the process, for want of memory."""
    from . import oom

    try:
        container = store.open_container(settings.root, container_id)
    except (Error, OSError):
        return  # somebody has deleted it meanwhile
    try:
        container.load()
        text = oom.killed(container, pid)
    finally:
        container.close()
    if text:
        log.warn(text)


def _notify_proxy(settings: Settings, container_id: str) -> Any:
    """Return what listens for the container's READY, or None without a service manager."""
    if not posix.environ.get(b"NOTIFY_SOCKET"):
        return None
    from . import notify

    container = store.open_container(settings.root, container_id)
    try:
        return notify.open_proxy(container.dir_fd)
    finally:
        container.close()


def _remove(settings: Settings, container_id: str) -> None:
    """Remove a container that could not be started; the first error is the one to report."""
    try:
        delete.delete(settings, container_id, {"force": True})
    except (Error, OSError) as error:
        log.warn(f"cleaning up: {reason(error)}")
