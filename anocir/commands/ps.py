"""The processes of a container.

Side: host.
"""

from __future__ import annotations

from .. import cli, errors
from ..base import jsonio, log
from ..host import ps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "list the processes of a container"
USAGE = "[OPTIONS] ID [OPTIONS OF PS]"
OPTIONS: Table = (("format", "f", "choice", "table", "table|json", "output format"),)
ARGS = (1, cli.NO_LIMIT)
IN_ORDER = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the host's process ids as JSON, or the matching lines of the host's ps."""
    pids = ps.ps(settings, args[0])
    if options["format"] == "json":
        # The form that the containerd shim reads; a stopped container has none.
        log.result((jsonio.dumps(pids) if pids else "null") + "\n")
    else:
        log.table(_table({str(pid) for pid in pids}, args[1:] or ["-ef"]))
    return 0


def _table(pids: set[str], arguments: list[str]) -> list[str]:
    import subprocess

    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C.UTF-8"}
    result = subprocess.run(
        ["ps", *arguments], capture_output=True, check=False, env=environment, errors="replace"
    )
    if result.returncode:
        reason = " ".join(result.stderr.split()) or f"exit status {result.returncode}"
        raise errors.Error(f"ps {' '.join(arguments)}: {reason}")
    lines = result.stdout.rstrip("\n").split("\n")
    titles = lines[0].split()
    if "PID" not in titles:
        raise errors.Error(f"ps {' '.join(arguments)}: its output has no column PID")
    column = titles.index("PID")
    shown = [
        line
        for line in lines[1:]
        if line.split()[column : column + 1][0:1] and line.split()[column] in pids
    ]
    return [lines[0], *shown]
