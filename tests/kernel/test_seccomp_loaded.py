"""Compiled profiles in the kernel: a child loads the program, makes the call, and is watched.

No container: what the runtime itself does around this is tested in tests/runtime.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import mmap
import os
import platform
import select
import signal
import socket
import struct
import threading
from typing import Any, Callable

import pytest

from anocir import seccomp
from tests.unit.seccomp_profiles import (
    compiled,
    condition,
    engine_profile,
    needs_libseccomp,
    needs_numbers,
    needs_x86_64,
    profile,
    rule,
)
from tests.wait import last, others_go_on, until

pytestmark = [pytest.mark.kernel, needs_libseccomp, needs_numbers]

AARCH64 = platform.machine() == "aarch64"
# arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h (aarch64)
GETPID, GETPPID, GETUID = (172, 173, 174) if AARCH64 else (39, 110, 102)
SECCOMP, PRCTL, PIDFD_OPEN, PIDFD_GETFD = (277, 167, 434, 438) if AARCH64 else (317, 157, 434, 438)
MOUNT, CLONE3, OPENAT, SENDMSG = (40, 435, 56, 211) if AARCH64 else (165, 435, 257, 46)
EXECVE, CAPSET, SETRESUID, UMASK = (221, 91, 147, 166) if AARCH64 else (59, 126, 117, 95)
# include/uapi/linux/seccomp.h, prctl.h
GETPID_32, GETUID_32 = 20, 24
X32 = 0x40000000
NO_NEW_PRIVS = 38
NOTIF_RECV, NOTIF_SEND, NOTIF_ID_VALID = 0xC0502100, 0xC0182101, 0x40082102
CONTINUE = 1

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def call(nr: int, *args: Any) -> int:
    """Make a system call: the result, or -errno."""
    values = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(_libc.syscall(ctypes.c_long(nr), *values))
    return -ctypes.get_errno() if result == -1 else result


class Fprog(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_char_p)]


def load(program: dict[str, Any]) -> int:
    """Load a compiled profile into this process: 0 or the listener's descriptor."""
    assert call(PRCTL, NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    fprog = Fprog(len(program["bpf"]) // 8, program["bpf"])
    result = call(SECCOMP, 1, program["flags"], ctypes.byref(fprog))
    if result < 0:
        raise OSError(-result, "seccomp")
    return result


def _machine_code() -> Callable[..., int]:
    """Return a function that enters the kernel as a 32-bit program does."""
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    # push rbx; mov eax,edi; mov ebx,esi; xchg edx,ecx; int 0x80; pop rbx; ret
    memory.write(bytes.fromhex("53 89f8 89f3 87ca cd80 5b c3"))
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 4)
    function = kind(address)
    function.memory = memory  # type: ignore[attr-defined]
    return function


call_32 = _machine_code()


def in_child(action: Callable[[], int], seconds: float = 60) -> tuple[str, int]:
    """Run an action in a child: ("result", what it returned) or ("signal", what killed it)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            os.write(writer, struct.pack("q", action()))
        finally:
            os._exit(0)
    os.close(writer)
    ready, _, _ = select.select([reader], [], [], seconds)
    if not ready:
        os.kill(pid, signal.SIGKILL)
    data = os.read(reader, 8)
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return "signal", os.WTERMSIG(status)
    return "result", struct.unpack("q", data)[0]


def under(wanted: dict[str, Any], action: Callable[[], int]) -> tuple[str, int]:
    """Run an action in a child under a profile."""
    program = compiled(wanted)

    def loaded() -> int:
        load(program)
        return action()

    return in_child(loaded)


@pytest.mark.parametrize(
    ("action", "errno", "expected"),
    [
        ("KILL", None, ("signal", signal.SIGSYS)),
        ("KILL_THREAD", None, ("signal", signal.SIGSYS)),
        ("KILL_PROCESS", None, ("signal", signal.SIGSYS)),
        ("TRAP", None, ("signal", signal.SIGSYS)),
        ("ERRNO", None, ("result", -1)),
        ("ERRNO", 95, ("result", -95)),
        ("ERRNO", 0, ("result", 0)),
        ("TRACE", None, ("result", -38)),
        ("TRACE", 7, ("result", -38)),
    ],
)
def test_each_action_does_what_its_name_says(
    action: str, errno: int | None, expected: tuple[str, int]
) -> None:
    wanted = profile("ALLOW", rule("getppid", action, errno=errno))
    assert under(wanted, lambda: call(GETPPID)) == expected
    assert under(wanted, lambda: call(GETUID)) == ("result", os.getuid())


@pytest.mark.parametrize("action", ["ALLOW", "LOG"])
def test_allow_and_log_let_a_call_through(action: str) -> None:
    default = "LOG" if action == "ALLOW" else "ALLOW"
    wanted = profile(default, rule("getuid", action))
    assert under(wanted, lambda: call(GETUID)) == ("result", os.getuid())


def threads_after(action: str) -> tuple[str, int]:
    """Let one thread make the filtered call; the other one reports whether it is still there."""

    def both() -> int:
        thread = threading.Thread(target=lambda: call(GETPPID), daemon=True)
        thread.start()
        # The killed thread cannot give the interpreter's lock back after a call that keeps it;
        # ctypes gives it away during the call, so that this thread goes on.
        return 77 if last(lambda: len(os.listdir("/proc/self/task")) == 1) else 78

    return under(profile("ALLOW", rule("getppid", action)), both)


def test_kill_ends_the_thread_and_kill_process_the_process() -> None:
    assert threads_after("KILL_THREAD") == ("result", 77)
    assert threads_after("KILL") == ("result", 77)
    assert threads_after("KILL_PROCESS") == ("signal", signal.SIGSYS)


def test_trap_can_be_handled_and_names_the_call() -> None:
    def handled() -> int:
        signal.pthread_sigmask(signal.SIG_BLOCK, [])
        caught: list[int] = []
        signal.signal(signal.SIGSYS, lambda number, frame: caught.append(number))
        call(GETPPID)
        return len(caught)

    assert under(profile("ALLOW", rule("getppid", "TRAP")), handled) == ("result", 1)


def test_trace_asks_a_tracer_with_the_data_of_the_rule() -> None:
    program = compiled(profile("ALLOW", rule("getppid", "TRACE", errno=4321)))
    ptrace = _libc.ptrace
    ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    pid = os.fork()
    if not pid:
        try:
            ptrace(0, 0, None, None)  # PTRACE_TRACEME
            os.kill(os.getpid(), signal.SIGSTOP)
            load(program)
            os._exit(7 if call(GETPPID) > 0 else 8)
        finally:
            os._exit(9)
    os.waitpid(pid, 0)
    assert ptrace(0x4200, pid, None, 0x80) == 0  # PTRACE_SETOPTIONS, PTRACE_O_TRACESECCOMP
    assert ptrace(7, pid, None, None) == 0  # PTRACE_CONT
    _, status = os.waitpid(pid, 0)
    assert status >> 8 == signal.SIGTRAP | 7 << 8  # PTRACE_EVENT_SECCOMP
    message = ctypes.c_ulong()
    ptrace(0x4201, pid, None, ctypes.addressof(message))  # PTRACE_GETEVENTMSG
    ptrace(7, pid, None, None)
    _, status = os.waitpid(pid, 0)
    assert (message.value, os.waitstatus_to_exitcode(status)) == (4321, 7)


@pytest.mark.parametrize(
    ("operator", "value", "second", "hit", "miss"),
    [
        ("EQ", 2**32 + 5, None, 2**32 + 5, 5),
        ("NE", 5, None, 2**32 + 5, 5),
        ("LT", 2**32, None, 2**32 - 1, 2**32),
        ("LE", 2**32, None, 2**32, 2**32 + 1),
        ("GT", 2**31, None, 2**63, 2**31),
        ("GE", 2**63, None, 2**63, 2**63 - 1),
        ("MASKED_EQ", 0xFF00000000, 0x1200000000, 0x1212345678, 0x1312345678),
    ],
)
def test_each_operator_sees_64_bits(
    operator: str, value: int, second: int | None, hit: int, miss: int
) -> None:
    blocked = rule("getppid", "ERRNO", condition(5, operator, value, second), errno=71)
    wanted = profile("ALLOW", blocked)
    for argument, expected in ((hit, True), (miss, False)):
        kind, got = under(wanted, lambda last=argument: call(GETPPID, 0, 0, 0, 0, 0, last))
        assert (kind, got == -71) == ("result", expected), hex(argument)


def _enters_as_32_bit() -> bool:
    return in_child(lambda: call_32(GETUID_32, 0, 0, 0)) == ("result", os.getuid() & 0xFFFF)


@needs_x86_64
def test_a_32_bit_entry_is_killed_unless_x86_is_listed() -> None:
    if not _enters_as_32_bit():
        pytest.skip("[ia32] the kernel has no 32-bit entry")
    blocked = rule("getpid", "ERRNO", errno=71)
    alone = profile("ALLOW", blocked)
    assert under(alone, lambda: call_32(GETUID_32, 0, 0, 0)) == ("signal", signal.SIGSYS)
    listed = profile("ALLOW", blocked, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"])
    assert under(listed, lambda: call_32(GETUID_32, 0, 0, 0))[0] == "result"
    assert under(listed, lambda: call_32(GETPID_32, 0, 0, 0)) == ("result", -71)
    # 39 is mkdir(2) there: the table of the entry counts, not this process's
    assert under(listed, lambda: call_32(GETPID, 0, 0, 0)) == ("result", -14)


@needs_x86_64
def test_x32_numbers_are_killed_unless_x32_is_listed() -> None:
    blocked = rule("getpid", "ERRNO", errno=71)
    alone = profile("ALLOW", blocked)
    assert under(alone, lambda: call(X32 | GETPID)) == ("signal", signal.SIGSYS)
    listed = profile("ALLOW", blocked, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"])
    assert under(listed, lambda: call(X32 | GETPID)) == ("result", -71)
    natural = in_child(lambda: call(X32 | GETUID))
    assert under(listed, lambda: call(X32 | GETUID)) == natural


def test_a_call_newer_than_the_profile_fails_with_enosys() -> None:
    wanted = engine_profile()
    assert under(wanted, lambda: call(1000)) == ("result", -38)
    assert under(wanted, lambda: call(MOUNT, 0, 0, 0, 0, 0)) == ("result", -1)
    assert under(wanted, lambda: call(CLONE3, 0, 0)) == ("result", -38)


@pytest.mark.parametrize("flag", seccomp.features().get("supportedFlags", []))
def test_each_supported_flag_is_taken_by_the_kernel(flag: str) -> None:
    wanted = profile("ALLOW", rule("getppid", "ERRNO", errno=71), flags=[flag])
    if "WAIT_KILLABLE" in flag:
        wanted = profile("ALLOW", rule("getppid", "NOTIFY"), flags=[flag], listenerPath="/s")
        assert in_child(lambda: load(compiled(wanted)) > 2) == ("result", 1)
    else:
        assert under(wanted, lambda: call(GETPPID)) == ("result", -71)


def test_tsync_filters_the_threads_that_are_there() -> None:
    def thread_asks(flags: list[str]) -> tuple[str, int]:
        program = compiled(profile("ALLOW", rule("getppid", "ERRNO", errno=71), flags=flags))

        def action() -> int:
            go, done = threading.Event(), threading.Event()
            results: list[int] = []

            def ask() -> None:
                go.wait(60)
                results.append(call(GETPPID))
                done.set()

            threading.Thread(target=ask, daemon=True).start()
            load(program)
            go.set()
            done.wait(60)
            return results[0]

        return in_child(action)

    assert thread_asks(["SECCOMP_FILTER_FLAG_TSYNC"]) == ("result", -71)
    assert thread_asks([])[1] > 0


def test_the_kernel_loads_a_program_of_the_greatest_length() -> None:
    rules = [rule("getppid", "ERRNO", condition(0, "EQ", v), errno=71) for v in range(4000)]
    program = compiled(profile("ALLOW", *rules))
    assert 4000 < len(program["bpf"]) // 8 <= 4096

    def action() -> int:
        load(program)
        return call(GETPPID, 3999)

    assert in_child(action) == ("result", -71)


# Notification


class Agent:
    """Answers the notifications of a child, as the process behind listenerPath does."""

    def __init__(self, program: dict[str, Any], action: Callable[[], int]) -> None:
        self.reader, writer = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            try:
                os.write(writer, struct.pack("q", load(program)))
                os.write(writer, struct.pack("q", action()))
            finally:
                os._exit(0)
        os.close(writer)
        theirs = struct.unpack("q", os.read(self.reader, 8))[0]
        pidfd = call(PIDFD_OPEN, self.pid, 0)
        self.fd = call(PIDFD_GETFD, pidfd, theirs, 0)
        os.close(pidfd)
        assert self.fd >= 0

    def receive(self) -> tuple[int, int, tuple[int, ...]]:
        """Return cookie, number and arguments of the next call."""
        assert select.select([self.fd], [], [], 60)[0], "no notification"
        data = array.array("B", bytes(80))
        fcntl.ioctl(self.fd, NOTIF_RECV, data)
        cookie, _, _, nr, _, _, *args = struct.unpack("=QIIiIQ6Q", data.tobytes())
        return cookie, nr, tuple(args)

    def is_waiting(self, cookie: int) -> bool:
        """Tell whether the call is still there to be answered."""
        try:
            fcntl.ioctl(self.fd, NOTIF_ID_VALID, struct.pack("=Q", cookie))
        except FileNotFoundError:
            return False
        return True

    def answer(self, cookie: int, value: int = 0, error: int = 0, flags: int = 0) -> None:
        """Let the call return `value`, fail with `error`, or go on."""
        data = array.array("B", struct.pack("=QqiI", cookie, value, -error, flags))
        fcntl.ioctl(self.fd, NOTIF_SEND, data)

    def result(self) -> int:
        """Return what the child's action returned, at its end."""
        data = os.read(self.reader, 8)
        os.close(self.reader)
        os.close(self.fd)
        os.waitpid(self.pid, 0)
        return int(struct.unpack("q", data)[0])


def notify(names: str, **others: Any) -> dict[str, Any]:
    return compiled(profile("ALLOW", rule(names, "NOTIFY"), listenerPath="/s", **others))


def test_an_agent_answers_in_place_of_the_kernel() -> None:
    agent = Agent(notify("getppid"), lambda: call(GETPPID, 11, 12))
    cookie, nr, args = agent.receive()
    assert (nr, args[:2]) == (GETPPID, (11, 12))
    agent.answer(cookie, value=4242)
    assert agent.result() == 4242


def test_an_agent_lets_a_call_fail_or_go_on() -> None:
    agent = Agent(notify("getppid"), lambda: call(GETPPID))
    agent.answer(agent.receive()[0], error=71)
    assert agent.result() == -71
    agent = Agent(notify("getppid"), lambda: call(GETPPID))
    agent.answer(agent.receive()[0], flags=CONTINUE)
    assert agent.result() == os.getpid()


def test_openat_and_sendmsg_may_be_trapped() -> None:
    ours, theirs = socket.socketpair()

    def action() -> int:
        opened = call(OPENAT, -100, ctypes.c_char_p(b"/nonexistent"), 0, 0)
        header = (ctypes.c_char * 56)()
        sent = call(SENDMSG, theirs.fileno(), header, 0)
        return opened * 1000 + sent

    agent = Agent(notify("openat sendmsg"), action)
    cookie, nr, _ = agent.receive()
    assert nr == OPENAT
    agent.answer(cookie, value=5)
    cookie, nr, args = agent.receive()
    assert (nr, args[0]) == (SENDMSG, theirs.fileno())
    agent.answer(cookie, value=7)
    assert agent.result() == 5007
    ours.close()
    theirs.close()


def test_a_call_without_an_agent_fails_with_enosys() -> None:
    def action() -> int:
        os.close(load(program))
        return call(GETPPID)

    program = notify("getppid")
    assert in_child(action) == ("result", -38)


@pytest.mark.parametrize(("flag", "expected"), [("WAIT_KILLABLE_RECV", 4242), ("SPEC_ALLOW", -4)])
def test_wait_killable_recv_keeps_a_signal_from_repeating_the_call(
    flag: str, expected: int
) -> None:
    word = f"SECCOMP_FILTER_FLAG_{flag}"
    if word not in seccomp.features()["supportedFlags"]:
        pytest.skip(f"[{word}] the kernel has no such flag")

    def action() -> int:
        signal.signal(signal.SIGUSR1, lambda number, frame: None)
        return call(GETPPID)

    agent = Agent(notify("getppid", flags=[word]), action)
    cookie, _, _ = agent.receive()
    os.kill(agent.pid, signal.SIGUSR1)
    if expected == 4242:
        others_go_on()
        agent.answer(cookie, value=4242)
    else:
        until("the call is given up", lambda: not agent.is_waiting(cookie))
        with pytest.raises(FileNotFoundError):
            agent.answer(cookie, value=4242)
    assert agent.result() == expected


def test_tsync_goes_together_with_a_listener() -> None:
    program = notify("getppid", flags=["SECCOMP_FILTER_FLAG_TSYNC"])
    agent = Agent(program, lambda: call(GETPPID))
    agent.answer(agent.receive()[0], value=1)
    assert agent.result() == 1


# The check before loading, against what really happens


# include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl
AFTER_LOAD = {"read": 63, "write": 64, "execve": EXECVE, "capset": CAPSET} if AARCH64 else {
    "read": 0, "write": 1, "execve": EXECVE, "capset": CAPSET
}  # fmt: skip
ACTIONS = ["KILL", "KILL_PROCESS", "TRAP", "ERRNO", "ALLOW", "LOG", "TRACE"]


def is_refused(program: dict[str, Any], needed: tuple[str, ...]) -> bool:
    try:
        seccomp.check_after_load(program, needed)
    except seccomp.Error:
        return True
    return False


def hurts(program: dict[str, Any], number: int) -> bool:
    """Tell whether the call fails by the filter; nothing but its outcome comes out of the child."""
    pid = os.fork()
    if not pid:
        status = 99
        try:
            load(program)
            status = 71 if call(number, -1, 0, 0) == -71 else 0
        finally:
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status in (-signal.SIGSYS, 0, 71)
    return status != 0


def one_rule(name: str, action: str) -> dict[str, Any]:
    default = "LOG" if action == "ALLOW" else "ALLOW"
    errno = 71 if action == "ERRNO" else None
    return compiled(profile(default, rule(name, action, errno=errno)))


@pytest.mark.parametrize("name", AFTER_LOAD)
@pytest.mark.parametrize("action", ACTIONS)
def test_a_refused_profile_would_have_hurt(name: str, action: str) -> None:
    program = one_rule(name, action)
    assert is_refused(program, seccomp.NEEDED_EARLY) == hurts(program, AFTER_LOAD[name])


def test_all_that_is_needed_is_tried() -> None:
    assert set(AFTER_LOAD) == set(seccomp.NEEDED_EARLY)
    assert set(seccomp.NEEDED_EARLY) - set(seccomp.NEEDED_LAST) == {"capset"}


@pytest.mark.parametrize("action", ["KILL", "TRAP", "ERRNO"])
def test_with_no_new_privileges_capabilities_are_set_before_the_filter(action: str) -> None:
    program = one_rule("capset", action)
    assert hurts(program, CAPSET) and not is_refused(program, seccomp.NEEDED_LAST)


@pytest.mark.parametrize(("name", "number"), [("setresuid", SETRESUID), ("umask", UMASK)])
@pytest.mark.parametrize("action", ["KILL", "TRAP", "ERRNO"])
def test_what_only_the_program_may_not_call_is_no_reason(
    name: str, number: int, action: str
) -> None:
    """User and umask are set before the filter: init never makes these calls behind it."""
    program = one_rule(name, action)
    assert hurts(program, number) and not is_refused(program, seccomp.NEEDED_EARLY)
