"""What the README shows of the program itself: each command run, each line of output compared."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
from pathlib import Path

import pytest

from tests import drive
from tests.drive import Container

pytestmark = pytest.mark.runtime
TEXT = (Path(__file__).parents[2] / "README.md").read_text()
SESSIONS = TEXT.partition("### It says why")[2].partition("\n## ")[0]


@pytest.fixture
def place(container: Container) -> str:
    """A directory with a root file system in web/, and a program anocir with a state of its own."""
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    directory = container.bundle.outside("place")
    os.makedirs(directory + "/bin")
    shutil.copytree(container.bundle.rootfs, directory + "/web/rootfs", symlinks=True)
    state = container.bundle.outside("state")
    with open(directory + "/bin/anocir", "w") as file:
        file.write(f'#!/bin/sh\nexec {container.runtime.path} --root {state} "$@"\n')
    os.chmod(directory + "/bin/anocir", 0o755)
    for path in (container.bundle.path, os.path.dirname(container.bundle.path)):
        os.chmod(path, 0o755)
    return directory


def command(after: str) -> str:
    """The first block after a place."""
    found = re.search(r"\n\n    (.*)\n", TEXT[TEXT.index(after) :])
    assert found is not None
    return found[1]


def in_terminal(line: str, directory: str) -> str:
    """Run a line of a shell on a terminal, end the shell of the container; what was printed."""
    script = f"PATH={directory}/bin:$PATH; cd {directory}; {line}; echo status $?"
    terminal = drive.Terminal(["sh", "-c", script])
    terminal.send("echo I am $(id -u), pid $$; exit 7\n")
    try:
        return terminal.expect("status 7")
    finally:
        terminal.close()


def test_by_hand(place: str) -> None:
    assert "I am 0, pid 1" in in_terminal(command("**By hand**"), place)


def test_without_root(place: str) -> None:
    state = os.path.join(os.path.dirname(place), "state")
    for path in (place + "/web", place + "/web/rootfs", state):
        os.chown(path, 4321, 4321)
    inner = f"cd web; {command('### Without root')}"
    line = f"setpriv --reuid 4321 --regid 4321 --clear-groups sh -c '{inner}'"
    assert "I am 0, pid 1" in in_terminal(line, place)


def sessions(text: str = SESSIONS) -> list[tuple[str, list[str]]]:
    """(command, lines that it prints) of all blocks that begin with a prompt."""
    found: list[tuple[str, list[str]]] = []
    for line in text.split("\n"):
        if line.startswith("    $ "):
            found.append((line[6:], []))
        elif line.startswith("    "):
            found[-1][1].append(line[4:])
    return found


@pytest.mark.needs("memory-peak")
def test_the_answers(container: Container, place: str) -> None:
    bundle = container.bundle
    bundle.write()
    broken = json.loads(json.dumps(bundle.config))
    broken["process"]["cwd"] = "www"
    broken["mounts"][1]["options"] = "nosuid"
    broken["linux"]["maskedPath"] = ["/proc/kcore"]
    with open(place + "/broken.json", "w") as file:
        json.dump(broken, file)
    tools = bundle.outside("tools")
    shutil.copy(bundle.rootfs + "/bin/busybox", tools + "/busybox")
    bundle.add_mount("/tools", "bind", tools, "bind", "noexec")
    bundle.process["args"] = ["/tools/busybox", "true"]
    configs = {"noexec": json.loads(json.dumps(bundle.config))}
    bundle.process["args"] = ["sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"]
    bundle.resources["memory"] = {"limit": 32 << 20}
    configs["hungry"] = bundle.config
    shown = sessions()
    assert len(shown) == 3
    for words, lines in shown:
        directory = place
        name = words.split()[-1]
        if name in configs:
            with open(place + "/web/config.json", "w") as file:
                json.dump(configs[name], file)
            directory += "/web"
        result = drive.call(
            ["sh", "-c", f"PATH={place}/bin:$PATH; {words}"], ok=False, cwd=directory
        )
        printed = (result.stdout + result.stderr).splitlines()
        assert [plain(line) for line in printed] == [plain(line) for line in lines]


@pytest.mark.needs("cgroup1:devices")
def test_into_a_running_container(container: Container, place: str) -> None:
    section = TEXT.partition("### Into a running container")[2].partition("\n### ")[0]
    volume = {"destination": "/data", "source": "/srv", "type": "bind", "options": ["ro"]}
    with open(place + "/mounts.json", "w") as file:
        json.dump([volume], file)
    words = f"PATH={place}/bin:$PATH; "
    for name, script in (("web", "exec sleep 1000"), ("once", "ls / >/dev/null")):
        container.bundle.sh(script)
        container.linux["cgroupsPath"] = f"{container.cgroup}-{name}"
        container.bundle.write()
        rootfs = f"{place}/{name}-bundle/rootfs"
        shutil.copytree(container.bundle.rootfs, rootfs, symlinks=True)
        shutil.copy(f"{container.bundle.path}/config.json", f"{place}/{name}-bundle")
    run = f"cd {place}/web-bundle; anocir run -d web >/dev/null 2>&1 </dev/null"
    drive.call(["sh", "-c", words + run])
    lacking = not os.path.exists("/dev/fuse")
    if lacking:
        os.mknod("/dev/fuse", 0o600 | stat.S_IFCHR, os.makedev(10, 229))
    try:
        shown = sessions(section)
        assert len(shown) == 3
        for line, lines in shown:
            directory = f"{place}/once-bundle" if "--record" in line else place
            result = drive.call(["sh", "-c", words + line], cwd=directory)
            printed = (result.stdout + result.stderr).splitlines()
            assert [plain(each) for each in printed] == [plain(each) for each in lines]
    finally:
        if lacking:
            os.unlink("/dev/fuse")
        drive.call(["sh", "-c", words + "anocir delete --force web"], ok=None)


def plain(line: str) -> str:
    """A line without what is another number each time, or the host's own."""
    line = re.sub(r"/srv of \w+, ro.*|\d+ (?=system calls|reports|us)", "N", line)
    return re.sub(r"process \d+|the peak was \d+|(?<=: )/\S+/(?=once)", "", line)
