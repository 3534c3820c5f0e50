"""The mounts of a process, and by which of them a descriptor was reached.

Side: host.  Cold.  Source: proc_pid_mountinfo(5), proc_pid_fdinfo(5).
"""

from __future__ import annotations

from ..errors import Error
from ..linux import files


class Mount:
    """One line: ids, what it shows, where, and what kind of file system it is."""

    __slots__ = ("device", "id", "kind", "options", "parent", "point", "root", "whole")

    def __init__(self, words: list[bytes]) -> None:
        """Take the words of a line."""
        self.id = int(words[0])
        self.parent = int(words[1])
        self.device = words[2].decode()
        self.root = _plain(words[3])
        self.point = _plain(words[4])
        dash = words.index(b"-", 6)
        self.kind = files.decode(words[dash + 1])
        # The flags of the mount, and those of the file system as a whole.
        self.options = files.decode(words[5]).split(",")
        self.whole = files.decode(words[dash + 3]).split(",")


def of(pid: int | str = "self") -> dict[int, Mount]:
    """Return the mounts that a process sees, by id, in the kernel's order."""
    lines = files.read_file(f"/proc/{pid}/mountinfo").split(b"\n")
    listed = [Mount(line.split(b" ")) for line in lines if line]
    return {mount.id: mount for mount in listed}


def _plain(word: bytes) -> str:
    """Undo the kernel's octal numbers for blanks, line ends and backslashes."""
    parts = word.split(b"\\")
    out = parts[0]
    for part in parts[1:]:
        out += bytes([int(part[:3], 8)]) + part[3:]
    return files.decode(out)


def id_of(fd: int) -> int:
    """Return the id of the mount that a descriptor, also an O_PATH one, was opened through."""
    for line in files.read_file(f"/proc/self/fdinfo/{fd}").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    raise Error(f"/proc/self/fdinfo/{fd} has no mnt_id")
