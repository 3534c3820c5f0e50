"""`diff`: where a container that runs is no more what its config.json says."""

from __future__ import annotations

import json
import os
import stat
from typing import Any

import pytest

from tests import machine
from tests.drive import Container


def differences(container: Container, kind: str = "") -> list[dict[str, Any]]:
    """What it says, of one kind."""
    said = container.runtime("diff", "--format", "json", container.id).stdout
    found: list[dict[str, Any]] = json.loads(said)
    return [each for each in found if not kind or each["kind"] == kind]


ALL = ("cgroup:memory", "cgroup:cpu", "cgroup:cpuset", "cgroup:pids")


@pytest.mark.needs(*ALL)
@pytest.mark.parametrize("mapped", [False, True])
def test_nothing_differs_at_first(container: Container, mapped: bool) -> None:
    container.config["root"]["readonly"] = not mapped
    source = container.bundle.outside("source")
    os.makedirs(os.path.join(container.bundle.rootfs, "var"))
    os.symlink("../tmp", os.path.join(container.bundle.rootfs, "var/link"))
    container.config["mounts"] += [
        {
            "destination": "/var/link/on",
            "source": source,
            "type": "bind",
            "options": ["rbind", "ro"],
        },
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]},
    ]
    if container.config["root"]["readonly"]:
        os.makedirs(os.path.join(container.bundle.rootfs, "tmp/on"))
    container.linux["maskedPaths"] = ["/proc/kcore", "/proc/acpi", "/sys/firmware"]
    container.linux["readonlyPaths"] = ["/proc/bus", "/proc/sys"]
    container.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    container.bundle.resources["devices"] += [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"},
        {"allow": True, "type": "b", "access": "r"},
        {"allow": False, "type": "b", "access": "r"},
    ]
    container.bundle.resources.update(
        {
            "memory": {"limit": 60_000_001, "reservation": 30_000_000},
            "cpu": {"shares": 300, "quota": 40000, "period": 50000, "cpus": "0"},
            "pids": {"limit": 90},
        }
    )
    if mapped:
        container.bundle.use_user_namespace()
    container.launch("exec sleep 1000")
    assert differences(container) == []
    said = container.runtime("diff", container.id).stdout
    assert said == f"{container.id} is as its config.json says\n"
    # what engines send changes nothing
    text = json.dumps(container.bundle.resources)
    container.runtime("update", "--resources", "-", container.id, stdin=text)
    assert differences(container) == []


@pytest.mark.needs(*ALL)
def test_what_was_changed_is_shown_with_both_values(container: Container) -> None:
    source = container.bundle.outside("source")
    node = os.path.join(source, "fuse")
    os.mknod(node, 0o666 | stat.S_IFCHR, os.makedev(1, 12))
    container.bundle.resources.update({"memory": {"limit": 64 << 20}, "pids": {"limit": 90}})
    container.launch("exec sleep 1000")
    container.runtime(
        "update", "--memory", "48m", "--cpu-quota", "30000",
        "--device-add", f"{node}:/dev/new:r", container.id,
    )  # fmt: skip
    limits = {each["path"]: each for each in differences(container, "limit")}
    memory = limits.pop("linux.resources.memory.limit")
    assert (memory["config"], memory["running"]) == (str(64 << 20), str(48 << 20))
    assert os.path.basename(memory["what"]) in ("memory.limit_in_bytes", "memory.max")
    quota = limits.pop("linux.resources.cpu.quota")
    assert quota["config"] is None
    assert quota["running"].startswith("30000")
    assert limits == {}
    # and what nobody has told the runtime of
    directory = machine.cgroup_directory("pids", container.cgroup)
    with open(f"{directory}/pids.max", "w") as file:
        file.write("70")
    container.runtime("update", "--memory", "64m", "--cpu-quota", "-1", container.id)
    said = container.runtime("diff", container.id).stdout.splitlines()
    assert (
        f"limit   linux.resources.pids.limit: config.json 90, now 70 ({directory}/pids.max)" in said
    )

    rules = "nothing, now r" if machine.v1_mountpoint("devices") else "m, now rm"
    assert [row for row in said if row.startswith("device ")] == [
        f"device  c 1:12: config.json {rules}",
        "device  /dev/new: config.json nothing, now c 1:12 r",
    ]
    assert len(said) == 3
    container.runtime("update", "--device-remove", "/dev/new", container.id)
    assert differences(container, "device") == []


@pytest.mark.needs("cgroup1:devices")
def test_what_an_agent_has_done_to_the_rules(container: Container) -> None:
    container.launch("exec sleep 1000")
    directory = machine.cgroup_directory("devices", container.cgroup)
    for name, line in (("allow", "c 195:* rw"), ("deny", "c 10:200 rwm")):
        with open(f"{directory}/devices.{name}", "w") as file:
            file.write(line)
    found = {each["what"]: (each["config"], each["running"]) for each in differences(container)}
    assert found == {"c 195:*": (None, "rw"), "c 10:200": ("rwm", None)}
    with open(f"{directory}/devices.allow", "w") as file:
        file.write("a")
    (row,) = differences(container)
    assert (row["config"], row["running"]) == ("only some", "all but some")


@pytest.mark.needs("mount_setattr")
def test_mounts_that_came_and_went(container: Container) -> None:
    source = container.bundle.outside("source", "")
    container.process["capabilities"] = {
        key: ["CAP_SYS_ADMIN"] for key in ("bounding", "effective", "permitted")
    }
    container.config["mounts"].append(
        {"destination": "/data", "source": "/etc", "type": "bind", "options": ["bind", "ro"]}
    )
    container.launch("exec sleep 1000")
    assert differences(container) == []
    container.exec("sh", "-c", "umount /dev/mqueue; mount -t tmpfs own /tmp; umount /sys")
    container.exec("mount", "-o", "remount,bind,rw", "/data")
    path = container.bundle.outside(
        "mounts.json", json.dumps([{"destination": "/new", "source": source, "options": ["bind"]}])
    )
    container.runtime("mounts", "add", container.id, path)
    found = {each["what"]: each for each in differences(container, "mount")}
    assert set(found) == {"/dev/mqueue", "/tmp", "/sys", "/data", "/new"}
    assert found["/dev/mqueue"]["config"] == "mqueue of mqueue"
    assert found["/dev/mqueue"]["running"] is found["/sys"]["running"] is None
    assert found["/tmp"]["config"] is None
    assert found["/tmp"]["running"].startswith("tmpfs: / of tmpfs")
    assert found["/new"]["running"].startswith("mounts add: ")
    assert found["/data"]["config"] == "ro"
    assert found["/data"]["path"] == "mounts[6].options"


def test_a_stopped_or_unknown_container_is_an_error(container: Container) -> None:
    pid = container.launch("exec sleep 1000")
    container.kill("KILL")
    container.wait_exit(pid)
    assert "not running" in container.runtime("diff", container.id, ok=False).stderr
    assert "does not exist" in container.runtime("diff", "nobody", ok=False).stderr
