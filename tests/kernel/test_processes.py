"""Every function of linux.processes: children are made for real and seen through /proc."""

from __future__ import annotations

import errno
import os
import posix
import select
import signal
import sys
import time

import pytest

from anocir.linux import processes
from tests import blocked
from tests.kernel import child

pytestmark = pytest.mark.kernel


def sleeper() -> int:
    """Start a process that sleeps, in a session of its own."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        signal.alarm(300)
        while True:
            signal.pause()
    return pid


def is_blocked_in_pause(pid: int) -> bool:
    with open(f"/proc/{pid}/stat") as file:
        return file.read().rpartition(") ")[2][0] == "S"


@pytest.fixture
def process():
    pid = sleeper()
    while os.getsid(pid) != pid or not is_blocked_in_pause(pid):
        time.sleep(0.001)
    yield pid
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


def spawn_and_read(script: str, *, env=None, session: bool = True, prepare=lambda: None) -> str:
    """Spawn a shell from a child that was prepared, and return what it printed."""

    def action() -> str:
        prepare()
        read_end, write_end = os.pipe()
        actions = [(posix.POSIX_SPAWN_DUP2, write_end, 1)]
        argv = [b"sh", b"-c", script.encode()]
        pid = processes.spawn(b"/bin/sh", argv, env or {}, actions, session)
        os.close(write_end)
        with open(read_end) as file:
            text = file.read()
        os.waitpid(pid, 0)
        return text

    return child.run(action)


def test_spawn_gives_exactly_this_environment() -> None:
    text = spawn_and_read("tr '\\0' '\\n' < /proc/$$/environ", env={b"A": b"1", b"PATH": b"/bin"})
    assert sorted(text.split()) == ["A=1", "PATH=/bin"]


def test_spawn_makes_a_session_only_when_asked() -> None:
    script = "read -r line < /proc/$$/stat; set -- ${line##*) }; echo $$ $3 $4"
    pid, group, session = spawn_and_read(script).split()
    assert pid == group == session
    pid, group, session = spawn_and_read(script, session=False).split()
    assert pid != group and pid != session


def test_spawn_resets_signals_that_were_ignored_and_blocked() -> None:
    def ignore() -> None:
        for number in (signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP, signal.SIGRTMIN + 3):
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))

    # Read from outside: a shell changes its own dispositions.
    text = spawn_and_read("exec /bin/grep Sig /proc/self/status", prepare=ignore)
    rows = dict(line.split(":\t") for line in text.splitlines())
    assert int(rows["SigBlk"], 16) == 0
    # glibc keeps 32 and 33 for itself and leaves them as they are.
    assert int(rows["SigIgn"], 16) & ~(3 << 31) == 0


def test_spawn_passes_inheritable_descriptors_and_those_of_its_actions() -> None:
    kept, closed = os.open("/", os.O_RDONLY), os.open("/", os.O_RDONLY)
    os.set_inheritable(kept, True)
    found = spawn_and_read(
        f"test -e /dev/fd/{kept} && echo kept; test -e /dev/fd/{closed} || echo closed"
    )
    assert found.split() == ["kept", "closed"]
    os.close(kept)
    os.close(closed)


def children() -> set[str]:
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return set(file.read().split())


@pytest.mark.parametrize(
    ("path", "number"),
    [(b"/missing", errno.ENOENT), (b"/etc", errno.EACCES), (b"/etc/passwd", errno.EACCES)],
)
def test_spawn_tells_why_a_program_cannot_be_executed(path: bytes, number: int) -> None:
    before = children()
    with pytest.raises(OSError) as caught:
        processes.spawn(path, [b"x"], {}, [])
    assert caught.value.errno == number
    assert not children() - before


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137),
                           ("kill -15 $$", 143)],
)  # fmt: skip
def test_wait_gives_the_status_that_a_shell_would(script: str, status: int) -> None:
    pid = os.spawnv(os.P_NOWAIT, "/bin/sh", ["sh", "-c", script])
    assert processes.wait(pid) == status


def test_exit_code_counts_a_core_dump_as_its_signal() -> None:
    for status, expected in ((0, 0), (7 << 8, 7), (9, 137), (11 | 0x80, 139)):
        assert processes.exit_code(status) == expected
        if not status & 0x80:
            waited = os.waitstatus_to_exitcode(status)
            assert expected == (waited if waited >= 0 else 128 - waited)


def test_pidfd_open_is_readable_once_the_process_has_exited(process) -> None:
    pidfd = processes.pidfd_open(process)
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        rows = dict(line.split(":\t") for line in file.read().splitlines())
    assert rows["Pid"] == str(process)
    assert int(rows["flags"], 8) & os.O_CLOEXEC
    assert not select.select([pidfd], [], [], 0)[0]
    os.kill(process, signal.SIGKILL)
    assert select.select([pidfd], [], [], 60)[0] == [pidfd]
    os.waitpid(process, 0)
    os.close(pidfd)
    with pytest.raises(ProcessLookupError):
        processes.pidfd_open(process)


def test_pidfd_send_signal_reaches_the_process(process) -> None:
    pidfd = processes.pidfd_open(process)
    processes.pidfd_send_signal(pidfd, 0)
    processes.pidfd_send_signal(pidfd, signal.SIGUSR1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGUSR1
    with pytest.raises(ProcessLookupError):
        processes.pidfd_send_signal(pidfd, signal.SIGUSR1)
    os.close(pidfd)


def test_kill_sends_a_signal(process) -> None:
    processes.kill(process, 0)
    processes.kill(process, signal.SIGSTOP)
    assert os.WIFSTOPPED(os.waitpid(process, os.WUNTRACED)[1])
    processes.kill(process, processes.SIGKILL)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == 9
    with pytest.raises(ProcessLookupError):
        processes.kill(process, 0)


def test_kill_group_ends_the_children_too() -> None:
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.fork()  # both keep the pipe open
        os.write(write_end, b"x")
        signal.alarm(300)
        signal.pause()
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) and os.read(read_end, 1)
    processes.kill_group(pid)
    assert os.read(read_end, 1) == b"", "somebody of the group still holds the pipe"
    os.close(read_end)
    os.waitpid(pid, 0)
    processes.kill_group(pid)


def test_stat_reads_names_with_parentheses_and_blanks() -> None:
    def named() -> tuple[object, int, str]:
        with open("/proc/self/comm", "w") as file:
            file.write(") R 1 (x y")
        with open("/proc/self/stat") as file:
            ticks = file.read().split(") ")[-1].split()[19]
        return processes.stat(os.getpid()), os.getppid(), ticks

    (name, letter, parent, started), real_parent, ticks = child.run(named)
    assert (name, letter, parent, started) == (") R 1 (x y", "R", real_parent, int(ticks))
    with pytest.raises(OSError):
        processes.stat(1 << 22)


def test_stat_of_a_name_that_is_not_utf8() -> None:
    def named() -> object:
        with open("/proc/self/comm", "wb") as file:
            file.write(b"\xff\xfe)")
        return processes.stat(os.getpid())[0]

    assert child.run(named) == "\ufffd\ufffd)"


def test_alive_knows_zombies_and_numbers_that_were_used_again(process) -> None:
    started = processes.stat(process)[3]
    assert processes.alive(process, started)
    assert not processes.alive(process, started - 1), "another process of the same number"
    os.kill(process, signal.SIGKILL)
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)
    assert processes.stat(process)[1] == "Z"
    assert not processes.alive(process, started), "a zombie has exited"
    os.waitpid(process, 0)
    assert not processes.alive(process, started)


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_alive_never_takes_the_numbers_of_nobody(pid: int) -> None:
    started = processes.stat(1)[3]
    assert not processes.alive(pid, started)


def test_the_interpreter_has_the_calls_by_name() -> None:
    assert sys.version_info >= (3, 9)
    assert processes.SIGKILL == signal.SIGKILL and processes.SIGTERM == signal.SIGTERM


# kernels and filters without the calls --------------------------------------------------------------------

WITHOUT = pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])


def without(calls: str, error: int, action):
    """Call `action` in a child of ours in which these system calls fail."""

    def filtered():
        blocked.load(blocked.numbers(calls), error)
        return action()

    return child.run(filtered)


@WITHOUT
def test_spawn_does_without_clone3(error: int) -> None:
    """glibc asks clone3(2) first and goes back to clone(2) after ENOSYS only."""

    def action() -> tuple[str, int, int, int]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        read_end, write_end = os.pipe()
        actions = [(posix.POSIX_SPAWN_DUP2, write_end, 1)]
        script = (
            b"tr '\\0' ' ' </proc/$$/environ; exec grep -E '^Sig(Blk|Ign)|^Pid' /proc/self/status"
        )
        pid = processes.spawn(b"/bin/sh", [b"sh", b"-c", script], {b"A": b"1"}, actions)
        session = os.getsid(pid)
        os.close(write_end)
        with open(read_end) as file:
            text = file.read()
        return text, session == pid, processes.wait(pid), len(children())

    text, leads, status, left = without("clone3", error, action)
    assert text.startswith("A=1 ") and leads and (status, left) == (0, 0)
    rows = dict(line.split(":\t") for line in text.partition(" ")[2].splitlines())
    assert int(rows["SigBlk"], 16) == 0
    assert int(rows["SigIgn"], 16) & ~(3 << 31) == 0


@WITHOUT
@pytest.mark.parametrize("path", [b"/missing", b"/etc", b"/etc/passwd"])
def test_spawn_without_clone3_tells_why_as_well(error: int, path: bytes) -> None:
    def action() -> tuple[int, int]:
        try:
            processes.spawn(path, [b"x"], {}, [])
        except OSError as failure:
            return failure.errno or 0, len(children())
        return 0, -1

    wanted = errno.ENOENT if path == b"/missing" else errno.EACCES
    assert without("clone3", error, action) == (wanted, 0)


@WITHOUT
@pytest.mark.parametrize("calls", ["pidfd_open", "pidfd_open,pidfd_send_signal"])
def test_pidfd_open_is_readable_at_the_end_also_without_the_call(process, error, calls) -> None:
    def action() -> object:
        watch = processes.pidfd_open(process)
        quiet = not select.select([watch], [], [], 0.05)[0]
        kept = os.get_inheritable(watch)
        processes.pidfd_send_signal(watch, 0)
        processes.pidfd_send_signal(watch, signal.SIGTERM)
        woken = select.select([watch], [], [], 60)[0] == [watch]
        helpers = children()
        return quiet, kept, woken, len(helpers), processes.is_pidfd(watch)

    # Not our child in there: it stays a zombie, which has exited.
    assert without(calls, error, action) == (True, False, True, 1, False)
    with pytest.raises(ProcessLookupError):
        without(calls, error, lambda: processes.pidfd_open(1 << 22))


@WITHOUT
def test_pidfd_open_without_the_call_leaves_no_helper_when_it_is_closed(process, error) -> None:
    def action() -> tuple[int, int]:
        write_end = os.pipe()[1]
        watch = processes.pidfd_open(process)
        (helper,) = children()
        held = os.listdir(f"/proc/{helper}/fd")
        end = time.monotonic() + 60
        while len(held) > 1 and time.monotonic() < end:
            held = os.listdir(f"/proc/{helper}/fd")
        os.kill(int(helper), signal.SIGINT)  # as a terminal sends it to the whole group
        os.close(watch)
        os.close(write_end)
        return os.waitstatus_to_exitcode(os.waitpid(int(helper), 0)[1]), len(held)

    assert without("pidfd_open", error, action) == (0, 1)


def test_pidfd_open_of_an_interpreter_that_was_built_without_it(process, monkeypatch) -> None:
    """RHEL 8 builds Python 3.9 with the headers of Linux 4.18."""
    monkeypatch.delattr(posix, "pidfd_open")
    monkeypatch.delattr(processes._signal, "pidfd_send_signal")
    watch = processes.pidfd_open(process)
    processes.pidfd_send_signal(watch, signal.SIGUSR1)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGUSR1
    assert select.select([watch], [], [], 60)[0] == [watch]
    os.close(watch)
    os.wait()


@WITHOUT
def test_pidfd_send_signal_without_the_call_goes_by_the_pid_behind_the_descriptor(
    process, error: int
) -> None:
    def action() -> bool:
        real = processes.pidfd_open(process)
        processes.pidfd_send_signal(real, signal.SIGUSR1)
        return processes.is_pidfd(real)

    assert without("pidfd_send_signal", error, action)
    assert os.WTERMSIG(os.waitpid(process, 0)[1]) == signal.SIGUSR1

    def gone() -> None:
        other = os.fork()
        if other == 0:
            os._exit(0)
        real = processes.pidfd_open(other)
        os.waitpid(other, 0)
        processes.pidfd_send_signal(real, signal.SIGKILL)

    with pytest.raises(ProcessLookupError):
        without("pidfd_send_signal", error, gone)


def test_pidfd_send_signal_without_pidfds_spares_another_process_of_the_number(process) -> None:
    def action() -> int:
        watch = processes.pidfd_open(process)
        pid, started = processes._watched[watch]
        processes._watched[watch] = pid, started - 1
        try:
            processes.pidfd_send_signal(watch, signal.SIGKILL)
        except ProcessLookupError as failure:
            return failure.errno or 0
        return 0

    assert without("pidfd_open", errno.ENOSYS, action) == errno.ESRCH
    os.kill(process, 0)


@WITHOUT
def test_is_pidfd_tells_a_stand_in(process, error: int) -> None:
    real = processes.pidfd_open(process)
    assert processes.is_pidfd(real)
    os.close(real)
    assert not without(
        "pidfd_open", error, lambda: processes.is_pidfd(processes.pidfd_open(process))
    )


@WITHOUT
def test_has_pidfds_tells_whether_the_call_is_there(monkeypatch, error: int) -> None:
    assert processes.has_pidfds()
    assert not without("pidfd_open", error, processes.has_pidfds)
    monkeypatch.delattr(posix, "pidfd_open")
    assert not processes.has_pidfds()
