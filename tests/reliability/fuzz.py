#!/usr/bin/python3
"""Mutated configurations: whatever config.json says, a runtime answers in one line, in time, and leaves nothing.

usage: fuzz.py [--count N] [--seed S] [--first N] [--corpus DIR] [--save DIR] RUNTIME...

Each case is a good configuration with one to four mutations of its JSON, or with bytes changed. It is
created, started if that worked, deleted by force, and the machine looked over. A case is a function of (seed, number)
alone, so `--seed S --first N --count 1` repeats it. Cases that found something are kept in the corpus, and
every run replays the corpus first.

Some mutations would aim at the host and not at the runtime (joining the host's mount namespace, resources of the
root cgroup, "/" as the root), so strings are replaced from a pool, and a case whose paths left the fuzzer's own
directory is passed over.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import random
import sys
from collections.abc import Sequence
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.bench.bench import docker_config  # noqa: E402
from tests.host import BLAME, around  # noqa: E402
from tests.reliability.ground import (  # noqa: E402
    PATIENCE,
    Config,
    Ground,
    Progress,
    Runtime,
    base_config,
)

CORPUS = os.path.join(HERE, "corpus")
CONTAINER = "fuzz"
# A command that computes for longer has lost itself somewhere. Not the seconds on the wall, which a busy machine
# makes as many as it likes; only what does not end at all is a hang.
SLOW = 2.0
HANG = PATIENCE

NUMBERS: tuple[Any, ...] = (
    *(0, 1, -1, 2, 4095, 4096, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**32, 2**32 - 1),
    *(
        2**53,
        2**63 - 1,
        2**63,
        2**64 - 1,
        2**64,
        -(2**63),
        -(2**63) - 1,
        10**40,
        0.5,
        -0.0,
        1e308,
        1e-320,
    ),
)
STRINGS = (
    "",
    " ",
    "/",
    ".",
    "..",
    "../../..",
    "a\0b",
    "\0",
    "ü",
    "\ud800",
    "a\nb",
    "%s%n",
    "/nonexistent",
    "/proc/self/exe",
    "/dev/null",
    "/tmp/../../etc",
    "x" * 300,
    "x" * 5000,
    "/" + "y/" * 2100,
    "SCMP_ACT_BOGUS",
    "CAP_BOGUS",
    "RLIMIT_BOGUS",
    "bogus",
    "bind",
    "rbind,ro",
    "tmpfs",
    "proc",
    "cgroup",
    "user",
    "pid",
    "true",
    "1",
)
OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, [1, "x", {}])


def seeds(rootfs: str) -> list[Config]:
    """Good configurations that reach most of the runtime."""
    plain = base_config(rootfs, ("/bin/true",))

    docker = copy.deepcopy(plain)
    docker_config(docker)

    mapped = copy.deepcopy(plain)
    mapped["linux"]["namespaces"].append({"type": "user"})
    for kind in ("uidMappings", "gidMappings"):
        mapped["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 65536}]

    rich = copy.deepcopy(plain)
    rich["annotations"] = {"org.example.key": "value", "org.example.other": ""}
    hook = {"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 2}
    rich["hooks"] = {
        name: [dict(hook), dict(hook)]
        for name in ("prestart", "createRuntime", "createContainer", "poststart", "poststop")
    }
    rich["mounts"] += [
        {
            "destination": "/tmp",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["size=1m", "mode=700"],
        },
        {
            "destination": "/tmp/a",
            "type": "bind",
            "source": rootfs + "/etc",
            "options": ["rbind", "ro"],
        },
        {
            "destination": "/tmp/b/c",
            "type": "none",
            "source": rootfs + "/tmp",
            "options": ["bind", "rprivate"],
        },
    ]
    process = rich["process"]
    process["oomScoreAdj"] = 100
    process["user"] = {"uid": 1000, "gid": 1000, "umask": 18, "additionalGids": [5, 6]}
    process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 4}
    process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 1}
    process["capabilities"]["ambient"] = ["CAP_KILL"]
    process["capabilities"]["inheritable"] = ["CAP_KILL"]
    linux = rich["linux"]
    linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8192"}
    linux["rootfsPropagation"] = "private"
    linux["personality"] = {"domain": "LINUX"}
    linux["devices"] = [
        {
            "path": "/dev/fuse",
            "type": "c",
            "major": 10,
            "minor": 229,
            "fileMode": 438,
            "uid": 0,
            "gid": 0,
        },
        {"path": "/dev/pipe", "type": "p", "fileMode": 384},
    ]
    linux["resources"] = {
        "devices": [
            {"allow": False, "access": "rwm"},
            {"allow": True, "type": "c", "access": "rw"},
        ],
        "memory": {"limit": 64 << 20, "reservation": 32 << 20, "swappiness": 10},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "0", "mems": "0"},
        "pids": {"limit": 64},
        "blockIO": {"throttleReadBpsDevice": []},
        "hugepageLimits": [],
        "unified": {},
    }
    linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {
                "names": ["getcwd", "bogus_call"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": 38,
                "args": [{"index": 0, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"}],
            }
        ],
    }
    timed = copy.deepcopy(plain)
    timed["linux"]["namespaces"] += [{"type": "time"}, {"type": "cgroup"}]
    timed["linux"]["timeOffsets"] = {"monotonic": {"secs": 100, "nanosecs": 5}}
    timed["ociVersion"] = "1.2.0"
    timed["domainname"] = "example"
    timed["linux"]["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": ["SECCOMP_FILTER_FLAG_LOG"],
    }
    timed["process"]["terminal"] = False
    return [plain, docker, mapped, rich, rich, timed]


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of every value in a document."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value[:40]):
            found += places(item, (*path, index))
    return found


def lookup(config: Any, path: tuple[Any, ...]) -> Any:
    """The value at a path."""
    for step in path:
        config = config[step]
    return config


def mutate_tree(config: Config, chance: random.Random, spare: list[Config]) -> None:
    """Change one value of a document in place."""
    path = chance.choice(places(config))
    parent, key = lookup(config, path[:-1]), path[-1]
    old = parent[key]
    what = chance.randrange(10)
    if what == 0:
        del parent[key]
    elif what == 1 and isinstance(parent, list):
        parent.insert(chance.randrange(len(parent) + 1), copy.deepcopy(old))
    elif what == 2 and isinstance(parent, dict):
        parent[chance.choice(STRINGS)] = copy.deepcopy(old)
    elif what == 3:
        donor = chance.choice(spare)
        parent[key] = copy.deepcopy(lookup(donor, chance.choice(places(donor))))
    elif what == 4 and isinstance(old, list) and old:
        chance.shuffle(old)
    elif what == 5 and isinstance(old, list) and old:
        parent[key] = old * chance.choice((2, 50, 1000 // len(old) + 1))
    elif isinstance(old, str):
        parent[key] = chance.choice(
            (chance.choice(STRINGS), old + chance.choice(STRINGS), chance.choice(NUMBERS))
        )
    elif isinstance(old, (int, float)) and not isinstance(old, bool):
        parent[key] = chance.choice((chance.choice(NUMBERS), -old, old * 1000, str(old)))
    else:
        # a copy: the next mutation may change it, and a case must not change those that follow
        parent[key] = copy.deepcopy(
            chance.choice((*OTHERS, chance.choice(NUMBERS), chance.choice(STRINGS)))
        )


def mutate_bytes(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, repeat or add bytes."""
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(data))
        what = chance.randrange(6)
        if what == 0:
            data = data[:at] + bytes([data[at] ^ (1 << chance.randrange(8))]) + data[at + 1 :]
        elif what == 1:
            data = data[:at] + data[at + chance.randrange(1, 40) :]
        elif what == 2:
            data = data[:at] + data[at : at + 40] + data[at:]
        elif what == 3:
            piece = chance.choice(
                (
                    b"[" * 600,
                    b"\xff\xfe",
                    b"\xed\xa0\x80",
                    b'"a":1,',
                    b"NaN",
                    b"1e999",
                    b"//",
                    b"\0",
                )
            )
            data = data[:at] + piece + data[at:]
        elif what == 4:
            data = data[:at]
        else:
            data += chance.choice((b"{}", b"x", b" \n", b"]"))
        data = data or b" "
    return data


def case(number: int, seed: int, rootfs: str, parent: str) -> bytes:
    """The config.json of one case."""
    chance = random.Random(f"{seed}-{number}")
    spare = seeds(rootfs)
    config = copy.deepcopy(chance.choice(spare))
    config["linux"]["cgroupsPath"] = f"{parent}/{CONTAINER}"
    by_bytes = chance.random() < 0.2
    if not by_bytes:
        for _ in range(chance.choice((1, 1, 1, 2, 4))):
            mutate_tree(config, chance, spare)
    try:
        data = json.dumps(config).encode("utf-8", "surrogatepass")
    except (ValueError, RecursionError):
        data = b"{}"
    return mutate_bytes(data, chance) if by_bytes else data


def aims_at_host(data: bytes, home: str, parent: str) -> bool:
    """True for a case that could harm the machine through a runtime that does as it is told."""
    try:
        config = json.loads(data)
    except (ValueError, RecursionError):
        return False
    if not isinstance(config, dict):
        return False
    linux = config.get("linux")
    linux = linux if isinstance(linux, dict) else {}
    group = linux.get("cgroupsPath", parent)
    if isinstance(group, str) and (
        not group.startswith(parent + "/" + CONTAINER[:3]) or ".." in group
    ):
        return True
    root = config.get("root")
    path = root.get("path") if isinstance(root, dict) else None
    if isinstance(path, str) and (not path.startswith(home) or ".." in path):
        return True
    namespaces = linux.get("namespaces")
    if not isinstance(namespaces, list):
        namespaces = []
    types = [item.get("type") for item in namespaces if isinstance(item, dict)]
    # without a namespace of its own the container would shut down, unmount or configure the fuzzer's
    return bool(
        {"mount", "network", "ipc", "uts"} - {kind for kind in types if isinstance(kind, str)}
    ) and ("sysctl" in linux or "mount" not in types)


def judge(
    ground: Ground, runtime: Runtime, bundle: str, data: bytes, strict: bool
) -> tuple[str, list[str]]:
    """(what happened, what is wrong) for one configuration."""
    with open(os.path.join(bundle, "config.json"), "wb") as stream:
        stream.write(data)
    wrong = []
    made = ground.call(runtime, "create", "--bundle", bundle, CONTAINER, seconds=HANG)
    results = [("create", made)]
    if made.status == 0:
        results.append(("start", ground.call(runtime, "start", CONTAINER, seconds=HANG)))
    results.append(("delete", ground.call(runtime, "delete", "--force", CONTAINER, seconds=HANG)))
    for name, result in results:
        if result.status is None:
            wrong.append(f"{name} hangs")
        elif result.status < 0:
            wrong.append(f"{name} died of signal {-result.status}")
        elif result.status not in (0, 1) and strict:
            wrong.append(f"{name} gave {result.status}")
        if result.cpu > SLOW and result.status is not None:
            wrong.append(f"{name} computed for {result.cpu:.1f} s")
        # What a configuration is warned of is said beside what it is refused for.
        lines = [line for line in result.err.splitlines() if ": warning: " not in line]
        if any(
            word in result.err
            for word in ("Traceback", "panic:", "bug in ", "Segmentation", "Fatal Python")
        ):
            wrong.append(f"{name} crashed: {result.err.strip()[-300:]}")
        if strict and result.status == 1 and not 1 <= len(lines) <= 2:
            wrong.append(f"{name} explains itself in {len(lines)} lines")
    if results[-1][1].status not in (0, None):
        wrong.append(
            f"delete --force gave {results[-1][1].status}: {results[-1][1].err.strip()[-200:]}"
        )
    left = ground.settled(runtime, CONTAINER)
    if left:
        wrong.append(f"left: {', '.join(left)[:300]}")
    if wrong:
        ground.sweep()
    if made.status == 0:
        return ("runs" if results[1][1].status == 0 else "fails in start"), wrong
    return "refused", wrong


def fuzz(
    ground: Ground,
    runtime: Runtime,
    count: int,
    seed: int = 1,
    first: int = 0,
    corpus: str = CORPUS,
    keep: str = "",
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Replay the corpus, then `count` cases; findings are written to `keep`."""
    figures: dict[str, Any] = {
        "cases": 0,
        "runs": 0,
        "fails in start": 0,
        "refused": 0,
        "passed over": 0,
        "findings": 0,
        "examples": [],
    }
    # one line and status 0 or 1 is what anocir promises; others are only asked not to crash, hang or leak
    strict = runtime.name.startswith("anocir")
    rootfs = os.path.join(ground.dir, "bundles", CONTAINER, "rootfs")
    bundle = ground.bundle(CONTAINER, own_rootfs=True)

    def one(name: str, data: bytes) -> None:
        if progress:
            progress.step(f"{runtime.name}: {name}")
        if aims_at_host(data, rootfs, ground.parent):
            figures["passed over"] += 1
            return
        figures["cases"] += 1
        outcome, wrong = judge(ground, runtime, bundle, data, strict)
        figures[outcome] += 1
        if wrong:
            figures["findings"] += 1
            figures["examples"].append(f"{name}: {'; '.join(wrong)}")
            if keep:
                os.makedirs(keep, exist_ok=True)
                text = data.replace(rootfs.encode(), b"@ROOTFS@").replace(
                    ground.parent.encode(), b"@PARENT@"
                )
                with open(os.path.join(keep, f"{name}.json".replace(" ", "-")), "wb") as stream:
                    stream.write(text)

    for entry in sorted(os.listdir(corpus)) if os.path.isdir(corpus) else ():
        if entry.endswith(".json"):
            one(entry[:-5], from_corpus(os.path.join(corpus, entry), rootfs, ground.parent))
    for number in range(first, first + count):
        one(f"case {seed} {number}", case(number, seed, rootfs, ground.parent))
    ground.drop_bundle(bundle)
    return figures


def from_corpus(path: str, rootfs: str, parent: str) -> bytes:
    """A kept case with this run's paths."""
    with open(path, "rb") as stream:
        data = stream.read()
    return data.replace(b"@ROOTFS@", rootfs.encode()).replace(b"@PARENT@", parent.encode())


def main(arguments: Sequence[str]) -> int:
    """Fuzz each runtime; 1 if any finding is anocir's."""
    parser = argparse.ArgumentParser(description="mutated configurations")
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--corpus", default=CORPUS, help="replayed first")
    parser.add_argument("--keep", default="", metavar="DIR", help="where findings are written")
    parser.add_argument("runtimes", nargs="*", metavar="[NAME=]RUNTIME")
    options = parser.parse_args(arguments)
    runtimes = [Runtime(text) for text in options.runtimes or ["dist/anocir"]]
    kept = (
        sum(name.endswith(".json") for name in os.listdir(options.corpus))
        if os.path.isdir(options.corpus)
        else 0
    )
    progress = Progress("fuzz", (options.count + kept) * len(runtimes))
    keep = os.path.abspath(options.keep) if options.keep else ""
    corpus = os.path.abspath(options.corpus)
    bad = 0
    with Ground("fuzz", runtimes) as ground:
        for runtime in runtimes:
            with around("fuzzing", runtime.name):
                figures = fuzz(
                    ground,
                    runtime,
                    options.count,
                    options.seed,
                    options.first,
                    corpus,
                    keep,
                    progress,
                )
            progress.end()
            examples = figures.pop("examples")
            print(
                f"{runtime.name}: " + ", ".join(f"{value} {key}" for key, value in figures.items())
            )
            for example in examples[:50]:
                print(f"  {example}")
            bad += len(examples) if runtime.name.startswith("anocir") else 0
    return 1 if bad or BLAME else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
