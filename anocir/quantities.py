"""Words of the command line that are numbers: whole ones, sizes, durations.

Side: host; pure.  Each reader raises ValueError, which says what the word must be.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

_LONGEST: Final = 1 << 30  # seconds


def integer(value: str) -> int:
    """Read a whole number of at most 19 digits."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 19:
        raise ValueError("an integer")
    return int(value)


def number(value: str) -> int:
    """Read a whole number as Go does where it knows no base: 0x10, 0b1, 1_000; 010 is eight."""
    digits = value[1:] if value[:1] in ("-", "+") else value
    plain = digits.replace("_", "")
    if digits[:1] == "0" and plain[1:].isdigit():
        digits = "0o" + digits[1:]
    try:
        if not (plain.isascii() and plain.isalnum() and digits[0].isdigit()) or len(plain) > 66:
            raise ValueError
        count = int(digits, 0)
    except ValueError:
        raise ValueError("an integer") from None
    count = -count if value[0] == "-" else count
    if not -1 << 63 <= count < 1 << 63:
        raise ValueError("an integer of 64 bits")
    return count


def size(value: str) -> int:
    """Read bytes with an optional unit, powers of 1024: 64m, 1.5GiB, 1024, -1."""
    text = value.strip().lower()
    number = text.rstrip("bi")
    shift = 0
    if number and number[-1] in "kmgtp":
        shift = 10 * ("kmgtp".index(number[-1]) + 1)
        number = number[:-1].rstrip()
    negative = number[:1] == "-"
    whole, _, part = number[number[:1] in ("-", "+") :].partition(".")
    known = text[len(text.rstrip("bi")) :] in ("", "b", "ib")
    digits = whole + part
    if not (known and digits.isascii() and digits.isdigit()) or len(digits) > 19:
        raise ValueError("a size such as 64m or -1")
    count = (int(digits) << shift) // int("1" + "0" * len(part))
    return -count if negative else count


_UNITS: Final = (
    ("ms", 1e-3), ("us", 1e-6), ("µs", 1e-6), ("ns", 1e-9), ("h", 3600.0), ("m", 60.0), ("s", 1.0),
)  # fmt: skip


def duration(value: str) -> float:
    """Read a duration of Go (1m30s, 500ms) or plain seconds."""
    total = 0.0
    rest = value
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = next((unit for unit in _UNITS if rest.startswith(unit[0])), None)
        if unit is None and rest == "" and total == 0:
            unit = ("", 1.0)
        if unit is None or not number.strip(".") or number.count(".") > 1:
            total = -1.0
            break
        total += float(number) * unit[1]
        rest = rest[len(unit[0]) :]
    if not value or total < 0 or total > _LONGEST:
        raise ValueError("a duration such as 5s")
    return total


READERS: Final[dict[str, Callable[[str], object]]] = {
    "int": integer,
    "number": number,
    "size": size,
    "duration": duration,
}
