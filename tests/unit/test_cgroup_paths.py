"""Where a container's cgroups are: paths below the mount points, who owns them, what was there."""

from __future__ import annotations

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir import cgroup
from anocir.cgroup import hierarchy, tree
from anocir.errors import Error

pytestmark = pytest.mark.unit


class Settings:
    systemd_cgroup = False
    cgroup_manager = ""
    rootless = "false"


@given(st.lists(st.sampled_from(["a", "..", ".", "", "b:c", "x.slice"]), max_size=6))
def test_no_path_leads_out(words):
    path = "/".join(words)
    try:
        result = cgroup.components(path, "x")
    except Error:
        assert ".." in words
        return
    assert ".." not in result
    assert "" not in result


@pytest.mark.parametrize("path", ["/a/../b", "../../tmp/x", "..", "a\nb", "/", "/."])
def test_a_path_that_is_none_is_refused_before_anything_is_made(path):
    with pytest.raises(Error, match=r"^linux\.cgroupsPath: "):
        cgroup.choose(Settings, {"linux": {"cgroupsPath": path}}, "c1")


def test_a_relative_path_is_the_same_place_as_an_absolute_one():
    one = cgroup.choose(Settings, {"linux": {"cgroupsPath": "anocir-none/x"}}, "c1")
    other = cgroup.choose(Settings, {"linux": {"cgroupsPath": "/anocir-none/x"}}, "c2")
    assert one == other


def test_a_record_survives_json_and_makes_nothing():
    import json
    import os

    record = cgroup.choose(Settings, {"linux": {"cgroupsPath": "/anocir-none/x"}}, "c1")
    assert json.loads(json.dumps(record)) == record
    manager = cgroup.load(record)
    manager.destroy()
    for mountpoint, _, path, made in getattr(manager, "hierarchies", []):
        assert made == 2
        assert not os.path.exists(mountpoint + path)


def test_disabled_does_nothing_and_says_so():
    class Off(Settings):
        cgroup_manager = "disabled"

    manager = cgroup.load(cgroup.choose(Off, {}, "c1"))
    manager.prepare({"memory": {"limit": 5}})
    manager.join(1)
    manager.kill(9)
    manager.destroy()
    for refused in (manager.pids, manager.freeze, manager.thaw, manager.stats):
        with pytest.raises(Error, match="no cgroup of its own"):
            refused()


@pytest.mark.parametrize(
    ("path", "root", "answer"),
    [
        ("/", "/", ""),
        ("/a/b", "/", "/a/b"),
        ("/docker/x", "/docker/x", ""),
        ("/docker/x/y", "/docker/x", "/y"),
        ("/docker/xy", "/docker/x", None),
        ("/other", "/docker/x", None),
    ],
)
def test_a_cgroup_is_seen_from_the_root_of_its_mount(path, root, answer):
    assert hierarchy.below(path, root) == answer


def test_escapes_of_mountinfo_are_undone():
    assert hierarchy.unescape("/a\\040b\\134c") == "/a b\\c"


MOUNT = {"source": "cgroup", "destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["rw"]}


@pytest.mark.parametrize(
    ("config", "uid"),
    [
        ({}, -1),
        ({"linux": {"namespaces": [{"type": "cgroup"}]}, "mounts": [MOUNT]}, -1),
        (
            {
                "process": {"user": {"uid": 7}},
                "linux": {"namespaces": [{"type": "cgroup"}]},
                "mounts": [MOUNT],
            },
            7,
        ),
        (
            {
                "linux": {
                    "namespaces": [{"type": "cgroup"}, {"type": "user"}],
                    "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
                },
                "mounts": [MOUNT],
            },
            1000,
        ),
        (
            {
                "process": {"user": {"uid": 7}},
                "linux": {"namespaces": [{"type": "cgroup"}]},
                "mounts": [dict(MOUNT, options=["ro"])],
            },
            -1,
        ),
        (
            {
                "process": {"user": {"uid": 7}},
                "linux": {"namespaces": [{"type": "cgroup", "path": "/proc/1/ns/cgroup"}]},
                "mounts": [MOUNT],
            },
            -1,
        ),
    ],
)
def test_only_a_namespaced_writable_cgroup_gets_an_owner(config, uid):
    assert cgroup._owner(config) == uid


def test_exec_s_sub_cgroups_stay_below_the_container_s():
    assert tree.sub_cgroups(["/a"], set()) == {"*": "/a"}
    assert tree.sub_cgroups(["cpu,memory:a/b", "c"], {"cpu", "memory"}) == {
        "cpu": "/a/b",
        "memory": "/a/b",
        "*": "/c",
    }
    assert tree.sub_cgroups(["name=systemd:x"], {"name=systemd"}) == {"name=systemd": "/x"}
    for bad in ("../x", "/a/../../b", "nope:/a"):
        with pytest.raises(Error, match="--cgroup"):
            tree.sub_cgroups([bad], {"cpu"})


@pytest.mark.parametrize("seconds", [5, 15])
def test_a_cgroup_whose_last_process_takes_long_to_exit_is_removed(monkeypatch, seconds):
    clock = [0.0]

    def rmdir(path):
        if clock[0] < seconds:
            raise OSError(errno.EBUSY, "busy", path)

    def sleep(pause):
        clock[0] += pause

    monkeypatch.setattr(tree.files, "rmdir", rmdir)
    monkeypatch.setattr(tree, "children", lambda directory: [])
    monkeypatch.setattr(tree, "processes", lambda directory: [])
    monkeypatch.setattr(tree, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tree, "sleep", sleep)
    if seconds < tree.PATIENCE:
        tree.remove([("/cgroup/x", 1)])
    else:
        with pytest.raises(Error, match="remove cgroup /cgroup/x: "):
            tree.remove([("/cgroup/x", 1)])
