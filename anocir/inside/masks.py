"""Masked and read-only paths.

Side: inside.  Sources: config-linux.md; CVE-2025-31133.
"""

from __future__ import annotations


from ..base import inroot
from ..errors import Error
from ..linux import files
from ..linux.const import MOUNT_ATTR_RDONLY
from ..linux.errnos import EINVAL, ENOENT, ENOTDIR
from . import attach, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .context import Context
    from ..wire.shapes import FileSystem


def readonly_path(context: Context, path: str) -> None:
    """Make a path read-only by a mount onto itself; one that is missing is passed over."""
    try:
        target = inroot.open(context.root_fd, path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return
        raise
    try:
        if places.is_root(context, target):
            # A mount on top of the root would not be what is entered.
            attach.read_only(context.root_fd)
            return
        files.close(
            attach.bind(
                target,
                target,
                lambda: inroot.open(context.root_fd, path),
                True,
                attach.READ_ONLY,
            )
        )
    finally:
        files.close(target)


def masked_path(context: Context, path: str, label: str) -> None:
    """Cover a directory by an empty read-only tmpfs, anything else by the host's /dev/null.

    The null device is ours, never the image's (CVE-2025-31133), and read-only; only a missing path
    is passed over.  All directories share one tmpfs, a superblock being the dearest part of it.
    """
    try:
        target = inroot.open(context.root_fd, path)
    except OSError as error:
        if error.errno in (ENOENT, ENOTDIR):
            return
        raise
    try:
        found = files.fstat(target)
        if places.is_root(context, target, found):
            raise Error(f'"{path}" is the root itself, which cannot be masked')
        if files.kind(found) == files.S_IFDIR:
            _mask_directory(context, target, path, label)
        else:
            _mask_file(context, target, path)
    finally:
        files.close(target)


def _mask_directory(context: Context, target: int, path: str, label: str) -> None:
    def again() -> int:
        return inroot.open(context.root_fd, path)

    if context.mask_fd >= 0:
        # A copy of the first one, which is attached by now.
        files.close(attach.bind(context.mask_fd, target, again, False, attach.NO_FLAGS))
        return
    plain: FileSystem = {
        "ms": 0,
        "super": ["ro"],
        "data": ["nr_blocks=1", "nr_inodes=1", "mode=755"],
    }
    if label:
        plain["data"].append(f'context="{label}"')
    try:
        mask_fd = attach.filesystem("tmpfs", "tmpfs", target, again, plain, MOUNT_ATTR_RDONLY)
    except OSError as error:
        if error.errno != EINVAL:
            raise
        # Ubuntu's Linux 5.4 wants one for the root and one more.
        plain["data"][1] = "nr_inodes=2"
        mask_fd = attach.filesystem("tmpfs", "tmpfs", target, again, plain, MOUNT_ATTR_RDONLY)
    context.mask_fd = mask_fd


def _mask_file(context: Context, target: int, path: str) -> None:
    def again() -> int:
        return inroot.open(context.root_fd, path)

    if context.null_fd >= 0:
        files.close(attach.bind(context.null_fd, target, again, False, attach.NO_FLAGS))
        return
    fd = files.open("/dev/null", files.O_PATH | files.O_NOFOLLOW)
    try:
        found = files.fstat(fd)
        if files.device(found) != files.NULL_DEVICE:
            raise Error("/dev/null of the host is not the null device")
        context.null_fd = attach.bind(fd, target, again, False, attach.NODE)
    finally:
        files.close(fd)
