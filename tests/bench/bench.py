#!/usr/bin/python3
"""Measure runtimes side by side: time, processor time, memory, and how cost grows.

usage: bench.py [options] [NAME=]RUNTIME...

All runtimes take turns within each round, so what else the machine does hits them alike; the order rotates. One
round warms up and is not counted. A time is what passes between posix_spawn(3) of the command and wait4(2) returning;
processor time is user plus system time from the same wait4, children included, and for the whole lifecycle that of
the container's init as well, which becomes our child (we are a subreaper). `floor` is `python3 -IS -c
'import posix; posix._exit(0)'`, the price of having an interpreter at all.

Steps (--steps): life systemd pythons list docker-config parallel growth seccomp memory limits cold size; and only when
named, since they need daemons or images: docker podman. systemd is left out where none can be booted, pythons where
there is one Python alone. --quick leaves out what grows, and counts 5 rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import ctypes.util
import datetime
import glob
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any, Callable

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, TOP)

from anocir.base import archive as head  # noqa: E402
from tests.bench.plot import bars  # noqa: E402
from tests.host import around  # noqa: E402
from tests.reliability.ground import (  # noqa: E402
    PYTHON,
    Config,
    Ground,
    Progress,
    Result,
    Runtime,
    is_cgroup2,
    static_busybox,
)

FLOOR = "python3 -IS"
# Without the finalisation of the interpreter, 2 ms that no command pays.
FLOOR_CODE = "import posix; posix._exit(0)"
LIFE = ("create", "start", "state", "exec", "kill", "delete")
DEFAULT_STEPS = (
    "systemd",
    "life",
    "pythons",
    "docker-config",
    "parallel",
    "list",
    "growth",
    "seccomp",
    "memory",
    "limits",
    "cold",
    "size",
)
QUICK_STEPS = ("systemd", "life", "pythons", "docker-config", "parallel", "memory", "size")
QUICK_ROUNDS = 5
OPTIONAL_STEPS = ("docker", "podman")
# What `systemd` runs under the systemd that it boots.
INSIDE = "under-systemd"
UNDER = "systemd: "
AT_ONCE = 50
# The same archive under another Python, and one that this Python has built.
THE_SAME, ITS_OWN = "archive", "built by it"
KIB, MIB = 1024, 1024 * 1024

# Each line of the budget: row, other (a runtime, the floor or a figure), largest ratio allowed.
BUDGET = (
    ("create", "runc", 1.05),
    ("run", "runc", 0.95),
    ("exec", "runc", 1.0),
    *((row, FLOOR, 1.2) for row in ("state", "start", "kill", "delete")),
    ("lifecycle", "runc", 1.25),
    ("run, Docker's config", "runc", 0.65),
    (UNDER + "create", "runc", 1.15),
    (UNDER + "exec", "runc", 1.0),
    (UNDER + "delete", "runc", 1.6),
    (UNDER + "lifecycle", "runc", 1.3),
)


class Bench:
    """One run of the bench: the ground it stands on, and rows of samples by runtime."""

    __slots__ = ("counter", "facts", "ground", "progress", "rows", "rounds")

    def __init__(self, ground: Ground, rounds: int, progress: Progress) -> None:
        self.ground = ground
        self.rounds = rounds
        self.progress = progress
        # row -> runtime -> [(seconds, processor seconds)]
        self.rows: dict[str, dict[str, list[tuple[float, float]]]] = {}
        # row -> runtime -> figure that is no time
        self.facts: dict[str, dict[str, Any]] = {}
        self.counter = 0

    def add(self, row: str, runtime: str, wall: float, cpu: float) -> None:
        """Keep one sample."""
        self.rows.setdefault(row, {}).setdefault(runtime, []).append((wall, cpu))

    def fact(self, row: str, runtime: str, figure: Any) -> None:
        """Keep a figure that is no time."""
        self.facts.setdefault(row, {})[runtime] = figure

    def fresh_id(self) -> str:
        """A container id not used before."""
        self.counter += 1
        return f"c{self.counter}"

    def turns(self, what: str, rounds: int) -> Iterator[tuple[bool, Runtime]]:
        """(counted, runtime): every runtime once a round, the order rotating, the first round not counted."""
        runtimes = self.ground.runtimes
        for number in range(rounds + 1):
            shift = number % len(runtimes)
            for runtime in runtimes[shift:] + runtimes[:shift]:
                self.progress.step(f"{what}, round {number}/{rounds}, {runtime.name}")
                yield number > 0, runtime

    def must(self, runtime: Runtime, *words: str) -> Result:
        """A timed command that has to succeed."""
        result = self.ground.timed(runtime, *words)
        if result.status != 0:
            raise SystemExit(
                f"\n{runtime.name} {' '.join(words)}: status {result.status}: {result.err.strip()[-500:]}"
            )
        return result

    def time_run(self, row: str, bundles: str, rounds: int) -> None:
        """Rounds of `run` of a bundle in the foreground."""
        for counted, runtime in self.turns(row, rounds):
            result = self.must(runtime, "run", "--bundle", bundles, self.fresh_id())
            if counted:
                self.add(row, runtime.name, result.wall, result.cpu)


# ---------------------------------------------------------------------- steps


def step_life(bench: Bench) -> None:
    """run, then create start state exec kill delete of one container, and the floor, in each round."""
    ground = bench.ground
    run_bundle = ground.bundle("run")
    life_bundle = ground.bundle("life", ("/bin/sleep", "1000"))
    for counted, runtime in bench.turns("life", bench.rounds):
        if runtime is ground.runtimes[0]:
            floor = ground.timed_argv(
                (PYTHON, "-IS", "-c", FLOOR_CODE), os.path.join(ground.dir, "out")
            )
            if counted:
                bench.add(FLOOR, FLOOR, floor.wall, floor.cpu)
        result = bench.must(runtime, "run", "--bundle", run_bundle, bench.fresh_id())
        if counted:
            bench.add("run", runtime.name, result.wall, result.cpu)
        samples = one_life(bench, runtime, life_bundle)
        if counted:
            for row, (wall, cpu) in samples.items():
                bench.add(row, runtime.name, wall, cpu)


def one_life(bench: Bench, runtime: Runtime, bundle: str) -> dict[str, tuple[float, float]]:
    """Samples of one container's life; `lifecycle` is the sum and includes init's processor time."""
    container = bench.fresh_id()
    pid_file = os.path.join(bench.ground.dir, "pid")
    bench.ground.reap()
    words = {
        "create": ("create", "--bundle", bundle, "--pid-file", pid_file, container),
        "start": ("start", container),
        "state": ("state", container),
        "exec": ("exec", container, "/bin/true"),
        "kill": ("kill", container, "KILL"),
        "delete": ("delete", container),
    }
    samples = {}
    total = spent = 0.0
    for row in LIFE:
        result = bench.must(runtime, *words[row])
        samples[row] = (result.wall, result.cpu)
        total += result.wall
        spent += result.cpu
        if row == "kill":
            with open(pid_file, encoding="utf-8") as stream:
                bench.ground.wait_gone(int(stream.read()))
    samples["lifecycle"] = (total, spent + bench.ground.reap())
    return samples


def step_systemd(bench: Bench) -> None:
    """The life of containers that are units of systemd, and 50 at once: in a systemd that boots for it."""
    from tests.systemd import boot

    lacking = boot.lacking()
    if lacking:
        print(f"\nsystemd is left out: this machine has not {lacking}", file=sys.stderr)
        return
    bench.progress.step("under systemd")
    with tempfile.TemporaryDirectory(prefix="anocir-bench-") as shared:
        samples = os.path.join(shared, "samples.json")
        options = ["--bind", shared]
        words = []
        for runtime in bench.ground.runtimes:
            words.append(f"{runtime.name}={' '.join(runtime.argv)} --systemd-cgroup")
            place = os.path.dirname(runtime.argv[0])
            if place.startswith("/tmp/"):  # there systemd has a new one
                options += ["--bind", place]
        command = (
            sys.executable,
            os.path.abspath(__file__),
            "--steps",
            INSIDE,
            "--samples",
            samples,
        )
        count = ("--rounds", str(bench.rounds))
        done = boot.boot(*options, command=(*command, *count, *words), timeout=3600)
        if done.returncode != 0:
            raise SystemExit(f"\nunder systemd: {done.stdout[-2000:]}")
        with open(samples, encoding="utf-8") as stream:
            for row, by_name in json.load(stream).items():
                bench.rows[row] = {
                    name: [(w, c) for w, c in each] for name, each in by_name.items()
                }


def step_under_systemd(bench: Bench) -> None:
    """The steps of `systemd`, by runtimes that have its option."""
    ground = bench.ground

    def unit(name: str) -> Callable[[Config], None]:
        def change(config: Config) -> None:
            config["linux"]["cgroupsPath"] = f"system.slice:bench:{name}"

        return change

    bundle = ground.bundle("life", ("/bin/sleep", "1000"), unit("life"))
    for counted, runtime in bench.turns("life", bench.rounds):
        samples = one_life(bench, runtime, bundle)
        if counted:
            for row, (wall, cpu) in samples.items():
                bench.add(UNDER + row, runtime.name, wall, cpu)
    names = [f"p{number}" for number in range(AT_ONCE)]
    bundles = [ground.bundle(name, ("/bin/sleep", "1000"), unit(name)) for name in names]
    for counted, runtime in bench.turns("at once", min(bench.rounds, 5)):
        for verb in ("create", "delete"):
            began = time.perf_counter()
            pids = [
                ground.spawn(
                    runtime,
                    ("create", "--bundle", path, name)
                    if verb == "create"
                    else ("delete", "--force", name),
                )
                for path, name in zip(bundles, names)
            ]
            ends = [ground.wait(pid, 300) for pid in pids]
            wall = time.perf_counter() - began
            if any(status for status, _ in ends):
                raise SystemExit(f"\n{runtime.name}: {verb} of {AT_ONCE} at once: {ends}")
            if counted:
                cpu = sum(cpu for _, cpu in ends)
                bench.add(f"{UNDER}{AT_ONCE} {verb}s at once", runtime.name, wall, cpu)
        ground.reap()


def step_pythons(bench: Bench) -> None:
    """state and run by the archive under each other Python that it is compiled for, and by that Python's own build."""
    ground = bench.ground
    archive = ground.runtimes[0].argv[0]
    sides = {}
    with tempfile.TemporaryDirectory(prefix="anocir-bench-") as directory:
        for version, python in other_pythons(archive).items():
            bench.progress.step(f"building by {version}")
            same, own = (os.path.join(directory, f"{kind}-{version}") for kind in ("same", "own"))
            found = head.parse(read(archive))
            found.line = found.line.replace(PYTHON.encode(), python.encode(), 1)
            write_program(same, found.pack())
            command = (PYTHON, os.path.join(TOP, "build.py"), "--python", python, "--output", own)
            built = subprocess.run(command, capture_output=True, text=True, check=False)
            if built.returncode != 0:
                raise SystemExit(f"\nbuild.py --python {python}: {built.stderr[-1000:]}")
            sides[version] = {THE_SAME: Runtime(f"same={same}"), ITS_OWN: Runtime(f"own={own}")}
        run_bundle = ground.bundle("pythons-run")
        life_bundle = ground.bundle("pythons-life", ("/bin/sleep", "1000"))
        for version, pair in sides.items():
            for number in range(bench.rounds + 1):
                for name, runtime in sorted(pair.items(), reverse=bool(number % 2)):
                    bench.progress.step(f"Python {version}, round {number}/{bench.rounds}, {name}")
                    ran = bench.must(runtime, "run", "--bundle", run_bundle, bench.fresh_id())
                    container = bench.fresh_id()
                    bench.must(runtime, "create", "--bundle", life_bundle, container)
                    state = bench.must(runtime, "state", container)
                    bench.must(runtime, "delete", "--force", container)
                    ground.reap()
                    if number:
                        for what, result in (("state", state), ("run", ran)):
                            bench.add(f"{what}, Python {version}", name, result.wall, result.cpu)


def other_pythons(archive: str) -> dict[str, str]:
    """The interpreters of this machine, but for the usual one, for which the archive has a block."""
    known = head.parse(read(archive)).versions()
    code = "import sys, importlib.util as u; sys.stdout.buffer.write(u.MAGIC_NUMBER)"
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    paths = glob.glob("/usr/bin/python3.*") + glob.glob("/usr/local/bin/python3.*")
    paths = [path for path in paths if path.rpartition(".")[2].isdigit()]
    found = {}
    seen = set()
    for path in [PYTHON, *sorted(paths), *sorted(glob.glob(f"{root}/versions/*/bin/python3"))]:
        asked = subprocess.run((path, "-IS", "-c", code), capture_output=True, check=False)
        magic = asked.stdout
        if magic in known and magic not in seen and path != PYTHON:
            found[known[magic].rpartition(".")[0]] = path
        seen.add(magic)
    return dict(sorted(found.items(), key=lambda row: int(row[0].partition(".")[2])))


def read(path: str) -> bytes:
    """What a file holds."""
    with open(path, "rb") as stream:
        return stream.read()


def write_program(path: str, data: bytes) -> None:
    """Write an executable file."""
    with open(path, "wb") as stream:
        stream.write(data)
    os.chmod(path, 0o755)


def step_docker_config(bench: Bench) -> None:
    """run with the configuration that Docker gives a plain container, seccomp profile included."""
    bundle = bench.ground.bundle("docker", change=docker_config)
    bench.time_run("run, Docker's config", bundle, bench.rounds)


def step_parallel(bench: Bench) -> None:
    """100 creates at once."""
    ground = bench.ground
    bundles = [ground.bundle(f"p{number}", ("/bin/sleep", "1000")) for number in range(100)]
    for counted, runtime in bench.turns("100 creates at once", min(bench.rounds, 5)):
        began = time.perf_counter()
        pids = [
            ground.spawn(runtime, ("create", "--bundle", bundle, os.path.basename(bundle)))
            for bundle in bundles
        ]
        ends = [ground.wait(pid, 120) for pid in pids]
        wall = time.perf_counter() - began
        failed = sum(status != 0 for status, _ in ends)
        if failed:
            bench.fact("failed of 100 creates at once", runtime.name, failed)
        began = time.perf_counter()
        pids = [ground.spawn(runtime, ("delete", "--force", os.path.basename(b))) for b in bundles]
        gone = [ground.wait(pid, 120) for pid in pids]
        gone_wall = time.perf_counter() - began
        cpu = sum(cpu for _, cpu in ends) + ground.reap()
        if counted:
            bench.add("100 creates at once", runtime.name, wall, cpu)
            bench.add("100 deletes at once", runtime.name, gone_wall, sum(cpu for _, cpu in gone))
    for bundle in bundles:
        ground.drop_bundle(bundle)


def step_list(bench: Bench, counts: Sequence[int] = (1, 100, 1000)) -> None:
    """list, and state of one, among 1, 100 and 1000 created containers."""
    ground = bench.ground
    made: dict[str, int] = {runtime.name: 0 for runtime in ground.runtimes}
    for count in counts:
        for runtime in ground.runtimes:
            bench.progress.step(f"making {count} containers, {runtime.name}")
            while made[runtime.name] < count:
                batch: list[int] = []
                while len(batch) < 4 and made[runtime.name] < count:
                    made[runtime.name] += 1
                    name = f"list-{runtime.name}-{made[runtime.name]}"
                    bundle = ground.bundle(name, ("/bin/true",))
                    batch.append(ground.spawn(runtime, ("create", "--bundle", bundle, name)))
                for pid in batch:
                    status, _ = ground.wait(pid, 120)
                    if status:
                        raise SystemExit(
                            f"\n{runtime.name}: create of container {name} gave {status}"
                        )
        for counted, runtime in bench.turns(f"list of {count}", min(bench.rounds, 10)):
            result = bench.must(runtime, "list")
            one = bench.must(runtime, "state", f"list-{runtime.name}-1")
            if counted:
                bench.add(f"list of {count}", runtime.name, result.wall, result.cpu)
                if count > 1:
                    bench.add(f"state among {count}", runtime.name, one.wall, one.cpu)
    for runtime in ground.runtimes:
        bench.progress.step(f"removing containers, {runtime.name}")
        for first in range(1, made[runtime.name] + 1, 4):
            last = min(first + 4, made[runtime.name] + 1)
            names = [f"list-{runtime.name}-{number}" for number in range(first, last)]
            pids = [ground.spawn(runtime, ("delete", "--force", name)) for name in names]
            for pid in pids:
                ground.wait(pid, 120)
            ground.reap()


def step_growth(bench: Bench) -> None:
    """run with more mounts, environment, arguments."""
    rounds = min(bench.rounds, 5)
    source = os.path.join(bench.ground.dir, "source")
    os.makedirs(source, exist_ok=True)
    for count in (10, 100, 500):

        def more_mounts(config: Config, count: int = count) -> None:
            config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"})
            config["mounts"] += [
                {
                    "destination": f"/tmp/{number}",
                    "type": "bind",
                    "source": source,
                    "options": ["rbind", "ro"],
                }
                for number in range(count)
            ]

        bundle = bench.ground.bundle(f"mounts-{count}", change=more_mounts)
        bench.time_run(f"run, {count} more mounts", bundle, rounds)
    for size in (16 * KIB, 128 * KIB, MIB):
        # one string is at most 128 KiB (execve(2), MAX_ARG_STRLEN), so many of 4 KiB
        texts = [f"V{number}=" + "x" * (4 * KIB - 8) for number in range(size // (4 * KIB))]

        def more_env(config: Config, texts: list[str] = texts) -> None:
            config["process"]["env"] += texts

        def more_args(config: Config, texts: list[str] = texts) -> None:
            config["process"]["args"] += texts

        for what, change in (("environment", more_env), ("arguments", more_args)):
            bundle = bench.ground.bundle(f"{what}-{size}", change=change)
            bench.time_run(f"run, {size // KIB} KiB {what}", bundle, rounds)


def step_seccomp(bench: Bench) -> None:
    """run with growing seccomp profiles, seen before and never seen before."""
    rounds = min(bench.rounds, 5)
    names = syscall_names()
    for count in (1, 50, len(names)):

        def rules(config: Config, count: int = count) -> None:
            config["linux"]["seccomp"] = seccomp_profile(names, count, 0)

        bundle = bench.ground.bundle(f"seccomp-{count}", change=rules)
        bench.time_run(f"run, {count} seccomp rules", bundle, rounds)
    row = f"run, {len(names)} seccomp rules never seen before"
    for counted, runtime in bench.turns(row, rounds):
        container = bench.fresh_id()

        def new_rules(config: Config, number: int = bench.counter) -> None:
            config["linux"]["seccomp"] = seccomp_profile(names, len(names), number)

        bundle = bench.ground.bundle(container, change=new_rules)
        result = bench.must(runtime, "run", "--bundle", bundle, container)
        bench.ground.drop_bundle(bundle)
        if counted:
            bench.add(row, runtime.name, result.wall, result.cpu)


def step_memory(bench: Bench) -> None:
    """Peak resident size of each command, and what a container's init and a foreground run hold."""
    ground = bench.ground
    bundle = ground.bundle("memory", ("/bin/sleep", "1000"))
    short = ground.bundle("memory-run")
    pid_file = os.path.join(ground.dir, "pid")
    for runtime in ground.runtimes:
        bench.progress.step(f"memory, {runtime.name}")
        container = bench.fresh_id()
        words = {
            "create": ("create", "--bundle", bundle, "--pid-file", pid_file, container),
            "start": ("start", container),
            "state": ("state", container),
            "list": ("list",),
            "exec": ("exec", container, "/bin/true"),
            "kill": ("kill", container, "KILL"),
            "delete": ("delete", container),
            "run": ("run", "--bundle", short, bench.fresh_id()),
        }
        for name, command in words.items():
            bench.fact(f"peak of {name}, KiB", runtime.name, peak_of(bench, runtime, command))
            if name == "create":
                with open(pid_file, encoding="utf-8") as stream:
                    pid = int(stream.read())
                bench.fact("created init: RSS / PSS, KiB", runtime.name, resident(pid))
            if name == "kill":
                ground.wait_gone(pid)
        container = bench.fresh_id()
        spawned = ground.spawn(runtime, ("run", "--bundle", bundle, container))
        for _ in range(500):
            state = ground.call(runtime, "state", container)
            if state.status == 0 and '"running"' in state.out:
                break
            time.sleep(0.01)
        time.sleep(0.1)
        bench.fact("foreground run: RSS / PSS, KiB", runtime.name, resident(spawned))
        ground.call(runtime, "kill", container, "KILL")
        ground.wait(spawned)


def peak_of(bench: Bench, runtime: Runtime, words: Sequence[str]) -> int:
    """Peak RSS in KiB of one command, the largest of it and the children that it waited for.

    busybox' time, since a process spawned from here would start with this interpreter's own peak: the
    kernel carries it over execve (fs/exec.c, setmax_mm_hiwater_rss).
    """
    out = os.path.join(bench.ground.dir, "peak")
    prefix = (static_busybox(), "time", "-f", "%M", "-o", out)
    pid = bench.ground.spawn(runtime, words, prefix=prefix)
    bench.ground.wait(pid)
    with open(out, encoding="utf-8") as stream:
        return int(stream.read().split()[-1]) // time_unit(bench)


def time_unit(bench: Bench) -> int:
    """What busybox' time has to be divided by: some versions take ru_maxrss for pages of 4 KiB."""
    out = os.path.join(bench.ground.dir, "unit")
    show = "print(open('/proc/self/status').read())"
    argv = (static_busybox(), "time", "-f", "%M", "-o", out, PYTHON, "-IS", "-c", show)
    pid = bench.ground.spawn_argv(argv, out + ".text")
    bench.ground.wait(pid)
    with open(out, encoding="utf-8") as stream:
        told = int(stream.read().split()[-1])
    with open(out + ".text", encoding="utf-8") as stream:
        real = next(int(line.split()[1]) for line in stream if line.startswith("VmHWM:"))
    return max(1, round(told / real))


def resident(pid: int) -> str:
    """RSS and PSS of a process now."""
    figures = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as stream:
        for line in stream:
            words = line.split()
            if len(words) == 3:
                figures[words[0]] = int(words[1])
    return f"{figures['Rss:']} / {figures['Pss:']}"


def step_limits(bench: Bench) -> None:
    """The smallest memory limit, to 32 KiB, in which run works, and exec."""
    for runtime in bench.ground.runtimes:
        for what, works in (("run", run_within), ("exec", exec_within)):
            low, high = 0, 512  # in units of 32 KiB; low fails, high works
            if not works(bench, runtime, high * 32 * KIB):
                bench.fact(f"smallest memory limit of {what}, KiB", runtime.name, "fails at 16384")
                continue
            while high - low > 1:
                middle = (low + high) // 2
                bench.progress.step(f"smallest limit of {what}, {middle * 32} KiB, {runtime.name}")
                if works(bench, runtime, middle * 32 * KIB):
                    high = middle
                else:
                    low = middle
            bench.fact(f"smallest memory limit of {what}, KiB", runtime.name, high * 32)


def run_within(bench: Bench, runtime: Runtime, limit: int, times: int = 5) -> bool:
    """True if `run` of a container with this memory limit works each time."""
    container = bench.fresh_id()
    bundle = bench.ground.bundle(container, change=lambda config: memory_limit(config, limit))
    try:
        for _ in range(times):
            result = bench.ground.call(runtime, "run", "--bundle", bundle, container, seconds=10)
            if result.status != 0:
                bench.ground.call(runtime, "delete", "--force", container)
                return False
        return True
    finally:
        bench.ground.drop_bundle(bundle)


def exec_within(bench: Bench, runtime: Runtime, limit: int, times: int = 5) -> bool:
    """True if a container with this limit starts, and exec works in it each time."""
    container = bench.fresh_id()
    bundle = bench.ground.bundle(
        container, ("/bin/sleep", "1000"), lambda config: memory_limit(config, limit)
    )
    try:
        if bench.ground.call(runtime, "create", "--bundle", bundle, container, seconds=10).status:
            return False
        if bench.ground.call(runtime, "start", container, seconds=10).status:
            return False
        return all(
            bench.ground.call(runtime, "exec", container, "/bin/true", seconds=10).status == 0
            for _ in range(times)
        )
    finally:
        bench.ground.call(runtime, "delete", "--force", container)
        bench.ground.reap()
        bench.ground.drop_bundle(bundle)


def memory_limit(config: Config, limit: int) -> None:
    """Set linux.resources.memory.limit."""
    config["linux"]["resources"]["memory"] = {"limit": limit}


def step_cold(bench: Bench) -> None:
    """The first run after a boot, as near as dropping the page cache comes to it."""
    bundle = bench.ground.bundle("cold")
    for counted, runtime in bench.turns("run, page cache dropped", min(bench.rounds, 5)):
        os.sync()
        try:
            with open("/proc/sys/vm/drop_caches", "w", encoding="utf-8") as stream:
                stream.write("3\n")
        except OSError as error:
            bench.fact("run, page cache dropped", runtime.name, f"not measured: {error.strerror}")
            continue
        result = bench.must(runtime, "run", "--bundle", bundle, bench.fresh_id())
        if counted:
            bench.add("run, page cache dropped", runtime.name, result.wall, result.cpu)


def step_size(bench: Bench) -> None:
    """Size of what has to be copied to a host."""
    for runtime in bench.ground.runtimes:
        bench.fact("size, KiB", runtime.name, os.path.getsize(runtime.argv[0]) // KIB)


def step_podman(bench: Bench) -> None:
    """`podman run --rm --rootfs` with each runtime."""
    podman = shutil.which("podman")
    if not podman:
        raise SystemExit("\npodman is not installed")
    store = os.path.join(bench.ground.dir, "podman")
    os.makedirs(store)
    for counted, runtime in bench.turns("podman run", min(bench.rounds, 10)):
        argv = [
            podman,
            f"--root={store}/root",
            f"--runroot={store}/run",
            "--storage-driver=vfs",
            "--cgroup-manager=cgroupfs",
            "--events-backend=none",
            f"--runtime={one_word(bench.ground, runtime)}",
            "run",
            "--rm",
            "--network=none",
            # podman's defaults are more than root without CAP_SYS_RESOURCE may set
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            "--rootfs",
            bench.ground.rootfs,
            "/bin/true",
        ]
        result = bench.ground.timed_argv(argv, os.path.join(bench.ground.dir, "out"), runtime)
        if result.status:
            raise SystemExit(f"\npodman with {runtime.name}: {result.err.strip()[-500:]}")
        if counted:
            bench.add("podman run", runtime.name, result.wall, result.cpu)


def step_docker(bench: Bench) -> None:
    """`docker run --rm` and `docker exec` with each runtime, by a daemon of our own."""
    ground = bench.ground
    home = os.path.join(ground.dir, "docker")
    os.makedirs(home)
    socket = f"unix://{home}/docker.sock"
    argv = [
        "dockerd",
        f"--host={socket}",
        f"--data-root={home}/data",
        f"--exec-root={home}/exec",
        f"--pidfile={home}/pid",
        "--bridge=none",
        "--iptables=false",
        "--storage-driver=vfs",
        f"--cgroup-parent={ground.parent}",
    ]
    # crun in its own mount namespace cannot be a daemon's child
    runtimes = [r for r in ground.runtimes if r.namespace_fd < 0]
    for runtime in runtimes:
        argv.append(f"--add-runtime=bench-{runtime.name}={one_word(ground, runtime)}")
    with open(os.path.join(ground.dir, "dockerd.log"), "wb") as log:
        daemon = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    docker = [str(shutil.which("docker")), f"--host={socket}"]
    try:
        for _ in range(300):
            if (
                subprocess.run([*docker, "version"], capture_output=True, check=False).returncode
                == 0
            ):
                break
            time.sleep(0.1)
        tar = subprocess.Popen(["tar", "-C", ground.rootfs, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            [*docker, "import", "-", "bench"], stdin=tar.stdout, capture_output=True, check=True
        )
        tar.wait()
        every, ground.runtimes = ground.runtimes, runtimes
        out = os.path.join(ground.dir, "out")
        for counted, runtime in bench.turns("docker", min(bench.rounds, 10)):
            base = [*docker, "run", "--rm", "--network=none", f"--runtime=bench-{runtime.name}"]
            run = ground.timed_argv([*base, "bench", "/bin/true"], out)
            name = bench.fresh_id()
            ground.timed_argv([*base, "-d", f"--name={name}", "bench", "/bin/sleep", "1000"], out)
            inside = ground.timed_argv([*docker, "exec", name, "/bin/true"], out)
            with open(out + ".err", encoding="utf-8") as stream:
                problem = stream.read()
            ground.timed_argv([*docker, "rm", "-f", name], out)
            if run.status or inside.status:
                raise SystemExit(f"\ndocker with {runtime.name}: {run.err}{problem}")
            if counted:
                bench.add("docker run", runtime.name, run.wall, run.cpu)
                bench.add("docker exec", runtime.name, inside.wall, inside.cpu)
        ground.runtimes = every
    finally:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()


def one_word(ground: Ground, runtime: Runtime) -> str:
    """A path that runs the runtime with its options, for engines."""
    if len(runtime.argv) == 1:
        return runtime.argv[0]
    path = os.path.join(ground.dir, f"run-{runtime.name}")
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(f'#!/bin/sh\nexec {" ".join(runtime.argv)} "$@"\n')
    os.chmod(path, 0o755)
    return path


STEPS: dict[str, Callable[[Bench], None]] = {
    "life": step_life,
    "systemd": step_systemd,
    "pythons": step_pythons,
    INSIDE: step_under_systemd,
    "list": step_list,
    "docker-config": step_docker_config,
    "parallel": step_parallel,
    "growth": step_growth,
    "seccomp": step_seccomp,
    "memory": step_memory,
    "limits": step_limits,
    "cold": step_cold,
    "size": step_size,
    "docker": step_docker,
    "podman": step_podman,
}

# ---------------------------------------------------------------------- configurations

# What a plain Docker container may not call (a fact of its default profile, by kernel area): everything else
# that libseccomp knows is allowed, which gives a profile of the same size and cost.
REFUSED = frozenset(
    [
        "acct",
        "add_key",
        "bpf",
        "clock_adjtime",
        "clock_settime",
        "create_module",
        "delete_module",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "get_kernel_syms",
        "get_mempolicy",
        "init_module",
        "ioperm",
        "iopl",
        "kcmp",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mbind",
        "mount",
        "mount_setattr",
        "move_mount",
        "move_pages",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "process_vm_readv",
        "process_vm_writev",
        "query_module",
        "quotactl",
        "quotactl_fd",
        "reboot",
        "request_key",
        "set_mempolicy",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "stime",
        "swapoff",
        "swapon",
        "sysfs",
        "_sysctl",
        "umount",
        "umount2",
        "unshare",
        "uselib",
        "userfaultfd",
        "ustat",
        "vhangup",
        "vm86",
        "vm86old",
        "clone",
        "clone3",
        "personality",
    ]
)
DOCKER_CAPABILITIES = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
]


def syscall_names() -> list[str]:
    """The system calls that libseccomp has names for on this machine, in order of number."""
    library = ctypes.CDLL("libseccomp.so.2")
    library.seccomp_syscall_resolve_num_arch.restype = ctypes.c_void_p
    free = ctypes.CDLL(None).free
    free.argtypes = [ctypes.c_void_p]
    names = []
    native = library.seccomp_arch_native()
    for number in range(470):
        pointer = library.seccomp_syscall_resolve_num_arch(ctypes.c_uint32(native), number)
        if pointer:
            names.append(ctypes.string_at(pointer).decode())
            free(pointer)
    return names


def seccomp_profile(names: Sequence[str], count: int, variant: int) -> Config:
    """`count` refusing rules, each with a condition that a test program never meets; `variant` makes it new."""
    return {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {
                "names": [name],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 5, "value": 0xABCD00000000 + variant, "op": "SCMP_CMP_EQ"}],
            }
            for name in names[:count]
        ],
    }


def docker_config(config: Config) -> None:
    """Turn the base configuration into what Docker gives a plain container."""
    process = config["process"]
    process["noNewPrivileges"] = False
    process["rlimits"] = []
    process["capabilities"] = {
        kind: list(DOCKER_CAPABILITIES) for kind in ("bounding", "effective", "permitted")
    }
    process["oomScoreAdj"] = 0
    for entry in config["mounts"]:
        entry.setdefault("options", ["nosuid", "noexec", "nodev"])
    config["mounts"].append(
        {
            "destination": "/sys/fs/cgroup",
            "type": "cgroup",
            "source": "cgroup",
            "options": ["ro", "nosuid", "noexec", "nodev"],
        }
    )
    linux = config["linux"]
    linux["namespaces"].append({"type": "cgroup"})
    linux["sysctl"] = {
        "net.ipv4.ip_unprivileged_port_start": "0",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    linux["maskedPaths"] = [
        *("/proc/" + name for name in ("asound", "acpi", "kcore", "keys", "latency_stats")),
        *("/proc/" + name for name in ("timer_list", "timer_stats", "sched_debug", "scsi")),
        "/sys/firmware",
        "/sys/devices/virtual/powercap",
    ]
    devices: list[tuple[str, int | None, int | None, str]] = [("c", None, None, "m")]
    devices.append(("b", None, None, "m"))
    devices += [("c", 1, minor, "rwm") for minor in (3, 5, 7, 8, 9)]
    devices += [("c", 5, minor, "rwm") for minor in (0, 1, 2)]
    devices += [("c", 136, None, "rwm"), ("c", 10, 200, "rwm")]
    rules: list[Config] = [{"allow": False, "access": "rwm"}]
    for kind, major, minor, access in devices:
        rule: Config = {"allow": True, "type": kind, "access": access}
        if major is not None:
            rule["major"] = major
        if minor is not None:
            rule["minor"] = minor
        rules.append(rule)
    linux["resources"] = {
        "devices": rules,
        "memory": {},
        "cpu": {"shares": 0},
        "pids": {"limit": 0},
        "blockIO": {"weight": 0},
    }
    allowed = [name for name in syscall_names() if name not in REFUSED]
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 1,
        "architectures": (
            ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
            if platform.machine() == "x86_64"
            else ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
        ),
        "syscalls": [
            {"names": allowed, "action": "SCMP_ACT_ALLOW"},
            *(
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ALLOW",
                    "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}],
                }
                for value in (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
            ),
            {
                "names": ["clone"],
                "action": "SCMP_ACT_ALLOW",
                "args": [
                    {"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
                ],
            },
            {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
        ],
    }


# ---------------------------------------------------------------------- results


def summary(samples: Sequence[tuple[float, float]]) -> dict[str, float]:
    """Median, quartiles and processor time, in milliseconds."""
    walls = sorted(wall for wall, _ in samples)
    quartiles = statistics.quantiles(walls, n=4) if len(walls) > 1 else [walls[0]] * 3
    return {
        "median": round(1000 * statistics.median(walls), 3),
        "low": round(1000 * quartiles[0], 3),
        "high": round(1000 * quartiles[2], 3),
        "cpu": round(1000 * statistics.median(cpu for _, cpu in samples), 3),
        "samples": len(walls),
    }


def table(results: dict[str, Any]) -> str:
    """The markdown tables of times and of other figures."""
    names = results["runtimes"]
    first = names[0]
    times = results["times"]
    head = ["ms, median (quartiles)", *names, *(f"{first} / {other}" for other in names[1:])]
    head.append("processor ms: " + ", ".join(names))
    lines = ["| " + " | ".join(head) + " |", "|---|" + "---:|" * (len(head) - 1)]
    for row, by_name in times.items():
        if THE_SAME in by_name:
            continue
        if row == FLOOR:
            only = by_name[FLOOR]
            cells = [
                f"`{row} -c '{FLOOR_CODE}'`",
                text_of(only),
                *[""] * (len(head) - 3),
                f"{only['cpu']:.1f}",
            ]
        else:
            cells = [row, *(text_of(by_name[name]) if name in by_name else "" for name in names)]
            for other in names[1:]:
                both = first in by_name and other in by_name
                ratio = by_name[first]["median"] / by_name[other]["median"] if both else 0
                cells.append(f"{ratio:.2f}" if both else "")
            cells.append(
                ", ".join(f"{by_name[n]['cpu']:.1f}" if n in by_name else "" for n in names)
            )
        lines.append("| " + " | ".join(cells) + " |")
    lines += by_python(times)
    if results["facts"]:
        lines += ["", "| | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
        for row, by_name in results["facts"].items():
            lines.append(f"| {row} | " + " | ".join(str(by_name.get(n, "")) for n in names) + " |")
    return "\n".join(lines) + "\n"


def by_python(times: dict[str, Any]) -> list[str]:
    """The table of the rows that have a Python each."""
    rows = {row: by_name for row, by_name in times.items() if THE_SAME in by_name}
    if not rows:
        return []
    lines = ["", f"| ms | {THE_SAME} | {ITS_OWN} | ratio |", "|---|---:|---:|---:|"]
    for row, by_name in rows.items():
        ratio = by_name[THE_SAME]["median"] / by_name[ITS_OWN]["median"]
        cells = (text_of(by_name[name]) for name in (THE_SAME, ITS_OWN))
        lines.append(f"| {row} | {' | '.join(cells)} | {ratio:.2f} |")
    return lines


def text_of(figure: dict[str, float]) -> str:
    """One cell of the table."""
    return f"{figure['median']:.1f} ({figure['low']:.1f}-{figure['high']:.1f})"


def budget(results: dict[str, Any]) -> list[str]:
    """How anocir stands to each line of its budget."""
    lines = []
    ours = results["runtimes"][0]
    times, facts = results["times"], results["facts"]
    for row, other, most in BUDGET:
        theirs = times.get(FLOOR if other == FLOOR else row, {}).get(other)
        if ours not in times.get(row, {}) or not theirs:
            continue
        ratio = times[row][ours]["median"] / theirs["median"]
        lines.append(
            f"{'met' if ratio <= most else 'MISSED':7} {row} / {other}: {ratio:.2f} (<= {most})"
        )
    for row, by_name in times.items():
        if THE_SAME in by_name:
            ratio = by_name[THE_SAME]["median"] / by_name[ITS_OWN]["median"]
            met = "met" if ratio <= 1.15 else "MISSED"
            lines.append(f"{met:7} {row} / {ITS_OWN}: {ratio:.2f} (<= 1.15)")
    if "runc" in times.get("run", {}) and ours in times.get("run", {}):
        ratio = times["run"][ours]["cpu"] / times["run"]["runc"]["cpu"]
        lines.append(
            f"{'met' if ratio <= 1 else 'MISSED':7} processor time of run / runc: {ratio:.2f} (<= 1)"
        )
    if ours in times.get("list of 1000", {}):
        took = times["list of 1000"][ours]["median"]
        lines.append(f"{'met' if took <= 500 else 'MISSED':7} list of 1000: {took:.0f} ms (<= 500)")
    for what in ("run", "exec"):
        least = facts.get(f"smallest memory limit of {what}, KiB", {}).get(ours)
        if least is not None:
            met = isinstance(least, int) and least <= 1024
            lines.append(
                f"{'met' if met else 'MISSED':7} memory limit of {what}: {least} KiB (<= 1024)"
            )
    return lines


def planned(steps: Sequence[str], rounds: int, runtimes: int) -> int:
    """How often progress will be told."""
    few, some = min(rounds, 5) + 1, min(rounds, 10) + 1
    counts = {
        "life": (rounds + 1) * runtimes,
        "systemd": 1,
        "pythons": (2 * rounds + 3) * 5,
        INSIDE: (rounds + 1 + few) * runtimes,
        "docker-config": (rounds + 1) * runtimes,
        "parallel": few * runtimes,
        "list": (3 * (some + 1) + 1) * runtimes,
        "growth": 9 * few * runtimes,
        "seccomp": 4 * few * runtimes,
        "memory": runtimes,
        "limits": 18 * runtimes,
        "cold": few * runtimes,
        "size": 0,
        "docker": some * runtimes,
        "podman": some * runtimes,
    }
    return sum(counts[step] for step in steps)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="measure runtimes side by side")
    parser.add_argument("--rounds", type=int, help="counted rounds of each step (12)")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{QUICK_ROUNDS} rounds of {' '.join(QUICK_STEPS)}",
    )
    parser.add_argument(
        "--steps",
        help=f"of {' '.join((*DEFAULT_STEPS, *OPTIONAL_STEPS))}, separated by commas",
    )
    parser.add_argument(
        "--save",
        metavar="DIR",
        help="write results.json, results.md, plot.svg there (default: here, if all steps are run)",
    )
    parser.add_argument("--samples", metavar="FILE", help=argparse.SUPPRESS)
    parser.add_argument("runtimes", nargs="*", metavar="[NAME=]RUNTIME")
    options = parser.parse_args(arguments)
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else 12)
    options.steps = options.steps or ",".join(QUICK_STEPS if options.quick else DEFAULT_STEPS)
    return options


def cpu_model() -> str:
    """The processor's name."""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as stream:
        for line in stream:
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.machine()


def main(arguments: Sequence[str]) -> int:
    """Measure, print, save."""
    options = parse(arguments)
    steps = [step for step in options.steps.split(",") if step]
    unknown = [step for step in steps if step not in STEPS]
    if unknown:
        raise SystemExit(f"no such step: {', '.join(unknown)}")
    texts = options.runtimes or ["dist/anocir", *(n for n in ("runc", "crun") if shutil.which(n))]
    runtimes = [Runtime(text) for text in texts]
    versions = {runtime.name: runtime.version() for runtime in runtimes}
    progress = Progress("bench", planned(steps, options.rounds, len(runtimes)))
    everything = set(steps) >= set(DEFAULT_STEPS)
    save = os.path.abspath(options.save) if options.save else HERE if everything else ""
    load = os.getloadavg()[0]
    with Ground("bench", runtimes) as ground:
        bench = Bench(ground, options.rounds, progress)
        for step in steps:
            # What an engine leaves behind, as Podman's ip_forward, is put back and told.
            with around("the bench", step) if step in OPTIONAL_STEPS else contextlib.nullcontext():
                STEPS[step](bench)
    progress.end()
    if options.samples:
        with open(options.samples, "w", encoding="utf-8") as stream:
            json.dump(bench.rows, stream)
        return 0
    results = {
        "date": datetime.date.today().isoformat(),
        "kernel": platform.release(),
        "processor": f"{os.cpu_count()} x {cpu_model()}",
        "cgroup": 2 if is_cgroup2() else 1,
        "load before": round(load, 2),
        "rounds": options.rounds,
        "runtimes": [runtime.name for runtime in runtimes],
        "versions": versions,
        "times": {
            row: {name: summary(samples) for name, samples in by_name.items()}
            for row, by_name in bench.rows.items()
        },
        "facts": bench.facts,
    }
    text = (
        f"{results['date']}, Linux {results['kernel']}, {results['processor']}, cgroup v{results['cgroup']}, "
        f"{options.rounds} rounds, load {load:.1f}; "
        + "; ".join(f"{name}: {version}" for name, version in versions.items())
        + f"\n\n{table(results)}"
    )
    print(text)
    for line in budget(results):
        print(line)
    if save:
        os.makedirs(save, exist_ok=True)
        with open(os.path.join(save, "results.json"), "w", encoding="utf-8") as stream:
            json.dump(results, stream, indent=1)
            stream.write("\n")
        with open(os.path.join(save, "results.md"), "w", encoding="utf-8") as stream:
            stream.write(text)
        rows = [
            row
            for row in ("run", *LIFE, "lifecycle", "run, Docker's config")
            if row in results["times"]
        ]
        if rows:
            with open(os.path.join(save, "plot.svg"), "w", encoding="utf-8") as stream:
                stream.write(bars(results, rows, FLOOR))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
