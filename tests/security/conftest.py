"""Fixtures of the security tier: the built archive as the defender, altered copies of it and installed runtimes as controls.

    pytest tests/security --race-seconds=20      races for as long as the release check wants

Like the runtime tier it lives in a mount namespace of its own, and nothing of the runtime under test may be left after
a test; what a control leaves is only cleared away.
"""

from __future__ import annotations

import hashlib
import os
import resource
import shutil
import subprocess
import tempfile
import zipfile
from typing import Any, Callable, Iterator

import pytest

from tests import drive, leftovers, machine
from tests.bundle import remove_tree
from tests.security import controls

HERE = os.path.dirname(os.path.abspath(__file__))
PARENT = f"/anocir-security-{os.getpid()}"
PROGRAMS = {
    "exe_attack": "-O1 -fPIE -static-pie -nostdlib -fno-stack-protector -fno-builtin",
    "attack": "-O1 -static -pthread",
    "library": "-O1 -shared -fPIC -nostdlib",
}
FILE_SIZE = 16 << 20
DEBIAN = {"runc": "1.1.5+ds1", "crun": "1.8.1"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --race-seconds."""
    parser.addoption(
        "--race-seconds", type=float, default=5.0, help="how long each race is run [5]"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the gates of this tier."""
    for name, version in DEBIAN.items():
        machine.GATES[f"{name}-{version}"] = lambda n=name, v=version: controls.lacks_installed(
            n, v
        )
    machine.GATES["strace"] = lambda: "" if shutil.which("strace") else "strace(1)"
    machine.GATES["tiocsti"] = _tiocsti
    machine.GATES["cgroup2"] = lambda: "" if machine.v2_mountpoint() else "cgroup v2"


def _tiocsti() -> str:
    # Since Linux 6.2; without the file the call is always there.
    try:
        with open("/proc/sys/dev/tty/legacy_tiocsti") as file:
            return (
                "" if file.read().strip() == "1" else "terminals that can be typed into (TIOCSTI)"
            )
    except OSError:
        return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All of this needs root, and a compiler for the attackers."""
    for item in items:
        if str(item.path).startswith(HERE):
            item.add_marker(pytest.mark.security)
            item.add_marker(pytest.mark.needs("root", "compiler"))
            item.add_marker(pytest.mark.timeout(900))  # some make dozens of containers


@pytest.fixture
def race_seconds(request: pytest.FixtureRequest) -> float:
    """How long a race is run."""
    return float(request.config.getoption("--race-seconds"))


@pytest.fixture(scope="package")
def defender() -> Iterator[drive.Runtime]:
    """The built archive."""
    path = drive.find_runtime()
    if not os.path.exists(path):
        pytest.fail(f"there is no {path}: run make build, or set RUNTIME")
    if not zipfile.is_zipfile(path):
        pytest.skip(f"{path} is no archive of anocir")
    machine.become_subreaper()
    machine.unshare(machine.CLONE_NEWNS)
    machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
    machine.mount("none", "/", "", machine.MS_REC | machine.MS_SHARED)
    directory = tempfile.mkdtemp(prefix="anocir-security-")
    os.chmod(directory, 0o755)
    machine.make_cgroup_parent(PARENT)
    # A program that reads a false /dev/null for ever must not fill the disk.
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, hard))
    try:
        yield drive.Runtime(path, directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for hierarchy in machine.hierarchies():
            os.rmdir(hierarchy.mountpoint + PARENT)
        remove_tree(directory)


@pytest.fixture(scope="package")
def programs(defender: drive.Runtime) -> dict[str, str]:
    """The attackers, compiled."""
    made = {}
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")))
    for name, options in PROGRAMS.items():
        made[name] = os.path.join(defender.directory, name)
        source = os.path.join(HERE, name + ".c")
        command = [compiler, *options.split(), "-o", made[name], source]
        subprocess.run(command, check=True, timeout=drive.TIMEOUT)
    return made


class Arena:
    """The runtimes and containers of one test."""

    def __init__(self, defender: drive.Runtime, programs: dict[str, str]) -> None:
        self.defender = defender
        self.programs = programs
        self.workshops: dict[str, drive.Workshop] = {}
        self.before: dict[str, leftovers.Snapshot] = {}
        self.strict = {defender.path}
        self._workshop(defender)
        self.directories: list[str] = []

    def _workshop(self, runtime: drive.Runtime) -> drive.Workshop:
        if runtime.path not in self.workshops:
            self.workshops[runtime.path] = drive.Workshop(runtime, PARENT)
            self.before[runtime.path] = leftovers.Snapshot(PARENT, runtime.root)
        return self.workshops[runtime.path]

    def altered(self, interpreter: str = "", first_line: str = "", **modules: str) -> drive.Runtime:
        """The archive with code appended to modules; `inside__program` stands for inside/program."""
        additions = {
            name if name.startswith("__") else name.replace("__", "/"): code
            for name, code in modules.items()
        }
        text = repr((sorted(additions.items()), interpreter, first_line))
        tag = hashlib.sha256(text.encode()).hexdigest()[:12]
        path = os.path.join(self.defender.directory, "altered-" + tag)
        if not os.path.exists(path):
            controls.altered(self.defender.path, path, additions, interpreter, first_line)
        return controls.another(self.defender, path, "anocir", tag)

    def installed(self, name: str) -> drive.Runtime:
        """Debian's runc or crun; the test needs its gate."""
        return controls.installed(self.defender, name)

    def called_by(
        self, setup: str, runtime: drive.Runtime | None = None, prefix: str = ""
    ) -> drive.Runtime:
        """The runtime as a caller has it who does this, in shell, before each call."""
        whose = runtime or self.defender
        tag = hashlib.sha256(f"{setup}{prefix}{whose.path}".encode()).hexdigest()[:12]
        path = os.path.join(self.defender.directory, f"{whose.name}-called-{tag}")
        with open(path, "w") as file:
            file.write(f'#!/bin/sh\n{setup}\nexec {prefix} {whose.path} "$@"\n')
        os.chmod(path, 0o755)
        if whose.path in self.strict:
            self.strict.add(path)
        return controls.another(whose, path, whose.name, tag)

    def container(self, runtime: drive.Runtime | None = None) -> drive.Container:
        """A container that is not created yet."""
        return self._workshop(runtime or self.defender).container()

    def console(self, container: drive.Container) -> drive.Console:
        """The listening end of a console socket."""
        return self._workshop(container.runtime).console(container.bundle.path)

    def helper(self, *argv: str, **popen: Any) -> subprocess.Popen[bytes]:
        """A process of the host that ends with the test."""
        return self.workshops[self.defender.path].helper(argv, **popen)

    def install(self, container: drive.Container, program: str, path: str) -> None:
        """Put an attacker into an image."""
        target = os.path.join(container.bundle.rootfs, path.lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(self.programs[program], target)

    def directory(self) -> str:
        """A directory of the host, beside all bundles."""
        made = tempfile.mkdtemp(prefix="host-", dir=self.defender.directory)
        os.chmod(made, 0o755)
        self.directories.append(made)
        return made

    def close(self) -> list[str]:
        """Clear everything away; what the runtime under test left or complained about."""
        found = []
        for path, workshop in self.workshops.items():
            ids = [container.id for container in workshop.containers]
            complaints = workshop.delete_all()
            if path in self.strict:
                found += complaints
        for path, workshop in self.workshops.items():
            ids = [container.id for container in workshop.containers]
            before = self.before[path]
            if path in self.strict:
                left = before.leftovers(ids)
                found += left
                if left:
                    before.clear(ids)
            elif ids and before._look(ids):
                before.clear(ids)
            workshop.remove_bundles()
        for directory in self.directories:
            remove_tree(directory)
        return found


@pytest.fixture
def arena(defender: drive.Runtime, programs: dict[str, str]) -> Iterator[Arena]:
    """The runtimes and containers of one test; nothing of the defender's may be left."""
    made = Arena(defender, programs)
    yield made
    found = made.close()
    assert not found, "left behind:\n" + "\n".join(found)


@pytest.fixture
def container(arena: Arena) -> drive.Container:
    """A container of the runtime under test."""
    return arena.container()


@pytest.fixture
def new_container(arena: Arena) -> Callable[..., drive.Container]:
    """Make containers of the runtime under test, or of another."""
    return arena.container
