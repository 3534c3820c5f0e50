"""A short form of each row of the reliability table, for every run of the tests.

The full figures come from measure.py (200 kills, the whole enumeration) and fuzz.py (10,000 cases). Each case runs
in a process of its own, since it takes a private mount namespace and makes itself a subreaper.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
RUNTIME = os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir")

pytestmark = [
    pytest.mark.reliability,
    pytest.mark.timeout(2500),  # half a minute each on a quiet machine
    pytest.mark.skipif(os.geteuid() != 0, reason="[root] this machine has not given us root"),
    pytest.mark.xfail(
        not os.path.basename(RUNTIME).startswith("anocir"),
        reason="the figures are what anocir promises; others are measured by measure.py",
        strict=False,
    ),
]


def measured(tmp_path, *options: str) -> dict[str, dict[str, Any]]:
    """Rows of measure.py for the runtime under test; fails with its report if anything is not 0."""
    done = subprocess.run(
        [
            sys.executable,
            os.path.join(HERE, "measure.py"),
            "--save",
            str(tmp_path),
            *options,
            RUNTIME,
        ],
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=2400,
    )
    assert done.returncode == 0, done.stdout[-6000:]
    with open(tmp_path / "results.json") as stream:
        rows: dict[str, dict[str, Any]] = next(iter(json.load(stream)["rows"].values()))
    for row in rows.values():
        if "skipped" in row:
            pytest.skip(f"[strace] this machine has not {row['examples']}")
    return rows


@pytest.mark.parametrize("command", ["create", "start", "exec", "delete"])
def test_a_killed_runtime_leaves_nothing_that_delete_force_does_not_remove(command, tmp_path):
    rows = measured(tmp_path, "--steps=kill", "--kills=25", f"--commands={command}")
    assert rows[f"{command} killed at random"]["in time"] >= 5


@pytest.mark.parametrize("command", ["create", "start", "exec", "delete", "run"])
def test_a_command_killed_or_failing_at_any_system_call_leaves_nothing(command, tmp_path):
    rows = measured(tmp_path, "--steps=inject", "--every=13", f"--commands={command}")
    assert sum(row["hit"] for row in rows.values()) >= 10


@pytest.mark.parametrize("command", ["update-device", "mounts-add", "exec-tools", "run-record"])
def test_what_goes_into_a_container_and_is_killed_or_fails_leaves_nothing(command, tmp_path):
    every = 23 if command in ("update-device", "mounts-add") else 83
    steps = "--steps=inject,inject-init"
    rows = measured(tmp_path, steps, f"--every={every}", f"--commands={command}")
    assert sum(row["hit"] for row in rows.values()) >= 10


@pytest.mark.needs("criu")
@pytest.mark.parametrize("command", ["checkpoint", "restore"])
def test_a_checkpoint_or_restore_killed_or_failing_leaves_nothing(command, tmp_path):
    """A checkpoint that fails leaves the container running. CRIU itself cannot be traced: it traces."""
    rows = measured(tmp_path, "--steps=inject", "--every=151", f"--commands={command}")
    assert sum(row["hit"] for row in rows.values()) >= 4


@pytest.mark.parametrize("command", ["create", "start", "exec", "run"])
def test_an_init_killed_or_failing_at_any_system_call_leaves_nothing(command, tmp_path):
    # Init has done all but a few calls when it is told to start.
    every = 1 if command == "start" else 23
    rows = measured(tmp_path, "--steps=inject-init", f"--every={every}", f"--commands={command}")
    assert sum(row["hit"] for row in rows.values()) >= 1


def test_of_five_creates_of_one_id_exactly_one_succeeds(tmp_path):
    measured(tmp_path, "--steps=race", "--rounds=15")


def test_a_hundred_creates_at_once_all_succeed_and_leave_nothing(tmp_path):
    measured(tmp_path, "--steps=many")


def test_many_containers_are_listed_whole_and_leave_nothing(tmp_path):
    measured(tmp_path, "--steps=list", "--list=300")


def test_runs_in_a_row_leak_nothing(tmp_path):
    measured(tmp_path, "--steps=runs", "--runs=100")


def test_a_container_with_damaged_state_is_deleted_whole_and_hurts_no_other(tmp_path):
    measured(tmp_path, "--steps=damage")


def test_a_full_disk_makes_create_fail_and_nothing_else(tmp_path):
    measured(tmp_path, "--steps=disk")


def test_mutated_configurations_are_answered_in_one_line_and_leave_nothing(tmp_path):
    measured(tmp_path, "--steps=fuzz", "--cases=500")
