"""What is new for users has a test, a line in the changelog, and one in the README or on the man page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any, Iterator

import pytest

from anocir import cli, manual
from anocir.host.facts import CRUN_ANNOTATIONS
from anocir.model import mountoptions
from anocir.model.spec.kinds import array, mapping, record
from anocir.model.spec.whole import CONFIG
from tests.repo.test_layers import MODULES

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo
CHANGELOG = (TOP / "CHANGELOG.md").read_text()
TESTS = "\n".join(
    path.read_text()
    for path in (TOP / "tests").rglob("*.py")
    if path.name not in ("test_new_words.py", "test_manual.py")
)
ALL_TESTS = TESTS + (TOP / "tests/unit/test_manual.py").read_text()
# What runc main has, of which the changelog says "with runc's options"; all others are ours or crun's.
OF_RUNC = {
    "": "root log log-format debug systemd-cgroup rootless criu",
    "create": "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds",
    "run": "bundle console-socket pidfd-socket pid-file no-pivot no-new-keyring preserve-fds detach keep no-subreaper",
    "exec": "console-socket pidfd-socket cwd env tty user additional-gids process detach pid-file process-label apparmor "
    "no-new-privs cap preserve-fds cgroup ignore-paused",
    "kill": "all", "delete": "force", "list": "format quiet", "ps": "format", "events": "interval stats",
    "spec": "bundle rootless",
    "update": "resources blkio-weight cpu-period cpu-quota cpu-burst cpu-share cpu-rt-period cpu-rt-runtime cpuset-cpus "
    "cpuset-mems memory memory-reservation memory-swap pids-limit l3-cache-schema mem-bw-schema cpu-idle kernel-memory "
    "kernel-memory-tcp",
}  # fmt: skip
# Of its commands; one of our own is told of with its options.
RUNCS = {*OF_RUNC, "start", "state", "pause", "resume", "features", "checkpoint", "restore"}
# "with all of runc's options", says the changelog.
WHOLE = ("checkpoint", "restore")


def options() -> Iterator[tuple[str, str]]:
    for row in manual.visible(cli.GLOBALS):
        yield "", row[0]
    for name in cli.COMMANDS:
        for row in manual.visible(cli.load(name).OPTIONS):
            yield name, row[0]


def keys(kind: Any, seen: set[str]) -> Iterator[str]:
    """Every property of config.json that the checks know."""
    check, argument = kind
    if check is record:
        table = argument[0] if isinstance(argument, tuple) else argument
        for name, inner in table.items():
            if isinstance(name, str) and isinstance(inner, tuple) and name not in seen:
                yield name
                seen.add(name)
                yield from keys(inner, seen)
    elif check in (array, mapping) and isinstance(argument, tuple):
        yield from keys(argument if callable(argument[0]) else argument[-1], seen)


def test_a_command_is_told_and_tried() -> None:
    page = manual.man("2026-01-01")
    for name in cli.COMMANDS:
        assert re.search(rf"`(anocir )?{name}\b", CHANGELOG), f"{name} is not in CHANGELOG.md"
        assert f".SS {name} " in page, f"{name} is not on the man page: manual.GROUPS"
        assert re.search(rf"[\"'(]{name}[\"']|manual\.{name}\(", ALL_TESTS), f"{name} is in no test"


def untried() -> list[str]:
    return [
        f"{command} --{name}"
        for command, name in options()
        if not re.search(rf"--{name}\b|[\"']{name.replace('-', '[-_]')}[\"']", TESTS)
    ]


def untold() -> list[str]:
    page = manual.man("2026-01-01")
    found = []
    for command, name in options():
        runcs = command in WHOLE or name in OF_RUNC.get(command, "").split()
        whole = command and command not in RUNCS and re.search(rf"`{command}\b", CHANGELOG)
        told = runcs or whole or re.search(rf"--{name}\b", CHANGELOG)
        if not told or f"--{name}".replace("-", "\\-") not in page:
            found.append(f"{command} --{name}")
    return found


def test_an_option_is_told_and_tried() -> None:
    assert untried() == [], "in no test"
    assert untold() == [], "neither runc's (OF_RUNC) nor in CHANGELOG.md, or not on the man page"


def unknown_to_tests() -> list[str]:
    found = list(keys((record, CONFIG), set()))
    assert len(found) > 100, found
    return [name for name in found if not re.search(rf"\b{name}\b", TESTS)]


def test_a_property_of_config_json_is_tried() -> None:
    assert unknown_to_tests() == [], "keys of config.json that no test has"


def annotations() -> set[str]:
    """Every annotation that the sources read: words of theirs that look like one."""
    looks = re.compile(r"(run\.oci|org\.(?!freedesktop)\w+)\.[\w.-]+")
    found = {
        node.value
        for name, path in MODULES.items()
        if name not in ("manual", "commands.features")  # those list them
        for node in ast.walk(ast.parse(path.read_bytes()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if looks.fullmatch(node.value)
    }
    families = tuple(name for name in found if name.endswith("."))
    return {name for name in found if name in families or not name.startswith(families)}


def test_an_annotation_that_means_something_is_told_and_tried() -> None:
    found = annotations()
    assert {*CRUN_ANNOTATIONS, "org.criu.config", "org.systemd.property."} <= found
    told = "\n".join(name for name, _ in manual._ANNOTATIONS)
    for name in found:
        short = name.rpartition(".")[2] or name
        assert name in TESTS or f'"{short}"' in TESTS, f"{name} is in no test"
        assert short in CHANGELOG or name in CHANGELOG, f"{name} is not in CHANGELOG.md"
        assert name in told, f"{name} is not on the man page: manual._ANNOTATIONS"
    for name in told.splitlines():
        assert name.replace("NAME", "") in found, f"manual._ANNOTATIONS: nobody reads {name}"


def test_a_mount_option_beyond_those_of_mount_is_told_and_tried() -> None:
    told = re.findall(r"[\w-]+", " ".join(name for name, _ in manual._MOUNT_OPTIONS))
    of_mount = {"bind", "rbind", "remount", "defaults"}
    for name in {*mountoptions.OTHER} - of_mount:
        assert re.search(rf"[\"']{name}[\"'=]", TESTS), f"{name} is in no test"
        assert f"`{name}`" in CHANGELOG, f"{name} is not in CHANGELOG.md"
        assert name in told, f"{name} is not on the man page: manual._MOUNT_OPTIONS"


def test_a_new_word_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    row = ("zyx-option", "", "flag", False, "", "help")
    monkeypatch.setattr(cli.load("state"), "OPTIONS", (row,))
    monkeypatch.setitem(CONFIG[0], "zyxProperty", (record, ({}, (), None)))
    assert untried() == untold() == ["state --zyx-option"]
    assert unknown_to_tests() == ["zyxProperty"]
