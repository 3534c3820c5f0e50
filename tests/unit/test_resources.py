"""What an update leaves of the limits that were there."""

from __future__ import annotations

import pytest

from anocir.host.update import given, merge

OLD = {
    "memory": {"limit": 64, "swap": 128, "disableOOMKiller": True},
    "cpu": {"shares": 512, "quota": 50000, "burst": 10, "idle": 1, "cpus": "0-1"},
    "pids": {"limit": 7},
    "blockIO": {"weight": 300},
}


def test_what_dockerd_sends_changes_only_what_was_asked_for():
    # docker update --pids-limit 33 --cpuset-cpus 0: every other number is a zero
    new = {
        "blockIO": {"weight": 0},
        "cpu": {"shares": 0, "quota": 0, "period": 0, "cpus": "0", "mems": ""},
        "memory": {"limit": 0, "reservation": 0, "kernel": 0},
        "pids": {"limit": 33},
    }
    assert merge(OLD, new) == {
        **OLD,
        "cpu": {**OLD["cpu"], "cpus": "0"},
        "pids": {"limit": 33},
    }


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("pids", "limit", 0),
        ("cpu", "burst", 0),
        ("cpu", "idle", 0),
        ("memory", "disableOOMKiller", False),
        ("memory", "limit", -1),
    ],
)
def test_a_zero_that_means_something_is_taken(group, key, value):
    assert merge(OLD, {group: {key: value}})[group][key] == value


def test_no_limit_of_memory_is_none_of_memory_and_swap():
    assert merge(OLD, {"memory": {"limit": -1}})["memory"]["swap"] == -1
    assert merge(OLD, {"memory": {"limit": -1, "swap": 0}})["memory"]["swap"] == -1


def test_the_old_is_not_changed():
    merge(OLD, {"memory": {"limit": 1}, "unified": {"a.b": "1"}})
    assert OLD["memory"]["limit"] == 64 and "unified" not in OLD


def test_what_unified_said_of_a_limit_that_is_given_now_counts_no_more():
    old = {"unified": {"pids.max": "5", "memory.high": "9", "cpu.max": "1000 5000"}}
    assert merge(old, {"pids": {"limit": 7}})["unified"] == {
        "memory.high": "9",
        "cpu.max": "1000 5000",
    }
    assert merge(old, {"cpu": {"quota": 0}}) == old
    assert (
        merge(old, {"unified": {"pids.max": "6"}, "pids": {"limit": 7}})["unified"]["pids.max"]
        == "6"
    )


def test_only_what_is_named_is_given_to_be_written():
    new = {
        "cpu": {"quota": 5, "shares": 0},
        "memory": {"limit": -1},
        "pids": {},
        "blockIO": {"weight": 0},
    }
    assert given(new) == {"cpu": {"quota": 5}, "memory": {"limit": -1, "swap": -1}}
