"""Every function of linux.mounts in a mount namespace of its own, seen by mountinfo and findmnt."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from anocir.linux import const, files, inodes, mounts
from tests import blocked, machine
from tests.kernel import child

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]

NEWNS = machine.CLONE_NEWNS


def mount_at(path: object) -> dict[str, str] | None:
    """The topmost mount on a path as /proc/self/mountinfo has it."""
    wanted = str(path).replace(" ", "\\040")
    found = None
    for fields, kind, options in machine.mountinfo():
        if fields[4] == wanted:
            found = {"root": fields[3], "options": fields[5], "propagation": " ".join(fields[6:]),
                     "type": kind, "super": options}  # fmt: skip
    return found


def findmnt(path: object, column: str) -> str:
    command = ["findmnt", "-no", column, "--mountpoint", str(path)]
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def inside(action):
    """Run in a child with a mount namespace of its own."""
    return child.run(action, NEWNS)


def test_mount_makes_a_file_system_with_flags_and_data(tmp_path) -> None:
    def action():
        flags = const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC
        mounts.mount("named", str(tmp_path), "tmpfs", flags, "size=64k,mode=0711")
        (tmp_path / "file").touch()
        return (findmnt(tmp_path, "FSTYPE,SOURCE").split(), findmnt(tmp_path, "VFS-OPTIONS"),
                os.statvfs(tmp_path).f_blocks * 4096, os.stat(tmp_path).st_mode & 0o7777)  # fmt: skip

    kind, options, size, mode = inside(action)
    assert kind == ["tmpfs", "named"] and size == 65536 and mode == 0o711
    assert {"nosuid", "nodev", "noexec"} <= set(options.split(","))
    assert mount_at(tmp_path) is None, "the namespace of the test is untouched"


def test_mount_binds_and_takes_no_data_for_empty(tmp_path) -> None:
    source, target = tmp_path / "a b", tmp_path / "t"
    source.mkdir()
    target.mkdir()
    (source / "file").touch()

    def action():
        mounts.mount(str(source), os.fsencode(target), "", const.MS_BIND)
        mounts.mount("", str(target), "", const.MS_BIND | const.MS_REMOUNT | const.MS_RDONLY, "")
        return os.listdir(target), mount_at(target)["options"]

    names, options = inside(action)
    assert names == ["file"] and options.split(",")[0] == "ro"


@pytest.mark.parametrize(
    ("flags", "shown"),
    [(const.MS_SHARED, "shared:"), (const.MS_PRIVATE, ""), (const.MS_UNBINDABLE, "unbindable")],
)
def test_mount_changes_the_propagation(tmp_path, flags: int, shown: str) -> None:
    def action():
        mounts.mount("t", str(tmp_path), "tmpfs", 0)
        mounts.mount("", str(tmp_path), "", flags)
        return mount_at(tmp_path)["propagation"]

    found = inside(action)
    assert found.startswith(shown) if shown else found == ""


@pytest.mark.parametrize(
    ("arguments", "number"),
    [
        (("x", "/missing", "tmpfs", 0), errno.ENOENT),
        (("x", "/mnt", "nosuchfs", 0), errno.ENODEV),
        (("x", "/mnt", "tmpfs", 0, "size=wrong"), errno.EINVAL),
        (("/missing", "/mnt", "", const.MS_BIND), errno.ENOENT),
    ],
)
def test_mount_names_its_target_when_it_fails(arguments, number: int) -> None:
    with pytest.raises(OSError) as caught:
        inside(lambda: mounts.mount(*arguments))
    error = caught.value
    assert (error.errno, error.filename) == (number, arguments[1])


def test_umount2_takes_the_topmost_mount(tmp_path) -> None:
    def action():
        mounts.mount("one", str(tmp_path), "tmpfs", 0)
        mounts.mount("two", str(tmp_path), "tmpfs", 0)
        mounts.umount2(str(tmp_path), 0)
        left = findmnt(tmp_path, "SOURCE")
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            mounts.umount2(str(tmp_path), 0)
        except OSError as error:
            busy = (error.errno, error.filename)
        mounts.umount2(str(tmp_path), const.MNT_DETACH)
        os.close(fd)
        return left, busy, findmnt(tmp_path, "SOURCE")

    assert inside(action) == ("one", (errno.EBUSY, str(tmp_path)), "")


def test_pivot_root_with_two_dots_makes_the_directory_the_root(tmp_path) -> None:
    def action():
        mounts.mount("new", str(tmp_path), "tmpfs", 0)
        (tmp_path / "inside").touch()
        os.chdir(tmp_path)
        mounts.pivot_root(".", ".")
        mounts.umount2(".", const.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/")

    assert inside(action) == ["inside"]


def test_pivot_root_refuses_what_is_no_mount(tmp_path) -> None:
    def action():
        os.chdir(tmp_path)
        mounts.pivot_root(".", ".")

    with pytest.raises(OSError) as caught:
        inside(action)
    assert caught.value.errno in (errno.EBUSY, errno.EINVAL)


def test_openat2_stays_below_the_root_that_it_is_given(tmp_path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_text("mine")
    (tmp_path / "out").symlink_to("/etc/passwd")
    root = os.open(tmp_path, os.O_PATH)
    fd = inodes.openat2(root, "out", files.O_RDONLY, const.RESOLVE_IN_ROOT)
    assert os.read(fd, 9) == b"mine"
    assert not os.get_inheritable(fd)
    os.close(fd)
    for path, resolve, number in [
        ("out", const.RESOLVE_BENEATH, errno.EXDEV),
        ("out", const.RESOLVE_NO_SYMLINKS, errno.ELOOP),
        ("../etc", const.RESOLVE_BENEATH, errno.EXDEV),
        ("missing", const.RESOLVE_IN_ROOT, errno.ENOENT),
        ("out", 1 << 60, errno.EINVAL),
    ]:
        with pytest.raises(OSError) as caught:
            inodes.openat2(root, path, files.O_RDONLY, resolve)
        assert (caught.value.errno, caught.value.filename) == (number, path)
    os.close(root)


def test_openat2_makes_a_file_with_its_mode(tmp_path) -> None:
    root = os.open(tmp_path, os.O_PATH)
    flags = files.O_WRONLY | files.O_CREAT
    os.close(inodes.openat2(root, b"new", flags, const.RESOLVE_IN_ROOT, 0o600))
    os.close(root)
    assert (tmp_path / "new").stat().st_mode & 0o7777 == 0o600


def test_openat2_refuses_mounts_and_magic_links_when_told() -> None:
    root = os.open("/", os.O_PATH)
    for path, resolve, number in [
        ("proc/self", const.RESOLVE_NO_XDEV, errno.EXDEV),
        ("proc/self/exe", const.RESOLVE_NO_MAGICLINKS, errno.ELOOP),
    ]:
        with pytest.raises(OSError) as caught:
            inodes.openat2(root, path, files.O_PATH, resolve)
        assert caught.value.errno == number
    os.close(root)


def new_tmpfs(attributes: int = 0, **options: str) -> int:
    fs_fd = mounts.fsopen("tmpfs")
    for key, value in options.items():
        mounts.fsconfig_string(fs_fd, key, value)
    mounts.fsconfig_create(fs_fd)
    mount_fd = mounts.fsmount(fs_fd, attributes)
    os.close(fs_fd)
    return mount_fd


def attach(mount_fd: int, path: Path) -> None:
    target = os.open(path, os.O_PATH)
    mounts.move_mount(mount_fd, target)
    os.close(target)


def test_fsopen_gives_a_descriptor_that_programs_do_not_get() -> None:
    def action():
        fd = mounts.fsopen("tmpfs")
        return os.readlink(f"/proc/self/fd/{fd}"), os.get_inheritable(fd)

    assert inside(action) == ("anon_inode:[fscontext]", False)
    with pytest.raises(OSError) as caught:
        inside(lambda: mounts.fsopen("nosuchfs"))
    assert (caught.value.errno, caught.value.filename) == (errno.ENODEV, "nosuchfs")


def test_fsconfig_string_sets_options_of_the_file_system(tmp_path) -> None:
    def action():
        attach(new_tmpfs(source="somewhere", size="128k", mode="0700"), tmp_path)
        return (findmnt(tmp_path, "SOURCE"), os.statvfs(tmp_path).f_blocks * 4096,
                os.stat(tmp_path).st_mode & 0o7777)  # fmt: skip

    assert inside(action) == ("somewhere", 131072, 0o700)

    def wrong() -> None:
        mounts.fsconfig_string(mounts.fsopen("tmpfs"), "no_such_option", "1")

    with pytest.raises(OSError) as caught:
        inside(wrong)
    assert caught.value.errno == errno.EINVAL


def test_fsconfig_flag_sets_an_option_without_a_value(tmp_path) -> None:
    def action():
        fs_fd = mounts.fsopen("tmpfs")
        mounts.fsconfig_flag(fs_fd, "ro")
        mounts.fsconfig_flag(fs_fd, "sync")
        mounts.fsconfig_create(fs_fd)
        attach(mounts.fsmount(fs_fd, 0), tmp_path)
        return mount_at(tmp_path)

    assert set(inside(action)["super"].split(",")) >= {"ro", "sync"}


def test_fsconfig_options_takes_values_and_flags_as_mount_spells_them(tmp_path) -> None:
    def action():
        fs_fd = mounts.fsopen("tmpfs")
        mounts.fsconfig_options(fs_fd, ["size=128k", "ro", "mode=0700"])
        mounts.fsconfig_create(fs_fd)
        attach(mounts.fsmount(fs_fd, 0), tmp_path)
        found = os.stat(tmp_path).st_mode & 0o7777, os.statvfs(tmp_path).f_blocks * 4096
        return (*found, "ro" in mount_at(tmp_path)["super"].split(","))

    assert inside(action) == (0o700, 131072, True)


def test_fsconfig_fd_gives_a_descriptor_for_a_value(tmp_path) -> None:
    """A procfs of another pid namespace: the option is there since Linux 6.18."""
    release = tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])

    def action():
        read_end, write_end = os.pipe()
        middle = os.fork()
        if middle == 0:
            machine.unshare(machine.CLONE_NEWPID)
            if os.fork() == 0:
                Path("/proc/self/comm").write_text("the first")
                os.write(write_end, b"x")
                signal.pause()
            os.wait()
            os._exit(0)
        assert os.read(read_end, 1) == b"x"
        pids = os.open(f"/proc/{middle}/ns/pid_for_children", os.O_RDONLY)
        fs_fd = mounts.fsopen("proc")
        try:
            mounts.fsconfig_fd(fs_fd, "pidns", pids)
            mounts.fsconfig_create(fs_fd)
            attach(mounts.fsmount(fs_fd, 0), tmp_path)
            numbers = [name for name in os.listdir(tmp_path) if name.isdigit()]
            return numbers, (tmp_path / "1/comm").read_text()
        except OSError as error:
            return error.errno, ""
        finally:
            with open(f"/proc/{middle}/task/{middle}/children") as file:
                os.kill(int(file.read()), signal.SIGKILL)
            os.waitpid(middle, 0)

    wanted = (["1"], "the first\n") if release >= (6, 18) else (errno.EINVAL, "")
    assert inside(action) == wanted


@pytest.mark.parametrize("key", ["no_such_option", "size"])
def test_fsconfig_fd_refuses_what_takes_no_descriptor(key: str) -> None:
    def action():
        fd = os.open("/", os.O_RDONLY)
        mounts.fsconfig_fd(mounts.fsopen("tmpfs"), key, fd)

    with pytest.raises(OSError) as caught:
        inside(action)
    assert caught.value.errno == errno.EINVAL
    with pytest.raises(OSError) as caught:
        inside(lambda: mounts.fsconfig_fd(mounts.fsopen("tmpfs"), "size", 1 << 20))
    assert caught.value.errno == errno.EBADF


def test_fsconfig_create_is_needed_before_a_mount() -> None:
    def action():
        fs_fd = mounts.fsopen("tmpfs")
        try:
            mounts.fsmount(fs_fd, 0)
        except OSError as error:
            before = error.errno
        mounts.fsconfig_create(fs_fd)
        return before, os.readlink(f"/proc/self/fd/{mounts.fsmount(fs_fd, 0)}")

    before, after = inside(action)
    assert before == errno.EINVAL and after == "/"


def test_fsmount_gives_its_attributes_to_a_mount_nobody_sees(tmp_path) -> None:
    def action():
        attributes = const.MOUNT_ATTR_NOEXEC | const.MOUNT_ATTR_NOATIME
        before = len(machine.mountinfo())
        mount_fd = new_tmpfs(attributes)
        hidden = len(machine.mountinfo()) == before
        fd = os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=mount_fd)
        os.close(fd)
        attach(mount_fd, tmp_path)
        return hidden, os.get_inheritable(mount_fd), os.listdir(tmp_path), mount_at(tmp_path)

    hidden, inheritable, names, found = inside(action)
    assert hidden and not inheritable and names == ["file"]
    assert {"noexec", "noatime"} <= set(found["options"].split(","))


def test_open_tree_clones_one_mount_or_all_below(tmp_path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    target.mkdir()

    def action():
        mounts.mount("a", str(source), "tmpfs", 0)
        (source / "sub").mkdir()
        mounts.mount("b", str(source / "sub"), "tmpfs", 0)
        (source / "sub" / "deep").touch()
        seen = []
        for recursive in (0, const.AT_RECURSIVE):
            tree = mounts.open_tree(
                files.AT_FDCWD,
                str(source), const.OPEN_TREE_CLONE | recursive,
            )  # fmt: skip
            attach(tree, target)
            seen.append(os.listdir(target / "sub"))
            assert not os.get_inheritable(tree)
            os.close(tree)
            mounts.umount2(str(target), const.MNT_DETACH)
        fd = os.open(source, os.O_PATH)
        attach(mounts.open_tree(fd, "", const.OPEN_TREE_CLONE | const.AT_EMPTY_PATH), target)
        return seen, findmnt(target, "SOURCE")

    assert inside(action) == ([[], ["deep"]], "a")


def test_move_mount_moves_an_attached_mount_too(tmp_path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()

    def action():
        mounts.mount("t", str(one), "tmpfs", 0)
        fd = os.open(one, os.O_PATH)
        attach(fd, two)
        return findmnt(one, "SOURCE"), findmnt(two, "SOURCE")

    assert inside(action) == ("", "t")

    def onto_a_file() -> None:
        (tmp_path / "file").touch()
        attach(new_tmpfs(), tmp_path / "file")

    with pytest.raises(OSError) as caught:
        inside(onto_a_file)
    assert caught.value.errno in (errno.ENOTDIR, errno.EINVAL)


def test_mount_setattr_sets_clears_and_recurses(tmp_path) -> None:
    def action():
        mounts.mount("a", str(tmp_path), "tmpfs", const.MS_NOSUID)
        (tmp_path / "sub").mkdir()
        mounts.mount("b", str(tmp_path / "sub"), "tmpfs", 0)
        fd = os.open(tmp_path, os.O_PATH)
        mounts.mount_setattr(
            fd, const.AT_EMPTY_PATH, const.MOUNT_ATTR_NODEV, const.MOUNT_ATTR_NOSUID
        )
        first = mount_at(tmp_path)["options"], mount_at(tmp_path / "sub")["options"]
        mounts.mount_setattr(fd, const.AT_EMPTY_PATH | const.AT_RECURSIVE, const.MOUNT_ATTR_RDONLY)
        second = mount_at(tmp_path)["options"], mount_at(tmp_path / "sub")["options"]
        mounts.mount_setattr(fd, 0, clear_attributes=const.MOUNT_ATTR_RDONLY, path="sub")
        third = mount_at(tmp_path)["options"], mount_at(tmp_path / "sub")["options"]
        return [[set(text.split(",")) for text in pair] for pair in (first, second, third)]

    first, second, third = inside(action)
    assert "nodev" in first[0] and "nosuid" not in first[0] and "nodev" not in first[1]
    assert "ro" in second[0] and "ro" in second[1]
    assert "ro" in third[0] and "rw" in third[1]


def test_mount_setattr_changes_the_propagation(tmp_path) -> None:
    def action():
        mounts.mount("a", str(tmp_path), "tmpfs", 0)
        fd = os.open(tmp_path, os.O_PATH)
        mounts.mount_setattr(fd, const.AT_EMPTY_PATH, propagation=const.MS_SHARED)
        shared = mount_at(tmp_path)["propagation"]
        mounts.mount_setattr(fd, const.AT_EMPTY_PATH, propagation=const.MS_PRIVATE)
        return shared, mount_at(tmp_path)["propagation"]

    shared, private = inside(action)
    assert shared.startswith("shared:") and private == ""


@pytest.mark.needs("user-namespace")
def test_mount_setattr_maps_ids(tmp_path) -> None:
    """A file of 1000 on disk belongs to 2000 through the mount."""
    tmp_path.chmod(0o755)  # root is not mapped, so it is anybody
    (tmp_path / "file").touch()
    os.chown(tmp_path / "file", 1000, 1000)
    target = tmp_path / "target"
    target.mkdir()
    with child.user_namespace("1000 2000 1") as holder:
        userns = os.open(f"/proc/{holder}/ns/user", os.O_RDONLY)

    def action():
        tree = mounts.open_tree(files.AT_FDCWD, str(tmp_path), const.OPEN_TREE_CLONE)
        mounts.mount_setattr(tree, const.AT_EMPTY_PATH, const.MOUNT_ATTR_IDMAP, userns_fd=userns)
        attach(tree, target)
        found = os.stat(target / "file")
        return found.st_uid, found.st_gid, "idmapped" in mount_at(target)["options"]

    try:
        assert inside(action) == (2000, 2000, True)
    finally:
        os.close(userns)


def test_fstatfs_type_is_the_magic_number_that_stat_shows(tmp_path) -> None:
    expected = {"/proc": const.PROC_SUPER_MAGIC, "/sys": const.SYSFS_MAGIC,
                "/dev/pts": const.DEVPTS_SUPER_MAGIC, str(tmp_path): None}  # fmt: skip
    for path, number in expected.items():
        fd = os.open(path, os.O_PATH)
        found = inodes.fstatfs_type(fd)
        os.close(fd)
        shown = subprocess.run(["stat", "-fc", "%t", path], capture_output=True, text=True)
        assert found == int(shown.stdout, 16) == (number or found)
    with pytest.raises(OSError) as caught:
        inodes.fstatfs_type(-1)
    assert caught.value.errno == errno.EBADF


def test_mount_id_is_the_number_that_fdinfo_shows(tmp_path) -> None:
    for path in ("/", "/proc", "/dev/pts", str(tmp_path)):
        fd = os.open(path, os.O_PATH)
        try:
            with open(f"/proc/self/fdinfo/{fd}") as file:
                shown = dict(line.split(":\t") for line in file.read().splitlines())
            assert inodes.mount_id(fd) == int(shown["mnt_id"])
        finally:
            os.close(fd)
    with pytest.raises(OSError) as caught:
        inodes.mount_id(-1)
    assert caught.value.errno == errno.EBADF


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_has_mount_setattr_tells_whether_the_call_is_there(error: int) -> None:
    def action() -> tuple[bool, bool]:
        before = mounts.has_mount_setattr()
        blocked.load(blocked.numbers("mount_setattr"), error)
        return before, mounts.has_mount_setattr()

    assert inside(action) == (True, False)


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
def test_has_open_tree_tells_whether_the_call_is_there(error: int) -> None:
    def action() -> tuple[bool, bool]:
        before = mounts.has_open_tree()
        blocked.load(blocked.numbers("open_tree"), error)
        return before, mounts.has_open_tree()

    assert inside(action) == (True, False)


@pytest.mark.needs("mount_setattr")
@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("call", ["open_tree", "move_mount", "fsopen", "mount_setattr"])
def test_has_detached_tells_whether_all_of_the_calls_are_there(call: str, error: int) -> None:
    def action() -> tuple[bool, bool]:
        before = mounts.has_detached()
        blocked.load(blocked.numbers(call), error)
        return before, mounts.has_detached()

    assert inside(action) == (True, False)


def test_fsetxattr_and_fgetxattr_and_flistxattr_agree_with_the_interpreter(tmp_path) -> None:
    path = tmp_path / "file"
    path.touch()
    fd = os.open(path, os.O_RDWR)
    assert inodes.flistxattr(fd) == [name.encode() for name in os.listxattr(fd)]
    inodes.fsetxattr(fd, b"trusted.one", b"first")
    inodes.fsetxattr(fd, b"trusted.one", b"\0 and \xff")
    assert os.getxattr(path, "trusted.one") == b"\0 and \xff"
    os.close(fd)


def test_flistxattr_gives_every_name(tmp_path) -> None:
    path = tmp_path / "file"
    path.touch()
    for name in ("trusted.one", "trusted.two"):
        os.setxattr(path, name, b"x" * 300)
    fd = os.open(path, os.O_RDONLY)
    assert sorted(inodes.flistxattr(fd)) == [b"trusted.one", b"trusted.two"]
    os.close(fd)


def test_fgetxattr_gives_the_whole_value_and_says_when_there_is_none(tmp_path) -> None:
    path = tmp_path / "file"
    path.touch()
    os.setxattr(path, "trusted.one", b"x" * 1000)
    fd = os.open(path, os.O_RDONLY)
    assert inodes.fgetxattr(fd, b"trusted.one") == b"x" * 1000
    with pytest.raises(OSError) as caught:
        inodes.fgetxattr(fd, b"trusted.other")
    assert caught.value.errno == errno.ENODATA
    os.close(fd)
