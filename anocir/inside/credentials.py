"""Who the container's process is: user, groups, capabilities, labels, keyring, the filter.

Side: inside.  Sources: credentials(7), capabilities(7), prctl(2), seccomp(2), keyrings(7).
"""

from __future__ import annotations


import posix

from ..errors import Error, strerror
from ..linux import files, oneself, tasks
from ..linux.capabilities import names
from ..linux.const import (
    KEY_POS_ALL,
    KEY_USR_SEARCH,
    PR_CAPBSET_READ,
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_SET_KEEPCAPS,
    PR_SET_NO_NEW_PRIVS,
    SECCOMP_FILTER_FLAG_NEW_LISTENER,
)
from ..linux.errnos import EINVAL, ENOSYS, EPERM
from ..wire import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .context import Context
    from ..wire.shapes import Filter

_MAX_CAPABILITY: Final = 63


def keyring(context: Context, name: str, label: str) -> None:
    """Join a session keyring of the container's own: keyrings are not part of a namespace.

    Its name is a secret of the state directory, which nobody can take before us; `exec` joins it
    by that.  Who has the same user id in another container may search for a name, but not list
    it.  Without a name the keyring is one that nobody else can join.
    """
    if label:
        _label_keys(context, label)
    try:
        serial = oneself.join_session_keyring(name)
        oneself.set_keyring_permissions(serial, KEY_POS_ALL | (KEY_USR_SEARCH if name else 0))
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise Error(f"join session keyring: {strerror(error.errno or 0)}",
                        "--no-new-keyring does without") from None  # fmt: skip
        context.warn(f"no session keyring: {strerror(error.errno)}")


def _label_keys(context: Context, text: str) -> None:
    """Ask the LSM for the label of the keys that this process makes from here on."""
    path = "thread-self/attr/keycreate"
    try:
        # The host's procfs: the mount namespace may be one that was joined, with anything in the
        # place of /proc.
        fd = files.open(path, files.O_WRONLY | files.O_NOFOLLOW, dir_fd=context.host_proc)
        try:
            files.write(fd, files.encode(text))
        finally:
            files.close(fd)
    except OSError as error:
        raise Error(
            f"process.selinuxLabel: write {text} to /proc/{path}: {strerror(error.errno or 0)}"
        ) from None


def label(context: Context, name: str, text: str) -> None:
    """Ask the LSM for the label that execve will give to the process."""
    fd = context.attributes[name]
    try:
        files.write(fd, files.encode(text))
    except OSError as error:
        reason = strerror(error.errno or 0)
        raise Error(f"write {text} to /proc/thread-self/attr/{name}: {reason}") from None


def no_new_privs(context: Context) -> None:
    """Let execve give no privileges any more."""
    tasks.prctl(PR_SET_NO_NEW_PRIVS, 1)


def seccomp(context: Context, program: Filter) -> None:
    """Load the filter; with a listener, wait until the host side has taken its descriptor."""
    flags = program["flags"]
    if program["notify"]:
        flags |= SECCOMP_FILTER_FLAG_NEW_LISTENER
    try:
        listener = oneself.seccomp_filter(program["bpf"], flags)
    except OSError as error:
        hint = ""
        if program["notify"] and error.errno == EINVAL:
            hint = f"SCMP_ACT_NOTIFY needs Linux 5.6, this is {posix.uname().release}"
        raise Error(f"load seccomp filter: {strerror(error.errno or 0)}", hint) from None
    if program["notify"]:
        # The profile may trap sendmsg, so the descriptor is fetched, not sent.
        context.channel.send(channel.LISTENER, str(listener).encode())
        context.channel.receive()
        files.close(listener)


def drop_bounding(context: Context, keep: int) -> None:
    """Drop what is not in the bounding set, while CAP_SETPCAP is still there."""
    for capability in range(_MAX_CAPABILITY + 1):
        if keep >> capability & 1:
            continue
        try:
            tasks.drop_bounding(capability)
        except OSError as error:
            if error.errno == EINVAL:  # past the kernel's last one
                return
            if error.errno == EPERM and not tasks.prctl(PR_CAPBSET_READ, capability):
                continue
            raise
    return


def user(context: Context, uid: int, gid: int, additional_gids: Sequence[int] | None) -> None:
    """Become the user; `additional_gids` None keeps the caller's supplementary groups."""
    _, context.capabilities, _ = oneself.capget()
    tasks.prctl(PR_SET_KEEPCAPS, 1)
    if additional_gids is not None:
        try:
            oneself.setgroups(additional_gids)
        except OSError as error:
            # An unprivileged user namespace denies it (user_namespaces(7)).
            if error.errno != EPERM or additional_gids:
                hint = "a group is not mapped in the user namespace"
                hint = hint if error.errno == EINVAL else ""
                raise Error(f"setgroups: {strerror(error.errno or 0)}", hint) from None
    try:
        oneself.setresgid(gid)
        oneself.setresuid(uid)
    except OSError as error:
        hint = "the id is not mapped in the user namespace" if error.errno == EINVAL else ""
        raise Error(f"set user {uid}:{gid}: {strerror(error.errno or 0)}", hint) from None
    tasks.prctl(PR_SET_KEEPCAPS, 0)
    if posix.getresuid() != (uid, uid, uid) or posix.getresgid() != (gid, gid, gid):
        # setresuid(-1) would have changed nothing and said so to nobody.
        raise Error(f"set user {uid}:{gid}: the kernel kept another one")


def capabilities(
    context: Context, effective: int, permitted: int, inheritable: int, ambient: int, longer: int
) -> None:
    """Set the process's capability sets; what cannot be granted is dropped with a warning.

    Those in `longer` are kept beside them until `shed`.
    """
    have = context.capabilities
    missing = (effective | permitted | inheritable | ambient) & ~have
    if missing:
        context.warn("capabilities that cannot be granted: " + " ".join(names(missing)))
    # What is not permitted cannot be effective; spec/whole.demanded has told of it.
    oneself.capset(
        (effective & permitted | longer) & have, (permitted | longer) & have, inheritable & have
    )
    try:
        tasks.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != EINVAL or ambient:  # Linux < 4.3 has none
            raise
    raised = ambient & permitted & inheritable & have
    if ambient & have & ~raised:
        context.warn("ambient capabilities must also be permitted and inheritable")
    for capability in range(raised.bit_length()):
        if raised >> capability & 1:
            tasks.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, capability)


def shed(context: Context, effective: int, permitted: int, inheritable: int) -> None:
    """Give up what was kept for loading the filter, by the one call that it has to allow."""
    have = context.capabilities
    oneself.capset(effective & permitted & have, permitted & have, inheritable & have)
