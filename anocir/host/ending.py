"""The end of a container: signals, kill and wait, destroy.

Side: host.  What several operations need: kill, delete, start and create when they fail.
"""

from __future__ import annotations


from sys import byteorder

from .. import cgroup
from ..errors import Error
from ..linux import files, processes
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from .store import Container
    from ..model.schema import Config, Intent, StateFile

KILL_PATIENCE: Final = 10.0  # seconds
# include/uapi/linux/nsfs.h
NS_GET_PARENT: Final = 0xB702
NS_GET_MNTNS_ID: Final = 0x8008B705


def signal_process(container: Container, number: int) -> bool:
    """Signal init by its pidfd; False when it is gone, was never made, or the state is damaged."""
    # Who holds it already has looked: what exits in between is signalled in vain, as by kill(1).
    pidfd = container.pidfd if container.pidfd >= 0 else container.hold()
    if pidfd < 0:
        return False
    try:
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    return True


def evidence(pid: int) -> StateFile:
    """Return by what a process is known as the container's once init is dead: for the state."""
    identity = mount_namespace(pid)
    return {"mount_namespace": identity} if identity != mount_namespace("self") else {}


def mount_namespace(pid: int | str) -> list[int]:
    """Return the mount namespace of a process: its inode, and since Linux 6.11 what never recurs.

    Empty where there is no such process.  The inode alone is given out again when it is free.
    """
    try:
        fd = files.open(f"/proc/{pid}/ns/mnt", files.O_RDONLY)
    except OSError:
        return []
    try:
        answer = files.ioctl(fd, NS_GET_MNTNS_ID, bytes(8))
        unique = int.from_bytes(answer, byteorder) if isinstance(answer, bytes) else 0
    except OSError:
        unique = 0
    try:
        return [files.fstat(fd).st_ino, unique]
    finally:
        files.close(fd)


def mine(container: Container) -> Callable[[int], bool]:
    """Return a function that tells whether a process of the recorded cgroup is the container's.

    Another container, or anything else, may be in the same cgroup by now.  What is provably ours:
    a process in init's pid namespace, or below it; and without a pid namespace of the container's
    own one in its mount namespace, or in one of a process that is.  Where neither says anything (no
    mount namespace, a damaged state) all in a cgroup that we made ourselves count.
    """
    if container.intent.get("private_pids") and container.state.get("start_time") is not None:
        init = container.state.get("pid", 0)
        if not processes.alive(init, container.state["start_time"]):
            return lambda _pid: False  # the kernel has ended all of them
        return lambda pid: pid == init or _below(pid, init)
    known = container.state.get("mount_namespace")
    if known:
        return lambda pid: mount_namespace(pid) == known
    record = container.intent.get("cgroup") or {}
    return lambda _pid: cgroup.is_made(record)


def kill_rest(container: Container) -> None:
    """Kill what is left of a container in its cgroup; of a private pid namespace nothing can be."""
    pid, started = container.state.get("pid", 0), container.state.get("start_time", -1)
    known = container.intent.get("private_pids") and started >= 0
    if not known or processes.alive(pid, started):
        states.manager(container).kill(processes.SIGKILL, mine(container))


def _below(pid: int, init: int) -> bool:
    """Tell whether a process is in the pid namespace of another one, or in one below that."""
    try:
        wanted = files.stat(f"/proc/{init}/ns/pid").st_ino
        fd = files.open(f"/proc/{pid}/ns/pid", files.O_RDONLY)
    except OSError:
        return False
    while files.fstat(fd).st_ino != wanted:
        try:
            parent = files.ioctl(fd, NS_GET_PARENT)
        except OSError:  # EPERM: the next one is not below ours
            return False
        finally:
            files.close(fd)
        fd = int(parent)
    files.close(fd)
    return True


def kill_and_wait(container: Container) -> None:
    """End every process of the container and wait, 10 seconds at the most, for init to be gone."""
    manager = states.manager(container)
    pidfd = container.hold()
    if pidfd < 0 or not container.intent.get("private_pids"):
        kill_rest(container)  # with a pid namespace of their own all others end with init
    if pidfd < 0 or not signal_process(container, processes.SIGKILL):
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
    cgroup.destroy(container.intent.get("cgroup") or {})
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
    container.remove()


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
