"""Errors, warnings and debug lines: on stderr for people, in --log FILE for engines.

And the results of commands, on stdout.

Side: host.  Init has no log: its warnings and errors go up the channel.

The containerd shim reads the file as a stream of JSON objects with level, msg and an RFC 3339
time, and shows the last error; Podman parses the whole text as one object, and takes standard
error where that fails.  So exactly one line is written for a failure; beside it there are only
the warnings that the specification asks for, unless the caller wants more.
"""

from __future__ import annotations

import posix

from .. import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

ERROR: Final = 0
WARNING: Final = 1
INFO: Final = 2
DEBUG: Final = 3
NAMES: Final = ("error", "warning", "info", "debug")

_fd = -1
_json = False
_level = WARNING


def open(path: str, log_format: str, level: int) -> None:  # noqa: A001
    """Take the settings and open the file, if there is one and it is not open yet."""
    global _fd, _json, _level
    _json = log_format == "json"
    _level = level
    if path and _fd < 0:
        # A pipe that nobody reads is an error and no reason to wait; a terminal stays the caller's.
        flags = posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC
        flags |= posix.O_NONBLOCK | posix.O_NOCTTY
        try:
            _fd = posix.open(path.encode("utf-8", "surrogateescape"), flags, 0o644)
        except OSError as failure:
            raise OSError(failure.errno, "open", f"--log: {path}") from None


def shows(level: int) -> bool:
    """Tell whether notes of this level are shown, ERROR to DEBUG."""
    return level <= _level


def result(text: str) -> None:
    """Write the command's result to stdout, whole or with an error."""
    data = text.encode("utf-8", "surrogateescape")
    while data:
        try:
            data = data[posix.write(1, data) :]
        except OSError as failure:
            raise errors.Error(f"writing to stdout: {errors.reason(failure)}") from None


def table(lines: list[str]) -> None:
    """Write lines for people to stdout; what does not print in them is escaped."""
    result("".join(f"{errors.shown(line)}\n" for line in lines))


def error(text: str, hint: str = "") -> None:
    """Report the failure of the command: once in the file, once for people on stderr."""
    whole = f"{text} ({hint})" if hint else text
    if _fd >= 0:
        _write(_fd, _failure(text, hint, whole))
    elif _json:
        _write(2, _failure(text, hint, whole))
        return
    _write(2, _plain("anocir: ", text) + (_plain("anocir: ", hint) if hint else b""))


def warn(text: str) -> None:
    """Note something that does not stop the command."""
    _note(WARNING, text)


def info(text: str) -> None:
    """Note what was done; shown with --debug."""
    _note(INFO, text)


def debug(text: str) -> None:
    """Note a detail; shown with --debug."""
    _note(DEBUG, text)


def _note(level: int, text: str) -> None:
    if not shows(level):
        return
    if _fd >= 0 or _json or level == DEBUG:
        _write(_fd if _fd >= 0 else 2, _line(level, text))
    else:
        _write(2, _plain(f"anocir: {NAMES[level]}: ", text))


def _line(level: int, text: str) -> bytes:
    """Return one line as runc writes it: JSON with sorted keys, or logrus's text."""
    import time

    from . import jsonio

    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    quoted = jsonio.dumps(errors.shown(text))
    if _json:
        return f'{{"level":"{NAMES[level]}","msg":{quoted},"time":"{now}"}}\n'.encode()
    return f'time="{now}" level={NAMES[level]} msg={quoted}\n'.encode()


def _failure(text: str, hint: str, whole: str) -> bytes:
    """Return the line of an error; in JSON with a code and what else programs may want."""
    line = _line(ERROR, whole)
    if not _json:
        return line
    from . import codes, jsonio

    more = jsonio.dumps(codes.of(text, hint))
    return line.rstrip()[:-1] + b"," + more[1:].encode() + b"\n"


def _plain(ours: str, text: str) -> bytes:
    """Return one line for people, in which only what prints is left as it is."""
    return f"{ours}{errors.shown(text)}\n".encode()


def _write(fd: int, data: bytes) -> None:
    """Write one line at once, so that lines of several processes do not mix.

    A log that cannot be written (a full disk, a reader that left) must not hide the exit status.
    """
    try:
        posix.write(fd, data)
    except OSError:
        pass
