"""All mistakes of a configuration, each with its JSON path.

Side: host.  Cold.  No privilege is needed and nothing is made.
"""

from __future__ import annotations

from .. import errors
from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "tell every mistake of a configuration; makes nothing"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("bundle", "b", "text", "", "DIR",
     "directory with config.json and the root file system; default: the working directory"),
    ("config", "", "text", "", "FILE", "a config.json alone; - reads standard input"),
    ("process", "p", "text", "", "FILE", "a process object, as exec --process takes it"),
    ("resources", "r", "text", "", "FILE", "a resources object, as update --resources takes it"),
    ("format", "f", "choice", "text", "text|json", "output format"),
)  # fmt: skip
ARGS = (0, 0)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the mistakes and the warnings; 1 if there is a mistake."""
    del settings, args
    given = [key for key in ("bundle", "config", "process", "resources") if options[key]]
    if len(given) > 1:
        raise errors.Error(f"validate: --{given[0]} and --{given[1]}: only one can be given")
    from ..host import validation

    what = given[0] if given and given[0] != "bundle" else "config"
    bundle = "" if given and given[0] != "bundle" else options["bundle"] or "."
    path = options[what] or f"{bundle}/config.json"  # type: ignore[literal-required]
    value, unreadable = validation.load(path)
    if unreadable and bundle:
        # The directory may be what is missing, and then its name is what helps.
        path = f"{_absolute(bundle)}/config.json"
        value, unreadable = validation.load(path)
    found: list[tuple[str, str]] = [("", unreadable)]
    warnings: list[tuple[str, str]] = []
    if not unreadable:
        found, warnings = validation.examine(what, value, bundle and _absolute(bundle))
    if options["format"] == "json":
        _print_json(path, found, warnings)
    else:
        _print_text(path, found, warnings)
    return 1 if found else 0


def _absolute(bundle: str) -> str:
    from ..host import facts

    return facts.absolute(bundle)


def _print_text(path: str, found: list[tuple[str, str]], warnings: list[tuple[str, str]]) -> None:
    lines = [f"{where}: {text}" if where else text for where, text in found]
    lines += [f"warning: {where}: {text}" if where else text for where, text in warnings]
    summary = f"{path}: {_count(found, 'mistake')}" if found else f"{path}: valid"
    if warnings:
        summary += f", {_count(warnings, 'warning')}"
    log.table([*lines, summary])


def _count(items: list[tuple[str, str]], noun: str) -> str:
    return f"{len(items)} {noun}" + ("" if len(items) == 1 else "s")


def _print_json(path: str, found: list[tuple[str, str]], warnings: list[tuple[str, str]]) -> None:
    from ..base import jsonio

    document = {
        "file": path,
        "valid": not found,
        "errors": [{"path": where, "message": text} for where, text in found],
        "warnings": [{"path": where, "message": text} for where, text in warnings],
    }
    log.result(jsonio.dumps(document, indent=4) + "\n")
