"""A module imports only from a lower layer, and pure modules cannot reach a system call."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo

# From the top down. A name stands for the module, or for the package with all its modules;
# the longest name that fits counts.
LAYERS = {
    "door": ("__main__", "door", "cli", "commands", "build_id"),
    "lifecycle": (
        "lifecycle", "create", "execute", "foreground", "resources", "launch", "boot", "idmap", "init",
    ),
    "mechanism": (
        "rootfs", "namespaces", "process", "terminal", "hooks", "cgroup", "resctrl", "netdevices", "notify", "context",
        "check",
    ),
    "support": ("inroot", "store", "channel", "copyup"),
    "model": (
        "spec", "plan", "mountoptions", "capabilities", "seccomp", "schema", "explain",
        "cgroup.convert", "cgroup.devices",
    ),
    "basics": ("log", "jsonio", "activation", "preload"),
    "kernel": ("linux",),
    "errors": ("errors", ""),
}  # fmt: skip
ORDER = list(LAYERS)
# Modules of one row that may know each other; mechanisms may not.
CLOSED = {"mechanism"}
# Steps share the state that init hands them.
ALLOWED = {("mechanism", "context")}

# What a pure module may take from the kernel's package: numbers.
NUMBERS = {"linux.const", "linux.nr"}
PURE = {"plan", "mountoptions", "capabilities", "cgroup.convert", "cgroup.devices", "schema"}
SYSTEM = {"posix", "os", "subprocess", "socket", "_socket", "_ctypes", "ctypes", "fcntl"}


def modules() -> dict[str, Path]:
    """Return every module of the package by its dotted name without `anocir.`."""
    found = {}
    for path in sorted(TOP.glob("anocir/**/*.py")):
        parts = path.relative_to(TOP / "anocir").with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


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


def layer(name: str) -> str:
    best, row = -1, ""
    for title, names in LAYERS.items():
        for known in names:
            if (name == known or (known and name.startswith(known + "."))) and len(known) > best:
                best, row = len(known), title
    assert row, f"anocir/{name}: say in LAYERS where it belongs"
    return row


def unit(name: str) -> str:
    return name.partition(".")[0]


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_from_lower_layers(name: str) -> None:
    here = layer(name)
    own, _ = imports(name)
    for other in sorted(own):
        there = layer(other)
        if here == there and (here not in CLOSED or unit(name) == unit(other)):
            continue
        if (here, other) in ALLOWED:
            continue
        if (
            unit(name) == unit(other)
            and ORDER.index(there) < ORDER.index(here)
            and not other.count(".")
        ):
            continue  # a part and its own package's front
        assert ORDER.index(there) > ORDER.index(here), f"{name} ({here}) imports {other} ({there})"


@pytest.mark.parametrize("name", [name for name in MODULES if name in PURE or unit(name) == "spec"])
def test_a_pure_module_cannot_make_a_system_call(name: str) -> None:
    own, others = imports(name)
    reach = {other for other in own if unit(other) == "linux"} - NUMBERS
    if name == "spec":
        reach -= {"linux.files"}  # spec.load reads config.json
    assert not reach
    assert not others & SYSTEM


def test_the_kernel_layer_knows_no_word_of_the_specification() -> None:
    words = ("config.json", "linux.resources", "ociVersion", "maskedPaths", "rootfsPropagation")
    for name, path in MODULES.items():
        if unit(name) == "linux":
            text = path.read_text()
            assert not [word for word in words if word in text], name


def test_ctypes_is_touched_by_one_file() -> None:
    users = {name for name in MODULES if {"ctypes", "_ctypes"} & imports(name)[1]}
    assert users <= {"linux.ffi"}


def test_jeepney_is_touched_by_one_file() -> None:
    users = {name for name in MODULES if any(o.startswith("jeepney") for o in imports(name)[1])}
    assert users <= {"cgroup.systemd", "cgroup.dbus"}
