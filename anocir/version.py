"""What --version prints: of which sources the archive is, and for which Pythons it is compiled.

Side: host.
"""

from __future__ import annotations

import sys

import posix

from . import SPEC_VERSION, __version__
from .base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .cli import Options, Settings


def print_version(settings: Settings, _options: Options, _args: list[str]) -> int:
    """Print what --version asks for."""
    # dockerd takes the first line with "version" and the line "commit: ", and shows them.
    try:
        from .build_id import COMMIT  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        COMMIT = "unknown"  # noqa: N806 - not built, run from the source tree
    python = ".".join(str(number) for number in sys.version_info[:3])
    log.result(
        f"anocir version {__version__}\ncommit: {COMMIT}\nspec: {SPEC_VERSION}\npython: {python}\n"
        + _compiled(settings.import_path)
    )
    return 0


def _compiled(import_path: str) -> str:
    """Say for which Pythons the archive has compiled modules, and what to do for another one."""
    path, inside, _ = import_path.rpartition("/site-packages")
    if not inside:
        return ""  # run from the source tree
    from .base import archive

    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        found = archive.versions(posix.read(fd, archive.HEAD))
    finally:
        posix.close(fd)
    here = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    line = f"compiled for: {archive.listed(found)}"
    if here not in found:
        number = f"{sys.version_info[0]}.{sys.version_info[1]}"
        line += f"; not for {number}, where each call takes longer: run `anocir repack` once"
    return line + "\n"
