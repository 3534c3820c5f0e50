"""tmpcopyup: the copy has the same tree, modes, owners, times, attributes; nothing else is touched."""

from __future__ import annotations

import os
import random
import resource
import socket
import stat
import subprocess
from pathlib import Path

import pytest

from anocir.errors import Error
from anocir.inside import copyup
from tests import machine
from tests.kernel import child

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]


def describe(top: Path) -> dict[str, tuple]:
    """All that a copy must keep, by path; only of regular files the times and attributes."""
    found = {}
    for directory, names, others in os.walk(top):
        for path in [directory, *(os.path.join(directory, name) for name in names + others)]:
            one = os.lstat(path)
            row = [stat.filemode(one.st_mode), one.st_uid, one.st_gid]
            if stat.S_ISLNK(one.st_mode):
                row.append(os.readlink(path))
            elif stat.S_ISREG(one.st_mode):
                content = Path(path).read_bytes()
                attributes = {name: os.getxattr(path, name) for name in os.listxattr(path)}
                row += [len(content), hash(content), one.st_mtime_ns, attributes]
            elif stat.S_ISCHR(one.st_mode) or stat.S_ISBLK(one.st_mode):
                row.append(one.st_rdev)
            found[os.path.relpath(path, top)] = tuple(row)
    return found


def inside(found):
    """The description without the directory itself, which stays as it is mounted."""
    return {name: row for name, row in found.items() if name != "."}


def copied(source: Path, target: Path):
    def action():
        machine.mount("t", str(target), "tmpfs", 0, "mode=700")
        descriptors = len(os.listdir("/proc/self/fd"))
        source_fd, target_fd = os.open(source, os.O_PATH), os.open(target, os.O_PATH)
        copyup.copy(source_fd, target_fd)
        os.close(source_fd)
        os.close(target_fd)
        assert len(os.listdir("/proc/self/fd")) == descriptors
        return describe(target)

    return child.run(action, machine.CLONE_NEWNS)


@pytest.fixture
def places(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()
    return source, target


def test_everything_that_an_image_can_hold_is_copied(places) -> None:
    source, target = places
    source.chmod(0o1775)
    os.chown(source, 11, 12)
    (source / "empty").touch()
    (source / "big").write_bytes(random.Random(1).randbytes((2 << 20) + 7))
    (source / "setuid").write_text("#!/bin/sh\n")
    os.chown(source / "setuid", 5, 6)
    (source / "setuid").chmod(0o6755)
    os.utime(source / "setuid", ns=(1_000_000_001, 2_000_000_003))
    (source / "secret").mkdir(mode=0o700)
    (source / "secret" / "deep").mkdir(mode=0o1777)
    (source / "secret" / "deep" / "file").write_text("x")
    os.chown(source / "secret" / "deep", 7, 8)
    (source / "secret").chmod(0o500)
    os.symlink("/etc/passwd", source / "absolute")
    os.symlink("missing", source / "dangling")
    os.lchown(source / "dangling", 3, 4)
    os.mkfifo(source / "fifo", 0o620)
    os.mknod(source / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(source / "socket"))
    (source / os.fsdecode(b"n\xe9\n \xff")).touch()
    (source / "label").touch()
    os.setxattr(
        source / "label",
        "security.capability",
        bytes.fromhex("0100000200040000000000000000000000000000"),
    )
    os.setxattr(source / "label", "trusted.empty", b"")
    os.setxattr(source / "label", "trusted.long", b"\0\xff" * 500)
    before = describe(source)
    found = copied(source, target)
    assert inside(found) == inside(before)
    assert found["."] == ("drwx------", 0, 0)
    assert describe(source) == before


def test_the_umask_does_not_matter(places) -> None:
    source, target = places
    (source / "fifo-dir").mkdir()
    (source / "fifo-dir").chmod(0o777)
    os.mkfifo(source / "fifo-dir" / "fifo")
    os.chmod(source / "fifo-dir" / "fifo", 0o666)
    (source / "file").touch()
    (source / "file").chmod(0o666)
    old = os.umask(0)  # as init has it
    try:
        assert inside(copied(source, target)) == inside(describe(source))
    finally:
        os.umask(old)


def test_links_are_copied_and_never_followed(places, tmp_path) -> None:
    source, target = places
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.symlink(outside, source / "directory")
    os.symlink(outside / "file", source / "file")
    found = copied(source, target)
    assert set(found) == {".", "directory", "file"}
    assert [path.name for path in outside.iterdir()] == ["file"]


def test_a_directory_below_gives_its_mode_and_owner_and_the_top_does_not(places) -> None:
    """The top is a mount with options of its own, as runc and crun have it."""
    source, target = places
    (source / "below").mkdir()
    for path in (source, source / "below"):
        path.chmod(0o2711)
        os.chown(path, 21, 22)
    found = copied(source, target)
    assert found == {".": ("drwx------", 0, 0), "below": ("drwx--s--x", 21, 22)}


def test_a_tree_of_some_depth_and_width(places) -> None:
    source, target = places
    path = source
    for level in range(40):
        path = path / f"level{level}"
        path.mkdir()
        for number in range(3):
            (path / f"file{number}").write_text(f"{level} {number}")
    found = copied(source, target)
    assert inside(found) == inside(describe(source)) and len(found) == 161


def test_a_name_that_is_there_already_is_an_error_and_not_overwritten(places) -> None:
    source, target = places
    (source / "file").write_text("new")
    (target / "file").write_text("old")
    fds = os.open(source, os.O_PATH), os.open(target, os.O_PATH)
    with pytest.raises(FileExistsError):
        copyup.copy(*fds)
    for fd in fds:
        os.close(fd)
    assert (target / "file").read_text() == "old"


def test_any_depth_is_copied(places) -> None:
    """1,500 levels: no recursion of ours, no path that grows, and few descriptors."""
    source, target = places
    fd = os.open(source, os.O_RDONLY)
    for _level in range(1500):
        os.mkdir("d", 0o751, dir_fd=fd)
        below = os.open("d", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(os.open("leaf", os.O_CREAT | os.O_WRONLY, 0o640, dir_fd=fd))
    os.close(fd)

    def action():
        machine.mount("t", str(target), "tmpfs", 0, "mode=700")
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        ours = max(int(fd) for fd in os.listdir("/proc/self/fd"))  # of whoever runs the tests
        resource.setrlimit(resource.RLIMIT_NOFILE, (ours + 50, limits[1]))
        source_fd, target_fd = os.open(source, os.O_PATH), os.open(target, os.O_PATH)
        copyup.copy(source_fd, target_fd)
        fd, depth = os.dup(target_fd), 0
        while "d" in os.listdir(f"/proc/self/fd/{fd}"):
            below = os.open("d", os.O_RDONLY, dir_fd=fd)
            os.close(fd)
            fd, depth = below, depth + 1
            assert stat.S_IMODE(os.fstat(fd).st_mode) == 0o751
        return depth, os.listdir(fd), stat.S_IMODE(os.stat("leaf", dir_fd=fd).st_mode)

    try:
        assert child.run(action, machine.CLONE_NEWNS) == (1500, ["leaf"], 0o640)
    finally:
        subprocess.run(["rm", "-rf", str(source)], check=True)


def test_a_file_that_was_exchanged_has_the_mode_of_its_own(places, monkeypatch) -> None:
    """Looked at with the setuid bit, and another one by the time that it is opened."""
    source, target = places
    (source / "file").write_text("trusted")
    os.chmod(source / "file", 0o4755)
    (source.parent / "evil").write_text("evil")
    os.chmod(source.parent / "evil", 0o600)
    os.chown(source.parent / "evil", 1000, 1000)
    look = copyup.files.lstat

    def exchanged(name, dir_fd=None):
        found = look(name, dir_fd=dir_fd)
        if name == "file" and (source.parent / "evil").exists():
            os.replace(source.parent / "evil", source / "file")
        return found

    monkeypatch.setattr(copyup.files, "lstat", exchanged)
    mode, uid, *_ = copied(source, target)["file"]
    assert (mode, uid) == ("-rw-------", 1000)


def test_a_directory_that_was_moved_is_an_error(places, monkeypatch) -> None:
    """Its way up leads elsewhere: nothing of what is there is copied."""
    source, target = places
    (source / "a/b").mkdir(parents=True)
    outside = source.parent / "outside"
    outside.mkdir()
    (outside / "secret").write_text("host\n")
    read = copyup.files.listdir

    def moved(fd):
        names = read(fd)
        if (
            os.path.basename(os.readlink(f"/proc/self/fd/{fd}")) == "b"
            and (source / "a/b").exists()
        ):
            os.rename(source / "a/b", outside / "b")
        return names

    monkeypatch.setattr(copyup.files, "listdir", moved)

    def action():
        machine.mount("t", str(target), "tmpfs", 0, "mode=700")
        try:
            copyup.copy(os.open(source, os.O_PATH), os.open(target, os.O_PATH))
        except Error as error:
            return error.text, sorted(path.name for path in target.rglob("*"))
        return "copied", []

    text, names = child.run(action, machine.CLONE_NEWNS)
    assert "moved" in text and "secret" not in names
