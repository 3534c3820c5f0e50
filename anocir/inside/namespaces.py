"""Join and make namespaces.

Side: inside (the middle process).  Sources: namespaces(7), user_namespaces(7),
time_namespaces(7), setns(2).
"""

from __future__ import annotations

import posix

from ..errors import Error, strerror
from ..linux import files, oneself, tasks
from ..linux.const import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWPID,
    CLONE_NEWTIME,
    CLONE_NEWUSER,
    PR_SET_DUMPABLE,
)
from ..linux.errnos import EINVAL, ENOENT, EPERM
from ..wire import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from .context import Context


def join_all(context: Context, entries: Sequence[tuple[int, int, str]]) -> None:
    """Join namespaces: (CLONE_NEW* flag, index of the descriptor, path for errors).

    What the caller may join is joined before the user namespace, since a process in there has
    no rights over the others of its old one; what only the user namespace owns, after it.
    """
    later = []
    user = None
    for entry in entries:
        kind, index, path = entry
        if kind == CLONE_NEWUSER:
            user = entry
            continue
        try:
            tasks.setns(context.host_fds[index], kind)
        except OSError as error:
            if error.errno != EPERM:
                raise OSError(error.errno, "setns", path) from None
            later.append(entry)
    if user is None and later:
        raise OSError(EPERM, "setns", later[0][2])
    for kind, index, path in [user, *later] if user else later:
        try:
            tasks.setns(context.host_fds[index], kind)
        except OSError as error:
            raise OSError(error.errno, "setns", path) from None


def join_pids(context: Context, index: int) -> None:
    """Have the children from here on born in a pid namespace (pid_namespaces(7))."""
    tasks.setns(context.host_fds[index], CLONE_NEWPID)


def renew_pids(context: Context) -> None:
    """Make another pid namespace in the place of one whose first process was not born.

    The kernel gives such a one no process any more (ENOMEM), and nobody makes two of them: so the
    one in which we are is joined in between.
    """
    flags = [step[2] for step in context.plan["prepare"] if step[0] == "unshare"]
    if not any(flag & CLONE_NEWPID for flag in flags):
        return
    fd = files.open("self/ns/pid", files.O_RDONLY, dir_fd=context.host_proc)
    try:
        tasks.setns(fd, CLONE_NEWPID)
    finally:
        files.close(fd)
    tasks.unshare(CLONE_NEWPID)


def new_user_namespace(context: Context) -> None:
    """Make a user namespace and wait until the host side has written its maps."""
    try:
        tasks.unshare(CLONE_NEWUSER)
    except OSError as error:
        raise Error(f"unshare user namespace: {strerror(error.errno or 0)}") from None
    context.channel.send(channel.MAP)
    kind, _ = context.channel.receive()
    if kind != channel.MAPPED:
        posix._exit(1)


def unshare(context: Context, flags: int) -> None:
    """Make namespaces."""
    try:
        tasks.unshare(flags)
    except OSError as error:
        hint = _lacking(flags) if error.errno == EINVAL else ""
        raise Error(f"unshare namespaces: {strerror(error.errno or 0)}", hint) from None


def _lacking(flags: int) -> str:
    """Say which of these namespaces the kernel does not have."""
    for flag, name, file, since in (
        (CLONE_NEWTIME, "time", "time", "5.6"),
        (CLONE_NEWCGROUP, "cgroup", "cgroup", "4.6"),
        (CLONE_NEWUSER, "user", "user", "3.8"),
    ):
        if flags & flag and not files.exists(f"/proc/self/ns/{file}"):
            return f"{name} namespaces need Linux {since}, this is {posix.uname().release}"
    return "the kernel lacks one of these namespaces"


def time_offsets(context: Context, lines: str) -> None:
    """Set the clocks of the new time namespace, before a process is in it."""
    mapped = posix.geteuid() != 0
    if mapped:
        # The files of a process that is not dumpable belong to the real root.
        tasks.prctl(PR_SET_DUMPABLE, 1)
    try:
        # In the host's procfs: a mount namespace that was joined may have another one.
        files.write_file("self/timens_offsets", lines, context.host_proc)
    except OSError as error:
        needs = f"time namespaces need Linux 5.6, this is {posix.uname().release}"
        hint = needs if error.errno == ENOENT else ""
        raise Error(f"set the clocks' offsets: {strerror(error.errno or 0)}", hint) from None
    if mapped:
        tasks.prctl(PR_SET_DUMPABLE, 0)


def become_root(context: Context, keep_groups: bool) -> None:
    """Become root of the user namespace: the files that are made from here on are its.

    With `keep_groups` the caller's supplementary groups stay, mapped or not.
    """
    groups = not keep_groups and posix.getgroups()
    if posix.geteuid() == 0 and posix.getegid() == 0 and not groups:
        return
    try:
        if not keep_groups:
            oneself.setgroups([])
    except OSError as error:
        if error.errno != EPERM:  # setgroups is denied: user_namespaces(7)
            raise
    try:
        oneself.setresgid(0)
        oneself.setresuid(0)
    except OSError as error:
        if error.errno != EINVAL:  # root is not mapped: the files are made by whoever we are
            raise
    tasks.prctl(PR_SET_DUMPABLE, 0)


def loopback(context: Context) -> None:
    """Bring up the loopback interface of the new network namespace."""
    tasks.loopback_up()


def enter_network(fd: int) -> None:
    """Join the network namespace that the host side has made."""
    tasks.setns(fd, CLONE_NEWNET)
    files.close(fd)


def hostname(context: Context, name: str) -> None:
    """Set the host name of the UTS namespace."""
    oneself.sethostname(name)


def domainname(context: Context, name: str) -> None:
    """Set the NIS domain name of the UTS namespace."""
    oneself.setdomainname(name)
