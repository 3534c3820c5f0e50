"""What libseccomp and the running kernel can do: for `features`, `check` and error texts.

Side: host, cold.  Source: features-linux.md "Seccomp", seccomp(2).
"""

from __future__ import annotations

import posix
import sys

from .. import errors
from ..linux import oneself
from . import FLAG_LOG, FLAG_NEW_LISTENER, FLAG_SPEC_ALLOW, FLAG_TSYNC, FLAG_WAIT_KILLABLE_RECV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..model.schema import SeccompFeatures

# The flags of config-linux.md with the Linux that brought each.
FLAGS: Final = {
    "SECCOMP_FILTER_FLAG_LOG": (FLAG_LOG, "4.14"),
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": (FLAG_SPEC_ALLOW, "4.17"),
    "SECCOMP_FILTER_FLAG_TSYNC": (FLAG_TSYNC, "3.17"),
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": (FLAG_WAIT_KILLABLE_RECV, "5.19"),
}
_ACTION_SINCE: Final = {
    "SCMP_ACT_KILL_PROCESS": "4.14",
    "SCMP_ACT_LOG": "4.14",
    "SCMP_ACT_NOTIFY": "5.6",  # with pidfd_getfd(2); the action alone is of 5.0
}
# include/uapi/linux/seccomp.h
_SET_MODE_FILTER: Final = 1
_GET_ACTION_AVAIL: Final = 2
_EFAULT: Final = 14


def flag_supported(flag: int) -> bool:
    """Tell whether the kernel knows a flag: with a NULL program it looks at the flags first."""
    listener = FLAG_NEW_LISTENER if flag & FLAG_WAIT_KILLABLE_RECV else 0
    try:
        oneself.seccomp(_SET_MODE_FILTER, flag | listener, None)
    except OSError as error:
        return error.errno == _EFAULT
    return False


def action_supported(action: int) -> bool:
    """Tell whether the kernel knows an action (SECCOMP_GET_ACTION_AVAIL, since Linux 4.14)."""
    try:
        oneself.seccomp(_GET_ACTION_AVAIL, 0, action.to_bytes(4, sys.byteorder))
    except OSError:
        return False
    return True


def action_refused(word: str) -> str:
    """Say why libseccomp does not take an action."""
    from . import library

    since = _ACTION_SINCE.get(word)
    if since and not action_supported(library.ACTIONS[word]):
        return f"{word} needs Linux {since}, this is {posix.uname().release}"
    return f"{word} is refused by libseccomp {library.version()}"


def library_version() -> str:
    """Return the version of libseccomp, empty when there is none."""
    try:
        from . import library
    except errors.Error:
        return ""
    return library.version()


# __AUDIT_ARCH_LE, include/uapi/linux/audit.h
_LITTLE_ENDIAN: Final = 0x40000000


def _same_order(token: int) -> bool:
    """Tell whether a profile may name an architecture: it is known and its byte order is ours."""
    return bool(token) and bool(token & _LITTLE_ENDIAN) == (sys.byteorder == "little")


def features() -> SeccompFeatures:
    """Return the "seccomp" object of features-linux.md."""
    try:
        from . import library
    except errors.Error:
        return {"enabled": False}
    return {
        "enabled": True,
        "actions": sorted(library.ACTIONS),
        "operators": sorted(library.OPERATORS),
        "archs": [
            word for word in library.ARCHITECTURES if _same_order(library.architecture(word))
        ],
        "knownFlags": sorted(FLAGS),
        "supportedFlags": sorted(word for word in FLAGS if flag_supported(FLAGS[word][0])),
    }
