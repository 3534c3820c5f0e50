#!/usr/bin/env python3
"""Build dist/anocir: one executable zip of the package and its dependencies.

shiv packs; then this script rewrites the archive for start-up time:

* the first line runs `-c` code that puts <archive>/site-packages on sys.path and calls the
  door, so nothing is extracted and neither runpy nor shiv's bootstrap is imported (6 and 45 ms);
* a .pyc that is never checked against its source lies beside each .py (an import takes 0.09 ms
  instead of 0.69); another version of Python than the one it was built for reads the .py;
* entries are stored, in a fixed order and with a fixed time: equal sources give equal bytes.

usage: build.py [build]     write dist/anocir
       build.py --check     build twice and compare byte for byte
       build.py tools       install shiv and the dependencies below build/venv (needs the network)
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import importlib.util
import marshal
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

TOP = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
VENV = TOP / "build" / "venv"
TOOLS = ("shiv==1.0.8", "jeepney==0.9.0")

# Old kernels read 128 bytes of the first line, the last of which is the terminating zero.
FIRST_LINE_LIMIT = 127
FIRST_LINE = (
    '#!{python} -IBScimport sys,marshal;f=open(sys.argv[1],"rb");f.readline();exec(marshal.load(f))'
)
# What the first line reads next, as text, since every Python can read that: with the right Python
# the block of modules (anocir/base/preload.py), else the zip.  host/boot.py starts init through the
# same text, with another `entry`.  The archive comes last on sys.path: looking for a module of the
# standard library in it would read the directory of the zip (0.7 ms).  What fails here (memory,
# descriptors, the disk) is told in one line; only the first line itself cannot do that.
SECOND = """\
try:
    import _frozen_importlib_external as e
    sys.path += [f.name + "/site-packages"]
    if e.MAGIC_NUMBER == {magic!r}:
        exec(marshal.loads(f.read({preload})))
        install(f, {index})
    m = __import__(globals().get("entry", "anocir.__main__"), fromlist=["main"])
except Exception as error:
    sys.exit(f"anocir: cannot load itself: {{error}}")
m.main()
"""
# Modules that are only imported by rare commands and on rare hosts stay in the zip alone.
COLD = re.compile(
    r"anocir/(build_id|base/preload|model/(schema|spec/advice)"
    r"|host/(events|idmapped|netdevices|notify|oom|resctrl|update)"
    r"|commands/(spec|features|events|update)|cgroup/(systemd|unit|stats)|linux/(bpf|trace)"
    r"|seccomp/(generate|library|program|support|rules))\.pyc"
)
# For `python3 dist/anocir`: sys.argv[0] and sys.path[0] are the archive already.
MAIN = """\
import sys

sys.path[0] += "/site-packages"
from anocir.__main__ import main

main()
"""
# What a D-Bus client with blocking calls does not import: other event loops, code generators.
UNUSED = re.compile(r"jeepney/(bindgen|io/(asyncio|threading|trio))\.py|.*/tests/.*")
LICENCE = re.compile(r"[^/]+\.dist-info/(licenses/)?LICEN[CS]E[^/]*")
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build dist/anocir.")
    parser.add_argument("what", nargs="?", default="build", choices=["build", "tools"])
    parser.add_argument("--check", action="store_true", help="build twice and compare")
    parser.add_argument("--python", default=PYTHON, help=f"interpreter to run on [{PYTHON}]")
    parser.add_argument("--output", type=Path, default=TOP / "dist" / "anocir", metavar="FILE")
    parser.add_argument("--compile", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.compile:
        compile_tree(options.compile)
        return 0
    tools = find_tools()
    if options.what == "tools":
        return 0
    data = build(tools, options.python)
    if options.check:
        again = build(tools, options.python)
        if data != again:
            sys.exit("build.py: two builds of the same sources differ")
        print(f"reproducible: {hashlib.sha256(data).hexdigest()}")
        return 0
    write(options.output, data)
    print(f"{options.output}: {len(data)} bytes for {options.python}")
    return 0


def find_tools() -> str:
    """Return an interpreter that has shiv and jeepney; make a virtual environment if none has."""
    for candidate in (sys.executable, str(VENV / "bin" / "python3")):
        if Path(candidate).exists() and has_tools(candidate):
            return candidate
    print(f"installing {' and '.join(TOOLS)} below {VENV} ...", flush=True)
    made = subprocess.run([PYTHON, "-m", "venv", "--clear", VENV], check=False)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            "build.py: cannot make a virtual environment\n"
            "build.py: on Debian and Ubuntu: apt-get install python3-venv, or make demo"
        )
    pip = [
        VENV / "bin" / "python3",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    if subprocess.run([*pip, *TOOLS], check=False).returncode:
        sys.exit(f"build.py: cannot install {' and '.join(TOOLS)}")
    return str(VENV / "bin" / "python3")


def has_tools(python: str) -> bool:
    """Tell whether an interpreter has the packages in the versions that are pinned above."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for tool in sys.argv[1:]:\n"
        "    name, version = tool.split('==')\n"
        "    try: sys.exit(1) if m.version(name) != version else None\n"
        "    except m.PackageNotFoundError: sys.exit(1)\n"
    )
    return subprocess.run([python, "-c", code, *TOOLS], check=False).returncode == 0


def build(tools: str, python: str) -> bytes:
    """Return the bytes of the archive."""
    line = FIRST_LINE.format(python=python)
    if len(line) > FIRST_LINE_LIMIT:
        sys.exit(f"build.py: {python}: the first line would have {len(line)} characters")
    with tempfile.TemporaryDirectory(prefix="anocir-build-") as scratch:
        site = Path(scratch, "site-packages")
        stage(tools, site)
        packed = Path(scratch, "packed")
        pack(tools, site, packed, line)
        sources = {}
        with zipfile.ZipFile(packed) as archive:
            for name in archive.namelist():
                inner = name.partition("site-packages/")[2]
                if inner:
                    sources[inner] = archive.read(name)
            environment = archive.read("environment.json")
        compiled = compile_sources(python, sources, Path(scratch, "compiled"))
    start = line.encode() + b"\n" + block(compiled)
    return assemble(start, {**sources, **compiled}, environment)


def stage(tools: str, site: Path) -> None:
    """Lay out what goes in: the package, its commit, and the dependency with its licence."""
    shutil.copytree(TOP / "anocir", site / "anocir", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "LICENSE", site / "anocir" / "LICENSE")
    Path(site, "anocir", "build_id.py").write_text(
        f'"""Written by build.py."""\n\nCOMMIT = "{commit(site)}"\n', encoding="utf-8"
    )
    code = (
        "import importlib.metadata as m\n"
        "for f in m.files('jeepney'): print(f, f.locate(), sep='\\t')\n"
    )
    listing = subprocess.run([tools, "-c", code], check=True, capture_output=True, text=True)
    for row in listing.stdout.splitlines():
        name, _, path = row.partition("\t")
        wanted = name.startswith("jeepney/") and name.endswith(".py") and not UNUSED.fullmatch(name)
        if wanted or LICENCE.fullmatch(name):
            target = site / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)


def commit(site: Path) -> str:
    """Name the sources: the commit if the package is as committed, else a hash of its content."""
    git = shutil.which("git")
    if git and (TOP / ".git").exists():
        run = [git, "-C", str(TOP)]
        state = subprocess.run(
            [*run, "status", "--porcelain", "--", "anocir", "build.py"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        head = subprocess.run(
            [*run, "rev-parse", "HEAD"], check=False, capture_output=True, text=True
        )
        if state.returncode == head.returncode == 0 and not state.stdout:
            return head.stdout.strip()
    digest = hashlib.sha256()
    for path in sorted(site.rglob("*.py")):
        digest.update(f"{path.relative_to(site)}\0".encode() + path.read_bytes() + b"\0")
    return f"sources-{digest.hexdigest()[:16]}"


def pack(tools: str, site: Path, target: Path, line: str) -> None:
    """Let shiv make the archive."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
    command = [tools, "-W", "ignore", "-m", "shiv", "--site-packages", site, "--python", line[2:],
               "--entry-point", "anocir.__main__:main", "--reproducible", "--uncompressed",
               "--output-file", target]  # fmt: skip
    subprocess.run(command, check=True, env=environment)


def compile_sources(python: str, sources: dict[str, bytes], scratch: Path) -> dict[str, bytes]:
    """Return the .pyc of each .py, compiled by the interpreter that will run them."""
    for name, data in sources.items():
        if name.endswith(".py"):
            path = scratch / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
    # A set in a constant is written in the order of its hashes.
    environment = {"PYTHONHASHSEED": "0", "PATH": "/usr/bin:/bin"}
    command = [python, "-sSB", __file__, "--compile", scratch]
    subprocess.run(command, check=True, env=environment)
    return {
        str(path.relative_to(scratch)): path.read_bytes() for path in sorted(scratch.rglob("*.pyc"))
    }


def compile_tree(directory: Path) -> None:
    """Write a .pyc beside each .py, of the kind that ignores its source (PEP 552)."""
    header = importlib.util.MAGIC_NUMBER + (0b01).to_bytes(4, "little")
    for path in sorted(directory.rglob("*.py")):
        source = path.read_bytes()
        name = str(path.relative_to(directory))
        tree = ast.parse(source, name)
        if name.startswith("anocir/"):
            # Read at each start and used by nobody then: annotations (with the import of
            # __future__ that makes them text), imports for the type checker, docstrings.
            tree = ast.fix_missing_locations(Strip().visit(tree))
            code = compile(tree, name, "exec", dont_inherit=True, optimize=2)
        else:
            code = compile(tree, name, "exec", dont_inherit=True, optimize=0)
        # Once through marshal: its back references depend on reference counts of the compiler.
        data = marshal.dumps(marshal.loads(marshal.dumps(code)))
        hashed = importlib.util.source_hash(source)
        path.with_suffix(".pyc").write_bytes(header + hashed + data)


class Strip(ast.NodeTransformer):
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


def block(compiled: dict[str, bytes]) -> bytes:
    """Return what stands between the first line and the zip: SECOND, then its block of modules."""
    index = {}
    blob = b""
    magic = b""
    for name, data in sorted(compiled.items()):
        if name.startswith("anocir/") and not COLD.fullmatch(name):
            module = name[: -len(".pyc")].replace("/", ".")
            package = module.endswith(".__init__")
            code = data[16:]
            index[module[: -len(".__init__")] if package else module] = (
                len(blob), len(code), package,
            )  # fmt: skip
            blob += code
            magic = data[:4]
    table = marshal.dumps(index, 2)
    preload = compiled["anocir/base/preload.pyc"][16:]
    text = SECOND.format(magic=magic, preload=len(preload), index=len(table))
    return marshal.dumps(text, 2) + preload + table + blob


def assemble(start: bytes, files: dict[str, bytes], environment: bytes) -> bytes:
    """Return the final zip, in the order in which it is read: the package's .pyc first."""
    entries = {f"site-packages/{name}": data for name, data in files.items()}
    # What shiv wrote about the build, for its command shiv-info.
    entries["environment.json"] = environment
    entries["__main__.py"] = MAIN.encode()
    with tempfile.TemporaryFile() as file:
        file.write(start)
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name in sorted(entries, key=_rank):
                info = zipfile.ZipInfo(name, EPOCH)
                info.external_attr = 0o100644 << 16
                archive.writestr(info, entries[name])
        file.seek(0)
        return file.read()


def _rank(name: str) -> tuple[bool, bool, str]:
    return not name.startswith("site-packages/anocir/"), not name.endswith(".pyc"), name


def write(path: Path, data: bytes) -> None:
    """Replace the file at once: a running container may still import from the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(0o755)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
