"""The id maps of user namespaces.

Side: host.  Source: user_namespaces(7).
"""

from __future__ import annotations

import posix

from ..errors import Error, at, strerror
from ..linux import descriptors, files, processes, spawn, tasks
from ..model import namespaces
from ..linux.const import (
    CLONE_NEWUSER,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from ..model.schema import IDMapping, Linux


def check_maps(fd: int, linux: Linux) -> None:
    """Refuse id maps that are not those of the user namespace that is joined by path.

    Side: host.  A process in there is needed to read them: user_namespaces(7).
    """
    found = _maps_of(fd)
    for kind, lines in found.items():
        wanted = [
            (entry["containerID"], entry["hostID"], entry["size"])
            for entry in namespaces.id_mappings(linux, kind)
        ]
        if wanted and sorted(wanted) != sorted(lines):
            raise at(
                f"linux.{kind}Mappings",
                "are not those of the user namespace that linux.namespaces names",
                "leave them out to take the namespace as it is",
            )


def _maps_of(fd: int) -> dict[str, list[tuple[int, int, int]]]:
    """Return the maps of a namespace as we see them; nothing where we may not join."""
    ready_read, ready_write = descriptors.pipe()
    end_read, end_write = descriptors.pipe()
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
        return {kind: processes.id_map(pid, kind) for kind in ("uid", "gid")}
    finally:
        for one in (ready_read, end_read, end_write):
            files.close(one)
        spawn.wait(pid)


def write_maps(pid: int, linux: Linux) -> None:
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


def _map_unprivileged(pid: int, uids: Sequence[IDMapping], gids: Sequence[IDMapping]) -> None:
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
            pid = spawn.spawn(directory + b"/" + argv[0], argv, posix.environ, [])
        except OSError:
            continue
        status = spawn.wait(pid)
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
    read_end, write_end = descriptors.pipe()
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
        spawn.wait(pid)
