"""What a service manager passes along: descriptors by LISTEN_FDS.

Side: host.  Source: sd_listen_fds(3).
"""

from __future__ import annotations

import posix

from ..errors import Error


def listen_fds() -> int:
    """Return how many descriptors, from 3 on, were passed for the container.

    None unless LISTEN_PID names this process: whoever inherits the variables of another one has
    other descriptors under these numbers.  What is not open among them is passed over (boot.holes).
    Raises Error for more than a process can have.
    """
    value = posix.environ.get(b"LISTEN_FDS", b"")
    pid = posix.environ.get(b"LISTEN_PID", b"")
    if pid != b"%d" % posix.getpid() or not value.isdigit():
        return 0
    count = int(value[:11])
    most = posix.sysconf("SC_OPEN_MAX")
    if count > most - 3:
        raise Error(f"LISTEN_FDS: {count} descriptors cannot be open, the limit is {most}")
    return count
