"""Classic BPF as seccomp has it: the ENOSYS prologue, and an evaluator.

Side: pure.  A program is a sequence of struct sock_filter {u16 code; u8 jt, jf; u32 k}; it reads
struct seccomp_data {int nr; u32 arch; u64 instruction_pointer, args[6]} and returns an action.

Sources: seccomp(2), Documentation/networking/filter.rst, seccomp_check_filter in
kernel/seccomp.c for the instructions that are allowed.
"""

from __future__ import annotations

from _struct import Struct

from ..errors import Error, strerror
from ..linux.nr import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Final

# include/uapi/linux/bpf_common.h
LD_ABS: Final = 0x20
JMP_JA: Final = 0x05
JMP_JEQ: Final = 0x15
JMP_JGT: Final = 0x25
JMP_JGE: Final = 0x35
RET_K: Final = 0x06
# include/uapi/linux/filter.h: BPF_MAXINSNS
MAX_INSTRUCTIONS: Final = 4096
# include/uapi/linux/audit.h
ARCH_X86_64: Final = 0xC000003E
_NATIVE: Final = {
    "aarch64": 0xC00000B7,
    "loongarch64": 0xC0000102,
    "ppc64le": 0xC0000015,
    "riscv64": 0xC00000F3,
    "s390x": 0x80000016,
    "x86_64": ARCH_X86_64,
}
_ENOSYS: Final = 38
_RET_ENOSYS: Final = 0x00050000 | _ENOSYS
_NR: Final = 0
_ARCH: Final = 4
X32_BIT: Final = 0x40000000
# No number is above it
NO_NUMBER: Final = 0xFFFFFFFF
_WORD: Final = 0xFFFFFFFF

INSTRUCTION: Final = Struct("=HBBI")
_DATA: Final = Struct("=iIQ6Q")


def native_arch() -> int:
    """Return this machine's AUDIT_ARCH_* value."""
    if MACHINE not in _NATIVE:
        raise Error(f"seccomp: no AUDIT_ARCH value is known for {MACHINE}")
    return _NATIVE[MACHINE]


def enosys_prologue(newest: Mapping[int, tuple[int, int]]) -> bytes:
    """Return instructions that answer ENOSYS to numbers above the newest one a profile names.

    A C library tries a new call and falls back to an old one on ENOSYS, but not on the EPERM of
    a profile that was written before the call existed.  `newest` maps an AUDIT_ARCH_* value to
    the highest number below X32_BIT and the highest one above it, NO_NUMBER for "all pass".  What
    the prologue does not answer goes on to the program behind it.
    """
    sections = [_section(arch, *newest[arch]) for arch in sorted(newest)]
    if not sections:
        return b""
    left = sum(len(section) for section in sections)
    code = [(LD_ABS, 0, 0, _ARCH)]
    for section in sections:
        left -= len(section)
        code += section[:-1]
        code.append((JMP_JA, 0, 0, left))
    return b"".join(INSTRUCTION.pack(*instruction) for instruction in code)


def _section(arch: int, number: int, x32: int) -> list[tuple[int, int, int, int]]:
    """Return what one architecture needs; the last jump leads out and is set by the caller."""
    if arch == ARCH_X86_64:
        # The kernel gives x32 calls the same AUDIT_ARCH value, so they are told by their number.
        body = [
            (LD_ABS, 0, 0, _NR),
            (JMP_JGE, 1, 0, X32_BIT),
            (JMP_JGT, 1, 2, number),
            (JMP_JGT, 0, 1, x32),
        ]
    else:
        body = [(LD_ABS, 0, 0, _NR), (JMP_JGT, 0, 1, number)]
    body += [(RET_K, 0, 0, _RET_ENOSYS), (JMP_JA, 0, 0, 0)]
    return [(JMP_JEQ, 0, len(body), arch), *body]


def describe(value: int) -> str:
    """Return what a program's answer means, in words for people."""
    data = value & 0xFFFF
    return {
        0x80000000: "kill the process",
        0x00000000: "kill the thread",
        0x00030000: "raise SIGSYS",
        0x00050000: f"fail with errno {data} ({strerror(data)})",
        0x7FC00000: "ask the agent",
        0x7FF00000: f"tell the tracer {data}",
        0x7FFC0000: "allow and log",
        0x7FFF0000: "allow",
    }.get(value & 0xFFFF0000, f"kill the process (unknown action {value:#x})")


def chain(programs: list[bytes], onward: int) -> bytes:
    """Return one program of several: where one returns `onward`, the next one starts."""
    result = []
    for bpf in programs[:-1]:
        code = decode(bpf)
        for at, (op, _, _, k) in enumerate(code):
            if op == RET_K and k == onward:
                code[at] = (JMP_JA, 0, 0, len(code) - at - 1)
        result.append(b"".join(INSTRUCTION.pack(*instruction) for instruction in code))
    return b"".join(result) + programs[-1]


def decode(bpf: bytes) -> list[tuple[int, int, int, int]]:
    """Return the instructions of a program as tuples of code, jt, jf, k."""
    if not bpf or len(bpf) % INSTRUCTION.size:
        raise ValueError(f"a BPF program cannot be {len(bpf)} bytes long")
    return list(INSTRUCTION.iter_unpack(bpf))


def run(bpf: bytes, nr: int, args: tuple[int, ...], arch: int, ip: int = 0) -> int:
    """Return the 32-bit value that the program returns for one call."""
    padded = tuple(args) + (0,) * (6 - len(args))
    number = (nr & _WORD) - ((nr & 0x80000000) << 1)
    packed = _DATA.pack(number, arch, ip, *[arg & 0xFFFFFFFFFFFFFFFF for arg in padded])
    data: list[int | None] = list(Struct("=16I").unpack(packed))
    (value,) = _results(decode(bpf), data)
    return value


def outcomes(code: list[tuple[int, int, int, int]], nr: int, arch: int) -> list[int]:
    """Return every value that a decoded program may return for a call with any arguments at all.

    Comparisons are not related to each other, so there may be a value too many, never too few.
    """
    data: list[int | None] = [nr & _WORD, arch] + [None] * 14
    return sorted(_results(code, data))


def _results(code: list[tuple[int, int, int, int]], data: list[int | None]) -> set[int]:
    """Follow every way through the program; None stands for a value that is not known."""
    results: set[int] = set()
    start: tuple[int, int | None, int | None, tuple[int | None, ...]] = (0, 0, 0, (0,) * 16)
    todo = [start]
    seen = {start}
    while todo:
        pc, a, x, memory = todo.pop()
        op, jump_true, jump_false, k = code[pc]
        targets: tuple[int, ...] = (pc + 1,)
        kind = op & 0x07
        if kind == 0x06:  # BPF_RET
            value = a if op & 0x18 == 0x10 else k
            if value is None:
                raise ValueError("the program returns an argument")
            results.add(value)
            continue
        if kind == 0x05:  # BPF_JMP
            targets = _jump(pc, op, jump_true, jump_false, k, a, x)
        elif kind == 0x04:  # BPF_ALU
            a = _arithmetic(op, a, x if op & 0x08 else k)
        elif kind in (0x02, 0x03):  # BPF_ST, BPF_STX
            memory = (*memory[:k], a if kind == 0x02 else x, *memory[k + 1 :])
        elif kind == 0x07:  # BPF_MISC
            a, x = (x, x) if op & 0x80 else (a, a)
        else:
            value = _load(op, k, data, memory)
            a, x = (value, x) if kind == 0x00 else (a, value)
        for target in targets:
            state = (target, a, x, memory)
            if state not in seen:
                seen.add(state)
                todo.append(state)
    return results


def _load(op: int, k: int, data: list[int | None], memory: tuple[int | None, ...]) -> int | None:
    mode = op & 0xF8
    if mode == 0x20 and not k % 4:  # BPF_ABS, 32 bits, aligned: all that seccomp allows
        return data[k // 4]
    if mode == 0x60:  # BPF_MEM
        return memory[k]
    if mode == 0x00:  # BPF_IMM
        return k
    if mode == 0x80:  # BPF_LEN
        return _DATA.size
    raise ValueError(f"seccomp does not allow the instruction {op:#x} {k:#x}")


def _jump(
    pc: int, op: int, jump_true: int, jump_false: int, k: int, a: int | None, x: int | None
) -> tuple[int, ...]:
    condition = op & 0xF0
    if condition == 0x00:  # BPF_JA
        return (pc + 1 + k,)
    operand = x if op & 0x08 else k
    if a is None or operand is None:
        return (pc + 1 + jump_true, pc + 1 + jump_false)
    if condition == 0x10:
        holds = a == operand
    elif condition == 0x20:
        holds = a > operand
    elif condition == 0x30:
        holds = a >= operand
    elif condition == 0x40:
        holds = bool(a & operand)
    else:
        raise ValueError(f"seccomp does not allow the instruction {op:#x}")
    return (pc + 1 + (jump_true if holds else jump_false),)


def _arithmetic(op: int, a: int | None, operand: int | None) -> int | None:
    code = op & 0xF0
    if a is None or operand is None:
        return None
    if code == 0x80:
        return -a & _WORD
    if code in (0x30, 0x90) and not operand:
        raise ValueError("division by zero")
    result = {
        0x00: a + operand,
        0x10: a - operand,
        0x20: a * operand,
        0x30: a // (operand or 1),
        0x40: a | operand,
        0x50: a & operand,
        0x60: a << (operand & 31),
        0x70: a >> (operand & 31),
        0x90: a % (operand or 1),
        0xA0: a ^ operand,
    }[code]
    return result & _WORD
