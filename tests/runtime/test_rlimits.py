"""Resource limits (config.md, "POSIX process"; getrlimit(2))."""

from __future__ import annotations

import os
import resource
from typing import Any

import pytest

from tests import drive
from tests.drive import Container

pytestmark = pytest.mark.needs("compiler")

NUMBERS = {
    "RLIMIT_CPU": 0,
    "RLIMIT_FSIZE": 1,
    "RLIMIT_DATA": 2,
    "RLIMIT_STACK": 3,
    "RLIMIT_CORE": 4,
    "RLIMIT_RSS": 5,
    "RLIMIT_NPROC": 6,
    "RLIMIT_NOFILE": 7,
    "RLIMIT_MEMLOCK": 8,
    "RLIMIT_AS": 9,
    "RLIMIT_LOCKS": 10,
    "RLIMIT_SIGPENDING": 11,
    "RLIMIT_MSGQUEUE": 12,
    "RLIMIT_NICE": 13,
    "RLIMIT_RTPRIO": 14,
    "RLIMIT_RTTIME": 15,
}
GIB = 1 << 30


def limits(container: Container) -> dict[int, tuple[int, int]]:
    """Every limit of the program: number to (soft, hard)."""
    container.process["args"] = ["/bin/probe", "rlimits"]
    rows = [line.split() for line in container.run().splitlines()]
    return {int(number): (int(soft), int(hard)) for number, soft, hard in rows}


def limit(name: str, soft: Any, hard: Any) -> dict[str, Any]:
    """One entry of rlimits."""
    return {"type": name, "soft": soft, "hard": hard}


@pytest.mark.parametrize("name", sorted(NUMBERS))
def test_a_limit_is_set_soft_and_hard(container: Container, name: str) -> None:
    hard = resource.getrlimit(NUMBERS[name])[1]
    top = hard if 0 <= hard < 2 * GIB else 2 * GIB
    soft = top // 2
    container.process["rlimits"] = [limit(name, soft, top)]
    assert limits(container)[NUMBERS[name]] == (soft, top)


def test_many_limits_are_set_at_once(container: Container) -> None:
    wanted = [
        limit("RLIMIT_AS", 1 * GIB, 2 * GIB),
        limit("RLIMIT_CORE", 3 * GIB, 4 * GIB),
        limit("RLIMIT_DATA", 5 * GIB, 6 * GIB),
        limit("RLIMIT_FSIZE", 7 * GIB, 8 * GIB),
        limit("RLIMIT_STACK", 9 * GIB, 10 * GIB),
        limit("RLIMIT_CPU", 60, 120),
        limit("RLIMIT_NOFILE", 3000, 4000),
    ]
    container.process["rlimits"] = wanted
    found = limits(container)
    for entry in wanted:
        assert found[NUMBERS[entry["type"]]] == (entry["soft"], entry["hard"]), entry["type"]


def test_a_limit_that_is_not_configured_is_inherited(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "rlimits"]
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    script = 'ulimit -S -n 777; ulimit -c 0; exec "$@"'
    lines = drive.call(["sh", "-c", script, "sh", *command]).stdout.splitlines()
    assert lines[7].split()[1] == "777"
    assert lines[4].split()[1] == "0"


def test_unlimited_is_the_largest_number(container: Container) -> None:
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    assert hard == resource.RLIM_INFINITY
    container.process["rlimits"] = [limit("RLIMIT_FSIZE", 2**64 - 1, 2**64 - 1)]
    assert limits(container)[1] == (2**64 - 1, 2**64 - 1)


@pytest.mark.parametrize("name", ["RLIMIT_TEST", "NOFILE", "rlimit_nofile", ""])
def test_an_unknown_limit_is_refused(container: Container, name: str) -> None:
    container.process["rlimits"] = [limit(name, 1, 1)]
    container.refused()


def test_a_limit_twice_is_refused(container: Container) -> None:
    container.process["rlimits"] = [
        limit("RLIMIT_NOFILE", 100, 200),
        limit("RLIMIT_NOFILE", 300, 400),
    ]
    container.refused()


def test_a_soft_limit_above_the_hard_one_is_refused(container: Container) -> None:
    container.process["rlimits"] = [limit("RLIMIT_NOFILE", 200, 100)]
    container.cannot_run("true")


@pytest.mark.parametrize("value", [-1, 1.5, "100", 2**64, None, True])
def test_a_value_that_is_no_unsigned_number_is_refused(container: Container, value: Any) -> None:
    container.process["rlimits"] = [limit("RLIMIT_NOFILE", value, 100)]
    container.refused()


def test_a_small_limit_does_not_hinder_the_runtime_itself(container: Container) -> None:
    container.process["rlimits"] = [
        limit("RLIMIT_NOFILE", 4, 4),
        limit("RLIMIT_AS", 64 << 20, 64 << 20),
        limit("RLIMIT_DATA", 32 << 20, 32 << 20),
    ]
    assert limits(container)[7] == (4, 4)


def test_a_limit_of_one_process_does_not_hinder_another_user(container: Container) -> None:
    nobodys = 300000 + os.getpid()  # the kernel counts the processes of a user
    container.process["user"] = {"uid": nobodys, "gid": nobodys}
    container.process["rlimits"] = [limit("RLIMIT_NPROC", 1, 1)]
    assert limits(container)[6] == (1, 1)


@pytest.mark.needs("sys_resource")
def test_a_hard_limit_can_be_raised_with_the_right_capability(container: Container) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    container.process["rlimits"] = [limit("RLIMIT_NOFILE", hard + 1, hard + 1)]
    assert limits(container)[7] == (hard + 1, hard + 1)


def test_limits_hold_for_exec_as_well(container: Container) -> None:
    container.process["rlimits"] = [limit("RLIMIT_NOFILE", 300, 400)]
    container.launch("sleep 100")
    lines = container.exec("/bin/probe", "rlimits").stdout.splitlines()
    assert lines[7] == "7 300 400"
