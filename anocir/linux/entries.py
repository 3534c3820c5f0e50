"""Entries of directories: made, renamed, given away; and where in the tree a process is.

Side: host and init.  No ctypes.  As in `files`, from which it is apart because hot commands change
no tree; with `--trace` these functions are replaced as well.
"""

from __future__ import annotations

import sys as _sys

import posix

from . import files


def mkdir(path: str | bytes, mode: int = 0o755, dir_fd: int | None = None) -> None:
    """mkdir(2) or mkdirat(2); the umask applies."""
    posix.mkdir(files.encode(path), mode, dir_fd=dir_fd)


def rename(
    source: str | bytes,
    target: str | bytes,
    source_dir_fd: int | None = None,
    target_dir_fd: int | None = None,
) -> None:
    """rename(2) or renameat(2)."""
    old, new = files.encode(source), files.encode(target)
    posix.rename(old, new, src_dir_fd=source_dir_fd, dst_dir_fd=target_dir_fd)


def symlink(target: str | bytes, path: str | bytes, dir_fd: int | None = None) -> None:
    """symlink(2): make the link `path` that says `target`."""
    posix.symlink(files.encode(target), files.encode(path), dir_fd=dir_fd)


def readlink(path: str | bytes, dir_fd: int | None = None) -> str:
    """readlink(2), as text."""
    return files.decode(posix.readlink(files.encode(path), dir_fd=dir_fd))


def mknod(path: str | bytes, mode: int, device: int = 0, dir_fd: int | None = None) -> None:
    """mknod(2); the umask applies."""
    posix.mknod(files.encode(path), mode, device, dir_fd=dir_fd)


def chmod(path: str | bytes, mode: int) -> None:
    """chmod(2): follows a symbolic link."""
    posix.chmod(files.encode(path), mode)


def chown(
    path: str | bytes, uid: int, gid: int, dir_fd: int | None = None, follow: bool = True
) -> None:
    """chown(2) or fchownat(2); -1 leaves an id as it is."""
    posix.chown(files.encode(path), uid, gid, dir_fd=dir_fd, follow_symlinks=follow)


def chdir(path: str | bytes) -> None:
    """chdir(2)."""
    posix.chdir(files.encode(path))


def chroot(path: str | bytes) -> None:
    """chroot(2)."""
    posix.chroot(files.encode(path))


def getcwd() -> str:
    """getcwd(2)."""
    return files.decode(posix.getcwdb())


def subdirectories(fd: int) -> list[str]:
    """getdents(2): the names of the directories in an open directory, by what it says they are."""
    encoding = _sys.getfilesystemencoding()
    with posix.scandir(fd) as entries:
        names = [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    return [files.decode(name.encode(encoding, "surrogateescape")) for name in names]
