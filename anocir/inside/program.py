"""The program: its working directory and descriptors, where it is, and its execution.

Side: inside.  Sources: execve(2), config.md (Process), CVE-2024-21626.
"""

from __future__ import annotations

import _signal


from ..base import inroot
from ..errors import CONTRACT, Error, cwd_error, strerror
from ..linux import entries, files, oneself, spawn
from ..linux.errnos import EACCES, EISDIR, ELOOP, ENOENT, ENOTDIR
from ..wire import channel
from . import procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final, NoReturn

    from .context import Context

_ST_NOEXEC: Final = 8  # statvfs(3)


def home(context: Context, uid: int) -> None:
    """Set HOME from the container's /etc/passwd, else to "/", as runc does."""
    try:
        directory = _home_in(_passwd(context), uid) or "/"
    except OSError:
        directory = "/"
    context.env.append("HOME=" + directory)


def _passwd(context: Context) -> bytes:
    """Read /etc/passwd, if it is a regular file: to open a device would already do something."""
    seen = inroot.open(context.root_fd, "/etc/passwd")
    try:
        if files.kind(files.fstat(seen)) != files.S_IFREG:
            return b""
        fd = procfs.reopen(context, seen, files.O_RDONLY | files.O_NONBLOCK | files.O_NOCTTY)
    finally:
        files.close(seen)
    try:
        return files.read_fd(fd, 1 << 20)
    finally:
        files.close(fd)


def _home_in(passwd: bytes, uid: int) -> str:
    wanted = str(uid).encode()
    for line in passwd.split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted and b"\0" not in fields[5]:
            return files.decode(fields[5])
    return ""


def chdir(context: Context, path: str, as_user: bool) -> None:
    """Enter the working directory, resolved inside the root and through no magic link.

    Tried as root first, and once more as the user where root itself is not let in (a mapped
    root, a network file system).  CVE-2024-21626.
    """
    if as_user:
        if not context.cwd_refused:
            return
        try:
            entries.chdir(path)
            inside = entries.getcwd().startswith("/")
        except OSError as error:
            raise cwd_error(path, error.errno or 0) from None
        if not inside:
            raise Error(f'cwd "{path}" is outside of the container')
        return
    try:
        fd = inroot.open(context.root_fd, path, files.O_PATH | files.O_DIRECTORY)
    except OSError as error:
        if error.errno == EACCES:
            context.cwd_refused = True
            return
        raise cwd_error(path, error.errno or 0) from None
    try:
        files.fchdir(fd)
    except OSError as error:
        if error.errno != EACCES:
            raise cwd_error(path, error.errno or 0) from None
        context.cwd_refused = True
    files.close(fd)


def close_descriptors(context: Context) -> None:
    """Close all but 0 to 2, those that the caller passes on, and what init waits on.

    That closes itself in execve.  CVE-2024-21626.
    """
    first = 3 + context.plan["fds"]
    for fd in context.plan["holes"]:
        files.close(fd)  # the caller has nothing there, and so has the program
    pass_on(context)
    fd = context.channel.fd
    # From here on a filter may forbid all but read(2), write(2) and execve(2).
    context.channel = channel.Line(fd, fd)
    kept = [fd, *context.line_fds]
    if context.signal_fd >= 0:
        kept.append(context.signal_fd)
    if context.plan["start"]:
        kept += [output for output in context.hook_outputs if output >= 0]
    if context.plan["trace"]:
        # Imported when the plan came; only looked up here.
        from ..linux import trace

        kept.append(trace.fd())
    for fd in sorted(kept):
        if fd > first:
            oneself.close_range(first, fd - 1)
        first = fd + 1
    oneself.close_range(first, oneself.LAST_FD)
    context.root_fd = context.host_proc = -1
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ, *spawn.RESERVED):
        # Ignored by the interpreter, by posix_spawn(3), or by the caller where the C library does
        # not let posix_spawn(3) reset them: that would survive execve.
        oneself.default_signal(number)


def pass_on(context: Context) -> None:
    """Let execve keep the descriptors that the caller passes on; hooks have run without them."""
    for fd in range(3, 3 + context.plan["fds"]):
        if fd not in context.plan["holes"]:
            files.set_inheritable(fd, True)


def no_process(context: Context) -> None:
    """Fail: config.json has no process, so there is nothing that start could run."""
    raise Error("process property must not be empty")


class Command:
    """A prepared execve: the files to try and the arrays for the kernel."""

    __slots__ = ("argv", "candidates", "envp", "kept", "name")

    def __init__(self, args: Sequence[str], env: Sequence[str]) -> None:
        """Look the name up in the PATH of `env`, as execvp(3) would; nothing is opened yet."""
        self.name = args[0]
        self.candidates = [files.encode(path) for path in _candidates(args[0], env)]
        self.argv, kept = oneself.strings(args)
        self.envp, kept_env = oneself.strings(env)
        self.kept = kept + kept_env


def _candidates(name: str, env: Sequence[str]) -> list[str]:
    if "/" in name or not name:
        return [name] if name else []
    path = ""
    for entry in env:
        if entry.startswith("PATH="):
            path = entry[5:]
    return [f"{directory or '.'}/{name}" for directory in path.split(":")] if path else []


def environment(wanted: Sequence[str], added: Sequence[str]) -> list[str]:
    """Return the program's environment: what the plan has and what was found out since."""
    return [*wanted, *added]


def prepare(context: Context, check: bool) -> None:
    """Prepare execve while the container is made; with `check`, fail now if it cannot work.

    Podman and Docker map the text of create's error to their exit statuses 126 and 127.  What
    only execve itself finds out is reported by start.
    """
    wanted = context.plan["process"]
    if wanted is None:
        return  # there is no such step then
    context.command = Command(wanted["args"], environment(wanted["env"], context.env))
    if check:
        _look_up(context, context.command, wanted["cwd"])


def _look_up(context: Context, command: Command, cwd: str) -> None:
    failure = ENOENT
    for path in command.candidates:
        text = files.decode(path)
        try:
            fd = inroot.open(context.root_fd, text if text.startswith("/") else f"{cwd}/{text}")
        except OSError as error:
            if error.errno in (ENOENT, ENOTDIR):
                if "/" in command.name:
                    if context.plan["late"]:
                        return  # it may lead through /proc/self, where we are not: execve will say
                    failure = error.errno
                continue
            if error.errno == ELOOP and _is_loop(text if text[:1] == "/" else f"{cwd}/{text}"):
                failure = ELOOP
                continue
            return  # a magic link, or one that root may not follow: execve will say
        found = files.fstat(fd)
        kind = files.kind(found)
        barred = kind == files.S_IFREG and files.fstatvfs(fd).f_flag & _ST_NOEXEC
        files.close(fd)
        if kind == files.S_IFREG and found.st_mode & 0o111 and not barred:
            _refuse_relative(command, path)
            return
        failure = EISDIR if kind == files.S_IFDIR else EACCES
    name = command.name
    if failure == ENOENT and "/" not in name:
        raise Error(CONTRACT["not in PATH"].format(name=name))
    raise Error(CONTRACT["exec"].format(name=name, reason=_exec_reason(name, failure)))


def _is_loop(path: str) -> bool:
    """Tell a loop of symbolic links from a magic link, which may be followed: the root is ours."""
    try:
        files.stat(path)
    except OSError as error:
        return error.errno == ELOOP
    return False


def _refuse_relative(command: Command, path: bytes) -> None:
    """Refuse what a relative part of PATH led to, in the words of Go's exec package."""
    if "/" not in command.name and path[:1] != b"/":
        raise Error(
            CONTRACT["exec"].format(
                name=command.name,
                reason="cannot run executable found relative to current directory",
            )
        )


def _interpreter(path: bytes, left: int = 5) -> str:
    """Say which interpreter or loader a program names that the kernel did not find.

    An interpreter may name one itself: `left` so many times, as with the kernel.
    """
    try:
        fd = files.open(path, files.O_RDONLY | files.O_NONBLOCK | files.O_NOCTTY)
        try:
            head = files.read(fd, 4096)
        finally:
            files.close(fd)
    except OSError:
        return "the interpreter that it names is missing"
    if head[:2] == b"#!":
        name = head[2:].split(b"\n")[0].strip(b" \t").split(b" ")[0].split(b"\t")[0]
        if name.endswith(b"\r"):  # the kernel takes it for a part of the name
            return f"its first line, for {files.decode(name[:-1])}, ends with a carriage return"
        if left and files.exists(name):
            return f"its interpreter {files.decode(name)}: {_interpreter(name, left - 1)}"
        return f"its interpreter {files.decode(name)} is missing"
    end = head.find(b"/ld")
    if end >= 0:
        name = head[head.rfind(b"\0", 0, end) + 1 : head.find(b"\0", end)]
        return f"its loader {files.decode(name)} is missing"
    return "the interpreter that it names is missing"


def execute(command: Command) -> NoReturn:
    """execve(2) the first candidate that can be; raise Error in the words that engines know."""
    failure = 0
    for path in command.candidates:
        if files.exists(path):
            _refuse_relative(command, path)
        try:
            oneself.execve(path, command.argv, command.envp)
        except OSError as error:
            code = error.errno or 0
        if code == EACCES and _is_directory(path):
            code = EISDIR
        if code == ENOENT and files.exists(path):
            # It is there: what is missing is its interpreter.
            raise Error(f"exec {files.decode(path)}: {strerror(code)} ({_interpreter(path)})")
        if len(command.candidates) == 1 and "/" in command.name:
            raise Error(CONTRACT["exec"].format(name=command.name, reason=_exec_reason(
                command.name, code)))  # fmt: skip
        if code not in (ENOENT, ENOTDIR, EACCES, EISDIR):
            raise Error(CONTRACT["exec"].format(name=command.name, reason=strerror(code)))
        if code == EACCES:
            failure = code
    if failure:
        raise Error(CONTRACT["exec"].format(name=command.name, reason=strerror(failure)))
    raise Error(CONTRACT["not in PATH"].format(name=command.name))


def _exec_reason(name: str, code: int) -> str:
    if code in (ENOENT, ENOTDIR, ELOOP):
        return f"stat {name}: {strerror(code)}"
    if code == EISDIR:
        # The docker CLI answers 126 for the second part, newer ones for the first as well.
        return f"{strerror(EISDIR)}: {strerror(EACCES)}"
    return strerror(code)


def _is_directory(path: bytes) -> bool:
    try:
        return files.kind(files.stat(path)) == files.S_IFDIR
    except OSError:
        return False
