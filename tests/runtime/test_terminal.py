"""Terminals (config.md, "terminal" and "consoleSize"): console socket and foreground relay."""

from __future__ import annotations

import os
import shlex
import signal
import stat
import sys
import termios
from typing import Iterator

import pytest

from tests import drive
from tests.drive import Console, Container, Terminal, read_terminal

Shell = Terminal


def interactive(container: Container, script: str) -> None:
    """Make the container's program a script on a terminal."""
    container.process["terminal"] = True
    container.bundle.sh(script)


def attached(container: Container, console: Console, script: str) -> int:
    """Create with a console socket and start; returns the terminal's master."""
    interactive(container, script)
    container.create("--console-socket", console.path)
    master = console.receive()
    container.start()
    return master


# console socket -----------------------------------------------------------------------------------


def test_the_console_socket_gets_the_master_of_the_containers_terminal(
    container: Container, console: Console
) -> None:
    master = attached(container, console, "echo hello from inside")
    assert b"hello from inside" in read_terminal(master)
    assert console.name, "the message must name the terminal"


def test_the_master_arrives_before_create_returns(container: Container, console: Console) -> None:
    interactive(container, "true")
    container.create("--console-socket", console.path)
    assert os.isatty(console.receive())


def test_the_standard_streams_are_the_terminal(container: Container, console: Console) -> None:
    script = "for n in 0 1 2; do test -t $n && echo tty$n; done; readlink /proc/self/fd/0"
    text = read_terminal(attached(container, console, script)).decode()
    assert text.split()[:3] == ["tty0", "tty1", "tty2"]
    assert text.split()[3] in ("/dev/pts/0", "/dev/console")


@pytest.mark.needs("compiler")
def test_the_terminal_controls_the_programs_session(container: Container, console: Console) -> None:
    text = read_terminal(attached(container, console, "exec probe tty")).decode()
    assert "session 1 of 1" in text


def test_input_reaches_the_program(container: Container, console: Console) -> None:
    master = attached(container, console, "read line; echo got $line")
    os.write(master, b"words\n")
    assert b"got words" in read_terminal(master)


def test_an_interrupt_character_is_a_signal(container: Container, console: Console) -> None:
    master = attached(
        container, console, "trap 'echo int; exit' INT; echo ready; while :; do usleep 5000; done"
    )
    read_terminal(master, b"ready")
    os.write(master, b"\x03")
    assert b"int" in read_terminal(master, b"int")


def test_the_console_size_is_applied(container: Container, console: Console) -> None:
    container.process["consoleSize"] = {"height": 33, "width": 121}
    assert b"33 121" in read_terminal(attached(container, console, "stty size"))


def test_the_console_size_is_ignored_without_a_terminal(container: Container) -> None:
    container.process["consoleSize"] = {"height": 33, "width": 121}
    assert container.run("echo fine") == "fine\n"


def test_dev_console_is_the_terminal(container: Container, console: Console) -> None:
    text = read_terminal(
        attached(container, console, "echo through > /dev/console; stat -c %F /dev/console")
    )
    assert b"through" in text and b"character special file" in text


def test_dev_tty_is_the_terminal(container: Container, console: Console) -> None:
    assert b"through" in read_terminal(attached(container, console, "echo through > /dev/tty"))


def test_the_terminal_belongs_to_the_programs_user(container: Container, console: Console) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}
    text = read_terminal(
        attached(container, console, "stat -L -c 'owner %u' /dev/fd/0; echo > /dev/tty")
    )
    assert b"owner 1000" in text


def test_the_terminal_is_in_the_containers_own_devpts(
    container: Container, console: Console
) -> None:
    text = read_terminal(attached(container, console, "ls /dev/pts"))
    assert text.split() == [b"0", b"ptmx"]


def test_output_processing_is_that_of_a_usual_terminal(
    container: Container, console: Console
) -> None:
    assert read_terminal(attached(container, console, "echo a; echo b")) == b"a\r\nb\r\n"


def test_a_terminal_without_a_console_socket_is_refused(container: Container) -> None:
    interactive(container, "true")
    container.refused()


def test_a_console_socket_without_a_terminal_is_refused(
    container: Container, console: Console
) -> None:
    assert container.create("--console-socket", console.path, ok=False).stderr


def test_a_console_socket_that_nobody_listens_on_is_refused(container: Container) -> None:
    interactive(container, "true")
    path = os.path.join(container.bundle.path, "nobody.sock")
    assert container.create("--console-socket", path, ok=False).stderr


def test_exec_takes_a_console_socket(container: Container, console: Console) -> None:
    container.launch("sleep 100")
    process = {
        "terminal": True,
        "args": ["/bin/sh", "-c", "test -t 0 && echo on a terminal"],
        "cwd": "/",
        "env": ["PATH=/bin"],
        "user": {"uid": 0, "gid": 0},
    }
    container.exec_process(process, "--detach", "--console-socket", console.path)
    assert b"on a terminal" in read_terminal(console.receive())


@pytest.mark.needs("user-namespace")
def test_a_terminal_works_in_a_user_namespace(container: Container, console: Console) -> None:
    container.bundle.use_user_namespace()
    assert b"fine" in read_terminal(attached(container, console, "echo fine > /dev/tty"))


def test_a_read_only_root_has_a_terminal_too(container: Container, console: Console) -> None:
    container.config["root"]["readonly"] = True
    assert b"fine" in read_terminal(attached(container, console, "echo fine > /dev/console"))


# foreground relay ---------------------------------------------------------------------------------


def foreground(container: Container, script: str, rows: int = 24, columns: int = 80) -> Terminal:
    """Run in the foreground on a terminal of ours."""
    interactive(container, script)
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    return Terminal(command, rows, columns)


def test_run_relays_both_ways(container: Container) -> None:
    terminal = foreground(container, "echo ready; read line; echo got $line")
    terminal.expect("ready")
    terminal.send("words\n")
    terminal.expect("got words")
    assert terminal.close() == 0


def test_run_on_a_terminal_exits_with_the_programs_status(container: Container) -> None:
    terminal = foreground(container, "exit 9")
    assert terminal.close() == 9


def test_the_last_words_of_a_program_are_not_lost(container: Container) -> None:
    terminal = foreground(
        container, "i=0; while [ $i -lt 3000 ]; do echo line $i; i=$((i+1)); done"
    )
    terminal.expect("line 2999")
    assert terminal.close() == 0


def test_the_program_finds_the_size_of_the_callers_terminal(container: Container) -> None:
    """At once: nothing is to do between its start and its first look."""
    terminal = foreground(container, "stty size", rows=41, columns=133)
    terminal.expect("41 133")
    terminal.close()
    container.process["terminal"] = False
    container.launch("sleep 100")
    command = container.runtime.command("exec", "-t", container.id, "stty", "size")
    terminal = Terminal(command, 43, 137)
    terminal.expect("43 137")
    terminal.close()


def test_a_terminal_has_its_size_before_a_program_is_on_it() -> None:
    """The relay comes after the start, and may come late."""
    code = (
        "import os, pty; from anocir.host import relay; master, slave = pty.openpty(); "
        "relay.make_ready(master); print(*os.get_terminal_size(slave)); "
        "print(len(os.listdir('/proc/self/fd')), 'open')"
    )
    terminal = Terminal([sys.executable, "-c", code], 41, 133)
    assert terminal.expect("open").split() == ["133", "41", "6", "open"]
    assert terminal.close() == 0


def test_a_resize_is_passed_on(container: Container) -> None:
    terminal = foreground(
        container, "trap 'stty size; exit' WINCH; echo ready; while :; do usleep 5000; done"
    )
    terminal.expect("ready")
    terminal.resize(50, 150)
    terminal.expect("50 150")
    assert terminal.close() == 0


def test_an_interrupt_goes_to_the_program_and_not_to_the_runtime(container: Container) -> None:
    terminal = foreground(
        container, "trap 'echo int; exit 5' INT; echo ready; while :; do usleep 5000; done"
    )
    terminal.expect("ready")
    terminal.send("\x03")
    terminal.expect("int")
    assert terminal.close() == 5


def test_the_callers_terminal_is_restored_after_the_run(container: Container) -> None:
    terminal = foreground(container, "echo ready; read line")
    terminal.expect("ready")
    assert not terminal.modes()[3] & termios.ICANON, "the relay needs a raw terminal"
    terminal.send("x\n")
    drive.finish(terminal.child)
    assert terminal.modes() == terminal.initial
    terminal.close()


def test_the_callers_terminal_is_restored_when_the_runtime_is_terminated(
    container: Container,
) -> None:
    terminal = foreground(
        container, "trap 'exit 3' TERM; echo ready; while :; do usleep 5000; done"
    )
    terminal.expect("ready")
    terminal.child.send_signal(signal.SIGTERM)
    drive.finish(terminal.child)
    assert terminal.modes() == terminal.initial
    terminal.close()


def test_the_callers_terminal_is_restored_when_the_program_is_killed(container: Container) -> None:
    terminal = foreground(container, "echo ready; sleep 100")
    terminal.expect("ready")
    container.kill("KILL")
    assert drive.finish(terminal.child) == 128 + signal.SIGKILL
    assert terminal.modes() == terminal.initial
    terminal.close()


def test_exec_with_a_terminal_relays(container: Container) -> None:
    container.launch("sleep 100")
    command = container.runtime.command(
        "exec", "--tty", container.id, "/bin/sh", "-c", "test -t 1 && echo ready; read x; exit $x"
    )
    terminal = Terminal(command)
    terminal.expect("ready")
    terminal.send("6\n")
    assert terminal.close() == 6


# job control --------------------------------------------------------------------------------------


@pytest.fixture
def shell(container: Container) -> Iterator[Shell]:
    """An interactive bash on a terminal; `$RUN` is a container that reads lines."""
    interactive(container, "echo up; while read line; do echo got $line; done; echo eof")
    container.bundle.write()
    words = ("run", "--bundle", container.bundle.path, container.id)
    terminal = Terminal(["/bin/bash", "--norc", "--noprofile", "--noediting", "-i"])
    try:
        terminal.send(
            f"RUN='{shlex.join(container.runtime.command(*words))}'; PS1=; echo rea''dy\n"
        )
        terminal.expect("ready")
        yield terminal
    finally:
        container.runtime("kill", container.id, "KILL", ok=None)
        terminal.child.kill()
        terminal.close()


COOKED = termios.ECHO | termios.ICANON | termios.ISIG


def cooked(terminal: Shell) -> bool:
    """Whether the terminal is as a shell has it for its jobs."""
    return terminal.modes()[3] & COOKED == COOKED and bool(terminal.modes()[1] & termios.OPOST)


def test_a_run_in_the_background_leaves_the_terminal_to_the_shell(shell: Shell) -> None:
    shell.send("$RUN &\n")
    shell.expect("up")
    assert cooked(shell)
    # what is typed is the shell's
    shell.send("echo for ''bash\n")
    shell.expect("for bash")
    assert cooked(shell)
    # bash sends no SIGCONT to a job that runs
    shell.send("fg >/dev/null\n")
    drive.until("it has taken the terminal", lambda: not cooked(shell))
    shell.send("one\r")
    shell.expect("got one")
    # out of the foreground, as after a terminal's suspend character, and on in the background
    shell.send("two\r")
    shell.expect("got two")
    os.killpg(os.tcgetpgrp(shell.master), signal.SIGSTOP)
    shell.expect("Stopped")
    shell.send("bg >/dev/null; echo a''way\n")
    shell.expect("away")
    assert cooked(shell)
    shell.send("echo mi''ne\n")
    shell.expect("mine")
    shell.send("fg >/dev/null\n")
    drive.until("it has taken the terminal again", lambda: not cooked(shell))
    shell.send("three\r")
    shell.expect("got three")
    shell.send("\x04")
    shell.expect("eof")
    drive.until("the shell has it back", lambda: cooked(shell))
    shell.send("echo st''atus $?\n")
    shell.expect("status 0")
    assert cooked(shell)


def test_a_run_that_ends_in_the_background_leaves_the_terminal_alone(
    container: Container, shell: Shell
) -> None:
    shell.send("stty -echo; $RUN & jobs\n")
    shell.expect("up")
    container.kill("KILL")
    before = shell.modes()
    shell.send("wait %1; echo st''atus $?\n")
    shell.expect("status 137")
    assert shell.modes() == before


def test_input_from_a_pipe_is_taken_in_the_background_too(shell: Shell) -> None:
    shell.send("echo piped | $RUN &\n")
    shell.expect("got piped")
    assert cooked(shell)


def test_the_program_gets_a_terminal_of_its_own_and_not_the_callers(container: Container) -> None:
    terminal = foreground(
        container, "stat -L -c 'device %t:%T inode %d' /dev/fd/0; readlink /proc/self/fd/0"
    )
    text = terminal.expect("/dev/")
    number = os.fstat(terminal.slave)
    assert stat.S_ISCHR(number.st_mode)
    assert f"inode {number.st_dev}" not in text
    terminal.close()
