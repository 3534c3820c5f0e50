"""Forms that must not appear in the package, each with the accident it prevents."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.repo.test_layers import MODULES

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo

FORBIDDEN_IMPORTS = {
    "pickle": "code execution by whoever writes the state directory",
    "shelve": "the same",
    "marshal": "the same",
    "pwd": "NSS loads libraries of the image",
    "grp": "NSS loads libraries of the image",
    "ctypes.util": "find_library runs ldconfig and gcc",
    "argparse": "10 ms at each start, and not the parser that callers expect",
    "logging": "17 ms at each start",
    "pathlib": "12 ms at each start",
    "dataclasses": "18 ms at each start",
}
# Between the two interpreters of one call, over a descriptor that nobody else has.
EXCEPTIONS = {
    (name, "marshal")
    for name in ("inside.init", "host.launch", "host.joining", "host.create", "host.exec")
}
# It loads modules out of the archive itself, as the interpreter's own importer does.
EXCEPTIONS |= {("base.preload", "marshal"), ("base.preload", "exec")}
# These write it: the archive's own head and blocks, compiled from the sources beside them.
EXCEPTIONS |= {(name, "marshal") for name in ("base.archive", "base.compiler", "host.repack")}
EXCEPTIONS |= {("base.compiler", "compile")}
# Cold commands may import these inside functions only.
LATE_ONLY = {
    "json",
    "subprocess",
    "traceback",
    "importlib.util",
    "re",
    "os",
    "socket",
    "struct",
    "signal",
}
FORBIDDEN_CALLS = {"eval", "exec", "compile", "input", "print", "breakpoint"}


def trees() -> list[tuple[str, ast.Module]]:
    return [(name, ast.parse(path.read_bytes())) for name, path in MODULES.items()]


TREES = trees()


def imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [node.module or ""]
    return []


@pytest.mark.parametrize(("name", "tree"), TREES, ids=[name or "anocir" for name, _ in TREES])
def test_no_forbidden_form(name: str, tree: ast.Module) -> None:
    found = []
    own = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        line = getattr(node, "lineno", 0)
        if isinstance(node, ast.Assert):
            found.append(f"{line}: assert vanishes in the archive")
        for module in imported(node):
            if module in FORBIDDEN_IMPORTS and (name, module) not in EXCEPTIONS:
                found.append(f"{line}: import {module}: {FORBIDDEN_IMPORTS[module]}")
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in FORBIDDEN_CALLS and (name, node.func.id) not in EXCEPTIONS:
                found.append(f"{line}: {node.func.id}()")
            # /proc is opened through linux.files, and in a container by descriptor.
            if node.func.id == "open" and "open" not in own and name != "commands.spec":
                found.append(f"{line}: the open() of Python; use linux.files")
        if isinstance(node, ast.Attribute) and node.attr == "system":
            found.append(f"{line}: a shell")
    for node in tree.body:
        if set(imported(node)) & LATE_ONLY:
            found.append(f"{node.lineno}: {imported(node)[0]} is imported at each start")
    assert not found, f"anocir/{name.replace('.', '/')}: do without, or say in EXCEPTIONS why not"


@pytest.mark.parametrize(("name", "tree"), TREES, ids=[name or "anocir" for name, _ in TREES])
def test_every_public_function_and_module_says_what_it_is_for(name: str, tree: ast.Module) -> None:
    lacking = [] if ast.get_docstring(tree) else ["module"]
    for node in tree.body:
        public = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name[:1] != "_"
        if public and not ast.get_docstring(node):
            lacking.append(node.name)
    assert not lacking, f"anocir/{name.replace('.', '/')}: give these a docstring"


@pytest.mark.parametrize("path", sorted(TOP.glob("anocir/**/*.py")), ids=str)
def test_every_module_postpones_its_annotations(path: Path) -> None:
    text = path.read_text()
    if "def " in text or ": " in text.partition('"""')[2].partition('"""')[2]:
        # The package itself is loaded by an interpreter that has not imported __future__ yet.
        postponed = "from __future__ import annotations" in text
        assert postponed or len(text.splitlines()) < 6 or path == TOP / "anocir/__init__.py", (
            "put `from __future__ import annotations` below the docstring: Final and X | Y cost an import"
        )


def test_a_json_path_with_a_name_is_spelled_in_one_way() -> None:
    """annotations["x"], by errors.keyed: it escapes, and base/codes finds the path again."""
    bare = re.compile(r"""\w\[("\{|\{\w+!a\}|\\?'\w+\.)""")
    assert bare.search("x = f'annotations[\"{name}\"]'")
    assert bare.search("x = f'annotations[{name!a}]'")
    assert bare.search("x = \"annotations['a.b']\"")
    for name, path in MODULES.items():
        for number, line in enumerate(path.read_text().splitlines(), 1):
            assert not bare.search(line), f"{name}:{number}: errors.keyed(path, name) says it"


def test_no_path_of_one_machine_is_in_the_sources() -> None:
    suspicious = ("/" + "work/", "/" + "root/.pyenv", "/" + "home/")
    for path in [*TOP.glob("anocir/**/*.py"), *TOP.glob("*.*"), TOP / "Makefile", TOP / ".ci/run"]:
        if path.is_file():
            text = path.read_text(errors="replace")
            assert not [word for word in suspicious if word in text], path


def test_a_dict_of_anything_has_a_name() -> None:
    """What a dict holds is a TypedDict of model/schema or wire/shapes; any JSON is schema.Json."""
    found = [
        f"{path.relative_to(TOP)}: {line.strip()}"
        for path in sorted(TOP.glob("anocir/**/*.py"))
        for line in path.read_text().splitlines()
        if "dict[str, Any]" in line
    ]
    assert found == [
        "anocir/base/protobuf.py: Message = dict[str, Any]  # of the fields of some table",
        "anocir/model/schema.py: Json = dict[str, Any]",
    ], "say what the new one holds: a TypedDict in anocir/model/schema.py, or schema.Json"
