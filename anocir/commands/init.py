"""Hidden: the name under which other runtimes start their container side.

Side: host.  anocir starts its own init without the command line, so a call is a mistake.
"""

from __future__ import annotations

from .. import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = ""
USAGE = ""
OPTIONS: Table = ()
ARGS = (0, 1 << 30)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Refuse: only create, run and exec start an init."""
    del settings, options, args
    raise errors.Error("init is internal and cannot be called by hand")
