"""Create, start, wait and delete in one command.

Side: host.
"""

from __future__ import annotations

from ..host import launch
from . import create

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..host.launch import Init

HELP = "create and start a container, and wait for its end"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    *create.SHARED,
    ("detach", "d", "flag", False, "", "do not wait for the end"),
    ("keep", "", "flag", False, "", "do not delete the container at its end"),
    ("no-subreaper", "", "flag", False, "", "do not become the parent of orphaned processes"),
)
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Answer with the exit status of the container's process, 128 + N for signal N."""

    def operation(init: Init) -> int:
        from ..host import run

        return run.run(settings, args[0], options, init)

    return launch.ahead(settings, options, operation)
