"""All containers of one state directory.

Side: host.
"""

from __future__ import annotations

from ..base import jsonio, log
from ..errors import Error
from ..host import listing
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ..cli import Options, Settings, Table

HELP = "list the containers"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("format", "f", "choice", "table", "table|json", "output format"),
    ("quiet", "q", "flag", False, "", "print only the ids"),
)
ARGS = (0, 0)

_COLUMNS = ("ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER")


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print a line for each container; broken state directories are skipped with a warning."""
    del args
    if settings.root_given and not files.exists(settings.root):
        raise Error(f"--root {settings.root}: no such file or directory")
    found = listing.list_(settings)
    if options["quiet"]:
        log.result("".join(f"{state['id']}\n" for state in found))
    elif options["format"] == "json":
        log.result(jsonio.dumps(found) + "\n")
    else:
        log.table(_table(found))
    return 0


def _table(states: Sequence[Mapping[str, object]]) -> list[str]:
    rows: list[tuple[str, ...]] = [_COLUMNS]
    rows += [tuple(str(state.get(name.lower(), "")) for name in _COLUMNS) for state in states]
    # Widths as runc's: at least 12, with 3 blanks between columns.
    widths = [max(12, *(len(row[i]) + 3 for row in rows)) for i in range(len(_COLUMNS))]
    return ["".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
