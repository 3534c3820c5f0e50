#!/usr/bin/python3
"""Run random valid configurations with two runtimes and compare what a process inside sees, and its cgroups outside.

usage: run.py [--seed N] [--count N] [options] [NAME=]RUNTIME [NAME=]RUNTIME

Each kind of difference is reported once, with the smallest case that shows it. meant.md lists the kinds that are meant, for
each other runtime, with the reason; any other makes the run fail. The same seed gives the same cases on one machine.
"""

from __future__ import annotations

import argparse
import contextlib
import fnmatch
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.differ import generate  # noqa: E402
from tests.differ.generate import Able, Case  # noqa: E402
from tests.reliability.ground import Progress, Runtime, hierarchies, mount, unmount, unshare_mounts  # noqa: E402
from tests.suites import become_subreaper, end_orphans  # noqa: E402

# seconds after which a runtime hangs
PATIENCE = 20.0
# of /proc/PID/status: what the runtime decides, not the moment
STATUS = (
    "Umask Uid Gid Groups CapInh CapPrm CapEff CapBnd CapAmb NoNewPrivs Seccomp Seccomp_filters SigBlk SigIgn SigCgt"
    " ShdPnd SigPnd Speculation_Store_Bypass SpeculationIndirectBranch Cpus_allowed_list Mems_allowed_list THP_enabled"
    " Threads TracerPid CoreDumping"
).split()
V1_FILES = {
    "cpu": ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.idle"),
    "cpuset": ("cpuset.cpus", "cpuset.mems"),
    "memory": (
        "memory.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.swappiness",
        "memory.oom_control",
    ),
    "pids": ("pids.max",),
    "devices": ("devices.list",),
    "freezer": ("freezer.state",),
}  # fmt: skip
V2_FILES = (
    "cgroup.type", "cgroup.freeze", "cgroup.subtree_control", "cpu.weight", "cpu.max", "cpu.idle", "cpuset.cpus", "cpuset.mems",
    "memory.max", "memory.low", "memory.high", "memory.swap.max", "memory.oom.group", "pids.max", "io.max",
)  # fmt: skip


class Seen(NamedTuple):
    """What one runtime made of a case: an error, or facts by name."""

    error: str
    facts: dict[str, Any]


class Difference(NamedTuple):
    """One difference: its kind, free of what the case happens to be, and the two values."""

    kind: str
    one: str
    other: str


# ---------------------------------------------------------------------- what the probe printed


def sections(text: str) -> dict[str, list[str]]:
    """The probe's output by section."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith("== "):
            lines = found.setdefault(line[3:], [])
        elif line:
            lines.append(line)
    return found


class Normal:
    """Takes out of a value what cannot be the same for two containers."""

    def __init__(self, directory: str, identity: str) -> None:
        self.directory = directory
        self.identity = identity
        self.own = {
            name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")
        }

    def text(self, text: str) -> str:
        # mountinfo has the bundle below the root of its own file system
        inside = "/".join(self.directory.rsplit("/", 2)[1:])
        text = text.replace(self.directory, "BUNDLE").replace(f"/{inside}", "BUNDLE")
        return text.replace(self.identity, "ID")

    def namespace(self, name: str, link: str) -> str:
        return (
            link if link.startswith("error") else "host's" if self.own.get(name) == link else "own"
        )

    def mount(self, line: str) -> tuple[str, dict[str, Any]]:
        """(mount point, facts) of a line of mountinfo."""
        left, _, right = line.partition(" - ")
        fields = left.split()
        kind, source, super_options = (right.split(" ") + ["", ""])[:3]
        tags = {re.sub(r":\d+", "", tag) for tag in fields[6:]}
        root = self.text(fields[3])
        if kind in ("cgroup", "cgroup2"):
            source = kind
        return fields[4], {
            "type": kind,
            "root": re.sub(r"^.*BUNDLE", "BUNDLE", root),
            "source": self.text(source),
            "options": set(fields[5].split(",")),
            # the host's disk has its own, and is the same for both
            "super": set(super_options.split(","))
            if kind not in ("ext4", "xfs", "btrfs", "overlay")
            else set(),
            "propagation": tags,
        }

    def facts(self, found: dict[str, list[str]]) -> dict[str, Any]:
        """The probe's sections as one flat mapping."""
        facts: dict[str, Any] = {}
        for line in found.get("descriptors", ()):
            number, _, rest = line.partition(" ")
            # the standard ones may be pipes of the runtime or what the caller gave
            facts[f"descriptor {number}"] = rest if int(number) > 2 else rest.rpartition(" ")[2]
        facts["signals"] = set(found.get("signals", ()))
        facts["arguments"] = [self.text(line) for line in found.get("arguments", ())]
        entries = found.get("environment", [])
        for entry in entries:
            name, _, value = entry.partition("=")
            facts.setdefault(f"environment {name}", []).append(value)
        facts["environment order"] = [
            entry.partition("=")[0] for entry in entries if not entry.startswith("HOME=")
        ]
        for line in found.get("status", ()):
            name, _, value = line.partition(":")
            if name in STATUS:
                facts[f"status {name}"] = (
                    sorted(value.split()) if name == "Groups" else value.split()
                )
        for line in found.get("limits", ())[1:]:
            facts[f"limit {line[:25].strip()}"] = line[25:].split()[:2]
        order = []
        for line in found.get("mounts", ()):
            if line.startswith("error"):
                facts["mounts"] = line
                continue
            place, described = self.mount(line)
            order.append(place)
            name = place
            while f"mount {name} type" in facts:
                name += "'"
            for key, value in described.items():
                facts[f"mount {name} {key}"] = value
        facts["mounts order"] = order
        for name in (
            "uid_map",
            "gid_map",
            "setgroups",
            "oom_score_adj",
            "coredump_filter",
            "timens_offsets",
        ):
            facts[name] = [line.split() for line in found.get(name, ())]
        facts["interfaces"] = sorted(
            line.split(":")[0].strip() for line in found.get("interfaces", ())[2:]
        )
        for line in found.get("namespaces", ()):
            name, _, link = line.partition(" ")
            facts[f"namespace {name}"] = self.namespace(name, link)
        for line in found.get("calls", ()):
            name, _, value = line.partition(" ")
            facts[f"call {name}"] = value
        for line in found.get("keyring", ()):
            facts["keyring"] = self.text(re.sub(r"keyring;\d+;\d+;", "keyring;", line))
        for section in ("nodes", "paths"):
            for line in found.get(section, ()):
                name, _, rest = (
                    line.partition(" mode=") if " mode=" in line else line.partition(" error ")
                )
                told = f"mode={rest}" if " mode=" in line else rest
                facts[f"{section[:-1]} {name}"] = self.text(told)
        facts["finished"] = "end" in found
        return facts


def generalised(text: str) -> str:
    """A value or an error without the numbers and paths of its case."""
    text = re.sub(r"(/[\w.@ -]+){2,}", "PATH", text)
    return re.sub(r"(?<!mode=)\b\d+\b", "N", text)


def _place(field: str, facts: Iterable[dict[str, Any]]) -> str:
    """The name of a fact without the place that the case chose."""
    kind, _, rest = field.partition(" ")
    if kind == "mount":
        place, _, key = rest.rpartition(" ")
        types = {each.get(f"mount {place} type") for each in facts} - {None}
        shown = place if re.match(r"/(proc|sys|dev)\b", place) or place == "/" else "*"
        return f"mount {shown} [{'/'.join(sorted(map(str, types)))}] {key}"
    if kind in ("node", "path") and not re.match(r"/(dev|proc|sys)\b", rest):
        return f"{kind} *"
    return field


def compare(one: Seen, other: Seen, names: Sequence[str]) -> list[Difference]:
    """The differences between two runtimes, each with a kind."""
    if one.error or other.error:
        if bool(one.error) == bool(other.error):
            return []
        refused = names[0] if one.error else names[1]
        text = one.error or other.error
        return [
            Difference(
                f"refused by {refused}: {generalised(text)}",
                one.error or "works",
                other.error or "works",
            )
        ]
    found = []
    for field in sorted({*one.facts, *other.facts}):
        left, right = one.facts.get(field), other.facts.get(field)
        if left == right:
            continue
        place = _place(field, (one.facts, other.facts))
        if isinstance(left, set) and isinstance(right, set):
            words = [f"+{word}" for word in sorted(left - right)] + [
                f"-{word}" for word in sorted(right - left)
            ]
            detail = " ".join(words)
        elif left is None or right is None:
            detail = f"only with {names[0] if right is None else names[1]}"
        elif field.startswith("limit ") and left[1] == right[1] == right[0]:
            detail = f"the soft limit of {names[1]} is the hard one"
        else:
            detail = f"{left} / {right}"
        found.append(Difference(f"{place}: {generalised(detail)}", str(left), str(right)))
    return found


# ---------------------------------------------------------------------- running a case


class Side:
    """One runtime: its scratch directory, bundles, and how to run a case in it."""

    def __init__(
        self, runtime: Runtime, directory: str, probe: str, sources: Sequence[str]
    ) -> None:
        self.runtime = runtime
        self.directory = os.path.join(directory, runtime.name)
        self.probe = probe
        self.sources = list(sources)
        os.makedirs(self.directory, 0o755)
        self.root = os.path.join(self.directory, "state")
        os.mkdir(self.root, 0o711)
        self.number = 0

    def command(self, *words: str) -> list[str]:
        return [*self.runtime.argv, "--root", self.root, *words]

    def rootfs(self, path: str) -> None:
        """A root file system with the probe in it; the runtime may make mount points there."""
        for name, mode in (
            ("bin", 0o755),
            ("etc", 0o755),
            ("dev", 0o755),
            ("proc", 0o555),
            ("sys", 0o755),
            ("root", 0o700),
        ):
            os.makedirs(os.path.join(path, name), mode)
        os.mkdir(os.path.join(path, "tmp"))
        os.chmod(os.path.join(path, "tmp"), 0o1777)
        for name in ("probe", "bin/probe", "sleeper"):
            os.link(self.probe, os.path.join(path, name))
        with open(os.path.join(path, "etc/passwd"), "w", encoding="utf-8") as stream:
            stream.write("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")

    def see(self, case: Case) -> Seen:
        """Run a case and tell what was seen."""
        self.number += 1
        identity = f"case{self.number}"
        bundle = os.path.join(self.directory, identity)
        rootfs = os.path.join(bundle, "rootfs")
        self.rootfs(rootfs)
        config = json.loads(json.dumps(case.config))
        if config["linux"].get("uidMappings"):
            _give_away(rootfs, config["linux"]["uidMappings"][0]["hostID"])
        parent = f"/differ-{os.getpid()}"
        config["linux"]["cgroupsPath"] = f"{parent}/{self.runtime.name}-{identity}"
        with open(os.path.join(bundle, "config.json"), "w", encoding="utf-8") as stream:
            json.dump(config, stream)
        normal = Normal(bundle, f"{self.runtime.name}-{identity}")
        try:
            return self._seen(case, bundle, identity, normal)
        finally:
            subprocess.run(
                self.command("delete", "-f", identity),
                capture_output=True,
                timeout=PATIENCE,
                check=False,
            )
            shutil.rmtree(bundle, ignore_errors=True)

    def _seen(self, case: Case, bundle: str, identity: str, normal: Normal) -> Seen:
        pid_file = os.path.join(bundle, "pid")
        if case.process is None:
            words = ["run", "--bundle", bundle, "--pid-file", pid_file, *case.options, identity]
            return self._probed(self.command(*words), case, bundle, pid_file, normal)
        stdin, keep = os.pipe()
        try:
            started = self._spawn(
                self.command("run", "--detach", "--bundle", bundle, *case.options, identity),
                stdin, os.path.join(bundle, "run"), case.descriptors,
            )  # fmt: skip
            with open(os.path.join(bundle, "run"), encoding="utf-8", errors="replace") as stream:
                if _wait(started) != 0:
                    return Seen(normal.text(_last(stream.read())), {})
            path = os.path.join(bundle, "process.json")
            with open(path, "w", encoding="utf-8") as stream:
                json.dump(case.process, stream)
            words = ["exec", "--process", path, "--pid-file", pid_file, identity]
            return self._probed(
                self.command(*words), case._replace(descriptors=0), bundle, pid_file, normal
            )
        finally:
            os.close(stdin)
            os.close(keep)

    @staticmethod
    def _spawn(
        argv: Sequence[str], stdin: int, output: str, descriptors: int
    ) -> subprocess.Popen[bytes]:
        """Start a command with pipes as the descriptors from 3 on; its texts go to a file."""

        def prepare() -> None:
            for target in range(3, 3 + descriptors):
                reader, writer = os.pipe()
                os.dup2(reader, 100 + target)
                os.close(reader)
                os.close(writer)
            for target in range(3, 3 + descriptors):
                os.dup2(100 + target, target, inheritable=True)
                os.close(100 + target)

        with open(output, "wb") as stream:
            return subprocess.Popen(
                argv,
                stdin=stdin,
                stdout=stream,
                stderr=stream,
                preexec_fn=prepare if descriptors else None,
                close_fds=not descriptors,
                env={"PATH": os.environ["PATH"], "FROM_THE_CALLER": "1"},
                start_new_session=True,
            )

    def _probed(
        self, argv: Sequence[str], case: Case, bundle: str, pid_file: str, normal: Normal
    ) -> Seen:
        stdin, go = os.pipe()
        output = os.path.join(bundle, "out")
        child = self._spawn(argv, stdin, output, case.descriptors)
        os.close(stdin)
        until = time.monotonic() + PATIENCE
        text = ""
        with open(output, encoding="utf-8", errors="replace") as stream:
            while time.monotonic() < until:
                text += stream.read()
                if text.endswith("== end\n") or child.poll() is not None:
                    break
                time.sleep(0.002)
            text += stream.read()
            outside: dict[str, Any] = {}
            while text.endswith("== end\n") and time.monotonic() < until:
                # some write it after the program has begun
                with contextlib.suppress(OSError), open(pid_file, encoding="ascii") as pid:
                    if pid.read():
                        break
                time.sleep(0.002)
            if text.endswith("== end\n"):
                with (
                    contextlib.suppress(OSError, ValueError),
                    open(pid_file, encoding="ascii") as pid,
                ):
                    outside = cgroup_facts(int(pid.read()), normal)
            os.close(go)
            status = _wait(child)
            text += stream.read()
        found = sections(text)
        if "end" not in found:
            return Seen(normal.text(_last(text)) or f"no output, status {status}", {})
        facts = normal.facts(found)
        facts.update(outside)
        facts["exit status"] = status
        return Seen("", facts)


def _wait(child: subprocess.Popen[bytes]) -> int:
    try:
        return child.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
        return -99


def _last(text: str) -> str:
    """The error in what a runtime printed, without what logrus puts around it; anocir's is the line above a hint."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        return ""
    if lines[-1].startswith("anocir: "):
        lines = [line for line in lines if line.startswith("anocir: ")][-2:]
        return " / ".join(line[len("anocir: ") :] for line in lines)
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', lines[-1])
    return (found.group(1) if found else lines[-1]).strip()


def _give_away(rootfs: str, owner: int) -> None:
    for directory, names, files in os.walk(rootfs):
        for name in names + files:
            path = os.path.join(directory, name)
            if os.stat(path).st_nlink == 1 or name in names:
                os.chown(path, owner, owner)
    os.chown(rootfs, owner, owner)


def cgroup_facts(pid: int, normal: Normal) -> dict[str, Any]:
    """The limits of a process's cgroups, read from outside."""
    facts: dict[str, Any] = {}
    points = dict(hierarchies())
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as stream:
        for line in stream:
            _, names, path = line.rstrip("\n").split(":", 2)
            for name in names.replace("name=", "").split(","):
                point = points.get(names.replace("name=", "")) or points.get(name or "unified")
                facts[f"cgroup {name or 'v2'}"] = normal.text(path)
                for file in V1_FILES.get(name, ()) if name else V2_FILES:
                    with (
                        contextlib.suppress(OSError),
                        open(f"{point}{path}/{file}", encoding="ascii") as value,
                    ):
                        facts[f"cgroup file {file}"] = sorted(value.read().splitlines())
    return facts


def both(sides: Sequence[Side], case: Case) -> list[Difference]:
    """Run a case with both runtimes, side by side, and compare."""
    seen: list[Seen | None] = [None, None]

    def one(index: int) -> None:
        seen[index] = sides[index].see(case)

    thread = threading.Thread(target=one, args=(1,))
    thread.start()
    one(0)
    thread.join()
    names = [side.runtime.name for side in sides]
    first, second = seen
    assert first is not None and second is not None
    return compare(first, second, names)


# ---------------------------------------------------------------------- minimising, judging


class Differ:
    """All cases of a run."""

    def __init__(
        self, sides: Sequence[Side], able: Able, meant: Sequence[tuple[str, str]], whole: bool
    ) -> None:
        self.whole = whole
        self.sides = sides
        self.able = able
        self.meant = meant
        self.known: dict[str, int] = {}

    def case(self, chosen: Sequence[tuple[str, int]]) -> Case:
        return generate.build(chosen, self.able, self.sides[0].sources)

    def is_meant(self, kind: str) -> bool:
        return any(fnmatch.fnmatchcase(kind, pattern) for pattern, _ in self.meant)

    def look(self, chosen: list[tuple[str, int]]) -> list[tuple[Difference, Case]]:
        """New kinds of difference of a case, each with the smallest case that shows it."""
        new = {}
        for difference in both(self.sides, self.case(chosen)):
            self.known[difference.kind] = self.known.get(difference.kind, 0) + 1
            if self.known[difference.kind] == 1 and not self.is_meant(difference.kind):
                new[difference.kind] = difference
        if new:
            again = {each.kind for each in both(self.sides, self.case(chosen))}
            for kind in new.keys() - again:
                del self.known[kind], new[kind]  # a race of one of them, not a difference
        found = []
        while new and self.whole:
            found.append((new.popitem()[1], self.case(chosen)))
        while new:
            smallest = self.minimise(chosen, next(iter(new)))
            # what else this case shows needs no smaller one of its own
            shown = {each.kind for each in both(self.sides, smallest)} | {next(iter(new))}
            found += [(new.pop(kind), smallest) for kind in list(new) if kind in shown]
        return found

    def minimise(self, chosen: Sequence[tuple[str, int]], kind: str) -> Case:
        """Take features away, then parts of the configuration, while the difference stays."""
        smallest = list(chosen)
        for entry in chosen:
            fewer = [each for each in smallest if each != entry]
            if self.shows(self.case(fewer), kind):
                smallest = fewer
        case = self.case(smallest)
        for path in _paths(case.config):
            smaller = json.loads(json.dumps(case.config))
            if _remove(smaller, path) and self.shows(case._replace(config=smaller), kind):
                case = case._replace(config=smaller)
        return case

    def shows(self, case: Case, kind: str) -> bool:
        return any(each.kind == kind for each in both(self.sides, case))


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every part of a configuration that may be left out, whole ones first, the last entry of a list first."""
    found = []
    if isinstance(value, dict):
        entries: list[tuple[Any, Any]] = list(value.items())
    elif isinstance(value, list):
        entries = list(enumerate(value))[::-1]
    else:
        return []
    for key, item in entries:
        if path + (key,) not in _NEEDED and path != ("process", "args"):
            found.append((*path, key))
        if key not in ("uidMappings", "gidMappings"):
            found += _paths(item, (*path, key))
    return found


_NEEDED = {
    ("process",),
    ("process", "args"),
    ("process", "cwd"),
    ("root",),
    ("root", "path"),
    ("ociVersion",),
    ("linux",),
    ("mounts", 0),
}


def _remove(config: Any, path: Sequence[Any]) -> bool:
    for key in path[:-1]:
        if (
            isinstance(config, dict)
            and key not in config
            or isinstance(config, list)
            and key >= len(config)
        ):
            return False
        config = config[key]
    try:
        del config[path[-1]]
    except (KeyError, IndexError):
        return False
    return True


def read_meant(path: str, other: str) -> list[tuple[str, str]]:
    """(pattern, reason) of the differences that are meant beside this runtime; `*` in the column stands for any.

    A row is `| pattern | beside | why |`; a bar in a pattern is written as `\\|`.
    """
    rows = []
    with open(path, encoding="utf-8") as stream:
        for line in stream:
            cells = [
                cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip())
            ][1:-1]
            if len(cells) != 3 or cells[1] in ("beside", "---") or set(cells[0]) <= {"-"}:
                continue
            if not cells[2]:
                raise ValueError(f"{path}: {cells[0]}: no reason given")
            if any(other.startswith(name) or name == "*" for name in cells[1].split(", ")):
                rows.append((cells[0].strip("`"), cells[2]))
    return rows


# ---------------------------------------------------------------------- the machine


def abilities(runtimes: Sequence[Runtime]) -> Able:
    """What both runtimes say that they can do, and what this machine has."""
    version = (9, 9)
    options: set[str] | None = None
    spaces: set[str] | None = None
    for runtime in runtimes:
        done = subprocess.run(
            [*runtime.argv, "features"], capture_output=True, text=True, check=True
        )
        told = json.loads(done.stdout)
        most = re.match(r"(\d+)\.(\d+)", told["ociVersionMax"])
        assert most
        version = min(version, (int(most[1]), int(most[2])))
        words, kinds = set(told["mountOptions"]), set(told["linux"]["namespaces"])
        options = words if options is None else options & words
        spaces = kinds if spaces is None else spaces & kinds
    names = dict(hierarchies())
    controllers = frozenset(part for name in names for part in name.split(","))
    return Able(
        version, frozenset(options or ()), frozenset(spaces or ()), set(names) == {"unified"}, controllers,
        len(os.sched_getaffinity(0)), any(runtime.name == "crun" for runtime in runtimes),
    )  # fmt: skip


def compile_probe(directory: str) -> str:
    """The probe, static; raises SystemExit without a compiler."""
    compiler = next(filter(shutil.which, ("cc", "gcc", "clang")), "")
    if not compiler:
        raise SystemExit("a C compiler is needed (Debian: apt install gcc libc6-dev)")
    target = os.path.join(directory, "probe")
    subprocess.run(
        [compiler, "-static", "-O1", "-o", target, os.path.join(HERE, "probe.c")], check=True
    )
    return target


def make_sources(directory: str) -> list[str]:
    """Directories, files and a mount with flags, for binds; the names are the same for both runtimes."""
    top = os.path.join(directory, "sources")
    os.makedirs(os.path.join(top, "plain/below"))
    with open(os.path.join(top, "file"), "w", encoding="utf-8") as stream:
        stream.write("file\n")
    flagged = os.path.join(top, "flagged")
    os.mkdir(flagged)
    # MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_NOATIME
    mount("flagged", flagged, "tmpfs", 2 | 4 | 8 | 1024, "mode=755")
    nested = os.path.join(top, "nested")
    os.mkdir(nested)
    mount("nested", nested, "tmpfs", 0, "mode=755")
    os.mkdir(os.path.join(nested, "sub"))
    mount("inner", os.path.join(nested, "sub"), "tmpfs", 2, "mode=700")
    return [os.path.join(top, "plain"), os.path.join(top, "file"), flagged, nested]


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="compare two runtimes by random configurations")
    parser.add_argument("--seed", type=int, default=1, help="the same cases for the same seed (1)")
    parser.add_argument("--count", type=int, default=1000, help="how many cases (1000)")
    parser.add_argument(
        "--seconds", type=float, default=0, help="stop after so long, whatever was counted"
    )
    parser.add_argument(
        "--whole", action="store_true", help="show cases as they are, not minimised"
    )
    parser.add_argument("--features", default="", help="only cases of these, with commas")
    parser.add_argument("--keep", metavar="FILE", help="write the minimised cases there, as JSON")
    parser.add_argument("runtimes", nargs=2, metavar="[NAME=]RUNTIME")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Compare; 0 if there is no difference but those that are meant."""
    options = parse(arguments)
    runtimes = [Runtime(text) for text in options.runtimes]
    if runtimes[0].name == runtimes[1].name:
        raise SystemExit("two runtimes of one name: write NAME=RUNTIME")
    signal.signal(signal.SIGTERM, lambda *unused: sys.exit(143))
    become_subreaper()
    unshare_mounts()
    able = abilities(runtimes)
    version = re.search(r"\d+\.\d+\S*", runtimes[1].version())
    other = f"{runtimes[1].name} {version.group() if version else ''}"
    meant = read_meant(os.path.join(HERE, "meant.md"), other)
    directory = tempfile.mkdtemp(prefix="anocir-differ-")
    os.chmod(directory, 0o755)
    mount("tmpfs", directory, "tmpfs", 0, "mode=755")
    found: list[tuple[Difference, Case]] = []
    began = time.monotonic()
    done = 0
    progress = Progress("differ", options.count)
    try:
        probe = compile_probe(directory)
        sources = make_sources(directory)
        sides = [Side(runtime, directory, probe, sources) for runtime in runtimes]
        differ = Differ(sides, able, meant, options.whole)
        numbers = random.Random(options.seed)
        only = [name for name in options.features.split(",") if name]
        while done < options.count and not (
            options.seconds and time.monotonic() - began > options.seconds
        ):
            chosen = generate.choose(numbers)
            if only:
                chosen = [entry for entry in chosen if entry[0] in only]
            for difference, case in differ.look(chosen):
                found.append((difference, case))
                show(difference, case, [runtime.name for runtime in runtimes])
            done += 1
            progress.step(f"{len(found)} kinds")
    finally:
        progress.end()
        end_orphans()
        remove_cgroups()
        unmount(directory)
        os.rmdir(directory)
    seen = {reason: 0 for _, reason in meant}
    for kind, count in differ.known.items():
        for pattern, reason in meant:
            if fnmatch.fnmatchcase(kind, pattern):
                seen[reason] += count
    print(
        f"{done} cases, seed {options.seed}, {time.monotonic() - began:.0f} s: {len(found)} kinds of difference not in meant.md"
    )
    for reason, count in seen.items():
        if count:
            print(f"  meant, {count} times: {reason}")
    if options.keep:
        with open(options.keep, "w", encoding="utf-8") as stream:
            json.dump(
                [[*difference, case._asdict()] for difference, case in found], stream, indent=1
            )
    return 1 if found else 0


def remove_cgroups() -> None:
    """Remove what the runtimes left below our parents."""
    for _, point in hierarchies():
        for top, _, _ in os.walk(f"{point}/differ-{os.getpid()}", topdown=False):
            with contextlib.suppress(OSError):
                os.rmdir(top)


def show(difference: Difference, case: Case, names: Sequence[str]) -> None:
    """One difference for people."""
    print(f"\n{difference.kind}")
    for name, value in zip(names, (difference.one, difference.other)):
        print(f"  {name:8} {value[:300]}")
    base = generate.build(
        [], Able((1, 0), frozenset(), frozenset(), False, frozenset(), 1), [""]
    ).config
    for key, value in case.config.items():
        if value == base.get(key):
            continue
        if isinstance(value, dict):
            changed = {
                name: item for name, item in value.items() if item != base.get(key, {}).get(name)
            }
            print(f"  {key}: {json.dumps(changed)[:500]}")
        else:
            print(f"  {key}: {json.dumps(value)[:500]}")
    if case.process:
        print(f"  exec --process: {json.dumps(case.process)[:300]}")
    if case.options:
        print(f"  options: {' '.join(case.options)}")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
