"""Masked and read-only paths.

Side: inside.  Sources: config-linux.md; CVE-2025-31133.
"""

from __future__ import annotations


from ..base import inroot
from ..errors import Error
from ..linux import files, mounts
from ..linux.const import (
    ENOENT,
    ENOTDIR,
    MOUNT_ATTR_RDONLY,
    MS_BIND,
    MS_RDONLY,
    MS_REC,
)
from . import attach, places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .context import Context

    Options = dict[str, Any]


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
        clone = attach.clone(target, recursive=True)
        if clone is None:
            name = f"/proc/self/fd/{target}"
            mounts.mount(name, name, "", MS_BIND | MS_REC)
            clone = attach.on_top(context, path, target)
            attach.read_only(clone)
        else:
            attach.read_only(clone)
            mounts.move_mount(clone, target)
        files.close(clone)
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
        if places.is_root(context, target):
            raise Error(f'"{path}" is the root itself, which cannot be masked')
        if files.fstat(target).st_mode & files.S_IFMT == files.S_IFDIR:
            _mask_directory(context, target, label)
        else:
            _mask_file(context, path, target)
    finally:
        files.close(target)


def _mask_directory(context: Context, target: int, label: str) -> None:
    if context.mask_fd >= 0:
        # A copy of the first one, which is attached by now.
        clone = mounts.open_tree(context.mask_fd, "", attach.CLONE)
        mounts.move_mount(clone, target)
        files.close(clone)
        return
    data = ["nr_blocks=1", "nr_inodes=1", "mode=755"]
    if label:
        data.append(f'context="{label}"')
    plain = {"ms": 0, "super": ["ro"], "data": data}
    mount_fd = attach.new_filesystem("tmpfs", "tmpfs", plain, MOUNT_ATTR_RDONLY)
    if mount_fd is None:
        attach.mount_onto(target, "tmpfs", "tmpfs", MS_RDONLY, ",".join(data))
        return
    mounts.move_mount(mount_fd, target)
    context.mask_fd = mount_fd


def _mask_file(context: Context, path: str, target: int) -> None:
    fd = files.open("/dev/null", files.O_PATH | files.O_NOFOLLOW)
    try:
        found = files.fstat(fd)
        if (found.st_mode & files.S_IFMT, found.st_rdev) != (files.S_IFCHR, files.makedev(1, 3)):
            raise Error("/dev/null of the host is not the null device")
        attach.bind_node(fd, target, lambda: attach.on_top(context, path, fd))
    finally:
        files.close(fd)
