"""`validate` as users call it: every mistake in one go, no privileges, nothing made."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests.drive import Container

pytestmark = pytest.mark.runtime


def validate(container: Container, *words: str, **more) -> subprocess.CompletedProcess[str]:
    """Call it as a user without any rights, from an empty place."""
    return subprocess.run(
        ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", container.runtime.path,
         "--root", "/nowhere/at/all", "validate", *words],
        capture_output=True, text=True, check=False, cwd="/", **more,
    )  # fmt: skip


@pytest.fixture
def box(container: Container) -> Container:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    container.bundle.sh("true")
    return container


def test_a_sound_bundle_is_valid(box: Container) -> None:
    box.bundle.write()
    done = validate(box, "--bundle", box.bundle.path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith(f"{box.bundle.path}/config.json: valid")
    assert not os.path.exists("/nowhere")


def test_all_mistakes_are_told_and_the_status_is_1(box: Container) -> None:
    box.process["cwd"] = "relative"
    box.bundle.config["root"]["path"] = "missing"
    box.bundle.config["linux"]["maskedPath"] = []
    box.bundle.write()
    done = validate(box, "--bundle", box.bundle.path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[0] == 'process.cwd: must be an absolute path, got "relative"'
    assert lines[1].startswith("root.path: invalid rootfs: ")
    assert (
        "warning: linux.maskedPath: unknown property is ignored, did you mean maskedPaths?" in lines
    )
    assert lines[-1].startswith(f"{box.bundle.path}/config.json: 2 mistakes, ")


def test_the_document_is_for_programs(box: Container) -> None:
    box.process["cwd"] = "relative"
    box.bundle.write()
    done = validate(box, "--config", f"{box.bundle.path}/config.json", "--format", "json")
    document = json.loads(done.stdout)
    assert done.returncode == 1 and document["valid"] is False
    assert [row["path"] for row in document["errors"]] == ["process.cwd"]
    assert document["warnings"] == [] or all(row["message"] for row in document["warnings"])


@pytest.mark.parametrize(
    ("option", "text", "path"),
    [
        ("--process", '{"args": ["true"]}', "process.cwd"),
        ("--resources", '{"pids": {"limit": "many"}}', "resources.pids.limit"),
        ("--config", '{"ociVersion": "1.3.0"}', "root"),
    ],
)
def test_parts_come_from_a_file_or_from_standard_input(
    box: Container, option: str, text: str, path: str
) -> None:
    name = box.bundle.outside("part.json", text)
    os.chmod(name, 0o644)
    for words, more in (([option, name], {}), ([option, "-"], {"input": text})):
        done = validate(box, *words, **more)
        assert done.returncode == 1
        assert path in [line.partition(":")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "/no/such/file"], "read /no/such/file: no such file or directory"),
        (["--config", "/dev/zero"], "not a regular file"),
    ],
)
def test_what_cannot_be_read_is_one_line(box: Container, words: list[str], told: str) -> None:
    done = validate(box, *words)
    assert done.returncode == 1 and told in done.stdout.splitlines()[0]


def test_two_sources_are_refused(box: Container) -> None:
    done = validate(box, "--config", "a", "--process", "b")
    assert done.returncode == 1
    assert "--config and --process: only one can be given" in done.stderr
