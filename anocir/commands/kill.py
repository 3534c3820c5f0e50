"""The kill operation: send a signal to the container.

Side: host.
"""

from __future__ import annotations

from ..host import states as lifecycle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "send a signal to a container; default SIGTERM"
USAGE = "[OPTIONS] ID [SIGNAL]"
OPTIONS: Table = (
    ("all", "a", "flag", False, "",
     "signal every process; a container that has stopped is no error"),
    # The form of the OCI command line document, which no engine uses.
    ("signal", "s", "text", "", "SIGNAL", "the signal as an option: a number or a name"),
)  # fmt: skip
ARGS = (1, 2)
IN_ORDER = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Send the signal to init, or to every process."""
    signal = args[1] if len(args) > 1 else options["signal"] or "SIGTERM"
    lifecycle.kill(settings, args[0], signal, options)
    return 0
