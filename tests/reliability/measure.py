#!/usr/bin/python3
"""The reliability table: kills, injected failures, races, many, damage, a full disk, fuzz, for runtimes side by side.

usage: measure.py [options] [NAME=]RUNTIME...

Steps (--steps): kill inject inject-init race many list runs damage disk fuzz. `inject` strikes at the runtime's
own process, `inject-init` at each process that it starts (the container's init above all). --every N takes each N-th
point of the enumeration only; "N unread" counts failures that struck while the interpreter read the archive,
before any line of it could say so better than Python does. Prints a markdown table and the first examples of
what went wrong; exits with 1 if anocir's column has anything but zeros. --join FILE... measures nothing and makes one
table of the results.json of several runs.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
from collections.abc import Sequence
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.host import BLAME, around  # noqa: E402
from tests import machine  # noqa: E402
from tests.reliability import crash, fuzz, inject, storm, strike  # noqa: E402
from tests.reliability.ground import ENVIRON, Ground, Progress, Runtime  # noqa: E402

STEPS = ("kill", "inject", "inject-init", "race", "many", "list", "runs", "damage", "disk", "fuzz")
KINDS = ((("SIGKILL",), "killed"), (tuple(inject.FAILURES), "failing"))
# figures that say how much was tried, or how long it took; all others should be 0
NEUTRAL = frozenset(
    [
        "kills",
        "in time",
        "points",
        "hit",
        "rounds",
        "count",
        "cases",
        "seconds",
        "delete seconds",
        "runs",
        "fails in start",
        "refused",
        "passed over",
        "skipped",
        "unloaded",
    ]
)


def planned(options: argparse.Namespace, steps: Sequence[str]) -> int:
    """Progress steps that are known beforehand; the enumeration adds its own."""
    return sum(
        {
            "kill": options.kills * len(crash.KILLED),
            "race": 2 * options.rounds,
            "list": options.list // 4,
            "runs": options.runs,
            "damage": 25,
            "fuzz": options.cases,
        }.get(step, 0)
        for step in steps
    )


def measure(
    ground: Ground,
    runtime: Runtime,
    options: argparse.Namespace,
    steps: Sequence[str],
    progress: Progress,
) -> dict[str, dict[str, Any]]:
    """All figures of one runtime, by row."""
    rows: dict[str, dict[str, Any]] = {}
    for step in steps:
        if step == "kill":
            for command in options.commands:
                if command not in crash.KILLED:
                    continue
                rows[f"{command} killed at random"] = crash.kill_randomly(
                    ground, runtime, command, options.kills, options.seed, progress
                )
        elif step == "inject":
            if not inject.can_inject():
                rows[step] = {"skipped": 1, "examples": ["strace cannot inject here"]}
                continue
            for command in options.commands:
                for kinds, what in KINDS:
                    rows[f"{command}, each system call {what}"] = inject.enumerate_points(
                        ground, runtime, command, kinds, options.every, progress
                    )
        elif step == "inject-init":
            if not strike.can_strike():
                rows[step] = {"skipped": 1, "examples": ["the kernel's numbers of x86_64"]}
                continue
            for command in options.commands:
                if command == "delete":  # starts nothing
                    continue
                for kinds, what in KINDS:
                    row = f"{command}, each system call of init {what}"
                    rows[row] = inject.enumerate_descendants(
                        ground, runtime, command, kinds, options.every, progress
                    )
        elif step == "race":
            rows["five creates of one id"] = storm.same_id(
                ground, runtime, options.rounds, progress
            )
            rows["six commands on one container"] = storm.six_commands(
                ground, runtime, options.rounds, progress
            )
        elif step == "many":
            rows["100 creates at once"] = storm.creates_at_once(ground, runtime, 100)
        elif step == "list":
            rows[f"list of {options.list}"] = storm.list_of(ground, runtime, options.list, progress)
        elif step == "runs":
            rows[f"{options.runs} runs in a row"] = storm.runs(
                ground, runtime, options.runs, progress
            )
        elif step == "damage":
            rows["damaged state"] = storm.damage(ground, runtime, progress)
        elif step == "disk":
            rows["full disk"] = storm.full_disk(ground, runtime)
        elif step == "fuzz":
            rows["mutated config.json"] = fuzz.fuzz(
                ground, runtime, options.cases, options.seed, keep=options.keep, progress=progress
            )
    return rows


def faults(figures: dict[str, Any]) -> dict[str, int]:
    """The figures that should be 0 and are not."""
    return {
        name: figure
        for name, figure in figures.items()
        if name not in NEUTRAL and name != "examples" and figure
    }


def cell(figures: dict[str, Any]) -> str:
    """One cell of the table: what went wrong, of how many."""
    tried = next(
        (
            figures[name]
            for name in ("in time", "points", "rounds", "count", "cases")
            if name in figures
        ),
        0,
    )
    if "skipped" in figures:
        return "not tried"
    wrong = "; ".join(f"{name} {figure}" for name, figure in faults(figures).items())
    seconds = f", {figures['seconds']} s" if "seconds" in figures else ""
    unread = f" ({figures['unloaded']} unread)" if figures.get("unloaded") else ""
    return f"{wrong or '0'} of {tried}{seconds}{unread}"


def table(columns: dict[str, dict[str, dict[str, Any]]]) -> str:
    """The markdown table."""
    names = list(columns)
    lines = ["| what went wrong | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row in columns[names[0]]:
        lines.append(
            f"| {row} | "
            + " | ".join(cell(columns[name][row]) if row in columns[name] else "" for name in names)
            + " |"
        )
    return "\n".join(lines) + "\n"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="what is left when things go wrong")
    parser.add_argument("--steps", default=",".join(STEPS), help="separated by commas")
    parser.add_argument(
        "--commands",
        default=",".join(crash.COMMANDS),
        help=f"for inject, and those of kill; also {', '.join(crash.WITH_CRIU + crash.INTO)}",
    )
    parser.add_argument("--kills", type=int, default=200, help="random kills of each command (200)")
    parser.add_argument(
        "--every", type=int, default=1, help="take each N-th point of the enumeration (1)"
    )
    parser.add_argument("--rounds", type=int, default=60, help="rounds of the races (60)")
    parser.add_argument("--list", type=int, default=1000, help="containers to list (1000)")
    parser.add_argument("--runs", type=int, default=300, help="runs in a row (300)")
    parser.add_argument("--cases", type=int, default=500, help="mutated configurations (500)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", default="", metavar="DIR", help="where fuzz findings are written")
    parser.add_argument(
        "--save", default="", metavar="DIR", help="write results.json and results.md there"
    )
    parser.add_argument("--examples", type=int, default=10, help="examples kept for each row (10)")
    parser.add_argument("--join", action="store_true", help="the arguments are results to join")
    parser.add_argument("runtimes", nargs="*", metavar="[NAME=]RUNTIME")
    options = parser.parse_args(arguments)
    options.commands = options.commands.split(",")
    return options


def main(arguments: Sequence[str]) -> int:
    """Measure and print; 1 if anocir has a fault."""
    options = parse(arguments)
    steps = [step for step in options.steps.split(",") if step]
    unknown = set(steps) - set(STEPS)
    if unknown:
        raise SystemExit(f"no such step: {', '.join(sorted(unknown))}")
    if options.join:
        return report(*joined(options.runtimes), options)
    if set(options.commands) & set(crash.WITH_CRIU):
        machine.use_criu()
        ENVIRON["PATH"] = os.environ["PATH"]
    runtimes = [Runtime(text) for text in options.runtimes or ["dist/anocir"]]
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    options.save = os.path.abspath(options.save) if options.save else ""
    options.keep = os.path.abspath(options.keep) if options.keep else ""
    progress = Progress("reliability", planned(options, steps) * len(runtimes))
    columns = {}
    with Ground("reliability", runtimes) as ground:
        for runtime in runtimes:
            with around("reliability", runtime.name):
                columns[runtime.name] = measure(ground, runtime, options, steps, progress)
    progress.end()
    title = f"{datetime.date.today().isoformat()}, Linux {platform.release()}; " + "; ".join(
        f"{name}: {version}" for name, version in versions.items()
    )
    return report(title, versions, columns, options)


Columns = dict[str, dict[str, dict[str, Any]]]


def joined(paths: Sequence[str]) -> tuple[str, dict[str, str], Columns]:
    """The title, versions and columns of several runs."""
    titles: list[str] = []
    versions: dict[str, str] = {}
    columns: Columns = {}
    for path in paths:
        with open(path, encoding="utf-8") as stream:
            results = json.load(stream)
        titles.append(results["title"])
        versions.update(results["versions"])
        for name, rows in results["rows"].items():
            columns.setdefault(name, {}).update(rows)
    first = titles[0].partition("; ")[0]
    return f"{first}; " + "; ".join(": ".join(item) for item in versions.items()), versions, columns


def report(
    title: str, versions: dict[str, str], columns: Columns, options: argparse.Namespace
) -> int:
    """Print and save; 1 if anocir has a fault."""
    text = f"{title}\n\n{table(columns)}"
    print(text)
    bad = 0
    for name, rows in columns.items():
        for row, figures in rows.items():
            if name.startswith("anocir"):
                bad += len(faults(figures))
            del figures["examples"][options.examples :]
            for example in figures["examples"]:
                print(f"{name}: {row}: {example}")
    if options.save:
        os.makedirs(options.save, exist_ok=True)
        with open(os.path.join(options.save, "results.md"), "w", encoding="utf-8") as stream:
            stream.write(text)
        with open(os.path.join(options.save, "results.json"), "w", encoding="utf-8") as stream:
            json.dump({"title": title, "versions": versions, "rows": columns}, stream, indent=1)
            stream.write("\n")
    return 1 if bad or BLAME else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
