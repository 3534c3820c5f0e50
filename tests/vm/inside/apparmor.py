"""AppArmor profiles enforced: the container's own, another for exec, and the one that Docker brings."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
import tempfile

import pytest

from tests.vm.inside.container import PATIENCE, RUNTIME, Box, dockerd

PROFILES = """
profile anocir-tight flags=(attach_disconnected) {
  file,
  signal,
  unix,
  capability,
  deny /tmp/secret w,
}
profile anocir-other flags=(attach_disconnected) {
  file,
  signal,
  unix,
}
"""


@pytest.fixture(scope="module", autouse=True)
def profiles():
    with tempfile.NamedTemporaryFile("w", suffix=".profile") as file:
        file.write(PROFILES)
        file.flush()
        subprocess.run(["apparmor_parser", "-r", "-K", file.name], check=True)
    yield


@pytest.fixture
def box():
    made = Box("confined")
    made.config["root"]["readonly"] = False
    made.config["process"]["apparmorProfile"] = "anocir-tight"
    made.config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777"]}
    )
    yield made
    made.remove()


SCRIPT = "cat /proc/self/attr/current; (echo x >/tmp/free) && echo free; (echo x >/tmp/secret) 2>/dev/null || echo denied"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_profile_of_the_container_is_enforced(box, no_new_privileges):
    box.config["process"]["noNewPrivileges"] = no_new_privileges
    box.config["process"]["args"] = ["/bin/sh", "-c", SCRIPT]
    assert box.run().splitlines() == ["anocir-tight (enforce)", "free", "denied"]


def test_exec_has_the_profile_of_the_container_or_one_of_its_own(box):
    box.config["process"]["noNewPrivileges"] = False
    pid = box.create()
    with open(f"/proc/{pid}/attr/current") as file:
        assert file.read() == "anocir-tight (enforce)\n"
    said = box.call("exec", box.id, "/bin/sh", "-c", SCRIPT).stdout.splitlines()
    assert said == ["anocir-tight (enforce)", "free", "denied"]
    said = box.call("exec", "--apparmor", "anocir-other", box.id, "/bin/sh", "-c", SCRIPT).stdout
    assert said.splitlines() == ["anocir-other (enforce)", "free"]


def test_a_profile_that_is_not_loaded_is_an_error_that_names_it(box):
    box.config["process"]["apparmorProfile"] = "anocir-missing"
    box.write()
    failed = box.call("run", "--bundle", box.dir, box.id, check=False)
    assert failed.returncode != 0
    assert "anocir-missing" in failed.stderr and "process.apparmorProfile" in failed.stderr
    hint = "the AppArmor profile anocir-missing is not loaded: apparmor_parser -r FILE loads one"
    assert hint in failed.stderr


def test_a_file_of_the_image_cannot_take_the_place_of_proc(box):
    # the label goes through a procfs of the runtime's own, whatever is mounted on the container's /proc
    box.config["mounts"] = [
        entry for entry in box.config["mounts"] if entry["destination"] != "/proc"
    ]
    os.makedirs(os.path.join(box.dir, "rootfs/proc/thread-self/attr/apparmor"))
    for path in ("apparmor/exec", "exec"):
        with open(os.path.join(box.dir, "rootfs/proc/thread-self/attr", path), "w"):
            pass
    pid = box.create()
    with open(f"/proc/{pid}/attr/current") as file:
        assert file.read() == "anocir-tight (enforce)\n"
    assert os.path.getsize(os.path.join(box.dir, "rootfs/proc/thread-self/attr/apparmor/exec")) == 0


@pytest.mark.skipif(not shutil.which("dockerd"), reason="[dockerd] this machine has not dockerd")
def test_dockers_default_profile_is_applied_and_enforced():
    options = ["--bridge=none", "--iptables=false", "--ip6tables=false"]
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        tar.add(shutil.which("busybox"), "bin/busybox")
        for name in ("sh", "cat", "echo", "mount"):
            link = tarfile.TarInfo("bin/" + name)
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    # what docker-default denies: writing to files of /proc that are the host's
    script = "cat /proc/self/attr/current; (echo 1 >/proc/sysrq-trigger) 2>/dev/null || echo denied"
    run = ["docker", "run", "--rm", "--network=none", "--runtime"]
    with dockerd(*options, f"--add-runtime=mine={RUNTIME}"):
        subprocess.run(
            ["docker", "import", "-", "box"],
            input=data.getvalue(),
            check=True,
            capture_output=True,
        )
        for runtime in ("mine", "runc"):
            done = subprocess.run(
                [*run, runtime, "box", "sh", "-c", script],
                capture_output=True, text=True, timeout=PATIENCE,
            )  # fmt: skip
            assert done.stdout.splitlines() == ["docker-default (enforce)", "denied"], done.stderr
        own = ["--security-opt", "apparmor=anocir-tight"]
        done = subprocess.run(
            [*run, "mine", *own, "box", "cat", "/proc/self/attr/current"],
            capture_output=True, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.stdout == "anocir-tight (enforce)\n", done.stderr
