"""sd_notify(3): the caller's service manager hears that the program is ready, and `start` waits for it."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from typing import Iterator

import pytest

from tests import drive
from tests.drive import Container, until

INSIDE = "/run/notify/notify.sock"


class Manager:
    """The socket of a service manager."""

    def __init__(self, path: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.sock.settimeout(drive.TIMEOUT)
        self.env = {"NOTIFY_SOCKET": path, "PATH": os.environ["PATH"]}

    def message(self) -> bytes:
        return self.sock.recv(4096)  # descriptors that come along are closed

    def is_silent(self) -> bool:
        return not select.select([self.sock], [], [], 0)[0]


@pytest.fixture
def manager(container: Container) -> Iterator[Manager]:
    one = Manager(os.path.join(container.bundle.path, "manager"))
    yield one
    one.sock.close()


def say(pid: int, message: bytes) -> None:
    """Send as a process of the container would: through its own mounts."""
    path = f"/proc/{pid}/root{INSIDE}"
    until("the socket", lambda: os.path.exists(path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(message, path)


def is_known(container: Container) -> bool:
    return container.runtime("state", container.id, ok=None).status == 0


def starting(container: Container, manager: Manager, *words: str) -> subprocess.Popen[bytes]:
    command = container.runtime.command(*(words or ("start", container.id)))
    return drive.spawn(command, env=manager.env)


def test_start_waits_until_the_program_is_ready(container: Container, manager: Manager) -> None:
    container.bundle.sh("echo $NOTIFY_SOCKET; sleep 600")
    container.create(env=manager.env)
    pid = container.pid
    child = starting(container, manager)
    say(pid, b"STATUS=starting")
    container.wait("running")
    assert child.poll() is None and manager.is_silent()
    say(pid, b"STATUS=up\nREADY=1\nMAINPID=1")
    assert manager.message() == b"READY=1\nMAINPID=%d" % pid
    assert manager.message() == b"BARRIER=1"
    assert drive.finish(child) == 0
    until("the output", lambda: container.output() == INSIDE + "\n")


def test_the_directory_is_read_only_inside(container: Container, manager: Manager) -> None:
    container.bundle.sh(
        "touch /run/notify/x; rm /run/notify/notify.sock; ls /run/notify; sleep 600"
    )
    container.create(env=manager.env)
    pid = container.pid
    child = starting(container, manager)
    until("the listing", lambda: "notify.sock" in container.output())
    assert container.errors().count("Read-only file system") == 2
    say(pid, b"READY=1")
    manager.message()
    manager.message()
    assert drive.finish(child) == 0


def test_start_ends_with_a_program_that_is_never_ready(
    container: Container, manager: Manager
) -> None:
    container.bundle.sh("sleep 0.1")
    container.create(env=manager.env)
    assert drive.finish(starting(container, manager)) == 0
    assert container.status == "stopped" and manager.is_silent()


def test_other_commands_go_on_while_start_waits(container: Container, manager: Manager) -> None:
    container.bundle.sh("sleep 600")
    container.create(env=manager.env)
    child = starting(container, manager)
    container.wait("running")
    assert container.exec("echo", "hello").stdout == "hello\n"
    container.kill("KILL")
    assert drive.finish(child) == 0
    container.delete()
    assert manager.is_silent()


@pytest.mark.parametrize("env", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}])
def test_without_a_manager_nothing_is_there(container: Container, env: dict[str, str]) -> None:
    output = container.run(
        "echo .$NOTIFY_SOCKET.; ls -d /run/notify", ok=None, env={"PATH": "/bin", **env}
    )
    assert output == "..\n"


def test_start_without_a_manager_does_not_wait(container: Container, manager: Manager) -> None:
    container.bundle.sh("sleep 600")
    container.create(env=manager.env)
    container.start()
    assert container.status == "running" and manager.is_silent()


def test_a_detached_run_waits_too(container: Container, manager: Manager) -> None:
    container.bundle.sh("sleep 600")
    container.bundle.write()
    child = starting(
        container, manager, "run", "--detach", "--bundle", container.bundle.path, container.id
    )
    until("the container", lambda: is_known(container))
    container.wait("running")
    pid = container.pid
    assert child.poll() is None
    say(pid, b"READY=1")
    assert manager.message() == b"READY=1\nMAINPID=%d" % pid
    assert manager.message() == b"BARRIER=1"
    assert drive.finish(child) == 0


def test_a_run_in_the_foreground_forwards_and_goes_on(
    container: Container, manager: Manager
) -> None:
    container.bundle.sh("sleep 600")
    container.bundle.write()
    child = starting(container, manager, "run", "--bundle", container.bundle.path, container.id)
    until("the container", lambda: is_known(container))
    container.wait("running")
    pid = container.pid
    say(pid, b"READY=1")
    assert manager.message() == b"READY=1\nMAINPID=%d" % pid
    assert manager.message() == b"BARRIER=1"
    assert child.poll() is None
    container.kill("KILL")
    assert drive.finish(child) == 137


def test_a_manager_that_is_gone_does_not_stop_the_container(
    container: Container, manager: Manager
) -> None:
    container.bundle.sh("sleep 600")
    container.create(env=manager.env)
    pid = container.pid
    child = starting(container, manager)
    container.wait("running")
    manager.sock.close()
    say(pid, b"READY=1")
    assert drive.finish(child) == 0
    assert container.status == "running"


@pytest.mark.needs("user-namespace")
def test_it_works_in_a_user_namespace(container: Container, manager: Manager) -> None:
    container.bundle.use_user_namespace()
    container.bundle.make_directory("/run/notify")  # root of the container may not
    container.bundle.sh("sleep 600")
    container.create(env=manager.env)
    pid = container.pid
    child = starting(container, manager)
    say(pid, b"READY=1")
    assert manager.message().startswith(b"READY=1")
    manager.message()
    assert drive.finish(child) == 0
