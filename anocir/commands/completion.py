"""Completion scripts for shells, and the man page.

Side: host.  Cold.
"""

from __future__ import annotations

from .. import errors, manual
from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "print a script that completes commands, options and ids; or the man page"
USAGE = "bash|zsh|fish|man"
OPTIONS: Table = ()
ARGS = (1, 1)
NO_ID = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print what was asked for."""
    del settings, options
    if args[0] == "man":
        import os
        import time

        # SOURCE_DATE_EPOCH (reproducible-builds.org) keeps a release the same bytes.
        day = time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time()))
        log.result(manual.man(time.strftime("%Y-%m-%d", day)))
    elif args[0] in ("bash", "zsh", "fish"):
        log.result(manual.completion(args[0]))
    else:
        raise errors.Error(f'completion: must be bash, zsh, fish or man, got "{args[0][:40]}"')
    return 0
