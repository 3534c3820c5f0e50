"""Which command lines start init before they are read."""

from __future__ import annotations

import posix
from pathlib import Path

import pytest

from anocir import __main__ as first
from anocir import cli

COMMANDS = Path(first.__file__).parent / "commands"


def test_the_words_are_those_of_the_parser() -> None:
    assert set(first._VALUED) == {row[0] for row in cli.GLOBALS if row[2] != "flag"}, (
        "anocir/__main__.py, _VALUED: the global options of cli.GLOBALS that take a value"
    )
    with_init = {path.stem for path in COMMANDS.glob("*.py") if "launch.ahead(" in path.read_text()}
    assert set(first._WITH_INIT) == with_init == {"create", "exec", "run"}, (
        "anocir/__main__.py, _WITH_INIT: the commands that call launch.ahead"
    )


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("create one", True),
        ("run -b /bundle one", True),
        ("exec one sh -c true", True),
        ("--root /r --log=/l --debug create --bundle /b one", True),
        ("-root /r --systemd-cgroup exec one ls", True),
        ("--root=/r --log /l --log-format json run one", True),
        ("", False),
        ("state create", False),
        ("kill exec 9", False),
        ("--root create state one", False),
        ("--log run delete one", False),
        ("--version", False),
        # these change how init is started, or that it is
        ("create --preserve-fds 2 one", False),
        ("exec --preserve-fds=1 one ls", False),
        ("--trace /t create one", False),
        ("--trace=/t run one", False),
        ("run --help", False),
    ],
)
def test_only_what_needs_init_starts_it_early(line: str, expected: bool, monkeypatch) -> None:
    monkeypatch.delitem(posix.environ, b"LISTEN_FDS", raising=False)
    assert first._needs_init(line.split()) == expected


def test_descriptors_of_a_service_manager_are_counted_first(monkeypatch) -> None:
    monkeypatch.setitem(posix.environ, b"LISTEN_FDS", b"1")
    assert not first._needs_init(["create", "one"])
