"""Hooks (config.md, "POSIX-platform Hooks"; runtime.md, "Lifecycle")."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import pytest

from tests import machine
from tests.drive import Container, Runtime, until

HOST_HOOKS = ["prestart", "createRuntime", "poststart", "poststop"]
CREATE_HOOKS = ["prestart", "createRuntime", "createContainer"]
ALL = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"]


def note(container: Container) -> str:
    """A file on the host that hooks append to."""
    return os.path.join(container.bundle.path, "notes")


def read_note(container: Container) -> list[str]:
    """The lines of that file."""
    try:
        with open(note(container)) as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []


def live(container: Container) -> None:
    """Create, start, let it end, delete."""
    container.create()
    container.start()
    container.wait("stopped")
    container.delete()


def test_all_hooks_run_in_their_place_and_in_the_listed_order(container: Container) -> None:
    path = note(container)
    container.bundle.add_mount("/notes", "none", container.bundle.outside("notes", ""), "bind")
    for name in ALL:
        for number in (1, 2):
            target = "/notes" if name == "startContainer" else path
            container.bundle.hook(name, f"echo {name} {number} >> {target}")
    container.bundle.sh("echo program >> /notes; sleep 0.3")
    container.create()
    assert read_note(container) == [f"{name} {n}" for name in CREATE_HOOKS for n in (1, 2)]
    container.start()
    container.wait("stopped")
    lines = read_note(container)[6:]
    assert lines[:2] == ["startContainer 1", "startContainer 2"]
    assert sorted(lines[2:]) == ["poststart 1", "poststart 2", "program"]
    assert lines.index("poststart 1") < lines.index("poststart 2")
    container.delete()
    assert read_note(container)[-2:] == ["poststop 1", "poststop 2"]


def states_of_hooks(container: Container, *names: str) -> dict[str, dict[str, Any]]:
    """Let each hook keep its stdin and return what it was given."""
    for name in names:
        container.bundle.hook(name, f"cat > {container.bundle.path}/state-{name}")
    live(container)
    states = {}
    for name in names:
        with open(os.path.join(container.bundle.path, "state-" + name)) as file:
            states[name] = json.load(file)
    return states


def test_hooks_get_the_state_with_id_bundle_and_annotations(container: Container) -> None:
    container.config["annotations"] = {"org.example": "value", "empty": ""}
    container.bundle.sh("sleep 0.2")
    for state in states_of_hooks(container, *HOST_HOOKS).values():
        assert state["id"] == container.id
        assert state["bundle"] == container.bundle.path
        assert state["annotations"] == {"org.example": "value", "empty": ""}
        assert state["ociVersion"].startswith("1.")


@pytest.mark.parametrize(
    ("name", "statuses"),
    [
        ("prestart", ("created",)),
        ("createRuntime", ("created",)),
        ("createContainer", ("created",)),
        ("poststart", ("running",)),
        ("poststop", ("stopped",)),
    ],
)
def test_the_state_given_to_a_hook_has_the_status_of_its_place(
    container: Container, name: str, statuses: tuple[str, ...]
) -> None:
    container.bundle.sh("true")
    assert states_of_hooks(container, name)[name]["status"] in statuses


@pytest.mark.parametrize("name", ["prestart", "createRuntime", "poststart"])
def test_the_pid_given_to_a_hook_of_the_host_is_the_containers(
    container: Container, name: str
) -> None:
    container.bundle.hook(name, f"cat > {container.bundle.path}/state")
    pid = container.launch("sleep 100")
    with open(os.path.join(container.bundle.path, "state")) as file:
        assert json.load(file)["pid"] == pid


def test_the_state_is_one_line_and_stdin_is_closed_after_it(container: Container) -> None:
    container.bundle.hook("createRuntime", f"wc -l > {container.bundle.path}/lines", timeout=50)
    container.create()
    with open(os.path.join(container.bundle.path, "lines")) as file:
        assert int(file.read()) <= 1


@pytest.mark.parametrize("name", ALL)
def test_a_hook_that_does_not_read_its_stdin_is_no_trouble(container: Container, name: str) -> None:
    container.config["annotations"] = {"big": "x" * 200_000}
    container.config.setdefault("hooks", {})[name] = [{"path": "/bin/true"}]
    live(container)


def test_the_environment_of_a_hook_is_exactly_the_configured_one(container: Container) -> None:
    path = note(container)
    container.config["hooks"] = {
        "createRuntime": [
            {
                "path": "/usr/bin/env",
                "args": ["env", "sh", "-c", f"tr '\\0' '\\n' < /proc/self/environ > {path}"],
                "env": ["PATH=/usr/bin:/bin", "ONE=1", "TWO=a b"],
            }
        ]
    }
    container.create(env=dict(os.environ, LEAK="from the caller"))
    assert read_note(container) == ["PATH=/usr/bin:/bin", "ONE=1", "TWO=a b"]


@pytest.mark.parametrize("given", [{}, {"LC_CTYPE": "C"}, {"LANG": "C", "LC_CTYPE": "C.UTF-8"}])
def test_a_hook_without_env_gets_the_callers_as_it_is(
    container: Container, given: dict[str, str]
) -> None:
    """The interpreter gives itself an LC_CTYPE where the caller has no locale."""
    container.config["hooks"] = {
        "createRuntime": [
            {"path": "/bin/sh", "args": ["sh", "-c", f"cp /proc/self/environ {note(container)}"]}
        ]
    }
    given = {"PATH": os.environ["PATH"], **given}
    container.create(env=given)
    found = read_note(container)[0].rstrip("\0").split("\0")
    assert dict(entry.split("=", 1) for entry in found if entry[:4] != "PWD=") == given


def test_a_hook_inside_without_env_gets_nothing_of_the_callers(container: Container) -> None:
    container.bundle.hook("createContainer", f"cat /proc/$$/environ > {note(container)}; echo")
    container.create(env=dict(os.environ, LEAK="from the caller"))
    assert "LEAK" not in "".join(read_note(container))


def test_args_of_a_hook_start_with_its_name(container: Container) -> None:
    entry = container.bundle.hook("createRuntime", f"cat /proc/$$/cmdline > {note(container)}")
    entry["args"][0] = "my-name"
    container.create()
    assert read_note(container)[0].startswith("my-name\0-c\0")


def test_a_hook_keeps_no_descriptor_of_the_runtime(container: Container) -> None:
    container.bundle.hook("createRuntime", f"ls /proc/self/fd > {note(container)}")
    container.create()
    assert read_note(container) == ["0", "1", "2", "3"]  # 3 is the directory that ls reads


@pytest.mark.parametrize("name", HOST_HOOKS)
def test_a_hook_of_the_host_runs_in_the_hosts_namespaces(container: Container, name: str) -> None:
    kinds = ["mnt", "net", "pid", "uts", "ipc", "user", "cgroup"]
    reading = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    container.bundle.hook(name, f"({reading}) > {note(container)}")
    container.bundle.sh("sleep 0.2")
    live(container)
    assert read_note(container) == [os.readlink(f"/proc/self/ns/{kind}") for kind in kinds]


@pytest.mark.parametrize("name", ["prestart", "createRuntime"])
def test_a_hook_of_create_finds_the_containers_namespaces_by_its_pid(
    container: Container, name: str
) -> None:
    script = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); readlink /proc/$pid/ns/net /proc/$pid/ns/uts"
    container.bundle.hook(name, f"({script}) > {note(container)}")
    container.create()
    pid = container.pid
    assert read_note(container) == [os.readlink(f"/proc/{pid}/ns/{k}") for k in ("net", "uts")]


def test_create_container_hooks_run_in_the_containers_namespaces(container: Container) -> None:
    kinds = ["mnt", "net", "uts", "ipc"]
    reading = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    container.bundle.hook("createContainer", f"({reading}) > {note(container)}")
    container.create()
    pid = container.pid
    assert read_note(container) == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds]


def test_create_container_hooks_see_the_mounts_and_still_the_hosts_files(
    container: Container,
) -> None:
    container.bundle.add_mount("/m", "tmpfs", "my-source")
    container.bundle.hook(
        "createContainer",
        f"grep -c my-source /proc/self/mountinfo > {note(container)}; ls -d /usr >> {note(container)}",
    )
    container.create()
    assert read_note(container) == ["1", "/usr"]


def test_a_mount_made_by_a_create_container_hook_is_in_the_container(container: Container) -> None:
    container.bundle.make_directory("/m")
    container.bundle.hook(
        "createContainer", f"/bin/mount -t tmpfs from-hook {container.bundle.rootfs}/m",
        env=["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
    )  # fmt: skip
    assert "from-hook" in container.run("grep ' /m ' /proc/self/mountinfo")


def test_start_container_hooks_run_inside_before_the_program(container: Container) -> None:
    container.bundle.put("/bin/only-inside", "#!/bin/sh\necho hook $$ >> /order\n", 0o755)
    container.config["hooks"] = {"startContainer": [{"path": "/bin/only-inside"}]}
    container.bundle.sh("echo program >> /order")
    container.create()
    assert not container.bundle.has("/order")
    container.start()
    container.wait("stopped")
    first, second = container.bundle.read("/order").splitlines()
    assert first.startswith("hook ") and second == "program"


def test_poststart_hooks_run_when_the_program_runs(container: Container) -> None:
    script = (
        "sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/' > {0}.pid; readlink /proc/$(cat {0}.pid)/exe > {0}"
    )
    container.bundle.hook("poststart", script.format(note(container)))
    container.process["args"] = ["/bin/sleep", "100"]
    container.create()
    container.start()
    # not its name, which the kernel changes after it has closed the descriptors
    assert [os.path.basename(path) for path in read_note(container)] == ["busybox"]


def test_start_waits_for_the_poststart_hooks(container: Container) -> None:
    container.bundle.hook("poststart", f"sleep 0.3; echo done > {note(container)}")
    container.launch("sleep 100")
    assert read_note(container) == ["done"]


def test_poststop_hooks_run_when_delete_has_cleared_away(container: Container) -> None:
    pids = machine.cgroup_directory("pids", container.cgroup)
    container.bundle.hook("poststop", f"ls -d {pids} > {note(container)} 2>/dev/null; true")
    live(container)
    assert read_note(container) == []


def test_poststop_hooks_run_after_delete_force_too(container: Container) -> None:
    container.bundle.hook("poststop", f"echo stopped > {note(container)}")
    container.launch("sleep 100")
    container.delete("--force")
    assert read_note(container) == ["stopped"]


def test_every_hook_runs_in_run_as_well(container: Container) -> None:
    for name in HOST_HOOKS:
        container.bundle.hook(name, f"echo {name} >> {note(container)}")
    container.run("sleep 0.2")
    assert read_note(container) == HOST_HOOKS


# failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CREATE_HOOKS)
def test_a_failing_hook_of_create_fails_create_and_leaves_nothing(
    container: Container, name: str
) -> None:
    container.bundle.hook(name, "echo why it failed >&2; exit 3")
    container.bundle.hook("poststop", f"echo poststop >> {note(container)}")
    message = container.refused()
    assert name in message or "hook" in message


@pytest.mark.parametrize("name", CREATE_HOOKS)
def test_hooks_after_a_failing_one_are_not_run(container: Container, name: str) -> None:
    container.bundle.hook(name, "exit 1")
    container.bundle.hook(name, f"echo second >> {note(container)}")
    container.refused()
    assert read_note(container) == []


def test_the_error_of_a_hook_has_what_it_wrote_to_stderr(container: Container) -> None:
    container.bundle.hook("createRuntime", "echo the reason >&2; exit 3")
    message = container.refused()
    assert "the reason" in message
    assert "3" in message


@pytest.mark.parametrize(
    ("script", "told"),
    [("exit 4", "exit status 4"), ("kill -SYS $$", "bad system call"), ("kill -9 $$", "killed")],
)
def test_a_failing_start_container_hook_fails_start_and_stops_the_container(
    container: Container, runtime: Runtime, script: str, told: str
) -> None:
    container.bundle.put("/bin/failing", f"#!/bin/sh\n{script}\n", 0o755)
    container.config["hooks"] = {"startContainer": [{"path": "/bin/failing"}]}
    container.bundle.sh("echo ran > /ran")
    container.create()
    pid = container.pid
    said = container.start(ok=False).stderr
    assert f"error running startContainer hook #0: {told}" in said.replace("signal: ", "")
    container.wait_exit(pid)
    assert gone_or_stopped(container, runtime)
    assert not container.bundle.has("/ran")


def test_a_program_that_is_named_like_a_hook_keeps_its_container_when_it_fails(
    container: Container, runtime: Runtime
) -> None:
    """What is undone follows from what failed, not from words in the error's text."""
    container.bundle.put("/bin/startContainer hook", "no program", 0o755)
    container.config["process"]["args"] = ["/bin/startContainer hook"]
    container.create()
    assert "exec format error" in container.start(ok=False).stderr.lower()
    assert json.loads(runtime("state", container.id).stdout)["status"] == "stopped"


def gone_or_stopped(container: Container, runtime: Runtime) -> bool:
    """After an error the life cycle goes on at step 12, so the container may be destroyed already."""
    state = runtime("state", container.id, ok=None)
    return state.status != 0 or json.loads(state.stdout)["status"] == "stopped"


def test_a_failing_poststart_hook_fails_start_and_stops_the_container(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.hook("poststart", "exit 5")
    container.bundle.sh("sleep 100")
    container.create()
    pid = container.pid
    container.start(ok=False)
    assert container.wait_exit(pid) == 128 + signal.SIGKILL
    assert gone_or_stopped(container, runtime)


def test_a_failing_poststop_hook_is_a_warning_and_the_others_still_run(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.hook("poststop", "exit 6")
    container.bundle.hook("poststop", f"echo second > {note(container)}")
    live(container)
    assert read_note(container) == ["second"]
    runtime("state", container.id, ok=False)


@pytest.mark.parametrize("name", ["createRuntime", "createContainer"])
def test_a_hook_that_takes_too_long_is_killed(container: Container, name: str) -> None:
    word = f"{2000000 + os.getpid()}"  # seconds, far beyond the patience with a command
    container.bundle.hook(name, 'exec sleep "$0"', timeout=1)["args"].append(word)
    container.refused()
    until("the hook is dead", lambda: not machine.processes_of(word))


def test_a_hook_that_does_not_exist_is_an_error(container: Container) -> None:
    container.config["hooks"] = {"createRuntime": [{"path": "/no/such/hook"}]}
    assert "no such file" in container.refused().lower()


@pytest.mark.parametrize(
    "hook",
    [
        {"path": "relative"},
        {"args": ["x"]},
        {"path": "/bin/true", "timeout": 0},
        {"path": "/bin/true", "timeout": -1},
        {"path": "/bin/true", "args": "text"},
    ],
)
def test_a_hook_that_makes_no_sense_is_refused(container: Container, hook: dict[str, Any]) -> None:
    container.config["hooks"] = {"createRuntime": [hook]}
    container.refused()


def test_stdout_of_hooks_does_not_reach_the_containers(container: Container) -> None:
    container.bundle.hook("createRuntime", "echo noise")
    container.launch("echo clean")
    container.wait("stopped")
    assert container.output() == "clean\n"


def test_a_hook_without_env_has_the_callers_trace_context(container: Container) -> None:
    """And one with an environment of its own that one alone (config.md, POSIX-platform Hooks)."""
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    path = note(container)
    for name in ("createRuntime", "poststop"):
        container.bundle.hook(name, f'echo "{name} $TRACEPARENT" >> {path}')
        container.bundle.hook(name, f'echo "{name} $TRACEPARENT" >> {path}', env=["A=1"])
    environment = {**os.environ, "TRACEPARENT": parent}
    container.run("true", env=environment)
    assert read_note(container) == [
        f"createRuntime {parent}", "createRuntime ", f"poststop {parent}", "poststop ",
    ]  # fmt: skip
