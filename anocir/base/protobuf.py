"""Messages of Protocol Buffers, as much of them as CRIU speaks: varints and counted bytes.

Side: pure.  Source: protobuf.dev, Encoding.  The package `protobuf` is larger than all of anocir.

A table says what a message holds: name to (number, kind).  A kind is INT (also bool and enum),
TEXT, BYTES, the table of a message, or a list with one of these for a field that repeats.
"""

from __future__ import annotations

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any, Final

    Table = Mapping[str, tuple[int, Any]]
    Message = dict[str, Any]  # of the fields of some table

INT: Final = "int"
TEXT: Final = "text"
BYTES: Final = "bytes"

_VARINT, _FIXED64, _COUNTED, _FIXED32 = 0, 1, 2, 5


def varint(value: int) -> bytes:
    """Return a number in groups of seven bits, the low ones first; a negative one takes ten."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode(message: Mapping[str, Any], table: Table) -> bytes:
    """Return a message; a field that is None is left out.  Raises KeyError for an unknown one."""
    out = b""
    for name, value in message.items():
        number, kind = table[name]
        if isinstance(kind, list):
            out += b"".join(_field(number, kind[0], item) for item in value)
        elif value is not None:
            out += _field(number, kind, value)
    return out


def _field(number: int, kind: Any, value: Any) -> bytes:
    data: bytes
    if kind == INT:
        return varint(number << 3 | _VARINT) + varint(int(value))
    if kind == TEXT:
        data = value.encode("utf-8", "surrogateescape")
    elif kind == BYTES:
        data = value
    else:
        data = encode(value, kind)
    return varint(number << 3 | _COUNTED) + varint(len(data)) + data


def decode(data: bytes, table: Table) -> Any:
    """Return a dict with the fields that `table` names; others are passed over.

    Of two the last counts; of what is in a list all do.  Raises Error for what is no message.
    """
    by_number = {number: (name, kind) for name, (number, kind) in table.items()}
    result: Message = {name: [] for name, (_, kind) in table.items() if isinstance(kind, list)}
    for number, wire, value in _fields(data):
        if number not in by_number:
            continue
        name, kind = by_number[number]
        inner = kind[0] if isinstance(kind, list) else kind
        if wire != (_VARINT if inner == INT else _COUNTED):
            raise Error(f"protobuf: field {name} has another type")
        if isinstance(kind, list):
            result[name].append(_value(value, inner))
        else:
            result[name] = _value(value, inner)
    return result


def _value(value: Any, kind: Any) -> Any:
    if kind == TEXT:
        return value.decode("utf-8", "surrogateescape")
    return decode(value, kind) if isinstance(kind, dict) else value


def _fields(data: bytes) -> Iterator[tuple[int, int, Any]]:
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        value: Any
        if wire == _VARINT:
            value, at = _varint(data, at)
            if value >> 63:
                value -= 1 << 64
        elif wire in (_COUNTED, _FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
            if wire == _COUNTED:
                size, at = _varint(data, at)
            value = data[at : at + size]
            if len(value) < size:
                raise Error("protobuf: message ends in the middle of a field")
            at += size
        else:
            raise Error(f"protobuf: unknown wire type {wire}")
        yield tag >> 3, wire, value


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise Error("protobuf: message ends in the middle of a number")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & (1 << 64) - 1, at
        shift += 7
