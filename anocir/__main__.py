"""The first module: what must be done before anything else is imported, then the door.

Side: host.  The first line of the archive imports this module and calls `main`; `python3
dist/anocir` and `python3 -m anocir` end here too.  It imports only what every command needs,
because each import is paid at each call.
"""

from __future__ import annotations

import gc
import sys

import posix

from . import import_

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final, NoReturn

# Commands with a second interpreter, and the global options that take a value (cli.GLOBALS).
_WITH_INIT: Final = ("create", "exec", "run")
_VALUED: Final = (
    "cgroup-manager", "criu", "log", "log-format", "log-level", "root", "rootless",
    "start-exec-errors", "trace", "trace-format",
)  # fmt: skip
# What changes how init is started, or that it is: then it is started once all words are read.
_LATER: Final = ("preserve-fds", "trace", "help")


def main() -> NoReturn:
    """Run one command and leave the process with its exit status."""
    try:
        _fill_standard_descriptors()
    except OSError as error:  # closed, and no /dev/null either
        _leave(error, 1)
    # A command lives for milliseconds: it ends before a collection would pay.
    gc.disable()
    words = _arguments()
    import_path = _import_path()
    try:
        if not set(words).isdisjoint(_WITH_INIT) and _needs_init(words):
            import_("anocir.host.boot").early(import_path)
        through: Callable[[list[str], str], NoReturn] = import_("anocir.door").main
    except Exception as error:  # no memory, no descriptor, a damaged file: there is no log yet
        _leave(error, 255 if "exec" in words else 1)
    through(words, import_path)


def _leave(error: Exception, status: int) -> NoReturn:
    """Say in one line why it cannot even start."""
    if isinstance(error, MemoryError):
        posix.write(2, b"anocir: not enough memory\n")
        posix._exit(status)
    text = f"cannot load itself: {error}"
    if isinstance(error, OSError) and error.strerror:
        name = f"{error.filename}: " if error.filename else ""
        text = f"cannot load itself: {name}{error.strerror.lower()}"
    elif isinstance(error, ImportError):
        from .base import lacks

        text = lacks.complaint(error)
    posix.write(2, f"anocir: {text}\n".encode("utf-8", "replace"))
    posix._exit(status)


def _needs_init(words: list[str]) -> bool:
    """Tell, without the parser, whether the command starts a second interpreter.

    A wrong answer costs nothing but time: the parser decides.
    """
    if b"LISTEN_FDS" in posix.environ:
        return False
    command = ""
    skip = False
    for word in words:
        name, equals, _ = word.lstrip("-").partition("=")
        if word[:1] == "-" and name in _LATER:
            return False
        if skip:
            skip = False
        elif not command and word[:1] == "-":
            skip = not equals and name in _VALUED
        elif not command:
            command = word
    return command in _WITH_INIT


def _fill_standard_descriptors() -> None:
    """Put /dev/null where 0, 1 or 2 is closed, before anything else could land there."""
    for fd in (0, 1, 2):
        try:
            posix.get_inheritable(fd)  # what costs least of all that fails where it is closed
        except OSError:
            posix.set_inheritable(posix.open("/dev/null", posix.O_RDWR), True)


def _arguments() -> list[str]:
    """Return the arguments as UTF-8 text with surrogate escapes, whatever the locale is."""
    if sys.argv[0] == "-c":
        # From the archive's first line: the archive itself is argv[1].
        del sys.argv[0]
    words = sys.argv[1:]
    encoding = sys.getfilesystemencoding()
    if encoding == "utf-8":
        return words
    return [
        word.encode(encoding, "surrogateescape").decode("utf-8", "surrogateescape")
        for word in words
    ]


def _import_path() -> str:
    """Return the absolute path that makes `import anocir` work in a second interpreter.

    It is `<archive>/site-packages`, or the source directory.  A relative one is made absolute
    here, because a command may change the working directory before its last import.
    """
    package = sys.modules[__package__ or "anocir"]
    path: str = package.__path__[0]
    if path[:1] != "/":
        path = f"{posix.getcwd()}/{path}"
        relative = package.__path__[0].rpartition("/")[0]
        package.__path__ = [path]
        sys.path = [path.rpartition("/")[0] if entry == relative else entry for entry in sys.path]
    return path.rpartition("/")[0]


if __name__ == "__main__":
    main()
