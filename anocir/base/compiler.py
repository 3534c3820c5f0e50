"""Compile the sources of the archive for the Python that runs this.

Side: host.  Cold: imports ast.  The result depends on the sources and the Python alone if that was
started with a fixed hash seed (host/repack.py): a set is written in the order of its hashes.
"""

from __future__ import annotations

import ast
import marshal
import sys

from . import archive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import CodeType

    Links = tuple[tuple[str, tuple[str, ...]], ...]

SITE = "site-packages/"
# What decides how code comes out, this module and the one that starts the interpreter for it.
_MAKERS = ("site-packages/anocir/base/compiler.py", "site-packages/anocir/host/repack.py")
PRELOAD = "anocir/base/preload.py"
# A record holds one of these with all that it needs and that no record before it has: read at once,
# and a name that several modules use is made once.  First what starts init, which waits for it.
LEADS = (
    "anocir.__main__", "anocir.host.boot", "anocir.host.states", "anocir.wire.channel",
    "anocir.host.launch", "anocir.model.execution", "anocir.host.joining", "anocir.host.program",
    "anocir.cgroup.joining", "anocir.model.spec.process", "anocir.host.create",
)  # fmt: skip
# These with all that they need but what is read before them, for who reads no other records: of a
# name that several have, each makes a string.  In the sealed interpreter nothing is read before.
_DOOR = ("anocir.__main__", "anocir.door")
WHOLE = {
    "anocir.inside.init": (),
    "anocir.door": ("anocir.__main__",),
    **{f"anocir.commands.{name}": _DOOR for name in ("delete", "kill", "list", "start", "state")},
}
# C modules of the standard library, for which preload.py knows a shorter way.
NATIVE = ("_ctypes", "_json", "_socket", "_struct", "errno", "fcntl", "gc", "select")


def compile_block(sources: dict[str, bytes], old: archive.Archive | None) -> archive.Block:
    """Return the block of all modules below site-packages/, given by their name in the zip.

    What has not changed since `old` is taken from there, if the same Python has compiled it.
    """
    external = sys.modules["_frozen_importlib_external"]
    magic: bytes = external.MAGIC_NUMBER
    version = ".".join(map(str, sys.version_info[:3]))
    codes = _reusable(sources, old, magic, version) if old else {}
    paths = [
        name[len(SITE) :]
        for name in sorted(sources)
        if name.endswith(".py") and name.startswith(SITE)
    ]
    trees = {path: ast.parse(sources[SITE + path], path) for path in paths}
    needs = _needs(trees)
    links = {}
    ours = {}
    for path, tree in trees.items():
        name, package = archive.module_name(path)
        links[name] = () if path == PRELOAD else _link(tree, name, package, needs[name])
        ours[path] = codes.get(SITE + path) or (None if _is_empty(tree) else _code(path, tree))
    modules = {}
    for path, code in ours.items():
        name, package = archive.module_name(path)
        modules[name] = (name, package, needs[name], links[name], code)
    records = []
    for names, members in _grouped(needs):
        rows = tuple(modules[name] for name in members)
        record = _settled(marshal.dumps(rows))
        if marshal.loads(record) != rows:
            raise ValueError(f"{names[0]}: its code is another one after marshal")
        records.append((names, members, record))
    return archive.lay_out(magic, version, _settled(marshal.dumps(ours[PRELOAD])), records)


def _grouped(needs: dict[str, tuple[str, ...]]) -> list[tuple[list[str], list[str]]]:
    """Return the records: the modules that each is found by, and all that are in it, in order."""
    records = []
    known: set[str] = set()
    for lead in [*LEADS, *(name for name in needs if name not in (*LEADS, *WHOLE))]:
        members: list[str] = []
        if lead in LEADS:
            _gather(needs, lead, known, members)
        elif lead not in known:
            members = [lead]
        known.update(members)
        if members:
            # By its lead first: the finder looks for nothing else as often.
            records.append(([lead, *(name for name in members if name != lead)], members))
    for lead, before in WHOLE.items():
        first: list[str] = []
        for name in before:
            _gather(needs, name, set(), first)
        members = []
        _gather(needs, lead, set(first), members)
        records.append(([lead], members))
    return records


def _gather(
    needs: dict[str, tuple[str, ...]], name: str, known: set[str], members: list[str]
) -> None:
    """Add a module to the members of a record, after those that it needs."""
    if name in known or name in members or name not in needs:
        return
    parent = name.rpartition(".")[0]
    if parent:
        _gather(needs, parent, known, members)
    for need in needs[name]:
        _gather(needs, need, known, members)
    members.append(name)


def _needs(trees: dict[str, ast.Module]) -> dict[str, tuple[str, ...]]:
    """Return for each module those of the block that it imports at its top, packages before.

    preload.py loads these first, without the import system, which costs 60,000 instructions each.
    """
    names = dict(archive.module_name(path) for path in trees)
    found = {}
    for path, tree in trees.items():
        name, package = archive.module_name(path)
        wanted: dict[str, None] = {}
        for node in _imports(tree.body):
            if isinstance(node, ast.Import):
                wanted.update((alias.name, None) for alias in node.names if alias.name in NATIVE)
            elif not node.level:
                wanted.update({node.module or "": None} if node.module in NATIVE else {})
            else:
                module = _source(node, name, package)
                for one in [module, *(f"{module}.{alias.name}" for alias in node.names)]:
                    parts = one.split(".")
                    for size in range(1, len(parts) + 1):
                        wanted[".".join(parts[:size])] = None
        # What is above it is there by then; what is below it comes while it is executed.
        found[name] = tuple(
            one
            for one in wanted
            if one in NATIVE
            or (
                one in names
                and not f"{name}.".startswith(f"{one}.")
                and not one.startswith(f"{name}.")
            )
        )
    done: set[str] = set()
    for name in found:
        _refuse_circle(found, name, (), done)
    return found


def _is_empty(tree: ast.Module) -> bool:
    """Tell whether a module has nothing to execute, as most of those that make a package."""
    return all(
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) for node in tree.body
    )


def _source(node: ast.ImportFrom, name: str, package: bool) -> str:
    """Return the absolute name of what a relative import is from."""
    base = name.split(".") if package else name.split(".")[:-1]
    start = base[: len(base) - node.level + 1] + (node.module or "").split(".")
    return ".".join(part for part in start if part)


def _link(tree: ast.Module, name: str, package: bool, needs: tuple[str, ...]) -> Links:
    """Take from a module's top the imports from modules that are made before it; return them.

    Each as what preload.py does in its place: module, attributes.  An import costs 7,000
    instructions also where all is there.
    """
    links = []
    rest: list[ast.stmt] = []
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.level:
            module = _source(node, name, package)
            attributes = [alias.name for alias in node.names if alias.asname in (None, alias.name)]
            below = any(f"{module}.{one}".startswith(f"{name}.") for one in attributes)
            made = module in needs or f"{name}.".startswith(f"{module}.")
            if made and not below and module != name and len(attributes) == len(node.names):
                links.append((module, tuple(attributes)))
                continue
        rest.append(node)
    tree.body = rest
    return tuple(links)


def _imports(body: list[ast.stmt]) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports of a module's top, also those that may fail."""
    for node in body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield node
        elif isinstance(node, ast.Try):
            yield from _imports(node.body)


def _refuse_circle(
    needs: dict[str, tuple[str, ...]], name: str, way: tuple[str, ...], done: set[str]
) -> None:
    if name in way:
        raise ValueError(f"modules import each other: {' '.join(way)}")
    if name not in done:
        for need in needs.get(name, ()):
            _refuse_circle(needs, need, (*way, name), done)
        done.add(name)


def _reusable(
    sources: dict[str, bytes], old: archive.Archive, magic: bytes, version: str
) -> dict[str, CodeType]:
    """Return the code of the modules whose sources are the same in an older archive."""
    block = old.block(magic)
    before = old.sources()
    if block is None or block.version != version:
        return {}
    if any(sources[name] != before.get(name) for name in _MAKERS):
        return {}
    codes: dict[str, CodeType] = {}
    for record in block.records().values():
        codes.update({row[0]: row[-1] for row in marshal.loads(record)})
    found = {}
    for path, source in sources.items():
        if path.endswith(".py") and path.startswith(SITE):
            name, _ = archive.module_name(path[len(SITE) :])
            if before.get(path) == source and name in codes:
                found[path] = codes[name]
    return found


def _code(name: str, tree: ast.Module) -> CodeType:
    """Return the code of a module."""
    ours = name.startswith("anocir/")
    if ours:
        # Read at each start and used by nobody then: annotations (with the import of
        # __future__ that makes them text), imports for the type checker, docstrings.
        tree = ast.fix_missing_locations(_Strip().visit(tree))
    code = compile(tree, name, "exec", dont_inherit=True, optimize=2 if ours else 0)
    # As one that is taken from an older archive.
    again: CodeType = marshal.loads(marshal.dumps(code))
    return again


def _settled(data: bytes) -> bytes:
    """Return marshalled code in the one form that does not depend on the process.

    marshal gives a number to each object that somebody else knows too, whether it comes again or
    not: a reader keeps a list of them.  Here only those have one that do come again.
    """
    flagged: list[int] = []
    references: list[int] = []
    _read(data, 0, flagged, references)
    wanted = sorted({_long(data, at) for at in references})
    number = {old: new for new, old in enumerate(wanted)}
    settled = bytearray(data)
    for index, at in enumerate(flagged):
        if index not in number:
            settled[at] &= ~_FLAG
    for at in references:
        settled[at : at + 4] = number[_long(data, at)].to_bytes(4, "little")
    return bytes(settled)


# marshal.c, version 4: what follows the byte of the type.
_FLAG = 0x80
_SIZES = {**dict.fromkeys(b"NFTS.", 0), b"i"[0]: 4, b"I"[0]: 8, b"g"[0]: 8, b"y"[0]: 16}
_TEXTS = {**dict.fromkeys(b"stuaA", 4), **dict.fromkeys(b"zZ", 1)}
_MANY = {**dict.fromkeys(b"([<>", 4), b")"[0]: 1}
# l a number, o an object.
_CODE = "lllllooooooooloo" if sys.version_info >= (3, 11) else "lllllloooooooolo"


def _read(data: bytes, at: int, flagged: list[int], references: list[int]) -> int:
    """Pass over one object; collect where numbered ones begin, and where their numbers stand."""
    kind = data[at] & ~_FLAG
    if data[at] & _FLAG:
        flagged.append(at)
    at += 1
    if kind in _SIZES:
        return at + _SIZES[kind]
    if kind in _TEXTS:
        size = _TEXTS[kind]
        return at + size + int.from_bytes(data[at : at + size], "little")
    if kind == b"l"[0]:
        return at + 4 + 2 * abs(int.from_bytes(data[at : at + 4], "little", signed=True))
    if kind == b"r"[0]:
        references.append(at)
        return at + 4
    if kind in _MANY:
        size = _MANY[kind]
        plan = "o" * int.from_bytes(data[at : at + size], "little")
        at += size
    else:
        # ":" is a slice, of version 5.
        plan = {b"c"[0]: _CODE, b":"[0]: "ooo"}[kind]
    for letter in plan:
        at = at + 4 if letter == "l" else _read(data, at, flagged, references)
    return at


def _long(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")


class _Strip(ast.NodeTransformer):
    """Take from a syntax tree what only people and the type checker read."""

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        """Drop `from __future__ import annotations`."""
        return None if node.module == "__future__" else node

    def visit_If(self, node: ast.If) -> ast.AST | None:
        """Drop `if TYPE_CHECKING:`."""
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING" and not node.orelse:
            return None
        return self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> ast.AST | None:
        """Make `name: kind = value` a plain assignment."""
        self.generic_visit(node)
        if node.value is None:
            return ast.copy_location(ast.Pass(), node)
        return ast.copy_location(ast.Assign(targets=[node.target], value=node.value), node)

    def visit_arg(self, node: ast.arg) -> ast.AST:
        """Drop the annotation of a parameter."""
        node.annotation = None
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        """Drop the annotation of a result."""
        self.generic_visit(node)
        node.returns = None
        return node
