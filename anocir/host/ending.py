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


def signal_process(container: Container, pid: int, number: int) -> bool:
    """Signal the process that had this pid at that start time; False when it is gone."""
    if pid <= 1:
        return False  # not made yet, or damaged: never our own group, never the host's init
    try:
        pidfd = processes.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not processes.alive(pid, container.state.get("start_time", -1)):
            return False
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        files.close(pidfd)
    return True


def kill_and_wait(container: Container, pid: int) -> None:
    """End every process of the container and wait, 10 seconds at the most, for init to be gone."""
    import select

    manager = states.manager(container)
    pidfd = -1
    if processes.alive(pid, container.state.get("start_time", -1)):
        try:
            pidfd = processes.pidfd_open(pid)
        except ProcessLookupError:
            pidfd = -1
    manager.kill(processes.SIGKILL)
    if pidfd < 0:
        return
    try:
        if processes.alive(pid, container.state["start_time"]):
            try:
                processes.pidfd_send_signal(pidfd, processes.SIGKILL)
            except ProcessLookupError:
                return
        if manager.frozen():
            manager.thaw()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(KILL_PATIENCE * 1000):
            raise Error(
                f"container {container.id}: init (pid {pid}) is still there 10 seconds after "
                "SIGKILL"
            )
    finally:
        files.close(pidfd)


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
