"""Seccomp (config-linux.md, "Seccomp"), as the kernel enforces it."""

from __future__ import annotations

import array
import json
import os
import platform
import socket
from typing import Any

import pytest

from tests import drive
from tests.drive import Container

pytestmark = pytest.mark.needs("compiler")

x86_64 = pytest.mark.skipif(platform.machine() != "x86_64", reason="[x86_64] a rule of x86_64")


def profile(default: str, *syscalls: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A seccomp object."""
    return {"defaultAction": default, "syscalls": list(syscalls), **more}


def rule(names: str, action: str, **more: Any) -> dict[str, Any]:
    """One entry of syscalls."""
    return {"names": names.split(), "action": action, **more}


def equals(index: int, value: int, **more: Any) -> dict[str, Any]:
    """An argument that must have a value."""
    return {"index": index, "value": value, "op": "SCMP_CMP_EQ", **more}


def asked(container: Container, seccomp: dict[str, Any], *calls: str) -> list[str]:
    """Run the calls one after another under the profile and return their results."""
    container.linux["seccomp"] = seccomp
    script = "; ".join(f"probe syscall {call} || echo died $?" for call in calls)
    return container.run(f"{script}; true").splitlines()


def test_a_call_with_errno_fails_and_the_others_work(container: Container) -> None:
    container.bundle.make_directory("/m")
    seccomp = profile("SCMP_ACT_ALLOW", rule("mkdirat getpgid", "SCMP_ACT_ERRNO"))
    assert asked(container, seccomp, "getpgid 0", "mkdirat -100 :/m/x 0700", "getuid") == [
        "-1 EPERM",
        "-1 EPERM",
        "0",
    ]


def test_the_filter_is_on(container: Container) -> None:
    container.linux["seccomp"] = profile("SCMP_ACT_ALLOW", rule("reboot", "SCMP_ACT_ERRNO"))
    output = container.run("grep -E '^Seccomp(_filters)?:' /proc/self/status")
    assert output.split() == ["Seccomp:", "2", "Seccomp_filters:", "1"]


def test_without_a_profile_no_filter_is_on(container: Container) -> None:
    assert container.run("grep ^Seccomp: /proc/self/status").split() == ["Seccomp:", "0"]


@pytest.mark.parametrize(("number", "name"), [(1, "EPERM"), (38, "ENOSYS"), (13, "EACCES")])
def test_the_errno_of_a_rule_is_used(container: Container, number: int, name: str) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO", errnoRet=number))
    assert asked(container, seccomp, "getpgid 0") == [f"-1 {name}"]


def test_errno_zero_lets_a_call_do_nothing_successfully(container: Container) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("sched_yield", "SCMP_ACT_ERRNO", errnoRet=0))
    assert asked(container, seccomp, "sched_yield") == ["0"]


def allowed_for_busybox() -> str:
    """What a static busybox shell and the runtime need to get going."""
    return (
        "access arch_prctl brk capget capset chdir clone clone3 close close_range dup dup2 dup3 "
        "epoll_create1 epoll_ctl epoll_pwait eventfd2 execve exit exit_group faccessat faccessat2 "
        "fchdir fchown fcntl fork fstat fstatfs futex getcwd getdents64 getegid geteuid getgid "
        "getpgrp getpid getppid getrandom gettid getuid ioctl lseek madvise mmap mprotect munmap "
        "nanosleep newfstatat openat openat2 pipe2 poll prctl pread64 prlimit64 read readlink "
        "readlinkat restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn "
        "sched_getaffinity setgid setgroups setresgid setresuid setrlimit setsid set_robust_list "
        "set_tid_address setuid sigaltstack stat statfs statx tgkill umask uname unlinkat vfork "
        "wait4 write writev sched_yield readv fchownat mknodat renameat clock_nanosleep "
        "epoll_wait getrlimit fadvise64 sendfile lstat open readahead tkill clock_gettime"
    )


def test_the_default_action_meets_what_is_not_listed(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ERRNO", rule(allowed_for_busybox(), "SCMP_ACT_ALLOW"), defaultErrnoRet=38
    )
    assert asked(container, seccomp, "getpgid 0", "getuid") == ["-1 ENOSYS", "0"]


def test_the_default_errno_is_eperm(container: Container) -> None:
    seccomp = profile("SCMP_ACT_ERRNO", rule(allowed_for_busybox(), "SCMP_ACT_ALLOW"))
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


@pytest.mark.parametrize(
    ("action", "status"),
    [
        ("SCMP_ACT_KILL", 128 + 31),
        ("SCMP_ACT_KILL_THREAD", 128 + 31),
        ("SCMP_ACT_KILL_PROCESS", 128 + 31),
        ("SCMP_ACT_TRAP", 128 + 31),
    ],
)
def test_killing_actions_end_the_process_with_sigsys(
    container: Container, action: str, status: int
) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", action))
    assert asked(container, seccomp, "getpgid 0") == [f"died {status}"]


def test_log_lets_the_call_pass(container: Container) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_LOG"))
    assert asked(container, seccomp, "getpgid 1") == ["1"]


def test_trace_without_a_tracer_is_enosys(container: Container) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_TRACE", errnoRet=5))
    assert asked(container, seccomp, "getpgid 0") == ["-1 ENOSYS"]


# arguments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("op", "value", "two", "refused", "allowed"),
    [
        ("SCMP_CMP_EQ", 5, None, [5], [4, 6]),
        ("SCMP_CMP_NE", 5, None, [4, 6], [5]),
        ("SCMP_CMP_LT", 5, None, [4, 0], [5, 6]),
        ("SCMP_CMP_LE", 5, None, [4, 5], [6]),
        ("SCMP_CMP_GT", 5, None, [6, 1 << 40], [5, 4]),
        ("SCMP_CMP_GE", 5, None, [5, 6], [4]),
        ("SCMP_CMP_MASKED_EQ", 0xF0, 0x30, [0x30, 0x3F], [0x40, 0x0F]),
        ("SCMP_CMP_EQ", 1 << 32, None, [1 << 32], [0, 1]),
        ("SCMP_CMP_GE", 0xFFFFFFFF00000000, None, [0xFFFFFFFFFFFFFFFF], [0xFFFFFFFF, 5]),
    ],
)
def test_a_condition_on_an_argument(
    container: Container,
    op: str,
    value: int,
    two: int | None,
    refused: list[int],
    allowed: list[int],
) -> None:
    condition: dict[str, Any] = {"index": 1, "value": value, "op": op}
    if two is not None:
        condition["valueTwo"] = two
    seccomp = profile(
        "SCMP_ACT_ALLOW", rule("lseek", "SCMP_ACT_ERRNO", errnoRet=38, args=[condition])
    )
    calls = [f"lseek 99 {number:#x} 0" for number in refused + allowed]
    results = asked(container, seccomp, *calls)
    assert results == ["-1 ENOSYS"] * len(refused) + ["-1 EBADF"] * len(allowed)


def test_all_conditions_of_one_rule_must_hold(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW",
        rule("lseek", "SCMP_ACT_ERRNO", errnoRet=38, args=[equals(1, 5), equals(2, 1)]),
    )
    results = asked(container, seccomp, "lseek 99 5 1", "lseek 99 5 0", "lseek 99 4 1")
    assert results == ["-1 ENOSYS", "-1 EBADF", "-1 EBADF"]


def test_one_of_several_rules_for_a_call_is_enough(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW",
        rule("lseek", "SCMP_ACT_ERRNO", errnoRet=38, args=[equals(1, 5)]),
        rule("lseek", "SCMP_ACT_ERRNO", errnoRet=13, args=[equals(1, 6)]),
    )
    results = asked(container, seccomp, "lseek 99 5 0", "lseek 99 6 0", "lseek 99 7 0")
    assert results == ["-1 ENOSYS", "-1 EACCES", "-1 EBADF"]


def test_two_conditions_on_one_argument_are_alternatives(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW",
        rule("lseek", "SCMP_ACT_ERRNO", errnoRet=38, args=[equals(1, 5), equals(1, 6)]),
    )
    results = asked(container, seccomp, "lseek 99 5 0", "lseek 99 6 0", "lseek 99 7 0")
    assert results == ["-1 ENOSYS", "-1 ENOSYS", "-1 EBADF"]


# shape of a profile -------------------------------------------------------------------------------


def test_names_that_do_not_exist_are_ignored(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW", rule("no_such_call chown32 mmap2 getpgid", "SCMP_ACT_ERRNO")
    )
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


@x86_64
def test_architectures_are_accepted(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW",
        rule("getpgid", "SCMP_ACT_ERRNO"),
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    )
    assert asked(container, seccomp, "getpgid 0", "getuid") == ["-1 EPERM", "0"]


@x86_64
def test_the_native_architecture_is_covered_without_being_listed(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"), architectures=["SCMP_ARCH_X86"]
    )
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


@pytest.mark.parametrize(
    "flags",
    [
        ["SECCOMP_FILTER_FLAG_LOG"],
        ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"],
        ["SECCOMP_FILTER_FLAG_TSYNC"],
        [],
    ],
)
def test_a_flag_is_accepted(container: Container, flags: list[str]) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"), flags=flags)
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


@pytest.mark.parametrize(
    "seccomp",
    [
        profile("SCMP_ACT_BOGUS"),
        profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_BOGUS")),
        profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"), architectures=["BOGUS"]),
        profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"), flags=["BOGUS"]),
        profile(
            "SCMP_ACT_ALLOW",
            rule("getpgid", "SCMP_ACT_ERRNO", args=[{"index": 0, "value": 1, "op": "BOGUS"}]),
        ),
        profile(
            "SCMP_ACT_ALLOW",
            rule("getpgid", "SCMP_ACT_ERRNO", args=[{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]),
        ),
        profile("SCMP_ACT_ALLOW", {"action": "SCMP_ACT_ERRNO"}),
        {"syscalls": []},
    ],
)
def test_a_profile_that_makes_no_sense_is_refused(
    container: Container, seccomp: dict[str, Any]
) -> None:
    container.linux["seccomp"] = seccomp
    container.refused()


# how it goes with the rest --------------------------------------------------------------------------


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_a_filter_is_enforced_with_and_without_no_new_privileges(
    container: Container, no_new_privileges: bool
) -> None:
    container.process["noNewPrivileges"] = no_new_privileges
    container.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    seccomp = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"))
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


def test_without_new_privileges_the_runtimes_own_set_up_calls_may_be_refused(
    container: Container,
) -> None:
    # with no_new_privs the filter is loaded last, so a profile need not allow capset and setuid
    container.process["noNewPrivileges"] = True
    container.process["user"] = {"uid": 1000, "gid": 1000}
    names = "capset setgroups setgid setuid setresuid setresgid setrlimit prlimit64 mount umount2"
    seccomp = profile("SCMP_ACT_ALLOW", rule(names + " getpgid", "SCMP_ACT_ERRNO"))
    assert asked(container, seccomp, "getpgid 0") == ["-1 EPERM"]


def test_a_profile_may_refuse_getcwd(container: Container) -> None:
    seccomp = profile("SCMP_ACT_ALLOW", rule("getcwd", "SCMP_ACT_ERRNO"))
    assert asked(container, seccomp, "getcwd 0 0") == ["-1 EPERM"]


def test_what_exec_runs_is_filtered_too(container: Container) -> None:
    container.linux["seccomp"] = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_ERRNO"))
    container.launch("sleep 100")
    assert container.exec("/bin/probe", "syscall", "getpgid", "0").line == "-1 EPERM"


def docker_like() -> dict[str, Any]:
    """A profile of the shape that engines send: allow a long list, conditions, several architectures."""
    names = allowed_for_busybox() + (
        " accept accept4 bind chmod chown32 connect creat fallocate fchmod fchmodat flock fsync "
        "ftruncate getdents getgroups getitimer getpeername getpgid getpriority getrusage getsid "
        "getsockname getsockopt gettimeofday kill link linkat listen mkdir mkdirat mmap2 mq_open "
        "mremap msync munlock pause pipe pselect6 pwrite64 recvfrom recvmsg rename renameat2 rmdir "
        "select sendmsg sendto setitimer setpgid setpriority setsockopt shutdown socket socketcall "
        "socketpair splice symlink symlinkat sync sysinfo tee time timer_create times truncate "
        "unlink utime utimensat utimes vmsplice waitid waitpid _llseek _newselect"
    )
    mask = {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rules = [
        rule(names.replace(" clone ", " "), "SCMP_ACT_ALLOW"),
        *(
            rule("personality", "SCMP_ACT_ALLOW", args=[equals(0, value)])
            for value in (0x0, 0x0008, 0xFFFFFFFF)
        ),
        rule("clone", "SCMP_ACT_ALLOW", args=[mask]),
        rule("clone3", "SCMP_ACT_ERRNO", errnoRet=38),
        rule("chroot arch_prctl modify_ldt", "SCMP_ACT_ALLOW"),
    ]
    rules[0]["names"].remove("clone3")
    more: dict[str, Any] = {"defaultErrnoRet": 1}
    if platform.machine() == "x86_64":
        more["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    return profile("SCMP_ACT_ERRNO", *rules, **more)


@pytest.mark.parametrize("user", [{"uid": 0, "gid": 0}, {"uid": 1000, "gid": 1000}])
@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_an_engines_profile_is_enforced(
    container: Container, user: dict[str, int], no_new_privileges: bool
) -> None:
    container.process["user"] = user
    container.process["noNewPrivileges"] = no_new_privileges
    results = asked(
        container,
        docker_like(),
        "personality 0xffffffff",
        "personality 0x20000",
        "unshare 0x20000",
        "mount 0 0 0 0 0",
        "keyctl 0 0",
        "bpf 0 0 0",
        "clone3 0 0",
        "getpgid 1",
    )
    assert results == ["0", *["-1 EPERM"] * 5, "-1 ENOSYS", "1"]


def test_calls_newer_than_the_profile_are_enosys(container: Container) -> None:
    # glibc falls back to older calls only on ENOSYS; 600 is above every number known today
    assert asked(container, docker_like(), "600")[0] in ("-1 ENOSYS", "-1 EPERM")


@x86_64
def test_the_x32_table_is_filtered_as_well(container: Container) -> None:
    seccomp = profile(
        "SCMP_ACT_ALLOW",
        rule("getpgid", "SCMP_ACT_ERRNO"),
        architectures=["SCMP_ARCH_X86_64"],
    )
    # 121 is getpgid; with the x32 bit it must not slip through
    assert asked(container, seccomp, f"{0x40000000 + 121} 0")[0] != "0"


# notify -------------------------------------------------------------------------------------------


def listening(container: Container) -> socket.socket:
    """A seccomp agent's socket."""
    path = os.path.join(container.bundle.path, "agent.sock")
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(1)
    listener.settimeout(drive.TIMEOUT)
    container.linux["seccomp"] = profile(
        "SCMP_ACT_ALLOW",
        rule("getpgid", "SCMP_ACT_NOTIFY"),
        listenerPath=path,
        listenerMetadata="some metadata",
    )
    return listener


def test_the_agent_gets_the_descriptor_and_the_process_state(container: Container) -> None:
    with listening(container) as listener:
        container.config["annotations"] = {"a": "b"}
        container.launch("sleep 100")
        peer, _ = listener.accept()
        with peer:
            peer.settimeout(drive.TIMEOUT)
            text, ancillary, _, _ = peer.recvmsg(65536, socket.CMSG_SPACE(64))
            while True:
                more = peer.recv(65536)
                if not more:
                    break
                text += more
    fds = array.array("i")
    for _, _, data in ancillary:
        fds.frombytes(data[: len(data) - len(data) % 4])
    try:
        state = json.loads(text)
        assert len(fds) == 1
        assert os.readlink(f"/proc/self/fd/{fds[0]}") == "anon_inode:seccomp notify"
        assert state["fds"] == ["seccompFd"]
        assert state["pid"] == container.pid
        assert state["metadata"] == "some metadata"
        assert state["state"]["id"] == container.id
        assert state["state"]["annotations"] == {"a": "b"}
    finally:
        for fd in fds:
            os.close(fd)


def test_a_missing_agent_is_an_error(container: Container) -> None:
    listening(container).close()
    container.cannot_run("true")


def test_listener_metadata_without_a_path_is_refused(container: Container) -> None:
    container.linux["seccomp"] = profile("SCMP_ACT_ALLOW", listenerMetadata="x")
    container.refused()


def test_notify_without_a_listener_is_refused(container: Container) -> None:
    container.linux["seccomp"] = profile("SCMP_ACT_ALLOW", rule("getpgid", "SCMP_ACT_NOTIFY"))
    container.cannot_run("true")
