"""Podman as a normal user: the runtime is root of the namespace that Podman has made, without rights over the host."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile

import pytest

from tests.vm.inside.container import PATIENCE, RUNTIME

SYSTEMD = os.path.exists("/run/systemd/system")
MANAGER = "systemd" if SYSTEMD else "cgroupfs"
OPTIONS = ["podman", "--storage-driver=vfs", "--events-backend=file", f"--cgroup-manager={MANAGER}"]


def podman(
    *words: str, runtime: str = RUNTIME, check: bool = True, **more
) -> subprocess.CompletedProcess:
    """Call Podman with a runtime."""
    done = subprocess.run(
        [*OPTIONS, "--runtime", runtime, *words],
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        **more,
    )
    assert not check or done.returncode == 0, (
        f"{words}: {done.returncode}: {done.stdout!r} {done.stderr!r}"
    )
    return done


@pytest.fixture(scope="module")
def image() -> str:
    """An image of busybox."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(shutil.which("busybox"), "bin/busybox")
        for name in ("sh", "cat", "echo", "id", "sleep", "true"):
            link = tarfile.TarInfo("bin/" + name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
        for name in ("etc", "tmp", "dev", "proc", "sys"):
            directory = tarfile.TarInfo(name)
            directory.type, directory.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(directory)
    with open(os.path.expanduser("~/image.tar"), "wb") as file:
        file.write(data.getvalue())
    podman("import", os.path.expanduser("~/image.tar"), "box:1")
    return "localhost/box:1"


def test_run_gives_what_crun_gives(image):
    assert os.getuid() != 0
    script = (
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x >/tmp/x && echo written; exit 3"
    )
    words = ("run", "--rm", "--network=none", image, "sh", "-c", script)
    ours, theirs = (podman(*words, runtime=name, check=False) for name in (RUNTIME, "crun"))
    assert ours.stdout.split() == theirs.stdout.split(), ours.stderr
    assert (ours.returncode, theirs.returncode) == (3, 3)
    lines = ours.stdout.decode().splitlines()
    assert (
        lines[0] == "0"
        and lines[1].split() == ["0", str(os.getuid()), "1"]
        and lines[-1] == "written"
    )


def test_another_user_with_groups_and_a_map_of_its_own(image):
    words = ("run", "--rm", "--network=none", "--user=33:34", "--group-add=35", image, "id")
    assert (
        b"uid=33 gid=34 groups=34,35" in podman(*words).stdout
        or b"groups=35" in podman(*words).stdout
    )
    mapped = podman(
        "run", "--rm", "--network=none", "--uidmap=0:100:500", image, "cat", "/proc/self/uid_map"
    )
    assert mapped.stdout.split() == [b"0", b"100", b"500"]


def test_the_life_of_a_container(image):
    podman(
        "run",
        "-d",
        "--name=life",
        "--network=none",
        "--memory=64m",
        "--pids-limit=40",
        image,
        "sleep",
        "1000",
    )
    try:
        assert podman("exec", "life", "sh", "-c", "id -u; echo $0").stdout.split()[0] == b"0"
        assert podman("exec", "--user=12", "life", "id", "-u").stdout == b"12\n"
        assert podman("inspect", "-f", "{{.State.Status}}", "life").stdout == b"running\n"
        shown = podman(
            "exec",
            "life",
            "cat",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/pids.max",
            check=False,
        )
        assert shown.stdout.split() == [b"67108864", b"40"], shown.stderr
        podman("stop", "-t", "1", "life")
        assert podman("inspect", "-f", "{{.State.Status}}", "life").stdout == b"exited\n"
    finally:
        podman("rm", "-f", "life", check=False)
    assert podman("ps", "-aq").stdout == b""


@pytest.mark.parametrize("options", [(), ("--userns=keep-id",)])
def test_the_users_groups_are_kept(image, options):
    """--group-add keep-groups, as distrobox and toolbox users have it; crun is what it was made for."""
    words = ["run", "--rm", "--network=none", *options, "--group-add=keep-groups", image]
    look = ["cat", "/proc/self/status"]
    assert 4322 in os.getgroups()
    ours, theirs = (
        podman(*words, *look, runtime=runtime).stdout.decode() for runtime in (RUNTIME, "crun")
    )
    groups, others = (
        sorted(said.partition("Groups:")[2].splitlines()[0].split()) for said in (ours, theirs)
    )
    assert "65534" in groups, ours
    assert groups == others
    assert (f"Uid:\t{os.getuid() if options else 0}\t") in ours
