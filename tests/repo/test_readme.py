"""What the README promises is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from anocir import cli

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text()
CONTRIBUTING = (TOP / "CONTRIBUTING.md").read_text()
pytestmark = pytest.mark.repo


def test_every_local_link_leads_somewhere() -> None:
    for text, target in re.findall(r"\[([^\]]+)\]\(([^)]+)\)", README):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        assert not path or (TOP / path).exists(), f"{text}: {target}"
        if anchor and not path:
            titles = re.findall(r"^#+ (.*)$", README, re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
            assert anchor in slugs, f"{target}: README has no such title"


def test_the_map_names_every_module() -> None:
    section = CONTRIBUTING.partition("## The folders")[2].partition("\n## ")[0]
    for path in sorted(TOP.glob("anocir/*")):
        if path.suffix == ".py" and path.name != "__init__.py":
            assert path.name in section, f"{path.name} is not in the map of CONTRIBUTING.md"
        elif path.is_dir() and (path / "__init__.py").exists():
            assert f"{path.name}/" in section, f"{path.name}/ is not in the map of CONTRIBUTING.md"
    words = set(re.findall(r"\w+", section))
    for name in ("host", "inside"):
        for path in sorted(TOP.glob(f"anocir/{name}/*.py")):
            if path.name != "__init__.py":
                assert path.stem in words, (
                    f"{name}/{path.name} is not in the map of CONTRIBUTING.md"
                )


def test_the_files_that_contributing_names_exist() -> None:
    for name in set(
        re.findall(r"`((?:tests|model|inside|host|cgroup|linux)/[\w/]+(?:\.py|/))`", CONTRIBUTING)
    ):
        assert (TOP / "anocir" / name).exists() or (TOP / name).exists(), f"{name} is gone"
    tables = re.findall(r"`([a-z/]+)\.(_?[A-Z][A-Z_]+)`", CONTRIBUTING)
    assert ("cli", "COMMANDS") in tables and ("manual", "_ANNOTATIONS") in tables
    for module, table in tables:
        source = (TOP / f"anocir/{module}.py").read_text()
        assert re.search(rf"(?m)^{table}\b.* = ", source), f"{module}.py has no {table} any more"


def test_the_commands_are_all_there() -> None:
    for name in cli.COMMANDS:
        assert f"`{name}`" in README, f"{name} is not among README's commands"


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (TOP / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        found = re.search(rf"^{target}:", makefile, re.MULTILINE)
        assert found, f"README says make {target}, which the Makefile has not"


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (TOP / ".ci/run").read_text()
    assert "make test" in README


def test_every_target_of_make_explains_itself() -> None:
    makefile = (TOP / "Makefile").read_text()
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        told = re.search(rf"^{target}:.*## ", makefile, re.MULTILINE)
        assert told, f"Makefile: {target}: ## and what it is for, on one line"


def test_the_versions_agree() -> None:
    from anocir import __version__

    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (
        "## Unreleased" in (TOP / "CHANGELOG.md").read_text()
        or __version__ in (TOP / "CHANGELOG.md").read_text()
    )


# The first line of each indented block, and the test that takes it from here and runs it.
BLOCKS = {
    "$ anocir exec --tools busybox web which wc": ("runtime/test_readme.py", '"### Into a running container"'),
    "apt-get update && apt-get install -y make && make demo": ("fresh.py", "make demo"),
    "make test": ("../.ci/run", "make test"),
    "make build && make install PREFIX=/usr/local": ("repo/test_archive.py", '"install"'),
    '{"runtimes": {"anocir": {"path": "/usr/local/bin/anocir"}}, "default-runtime": "anocir"}':
        ("engines/test_readme.py", "block(\"`/etc/docker/daemon.json`\")"),
    "[Service]": ("engines/test_readme.py", 'block("**BuildKit** in dockerd")'),
    "version = 3": ("engines/test_readme.py", '"With **containerd** 2"'),
    "version = 2": ("engines/test_readme.py", '"With containerd 1.6 and 1.7"'),
    "apiVersion: node.k8s.io/v1": ("engines/test_readme.py", 'block("**Kubernetes** then has a class")'),
    "[engine]": ("engines/test_readme.py", 'block("`/etc/containers/containers.conf`")'),
    "[crio.runtime.runtimes.anocir]": ("engines/test_readme.py", 'block("`/etc/crio/crio.conf.d/10-anocir.conf`")'),
    "BUILDAH_ISOLATION=oci": ("engines/test_readme.py", 'block("With **Buildah**")'),
    "cd web && anocir spec && anocir run web": ("runtime/test_readme.py", 'command("**By hand**")'),
    "anocir spec --rootless && anocir run web": ("runtime/test_readme.py", "command('### Without root')"),
    "$ anocir validate --config broken.json": ("runtime/test_readme.py", "SESSIONS"),
    "$ anocir run noexec": ("runtime/test_readme.py", "SESSIONS"),
}  # fmt: skip


def test_every_block_is_run_by_a_test() -> None:
    found = re.findall(r"(?<=\n\n)    (\S.*)\n", README)
    assert set(found) == set(BLOCKS), "name in BLOCKS the test that runs the block of README.md"
    for path, words in BLOCKS.values():
        assert words in (TOP / "tests" / path).read_text(), path


def test_it_is_short_and_in_order() -> None:
    assert len(README.splitlines()) < 250, "README.md: what is said in 250 lines is read; shorten"
    titles = re.findall(r"^## (.*)$", README, re.MULTILINE)
    assert titles == [
        "Two commands", "Install, upgrade, remove", "What it needs", "Use it", "Commands", "When something does not work",
        "Features beside the peers", "Conformance", "Reliability", "Speed", "How it works, and security", "Limits",
    ], "README.md: its sections in their order"  # fmt: skip


def test_every_figure_is_that_of_a_result_file() -> None:
    """They are written by tests/readme.py --write, when a result file is new."""
    from tests import readme

    assert readme.renewed(README)[1] == [], "write them anew: python tests/readme.py --write"
    assert readme.renewed(README.replace("| create | ", "| create | 9"))[1] == ["speed"]


def test_what_is_said_of_trouble_is_what_the_program_says() -> None:
    section = README.partition("## When something does not work")[2].partition("\n## ")[0]
    told = re.findall(r"^\| `([^`]+)`", section, re.MULTILINE)
    sources = "".join(path.read_text() for path in (TOP / "anocir").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", sources)  # a long text is two strings
    assert len(told) == 5, "the table of README.md has five troubles, each with the program's words"
    for text in told:
        for part in text.split(" ... "):
            assert part in joined or part == "permission denied", text
