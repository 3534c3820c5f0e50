"""The create operation up to its first side effect: create --dry-run.

Side: host.  Cold.  It reads what create reads, asks this host what create asks it, compiles the
plan and the filter, opens the namespaces that are joined, and looks whether the state can be
written down.
"""

from __future__ import annotations

import posix

from ..base import activation, log
from ..cgroup import choice
from ..errors import Error
from ..linux import files
from ..model import explain, plan
from . import boot, joining, listing
from . import create as making

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings


def create(settings: Settings, container_id: str, options: Options) -> None:
    """Raise what create would, as far as that shows before anything is made."""
    settings.dry_run = True
    listen_fds = activation.listen_fds()
    preserved = listen_fds + options["preserve_fds"]
    boot.drop_early()
    holes = boot.holes(preserved) if preserved else []
    config, intent, known, _ = making.checked(
        settings, container_id, options, False, listen_fds, holes
    )
    compiled = plan.compile_create(config, known)
    for line in explain.describe(compiled):
        log.debug(line)
    joining.close_all(joining.open_namespaces(config))
    choice.maker(intent["cgroup"]).check((config.get("linux") or {}).get("resources") or {})
    _check_state(settings.root)
    for option in ("pid_file", "console_socket", "pidfd_socket"):
        directory = options[option].rpartition("/")[0]
        if directory and not files.exists(directory):
            raise Error(f"--{option.replace('_', '-')}: {directory} does not exist")


def _check_state(root: str) -> None:
    """Refuse a state directory in which nothing can be made, or that has no place to be made."""
    listing.ids(root)  # refuses one of somebody else
    place = root if files.exists(root) else root.rpartition("/")[0] or "/"
    if not posix.access(place, posix.W_OK | posix.X_OK):
        raise Error(f"--root: nothing can be written in {place}")
