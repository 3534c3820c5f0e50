"""How a process gets into the cgroups of its container: one value, computed once by the manager.

Side: host.  Pure.

A process that is moved by another one costs a grace period of RCU (10 to 18 ms), one that is born
in a cgroup or moves itself costs nothing; so whatever can be left to init is left to it.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Joining:
    """What init does by itself, and what is left to the host.

    `into`     the cgroup2 directory that it is born in (clone3, CLONE_INTO_CGROUP), or ""
    `tasks`    files to open while the host's mounts are there, and to write b"0" into from the
               last process, single-threaded, in this order
    `late`     the same, after all set-up work: the cgroup that charges memory
    `by_host`  directories into whose cgroup.procs the host writes its pid
    `asked`    whether the host asks somebody else (systemd) to move it
    """

    __slots__ = ("asked", "by_host", "into", "late", "tasks")

    def __init__(
        self,
        into: str = "",
        tasks: Sequence[str] = (),
        late: Sequence[str] = (),
        by_host: Sequence[str] = (),
        asked: bool = False,
    ) -> None:
        """Take each part; what is not given is nothing."""
        self.into = into
        self.tasks = list(tasks)
        self.late = list(late)
        self.by_host = list(by_host)
        self.asked = asked

    def waits(self) -> bool:
        """Tell whether init has to wait for the host before it goes on."""
        return self.asked or bool(self.by_host)
