"""Every public function of the kernel's layer has a test that calls it, found by its name.

The test of `tasks.setns` is a function `test_setns_...` in tests/kernel/test_tasks.py.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.kernel

MODULES = [
    "files",
    "entries",
    "descriptors",
    "processes",
    "mounts",
    "inodes",
    "tasks",
    "oneself",
    "netlink",
    "sockets",
    "ffi",
]
# What is apart for the sake of start-up is tested together.
FILES = {"entries": "files", "descriptors": "files", "inodes": "mounts", "oneself": "tasks"}


def functions(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]


def public(module: str) -> list[str]:
    path = TOP / "anocir" / "linux" / f"{module}.py"
    found = [function.name for function in functions(path)] + taken_over(path)
    return [name for name in found if not name.startswith("_")]


def taken_over(path: Path) -> list[str]:
    """The interpreter's own functions that have a name in a module: `close: Final = posix.close`."""
    return [
        node.target.id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == node.target.id
        and node.target.id.islower()
    ]


def calls(node: ast.AST, module: str) -> set[str]:
    """The functions of a module that a piece of code uses as module.function."""
    return {part.attr for part in ast.walk(node) if isinstance(part, ast.Attribute)
            and isinstance(part.value, ast.Name) and part.value.id == module}  # fmt: skip


@pytest.mark.parametrize(
    ("module", "name"), [(module, name) for module in MODULES for name in public(module)]
)
def test_a_function_has_a_test_that_calls_it(module: str, name: str) -> None:
    file = TOP / "tests" / "kernel" / f"test_{FILES.get(module, module)}.py"
    others = sorted(public(module), key=len, reverse=True)
    helpers = {function.name: calls(function, module) for function in functions(file)}
    for function in functions(file):
        subject = next((one for one in others if function.name.startswith(f"test_{one}_")), "")
        if subject != name:
            continue
        used = calls(function, module)
        for part in ast.walk(function):
            if isinstance(part, ast.Name):
                used |= helpers.get(part.id, set())
        if name in used:
            return
    pytest.fail(f"tests/kernel/test_{module}.py has no test_{name}_... that calls {module}.{name}")
