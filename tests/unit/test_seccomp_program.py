"""The evaluator of classic BPF and the ENOSYS prologue, against programs written by hand."""

from __future__ import annotations

import struct

import pytest

from anocir.seccomp import program
from tests.unit.seccomp_profiles import ALLOW, ENOSYS, EPERM, I386, X86_64

LD, LDX, JEQ, JGT, JGE, JSET, JA = 0x20, 0x01, 0x15, 0x25, 0x35, 0x45, 0x05
RET, RET_A, AND = 0x06, 0x16, 0x54


def code(*instructions: tuple[int, int, int, int]) -> bytes:
    """Pack instructions given as code, jt, jf, k."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in instructions)


@pytest.mark.parametrize(
    ("offset", "expected"),
    [
        (0, 0xFFFFFFFF),
        (4, X86_64),
        (8, 0x89ABCDEF),
        (12, 0x01234567),
        (16, 1),
        (20, 0),
        (24, 0xFFFFFFFF),
        (28, 0xFFFFFFFF),
        (56, 0x76543210),
        (60, 0xFEDCBA98),
    ],
)
def test_each_word_of_seccomp_data_is_where_the_kernel_has_it(offset: int, expected: int) -> None:
    args = (1, -1, 3, 4, 5, 0xFEDCBA9876543210)
    bpf = code((LD, 0, 0, offset), (RET_A, 0, 0, 0))
    assert program.run(bpf, -1, args, X86_64, 0x0123456789ABCDEF) == expected


@pytest.mark.parametrize(
    ("instruction", "below", "equal", "above"),
    [(JEQ, 0, 1, 0), (JGT, 0, 0, 1), (JGE, 0, 1, 1)],
)
@pytest.mark.parametrize("value", [1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE])
def test_comparisons_are_unsigned(
    instruction: int, below: int, equal: int, above: int, value: int
) -> None:
    bpf = code((LD, 0, 0, 16), (instruction, 0, 1, value), (RET, 0, 0, 1), (RET, 0, 0, 0))
    got = [program.run(bpf, 0, (value + step,), X86_64) for step in (-1, 0, 1)]
    assert got == [below, equal, above]


@pytest.mark.parametrize(
    ("op", "k", "expected"),
    [
        (0x04, 0xFFFFFFFF, 11),
        (0x14, 13, 0xFFFFFFFF),
        (0x24, 0x80000001, 12),
        (0x34, 5, 2),
        (0x44, 3, 15),
        (0x54, 10, 8),
        (0x64, 30, 0),
        (0x74, 2, 3),
        (0x84, 0, 0xFFFFFFF4),
        (0xA4, 5, 9),
    ],
)
def test_arithmetic_wraps_at_32_bits(op: int, k: int, expected: int) -> None:
    bpf = code((LD, 0, 0, 16), (op, 0, 0, k), (RET_A, 0, 0, 0))
    assert program.run(bpf, 0, (12,), X86_64) == expected


def test_scratch_memory_and_the_index_register_hold_what_was_put_there() -> None:
    bpf = code(
        (LD, 0, 0, 16),
        (0x02, 0, 0, 15),  # M[15] = A
        (0x07, 0, 0, 0),  # X = A
        (0x00, 0, 0, 5),  # A = 5
        (0x0C, 0, 0, 0),  # A += X
        (0x61, 0, 0, 15),  # X = M[15]
        (0x0C, 0, 0, 0),
        (0x03, 0, 0, 0),  # M[0] = X
        (0x60, 0, 0, 0),  # A = M[0]
        (0x1D, 0, 1, 0),  # A == X
        (RET, 0, 0, ALLOW),
        (RET, 0, 0, 0),
    )
    assert program.run(bpf, 0, (7,), X86_64) == ALLOW


@pytest.mark.parametrize(
    "bpf",
    [
        b"",
        b"1234567",
        code((0x28, 0, 0, 0), (RET, 0, 0, 0)),  # half words
        code((LD, 0, 0, 3), (RET, 0, 0, 0)),
    ],
)
def test_what_the_kernel_would_not_load_is_an_error(bpf: bytes) -> None:
    with pytest.raises(ValueError, match=r"BPF program|does not allow"):
        program.run(bpf, 0, (), X86_64)


def test_outcomes_follow_both_ways_where_an_argument_decides() -> None:
    bpf = code(
        (LD, 0, 0, 0),
        (JEQ, 0, 4, 59),
        (LD, 0, 0, 16),
        (AND, 0, 0, 1),
        (JEQ, 0, 1, 0),
        (RET, 0, 0, ALLOW),
        (RET, 0, 0, EPERM),
    )
    decoded = program.decode(bpf)
    assert program.outcomes(decoded, 59, X86_64) == sorted([ALLOW, EPERM])
    assert program.outcomes(decoded, 60, X86_64) == [EPERM]


def test_outcomes_of_a_long_chain_of_conditions_are_found_at_once() -> None:
    steps = [((LD, 0, 0, 16), (JEQ, 0, 0, value)) for value in range(2000)]
    bpf = code(*[item for pair in steps for item in pair], (RET, 0, 0, ALLOW))
    assert program.outcomes(program.decode(bpf), 1, X86_64) == [ALLOW]


@pytest.mark.parametrize(
    ("nr", "arch", "expected"),
    [
        (0, X86_64, ALLOW),
        (334, X86_64, ALLOW),
        (335, X86_64, ENOSYS),
        (0x3FFFFFFF, X86_64, ENOSYS),
        (0x40000000, X86_64, ALLOW),
        (0x40000221, X86_64, ALLOW),
        (0x40000222, X86_64, ENOSYS),
        (-1, X86_64, ENOSYS),
        (384, I386, ALLOW),
        (385, I386, ENOSYS),
        (-1, I386, ENOSYS),
        (9999, 0xC00000B7, ALLOW),
    ],
)
def test_prologue_answers_only_numbers_above_the_newest(nr: int, arch: int, expected: int) -> None:
    prologue = program.enosys_prologue({X86_64: (334, 0x40000221), I386: (384, program.NO_NUMBER)})
    assert program.run(prologue + code((RET, 0, 0, ALLOW)), nr, (), arch) == expected


def test_prologue_leaves_x32_numbers_to_the_program_unless_asked() -> None:
    bpf = program.enosys_prologue({X86_64: (334, program.NO_NUMBER)}) + code((RET, 0, 0, 0))
    assert program.run(bpf, 0x40000FFF, (), X86_64) == 0
    assert program.run(bpf, 335, (), X86_64) == ENOSYS


def test_no_architecture_no_prologue() -> None:
    assert program.enosys_prologue({}) == b""
