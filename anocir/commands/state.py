"""The state operation: the container's state as the specification defines it.

Side: host.
"""

from __future__ import annotations

from ..base import jsonio, log
from ..host import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "print the state of a container as JSON"
USAGE = "ID"
OPTIONS: Table = ()
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print runtime.md's state object, indented as runc does."""
    del options
    state = states.state(settings, args[0])
    log.result(jsonio.dumps(state, indent=2) + "\n")
    return 0
