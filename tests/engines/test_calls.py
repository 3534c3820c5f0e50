"""Each form of command line on the golden list, sent directly to the archive, without an engine.

So a form that only a newer engine would break is tested here in milliseconds, and a failure names the form.
"""

from __future__ import annotations

import array
import json
import shlex
import socket
import threading
from typing import Any, Dict, Iterator, List, Tuple

import pytest

from tests.bundle import default_config
from tests.drive import until
from tests.engines.box import BOUND, Box, Result
from tests.engines.calls import known
from tests.engines.conftest import new_box
from tests.engines.image import busybox_tar

HOME = "/run/calls"
BUNDLE = f"{HOME}/bundle"
# What newer engines send, from their sources: not seen from Debian's.
NEWER = (
    "--root ROOT --log LOG --log-format json update --resources=- ID",
    "--root ROOT --log LOG --log-format json run --bundle BUNDLE --keep ID",
    "--root ROOT --log LOG --log-format json exec --process PROCESS --pid-file PID_FILE ID",
    "--root ROOT --log LOG --log-format json create --bundle BUNDLE --pid-file PID_FILE --no-pivot"
    " --no-new-keyring ID",
    "--root ROOT --log LOG --log-format json events --stats ID",
    "--root ROOT list --format=json",
    "--debug --log LOG --log-format json --root ROOT --log LOG --log-format json state ID",
    "features",
    "kill --all ID 9",
    "kill ID SIGKILL",
    "update --resources - ID",
    "exec --process PROCESS ID",
)
FORMS = sorted({(engine, form) for engine, list_ in known().items() for form in list_}) + [
    ("newer", form) for form in NEWER
]
# Verbs that make a container.
NEW = ("create", "run", "restore")
# The state that a verb wants to find.
WANTED = {
    **dict.fromkeys(("start", "delete created"), "created"),
    **dict.fromkeys(("state", "kill", "exec", "pause", "ps", "update", "events"), "running"),
    **dict.fromkeys(("checkpoint", "list"), "running"),
    "resume": "paused",
    "delete": "stopped",
}


@pytest.fixture(scope="module")
def calls_box() -> Iterator[Box]:
    """Give a box with a bundle in it."""
    box = new_box("calls")
    try:
        box.run(["mkdir", "-p", f"{BUNDLE}/rootfs"]).ok()
        box.run(["tar", "-x", "-C", f"{BUNDLE}/rootfs"], stdin=busybox_tar()).ok()
        yield box
    finally:
        box.close()


class Console:
    """A listener for the console socket, as containerd's shim and conmon have one."""

    __slots__ = ("names", "socket", "thread")

    def __init__(self, path: str) -> None:
        """Listen on the path."""
        self.names: List[bytes] = []
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.bind(path)
        self.socket.listen()
        self.socket.settimeout(BOUND)
        self.thread = threading.Thread(target=self._receive, daemon=True)
        self.thread.start()

    def _receive(self) -> None:
        peer, _ = self.socket.accept()
        size = array.array("i").itemsize
        name, control, _, _ = peer.recvmsg(4096, socket.CMSG_SPACE(size))
        descriptors = array.array("i", control[0][2][:size])
        self.names.append(name)
        assert len(descriptors) == 1


def write_bundle(box: Box, container: str, *, terminal: bool, forever: bool) -> None:
    """Write config.json and process.json."""
    config: Dict[str, Any] = default_config("1.0.2")
    # A signal without a handler would not reach the first process of a pid namespace.
    loop = f"trap 'exit 0' TERM; : > /ready-{container}; while :; do sleep 0.1; done"
    command = loop if forever else "exit 6"
    config["process"].update(args=["/bin/sh", "-c", command], terminal=terminal)
    config.setdefault("linux", {})["cgroupsPath"] = f"/calls/{container}"
    box.path(f"{BUNDLE}/config.json").write_text(json.dumps(config))
    process = dict(config["process"], args=["/bin/sh", "-c", "exit 5"], terminal=terminal)
    box.path(f"{HOME}/process.json").write_text(json.dumps(process))
    box.path(f"{HOME}/resources.json").write_text('{"pids": {"limit": 99}}')


@pytest.mark.parametrize(("engine", "form"), FORMS, ids=[" ".join(one) for one in FORMS])
def test_form_works(calls_box: Box, engine_runtime: str, engine: str, form: str) -> None:
    """The runtime does what the engine's command line asks."""
    box = calls_box
    container = box.fresh("call")
    words = form.split()
    if "disabled" in words and engine_runtime.endswith("runc"):
        pytest.skip("runc has no --cgroup-manager")
    verb = next((word for word in words if word in WANTED or word in NEW), words[-1])
    terminal = "SOCKET" in words
    write_bundle(box, container, terminal=terminal and verb == "create", forever=verb != "run")
    if terminal and verb == "exec":
        text = (
            box.path(f"{HOME}/process.json")
            .read_text()
            .replace('"terminal": false', '"terminal": true')
        )
        box.path(f"{HOME}/process.json").write_text(text)
    prefix = [engine_runtime]
    if "ROOT" in words:
        prefix += ["--root", f"{HOME}/root"]
    if "disabled" in words:
        prefix += ["--cgroup-manager", "disabled"]
    values = {
        "ROOT": f"{HOME}/root",
        "LOG": f"{HOME}/{container}.log",
        "BUNDLE": BUNDLE,
        "PID_FILE": f"{HOME}/{container}.pid",
        "PROCESS": f"{HOME}/process.json",
        "SOCKET": f"{HOME}/{container}.sock",
        "DIRECTORY": f"{HOME}/image",
        "RESOURCES": f"{HOME}/resources.json",
        "ID": container,
    }
    argv = [engine_runtime]
    for word in words:
        option, equals, place = word.partition("=")
        argv.append(f"{option}={values.get(place, place)}" if equals else values.get(word, word))

    def call(*more: str) -> Result:
        return box.run([*prefix, *more])

    def status() -> str:
        result = call("state", container)
        return str(json.loads(result.out)["status"]) if result.status == 0 else "missing"

    console = Console(str(box.path(values["SOCKET"]))) if terminal else None
    try:
        reach(box, call, status, container, WANTED.get(verb, ""))
        shell = f"exec 3</etc/hostname 4</etc/hostname; exec {shlex.join(argv)}"
        command = ["bash", "-c", shell] if "--preserve-fds" in words else argv
        result = box.run(command, stdin='{"pids": {"limit": 99}}')
        check(box, verb, words, result, status, values)
        if console is not None:
            console.thread.join(BOUND)
            assert console.names, "nothing came through the console socket"
    finally:
        call("delete", "--force", container)
        box.run(["rm", "-f", f"{BUNDLE}/rootfs/ready-{container}"])
        if console is not None:
            console.socket.close()


def reach(box: Box, call: Any, status: Any, container: str, wanted: str) -> None:
    """Bring the container into the state that the verb wants."""
    if not wanted:
        return
    call("create", "--bundle", BUNDLE, container).ok()
    if wanted == "created":
        return
    call("start", container).ok()
    box.wait(["ls", f"{BUNDLE}/rootfs"], f"ready-{container}\n")
    if wanted == "paused":
        call("pause", container).ok()
    if wanted == "stopped":
        call("kill", container, "KILL").ok()
        wait_for(status, "stopped")


def wait_for(status: Any, wanted: str) -> None:
    """Wait until the state is as wanted."""
    until(f"the state {wanted}", status, found=lambda state: state == wanted)


def check(
    box: Box, verb: str, words: List[str], result: Result, status: Any, values: Dict[str, str]
) -> None:
    """Check what the command has given and done."""
    expected: Dict[str, Tuple[int, str]] = {
        "create": (0, "created"),
        "start": (0, "running"),
        "pause": (0, "paused"),
        "resume": (0, "running"),
        "delete": (0, "missing"),
        "update": (0, "running"),
        "ps": (0, "running"),
        "state": (0, "running"),
        "exec": (0 if "--detach" in words else 5, "running"),
        "run": (6, "stopped" if "--keep" in words else "missing"),
        # There is no criu in this box; where there is one they are driven by the engines themselves.
        "checkpoint": (1, "running"),
        "restore": (1, "missing"),
    }
    code, state = expected.get(verb, (0, ""))
    assert result.status == code, result
    if verb == "kill" and words[-1] in ("9", "SIGKILL", "15"):
        state = "stopped"
    if state:
        wait_for(status, state)
    if verb in ("create", "exec") and "PID_FILE" in words:
        pid = box.path(values["PID_FILE"]).read_text()
        assert pid.isdigit(), "a pid file holds a number without an end of line"
    if verb in ("state", "ps", "events", "list", "features"):
        json.loads(result.out)
    elif "--help" in words:
        # Podman reads the status alone: whether there is criu.
        assert "usage: anocir" in result.out, result
    elif verb not in ("--version", "run"):
        assert result.out == "", result
    log = box.path(values["LOG"])
    if code == 0 and log.exists():
        assert "error" not in log.read_text(), log.read_text()


@pytest.mark.parametrize("question", ["features", "--version"])
def test_questions_need_no_environment(calls_box: Box, engine_runtime: str, question: str) -> None:
    """dockerd and the CRI plugin ask before anything is set up; nothing may be made for it."""
    before = calls_box.run(["find", "/run"]).out
    result = calls_box.run(["env", "-i", engine_runtime, question]).ok()
    assert result.err == ""
    if question == "features":
        features = json.loads(result.out)
        assert features["ociVersionMin"].startswith("1.")
        assert {"cgroup", "seccomp", "namespaces"} <= set(features["linux"])
    else:
        assert "version" in result.out.splitlines()[0]
    assert calls_box.run(["find", "/run"]).out == before


def test_version_lines_that_engines_parse(
    calls_box: Box, engine_runtime: str, beyond_runc: None
) -> None:
    """dockerd shows the words after "version" and "commit:" in docker info."""
    lines = calls_box.run([engine_runtime, "--version"]).ok().out.splitlines()
    assert lines[0].startswith("anocir version ")
    assert lines[1].startswith("commit: ")


def test_life_in_podmans_environment(calls_box: Box, engine_runtime: str) -> None:
    """Only an empty XDG_RUNTIME_DIR, closed descriptors 0 to 2, SIGPIPE ignored: all commands work.

    And nothing of that reaches the container.
    """
    box = calls_box
    container = box.fresh("sparse")
    config = default_config("1.0.2")
    look = "env > /env; cat /proc/self/status > /status; ls /proc/$$/fd > /fds; exec sleep 1000"
    config["process"]["args"] = ["/bin/sh", "-c", look]
    config.setdefault("linux", {})["cgroupsPath"] = f"/calls/{container}"
    box.path(f"{BUNDLE}/config.json").write_text(json.dumps(config))
    script = 'trap "" PIPE; umask 077; exec 0<&- 1>&- 2>&-; exec "$@"'
    sparse = ["env", "-i", "XDG_RUNTIME_DIR=", "/bin/sh", "-c", script, "sh"]
    sparse += [engine_runtime, "--root", f"{HOME}/sparse"]
    try:
        for words in (
            ["create", "--bundle", BUNDLE, "--pid-file", f"{HOME}/{container}.pid", container],
            ["start", container],
            ["pause", container],
            ["resume", container],
        ):
            box.run([*sparse, *words]).ok()
        box.wait(["cat", f"{BUNDLE}/rootfs/fds"], "2\n")
        assert "XDG" not in box.path(f"{BUNDLE}/rootfs/env").read_text()
        assert "LC_CTYPE" not in box.path(f"{BUNDLE}/rootfs/env").read_text()
        status = box.path(f"{BUNDLE}/rootfs/status").read_text()
        ignored = next(line for line in status.splitlines() if line.startswith("SigIgn"))
        assert int(ignored.split()[1], 16) == 0
        assert "Umask:\t0022" in status
        # 10 is where the shell keeps its own output while it is redirected.
        assert set(box.path(f"{BUNDLE}/rootfs/fds").read_text().split()) == {"0", "1", "2", "10"}
        box.run([*sparse, "kill", container, "9"]).ok()
        box.wait([engine_runtime, "--root", f"{HOME}/sparse", "state", container], "stopped")
        box.run([*sparse, "delete", "--force", container]).ok()
        box.run([*sparse, "delete", "--force", container]).ok()
    finally:
        box.run([engine_runtime, "--root", f"{HOME}/sparse", "delete", "--force", container])
        box.run(["rm", "-f", *(f"{BUNDLE}/rootfs/{name}" for name in ("env", "status", "fds"))])
