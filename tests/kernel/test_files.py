"""Every function of linux.files on the real kernel, seen by a second witness: os, /proc, the shell."""

from __future__ import annotations

import errno
import fcntl
import os
import pty
import stat
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path

import pytest

from anocir.linux import descriptors, entries, files
from tests import drive
from tests.kernel import child

pytestmark = pytest.mark.kernel

root = pytest.mark.needs("root")
NASTY = b"n\xe9 \xff\n"  # neither UTF-8 nor one line


def fdinfo(fd: int) -> dict[str, str]:
    text = Path(f"/proc/self/fdinfo/{fd}").read_text()
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def is_cloexec(fd: int) -> bool:
    return bool(int(fdinfo(fd)["flags"], 8) & os.O_CLOEXEC)


@pytest.fixture
def directory(tmp_path):
    fd = os.open(tmp_path, os.O_RDONLY)
    yield fd
    os.close(fd)


def test_encode_gives_utf8_whatever_the_locale_says() -> None:
    assert files.encode("é\udcff") == b"\xc3\xa9\xff"
    assert files.encode(NASTY) == NASTY
    code = "from anocir.linux import files; print(files.encode('\\u00e9'))"
    for variable in ({"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {}):
        done = subprocess.run(
            [sys.executable, "-c", code], env=variable, capture_output=True, cwd=drive.REPOSITORY
        )
        assert done.stdout == b"b'\\xc3\\xa9'\n", done.stderr


def test_decode_is_undone_by_encode() -> None:
    assert files.decode("é".encode()) == "é"
    assert files.encode(files.decode(NASTY)) == NASTY


def test_open_makes_a_file_with_its_mode_and_close_on_exec(tmp_path, directory) -> None:
    old = os.umask(0o022)
    try:
        fd = files.open(str(tmp_path / "a"), files.O_WRONLY | files.O_CREAT, 0o666)
    finally:
        os.umask(old)
    assert is_cloexec(fd)
    assert int(fdinfo(fd)["flags"], 8) & os.O_ACCMODE == os.O_WRONLY
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o644
    fd = files.open(NASTY, files.O_RDONLY | files.O_CREAT, 0o600, dir_fd=directory)
    assert os.readlink(f"/proc/self/fd/{fd}").encode("utf-8", "surrogateescape").endswith(NASTY)
    os.close(fd)


def test_open_refuses_what_its_flags_say(tmp_path, directory) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    for name, flags, number in [
        ("link", files.O_NOFOLLOW, errno.ELOOP),
        ("file", files.O_DIRECTORY, errno.ENOTDIR),
        ("file", files.O_CREAT | files.O_EXCL, errno.EEXIST),
        ("missing", files.O_RDONLY, errno.ENOENT),
    ]:
        with pytest.raises(OSError) as caught:
            files.open(name, flags, dir_fd=directory)
        assert caught.value.errno == number


def test_close_frees_the_number() -> None:
    fd = os.open("/", os.O_RDONLY)
    files.close(fd)
    assert not os.path.exists(f"/proc/self/fd/{fd}")
    with pytest.raises(OSError) as caught:
        files.close(fd)
    assert caught.value.errno == errno.EBADF


def test_read_gives_what_is_there_and_then_nothing(tmp_path) -> None:
    (tmp_path / "a").write_bytes(b"hello")
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    assert [files.read(fd, 3), files.read(fd, 9), files.read(fd, 9)] == [b"hel", b"lo", b""]
    os.close(fd)


def test_write_tells_how_much_went_out(tmp_path) -> None:
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    size = fcntl.fcntl(write_end, fcntl.F_GETPIPE_SZ)
    assert files.write(write_end, bytes(size + 1)) == size
    with pytest.raises(BlockingIOError):
        files.write(write_end, b"x")
    assert len(os.read(read_end, 2 * size)) == size
    os.close(read_end)
    os.close(write_end)


def test_write_all_writes_all_through_a_pipe_that_is_too_small() -> None:
    data = os.urandom(3 << 20)
    read_end, write_end = os.pipe()

    def writer() -> None:
        os.close(read_end)
        files.write_all(write_end, data)

    pid = child.start(writer)
    os.close(write_end)
    with open(read_end, "rb") as file:
        assert file.read() == data
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("size", [0, 1, 4095, 4096, 65535, 65536, 65537, 3 << 20])
def test_read_fd_reads_to_the_end(tmp_path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    assert files.read_fd(fd) == data
    os.close(fd)


def test_read_fd_waits_for_a_pipe_that_gives_little_by_little() -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        for _ in range(5):
            os.write(write_end, b"abc")
            os.sched_yield()
        os._exit(0)
    os.close(write_end)
    assert files.read_fd(read_end) == b"abc" * 5
    os.close(read_end)
    os.waitpid(pid, 0)


@pytest.mark.parametrize("limit", [1 << 20, 70000])
def test_read_fd_stops_at_its_limit(tmp_path, limit: int) -> None:
    (tmp_path / "a").write_bytes(bytes(2 << 20))
    fd = os.open(tmp_path / "a", os.O_RDONLY)
    assert len(files.read_fd(fd, limit)) == limit
    os.close(fd)


def test_read_file_reads_kernel_files_whole(directory, tmp_path) -> None:
    assert files.read_file("/proc/self/status").startswith(b"Name:")
    # A module or a program of eBPF that comes or goes meanwhile changes it: two looks must agree.
    end = time.monotonic() + 60
    before = after = 0
    while time.monotonic() < end:
        before = Path("/proc/kallsyms").read_bytes()
        found = files.read_file("/proc/kallsyms")
        after = Path("/proc/kallsyms").read_bytes()
        if before == after:
            break
    assert found == before == after and len(found) > 1 << 20
    (tmp_path / "a").write_bytes(b"x")
    assert files.read_file("a", directory) == b"x"


def test_write_file_writes_into_what_exists_and_names_it_when_it_fails(tmp_path) -> None:
    path = tmp_path / "a"
    with pytest.raises(FileNotFoundError):
        files.write_file(str(path), "x")
    path.write_text("old text")
    files.write_file(str(path), "new")
    assert path.read_text() == "new text"
    before = Path("/proc/self/oom_score_adj").read_text()
    with pytest.raises(OSError) as caught:
        files.write_file("/proc/self/oom_score_adj", "5000")
    assert (caught.value.errno, caught.value.filename) == (errno.EINVAL, "/proc/self/oom_score_adj")
    assert Path("/proc/self/oom_score_adj").read_text() == before


@pytest.mark.parametrize("inheritable", [False, True])
def test_dup2_copies_a_descriptor(inheritable: bool) -> None:
    fd = os.open("/", os.O_RDONLY)
    target = os.open("/proc", os.O_RDONLY)
    files.dup2(fd, target, inheritable)
    assert os.readlink(f"/proc/self/fd/{target}") == "/"
    assert is_cloexec(target) is not inheritable
    os.close(fd)
    os.close(target)


@pytest.mark.parametrize("access", [os.O_RDONLY, os.O_WRONLY, os.O_RDWR])
@pytest.mark.parametrize("more", [0, os.O_NONBLOCK, os.O_APPEND])
def test_status_flags_are_those_of_fdinfo(tmp_path, access: int, more: int) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | access | more)
    found = descriptors.status_flags(fd)
    assert found == int(fdinfo(fd)["flags"], 8) & ~os.O_CLOEXEC
    assert (found & os.O_ACCMODE, found & more) == (access, more)
    os.set_blocking(fd, False)
    assert descriptors.status_flags(fd) & os.O_NONBLOCK
    os.close(fd)
    with pytest.raises(OSError) as caught:
        descriptors.status_flags(fd)
    assert caught.value.errno == errno.EBADF


def test_dup_above_gives_a_number_that_is_high_enough() -> None:
    fd = os.open("/", os.O_RDONLY)
    copy = descriptors.dup_above(fd, 200)
    assert copy >= 200 and os.readlink(f"/proc/self/fd/{copy}") == "/" and is_cloexec(copy)
    os.close(fd)
    os.close(copy)


def test_set_inheritable_decides_what_a_program_sees() -> None:
    fd = os.open("/", os.O_RDONLY)
    for wanted in (True, False):
        files.set_inheritable(fd, wanted)
        assert is_cloexec(fd) is not wanted
        found = subprocess.run(["ls", "/proc/self/fd"], close_fds=False, capture_output=True)
        assert (str(fd).encode() in found.stdout.split()) is wanted
    os.close(fd)


def test_pipe_has_two_ends_that_programs_do_not_get() -> None:
    read_end, write_end = descriptors.pipe()
    assert is_cloexec(read_end) and is_cloexec(write_end)
    os.write(write_end, b"x")
    assert os.read(read_end, 9) == b"x"
    os.close(read_end)
    os.close(write_end)


def locks(inode: int) -> list[list[str]]:
    """Our own locks on a file; others may have one on the same number in another file system."""
    rows = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    ours = [row for row in rows if row[4:5] == [str(os.getpid())]]
    return [row for row in ours if any(word.endswith(f":{inode}") for word in row)]


def test_flock_excludes_another_and_funlock_lets_it_in(tmp_path) -> None:
    path = tmp_path / "lock"
    path.touch()
    one, two = (os.open(path, os.O_RDONLY) for _ in range(2))
    assert descriptors.flock(one) and descriptors.flock(one, wait=False)
    assert [row[1:4] for row in locks(path.stat().st_ino)] == [["FLOCK", "ADVISORY", "WRITE"]]
    assert not descriptors.flock(two, wait=False)
    descriptors.funlock(one)
    assert not locks(path.stat().st_ino)
    assert descriptors.flock(two, wait=False)
    descriptors.funlock(two)
    os.close(one)
    os.close(two)


def test_funlock_is_what_a_waiting_process_waits_for(tmp_path) -> None:
    path = tmp_path / "lock"
    path.touch()
    fd = os.open(path, os.O_RDONLY)
    descriptors.flock(fd)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        own = os.open(path, os.O_RDONLY)
        os.write(write_end, b"1")
        descriptors.flock(own)
        os.write(write_end, b"2")
        os._exit(0)
    assert os.read(read_end, 1) == b"1"
    os.set_blocking(read_end, False)
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    descriptors.funlock(fd)
    os.set_blocking(read_end, True)
    assert os.read(read_end, 1) == b"2"
    os.waitpid(pid, 0)
    for end in (fd, read_end, write_end):
        os.close(end)


def test_ioctl_takes_numbers_and_bytes() -> None:
    master, slave = pty.openpty()
    descriptors.ioctl(master, termios.TIOCSWINSZ, struct.pack("=HHHH", 12, 34, 0, 0))
    assert os.get_terminal_size(slave) == (34, 12)
    data = descriptors.ioctl(slave, termios.TIOCGWINSZ, bytes(8))
    assert struct.unpack("=HHHH", data)[:2] == (12, 34)
    assert descriptors.ioctl(master, termios.TIOCPKT, struct.pack("=i", 0)) == bytes(4)
    with pytest.raises(OSError) as caught:
        descriptors.ioctl(master, 0xDEAD)
    assert caught.value.errno in (errno.ENOTTY, errno.EINVAL)
    os.close(master)
    os.close(slave)


def test_stat_follows_links_lstat_does_not_and_fstat_takes_o_path(tmp_path, directory) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("file")
    expected = os.stat(tmp_path / "file")
    assert files.stat(str(tmp_path / "link")) == expected
    assert files.stat("link", directory) == expected
    fd = os.open("file", os.O_PATH, dir_fd=directory)
    assert files.fstat(fd) == expected
    os.close(fd)


def test_lstat_sees_the_link_itself(tmp_path, directory) -> None:
    (tmp_path / "link").symlink_to("missing")
    assert files.lstat(str(tmp_path / "link")) == os.lstat(tmp_path / "link")
    assert stat.S_ISLNK(files.lstat("link", directory).st_mode)


def test_fstat_tells_that_a_directory_was_removed(tmp_path) -> None:
    (tmp_path / "d").mkdir()
    fd = os.open(tmp_path / "d", os.O_RDONLY)
    assert files.fstat(fd).st_nlink > 0
    (tmp_path / "d").rmdir()
    assert files.fstat(fd).st_nlink == 0
    os.close(fd)


def test_fstatvfs_has_the_flags_of_the_mount() -> None:
    fd = os.open("/proc", os.O_PATH)
    options = subprocess.run(
        ["findmnt", "-no", "VFS-OPTIONS", "/proc"], capture_output=True, text=True
    ).stdout.strip()
    flags = files.fstatvfs(fd).f_flag
    os.close(fd)
    for word, bit in (("ro", 1), ("nosuid", 2), ("nodev", 4), ("noexec", 8)):
        assert bool(flags & bit) == (word in options.split(",")), options


def test_exists_follows_links(tmp_path, directory) -> None:
    (tmp_path / "good").symlink_to("/")
    (tmp_path / "bad").symlink_to("missing")
    assert files.exists(str(tmp_path / "good")) and files.exists("good", directory)
    assert not files.exists("bad", directory) and not files.exists("/missing")


def test_mkdir_applies_the_umask(tmp_path, directory) -> None:
    def make() -> None:
        os.umask(0o027)
        entries.mkdir("d", 0o777, dir_fd=directory)

    assert child.end(make) == 0
    assert stat.S_IMODE((tmp_path / "d").stat().st_mode) == 0o750
    with pytest.raises(FileExistsError):
        entries.mkdir(str(tmp_path / "d"))


def test_rmdir_removes_an_empty_directory_only(tmp_path, directory) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    with pytest.raises(OSError) as caught:
        files.rmdir("d", directory)
    assert caught.value.errno == errno.ENOTEMPTY
    files.rmdir("d/e", directory)
    files.rmdir(str(tmp_path / "d"))
    assert not list(tmp_path.iterdir())


def test_unlink_removes_the_link_and_not_its_target(tmp_path, directory) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    files.unlink("link", directory)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(OSError):
        files.unlink(str(tmp_path))


def test_rename_replaces_whole(tmp_path, directory) -> None:
    (tmp_path / "old").write_text("old")
    (tmp_path / "new").write_text("new")
    inode = (tmp_path / "new").stat().st_ino
    entries.rename("new", "old", directory, directory)
    assert (tmp_path / "old").stat().st_ino == inode
    entries.rename(str(tmp_path / "old"), str(tmp_path / "third"))
    assert [path.name for path in tmp_path.iterdir()] == ["third"]


def test_symlink_says_its_target_to_the_byte(tmp_path, directory) -> None:
    entries.symlink(NASTY, "link", dir_fd=directory)
    assert os.readlink(os.fsencode(tmp_path / "link")) == NASTY
    entries.symlink("a", str(tmp_path / "other"))
    assert os.readlink(tmp_path / "other") == "a"


def test_readlink_gives_text_that_encodes_back(tmp_path, directory) -> None:
    os.symlink(NASTY, os.fsencode(tmp_path / "link"))
    assert files.encode(entries.readlink("link", directory)) == NASTY
    fd = os.open("link", os.O_PATH | os.O_NOFOLLOW, dir_fd=directory)
    assert files.encode(entries.readlink("", dir_fd=fd)) == NASTY
    os.close(fd)


@root
def test_mknod_makes_devices_and_fifos(tmp_path, directory) -> None:
    def make() -> None:
        os.umask(0o077)
        entries.mknod("null", stat.S_IFCHR | 0o666, files.makedev(1, 3), dir_fd=directory)
        entries.mknod(str(tmp_path / "fifo"), stat.S_IFIFO | 0o666)

    assert child.end(make) == 0
    shown = subprocess.run(
        ["stat", "-c", "%F %t %T %a", str(tmp_path / "null"), str(tmp_path / "fifo")],
        capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert shown.splitlines() == ["character special file 1 3 600", "fifo 0 0 600"]


def test_makedev_packs_as_the_kernel_does() -> None:
    found = os.stat("/dev/null")
    assert files.makedev(1, 3) == found.st_rdev
    for major, minor in ((0, 0), (1, 3), (4095, 1048575), (259, 300)):
        device = files.makedev(major, minor)
        assert (os.major(device), os.minor(device)) == (major, minor)


def test_kind_tells_files_apart_as_the_interpreter_does(tmp_path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for path in (tmp_path, tmp_path / "fifo", tmp_path / "link", "/dev/null", __file__):
        found = os.lstat(path)
        assert files.kind(found) == stat.S_IFMT(found.st_mode)


def test_device_knows_the_null_device() -> None:
    found = os.stat("/dev/null")
    assert files.device(found) == files.NULL_DEVICE == (stat.S_IFCHR, os.makedev(1, 3))
    assert files.device(os.stat("/dev/zero")) != files.NULL_DEVICE


def test_chmod_follows_links_and_ignores_the_umask(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    entries.chmod(str(tmp_path / "link"), 0o4755)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o4755


def test_fchmod_changes_an_open_file(tmp_path) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDONLY)
    files.fchmod(fd, 0o1777)
    os.close(fd)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o1777


@root
def test_chown_changes_the_link_or_what_it_names(tmp_path, directory) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    entries.chown("link", 5, 6, dir_fd=directory, follow=False)
    entries.chown(str(tmp_path / "link"), 7, -1)
    owners = [(path.lstat().st_uid, path.lstat().st_gid) for path in sorted(tmp_path.iterdir())]
    assert owners == [(7, 0), (5, 6)]


@root
def test_fchown_changes_an_open_file(tmp_path) -> None:
    fd = os.open(tmp_path / "file", os.O_CREAT | os.O_RDONLY)
    files.fchown(fd, 11, 12)
    os.close(fd)
    found = (tmp_path / "file").stat()
    assert (found.st_uid, found.st_gid) == (11, 12)


def test_listdir_names_all_but_the_two_dots(tmp_path, directory) -> None:
    for name in (b"a", NASTY, b".hidden"):
        (tmp_path / os.fsdecode(name)).touch()
    expected = {files.decode(name) for name in os.listdir(os.fsencode(tmp_path))}
    assert len(expected) == 3
    assert set(files.listdir(str(tmp_path))) == set(files.listdir(directory)) == expected
    assert len(files.listdir(directory)) == 3, "the position of the descriptor does not matter"


def test_listdir_of_a_descriptor_decodes_as_utf8_in_every_locale(tmp_path) -> None:
    (tmp_path / "é").touch()
    code = (
        "import os; from anocir.linux import files; "
        f"print(ascii(files.listdir(os.open({str(tmp_path)!r}, 0))))"
    )
    variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, cwd=drive.REPOSITORY
    )
    assert done.stdout == b"['\\xe9']\n", done.stderr


def test_chdir_moves_and_getcwd_tells(tmp_path) -> None:
    def move() -> tuple[str, str]:
        entries.chdir(str(tmp_path))
        return entries.getcwd(), os.readlink("/proc/self/cwd")

    assert child.run(move) == (str(tmp_path), str(tmp_path))


def test_fchdir_moves_to_an_open_directory(tmp_path, directory) -> None:
    def move() -> str:
        files.fchdir(directory)
        return os.readlink("/proc/self/cwd")

    assert child.run(move) == str(tmp_path)


@root
def test_chroot_changes_the_root(tmp_path) -> None:
    (tmp_path / "inside").touch()
    proc = os.open("/proc", os.O_PATH)

    def enter() -> tuple[list[str], str]:
        entries.chroot(str(tmp_path))
        os.chdir("/")
        return os.listdir("/"), os.readlink("self/root", dir_fd=proc)

    names, seen = child.run(enter)
    os.close(proc)
    assert names == ["inside"] and seen == "/"


def test_getcwd_fails_where_there_is_none(tmp_path) -> None:
    (tmp_path / "d").mkdir()

    def stand() -> str:
        os.chdir(tmp_path / "d")
        os.rmdir(tmp_path / "d")
        return entries.getcwd()

    with pytest.raises(FileNotFoundError):
        child.run(stand)


def test_umask_gives_the_old_one() -> None:
    def change() -> tuple[int, int, str]:
        first = files.umask(0o123)
        second = files.umask(0o057)
        return first, second, child.status_field("Umask")

    before = os.umask(0o22)
    os.umask(before)
    assert child.run(change) == (before, 0o123, "0057")


def test_isatty_knows_a_terminal() -> None:
    master, slave = pty.openpty()
    fd = os.open("/dev/null", os.O_RDONLY)
    assert files.isatty(slave) and not files.isatty(fd)
    for end in (master, slave, fd):
        os.close(end)


def test_missing_knows_both_words_for_a_call_that_is_not_there() -> None:
    from anocir.linux import inodes, mounts
    from tests import blocked
    from tests.kernel import child

    def action() -> list[bool]:
        found = []
        for calls, error in (("openat2", errno.ENOSYS), ("fsopen", errno.EPERM)):
            blocked.load(blocked.numbers(calls), error)
        for call in (lambda: inodes.openat2(-1, "x", 0, 0), lambda: mounts.fsopen("tmpfs"),
                     lambda: mounts.open_tree(-1, "x", 0)):  # fmt: skip
            try:
                call()
            except OSError as failure:
                found.append(files.missing(failure))
        return found

    assert child.run(action) == [True, True, False]


def test_subdirectories_are_the_directories_alone_and_no_link_to_one(tmp_path) -> None:
    (tmp_path / os.fsdecode(NASTY)).mkdir()
    (tmp_path / "plain").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("plain")
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        expected = {"plain", files.decode(NASTY)}
        assert set(entries.subdirectories(fd)) == expected
        assert set(entries.subdirectories(fd)) == expected, "the position does not matter"
    finally:
        os.close(fd)
