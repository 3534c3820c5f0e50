"""What init knows while it executes a plan.

Side: init.
"""

from __future__ import annotations

from ..wire.channel import LOG

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..wire.channel import Channel
    from ..wire.shapes import Plan


class Context:
    """The state that steps share: descriptors that one step opens and another uses."""

    __slots__ = (
        "attributes",
        "bound_mounts",
        "capabilities",
        "channel",
        "command",
        "cwd_refused",
        "denied",
        "device_place",
        "env",
        "given",
        "hook_outputs",
        "host_fds",
        "host_proc",
        "late_join",
        "late_ro",
        "later",
        "line_fds",
        "mask_fd",
        "null_fd",
        "own_mounts",
        "plan",
        "proc_fd",
        "root_fd",
        "root_file",
        "signal_fd",
        "signal_mask",
        "sources",
        "spare_fds",
        "umask",
    )  # fmt: skip

    def __init__(self, channel: Channel, plan: Plan) -> None:
        """Take the channel to the host side and the plan that came over it."""
        # A Channel, from `close_descriptors` on a Line.
        self.channel: Any = channel
        self.plan = plan
        # The caller's file mode creation mask, for hooks.
        self.umask = 0o022
        # The host's procfs, opened before any namespace was joined.
        self.host_proc = -1
        # start.fifo and report.fifo; none for exec.
        self.line_fds: list[int] = []
        # Namespaces by their place in the plan, as the host side opened them.
        self.host_fds: list[int] = []
        # The container's root as a descriptor; every path in it is resolved from here.
        self.root_fd = -1
        # Its device and inode, once they were asked for.
        self.root_file: tuple[int, int] | None = None
        # Bind sources by the index of the mount: a descriptor, or a link's target to copy.
        self.sources: dict[int, int | str] = {}
        # Those that only the host side may open, and those that an earlier mount may bring.
        self.denied: list[int] = []
        self.later: dict[int, tuple[str, str, str]] = {}
        # The directory of the last device: its path, open, whether it gives its group to what is
        # made in it, the destination of the bind mount that it lies in.
        self.device_place: tuple[str, int, bool, str | None] = "?", -1, False, None
        # Detached mounts of the host side, for mounts that only it may make.
        self.spare_fds: dict[int, int] = {}
        # The numbers of mounts: of our own, and of bound ones with their destinations.
        self.own_mounts: set[int] = set()
        self.bound_mounts: dict[int, str] = {}
        # Mounts that become read-only once their contents are made.
        self.late_ro: list[int] = []
        # Mounts that cover directories and files: each but the first is a copy of it.
        self.mask_fd = -1
        self.null_fd = -1
        self.proc_fd = -1
        # Open files below /proc/self/attr by name.
        self.attributes: dict[str, int] = {}
        # The standard streams that may be given to the container's user.
        self.given: list[int] = []
        # The permitted set before the filter, which may forbid to ask.
        self.capabilities = 0
        # Open files of cgroups that are joined after all other work.
        self.late_join: list[int] = []
        self.env: list[str] = []
        self.command: Any = None
        # Where signals to an init that waits are read, and which were blocked before.
        self.signal_fd = -1
        self.signal_mask = 0
        # What the hooks inside write their output and errors to: the host's files, or -1.
        self.hook_outputs = (-1, -1)
        self.cwd_refused = False

    def warn(self, text: str) -> None:
        """Send a warning to the host side, which has the log."""
        self.channel.send(LOG, b"warning " + text.encode("utf-8", "replace"))
