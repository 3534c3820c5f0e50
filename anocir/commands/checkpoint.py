"""The checkpoint operation: write a running container down with CRIU.

Side: host.  Cold.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "write a running container down, so that it can be restored (with criu)"
USAGE = "[OPTIONS] ID"
OPTIONS: Table = (
    ("image-path", "", "text", "", "DIR", "where CRIU's images go; default ./checkpoint"),
    ("work-path", "", "text", "", "DIR", "where CRIU works and logs; default: with the images"),
    ("parent-path", "", "text", "", "DIR",
     "images of an earlier pre-dump, relative to --image-path"),
    ("leave-running", "", "flag", False, "", "let the container run on"),
    ("tcp-established", "", "flag", False, "", "allow open TCP connections"),
    ("tcp-skip-in-flight", "", "flag", False, "", "leave out TCP connections being made"),
    ("tcp-close", "", "flag", False, "", "do not keep TCP connections, close them at restore"),
    ("link-remap", "", "flag", False, "", "link removed files back while restoring"),
    ("ext-unix-sk", "", "flag", False, "", "allow Unix sockets that lead out of the container"),
    ("shell-job", "", "flag", False, "", "allow the terminal of a shell outside"),
    ("lazy-pages", "", "flag", False, "", "keep memory here until a restore asks for it"),
    ("status-fd", "", "number", -1, "N", "write a NUL to descriptor N once lazy pages are served"),
    ("page-server", "", "text", "", "ADDRESS:PORT", "send memory to, or serve it lazily at"),
    ("file-locks", "", "flag", False, "", "allow locks on files"),
    ("pre-dump", "", "flag", False, "", "write only memory and let the container run on"),
    ("manage-cgroups-mode", "", "choice", "", "soft|full|strict|ignore",
     "what is kept of cgroups; default soft"),
    ("empty-ns", "", "list", (), "NAMESPACE", "namespace whose contents are left out: network"),
    ("auto-dedup", "", "flag", False, "", "remove pages from the parent images"),
)  # fmt: skip
ARGS = (1, 1)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Write the container down; without --leave-running it is removed then."""
    from ..host import checkpoint, images

    images.check_empty_ns(options["empty_ns"])
    checkpoint.checkpoint(settings, args[0], options)
    return 0


def available(settings: Settings) -> None:
    """Raise Error unless there is a criu to do it: engines ask by `--help`."""
    from ..host import criu

    criu.usable(settings.old_criu)
