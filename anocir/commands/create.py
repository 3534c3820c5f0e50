"""The create operation: make the container, up to the point where its program would start.

Side: host.
"""

from __future__ import annotations

from ..host import launch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..host.launch import Init

HELP = "create a container; start runs its program"
USAGE = "[OPTIONS] ID"
# Those of run as well.
SHARED: Table = (
    ("bundle", "b", "text", "", "DIR",
     "directory with config.json; default: the working directory"),
    ("console-socket", "", "text", "", "PATH",
     "AF_UNIX socket that is sent the master of the container's terminal"),
    ("pidfd-socket", "", "text", "", "PATH", "AF_UNIX socket that is sent the pidfd of init"),
    ("pid-file", "", "text", "", "FILE", "write the process id of init to FILE"),
    ("no-pivot", "", "flag", False, "",
     "change the root with MS_MOVE and chroot, for a rootfs on the initramfs"),
    ("no-new-keyring", "", "flag", False, "", "stay in the caller's session keyring"),
    ("preserve-fds", "", "number", 0, "N", "pass N descriptors, from 3 on, to the container"),
    ("record-seccomp", "", "text", "", "FILE",
     "write the system calls of the container to FILE, as a profile for linux.seccomp"),
    ("record-base", "", "text", "", "PROFILE",
     "record what is used of PROFILE, in place of config.json's linux.seccomp"),
)  # fmt: skip
OPTIONS: Table = (
    *SHARED,
    ("dry-run", "", "flag", False, "", "do all up to the first side effect, and make nothing"),
)
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Create the container and leave it waiting for start."""
    if options["dry_run"]:
        from ..host import rehearse

        rehearse.create(settings, args[0], options)
        return 0

    def operation(init: Init) -> int:
        from ..host import create

        create.create(settings, args[0], options, init)
        return 0

    return launch.ahead(settings, options, operation)
