"""Boot the machines early: while the tiers before this one are tested (ahead.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import test_vm
from tests.vm.ahead import Ahead

HERE = Path(__file__).parent


def pytest_collection_finish(session: pytest.Session) -> None:
    """Start the machines of the chosen tests, if there is something else to do meanwhile."""
    ours = [item for item in session.items if item.path.parent == HERE]
    if not ours or len(ours) == len(session.items) or session.config.getoption("collectonly"):
        return
    jobs = test_vm.commands([item.name for item in ours])
    if not jobs:
        return
    test_vm.ahead = Ahead(jobs, test_vm.REPOSITORY)
    session.config.add_cleanup(test_vm.ahead.close)
