"""The features document (features.md, features-linux.md)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests import machine
from tests.drive import Container, Runtime


@pytest.fixture(scope="module")
def features(runtime: Runtime) -> dict[str, Any]:
    """The document."""
    document: dict[str, Any] = json.loads(runtime.bare("features", env={}).stdout)
    return document


def test_the_versions_are_a_range_of_the_first_major(features: dict[str, Any]) -> None:
    assert features["ociVersionMin"] == "1.0.0"
    assert features["ociVersionMax"].startswith("1.")


def test_every_hook_is_listed(features: dict[str, Any]) -> None:
    assert set(features["hooks"]) == {
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"
    }  # fmt: skip


@pytest.mark.needs("mount_setattr")
def test_every_listed_mount_option_is_accepted(
    features: dict[str, Any], container: Container
) -> None:
    apart = {"bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup", "mand", "nomand"}
    assert {"ro", "nosuid", "rbind", "rshared", "defaults"} <= set(features["mountOptions"])
    for number, option in enumerate(sorted(set(features["mountOptions"]) - apart)):
        container.bundle.add_mount(f"/m/{number}", "tmpfs", "tmpfs", option)
    assert container.run("echo fine") == "fine\n"


def test_every_namespace_is_listed(features: dict[str, Any]) -> None:
    listed = set(features["linux"]["namespaces"])
    assert {"cgroup", "ipc", "mount", "network", "pid", "user", "uts"} <= listed
    assert ("time" in listed) == (not machine.missing("time-namespace"))


def test_capabilities_are_listed_by_name(features: dict[str, Any]) -> None:
    assert {"CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_BPF"} <= set(features["linux"]["capabilities"])


def test_cgroups_are_told(features: dict[str, Any]) -> None:
    assert features["linux"]["cgroup"]["v1"] is True
    assert features["linux"]["cgroup"]["v2"] is True
    assert isinstance(features["linux"]["cgroup"]["systemd"], bool)


def test_seccomp_is_told_in_full(features: dict[str, Any]) -> None:
    seccomp = features["linux"]["seccomp"]
    assert seccomp["enabled"] is True
    assert {"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_NOTIFY"} <= set(seccomp["actions"])
    assert {"SCMP_CMP_EQ", "SCMP_CMP_MASKED_EQ"} <= set(seccomp["operators"])
    assert "SCMP_ARCH_X86_64" in seccomp["archs"]


def test_known_and_supported_seccomp_flags_are_told(features: dict[str, Any]) -> None:
    seccomp = features["linux"]["seccomp"]
    assert "SECCOMP_FILTER_FLAG_SPEC_ALLOW" in seccomp["knownFlags"]
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])


def test_what_is_claimed_of_security_modules_is_a_truth_value(features: dict[str, Any]) -> None:
    assert isinstance(features["linux"]["apparmor"]["enabled"], bool)
    assert isinstance(features["linux"]["selinux"]["enabled"], bool)


def test_rro_is_claimed_only_if_it_works(features: dict[str, Any]) -> None:
    assert "rro" in features["mountOptions"]


def test_newer_extensions_are_told(features: dict[str, Any]) -> None:
    linux = features["linux"]
    assert isinstance(linux["intelRdt"]["enabled"], bool)
    assert isinstance(linux["mountExtensions"]["idmap"]["enabled"], bool)
    assert isinstance(linux["netDevices"]["enabled"], bool)


KNOWN: dict[str, Any] = {
    "ociVersionMin": "", "ociVersionMax": "", "hooks": [], "mountOptions": [],
    "potentiallyUnsafeConfigAnnotations": [],
    "linux": {
        "namespaces": [], "capabilities": [], "apparmor": {"enabled": True}, "selinux": {"enabled": True},
        "cgroup": dict.fromkeys(("v1", "v2", "systemd", "systemdUser", "rdma"), True),
        "seccomp": {
            "enabled": True, "actions": [], "operators": [], "archs": [], "knownFlags": [], "supportedFlags": [],
        },
        "intelRdt": dict.fromkeys(("enabled", "schemata", "monitoring"), True),
        "memoryPolicy": {"modes": [], "flags": []},
        "mountExtensions": {"idmap": {"enabled": True}},
        "netDevices": {"enabled": True},
    },
}  # fmt: skip


def strangers(value: Any, known: Any, path: str) -> list[str]:
    """The properties that the specification does not know, or knows as something else; null is nothing."""
    if isinstance(known, dict) and isinstance(value, dict):
        found = []
        for name, each in value.items():
            where = f"{path}.{name}"
            found += strangers(each, known[name], where) if name in known else [where]
        return found
    if isinstance(known, list) and isinstance(value, list):
        return [path for each in value if not isinstance(each, str)]
    return [] if type(value) is type(known) else [path]


def test_the_document_has_known_properties_only_and_no_null(features: dict[str, Any]) -> None:
    annotations = features["annotations"]
    rest = {name: value for name, value in features.items() if name != "annotations"}
    assert strangers(rest, KNOWN, "") == []
    assert annotations and all(
        isinstance(word, str) and word for pair in annotations.items() for word in pair
    )
