"""Help, man page and completion come from the tables of the parser: nothing is left out or made up."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from anocir import cli, manual

pytestmark = pytest.mark.unit

COMMANDS = list(cli.COMMANDS)


def options(name: str) -> list[str]:
    return manual.words_of(cli.load(name).OPTIONS)


def test_every_command_is_in_one_group() -> None:
    names = [name for _, group in manual.grouped() for name in group]
    assert sorted(names) == sorted(COMMANDS), "give it a place in manual.GROUPS"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_example_is_one_that_the_parser_takes(name: str) -> None:
    assert name in manual.EXAMPLES, f"give {name} an example in manual.EXAMPLES"
    for line in manual.EXAMPLES[name].splitlines():
        words = line.rpartition("anocir ")[2].partition(" > ")[0].split()
        settings = cli.defaults()
        found, _, _, _ = cli.parse(words, settings)
        assert found == name, f"manual.EXAMPLES: {line} is an example of {found}, not of {name}"


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_has_options_and_an_example(name: str) -> None:
    assert name in manual.EXAMPLES, f"give {name} an example in manual.EXAMPLES"
    text = manual._command_help(name)
    assert [word for word in options(name) if word not in text] == [], "not in the help"
    assert f"example:\n  {manual.EXAMPLES[name]}" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_the_man_page_has_every_option(name: str) -> None:
    page = manual.man("2026-01-01").replace("\\-", "-")
    section = page.partition(f".SS {name} ")[2].partition("\n.SS ")[0].partition("\n.SH ")[0]
    assert section, f"{name} is not on the man page: manual.GROUPS"
    long = [word for word in options(name) if word[:2] == "--"]
    assert [word for word in long if word not in section] == [], "not on the man page"


def test_the_man_page_is_one_that_troff_takes(tmp_path: Path) -> None:
    page = tmp_path / "anocir.8"
    page.write_text(manual.man("2026-01-01"))
    if not any(os.access(f"{d}/groff", os.X_OK) for d in os.environ["PATH"].split(":")):
        pytest.skip("[groff] this machine has not groff")
    done = subprocess.run(
        ["groff", "-man", "-Tutf8", "-ww", "-z", page], capture_output=True, text=True, check=True
    )
    assert done.stderr == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_names_every_command_and_option(shell: str) -> None:
    script = manual.completion(shell)
    for name in COMMANDS:
        assert re.search(rf"\b{name}\b", script), f"{shell} does not complete {name}"
        for word in options(name):
            wanted = f" -l {word[2:]}" if shell == "fish" and word[:2] == "--" else word
            told = wanted in script or (shell == "fish" and f" -s {word[1:]}" in script)
            assert told, f"{shell} does not complete {name} {word}"


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_command_that_wants_a_container_completes_its_id(shell: str) -> None:
    """Those whose first argument the parser checks as an id, but for those that make one."""
    script = manual.completion(shell)
    checked = {
        name
        for name in COMMANDS
        if cli.load(name).ARGS[0] and not getattr(cli.load(name), "NO_ID", False)
    }
    wanted = checked - {"create", "run", "restore"} | {"mounts"}
    if shell == "fish":
        found = set(re.findall(r"_from (\w+)' -a '\(anocir list --quiet", script))
    else:
        branch = re.search(r"\n +(\S+)\)\n +words=\"\$words \$\(anocir ", script)
        assert branch, "manual._WALK has no branch for ids"
        found = set(branch[1].replace("*:", "").split("|"))
    assert found == wanted, "each of these has to have ID in its USAGE, or to be in manual._MAKERS"


def completed(words: list[str], path: str = "") -> list[str]:
    """What bash offers for the last word."""
    code = (
        'eval "$SCRIPT"\n'
        f"COMP_WORDS=({' '.join(repr(word) for word in words)})\n"
        f"COMP_CWORD={len(words) - 1}\n_anocir\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    environment = {"SCRIPT": manual.completion("bash"), "PATH": f"{path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "--norc", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stderr == ""
    return done.stdout.split()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["anocir", "cre"], ["create"]),
        (["anocir", "--log-format", ""], ["text", "json"]),
        (["anocir", "list", "--format", ""], ["table", "json"]),
        (["anocir", "create", "--pid"], ["--pidfd-socket", "--pid-file"]),
        (["anocir", "--root", "/r", "sta"], ["start", "state"]),
        (["anocir", "--ro"], ["--root", "--rootless"]),
    ],
)
def test_bash_completes_commands_options_and_choices(words: list[str], wanted: list[str]) -> None:
    assert completed(words) == wanted


def test_bash_completes_files_and_the_ids_of_containers(tmp_path: Path) -> None:
    fake = tmp_path / "anocir"
    fake.write_text('#!/bin/sh\necho "one two${2:+ $2}" | tr " " "\\n"\n')
    fake.chmod(0o755)
    (tmp_path / "plan.json").touch()
    assert completed(["anocir", "state", "t"], str(tmp_path)) == ["two"]
    assert "/r" in completed(["anocir", "--root", "/r", "kill", ""], str(tmp_path))
    assert completed(["anocir", "exec", "--process", f"{tmp_path}/pl"]) == [f"{tmp_path}/plan.json"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_shell_takes_its_script(shell: str) -> None:
    if not any(os.access(f"{d}/{shell}", os.X_OK) for d in os.environ["PATH"].split(":")):
        pytest.skip(f"[{shell}] this machine has not {shell}")
    done = subprocess.run(
        [shell, "-n"], input=manual.completion(shell), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_colours_are_for_terminals_whose_users_want_them(monkeypatch: pytest.MonkeyPatch) -> None:
    import posix

    monkeypatch.setattr(posix, "isatty", lambda fd: True)
    monkeypatch.setattr(posix, "environ", {b"TERM": b"xterm"})
    assert manual._colour()
    monkeypatch.setattr(posix, "environ", {b"TERM": b"xterm", b"NO_COLOR": b"1"})
    assert not manual._colour()
    monkeypatch.setattr(posix, "environ", {b"TERM": b"dumb"})
    assert not manual._colour()
    monkeypatch.setattr(posix, "isatty", lambda fd: False)
    monkeypatch.setattr(posix, "environ", {b"TERM": b"xterm"})
    assert not manual._colour()
    assert manual._coloured("options:\n  x").startswith("\x1b[1moptions:\x1b[0m")
