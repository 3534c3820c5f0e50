"""Device rules that change: what is asked, what is written on v1, and what v1 cannot do."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from anocir.cgroup import changes, devices
from anocir.errors import Error
from tests.unit.test_cgroup_devices import ENTRY, run

DENY_ALL = {"allow": False, "access": "rwm"}
NOT_EIGHT = {"allow": False, "type": "c", "major": 8}
ALL = devices.MKNOD | devices.READ | devices.WRITE


def rule(allow, numbers, access="rwm"):
    """A rule such as "c 10:229"."""
    kind, major, minor = numbers.replace(":", " ").split()
    return devices.parse(
        [
            {
                "allow": allow, "type": kind, "access": access,
                "major": -1 if major == "*" else int(major),
                "minor": -1 if minor == "*" else int(minor),
            }
        ]
    )[0]  # fmt: skip


class Kernel:
    """The list of a v1 cgroup, as security/device_cgroup.c changes it."""

    def __init__(self, rules):
        self.all = False
        self.exceptions = {}
        for file, line, _ in devices.v1_lines(rules):
            self.write(file, line)

    def write(self, file, line):
        allow = file == "devices.allow"
        if line == "a":
            self.all, self.exceptions = allow, {}
            return
        kind, numbers, access = line.split()
        key = (kind, *(None if word == "*" else int(word) for word in numbers.split(":")))
        bits = sum({"r": devices.READ, "w": devices.WRITE, "m": devices.MKNOD}[c] for c in access)
        if allow != self.all:
            self.exceptions[key] = self.exceptions.get(key, 0) | bits
        elif key in self.exceptions:  # only one of the same numbers is found
            self.exceptions[key] &= ~bits

    def text(self):
        """devices.list."""
        if self.all:
            return "a *:* rwm\n"
        rows = [(True, *key, bits) for key, bits in self.exceptions.items() if bits]
        return "".join(f"{changes.name(row)}\n" for row in rows)

    def apply(self, change, rules, before):
        """What the manager does with one change."""
        listed = changes.listed(self.text())
        exempt = changes.exceptions(rules, before) if listed is None else listed
        lines = changes.v1_lines(change, exempt, listed is None)
        for file, line, _ in lines:
            self.write(file, line)
        return lines

    def may(self, kind, major, minor, bit):
        """Whether one access is allowed."""
        found = any(
            key[0] == kind and key[1] in (None, major) and key[2] in (None, minor) and bits & bit
            for key, bits in self.exceptions.items()
        )
        return found != self.all


@pytest.mark.parametrize("privileged", [False, True])
def test_v1_and_v2_decide_alike_after_any_changes(privileged):
    """Against a model of the kernel's list; mknod aside, which v1 takes from no single device."""
    chance = random.Random(19)
    places = [f"{kind} {numbers}" for kind in "cb" for numbers in ("10:1", "10:2", "9:1", "10:*")]
    refused = 0
    for _ in range(300):
        rules = devices.parse([{**DENY_ALL, "allow": privileged}])
        kernel, done = Kernel(rules), []
        for _ in range(chance.randint(1, 6)):
            new = rule(
                chance.random() < 0.5, chance.choice(places), chance.choice(("r", "w", "rwm"))
            )
            try:
                kernel.apply(("test", new), rules, done)
            except Error as error:
                assert error.text.endswith("of which cgroup v1 takes nothing away")
                refused += 1
                continue
            done = changes.merged(done, new)
        for kind, major, minor in (
            ("c", 10, 1),
            ("c", 10, 3),
            ("b", 10, 2),
            ("c", 9, 1),
            ("c", 1, 3),
        ):
            for bit in (devices.READ, devices.WRITE):
                wanted = changes.allowed(rules, done, (True, kind, major, minor, bit)) == bit
                assert kernel.may(kind, major, minor, bit) == wanted, (done, kind, major, minor)
                code = devices.program(rules, done)
                assert run(code, kind, bit, major, minor) == wanted
    assert refused > 20


@given(st.lists(ENTRY, max_size=6))
@example([DENY_ALL, {"allow": True, "type": "c", "major": 8, "minor": 1}, NOT_EIGHT])
@example([{"allow": True}, NOT_EIGHT, {"allow": True, "type": "c", "minor": 1, "access": "r"}])
def test_the_rules_of_config_json_decide_on_v1_as_on_v2_or_are_refused(entries):
    """The kernel passes over what takes no whole exception back, so none such may be written."""
    rules = devices.parse(entries)
    try:
        kernel = Kernel(rules)
    except Error as error:
        assert error.text.startswith("linux.resources.devices[")
        assert error.text.endswith("of which cgroup v1 takes nothing away")
        return
    code = devices.program(rules)
    for kind in "bc":
        for major, minor in ((8, 1), (8, 5), (4095, 1)):  # none of the runtime's own
            for bit in (devices.READ, devices.WRITE):
                assert kernel.may(kind, major, minor, bit) == run(code, kind, bit, major, minor)


def test_lines_name_what_undoes_them():
    rules = devices.parse([DENY_ALL])
    kernel = Kernel(rules)
    before = kernel.text()
    lines = kernel.apply(("x", rule(True, "c 10:229")), rules, [])
    lines += kernel.apply(("x", rule(False, "c 1:3", "w")), rules, [])
    assert lines == [
        ("devices.allow", "c 10:229 rwm", "devices.deny"),
        ("devices.deny", "c 1:3 w", "devices.allow"),
    ]
    for _, line, back in reversed(lines):
        kernel.write(back, line)
    assert kernel.text() == before
    # what is there is not written again: the undoing would take it away
    assert kernel.apply(("x", rule(True, "c 1:3", "r")), rules, []) == []


def test_the_list_that_engines_send_is_no_change():
    config = devices.parse([DENY_ALL, {"allow": True, "type": "c", "major": 10, "minor": 229}])
    again = [(f"[{index}]", each) for index, each in enumerate(config)]
    assert changes.asked(config, [], again) == []
    removed = [rule(False, "c 10:229")]
    assert changes.asked(config, removed, again) == []
    # one alone is meant
    assert changes.asked(config, removed, again[1:]) == again[1:]
    assert changes.asked(config, [], [("x", devices.parse([DENY_ALL])[0])]) == []
    new = ("new", rule(True, "b 8:0", "r"))
    assert changes.asked(config, [], [*again, new, new]) == [new]
    everything = [("x", devices.parse([{"allow": True}])[0])]
    assert changes.asked(config, [], everything) == everything


def test_changes_do_not_grow_without_end():
    done = []
    for access in ("r", "w", "rw", "rwm") * 50:
        done = changes.merged(done, rule(True, "c 10:229", access))
        done = changes.merged(done, rule(False, "c 10:229", access))
    assert len(done) <= 4
    assert changes.merged(done, rule(True, "c 10:*")) == [rule(True, "c 10:*")]


def test_what_is_allowed():
    rules = devices.parse([DENY_ALL, {"allow": True, "type": "c", "major": 10, "access": "r"}])
    assert changes.allowed(rules, [], rule(True, "c 10:229")) == devices.READ | devices.MKNOD
    assert changes.allowed(rules, [], rule(True, "c 1:3")) == ALL
    assert (
        changes.allowed(rules, [rule(False, "c 1:*", "w")], rule(True, "c 1:3"))
        == ALL & ~devices.WRITE
    )
    # of several devices only what is allowed to all
    assert changes.allowed(rules, [rule(False, "c 10:5", "r")], rule(True, "c 10:*", "r")) == 0


def test_a_rule_and_its_document():
    for text, access in (("c 10:229", "r"), ("b *:*", "wm"), ("c 5:*", "rwm")):
        for allow in (True, False):
            one = rule(allow, text, access)
            assert devices.parse([changes.document(one)]) == [one]
