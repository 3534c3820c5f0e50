"""The network namespace that the host side makes.

Side: host.  Moving interfaces into one is in netdevices.py.
"""

from __future__ import annotations

from ..errors import at, reason
from ..linux import files, tasks
from ..linux.const import CLONE_NEWNET


def make() -> int:
    """Make the container's network namespace, with its loopback up; a descriptor of it.

    Side: host, which enters it for a moment.  It is the dearest of the namespaces (1 ms with the
    loopback) and needs nothing of init, whose interpreter still boots on the other core.
    """
    own = files.open("/proc/self/ns/net", files.O_RDONLY)
    try:
        tasks.unshare(CLONE_NEWNET)
        try:
            tasks.loopback_up()
            return files.open("/proc/self/ns/net", files.O_RDONLY)
        finally:
            tasks.setns(own, CLONE_NEWNET)
    except OSError as error:
        raise at("linux.namespaces", f"network: {reason(error)}") from None
    finally:
        files.close(own)
