"""A seccomp profile turned into a program by libseccomp.

Side: host; imported only when the cache has no program.  `generate` is the list of steps; what
libseccomp leaves to its callers is done here and in rules.py: conditions on one argument, errno
values, and ENOSYS for calls that are newer than the profile.
"""

from __future__ import annotations

import posix

from ..errors import at, Error, strerror
from ..linux import descriptors, files
from ..linux.const import CLONE_PARENT, SIGCHLD
from . import (
    cache,
    FLAG_NEW_LISTENER,
    FLAG_SPEC_ALLOW,
    FLAG_TSYNC,
    FLAG_TSYNC_ESRCH,
    FLAG_WAIT_KILLABLE_RECV,
    library,
    PROBED,
    program,
    rules,
    support,
)
from .rules import ROOT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final
    from ..model.schema import Seccomp
    from ..wire.shapes import Filter

_EPERM: Final = 1
_ENOSYS: Final = 38
# libseccomp takes less than MAX_ERRNO of include/linux/err.h, which the kernel cuts it down to
_MAX_ERRNO: Final = 4094
_MAX_DATA: Final = 0xFFFF
_EDOM: Final = 33
_EEXIST: Final = 17
_EINVAL: Final = 22
# Default actions under which a call the profile does not know goes on: the prologue would take
# something away.  A tracer is expected to know its calls itself.
_PERMISSIVE: Final = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY", "SCMP_ACT_TRACE")
_MEMFD_CLOEXEC: Final = 1


def generate(profile: Seccomp) -> Filter:
    """Return what the cache keeps: the program, its flags, and what was ignored.  Raises Error."""
    default = _default_action(profile)
    actions = _rule_actions(profile)
    notify = library.ACTIONS["SCMP_ACT_NOTIFY"] in (default, *actions)
    warnings: list[str] = []
    flags = _flags(profile, notify, warnings)
    archs = _architectures(profile)
    ignored: list[str] = []
    filtered = _filter(profile, default, actions, archs, ignored)
    bpf = _prologue(profile, archs) + filtered
    if len(bpf) > program.MAX_INSTRUCTIONS * program.INSTRUCTION.size:
        raise Error(
            f"{ROOT}: the program has {len(bpf) // program.INSTRUCTION.size} instructions,"
            f" the kernel takes {program.MAX_INSTRUCTIONS}"
        )
    code = program.decode(bpf)
    return {
        "bpf": bpf,
        "flags": flags,
        "notify": notify,
        "ignored": ignored,
        "warnings": warnings,
        "outcomes": {**{name: _outcomes(code, name) for name in PROBED}, "clone": _clone(bpf)},
        "libseccomp": library.version(),
        "library": cache.identity(library.path()),
    }


def outcomes(bpf: bytes, name: str) -> list[int]:
    """Return every answer of the program to a call of this machine; none for a foreign call."""
    return _outcomes(program.decode(bpf), name)


def _clone(bpf: bytes) -> list[int]:
    """Return the answer to the one clone(2) by which init is made: profiles look at its flags."""
    number = library.syscall_number("clone")
    if number is None or number < 0:
        return []
    return [program.run(bpf, number, (CLONE_PARENT | SIGCHLD,), library.native_arch())]


def _outcomes(code: list[tuple[int, int, int, int]], name: str) -> list[int]:
    number = library.syscall_number(name)
    if number is None or number < 0:
        return []
    return program.outcomes(code, number, library.native_arch())


def _action(word: str, value: int | None, where: str) -> int:
    """Return the number of an action with its errno, which EPERM stands in for."""
    if word not in library.ACTIONS:
        raise at(where.rpartition(".")[0], f"unknown action {word}")
    action = library.ACTIONS[word]
    if word not in library.WITH_DATA:
        if value is not None:
            raise at(where, f"{word} takes no errno")
        return action
    limit = _MAX_ERRNO if word == "SCMP_ACT_ERRNO" else _MAX_DATA
    if value is not None and not 0 <= value <= limit:
        raise at(where, f"must be from 0 to {limit}, got {value}")
    return action | (_EPERM if value is None else value)


def _default_action(profile: Seccomp) -> int:
    word = profile.get("defaultAction")
    if not word:
        raise at(f"{ROOT}.defaultAction", "must be set")
    return _action(word, profile.get("defaultErrnoRet"), f"{ROOT}.defaultErrnoRet")


def _rule_actions(profile: Seccomp) -> list[int]:
    """Return the action of each entry of "syscalls"."""
    actions = []
    for index, rule in enumerate(profile.get("syscalls") or ()):
        where = f"{ROOT}.syscalls[{index}]"
        actions.append(_action(rule["action"], rule.get("errnoRet"), f"{where}.errnoRet"))
        if rule["action"] == "SCMP_ACT_NOTIFY" and "write" in rule["names"]:
            # Init reports with write(2) before the agent has the descriptor.
            raise at(f"{where}.action", "SCMP_ACT_NOTIFY cannot be used for write")
    return actions


def _flags(profile: Seccomp, notify: bool, warnings: list[str]) -> int:
    """Return the flags of seccomp(2), SPEC_ALLOW when the profile says nothing.

    The kernel takes WAIT_KILLABLE_RECV only with a listener, and TSYNC with a listener only when
    TSYNC_ESRCH tells the two kinds of result apart.
    """
    words = profile.get("flags")
    if words is None:
        flags = FLAG_SPEC_ALLOW if support.flag_supported(FLAG_SPEC_ALLOW) else 0
        return flags | (FLAG_NEW_LISTENER if notify else 0)
    flags = 0
    for index, word in enumerate(words):
        where = f"{ROOT}.flags[{index}]"
        if word not in support.FLAGS:
            raise at(where, f"unknown flag {word}")
        value, needs = support.FLAGS[word]
        if not support.flag_supported(value):
            raise at(where, f"{word} needs Linux {needs}, this is {posix.uname().release}")
        flags |= value
    if notify:
        flags |= FLAG_NEW_LISTENER
        flags |= FLAG_TSYNC_ESRCH if flags & FLAG_TSYNC else 0
    elif flags & FLAG_WAIT_KILLABLE_RECV:
        flags &= ~FLAG_WAIT_KILLABLE_RECV
        warnings.append("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV has no effect without a listener")
    return flags


def _architectures(profile: Seccomp) -> list[tuple[str, int]]:
    """Return path and number of each architecture, this machine's own first."""
    archs = [("", library.native_arch())]
    for index, word in enumerate(profile.get("architectures") or ()):
        where = f"{ROOT}.architectures[{index}]"
        arch = library.architecture(word) if word in library.ARCHITECTURES else 0
        if not arch:
            raise at(where, f"{word} is not known to libseccomp {library.version()}")
        if arch not in [number for _, number in archs]:
            archs.append((where, arch))
    return archs


def _filter(
    profile: Seccomp,
    default: int,
    actions: list[int],
    archs: list[tuple[str, int]],
    ignored: list[str],
) -> bytes:
    """Let libseccomp make a program of each layer of rules, and chain them."""
    layers = rules.layers(rules.collect(profile, actions, default, ignored))
    onward = _unused_action({default, *actions})
    programs = [_layer(profile["defaultAction"], onward, archs, layer) for layer in layers[:-1]]
    programs.append(_layer(profile["defaultAction"], default, archs, layers[-1]))
    return program.chain(programs, onward)


def _unused_action(used: set[int]) -> int:
    """Return an action that stands for "on to the next layer"."""
    errno = library.ACTIONS["SCMP_ACT_ERRNO"]
    return next(errno | data for data in range(_MAX_ERRNO, 0, -1) if errno | data not in used)


def _layer(word: str, default: int, archs: list[tuple[str, int]], layer: list[rules.Rule]) -> bytes:
    context = library.init(default)
    if not context:
        raise at(f"{ROOT}.defaultAction", support.action_refused(word))
    try:
        # A search tree instead of a chain of comparisons; libseccomp before 2.5 has none.
        library.attr_set(context, library.CTL_OPTIMIZE, 2)
        for where, arch in archs[1:]:
            result = library.arch_add(context, arch)
            if result == -_EDOM:
                raise at(where, "has another byte order than this machine")
            if result not in (0, -_EEXIST):
                raise at(where, strerror(-result))
        for rule in layer:
            _add(context, rule)
        return _export(context)
    finally:
        library.release(context)


def _add(context: int, rule: rules.Rule) -> None:
    where, word, action, name, number, conditions = rule
    result = library.rule_add_array(
        context, action, number, len(conditions), b"".join(conditions) or None
    )
    if result == -_EINVAL:
        raise at(f"{where}.action", support.action_refused(word))
    if result == -_EEXIST:
        raise rules.contradiction(where, name)
    if result:
        raise at(where, f"rule for {name}: {strerror(-result)}")


def _export(context: int) -> bytes:
    """Return the program; libseccomp before 2.6 only writes it to a descriptor."""
    if hasattr(posix, "memfd_create"):
        reader = writer = posix.memfd_create("seccomp", _MEMFD_CLOEXEC)
    else:
        # An interpreter built against an old C library.  A pipe holds 8192 instructions, twice
        # what the kernel takes; without O_NONBLOCK a longer program would wait for ever.
        reader, writer = descriptors.pipe()
        posix.set_blocking(writer, False)
    try:
        result = library.export_bpf(context, writer)
        if result:
            raise Error(f"{ROOT}: libseccomp cannot make a program: {strerror(-result)}")
        if reader == writer:
            posix.lseek(reader, 0, 0)
            return files.read_fd(reader)
        files.close(writer)
        writer = reader
        return files.read_fd(reader)
    finally:
        files.close(reader)
        if writer != reader:
            files.close(writer)


def _prologue(profile: Seccomp, archs: list[tuple[str, int]]) -> bytes:
    """Return the instructions for calls newer than the profile, none when it says what to do.

    As in runc, a name counts whatever its rule does.  Unlike there, this machine's own
    architecture counts also when "architectures" leaves it out.
    """
    if profile["defaultAction"] in _PERMISSIVE or profile.get("defaultErrnoRet") == _ENOSYS:
        return b""
    names = {name for rule in profile.get("syscalls") or () for name in rule["names"]}
    highest = {}
    for _, arch in archs:
        numbers = [library.syscall_number(name, arch) for name in names]
        number = max((number for number in numbers if number is not None), default=-1)
        highest[arch] = number if number >= 0 else program.NO_NUMBER
    x32 = highest.pop(library.ARCH_X32, program.NO_NUMBER)
    return program.enosys_prologue({arch: (number, x32) for arch, number in highest.items()})
