"""The command line as callers use it: options, exit codes, texts, log files, pid files, ids."""

from __future__ import annotations

import datetime
import json
import os
import resource
from typing import Any

import pytest

from tests import drive, machine
from tests.drive import Container, Runtime

COMMANDS = (
    "create start state kill delete run exec list ps pause resume update features spec".split()
)


# help and version ---------------------------------------------------------------------------------


def test_version_is_one_that_engines_can_read(runtime: Runtime) -> None:
    lines = runtime.bare("--version", env={}).stdout.splitlines()
    assert lines[0].split()[:2] == [runtime.name, "version"]
    assert any(line.startswith("spec: 1.") for line in lines)
    assert any(line.startswith("commit: ") for line in lines)


def test_version_makes_no_state_directory(runtime: Runtime, container: Container) -> None:
    root = os.path.join(container.bundle.path, "unused")
    runtime.bare("--root", root, "--version")
    runtime.bare("--root", root, "features")
    assert not os.path.exists(root)


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_is_on_stdout_and_names_the_commands(runtime: Runtime, option: str) -> None:
    result = runtime.bare(option)
    assert all(command in result.stdout for command in ("create", "start", "state", "delete"))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(runtime: Runtime, command: str) -> None:
    assert command in runtime.bare(command, "--help").stdout


def test_an_unknown_command_is_an_error(runtime: Runtime) -> None:
    assert "nonsense" in runtime.bare("nonsense", ok=False).stderr


def test_an_unknown_option_is_an_error(runtime: Runtime) -> None:
    assert runtime("state", "--nonsense", "x", ok=False).stderr


@pytest.mark.parametrize("command", ["state", "start", "delete", "pause", "resume", "ps"])
def test_a_missing_id_is_an_error(runtime: Runtime, command: str) -> None:
    assert runtime(command, ok=False).stderr


@pytest.mark.parametrize("command", ["state", "start"])
def test_too_many_arguments_are_an_error(runtime: Runtime, command: str) -> None:
    runtime(command, "one", "two", ok=False)


def test_no_command_is_an_error_or_help(runtime: Runtime) -> None:
    result = runtime.bare(ok=None)
    assert result.status != 0 or "create" in result.stdout


# option forms -------------------------------------------------------------------------------------


def test_a_global_option_may_come_twice_and_the_last_one_counts(
    runtime: Runtime, container: Container
) -> None:
    other = container.bundle.outside("other-root")
    container.create()
    runtime.bare("--root", other, "--debug", "--root", runtime.root, "state", container.id)
    runtime.bare("--root", runtime.root, "--root", other, "state", container.id, ok=False)


@pytest.mark.parametrize("form", ["--bundle={}", "-b={}", "--bundle {}", "-b {}"])
def test_a_value_is_taken_in_every_form(container: Container, runtime: Runtime, form: str) -> None:
    container.bundle.write()
    runtime("create", *form.format(container.bundle.path).split(), container.id)
    assert container.status == "created"


@pytest.mark.parametrize("form", ["--force", "-f", "--force=true"])
def test_a_switch_is_taken_in_every_form(runtime: Runtime, form: str) -> None:
    runtime("delete", form, "nobody")


def test_a_long_option_may_have_one_dash(container: Container, runtime: Runtime) -> None:
    container.bundle.write()
    runtime("create", "-bundle", container.bundle.path, container.id)
    assert container.status == "created"


def test_options_may_follow_the_id(container: Container, runtime: Runtime) -> None:
    container.launch("sleep 100")
    runtime("update", container.id, "--pids-limit", "44")
    assert container.limit("pids", "pids.max", "pids.max") == "44"


@pytest.mark.parametrize("value", ["--rootless=true", "--rootless=auto", "--systemd-cgroup=false"])
def test_options_that_engines_may_send_are_taken(runtime: Runtime, value: str) -> None:
    runtime.bare(value, "--root", runtime.root, "list")


def test_an_option_without_its_value_says_so(runtime: Runtime) -> None:
    text = runtime("create", "--bundle", ok=False).stderr
    assert "needs an argument" in text or "requires an argument" in text


# ids ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["", ".dot", "_under", "-dash", "+plus", "x" * 200, "UPPER"])
def test_an_id_may_have_these_characters(
    container: Container, runtime: Runtime, suffix: str
) -> None:
    container.id += suffix
    container.create()
    assert container.state()["id"] == container.id


@pytest.mark.parametrize(
    "identifier", ["", ".", "..", "a/b", "../x", "a b", "ünï", "a\nb", "a:b", "*"]
)
def test_an_id_that_is_not_safe_is_refused(
    container: Container, runtime: Runtime, identifier: str
) -> None:
    container.bundle.write()
    runtime("create", "--bundle", container.bundle.path, "--", identifier, ok=False)


@pytest.mark.parametrize("command", ["state", "delete", "start"])
def test_an_unsafe_id_is_an_error_for_every_command(runtime: Runtime, command: str) -> None:
    outside = os.path.join(os.path.dirname(runtime.root), "precious")
    os.mkdir(outside)
    try:
        runtime(command, "../precious", ok=False)
        assert os.path.isdir(outside)
    finally:
        os.rmdir(outside)


# pid file -----------------------------------------------------------------------------------------


def test_the_pid_file_holds_digits_only(container: Container) -> None:
    path = os.path.join(container.bundle.path, "pid")
    container.create("--pid-file", path)
    with open(path) as file:
        assert file.read() == str(container.pid)


def test_a_relative_pid_file_is_the_callers(container: Container) -> None:
    container.create("--pid-file", "pid", cwd=container.bundle.path)
    assert os.path.exists(os.path.join(container.bundle.path, "pid"))


def test_an_old_pid_file_is_replaced(container: Container) -> None:
    path = container.bundle.outside("pid", "999999999999 old content")
    container.create("--pid-file", path)
    with open(path) as file:
        assert file.read() == str(container.pid)


def test_a_failed_create_leaves_no_pid_file(container: Container) -> None:
    path = os.path.join(container.bundle.path, "pid")
    container.bundle.add_mount("/m", "none", "/no/such/source", "bind")
    container.create("--pid-file", path, ok=False)
    assert not os.path.exists(path)


# errors and logs ----------------------------------------------------------------------------------


def failing(container: Container, *options: str) -> drive.Result:
    """A create that fails for a reason that the message must name."""
    container.bundle.add_mount("/m", "none", "/no/such/source", "bind")
    container.bundle.write()
    command = [*options, "create", "--bundle", container.bundle.path, container.id]
    return container.runtime(*command, ok=False)


def test_an_error_is_one_line_on_stderr_and_nothing_on_stdout(container: Container) -> None:
    result = failing(container)
    assert result.status == 1
    assert result.stdout == ""
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr


def test_the_json_log_has_one_error_that_engines_can_parse(container: Container) -> None:
    path = os.path.join(container.bundle.path, "log.json")
    failing(container, "--log", path, "--log-format", "json")
    with open(path) as file:
        (line,) = file.read().splitlines()
    entry = json.loads(line)
    assert set(entry) >= {"level", "msg", "time"}
    if container.runtime.name == "anocir":
        assert entry["code"] and entry["errno"] == "ENOENT"
    assert entry["level"] == "error"
    assert "no such file or directory" in entry["msg"].lower()
    datetime.datetime.fromisoformat(entry["time"].replace("Z", "+00:00"))


def test_with_a_log_file_the_error_is_on_stderr_too(container: Container) -> None:
    path = os.path.join(container.bundle.path, "log.json")
    result = failing(container, "--log", path, "--log-format", "json")
    assert "no such file or directory" in result.stderr.lower()


def test_the_log_is_appended_to(container: Container) -> None:
    path = container.bundle.outside("log.json", '{"level":"info","msg":"first"}\n')
    failing(container, "--log", path, "--log-format", "json")
    with open(path) as file:
        assert len(file.read().splitlines()) == 2


def test_a_success_writes_no_error_to_the_log(container: Container) -> None:
    path = os.path.join(container.bundle.path, "log.json")
    container.bundle.write()
    container.runtime(
        "--log",
        path,
        "--log-format",
        "json",
        "create",
        "--bundle",
        container.bundle.path,
        container.id,
    )
    if os.path.exists(path):
        with open(path) as file:
            assert '"error"' not in file.read()


def test_debug_writes_to_the_log(container: Container) -> None:
    path = os.path.join(container.bundle.path, "log.json")
    container.bundle.write()
    container.runtime(
        "--debug", "--log", path, "--log-format", "json",
        "create", "--bundle", container.bundle.path, container.id,
    )  # fmt: skip
    with open(path) as file:
        levels = {json.loads(line)["level"] for line in file}
    assert levels and levels <= {"debug", "info", "warning"}


def test_the_text_log_has_the_error(container: Container) -> None:
    path = os.path.join(container.bundle.path, "log")
    failing(container, "--log", path)
    with open(path) as file:
        assert "no such file or directory" in file.read().lower()


def test_an_unknown_log_format_is_an_error(runtime: Runtime) -> None:
    runtime.bare("--log-format", "bogus", "--root", runtime.root, "list", ok=False)


# texts that callers look for ------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["state", "start", "kill", "delete", "pause", "resume"])
def test_a_missing_container_does_not_exist(runtime: Runtime, command: str) -> None:
    assert "does not exist" in runtime(command, "nobody", ok=False).stderr


def test_an_id_in_use_already_exists(container: Container) -> None:
    container.create()
    container.create(ok=False)
    assert "already exists" in container.errors()


def test_starting_twice_says_what_engines_look_for(container: Container) -> None:
    container.launch("sleep 100")
    assert "cannot start an already running container" in container.start(ok=False).stderr


def test_starting_after_the_end_says_what_engines_look_for(container: Container) -> None:
    container.launch("true")
    container.wait("stopped")
    assert "cannot start a container that has stopped" in container.start(ok=False).stderr


def test_deleting_a_running_container_says_what_engines_look_for(container: Container) -> None:
    container.launch("sleep 100")
    text = container.delete(ok=False).stderr
    assert "is not stopped" in text or "not in" in text


def test_an_unknown_signal_is_named(container: Container) -> None:
    container.launch("sleep 100")
    assert 'unknown signal "BOGUS"' in container.kill("BOGUS", ok=False).stderr.replace("\\", "")


# list ---------------------------------------------------------------------------------------------


def test_list_shows_the_containers_of_this_root(container: Container, runtime: Runtime) -> None:
    pid = container.launch("sleep 100")
    rows: list[dict[str, Any]] = json.loads(runtime("list", "--format", "json").stdout)
    (row,) = [row for row in rows if row["id"] == container.id]
    assert row["pid"] == pid and row["status"] == "running"
    assert row["bundle"] == container.bundle.path
    lines = runtime("list").stdout.splitlines()
    assert lines[0].split()[:4] == ["ID", "PID", "STATUS", "BUNDLE"]
    assert any(line.split()[:3] == [container.id, str(pid), "running"] for line in lines)


def test_list_quiet_prints_ids_only(container: Container, runtime: Runtime) -> None:
    container.create()
    assert container.id in runtime("list", "--quiet").stdout.splitlines()


def test_list_skips_a_broken_entry(container: Container, runtime: Runtime) -> None:
    container.create()
    broken = os.path.join(runtime.root, "broken")
    os.mkdir(broken)
    try:
        assert container.id in runtime("list", "-q").stdout.split()
    finally:
        runtime("delete", "--force", "broken", ok=None)
        if os.path.isdir(broken):
            os.rmdir(broken)


def test_an_empty_list_is_an_empty_document(runtime: Runtime, container: Container) -> None:
    root = container.bundle.outside("empty-root")
    result = runtime.bare("--root", root, "list", "--format", "json")
    assert json.loads(result.stdout) in ([], None)


# spec ---------------------------------------------------------------------------------------------


def test_spec_writes_a_config_that_runs(container: Container, runtime: Runtime) -> None:
    runtime.bare("spec", cwd=container.bundle.path)
    with open(os.path.join(container.bundle.path, "config.json")) as file:
        config = json.load(file)
    assert config["ociVersion"].startswith("1.")
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/echo", "made by spec"]
    config["linux"]["cgroupsPath"] = container.cgroup
    config["process"].pop("rlimits", None)
    container.bundle.config = config
    assert container.run() == "made by spec\n"


def test_spec_does_not_overwrite(container: Container, runtime: Runtime) -> None:
    path = container.bundle.outside("config.json", "mine")
    runtime.bare("spec", cwd=container.bundle.path, ok=False)
    with open(path) as file:
        assert file.read() == "mine"


# state directory ----------------------------------------------------------------------------------


def test_the_state_directory_is_private(container: Container, runtime: Runtime) -> None:
    root = os.path.join(container.bundle.path, "new", "root")
    container.bundle.write()
    runtime.bare("--root", root, "create", "--bundle", container.bundle.path, container.id)
    try:
        assert os.stat(root).st_mode & 0o077 == 0
        assert os.stat(os.path.join(root, container.id)).st_mode & 0o022 == 0
    finally:
        runtime.bare("--root", root, "delete", "--force", container.id)


def test_a_relative_root_is_taken_from_the_current_directory(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.write()
    arguments = ["create", "--bundle", container.bundle.path, container.id]
    runtime.bare("--root", "here", *arguments, cwd=container.bundle.path)
    try:
        runtime.bare("--root", os.path.join(container.bundle.path, "here"), "state", container.id)
    finally:
        runtime.bare("--root", "here", "delete", "-f", container.id, cwd=container.bundle.path)


def test_the_runtime_works_from_a_directory_that_is_gone(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.write()
    gone = container.bundle.outside("gone")
    command = runtime.command("create", "--bundle", container.bundle.path, container.id)
    drive.call(["sh", "-c", f'cd {gone} && rmdir {gone} && exec "$@"', "sh", *command])
    assert container.status == "created"


def test_hot_commands_answer_quickly(container: Container, runtime: Runtime) -> None:
    container.create()

    def spent() -> float:
        """Seconds of the processor that one call takes, however busy the machine is."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        runtime("state", container.id)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(spent() for _ in range(5)) < 0.25


def test_a_caller_without_the_usual_environment_is_served(
    container: Container, runtime: Runtime
) -> None:
    container.launch("sleep 100")
    runtime("kill", container.id, "KILL", env={"XDG_RUNTIME_DIR": ""})
    container.wait("stopped")
    runtime("delete", container.id, env={"XDG_RUNTIME_DIR": ""})


def test_machine_helpers_agree_about_processes() -> None:
    assert os.getpid() not in machine.children()
