"""`linux.seccomp`: the profile, before anything compiles it.

Side: pure.  Spec: config-linux.md "Seccomp".  Names of system calls are not checked: profiles
name more of them than any one kernel or libseccomp knows.
"""

from __future__ import annotations

from .kinds import (
    array,
    choice,
    choices,
    integer,
    Mistake,
    record,
    run,
    show,
    some_strings,
    STRING,
    string,
    UINT32,
    UINT64,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

ACTIONS: Final = frozenset(
    "SCMP_ACT_" + each
    for each in (
        "KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP", "ERRNO", "TRACE", "ALLOW", "LOG", "NOTIFY",
    )
)  # fmt: skip
ARCHITECTURES: Final = frozenset(
    "SCMP_ARCH_" + each
    for each in (
        "X86", "X86_64", "X32", "ARM", "AARCH64", "LOONGARCH64", "M68K", "MIPS", "MIPS64",
        "MIPS64N32", "MIPSEL", "MIPSEL64", "MIPSEL64N32", "PPC", "PPC64", "PPC64LE", "S390",
        "S390X", "SH", "SHEB", "PARISC", "PARISC64", "RISCV64",
    )
)  # fmt: skip
FLAGS: Final = frozenset(
    "SECCOMP_FILTER_FLAG_" + each
    for each in ("TSYNC", "LOG", "SPEC_ALLOW", "WAIT_KILLABLE_RECV")
)  # fmt: skip
OPERATORS: Final = frozenset(
    "SCMP_CMP_" + each for each in ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
)
# Largest data an action can carry: MAX_ERRNO, and the 16 bits of SECCOMP_RET_DATA
_LAST_DATA: Final = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 0xFFFF}


def _data(action: str, value: int | None, key: str) -> None:
    """Spec: an errno that goes with an action which cannot carry one must be refused."""
    if value is None:
        return
    last = _LAST_DATA.get(action)
    if last is None:
        raise Mistake(f"is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE, action is {action}", key)
    if value > last:
        raise Mistake(f"must be between 0 and {last} with {action}, got {value}", key)


def _rule(rule: Any) -> None:
    if "errnoRet" in rule:
        _data(rule["action"], rule["errnoRet"], "errnoRet")


def _profile(profile: Any) -> None:
    default = profile["defaultAction"]
    if default == "SCMP_ACT_NOTIFY":
        # nothing could answer before the listener has its descriptor
        raise Mistake("must not be SCMP_ACT_NOTIFY: the runtime would wait for itself",
                      "defaultAction")  # fmt: skip
    _data(default, profile.get("defaultErrnoRet"), "defaultErrnoRet")
    listener = profile.get("listenerPath")
    if profile.get("listenerMetadata") and not listener:
        raise Mistake("must not be set without listenerPath", "listenerMetadata")
    for index, rule in enumerate(profile.get("syscalls", ())):
        if rule["action"] != "SCMP_ACT_NOTIFY":
            continue
        if "write" in rule["names"]:
            # init reports over write(2) after the filter is loaded, and would wait for itself
            raise Mistake("SCMP_ACT_NOTIFY cannot be used for the write syscall",
                          "syscalls", index, "action")  # fmt: skip
        if not listener:
            raise Mistake("is missing, must be a socket: a rule has SCMP_ACT_NOTIFY",
                          "listenerPath")  # fmt: skip


def _listener(value: Any, _: Any) -> None:
    string(value, None)
    if len(value.encode("utf-8", "surrogatepass")) > 107:  # sun_path in unix(7)
        raise Mistake(f"must be at most 107 bytes long, as unix(7) has it, got {show(value)}")


_ACTION: Final = (choice, (ACTIONS, "an action"))
_ARGUMENT: Final = (
    {
        "index": (integer, (0, 5)),
        "value": (integer, UINT64),
        "valueTwo": (integer, UINT64),
        "op": (choice, (OPERATORS, "an operator")),
    },
    ("index", "value", "op"),
    None,
)
_RULE: Final = (
    {
        "names": (some_strings, "it says which system calls are meant"),
        "action": _ACTION,
        "errnoRet": (integer, UINT32),
        "args": (array, (record, _ARGUMENT)),
    },
    ("names", "action"),
    _rule,
)
SECCOMP: Final = (
    {
        "defaultAction": _ACTION,
        "defaultErrnoRet": (integer, UINT32),
        "flags": (choices, (FLAGS, "a filter flag")),
        "listenerPath": (_listener, None),
        "listenerMetadata": STRING,
        "architectures": (choices, (ARCHITECTURES, "an architecture")),
        "syscalls": (array, (record, _RULE)),
    },
    ("defaultAction",),
    _profile,
)


def check(profile: Any, path: str = "linux.seccomp") -> None:
    """Check a seccomp object, as `run --record-base` has it.  Raises Error."""
    run((record, SECCOMP), profile, path)
