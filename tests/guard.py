"""A plugin of pytest: the host (host.py) is looked at after each test and each file, and at the end of the run; after
pure code only after each file, since a look takes longer than such a test.

A difference fails the run, unless other runs are at work on this machine; with CI=true or --host-guard=strict always.
"""

from __future__ import annotations

import os
from typing import Any, Iterator

import pytest

from tests.host import ALL, QUICK, Guard

KEY = pytest.StashKey["Guard | None"]()
PURE = ("tests/unit/", "tests/repo/")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --host-guard."""
    parser.addoption(
        "--host-guard",
        choices=("auto", "strict", "off"),
        default="auto",
        help="a host that is not as it was before fails the run [auto: unless other runs are at work]",
    )


def _strict(config: pytest.Config) -> bool:
    return config.getoption("--host-guard") == "strict" or os.environ.get("CI") == "true"


def pytest_sessionstart(session: pytest.Session) -> None:
    """Look at the host before the first test."""
    config = session.config
    config.stash[KEY] = None
    if config.getoption("--host-guard") != "off" and not config.getoption("collectonly"):
        config.stash[KEY] = Guard("pytest " + " ".join(config.invocation_params.args))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[Any]:
    """Look after each test, and whole after each file."""
    result = yield
    guard = item.config.stash[KEY]
    if guard is not None:
        strict = _strict(item.config)
        if nextitem is None or nextitem.path != item.path:
            guard.check(f"{item.nodeid}, or one before it in its file", ALL, strict)
        elif not item.nodeid.startswith(PURE):
            guard.check(item.nodeid, QUICK, strict)
    return result


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Look for the last time, and fail the run for what was found."""
    guard = session.config.stash.get(KEY, None)
    if guard is None:
        return
    guard.check("the end of the run", ALL, _strict(session.config))
    guard.close()
    if guard.failed and session.exitstatus in (0, 5):
        session.exitstatus = 1


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say what was changed, by whom."""
    guard = config.stash.get(KEY, None)
    if guard is not None and guard.found:
        terminalreporter.section("the host is not as it was")
        for line in guard.found:
            terminalreporter.write_line(line, red=guard.failed)
