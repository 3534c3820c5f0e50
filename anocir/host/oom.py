"""Who ran out of memory: the kernel's count of a container's cgroup.

Side: host.
"""

from __future__ import annotations


from ..base import log
from ..errors import Error, reason
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .store import Container


def memory_limit(config: dict[str, Any]) -> int | None:
    """Return the memory limit of a configuration in bytes; None without one."""
    resources = (config.get("linux") or {}).get("resources") or {}
    limit: int | None = (resources.get("memory") or {}).get("limit")
    return limit


def want_of_memory(container: Container, config: dict[str, Any], killed: bool = True) -> str:
    """Say, of an init that is dead, that its memory limit was too low; empty if it was not.

    systemd removes the cgroup, with the kernel's count in it, together with the last process:
    then a limit, and that init was `killed`, is all that is known.
    """
    manager = states.manager(container)
    try:
        if manager.oom_kills():
            return "container init was OOM-killed (memory limit too low?)"
        if killed and memory_limit(config) and manager.gone():
            return "container init was killed (memory limit too low?)"
    except (Error, OSError) as error:
        log.debug(f"oom: {reason(error)}")
    return ""
