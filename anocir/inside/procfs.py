"""A procfs of our own, and what is written through it: sysctls, labels.

Side: inside.  Sources: proc(5), CVE-2025-52881.
"""

from __future__ import annotations


from ..base import inroot
from ..errors import Error, strerror
from ..linux import files, mounts
from ..linux.const import (
    ENOENT,
    ENOSYS,
    EPERM,
    PROC_SUPER_MAGIC,
    RESOLVE_BENEATH,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_XDEV,
)
from . import attach

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .context import Context

    Options = dict[str, Any]


def own_proc(context: Context) -> None:
    """Mount a procfs of our own, attached nowhere, that nothing of the image can cover.

    Inside a container whose procfs has masks the kernel refuses a new one to a user namespace:
    then the one at /proc in the root is used, once it proves to be a procfs.
    """
    plain = {"ms": 0, "super": [], "data": []}
    mount_fd = attach.new_filesystem("proc", "proc", plain, attach.RESTRICTED)
    if mount_fd is None:
        flags = files.O_PATH | files.O_DIRECTORY
        mount_fd = inroot.open(context.root_fd, "/proc", flags, follow_links=False)
        is_root = files.fstat(mount_fd).st_ino == attach.PROC_ROOT_INODE
        if not is_root or mounts.fstatfs_type(mount_fd) != PROC_SUPER_MAGIC:
            raise Error("/proc of the container is not a procfs")
    context.proc_fd = mount_fd


def open_proc(context: Context, path: str, flags: int) -> int:
    """Open a file of the own procfs: beneath its root, on it, through no magic link."""
    resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS
    try:
        return mounts.openat2(context.proc_fd, path, flags, resolve)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise OSError(error.errno, "open", f"/proc/{path}") from None
    return files.open(path, flags | files.O_NOFOLLOW, dir_fd=context.proc_fd)


def sysctl(context: Context, path: str, value: str) -> None:
    """Write one kernel parameter of the container's namespaces."""
    name = path.replace("/", ".")
    try:
        fd = open_proc(context, "sys/" + path, files.O_WRONLY)
        try:
            files.write(fd, files.encode(value))
        finally:
            files.close(fd)
    except OSError as error:
        raise Error(f"write sysctl {name}={value}: {strerror(error.errno or 0)}") from None


def open_attributes(context: Context) -> None:
    """Open the files that take the LSM's labels, while the own procfs is at hand."""
    if context.proc_fd < 0:
        own_proc(context)
    for _, _, name, _ in [step for step in context.plan["launch"] if step[0] == "label"]:
        try:
            fd = open_proc(context, f"thread-self/attr/{name}", files.O_WRONLY)
        except OSError as error:
            if error.errno != ENOENT or "/" not in name:
                raise
            # Before Linux 5.8 AppArmor had no directory of its own.
            fd = open_proc(context, "thread-self/attr/exec", files.O_WRONLY)
        context.attributes[name] = fd
