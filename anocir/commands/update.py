"""Change the limits of a container.

Side: host.
"""

from __future__ import annotations

from ..host import update

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "change the resource limits of a container"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    ("resources", "r", "text", "", "FILE",
     "linux.resources as JSON, - for stdin; replaces the other options"),
    ("device-add", "", "list", (), "PATH[:PATH][:rwm]",
     "make a device of the host, at the same or another path inside, and allow it"),
    ("device-remove", "", "list", (), "PATH", "remove the device at a path inside, and its rule"),
    ("blkio-weight", "", "number", None, "N", "weight for block devices, 10 to 1000"),
    ("cpu-period", "", "int", None, "USEC", "period of the CPU quota"),
    ("cpu-quota", "", "int", None, "USEC", "CPU time in each period, -1 for no limit"),
    ("cpu-burst", "", "int", None, "USEC", "CPU time that may be saved up"),
    ("cpu-share", "", "int", None, "N", "share of CPU time, relative to others"),
    ("cpu-rt-period", "", "int", None, "USEC", "period of the real-time quota"),
    ("cpu-rt-runtime", "", "int", None, "USEC", "real-time CPU time in each period"),
    ("cpu-idle", "", "int", None, "0|1", "run only when nobody else wants the CPU"),
    ("cpuset-cpus", "", "text", None, "LIST", "CPUs to run on, such as 0-2,7"),
    ("cpuset-mems", "", "text", None, "LIST", "memory nodes to use"),
    ("memory", "", "size", None, "SIZE", "limit of memory, such as 64m; -1 for no limit"),
    ("memory-reservation", "", "size", None, "SIZE", "memory that is kept under pressure"),
    ("memory-swap", "", "size", None, "SIZE", "limit of memory and swap together"),
    ("pids-limit", "", "number", None, "N", "how many processes and threads; -1 for no limit"),
    ("l3-cache-schema", "", "text", None, "SCHEMA", "Intel RDT: schema of the L3 cache"),
    ("mem-bw-schema", "", "text", None, "SCHEMA", "Intel RDT: schema of memory bandwidth"),
    ("kernel-memory", "", "size", None, "SIZE", ""),
    ("kernel-memory-tcp", "", "size", None, "SIZE", ""),
)  # fmt: skip
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Change the limits that were given; the others stay."""
    update.update(settings, args[0], options)
    return 0
