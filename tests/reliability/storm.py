"""Many at once, many in a row, a damaged state, a full disk: what a node does to a runtime in a bad week."""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any, Callable

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.reliability.crash import SLEEP, clean_up, config_for  # noqa: E402
from tests.reliability.ground import (  # noqa: E402
    PATIENCE,
    Ground,
    Progress,
    Runtime,
    mount,
    patience,
    proc_state,
    unmount,
)
from tests.wait import last  # noqa: E402

Figures = dict[str, Any]


def empty(**more: int) -> Figures:
    """The counters that every case here has."""
    return {"left after delete": 0, "delete failed": 0, "hangs": 0, **more, "examples": []}


def _out(ground: Ground, number: int) -> str:
    return os.path.join(ground.dir, f"out-{number}")


def _text(path: str) -> str:
    with open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()


def same_id(
    ground: Ground, runtime: Runtime, rounds: int, progress: Progress | None = None
) -> Figures:
    """Five creates of one id at once: exactly one succeeds, the others say why in one line."""
    figures = empty(rounds=rounds, **{"not exactly one": 0, "signal deaths": 0, "bad messages": 0})
    bundle = ground.bundle("same", SLEEP)
    for number in range(rounds):
        if progress:
            progress.step(f"{runtime.name}: five creates of one id")
        container = f"same-{number}"
        config_for(ground, bundle, container)
        words = ("create", "--bundle", bundle, container)
        pids = [ground.spawn(runtime, words, _out(ground, i)) for i in range(5)]
        ends = [ground.wait(pid)[0] for pid in pids]
        note = f"round {number}: {ends}"
        figures["hangs"] += ends.count(None)
        figures["signal deaths"] += sum(end is not None and end < 0 for end in ends)
        if ends.count(0) != 1:
            figures["not exactly one"] += 1
            figures["examples"].append(note)
        for i, end in enumerate(ends):
            text = _text(_out(ground, i) + ".err")
            if end != 0 and (len(text.strip().splitlines()) not in (1, 2) or "Traceback" in text):
                figures["bad messages"] += 1
                figures["examples"].append(f"{note}: {text[-300:]!r}")
        clean_up(ground, runtime, container, note, figures)
    ground.drop_bundle(bundle)
    return figures


def six_commands(
    ground: Ground, runtime: Runtime, rounds: int, progress: Progress | None = None
) -> Figures:
    """start, kill, delete, delete --force, state and exec at once on one container."""
    figures = empty(
        rounds=rounds, **{"signal deaths": 0, "tracebacks": 0, "forced delete failed": 0}
    )
    bundle = ground.bundle("six", SLEEP)
    for number in range(rounds):
        if progress:
            progress.step(f"{runtime.name}: six commands at once")
        container = f"six-{number}"
        config_for(ground, bundle, container)
        ground.call(runtime, "create", "--bundle", bundle, container)
        commands = (
            ("start", container),
            ("kill", container, "KILL"),
            ("delete", container),
            ("delete", "--force", container),
            ("state", container),
            ("exec", container, "/bin/true"),
        )
        pids = [ground.spawn(runtime, words, _out(ground, i)) for i, words in enumerate(commands)]
        ends = [ground.wait(pid)[0] for pid in pids]
        for i, end in enumerate(ends):
            text = _text(_out(ground, i) + ".err")
            what = f"round {number}: {' '.join(commands[i])}: {end}: {text.strip()[-300:]}"
            # exec's status may be that of its killed process: 137 then, but never a signal of its own
            if end is None or end < 0 or "Traceback" in text or "panic:" in text:
                figures["examples"].append(what)
            figures["hangs"] += end is None
            figures["signal deaths"] += end is not None and end < 0
            figures["tracebacks"] += "Traceback" in text or "panic:" in text
            if i == 3 and end not in (0, None):
                figures["forced delete failed"] += 1
                figures["examples"].append(what)
        clean_up(ground, runtime, container, f"round {number}", figures)
    ground.drop_bundle(bundle)
    return figures


def creates_at_once(ground: Ground, runtime: Runtime, count: int) -> Figures:
    """`count` creates at once, then as many deletes at once."""
    figures = empty(count=count, failed=0)
    bundles = [ground.bundle(f"many-{number}", SLEEP) for number in range(count)]
    names = [os.path.basename(bundle) for bundle in bundles]
    began = time.monotonic()
    pids = [
        ground.spawn(runtime, ("create", "--bundle", b, name), _out(ground, i))
        for i, (b, name) in enumerate(zip(bundles, names))
    ]
    ends = [ground.wait(pid, 5 * PATIENCE)[0] for pid in pids]
    figures["seconds"] = round(time.monotonic() - began, 2)
    for i, end in enumerate(ends):
        if end != 0:
            figures["failed"] += 1
            figures["examples"].append(
                f"create: {end}: {_text(_out(ground, i) + '.err').strip()[-300:]}"
            )
    figures["hangs"] = ends.count(None)
    began = time.monotonic()
    pids = [ground.spawn(runtime, ("delete", "--force", name)) for name in names]
    gone = [ground.wait(pid, 5 * PATIENCE)[0] for pid in pids]
    figures["delete seconds"] = round(time.monotonic() - began, 2)
    figures["delete failed"] = sum(end != 0 for end in gone)
    left = ground.settled(runtime)
    figures["left after delete"] = len(left)
    figures["examples"] += left[:5]
    ground.sweep()
    for bundle in bundles:
        ground.drop_bundle(bundle)
    return figures


def list_of(
    ground: Ground, runtime: Runtime, count: int, progress: Progress | None = None
) -> Figures:
    """`list` among `count` stopped containers (their state directories count, not their processes)."""
    figures = empty(count=count, failed=0)
    names = []
    for first in range(0, count, 4):
        batch = []
        for number in range(first, min(first + 4, count)):
            name = f"list-{number}"
            bundle = ground.bundle(name)
            batch.append(ground.spawn(runtime, ("run", "--detach", "--bundle", bundle, name)))
            names.append(name)
        figures["failed"] += sum(ground.wait(pid)[0] != 0 for pid in batch)
        ground.reap()
        if progress:
            progress.step(f"{runtime.name}: making {count} containers, {len(names)}")
    times = []
    for _ in range(3):
        result = ground.call(runtime, "list")
        times.append(result.wall)
        shown = sum("list-" in line for line in result.out.splitlines())
        if result.status != 0 or shown != count:
            figures["failed"] += 1
            figures["examples"].append(f"list: status {result.status}, {shown} of {count} shown")
    figures["seconds"] = round(min(times), 3)
    for first in range(0, count, 4):
        pids = [
            ground.spawn(runtime, ("delete", "--force", name)) for name in names[first : first + 4]
        ]
        figures["delete failed"] += sum(ground.wait(pid)[0] != 0 for pid in pids)
    left = ground.settled(runtime)
    figures["left after delete"] = len(left)
    figures["examples"] += left[:5]
    ground.sweep()
    for name in names:
        ground.drop_bundle(os.path.join(ground.dir, "bundles", name))
    return figures


def census(ground: Ground, runtime: Runtime) -> dict[str, int]:
    """Figures of the machine that many runs must not change."""
    with ground.inside(runtime), open("/proc/thread-self/mountinfo", encoding="utf-8") as stream:
        mounts = len(stream.readlines())
    with open("/proc/keys", encoding="utf-8") as stream:
        keyrings = sum(f"_ses.{RUNS}" in line for line in stream)
    return {
        "superblocks": next_superblock(ground),
        "mounts": mounts,
        "keyrings": keyrings,
        "left": len(ground.settled(runtime)),
        "temporary files": len(os.listdir("/tmp")) + len(os.listdir("/dev/shm")),
    }


def next_superblock(ground: Ground) -> int:
    """The minor number of a new file system: the kernel gives the lowest free one, so leaks raise it."""
    point = os.path.join(ground.dir, "superblock")
    os.makedirs(point, exist_ok=True)
    mount("tmpfs", point, "tmpfs", 0)
    number = os.minor(os.stat(point).st_dev)
    unmount(point)
    return number


RUNS = "leak-run"


def grown(before: dict[str, int], after: dict[str, int], count: int) -> list[str]:
    """The figures that `count` runs have raised.

    Others mount and use /tmp too, so of those only a leak that follows the number of runs counts.
    """
    shared = ("temporary files", "superblocks")
    return [
        name
        for name, figure in after.items()
        if figure > before[name] + (count // 2 if name in shared else 0)
    ]


def runs(ground: Ground, runtime: Runtime, count: int, progress: Progress | None = None) -> Figures:
    """`count` runs in a row: nothing of the machine grows."""
    figures = empty(count=count, failed=0, grown=0)
    bundle = ground.bundle(RUNS)
    before = census(ground, runtime)
    for number in range(count):
        if progress:
            progress.step(f"{runtime.name}: {count} runs in a row")
        result = ground.call(runtime, "run", "--bundle", bundle, f"{RUNS}-{number}")
        if result.status != 0:
            figures["failed"] += 1
            figures["examples"].append(f"run: {result.status}: {result.err.strip()[-300:]}")
    # the kernel frees keyrings and namespaces, with their file systems, of dead processes a little later
    after = last(
        lambda: census(ground, runtime),
        PATIENCE,
        pause=0.1,
        found=lambda now: not grown(before, now, count),
    )
    more = grown(before, after, count)
    figures["grown"] = len(more)
    figures["examples"] += [f"{name}: {before[name]} before, {after[name]} after" for name in more]
    figures["left after delete"] = after["left"]
    ground.drop_bundle(bundle)
    return figures


# ---------------------------------------------------------------------- damaged state


def replace_pid(value: Any, pid: int, new: int) -> Any:
    """The document with each occurrence of a pid replaced."""
    if isinstance(value, dict):
        return {key: replace_pid(item, pid, new) for key, item in value.items()}
    if isinstance(value, list):
        return [replace_pid(item, pid, new) for item in value]
    return new if value == pid and not isinstance(value, bool) else value


DAMAGES: dict[str, Callable[[bytes, int], bytes | None]] = {
    "empty": lambda data, pid: b"",
    "truncated": lambda data, pid: data[: len(data) // 2],
    "garbage": lambda data, pid: b"\x00\xff{[not json" * 40,
    "another type": lambda data, pid: b"[]",
    "empty object": lambda data, pid: b"{}",
    "missing": lambda data, pid: None,
    "pid 1": lambda data, pid: json.dumps(replace_pid(json.loads(data), pid, 1)).encode(),
    "pid -1": lambda data, pid: json.dumps(replace_pid(json.loads(data), pid, -1)).encode(),
    "pid 0": lambda data, pid: json.dumps(replace_pid(json.loads(data), pid, 0)).encode(),
    "pid 2^31-1": lambda data, pid: json.dumps(
        replace_pid(json.loads(data), pid, 2**31 - 1)
    ).encode(),
    "a pid of another": lambda data, pid: json.dumps(
        replace_pid(json.loads(data), pid, os.getpid())
    ).encode(),
    "nested 100000 deep": lambda data, pid: b"[" * 100000,
}


def damage(ground: Ground, runtime: Runtime, progress: Progress | None = None) -> Figures:
    """Damage each file of a container's state, with init alive: others stay usable, delete --force removes all."""
    figures = empty(
        cases=0, **{"list broken": 0, "others hurt": 0, "tracebacks": 0, "init alive": 0}
    )
    bundle = ground.bundle("damage", SLEEP)
    other_bundle = ground.bundle("bystander", SLEEP)
    number = which = 0
    more = True
    while more and which < 10:
        for name in DAMAGES:
            number += 1
            if progress:
                progress.step(f"{runtime.name}: damaged state, {name}")
            container = f"damage-{number}"
            more = _one_damage(
                ground, runtime, (bundle, other_bundle), container, which, name, figures
            )
            if not more:
                break
        which += 1
    ground.drop_bundle(bundle)
    ground.drop_bundle(other_bundle)
    return figures


def _one_damage(
    ground: Ground,
    runtime: Runtime,
    bundles: tuple[str, str],
    container: str,
    which: int,
    name: str,
    figures: Figures,
) -> bool:
    """Damage the `which`-th file of one container's state; False if it has no such file."""
    bundle, other_bundle = bundles
    config_for(ground, bundle, container)
    pid_file = os.path.join(ground.dir, "pid")
    made = ground.call(runtime, "create", "--bundle", bundle, "--pid-file", pid_file, container)
    if made.status != 0:
        raise RuntimeError(f"{runtime.name} create: {made.err}")
    pid = int(_text(pid_file))
    directory = os.path.join(runtime.root, container)
    files = sorted(
        entry
        for entry in os.listdir(directory)
        if os.path.isfile(os.path.join(directory, entry))
        and os.path.getsize(os.path.join(directory, entry))
    )
    if which >= len(files):
        clean_up(ground, runtime, container, "unused", figures)
        return False
    path = os.path.join(directory, files[which])
    note = f"{files[which]}: {name}"
    with open(path, "rb") as stream:
        data = stream.read()
    try:
        new = DAMAGES[name](data, pid)
    except ValueError:
        new = data  # no JSON, so it holds no pid to replace
    if new is None:
        os.unlink(path)
    else:
        with open(path, "wb") as stream:
            stream.write(new)
    config_for(ground, other_bundle, "bystander")
    ground.call(runtime, "create", "--bundle", other_bundle, "bystander")
    figures["cases"] += 1
    listed = ground.call(runtime, "list")
    if listed.status != 0 or "bystander" not in listed.out:
        figures["list broken"] += 1
        figures["examples"].append(f"{note}: list: {listed.status}: {listed.err.strip()[-200:]}")
    shown = ground.call(runtime, "state", container)
    for text in (listed.err, shown.err):
        if "Traceback" in text or "panic:" in text:
            figures["tracebacks"] += 1
            figures["examples"].append(f"{note}: {text[-300:]}")
    gone = ground.call(runtime, "delete", "--force", container)
    if gone.status is None:
        figures["hangs"] += 1
    elif gone.status != 0:
        figures["delete failed"] += 1
        figures["examples"].append(
            f"{note}: delete --force: {gone.status}: {gone.err.strip()[-200:]}"
        )
    ground.reap()
    left = ground.leftovers(runtime, container)
    left = [item for item in left if not item.startswith("process")]
    if not last(lambda: proc_state(pid) in ("", "Z", "X"), patience(runtime)):
        figures["init alive"] += 1
        left.append(f"init {pid}")
    if left:
        figures["left after delete"] += 1
        figures["examples"].append(f"{note}: left: {', '.join(left)[:300]}")
    other = ground.call(runtime, "state", "bystander")
    if other.status != 0 or '"created"' not in other.out:
        figures["others hurt"] += 1
        figures["examples"].append(f"{note}: the other container: {other.err.strip()[-200:]}")
    ground.call(runtime, "delete", "--force", "bystander")
    ground.sweep()
    return True


# ---------------------------------------------------------------------- full disk


def full_disk(ground: Ground, runtime: Runtime) -> Figures:
    """A state directory without room: create fails and leaves nothing; the other commands need no room."""
    figures = empty(cases=0, wrong=0)
    for what in ("blocks", "inodes"):
        for command in ("create", "run", "start", "exec", "state", "list", "kill", "delete"):
            figures["cases"] += 1
            _on_full_disk(ground, runtime, what, command, figures)
    return figures


def _on_full_disk(
    ground: Ground, runtime: Runtime, what: str, command: str, figures: Figures
) -> None:
    """One command on a full state directory."""
    container = f"full-{what}-{command}"
    bundle = ground.bundle(container, SLEEP)
    with ground.inside(runtime):
        mount("tmpfs", runtime.root, "tmpfs", 0, "mode=700,size=256k,nr_inodes=40")
        try:
            if command in ("start", "exec", "state", "list", "kill", "delete"):
                made = ground.call(runtime, "create", "--bundle", bundle, container)
                if made.status:
                    figures["wrong"] += 1
                    figures["examples"].append(f"create with 256 KiB of room: {made.err.strip()}")
                    return
            if command in ("exec", "kill", "delete"):
                ground.call(runtime, "start", container)
            _fill(runtime.root, what)
            words = {
                "create": ("create", "--bundle", bundle, container),
                "run": ("run", "--detach", "--bundle", bundle, container),
                "start": ("start", container),
                "exec": ("exec", container, "/bin/true"),
                "state": ("state", container),
                "list": ("list",),
                "kill": ("kill", container, "KILL"),
                "delete": ("delete", "--force", container),
            }[command]
            result = ground.call(runtime, *words)
            note = f"{what} used up: {command}"
            expected: tuple[int, ...] = (0,)
            if command in ("create", "run"):
                expected = (1,)
            elif command in ("start", "exec"):
                expected = (0, 1, 255)
            lines = result.err.strip().splitlines()
            if result.status not in expected or "Traceback" in result.err:
                figures["wrong"] += 1
                figures["examples"].append(f"{note}: {result.status}: {result.err.strip()[-300:]}")
            elif result.status and "no space" not in result.err.lower():
                figures["wrong"] += 1
                figures["examples"].append(f"{note}: does not say why: {lines[-1:]}")
            if command in ("create", "run"):
                left = [
                    item for item in ground.settled(runtime, container) if runtime.root != item[6:]
                ]
                if left:
                    figures["wrong"] += 1
                    figures["examples"].append(f"{note}: leaves {', '.join(left)[:300]}")
            gone = ground.call(runtime, "delete", "--force", container)
            if gone.status != 0:
                figures["delete failed"] += 1
                figures["examples"].append(
                    f"{note}: delete --force: {gone.status}: {gone.err[-300:]}"
                )
            left = [item for item in ground.settled(runtime, container) if runtime.root != item[6:]]
            if left:
                figures["left after delete"] += 1
                figures["examples"].append(f"{note}: left {', '.join(left)[:300]}")
        finally:
            unmount(runtime.root)
    ground.sweep()
    ground.drop_bundle(bundle)


def _fill(directory: str, what: str) -> None:
    """Use up the room of a small file system."""
    try:
        if what == "blocks":
            with open(os.path.join(directory, ".filler"), "wb", buffering=0) as stream:
                while True:
                    stream.write(b"x" * 4096)
        else:
            for number in range(1000):
                os.symlink("x", os.path.join(directory, f".filler-{number}"))
    except OSError:
        return
