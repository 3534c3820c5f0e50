"""This machine's own engines, driven for a moment each.

The other tests of this tier drive those of a Debian tree. What older engines do otherwise are the command lines that they
send and the texts that they read; these few lives send nearly all of them. Limits, a pause, statistics, and an ordinary
user's life are driven with them in the machines of tests/vm.
"""

from __future__ import annotations

from typing import Callable, Iterator

import pytest

from tests.engines import test_buildah, test_containerd, test_docker_life, test_podman, tree
from tests.engines.box import Box
from tests.engines.conftest import DOCKER, docker_in, need, new_box
from tests.engines.containerd import Ctr
from tests.engines.docker import Sides, remove_all
from tests.engines.shim import calls
from tests.engines.sides import settle
from tests.engines.test_docker_run import ERROR_CASES, RUNS, look_at


@pytest.fixture(scope="module", autouse=True)
def beside_a_tree(suite: str) -> None:
    """Leave out what the whole tier does anyway."""
    if suite == tree.HOST:
        pytest.skip("[SUITE=host] all tests of the tier drive this machine's engines")


@pytest.fixture
def box(request: pytest.FixtureRequest) -> Iterator[Box]:
    """Give a box of this machine's system that has the programs which the test names."""
    programs = request.param
    need(*programs, name=tree.HOST)
    made = new_box("smoke", tree.HOST)
    try:
        yield made
    finally:
        made.close()


@pytest.mark.parametrize("box", [DOCKER], indirect=True, ids=["docker"])
def test_docker(box: Box, engine_runtime: str) -> None:
    """docker: a whole life, a terminal; what is seen in a container, and what is refused."""
    docker = docker_in(box, engine_runtime)
    sides = Sides(docker)
    before = docker.traces()
    test_docker_life.test_background_logs_exec_top_stop_rm(sides)
    test_docker_life.test_exec_on_a_terminal(sides)
    for names in (
        ("mounts", "capabilities", "seccomp"),
        ("user", "sysctl", "init"),
        ("read-only",),
    ):
        look_at(sides, [case for run in RUNS for case in run if case[0] in names])
    for name in ("missing executable", "not executable", "directory onto a file"):
        _, options, command, status, text = next(one for one in ERROR_CASES if one[0] == name)
        result = sides.compare(options.split(), [command])
        assert result.status == status and text in result.err, result
    remove_all(docker)
    settle(docker.traces, before)


@pytest.mark.parametrize("box", [("containerd", "ctr", "runc")], indirect=True, ids=["containerd"])
def test_containerd_tasks(box: Box, engine_runtime: str, golden: Callable[..., None]) -> None:
    """ctr: run, exec, pause, metrics, kill, a terminal."""
    daemon = test_containerd.containerd_in(box, engine_runtime)
    pair = Ctr(daemon, "anocir"), Ctr(daemon, "peer")
    before = box.traces()
    test_containerd.test_ctr_tasks(pair)
    test_containerd.test_ctr_terminal(pair)
    settle(box.traces, before)
    golden("containerd", calls(box, daemon.binaries["anocir"]))


@pytest.mark.parametrize("box", [test_podman.NEEDED], indirect=True, ids=["podman"])
def test_podman_lives(box: Box, engine_runtime: str, golden: Callable[..., None]) -> None:
    """podman: a life as root, and a terminal."""
    test_podman.configure(box, engine_runtime)
    pair = test_podman.sides_of_root(box)
    before = test_podman.traces(box)
    test_podman.test_life(pair)
    test_podman.test_terminal(pair)
    for side in pair:
        side("rm", "-f", "-a", "-t", "0")
    settle(lambda: test_podman.traces(box), before)
    golden("podman", calls(box, "/run/shim/anocir"))


@pytest.mark.parametrize("box", [("buildah", "runc")], indirect=True, ids=["buildah"])
def test_buildah_steps(box: Box, engine_runtime: str, golden: Callable[..., None]) -> None:
    """buildah: a terminal, and a step whose work is committed."""
    pair = test_buildah.buildahs_in(box, engine_runtime)
    before = box.traces()
    test_buildah.test_buildah_terminal(pair)
    test_buildah.test_buildah_commit(pair)
    settle(box.traces, before)
    golden("buildah", calls(box, "/run/shim/anocir"))
