"""The door: from the command line to one command, and the one place that prints an error.

Side: host.  The first line of the archive imports this module straight from the zip and calls
`main`; `python3 dist/anocir` and `python3 -m anocir` end here too.  It imports only what every
command needs, because each import is paid at each call.
"""

from __future__ import annotations

import sys

import posix

try:
    from . import cli, errors, log
except Exception as error:  # no memory, no descriptor, a damaged file: there is no log yet
    posix.write(2, f"anocir: cannot load itself: {error}\n".encode("utf-8", "replace"))
    posix._exit(1)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main() -> NoReturn:
    """Run one command and leave the process with its exit status."""
    _fill_standard_descriptors()
    import gc

    # A command lives for milliseconds: it ends before a collection would pay.
    gc.disable()
    settings = cli.Settings()
    status = 1
    try:
        status = _run(settings)
    except errors.Error as error:
        status = _report(settings, error.text, error.hint, error.status)
    except OSError as error:
        status = _report(settings, errors.reason(error), "", 1)
    except KeyboardInterrupt:
        status = _report(settings, "interrupted", "", 130)
    except BaseException as error:
        status = _report_bug(settings, error)
    finally:
        # No finalisation: it costs a millisecond and may print about closed descriptors.
        posix._exit(status)


def _run(settings: cli.Settings) -> int:
    settings.import_path = _import_path()
    name, run, options, args = cli.parse(_arguments(), settings)
    # Before the log takes a descriptor that the caller meant to pass on.
    cli.check_preserved(name, options)
    log.open(settings.log, settings.log_format, settings.level())
    cli.settle(settings)
    if settings.trace:
        from .linux import trace

        trace.open(settings.trace)
    return run(settings, options, args)


def _fill_standard_descriptors() -> None:
    """Put /dev/null where 0, 1 or 2 is closed, before anything else could land there."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
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
        package.__path__ = [path]
        sys.path[0] = path.rpartition("/")[0]
    return path.rpartition("/")[0]


def _report(settings: cli.Settings, text: str, hint: str, status: int) -> int:
    """Say in one place what failed; `exec` answers 255, so that no status is mistaken for it."""
    try:
        # An error of the command line comes before the log is open.
        log.open(settings.log, settings.log_format, settings.level())
    except OSError as error:
        if errors.reason(error) != text:
            text = f"{text} ({errors.reason(error)})"
    log.error(text, hint)
    return 255 if settings.command == "exec" else status


def _report_bug(settings: cli.Settings, error: BaseException) -> int:
    """Report an unexpected exception in one line; the traceback is for the debug log."""
    place = ""
    step = error.__traceback__
    while step is not None:
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    text = f"bug in anocir: {type(error).__name__}: {error} ({place})".replace("\n", " ")
    status = _report(settings, text, "please report it with the output of --debug", 1)
    if settings.level() >= log.DEBUG:
        import traceback

        for line in "".join(traceback.format_exception(None, error, error.__traceback__)).split(
            "\n"
        ):
            log.debug(line)
    return status


if __name__ == "__main__":
    main()
