"""The container's root: made a mount, entered, and what is set on it as a whole.

Side: inside.  Source: pivot_root(2).
"""

from __future__ import annotations


from ..errors import Error, cwd_error, strerror
from ..linux import entries, files, inodes, mounts
from ..linux.const import MNT_DETACH, MS_MOVE, MS_PRIVATE, MS_RDONLY, MS_REC, MS_SLAVE
from ..linux.errnos import EINVAL, ELOOP, ENOTDIR, EPERM
from . import attach, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .context import Context


def propagation(context: Context, flags: int) -> None:
    """Set the propagation of every mount of the new mount namespace, before anything is made."""
    mounts.mount("", "/", "", flags)


def root(context: Context, path: str, shared: bool, private: bool) -> None:
    """Open the rootfs and mount it onto itself, since pivot_root(2) needs a mount.

    It refuses one in a mount that is `shared`.  Others stay slaves, and what is cloned from them
    is told of later mounts of the host; the root itself only unless it is to be `private`.
    """
    fd = files.open(path, files.O_PATH | files.O_DIRECTORY)
    if shared:
        _make_parent(path, MS_SLAVE)
    try:
        context.root_fd = _bind_root(path, fd)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        # It lies in an unbindable mount, which before Linux 6.17 stays so when it becomes a slave.
        _make_parent(path, MS_PRIVATE)
        context.root_fd = _bind_root(path, fd)
    files.close(fd)
    places.own(context, context.root_fd)
    if private:
        attach.set_propagation(context.root_fd, MS_PRIVATE)


def _bind_root(path: str, fd: int) -> int:
    directory = files.O_PATH | files.O_DIRECTORY
    return attach.bind(fd, fd, lambda: files.open(path, directory), True, attach.NO_FLAGS)


def _make_parent(path: str, propagation: int) -> None:
    """Make the mount that holds the rootfs one that tells nobody of mounts in it.

    Only its mount point can be named, so the path is tried from the end.
    """
    while True:
        try:
            mounts.mount("", path, "", propagation)
        except OSError as error:
            if error.errno != EINVAL or path in ("", "/"):
                raise
            path = path.rstrip("/").rpartition("/")[0] or "/"
        else:
            return


def make_cwd(context: Context, path: str) -> None:
    """Make the working directory where it is missing, before the root may be read-only.

    What it is, and whether the user may be there, shows when it is entered.
    """
    try:
        files.close(places.make_directory(context, path))
    except OSError as error:
        if error.errno not in (ELOOP, ENOTDIR):
            raise
        raise cwd_error(path, error.errno) from None


def root_readonly(context: Context) -> None:
    """Make the root mount read-only; what is mounted below keeps its own flags."""
    attach.read_only(context.root_fd)


def pivot_root(context: Context) -> None:
    """Enter the root by pivot_root(2) and let go of the old one.

    Both arguments are ".", so that no directory for the old root is needed: it lies on top of
    the new one and is detached at once (pivot_root(2), NOTES).
    """
    old_root = files.open("/", files.O_PATH | files.O_DIRECTORY)
    files.fchdir(context.root_fd)
    try:
        mounts.pivot_root(".", ".")
    except OSError as error:
        hint = "a root on the initramfs needs --no-pivot" if error.errno == EINVAL else ""
        raise Error(f"pivot_root: {strerror(error.errno or 0)}", hint) from None
    files.fchdir(old_root)
    # The unmounting must not propagate to the host.
    mounts.mount("", ".", "", MS_SLAVE | MS_REC)
    mounts.umount2(".", MNT_DETACH)
    files.close(old_root)
    entries.chdir("/")


def move_root(context: Context) -> None:
    """Enter the root by moving its mount over "/": where pivot_root(2) cannot work.

    The old mounts stay below it.  A procfs or sysfs among them that is visible as a whole would let
    the kernel give the container another one, without its masks (mount_too_revealing).
    """
    # With a shared root the mount namespace would tell the host's of what is done here.
    mounts.mount("", "/", "", MS_SLAVE)
    _hide_host(context)
    slash = files.open("/", files.O_PATH | files.O_DIRECTORY)
    try:
        if not attach.move(context.root_fd, slash):
            mounts.mount(f"/proc/self/fd/{context.root_fd}", "/", "", MS_MOVE)
    finally:
        files.close(slash)
    files.fchdir(context.root_fd)
    entries.chroot(".")
    entries.chdir("/")


def _hide_host(context: Context) -> None:
    """Take every procfs and sysfs of the host out of this mount namespace, or cover it."""
    root = str(inodes.mount_id(context.root_fd)).encode()
    proc = files.open("/proc", files.O_PATH | files.O_DIRECTORY)
    try:
        before: list[tuple[str, str]] = []
        while True:
            # What was covered by another one shows only when that is gone.
            found = _revealing(files.read_file("self/mountinfo", proc), root)
            if found == before and found:
                raise Error(f"--no-pivot: cannot hide the {found[0][0]} on {found[0][1]}")
            if not found:
                return
            for kind, point in found:
                _take_away(kind, point)
            before = found
    finally:
        files.close(proc)


def _revealing(mountinfo: bytes, root: bytes) -> list[tuple[str, str]]:
    """Return (type, mount point) of each whole procfs and sysfs that nothing covers, last first.

    Not of those below the mount with the number `root`, which are the container's.
    """
    rows = [line.split() for line in mountinfo.split(b"\n") if line]
    parents = {row[0]: row[1] for row in rows}
    covered = {(row[1], row[4]) for row in rows}
    found = []
    for row in reversed(rows):
        kind = row[row.index(b"-") + 1]
        if kind not in (b"proc", b"sysfs") or row[3] != b"/" or (row[0], row[4]) in covered:
            continue
        above = row[0]
        while above in parents and above != root:
            above = parents[above]
        if above != root:
            found.append((kind.decode(), files.decode(_unescaped(row[4]))))
    return found


def _unescaped(text: bytes) -> bytes:
    """Return a field of mountinfo without its octal escapes (proc_pid_mountinfo(5))."""
    first, *rest = text.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def _take_away(kind: str, point: str) -> None:
    """Unmount a file system of the host from this namespace, or cover it."""
    try:
        # The host keeps it, and what is mounted below: the peers of the parent hear of an unmount.
        _make_parent(point.rpartition("/")[0] or "/", MS_SLAVE)
        mounts.mount("", point, "", MS_SLAVE | MS_REC)
        mounts.umount2(point, MNT_DETACH)
    except OSError as error:
        if error.errno not in (EINVAL, EPERM):
            raise Error(f"--no-pivot: unmount {kind} on {point}: {strerror(error.errno or 0)}"
                        ) from None  # fmt: skip
        mounts.mount("tmpfs", point, "tmpfs", MS_RDONLY)


def chroot(context: Context) -> None:
    """Enter the root without a mount namespace."""
    files.fchdir(context.root_fd)
    entries.chroot(".")
    entries.chdir("/")


def root_here(context: Context) -> None:
    """Take the root of the joined mount namespace as the container's (exec)."""
    context.root_fd = files.open("/", files.O_PATH | files.O_DIRECTORY)
    entries.chdir("/")


def final_propagation(context: Context, flags: int) -> None:
    """Set linux.rootfsPropagation on the container's root."""
    mounts.mount("", "/", "", flags)
