"""A box: private namespaces and cgroups in which a container engine may do what it likes.

Its programs are those of a Debian tree (tests/engines/tree.py) or of this machine. An engine leaves traces all over a machine: a bridge, iptables rules, mounts, cgroups, files below /run,
daemons. In a box all of them are private (mount, network, pid, ipc, uts and cgroup namespace, a tmpfs on
/run, cgroup mounts whose root is the box's own cgroup), so one SIGKILL to the box's pid 1 ends everything,
whatever state a test has left it in.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence, Union

from tests.drive import until
from tests.wait import others_go_on

CGROUP = Path("/sys/fs/cgroup")
# A wait ends when the thing has happened; its bound must only be beyond what a busy machine takes.
BOUND = 120.0
COMMAND_TIMEOUT = 240.0

ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/run/home",
    "LANG": "C.UTF-8",
    "TMPDIR": "/run/tmp",
}

PID_1 = Path(__file__).with_name("pid1.py")


@dataclass(frozen=True, repr=False)
class Result:
    """What a finished command gave."""

    argv: List[str]
    status: int
    out: str
    err: str

    def ok(self) -> Result:
        """Give the result itself, or fail with everything that explains why."""
        assert self.status == 0, self
        return self

    def __repr__(self) -> str:
        words = " ".join(self.argv)
        return f"{words}\n-> {self.status}\nstdout: {self.out[-3000:]}\nstderr: {self.err[-3000:]}"


def hierarchies() -> List[str]:
    """Name the cgroup mounts of this machine, "." for a pure cgroup v2 one."""
    kinds = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        # The last mount on a path is the one that is seen.
        kinds[before.split()[4]] = after.split()[0]
    if kinds.get(str(CGROUP)) == "cgroup2":
        return ["."]
    return sorted(
        path.rpartition("/")[2]
        for path, kind in kinds.items()
        if kind in ("cgroup", "cgroup2") and path.startswith(f"{CGROUP}/")
    )


def remove_cgroups(top: Path) -> bool:
    """Remove a tree of cgroups as far as it is empty; tell whether it is gone."""
    for path, _, _ in os.walk(top, topdown=False):
        with contextlib.suppress(OSError):
            Path(path).rmdir()
    return not top.exists()


class Box:
    """Namespaces, cgroups and a pid 1 that hold an engine together."""

    __slots__ = ("_count", "_holder", "environment", "hierarchies", "name", "pid", "root")

    def __init__(self, name: str, root: Path = Path("/")) -> None:
        """Make the box of the system at `root`; `name` must be unique on the machine."""
        self.name = name
        self.root = root
        self.hierarchies = hierarchies()
        self.environment = dict(ENVIRONMENT)
        # Both sides take from it at the same time: one step, not read and add.
        self._count = itertools.count(1)
        for one in self.hierarchies:
            directory = CGROUP / one / name
            directory.mkdir()
            for knob in ("cpuset.cpus", "cpuset.mems"):
                # An empty v1 cpuset refuses its first process.
                with contextlib.suppress(OSError):
                    (directory / knob).write_text((CGROUP / one / knob).read_text())
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
            + ["--propagation", "private", "/usr/bin/python3", "-IS", str(PID_1), str(root), name]
            + self.hierarchies,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=self.environment,
        )
        assert self._holder.stdout is not None
        if self._holder.stdout.readline() != b"ready\n":
            self.close()
            raise RuntimeError("the box did not start")
        children = Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text()
        self.pid = int(children.split()[0])

    def close(self) -> None:
        """End every process of the box and remove its cgroups; the namespaces go with their pid 1."""
        with contextlib.suppress(ProcessLookupError):
            self._holder.kill()
        self._holder.wait()
        tops = [CGROUP / one / self.name for one in self.hierarchies]
        until("the box's cgroups are gone", lambda: all(remove_cgroups(top) for top in tops))

    def path(self, inside: str) -> Path:
        """Name a path of the box as the test process reaches it."""
        return Path(f"/proc/{self.pid}/root{inside}")

    def fresh(self, stem: str) -> str:
        """Give a name that nothing else in this box has."""
        return f"{stem}{next(self._count)}"

    def command(self, argv: Sequence[str]) -> List[str]:
        """Wrap a command line so that it runs in the box's cgroups and namespaces."""
        leaf = "/init" if self.hierarchies == ["."] else ""
        procs = [f"{CGROUP}/{one}/{self.name}{leaf}/cgroup.procs" for one in self.hierarchies]
        join = " ".join(f"echo $$ >{path};" for path in procs)
        enter = f'{join} exec nsenter -t {self.pid} -m -n -p -i -u -C -- "$@"'
        return ["/bin/sh", "-c", enter, "box", *argv]

    def spawn(
        self,
        argv: Sequence[str],
        env: Optional[Mapping[str, str]] = None,
        log: Optional[str] = None,
        **options: object,
    ) -> subprocess.Popen[bytes]:
        """Start a command in the box; `log` is a path in the box for both outputs."""
        if log is not None:
            with self.path(log).open("ab") as file:
                return self.spawn(argv, env, stdout=file, stderr=file, stdin=subprocess.DEVNULL)
        environment = {**self.environment, **(env or {})}
        return subprocess.Popen(self.command(argv), env=environment, **options)  # type: ignore[call-overload, no-any-return]

    def run(
        self,
        argv: Sequence[str],
        env: Optional[Mapping[str, str]] = None,
        stdin: Union[str, bytes] = b"",
        timeout: float = COMMAND_TIMEOUT,
    ) -> Result:
        """Run a command in the box to its end.

        Its outputs go to files: a daemon that keeps a pipe open would make the test wait for ever.
        """
        name = self.fresh("/run/tmp/.output")
        given = stdin.encode() if isinstance(stdin, str) else stdin
        with (
            self.path(name + ".out").open("wb+") as out,
            self.path(name + ".err").open("wb+") as err,
        ):
            self.path(name + ".out").unlink()
            self.path(name + ".err").unlink()
            child = self.spawn(argv, env, stdin=subprocess.PIPE, stdout=out, stderr=err)
            try:
                assert child.stdin is not None
                with contextlib.suppress(BrokenPipeError):
                    child.stdin.write(given)
                    child.stdin.close()
                status = child.wait(timeout)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
                status = -1
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode(errors="replace"))
        if status == -1:
            texts[1] += f"\n[no end after {timeout} s]"
        return Result(list(argv), status, texts[0], texts[1])

    def terminal(self, argv: Sequence[str], rows: int = 24, columns: int = 80) -> Terminal:
        """Start a command in the box on a pseudo terminal of its own."""
        return Terminal(self.command(argv), self.environment, list(argv), rows, columns)

    def wait(self, argv: Sequence[str], text: str, timeout: float = BOUND) -> Result:
        """Repeat a command until its output holds the text."""

        def found(result: Result) -> bool:
            return text in result.out + result.err

        result: Result = until(repr(text), lambda: self.run(argv), timeout, 0.05, found)
        return result

    def remove_cgroup(self, path: str) -> None:
        """Remove a cgroup that an engine leaves by design, as soon as those below it are gone."""
        tops = [CGROUP / one / self.name / path.strip("/") for one in self.hierarchies]

        def left() -> List[Path]:
            for top in tops:
                with contextlib.suppress(OSError):
                    top.rmdir()
            return [top for top in tops if top.exists()]

        until(f"the cgroup {path} is gone", left, found=lambda paths: not paths)

    def traces(self) -> Dict[str, List[str]]:
        """List what an engine or its runtime can leave behind: processes, mounts, cgroups, devices."""
        cgroups = []
        for one in self.hierarchies:
            top = CGROUP / one / self.name
            cgroups += [f"{one}:{path[len(str(top)) :]}" for path, _, _ in os.walk(top)]
        mounts = Path(f"/proc/{self.pid}/mountinfo")
        links = self.run(["ls", "/sys/class/net"]).out.split()
        ps = self.run(["ps", "-eo", "comm,args", "--no-headers"]).out
        return {
            "cgroups": sorted(cgroups),
            "mounts": sorted(line.split()[4] for line in mounts.read_text().splitlines()),
            "links": sorted(links),
            "processes": sorted(x for x in ps.splitlines() if not x.startswith(("ps ", "nsenter"))),
        }


class Terminal:
    """A program on a real pseudo terminal, driven as a person would."""

    __slots__ = ("argv", "before", "fd", "pid", "seen", "status")

    def __init__(
        self, command: List[str], env: Dict[str, str], argv: List[str], rows: int, columns: int
    ) -> None:
        """Fork the program; use Box.terminal."""
        self.argv = argv
        self.seen = b""
        self.status: Optional[int] = None
        # The program starts when its terminal's size is set and the modes before it are known.
        wait, go = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.close(go)
            os.read(wait, 1)
            os.closerange(3, 4096)
            os.execve(command[0], command, {**env, "TERM": "xterm"})
        os.close(wait)
        os.set_inheritable(self.fd, False)
        self.resize(rows, columns)
        self.before = self.flags()
        os.write(go, b"!")
        os.close(go)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def resize(self, rows: int, columns: int) -> None:
        """Change the window; the kernel sends SIGWINCH to the foreground."""
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def flags(self) -> int:
        """Give the terminal's local modes, to see whether the program put them back."""
        modes: List[int] = termios.tcgetattr(self.fd)
        return modes[3]

    def type(self, text: str) -> None:
        """Write keys; a shell that has just shown its prompt takes the terminal over only then."""
        others_go_on(40)
        os.write(self.fd, text.encode())

    def expect(self, text: str, timeout: float = BOUND) -> str:
        """Read on until the text was written since the last expect; give what came before and it."""
        deadline = time.monotonic() + timeout
        wanted = text.encode()
        while wanted not in self.seen:
            assert self._read(deadline), f"no {text!r} from {self.argv}: {self.seen!r}"
        head, _, self.seen = self.seen.partition(wanted)
        return (head + wanted).decode(errors="replace")

    def await_size(self, size: str, prompt: str) -> None:
        """At a shell's prompt: ask until the terminal inside has the size "ROWS COLUMNS".

        An engine tells it in the background, and the shell draws its prompt again then: with the size
        there, the next prompt is one and in its place.
        """

        def asked() -> str:
            # The shell's echo of the command has the quotes, its answer has not.
            self.type("stty size; echo as''ked\n")
            answer = self.expect("asked")
            self.expect(prompt)
            return answer

        until(size, asked, found=lambda answer: size in answer)

    def finish(self, timeout: float = BOUND) -> int:
        """Read to the end and give the exit status."""
        deadline = time.monotonic() + timeout
        while self._read(deadline):
            pass
        _, status = until(
            f"the end of {self.argv}",
            lambda: os.waitpid(self.pid, os.WNOHANG),
            max(1.0, deadline - time.monotonic()),
            found=lambda answer: answer[0] != 0,
        )
        self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def _read(self, deadline: float) -> bool:
        readable, _, _ = select.select([self.fd], [], [], max(0.0, deadline - time.monotonic()))
        if not readable:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:
            # EIO: the last user of the other side has closed it.
            return False
        self.seen += data
        return bool(data)
