"""Every function of linux.processes: children are made for real and seen through /proc."""

from __future__ import annotations

import ctypes
import errno
import os
import posix
import select
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from anocir.linux import processes, spawn
from anocir.linux import watch as stand_ins
from tests import blocked, machine
from tests.kernel import child
from tests.wait import last, until

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
    until("it pauses", lambda: os.getsid(pid) == pid and is_blocked_in_pause(pid), pause=0.001)
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
        pid = spawn.spawn(b"/bin/sh", argv, env or {}, actions, session)
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
        spawn.spawn(path, [b"x"], {}, [])
    assert caught.value.errno == number
    assert not children() - before


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 7", 7), ("exit 255", 255), ("kill -9 $$", 137),
                           ("kill -15 $$", 143)],
)  # fmt: skip
def test_wait_gives_the_status_that_a_shell_would(script: str, status: int) -> None:
    pid = os.spawnv(os.P_NOWAIT, "/bin/sh", ["sh", "-c", script])
    assert spawn.wait(pid) == status


def test_exit_code_counts_a_core_dump_as_its_signal() -> None:
    for status, expected in ((0, 0), (7 << 8, 7), (9, 137), (11 | 0x80, 139)):
        assert spawn.exit_code(status) == expected
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


def test_child_pidfd_needs_no_proc_and_is_none_without_the_call(process) -> None:
    pidfd = processes.child_pidfd(process)
    assert behind(pidfd) == process
    os.close(pidfd)
    for error in (errno.ENOSYS, errno.EPERM):
        assert without("pidfd_open", error, lambda: processes.child_pidfd(os.getpid())) == -1
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    with pytest.raises(ProcessLookupError):
        processes.child_pidfd(process)


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
    spawn.kill_group(pid)
    assert os.read(read_end, 1) == b"", "somebody of the group still holds the pipe"
    os.close(read_end)
    os.waitpid(pid, 0)
    spawn.kill_group(pid)


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


WITHOUT = pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])


def without(calls: str, error: int, action):
    """Call `action` in a child of ours in which these system calls fail."""

    def filtered():
        blocked.load(blocked.numbers(calls), error)
        return action()

    return child.run(filtered)


def behind(pidfd: int) -> int:
    """Return the process that a pidfd refers to, as /proc/self/fdinfo shows it."""
    with open(f"/proc/self/fdinfo/{pidfd}") as file:
        return int(dict(line.split(":\t") for line in file.read().splitlines())["Pid"])


def started(pid: int) -> int:
    """Return the start time of a process as its status file has it: field 22 (proc_pid_stat(5))."""
    with open(f"/proc/{pid}/stat") as file:
        return int(file.read().rpartition(") ")[2].split()[19])


def descriptors() -> list[str]:
    return sorted(os.listdir("/proc/self/fd"))


def end(pid: int) -> None:
    """Kill a child of ours and leave it a zombie."""
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


def outlived() -> tuple[int, int]:
    """Start a process whose first thread has ended and whose second one waits for a byte; both ends."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write_end)
        threading.Thread(target=lambda: (os.read(read_end, 1), os._exit(0))).start()
        ctypes.CDLL(None).pthread_exit(None)
    os.close(read_end)
    until("its first thread has ended", lambda: processes.stat(pid)[1] == "Z", pause=0.001)
    return pid, write_end


def test_default_signals_undoes_what_is_ignored_handled_and_blocked() -> None:
    def action() -> tuple[str, ...]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
        names = "SigBlk", "SigIgn", "SigCgt"
        before = [int(child.status_field(name), 16) for name in names]
        spawn.default_signals()
        return before, [int(child.status_field(name), 16) for name in names]

    before, after = child.run(action)
    assert all(before), "there was something to be undone"
    reserved = sum(1 << number - 1 for number in spawn.RESERVED)
    assert [mask & ~reserved for mask in after] == [0, 0, 0]


def test_exited_waits_no_longer_than_it_is_told_to(process) -> None:
    pidfd = os.pidfd_open(process)
    assert not processes.exited(pidfd)
    before = time.monotonic()
    assert not processes.exited(pidfd, 0.2)
    assert 0.2 <= time.monotonic() - before < 60
    end(process)
    assert processes.exited(pidfd), "a zombie has exited"
    os.waitpid(process, 0)
    assert processes.exited(pidfd), "and so has who is gone"
    os.close(pidfd)


def test_exited_comes_back_as_soon_as_the_process_has(process) -> None:
    pidfd = os.pidfd_open(process)
    killer = threading.Timer(0.05, os.kill, (process, signal.SIGKILL))
    killer.start()
    before = time.monotonic()
    assert processes.exited(pidfd, 300)
    assert time.monotonic() - before < 200
    killer.join()
    os.close(pidfd)


def test_exited_counts_all_threads_and_not_the_first_alone() -> None:
    pid, line = outlived()
    pidfd = os.pidfd_open(pid)
    assert not processes.exited(pidfd)
    os.close(line)
    assert processes.exited(pidfd, 60)
    os.waitpid(pid, 0)
    os.close(pidfd)


def test_hold_gives_a_pidfd_of_the_very_process(process) -> None:
    pidfd = processes.hold(process, started(process))
    assert behind(pidfd) == process and not os.get_inheritable(pidfd)
    os.close(pidfd)


def test_hold_takes_nobody_for_the_process_and_keeps_nothing_open(process) -> None:
    start_time, before = started(process), descriptors()
    assert processes.hold(process, start_time + 1) == -1, "one who got the number later"
    end(process)
    assert processes.hold(process, start_time) == -1, "a zombie"
    os.waitpid(process, 0)
    assert processes.hold(process, start_time) == -1, "gone"
    for pid in (-1, 0, 1, 1 << 22):
        assert processes.hold(pid, processes.stat(1)[3]) == -1
    assert descriptors() == before


def test_hold_of_a_number_that_a_thread_got() -> None:
    """pidfd_open(2) says EINVAL, on newer kernels (6.18) ENOENT."""
    release = threading.Event()
    thread = threading.Thread(target=release.wait)
    thread.start()
    try:
        assert thread.native_id != os.getpid()
        with pytest.raises(OSError) as caught:
            os.pidfd_open(thread.native_id)
        assert caught.value.errno in (errno.EINVAL, errno.ENOENT)
        before = descriptors()
        assert processes.hold(thread.native_id, started(thread.native_id)) == -1
        assert descriptors() == before
    finally:
        release.set()
        thread.join()


def test_hold_of_a_process_whose_first_thread_has_ended() -> None:
    pid, line = outlived()
    pidfd = processes.hold(pid, started(pid))
    assert behind(pidfd) == pid
    os.close(line)
    os.waitpid(pid, 0)
    os.close(pidfd)


@WITHOUT
def test_hold_without_the_call_has_a_stand_in(process, error: int) -> None:
    start_time = started(process)

    def action() -> tuple[int, bool, bool]:
        wrong = processes.hold(process, start_time + 1)
        watch = processes.hold(process, start_time)
        quiet = not processes.exited(watch)
        os.kill(process, signal.SIGKILL)
        return wrong, quiet, processes.exited(watch, 60)

    assert without("pidfd_open", error, action) == (-1, True, True)


def test_hold_child_gives_pidfd_and_start_time_also_of_a_zombie(process) -> None:
    start_time = started(process)
    for state in ("S", "Z"):
        pidfd, found = processes.hold_child(process, os.getpid())
        assert (processes.stat(process)[1], found, behind(pidfd)) == (state, start_time, process)
        assert processes.exited(pidfd) == (state == "Z")
        os.close(pidfd)
        if state == "S":
            end(process)


def test_hold_child_refuses_who_is_no_child_of_ours(process) -> None:
    before = descriptors()
    read_end, write_end = os.pipe()
    middle = os.fork()
    if middle == 0:
        os.write(write_end, str(sleeper()).encode())
        signal.pause()
    grandchild = int(os.read(read_end, 16))
    gone = os.fork()
    if gone == 0:
        os._exit(0)
    os.waitpid(gone, 0)
    for pid in (-1, 0, 1, 1 << 22, os.getpid(), os.getppid(), gone, grandchild):
        with pytest.raises(ChildProcessError) as caught:
            processes.hold_child(pid, os.getpid())
        assert (caught.value.errno, caught.value.filename) == (errno.ECHILD, str(pid))
    with pytest.raises(ChildProcessError):
        processes.hold_child(process, os.getppid())
    pidfd, _ = processes.hold_child(grandchild, middle)
    assert behind(pidfd) == grandchild
    os.kill(grandchild, signal.SIGKILL)
    os.kill(middle, signal.SIGKILL)
    os.waitpid(middle, 0)
    for fd in (pidfd, read_end, write_end):
        os.close(fd)
    assert descriptors() == before


def test_directory_stays_with_the_process_that_it_was_opened_for(process) -> None:
    fd = processes.directory(process)
    assert os.readlink(f"/proc/self/fd/{fd}") == f"/proc/{process}"
    with open(f"/proc/self/fdinfo/{fd}") as file:
        flags = int(dict(line.split(":\t") for line in file.read().splitlines())["flags"], 8)
    assert flags & os.O_PATH and flags & os.O_CLOEXEC
    inner = os.open("stat", os.O_RDONLY, dir_fd=fd)
    assert os.read(inner, 4096).split()[0] == str(process).encode()
    os.close(inner)
    end(process)
    os.waitpid(process, 0)
    with pytest.raises((FileNotFoundError, ProcessLookupError)):
        os.open("stat", os.O_RDONLY, dir_fd=fd)
    os.close(fd)
    before = descriptors()
    for pid in (process, -1, 1 << 22):
        with pytest.raises(ProcessLookupError) as caught:
            processes.directory(pid)
        assert (caught.value.errno, caught.value.filename) == (errno.ESRCH, f"/proc/{pid}")
    assert descriptors() == before


def test_the_interpreter_has_the_calls_by_name() -> None:
    assert sys.version_info >= (3, 9)
    assert processes.SIGKILL == signal.SIGKILL and processes.SIGTERM == signal.SIGTERM


# kernels and filters without the calls --------------------------------------------------------------------


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
        pid = spawn.spawn(b"/bin/sh", [b"sh", b"-c", script], {b"A": b"1"}, actions)
        session = os.getsid(pid)
        os.close(write_end)
        with open(read_end) as file:
            text = file.read()
        return text, session == pid, spawn.wait(pid), len(children())

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
            spawn.spawn(path, [b"x"], {}, [])
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
        return quiet, kept, woken, len(helpers), stand_ins.is_pidfd(watch)

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
        held = last(lambda: os.listdir(f"/proc/{helper}/fd"), found=lambda fds: len(fds) == 1)
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
        return stand_ins.is_pidfd(real)

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
        pid, started = stand_ins._watched[watch]
        stand_ins._watched[watch] = pid, started - 1
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
    assert stand_ins.is_pidfd(real)
    os.close(real)
    assert not without(
        "pidfd_open", error, lambda: stand_ins.is_pidfd(processes.pidfd_open(process))
    )


@WITHOUT
def test_has_pidfds_tells_whether_the_call_is_there(monkeypatch, error: int) -> None:
    assert stand_ins.has_pidfds()
    assert not without("pidfd_open", error, stand_ins.has_pidfds)
    monkeypatch.delattr(posix, "pidfd_open")
    assert not stand_ins.has_pidfds()


@pytest.mark.needs("user-namespace")
def test_in_user_namespace_knows_one_whose_map_changes_no_id() -> None:
    outside = Path("/proc/self/ns/user").stat().st_ino == 0xEFFFFFFD  # PROC_USER_INIT_INO
    assert processes.in_user_namespace() is not outside
    assert child.run(processes.in_user_namespace, machine.CLONE_NEWUSER) is True


def test_id_map_is_the_kernels_table() -> None:
    table = [tuple(map(int, line.split())) for line in open("/proc/self/gid_map")]
    assert processes.id_map("self", "gid") == processes.id_map(os.getpid(), "gid") == table != []
    with pytest.raises(FileNotFoundError):
        processes.id_map(0, "uid")
