"""What tests/prepare.sh would install for which tests, seen by an apt-get that only writes down what it is asked for."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo
PROGRAMS = (
    "sh head tail cut dirname id sed sort tr grep uname python3 env cat mkdir rm touch".split()
)
APT = """#!/bin/sh
echo "$0 $*" >> {log}
"""


def prepare(tmp_path: Path, *words: str, **environment: str) -> tuple[str, list[str]]:
    """Run the script where nearly nothing is installed: (what it said, the calls of apt-get)."""
    directory, log = tmp_path / "bin", tmp_path / "log"
    directory.mkdir()
    for name in PROGRAMS:
        path = shutil.which(name)
        assert path, name
        (directory / name).symlink_to(path)
    for name in ("apt-get", "apt-cache"):
        (directory / name).write_text(APT.format(log=log))
        (directory / name).chmod(0o755)
    # Without root it would go through sudo.
    (directory / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (directory / "sudo").chmod(0o755)
    done = subprocess.run(
        ["/bin/sh", str(TOP / "tests/prepare.sh"), *words],
        env={"PATH": str(directory), "HOME": str(tmp_path), "SUITE": "host", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = log.read_text().splitlines() if log.exists() else []
    return done.stderr, [line.partition("apt-get ")[2] for line in lines if "apt-get " in line]


def packages(calls: list[str]) -> set[str]:
    """The packages of the one call that installs."""
    (install,) = [call for call in calls if " install " in call]
    return {word for word in install.split()[1:] if not word.startswith("-")} - {"install"}


def test_the_tests_of_the_runtime_want_neither_engines_nor_machines(tmp_path: Path) -> None:
    said, calls = prepare(tmp_path, "test", "tests/runtime/test_mounts.py")
    wanted = packages(calls)
    assert {"runc", "crun", "strace", "uidmap"} <= wanted
    assert not {"qemu-system-x86", "docker.io", "podman", "debootstrap", "apparmor"} & wanted
    assert "the tests of runtime take about 30 seconds on two cores" in said


def test_a_test_by_its_id_is_of_its_tier(tmp_path: Path) -> None:
    said, calls = prepare(tmp_path, "test", "tests/vm/test_vm.py::test_x", "tests/unit")
    assert {"qemu-system-x86", "podman"} <= packages(calls)
    assert "the tests of unit vm take about" in said
    assert "QEMU" in said
    assert "minutes on two cores" in said


def test_a_tree_needs_no_engines_of_this_machine_outside_of_ci(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    # Complete trees are taken as they are; this one is only to be asked for.
    trees = {"SUITE": "trixie", "ENGINE_TREES": str(tmp_path / "trees")}
    (tmp_path / "trees" / "trixie").mkdir(parents=True)
    from tests.engines import tree

    recipe = tree.stamp("trixie").name
    (tmp_path / "trees" / "trixie" / recipe).touch()
    _, calls = prepare(tmp_path / "a", "test", "tests/engines", **trees)
    wanted = packages(calls)
    assert "debootstrap" in wanted
    assert not {"docker.io", "podman", "containerd"} & wanted
    _, calls = prepare(tmp_path / "b", "test", "tests/engines", CI="true", **trees)
    assert {"debootstrap", "docker.io", "podman", "containerd", "catatonit"} <= packages(calls)


def test_all_tests_want_all_by_one_call(tmp_path: Path) -> None:
    said, calls = prepare(tmp_path, "test")
    assert {"qemu-system-x86", "docker.io", "gcc", "libcap-dev" if _lacks_header() else "runc"} <= (
        packages(calls)
    )
    # A question where the archive lies is none that changes anything.
    changing = [call for call in calls if not call.startswith("indextargets ")]
    assert [call.split()[1] for call in changing] == ["update", "install"]
    assert "minutes on two cores" in said


def _lacks_header() -> bool:
    return not os.path.exists("/usr/include/sys/capability.h")


@pytest.mark.parametrize("what", ["demo", "check"])
def test_what_is_there_is_not_asked_for(tmp_path: Path, what: str) -> None:
    if not (stat.S_IXUSR & os.stat("/usr/bin/python3").st_mode and os.path.exists("/bin/busybox")):
        pytest.skip("[busybox] this machine has not /bin/busybox")
    _, calls = prepare(tmp_path, what)
    wanted = set() if not calls else packages(calls)
    assert not {"gcc", "runc", "podman", "busybox-static"} & wanted


def test_an_unknown_word_is_told(tmp_path: Path) -> None:
    done = subprocess.run(
        ["/bin/sh", str(TOP / "tests/prepare.sh"), "everything"], capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "usage: tests/prepare.sh demo | check | test [TESTS...]\n"


def test_a_probe_asks_when_it_is_run_and_not_before_anything_is_installed() -> None:
    """On a fresh system there is no Python yet when the list is made."""
    text = (TOP / "tests/prepare.sh").read_text()
    functions = text[text.index("build_packages()") : text.index("# Packages without which")]
    lists = [
        subprocess.run(
            ["/bin/sh", "-c", f"suite=host\npython={python}\n{functions}\nvm_packages"],
            capture_output=True, text=True, check=True,
        ).stdout.replace(python, "PYTHON")
        for python in ("/usr/bin/python3", "/nonexistent/python3")
    ]  # fmt: skip
    assert "python3-dev " in lists[0] and lists[0] == lists[1]
