"""Calls of the kernel that fail for the runtime: it does without, or names the call and leaves nothing."""

from __future__ import annotations

import errno
import os

import pytest

from tests import blocked
from tests.drive import Container

X86 = os.uname().machine == "x86_64"
# asm/unistd_64.h and asm-generic/unistd.h; epoll_create and eventfd in their newer form as well.
NUMBERS = {
    "socket": [41] if X86 else [198],
    "socketpair": [53] if X86 else [199],
    "prctl": [157] if X86 else [167],
    "epoll": [213, 291] if X86 else [20],
    "signalfd": [289] if X86 else [74],
    "timerfd_create": [283] if X86 else [85],
    "eventfd": [284, 290] if X86 else [19],
    "mknod": [133, 259] if X86 else [33],
    "flock": [73] if X86 else [32],
    "capget": [125] if X86 else [90],
    "close_range": [436],
    "poll": [7, 271] if X86 else [73],
    "rt_sigprocmask": [14] if X86 else [135],
    "sched_setaffinity": [203] if X86 else [122],
}
TWICE = ["socket", "socketpair", "prctl", "epoll", "signalfd", "timerfd_create", "eventfd", "mknod"]
ONCE = ["capget", "close_range", "rt_sigprocmask", "sched_setaffinity"]


@pytest.mark.parametrize(
    ("call", "error"),
    [
        *((call, error) for call in TWICE for error in (errno.ENOSYS, errno.EPERM)),
        *((call, errno.ENOMEM) for call in ONCE),
    ],
)
def test_it_is_done_without_or_named(container: Container, call: str, error: int) -> None:
    failing = blocked.before_exec(NUMBERS[call], error)
    result = container.try_run("echo ran", preexec_fn=failing)
    if result.status == 0:
        assert result.stdout == "ran\n"
    else:
        (line,) = result.stderr.splitlines()
        assert f"{call}(2): {os.strerror(error).lower()}" in line
    assert container.id not in os.listdir(container.runtime.root)


def test_exec_names_it_by_the_kernels_name(container: Container) -> None:
    container.launch("sleep 100")
    failing = blocked.before_exec(NUMBERS["poll"], errno.EPERM)
    result = container.runtime("exec", container.id, "/bin/true", ok=False, preexec_fn=failing)
    assert "poll(2): operation not permitted" in result.stderr


@pytest.mark.parametrize("error", [errno.ENOLCK, errno.EPERM, errno.ENOSYS])
def test_a_state_directory_without_locks_is_used_without(container: Container, error: int) -> None:
    """On NFS without lockd."""
    container.bundle.sh("sleep 100")
    without = blocked.before_exec(NUMBERS["flock"], error)
    container.create(preexec_fn=without)
    container.start(preexec_fn=without)
    container.runtime("kill", container.id, "KILL", preexec_fn=without)
    container.wait()
    container.runtime("delete", container.id, preexec_fn=without)
