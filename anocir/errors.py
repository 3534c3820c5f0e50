"""What went wrong, as one line a person can act on.

Side: host and init.  Imports nothing but builtins.

An expected failure is an `Error`: what was tried, on what object, and why, in lower case
without a full stop.  A mistake in config.json begins with its JSON path.  An `OSError` rises
untouched to the door (`anocir.door`), which turns it into text with `reason`.
"""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypedDict, TypeVar

    class Scene(TypedDict, total=False):
        """What a search for the cause of a failure starts from (host/causes.py).

        `config` and `process` are of config.json, `cgroup` is the record of where the cgroups are,
        `pids` are processes of ours, `step` is the one of init that failed, `root` is where init
        was, and `searched` is set once a search has begun.
        """

        config: Any
        process: Any
        cgroup: Any
        rootfs: str
        bundle: str
        root: str
        step: str
        pids: tuple[int, ...]
        searched: bool

    _T = TypeVar("_T")

# Texts that other programs match, so they must stay as they are.  Who matches them:
# the containerd shim (runc v2, `getLastRuntimeError` and its error mapping), dockerd and the
# docker CLI (exit codes 125, 126, 127), libpod (`oci_util.go`), CRI-O and kubelet.
CONTRACT: Final = {
    # containerd: "no such container"; podman: ErrNoSuchCtr; delete treats it as success
    "missing": "container does not exist",
    # containerd and CRI-O: not found, which ends their retry loops after a kill
    "not running": "container not running",
    # containerd: the container is there already
    "exists": "container with given ID already exists",
    # CRI-O and libpod, when start comes twice or too late
    "already running": "cannot start an already running container",
    "already stopped": "cannot start a container that has stopped",
    "start paused": "cannot start a container in the paused state",
    # docker CLI, shim and people: delete without --force
    "not stopped": "cannot delete container {id} that is not stopped: {status}",
    "not paused": "container not paused",
    "exec stopped": "cannot exec in a stopped container",
    "exec paused": "cannot exec in a paused container (use --ignore-paused to override)",
    # dockerd: 127
    "not in PATH": 'exec: "{name}": executable file not found in $PATH',
    # dockerd: 127 for ENOENT, 126 for EACCES and EISDIR; the reason follows
    "exec": 'exec: "{name}": {reason}',
    # dockerd: 127 and a hint that a directory was mounted onto a file (or the reverse)
    "mount": 'error mounting "{source}" to rootfs at "{destination}": {reason}',
    # runc's words for a working directory that cannot be entered
    "cwd": 'chdir to cwd ("{path}") set in config.json failed: {reason}',
    "exec failed": "exec failed: ",
}


# What is being done now, for errors and the trace: phase, step, JSON path.
scope = ["", "", ""]
scene: Scene = {}


class Error(Exception):
    """An expected failure: `text` in one line, an optional `hint`, the exit status to use.

    `kind` is for code that does something about it, which never reads the text: "missing" where
    there is no such container, of a failure that init has sent the step that it was at, else "".
    """

    def __init__(self, text: str, hint: str = "", status: int = 1, kind: str = "") -> None:
        """Take one line of text, what could be done about it, the exit status, and the kind."""
        super().__init__(text)
        self.kind = kind
        self.text = text
        self.hint = hint
        self.status = status


def received(payload: bytes) -> tuple[str, str, int, str]:
    """Return what makes an Error of a failure that init has sent; note at which step it was."""
    text, _, rest = payload.decode("utf-8", "surrogateescape").partition("\0")
    hint, _, step = rest.partition("\0")
    scene["step"] = step
    return text, hint, 1, step


def at(path: str, text: str, hint: str = "") -> Error:
    """Return the error for a mistake at the JSON path `path` of config.json."""
    return Error(f"{path}: {text}" if path else text, hint)


def keyed(path: str, key: str) -> str:
    """Return the JSON path of what stands below `path` by a name of the user's: sysctl["net.x"]."""
    return f"{path}[{quoted(key)}]"


SHOWN: Final = 80
"""Letters of a value that an error shows."""


def quoted(text: str) -> str:
    """Return text as a JSON string for an error: one line, printable, bounded."""
    text = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    text = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text) + '"'


def cwd_error(path: str, number: int) -> Error:
    """Return the error for a working directory that cannot be made or entered, by its errno."""
    return Error(CONTRACT["cwd"].format(path=path, reason=strerror(number)))


# What musl words otherwise than glibc and Go: EIO, ENOMEM, EBUSY, EXDEV, EMFILE, ENAMETOOLONG,
# ELOOP, EOPNOTSUPP, ETIMEDOUT, EDQUOT.
WORDS = {
    5: "input/output error",
    12: "cannot allocate memory",
    16: "device or resource busy",
    18: "invalid cross-device link",
    24: "too many open files",
    36: "file name too long",
    40: "too many levels of symbolic links",
    95: "operation not supported",
    110: "connection timed out",
    122: "disk quota exceeded",
}


def strerror(number: int) -> str:
    """Return the text of an errno in lower case, as Go prints it.

    dockerd maps the text case-sensitively to its exit codes 126 and 127.
    """
    return WORDS.get(number) or posix.strerror(number).lower()


# What may have a cause that is worth a search: EPERM, EAGAIN, EACCES, EBUSY, EINVAL, ENOSPC, EROFS,
# ERANGE, ENOSYS, EOPNOTSUPP (errno(3), those of all architectures that we run on).
WITH_CAUSES: Final = (1, 11, 13, 16, 22, 28, 30, 34, 38, 95)


def has_cause(text: str, number: int) -> bool:
    """Tell whether a failure may have a cause that its text does not tell."""
    if number:
        return number in WITH_CAUSES
    return any(text.endswith(strerror(one)) for one in WITH_CAUSES)


def shown(text: str) -> str:
    """Return text as it may reach a terminal: what does not print is written by its number.

    Names, hooks and files of the image get into messages, and ESC, DEL, U+009B (which some
    terminals take for ESC [) or a change of the writing direction would act there.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    if char in "\n\r\t":
        return {"\n": "\\n", "\r": "\\r", "\t": "\\t"}[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that was not UTF-8
        code -= 0xDC00
    if code < 0x100:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def concealed(options: str) -> str:
    """Return options of a mount, joined by commas or one, as a message may show them.

    What follows a secret up to the next name belongs to it: it may have had commas of its own.
    """
    # Parts of names whose values open something: cifs, ceph, ubifs and their like.
    secret = ("pass", "pwd", "secret", "cred", "key", "token", "auth")
    words: list[str] = []
    hiding = False
    for word in options.split(","):
        name, equals, _ = word.partition("=")
        if equals:
            hiding = any(part in name.lower() for part in secret)
            words.append(f"{name}=..." if hiding else word)
        elif not hiding:
            words.append(word)
    return ",".join(words)


def reason(error: BaseException) -> str:
    """Return one line for an exception: `object: no such file or directory` for an OSError."""
    if isinstance(error, Error):
        return error.text
    if isinstance(error, OSError) and error.errno is not None:
        text = strerror(error.errno)
        name = error.filename
        if isinstance(name, bytes):
            name = name.decode("utf-8", "backslashreplace")
        return f"{name}: {text}" if name not in (None, "") else text
    return f"{type(error).__name__}: {error}"


def named(call: str, function: Callable[..., _T], *values: Any) -> _T:
    """Call a function of Python's that makes a system call; its OSError names the call."""
    try:
        return function(*values)
    except OSError as error:
        raise OSError(error.errno, call, f"{call}(2)") from None
