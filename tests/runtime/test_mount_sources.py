"""Where the sources of bind mounts may lie: below directories of strangers, inside the root, where links lead."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import Callable, Iterator

import pytest

from tests import drive, machine
from tests.drive import Container


@pytest.fixture
def alice(container: Container) -> str:
    """A directory that root of no user namespace may search, with something to mount in it."""
    home = container.bundle.outside("alice")
    container.bundle.outside("alice/data")
    container.bundle.outside("alice/data/file", "text\n")
    container.bundle.outside("alice/one", "one\n")
    os.symlink("over/there", home + "/link")
    os.chmod(home + "/data", 0o777)
    os.chown(home, 1234, 1234)
    os.chmod(home, 0o700)
    for path in ("/data", "/less", "/mapped"):
        container.bundle.make_directory(path)
    return home


@pytest.mark.needs("user-namespace")
def test_volumes_below_a_directory_of_nobody_who_is_mapped(
    container: Container, alice: str
) -> None:
    """`-v /home/alice/data:/data` with userns-remap."""
    container.bundle.use_user_namespace()
    container.bundle.put("/one")
    container.bundle.add_mount("/data", "bind", f"{alice}/data", "rbind")
    container.bundle.add_mount("/less", "none", f"{alice}/data", "bind", "ro", "nosuid")
    container.bundle.add_mount("/one", "bind", f"{alice}/one", "bind", "src-nofollow")
    container.bundle.make_directory("/links")
    os.chown(os.path.join(container.bundle.rootfs, "links"), 100000, 100000)
    container.bundle.add_mount("/links/a", "bind", f"{alice}/link", "rbind", "copy-symlink")
    said = container.run(
        "cat /data/file /one; readlink /links/a; echo 1 >/data/new; touch /less/new; ls /less"
    )
    assert said == "text\none\nover/there\nfile\nnew\n"


@pytest.mark.needs("user-namespace")
@pytest.mark.parametrize("word", ["bind", "rbind"])
@pytest.mark.needs("mount_setattr")
def test_such_a_volume_may_be_id_mapped(container: Container, alice: str, word: str) -> None:
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/mapped", "bind", f"{alice}/data", word, "idmap")
    container.bundle.add_mount("/data", "bind", f"{alice}/data", word)
    said = container.run("stat -c %u /mapped/file /data/file; touch /mapped/made")
    assert said == "0\n65534\n" and os.stat(f"{alice}/data/made").st_uid == 0


@pytest.mark.needs("user-namespace")
def test_such_a_volume_with_namespaces_of_another_container(
    container: Container, new_container: Callable[[], Container], alice: str
) -> None:
    """User and pid namespace joined by path: init is cloned last, a worker asks for the sources."""
    first = new_container()
    first.bundle.use_user_namespace()
    pid = first.launch("sleep 60")
    for kind in ("user", "pid"):
        container.bundle.set_namespace(kind, f"/proc/{pid}/ns/{kind}")
    container.bundle.add_mount("/data", "bind", f"{alice}/data", "rbind")
    assert container.run("cat /data/file") == "text\n"


@pytest.mark.needs("user-namespace")
def test_a_source_that_is_missing_below_such_a_directory_is_said_so(container: Container) -> None:
    home = container.bundle.outside("alice")
    os.chown(home, 1234, 1234)
    os.chmod(home, 0o700)
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/tmp", "bind", home + "/nothing", "rbind")
    assert f"{home}/nothing: no such file or directory" in container.refused()


@pytest.mark.needs("user-namespace")
@pytest.mark.parametrize("options", [["rbind"], ["rbind", "idmap"], ["bind", "ridmap"]])
@pytest.mark.needs("mount_setattr")
def test_flags_of_such_a_source_stay_locked(
    container: Container, hidden: str, options: list[str]
) -> None:
    """The container's root must not make a mount writable that the host made read-only."""
    container.bundle.use_user_namespace()
    container.bundle.make_directory("/data")
    container.bundle.make_directory("/t")
    container.bundle.add_mount("/data", "bind", hidden, *options)
    container.bundle.add_mount("/t", "tmpfs", "t", "ro")
    for key in ("bounding", "effective", "permitted"):
        container.process["capabilities"][key].append("CAP_SYS_ADMIN")
    script = "mount -o remount,bind,rw {} 2>/dev/null && echo {}"
    said = container.run(f"{script.format('/data', 'data')}; {script.format('/t', 't')}; exit 0")
    assert said == "t\n", "where nothing is locked the same command works"


@pytest.fixture(scope="module")
def hidden(runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A read-only mount of the host below a directory of somebody's own."""
    home = str(tmp_path_factory.mktemp("bob"))
    os.chmod(os.path.dirname(home), 0o755)
    os.mkdir(home + "/data")
    machine.mount("t", home + "/data", "tmpfs", 1 | 2 | 4 | 8, "mode=777")
    os.chown(home, 1234, 1234)
    os.chmod(home, 0o700)
    yield home + "/data"
    machine.umount(home + "/data", machine.MNT_DETACH)


def test_a_source_inside_the_root_may_come_from_an_earlier_mount(container: Container) -> None:
    source = container.bundle.outside("v")
    container.bundle.outside("v/inner")
    container.bundle.outside("v/inner/file", "text\n")
    container.bundle.add_mount("/data", "bind", source, "rbind")
    container.bundle.add_mount("/again", "bind", container.bundle.rootfs + "/data/inner", "rbind")
    os.symlink(container.bundle.path, container.bundle.path + "/link")
    linked = container.bundle.path + "/link/rootfs/data/inner"
    container.bundle.add_mount("/linked", "bind", linked, "bind")
    container.bundle.add_mount("/t", "tmpfs", "t")
    container.bundle.add_mount("/t/below", "tmpfs", "below")
    container.bundle.add_mount("/tt", "bind", container.bundle.rootfs + "/t", "rbind")
    said = container.run(
        "cat /again/file /linked/file; ls /tt; grep -c ' /tt' /proc/self/mountinfo"
    )
    assert said == "text\ntext\nbelow\n2\n"


def test_a_destination_may_be_a_path_of_the_host_in_the_root(container: Container) -> None:
    root = container.bundle.rootfs
    source = container.bundle.outside("v")
    container.bundle.outside("v/file", "text\n")
    container.bundle.add_mount(root + "/one/./two", "bind", source, "bind")
    container.bundle.add_mount(root + "/three", "bind", root + "/one", "rbind")
    container.bundle.add_mount(root + "beside", "tmpfs", "t")
    said = container.run(f"cat /three/two/file; grep -c ' {root}beside ' /proc/self/mountinfo")
    assert said == "text\n1\n"
    container.bundle.add_mount(root + "/", "tmpfs", "t")
    assert "the root itself cannot be" in container.refused()


def test_a_source_inside_the_root_never_leads_out_of_it(container: Container) -> None:
    """CVE-2021-30465: a volume's link must not be taken for a directory of the host."""
    source = container.bundle.outside("v")
    secret = container.bundle.outside("secret")
    container.bundle.outside("secret/key", "secret\n")
    os.symlink(secret, source + "/link")
    os.symlink("../" * 20 + secret, source + "/up")
    container.bundle.add_mount("/data", "bind", source, "rbind")
    for name in ("link", "up"):
        container.bundle.add_mount(
            "/stolen", "bind", f"{container.bundle.rootfs}/data/{name}", "rbind"
        )
        said = container.refused()
        assert "no such file or directory" in said
        del container.config["mounts"][-1]


def keep_namespace(cpu: int, path: str) -> bool:
    """Bind a new mount namespace to a file; tell whether the kernel takes it for younger than ours.

    Linux 6.18 tells by numbers that each CPU takes from a stock of its own.
    """
    command = ["taskset", "--cpu-list", str(cpu), "unshare", "--mount", "cat"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as holder:
        namespace = f"/proc/{holder.pid}/ns/mnt"
        ours = os.readlink("/proc/self/ns/mnt")
        drive.until("the namespace", lambda: os.readlink(namespace) != ours)
        try:
            machine.mount(namespace, path, "", 4096)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False
    return True


@pytest.fixture(scope="module")
def pinned(runtime: drive.Runtime, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A file system with a mount namespace that is kept by a mount in it, as snapd has it."""
    top = str(tmp_path_factory.mktemp("snapd"))
    os.chmod(os.path.dirname(top), 0o755)
    machine.mount("t", top, "tmpfs", 0, "mode=777")
    machine.mount("", top, "", machine.MS_PRIVATE)
    os.makedirs(top + "/ns/below")
    machine.mount("t", top + "/ns/below", "tmpfs", 0, "mode=777")
    for name in ("ns/one", "file"):
        with open(f"{top}/{name}", "w"):
            pass
    assert any(keep_namespace(cpu, top + "/ns/one") for cpu in os.sched_getaffinity(0))
    yield top
    for name in ("/ns/one", "/ns/below", ""):
        machine.umount(top + name, machine.MNT_DETACH)


@pytest.mark.needs("user-namespace")
@pytest.mark.parametrize("own", [True, False])
@pytest.mark.parametrize("word", ["idmap", "ridmap"])
@pytest.mark.needs("mount_setattr")
def test_an_id_mapped_tree_leaves_out_mounts_of_mount_namespaces(
    container: Container, pinned: str, word: str, own: bool
) -> None:
    container.bundle.make_directory("/m")
    entry = container.bundle.add_mount("/m", "bind", pinned, "rbind", word)
    if own:
        container.bundle.use_user_namespace()
    else:
        entry["uidMappings"] = entry["gidMappings"] = [
            {"containerID": 0, "hostID": 5000, "size": 9}
        ]
    said = container.run("stat -c %u /m/file; ls /m/ns; grep -c ' /m' /proc/self/mountinfo")
    assert said == ("0" if own else "5000") + "\nbelow\none\n2\n"
