"""Modules out of one block, in the place of one by one out of the zip.

Side: host and init.  Importing from a zip costs 0.6 ms for its directory and some 0.05 ms for each
module, in each of the two boots; one pread(2) costs 0.002 ms.  So build.py also writes the bytecode
of the modules that hot commands need between the archive's first line and the zip; the first line
executes this file with `f`, the open archive, at the place where the block begins.  On another
version of Python than the archive was built for, the block is passed over and the zip serves.
"""

from __future__ import annotations

import marshal
import sys

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any, BinaryIO


# C modules of the standard library; the usual way lists two directories first (0.1 ms each).
_EXTENSIONS = ("_ctypes", "_json", "_socket", "_struct", "fcntl", "select")
_FD = 1000  # above what anybody passes on


class Block:
    """The finder and the loader: `index` has offset, size and "is a package" by name."""

    __slots__ = ("archive", "fd", "index", "spec", "start")

    def __init__(self, file: BinaryIO, index_size: int) -> None:
        """Read the index that begins where `file` stands; the bytecode follows it."""
        self.archive = file.name
        self.index: dict[str, tuple[int, int, bool]] = marshal.loads(file.read(index_size))
        self.start = file.tell()
        # Out of the way of descriptors that a caller passes on, and closed by execve.
        try:
            self.fd = posix.dup2(file.fileno(), _FD, False)
        except OSError:  # a low limit of descriptors
            self.fd = posix.dup(file.fileno())
        self.spec: Any = sys.modules["_frozen_importlib"].ModuleSpec

    def find_spec(self, name: str, *_: object) -> Any:
        """Return the specification of a module that is in the block, else None."""
        entry = self.index.get(name)
        if entry is None:
            if name in _EXTENSIONS and name not in sys.builtin_module_names:
                return self._extension(name)
            return None
        spec = self.spec(name, self, is_package=entry[2])
        if entry[2]:
            path = name.replace(".", "/")
            # Cold modules of the package come from the zip.
            spec.submodule_search_locations = [f"{self.archive}/site-packages/{path}"]
        return spec

    def _extension(self, name: str) -> Any:
        """Return the specification of a C module at the place where it lies on every CPython."""
        external: Any = sys.modules["_frozen_importlib_external"]
        for directory in sys.path:
            if directory[-12:] == "/lib-dynload":
                path = f"{directory}/{name}{external.EXTENSION_SUFFIXES[0]}"
                try:
                    posix.stat(path)
                except OSError:
                    continue
                return self.spec(name, external.ExtensionFileLoader(name, path), origin=path)
        return None

    def create_module(self, _spec: Any) -> None:
        """Take the default: an empty module."""
        return

    def exec_module(self, module: ModuleType) -> None:
        """Execute the bytecode of a module."""
        offset, size, _ = self.index[module.__name__]
        code = marshal.loads(posix.pread(self.fd, size, self.start + offset))
        exec(code, module.__dict__)  # noqa: S102


def install(file: BinaryIO, index_size: int) -> None:
    """Let imports find the block first."""
    block: Any = Block(file, index_size)
    sys.meta_path.insert(0, block)
    file.close()
