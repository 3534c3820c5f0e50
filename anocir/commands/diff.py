"""Where a running container differs from its config.json.

Side: host.
"""

from __future__ import annotations

from ..base import jsonio, log
from ..host import diff

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "show where a running container differs from its config.json"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (("format", "f", "choice", "text", "text|json", "output format"),)
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print a line for each difference in devices, limits and mounts, or a JSON array."""
    found = diff.diff(settings, args[0])
    if options["format"] == "json":
        log.result(jsonio.dumps(found) + "\n")
    elif found:
        log.table(diff.lines(found))
    else:
        log.result(f"{args[0]} is as its config.json says\n")
    return 0
