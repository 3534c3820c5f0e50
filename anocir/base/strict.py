"""What is wrong with a JSON document, and what must not be in one that is written.

Side: host.  For jsonio, which most documents never make come here.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Json = Any


def check_depth(text: str, most: int) -> None:
    """Raise ValueError when brackets outside of strings nest deeper than so many levels."""
    depth = 0
    index = 0
    end = len(text)
    while index < end:
        char = text[index]
        if char == '"':
            index += 1
            while index < end and text[index] != '"':
                index += 2 if text[index] == "\\" else 1
        elif char in "[{":
            depth += 1
            if depth > most:
                raise ValueError(f"nested deeper than {most} levels")
        elif char in "]}":
            depth -= 1
        index += 1


def complaint(error: BaseException, data: bytes) -> str:
    """Say in the form of our own errors why a document was refused."""
    if isinstance(error, (StopIteration, SystemError)):
        # The bare scanner has no exception class to raise: let the public package say where.
        return _why(data.decode("utf-8"))
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8 at byte {error.start}"
    if hasattr(error, "lineno"):  # since Python 3.13 the scanner imports json for its exception
        return _place(error)
    text = str(error)
    if not isinstance(error, ValueError) or not text[:1].islower():  # Python's own words
        return "a number in it is too large" if "digit" in text else "cannot be read as JSON"
    return text


def _why(text: str) -> str:
    """Say where and why a text is not JSON.  Imports json: this is the way out."""
    if not text.strip():
        return "empty, expected a JSON document (EOF)"
    import json

    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return _place(error)
    return "not JSON"


def _place(error: Any) -> str:
    """Say what a JSONDecodeError does, in the form of our own errors."""
    reason = error.msg[:1].lower() + error.msg[1:]
    for end in (" starting at", " at"):  # a place would follow
        reason = reason.removesuffix(end)
    return f"not JSON: {reason} (line {error.lineno}, column {error.colno})"


def refuse_surrogates(value: Json, path: str = "") -> None:
    """Refuse halves of surrogate pairs: no file name and no argument can hold them.

    `path` is the JSON path of the value, which the error names.
    """
    if isinstance(value, str):
        try:
            value.encode("utf-8")
        except UnicodeEncodeError:
            raise ValueError(f"lone surrogate in {path or 'a text'}") from None
    elif isinstance(value, dict):
        for key, item in value.items():
            refuse_surrogates(key, f"{path}[{key!a}]")
            plain = key.isascii() and key.isidentifier()
            part = f".{key}" if plain else f"[{key!a}]"
            refuse_surrogates(item, f"{path}{part}".lstrip("."))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            refuse_surrogates(item, f"{path}[{index}]")


# What acts on a terminal but is no control character to JSON: DEL, C1, line ends, directions.
ACTING: Final = {
    code: f"\\u{code:04x}"
    for code in (
        *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x2028, 0x202F), *range(0x2066, 0x206A), 0xFEFF,
    )
}  # fmt: skip
