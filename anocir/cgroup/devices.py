"""Which devices a container may use: rules as lines for cgroup v1, as an eBPF program for v2.

Side: pure.  Sources: config-linux.md, "Allowed Device list"; the kernel's
Documentation/admin-guide/cgroup-v1/devices.rst; include/uapi/linux/bpf.h (struct
bpf_cgroup_dev_ctx); security/device_cgroup.c for what v1 does with a rule.

The rules are evaluated in order, a later one wins, for each of read, write and mknod on its own.
Everything is denied before the first rule.  The runtime's own rules come after the caller's, so
that no caller can forget /dev/null; the conformance suite reads the caller's first.
"""

from __future__ import annotations

from _struct import pack

from ..errors import at

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from ..model.schema import DeviceRule

    # allow, type (a, b or c), major, minor (None for all), access
    Rule = tuple[bool, str, "int | None", "int | None", int]

# include/uapi/linux/bpf.h: BPF_DEVCG_ACC_*, BPF_DEVCG_DEV_*
MKNOD: Final = 1
READ: Final = 2
WRITE: Final = 4
_ALL: Final = MKNOD | READ | WRITE
_TYPE: Final = {"b": 1, "c": 2}
_BITS: Final = {"m": MKNOD, "r": READ, "w": WRITE}

# What every container may do: make any node, and use the devices of its own /dev.  tun is here
# since runc took it away in 1.2.0 and had to bring it back for VPNs in 1.2.4.  Not the console,
# 5:1: that is the host's, and the container's /dev/console is a pty.
DEFAULTS: Final[tuple[Rule, ...]] = (
    (True, "c", None, None, MKNOD),
    (True, "b", None, None, MKNOD),
    (True, "c", 1, 3, _ALL),  # null
    (True, "c", 1, 8, _ALL),  # random
    (True, "c", 1, 7, _ALL),  # full
    (True, "c", 5, 0, _ALL),  # tty
    (True, "c", 1, 5, _ALL),  # zero
    (True, "c", 1, 9, _ALL),  # urandom
    (True, "c", 136, None, _ALL),  # pts/*
    (True, "c", 5, 2, _ALL),  # ptmx
    (True, "c", 10, 200, _ALL),  # net/tun
)
_DENY_ALL: Final[Rule] = (False, "a", None, None, _ALL)


def parse(entries: list[DeviceRule] | None, source: str = "linux.resources.devices") -> list[Rule]:
    """Return the rules of config.json; what is not set means all."""
    rules: list[Rule] = []
    for index, entry in enumerate(entries or []):
        path = f"{source}[{index}]"
        kind = entry.get("type") or "a"
        if kind not in ("a", "b", "c", "u"):
            raise at(f"{path}.type", f"must be a, b or c, got {kind!a}")
        access = 0
        for letter in entry.get("access") or "rwm":
            if letter not in _BITS:
                raise at(f"{path}.access", f"must be made of r, w and m, got {entry['access']!a}")
            access |= _BITS[letter]
        numbers = [_number(entry.get(key), f"{path}.{key}") for key in ("major", "minor")]
        allow = entry.get("allow", False)
        rules.append((allow, "c" if kind == "u" else kind, numbers[0], numbers[1], access))
    return rules


def _number(value: object, source: str) -> int | None:
    if value is None or value == -1:  # -1: what Docker sends for all
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise at(source, f"must be a device number, got {value!a}")
    return value


def effective(rules: list[Rule]) -> list[Rule]:
    """Return the rules that decide: from the last one that covers everything, with the defaults."""
    result: list[Rule] = [_DENY_ALL]
    for rule in (*rules, *DEFAULTS):
        if rule[1:] == _DENY_ALL[1:]:
            result = [rule]
        elif not (rule[0] and result[0][0] and all(kept[0] for kept in result)):
            result.append(rule)  # allowing more where all is allowed says nothing
    return result


def v1_lines(rules: list[Rule]) -> list[tuple[str, str, bool]]:
    """Return (file, line, own) for each write to devices.allow or devices.deny.

    `own` says that the rule is the runtime's: a parent that does not have the device itself is
    then no reason to fail.  The kernel keeps exceptions to "all" or to "none"; it takes one back
    only if it is told the same numbers, and passes over anything else without an error.  So what
    a rule takes back is named, one by one.  Raises Error for a part of an exception.
    """
    lines: list[tuple[str, str, bool]] = []
    exceptions: dict[tuple[str, int | None, int | None], int] = {}
    everything = False
    for rule in effective(rules):
        allow, kind, major, minor, access = rule
        file = "devices.allow" if allow else "devices.deny"
        own = any(rule is default for default in DEFAULTS)
        if rule[1:] == _DENY_ALL[1:]:
            lines.append((file, "a", own))
            everything = allow
            continue
        # For "a" the kernel ignores numbers and access and takes everything.
        for each in "cb" if kind == "a" else kind:
            lines.append((file, _line(each, major, minor, access), own))
            if allow != everything:
                key = (each, major, minor)
                exceptions[key] = exceptions.get(key, 0) | access
            elif not own:
                for key, bits in _taken_back(rules, rule, each, exceptions):
                    lines.append((file, _line(*key, bits), False))
    return lines


def _line(kind: str, major: int | None, minor: int | None, access: int) -> str:
    letters = "".join(letter for letter in "rwm" if access & _BITS[letter])
    return f"{kind} {'*' if major is None else major}:{'*' if minor is None else minor} {letters}"


def _taken_back(
    rules: list[Rule],
    rule: Rule,
    kind: str,
    exceptions: dict[tuple[str, int | None, int | None], int],
) -> list[tuple[tuple[str, int | None, int | None], int]]:
    """Return the exceptions that end by a rule, and what of their access; they are changed."""
    ended = []
    allow, _, major, minor, access = rule
    for key, bits in exceptions.items():
        pairs = ((major, key[1]), (minor, key[2]))
        if key[0] != kind or any(None not in pair and pair[0] != pair[1] for pair in pairs):
            continue
        if any(mine is not None and other is None for mine, other in pairs):
            if bits & access & ~MKNOD:  # any node may be made, by the runtime's own rules
                index = next(i for i, one in enumerate(rules) if one is rule)
                raise at(
                    f"linux.resources.devices[{index}]",
                    f"{_line(kind, major, minor, access)} is {'denied' if allow else 'allowed'} by "
                    f"the rule {_line(*key, bits)}, of which cgroup v1 takes nothing away",
                )
            continue
        if bits & access and key != (kind, major, minor):
            ended.append((key, bits & access))
        exceptions[key] = bits & ~access
    return ended


def allows_all(rules: list[Rule]) -> bool:
    """Tell whether nothing is denied, so that no program is needed."""
    return effective(rules) == [(True, *_DENY_ALL[1:])]


def _insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return one struct bpf_insn."""
    return pack("<BBhi", code, src << 4 | dst, offset, value)


def program(rules: list[Rule], changes: Sequence[Rule] = ()) -> bytes:
    """Return the instructions of a BPF_PROG_TYPE_CGROUP_DEVICE program that decides by `rules`.

    `changes` come after the runtime's own rules: what was changed while the container runs.

    r2 type, r3 the accesses not yet decided, r4 major, r5 minor.  From the last rule to the
    first: an allowing rule decides its accesses, and when none is left the answer is 1; a denying
    rule that covers one that is left makes it 0.  So "rw" is allowed by one rule for r and one
    for w, as on v1.
    """
    code = [
        _insn(0x61, 2, 1, 0),  # r2 = ctx->access_type
        _insn(0xBC, 3, 2),  # w3 = w2
        _insn(0x54, 2, value=0xFFFF),  # w2 &= 0xffff: the type
        _insn(0x74, 3, value=16),  # w3 >>= 16: the access
        _insn(0x61, 4, 1, 4),  # r4 = ctx->major
        _insn(0x61, 5, 1, 8),  # r5 = ctx->minor
    ]
    for allow, kind, major, minor, access in reversed([*effective(rules), *changes]):
        if allow:
            body = [
                _insn(0x54, 3, value=_ALL & ~access),  # w3 &= ~access
                _insn(0x55, 3, offset=2),  # if r3 != 0 goto next rule
                _insn(0xB7, 0, value=1),  # r0 = 1
                _insn(0x95),  # exit
            ]
        else:
            body = [
                _insn(0xBC, 1, 3),  # w1 = w3
                _insn(0x54, 1, value=access),  # w1 &= access
                _insn(0x15, 1, offset=2),  # if r1 == 0 goto next rule
                _insn(0xB7, 0, value=0),  # r0 = 0
                _insn(0x95),  # exit
            ]
        wanted = ((2, _TYPE.get(kind)), (4, major), (5, minor))
        tests = [(register, value) for register, value in wanted if value is not None]
        for index, (register, value) in enumerate(tests):
            away = len(tests) - index - 1 + len(body)
            code.append(_insn(0x55, register, offset=away, value=value))
        code += body
    code += [_insn(0xB7, 0, value=0), _insn(0x95)]
    return b"".join(code)
