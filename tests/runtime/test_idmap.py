"""Id-mapped mounts, recursive attributes and tmpcopyup, as the container and the host see them.

The owners on the disk are those of the first column of a mapping; through the mount they are those of the second.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from typing import Iterator

import pytest

from tests import drive, machine
from tests.drive import Container

pytestmark = pytest.mark.needs("user-namespace", "mount_setattr")


def mapping(inside: int, outside: int, size: int = 1000) -> list[dict[str, int]]:
    """One entry of a map."""
    return [{"containerID": inside, "hostID": outside, "size": size}]


@pytest.fixture(scope="module", params=["disk", "tmpfs"])
def place(
    request: pytest.FixtureRequest, runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A directory on one of two file systems, there before each test looks at the mounts."""
    path = str(tmp_path_factory.mktemp("idmap"))
    os.chmod(os.path.dirname(path), 0o755)
    if request.param == "tmpfs":
        machine.mount("t", path, "tmpfs", 0, "mode=755")
    yield path
    if request.param == "tmpfs":
        machine.umount(path, machine.MNT_DETACH)


@pytest.fixture
def source(place: str) -> str:
    """A directory with files of several owners."""
    path = tempfile.mkdtemp(dir=place)
    os.chmod(path, 0o777)
    for owner in (0, 1000, 5000):
        name = os.path.join(path, str(owner))
        with open(name, "w"):
            os.chown(name, owner, owner + 1 if owner else 0)
    return path


def mapped(container: Container) -> None:
    """Give the container a user namespace whose root cannot make mount points in the root file system."""
    container.bundle.use_user_namespace(100000)
    for path in ("/m", "/plain"):
        container.bundle.make_directory(path)


LOOK = "cd /m; for f in 0 1000 5000; do stat -c '%n %u %g' $f; done"


def owners(text: str) -> dict[int, tuple[int, int]]:
    """Owners by name."""
    rows = [line.split() for line in text.splitlines()]
    return {int(name): (int(uid), int(gid)) for name, uid, gid in rows}


@pytest.mark.parametrize("word", ["idmap", "ridmap"])
def test_a_mapping_of_the_mounts_own(container: Container, source: str, word: str) -> None:
    entry = container.bundle.add_mount("/m", "none", source, "rbind", word)
    entry["uidMappings"] = mapping(0, 3000, 2000)
    entry["gidMappings"] = mapping(0, 4000, 2000)
    assert owners(container.run(LOOK)) == {
        0: (3000, 4000),
        1000: (4000, 5001),
        5000: (65534, 65534),
    }


def test_what_is_made_through_the_mount_has_the_other_owner_on_the_disk(
    container: Container, source: str
) -> None:
    entry = container.bundle.add_mount("/m", "none", source, "bind", "idmap")
    entry["uidMappings"] = entry["gidMappings"] = mapping(1000, 2000, 10)
    os.chown(source, 1000, 1000)  # what is not mapped cannot be written at all
    container.process["user"] = {"uid": 2003, "gid": 2004}
    container.run("touch /m/new; mkdir /m/dir; ln -s x /m/link")
    found = [os.lstat(os.path.join(source, name)) for name in ("new", "dir", "link")]
    assert {(one.st_uid, one.st_gid) for one in found} == {(1003, 1004)}


def test_the_containers_own_mapping_is_taken_without_another(
    container: Container, source: str
) -> None:
    # the files look as if the container had no user namespace
    mapped(container)
    container.bundle.add_mount("/m", "none", source, "bind", "idmap")
    container.bundle.add_mount("/plain", "none", source, "bind")
    said = container.run(
        f"{LOOK}; stat -c %u /plain/1000; touch /m/new; stat -c %u /m/new"
    ).splitlines()
    on_disk = os.stat(os.path.join(source, "new"))
    assert owners("\n".join(said[:3])) == {0: (0, 0), 1000: (1000, 1001), 5000: (5000, 5001)}
    assert said[3:] == ["65534", "0"]
    assert (on_disk.st_uid, on_disk.st_gid) == (0, 0)


def test_crun_s_mapping_in_the_option(container: Container, source: str) -> None:
    mapped(container)
    option = "idmap=uids=1000-100007-1;gids=1001-100008-1"
    container.bundle.add_mount("/m", "none", source, "bind", option)
    found = owners(container.run(LOOK))
    assert found == {0: (65534, 65534), 1000: (7, 8), 5000: (65534, 65534)}


def test_crun_s_relative_mapping_in_the_option(container: Container, source: str) -> None:
    # the second number is an id of the container
    mapped(container)
    maps = [
        {"containerID": 0, "hostID": 100000, "size": 10},
        {"containerID": 10, "hostID": 200000, "size": 1000},
    ]
    container.linux["uidMappings"] = container.linux["gidMappings"] = maps
    option = "idmap=uids=@1000-7-1#@5000-20-1;gids=@1001-8-1#@5001-21-1"
    container.bundle.add_mount("/m", "none", source, "bind", option)
    found = owners(container.run(LOOK))
    assert found == {0: (65534, 65534), 1000: (7, 8), 5000: (20, 21)}


@pytest.mark.parametrize("option", ["idmap=uids=0-1", "idmap=users=0-1-1", "ridmap=uids=@a-b-c"])
def test_a_mapping_that_cannot_be_read_is_refused_with_its_path(
    container: Container, option: str
) -> None:
    container.bundle.add_mount("/m", "none", container.bundle.outside("source"), "bind", option)
    assert "mounts[6]" in container.refused()


def test_a_mapping_of_uids_alone_is_refused(container: Container) -> None:
    entry = container.bundle.add_mount(
        "/m", "none", container.bundle.outside("source"), "bind", "idmap"
    )
    entry["uidMappings"] = mapping(0, 1000)
    assert "mounts[6]" in container.refused()


def test_a_file_system_that_cannot_do_it_is_named(container: Container) -> None:
    entry = container.bundle.add_mount("/m", "none", "/proc", "bind", "idmap")
    entry["uidMappings"] = entry["gidMappings"] = mapping(0, 1000)
    said = container.refused()
    assert "mounts[6]" in said and "/proc" in said and "5.12" in said


@pytest.mark.parametrize(
    ("word", "bind", "below"),
    [("idmap", "bind", ""), ("idmap", "rbind", "1000"), ("ridmap", "rbind", "4000")],
)
def test_ridmap_reaches_the_mounts_below_and_idmap_does_not(
    container: Container, word: str, bind: str, below: str
) -> None:
    path = container.bundle.outside("source")
    inner = container.bundle.outside("source/inner")
    machine.mount("t", inner, "tmpfs", 0, "mode=755")
    try:
        with open(os.path.join(inner, "file"), "w") as file:
            os.fchown(file.fileno(), 1000, 1000)
        entry = container.bundle.add_mount("/m", "none", path, bind, word)
        entry["uidMappings"] = entry["gidMappings"] = mapping(0, 3000, 2000)
        assert container.run("stat -c %u /m/inner/file 2>/dev/null; true").strip() == below
    finally:
        machine.umount(inner, machine.MNT_DETACH)


def test_a_mount_with_a_mapping_may_be_read_only_as_well(container: Container) -> None:
    path = container.bundle.outside("source")
    entry = container.bundle.add_mount(
        "/m", "none", path, "bind", "idmap", "ro", "nosuid", "noexec"
    )
    entry["uidMappings"] = entry["gidMappings"] = mapping(0, 3000)
    said = container.run(
        "touch /m/x 2>/dev/null || echo ro; grep ' /m ' /proc/mounts; stat -c %u /m"
    )
    lines = said.splitlines()
    assert lines[0] == "ro" and lines[2] == "3000"
    assert {"ro", "nosuid", "noexec"} <= set(lines[1].split()[3].split(","))


def test_a_file_may_be_mapped_too(container: Container) -> None:
    path = container.bundle.outside("file", "text\n")
    entry = container.bundle.add_mount("/f", "none", path, "bind", "idmap")
    entry["uidMappings"] = entry["gidMappings"] = mapping(0, 3000)
    assert container.run("stat -c %u /f; cat /f").split() == ["3000", "text"]


def test_a_root_file_system_of_the_mapped_roots_own_can_be_written(container: Container) -> None:
    # as engines prepare it, by chown or by an id-mapped mount of their own
    mapped(container)
    for directory, names, files in os.walk(container.bundle.rootfs):
        for name in [*names, *files]:
            found = os.lstat(os.path.join(directory, name))
            if stat.S_ISDIR(found.st_mode) or found.st_nlink == 1:
                os.lchown(os.path.join(directory, name), 100000, 100000)
    assert container.run("stat -c %u /etc; touch /etc/x && echo made").split() == ["0", "made"]


@pytest.mark.parametrize("own", [False, True], ids=["", "userns"])
def test_a_source_inside_the_root_may_come_from_an_earlier_mount(
    container: Container, own: bool
) -> None:
    """As the list has it: copies of copies, also where the image has something of that name."""
    bundle = container.bundle
    first = bundle.outside("first")
    for name in ("there", "new"):
        bundle.outside(f"first/{name}")
        bundle.outside(f"first/{name}/file", "mounted\n")
    for path in ("/data", "/a", "/b", "/b/there", "/t", "/tt"):
        bundle.make_directory(path)
    bundle.put("/data/there/file", "of the image\n")
    if own:
        bundle.use_user_namespace()
        os.chmod(bundle.path, 0o700)  # which its root may not search
    maps = mapping(0, 100000 if own else 3000)
    shown = "0" if own else "3000"

    def add(destination: str, source: str, *options: str) -> None:
        entry = bundle.add_mount(destination, "none", source, *options)
        entry["uidMappings"] = entry["gidMappings"] = maps

    bundle.add_mount("/data", "none", first, "rbind")
    add(bundle.rootfs + "/a", bundle.rootfs + "/data/new", "bind")
    bundle.add_mount("/b", "none", first, "rbind")
    add("/b/there", bundle.rootfs + "/data/./there", "rbind", "ridmap", "ro")
    bundle.add_mount("/tt", "none", bundle.rootfs + "/b", "rbind")
    said = container.run(
        "cat /a/file /tt/there/file; stat -c %u /a/file /tt/there/file; touch /tt/there/x 2>&1 | "
        "grep -o 'Read-only'; grep -c ' /tt[ /]' /proc/self/mountinfo"
    )
    assert said.split() == ["mounted", "mounted", shown, shown, "Read-only", "2"]
    # who is mapped already is not once more, and a path that only leads into the root does too
    bundle.make_directory("/c")
    os.symlink(bundle.rootfs, bundle.path + "/link")
    add("/c", bundle.path + "/link/data/new", "bind")
    add("/t", bundle.rootfs + "/c", "bind")
    assert f"id-mapped mount of {bundle.rootfs}/c: operation not permitted" in container.refused()
    del container.config["mounts"][-1]
    # CVE-2021-30465: a link that an earlier mount brings stays inside, whoever follows it
    os.symlink(bundle.outside("secret"), first + "/link")
    add("/t", bundle.rootfs + "/data/link", "bind")
    assert "/data/link: no such file or directory" in container.refused()


def test_the_root_may_be_the_hosts(container: Container) -> None:
    """A mount over `/` itself is not what `/` names."""
    bundle = container.bundle
    bundle.outside("source")
    bundle.outside("source/in")
    bundle.outside("source/in/file", "text\n")
    container.config["root"] = {"path": "/"}
    container.config["mounts"] = []
    bundle.add_mount(bundle.outside("one"), "none", bundle.path + "/source", "bind")
    entry = bundle.add_mount(bundle.outside("two"), "none", bundle.path + "/one/in", "bind")
    entry["uidMappings"] = entry["gidMappings"] = mapping(0, 3000)
    assert container.run(f"stat -c %u {bundle.path}/two/file").strip() == "3000"


# recursive attributes -------------------------------------------------------------------------------

FLAGS = {"rro": "ro", "rnosuid": "nosuid", "rnodev": "nodev", "rnoexec": "noexec", "rnoatime": "noatime",
         "rnodiratime": "nodiratime", "rnosymfollow": "nosymfollow"}  # fmt: skip


def shown(container: Container, *options: str) -> tuple[set[str], set[str]]:
    """Flags of the mount and of the one below it."""
    path = container.bundle.outside("source")
    inner = container.bundle.outside("source/inner")
    machine.mount("t", inner, "tmpfs", 0, "mode=755")
    try:
        container.bundle.add_mount("/m", "none", path, "rbind", *options)
        lines = [
            line.split() for line in container.run("grep ' /m' /proc/self/mountinfo").splitlines()
        ]
    finally:
        machine.umount(inner, machine.MNT_DETACH)
    flags = {words[4]: set(words[5].split(",")) for words in lines}
    return flags["/m"], flags["/m/inner"]


@pytest.mark.parametrize("option", FLAGS)
def test_a_recursive_attribute_is_on_both_mounts(container: Container, option: str) -> None:
    top, below = shown(container, option)
    assert FLAGS[option] in top and FLAGS[option] in below


def test_several_recursive_attributes_and_a_plain_one(container: Container) -> None:
    top, below = shown(container, "rro", "rnosuid", "noexec")
    assert {"ro", "nosuid", "noexec"} <= top
    assert {"ro", "nosuid"} <= below and "noexec" not in below


def test_recursive_attributes_hold_for_an_id_mapped_mount(container: Container) -> None:
    path = container.bundle.outside("source")
    entry = container.bundle.add_mount("/m", "none", path, "rbind", "ridmap", "rro")
    entry["uidMappings"] = entry["gidMappings"] = mapping(0, 3000)
    assert container.run("touch /m/x 2>/dev/null || echo ro; stat -c %u /m").split() == [
        "ro",
        "3000",
    ]


# tmpcopyup ------------------------------------------------------------------------------------------


def test_tmpcopyup_keeps_owners_modes_links_and_times(container: Container) -> None:
    rootfs = container.bundle.rootfs
    data = container.bundle.make_directory("/data", 0o2750)
    os.chown(data, 11, 12)
    os.chmod(data, 0o2750)
    path = container.bundle.put("/data/file", "text\n", 0o600)
    os.chown(path, 1000, 1001)
    os.chmod(path, 0o4711)
    os.utime(path, (1_000_000_000, 1_100_000_000))
    os.symlink("/etc/passwd", os.path.join(data, "link"))
    container.bundle.make_directory("/data/sub/deep", 0o700)
    os.mkfifo(os.path.join(data, "fifo"))
    container.bundle.add_mount("/data", "tmpfs", "tmpfs", "tmpcopyup", "nosuid")
    said = container.run(
        "cd /data; stat -c '%u %g %a %Y' file; readlink link; cat /data/file; stat -c '%u %g %a' .; "
        "stat -c %a sub/deep; stat -c %F fifo; echo changed > file; grep ' /data ' /proc/mounts"
    ).splitlines()
    assert said[:6] == [
        "1000 1001 4711 1100000000",
        "/etc/passwd",
        "text",
        "0 0 2750",  # the top is the tmpfs's own, with the mode of what it covers, as from runc
        "700",
        "fifo",
    ]
    assert said[6].startswith("tmpfs /data tmpfs") and "nosuid" in said[6]
    with open(os.path.join(rootfs, "data/file")) as file:
        assert file.read() == "text\n"


def test_tmpcopyup_with_a_read_only_tmpfs_and_in_a_user_namespace(container: Container) -> None:
    container.bundle.put("/data/file", "text\n")
    container.bundle.use_user_namespace()
    for name in ("data", "data/file"):
        os.chown(os.path.join(container.bundle.rootfs, name), 100000, 100000)
    container.bundle.add_mount("/data", "tmpfs", "tmpfs", "tmpcopyup", "ro")
    said = container.run(
        "cat /data/file; stat -c %u /data/file; touch /data/x 2>/dev/null || echo ro"
    )
    assert said.split() == ["text", "0", "ro"]


# ext4 on a loop device, which is what most hosts have ---------------------------------------------------


@pytest.mark.skipif(
    not shutil.which("mkfs.ext4"), reason="[mkfs.ext4] this machine has not mkfs.ext4"
)
def test_ext4_is_mapped(container: Container) -> None:
    image = container.bundle.outside("image", "")
    os.truncate(image, 8 << 20)
    path = container.bundle.outside("ext4")
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, stdout=subprocess.DEVNULL)
    done = subprocess.run(["mount", "-o", "loop", image, path], capture_output=True, check=False)
    if done.returncode:
        pytest.skip("[loop] this machine has not loop devices")
    try:
        os.chmod(path, 0o777)
        with open(os.path.join(path, "file"), "w") as file:
            os.fchown(file.fileno(), 0, 0)
        mapped(container)
        container.bundle.add_mount("/m", "none", path, "bind", "idmap")
        container.process["user"] = {"uid": 33, "gid": 34}
        assert container.run(
            "stat -c %u /m/file; touch /m/new; stat -c '%u %g' /m/new"
        ).split() == ["0", "33", "34"]
        made = os.stat(os.path.join(path, "new"))
        assert (made.st_uid, made.st_gid) == (33, 34)
    finally:
        machine.umount(path, machine.MNT_DETACH)
