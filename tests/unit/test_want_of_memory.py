"""What is said of an init that has died with a memory limit."""

from __future__ import annotations

import pytest

from anocir.host import oom
from anocir.errors import Error

LIMITED = {"linux": {"resources": {"memory": {"limit": 1 << 20}}}}
KILLED = "container init was OOM-killed (memory limit too low?)"
PERHAPS = "container init was killed (memory limit too low?)"


class Manager:
    def __init__(self, kills: int, gone: bool) -> None:
        self.kills = kills
        self.is_gone = gone

    def oom_kills(self) -> int:
        if self.kills < 0:
            raise Error("no such cgroup")
        return self.kills

    def gone(self) -> bool:
        return self.is_gone


@pytest.mark.parametrize(
    ("kills", "gone", "config", "killed", "expected"),
    [
        (1, False, LIMITED, True, KILLED),
        (1, False, {}, False, KILLED),  # a limit further up
        (0, False, LIMITED, True, ""),
        (0, True, LIMITED, True, PERHAPS),
        (0, True, LIMITED, False, ""),  # it failed and was not killed
        (0, True, {}, True, ""),
        (0, True, {"linux": {"resources": {"memory": {"swap": 5}}}}, True, ""),
        (-1, True, LIMITED, True, PERHAPS),  # it went between the two looks
    ],
)
def test_the_kernels_count_decides_and_systemd_may_have_removed_it(
    monkeypatch, kills: int, gone: bool, config: dict, killed: bool, expected: str
) -> None:
    monkeypatch.setattr(oom.states, "manager", lambda container: Manager(kills, gone))
    assert oom.want_of_memory(None, config, killed) == expected


LOG = (
    "4,9,5000000,-;oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,"
    "oom_memcg={above},task_memcg=/box/one,task=sh,pid=77,uid=0\n"
)


class Box:
    id = "one"
    state = {"start_time": 400}
    intent = {"cgroup": {"hierarchies": [["/m", "memory", "/box/one", 1]]}}


class Used(Manager):
    def stats(self) -> dict:
        return {"memory": {"usage": {"limit": 1 << 20, "max": 4096}}}


@pytest.mark.parametrize(
    ("log", "pid", "expected"),
    [
        (LOG.format(above="/box/one"), 77, "process 77 (sh) was killed for want of memory: the limit is 1048576 bytes, the peak was 4096"),
        (LOG.format(above="/box"), 77, "process 77 (sh) was killed for want of memory: the limit of the cgroup /box above it was reached, the peak was 4096"),
        (LOG.format(above="/box/one"), 78, "1 of the container's processes was killed for want of memory: the limit is 1048576 bytes, the peak was 4096"),
        (LOG.format(above="/box/one").replace("5000000", "1000"), 77, "1 of the container's processes was killed for want of memory: the limit is 1048576 bytes, the peak was 4096"),
        ("", 77, "1 of the container's processes was killed for want of memory: the limit is 1048576 bytes, the peak was 4096"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("record", [Box.intent["cgroup"], {"manager": "v2", "path": "/box/one"}])
def test_who_was_killed_is_read_in_the_kernels_log(monkeypatch, log, pid, expected, record) -> None:
    """Of the container's cgroup alone, and not of one of that name before it."""
    box = Box()
    box.intent = {"cgroup": record}
    monkeypatch.setattr(oom.states, "manager", lambda container: Used(1, False))
    monkeypatch.setattr(oom, "_kernel_log", lambda: [log])
    assert oom.killed(box, pid) == expected


def test_a_process_that_somebody_killed_is_not_said_to_have_wanted_memory(monkeypatch) -> None:
    monkeypatch.setattr(oom.states, "manager", lambda container: Used(0, False))
    assert oom.killed(Box(), 77) == ""
