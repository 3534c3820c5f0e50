"""cgroup v2 by its own hierarchy, also where all controllers are in v1 hierarchies beside it."""

from __future__ import annotations

import os
import signal

import pytest

from anocir import cgroup
from anocir.cgroup import choice, hierarchy, removal, tree
from anocir.errors import Error
from tests.kernel import child
from tests import machine

V2 = machine.v2_mountpoint()
pytestmark = [
    pytest.mark.kernel,
    pytest.mark.needs("root"),
    pytest.mark.skipif(not V2, reason="[cgroup2] this machine has not cgroup v2"),
]
TOP = f"/anocir-unified-{os.getpid()}"


@pytest.fixture
def top():
    os.mkdir(V2 + TOP)
    yield V2 + TOP
    tree.signal_all(V2 + TOP, signal.SIGKILL)
    removal.remove([(V2 + TOP, 1)])


def manager(path: str = f"{TOP}/x", **config):
    return cgroup.load(choice.v2_record(V2, path, config, tolerant=False))


def end(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_new_cgroup_is_one_to_be_born_in_and_a_used_one_is_not(top):
    one = manager()
    one.prepare({})
    assert one.joining().into == f"{top}/x"
    one.kill(signal.SIGKILL)  # cgroup.kill: who is born there from now on may be killed at once
    again = manager()
    again.prepare({})
    assert again.joining().into == ""
    assert again.joining().by_host == [f"{top}/x"]
    pid = child.sleeper()
    again.join(pid, again.joining())
    try:
        assert hierarchy.of_process(pid)[""] == f"{TOP}/x"
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        end(pid)
    one.destroy()


def threaded(top: str) -> None:
    """Make the parent a threaded domain, as one with a threaded child is."""
    os.mkdir(f"{top}/thread")
    with open(f"{top}/thread/cgroup.type", "w") as file:
        file.write("threaded")
    with open(f"{top}/cgroup.type") as file:
        assert file.read() == "domain threaded\n"


def test_below_a_threaded_domain_the_cgroup_is_threaded_too(top):
    threaded(top)
    one = manager()
    one.prepare({})
    with open(f"{top}/x/cgroup.type") as file:
        assert file.read() == "threaded\n"
    assert one.joining().into == ""
    pid = child.sleeper()
    try:
        with open(f"{top}/cgroup.procs", "w") as file:
            file.write(str(pid))
        one.join(pid, one.joining())
        assert one.pids() == [pid]
        one.kill(signal.SIGTERM)
        assert os.waitpid(pid, 0)[1] == signal.SIGTERM
        pid = 0
    finally:
        if pid:
            end(pid)
    one.destroy()


def test_a_limit_that_a_threaded_cgroup_cannot_have_is_refused_by_its_path(top):
    threaded(top)
    one = manager()
    with pytest.raises(
        Error, match=r"^linux\.resources\.memory\.limit: the cgroup .* is domain invalid"
    ):
        one.prepare({"memory": {"limit": 64 << 20}})
    one.destroy()
    assert not os.path.exists(f"{top}/x")


def test_a_leaf_is_made_and_given_away_and_has_the_controllers(top):
    config = {
        "annotations": {"run.oci.delegate-cgroup": "leaf"},
        "process": {"user": {"uid": 1234}},
    }
    one = manager(**config)
    one.prepare({})
    leaf = f"{top}/x/leaf"
    assert one.joining().into == leaf
    assert one.joining(["/"]).into == f"{top}/x"
    with open(f"{leaf}/cgroup.controllers") as inner, open(f"{top}/x/cgroup.controllers") as outer:
        assert inner.read() == outer.read()
    assert os.stat(leaf).st_uid == 1234
    assert os.stat(f"{leaf}/cgroup.procs").st_uid == 1234
    assert os.stat(f"{top}/x").st_uid == os.stat(f"{top}/x/cgroup.procs").st_uid == 0
    assert one.mount_view()["own_path"] == f"{TOP}/x/leaf"
    one.destroy()
    assert not os.path.exists(f"{top}/x")


@pytest.mark.parametrize("listed", ["cgroup.procs\ncgroup.nothere\ncgroup.threads\n", None])
def test_ownership_goes_by_the_kernels_list_where_there_is_one(top, monkeypatch, tmp_path, listed):
    """A name of it may be missing in the cgroup; without the list it is the three of old (config-linux.md)."""
    from anocir.cgroup import v2

    if listed is not None:
        (tmp_path / "delegate").write_text(listed)
    monkeypatch.setattr(v2, "_DELEGATE", str(tmp_path / "delegate"))
    mount = {
        "destination": "/sys/fs/cgroup",
        "type": "cgroup",
        "source": "cgroup",
        "options": ["rw"],
    }
    config = {
        "linux": {"namespaces": [{"type": "cgroup"}]},
        "mounts": [mount],
        "process": {"user": {"uid": 1234}},
    }
    one = manager(**config)
    one.prepare({})
    owned = {name for name in os.listdir(f"{top}/x") if os.stat(f"{top}/x/{name}").st_uid == 1234}
    wanted = {"cgroup.procs", "cgroup.threads"}
    assert owned == (wanted if listed else wanted | {"cgroup.subtree_control"})
    assert os.stat(f"{top}/x").st_uid == 1234
    one.destroy()


def test_events_print_the_nine_zeros_of_runc(top):
    one = manager()
    one.prepare({})
    found = one.stats()["cpuset"]
    assert len(found) == 9 and set(found.values()) == {0}
    one.destroy()


def test_weights_of_devices_without_bfq_are_a_warning(top, capfd):
    from anocir.cgroup import convert, knobs

    one = manager()
    one.prepare({})
    writes = convert.v2({"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 100}]}})
    if os.path.exists(f"{top}/x/io.weight") or os.path.exists(f"{top}/x/io.bfq.weight"):
        pytest.skip("[no-io.weight] this machine has not a cgroup without weights")
    knobs.write(writes, {"io": one.directory})
    one.destroy()
