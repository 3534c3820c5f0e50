"""Linters and the type checker, as tests."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import changed

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo


def check(*command: str, said: str = "") -> None:
    result = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=False)
    if result.returncode:
        pytest.fail(result.stdout[-6000:] + result.stderr[-2000:] + said, pytrace=False)


def tool(name: str) -> str:
    beside = Path(sys.executable).parent / name
    path = str(beside) if beside.exists() else shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def test_ruff_finds_nothing() -> None:
    check(tool("ruff"), "check", "--quiet", ".")


def test_the_sources_are_formatted() -> None:
    check(
        tool("ruff"), "format", "--check", "--quiet", ".", said="run: build/venv/bin/ruff format ."
    )


@pytest.mark.timeout(1200)  # without its cache, seconds on most machines
def test_the_types_are_sound() -> None:
    if not importlib.util.find_spec("mypy"):
        pytest.skip("mypy is not installed")
    check(sys.executable, "-m", "mypy", "--no-error-summary", "--cache-dir", "/dev/null")


@pytest.mark.parametrize("script", ["tests/prepare.sh", ".ci/run"])
def test_shell_scripts_parse(script: str) -> None:
    check("/bin/sh", "-n", script)


def test_the_script_that_boots_systemd_parses() -> None:
    check("/bin/bash", "-n", "tests/systemd/boot.sh")


def test_the_pinned_tools_are_one_set() -> None:
    build = (TOP / "build.py").read_text()
    project = (TOP / "pyproject.toml").read_text()
    assert 'TOOLS = ("shiv==' in build
    assert "dependencies = []" in project


def test_make_changed_knows_tests_of_every_module() -> None:
    """Of more than the linters, but for the empty modules that only make a package."""
    for near in changed.NEAR.values():
        assert (TOP / f"tests/{near}.py").exists(), f"changed.NEAR: there is no tests/{near}.py"
    for path in (TOP / "anocir").rglob("*.py"):
        tests = set(changed.tests_of([str(path.relative_to(TOP))]))
        known = tests - {*changed.ALWAYS} or len(path.read_text().splitlines()) < 20
        assert known, f"{path}: say in changed.NEAR which test drives it"
    assert changed.tests_of(["tests/unit/test_plan.py"])[0] == "tests/unit/test_plan.py"
    assert changed.tests_of(["tests/kernel/child.py"])[-1].startswith("tests/kernel/test_")
    assert changed.tests_of([".gitignore"]) == []


def test_make_changed_knows_tests_of_what_uses_a_module() -> None:
    assert changed.users("cgroup/unit") == {
        "cgroup/lost",
        "cgroup/systemd",
        "cgroup/systemd_living",
    }
    assert {"host/exec", "host/states"} <= changed.users("cgroup/__init__")
    assert {"host/exec", "model/spec/every"} <= changed.users("model/spec/process")
    options = changed.tests_of(["anocir/model/mountoptions.py"])
    assert {"tests/runtime/test_added_mounts.py", "tests/runtime/test_features.py"} <= {*options}
    assert "tests/repo/test_imports.py" not in options
    assert "tests/unit/test_cgroup_unit.py" in changed.tests_of(["anocir/cgroup/convert.py"])
    assert "tests/repo/test_imports.py" in changed.tests_of(["anocir/host/create.py"], True)


def test_the_page_of_the_tests_names_what_there_is() -> None:
    page = (TOP / "tests/README.md").read_text()
    for name in re.findall(r"`([\w/]+(?:\.\w+|/))`", page):
        there = (TOP / "tests" / name).exists() or (TOP / name).exists()
        assert there, f"tests/README.md names {name}, which is not there"
    for directory in (TOP / "tests").iterdir():
        if directory.is_dir() and any(directory.glob("*.py")):
            assert f"`{directory.name}/`" in page, (
                f"tests/README.md does not name {directory.name}/"
            )
