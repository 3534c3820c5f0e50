"""The map of the specification's demands to tests is whole and points at tests that exist."""

from __future__ import annotations

import os
import re

TESTS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FILES = {
    "bundle", "runtime", "runtime-linux", "config", "config-linux", "features", "features-linux"
}  # fmt: skip


def rows() -> list[tuple[str, str, list[str]]]:
    found = []
    with open(os.path.join(TESTS, "specification.md"), encoding="utf-8") as stream:
        for line in stream:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("| ") and cells[0] != "where":
                assert len(cells) == 3, line
                found.append((cells[0], cells[1], cells[2].split("; ")))
    return found


def existing(path: str) -> set[str]:
    with open(os.path.join(TESTS, path), encoding="utf-8") as stream:
        return set(re.findall(r"^def (test_\w+)\(", stream.read(), re.MULTILINE))


def test_every_demand_has_tests_and_all_of_them_exist() -> None:
    known: dict[str, set[str]] = {}
    missing = []
    for _, _, tests in rows():
        for name in tests:
            path, _, test = name.partition("::")
            path = path if "/" in path else f"runtime/{path}"
            if test not in known.setdefault(path, existing(path)):
                missing.append(name)
    assert not missing, "tests/specification.md names tests that are not there"


def test_the_map_has_every_file_and_says_each_thing_once() -> None:
    found = rows()
    assert {where.partition(":")[0] for where, _, _ in found} == FILES, "specification.md and FILES"
    once = {(where, what) for where, what, _ in found}
    assert len(once) == len(found) > 100, (
        "tests/specification.md says something twice, or lost rows"
    )
