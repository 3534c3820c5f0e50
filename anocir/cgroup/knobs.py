"""Writing the control files of a cgroup, with the reason and the config's path when one refuses.

Side: host.  Takes the writes that `convert` makes.
"""

from __future__ import annotations

from ..linux.errnos import EACCES, EBUSY, EINVAL, ENOENT, EPERM, EROFS

from ..base import log
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .convert import Write
    from ..model.schema import Resources

DENIED: Final = (EACCES, EPERM, EROFS)


def read_int(path: str) -> int | None:
    """Return the number in a control file; None for "max", no number, or no file."""
    try:
        return int(files.read_file(path))
    except (OSError, ValueError):
        return None


def read_text(path: str) -> str:
    """Return a control file's text without the newline, "" when it is not there."""
    try:
        return files.decode(files.read_file(path)).strip()
    except OSError:
        return ""


def read_map(path: str) -> dict[str, int]:
    """Return the lines "name number" of a control file like memory.stat, {} if it is missing."""
    result = {}
    for line in read_text(path).split("\n"):
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdigit():
            result[words[0]] = int(words[1])
    return result


def limited(resources: Resources) -> bool:
    """Tell whether there is anything but rules for devices: else `convert` is not asked."""
    return any(value and key != "devices" for key, value in resources.items())


def write(
    writes: list[Write], directories: dict[str, str], undo: list[tuple[str, str]] | None = None
) -> None:
    """Do the writes in the cgroups `directories` (by controller).

    With `undo`, what was there before is noted, newest last.  Raises Error with the JSON path.
    """
    later: list[tuple[str, Write]] = []
    satisfied = True
    for index, item in enumerate(writes):
        controller, file, value, source, rule = item
        if rule in ("else", "spare") and satisfied:
            continue
        directory = directories.get(controller)
        if directory is None:
            from . import refusals

            raise refusals.unavailable(controller, source)
        path = f"{directory}/{file}"
        try:
            _put(path, file, value, undo)
            satisfied = True
        except OSError as error:
            satisfied = False
            following = writes[index + 1][4] if index + 1 < len(writes) else ""
            if error.errno == EINVAL and following == "spare":
                continue  # before Linux 5.4 bfq takes no device
            if error.errno == ENOENT:
                if following in ("else", "spare") or rule == "optional":
                    continue
                if rule == "spare":
                    log.warn(f"{source} is ignored: the kernel has no weights of single devices")
                    continue
            elif error.errno in (EINVAL, EBUSY) and rule == "retry":
                later.append((path, item))
                continue
            from . import refusals

            raise refusals.refused(path, item, error) from None
    for path, item in reversed(later):
        try:
            _put(path, item[1], item[2], undo)
        except OSError as error:
            from . import refusals

            raise refusals.refused(path, item, error) from None


def _put(path: str, file: str, value: str, undo: list[tuple[str, str]] | None) -> None:
    if undo is None:
        files.write_file(path, value)
        return
    from . import undoing

    before = undoing.before(path, file, value)
    files.write_file(path, value)
    if before:
        undo.append((path, before))
