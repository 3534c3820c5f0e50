"""The recorder of system calls, where the machine has no process for it."""

from __future__ import annotations

import os
import signal
from types import SimpleNamespace

import pytest

from anocir.host import recorder

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
