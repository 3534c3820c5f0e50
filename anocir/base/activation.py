"""What a service manager passes along: descriptors by LISTEN_FDS.

Side: host.  Source: sd_listen_fds(3).
"""

from __future__ import annotations

import posix

from ..errors import Error


def listen_fds() -> int:
    """Return how many descriptors, from 3 on, were passed for the container.

    None unless LISTEN_PID names this process: whoever inherits the variables of another one has
    other descriptors under these numbers.  Raises Error when they are not all there.
    """
    value = posix.environ.get(b"LISTEN_FDS", b"")
    pid = posix.environ.get(b"LISTEN_PID", b"")
    if pid != b"%d" % posix.getpid() or not value.isdigit():
        return 0
    # No process has more than 2**30: fs.nr_open in sysctl/fs.rst.
    count = int(value[:11])
    for fd in range(3, 3 + count):
        try:
            posix.fstat(fd)
        except OSError:
            raise Error(
                f"LISTEN_FDS: says {count} descriptors from 3 on, and {fd} is not open"
            ) from None
    return count
