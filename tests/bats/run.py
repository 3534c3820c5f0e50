#!/usr/bin/python3
"""Run runc's own integration tests with this runtime and compare with the expected table.

usage: run.py --suite DIR [options] [NAME=]RUNTIME...

DIR is a checkout of runc with its helpers built (`make test-binaries` there); bats, jq, gawk and a static busybox are
needed. Images that the suite would download are made here, unless they are in its testdata: busybox with hard-linked
applets, and this machine's own programs for the one with a C library.

Each file runs in a mount namespace of its own, with a controlling terminal and a limit for each test; a test that fails is
tried again alone. The suite leaves its checkpoint tests out where there is no criu that works; one that tests/prepare.sh
has put below build/criu is taken.
"""

from __future__ import annotations

import glob
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests import machine, suites  # noqa: E402
from tests.reliability.ground import Progress, hierarchies, static_busybox  # noqa: E402
from tests.suites import Outcome  # noqa: E402

TOOLS = ("bats", "jq", "gawk", "unshare")
# what the names in the suite's get-images.sh are made of
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
# programs of this machine for the image that has a C library
PROGRAMS = (
    "bash cat chmod chrt cp echo env findmnt grep head id ionice ldconfig ln ls mkdir mount nice rm sed sleep sort stat"
    " tail tee touch true false umount"
).split()
USERS = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
GROUPS = "root:x:0:\ndaemon:x:1:\ntty:x:5:\nnobody:x:65534:\n"
CGROUPS = ("runc-cgroups-integration-test",)


def _directory(archive: tarfile.TarFile, name: str, mode: int = 0o755) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = tarfile.DIRTYPE
    entry.mode = mode
    archive.addfile(entry)


def _text(archive: tarfile.TarFile, name: str, text: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(text.encode())
    entry.mode = 0o644
    archive.addfile(entry, io.BytesIO(text.encode()))


def _link(archive: tarfile.TarFile, name: str, target: str, kind: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = target
    entry.mode = 0o755
    archive.addfile(entry)


def _ground(archive: tarfile.TarFile) -> None:
    for name in ("dev", "etc", "home", "proc", "root", "sys", "usr", "usr/sbin", "var"):
        _directory(archive, name, 0o700 if name == "root" else 0o755)
    _directory(archive, "tmp", 0o1777)
    _text(archive, "etc/passwd", USERS)
    _text(archive, "etc/group", GROUPS)


def make_busybox(path: str) -> None:
    """An image of busybox alone, each applet a hard link as in the image that the suite downloads."""
    busybox = static_busybox()
    done = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    with tarfile.open(path, "w:gz") as archive:
        _ground(archive)
        _directory(archive, "bin")
        archive.add(busybox, "bin/busybox")
        for applet in done.stdout.split():
            if applet != "busybox":
                _link(archive, f"bin/{applet}", "bin/busybox", tarfile.LNKTYPE)


def make_debian(path: str) -> None:
    """An image of this machine's own programs with their libraries, for tests that need a C library."""
    with tarfile.open(path, "w:gz") as archive:
        _ground(archive)
        for name in ("usr/bin", "usr/lib", "usr/lib64", "etc/ld.so.conf.d"):
            _directory(archive, name)
        for name in ("bin", "sbin", "lib", "lib64"):
            _link(archive, name, f"usr/{'bin' if name == 'sbin' else name}", tarfile.SYMTYPE)
        needed: set[str] = set()
        for name in PROGRAMS:
            program = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
            if not program:
                raise SystemExit(f"{name}: needed for the image with a C library")
            archive.add(os.path.realpath(program), f"usr/bin/{name}")
            listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=False)
            needed.update(re.findall(r"(/\S+) \(0x", listed.stdout))
        _link(archive, "usr/bin/sh", "bash", tarfile.SYMTYPE)
        for library in sorted(needed):
            inside = library.lstrip("/")
            inside = inside if inside.startswith("usr/") else f"usr/{inside}"
            archive.add(os.path.realpath(library), inside)
        folders = sorted({os.path.dirname(library) for library in needed})
        _text(archive, "etc/ld.so.conf", "".join(f"{folder}\n" for folder in folders))


def prepare(suite: str, scratch: str) -> dict[str, str]:
    """Check the checkout and make what the suite would download; returns the environment for bats."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        raise SystemExit(f"needed: {', '.join(missing)} (Debian: apt install {' '.join(missing)})")
    if not os.path.isdir(os.path.join(suite, "tests/integration")):
        raise SystemExit(f"{suite}: no checkout of runc (tests/integration is missing)")
    if not os.path.exists(os.path.join(suite, "tests/cmd/_bin/recvtty")):
        raise SystemExit(f"{suite}: not built: run `make test-binaries` there")
    architecture = ARCHITECTURES.get(platform.machine())
    if not architecture:
        raise SystemExit(f"{platform.machine()}: no images can be made for this machine")
    data = os.path.join(suite, "tests/integration/testdata")
    for name, make in (("busybox", make_busybox), ("debian", make_debian)):
        image = os.path.join(data, f"{name}-{architecture}.tar.xz")
        if not os.path.exists(image):
            make(image + ".new")
            os.rename(image + ".new", image)
    # the suite asks `go env GOARCH` for the names of its images; nothing else of go is needed
    tools = os.path.join(scratch, "tools")
    os.mkdir(tools)
    with open(os.path.join(tools, "go"), "w", encoding="utf-8") as stream:
        stream.write(f"#!/bin/sh\necho {architecture}\n")
    os.chmod(os.path.join(tools, "go"), 0o755)
    environment = dict(os.environ, PATH=f"{tools}:{os.environ['PATH']}", TERM="xterm")
    for name in (
        "NOTIFY_SOCKET",
        "LISTEN_FDS",
        "LISTEN_PID",
        "RUNC_USE_SYSTEMD",
        "ROOTLESS_FEATURES",
    ):
        environment.pop(name, None)
    return environment


def titles(path: str) -> list[str]:
    """The names of the tests in a file, in order."""
    with open(path, encoding="utf-8") as stream:
        found = re.findall(r'^@test (["\'])(.+?)\1 \{', stream.read(), re.MULTILINE)
    return [re.sub(r'\\(["$`\\])', r"\1", name).strip() for _, name in found]


def read_tap(text: str) -> dict[str, tuple[str, str]]:
    """(word, remark) of each test that a TAP stream tells of."""
    found: dict[str, tuple[str, str]] = {}
    name = ""
    for line in text.splitlines():
        told = re.match(
            r"(not )?ok \d+ (.*?)(?: in \d+(?:ms|sec))?(?: # (skip|timeout)\b ?(.*))?$", line
        )
        if told:
            name = told.group(2).strip()
            word = "fail" if told.group(1) else "skip" if told.group(3) == "skip" else "ok"
            remark = told.group(4) or ""
            found[name] = (word, f"no end: {remark}" if told.group(3) == "timeout" else remark)
        elif name and line.startswith("#   `") and found[name][0] == "fail" and not found[name][1]:
            found[name] = ("fail", line[4:].strip())
    return found


class Bats:
    """One runtime's run through the suite."""

    def __init__(
        self, suite: str, word: str, scratch: str, environment: dict[str, str], limit: float
    ) -> None:
        self.suite = suite
        self.scratch = scratch
        self.limit = limit
        # not BATS_TEST_TIMEOUT: its countdown outlives each test, and bats 1.8 waits for it
        self.environment = dict(environment, RUNC=word, TMPDIR=os.path.join(scratch, "tmp"))

    def run(self, name: str, only: str = "") -> tuple[dict[str, tuple[str, str]], str]:
        """Run a file, or one test of it; returns what each test gave and all that was printed."""
        temporary = os.path.join(self.scratch, "tmp")
        os.mkdir(temporary)
        # tests in a user namespace reach their bundle as another user
        os.chmod(temporary, 0o755)
        argv = ["bats", "--tap", "--timing"]
        # bats looks for an extended regular expression in the name
        pattern = re.sub(r"([.\[\]()*+?{}^$|\\])", r"\\\1", only)
        argv += ["--filter", f"^{pattern} *$"] if only else []
        path = os.path.join(self.suite, "tests/integration", name)
        ended = suites.run_with_terminal(
            [*argv, path], self.suite, self.environment, self.scratch, self.limit
        )
        # what a test that had to be ended left would spoil those of the same name after it
        for root in glob.glob(os.path.join(temporary, "bats-run-*/runc.*/state")):
            for left in os.listdir(root):
                command = [self.environment["RUNC"], "--root", root, "delete", "--force", left]
                subprocess.run(command, capture_output=True, timeout=60, check=False)
        suites.remove_cgroups(*CGROUPS)
        suites.remove(temporary)
        return read_tap(ended.out), ended.out + ended.err

    def file(self, name: str, retries: int, keep: str) -> dict[str, Outcome]:
        """Every test of a file; what failed is tried again alone."""
        path = os.path.join(self.suite, "tests/integration", name)
        told, printed = self.run(name)
        outcomes = {}
        for title in titles(path):
            word, remark = told.get(title, ("fail", "no result"))
            tries = 0
            text = printed
            while word == "fail" and tries < retries:
                tries += 1
                again, text = self.run(name, title)
                word, remark = again.get(title, ("fail", "no result"))
            if word == "fail" and keep:
                suites.keep_output(keep, f"{name}-{title}", text)
            outcomes[f"{name}: {title}"] = Outcome(word, 0.0, remark)
        return outcomes


def machine_facts() -> set[str]:
    """What the conditions of expected.md ask of the machine."""
    names = {name for name, _ in hierarchies()}
    facts = {"cgroup v2" if names == {"unified"} else "cgroup v1"}
    for fact, script in (
        ("no dummy links", "ip link add anocir0 type dummy"),
        ("no CAP_SYS_RESOURCE", "prlimit --core=0:1 -p $$ && prlimit --core=0:2 -p $$"),
    ):
        command = ["unshare", "-n", "sh", "-c", f"{script} 2>/dev/null"]
        if subprocess.run(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
        ).returncode:
            facts.add(fact)
    if machine.GATES["lazy-pages"]():
        facts.add("no lazy pages")
    if "hugetlb" not in names and "cgroup v1" in facts:
        facts.add("no hugetlb hierarchy")
    return facts


def main(arguments: Sequence[str]) -> int:
    """Run everything; 0 if each column of anocir is as expected."""
    options = suites.parser_for("run runc's integration tests").parse_args(arguments)
    rows = suites.read_expected(os.path.join(HERE, "expected.md"))
    suite = os.path.abspath(options.suite)
    runtimes = suites.runtimes_of(options)
    machine.use_criu()
    scratch = tempfile.mkdtemp(prefix="anocir-bats-")
    os.chmod(scratch, 0o755)
    suites.become_subreaper()
    columns: dict[str, dict[str, Outcome]] = {runtime.name: {} for runtime in runtimes}
    try:
        environment = prepare(suite, scratch)
        found = sorted(os.listdir(os.path.join(suite, "tests/integration")))
        names = suites.chosen([name for name in found if name.endswith(".bats")], options.only)
        progress = Progress("bats", len(names) * len(runtimes))
        with suites.alone(suite):
            for runtime in runtimes:
                with suites.as_one_word(runtime, scratch) as word:
                    bats = Bats(suite, word, scratch, environment, options.timeout)
                    for name in names:
                        progress.step(f"{runtime.name} {name}")
                        keep = os.path.join(options.keep, runtime.name) if options.keep else ""
                        columns[runtime.name].update(bats.file(name, options.retries, keep))
        progress.end()
    finally:
        suites.remove(scratch)
    return suites.report(
        "runc's integration tests",
        options,
        runtimes,
        columns,
        rows,
        machine_facts(),
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
