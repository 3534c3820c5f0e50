"""Join and make namespaces.

Side: init (the middle process), but for the id maps and the opening of namespace files, which
are the host side's.  Sources: namespaces(7), user_namespaces(7), time_namespaces(7), setns(2).
"""

from __future__ import annotations

import posix

from ..wire import channel
from ..errors import at, Error, reason, strerror
from ..linux import files, processes, tasks
from ..linux.const import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    EINVAL,
    ENOENT,
    EPERM,
    NS_GET_NSTYPE,
    PR_SET_DUMPABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .context import Context


def open_namespace(path: str, kind: int, where: str) -> int:
    """Open a namespace's file and check that it is one of this kind (a CLONE_NEW* flag).

    Side: host.  A FIFO or a device under the path must not block, hence O_NONBLOCK.
    """
    try:
        fd = files.open(path, files.O_RDONLY | files.O_NONBLOCK)
    except OSError as error:
        raise at(where, f"{path}: {strerror(error.errno or 0)}") from None
    try:
        found = files.ioctl(fd, NS_GET_NSTYPE)
    except OSError:
        files.close(fd)
        raise at(where, f"{path} is not a namespace") from None
    if found != kind:
        files.close(fd)
        raise at(where, f"{path} is a namespace of another type")
    return fd


def join_all(context: Context, entries: Sequence[tuple[int, int, str]]) -> None:
    """Join namespaces: (CLONE_NEW* flag, index of the descriptor, path for errors).

    What the caller may join is joined before the user namespace, since a process in there has
    no rights over the others of its old one; what only the user namespace owns, after it.
    """
    later = []
    user = None
    for entry in entries:
        kind, index, path = entry
        if kind == CLONE_NEWUSER:
            user = entry
            continue
        try:
            tasks.setns(context.host_fds[index], kind)
        except OSError as error:
            if error.errno != EPERM:
                raise OSError(error.errno, "setns", path) from None
            later.append(entry)
    if user is None and later:
        raise OSError(EPERM, "setns", later[0][2])
    for kind, index, path in [user, *later] if user else later:
        try:
            tasks.setns(context.host_fds[index], kind)
        except OSError as error:
            raise OSError(error.errno, "setns", path) from None


def new_user_namespace(context: Context) -> None:
    """Make a user namespace and wait until the host side has written its maps."""
    try:
        tasks.unshare(CLONE_NEWUSER)
    except OSError as error:
        raise Error(f"unshare user namespace: {strerror(error.errno or 0)}",
                    "see user.max_user_namespaces and kernel.unprivileged_userns_clone"
                    ) from None  # fmt: skip
    context.channel.send(channel.MAP)
    kind, _ = context.channel.receive()
    if kind != channel.MAPPED:
        posix._exit(1)


def unshare(context: Context, flags: int) -> None:
    """Make namespaces."""
    try:
        tasks.unshare(flags)
    except OSError as error:
        hint = _lacking(flags) if error.errno == EINVAL else ""
        raise Error(f"unshare namespaces: {strerror(error.errno or 0)}", hint) from None


def _lacking(flags: int) -> str:
    """Say which of these namespaces the kernel does not have."""
    for flag, name, file, since in (
        (CLONE_NEWTIME, "time", "time", "5.6"),
        (CLONE_NEWCGROUP, "cgroup", "cgroup", "4.6"),
        (CLONE_NEWUSER, "user", "user", "3.8"),
    ):
        if flags & flag and not files.exists(f"/proc/self/ns/{file}"):
            return f"{name} namespaces need Linux {since}, this is {posix.uname().release}"
    return "the kernel lacks one of these namespaces"


def time_offsets(context: Context, lines: str) -> None:
    """Set the clocks of the new time namespace, before a process is in it."""
    mapped = posix.geteuid() != 0
    if mapped:
        # The files of a process that is not dumpable belong to the real root.
        tasks.prctl(PR_SET_DUMPABLE, 1)
    try:
        files.write_file("/proc/self/timens_offsets", lines)
    except OSError as error:
        needs = f"time namespaces need Linux 5.6, this is {posix.uname().release}"
        hint = needs if error.errno == ENOENT else ""
        raise Error(f"set the clocks' offsets: {strerror(error.errno or 0)}", hint) from None
    if mapped:
        tasks.prctl(PR_SET_DUMPABLE, 0)


def become_root(context: Context) -> None:
    """Become root of the user namespace: the files that are made from here on are its."""
    if posix.geteuid() == 0 and posix.getegid() == 0 and not posix.getgroups():
        return
    try:
        tasks.setgroups([])
    except OSError as error:
        if error.errno != EPERM:  # setgroups is denied: user_namespaces(7)
            raise
    try:
        tasks.setresgid(0)
        tasks.setresuid(0)
    except OSError as error:
        if error.errno != EINVAL:  # root is not mapped: the files are made by whoever we are
            raise
    tasks.prctl(PR_SET_DUMPABLE, 0)


def loopback(context: Context) -> None:
    """Bring up the loopback interface of the new network namespace."""
    tasks.loopback_up()


def new_network() -> int:
    """Make the container's network namespace, with its loopback up; a descriptor of it.

    Side: host, which enters it for a moment.  It is the dearest of the namespaces (1 ms with the
    loopback) and needs nothing of init, whose interpreter still boots on the other core.
    """
    own = files.open("/proc/self/ns/net", files.O_RDONLY)
    try:
        tasks.unshare(CLONE_NEWNET)
        try:
            tasks.loopback_up()
            return files.open("/proc/self/ns/net", files.O_RDONLY)
        finally:
            tasks.setns(own, CLONE_NEWNET)
    except OSError as error:
        raise at("linux.namespaces", f"network: {reason(error)}") from None
    finally:
        files.close(own)


def enter_network(fd: int) -> None:
    """Join the network namespace that the host side has made."""
    tasks.setns(fd, CLONE_NEWNET)
    files.close(fd)


def hostname(context: Context, name: str) -> None:
    """Set the host name of the UTS namespace."""
    tasks.sethostname(name)


def domainname(context: Context, name: str) -> None:
    """Set the NIS domain name of the UTS namespace."""
    tasks.setdomainname(name)


def check_maps(fd: int, linux: dict[str, Any]) -> None:
    """Refuse id maps that are not those of the user namespace that is joined by path.

    Side: host.  A process in there is needed to read them: user_namespaces(7).
    """
    found = _maps_of(fd)
    for name, lines in found.items():
        wanted = [
            (entry["containerID"], entry["hostID"], entry["size"])
            for entry in linux.get(f"{name[:3]}Mappings") or []
        ]
        if wanted and sorted(wanted) != sorted(lines):
            raise at(
                f"linux.{name[:3]}Mappings",
                "are not those of the user namespace that linux.namespaces names",
                "leave them out to take the namespace as it is",
            )


def _maps_of(fd: int) -> dict[str, list[tuple[int, ...]]]:
    """Return uid_map and gid_map of a namespace as we see them; nothing where we may not join."""
    ready_read, ready_write = files.pipe()
    end_read, end_write = files.pipe()
    pid = tasks.clone()
    if pid == 0:
        files.close(end_write)
        try:
            tasks.setns(fd, CLONE_NEWUSER)
            files.write(ready_write, b"x")
            files.read(end_read, 1)
        finally:
            posix._exit(0)
    files.close(ready_write)
    try:
        if not files.read(ready_read, 1):
            return {}
        return {
            name: [
                tuple(int(word) for word in line.split())
                for line in files.read_file(f"/proc/{pid}/{name}").splitlines()
            ]
            for name in ("uid_map", "gid_map")
        }
    finally:
        for one in (ready_read, end_read, end_write):
            files.close(one)
        processes.wait(pid)


def write_maps(pid: int, linux: dict[str, Any]) -> None:
    """Write the id maps of the new user namespace of process `pid`.

    Side: host.  Written directly where that is permitted (root, or a single own id), else by
    newuidmap(1) and newgidmap(1).
    """
    uids = linux.get("uidMappings") or []
    gids = linux.get("gidMappings") or []
    if posix.geteuid() != 0:
        _map_unprivileged(pid, uids, gids)
        return
    for name, entries in (("uid_map", uids), ("gid_map", gids)):
        where = f"linux.{name[:3]}Mappings"
        text = "".join(
            f"{entry['containerID']} {entry['hostID']} {entry['size']}\n" for entry in entries
        )
        if not text:
            continue
        try:
            files.write_file(f"/proc/{pid}/{name}", text)
        except OSError as error:
            raise at(where, f"write {name}: {strerror(error.errno or 0)}") from None


def _map_unprivileged(pid: int, uids: Sequence[Any], gids: Sequence[Any]) -> None:
    own = [("uid_map", uids, posix.geteuid(), b"newuidmap"),
           ("gid_map", gids, posix.getegid(), b"newgidmap")]  # fmt: skip
    for name, entries, identity, helper in own:
        single = len(entries) == 1 and entries[0]["size"] == 1 and entries[0]["hostID"] == identity
        if single:
            if name == "gid_map":
                files.write_file(f"/proc/{pid}/setgroups", "deny")
            files.write_file(f"/proc/{pid}/{name}", f"{entries[0]['containerID']} {identity} 1\n")
            continue
        argv = [helper, str(pid).encode()]
        for entry in entries:
            argv += [str(entry[key]).encode() for key in ("containerID", "hostID", "size")]
        _run_helper(argv)


def _run_helper(argv: list[bytes]) -> None:
    searched = (posix.environ.get(b"PATH") or b"/usr/local/bin:/usr/bin:/bin").split(b":")
    for directory in searched:
        try:
            pid = processes.spawn(directory + b"/" + argv[0], argv, posix.environ, [])
        except OSError:
            continue
        status = processes.wait(pid)
        if status:
            raise Error(
                f"{argv[0].decode()}: exit status {status}",
                "are the ids listed in /etc/subuid and /etc/subgid?",
            )
        return
    raise Error(f"{argv[0].decode()}: not found in PATH", "install the package uidmap")


def make_user_namespace(uids: Sequence[tuple[int, int, int]],
                        gids: Sequence[tuple[int, int, int]]) -> int:  # fmt: skip
    """Return a descriptor of a new user namespace with these maps, in which nobody is.

    Side: host.  For id-mapped mounts: mount_setattr(2), MOUNT_ATTR_IDMAP.
    """
    read_end, write_end = files.pipe()
    pid = tasks.clone(CLONE_NEWUSER)
    if pid == 0:
        files.close(write_end)
        files.read(read_end, 1)
        posix._exit(0)
    try:
        for name, entries in (("uid_map", uids), ("gid_map", gids)):
            text = "".join(f"{inside} {outside} {size}\n" for inside, outside, size in entries)
            files.write_file(f"/proc/{pid}/{name}", text)
        return files.open(f"/proc/{pid}/ns/user", files.O_RDONLY)
    finally:
        files.close(write_end)
        files.close(read_end)
        processes.wait(pid)
