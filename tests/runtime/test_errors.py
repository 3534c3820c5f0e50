"""Broken configurations: one line that names the JSON path, before anything has been made."""

from __future__ import annotations

import json
import os
from typing import Any, Callable

import pytest

from tests.drive import Container

Change = Callable[[dict[str, Any]], Any]


def put(path: str, value: Any) -> Change:
    """A change that sets one value of the configuration; the path's last part is the key."""

    def change(config: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        node: Any = config
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[int(last) if isinstance(node, list) else last] = value

    return change


WRONG_TYPES: list[tuple[str, Any, str]] = [
    ("ociVersion", 1, "ociVersion"),
    ("hostname", 5, "hostname"),
    ("domainname", ["x"], "domainname"),
    ("root", "rootfs", "root"),
    ("root/path", 7, "root.path"),
    ("root/readonly", "true", "root.readonly"),
    ("mounts", {}, "mounts"),
    ("mounts/0/destination", 7, "mounts[0].destination"),
    ("mounts/1/options", "ro", "mounts[1].options"),
    ("mounts/1/options", [1], "mounts[1].options[0]"),
    ("process", [], "process"),
    ("process/args", "sh", "process.args"),
    ("process/args", [None], "process.args[0]"),
    ("process/args", ["sh", 1], "process.args[1]"),
    ("process/env", {"A": "1"}, "process.env"),
    ("process/env", ["A=1", 5], "process.env[1]"),
    ("process/cwd", 5, "process.cwd"),
    ("process/terminal", 1, "process.terminal"),
    ("process/user", "root", "process.user"),
    ("process/user/uid", "0", "process.user.uid"),
    ("process/user/uid", -1, "process.user.uid"),
    ("process/user/uid", 1.5, "process.user.uid"),
    ("process/user/uid", True, "process.user.uid"),
    ("process/user/gid", 2**32, "process.user.gid"),
    ("process/user/umask", -1, "process.user.umask"),
    ("process/user/additionalGids", [5, "6"], "process.user.additionalGids[1]"),
    ("process/noNewPrivileges", "yes", "process.noNewPrivileges"),
    ("process/oomScoreAdj", "5", "process.oomScoreAdj"),
    ("process/oomScoreAdj", 5000, "process.oomScoreAdj"),
    ("process/capabilities", [], "process.capabilities"),
    ("process/capabilities/bounding", ["CAP_NO_SUCH"], "process.capabilities.bounding[0]"),
    ("process/rlimits", [{"type": "RLIMIT_NOFILE", "soft": 1}], "process.rlimits[0]"),
    ("linux", [], "linux"),
    ("linux/namespaces", {}, "linux.namespaces"),
    ("linux/namespaces/1/type", "bogus", "linux.namespaces[1].type"),
    ("linux/namespaces/1/path", 5, "linux.namespaces[1].path"),
    ("linux/uidMappings", [{"containerID": 0}], "linux.uidMappings[0]"),
    ("linux/devices", [{"path": "/dev/x", "type": "c"}], "linux.devices[0]"),
    ("linux/maskedPaths", "/proc", "linux.maskedPaths"),
    ("linux/maskedPaths", ["/a", 5], "linux.maskedPaths[1]"),
    ("linux/readonlyPaths", [["x"]], "linux.readonlyPaths[0]"),
    ("linux/sysctl", ["a=b"], "linux.sysctl"),
    ("linux/sysctl", {"net.ipv4.ip_forward": 1}, "linux.sysctl"),
    ("linux/rootfsPropagation", "bogus", "linux.rootfsPropagation"),
    ("linux/cgroupsPath", 5, "linux.cgroupsPath"),
    ("linux/resources/memory", {"limit": "64m"}, "linux.resources.memory.limit"),
    ("linux/resources/cpu", {"shares": -1}, "linux.resources.cpu.shares"),
    ("linux/resources/pids", {"limit": "5"}, "linux.resources.pids.limit"),
    ("linux/resources/devices", [{"access": "rwm"}], "linux.resources.devices[0]"),
    ("linux/seccomp", {"defaultAction": 1}, "linux.seccomp.defaultAction"),
    ("linux/seccomp", {"defaultAction": "SCMP_ACT_BOGUS"}, "linux.seccomp.defaultAction"),
    ("linux/personality", {"domain": "BOGUS"}, "linux.personality.domain"),
    ("hooks", [], "hooks"),
    ("hooks/prestart", {}, "hooks.prestart"),
    ("hooks/createRuntime", [{"path": "x"}], "hooks.createRuntime[0].path"),
    ("annotations", [], "annotations"),
    ("annotations", {"a": 1}, "annotations"),
]


@pytest.mark.parametrize(
    ("path", "value", "named"), WRONG_TYPES, ids=[f"{p}={v!r}"[:60] for p, v, _ in WRONG_TYPES]
)
def test_a_wrong_value_is_refused_with_its_json_path(
    container: Container, path: str, value: Any, named: str
) -> None:
    put(path, value)(container.config)
    message = container.refused()
    assert len(message.strip().splitlines()) <= 2  # the second line is a hint
    assert named in message.splitlines()[0]


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("ociVersion", "ociVersion"),
        ("root", "root"),
        ("root/path", "root.path"),
        ("process/cwd", "process.cwd"),
        ("mounts/0/destination", "mounts[0].destination"),
    ],
)
def test_a_missing_value_is_refused_with_its_json_path(
    container: Container, path: str, named: str
) -> None:
    *parents, last = path.split("/")
    node: Any = container.config
    for key in parents:
        node = node[int(key)] if isinstance(node, list) else node[key]
    del node[last]
    assert named in container.refused().splitlines()[0]


TEXTS: dict[str, str] = {
    "empty": "",
    "no object": "[]",
    "a string": '"text"',
    "null": "null",
    "cut off": '{"ociVersion": "1.0.0", "root": {',
    "trailing garbage": "%s garbage",
    "two objects": "%s{}",
    "comment": "/* comment */ %s",
    "byte order mark": "\ufeff%s",
    "NaN": '{"ociVersion": "1.0.0", "x": NaN}',
    "duplicate key": '{"ociVersion": "1.0.0", "ociVersion": "1.0.0"}',
    "deep": '{"x": ' + "[" * 20000 + "]" * 20000 + "}",
}


@pytest.mark.parametrize("name", list(TEXTS))
def test_text_that_is_not_one_json_object_is_refused(container: Container, name: str) -> None:
    text = TEXTS[name].replace("%s", json.dumps(container.config))
    container.bundle.outside("config.json", text)
    message = container.refused(write=False)
    assert "Traceback" not in message and "panic" not in message


@pytest.mark.parametrize("data", [b"\xff\xfe{}", b'{"ociVersion": "1.0.0\xff"}', b"\0"])
def test_text_that_is_not_utf8_is_refused(container: Container, data: bytes) -> None:
    with open(os.path.join(container.bundle.path, "config.json"), "wb") as file:
        file.write(data)
    container.refused(write=False)


@pytest.mark.parametrize(
    "path",
    ["hostname", "process/cwd", "root/path", "mounts/1/destination", "linux/cgroupsPath"],
)
def test_a_null_character_is_refused(container: Container, path: str) -> None:
    put(path, "/a\0b")(container.config)
    container.refused()


def test_a_config_that_is_a_directory_is_refused(container: Container) -> None:
    os.mkdir(os.path.join(container.bundle.path, "config.json"))
    container.refused(write=False)


def test_a_bundle_that_does_not_exist_is_refused(container: Container) -> None:
    result = container.runtime("create", "--bundle", "/no/such/bundle", container.id, ok=False)
    assert "no such file or directory" in result.stderr.lower()


def test_a_refusal_comes_before_the_first_side_effect(container: Container) -> None:
    container.bundle.add_mount("/made/by/mount", "tmpfs", "tmpfs")
    container.bundle.hook("createRuntime", f"touch {container.bundle.path}/hook-ran")
    container.linux["readonlyPaths"] = [5]
    container.refused()
    assert not container.bundle.has("/made")
    assert not os.path.exists(os.path.join(container.bundle.path, "hook-ran"))


def test_a_failure_after_the_mounts_leaves_nothing(container: Container) -> None:
    container.linux["sysctl"] = {"net.ipv4.no_such_thing": "1"}
    container.refused()


def test_a_failing_mount_names_what_and_why(container: Container) -> None:
    container.bundle.add_mount("/m", "none", "/no/such/source", "bind")
    message = container.refused()
    assert "mounts[6]" in message
    assert "/no/such/source" in message
    assert "no such file or directory" in message


def test_run_reports_a_broken_config_with_status_one(container: Container) -> None:
    container.process["cwd"] = 5
    result = container.try_run()
    assert result.status == 1 and result.stdout == ""
