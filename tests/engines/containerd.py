"""containerd in a box, driven by ctr."""

from __future__ import annotations

import subprocess
from typing import Dict, List, Sequence

from tests.engines.box import Box, Result, Terminal
from tests.engines.image import FULL_NAME, docker_archive

HOME = "/run/containerd-test"
CONFIG = f"""
version = 2
root = "{HOME}/root"
state = "{HOME}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{HOME}/socket"
"""


class Containerd:
    """A containerd of its own with the image in it."""

    __slots__ = ("binaries", "box", "process")

    def __init__(self, box: Box, binaries: Dict[str, str]) -> None:
        """Start the daemon; `binaries` are the runtimes by side."""
        self.box = box
        self.binaries = binaries
        box.run(["mkdir", "-p", HOME]).ok()
        box.path(f"{HOME}/config.toml").write_text(CONFIG)
        box.path(f"{HOME}/image.tar").write_bytes(docker_archive())
        self.process = self.start()
        box.run(["ctr", "-a", f"{HOME}/socket", "images", "import", f"{HOME}/image.tar"]).ok()

    def start(self) -> subprocess.Popen[bytes]:
        """Start the daemon (again) and wait until it answers."""
        words = ["containerd", "-c", f"{HOME}/config.toml"]
        self.process = self.box.spawn(words, log=f"{HOME}/log")
        self.box.wait(["ctr", "-a", f"{HOME}/socket", "version"], "Server:")
        return self.process


class Ctr:
    """ctr with one runtime."""

    __slots__ = ("box", "name", "runtime")

    def __init__(self, daemon: Containerd, name: str) -> None:
        """Take the side's binary from the daemon's list."""
        self.box = daemon.box
        self.name = name
        self.runtime = daemon.binaries[name]

    def argv(self, *words: str) -> List[str]:
        """Make a ctr command line."""
        return ["ctr", "-a", f"{HOME}/socket", *words]

    def __call__(self, *words: str) -> Result:
        """Run a ctr command."""
        return self.box.run(self.argv(*words))

    def words(self, options: Sequence[str], container: str, command: Sequence[str]) -> List[str]:
        """Make the words after `ctr` that run a container with this runtime."""
        return ["run", "--runc-binary", self.runtime, *options, FULL_NAME, container, *command]

    def run(self, options: Sequence[str], command: Sequence[str]) -> Result:
        """Run a container to its end and remove it."""
        return self(*self.words(["--rm", *options], self.box.fresh(f"c-{self.name}-"), command))

    def terminal(self, *words: str) -> Terminal:
        """Run a ctr command on a pseudo terminal."""
        return self.box.terminal(self.argv(*words))
