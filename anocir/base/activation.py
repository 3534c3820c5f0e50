"""What a service manager passes along: descriptors by LISTEN_FDS.

Side: host.  Source: sd_listen_fds(3).
"""

from __future__ import annotations

import posix


def listen_fds() -> int:
    """Return how many descriptors, from 3 on, were passed for the container."""
    value = posix.environ.get(b"LISTEN_FDS", b"")
    pid = posix.environ.get(b"LISTEN_PID", b"")
    if not value.isdigit() or len(value) > 6 or (pid and pid != b"%d" % posix.getpid()):
        return 0
    return int(value)
