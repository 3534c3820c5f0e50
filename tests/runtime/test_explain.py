"""`explain` as users call it: the plan of this bundle, and of an exec, with nothing made."""

from __future__ import annotations

import json
import os

import pytest

from tests.drive import Container

pytestmark = pytest.mark.runtime


@pytest.fixture
def box(container: Container) -> Container:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    container.bundle.sh("true")
    container.bundle.write()
    return container


def steps(box: Container, *words: str) -> list[dict]:
    done = box.runtime.bare(
        "--root",
        "/nowhere/at/all",
        "explain",
        "--bundle",
        box.bundle.path,
        "--format",
        "json",
        *words,
    )
    assert not os.path.exists("/nowhere")
    rows = json.loads(done.stdout)["steps"]
    assert all(row["phase"] in ("prepare", "setup", "launch") for row in rows)
    return rows


def test_the_text_ends_with_the_program_and_its_rights(box: Container) -> None:
    done = box.runtime.bare("explain", "--bundle", box.bundle.path)
    assert done.stdout.startswith("host side: ")
    last = done.stdout.splitlines()[-1]
    assert "execute /bin/sh -c true [execve]  # process.args" in last


def test_each_step_has_the_path_that_asked_for_it(box: Container) -> None:
    box.bundle.config["hostname"] = "told"
    box.bundle.config["linux"]["maskedPaths"] = ["/proc/kcore", "/proc/keys"]
    box.bundle.write()
    by_path = {row["path"]: row for row in steps(box)}
    assert by_path["hostname"]["what"] == "set the host name told"
    assert by_path["linux.maskedPaths[1]"]["what"] == "hide /proc/keys"
    assert by_path["process.args"]["calls"] == ["execve"]


def test_the_rights_of_the_program_are_those_of_the_configuration(box: Container) -> None:
    sets = ("bounding", "effective", "permitted", "inheritable", "ambient")
    box.process["capabilities"] = dict.fromkeys(sets, ["CAP_KILL"])
    box.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9]}
    box.bundle.write()
    rows = steps(box)
    assert rows[-1]["rights"] == "permitted: CAP_KILL"
    (user,) = [row for row in rows if row["step"] == "user"]
    assert user["what"] == "become user 7, group 8, groups 9"


def test_an_exec_is_explained_from_its_process_object(box: Container) -> None:
    path = box.bundle.outside("process.json", json.dumps({"args": ["/bin/id"], "cwd": "/tmp"}))
    rows = steps(box, "--process", path)
    assert rows[0]["step"] != "unshare" and rows[-1]["what"] == "execute /bin/id"
    assert any(row["what"].startswith("join namespaces: ") for row in rows)


def test_a_mistake_is_told_as_create_tells_it(box: Container) -> None:
    box.process["cwd"] = "relative"
    box.bundle.write()
    done = box.runtime.bare("explain", "--bundle", box.bundle.path, ok=None)
    assert done.status == 1 and done.stderr.startswith("anocir: process.cwd: must be an absolute")
