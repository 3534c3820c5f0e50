"""The container's pty.

Side: inside.  Sources: pty(7), ioctl_tty(2), CVE-2025-52565.
"""

from __future__ import annotations

from _struct import pack

import posix

from ..base import inroot
from ..errors import Error
from ..linux import descriptors, files, inodes, terminals
from ..linux.const import DEVPTS_SUPER_MAGIC, TIOCGPTN, TIOCGPTPEER, TIOCSPTLCK
from ..linux.errnos import ENOENT
from ..wire import channel
from . import attach, places, procfs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from .context import Context

_UNIX98_PTY_SLAVE_MAJOR: Final = range(136, 144)


def console(context: Context, uid: int, height: int, width: int, bind: bool, own: bool) -> None:
    """Open a pty in the container's devpts and make it our standard streams.

    The slave comes from the master by TIOCGPTPEER, never by its name, which the image could
    have put something else under.  The master goes up the channel.  Unless it is our `own`, it
    is for the session of the process that is cloned later.
    """
    master = _multiplexer(context)
    descriptors.ioctl(master, TIOCSPTLCK, pack("=i", 0))
    flags = files.O_RDWR | files.O_NOCTTY | files.O_CLOEXEC
    slave = descriptors.ioctl(master, TIOCGPTPEER, flags)
    if not isinstance(slave, int):
        raise Error("no slave for the pty")
    if posix.major(files.fstat(slave).st_rdev) not in _UNIX98_PTY_SLAVE_MAJOR:
        raise Error("the slave of the pty is another device")
    if height or width:
        terminals.set_size(slave, (height, width))
    if uid:
        files.fchown(slave, uid, -1)
    if bind:
        _bind_console(context, slave)
    number = descriptors.ioctl(master, TIOCGPTN, bytes(4))
    index = int.from_bytes(number, "little") if isinstance(number, bytes) else 0
    context.channel.send(channel.CONSOLE, f"/dev/pts/{index}".encode(), [master])
    files.close(master)
    if own:
        terminals.control(slave)
    for fd in (0, 1, 2):
        files.dup2(slave, fd)
    files.close(slave)


def _multiplexer(context: Context) -> int:
    """Open ptmx of the container's devpts, once it has proved to be that and no other device."""
    try:
        seen = inroot.open(context.root_fd, "/dev/pts/ptmx", files.O_PATH, follow_links=False)
    except OSError as error:
        if error.errno != ENOENT:
            raise
        raise Error("a terminal needs a mount of type devpts on /dev/pts") from None
    try:
        found = files.fstat(seen)
        wanted = (files.S_IFCHR, files.makedev(5, 2))
        if inodes.fstatfs_type(seen) != DEVPTS_SUPER_MAGIC or files.device(found) != wanted:
            raise Error("/dev/pts/ptmx of the container is not the pty multiplexer")
        return procfs.reopen(context, seen, files.O_RDWR | files.O_NOCTTY)
    finally:
        files.close(seen)


def _bind_console(context: Context, slave: int) -> None:
    """Mount the slave on /dev/console, a plain file that is never reached by a link."""
    directory = places.make_directory(context, "/dev")
    try:
        if places.bind_at(context, directory) is None:
            flags = files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW | files.O_WRONLY
            try:
                files.close(files.open("console", flags, 0o666, dir_fd=directory))
            except FileExistsError:
                pass
        elif not files.exists("console", dir_fd=directory):
            return  # the caller brings a /dev, in which nothing is made
        target = files.open("console", files.O_PATH | files.O_NOFOLLOW, dir_fd=directory)
        if files.kind(files.fstat(target)) in (files.S_IFLNK, files.S_IFDIR):
            raise Error("/dev/console of the image is a link or a directory")
        bound = attach.bind(
            slave,
            target,
            lambda: files.open("console", files.O_PATH | files.O_NOFOLLOW, dir_fd=directory),
            False,
            attach.NO_FLAGS,
        )
        files.close(bound)
        files.close(target)
    finally:
        files.close(directory)
