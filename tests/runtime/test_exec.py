"""Exec: another process in a running container (no chapter of the specification; runc's behaviour)."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from tests import drive, machine
from tests.bundle import CAPABILITIES, PATH
from tests.drive import Container, Runtime
from tests.runtime.test_capabilities import bits


@pytest.fixture
def running(container: Container) -> Container:
    """A container whose program sleeps."""
    container.launch("exec sleep 1000")  # one process, which some tests count
    return container


def process(*args: str, **more: Any) -> dict[str, Any]:
    """A process object for --process."""
    return {
        "args": list(args),
        "cwd": "/",
        "env": [PATH],
        "user": {"uid": 0, "gid": 0},
        **more,
    }


@pytest.mark.parametrize("status", [0, 1, 7, 126, 254])
def test_exec_exits_with_the_status_of_the_command(running: Container, status: int) -> None:
    assert running.exec("sh", "-c", f"exit {status}", ok=None).status == status


def test_exec_exits_with_128_plus_the_signal(running: Container) -> None:
    assert running.exec("sh", "-c", "kill -9 $$", ok=None).status == 128 + 9


def test_exec_shows_the_output_and_passes_stdin(running: Container) -> None:
    result = running.exec("sh", "-c", "cat; echo err >&2", stdin="in\n")
    assert (result.stdout, result.stderr) == ("in\n", "err\n")


def test_exec_runs_in_every_namespace_of_the_container(running: Container) -> None:
    pid = running.pid
    kinds = ["pid", "net", "mnt", "ipc", "uts"]
    command = "; ".join(f"readlink /proc/self/ns/{kind}" for kind in kinds)
    found = running.exec("sh", "-c", command).stdout.split()
    assert found == [os.readlink(f"/proc/{pid}/ns/{kind}") for kind in kinds]


def test_exec_is_in_the_containers_cgroup(running: Container) -> None:
    running.exec("sleep", "1000", options=["--detach"])
    directory = machine.cgroup_directory("pids", running.cgroup)
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert len(file.read().split()) == 2


def test_options_after_the_id_belong_to_the_command(running: Container) -> None:
    assert running.exec("echo", "-d", "--tty", "--").stdout == "-d --tty --\n"


def test_exec_has_the_environment_of_the_config(container: Container) -> None:
    container.process["env"] = [PATH, "FROM_CONFIG=1"]
    container.launch("sleep 1000")
    result = container.exec("env", env=dict(os.environ, LEAK="1"))
    assert "FROM_CONFIG=1" in result.stdout.splitlines()
    assert "LEAK" not in result.stdout


def test_exec_adds_variables(running: Container) -> None:
    result = running.exec("env", options=["--env", "A=1", "--env", "B=2=3"])
    assert {"A=1", "B=2=3"} <= set(result.stdout.splitlines())
    assert PATH in result.stdout.splitlines()


def test_exec_changes_the_working_directory(running: Container) -> None:
    assert running.exec("pwd", options=["--cwd", "/tmp"]).line == "/tmp"


@pytest.mark.parametrize(("user", "ids"), [("5", "5 0"), ("5:6", "5 6"), ("0:7", "0 7")])
def test_exec_takes_a_user(running: Container, user: str, ids: str) -> None:
    result = running.exec("sh", "-c", "echo $(id -u) $(id -g)", options=["--user", user])
    assert result.line == ids


def test_exec_takes_additional_groups(running: Container) -> None:
    options = ["--user", "5:5", "--additional-gids", "8", "--additional-gids", "9"]
    result = running.exec("grep", "^Groups", "/proc/self/status", options=options)
    assert {"8", "9"} <= set(result.stdout.split())


def test_exec_adds_a_capability(running: Container) -> None:
    result = running.exec(
        "grep", "^CapEff", "/proc/self/status", options=["--cap", "CAP_SYS_ADMIN"]
    )
    assert int(result.stdout.split()[1], 16) == bits([*CAPABILITIES, "CAP_SYS_ADMIN"])


def test_exec_sets_no_new_privileges(running: Container) -> None:
    result = running.exec("grep", "^NoNewPrivs", "/proc/self/status", options=["--no-new-privs"])
    assert result.stdout.split()[1] == "1"


# --process ----------------------------------------------------------------------------------------


def test_exec_takes_a_whole_process_object(running: Container) -> None:
    document = process(
        "sh",
        "-c",
        "id -u; id -g; pwd; umask; echo $ONE; grep -E '^(CapEff|NoNewPrivs)' /proc/self/status",
        cwd="/tmp",
        env=[PATH, "ONE=1"],
        user={"uid": 0, "gid": 3, "umask": 0o077},
        noNewPrivileges=True,
        capabilities={key: ["CAP_KILL"] for key in ("bounding", "effective", "permitted")},
    )
    words = running.exec_process(document).stdout.split()
    assert words == ["0", "3", "/tmp", "0077", "1", "CapEff:", "0" * 14 + "20", "NoNewPrivs:", "1"]


@pytest.mark.needs("compiler")
def test_the_process_object_may_have_limits(running: Container) -> None:
    document = process(
        "/bin/probe", "rlimits", rlimits=[{"type": "RLIMIT_NOFILE", "soft": 200, "hard": 300}]
    )
    assert running.exec_process(document).stdout.splitlines()[7] == "7 200 300"


@pytest.mark.needs("compiler", "two-cpus")
def test_the_final_processors_of_exec_are_set(running: Container) -> None:
    document = process("/bin/probe", "affinity", execCPUAffinity={"initial": "0", "final": "1"})
    assert running.exec_process(document).stdout == "1\n"


def test_a_broken_process_object_is_an_error(running: Container) -> None:
    result = running.exec_process({"args": [], "cwd": "/"}, ok=False)
    assert result.status == 255
    path = running.bundle.outside("broken.json", "{")
    assert running.runtime("exec", "--process", path, running.id, ok=False).status == 255


# detached -----------------------------------------------------------------------------------------


def test_a_detached_process_goes_on_and_belongs_to_the_caller(running: Container) -> None:
    path = os.path.join(running.bundle.path, "exec.pid")
    running.exec("sleep", "1000", options=["--detach", "--pid-file", path])
    with open(path) as file:
        text = file.read()
    assert text.isdigit()
    # execve closes the descriptors first, which is all that the runtime can see, and then renames the process
    drive.until("the program", lambda: machine.process_status(int(text))["Name"] == "sleep")
    assert machine.process_status(int(text))["PPid"] == str(os.getpid())


def test_the_status_of_a_detached_process_reaches_the_caller(running: Container) -> None:
    path = os.path.join(running.bundle.path, "exec.pid")
    running.exec("sh", "-c", "exit 9", options=["--detach", "--pid-file", path])
    with open(path) as file:
        assert running.wait_exit(int(file.read())) == 9


def test_a_failed_exec_leaves_no_pid_file(running: Container) -> None:
    path = os.path.join(running.bundle.path, "exec.pid")
    options = ["--detach", "--pid-file", path]
    assert running.exec("/no/such/program", options=options, ok=False).status == 255
    assert not os.path.exists(path)


def test_exec_forwards_signals(running: Container) -> None:
    script = "trap 'exit 5' USR1; echo > /ready; while :; do usleep 5000; done"
    command = running.runtime.command("exec", running.id, "sh", "-c", script)
    with open(running.stdout_path, "ab") as out:
        child = drive.spawn(command, stdout=out, stderr=out)
    running.wait_file("/ready")
    child.send_signal(signal.SIGUSR1)
    assert drive.finish(child) == 5


# states -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["/no/such/program", "nothing-in-path"])
def test_a_program_that_does_not_exist_is_255(running: Container, program: str) -> None:
    result = running.exec(program, ok=False)
    assert result.status == 255
    text = result.stderr.lower()
    assert "no such file or directory" in text or "executable file not found" in text


def test_exec_in_a_created_container_works(container: Container) -> None:
    container.create()
    assert container.exec("echo", "early").stdout == "early\n"
    assert container.status == "created"


def test_exec_in_an_unknown_container_is_255(runtime: Runtime) -> None:
    result = runtime("exec", "nobody", "true", ok=False)
    assert result.status == 255 and "does not exist" in result.stderr


def test_exec_in_a_stopped_container_is_255(container: Container) -> None:
    container.launch("true")
    container.wait("stopped")
    result = container.exec("true", ok=False)
    assert result.status == 255 and "stopped" in result.stderr


def test_exec_in_a_paused_container_is_255_unless_it_is_to_be_ignored(running: Container) -> None:
    running.runtime("pause", running.id)
    result = running.exec("true", ok=False)
    assert result.status == 255 and "paused" in result.stderr
    command = running.runtime.command("exec", "--ignore-paused", running.id, "true")
    child = drive.spawn(command)
    running.runtime("resume", running.id)
    assert drive.finish(child) == 0


def test_exec_without_a_command_is_an_error(running: Container) -> None:
    assert running.exec(ok=False).status != 0


# how it is kept apart -------------------------------------------------------------------------------


@pytest.mark.needs("compiler")
def test_exec_leaks_no_descriptor(running: Container) -> None:
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    try:
        lines = running.exec("/bin/probe", "fds", close_fds=False).stdout.splitlines()
    finally:
        os.close(leaked)
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]


@pytest.mark.needs("compiler")
def test_exec_preserves_descriptors_on_demand(running: Container) -> None:
    command = running.runtime.command("exec", "--preserve-fds", "1", running.id, "probe", "fds")
    result = drive.call(["sh", "-c", 'exec 3</etc/passwd; exec "$@"', "sh", *command])
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["0", "1", "2", "3"]


def test_exec_has_the_umask_022(running: Container) -> None:
    assert running.exec("sh", "-c", "umask").line == "0022"


def test_a_working_directory_outside_the_root_is_refused(running: Container) -> None:
    result = running.exec("pwd", options=["--cwd", "/proc/self/fd/7"], ok=None)
    assert result.status != 0 or result.line.startswith("/proc")


def test_exec_works_when_the_root_is_read_only(container: Container) -> None:
    container.config["root"]["readonly"] = True
    container.launch("sleep 1000")
    assert container.exec("echo", "fine").stdout == "fine\n"


def test_exec_into_a_sub_cgroup(running: Container) -> None:
    directory = machine.cgroup_directory("pids", running.cgroup) + "/sub"
    os.mkdir(directory)
    where = "pids:sub" if machine.v1_mountpoint("pids") else "sub"
    running.exec("sleep", "1000", options=["--detach", "--cgroup", where])
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert len(file.read().split()) == 1


def test_exec_where_the_cgroup_has_no_room_for_two(container: Container) -> None:
    """Who clones init into the pid namespace is then outside, and puts it there, as runc does: also where it is full."""
    container.bundle.resources["pids"] = {"limit": 2}
    container.launch("exec sleep 1000")
    own = container.exec("/bin/cat", "/proc/self/cgroup").stdout
    assert own == Path(f"/proc/{container.pid}/cgroup").read_text()
    container.exec("sleep", "1000", options=["--detach"])
    directory = machine.cgroup_directory("pids", container.cgroup)
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert len(file.read().split()) == 2
    assert container.exec("/bin/cat", "/proc/self/cgroup").stdout == own


def test_exec_cannot_leave_the_containers_cgroup(running: Container) -> None:
    where = "pids:../.." if machine.v1_mountpoint("pids") else "../.."
    running.exec("true", options=["--cgroup", where], ok=False)


def test_many_execs_one_after_another_leave_nothing(running: Container) -> None:
    for number in range(5):
        assert running.exec("echo", str(number)).line == str(number)
    directory = machine.cgroup_directory("pids", running.cgroup)
    with open(os.path.join(directory, "cgroup.procs")) as file:
        assert len(file.read().split()) == 1


def test_exec_in_a_container_with_the_hosts_pid_namespace(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    container.launch("sleep 1000")
    assert container.exec("echo", "fine").stdout == "fine\n"
