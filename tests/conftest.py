"""Rules of all tiers: gates, and the skips that are expected.

`@needs("cgroup2:memory")` (a marker) skips a test when a probe of tests/machine.py says that the machine lacks the thing.
With CI=true a skip that tests/expected_skips.txt (or --expected-skips FILE) does not name fails the run: a test
that silently stopped running is worse than a red one. Elsewhere a skip is what the machine is like.

What a daemon or an emulated machine does at a busy moment is not ours to decide. So with CI=true a test of those two
tiers that fails is run once more, at most two tests in a run, and each is named at the end with what it said the first
time. In every other tier, and without CI=true, a failure is a failure.
"""

from __future__ import annotations

import fnmatch
import os
import signal
import threading

import pytest

from anocir.linux import oneself, spawn
from tests import drive, machine

pytest_plugins = ("tests.guard",)
HERE = os.path.dirname(os.path.abspath(__file__))
SKIPS = pytest.StashKey["list[tuple[str, str]]"]()


machine.use_criu()

# Ignored signals are inherited: what nohup(1), a background job of a shell or make(1) (32 and 33, by
# posix_spawn(3)) ignores must not be what a peer passes on to its containers.
for _number in spawn.RESERVED:
    oneself.default_signal(_number)
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) == signal.SIG_IGN:
        signal.signal(
            _number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL
        )


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --expected-skips, for machines other than the CI's usual one."""
    parser.addoption(
        "--expected-skips",
        default=os.path.join(HERE, "expected_skips.txt"),
        help="file with the skips that are no error when CI=true",
    )


# The quick tiers first; the daemons of the engines live from their tier's start to the session's end.
TIERS = ("unit", "repo", "kernel", "runtime", "systemd", "security", "reliability", "engines", "vm")
OTHERS_PROGRAMS = ("engines", "vm")


def tier(item: pytest.Item) -> str:
    """The directory below tests/ that a test is in."""
    return os.path.relpath(item.path, HERE).split(os.sep)[0]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tiers into order; give the tests of other people's programs a second try in CI."""

    def place(item: pytest.Item) -> int:
        return TIERS.index(tier(item)) if tier(item) in TIERS else len(TIERS)

    items.sort(key=place)
    if os.environ.get("CI") == "true":
        for item in items:
            if tier(item) in OTHERS_PROGRAMS:
                item.add_marker(pytest.mark.flaky(reruns=1))


USE_ARCHIVE = ("runtime", "systemd", "security", "reliability", "engines", "vm")


@pytest.hookimpl(tryfirst=True)  # before machines are booted for the tests
def pytest_collection_finish(session: pytest.Session) -> None:
    """Stop where the archive that the tests would drive is not built from these sources."""
    archive = os.path.join(drive.REPOSITORY, "dist", "anocir")
    if (
        session.config.option.collectonly
        or os.path.realpath(drive.find_runtime()) != os.path.realpath(archive)
        or not os.path.exists(archive)  # the fixture of the runtime says so
        or not any(tier(item) in USE_ARCHIVE for item in session.items)
    ):
        return
    name = drive.stale(archive)
    if name:
        pytest.exit(f"dist/anocir is older than {name}: make build", returncode=4)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "needs(*gates): what the machine must be able to do")
    config.stash[SKIPS] = []


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose gates are closed."""
    for marker in item.iter_markers("needs"):
        for gate in marker.args:
            lacking = machine.missing(gate)
            if lacking:
                pytest.skip(f"[{gate}] this machine has not {lacking}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Remember the skips; an expected failure is none."""
    if report.skipped and not hasattr(report, "wasxfail") and _config is not None:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _config.stash[SKIPS].append((report.nodeid, reason.removeprefix("Skipped: ")))


class Progress:
    """Say which tier begins, and that a long test of an engine or a machine is still at it."""

    def __init__(self, reporter: pytest.TerminalReporter) -> None:
        self.reporter = reporter
        self.counts: dict[str, int] = {}
        self.tier = ""
        self.timer = threading.Timer(0, str)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.counts[tier(item)] = self.counts.get(tier(item), 0) + 1

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        name = nodeid.split("/")[1] if nodeid.count("/") > 1 else ""
        if name != self.tier and len(self.counts) > 1:
            self.reporter.write("\n")
            self.reporter.write_line(f"{name}: {self.counts.get(name, 0)} tests")
        self.tier = name
        # The other tiers fork, and change what only a process of one thread may.
        if name in OTHERS_PROGRAMS:
            self.remind(nodeid, LONG)

    def remind(self, nodeid: str, after: int) -> None:
        """Write a line when the test has taken so many seconds, and again and again."""

        def write() -> None:
            self.reporter.write_line(f"... {after} s: still {nodeid}")
            self.remind(nodeid, after + LONG)

        self.timer = threading.Timer(LONG, write)
        self.timer.daemon = True
        self.timer.start()

    def pytest_runtest_logfinish(self) -> None:
        self.timer.cancel()


LONG = 60
"""Seconds after which a silent test is one to wonder about."""


_config: pytest.Config | None = None


def pytest_sessionstart(session: pytest.Session) -> None:
    """Keep the configuration for the report hook, which is not given it."""
    global _config
    _config = session.config
    reporter = session.config.pluginmanager.getplugin("terminalreporter")
    if reporter is not None:
        session.config.pluginmanager.register(Progress(reporter))


def expected_skips(path: str) -> list[str]:
    """The patterns of an expected-skips file: a gate in brackets or a test id, then the reason."""
    with open(path) as file:
        lines = [line.partition("#")[0].strip() for line in file]
    return [line.split(maxsplit=1)[0] for line in lines if line]


def unexpected(skips: list[tuple[str, str]], patterns: list[str]) -> list[tuple[str, str]]:
    """The skips that no pattern names."""
    found = []
    for nodeid, reason in skips:
        gate = reason.partition("]")[0] + "]" if reason.startswith("[") else ""
        known = any(
            pattern == gate or (pattern[0] != "[" and fnmatch.fnmatch(nodeid, pattern))
            for pattern in patterns
        )
        if not known:
            found.append((nodeid, reason))
    return found


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config
) -> None:
    """Say what was run twice, what was left out, and why."""
    twice = terminalreporter.getreports("rerun")
    if twice:
        terminalreporter.section("failed once, and was run again")
        for report in twice:
            terminalreporter.write_line(f"{report.nodeid} ({report.when})", red=True)
            terminalreporter.write_line(report.longreprtext)
    skips = config.stash[SKIPS]
    if not skips:
        return
    terminalreporter.section("left out")
    reasons: dict[str, int] = {}
    for _, reason in skips:
        reasons[reason] = reasons.get(reason, 0) + 1
    for reason, count in sorted(reasons.items(), key=lambda row: -row[1]):
        terminalreporter.write_line(f"{count:4d}  {reason}")
    if any(reason.startswith("[cgroup2") for reason in reasons):
        terminalreporter.write_line(
            "what needs cgroup v2: make test TESTS=tests/vm/test_vm.py ARGS='-k AppArmor'"
        )
    if os.environ.get("CI") != "true":
        return
    strangers = unexpected(skips, expected_skips(config.getoption("--expected-skips")))
    for nodeid, reason in strangers:
        terminalreporter.write_line(f"unexpected skip: {nodeid}: {reason}", red=True)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run when CI left out something that it should not."""
    if os.environ.get("CI") != "true" or exitstatus not in (0, 5):
        return
    patterns = expected_skips(session.config.getoption("--expected-skips"))
    if unexpected(session.config.stash[SKIPS], patterns):
        session.exitstatus = 1
