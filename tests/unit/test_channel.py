"""Frames: whole or not at all, with their descriptors, however the bytes arrive."""

from __future__ import annotations

import array
import os
import re
import signal
import socket
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.wire import channel, line
from anocir.errors import Error
from tests.kernel import child

pytestmark = pytest.mark.unit


def pair() -> tuple[channel.Channel, int]:
    """A channel, and the descriptor of its other end."""
    mine, theirs = socket.socketpair()
    return channel.Channel(mine.detach()), theirs.detach()


@pytest.fixture
def ends():
    """A channel and the bare socket at its other end."""
    one, fd = pair()
    other = socket.socket(fileno=fd)
    yield one, other
    one.close()
    other.close()
    for left in one.fds:
        os.close(left)


def frame(kind: int, payload: bytes = b"") -> bytes:
    return struct.pack("=IB", len(payload), kind) + payload


def send_with(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def test_a_frame_is_length_kind_payload(ends) -> None:
    one, other = ends
    one.send(channel.READY)
    one.send(channel.ERROR, b"text\0hint")
    assert other.recv(100) == frame(channel.READY) + frame(channel.ERROR, b"text\0hint")


def test_frames_come_one_by_one_though_they_arrive_together(ends) -> None:
    one, other = ends
    other.sendall(frame(1, b"abc") + frame(2) + frame(3, b"x" * 1000))
    assert [one.receive() for _ in range(3)] == [(1, b"abc"), (2, b""), (3, b"x" * 1000)]


@given(
    st.lists(st.tuples(st.integers(1, 255), st.binary(max_size=300)), max_size=6),
    st.lists(st.integers(1, 40)),
)
def test_frames_come_whole_though_they_arrive_in_pieces(frames, sizes) -> None:
    one, fd = pair()
    data = b"".join(frame(kind, payload) for kind, payload in frames)

    def write() -> None:
        one.close()
        rest = data
        for size in [*sizes, len(data)]:
            os.write(fd, rest[:size])
            rest = rest[size:]

    pid = child.start(write)
    os.close(fd)
    try:
        assert [one.receive() for _ in frames] == frames
        assert one.receive() == (0, b"")
    finally:
        one.close()
        os.waitpid(pid, 0)


def test_a_frame_of_many_megabytes_comes_through(ends) -> None:
    one, other = ends
    payload = os.urandom(1 << 20) * 9

    def write() -> None:
        one.close()
        channel.Channel(other.detach()).send(channel.PLAN, payload)

    pid = child.start(write)
    assert one.receive() == (channel.PLAN, payload)
    assert os.waitpid(pid, 0)[1] == 0


@pytest.mark.parametrize("first", [[], [0]], ids=["without", "with"])
@pytest.mark.parametrize("size", [0, 3, 16379, 16380, 70000, 200000])
def test_descriptors_come_with_their_frame_however_much_is_read_at_once(
    ends, size: int, first: list[int]
) -> None:
    """A long plan and the cgroups after it: the second frame is there before the first is read."""
    one, other = ends
    other.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    sender = channel.Channel(other.detach())
    null = os.open("/dev/null", os.O_RDONLY)
    sender.send(1, b"a" * size, [null for _ in first])
    sender.send(2, b"b", [null, null])
    sender.send(3)
    for kind, payload, count in ((1, b"a" * size, len(first)), (2, b"b", 2), (3, b"", 0)):
        assert one.receive() == (kind, payload)
        assert len(one.fds) == count
        for fd in one.fds:
            os.close(fd)
        one.fds = []
    os.close(null)
    sender.close()


@pytest.mark.parametrize(
    "data", [b"", b"\x05", frame(1, b"abc")[:4], frame(1, b"abc")[:5], frame(1, b"abc")[:7]]
)
def test_the_end_of_the_stream_is_kind_zero_wherever_it_comes(ends, data: bytes) -> None:
    one, other = ends
    other.sendall(data)
    other.close()
    assert one.receive() == (0, b"")
    assert one.receive() == (0, b""), "and again"


def test_a_whole_frame_before_the_end_is_not_lost(ends) -> None:
    one, other = ends
    other.sendall(frame(7, b"last") + b"\x01\x00")
    other.close()
    assert [one.receive(), one.receive()] == [(7, b"last"), (0, b"")]


def test_a_reset_is_an_end(ends) -> None:
    one, other = ends
    one.send(1, b"never read")
    other.close()  # with unread data the peer sees ECONNRESET
    assert one.receive() == (0, b"")


def test_sending_to_nobody_is_epipe_and_no_signal(ends) -> None:
    one, other = ends
    other.close()
    fd = os.open("/dev/null", os.O_RDONLY)
    for fds in ([], [fd]):
        with pytest.raises(BrokenPipeError):
            one.send(1, b"x", fds)
    os.close(fd)


def test_a_length_that_cannot_be_is_refused(ends) -> None:
    one, other = ends
    other.sendall(struct.pack("=IB", (128 << 20) + 1, 1))
    with pytest.raises(Error, match="frame of 134217729 bytes"):
        one.receive()


def test_descriptors_come_along_closed_on_execve_and_in_order(ends, tmp_path) -> None:
    one, other = ends
    paths = [tmp_path / name for name in "abc"]
    fds = []
    for path in paths:
        path.touch()
        fds.append(os.open(path, os.O_RDONLY))
    sender = channel.Channel(os.dup(other.fileno()))
    sender.send(channel.PLAN, b"plan", fds)
    assert one.receive() == (channel.PLAN, b"plan")
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in one.fds] == [str(path) for path in paths]
    assert not any(os.get_inheritable(fd) for fd in one.fds)
    sender.close()
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("count", [1, 200, 253])
def test_as_many_descriptors_as_the_kernel_takes(ends, count: int) -> None:
    one, other = ends
    fd = os.open("/dev/null", os.O_RDONLY)
    one_end = channel.Channel(os.dup(other.fileno()))
    one_end.send(1, b"", [fd] * count)
    assert one.receive() == (1, b"") and len(one.fds) == count
    one_end.close()
    os.close(fd)


def test_descriptors_with_a_frame_that_is_too_big_for_one_write(ends) -> None:
    one, other = ends
    fd = os.open("/dev/null", os.O_RDONLY)
    payload = os.urandom(3 << 20)

    def write() -> None:
        one.close()
        channel.Channel(other.detach()).send(1, payload, [fd])

    pid = child.start(write)
    assert one.receive() == (1, payload)
    assert len(one.fds) == 1, "once, and not with every piece"
    assert os.waitpid(pid, 0)[1] == 0
    os.close(fd)


def test_descriptors_of_several_frames_are_kept_apart_by_their_order(ends, tmp_path) -> None:
    one, other = ends
    first, second = os.open("/", os.O_RDONLY), os.open("/proc", os.O_RDONLY)
    send_with(other, frame(1, b"a"), [first])
    send_with(other, frame(2, b"b"), [second])
    assert one.receive() == (1, b"a")
    assert os.readlink(f"/proc/self/fd/{one.fds[0]}") == "/"
    assert one.receive() == (2, b"b")
    assert os.readlink(f"/proc/self/fd/{one.fds[1]}") == "/proc"
    os.close(first)
    os.close(second)


def test_a_line_reads_and_writes_frames_and_nothing_else(tmp_path) -> None:
    """What the container's filter allows: no recvmsg, no sendmsg."""
    ours, theirs = socket.socketpair()
    line = channel.Line(theirs.fileno(), theirs.fileno())
    whole = channel.Channel(ours.detach())
    whole.send(channel.START, b"mode" * 50000)
    assert line.receive() == (channel.START, b"mode" * 50000)
    line.send(channel.EXEC)
    assert whole.receive() == (channel.EXEC, b"")
    whole.close()
    assert line.receive() == (0, b"")
    line.close()
    line.close()  # is not there any more: nothing that init could die of
    theirs.detach()


def test_a_process_that_is_kept_stopped_is_not_waited_for(monkeypatch) -> None:
    monkeypatch.setattr(line, "_STOPPED_PATIENCE", 2)
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    try:
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(Error, match=f"process {pid} has been stopped for 2 seconds while x"):
            channel.wait_unless_stopped(read_end, pid, "x")
        os.write(write_end, b"1")
        channel.wait_unless_stopped(read_end, pid, "x")
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(read_end)
        os.close(write_end)


def test_send_fd_sends_one_message_with_one_descriptor(tmp_path) -> None:
    path = tmp_path / "é.sock"
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen(1)
    fd = os.open("/proc", os.O_RDONLY)
    channel.send_fd(str(path), fd, b"/dev/pts/3")
    accepted, _ = server.accept()
    data, fds, _, _ = socket.recv_fds(accepted, 4096, 5)
    assert data == b"/dev/pts/3" and len(fds) == 1
    assert os.readlink(f"/proc/self/fd/{fds[0]}") == "/proc"
    assert accepted.recv(10) == b"", "and then the end"
    for end in (fd, *fds):
        os.close(end)
    accepted.close()
    server.close()
    with pytest.raises(ConnectionRefusedError) as caught:
        channel.send_fd(str(path), 0, b"x")
    assert caught.value.filename == str(path)
    with pytest.raises(FileNotFoundError):
        channel.send_fd(str(tmp_path / "missing"), 0, b"x")


def test_the_kinds_are_different_numbers_and_none_is_the_end() -> None:
    kinds = {name: value for name, value in vars(channel).items()
             if name.isupper() and not name.startswith("_") and isinstance(value, int) and name not in ("TYPE_CHECKING", "MOST_TEXT")}  # fmt: skip
    assert len(set(kinds.values())) == len(kinds) >= 15 and 0 not in kinds.values()
    assert max(kinds.values()) < 256


def test_the_picture_names_every_kind_that_there_is() -> None:
    picture = Path(channel.__file__).read_text().split('"""')[1]
    source = Path(line.__file__).read_text()
    names = re.findall(r"^([A-Z]+): Final = \d+$", source, re.MULTILINE)
    assert names
    missing = [name for name in names if not re.search(rf"\b{name}\b", picture)]
    assert missing == []


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1)))
def test_numbers_come_as_they_were_sent(numbers: list[int]) -> None:
    assert channel.unpacked(channel.packed(numbers)) == numbers


@pytest.mark.parametrize("payload", [b"x", b"12345"])
def test_what_is_no_list_of_numbers_is_refused(payload: bytes) -> None:
    with pytest.raises(ValueError, match=f"{len(payload)} bytes are no numbers"):
        channel.unpacked(payload)
