"""Causes that no test can provoke on every machine: from what the kernel would show."""

from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from anocir import errors
from anocir.host import causes

APPARMOR = (
    '4,1234,99,-;audit: type=1400 audit(1.2:3): apparmor="DENIED" operation="mount" class="mount" '
    'profile="docker-default" name="/x/" pid=77 comm="anocir:init" flags="rw"'
)
SELINUX = (
    "5,1,2,-;audit: type=1400 audit(1.2:3): avc:  denied  { mounton } for  pid=77 comm=python3 "
    "scontext=system_u:system_r:container_t:s0 tcontext=system_u:object_r:etc_t:s0 tclass=dir"
)


@pytest.fixture(autouse=True)
def nothing_known():
    errors.scene.clear()
    yield
    errors.scene.clear()


@pytest.mark.parametrize(
    ("line", "pids", "told"),
    [
        (APPARMOR, {77}, "AppArmor's profile docker-default denies mount /x/"),
        (APPARMOR, {7}, ""),
        (APPARMOR.replace("DENIED", "ALLOWED"), {77}, ""),
        (
            SELINUX,
            {77},
            "SELinux denies mounton to system_u:system_r:container_t:s0 on system_u:object_r:etc_t:s0",
        ),
        (SELINUX, {76}, ""),
        ("6,1,2,-;usb 1-1: new device pid=77", {77}, ""),
    ],
)
def test_a_denial_of_a_security_module_is_read_if_it_was_ours(line, pids, told) -> None:
    assert causes.denial(line, pids) == told


@pytest.mark.parametrize(
    ("files", "text", "told"),
    [
        ({"cgroup.type": "domain invalid"}, "join cgroup {}: operation not supported", "is of type 'domain invalid'"),
        ({"cgroup.type": "domain", "cgroup.subtree_control": "memory pids"}, "join cgroup {}: device or resource busy", "gives controllers to its children (memory pids)"),
        ({"cpuset.cpus": "0-1", "cpuset.mems": "", "tasks": ""}, "join {}/tasks: no space left on device", "cpuset.mems is empty"),
        ({"cgroup.type": "domain", "cgroup.subtree_control": ""}, "join cgroup {}: device or resource busy", ""),
        ({"cgroup.max.descendants": "3", "cgroup.stat": "nr_descendants 3\n"}, "make cgroup {}/new: resource temporarily unavailable", "cgroup.max.descendants is 3, and as many are there"),
        ({"cgroup.max.descendants": "4", "cgroup.stat": "nr_descendants 3\n"}, "make cgroup {}/new: resource temporarily unavailable", ""),
        ({"cgroup.max.depth": "0", "cgroup.max.descendants": "max"}, "make cgroup {}/new: resource temporarily unavailable", "cgroup.max.depth is 0"),
        ({"cpuset.cpus.effective": "0-1"}, "linux.resources.cpu.cpus: write '9' to {}/new/cpuset.cpus: invalid argument", "has 0-1"),
        ({}, "linux.resources.cpu.cpus: write '9' to {}/new/cpuset.cpus: invalid argument", ""),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_cgroup_is_read_in_it(tmp_path, files, text, told) -> None:
    directory = tmp_path / "cgroup"
    directory.mkdir()
    for name, content in files.items():
        (directory / name).write_text(content)
    found = causes.explain(text.format(directory), "", str(tmp_path))
    assert (told in found) if told else not found


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("bind: operation not permitted", ""),
        ("x: invalid argument", ""),
        ("linux.x: no space left on device", ""),
        ("some text without an errno", ""),
        ("write sysctl a=b: invalid argument", "this stays"),
    ],
)
def test_what_is_not_known_is_not_said(text: str, hint: str, tmp_path) -> None:
    if "permitted" in text and os.geteuid() != 0:
        errors.scene["config"] = {"linux": {"namespaces": [{"type": "user"}]}}
    assert causes.explain(text, hint, str(tmp_path)) == hint


def test_a_loaded_profile_is_not_blamed(monkeypatch) -> None:
    errors.scene.update(step="label", config={"process": {"apparmorProfile": "mine"}})
    monkeypatch.setattr(
        causes.files, "read_file", lambda path: b"mine (enforce)\nother (enforce)\n"
    )
    text = "process.apparmorProfile: write: no such file or directory"
    assert causes.explain(text, "", "/") == ""
    errors.scene["config"] = {"process": {"apparmorProfile": "gone"}}
    assert "profile gone is not loaded" in causes.explain(text, "", "/")


def test_mounts_are_counted_against_the_limit(monkeypatch) -> None:
    errors.scene["step"] = "bind"
    text = "mounts[0]: x: no space left on device"
    monkeypatch.setattr(causes.mountinfo, "of", lambda pid: dict.fromkeys(range(90)))
    for limit, told in (
        (100000, ""),
        (100, "there are 90 mounts here, and fs.mount-max allows 100"),
    ):
        monkeypatch.setattr(
            causes.files, "read_file", lambda path, limit=limit: str(limit).encode()
        )
        assert causes.explain(text, "", "/").startswith(told)
        assert bool(causes.explain(text, "", "/")) == bool(told)


@pytest.mark.parametrize(
    ("kind", "point", "told"), [("rootfs", "/", True), ("ramfs", "/", True), ("ext4", "/", False), ("ramfs", "/r", False)]
)  # fmt: skip
def test_a_root_that_cannot_be_pivoted_from_is_named(monkeypatch, kind, point, told) -> None:
    errors.scene.update(step="pivot_root", rootfs="/r/oot")
    holder = SimpleNamespace(kind=kind, point=point)
    monkeypatch.setattr(causes.mountinfo, "of", lambda pid: {1: holder})
    found = causes.explain("pivot_root: invalid argument", "", "/")
    assert found == ("a root on the initramfs needs --no-pivot" if told else "")


def test_a_cgroup_of_somebody_else_is_named(tmp_path, monkeypatch) -> None:
    """The deepest directory that is there: what could not be made lies below it."""
    directory = tmp_path / "cgroup"
    directory.mkdir()
    owner = directory.stat().st_uid
    text = f"make cgroup {directory}/new/deeper: permission denied"
    for uid, told in (
        (owner + 4321, f"{directory} belongs to user {owner} and is not delegated to {owner + 4321}"),
        (owner, ""),
        (0, ""),
    ):  # fmt: skip
        monkeypatch.setattr(causes.posix, "geteuid", lambda uid=uid: uid)
        assert causes.explain(text, "", "/") == (f"the cgroup {told}" if told else "")


def test_no_cause_has_the_words_of_an_errno() -> None:
    """Engines look for them in the whole line."""
    with open(causes.__file__) as file:
        source = file.read()
    for number in errors.WITH_CAUSES:
        assert errors.strerror(number) not in source
    for words in errors.CONTRACT.values():
        assert words not in source or "{" in words
