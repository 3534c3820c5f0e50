"""The archive itself, as bytes: two lines, blocks of compiled modules, then the zip of sources.

Side: host; pure.  Used by build.py, by `repack` and by the tests that alter a copy.

    #!/usr/bin/python3 ...      line 1: Python, reading line 2
    SECOND                      line 2: text, so that every Python can read it (marshal of a str)
    table, TABLE bytes          a row for each Python: its magic number, then numbers and words
    files of the zip            every source; what serves a Python without a block
    block, block, ...           for each Python: the code of preload.py, an index, the modules
    directory of the zip

A process that imports from the zip opens it by name each time, with the directory that it has read
at first: so a new block must not move the files.
Nothing here depends on the order in which blocks were added: they are kept by version.
"""

from __future__ import annotations

import marshal

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Row = tuple[int, int]

TABLE: Final = 1024
HEAD: Final = 4096  # bytes, of the two lines and the table at the most
# Compiled at each start, which costs 1,200 instructions a letter: so it only finds the block, whose
# preload.py goes on.  host/boot.py starts init through it, with another `entry`.
SECOND: Final = """\
try:
    e = sys.modules["_frozen_importlib_external"]
    r = f.read(TABLE).partition(e.MAGIC_NUMBER)[2].split(None, 4)
    exec(f.seek(int(r[0]), 1) and marshal.loads(f.read(int(r[1]))) if r else \'\'\'OTHER\'\'\')
except Exception as x:
    sys.exit("anocir: cannot load itself: %s" % x)
m.main()
"""
# On a Python without a block.  The archive comes last on sys.path: else each module of the standard
# library would be looked for in it first.
_OTHER: Final = """
if sys.version_info < (3, 9):
    v = (sys.executable,) + sys.version_info[:2]
    sys.exit("anocir: needs Python 3.9 or newer, %s is %d.%d" % v)
sys.path += [f.name + "/site-packages"]
try:
    m = __import__(globals().get("entry", "anocir.__main__"), fromlist=["main"])
except MemoryError:
    sys.exit("anocir: not enough memory")
except OSError as x:
    sys.exit("anocir: cannot load itself: " + (x.strerror or str(x)).lower())
"""


def second() -> str:
    """Return the text of the second line."""
    return SECOND.replace("TABLE", str(TABLE)).replace("OTHER", _OTHER)


_ROW: Final = b"%s%d %d %d %d %s\n"
# A tuple of three; its first two have no back references, so those within the code stay true.
_RECORD: Final = b")\3"
_END: Final = 22  # bytes of the zip's last record, which has no comment


class Block:
    """The modules for one Python: `magic` as in its .pyc files, `version` for people."""

    __slots__ = ("data", "index_size", "magic", "preload_size", "version")

    def __init__(
        self, magic: bytes, version: str, preload_size: int, index_size: int, data: bytes
    ) -> None:
        """Take `data`: code of preload.py, index, modules; the sizes of the first two in bytes."""
        self.magic = magic
        self.version = version
        self.preload_size = preload_size
        self.index_size = index_size
        self.data = data

    def modules(self) -> dict[str, Row]:
        """Return offset and size of each module's record, by name.

        Only the Python of the block can read the code itself; the index anybody.
        """
        at = self.preload_size
        index: dict[str, Row] = marshal.loads(self.data[at : at + self.index_size])
        return index

    def codes(self) -> dict[str, bytes]:
        """Return the marshalled code of each module by the name of its file (`anocir/cli.py`)."""
        start = self.preload_size + self.index_size
        found = {}
        for name, (offset, size) in self.modules().items():
            record = self.data[start + offset : start + offset + size]
            package = record[len(_RECORD) : len(_RECORD) + 1] == b"T"
            path = name.replace(".", "/") + ("/__init__.py" if package else ".py")
            rest = record[len(_RECORD) + 1 :]
            found[path] = rest[len(marshal.dumps(marshal.loads(rest), 2)) :]
        return found

    def without(self, names: set[str]) -> Block:
        """Return a block that leaves these modules to the zip."""
        index = {name: row for name, row in self.modules().items() if name not in names}
        table = marshal.dumps(index, 2)
        rest = self.data[self.preload_size + self.index_size :]
        data = self.data[: self.preload_size] + table + rest
        return Block(self.magic, self.version, self.preload_size, len(table), data)


def module_name(path: str) -> tuple[str, bool]:
    """Return a module's name by its file's (`anocir/cli.py`), and whether it is a package."""
    name = path[: -len(".py")].replace("/", ".")
    package = name.endswith(".__init__")
    return name[: -len(".__init__")] if package else name, package


def make_block(
    magic: bytes,
    version: str,
    preload: bytes,
    codes: dict[str, bytes],
    needs: dict[str, tuple[str, ...]],
) -> Block:
    """Lay out marshalled code by file name (`anocir/cli.py`), with what each module needs first.

    A record is a marshalled tuple: whether it is a package, the modules it needs, its code.
    """
    index: dict[str, Row] = {}
    blob = b""
    for path, code in sorted(codes.items()):
        name, package = module_name(path)
        record = _RECORD + marshal.dumps(package) + marshal.dumps(needs[name], 2) + code
        index[name] = len(blob), len(record)
        blob += record
    table = marshal.dumps(index, 2)
    return Block(magic, version, len(preload), len(table), preload + table + blob)


class Archive:
    """The parts of the file."""

    __slots__ = ("blocks", "line", "text", "zip")

    def __init__(self, line: bytes, text: str, blocks: list[Block], zipped: bytes) -> None:
        """Take the lines without their ends, and a zip whose offsets count from its start."""
        self.line = line
        self.text = text
        self.blocks = blocks
        self.zip = zipped

    def block(self, magic: bytes) -> Block | None:
        """Return the block of a Python."""
        for block in self.blocks:
            if block.magic == magic:
                return block
        return None

    def add(self, new: Block) -> None:
        """Add a block, or replace that of the same Python."""
        self.blocks = [block for block in self.blocks if block.magic != new.magic] + [new]

    def pack(self) -> bytes:
        """Return the whole file."""
        start = self.line + b"\n" + marshal.dumps(self.text, 2)
        end = _directory(self.zip)
        rows = b""
        data = self.zip[:end]
        for block in sorted(self.blocks, key=_order):
            rows += _ROW % (
                block.magic, len(data), block.preload_size, block.index_size, len(block.data),
                block.version.encode(),
            )  # fmt: skip
            data += block.data
        if len(rows) > TABLE or len(start) + TABLE > HEAD:
            raise Error(f"the archive has no room for {len(self.blocks)} versions of Python")
        start += rows.ljust(TABLE, b"\0")
        directory = _shifted(self.zip[end:], len(start), len(start) + len(data))
        return start + data + directory

    def versions(self) -> dict[bytes, str]:
        """Return the version of each block by its magic number."""
        return {block.magic: block.version for block in sorted(self.blocks, key=_order)}

    def sources(self) -> dict[str, bytes]:
        """Return the content of each stored file of the zip by its name."""
        directory = self.zip[_directory(self.zip) :]
        found = {}
        for entry, name in _entries(directory):
            at = _number(directory, entry + 42, 4)
            data = at + 30 + _number(self.zip, at + 26, 2) + _number(self.zip, at + 28, 2)
            found[name] = self.zip[data : data + _number(directory, entry + 24, 4)]
        return found


def _order(block: Block) -> tuple[list[int], bytes]:
    return [int(number) for number in block.version.split(".")], block.magic


def parse(data: bytes) -> Archive:
    """Take an archive apart; raises Error if it is none, or cut off."""
    try:
        line, _, rest = data.partition(b"\n")
        text: str = marshal.loads(rest)
        table = len(line) + 1 + len(marshal.dumps(text, 2))
        start = table + TABLE
        directory = _directory(data)
        end = directory
        blocks = []
        for magic, numbers, version in _rows(data[table:start]):
            offset, preload_size, index_size, size = numbers
            at = start + offset
            blocks.append(Block(magic, version, preload_size, index_size, data[at : at + size]))
            end = min(end, at)
        zipped = data[start:end] + _shifted(data[directory:], -start, end - start)
    except (ValueError, EOFError, TypeError, IndexError):
        raise Error("this is not a whole archive of anocir") from None
    return Archive(line, text, blocks, zipped)


def versions(start: bytes) -> dict[bytes, str]:
    """Return the Pythons that have a block, version by magic number; HEAD bytes suffice."""
    rest = start.partition(b"\n")[2]
    table = len(marshal.dumps(marshal.loads(rest), 2))
    return {magic: version for magic, _, version in _rows(rest[table : table + TABLE])}


def listed(found: dict[bytes, str]) -> str:
    """Name the Pythons of `versions` for people."""
    minor = [version.rpartition(".")[0] for version in found.values()]
    return f"Python {', '.join(minor)}" if minor else "no Python"


def _rows(table: bytes) -> list[tuple[bytes, list[int], str]]:
    rows = []
    table = table.rstrip(b"\0")
    while table:
        # A magic number ends in CR and LF itself.
        line, _, rest = table[4:].partition(b"\n")
        *numbers, version = line.split()
        rows.append((table[:4], [int(number) for number in numbers], version.decode()))
        table = rest
    return rows


# zip ------------------------------------------------------------------------------------------


def _number(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")


def _directory(zipped: bytes) -> int:
    """Return where the directory of a zip begins, in bytes from the start of what is given."""
    end = len(zipped) - _END
    if end < 0 or zipped[end : end + 4] != b"PK\5\6":
        raise ValueError("no end of a zip")
    return end - _number(zipped, end + 12, 4)


def _entries(directory: bytes) -> list[tuple[int, str]]:
    """Return where in the directory each record begins, and its name."""
    at = 0
    found = []
    while at < len(directory) - _END:
        if directory[at : at + 4] != b"PK\1\2":
            raise ValueError("no directory of a zip")
        length = _number(directory, at + 28, 2)
        found.append((at, directory[at + 46 : at + 46 + length].decode()))
        at += 46 + length + _number(directory, at + 30, 2) + _number(directory, at + 32, 2)
    return found


def _shifted(directory: bytes, by: int, place: int) -> bytes:
    """Return the directory for files moved by some bytes, and for its own new place."""
    data = bytearray(directory)
    for at, _ in _entries(directory):
        moved = _number(directory, at + 42, 4) + by
        data[at + 42 : at + 46] = moved.to_bytes(4, "little")
    data[-_END + 16 : -_END + 20] = place.to_bytes(4, "little")
    return bytes(data)
