"""Seccomp as a program in the container feels it: every action, operator, flag and entry, and notification.

Each profile also goes to runc, which has to give the same answers.
"""

from __future__ import annotations

import contextlib
import array
import ctypes
import fcntl
import json
import os
import platform
import re
import select
import shutil
import socket
import struct
import subprocess
import threading
import time
from typing import Any, Callable, Iterator, Sequence

import pytest

from tests import drive
from tests.drive import Container

HERE = os.path.dirname(os.path.abspath(__file__))
RUNC = shutil.which("runc") or ""

MACHINE = platform.machine()

pytestmark = [
    pytest.mark.needs("compiler"),
    pytest.mark.skipif(
        MACHINE not in ("x86_64", "aarch64"), reason="[numbers] numbers of x86_64 and aarch64"
    ),
]
needs_x86_64 = pytest.mark.skipif(MACHINE != "x86_64", reason="[x86_64] its 32-bit entries")

# arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, include/uapi/asm-generic/unistd.h
LSEEK, GETPID, GETUID, GETPGID = 8, 39, 102, 121
GETPID_32, GETUID_32, LSEEK_32, GETPGID_32 = 20, 24, 19, 132
OPENAT, SENDMSG = 257, 46
ARCH, ARCH_I386 = "0xc000003e", "0x40000003"
X86 = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
ARCHITECTURES = X86
if MACHINE == "aarch64":
    LSEEK, GETPID, GETUID, GETPGID = 62, 172, 174, 155
    OPENAT, SENDMSG = 56, 211
    ARCH = "0xc00000b7"
    ARCHITECTURES = ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The static program that makes the calls."""
    path = str(tmp_path_factory.mktemp("seccomp") / "seccomp_probe")
    source = os.path.join(HERE, "seccomp_probe.c")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    subprocess.run([compiler, "-static", "-O1", "-pthread", "-o", path, source], check=True)
    return path


@pytest.fixture
def box(container: Container, program: str) -> Container:
    """A container with the program in it."""
    shutil.copy(program, os.path.join(container.bundle.rootfs, "bin/seccomp_probe"))
    # also to be read by tracers and by ptrace's own checks
    for kind in ("bounding", "effective", "permitted"):
        container.process["capabilities"][kind].append("CAP_SYS_PTRACE")
        container.process["capabilities"][kind].append("CAP_SYS_ADMIN")
    return container


def profile(default: str, *syscalls: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A seccomp object."""
    return {"defaultAction": "SCMP_ACT_" + default, "syscalls": list(syscalls), **more}


def rule(names: str, action: str, *args: dict[str, Any], **more: Any) -> dict[str, Any]:
    """One entry of syscalls."""
    entry: dict[str, Any] = {"names": names.split(), "action": "SCMP_ACT_" + action, **more}
    if args:
        entry["args"] = list(args)
    return entry


def when(index: int, op: str, value: int, two: int | None = None) -> dict[str, Any]:
    """One condition on an argument."""
    condition = {"index": index, "op": "SCMP_CMP_" + op, "value": value}
    return condition if two is None else {**condition, "valueTwo": two}


def asked(box: Container, seccomp: dict[str, Any], *words: str) -> list[str]:
    """What the program says of its calls under the profile."""
    box.linux["seccomp"] = seccomp
    box.process["args"] = ["/bin/seccomp_probe", *words]
    return box.run().splitlines()


def asked_of_runc(box: Container) -> list[str]:
    """The same container under runc, which must not see the one that ours has left."""
    root = box.bundle.outside("runc-root")
    command = [RUNC, "--root", root, "run", "--bundle", box.bundle.path, box.id + "-runc"]
    return drive.call(command).stdout.splitlines()


def same(box: Container, seccomp: dict[str, Any], words: Sequence[str], expected: Any) -> None:
    """Ours gives what is expected, and runc the same."""
    assert asked(box, seccomp, *words) == list(expected)
    if RUNC:
        assert asked_of_runc(box) == list(expected)


# actions ------------------------------------------------------------------------------------------

GETPGID_CALL = f"n:{GETPGID}:1"
ACTIONS = [
    (rule("getpgid", "ERRNO"), "", ["errno EPERM", "result 0"]),
    (rule("getpgid", "ERRNO", errnoRet=95), "", ["errno EOPNOTSUPP", "result 0"]),
    (rule("getpgid", "ERRNO", errnoRet=0), "", ["result 0", "result 0"]),
    (rule("getpgid", "KILL"), "", ["signal 31", "result 0"]),
    (rule("getpgid", "KILL"), "thread", ["thread gone", "result 0"]),
    (rule("getpgid", "KILL_THREAD"), "thread", ["thread gone", "result 0"]),
    (rule("getpgid", "KILL_PROCESS"), "thread", ["signal 31", "result 0"]),
    (rule("getpgid", "KILL_PROCESS"), "", ["signal 31", "result 0"]),
    (rule("getpgid", "TRAP"), "", ["signal 31", "result 0"]),
    (
        rule("getpgid", "TRAP"),
        "trap",
        [f"trapped {GETPGID} {ARCH} 0 1", "errno ETIME", "result 0"],
    ),
    (rule("getpgid", "TRACE", errnoRet=7), "", ["errno ENOSYS", "result 0"]),
    (rule("getpgid", "TRACE", errnoRet=7), "trace", ["traced 7", "result 77", "result 0"]),
    (rule("getpgid", "TRACE"), "trace", ["traced 1", "result 77", "result 0"]),
    (rule("getpgid", "LOG"), "", ["result 1", "result 0"]),
    (rule("getpgid", "ALLOW"), "", ["result 1", "result 0"]),
]


@pytest.mark.parametrize(("entry", "mode", "expected"), ACTIONS)
def test_an_action_is_felt(
    box: Container, entry: dict[str, Any], mode: str, expected: list[str]
) -> None:
    words = [*filter(None, [mode]), GETPGID_CALL, f"n:{GETUID}"]
    same(box, profile("ALLOW", entry), words, expected)


EVERYTHING_ELSE = (
    "access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 "
    "epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group faccessat faccessat2 "
    "fchdir fchown fcntl fork fstat fstatfs futex getcwd getdents64 getegid geteuid getgid "
    "getppid getrandom gettid getuid ioctl lseek madvise mmap mprotect munmap "
    "nanosleep newfstatat openat openat2 pipe2 poll prctl pread64 prlimit64 read readlink "
    "readlinkat restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_yield "
    "sched_getaffinity setgid setgroups setresgid setresuid setrlimit setsid set_robust_list "
    "set_tid_address setuid sigaltstack stat statfs statx tgkill umask uname getpid "
    "wait4 write writev epoll_pwait2 tkill clock_gettime getresuid getresgid recvmsg ptrace"
)


@pytest.mark.parametrize(
    ("default", "mode", "expected"),
    [
        ({"default": "ERRNO"}, "", ["errno EPERM", "result 0"]),
        ({"default": "ERRNO", "defaultErrnoRet": 13}, "", ["errno EACCES", "result 0"]),
        ({"default": "KILL_PROCESS"}, "thread", ["signal 31", "result 0"]),
        ({"default": "KILL"}, "thread", ["thread gone", "result 0"]),
        ({"default": "TRAP"}, "trap", [f"trapped {GETPGID} {ARCH} 0 1", "errno ETIME", "result 0"]),
        ({"default": "TRACE", "defaultErrnoRet": 9}, "trace", ["traced 9", "result 77", "result 0"]),
        ({"default": "LOG"}, "", ["result 1", "result 0"]),
    ],
)  # fmt: skip
def test_a_default_action_is_felt(
    box: Container, default: dict[str, Any], mode: str, expected: list[str]
) -> None:
    # setns is known to the profile, so that getpgid is not newer than everything it names
    known = rule(EVERYTHING_ELSE + " setns", "ALLOW")
    words = [*filter(None, [mode]), GETPGID_CALL, f"n:{GETUID}"]
    same(box, {**profile(**default), "syscalls": [known]}, words, expected)


# operators ----------------------------------------------------------------------------------------

BIG = 0xFFFFFFFF00000000
OPERATORS = [
    (when(1, "EQ", 5), [5], [4, 6, 5 | 1 << 32]),
    (when(1, "NE", 5), [4, 5 | 1 << 32], [5]),
    (when(1, "LT", 5), [4, 0], [5, 6, 1 << 40]),
    (when(1, "LE", 5), [4, 5], [6, 1 << 63]),
    (when(1, "GT", 5), [6, 1 << 40], [5, 4]),
    (when(1, "GE", 5), [5, 6, BIG], [4]),
    (when(1, "GE", BIG), [BIG, BIG + 1], [BIG - 1, 5]),
    (when(1, "MASKED_EQ", 0xF0, 0x30), [0x30, 0x3F, 0xF30], [0x40, 0x0F]),
    (when(1, "MASKED_EQ", 1 << 40 | 1, 1 << 40), [1 << 40], [1, 1 << 40 | 1, 0]),
    (when(2, "EQ", 9), [], [9]),  # another argument: ours is the second
]


@pytest.mark.parametrize(("condition", "hit", "missed"), OPERATORS)
def test_an_operator_is_felt(
    box: Container, condition: dict[str, Any], hit: list[int], missed: list[int]
) -> None:
    words = [f"n:{LSEEK}:99:{value:#x}:0" for value in hit + missed]
    expected = ["errno ENOTTY"] * len(hit) + ["errno EBADF"] * len(missed)
    same(box, profile("ALLOW", rule("lseek", "ERRNO", condition, errnoRet=25)), words, expected)


@pytest.mark.parametrize(
    ("rules", "calls"),
    [
        # two conditions on one argument are alternatives; on two arguments both have to hold
        ([rule("lseek", "ERRNO", when(1, "EQ", 5), when(1, "EQ", 6), errnoRet=25)],
         {"5:0": "ENOTTY", "6:0": "ENOTTY", "7:0": "EBADF"}),
        ([rule("lseek", "ERRNO", when(1, "EQ", 5), when(2, "EQ", 1), errnoRet=25)],
         {"5:1": "ENOTTY", "5:0": "EBADF", "4:1": "EBADF"}),
        # several rules for one call
        ([rule("lseek", "ERRNO", when(1, "EQ", 5), errnoRet=25),
          rule("lseek", "ERRNO", when(1, "EQ", 6), errnoRet=13)],
         {"5:0": "ENOTTY", "6:0": "EACCES", "7:0": "EBADF"}),
    ],
)  # fmt: skip
def test_conditions_are_combined_as_runc_does_it(
    box: Container, rules: list[dict[str, Any]], calls: dict[str, str]
) -> None:
    words = [f"n:{LSEEK}:99:{args}" for args in calls]
    same(box, profile("ALLOW", *rules), words, [f"errno {name}" for name in calls.values()])


# entries ------------------------------------------------------------------------------------------


@needs_x86_64
def test_a_32_bit_entry_is_killed_unless_its_architecture_is_listed(box: Container) -> None:
    blocked = rule("getpid", "ERRNO", errnoRet=71)
    same(
        box, profile("ALLOW", blocked), [f"i:{GETUID_32}", f"n:{GETUID}"], ["signal 31", "result 0"]
    )


@needs_x86_64
def test_a_32_bit_entry_is_filtered_by_its_own_table(box: Container) -> None:
    # 39 is getpid for a 64-bit program and mkdir for a 32-bit one
    seccomp = profile("ALLOW", rule("getpid", "ERRNO", errnoRet=71), architectures=X86)
    words = [f"i:{GETPID_32}", f"i:{GETUID_32}", f"i:{GETPID}", f"n:{GETPID}"]
    same(box, seccomp, words, ["errno EPROTO", "result 0", "errno EFAULT", "errno EPROTO"])


@needs_x86_64
def test_a_condition_holds_for_a_32_bit_entry_too(box: Container) -> None:
    seccomp = profile(
        "ALLOW", rule("lseek", "ERRNO", when(1, "EQ", 5), errnoRet=25), architectures=X86
    )
    words = [f"i:{LSEEK_32}:99:5:0", f"i:{LSEEK_32}:99:6:0"]
    same(box, seccomp, words, ["errno ENOTTY", "errno EBADF"])


@needs_x86_64
def test_a_trap_of_a_32_bit_entry_names_its_architecture(box: Container) -> None:
    # not getpid, which runc itself calls after loading
    seccomp = profile("ALLOW", rule("getpgid", "TRAP"), architectures=X86)
    words = ["trap", f"i:{GETPGID_32}"]
    same(box, seccomp, words, [f"trapped {GETPGID_32} {ARCH_I386} 0 1", "errno ETIME"])


@needs_x86_64
def test_x32_numbers_are_killed_unless_x32_is_listed(box: Container) -> None:
    seccomp = profile("ALLOW", rule("getpid", "ERRNO", errnoRet=71), architectures=X86[:2])
    same(box, seccomp, [f"x:{GETUID}", f"n:{GETUID}"], ["signal 31", "result 0"])


@needs_x86_64
def test_x32_numbers_are_filtered_where_x32_is_listed(box: Container) -> None:
    seccomp = profile("ALLOW", rule("getpid", "ERRNO", errnoRet=71), architectures=X86)
    same(box, seccomp, [f"x:{GETPID}", f"n:{GETPID}"], ["errno EPROTO", "errno EPROTO"])


def test_calls_newer_than_the_profile_are_enosys_at_every_entry(box: Container) -> None:
    seccomp = profile(
        "ERRNO", rule(EVERYTHING_ELSE + " setns", "ALLOW"), architectures=ARCHITECTURES
    )
    same(box, seccomp, ["n:1000", f"n:{GETPGID}"], ["errno ENOSYS", "errno EPERM"])
    if MACHINE == "x86_64":
        same(box, seccomp, ["i:1000", "x:1000"], ["errno ENOSYS", "errno ENOSYS"])


def test_a_name_nobody_knows_is_passed_over_and_told_in_debug(box: Container) -> None:
    box.linux["seccomp"] = profile("ALLOW", rule("no_such_call getpgid", "ERRNO"))
    box.process["args"] = ["/bin/seccomp_probe", GETPGID_CALL]
    box.bundle.write()
    log = os.path.join(box.bundle.path, "log")
    root = ["--root", box.runtime.root, "--debug", "--log", log]
    done = drive.call([box.runtime.path, *root, "run", "--bundle", box.bundle.path, box.id])
    assert done.stdout == "errno EPERM\n"
    if box.runtime.name == "anocir":
        with open(log) as file:
            assert any("seccomp" in line and "no_such_call" in line for line in file)


# flags --------------------------------------------------------------------------------------------

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": 1,
    "SECCOMP_FILTER_FLAG_LOG": 2,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": 4,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": 32,
}


def traced_flags(box: Container, seccomp: dict[str, Any]) -> str:
    """The flags with which the runtime loads the filter, as strace(1) sees them."""
    box.linux["seccomp"] = seccomp
    box.process["args"] = ["/bin/true"]
    box.bundle.write()
    trace = os.path.join(box.bundle.path, "strace")
    words = ["strace", "-f", "-qq", "-e", "trace=seccomp", "-o", trace]
    drive.call([*words, *box.runtime.command("run", "--bundle", box.bundle.path, box.id)])
    with open(trace) as file:
        found = re.findall(r"seccomp\(SECCOMP_SET_MODE_FILTER, ([^,]+), (?!NULL)", file.read())
    return found[-1]


@pytest.mark.skipif(not shutil.which("strace"), reason="[strace] this machine has not strace")
@pytest.mark.parametrize(
    ("flags", "wanted"),
    [
        (None, "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        ([], "0"),
        (["SECCOMP_FILTER_FLAG_LOG"], "SECCOMP_FILTER_FLAG_LOG"),
        (["SECCOMP_FILTER_FLAG_TSYNC"], "SECCOMP_FILTER_FLAG_TSYNC"),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], "SECCOMP_FILTER_FLAG_SPEC_ALLOW"),
        (
            ["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
            "SECCOMP_FILTER_FLAG_LOG|SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        ),
    ],
)
def test_the_kernel_is_given_the_flags_of_the_profile(
    box: Container, flags: list[str] | None, wanted: str
) -> None:
    seccomp = profile("ALLOW", rule("getpgid", "ERRNO"))
    if flags is not None:
        seccomp["flags"] = flags
    found = traced_flags(box, seccomp)
    number = sum(FLAGS[word] for word in flags or [])
    assert found in (wanted, f"{number:#x} /* SECCOMP_FILTER_FLAG_??? */")


@pytest.mark.parametrize(
    ("flags", "felt"), [([], "flags 0"), (["SECCOMP_FILTER_FLAG_LOG"], "flags 2")]
)
def test_the_log_flag_is_on_the_loaded_filter(box: Container, flags: list[str], felt: str) -> None:
    # the tracer has to be outside of any filter to be told
    box.linux["seccomp"] = profile("ALLOW", rule("getpgid", "ERRNO"), flags=flags)
    box.launch("sleep 100")
    assert filters_of(box.pid) == ["filters 1", felt]


def filters_of(pid: int) -> list[str]:
    """The filters of a process by ptrace(2), as a tracer without a filter is told them."""
    libc = ctypes.CDLL(None, use_errno=True)
    arguments = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.argtypes, libc.ptrace.restype = arguments, ctypes.c_long
    assert libc.ptrace(0x4206, pid, None, None) == 0  # PTRACE_SEIZE
    try:
        assert libc.ptrace(0x4207, pid, None, None) == 0  # PTRACE_INTERRUPT
        os.waitpid(pid, 0x40000000)  # __WALL
        count = 0
        while libc.ptrace(0x420C, pid, count, None) >= 0:  # PTRACE_SECCOMP_GET_FILTER
            count += 1
        lines = [f"filters {count}"]
        for index in range(count):
            metadata = (ctypes.c_uint64 * 2)(index, 0)
            libc.ptrace(0x420D, pid, 16, ctypes.addressof(metadata))
            lines.append(f"flags {metadata[1]}")
        return lines
    finally:
        libc.ptrace(17, pid, None, None)  # PTRACE_DETACH


def test_a_profile_with_everything_is_one_filter(box: Container) -> None:
    box.linux["seccomp"] = profile(
        "ALLOW",
        rule("lseek", "ERRNO", when(0, "LT", 1 << 31)),
        rule("lseek", "ERRNO", when(1, "NE", 7), when(2, "GT", 3), errnoRet=13),
        rule("getpgid", "TRAP"),
        architectures=ARCHITECTURES,
    )
    box.launch("sleep 100")
    assert filters_of(box.pid)[0] == "filters 1"


def logged(box: Container, seccomp: dict[str, Any], attempts: int) -> str:
    """What the kernel's log says of the call (audit(8) record type 1326), empty for nothing."""
    for _ in range(attempts):
        fd = os.open("/dev/kmsg", os.O_RDONLY | os.O_NONBLOCK)
        try:
            os.lseek(fd, 0, os.SEEK_END)
            asked(box, seccomp, GETPGID_CALL)
            # a thread of the kernel prints, and no more than so many records in five seconds
            deadline = time.monotonic() + 5.5
            while time.monotonic() < deadline:
                try:
                    line = os.read(fd, 8192).decode(errors="replace")
                except BlockingIOError:
                    time.sleep(0.02)
                    continue
                except BrokenPipeError:  # overwritten meanwhile
                    continue
                words = ("type=1326", "seccomp_probe", f"syscall={GETPGID} ")
                if all(word in line for word in words):
                    return line
        finally:
            os.close(fd)
    return ""


def test_log_is_in_the_kernels_log_and_errno_only_with_the_flag(box: Container) -> None:
    if not os.path.exists("/dev/kmsg"):
        pytest.skip("[audit] this machine has not /dev/kmsg")
    record = logged(box, profile("ALLOW", rule("getpgid", "LOG")), attempts=3)
    if not record:
        pytest.skip("[audit] this machine has not a kernel that prints audit records")
    assert "code=0x7ffc0000" in record
    wanted = profile("ALLOW", rule("getpgid", "ERRNO"), flags=["SECCOMP_FILTER_FLAG_LOG"])
    assert "code=0x50000" in logged(box, wanted, attempts=10)


# what the runtime itself needs --------------------------------------------------------------------


@pytest.mark.parametrize("action", ["ERRNO", "KILL", "KILL_PROCESS", "TRAP"])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_profile_that_forbids_execve_is_refused_at_create(
    box: Container, action: str, no_new_privileges: bool
) -> None:
    box.process["noNewPrivileges"] = no_new_privileges
    box.linux["seccomp"] = profile("ALLOW", rule("execve", action))
    assert "execve" in box.refused()


@pytest.mark.parametrize(
    ("name", "action"),
    [("capset", "ERRNO"), ("read", "KILL"), ("write", "KILL_PROCESS"), ("close", "TRAP")],
)
def test_a_profile_that_would_kill_the_runtime_is_refused_and_names_the_call(
    box: Container, name: str, action: str
) -> None:
    box.process["noNewPrivileges"] = False
    box.linux["seccomp"] = profile("ALLOW", rule(name, action))
    said = box.refused()
    assert name in said and "seccomp" in said


def test_a_refused_profile_is_also_refused_by_exec(box: Container) -> None:
    # without noNewPrivileges exec needs capset, which the container's own process does not
    box.process["noNewPrivileges"] = True
    box.linux["seccomp"] = profile("ALLOW", rule("capset", "KILL_PROCESS"))
    box.launch("sleep 100")
    process = {**box.process, "args": ["/bin/true"], "noNewPrivileges": False}
    assert "capset" in box.exec_process(process, ok=False).stderr
    box.exec_process({**process, "noNewPrivileges": True})


@pytest.mark.parametrize("user", [0, 1000])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_tight_profile_lets_the_runtime_through(
    box: Container, user: int, no_new_privileges: bool
) -> None:
    # what a static program needs, and what the runtime calls after loading: nothing else
    needed = (
        "execve read write close exit exit_group brk arch_prctl uname readlink set_tid_address "
    )
    needed += "set_robust_list rseq prlimit64 mprotect getrandom newfstatat futex fork clone "
    needed += "wait4 getuid getpgid rt_sigaction rt_sigprocmask readlinkat gettid"
    if not no_new_privileges:
        needed += " capset"
    box.process["noNewPrivileges"] = no_new_privileges
    box.process["user"] = {"uid": user, "gid": user}
    # not ERRNO: any further call of the runtime or its interpreter would be the end of it
    seccomp = profile("KILL_PROCESS", rule(needed, "ALLOW"))
    assert asked(box, seccomp, f"n:{GETUID}") == [f"result {user}"]


# the cache ----------------------------------------------------------------------------------------


@pytest.mark.skipif(not drive.find_runtime().endswith("anocir"), reason="ours alone has a cache")
@pytest.mark.parametrize("damage", ["cut", "other bytes", "another owner", "a link"])
def test_a_cache_file_that_is_damaged_or_foreign_is_not_trusted(
    box: Container, new_container: Callable[[], Container], damage: str
) -> None:
    # a number of its own, so that the entry is this test's
    entry = rule("getpgid", "ERRNO", errnoRet=40 + len(damage))
    expected = asked(box, profile("ALLOW", entry), GETPGID_CALL)
    directory = os.path.join(box.runtime.root, ":seccomp")
    assert os.stat(directory).st_mode & 0o7777 == 0o700
    path = max(
        (os.path.join(directory, name) for name in os.listdir(directory)), key=os.path.getmtime
    )
    with open(path, "rb") as file:
        content = file.read()
    permissive = content.replace(struct.pack("<HBBI", 6, 0, 0, 0x00050000 | 40 + len(damage)),
                                 struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))  # fmt: skip
    if damage == "cut":
        os.truncate(path, len(content) // 2)
    elif damage == "a link":
        os.rename(path, path + ".real")
        os.symlink(path + ".real", path)
        with open(path + ".real", "wb") as file:
            file.write(permissive)
    else:
        with open(path, "wb") as file:
            file.write(permissive)
        if damage == "another owner":
            os.chown(path, 1000, 1000)
    assert permissive != content
    again = new_container()
    shutil.copy(os.path.join(box.bundle.rootfs, "bin/seccomp_probe"), again.bundle.rootfs + "/bin")
    assert asked(again, profile("ALLOW", entry), GETPGID_CALL) == expected
    for name in os.listdir(directory):
        if name.endswith(".real"):
            os.unlink(os.path.join(directory, name))


# notify -------------------------------------------------------------------------------------------

# include/uapi/linux/seccomp.h, of struct seccomp_notif, _resp and _addfd
NOTIF_RECV, NOTIF_SEND, NOTIF_ADDFD = 0xC0502100, 0xC0182101, 0x40182103
CONTINUE, ADDFD_SEND = 1, 2


class Agent:
    """Listens at listenerPath and answers every trapped call in a thread, as an agent does."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, "agent.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen(4)
        self.listener.settimeout(20)
        self.states: list[dict[str, Any]] = []
        self.seen: list[tuple[int, str]] = []
        self.problems: list[str] = []
        self.open = True
        self.threads = [threading.Thread(target=self._accept, daemon=True)]
        self.threads[0].start()

    def _accept(self) -> None:
        while self.open:
            try:
                peer, _ = self.listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return
            with peer:
                text, ancillary, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(16))
            fds = array.array("i")
            for _, _, data in ancillary:
                fds.frombytes(data)
            self.states.append(json.loads(text))
            answering = threading.Thread(target=self._answer, args=(fds[0],), daemon=True)
            answering.start()
            self.threads.append(answering)

    def _answer(self, fd: int) -> None:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        while self.open:
            for _, events in poller.poll(200):
                if events & select.POLLHUP:  # nobody is left behind the filter
                    os.close(fd)
                    return
                try:
                    self._one(fd)
                except OSError as error:
                    if not isinstance(error, FileNotFoundError):  # the caller has died meanwhile
                        self.problems.append(repr(error))
        os.close(fd)

    def _one(self, fd: int) -> None:
        data = array.array("B", bytes(80))
        fcntl.ioctl(fd, NOTIF_RECV, data)
        cookie, pid, _, number, _, _, *args = struct.unpack("=QIIiIQ6Q", data.tobytes())
        if number == OPENAT:
            with open(f"/proc/{pid}/mem", "rb", 0) as memory:
                memory.seek(args[1])
                path = memory.read(64).split(b"\0")[0].decode()
            self.seen.append((number, path))
            if path == "/from/the/agent":
                reader, writer = os.pipe()
                os.write(writer, b"opened by the agent\n")
                os.close(writer)
                add = struct.pack("=QIIII", cookie, ADDFD_SEND, reader, 0, 0)
                fcntl.ioctl(fd, NOTIF_ADDFD, array.array("B", add))
                os.close(reader)
                return
            if path == "/refused":
                self._send(fd, cookie, error=-122)  # EDQUOT
                return
        elif number == SENDMSG:
            self.seen.append((number, str(args[0])))
            self._send(fd, cookie, value=4242)
            return
        self._send(fd, cookie, flags=CONTINUE)

    def _send(self, fd: int, cookie: int, value: int = 0, error: int = 0, flags: int = 0) -> None:
        fcntl.ioctl(
            fd, NOTIF_SEND, array.array("B", struct.pack("=QqiI", cookie, value, error, flags))
        )

    def close(self) -> None:
        self.open = False
        # Closing alone would leave the socket listening as long as a thread waits in accept.
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for thread in self.threads:
            thread.join(5)


@pytest.fixture
def agent(box: Container) -> Iterator[Agent]:
    """An agent that answers openat and sendmsg for the container."""
    made = Agent(box.bundle.path)
    box.linux["seccomp"] = profile(
        "ALLOW",
        rule("openat sendmsg", "NOTIFY"),
        listenerPath=made.path,
        listenerMetadata="for the agent",
    )
    yield made
    made.close()
    assert not made.problems


SCRIPT = f"cat /from/the/agent; cat /refused 2>&1; seccomp_probe n:{SENDMSG}:77:0:0; cat /etc/group | head -n 1"
ANSWERS = [
    "opened by the agent",
    "cat: can't open '/refused': Disk quota exceeded",
    "result 4242",
    "root:x:0:",
]


@pytest.mark.needs("seccomp-addfd-send")
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_agent_answers_openat_and_sendmsg_of_create_and_start(
    box: Container, agent: Agent, no_new_privileges: bool
) -> None:
    box.process["noNewPrivileges"] = no_new_privileges
    pid = box.launch(SCRIPT)
    assert box.wait_exit(pid) == 0
    assert [line.replace("Quota", "quota") for line in box.output().splitlines()] == ANSWERS
    assert (SENDMSG, "77") in agent.seen
    assert (agent.states[0]["pid"], agent.states[0]["metadata"]) == (pid, "for the agent")
    # nothing of the runtime itself went through the agent
    assert {path for number, path in agent.seen if number == OPENAT} <= {
        "/from/the/agent", "/refused", "/etc/group", "/dev/null", "/etc/passwd"
    }  # fmt: skip


@pytest.mark.needs("seccomp-addfd-send")
def test_an_agent_answers_exec_with_a_descriptor_of_its_own(box: Container, agent: Agent) -> None:
    box.launch("sleep 100")
    done = box.exec("/bin/sh", "-c", SCRIPT)
    assert [line.replace("Quota", "quota") for line in done.stdout.splitlines()] == ANSWERS
    assert len(agent.states) == 2
    assert agent.states[0]["pid"] == box.pid
    assert agent.states[1]["pid"] not in (0, box.pid)
    assert agent.states[1]["state"]["id"] == box.id


@pytest.mark.needs("seccomp-addfd-send")
def test_run_in_the_foreground_is_answered_too(box: Container, agent: Agent) -> None:
    assert box.run(SCRIPT).splitlines()[0] == ANSWERS[0]


def test_the_containers_program_does_not_hold_the_agents_descriptor(
    box: Container, agent: Agent
) -> None:
    assert "seccomp" not in box.run("ls -l /proc/self/fd")


def test_exec_fails_in_one_line_when_the_agent_is_gone(box: Container, agent: Agent) -> None:
    box.launch("sleep 100")
    agent.close()
    done = box.exec("/bin/true", ok=False)
    assert done.status == 255
    assert "agent.sock" in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("names", "said"), [("write", "write"), ("recvmsg close", ""), ("execve", "")]
)
def test_a_trap_on_the_runtimes_own_calls_is_refused_or_answered(
    box: Container, agent: Agent, names: str, said: str
) -> None:
    # a call before the agent has the descriptor would wait for ever
    box.linux["seccomp"]["syscalls"] = [rule(names, "NOTIFY")]
    box.process["args"] = ["/bin/true"]
    done = box.create(ok=None)
    if said:
        assert done.status != 0 and said in done.stderr
    elif done.status == 0:
        box.start()


@pytest.mark.needs("seccomp-wait-killable")
def test_a_signal_does_not_repeat_a_call_that_is_being_answered(box: Container) -> None:
    # WAIT_KILLABLE_RECV: once the agent has taken a call only a deadly signal interrupts it
    path = os.path.join(box.bundle.path, "agent.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        listener.settimeout(drive.TIMEOUT)
        box.linux["seccomp"] = profile(
            "ALLOW",
            rule("getpgid", "NOTIFY"),
            listenerPath=path,
            flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        )
        box.process["args"] = ["/bin/seccomp_probe", "signal", GETPGID_CALL]
        pid = box.launch()
        peer, _ = listener.accept()
        with peer:
            _, ancillary, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(16))
    fd = struct.unpack("i", ancillary[0][2][:4])[0]
    data = array.array("B", bytes(80))
    fcntl.ioctl(fd, NOTIF_RECV, data)
    cookie, caller = struct.unpack("=QI", data.tobytes()[:12])
    os.kill(caller, 10)
    answer = array.array("B", struct.pack("=QqiI", cookie, 99, 0, 0))
    drive.until("the signal is pending", lambda: _pending(caller) & 1 << 9)
    fcntl.ioctl(fd, NOTIF_SEND, answer)
    os.close(fd)
    assert box.wait_exit(pid) == 0
    assert box.output() == "result 99\n"


def _pending(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return int(lines["SigPnd"], 16) | int(lines["ShdPnd"], 16)
