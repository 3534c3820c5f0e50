"""The rules of a profile, and the layers in which libseccomp can be trusted with them.

Side: host; imported only when the cache has no program.

libseccomp (2.5.4 at least) miscompiles several rules for one system call unless their conditions
are all EQ or MASKED_EQ: after `a < 0x80000000` fails it compares the wrong half of the argument
for `a < 0xffffffffffffffff`, and three rules with NE on several arguments can keep it busy for
ever.  One rule for a call comes out right, whatever its conditions.  So such rules go to layers,
one for each, and the layers' programs are chained: the first rule that matches counts.
tests/unit/test_seccomp_random.py compares the result with a direct reading of the profile.
"""

from __future__ import annotations

from _struct import Struct

from ..errors import at
from . import library

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final
    from ..model.schema import Seccomp, SeccompArgument

    # path, word and value of the action, name and number of the call, packed conditions
    Rule = tuple[str, str, int, str, int, tuple[bytes, ...]]

ROOT: Final = "linux.seccomp"
# struct scmp_arg_cmp {unsigned arg; enum scmp_compare op; uint64_t datum_a, datum_b}
_CONDITION: Final = Struct("@IiQQ")
_EASY: Final = (library.OPERATORS["SCMP_CMP_EQ"], library.OPERATORS["SCMP_CMP_MASKED_EQ"])


def collect(profile: Seccomp, actions: list[int], default: int, ignored: list[str]) -> list[Rule]:
    """Return the rules that say something, in the profile's order; note the others.

    `actions` has the value of each entry's action.  Raises Error for two rules with the same
    conditions and different actions, of which one would be lost.
    """
    rules: list[Rule] = []
    said: dict[tuple[int, frozenset[bytes]], int] = {}
    for index, entry in enumerate(profile.get("syscalls") or ()):
        where = f"{ROOT}.syscalls[{index}]"
        if actions[index] == default:
            ignored.append(f"syscalls[{index}] does what defaultAction does")
            continue
        alternatives = _conditions(entry.get("args") or [], where)
        unknown = []
        for name in entry["names"]:
            number = library.syscall_number(name)
            if number is None:
                unknown.append(name)
                continue
            for conditions in alternatives:
                before = said.setdefault((number, frozenset(conditions)), actions[index])
                if conditions and before != actions[index]:
                    raise contradiction(where, name)
                rules.append((where, entry["action"], actions[index], name, number, conditions))
        if unknown:
            ignored.append(f"syscalls[{index}]: unknown system calls {', '.join(unknown)}")
    return rules


def contradiction(where: str, name: str) -> Exception:
    """Return the error for a rule that an earlier one leaves without effect."""
    return at(where, f"contradicts an earlier rule for {name}")


def _conditions(args: list[SeccompArgument], where: str) -> list[tuple[bytes, ...]]:
    """Return the rules that one entry stands for, each as its conditions.

    Conditions of a rule all have to hold, but libseccomp refuses two on one argument.  Then each
    condition becomes a rule of its own, one of which has to hold: what runc has always done.
    """
    packed = []
    for place, arg in enumerate(args):
        # model/spec/seccomp.py says so to users before; a profile that came unchecked ends here.
        if not 0 <= arg["index"] <= 5:
            raise at(f"{where}.args[{place}].index", f"must be from 0 to 5, got {arg['index']}")
        if arg["op"] not in library.OPERATORS:
            raise at(f"{where}.args[{place}].op", f"unknown operator {arg['op']}")
        second = arg.get("valueTwo") or 0 if arg["op"] == "SCMP_CMP_MASKED_EQ" else 0
        operator = library.OPERATORS[arg["op"]]
        packed.append(_CONDITION.pack(arg["index"], operator, arg["value"], second))
    if len({arg["index"] for arg in args}) < len(args):
        return [(condition,) for condition in packed]
    return [tuple(packed)]


def layers(rules: list[Rule]) -> list[list[Rule]]:
    """Distribute rules over layers; there is always a first one.

    As in libseccomp, a rule without conditions makes the others of its call idle, wherever it
    stands.
    """
    always = {number for *_, number, conditions in rules if not conditions}
    conditional: dict[int, list[Rule]] = {}
    result: list[list[Rule]] = [[]]
    for rule in rules:
        *_, number, conditions = rule
        if not conditions:
            result[0].append(rule)
        elif number not in always:
            conditional.setdefault(number, []).append(rule)
    for group in conditional.values():
        if all(_easy(condition) for rule in group for condition in rule[-1]):
            result[0] += group
            continue
        for depth, rule in enumerate(group):
            if depth == len(result):
                result.append([])
            result[depth].append(rule)
    return result


def _easy(condition: bytes) -> bool:
    return _CONDITION.unpack(condition)[1] in _EASY
