"""The kernel's notifications of a seccomp filter, at the descriptor of its listener.

Side: host; cold.  Source: seccomp_unotify(2), include/uapi/linux/seccomp.h.
"""

from __future__ import annotations

from _struct import Struct

from . import descriptors
from .errnos import EINTR, ENOENT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# struct seccomp_notif: u64 id; u32 pid, flags; struct seccomp_data data, which is
# int nr; u32 arch; u64 instruction_pointer, args[6]
_NOTIF: Final = Struct("=QIIiIQ6Q")
# struct seccomp_notif_resp: u64 id; s64 val; s32 error; u32 flags
_RESPONSE: Final = Struct("=QqiI")
SECCOMP_IOCTL_NOTIF_RECV: Final = 0xC0502100
SECCOMP_IOCTL_NOTIF_SEND: Final = 0xC0182101
_CONTINUE: Final = 1
_EMPTY: Final = bytes(_NOTIF.size)


def let_go(listener: int) -> tuple[int, int] | None:
    """Take one notification and let the call go on: (AUDIT_ARCH_* value, number of the call).

    Waits when there is none.  None when the caller was killed, or interrupted, meanwhile: it
    comes again if it is made again.  Raises OSError.
    """
    try:
        taken = descriptors.ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, _EMPTY)
        fields = _NOTIF.unpack(taken if isinstance(taken, bytes) else _EMPTY)
        _answer(listener, _RESPONSE.pack(fields[0], 0, 0, _CONTINUE))
    except OSError as error:
        if error.errno in (ENOENT, EINTR):
            return None
        raise
    return fields[4], fields[3] & 0xFFFFFFFF


def _answer(listener: int, response: bytes) -> None:
    """Send what was taken back, whatever interrupts it: a call without an answer waits for ever."""
    while True:
        try:
            descriptors.ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, response)
        except OSError as error:
            if error.errno != EINTR:
                raise
        else:
            return
