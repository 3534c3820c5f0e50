"""The end of a container: signals, kill and wait, destroy.

Side: host.  What several operations need: kill, delete, start and create when they fail.
"""

from __future__ import annotations


from .. import cgroup
from ..errors import Error
from ..linux import files, processes
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..cli import Settings
    from .store import Container

KILL_PATIENCE: Final = 10.0  # seconds


def signal_process(container: Container, number: int) -> bool:
    """Signal init by its pidfd; False when it is gone, was never made, or the state is damaged."""
    pidfd = container.hold()
    if pidfd < 0:
        return False
    try:
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def kill_and_wait(container: Container) -> None:
    """End every process of the container and wait, 10 seconds at the most, for init to be gone."""
    manager = states.manager(container)
    pidfd = container.hold()
    manager.kill(processes.SIGKILL)
    if pidfd < 0 or not signal_process(container, processes.SIGKILL):
        return
    if manager.frozen():
        manager.thaw()
    if not processes.exited(pidfd, KILL_PATIENCE):
        raise Error(
            f"container {container.id}: init (pid {container.state['pid']}) is still there "
            "10 seconds after SIGKILL"
        )


def destroy(settings: Settings, container: Container, config: dict[str, Any]) -> None:
    """Undo what create made, run the poststop hooks, remove the directory."""
    if not container.intent.get("private_pids"):
        states.manager(container).kill(processes.SIGKILL)
    cgroup.destroy(container.intent.get("cgroup") or {})
    if container.intent.get("host_mounts") is not None:
        _unmount(container.intent)
    if container.intent.get("resctrl"):
        from . import resctrl

        resctrl.remove(container.intent["resctrl"])
    entries = (config.get("hooks") or {}).get("poststop") or []
    if entries:
        from . import hosthooks

        state = states.oci_state(container, states.STOPPED)
        hosthooks.run("poststop", entries, container, state, tolerant=True)
    container.remove()


def _unmount(intent: dict[str, Any]) -> None:
    """Undo the mounts of a container without a mount namespace, which are the host's."""
    from ..linux import mounts
    from ..linux.const import MNT_DETACH

    while mount_count(intent["rootfs"]) > intent["host_mounts"]:
        mounts.umount2(intent["rootfs"], MNT_DETACH)


def mount_count(path: str) -> int:
    """Return how many mounts lie on one another at a path (proc_pid_mountinfo(5))."""
    wanted = files.encode(path)
    wanted = wanted.replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011")
    lines = files.read_file("/proc/self/mountinfo").split(b"\n")
    return sum(1 for line in lines if line.split(b" ")[4:5] == [wanted])
