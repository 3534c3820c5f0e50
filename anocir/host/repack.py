"""Add a block of modules for this Python to the archive.

Side: host.  Cold.  The file is replaced at once, since containers may be made by it meanwhile, and
it is locked while it is read and replaced: of two at once for two Pythons both blocks are kept.
"""

from __future__ import annotations

import marshal
import posix
import sys
import time

from ..base import archive
from ..errors import Error, strerror
from ..linux import descriptors, entries, files
from ..linux.errnos import EISDIR, ENOENT, ENOTSUP

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

_PATIENCE: Final = 60  # seconds
# Not that of the integrity subsystem (security.ima): it is about the content.
_ATTRIBUTES: Final = ("security.selinux", "system.posix_acl_access")


def repack(path: str, output: str, old: str = "") -> str:
    """Add a block to the archive at `path`, or write one that has it to `output`.

    `old` is another archive, of which what has not changed is taken.  Returns what it has done, for
    people.  Raises Error, and OSError with the file's name.
    """
    path = _real(path)
    found = archive.parse(files.read_file(path))
    magic: bytes = sys.modules["_frozen_importlib_external"].MAGIC_NUMBER
    known = found.block(magic)
    block = known or _compile(path, old)
    target = _real(output) if output else path
    if files.exists(target) and files.kind(files.stat(target)) != files.S_IFREG:
        raise Error(f"repack: {target}: this is no file that could be replaced")
    if target != path:
        found.add(block)
        _replace(target, found.pack(), -1, f"-{posix.getpid()}")
    elif known is None:
        fd = _lock(path)
        try:
            now = archive.parse(files.read_fd(fd))
            if now.zip != found.zip:
                raise Error(f"{path}: it has been replaced by another one meanwhile")
            if now.block(magic) is None:
                now.add(block)
            _replace(path, now.pack(), fd, "")
            found = now
        finally:
            files.close(fd)
    else:
        return f"{path}: has a block for {archive.listed({magic: known.version})} already\n"
    return f"{target}: {archive.listed(found.versions())}\n"


def block_of(path: str, old: str) -> bytes:
    """Return the block of the archive at `path` for this Python, marshalled.

    The same bytes for the same sources and Python, if that was started as `_compile` does.
    """
    from ..base import compiler

    sources = archive.parse(files.read_file(path)).sources()
    made = compiler.compile_block(sources, archive.parse(files.read_file(old)) if old else None)
    return marshal.dumps((made.magic, made.version, made.data))


def _compile(path: str, old: str) -> archive.Block:
    """Compile in an interpreter of its own, whose state does not depend on how ours was started."""
    import os
    import subprocess

    environment = {name: value for name, value in os.environ.items() if name[:6] != "PYTHON"}
    environment["PYTHONHASHSEED"] = "0"
    # Columns of the source are a third of the code, and for tracebacks only.
    python = [sys.executable or "/proc/self/exe", "-BSs", "-X", "no_debug_ranges"]
    command = [*python, path, "repack", "--compile", f"--old={old}"]
    made = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False
    )
    if made.returncode:
        said = made.stderr.decode("utf-8", "replace").strip().partition("\n")[0]
        raise Error(f"compiling for {python[0]}: {said or f'status {made.returncode}'}")
    return archive.Block(*marshal.loads(made.stdout))


def _real(path: str) -> str:
    """Return the path of the file itself: a link to it stays a link."""
    from os.path import realpath

    return realpath(path)


def _lock(path: str) -> int:
    """Return a descriptor of the file that has the name once it is locked."""
    last = time.monotonic() + _PATIENCE
    while True:
        fd = files.open(path, files.O_RDONLY)
        if descriptors.flock(fd, wait=False):
            mine, named = files.fstat(fd), files.stat(path)
            if (mine.st_dev, mine.st_ino) == (named.st_dev, named.st_ino):
                return fd
        files.close(fd)
        if time.monotonic() > last:
            raise Error(f"{path}: another process keeps it locked")
        time.sleep(0.02)


def _replace(path: str, data: bytes, like_fd: int, suffix: str) -> None:
    """Let the file have this content at once, with the owner, mode and label of the old one."""
    directory, _, name = path.rpartition("/")
    directory = directory or "/"
    temporary = f"{directory}/.{name}.repack{suffix}"
    try:
        if not suffix and files.exists(temporary):
            files.unlink(temporary)  # of one that was killed: we have the lock
        fd, named = _new(directory, temporary)
        try:
            files.write_all(fd, data)
            _dress(fd, like_fd)
            posix.fsync(fd)
            if not named:
                # link(2) does not follow the link in /proc, linkat(2) does.
                posix.link(f"/proc/self/fd/{fd}", temporary, src_dir_fd=fd, follow_symlinks=True)
                named = True
            entries.rename(temporary, path)
        except BaseException:
            if named:
                files.unlink(temporary)
            raise
        finally:
            files.close(fd)
    except OSError as error:
        raise Error(
            f"{directory}: {strerror(error.errno or 0)}",
            "anocir repack --output FILE writes to another place",
        ) from None


def _new(directory: str, temporary: str) -> tuple[int, bool]:
    """Return a new file, and whether it has a name; without one a kill leaves nothing behind."""
    try:
        return files.open(directory, posix.O_TMPFILE | posix.O_WRONLY, 0o600), False
    except OSError as error:
        # A file system without it; EISDIR and ENOENT: a kernel without it.
        if error.errno not in (ENOTSUP, EISDIR, ENOENT):
            raise
    flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
    return files.open(temporary, flags, 0o600), True


def _dress(fd: int, like_fd: int) -> None:
    """Give a file the owner, the mode and the labels of another, or those of a new program."""
    if like_fd < 0:
        files.fchmod(fd, 0o755)
        return
    old, new = files.fstat(like_fd), files.fstat(fd)
    if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
        files.fchown(fd, old.st_uid, old.st_gid)
    files.fchmod(fd, old.st_mode & 0o7777)
    for attribute in _ATTRIBUTES:
        try:
            value = posix.getxattr(like_fd, attribute)
        except OSError:  # it has none
            continue
        posix.setxattr(fd, attribute, value)
