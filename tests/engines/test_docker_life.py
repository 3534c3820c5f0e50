"""A container's life under dockerd, told twice: once under anocir, once under runc, with the same words."""

from __future__ import annotations

import json
import re
import time
from typing import Any, Callable, List

import pytest

from tests.drive import until
from tests.engines.box import BOUND, Box
from tests.engines.docker import Side, Sides
from tests.engines.image import IMAGE
from tests.engines.sides import COUNT, goes_on, normal, phrases

# Two processes, and these two to the end: what `docker top` says must not hang on the moment.
TWO = ["sh", "-c", "trap 'echo got term; exit 7' TERM; sleep 1000 & echo started; wait"]


def told(side: Side, *words: str) -> List[Any]:
    """Give what of a docker command's result must be the same on both sides."""
    result = side.docker(*words)
    text = normal(result.out.replace(side.runtime, "RUNTIME"))
    if text.startswith("OCI runtime"):
        # docker exec writes the runtime's error to its standard output.
        text = ""
    return [words[0], result.status, text, phrases(result.out + result.err)]


def await_processes(side: Side, name: str, *commands: str) -> None:
    """Wait until these are the container's only processes: no exec's leavings, no shell before its execve."""

    def found() -> List[str]:
        lines = side.docker("top", name, "-o", "pid,comm").ok().out.splitlines()[1:]
        return sorted(line.split()[1] for line in lines)

    until(f"only {commands}", found, found=lambda now: now == sorted(commands))


def plain(text: str) -> str:
    """Drop what the shell's line editor writes, at moments that differ."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]|\r/ [#$] ", "", text)


def test_background_logs_exec_top_stop_rm(sides: Sides) -> None:
    """run -d, logs, exec, top, stop, rm."""

    def scenario(side: Side) -> List[Any]:
        name = side.background("life", ["-e", "A=b"], TWO)
        side.docker.box.wait(side.docker.argv("logs", name), "started")
        seen = [
            told(side, "logs", name),
            told(side, "exec", name, "sh", "-c", "id; echo $A; cat /proc/1/comm; exit 4"),
            told(side, "exec", "-i", name, "cat"),
            told(
                side,
                "exec",
                "--user",
                "1000:44",
                "-w",
                "/tmp",
                "-e",
                "C=d",
                name,
                "sh",
                "-c",
                "id; pwd; echo $C",
            ),
            told(side, "exec", "--privileged", name, "true")[:1],
            told(
                side,
                "exec",
                name,
                "sh",
                "-c",
                "grep -E 'Cap|Seccomp|NoNew' /proc/self/status; ls /proc/self/fd",
            ),
            told(
                side,
                "exec",
                name,
                "sh",
                "-c",
                "cut -d: -f3 /proc/self/cgroup | sort -u | grep -c docker",
            ),
            told(side, "exec", name, "no-such-program"),
            told(side, "exec", name, "/no/such/path"),
            told(side, "exec", name, "/etc"),
            told(side, "exec", name, "/etc/not-a-program"),
            told(side, "exec", "-w", "/no/such/directory", name, "true"),
            told(side, "exec", "--user", "nobody-here", name, "true"),
            told(side, "exec", name, "sh", "-c", "kill -9 $$"),
            told(side, "exec", "-d", name, "touch", "/made"),
        ]
        made = ["sh", "-c", "test -e /made && echo it is there"]
        side.docker.box.wait(side.docker.argv("exec", name, *made), "it is there")
        await_processes(side, name, "sh", "sleep")
        top = told(side, "top", name, "-o", "pid,comm,args")
        top[2] = re.sub(r"(?m)^\d+ +", "PID ", top[2])
        return [
            *seen,
            top,
            told(side, "stop", "-t", "60", name),
            told(
                side, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}} {{.State.Pid}}", name
            ),
            told(side, "logs", name),
            told(side, "exec", name, "true"),
            told(side, "start", name),
            told(side, "exec", name, "ls", "/made"),
            told(side, "rm", name)[:2],
            told(side, "kill", name),
            told(side, "inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", name),
            told(side, "rm", name),
        ]

    steps = sides.same(scenario)
    assert steps[1][:2] == ["exec", 4]
    assert "cat" not in steps[2][2]
    # A program that is not there: Docker says 127 since 28.
    missing = 127 if sides.docker.version() >= (28,) else 126
    assert [step[1] for step in steps[7:11]] == [missing, missing, 126, 126]
    assert steps[13][1] == 137
    assert [line.split()[:2] for line in steps[15][2].splitlines()[1:]] == [
        ["PID", "sh"],
        ["PID", "sleep"],
    ]
    assert steps[17][2] == "exited 7 0\n"
    assert steps[21][:2] == ["exec", 0]
    assert steps[24][2] == "137 false\n"


def test_run_on_a_terminal(sides: Sides) -> None:
    """run -it on a real pty: echo, size, resize, ctrl-c, end of file, status, terminal put back."""

    def scenario(side: Side) -> List[Any]:
        told_: List[Any] = []
        with side.terminal(*side.words(["--rm", "-it"], ["sh"])) as terminal:
            terminal.expect("# ")
            terminal.await_size("24 80", "# ")
            for command, answer in (
                ("tty", "/dev/pts/0"),
                ("stty size", "24 80"),
                ("ls -l /dev/console | cut -c1-10; echo done1", "\ndone1"),
                ("ls /proc/self/fd | tr '\\n' ' '; echo do''ne2", "done2\r\n"),
                ("grep -c 'console' /proc/self/mounts", "1"),
                ("stat -c '%u %a' /dev/console", "0 620"),
                ("ps -o tty,comm; echo done3", "\ndone3"),
            ):
                terminal.type(command + "\n")
                told_.append(plain(terminal.expect(answer)))
                terminal.expect("# ")
            terminal.resize(50, 132)
            terminal.await_size("50 132", "# ")
            # Only a program in the foreground gets the signal; a shell at its prompt gets a key.
            terminal.type("sh -c 'echo run\"\"ning; exec sleep 100'\n")
            terminal.expect("running")
            terminal.type("\x03")
            terminal.expect("# ")
            terminal.type("exit 9\n")
            told_.append(terminal.finish())
            told_.append(terminal.flags() == terminal.before)
        return told_

    steps = sides.same(scenario)
    assert steps[-2:] == [9, True]


def test_exec_on_a_terminal(sides: Sides) -> None:
    """exec -it gets a terminal of its own and exits with the shell's status."""

    def scenario(side: Side) -> List[Any]:
        name = side.background("tty", [], ["sleep", "1000"])
        told_: List[Any] = []
        with side.terminal("exec", "-it", "--user", "1000", name, "sh") as terminal:
            terminal.expect("$ ")
            terminal.await_size("24 80", "$ ")
            terminal.type("tty; stty size; stat -c %u $(tty)\n")
            told_.append(plain(terminal.expect("24 80\r\n1000")))
            terminal.type("exit 5\n")
            told_.append(terminal.finish())
        side.docker("rm", "-f", name).ok()
        return told_

    assert sides.same(scenario)[-1] == 5


def test_terminal_end_of_file_ends_the_shell(sides: Sides) -> None:
    """ctrl-d ends run -it with the status of the last command."""

    def scenario(side: Side) -> List[Any]:
        with side.terminal(*side.words(["--rm", "-it", "--user", "1000"], ["sh"])) as terminal:
            terminal.expect("$ ")
            # A key that comes before the shell has its terminal back would be no end of file.
            terminal.await_size("24 80", "$ ")
            terminal.type("false\n")
            terminal.expect("$ ")
            terminal.type("\x04")
            return [terminal.finish()]

    assert sides.same(scenario) == [1]


def test_attach_and_detach_keys(sides: Sides) -> None:
    """attach shows the running shell; the detach keys leave it running."""

    def scenario(side: Side) -> List[Any]:
        name = side.name("attach")
        side.docker(*side.words(["-dit", "--name", name], ["sh"])).ok()
        told_: List[Any] = []
        with side.terminal("attach", "--detach-keys", "ctrl-x,x", name) as terminal:
            terminal.type("X=kept\n")
            terminal.expect("# ")
            terminal.type("\x18x")
            terminal.expect("read escape sequence")
            told_.append(terminal.finish())
        told_.append(side.docker.inspect(name, ".State.Status"))
        with side.terminal("attach", name) as terminal:
            terminal.type("echo $X; exit 6\n")
            terminal.expect("kept")
            told_.append(terminal.finish())
        told_.append(side.docker.inspect(name, ".State.Status"))
        side.docker("rm", name).ok()
        return told_

    assert sides.same(scenario)[1:] == ["running", 6, "exited"]


def test_standard_input(sides: Sides) -> None:
    """run -i passes its input on to the end of file, however large."""

    def scenario(side: Side) -> List[Any]:
        words = side.words(["--rm", "-i"], ["sh", "-c", "wc -c; echo end"])
        result = side.docker(*words, stdin="x" * 1_000_000)
        return [result.status, result.out]

    assert sides.same(scenario) == [0, "1000000\nend\n"]


def test_signals_and_kill(sides: Sides) -> None:
    """kill with names and numbers; a proxied signal ends a foreground run with its status."""

    def scenario(side: Side) -> List[Any]:
        loop = "trap 'echo usr1' USR1; trap 'echo hup' HUP; echo ready; while :; do sleep 0.1; done"
        name = side.background("kill", [], ["sh", "-c", loop])
        logs = side.docker.argv("logs", name)
        side.docker.box.wait(logs, "ready")
        told_ = [told(side, "kill", "-s", "USR1", name)]
        side.docker.box.wait(logs, "usr1")
        told_.append(told(side, "kill", "-s", "1", name))
        side.docker.box.wait(logs, "hup")
        told_.append(told(side, "kill", "-s", "NOPE", name))
        told_.append(told(side, "kill", name))
        side.docker.wait(name, ".State.Status", "exited")
        told_.append(told(side, "kill", name)[:2])
        told_.append(told(side, "inspect", "-f", "{{.State.ExitCode}}", name))
        told_.append(told(side, "rm", "-f", name))
        return told_

    steps = sides.same(scenario)
    assert steps[-2][2] == "137\n"


def test_pause_update_stats(sides: Sides) -> None:
    """pause, unpause, update, stats."""

    def scenario(side: Side) -> List[Any]:
        name = side.background("pause", ["--memory", "64m", "--cpus", "1"], ["sleep", "1000"])
        limits = (
            "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes memory.max cpu/cpu.cfs_quota_us"
            " cpu.max pids/pids.max pids.max cpuset/cpuset.cpus cpuset.cpus 2>/dev/null; true"
        )
        told_ = [
            told(side, "pause", name),
            told(side, "inspect", "-f", "{{.State.Status}}", name),
            told(side, "exec", name, "true")[:2],
            told(side, "pause", name)[:2],
            told(side, "unpause", name),
            told(side, "unpause", name)[:2],
            told(side, "exec", name, "sh", "-c", limits),
            told(side, "update", "--memory", "96m", "--memory-swap", "-1", "--cpus", "0.7", name)[
                :2
            ],
            told(side, "update", "--pids-limit", "33", "--cpuset-cpus", "0", name)[:2],
            told(side, "exec", name, "sh", "-c", limits),
            told(side, "update", "--cpuset-cpus", "99", name)[:2],
            told(side, "stats", "--no-stream", "--format", "{{.MemPerc | len}}", name)[:2],
        ]
        words = ["stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", name]
        # The docker command gives dashes when the daemon takes longer than two seconds.
        usage = until(
            "statistics", lambda: side.docker(*words).ok().out, found=lambda out: "--" not in out
        )
        told_.append([usage.split("/")[1].split()])
        # Killing a paused container must work, too.
        told_.append(told(side, "pause", name))
        told_.append(told(side, "rm", "-f", name))
        return told_

    steps = sides.same(scenario)
    assert steps[1][2] == "paused\n"
    assert "100663296" in steps[9][2]
    assert "33" in steps[9][2]


def test_out_of_memory_is_told(sides: Sides) -> None:
    """A container over its memory limit is killed, and docker inspect knows why."""

    def scenario(side: Side) -> List[Any]:
        name = side.name("oom")
        docker, home = side.docker, f"/run/oom-{side.runtime}"
        docker.box.run(["mkdir", "-p", home]).ok()
        # The shim listens for an OOM from the answer to start on, and until the cgroup goes: /go/on keeps
        # it between both.
        hog = (
            "until test -e /go/on; do sleep 0.1; done; head -c 200m /dev/zero | tail -c 100m > /dev/null;"
            " code=$?; while test -e /go/on; do sleep 0.1; done; exit $code"
        )
        words = ["--name", name, "--memory", "16m", "--memory-swap", "16m", "-v", f"{home}:/go:ro"]
        argv = docker.argv(*side.words(words, ["sh", "-c", hog]))
        child = docker.box.spawn(argv, log=f"{home}.log")
        docker.wait(name, ".State.Running", "true")
        docker.box.path(f"{home}/on").write_text("")
        events = [
            "events",
            "--since",
            "1",
            "--filter",
            f"container={name}",
            "--filter",
            "event=oom",
        ]
        until(
            "a notice of the OOM",
            lambda: docker(*events, "--until", str(time.time())).ok().out,
        )
        docker.box.path(f"{home}/on").unlink()
        seen = [child.wait(BOUND), docker.inspect(name, ".State.OOMKilled")]
        side.docker("rm", name).ok()
        return seen

    assert sides.same(scenario) == [137, "true"]


def test_volumes(sides: Sides) -> None:
    """-v ro, rw, a file, a named volume that keeps data, rshared and rslave propagation."""

    def scenario(side: Side) -> List[Any]:
        box = side.docker.box
        home = f"/run/volumes-{side.runtime}"
        box.run(["mkdir", "-p", f"{home}/sub"]).ok()
        box.path(f"{home}/file").write_text("content\n")
        box.run(["mount", "-t", "tmpfs", "volume", home]).ok()
        box.run(["mount", "--make-shared", home]).ok()
        box.run(["mkdir", f"{home}/sub"]).ok()
        box.path(f"{home}/file").write_text("content\n")
        try:
            seen: List[Any] = []
            for options, command in (
                ([f"{home}:/v:ro"], "cat /v/file; touch /v/x"),
                ([f"{home}:/v"], "echo more >> /v/file; cat /v/file; stat -c %u /v/file"),
                ([f"{home}/file:/etc/motd:ro"], "cat /etc/motd; echo x > /etc/motd"),
                (
                    [f"{home}/file:/new/place/file"],
                    "cat /new/place/file; echo y >> /new/place/file",
                ),
                ([f"data-{side.runtime}:/var/www"], "cat /var/www/index.html; echo z > /var/www/z"),
                ([f"data-{side.runtime}:/d"], "cat /d/index.html /d/z"),
                (
                    [f"{home}:/v:rslave"],
                    "grep -o ' /v .*master:' /proc/self/mountinfo | cut -d' ' -f2",
                ),
                (
                    [f"{home}:/v:rprivate"],
                    "grep ' /v ' /proc/self/mountinfo | grep -c -e shared -e master",
                ),
                ([f"{home}:/a", f"{home}/sub:/a/sub:ro"], "ls /a; touch /a/ok && touch /a/sub/no"),
            ):
                words = [word for option in options for word in ("-v", option)]
                result = side.run(words, ["sh", "-c", command])
                seen.append([result.status, normal(result.out), result.err])
            shared = ["-v", f"{home}:/v:rshared", "--cap-add", "SYS_ADMIN"]
            result = side.run(
                shared, ["sh", "-c", "mount -t tmpfs inner /v/sub && touch /v/sub/inner"]
            )
            seen.append([result.status, result.out, result.err, box.run(["ls", f"{home}/sub"]).out])
            box.run(["umount", f"{home}/sub"]).ok()
            name = side.background("slave", ["-v", f"{home}:/v:rslave"], ["sleep", "1000"])
            box.run(["mount", "-t", "tmpfs", "later", f"{home}/sub"]).ok()
            seen.append(told(side, "exec", name, "grep", "-c", "later", "/proc/mounts"))
            side.docker("rm", "-f", name).ok()
            box.run(["umount", f"{home}/sub"]).ok()
            return seen
        finally:
            box.run(["umount", "-R", home])
            side.docker("volume", "rm", f"data-{side.runtime}")

    steps = sides.same(scenario)
    assert [step[0] for step in steps[:9]] == [1, 0, 1, 0, 0, 0, 0, 1, 1]
    assert steps[9] == [0, "", "", "inner\n"]
    assert steps[10][2] == "1\n"


def test_a_published_port_is_reached(sides: Sides) -> None:
    """A page served in the container arrives through the published port, over bridge and proxy."""

    def scenario(side: Side) -> List[Any]:
        port = "8081" if side is sides.ours else "8082"
        name = side.background("www", ["-p", f"{port}:80"], ["httpd", "-f", "-h", "/var/www"])
        box = side.docker.box
        seen: List[Any] = []
        fetch = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=30).read())"
        for host in ("127.0.0.1", "10.213.77.1"):
            page = box.wait(["python3", "-c", fetch, f"http://{host}:{port}/"], "page")
            seen.append("page from the container" in page.out)
        address = side.docker.inspect(name, ".NetworkSettings.IPAddress")
        request = f"printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc {address} 80"
        seen.append("page from the container" in side.run([], ["sh", "-c", request]).out)
        seen.append(told(side, "port", name)[:2])
        side.docker("rm", "-f", name).ok()
        return seen

    assert sides.same(scenario)[:3] == [True] * 3


def test_namespaces_of_another_container(sides: Sides) -> None:
    """--pid, --network and --ipc container:NAME share exactly those namespaces."""

    def scenario(side: Side) -> List[Any]:
        name = side.background("first", ["--ipc", "shareable"], ["sleep", "1000"])
        links = "cd /proc/self/ns; for n in ipc net pid uts mnt; do readlink $n; done"
        first = side.docker("exec", name, "sh", "-c", links).ok().out.split()
        seen: List[Any] = []
        for options in (
            ["--pid", f"container:{name}"],
            ["--network", f"container:{name}"],
            ["--ipc", f"container:{name}"],
            ["--pid", "host"],
            ["--uts", "host"],
        ):
            second = side.run(options, ["sh", "-c", links]).ok().out.split()
            seen.append([one == other for one, other in zip(first, second)])
        seen.append(
            told(side, *side.words(["--rm", "--pid", f"container:{name}"], ["cat", "/proc/1/comm"]))
        )
        side.docker("rm", "-f", name).ok()
        return seen

    steps = sides.same(scenario)
    assert [step.index(True) for step in steps[:3]] == [2, 1, 0]
    assert steps[5][2] == "sleep\n"


def test_host_pid_container_is_killed_with_all_its_processes(sides: Sides) -> None:
    """Without a pid namespace of its own a stopped container must not leave its children."""

    def scenario(side: Side) -> List[Any]:
        marker = "7001" if side is sides.ours else "7002"
        tree = f"sleep {marker} & setsid sleep {marker} & sleep {marker}"
        name = side.background("hostpid", ["--pid", "host"], ["sh", "-c", tree])
        box = side.docker.box
        box.wait(["pgrep", "-cfx", f"sleep {marker}"], "3")
        side.docker("rm", "-f", name).ok()
        left = ["pgrep", "-fx", f"sleep {marker}"]
        until("its children are gone", lambda: box.run(left).out, found=lambda pids: not pids)
        return ["gone"]

    sides.same(scenario)


def test_copy_and_commit(sides: Sides) -> None:
    """docker cp in both directions, diff, commit, export of a running container."""

    def scenario(side: Side) -> List[Any]:
        box = side.docker.box
        name = side.background("cp", [], ["sh", "-c", "echo made > /made; sleep 1000"])
        box.run(["mkdir", "-p", f"/run/cp-{side.runtime}"]).ok()
        box.path(f"/run/cp-{side.runtime}/in").write_text("carried in\n")
        side.docker.box.wait(side.docker.argv("exec", name, "cat", "/made"), "made\n")
        seen = [
            told(side, "cp", f"/run/cp-{side.runtime}/in", f"{name}:/tmp/in"),
            told(side, "exec", name, "cat", "/tmp/in"),
            told(side, "cp", f"{name}:/made", f"/run/cp-{side.runtime}/out"),
            [box.path(f"/run/cp-{side.runtime}/out").read_text()],
            sorted(side.docker("diff", name).out.splitlines()),
            told(side, "commit", "-c", "CMD cat /made", name, f"committed-{side.runtime}")[:2],
            told(side, "run", "--rm", "--runtime", side.runtime, f"committed-{side.runtime}"),
            told(side, "rename", name, f"{name}-2"),
            told(side, "wait", name)[:2],
            told(side, "rm", "-f", f"{name}-2")[:2],
            told(side, "rmi", f"committed-{side.runtime}")[:2],
        ]
        return seen

    steps = sides.same(scenario)
    assert steps[1][2] == "carried in\n"
    assert steps[6][2] == "made\n"


def test_restart_policies(sides: Sides) -> None:
    """--restart on-failure:N starts N times again; docker restart gives a new process."""

    def scenario(side: Side) -> List[Any]:
        name = side.background(
            "again", ["--restart", "on-failure:3"], ["sh", "-c", "echo run; exit 3"]
        )
        side.docker.wait(name, ".RestartCount", "3")
        side.docker.wait(name, ".State.Status", "exited")
        seen = [told(side, "logs", name), told(side, "rm", name)]
        name = side.background("always", ["--restart", "always"], ["sleep", "1000"])
        side.docker("exec", name, "kill", "-9", "1")
        before = side.docker.inspect(name, ".State.Pid")
        side.docker("restart", "-t", "0", name).ok()
        seen.append([side.docker.inspect(name, ".State.Pid") != before])
        seen.append(told(side, "rm", "-f", name))
        return seen

    steps = sides.same(scenario)
    assert steps[0][2] == "run\n" * 4


def test_health_check(sides: Sides) -> None:
    """A check that runs by exec every second turns healthy and then unhealthy."""

    def scenario(side: Side) -> List[Any]:
        options = [
            "--health-cmd",
            "test -e /tmp/ok",
            "--health-interval",
            "1s",
            "--health-retries",
            "2",
            "--health-timeout",
            "100s",
        ]
        name = side.background("health", options, ["sh", "-c", "touch /tmp/ok; sleep 1000"])
        seen = set()

        def look() -> None:
            # Docker keeps five answers only.
            log = json.loads(side.docker.inspect(name, "json .State.Health.Log"))
            seen.update((one["ExitCode"], one["Output"]) for one in log)

        side.docker.wait(name, ".State.Health.Status", "healthy")
        look()
        side.docker("exec", name, "rm", "/tmp/ok").ok()
        side.docker.wait(name, ".State.Health.Status", "unhealthy")
        look()
        side.docker("rm", "-f", name).ok()
        return sorted(seen)

    assert sides.same(scenario) == [(0, ""), (1, "")]


def test_create_start_attach_and_wait(sides: Sides) -> None:
    """docker create, start -a, wait, start again, inspect."""

    def scenario(side: Side) -> List[Any]:
        name = side.name("created")
        side.docker(
            "create", "--runtime", side.runtime, "--name", name, IMAGE, "sh", "-c", "echo x; exit 2"
        ).ok()
        seen = [
            told(side, "start", "-a", name),
            told(side, "wait", name),
            told(side, "start", "-a", name),
            told(side, "logs", name),
            told(side, "rm", name),
        ]
        return seen

    steps = sides.same(scenario)
    assert [step[1] for step in steps] == [2, 0, 2, 0, 0]


def test_cgroup_parent_and_namespace(sides: Sides) -> None:
    """--cgroup-parent puts the container below another cgroup; --cgroupns hides where."""

    def scenario(side: Side) -> List[Any]:
        parent = f"/parent-{side.runtime}"
        name = side.background("parent", ["--cgroup-parent", parent], ["sleep", "1000"])
        pid = side.docker.inspect(name, ".State.Pid")
        table = side.docker.box.run(["cat", f"/proc/{pid}/cgroup"]).ok().out
        found = {
            line.split(":")[2].split("/")[1] for line in table.split() if "/" != line.split(":")[2]
        }
        seen: List[Any] = [normal(word).replace(side.runtime, "RUNTIME") for word in sorted(found)]
        side.docker("rm", "-f", name).ok()
        side.docker.box.remove_cgroup(parent)
        private = ["--cgroupns", "private"]
        shell = "cat /proc/self/cgroup | cut -d: -f2,3 | sort; awk '$8 ~ /cgroup/ {print $4,$5,$6}' /proc/self/mountinfo | grep -v unified | sort"
        seen.append(normal(side.run(private, ["sh", "-c", shell]).ok().out))
        return seen

    assert sides.same(scenario)[0] == "parent-RUNTIME"


@pytest.mark.parametrize("count", [50])
def test_many_containers_at_once(sides: Sides, count: int) -> None:
    """Fifty containers started in parallel all run, answer an exec each tenth, and go."""
    script = (
        f"for i in $(seq {count}); do docker -H unix://{sides.docker.home}/socket run -d --network none"
        f" --runtime anocir --name many$i {IMAGE} sleep 1000 & done; wait"
    )
    started = sides.docker.box.run(["sh", "-c", script])
    assert len(started.out.split()) == count, started
    running = sides.docker("ps", "-q", "--filter", "status=running").ok().out.split()
    assert len(running) == count
    for index in range(10, count + 1, 10):
        assert sides.docker("exec", f"many{index}", "echo", "here").ok().out == "here\n"
    sides.docker("rm", "-f", *running).ok()


def test_many_execs_at_once(sides: Sides) -> None:
    """Twenty execs in parallel in one container all give their own status and output."""
    name = sides.ours.background("execs", [], ["sleep", "1000"])
    script = (
        f"for i in $(seq 20); do (docker -H unix://{sides.docker.home}/socket exec {name}"
        ' sh -c "echo out$i; exit $i"; echo status$?) & done; wait'
    )
    words = sides.docker.box.run(["sh", "-c", script]).ok().out.split()
    assert sorted(words) == sorted(f"{kind}{i}" for i in range(1, 21) for kind in ("out", "status"))


def test_seccomp_profile_of_a_user(sides: Sides) -> None:
    """--security-opt seccomp=FILE with a rule on an argument and errno of choice."""
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [
            {"names": ["chmod", "fchmodat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28},
            {
                "names": ["personality"],
                "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}],
            },
        ],
    }
    # The docker command reads the profile, so it needs a path of the box.
    sides.docker.box.path("/run/tmp/profile.json").write_text(json.dumps(profile))
    shell = "chmod 700 /etc; chmod 700 /tmp; linux32 uname -m; linux64 uname -m"
    result = sides.compare(["--security-opt", "seccomp=/run/tmp/profile.json"], ["sh", "-c", shell])
    assert "No space left on device" in result.err


def test_daemon_events_of_a_life(sides: Sides) -> None:
    """docker events tells the same story of a container under both runtimes."""

    def scenario(side: Side) -> List[Any]:
        name = side.name("events")
        since = str(time.time())
        side.docker(*side.words(["--name", name], ["sh", "-c", "exit 2"]))
        side.docker("rm", name).ok()
        words = [
            "--since",
            since,
            "--until",
            str(time.time() + 1),
            "--filter",
            f"container={name}",
        ]
        form = "{{.Action}} {{.Actor.Attributes.exitCode}}"
        story = side.docker("events", *words, "--format", form).ok().out.splitlines()
        # The daemon answers an attach before it writes it down, so a start may come between.
        attached = [line for line in story if line.startswith("attach")]
        return [attached, *(line for line in story if line not in attached)]

    assert "die 2" in sides.same(scenario)


def test_a_failed_start_is_remembered(sides: Sides) -> None:
    """docker start of what cannot start: status, the container's state and a second try."""

    def scenario(side: Side) -> List[Any]:
        seen: List[Any] = []
        for number, command in enumerate(("no-such-program", "/etc/not-a-program")):
            name = f"{side.name('fails')}-{number}"
            side.docker("create", "--runtime", side.runtime, "--name", name, IMAGE, command).ok()
            for _ in range(2):
                seen.append(told(side, "start", name)[:2])
                seen.append(side.docker.inspect(name, ".State.Status"))
                seen.append(side.docker.inspect(name, ".State.ExitCode"))
            seen.append(told(side, "rm", name)[:2])
        return seen

    steps = sides.same(scenario)
    assert steps[1:3] == ["created", "127"]


def restarted(side: Side, name: str) -> bool:
    """Start from a checkpoint, whichever runtime does it.

    dockerd puts it into containerd's store for a moment, and now and then stumbles over its own
    copy there, before the runtime is called.
    """
    result = side.docker("start", "--checkpoint", "two", name)
    if "failed to upload checkpoint to containerd" in result.err:
        return False
    result.ok()
    return True


@pytest.mark.needs("criu")
def test_checkpoint_and_start_from_it(sides: Sides, criu: Callable[[Box], None]) -> None:
    """docker checkpoint create, ls, and start --checkpoint: the container goes on."""
    criu(sides.docker.box)

    def scenario(side: Side) -> List[str]:
        name = side.background("counts", ["--network", "none"], COUNT)
        until("it counts", lambda: side.docker("logs", name).out.count("\n") > 2)
        seen = [side.docker("checkpoint", "create", "--leave-running", name, "one").ok().out]
        seen.append(str(goes_on(lambda: side.docker("logs", name).out)))
        seen.append(side.docker("checkpoint", "create", name, "two").ok().out)
        side.docker.wait(name, ".State.Status", "exited")
        seen.append(" ".join(side.docker("checkpoint", "ls", name).ok().out.split()[2:]))
        until("it starts from it", lambda: restarted(side, name))
        seen.append(str(goes_on(lambda: side.docker("logs", name).out)))
        return seen

    seen = sides.same(scenario)
    assert seen == ["one\n", "True", "two\n", "one two", "True"]
