"""Hand namespaces, cgroups and the terminal between the caller and init.

Side: host.
"""

from __future__ import annotations

from _struct import pack

from ..base import jsonio
from ..errors import at, keyed, reason, strerror
from ..linux import descriptors, files, mounts
from ..linux.const import AT_FDCWD, NS_GET_NSTYPE, OPEN_TREE_CLONE
from ..linux.errnos import EINVAL, ENOSYS, EPERM
from ..model import namespaces
from ..wire import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cgroup.joining import Joining
    from ..cli import Options
    from .launch import Init
    from ..model.schema import Config, State


def open_namespace(path: str, kind: int, where: str) -> int:
    """Open a namespace's file and check that it is one of this kind (a CLONE_NEW* flag).

    Side: host.  A FIFO or a device under the path must not block, hence O_NONBLOCK.
    """
    try:
        fd = files.open(path, files.O_RDONLY | files.O_NONBLOCK)
    except OSError as error:
        raise at(where, f"{path}: {strerror(error.errno or 0)}") from None
    try:
        found = descriptors.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        files.close(fd)
        raise at(where, f"{path} is not a namespace") from None
    if found != kind:
        files.close(fd)
        raise at(where, f"{path} is a namespace of another type")
    return fd


def open_namespaces(config: Config) -> list[int]:
    """Open the namespaces that are given by path, in the order that the plan counts them."""
    fds = []
    listed = (config.get("linux") or {}).get("namespaces") or []
    for index, entry in enumerate(listed):
        if entry.get("path"):
            where = f"linux.namespaces[{index}].path"
            kind = namespaces.FLAGS[entry["type"]]
            fd = open_namespace(entry["path"], kind, where)
            fds.append(fd)
            if entry["type"] == "network":
                _check_net_sysctls(config, fd)
            elif entry["type"] == "user" and config["linux"].get("uidMappings"):
                from . import idmaps

                idmaps.check_maps(fd, config["linux"])
    return fds


def _check_net_sysctls(config: Config, fd: int) -> None:
    """Refuse to change the network of the host through a namespace that is its own."""
    if files.fstat(fd).st_ino != files.stat("/proc/self/ns/net").st_ino:
        return
    for name in (config.get("linux") or {}).get("sysctl") or {}:
        if name.startswith(("net.", "net/")):
            raise at(
                keyed("linux.sysctl", name),
                f'sysctl "{name}" not allowed in host network namespace',
            )


def send_cgroups(
    init: Init,
    groups: Joining,
    network: int = -1,
    waits: bool = False,
    always: bool = True,
) -> None:
    """Send init the cgroups that it joins by itself: born in one, then by their tasks files.

    And its network namespace, if this side has made it: a descriptor, which is closed.  Unless
    it `waits` for GO, init goes on at once when it is in its cgroups.  `init.reap_middle` closes
    the cgroup that it is born in.
    """
    fds = [network] if network >= 0 else []
    try:
        init.born = bool(groups.into)
        if groups.into:
            init.born_in = _cgroup_directory(groups.into)
            fds.append(init.born_in)
        paths = [*groups.tasks, *groups.late]
        fds += [files.open(path, files.O_WRONLY) for path in paths]
        waits = waits or (always and not (groups.into or paths))
        head = pack(channel.CGROUP_FRAME, network >= 0, bool(groups.into), len(groups.tasks), waits)
        init.send(channel.CGROUP, head, fds, "joining and making namespaces")
    finally:
        close_all(fd for fd in fds if fd != init.born_in)


def _cgroup_directory(path: str) -> int:
    """Open the cgroup that init is born in so that its descriptor leads nowhere else.

    For a moment the process holds it inside the container's pid namespace, where one with
    CAP_SYS_PTRACE could follow /proc/PID/fd/N/../.. into the host: a detached mount has no parent.
    """
    try:
        return mounts.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)
    except OSError as error:
        # EINVAL: it lies on a mount that cannot be bound (mount --make-runbindable).
        if error.errno not in (EINVAL, ENOSYS, EPERM):
            raise
    return files.open(path, files.O_RDONLY | files.O_DIRECTORY)


def close_all(fds: Any) -> None:
    """Close descriptors."""
    for fd in fds:
        files.close(fd)


def hand_console(init: Init, options: Options, foreground: bool) -> None:
    """Send the master of the terminal to who asked for it, or keep it for the relay."""
    if init.console is None:
        return
    master, name = init.console
    if options["console_socket"]:
        channel.send_fd(options["console_socket"], master, name.encode(), "--console-socket")
    elif foreground:
        from . import relay

        relay.make_ready(master)
        return
    files.close(master)
    init.console = None


def listener_sender(config: Config, state: State) -> Any:
    """Return a function that sends the seccomp listener of a process to its agent."""
    profile = config["linux"]["seccomp"]

    def send(fd: int, pid: int) -> None:
        from .. import seccomp

        whole: State = {**state, "pid": state["pid"] or pid}
        message = seccomp.container_process_state(whole, pid, profile.get("listenerMetadata", ""))
        try:
            channel.send_fd(profile["listenerPath"], fd, jsonio.dumps(message).encode())
        except OSError as error:
            text = f"failed to connect with seccomp agent: {reason(error)}"
            raise at("linux.seccomp.listenerPath", text) from None

    return send
