"""What `knobs.write` has written is taken back, when an update fails half way.

Side: host, cold.
"""

from __future__ import annotations

from ..linux import files
from .knobs import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Files with one line for each device: how a line that was not there before is taken away.
_KEYED: Final = {
    "blkio.throttle.read_bps_device": "0",
    "blkio.throttle.write_bps_device": "0",
    "blkio.throttle.read_iops_device": "0",
    "blkio.throttle.write_iops_device": "0",
    "blkio.weight_device": "0",
    "blkio.leaf_weight_device": "0",
    "blkio.bfq.weight_device": "0",
    "io.max": "rbps=max wbps=max riops=max wiops=max",
    "net_prio.ifpriomap": "0",
    "rdma.max": "hca_handle=max hca_object=max",
}


def restore(undo: list[tuple[str, str]]) -> None:
    """Write back what `write` noted, newest first; the error that led here is the one to tell."""
    again = []
    for path, value in reversed(undo):
        try:
            files.write_file(path, value)
        except OSError:
            again.append((path, value))
    for path, value in again:  # period and quota, or limit and memsw: the other order
        try:
            files.write_file(path, value)
        except OSError:
            continue


def before(path: str, file: str, value: str) -> str:
    """Return what to write to `file` to have again what it says now."""
    text = read_text(path)
    key = value.split(" ", 1)[0] if file in _KEYED or ":" in value.split(" ", 1)[0] else ""
    if not key:
        return text.split("\n")[0] if file != "memory.oom_control" else text.split()[1]
    for line in text.split("\n"):
        if line.startswith(key + " "):
            return line
    return f"{key} {_KEYED.get(file, 'default')}"
