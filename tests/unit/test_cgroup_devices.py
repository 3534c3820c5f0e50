"""Device rules: the lines for v1, and the eBPF program run by a small interpreter of its own."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.cgroup import devices
from anocir.errors import Error

pytestmark = pytest.mark.unit

BITS = {"m": 1, "r": 2, "w": 4}


def run(code, kind, access, major, minor):
    """Interpret the instructions that a device program may have; anything else is a KeyError."""
    context = {0: access << 16 | {"b": 1, "c": 2}[kind], 4: major, 8: minor}
    registers = {}
    program = [struct.unpack("<BBhi", code[i : i + 8]) for i in range(0, len(code), 8)]
    at = 0
    for _ in range(len(program)):
        op, both, offset, value = program[at]
        dst, src = both & 15, both >> 4
        at += 1
        if op == 0x61:
            assert src == 1
            registers[dst] = context[offset]
        elif op == 0xBC:
            registers[dst] = registers[src]
        elif op == 0x54:
            registers[dst] &= value & 0xFFFFFFFF
        elif op == 0x74:
            registers[dst] >>= value
        elif op == 0xB7:
            registers[dst] = value
        elif op == 0x55:
            at += offset if registers[dst] != value else 0
        elif op == 0x15:
            at += offset if registers[dst] == value else 0
        elif op == 0x95:
            return registers[0]
        else:
            raise KeyError(op)
    raise AssertionError("the program does not end")


def oracle(entries, kind, access, major, minor):
    """config-linux.md word for word: in order, a later rule wins, for each access on its own."""
    defaults = [
        {"allow": True, "type": t, "major": a, "minor": b, "access": x}
        for t, a, b, x in [
            ("c", None, None, "m"), ("b", None, None, "m"), ("c", 1, 3, "rwm"), ("c", 1, 8, "rwm"),
            ("c", 1, 7, "rwm"), ("c", 5, 0, "rwm"), ("c", 1, 5, "rwm"), ("c", 1, 9, "rwm"),
            ("c", 136, None, "rwm"), ("c", 5, 2, "rwm"), ("c", 10, 200, "rwm"),
        ]
    ]  # fmt: skip
    for letter, bit in BITS.items():
        if not access & bit:
            continue
        allowed = False
        for rule in (*entries, *defaults):
            if (
                rule.get("type", "a") in ("a", kind)
                and rule.get("major") in (None, major)
                and rule.get("minor") in (None, minor)
                and letter in rule.get("access", "rwm")
            ):
                allowed = rule["allow"]
        if not allowed:
            return 0
    return 1


NUMBERS = st.sampled_from([0, 1, 3, 5, 8, 10, 136, 200, 4095])
ENTRY = st.fixed_dictionaries(
    {"allow": st.booleans()},
    optional={
        "type": st.sampled_from("abc"),
        "major": NUMBERS,
        "minor": NUMBERS,
        "access": st.sampled_from(["r", "w", "m", "rw", "wr", "rm", "wm", "rwm", "mwr"]),
    },
)


@given(st.lists(ENTRY, max_size=8), st.sampled_from("bc"), st.integers(1, 7), NUMBERS, NUMBERS)
def test_the_program_decides_as_the_specification_says(entries, kind, access, major, minor):
    code = devices.program(devices.parse(entries))
    assert run(code, kind, access, major, minor) == oracle(entries, kind, access, major, minor)


@given(st.lists(ENTRY, max_size=8))
def test_every_jump_stays_in_the_program_and_goes_forward(entries):
    code = devices.program(devices.parse(entries))
    assert len(code) % 8 == 0
    count = len(code) // 8
    for index in range(count):
        op, _, offset, _ = struct.unpack("<BBhi", code[index * 8 : index * 8 + 8])
        if op in (0x55, 0x15):
            assert offset > 0
            assert index + 1 + offset < count
    assert code[-8] == 0x95


@given(st.lists(ENTRY, max_size=8))
def test_no_program_is_left_out_unless_everything_is_allowed(entries):
    if devices.allows_all(devices.parse(entries)):
        for kind in "bc":
            assert oracle(entries, kind, 7, 8, 0) == 1


def test_the_caller_s_rules_come_first_on_v1_and_the_defaults_after():
    entries = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 20, "access": "rw"},
    ]
    lines = devices.v1_lines(devices.parse(entries))
    assert lines[:5] == [
        ("devices.deny", "a", False),
        ("devices.allow", "c 10:229 rwm", False),
        ("devices.allow", "b 8:20 rw", False),
        ("devices.allow", "c *:* m", True),
        ("devices.allow", "b *:* m", True),
    ]
    assert ("devices.allow", "c 10:200 rwm", True) in lines
    assert len(lines) == 14


def test_without_rules_only_the_defaults_are_allowed():
    lines = devices.v1_lines([])
    assert lines[0] == ("devices.deny", "a", False)
    assert all(own for _, _, own in lines[1:])


def test_a_privileged_container_needs_one_line_and_no_program():
    rules = devices.parse([{"allow": False}, {"allow": True, "access": "rwm"}])
    assert devices.v1_lines(rules) == [("devices.allow", "a", False)]
    assert devices.allows_all(rules)


@pytest.mark.parametrize("allow", [True, False])
def test_no_part_of_a_rule_can_be_taken_back_on_v1(allow):
    """The kernel would take the line and do nothing (security/device_cgroup.c)."""
    entries = [
        {"allow": not allow, "access": "rwm"},
        {"allow": allow, "type": "c", "major": 9},
        {"allow": not allow, "type": "c", "major": 9, "minor": 4, "access": "w"},
    ]
    verb = "allowed" if allow else "denied"
    with pytest.raises(
        Error, match=rf"^linux\.resources\.devices\[2\]: c 9:4 w is {verb} by the rule "
    ):
        devices.v1_lines(devices.parse(entries))


def test_a_rule_for_several_takes_each_of_them_back_on_v1():
    entries = [
        {"allow": False},
        {"allow": True, "type": "c", "major": 9, "minor": 4},
        {"allow": True, "type": "c", "major": 9, "minor": 5, "access": "rw"},
        {"allow": False, "type": "c", "major": 9, "access": "w"},
    ]
    assert devices.v1_lines(devices.parse(entries))[3:6] == [
        ("devices.deny", "c 9:* w", False),
        ("devices.deny", "c 9:4 w", False),
        ("devices.deny", "c 9:5 w", False),
    ]


def test_all_types_with_a_number_are_two_lines_since_the_kernel_takes_a_as_everything():
    lines = devices.v1_lines(devices.parse([{"allow": True, "major": 5, "access": "r"}]))
    assert lines[1:3] == [
        ("devices.allow", "c 5:* r", False),
        ("devices.allow", "b 5:* r", False),
    ]


@pytest.mark.parametrize(
    ("entry", "path"),
    [
        ({"allow": True, "type": "p"}, "linux.resources.devices[0].type"),
        ({"allow": True, "access": "rx"}, "linux.resources.devices[0].access"),
        ({"allow": True, "major": -2}, "linux.resources.devices[0].major"),
        ({"allow": True, "minor": 1 << 40}, "linux.resources.devices[0].minor"),
    ],
)
def test_a_bad_rule_is_refused_with_its_path(entry, path):
    with pytest.raises(Error) as error:
        devices.parse([entry])
    assert error.value.text.startswith(path)
