"""What no other test of this tier noticed when tests/mutations.py broke it."""

from __future__ import annotations

import os
import time

import pytest

from tests.drive import Container

HOOKS = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]


@pytest.mark.parametrize("name", HOOKS)
def test_a_hook_has_no_descriptor_of_the_caller(container: Container, name: str) -> None:
    path = container.bundle.outside("descriptors", "")
    script = f'list=$(for fd in /proc/self/fd/*; do echo "${{fd##*/}}"; done); echo $list > {path}'
    container.bundle.hook(name, script)
    container.bundle.sh("sleep 100")
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    try:
        high = 200
        os.dup2(leaked, high)
        container.create(close_fds=False)
        container.start(close_fds=False)
        container.runtime("delete", "--force", container.id, close_fds=False)
    finally:
        os.close(leaked)
        os.close(high)
    with open(path) as file:
        found = file.read().split()
    assert {"0", "1", "2"} <= set(found)
    assert str(high) not in found


TWO = """
sh -c 'trap "echo got > /child" USR1; echo ready > /ready; while :; do sleep 0.02; done' &
trap "echo got > /first" USR1
while :; do sleep 0.02; done
"""


def test_a_signal_for_all_reaches_more_than_the_first_process(container: Container) -> None:
    container.launch(TWO)
    container.wait_file("/ready")
    container.runtime("kill", "--all", container.id, "USR1")
    assert container.wait_file("/child") == "got\n"
    assert container.status == "running"


def test_a_signal_reaches_the_first_process_only(container: Container) -> None:
    container.launch(TWO)
    container.wait_file("/ready")
    container.kill("USR1")
    assert container.wait_file("/first") == "got\n"
    time.sleep(0.2)
    assert not container.bundle.has("/child")
