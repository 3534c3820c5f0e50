"""What users read when something does not work, and small things that are as in runc."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import subprocess
import sys
from typing import Any

import pytest

from tests import drive, machine
from tests.bundle import PATH
from tests.drive import Container, Runtime

# ---------------------------------------------------------------------- the program


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("/bin/sh\r", "its first line, for /bin/sh, ends with a carriage return"),
        ("/own -x\r", "its interpreter /own: its interpreter /nothere is missing"),
        ("/dynamic", r"its interpreter /dynamic: its loader /\S*ld\S* is missing"),
    ],
)
def test_what_is_there_is_not_called_missing(container: Container, line: str, told: str) -> None:
    container.bundle.put("/run.sh", f"#!{line}\necho no\n", 0o755)
    container.bundle.put("/own", "#!/nothere\n", 0o755)
    shutil.copy(sys.executable, container.bundle.rootfs + "/dynamic")
    container.process["args"] = ["/run.sh"]
    found = re.search(r"exec /run.sh: no such file or directory \((.*)\)\n", container.cannot_run())
    assert found and re.fullmatch(told, found[1]), found


@pytest.mark.parametrize("interpreter", ["/nothere", "/usr/bin/no such", "/bin/deep/er -x"])
def test_a_missing_interpreter_is_named(container: Container, interpreter: str) -> None:
    container.bundle.put("/run.sh", f"#!{interpreter}\necho no\n", 0o755)
    container.process["args"] = ["/run.sh"]
    told = container.cannot_run()
    name = interpreter.split()[0]
    end = f"exec /run.sh: no such file or directory (its interpreter {name} is missing)\n"
    assert told.endswith(end) and told.count("\n") == 1


def test_a_missing_interpreter_is_named_for_a_program_of_the_path(container: Container) -> None:
    container.bundle.put("/bin/script", "#!/gone\n", 0o755)
    container.process["args"] = ["script"]
    told = container.cannot_run()
    assert "exec /bin/script: no such file or directory" in told
    assert "/gone" in told


def test_an_empty_program_is_not_in_the_path(container: Container) -> None:
    container.process["args"] = [""]
    assert 'exec: "": executable file not found in $PATH' in container.refused()


@pytest.mark.parametrize("name", ["/loop", "loop", "/bin/../loop"])
def test_a_loop_of_links_is_an_error_of_create(container: Container, name: str) -> None:
    os.symlink("other", container.bundle.rootfs + "/loop")
    os.symlink("loop", container.bundle.rootfs + "/other")
    container.process["env"] = ["PATH=/"]
    container.process["args"] = [name]
    told = container.refused()
    assert "too many levels of symbolic links" in told or "executable file not found" in told


def test_a_magic_link_is_no_loop(container: Container) -> None:
    container.process["args"] = ["/proc/self/root/bin/echo", "fine"]
    container.run()
    assert container.output() == "fine\n"


@pytest.mark.parametrize("path", [".:/nothing", "bin", "", ":/nothing"])
def test_a_relative_part_of_the_path_is_refused(container: Container, path: str) -> None:
    container.bundle.put("/bin/tool", "#!/bin/sh\necho no\n", 0o755)
    container.process["cwd"] = "/bin" if path != "bin" else "/"
    container.process["env"] = [f"PATH={path}"]
    container.process["args"] = ["tool"]
    told = container.refused()
    wanted = (
        "executable file not found in $PATH"
        if not path
        else "cannot run executable found relative to current directory"
    )
    assert wanted in told


def test_a_script_without_an_interpreter_is_not_run_by_a_shell(container: Container) -> None:
    container.bundle.put("/script", "echo no\n", 0o755)
    container.process["args"] = ["/script"]
    assert "exec format error" in container.cannot_run()
    assert "no" not in container.output()


# ---------------------------------------------------------------------- the command line


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("stat", "state"),
        ("exce", "exec"),
        ("delte", "delete"),
        ("strat", "start"),
        ("CREATE", "create"),
    ],
)
def test_a_typing_error_in_a_command_gets_a_suggestion(
    runtime: Runtime, typed: str, meant: str
) -> None:
    assert f'did you mean "{meant}"?' in runtime(typed, ok=False).stderr


def test_a_word_that_is_like_no_command_gets_none(runtime: Runtime) -> None:
    assert "did you mean" not in runtime("xyzzy", ok=False).stderr


def test_list_of_a_root_that_is_not_there_is_an_error_only_if_it_was_named(
    runtime: Runtime,
) -> None:
    assert (
        "no such file or directory"
        in runtime.bare("--root", "/nonexistent/root", "list", ok=False).stderr
    )


@pytest.mark.parametrize("interval", ["0", "0s", "0ms"])
def test_events_without_a_pause_are_refused(container: Container, interval: str) -> None:
    container.launch("sleep 1000")
    assert (
        "--interval"
        in container.runtime("events", "--interval", interval, container.id, ok=False).stderr
    )


def test_what_ps_complains_of_is_shown(container: Container) -> None:
    container.launch("sleep 1000")
    told = container.runtime("ps", container.id, "--no-such-option", ok=False).stderr
    assert "no-such-option" in told


@pytest.mark.parametrize("option", ["--console-socket", "--pidfd-socket"])
def test_the_path_of_a_socket_is_too_long(container: Container, option: str) -> None:
    container.process["terminal"] = option == "--console-socket"
    path = "/tmp/" + "x" * 103
    told = container.create(option, path, ok=False).stderr
    assert "107" in told and path in told
    assert container.runtime("state", container.id, ok=None).status != 0


def test_debug_lines_have_their_level(container: Container) -> None:
    container.launch("sleep 1000")
    for words in (["state"], ["exec"]):
        told = container.runtime.bare(
            "--root",
            container.runtime.root,
            "--debug",
            *words,
            container.id,
            *(["true"] if words == ["exec"] else []),
        ).stderr
        assert words == ["state"] or "level=debug" in told
        assert "anocir: debug" not in told


def test_spec_asks_for_a_cgroup_namespace_on_version_2_only(
    runtime: Runtime, tmp_path: Any
) -> None:
    runtime("spec", cwd=str(tmp_path))
    kinds = [
        entry["type"]
        for entry in json.loads((tmp_path / "config.json").read_text())["linux"]["namespaces"]
    ]
    assert ("cgroup" in kinds) == bool(machine.missing("cgroup1"))


# ---------------------------------------------------------------------- versions, masks, sysctls


@pytest.mark.parametrize("version", ["1.0", "v1.0.0", "v1.2", "1.3.0-dev"])
def test_versions_that_runc_takes(container: Container, version: str) -> None:
    container.config["ociVersion"] = version
    container.run("true")


def test_masked_and_read_only_paths_that_are_there_twice_are_done_once(
    container: Container,
) -> None:
    container.bundle.make_directory("/hidden")
    container.linux["maskedPaths"] = ["/hidden", "/hidden/", "//hidden"]
    container.linux["readonlyPaths"] = ["/etc", "/etc/../etc", "/etc"]
    container.run("cut -d' ' -f5 /proc/self/mountinfo")
    places = container.output().split()
    assert places.count("/hidden") == 1
    assert places.count("/etc") == 1


def test_sysctls_of_a_new_user_namespace_are_allowed(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.linux["sysctl"] = {"user.max_mnt_namespaces": "77", "user.max_user_namespaces": "5"}
    container.run("cat /proc/sys/user/max_mnt_namespaces /proc/sys/user/max_user_namespaces")
    assert container.output().split() == ["77", "5"]


@pytest.mark.parametrize("name", ["user.max_mnt_namespaces", "kernel.pid_max", "vm.memfd_noexec"])
def test_sysctls_of_the_hosts_namespace_are_refused(container: Container, name: str) -> None:
    container.bundle.drop_namespace("pid")
    container.linux["sysctl"] = {name: "100"}
    assert f'linux.sysctl["{name}"]' in container.refused()


@pytest.mark.parametrize(("name", "value"), [("vm.memfd_noexec", "1"), ("kernel.pid_max", "4321")])
def test_sysctls_of_a_new_pid_namespace_are_allowed(
    container: Container, name: str, value: str
) -> None:
    path = "/proc/sys/" + name.replace(".", "/")
    before = _read(path) if os.path.exists(path) else ""
    release = tuple(int(part) for part in os.uname().release.split(".")[:2])
    container.linux["sysctl"] = {name: value}
    container.bundle.sh(f"cat {path}")
    if release < {"vm.memfd_noexec": (6, 3), "kernel.pid_max": (6, 14)}[name]:
        assert "since Linux" in container.refused()
    else:
        container.run()
        assert container.output().strip() == value
    assert (_read(path) if os.path.exists(path) else "") == before


def _read(path: str) -> str:
    with open(path) as file:
        return file.read()


# ---------------------------------------------------------------------- descriptors


@pytest.mark.parametrize(("count", "given"), [(3, [4]), (5, [3, 6]), (2, [])])
def test_a_hole_among_preserved_descriptors_stays_one(
    container: Container, count: int, given: list[int]
) -> None:
    container.bundle.sh("for n in 3 4 5 6 7 8 9; do [ ! -e /proc/$$/fd/$n ] || echo $n; done")
    container.bundle.write()
    opened = "".join(f" {fd}</dev/null" for fd in given)
    closed = "".join(f" {fd}<&-" for fd in range(3, 10) if fd not in given)
    words = container.runtime.command(
        "run", "--preserve-fds", str(count), "-b", container.bundle.path, container.id
    )
    shown = drive.call(["/bin/sh", "-c", 'exec "$@"' + opened + closed, "sh", *words]).stdout
    assert [int(word) for word in shown.split()] == given


def test_listen_fds_with_a_closed_descriptor_runs(container: Container) -> None:
    container.bundle.sh('echo "$LISTEN_FDS"; [ ! -e /proc/$$/fd/3 ] && echo closed')
    container.bundle.write()
    words = container.runtime.command("run", "-b", container.bundle.path, container.id)
    shown = drive.call(
        ["/bin/sh", "-c", 'export LISTEN_FDS=1 LISTEN_PID=$$; exec "$@" 3<&-', "sh", *words]
    ).stdout
    assert shown.split() == ["1", "closed"]


def test_preserved_descriptors_of_exec_may_have_holes(container: Container) -> None:
    container.launch("sleep 1000")
    words = container.runtime.command(
        "exec", "--preserve-fds", "4", container.id, "ls", "/proc/self/fd"
    )
    shown = drive.call(
        ["/bin/sh", "-c", 'exec "$@" 3<&- 4<&- 5</dev/null 6<&-', "sh", *words]
    ).stdout.split()
    assert "5" in shown and "4" not in shown and "6" not in shown
    words = ("exec", "--preserve-fds", "99999999999", container.id, "ls")
    told = container.runtime(*words, ok=False).stderr
    assert "exec: --preserve-fds: 99999999999 is more than the limit of open files" in told


@pytest.mark.parametrize(("soft", "mounts"), [(256, 300), (128, 150)])
def test_more_mounts_than_descriptors(container: Container, soft: int, mounts: int) -> None:
    source = container.bundle.outside("one")
    for index in range(mounts):
        container.bundle.add_mount(f"/many/{index}", "bind", source, "bind")
    container.bundle.sh("ulimit -Sn; ulimit -Hn; ls /many | wc -l")
    container.run(preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, 4096)))
    assert container.output().split() == [str(soft), "4096", str(mounts)]


# ---------------------------------------------------------------------- callers


def test_groups_are_kept_in_a_user_namespace_too(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.config["annotations"] = {"run.oci.keep_original_groups": "1"}
    container.run(
        "grep Groups /proc/self/status", preexec_fn=lambda: os.setgroups([100005, 100042])
    )
    assert container.output().split()[1:] == ["5", "42"]


@pytest.mark.parametrize("command", ["run", "create"])
def test_a_procfs_of_another_pid_namespace_is_named(container: Container, command: str) -> None:
    container.bundle.sh("true")
    container.bundle.write()
    words = container.runtime.command(command, "--bundle", container.bundle.path, container.id)
    told = drive.call(["unshare", "-pf", "--", *words], ok=False).stderr
    assert "/proc is that of another pid namespace" in told
    assert container.id not in os.listdir(container.runtime.root)


def test_start_names_a_notify_socket_that_is_not_there(container: Container) -> None:
    container.bundle.sh("sleep 1000")
    environment = dict(os.environ, NOTIFY_SOCKET="/nothing/notify")
    container.create(env=environment)
    told = container.start(ok=False, env=environment, timeout=20).stderr
    assert "/nothing/notify" in told
    environment["NOTIFY_SOCKET"] = "/" + 200 * "n"
    told = container.start(ok=False, env=environment, timeout=20).stderr
    assert told.endswith("n: file name too long\n")
    assert container.status == "created"


def test_a_detached_run_does_not_wait_for_a_notify_socket_that_is_not_there(
    container: Container,
) -> None:
    container.bundle.sh("sleep 1000")
    container.make(
        "run", "--detach", env=dict(os.environ, NOTIFY_SOCKET="/nothing/notify"), timeout=20
    )
    assert container.status == "running"


@pytest.mark.parametrize("policy", ["SCHED_DEADLINE", "SCHED_IDLE"])
def test_nice_is_ignored_where_the_kernel_does(container: Container, policy: str) -> None:
    container.process["scheduler"] = {"policy": policy, "nice": 19}
    if policy == "SCHED_DEADLINE":
        container.process["scheduler"].update(runtime=42000, deadline=1000000, period=1000000)
    container.bundle.sh("true")
    told = container.try_run().stderr + container.errors()
    assert "nice" not in told


def test_a_byte_order_mark_is_named(container: Container) -> None:
    container.bundle.write()
    path = os.path.join(container.bundle.path, "config.json")
    with open(path, "rb") as file:
        text = file.read()
    with open(path, "wb") as file:
        file.write(b"\xef\xbb\xbf" + text)
    told = container.create(write=False, ok=False).stderr
    assert "byte order mark" in told
    assert "utf-8-sig" not in told


def listening(path: str) -> socket.socket:
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    agent.bind(path)
    agent.listen(4)
    return agent


def told_to(agent: socket.socket) -> dict[str, Any]:
    connection, _ = agent.accept()
    with connection:
        data, fds, _, _ = socket.recv_fds(connection, 65536, 4)
        for fd in fds:
            os.close(fd)
    told: dict[str, Any] = json.loads(data)
    return told


def test_the_seccomp_agent_is_told_the_state_of_the_container(container: Container) -> None:
    path = os.path.join(container.bundle.path, "agent")
    agent = listening(path)
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    container.launch("sleep 1000")
    assert told_to(agent)["state"]["status"] == "creating"
    container.exec("true")
    told = told_to(agent)
    assert told["state"]["status"] == "running"
    assert told["pid"] != told["state"]["pid"]
    agent.close()


@pytest.mark.parametrize("call", ["setrlimit", "chdir", "sethostname"])
def test_no_name_of_a_step_is_in_an_error(container: Container, call: str) -> None:
    if call == "setrlimit":
        container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 3, "hard": 3}]
    elif call == "chdir":
        container.bundle.put("/file")
        container.process["cwd"] = "/file/below"
    else:
        container.bundle.drop_namespace("uts")
    told = container.try_run("true").stderr + container.errors()
    for name in (
        "make_cwd",
        "join_all",
        "join_late",
        "affinity:",
        "remount:",
        "cgroup_mount",
    ):
        assert name not in told


def test_without_the_right_to_mount_the_error_says_so(container: Container) -> None:
    container.bundle.sh("true")
    container.bundle.write()
    words = container.runtime.command("run", "-b", container.bundle.path, container.id)
    drop = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"]
    if subprocess.run(["setpriv", "--version"], capture_output=True, check=False).returncode:
        pytest.skip("[setpriv] this machine has no setpriv")
    told = drive.call([*drop, *words], ok=False).stderr
    assert "operation not permitted" in told
    assert "CAP_SYS_ADMIN" in told
    assert PATH.startswith("PATH")


@pytest.mark.parametrize("where", ["container", "exec"])
def test_a_seccomp_agent_that_is_not_there_is_named(container: Container, where: str) -> None:
    path = os.path.join(container.bundle.path, "agent")
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "listenerPath": path,
        "syscalls": [{"names": ["mkdirat"], "action": "SCMP_ACT_NOTIFY"}],
    }
    if where == "exec":
        agent = listening(path)
        container.launch("sleep 1000")
        agent.close()
        os.unlink(path)
        told = container.exec("true", ok=False).stderr
    else:
        told = container.cannot_run("true")
    assert "failed to connect with seccomp agent" in told
    assert path in told


def test_every_architecture_of_features_may_be_named(container: Container) -> None:
    found = json.loads(container.runtime("features").stdout)["linux"]["seccomp"]["archs"]
    assert len(found) > 3
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": found,
        "syscalls": [{"names": ["swapoff"], "action": "SCMP_ACT_ERRNO"}],
    }
    container.run("true")


@pytest.mark.parametrize(
    ("name", "known"), [("run.oci.unheard-of", False), ("run.oci.keep_original_groups", True)]
)
def test_an_unknown_annotation_of_cruns_is_a_line_of_debug(
    container: Container, name: str, known: bool
) -> None:
    container.config["annotations"] = {name: "0"}
    container.bundle.sh("true")
    container.bundle.write()
    words = ["--root", container.runtime.root]
    run = ["run", "-b", container.bundle.path, container.id]
    told = container.runtime.bare(*words, "--debug", *run).stderr
    assert ("annotations[" in told and name in told) != known
    assert name not in container.runtime.bare(*words, *run).stderr


# ---------------------------------------------------------------------- first mistakes


def test_a_first_mistake_names_option_object_and_what_to_do(container: Container) -> None:
    """No bare errno, and for what was typed wrong what may have been meant."""
    container.launch("sleep 1000")
    runtime, name = container.runtime, container.id
    state = f"{name} in {runtime.root}: `anocir --root {runtime.root} delete {name}` removes it"
    for words, *told in (
        (["--log", "/no/dir/x", "state", name], "--log: /no/dir/x: no such file or directory"),
        (["create", "-b", container.bundle.path, name], "container with given ID already exists", state),
        (["state", "nobody"], "container does not exist", f"nobody in {runtime.root}: anocir --root {runtime.root} list shows"),
        (["start"], '"start" requires exactly 1 argument(s)', "usage: anocir start ID"),
        (["exec", name], "requires a minimum of 2 argument(s)", "usage: anocir exec [OPTIONS] ID"),
        (["exec", "--cwd", "/no/such", name, "true"], 'chdir to cwd ("/no/such") set in config.json failed', "--cwd /no/such asked for it"),
        (["--rootless", "maybe", "list"], '--rootless: must be true, false or auto, got "maybe"'),
        (["--log-level", "loud", "list"], 'must be error, warning, info or debug, got "loud"'),
        (["list", "--formt", "json"], "flag provided but not defined: --formt", "did you mean --format?"),
        (["--debgu", "list"], "flag provided but not defined: --debgu", "did you mean --debug?"),
        (["kill", name, "SIGTREM"], 'unknown signal "SIGTREM"', "did you mean TERM?"),
        (["kill", name, "hupp"], 'unknown signal "hupp"', "did you mean HUP?"),
        (["kill", name, "99"], 'unknown signal "99"', "a name such as TERM, or a number from 1 to 64"),
        (["exec", "--user", "www", name, "true"], '--user: "www" is not a number', "UID or UID:GID: names of the image are not looked up"),
        (["exec", "--process", "/no", name], "--process: read /no: no such file or directory"),
        (["exec", "-d", "-t", "--console-socket", "/no", name, "true"], "--console-socket: /no: no such file or directory"),
        (["exec", "-d", "--pidfd-socket", "/no", name, "true"], "--pidfd-socket: /no: no such file or directory"),
        (["update", "-r", "/no", name], "--resources: read /no: no such file or directory"),
        (["list", "--zzz"], "flag provided but not defined: --zzz", "anocir list --help lists the options"),
    ):  # fmt: skip
        said = runtime(*words, ok=False).stderr.splitlines()
        assert len(said) == len(told) or (len(said), len(told)) == (2, 1), said
        for line, text in zip(said, told):
            assert text in line, said
    container.delete("--force")
    said = runtime(
        "create", "-b", container.bundle.path, "--pid-file", "/no/dir/x", "other", ok=False
    )
    assert "--pid-file: /no/dir/x: no such file or directory" in said.stderr
    for words in (("list",), ("state", "x"), ("create", "-b", container.bundle.path, "x")):
        said = runtime.bare("--root", "/etc/passwd", *words, ok=False)
        assert "--root: /etc/passwd: not a directory" in said.stderr


def test_a_working_directory_that_is_gone_is_named(runtime: Runtime, tmp_path: Any) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()

    def leave() -> None:
        os.chdir(gone)
        os.rmdir(gone)

    for words in (["create", "x"], ["run", "x"], ["spec"], ["validate"], ["validate", "-b", "x"]):
        gone.mkdir(exist_ok=True)
        said = runtime(*words, ok=False, preexec_fn=leave).stderr
        assert "the working directory" in said and "no such file or directory" in said
    gone.mkdir(exist_ok=True)
    said = runtime.bare("--root", "state", "list", ok=False, preexec_fn=leave).stderr
    assert "--root state: the working directory: no such file or directory" in said


def test_ps_needs_no_program(container: Container) -> None:
    container.launch("sleep 1000")
    said = container.runtime("ps", container.id, env={"PATH": "/nowhere"}).stdout.splitlines()
    assert said[0].split() == ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
    assert said[1].split()[1] == str(container.pid)
