"""pytest plugin for the machine: keep only what the host could not run, and a few tests of every kind.

A test takes 10 to 20 times as long here, so the machine runs what it is there for: tests with a gate that is closed on the
host (--gates, patterns of `needs` markers), those named by --smoke (patterns of test names), and whole files (--whole).
"""

from __future__ import annotations

import fnmatch

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the lists."""
    parser.addoption("--gates", default="", help="keep tests that need one of these, by commas")
    parser.addoption("--smoke", default="", help="keep tests of these names too, by commas")
    parser.addoption("--whole", default="", help="keep all tests of these files, by commas")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect everything else."""
    gates = [pattern for pattern in config.getoption("--gates").split(",") if pattern]
    names = [pattern for pattern in config.getoption("--smoke").split(",") if pattern]
    files = [pattern for pattern in config.getoption("--whole").split(",") if pattern]
    if not gates and not names:
        return
    kept: list[pytest.Item] = []
    dropped: list[pytest.Item] = []
    for item in items:
        needs = [gate for marker in item.iter_markers("needs") for gate in marker.args]
        wanted = any(fnmatch.fnmatch(gate, pattern) for gate in needs for pattern in gates)
        wanted = wanted or any(fnmatch.fnmatch(item.name, pattern) for pattern in names)
        wanted = wanted or any(fnmatch.fnmatch(item.nodeid, f"{pattern}::*") for pattern in files)
        (kept if wanted else dropped).append(item)
    items[:] = kept
    config.hook.pytest_deselected(items=dropped)
