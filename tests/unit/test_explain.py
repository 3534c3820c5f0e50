"""`explain`: every step has its sentence, and the plans of usual configurations read as reviewed.

After a change that is meant: `python -m tests.unit.test_explain --update`, and look at the difference.
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path

import pytest

from anocir.inside import init
from anocir.model import entering, explain
from tests.unit.test_plan import GOLDEN, NAMES, compiled, facts_for, load

pytestmark = pytest.mark.unit

REVIEWED = ("docker", "podman", "rootless")
HOST = ["write state below /run/anocir/ID"]


def test_every_step_has_a_sentence_and_no_sentence_is_left_over() -> None:
    assert set(explain.TABLE) == set(init.STEPS), "explain.TABLE: a row for each step of init.STEPS"


def plans() -> list[tuple[str, dict]]:
    made = [(name, compiled(load(name))) for name in NAMES]
    for name in NAMES:
        config = load(name)
        if config.get("process"):
            join = [("pid", "/proc/1/ns/pid"), ("mount", "/proc/1/ns/mnt")]
            facts = facts_for(config, join=join)
            made.append((f"{name}, exec", entering.compile_exec(config, config["process"], facts)))
    return made


PLANS = plans()


@pytest.mark.parametrize(("name", "made"), PLANS, ids=[name for name, _ in PLANS])
def test_every_step_of_a_plan_can_be_called_with_its_values(name: str, made: dict) -> None:
    for phase in init.PHASES:
        for step, path, *values in made[phase]:
            assert isinstance(path, str)
            inspect.signature(init.STEPS[step]).bind(None, *values)


@pytest.mark.parametrize(("name", "made"), PLANS, ids=[name for name, _ in PLANS])
def test_every_plan_can_be_told(name: str, made: dict) -> None:
    rows = explain.rows(made)
    steps = [row["step"] for row in rows]
    wanted = [step[0] for phase in ("prepare", "setup", "launch") for step in made[phase]]
    assert steps == wanted + (["execve"] if made["process"] else [])
    assert all(row["what"] and row["rights"] for row in rows)
    assert all(row["calls"] for row in rows if row["step"] != "no_process")


def test_rights_only_shrink_once_they_are_taken() -> None:
    rows = explain.rows(compiled(load("docker")))
    rights = [row["rights"] for row in rows]
    assert rights[0] == "the caller's"
    last = rows[-1]
    assert last["step"] == "execve" and last["rights"].startswith("permitted: ")
    seen: list[str] = []
    for each in rights:
        if not seen or seen[-1] != each:
            assert each not in seen, "a right that came back"
            seen.append(each)


def told(name: str) -> str:
    return explain.text(compiled(load(name)), HOST)


@pytest.mark.parametrize("name", [name for name in REVIEWED if name in NAMES])
def test_it_reads_as_reviewed(name: str) -> None:
    assert told(name) == (GOLDEN / f"{name}.explained").read_text(), "see the top of this file"


def test_as_a_document_it_is_json() -> None:
    assert json.loads(json.dumps(explain.rows(compiled(load("spec")))))


if __name__ == "__main__" and "--update" in sys.argv:
    for golden in REVIEWED:
        if golden in NAMES:
            Path(GOLDEN / f"{golden}.explained").write_text(told(golden))
