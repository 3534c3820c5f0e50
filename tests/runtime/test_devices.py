"""Devices (config-linux.md, "Devices" and "Default Devices"; runtime-linux.md, "Dev symbolic links")."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from typing import Any

import pytest

from tests.drive import Container

DEFAULTS = [
    ("null", "1:3"),
    ("zero", "1:5"),
    ("full", "1:7"),
    ("random", "1:8"),
    ("urandom", "1:9"),
    ("tty", "5:0"),
]


def listing(container: Container, *paths: str) -> list[str]:
    """For each path: kind, mode, owner and device number."""
    command = "stat -c '%F %a %u:%g %t:%T' " + " ".join(paths)
    return container.run(command).splitlines()


@pytest.mark.parametrize(("name", "number"), DEFAULTS)
def test_a_default_device_is_there(container: Container, name: str, number: str) -> None:
    assert listing(container, "/dev/" + name) == [f"character special file 666 0:0 {number}"]


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ],
)
def test_a_default_link_is_there(container: Container, link: str, target: str) -> None:
    assert container.run(f"readlink /dev/{link}") == target + "\n"


def test_the_default_devices_do_what_they_should(container: Container) -> None:
    script = (
        "echo x > /dev/null; head -c 4 /dev/zero | wc -c; echo x > /dev/full || echo full;"
        "head -c 8 /dev/urandom | wc -c; head -c 8 /dev/random | wc -c; cat /dev/null | wc -c"
    )
    assert container.run(script) == "4\nfull\n8\n8\n0\n"


def test_the_default_devices_can_be_used_by_any_user(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    assert container.run("echo x > /dev/null; head -c 4 /dev/zero | wc -c") == "4\n"


def test_dev_has_nothing_of_the_host(container: Container) -> None:
    known = {name for name, _ in DEFAULTS}
    known |= {"fd", "stdin", "stdout", "stderr", "ptmx", "pts", "shm", "mqueue", "core", "console"}
    assert set(container.run("ls /dev").split()) <= known


def test_a_console_appears_only_with_a_terminal(container: Container) -> None:
    assert container.run("ls /dev/console 2>/dev/null; true") == ""


def test_listed_devices_are_made_with_type_number_mode_and_owner(container: Container) -> None:
    container.linux["devices"] = [
        {"path": "/dev/test1", "type": "c", "major": 10, "minor": 229, "fileMode": 0o660},
        {
            "path": "/dev/test2",
            "type": "b",
            "major": 8,
            "minor": 20,
            "fileMode": 0o640,
            "uid": 3,
            "gid": 4,
        },
    ]
    assert listing(container, "/dev/test1", "/dev/test2") == [
        "character special file 660 0:0 a:e5",
        "block special file 640 3:4 8:14",
    ]


def test_a_listed_fifo_is_made(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/pipe", "type": "p", "fileMode": 0o600}]
    assert listing(container, "/dev/pipe")[0].startswith("fifo 600 0:0")


def test_numbers_given_with_a_fifo_are_ignored(container: Container) -> None:
    container.linux["devices"] = [
        {"path": "/dev/pipe", "type": "p", "major": 8, "minor": 666, "fileMode": 0o660}
    ]
    assert listing(container, "/dev/pipe")[0].startswith("fifo 660 0:0")


def test_an_unbuffered_device_is_a_character_device(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/u", "type": "u", "major": 10, "minor": 229}]
    assert listing(container, "/dev/u")[0].startswith("character special file")


def test_the_default_mode_of_a_device_is_666(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/x", "type": "c", "major": 10, "minor": 229}]
    assert listing(container, "/dev/x") == ["character special file 666 0:0 a:e5"]


def test_large_device_numbers_are_kept(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/x", "type": "c", "major": 500, "minor": 70000}]
    assert listing(container, "/dev/x")[0].endswith(" 1f4:11170")


def test_a_device_may_be_in_a_directory_that_does_not_exist(container: Container) -> None:
    container.linux["devices"] = [
        {"path": "/dev/net/deep/tun", "type": "c", "major": 10, "minor": 200}
    ]
    lines = container.run("stat -c '%F %a' /dev/net /dev/net/deep/tun").splitlines()
    assert lines == ["directory 755", "character special file 666"]


def test_a_device_may_be_outside_dev(container: Container) -> None:
    container.linux["devices"] = [{"path": "/opt/null", "type": "c", "major": 1, "minor": 3}]
    assert container.run("echo x > /opt/null; cat /opt/null | wc -c") == "0\n"


def test_a_listed_device_replaces_the_default_one(container: Container) -> None:
    container.linux["devices"] = [
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600, "uid": 5}
    ]
    assert listing(container, "/dev/full") == ["character special file 600 5:0 1:7"]


def test_an_identical_device_that_exists_is_used(container: Container) -> None:
    path = os.path.join(container.bundle.rootfs, "mydev")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    container.linux["devices"] = [{"path": "/mydev", "type": "c", "major": 1, "minor": 3}]
    assert listing(container, "/mydev")[0].endswith(" 1:3")


def test_a_file_in_the_place_of_a_device_is_an_error(container: Container) -> None:
    container.bundle.put("/mydev", "a file")
    container.linux["devices"] = [{"path": "/mydev", "type": "c", "major": 1, "minor": 3}]
    container.refused()
    assert container.bundle.read("/mydev") == "a file"


@pytest.mark.parametrize(
    "device",
    [
        {"path": "/dev/x", "type": "z", "major": 1, "minor": 3},
        {"path": "/dev/x", "major": 1, "minor": 3},
        {"path": "relative", "type": "c", "major": 1, "minor": 3},
        {"type": "c", "major": 1, "minor": 3},
        {"path": "/dev/x", "type": "c", "major": -5, "minor": 3},
        {"path": "/dev/x", "type": "c", "major": "1", "minor": 3},
    ],
)
def test_a_device_that_makes_no_sense_is_refused(
    container: Container, device: dict[str, Any]
) -> None:
    container.linux["devices"] = [device]
    container.refused()


def test_a_link_in_the_image_does_not_lead_a_device_out_of_the_root(container: Container) -> None:
    name = f"anocir-escape-{container.id}"
    os.symlink("/", os.path.join(container.bundle.rootfs, "out"))
    container.linux["devices"] = [{"path": f"/out/{name}", "type": "c", "major": 1, "minor": 3}]
    container.create(ok=None)
    assert not os.path.lexists("/" + name)


def test_without_a_dev_mount_the_devices_are_made_in_the_root(container: Container) -> None:
    container.bundle.drop_mount("/dev")
    assert listing(container, "/dev/null")[0].endswith(" 1:3")
    assert container.run("readlink /dev/stdin") == "/proc/self/fd/0\n"


def test_a_dev_that_is_bound_from_the_host_is_left_alone(container: Container) -> None:
    container.bundle.drop_mount("/dev")
    source = container.bundle.outside("dev")
    os.mknod(os.path.join(source, "null"), stat.S_IFCHR | 0o666, os.makedev(1, 3))
    container.bundle.add_mount("/dev", "bind", source, "rbind", "rw")
    assert container.run("ls /dev") == "null\n"
    assert os.listdir(source) == ["null"]


# access (config-linux.md, "Allowed Device list") ---------------------------------------------------

access = pytest.mark.needs("compiler")
KMSG: dict[str, Any] = {"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11}


def opened(container: Container, mode: str) -> str:
    """Let the program open the kernel's log, for writing if it may, and return what came of it."""
    container.linux["devices"] = [KMSG]
    container.process["args"] = ["/bin/probe", "open", KMSG["path"], mode]
    return container.run().strip()


def allow(container: Container, **rule: Any) -> None:
    """Append a device rule."""
    container.bundle.resources["devices"].append({"allow": True, **rule})


@access
def test_a_device_that_is_not_allowed_cannot_be_opened(container: Container) -> None:
    assert opened(container, "w") == "EPERM"


@access
def test_an_allowed_device_can_be_opened(container: Container) -> None:
    allow(container, type="c", major=1, minor=11, access="rw")
    assert opened(container, "w") == "ok"


@access
def test_access_is_allowed_per_letter(container: Container) -> None:
    allow(container, type="c", major=1, minor=11, access="r")
    assert opened(container, "w") == "EPERM"


@access
def test_a_later_rule_takes_back_what_an_earlier_one_gave(container: Container) -> None:
    allow(container, type="c", major=1, minor=11, access="rwm")
    container.bundle.resources["devices"].append(
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"}
    )
    assert opened(container, "w") == "EPERM"


@access
def test_a_rule_without_numbers_is_for_all_of_its_type(container: Container) -> None:
    allow(container, type="c", access="rw")
    assert opened(container, "w") == "ok"


@access
def test_a_rule_without_type_is_for_all_devices(container: Container) -> None:
    container.bundle.resources["devices"] = [{"allow": True, "access": "rwm"}]
    assert opened(container, "w") == "ok"


@access
def test_without_rules_only_the_default_devices_can_be_used(container: Container) -> None:
    container.linux["resources"] = {}
    assert opened(container, "w") == "EPERM"


@access
def test_a_node_can_be_made_but_not_opened(container: Container) -> None:
    script = "mknod /dev/kmsg2 c 1 11 && probe open /dev/kmsg2 w; mknod /dev/d b 8 0 && probe open /dev/d r"
    assert container.run(script) == "EPERM\nEPERM\n"


def test_default_devices_work_when_everything_is_denied(container: Container) -> None:
    container.bundle.resources["devices"] = [{"allow": False, "access": "rwm"}]
    assert container.run("head -c 2 /dev/zero | wc -c; echo > /dev/null && echo fine") == (
        "2\nfine\n"
    )


@pytest.mark.needs("cgroup1:devices")
def test_device_rules_appear_in_the_order_of_the_configuration(container: Container) -> None:
    container.bundle.resources["devices"] += [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 20, "access": "rw"},
        {"allow": True, "type": "b", "major": 10, "minor": 200, "access": "r"},
    ]
    container.create()
    lines = container.limit("devices", "devices.list", "").splitlines()
    assert lines[:3] == ["c 10:229 rwm", "b 8:20 rw", "b 10:200 r"]


@pytest.mark.parametrize("letters", ["x", "rwmx", "rw m"])
def test_an_access_that_makes_no_sense_is_refused(container: Container, letters: str) -> None:
    container.bundle.resources["devices"].append(
        {"allow": True, "type": "c", "major": 1, "minor": 11, "access": letters}
    )
    container.refused()


def test_a_directory_that_lends_its_group_lends_it_to_no_device(container: Container) -> None:
    for name in ("lends", "tmp/lends"):
        path = container.bundle.make_directory(f"/{name}")
        os.chown(path, 5, 1234)
        os.chmod(path, 0o2775)
    container.linux["devices"] = [
        {"path": "/lends/null", "type": "c", "major": 1, "minor": 3},
        {"path": "/lends/fifo", "type": "p", "fileMode": 0o640},
        {"path": "/tmp/lends/zero", "type": "c", "major": 1, "minor": 5, "uid": 7},
    ]
    said = container.run("stat -c '%u:%g %a' /lends/null /lends/fifo /tmp/lends/zero").split("\n")
    assert said[:3] == ["0:0 666", "0:0 640", "7:0 666"]


def test_a_file_system_on_a_device_that_no_rule_allows_names_the_rule(container: Container) -> None:
    node = f"/dev/anocir-test-{os.getpid()}"  # where the bundle is may be mounted nodev
    os.mknod(node, 0o600 | stat.S_IFBLK, os.makedev(7, 200))
    container.bundle.add_mount("/tmp", "ext4", node, "ro")
    try:
        said = container.refused()
    finally:
        os.unlink(node)
    assert "operation not permitted" in said and "linux.resources.devices" in said
    assert "b 7:200" in said


@pytest.mark.skipif(
    not shutil.which("mkfs.ext4"), reason="[mkfs.ext4] this machine has not mkfs.ext4"
)
def test_a_file_system_on_a_device_needs_the_rule_that_the_error_names(
    container: Container,
) -> None:
    image = container.bundle.outside("image", "")
    os.truncate(image, 8 << 20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True, stdout=subprocess.DEVNULL)
    found = subprocess.run(
        ["losetup", "--find", "--show", image], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("[loop] this machine has not loop devices")
    node = found.stdout.strip()
    try:
        number = os.stat(node).st_rdev
        container.bundle.add_mount("/data", "ext4", node, "ro")
        said = container.refused()
        assert f"has to allow b {os.major(number)}:{os.minor(number)}: r, and w unless" in said
        container.linux["resources"] = {
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "b", "major": os.major(number), "minor": os.minor(number), "access": "r"},
            ]
        }  # fmt: skip
        assert "lost+found" in container.run("ls /data")
    finally:
        subprocess.run(["losetup", "--detach", node], check=True)
