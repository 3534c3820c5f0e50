"""A user with a session: units of the user's own manager, which moves what the user may not."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.vm.inside.container import RUNTIME, Box
from tests.vm.inside.rootless import unprivileged

UNIT = "anocir-mine.scope"


@pytest.fixture
def box():
    assert os.getuid() != 0
    made = Box("mine", "--systemd-cgroup")
    made.config["linux"]["cgroupsPath"] = "user.slice:anocir:mine"
    made.config["linux"]["resources"] = {}
    unprivileged(made)
    yield made
    made.remove()


def state(unit: str) -> str:
    command = ["systemctl", "--user", "show", unit, "--property=ActiveState", "--value"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_a_container_is_a_unit_of_the_users_manager(box):
    pid = box.create()
    assert state(UNIT) == "active"
    cgroup = open(f"/proc/{pid}/cgroup").read()
    assert f"/user@{os.getuid()}.service/user.slice/{UNIT}\n" in cgroup
    box.call("delete", "--force", box.id)
    assert state(UNIT) == "inactive"


def test_exec_from_a_logins_cgroup_is_moved_by_the_manager(box):
    """It stayed in the caller's: limits, pause and kill did not cover it."""
    box.create()
    told = box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    assert f"/{UNIT}\n" in told
    box.call("exec", "--detach", box.id, "/bin/sleep", "1000")
    assert len(box.call("ps", "--format", "json", box.id).stdout.split(",")) == 2


def test_inside_of_a_user_namespace_the_bus_still_knows_the_user(box):
    """As under Podman without root: uid 0 there, another one for the bus."""
    script = 'export DBUS_SESSION_BUS_ADDRESS="$1"; shift; exec "$@"'
    for address in (os.environ["DBUS_SESSION_BUS_ADDRESS"], ""):
        words = [RUNTIME, "--systemd-cgroup", "run", "--bundle", box.dir, box.id]
        box.config["process"]["args"] = ["/bin/cat", "/proc/self/cgroup"]
        box.config["linux"]["namespaces"] = [
            space for space in box.config["linux"]["namespaces"] if space["type"] != "user"
        ]
        for key in ("uidMappings", "gidMappings"):
            box.config["linux"].pop(key, None)
        box.write()
        done = subprocess.run(
            ["unshare", "-Urm", "sh", "-c", script, "sh", address, *words],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"/{UNIT}\n" in done.stdout
