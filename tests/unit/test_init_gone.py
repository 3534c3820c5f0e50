"""Init may end before a frame reaches it: its own words are the error then, never "broken pipe"."""

from __future__ import annotations

import os
import socket
from typing import Callable, Iterator

import pytest

from anocir.cgroup.joining import Joining
from anocir.wire import channel
from anocir.host import joining, launch
from anocir.errors import Error

pytestmark = pytest.mark.unit

Ended = Callable[..., launch.Init]


@pytest.fixture
def ended() -> Iterator[Ended]:
    """Make the host's side of an init that has sent some frames and is gone."""
    made = []

    def make(*frames: tuple[int, bytes]) -> launch.Init:
        near, far = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            line = channel.Channel(far.detach())
            for kind, payload in frames:
                line.send(kind, payload)
            os._exit(3)
        far.close()
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        made.append(launch.Init(pid, channel.Channel(near.detach()), 0))
        return made[-1]

    yield make
    for init in made:
        init.kill()
        if init.middle_fd >= 0:
            os.close(init.middle_fd)


def test_its_last_words_are_the_error(ended: Ended) -> None:
    init = ended((channel.LOG, b"warning one"), (channel.ERROR, b"linux.timeOffsets: no\0a hint"))
    with pytest.raises(Error) as caught:
        init.send(channel.CGROUP, b"payload")
    assert (caught.value.text, caught.value.hint) == ("linux.timeOffsets: no", "a hint")
    assert init.gone


def test_without_words_it_is_said_how_it_ended_and_what_it_was_doing(ended: Ended) -> None:
    with pytest.raises(Error, match=r"^init died while joining \(exit status 3\)$"):
        ended().send(channel.CGROUP, waiting="joining")


def test_a_frame_from_before_does_not_hide_it(ended: Ended) -> None:
    init = ended((channel.ERROR, b"why\0"))
    init.early = channel.READY, b""
    with pytest.raises(Error, match=r"^why$"):
        init.send(channel.GO)


def test_the_plan_and_the_cgroups_are_sent_that_way(ended: Ended) -> None:
    with pytest.raises(Error, match=r"^why$"):
        launch.hand_over(ended((channel.ERROR, b"why\0")), {}, [], _Settings())
    with pytest.raises(Error, match=r"^why$"):
        joining.send_cgroups(ended((channel.ERROR, b"why\0")), Joining())


class _Settings:
    trace = ""
