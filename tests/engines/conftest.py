"""Fixtures of the engines tier: boxes with daemons in them, and the runtime that they use.

SUITE names the Debian whose engines are driven (tests/engines/tree.py). RUNTIME names another runtime to test, one of
that system or a path of this machine; the control on the other side is always Debian's runc.
"""

from __future__ import annotations

import os
import resource
import shutil
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence

import pytest

from tests import machine
from tests.engines import tree
from tests.engines.box import CGROUP, Box, hierarchies, remove_cgroups
from tests.engines.calls import forms, known, remember
from tests.engines.docker import Dockerd, Sides, remove_all
from tests.engines.image import IMAGE
from tests.engines.sides import settle
from tests.engines.shim import Call, write_shim

PEER = "/usr/sbin/runc"
DOCKER = ("dockerd", "docker", "containerd", "runc", "busybox", "iptables")
ARCHIVE = Path(__file__).parents[2] / "dist" / "anocir"


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Mark the tests of this tier."""
    for item in items:
        if Path(item.fspath).parent == Path(__file__).parent:
            item.add_marker("engines")
            # Longer than any command of a test may take.
            item.add_marker(pytest.mark.timeout(900))


@pytest.fixture(scope="session", autouse=True)
def suite(pytestconfig: pytest.Config) -> str:
    """Have the tree of the suite, whose making may take some minutes and is told; give the suite's name."""
    name = tree.suite()
    lacking = tree.missing(name)
    if lacking:
        pytest.skip(lacking)
    capture = pytestconfig.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        tree.make(name)
    return name


def need(*programs: str, name: str = "") -> None:
    """Skip where a program is missing in a suite's system; CI counts skips."""
    name = name or tree.suite()
    for program in programs:
        if not tree.find(tree.place(name), program):
            pytest.skip(f"[{program}] {program} is not in the system of SUITE={name}")


def new_box(stem: str, name: str = "") -> Box:
    """Make a box with a name of this test run, of a suite's system, and the runtime under test in it."""
    name = name or tree.suite()
    if os.getuid() != 0:
        pytest.skip("[root] needs root")
    for program in ("nsenter", "unshare"):
        if shutil.which(program) is None:
            pytest.skip(f"[{program}] {program} is not installed")
    need("catatonit", "ip", name=name)
    # A test run that was killed could not remove its empty cgroups.
    for one in hierarchies():
        for old in (CGROUP / one).glob("anocir-engines-*"):
            if not Path(f"/proc/{old.name.split('-')[2]}").exists():
                remove_cgroups(old)
    box = Box(f"anocir-engines-{os.getpid()}-{stem}", tree.place(name))
    source = runtime_of_this_machine()
    if source is not None:
        # Where every user of the box can reach it; and what is built meanwhile is not what is tested.
        inside = box.path(runtime_inside())
        inside.parent.mkdir()
        shutil.copyfile(source, inside)
        inside.chmod(0o755)
    return box


def default_ulimits() -> str:
    """Give the line of containers.conf that asks for no higher limits than there are here.

    Buildah and Podman ask for a million descriptors by default, which takes CAP_SYS_RESOURCE.
    """
    limits = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}
    found = ((name, resource.getrlimit(limit)[1]) for name, limit in limits.items())
    words = [f'"{name}={hard}:{hard}"' for name, hard in found if hard != resource.RLIM_INFINITY]
    return f"default_ulimits = [{', '.join(words)}]"


def runtime_of_this_machine() -> Optional[Path]:
    """Give the file that is put into each box; none if $RUNTIME names a program of the box's system."""
    wanted = os.environ.get("RUNTIME") or str(ARCHIVE)
    return Path(wanted).resolve() if "/" in wanted else None


def runtime_inside() -> str:
    """Give the path of the runtime under test in a box."""
    wanted = os.environ.get("RUNTIME") or str(ARCHIVE)
    if "/" in wanted:
        return f"/run/runtime/{Path(wanted).name}"
    root = tree.place(tree.suite())
    directories = ("/usr/sbin", "/usr/bin")
    return next(
        (f"{one}/{wanted}" for one in directories if (root / one[1:] / wanted).exists()), ""
    )


@pytest.fixture(scope="session")
def engine_runtime(suite: str) -> str:
    """Give the path, in a box, of the runtime under test."""
    source = runtime_of_this_machine()
    if source is not None and not source.exists():
        pytest.skip(f"{source} is not built")
    path = runtime_inside()
    if not path:
        pytest.skip(f"{os.environ['RUNTIME']} is not in the system of SUITE={suite}")
    return path


@pytest.fixture
def criu() -> Iterator[Callable[[Box], None]]:
    """Give what puts a criu into a box, for the time of one test.

    The box's system has none: the one that tests/prepare.sh took for this machine's kernel is copied.
    """
    top = Path(machine.CRIU).parent
    if not (top / "bin/criu").exists():
        pytest.skip("[criu] this machine has not build/criu, which could be put into a box")
    programs: List[Path] = []

    def put(box: Box) -> None:
        shutil.copytree(top / "root", box.path("/run/criu"), symlinks=True, dirs_exist_ok=True)
        # Where runtimes look that get no PATH, too.
        programs.append(box.path("/usr/local/sbin/criu"))
        programs[-1].write_text((top / "bin/criu").read_text().replace(f"{top}/root", "/run/criu"))
        programs[-1].chmod(0o755)
        box.run(["criu", "check"]).ok()

    yield put
    for program in programs:
        program.unlink()


@pytest.fixture(scope="session")
def dockerd(engine_runtime: str) -> Iterator[Dockerd]:
    """Give a Docker daemon that knows both runtimes."""
    need(*DOCKER)
    box = new_box("docker")
    try:
        yield docker_in(box, engine_runtime)
    finally:
        box.close()


def docker_in(box: Box, engine_runtime: str) -> Dockerd:
    """Start a Docker daemon that knows both runtimes, and have it make what stays for good."""
    runtimes = {"anocir": engine_runtime, "peer": PEER}
    for name, path in list(runtimes.items()):
        runtimes[f"filtered-{name}"] = write_shim(box, name, path, filtered=True)
    docker = Dockerd(box, runtimes, config={"experimental": True})  # checkpoint is
    for runtime in ("anocir", "peer"):
        # Like the cgroup /docker.
        docker("run", "--rm", "--runtime", runtime, IMAGE, "true")
        docker("run", "--rm", "--runtime", runtime, "--network", "host", IMAGE, "true")
    # Their links vanish a moment later.
    box.wait(["sh", "-c", "ls /sys/class/net | grep veth || echo none"], "none")
    return docker


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
        new = sorted(set(seen) - set(known().get(engine, [])))
        assert not new, (
            f"{engine} of SUITE={tree.suite()} sends forms of call that tests/engines/calls.json has not; look at"
            " them, then renew the list with ENGINE_CALLS=write:\n" + "\n".join(new)
        )

    return compare
