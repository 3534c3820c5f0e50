"""Drive a runtime as its callers do: every call is bounded in time and keeps its streams in files.

Files and never pipes, because a container keeps what it is given: a pipe would stay open as long as it runs.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import glob
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import termios
import threading
import time
import zipfile
from typing import IO, Any, Callable, Iterator, Mapping, NamedTuple, Sequence

from tests import machine
from tests.bundle import Bundle, Template, remove_tree
from tests.wait import PATIENCE, until

REPOSITORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
# Only what hangs ever takes that long, on a machine that has much else to do or is an emulated one.
TIMEOUT = 120.0
OCI_VERSIONS = {"anocir": "1.3.0", "runc": "1.0.2", "crun": "1.0.0"}
GONE: dict[int, int] = {}
"""Exit statuses of the adopted processes that `reap` has collected in this test: pids come round again."""
OWN: set[int] = set()
"""The processes that this harness started itself and waits for by name; `reap` keeps off them."""


class Result(NamedTuple):
    """What one call of the runtime gave."""

    argv: Sequence[str]
    status: int
    stdout: str
    stderr: str
    seconds: float

    def explain(self) -> str:
        """Say everything about the call, for a failing test."""
        return (
            f"$ {' '.join(self.argv)}\nstatus {self.status} after {self.seconds:.2f} s\n"
            f"--- stdout\n{self.stdout[-3000:]}\n--- stderr\n{self.stderr[-3000:]}"
        )

    @property
    def line(self) -> str:
        """The one line that was printed."""
        return self.stdout.strip()


class Runtime:
    """An executable, its --root of this session and what is special about it."""

    __slots__ = ("directory", "name", "oci_version", "path", "root", "template", "under")

    def __init__(self, path: str, directory: str) -> None:
        # What each call does in its process before it becomes the runtime (blocked.before_exec).
        self.under: Callable[[], None] | None = None
        base = os.path.basename(path)
        self.name = next((name for name in ("runc", "crun") if name in base), "anocir")
        self.path = path
        if self.name == "anocir":  # a build during the tests must not change what they test
            self.path = shutil.copy2(path, os.path.join(directory, "anocir"))
        self.oci_version = os.environ.get("OCI_VERSION", OCI_VERSIONS[self.name])
        self.directory = directory
        self.root = os.path.join(directory, "root")
        os.mkdir(self.root, 0o700)
        self.template = Template(directory)

    def command(self, *args: str) -> list[str]:
        """The command line of a call."""
        return [self.path, "--root", self.root, *args]

    def __call__(self, *args: str, ok: bool | None = True, **streams: Any) -> Result:
        """Run the runtime with its --root; `ok` says whether it has to succeed, None: whatever."""
        if self.under is not None:
            streams.setdefault("preexec_fn", self.under)
        return call(self.command(*args), ok=ok, **streams)

    def bare(self, *args: str, ok: bool | None = True, **streams: Any) -> Result:
        """Run the runtime with exactly these arguments."""
        return call([self.path, *args], ok=ok, **streams)


def find_runtime() -> str:
    """The path of the runtime under test: $RUNTIME (a name or a path), else the built archive."""
    wanted = os.environ.get("RUNTIME", "")
    if not wanted or wanted == "anocir":
        return os.path.join(REPOSITORY, "dist", "anocir")
    return shutil.which(wanted) or wanted


def stale(archive: str, top: str = REPOSITORY) -> str:
    """The source whose content in the archive is not that of the tree at `top`, or "".

    By content: times of a copied or unpacked tree say nothing.
    """
    prefix = "site-packages/"
    with zipfile.ZipFile(archive) as packed:
        inside = {
            name[len(prefix) :]: packed.read(name)
            for name in packed.namelist()
            if name.startswith(f"{prefix}anocir/") and name.endswith(".py")
        }
        inside["build.py"] = packed.read("__main__.py")
    inside.pop("anocir/build_id.py", None)
    here = {
        os.path.relpath(path, top): open(path, "rb").read()
        for path in glob.glob(f"{top}/anocir/**/*.py", recursive=True)
    }
    with open(f"{top}/build.py", "rb") as file:
        # The part of it that gets into the archive as it is.
        main = inside["build.py"]
        here["build.py"] = main if main in file.read() else b""
    return next((n for n in sorted({*inside, *here}) if inside.get(n) != here.get(n)), "")


def call(
    argv: Sequence[str],
    *,
    ok: bool | None = True,
    stdin: str | int | IO[bytes] | None = None,
    stdout: IO[bytes] | None = None,
    stderr: IO[bytes] | None = None,
    timeout: float = TIMEOUT,
    **popen: Any,
) -> Result:
    """Run a command to its end and check its exit status."""
    with tempfile.TemporaryFile() as own_out, tempfile.TemporaryFile() as own_err:
        out, err = stdout or own_out, stderr or own_err
        child = spawn(argv, stdin=stdin, stdout=out, stderr=err, **popen)
        began = time.monotonic()
        late = not wait_for(child, timeout)
        seconds = time.monotonic() - began
        result = Result(argv, child.returncode, _content(out), _content(err), seconds)
    assert not late, f"no end within {timeout} s\n{result.explain()}"
    if ok is not None:
        assert (result.status == 0) == ok, (
            ("failed" if ok else "succeeded") + "\n" + result.explain()
        )
    return result


def spawn(
    argv: Sequence[str], *, stdin: str | int | IO[bytes] | None = None, **popen: Any
) -> subprocess.Popen[bytes]:
    """Start a command that `finish` or `call` waits for."""
    source: Any = stdin
    if isinstance(stdin, str):
        source = tempfile.TemporaryFile()
        source.write(stdin.encode())
        source.seek(0)
    child = subprocess.Popen(argv, stdin=subprocess.DEVNULL if source is None else source, **popen)
    OWN.add(child.pid)
    if isinstance(stdin, str):
        source.close()
    return child


def wait_for(child: subprocess.Popen[bytes], timeout: float) -> bool:
    """Wait for a command and kill it when it takes too long; whether it ended by itself.

    The orphans are reaped meanwhile, as an engine does: the init of a pid namespace cannot end before its members.
    """
    if child.poll() is not None:  # and so it is reaped: the pid may be another's by now
        OWN.discard(child.pid)
        return True
    deadline = time.monotonic() + timeout
    pidfd = os.pidfd_open(child.pid)
    try:
        while not select.select([pidfd], [], [], min(1.0, timeout))[0]:
            reap()
            if time.monotonic() > deadline:
                child.kill()
                return False
        return True
    finally:
        os.close(pidfd)
        child.wait()
        OWN.discard(child.pid)


def finish(child: subprocess.Popen[bytes], timeout: float = TIMEOUT) -> int:
    """Wait for a spawned command and return its exit status; fail when it takes too long."""
    assert wait_for(child, timeout), f"no end within {timeout} s: {child.args!r}"
    return child.returncode


def _content(file: IO[bytes]) -> str:
    if not file.seekable():
        return ""
    file.flush()
    with open(f"/proc/self/fd/{file.fileno()}", "rb") as again:
        return again.read().decode(errors="replace")


def reap() -> None:
    """Collect dead orphans into GONE: pid to exit status, or 128 + signal."""
    for pid in machine.children() - OWN:
        try:
            done, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:
            continue
        if done:
            code = os.waitstatus_to_exitcode(status)
            GONE[pid] = code if code >= 0 else 128 - code


class Container:
    """A container of a test: its bundle, its id and the verbs of the runtime."""

    __slots__ = ("bundle", "cgroup", "id", "runtime", "stderr_path", "stdout_path")

    def __init__(self, runtime: Runtime, bundle: Bundle, identifier: str, cgroup: str) -> None:
        self.runtime = runtime
        self.bundle = bundle
        self.id = identifier
        self.cgroup = cgroup
        self.stdout_path = os.path.join(bundle.path, "stdout")
        self.stderr_path = os.path.join(bundle.path, "stderr")
        bundle.linux["cgroupsPath"] = cgroup

    # what the tests change

    @property
    def config(self) -> dict[str, Any]:
        """The configuration, as a value to change before the first verb."""
        return self.bundle.config

    @property
    def process(self) -> dict[str, Any]:
        """Its process object."""
        return self.bundle.process

    @property
    def linux(self) -> dict[str, Any]:
        """Its linux object."""
        return self.bundle.linux

    # verbs

    def make(
        self, verb: str, *options: str, ok: bool | None = True, write: bool = True, **streams: Any
    ) -> Result:
        """Run create or run with the container's own stdout and stderr files."""
        if write:
            self.bundle.write()
        if verb == "run":
            self._empty_streams()
        with open(self.stdout_path, "ab") as out, open(self.stderr_path, "ab") as err:
            streams.setdefault("stdout", out)
            streams.setdefault("stderr", err)
            return self.runtime(
                verb, *options, "--bundle", self.bundle.path, self.id, ok=ok, **streams
            )

    def _empty_streams(self) -> None:
        for path in (self.stdout_path, self.stderr_path):
            with open(path, "wb"):
                pass

    def create(self, *options: str, ok: bool | None = True, **streams: Any) -> Result:
        """Create the container."""
        return self.make("create", *options, ok=ok, **streams)

    def start(self, ok: bool | None = True, **streams: Any) -> Result:
        """Start it."""
        return self.runtime("start", self.id, ok=ok, **streams)

    def launch(self, script: str = "", *options: str) -> int:
        """Create and start it, with a script as its program if there is one; returns the pid."""
        if script:
            self.bundle.sh(script)
        self.create(*options)
        pid = self.pid
        self.start()
        return pid

    def run(self, script: str = "", *options: str, ok: bool | None = True, **streams: Any) -> str:
        """Run it in the foreground, with a script as its program if there is one; its output."""
        return self.try_run(script, *options, ok=ok, **streams).stdout

    def try_run(
        self, script: str = "", *options: str, ok: bool | None = None, **streams: Any
    ) -> Result:
        """Run it in the foreground; the whole result."""
        if script:
            self.bundle.sh(script)
        return self.make("run", *options, ok=ok, **streams)

    def refused(self, **streams: Any) -> str:
        """Create has to fail and to leave nothing; returns what it said."""
        result = self.create(ok=False, **streams)
        assert self.runtime("state", self.id, ok=None).status != 0, "a refused container exists"
        return result.stderr

    def cannot_run(self, script: str = "") -> str:
        """Create or start has to fail; returns what was said."""
        if script:
            self.bundle.sh(script)
        result = self.create(ok=None)
        if result.status == 0:
            result = self.start(ok=False)
        return result.stderr

    def state(self) -> dict[str, Any]:
        """The state document."""
        state: dict[str, Any] = json.loads(self.runtime("state", self.id).stdout)
        return state

    @property
    def status(self) -> str:
        """The status word of the state."""
        return str(self.state()["status"])

    @property
    def pid(self) -> int:
        """The pid of the container's process."""
        return int(self.state()["pid"])

    def kill(self, *words: str, ok: bool | None = True) -> Result:
        """Send a signal."""
        return self.runtime("kill", self.id, *words, ok=ok)

    def delete(self, *options: str, ok: bool | None = True) -> Result:
        """Delete it."""
        return self.runtime("delete", *options, self.id, ok=ok)

    def checkpoint(self, *options: str, ok: bool | None = True, **streams: Any) -> Result:
        """Write it down below its bundle."""
        images = ("--image-path", self.images)
        return self.runtime("checkpoint", *images, *options, self.id, ok=ok, **streams)

    def restore(self, *options: str, ok: bool | None = True, **streams: Any) -> Result:
        """Bring it back, detached, with its own stdout and stderr files."""
        images = ("--image-path", self.images)
        return self.make("restore", "-d", *images, *options, ok=ok, **streams)

    @property
    def images(self) -> str:
        """The directory of its checkpoint."""
        return os.path.join(self.bundle.path, "checkpoint")

    def exec(
        self, *command: str, ok: bool | None = True, options: Sequence[str] = (), **s: Any
    ) -> Result:
        """Run a command in it."""
        return self.runtime("exec", *options, self.id, *command, ok=ok, **s)

    def exec_process(self, process: Mapping[str, Any], *options: str, **streams: Any) -> Result:
        """Run an OCI process object in it."""
        path = os.path.join(self.bundle.path, "process.json")
        with open(path, "w") as file:
            json.dump(process, file)
        return self.runtime("exec", *options, "--process", path, self.id, **streams)

    # watching

    def wait(self, status: str = "stopped", timeout: float = PATIENCE) -> None:
        """Wait until the container has a status."""

        def reached() -> bool:
            reap()
            return self.status == status

        until(f"status {status}", reached, timeout)

    def wait_exit(self, pid: int, timeout: float = PATIENCE) -> int:
        """Wait for the adopted process of the container and return its exit status."""

        def collected() -> bool:
            reap()
            return pid in GONE

        until(f"exit of process {pid}", collected, timeout)
        return GONE.pop(pid)

    def wait_file(self, path: str, timeout: float = PATIENCE) -> str:
        """Wait until a file of the root file system exists with content, and return that."""
        return str(until(path, lambda: self.bundle.has(path) and self.bundle.read(path), timeout))

    def output(self) -> str:
        """What the container wrote to its stdout."""
        with open(self.stdout_path) as file:
            return file.read()

    def errors(self) -> str:
        """What the container and the runtime wrote to stderr."""
        with open(self.stderr_path) as file:
            return file.read()

    def limit(self, controller: str, v1: str, v2: str) -> str:
        """A value of its cgroup: the file of version 1 or that of version 2, as the host has it."""
        directory = machine.cgroup_directory(controller, self.cgroup)
        name = v1 if machine.v1_mountpoint(controller) else v2
        with open(os.path.join(directory, name)) as file:
            return file.read().strip()


class Console:
    """The listening side of --console-socket."""

    __slots__ = ("listener", "master", "name", "path")

    def __init__(self, path: str) -> None:
        self.path = path
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(1)
        self.listener.settimeout(TIMEOUT)
        self.master = -1
        self.name = b""

    def receive(self) -> int:
        """Take the one message and return the terminal's master."""
        peer, _ = self.listener.accept()
        with peer:
            peer.settimeout(TIMEOUT)
            size = array.array("i").itemsize
            self.name, ancillary, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(4 * size))
        fds = array.array("i")
        for _level, _kind, data in ancillary:
            fds.frombytes(data[: len(data) - len(data) % size])
        assert len(fds) == 1, f"{len(fds)} descriptors came over the console socket"
        self.master = fds[0]
        return self.master

    def close(self) -> None:
        """Close everything."""
        self.listener.close()
        if self.master >= 0:
            os.close(self.master)


def read_terminal(master: int, stop: bytes = b"", timeout: float = TIMEOUT) -> bytes:
    """Read a terminal's master until the text comes, or to its end."""
    collected = b""
    deadline = time.monotonic() + timeout
    while not (stop and stop in collected):
        left = deadline - time.monotonic()
        assert left > 0, f"no {stop!r} on the terminal, only {collected!r}"
        if select.select([master], [], [], left)[0]:
            try:
                piece = os.read(master, 65536)
            except OSError:  # EIO: the last slave is closed
                break
            if not piece:
                break
            collected += piece
    return collected


def set_size(fd: int, rows: int, columns: int) -> None:
    """Give a terminal a size."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


class Terminal:
    """A pseudo terminal with the runtime as its session, as a shell user has it."""

    __slots__ = ("child", "initial", "master", "slave")

    def __init__(self, argv: Sequence[str], rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = os.openpty()
        set_size(self.slave, rows, columns)
        self.initial = self.modes()
        self.child = spawn(
            argv,
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0) and None,
        )

    def expect(self, text: str, timeout: float = TIMEOUT) -> str:
        """Read until the text is on the terminal."""
        return read_terminal(self.master, text.encode(), timeout).decode()

    def send(self, text: str) -> None:
        """Type something."""
        os.write(self.master, text.encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size; the kernel sends SIGWINCH to the foreground group."""
        set_size(self.master, rows, columns)

    def modes(self) -> list[Any]:
        """The terminal's present attributes."""
        return termios.tcgetattr(self.slave)

    def close(self) -> int:
        """Wait for the runtime and close the terminal; the exit status."""
        try:
            ended = self.child.returncode
            return finish(self.child) if ended is None else ended
        finally:
            os.close(self.slave)
            os.close(self.master)


class Workshop:
    """Makes the containers of one test and clears them away."""

    __slots__ = ("consoles", "containers", "helpers", "parent", "runtime")
    counter: Iterator[int] = iter(range(1, 1 << 30))

    def __init__(self, runtime: Runtime, parent: str) -> None:
        self.runtime = runtime
        self.parent = parent
        self.containers: list[Container] = []
        self.helpers: list[subprocess.Popen[bytes]] = []
        self.consoles: list[Console] = []
        GONE.clear()

    def container(self) -> Container:
        """A container with its own bundle; nothing is created yet."""
        identifier = f"t{os.getpid()}-{next(Workshop.counter):04d}"
        path = os.path.join(self.runtime.directory, identifier)
        bundle = Bundle(path, self.runtime.template, self.runtime.oci_version)
        made = Container(self.runtime, bundle, identifier, f"{self.parent}/{identifier}")
        self.containers.append(made)
        return made

    def helper(self, argv: Sequence[str], **popen: Any) -> subprocess.Popen[bytes]:
        """Start a process of the host that lives until the end of the test."""
        child = spawn(argv, **popen)
        self.helpers.append(child)
        return child

    def console(self, directory: str) -> Console:
        """The listening end of a console socket."""
        console = Console(os.path.join(directory, "console.sock"))
        self.consoles.append(console)
        return console

    def delete_all(self) -> list[str]:
        """Delete every container by force; the complaints of the runtime."""
        complaints = []
        for console in self.consoles:  # an open terminal keeps the session keyring of its maker
            console.close()
        self.consoles.clear()
        for container in self.containers:
            if not os.path.lexists(os.path.join(self.runtime.root, container.id)):
                continue
            command = self.runtime.command("delete", "--force", container.id)
            result = call(command, ok=None)
            if result.status != 0:
                complaints.append("delete --force failed\n" + result.explain())
        for child in self.helpers:
            if child.poll() is None:
                child.send_signal(signal.SIGKILL)
                finish(child)
            OWN.discard(child.pid)
        self.helpers.clear()
        reap()
        return complaints

    def remove_bundles(self) -> None:
        """Remove the bundles."""
        for container in self.containers:
            remove_tree(container.bundle.path)
        self.containers.clear()


@contextlib.contextmanager
def over_and_over(exchange: Callable[[], None]) -> Iterator[None]:
    """Meanwhile do something as fast as it goes, as a program of the container could.

    Where the runtime comes in between it may fail; it has to come through more than a hundred times.
    """
    stop = threading.Event()
    done = 0

    def loop() -> None:
        nonlocal done
        while not stop.is_set():
            with contextlib.suppress(OSError):
                exchange()
                done += 1

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert done > 100, f"exchanged {done} times only: nothing was raced"
