"""One archive, built once for all tests of this directory."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine

TOP = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Name what the sources are a checkout of; empty without git."""
    git = shutil.which("git")
    words = [git or "false", "-C", str(TOP), "rev-parse", "HEAD"]
    return subprocess.run(words, check=False, capture_output=True, text=True).stdout


@pytest.fixture(scope="session")
def built_from() -> str:
    """Name the commit before `archive` is built."""
    return commit()


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory, built_from: str) -> str:
    machine.become_subreaper()  # for await_end
    path = tmp_path_factory.mktemp("dist") / "anocir"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, str(TOP / "build.py"), "--output", str(path)],
        check=True, env=environment, capture_output=True,
    )  # fmt: skip
    return str(path)
