"""Life cycle (runtime.md, "Lifecycle" and "Operations"): create, start, kill, delete and what each may do when."""

from __future__ import annotations

import json
import os
import shutil
import signal
from typing import Callable

import pytest

from tests import drive, machine
from tests.drive import Container, Runtime
from tests.wait import others_go_on

NewContainer = Callable[[], Container]


def test_create_does_not_run_the_program(container: Container) -> None:
    container.bundle.sh("echo ran > /ran")
    container.create()
    assert container.status == "created"
    assert not container.bundle.has("/ran")
    container.start()
    assert container.wait_file("/ran") == "ran\n"


def test_create_without_an_id_is_an_error(container: Container, runtime: Runtime) -> None:
    container.bundle.write()
    runtime("create", "--bundle", container.bundle.path, ok=False)


def test_create_with_an_id_in_use_fails_and_leaves_the_first_container_alone(
    container: Container,
) -> None:
    container.bundle.sh("sleep 100")
    container.create()
    before = container.state()
    container.create(ok=False)
    assert container.state() == before
    container.start()
    container.create(ok=False)
    assert container.status == "running"


def test_create_uses_the_current_directory_as_bundle_by_default(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.write()
    runtime("create", container.id, cwd=container.bundle.path)
    assert container.state()["bundle"] == container.bundle.path


def test_create_without_a_config_fails(container: Container) -> None:
    message = container.refused(write=False)
    assert "config.json" in message


def test_create_without_process_is_accepted_and_start_is_an_error(container: Container) -> None:
    del container.config["process"]
    container.create()
    container.start(ok=False)
    container.wait("stopped")
    container.delete()


def test_start_without_an_id_is_an_error(runtime: Runtime) -> None:
    runtime("start", ok=False)


def test_start_of_an_unknown_container_is_an_error(runtime: Runtime) -> None:
    runtime("start", "nobody", ok=False)


def test_start_runs_the_program_to_its_end(container: Container) -> None:
    container.launch("echo one line")
    container.wait("stopped")
    assert container.output() == "one line\n"


def test_start_of_a_running_container_fails_and_has_no_effect(container: Container) -> None:
    container.launch("echo x >> /runs; sleep 100")
    container.wait_file("/runs")
    before = container.state()
    container.start(ok=False)
    assert container.state() == before
    assert container.bundle.read("/runs") == "x\n"


def test_start_of_a_stopped_container_fails_and_runs_nothing(container: Container) -> None:
    container.launch("echo x >> /runs")
    container.wait("stopped")
    container.start(ok=False)
    assert container.status == "stopped"
    assert container.bundle.read("/runs") == "x\n"


@pytest.mark.parametrize("args", [["/nothing/here"], ["nothing-in-path"]])
def test_a_program_that_does_not_exist_is_reported(container: Container, args: list[str]) -> None:
    container.process["args"] = args
    message = container.cannot_run().lower()
    assert "no such file or directory" in message or "executable file not found" in message


def test_start_reports_a_program_that_is_not_executable_format(container: Container) -> None:
    container.bundle.put("/bin/garbage", "\x7fELF but not really", 0o755)
    container.process["args"] = ["/bin/garbage"]
    container.create()
    assert "exec format error" in container.start(ok=False).stderr.lower()
    container.wait("stopped")


def test_start_reports_a_script_whose_interpreter_is_missing(container: Container) -> None:
    container.bundle.put("/bin/script", "#!/no/such/interpreter\n", 0o755)
    container.process["args"] = ["/bin/script"]
    container.create()
    assert "no such file or directory" in container.start(ok=False).stderr.lower()
    container.wait("stopped")


@pytest.mark.parametrize("program", ["/etc", "/etc/passwd"])
def test_a_directory_or_a_plain_file_as_program_is_permission_denied(
    container: Container, program: str
) -> None:
    container.process["args"] = [program]
    message = container.cannot_run().lower()
    assert "permission denied" in message or "is a directory" in message


def test_changing_config_json_after_create_has_no_effect(container: Container) -> None:
    container.bundle.sh("echo first")
    container.create()
    with open(os.path.join(container.bundle.path, "config.json"), "w") as file:
        json.dump({"ociVersion": "1.0.0"}, file)
    container.start()
    container.wait("stopped")
    assert container.output() == "first\n"
    container.delete()


def test_a_container_can_be_deleted_after_its_bundle_is_gone(
    container: Container, runtime: Runtime
) -> None:
    container.launch("true")
    container.wait("stopped")
    shutil.rmtree(container.bundle.path)
    container.delete()
    runtime("state", container.id, ok=False)
    os.mkdir(container.bundle.path)


def test_a_failed_create_leaves_the_id_free(container: Container) -> None:
    container.bundle.add_mount("/data", "none", "/no/such/source", "bind")
    container.refused()
    container.config["mounts"].pop()
    assert container.run("echo again") == "again\n"


# kill ---------------------------------------------------------------------------------------------

TRAPS = (
    "trap 'echo TERM > /got; exit' TERM; trap 'echo USR1 > /got; exit' USR1; "
    "trap 'echo HUP > /got; exit' HUP; echo > /ready; while :; do usleep 10000; done"
)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("TERM", "TERM"),
        ("SIGTERM", "TERM"),
        ("15", "TERM"),
        ("term", "TERM"),
        ("USR1", "USR1"),
        ("SIGUSR1", "USR1"),
        ("10", "USR1"),
        ("HUP", "HUP"),
    ],
)
def test_kill_sends_the_signal_by_name_or_number(
    container: Container, word: str, name: str
) -> None:
    container.launch(TRAPS)
    container.wait_file("/ready")
    container.kill(word)
    assert container.wait_file("/got") == name + "\n"
    container.wait("stopped")


def test_kill_without_a_signal_sends_term(container: Container) -> None:
    container.launch(TRAPS)
    container.wait_file("/ready")
    container.kill()
    assert container.wait_file("/got") == "TERM\n"


def test_kill_sends_realtime_signals(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    pid = container.launch("exec sleep 100")
    container.kill("34")
    assert container.wait_exit(pid) == 128 + 34


def test_kill_with_an_unknown_signal_is_an_error(container: Container) -> None:
    container.launch("sleep 100")
    message = container.kill("BOGUS", ok=False).stderr
    assert "BOGUS" in message
    assert container.status == "running"


def test_kill_zero_asks_whether_the_process_is_there(container: Container) -> None:
    container.launch("sleep 100")
    container.kill("0")
    assert container.status == "running"


def test_kill_without_an_id_is_an_error(runtime: Runtime) -> None:
    runtime("kill", ok=False)
    runtime("kill", "KILL", ok=False)


def test_kill_of_an_unknown_container_is_an_error(runtime: Runtime) -> None:
    runtime("kill", "nobody", "KILL", ok=False)


def test_kill_stops_a_created_container(container: Container) -> None:
    container.create()
    container.kill("KILL")
    container.wait("stopped")
    container.delete()


@pytest.mark.parametrize("number", [1, 2, 3, 15])
def test_a_signal_from_the_host_ends_a_created_container(container: Container, number: int) -> None:
    """Sent to the process itself, as who has its pidfd does; the kernel would drop it."""
    container.create()
    for harmless in (signal.SIGUSR1, signal.SIGCHLD, signal.SIGWINCH, signal.SIGALRM):
        os.kill(container.pid, harmless)
    others_go_on()
    assert container.status == "created"
    os.kill(container.pid, number)
    container.wait("stopped")


@pytest.mark.parametrize("forbidden", ["", "ppoll", "rt_sigprocmask"])
def test_the_program_gets_the_signals_as_they_were(container: Container, forbidden: str) -> None:
    """A profile under which init could not wait for them has it wait as before."""
    if forbidden:
        rule = {"names": [forbidden], "action": "SCMP_ACT_ERRNO"}
        container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    container.bundle.sh("grep -E '(Pnd|Blk|Ign|Cgt):.*[1-9a-f]' /proc/self/status; echo done")
    container.create()
    os.kill(container.pid, signal.SIGUSR1)
    if forbidden:
        os.kill(container.pid, signal.SIGTERM)
        others_go_on()
    container.start()
    container.wait("stopped")
    assert container.output() == "done\n"


def test_a_limit_of_one_descriptor_leaves_start_as_it_is(container: Container) -> None:
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 1}]
    container.process["args"] = ["/bin/echo", "done"]
    container.create()
    container.start()
    container.wait("stopped")
    assert container.output() == "done\n"


def test_kill_of_a_stopped_container_is_an_error_that_callers_understand(
    container: Container,
) -> None:
    container.launch("true")
    container.wait("stopped")
    message = container.kill("KILL", ok=False).stderr.lower()
    assert "container not running" in message or "process already finished" in message


def test_kill_all_of_a_stopped_container_is_no_error(
    container: Container, runtime: Runtime
) -> None:
    container.launch("true")
    container.wait("stopped")
    runtime("kill", "--all", container.id, "KILL")


def test_kill_all_reaches_every_process_of_the_container(
    container: Container, runtime: Runtime
) -> None:
    container.launch("sleep 100 & sleep 100 & echo > /ready; wait")
    container.wait_file("/ready")
    runtime("kill", "--all", container.id, "KILL")
    container.wait("stopped")


def test_kill_kill_ends_every_process_of_a_container_without_a_pid_namespace(
    container: Container,
) -> None:
    container.bundle.drop_namespace("pid")
    container.launch("sleep 100 & echo $! > /child; wait")
    child = int(container.wait_file("/child"))
    container.kill("KILL")
    container.wait("stopped")
    drive.until(
        "the child is dead",
        lambda: machine.process_status(child).get("State", "X")[0] in "XZ",
    )


# delete -------------------------------------------------------------------------------------------


def test_delete_without_an_id_is_an_error(runtime: Runtime) -> None:
    runtime("delete", ok=False)


def test_delete_of_an_unknown_container_is_an_error(runtime: Runtime) -> None:
    assert "does not exist" in runtime("delete", "nobody", ok=False).stderr


def test_delete_force_of_an_unknown_container_is_no_error(runtime: Runtime) -> None:
    runtime("delete", "--force", "nobody")


def test_delete_of_a_created_container_is_refused_without_effect(container: Container) -> None:
    container.bundle.sh("echo ran")
    container.create()
    container.delete(ok=False)
    assert container.status == "created"
    container.start()
    container.wait("stopped")
    assert container.output() == "ran\n"
    container.delete()


def test_delete_of_a_running_container_is_refused_without_effect(container: Container) -> None:
    container.launch("sleep 100")
    container.delete(ok=False)
    assert container.status == "running"


def test_delete_of_a_stopped_container_frees_the_id(container: Container, runtime: Runtime) -> None:
    container.launch("true")
    container.wait("stopped")
    container.delete()
    runtime("state", container.id, ok=False)
    container.create()
    assert container.status == "created"


@pytest.mark.parametrize("stage", ["created", "running", "stopped"])
def test_delete_force_removes_a_container_in_any_state(
    container: Container, runtime: Runtime, stage: str
) -> None:
    container.bundle.sh("true" if stage == "stopped" else "sleep 100")
    container.create()
    if stage != "created":
        container.start()
        container.wait(stage)
    container.delete("--force")
    runtime("state", container.id, ok=False)


def test_delete_force_removes_a_paused_container(container: Container, runtime: Runtime) -> None:
    container.launch("sleep 100")
    runtime("pause", container.id)
    container.delete("--force")
    runtime("state", container.id, ok=False)


def test_delete_force_of_a_broken_container_works_after_its_bundle_is_gone(
    container: Container, runtime: Runtime
) -> None:
    container.launch("sleep 100")
    shutil.rmtree(container.bundle.path)
    container.delete("--force")
    runtime("state", container.id, ok=False)
    os.mkdir(container.bundle.path)


# processes ----------------------------------------------------------------------------------------


def test_the_container_process_becomes_a_child_of_the_callers_subreaper(
    container: Container,
) -> None:
    pid = container.launch("sleep 100")
    assert machine.process_status(pid)["PPid"] == str(os.getpid())


def test_no_process_of_the_runtime_stays_after_create(container: Container) -> None:
    before = machine.children()
    container.create()
    assert machine.children() - before == {container.pid}


def test_the_exit_status_of_a_detached_container_reaches_its_parent(container: Container) -> None:
    pid = container.launch("exit 7")
    assert container.wait_exit(pid) == 7
    assert container.status == "stopped"


def test_the_same_process_runs_the_program_that_create_made(container: Container) -> None:
    container.bundle.sh("sleep 100")
    container.create()
    created = container.pid
    container.start()
    assert container.pid == created


def test_two_creates_with_one_id_at_once_make_one_container(
    new_container: NewContainer, runtime: Runtime
) -> None:
    containers = [new_container() for _ in range(4)]
    first = containers[0]
    children = []
    for one in containers:
        one.linux["cgroupsPath"] = first.cgroup
        one.bundle.write()
        with open(one.stdout_path, "wb") as out:
            command = runtime.command("create", "--bundle", one.bundle.path, first.id)
            children.append(drive.spawn(command, stdout=out, stderr=out))
    statuses = [drive.finish(child) for child in children]
    assert statuses.count(0) == 1, statuses
    assert first.status == "created"


def test_containers_of_two_roots_do_not_see_each_other(
    container: Container, runtime: Runtime
) -> None:
    container.create()
    other = container.bundle.outside("other-root")
    result = runtime.bare("--root", other, "state", container.id, ok=False)
    assert container.id not in result.stdout


# pause and resume ---------------------------------------------------------------------------------


def test_pause_stops_the_processes_and_resume_lets_them_go_on(
    container: Container, runtime: Runtime
) -> None:
    container.launch("i=0; while :; do i=$((i+1)); echo $i > /count; usleep 5000; done")
    container.wait_file("/count")
    runtime("pause", container.id)
    assert container.status == "paused"
    first = container.bundle.read("/count")
    others_go_on()
    assert container.bundle.read("/count") == first
    runtime("resume", container.id)
    assert container.status == "running"
    drive.until("counting goes on", lambda: container.bundle.read("/count") not in (first, ""))


def test_a_created_container_can_be_paused_and_resumed(
    container: Container, runtime: Runtime
) -> None:
    container.create()
    runtime("pause", container.id)
    runtime("resume", container.id)
    assert container.status == "created"


def test_kill_reaches_a_paused_container(container: Container, runtime: Runtime) -> None:
    container.launch("sleep 100")
    runtime("pause", container.id)
    container.kill("KILL")
    container.wait("stopped")


def test_a_signal_for_a_paused_container_is_delivered_when_it_resumes(
    container: Container, runtime: Runtime
) -> None:
    container.launch(TRAPS)
    container.wait_file("/ready")
    runtime("pause", container.id)
    container.kill("USR1")
    assert not container.bundle.has("/got")
    runtime("resume", container.id)
    assert container.wait_file("/got") == "USR1\n"


@pytest.mark.parametrize(
    ("command", "stage"),
    [
        ("pause", "missing"),
        ("pause", "paused"),
        ("pause", "stopped"),
        ("resume", "missing"),
        ("resume", "created"),
        ("resume", "running"),
        ("resume", "stopped"),
        ("start", "paused"),
        ("delete", "paused"),
    ],
)
def test_what_does_not_fit_the_state_is_refused_without_effect(
    container: Container, runtime: Runtime, command: str, stage: str
) -> None:
    if stage == "missing":
        runtime(command, "nobody", ok=False)
        return
    container.bundle.sh("true" if stage == "stopped" else "sleep 100")
    container.create()
    if stage != "created":
        container.start()
    if stage == "paused":
        runtime("pause", container.id)
    if stage == "stopped":
        container.wait("stopped")
    runtime(command, container.id, ok=False)
    assert container.status == stage


# versions and unknown properties ------------------------------------------------------------------


@pytest.mark.parametrize("version", ["invalid", "99.0.0", "2.0.0", "0.9.0", "", "1"])
def test_an_oci_version_that_is_not_of_the_first_major_is_refused(
    container: Container, version: str
) -> None:
    container.config["ociVersion"] = version
    container.refused()


@pytest.mark.parametrize("version", ["1.0.0", "1.0.2-dev", "1.0.2"])
def test_an_older_oci_version_is_accepted(container: Container, version: str) -> None:
    container.config["ociVersion"] = version
    assert container.run("echo fine") == "fine\n"


def test_unknown_properties_are_ignored(container: Container) -> None:
    container.config["unknown"] = {"deep": [1, 2, {"x": None}]}
    container.process["unknown"] = True
    container.linux["unknown"] = "text"
    assert container.run("echo fine") == "fine\n"


def test_an_unknown_annotation_with_an_empty_value_is_accepted(container: Container) -> None:
    container.config["annotations"] = {"unknown": ""}
    assert container.run("echo fine") == "fine\n"


# run ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [0, 1, 7, 126, 127, 255])
def test_run_exits_with_the_status_of_the_program(container: Container, status: int) -> None:
    assert container.try_run(f"exit {status}").status == status


def test_run_exits_with_128_plus_the_signal_that_ended_the_program(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    assert container.try_run("kill -9 $$").status == 128 + 9


def test_run_removes_the_container_when_it_has_ended(
    container: Container, runtime: Runtime
) -> None:
    container.run("true")
    runtime("state", container.id, ok=False)


def test_run_with_keep_leaves_the_stopped_container(container: Container) -> None:
    container.run("true", "--keep")
    assert container.status == "stopped"
    container.delete()


def test_run_detached_returns_when_the_program_runs(container: Container) -> None:
    container.run("echo > /ready; sleep 100", "--detach")
    assert container.status == "running"
    assert machine.process_status(container.pid)["PPid"] == str(os.getpid())


def test_run_forwards_signals_to_the_program(container: Container, runtime: Runtime) -> None:
    container.bundle.sh(TRAPS)
    container.bundle.write()
    command = runtime.command("run", "--bundle", container.bundle.path, container.id)
    with open(container.stdout_path, "wb") as out:
        child = drive.spawn(command, stdout=out, stderr=out)
    container.wait_file("/ready")
    child.send_signal(signal.SIGUSR1)
    assert drive.finish(child) == 0
    assert container.bundle.read("/got") == "USR1\n"


def test_run_passes_stdin_to_the_program(container: Container) -> None:
    assert container.run("cat", stdin="some input\n") == "some input\n"


def test_run_kills_what_the_program_left_in_a_shared_pid_namespace(container: Container) -> None:
    container.bundle.drop_namespace("pid")
    container.run("sleep 100 & echo $! > /child")
    child = int(container.bundle.read("/child"))
    drive.until(
        "the child is dead",
        lambda: machine.process_status(child).get("State", "X")[0] in "XZ",
    )


def test_run_of_a_program_that_does_not_exist_fails_and_leaves_nothing(
    container: Container, runtime: Runtime
) -> None:
    container.process["args"] = ["/nothing/here"]
    assert container.try_run().status != 0
    runtime("state", container.id, ok=False)


def test_run_with_a_pid_file_names_the_process_on_the_host(container: Container) -> None:
    path = os.path.join(container.bundle.path, "pid")
    container.run("sleep 100", "--detach", "--pid-file", path)
    with open(path) as file:
        assert file.read() == str(container.pid)
