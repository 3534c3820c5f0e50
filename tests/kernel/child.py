"""Run a piece of a test in a process of its own: what it changes ends with it.

The namespaces are made by the C library, not by what is under test.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import subprocess
import traceback
from pathlib import Path
from typing import Any, Callable, Iterator

from anocir.errors import Error
from tests import machine

PATIENCE = 120
"""Seconds after which a child is ended by SIGALRM."""


def run(action: Callable[[], Any], flags: int = 0) -> Any:
    """Call `action` in a forked child with new namespaces; return its result, raise its error."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        signal.alarm(PATIENCE)
        # What earlier tests left in cycles would be closed at some moment: then no count is sure.
        gc.disable()
        try:
            if flags:
                machine.unshare(flags)
            if flags & machine.CLONE_NEWNS:
                machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
            answer = (None, action())
        except BaseException as error:
            answer = (error if type(error) in KNOWN else None, traceback.format_exc())
            if answer[0] is None:
                answer = (AssertionError(answer[1]), None)
        data = pickle.dumps(answer)
        while data:
            data = data[os.write(write_end, data) :]
        os._exit(0)
    os.close(write_end)
    with open(read_end, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert data, f"the child ended without an answer: {status}"
    error, result = pickle.loads(data)
    if error is not None:
        raise error
    return result


KNOWN = (Error, OSError, *(type(OSError(number, "")) for number in range(1, 120)))


def loopback_is_up() -> bool:
    """Whether the loopback interface of our network namespace is up, as ip(8) shows it."""
    shown = subprocess.run(["ip", "-o", "link", "show", "lo"], capture_output=True, check=True)
    return b"UP" in shown.stdout.partition(b"<")[2].partition(b">")[0].split(b",")


def free_descriptors() -> int:
    """Return a number from which on no descriptor is open, ours for the answer included."""
    return max(int(name) for name in os.listdir("/proc/self/fd")) + 1


def start(action: Callable[[], Any]) -> int:
    """Call `action` in a forked child that ends with it; return its pid."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(PATIENCE)
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(99)
        os._exit(0)
    return pid


def sleeper(seconds: int = 300) -> int:
    """Start a process that only sleeps, longer than a test takes; return its pid."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(seconds)
        while True:
            signal.pause()
    return pid


@contextlib.contextmanager
def user_namespace(mapping: str) -> Iterator[int]:
    """Give the pid of a process in a user namespace of its own, with the same mapping of users and groups."""
    ready, done = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(done[1])
        machine.unshare(machine.CLONE_NEWUSER)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    try:
        os.read(ready[0], 1)
        for name in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{name}").write_text(mapping)
        yield pid
    finally:
        for fd in (*ready, *done):
            os.close(fd)
        os.waitpid(pid, 0)


def end(action: Callable[[], Any]) -> int:
    """Call `action` in a forked child; return how the child ended, as `subprocess` says it."""
    return os.waitstatus_to_exitcode(os.waitpid(start(action), 0)[1])


def status_field(name: str, pid: Any = "self") -> str:
    """Return a line of /proc/PID/status."""
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            key, _, value = line.partition(":")
            if key == name:
                return value.strip()
    raise KeyError(name)
