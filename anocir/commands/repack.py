"""Make the archive start fast on this Python too.

Side: host.  Cold.
"""

from __future__ import annotations

from .. import errors
from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "add compiled modules for the Python it runs on to the archive"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("output", "", "text", "", "FILE", "write a new archive there; default: replace this one"),
    # Of build.py and of the interpreter that compiles.
    ("compile", "", "flag", False, "", ""),
    ("old", "", "text", "", "FILE", ""),
)
ARGS = (0, 0)

_ARCHIVE = "/site-packages"


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Add the block, and say which Pythons have one now."""
    del args
    from ..host import repack
    from ..linux import files

    if not settings.import_path.endswith(_ARCHIVE):
        raise errors.Error("repack: this runs from a source tree, not from an archive")
    path = settings.import_path[: -len(_ARCHIVE)]
    if options["compile"]:
        files.write_all(1, repack.block_of(path, options["old"]))
    else:
        log.result(repack.repack(path, options["output"], options["old"]))
    return 0
