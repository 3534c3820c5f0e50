"""What crun's tests of mounts ask of util-linux's Python module, which Debian does not package: lines of mountinfo.

`run.py` lends it to the tests where the machine has no such module.
"""

from __future__ import annotations

import re
from typing import NamedTuple


class Filesystem(NamedTuple):
    """One line of mountinfo: its mount point, the mount's options and the file system's."""

    target: str
    vfs_options: str
    fs_options: str


class Table:
    """A saved /proc/PID/mountinfo."""

    def __init__(self, path: str) -> None:
        self.entries = []
        with open(path, encoding="utf-8") as stream:
            for line in stream:
                left, _, right = line.rstrip("\n").partition(" - ")
                fields = left.split(" ")
                if len(fields) < 6 or len(right.split(" ")) < 3:
                    continue
                target = re.sub(
                    r"\\([0-7]{3})", lambda octal: chr(int(octal.group(1), 8)), fields[4]
                )
                self.entries.append(Filesystem(target, fields[5], right.split(" ")[2]))

    def find_target(self, target: str) -> Filesystem | None:
        """The mount that is seen at this place: the last of them."""
        return next((entry for entry in reversed(self.entries) if entry.target == target), None)
