"""dockerd in a box, and one Docker command under two runtimes."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from typing import Callable, Dict, List, Optional, Sequence, Tuple, TypeVar

from tests.drive import until
from tests.engines.box import BOUND, Box, Result, Terminal
from tests.engines.image import IMAGE, busybox_tar
from tests.engines.sides import SUBNET, gather, normal, phrases, same

T = TypeVar("T")


class Dockerd:
    """A Docker daemon with its own containerd on private directories of a box."""

    __slots__ = ("box", "home", "options", "process", "runtimes")

    def __init__(
        self,
        box: Box,
        runtimes: Dict[str, str],
        options: Sequence[str] = (),
        config: Optional[Dict[str, object]] = None,
    ) -> None:
        """Start the daemon and import the image; the box ends it."""
        self.box = box
        self.home = "/run/docker-test"
        self.runtimes = runtimes
        box.run(["mkdir", "-p", self.home]).ok()
        box.path(f"{self.home}/daemon.json").write_text(json.dumps(config or {}))
        for words in (
            ["add", "name", "test0", "type", "bridge"],
            ["addr", "add", f"{SUBNET}.1/24", "dev", "test0"],
        ):
            box.run(["ip", *(["link"] if words[1] == "name" else []), *words]).ok()
        box.run(["ip", "link", "set", "test0", "up"]).ok()
        # The base directory is a mount of the box's own, for tests of mount propagation.
        self.options = [
            *("--config-file", f"{self.home}/daemon.json", "--data-root", f"{self.home}/data"),
            *("--exec-root", f"{self.home}/exec", "--pidfile", f"{self.home}/pid"),
            *("-H", f"unix://{self.home}/socket", "--bridge", "test0"),
            *("--default-address-pool", "base=10.214.0.0/16,size=24"),
            *options,
        ]
        for name, path in runtimes.items():
            self.options += ["--add-runtime", f"{name}={path}"]
        self.process = self.start()
        box.run(self.argv("import", "-", IMAGE), stdin=busybox_tar()).ok()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the daemon (again) and wait until it answers.

        It gives its containerd 15 seconds and then gives up, which on a busy machine is too early.
        """
        log = f"{self.home}/log"
        self.process = self.box.spawn(["dockerd", *self.options], log=log)

        def answers() -> bool:
            if self.process.poll() is not None:
                if "timeout waiting for containerd to start" not in self.log_tail()[-200:]:
                    raise RuntimeError("dockerd: " + self.log_tail())
                self.process = self.box.spawn(["dockerd", *self.options], log=log)
            return self.box.run(self.argv("version")).status == 0

        until("dockerd answers", answers, pause=0.1)
        return self.process

    def kill(self) -> None:
        """Kill the daemon; with it the kernel kills its containerd, and that is waited for.

        The next daemon would take a containerd that is about to die for its own.
        """
        containerd = self.box.path(f"{self.home}/exec/containerd/containerd.pid").read_text()
        self.box.run(["kill", "-9", str(self.pid())]).ok()
        self.process.wait()
        until(
            "containerd is gone with dockerd",
            lambda: self.box.run(["kill", "-0", containerd]).status != 0,
        )

    def version(self) -> Tuple[int, ...]:
        """Give the daemon's version: two numbers."""
        text = self("version", "--format", "{{.Server.Version}}").ok().out
        return tuple(int(word) for word in re.findall(r"\d+", text)[:2])

    def pid(self) -> int:
        """Give the daemon's pid in the box."""
        return int(self.box.path(f"{self.home}/pid").read_text())

    def argv(self, *words: str) -> List[str]:
        """Make a docker command line for this daemon."""
        return ["/usr/bin/docker", "-H", f"unix://{self.home}/socket", *words]

    def __call__(
        self, *words: str, stdin: str = "", env: Optional[Dict[str, str]] = None
    ) -> Result:
        """Run a docker command."""
        return self.box.run(self.argv(*words), env, stdin=stdin)

    def inspect(self, container: str, field: str) -> str:
        """Give one field of docker inspect."""
        return self("inspect", "-f", "{{" + field + "}}", container).ok().out.strip()

    def wait(self, container: str, field: str, value: str, timeout: float = BOUND) -> None:
        """Wait until a field of docker inspect has a value."""
        self.box.wait(
            self.argv("inspect", "-f", "<{{" + field + "}}>", container), f"<{value}>", timeout
        )

    def containers(self) -> List[str]:
        """List the ids of all containers."""
        return self("ps", "-aq", "--no-trunc").ok().out.split()

    def traces(self) -> Dict[str, List[str]]:
        """List the box's traces and what the runtimes keep on disk."""
        traces = self.box.traces()
        for root in (
            f"{self.home}/exec/runtime-runc",
            "/run/anocir",
            f"{self.home}/exec/containerd",
        ):
            found = self.box.run(["find", root, "-mindepth", "1", "-not", "-type", "s"]).out
            # The cache of compiled seccomp profiles stays on purpose.
            traces[root] = sorted(
                x for x in found.split("\n") if "/fifo/" not in x and ":" not in x
            )
        return traces

    def log_tail(self) -> str:
        """Give the daemon's last lines, for failures."""
        return self.box.path(f"{self.home}/log").read_text(errors="replace")[-3000:]


class Side:
    """One of the two runtimes under one daemon."""

    __slots__ = ("docker", "runtime")

    def __init__(self, docker: Dockerd, runtime: str) -> None:
        """Take a runtime by the name that the daemon has for it."""
        self.docker = docker
        self.runtime = runtime

    def name(self, stem: str) -> str:
        """Give a container name of this side."""
        return f"{stem}-{self.runtime}"

    def words(self, options: Sequence[str], command: Sequence[str]) -> List[str]:
        """Make the words after `docker` that run a container of this side."""
        return ["run", "--runtime", self.runtime, *options, IMAGE, *command]

    def run(self, options: Sequence[str], command: Sequence[str]) -> Result:
        """Run a container to its end and remove it."""
        return self.docker(*self.words(["--rm", *options], command))

    def background(self, stem: str, options: Sequence[str], command: Sequence[str]) -> str:
        """Start a container in the background and give its name."""
        name = self.name(stem)
        self.docker(*self.words(["-d", "--name", name, *options], command)).ok()
        return name

    def terminal(self, *words: str) -> Terminal:
        """Run a docker command on a pseudo terminal."""
        return self.docker.box.terminal(self.docker.argv(*words))


class Sides:
    """The two sides, and the comparison of what they give."""

    __slots__ = ("docker", "ours", "peer")

    def __init__(self, docker: Dockerd) -> None:
        """Take the daemon's runtimes "anocir" and "peer"."""
        self.docker = docker
        self.ours = Side(docker, "anocir")
        self.peer = Side(docker, "peer")

    def filtered(self) -> Sides:
        """Give the same two behind the shim that keeps to the capabilities of this machine.

        Docker 20.10 asks for every capability that the kernel knows, which runc refuses where the
        machine itself lacks one.
        """
        sides = Sides(self.docker)
        sides.ours = Side(self.docker, "filtered-anocir")
        sides.peer = Side(self.docker, "filtered-peer")
        return sides

    def gather(self, scenario: Callable[[Side], T]) -> Tuple[T, T]:
        """Run a scenario under both runtimes at the same time: (ours, peer)."""
        return gather(scenario, self.ours, self.peer)

    def same(self, scenario: Callable[[Side], T]) -> T:
        """Demand that a scenario gives the same under both runtimes, and give that."""
        return same(scenario, self.ours, self.peer)

    def compare(self, options: Sequence[str], command: Sequence[str]) -> Result:
        """Run one container under each; status, output and kind of error must agree."""
        ours, peer = self.gather(lambda side: side.run(options, command))
        text = f"ours: {ours}\n\npeer: {peer}"
        assert ours.status == peer.status, text
        assert normal(ours.out) == normal(peer.out), text
        assert phrases(ours.err) == phrases(peer.err), text
        return ours


def remove_all(docker: Dockerd) -> None:
    """Remove every container, whatever its state."""
    with contextlib.suppress(AssertionError):
        if left := docker.containers():
            docker("rm", "-f", "-v", *left)
