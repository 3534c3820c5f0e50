"""Statistics of a container and notice of its out-of-memory kills.

Side: host.
"""

from __future__ import annotations

from ..errors import Error
from ..host import events

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "print resource statistics and out-of-memory events as JSON lines"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    ("interval", "", "duration", 5.0, "DURATION", "time between statistics; default 5s"),
    ("stats", "", "flag", False, "", "print the statistics once"),
)
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print one JSON object a line until the container stops."""
    if options["interval"] <= 0:
        raise Error("events: --interval: must be greater than 0")
    events.events(settings, args[0], options)
    return 0
