"""`exec --tools`: a directory of the host in the root of one process, and of no other."""

from __future__ import annotations

import os
import shutil

import pytest

from tests.drive import Container

pytestmark = pytest.mark.needs("mount_setattr")

PLACE = "/.anocir/tools"


@pytest.fixture
def tools(container: Container) -> str:
    """A directory of the host with a program that says where it is."""
    path = container.bundle.outside("tools")
    program = os.path.join(path, "where")
    with open(program, "w") as file:
        file.write("#!/bin/sh\necho $0 $(id -u) $PATH\n")
    os.chmod(program, 0o755)
    shutil.copy(shutil.which("busybox") or "", path)
    return path


def mounts_of(container: Container, pid: int) -> str:
    """The mount table of a process."""
    with open(f"/proc/{pid}/mountinfo") as file:
        return file.read()


@pytest.mark.parametrize("readonly", [True, False])
@pytest.mark.parametrize("mapped", [False, True])
def test_one_process_has_them_and_nothing_is_left(
    container: Container, tools: str, readonly: bool, mapped: bool
) -> None:
    container.config["root"]["readonly"] = readonly
    container.bundle.put("marker", "of the image")
    os.symlink("etc/../marker", os.path.join(container.bundle.rootfs, "link"))
    container.linux["rootfsPropagation"] = "shared"
    if mapped:
        container.bundle.use_user_namespace()
    pid = container.launch("echo here >/dev/shm/file; exec sleep 1000")
    before = mounts_of(container, pid), sorted(os.listdir(container.bundle.rootfs))
    said = container.exec(
        "sh", "-c",
        "where; cat /marker /link /dev/shm/file; ls /proc/1 >/dev/null && echo proc;"
        f"for f in /new {PLACE}/new; do touch $f 2>/dev/null && echo made $f; done;"
        "readlink /link; touch /dev/shm/new; hostname",
        options=("--tools", tools),
        ok=None,
    ).stdout.splitlines()  # fmt: skip
    assert said[0].startswith(f"{PLACE}/where 0 {PLACE}:/")
    assert said[1:] == [
        "of the imageof the imagehere", "proc", "etc/../marker",
        container.config.get("hostname", said[-1]),
    ]  # fmt: skip
    assert (mounts_of(container, pid), sorted(os.listdir(container.bundle.rootfs))) == before
    assert container.exec("ls", "-a", "/dev/shm").stdout.splitlines() == [".", "..", "file", "new"]
    assert container.exec(f"{PLACE}/where", ok=None).status != 0


def test_identity_and_limits_are_those_of_exec(container: Container, tools: str) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]
    container.launch("exec sleep 1000")
    script = "grep -E '^(Uid|Gid|Cap|NoNewPrivs|Seccomp:)' /proc/self/status; ulimit -n; cat /proc/self/cgroup"
    plain = container.exec("sh", "-c", script).stdout
    assert container.exec("sh", "-c", script, options=("--tools", tools)).stdout == plain
    assert "1000" in plain


def test_a_shell_is_run_when_no_command_is_named(container: Container, tools: str) -> None:
    shutil.rmtree(os.path.join(container.bundle.rootfs, "tmp"), ignore_errors=True)
    container.launch("exec sleep 1000")
    assert (
        container.exec(options=("--tools", tools), stdin="echo $0 $((1 + 1))\n").stdout == "sh 2\n"
    )
    os.symlink("busybox", os.path.join(tools, "sh"))
    assert container.exec(options=("--tools", tools), stdin="echo $0\n").stdout == f"{PLACE}/sh\n"
    host = container.exec(options=("--tools", "busybox"), stdin="which wc\n")
    assert host.stdout == f"{PLACE}/wc\n"


def test_names_of_the_image_in_the_way(container: Container, tools: str) -> None:
    """Neither a directory of that name, nor links, nor odd entries keep the tools out or lead out."""
    root = container.bundle.rootfs
    os.symlink("/etc", os.path.join(root, ".anocir"))
    os.symlink("/proc/self/root", os.path.join(root, "a\nb"))
    os.mkfifo(os.path.join(root, "fifo"))
    os.mkdir(os.path.join(root, os.fsdecode(b"\xff")))
    container.launch("exec sleep 1000")
    said = container.exec(
        "sh", "-c", "where; ls /etc; test -p /fifo && ls -d /? ", options=("--tools", tools)
    )
    assert said.stdout.splitlines()[0].startswith(f"{PLACE}/where ")
    assert not os.path.exists(os.path.join(root, "etc/tools"))


@pytest.mark.parametrize(
    ("directory", "said"),
    [
        ("/no/such", "--tools: /no/such: no such file or directory"),
        ("/etc/passwd", "--tools: /etc/passwd: not a directory"),
        ("/proc/self/fd", "exec"),
    ],
)
def test_what_is_no_directory_of_tools(container: Container, directory: str, said: str) -> None:
    container.launch("exec sleep 1000")
    result = container.exec("where", options=("--tools", directory), ok=False)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    assert "bug" not in result.stderr


def test_a_container_on_the_mounts_of_the_host_is_refused(container: Container, tools: str) -> None:
    container.bundle.drop_namespace("mount")
    container.config["mounts"] = []
    container.linux.pop("maskedPaths", None)
    container.linux.pop("readonlyPaths", None)
    container.launch("exec sleep 1000")
    result = container.exec("where", options=("--tools", tools), ok=False)
    assert "--tools: the container has no mount namespace of its own" in result.stderr
