"""What callers of runc rely on: terminals, signals, environments, process objects, statuses and warnings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from typing import Any

import pytest

from tests import drive, machine
from tests.bundle import CAPABILITIES, PATH
from tests.drive import Container, Runtime, Terminal
from tests.runtime.test_capabilities import bits

CREATE_PLACES = ["prestart", "createRuntime"]
HOST_PLACES = [*CREATE_PLACES, "poststart", "poststop"]


def process(*args: str, **more: Any) -> dict[str, Any]:
    return {"args": list(args), "cwd": "/", "env": [PATH], "user": {"uid": 0, "gid": 0}, **more}


def on_a_terminal(container: Container, *words: str) -> str:
    """Everything that a command of the runtime shows on a terminal, up to a line with END."""
    terminal = Terminal(container.runtime.command(*words))
    try:
        return terminal.expect("END\r\n")
    finally:
        terminal.close()


# ---------------------------------------------------------------------- terminals


def test_run_on_a_terminal_leaves_a_line_feed_to_the_callers_terminal(
    container: Container,
) -> None:
    container.process["terminal"] = True
    container.bundle.sh("stty -a | grep -o -- '-*onlcr'; echo END")
    container.bundle.write()
    words = ("run", "-b", container.bundle.path, container.id)
    # it is one feed in the container, and the caller's terminal begins a line at its left
    assert on_a_terminal(container, *words).splitlines(True) == ["-onlcr\r\n", "END\r\n"]


def test_exec_on_a_terminal_leaves_a_line_feed_to_the_callers_terminal(
    container: Container,
) -> None:
    container.launch("sleep 1000")
    shown = on_a_terminal(
        container,
        "exec",
        "-t",
        container.id,
        "sh",
        "-c",
        "stty -a | grep -o -- '-*onlcr'; echo END",
    )
    assert shown.splitlines(True) == ["-onlcr\r\n", "END\r\n"]


def test_without_any_terminal_a_terminal_is_refused_at_once(container: Container) -> None:
    container.process["terminal"] = True
    container.bundle.sh("cat; echo END")
    began = time.monotonic()
    result = container.try_run(stdin=subprocess.DEVNULL, timeout=20, start_new_session=True)
    assert result.status != 0
    assert "/dev/tty" in result.stderr
    assert time.monotonic() - began < 10
    assert container.runtime("state", container.id, ok=None).status != 0


# ---------------------------------------------------------------------- environments


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [(["HOME="], "/root"), (["HOME=/x", "HOME="], "/root"), (["HOME=", "HOME=/y"], "/y")],
)
def test_an_empty_home_is_filled_in(container: Container, entries: list[str], wanted: str) -> None:
    container.process["env"] = [PATH, *entries]
    assert container.run('echo "$HOME"').strip() == wanted


@pytest.mark.parametrize(("user", "wanted"), [(0, "/root"), (1000, "/home/user"), (77, "/")])
def test_an_empty_home_of_exec_is_filled_in(container: Container, user: int, wanted: str) -> None:
    container.launch("sleep 1000")
    options = ["-e", "HOME=", "--user", str(user)]
    assert container.exec("sh", "-c", 'echo "$HOME"', options=options).stdout.strip() == wanted
    told = process("sh", "-c", 'echo "$HOME"', env=[PATH, "HOME="], user={"uid": user, "gid": user})
    assert container.exec_process(told).stdout.strip() == wanted


def hooked(container: Container, name: str, script: str, **fields: Any) -> str:
    """Live a container's life with one hook; what the hook wrote."""
    target = os.path.join(container.bundle.path, "told")
    container.bundle.hook(name, f"({script}) > {target}", **fields)
    container.bundle.write()
    container.bundle.sh("true")
    for verb in (container.create, container.start):
        verb()
    container.wait("stopped")
    container.delete()
    with open(target) as file:
        return file.read()


@pytest.mark.parametrize("name", HOST_PLACES)
def test_a_hook_without_env_has_the_callers(
    container: Container, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_THE_CALLER", "v a l")
    assert hooked(container, name, 'echo "$FROM_THE_CALLER"') == "v a l\n"


@pytest.mark.parametrize("name", [*HOST_PLACES, "createContainer"])
@pytest.mark.parametrize("env", [["A=1"], []])
def test_a_hook_with_env_has_exactly_that(
    container: Container, name: str, env: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_THE_CALLER", "value")
    # the shell adds some of its own
    shown = hooked(
        container, name, "/usr/bin/env | grep -vE '^(PWD|SHLVL|_|OLDPWD)='; true", env=env
    )
    assert shown.split() == env


@pytest.mark.parametrize("name", HOST_PLACES)
def test_the_working_directory_of_a_hook_of_the_host_is_the_bundle(
    container: Container, name: str
) -> None:
    assert hooked(container, name, "pwd").strip() == container.bundle.path


def test_the_working_directory_of_a_create_container_hook_is_the_root(container: Container) -> None:
    container.bundle.put("/marked/here", "yes")
    assert hooked(container, "createContainer", "cat marked/here") == "yes"


def test_a_start_container_hook_without_env_has_the_process_environment(
    container: Container,
) -> None:
    container.process["env"] = [PATH, "MINE=its own", "HOME="]
    container.bundle.hook("startContainer", 'echo "$MINE $HOME" > /told')
    container.run("true")
    assert container.bundle.read("/told") == "its own /root\n"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
@pytest.mark.parametrize("name", ["createRuntime", "createContainer", "startContainer", "poststop"])
def test_the_output_of_hooks_goes_where_an_annotation_says(
    container: Container, name: str, stream: str
) -> None:
    target = os.path.join(container.bundle.path, "printed")
    with open(target, "w") as file:
        file.write("before\n")
    container.config["annotations"] = {f"run.oci.hooks.{stream}": target}
    container.bundle.hook(name, "echo out; echo err >&2")
    container.run("true")
    with open(target) as file:
        assert file.read() == "before\n" + {"stdout": "out\n", "stderr": "err\n"}[stream]


# ---------------------------------------------------------------------- signals


@pytest.mark.parametrize("name", ["TERM", "HUP", "INT", "QUIT"])
def test_a_created_container_ends_by_the_usual_signals(container: Container, name: str) -> None:
    container.bundle.sh("true")
    container.create()
    container.kill(name)
    container.wait("stopped")


@pytest.mark.parametrize("name", ["USR1", "WINCH", "CHLD"])
def test_a_created_container_takes_no_harm_of_others(container: Container, name: str) -> None:
    container.bundle.sh("echo fine")
    container.create()
    container.kill(name)
    container.start()
    container.wait("stopped")
    assert container.output() == "fine\n"


def forwarded(container: Container, number: int) -> str:
    """What a program in the foreground says of a signal that the runtime gets, or that it was not told."""
    container.bundle.sh(
        "trap 'echo got' WINCH PIPE USR2; trap 'echo end; exit' TERM; echo ready; while :; do sleep 0.05; done"
    )
    container.bundle.write()
    path = os.path.join(container.bundle.path, "shown")
    with open(path, "wb") as out:
        child = drive.spawn(
            container.runtime.command("run", "-b", container.bundle.path, container.id), stdout=out
        )

    def shown() -> str:
        with open(path) as file:
            return file.read()

    drive.until("ready", lambda: "ready" in shown())
    child.send_signal(number)
    if number != signal.SIGWINCH:
        drive.until("the signal", lambda: "got" in shown())
    child.send_signal(signal.SIGTERM)
    drive.finish(child)
    return shown()


@pytest.mark.parametrize("number", [signal.SIGPIPE, signal.SIGUSR2])
def test_run_forwards(container: Container, number: int) -> None:
    assert forwarded(container, number).split() == ["ready", "got", "end"]


def test_run_keeps_a_change_of_its_window_to_itself(container: Container) -> None:
    assert forwarded(container, signal.SIGWINCH).split() == ["ready", "end"]


def test_an_empty_signal_is_term(container: Container) -> None:
    pid = container.launch("trap 'exit 33' TERM; while :; do sleep 0.05; done")
    drive.until("the trap", lambda: int(_status(pid, "SigCgt"), 16) >> 14 & 1)
    container.kill("")
    assert container.wait_exit(pid) == 33


def _status(pid: int, name: str) -> str:
    with open(f"/proc/{pid}/status") as file:
        return next(line.split(":")[1].strip() for line in file if line.startswith(name + ":"))


@pytest.mark.parametrize("name", ["RTMAX-3", "SIGRTMAX-14", "rtmax"])
def test_real_time_signals_are_counted_from_the_last(container: Container, name: str) -> None:
    number = 64 - int(name.partition("-")[2] or 0)
    container.process["args"] = ["/bin/sleep", "1000"]
    container.linux["namespaces"] = [
        entry for entry in container.linux["namespaces"] if entry["type"] != "pid"
    ]
    pid = container.launch()
    container.kill(name)
    assert container.wait_exit(pid) == 128 + number


def test_kill_ends_what_outlived_init_of_a_shared_pid_namespace(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    pid = container.launch("sleep 1000 & echo $! > /inner; exec true")
    container.wait_exit(pid)
    container.wait("stopped")
    inner = int(container.wait_file("/inner"))
    assert os.path.exists(f"/proc/{inner}")
    container.kill("KILL")
    drive.until("the orphan's end", lambda: drive.reap() or not os.path.exists(f"/proc/{inner}"))
    assert "not running" in container.kill("KILL", ok=False).stderr


# ---------------------------------------------------------------------- exec


@pytest.mark.parametrize("way", ["/dev/stdin", "/dev/fd/0", "fifo"])
def test_a_process_object_may_come_through_a_pipe(container: Container, way: str) -> None:
    container.launch("sleep 1000")
    text = json.dumps(process("echo", "piped"))
    if way != "fifo":
        shown = container.runtime("exec", "--process", way, container.id, stdin=text).stdout
    else:
        path = os.path.join(container.bundle.path, "fifo")
        os.mkfifo(path)
        writer = drive.spawn(["/bin/sh", "-c", f"printf %s '{text}' > {path}"])
        shown = container.runtime("exec", "--process", path, container.id).stdout
        drive.finish(writer)
    assert shown == "piped\n"


def test_what_a_process_object_does_not_say_is_the_containers(container: Container) -> None:
    own = CAPABILITIES[3:6]
    container.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), own)
    container.process["user"]["umask"] = 0o27
    container.process["oomScoreAdj"] = 321
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 77, "hard": 78}]
    container.launch("sleep 1000")
    script = "grep CapEff /proc/self/status; umask; cat /proc/self/oom_score_adj; ulimit -Hn"
    shown = container.exec_process(process("sh", "-c", script)).stdout.split()
    assert int(shown[1], 16) == bits(own)
    assert shown[2:4] == ["0027", "321"]
    assert shown[4] != "78"  # limits are the object's alone, as in runc


def test_what_a_process_object_says_is_its_own(container: Container) -> None:
    container.process["user"]["umask"] = 0o27
    container.process["oomScoreAdj"] = 321
    container.launch("sleep 1000")
    told = process(
        "sh", "-c", "grep CapEff /proc/self/status; umask; cat /proc/self/oom_score_adj",
        oomScoreAdj=500, capabilities={}, user={"uid": 0, "gid": 0, "umask": 0o77},
    )  # fmt: skip
    assert container.exec_process(told).stdout.split() == ["CapEff:", "0" * 16, "0077", "500"]


@pytest.mark.parametrize(
    ("kind", "shown"),
    [
        ({"class": "IOPRIO_CLASS_BE", "priority": 3}, "best-effort: prio 3"),
        ({"class": "IOPRIO_CLASS_IDLE"}, "idle"),
    ],
)
def test_the_io_priority_of_the_container_holds_for_a_process_object(
    container: Container, kind: dict[str, Any], shown: str
) -> None:
    container.process["ioPriority"] = kind
    container.launch("sleep 1000")
    assert container.exec_process(process("ionice")).stdout.strip() == shown


@pytest.mark.needs("compiler")
def test_the_scheduler_of_the_container_holds_for_a_process_object(container: Container) -> None:
    container.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    container.launch("sleep 1000")
    assert container.exec_process(process("probe", "sched")).stdout.startswith("policy 3 nice 7 ")


def test_two_dashes_after_the_id_are_passed_over(container: Container) -> None:
    container.launch("sleep 1000")
    assert container.exec("--", "echo", "--", "a").stdout == "-- a\n"
    container.runtime("kill", container.id, "--", "CONT")
    # only there, and where no "--" before the id has said the same
    assert container.runtime("kill", container.id, "CONT", "--", ok=False).status == 1
    assert container.runtime("exec", "--", container.id, "--", "echo", ok=False).status == 255


@pytest.mark.parametrize(
    "words", [["exec"], ["exec", "--nonsense", "x", "true"], ["exec", "--user"]]
)
def test_a_mistake_in_the_words_of_exec_is_status_1(runtime: Runtime, words: list[str]) -> None:
    assert runtime(*words, ok=False).status == 1


# ---------------------------------------------------------------------- warnings


def test_a_failing_poststop_hook_is_told_by_default(container: Container) -> None:
    container.bundle.hook("poststop", "echo because >&2; exit 3")
    container.launch("true")
    container.wait("stopped")
    result = container.delete()
    assert "poststop" in result.stderr
    assert "because" in result.stderr


def test_a_capability_that_cannot_be_granted_is_told_by_default(container: Container) -> None:
    container.process["capabilities"] = {
        "bounding": ["CAP_CHOWN"],
        "permitted": [],
        "effective": ["CAP_CHOWN"],
        "inheritable": ["CAP_KILL"],  # more than the bounding set is refused by capset(2)
    }
    container.launch("sleep 1000")
    told = container.errors()
    assert "CAP_CHOWN" in told
    assert "process.capabilities.inheritable[0]: CAP_KILL cannot be granted" in told
    process = {**container.process, "args": ["/bin/true"]}
    assert "CAP_KILL cannot be granted" in container.exec_process(process).stderr


def test_ignored_personality_flags_are_told_by_default(container: Container) -> None:
    container.linux["personality"] = {"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}
    container.run("true")
    assert "linux.personality.flags" in container.errors()


def test_a_relative_mount_destination_is_told_by_default(container: Container) -> None:
    container.bundle.add_mount("tmp", "tmpfs", "tmpfs")
    container.run("true")
    assert "mounts[6].destination" in container.errors()


def test_what_the_specification_does_not_ask_for_is_not_told(container: Container) -> None:
    container.config["surplus"] = 1
    container.run("true")
    assert container.errors() == ""


def test_a_warning_in_the_log_is_a_json_object_of_its_level(container: Container) -> None:
    container.bundle.add_mount("tmp", "tmpfs", "tmpfs")
    container.bundle.sh("true")
    container.bundle.write()
    path = os.path.join(container.bundle.path, "log.json")
    container.runtime.bare(
        "--root",
        container.runtime.root,
        "--log",
        path,
        "--log-format",
        "json",
        "run",
        "-b",
        container.bundle.path,
        container.id,
    )
    with open(path) as file:
        assert [json.loads(line)["level"] for line in file] == ["warning"]


@pytest.mark.needs("root")
def test_a_name_that_a_newer_kernel_may_know_is_a_warning(container: Container) -> None:
    newer = container.bundle.outside("cap_last_cap", "63\n")
    container.process["capabilities"]["bounding"] = [*CAPABILITIES, "CAP_OF_TOMORROW"]
    container.bundle.sh("grep CapBnd /proc/self/status")
    container.bundle.write()
    machine.mount(newer, "/proc/sys/kernel/cap_last_cap", "", 4096)
    try:
        result = container.try_run(ok=True)
        container.launch("sleep 1000")
        execd = container.exec("true", options=["--cap", "CAP_OF_TOMORROW"])
    finally:
        machine.umount("/proc/sys/kernel/cap_last_cap")
    assert "CAP_OF_TOMORROW" in container.errors()
    assert int(
        result.stdout.split()[-1] if result.stdout else container.output().split()[-1], 16
    ) == bits(CAPABILITIES)
    assert "CAP_OF_TOMORROW" in execd.stderr


# ---------------------------------------------------------------------- hooks and the end


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_poststop_hooks_run_after_a_hook_that_failed(container: Container, name: str) -> None:
    target = os.path.join(container.bundle.path, "stopped")
    container.bundle.hook(name, "exit 1")
    container.bundle.hook("poststop", f"touch {target}")
    container.refused()
    assert os.path.exists(target)


@pytest.mark.parametrize("name", ["startContainer", "poststart"])
def test_poststop_hooks_run_after_a_hook_of_start_that_failed(
    container: Container, name: str
) -> None:
    target = os.path.join(container.bundle.path, "stopped")
    container.bundle.hook(name, "exit 1")
    container.bundle.hook("poststop", f"touch {target}")
    container.bundle.sh("true")
    container.create()
    container.start(ok=False)
    assert os.path.exists(target)


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "createContainer"])
def test_poststop_hooks_run_after_a_create_that_failed_later(
    container: Container, name: str
) -> None:
    target = os.path.join(container.bundle.path, "stopped")
    container.bundle.hook(name, "true")
    container.bundle.hook("poststop", f"touch {target}")
    container.process["args"] = ["/nothing/there"]
    container.refused()
    assert os.path.exists(target)


def test_poststop_hooks_do_not_run_when_no_hook_has(container: Container) -> None:
    target = os.path.join(container.bundle.path, "stopped")
    for name in ("prestart", "createContainer", "poststop"):
        container.bundle.hook(name, f"touch {target}")
    container.bundle.add_mount("/x", "bind", "/nothing/webhook-missing", "bind")
    container.refused()
    assert not os.path.exists(target)
