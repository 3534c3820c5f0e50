#!/usr/bin/python3
"""Name the tests of what was changed, for `make changed`: one a line, the quick ones first.

usage: changed.py [REVISION]

What differs from the revision (the last commit, if none is named) counts, and files that git does not know yet. For a
module of anocir: the unit and kernel tests that import it, those runtime tests that notice when it is broken
(mutations.py says which), the tests of the modules that import it where those are few, and the repository's own. For a
test: itself. For a helper of the tests: those that import it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from functools import lru_cache
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.mutations import MUTATIONS  # noqa: E402

# In this order; what starts a daemon or a machine is for the whole run.
TIERS = ("unit", "repo", "kernel", "runtime", "security")
ALWAYS = ("tests/repo/test_checks.py", "tests/repo/test_layers.py")
TEXTS = ("tests/repo/test_readme.py", "tests/repo/test_new_words.py")
# Modules, by a pattern of their names, and the tests that drive them through the archive, for most of them the only ones.
NEAR = {
    r"host/(relay|streams)|linux/terminals|inside/console": "runtime/test_terminal",
    r"__init__|base/(archive|compiler|preload|strict|activation|lacks)|host/(boot|repack)": "repo/test_pythons",
    r"host/hosthooks|base/hooks": "runtime/test_hooks",
    r"host/(idmaps|network)": "runtime/test_userns",
    r"host/(externals|images|restored|staging|mountinfo|checkpoint|restore|criu)": "runtime/test_checkpoint",
    r"host/(report|tools)": "runtime/test_check",
    r"host/recorder|seccomp/recording": "runtime/test_record_seccomp",
    r"host/(rehearse|validation)|model/spec/": "runtime/test_validate",
    r"host/(facts|explain)|model/(schema|plan|explain)": "unit/test_plan",
    r"host/added": "runtime/test_added_mounts",
    r"host/(events|update|oom|freeze|ps)|cgroup/|commands/(pause|resume|update|events|ps)": "runtime/test_cgroups",
    r"cgroup/(bus|systemd|unit)": "unit/test_cgroup_unit",
    r"cgroup/convert|linux/bpf": "unit/test_cgroup_convert",
    r"seccomp/|linux/notifications": "runtime/test_seccomp",
    r"model/mountoptions|inside/(mounts|attach|places)|base/(nameless|inroot)": "runtime/test_mounts",
    r"host/|commands/|inside/|wire/|linux/|quantities|version|cli|door|errors|base/": "runtime/test_lifecycle",
}
# A module that more modules import than that is for the whole run.
FEW = 12
SLOW = "runtime/test_checkpoint"
IMPORT = re.compile(r"^ *from (\.+)([\w.]*) import (\([^)]*\)|[^\n]*)", re.MULTILINE)


def main() -> int:
    """Print the tests."""
    revision = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    changed = git("diff", "--name-only", revision)
    changed += git("ls-files", "--others", "--exclude-standard")
    lines = git("diff", "--unified=0", revision, "--", "anocir")
    imports = any(re.match(r"[+-]\s*(from\s.*\bimport\b|import\s)", line) for line in lines)
    for test in tests_of(changed, imports):
        print(test)
    return 0


def git(*words: str) -> list[str]:
    """Give the lines that a git command prints."""
    done = subprocess.run(
        ["git", "-C", str(TOP), *words], capture_output=True, text=True, check=True
    )
    return done.stdout.splitlines()


def tests_of(changed: list[str], imports: bool = False) -> list[str]:
    """Choose the tests of some files, by their paths in the repository; `imports` differ, too, or not."""
    found: set[str] = set()
    for path in changed:
        if re.fullmatch(r"tests/(\w+/)*test_\w+\.py", path):
            found.add(path)
        elif path.endswith(".py") and path.startswith(("anocir/", "tests/")):
            found |= importing(path[: -len(".py")].replace("/", "."))
        if path.startswith("anocir/"):
            module = path[len("anocir/") : -len(".py")]
            words = {word for one in MUTATIONS if one.module == module for word in one.tests}
            found |= {f"tests/runtime/{word.partition('::')[0]}" for word in words}
            found |= driving(module, NEAR)
            using = users(module)
            if len(using) <= FEW:
                # Without the row for everything.
                near = {one: test for one, test in [*NEAR.items()][:-1] if test != SLOW}
                for user in using:
                    # Of the lowest tier: what the user does with it is seen there first.
                    known = {one for one in driving(user, near) if (TOP / one).exists()}
                    found |= {*sorted(known, key=lambda one: TIERS.index(one.split("/")[1]))[:1]}
            if imports:
                found.add("tests/repo/test_imports.py")
            if re.match("commands/|cli|door|quantities|version", module):
                found |= {"tests/repo/test_imports.py", "tests/runtime/test_cli.py"}
        if path.endswith((".md", ".svg")) or path == "Makefile":
            found |= set(TEXTS)
    if found:
        found |= set(ALWAYS)
    order = {tier: number for number, tier in enumerate(TIERS)}
    known = [one for one in found if one.split("/")[1] in order and (TOP / one).exists()]
    return sorted(known, key=lambda one: (order[one.split("/")[1]], one))


def driving(module: str, near: dict[str, str]) -> set[str]:
    """Name the tests that are called as a module, and those that `near` has for it; there may be none."""
    name = module.removesuffix("/__init__").rpartition("/")[2]
    found = {f"tests/{tier}/test_{name}.py" for tier in ("unit", "kernel", "runtime")}
    return found | {f"tests/{test}.py" for one, test in near.items() if re.match(one, module)}


def users(module: str) -> set[str]:
    """Find the modules of anocir that import one; all by their paths in the package, without the ending."""
    wanted = module.removesuffix("/__init__")
    return {user for user, imported in imports_of_all().items() if wanted in imported} - {module}


@lru_cache(maxsize=None)
def imports_of_all() -> dict[str, set[str]]:
    """Give what each module of anocir imports, and the names that it takes from there, as paths."""
    found: dict[str, set[str]] = {}
    for path in (TOP / "anocir").rglob("*.py"):
        user = str(path.relative_to(TOP / "anocir"))[: -len(".py")]
        found[user] = set()
        for dots, base, names in IMPORT.findall(path.read_text()):
            folder = user.split("/")[: -len(dots)] + [word for word in base.split(".") if word]
            listed = re.findall(r"\w+", names)
            found[user] |= {"/".join(folder), *("/".join([*folder, one]) for one in listed)}
    return found


read = lru_cache(maxsize=None)(Path.read_text)


def importing(module: str) -> set[str]:
    """Find the tests that import a module."""
    package, _, name = module.rpartition(".")
    pattern = re.compile(
        rf"^(from {re.escape(module)}|import {re.escape(module)})\b"
        rf"|^from {re.escape(package)} import [^\n]*\b{name}\b"
        rf"|^from {re.escape(package)} import \([^)]*\b{name}\b",
        re.MULTILINE,
    )
    return {
        os.path.relpath(path, TOP)
        for tier in TIERS
        for path in (TOP / "tests" / tier).glob("test_*.py")
        if name in read(path) and pattern.search(read(path))
    }


if __name__ == "__main__":
    sys.exit(main())
