"""The start operation: let init execute the program, and say what kept it from running.

Side: host.  The picture of what the two sides say to each other is in wire/channel.py.
"""

from __future__ import annotations

import posix

from ..errors import CONTRACT, Error, scene
from ..linux import files
from ..wire import line
from . import fifos, lock, states, store, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..cli import Settings
    from .store import Container
    from ..model.schema import Config

_ENXIO: Final = 6  # fifo(7): nobody has it open for reading


def start(
    settings: Settings, container_id: str, notified: bool = False, detached: bool = False
) -> None:
    """Let init execute the program; return once it runs, or raise what kept it from running.

    Where the caller has a service manager, return once the program says that it is ready, unless
    the caller of this function is the one who is `notified`.  A manager that does not listen is
    an error, but not for a `detached` run, which then does not wait.
    """
    container = store.open_container(settings.root, container_id)
    proxy = None
    fds: tuple[int, ...] = ()
    try:
        lock.take(container)
        container.load()
        status = states.status_of(container)
        transitions.check("start", container, status)
        pid = container.state["pid"]
        if not notified and posix.environ.get(b"NOTIFY_SOCKET"):
            from . import notify

            if not detached or notify.reachable():
                notify.check_reachable()
                proxy = notify.open_proxy(container.dir_fd)
        mode = b"container" if settings.start_exec_errors == "container" else b""
        fds = _say_start(container, mode)
        lock.give(container)
        hooks = container.hooks()
        try:
            fifos.serve_start(container, pid, fds[1])
        except Error as error:
            from . import oom

            rootfs = container.intent.get("rootfs", "")
            scene.update({"config": oom.config_of(container), "rootfs": rootfs})
            _after_failed_start(container, hooks, error)
            raise
        for fd in fds:
            files.close(fd)
        fds = ()
        fifos.close(container)
        _poststart(container, hooks)
        if proxy:
            proxy.wait(pid, container.hold())
    finally:
        for fd in fds:
            files.close(fd)
        if proxy:
            proxy.close()
        container.close()  # and so give back the lock, wherever it failed


def _say_start(container: Container, mode: bytes) -> tuple[int, int]:
    """Tell init to start; descriptors of what it reads and of what it writes."""
    try:
        fds = fifos.open_(container)
    except FileNotFoundError:
        raise Error(CONTRACT["already running"]) from None  # another start is on its way
    except OSError as error:
        if error.errno != _ENXIO:
            raise
        raise Error(CONTRACT["already stopped"]) from None
    line.send(fds[0], line.START, mode)
    # Whoever comes now finds that a start is on its way.
    fifos.started(container)
    return fds


def _after_failed_start(container: Container, config: Config, error: Error) -> None:
    """End init; after a failed startContainer hook the lifecycle goes on with destruction."""
    from . import ending

    ending.kill_and_wait(container)
    if error.kind == "hooks":  # of init, which runs no others at start
        lock.take(container)
        ending.destroy(container, config)


def _poststart(container: Container, config: Config) -> None:
    """Run the poststart hooks; if one fails the container is stopped and destroyed."""
    entries = (config.get("hooks") or {}).get("poststart")
    if not entries:
        return
    try:
        from . import hosthooks

        state = states.oci_state(container, states.RUNNING)
        hosthooks.run("poststart", entries, container, state)
    except Error:
        from . import ending

        ending.kill_and_wait(container)
        lock.take(container)
        ending.destroy(container, config)
        raise
