"""What is opened in the container's mount namespace with the rights of the host.

Side: host, cold.  Root of a user namespace may not search a directory of an owner who is not
mapped.  So a child of ours enters the mount namespace of init, and nothing else, and hands over
descriptors: flags that the user namespace has locked there stay locked.  Init only names which
of the sources of config.json it could not open, by their numbers, before its first mount.

Source: setns(2).
"""

from __future__ import annotations

import posix

from . import launch
from ..base import inroot
from ..errors import CONTRACT, Error, named, reason, strerror
from ..linux import entries, files, processes, sockets, spawn, tasks
from ..linux.const import CLONE_NEWNS
from ..linux.errnos import EACCES, EPERM
from ..wire import channel

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    Opened = int | str


def answer(init: launch.Init, payload: bytes) -> None:
    """Open the sources with the numbers in the frame for init; each only once.

    Of a mount that is to be id-mapped it gets the copy, made from what it has mounted by then.
    """
    try:
        numbers = channel.unpacked(payload)
    except ValueError:
        raise Error(f"unexpected sources while {init.waiting}") from None
    steps = []
    for index in numbers:
        mapped = init.mapped.pop(index, None)
        if mapped is not None:
            from . import idmapped

            _hand_on(init, idmapped.mount(*mapped))
            continue
        step = init.sources.pop(index, None)
        if step is None:
            raise Error(f"unexpected source {index} while {init.waiting}")
        steps.append(step)
    if not steps:
        return
    try:
        found = within(init.subject(), lambda: [_open(*step) for step in steps])
    except OSError as error:
        if error.errno not in (EACCES, EPERM):
            raise
        raise _refused(steps[0], EACCES) from None  # no more rights than init has
    for one in found:
        if isinstance(one, str):
            init.send(channel.OPENED, one.encode("utf-8", "surrogateescape"))
        else:
            _hand_on(init, one)


def _hand_on(init: launch.Init, fd: int) -> None:
    try:
        init.send(channel.OPENED, b"", [fd])
    finally:
        files.close(fd)


def _open(where: str, index: int, path: str, link: str, *rest: Any) -> Opened:
    try:
        return inroot.source(path, link)
    except OSError as error:
        raise _refused((where, index, path, link, *rest), error.errno or 0) from None


def _refused(step: Sequence[Any], number: int) -> Error:
    where, _, path, _, destination, *_ = step
    why = f"stat {path}: {strerror(number)}"
    text = CONTRACT["mount"].format(source=path, destination=destination, reason=why)
    return Error(f"{where}: {text}")


def within(
    pid: int, work: Callable[[], Sequence[Opened]], fresh: bool = False, pidfd: int = -1
) -> list[Opened]:
    """Return what `work` opens in the mount namespace of a process: descriptors, or texts.

    The process is a child of ours, or who has `pidfd`: another that got its number since is not
    entered.  With `fresh` in a copy of that namespace, which has no mounts of mount namespaces in
    it.  Raises Error as `work` does, OSError where the namespace may not be entered.
    """
    near, far = named("socketpair", sockets.pair)
    child = posix.fork()
    if child == 0:
        line = channel.Channel(far)
        try:
            files.close(near)
            _enter(pid, fresh, pidfd)
            for one in work():
                if isinstance(one, str):
                    line.send(channel.OPENED, one.encode("utf-8", "surrogateescape"))
                else:
                    line.send(channel.OPENED, b"", [one])
            line.send(channel.DONE)
        except Error as error:
            line.send(channel.ERROR, f"{error.text}\0{error.hint}".encode("utf-8", "replace"))
        except OSError as error:
            line.send(channel.FULL, f"{error.errno or 0}".encode())
        except BaseException as error:
            line.send(channel.ERROR, f"bug in anocir: {reason(error)}".encode("utf-8", "replace"))
        finally:
            posix._exit(0)
    files.close(far)
    line = channel.Channel(near)
    found: list[Opened] = []
    try:
        while True:
            kind, payload = line.receive()
            if kind == channel.DONE:
                done, found = found, []
                return done
            if kind == channel.OPENED:
                text = payload.decode("utf-8", "surrogateescape")
                found.append(line.fds.pop() if line.fds else text)
            elif kind == channel.ERROR:
                raise launch.error_of(payload)
            elif kind == channel.FULL:
                raise OSError(int(payload), "enter", f"the mount namespace of process {pid}")
            else:
                raise Error("who opens the sources of mounts has died")
    finally:
        line.close()
        for one in found:
            if isinstance(one, int):
                files.close(one)
        spawn.wait(child)


def in_container(pid: int, pidfd: int, work: Callable[[int], Sequence[Opened]]) -> list[Opened]:
    """Do what `within` does, with the host's /proc as the argument of `work`.

    In there the path leads to whatever the container has put in that place.
    """
    proc = files.open("/proc", files.O_PATH | files.O_DIRECTORY)
    try:
        return within(pid, lambda: work(proc), pidfd=pidfd)
    finally:
        files.close(proc)


def _enter(pid: int, fresh: bool, pidfd: int) -> None:
    directory = processes.directory(pid)
    root = files.open("root", files.O_PATH | files.O_DIRECTORY, dir_fd=directory)
    theirs = files.open("ns/mnt", files.O_RDONLY, dir_fd=directory)
    if pidfd >= 0 and processes.exited(pidfd):
        raise Error(CONTRACT["not running"])
    tasks.setns(theirs, CLONE_NEWNS)
    files.fchdir(root)
    entries.chroot(".")
    if fresh:
        tasks.unshare(CLONE_NEWNS)
