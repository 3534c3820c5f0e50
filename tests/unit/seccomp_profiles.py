"""Profiles and tables that the seccomp tests of all tiers share."""

from __future__ import annotations

import platform
from typing import Any

import pytest

from anocir import seccomp

# include/uapi/linux/audit.h
X86_64 = 0xC000003E
I386 = 0x40000003
AARCH64 = 0xC00000B7
ARM = 0x40000028
NATIVE = {"x86_64": X86_64, "aarch64": AARCH64}.get(platform.machine(), 0)

ALLOW, LOG, TRAP = 0x7FFF0000, 0x7FFC0000, 0x00030000
ERRNO, TRACE, NOTIFY = 0x00050000, 0x7FF00000, 0x7FC00000
KILL_THREAD, KILL_PROCESS = 0x00000000, 0x80000000
ENOSYS = ERRNO | 38
EPERM = ERRNO | 1

needs_x86_64 = pytest.mark.skipif(NATIVE != X86_64, reason="[x86_64] the numbers are of x86_64")
needs_numbers = pytest.mark.skipif(
    not NATIVE, reason="[numbers] the numbers are of x86_64 and aarch64"
)
needs_libseccomp = pytest.mark.skipif(
    not seccomp.library_version(), reason="[libseccomp] no libseccomp.so.2"
)

# The calls that engines allow by default to a container without added capabilities.
_ALLOWED = """
_llseek _newselect accept accept4 access adjtimex alarm arch_prctl bind brk capget capset chdir
chmod chown chown32 chroot clock_adjtime clock_adjtime64 clock_getres clock_getres_time64
clock_gettime clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchown
fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr
fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futex futex_time64
futimesat get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32
geteuid geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp
getpid getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit
getrusage getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr
inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy io_getevents
io_setup io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule
landlock_create_ruleset landlock_restrict_self lchown lchown32 lgetxattr link linkat listen
listxattr llistxattr lremovexattr lseek lsetxattr lstat lstat64 madvise membarrier memfd_create
memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 modify_ldt
mprotect mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
mq_timedsend_time64 mq_unlink mremap msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
nanosleep newfstatat open openat openat2 pause pidfd_getfd pidfd_open pidfd_send_signal pipe
pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64 preadv preadv2
prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64 ptrace
pwrite64 pwritev pwritev2 read readahead readdir readlink readlinkat readv recv recvfrom
recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr rename renameat renameat2
restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo
rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo
sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr sched_getparam
sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity
sched_setattr sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop
semtimedop semtimedop_time64 send sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list
set_thread_area set_tid_address setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
setgroups setgroups32 setitimer setpgid setpriority setregid setregid32 setresgid setresgid32
setresuid setresuid32 setreuid setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr
shmat shmctl shmdt shmget shutdown sigaction sigaltstack signal signalfd signalfd4 sigpending
sigprocmask sigreturn sigsuspend socketcall socketpair splice stat stat64 statfs statfs64 statx
symlink symlinkat sync sync_file_range syncfs syscall sysinfo tee tgkill time timer_create
timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64
timerfd timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times
tkill truncate truncate64 ugetrlimit umask uname unlink unlinkat utime utimensat
utimensat_time64 utimes vfork wait4 waitid waitpid write writev
"""
ENGINE_NAMES = tuple(_ALLOWED.split())


def engine_profile() -> dict[str, Any]:
    """Return a profile of the size and shape that Docker and Podman write."""
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        if NATIVE == X86_64
        else ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"],
        "syscalls": [
            {"names": list(ENGINE_NAMES), "action": "SCMP_ACT_ALLOW"},
            *[
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [condition(0, "EQ", v)],
                }
                for v in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
            ],
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [condition(0, "MASKED_EQ", 0x7E020000, 0)],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
            {
                "names": ["socket"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 22,
                "args": [condition(0, "EQ", 16), condition(2, "EQ", 9)],
            },
            {"names": ["bpf", "mount", "unshare"], "action": "SCMP_ACT_ERRNO"},
        ],
    }


def condition(index: int, operator: str, value: int, second: int | None = None) -> dict[str, Any]:
    """Return one element of "args"."""
    result = {"index": index, "op": f"SCMP_CMP_{operator}", "value": value}
    if second is not None:
        result["valueTwo"] = second
    return result


def rule(
    names: str, action: str, *args: dict[str, Any], errno: int | None = None
) -> dict[str, Any]:
    """Return one element of "syscalls"."""
    result: dict[str, Any] = {"names": names.split(), "action": f"SCMP_ACT_{action}"}
    if args:
        result["args"] = list(args)
    if errno is not None:
        result["errnoRet"] = errno
    return result


def profile(default: str, *rules: dict[str, Any], **others: Any) -> dict[str, Any]:
    """Return a profile; architectures and the like by keyword."""
    return {"defaultAction": f"SCMP_ACT_{default}", "syscalls": list(rules), **others}


def compiled(wanted: dict[str, Any]) -> dict[str, Any]:
    """Compile without a cache; a warning is an error."""

    def warn(text: str) -> None:
        raise AssertionError(text)

    return seccomp.compile(wanted, None, warn)


def answer(wanted: dict[str, Any], nr: int, *args: int, arch: int = NATIVE) -> int:
    """Return what the program of a profile answers to one call."""
    return seccomp.run(compiled(wanted)["bpf"], nr, args, arch)
