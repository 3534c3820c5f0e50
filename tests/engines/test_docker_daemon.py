"""Daemons of other kinds: anocir as the only runtime, builds, live-restore, remapped users."""

from __future__ import annotations

from typing import Any, Iterator, List

import pytest

from tests.engines.box import Box
from tests.engines.conftest import PEER, need, new_box
from tests.engines.docker import Dockerd, Side, Sides, remove_all
from tests.engines.image import IMAGE
from tests.engines.shim import calls, write_shim
from tests.engines.sides import MOUNTS, settle

NEEDED = ("dockerd", "docker", "containerd", "runc", "busybox", "iptables")


@pytest.fixture(scope="module")
def default_docker(engine_runtime: str) -> Iterator[Dockerd]:
    """Give a daemon that finds anocir under the name runc in its PATH and as default runtime.

    BuildKit inside dockerd knows no --runtime: it takes the program called runc.
    """
    need(*NEEDED)
    box = new_box("default")
    try:
        shim = write_shim(box, "runc", engine_runtime, recorded=True)
        box.environment["PATH"] = "/run/shim:" + box.environment["PATH"]
        options = ["--default-runtime", "anocir", "--live-restore"]
        docker = Dockerd(box, {"anocir": shim, "peer": PEER}, options)
        docker("run", "--rm", IMAGE, "true")
        yield docker
    finally:
        box.close()


def test_default_runtime(default_docker: Dockerd) -> None:
    """A daemon whose default runtime is anocir shows it and runs with it."""
    info = default_docker("info", "-f", "{{.DefaultRuntime}} {{.RuncCommit.ID}}").ok().out
    assert info.startswith("anocir "), info
    result = default_docker("run", "--rm", IMAGE, "sh", "-c", "echo yes; exit 3")
    assert (result.status, result.out) == (3, "yes\n"), result
    recorded = calls(default_docker.box, "/run/shim/runc")
    assert any("create" in call.argv for call in recorded)


BUILDS = (
    ("good", ["RUN echo built > /built && id -u", "RUN cat /built", "CMD cat /built"], 0),
    ("failing step", ["RUN exit 7"], 7),
    ("missing program", ["RUN no-such-program"], 127),
    ("missing exec form", ['RUN ["/no/such/program"]'], 127),
    ("killed step", ["RUN (sh -c 'kill -9 $$'); exit $?"], 137),
    (
        "other user",
        ["USER anna", "RUN id -un && test $(id -u) = 1000", "WORKDIR /new", "RUN pwd"],
        0,
    ),
)


@pytest.mark.parametrize("kit", ["0", "1"], ids=["classic", "buildkit"])
@pytest.mark.parametrize(("steps", "status"), [pytest.param(*b[1:], id=b[0]) for b in BUILDS])
def test_docker_build(default_docker: Dockerd, kit: str, steps: List[str], status: int) -> None:
    """docker build runs its steps with anocir and tells a failing step's status."""
    text = "\n".join([f"FROM {IMAGE}", *steps])
    environment = {"DOCKER_BUILDKIT": kit, "BUILDKIT_PROGRESS": "plain"}
    result = default_docker(
        "build", "--no-cache", "--network", "none", "-t", "built", "-", stdin=text, env=environment
    )
    text = result.out + result.err
    if status == 0:
        result.ok()
    elif kit == "1":
        assert result.status == 1, result
        shown = f"exit code: {status}" in text
        assert shown or (status == 127 and "no such file or directory" in text), result
    else:
        # The classic builder's exit status is the step's own, or 1 when the step did not start.
        assert result.status in (status, 1, 127), result
        assert f"returned a non-zero code: {status}" in text or "no such file" in text, result
    if status == 0 and "CMD" in steps[-1]:
        assert default_docker("run", "--rm", "built").ok().out == "built\n"


KIT_STEPS = (
    # mounts of a step: what is in them, and what of them stays
    "RUN --mount=type=tmpfs,target=/t echo x > /t/x && grep ' /t tmpfs rw' /proc/mounts",
    "RUN --mount=type=tmpfs,target=/t,size=1m df -k /t | awk 'NR==2 {exit $2 != 1024}' && ! test -e /t/x",
    "RUN --mount=type=cache,target=/c echo kept >> /c/file",
    "RUN --mount=type=cache,target=/c,readonly grep kept /c/file && ! touch /c/x",
    "RUN --mount=type=cache,target=/d,uid=1000,mode=0750,sharing=locked test \"$(stat -c '%u %a' /d)\" = '1000 750'",
    'RUN --mount=type=secret,id=word test "$(cat /run/secrets/word)" = sesame',
    "RUN --mount=type=secret,id=word,target=/s,uid=1000,mode=0400 test \"$(stat -c '%u %a' /s)\" = '1000 400'",
    "RUN --mount=type=bind,from=first,source=/built,target=/b cat /b && ! touch /b",
    'RUN --network=none test "$(ls /sys/class/net)" = lo',
    "RUN test ! -e /run/secrets/word && test ! -e /c/file && test ! -e /t/x",
    "USER anna",
    "RUN --mount=type=tmpfs,target=/t id -un && touch /t/mine",
    "RUN --mount=type=secret,id=word,required=true ! cat /run/secrets/word",
)


def test_mounts_and_networks_of_buildkits_steps(default_docker: Dockerd) -> None:
    """RUN --mount=type=tmpfs, cache, secret and bind, and --network=none."""
    box = default_docker.box
    box.path("/run/tmp/word").write_text("sesame")
    text = "\n".join(
        [f"FROM {IMAGE} AS first", "RUN echo built > /built", f"FROM {IMAGE}", *KIT_STEPS]
    )
    words = ["build", "--no-cache", "--secret", "id=word,src=/run/tmp/word", "-t", "mounted", "-"]
    environment = {"DOCKER_BUILDKIT": "1", "BUILDKIT_PROGRESS": "plain"}
    default_docker(*words, stdin=text, env=environment).ok()

    def steps() -> int:
        """Count the steps; what is cleaned up after the last one, or asked of the runtime, is none."""
        return sum("run" in call.argv for call in calls(box, "/run/shim/runc"))

    before = steps()
    assert before > len(KIT_STEPS) - 2
    failing = f"FROM {IMAGE}\nRUN --mount=type=secret,id=none,required=true true\n"
    result = default_docker("build", "--no-cache", "-", stdin=failing, env=environment)
    assert result.status == 1 and "secret none: not found" in result.out + result.err, result
    assert steps() == before


def test_live_restore(default_docker: Dockerd) -> None:
    """Containers outlive a killed daemon and obey the next one."""
    docker = default_docker
    loop = "trap 'exit 9' TERM; i=0; while :; do i=$((i+1)); echo $i; sleep 0.2; done"
    try:
        docker("run", "-d", "--name", "lives", IMAGE, "sh", "-c", loop).ok()
        docker("run", "-d", "--name", "dies", IMAGE, "sleep", "1000").ok()
        before = docker.inspect("lives", ".State.Pid")
        dies = docker.inspect("dies", ".State.Pid")
        docker.kill()
        docker.box.run(["kill", "-9", dies]).ok()
        assert docker.box.run(["kill", "-0", before]).status == 0
        docker.start()
        assert docker.inspect("lives", ".State.Pid") == before
        docker.wait("dies", ".State.Status", "exited")
        assert docker("exec", "lives", "echo", "here").ok().out == "here\n"
        docker("pause", "lives").ok()
        docker("unpause", "lives").ok()
        docker("stop", "-t", "60", "lives").ok()
        assert docker.inspect("lives", ".State.ExitCode") == "9"
        docker("rm", "lives", "dies").ok()
    finally:
        if docker.process.poll() is not None:
            docker.start()
        remove_all(docker)
    assert docker("run", "--rm", IMAGE, "echo", "new").ok().out == "new\n"


def test_calls_of_docker_are_the_known_ones(default_docker: Dockerd, golden: Any) -> None:
    """Docker's and BuildKit's command lines are those of the golden list."""
    docker = default_docker
    try:
        docker(
            "run", "-d", "--name", "all", "--memory", "64m", "--pid", "host", IMAGE, "sleep", "1000"
        ).ok()
        docker("exec", "all", "true").ok()
        docker("exec", "-d", "all", "true").ok()
        docker("top", "all").ok()
        docker("update", "--memory", "80m", "--memory-swap", "-1", "all").ok()
        docker("pause", "all").ok()
        docker("unpause", "all").ok()
        docker("stop", "-t", "0", "all").ok()
        docker("rm", "all").ok()
        with docker.box.terminal(docker.argv("run", "--rm", "-it", IMAGE, "sh")) as terminal:
            terminal.expect("# ")
            terminal.type("exit\n")
            assert terminal.finish() == 0
        docker("run", "-d", "--name", "all", IMAGE, "sleep", "1000").ok()
        with docker.box.terminal(docker.argv("exec", "-it", "all", "true")) as terminal:
            assert terminal.finish() == 0
        docker("rm", "-f", "all").ok()
    finally:
        remove_all(docker)
    golden("docker", calls(docker.box, "/run/shim/runc"))


def test_descriptors_of_dockers_calls(default_docker: Dockerd) -> None:
    """containerd's shim gives the runtime three descriptors and nothing else worth inheriting."""
    recorded = [
        call for call in calls(default_docker.box, "/run/shim/runc") if "create" in call.argv
    ]
    assert recorded
    for call in recorded:
        assert [fd for fd, _ in call.fds][:3] == [0, 1, 2], call.fds


@pytest.fixture(scope="module")
def remapped(engine_runtime: str) -> Iterator[Dockerd]:
    """Give a daemon with --userns-remap."""
    need(*NEEDED, "newuidmap")
    box = new_box("remap")
    try:
        for name in ("subuid", "subgid"):
            box.path(f"/run/tmp/{name}").write_text("dockremap:300000:65536\n")
            box.run(["mount", "--bind", f"/run/tmp/{name}", f"/etc/{name}"]).ok()
        for name, line in (
            ("passwd", "dockremap:x:4400:4400::/:/bin/false"),
            ("group", "dockremap:x:4400:"),
        ):
            box.path(f"/run/tmp/{name}").write_text(
                box.path(f"/etc/{name}").read_text() + line + "\n"
            )
            box.run(["mount", "--bind", f"/run/tmp/{name}", f"/etc/{name}"]).ok()
        # The remapped root must be able to reach the data directory.
        runtimes = {"anocir": engine_runtime, "peer": PEER}
        docker = Dockerd(box, runtimes, ["--userns-remap", "dockremap"])
        for runtime in runtimes:
            docker("run", "--rm", "--runtime", runtime, IMAGE, "true")
        yield docker
    finally:
        box.close()


REMAP_CASES = (
    (
        "maps",
        "",
        "cat /proc/self/uid_map /proc/self/gid_map; id; touch /x; stat -c %u /x",
        0,
        "300000",
    ),
    ("mounts", "", MOUNTS, 0, "/dev/mqueue"),
    (
        "devices",
        "",
        "ls -ln /dev | awk '{print $1,$3,$10}'; echo x > /dev/null; head -c 1 /dev/zero | wc -c",
        0,
        "1",
    ),
    ("read-only", "--read-only --tmpfs /t", "touch /t/x && touch /x", 1, "Read-only"),
    ("user", "--user 1000", "id; cat /proc/self/setgroups", 0, "uid=1000"),
    (
        "capabilities",
        "--cap-add SYS_ADMIN",
        "mount -t tmpfs x /mnt && grep CapEff /proc/self/status",
        0,
        "",
    ),
    ("sysctl", "--sysctl net.ipv4.ip_forward=0", "cat /proc/sys/net/ipv4/ip_forward", 0, "0"),
    ("volume", "-v /run/tmp:/v:ro", "touch /v/x", 1, ""),
    ("host user namespace", "--userns host", "cat /proc/self/uid_map", 0, "4294967295"),
    ("network host", "--network host --userns host", "hostname", 0, "box"),
    ("memory", "--memory 64m --pids-limit 30", "cat /sys/fs/cgroup/pids/pids.max; true", 0, ""),
)


@pytest.mark.parametrize(
    ("options", "command", "status", "text"), [pytest.param(*c[1:], id=c[0]) for c in REMAP_CASES]
)
def test_remapped_docker_run_is_the_same(
    remapped: Dockerd, options: str, command: str, status: int, text: str
) -> None:
    """Under --userns-remap a container sees and does the same with both runtimes."""
    result = Sides(remapped).compare(options.split(), ["sh", "-c", command])
    assert result.status == status, result
    assert text in result.out + result.err, result


def test_remapped_life(remapped: Dockerd) -> None:
    """Terminal, exec, kill and removal under --userns-remap leave nothing behind."""
    before = remapped.traces()

    def scenario(side: Side) -> List[Any]:
        seen: List[Any] = []
        with side.terminal(*side.words(["--rm", "-it"], ["sh"])) as terminal:
            terminal.expect("# ")
            terminal.type("tty; stat -c '%u %a' /dev/console\n")
            terminal.expect("/dev/pts/0")
            terminal.expect("0 620")
            terminal.type("exit 4\n")
            seen.append(terminal.finish())
        name = side.background("remap", [], ["sleep", "1000"])
        result = side.docker(
            "exec", "--user", "1000", name, "sh", "-c", "id -u; cat /proc/self/uid_map"
        )
        seen.append([result.status, result.out])
        with side.terminal("exec", "-it", name, "tty") as terminal:
            terminal.expect("/dev/pts/0")
            seen.append(terminal.finish())
        side.docker("rm", "-f", name).ok()
        return seen

    assert Sides(remapped).same(scenario)[0] == 4
    remove_all(remapped)
    settle(remapped.traces, before)


def test_runtime_args_are_passed_by_a_wrapper(engine_runtime: str, box_for_wrapper: Box) -> None:
    """runtimeArgs: dockerd puts a shell script in front, and a global option may come twice."""
    box = box_for_wrapper
    args = ["--debug", "--log", "/run/tmp/own.log", "--log-format", "json"]
    runtimes = {"anocir": {"path": engine_runtime, "runtimeArgs": args}}
    docker = Dockerd(box, {}, config={"runtimes": runtimes})
    result = docker("run", "--rm", "--runtime", "anocir", IMAGE, "echo", "hi").ok()
    assert result.out == "hi\n"
    failed = docker("run", "--rm", "--runtime", "anocir", IMAGE, "no-such-program")
    assert failed.status == 127, failed
    assert "executable file not found in $PATH" in failed.err


@pytest.fixture
def box_for_wrapper(engine_runtime: str) -> Iterator[Box]:
    """Give an empty box."""
    need(*NEEDED)
    box = new_box("wrapper")
    try:
        yield box
    finally:
        box.close()
