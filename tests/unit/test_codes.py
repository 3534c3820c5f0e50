"""The codes of errors: one for each kind, the path and the errno out of the text."""

from __future__ import annotations

import json

import pytest

from anocir import errors
from anocir.base import codes, log

pytestmark = pytest.mark.unit

CASES = [
    ("container does not exist", "", {"code": "container-not-found"}),
    ("container with given ID already exists", "", {"code": "container-exists"}),
    ("container not running", "", {"code": "container-stopped"}),
    ("cannot exec in a stopped container", "", {"code": "container-stopped"}),
    ("container not paused", "", {"code": "container-not-paused"}),
    ("cannot delete container a that is not stopped: running", "", {"code": "container-not-stopped"}),
    ('exec: "x": executable file not found in $PATH', "", {"code": "program-not-found"}),
    ('exec failed: exec: "/x": stat /x: no such file or directory', "",
     {"code": "program-not-found", "errno": "ENOENT"}),
    ('exec: "/x": permission denied', "", {"code": "program-failed", "errno": "EACCES"}),
    ("mounts[3].source: a bind mount needs a source", "",
     {"code": "configuration", "path": "mounts[3].source"}),
    ('linux.sysctl["net.a:b"]: sysctl "net.a:b" not allowed in host network namespace', "",
     {"code": "configuration", "path": 'linux.sysctl["net.a:b"]'}),
    (errors.keyed("annotations", 'a"b: \\') + ": must be so", "",
     {"code": "configuration", "path": 'annotations["a\\"b: \\\\"]'}),
    ('mounts[0]: error mounting "a" to rootfs at "/b": operation not permitted', "",
     {"code": "mount-failed", "path": "mounts[0]", "errno": "EPERM"}),
    ("error running prestart hook #0: exit status 1", "", {"code": "hook-failed"}),
    ("--root: must not be empty", "", {"code": "usage"}),
    ("create: flag provided but not defined: --x", "see --help",
     {"code": "usage", "hint": "see --help"}),
    ("unshare namespaces: invalid argument", "time namespaces need Linux 5.6",
     {"code": "failed", "errno": "EINVAL", "hint": "time namespaces need Linux 5.6"}),
    ("recursive mount options need it", "this needs Linux 5.12", {"code": "not-supported",
                                                                  "hint": "this needs Linux 5.12"}),
    ("/run/x: permission denied", "", {"code": "not-permitted", "errno": "EACCES"}),
    ("bug in anocir: KeyError: 'x' (a.py:3)", "", {"code": "bug"}),
    ("container init was OOM-killed (memory limit too low?): init died", "",
     {"code": "out-of-memory"}),
    ("something: else", "", {"code": "failed"}),
    ("exec /x: no such file or directory (its interpreter /y is missing)", "",
     {"code": "failed", "errno": "ENOENT"}),
]  # fmt: skip


@pytest.mark.parametrize(("text", "hint", "expected"), CASES, ids=[text for text, _, _ in CASES])
def test_an_error_has_its_code(monkeypatch, text: str, hint: str, expected: dict) -> None:
    monkeypatch.setattr(errors, "scope", ["", "", ""])
    assert codes.of(text, hint) == expected


def test_the_step_at_work_is_told(monkeypatch) -> None:
    monkeypatch.setattr(errors, "scope", ["create", "cgroup", "linux.resources"])
    assert codes.of("x")["step"] == "cgroup"


def test_every_text_that_engines_match_has_a_code_of_its_own() -> None:
    for key, text in errors.CONTRACT.items():
        if key in ("exec failed", "exec"):
            continue
        shown = text.format(
            id="a", status="b", name="c", reason="d", source="e", destination="f", path="g"
        )
        assert codes.of(shown)["code"] != "failed", key


def test_the_line_stays_one_that_engines_read(monkeypatch, tmp_path) -> None:
    path = tmp_path / "log"
    monkeypatch.setattr(log, "_fd", -1)
    log.open(str(path), "json", log.ERROR)
    try:
        log.error("mounts[3].source: a bind mount needs a source", "name one")
    finally:
        monkeypatch.setattr(log, "_json", False)
    lines = path.read_text().splitlines()
    assert len(lines) == 1
    row = json.loads(lines[0])
    assert list(row)[:3] == ["level", "msg", "time"]
    assert row["msg"] == "mounts[3].source: a bind mount needs a source (name one)"
    assert (row["code"], row["path"], row["hint"]) == (
        "configuration",
        "mounts[3].source",
        "name one",
    )


def test_the_readme_has_every_code() -> None:
    import pathlib

    readme = (pathlib.Path(__file__).resolve().parents[2] / "README.md").read_text()
    known = {code for code, _ in codes._TEXTS} | {
        "configuration",
        "not-permitted",
        "failed",
        "program-failed",
    }
    assert not [code for code in known if f"`{code}`" not in readme]
