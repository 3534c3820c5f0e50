"""The end of a container: signals, kill and wait, destroy.

Side: host.  What several operations need: kill, delete, start and create when they fail.
"""

from __future__ import annotations


from .. import cgroup
from ..cgroup import removal as cgroup_removal
from ..errors import Error
from ..linux import files, processes
from . import removal, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .store import Container
    from ..model.schema import Config, Intent

KILL_PATIENCE: Final = 10.0  # seconds


def kill_rest(container: Container) -> None:
    """Kill what is left of a container in its cgroup; of a private pid namespace nothing can be."""
    pid, started = container.state.get("pid", 0), container.state.get("start_time", -1)
    known = container.intent.get("private_pids") and started >= 0
    if not known or processes.alive(pid, started):
        from . import belonging

        states.manager(container).kill(processes.SIGKILL, belonging.mine(container))


def kill_and_wait(container: Container) -> None:
    """End every process of the container and wait, 10 seconds at the most, for init to be gone."""
    manager = states.manager(container)
    pidfd = container.hold()
    if pidfd < 0 or not container.intent.get("private_pids"):
        kill_rest(container)  # with a pid namespace of their own all others end with init
    if pidfd < 0 or not states.signal_process(container, processes.SIGKILL):
        return
    if manager.frozen():
        manager.thaw()
    if cgroup.has_parts(container.intent.get("cgroup") or {}):
        manager.thaw_below()
    if not processes.exited(pidfd, KILL_PATIENCE):
        raise Error(
            f"container {container.id}: init (pid {container.state['pid']}) is still there "
            "10 seconds after SIGKILL"
        )


def destroy(container: Container, config: Config) -> None:
    """Undo what create made, run the poststop hooks, remove the directory."""
    if not container.intent.get("private_pids"):
        kill_rest(container)
    record = container.intent.get("cgroup") or {}
    if not container.state.get("created"):
        record = {**record, "unfinished": True}
    cgroup_removal.destroy(record)
    if container.intent.get("host_mounts") is not None:
        _unmount(container.intent)
    classes = container.intent.get("resctrl")
    if classes:
        from . import resctrl

        resctrl.remove(classes)
    entries = (config.get("hooks") or {}).get("poststop") or []
    if entries:
        from . import hosthooks

        state = states.oci_state(container, states.STOPPED)
        hosthooks.run("poststop", entries, container, state, tolerant=True)
    removal.remove(container)


def _unmount(intent: Intent) -> None:
    """Undo the mounts of a container without a mount namespace, which are the host's."""
    from ..linux import mounts
    from ..linux.const import MNT_DETACH

    while mount_count(intent["rootfs"]) > (intent["host_mounts"] or 0):
        mounts.umount2(intent["rootfs"], MNT_DETACH)


def mount_count(path: str) -> int:
    """Return how many mounts lie on one another at a path (proc_pid_mountinfo(5))."""
    wanted = files.encode(path)
    wanted = wanted.replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011")
    lines = files.read_file("/proc/self/mountinfo").split(b"\n")
    return sum(1 for line in lines if line.split(b" ")[4:5] == [wanted])
