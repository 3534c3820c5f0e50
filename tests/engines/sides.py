"""What must be the same when two runtimes do the same thing, and how to compare it."""

from __future__ import annotations

import difflib
import pprint
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Callable, Dict, List, Tuple, TypeVar

from tests.drive import until

SUBNET = "10.213.77"

# What dockerd, the docker command and users look for in an error; compared in place of whole sentences.
PHRASES = (
    "executable file not found in $path",
    "no such file or directory",
    "permission denied",
    "not a directory",
    "exec format error",
    "operation not permitted",
    "unable to set memory limit",
    "not in a separate kernel namespace",
    "are you trying to mount a directory onto a file",
    "oci runtime create failed",
    "oci runtime exec failed",
    "unable to retrieve oci runtime error",
    "cannot exec in a stopped container",
    "cannot be mounted because it is inside /proc",
)

# runc 1.1 leaves the tmpfs over the version 1 hierarchies writable, whatever config.json says; and it masks
# with the container's own /dev/null, so the mount options of masked files differ. It does not show the
# version 2 hierarchy beside those of version 1 either.
# Nodes and masks that are bound are read-only here, so that nobody changes the host's inodes; runc's are not.
_EACH = (
    "while read -r _ _ _ _ path flags _; do [ -c $path ] && flags=node; echo $path $flags;"
    " done < /proc/self/mountinfo"
)
MOUNTS = (
    f'{_EACH} | awk \'$1 !~ "^/sys/fs/cgroup(/unified)?$" '
    '{print $1, $2 == "node" ? $2 : substr($2, 1, 2)}\' | sort'
)
MOUNT_OPTIONS = (
    f"{_EACH} | grep -E '^/(proc|dev|dev/[^ ]*|sys|sys/fs/cgroup/[^ ]*|etc/[^ ]*)? '"
    " | grep -v unified | sort"
)

S = TypeVar("S")
T = TypeVar("T")


def phrases(text: str) -> List[str]:
    """Give the phrases of an error text that other programs match.

    What execve finds out is a failure of create with runc, of start with anocir. For a program that is a directory
    execve says EACCES; newer ones of runc look first and name it, which engines take for the same.
    """
    low = text.lower().replace("oci runtime start failed", "oci runtime create failed")
    low = low.replace("is a directory", "permission denied")
    return [phrase for phrase in PHRASES if phrase in low]


def normal(text: str) -> str:
    """Replace what differs between any two runs: ids, addresses, times, namespaces, ends of line."""
    for pattern, word in (
        (r"\b[0-9a-f]{64}\b", "ID64"),
        (r"\b[0-9a-f]{12}\b", "ID12"),
        (r"\b(02:42|[0-9a-f]{2}:[0-9a-f]{2})(:[0-9a-f]{2}){4}\b", "MAC"),
        (re.escape(SUBNET) + r"\.\d+", "ADDRESS"),
        (r"@if\d+", "@ifN"),
        (r"\b(eth\d+|veth\w+)@", r"\1@"),
        (r"[a-z]+:\[\d+\]", "NS"),
    ):
        text = re.sub(pattern, word, text)
    return text.replace("\r\n", "\n")


def gather(scenario: Callable[[S], T], ours: S, peer: S, *, together: bool = True) -> Tuple[T, T]:
    """Run a scenario on both sides, at the same time if the engine stands that: (ours, peer)."""
    if not together:
        return scenario(ours), scenario(peer)
    with ThreadPoolExecutor(2) as pool:
        theirs = pool.submit(scenario, peer)
        mine = pool.submit(scenario, ours)
        return mine.result(), theirs.result()


def same(scenario: Callable[[S], T], ours: S, peer: S, *, together: bool = True) -> T:
    """Demand that a scenario gives the same on both sides, and give that."""
    mine, theirs = gather(scenario, ours, peer, together=together)
    if mine != theirs:
        before, after = (pprint.pformat(one, width=100).splitlines() for one in (theirs, mine))
        raise AssertionError("\n".join(difflib.unified_diff(before, after, "runc", "anocir", n=1)))
    return mine


def settle(take: Callable[[], Dict[str, List[str]]], before: Dict[str, List[str]]) -> None:
    """Wait until the traces are what they were; shims and veth pairs vanish a moment after docker's answer."""

    def more() -> Dict[str, List[str]]:
        now = take()
        return {
            kind: [item for item in found if found.count(item) > before[kind].count(item)]
            for kind, found in now.items()
        }

    until("nothing is left behind", more, pause=0.05, found=lambda left: not any(left.values()))


# Prints 1, 2, 3 ...; numbers that go on after a restore were in its memory.
COUNT = ["sh", "-c", "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"]


def goes_on(output: Callable[[], str], joined: bool = True) -> bool:
    """Wait until it counts on; unless `joined`, what it printed before the restore is not in the output."""

    def counted() -> int:
        found = [int(word) for word in output().split()]
        first = found[0] if found and not joined else 1
        assert found == list(range(first, first + len(found))), found
        assert joined or not found or first > 1, "it began anew"
        return found[-1] if found else 0

    at = counted()
    until("it counts on", lambda: counted() > at + 2)
    return True
