"""Security modules, in machines that have them: AppArmor with Docker's profile, SELinux with a policy of our own."""

from __future__ import annotations

import shutil

import pytest

from tests.vm.test_vm import inside, machine, pytest_words  # noqa: F401

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2700)]


@pytest.mark.skipif(
    not shutil.which("apparmor_parser"),
    reason="[apparmor_parser] this machine has not apparmor_parser",
)
def test_apparmor_is_enforced_and_docker_default_applied():
    files = ("tests/vm/inside/apparmor.py", "tests/vm/inside/cgroup_namespaces.py")
    said = inside(*pytest_words(*files))
    assert " passed" in said
    assert "skipped" not in said


@pytest.mark.skipif(
    not shutil.which("checkpolicy"), reason="[checkpolicy] this machine has not checkpolicy"
)
def test_selinux_labels_processes_mounts_and_keyrings():
    said = inside(*pytest_words("tests/vm/inside/selinux.py"), options=("--lsm=selinux",))
    assert " passed" in said
    assert "skipped" not in said
