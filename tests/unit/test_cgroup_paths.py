"""Where a container's cgroups are: paths below the mount points, who owns them, what was there."""

from __future__ import annotations

import errno
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir import cgroup
from anocir.cgroup import choice, hierarchy, joining, making, removal, tree
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
        result = choice.components(path, "x")
    except Error:
        assert ".." in words
        return
    assert ".." not in result
    assert "" not in result


@pytest.mark.parametrize("path", ["/a/../b", "../../tmp/x", "..", "a\nb", "/", "/."])
def test_a_path_that_is_none_is_refused_before_anything_is_made(path):
    with pytest.raises(Error, match=r"^linux\.cgroupsPath: "):
        choice.choose(Settings, {"linux": {"cgroupsPath": path}}, "c1")


def test_a_relative_path_is_the_same_place_as_an_absolute_one():
    one = choice.choose(Settings, {"linux": {"cgroupsPath": "anocir-none/x"}}, "c1")
    other = choice.choose(Settings, {"linux": {"cgroupsPath": "/anocir-none/x"}}, "c2")
    assert one == other


def test_a_record_survives_json_and_makes_nothing():
    import json
    import os

    record = choice.choose(Settings, {"linux": {"cgroupsPath": "/anocir-none/x"}}, "c1")
    assert json.loads(json.dumps(record)) == record
    manager = cgroup.load(record)
    manager.destroy()
    for mountpoint, _, path, made in getattr(manager, "hierarchies", []):
        assert made == 2
        assert not os.path.exists(mountpoint + path)


def test_disabled_does_nothing_and_says_so():
    class Off(Settings):
        cgroup_manager = "disabled"

    manager = cgroup.load(choice.choose(Off, {}, "c1"))
    manager.prepare({"memory": {"limit": 5}})
    manager.join(1)
    manager.kill(9)
    manager.destroy()
    for refused in (manager.pids, manager.freeze, manager.thaw):
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
        # from inside of a cgroup namespace, of a mount that shows more than that
        ("/", "/..", ""),
        ("/../other", "/..", "/other"),
        ("/", "/../..", ""),
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
    assert choice._owner(config) == uid


def test_exec_s_sub_cgroups_stay_below_the_container_s():
    assert joining.sub_cgroups(["/a"], set()) == {"*": "/a"}
    assert joining.sub_cgroups(["cpu,memory:a/b", "c"], {"cpu", "memory"}) == {
        "cpu": "/a/b",
        "memory": "/a/b",
        "*": "/c",
    }
    assert joining.sub_cgroups(["name=systemd:x"], {"name=systemd"}) == {"name=systemd": "/x"}
    for bad in ("../x", "/a/../../b", "nope:/a"):
        with pytest.raises(Error, match="--cgroup"):
            joining.sub_cgroups([bad], {"cpu"})


@pytest.mark.parametrize("seconds", [5, 15])
def test_a_cgroup_whose_last_process_takes_long_to_exit_is_removed(monkeypatch, seconds):
    clock = [0.0]

    def rmdir(path, dir_fd=None):
        if clock[0] < seconds:
            raise OSError(errno.EBUSY, "busy", path)

    def sleep(pause):
        clock[0] += pause

    monkeypatch.setattr(tree.files, "rmdir", rmdir)
    monkeypatch.setattr(tree, "walk", lambda directory, leave=None: iter(()))
    monkeypatch.setattr(tree, "monotonic", lambda: clock[0])
    monkeypatch.setattr(tree, "sleep", sleep)
    if seconds < removal.PATIENCE:
        removal.remove([("/cgroup/x", 1)])
    else:
        with pytest.raises(Error, match="remove cgroup /cgroup/x: "):
            removal.remove([("/cgroup/x", 1)])


def test_what_fails_in_one_hierarchy_keeps_nothing_in_the_others(monkeypatch):
    removed = []

    def rmdir(path, dir_fd=None):
        if path == "/one/x":
            raise OSError(errno.EPERM, "no", path)
        removed.append(path)

    monkeypatch.setattr(tree.files, "rmdir", rmdir)
    with pytest.raises(PermissionError):
        removal.remove([("/one/x", 1), ("/two/x", 1), ("/three/y/x", 2)])
    assert removed == ["/two/x", "/three/y/x", "/three/y"]


def test_what_is_not_there_is_gone_also_where_nothing_can_be_written(monkeypatch, tmp_path):
    """rmdir(2) on a file system that is read-only says EROFS before it looks."""

    def rmdir(path, dir_fd=None):
        raise OSError(errno.EROFS, "read-only", path)

    monkeypatch.setattr(tree.files, "rmdir", rmdir)
    removal.remove([(f"{tmp_path}/nothing/here", 2)])
    (tmp_path / "there").mkdir()
    with pytest.raises(OSError, match="read-only"):
        removal.remove([(f"{tmp_path}/there", 1)])


@pytest.mark.parametrize(
    ("path", "text"),
    [("/" + "a" * 256, "a part of more than 255 bytes"), ("/a" * 2000, "more than 3800 bytes")],
)
def test_a_path_that_no_file_system_takes_is_refused_in_one_short_line(path, text):
    with pytest.raises(Error, match=rf"^linux\.cgroupsPath: must not have {text}$") as caught:
        choice.choose(Settings, {"linux": {"cgroupsPath": path}}, "c1")
    assert len(caught.value.text) < 100


def test_a_thousand_levels_are_made_and_removed_without_recursion(tmp_path):
    deep = str(tmp_path) + "/d" * 1500
    try:
        assert making.make(deep, str(tmp_path))
        assert not making.make(deep, str(tmp_path))
    finally:
        while len(deep) > len(str(tmp_path)):
            os.rmdir(deep)
            deep = deep[:-2]


ANNOTATIONS = {"run.oci.systemd.subgroup": "sub", "run.oci.delegate-cgroup": "leaf"}


def test_the_annotations_of_crun_name_a_cgroup_below():
    assert choice.subgroups({"annotations": ANNOTATIONS}) == ("/sub", "/leaf")
    assert choice.subgroups({"annotations": {"run.oci.systemd.subgroup": ""}}) == ("", "")
    assert choice.subgroups({}) == ("", "")
    for bad in ("../x", "/", "a\nb"):
        with pytest.raises(Error, match=r'^annotations\["run\.oci\.delegate-cgroup"\]: must'):
            choice.subgroups({"annotations": {"run.oci.delegate-cgroup": bad}})


def test_a_leaf_is_the_users_without_a_cgroup_mount():
    config = {"process": {"user": {"uid": 7}}, "annotations": ANNOTATIONS}
    assert choice._owner(config) == -1
    assert choice._owner(config, "/leaf") == 7


@pytest.mark.parametrize(
    "resources",
    [
        {"memory": {"limit": 5}},
        {"network": {"classID": 4}},
        {"rdma": {"mlx": {"hcaHandles": 1}}},
        {"unified": {"memory.high": "5"}},
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]},
    ],
)
def test_a_limit_that_no_cgroup_can_have_is_an_error(resources):
    """Also of the kinds that engines seldom send: each was dropped without a word."""
    manager = cgroup.load({"manager": "disabled", "reason": "no cgroup file system is mounted"})
    with pytest.raises(Error, match=r"^linux\.resources\.\S+: cannot set limits"):
        manager.prepare(resources)
    manager.prepare({"memory": {}, "cpu": {"shares": 0}})
