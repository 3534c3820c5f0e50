"""Fixtures of the engines tier: boxes with daemons in them, and the runtime that they use.

RUNTIME names another runtime to test; the control on the other side is always Debian's runc.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Callable, Iterator, List, Sequence

import pytest

from tests.engines.box import CGROUP, Box, hierarchies, remove_cgroups
from tests.engines.calls import forms, known, remember
from tests.engines.docker import Dockerd, Sides, remove_all
from tests.engines.image import IMAGE
from tests.engines.sides import settle
from tests.engines.shim import Call, write_shim

PEER = "/usr/sbin/runc"
ARCHIVE = Path(__file__).parents[2] / "dist" / "anocir"


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Mark the tests of this tier."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker("engines")
            # Longer than any command of a test may take.
            item.add_marker(pytest.mark.timeout(900))


def need(*programs: str) -> None:
    """Skip where a program is missing; CI counts skips."""
    for program in programs:
        if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
            pytest.skip(f"{program} is not installed")


def new_box(stem: str) -> Box:
    """Make a box with a name of this test run."""
    if os.getuid() != 0:
        pytest.skip("needs root")
    need("nsenter", "unshare", "ip")
    # A test run that was killed could not remove its empty cgroups.
    for one in hierarchies():
        for old in (CGROUP / one).glob("anocir-engines-*"):
            if not Path(f"/proc/{old.name.split('-')[2]}").exists():
                remove_cgroups(old)
    return Box(f"anocir-engines-{os.getpid()}-{stem}")


@pytest.fixture(scope="session")
def engine_runtime() -> str:
    """Give the path of the runtime under test."""
    path = Path(os.environ.get("RUNTIME") or ARCHIVE)
    if not path.exists():
        pytest.skip(f"{path} is not built")
    return str(path)


@pytest.fixture(scope="session")
def dockerd(engine_runtime: str) -> Iterator[Dockerd]:
    """Give a Docker daemon that knows both runtimes."""
    need("dockerd", "docker", "containerd", "runc", "busybox", "iptables")
    box = new_box("docker")
    try:
        runtimes = {"anocir": engine_runtime, "peer": PEER}
        for name, path in list(runtimes.items()):
            runtimes[f"filtered-{name}"] = write_shim(box, name, path, filtered=True)
        docker = Dockerd(box, runtimes)
        for runtime in ("anocir", "peer"):
            # The first containers make what stays for good, like the cgroup /docker.
            docker("run", "--rm", "--runtime", runtime, IMAGE, "true")
            docker("run", "--rm", "--runtime", runtime, "--network", "host", IMAGE, "true")
        # Their links vanish a moment later.
        box.wait(["sh", "-c", "ls /sys/class/net | grep veth || echo none"], "none")
        yield docker
    finally:
        box.close()


@pytest.fixture
def sides(dockerd: Dockerd) -> Iterator[Sides]:
    """Give both runtimes under one daemon, and demand that nothing is left behind afterwards."""
    before = dockerd.traces()
    yield Sides(dockerd)
    remove_all(dockerd)
    settle(dockerd.traces, before)


@pytest.fixture
def beyond_runc(engine_runtime: str) -> None:
    """Leave out what Debian's runc cannot do when it is the runtime under test."""
    if Path(engine_runtime).name == "runc":
        pytest.skip("runc 1.1 does not do this")


@pytest.fixture
def golden() -> Callable[[str, Sequence[Call]], None]:
    """Compare an engine's recorded calls with the golden list; ENGINE_CALLS=write renews it."""

    def compare(engine: str, recorded: Sequence[Call]) -> None:
        seen = forms(recorded)
        if os.environ.get("ENGINE_CALLS") == "write":
            remember(engine, seen)
        assert set(seen) <= set(known().get(engine, [])), "forms that the golden list has not"

    return compare
