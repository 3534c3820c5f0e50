"""The start operation: let init execute the program, and say what kept it from running.

Side: host.  The picture of what the two sides say to each other is in wire/channel.py.
"""

from __future__ import annotations

import posix

from ..base import jsonio, log
from ..errors import CONTRACT, Error, at, reason
from ..linux import files, processes
from . import states, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli import Settings
    from ..wire.channel import Channel
    from .store import Container


def start(
    settings: Settings, container_id: str, notified: bool = False, detached: bool = False
) -> None:
    """Let init execute the program; return once it runs, or raise what kept it from running.

    Where the caller has a service manager, return once the program says that it is ready, unless
    the caller of this function is the one who is `notified`.  A manager that does not listen is
    an error, but not for a `detached` run, which then does not wait.
    """
    from ..wire import channel

    container, status = states.open_(settings, container_id)
    proxy = None
    pidfd = -1
    try:
        container.lock()
        status = states.status_of(container)
        states.check("start", container, status)
        pid = container.state["pid"]
        if not notified and posix.environ.get(b"NOTIFY_SOCKET"):
            from . import notify

            if not detached or notify.reachable():
                notify.check_reachable()
                proxy = notify.open_proxy(container.dir_fd)
            pidfd = processes.pidfd_open(pid) if proxy else -1
        try:
            line = channel.connect(container.dir_fd, store.SOCKET)
        except FileNotFoundError:
            raise Error(CONTRACT["already running"]) from None  # another start is on its way
        except ConnectionRefusedError:
            raise Error(CONTRACT["already stopped"]) from None
        mode = b"container" if settings.start_exec_errors == "container" else b""
        try:
            line.send(channel.START, mode)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("start: init has died; the end of the channel tells how")
        files.unlink(store.SOCKET, container.dir_fd)
        container.unlock()
        config = container.config()
        try:
            serve_start(container, config, pid, pidfd, line)
        except Error as error:
            _after_failed_start(settings, container, config, error)
            raise
        line.close()
        _poststart(settings, container, config)
        if proxy:
            proxy.wait(pid, pidfd)
    finally:
        if proxy:
            proxy.close()
            files.close(pidfd)
        container.close()  # and so give back the lock, wherever it failed


def serve_start(
    container: Container,
    config: dict[str, Any],
    pid: int,
    pidfd: int,
    line: Channel,
    status: str = states.CREATED,
) -> None:
    """Answer init until execve has succeeded; raises Error when something failed before it.

    A seccomp listener is fetched out of the process, since its profile may trap sendmsg.
    """
    from ..wire import channel

    executing = False
    while True:
        kind, payload = line.receive()
        if kind == channel.EXEC:
            executing = True
        elif kind == channel.LOG:
            log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
        elif kind == channel.LISTENER:
            from ..linux import tasks

            own = processes.pidfd_open(pid) if pidfd < 0 else pidfd
            fd = tasks.pidfd_getfd(own, int(payload))
            _listener_sender(container, config, pid, status)(fd)
            files.close(fd)
            line.send(channel.DONE)
        elif kind == channel.ERROR:
            text, _, hint = payload.decode("utf-8", "surrogateescape").partition("\0")
            raise Error(text, hint)
        elif kind == 0 and executing:
            return
        elif kind == 0:
            raise _died(container, config)


def _died(container: Container, config: dict[str, Any]) -> Error:
    """Say why init is gone: out of memory by the kernel's count, or it is not known."""
    from . import oom

    text = oom.want_of_memory(container, config)
    if not text:
        return Error("init died before the program was executed")
    return Error(
        f"linux.resources.memory.limit: {text}: the limit is {oom.memory_limit(config)} bytes"
    )


def _listener_sender(container: Container, config: dict[str, Any], pid: int, status: str) -> Any:
    """Return a function that sends the seccomp listener to its agent."""
    profile = config["linux"]["seccomp"]

    def send(fd: int) -> None:
        from ..wire import channel
        from .. import seccomp

        state = states.oci_state(container, status)
        message = seccomp.container_process_state(state, pid, profile.get("listenerMetadata", ""))
        try:
            channel.send_fd(profile["listenerPath"], fd, jsonio.dumps(message).encode())
        except OSError as error:
            text = f"failed to connect with seccomp agent: {reason(error)}"
            raise at("linux.seccomp.listenerPath", text) from None

    return send


def _after_failed_start(
    settings: Settings, container: Container, config: dict[str, Any], error: Error
) -> None:
    """End init; after a failed startContainer hook the lifecycle goes on with destruction."""
    from . import ending

    ending.kill_and_wait(container, container.state["pid"])
    if "startContainer hook" in error.text:
        container.lock()
        ending.destroy(settings, container, config)


def _poststart(settings: Settings, container: Container, config: dict[str, Any]) -> None:
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

        ending.kill_and_wait(container, container.state["pid"])
        container.lock()
        ending.destroy(settings, container, config)
        raise
