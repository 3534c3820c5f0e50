"""Run another process in a container.

Side: host.
"""

from __future__ import annotations

from .. import cli, errors
from ..host import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..host.launch import Init

HELP = "run another process in a container"
USAGE = "[OPTIONS] ID [COMMAND [ARGUMENTS]]"
OPTIONS: Table = (
    ("process", "p", "text", "", "FILE", "process object as JSON, in place of COMMAND"),
    ("detach", "d", "flag", False, "", "do not wait for the end"),
    ("tty", "t", "flag", False, "", "give the process a terminal"),
    ("console-socket", "", "text", "", "PATH",
     "AF_UNIX socket that is sent the master of the process's terminal"),
    ("pidfd-socket", "", "text", "", "PATH", "AF_UNIX socket that is sent the process's pidfd"),
    ("pid-file", "", "text", "", "FILE", "write the process id to FILE"),
    ("cwd", "", "text", "", "DIR", "working directory in the container"),
    ("env", "e", "list", (), "NAME=VALUE", "add to the container's environment; repeatable"),
    ("user", "u", "text", "", "UID[:GID]", "user and group, as numbers"),
    ("additional-gids", "g", "list", (), "GID", "supplementary group; repeatable"),
    ("process-label", "", "text", "", "LABEL", "SELinux label"),
    ("apparmor", "", "text", "", "PROFILE", "AppArmor profile"),
    ("no-new-privs", "", "flag", False, "", "set no_new_privs"),
    ("cap", "c", "list", (), "CAP", "add a capability; repeatable"),
    ("preserve-fds", "", "number", 0, "N", "pass N descriptors, from 3 on, to the process"),
    ("cgroup", "", "list", (), "[CONTROLLER:]PATH",
     "run in this cgroup below the container's; repeatable on cgroup v1"),
    ("tools", "", "text", "", "DIR",
     "show DIR read-only at /.anocir/tools, to this process alone; \"busybox\" is the host's"),
    ("ignore-paused", "", "flag", False, "", "allow exec in a paused container"),
)  # fmt: skip
ARGS = (1, cli.NO_LIMIT)
IN_ORDER = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Answer with the exit status of the process, 128 + N for signal N."""
    if len(args) < 2 and options["tools"] and not options["process"]:
        from ..host import tools

        args = [*args, *tools.shell(options["tools"])]
    if len(args) < 2 and not options["process"]:
        raise errors.Error(
            '"exec" requires a minimum of 2 argument(s)',
            f"usage: anocir exec {USAGE}, or --process FILE",
        )

    def operation(init: Init) -> int:
        from ..host import exec

        return exec.exec_(settings, args[0], options, args[1:], init)

    return launch.ahead(settings, options, operation)
