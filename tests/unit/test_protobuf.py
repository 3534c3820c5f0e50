"""The messages of Protocol Buffers, by the examples of its own documentation and by going there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.base import protobuf
from anocir.base.protobuf import BYTES, INT, TEXT
from anocir.errors import Error
from anocir.host import criu

pytestmark = pytest.mark.unit

INNER: protobuf.Table = {"a": (1, INT)}
TABLE: protobuf.Table = {
    "a": (1, INT),
    "b": (2, TEXT),
    "c": (3, INNER),
    "d": (4, [INT]),
    "e": (5, [TEXT]),
    "f": (6, BYTES),
}


def test_the_examples_of_the_documentation() -> None:
    assert protobuf.encode({"a": 150}, TABLE) == bytes.fromhex("089601")
    assert protobuf.encode({"b": "testing"}, TABLE) == bytes.fromhex("120774657374696e67")
    assert protobuf.encode({"c": {"a": 150}}, TABLE) == bytes.fromhex("1a03089601")
    assert protobuf.varint(-2) == bytes.fromhex("feffffffffffffffff01")


def test_what_is_none_is_left_out_and_what_is_false_is_not() -> None:
    assert protobuf.encode({"a": None, "b": None, "d": []}, TABLE) == b""
    assert protobuf.encode({"a": False}, TABLE) == b"\x08\x00"


@given(
    st.fixed_dictionaries(
        {"d": st.lists(st.integers(0, 2**63 - 1)), "e": st.lists(st.text())},
        optional={
            "a": st.integers(-(2**63), 2**63 - 1),
            "b": st.text(),
            "c": st.fixed_dictionaries({}, optional={"a": st.integers(-1, 1)}),
            "f": st.binary(),
        },
    )
)
def test_there_and_back(message: dict[str, object]) -> None:
    assert protobuf.decode(protobuf.encode(message, TABLE), TABLE) == message


def test_fields_that_nobody_names_are_passed_over() -> None:
    """Numbers of each wire type: varint, 64 bits, counted, 32 bits."""
    unknown = bytes.fromhex("78 0179 01020304050607087a 02 ffff7d 01020304")
    assert protobuf.decode(unknown + b"\x08\x05", INNER) == {"a": 5}


@pytest.mark.parametrize(
    "data", ["08", "0896", "12 05 61", "0a 01 61", "0b", "08" + "ff" * 11 + "01", "7d 01"]
)
def test_what_is_no_message_is_an_error(data: str) -> None:
    with pytest.raises(Error, match="protobuf"):
        protobuf.decode(bytes.fromhex(data), TABLE)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        protobuf.decode(data, criu._RESPONSE)
    except Error as error:
        assert error.text.startswith("protobuf")
