"""The restore operation: bring a container back from the images of a checkpoint.

Side: host.  Cold.
"""

from __future__ import annotations

from .checkpoint import available

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "bring a container back from a checkpoint (with criu)"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    ("bundle", "b", "text", "", "DIR", "directory of config.json; default the current one"),
    ("image-path", "", "text", "", "DIR", "where CRIU's images are; default ./checkpoint"),
    ("work-path", "", "text", "", "DIR", "where CRIU works and logs; default: with the images"),
    ("console-socket", "", "text", "", "PATH", "socket that gets the terminal's master"),
    ("pid-file", "", "text", "", "FILE", "write the pid of the container's process here"),
    ("detach", "d", "flag", False, "", "do not wait for the end"),
    ("no-subreaper", "", "flag", False, "", "do not become the parent of orphaned processes"),
    ("no-pivot", "", "flag", False, "", "accepted for runc's sake: CRIU enters the root by itself"),
    ("tcp-established", "", "flag", False, "", "allow open TCP connections"),
    ("tcp-close", "", "flag", False, "", "close the TCP connections of the checkpoint"),
    ("ext-unix-sk", "", "flag", False, "", "allow Unix sockets that lead out of the container"),
    ("shell-job", "", "flag", False, "", "allow the terminal of a shell outside"),
    ("file-locks", "", "flag", False, "", "allow locks on files"),
    ("manage-cgroups-mode", "", "choice", "", "soft|full|strict|ignore",
     "what is restored of cgroups; default soft"),
    ("empty-ns", "", "list", (), "NAMESPACE", "namespace whose contents are left out: network"),
    ("auto-dedup", "", "flag", False, "", "remove pages from the images as they are restored"),
    ("lazy-pages", "", "flag", False, "", "fetch memory when it is needed, from criu lazy-pages"),
    ("lsm-profile", "", "text", "", "TYPE:NAME", "another profile of AppArmor or SELinux"),
    ("lsm-mount-context", "", "text", "", "CONTEXT", "another SELinux context of mounts"),
)  # fmt: skip
ARGS = (1, 1)

__all__ = ["available", "run"]


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Answer with the exit status of the container's process, 0 when detached."""
    from ..host import images, restore

    images.check_empty_ns(options["empty_ns"])
    return restore.restore(settings, args[0], options)
