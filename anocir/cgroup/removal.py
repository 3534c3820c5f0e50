"""Cgroups are removed, by the record alone where that says all.

Side: host.  Nearly always they are empty by then, and `tree` is not needed.
"""

from __future__ import annotations

from ..errors import Error
from ..linux import files
from ..linux.errnos import EBUSY, ENODEV, ENOENT, ENOTEMPTY, EROFS
from . import load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..model.schema import CgroupRecord

# How long a removal waits for processes to go away.  Also for those that cgroup.procs lists no
# more: a process that exits holds its cgroup until it has given back all else.
PATIENCE: Final = 10.0
_GONE: Final = (ENOENT, ENODEV)


def destroy(record: CgroupRecord) -> None:
    """Remove what was made for a container, and nothing else; what is gone already is fine."""
    if record.get("manager") not in ("v1", "v2") or "foreign" in record:
        load(record).destroy()
        return
    if record["manager"] == "v2":
        remove([(record["mountpoint"] + record["path"], record["made"])])
    else:
        remove([(mount + path, made) for mount, _, path, made in record["hierarchies"]])


def remove(directories: list[tuple[str, int]], patience: float = PATIENCE) -> None:
    """Remove cgroups: (directory, how many at its end were made by us) each.

    A cgroup that is busy is tried again with growing pauses, `patience` seconds from the first one
    on; then the error names the processes in it.  Parents that others use by now stay.  What fails
    in one hierarchy keeps nothing in the others; the first failure is raised.
    """
    deadline = 0.0
    failure: Exception | None = None
    for directory, made in directories:
        if made <= 0:
            continue
        try:
            if not rmdir(directory):
                from . import tree

                deadline = deadline or tree.after(patience)
                tree.insist(directory, deadline)
            parent = directory
            for _ in range(made - 1):
                parent = parent[: parent.rindex("/")]
                if not rmdir(parent):
                    break
        except (Error, OSError) as error:
            failure = failure or error
    if failure:
        raise failure


def rmdir(path: str, dir_fd: int | None = None) -> bool:
    """Remove a directory: whether it is gone now.  Raises OSError for another reason than use."""
    try:
        files.rmdir(path, dir_fd)
    except OSError as error:
        if error.errno in (EBUSY, ENOTEMPTY):
            return False
        # A file system that is read-only says so also of what is not there.
        if error.errno not in _GONE and (error.errno != EROFS or files.exists(path, dir_fd)):
            raise
    return True
