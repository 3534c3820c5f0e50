"""The kill operation: send a signal to init, or to every process.

Side: host.
"""

from __future__ import annotations


from ..errors import CONTRACT, Error
from ..linux import processes
from . import ending, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings


def kill(settings: Settings, container_id: str, number: int, options: Options) -> None:
    """Send a signal to init, or to every process."""
    container, status = states.open_(settings, container_id)
    everyone = bool(options["all"])
    if status == states.STOPPED and everyone:
        # Without a pid namespace of its own the container's other processes may outlive init.
        states.manager(container).kill(number)
        return
    orphans = number == processes.SIGKILL and not container.intent.get("private_pids")
    if status == states.STOPPED and orphans and states.manager(container).pids():
        # init of a shared pid namespace has ended before the others.
        states.manager(container).kill(number)
        return
    states.check("kill", container, status)
    pid = container.state.get("pid", 0)
    together = everyone or orphans
    if together:
        states.manager(container).kill(number)
    # That may have ended init already.
    if not ending.signal_process(container, pid, number) and not together:
        raise Error(CONTRACT["not running"])
    if number == processes.SIGKILL and status == states.PAUSED:
        states.manager(container).thaw()  # cgroup v1 delivers no signal to a frozen process
