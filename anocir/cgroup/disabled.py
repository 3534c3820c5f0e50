"""No cgroups at all: the container stays in its creator's.

Side: host.
"""

from __future__ import annotations

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..model.schema import CgroupRecord, Resources, Stats
    from ..wire.shapes import CgroupView
    from .changes import Change
    from .devices import Rule
    from .joining import Joining


class Manager:
    """For cgroup.Manager: nothing is made, and what would have an effect is refused."""

    __slots__ = ("record",)
    version = 0

    def __init__(self, record: CgroupRecord) -> None:
        """Take what `choose` has written down."""
        self.record = record

    def _refuse(self) -> Error:
        return Error(f"the container has no cgroup of its own ({self.record.get('reason')})")

    def check(self, resources: Resources) -> None:
        """Refuse what `prepare` refuses, which makes nothing here."""
        self.prepare(resources)

    def begin(self, _resources: Resources, _middle: int) -> None:
        """Nobody else is asked."""

    def prepare(self, resources: Resources) -> None:
        """Limits are left out, as the caller asked; rootless callers did not ask."""
        from . import convert

        reason = self.record.get("reason") or ""
        if reason.startswith("--"):
            return
        asked = convert.v1(resources) + convert.v2(resources)
        if asked:
            raise Error(
                f"{asked[0][3]}: cannot set limits: container could not join or create cgroup",
                reason,
            )

    def joining(self, subs: list[str] | None = None, born: bool = True) -> Joining:  # noqa: ARG002
        """Nothing to join, and so nothing below it."""
        from .joining import Joining

        if subs:
            raise self._refuse()
        return Joining()

    def join(self, _pid: int, _joining: Joining | None = None) -> None:
        """Nothing to join."""

    def finish(self, _pid: int, _joining: Joining | None = None) -> None:
        """Nothing is limited."""

    def exec_join(self, _pid: int, _init_pid: int, subs: list[str]) -> None:
        """Nothing to join."""
        if subs:
            raise self._refuse()

    def update(
        self, _resources: Resources, _old: Resources, _named: Resources | None = None
    ) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def change_devices(
        self, _rules: list[Rule], _before: list[Rule], _after: list[Rule], _new: list[Change]
    ) -> Callable[[], None]:
        """Refuse: nobody is kept from a device here."""
        raise self._refuse()

    def devices_now(
        self, _rules: list[Rule], _changed: list[Rule]
    ) -> list[tuple[str, str | None, str | None]]:
        """Nobody is kept from a device, and nobody asked for it."""
        return []

    def expected(self, _resources: Resources) -> list[tuple[str, str, str, str]]:
        """Nothing is limited."""
        return []

    def files(self) -> list[str]:
        """Nothing is limited."""
        return []

    def freeze(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def thaw(self) -> None:
        """Refuse: nothing would happen."""
        raise self._refuse()

    def thaw_below(self) -> None:
        """Nothing is frozen."""

    def frozen(self) -> bool:
        """Tell whether the container is paused: it cannot be."""
        return False

    def pids(self) -> list[int]:
        """Refuse: only init is known."""
        raise self._refuse()

    def kill(self, _signal: int, _mine: Callable[[int], bool] | None = None) -> None:
        """Do nothing: only init is known, and the caller has signalled it."""

    def destroy(self, _patience: float = 0.0) -> None:
        """Nothing was made."""

    def stats(self) -> Stats:
        """Nothing is counted."""
        return {}

    def oom_kills(self) -> int:
        """Nothing is counted."""
        return 0

    def gone(self) -> bool:
        """Nothing was made that somebody could have removed."""
        return False

    def oom_watch(self) -> tuple[int, int]:
        """Nothing is counted, and so there is nothing to wait for."""
        return -1, 0

    def mount_view(self, kind: str = "cgroup") -> CgroupView:
        """Return what a mount of type cgroup shows: the creator's own cgroups."""
        from . import hierarchy

        v1, v2 = hierarchy.own()
        if v2 is not None and (kind == "cgroup2" or not v1):
            mountpoint, _, own = v2
            return {"version": 2, "own_path": own or "/", "host_mountpoint": mountpoint}
        from . import v1 as manager

        rows = [(mount, controllers, own or "/", 0) for mount, controllers, own in v1]
        return manager.Maker({"tolerant": True, "hierarchies": rows}).mount_view()
