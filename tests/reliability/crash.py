"""SIGKILL of the runtime at random moments: `delete --force` has to remove whatever it had made.

The runtime of a node is killed by the OOM killer, by an impatient shim, by a shutdown. What it leaves behind
is a leak that nobody finds, or an id that can never be used again.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.reliability.ground import Ground, Progress, Runtime  # noqa: E402

COMMANDS = ("create", "start", "exec", "delete", "run")
# asked for by name: into a container that runs, and out of it
INTO = (
    "update-device", "mounts-add", "exec-tools", "mounts-remove", "kill", "pause", "resume", "update"
)  # fmt: skip
WITH_CRIU = ("checkpoint", "restore")  # asked for by name: it takes a criu that works
KILLED = ("create", "start", "exec", "delete")  # at random; run is create and start
SLEEP = ("/bin/sleep", "1000")


def words_of(command: str, container: str, bundle: str) -> tuple[str, ...]:
    """The command line that is killed."""
    return {
        "create": ("create", "--bundle", bundle, container),
        "run": ("run", "--detach", "--bundle", bundle, container),
        "start": ("start", container),
        "exec": ("exec", container, "/bin/true"),
        "delete": ("delete", "--force", container),
        "update-device": ("update", "--device-add", "/dev/kmsg:/dev/new/kmsg", container),
        "mounts-add": ("mounts", "add", container, f"{bundle}/mounts.json"),
        "mounts-remove": ("mounts", "remove", container, f"{bundle}/mounts.json"),
        "kill": ("kill", container, "KILL"),
        "pause": ("pause", container),
        "resume": ("resume", container),
        "update": ("update", "--pids-limit", "50", "--memory", "64M", container),
        "exec-tools": ("exec", "--tools", "busybox", container, "true"),
        "run-record": (
            "run", "--detach", "--record-seccomp", f"{bundle}/profile.json", "--bundle", bundle,
            container,
        ),
        "checkpoint": ("checkpoint", "--image-path", f"{bundle}/images", container),
        "restore": (
            "restore", "--detach", "--bundle", bundle, "--image-path", f"{bundle}/images", container
        ),
    }[command]  # fmt: skip


def prepare(ground: Ground, runtime: Runtime, command: str, container: str, bundle: str) -> None:
    """Bring a container into the state that the command starts from; images are made once."""
    if command == "restore":
        if not os.path.exists(f"{bundle}/images"):
            prepare(ground, runtime, "checkpoint", container, bundle)
            done = ground.call(runtime, *words_of("checkpoint", container, bundle))
            if done.status != 0:
                raise RuntimeError(f"{runtime.name} checkpoint: {done.status}: {done.err.strip()}")
        return
    if command.startswith("mounts-"):
        with open(f"{bundle}/mounts.json", "w", encoding="utf-8") as stream:
            stream.write('[{"destination": "/dev/shm", "type": "tmpfs"},')
            stream.write(f'{{"destination": "/tmp", "source": "{bundle}", "options": ["rbind"]}}]')
    if command in ("start", "exec", "delete", "checkpoint", *INTO):
        made = ground.call(runtime, "create", "--bundle", bundle, container)
        if made.status != 0:
            raise RuntimeError(f"{runtime.name} create: {made.status}: {made.err.strip()}")
    if command in ("exec", "delete", "checkpoint", *INTO):
        started = ground.call(runtime, "start", container)
        if started.status != 0:
            raise RuntimeError(f"{runtime.name} start: {started.status}: {started.err.strip()}")
    before = {"resume": "pause", "mounts-remove": "mounts-add"}.get(command)
    if before:
        done = ground.call(runtime, *words_of(before, container, bundle))
        if done.status != 0:
            raise RuntimeError(f"{runtime.name} {before}: {done.status}: {done.err.strip()}")


def kill_randomly(
    ground: Ground,
    runtime: Runtime,
    command: str,
    count: int,
    seed: int = 1,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Kill `command` at random moments until `count` kills came in time; see the keys of the result."""
    chance = random.Random(f"{seed}-{command}")
    bundle = ground.bundle(f"crash-{command}", SLEEP, own_rootfs=False)
    lengths = []
    figures: dict[str, Any] = {
        "kills": 0,
        "in time": 0,
        "left after delete": 0,
        "delete failed": 0,
        "hangs": 0,
        "id not usable again": 0,
        "examples": [],
    }
    for number in range(3 * count + 3):
        # a kill that came too late proves nothing, so only the others count, within reason
        if figures["in time"] >= count:
            break
        container = f"crash-{command}-{number}"
        config_for(ground, bundle, container)
        prepare(ground, runtime, command, container, bundle)
        words = words_of(command, container, bundle)
        if number < 3:
            lengths.append(ground.call(runtime, *words).wall)
            longest = sorted(lengths)[len(lengths) // 2]
        else:
            if progress and figures["kills"] < count:
                progress.step(f"{runtime.name}: {command} killed")
            figures["kills"] += 1
            moment = chance.uniform(0, longest)
            pid = ground.spawn(runtime, words, os.path.join(ground.dir, "out"))
            time.sleep(moment)
            os.kill(pid, signal.SIGKILL)
            status, _ = ground.wait(pid)
            in_time = status == -signal.SIGKILL
            figures["in time"] += in_time
            # the machine may have become faster, or slower, than it was for the first three
            longest *= 1.1 if in_time else 0.9
        note = f"{command} killed after {0 if number < 3 else 1000 * moment:.1f} ms"
        clean_up(ground, runtime, container, note, figures)
        if number >= 3 and number % 10 == 0:
            again = ground.call(runtime, "create", "--bundle", bundle, container)
            figures["id not usable again"] += again.status != 0
            ground.call(runtime, "delete", "--force", container)
            ground.sweep()
    ground.drop_bundle(bundle)
    return figures


def config_for(ground: Ground, bundle: str, container: str) -> None:
    """Give the bundle's configuration the container's own cgroup."""
    import json

    path = os.path.join(bundle, "config.json")
    with open(path, encoding="utf-8") as stream:
        config = json.load(stream)
    config["linux"]["cgroupsPath"] = f"{ground.parent}/{container}"
    with open(path, "w", encoding="utf-8") as stream:
        json.dump(config, stream)


def clean_up(
    ground: Ground, runtime: Runtime, container: str, note: str, figures: dict[str, Any]
) -> list[str]:
    """delete --force, then the census; what is found is counted, noted, and removed for the next case."""
    gone = ground.call(runtime, "delete", "--force", container)
    if gone.status is None:
        figures["hangs"] += 1
        figures["examples"].append(f"{note}: delete --force hangs")
    elif gone.status != 0:
        figures["delete failed"] += 1
        figures["examples"].append(
            f"{note}: delete --force: {gone.status}: {gone.err.strip()[-200:]}"
        )
    left = ground.settled(runtime, container)
    if left:
        figures["left after delete"] += 1
        figures["examples"].append(f"{note}: left: {', '.join(left)[:400]}")
        ground.sweep()
    return left
