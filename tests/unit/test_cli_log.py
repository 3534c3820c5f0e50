"""What reaches stderr and the log file, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anocir import errors
from anocir.base import jsonio, log

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "_fd", -1)
    monkeypatch.setattr(log, "_json", False)
    monkeypatch.setattr(log, "_level", log.ERROR)


def test_warnings_are_silent_unless_they_were_asked_for(capfd: pytest.CaptureFixture[str]) -> None:
    log.open("", "text", log.ERROR)
    log.warn("hush")
    log.info("hush")
    log.debug("hush")
    assert capfd.readouterr().err == ""
    log.open("", "text", log.WARNING)
    log.warn("look")
    log.debug("hush")
    assert capfd.readouterr().err == "anocir: warning: look\n"


def test_a_hint_is_a_second_line_for_people(capfd: pytest.CaptureFixture[str]) -> None:
    log.open("", "text", log.ERROR)
    log.error("mount /proc: operation not permitted", "run anocir check")
    assert capfd.readouterr().err == (
        "anocir: mount /proc: operation not permitted\nanocir: run anocir check\n"
    )


def test_a_hint_is_part_of_the_one_object_in_the_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    log.open(str(path), "json", log.ERROR)
    log.error("no", "do that")
    assert json.loads(path.read_text())["msg"] == "no (do that)"
    assert capfd.readouterr().err == "anocir: no\nanocir: do that\n"


@pytest.mark.parametrize("text", ['a"b\\c', "two\nlines", "tab\t", "\udcff\ud800", "ä\x00\x1b"])
def test_any_text_is_one_line_of_json(tmp_path: Path, text: str) -> None:
    path = tmp_path / "log"
    log.open(str(path), "json", log.DEBUG)
    log.debug(text)
    lines = path.read_bytes().split(b"\n")
    assert len(lines) == 2
    assert lines[1] == b""
    entry = json.loads(lines[0])
    assert list(entry) == ["level", "msg", "time"]
    # Engines print what they read here, so it is escaped twice: for JSON, and for their terminal.
    assert entry["msg"] == errors.shown(text)
    assert entry["msg"].isprintable()


ACTING = {
    "\x1b[31m": "\\x1b[31m", "\x7f": "\\x7f", "\x9b31m": "\\x9b31m", "a\nb\tc\r": "a\\nb\\tc\\r",
    "\u202egnp.exe": "\\u202egnp.exe", "\u2028": "\\u2028", "\x00": "\\x00", "\udc9b": "\\x9b",
    "\U000e0041": "\\U000e0041", "\ufeff": "\\ufeff",
    "häuser 家 🏠 {}[]\\": "häuser 家 🏠 {}[]\\",
}  # fmt: skip


@pytest.mark.parametrize("text", ACTING)
def test_what_acts_on_a_terminal_is_shown_by_its_number(
    text: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert errors.shown(text) == ACTING[text]
    path = tmp_path / "log"
    log.open(str(path), "text", log.ERROR)
    log.error(f"<{text}>", text)
    log.table([text])
    out, err = capfd.readouterr()
    assert err == f"anocir: <{ACTING[text]}>\nanocir: {ACTING[text]}\n"
    assert out == ACTING[text] + "\n"
    assert path.read_text().rstrip("\n").isprintable()


@pytest.mark.parametrize("text", ACTING)
def test_a_document_on_stdout_is_the_same_and_does_not_act(text: str) -> None:
    for indent in (None, 2):
        written = jsonio.dumps({text: [text]}, indent=indent)
        assert written.replace("\n", "").isprintable() or "\U000e0041" in text
        if "\ud800" not in text and "\udc9b" not in text:
            assert json.loads(written) == {text: [text]}


def test_the_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log.open(str(path), "text", log.ERROR)
    log.error("after")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert second.endswith(' level=error msg="after"')
