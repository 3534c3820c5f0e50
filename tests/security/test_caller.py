"""T-HOOK, T-TTY, T-KEY, T-SOCK, T-DIR, T-SIG: what a caller, its terminal and its hooks have to do with a container."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import termios

import pytest

from tests import drive
from tests.host import describe
from tests.security.conftest import Arena
from tests.security.test_inodes import chown_tree
from tests.security.test_identity import SLEEP, status
from tests.wait import others_go_on

# What dash and busybox add themselves.
SHELLS_OWN = ("PWD=", "SHLVL=1", "PATH=/sbin:/usr/sbin:/bin:/usr/bin")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

# hooks -------------------------------------------------------------------------------------------------------


def hook_surroundings(arena: Arena, **modules: str) -> dict[str, tuple[list[str], str]]:
    """The environment and the working directory that each hook has."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.process["env"] += ["LD_PRELOAD=/evil.so", "PATH=/evil/bin", "SECRET=process"]
    files = {}
    for name in HOOKS:
        path = files[name] = container.bundle.outside("hook-" + name, "")
        if name == "startContainer":
            path, files[name] = "/tmp/hook", os.path.join(container.bundle.rootfs, "tmp/hook")
        # Shell words only: the hook has no PATH.
        script = "while read -r line; do :; done; "
        copy = f"/bin/cat /proc/self/environ > {path}; echo >> {path}; /bin/readlink /proc/self/cwd >> {path}"
        container.bundle.hook(name, script + copy, env=["OWN=1"])
    caller = {**os.environ, "LD_LIBRARY_PATH": "/evil", "SECRET": "caller"}
    container.bundle.process["args"] = ["/bin/sleep", "100"]
    container.create(env=caller)
    container.start(env=caller)
    drive.call(container.runtime.command("delete", "--force", container.id), env=caller)
    found = {}
    for name, path in files.items():
        with open(path) as file:
            environment, _, cwd = file.read().partition("\n")
        entries = [entry for entry in environment.split("\0") if entry]
        found[name] = [entry for entry in entries if not entry.startswith(SHELLS_OWN)], cwd.strip()
    return found


def test_a_hook_has_its_own_environment_and_no_directory_of_the_image(arena: Arena) -> None:
    """T-HOOK1, CVE-2025-23266, CVE-2024-0132: but createContainer hooks begin in the root, as runc's do."""
    for name, (environment, cwd) in hook_surroundings(arena).items():
        assert environment == ["OWN=1"], name
        assert ("rootfs" in cwd) == (name == "createContainer"), name


def test_control_a_hook_with_the_callers_environment_is_seen(arena: Arena) -> None:
    inherit = (
        "_spawn_as_it_is = spawn.spawn\n"
        "def _spawn(hook, ends, place):\n"
        "    actions = [(posix.POSIX_SPAWN_DUP2, end, target) for target, end in enumerate(ends)]\n"
        "    path = files.encode(hook['path'])\n"
        "    args = [files.encode(arg) for arg in hook['args']]\n"
        "    return spawn.spawn(path, args, posix.environ, actions)\n"
    )
    environment, _ = hook_surroundings(arena, base__hooks=inherit)["prestart"]
    assert {"LD_LIBRARY_PATH=/evil", "SECRET=caller"} <= set(environment)


# terminals ---------------------------------------------------------------------------------------------------


def typed_into_the_caller(arena: Arena, verb: str, **modules: str) -> tuple[str, int]:
    """Call from a terminal, without one for the container: what TIOCSTI said, bytes in the caller's input."""
    container = arena.container(arena.altered(**modules) if modules else None)
    arena.install(container, "attack", "/bin/attack")
    attack = ["/bin/attack", "type", "reboot"]
    verb, *options = verb.split()
    if verb == "run":
        container.process["args"] = attack
        container.bundle.write()
        words = [*options, "--bundle", container.bundle.path, container.id]
    else:
        container.launch(SLEEP)
        words = [*options, container.id, *attack]
    terminal = drive.Terminal(container.runtime.command(verb, *words))
    try:
        drive.finish(terminal.child)
        said = drive.read_terminal(terminal.master, b"\n").decode()
        attributes = termios.tcgetattr(terminal.slave)
        attributes[3] &= ~termios.ICANON  # what is typed counts without a line's end
        termios.tcsetattr(terminal.slave, termios.TCSANOW, attributes)
        waiting = struct.unpack("i", fcntl.ioctl(terminal.slave, termios.FIONREAD, bytes(4)))[0]
    finally:
        os.close(terminal.slave)
        os.close(terminal.master)
    return said, waiting


@pytest.mark.parametrize("verb", ["run", "exec", "run --detach", "exec --detach"])
def test_nothing_is_typed_into_the_callers_terminal(arena: Arena, verb: str) -> None:
    """T-TTY1, CVE-2017-5226, CVE-2016-10124: there is none, or detached it is that of another session."""
    said, waiting = typed_into_the_caller(arena, verb)
    detached = "--detach" in verb
    assert ("EPERM" in said or "EIO" in said) if detached else "ENOTTY" in said
    assert waiting == 0


@pytest.mark.needs("tiocsti")
def test_control_in_the_callers_session_it_is(arena: Arena) -> None:
    said, waiting = typed_into_the_caller(
        arena,
        "run",
        inside__process="def session(context):\n    return\n",
        host__foreground="def pipes(config, process):\n    return None\n",
    )
    assert "typed" in said and waiting == len("reboot")


# streams that are terminals and devices -------------------------------------------------------------------------

SPOIL = "for f in 0 1 2; do chmod 0606 /proc/self/fd/$f; readlink /proc/self/fd/$f; done; "
TALK = SPOIL + "read x; echo one $x; echo two >&2; cat; echo end; sleep 100 & exit 3"


def from_a_terminal(
    arena: Arena, verb: str, script: str, runtime: drive.Runtime | None = None, userns: bool = False
) -> tuple[drive.Terminal, str]:
    """Call `run` or `exec` from a terminal, without one for the container; the mode of it before."""
    container = arena.container(runtime)
    if userns:
        container.bundle.use_user_namespace(100000)
        chown_tree(container.bundle.rootfs, 100000)
        container.process["user"] = {"uid": 1000, "gid": 1000}
    container.process["capabilities"] = {"bounding": [], "effective": [], "permitted": []}
    shell = ["/bin/sh", "-c", script]
    if verb == "run":
        container.process["args"] = shell
        container.bundle.write()
        words = ["--bundle", container.bundle.path, container.id]
    else:
        container.launch(SLEEP)
        words = [container.id, *shell]
    terminal = drive.Terminal(container.runtime.command(verb, *words))
    return terminal, describe(os.ttyname(terminal.slave))


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_callers_terminal_is_no_stream(arena: Arena, verb: str) -> None:
    """T-TTY2: root of the container owns it, and could change its mode; it gets pipes, as from runc.

    Lines, the end of the input, the order of what is written and the exit status pass through; nobody waits for a
    process that is left behind with the pipe.
    """
    terminal, before = from_a_terminal(arena, verb, TALK)
    terminal.send("word\nmore\n\4")
    said = terminal.expect("end\r\n")
    assert describe(os.ttyname(terminal.slave)) == before
    assert terminal.close() == 3
    assert said.count("pipe:[") == 3 and "/dev/" not in said, said
    assert said.endswith("one word\r\ntwo\r\nmore\r\nend\r\n"), said


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_the_pipes_belong_to_the_user_of_a_user_namespace(arena: Arena, verb: str) -> None:
    """So that they can be opened by name, as under runc."""
    terminal, _ = from_a_terminal(
        arena, verb, "echo by name > /proc/self/fd/1; echo end", userns=True
    )
    assert terminal.expect("end\r\n") == "by name\r\nend\r\n"
    assert terminal.close() == 0


@pytest.mark.needs("runc-1.1.5+ds1")
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_runc_gives_pipes_as_well(arena: Arena, verb: str) -> None:
    terminal, before = from_a_terminal(arena, verb, SPOIL + "echo end", arena.installed("runc"))
    terminal.expect("end\r\n")
    assert describe(os.ttyname(terminal.slave)) == before
    terminal.close()


@pytest.mark.needs("crun-1.8.1")
@pytest.mark.parametrize("verb", ["run", "exec"])
def test_control_crun_hands_the_terminal_on(arena: Arena, verb: str) -> None:
    terminal, before = from_a_terminal(arena, verb, SPOIL + "echo end", arena.installed("crun"))
    terminal.expect("end\r\n")
    assert describe(os.ttyname(terminal.slave)) != before
    terminal.close()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_control_without_pipes_the_terminal_is_handed_on(arena: Arena, verb: str) -> None:
    runtime = arena.altered(host__foreground="def pipes(config, process):\n    return None\n")
    terminal, before = from_a_terminal(arena, verb, SPOIL + "echo end", runtime)
    terminal.expect("end\r\n")
    assert describe(os.ttyname(terminal.slave)) != before
    terminal.close()


def test_devices_are_streams_by_pipes(arena: Arena) -> None:
    """Endless ones too: much goes through, and a program that stops reading is not ended for it."""
    container = arena.container()
    container.process["capabilities"] = {"bounding": [], "effective": [], "permitted": []}
    container.launch(SLEEP)
    node = os.path.join(arena.directory(), "zero")
    os.mknod(node, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    before = describe(node)
    script = f"head -c 20000000 | wc -c; {SPOIL} exec 0<&-; sleep 0.3; head -c 5000000 /dev/zero >&2; echo alive"
    lines = redirected(container, f"<{node} 2>{node}", script).stdout.split()
    assert lines[0] == "20000000" and lines[-1] == "alive", lines
    assert describe(node) == before and node not in lines
    # What cannot be written is a pipe that nobody reads.
    full = os.path.join(arena.directory(), "full")
    os.mknod(full, stat.S_IFCHR | 0o600, os.makedev(1, 7))
    script = "cat; echo $? >&2; trap '' PIPE; while echo x; do :; done 2>/dev/null; echo out >&2"
    assert redirected(container, f">{full}", script).stderr.split() == ["0", "out"]


def redirected(container: drive.Container, how: str, script: str) -> drive.Result:
    """Execute a script with streams as a shell of the host opens them."""
    command = container.runtime.command("exec", container.id, "/bin/sh", "-c", script)
    return drive.call(["/bin/sh", "-c", f'exec "$@" {how}', "sh", *command])


def test_much_is_printed_to_a_terminal_before_the_end(arena: Arena) -> None:
    """And a terminal that takes nothing for a while keeps no signal from the process."""
    script = (
        "trap 'echo caught; exit 0' USR1; head -c 300000 /dev/zero | tr '\\0' a; sleep 100 & wait"
    )
    terminal, _ = from_a_terminal(arena, "exec", script)
    drive.until("a first piece", lambda: select.select([terminal.master], [], [], 0)[0])
    terminal.child.send_signal(signal.SIGUSR1)
    said = terminal.expect("caught\r\n")
    assert said.count("a") >= 300000 and terminal.close() == 0


def test_a_job_in_the_background_does_not_read_the_terminal(arena: Arena) -> None:
    """And reads again in the foreground, where a bash sends no signal to a job that was not stopped."""
    container = arena.container()
    container.launch(SLEEP)
    command = " ".join(container.runtime.command("exec", container.id, "/bin/cat"))
    program = (
        "import fcntl, os, signal, subprocess, sys, termios\n"
        "signal.signal(signal.SIGTTOU, signal.SIG_IGN)\n"
        f"job = subprocess.Popen({command.split()!r}, preexec_fn=os.setpgrp)\n"
        "print('mine', input(), flush=True)\n"
        "os.tcsetpgrp(0, job.pid)\n"
        "print('given', flush=True)\n"
        "sys.exit(job.wait())\n"
    )
    terminal = drive.Terminal([sys.executable, "-c", program])
    drive.until("cat", lambda: "/bin/cat" in container.runtime("ps", container.id).stdout)
    others_go_on()
    terminal.send("first\n")
    terminal.expect("given\r\n")
    terminal.send("second\n\4")
    assert terminal.expect("second\r\nsecond\r\n")
    assert terminal.close() == 0


# keyrings, sockets -------------------------------------------------------------------------------------------


def session_keyrings(arena: Arena, *options: str) -> list[str]:
    """The serial numbers of the session keyrings of the host and of two containers."""
    question = ["syscall", "keyctl", "0", "-3", "0"]
    host = subprocess.run(
        [arena.defender.template.probe, *question], capture_output=True, text=True, check=True
    ).stdout
    found = [host.strip()]
    for _ in range(2):
        container = arena.container()
        container.process["args"] = ["/bin/probe", *question]
        found.append(container.make("run", *options).line)
    return found


@pytest.mark.needs("keyrings")
def test_each_container_has_a_session_keyring(arena: Arena) -> None:
    """T-KEY1: keyrings are in no namespace."""
    assert len(set(session_keyrings(arena))) == 3


@pytest.mark.needs("keyrings")
def test_control_without_a_new_one_it_is_the_hosts(arena: Arena) -> None:
    host, *others = session_keyrings(arena, "--no-new-keyring")
    assert others == [host, host]


def abstract_sockets(arena: Arena, **modules: str) -> str:
    """The abstract sockets that a container on the caller's network can reach."""
    runtime = arena.altered(**modules) if modules else None
    # In a network of its own, so that only the runtime's sockets are there.
    container = arena.container(arena.called_by("", runtime, prefix="unshare -n"))
    arena.install(container, "attack", "/bin/attack")
    container.bundle.drop_namespace("network")
    container.process["args"] = ["/bin/attack", "abstract"]
    return container.make("run").stdout


def test_no_abstract_socket_is_made(arena: Arena) -> None:
    """T-SOCK1, CVE-2020-15257."""
    assert abstract_sockets(arena) == ""


def test_control_one_would_be_seen(arena: Arena) -> None:
    abstract = (
        "import _socket\n_s = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)\n"
        "_s.bind(b'\\0anocir-test')\n_s.listen(1)\n"
    )
    assert "@anocir-test" in abstract_sockets(arena, host__run=abstract)


# the state directory -----------------------------------------------------------------------------------------


def use_of_roots(arena: Arena, runtime: drive.Runtime | None = None) -> dict[str, str]:
    """Create with roots that are not there, or not safe: "mode OCTAL" of a new one, "taken" or "refused"."""
    found = {}
    for kind in ("new", "nested", "foreign", "group", "world"):
        container = arena.container(runtime)
        container.bundle.write()
        root = os.path.join(arena.directory(), "root")
        if kind == "nested":
            root = os.path.join(root, "deeper")
        if kind in ("foreign", "group", "world"):
            os.mkdir(root)
            os.chmod(root, {"group": 0o770, "world": 0o777}.get(kind, 0o700))
            if kind == "foreign":
                os.chown(root, 1234, 1234)
        bundle = ["--bundle", container.bundle.path, container.id]
        path = (runtime or arena.defender).path
        with open(container.stdout_path, "ab") as out:
            command = [path, "--root", root, "create", *bundle]
            result = drive.call(
                ["/bin/sh", "-c", 'umask 0; exec "$@"', "sh", *command],
                ok=None, stdout=out, stderr=out,
            )  # fmt: skip
        if result.status:
            found[kind] = "refused"
        elif kind in ("new", "nested"):
            modes = {
                os.stat(os.path.join(root, name)).st_mode & 0o7777 for name in (".", container.id)
            }
            if kind == "nested":
                modes.add(os.stat(os.path.dirname(root)).st_mode & 0o7777)
            found[kind] = "mode " + " ".join(f"{mode:o}" for mode in sorted(modes))
        else:
            found[kind] = "taken"
        drive.call([path, "--root", root, "delete", "--force", container.id], ok=None)
    return found


def test_the_state_is_for_its_owner_only(arena: Arena) -> None:
    """T-DIR1, CVE-2021-41103: also with an open umask, and never in a directory of somebody else."""
    assert use_of_roots(arena) == {
        "new": "mode 700",
        "nested": "mode 700",
        "foreign": "refused",
        "group": "refused",
        "world": "refused",
    }


def test_control_a_root_that_is_not_looked_at_is_taken(arena: Arena) -> None:
    owner = "def _check_owner(path, found):\n    return\n"
    plain = (
        "def _make_root(root):\n"
        "    whole = ''\n"
        "    for part in root.split('/')[1:]:\n"
        "        whole += '/' + part\n"
        "        if not files.exists(whole):\n"
        "            entries.mkdir(whole, 0o755)\n"
    )
    found = use_of_roots(arena, arena.altered(host__store=owner, host__reserve=plain))
    assert found["new"] == "mode 700 755"
    assert found["foreign"] == found["group"] == found["world"] == "taken"


# signals -----------------------------------------------------------------------------------------------------


def _hostile() -> None:
    # As nohup and some supervisors do, only more of it; 32 and 33 are the C library's.
    for number in range(1, 65):
        if number not in (signal.SIGKILL, signal.SIGSTOP, 32, 33):
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGTERM, signal.SIGRTMIN})


def signal_masks(arena: Arena, runtime: drive.Runtime | None = None) -> dict[str, tuple[int, int]]:
    """Ignored and blocked signals of run, exec and a hook, when the caller ignores all and blocks some."""
    found = {}
    for verb in ("run", "exec", "hook"):
        container = arena.container(runtime)
        container.process["args"] = ["/bin/cat", "/proc/self/status"]
        if verb == "run":
            text = container.make("run", preexec_fn=_hostile, restore_signals=False).stdout
        elif verb == "exec":
            container.launch(SLEEP)
            command = ["/bin/cat", "/proc/self/status"]
            text = container.exec(*command, preexec_fn=_hostile, restore_signals=False).stdout
        else:
            path = container.bundle.outside("signals", "")
            # By the shell itself: one that waits for a child has blocked its signals.
            copy = f"while read -r line; do echo $line; done < /proc/self/status > {path}"
            container.bundle.hook("createRuntime", copy)
            container.create(preexec_fn=_hostile, restore_signals=False)
            with open(path) as file:
                text = file.read()
        lines = status(text)
        found[verb] = int(lines["SigIgn"], 16), int(lines["SigBlk"], 16)
    return found


def test_a_program_has_default_signals(arena: Arena) -> None:
    """T-SIG1: whatever the caller ignores or blocks, and what the interpreter ignores itself."""
    masks = signal_masks(arena)
    assert masks["run"] == masks["exec"] == (0, 0)
    # posix_spawn(3) of glibc leaves the library's own signals 32 and 33 ignored, and hooks are the host's.
    ignored, blocked = masks["hook"]
    assert ignored & ~(3 << 31) == blocked == 0


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_passes_blocked_signals_on(arena: Arena) -> None:
    container = arena.container(arena.installed("runc"))
    container.process["args"] = ["/bin/cat", "/proc/self/status"]
    text = container.make("run", preexec_fn=_hostile, restore_signals=False).stdout
    assert int(status(text)["SigBlk"], 16) & 1 << (signal.SIGUSR1 - 1)


def test_control_without_a_reset_they_are_passed_on(arena: Arena) -> None:
    runtime = arena.altered(
        linux__oneself="def default_signal(number):\n    return\n",
        linux__spawn=(
            "def spawn(path, argv, env, actions, session=True):\n"
            "    _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)\n"
            "    return posix.posix_spawn(path, argv, env, file_actions=actions, setsid=session)\n"
        ),
    )
    ignored, blocked = signal_masks(arena, runtime)["run"]
    assert ignored & 1 << (signal.SIGPIPE - 1) and blocked & 1 << (signal.SIGUSR1 - 1)


# descriptors of a service manager ----------------------------------------------------------------------------


def passed(
    arena: Arena, verb: str, variables: str, runtime: drive.Runtime | None = None
) -> drive.Result:
    """Call with descriptor 3 open and variables of this kind; what the program has of them."""
    container = arena.container(runtime)
    ask = [
        "/bin/sh",
        "-c",
        "echo fds: $LISTEN_FDS; [ -e /proc/self/fd/3 ] && /bin/readlink /proc/self/fd/3; true",
    ]
    if verb == "run":
        container.process["args"] = ask
        container.bundle.write()
        words = ["--bundle", container.bundle.path, container.id]
    else:
        container.launch(SLEEP)
        words = [container.id, *ask]
    command = container.runtime.command(verb, *words)
    return drive.call(
        ["/bin/sh", "-c", f'exec 3</etc/hostname; {variables}; exec "$@"', "sh", *command], ok=None
    )


@pytest.mark.parametrize("verb", ["run", "exec"])
@pytest.mark.parametrize("variables", ["export LISTEN_FDS=1", "export LISTEN_FDS=1 LISTEN_PID=1",
                                       "export LISTEN_FDS=1 LISTEN_PID="])  # fmt: skip
def test_descriptors_for_somebody_else_are_not_passed_on(
    arena: Arena, verb: str, variables: str
) -> None:
    result = passed(arena, verb, variables)
    assert result.status == 0 and result.stdout.strip() == "fds:", result.explain()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_control_those_for_us_are(arena: Arena, verb: str) -> None:
    result = passed(arena, verb, "export LISTEN_FDS=1 LISTEN_PID=$$")
    assert "fds: 1" in result.stdout and "hostname" in result.stdout, result.explain()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_more_descriptors_than_can_be_are_an_error(arena: Arena, verb: str) -> None:
    result = passed(arena, verb, "export LISTEN_FDS=9999999 LISTEN_PID=$$")
    assert result.status != 0 and "LISTEN_FDS: 9999999 descriptors cannot be open" in result.stderr


# keyrings of exec ----------------------------------------------------------------------------------------------

KEYCTL = ["/bin/probe", "syscall", "keyctl", "0", "-3", "0"]


def rings(arena: Arena, *options: str) -> tuple[str, str, str]:
    """The session keyrings of the caller, of a container's process and of exec."""
    caller = subprocess.run(
        [arena.defender.template.probe, *KEYCTL[1:]], capture_output=True, text=True, check=True
    ).stdout.strip()
    container = arena.container()
    container.bundle.make_directory("/out", 0o777)
    container.bundle.sh(f"{' '.join(KEYCTL)} > /out/ring; mv /out/ring /out/done; {SLEEP}")
    container.create(*options)
    container.start()
    return caller, container.wait_file("/out/done").strip(), container.exec(*KEYCTL).line


@pytest.mark.needs("keyrings")
def test_exec_has_the_keyring_of_the_container(arena: Arena) -> None:
    caller, first, second = rings(arena)
    assert first == second != caller


@pytest.mark.needs("keyrings")
def test_exec_never_has_the_keyring_of_the_caller(arena: Arena) -> None:
    """Also where the container was given that of who created it: then exec gets one of its own."""
    caller, first, second = rings(arena, "--no-new-keyring")
    assert first == caller != second


PLANT = """
import ctypes, os, sys
call, number = ctypes.CDLL(None).syscall, 250 if os.uname().machine == "x86_64" else 219
ring = call(number, 1, sys.argv[1].encode(), 0, 0, 0)  # KEYCTL_JOIN_SESSION_KEYRING
call(number, 5, ring, 0x3f3f0000, 0, 0)  # KEYCTL_SETPERM: for everything of this user
print(ring, flush=True)
sys.stdin.read()
"""


@pytest.mark.needs("keyrings")
def test_nobody_can_be_there_before_the_container(arena: Arena) -> None:
    """By a name that others of the host know they make the ring first, and plant keys."""
    container = arena.container()
    words = [sys.executable, "-c", PLANT, f"_ses.{container.id}"]
    planted = arena.helper(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert planted.stdout is not None
    serial = planted.stdout.readline().decode().strip()
    container.process["args"] = KEYCTL
    assert container.make("run").line != serial


@pytest.mark.needs("keyrings", "runc-1.1.5+ds1")
def test_control_runc_takes_the_ring_that_is_there(arena: Arena) -> None:
    container = arena.container(arena.installed("runc"))
    words = [sys.executable, "-c", PLANT, f"_ses.{container.id}"]
    planted = arena.helper(*words, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert planted.stdout is not None
    serial = planted.stdout.readline().decode().strip()
    container.process["args"] = KEYCTL
    assert container.make("run").line == serial
