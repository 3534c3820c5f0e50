"""The kinds of value that config.json is made of, and the walk over the tables that use them.

Side: pure.  A kind is a pair (check, argument); `check(value, argument)` returns or raises
Mistake.  The tables of the other modules of this package map a property to its kind, so they can
be walked for other ends than checking (`advice`, tests).  The JSON path of a mistake is put
together on the way out, so that a configuration without one pays nothing for it.
"""

from __future__ import annotations

from ...errors import quoted, SHOWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final, Optional

    Check = Callable[[Any, Any], None]
    Kind = tuple[Check, Any]
    # properties, required ones, and what has to hold between them
    Shape = tuple[Mapping[str, Kind], tuple[str, ...], Optional[Callable[[Any], None]]]

INT32: Final = (-(1 << 31), (1 << 31) - 1)
INT64: Final = (-(1 << 63), (1 << 63) - 1)
UINT16: Final = (0, (1 << 16) - 1)
UINT32: Final = (0, (1 << 32) - 1)
UINT64: Final = (0, (1 << 64) - 1)
# 2^32-1 is "leave as it is" for setresuid(2): whoever asks for it would stay root.
LAST_ID: Final = (1 << 32) - 2
# By JSON path what runc says first of a mistake there, and scripts may look for: stands where the
# record is.
RUNCS_WORDS: Final[dict[str, str]] = {}


class Mistake(Exception):
    """A value that is not as it should be, and the way to it from the outermost value."""

    __slots__ = ("path", "text")

    def __init__(self, text: str, *path: str | int) -> None:
        """Take what would be right, and the keys that lead there from the value at hand."""
        super().__init__(text)
        self.text = text
        self.path = list(reversed(path))  # innermost first, each level appends its own key


def run(kind: Kind, value: Any, path: str) -> None:
    """Check one value and turn a Mistake into the Error that names its JSON path."""
    try:
        kind[0](value, kind[1])
    except Mistake as mistake:
        from .words import complaint

        raise complaint(mistake, path) from None


def show(value: Any) -> str:
    """Return a value for an error text: one line, printable, bounded."""
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int) and not isinstance(value, bool):
        # Python refuses to print more than 4300 digits
        return str(value) if value.bit_length() < 8 * SHOWN else "a far larger number"
    if isinstance(value, float):
        return str(value)
    return name(value)


def name(value: Any) -> str:
    """Return the JSON type of a value with its article."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "a string"
    return "an array" if isinstance(value, list) else "an object"


def boolean(value: Any, _: Any) -> None:
    """True or false."""
    if value is not True and value is not False:
        raise Mistake(f"must be true or false, got {name(value)}")


def integer(value: Any, bounds: tuple[int, int]) -> None:
    """Take an integer within bounds; JSON's true and 1.0 are none."""
    if type(value) is not int:
        got = show(value) if type(value) is float else name(value)
        raise Mistake(f"must be an integer, got {got}")
    if not bounds[0] <= value <= bounds[1]:
        raise Mistake(f"must be between {bounds[0]} and {bounds[1]}, got {show(value)}")


def identity(value: Any, _: Any) -> None:
    """Take a user or group id.  Unlike other properties never null: root by accident."""
    integer(value, (0, LAST_ID))


def string(value: Any, _: Any) -> None:
    """Take a string that C can hold."""
    if type(value) is not str:
        raise Mistake(f"must be a string, got {name(value)}")
    if "\0" in value:
        raise Mistake("must not contain a NUL character")


def text(value: Any, grammar: Callable[[str], str]) -> None:
    """Take a string that `grammar` has no complaint about ("" is none)."""
    string(value, None)
    complaint = grammar(value)
    if complaint:
        raise Mistake(complaint)


def absolute(value: Any, _: Any) -> None:
    """Take an absolute path."""
    string(value, None)
    if value[:1] != "/":
        raise Mistake(f"must be an absolute path, got {show(value)}")


def choice(value: Any, names: tuple[frozenset[str], str]) -> None:
    """Take one name out of a set; the second half of the argument says what the names are."""
    if type(value) is str and value in names[0]:
        return
    string(value, None)
    from .words import among, nearest

    raise Mistake(f"must be {names[1]}{among(names[0])}, got {show(value)}{nearest(value, names)}")


def choices(value: Any, names: tuple[frozenset[str], str]) -> None:
    """Take an array of names out of a set."""
    if type(value) is list:
        try:
            if names[0].issuperset(value):
                return
        except TypeError:  # unhashable, so no string: the slow way says which
            pass
    array(value, (choice, names))


def strings(value: Any, _: Any) -> None:
    """Take an array of strings."""
    if type(value) is list:
        try:
            if "\0" not in "".join(value):
                return
        except TypeError:
            pass
    array(value, STRING)


def some_strings(value: Any, use: str) -> None:
    """Take an array of at least one string; `use` says what it is for."""
    strings(value, None)
    if not value:
        raise Mistake(f"must not be empty: {use}")


def array(value: Any, kind: Kind) -> None:
    """Take an array of one kind; null is no element."""
    if type(value) is not list:
        raise Mistake(f"must be an array, got {name(value)}")
    check, argument = kind
    index = 0
    try:
        for item in value:
            check(item, argument)
            index += 1
    except Mistake as mistake:
        mistake.path.append(index)
        raise


def mapping(value: Any, rule: tuple[Callable[[str], str] | None, Kind]) -> None:
    """Take an object with free keys: a grammar for them or None, and the kind of the values."""
    if type(value) is not dict:
        raise Mistake(f"must be an object, got {name(value)}")
    grammar, (check, argument) = rule
    key = ""
    try:
        for key, item in value.items():
            if not key or "\0" in key:
                raise Mistake("a key must not be empty or contain a NUL character")
            complaint = grammar(key) if grammar else ""
            if complaint:
                raise Mistake(complaint)
            check(item, argument)
    except Mistake as mistake:
        mistake.path.append(key)
        raise


def record(value: Any, shape: Shape) -> None:
    """Take an object with known properties; others are passed over (spec: extensibility).

    A property that is null is one that is not set, as Go's callers mean it: it is taken out, so
    that nothing after the check has to know of it.
    """
    if type(value) is not dict:
        raise Mistake(f"must be an object, got {name(value)}")
    table, required, rule = shape
    unset = []
    key = ""
    try:
        for key, item in value.items():
            kind = table.get(key)
            if kind is None:
                continue
            if item is None and kind[0] is not identity:
                unset.append(key)
            else:
                kind[0](item, kind[1])
    except Mistake as mistake:
        mistake.path.append(key)
        raise
    for key in unset:
        del value[key]
    for key in required:
        if key not in value:
            from .words import expected

            raise Mistake(f"is missing, must be {expected(table[key])}", key)
    if rule is not None:
        rule(value)


BOOLEAN: Final = (boolean, None)
STRING: Final = (string, None)
STRINGS: Final = (strings, None)
ABSOLUTE: Final = (absolute, None)
IDENTITY: Final = (identity, None)


def made_of(value: str, characters: str) -> bool:
    """Tell whether a string has at least one character and only those given."""
    return bool(value) and not value.strip(characters)


DIGITS: Final = "0123456789"
ALNUM: Final = DIGITS + "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def ranges(value: str, last: int) -> list[tuple[int, int]]:
    """Parse the list format of cpuset(7), as far as the spec has it: "0-3,7".

    Empty parts and spaces are allowed, as the schema's pattern and runc have it.  No number may
    be larger than `last`: a mask of 2^40 bits must not be made.  Raises Mistake.
    """
    result = []
    for part in value.split(","):
        item = part.strip(" ")
        if not item:
            continue
        low, dash, high = item.partition("-")
        if not dash:
            high = low
        if not (made_of(low, DIGITS) and made_of(high, DIGITS)):
            raise Mistake(f'must be a list of numbers and ranges like "0-3,7", got {show(value)}')
        if len(low) > 9 or len(high) > 9 or int(high) > last:
            raise Mistake(f"must not name a number above {last}, got {show(item)}")
        if int(low) > int(high):
            raise Mistake(f"has a range that runs backwards: {show(item)}")
        result.append((int(low), int(high)))
    return result


def interface(value: str) -> str:
    """Complain about what cannot be the name of a network interface (dev_valid_name)."""
    if not value or len(value.encode("utf-8", "surrogatepass")) > 15:
        return f"must be an interface name of 1 to 15 bytes, got {show(value)}"
    if value in (".", "..") or "/" in value or ":" in value or value.split() != [value]:
        return f"must be an interface name without slash, colon or space, got {show(value)}"
    return ""
