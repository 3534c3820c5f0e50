"""A few hundred random configurations with a fixed seed, beside the runc of the distribution."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests import drive, machine
from tests.differ import generate, run

HERE = os.path.dirname(os.path.abspath(__file__))
ABLE = generate.Able(
    (1, 3), frozenset(("ro", "rw", "nosuid")), frozenset(("time", "cgroup")), False, frozenset(), 2
)


def seen(**facts: object) -> run.Seen:
    return run.Seen("", dict(facts))


def test_a_case_is_the_same_for_the_same_seed_and_valid() -> None:
    from anocir.model.spec import process, whole

    import random

    for seed in range(300):
        chosen = generate.choose(random.Random(seed))
        first, second = (generate.build(chosen, ABLE, ["/file", "/directory"]) for _ in range(2))
        assert first == second
        whole.check(json.loads(json.dumps(first.config)))
        if first.process is not None:
            process.check(json.loads(json.dumps(first.process)))


def test_features_change_a_case() -> None:
    able = ABLE._replace(options=frozenset(("ro", "tmpcopyup")))
    plain = generate.build([], able, ["/file"])
    for name in generate.FEATURES.keys() - {
        "sysctl"
    }:  # which depends on the namespaces that are there
        changed = [generate.build([(name, seed)], able, ["/file"]) != plain for seed in range(40)]
        assert any(changed), name


def test_a_difference_is_found_and_its_kind_is_free_of_numbers() -> None:
    one = seen(
        **{"call umask": "22", "mount /x1 options": {"ro", "nodev"}, "mount /x1 type": "tmpfs"}
    )
    other = seen(
        **{"call umask": "22", "mount /x1 options": {"ro", "nosuid"}, "mount /x1 type": "tmpfs"}
    )
    found = run.compare(one, other, ("a", "b"))
    assert [each.kind for each in found] == ["mount * [tmpfs] options: +nodev -nosuid"]
    assert run.compare(one, one, ("a", "b")) == []
    low, raised = (seen(**{"limit Max open files": [soft, "1024"]}) for soft in ("64", "1024"))
    for left, right, kind in (
        (low, raised, "limit Max open files: the soft limit of b is the hard one"),
        (raised, low, "limit Max open files: ['N', 'N'] / ['N', 'N']"),
    ):
        assert [each.kind for each in run.compare(left, right, ("a", "b"))] == [kind]
    found = run.compare(run.Seen("mounts[12]: no", {}), one, ("a", "b"))
    assert [each.kind for each in found] == ["refused by a: mounts[N]: no"]
    assert run.compare(run.Seen("x", {}), run.Seen("y", {}), ("a", "b")) == []


def test_every_row_of_the_table_has_a_reason_and_none_takes_all() -> None:
    for other in ("runc", "crun"):
        for pattern, reason in run.read_meant(os.path.join(HERE, "meant.md"), other):
            assert len(reason) > 8 or reason == "the same"
            assert len(pattern.strip("*")) > 8


@pytest.mark.needs("root", "compiler")
@pytest.mark.timeout(180)
def test_random_configurations_are_the_same_to_a_process_as_with_runc() -> None:
    runc = shutil.which("runc", path="/usr/sbin:/usr/bin:/sbin:/bin")
    if not runc:
        pytest.skip("[runc] this machine has no runc to compare with")
    if machine.missing("root"):
        pytest.skip("[root] this machine has not " + machine.missing("root"))
    command = [
        sys.executable, os.path.join(HERE, "run.py"), "--seed", "20261127", "--count", "250", "--seconds", "100", "--whole",
        f"anocir={drive.find_runtime()}", f"runc={runc}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=170)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-1500:]
    assert int(done.stdout.rpartition(" cases, seed")[0].rpartition("\n")[2]) >= 20
