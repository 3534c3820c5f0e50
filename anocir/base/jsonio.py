"""JSON on the C scanner and encoder of CPython, without the `json` package.

Side: host.  The `json` package imports `re`, which costs as much as the whole boot of the
interpreter.  Its C half, `_json`, needs only an object with a few attributes; where `_json` is
missing or differs, the public package is used.  `tests/unit/test_jsonio.py` checks that both
agree.
"""

from __future__ import annotations

import sys

from ..errors import Error, reason
from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    Json = Any

_c: Any
try:
    import _json as _c
except ImportError:  # another implementation of Python
    _c = None

MAX_SIZE: Final = 64 << 20
MAX_DEPTH: Final = 500


def _pairs(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    """Make a dict and refuse a key that stands twice: parsers disagree on which one counts."""
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise ValueError(f"duplicate key {key!a}")
            seen.add(key)
    return result


def _constant(name: str) -> Json:
    raise ValueError(f"the constant {name} is not JSON")


def _number(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"number {text[:40]} is out of range")
    return value


def _scanner() -> Any:
    if _c is not None:
        # What the C scanner reads its options from (the attributes of json.JSONDecoder).
        namespace: Any = type(sys.implementation)
        context = namespace(
            strict=True, object_hook=None, object_pairs_hook=_pairs, parse_float=_number,
            parse_int=int, parse_constant=_constant,
        )  # fmt: skip
        return _c.make_scanner(context)
    from json import JSONDecoder

    decoder: Any = JSONDecoder(
        object_pairs_hook=_pairs, parse_float=_number, parse_constant=_constant
    )
    return decoder.scan_once


_SPACE: Final = " \t\n\r"


def _skip(text: str, index: int) -> int:
    end = len(text)
    while index < end and text[index] in _SPACE:
        index += 1
    return index


def loads(data: bytes, name: str = "JSON") -> Json:
    """Parse one JSON document strictly.

    Refused: more than 64 MiB, anything but UTF-8 without a byte order mark, duplicate keys, NaN
    and numbers out of range, more than 500 levels, anything after the document, lone surrogates.
    `name` says in the error what was being read.  Raises Error.
    """
    if len(data) > MAX_SIZE:
        raise Error(f"{name}: larger than 64 MiB")
    if data[:3] == b"\xef\xbb\xbf":
        raise Error(f"{name}: begins with a byte order mark", "save it without one")
    try:
        text = data.decode("utf-8")
        # The scanner recurses in C; a document with few brackets cannot be deep.
        if data.count(b"[") + data.count(b"{") > MAX_DEPTH:
            from . import strict

            strict.check_depth(text, MAX_DEPTH)
        value, end = _scanner()(text, _skip(text, 0))
        end = _skip(text, end)
        if end != len(text):
            raise ValueError(f"unexpected text after the document at character {end}")
        if "\\u" in text or "\\U" in text:
            from . import strict

            strict.refuse_surrogates(value)
    except (StopIteration, SystemError, ValueError, RecursionError, OverflowError) as error:
        from . import strict

        raise Error(f"{name}: {strict.complaint(error, data)}") from None
    return value


def _default(value: object) -> Json:
    raise TypeError(f"{type(value).__name__} is not JSON")


def dumps(value: Json, indent: int | None = None, sort_keys: bool = False) -> str:
    """Return JSON text: compact in one line, or indented by `indent` spaces.

    Text outside of ASCII is kept; a byte that was not UTF-8 (surrogateescape) becomes "?".
    """
    if _c is None:
        import json

        separators = (",", ":") if indent is None else (",", ": ")
        return _clean(
            json.dumps(
                value, ensure_ascii=False, indent=indent, sort_keys=sort_keys,
                separators=separators,
            )
        )  # fmt: skip
    if indent is not None:
        return _clean(_indented(value, "\n", " " * indent, sort_keys))
    encoder = _c.make_encoder(
        {}, _default, _c.encode_basestring, None, ":", ",", sort_keys, False, False
    )
    return _clean("".join(encoder(value, 0)))


def _clean(text: str) -> str:
    if text.isascii() and "\x7f" not in text:
        return text
    from . import strict

    return text.translate(strict.ACTING).encode("utf-8", "replace").decode("utf-8")


def _indented(value: Json, line: str, step: str, sort_keys: bool) -> str:
    """Lay out containers over several lines, since the C encoder only writes one."""
    if type(value) is str:
        text: str = _c.encode_basestring(value)
        return text
    if type(value) is int:
        return str(value)
    deeper = line + step
    if isinstance(value, dict) and value:
        keys = sorted(value) if sort_keys else list(value)
        items = [
            f"{_c.encode_basestring(str(key))}: {_indented(value[key], deeper, step, sort_keys)}"
            for key in keys
        ]
        return "{" + deeper + ("," + deeper).join(items) + line + "}"
    if isinstance(value, (list, tuple)) and value:
        items = [_indented(item, deeper, step, sort_keys) for item in value]
        return "[" + deeper + ("," + deeper).join(items) + line + "]"
    return dumps(value)


def load(path: str, piped: bool = False, kind: type = dict, option: str = "") -> Json:
    """Read a JSON object (or, with `kind` list, an array) from a file, unchecked.  Raises Error.

    A FIFO or a device would hold the runtime up for ever, so only a regular file is read; a
    `piped` object is one that the caller writes at the same time (/dev/stdin, a shell's <(...)).
    An error begins with the `option` that named the file.
    """
    before = f"{option}: " if option else ""
    try:
        flags = files.O_RDONLY | files.O_NOCTTY
        fd = files.open(path, flags if piped else flags | files.O_NONBLOCK)
        try:
            if not piped and files.kind(files.fstat(fd)) != files.S_IFREG:
                raise Error(f"{before}read {path}: not a regular file")
            data = files.read_fd(fd, MAX_SIZE + 1)
        finally:
            files.close(fd)
    except OSError as error:
        name = "" if error.filename else f"{path}: "
        raise Error(f"{before}read {name}{reason(error)}") from None
    value = loads(data, before + path)
    if type(value) is not kind:
        raise Error(f"{before}{path}: must hold a JSON {'object' if kind is dict else 'array'}")
    return value
