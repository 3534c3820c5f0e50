"""What musl does otherwise than glibc, shown with either.

musl keeps signal 34 for itself too, refuses it where it is named, has functions around the scheduler that only fail, and
words of its own for errors; an interpreter that is linked with it offers no extended attributes.
"""

from __future__ import annotations

import _signal
import errno
import importlib.util
import os
import platform
import posix
import signal
from types import ModuleType
from typing import NoReturn

import pytest

from anocir import errors
from anocir.host import foreground
from anocir.inside import init, process
from anocir.commands import kill
from anocir.linux import spawn
from tests.kernel import child

pytestmark = pytest.mark.kernel

EVERY = range(1, 65)


def again(module: ModuleType) -> ModuleType:
    """Execute a module once more, below another name of the same package."""
    assert module.__file__
    spec = importlib.util.spec_from_file_location(module.__name__ + "_again", module.__file__)
    assert spec and spec.loader
    copy = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(copy)
    return copy


def test_only_signals_are_named_that_the_c_library_lets_a_program_name() -> None:
    valid = {int(number) for number in signal.valid_signals()}
    assert list(spawn.RESERVED) == [number for number in EVERY if number not in valid]
    assert set(spawn.ALL_SIGNALS) == valid - {signal.SIGKILL, signal.SIGSTOP}
    assert valid.issuperset(foreground._FORWARDED)


def test_with_musl_34_is_reserved_too(monkeypatch) -> None:
    monkeypatch.setattr(_signal, "SIGRTMIN", 35)
    altered = again(spawn)
    assert list(altered.RESERVED) == [32, 33, 34]
    assert 34 not in altered.ALL_SIGNALS and 35 in altered.ALL_SIGNALS
    monkeypatch.setattr(spawn, "RESERVED", altered.RESERVED)
    assert 34 not in again(foreground)._FORWARDED


@pytest.mark.parametrize("least", [34, 35])
@pytest.mark.parametrize(("name", "number"), [("RTMIN", 34), ("SIGRTMIN+3", 37), ("RTMIN+30", 64)])
def test_names_of_signals_do_not_depend_on_it(
    monkeypatch, least: int, name: str, number: int
) -> None:
    monkeypatch.setattr(_signal, "SIGRTMIN", least)
    assert kill.signal_number(name) == number


def lacking(*_: object) -> NoReturn:
    raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))


@pytest.mark.parametrize("has_functions", [True, False])
@pytest.mark.parametrize("policy", [os.SCHED_BATCH, os.SCHED_IDLE])
def test_the_scheduler_of_the_caller_is_given_up(
    monkeypatch, policy: int, has_functions: bool
) -> None:
    if not has_functions:
        monkeypatch.setattr(posix, "sched_getscheduler", lacking)
        monkeypatch.setattr(posix, "sched_setscheduler", lacking)

    def action() -> tuple[int, int, int]:
        nice = os.nice(1)
        process.oneself.sched_setattr(policy, 0, nice, 0, 0, 0, 0)
        process.reset_affinity()
        with open("/proc/self/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return nice, int(fields[16]), int(fields[38])  # nice and policy of proc_pid_stat(5)

    before, nice, found = child.run(action)
    assert found == os.SCHED_OTHER
    assert nice == before


def test_what_fails_before_the_first_step_says_where(monkeypatch) -> None:
    monkeypatch.setattr(errors, "scope", ["", "", ""])
    monkeypatch.setattr(init, "scope", errors.scope)
    assert init._text(None, OSError(errno.ENOSYS, "x")) == "starting: function not implemented"


@pytest.mark.parametrize("number", sorted(errors.WORDS))
def test_errors_are_worded_as_by_glibc(monkeypatch, number: int) -> None:
    if platform.libc_ver()[0] == "glibc":
        assert errors.WORDS[number] == os.strerror(number).lower()
    monkeypatch.setattr(posix, "strerror", lambda _: "No error information")
    assert errors.strerror(number) == errors.WORDS[number]
