"""Podman and conmon over anocir and over runc; as root, and rootless as a user of the box."""

from __future__ import annotations

import json
import re
import shlex
from typing import Any, Callable, Dict, Iterator, List, Sequence, Tuple

import pytest

from tests.drive import until
from tests import machine
from tests.engines.box import Box, Result, Terminal
from tests.engines.conftest import PEER, default_ulimits, need, new_box
from tests.engines.image import IMAGE, busybox_tar
from tests.engines.looks import Case, Look, option_words, read, runs, script
from tests.engines.shim import calls, write_shim
from tests.engines.sides import COUNT, MOUNTS, goes_on, normal, phrases, same, settle

HOME = "/run/podman-test"
USER = 4321
NEEDED = "podman conmon runc busybox newuidmap setpriv docker-init".split()

# Each of these is what anocir's README tells users to write.
CONFIGURATION = """
[containers]
{limits}
[engine]
runtime_supports_json = ["anocir", "peer"]
runtime_supports_nocgroup = ["anocir"]
events_logger = "file"
init_path = "/usr/bin/docker-init"
infra_image = "localhost/{image}"
[engine.runtimes]
anocir = ["{ours}"]
peer = ["{peer}"]
"""


class Podman:
    """podman with one runtime on private directories."""

    __slots__ = ("box", "name", "prefix")

    def __init__(self, box: Box, name: str, prefix: Sequence[str]) -> None:
        """Take the name that containers.conf has for the runtime."""
        self.box = box
        self.name = name
        self.prefix = [*prefix, "--runtime", name]

    def __call__(self, *words: str, stdin: str = "") -> Result:
        """Run a podman command."""
        return self.box.run([*self.prefix, *words], stdin=stdin)

    def run(self, options: Sequence[str], command: Sequence[str]) -> Result:
        """Run a container to its end."""
        network = [] if "--network" in options else ["--network", "none"]
        return self("run", "--rm", *network, *options, IMAGE, *command)

    def background(self, stem: str, options: Sequence[str], command: Sequence[str]) -> str:
        """Start a container and give its name."""
        name = f"{stem}-{self.name}"
        self("run", "-d", "--network", "none", "--name", name, *options, IMAGE, *command).ok()
        return name

    def terminal(self, *words: str) -> Terminal:
        """Run a podman command on a pseudo terminal."""
        return self.box.terminal([*self.prefix, *words])


def directories(home: str) -> List[str]:
    """Give the options that keep podman's traces in one directory."""
    words = [*("--root", f"{home}/root"), *("--runroot", f"{home}/runroot")]
    words += [*("--tmpdir", f"{home}/tmp"), *("--network-config-dir", f"{home}/networks")]
    words += [*("--cgroup-manager", "cgroupfs"), *("--storage-driver", "overlay")]
    return ["podman", *words, *("--events-backend", "file")]


@pytest.fixture(scope="module")
def podman_box(engine_runtime: str) -> Iterator[Box]:
    """Give a box with the configuration, subordinate ids and a user of its own."""
    need(*NEEDED)
    box = new_box("podman")
    try:
        configure(box, engine_runtime)
        yield box
    finally:
        box.close()


def configure(box: Box, engine_runtime: str) -> None:
    """Write the configuration, subordinate ids and a user of the box's own."""
    box.run(["mkdir", "-p", f"{HOME}/user/home", f"{HOME}/etc"]).ok()
    shim = write_shim(box, "anocir", engine_runtime, recorded=True)
    text = CONFIGURATION.format(image=IMAGE, ours=shim, peer=PEER, limits=default_ulimits())
    box.path(f"{HOME}/containers.conf").write_text(text)
    box.environment["CONTAINERS_CONF"] = f"{HOME}/containers.conf"
    ranges = f"containers:200000:655360\nroot:900000:65536\n{USER}:1000000:65536\n"
    for name, text in (
        ("subuid", ranges),
        ("subgid", ranges),
        ("passwd", f"boxuser:x:{USER}:{USER}::{HOME}/user/home:/bin/sh\n"),
        ("group", f"boxuser:x:{USER}:\nshared:x:4322:boxuser\n"),
    ):
        old = "" if name.startswith("sub") else box.path(f"/etc/{name}").read_text()
        box.path(f"{HOME}/etc/{name}").write_text(old + text)
        box.run(["mount", "--bind", f"{HOME}/etc/{name}", f"/etc/{name}"]).ok()
    box.run(["chown", "-R", f"{USER}:{USER}", f"{HOME}/user"]).ok()
    # Shared by two users, whose records land in one file.
    box.run(["sh", "-c", f"touch {shim}.calls; chmod 666 {shim}.calls; chmod 1777 /run/tmp"]).ok()


@pytest.fixture(scope="module")
def root_podman(podman_box: Box) -> Tuple[Podman, Podman]:
    """Give podman as root with the image imported, one for each side."""
    return sides_of_root(podman_box)


def sides_of_root(box: Box) -> Tuple[Podman, Podman]:
    """Import the image for both sides."""
    sides = []
    for name in ("anocir", "peer"):
        # One storage for each: podman's lock on it would make the two sides wait for each other.
        side = Podman(box, name, directories(f"{HOME}/{name}"))
        # Its own command is that of a pod's first container.
        words = ["import", "--change", 'CMD ["sleep", "1000000"]', "-", IMAGE]
        box.run([*side.prefix, *words], stdin=busybox_tar()).ok()
        side.run([], ["true"]).ok()
        sides.append(side)
    return sides[0], sides[1]


def traces(box: Box) -> Dict[str, List[str]]:
    """List the box's traces but for what podman makes once and keeps."""
    found = box.traces()
    found["cgroups"] = [
        x for x in found["cgroups"] if not x.endswith(("/conmon", "/libpod_parent"))
    ]
    found["mounts"] = [x for x in found["mounts"] if not x.endswith(("/overlay", "/run/netns"))]
    return found


@pytest.fixture
def pair(root_podman: Tuple[Podman, Podman]) -> Iterator[Tuple[Podman, Podman]]:
    """Give both sides as root; each test leaves nothing behind."""
    box = root_podman[0].box
    before = traces(box)
    yield root_podman
    for side in root_podman:
        side("rm", "-f", "-a", "-t", "0")
    settle(lambda: traces(box), before)


MAPS = "cat /proc/self/uid_map /proc/self/gid_map; id; touch /x && stat -c '%u %g' /x"

RUN_CASES: Tuple[Tuple[str, List[str], List[str], int, str], ...] = (
    ("status", [], ["sh", "-c", "echo hi; echo err >&2; exit 3"], 3, "hi"),
    (
        "mounts",
        [],
        ["sh", "-c", MOUNTS],
        0,
        "/dev/mqueue",
    ),
    ("environment", ["-e", "A=b"], ["sh", "-c", "env | grep -v HOSTNAME | sort"], 0, "A=b"),
    ("descriptors", [], ["ls", "/proc/self/fd"], 0, "0\n1\n2\n3\n"),
    ("signals", [], ["grep", "Sig[BIC]", "/proc/self/status"], 0, "SigIgn:\t0000000000000000"),
    ("capabilities", [], ["grep", "Cap", "/proc/self/status"], 0, "CapEff"),
    (
        "capabilities of a user",
        ["--user", "1000"],
        ["grep", "Cap", "/proc/self/status"],
        0,
        "CapEff",
    ),
    ("user and groups", ["--user", "anna", "--group-add", "44"], ["id"], 0, "uid=1000(anna)"),
    ("keep groups", ["--group-add", "keep-groups"], ["id", "-G"], 0, "0"),
    ("read-only", ["--read-only"], ["touch", "/x"], 1, "Read-only"),
    ("read-only tmpfs", ["--read-only", "--read-only-tmpfs"], ["touch", "/tmp/x"], 0, ""),
    ("tmpfs copies up", ["--tmpfs", "/var/www"], ["ls", "/var/www"], 0, "index.html"),
    (
        "tmpfs does not",
        ["--mount", "type=tmpfs,dst=/var/www,notmpcopyup"],
        ["ls", "/var/www"],
        0,
        "",
    ),
    ("volume", ["-v", "/run/shim:/v:ro"], ["touch", "/v/x"], 1, "Read-only"),
    (
        "volume shared",
        ["-v", "/run/shim:/v:rslave,nosuid"],
        ["grep", "-c", " /v ", "/proc/mounts"],
        0,
        "1",
    ),
    ("init", ["--init"], ["cat", "/proc/1/comm"], 0, "podman-init"),
    (
        "memory",
        ["--memory", "64m"],
        ["sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes"],
        0,
        "",
    ),
    (
        "pids limit",
        ["--pids-limit", "20"],
        ["sh", "-c", "cat /sys/fs/cgroup/pids/pids.max; :"],
        0,
        "20",
    ),
    (
        "limits",
        ["--ulimit", "nofile=100:200", "--ulimit", "nproc=100:200"],
        ["sh", "-c", "ulimit -n; ulimit -Hn"],
        0,
        "100\n200",
    ),
    ("oom score", ["--oom-score-adj", "123"], ["cat", "/proc/self/oom_score_adj"], 0, "123"),
    ("umask", ["--umask", "0077"], ["sh", "-c", "umask"], 0, "0077"),
    (
        "sysctl",
        ["--sysctl", "net.ipv4.ip_forward=1"],
        ["cat", "/proc/sys/net/ipv4/ip_forward"],
        0,
        "1",
    ),
    ("hostname", ["--hostname", "web"], ["hostname"], 0, "web"),
    (
        "host namespaces",
        ["--pid", "host", "--uts", "host", "--ipc", "host"],
        ["hostname"],
        0,
        "box",
    ),
    (
        "private cgroup namespace",
        ["--cgroupns", "private"],
        ["cat", "/proc/self/cgroup"],
        0,
        ":/\n",
    ),
    ("automatic user namespace", ["--userns", "auto"], ["sh", "-c", MAPS], 0, "0 0\n"),
    (
        "mapped ids",
        ["--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000"],
        ["sh", "-c", MAPS],
        0,
        "100000",
    ),
    ("device", ["--device", "/dev/kmsg"], ["ls", "/dev/kmsg"], 0, "kmsg"),
    (
        "unmasked",
        ["--security-opt", "unmask=ALL"],
        ["sh", "-c", "grep -c /proc/ /proc/mounts"],
        1,
        "0",
    ),
    (
        "seccomp off",
        ["--security-opt", "seccomp=unconfined"],
        ["grep", "Seccomp:", "/proc/self/status"],
        0,
        "0",
    ),
    ("missing executable", [], ["no-such-program"], 127, "executable file not found in $PATH"),
    ("missing path", [], ["/no/such/program"], 127, "no such file or directory"),
    ("directory", [], ["/etc"], 126, ""),
    ("not executable", [], ["/etc/not-a-program"], 126, "permission denied"),
    ("missing device", ["--device", "/dev/none"], ["true"], 125, "no such file"),
    ("bad working directory", ["-w", "/no/such"], ["true"], 126, "does not exist"),
)


# Options that stand beside each other in one container, by the cases' names.
TOGETHER: Tuple[Tuple[str, ...], ...] = (
    (
        *("environment", "tmpfs copies up", "volume", "memory", "pids limit", "limits"),
        *("oom score", "umask", "sysctl", "hostname", "private cgroup namespace", "device"),
    ),
    ("read-only", "read-only tmpfs"),
    # Their container's own status is what is looked at, or its first process.
    *((case[0],) for case in RUN_CASES if case[3] > 100 or case[0] in ("status", "signals")),
)
RUNS = runs(
    [(name, options, shlex.join(words), *rest) for name, options, words, *rest in RUN_CASES],
    TOGETHER,
)


@pytest.mark.parametrize("cases", RUNS, ids=[", ".join(case[0] for case in one) for one in RUNS])
def test_podman_run_is_the_same(pair: Tuple[Podman, Podman], cases: List[Case]) -> None:
    """podman run gives the same status, output and kind of error."""

    def scenario(side: Podman) -> List[Any]:
        if len(cases) == 1:
            words = next(case[2] for case in RUN_CASES if case[0] == cases[0][0])
            result = side.run(cases[0][1], words)
            looks = [Look(result.status, result.out, result.err)]
        else:
            command = script([case[2] for case in cases])
            looks = read(side.run(option_words(cases), ["sh", "-c", command]).ok(), len(cases))
        seen: List[Any] = []
        for (name, options, _, status, text), look in zip(cases, looks):
            assert look.status == status and text in look.out + look.err, (name, look)
            out = re.sub(r"\b[0-9]{6}\b", "HOST_ID", look.out) if "auto" in options else look.out
            seen.append([name, normal(out), phrases(look.err), look.err.count("\n")])
        return seen

    same(scenario, *pair)


def told(side: Podman, *words: str) -> List[Any]:
    """Give what of a podman command's result must be the same on both sides."""
    result = side(*words)
    return [
        words[0],
        result.status,
        normal(result.out.replace(side.name, "NAME")),
        phrases(result.err),
    ]


def as_permission(step: List[Any]) -> List[Any]:
    """Take Podman's 255 for 126 where it means a directory: newer ones of runc say so, which Podman does not know."""
    return [step[0], 126 if step[1] == 255 else step[1], *step[2:]]


def test_life(pair: Tuple[Podman, Podman]) -> None:
    """run -d, logs, exec, top, pause, stats, update, stop, start, restart, kill, rm -f."""

    def scenario(side: Podman) -> List[Any]:
        # Two processes, and these two to the end: what `podman top` says must not hang on the moment.
        two = "trap 'echo term; exit 7' TERM; sleep 1000 & echo started; wait"
        name = side.background("life", ["--memory", "64m"], ["sh", "-c", two])
        side.box.wait([*side.prefix, "logs", name], "started")
        seen = [
            told(side, "exec", name, "sh", "-c", "id; exit 4"),
            told(
                side,
                "exec",
                "-u",
                "1000",
                "-w",
                "/tmp",
                "-e",
                "A=b",
                name,
                "sh",
                "-c",
                "id;pwd;echo $A",
            ),
            told(side, "exec", "--privileged", name, "true")[:1],
            told(side, "exec", name, "no-such-program"),
            as_permission(told(side, "exec", name, "/etc")),
            told(side, "exec", name, "/etc/not-a-program"),
            told(side, "exec", "-w", "/no/such", name, "true"),
            told(side, "exec", name, "sh", "-c", "kill -9 $$"),
            told(side, "exec", "-d", name, "touch", "/made")[:2],
        ]
        made = ["sh", "-c", "test -e /made && echo it is there"]
        side.box.wait([*side.prefix, "exec", name, *made], "it is there")
        until(
            "only these two",
            lambda: side("top", name, "comm").ok().out.split()[1:],
            found=lambda names: names == ["sh", "sleep"],
        )
        seen += [
            told(side, "top", name, "comm"),
            told(side, "pause", name),
            told(side, "exec", name, "true")[:2],
            told(side, "unpause", name),
            told(side, "update", "--memory", "96m", "--cpus", "0.5", name)[:2],
            told(
                side, "exec", name, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes; :"
            ),
            told(side, "stats", "--no-stream", "--format", "{{.PIDs}}", name)[:2],
            told(side, "stop", "-t", "60", name),
            told(side, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name),
            told(side, "logs", name),
            told(side, "start", name),
            told(side, "exec", name, "ls", "/made"),
            told(side, "restart", "-t", "0", name)[:2],
            told(side, "kill", name)[:2],
            told(side, "wait", name),
            told(side, "kill", name)[:2],
            told(side, "rm", "-f", name),
        ]
        return seen

    steps = same(scenario, *pair)
    assert [step[1] for step in steps[:2]] == [0, 0] or steps[0][1] == 4
    assert steps[17][2] == "exited 7\n"
    assert [step[1] for step in steps[3:6]] == [127, 126, 126]
    assert steps[23][2] == "137\n"


def test_host_pid_container_is_removed_with_its_children(pair: Tuple[Podman, Podman]) -> None:
    """Without a pid namespace of its own a container's children end with it."""

    def scenario(side: Podman) -> List[Any]:
        mark = "7101" if side.name == "anocir" else "7102"
        tree = f"sleep {mark} & setsid sleep {mark} & sleep {mark}"
        name = side.background("tree", ["--pid", "host"], ["sh", "-c", tree])
        side.box.wait(["pgrep", "-cfx", f"sleep {mark}"], "3")
        side("rm", "-f", "-t", "0", name).ok()
        # A killed process takes its time to end.
        left = ["pgrep", "-fx", f"sleep {mark}"]
        until("its children are gone", lambda: side.box.run(left).out, found=lambda pids: not pids)
        return ["gone"]

    same(scenario, *pair)


def test_terminal(pair: Tuple[Podman, Podman]) -> None:
    """run -it and exec -it through conmon's terminals."""

    def scenario(side: Podman) -> List[Any]:
        name = f"tty-{side.name}"
        seen: List[Any] = []
        words = ["run", "-it", "--rm", "--network", "none", "--name", name, IMAGE, "sh"]
        with side.terminal(*words) as terminal:
            terminal.expect("# ")
            terminal.await_size("24 80", "# ")
            terminal.type("tty; stty size; ls -l /dev/console | cut -c1\n")
            terminal.expect("/dev/pts/0")
            terminal.expect("24 80")
            with side.terminal("exec", "-it", name, "sh") as second:
                second.expect("# ")
                second.type("tty; exit 5\n")
                second.expect("/dev/pts/1")
                seen.append(second.finish())
            terminal.resize(40, 100)
            terminal.await_size("40 100", "# ")
            terminal.type("exit 9\n")
            seen.append(terminal.finish())
        return seen

    assert same(scenario, *pair) == [5, 9]


def test_standard_input(pair: Tuple[Podman, Podman]) -> None:
    """run -i and exec -i pass input on to its end."""

    def scenario(side: Podman) -> List[Any]:
        run = side("run", "-i", "--rm", "--network", "none", IMAGE, "wc", "-c", stdin="x" * 300_000)
        name = side.background("stdin", [], ["sleep", "1000"])
        exec_ = side("exec", "-i", name, "wc", "-c", stdin="y" * 300_000)
        return [run.out, exec_.out]

    assert same(scenario, *pair) == ["300000\n", "300000\n"]


def test_health_check(pair: Tuple[Podman, Podman]) -> None:
    """podman healthcheck run tells a failing from a passing check."""

    def scenario(side: Podman) -> List[Any]:
        name = side.background("health", ["--health-cmd", "test -e /tmp/ok"], ["sleep", "1000"])
        seen = [side("healthcheck", "run", name).status]
        side("exec", name, "touch", "/tmp/ok").ok()
        return [*seen, side("healthcheck", "run", name).status]

    assert same(scenario, *pair) == [1, 0]


def test_pod_shares_namespaces(pair: Tuple[Podman, Podman]) -> None:
    """Containers of a pod share network, ipc and uts namespaces; --share pid, too."""

    def scenario(side: Podman) -> List[Any]:
        pod = f"pod-{side.name}"
        words = ["--infra-command", "sleep 1000", "--share", "ipc,net,uts,pid", "--network", "none"]
        side("pod", "create", "--name", pod, *words).ok()
        links = "for n in ipc net uts pid; do readlink /proc/self/ns/$n; done; hostname; ps | wc -l"
        one = side("run", "--rm", "--pod", pod, IMAGE, "sh", "-c", links).ok().out.split()
        name = f"member-{side.name}"
        side("run", "-d", "--pod", pod, "--name", name, IMAGE, "sleep", "1000").ok()
        two = side("exec", name, "sh", "-c", links).ok().out.split()
        same_ = [first == second for first, second in zip(one, two)][:4]
        seen: List[Any] = [same_, one[4] == pod]
        seen.append(side("pod", "pause", pod).status)
        seen.append(side("pod", "unpause", pod).status)
        seen.append(side("pod", "kill", pod).status)
        ask = [*side.prefix, "pod", "inspect", "--format", "<{{.State}}>", pod]
        side.box.wait(ask, "<Exited>")
        seen.append(side("pod", "rm", "-f", "-t", "0", pod).status)
        return seen

    assert same(scenario, *pair) == [[True] * 4, True, 0, 0, 0, 0]
    remove_cgroups_of_pods(pair[0].box)


def remove_cgroups_of_pods(box: Box) -> None:
    """Remove what Podman forgets: its pod's cgroup in the hierarchies that have no controller."""
    clean = (
        "rmdir /sys/fs/cgroup/*/libpod_parent/*/ /sys/fs/cgroup/libpod_parent/*/ 2>&-;"
        " find /sys/fs/cgroup -type d -path '*/libpod_parent/*' | grep -q / || echo none left"
    )
    box.wait(["sh", "-c", clean], "none left")


def test_bridge_network_with_a_published_port(pair: Tuple[Podman, Podman]) -> None:
    """netavark's bridge gives the container an address; the published port answers."""

    def scenario(side: Podman) -> List[Any]:
        port = "8091" if side.name == "anocir" else "8092"
        network = f"net{port}"
        third = "1" if side.name == "anocir" else "2"
        side("network", "create", "--subnet", f"10.215.{third}.0/24", network).ok()
        name = f"www-{side.name}"
        words = ["--network", network, "-p", f"{port}:80", "--name", name, IMAGE]
        side("run", "-d", *words, "httpd", "-f", "-h", "/var/www").ok()
        fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read())"
        try:
            page = side.box.wait(["python3", "-c", fetch, f"http://127.0.0.1:{port}/"], "page").out
        finally:
            side("rm", "-f", "-t", "0", name).ok()
            side("network", "rm", network).ok()
        return ["page from the container" in page]

    # netavark's two rule sets would come between each other.
    assert same(scenario, *pair, together=False) == [True]


def test_secret_and_named_volume(pair: Tuple[Podman, Podman]) -> None:
    """A secret appears in /run/secrets; a named volume keeps its data and takes the image's."""

    def scenario(side: Podman) -> List[Any]:
        side("secret", "create", "word", "-", stdin="open sesame").ok()
        try:
            seen = [side.run(["--secret", "word"], ["cat", "/run/secrets/word"]).out]
        finally:
            side("secret", "rm", "word").ok()
        try:
            side.run(["-v", "data:/var/www"], ["touch", "/var/www/new"]).ok()
            seen.append(side.run(["-v", "data:/d"], ["ls", "/d"]).out)
        finally:
            side("volume", "rm", "data").ok()
        return seen

    assert same(scenario, *pair) == ["open sesame", "index.html\nnew\n"]


def test_build(pair: Tuple[Podman, Podman]) -> None:
    """podman build runs its steps by the runtime and fails with the step's status."""

    def scenario(side: Podman) -> List[Any]:
        home = f"{HOME}/build-{side.name}"
        side.box.run(["mkdir", "-p", home]).ok()
        seen: List[Any] = []
        for steps in (
            ["RUN echo built > /built && id", "USER anna", "RUN id && cat /built"],
            ["RUN exit 7"],
            ["RUN no-such-program"],
            ['RUN ["/no/such/program"]'],
        ):
            text = "\n".join([f"FROM {IMAGE}", *steps])
            side.box.path(f"{home}/Containerfile").write_text(text)
            words = ["build", "--no-cache", "--network", "none", "-t", "built", home]
            result = side(*words)
            seen.append([result.status, "uid=1000(anna)" in result.out])
        seen.append(side("run", "--rm", "--network", "none", "built", "cat", "/built").out)
        side("rmi", "-f", "built")
        side("image", "prune", "-f")
        return seen

    steps = same(scenario, *pair)
    assert steps[0] == [0, True]
    assert steps[1] == [7, False]
    assert steps[-1] == "built\n"


def test_commit_copy_and_mount(pair: Tuple[Podman, Podman]) -> None:
    """podman cp, diff and commit of a running container."""

    def scenario(side: Podman) -> List[Any]:
        name = side.background("commit", [], ["sleep", "1000"])
        side("exec", name, "sh", "-c", "echo made > /made").ok()
        source = f"{HOME}/in-{side.name}"
        side.box.path(source).write_text("carried\n")
        seen = [
            told(side, "cp", source, f"{name}:/tmp/in"),
            told(side, "exec", name, "cat", "/tmp/in"),
            told(side, "commit", "-q", name, "committed")[:2],
            told(side, "run", "--rm", "--network", "none", "committed", "cat", "/made"),
            told(side, "rmi", "committed")[:2],
        ]
        return seen

    steps = same(scenario, *pair)
    assert steps[1][2] == "carried\n"
    assert steps[3][2] == "made\n"


LISTENER = """
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print("listening", os.getpid(), flush=True)
while True:
    print(s.recv(4096), flush=True)
"""
# The image has nothing that speaks to a unix socket: the system's Python does.
TELL = """
import os, socket, time
path = os.environ.get("NOTIFY_SOCKET")
print("told" if path else "no socket", flush=True)
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
path and s.sendto(b"STATUS=busy\\nREADY=1", path)
time.sleep(1000)
"""


@pytest.mark.parametrize("mode", ["conmon", "container", "ignore"])
def test_notify_socket(pair: Tuple[Podman, Podman], mode: str) -> None:
    """podman run --sdnotify: the socket's owner learns READY and the main pid, and what else is passed on."""

    def scenario(side: Podman) -> List[Any]:
        name = f"notify-{mode}-{side.name}"
        listener, log = f"{HOME}/{name}", f"{HOME}/{name}.log"
        side.box.path(log).write_text("")
        child = side.box.spawn(["python3", "-c", LISTENER, listener], log=log)
        pid = side.box.wait(["cat", log], "listening").out.split()[1]
        words = ["run", "-d", "--rm", "--name", name, "--network", "none"]
        words += [x for path in ("/usr", "/lib", "/lib64") for x in ("-v", f"{path}:{path}:ro")]
        words += [f"--sdnotify={mode}", IMAGE, "/usr/bin/python3", "-c", TELL]
        try:
            side.box.run([*side.prefix, *words], env={"NOTIFY_SOCKET": listener}).ok()
            heard = "told" if mode == "container" else "no socket"
            side.box.wait([*side.prefix, "logs", name], heard)
            if mode != "ignore":
                side.box.wait(["cat", log], "READY=1")
                side.box.wait(["cat", log], "MAINPID=")
            lines = side.box.path(log).read_text().splitlines()[1:]
            return sorted({re.sub(r"=\d{2,}", "=PID", line) for line in lines})
        finally:
            side("rm", "-f", "-t", "0", name)
            side.box.run(["kill", pid])
            child.wait()
            side.box.run(["rm", "-f", listener, log])

    # With the older ones it is the runtime that passes READY on, and nothing else; newer ones of Podman do it.
    said = same(scenario, *pair)
    assert any("READY=1" in line for line in said) == (mode != "ignore")


def newer(side: Podman, major: int) -> None:
    """Leave a test out where Podman is older."""
    found = side("version", "--format", "{{.Client.Version}}").ok().out
    if int(found.partition(".")[0]) < major:
        pytest.skip(f"[podman-{major}] this Podman is older than {major}")


def test_personality(pair: Tuple[Podman, Podman], beyond_runc: None) -> None:
    """--personality, which runc 1.1 ignores."""
    assert pair[0].run(["--personality", "LINUX32"], ["uname", "-m"]).ok().out == "i686\n"


def test_container_without_cgroups(pair: Tuple[Podman, Podman], beyond_runc: None) -> None:
    """--cgroups=disabled leaves the container in the caller's cgroup."""
    ours = pair[0]
    result = ours.run(["--cgroups=disabled"], ["cat", "/proc/self/cgroup"])
    assert result.status == 0, result
    assert "libpod" not in result.out


def test_preserved_descriptors(pair: Tuple[Podman, Podman]) -> None:
    """--preserve-fds hands descriptors 3 and up to the container."""

    def scenario(side: Podman) -> List[Any]:
        words = [*side.prefix, "run", "--rm", "--network", "none", "--preserve-fds", "2", IMAGE]
        script = 'exec 3</etc/hostname 4</etc/passwd; exec "$@"'
        shell = "read x <&3 && echo three; read y <&4 && echo $y; ls /proc/self/fd | wc -l"
        result = side.box.run(["bash", "-c", script, "sh", *words, "sh", "-c", shell])
        return [result.status, result.out]

    status, out = same(scenario, *pair)
    assert status == 0, out
    assert "three" in out


def test_preserved_descriptors_with_holes(pair: Tuple[Podman, Podman], beyond_runc: None) -> None:
    """--preserve-fd hands over chosen descriptors under their numbers, and nothing between them.

    Podman sends the runtime the highest number alone. runc refuses it, crun passes over what is not open.
    """
    newer(pair[0], 5)
    ours = pair[0]
    script = 'exec 5</etc/hostname 9</etc/passwd; exec "$@"'
    shell = "read x <&9 && echo $x; read y <&5 && echo five; ls /proc/self/fd | tr '\\n' ' '"
    for chosen, lines in (
        ("5,9", ["root:", "five", "0 1 2 3 5 9 "]),
        ("9", ["root:", "0 1 2 3 9 "]),
    ):
        words = [*ours.prefix, "run", "--rm", "--network", "none", "--preserve-fd", chosen, IMAGE]
        result = ours.box.run(["bash", "-c", script, "sh", *words, "sh", "-c", shell]).ok()
        found = result.out.splitlines()
        assert len(found) == len(lines) and all(map(str.startswith, found, lines)), result


POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
spec:
  securityContext: {{runAsUser: 1000, runAsGroup: 44, fsGroup: 44}}
  restartPolicy: Never
  volumes:
  - name: memory
    emptyDir: {{medium: Memory, sizeLimit: 1Mi}}
  - name: disk
    emptyDir: {{}}
  containers:
  - name: main
    image: localhost/{image}
    command: [sh, -c, "{look}"]
    securityContext: {{readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {{drop: [ALL]}}}}
    volumeMounts:
    - {{name: memory, mountPath: /memory}}
    - {{name: disk, mountPath: /disk}}
    resources: {{limits: {{memory: 64Mi}}}}
"""


def test_kube_play_of_a_pod_without_root(pair: Tuple[Podman, Podman]) -> None:
    """podman kube play: a user writes to an emptyDir in memory and to one on the disk, and not to the root."""

    def scenario(side: Podman) -> List[Any]:
        look = "id; touch /memory/a && echo in memory; touch /disk/a && echo on disk; touch /x; grep NoNew /proc/self/status"
        name = f"kube-{side.name}"
        path = f"{HOME}/{name}.yaml"
        side.box.path(path).write_text(POD.format(name=name, image=IMAGE, look=look))
        played = side("kube", "play", "--network", "none", path)
        try:
            played.ok()
            side("wait", f"{name}-main").ok()
            logs = side("logs", f"{name}-main").ok()
            return [logs.out, phrases(logs.err)]
        finally:
            side("kube", "down", path)
            side("pod", "rm", "-f", "-t", "0", name)
            side("volume", "prune", "-f")

    try:
        out, _ = same(scenario, *pair)
    finally:
        remove_cgroups_of_pods(pair[0].box)
    assert "uid=1000(anna) gid=44(video)" in out, out
    assert "in memory\n" in out and "NoNewPrivs:\t1" in out, out


def test_idmapped_volume(pair: Tuple[Podman, Podman], beyond_runc: None) -> None:
    """-v SOURCE:/v:idmap shows a directory's owners as they are, in a user namespace too.

    runc 1.1 leaves the mapping out without a word.
    """
    ours = pair[0]
    home = f"{HOME}/idmap"
    ours.box.run(["mkdir", "-p", home]).ok()
    ours.box.run(["chown", "7:8", home]).ok()
    maps = ["--uidmap", "0:100000:1000", "--gidmap", "0:200000:1000"]
    look = "stat -c '%u %g' /v; touch /v/x && stat -c '%u %g' /v/x"
    result = ours.run([*maps, "-v", f"{home}:/v:idmap"], ["sh", "-c", look]).ok()
    assert result.out == "7 8\n0 0\n", result
    assert ours.box.run(["stat", "-c", "%u %g", f"{home}/x"]).out == "0 0\n"
    plain = ours.run([*maps, "-v", f"{home}:/v"], ["sh", "-c", look])
    assert plain.out.startswith("65534 65534\n"), plain


# What toolbox(1) gives `podman create` (src/cmd/create.go); its own program is left out.
TOOLBOX = (
    "--cgroupns host --dns none --env TOOLBOX_PATH=/usr/bin/toolbox --hostname toolbx --ipc host"
    " --label com.github.containers.toolbox=true --mount type=devpts,destination=/dev/pts --network host"
    " --no-hosts --pid host --privileged --security-opt label=disable --ulimit host --user root:root"
    " --volume /:/run/host:rslave --volume /run/tmp:/run/tmp:rslave"
).split()
TOOLBOX_LOOK = (
    "id; hostname; tty; ls -d /run/host/etc; awk '$5 == \"/dev/pts\" {print $9, $6}' /proc/self/mountinfo;"
    " grep NoNew /proc/self/status; ls /sys/fs/cgroup | grep -vc unified; ls -l /dev/null | cut -c1"
)


def test_the_options_of_toolbox(pair: Tuple[Podman, Podman]) -> None:
    """A container that is set up as toolbox does: created, started, entered, stopped."""
    newer(pair[0], 5)

    def scenario(side: Podman) -> List[Any]:
        name = f"toolbox-{side.name}"
        words = [
            "create",
            *TOOLBOX,
            "--volume",
            "/dev:/dev:rslave",
            "--name",
            name,
            IMAGE,
            "sleep",
            "1000",
        ]
        created = side(*words)
        if created.status:
            return ["create", created.status, phrases(created.err)]
        started = side("start", name)
        seen: List[Any] = [started.status, phrases(started.err)]
        entered = side(
            "exec", "--user", "anna", "--workdir", "/home/anna", name, "sh", "-c", TOOLBOX_LOOK
        )
        seen += [entered.status, normal(entered.out), phrases(entered.err)]
        return seen

    steps = same(scenario, *pair)
    assert steps[0] == 0, steps
    assert "uid=1000(anna)" in steps[3], steps


def test_systemd_is_the_first_process(pair: Tuple[Podman, Podman]) -> None:
    """--systemd=always with Debian's own systemd: it comes up, runs a unit and ends when it is told."""
    tree_there = pair[0].box.run(["test", "-x", "/tree/sbin/init"]).status == 0
    if not tree_there:
        pytest.skip("[SUITE=host] there is no tree of Debian to be the container's system")
    said = pair[0].box.run(["chroot", "/tree", "systemctl", "--version"]).ok().out
    if int(said.split()[1]) >= 258 and machine.v1_mountpoint("pids"):
        pytest.skip("[SUITE=sid] systemd 258 and newer take version 2 of the cgroups alone")

    def scenario(side: Podman) -> List[Any]:
        name = f"systemd-{side.name}"
        # systemd 257 takes version 1 of the cgroups only by force; in a container its words are its kernel's.
        words = [
            "/sbin/init",
            "systemd.unified_cgroup_hierarchy=0",
            "SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1",
        ]
        options = ["--systemd=always", "--network", "none", "--name", name, "--rootfs", "/tree:O"]
        started = side("run", "-d", *options, *words)
        if started.status:
            return ["run", started.status, started.err]
        ask = [*side.prefix, "exec", name, "systemctl", "is-system-running"]
        state = until(
            "systemd is up",
            lambda: side.box.run(ask).out.strip(),
            pause=0.3,
            found=lambda word: word in ("running", "degraded"),
        )
        unit = side(
            "exec",
            name,
            "systemd-run",
            "--wait",
            "--pipe",
            "--quiet",
            "sh",
            "-c",
            "echo unit; exit 3",
        )
        stopped = side("stop", "-t", "60", name)
        status = side("inspect", "-f", "{{.State.ExitCode}}", name).out
        side("rm", "-f", "-t", "0", name)
        return [
            state,
            unit.status,
            unit.out,
            stopped.status,
            status,
        ]

    steps = same(scenario, *pair)
    assert steps[1:3] == [3, "unit\n"], steps


@pytest.fixture(scope="module")
def rootless(podman_box: Box) -> Tuple[Podman, Podman]:
    """Give podman as an ordinary user of the box."""
    return sides_of_a_user(podman_box)


def sides_of_a_user(box: Box) -> Tuple[Podman, Podman]:
    """Import the image for an ordinary user, for both sides."""
    sides = []
    home = f"{HOME}/user"
    for name in ("anocir", "peer"):
        environment = [f"HOME={home}/home", f"XDG_RUNTIME_DIR={home}", f"TMPDIR={home}"]
        environment += ["PATH=/usr/bin:/bin:/usr/sbin", f"CONTAINERS_CONF={HOME}/containers.conf"]
        user = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--groups", f"{USER},4322"]
        prefix = [*user, "env", "-i", *environment, *directories(f"{home}/{name}")]
        side = Podman(box, name, prefix)
        result = box.run([*side.prefix, "import", "-", IMAGE], stdin=busybox_tar())
        if result.status != 0:
            pytest.skip(f"rootless podman does not work here: {result.err[-300:]}")
        sides.append(side)
    return sides[0], sides[1]


ROOTLESS_CASES: Tuple[Tuple[str, List[str], List[str], int, str], ...] = (
    ("status", [], ["sh", "-c", "id; exit 3"], 3, "uid=0(root)"),
    ("maps", [], ["sh", "-c", MAPS], 0, "4321"),
    ("keep-id", ["--userns", "keep-id"], ["sh", "-c", MAPS], 1, "uid=4321"),
    ("nomap", ["--userns", "nomap"], ["sh", "-c", "cat /proc/self/uid_map; id"], 0, "uid=0"),
    ("auto", ["--userns", "auto:size=4096"], ["sh", "-c", "cat /proc/self/uid_map"], 0, "4096"),
    ("host network", ["--network", "host"], ["sh", "-c", "grep -c lo: /proc/net/dev"], 0, "1"),
    ("read-only", ["--read-only"], ["touch", "/x"], 1, "Read-only"),
    ("mounts", [], ["sh", "-c", MOUNTS], 0, "/dev/mqueue"),
    ("device nodes", [], ["sh", "-c", "ls /dev; echo x > /dev/null"], 0, "null"),
    ("user", ["--user", "1000"], ["id"], 0, "uid=1000"),
    ("init", ["--init"], ["cat", "/proc/1/comm"], 0, "podman-init"),
    ("missing executable", [], ["no-such-program"], 127, "executable file not found"),
)


@pytest.mark.parametrize(
    ("options", "command", "status", "text"),
    [pytest.param(*case[1:], id=case[0]) for case in ROOTLESS_CASES],
)
def test_rootless_podman_run_is_the_same(
    rootless: Tuple[Podman, Podman], options: List[str], command: List[str], status: int, text: str
) -> None:
    """An ordinary user's podman gives the same status, output and kind of error."""

    def scenario(side: Podman) -> List[Any]:
        result = side.run(options, command)
        assert text in result.out + result.err, result
        return [result.status, normal(result.out), phrases(result.err)]

    assert same(scenario, *rootless)[0] == status


def test_rootless_life(rootless: Tuple[Podman, Podman]) -> None:
    """An ordinary user's run -d, exec, stop and rm -f."""

    def scenario(side: Podman) -> List[Any]:
        name = side.background(
            "user",
            [],
            ["sh", "-c", "trap 'exit 7' TERM; echo started; while :; do sleep .1; done"],
        )
        side.box.wait([*side.prefix, "logs", name], "started")
        seen = [
            told(side, "exec", name, "sh", "-c", "id; exit 4"),
            told(side, "exec", name, "no-such-program"),
            told(side, "stop", "-t", "60", name),
            told(side, "inspect", "-f", "{{.State.ExitCode}}", name),
            told(side, "start", name),
            told(side, "rm", "-f", "-t", "0", name),
        ]
        return seen

    steps = same(scenario, *rootless)
    assert [step[1] for step in steps[:2]] == [4, 127]


def test_keep_groups_keeps_the_callers_groups(
    rootless: Tuple[Podman, Podman], beyond_runc: None
) -> None:
    """--group-add keep-groups leaves the user's supplementary groups to the container.

    runc refuses it; anocir follows crun, by the annotation run.oci.keep_original_groups.
    """
    result = rootless[0].run(
        ["--group-add", "keep-groups"], ["grep", "Groups", "/proc/self/status"]
    )
    assert result.status == 0, result
    assert "65534" in result.out, result


def test_keep_groups_beside_keep_id(rootless: Tuple[Podman, Podman], beyond_runc: None) -> None:
    """--userns keep-id --group-add keep-groups, as distrobox and toolbox users have it: the groups survive."""
    options = ["--userns", "keep-id", "--group-add", "keep-groups"]
    result = rootless[0].run(options, ["grep", "-E", "Groups|Uid", "/proc/self/status"])
    assert result.status == 0, result
    assert "65534" in result.out and f"Uid:\t{USER}" in result.out, result


def test_the_options_of_toolbox_for_a_user(rootless: Tuple[Podman, Podman]) -> None:
    """The set that toolbox gives for a user: keep-id, all of the host's namespaces, the host's files."""

    words = list(TOOLBOX)
    # It would need a /dev/mqueue of the host's.
    del words[words.index("--ipc") : words.index("--ipc") + 2]

    def scenario(side: Podman) -> List[Any]:
        name = f"toolbox-{side.name}"
        created = side(
            "create", "--userns", "keep-id", *words, "--name", name, IMAGE, "sleep", "1000"
        )
        try:
            started = side("start", name) if created.status == 0 else created
            entered = side(
                "exec",
                "--user",
                str(USER),
                name,
                "sh",
                "-c",
                "id -u; hostname; ls -d /run/host/etc",
            )
            return [
                created.status,
                started.status,
                phrases(started.err),
                entered.status,
                entered.out,
            ]
        finally:
            side("rm", "-f", "-t", "0", name)

    steps = same(scenario, *rootless)
    assert steps[0] == steps[1] == steps[3] == 0, steps


@pytest.mark.needs("criu")
def test_checkpoint_restore_and_a_move(
    podman_box: Box, pair: Tuple[Podman, Podman], criu: Callable[[Box], None]
) -> None:
    """A container goes on in its place, and by way of an archive under another name."""
    criu(podman_box)

    def scenario(side: Podman) -> List[Any]:
        name = side.background("counts", [], COUNT)
        until("it counts", lambda: side("logs", name).out.count("\n") > 2)
        side("container", "checkpoint", name).ok()
        form = "{{.State.Status}} {{.State.Checkpointed}}"
        seen: List[Any] = [side("inspect", "-f", form, name).out]
        side("container", "restore", name).ok()
        seen.append(goes_on(lambda: side("logs", name).out))
        archive, moved = f"/run/tmp/{name}.tar.gz", f"moved-{side.name}"
        side("container", "checkpoint", "--export", archive, name).ok()
        side("rm", name).ok()
        side("container", "restore", "--import", archive, "--name", moved).ok()
        seen.append(goes_on(lambda: side("logs", moved).out))
        seen.append(side("exec", moved, "echo", "inside").out)
        return seen

    assert same(scenario, *pair) == ["exited true\n", True, True, "inside\n"]


def test_environment_of_podmans_calls_is_sparse(
    podman_box: Box, pair: Tuple[Podman, Podman]
) -> None:
    """delete, kill and pause come without PATH, HOME and LANG, so the runtime must not need them."""
    name = pair[0].background("sparse", [], ["sleep", "1000"])
    for words in (["pause", name], ["unpause", name], ["kill", name], ["rm", "-f", name]):
        pair[0](*words).ok()
    seen: Dict[str, List[str]] = {}
    for call in calls(podman_box, "/run/shim/anocir"):
        verb = next(word for word in call.argv if not word.startswith("-") and "/" not in word)
        seen[verb] = sorted(call.env)
    assert seen["delete"] == ["XDG_RUNTIME_DIR"], json.dumps(seen)


def test_calls_of_podman_are_the_known_ones(
    podman_box: Box, pair: Tuple[Podman, Podman], golden: Any
) -> None:
    """The command lines that podman and conmon sent in this module are those of the golden list."""
    golden("podman", calls(podman_box, "/run/shim/anocir"))


RECORDING = """#!/bin/sh
for word in "$@"; do
    shift
    set -- "$@" "$word"
    [ "$word" != create ] || set -- "$@" --record-seccomp {profile}
done
exec {runtime} "$@"
"""


def test_into_a_container_that_podman_made(
    pair: Tuple[Podman, Podman], engine_runtime: str
) -> None:
    """Tools, mounts, devices and a recorded profile: what the runtime alone has, beside the engine."""
    side = pair[0]
    box = side.box
    place = f"/run/tmp/{box.fresh('into')}"
    box.run(["mkdir", place]).ok()
    profile, wrapper = f"{place}/profile.json", f"{place}/recording"
    path = box.path(wrapper)
    path.write_text(RECORDING.format(profile=profile, runtime=engine_runtime))
    path.chmod(0o755)
    words = ["sh", "-c", "mkdir /made; exec sleep 1000"]
    options = ["--network", "none", "--name", "into", "--memory", "64m"]
    side("--runtime", wrapper, "run", "-d", *options, IMAGE, *words).ok()
    found = side("inspect", "--format", "{{.Id}}", "into").ok().out.strip()
    setup = (
        f"mkdir {place}/tools; cp $(command -v busybox) {place}/tools; mknod {place}/node c 1 12"
    )
    box.run(["sh", "-c", setup]).ok()

    def anocir(*words: str) -> str:
        return box.run([engine_runtime, *words]).ok().out

    def inside(text: str) -> str:
        return side("exec", "into", "sh", "-c", f"({text}) 2>&1").out

    said = anocir("exec", "--tools", f"{place}/tools", found, "busybox", "ls", "/.anocir/tools")
    assert said == "busybox\n"
    assert "No such file" in inside("ls /.anocir")

    mount = {"destination": "/mnt", "source": f"{place}/tools", "type": "bind", "options": ["ro"]}
    box.path(f"{place}/mounts.json").write_text(json.dumps([mount]))
    anocir("mounts", "add", found, f"{place}/mounts.json")
    assert inside("ls /mnt; touch /mnt/x").startswith("busybox\ntouch: /mnt/x: Read-only")

    anocir("update", "--device-add", f"{place}/node:/dev/new:r", found)
    opened = inside("(: </dev/new) 2>&1; (: >>/dev/new) 2>&1")
    assert opened.count("not permitted") == 1
    # the engine's own update sends its whole list of rules, and takes nothing away
    newer = side("update", "--help").status == 0  # since Podman 4.5
    if newer:
        side("update", "--cpu-shares", "500", "into").ok()
    assert inside("(: </dev/new) 2>&1; (: >>/dev/new) 2>&1") == opened
    differences = json.loads(anocir("diff", "--format", "json", found))
    assert {"/mnt", "/dev/new"} <= {each["what"] for each in differences}
    assert newer == ("linux.resources.cpu.shares" in {each["path"] for each in differences})

    anocir("mounts", "remove", found, f"{place}/mounts.json")
    anocir("update", "--device-remove", "/dev/new", found)
    assert "busybox" not in inside("ls /mnt")
    assert "No such file" in inside("ls /dev/new")
    side("rm", "-f", "-t", "0", "into").ok()
    until("the profile", lambda: box.path(profile).exists())
    allowed = json.loads(box.path(profile).read_text())["syscalls"]
    assert "mkdir" in {name for rule in allowed for name in rule["names"]}
    side("run", "--rm", "--network", "none", "--security-opt", f"seccomp={profile}", IMAGE, "mkdir", "/x").ok()  # fmt: skip
