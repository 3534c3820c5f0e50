"""Every mistake at once: nothing that create refuses is missed, nothing right is complained about."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from anocir.errors import Error
from anocir.host import validation
from anocir.model import plan
from anocir.model.spec import every, whole
from tests.reliability import fuzz

pytestmark = pytest.mark.unit

GOLDEN = sorted((Path(__file__).resolve().parent / "golden").glob("*.json"))


def paths(what: str, value: object) -> list[str]:
    return [path for path, _ in validation.examine(what, value)[0]]


@pytest.mark.parametrize("path", GOLDEN, ids=lambda path: path.stem)
def test_a_usual_configuration_has_no_mistake_and_is_left_as_it_is(path: Path) -> None:
    config = json.loads(path.read_text())
    before = copy.deepcopy(config)
    assert paths("config", config) == []
    assert config == before


def config() -> dict:
    return json.loads((GOLDEN[0].parent / "spec.json").read_text())


def test_mistakes_of_every_stage_are_told_together() -> None:
    broken = config()
    broken["process"]["cwd"] = "relative"
    broken["process"]["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 2, "hard": 1},
        {"type": "RLIMIT_NOPE"},
    ]
    broken["process"]["capabilities"] = {"bounding": ["CAP_ONE", "CAP_CHOWN", "CAP_TWO"]}
    broken["mounts"] += [
        {"destination": "/a", "type": "bind"},
        {"destination": "/b", "type": "tmpfs", "options": 7},
        {"destination": "/proc/nothing", "type": "tmpfs"},
    ]
    first = len(broken["mounts"]) - 3
    broken["linux"]["resources"] = {"memory": {"swap": 5}, "pids": {"limit": 1.5}}
    broken["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["getpid"], "action": "SCMP_ACT_KILL", "errnoRet": 1},
            {"names": ["getuid"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["getgid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 70000},
        ],
    }
    assert set(paths("config", broken)) == {
        "process.cwd",
        "process.rlimits[0].soft",
        "process.rlimits[1].type",
        "process.rlimits[1].soft",
        "process.rlimits[1].hard",
        "process.capabilities.bounding[0]",
        "process.capabilities.bounding[2]",
        f"mounts[{first}].source",
        f"mounts[{first + 1}].options",
        f"mounts[{first + 2}].destination",
        "linux.resources.memory.swap",
        "linux.resources.pids.limit",
        "linux.seccomp.syscalls[0].errnoRet",
        "linux.seccomp.syscalls[2].errnoRet",
    }


def test_what_only_follows_from_another_mistake_is_not_told() -> None:
    broken = config()
    broken["linux"]["resources"] = {"memory": {"limit": "1G", "swap": 5}}
    assert paths("config", broken) == ["linux.resources.memory.limit"]
    broken["process"] = {"args": ["x"], "user": {"uid": -1, "gid": -1}}
    assert "process.cwd" in paths("config", broken)
    assert "process.user" not in paths("config", broken)


@pytest.mark.parametrize(
    ("what", "value", "expected"),
    [
        ("config", [], [""]),
        ("config", {}, ["ociVersion", "root"]),
        ("process", {"args": [], "cwd": "x"}, ["process.args", "process.cwd"]),
        ("process", {"cwd": "/"}, ["process.args"]),
        ("resources", {"cpu": {"cpus": "x"}, "memory": {"swap": 1}},
         ["resources.cpu.cpus", "resources.memory.swap"]),
    ],
)  # fmt: skip
def test_each_kind_of_file(what: str, value: object, expected: list[str]) -> None:
    assert paths(what, value) == expected


@pytest.mark.parametrize(
    ("key", "told"), [("resoruces", "resources"), ("maskedPath", "maskedPaths"), ("qqq", "")]
)
def test_an_unknown_key_is_a_warning_with_the_nearest_known_one(key: str, told: str) -> None:
    odd = config()
    odd["linux"][key] = {}
    found, warnings = validation.examine("config", odd)
    assert found == []
    text = dict(warnings)[f"linux.{key}"]
    assert text.endswith(f"did you mean {told}?") if told else "did you mean" not in text


def refusal(value: object) -> str | None:
    """The JSON path of create's first complaint, as far as it does not look at the host."""
    value = copy.deepcopy(value)
    try:
        whole.check(value)
        plan.compile_create(value, validation._FACTS)
    except Error as error:
        return validation.split(error.text)[0]
    return None


@pytest.mark.parametrize("block", range(4))
def test_whatever_create_refuses_is_refused_with_the_same_path(block: int) -> None:
    refused = 0
    for number in range(block * 250, block * 250 + 250):
        try:
            value = json.loads(fuzz.case(number, 17, "/bundle/rootfs", "/parent"))
        except (ValueError, RecursionError):
            continue
        told = paths("config", value)
        wanted = refusal(value) if isinstance(value, dict) else ""
        if wanted is None:
            continue
        refused += 1
        assert wanted.removeprefix("config.json") in told, (number, wanted, told)
    assert refused > 50


@pytest.mark.parametrize("what", every.KINDS)
def test_nothing_that_is_right_is_complained_about(what: str) -> None:
    seeds = fuzz.seeds("/bundle/rootfs")
    for seed in seeds:
        value = {
            "config": seed,
            "process": seed["process"],
            "resources": (seed["linux"].get("resources") or {}),
        }[what]
        assert paths(what, value) == []
