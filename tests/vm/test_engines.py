"""Docker and Podman with anocir on cgroup v2, in a machine whose first process is systemd."""

from __future__ import annotations

import shutil

import pytest

from tests.vm.test_vm import all_passed, inside, machine, pytest_words  # noqa: F401

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2700)]
PROGRAMS = ("dockerd", "docker", "containerd", "podman", "conmon", "busybox")

for _name in PROGRAMS:
    pytestmark.append(
        pytest.mark.skipif(
            not shutil.which(_name), reason=f"[{_name}] this machine has not {_name}"
        )
    )


def test_docker_and_podman_with_systemd_cgroups():
    words = pytest_words("tests/vm/inside/engines.py")
    all_passed(inside(*words, options=("--systemd",)))
