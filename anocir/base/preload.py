"""Modules out of one block, in the place of one by one out of the zip.

Side: host and init.  Importing from a zip costs 0.6 ms for its directory and some 0.05 ms for each
module, in each of the two boots; one pread(2) costs 0.002 ms.  So the bytecode of all modules for
each Python lies between the archive's second line and the end of the zip (archive.py).  The second
line executes this file as `__main__`, with `f`, the open archive, which stands where the index of
the block begins.  For another Python the zip serves.
"""

from __future__ import annotations

import marshal
import sys

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, ModuleType
    from typing import Any, BinaryIO

    Links = tuple[tuple[str, tuple[str, ...]], ...]
    Row = tuple[str, bool, tuple[str, ...], Links, CodeType | None]


_Module: Any = type(sys)
_FD = 1000  # above what anybody passes on

# The finder and the loader is this module itself: a class would cost more than it does.
archive = ""
fd = -1
# ` NAME OFFSET SIZE ` of each module's record, and where in the file the records begin.
index = b""
records = 0
# Read and not made yet: whether it is a package, what it needs, what it has of that by which names
# (compiler.py has taken these imports from its code), its code if it has any.
ready: dict[str, Row] = {}


def open_block(file: BinaryIO) -> None:
    """Read the index of the block, whose second part begins where `file` stands."""
    global archive, fd, index, records
    archive = file.name
    sizes = file.read(8)
    index = file.read(int.from_bytes(sizes[:4], "little"))
    records = file.tell() + int.from_bytes(sizes[4:], "little")
    # Out of the way of descriptors that a caller passes on, and closed by execve.
    try:
        fd = posix.dup2(file.fileno(), _FD, False)
    except OSError:  # a low limit of descriptors
        fd = posix.dup(file.fileno())


def find_spec(name: str, *_: object) -> Any:
    """Return the specification of a module that is in the block, else None."""
    if not name.startswith("anocir") or not _read(name):
        return None
    _name, package, needs, _links, _code = ready[name]
    _load_all(needs)
    spec = _spec(name, sys.modules[__name__], is_package=package)
    if package:
        spec.submodule_search_locations = _path(name)
    return spec


def load(name: str) -> Any:
    """Make a module, after those that it needs, as the import system would.

    Without its locks, specifications and searches: this is all one thread before it begins.
    """
    modules = sys.modules
    if not _read(name):
        return __import__(name, fromlist=["main"])
    _, package, needs, links, code = ready.pop(name)
    _load_all(needs)
    parent, _, last = name.rpartition(".")
    if parent and parent not in modules:
        load(parent)
    module = _Module(name)
    module.__loader__ = modules[__name__]
    module.__package__ = name if package else parent
    if package:
        module.__path__ = _path(name)
    modules[name] = module
    try:
        _run(code, links, module.__dict__)
    except BaseException:
        del modules[name]
        raise
    if parent:
        setattr(modules[parent], last, module)
    return module


def _load_all(names: tuple[str, ...]) -> None:
    for name in names:
        if name not in sys.modules:
            if not name.startswith("anocir"):
                native(name)
            else:
                load(name)


def _read(name: str) -> bool:
    """Have a module ready, with all that is in the record; False if the block has it not."""
    if name not in ready:
        at = index.find(b" %s " % name.encode())
        if at < 0:
            return False
        at += len(name) + 2
        offset, size = index[at : at + 20].split(None, 2)[:2]
        for row in marshal.loads(posix.pread(fd, int(size), records + int(offset))):
            if row[0] not in sys.modules:
                ready[row[0]] = row
    return name in ready


def _path(name: str) -> list[str]:
    """Return where modules of a package are that the block has not."""
    return [f"{archive}/site-packages/{name.replace('.', '/')}"]


def _spec(*values: Any, **named: Any) -> Any:
    frozen: Any = sys.modules["_frozen_importlib"]
    return frozen.ModuleSpec(*values, **named)


def native(name: str) -> None:
    """Make a C module of the standard library: built in, or from where it lies on a CPython.

    The usual way lists two directories first (0.1 ms each).  What fails is left to it.
    """
    imp: Any = sys.modules["_imp"]
    try:
        if name in sys.builtin_module_names:
            module = imp.create_builtin(_spec(name, None, origin="built-in"))
            imp.exec_builtin(module)
        else:
            external: Any = sys.modules["_frozen_importlib_external"]
            place = next(path for path in sys.path if path[-12:] == "/lib-dynload")
            path = f"{place}/{name}{external.EXTENSION_SUFFIXES[0]}"
            spec = _spec(name, external.ExtensionFileLoader(name, path), origin=path)
            module = imp.create_dynamic(spec)
            imp.exec_dynamic(module)
    except (ImportError, OSError, StopIteration):
        return
    sys.modules[name] = module


def create_module(_spec: Any) -> None:
    """Take the default: an empty module."""
    return


def exec_module(module: ModuleType) -> None:
    """Execute the bytecode of a module."""
    _, _, _, links, code = ready.pop(module.__name__)
    _run(code, links, module.__dict__)


def _run(code: CodeType | None, links: Links, space: dict[str, object]) -> None:
    """Give a module the names that it has from others, which are made, and execute it."""
    modules = sys.modules
    for source, names in links:
        found = modules[source].__dict__
        for name in names:
            space[name] = found[name]
    if code is not None:
        exec(code, space)  # noqa: S102


def start(file: BinaryIO, entry: str) -> Any:
    """Let imports find the block first, and return the module to go on with."""
    try:
        # Last: in it each module of the standard library would be looked for first (0.7 ms).
        sys.path += [f"{file.name}/site-packages"]
        open_block(file)
        finder: Any = sys.modules[__name__]
        sys.meta_path.insert(0, finder)
        # What is made here stays; __main__ says the same for all ways to start.
        native("gc")
        sys.modules["gc"].disable()
        file.close()
        return load(entry)
    except MemoryError:
        sys.exit("anocir: not enough memory")
    except OSError as error:
        text = (error.strerror or str(error)).lower()
        sys.exit(f"anocir: cannot load itself: {text}")


if __name__ == "__main__":
    space = globals()
    m = start(space["f"], space.get("entry", "anocir.__main__"))
