"""Rootless Podman with anocir, in a machine with a normal user."""

from __future__ import annotations

import shutil

import pytest

from tests.vm.test_vm import inside, machine, pytest_words  # noqa: F401

pytestmark = [
    pytest.mark.vm,
    pytest.mark.timeout(2700),
    pytest.mark.skipif(not shutil.which("podman"), reason="[podman] this machine has not podman"),
]


def test_podman_as_a_user_with_a_systemd_session():
    said = inside(
        *pytest_words("tests/vm/inside/rootless_podman.py"), options=("--systemd", "--user")
    )
    assert " passed" in said
    assert "skipped" not in said
