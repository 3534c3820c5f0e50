"""The kill operation: send a signal to the container.

Side: host.
"""

from __future__ import annotations

from ..errors import Error
from ..host import kill

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table

HELP = "send a signal to a container; default SIGTERM"
USAGE = "[OPTIONS] ID [SIGNAL]"
OPTIONS: Table = (
    ("all", "a", "flag", False, "",
     "signal every process; a container that has stopped is no error"),
    # The form of the OCI command line document, which no engine uses.
    ("signal", "s", "text", "", "SIGNAL", "the signal as an option: a number or a name"),
)  # fmt: skip
ARGS = (1, 2)
IN_ORDER = True


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Send the signal to init, or to every process."""
    signal = (args[1] if len(args) > 1 else options["signal"]) or "SIGTERM"
    kill.kill(settings, args[0], signal_number(signal), options)
    return 0


def signal_number(text: str) -> int:
    """Return the number of a signal given as number or name, with or without SIG, in any case.

    A number may have a sign and zeros before it, as runc's strconv.Atoi reads it. Raises Error.
    """
    digits = text[1:] if text[:1] in {"+", "-"} else text
    if digits.isascii() and digits.isdigit():
        # Python reads no number of more than 4300 digits.
        number = digits.lstrip("0") or "0"
        if len(number) <= 2 and int(number) <= 64 and (text[0] != "-" or number == "0"):
            return int(number)
    else:
        import _signal

        name = text.upper()
        name = name if name.startswith("SIG") else "SIG" + name
        base, plus, offset = name.partition("+")
        # Names mean what the kernel and glibc mean by them, also where the C library is musl, which
        # begins at 35: systemd in a container halts on 37 = SIGRTMIN+3.
        if base == "SIGRTMIN" and (not plus or _offset(offset)):
            return 34 + int(offset or 0)
        base, minus, offset = name.partition("-")
        if base == "SIGRTMAX" and (not minus or _offset(offset)):
            return 64 - int(offset or 0)
        if name == "SIGSTKFLT":
            return 16  # Python has the name since 3.11
        value = getattr(_signal, name, None)
        if isinstance(value, int) and not name.startswith("SIG_"):
            return int(value)
    raise Error(f'unknown signal "{text}"', _meant(text))


def _offset(text: str) -> bool:
    """Whether this is a distance to SIGRTMIN or SIGRTMAX that leads to a signal."""
    return text.isascii() and text.isdigit() and len(text) <= 2 and int(text) <= 30


def _meant(text: str) -> str:
    """Name the signal that may have been meant, or what there is."""
    import _signal

    from .. import manual

    names = [name[3:] for name in dir(_signal) if name.startswith("SIG") and name[3] != "_"]
    like = manual.closest(text.upper().removeprefix("SIG"), names, 0.6)
    return f"did you mean {like}?" if like else "a name such as TERM, or a number from 1 to 64"
