#!/usr/bin/python3
"""Run the validation suite of opencontainers/runtime-tools and compare with the expected table.

usage: run.py --suite DIR [options] [NAME=]RUNTIME...

DIR is a built checkout of runtime-tools (`make runtimetest validation-executables` there). Each file of the
suite is run alone, in a mount namespace of its own, with a TMPDIR of its own: the files share cgroup names, and
some leave mounts and bundles behind. A RUNTIME may have options ("container=dist/anocir --debug"); it is
then called through a wrapper script, as the suite takes one word only.

A file is judged as node-tap judges it: it fails with a `not ok`, a plan that is not met, an exit status other than
0 or no plan; `1..0` and no output at all count as skipped, which passes.

The column of each runtime whose name starts with "anocir" is compared with expected.md, where a row depends on what
the machine has (probed) or on the runtime's options. Any difference, for better or worse, fails.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import platform
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.host import BLAME, around  # noqa: E402
from tests.reliability.ground import Progress, Runtime, hierarchies  # noqa: E402
from tests.suites import as_one_word, become_subreaper, end_orphans  # noqa: E402

# cgroups that the suite names; runtimes and the suite itself leave them behind
SUITE_CGROUPS = ("testdir", "cgrouptest")
CHECKED = "anocir"


class Outcome(NamedTuple):
    """What one file of the suite gave."""

    ok: int
    not_ok: int
    status: int
    passed: bool
    seconds: float
    remark: str

    def cell(self) -> str:
        """As expected.md writes it."""
        return f"{self.ok}/{self.not_ok}" + (f" rc {self.status}" if self.status else "")


class Row(NamedTuple):
    """One line of expected.md."""

    cell: str
    condition: str
    cell_then: str
    cell_v2: str
    reason: str

    def expected(self, facts: set[str]) -> str:
        """The cell for a machine (and runtime) of which these facts are true."""
        if "cgroup2" in facts and self.cell_v2:
            return self.cell_v2
        return self.cell_then if self.condition in facts else self.cell


def judge(text: str, status: int) -> tuple[int, int, bool, str]:
    """(ok, not ok, verdict, why not) of a TAP stream, by node-tap's rules."""
    ok = not_ok = planned = failures = 0
    plans = 0
    why = ""
    for line in text.splitlines():
        found = re.match(r"(not )?ok\b(.*)", line)
        if found:
            directive = re.search(r"#\s*(skip|todo)\b", found.group(2), re.IGNORECASE)
            if found.group(1):
                not_ok += 1
                if not directive:
                    failures += 1
                    why = why or f"not ok:{found.group(2)}"
            else:
                ok += 1
        elif re.match(r"\d+\.\.\d+", line):
            plans += 1
            planned += int(line.split("..")[1].split()[0])
        elif line.startswith("Bail out!"):
            failures += 1
            why = why or line
    if status:
        return ok, not_ok, False, why or f"exit status {status}"
    if failures:
        return ok, not_ok, False, why
    if not text.strip():
        return ok, not_ok, True, "no output, counts as skipped"
    if not plans:
        return ok, not_ok, False, "no plan"
    if planned != ok + not_ok:
        return ok, not_ok, False, f"{planned} planned, {ok + not_ok} seen"
    return ok, not_ok, True, "" if planned else "no subtests, counts as skipped"


def read_expected(path: str) -> dict[str, Row]:
    """The rows of expected.md by file name."""
    rows = {}
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if len(cells) == 6 and re.match(r"\d+/\d+", cells[1]):
                rows[cells[0]] = Row(*cells[1:])
    return rows


def machine_facts() -> set[str]:
    """What expected.md's conditions ask of the machine, each found by trying."""
    facts = set()
    names = {name for name, _ in hierarchies()}
    if names == {"unified"}:
        facts.add("cgroup2")
    if "hugetlb" in names:
        facts.add("v1 hugetlb")
    if all(os.path.ismount(f"/sys/fs/cgroup/{name}") for name in ("net_cls", "net_prio")):
        facts.add("v1 net_cls, net_prio")
    if os.path.ismount("/sys/fs/cgroup/cpu,cpuacct"):
        facts.add("cpu,cpuacct")
    if _apparmor_lacks_profile():
        facts.add("AppArmor without the profile")
    if _may_raise_limits():
        facts.add("CAP_SYS_RESOURCE")
    return facts


def _apparmor_lacks_profile() -> bool:
    try:
        with open("/sys/module/apparmor/parameters/enabled", encoding="ascii") as stream:
            if stream.read().strip() != "Y":
                return False
        with open("/sys/kernel/security/apparmor/profiles", encoding="utf-8") as stream:
            return "acme_secure_profile" not in stream.read()
    except OSError:
        return False


def _may_raise_limits() -> bool:
    pid = os.fork()
    if pid == 0:
        soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 1))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 2))
        except (OSError, ValueError):
            os._exit(1)
        os._exit(0)
    return os.waitpid(pid, 0)[1] == 0


def suite_files(suite: str, only: Sequence[str]) -> list[str]:
    """Names of the built files of the suite."""
    found = []
    for name in sorted(os.listdir(os.path.join(suite, "validation"))):
        if os.path.exists(os.path.join(suite, "validation", name, name + ".t")):
            found.append(name)
    if only:
        missing = set(only) - set(found)
        if missing:
            raise SystemExit(f"the suite has no {', '.join(sorted(missing))}")
        found = [name for name in found if name in only]
    if not found:
        raise SystemExit(f"{suite}: no built validation files (see its README)")
    return found


def _parents() -> list[str]:
    """Directories in which the suite's cgroups can lie: each hierarchy's root and our own cgroup."""
    own = {}
    with open("/proc/self/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            for name in controllers.split(","):
                own[name.replace("name=", "") or "unified"] = path
    found = []
    for name, point in hierarchies():
        found.append(point)
        for part in name.split(","):
            if own.get(part, "/") != "/":
                found.append(point + own[part])
    return found


def remove_cgroups(before: set[str]) -> list[str]:
    """Remove the suite's cgroups that were not there before; returns what could not go."""
    left = []
    for parent in _parents():
        for name in SUITE_CGROUPS:
            top = os.path.join(parent, name)
            if top in before or not os.path.isdir(top):
                continue
            for directory, _, _ in os.walk(top, topdown=False):
                with contextlib.suppress(OSError):
                    os.rmdir(directory)
            if os.path.isdir(top):
                left.append(top)
    return left


def present_cgroups() -> set[str]:
    """The suite's cgroups that exist now."""
    tops = {os.path.join(parent, name) for parent in _parents() for name in SUITE_CGROUPS}
    return {top for top in tops if os.path.isdir(top)}


def container_ids(runtime: str) -> set[str]:
    """The ids that `list -q` shows."""
    done = subprocess.run([runtime, "list", "-q"], capture_output=True, text=True, check=False)
    return set(done.stdout.split())


def run_file(suite: str, name: str, runtime: str, scratch: str, seconds: float) -> Outcome:
    """Run one file of the suite and judge it; nothing of it is alive afterwards."""
    tmp = os.path.join(scratch, "tmp")
    os.mkdir(tmp)
    # the user namespace files enter their bundle as another user
    os.chmod(tmp, 0o755)
    before = present_cgroups()
    known = container_ids(runtime)
    began = time.monotonic()
    environment = dict(os.environ, RUNTIME=runtime, TMPDIR=tmp)
    with (
        open(os.path.join(scratch, "out"), "w+b") as out,
        open(os.path.join(scratch, "err"), "w+b") as err,
    ):
        child = subprocess.Popen(
            ["unshare", "-m", "--propagation", "private", "--", f"validation/{name}/{name}.t"],
            cwd=suite,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            start_new_session=True,
        )
        try:
            status = child.wait(seconds)
            hung = False
        except subprocess.TimeoutExpired:
            hung = True
            os.killpg(child.pid, signal.SIGKILL)
            status = child.wait()
        took = time.monotonic() - began
        out.seek(0)
        text = out.read().decode("utf-8", "replace")
        err.seek(0)
        noise = err.read().decode("utf-8", "replace")
    for left in sorted(container_ids(runtime) - known):
        subprocess.run([runtime, "delete", "--force", left], capture_output=True, check=False)
    end_orphans()
    remove_cgroups(before)
    shutil.rmtree(tmp, ignore_errors=True)
    ok, not_ok, passed, why = judge(text, status)
    if hung:
        why = f"no end after {seconds:.0f} s"
    told = [
        line for line in noise.splitlines() if line.strip() and not line.startswith("exit status")
    ]
    if told and not passed and not ok and not not_ok:
        why += f" ({told[-1].strip()[:160]})"
    return Outcome(ok, not_ok, status, passed and not hung, round(took, 2), why)


def markdown(
    names: Sequence[str],
    columns: dict[str, dict[str, Outcome]],
    versions: dict[str, str],
    rows: dict[str, Row],
    title: str,
) -> str:
    """The table for people."""
    runtimes = list(columns)
    lines = [title, ""]
    lines.append("| file | " + " | ".join(runtimes) + " | where not all pass |")
    lines.append("|---|" + "---|" * (len(runtimes) + 1))
    for name in names:
        cells = []
        for runtime in runtimes:
            outcome = columns[runtime][name]
            cells.append(f"{'pass' if outcome.passed else 'FAIL'} {outcome.cell()}")
        imperfect = any(not columns[r][name].passed or columns[r][name].not_ok for r in runtimes)
        reason = rows[name].reason if name in rows and imperfect else ""
        if not reason and imperfect:
            reason = next(
                (columns[r][name].remark for r in runtimes if columns[r][name].remark), ""
            )
        lines.append(f"| {name} | " + " | ".join(cells) + f" | {reason.replace('|', '/')} |")
    totals = []
    for runtime in runtimes:
        outcomes = columns[runtime].values()
        totals.append(
            f"**{sum(o.passed for o in outcomes)} of {len(names)}** "
            f"({sum(o.ok for o in outcomes)} ok, {sum(o.not_ok for o in outcomes)} not ok)"
        )
    lines.append("| **files passed** | " + " | ".join(totals) + " | |")
    lines += ["", "Versions: " + "; ".join(f"{r}: {versions[r]}" for r in runtimes) + "."]
    return "\n".join(lines) + "\n"


def differences(
    runtime: Runtime, outcomes: dict[str, Outcome], rows: dict[str, Row], facts: set[str]
) -> list[str]:
    """Where a column differs from expected.md."""
    known = set(facts)
    if "--start-exec-errors=container" in runtime.argv:
        known.add("start-exec-errors=container")
    found = []
    for name, outcome in outcomes.items():
        if name not in rows:
            found.append(f"{name}: {outcome.cell()}, not in expected.md")
            continue
        expected = rows[name].expected(known)
        if outcome.cell() not in expected.split(" or "):
            found.append(f"{name}: {outcome.cell()}, expected {expected} ({outcome.remark})")
    return found


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="run the OCI validation suite")
    parser.add_argument(
        "--suite", required=True, metavar="DIR", help="built checkout of runtime-tools"
    )
    parser.add_argument("--only", default="", metavar="FILE,...", help="these files only")
    parser.add_argument("--save", metavar="DIR", help="write results.json and results.md there")
    parser.add_argument("--timeout", type=float, default=120, help="seconds for one file (120)")
    parser.add_argument(
        "--list", action="store_true", help="print what is expected here, run nothing"
    )
    parser.add_argument("runtimes", nargs="*", metavar="[NAME=]RUNTIME")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Run everything; 0 if each checked column is as expected."""
    options = parse(arguments)
    rows = read_expected(os.path.join(HERE, "expected.md"))
    facts = machine_facts()
    if options.list:
        for name, row in rows.items():
            print(f"{name:36} {row.expected(facts)}")
        return 0
    suite = os.path.abspath(options.suite)
    names = suite_files(suite, [name for name in options.only.split(",") if name])
    runtimes = [Runtime(text) for text in options.runtimes or ["dist/anocir"]]
    if len({runtime.name for runtime in runtimes}) != len(runtimes):
        raise SystemExit("two runtimes of one name: write NAME=RUNTIME")
    # cgroup names are fixed in the suite: one run at a time on one machine
    lock = os.open(suite, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"{suite}: another run is using it") from None
    become_subreaper()
    progress = Progress("conformance", len(names) * len(runtimes))
    columns: dict[str, dict[str, Outcome]] = {runtime.name: {} for runtime in runtimes}
    scratch = tempfile.mkdtemp(prefix="anocir-conformance-")
    os.chmod(scratch, 0o755)
    before = present_cgroups()
    try:
        for runtime in runtimes:
            with around("conformance", runtime.name), as_one_word(runtime, scratch) as word:
                for name in names:
                    progress.step(f"{runtime.name} {name}")
                    columns[runtime.name][name] = run_file(
                        suite, name, word, scratch, options.timeout
                    )
    finally:
        remove_cgroups(before)
        shutil.rmtree(scratch, ignore_errors=True)
    progress.end()
    return report(options, names, runtimes, columns, rows, facts)


def report(
    options: argparse.Namespace,
    names: Sequence[str],
    runtimes: Sequence[Runtime],
    columns: dict[str, dict[str, Outcome]],
    rows: dict[str, Row],
    facts: set[str],
) -> int:
    """Print and save the table; 1 if a checked column is not as expected."""
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    today = datetime.date.today().isoformat()
    title = (
        f"runtime-tools validation, {len(names)} files, {today}, Linux {platform.release()}, "
        f"{', '.join(sorted(facts)) or 'cgroup v1 without CAP_SYS_RESOURCE'}"
    )
    table = markdown(names, columns, versions, rows, title)
    print(table)
    if options.save:
        os.makedirs(options.save, exist_ok=True)
        with open(os.path.join(options.save, "results.md"), "w", encoding="utf-8") as stream:
            stream.write(table)
        document = {
            "date": today,
            "kernel": platform.release(),
            "facts": sorted(facts),
            "versions": versions,
            "files": {
                runtime: {name: outcome._asdict() for name, outcome in outcomes.items()}
                for runtime, outcomes in columns.items()
            },
        }
        with open(os.path.join(options.save, "results.json"), "w", encoding="utf-8") as stream:
            json.dump(document, stream, indent=1, sort_keys=True)
            stream.write("\n")
    bad = 0
    for runtime in runtimes:
        if not runtime.name.startswith(CHECKED):
            continue
        found = differences(runtime, columns[runtime.name], rows, facts)
        missing: set[str] | None = set(rows) - set(names) if not options.only else None
        if missing:
            found.append(f"not in this suite: {', '.join(sorted(missing))}")
        for line in found:
            print(f"{runtime.name}: {line}")
        print(f"{runtime.name}: {'differs from' if found else 'as'} expected.md")
        bad += len(found)
    return 1 if bad or BLAME else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
