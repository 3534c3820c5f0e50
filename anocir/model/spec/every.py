"""Every mistake of a configuration instead of the first: what `validate` tells.

Side: pure, cold.  The tables that `create` checks with are walked beside the value.  Where a rule
between properties finds something, what it complains about is taken out of a copy and the rule is
asked again, so that one mistake does not hide the next.
"""

from __future__ import annotations

import copy

from .kinds import (
    STRING,
    Mistake,
    array,
    choice,
    choices,
    identity,
    mapping,
    name,
    record,
    strings,
)
from .process import PROCESS
from .resources import RESOURCES
from .whole import CONFIG
from .words import expected, join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..schema import Json
    from .kinds import Kind

    # JSON path, what would be right
    Found = tuple[str, str]

KINDS: Final[dict[str, tuple[Kind, str]]] = {
    "config": ((record, CONFIG), ""),
    "process": ((record, PROCESS), "process"),
    "resources": ((record, RESOURCES), "resources"),
}
# A rule that keeps finding something in what is left is asked no more often than this.
_MOST: Final = 1000


def mistakes(what: str, value: Any) -> list[Found]:
    """Return (JSON path, text) for each mistake in a value that is a `what` of KINDS.

    The value is not changed.  Its order is the one in which `create` would meet them, but for
    the rules between properties, which come behind the properties themselves.
    """
    kind, path = KINDS[what]
    found: list[Found] = []
    _walk(kind, copy.deepcopy(value), path, found)
    return found


def _walk(kind: Kind, value: Any, path: str, found: list[Found]) -> bool:
    """List what is wrong and take it out; False if what is left lacks something that rules need."""
    check, argument = kind
    if check is choices:
        check, argument = array, (choice, argument)
    elif check is strings:
        check, argument = array, STRING
    before = len(found)
    if check is record and type(value) is dict:
        return _record(argument, value, path, found)
    if check is array and type(value) is list:
        for index, item in enumerate(value):
            _walk(argument, item, join(path, [index]), found)
        # An array that lacks an element has other numbers, and what is left may look wrong for it.
    elif check is mapping and type(value) is dict:
        grammar, each = argument
        for key, item in value.items():
            where = join(path, [key])
            complaint = grammar(key) if grammar and key else ""
            if not key or "\0" in key:
                complaint = "a key must not be empty or contain a NUL character"
            if complaint:
                found.append((where, complaint))
            else:
                _walk(each, item, where, found)
    else:
        _ask(lambda left: check(left, argument), value, path, found)
    return len(found) == before


def _record(shape: Any, value: Json, path: str, found: list[Found]) -> bool:
    table, required, rule = shape
    sound = True
    for key in [key for key in value if key in table]:
        kind = table[key]
        if value[key] is None and kind[0] is not identity:
            del value[key]
        elif not _walk(kind, value[key], join(path, [key]), found):
            if (kind[0] is record and type(value[key]) is dict) or type(value[key]) is list:
                sound = False
            if key in required:
                required = tuple(name_ for name_ in required if name_ != key)
                sound = False
            del value[key]
    for key in required:
        if key not in value:
            found.append((join(path, [key]), f"is missing, must be {expected(table[key])}"))
            sound = False
    if rule is not None and sound:
        sound = _ask(rule, value, path, found, required)
    return sound


def _ask(
    check: Any, value: Any, path: str, found: list[Found], needed: tuple[str, ...] = ()
) -> bool:
    """Ask until there is no complaint, without what was complained about; False if that failed.

    A rule counts on the properties that are `needed`: without one it is asked no more.
    """
    for _ in range(_MOST):
        try:
            check(value)
        except Mistake as mistake:
            entry = join(path, mistake.path), mistake.text
            if entry in found:
                return False
            found.append(entry)
            if not _take_out(value, mistake.path) or not all(key in value for key in needed):
                return False
        else:
            return True
    return False


def _take_out(value: Any, keys: list[str | int]) -> bool:
    """Remove what a path, innermost key first, leads to; never out of an array."""
    way = list(reversed(keys))
    if not way or any(isinstance(key, int) for key in way):
        return False
    for key in way[:-1]:
        try:
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
    if type(value) is not dict or way[-1] not in value:
        return False
    del value[way[-1]]
    return True


def unknown(what: str, value: Any) -> list[Found]:
    """Return (JSON path, text) for each property that no table has, with the nearest known one."""
    kind, path = KINDS[what]
    found: list[Found] = []
    _unknown(kind, value, path, found)
    return found


def _unknown(kind: Kind, value: Any, path: str, found: list[Found]) -> None:
    check, argument = kind
    if check is record and type(value) is dict:
        table = argument[0]
        for key, item in value.items():
            where = join(path, [key])
            if key in table:
                _unknown(table[key], item, where, found)
            elif not (path == "" and key in ("windows", "solaris", "vm", "zos", "freebsd")):
                found.append((where, f"unknown property is ignored{nearest(key, table)}"))
    elif check is mapping and type(value) is dict:
        for key, item in value.items():
            _unknown(argument[1], item, join(path, [key]), found)
    elif check is array and type(value) is list:
        for index, item in enumerate(value):
            _unknown(argument, item, join(path, [index]), found)


def nearest(word: str, known: Any) -> str:
    """Return ", did you mean X?" for the known name that is most like a word, or nothing."""
    import difflib

    lower = {name_.lower(): name_ for name_ in known}
    close = difflib.get_close_matches(word.lower(), list(lower), 1, 0.7)
    return f", did you mean {lower[close[0]]}?" if close else ""


def not_an_object(value: Any) -> str:
    """Say what stands where an object has to, or nothing for an object."""
    return "" if type(value) is dict else f"must be an object, got {name(value)}"
