"""A container for the tests of this directory: few calls, since each costs a second here."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from tests.bundle import make_root, static_busybox
from tests.reliability.ground import base_config
from tests.wait import until

REPOSITORY = os.path.dirname(
    os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
)
RUNTIME = os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir")
# the machine is slow, and slower still beside others: only what hangs ever takes that long
PATIENCE = 240


class Box:
    """A bundle, and the runtime's commands on it."""

    def __init__(self, name: str, *options: str) -> None:
        self.id = name
        self.dir = tempfile.mkdtemp(prefix=f"anocir-{name}-")
        os.chmod(self.dir, 0o755)
        self.options = options
        rootfs = os.path.join(self.dir, "rootfs")
        make_root(rootfs, static_busybox())
        self.config: dict[str, Any] = base_config(rootfs, ("/bin/sleep", "1000"))

    def call(
        self, *words: str, check: bool = True, root: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Run the runtime; its output goes to files, as a container may keep it open."""
        # new files for each call: the runtime gives them to the container's user
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            done = subprocess.run(
                [RUNTIME, *root, *words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                timeout=PATIENCE,
                check=False,
            )
            out.seek(0)
            err.seek(0)
            result = subprocess.CompletedProcess(words, done.returncode, out.read(), err.read())
        assert not check or result.returncode == 0, (
            f"{words}: {result.returncode}: {result.stdout}{result.stderr}"
        )
        return result

    def write(self) -> None:
        """Write config.json."""
        with open(os.path.join(self.dir, "config.json"), "w") as stream:
            json.dump(self.config, stream)

    def create(self, start: bool = True) -> int:
        """Create (with this box's options) and start; the pid of init."""
        self.write()
        self.call("create", "--bundle", self.dir, self.id, root=self.options)
        if start:
            self.call("start", self.id)
        return int(self.state()["pid"])

    def run(self) -> str:
        """`run` in the foreground; what the process printed."""
        self.write()
        return self.call("run", "--bundle", self.dir, self.id, root=self.options).stdout

    def state(self) -> dict[str, Any]:
        """The parsed state."""
        found: dict[str, Any] = json.loads(self.call("state", self.id).stdout)
        return found

    def remove(self) -> None:
        """Delete the container by force, and the bundle."""
        self.call("delete", "--force", self.id, check=False)
        shutil.rmtree(self.dir, ignore_errors=True)


def cgroup_of(pid: int) -> str:
    """The directory of a process in cgroup v2."""
    with open(f"/proc/{pid}/cgroup") as stream:
        line = next(line for line in stream if line.startswith("0::"))
    return "/sys/fs/cgroup" + line.rstrip("\n")[3:]


def value(directory: str, name: str) -> str:
    """One file of a cgroup."""
    with open(os.path.join(directory, name)) as stream:
        return stream.read().strip()


def awaited(condition: Callable[[], Any], what: str) -> None:
    """Wait for what the machine will do when it comes to it."""
    until(what, condition, PATIENCE, pause=0.2)


def gone(path: str) -> None:
    """Wait until a path has disappeared."""
    awaited(lambda: not os.path.exists(path), f"{path} gone")


def shown(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit."""
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(line.split("=", 1) for line in text.splitlines() if "=" in line)


def becomes(unit: str, state: str) -> None:
    """Wait until a unit is "active", "inactive" or "failed": systemd hears of an end a little later."""
    awaited(lambda: shown(unit, "ActiveState") == {"ActiveState": state}, f"{unit} {state}")


@contextlib.contextmanager
def dockerd(*options: str) -> Iterator[None]:
    """A Docker daemon with a containerd of its own.

    The one that dockerd would start has 15 seconds for that, three for each sign of life, and two for each answer of
    a shim.
    """
    home = tempfile.mkdtemp(prefix="docker-")
    address = f"{home}/containerd.sock"
    with open(f"{home}/config.toml", "w") as file:
        file.write(
            f'version = 2\nroot = "/var/lib/containerd"\nstate = "{home}/containerd"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{address}"\n[timeouts]\n'
        )
        names = ("shim.cleanup", "shim.load", "shim.shutdown", "task.state")
        file.writelines(f'"io.containerd.timeout.{name}" = "{PATIENCE}s"\n' for name in names)
    steps = (
        (["containerd", "-c", f"{home}/config.toml"], ["ctr", "--address", address, "version"]),
        (["dockerd", "--containerd", address, *options], ["docker", "version"]),
    )
    daemons: list[subprocess.Popen[bytes]] = []

    def answers(question: list[str]) -> bool:
        if daemons[-1].poll() is not None:
            with open(f"{home}/log") as log:
                raise AssertionError(log.read()[-4000:])
        return subprocess.run(question, capture_output=True, check=False).returncode == 0

    try:
        for words, question in steps:
            with open(f"{home}/log", "a") as log:
                daemons.append(subprocess.Popen(words, stdout=log, stderr=log))
            awaited(lambda question=question: answers(question), f"an answer of {words[0]}")
        yield
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait(PATIENCE)
