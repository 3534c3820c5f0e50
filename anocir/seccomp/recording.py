"""Profiles from a run: the one that reports every call, and the one made of what it reported.

Side: host; cold.  While it records, a filter answers SECCOMP_RET_USER_NOTIF where the profile that
it stands for would allow, so that what that one denies is denied during the recording too.

Sources: seccomp_unotify(2), config-linux.md "Seccomp".
"""

from __future__ import annotations

from ..errors import at
from ..linux.nr import MACHINE
from . import library, NEEDED_EARLY, NEEDED_LAST, OPTIONAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Final
    from ..model.schema import Process, Seccomp, SeccompRule

_ALLOWING: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG")
# Those whose calls the kernel of this machine takes, its own first.
_ARCHITECTURES: Final = {
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
}
_EPERM: Final = 1
_X32_BIT: Final = 0x40000000


def needed(process: Process) -> list[str]:
    """Return the calls that the runtime makes itself between the filter and the program."""
    names = NEEDED_LAST if process.get("noNewPrivileges") else NEEDED_EARLY
    return sorted({*names, *OPTIONAL})


def check_base(base: Seccomp, where: str) -> None:
    """Refuse a profile that a recording cannot stand for.  Raises Error.

    `where` names it: an option, or the path in config.json.
    """
    for index, rule in enumerate(base.get("syscalls") or ()):
        path = f"{where}.syscalls[{index}]"
        if rule["action"] == "SCMP_ACT_NOTIFY":
            raise at(f"{path}.action", "SCMP_ACT_NOTIFY has an agent: it cannot be recorded")
        if base["defaultAction"] in _ALLOWING and rule.get("args"):
            raise at(f"{path}.args", "cannot be kept with a defaultAction that allows")


def reporting(base: Seccomp | None, own: list[str], listener: str) -> Seccomp:
    """Return the profile that reports what `base`, or no profile, allows.

    `own` are the calls that are not reported: `needed`.  `listener` is the recorder's socket.
    """
    rules: list[SeccompRule] = [{"names": own, "action": "SCMP_ACT_ALLOW"}]
    profile: Seccomp = {
        "defaultAction": "SCMP_ACT_NOTIFY",
        "architectures": list(_ARCHITECTURES.get(MACHINE, ())),
        "listenerPath": listener,
        "syscalls": rules,
    }
    if base is None:
        return profile
    profile["architectures"] = base.get("architectures") or []
    if base.get("flags"):
        profile["flags"] = base["flags"]
    if base["defaultAction"] not in _ALLOWING:
        profile["defaultAction"] = base["defaultAction"]
        if base.get("defaultErrnoRet") is not None:
            profile["defaultErrnoRet"] = base["defaultErrnoRet"]
    for rule in base.get("syscalls") or ():
        names = [name for name in rule["names"] if name not in own]
        action = "SCMP_ACT_NOTIFY" if rule["action"] in _ALLOWING else rule["action"]
        if names:
            rules.append({**rule, "names": names, "action": action})
    return profile


def names(calls: Iterable[tuple[int, int]]) -> tuple[set[str], set[str], list[str]]:
    """Return the names of reported calls, their architectures, and those without a name.

    A call is (AUDIT_ARCH_* value, number), as struct seccomp_data has them.
    """
    found: set[str] = set()
    words: set[str] = set()
    nameless: list[str] = []
    known = {
        number: word for word in library.ARCHITECTURES if (number := library.architecture(word))
    }
    for arch, number in sorted(calls):
        kind = (
            library.ARCH_X32 if number & _X32_BIT and known.get(arch, "").endswith("64") else arch
        )
        words.add(known.get(kind, ""))
        name = library.syscall_name(number, kind)
        if name:
            found.add(name)
        else:
            nameless.append(f"{known.get(kind, hex(arch))} {number}")
    return found, words - {""}, nameless


def result(base: Seccomp | None, own: list[str], seen: set[str], words: set[str]) -> Seccomp:
    """Return the linux.seccomp object of what was seen: everything else fails with EPERM.

    Of `base` stays each rule for a call that was seen, with its arguments, and each that denies.
    """
    native = _ARCHITECTURES.get(MACHINE, ())[:1]
    wanted = {*seen, *own}
    profile: Seccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "architectures": sorted({*native, *words}, key=lambda word: (word not in native, word)),
    }
    rules: list[SeccompRule] = []
    if base is not None:
        for key in ("architectures", "flags"):
            if base.get(key):
                profile[key] = base[key]
        if base["defaultAction"] not in _ALLOWING:
            profile["defaultAction"] = base["defaultAction"]
            profile.pop("defaultErrnoRet")
            if base.get("defaultErrnoRet") is not None:
                profile["defaultErrnoRet"] = base["defaultErrnoRet"]
        for rule in base.get("syscalls") or ():
            allows = rule["action"] in _ALLOWING
            kept = [name for name in rule["names"] if name in wanted or not allows]
            if kept:
                rules.append({**rule, "names": kept})
    covered = {name for rule in rules for name in rule["names"]}
    rest = sorted(wanted - covered)
    if rest:
        rules.insert(0, {"names": rest, "action": "SCMP_ACT_ALLOW"})
    profile["syscalls"] = rules
    return profile


def unused(base: Seccomp, own: list[str], seen: set[str]) -> tuple[int, list[str]]:
    """Return how many calls `base` allows by name, and which of them nobody made."""
    allowed = {
        name
        for rule in base.get("syscalls") or ()
        if rule["action"] in _ALLOWING
        for name in rule["names"]
    }
    return len(allowed), sorted(allowed - seen - set(own))
