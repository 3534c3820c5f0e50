"""The sd_notify proxy: what a manager's socket gets, and when the proxy is done."""

from __future__ import annotations

import os
import select
import socket
import stat
import struct
import time

import pytest

from anocir.host import notify
from tests.kernel import child
from tests.wait import others_go_on

pytestmark = pytest.mark.kernel


class Manager:
    """A service manager's socket; it closes the descriptors of a barrier when it has read them."""

    def __init__(self, address: str) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(address)
        self.sock.settimeout(60)

    def message(self) -> tuple[bytes, int, int]:
        """The next message: its text, the sender's pid, the number of descriptors."""
        data, control, _, _ = self.sock.recvmsg(4096, 1024)
        sender = descriptors = 0
        for _, kind, value in control:
            if kind == socket.SCM_CREDENTIALS:
                sender = struct.unpack("=3i", value)[0]
            elif kind == socket.SCM_RIGHTS:
                for (fd,) in struct.iter_unpack("=i", value):
                    os.close(fd)
                    descriptors += 1
        return data, sender, descriptors

    def is_silent(self) -> bool:
        return not select.select([self.sock], [], [], 0)[0]


@pytest.fixture
def manager(tmp_path, monkeypatch):
    one = Manager(str(tmp_path / "manager"))
    monkeypatch.setattr(notify, "_BARRIER_PATIENCE", 60.0)  # a busy machine is no slow manager
    monkeypatch.setitem(os.environb, b"NOTIFY_SOCKET", os.fsencode(tmp_path / "manager"))
    monkeypatch.setitem(notify.posix.environ, b"NOTIFY_SOCKET", os.fsencode(tmp_path / "manager"))
    yield one
    one.sock.close()


@pytest.fixture
def box(tmp_path):
    """The descriptor of a state directory with a long path."""
    path = tmp_path / ("d" * 100) / "box"
    path.mkdir(parents=True)
    fd = os.open(path, os.O_RDONLY)
    notify.prepare(fd)
    yield fd
    os.close(fd)


def say(box: int, *messages: bytes, fds: tuple[int, ...] = ()) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect(f"/proc/self/fd/{box}/notify/notify.sock")
        for message in messages:
            socket.send_fds(sock, [message], fds) if fds else sock.send(message)


READY = [
    (b"READY=1", b"READY=1"), (b"STATUS=up\nREADY=1\nMAINPID=4", b"READY=1"), (b"READY=1\n", b"READY=1"),
    (b"STATUS=READY=1", b""), (b"", b""), (b"ready=1", b""), (b"X_READY=1", b""), (b"STOPPING=1\nBARRIER=1", b""),
    (b"\xff\n\0\nREADY=1", b"READY=1"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "line"), READY)
def test_the_line_that_says_ready(message: bytes, line: bytes) -> None:
    assert notify.ready(message) == line


@pytest.mark.parametrize(
    ("value", "address"),
    [
        (b"/run/x", b"/run/x"),
        (b"@abc", b"\0abc"),
        (b"", b""),
        (b"@", b""),
        (b"vsock:2:1", b""),
        (b"relative", b""),
    ],
)
def test_the_address_of_the_manager(value: bytes, address: bytes) -> None:
    assert notify._address(value) == address


def test_without_a_manager_nothing_is_made(box, monkeypatch) -> None:
    monkeypatch.delitem(notify.posix.environ, b"NOTIFY_SOCKET", raising=False)
    assert not notify.wanted() and notify.facts("/run/box") == {} and notify.open_proxy(box) is None


def test_the_facts_for_the_plan(manager) -> None:
    assert notify.wanted()
    assert notify.facts("/run/anocir/box") == {
        "notify": "/run/notify/notify.sock", "notify_source": "/run/anocir/box/notify",
    }  # fmt: skip


def test_every_user_may_reach_the_socket_whatever_the_umask(tmp_path, manager) -> None:
    old = os.umask(0o077)
    try:
        fd = os.open(tmp_path, os.O_RDONLY)
        notify.prepare(fd)
        proxy = notify.open_proxy(fd)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(old)
    os.close(fd)
    proxy.close()
    modes = [
        stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("notify", "notify/notify.sock")
    ]
    assert modes == [0o755, 0o777]


def test_a_container_that_was_made_without_a_manager_has_no_proxy(tmp_path, manager) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    assert notify.open_proxy(fd) is None
    os.close(fd)


def test_a_link_in_the_place_of_the_directory_or_the_socket_is_not_followed(
    tmp_path, manager
) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "notify").symlink_to("elsewhere")
    with pytest.raises(OSError):
        notify.open_proxy(fd)
    (tmp_path / "notify").unlink()
    notify.prepare(fd)
    (tmp_path / "notify" / "notify.sock").symlink_to(tmp_path / "elsewhere" / "x")
    notify.open_proxy(fd).close()
    assert not list((tmp_path / "elsewhere").iterdir())
    os.close(fd)


def test_ready_is_forwarded_with_the_pid_on_the_host_and_a_barrier(box, manager) -> None:
    proxy = notify.open_proxy(box)

    def serve() -> None:
        proxy.wait(os.getppid())

    server = child.start(serve)
    say(box, b"STATUS=starting", b"READY=1\nSTATUS=up\nMAINPID=1\nERRNO=5")
    assert manager.message() == (b"READY=1\nMAINPID=%d" % os.getpid(), server, 0)
    assert manager.message() == (b"BARRIER=1", server, 1)
    assert os.waitpid(server, 0)[1] == 0
    assert manager.is_silent()
    proxy.close()


def test_the_proxy_stays_until_the_manager_has_read(box, manager) -> None:
    """It looks the sender up by its pid, which must still be there."""
    proxy = notify.open_proxy(box)
    server = child.start(lambda: proxy.wait(os.getppid()))
    say(box, b"READY=1")
    manager.message()
    others_go_on()
    assert os.waitpid(server, os.WNOHANG) == (0, 0)
    manager.message()
    assert os.waitpid(server, 0)[1] == 0
    proxy.close()


def test_a_barrier_of_the_container_opens_at_once(box, manager) -> None:
    proxy = notify.open_proxy(box)
    read_end, write_end = os.pipe()
    say(box, b"BARRIER=1", fds=(write_end,))
    os.close(write_end)
    assert not select.select([read_end], [], [], 0)[0]
    assert not proxy.receive(1)
    assert select.select([read_end], [], [], 0)[0] and os.read(read_end, 1) == b""
    assert manager.is_silent()
    proxy.close()
    os.close(read_end)


@pytest.mark.parametrize("known", [False, True])
def test_it_ends_with_a_process_that_is_never_ready(box, manager, known: bool) -> None:
    proxy = notify.open_proxy(box)
    pid = child.start(lambda: time.sleep(0.05))
    pidfd = os.pidfd_open(pid) if known else -1
    proxy.wait(pid, pidfd)
    assert os.waitid(os.P_PID, pid, os.WEXITED) is not None and manager.is_silent()
    proxy.wait(pid, pidfd)  # and where it is gone already
    if known:
        os.close(pidfd)
    proxy.close()


def test_the_last_word_of_a_process_that_has_exited_counts(box, manager) -> None:
    proxy = notify.open_proxy(box)
    pid = child.start(lambda: say(box, b"READY=1"))
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    server = child.start(lambda: proxy.wait(pid))
    assert manager.message()[0] == b"READY=1\nMAINPID=%d" % pid
    manager.message()
    assert os.waitpid(server, 0)[1] == 0
    os.waitpid(pid, 0)
    proxy.close()


def test_a_manager_that_is_gone_is_no_failure(box, manager) -> None:
    proxy = notify.open_proxy(box)
    manager.sock.close()
    say(box, b"READY=1")
    assert proxy.receive(os.getpid())
    proxy.close()


def test_an_abstract_address(box, monkeypatch) -> None:
    name = f"anocir-test-{os.getpid()}"
    one = Manager("\0" + name)
    monkeypatch.setitem(notify.posix.environ, b"NOTIFY_SOCKET", b"@" + name.encode())
    proxy = notify.open_proxy(box)
    server = child.start(lambda: proxy.wait(os.getppid()))
    say(box, b"READY=1")
    assert one.message()[0].startswith(b"READY=1") and one.message()[0] == b"BARRIER=1"
    assert os.waitpid(server, 0)[1] == 0
    one.sock.close()
    proxy.close()
