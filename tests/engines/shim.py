"""A runtime in front of the runtime: it records each call and execs the real one.

Engines differ in the command lines, environments and descriptors that they give; the record is the
witness. The shim can also take capabilities out of config.json that this machine does not have.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Dict, List

from tests.engines.box import Box

# Runs with whatever an engine gives: no PATH, no HOME, closed descriptors, an ignored SIGPIPE.
SOURCE = """#!/usr/bin/python3 -IS
import json, os, sys
REAL, RECORD, FILTERED = {real!r}, {record!r}, {filtered!r}
argv = sys.argv[1:]
# As given: Python itself adds LC_CTYPE where no locale is set.
given = open("/proc/self/environ", "rb").read().decode("utf-8", "surrogateescape").split("\\0")
env = dict(item.partition("=")[::2] for item in given if item)
if RECORD:
    fds = []
    for name in os.listdir("/proc/self/fd"):
        try:
            fds.append([int(name), os.readlink("/proc/self/fd/" + name)])
        except OSError:
            pass
    ignored = [x.split()[1] for x in open("/proc/self/status") if x.startswith("SigIgn")][0]
    entry = dict(argv=argv, env=env, cwd=os.getcwd(), fds=sorted(fds), ignored=ignored)
    fd = os.open(RECORD, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o666)
    os.write(fd, json.dumps(entry).encode() + b"\\n")
    os.close(fd)
if FILTERED and ("create" in argv or "run" in argv):
    bundle = argv[argv.index("--bundle") + 1] if "--bundle" in argv else "."
    with open(bundle + "/config.json") as file:
        config = json.load(file)
    lines = open("/proc/self/status").read().split("\\n")
    bounding = int([x.split()[1] for x in lines if x.startswith("CapBnd")][0], 16)
    for name, number in (("CAP_SYS_RESOURCE", 24), ("CAP_SYS_MODULE", 16), ("CAP_SYS_RAWIO", 17)):
        if not bounding >> number & 1:
            for names in config["process"].get("capabilities", dict()).values():
                if name in names:
                    names.remove(name)
    with open(bundle + "/config.json", "w") as file:
        json.dump(config, file)
# Python ignores these; the real runtime must see what the engine gave.
import signal
if not RECORD or not int(ignored, 16) & 1 << 12:
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
os.execve(REAL, [REAL] + argv, env)
"""


@dataclass(frozen=True)
class Call:
    """One recorded call of the runtime."""

    argv: List[str]
    env: Dict[str, str]
    cwd: str
    fds: List[List[object]]
    ignored: str


def write_shim(
    box: Box, name: str, real: str, *, recorded: bool = False, filtered: bool = False
) -> str:
    """Write a shim into the box and give its path."""
    directory = "/run/shim"
    box.run(["mkdir", "-p", directory]).ok()
    path = f"{directory}/{name}"
    record = f"{path}.calls" if recorded else ""
    box.path(path).write_text(SOURCE.format(real=real, record=record, filtered=filtered))
    box.path(path).chmod(0o755)
    return path


def calls(box: Box, path: str) -> List[Call]:
    """Read what a shim has recorded."""
    record = box.path(f"{path}.calls")
    if not record.exists():
        return []
    return [Call(**json.loads(line)) for line in record.read_text().splitlines()]
