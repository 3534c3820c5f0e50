"""Numbers of the system calls that anocir makes by number, for each architecture.

Side: pure.  Sources: arch/x86/entry/syscalls/syscall_64.tbl and, for aarch64,
include/uapi/asm-generic/unistd.h.  tests/repo compares both with the headers.
"""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

X86_64: Final = {
    "add_key": 248,
    "bpf": 321,
    "capget": 125,
    "capset": 126,
    "clone": 56,
    "clone3": 435,
    "close_range": 436,
    "eventfd2": 290,
    "execve": 59,
    "execveat": 322,
    "fgetxattr": 193,
    "flistxattr": 196,
    "fsconfig": 431,
    "fsetxattr": 190,
    "fsmount": 432,
    "fsopen": 430,
    "fstatfs": 138,
    "getcwd": 79,
    "ioprio_set": 251,
    "keyctl": 250,
    "mount": 165,
    "mount_setattr": 442,
    "move_mount": 429,
    "open_tree": 428,
    "openat2": 437,
    "personality": 135,
    "pidfd_getfd": 438,
    "pivot_root": 155,
    "ppoll": 271,
    "prctl": 157,
    "prlimit64": 302,
    "recvmsg": 47,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "sched_setaffinity": 203,
    "sched_setattr": 314,
    "seccomp": 317,
    "sendmsg": 46,
    "set_mempolicy": 238,
    "setdomainname": 171,
    "setfsgid": 123,
    "setfsuid": 122,
    "sethostname": 170,
    "setns": 308,
    "signalfd4": 289,
    "socket": 41,
    "socketpair": 53,
    "statx": 332,
    "umount2": 166,
    "unshare": 272,
}

AARCH64: Final = {
    "add_key": 217,
    "bpf": 280,
    "capget": 90,
    "capset": 91,
    "clone": 220,
    "clone3": 435,
    "close_range": 436,
    "eventfd2": 19,
    "execve": 221,
    "execveat": 281,
    "fgetxattr": 10,
    "flistxattr": 13,
    "fsconfig": 431,
    "fsetxattr": 7,
    "fsmount": 432,
    "fsopen": 430,
    "fstatfs": 44,
    "getcwd": 17,
    "ioprio_set": 30,
    "keyctl": 219,
    "mount": 40,
    "mount_setattr": 442,
    "move_mount": 429,
    "open_tree": 428,
    "openat2": 437,
    "personality": 92,
    "pidfd_getfd": 438,
    "pivot_root": 41,
    "ppoll": 73,
    "prctl": 167,
    "prlimit64": 261,
    "recvmsg": 212,
    "rt_sigaction": 134,
    "rt_sigprocmask": 135,
    "sched_setaffinity": 122,
    "sched_setattr": 274,
    "seccomp": 277,
    "sendmsg": 211,
    "set_mempolicy": 237,
    "setdomainname": 162,
    "setfsgid": 152,
    "setfsuid": 151,
    "sethostname": 161,
    "setns": 268,
    "signalfd4": 74,
    "socket": 198,
    "socketpair": 199,
    "statx": 291,
    "umount2": 39,
    "unshare": 97,
}

_UNAME: Final = posix.uname().machine
# Below linux32, as setarch(8) sets it, a 64-bit process is told the name of a 32-bit machine, but
# what it makes are 64-bit calls.
_LINUX32: Final = {"i686": "x86_64", "armv8l": "aarch64"} if sys.maxsize > 1 << 32 else {}
MACHINE: Final = _LINUX32.get(_UNAME, _UNAME)
NUMBERS: Final = {"x86_64": X86_64, "aarch64": AARCH64}.get(MACHINE, {})
