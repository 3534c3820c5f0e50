"""Paths strictly inside the container's root.

Side: init, and host (checkpoint, restore).  The files below the root are the image's, and a process
in another container may change them at the same time.  So a path is never joined as text and never
looked up twice: it is resolved from the descriptor of the root by openat2(2) with RESOLVE_IN_ROOT,
in which `..` and absolute links stay inside, and all work is done on the descriptor that comes out.

Where openat2 is missing (Linux < 5.6) or forbidden, and where parts of the path have to be made,
the path is walked one component at a time without ever following a link implicitly.
Sources: openat2(2); CVE-2019-19921, CVE-2021-30465, CVE-2024-45310.
"""

from __future__ import annotations

from ..linux import entries, files, inodes
from ..linux.const import (
    PROC_SUPER_MAGIC,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
    RESOLVE_NO_SYMLINKS,
)
from ..linux.errnos import EAGAIN, EEXIST, ELOOP, ENOENT, ENOSYS, ENOTDIR, EPERM, EXDEV

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Final

    May = Callable[[int], None]

_RETRIES: Final = 128
_MAX_LINKS: Final = 40  # as the kernel's MAXSYMLINKS

# Whether openat2 works; the tests turn it off to run the walk in its place.
use_openat2 = True


def open(  # noqa: A001
    root_fd: int, path: str, flags: int = files.O_PATH, follow_links: bool = True
) -> int:
    """Open what `path` means inside the root.  Returns a descriptor the caller owns.

    Without `follow_links` a link anywhere in the path is ELOOP.
    """
    global use_openat2
    if use_openat2:
        resolve = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
        if not follow_links:
            resolve |= RESOLVE_NO_SYMLINKS
        for _ in range(_RETRIES):
            try:
                return inodes.openat2(root_fd, path or "/", flags, resolve)
            except OSError as error:
                if error.errno == EAGAIN:
                    continue  # a rename raced with a .. of the path
                if error.errno == ENOSYS or (error.errno == EPERM and flags & files.O_PATH):
                    use_openat2 = False  # an old kernel, or a seccomp filter around us
                    break
                raise OSError(error.errno, "openat2", path) from None
        else:
            raise OSError(EAGAIN, "openat2", path)
    fd = _walk(root_fd, path, follow_links, make=None)
    if flags & files.O_DIRECTORY and files.kind(files.fstat(fd)) != files.S_IFDIR:
        files.close(fd)
        raise OSError(ENOTDIR, "open", path)
    if flags & files.O_PATH:
        return fd
    return _reopen(fd, flags, path)


def _reopen(fd: int, flags: int, path: str) -> int:
    try:
        return files.open(f"/proc/self/fd/{fd}", flags & ~files.O_NOFOLLOW)
    except OSError as error:
        raise OSError(error.errno, "open", path) from None
    finally:
        files.close(fd)


def source(path: str, link: str, root_fd: int = -1) -> int | str:
    """Open the source of a bind mount (O_PATH): as the caller sees it, or inside a root.

    `link` says what a symbolic link there is: "follow", "nofollow", or "copy", which returns its
    text.
    """
    directory = None
    if root_fd >= 0:
        if link == "follow":
            return open(root_fd, path)
        above, _, path = path.rstrip("/").rpartition("/")
        directory = open(root_fd, above or "/")
    try:
        if link == "copy":
            found = files.lstat(path or ".", directory)
            if files.kind(found) == files.S_IFLNK:
                return entries.readlink(path, directory)
        flags = files.O_PATH | (0 if link == "follow" else files.O_NOFOLLOW)
        return files.open(path or ".", flags, dir_fd=directory)
    finally:
        if directory is not None:
            files.close(directory)


def beneath(root: str, path: str) -> str:
    """Return where in the root a path of the host leads that does not exist; empty if elsewhere.

    By the links of the host in the part that is there, for one whose text does not tell.
    """
    above, rest = path.rstrip("/"), ""
    while above and not files.exists(above):
        above, _, name = above.rpartition("/")
        rest = f"/{name}{rest}"
    top, found = _real(root).rstrip("/"), _real(above or "/")
    if ".." in rest.split("/") or not (found + "/").startswith(top + "/"):
        return ""
    return found.rstrip("/")[len(top) :] + rest


def _real(path: str) -> str:
    fd = files.open(path, files.O_PATH)
    try:
        return entries.readlink(f"/proc/self/fd/{fd}")
    finally:
        files.close(fd)


def make_directory(root_fd: int, path: str, mode: int = 0o755, may_make: May | None = None) -> int:
    """Open the directory `path`, making it and its parents where they are missing (O_PATH).

    A link that points nowhere is followed inside the root and what it names is made.  `may_make`
    gets the directory in which something would be made, and raises where that must not be.
    """
    try:
        fd = open(root_fd, path, files.O_PATH | files.O_DIRECTORY)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        fd = _make_last(root_fd, path, mode, may_make)
        if fd < 0:
            fd = _walk(root_fd, path, follow_links=True, make=mode, may_make=may_make)
    return fd


def _make_last(root_fd: int, path: str, mode: int, may_make: May | None) -> int:
    """Make a directory in one that is there, and open it; -1 where that is not all there is to do.

    Half of the system calls of the walk.
    """
    above, _, name = path.rpartition("/")
    if name in ("", ".", "..") or not use_openat2:
        return -1
    flags = files.O_PATH | files.O_DIRECTORY
    try:
        directory = open(root_fd, above or "/", flags)
    except OSError:
        return -1
    try:
        if may_make is not None:
            may_make(directory)
        entries.mkdir(name, mode, dir_fd=directory)
        return files.open(name, flags | files.O_NOFOLLOW, dir_fd=directory)
    except OSError:  # a link that points nowhere, or somebody else was faster
        return -1
    finally:
        files.close(directory)


def make_file(root_fd: int, path: str, may_make: May | None = None) -> int:
    """Open `path` whatever it is (O_PATH), making an empty file where nothing is."""
    try:
        return open(root_fd, path)
    except OSError as error:
        if error.errno != ENOENT:
            raise
    return _walk(root_fd, path, follow_links=True, make=0o755, file=True, may_make=may_make)


def parent(root_fd: int, path: str, may_make: May | None = None) -> tuple[int, str]:
    """Return (descriptor, name) for the last component of `path`, making its directory."""
    directory, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(EEXIST, "open", path)
    return make_directory(root_fd, directory or "/", may_make=may_make), name


def _walk(
    root_fd: int,
    path: str,
    follow_links: bool,
    make: int | None,
    file: bool = False,
    may_make: May | None = None,
) -> int:
    """Resolve `path` one component at a time; `make` is the mode for missing directories.

    The stack holds the descriptors from the root down, so `..` is a pop and cannot leave it.
    """
    todo = _parts(path)
    stack = [files.open(".", files.O_PATH | files.O_DIRECTORY, dir_fd=root_fd)]
    links = 0
    try:
        while todo:
            name = todo.pop()
            if name == ".":
                continue
            if name == "..":
                if len(stack) > 1:
                    files.close(stack.pop())
                continue
            fd = _step(stack[-1], name, make, file and not todo, path, may_make)
            kind = files.kind(files.fstat(fd))
            if kind == files.S_IFLNK:
                target = entries.readlink("", dir_fd=fd)
                if inodes.fstatfs_type(fd) == PROC_SUPER_MAGIC:  # a magic link
                    files.close(fd)
                    raise OSError(ELOOP, "open", path)
                files.close(fd)
                links += 1
                if links > _MAX_LINKS or not follow_links:
                    raise OSError(ELOOP, "open", path)
                if target.startswith("/"):
                    while len(stack) > 1:
                        files.close(stack.pop())
                todo += _parts(target)
            else:
                stack.append(fd)
                if todo and kind != files.S_IFDIR:
                    raise OSError(ENOTDIR, "open", path)
        if make is not None and not file:
            kind = files.kind(files.fstat(stack[-1]))
            if kind != files.S_IFDIR:
                raise OSError(ENOTDIR, "open", path)
        return stack.pop()
    finally:
        for fd in stack:
            files.close(fd)


def _parts(path: str) -> list[str]:
    """Return the components, the last one first; what a slash or a dot follows is a directory."""
    parts = [part for part in path.split("/") if part]
    if path.endswith("/"):
        parts.append(".")
    return parts[::-1]


def _step(
    dir_fd: int, name: str, make: int | None, file: bool, path: str, may_make: May | None
) -> int:
    """Open one component without following it, making it if it is missing."""
    flags = files.O_PATH | files.O_NOFOLLOW
    for _ in range(_RETRIES):
        try:
            return files.open(name, flags, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != ENOENT or make is None:
                raise OSError(error.errno, "open", path) from None
        if may_make is not None:
            may_make(dir_fd)
        try:
            if file:
                flags_new = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
                files.close(files.open(name, flags_new, 0o644, dir_fd=dir_fd))
            else:
                entries.mkdir(name, make, dir_fd=dir_fd)
        except OSError as error:
            if error.errno != EEXIST:  # EEXIST: somebody else was faster, look again
                raise OSError(error.errno, "mkdir", path) from None
    raise OSError(EXDEV, "open", path)
