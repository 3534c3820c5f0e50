"""What a test left behind: mounts, cgroups, processes, keyrings, state directories, files in /run.

A container that was deleted must have left nothing of all this; the fixture in the tiers' conftest asks after
every test, and clears away what it finds, so that one leak does not make the next forty tests fail.
"""

from __future__ import annotations

import os
import signal
from typing import Iterable

from tests import drive, machine
from tests.wait import last

PATIENCE = drive.PATIENCE / 3
"""Seconds that the kernel may take to free a dying cgroup or keyring."""


class Snapshot:
    """The machine before a test."""

    __slots__ = ("children", "mounts", "parent", "root")

    def __init__(self, parent: str, root: str) -> None:
        self.parent = parent
        self.root = root
        self.mounts = _mounts()
        self.children = machine.children()

    def leftovers(self, ids: Iterable[str]) -> list[str]:
        """What is there now and was not before; waits a moment for what is on its way out."""
        names = list(ids)
        found: list[str] = last(
            lambda: self._look(names), PATIENCE, 0.02, found=lambda left: not left
        )
        return found

    def _look(self, ids: list[str]) -> list[str]:
        drive.reap()
        found = [f"mount: {point}" for key, point in _mounts().items() if key not in self.mounts]
        for directory in cgroups(self.parent, ids):
            pids = _pids_of(directory)
            users = ", ".join(f"{pid} ({machine.command_of(pid)})" for pid in pids)
            found.append(f"cgroup: {directory}" + (f" with {users}" if users else ""))
        for pid in machine.children() - self.children - drive.OWN:
            found.append(f"process: {pid} ({machine.command_of(pid)})")
        found += [f"keyring: {line}" for line in _keyrings(ids)]
        found += [f"state: {path}" for path in _states(self.root, ids)]
        found += [f"file: {path}" for path in _files(ids)]
        return found

    def clear(self, ids: Iterable[str]) -> None:
        """Kill, unmount and remove what `leftovers` told of."""
        directories = cgroups(self.parent, list(ids))
        for directory in directories:
            _thaw(directory)
            for pid in _pids_of(directory):
                _kill(pid)
        for pid in machine.children() - self.children - drive.OWN:
            _kill(pid)
        drive.reap()
        for key, point in reversed(list(_mounts().items())):
            if key not in self.mounts:
                machine.umount(point, machine.MNT_DETACH)

        def removed() -> bool:
            drive.reap()
            directories[:] = [path for path in directories if not rmdir(path)]
            return not directories

        last(removed, PATIENCE)


def cgroups(parent: str, ids: list[str]) -> list[str]:
    """Every cgroup below the tests' parent or named after a container, deepest first."""
    found = []

    def look(directory: str, inside: bool) -> None:
        for name in machine.cgroups_in(directory):
            path = os.path.join(directory, name)
            if inside or any(one in name for one in ids):
                found.append(path)
            elif name.startswith("anocir-") and f"/{name}" != parent:
                continue  # of another test run
            look(path, inside or path == top + parent)

    for hierarchy in machine.hierarchies():
        top = hierarchy.mountpoint
        look(top, inside=False)
    return found[::-1]


def dig(top: str, names: Iterable[str]) -> int:
    """Make directories below one another, deeper than a path may be long; return a descriptor of the last."""
    fd = os.open(top, os.O_DIRECTORY)
    for name in names:
        os.mkdir(name, dir_fd=fd)
        below = os.open(name, os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    return fd


def _mounts() -> dict[tuple[str, str], str]:
    return {(row[0][0], row[0][4]): row[0][4] for row in machine.mountinfo()}


def _pids_of(directory: str) -> list[int]:
    try:
        with open(os.path.join(directory, "cgroup.procs")) as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def _thaw(directory: str) -> None:
    for name, text in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
        path = os.path.join(directory, name)
        if os.path.exists(path):
            machine.write_file(path, text)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def rmdir(path: str) -> bool:
    """Remove a cgroup; whether it is gone."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _keyrings(ids: list[str]) -> list[str]:
    try:
        with open("/proc/keys") as file:
            lines = file.read().splitlines()
    except OSError:
        return []
    return [line for line in lines if any(one + ":" in line for one in ids)]


def _states(root: str, ids: list[str]) -> list[str]:
    found = []
    for directory, names, files in os.walk(root):
        for name in names + files:
            if any(one == name or one in name for one in ids):
                found.append(os.path.join(directory, name))
        if os.path.relpath(directory, root).count("/") >= 2:
            names.clear()
    return found


def _files(ids: list[str]) -> list[str]:
    found = []
    for top, depth in (("/run", 2), ("/dev/shm", 0), ("/tmp", 0)):
        for directory, names, files in os.walk(top):
            for name in names + files:
                if any(one in name for one in ids):
                    found.append(os.path.join(directory, name))
            if directory[len(top) :].count("/") >= depth:
                names.clear()
    return found
