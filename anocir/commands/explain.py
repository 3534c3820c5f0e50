"""The plan of a container, or of an exec, as people read it.

Side: host.  Cold.  Nothing is made; no privilege is needed.
"""

from __future__ import annotations

from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "tell what create, or exec, would do: steps, what asked for them, calls, rights"
USAGE = "[OPTIONS]"
OPTIONS: Table = (
    ("bundle", "b", "text", "", "DIR",
     "directory with config.json; default: the working directory"),
    ("process", "p", "text", "", "FILE",
     "explain the exec of this process object in a container of the bundle"),
    ("no-pivot", "", "flag", False, "", "as create has it"),
    ("no-new-keyring", "", "flag", False, "", "as create has it"),
    ("format", "f", "choice", "text", "text|json", "output format"),
)  # fmt: skip
ARGS = (0, 0)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the plan."""
    del args
    from ..host import explain
    from ..model import explain as words

    plan, host = explain.of_bundle(settings, options)
    if options["format"] == "json":
        from ..base import jsonio

        document = {"host": host, "steps": words.rows(plan)}
        log.result(jsonio.dumps(document, indent=4) + "\n")
    else:
        log.result(words.text(plan, host))
    return 0
