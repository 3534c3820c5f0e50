"""Every operation in every state, and how the state is found."""

from __future__ import annotations

import _signal
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from anocir.cgroup import tree
from anocir.commands import kill
from anocir.host import ending, fifos, reserve, states, store, transitions
from anocir.errors import CONTRACT, Error
from anocir.linux import processes, watch
from tests.wait import until

pytestmark = pytest.mark.unit

STATES = ["creating", "created", "running", "paused", "stopped"]
YES = None

# runtime.md and runc: what is allowed, or what is said. In the order of STATES.
TABLE = {
    "start": ["cannot start a container that is being created", YES,
              "cannot start an already running container", "cannot start a container in the paused state",
              "cannot start a container that has stopped"],
    "kill": [YES, YES, YES, YES, "container not running"],
    "delete": ["cannot delete container box that is not stopped: creating",
               "cannot delete container box that is not stopped: created",
               "cannot delete container box that is not stopped: running",
               "cannot delete container box that is not stopped: paused", YES],
    "exec": ["cannot exec in a container that is being created", YES, YES,
             "cannot exec in a paused container (use --ignore-paused to override)",
             "cannot exec in a stopped container"],
    "pause": ["container not running", YES, YES, "container is paused already", "container not running"],
    "checkpoint": ["container cannot be checkpointed in creating state",
                   "container cannot be checkpointed in created state", YES, YES,
                   "container cannot be checkpointed in stopped state"],
    "resume": ["container not paused", "container not paused", "container not paused", YES,
               "container not paused"],
    "update": ["container not running", YES, YES, YES, "container not running"],
    "events": ["container with id box is not running", YES, YES, YES, "container with id box is not running"],
}  # fmt: skip


def container(**state) -> store.Container:
    one = store.Container("/nowhere/box", "box", -1)
    one.state = state
    one.intent = {
        "bundle": "/bundle",
        "rootfs": "/bundle/rootfs",
        "created": "now",
        "owner": "root",
    }
    return one


@pytest.mark.parametrize(
    ("operation", "status", "expected"),
    [
        (operation, status, row[index])
        for operation, row in TABLE.items()
        for index, status in enumerate(STATES)
    ],
)
def test_every_cell(operation: str, status: str, expected: str | None) -> None:
    if expected is YES:
        transitions.check(operation, container(), status)
    else:
        with pytest.raises(Error) as caught:
            transitions.check(operation, container(), status)
        assert caught.value.text == expected


def test_the_table_has_these_operations_and_states_and_no_others() -> None:
    assert set(transitions.ALLOWED) == set(TABLE), (
        "transitions.ALLOWED and TABLE in this file: a row for each in both"
    )
    for name, allowed in transitions.ALLOWED.items():
        assert [one for one in STATES if one in allowed] == list(allowed), (
            f"transitions.ALLOWED[{name}]: states, in their order"
        )
    assert STATES == [
        states.CREATING,
        states.CREATED,
        states.RUNNING,
        states.PAUSED,
        states.STOPPED,
    ]


def test_texts_that_others_match_come_from_one_place() -> None:
    for operation, key, status in [
        ("start", "already running", "running"), ("kill", "not running", "stopped"),
        ("resume", "not paused", "running"), ("exec", "exec stopped", "stopped"),
        ("delete", "not stopped", "paused"),
    ]:  # fmt: skip
        assert key in CONTRACT and transitions._refusal(operation, status) == key


# The state of a container ------------------------------------------------------------------------


@pytest.fixture
def process():
    """A process that sleeps, with a name of our choice."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(300)
        os.write(write_end, b"x")
        while True:
            signal.pause()
    os.read(read_end, 1)
    os.close(read_end)
    os.close(write_end)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


@pytest.fixture
def frozen(monkeypatch):
    def freeze(value: bool) -> None:
        monkeypatch.setattr(states.cgroup, "frozen", lambda record: value)

    freeze(False)
    return freeze


def state_of(pid: int) -> dict:
    return {"created": True, "pid": pid, "start_time": processes.stat(pid)[3]}


def test_a_process_with_a_name_of_its_own_is_running(process, frozen) -> None:
    assert states.status_of(container(**state_of(process))) == "running"


def test_a_name_is_not_a_state(frozen) -> None:
    """The container may call its first process what it wants; who waits for start has the FIFO open."""
    name = os.fsencode(Path("/proc/self/comm").read_text().strip())
    Path("/proc/self/comm").write_text("anocir:init")
    try:
        assert states.status_of(container(**state_of(os.getpid()))) == "running"
    finally:
        Path("/proc/self/comm").write_bytes(name)


def test_created_is_who_has_the_start_fifo_open(process, frozen, tmp_path) -> None:
    box = store.Container(str(tmp_path), "x", os.open(tmp_path, os.O_RDONLY))
    box.state, box.intent = state_of(process), {}
    assert states.status_of(box) == "running"
    fds = reserve.make_line(box)
    assert states.status_of(box) == "created"
    for fd in fds:
        os.close(fd)
    assert states.status_of(box) == "running", "nobody reads it"
    fifos.close(box)
    box.close()


def test_a_process_lives_as_long_as_one_thread_does(frozen) -> None:
    """Its first thread may end alone; the letter in /proc/PID/stat is then Z."""
    script = (
        "import ctypes, threading, time\n"
        "threading.Thread(target=time.sleep, args=(300,), daemon=True).start()\n"
        "print('x', flush=True)\n"
        f"ctypes.CDLL(None).syscall({60 if os.uname().machine == 'x86_64' else 93}, 0)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    try:
        state = state_of(child.pid)
        child.stdout.read(2)
        until("its first thread has ended", lambda: processes.stat(child.pid)[1] == "Z")
        assert states.status_of(container(**state)) == "running"
        assert processes.alive(child.pid, state["start_time"])
        assert watch.runs(child.pid, state["start_time"]), "what old kernels have"
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert states.status_of(container(**state)) == "stopped"


def test_the_freezer_decides_about_paused(process, frozen) -> None:
    frozen(True)
    assert states.status_of(container(**state_of(process))) == "paused"


def test_another_process_of_the_same_number_is_stopped(process, frozen) -> None:
    state = state_of(process)
    state["start_time"] -= 1
    assert states.status_of(container(**state)) == "stopped"


def test_a_zombie_is_stopped(process, frozen) -> None:
    state = state_of(process)
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert states.status_of(container(**state)) == "stopped"
    os.waitpid(process, 0)
    assert states.status_of(container(**state)) == "stopped"


def test_before_commit_it_is_creating_as_long_as_the_creator_lives(process, frozen) -> None:
    one = container(pid=process, start_time=1)
    one.intent["creator"] = [process, processes.stat(process)[3]]
    assert states.status_of(one) == "creating"
    one.intent["creator"] = [process, 1]
    assert states.status_of(one) == "stopped"
    del one.intent["creator"]
    assert states.status_of(one) == "stopped"


def test_the_state_is_that_of_the_specification() -> None:
    one = container(pid=17, created=True)
    found = states.oci_state(one, "running")
    assert found == {
        "ociVersion": "1.3.0", "id": "box", "pid": 17, "status": "running", "bundle": "/bundle",
        "rootfs": "/bundle/rootfs", "created": "now", "owner": "root",
    }  # fmt: skip
    assert states.oci_state(one, "stopped")["pid"] == 0
    assert states.oci_state(one, "created", 99)["pid"] == 99
    one.intent["annotations"] = {"a": "b"}
    assert states.oci_state(one, "running")["annotations"] == {"a": "b"}


# Signals -----------------------------------------------------------------------------------------

SIGNALS = [("TERM", 15), ("SIGTERM", 15), ("term", 15), ("sigTerm", 15), ("9", 9), ("0", 0), ("64", 64), ("KILL", 9),
           ("USR1", 10), ("RTMIN", 34), ("SIGRTMIN+3", 37), ("rtmin+30", 64), ("RTMAX", 64), ("WINCH", 28),
           ("+9", 9), ("+09", 9), ("009", 9), ("-0", 0), ("+0", 0), ("0" * 5000 + "9", 9), ("RTMIN+03", 37)]  # fmt: skip


@pytest.mark.parametrize(("text", "number"), SIGNALS)
def test_a_signal_has_a_number_or_a_name(text: str, number: int) -> None:
    assert kill.signal_number(text) == number


@pytest.mark.parametrize("text", ["", "SIG", "65", "-1", "NOTHING", "SIGSIGTERM", "1.5", "9 ", "²", "RTMIN+31", "RTMIN+", "RTMIN+²",
                                  "SIG_DFL", "_IGN", "SIG_BLOCK", "99999999999999999999", "RTMAX-1x", "TERM+1",
                                  "-9", "+65", "+", "-", "++9", "+-9", " 9", "+ 9", "0x9", "1_0", "+KILL", "\u0663", "9" * 5000,
                                  "RTMIN+\u0663", "RTMIN+" + "9" * 5000])  # fmt: skip
def test_what_is_no_signal_is_refused(text: str) -> None:
    with pytest.raises(Error, match="unknown signal"):
        kill.signal_number(text)


def test_every_signal_of_this_system_is_known_by_its_name() -> None:
    # With musl SIGRTMIN is 35.
    for one in set(signal.Signals) - {signal.SIGRTMIN}:
        assert kill.signal_number(one.name) == one.value
        assert kill.signal_number(one.name[3:].lower()) == one.value


def test_a_signal_that_an_older_python_does_not_name_is_known(monkeypatch) -> None:
    monkeypatch.delattr(_signal, "SIGSTKFLT", raising=False)
    assert kill.signal_number("stkflt") == 16


def test_mounts_on_one_another_are_counted() -> None:
    def listed() -> list[str]:
        rows = Path("/proc/self/mountinfo").read_text().splitlines()
        return [row.split()[4] for row in rows]

    end = time.monotonic() + 60
    points: list[str] = []
    after = listed()
    while points != after and time.monotonic() < end:  # others mount and unmount meanwhile
        points = after
        known = {point: points.count(point) for point in ("/", "/proc", points[-1])}
        paths = [point.replace("\\040", " ").replace("\\134", "\\") for point in known]
        found = [ending.mount_count(path) for path in paths]
        after = listed()
    assert points == after and found == list(known.values())
    assert ending.mount_count("/nowhere") == 0


def test_a_number_that_left_the_cgroup_is_not_signalled(monkeypatch: pytest.MonkeyPatch) -> None:
    """`kill --all`: between the list and the signal a process ends, and the host gives its number away."""
    with subprocess.Popen(["sleep", "100"]) as theirs, subprocess.Popen(["sleep", "100"]) as ours:
        lists = iter([[theirs.pid, ours.pid], [ours.pid]])
        monkeypatch.setattr(tree, "processes", lambda directory: next(lists))
        assert tree.signal_all("/nowhere", signal.SIGTERM) == 1
        assert ours.wait() == -signal.SIGTERM
        assert theirs.poll() is None
        theirs.kill()
