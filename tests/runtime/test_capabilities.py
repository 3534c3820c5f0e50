"""Capabilities (config.md, "Linux Process"; capabilities(7))."""

from __future__ import annotations

import pytest

from tests.bundle import CAPABILITIES
from tests.drive import Container

NUMBERS = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SETPCAP": 8,
    "CAP_NET_BIND_SERVICE": 10,
    "CAP_NET_RAW": 13,
    "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21,
    "CAP_SYS_RESOURCE": 24,
    "CAP_MKNOD": 27,
    "CAP_AUDIT_WRITE": 29,
    "CAP_SETFCAP": 31,
    "CAP_CHECKPOINT_RESTORE": 40,
}
SETS = {
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "effective": "CapEff",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}


def bits(names: list[str]) -> int:
    """The mask of some names."""
    return sum(1 << NUMBERS[name] for name in names)


def found_sets(container: Container) -> dict[str, int]:
    """The five sets as the program has them."""
    lines = container.run("cat /proc/self/status").splitlines()
    status = dict(line.split(":", 1) for line in lines)
    return {name: int(status[key], 16) for name, key in SETS.items()}


def test_every_set_is_exactly_as_configured(container: Container) -> None:
    wanted = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_KILL", "CAP_NET_RAW"],
        "ambient": ["CAP_KILL"],
    }
    container.process["capabilities"] = wanted
    container.process["user"] = {"uid": 1000, "gid": 1000}
    found = found_sets(container)
    assert found["bounding"] == bits(wanted["bounding"])
    assert found["inheritable"] == bits(wanted["inheritable"])
    assert found["ambient"] == bits(wanted["ambient"])
    # execve of a plain file by a user who is not root leaves what is ambient
    assert found["permitted"] == found["effective"] == bits(wanted["ambient"])


def test_root_gets_the_bounding_set_at_execve(container: Container) -> None:
    container.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
    }
    found = found_sets(container)
    assert found["effective"] == found["permitted"] == bits(["CAP_CHOWN", "CAP_KILL"])
    assert found["bounding"] == bits(["CAP_CHOWN", "CAP_KILL"])
    assert found["inheritable"] == found["ambient"] == 0


def test_the_fourteen_usual_capabilities_are_granted(container: Container) -> None:
    found = found_sets(container)
    assert found["bounding"] == found["effective"] == found["permitted"] == bits(CAPABILITIES)


def test_all_five_sets_may_hold_the_same_names(container: Container) -> None:
    container.process["capabilities"] = {name: list(CAPABILITIES) for name in SETS}
    container.process["user"] = {"uid": 10, "gid": 10}
    assert set(found_sets(container).values()) == {bits(CAPABILITIES)}


@pytest.mark.parametrize("config", [{}, {name: [] for name in SETS}])
def test_empty_sets_leave_nothing(container: Container, config: dict[str, list[str]]) -> None:
    container.process["capabilities"] = config
    assert set(found_sets(container).values()) == {0}


def test_another_user_without_ambient_has_nothing_effective(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    found = found_sets(container)
    assert found["effective"] == found["permitted"] == found["ambient"] == 0
    assert found["bounding"] == bits(CAPABILITIES)


def test_inheritable_is_empty_unless_it_is_configured(container: Container) -> None:
    assert found_sets(container)["inheritable"] == 0


def test_what_is_not_in_the_bounding_set_cannot_be_had_again(container: Container) -> None:
    container.process["capabilities"] = {
        key: ["CAP_SETFCAP"] for key in ("bounding", "effective", "permitted")
    }
    assert container.run("chown 5 /etc/group 2>/dev/null || echo refused") == "refused\n"


def test_a_capability_works(container: Container) -> None:
    assert container.run("chown 5 /etc/group && stat -c %u /etc/group") == "5\n"


def test_an_ambient_capability_works_for_another_user(container: Container) -> None:
    container.process["capabilities"] = {name: ["CAP_CHOWN"] for name in SETS}
    container.process["user"] = {"uid": 1000, "gid": 1000}
    assert container.run("chown 5 /etc/group && stat -c %u /etc/group") == "5\n"


def test_names_are_read_without_regard_to_missing_sets(container: Container) -> None:
    container.process["capabilities"] = {"bounding": ["CAP_KILL"]}
    found = found_sets(container)
    assert found["bounding"] == bits(["CAP_KILL"])


@pytest.mark.parametrize("where", list(SETS))
def test_a_name_that_no_kernel_knows_is_refused(container: Container, where: str) -> None:
    container.process["capabilities"].setdefault(where, []).append("CAP_TEST")
    assert "CAP_TEST" in container.refused()


def test_a_known_capability_that_cannot_be_granted_is_left_out(container: Container) -> None:
    with open("/proc/self/status") as file:
        status = dict(line.split(":", 1) for line in file)
    own = int(status["CapBnd"], 16)
    for key in ("bounding", "effective", "permitted"):
        container.process["capabilities"][key].append("CAP_SYS_RESOURCE")
    wanted = bits([*CAPABILITIES, "CAP_SYS_RESOURCE"])
    assert found_sets(container)["effective"] == wanted & own


def test_capabilities_of_exec_are_those_of_the_config(container: Container) -> None:
    container.process["capabilities"] = {
        key: ["CAP_KILL"] for key in ("bounding", "effective", "permitted")
    }
    container.launch("sleep 100")
    lines = container.exec("cat", "/proc/self/status").stdout.splitlines()
    status = dict(line.split(":", 1) for line in lines)
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == bits(["CAP_KILL"])
