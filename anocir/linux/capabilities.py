"""Names of the capabilities and the masks of the five sets.

Side: pure.  Source: capabilities(7), include/uapi/linux/capability.h.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final

# In the order of their numbers, from 0.
NAMES: Final = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
    "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK",
    "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

SETS: Final = ("bounding", "effective", "permitted", "inheritable", "ambient")


def mask(names: Iterable[str]) -> int:
    """Return the bit mask of capability names that are all known."""
    result = 0
    for name in names:
        result |= 1 << NAMES.index(name)
    return result


def masks(sets: Mapping[str, Iterable[str]]) -> tuple[int, int, int, int, int]:
    """Return the masks of the five sets in the order of SETS; a missing set is empty."""
    bounding, effective, permitted, inheritable, ambient = (
        mask(sets.get(name) or ()) for name in SETS
    )
    return bounding, effective, permitted, inheritable, ambient


def names(bits: int) -> list[str]:
    """Return the names in a mask, by number where there is no name."""
    return [
        NAMES[bit] if bit < len(NAMES) else f"CAP_{bit}"
        for bit in range(bits.bit_length())
        if bits >> bit & 1
    ]
