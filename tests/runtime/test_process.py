"""The container process (config.md, "Process"; runtime-linux.md, "File descriptors")."""

from __future__ import annotations

import os
import re
import signal
from typing import Any, Callable

import pytest

from tests import drive, machine
from tests.bundle import PATH
from tests.drive import Container

needs_compiler = pytest.mark.needs("compiler")


def status_of(container: Container, key: str) -> str:
    """Run a program that reads its own /proc/self/status and return one entry of it."""
    lines = container.run("cat /proc/self/status").splitlines()
    return dict(line.split(":", 1) for line in lines)[key].strip()


# args, env, cwd -----------------------------------------------------------------------------------


def test_args_reach_the_program_unchanged(container: Container) -> None:
    args = ["/bin/cat", "/proc/self/cmdline", "/dev/null"]
    container.process["args"] = args
    assert container.run() == "\0".join(args) + "\0"


def test_args_may_hold_any_text(container: Container) -> None:
    words = ["", "two words", "ünïcödé ✓", "line\nbreak", "$HOME `id` 'quote\"", "\x01\x7f"]
    container.process["args"] = ["/bin/printf", "%s|", *words]
    assert container.run() == "|".join(words) + "|"


def test_the_first_argument_is_found_in_the_path_of_the_container(container: Container) -> None:
    container.bundle.put("/tools/greet", "#!/bin/sh\necho from tools\n", 0o755)
    container.process["args"] = ["greet"]
    container.process["env"] = ["PATH=/nowhere:/tools:/bin"]
    assert container.run() == "from tools\n"


def test_the_first_argument_is_passed_as_it_was_written(container: Container) -> None:
    container.process["args"] = ["cat", "/proc/self/cmdline"]
    assert container.run().startswith("cat\0")


def test_a_relative_program_is_found_from_the_working_directory(container: Container) -> None:
    container.bundle.put("/work/greet", "#!/bin/sh\necho from here\n", 0o755)
    container.process["cwd"] = "/work"
    container.process["args"] = ["./greet"]
    assert container.run() == "from here\n"


def test_empty_args_are_refused(container: Container) -> None:
    container.process["args"] = []
    assert "args" in container.refused()


@needs_compiler
def test_the_environment_is_exactly_the_configured_one(container: Container) -> None:
    wanted = [PATH, "HOME=/somewhere", "EMPTY=", "TEXT=a b=c", "ÜML=äöü"]
    container.process["env"] = wanted
    container.process["args"] = ["/bin/probe", "environ"]
    environment = dict(os.environ, LEAK="from the caller")
    assert container.run(env=environment).splitlines() == wanted


@needs_compiler
def test_nothing_of_the_callers_environment_is_seen_without_env(container: Container) -> None:
    container.process["env"] = []
    container.process["args"] = ["/bin/probe", "environ"]
    names = {line.partition("=")[0] for line in container.run().splitlines()}
    assert names <= {"HOME"}


@needs_compiler
def test_home_is_taken_from_the_containers_passwd_when_it_is_not_set(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.process["args"] = ["/bin/probe", "environ"]
    assert "HOME=/home/user" in container.run().splitlines()


def test_an_environment_entry_without_equals_sign_is_refused(container: Container) -> None:
    container.process["env"] = [PATH, "BROKEN"]
    assert container.cannot_run("true")


def test_the_working_directory_is_set(container: Container) -> None:
    container.bundle.make_directory("/some/where")
    container.process["cwd"] = "/some/where"
    assert container.run("pwd; readlink /proc/self/cwd") == "/some/where\n/some/where\n"


def test_a_missing_working_directory_is_made(container: Container) -> None:
    container.process["cwd"] = "/not/there/yet"
    assert container.run("pwd") == "/not/there/yet\n"


def test_a_relative_working_directory_is_refused(container: Container) -> None:
    container.process["cwd"] = "relative"
    assert "cwd" in container.refused().lower()


def test_a_working_directory_that_is_a_file_is_an_error(container: Container) -> None:
    container.process["cwd"] = "/etc/passwd"
    container.cannot_run("true")


def test_a_working_directory_below_a_mount_is_the_mounts(container: Container) -> None:
    source = container.bundle.outside("data")
    os.mkdir(os.path.join(source, "inner"))
    container.bundle.add_mount("/data", "none", source, "bind")
    container.process["cwd"] = "/data/inner"
    assert container.run("pwd; touch here") == "/data/inner\n"
    assert os.path.exists(os.path.join(source, "inner", "here"))


# user ---------------------------------------------------------------------------------------------


def test_uid_gid_and_additional_gids_are_exactly_as_configured(container: Container) -> None:
    container.process["user"] = {"uid": 10, "gid": 11, "additionalGids": [5, 6]}
    lines = container.run("grep -E '^(Uid|Gid|Groups)' /proc/self/status").split("\n")
    assert [line.split() for line in lines if line] == [
        ["Uid:", "10", "10", "10", "10"],
        ["Gid:", "11", "11", "11", "11"],
        ["Groups:", "5", "6"],
    ]


def test_without_additional_gids_the_callers_groups_are_dropped(container: Container) -> None:
    code = "import os, sys; os.setgroups([4, 20]); os.execv(sys.argv[1], sys.argv[1:])"
    container.bundle.sh("grep ^Groups /proc/self/status")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    result = drive.call(["python3", "-c", code, *command])
    assert result.stdout.split() in (["Groups:"], ["Groups:", "11"])


def test_the_umask_is_set(container: Container) -> None:
    container.process["user"]["umask"] = 0o027
    assert container.run("umask") == "0027\n"


def test_the_umask_is_022_whatever_the_caller_has(container: Container) -> None:
    container.bundle.sh("umask")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    result = drive.call(["sh", "-c", 'umask 0000; exec "$@"', "sh", *command])
    assert result.stdout == "0022\n"


def test_the_callers_umask_does_not_change_modes_of_what_the_runtime_makes(
    container: Container,
) -> None:
    container.process["cwd"] = "/made/by/runtime"
    container.linux["devices"] = [
        {"path": "/dev/extra", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}
    ]
    container.bundle.sh("stat -c %a /made /dev/extra /dev/null")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    result = drive.call(["sh", "-c", 'umask 0077; exec "$@"', "sh", *command])
    assert result.stdout.split() == ["755", "666", "666"]


def test_a_user_without_an_entry_in_passwd_can_run(container: Container) -> None:
    container.process["user"] = {"uid": 54321, "gid": 54321}
    assert container.run("id -u") == "54321\n"


def test_large_ids_are_taken(container: Container) -> None:
    container.process["user"] = {"uid": 4294967293, "gid": 4294967293}
    assert status_of(container, "Uid").split()[0] == "4294967293"


# privileges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("wanted", "value"), [(True, "1"), (False, "0"), (None, "0")])
def test_no_new_privileges_is_as_configured(
    container: Container, wanted: bool | None, value: str
) -> None:
    if wanted is not None:
        container.process["noNewPrivileges"] = wanted
    assert status_of(container, "NoNewPrivs") == value


@pytest.mark.parametrize("value", [0, 500, 1000])
def test_the_oom_score_adjustment_is_set(container: Container, value: int) -> None:
    container.process["oomScoreAdj"] = value
    assert container.run("cat /proc/self/oom_score_adj") == f"{value}\n"


def test_the_oom_score_adjustment_is_inherited_when_it_is_not_configured(
    container: Container,
) -> None:
    container.bundle.sh("cat /proc/self/oom_score_adj")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    script = 'echo 321 > /proc/self/oom_score_adj; exec "$@"'
    assert drive.call(["sh", "-c", script, "sh", *command]).stdout == "321\n"


@needs_compiler
def test_the_program_is_dumpable_again(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "dumpable"]
    assert container.run() == "1\n"


def test_the_program_is_the_leader_of_its_session_and_group(container: Container) -> None:
    fields = container.run("cat /proc/self/stat; echo $$").split(")")[1].split()
    assert fields[2] == "1" and fields[3] == "1"


@pytest.mark.needs("no-apparmor")
def test_an_apparmor_profile_without_apparmor_is_ignored(container: Container) -> None:
    container.process["apparmorProfile"] = "acme_secure_profile"
    assert container.run("echo fine") == "fine\n"


@pytest.mark.needs("no-selinux")
def test_labels_without_selinux_are_ignored_with_a_warning(container: Container) -> None:
    container.process["selinuxLabel"] = container.linux["mountLabel"] = "a:b:c:d"
    container.process["args"] = ["echo", "fine"]
    container.bundle.write()
    done = container.runtime("run", "--bundle", container.bundle.path, container.id)
    assert done.stdout == "fine\n"
    checked = container.runtime("check", "--bundle", container.bundle.path).stdout
    for name in ("process.selinuxLabel", "linux.mountLabel"):
        assert f"warning: {name}: selinux is not enabled on this host, ignored\n" in done.stderr
        assert f"{name}: selinux is not enabled on this host, passed over\n" in checked


@pytest.mark.needs("apparmor")
def test_an_apparmor_profile_confines_the_program(container: Container) -> None:
    container.process["apparmorProfile"] = "unconfined"
    assert "unconfined" in container.run("cat /proc/self/attr/apparmor/current")


@pytest.mark.needs("apparmor")
def test_an_apparmor_profile_that_is_not_loaded_is_an_error(container: Container) -> None:
    container.process["apparmorProfile"] = "anocir_no_such_profile"
    container.cannot_run("true")


# scheduling ---------------------------------------------------------------------------------------


@needs_compiler
@pytest.mark.parametrize(
    ("scheduler", "policy", "nice", "priority"),
    [
        ({"policy": "SCHED_OTHER", "nice": 7}, 0, 7, 0),
        ({"policy": "SCHED_BATCH", "nice": 3}, 3, 3, 0),
        # These keep the nice value of the caller.
        ({"policy": "SCHED_IDLE"}, 5, os.getpriority(os.PRIO_PROCESS, 0), 0),
        ({"policy": "SCHED_FIFO", "priority": 10}, 1, os.getpriority(os.PRIO_PROCESS, 0), 10),
        ({"policy": "SCHED_RR", "priority": 5}, 2, os.getpriority(os.PRIO_PROCESS, 0), 5),
    ],
)
def test_the_scheduler_is_set(
    container: Container, scheduler: dict[str, Any], policy: int, nice: int, priority: int
) -> None:
    container.bundle.resources["cpu"] = machine.realtime_budget()
    container.process["scheduler"] = scheduler
    container.process["args"] = ["/bin/probe", "sched"]
    words = container.run().split()
    assert words[:6] == ["policy", str(policy), "nice", str(nice), "priority", str(priority)]


@needs_compiler
def test_the_deadline_scheduler_takes_its_three_times(container: Container) -> None:
    container.process["scheduler"] = {
        "policy": "SCHED_DEADLINE",
        "runtime": 10_000_000,
        "deadline": 100_000_000,
        "period": 100_000_000,
    }
    container.process["args"] = ["/bin/probe", "sched"]
    assert container.run().split()[1] == "6"


@needs_compiler
def test_the_reset_on_fork_flag_reaches_the_kernel(container: Container) -> None:
    container.bundle.resources["cpu"] = machine.realtime_budget()
    container.process["scheduler"] = {
        "policy": "SCHED_FIFO",
        "priority": 1,
        "flags": ["SCHED_FLAG_RESET_ON_FORK"],
    }
    container.process["args"] = ["/bin/probe", "sched"]
    assert int(container.run().split()[1]) == 1 | 0x40000000


@pytest.mark.parametrize(
    "scheduler",
    [
        {"policy": "SCHED_BOGUS"},
        {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_BOGUS"]},
        {"policy": "SCHED_OTHER", "priority": 3},
    ],
)
def test_a_scheduler_that_makes_no_sense_is_refused(
    container: Container, scheduler: dict[str, Any]
) -> None:
    container.process["scheduler"] = scheduler
    container.cannot_run("true")


@needs_compiler
@pytest.mark.parametrize(
    ("name", "number"), [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)]
)
def test_the_io_priority_is_set(container: Container, name: str, number: int) -> None:
    container.process["ioPriority"] = {"class": name, "priority": 4}
    container.process["args"] = ["/bin/probe", "sched"]
    words = container.run().split()
    assert words[6:] == ["io-class", str(number), "io-priority", "4"]


@needs_compiler
@pytest.mark.needs("two-cpus")
def test_the_callers_affinity_is_not_inherited(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "affinity"]
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    result = drive.call(["taskset", "-c", "0", *command])
    assert len(result.stdout.split()) == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("domain", "name"), [("LINUX32", "00000008"), ("LINUX", "00000000"), (None, "00000000")]
)
def test_the_personality_is_set(container: Container, domain: str | None, name: str) -> None:
    if domain:
        container.linux["personality"] = {"domain": domain}
    assert container.run("cat /proc/self/personality") == name + "\n"


# streams, descriptors, signals --------------------------------------------------------------------


@needs_compiler
def test_only_the_standard_streams_are_open(container: Container) -> None:
    leaked = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(leaked, True)
    container.process["args"] = ["/bin/probe", "fds"]
    try:
        lines = container.run(close_fds=False).splitlines()
    finally:
        os.close(leaked)
    assert [line.split()[0] for line in lines] == ["0", "1", "2"]


@needs_compiler
def test_only_the_standard_streams_are_open_after_create_and_start(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "fds"]
    container.launch()
    container.wait("stopped")
    assert [line.split()[0] for line in container.output().splitlines()] == ["0", "1", "2"]


def test_stdout_and_stderr_are_the_callers_own_files(container: Container) -> None:
    container.launch("echo out; echo err >&2")
    container.wait("stopped")
    assert container.output() == "out\n"
    assert container.errors() == "err\n"


def test_stdin_of_create_is_the_programs(container: Container) -> None:
    container.bundle.sh("read line; echo got $line")
    container.create(stdin="hello\n")
    container.start()
    container.wait("stopped")
    assert container.output() == "got hello\n"


def test_closed_standard_streams_are_no_trouble(container: Container) -> None:
    container.bundle.sh("echo ran > /ran")
    container.bundle.write()
    command = container.runtime.command("create", "--bundle", container.bundle.path, container.id)
    drive.call(["sh", "-c", '"$@" <&- >&- 2>&-', "sh", *command])
    container.start()
    container.wait_file("/ran")


@needs_compiler
def test_preserved_descriptors_reach_the_program(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "fds"]
    container.bundle.outside("one", "1")
    container.bundle.outside("two", "2")
    container.bundle.write()
    command = container.runtime.command(
        "run", "--preserve-fds", "2", "--bundle", container.bundle.path, container.id
    )
    script = f'exec 3<{container.bundle.path}/one 4<{container.bundle.path}/two; exec "$@"'
    lines = drive.call(["sh", "-c", script, "sh", *command]).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3", "4"]


@needs_compiler
def test_listen_fds_are_passed_for_socket_activation(container: Container) -> None:
    container.bundle.sh("echo $LISTEN_FDS $LISTEN_PID; probe fds")
    container.bundle.outside("one", "1")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    script = f'exec 3<{container.bundle.path}/one; export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@"'
    lines = drive.call(["sh", "-c", script, "sh", *command]).stdout.splitlines()
    assert lines[0] == "1 1"
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3"]


@needs_compiler
def test_no_signal_is_ignored_or_blocked(container: Container) -> None:
    def spoil() -> None:
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM})

    container.process["args"] = ["/bin/probe", "signals"]
    container.bundle.write()
    result = container.make("run", preexec_fn=spoil, restore_signals=False)
    assert result.stdout == ""


def test_a_pipe_as_stdout_of_another_user_can_be_reopened(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.bundle.sh("echo text > /dev/stdout")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    assert drive.call(["sh", "-c", '"$@" | cat', "sh", *command]).stdout == "text\n"


def test_a_writer_without_reader_dies_of_sigpipe(container: Container) -> None:
    assert container.run("yes | head -n 1") == "y\n"


# keyring ------------------------------------------------------------------------------------------


@pytest.mark.needs("keyrings")
def test_the_program_has_a_session_keyring_of_its_own(
    container: Container, new_container: Callable[[], Container]
) -> None:
    # the name is a secret: whoever knows it could join the keyring beforehand
    said = [one.run("cat /proc/keys") for one in (container, new_container())]
    names = [re.findall(r"keyring +(anocir\.[0-9a-f]{32}):", text) for text in said]
    assert [len(found) for found in names] == [1, 1] and names[0] != names[1]
    assert container.id not in said[0]


@pytest.mark.needs("keyrings")
def test_no_new_keyring_keeps_the_callers(container: Container) -> None:
    assert container.id not in container.run("cat /proc/keys", "--no-new-keyring")


# size ---------------------------------------------------------------------------------------------


def test_a_long_argument_and_many_variables_are_passed(container: Container) -> None:
    container.process["args"] = ["/bin/sh", "-c", "echo ${#1} $V999", "sh", "x" * 100_000]
    container.process["env"] = [PATH] + [f"V{number}={number}" for number in range(1000)]
    assert container.run() == "100000 999\n"


def test_an_argument_that_the_kernel_refuses_is_one_error(container: Container) -> None:
    container.process["args"] = ["/bin/echo", "x" * (1 << 20)]
    assert "argument list too long" in container.cannot_run().lower()


def test_a_container_can_run_a_static_program_without_anything_else(
    container: Container,
) -> None:
    container.bundle.config["mounts"] = []
    container.process["args"] = ["/bin/busybox", "echo", "bare"]
    assert container.run() == "bare\n"


def test_the_interpreter_of_a_script_is_the_containers(container: Container) -> None:
    container.bundle.put("/bin/only-here", "#!/bin/sh\necho only here\n", 0o755)
    container.bundle.put("/bin/tool", "#!/bin/only-here\n", 0o755)
    container.process["args"] = ["/bin/tool"]
    assert container.run() == "only here\n"


def test_the_runtime_works_with_an_empty_environment(container: Container) -> None:
    container.bundle.sh("echo fine")
    assert container.run(env={}) == "fine\n"


@needs_compiler
@pytest.mark.parametrize("stage", ["create", "exec"])
def test_the_program_does_not_inherit_the_callers_nice_value(
    container: Container, stage: str
) -> None:
    container.process["scheduler"] = {"policy": "SCHED_OTHER", "nice": 0}
    container.process["args"] = ["/bin/probe", "sched"]
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    if stage == "exec":
        container.launch("sleep 100")
        command = container.runtime.command("exec", container.id, "/bin/probe", "sched")
    assert drive.call(["nice", "-n", "5", *command]).stdout.split()[3] == "0"


def test_a_container_whose_process_exits_at_once_is_stopped(
    new_container: Callable[[], Container],
) -> None:
    for _ in range(3):
        container = new_container()
        container.process["args"] = ["/bin/true"]
        pid = container.launch()
        assert container.wait_exit(pid) == 0
