"""The delete operation: remove what create made.

Side: host.
"""

from __future__ import annotations

from ..host import delete

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "remove a container that has stopped"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    ("force", "f", "flag", False, "",
     "kill the container first; a container that does not exist is no error"),
)  # fmt: skip
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Remove cgroup, state directory and everything else the runtime made."""
    delete.delete(settings, args[0], options)
    return 0
