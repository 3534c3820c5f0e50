"""A seccomp listener may be announced before the frame that names the process which has it."""

from __future__ import annotations

import os
import signal
import socket
import struct

import pytest

from anocir.host import launch
from anocir.wire import channel

pytestmark = pytest.mark.unit


def _holder(far: socket.socket) -> tuple[int, str]:
    """A process that has a descriptor which we have not: its pid, and what that is."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        line = channel.Channel(far.detach())
        own, end = os.pipe()
        os.write(writing, os.readlink(f"/proc/self/fd/{own}").encode())
        os.set_inheritable(end, False)
        line.send(channel.LISTENER, str(own).encode())
        if line.receive()[0] == channel.DONE:
            line.send(channel.READY)
        os._exit(0)
    os.close(writing)
    link = os.read(reading, 100).decode()
    os.close(reading)
    return pid, link


@pytest.mark.parametrize("late", [False, True], ids=["worker", "init"])
def test_it_is_taken_from_the_process_that_has_it(late: bool) -> None:
    near, far = socket.socketpair()
    line = channel.Channel(far.dup().detach())
    worker = os.fork()
    if worker == 0:
        os._exit(0)
    if late:
        # The worker says who it is and who init is, which has said something before that.
        line.send(channel.WORKER, struct.pack(channel.PID_FRAME, worker, True))
        holder, link = _holder(far)
    else:
        worker, link = _holder(far)
        holder = worker
    far.close()
    init = launch.Init(worker, channel.Channel(near.detach()), 0)
    init.filters_late = late
    taken = []
    init.listener = lambda fd, pid: taken.append((os.readlink(f"/proc/self/fd/{fd}"), pid))
    try:
        if late:
            init.adopt_worker(init.expect(channel.WORKER, "waiting"))
            _overtaken(init)
            line.send(channel.PID, struct.pack(channel.PID_FRAME, holder, True))
            init.adopt(init.expect(channel.PID, "waiting"))
        else:
            _overtaken(init)
            line.send(channel.WORKER, struct.pack(channel.PID_FRAME, worker, True))
            init.adopt_worker(init.expect(channel.WORKER, "waiting"))
        assert taken == []
        init.expect(channel.READY, "waiting")
        assert taken == [(link, holder)]
    finally:
        init.kill()
        init.channel.close()
        line.close()


def _overtaken(init: launch.Init) -> None:
    """Wait until the listener has been announced."""
    with socket.socket(fileno=os.dup(init.channel.fd)) as near:
        head = init.channel.buffer or near.recv(5, socket.MSG_PEEK | socket.MSG_WAITALL)
    assert head[4] == channel.LISTENER
