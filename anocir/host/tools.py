"""The tools of `exec --tools`: a directory of the host, or its busybox, as a detached mount.

Side: host; cold.  What the process in the container gets is a mount that is read-only, nosuid and
nodev; inside/tools shows it at /.anocir/tools.  Source: open_tree(2), mount_setattr(2), fsmount(2).
"""

from __future__ import annotations

import posix

from ..errors import Error, strerror
from ..linux import descriptors, entries, files, mounts, spawn
from ..linux.const import (
    AT_EMPTY_PATH,
    AT_FDCWD,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_RDONLY,
    OPEN_TREE_CLONE,
)
from ..linux.errnos import EINVAL

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

PLACE: Final = "/.anocir/tools"
# The word in place of a directory: the host's own busybox.
BUSYBOX: Final = "busybox"
_PLACES: Final = ("/bin/busybox", "/usr/bin/busybox", "/sbin/busybox", "/usr/local/bin/busybox")
_OPTION: Final = "--tools"
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ATTRIBUTES: Final = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
_PT_INTERP: Final = 3


def shell(directory: str) -> list[str]:
    """Return the arguments of a shell in the tools.  Raises Error when there is none."""
    if directory == BUSYBOX or files.exists(f"{directory}/sh"):
        return [f"{PLACE}/sh"]
    if files.exists(f"{directory}/busybox"):
        return [f"{PLACE}/busybox", "sh"]
    raise Error(f"{_OPTION}: {directory} has neither sh nor busybox", "name a command")


def with_path(env: list[str]) -> list[str]:
    """Return an environment in which the tools come first on PATH."""
    path = next((entry[5:] for entry in reversed(env) if entry.startswith("PATH=")), _PATH)
    return [entry for entry in env if not entry.startswith("PATH=")] + [f"PATH={PLACE}:{path}"]


def check(joined: list[tuple[str, str]]) -> None:
    """Refuse a container in whose mount namespace the host's own processes are."""
    if all(kind != "mount" for kind, _ in joined):
        raise Error(f"{_OPTION}: the container has no mount namespace of its own")


def mount(directory: str) -> int:
    """Return the detached mount of a directory, or of busybox and its applets.  Raises Error."""
    if not mounts.has_detached():
        raise Error(f"{_OPTION} needs Linux 5.12, this is {posix.uname().release}")
    try:
        if directory == BUSYBOX:
            return _busybox()
        fd = files.open(directory, files.O_PATH | files.O_DIRECTORY)
        try:
            copy = mounts.open_tree(AT_FDCWD, f"/proc/self/fd/{fd}", OPEN_TREE_CLONE)
        finally:
            files.close(fd)
        mounts.mount_setattr(copy, AT_EMPTY_PATH, _ATTRIBUTES)
    except OSError as error:
        number = error.errno or 0
        hint = "it lies on a mount that cannot be bound" if number == EINVAL else ""
        raise Error(f"{_OPTION}: {directory}: {strerror(number)}", hint) from None
    return copy


def _busybox() -> int:
    """Return a detached tmpfs with the host's busybox and a link for each of its applets."""
    found = next((path for path in _PLACES if _is_static(path)), "")
    if not found:
        raise Error(
            f"{_OPTION}: this host has no static busybox",
            "install busybox-static, or name a directory of static programs",
        )
    fs_fd = mounts.fsopen("tmpfs")
    mounts.fsconfig_string(fs_fd, "mode", "0755")
    mounts.fsconfig_create(fs_fd)
    fd = mounts.fsmount(fs_fd, 0)
    files.close(fs_fd)
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL
    target = files.open("busybox", flags, 0o755, dir_fd=fd)
    files.write_all(target, files.read_file(found))
    files.fchmod(target, 0o755)
    files.close(target)
    for name in _applets(found):
        if name != "busybox":
            entries.symlink("busybox", name, fd)
    mounts.mount_setattr(fd, AT_EMPTY_PATH, _ATTRIBUTES)
    return fd


def _applets(busybox: str) -> list[str]:
    read_end, write_end = descriptors.pipe()
    actions: list[tuple[Any, ...]] = [(posix.POSIX_SPAWN_DUP2, write_end, 1)]
    pid = spawn.spawn(files.encode(busybox), [b"busybox", b"--list"], {}, actions)
    files.close(write_end)
    try:
        listed = files.read_fd(read_end)
    finally:
        files.close(read_end)
        spawn.wait(pid)
    return [name for name in files.decode(listed).split() if "/" not in name]


def _is_static(path: str) -> bool:
    """Tell whether a file is a 64-bit ELF program without an interpreter (elf(5))."""
    try:
        head = files.read_file(path)[:4096]
    except OSError:
        return False
    if head[:5] != b"\x7fELF\x02":
        return False
    offset = int.from_bytes(head[32:40], "little")
    size, count = (int.from_bytes(head[at : at + 2], "little") for at in (54, 56))
    kinds = [head[offset + size * index : offset + size * index + 4] for index in range(count)]
    return _PT_INTERP.to_bytes(4, "little") not in kinds
