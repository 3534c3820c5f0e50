"""Device rules that change while the container runs: additions to the present ones, and removals.

Side: pure.  Cold.  Source: security/device_cgroup.c for what v1 does with a rule taken away.

The order is: the rules of config.json, the runtime's own, then the changes, the last one wins.  On
v2 they become one program; on v1 each change becomes lines for what the kernel lists at present, so
that what somebody else has allowed meanwhile (a GPU agent) stays.
"""

from __future__ import annotations

from ..errors import Error
from . import devices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..model.schema import DeviceRule
    from .devices import Rule

    # What is changed, and what asked for it.
    Change = tuple[str, Rule]
    # type, major, minor (None for all) -> access
    Listed = dict[tuple[str, "int | None", "int | None"], int]
    # file, line, and the file of the line that undoes it
    Line = tuple[str, str, str]


def covers(wide: Rule, rule: Rule) -> bool:
    """Tell whether the devices of one rule are all among those of another, whatever access."""
    return wide[1] in ("a", rule[1]) and all(
        one is None or one == other for one, other in zip(wide[2:4], rule[2:4])
    )


def _meet(one: Rule, other: Rule) -> bool:
    return (one[1] == other[1] or "a" in (one[1], other[1])) and all(
        a is None or b is None or a == b for a, b in zip(one[2:4], other[2:4])
    )


def is_everything(rule: Rule) -> bool:
    """Tell whether a rule is for each access to each device."""
    return rule[1:] == ("a", None, None, devices.MKNOD | devices.READ | devices.WRITE)


def name(rule: Rule) -> str:
    """Return type and numbers as people write them."""
    numbers = ":".join("*" if number is None else str(number) for number in rule[2:4])
    return f"{rule[1]} {numbers} {letters(rule[4])}"


def letters(access: int) -> str:
    """Return an access in letters."""
    bits = (("r", devices.READ), ("w", devices.WRITE), ("m", devices.MKNOD))
    return "".join(letter for letter, bit in bits if access & bit)


def document(rule: Rule) -> DeviceRule:
    """Return a rule as config.json and the state write it."""
    allow, kind, major, minor, access = rule
    return {
        "allow": allow,
        "type": kind,
        "major": -1 if major is None else major,
        "minor": -1 if minor is None else minor,
        "access": letters(access),
    }


def allowed(rules: Sequence[Rule], changes: Sequence[Rule], rule: Rule) -> int:
    """Return what of its access is allowed to all the devices of a rule at present."""
    left = wanted = rule[4]
    for present in reversed([*devices.effective(list(rules)), *changes]):
        if not present[0] and _meet(present, rule):
            wanted &= ~(left & present[4])
            left &= ~present[4]
        elif present[0] and covers(present, rule):
            left &= ~present[4]
        if not left:
            break
    return wanted & ~left


def asked(rules: Sequence[Rule], changes: Sequence[Rule], new: Sequence[Change]) -> list[Change]:
    """Return which of the rules of an update change something.

    Engines send with each update the whole list of config.json, which begins with a rule for all
    devices: what config.json has of such a list is no news.  "Everything is denied" never is.
    """
    whole = bool(new) and is_everything(new[0][1])
    result: list[Change] = []
    now = list(changes)
    for source, rule in new:
        if (whole and rule in rules) or (is_everything(rule) and not rule[0]):
            continue
        if not rule[0] or allowed(rules, now, rule) != rule[4]:
            result.append((source, rule))
            now = merged(now, rule)
    return result


def merged(changes: Sequence[Rule], rule: Rule) -> list[Rule]:
    """Return the changes with one more at the end, without those that it makes void."""
    return [
        one for one in changes if not (covers(rule, one) and one[4] & ~rule[4] == 0)
    ] + [rule]  # fmt: skip


def listed(text: str) -> Listed | None:
    """Return what devices.list says; None where all is allowed but for what it does not say."""
    result: Listed = {}
    for line in text.splitlines():
        kind, numbers, access = line.split()
        if kind == "a":
            return None
        major, minor = (None if word == "*" else int(word) for word in numbers.split(":"))
        bits = sum({"r": devices.READ, "w": devices.WRITE, "m": devices.MKNOD}[c] for c in access)
        result[kind, major, minor] = bits
    return result


def exceptions(rules: Sequence[Rule], changes: Sequence[Rule]) -> Listed:
    """Return what is denied of a container that may use all devices."""
    result: Listed = {}
    for allow, kind, major, minor, access in (*devices.effective(list(rules))[1:], *changes):
        for each in "cb" if kind == "a" else kind:
            if not allow:
                result[each, major, minor] = result.get((each, major, minor), 0) | access
                continue
            for key in result:
                if covers((True, each, major, minor, access), (True, *key, 0)):
                    result[key] &= ~access
    return result


def v1_lines(change: Change, exempt: Listed, all_allowed: bool) -> list[Line]:
    """Return what to write for one change; `exempt` are the exceptions to nothing, or to all.

    Raises Error for a device that cannot be taken out of a rule for several: v1 keeps only
    exceptions of one kind, and removes none but whole ones.
    """
    source, rule = change
    allow, kind, major, minor, access = rule
    files = ("devices.allow", "devices.deny")
    file, back = files if allow else files[::-1]
    if is_everything(rule):
        return [] if all_allowed else [(file, "a", back)]
    lines: list[Line] = []
    if allow != all_allowed:  # one exception more
        for each in "cb" if kind == "a" else kind:
            new = access & ~exempt.get((each, major, minor), 0)
            if new:
                lines.append((file, name((allow, each, major, minor, new)), back))
        return lines
    for key, bits in exempt.items():
        one: Rule = (allow, *key, bits & access)
        if not bits & access or not _meet(rule, one):
            continue
        if covers(rule, one):
            lines.append((file, name(one), back))
        elif bits & access & ~devices.MKNOD:
            verb = "denied" if all_allowed else "allowed"
            raise Error(
                f"{source}: {name(rule)} is {verb} by the rule {name(one)}, of which cgroup v1 "
                "takes nothing away",
            )
    return lines


def _shown(numbers: tuple[str, int | None, int | None]) -> str:
    return name((True, *numbers, 0)).rstrip()


def differences(rules: list[Rule], changes: list[Rule]) -> list[tuple[str, str | None, str | None]]:
    """Return where changes lead away from the rules: device, access before, access now."""
    found = []
    for numbers in dict.fromkeys(rule[1:4] for rule in changes):
        whole: Rule = (True, *numbers, devices.MKNOD | devices.READ | devices.WRITE)
        before, now = allowed(rules, [], whole), allowed(rules, changes, whole)
        if before != now:
            found.append((_shown(numbers), letters(before) or None, letters(now) or None))
    return found


def v1_differences(
    rules: list[Rule], changes: list[Rule], found: Listed | None
) -> list[tuple[str, str | None, str | None]]:
    """Return where what the kernel lists is not what it would by the rules."""
    wanted: Listed = {}
    everything = False
    for file, line, _ in devices.v1_lines(rules):
        if line == "a":
            everything = file == "devices.allow"
            wanted = {}
            continue
        for key, bits in (listed(line) or {}).items():
            if (file == "devices.allow") != everything:
                wanted[key] = wanted.get(key, 0) | bits
            elif key in wanted:
                wanted[key] &= ~bits
    if everything and found is None:
        return differences(rules, changes)  # the kernel does not say what is denied
    if everything or found is None:
        what = ("all but some", "only some")
        return [("devices", what[not everything], what[found is not None])]
    return [
        (_shown(key), letters(wanted.get(key, 0)) or None, letters(found.get(key, 0)) or None)
        for key in dict.fromkeys((*wanted, *found))
        if wanted.get(key, 0) != found.get(key, 0)
    ]
