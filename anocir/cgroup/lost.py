"""The cgroups of a container whose own record is lost.

Side: host, cold: only delete --force looks.
"""

from __future__ import annotations

from ..linux import entries, files
from . import choice, hierarchy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..model.schema import CgroupRecord, Config

# How many cgroups are looked at, and how deep, for one that is named after a container.
_MOST: Final = 10000
_DEEPEST: Final = 6


def remembered(config: Config, container_id: str) -> CgroupRecord:
    """Return a record of the cgroups that are there for a container whose own record is lost.

    They are looked for where `choose` would have put them: by the cgroupsPath of its configuration,
    if that is whole, else by its id.  One directory of each is removed.
    """
    path = (config.get("linux") or {}).get("cgroupsPath") or ""
    v1, v2 = hierarchy.own()
    if path.count(":") == 2 and not path.startswith("/"):
        from . import unit

        where, name = unit.parse(path, container_id, user=False)
        words = [word for word in f"{unit.expand(where)}/{name}".split("/") if word]
    else:
        words = choice.components(path, "linux.cgroupsPath")
    rows: Any = []
    for mountpoint, controllers, own in [*v1, *([v2] if v2 else [])]:
        found = {choice.place_of(words, container_id, tolerant, own) for tolerant in (False, True)}
        if not config:
            found.update(_named(mountpoint, container_id))
        rows += [
            [mountpoint, controllers, below, 1]
            for below in sorted(found)
            if files.exists(mountpoint + below)
        ]
    if v2 is not None and hierarchy.only_v2(v1):
        if not rows:
            return {"manager": "disabled", "reason": "its cgroup is not known"}
        return {
            "manager": "v2", "tolerant": True, "mountpoint": rows[0][0], "path": rows[0][2],
            "made": 1, "owner": -1, "leaf": "", "shielded": False,
        }  # fmt: skip
    return {"manager": "v1", "tolerant": True, "hierarchies": rows, "shielded": False}


def _named(mountpoint: str, container_id: str) -> list[str]:
    """Return the cgroups that are named after a container, where its configuration is lost too.

    Not those at the top, where slices and engines have theirs, and not below what was found.
    """
    found = []
    todo = [""]
    for _ in range(_MOST):
        if not todo:
            break
        above = todo.pop()
        try:
            fd = files.open(mountpoint + above, files.O_RDONLY | files.O_DIRECTORY)
        except OSError:
            continue  # gone meanwhile
        names = entries.subdirectories(fd)
        files.close(fd)
        for name in names:
            if above and (name == container_id or name.endswith(f"-{container_id}.scope")):
                found.append(f"{above}/{name}")
            elif above.count("/") < _DEEPEST:
                todo.insert(0, f"{above}/{name}")
    return found
