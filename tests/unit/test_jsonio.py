"""JSON: the same as the public package says, and stricter where two readers could disagree."""

from __future__ import annotations

import json
import re
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.base import jsonio
from anocir.errors import Error
from tests import drive

pytestmark = pytest.mark.unit

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(1 << 70), 1 << 70),
    st.floats(allow_nan=False, allow_infinity=False), TEXT,
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=25,
)


@pytest.fixture(params=["C scanner", "public package"])
def way(request, monkeypatch):
    """Run a test with the C halves, and with what is used where they are missing."""
    if request.param == "public package":
        monkeypatch.setattr(jsonio, "_c", None)
    else:
        assert jsonio._c is not None, "this interpreter should have it"
    return request.param


@given(VALUES, st.sampled_from([None, 0, 1, 2, 4]), st.booleans())
def test_what_the_public_package_writes_is_read_alike(value, indent, ascii_only) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    assert jsonio.loads(data) == json.loads(data) == value


def quiet(text: str) -> str:
    """With the escapes that we add, for what acts on a terminal."""
    acting = re.compile("[\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
    return acting.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


@given(VALUES, st.booleans())
def test_compact_text_is_that_of_the_public_package(value, sort_keys) -> None:
    expected = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=sort_keys)
    assert jsonio.dumps(value, sort_keys=sort_keys) == quiet(expected)


@given(VALUES, st.integers(1, 4), st.booleans())
def test_indented_text_is_that_of_the_public_package(value, indent, sort_keys) -> None:
    expected = json.dumps(value, indent=indent, ensure_ascii=False, sort_keys=sort_keys)
    assert jsonio.dumps(value, indent, sort_keys) == quiet(expected)


@given(st.text('[]{}":,0-9.eE+\\ \n\ttrufalsn/u', max_size=30))
def test_anything_is_read_alike_or_refused(text: str) -> None:
    """What we take the public package takes with the same result; the reverse but for our refusals."""
    try:
        expected = json.loads(text, parse_constant=lambda name: 1 / 0)
        public = True
    except (ValueError, ZeroDivisionError, RecursionError):
        public = False
    try:
        value = jsonio.loads(text.encode())
    except Error as error:
        strict = ("duplicate key", "out of range", "surrogate")
        assert not public or any(word in error.text for word in strict), error.text
        return
    assert public and value == expected


@given(st.binary(max_size=40))
def test_any_bytes_give_a_value_or_an_error(data: bytes) -> None:
    try:
        jsonio.loads(data)
    except Error as error:
        assert "\n" not in error.text


REFUSED = [
    (b"", "empty, expected a JSON document (EOF)"),
    (b" \n\t", "empty, expected a JSON document (EOF)"),
    (b'{"a":1,"b":2,"a":3}', "duplicate key 'a'"),
    (b'{"o":{"\\u0061":1,"a":1}}', "duplicate key 'a'"),
    (b"NaN", "NaN is not JSON"),
    (b"[Infinity]", "Infinity is not JSON"),
    (b"[-Infinity]", "-Infinity is not JSON"),
    (b"1e999", "number 1e999 is out of range"),
    (b"-1e999", "number -1e999 is out of range"),
    (b"{} {}", "unexpected text after the document at character 3"),
    (b"1 x", "unexpected text after the document at character 2"),
    (b'"\\ud800"', "lone surrogate"),
    (b'{"\\udc00":1}', "lone surrogate in ['\\udc00']"),
    (b'{"a":[{"b":"x","c d":"\\ud800"}]}', "lone surrogate in a[0]['c d']"),
    (b'{"a":{"b":[1,"\\udfff"]}}', "lone surrogate in a.b[1]"),
    (b'[["\\ud800x"]]', "lone surrogate"),
    (b"\xff", "not UTF-8 at byte 0"),
    (b'{"a":"\xc3"}', "not UTF-8 at byte 6"),
    (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
    ("\ufeff{}".encode(), "byte order mark"),
    (b"[" * 501 + b"]" * 501, "nested deeper than 500 levels"),
    (b'{"a":' * 501 + b"1" + b"}" * 501, "nested deeper than 500 levels"),
    (b"[" * 100_000, "nested deeper than 500 levels"),
]
if hasattr(sys, "get_int_max_str_digits"):  # before that such a number is read
    REFUSED.append((b'{"a":' + b"9" * 4301 + b"}", "a number in it is too large"))


@pytest.mark.parametrize(("data", "error"), REFUSED)
def test_what_two_readers_could_read_differently_is_refused(way, data: bytes, error: str) -> None:
    with pytest.raises(Error) as caught:
        jsonio.loads(data, "config.json")
    assert caught.value.text.startswith("config.json: ")
    assert error.lower() in caught.value.text.lower()


BROKEN = [b"{", b"[1,]", b'{"a"}', b'{"a":1,}', b"{'a':1}", b'"abc', b'"a\nb"', b"tru", b"01", b"1.", b".5", b"+1",
          b"[1 2]", b'"\\x"', b'"\\u12"', b"]", b"{]", b'{"a":}', b"nul", b"--1", b"0x10", b"1_000"]  # fmt: skip


@pytest.mark.parametrize("data", BROKEN)
def test_what_is_not_json_is_refused_in_one_line(way, data: bytes) -> None:
    with pytest.raises(Error) as caught:
        jsonio.loads(data)
    assert caught.value.text.startswith("JSON: ") and "\n" not in caught.value.text
    assert caught.value.text[6].islower()
    with pytest.raises(ValueError):
        json.loads(data)


def test_a_place_in_a_long_text_is_told_by_line_and_column() -> None:
    """In a process without the public package, as the commands are."""
    code = (
        "import sys\nfrom anocir.base import jsonio\nfrom anocir.errors import Error\n"
        "assert 'json' not in sys.modules\n"
        "try: jsonio.loads(b'{\\n \"a\": 1,\\n \"b\" 2\\n}', 'config.json')\n"
        "except Error as error: print(error.text)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=drive.REPOSITORY
    )
    assert done.stdout == "config.json: not JSON: expecting ':' delimiter (line 3, column 6)\n", (
        done.stderr
    )


def test_a_place_is_told_alike_whether_or_not_json_is_there(way) -> None:
    with pytest.raises(
        Error, match=r"^JSON: not JSON: expecting ':' delimiter \(line 2, column 5\)$"
    ):
        jsonio.loads(b'{\n"b" 2\n}')


@pytest.mark.parametrize("depth", [1, 499, 500])
def test_500_levels_are_read(way, depth: int) -> None:
    value = jsonio.loads(b"[" * depth + b"]" * depth)
    for _ in range(depth - 1):
        (value,) = value
    assert value == []


def test_brackets_in_strings_are_not_levels(way) -> None:
    text = json.dumps(["[{" * 1000, '\\"' + "[" * 1000, "]" * 3])
    assert jsonio.loads(text.encode()) == json.loads(text)
    many = [[] for _ in range(2000)]
    assert jsonio.loads(json.dumps(many).encode()) == many


def test_more_than_64_mib_is_refused_unread() -> None:
    with pytest.raises(Error, match="larger than 64 MiB"):
        jsonio.loads(b" " * (jsonio.MAX_SIZE + 1))


@pytest.mark.parametrize(
    "text", ["1" * 4000, "-" + "9" * 400, "1e308", "5e-324", "1.7976931348623157e308", "-0.0"]
)
def test_big_and_small_numbers_are_read_exactly(way, text: str) -> None:
    assert jsonio.loads(text.encode()) == json.loads(text)


def test_surrogate_pairs_are_one_character(way) -> None:
    assert jsonio.loads(b'"\\ud83d\\ude00"') == "😀"


def test_what_was_not_utf8_becomes_the_replacement_character(way) -> None:
    value = {"a\udcff": ["\udc80", "é"]}
    for indent in (None, 2):
        text = jsonio.dumps(value, indent)
        text.encode()
        assert json.loads(text) == {"a?": ["?", "é"]} or "�" in text


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf]])
def test_what_json_has_not_is_not_written(value) -> None:
    for indent in (None, 2):
        with pytest.raises(ValueError):
            jsonio.dumps(value, indent)


@pytest.mark.parametrize("value", [b"bytes", {1, 2}, object(), [b"x"]])
def test_other_types_are_not_written(way, value) -> None:
    with pytest.raises(TypeError):
        jsonio.dumps(value)


def test_a_structure_that_holds_itself_is_not_written(way) -> None:
    value: list = []
    value.append(value)
    with pytest.raises((ValueError, RecursionError)):
        jsonio.dumps(value)


def test_empty_containers_are_short_when_indented(way) -> None:
    assert jsonio.dumps({"a": [], "b": {}, "c": [{}]}, 2) == (
        '{\n  "a": [],\n  "b": {},\n  "c": [\n    {}\n  ]\n}'
    )


def test_tuples_are_lists(way) -> None:
    assert jsonio.dumps((1, (2,)), None) == "[1,[2]]"
    assert json.loads(jsonio.dumps((1, (2,)), 1)) == [1, [2]]


def test_a_directory_in_the_place_of_a_file_is_named() -> None:
    with pytest.raises(Error, match="^read /usr: is a directory$"):
        jsonio.load("/usr", piped=True)
