"""How a process gets into its cgroups: one value, the same for create and exec."""

from __future__ import annotations

import pytest

from anocir import cgroup
from anocir.cgroup.joining import Joining

pytestmark = pytest.mark.unit

V1 = {
    "manager": "v1",
    "tolerant": False,
    "hierarchies": [
        ["/c/memory", "memory", "/x", 1],
        ["/c/cpu,cpuacct", "cpu,cpuacct", "/x", 1],
        ["/c/unified", "", "/x", 1],
    ],
}
V2 = {"manager": "v2", "tolerant": False, "mountpoint": "/c", "path": "/x", "made": 1, "owner": -1}


def parts(joining: Joining) -> dict[str, object]:
    return {name: getattr(joining, name) for name in Joining.__slots__}


def joining(record, *args, **given):
    return parts(cgroup.load(record).joining(*args, **given))


def expected(**given):
    return {"into": "", "tasks": [], "late": [], "by_host": [], "asked": False, **given}


def test_v1_joins_itself_memory_last_and_is_born_in_cgroup2():
    assert joining(V1) == expected(
        into="/c/unified/x", tasks=["/c/cpu,cpuacct/x/tasks"], late=["/c/memory/x/tasks"]
    )


def test_who_cannot_be_born_there_is_moved_by_the_host_and_waits():
    found = cgroup.load(V1).joining(born=False)
    assert parts(found) == expected(
        by_host=["/c/unified/x"], tasks=["/c/cpu,cpuacct/x/tasks"], late=["/c/memory/x/tasks"]
    )
    assert found.waits()
    assert not cgroup.load(V1).joining().waits()


def test_nobody_is_born_in_a_cgroup_that_was_there_before():
    """Its cgroup.kill may have been used: Linux 6.14 to 6.18 kill who is born there at once."""
    rows = [[mount, controllers, path, 0] for mount, controllers, path, _ in V1["hierarchies"]]
    assert joining({**V1, "hierarchies": rows})["by_host"] == ["/c/unified/x"]
    assert joining({**V2, "made": 0}) == expected(by_host=["/c/x"])


def test_exec_s_cgroups_below_are_for_their_controllers():
    for name in ("cpu", "cpuacct", "cpu,cpuacct"):
        assert joining(V1, ["memory:/m", f"{name}:/k"]) == expected(
            into="/c/unified/x", tasks=["/c/cpu,cpuacct/x/k/tasks"], late=["/c/memory/x/m/tasks"]
        )
    assert joining(V1, ["/all"]) == expected(
        by_host=["/c/unified/x/all"],
        tasks=["/c/cpu,cpuacct/x/all/tasks"],
        late=["/c/memory/x/all/tasks"],
    )


def test_v2_is_born_there_unless_it_cannot():
    assert joining(V2) == expected(into="/c/x")
    assert joining(V2, born=False) == expected(by_host=["/c/x"])
    assert joining({**V2, "leaf": "/leaf"}) == expected(into="/c/x/leaf")
    assert joining({**V2, "leaf": "/leaf"}, ["/"]) == expected(into="/c/x")
    assert joining(V2, ["/sub"]) == expected(by_host=["/c/x/sub"])


@pytest.mark.parametrize("fs", [V1, V2], ids=["v1", "v2"])
def test_systemd_is_asked_for_init_and_not_for_exec(fs):
    record = {"manager": "systemd", "unit": "x.scope", "fs": fs}
    found = cgroup.load(record).joining()
    assert parts(found) == expected(asked=True)
    assert found.waits()
    assert joining(record, []) == joining(fs)


def test_without_cgroups_there_is_nothing_to_wait_for():
    assert joining({"manager": "disabled"}) == expected()
    assert not Joining().waits()
