#!/usr/bin/python3
"""The README's tables of figures, from the result files: a figure there is one that was measured.

usage: readme.py [--write]

Without --write it says which table differs, and exits with 1.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
# Row of the result file: its name in the README.
SPEED = {
    "systemd: create": "create under systemd",
    "systemd: exec": "exec under systemd",
    "systemd: delete": "delete under systemd",
    "systemd: lifecycle": "a whole life under systemd",
    "run, Docker's config": "run, Docker's config and seccomp profile",
    "run": "run",
    "create": "create",
}
RELIABILITY = {
    "create killed at random": "`create` killed at a random time",
    "run, each system call of init killed": "init of `run` killed at its system calls",
    "create, each system call failing": "system calls of `create` fail",
    "damaged state": "damaged state file, init alive",
    "full disk": "full disk",
}


def rows(text: str) -> dict[str, list[str]]:
    """The rows of all tables of a file, by their first cell."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        if line.startswith("|") and not line.startswith("|-"):
            name, *cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            found.setdefault(name.strip("*"), cells)
    return found


def speed(results: str) -> list[str]:
    """Medians of anocir, runc and crun, and the first by the second; then a row for each Python."""
    table = rows(results)
    first = results.split("\n", 1)[0]
    lines = [f"| {first.split(',')[0]}, median ms | anocir | runc | crun | anocir / runc |",
             "| --- | ---: | ---: | ---: | ---: |"]  # fmt: skip
    for name, shown in SPEED.items():
        cells = [cell.split(" (")[0] for cell in table[name][:4]]
        cells += [""] * (4 - len(cells))
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    # In one file for all of them, beside one that the Python has built for itself.
    for version in [name.split()[-1] for name in table if name.startswith("state, Python ")]:
        both = [table[f"{step}, Python {version}"] for step in ("state", "run")]
        took, ratio = (", ".join(cells[at].split(" (")[0] for cells in both) for at in (0, 2))
        lines.append(
            f"| state, run by Python {version} | {took} | | | {ratio} of a file built by it |"
        )
    return lines


def reliability(results: str) -> list[str]:
    """What was left or wrong, of how many."""
    table = rows(results)
    versions = re.findall(r"(anocir|runc|crun): \w+ version ([\w.]+\w)", results)
    head = " | ".join([results.split(",")[0], *(" ".join(version) for version in versions)])
    lines = [f"| {head} |", "| --- | --- | --- | --- |"]
    lines += [f"| {shown} | {' | '.join(table[name][:3])} |" for name, shown in RELIABILITY.items()]
    return lines


def conformance(host: str, machine: str) -> list[str]:
    """Files passed and lines, on the host and in the machine."""
    on_host = rows(host)["files passed"][:4]
    inside = rows(machine)["files passed"][:2]
    versions = re.findall(r"(anocir|runc|crun): \w+ version ([\w.]+\w)", host)
    names = dict(versions)
    head = f"| files passed | anocir {names['anocir']} | with `--start-exec-errors container` "
    lines = [
        f"{head}| runc {names['runc']} | crun {names['crun']} (it refuses 1.3.0) |",
        "| --- | --- | --- | --- | --- |",
    ]
    lines.append("| host | " + " | ".join(on_host).replace("**", "") + " |")
    lines.append("| machine | " + " | ".join([*inside, "", ""]).replace("**", "") + " |")
    return lines


def tables() -> dict[str, list[str]]:
    """All tables by the name that their place in the README has."""

    def text(path: str) -> str:
        return (TOP / "tests" / path).read_text(encoding="utf-8")

    return {
        "conformance": conformance(
            text("conformance/results.md"), text("conformance/results-vm.md")
        ),
        "reliability": reliability(text("reliability/results.md")),
        "speed": speed(text("bench/results.md")),
    }


def renewed(readme: str) -> tuple[str, list[str]]:
    """The README with its tables as they are to be, and the names of those that were not."""
    stale = []
    for name, lines in tables().items():
        # The one table of the section of that name.
        place = re.compile(rf"(\n## {name.title()}\n(?:[^|#\n][^\n]*\n|\n)*)((?:\|[^\n]*\n)+)")
        assert place.search(readme), f"the README has no place for the table of {name}"
        wanted = "\n".join(lines) + "\n"
        new = place.sub(lambda found, wanted=wanted: found[1] + wanted, readme, count=1)
        if new != readme:
            stale.append(name)
        readme = new
    return readme, stale


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into README.md")
    options = parser.parse_args()
    path = TOP / "README.md"
    text, stale = renewed(path.read_text(encoding="utf-8"))
    if options.write:
        path.write_text(text, encoding="utf-8")
        return 0
    for name in stale:
        print(
            f"README.md: the table of {name} is not that of the result file: tests/readme.py --write"
        )
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
