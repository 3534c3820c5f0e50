"""What the runners of the peers' own suites share: outcomes, expected tables, a controlling terminal, an end.

A suite's checkout is the tester's: nothing of it is part of this project. An expected table (expected.md beside each
runner) names only the tests that do not simply pass with anocir, each with its reason; every other test must pass, or be
skipped by the suite itself for what the machine lacks.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import platform
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from tests.reliability.ground import Runtime, children_of, hierarchies, proc_state  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
CHECKED = "anocir"
WORDS = ("ok", "skip", "fail")


class Outcome(NamedTuple):
    """What one test of a suite gave: a word of WORDS, seconds, and why if it is not `ok`."""

    word: str
    seconds: float
    remark: str = ""


class Row(NamedTuple):
    """One line of an expected table: the outcomes that are right, on which machines, and why."""

    words: str
    condition: str
    reason: str


class Ended(NamedTuple):
    """How a program ended: exit status (-signal), whether it had to be killed, and its two outputs."""

    status: int
    hung: bool
    out: str
    err: str


def read_expected(path: str) -> dict[str, Row]:
    """The rows of an expected.md by the test's name; raises ValueError for a row without a reason.

    A row is `| test | expected | condition | why |`, where `\\|` is a bar within a cell.
    """
    rows = {}
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            cells = [
                cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())
            ][1:-1]
            if len(cells) != 4 or not set(cells[1].split(" or ")) <= set(WORDS):
                continue
            if not cells[3]:
                raise ValueError(f"{path}: {cells[0]}: no reason given")
            if cells[0] in rows:
                raise ValueError(f"{path}: {cells[0]}: listed twice")
            rows[cells[0]] = Row(*cells[1:])
    return rows


def differences(
    outcomes: dict[str, Outcome], rows: dict[str, Row], facts: set[str], whole: bool
) -> list[str]:
    """Where a column differs from the table, for better or worse; `whole` looks for rows without a test too."""
    found = []
    for name, outcome in outcomes.items():
        row = rows.get(name)
        if row is None or (row.condition and row.condition not in facts):
            if outcome.word == "fail":
                found.append(f"{name}: fails ({outcome.remark})")
            continue
        if outcome.word not in row.words.split(" or "):
            found.append(f"{name}: {outcome.word}, expected {row.words} ({outcome.remark})")
    if whole:
        found += [f"{name}: not in this suite" for name in rows if name not in outcomes]
    return found


def become_subreaper() -> None:
    """What a test leaves running becomes a child of this process, so that it can be ended."""
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _thaw(pid: int) -> None:
    """Thaw a process that a test left frozen: cgroup v1 delivers it no signal."""
    point = dict(hierarchies()).get("freezer")
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, names, path = line.rstrip("\n").split(":", 2)
            if "freezer" in names and point:
                with open(f"{point}{path}/freezer.state", "w", encoding="ascii") as state:
                    state.write("THAWED")


def end_orphans() -> None:
    """Kill what a test left: we are its subreaper."""
    for _ in range(100):
        alive = children_of(os.getpid())
        for pid in alive:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            if proc_state(pid) == "D":
                _thaw(pid)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        if not [pid for pid in alive if proc_state(pid) not in ("", "Z")]:
            break
        time.sleep(0.02)


@contextlib.contextmanager
def as_one_word(runtime: Runtime, scratch: str, before: Sequence[str] = ()) -> Iterator[str]:
    """A path that runs the runtime: a wrapper script if it has options or is crun on a host that it refuses.

    `before` are lines of sh(1) that a wrapper has to have, to alter its arguments.
    """
    lines = list(before)
    points = dict(hierarchies())
    if os.path.basename(runtime.argv[0]) == "crun" and len(points) > 1 and "unified" in points:
        # Debian's crun refuses a host with both cgroup versions; its mounts stay in the test's own namespace
        point = points["unified"]
        lines.append(f'[ ! -e "{point}/cgroup.procs" ] || mount -t tmpfs tmpfs "{point}"')
    if len(runtime.argv) == 1 and not lines:
        yield runtime.argv[0]
        return
    path = os.path.join(scratch, runtime.name)
    with open(path, "w", encoding="utf-8") as stream:
        words = " ".join("'" + word.replace("'", "'\\''") + "'" for word in runtime.argv)
        stream.write("\n".join(["#!/bin/sh", *lines, f'exec {words} "$@"', ""]))
    os.chmod(path, 0o755)
    yield path


def _take_terminal() -> None:
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def run_with_terminal(
    argv: Sequence[str],
    cwd: str,
    environment: dict[str, str],
    scratch: str,
    seconds: float,
    shown: bool = False,
) -> Ended:
    """Run a program in a mount namespace of its own, with a controlling terminal as its standard input.

    Outputs go to files, as what outlives the program would keep a pipe open; with `shown` to the terminal, as
    one text. When nothing has been printed for `seconds`, everything is killed.
    """
    master, slave = pty.openpty()
    flags = termios.tcgetattr(slave)
    # lines arrive here as they were written, and nothing echoes
    flags[1] &= ~termios.OPOST
    flags[3] &= ~termios.ECHO
    termios.tcsetattr(slave, termios.TCSANOW, flags)
    with (
        open(os.path.join(scratch, "out"), "w+b") as out,
        open(os.path.join(scratch, "err"), "w+b") as err,
    ):
        child = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "--", *argv],
            cwd=cwd,
            env=environment,
            stdin=slave,
            stdout=slave if shown else out,
            stderr=slave if shown else err,
            preexec_fn=_take_terminal,
        )
        # the slave stays open here, or the terminal hangs up with the program's first child that closes it
        until = time.monotonic() + seconds
        told = b""
        size = -1
        while child.poll() is None and time.monotonic() < until:
            _reap_but(child.pid)
            if select.select([master], [], [], 0.05)[0]:
                told += os.read(master, 65536)
            now = len(told) + os.fstat(out.fileno()).st_size
            if now != size:
                size = now
                until = time.monotonic() + seconds
        hung = child.poll() is None
        end_orphans_but(child)
        while select.select([master], [], [], 0)[0]:
            told += os.read(master, 65536)
        os.close(slave)
        os.close(master)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode("utf-8", "replace"))
    if shown:
        texts[0] = told.decode("utf-8", "replace").replace("\r", "")
    return Ended(child.wait(), hung, *texts)


def _reap_but(child: int) -> None:
    """Reap what has ended, for tests that wait for a process to be gone: we are its subreaper."""
    with contextlib.suppress(ChildProcessError):
        while True:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            if ended is None or ended.si_pid == child:
                return
            os.waitpid(ended.si_pid, 0)


def end_orphans_but(child: subprocess.Popen[bytes]) -> None:
    """End a program that has not ended by itself, and whatever it left."""
    if child.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    end_orphans()


def remove_cgroups(*names: str) -> None:
    """Remove the cgroups of these names below the root of each hierarchy, with what is in them."""
    for _, point in hierarchies():
        for name in names:
            for directory, _, _ in os.walk(os.path.join(point, name), topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)


def parser_for(what: str) -> argparse.ArgumentParser:
    """The options that all these runners have."""
    parser = argparse.ArgumentParser(description=what)
    parser.add_argument("--suite", required=True, metavar="DIR", help="a built checkout")
    parser.add_argument("--only", default="", metavar="FILE,...", help="these files only")
    parser.add_argument("--save", metavar="DIR", help="write results.md there")
    parser.add_argument("--keep", metavar="DIR", help="write what failing tests printed there")
    parser.add_argument("--timeout", type=float, default=60, help="seconds for one test (60)")
    parser.add_argument(
        "--retries", type=int, default=2, help="how often a failing test is tried again (2)"
    )
    parser.add_argument("runtimes", nargs="*", metavar="[NAME=]RUNTIME")
    return parser


def keep_output(folder: str, name: str, text: str) -> None:
    """Write what a failing test printed, for whoever looks into it."""
    os.makedirs(folder, exist_ok=True)
    plain = re.sub(r"[^A-Za-z0-9.=-]+", "_", name)[:120]
    with open(os.path.join(folder, plain), "w", encoding="utf-8") as stream:
        stream.write(text)


@contextlib.contextmanager
def alone(suite: str) -> Iterator[None]:
    """Cgroup names are fixed in these suites: one run at a time on one machine."""
    lock = os.open(suite, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"{suite}: another run is using it") from None
    try:
        yield
    finally:
        os.close(lock)


def counts(outcomes: dict[str, Outcome]) -> str:
    """A column in one line."""
    words = [outcome.word for outcome in outcomes.values()]
    return ", ".join(f"{words.count(word)} {word}" for word in WORDS)


def markdown(
    title: str,
    columns: dict[str, dict[str, Outcome]],
    versions: dict[str, str],
    rows: dict[str, Row],
) -> str:
    """The table for people: every test that did not pass with each runtime."""
    runtimes = list(columns)
    names = list(next(iter(columns.values())))
    lines = [
        title,
        "",
        "| | " + " | ".join(runtimes) + " | why |",
        "|---|" + "---|" * (len(runtimes) + 1),
    ]
    cells = [f"**{counts(columns[runtime])}**" for runtime in runtimes]
    lines.append(f"| {len(names)} tests | " + " | ".join(cells) + " | |")
    for name in names:
        outcomes = [columns[runtime][name] for runtime in runtimes]
        if all(outcome.word == "ok" for outcome in outcomes):
            continue
        reason = rows[name].reason if name in rows else ""
        reason = reason or next((o.remark for o in outcomes if o.remark), "")
        words = " | ".join(outcome.word for outcome in outcomes)
        lines.append(f"| {name} | {words} | {reason} |".replace("\\", "").replace("\n", " "))
    lines += ["", "Versions: " + "; ".join(f"{r}: {versions[r]}" for r in runtimes) + "."]
    return "\n".join(lines) + "\n"


def report(
    suite_name: str,
    options: argparse.Namespace,
    runtimes: Sequence[Runtime],
    columns: dict[str, dict[str, Outcome]],
    rows: dict[str, Row],
    facts: set[str],
) -> int:
    """Print and save the table; 1 if a column of anocir is not as expected."""
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    today = datetime.date.today().isoformat()
    told = f", {', '.join(sorted(facts))}" if facts else ""
    table = markdown(
        f"{suite_name}, {today}, Linux {platform.release()}{told}", columns, versions, rows
    )
    print(table)
    if options.save:
        os.makedirs(options.save, exist_ok=True)
        with open(os.path.join(options.save, "results.md"), "w", encoding="utf-8") as stream:
            stream.write(table)
        with open(os.path.join(options.save, "results.json"), "w", encoding="utf-8") as stream:
            json.dump(columns, stream, indent=1, sort_keys=True)
            stream.write("\n")
    bad = 0
    for runtime in runtimes:
        if not runtime.name.startswith(CHECKED):
            continue
        found = differences(columns[runtime.name], rows, facts, not options.only)
        for line in found:
            print(f"{runtime.name}: {line}")
        print(f"{runtime.name}: {'differs from' if found else 'as'} expected.md")
        bad += len(found)
    return 1 if bad else 0


def runtimes_of(options: argparse.Namespace) -> list[Runtime]:
    """The runtimes of the command line; two of one name are refused."""
    runtimes = [Runtime(text) for text in options.runtimes or ["dist/anocir"]]
    if len({runtime.name for runtime in runtimes}) != len(runtimes):
        raise SystemExit("two runtimes of one name: write NAME=RUNTIME")
    return runtimes


def chosen(found: Sequence[str], only: str) -> list[str]:
    """The files to run; raises SystemExit for one that the suite does not have."""
    wanted = [name for name in only.split(",") if name]
    missing = set(wanted) - set(found)
    if missing:
        raise SystemExit(f"the suite has no {', '.join(sorted(missing))}")
    return [name for name in found if name in wanted] if wanted else list(found)


def remove(path: str) -> None:
    """rm -rf, with what is still mounted below detached by the end of its mount namespace."""
    shutil.rmtree(path, ignore_errors=True)
