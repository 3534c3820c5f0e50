"""The table that ties the conformance suite's names to our tests is complete and points at tests that exist."""

from __future__ import annotations

import ast
import os

from tests.runtime.conformance_map import CONFORMANCE
from tests.runtime.known_differences import KNOWN_DIFFERENCES

HERE = os.path.dirname(os.path.abspath(__file__))


def existing_tests() -> set[str]:
    """FILE::FUNCTION of every test of this tier."""
    found = set()
    for name in os.listdir(HERE):
        if name.startswith("test_") and name.endswith(".py"):
            with open(os.path.join(HERE, name)) as file:
                tree = ast.parse(file.read())
            for node in tree.body:
                if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                    found.add(f"{name}::{node.name}")
    return found


def test_every_name_of_the_suite_has_tests_and_all_of_them_exist() -> None:
    assert len(CONFORMANCE) == 58, "conformance_map.py: the suite has 58 files"
    tests = existing_tests()
    missing = {name: [one for one in ids if one not in tests] for name, ids in CONFORMANCE.items()}
    gone = {name: ids for name, ids in missing.items() if ids}
    assert not gone, "conformance_map.py names tests that are not there"
    assert all(CONFORMANCE.values()), "conformance_map.py: a test for each name"


def test_every_known_difference_names_a_test_that_exists() -> None:
    ids = existing_tests()
    for runtime, table in KNOWN_DIFFERENCES.items():
        files = {one.partition("::")[0] for one in ids}
        strangers = [key for key in table if key.partition("[")[0] not in ids | files]
        assert not strangers, (runtime, strangers)
