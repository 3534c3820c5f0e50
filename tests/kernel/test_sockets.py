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
