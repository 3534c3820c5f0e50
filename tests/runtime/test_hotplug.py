"""`update` with device rules, `--device-add` and `--device-remove`: what a container may use while it runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from typing import Any, Iterator

import pytest

from tests import drive, machine
from tests.drive import Container, Result

NUMBER = os.makedev(1, 12)  # no driver has it: who may open it is told so
RULE = {"type": "c", "major": 1, "minor": 12}
OPEN = (
    "for how in 'read <' 'write >>'; do (eval : ${{how#* }} {0}) 2>&1 | "
    "grep -qE 'not permitted|denied' || echo -n ${{how% *}}; done"
)


@pytest.fixture
def node(container: Container) -> Iterator[str]:
    """A node of the host, for a device that nothing happens to; /tmp may be mounted nodev."""
    directory = f"/dev/{container.id}"
    os.mkdir(directory)
    path = f"{directory}/log"
    os.mknod(path, 0o600 | stat.S_IFCHR, NUMBER)
    os.chmod(path, 0o640)
    os.chown(path, 0, 12)
    yield path
    shutil.rmtree(directory)


def update(container: Container, *options: str, ok: bool | None = True) -> Result:
    """Change something of it."""
    return container.runtime("update", *options, container.id, ok=ok)


def rules(container: Container, *entries: dict[str, Any], ok: bool | None = True) -> Result:
    """Update its device rules as an engine does, by JSON."""
    document = json.dumps({"devices": list(entries)})
    return container.runtime("update", "--resources", "-", container.id, stdin=document, ok=ok)


def may(container: Container, path: str = "/dev/log") -> str:
    """How a process of the container can open a device."""
    return container.exec("sh", "-c", OPEN.format(path)).stdout.strip()


def kept(container: Container) -> dict[str, Any]:
    """What the state says of devices."""
    with open(os.path.join(container.runtime.root, container.id, "state.json")) as file:
        state = json.load(file)
    return {key: state.get(key) or [] for key in ("rules", "devices", "taken")}


def exists(container: Container, path: str) -> bool:
    """Whether the container sees something there."""
    return container.exec("test", "-e", path, ok=None).status == 0


@pytest.mark.needs("cgroup:pids")
@pytest.mark.parametrize(
    "mapped", [False, pytest.param(True, marks=pytest.mark.needs("mount_setattr"))]
)
def test_a_device_comes_and_goes(container: Container, node: str, mapped: bool) -> None:
    if mapped:
        container.bundle.use_user_namespace()
        os.chmod(node, 0o666)
    container.launch("exec sleep 1000")
    update(container, "--device-add", f"{node}:/dev/new/log:r", "--pids-limit", "77")
    assert may(container, "/dev/new/log") == "read"
    assert container.limit("pids", "pids.max", "pids.max") == "77"
    said = container.exec("stat", "-c", "%F %t:%T %a %g", "/dev/new/log").stdout.strip()
    if not mapped:
        assert said == "character special file 1:c 640 12"
        assert not os.path.exists(os.path.join(container.bundle.rootfs, "dev/new"))
    shown = {"path": "/dev/new/log", **RULE, "access": "r"}
    assert container.state()["devices"] == [shown]
    # a second path of the same device has its own access, which ends with it
    update(container, "--device-add", f"{node}:/dev/second:w")
    assert may(container, "/dev/new/log") == "readwrite"
    update(container, "--device-remove", "/dev/second")
    assert may(container, "/dev/new/log") == "read"
    assert not exists(container, "/dev/second")
    update(container, "--device-remove", "/dev/new/log")
    assert not exists(container, "/dev/new/log")
    assert kept(container) == {"rules": [], "devices": [], "taken": []}
    assert container.exec("sh", "-c", ": <>/dev/null").status == 0
    assert "devices" not in container.state()
    if not mapped:  # the rule has gone as well
        container.exec("mknod", "/dev/own", "c", "1", "12")
        assert may(container, "/dev/own") == ""


@pytest.mark.needs("cgroup:pids")
def test_rules_are_added_to_the_present_ones_and_taken_away(
    container: Container, node: str
) -> None:
    container.linux["devices"] = [{"path": "/dev/log", **RULE, "fileMode": 0o666}]
    container.launch("exec sleep 1000")
    rules(container, {"allow": True, **RULE, "access": "r"})
    assert may(container) == "read"
    rules(container, {"allow": True, "type": "c", "major": 10, "minor": 183, "access": "rw"})
    rules(container, {"allow": True, **RULE, "access": "w"})
    assert may(container) == "readwrite"
    # what engines send with each update: the whole list of config.json
    rules(container, *container.bundle.resources["devices"])
    update(container, "--pids-limit", "50")
    assert may(container) == "readwrite"
    rules(container, {"allow": False, **RULE, "access": "w"})
    assert may(container) == "read"
    rules(container, {"allow": False, **RULE, "access": "rwm"})
    assert may(container) == ""
    assert container.exec("sh", "-c", ": <>/dev/null").status == 0
    # one of the runtime's own goes if somebody says so, and comes back
    null = {"type": "c", "major": 1, "minor": 3, "access": "rwm"}
    rules(container, {"allow": False, **null})
    assert may(container, "/dev/zero") == "readwrite"
    assert may(container, "/dev/null") == ""
    rules(container, {"allow": True, **null})
    assert may(container, "/dev/null") == "readwrite"


def test_all_devices_but_one(container: Container, node: str) -> None:
    container.bundle.resources["devices"] = [{"allow": True, "access": "rwm"}]
    container.linux["devices"] = [{"path": "/dev/log", **RULE}]
    container.launch("exec sleep 1000")
    assert may(container) == "readwrite"
    rules(container, {"allow": False, **RULE, "access": "w"})
    assert may(container) == "read"
    rules(container, {"allow": True, "access": "rwm"})  # the list of config.json
    assert may(container) == "read"
    rules(container, {"allow": True, **RULE, "access": "rwm"})
    assert may(container) == "readwrite"


def test_a_device_of_the_configuration_is_taken_away(container: Container) -> None:
    container.linux["devices"] = [{"path": "/dev/log", **RULE}, {"path": "/dev/pipe", "type": "p"}]
    container.bundle.resources["devices"].append({"allow": True, **RULE, "access": "rw"})
    container.launch("exec sleep 1000")
    assert may(container) == "readwrite"
    update(container, "--device-remove", "/dev/log")
    assert not exists(container, "/dev/log")
    container.exec("mknod", "/dev/own", "c", "1", "12", ok=None)
    assert may(container, "/dev/own") == ""
    said = update(container, "--device-remove", "/dev/log", ok=False).stderr
    assert "/dev/log is no device of the container" in said
    for place in ("/dev/null", "/dev/pts/ptmx", "/etc", "/dev/nothing"):
        assert "is no device" in update(container, "--device-remove", place, ok=False).stderr
    assert "not a device" in update(container, "--device-remove", "/dev/pipe", ok=False).stderr
    assert container.exec("test", "-c", "/dev/null").status == 0


@pytest.mark.needs("cgroup1:devices")
def test_what_an_agent_has_allowed_meanwhile_stays(container: Container, node: str) -> None:
    container.launch("exec sleep 1000")
    directory = machine.cgroup_directory("devices", container.cgroup)
    with open(f"{directory}/devices.allow", "w") as file:
        file.write("c 195:* rw")
    for options in (
        ("--pids-limit", "50"), ("--device-add", f"{node}:/dev/log"), ("--device-remove", "/dev/log"),
    ):  # fmt: skip
        update(container, *options)
        assert "c 195:* rw" in container.limit("devices", "devices.list", "").splitlines()
    rules(container, *container.bundle.resources["devices"])
    assert "c 195:* rw" in container.limit("devices", "devices.list", "").splitlines()
    one = {"allow": False, "type": "c", "major": 195, "minor": 0, "access": "rw"}
    said = rules(container, one, ok=False).stderr
    assert "resources.devices[0]: c 195:0 rw is allowed by the rule c 195:* rw" in said
    rules(container, {**one, "minor": -1})
    assert "195" not in container.limit("devices", "devices.list", "")


@pytest.mark.needs("cgroup1:devices")
def test_a_device_that_a_parent_denies(container: Container, node: str) -> None:
    container.linux["cgroupsPath"] += "/below"
    above = machine.cgroup_directory("devices", container.cgroup)
    os.makedirs(above, exist_ok=True)
    with open(f"{above}/devices.deny", "w") as file:
        file.write("c 1:12 rw")
    try:
        container.launch("exec sleep 1000")
        result = update(
            container, "--pids-limit", "77", "--device-add", f"{node}:/dev/log", ok=False
        )
        assert "operation not permitted" in result.stderr
        assert "a parent cgroup denies this device" in result.stderr
        assert not exists(container, "/dev/log")
        assert kept(container) == {"rules": [], "devices": [], "taken": []}
        assert container.limit("pids", "pids.max", "pids.max") != "77"
    finally:
        container.delete("--force")
        os.rmdir(above)


def test_what_fails_leaves_everything_as_it_was(container: Container, node: str) -> None:
    container.launch("exec sleep 1000")
    update(container, "--device-add", f"{node}:/dev/log:r")
    before = kept(container)
    for options, said in (
        (("--device-add", f"{node}:/dev/two", "--device-add", f"{node}:/proc/x"), "/proc/x: "),
        (("--device-add", f"{node}:/dev/two", "--cpuset-cpus", "4000"), "cpuset"),
    ):
        assert said in update(container, *options, ok=False).stderr
        assert not exists(container, "/dev/two")
        assert kept(container) == before
        assert may(container) == "read"


@pytest.mark.parametrize(
    ("option", "word", "said"),
    [
        ("--device-add", "dev/log", "must be an absolute path, got 'dev/log'"),
        ("--device-add", "{0}:dev/log:r", "must be an absolute path, got 'dev/log'"),
        ("--device-add", "{0}:/a:/b:/c", r"must be PATH\[:PATH\]\[:rwm\]"),
        ("--device-add", "{0}:/dev/x:rx", "access must be made of r, w and m, got 'rx'"),
        ("--device-add", "{0}:/dev/x:", "access must be made of r, w and m, got ''"),
        ("--device-add", "{0}:/dev/x:rr", "access must be made of"),
        ("--device-add", "{0}:/", "must be below the root"),
        ("--device-add", "{0}:/dev/../..", "must be below the root"),
        ("--device-add", "/no/such", "/no/such: no such file or directory"),
        ("--device-add", "/etc/passwd:/dev/x", "/etc/passwd is not a device"),
        ("--device-add", "/dev:/dev/x", "/dev is not a device"),
        ("--device-add", "{0}:/dev/zero", "/dev/zero is there already and is not that device"),
        ("--device-add", "{0}:/bin", "/bin is there already and is not that device"),
        ("--device-add", "{0}:/bin/sh/x", "/bin/sh/x: not a directory"),
        ("--device-add", "{0}:/volume/x", "/volume/x lies in a mount of the host's"),
        ("--device-add", "{0}:/volume/deep/er/x", "/volume/deep/er/x lies in a mount of the host"),
        ("--device-add", "{0}:/lead/x", "/lead/x lies in a mount of the host's"),
        ("--device-add", "{0}:/dev/shm/x", "/dev/shm/x lies in a mount with nodev"),
        ("--device-add", "{0}:/sys/x", "/sys/x: "),
        ("--device-remove", "dev/x", "must be an absolute path"),
        ("--device-remove", "/volume/log", "is no device of the container"),
    ],
)
def test_what_cannot_be(container: Container, node: str, option: str, word: str, said: str) -> None:
    volume = os.path.dirname(node)
    container.config["mounts"].append(
        {"destination": "/volume", "source": volume, "type": "bind", "options": ["rbind"]}
    )
    os.symlink("volume", os.path.join(container.bundle.rootfs, "lead"))
    container.launch("exec sleep 1000")
    result = update(container, option, word.format(node), ok=False)
    assert re.search(said, result.stderr), result.explain()
    assert result.stderr.startswith(f"anocir: {option}")
    assert os.listdir(volume) == ["log"]
    assert kept(container) == {"rules": [], "devices": [], "taken": []}
    container.kill("KILL")
    container.wait()
    assert "not running" in update(container, option, word.format(node), ok=False).stderr


def test_without_cgroups_nobody_is_kept_from_devices(container: Container, node: str) -> None:
    container.bundle.sh("exec sleep 1000")
    container.bundle.write()
    container.runtime(
        "--cgroup-manager", "disabled", "create", "--bundle", container.bundle.path, container.id
    )
    said = update(container, "--device-add", f"{node}:/dev/log", ok=False).stderr
    assert "the container has no cgroup of its own (--cgroup-manager=disabled)" in said
    assert "no cgroup" in rules(container, {"allow": True, **RULE}, ok=False).stderr
    container.start()
    assert not exists(container, "/dev/log")


def test_one_that_is_there_already_is_not_ours(container: Container, node: str) -> None:
    container.launch("mknod /dev/mine c 1 12; touch /ready; exec sleep 1000")
    drive.until("its node", lambda: container.bundle.has("/ready"))
    update(container, "--device-add", f"{node}:/dev/mine:r")
    assert may(container, "/dev/mine") == "read"
    update(container, "--device-remove", "/dev/mine")
    assert exists(container, "/dev/mine")
    assert may(container, "/dev/mine") == ""
    # and what the container has put in the place of ours stays
    update(container, "--device-add", f"{node}:/dev/log:r")
    container.exec("sh", "-c", "rm /dev/log; echo mine >/dev/log")
    update(container, "--device-remove", "/dev/log")
    assert container.exec("cat", "/dev/log").stdout == "mine\n"


def test_a_paused_container_is_changed_too(container: Container, node: str) -> None:
    container.launch("exec sleep 1000")
    container.runtime("pause", container.id)
    update(container, "--device-add", f"{node}:/dev/log:rw")
    container.runtime("resume", container.id)
    assert may(container) == "readwrite"


def test_a_container_on_the_mounts_of_the_host_is_refused(container: Container, node: str) -> None:
    container.bundle.drop_namespace("mount")
    container.config["mounts"] = []
    for key in ("maskedPaths", "readonlyPaths"):
        container.linux.pop(key, None)
    container.launch("exec sleep 1000")
    said = update(container, "--device-add", f"{node}:/dev/log", ok=False).stderr
    assert "devices: the container has no mount namespace of its own" in said


def test_a_place_that_the_container_exchanges_leads_nowhere(
    container: Container, node: str
) -> None:
    """The program swaps a directory for a link into a volume as fast as it can; without that link
    the node would be there."""  # noqa: D209
    victim = container.bundle.outside("victim")
    container.config["mounts"].append(
        {"destination": "/volume", "source": victim, "type": "bind", "options": ["rbind"]}
    )
    swap = os.path.join(container.bundle.rootfs, "swap")
    os.makedirs(f"{swap}/place")
    os.symlink("/volume", f"{swap}/link")
    container.launch("exec sleep 1000")
    if os.statvfs(swap).f_flag & os.ST_NODEV:
        pytest.skip("[nodev] the root file systems of this machine's tests are mounted nodev")
    update(container, "--device-add", f"{node}:/swap/place/log")  # the control
    assert os.path.exists(f"{swap}/place/log")
    update(container, "--device-remove", "/swap/place/log")

    def exchange() -> None:
        os.rename(f"{swap}/place", f"{swap}/kept")
        os.rename(f"{swap}/link", f"{swap}/place")
        os.rename(f"{swap}/place", f"{swap}/link")
        os.rename(f"{swap}/kept", f"{swap}/place")

    with drive.over_and_over(exchange):
        for _ in range(15):
            if update(container, "--device-add", f"{node}:/swap/place/log", ok=None).status == 0:
                update(container, "--device-remove", "/swap/place/log", ok=None)
    assert os.listdir(victim) == []
