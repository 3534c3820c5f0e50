"""The guard around the tests: each kind of change to a host is seen, named and undone."""

from __future__ import annotations

import ctypes
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Callable

import pytest

from tests import drive, host, machine

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]


APART = tuple(section for section in host.ALL if section != "keyrings")


def node(path: Path, minor: int) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, minor))
    os.chmod(path, 0o666)


def stand_in(top: Path) -> dict[str, str]:
    """Places like the host's, for what no namespace keeps apart."""
    for name in ("dev", "cgroup/cpu", "checkout"):
        (top / name).mkdir(parents=True)
    for number, name in enumerate(("null", "full", "zero"), 3):
        node(top / "dev" / name, number)
    for name in ("cgroup/cpu/tasks", "cgroup/release", "checkout/README"):
        (top / name).write_text("")
    return {name: str(top / name) for name in ("dev", "cgroup", "checkout")}


def forwarding() -> str:
    """What ip_forward is not: an engine may have left it on, and new namespaces begin with it."""
    with open("/proc/sys/net/ipv4/ip_forward") as file:
        return "01"[file.read() == "0\n"]


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys", name).write_text(value)


def replace(path: Path, make: Callable[[], object]) -> None:
    path.unlink()
    make()


def join_keyring() -> None:
    number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
    name = f"guard-{os.getpid()}".encode()
    machine.check(ctypes.CDLL(None).syscall(number, 1, name), "KEYCTL_JOIN_SESSION_KEYRING")


def ip(words: str) -> None:
    subprocess.run(["ip", *words.split()], check=True, capture_output=True)


CHANGES: dict[str, Callable[[Path], object]] = {
    "devices: mode": lambda top: os.chmod(top / "dev/null", 0o676),
    "devices: owner": lambda top: os.chown(top / "dev/null", 100000, 100000),
    "devices: number": lambda top: replace(top / "dev/full", lambda: node(top / "dev/full", 5)),
    "devices: a file in its place": lambda top: replace(
        top / "dev/full", lambda: (top / "dev/full").write_text("1\n")
    ),
    "devices: gone": lambda top: os.unlink(top / "dev/zero"),
    "devices: new": lambda top: (top / "dev/console").write_text(""),
    "cgroups: the top": lambda top: os.chmod(top / "cgroup", 0o676),
    "cgroups: a hierarchy": lambda top: os.chmod(top / "cgroup/cpu", 0o700),
    "cgroups: a file": lambda top: os.chown(top / "cgroup/cpu/tasks", 1000, 1000),
    "links: up": lambda _top: ip("link set lo up"),
    "links: new": lambda _top: ip("link add left0 type bridge"),
    "names: hostname": lambda _top: sysctl("kernel/hostname", "left"),
    "names: domainname": lambda _top: sysctl("kernel/domainname", "left"),
    "sysctl: ip_forward": lambda _top: sysctl("net/ipv4/ip_forward", forwarding()),
    "sysctl: of a device": lambda _top: sysctl("net/ipv4/conf/lo/rp_filter", "2"),
    "mounts: new": lambda _top: machine.mount("left", "/mnt", "tmpfs", 0),
    "keyrings: new": lambda _top: join_keyring(),
    "checkout: mode": lambda top: os.chmod(top / "checkout/README", 0o600),
}
NO_WAY_BACK: dict[str, Callable[[Path], object]] = {
    "mounts: gone": lambda _top: machine.umount("/run", machine.MNT_DETACH),
    "links: gone": lambda _top: ip("link delete there0"),
}


def in_a_host_of_its_own(top: Path, action: Callable[[], object]) -> None:
    """Run it in a child with its own network, names and mounts; what it raised fails the test."""
    complaint = top / "complaint"
    os.environ["TMPDIR"], before = str(top), os.environ.get("TMPDIR")

    def inside() -> None:
        machine.unshare(machine.CLONE_NEWNS | machine.CLONE_NEWNET | machine.CLONE_NEWUTS)
        machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
        machine.mount("none", "/run", "tmpfs", 0)
        ip("link add there0 type bridge")
        host.tempfile.tempdir = str(top)
        host.PATIENCE = 0.2
        try:
            action()
        except BaseException as error:
            complaint.write_text(f"{type(error).__name__}: {error}")
            raise

    try:
        ok = machine.in_child(inside)
    finally:
        os.environ.pop("TMPDIR")
        if before is not None:
            os.environ["TMPDIR"] = before
    assert ok, complaint.read_text()


@pytest.mark.needs("keyrings")
@pytest.mark.parametrize("change", [*CHANGES, *NO_WAY_BACK])
def test_a_change_is_seen_told_and_undone(tmp_path: Path, change: str) -> None:
    tops = stand_in(tmp_path)
    # Keyrings are in no namespace: what runs beside this has some.
    sections = ("keyrings",) if change.startswith("keyrings") else APART

    def look() -> None:
        guard = host.Guard(**tops)
        try:
            assert guard.check("nobody", APART) == [] and not guard.failed
            (CHANGES | NO_WAY_BACK)[change](tmp_path)
            lines = guard.check("test_that_leaves_things", sections)
            told = [line for line in lines if line.startswith("test_that_leaves_things: ")]
            assert any(f" {change.partition(':')[0]}: " in line for line in told), lines
            undone = change in CHANGES
            assert all(line.endswith(": put back") == undone for line in told), lines
            assert guard.failed
            # Put back, or told once.
            assert guard.check("another test", APART) == []
        finally:
            guard.close()

    in_a_host_of_its_own(tmp_path, look)


OTHER = """
import sys
from tests import host
registered = host.Register("the other run")
print("ready", flush=True)
sys.stdin.readline()
"""


def test_where_others_are_at_work_they_are_named(tmp_path: Path) -> None:
    """What they may be using stays, a mode that nobody can have a use for is put back, and nothing fails."""
    tops = stand_in(tmp_path)

    def look() -> None:
        other = subprocess.Popen(
            [sys.executable, "-c", OTHER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=drive.REPOSITORY,
        )  # fmt: skip
        assert other.stdout and other.stdout.readline() == b"ready\n"
        guard = host.Guard(**tops)
        try:
            ip("link add left0 type bridge")
            os.chmod(tmp_path / "dev/null", 0o676)
            lines = "\n".join(guard.check("me", APART))
            assert "left0" in lines and "the other run (pid " in lines
            assert lines.count("NOT put back") == 1
            assert stat.S_IMODE(os.stat(tmp_path / "dev/null").st_mode) == 0o666
            assert not guard.failed
            other.kill()
            other.wait()
            guard.check("me", APART)  # it has ended since the last look
            assert not guard.failed
            os.chmod(tmp_path / "dev/null", 0o676)
            assert guard.check("me", APART) and guard.failed
        finally:
            other.kill()
            other.wait()
            guard.close()

    in_a_host_of_its_own(tmp_path, look)


LEAVES = """
import pathlib


def test_fine():
    pass


def test_leaves():
    knob = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
    knob.write_text("01"[knob.read_text() == "0\\n"])
    open("/proc/sys/kernel/hostname", "w").write("left")


def test_innocent():
    pass
"""


@pytest.mark.parametrize("leaves", [True, False])
def test_a_run_that_changes_the_host_fails(tmp_path: Path, leaves: bool) -> None:
    """Through the plugin: the quick look names the test, the whole one the file, the run ends with 1."""
    test = tmp_path / "test_some.py"
    test.write_text(LEAVES if leaves else "def test_fine():\n    pass\n")
    command = [
        sys.executable, "-m", "pytest", "-p", "tests.guard", "-p", "no:cacheprovider", str(test),
        "--rootdir", str(tmp_path), "-c", "/dev/null",
    ]  # fmt: skip
    done = drive.call(
        ["unshare", "-nu", *command],
        ok=None, cwd=drive.REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path), "CI": ""},
    )  # fmt: skip
    if not leaves:
        assert done.status == 0, done.explain()
        return
    assert done.status == 1 and "3 passed" in done.stdout, done.explain()
    assert "test_some.py::test_leaves: names: hostname: was " in done.stdout
    assert "test_innocent, or one before it in its file: sysctl: /proc/sys/net/ipv4/ip_forward" in (
        done.stdout
    )
    assert "NOT put back" not in done.stdout


PROGRAM = """
import os, pathlib, sys
from tests import host

host.CHECKOUT = sys.argv[1]
for runtime in sys.argv[2:]:
    with host.around("a measurement", runtime):
        knob = pathlib.Path("/proc/sys/net/ipv4/ip_forward")
        knob.write_text("01"[knob.read_text() == "0\\n"])
sys.exit(1 if host.BLAME else 0)
"""


@pytest.mark.parametrize(("runtime", "status"), [("anocir", 1), ("runc", 0)])
def test_a_measurement_says_which_runtime_it_was(tmp_path: Path, runtime: str, status: int) -> None:
    """A peer that leaves things is told and tidied up after; ours fails the measurement."""
    done = drive.call(
        ["unshare", "-nu", sys.executable, "-c", PROGRAM, str(tmp_path), runtime],
        ok=None, cwd=drive.REPOSITORY, env={**os.environ, "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.status == status, done.explain()
    assert f"a measurement of {runtime}: sysctl: /proc/sys/net/ipv4/ip_forward" in done.stderr
    assert done.stderr.count(": put back") == done.stderr.count("was '")
