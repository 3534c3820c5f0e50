"""The start operation: run the program of a created container.

Side: host.
"""

from __future__ import annotations

from ..host import start

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "run the program of a created container"
USAGE = "ID"
OPTIONS: Table = ()
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Return once the program runs, or say why it cannot."""
    del options
    start.start(settings, args[0])
    return 0
