"""tmpcopyup: what a directory of the image holds is copied into the tmpfs that will cover it.

Side: init.  Works on descriptors only and follows no link.  Source: Podman's and crun's mount
option of that name.
"""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import entries, files, inodes
from ..linux.errnos import ELOOP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_CHUNK: Final = 1 << 20
_NOFOLLOW: Final = files.O_PATH | files.O_NOFOLLOW


def copy(source_fd: int, target_fd: int) -> None:
    """Copy the contents of a directory: modes, owners, times, extended attributes, links.

    Without recursion, and with the same few descriptors at any depth: the way back up is "..",
    which for a directory that was moved away meanwhile is another one, and then an error.
    """
    source, target = _again(source_fd), _again(target_fd)
    # What is left to do of each directory from the top down, and what it is.
    above: list[tuple[list[str], posix.stat_result]] = []
    names, found = files.listdir(source), files.fstat(source)
    try:
        while True:
            if names:
                inner = _entry(source, target, names.pop())
                if inner:
                    above.append((names, found))
                    source = _into(source, inner)
                    target = _into(target, inner)
                    names, found = files.listdir(source), files.fstat(source)
                continue
            if not above:
                return  # the top stays as it was mounted
            files.fchown(target, found.st_uid, found.st_gid)
            files.fchmod(target, found.st_mode & 0o7777)
            names, found = above.pop()
            source = _into(source, "..")
            target = _into(target, "..")
            there = files.fstat(source)
            if (there.st_dev, there.st_ino) != (found.st_dev, found.st_ino):
                raise Error("tmpcopyup: a directory was moved while it was being copied")
    finally:
        files.close(source)
        files.close(target)


def _again(fd: int) -> int:
    """Open a directory anew, so that it can be read; the caller keeps his."""
    return files.open(".", files.O_RDONLY | files.O_DIRECTORY, dir_fd=fd)


def _into(fd: int, name: str) -> int:
    """Go from one directory to another, closing the first."""
    flags = files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW
    inner = files.open(name, flags, dir_fd=fd)
    files.close(fd)
    return inner


def _entry(source_fd: int, target_fd: int, name: str) -> str:
    """Copy one entry; return the name of a directory, which was made and is still empty."""
    found = files.lstat(name, dir_fd=source_fd)
    kind = files.kind(found)
    if kind == files.S_IFLNK:
        entries.symlink(entries.readlink(name, dir_fd=source_fd), name, dir_fd=target_fd)
        entries.chown(name, found.st_uid, found.st_gid, dir_fd=target_fd, follow=False)
        return ""
    if kind == files.S_IFDIR:
        entries.mkdir(name, 0o700, dir_fd=target_fd)
        return name
    if kind != files.S_IFREG:
        entries.mknod(name, found.st_mode, found.st_rdev, dir_fd=target_fd)
        entries.chown(name, found.st_uid, found.st_gid, dir_fd=target_fd, follow=False)
        return ""
    looked_at = files.open(name, _NOFOLLOW, dir_fd=source_fd)
    try:
        # Opening a device has effects, and somebody may have put one here meanwhile.  Or another
        # file: mode and owner are those of the one whose contents are copied.
        found = files.fstat(looked_at)
        if files.kind(found) != files.S_IFREG:
            raise OSError(ELOOP, "open", name)
        inner = files.open(f"/proc/self/fd/{looked_at}", files.O_RDONLY)
    finally:
        files.close(looked_at)
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
    outer = files.open(name, flags, 0o600, dir_fd=target_fd)
    try:
        while True:
            data = files.read(inner, _CHUNK)
            if not data:
                break
            files.write_all(outer, data)
        files.fchown(outer, found.st_uid, found.st_gid)
        files.fchmod(outer, found.st_mode & 0o7777)
        for attribute in inodes.flistxattr(inner):
            inodes.fsetxattr(outer, attribute, inodes.fgetxattr(inner, attribute))
        posix.utime(outer, ns=(found.st_atime_ns, found.st_mtime_ns))
    finally:
        files.close(inner)
        files.close(outer)
    return ""
