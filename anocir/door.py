"""The door: from the command line to one command, and the one place that prints an error.

Side: host.
"""

from __future__ import annotations

import sys

import posix

from . import cli, errors
from .base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def main(words: list[str], import_path: str) -> NoReturn:
    """Run one command and leave the process with its exit status."""
    settings = cli.defaults()
    settings.import_path = import_path
    status = 1
    try:
        status = _run(settings, words)
    except errors.Error as error:
        hint = _cause(settings, error.text, error.hint, 0)
        status = _report(settings, error.text, hint, error.status)
    except OSError as error:
        text = _named(error, settings.command)
        status = _report(settings, text, _cause(settings, text, "", error.errno or 0), 1)
    except ImportError as error:
        from .base import lacks

        status = _report(settings, lacks.complaint(error), "", 1)
    except MemoryError:
        status = _report_shortage(settings)
    except KeyboardInterrupt:
        status = _report(settings, "interrupted", "", 130)
    except BaseException as error:
        status = _report_bug(settings, error)
    finally:
        boot = sys.modules.get("anocir.host.boot")
        if boot is not None:
            boot.drop_early()
        if settings.trace:
            _end_trace()
        # No finalisation: it costs a millisecond and may print about closed descriptors.
        posix._exit(status)


def _end_trace() -> None:
    """Let the trace say where the time went; a trace that cannot be written hides no status."""
    trace = sys.modules.get("anocir.linux.trace")
    if trace is not None and trace.fd() >= 0:
        try:
            trace.summary()
        except errors.Error:
            return


def _run(settings: cli.Settings, words: list[str]) -> int:
    name, run, options, args = cli.parse(words, settings)
    # Before the log takes a descriptor that the caller meant to pass on.
    cli.check_preserved(name, options)
    log.open(settings.log, settings.log_format, _level(settings))
    cli.settle(settings)
    if settings.trace:
        from .linux import trace

        trace.open(settings.trace, settings.trace_format)
    return run(settings, options, args)


def _level(settings: cli.Settings) -> int:
    """Return the level of the log, as a number of `log`."""
    if settings.log_level:
        return log.NAMES.index(settings.log_level)
    return log.DEBUG if settings.debug else log.WARNING


def _named(error: OSError, command: str) -> str:
    """Say what failed, with the name of the call if there is no other."""
    try:
        from .base import nameless

        return nameless.text(error, command)
    except (ImportError, MemoryError, OSError):
        return errors.reason(error)  # no memory, no descriptor


def _cause(settings: cli.Settings, text: str, hint: str, number: int) -> str:
    """Look for the cause of a failed operation; what is wrong with the command line says itself."""
    if not settings.understood or errors.scene.get("searched"):
        return hint
    if not errors.has_cause(text, number):
        return hint
    try:
        from .host import causes

        return causes.explain(text, hint, settings.root, number)
    except (ImportError, MemoryError, OSError):
        return hint  # no memory, no descriptor: the failure itself is to be told


def _report(settings: cli.Settings, text: str, hint: str, status: int) -> int:
    """Say in one place what failed; an `exec` that was tried answers 255, like no command."""
    try:
        # An error of the command line comes before the log is open.
        log.open(settings.log, settings.log_format, _level(settings))
    except OSError as error:
        if errors.reason(error) != text:
            text = f"{text} ({errors.reason(error)})"
    log.error(text, hint)
    return 255 if settings.command == "exec" and settings.understood else status


def _report_shortage(settings: cli.Settings) -> int:
    """Report that memory is short, with little of it."""
    try:
        return _report(settings, "not enough memory", "", 1)
    except MemoryError:
        posix.write(2, b"anocir: not enough memory\n")
        return 255 if settings.command == "exec" else 1


def _report_bug(settings: cli.Settings, error: BaseException) -> int:
    """Report an unexpected exception in one line; the traceback is for the debug log."""
    place = ""
    step = error.__traceback__
    while step is not None:
        place = f"{step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    text = f"bug in anocir: {type(error).__name__}: {error} ({place})".replace("\n", " ")
    status = _report(settings, text, "please report it with the output of --debug", 1)
    if log.shows(log.DEBUG):
        import traceback

        for line in "".join(traceback.format_exception(None, error, error.__traceback__)).split(
            "\n"
        ):
            log.debug(line)
    return status
