"""The host must be after the tests as it was before: around each test, each file, the run.

A witness, a process that stays in the namespaces in which the run began, looks at

    devices    mode, owner and number of every node in /dev
    terminals  mode and owner of the terminals that somebody's session is on
    cgroups    modes and owners below the top of /sys/fs/cgroup, and of the top
    links      names and flags of network devices
    names      hostname and domainname
    sysctl     every one that can be written, ip_forward among them
    mounts     of the run's mount namespace
    keyrings   /proc/keys, of new ones those that are named after a container of the run
    checkout   modes and owners of the files of this repository

What differs is put back and told, with the name of the test or file that it appeared in, and fails the run (guard.py
has that part; the programs that measure use `around`). Where another run is at work on the same machine nobody can know
whose it is: then it is told, with the names of the others, and what they may be using just then is left alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import re
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import time
from typing import Any, Iterator

CHECKOUT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
QUICK = ("devices", "terminals", "cgroups", "links", "names")
ALL = (*QUICK, "sysctl", "mounts", "keyrings", "checkout")
# Put back even while other runs are at work: nobody has a use for them as they are now.
NOBODYS = ("devices", "terminals", "cgroups", "sysctl", "checkout")
# What the kernel itself changes: the last pid, a limit that it lowers when interrupts take long, a countdown.
DRIFTING = re.compile(
    r"kernel/(ns_last_pid|perf_event_max_sample_rate|hung_task_warnings|tainted)$|fs/binfmt_misc/"
)
NOT_OURS = {".git", "build", "dist", "__pycache__", ".hypothesis"}
USUAL = {
    "/dev/null": "c 0666 0:0 1:3",
    "/dev/zero": "c 0666 0:0 1:5",
    "/dev/full": "c 0666 0:0 1:7",
    "/dev/random": "c 0666 0:0 1:8",
    "/dev/urandom": "c 0666 0:0 1:9",
}
PATIENCE = 3.0
"""Seconds that the kernel may take to free a keyring or a network device."""

Section = "dict[str, str]"
Found = "dict[str, dict[str, str]]"


def describe(path: str) -> str:
    """The kind, mode, owner and device number of a file, a link not followed."""
    found = os.lstat(path)
    kind = {
        stat.S_IFCHR: "c",
        stat.S_IFBLK: "b",
        stat.S_IFDIR: "d",
        stat.S_IFLNK: "l",
        stat.S_IFREG: "-",
        stat.S_IFIFO: "p",
        stat.S_IFSOCK: "s",
    }[stat.S_IFMT(found.st_mode)]
    number = f" {os.major(found.st_rdev)}:{os.minor(found.st_rdev)}" if kind in "cb" else ""
    target = f" -> {os.readlink(path)}" if kind == "l" else ""
    return f"{kind} {found.st_mode & 0o7777:04o} {found.st_uid}:{found.st_gid}{number}{target}"


class Host:
    """The machine as the witness sees it: what is there, and how to put it back."""

    def __init__(self, **tops: str) -> None:
        """Take other places than the usual ones: dev, cgroup, sysctl, checkout."""
        self.dev = tops.get("dev", "/dev")
        self.cgroup = tops.get("cgroup", "/sys/fs/cgroup")
        self.proc_sys = tops.get("sysctl", "/proc/sys")
        self.repository = tops.get("checkout", CHECKOUT)

    def look(self, sections: tuple[str, ...]) -> Found:
        """Everything in some sections."""
        found: Found = {}
        for section in sections:
            found[section] = getattr(self, section)()
        return found

    # looking

    def devices(self) -> Section:
        rows: dict[str, str] = {}
        device = os.lstat(self.dev).st_dev
        _put(rows, self.dev)
        for directory, names, files in os.walk(self.dev):
            for name in names + files:
                path = os.path.join(directory, name)
                _put(rows, path)
            # What lies in the file systems below is somebody's data, but for their top.
            names[:] = [n for n in names if _device_of(os.path.join(directory, n)) == device]
        return rows

    def terminals(self) -> Section:
        """By the session that is on it, since a number comes round again."""
        rows: dict[str, str] = {}
        if not any(entry.name.isdigit() for entry in _scan(os.path.join(self.dev, "pts"))):
            return rows
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/stat") as file:
                    words = file.read().rpartition(")")[2].split()
            except OSError:
                continue
            session, number = words[3], int(words[4])
            if number and session == pid and 136 <= os.major(number) < 144:
                index = (os.major(number) - 136) * 256 + os.minor(number)
                path = os.path.join(self.dev, f"pts/{index}")
                with contextlib.suppress(OSError):
                    rows[f"{path} (session {pid}, begun at {words[19]})"] = describe(path)
        return rows

    def cgroups(self) -> Section:
        rows: dict[str, str] = {}
        if not os.path.isdir(self.cgroup):
            return rows
        _put(rows, self.cgroup)
        for top in _scan(self.cgroup):
            _put(rows, top.path)
            if top.is_dir(follow_symlinks=False):
                for inner in _scan(top.path):
                    if not inner.is_dir():  # directories are cgroups, which come and go
                        _put(rows, inner.path)
        return rows

    def links(self) -> Section:
        rows: dict[str, str] = {}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            for _, name in socket.if_nameindex():
                with contextlib.suppress(OSError):
                    rows[name] = f"flags {_link_flags(sock, name):#x}"
        return rows

    def names(self) -> Section:
        rows = {"hostname": os.uname().nodename}
        with contextlib.suppress(OSError), open("/proc/sys/kernel/domainname") as file:
            rows["domainname"] = file.read().strip()
        return rows

    def sysctl(self) -> Section:
        rows: dict[str, str] = {}
        for directory, _, files in os.walk(self.proc_sys):
            for name in files:
                path = os.path.join(directory, name)
                short = os.path.relpath(path, self.proc_sys)
                try:
                    mode = os.lstat(path).st_mode
                    if not mode & 0o222 or not mode & 0o444 or DRIFTING.search(short):
                        continue
                    with open(path, "rb", buffering=0) as file:
                        rows[path] = file.read(1 << 16).decode(errors="replace")
                except OSError:
                    continue
        return rows

    def mounts(self) -> Section:
        rows: dict[str, str] = {}
        with open("/proc/self/mountinfo") as file:
            for line in file:
                before, _, after = line.partition(" - ")
                words = before.split()
                kind, source, *_ = after.split()
                groups = re.sub(r":\d+", "", " ".join(words[6:]))
                key, nth = words[4], 0
                while f"{key} #{nth}" in rows:
                    nth += 1
                rows[f"{key} #{nth}"] = f"{kind} {source} {words[3]} {words[5]} {groups}".strip()
        return rows

    def keyrings(self) -> Section:
        rows: dict[str, str] = {}
        with contextlib.suppress(OSError), open("/proc/keys") as file:
            for line in file:
                words = line.split(maxsplit=8)
                if len(words) < 9 or "D" in words[1] or "R" in words[1]:
                    continue
                serial, _, _, _, permissions, uid, gid, kind, text = words
                text = text.strip()
                name = text.rpartition(": ")[0] or text
                if not name.startswith(("_uid", ".")):  # the kernel makes these as it needs them
                    rows[serial] = f"{kind} {name} {permissions} {uid}:{gid}"
        return rows

    def checkout(self) -> Section:
        rows: dict[str, str] = {}
        for directory, names, files in os.walk(self.repository):
            names[:] = [n for n in names if n not in NOT_OURS and not n.endswith("_cache")]
            for name in names + files:
                _put(rows, os.path.join(directory, name))
        return rows

    # putting back

    def put_back(self, section: str, key: str, was: str | None, now: str | None) -> None:
        """Undo one difference, as far as that can be done."""
        undo = {
            "links": self._put_back_link,
            "names": self._put_back_name,
            "sysctl": self._put_back_sysctl,
            "mounts": self._put_back_mount,
            "keyrings": self._put_back_key,
        }.get(section, self._put_back_file)
        with contextlib.suppress(OSError):
            undo(key, was, now)

    @staticmethod
    def _put_back_file(key: str, was: str | None, now: str | None) -> None:
        path = key.partition(" (session")[0]
        if was is None:
            os.unlink(path)
            return
        kind, mode, owner, *rest = was.split(maxsplit=3)
        if now is None or now.split()[0] != kind or now.split()[3:] != rest:
            if now is not None and now[0] != "d":
                os.unlink(path)
            if kind in "cb":
                major, minor = map(int, rest[0].split(":"))
                form = stat.S_IFCHR if kind == "c" else stat.S_IFBLK
                os.mknod(path, form | 0o600, os.makedev(major, minor))
            elif kind == "l":
                os.symlink(rest[0].partition("-> ")[2], path)
            elif kind == "d":
                os.mkdir(path)
            else:
                return
        uid, gid = map(int, owner.split(":"))
        os.chown(path, uid, gid, follow_symlinks=False)
        if kind != "l":
            os.chmod(path, int(mode, 8))

    @staticmethod
    def _put_back_link(key: str, was: str | None, now: str | None) -> None:
        if was is None:
            command = ["ip", "link", "delete", key]
            subprocess.run(command, check=False, capture_output=True)
        elif now is not None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                request = struct.pack("16sH14x", key.encode(), int(was.split()[1], 16))
                fcntl.ioctl(sock, 0x8914, request)  # SIOCSIFFLAGS

    @staticmethod
    def _put_back_name(key: str, was: str | None, now: str | None) -> None:
        with open(f"/proc/sys/kernel/{key}", "w") as file:
            file.write(was or "")

    @staticmethod
    def _put_back_sysctl(key: str, was: str | None, now: str | None) -> None:
        if was is not None and now is not None:
            with open(key, "wb", buffering=0) as file:
                file.write(was.encode() or b"\n")

    @staticmethod
    def _put_back_mount(key: str, was: str | None, now: str | None) -> None:
        if was is None:
            point = re.sub(r"\\(\d{3})", lambda m: chr(int(m[1], 8)), key.rpartition(" #")[0])
            ctypes.CDLL(None).umount2(os.fsencode(point), 2)  # MNT_DETACH

    @staticmethod
    def _put_back_key(key: str, was: str | None, now: str | None) -> None:
        if was is None and os.uname().machine in ("x86_64", "aarch64"):
            number = {"x86_64": 250, "aarch64": 219}[os.uname().machine]
            serial = int(key, 16)
            # KEYCTL_LINK to the process's keyring first: only who possesses it may revoke it.
            for words in ((8, serial, -2), (3, serial), (9, serial, -2)):
                ctypes.CDLL(None).syscall(number, *words)


def _put(rows: Section, path: str) -> None:
    with contextlib.suppress(OSError):
        rows[path] = describe(path)


def _scan(path: str) -> list[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(path) as entries:
        return list(entries)
    return []


def _device_of(path: str) -> int:
    try:
        return os.lstat(path).st_dev
    except OSError:
        return -1


def _link_flags(sock: socket.socket, name: str) -> int:
    # SIOCGIFFLAGS; IFF_RUNNING is the state of the line.
    flags: int = struct.unpack(
        "16xH", fcntl.ioctl(sock, 0x8913, struct.pack("16sH14x", name.encode(), 0))[:18]
    )[0]
    return flags & ~0x40


def differences(before: Found, now: Found) -> list[tuple[str, str, str | None, str | None]]:
    """(section, key, before, now) for all that differs and that nobody but a test can be the cause of."""
    # Keyrings are in no namespace: only those are ours that are named after a container of this very run.
    mine = re.compile(rf"keyring (_ses\.t|guard-){os.getpid()}\b")
    rows = []
    for section, theirs in now.items():
        ours = before[section]
        for key in sorted({*ours, *theirs}):
            was, is_now = ours.get(key), theirs.get(key)
            if was == is_now:
                continue
            # Sessions end, and with them keyrings; modules bring sysctls; people edit files.
            lone = was is None or is_now is None
            if lone and section in ("terminals", "sysctl", "checkout"):
                continue
            if section == "keyrings" and (is_now is None or not (was or mine.match(is_now))):
                continue
            if section == "devices" and was is None and _kernel_made(is_now or ""):
                continue
            rows.append((section, key, was, is_now))
    return rows


def _kernel_made(text: str) -> bool:
    """Whether a new node is one that the kernel has made itself: devtmpfs, a loop device."""
    kind, _, _, *rest = text.split()
    directory = {"c": "char", "b": "block"}.get(kind)
    return directory is not None and os.path.exists(f"/sys/dev/{directory}/{rest[0]}")


# the witness -------------------------------------------------------------------------------------------


def serve(tops: dict[str, str]) -> None:
    """Answer, line by line, what the guard asks, until the end of the input.

    As a child of nobody in the run, which counts and kills all that it has left behind.
    """
    if os.fork():
        os._exit(0)
    os.setsid()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    print(os.getpid(), flush=True)
    host = Host(**tops)
    for line in sys.stdin:
        words = json.loads(line)
        if words[0] == "look":
            answer: Any = host.look(tuple(words[1]))
        else:
            answer = host.put_back(*words[1:])
        print(json.dumps(answer), flush=True)


WITNESSES: set[int] = set()
"""The processes of this one's guards: its children, if it adopts orphans, and no trace of what it tests."""


class Guard:
    """The witness, what it saw at first, and what was found since."""

    def __init__(self, who: str = "", **tops: str) -> None:
        """Start the witness; `who` says what runs, for other guards on this machine."""
        self.register = Register(who)
        self.child = subprocess.Popen(
            [sys.executable, "-IS", os.path.abspath(__file__), json.dumps(tops)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self.child.wait()
        assert self.child.stdout
        WITNESSES.add(int(self.child.stdout.readline()))
        self.first = self._look(ALL)
        self.failed = False
        # What an earlier run, or whoever, has left would else be taken for the way it should be.
        self.found = [
            f"before the beginning: {path} is {self.first['devices'].get(path)!r}, not {usual!r}"
            for path, usual in USUAL.items()
            if self.first["devices"].get(path, usual) != usual
        ]

    def _ask(self, *words: Any) -> Any:
        assert self.child.stdin and self.child.stdout
        self.child.stdin.write(json.dumps(words) + "\n")
        self.child.stdin.flush()
        return json.loads(self.child.stdout.readline())

    def _look(self, sections: tuple[str, ...]) -> Found:
        found: Found = self._ask("look", list(sections))
        return found

    def check(self, who: str, sections: tuple[str, ...] = ALL, strict: bool = False) -> list[str]:
        """Compare with the beginning, put back what differs and tell it; `who` may have done it."""
        others = self.register.others()
        deadline = time.monotonic() + PATIENCE
        rows = differences(self.first, self._look(sections))
        while any(row[2] is None for row in rows) and time.monotonic() < deadline:
            time.sleep(0.05)  # on its way out
            rows = differences(self.first, self._look(sections))
        if not rows:
            return []
        told: dict[tuple[str, str], tuple[str | None, str | None]] = {}
        # One setting may change others with it, as ip_forward does: in the end each has its own.
        for _ in range(3):
            for section, key, was, now in rows:
                told.setdefault((section, key), (was, now))
                if not others or section in NOBODYS:
                    self._ask("put_back", section, key, was, now)
            rows = differences(self.first, self._look(sections))
        left = {row[:2] for row in rows}
        lines = []
        for (section, key), (was, now) in told.items():
            back = "NOT put back" if (section, key) in left else "put back"
            lines.append(f"{who}: {section}: {key}: was {was!r}, is {now!r}: {back}")
        if others:
            lines.append(f"    at work at the same time, and maybe the cause: {'; '.join(others)}")
        self.failed = self.failed or strict or not others
        self.found += lines
        if left:  # told once
            self.first.update(self._look(sections))
        return lines

    def close(self) -> None:
        """End the witness."""
        assert self.child.stdin and self.child.stdout
        self.child.stdin.close()
        self.child.stdout.read()
        self.child.stdout.close()
        self.register.close()


class Register:
    """The runs on this machine: a file for each, locked as long as it lives."""

    counter = 0

    def __init__(self, who: str) -> None:
        self.directory = os.path.join(tempfile.gettempdir(), f"anocir-runs-{os.getuid()}")
        os.makedirs(self.directory, 0o700, exist_ok=True)
        self.seen = self._others()
        Register.counter += 1
        self.path = os.path.join(self.directory, f"{os.getpid()}-{Register.counter}")
        self.file = open(self.path, "w")
        fcntl.flock(self.file, fcntl.LOCK_EX)
        self.file.write(f"{who} (pid {os.getpid()} in {os.getcwd()})")
        self.file.flush()
        self.changed = os.stat(self.directory).st_mtime_ns

    def _others(self) -> list[str]:
        found = []
        for name in os.listdir(self.directory):
            path = os.path.join(self.directory, name)
            if name.startswith(f"{os.getpid()}-"):
                continue
            with contextlib.suppress(OSError), open(path, "r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(path)  # it was killed
                except BlockingIOError:
                    found.append(file.read())
        return found

    def others(self) -> list[str]:
        """The other runs that are at work now, or have been since the last question."""
        seen, self.seen = self.seen, self._others()
        found = [*seen, *(text for text in self.seen if text not in seen)]
        changed = os.stat(self.directory).st_mtime_ns
        if changed != self.changed and not found:
            found = ["a run that has begun and ended meanwhile"]
        self.changed = changed
        return found

    def close(self) -> None:
        """Take our file away."""
        with contextlib.suppress(OSError):
            os.unlink(self.path)
        self.file.close()


BLAME: list[str] = []
"""The runtimes of ours that left something changed in a program that uses `around`: it has to fail."""


@contextlib.contextmanager
def around(work: str, runtime: str) -> Iterator[None]:
    """Guard what a measuring program does with one runtime: put back, tell on stderr, remember if it is ours."""
    guard = Guard(f"{work} of {runtime}")
    try:
        yield
    finally:
        for line in [*guard.found, *guard.check(f"{work} of {runtime}")]:
            print(f"the host is not as it was: {line}", file=sys.stderr)
        guard.close()
        if guard.failed and runtime.startswith("anocir"):
            BLAME.append(runtime)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
