"""What a mount's options do, as users of runc know it: modes of a tmpfs, flags of a bind mount, links, odd options."""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Iterator

import pytest

from tests import drive, machine
from tests.drive import Container
from tests.runtime.test_mounts import mount_on, mounts_of

# modes of a tmpfs ----------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["/x", "/a/b/c"])
def test_a_tmpfs_on_a_mount_point_that_the_image_lacks_is_for_everybody(
    container: Container, point: str
) -> None:
    container.bundle.add_mount(point, "tmpfs", "tmpfs", "nosuid")
    assert container.run(f"stat -c %a {point}") == "1777\n"


@pytest.mark.parametrize("mode", [0o700, 0o2755, 0o1770, 0o0, 0o4711])
@pytest.mark.parametrize("copy", [[], ["tmpcopyup"]])
def test_a_directory_of_the_image_lends_its_mode_to_a_tmpfs(
    container: Container, mode: int, copy: list[str]
) -> None:
    os.chmod(container.bundle.make_directory("/d"), mode)
    container.bundle.add_mount("/d", "tmpfs", "tmpfs", *copy)
    assert container.run("stat -c %a /d") == f"{mode:o}\n"


@pytest.mark.parametrize("copy", [[], ["tmpcopyup"]])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize(
    ("option", "mode"), [("mode=1777", "1777"), ("mode=0", "0"), ("mode=02710", "2710")]
)
def test_an_explicit_mode_wins(
    container: Container, copy: list[str], there: bool, option: str, mode: str
) -> None:
    if there:
        os.chmod(container.bundle.make_directory("/d"), 0o711)
    container.bundle.add_mount("/d", "tmpfs", "tmpfs", option, *copy)
    assert container.run("stat -c '%a %u:%g' /d") == f"{mode} 0:0\n"


def test_a_copied_directory_has_the_owner_that_is_asked_for(container: Container) -> None:
    container.bundle.put("/d/file", "text\n")
    os.chmod(container.bundle.rootfs + "/d", 0o711)
    options = ("mode=1777", "uid=1000", "gid=1001", "tmpcopyup")
    container.bundle.add_mount("/d", "tmpfs", "tmpfs", *options)
    assert container.run("stat -c '%a %u:%g' /d; cat /d/file") == "1777 1000:1001\ntext\n"


def test_a_copied_directory_belongs_to_root_whoever_had_it(container: Container) -> None:
    container.bundle.put("/d/file", "text\n")
    os.chown(container.bundle.rootfs + "/d", 7, 8)
    os.chown(container.bundle.rootfs + "/d/file", 9, 10)
    os.chmod(container.bundle.rootfs + "/d", 0o750)
    container.bundle.add_mount("/d", "tmpfs", "tmpfs", "tmpcopyup")
    assert container.run("stat -c '%a %u:%g' /d /d/file") == "750 0:0\n644 9:10\n"


# options -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [["rw", "", "nosuid"], [""], ["", "", "size=64k"]])
@pytest.mark.parametrize("kind", ["tmpfs", "bind"])
def test_an_empty_option_is_none(container: Container, options: list[str], kind: str) -> None:
    """Podman 5 writes them."""
    if kind == "bind":
        options = [*(option for option in options if "size" not in option), "rbind"]
    source = container.bundle.outside("v")
    container.bundle.add_mount("/m", kind, source, *options)
    row = mount_on(container, "/m")
    # A bind mount that names no flag has those of its source, such as the machine's /tmp.
    given = kind == "bind" and "rw" not in options and os.statvfs(source).f_flag & os.ST_NOSUID
    assert ("nosuid" in row["options"]) == ("nosuid" in options or bool(given))


@pytest.mark.parametrize(
    "option", ["readonly", "foo=bar", "RO", "uid=1000", "no exec", "ro,nosuid", "context=x"]
)
@pytest.mark.parametrize("kind", ["bind", "none", ""])
def test_an_unknown_option_of_a_bind_mount_is_refused(
    container: Container, option: str, kind: str
) -> None:
    container.bundle.add_mount("/m", kind, container.bundle.outside("v"), "rbind", option, "rw")
    said = container.refused()
    assert option in said
    if container.runtime.name == "anocir":
        number = len(container.config["mounts"]) - 1
        assert said.startswith(f"anocir: mounts[{number}].options[1]: ")


def test_two_values_of_a_tmpfs_change_nothing_at_a_bind_mount(container: Container) -> None:
    """They are passed over: the validation suite gives them to bind mounts."""
    words = ["rbind", "ro", "size=1m", "mode=0700"]
    container.bundle.add_mount("/m", "bind", container.bundle.outside("v"), *words)
    assert "ro" in mount_on(container, "/m")["options"]


# a bind mount's flags ------------------------------------------------------------------------------

FLAGS = {"ro", "nosuid", "nodev", "noexec", "noatime", "nodiratime", "relatime", "nosymfollow"}


@pytest.fixture(scope="module")
def flagged(runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A tmpfs of the host with flags."""
    path = str(tmp_path_factory.mktemp("flagged"))
    os.chmod(os.path.dirname(path), 0o755)
    # include/uapi/linux/mount.h: MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME
    machine.mount("t", path, "tmpfs", 2 | 4 | 8 | 1024, "mode=755")
    yield path
    machine.umount(path, machine.MNT_DETACH)


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ([], "nosuid nodev noexec noatime"),
        (["rprivate"], "nosuid nodev noexec noatime"),
        (["rw"], "noatime"),
        (["nosuid"], "nosuid noatime"),
        (["ro"], "ro noatime"),
        (["nodev", "noexec"], "nodev noexec noatime"),
        (["exec"], "noatime"),
        (["ro", "rw"], "noatime"),
        (["ro", "nosuid", "suid"], "ro noatime"),
        (["rw", "relatime"], "relatime"),
        # what mount(2) makes of access times: a word that only clears does nothing, and
        # nodiratime alone is relatime too
        (["ro", "nodiratime"], "ro nodiratime relatime"),
        (["atime"], "noatime"),
        (["norelatime", "nostrictatime", "diratime"], "noatime"),
        (["nodiratime", "strictatime"], "nodiratime"),
        (["rw", "strictatime"], ""),
        (["noatime"], "noatime"),
    ],
)  # fmt: skip
def test_a_bind_mount_has_the_flags_that_it_names_or_the_sources(
    container: Container, flagged: str, options: list[str], flags: str
) -> None:
    container.bundle.add_mount("/m", "bind", flagged, "rbind", *options)
    assert mount_on(container, "/m")["options"] & FLAGS == set(flags.split())


@pytest.mark.needs("user-namespace")
@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ([], "nosuid nodev noexec noatime"),
        (["rw"], "nosuid nodev noexec noatime"),
        (["ro"], "ro nosuid nodev noexec noatime"),
        (["nosuid"], "nosuid nodev noexec noatime"),
        (["ro", "noatime"], "ro nosuid nodev noexec noatime"),
    ],
)
def test_what_a_user_namespace_has_locked_stays(
    container: Container, flagged: str, options: list[str], flags: str
) -> None:
    container.bundle.use_user_namespace()
    container.bundle.make_directory("/m")
    container.bundle.add_mount("/m", "bind", flagged, "rbind", *options)
    assert mount_on(container, "/m")["options"] & FLAGS == set(flags.split())


@pytest.mark.needs("user-namespace")
@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["suid"], "nosuid"),
        (["exec", "ro"], "noexec"),
        (["dev", "exec"], "nodev,noexec"),
        (["relatime"], "noatime"),
        (["ro", "strictatime"], "noatime"),
        pytest.param(["rdev", "rexec"], "nodev,noexec", marks=pytest.mark.needs("mount_setattr")),
    ],
)
def test_a_locked_flag_that_is_asked_away_is_an_error(
    container: Container, flagged: str, options: list[str], named: str
) -> None:
    container.bundle.use_user_namespace()
    container.bundle.make_directory("/m")
    container.bundle.add_mount("/m", "bind", flagged, "rbind", *options)
    said = container.refused()
    assert named in said and "locked" in said


@pytest.mark.needs("user-namespace")
def test_a_read_only_source_cannot_be_made_writable_in_a_user_namespace(
    container: Container, flagged: str
) -> None:
    # MS_REMOUNT, MS_BIND and the flags, with MS_RDONLY
    flags = 32 | 4096 | 2 | 4 | 8 | 1024
    # MS_NOSYMFOLLOW, the one that is never locked
    machine.mount("none", flagged, "", flags | 1 | 256)
    try:
        container.bundle.use_user_namespace()
        container.bundle.make_directory("/m")
        entry = container.bundle.add_mount("/m", "bind", flagged, "rbind", "rw")
        assert "cannot clear flags that are locked: ro" in container.refused()
        entry["options"] = ["rbind", "nosuid"]
        assert mount_on(container, "/m")["options"] & {"ro", "nosuid", "nosymfollow"} == {
            "ro",
            "nosuid",
        }
    finally:
        machine.mount("none", flagged, "", flags)


# links ---------------------------------------------------------------------------------------------


def test_src_nofollow_mounts_a_link_itself(container: Container) -> None:
    container.bundle.outside("target", "target\n")
    source = container.bundle.path + "/link"
    os.symlink("/etc/passwd", source)
    os.symlink("elsewhere", container.bundle.rootfs + "/there")
    container.bundle.add_mount("/there", "bind", source, "bind", "src-nofollow", "dest-nofollow")
    assert container.run("readlink /there") == "/etc/passwd\n"
    assert os.readlink(container.bundle.rootfs + "/there") == "elsewhere"
    assert not container.bundle.has("/elsewhere")


def test_without_nofollow_both_ends_are_followed(container: Container) -> None:
    container.bundle.outside("target", "target\n")
    source = container.bundle.path + "/link"
    os.symlink("target", source)
    os.symlink("elsewhere", container.bundle.rootfs + "/there")
    container.bundle.add_mount("/there", "bind", source, "bind")
    assert container.run("cat /elsewhere") == "target\n"


def test_dest_nofollow_wants_something_there(container: Container) -> None:
    source = container.bundle.outside("target", "target\n")
    container.bundle.add_mount("/missing", "bind", source, "bind", "dest-nofollow")
    assert "no such file or directory" in container.refused()


def test_dest_nofollow_leaves_what_a_link_means_alone(container: Container) -> None:
    source = container.bundle.outside("target", "target\n")
    container.bundle.put("/meant", "meant\n")
    os.symlink("meant", container.bundle.rootfs + "/link")
    container.bundle.add_mount("/link", "bind", source, "bind", "dest-nofollow")
    assert container.run("cat /meant /link") == "meant\ntarget\n"


def test_copy_symlink_is_not_for_a_nofollow(container: Container) -> None:
    source = container.bundle.outside("target", "target\n")
    for word in ("src-nofollow", "dest-nofollow"):
        container.bundle.add_mount("/m", "bind", source, "bind", "copy-symlink", word)
        assert word in container.refused()
        del container.config["mounts"][-1]


# propagation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def places(runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Two shared mounts of the host, there before each test looks at the mounts."""
    path = str(tmp_path_factory.mktemp("shared"))
    os.chmod(os.path.dirname(path), 0o755)
    for name in ("one", "two"):
        os.mkdir(f"{path}/{name}")
        machine.mount("t", f"{path}/{name}", "tmpfs", 0, "mode=755")
        machine.mount("none", f"{path}/{name}", "", machine.MS_SHARED)
    yield path
    for name in ("one", "two"):
        machine.umount(f"{path}/{name}", machine.MNT_DETACH)


@pytest.fixture
def shared(places: str) -> str:
    """A shared mount with a directory `sub/below`, and nothing else."""
    path = places + "/one"
    remove_all(path)
    os.makedirs(path + "/sub/below")
    return path


def unpack(container: Container, root: str) -> None:
    """Make a root file system on another file system than the template's."""
    os.makedirs(root, exist_ok=True)
    shutil.copytree(container.bundle.rootfs, root, symlinks=True, dirs_exist_ok=True)


def remove_all(path: str) -> None:
    """Empty a directory."""
    for name in os.listdir(path):
        shutil.rmtree(f"{path}/{name}")


def arrives(container: Container, place: str, inside: str) -> bool:
    """Whether a mount that the host makes now is seen in the running container."""
    machine.mount("later", place, "tmpfs", 0)
    try:
        return "later" in container.exec("cat", "/proc/self/mountinfo").stdout
    finally:
        machine.umount(place, machine.MNT_DETACH)


@pytest.mark.parametrize("word", ["rslave", "slave"])
def test_a_slave_sees_later_mounts_also_when_the_root_is_on_the_same_mount(
    container: Container, shared: str, word: str
) -> None:
    root = shared + "/root"
    unpack(container, root)
    container.config["root"]["path"] = root
    container.bundle.add_mount("/m", "bind", shared + "/sub", "rbind", word)
    container.launch("sleep 1000")
    assert arrives(container, shared + "/sub/below", "/m/below")


def test_a_private_bind_does_not(container: Container, shared: str) -> None:
    container.bundle.add_mount("/m", "bind", shared + "/sub", "rbind", "rprivate")
    container.launch("sleep 1000")
    assert not arrives(container, shared + "/sub/below", "/m/below")


@pytest.mark.parametrize("own", [True, False], ids=["a-mount", "a-directory"])
@pytest.mark.parametrize("word", ["rslave", "slave"])
def test_a_slave_root_sees_later_mounts(
    container: Container, shared: str, places: str, word: str, own: bool
) -> None:
    root = places + "/two" if own else shared + "/root"
    if own:
        remove_all(root)
    else:
        os.mkdir(root)
    unpack(container, root)
    os.mkdir(root + "/later")
    container.config["root"]["path"] = root
    container.linux["rootfsPropagation"] = word
    container.launch("sleep 1000")
    assert arrives(container, root + "/later", "/later")


def test_a_private_root_does_not(container: Container, shared: str) -> None:
    root = shared + "/root"
    os.mkdir(root)
    unpack(container, root)
    os.mkdir(root + "/later")
    container.config["root"]["path"] = root
    container.linux["rootfsPropagation"] = "rprivate"
    container.launch("sleep 1000")
    assert not arrives(container, root + "/later", "/later")


# the rest ------------------------------------------------------------------------------------------


def test_uid_mappings_without_a_user_namespace_mean_nothing(container: Container) -> None:
    for key in ("uidMappings", "gidMappings"):
        container.linux[key] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    assert container.run("id -u; cat /proc/self/uid_map").split() == ["0", "0", "0", "4294967295"]


@pytest.mark.parametrize("kind", ["tmpfs", "proc", "mqueue"])
@pytest.mark.parametrize("way", ["mappings", "idmap", "ridmap"])
def test_a_mapping_is_for_bind_mounts_only(container: Container, kind: str, way: str) -> None:
    entry = container.bundle.add_mount("/m", kind, kind)
    if way == "mappings":
        for key in ("uidMappings", "gidMappings"):
            entry[key] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    else:
        entry["options"] = [f"{way}=uids=0-1000-10;gids=0-1000-10"]
    assert "only supported for bind" in container.refused()


def test_a_path_that_is_masked_or_read_only_twice_is_so_once(container: Container) -> None:
    container.bundle.make_directory("/d")
    container.linux["maskedPaths"] = ["/d", "/d/", "//d", "/proc/keys", "/proc/keys", "/x/../d"]
    container.linux["readonlyPaths"] = ["/proc/bus", "/proc/bus/", "/proc/bus", "/etc", "/./etc"]
    points = [row["point"] for row in mounts_of(container)]
    for point in ("/d", "/proc/keys", "/proc/bus", "/etc"):
        assert points.count(point) == (1 if os.path.exists(point) or point == "/d" else 0), point


def test_three_hundred_bind_mounts_with_few_descriptors(container: Container) -> None:
    source = container.bundle.outside("v")
    for number in range(300):
        container.bundle.add_mount(f"/m/{number}", "bind", source, "rbind")
    container.bundle.sh("ulimit -Sn; ulimit -Hn; grep -c ' /m/' /proc/self/mountinfo")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    limits = 'ulimit -Sn 256; ulimit -Hn 4096; exec "$@"'
    done = subprocess.run(["sh", "-c", limits, "sh", *command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("256\n4096\n300\n", "")


@pytest.mark.parametrize("kind", ["cgroup2", "cgroup"])
def test_type_cgroup2_is_cgroup2(container: Container, kind: str) -> None:
    if not machine.v2_mountpoint():
        pytest.skip("[cgroup2-mount] this machine has not a cgroup2 mount")
    container.bundle.add_mount("/sys/fs/cgroup", kind, kind, "ro")
    container.bundle.set_namespace("cgroup")
    row = mount_on(container, "/sys/fs/cgroup")
    wanted = "cgroup2" if kind == "cgroup2" or not machine.missing("cgroup2-only") else "tmpfs"
    assert row["type"] == wanted


@pytest.mark.needs("user-namespace")
def test_bound_device_nodes_give_no_privileges(container: Container) -> None:
    container.bundle.use_user_namespace()
    found = {row["point"]: row["options"] for row in mounts_of(container)}
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        assert {"nosuid", "noexec"} <= found["/dev/" + name], name
        assert "nodev" not in found["/dev/" + name]
