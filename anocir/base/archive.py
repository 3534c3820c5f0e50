"""The archive itself, as bytes: two lines, blocks of compiled modules, then the zip of sources.

Side: host; pure.  Used by build.py, by `repack` and by the tests that alter a copy.

    #!/usr/bin/python3 ...      line 1: Python, reading line 2
    SECOND                      line 2: text, so that every Python can read it (marshal of a str)
    table, TABLE bytes          by magic number where each block begins; versions
    OTHER                       text, for a Python without a block
    files of the zip            every source; what serves a Python without a block
    block, block, ...           for each Python: preload.py and the modules, compiled
    directory of the zip

A block: the code of preload.py, PRELOAD bytes; the sizes of two texts, 4 bytes each; one that says
where which module is; one that says which records hold several; the records.

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
PRELOAD: Final = 12288
HEAD: Final = 4096  # bytes, of the two lines and the table at the most
# Compiled at each start, which costs 1,200 instructions a letter: so it only finds the block, whose
# preload.py goes on.  host/boot.py starts init through it, with another `entry`.
SECOND: Final = """\
try:
 f.seek(marshal.loads(f.read(TABLE)).get(sys.modules["_frozen_importlib_external"].MAGIC_NUMBER,0),1)
 exec(marshal.loads(f.read(PRELOAD)))
except Exception as x:sys.exit("anocir: cannot load itself: %s"%x)
m.main()
"""
# What lies where the table leads nowhere.  The archive comes last on sys.path: else each module of
# the standard library would be looked for in it first.  `f` may be descriptor 0, where the caller
# has none, and must not be taken for it.
OTHER: Final = """\
if sys.version_info < (3, 9):
    v = (sys.executable,) + sys.version_info[:2]
    sys.exit("anocir: needs Python 3.9 or newer, %s is %d.%d" % v)
sys.path += [f.name + "/site-packages"]
f.close()
try:
    m = __import__(globals().get("entry", "anocir.__main__"), fromlist=["main"])
except MemoryError:
    sys.exit("anocir: not enough memory")
except OSError as x:
    sys.exit("anocir: cannot load itself: " + (x.strerror or str(x)).lower())
"""


def second() -> str:
    """Return the text of the second line."""
    return SECOND.replace("TABLE", str(TABLE)).replace("PRELOAD", str(PRELOAD))


_END: Final = 22  # bytes of the zip's last record, which has no comment


class Block:
    """The modules for one Python: `magic` as in its .pyc files, `version` for people."""

    __slots__ = ("data", "magic", "version")

    def __init__(self, magic: bytes, version: str, data: bytes) -> None:
        """Take the parts, made by `lay_out`, as one."""
        self.magic = magic
        self.version = version
        self.data = data

    def modules(self) -> dict[str, Row]:
        """Return offset and size of each module's record, by name; several may have the same."""
        words = self._parts()[0].split()
        return {
            name.decode(): (int(offset), int(size))
            for name, offset, size in zip(words[::3], words[1::3], words[2::3])
        }

    def records(self) -> dict[str, bytes]:
        """Return each record by the first name that it has in the index.

        Only the Python of the block can read it: a marshalled tuple, as preload.py wants it.
        """
        rest = self._parts()[2]
        found = {row: name for name, row in reversed(self.modules().items())}
        return {name: rest[row[0] : row[0] + row[1]] for row, name in found.items()}

    def without(self, names: set[str]) -> Block:
        """Return a block that leaves these modules to the zip, and all in a record with them."""
        line, shared, rest = self._parts()
        rows = self.modules()
        gone = {rows[name] for name in names if name in rows}
        for words in shared.decode().split(";"):
            lead, *members = words.split()
            if names & {lead, *members}:
                gone.add(rows[lead])
        line = _index({name: row for name, row in rows.items() if row not in gone})
        data = self.data[:PRELOAD] + _texts(line, shared) + rest
        return Block(self.magic, self.version, data)

    def _parts(self) -> tuple[bytes, bytes, bytes]:
        """Return the two texts and the records."""
        start = PRELOAD + 8
        middle = start + _number(self.data, PRELOAD, 4)
        end = middle + _number(self.data, PRELOAD + 4, 4)
        return self.data[start:middle], self.data[middle:end], self.data[end:]


def module_name(path: str) -> tuple[str, bool]:
    """Return a module's name by its file's (`anocir/cli.py`), and whether it is a package."""
    name = path[: -len(".py")].replace("/", ".")
    package = name.endswith(".__init__")
    return name[: -len(".__init__")] if package else name, package


def _index(rows: dict[str, Row]) -> bytes:
    """Return the text in which preload.py looks for ` NAME `."""
    return "".join(f" {name} {row[0]} {row[1]}" for name, row in rows.items()).encode()


def _texts(*texts: bytes) -> bytes:
    return b"".join([len(text).to_bytes(4, "little") for text in texts] + [*texts])


def lay_out(
    magic: bytes, version: str, preload: bytes, records: list[tuple[list[str], list[str], bytes]]
) -> Block:
    """Return a block of records: the names to find it by, the names of all in it, its bytes."""
    if len(preload) > PRELOAD:
        raise Error(f"preload.py has {len(preload)} bytes, and room for {PRELOAD}")
    rows: dict[str, Row] = {}
    shared = []
    blob = b""
    for names, members, record in records:
        rows.update(dict.fromkeys(names, (len(blob), len(record))))
        shared += [" ".join([names[0], *members])] if len(members) > 1 else []
        blob += record
    texts = _texts(_index(rows), ";".join(shared).encode())
    data = preload.ljust(PRELOAD, b"\0") + texts + blob
    return Block(magic, version, data)


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
        other = marshal.dumps(OTHER, 2)
        places = {}
        rows = []
        data = other + self.zip[:end]
        for block in sorted(self.blocks, key=_order):
            places[block.magic] = len(data)
            rows.append((block.magic, block.version, len(data), len(block.data)))
            data += block.data
        table = marshal.dumps(places, 2) + marshal.dumps(rows, 2)
        if len(table) > TABLE or len(start) + TABLE > HEAD:
            raise Error(f"the archive has no room for {len(self.blocks)} versions of Python")
        start += table.ljust(TABLE, b"\0")
        directory = _shifted(self.zip[end:], len(start) + len(other), len(start) + len(data))
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
        for magic, version, offset, size in _rows(data[table:start]):
            at = start + offset
            blocks.append(Block(magic, version, data[at : at + size]))
            end = min(end, at)
        start += len(marshal.dumps(marshal.loads(data[start:]), 2))
        zipped = data[start:end] + _shifted(data[directory:], -start, end - start)
    except (ValueError, EOFError, TypeError, IndexError):
        raise Error("this is not a whole archive of anocir") from None
    return Archive(line, text, blocks, zipped)


def versions(start: bytes) -> dict[bytes, str]:
    """Return the Pythons that have a block, version by magic number; HEAD bytes suffice."""
    rest = start.partition(b"\n")[2]
    table = len(marshal.dumps(marshal.loads(rest), 2))
    return {magic: version for magic, version, _, _ in _rows(rest[table : table + TABLE])}


def listed(found: dict[bytes, str]) -> str:
    """Name the Pythons of `versions` for people."""
    minor = [version.rpartition(".")[0] for version in found.values()]
    return f"Python {', '.join(minor)}" if minor else "no Python"


def _rows(table: bytes) -> list[tuple[bytes, str, int, int]]:
    """Return magic number, version, offset and size of each block."""
    places = marshal.loads(table)
    rows: list[tuple[bytes, str, int, int]] = marshal.loads(table[len(marshal.dumps(places, 2)) :])
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
