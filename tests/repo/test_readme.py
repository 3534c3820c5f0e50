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
            assert anchor in slugs, target


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


def test_the_commands_are_all_there() -> None:
    for name in cli.COMMANDS:
        assert f"`{name}`" in README, name


def test_the_targets_of_make_that_it_names_exist() -> None:
    makefile = (TOP / "Makefile").read_text()
    for target in set(re.findall(r"make ([a-z-]+)", README)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_ci_calls_the_test_command_of_the_readme() -> None:
    assert "make test" in (TOP / ".ci/run").read_text()
    assert "make test" in README


def test_every_target_of_make_explains_itself() -> None:
    makefile = (TOP / "Makefile").read_text()
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        assert re.search(rf"^{target}:.*## ", makefile, re.MULTILINE), target


def test_the_versions_agree() -> None:
    from anocir import __version__

    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
    assert (
        "## Unreleased" in (TOP / "CHANGELOG.md").read_text()
        or __version__ in (TOP / "CHANGELOG.md").read_text()
    )
