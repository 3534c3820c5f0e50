#!/usr/bin/python3
"""A kernel of any age in a few milliseconds: chosen system calls fail, by a seccomp filter around a program.

usage: blocked.py [--eperm] NUMBERS -- COMMAND [ARG...]

NUMBERS is a list such as 424,428-437,442, or the release of a kernel (4.18, 5.4, 5.10, 5.15) whose newer calls shall be
missing. They fail with ENOSYS as on that kernel; with --eperm with EPERM, as under a container engine that is older than
the call. The filter stays with the program and all its children. From 424 on the numbers are those of every architecture.

It does not make the kernel old in any other way: what a release changed within a call (a flag, a file system's option, a
file of /proc) is there.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable, Sequence
from typing import Callable

# include/uapi/asm-generic/unistd.h
CALLS = {
    "pidfd_send_signal": 424, "open_tree": 428, "move_mount": 429, "fsopen": 430,
    "fsconfig": 431, "fsmount": 432, "fspick": 433, "pidfd_open": 434, "clone3": 435,
    "close_range": 436, "openat2": 437, "pidfd_getfd": 438, "faccessat2": 439,
    "epoll_pwait2": 441, "mount_setattr": 442,
}  # fmt: skip
# The first number that a kernel does not have.
AGES = {"4.18": 424, "5.4": 436, "5.10": 441, "5.15": 449}
LAST = 1023
# include/uapi/linux/{seccomp,filter,bpf_common}.h, include/uapi/linux/prctl.h
_RETURN_ERRNO, _ALLOW = 0x00050000, 0x7FFF0000
_LOAD, _JUMP_GE, _JUMP_GT, _RETURN = 0x20, 0x35, 0x25, 0x06
_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_PR_SET_NO_NEW_PRIVS = 38


def numbers(text: str) -> list[int]:
    """The numbers of a list, of names, or of all that a kernel of that release lacks."""
    if text in AGES:
        return list(range(AGES[text], LAST + 1))
    found: list[int] = []
    for part in filter(None, text.split(",")):
        if part in CALLS:
            found.append(CALLS[part])
        else:
            first, _, last = part.partition("-")
            found += range(int(first), int(last or first) + 1)
    return found


def program(blocked: Iterable[int], error: int) -> bytes:
    """The filter: struct sock_filter[], eight bytes each."""
    code = [(_LOAD, 0, 0, 0)]
    left = sorted(set(blocked))
    while left:
        first = last = left.pop(0)
        while left and left[0] == last + 1:
            last = left.pop(0)
        # below the first one: past the return; above the last one: the same
        code += [(_JUMP_GE, 0, 2, first), (_JUMP_GT, 1, 0, last)]
        code.append((_RETURN, 0, 0, _RETURN_ERRNO | error))
    code.append((_RETURN, 0, 0, _ALLOW))
    return b"".join(struct.pack("=HBBI", *line) for line in code)


def load(blocked: Iterable[int], error: int = errno.ENOSYS) -> None:
    """Put the calling process, and all that it becomes and makes, behind the filter."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = program(blocked, error)
    kept = ctypes.create_string_buffer(code, len(code))
    filters = struct.pack("@HP", len(code) // 8, ctypes.addressof(kept))
    if os.geteuid() != 0 and libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_NO_NEW_PRIVS)")
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, filters, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_SECCOMP)")


def before_exec(blocked: Iterable[int], error: int = errno.ENOSYS) -> Callable[[], None]:
    """What subprocess takes as `preexec_fn`."""
    kept = list(blocked)
    return lambda: load(kept, error)


def main(words: Sequence[str]) -> int:
    """See the module's text."""
    left = list(words)
    error = errno.ENOSYS
    if left[:1] == ["--eperm"]:
        error = errno.EPERM
        del left[0]
    if len(left) < 3 or left[1] != "--":
        sys.stderr.write("usage: blocked.py [--eperm] NUMBERS -- COMMAND [ARG...]\n")
        return 2
    load(numbers(left[0]), error)
    os.execvp(left[2], left[2:])
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
