"""linux.seccomp -> program: each word of the profile by what the program then answers."""

from __future__ import annotations

import gc
import os
import posix
import subprocess
import sys
from typing import Any

import pytest

from anocir import seccomp
from anocir.errors import Error
from anocir.seccomp import library, program as program_module
from tests import drive
from tests.unit.seccomp_profiles import (
    AARCH64,
    ALLOW,
    ARM,
    ENOSYS,
    ENGINE_NAMES,
    EPERM,
    ERRNO,
    I386,
    KILL_PROCESS,
    KILL_THREAD,
    LOG,
    NATIVE,
    NOTIFY,
    TRACE,
    TRAP,
    X86_64,
    answer,
    compiled,
    condition,
    engine_profile,
    needs_libseccomp,
    needs_numbers,
    needs_x86_64,
    profile,
    rule,
)

pytestmark = [needs_libseccomp, needs_numbers]

# arch/x86/entry/syscalls/syscall_64.tbl and syscall_32.tbl, include/uapi/asm-generic/unistd.h
GETPID, GETUID, CLONE, PERSONALITY, READ, STATX = 39, 102, 56, 135, 0, 332
if NATIVE == AARCH64:
    GETPID, GETUID, CLONE, PERSONALITY, READ, STATX = 172, 174, 220, 92, 63, 291
X32 = 0x40000000
GETPID_32 = 20


@pytest.mark.parametrize(
    ("action", "errno", "expected"),
    [
        ("KILL", None, KILL_THREAD),
        ("KILL_THREAD", None, KILL_THREAD),
        ("KILL_PROCESS", None, KILL_PROCESS),
        ("TRAP", None, TRAP),
        ("ERRNO", None, EPERM),
        ("ERRNO", 0, ERRNO),
        ("ERRNO", 38, ENOSYS),
        ("ERRNO", 4094, ERRNO | 4094),
        ("TRACE", None, TRACE | 1),
        ("TRACE", 0xFFFF, TRACE | 0xFFFF),
        ("LOG", None, LOG),
        ("ALLOW", None, ALLOW),
        ("NOTIFY", None, NOTIFY),
    ],
)
def test_each_action_gives_its_value(action: str, errno: int | None, expected: int) -> None:
    default = "ERRNO" if action == "ALLOW" else "ALLOW"
    wanted = profile(
        default, rule("getpid", action, errno=errno), rule("statx", "LOG"), listenerPath="/s"
    )
    assert answer(wanted, GETPID) == expected
    assert answer(wanted, GETUID) == (EPERM if action == "ALLOW" else ALLOW)


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("KILL", KILL_THREAD),
        ("KILL_THREAD", KILL_THREAD),
        ("KILL_PROCESS", KILL_PROCESS),
        ("TRAP", TRAP),
        ("ERRNO", EPERM),
        ("TRACE", TRACE | 1),
        ("LOG", LOG),
        ("ALLOW", ALLOW),
    ],
)
def test_each_action_can_be_the_default(action: str, expected: int) -> None:
    wanted = profile(action, rule("getuid", "ERRNO", errno=5))
    assert answer(wanted, GETPID) == expected
    assert answer(wanted, GETUID) == ERRNO | 5


BOUNDARIES = (
    0,
    1,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    0x100000000,
    0x100000001,
    0x7FFFFFFFFFFFFFFF,
    0x8000000000000000,
    0xFFFFFFFFFFFFFFFF,
)
HOLDS = {
    "NE": lambda left, right: left != right,
    "LT": lambda left, right: left < right,
    "LE": lambda left, right: left <= right,
    "EQ": lambda left, right: left == right,
    "GE": lambda left, right: left >= right,
    "GT": lambda left, right: left > right,
}


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("operator", sorted(HOLDS))
def test_operators_compare_64_bits_unsigned(operator: str, index: int) -> None:
    for value in BOUNDARIES[1:-1]:
        wanted = profile("ALLOW", rule("getpid", "ERRNO", condition(index, operator, value)))
        bpf = compiled(wanted)["bpf"]
        for got in {*BOUNDARIES, value - 1, value + 1}:
            args = [0] * 6
            args[index] = got
            expected = EPERM if HOLDS[operator](got, value) else ALLOW
            assert seccomp.run(bpf, GETPID, tuple(args)) == expected, (got, value)


@pytest.mark.parametrize("mask", [1, 0x7E020000, 0xFFFFFFFF, 0xFFFFFFFF00000000, 2**64 - 1])
def test_masked_eq_compares_the_bits_under_value_with_value_two(mask: int) -> None:
    for second in (0, mask, mask & 0x5555555555555555):
        wanted = profile("ALLOW", rule("getpid", "ERRNO", condition(1, "MASKED_EQ", mask, second)))
        bpf = compiled(wanted)["bpf"]
        for got in (*BOUNDARIES, mask, second, ~mask & (2**64 - 1), second | (~mask & (2**64 - 1))):
            expected = EPERM if got & mask == second else ALLOW
            assert seccomp.run(bpf, GETPID, (0, got)) == expected, (got, second)


def test_conditions_on_different_arguments_must_all_hold() -> None:
    wanted = profile(
        "ALLOW", rule("getpid", "ERRNO", condition(0, "EQ", 16), condition(2, "EQ", 9))
    )
    got = [answer(wanted, GETPID, a, 0, c) for a, c in ((16, 9), (16, 8), (15, 9), (0, 0))]
    assert got == [EPERM, ALLOW, ALLOW, ALLOW]


def test_conditions_on_one_argument_become_rules_of_their_own() -> None:
    wanted = profile(
        "ERRNO",
        rule("personality", "ALLOW", condition(0, "EQ", 0), condition(0, "EQ", 8)),
        rule("write", "ALLOW"),
    )
    assert [answer(wanted, PERSONALITY, a) for a in (0, 8, 1)] == [ALLOW, ALLOW, EPERM]


def test_of_rules_that_overlap_the_first_counts() -> None:
    first = rule("getpid", "ERRNO", condition(0, "LT", 0x80000000), errno=5)
    second = rule("getpid", "ERRNO", condition(0, "LT", 2**64 - 1), errno=6)
    for rules, expected in (((first, second), (5, 6)), ((second, first), (6, 6))):
        wanted = profile("ALLOW", *rules)
        got = [answer(wanted, GETPID, a) for a in (1, 2**32, 2**64 - 1)]
        assert got == [ERRNO | expected[0], ERRNO | expected[1], ALLOW]


@pytest.mark.timeout(120)
def test_conditions_that_keep_libseccomp_busy_for_ever_are_compiled() -> None:
    conditions = (((0, 2**64 - 1), (1, 0)), ((2, 0), (1, 2**31)), ((0, 2**64 - 1), (1, 3), (2, 4)))
    wanted = profile(
        "ALLOW",
        *[rule("getpid", "ERRNO", *[condition(i, "NE", v) for i, v in row]) for row in conditions],
    )
    assert answer(wanted, GETPID, 0, 1, 0) == EPERM
    assert answer(wanted, GETPID, 2**64 - 1, 2**31, 4) == ALLOW


def test_this_machine_is_filtered_whatever_architectures_says() -> None:
    for archs in ([], ["SCMP_ARCH_X86"], ["SCMP_ARCH_X32", "SCMP_ARCH_X32"]):
        wanted = profile("ALLOW", rule("getpid", "ERRNO"), architectures=archs)
        assert answer(wanted, GETPID) == EPERM, archs


@needs_x86_64
def test_other_entries_are_killed_unless_their_architecture_is_listed() -> None:
    blocked = rule("getpid", "ERRNO")
    alone = profile("ALLOW", blocked)
    assert answer(alone, GETPID_32, arch=I386) == KILL_THREAD
    assert answer(alone, X32 | GETPID) == KILL_THREAD
    listed = profile(
        "ALLOW", blocked, architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    )
    assert answer(listed, GETPID_32, arch=I386) == EPERM
    assert answer(listed, GETPID, arch=I386) == ALLOW
    assert answer(listed, X32 | GETPID) == EPERM
    assert answer(listed, X32 | GETUID) == ALLOW
    assert answer(listed, GETPID, arch=0xC00000B7) == KILL_THREAD


@needs_x86_64
def test_a_name_that_only_another_architecture_has_works_there() -> None:
    wanted = profile(
        "ALLOW", rule("chown32 mmap2", "ERRNO"), architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]
    )
    assert answer(wanted, 212, arch=I386) == EPERM
    assert answer(wanted, 212) == ALLOW


@needs_x86_64
def test_newer_calls_than_the_profile_names_get_enosys() -> None:
    wanted = profile(
        "ERRNO",
        rule("read statx", "ALLOW"),
        architectures=["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
    )
    assert [answer(wanted, nr) for nr in (0, 332, 331, 333)] == [ALLOW, ALLOW, EPERM, ENOSYS]
    assert [answer(wanted, nr, arch=I386) for nr in (3, 383, 382, 384)] == [
        ALLOW,
        ALLOW,
        EPERM,
        ENOSYS,
    ]
    assert [answer(wanted, X32 | nr) for nr in (0, 332, 331, 333)] == [ALLOW, ALLOW, EPERM, ENOSYS]


@pytest.mark.parametrize("default", ["KILL", "KILL_PROCESS", "TRAP", "ERRNO"])
def test_enosys_stands_in_for_every_default_that_denies(default: str) -> None:
    assert answer(profile(default, rule("read", "ALLOW")), STATX + 1) == ENOSYS


@pytest.mark.parametrize(("default", "expected"), [("LOG", LOG), ("TRACE", TRACE | 1)])
def test_no_enosys_where_the_default_lets_calls_through(default: str, expected: int) -> None:
    assert answer(profile(default, rule("read", "ERRNO")), STATX + 1) == expected


def test_a_rule_with_the_default_action_counts_for_what_the_profile_knows() -> None:
    wanted = profile("ERRNO", rule("read", "ALLOW"), rule("statx", "ERRNO"))
    assert [answer(wanted, STATX + n) for n in (0, -1, 1)] == [EPERM, EPERM, ENOSYS]


def test_default_errno_is_kept_below_the_newest_call() -> None:
    wanted = profile("ERRNO", rule("read statx", "ALLOW"), defaultErrnoRet=13)
    assert [answer(wanted, STATX + n) for n in (-1, 1)] == [ERRNO | 13, ENOSYS]
    wanted["defaultErrnoRet"] = 38
    assert [answer(wanted, STATX + n) for n in (-1, 1)] == [ENOSYS, ENOSYS]


def test_unknown_names_and_idle_rules_are_ignored_and_told() -> None:
    wanted = profile("ERRNO", rule("read no_such_call", "ALLOW"), rule("write", "ERRNO"))
    program = compiled(wanted)
    assert program["ignored"] == [
        "syscalls[0]: unknown system calls no_such_call",
        "syscalls[1] does what defaultAction does",
    ]
    assert seccomp.run(program["bpf"], READ) == ALLOW


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (None, 4),
        ([], 0),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], 4),
        (["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG"], 3),
    ],
)
def test_flags_are_spec_allow_unless_the_profile_names_some(
    flags: list[str] | None, expected: int
) -> None:
    wanted = profile("ALLOW", rule("getpid", "ERRNO"))
    if flags is not None:
        wanted["flags"] = flags
    program = compiled(wanted)
    assert (program["flags"], program["notify"]) == (expected, False)


def test_a_listener_adds_the_flags_that_the_kernel_wants() -> None:
    wanted = profile("ALLOW", rule("getpid", "NOTIFY"), listenerPath="/run/agent.sock")
    program = compiled(wanted)
    assert (program["flags"], program["notify"]) == (4 | 8, True)
    wanted["flags"] = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    assert compiled(wanted)["flags"] == 1 | 8 | 16 | 32


def test_wait_killable_without_a_listener_is_dropped_with_a_warning() -> None:
    wanted = profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    warnings: list[str] = []
    assert seccomp.compile(wanted, None, warnings.append)["flags"] == 0
    assert len(warnings) == 1
    assert "WAIT_KILLABLE_RECV" in warnings[0]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (profile("NOTIFY"), "linux.seccomp.listenerPath: must be set, since SCMP_ACT_NOTIFY is"),
        ({"syscalls": []}, "linux.seccomp.defaultAction: must be set"),
        (profile("JUMP"), "linux.seccomp: unknown action SCMP_ACT_JUMP"),
        (
            profile("ALLOW", defaultErrnoRet=1),
            "linux.seccomp.defaultErrnoRet: SCMP_ACT_ALLOW takes no errno",
        ),
        (
            profile("ALLOW", rule("read", "KILL", errno=1)),
            "linux.seccomp.syscalls[0].errnoRet: SCMP_ACT_KILL takes no errno",
        ),
        (
            profile("ALLOW", rule("read", "ERRNO", errno=4095)),
            "linux.seccomp.syscalls[0].errnoRet: must be from 0 to 4094, got 4095",
        ),
        (
            profile("ALLOW", rule("read", "TRACE", errno=65536)),
            "linux.seccomp.syscalls[0].errnoRet: must be from 0 to 65535, got 65536",
        ),
        (
            profile("ALLOW", rule("read write", "NOTIFY"), listenerPath="/s"),
            "linux.seccomp.syscalls[0].action: SCMP_ACT_NOTIFY cannot be used for write",
        ),
        (
            profile("ALLOW", rule("read", "NOTIFY")),
            "linux.seccomp.listenerPath: must be set, since SCMP_ACT_NOTIFY is used",
        ),
        (
            profile("ALLOW", listenerMetadata="x"),
            "linux.seccomp.listenerMetadata: must not be set without listenerPath",
        ),
        (
            profile("ALLOW", rule("read", "ERRNO", condition(6, "EQ", 1))),
            "linux.seccomp.syscalls[0].args[0].index: must be from 0 to 5, got 6",
        ),
        (
            profile("ALLOW", rule("read", "ERRNO", condition(0, "XX", 1))),
            "linux.seccomp.syscalls[0].args[0].op: unknown operator SCMP_CMP_XX",
        ),
        (
            profile("ALLOW", architectures=["SCMP_ARCH_X86", "SCMP_ARCH_VAX"]),
            "linux.seccomp.architectures[1]: SCMP_ARCH_VAX is not known to libseccomp",
        ),
        (
            profile("ALLOW", architectures=["SCMP_ARCH_S390X"]),
            "linux.seccomp.architectures[0]: has another byte order than this machine",
        ),
        (
            profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_NEW_LISTENER"]),
            "linux.seccomp.flags[0]: unknown flag SECCOMP_FILTER_FLAG_NEW_LISTENER",
        ),
        (
            profile(
                "ALLOW",
                rule("read", "ERRNO", condition(0, "EQ", 1)),
                rule("read", "KILL", condition(0, "EQ", 1)),
            ),
            "linux.seccomp.syscalls[1]: contradicts an earlier rule for read",
        ),
        (
            profile(
                "ALLOW",
                *[
                    rule("read", "ERRNO", condition(0, "EQ", value << 32 | 7))
                    for value in range(1400)
                ],
            ),
            "the kernel takes 4096",
        ),
    ],
)
def test_a_mistake_is_named_with_its_path(wanted: dict[str, Any], message: str) -> None:
    with pytest.raises(Error) as caught:
        compiled(wanted)
    assert message in caught.value.text


def test_a_name_with_nul_is_an_unknown_name() -> None:
    wanted = profile("ALLOW", {"names": ["getpid\0x"], "action": "SCMP_ACT_ERRNO"})
    assert answer(wanted, GETPID) == ALLOW


def test_an_engine_profile_lets_clone_make_threads_and_no_user_namespaces() -> None:
    wanted = engine_profile()
    assert answer(wanted, CLONE, 0x00010F00) == ALLOW
    assert answer(wanted, CLONE, 0x10000000) == EPERM
    assert answer(wanted, 435) == ENOSYS
    assert [answer(wanted, PERSONALITY, a) for a in (0, 0xFFFFFFFF, 1)] == [ALLOW, ALLOW, EPERM]
    assert answer(wanted, 999) == ENOSYS


def test_every_number_of_an_engine_profile_is_answered_as_its_name_says() -> None:
    wanted = engine_profile()
    bpf = compiled(wanted)["bpf"]
    conditional = {"personality", "clone", "clone3", "socket"}
    entries = [(X86_64, X86_64, 0), (X86_64, library.ARCH_X32, X32), (I386, I386, 0)]
    if NATIVE == AARCH64:
        entries = [(AARCH64, AARCH64, 0), (ARM, ARM, 0)]
    for arch, token, first in entries:
        named = {library.syscall_number(name, token): name for name in ENGINE_NAMES}
        apart = {library.syscall_number(name, token) for name in conditional}
        if arch == I386:  # also behind socketcall(2) and ipc(2), numbered by libseccomp itself
            apart |= {337, 345, *range(359, 374), *range(393, 403)}
        for nr in range(first, max(number for number in named if number) + 1):
            if nr not in apart:
                expected = ALLOW if nr in named else EPERM
                assert seccomp.run(bpf, nr, (), arch) == expected, (hex(nr), hex(arch))


@pytest.mark.parametrize("lost", [False, True])
def test_a_program_is_exported_without_memfd_too(
    lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    gc.collect()  # what earlier tests left in cycles would be closed at some moment
    before = len(os.listdir("/proc/self/fd"))
    if lost:
        monkeypatch.delattr(posix, "memfd_create")
    assert len(compiled(engine_profile())["bpf"]) > 1000
    too_long = [rule("read", "ERRNO", condition(0, "EQ", value << 32 | 7)) for value in range(2800)]
    with pytest.raises(Error):
        compiled(profile("ALLOW", *too_long))
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (ALLOW, "allow"),
        (EPERM, "fail with errno 1 (operation not permitted)"),
        (KILL_THREAD, "kill the thread"),
        (TRACE | 9, "tell the tracer 9"),
        (0x12340000, "kill the process (unknown action 0x12340000)"),
    ],
)
def test_an_answer_can_be_put_in_words(value: int, words: str) -> None:
    assert program_module.describe(value) == words


# The runtime's own calls


def refusal(wanted: dict[str, Any], **lists: Any) -> str:
    """Return the text of the refusal, empty when the profile passes."""
    try:
        seccomp.check_after_load(compiled(wanted), **lists)
    except Error as error:
        return error.text
    return ""


def test_an_engine_profile_passes_the_check() -> None:
    assert refusal(engine_profile()) == ""
    last = {"needed": seccomp.NEEDED_LAST}
    assert refusal(engine_profile(), **last) == ""


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("KILL", "kills the process at execve"),
        ("KILL_PROCESS", "kills the process at execve"),
        ("TRAP", "raises SIGSYS at execve"),
        ("ERRNO", 'answers "operation not permitted" to execve'),
    ],
)
def test_a_profile_that_forbids_execve_is_refused(action: str, words: str) -> None:
    assert words in refusal(profile("ALLOW", rule("execve", action)))


@pytest.mark.parametrize("action", ["TRACE", "LOG", "NOTIFY"])
def test_a_profile_under_which_execve_may_happen_passes(action: str) -> None:
    assert refusal(profile("ALLOW", rule("execve", action), listenerPath="/s")) == ""


def test_a_default_without_execve_is_refused() -> None:
    assert "execve" in refusal(profile("KILL"), needed=["execve"], optional=[])
    assert "execve" in refusal(profile("ERRNO", rule("read", "ALLOW")), needed=["execve"])


def test_a_condition_that_may_hold_is_no_reason_to_refuse() -> None:
    wanted = profile("ALLOW", rule("write", "KILL", condition(0, "EQ", 22)))
    assert refusal(wanted) == ""
    always = profile(
        "ERRNO",
        rule("write", "KILL", condition(0, "EQ", 22)),
        rule("capset execve read", "ALLOW"),
    )
    assert "write" in refusal(always)


@pytest.mark.parametrize("name", ["read", "write", "execve"])
@pytest.mark.parametrize("last", [False, True])
def test_what_is_called_after_the_filter_has_to_be_allowed(name: str, last: bool) -> None:
    lists = {"needed": seccomp.NEEDED_LAST} if last else {}
    assert f"kills the process at {name}" in refusal(profile("ALLOW", rule(name, "KILL")), **lists)
    assert f"to {name}" in refusal(profile("ALLOW", rule(name, "ERRNO")), **lists)


def test_an_optional_call_may_fail_but_not_kill() -> None:
    assert refusal(profile("ALLOW", rule("close", "ERRNO"))) == ""
    assert "kills the process at close" in refusal(profile("ALLOW", rule("close", "KILL")))


def test_a_call_that_init_may_never_make_is_no_reason_to_refuse() -> None:
    """Credentials are changed before the filter: only the last capabilities go after it."""
    others = "chdir sendmsg recvmsg getcwd setresuid setresgid setgroups getresuid umask prctl accept4 close_range"
    assert refusal(profile("ALLOW", rule(others, "KILL"))) == ""
    assert "capset" in refusal(profile("ALLOW", rule("capset", "KILL")))
    last = {"needed": seccomp.NEEDED_LAST}
    assert refusal(profile("ALLOW", rule("capset", "KILL")), **last) == ""


def test_a_listener_needs_calls_of_its_own() -> None:
    rules = rule("getpid", "NOTIFY"), rule("close", "ERRNO")
    assert "close" in refusal(profile("ALLOW", *rules, listenerPath="/s"))


def test_whether_init_can_be_cloned_behind_the_filter() -> None:
    assert seccomp.lets_clone(compiled(engine_profile()), terminal=True)
    assert seccomp.lets_clone(compiled(profile("ALLOW")), terminal=True)
    for name in ("clone", "exit_group", "setsid", "prlimit64"):
        assert not seccomp.lets_clone(
            compiled(profile("ALLOW", rule(name, "ERRNO"))), terminal=False
        )
    ioctl = compiled(profile("ALLOW", rule("ioctl", "KILL")))
    assert seccomp.lets_clone(ioctl, terminal=False) and not seccomp.lets_clone(
        ioctl, terminal=True
    )
    # Namespaces are forbidden by a mask over the flags; the one clone that is made has none.
    masked = profile("ERRNO", rule("clone", "ALLOW", condition(0, "MASKED_EQ", 0x7E020000, 0)),
                     rule("exit_group setsid prlimit64", "ALLOW"))  # fmt: skip
    assert seccomp.lets_clone(compiled(masked), terminal=False)


def test_a_notified_call_before_the_agent_has_the_descriptor_is_refused() -> None:
    wanted = profile("ALLOW", rule("setresuid close", "NOTIFY"), listenerPath="/s")
    assert refusal(wanted) == ""
    assert "agent" in refusal(wanted, handover=["close"])


def test_a_name_that_was_not_probed_is_evaluated_then() -> None:
    wanted = profile("ALLOW", rule("sysinfo", "KILL"))
    assert "sysinfo" not in seccomp.PROBED
    assert "sysinfo" in refusal(wanted, needed=["sysinfo"])
    assert refusal(wanted, needed=["no_such_call", "chown32"]) == ""


# Other data


def test_container_process_state_has_the_members_of_the_specification() -> None:
    state = {"ociVersion": "1.3.0", "id": "c", "status": "creating", "pid": 7, "bundle": "/b"}
    assert seccomp.container_process_state(state, 8, "secret") == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 8,
        "metadata": "secret",
        "state": state,
    }
    assert "metadata" not in seccomp.container_process_state(state, 8, "")


def test_every_word_of_features_is_accepted() -> None:
    features = seccomp.features()
    assert features["enabled"]
    assert set(features["supportedFlags"]) <= set(features["knownFlags"])
    for action in features["actions"]:
        default = "SCMP_ACT_ERRNO" if action == "SCMP_ACT_ALLOW" else "SCMP_ACT_ALLOW"
        rules = [{"names": ["getpid"], "action": action}]
        compiled({"defaultAction": default, "syscalls": rules, "listenerPath": "/s"})
    for operator in features["operators"]:
        args = [{"index": 0, "value": 1, "op": operator}]
        rules = [{"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "args": args}]
        compiled({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
    for arch in features["archs"]:
        try:
            compiled({"defaultAction": "SCMP_ACT_ALLOW", "architectures": [arch]})
        except Error as error:
            assert "byte order" in error.text, arch
    for flag in features["supportedFlags"]:
        wanted = profile("ALLOW", rule("getpid", "NOTIFY"), listenerPath="/s", flags=[flag])
        compiled(wanted)


def test_a_machine_without_libseccomp_is_told_what_to_install() -> None:
    script = (
        "from anocir.linux import ffi\n"
        "def library(*names): raise OSError(38, 'dlopen', names[0])\n"
        "ffi.library = library\n"
        "from anocir import errors, seccomp\n"
        "assert seccomp.features() == {'enabled': False}\n"
        "assert seccomp.library_version() == ''\n"
        "try:\n"
        "    seccomp.compile({'defaultAction': 'SCMP_ACT_ALLOW'}, None, print)\n"
        "except errors.Error as error:\n"
        "    print(error.text, error.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=drive.REPOSITORY,
    )
    assert "libseccomp.so.2 cannot be loaded" in done.stdout
    assert "install" in done.stdout
