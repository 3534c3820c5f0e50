"""Id-mapped mounts: who owns a file, seen through the mount and from outside of it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from anocir.host import idmapped as idmap
from anocir.errors import Error
from anocir.linux import mounts
from tests import machine
from tests.kernel import child

pytestmark = [
    pytest.mark.kernel, pytest.mark.needs("root"), pytest.mark.needs("user-namespace"),
]  # fmt: skip

MAPPED = [{"containerID": 0, "hostID": 5000, "size": 3000}]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with files of three owners, and a place to mount it on."""
    tmp_path.chmod(0o755)
    directory = tmp_path / "source"
    directory.mkdir(mode=0o777)
    directory.chmod(0o777)
    for owner in (0, 1000, 5000):
        path = directory / str(owner)
        path.touch()
        os.chown(path, owner, owner)
    (directory / "sub").mkdir()
    (tmp_path / "target").mkdir()
    return directory


def seen(source: Path, entry, words=(), pid: int = 0, also=lambda target: None, before=None):
    """Owners by file name as they look through the mount; 65534 is nobody."""

    def action():
        if before is not None:
            before()
        target = source.parent / "target"
        mount_fd = idmap.mount(str(source), entry, list(words), pid or os.getpid(), "mounts[3]")
        target_fd = os.open(target, os.O_PATH)
        mounts.move_mount(mount_fd, target_fd)
        names = [name for name in os.listdir(target) if name != "sub"]
        owners = {int(name): (os.stat(target / name).st_uid, os.stat(target / name).st_gid)
                  for name in names}  # fmt: skip
        return owners, also(target)

    return child.run(action, machine.CLONE_NEWNS)


def test_the_mapping_of_the_mount_itself(source) -> None:
    """A file of 0 on the file system belongs to 5000 through the mount."""
    entry = {"uidMappings": MAPPED, "gidMappings": [{**MAPPED[0], "hostID": 7000}]}
    owners, _ = seen(source, entry)
    assert owners[0] == (5000, 7000) and owners[1000] == (6000, 8000)
    assert owners[5000] == (65534, 65534), "an owner that is not mapped is nobody"


def test_what_is_made_through_the_mount_belongs_to_the_other_id_on_disk(source) -> None:
    def make(target: Path) -> None:
        directory = os.open(target, os.O_RDONLY)
        os.setgroups([])
        os.setresgid(5001, 5001, 5001)
        os.setresuid(5001, 5001, 5001)
        os.open("made", os.O_CREAT | os.O_EXCL, dir_fd=directory)

    entry = {"uidMappings": MAPPED, "gidMappings": MAPPED}
    seen(source, entry, also=make)
    found = (source / "made").stat()
    assert (found.st_uid, found.st_gid) == (1, 1)


def test_nothing_changes_outside_of_the_mount(source) -> None:
    before = [(path.name, path.stat().st_uid) for path in sorted(source.iterdir())]
    seen(source, {"uidMappings": MAPPED, "gidMappings": MAPPED})
    assert [(path.name, path.stat().st_uid) for path in sorted(source.iterdir())] == before


@pytest.mark.parametrize(
    ("word", "zero", "thousand"),
    [("idmap=uids=0-9000-1;gids=0-9100-1", (9000, 9100), (65534, 65534)),
     ("idmap=uids=0-9000-1#1000-4000-5;gids=0-9100-2000", (9000, 9100), (4000, 10100)),
     ("idmap=gids=0-1-1;uids=0-2-1", (2, 1), (65534, 65534))],
)  # fmt: skip
def test_the_mapping_in_the_option(source, word: str, zero, thousand) -> None:
    owners, _ = seen(source, {}, [word])
    assert owners[0] == zero and owners[1000] == thousand


def test_the_last_of_several_words_counts(source) -> None:
    owners, _ = seen(source, {}, ["idmap=uids=0-1-1;gids=0-1-1", "idmap=uids=0-2-1;gids=0-2-1"])
    assert owners[0] == (2, 2)


@pytest.mark.parametrize("word", ["idmap=uids=0-1;gids=0-1-1", "idmap=users=0-1-1", "idmap=uids=a-b-c",
                                  "idmap=uids=0-1-1;gids=²-1-1", "ridmap=uids=-1-1-1"])  # fmt: skip
def test_a_mapping_that_cannot_be_read_names_the_mount(source, word: str) -> None:
    with pytest.raises(Error, match=r"^mounts\[3\]\.options: idmap"):
        idmap.mount(str(source), {}, [word], os.getpid(), "mounts[3]")


def test_the_mapping_of_the_containers_own_user_namespace(source) -> None:
    with child.user_namespace("0 5000 2000") as pid:
        owners, _ = seen(source, {"options": ["bind", "idmap"]}, ["idmap"], pid)
    assert owners[0] == (5000, 5000) and owners[1000] == (6000, 6000)


def below(source: Path):
    """Mount another file system below the source, with a file of 1000 in it."""

    def action() -> None:
        machine.mount("t", str(source / "sub"), "tmpfs", 0, "mode=755")
        (source / "sub" / "file").touch()
        os.chown(source / "sub" / "file", 1000, 1000)

    return action


@pytest.mark.parametrize(
    ("word", "bind", "expected"),
    [("idmap", "bind", None), ("idmap", "rbind", 1000), ("ridmap", "rbind", 6000)],
)
def test_mounts_below_are_taken_along_and_mapped_only_by_ridmap(
    source, word, bind, expected
) -> None:
    entry = {"uidMappings": MAPPED, "gidMappings": MAPPED, "options": [bind, word]}

    def look(target: Path):
        path = target / "sub" / "file"
        return path.stat().st_uid if path.exists() else None

    _, found = seen(source, entry, [word], also=look, before=below(source))
    assert found == expected


def test_a_file_system_that_cannot_do_it_is_named_with_a_hint() -> None:
    with pytest.raises(Error) as caught:
        idmap.mount(
            "/proc", {"uidMappings": MAPPED, "gidMappings": MAPPED}, [], os.getpid(), "mounts[0]"
        )
    assert caught.value.text == "mounts[0]: id-mapped mount of /proc: invalid argument"
    assert "file system" in caught.value.hint


def test_a_source_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(Error, match="no such file or directory"):
        idmap.mount(
            str(tmp_path / "x"),
            {"uidMappings": MAPPED, "gidMappings": MAPPED},
            [],
            os.getpid(),
            "m",
        )


def test_a_container_in_the_hosts_own_user_namespace_is_an_error(source) -> None:
    with pytest.raises(Error, match=r"mounts\[3\]: id-mapped mount"):
        seen(source, {}, ["idmap"])


@pytest.mark.parametrize("fails", [False, True])
def test_no_descriptor_and_no_process_is_left(source, fails: bool) -> None:
    entry = {"uidMappings": MAPPED, "gidMappings": MAPPED}

    def action() -> tuple[int, int, bool]:
        before = len(os.listdir("/proc/self/fd"))
        try:
            os.close(idmap.mount("/proc" if fails else str(source), entry, [], os.getpid(), "m"))
        except Error:
            assert fails
        try:
            os.waitpid(-1, os.WNOHANG)
        except ChildProcessError as error:
            return len(os.listdir("/proc/self/fd")) - before, error.errno == errno.ECHILD
        return -1, False

    assert child.run(action, machine.CLONE_NEWNS) == (0, True)
