"""linux.intelRdt on a tree that looks like resctrl: no test machine has such a processor.

What the kernel does on mkdir(2) there, the tree does not: so the directories that are made get
their files from the test.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from anocir.host import resctrl
from anocir.errors import Error
from anocir.linux import entries, files

pytestmark = pytest.mark.kernel

SCHEMATA = "    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n"


class Tree:
    """A stand-in for /sys/fs/resctrl that remembers each write to its schemata."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.writes: list[str] = []
        self.refused = ""
        self.fill(top)
        (top / "mon_groups").mkdir()

    def fill(self, directory: Path) -> None:
        (directory / "schemata").write_text(SCHEMATA)
        (directory / "tasks").touch()

    def group(self, name: str) -> Path:
        directory = self.top / name
        directory.mkdir()
        self.fill(directory)
        (directory / "mon_groups").mkdir()
        return directory


@pytest.fixture
def tree(tmp_path, monkeypatch):
    top = tmp_path / "resctrl"
    top.mkdir()
    one = Tree(top)
    info = tmp_path / "mountinfo"
    info.write_text(
        "21 1 0:19 / /proc rw - proc proc rw\n"
        f"22 1 0:20 / {top} rw,relatime shared:1 - resctrl resctrl rw\n"
    )
    monkeypatch.setattr(resctrl, "_MOUNTINFO", str(info))
    mkdir, write_file = entries.mkdir, files.write_file

    def make(path, mode=0o755, dir_fd=None) -> None:
        mkdir(path, mode, dir_fd)
        one.fill(Path(path))
        if "/mon_groups/" not in path:
            (Path(path) / "mon_groups").mkdir()

    def write(path, data, dir_fd=None) -> None:
        if path.endswith("/schemata"):
            if one.refused and one.refused in data:
                raise OSError(22, "write", path)
            one.writes.append(f"{os.path.relpath(path, top)}: {data}")
        write_file(path, data, dir_fd)

    monkeypatch.setattr(entries, "mkdir", make)
    monkeypatch.setattr(files, "write_file", write)
    return one


def applied(tree: Tree, entry, container_id: str = "box", pid: int = 4711):
    record = resctrl.plan(entry, container_id)
    resctrl.apply(record, entry, pid)
    return record


def test_without_a_mounted_resctrl_it_is_an_error(tmp_path, monkeypatch) -> None:
    (tmp_path / "mountinfo").write_text("21 1 0:19 / /resctrl rw - proc resctrl rw\n")
    monkeypatch.setattr(resctrl, "_MOUNTINFO", str(tmp_path / "mountinfo"))
    with pytest.raises(Error) as caught:
        resctrl.plan({}, "box")
    assert caught.value.text == "linux.intelRdt: no resctrl file system is mounted"
    assert "mount -t resctrl" in caught.value.hint


def test_the_mount_point_is_read_from_mountinfo(tree) -> None:
    assert resctrl.mountpoint() == str(tree.top)


def test_without_a_class_the_group_has_the_containers_id(tree) -> None:
    record = applied(tree, {"l3CacheSchema": "L3:0=f"})
    assert (tree.top / "box" / "tasks").read_text() == "4711"
    assert tree.writes == ["box/schemata: L3:0=f\n"]
    assert record["group"] == str(tree.top / "box")


def test_planning_makes_nothing(tree) -> None:
    resctrl.plan({"l3CacheSchema": "L3:0=f", "enableMonitoring": True}, "box")
    assert sorted(os.listdir(tree.top)) == ["mon_groups", "schemata", "tasks"]


def test_without_schemata_none_is_written(tree) -> None:
    applied(tree, {})
    assert tree.writes == []


def test_the_class_slash_is_the_default_group(tree) -> None:
    record = applied(tree, {"closID": "/"})
    assert (tree.top / "tasks").read_text() == "4711" and record["made"] == []


def test_a_class_that_is_there_is_joined_and_kept(tree) -> None:
    group = tree.group("gold")
    record = applied(tree, {"closID": "gold"})
    assert (group / "tasks").read_text() == "4711"
    resctrl.remove(record)
    assert group.exists() and tree.writes == []


def test_a_class_that_is_not_there_needs_a_schema(tree) -> None:
    with pytest.raises(Error, match=r"linux.intelRdt.closID: .*gold does not exist"):
        resctrl.plan({"closID": "gold"}, "box")


@pytest.mark.parametrize("key", ["l3CacheSchema", "memBwSchema", "schemata"])
def test_a_class_that_is_not_there_is_made_with_its_schema(tree, key: str) -> None:
    line = "MB:0=20"
    applied(tree, {"closID": "gold", key: [line] if key == "schemata" else line})
    assert tree.writes == ["gold/schemata: MB:0=20\n"] if key != "l3CacheSchema" else True
    assert (tree.top / "gold" / "tasks").read_text() == "4711"


def test_the_order_is_cache_then_bandwidth_then_schemata(tree) -> None:
    applied(
        tree,
        {"l3CacheSchema": "L3:0=f", "memBwSchema": "MB:0=20", "schemata": ["L2:0=1", "L3:0=1"]},
    )
    assert [line.partition(": ")[2] for line in tree.writes] == [
        "L3:0=f\n",
        "MB:0=20\n",
        "L2:0=1\n",
        "L3:0=1\n",
    ]


def test_bandwidth_inside_the_cache_schema_is_left_out(tree) -> None:
    applied(tree, {"l3CacheSchema": "L3:0=f\nMB:0=99\n", "memBwSchema": "MB:0=20"})
    assert tree.writes == ["box/schemata: L3:0=f\n", "box/schemata: MB:0=20\n"]


def test_a_class_that_is_there_with_another_schema_is_an_error(tree) -> None:
    tree.group("gold")
    with pytest.raises(Error, match="linux.intelRdt"):
        applied(tree, {"closID": "gold", "l3CacheSchema": "L3:0=1;1=1"})
    assert tree.writes == []


def test_a_class_that_is_there_with_the_same_schema_is_joined(tree) -> None:
    group = tree.group("gold")
    applied(
        tree, {"closID": "gold", "l3CacheSchema": "L3:0=7ff;1=7ff", "memBwSchema": "MB:0=100;1=100"}
    )
    assert (group / "tasks").read_text() == "4711"


def test_monitoring_has_a_group_of_the_containers_id(tree) -> None:
    group = tree.group("gold")
    record = applied(tree, {"closID": "gold", "enableMonitoring": True})
    assert (group / "mon_groups" / "box" / "tasks").read_text() == "4711"
    assert record["made"] == [str(group / "mon_groups" / "box")]


def test_monitoring_in_the_default_group(tree) -> None:
    applied(tree, {"closID": "/", "enableMonitoring": True})
    assert (tree.top / "mon_groups" / "box" / "tasks").read_text() == "4711"


def empty(directory: Path) -> None:
    """rmdir(2) on the real file system takes the files along."""
    for path in sorted(directory.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()


def test_remove_takes_what_was_made_for_the_container(tree) -> None:
    record = applied(tree, {"enableMonitoring": True, "l3CacheSchema": "L3:0=f"})
    empty(tree.top / "box")
    (tree.top / "box" / "mon_groups").mkdir()
    (tree.top / "box" / "mon_groups" / "box").mkdir()
    order = []
    real = files.rmdir

    def rmdir(path, dir_fd=None) -> None:
        order.append(os.path.relpath(path, tree.top))
        if path.endswith("/mon_groups/box"):
            real(path)
            os.rmdir(os.path.dirname(path))
        else:
            real(path)

    files.rmdir = rmdir
    try:
        resctrl.remove(record)
    finally:
        files.rmdir = real
    assert order == ["box/mon_groups/box", "box"] and not (tree.top / "box").exists()
    resctrl.remove(record)


def test_a_named_class_that_was_made_stays(tree) -> None:
    record = applied(tree, {"closID": "gold", "l3CacheSchema": "L3:0=f"})
    empty(tree.top / "gold")
    resctrl.remove(record)
    assert (tree.top / "gold").exists()


def test_a_schema_that_the_kernel_refuses_is_named(tree) -> None:
    tree.refused = "wrong"
    with pytest.raises(Error) as caught:
        applied(tree, {"l3CacheSchema": "L3:0=wrong"})
    assert caught.value.text == "linux.intelRdt: write schemata 'L3:0=wrong': invalid argument"


def test_a_group_that_cannot_be_made_is_named(tree) -> None:
    tree.group("box")
    record = resctrl.plan({"enableMonitoring": True}, "box")
    (tree.top / "box" / "mon_groups" / "box").mkdir()
    with pytest.raises(Error, match=r"linux.intelRdt: mkdir .*mon_groups/box: file exists"):
        resctrl.apply(record, {"enableMonitoring": True}, 1)
