"""Modules out of one block, in the place of one by one out of the zip.

Side: host and init.  Importing from a zip costs 0.6 ms for its directory and some 0.05 ms for each
module, in each of the two boots; one pread(2) costs 0.002 ms.  So the bytecode of all modules for
each Python lies between the archive's second line and the end of the zip (archive.py).  The second
line executes this file as `__main__`, with `f`, the open archive, where the block begins, and `r`,
the block's row.  For another Python the zip serves.
"""

from __future__ import annotations

import marshal
import sys

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, BinaryIO

    from .archive import Row


# C modules of the standard library; the usual way lists two directories first (0.1 ms each).
_EXTENSIONS = ("_ctypes", "_json", "_socket", "_struct", "fcntl", "select")
_Module = type(sys)
_FD = 1000  # above what anybody passes on


class Block:
    """The finder and the loader: `index` has offset and size of each record by name."""

    __slots__ = ("archive", "fd", "index", "ready", "spec", "start")

    def __init__(self, file: BinaryIO, index_size: int) -> None:
        """Read the index that begins where `file` stands; the bytecode follows it."""
        self.archive = file.name
        self.index: dict[str, Row] = marshal.loads(file.read(index_size))
        self.start = file.tell()
        # Read for find_spec, about to be executed.
        self.ready: dict[str, CodeType] = {}
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
        package, needs, self.ready[name] = self._read(entry)
        self._load_all(needs)
        spec = self.spec(name, self, is_package=package)
        if package:
            spec.submodule_search_locations = self._path(name)
        return spec

    def load(self, name: str) -> Any:
        """Make a module, after those that it needs, as the import system would.

        Without its locks, specifications and searches: this is all one thread before it begins.
        """
        modules = sys.modules
        package, needs, code = self._read(self.index[name])
        self._load_all(needs)
        parent, _, last = name.rpartition(".")
        if parent and parent not in modules:
            __import__(parent)
        module: Any = _Module(name)
        module.__loader__ = self
        module.__package__ = name if package else parent
        if package:
            module.__path__ = self._path(name)
        modules[name] = module
        try:
            exec(code, module.__dict__)  # noqa: S102
        except BaseException:
            del modules[name]
            raise
        if parent:
            setattr(modules[parent], last, module)
        return module

    def _load_all(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in sys.modules and name in self.index:
                self.load(name)

    def _path(self, name: str) -> list[str]:
        """Return where modules of a package are that the block has not."""
        return [f"{self.archive}/site-packages/{name.replace('.', '/')}"]

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
        exec(self.ready.pop(module.__name__), module.__dict__)  # noqa: S102

    def _read(self, row: Row) -> tuple[bool, tuple[str, ...], CodeType]:
        """Return whether it is a package, what it needs, and its code."""
        record: tuple[bool, tuple[str, ...], CodeType] = marshal.loads(
            posix.pread(self.fd, row[1], self.start + row[0])
        )
        return record


def start(file: BinaryIO, index_size: int, entry: str) -> Any:
    """Let imports find the block first, and return the module to go on with."""
    try:
        # Last: in it each module of the standard library would be looked for first (0.7 ms).
        sys.path += [f"{file.name}/site-packages"]
        block: Any = Block(file, index_size)
        sys.meta_path.insert(0, block)
        file.close()
        return block.load(entry) if entry in block.index else __import__(entry, fromlist=["main"])
    except MemoryError:
        sys.exit("anocir: not enough memory")
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        sys.exit(f"anocir: cannot load itself: {text}")


if __name__ == "__main__":
    space = globals()
    m = start(space["f"], int(space["r"][2]), space.get("entry", "anocir.__main__"))
