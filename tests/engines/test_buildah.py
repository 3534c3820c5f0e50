"""Buildah's own way to run a step: create, start, state in a loop, kill, delete; then commit."""

from __future__ import annotations

from typing import Any, Iterator, List, Tuple

import pytest

from tests.engines.box import Box, Result, Terminal
from tests.engines.conftest import PEER, default_ulimits, need, new_box
from tests.engines.image import IMAGE, docker_archive
from tests.engines.shim import calls, write_shim
from tests.engines.sides import normal, phrases, same, settle

HOME = "/run/buildah-test"


class Buildah:
    """buildah with one runtime and its own storage."""

    __slots__ = ("box", "name", "prefix", "runtime")

    def __init__(self, box: Box, name: str, runtime: str) -> None:
        """Make a working container from the image."""
        self.box = box
        self.name = name
        self.runtime = runtime
        root, runroot = f"{HOME}/{name}/root", f"{HOME}/{name}/runroot"
        self.prefix = [
            "buildah",
            "--root",
            root,
            "--runroot",
            runroot,
            "--storage-driver",
            "overlay",
        ]
        self("pull", f"docker-archive:{HOME}/image.tar").ok()
        self("from", "--name", "work", IMAGE).ok()

    def __call__(self, *words: str) -> Result:
        """Run a buildah command."""
        return self.box.run([*self.prefix, *words])

    def words(self, options: List[str], command: List[str]) -> List[str]:
        """Make the words that run a command in the working container."""
        fixed = ["run", "--isolation", "oci", "--runtime", self.runtime, "--network", "none"]
        return [*fixed, *options, "work", *command]

    def terminal(self, options: List[str], command: List[str]) -> Terminal:
        """Run a command in the working container on a pseudo terminal."""
        return self.box.terminal([*self.prefix, *self.words(options, command)])


@pytest.fixture(scope="module")
def buildahs(engine_runtime: str) -> Iterator[Tuple[Buildah, Buildah]]:
    """Give buildah for both sides in a box."""
    need("buildah", "runc", "busybox")
    box = new_box("buildah")
    try:
        yield buildahs_in(box, engine_runtime)
    finally:
        box.close()


def buildahs_in(box: Box, engine_runtime: str) -> Tuple[Buildah, Buildah]:
    """Set buildah up for both sides; the runtime under test stands behind a recording shim."""
    box.run(["mkdir", "-p", HOME]).ok()
    box.path(f"{HOME}/image.tar").write_bytes(docker_archive())
    conf = f"{HOME}/containers.conf"
    box.path(conf).write_text(f"[containers]\n{default_ulimits()}\n")
    box.environment["CONTAINERS_CONF"] = conf
    shim = write_shim(box, "anocir", engine_runtime, recorded=True)
    return Buildah(box, "anocir", shim), Buildah(box, "peer", PEER)


CASES: Tuple[Tuple[str, List[str], List[str], int, str], ...] = (
    ("status", [], ["sh", "-c", "id; exit 5"], 5, "uid=0"),
    ("user", ["--user", "anna"], ["id"], 0, "uid=1000(anna)"),
    (
        "capabilities",
        ["--cap-add", "CAP_NET_ADMIN"],
        ["grep", "Cap", "/proc/self/status"],
        0,
        "CapEff",
    ),
    ("working directory", ["--workingdir", "/tmp"], ["pwd"], 0, "/tmp"),
    ("volume", ["-v", "/run/shim:/v:ro"], ["touch", "/v/x"], 1, "Read-only"),
    ("hostname", ["--hostname", "web"], ["hostname"], 0, "web"),
    ("descriptors", [], ["ls", "/proc/self/fd"], 0, "3"),
    ("missing executable", [], ["no-such-program"], 1, "executable file not found in $PATH"),
    ("directory", [], ["/etc"], 1, ""),
    ("a signal", [], ["sh", "-c", "sleep 5 & kill $!; wait $!"], 143, ""),
)


@pytest.mark.parametrize(
    ("options", "command", "status", "text"),
    [pytest.param(*case[1:], id=case[0]) for case in CASES],
)
def test_buildah_run_is_the_same(
    buildahs: Tuple[Buildah, Buildah],
    options: List[str],
    command: List[str],
    status: int,
    text: str,
) -> None:
    """buildah run gives the same status, output and kind of error, and leaves nothing."""
    box = buildahs[0].box
    before = box.traces()

    def scenario(side: Buildah) -> List[Any]:
        result = side(*side.words(options, command))
        assert text in result.out + result.err, result
        return [result.status, normal(result.out), phrases(result.err)]

    assert same(scenario, *buildahs)[0] == status
    settle(box.traces, before)


def test_buildah_terminal(buildahs: Tuple[Buildah, Buildah]) -> None:
    """buildah run --tty relays the terminal itself."""

    def scenario(side: Buildah) -> List[Any]:
        with side.terminal(["--tty"], ["sh"]) as terminal:
            terminal.expect("# ")
            terminal.type("tty\n")
            terminal.expect("/dev/pts/0")
            terminal.type("exit 8\n")
            return [terminal.finish()]

    assert same(scenario, *buildahs) == [8]


def test_buildah_commit(buildahs: Tuple[Buildah, Buildah]) -> None:
    """What a run has written is in the committed image."""

    def scenario(side: Buildah) -> List[Any]:
        side(*side.words([], ["sh", "-c", "echo written > /written"])).ok()
        side("commit", "-q", "work", "result").ok()
        side("from", "--name", "second", "result").ok()
        words = side.words([], ["cat", "/written"])
        words[words.index("work")] = "second"
        try:
            return [side(*words).out]
        finally:
            side("rm", "second")
            side("rmi", "result")

    assert same(scenario, *buildahs) == ["written\n"]


def test_calls_of_buildah_are_the_known_ones(
    buildahs: Tuple[Buildah, Buildah], golden: Any
) -> None:
    """The command lines that buildah sent in this module are those of the golden list."""
    golden("buildah", calls(buildahs[0].box, "/run/shim/anocir"))
