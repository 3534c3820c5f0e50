"""What both sides stand on: log, JSON, hooks, the loading of modules.

Here: what the door, the plan and hooks know alike.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# crun's annotations: files of the host that take what hooks print (`hooks` opens them).
HOOK_OUTPUTS: Final = ("run.oci.hooks.stdout", "run.oci.hooks.stderr")


def normal(path: str) -> str:
    """Return an absolute path without empty parts, `.` and `..`, by its text alone."""
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
