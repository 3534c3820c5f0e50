#!/usr/bin/python3
"""What the time of one `create` goes into: both processes on one clock, the median of many rounds.

usage: timeline.py [--rounds N] [--systemd] [ARCHIVE]

With --systemd the container is a unit of a systemd that boots for it (tests/systemd/boot.sh).
Each stage begins where the one before it ended.  The two sides run at the same time, so their columns
do not add up: what counts is when each one waits for the other.  The clock of a side is read where the
functions that its stages end with return: they are wrapped in a copy of the archive's first text, which
adds about 0.2 ms in all.  Prints a markdown table.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, TOP)

from tests.systemd import boot  # noqa: E402
from tests.reliability.ground import PYTHON, static_busybox  # noqa: E402

ROUNDS = 40

# The start of either interpreter: read the clock, then the archive's own text but for its last line.
_BEGIN = """
import time
MARKS = [("the interpreter boots", time.perf_counter())]
def mark(name):
    MARKS.append((name, time.perf_counter()))
def after(owner, name, stage, before=""):
    inner = getattr(owner, name)
    def call(*args, **more):
        if before:
            mark(before)
        result = inner(*args, **more)
        if stage:
            mark(stage)
        return result
    setattr(owner, name, call)
import sys, marshal
"""

INIT = (
    'entry="anocir.inside.init"'
    + _BEGIN
    + """
f = open(sys.argv.pop(1), "rb"); f.readline()
exec(marshal.load(f).replace("m.main()", ""))
mark("init's modules are imported")
import posix
from anocir.inside import init
OUT = 0
def opened(first, *kept, inner=init._close_foreign):
    global OUT
    inner(first, *kept)
    import fcntl
    fd = posix.open(@OUT@, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
    OUT = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 900)
    posix.close(fd)
init._close_foreign = opened
after(init, "_import_rest", "", "waits for the plan")
def execute(context, phase, inner=init._execute):
    inner(context, phase)
    if phase not in ("prepare", "setup"):
        return
    mark({"prepare": "namespaces", "setup": "root file system, mounts, devices"}[phase])
    if phase == "setup":  # what comes then closes descriptors
        posix.write(OUT, repr(MARKS).encode())
init._execute = execute
after(init, "_cgroup_frame", "waits for the cgroups")
after(init, "_clone_into", "clone of init")
after(init, "_clone", "clone of init")
after(init, "_settle", "in its cgroups")
m.main()
"""
)

HOST = (
    _BEGIN
    + """
import posix
f = open(sys.argv[1], "rb"); f.readline()
text = marshal.load(f)
def spawned(path, argv, *rest, inner=posix.posix_spawn, **more):
    mark("modules, seal")
    argv = list(argv)
    argv[argv.index(b"-c") + 1] = @INIT@.encode()
    pid = inner(path, argv, *rest, **more)
    mark("spawn of init (vfork until its execve)")
    return pid
posix.posix_spawn = spawned
exec(text.replace("m.main()", ""))
from anocir.host import boot, launch
def hooked(import_path, inner=boot.early):
    inner(import_path)
    from anocir.host import create, network
    from anocir.model import plan
    from anocir.model.spec import whole
    mark("modules")
    after(whole, "check", "config.json: read and checked")
    after(create, "checked", "facts for the plan")
    after(plan, "compile_create", "plan")
    after(create, "_record", "state directory")
    after(launch, "hand_over", "plan sent")
    after(create, "_prepare", "cgroups are made")
    after(network, "make", "network namespace")
    after(launch.Init, "adopt", "", "waits for the pid")
    after(launch, "adjust", "state with the pid; systemd has its unit")
    def expect(self, wanted, waiting, inner=launch.Init.expect):
        payload = inner(self, wanted, waiting)
        if waiting == "setting up the container":
            mark("waits for init's set-up")
        return payload
    launch.Init.expect = expect
boot.early = hooked
def leave(status, inner=posix._exit):
    mark("state, commit")
    fd = posix.open(@OUT@, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC, 0o600)
    posix.write(fd, repr(MARKS).encode())
    inner(status)
posix._exit = leave
m.main()
"""
)


def measure(
    archive: str, rounds: int, flags: Sequence[str] = ()
) -> dict[str, list[tuple[str, float, float]]]:
    """By side: rows of stage, median length and median end, in seconds from the start of the command."""
    with tempfile.TemporaryDirectory(prefix="anocir-timeline-") as work:
        rootfs = os.path.join(work, "rootfs")
        os.makedirs(os.path.join(rootfs, "bin"))
        shutil.copy(static_busybox(), os.path.join(rootfs, "bin", "sh"))
        subprocess.run([archive, "spec", "--bundle", work], check=True)
        path = os.path.join(work, "config.json")
        with open(path, encoding="utf-8") as stream:
            config = json.load(stream)
        config["process"]["terminal"] = False
        config["root"]["readonly"] = False
        with open(path, "w", encoding="utf-8") as stream:
            json.dump(config, stream)
        outs = {side: os.path.join(work, side) for side in ("host", "init")}
        root = os.path.join(work, "state")
        container = f"timeline-{os.getpid()}"
        flags = ["--root", root, *flags]
        init = INIT.replace("@OUT@", repr(outs["init"]))
        host = HOST.replace("@OUT@", repr(outs["host"])).replace("@INIT@", repr(init))
        samples: dict[str, dict[str, list[tuple[float, float]]]] = {"host": {}, "init": {}}
        for number in range(rounds + 1):
            for out in outs.values():
                if os.path.exists(out):
                    os.unlink(out)
            command = [
                PYTHON,
                "-IBSc",
                host,
                archive,
                *flags,
                "create",
                "--bundle",
                work,
                container,
            ]
            begin = time.perf_counter()
            subprocess.run(command, stdin=subprocess.DEVNULL, check=True)
            end = time.perf_counter()
            subprocess.run([archive, "--root", root, "delete", "--force", container], check=True)
            if number == 0:
                continue  # warms up
            for side, out in outs.items():
                with open(out, encoding="utf-8") as stream:
                    marks = ast.literal_eval(stream.read())
                if side == "host":
                    marks.append(("exit", end))
                    last = begin
                    spawn = dict(marks)["spawn of init (vfork until its execve)"]
                else:
                    last = spawn
                for name, at in marks:
                    row = samples[side].setdefault(name, [])
                    row.append((at - last, at - begin))
                    last = at
    return {
        side: [
            (
                name,
                statistics.median(length for length, _ in row),
                statistics.median(at for _, at in row),
            )
            for name, row in rows.items()
        ]
        for side, rows in samples.items()
    }


def main() -> int:
    """See the module's text."""
    parser = argparse.ArgumentParser(description="what the time of one create goes into")
    parser.add_argument("archive", nargs="?", default=os.path.join(TOP, "dist", "anocir"))
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"counted rounds ({ROUNDS})")
    parser.add_argument("--systemd", action="store_true", help="as a unit of a systemd that boots")
    parser.add_argument("--option", action="append", default=[], help=argparse.SUPPRESS)
    options = parser.parse_args()
    archive = os.path.abspath(options.archive)
    if options.systemd:
        within = (sys.executable, os.path.abspath(__file__), "--rounds", str(options.rounds))
        words = (*within, "--option=--systemd-cgroup", archive)
        done = boot.boot("--bind", os.path.dirname(archive), command=words, timeout=3600)
        print(done.stdout, end="")
        return done.returncode
    found = measure(archive, options.rounds, options.option)
    for side, title in (("host", "host side"), ("init", "init")):
        print(f"| {title} | ms | ends at |\n|---|---:|---:|")
        for name, length, at in found[side]:
            print(f"| {name} | {length * 1000:.2f} | {at * 1000:.2f} |")
        print()
    return 0


if __name__ == "__main__":
    sys.exit(main())
