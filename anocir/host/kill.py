"""The kill operation: send a signal to init, or to every process.

Side: host.
"""

from __future__ import annotations


from .. import cgroup
from ..errors import CONTRACT, Error
from ..linux import files, processes
from . import states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cli import Options, Settings
    from .store import Container


def kill(settings: Settings, container_id: str, number: int, options: Options) -> None:
    """Send a signal to init, or to every process."""
    container, status = states.open_(settings, container_id, hold=True)
    everyone = bool(options["all"])
    if status == states.STOPPED and everyone:
        # Without a pid namespace of its own the container's other processes may outlive init.
        states.manager(container).kill(number, _mine(container))
        return
    orphans = number == processes.SIGKILL and not container.intent.get("private_pids")
    if status == states.STOPPED and orphans:
        # init of a shared pid namespace has ended before the others.
        mine = _mine(container)
        if any(mine(pid) for pid in states.manager(container).pids()):
            states.manager(container).kill(number, mine)
            return
    transitions.check("kill", container, status)
    together = everyone or orphans
    if together:
        states.manager(container).kill(number, _mine(container))
    if status == states.CREATED and number in _ENDING and _ended(container, number):
        return
    # That may have ended init already.
    if not states.signal_process(container, number) and not together:
        raise Error(CONTRACT["not running"])
    if number == processes.SIGKILL:
        # cgroup v1 delivers no signal to a frozen process, nor does init of a pid namespace end
        # before all in it have.
        if status == states.PAUSED:
            states.manager(container).thaw()
        if cgroup.has_parts(container.intent.get("cgroup") or {}):
            states.manager(container).thaw_below()


def _mine(container: Container) -> Callable[[int], bool]:
    from . import belonging

    return belonging.mine(container)


# SIGHUP, SIGINT, SIGQUIT, SIGTERM: they end a container that waits for start, as with runc.
_ENDING = (1, 2, 3, 15)


def _ended(container: Container, number: int) -> bool:
    """Have an init that waits for start exit; False when it does not wait any more.

    The kernel drops a signal that the first process of a pid namespace has no handler for, and
    what it waits for itself (inside/process.hold_signals) it cannot under every filter.
    """
    from ..wire import line as wire
    from . import fifos

    try:
        line = fifos.open_(container)
    except OSError:
        return False
    wire.send(line[0], wire.END, bytes([number]))
    for fd in line:
        files.close(fd)
    return True
