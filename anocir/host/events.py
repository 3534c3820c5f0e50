"""The events operation: what a container uses, and notice of its out-of-memory kills.

Side: host.
"""

from __future__ import annotations

import select
import time


from ..base import jsonio, log
from ..linux import files
from . import states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cgroup import Manager
    from ..cli import Options, Settings
    from ..model.schema import Event, OomStory, Stats
    from .store import Container


def events(settings: Settings, container_id: str, options: Options) -> None:
    """Print statistics and out-of-memory events as JSON lines."""
    container, status = states.open_(settings, container_id)
    transitions.check("events", container, status)
    follow(container, states.manager(container), options, lambda: states.status_of(container))


def follow(
    container: Container, manager: Manager, options: Options, status: Callable[[], str]
) -> None:
    """Print one JSON object a line until the container stops."""
    if options["stats"]:
        _print("stats", container.id, manager.stats())
        return
    fd, event = manager.oom_watch()
    poll = select.poll()
    if fd >= 0:
        poll.register(fd, event)
    interval = options["interval"]
    kills = manager.oom_kills()
    due = time.monotonic() + interval
    while status() != "stopped":
        # Looked at each second, so that the end of the container ends us too.
        left = max(0.0, min(1.0, due - time.monotonic()))
        happened = poll.poll(left * 1000)
        if happened:
            files.read(fd, 4096)
        try:
            now = manager.oom_kills()
            if now > kills:
                # The line that runc prints, and ours: who reads the first may know it by its text.
                _print("oom", container.id, None)
                _print("oom-kill", container.id, _story(container, manager, now))
            kills = now
            if time.monotonic() >= due:
                _print("stats", container.id, manager.stats())
                due = time.monotonic() + interval
        except FileNotFoundError:
            return  # deleted in the meantime


def _story(container: Container, manager: Manager, kills: int) -> OomStory:
    """Return how often the kernel has killed, whom last, the limit and the peak, if known."""
    from . import oom

    return {"kills": kills, **oom.usage(manager), **oom.victim(container)}


def _print(kind: str, container_id: str, data: Stats | OomStory | None) -> None:
    line: Event = {"type": kind, "id": container_id}
    if data is not None:
        line["data"] = data
    log.result(jsonio.dumps(line) + "\n")
