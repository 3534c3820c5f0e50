"""One archive, built once for all tests of this directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import machine

TOP = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> str:
    machine.become_subreaper()  # for await_end
    path = tmp_path_factory.mktemp("dist") / "anocir"
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(
        [sys.executable, str(TOP / "build.py"), "--output", str(path)],
        check=True, env=environment, capture_output=True,
    )  # fmt: skip
    return str(path)
