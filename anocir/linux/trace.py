"""--trace FILE: the runtime's own system calls, decoded, with what they were made for.

Side: host and init.  Imported only with the option.  Every call goes through the modules of this
package by attribute (`mounts.move_mount(...)`), so tracing replaces these attributes; without it
nothing is there that could cost.  A line:

    18101 setup/filesystem mounts[0] fsopen("proc", FSOPEN_CLOEXEC) = 5 <0.000021>

is the pid in our own pid namespace, phase and step, the JSON path, the call, its result or errno,
and the seconds that it took.  With --trace-format json a line is an object with the same parts.
Each process ends with where its time went: a line for each phase with the calls, the milliseconds
spent in them, and those from the phase's first call to its last.

With TRACEPARENT in the environment (W3C Trace Context) the objects carry its trace id.
"""

from __future__ import annotations

import time
from errno import errorcode

import posix

from .. import errors
from . import bpf, const, descriptors, entries, files, inodes, mounts, netlink, notifications
from . import oneself, processes, sockets, spawn, tasks, watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

_fd = -1
_json = False
_trace_id = ""
# Phase -> calls, seconds in them, time of the first one's begin, time of the last one's end.
_phases: dict[str, list[float]] = {}
_summed = False
# Asked once: behind a seccomp filter that kills or reports it, getpid(2) cannot be.
_pid = posix.getpid()
# Whether this process is behind a filter, where no call is made but those that it is to make.
_filtered = False


def _bits(prefix: str, only: Mapping[str, int] | None = None) -> list[tuple[str, int]]:
    source: Mapping[str, Any] = only if only is not None else vars(const)
    pairs = [(n, v) for n, v in source.items() if n.startswith(prefix) and isinstance(v, int)]
    return sorted(pairs, key=lambda pair: -pair[1])


def _flags(*tables: list[tuple[str, int]]) -> Callable[[Any], str]:
    """Return a function that writes a number as names of bits."""

    def decode(value: Any) -> str:
        if not isinstance(value, int):
            return repr(value)
        words = []
        left = value
        for table in tables:
            for name, bit in table:
                if bit and left & bit == bit:
                    words.append(name)
                    left &= ~bit
        if left or not words:
            words.append(f"{left:#x}" if left else "0")
        return "|".join(words)

    return decode


def _one(prefix: str) -> Callable[[Any], str]:
    """Return a function that writes a number by its one name."""
    names = {value: name for name, value in vars(const).items() if name.startswith(prefix)}
    return lambda value: names.get(value, repr(value))


def _request(value: Any) -> str:
    """Return the name of what is asked of ioctl(2), of those that have a constant."""
    return _REQUESTS.get(value, f"{value:#x}")


def _buffer(value: Any) -> str:
    return f"<{len(value)} bytes>" if isinstance(value, bytes) else _text(value)


def _octal(value: Any) -> str:
    return f"{value:#o}" if isinstance(value, int) else repr(value)


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, str):
        shown = value if len(value) <= 200 else value[:200] + "..."
        return '"' + shown.translate(_ESCAPES) + '"'
    if isinstance(value, bytearray):
        return f"<{len(value)} bytes>"
    if value is None:
        return "NULL"
    return repr(value)


def _mount_data(value: Any) -> str:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return _text(errors.concealed(value))


def _value_of(key: Any, value: Any) -> Any:
    """Return the value of an option of a file system, unless it is a secret."""
    text = value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else str(value)
    return errors.concealed(f"{key}={text}").partition("=")[2]


def _content(fd: Any, data: Any) -> str:
    """Return what is written where it is for the kernel; elsewhere it may be a secret.

    A configuration and the state that a hook gets have environments and annotations, a terminal
    has what is typed.
    """
    try:
        if not _filtered and _file_system(fd) in _KERNELS:
            return _text(data)
    except OSError:
        pass
    return f"<{len(data)} bytes>"


_file_system: Final = inodes.fstatfs_type
_KERNELS: Final = (
    const.PROC_SUPER_MAGIC, const.CGROUP_SUPER_MAGIC, const.CGROUP2_SUPER_MAGIC,
    const.SYSFS_MAGIC,
    0x7655821,  # RDTGROUP_SUPER_MAGIC
)  # fmt: skip
_ESCAPES: Final = {number: f"\\x{number:02x}" for number in (*range(32), *range(0x7F, 0xA0))}
_ESCAPES.update({10: "\\n", 34: '\\"', 92: "\\\\"})
_QUOTED: Final = {'"': '\\"', "\\": "\\\\", **{chr(n): f"\\u{n:04x}" for n in range(32)}}
_REQUESTS: Final = {
    value: name
    for module, start in ((const, "TIOC"), (notifications, "SECCOMP_IOCTL_"))
    for name, value in vars(module).items()
    if name.startswith(start)
}
_OPEN: Final = _flags(_bits("O_", vars(files)))
_AT: Final = _flags(_bits("AT_RECURSIVE"), _bits("AT_EMPTY"), _bits("AT_SYMLINK"),
                    _bits("OPEN_TREE_CLOEXEC"), _bits("OPEN_TREE_CLONE"))  # fmt: skip
_MS: Final = _flags(_bits("MS_"))
_ATTR: Final = _flags([p for p in _bits("MOUNT_ATTR_") if p[0] != "MOUNT_ATTR__ATIME"])
_CLONE: Final = _flags(_bits("CLONE_"))
_RESOLVE: Final = _flags(_bits("RESOLVE_"))

# Function -> the kernel's name, and how its arguments after the first ones are written.
_DECODE: Final[dict[Any, dict[str, tuple[str, tuple[Any, ...]]]]] = {
    files: {
        "open": ("openat", (_text, _OPEN, _octal)),
        "close": ("close", ()),
        "read": ("read", ()),
        "write": ("write", (None, str)),
        "dup2": ("dup3", ()),
        "stat": ("stat", (_text,)),
        "lstat": ("lstat", (_text,)),
        "fstat": ("fstat", ()),
        "rmdir": ("rmdir", (_text,)),
        "unlink": ("unlinkat", (_text,)),
        "fchmod": ("fchmod", (None, _octal)),
        "fchown": ("fchown", ()),
        "fchdir": ("fchdir", ()),
        "umask": ("umask", (_octal,)),
        "listdir": ("getdents64", (_text,)),
    },
    entries: {
        "mkdir": ("mkdirat", (_text, _octal)),
        "rename": ("renameat", (_text, _text)),
        "symlink": ("symlinkat", (_text, _text)),
        "readlink": ("readlinkat", (_text,)),
        "mknod": ("mknodat", (_text, _octal)),
        "chmod": ("chmod", (_text, _octal)),
        "chown": ("fchownat", (_text,)),
        "chdir": ("chdir", (_text,)),
        "chroot": ("chroot", (_text,)),
        "subdirectories": ("getdents64", ()),
    },
    descriptors: {
        "flock": ("flock", ()),
        "ioctl": ("ioctl", (None, _request, _buffer)),
        "pipe": ("pipe2", ()),
        "dup_above": ("fcntl(F_DUPFD_CLOEXEC)", ()),
        "status_flags": ("fcntl(F_GETFL)", ()),
    },
    mounts: {
        "mount": ("mount", (_text, _text, _text, _MS, _mount_data)),
        "umount2": ("umount2", (_text,)),
        "pivot_root": ("pivot_root", (_text, _text)),
        "fsopen": ("fsopen", (_text,)),
        "fsconfig_string": ("fsconfig", (None, _text, _text)),
        "fsconfig_flag": ("fsconfig", (None, _text)),
        "fsconfig_fd": ("fsconfig", (None, _text)),
        "fsconfig_create": ("fsconfig_create", ()),
        "fsmount": ("fsmount", (None, _ATTR)),
        "open_tree": ("open_tree", (None, _text, _AT)),
        "move_mount": ("move_mount", ()),
        "mount_setattr": ("mount_setattr", (None, _AT, _ATTR, _ATTR, _MS)),
        "has_mount_setattr": ("mount_setattr(NULL)", ()),
        "has_open_tree": ("open_tree(no such flags)", ()),
    },
    inodes: {
        "openat2": ("openat2", (None, _text, _OPEN, _RESOLVE)),
        "fstatfs_type": ("fstatfs", ()),
        "mount_id": ("statx", ()),
        "flistxattr": ("flistxattr", ()),
        "fgetxattr": ("fgetxattr", (None, _text)),
        "fsetxattr": ("fsetxattr", (None, _text, _text)),
    },
    tasks: {
        "unshare": ("unshare", (_CLONE,)),
        "setns": ("setns", (None, _CLONE)),
        "loopback_up": ("ioctl", ()),
        "clone": ("clone", (_CLONE,)),
        "clone_into": ("clone3", ()),
        "prctl": ("prctl", (_one("PR_"),)),
        "drop_bounding": ("prctl(PR_CAPBSET_DROP)", ()),
        "pidfd_getfd": ("pidfd_getfd", ()),
        "signalfd": ("signalfd4", (hex,)),
        "getrlimit": ("prlimit64", ()),
        "setrlimit": ("prlimit64", ()),
        "eventfd": ("eventfd2", ()),
    },
    oneself: {
        "set_name": ("prctl(PR_SET_NAME)", (_text,)),
        "capget": ("capget", ()),
        "capset": ("capset", (hex, hex, hex)),
        "close_range": ("close_range", ()),
        "close_on_exec": ("close_range", ()),
        "execve": ("execve", (_text, lambda _: "argv", lambda _: "envp")),
        "join_session_keyring": ("keyctl(JOIN_SESSION_KEYRING)", (_text,)),
        "keyring_permissions": ("keyctl(DESCRIBE)", ()),
        "set_keyring_permissions": ("keyctl(SETPERM)", (None, hex)),
        "sethostname": ("sethostname", (_text,)),
        "setdomainname": ("setdomainname", (_text,)),
        "personality": ("personality", (hex,)),
        "ioprio_set": ("ioprio_set", (hex,)),
        "sched_setattr": ("sched_setattr", ()),
        "run_anywhere": ("sched_setaffinity", ()),
        "set_mempolicy": ("set_mempolicy", (hex, hex)),
        "seccomp_filter": ("seccomp", (lambda p: f"<{len(p) // 8} instructions>", hex)),
        "setgroups": ("setgroups", ()),
        "setresgid": ("setresgid", ()),
        "setresuid": ("setresuid", ()),
        "set_fs_ids": ("setfsuid", ()),
        "setsid": ("setsid", ()),
        "execveat": ("execveat", (None, lambda _: "argv", lambda _: "envp")),
        "session_keyring": ("keyctl(GET_KEYRING_ID)", ()),
        "default_signal": ("rt_sigaction(SIG_DFL)", ()),
        "block_signals": ("rt_sigprocmask(SIG_BLOCK)", (hex,)),
        "set_signals": ("rt_sigprocmask(SIG_SETMASK)", (hex,)),
        "wait_readable": ("ppoll", ()),
        "seccomp": ("seccomp", (None, hex)),
    },
    bpf: {
        "prog_load": ("bpf(BPF_PROG_LOAD)", (lambda p: f"<{len(p) // 8} instructions>",)),
        "prog_attach": ("bpf(BPF_PROG_ATTACH)", ()),
        "prog_detach": ("bpf(BPF_PROG_DETACH)", ()),
        "prog_open": ("bpf(BPF_PROG_GET_FD_BY_ID)", ()),
        "prog_name": ("bpf(BPF_OBJ_GET_INFO_BY_FD)", ()),
        "prog_query": ("bpf(BPF_PROG_QUERY)", ()),
    },
    netlink: {
        name: (f"netlink({name})", ())
        for name, value in vars(netlink).items()
        if callable(value) and not name.startswith("_") and value.__module__ == netlink.__name__
    },
    sockets: {
        "pair": ("socketpair", ()),
        "datagram": ("socket", ()),
        "send": ("sendmsg", (None, lambda data: f"<{len(data)} bytes>")),
        "receive": ("recvmsg", ()),
    },
    processes: {
        "exited": ("poll", ()),
        "pidfd_open": ("pidfd_open", ()),
        "child_pidfd": ("pidfd_open", ()),
        "pidfd_send_signal": ("pidfd_send_signal", ()),
        "kill": ("kill", ()),
    },
    spawn: {
        "spawn": ("vfork+execve", (_text, lambda _: "argv", lambda _: "envp",
                                   lambda _: "actions")),
        "wait": ("waitpid", ()),
        "default_signals": ("rt_sigaction(SIG_DFL)", ()),
        "kill_group": ("kill(-pgrp)", ()),
    },
    watch: {
        "has_pidfds": ("pidfd_open(getpid())", ()),
    },
}  # fmt: skip


def open(path: str, form: str = "text") -> None:
    """Open FILE, append to it in the `form` text or json, and trace this process.  Side: host."""
    flags = files.O_WRONLY | files.O_CREAT | files.O_APPEND | files.O_NOCTTY | files.O_NONBLOCK
    fd = descriptors.dup_above(files.open(path, flags, 0o600), 100)
    posix.set_blocking(fd, True)
    attach(fd, form, trace_id())


def fd() -> int:
    """Return the descriptor of the trace, to be handed to init."""
    return _fd


def trace_id() -> str:
    """Return the trace id of TRACEPARENT (version-id-parent-flags), empty without a sound one."""
    words = posix.environ.get(b"TRACEPARENT", b"").decode("ascii", "replace").split("-")
    sound = len(words) >= 4 and len(words[1]) == 32 and not words[1].strip("0123456789abcdef")
    return words[1] if sound and words[1].strip("0") else ""


def attach(trace_fd: int, form: str = "text", known: str = "") -> None:
    """Trace this process into an open file; `known` is the trace id for lines in JSON."""
    global _fd, _json, _trace_id
    _born()
    posix.register_at_fork(after_in_child=_born)
    _fd = trace_fd
    _json = form == "json"
    _trace_id = known
    for module, table in _DECODE.items():
        for name, (shown, formats) in table.items():
            function = getattr(module, name, None)
            if function is not None:
                setattr(module, name, _traced(function, shown, formats))


def move(target: int) -> None:
    """Move the trace to the descriptor `target`, before all others are closed."""
    global _fd
    if _fd not in (-1, target):
        posix.dup2(_fd, target, inheritable=False)
        _fd = target


def _born() -> None:
    global _pid
    _pid = posix.getpid()


def end() -> None:
    """Write no more: the descriptor will be closed, and its number may become another's."""
    global _fd
    _fd = -1


def _traced(function: Any, shown: str, formats: tuple[Any, ...]) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        global _filtered
        if shown in ("execve", "execveat", "clone", "clone3"):
            # What does not come back, or comes back twice, is written before.
            _line(shown, formats, args, kwargs, "...", None)
            if shown in ("execve", "execveat"):
                summary()
        if function.__name__ == "close_range" and args[0] <= _fd <= args[1]:
            _line(shown, formats, args, kwargs, "...", None)
            end()  # a child that keeps nothing of ours
        before = time.perf_counter()
        try:
            result = function(*args, **kwargs)
        except OSError as error:
            took = time.perf_counter() - before
            number = error.errno or 0
            what = f"-1 {errorcode.get(number, number)} ({errors.strerror(number)})"
            _line(shown, formats, args, kwargs, what, took)
            raise
        took = time.perf_counter() - before
        if shown in ("clone", "clone3") and result == 0:
            _born()
        elif function.__name__ == "seccomp_filter":
            _filtered = True
        _line(shown, formats, args, kwargs, _result(result), took)
        return result

    return call


def _result(value: Any) -> str:
    if value is None:
        return "0"
    if isinstance(value, bytes):
        return str(len(value))
    if isinstance(value, posix.stat_result):
        return f"0 {{st_mode={value.st_mode:#o}, st_rdev={value.st_rdev:#x}}}"
    return _text(value)


def _line(
    shown: str,
    formats: tuple[Any, ...],
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    end: str,
    took: float | None,
) -> None:
    """Write one call; `took` is None for one that is written before it is made."""
    if _fd < 0:
        return
    words = []
    if shown == "write":
        args = args[0], _content(*args)
    elif shown == "fsconfig" and len(args) > 2 and isinstance(args[2], (str, bytes)):
        args = args[0], args[1], _value_of(args[1], args[2])
    for index, value in enumerate(args):
        decode = formats[index] if index < len(formats) else None
        words.append(decode(value) if decode is not None else _text(value))
    words += [f"{key}={value!r}" for key, value in kwargs.items() if value is not None]
    phase, step, path = errors.scope[0] or "host", errors.scope[1], errors.scope[2]
    if took is not None:
        now = time.perf_counter()
        figures = _phases.setdefault(phase, [0, 0.0, now - took, now])
        figures[0] += 1
        figures[1] += took
        figures[3] = now
    if _json:
        record = {
            "pid": _pid, "phase": phase, "step": step, "path": path, "call": shown,
            "args": words, "result": end, "seconds": round(took or 0.0, 6),
        }  # fmt: skip
        _write(_object(record))
        return
    where = f"{_pid} {phase}{'/' if step else ''}{step} {path or '-'}"
    _write(f"{where} {shown}({', '.join(words)}) = {end} <{took or 0.0:.6f}>\n")


def _object(record: dict[str, object]) -> str:
    """Return a line of JSON; by hand, since importing is over when init writes."""
    if _trace_id:
        record["trace_id"] = _trace_id
    return "{" + ", ".join(f"{_quoted(key)}: {_value(v)}" for key, v in record.items()) + "}\n"


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return "[" + ", ".join(_quoted(word) for word in value) + "]"
    return repr(value)


def _quoted(text: str) -> str:
    return '"' + "".join(_QUOTED.get(char, char) for char in text) + '"'


def summary() -> None:
    """Write where this process has spent its time so far: phases, calls, milliseconds."""
    global _summed
    if _summed or _fd < 0:
        return  # an execve that failed and is tried with the next directory of PATH
    _summed = True
    for phase, (calls, inside, first, last) in _phases.items():
        whole = (last - first) * 1000
        if _json:
            _write(
                _object(
                    {"pid": _pid, "summary": phase, "calls": int(calls),
                     "ms_in_calls": round(inside * 1000, 3), "ms": round(whole, 3)}
                )
            )  # fmt: skip
        else:
            head = f"# {_pid} {phase}: {int(calls)} calls"
            _write(f"{head}, {inside * 1000:.3f} ms in them, {whole:.3f} ms in all\n")


def _write(text: str) -> None:
    try:
        posix.write(_fd, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise errors.Error(f"--trace: write: {errors.strerror(error.errno or 0)}") from None
