"""The recorder of system calls, where the machine has no process for it."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from anocir.host import recorder
from anocir.linux import notifications

pytestmark = pytest.mark.unit


def test_a_recorder_that_cannot_be_started_is_not_waited_for(monkeypatch, tmp_path):
    def fork():
        raise BlockingIOError(11, "fork")

    one = recorder.Recorder.__new__(recorder.Recorder)
    one.base, one.own, one.path, one.control = None, [], str(tmp_path / "profile"), None
    directory = os.open(tmp_path, os.O_RDONLY)
    monkeypatch.setattr(recorder.posix, "fork", fork)
    signal.alarm(20)  # it waited for ever
    try:
        with pytest.raises(BlockingIOError) as caught:
            one.start(SimpleNamespace(dir_fd=directory))
        one.abandon()
        assert caught.value.errno == 11
    finally:
        signal.alarm(0)
        os.close(directory)


@pytest.mark.parametrize(
    ("failing", "sent", "found"),
    [([], 1, (0xC000003E, 39)), ([4], 2, (0xC000003E, 39)), ([4, 4, 2], 3, None)],
)
def test_a_call_that_was_taken_is_answered_whatever_interrupts(monkeypatch, failing, sent, found):
    """Nobody is told of it again, so the caller would wait for ever (EINTR); ENOENT: it was killed."""
    asked = []

    def ioctl(listener, request, data):
        asked.append(request)
        if request == notifications.SECCOMP_IOCTL_NOTIF_RECV:
            return notifications._NOTIF.pack(7, 1, 0, 39, 0xC000003E, *[0] * 7)
        if failing:
            raise OSError(failing.pop(0), "ioctl")
        return data

    monkeypatch.setattr(notifications.descriptors, "ioctl", ioctl)
    assert notifications.let_go(3) == found
    assert asked.count(notifications.SECCOMP_IOCTL_NOTIF_SEND) == sent
