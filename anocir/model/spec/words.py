"""The words for a mistake: where it is, and what would be right.

Side: pure, cold.
"""

from __future__ import annotations

from ...errors import at, Error, keyed, SHOWN
from .kinds import (
    absolute,
    array,
    boolean,
    choice,
    choices,
    identity,
    integer,
    Mistake,
    RUNCS_WORDS,
    some_strings,
    string,
    strings,
    text,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .kinds import Kind

_LISTED: Final = 12


def complaint(mistake: Mistake, path: str = "") -> Error:
    """Return the Error for a Mistake that was made below `path`."""
    where = join(path, mistake.path)
    word = next((word for start, word in RUNCS_WORDS.items() if where.startswith(start)), "")
    return at(where or "config.json", word + mistake.text)


def join(path: str, keys: list[str | int]) -> str:
    """Return `path` followed by keys, innermost first: mounts[3].options[0], sysctl["net.x"]."""
    for key in reversed(keys):
        if isinstance(key, int):
            path += f"[{key}]"
        elif len(key) <= SHOWN and key.isidentifier() and key.isascii():
            path += f".{key}" if path else key
        else:
            path = keyed(path, key)
    return path


def among(names: Any) -> str:
    """Return names for an error text: all of them if they are few, but for Go's "not set"."""
    return f" ({', '.join(sorted(filter(None, names)))})" if len(names) <= _LISTED else ""


def nearest(value: str, names: tuple[frozenset[str], str]) -> str:
    """Return a suggestion where only case, prefix or dashes are wrong."""
    bare = value.upper().replace("-", "_")
    for known in sorted(names[0]):
        upper = known.upper()
        if len(bare) > 1 and (upper == bare or upper.endswith("_" + bare)):
            return f" (did you mean {known}?)"
    return ""


_EXPECTED: Final = {
    boolean: "true or false",
    integer: "an integer",
    identity: "a user or group id",
    string: "a string",
    text: "a string",
    absolute: "an absolute path",
    choices: "an array of strings",
    strings: "an array of strings",
    some_strings: "an array of strings",
    array: "an array",
}


def expected(kind: Kind) -> str:
    """Return what a property of this kind must be, for one that is missing."""
    if kind[0] is choice:
        return str(kind[1][1]) + among(kind[1][0])
    return _EXPECTED.get(kind[0], "an object")
