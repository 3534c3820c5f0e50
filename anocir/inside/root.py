"""The container's root: made a mount, entered, and what is set on it as a whole.

Side: inside.  Source: pivot_root(2).
"""

from __future__ import annotations


from ..base import inroot
from ..errors import Error, cwd_error, strerror
from ..linux import files, mounts
from ..linux.const import (
    EINVAL,
    ELOOP,
    ENOTDIR,
    MNT_DETACH,
    MS_BIND,
    MS_PRIVATE,
    MS_REC,
    MS_SLAVE,
)
from . import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .context import Context

    Options = dict[str, Any]


def propagation(context: Context, flags: int) -> None:
    """Set the propagation of every mount of the new mount namespace, before anything is made."""
    mounts.mount("", "/", "", flags)


def root(context: Context, path: str, own_namespace: bool) -> None:
    """Open the rootfs and mount it onto itself, since pivot_root(2) needs a mount."""
    fd = files.open(path, files.O_PATH | files.O_DIRECTORY)
    if own_namespace:
        _make_parent_private(path)
    tree = attach.clone(fd, recursive=True)
    if tree is None:
        target = f"/proc/self/fd/{fd}"
        mounts.mount(target, target, "", MS_BIND | MS_REC)
        tree = files.open(path, files.O_PATH | files.O_DIRECTORY)
    else:
        mounts.move_mount(tree, fd)
    files.close(fd)
    context.root_fd = tree


def _make_parent_private(path: str) -> None:
    """Make the mount that holds the rootfs private: pivot_root(2) refuses a shared one.

    Only its mount point can be named, so the path is tried from the end.
    """
    while True:
        try:
            mounts.mount("", path, "", MS_PRIVATE)
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
        files.close(inroot.make_directory(context.root_fd, path))
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
    files.chdir("/")


def move_root(context: Context) -> None:
    """Enter the root by moving its mount over "/": where pivot_root(2) cannot work."""
    slash = files.open("/", files.O_PATH | files.O_DIRECTORY)
    try:
        mounts.move_mount(context.root_fd, slash)
    finally:
        files.close(slash)
    files.fchdir(context.root_fd)
    files.chroot(".")
    files.chdir("/")


def chroot(context: Context) -> None:
    """Enter the root without a mount namespace."""
    files.fchdir(context.root_fd)
    files.chroot(".")
    files.chdir("/")


def root_here(context: Context) -> None:
    """Take the root of the joined mount namespace as the container's (exec)."""
    context.root_fd = files.open("/", files.O_PATH | files.O_DIRECTORY)
    files.chdir("/")


def final_propagation(context: Context, flags: int) -> None:
    """Set linux.rootfsPropagation on the container's root."""
    mounts.mount("", "/", "", flags)
