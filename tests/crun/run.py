#!/usr/bin/python3
"""Run crun's own Python tests with this runtime and compare with the expected table.

usage: run.py --suite DIR [options] [NAME=]RUNTIME...

DIR is a checkout of crun whose static helper is built (`make tests/init` there). Each file runs in a mount namespace of its
own, with a controlling terminal and a limit for each test; a test that fails is tried again alone.
"""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests import suites  # noqa: E402
from tests.reliability.ground import Progress, hierarchies  # noqa: E402
from tests.suites import Outcome  # noqa: E402

# crun's own options, said as runc's; `--config FILE` is crun's for a bundle that is the working directory
TRANSLATION = """\
take=
started=
for word in "$@"; do
    [ -n "$started" ] || { set --; started=1; }
    case $take in
    manager)
        case $word in
        systemd) set -- "$@" --systemd-cgroup ;;
        disabled) set -- "$@" --cgroup-manager disabled ;;
        esac
        take=
        continue
        ;;
    config) [ "$word" -ef config.json ] || cp -- "$word" config.json; take=; continue ;;
    rest) set -- "$@" "$word"; continue ;;
    esac
    case $word in
    --cgroup-manager) take=manager ;;
    --config) take=config ;;
    exec) take=rest; set -- "$@" "$word" ;;
    *) set -- "$@" "$word" ;;
    esac
done"""
# a library and another kind of container: they do not test the command line
LEFT_OUT = ("test_checkpoint_restore.py", "test_custom_handler.py")


def prepare(suite: str) -> str:
    """The static helper of the suite; raises SystemExit if the checkout is not built."""
    helper = os.path.join(suite, "tests/init")
    if not os.path.exists(os.path.join(suite, "tests/tests_utils.py")):
        raise SystemExit(f"{suite}: no checkout of crun (tests/tests_utils.py is missing)")
    if not os.path.exists(helper):
        raise SystemExit(f"{suite}: not built: run `make tests/init` there")
    with open(helper, "rb") as stream:
        # an ELF file with an interpreter names it near its start
        if b"/ld-" in stream.read(4096):
            raise SystemExit(f"{helper}: not static; the containers have no library")
    return helper


def has_libmount() -> bool:
    """Whether the Python that runs the tests has util-linux's module."""
    command = ["/usr/bin/python3", "-c", "import libmount"]
    return not subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode


def names_in(path: str) -> list[str]:
    """The tests that a file lists in its `all_tests`, in order."""
    with open(path, encoding="utf-8") as stream:
        tree = ast.parse(stream.read())
    for node in tree.body:
        if (
            isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Dict)
            and any(
                isinstance(target, ast.Name) and target.id == "all_tests" for target in node.targets
            )
        ):
            return [key.value for key in node.value.keys if isinstance(key, ast.Constant)]
    return []


def read_tap(text: str) -> dict[str, tuple[str, str]]:
    """(word, remark) of each test that the suite's output tells of."""
    found = {}
    for line in text.splitlines():
        told = re.match(r"(not )?ok \d+ - (.*?)(?: #SKIP ?(.*?))?(?: # [\d.]+s)?$", line)
        if told:
            word = "fail" if told.group(1) else "ok" if told.group(3) is None else "skip"
            found[told.group(2)] = (word, told.group(3) or "")
    return found


def last_remark(text: str) -> str:
    """What a failing test said first of itself."""
    for line in text.splitlines():
        if line.startswith("# ") and not re.match(
            r"# (Running|Starting|Command failed|Working dir)", line
        ):
            return line[2:].strip()[:160].replace("|", "/")
    return ""


class Suite:
    """One runtime's run through the suite."""

    def __init__(self, suite: str, helper: str, word: str, scratch: str, limit: float) -> None:
        self.suite = suite
        self.scratch = scratch
        self.limit = limit
        # the tests say nothing on their standard error that is not theirs to say
        self.environment = dict(
            os.environ,
            OCI_RUNTIME=word,
            INIT=helper,
            PYTHONUNBUFFERED="1",
            PYTHONDONTWRITEBYTECODE="1",
            TMPDIR=os.path.join(scratch, "tmp"),
        )
        for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID"):
            self.environment.pop(name, None)
        if not has_libmount():
            self.environment["PYTHONPATH"] = os.path.join(HERE, "modules")

    def run(self, path: str, only: Sequence[str]) -> tuple[dict[str, tuple[str, str]], str]:
        """Run some tests of a file; returns what each gave and all that was printed."""
        temporary = os.path.join(self.scratch, "tmp")
        os.mkdir(temporary)
        # tests in a user namespace reach their bundle as another user
        os.chmod(temporary, 0o755)
        ended = suites.run_with_terminal(
            ["/usr/bin/python3", path],
            temporary,
            dict(self.environment, RUN_TESTS=" ".join(only)) if only else self.environment,
            self.scratch,
            self.limit,
            shown=True,
        )
        suites.remove(temporary)
        return read_tap(ended.out), ended.out + ended.err

    def file(self, name: str, retries: int, keep: str) -> dict[str, Outcome]:
        """Every test of a file; what failed is tried again alone."""
        path = os.path.join(self.suite, "tests", name)
        told, printed = self.run(path, [])
        if re.search(r"^1\.\.0$", printed, re.MULTILINE):
            why = "the file skips itself"
            return {f"{name}: {test}": Outcome("skip", 0.0, why) for test in names_in(path)}
        # those of a file that came to no end are listed in it
        tests = [*told, *(test for test in names_in(path) if test not in told)]
        outcomes = {}
        for test in tests:
            word, remark = told.get(test, ("fail", "no result"))
            tries = 0
            text = printed
            # the suite takes names apart at their spaces
            while word == "fail" and tries < retries and " " not in test:
                tries += 1
                again, text = self.run(path, [test])
                word, remark = again.get(test, ("fail", "no result"))
            if word == "fail":
                remark = remark or last_remark(text)
                if keep:
                    suites.keep_output(keep, f"{name}-{test}", text)
            outcomes[f"{name}: {test}"] = Outcome(word, 0.0, remark)
        return outcomes


def machine_facts() -> set[str]:
    """What the conditions of expected.md ask of the machine."""
    names = {name for name, _ in hierarchies()}
    return {"cgroup v2"} if names == {"unified"} else {"cgroup v1"}


def main(arguments: Sequence[str]) -> int:
    """Run everything; 0 if each column of anocir is as expected."""
    options = suites.parser_for("run crun's tests").parse_args(arguments)
    rows = suites.read_expected(os.path.join(HERE, "expected.md"))
    suite = os.path.abspath(options.suite)
    runtimes = suites.runtimes_of(options)
    helper = prepare(suite)
    found = sorted(os.listdir(os.path.join(suite, "tests")))
    names = [name for name in found if name.startswith("test_") and name not in LEFT_OUT]
    names = suites.chosen([name for name in names if name.endswith(".py")], options.only)
    scratch = tempfile.mkdtemp(prefix="anocir-crun-")
    os.chmod(scratch, 0o755)
    suites.become_subreaper()
    columns: dict[str, dict[str, Outcome]] = {runtime.name: {} for runtime in runtimes}
    progress = Progress("crun-tests", len(names) * len(runtimes))
    try:
        with suites.alone(suite):
            for runtime in runtimes:
                name = os.path.basename(runtime.argv[0])
                before = [] if name.startswith("crun") else [TRANSLATION]
                with suites.as_one_word(runtime, scratch, before) as word:
                    for name in names:
                        progress.step(f"{runtime.name} {name}")
                        keep = os.path.join(options.keep, runtime.name) if options.keep else ""
                        tests = Suite(suite, helper, word, scratch, options.timeout)
                        columns[runtime.name].update(tests.file(name, options.retries, keep))
    finally:
        suites.remove(scratch)
    progress.end()
    return suites.report("crun's tests", options, runtimes, columns, rows, machine_facts())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
