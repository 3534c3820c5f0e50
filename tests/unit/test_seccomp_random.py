"""Random profiles: libseccomp's program against a direct reading of the profile.

The reading knows nothing of BPF: it takes config-linux.md's words one rule at a time, with numbers
from the kernel's tables written down here.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anocir import seccomp
from anocir.errors import Error
from tests.unit.seccomp_profiles import (
    ALLOW,
    ENOSYS,
    I386,
    KILL_THREAD,
    X86_64,
    compiled,
    needs_libseccomp,
    needs_x86_64,
)

pytestmark = [needs_libseccomp, needs_x86_64]

X32 = 0x40000000
# syscall_64.tbl (64 and x32 columns) and syscall_32.tbl; None: not there
TABLE: dict[str, tuple[int | None, int | None, int | None]] = {
    "read": (0, X32 | 0, 3),
    "getpid": (39, X32 | 39, 20),
    "clone": (56, X32 | 56, 120),
    "execve": (59, X32 | 520, 11),
    "getuid": (102, X32 | 102, 24),
    "personality": (135, X32 | 135, 136),
    "prctl": (157, X32 | 157, 172),
    "openat": (257, X32 | 257, 295),
    "newfstatat": (262, X32 | 262, None),
    "chown32": (None, None, 212),
    "getrandom": (318, X32 | 318, 355),
    "close_range": (436, X32 | 436, 436),
    "no_such_call": (None, None, None),
}
COLUMNS = {"SCMP_ARCH_X86_64": 0, "SCMP_ARCH_X32": 1, "SCMP_ARCH_X86": 2}
ACTIONS: dict[str, int] = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
DENYING = ("SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP")
# Rules with nothing but these go to libseccomp together, which has an order of its own
EASY = ("SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ")
VALUES = st.sampled_from(
    [0, 1, 2, 8, 0x7E020000, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1]
)
CONDITIONS = st.fixed_dictionaries(
    {
        "index": st.integers(0, 2),
        "op": st.sampled_from(["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]).map(
            "SCMP_CMP_{}".format
        ),
        "value": VALUES,
        "valueTwo": VALUES,
    }
)


def value_of(action: str, errno: int | None) -> int:
    number = ACTIONS[action]
    if action in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        number |= 1 if errno is None else errno
    return number


@st.composite
def actions(draw: Any) -> dict[str, Any]:
    word = draw(st.sampled_from(sorted(ACTIONS)))
    result = {"action": word}
    if word in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") and draw(st.booleans()):
        result["errnoRet"] = draw(st.sampled_from([0, 1, 13, 38]))
    return result


@st.composite
def profiles(draw: Any) -> dict[str, Any]:
    default = draw(actions())
    result: dict[str, Any] = {"defaultAction": default["action"], "syscalls": []}
    if "errnoRet" in default:
        result["defaultErrnoRet"] = default["errnoRet"]
    if draw(st.booleans()):
        result["architectures"] = draw(st.lists(st.sampled_from(sorted(COLUMNS)), max_size=3))
    for _ in range(draw(st.integers(0, 5))):
        one = draw(actions())
        one["names"] = draw(st.lists(st.sampled_from(sorted(TABLE)), min_size=1, max_size=3))
        if draw(st.booleans()):
            one["args"] = draw(st.lists(CONDITIONS, min_size=1, max_size=3))
        result["syscalls"].append(one)
    return result


def holds(condition: dict[str, Any], args: tuple[int, ...], bits: int) -> bool:
    """Tell whether a condition holds; other architectures than x86_64 have 32-bit arguments."""
    cut = (1 << bits) - 1
    got, value = args[condition["index"]] & cut, condition["value"] & cut
    return {
        "SCMP_CMP_NE": got != value,
        "SCMP_CMP_LT": got < value,
        "SCMP_CMP_LE": got <= value,
        "SCMP_CMP_EQ": got == value,
        "SCMP_CMP_GE": got >= value,
        "SCMP_CMP_GT": got > value,
        "SCMP_CMP_MASKED_EQ": got & value == condition["valueTwo"] & cut & value,
    }[condition["op"]]


def matches(rule: dict[str, Any], args: tuple[int, ...], bits: int) -> bool:
    """Tell whether a rule matches: all its conditions, or any where two are on one argument."""
    conditions = rule.get("args", [])
    answers = [holds(condition, args, bits) for condition in conditions]
    repeated = len({condition["index"] for condition in conditions}) < len(conditions)
    return any(answers) if repeated else all(answers)


def expected(profile: dict[str, Any], nr: int, args: tuple[int, ...], arch: int) -> set[int]:
    """Return the answers that the profile permits: several only where rules overlap."""
    default = value_of(profile["defaultAction"], profile.get("defaultErrnoRet"))
    listed = {"SCMP_ARCH_X86_64", *profile.get("architectures", [])}
    column = {X86_64: 1 if nr & X32 else 0, I386: 2}.get(arch, -1)
    word = {number: name for name, number in COLUMNS.items()}.get(column)
    if word not in listed:
        return {KILL_THREAD}
    numbers = [TABLE[name][column] for rule in profile["syscalls"] for name in rule["names"]]
    newest = max((number for number in numbers if number is not None), default=None)
    if (
        profile["defaultAction"] in DENYING
        and profile.get("defaultErrnoRet") != 38
        and newest is not None
        and nr > newest
    ):
        return {ENOSYS}
    bits = 64 if column == 0 else 32
    matching = []
    easy = True
    for rule in profile["syscalls"]:
        action = value_of(rule["action"], rule.get("errnoRet"))
        named = nr in [TABLE[name][column] for name in rule["names"]]
        if action == default or not named:
            continue
        easy = easy and all(c["op"] in EASY for c in rule.get("args", []))
        if not matches(rule, args, bits):
            continue
        if not rule.get("args"):
            # A rule without conditions wins over those with some; the first of several counts.
            return {action}
        matching.append(action)
    if not easy:
        matching = matching[:1]
    return set(matching) or {default}


def unconditional_first(profile: dict[str, Any]) -> dict[str, Any]:
    return {**profile, "syscalls": sorted(profile["syscalls"], key=lambda rule: "args" in rule)}


CALLS = sorted(
    {
        (number, arch)
        for row in TABLE.values()
        for number, arch in zip(row, (X86_64, X86_64, I386))
        if number is not None
    }
    | {
        (number, arch)
        for number in (1, 317, 435, 437, 600, X32 | 1, X32 | 999)
        for arch in (X86_64, I386)
    }
    | {(39, 0xC00000B7)}
)


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(profiles(), st.lists(st.tuples(VALUES, VALUES, VALUES), min_size=1, max_size=6))
def test_the_program_answers_as_the_profile_reads(
    profile: dict[str, Any], tuples: list[tuple[int, ...]]
) -> None:
    try:
        bpf = compiled(profile)["bpf"]
    except Error as error:
        assert "contradicts an earlier rule" in error.text
        return
    reading = unconditional_first(profile)
    for nr, arch in CALLS:
        for args in tuples:
            got = seccomp.run(bpf, nr, args, arch)
            wanted = expected(reading, nr, args, arch)
            assert got in wanted, (hex(nr), hex(arch), args, hex(got), [hex(w) for w in wanted])


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(profiles(), st.tuples(VALUES, VALUES, VALUES))
def test_outcomes_hold_every_answer(profile: dict[str, Any], args: tuple[int, ...]) -> None:
    try:
        program = compiled(profile)
    except Error:
        return
    for name, (nr, _, _) in TABLE.items():
        if nr is not None and name in program["outcomes"]:
            assert seccomp.run(program["bpf"], nr, args, X86_64) in program["outcomes"][name]


def test_the_reading_itself_reads_a_simple_profile() -> None:
    wanted = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": ["getpid"], "action": "SCMP_ACT_ALLOW"}],
    }
    assert expected(wanted, 39, (0,) * 3, X86_64) == {ALLOW}
    assert expected(wanted, 0, (0,) * 3, X86_64) == {0x00050001}
    assert expected(wanted, 40, (0,) * 3, X86_64) == {ENOSYS}
    assert expected(wanted, 20, (0,) * 3, I386) == {KILL_THREAD}
