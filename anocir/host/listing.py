"""All containers below a state root.

Side: host.
"""

from __future__ import annotations

from ..base import log
from ..errors import Error, reason
from ..linux import files
from . import states, store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Settings
    from ..model.schema import State


def ids(root: str) -> list[str]:
    """Return the ids below a state root, sorted; none when the root does not exist."""
    try:
        store.check_root(root, files.stat(root))
        names = files.listdir(root)
    except FileNotFoundError:
        return []
    return sorted(name for name in names if ":" not in name)


def list_(settings: Settings) -> list[State]:
    """Return the states of all containers; one that cannot be read is passed over."""
    found = []
    for container_id in ids(settings.root):
        try:
            container, status = states.open_(settings, container_id)
        except (Error, OSError) as error:
            log.warn(f"list: {container_id}: {reason(error)}")
            continue
        found.append(states.oci_state(container, status))
        container.close()
    return found
