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
        (-1, True, LIMITED, True, ""),
    ],
)
def test_the_kernels_count_decides_and_systemd_may_have_removed_it(
    monkeypatch, kills: int, gone: bool, config: dict, killed: bool, expected: str
) -> None:
    monkeypatch.setattr(oom.states, "manager", lambda container: Manager(kills, gone))
    assert oom.want_of_memory(None, config, killed) == expected
