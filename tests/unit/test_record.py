"""What may stand in the state directory: each value of another kind is named by its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from anocir.host import record

pytestmark = pytest.mark.unit

ROW = ["/sys/fs/cgroup/cpu", "cpu,cpuacct", "/box", 1]
HOOK = {"path": "/hook", "args": ["a"], "env": None, "timeout": 2}
STATE: dict[str, Any] = {
    "pid": 7,
    "start_time": 8,
    "created": True,
    "unknown": [{}],
    "mount_namespace": [1, 2],
    "rules": [{"allow": True, "type": "c", "major": -1, "minor": 3, "access": "rw"}],
    "taken": ["/dev/x"],
    "devices": [
        {"path": "/dev/y", "type": "b", "major": 1, "minor": 2, "mode": 384, "uid": 0, "gid": 0,
         "access": "rwm", "number": 9, "own": False},
    ],
    "added": [{"destination": "/a", "number": 3}],
    "resources": {},
    "intent": {
        "id": "box",
        "bundle": "/b",
        "annotations": {"a b": "x"},
        "creator": [1, 2],
        "private_pids": True,
        "host_mounts": None,
        "hooks": {"poststart": [HOOK], "poststop": None},
        "resctrl": {"group": "/g", "monitor": "", "made": ["/g"], "there": False},
        "cgroup": {
            "manager": "v1", "tolerant": False, "shielded": False,
            "hierarchies": [ROW, ["/sys/fs/cgroup/unified", "", "", 0], ROW],
        },
    },
}  # fmt: skip
CGROUP = ".intent.cgroup"
ROWS = ".intent.cgroup.hierarchies"
GONE = object()


def changed(place: str, value: object) -> Any:
    """Return the state with another value at a place, or without what is there."""
    whole: Any = {"": json.loads(json.dumps(STATE))}
    inner, last = whole, ""
    for key in place.replace("[", ".").replace("]", "").split(".")[1:] if place else []:
        inner = inner[last]
        last = int(key) if type(inner) is list else key
    inner[last] = value
    if value is GONE:
        del inner[last]
    return whole[""]


def test_what_is_written_passes() -> None:
    assert record.state(STATE, "box") is None
    assert record.intent(STATE["intent"], "box") is None


@pytest.mark.parametrize(
    ("place", "value", "wrong"),
    [
        ("", [], ""), ("", None, ""),
        (".pid", True, None), (".pid", -1, None), (".pid", 1 << 63, None), (".pid", 1.0, None),
        (".start_time", 0, None), (".created", 1, None), (".resources", [], None),
        (".mount_namespace[1]", "2", None), (".taken[0]", "/dev/../x", None),
        (".rules", {}, None), (".rules[0]", [], None), (".rules[0].allow", 1, None),
        (".rules[0].major", -2, None), (".rules[0].minor", GONE, None),
        (".devices[0].own", GONE, None), (".devices[0].path", "dev/y", None),
        (".devices[0].mode", "0600", None),
        (".added[0].number", GONE, None), (".added[0].type", "a\0b", None),
        (".intent", None, None), (".intent.id", "other", None), (".intent.bundle", "a\0b", None),
        (".intent.annotations", [], None), (".intent.annotations", {}, GONE),
        (".intent.annotations.a b", 1, '.intent.annotations["a b"]'),
        (".intent.creator", [1], None), (".intent.creator[1]", "b", None),
        (".intent.private_pids", 0, None), (".intent.host_mounts", -1, None),
        (".intent.hooks", {}, GONE), (".intent.hooks", [], None), (".intent.hooks", None, None),
        (".intent.hooks.poststart[0]", 1, None), (".intent.hooks.poststart[0].path", GONE, None),
        (".intent.hooks.poststart[0].args[0]", None, None),
        (".intent.hooks.poststop", {}, None),
        (".intent.resctrl.there", GONE, None), (".intent.resctrl.made[0]", "/g/..", None),
        (CGROUP, {}, GONE), (CGROUP, [], None), (f"{CGROUP}.manager", "v7", None),
        (f"{CGROUP}.manager", [], None), (f"{CGROUP}.tolerant", GONE, None),
        (f"{CGROUP}.fs", {"manager": "v2"}, f"{CGROUP}.fs.tolerant"), (f"{CGROUP}.fs", {}, GONE),
        (ROWS, [], GONE), (ROWS, {}, None), (ROWS, [ROW] * 30, GONE), (ROWS, GONE, None),
        (f"{ROWS}[1]", {}, None), (f"{ROWS}[1]", "abcd", None), (f"{ROWS}[2]", ROW[:3], None),
        (f"{ROWS}[2]", [*ROW, 1], None), (f"{ROWS}[2]", {"a": 1, "b": 2, "c": 3, "d": 4}, None),
        (f"{ROWS}[0][0]", None, None), (f"{ROWS}[0][0]", "sys", None),
        (f"{ROWS}[1][0]", "/a/../b", None), (f"{ROWS}[1][0]", "/a..b", GONE),
        (f"{ROWS}[1][1]", "a\0b", None), (f"{ROWS}[1][1]", "a/../b", GONE),
        (f"{ROWS}[2][1]", 1, None),
        (f"{ROWS}[1][2]", "..", None), (f"{ROWS}[1][2]", "/\0", None), (f"{ROWS}[1][2]", 5, None),
        (f"{ROWS}[2][2]", "box", None),
        (f"{ROWS}[0][3]", True, None), (f"{ROWS}[0][3]", -1, None), (f"{ROWS}[2][3]", 1 << 63, None),
        (f"{ROWS}[2][3]", (1 << 63) - 1, GONE), (f"{ROWS}[2][3]", "1", None),
    ],
)  # fmt: skip
def test_a_value_of_another_kind_is_named_by_its_place(
    place: str, value: object, wrong: object
) -> None:
    """`wrong` is None where that is the place itself, GONE where nothing is wrong."""
    expected = {None: place, GONE: None}.get(wrong, wrong)
    found = record.state(changed(place, value), "box")
    assert found == expected
    if place.startswith(".intent."):
        intent = changed(place, value)["intent"]
        assert record.intent(intent, "box") == (expected and expected.removeprefix(".intent"))
