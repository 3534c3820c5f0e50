"""The host side of create, run and exec: start init, hand it the plan, answer it.

Side: host.

The interpreter is the target: a process of the container that reaches /proc/PID/exe of init could
overwrite the host's python3 (CVE-2019-5736).  So init runs from a sealed copy, and it is started
first of all: it boots on one core while this side reads, checks and plans on the other.
"""

from __future__ import annotations

import marshal

import posix

from . import activation, channel, log
from .errors import Error, reason, strerror
from .linux import files, mounts, processes
from .linux.const import (
    AT_EMPTY_PATH,
    EACCES,
    EPERM,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Final

    from .channel import Channel
    from .cli import Options, Settings

# Where the modules come from for the second interpreter: from the start of the archive, as for the
# first one, or from the source directory.
_ARCHIVE: Final = "/site-packages"
_BOOT_ARCHIVE: Final = (
    'entry="anocir.init";import sys,marshal;f=open(sys.argv.pop(1),"rb");f.readline();'
    "exec(marshal.load(f))"
)
_BOOT_SOURCE: Final = (
    "import sys;sys.path[:0]=[sys.argv.pop(1)];from anocir.init import main;main()"
)


# What start_early has started, until a command takes it.
_early: Init | None = None


class Init:
    """The process being made: first the middle process, then the container's init."""

    __slots__ = (
        "channel", "console", "early", "gone", "in_cgroup", "listen_fds", "middle", "middle_fd",
        "pid", "pidfd", "start_time", "waiting",
    )  # fmt: skip

    def __init__(self, middle: int, line: Channel, listen_fds: int) -> None:
        """Take the pid of the sealed interpreter, our end of its channel, LISTEN_FDS."""
        self.listen_fds = listen_fds
        self.middle = middle
        self.middle_fd = -1
        self.channel = line
        self.pid = 0
        self.pidfd = -1
        self.start_time = 0
        self.in_cgroup = False
        # The master of the terminal and its name, once init has sent it.
        self.console: tuple[int, str] | None = None
        # A frame that init has sent before the middle process has sent the pid.
        self.early: tuple[int, bytes] | None = None
        self.waiting = "booting"
        # A frame could not be sent any more.
        self.gone = False

    def send(
        self, kind: int, payload: bytes = b"", fds: Sequence[int] = (), waiting: str = ""
    ) -> None:
        """Send a frame; when init has ended meanwhile, raise why, as `expect` does."""
        self.waiting = waiting or self.waiting
        try:
            self.channel.send(kind, payload, fds)
        except (BrokenPipeError, ConnectionResetError):
            self.gone, self.early = True, None
            self.expect(-1, self.waiting)

    def expect(self, wanted: int, waiting: str) -> bytes:
        """Return the payload of the frame that must come next, after warnings and the console.

        Raises Error with init's own words, or with how it died and what it was doing.
        """
        self.waiting = waiting
        while True:
            if self.early and wanted != channel.PID:
                kind, payload = self.early
                self.early = None
            else:
                self._watch_middle()
                kind, payload = self.channel.receive()
            if kind == wanted:
                return payload
            if kind == channel.LOG:
                log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
            elif kind == channel.CONSOLE:
                self.console = self.channel.fds.pop(), payload.decode()
            elif kind == channel.ERROR:
                raise error_of(payload)
            elif wanted == channel.PID and kind in (channel.HOOKS, channel.READY):
                self.early = kind, payload  # init was faster than the middle process
            elif kind == 0:
                raise Error(f"init died while {waiting} ({self._end()})")
            else:
                raise Error(f"unexpected frame {kind} while {waiting}")

    def _watch_middle(self) -> None:
        """Wait for a frame or for the end of the middle process.

        When it dies right after it has cloned init, init keeps the channel open, so that there
        is no end of file; closing our end lets init go.
        """
        if self.pid or self.channel.buffer:
            return
        import select

        if self.middle_fd < 0:
            self.middle_fd = processes.pidfd_open(self.middle)
        poll = select.poll()
        poll.register(self.channel.sock, select.POLLIN)
        poll.register(self.middle_fd, select.POLLIN)
        ready = [fd for fd, _ in poll.poll()]
        if ready == [self.middle_fd]:
            # It may have sent its last frame between our two looks.
            poll.unregister(self.middle_fd)
            if not poll.poll(0):
                raise Error(f"init died while {self.waiting} ({self._end()})")

    def _end(self) -> str:
        """Say how the process ended."""
        pid = self.pid or self.middle
        try:
            status = processes.wait(pid)
        except ChildProcessError:
            return "its parent has reaped it"
        return f"signal {status - 128}" if status > 128 else f"exit status {status}"

    def adopt(self, payload: bytes) -> None:
        """Take the pid of init from the middle process, which is about to end."""
        self.pid, self.in_cgroup = marshal.loads(payload)
        self.pidfd = processes.pidfd_open(self.pid)
        self.start_time = processes.stat(self.pid)[3]

    def reap_middle(self) -> None:
        """Wait for the end of the middle process, which has nothing to do any more."""
        middle, self.middle = self.middle, 0
        processes.wait(middle)
        if self.middle_fd >= 0:
            files.close(self.middle_fd)
            self.middle_fd = -1

    def kill(self) -> None:
        """End it whatever it does, and reap it."""
        self.channel.close()
        for pid in (self.middle, self.pid):
            if pid:
                try:
                    processes.kill(pid, processes.SIGKILL)
                    processes.wait(pid)
                except (ProcessLookupError, ChildProcessError):
                    continue
        self.middle = self.pid = 0


def error_of(payload: bytes) -> Error:
    """Return the error that init has sent: text, NUL, hint."""
    text, _, hint = payload.decode("utf-8", "surrogateescape").partition("\0")
    return Error(text, hint)


def ahead(settings: Settings, options: Options, operation: Callable[[Init], int]) -> int:
    """Do the operation with init, which is started unless it is already; on failure it ends."""
    init = _take_early(options["preserve_fds"]) or boot(
        settings.import_path, options["preserve_fds"]
    )
    try:
        return operation(init)
    except BaseException:
        init.kill()
        raise


def start_early(import_path: str) -> None:
    """Start init before the command line is read.

    It boots on the other core while this side imports, reads and plans.
    """
    global _early
    try:
        _early = boot(import_path, 0)
    except (Error, OSError) as error:
        # `ahead` tries again, and reports it as the command's failure.
        log.debug(f"starting init early: {reason(error)}")


def _take_early(preserved: int) -> Init | None:
    """Hand out the init that was started early, if it closes the right descriptors."""
    global _early
    if preserved:
        drop_early()
    init, _early = _early, None
    return init


def drop_early() -> None:
    """End the init that was started early and that no command has taken."""
    global _early
    if _early is not None:
        _early.kill()
        _early = None


def boot(import_path: str, preserved: int) -> Init:
    """Start the sealed interpreter; it imports what init needs and waits for its plan.

    `preserved` descriptors from 3 on are the container's, and before them those that a service
    manager has passed; all others of the caller's it closes.
    """
    listen_fds = activation.listen_fds()
    preserved += listen_fds
    interpreter = files.readlink("/proc/self/exe")
    sealed = seal(interpreter)
    mine, theirs = channel.pair()
    theirs_high = files.dup_above(theirs, 3 + preserved)
    files.close(theirs)
    files.set_inheritable(theirs_high, True)
    path, boot_code = import_path, _BOOT_SOURCE
    if path.endswith(_ARCHIVE):
        path, boot_code = path[: -len(_ARCHIVE)], _BOOT_ARCHIVE
    argv = [
        files.encode(interpreter), b"-IBS", b"-X", b"utf8", b"-c", boot_code.encode(),
        files.encode(path), str(theirs_high).encode(), str(preserved).encode(),
    ]  # fmt: skip
    try:
        pid = processes.spawn(f"/proc/self/fd/{sealed}".encode(), argv, {}, [], session=False)
    finally:
        files.close(theirs_high)
        files.close(sealed)
    return Init(pid, mine, listen_fds)


def seal(path: str) -> int:
    """Return a descriptor of the interpreter through which nobody can write to the file.

    Three ways, the first that works: a read-only overlay (its mount can only be unwrapped by
    who could write anyway), a detached read-only copy of the mount (safe because its mount
    descriptor is closed), a sealed memory file.  None is left out: without a seal it fails.
    """
    failures = []
    for way in (seal_overlay, seal_mount, seal_memory):
        try:
            return way(path)
        except OSError as error:
            failures.append(f"{way.__name__}: {reason(error)}")
    raise Error("cannot seal the interpreter: " + "; ".join(failures))


def seal_overlay(path: str) -> int:
    """Open the file through an overlay of two lower directories and no upper one."""
    directory, _, name = path.rpartition("/")
    if any(char in directory for char in ":,\\"):
        raise OSError(EPERM, "fsconfig", directory)
    other = "/etc" if directory != "/etc" else "/usr"
    fs_fd = mounts.fsopen("overlay")
    try:
        mounts.fsconfig_string(fs_fd, "lowerdir", f"{directory}:{other}")
        mounts.fsconfig_create(fs_fd)
        mount_fd = mounts.fsmount(fs_fd, MOUNT_ATTR_RDONLY)
    finally:
        files.close(fs_fd)
    try:
        return files.open(name, files.O_PATH, dir_fd=mount_fd)
    finally:
        files.close(mount_fd)


def seal_mount(path: str) -> int:
    """Open the file through a detached read-only copy of its mount."""
    directory, _, name = path.rpartition("/")
    fd = files.open(directory or "/", files.O_PATH | files.O_DIRECTORY)
    try:
        mount_fd = mounts.open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
    finally:
        files.close(fd)
    try:
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)
        return files.open(name, files.O_PATH, dir_fd=mount_fd)
    finally:
        files.close(mount_fd)


def seal_memory(path: str) -> int:
    """Copy the file into memory and seal it: F_SEAL_SEAL, SHRINK, GROW, WRITE (fcntl(2))."""
    import fcntl

    source = files.open(path, files.O_RDONLY)
    try:
        # MFD_EXEC is asked for since Linux 6.3 and unknown before.
        try:
            fd = posix.memfd_create("anocir", 0x0001 | 0x0002 | 0x0010)
        except OSError:
            fd = posix.memfd_create("anocir", 0x0001 | 0x0002)
        while posix.sendfile(fd, source, None, 1 << 30):
            continue
        fcntl.fcntl(fd, 1033, 0x0001 | 0x0002 | 0x0004 | 0x0008)  # F_ADD_SEALS
    finally:
        files.close(source)
    # An executable must not be open for writing: take a read-only descriptor of the same file.
    sealed = files.open(f"/proc/self/fd/{fd}", files.O_PATH)
    files.close(fd)
    return sealed


def hand_over(init: Init, plan: dict[str, Any], fds: Sequence[int], settings: Settings) -> None:
    """Send the plan with the descriptors that it counts on."""
    extra = []
    plan["trace"] = bool(settings.trace)
    if settings.trace:
        from .linux import trace

        extra.append(trace.fd())
    init.send(channel.PLAN, marshal.dumps(plan), [*fds, *extra])


def adjust(init: Init, config: dict[str, Any], rootless: bool) -> None:
    """Do for init what only the host side may: the OOM score, hard limits above ours."""
    process = config.get("process") or {}
    score = process.get("oomScoreAdj")
    if score is not None:
        try:
            files.write_file(f"/proc/{init.pid}/oom_score_adj", str(score))
        except OSError as error:
            if not rootless or error.errno not in (EACCES, EPERM):
                raise Error(
                    f"process.oomScoreAdj: write {score}: {strerror(error.errno or 0)}"
                ) from None
            log.warn(f"process.oomScoreAdj: {reason(error)}")
    raise_limits(init.pid, process)


def raise_limits(pid: int, process: dict[str, Any]) -> None:
    """Raise hard resource limits that init, in a user namespace, could not raise itself."""
    limits = process.get("rlimits")
    if not limits:
        return
    from .linux import tasks
    from .spec.process import RLIMITS

    for index, limit in enumerate(limits):
        kind = RLIMITS.index(limit["type"])
        soft_now, hard_now = tasks.getrlimit(kind, pid)
        if limit["hard"] > hard_now:
            try:
                tasks.setrlimit(kind, soft_now, limit["hard"], pid)
            except OSError as error:
                raise Error(
                    f"process.rlimits[{index}]: error setting rlimit type {kind}: {reason(error)}",
                    "a hard limit above the caller's needs CAP_SYS_RESOURCE",
                ) from None


def write_pid_file(path: str, pid: int) -> None:
    """Write the pid without a newline; the file appears whole (written aside, renamed)."""
    directory, slash, name = path.rpartition("/")
    temporary = f"{directory}{slash}.{name}"
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
    try:
        fd = files.open(temporary, flags, 0o644)
    except FileExistsError:
        # Left by a runtime that was killed, or put there by somebody: never written through.
        files.unlink(temporary)
        fd = files.open(temporary, flags, 0o644)
    try:
        files.write_all(fd, str(pid).encode())
    finally:
        files.close(fd)
    files.rename(temporary, path)
