"""What the README tells users of engines to write, written where it says, and used without further options."""

from __future__ import annotations

import json
import re
import shlex
import textwrap
from pathlib import Path
from typing import Iterator, List

import pytest

from tests.drive import until
from tests.engines.box import Box
from tests.engines.conftest import DOCKER, default_ulimits, need, new_box
from tests.engines.image import FULL_NAME, IMAGE, busybox_tar, docker_archive

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
INSTALLED = "/usr/local/bin/anocir"
OUTPUT = "container says hello\n"


def block(path: str) -> str:
    """Give the first indented block after the place where the README names a file or a word."""
    assert path in TEXT, f"the README does not name {path}"
    rest = TEXT[TEXT.index(path) :]
    found = re.search(r"\n\n((?:    .*\n|\n(?=    ))+)", rest)
    assert found is not None, path
    return textwrap.dedent(found.group(1))


@pytest.fixture(scope="module")
def installed(engine_runtime: str) -> Iterator[Box]:
    """Give a box that has the archive where the README has it; each call of it is written down."""
    box = new_box("readme")
    try:
        # On Debian this directory is there, on other systems it may not be.
        box.run(["mkdir", "-p", "/run/local"]).ok()
        box.run(["mount", "--bind", "/run/local", "/usr/local/bin"]).ok()
        script = (
            f'#!/bin/sh\necho "$@" >> /run/local/calls\nexec {shlex.quote(engine_runtime)} "$@"\n'
        )
        box.path("/run/local/anocir").write_text(script)
        box.path("/run/local/anocir").chmod(0o755)
        yield box
    finally:
        box.close()


def used(box: Box) -> List[str]:
    """Give the calls of the installed archive since the last question."""
    path = box.path("/run/local/calls")
    lines = path.read_text().splitlines() if path.exists() else []
    path.write_text("")
    return lines


def put(box: Box, path: str, text: str) -> None:
    """Write a file of the box's system, without changing a system that is this machine's."""
    directory = path.rpartition("/")[0]
    box.run(["mkdir", "-p", f"/run/tmp{directory}", directory]).ok()
    if box.root == Path("/"):
        box.run(["mount", "--bind", f"/run/tmp{directory}", directory]).ok()
    box.path(path).write_text(text)


def test_docker_and_its_buildkit(installed: Box) -> None:
    """daemon.json makes it the default; the daemon's environment makes it BuildKit's."""
    need(*DOCKER)
    box = installed
    settings = json.loads(block("`/etc/docker/daemon.json`").split("\n")[0])
    assert "docker run --rm --runtime anocir" in TEXT
    put(box, "/etc/docker/daemon.json", json.dumps(settings))
    service = block("**BuildKit** in dockerd")
    (line,) = re.findall(r"^Environment=(.*)$", service, re.MULTILINE)
    name, _, value = line.partition("=")
    home = "/run/readme-docker"
    words = ["dockerd", "--data-root", f"{home}/data", "--exec-root", f"{home}/exec"]
    words += ["--pidfile", f"{home}/pid", "-H", f"unix://{home}/socket", "--bridge", "none"]
    words += ["--iptables=false"]
    docker = ["docker", "-H", f"unix://{home}/socket"]
    box.run(["mkdir", "-p", home]).ok()
    child = box.spawn(words, {name: value}, log=f"{home}/log")
    try:
        until("dockerd answers", lambda: box.run([*docker, "version"]).status == 0, pause=0.1)
        box.run([*docker, "import", "-", IMAGE], stdin=busybox_tar()).ok()
        used(box)
        for more in ([], ["--runtime", "anocir"]):
            words = ["run", "--rm", "--network", "none", *more, IMAGE, "echo", OUTPUT.strip()]
            assert box.run([*docker, *words]).ok().out == OUTPUT
            assert any("create" in call.split() for call in used(box))
        text = f"FROM {IMAGE}\nRUN --network=none echo built\n"
        kit = {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
        box.run([*docker, "build", "--no-cache", "-"], kit, stdin=text).ok()
        assert any("run" in call.split() for call in used(box))
    finally:
        child.terminate()
        child.wait()


def test_containerd_for_kubernetes(installed: Box) -> None:
    """The runtime of config.toml, of the form that this containerd reads, is what its CRI plugin has."""
    need("containerd", "ctr")
    box = installed
    told = box.run(["containerd", "--version"]).ok().out
    major = int(re.search(r" v?(\d+)\.", told).group(1))  # type: ignore[union-attr]
    text = block("With **containerd** 2" if major >= 2 else "With containerd 1.6 and 1.7")
    home = "/run/readme-containerd"
    box.run(["mkdir", "-p", home]).ok()
    first, _, rest = text.partition("\n")
    own = f'root = "{home}/root"\nstate = "{home}/state"\n[grpc]\n  address = "{home}/socket"\n'
    put(box, "/etc/containerd/config.toml", f"{first}\n{own}{rest}")
    dumped = box.run(["containerd", "config", "dump"]).ok().out
    section = dumped[dumped.index("runtimes.anocir]") :]
    assert f'BinaryName = "{INSTALLED}"' in section.replace("'", '"'), section
    child = box.spawn(["containerd"], log=f"{home}/log")
    ctr = ["ctr", "-a", f"{home}/socket"]
    try:
        box.wait([*ctr, "version"], "Server:")
        listed = box.wait([*ctr, "plugins", "ls"], "cri").out
        assert re.search(r"cri +\S+ +ok", listed), box.path(f"{home}/log").read_text()[-3000:]
        box.path(f"{home}/image.tar").write_bytes(docker_archive())
        box.run([*ctr, "images", "import", f"{home}/image.tar"]).ok()
        used(box)
        words = [
            "run",
            "--rm",
            "--runc-binary",
            INSTALLED,
            FULL_NAME,
            "hello",
            "echo",
            OUTPUT.strip(),
        ]
        assert box.run([*ctr, *words]).ok().out == OUTPUT
        assert any("create" in call.split() for call in used(box))
    finally:
        child.terminate()
        child.wait()


def test_podman(installed: Box) -> None:
    """containers.conf makes the runtime known by its name, and able to do without cgroups."""
    need("podman", "conmon")
    box = installed
    own = f"[containers]\n{default_ulimits()}\n"
    put(box, "/etc/containers/containers.conf", own + block("`/etc/containers/containers.conf`"))
    home = "/run/readme-podman"
    podman = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver"]
    podman += ["overlay", "--cgroup-manager", "cgroupfs", "--runtime", "anocir"]
    box.run([*podman, "import", "-", IMAGE], stdin=busybox_tar()).ok()
    used(box)
    for more in ([], ["--cgroups=disabled"]):
        words = ["run", "--rm", "--network", "none", *more, IMAGE, "echo", OUTPUT.strip()]
        result = box.run([*podman, *words]).ok()
        assert result.out == OUTPUT
        assert any("create" in call.split() for call in used(box))
    result = box.run([*podman, "run", "--rm", "--network", "none", IMAGE, "no-such-program"])
    # The name is in runtime_supports_json: one sentence, and not a line of JSON.
    assert result.status == 127 and '"level"' not in result.err, result


def test_buildah(installed: Box) -> None:
    """The two variables make it the runtime of buildah run and build."""
    need("buildah", "runc")
    box = installed
    put(box, "/etc/containers/containers.conf", f"[containers]\n{default_ulimits()}\n")
    environment = dict(line.split("=") for line in block("With **Buildah**").split())
    home = "/run/readme-buildah"
    buildah = ["buildah", "--root", f"{home}/root", "--runroot", f"{home}/run", "--storage-driver"]
    buildah += ["overlay"]
    box.run(["mkdir", "-p", home]).ok()
    box.path(f"{home}/image.tar").write_bytes(docker_archive())
    box.run([*buildah, "pull", f"docker-archive:{home}/image.tar"]).ok()
    box.run([*buildah, "from", "--name", "work", IMAGE]).ok()
    used(box)
    words = ["run", "--network", "none", "work", "echo", OUTPUT.strip()]
    assert box.run([*buildah, *words], environment).ok().out == OUTPUT
    assert any("create" in call.split() for call in used(box))
    box.path(f"{home}/Containerfile").write_text(f"FROM {IMAGE}\nRUN echo built > /built\n")
    words = ["build", "--network", "none", "--file", f"{home}/Containerfile", home]
    box.run([*buildah, *words], environment).ok()
    assert any("create" in call.split() for call in used(box))


def test_the_runtime_class_and_crio() -> None:
    """What no engine here reads names the same runtime."""
    assert re.search(r"handler: anocir\n", block("**Kubernetes** then has a class"))
    crio = block("`/etc/crio/crio.conf.d/10-anocir.conf`")
    assert crio.startswith("[crio.runtime.runtimes.anocir]\n")
    assert f'runtime_path = "{INSTALLED}"\n' in crio
