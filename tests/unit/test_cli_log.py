"""What reaches stderr and the log file, and when."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from anocir.base import log

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
    assert log.wants(log.WARNING)
    assert not log.wants(log.DEBUG)


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
    if "\udcff" not in text:
        assert entry["msg"] == text


def test_the_log_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("before\n")
    log.open(str(path), "text", log.ERROR)
    log.error("after")
    first, second = path.read_text().splitlines()
    assert first == "before"
    assert second.endswith(' level=error msg="after"')
