"""The systemd cgroup driver under a real systemd, which boots natively in a second (boot.sh).

With the host's cgroup v1 hierarchies, with cgroup v2 alone (without the controllers that v1 has), and as a user with
a session. What needs limits on v2 has a machine of its own (tests/vm).
"""

from __future__ import annotations

import os
import subprocess

import pytest

from tests import machine
from tests.systemd import boot

pytestmark = pytest.mark.runtime

KERNEL = "tests/kernel/test_cgroup_systemd.py"
DRIVER = "tests/systemd/inside/driver.py"
USER = "tests/systemd/inside/user.py"
# no controller is left for version 2 on a host that has them all in version 1
LIMITS = ("cgroup:memory", "cgroup:cpu", "cgroup:pids")


@pytest.fixture(autouse=True)
def bootable():
    lacking = boot.lacking()
    if lacking:
        pytest.skip(f"[native-systemd] this machine has not {lacking}")


@pytest.mark.needs("cgroup1")
def test_the_driver_on_the_hosts_own_hierarchies():
    boot.passes(files=(KERNEL, DRIVER), gates=("cgroup2-only",))


@pytest.mark.needs("cgroup1")
def test_limits_are_felt_with_both_drivers():
    boot.passes(files=("tests/vm/inside/felt.py",), gates=("cgroup2-only",))


def test_the_driver_on_cgroup_v2():
    felt = "tests/vm/inside/felt.py::test_"
    both = (
        f"{felt}a_device_comes_and_goes_while_it_runs",
        f"{felt}what_programs_of_others_deny_is_an_error",
    )
    boot.passes("--cgroup", "v2", files=(KERNEL, DRIVER, *both), gates=LIMITS)


def test_a_user_with_a_session_on_cgroup_v2():
    boot.passes("--cgroup", "v2", "--user", "1000", files=(KERNEL, USER), gates=LIMITS)


@pytest.mark.needs("cgroup1")
def test_a_user_on_cgroup_v1_gets_one_clear_sentence(tmp_path_factory):
    runtime = os.path.join(boot.REPOSITORY, "dist/anocir")
    quiet = "sed -i '/\"terminal\"/s/true/false/' config.json; mkdir -p rootfs"
    script = f"cd; {runtime} spec --rootless; {quiet}; {runtime} --systemd-cgroup create mine"
    done = boot.boot("--user", "1000", command=("/bin/sh", "-c", script))
    assert done.returncode == 1
    said = [line for line in done.stdout.splitlines() if line.startswith("anocir: ")]
    assert said[0] == (
        "anocir: the systemd cgroup manager without root needs cgroup v2, and this host has v1"
    )


def test_nothing_of_it_is_left():
    """After a normal end, and after a kill of the script itself."""

    def traces() -> set[str]:
        found = {
            f"{hierarchy.mountpoint}/{name}"
            for hierarchy in machine.hierarchies()
            for name in os.listdir(hierarchy.mountpoint)
            if name.startswith("anocir-systemd")
        }
        base = "/run/anocir-systemd"
        return found | set(os.listdir(base) if os.path.isdir(base) else ())

    before = traces()
    done = boot.boot(command=("sh", "-c", "systemd-run -q sleep 1000; exit 7"))
    assert done.returncode == 7, done.stdout
    assert traces() <= before
    words = [boot.SCRIPT, "run", "sh", "-c", "echo up; sleep 1000"]
    with subprocess.Popen(words, cwd=boot.REPOSITORY, stdout=subprocess.PIPE) as killed:
        assert killed.stdout is not None
        assert killed.stdout.readline() == b"up\n"
        killed.kill()
    machine_is_clean = f"{boot.SCRIPT} list >/dev/null"
    for _ in range(100):
        subprocess.run(machine_is_clean, shell=True, check=False, capture_output=True)
        if traces() <= before:
            break
        subprocess.run(["sleep", "0.1"], check=True)
    assert traces() <= before
