"""T-CG: cgroup trees, names that become paths, and the devices that a cgroup denies."""

from __future__ import annotations

import os
import stat
from typing import Any, Callable

import pytest

from tests import drive
from tests.security.conftest import Arena

CGROUP_OPTIONS = ["nosuid", "noexec", "nodev", "relatime", "ro"]


def writable_cgroups(arena: Arena, userns: bool, **modules: str) -> list[str]:
    """The mounts of cgroups that a container with a read-only one can write to."""
    container = arena.container(arena.altered(**modules) if modules else None)
    if userns:
        container.bundle.use_user_namespace()
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", *CGROUP_OPTIONS)
    text = container.run("cat /proc/self/mountinfo")
    rows = [line.split() for line in text.splitlines()]
    found = [row for row in rows if row[4].startswith("/sys/fs/cgroup")]
    assert found, text
    return [row[4] for row in found if "ro" not in row[5].split(",")]


@pytest.mark.parametrize("userns", [False, True], ids=["host ids", "user namespace"])
def test_cgroups_of_the_host_are_read_only(arena: Arena, userns: bool) -> None:
    """T-CG1, CVE-2023-25809, CVE-2022-0492: without a cgroup namespace."""
    assert writable_cgroups(arena, userns) == []


def test_control_a_mount_that_forgets_it_is_seen(arena: Arena) -> None:
    forget = (
        "_cgroup_mount_as_it_is = cgroup_mount\n"
        "def cgroup_mount(*args):\n"
        "    _cgroup_mount_as_it_is(*map(_writable, args))\n"
        "def _writable(arg):\n"
        "    if isinstance(arg, dict) and 'set' in arg:\n"
        "        return {**arg, 'set': arg['set'] & ~MOUNT_ATTR_RDONLY}\n"
        "    return arg\n"
    )
    assert writable_cgroups(arena, True, inside__mounts=forget)


# names ---------------------------------------------------------------------------------------------------

UP = "/../../../../../../../.."


def _set(*keys: str) -> Callable[[dict[str, Any], Any], None]:
    def change(config: dict[str, Any], value: Any) -> None:
        for key in keys[:-1]:
            config = config.setdefault(key, {})
        config[keys[-1]] = value

    return change


PATH = _set("linux", "cgroupsPath")
UNIFIED = _set("linux", "resources", "unified")
HUGE = _set("linux", "resources", "hugepageLimits")
SYSCTL = _set("linux", "sysctl")


def traversals(host: str) -> dict[str, tuple[Any, Any]]:
    with open("/proc/sys/vm/overcommit_ratio") as file:
        ratio = file.read().strip()  # so that a success changes nothing
    return {
        "cgroupsPath ../../x": (PATH, "../../x"),
        "cgroupsPath /a/../b": (PATH, "/a/../b"),
        "cgroupsPath up to the host": (PATH, UP + host + "/cg"),
        "unified ../../x": (UNIFIED, {"../../x": "1"}),
        "unified a/b": (UNIFIED, {"a/b": "1"}),
        "pageSize ../../x": (HUGE, [{"pageSize": "../../x", "limit": 1}]),
        "pageSize 2MB/../x": (HUGE, [{"pageSize": "2MB/../x", "limit": 1}]),
        "sysctl net./../vm": (SYSCTL, {"net./../vm/overcommit_ratio": ratio}),
        "sysctl net/../vm": (SYSCTL, {"net/../vm/overcommit_ratio": ratio}),
        "sysctl net/ipv4/../../vm": (SYSCTL, {"net/ipv4/../../vm/overcommit_ratio": ratio}),
        "sysctl net..vm": (SYSCTL, {"net..vm.overcommit_ratio": ratio}),
    }


def accepted_traversals(arena: Arena, runtime: drive.Runtime | None = None) -> list[str]:
    """The names that lead elsewhere and were taken, and what they made on the host."""
    found = []
    host = arena.directory()
    for name, (change, value) in traversals(host).items():
        container = arena.container(runtime)
        change(container.config, value)
        result = container.create(ok=None)
        if result.status == 0:
            found.append(name)
        if os.listdir(host):
            found.append(name + ": made")
            break
        container.delete("--force", ok=None)
    return found


def test_no_name_leads_out_of_its_tree(arena: Arena) -> None:
    """T-CG2, GHSA-5g49-rx9x-qfc6, CVE-2022-0811."""
    assert accepted_traversals(arena) == []


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_makes_a_cgroup_on_the_host(arena: Arena) -> None:
    assert "cgroupsPath up to the host: made" in accepted_traversals(arena, arena.installed("crun"))


def test_control_unchecked_names_are_taken(arena: Arena) -> None:
    unchecked = {
        "model__spec__whole": "def check(config):\n    return\n",
        "model__spec__linux": "def sysctl_path(name):\n    return name\n",
    }
    found = accepted_traversals(arena, arena.altered(**unchecked))
    assert "sysctl net/../vm" in found, found


# devices -------------------------------------------------------------------------------------------------

NODES = {
    "disk": (stat.S_IFBLK, 8, 0),
    "loop": (stat.S_IFBLK, 7, 0),
    "kmsg": (stat.S_IFCHR, 1, 11),
    "fuse": (stat.S_IFCHR, 10, 229),
    "console": (stat.S_IFCHR, 5, 1),  # the host's, whatever the container's /dev/console is
}


def usable_devices(
    arena: Arena, rules: list[dict[str, Any]], runtime: drive.Runtime | None = None
) -> list[str]:
    """The devices of an image that can be opened, at first and after an update of something else."""
    container = arena.container(runtime)
    container.bundle.resources["devices"] = rules
    for name, (kind, major, minor) in NODES.items():
        path = os.path.join(container.bundle.rootfs, name)
        os.mknod(path, kind | 0o666, os.makedev(major, minor))
    container.launch("sleep 100")
    found = []
    for when in ("at first", "after update"):
        for name in NODES:
            answer = container.exec("/bin/probe", "open", "/" + name, "r").line
            if answer != "EPERM":
                found.append(f"{name} {when}")
        container.runtime("update", "--memory", "67108864", container.id)
    return found


def test_devices_are_denied_and_stay_so(arena: Arena) -> None:
    """T-CG3: an update of the memory limit does not open them again."""
    assert usable_devices(arena, [{"allow": False, "access": "rwm"}]) == []


@pytest.mark.needs("runc-1.1.5+ds1")
def test_runc_denies_them_too(arena: Arena) -> None:
    found = usable_devices(arena, [{"allow": False, "access": "rwm"}], arena.installed("runc"))
    assert "console at first" not in found, found


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_grants_the_console(arena: Arena) -> None:
    found = usable_devices(arena, [{"allow": False, "access": "rwm"}], arena.installed("crun"))
    assert "console at first" in found, found


def test_a_rule_that_names_the_console_grants_it(arena: Arena) -> None:
    rules = [
        {"allow": False, "access": "rwm"},
        {"allow": True, "type": "c", "major": 5, "minor": 1, "access": "rw"},
    ]
    assert usable_devices(arena, rules) == ["console at first", "console after update"]


def test_control_with_a_rule_that_allows_them_they_are_usable(arena: Arena) -> None:
    found = usable_devices(arena, [{"allow": True, "access": "rwm"}])
    assert {"disk at first", "disk after update"} <= set(found)


# memory --------------------------------------------------------------------------------------------------


def copied_for_nothing(arena: Arena, **modules: str) -> drive.Result:
    """Let an image have 120 MiB where a tmpfs gets a copy, with a limit of 32 MiB."""
    container = arena.container(arena.altered(**modules) if modules else None)
    directory = container.bundle.make_directory("/big")
    for number in range(8):
        with open(os.path.join(directory, str(number)), "wb") as file:
            file.truncate(15 << 20)
    container.bundle.add_mount("/big", "tmpfs", "tmpfs", "tmpcopyup")
    container.bundle.resources["memory"] = {"limit": 32 << 20}
    return container.make("create", ok=None)


def test_what_is_copied_is_charged(arena: Arena) -> None:
    """T-CG4: tmpcopyup is done in the container's memory cgroup."""
    result = copied_for_nothing(arena)
    assert result.status == 1 and "memory limit" in result.stderr, result.explain()


@pytest.mark.needs("cgroup1:memory")  # on version 2 init is born in the cgroup
def test_control_before_the_cgroup_is_joined_it_is_free(arena: Arena) -> None:
    late = "_CHARGED = frozenset(('command',))\n"
    assert copied_for_nothing(arena, model__plan=late).status == 0
