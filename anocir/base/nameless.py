"""The call that failed, where an error of the kernel names no object.

Side: host.  Cold.
"""

from __future__ import annotations

import posix

from ..errors import reason
from ..linux.nr import NUMBERS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

# Functions and methods that Python has for descriptors, and the calls behind them.
_METHODS: Final = {
    "poll": "poll", "recvmsg": "recvmsg", "sendmsg": "sendmsg", "socketpair": "socketpair",
    "bind": "bind", "connect": "connect", "accept": "accept", "flock": "flock", "fcntl": "fcntl",
    "ioctl": "ioctl", "set_inheritable": "ioctl", "pair": "socketpair", "wait": "waitpid",
    "pthread_sigmask": "rt_sigprocmask", "send": "sendmsg", "receive": "recvmsg",
    "datagram": "socket",
}  # fmt: skip


def text(error: BaseException, otherwise: str) -> str:
    """Return one line for an exception, which begins with the call if it names no object."""
    if not isinstance(error, OSError) or error.filename not in (None, ""):
        return reason(error)
    return f"{_call_of(error, otherwise)}: {reason(error)}"


def _call_of(error: OSError, otherwise: str) -> str:
    """Name the call, like `flock(2)`, by the last frames of the traceback; else what was done."""
    frames = []
    trace = error.__traceback__
    while trace is not None:
        frames.append((trace.tb_frame, trace.tb_lasti))
        trace = trace.tb_next
    name = ""
    for frame, last in reversed(frames):
        module = str(frame.f_globals.get("__name__"))
        if module.startswith("anocir.linux."):
            if module == "anocir.linux.ffi" or frame.f_code.co_name == "_message":
                continue  # what several calls have in common
            name = frame.f_code.co_name.strip("_")  # most have the names of their calls
        if name not in NUMBERS:
            name = _last_name(frame.f_code, last) or name
        break
    return f"{_METHODS.get(name, name)}(2)" if name else otherwise


def _last_name(code: Any, last: int) -> str:
    """Return the last function of posix, or method of a descriptor, that was looked up."""
    try:
        import dis
    except ImportError:
        return ""
    name = ""
    for one in dis.get_instructions(code):
        if one.offset > last:
            break
        if one.opname.startswith("LOAD_") and isinstance(one.argval, str):
            known = callable(getattr(posix, one.argval, None)) and one.argval.islower()
            if known or one.argval in _METHODS:
                name = _METHODS.get(one.argval, one.argval)
    return name
