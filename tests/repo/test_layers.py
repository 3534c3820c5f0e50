"""The folders are the layers: a module imports only from its own folder and from those below.

Which folder lies on which is one picture, in ROWS; a new file needs no entry.  `inside/`, what the
sealed interpreter does, and `host/`, what the runtime does, never import each other: what both
know is in `wire/`.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo

# From the top down.  Folders of one row do not know each other.
ROWS = (
    ("door",),
    ("host", "inside"),
    ("cgroup", "seccomp"),
    ("model",),
    ("wire",),
    ("base",),
    ("linux",),
    ("errors",),
)
# What each side may import at all, beside itself.
INSIDE = {"inside", "wire", "base", "linux", "errors"}
# Files that lie beside the folders.  Whatever is not named here or in a folder is the door's.
SINGLE = {"errors": "errors", "": "errors"}
# With them the only code outside of model/ that is pure: it knows words of the specification
# and makes no system call.
PURE = {"cgroup.convert", "cgroup.devices", "cgroup.unit", "seccomp.rules"}
# What a pure module may take from the kernel's package: numbers and names.
NUMBERS = {"linux.const", "linux.nr", "linux.capabilities"}
SYSTEM = {"posix", "os", "subprocess", "socket", "_socket", "_ctypes", "ctypes", "fcntl"}


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name without `anocir.`."""
    found = {}
    for path in sorted(TOP.glob("anocir/**/*.py")):
        parts = path.relative_to(TOP / "anocir").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()
FOLDERS = {path.parent.name for path in TOP.glob("anocir/*/__init__.py")}


def is_package(name: str) -> bool:
    return MODULES[name].name == "__init__.py"


IMPORTS = (ast.Import, ast.ImportFrom)


def without_type_checking(tree: ast.Module) -> ast.Module:
    class Cut(ast.NodeTransformer):
        def visit_If(self, node: ast.If) -> ast.AST | None:
            if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
                return None
            return self.generic_visit(node)

    return Cut().visit(tree)


def imports(name: str, top_level_only: bool = False) -> tuple[set[str], set[str]]:
    """Return what a module imports: modules of the package, and others."""
    tree = without_type_checking(ast.parse(MODULES[name].read_bytes()))
    if top_level_only:
        tree = ast.Module([node for node in tree.body if isinstance(node, IMPORTS)], [])
    own: set[str] = set()
    others: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            others.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module or "")
        elif isinstance(node, ast.ImportFrom):
            parts = name.split(".") if name else []
            up = node.level - (1 if is_package(name) else 0)
            base = parts[: len(parts) - up] + (node.module.split(".") if node.module else [])
            for alias in node.names:
                dotted = ".".join([*base, alias.name])
                own.add(dotted if dotted in MODULES else ".".join(base))
    return own, others


def folder(name: str) -> str:
    """Return the folder of a module; the files beside the folders are the door's."""
    top = name.partition(".")[0]
    if top in SINGLE:
        return SINGLE[top]
    return top if top in FOLDERS and top != "commands" else "door"


def row(name: str) -> int:
    where = folder(name)
    found = [index for index, names in enumerate(ROWS) if where in names]
    assert found, f"anocir/{where}/: say in ROWS on which folders it lies"
    return found[0]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_its_folder_and_from_below(name: str) -> None:
    for other in sorted(imports(name)[0]):
        if folder(other) == folder(name):
            continue
        assert row(other) > row(name), (
            f"anocir/{name.replace('.', '/')} imports {other}: {folder(other)}/ does not lie below "
            f"{folder(name)}/ (tests/repo/test_layers.py, ROWS)"
        )


def test_an_import_within_a_function_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "late.py"
    path.write_text("def f():\n    if True:\n        from ..host import exec as run_, store\n")
    monkeypatch.setitem(MODULES, "model.late", path)
    found = imports("model.late")[0]
    assert found == {"host.exec", "host.store"} and not imports("model.late", True)[0]
    with pytest.raises(AssertionError, match="host/ does not lie below model/"):
        test_a_module_imports_only_from_its_folder_and_from_below("model.late")


@pytest.mark.parametrize("name", [name for name in MODULES if folder(name) == "inside"])
def test_the_inner_side_knows_nothing_of_the_host_side(name: str) -> None:
    strangers = {other for other in imports(name)[0] if folder(other) not in INSIDE}
    assert not strangers, f"inside/ may import only {', '.join(sorted(INSIDE))}"


@pytest.mark.parametrize("name", [n for n in MODULES if folder(n) == "model" or n in PURE])
def test_a_pure_module_cannot_make_a_system_call(name: str) -> None:
    own, others = imports(name)
    reach = {other for other in own if folder(other) == "linux"} - NUMBERS
    assert not reach, f"{name} is pure: of linux/ only {sorted(NUMBERS)}"
    assert not others & SYSTEM, f"{name} is pure: {others & SYSTEM} make system calls"


def test_every_pure_module_is_there() -> None:
    assert PURE <= set(MODULES), f"PURE names what is not there: {PURE - set(MODULES)}"


def test_the_kernel_layer_knows_no_word_of_the_specification() -> None:
    words = ("config.json", "linux.resources", "ociVersion", "maskedPaths", "rootfsPropagation")
    for name, path in MODULES.items():
        if folder(name) == "linux":
            text = path.read_text()
            assert not [word for word in words if word in text], name


def test_ctypes_is_touched_by_one_file() -> None:
    users = {name for name in MODULES if {"ctypes", "_ctypes"} & imports(name)[1]}
    assert users <= {"linux.ffi"}, "declare the function with linux/ffi.py"


def test_calls_are_declared_in_linux_only_where_the_trace_sees_them() -> None:
    """A function of `linux/` is replaced by one that writes the call down; elsewhere nothing is."""
    for name, path in MODULES.items():
        declared = {
            node.attr
            for node in ast.walk(ast.parse(path.read_bytes()))
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "ffi"
        } & {"syscall", "function"}
        if folder(name) == "linux" or not declared:
            continue
        # the functions of a library are no system calls
        assert name in {"seccomp.library", "cgroup.bus"}, f"{name}: move the call to linux/"
        assert declared == {"function"}, f"{name}: move the call to linux/"


def test_libraries_are_opened_by_few_files_and_no_package_is_imported() -> None:
    opening = {name for name, path in MODULES.items() if "ffi.library(" in path.read_text()}
    known = {"seccomp.library", "cgroup.bus"}
    assert opening == known, "a library of the host is opened in these files only"
    standard = sys.stdlib_module_names if hasattr(sys, "stdlib_module_names") else None
    if standard is not None:
        foreign = {
            other
            for name in MODULES
            for other in imports(name)[1]
            if other.partition(".")[0]
            not in {*standard, "_sha2", "_sha256"}  # since, and before, 3.12
        }
        assert not foreign, "the archive has no dependency: the standard library only"


# Shapes for the type checker, which need typing (12 ms).
SHAPES = {"model.schema", "wire.shapes"}


def test_shapes_are_for_the_type_checker_only() -> None:
    assert SHAPES <= set(MODULES), "SHAPES names what is not there"
    for name in MODULES:
        own = imports(name)[0] & SHAPES
        assert not own, f"{name} imports {own} at run time: put it below `if TYPE_CHECKING:`"
