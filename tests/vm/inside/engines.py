"""Docker and Podman as root on cgroup v2 under systemd: what they ask of cgroups, seen by systemctl and by them."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.engines.image import IMAGE, busybox_tar
from tests.vm.inside import container
from tests.vm.inside.container import (
    PATIENCE,
    RUNTIME,
    awaited,
    becomes,
    cgroup_of,
    gone,
    shown,
    value,
)

PODMAN_CONFIGURATION = """
[engine]
runtime_supports_json = ["anocir"]
runtime_supports_nocgroup = ["anocir"]
events_logger = "file"
[engine.runtimes]
anocir = ["{runtime}"]
"""


def run(*words: str, given: bytes = b"", check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run an engine's command."""
    done = subprocess.run(words, input=given, capture_output=True, timeout=PATIENCE, check=False)
    out, err = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    assert not check or done.returncode == 0, f"{words}: {done.returncode}: {out}{err}"
    return subprocess.CompletedProcess(words, done.returncode, out, err)


def docker(*words: str, check: bool = True) -> str:
    """Docker's answer."""
    return run("docker", *words, check=check).stdout


@pytest.fixture(scope="module", params=["systemd"])
def dockerd(request):
    options = [f"--exec-opt=native.cgroupdriver={request.param}", "--bridge=none"]
    options += ["--iptables=false"]
    options += [f"--add-runtime=anocir={RUNTIME}", "--default-runtime=anocir"]
    with container.dockerd(*options):
        run("docker", "import", "-", IMAGE, given=busybox_tar())
        yield request.param


@pytest.mark.parametrize("dockerd", ["systemd", "cgroupfs"], indirect=True)
def test_docker_limits_update_pause_stats_top_exec(dockerd):
    asked = ["--memory=64m", "--cpus=0.5", "--pids-limit=50", "--cpu-shares=2048"]
    asked += ["--network=none", "--cgroupns=private"]
    name = docker("run", "-d", *asked, IMAGE, "sleep", "1000").strip()
    unit = f"docker-{name}.scope"
    directory = "/sys/fs/cgroup" + (
        f"/system.slice/{unit}" if dockerd == "systemd" else f"/docker/{name}"
    )
    properties = {
        "ActiveState": "active",
        "Slice": "system.slice",
        "MemoryMax": str(64 << 20),
        "MemorySwapMax": str(64 << 20),
        "CPUQuotaPerSecUSec": "500ms",
        "TasksMax": "50",
        "CPUWeight": "174",
    }
    files = ("memory.max", "memory.swap.max", "cpu.max", "pids.max", "cpu.weight", "cpuset.cpus")
    limits = [str(64 << 20), str(64 << 20), "50000 100000", "50", "174", ""]

    def check() -> None:
        assert [value(directory, file) for file in files] == limits
        if dockerd == "systemd":
            assert shown(unit, *properties) == properties

    check()
    docker("update", "--memory=96m", "--memory-swap=128m", "--cpus=0.25", name)
    # all that is not named comes as zero, and the limit of swap stands
    docker("update", "--pids-limit=60", "--cpuset-cpus=0", name)
    limits = [str(96 << 20), str(32 << 20), "25000 100000", "60", "174", "0"]
    properties.update(MemoryMax=limits[0], MemorySwapMax=limits[1], CPUQuotaPerSecUSec="250ms")
    properties.update(TasksMax="60", AllowedCPUs="0")
    check()
    # exec is in the container's cgroup namespace
    inside = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/pids.max", "/proc/self/cgroup"]
    assert docker("exec", name, "cat", *inside).split() == [str(96 << 20), "60", "0::/"]

    docker("pause", name)
    assert "frozen 1" in value(directory, "cgroup.events")
    assert docker("inspect", "-f", "{{.State.Status}}", name) == "paused\n"
    docker("unpause", name)
    assert "frozen 0" in value(directory, "cgroup.events")
    stats = ["--"]

    def told() -> bool:
        stats[:] = docker(
            "stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name
        ).split()
        return "--" not in stats  # what docker says when it had no answer within two seconds

    awaited(told, "statistics")
    assert stats[-3:] == ["/", "96MiB", "1"]
    assert docker("top", name, "-o", "pid,args").split()[-2:] == ["sleep", "1000"]
    # Docker takes a killed container that it has not heard of for twelve seconds for one that lives, and these
    # seconds hold the runtime's delete.
    awaited(lambda: run("docker", "rm", "-f", name, check=False).returncode == 0, "its removal")
    gone(directory)
    if dockerd == "systemd":
        becomes(unit, "inactive")


def test_docker_cgroup_parent_in_the_hosts_namespace(dockerd):
    words = ["--network=none", "--cgroup-parent=apart-deep.slice", "--cgroupns=host"]
    name = docker("create", *words, IMAGE, "cat", "/proc/self/cgroup").strip()
    path = f"/apart.slice/apart-deep.slice/docker-{name}.scope"
    assert docker("start", "-a", name) == f"0::{path}\n"
    docker("rm", name)


def test_docker_hears_of_an_oom(dockerd):
    script = "trap 'exit 0' TERM; tail /dev/zero; echo $?; sleep 1000 & wait"
    words = ["--network=none", "--memory=24m", "--memory-swap=24m"]
    name = docker("run", "-d", *words, IMAGE, "sh", "-c", script).strip()
    deadline = time.monotonic() + PATIENCE
    heard = ""
    while not heard:
        assert time.monotonic() < deadline, docker("logs", name)
        until = str(int(time.time()) + 1)
        words = ["--filter=event=oom", f"--filter=container={name}", "--since=0"]
        heard = docker("events", *words, f"--until={until}")
    awaited(lambda: docker("logs", name), "the shell's answer")
    assert docker("logs", name) == "137\n"
    docker("kill", "--signal=TERM", name)
    docker("wait", name)
    assert docker("inspect", "-f", "{{.State.OOMKilled}}", name) == "true\n"
    docker("rm", name)


@pytest.fixture(scope="module")
def podman():
    path = "/run/podman-test.conf"
    with open(path, "w") as file:
        file.write(PODMAN_CONFIGURATION.format(runtime=RUNTIME))
    os.environ["CONTAINERS_CONF"] = path
    base = ["podman", "--storage-driver=overlay", "--runtime=anocir"]
    run(*base, "import", "-", IMAGE, given=busybox_tar())

    def call(manager: str, *words: str) -> str:
        return run(*base, f"--cgroup-manager={manager}", *words).stdout

    return call


@pytest.mark.parametrize("manager", ["systemd", "cgroupfs"])
def test_podman_limits_pause_stats_top(podman, manager):
    limits = ["--memory=64m", "--cpus=0.5", "--pids-limit=40"]
    name = podman(manager, "run", "-d", "--network=none", *limits, IMAGE, "sleep", "1000").strip()
    pid = int(podman(manager, "inspect", "-f", "{{.State.Pid}}", name))
    directory = cgroup_of(pid)
    assert value(directory, "memory.max") == str(64 << 20)
    assert value(directory, "cpu.max") == "50000 100000"
    assert value(directory, "pids.max") == "40"
    scope = directory.removesuffix("/container")
    if manager == "systemd":
        assert scope.endswith(f"/machine.slice/libpod-{name}.scope")
        expected = {"MemoryMax": str(64 << 20), "TasksMax": "40", "CPUQuotaPerSecUSec": "500ms"}
        assert shown(os.path.basename(scope), *expected) == expected
    else:
        assert scope.endswith(f"/libpod_parent/libpod-{name}")
    podman(manager, "pause", name)
    assert "frozen 1" in value(directory, "cgroup.events")
    podman(manager, "unpause", name)
    assert "frozen 0" in value(directory, "cgroup.events")
    (stats,) = json.loads(podman(manager, "stats", "--no-stream", "--format=json", name))
    assert stats["pids"] == "1" and "67.11MB" in stats["mem_usage"]
    assert podman(manager, "top", name, "args").split() == ["COMMAND", "sleep", "1000"]
    podman(manager, "rm", "-f", "-t", "0", name)
    gone(directory)


def test_podman_without_cgroups(podman):
    words = ["--network=none", "--cgroups=disabled", "--cgroupns=host", "--rm"]
    said = podman("systemd", "run", *words, IMAGE, "cat", "/proc/self/cgroup")
    assert "libpod" not in said and said.startswith("0::/")
