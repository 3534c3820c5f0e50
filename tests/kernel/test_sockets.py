"""The socket calls, seen by the socket module and by /proc."""

from __future__ import annotations

import os
import resource
import socket

import pytest

from anocir.linux import sockets

pytestmark = pytest.mark.kernel


def test_pair_gives_two_connected_stream_sockets_that_execve_closes() -> None:
    one, other = sockets.pair()
    with socket.socket(fileno=one) as near, socket.socket(fileno=other) as far:
        for end in (near, far):
            assert (end.family, end.type) == (socket.AF_UNIX, socket.SOCK_STREAM)
            assert not os.get_inheritable(end.fileno())
            assert os.readlink(f"/proc/self/fd/{end.fileno()}").startswith("socket:")
        near.sendall(b"there")
        assert far.recv(100) == b"there"
        far.sendall(b"and back")
        assert near.recv(100) == b"and back"
        near.close()
        assert far.recv(100) == b""


def test_pair_says_that_there_are_no_descriptors_left() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        with pytest.raises(OSError, match="socketpair") as caught:
            sockets.pair()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert caught.value.errno == 24  # EMFILE


def test_receive_gives_what_send_was_given_closed_by_execve() -> None:
    one, other = sockets.pair()
    opened = [os.open(path, os.O_RDONLY) for path in ("/", "/proc")]
    assert sockets.send(one, b"two of them", opened) == 11
    assert os.write(one, b"none") == 4
    data, fds = sockets.receive(other, 100)
    assert data == b"two of them", "it stops after bytes that have descriptors with them"
    assert [os.readlink(f"/proc/self/fd/{fd}") for fd in fds] == ["/", "/proc"]
    assert not any(os.get_inheritable(fd) for fd in fds)
    assert sockets.receive(other, 2) == (b"no", [])
    assert sockets.receive(other, 100) == (b"ne", [])
    os.close(one)
    assert sockets.receive(other, 100) == (b"", [])
    for fd in (other, *opened, *fds):
        os.close(fd)


def test_send_says_that_nobody_is_there_without_a_signal() -> None:
    one, other = sockets.pair()
    os.close(other)
    with pytest.raises(BrokenPipeError, match="sendmsg"):
        sockets.send(one, b"x", [one])
    os.close(one)


def test_receive_passes_over_what_is_no_descriptor() -> None:
    """SCM_CREDENTIALS before the descriptors, where the receiver asks for them."""
    one, other = sockets.pair()
    with socket.socket(fileno=os.dup(other)) as asks:
        asks.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    sockets.send(one, b"x", [one])
    data, fds = sockets.receive(other, 10)
    assert data == b"x" and len(fds) == 1 and os.fstat(fds[0]).st_ino == os.fstat(one).st_ino
    for fd in (one, other, *fds):
        os.close(fd)


def test_datagram_gives_a_unix_socket_that_execve_closes() -> None:
    fd = sockets.datagram()
    with socket.socket(fileno=fd) as made:
        assert (made.family, made.type) == (socket.AF_UNIX, socket.SOCK_DGRAM)
        assert not os.get_inheritable(fd)
