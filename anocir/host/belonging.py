"""Which processes are a container's.

Side: host.
"""

from __future__ import annotations

from sys import byteorder

from .. import cgroup
from ..linux import descriptors, files, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    from ..model.schema import StateFile
    from .store import Container

# include/uapi/linux/nsfs.h
NS_GET_PARENT: Final = 0xB702
NS_GET_MNTNS_ID: Final = 0x8008B705


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
        answer = descriptors.ioctl(fd, NS_GET_MNTNS_ID, bytes(8))
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


def _below(pid: int, init: int) -> bool:
    """Tell whether a process is in the pid namespace of another one, or in one below that."""
    try:
        wanted = files.stat(f"/proc/{init}/ns/pid").st_ino
        fd = files.open(f"/proc/{pid}/ns/pid", files.O_RDONLY)
    except OSError:
        return False
    while files.fstat(fd).st_ino != wanted:
        try:
            parent = descriptors.ioctl(fd, NS_GET_PARENT)
        except OSError:  # EPERM: the next one is not below ours
            return False
        finally:
            files.close(fd)
        fd = int(parent)
    files.close(fd)
    return True
