"""How a process gets into the cgroups of its container: one value, computed once by the manager.

Side: host.

A process that is moved by another one costs a grace period of RCU (10 to 18 ms), one that is born
in a cgroup or moves itself costs nothing; so whatever can be left to init is left to it.
"""

from __future__ import annotations

from ..errors import Error
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.schema import CgroupRecord


class Joining:
    """What init does by itself, and what is left to the host.

    `into`     the cgroup2 directory that it is born in (clone3, CLONE_INTO_CGROUP), or ""
    `tasks`    files to open while the host's mounts are there, and to write b"0" into from the
               last process, single-threaded, in this order
    `late`     the same, after all set-up work: the cgroup that charges memory
    `by_host`  directories into whose cgroup.procs the host writes its pid
    `asked`    whether the host asks somebody else (systemd) to move it
    """

    __slots__ = ("asked", "by_host", "into", "late", "tasks")

    def __init__(
        self,
        into: str = "",
        tasks: Sequence[str] = (),
        late: Sequence[str] = (),
        by_host: Sequence[str] = (),
        asked: bool = False,
    ) -> None:
        """Take each part; what is not given is nothing."""
        self.into = into
        self.tasks = list(tasks)
        self.late = list(late)
        self.by_host = list(by_host)
        self.asked = asked

    def waits(self) -> bool:
        """Tell whether init has to wait for the host before it goes on."""
        return self.asked or bool(self.by_host)


def of_exec(record: CgroupRecord, subs: list[str]) -> Joining:
    """Say how a process of exec gets in; `subs` are "[controllers:]path" below the container's.

    Also where systemd has made them: it is asked for init alone.
    """
    place: CgroupRecord = record.get("fs", record)
    if place.get("manager") == "v1":
        return v1(place, directories(place), subs)
    if place.get("manager") == "v2":
        return v2(place, subs)
    from . import load

    return load(record).joining(subs)


def directories(place: CgroupRecord) -> dict[str, str]:
    """Return v1's by single controller; "name=systemd" and "" (cgroup2) under these names."""
    return {
        controller: mountpoint + path
        for mountpoint, controllers, path, _ in place["hierarchies"]
        for controller in controllers.split(",")
    }


def v1(
    place: CgroupRecord, there: dict[str, str], subs: list[str] | None = None, born: bool = True
) -> Joining:
    """Say how a process gets in: born in cgroup2's, by itself in the others, memory's last."""
    result = Joining()
    for controllers, directory, down in targets(there, subs or []):
        target = directory + down
        if place["tolerant"] and not files.exists(target):
            continue
        if "memory" in controllers:
            result.late.append(f"{target}/tasks")
        elif controllers != [""]:
            result.tasks.append(f"{target}/tasks")
        elif born and not down and _fresh(place):
            result.into = target
        else:
            result.by_host.append(target)
    return result


def _fresh(place: CgroupRecord) -> bool:
    """Tell whether the cgroup2 directory is new: nobody has used its cgroup.kill (`v2`)."""
    return any(made > 0 for _, controllers, _, made in place["hierarchies"] if not controllers)


def targets(there: dict[str, str], subs: list[str]) -> list[tuple[list[str], str, str]]:
    """Return of each hierarchy controllers, directory, and path below it; memory's last."""
    below = sub_cgroups(subs, set(there))
    hierarchies: dict[str, list[str]] = {}
    for controller, directory in there.items():
        hierarchies.setdefault(directory, []).append(controller)
    found = []
    for directory, controllers in hierarchies.items():
        named = [below[name] for name in controllers if name in below]
        found.append((controllers, directory, named[0] if named else below.get("*", "")))
    return sorted(found, key=lambda item: "memory" in item[0])


def v2(place: CgroupRecord, subs: list[str] | None = None, born: bool = True) -> Joining:
    """Say whether a process can be born there (clone3, CLONE_INTO_CGROUP, 5.7).

    Not in a threaded cgroup; and not where cgroup.kill may have been used: from Linux 6.14 to
    6.18 who is born there from elsewhere is killed at once, since the kernel compares a count
    of this cgroup's kills with that of its parent's.
    """
    below = sub_cgroups(subs or [], set()).get("*", "")
    target: str = place["mountpoint"] + place["path"]
    target += ("" if subs else place.get("leaf", "")) + below
    if place["tolerant"] and not files.exists(target):
        return Joining()
    fresh = place.get("fresh", place["made"] > 0) and not below
    if born and fresh and _kind(target) in (b"", b"domain"):
        return Joining(into=target)
    return Joining(by_host=[target])


def _kind(directory: str) -> bytes:
    """Return the type of a cgroup2 directory, b"" where the kernel or nobody has one."""
    try:
        return files.read_file(f"{directory}/cgroup.type").strip()
    except OSError:
        return b""


def sub_cgroups(subs: list[str], controllers: set[str]) -> dict[str, str]:
    """Return the paths below the container's cgroups by controller, "*" for all others."""
    result = {}
    for sub in subs:
        names, colon, path = sub.rpartition(":")
        words = [word for word in path.split("/") if word not in ("", ".")]
        if ".." in words:
            raise Error(f"--cgroup {sub}: bad sub cgroup path, it leads out of the container's")
        below = "".join(f"/{word}" for word in words)
        for name in names.split(",") if colon else ["*"]:
            if name != "*" and name not in controllers:
                raise Error(f"--cgroup {sub}: unknown controller {name!a} in the container")
            result[name] = below
    return result
