"""Start the second interpreter, from a sealed copy.

Side: host.

The interpreter is the target: a process of the container that reaches /proc/PID/exe of init could
overwrite the host's python3 (CVE-2019-5736).  So init runs from a sealed copy, and it is started
first of all: it boots on one core while this side reads, checks and plans on the other.  What this
module imports delays both sides, so it is little.
"""

from __future__ import annotations

import posix

from ..errors import Error, reason
from ..linux import descriptors, entries, files, mounts, processes, sockets, spawn
from ..linux.const import AT_EMPTY_PATH, MOUNT_ATTR_RDONLY, OPEN_TREE_CLONE
from ..linux.errnos import ENOENT, EPERM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

# Where the modules come from for the second interpreter: from the start of the archive, as for the
# first one, or from the source directory.
_ARCHIVE: Final = "/site-packages"
_BOOT_ARCHIVE: Final = (
    'entry="anocir.inside.init";import sys,marshal;f=open(sys.argv.pop(1),"rb");f.readline();'
    "exec(marshal.load(f))"
)
_BOOT_SOURCE: Final = (
    "import sys;sys.path[:0]=[sys.argv.pop(1)];from anocir.inside.init import main;main()"
)

_MFD_EXEC: Final = 0x10  # include/uapi/linux/memfd.h: asked for since Linux 6.3, unknown before

# What `early` has started and no command has taken: its pid, our end of the channel.
_early: tuple[int, int] | None = None


def early(import_path: str) -> None:
    """Start init before the command line is read.

    It boots on the other core while this side imports, reads and plans.
    """
    global _early
    try:
        _early = start(import_path, 0)
    except (Error, OSError) as error:
        # `launch.ahead` tries again, and reports it as the command's failure.
        from ..base import log

        log.debug(f"starting init early: {reason(error)}")


def take_early() -> tuple[int, int] | None:
    """Hand out what `early` has started."""
    global _early
    started, _early = _early, None
    return started


def drop_early() -> None:
    """End the init that was started early and that no command has taken."""
    started = take_early()
    if started is not None:
        pid, line = started
        files.close(line)
        processes.kill(pid, processes.SIGKILL)
        spawn.wait(pid)


def start(import_path: str, preserved: int, holes: Sequence[int] = ()) -> tuple[int, int]:
    """Start the sealed interpreter; it imports what init needs and waits for its plan.

    `preserved` descriptors from 3 on are the container's, but for `holes`; all others of the
    caller's it closes.  Returns its pid and our end of the channel.
    """
    interpreter = entries.readlink("/proc/self/exe")
    sealed, executable = seal(interpreter)
    mine, theirs = sockets.pair()
    theirs_high = descriptors.dup_above(theirs, 3 + preserved)
    files.close(theirs)
    files.set_inheritable(theirs_high, True)
    path, boot_code = import_path, _BOOT_SOURCE
    if path.endswith(_ARCHIVE):
        path, boot_code = path[: -len(_ARCHIVE)], _BOOT_ARCHIVE
    # By descriptor: init's command line is seen in the container.
    opened = files.open(path, files.O_RDONLY)
    archive = descriptors.dup_above(opened, 3 + preserved)
    files.close(opened)
    files.set_inheritable(archive, True)
    argv = [
        files.encode(interpreter), b"-IBS", b"-X", b"utf8", b"-c", boot_code.encode(),
        f"/proc/self/fd/{archive}".encode(), str(theirs_high).encode(), str(preserved).encode(),
        str(archive).encode(),
    ]  # fmt: skip
    try:
        pid = spawn.spawn(files.encode(executable), argv, {}, _occupied(holes), session=False)
    finally:
        files.close(theirs_high)
        files.close(archive)
        # Not before init is started: taking a mount apart waits for a grace period of RCU.
        files.close(sealed)
    return pid, mine


def _occupied(holes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return what posix_spawn(3) has to do so that init finds its holes occupied."""
    if not holes:
        return []
    null = descriptors.dup_above(files.open("/dev/null", files.O_PATH), max(holes) + 1)
    return [(posix.POSIX_SPAWN_DUP2, null, fd) for fd in holes]


def holes(preserved: int) -> list[int]:
    """Return those of the descriptors to pass on, from 3 on, that the caller has not open.

    Each of them is occupied, so that no file of ours comes to lie there: by one of ours that
    closes itself in execve, or by a descriptor that leads nowhere.
    """
    found = []
    for fd in range(3, 3 + preserved):
        try:
            if posix.get_inheritable(fd):
                continue
        except OSError:
            # The lowest free number, which is this one.
            files.set_inheritable(files.open("/dev/null", files.O_PATH), True)
        found.append(fd)
    return found


def seal(path: str) -> tuple[int, str]:
    """Return a descriptor, and a path through it by which nobody can write to the file.

    Three ways, the first that works: a read-only overlay (its mount can only be unwrapped by
    who could write anyway), a detached read-only copy of the mount (safe because its mount
    descriptor is closed before the plan is sent), a sealed memory file.  Without a seal it fails.
    """
    failures = []
    for way in (seal_overlay, seal_mount, seal_memory):
        try:
            return way(path)
        except OSError as error:
            failures.append(f"{way.__name__}: {reason(error)}")
    raise Error("cannot seal the interpreter: " + "; ".join(failures))


def seal_overlay(path: str) -> tuple[int, str]:
    """Reach the file through an overlay of two lower directories and no upper one."""
    directory, _, name = path.rpartition("/")
    if any(char in directory for char in ":,\\"):
        raise OSError(EPERM, "fsconfig", directory)
    other = "/etc" if directory != "/etc" else "/usr"
    fs_fd = mounts.fsopen("overlay")
    try:
        mounts.fsconfig_string(fs_fd, "lowerdir", f"{directory}:{other}")
        mounts.fsconfig_create(fs_fd)
        mount_fd = mounts.fsmount(fs_fd, MOUNT_ATTR_RDONLY)
    finally:
        files.close(fs_fd)
    return _through(mount_fd, name, path)


def seal_mount(path: str) -> tuple[int, str]:
    """Reach the file through a detached read-only copy of its mount."""
    directory, _, name = path.rpartition("/")
    fd = files.open(directory or "/", files.O_PATH | files.O_DIRECTORY)
    try:
        mount_fd = mounts.open_tree(fd, "", OPEN_TREE_CLONE | AT_EMPTY_PATH)
    finally:
        files.close(fd)
    try:
        mounts.mount_setattr(mount_fd, AT_EMPTY_PATH, MOUNT_ATTR_RDONLY)
    except OSError:
        files.close(mount_fd)
        raise
    return _through(mount_fd, name, path)


def _through(mount_fd: int, name: str, path: str) -> tuple[int, str]:
    """Return a detached mount and the path of the file in it.

    Raises OSError if what it shows there is not the file of this `path`, which then is a mount
    point itself.
    """
    inside = f"/proc/self/fd/{mount_fd}/{name}"
    try:
        shown, meant = files.stat(inside), files.stat(path)
        if (shown.st_size, shown.st_mtime_ns) != (meant.st_size, meant.st_mtime_ns):
            raise OSError(ENOENT, "stat", inside)
    except OSError:
        files.close(mount_fd)
        raise
    return mount_fd, inside


def seal_memory(path: str) -> tuple[int, str]:
    """Copy the file into memory and seal it: F_SEAL_SEAL, SHRINK, GROW, WRITE (fcntl(2))."""
    import fcntl

    source = files.open(path, files.O_RDONLY)
    try:
        flags = posix.MFD_CLOEXEC | posix.MFD_ALLOW_SEALING
        try:
            fd = posix.memfd_create("anocir", flags | _MFD_EXEC)
        except OSError:
            fd = posix.memfd_create("anocir", flags)
        while posix.sendfile(fd, source, None, 1 << 30):
            continue
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    finally:
        files.close(source)
    # An executable must not be open for writing: take a read-only descriptor of the same file.
    sealed = files.open(f"/proc/self/fd/{fd}", files.O_PATH)
    files.close(fd)
    return sealed, f"/proc/self/fd/{sealed}"
