"""Add mounts to a running container, and remove them again.

Side: host.
"""

from __future__ import annotations

from .. import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "add mounts to a container that runs, or remove them"
USAGE = "add|remove ID FILE"
OPTIONS: Table = ()
ARGS = (3, 3)
NO_ID = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Do what the first word says with the JSON array of mounts in FILE."""
    del options
    from .. import cli
    from ..host import added

    verb, container_id, path = args
    if verb not in ("add", "remove"):
        raise errors.Error(f'mounts: must be add or remove, got "{verb}"')
    cli.check_id(container_id)
    (added.add if verb == "add" else added.remove)(settings, container_id, path)
    return 0
