"""Masked and read-only paths (config-linux.md, "Masked Paths" and "Readonly Paths")."""

from __future__ import annotations

import os
import stat

import pytest

from tests.drive import Container


def test_a_masked_file_reads_as_empty(container: Container) -> None:
    container.bundle.put("/secret", "secret\n")
    container.linux["maskedPaths"] = ["/secret"]
    assert container.run("cat /secret; echo end") == "end\n"


def test_a_masked_directory_is_empty_and_cannot_be_written(container: Container) -> None:
    container.bundle.put("/secrets/deep/file", "secret\n")
    container.linux["maskedPaths"] = ["/secrets"]
    output = container.run(
        "ls /secrets; touch /secrets/new 2>&1; cat /secrets/deep/file 2>&1; true"
    )
    assert "Read-only file system" in output
    assert "secret\n" not in output


def test_paths_below_a_masked_one_are_no_error(container: Container) -> None:
    container.bundle.put("/top/inner/file", "secret\n")
    container.linux["maskedPaths"] = ["/top", "/top/inner", "/top/inner/file"]
    assert container.run("ls /top") == ""


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_a_path_that_does_not_exist_is_no_error(container: Container, key: str) -> None:
    container.linux[key] = ["/nothing/here", "/proc/no-such-thing"]
    assert container.run("echo fine") == "fine\n"
    assert not container.bundle.has("/nothing")


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
@pytest.mark.parametrize("kind", ["fifo", "block", "char", "socket"])
def test_a_special_file_is_covered_without_being_opened(
    container: Container, key: str, kind: str
) -> None:
    path = os.path.join(container.bundle.rootfs, "special")
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        os.mknod(path, stat.S_IFSOCK | 0o666)
    else:
        os.mknod(path, 0o666 | (stat.S_IFBLK if kind == "block" else stat.S_IFCHR), 0)
    container.linux[key] = ["/special"]
    words = [line.split()[4:6] for line in container.run("cat /proc/self/mountinfo").splitlines()]
    assert [row for row in words if row[0] == "/special"]


def test_a_masked_path_cannot_be_unmasked_by_the_program(container: Container) -> None:
    container.bundle.put("/secret", "secret\n")
    container.linux["maskedPaths"] = ["/secret"]
    assert "secret" not in container.run("umount /secret 2>/dev/null; cat /secret")


def test_usual_masks_of_proc_and_sys_hold(container: Container) -> None:
    container.linux["maskedPaths"] = [
        "/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware",
    ]  # fmt: skip
    assert container.run("cat /proc/keys; cat /proc/kcore | head -c 4; ls /sys/firmware") == ""


def test_a_masked_file_is_the_real_null_device(container: Container) -> None:
    container.bundle.put("/secret", "secret\n")
    container.linux["maskedPaths"] = ["/secret"]
    assert container.run("stat -c '%F %t:%T' /secret") == "character special file 1:3\n"


def test_an_image_cannot_choose_what_masks(container: Container) -> None:
    container.bundle.drop_mount("/dev")
    container.bundle.put("/evil", "evil\n")
    container.bundle.put("/secret", "secret\n")
    os.symlink("/evil", os.path.join(container.bundle.rootfs, "dev/null"))
    container.linux["maskedPaths"] = ["/secret"]
    result = container.try_run("cat /secret; true")
    assert "evil" not in result.stdout and "secret\n" not in result.stdout


def test_a_readonly_path_can_be_read_and_not_written(container: Container) -> None:
    container.bundle.put("/data/file", "content\n")
    container.linux["readonlyPaths"] = ["/data"]
    output = container.run("cat /data/file; echo x > /data/file; touch /data/new; true")
    assert output == "content\n"
    assert container.errors().count("Read-only file system") == 2


def test_a_readonly_path_may_be_a_single_file(container: Container) -> None:
    container.bundle.put("/data/file", "content\n")
    container.linux["readonlyPaths"] = ["/data/file"]
    container.run("touch /data/new; echo x > /data/file; true")
    assert container.bundle.has("/data/new")
    assert container.bundle.read("/data/file") == "content\n"


def test_usual_readonly_paths_of_proc_hold(container: Container) -> None:
    container.linux["readonlyPaths"] = [
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"
    ]  # fmt: skip
    container.run("echo 1 > /proc/sys/net/ipv4/ip_forward; true")
    assert "Read-only file system" in container.errors()


def test_a_readonly_path_keeps_the_flags_of_its_mount(container: Container) -> None:
    container.bundle.add_mount("/m", "tmpfs", "tmpfs", "nosuid", "noexec", "nodev")
    container.linux["readonlyPaths"] = ["/m"]
    rows = [line.split()[4:6] for line in container.run("cat /proc/self/mountinfo").splitlines()]
    flags = set([row[1] for row in rows if row[0] == "/m"][-1].split(","))
    assert {"ro", "nosuid", "noexec", "nodev"} <= flags


def test_a_masked_path_behind_a_link_is_masked_inside_the_root(container: Container) -> None:
    container.bundle.put("/real/secret", "secret\n")
    os.symlink("/real", os.path.join(container.bundle.rootfs, "link"))
    container.linux["maskedPaths"] = ["/link/secret"]
    result = container.try_run("cat /real/secret; true")
    assert "secret\n" not in result.stdout


def test_a_path_is_both_masked_and_readonly(container: Container) -> None:
    container.bundle.put("/both/file", "content\n")
    container.linux["maskedPaths"] = ["/both"]
    container.linux["readonlyPaths"] = ["/both"]
    assert container.run("ls /both") == ""


@pytest.mark.parametrize("key", ["maskedPaths", "readonlyPaths"])
def test_a_relative_path_is_refused(container: Container, key: str) -> None:
    container.linux[key] = ["relative"]
    container.bundle.make_directory("/relative")
    container.refused()
