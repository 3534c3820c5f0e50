"""What a container makes of a cgroup that it may write to: depth, long names, frozen and threaded parts."""

from __future__ import annotations

import os
import signal
import time

import pytest

from anocir.cgroup import hierarchy, removal, tree
from tests import drive, leftovers, machine
from tests.kernel import child
from tests.wait import others_go_on

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]


def mountpoints() -> list[str]:
    v1, v2 = hierarchy.own()
    return [mountpoint for mountpoint, _, _ in [*v1, *([v2] if v2 else [])]]


@pytest.fixture
def top(request):
    """A cgroup of the hierarchy that the test asks for, removed again."""
    directory = f"{request.param}/anocir-tree-{os.getpid()}"
    os.mkdir(directory)
    yield directory
    tree.thaw_all(directory)
    tree.signal_all(directory, signal.SIGKILL)
    removal.remove([(directory, 1)])


def sleeper(fd: int, file: str = "cgroup.procs") -> int:
    """A process that sleeps in a cgroup."""
    pid = child.sleeper()
    procs = os.open(file, os.O_WRONLY, dir_fd=fd)
    os.write(procs, str(pid).encode())
    os.close(procs)
    return pid


DEPTHS = {"1,500 levels": ["d"] * 1500, "names of 250 bytes": ["n" * 250] * 40}


@pytest.mark.parametrize("top", mountpoints(), indirect=True)
@pytest.mark.parametrize("names", DEPTHS.values(), ids=DEPTHS)
def test_no_depth_keeps_a_process_from_being_found_and_killed(top, names):
    if "cpuset" in top:
        names = names[:0]  # an empty cpuset takes no process
    fd = leftovers.dig(top, names)
    pid = sleeper(fd) if "cpuset" not in top else 0
    os.close(fd)
    try:
        assert tree.processes(top) == ([pid] if pid else [])
        assert tree.signal_all(top, signal.SIGKILL) == bool(pid)
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    began = time.monotonic()
    removal.remove([(top, 1)])
    assert not os.path.exists(top)
    assert time.monotonic() - began < removal.PATIENCE
    os.mkdir(top)


@pytest.mark.needs("cgroup1:freezer")
@pytest.mark.parametrize("top", [m for m in mountpoints() if "freezer" in m], indirect=True)
def test_what_was_frozen_below_runs_again_and_dies(top):
    fd = leftovers.dig(top, ["a", "b"])
    pid = sleeper(fd)
    state = os.open("freezer.state", os.O_RDWR, dir_fd=fd)
    os.write(state, b"FROZEN")
    drive.until("it is frozen", lambda: os.pread(state, 20, 0) == b"FROZEN\n")
    os.close(fd)
    assert tree.signal_all(top, signal.SIGKILL) == 1
    others_go_on(10)
    assert os.waitpid(pid, os.WNOHANG) == (0, 0)  # the signal alone does nothing
    tree.thaw_all(top)
    assert os.waitpid(pid, 0)[0] == pid
    assert os.pread(state, 20, 0) == b"THAWED\n"
    os.close(state)


@pytest.mark.parametrize(
    "top", [m for m in mountpoints() if machine.v2_mountpoint() == m], indirect=True
)
def test_the_processes_of_threaded_cgroups_are_found_once(top):
    """Their cgroup.procs cannot be read: EOPNOTSUPP."""
    fd = leftovers.dig(top, [])
    pid = sleeper(fd)
    below = leftovers.dig(top, ["t"])
    try:
        with open(f"{top}/t/cgroup.type", "w") as file:
            file.write("threaded")
        with pytest.raises(OSError, match="not supported"):
            open(f"{top}/t/cgroup.procs").read()
        threads = os.open("cgroup.threads", os.O_WRONLY, dir_fd=below)
        os.write(threads, str(pid).encode())
        os.close(threads)
        assert tree.processes(top) == [pid]
        assert tree.processes(f"{top}/t") == [pid]
        assert tree.signal_all(f"{top}/t", signal.SIGTERM) == 1
    finally:
        os.close(fd)
        os.close(below)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


@pytest.mark.parametrize("top", mountpoints()[:1], indirect=True)
def test_somebody_else_s_process_keeps_the_cgroup_and_is_named(top):
    fd = leftovers.dig(top, ["below"])
    pid = sleeper(fd)
    os.close(fd)
    try:
        with pytest.raises(tree.Error, match=rf"^remove cgroup {top}: .*, processes in it: {pid}$"):
            removal.remove([(top, 1)], patience=0.2)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
