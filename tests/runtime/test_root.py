"""Root file system (config.md, "Root"; config-linux.md, "Rootfs Mount Propagation")."""

from __future__ import annotations

import os

import pytest

from tests import machine
from tests.drive import Container


def test_the_program_sees_the_root_file_system_and_nothing_of_the_host(
    container: Container,
) -> None:
    container.bundle.put("/marker", "here\n")
    lines = container.run("cat /marker; ls -a /").split("\n")
    assert lines[0] == "here"
    assert set(lines[1:]) - {"", ".", ".."} == {
        "bin", "dev", "etc", "marker", "proc", "root", "sys", "tmp"
    }  # fmt: skip


def test_the_old_root_is_not_mounted_anywhere(container: Container) -> None:
    points = [line.split()[4] for line in container.run("cat /proc/self/mountinfo").splitlines()]
    assert points[0] == "/"
    known = ("/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys")
    assert set(points) <= set(known), points


def test_dot_dot_of_the_root_is_the_root(container: Container) -> None:
    container.bundle.put("/marker", "here\n")
    assert container.run("cd /; cd ../../..; cat marker; cat /../../marker") == "here\nhere\n"


def test_the_root_can_be_written_by_default(container: Container) -> None:
    container.run("echo text > /file")
    assert container.bundle.read("/file") == "text\n"


@pytest.mark.parametrize("readonly", [True, False])
def test_readonly_is_as_configured(container: Container, readonly: bool) -> None:
    container.config["root"]["readonly"] = readonly
    result = container.run("touch /file 2>&1; echo $?; touch /dev/shm/file /dev/file && echo rest")
    assert result.endswith("rest\n")
    assert ("Read-only file system" in result) == readonly
    assert container.bundle.has("/file") != readonly


def test_a_readonly_root_gets_its_mount_points_and_working_directory(container: Container) -> None:
    container.config["root"]["readonly"] = True
    container.process["cwd"] = "/made/for/cwd"
    container.bundle.add_mount("/made/for/mount", "tmpfs", "tmpfs", "rw")
    assert container.run("pwd; touch /made/for/mount/file && echo written") == (
        "/made/for/cwd\nwritten\n"
    )


def test_the_path_may_be_absolute(container: Container) -> None:
    container.config["root"]["path"] = container.bundle.rootfs
    assert container.run("echo fine") == "fine\n"


def test_the_path_may_be_the_bundle_itself(container: Container) -> None:
    for name in os.listdir(container.bundle.rootfs):
        os.rename(
            os.path.join(container.bundle.rootfs, name), os.path.join(container.bundle.path, name)
        )
    container.config["root"]["path"] = "."
    assert container.run("ls /config.json") == "/config.json\n"


def test_the_path_may_be_a_symbolic_link(container: Container) -> None:
    os.symlink("rootfs", os.path.join(container.bundle.path, "link"))
    container.config["root"]["path"] = "link"
    assert container.run("echo fine") == "fine\n"


@pytest.mark.parametrize("path", ["nothing", "/no/such/directory", "config.json"])
def test_a_path_that_is_no_directory_is_refused(container: Container, path: str) -> None:
    container.config["root"]["path"] = path
    container.refused()


def test_a_config_without_root_is_refused(container: Container) -> None:
    del container.config["root"]
    assert "root" in container.refused()


def test_the_root_is_private_to_the_container(container: Container) -> None:
    container.launch("echo > /ready; sleep 100")
    container.wait_file("/ready")
    here = [row[0][4] for row in machine.mountinfo()]
    assert not [point for point in here if point.startswith(container.bundle.path)]


# propagation --------------------------------------------------------------------------------------


def propagation_of_root(container: Container) -> str:
    """The optional fields of the root mount, numbers taken off."""
    line = container.run("cat /proc/self/mountinfo").splitlines()[0].split()
    return " ".join(word.partition(":")[0] for word in line[6 : line.index("-")])


@pytest.mark.parametrize(
    ("word", "fields"),
    [
        ("shared", "shared"),
        ("slave", "master"),
        ("private", ""),
        ("unbindable", "unbindable"),
        ("rshared", "shared"),
        ("rslave", "master"),
        ("rprivate", ""),
    ],
)
def test_the_propagation_of_the_root_is_as_configured(
    container: Container, word: str, fields: str
) -> None:
    container.linux["rootfsPropagation"] = word
    found = propagation_of_root(container)
    if fields == "master":
        assert found in ("master", "")  # private when the source has no peer group
    else:
        assert found == fields


def test_a_shared_root_does_not_propagate_to_the_host(container: Container) -> None:
    container.linux["rootfsPropagation"] = "shared"
    for name in ("bounding", "effective", "permitted"):
        container.process["capabilities"][name].append("CAP_SYS_ADMIN")
    before = len(machine.mountinfo())
    container.launch("mount -t tmpfs inside /tmp && echo > /ready; sleep 100")
    container.wait_file("/ready")
    assert len(machine.mountinfo()) == before


def test_in_a_shared_root_a_bind_of_it_sees_later_mounts(container: Container) -> None:
    container.linux["rootfsPropagation"] = "shared"
    for name in ("bounding", "effective", "permitted"):
        container.process["capabilities"][name].append("CAP_SYS_ADMIN")
    script = (
        "mkdir /target /a /a/b; mount --rbind / /target; mount -t tmpfs in /a/b;"
        "touch /a/b/file; ls /target/a/b"
    )
    assert container.run(script) == "file\n"


def test_an_unbindable_root_cannot_be_bound(container: Container) -> None:
    container.linux["rootfsPropagation"] = "unbindable"
    for name in ("bounding", "effective", "permitted"):
        container.process["capabilities"][name].append("CAP_SYS_ADMIN")
    assert container.run("mkdir /t; mount --bind / /t 2>&1; echo $?").endswith("\n255\n") or (
        "Invalid argument" in container.errors()
    )


def test_an_unknown_propagation_is_refused(container: Container) -> None:
    container.linux["rootfsPropagation"] = "bogus"
    container.refused()


def test_with_no_pivot_the_root_is_changed_all_the_same(container: Container) -> None:
    container.bundle.put("/marker", "here\n")
    assert container.run("cat /marker; cd ..; cat marker", "--no-pivot") == "here\nhere\n"
