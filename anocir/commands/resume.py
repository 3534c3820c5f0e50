"""Thaw a paused container.

Side: host.
"""

from __future__ import annotations

from ..host import freeze

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "resume a paused container"
USAGE = "ID"
OPTIONS: Table = ()
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Thaw the container's cgroup."""
    del options
    freeze.resume(settings, args[0])
    return 0
