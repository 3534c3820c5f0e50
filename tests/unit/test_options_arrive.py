"""Each option arrives where it is meant to: in the limits of update, in CRIU's request."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from anocir import cli
from anocir.host import checkpoint, restore, update

ARRIVES = {
    "--cpu-period": ("cpu", "period"), "--cpu-quota": ("cpu", "quota"), "--cpu-burst": ("cpu", "burst"),
    "--cpu-share": ("cpu", "shares"), "--cpu-rt-period": ("cpu", "realtimePeriod"),
    "--cpu-rt-runtime": ("cpu", "realtimeRuntime"), "--cpu-idle": ("cpu", "idle"), "--cpuset-cpus": ("cpu", "cpus"),
    "--cpuset-mems": ("cpu", "mems"), "--memory": ("memory", "limit"), "--memory-reservation": ("memory", "reservation"),
    "--memory-swap": ("memory", "swap"), "--pids-limit": ("pids", "limit"), "--blkio-weight": ("blockIO", "weight"),
}  # fmt: skip


def parsed(*words: str) -> dict:
    return cli.parse([*words, "c"], cli.defaults())[2]


@pytest.mark.parametrize("option", sorted(ARRIVES))
def test_update(option: str) -> None:
    group, key = ARRIVES[option]
    value = "1-2" if "cpuset" in option else "700"
    wanted = {group: {key: value if "cpuset" in option else 700}}
    assert update._wanted(parsed("update", f"{option}={value}")) == wanted


DIRECTORY = SimpleNamespace(image_fd=9, work_fd=9, parent="")
BOX = SimpleNamespace(intent={"rootfs": "/r"}, id="c", state={"pid": 5})


def dumped(*words: str) -> dict:
    return checkpoint._opts(BOX, {}, parsed("checkpoint", *words), DIRECTORY, 5)


def restored(*words: str) -> dict:
    maker = SimpleNamespace(
        options=parsed("restore", *words), config={}, directory=DIRECTORY, joined=[], fds=[]
    )
    return restore.Restoring._opts(maker, SimpleNamespace(root="/r", places={}), [], [])


@pytest.mark.parametrize(
    ("request_of", "words"),
    [
        (request_of, words)
        for request_of in (dumped, restored)
        for words in (
            "--tcp-close", "--ext-unix-sk", "--shell-job", "--file-locks", "--auto-dedup", "--tcp-established",
            *(("--tcp-skip-in-flight", "--link-remap", "--leave-running") if request_of is dumped else ()),
        )
    ],
)  # fmt: skip
def test_criu_is_told_of_a_flag_and_of_nothing_else(request_of, words: str) -> None:
    plain, asked = request_of(), request_of(words)
    changed = {key for key in asked if asked[key] != plain.get(key)}
    assert changed == {words[2:].replace("-", "_")} and asked[changed.pop()]


def test_criu_is_told_of_a_profile() -> None:
    assert restored("--lsm-profile", "apparmor:mine")["lsm_profile"] == "apparmor:mine"
