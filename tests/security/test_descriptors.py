"""T-FD: descriptors that lead out of the container, and working directories through them (CVE-2024-21626)."""

from __future__ import annotations

import os

import pytest

from tests import drive
from tests.security.conftest import Arena

UP = "../" * 12
NAIVE_CHDIR = """
from anocir.linux import entries

def chdir(context, path, as_user):
    if not as_user:
        entries.chdir(path)
"""
NO_CHECK_OF_CWD = "def make_cwd(context, path):\n    return\n"
LEAKED_DIRECTORY = """
def _close_foreign(first, *kept):
    files.open("/sys/fs", files.O_PATH | files.O_DIRECTORY)
"""


def canary(arena: Arena) -> str:
    path = os.path.join(arena.directory(), "canary")
    with open(path, "w") as file:
        file.write("host canary\n")
    return path


def escapes_by_working_directory(
    arena: Arena, numbers: range = range(3, 16), **modules: str
) -> list[int]:
    """Start in /proc/self/fd/N for each N and read a file of the host from there; the N that worked."""
    runtime = arena.altered(**modules) if modules else None
    host = canary(arena)
    container = arena.container(runtime)
    found = []
    for number in numbers:
        container.process["cwd"] = f"/proc/self/fd/{number}"
        container.process["args"] = ["/bin/cat", UP + host.lstrip("/")]
        result = container.make("run", ok=None)
        if "host canary" in result.stdout:
            found.append(number)
    return found


def test_no_descriptor_is_a_working_directory_outside(arena: Arena) -> None:
    """T-FD1, CVE-2024-21626: descriptors that the runtime itself has open."""
    assert escapes_by_working_directory(arena) == []


def test_control_with_a_leak_and_a_naive_chdir_one_is(arena: Arena) -> None:
    found = escapes_by_working_directory(
        arena,
        range(3, 10),
        inside__program=NAIVE_CHDIR,
        inside__root=NO_CHECK_OF_CWD,
        inside__init=LEAKED_DIRECTORY,
    )
    assert found


@pytest.mark.parametrize("module", ["inside__program", "inside__init"])
def test_either_defence_is_enough(arena: Arena, module: str) -> None:
    """T-FD1: a leak without the naive chdir, and the naive chdir without a leak, do no harm."""
    code = NAIVE_CHDIR if module == "inside__program" else LEAKED_DIRECTORY
    assert escapes_by_working_directory(arena, range(3, 8), **{module: code}) == []


def escapes_by_the_callers_leak(arena: Arena, runtime: drive.Runtime | None) -> list[str]:
    """Leak descriptor 9 of the host's root into every call; the ways in which it could be used."""
    host = canary(arena)
    leaky = arena.called_by("exec 9</", runtime)
    found = []
    container = arena.container(leaky)
    container.process["cwd"] = "/proc/self/fd/9"
    container.process["args"] = ["/bin/cat", host.lstrip("/")]
    if "host canary" in container.make("run", ok=None).stdout:
        found.append("cwd")
    container = arena.container(leaky)
    busybox = os.path.join(arena.defender.template.directory, "bin/busybox")
    container.process["args"] = ["/proc/self/fd/9" + busybox, "echo", "host program"]
    if "host program" in container.make("run", ok=None).stdout:
        found.append("args")
    container = arena.container(leaky)
    container.launch("sleep 100")
    options = ["--cwd", "/proc/self/fd/9"]
    result = container.exec("/bin/cat", host.lstrip("/"), ok=None, options=options)
    if "host canary" in result.stdout:
        found.append("exec --cwd")
    return found


def test_a_descriptor_that_the_caller_leaks_is_closed(arena: Arena) -> None:
    """T-FD2, CVE-2024-21626: by cwd, by the program's path and by exec --cwd."""
    assert escapes_by_the_callers_leak(arena, None) == []


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_lets_the_callers_descriptor_in(arena: Arena) -> None:
    assert escapes_by_the_callers_leak(arena, arena.installed("crun")) == [
        "cwd",
        "args",
        "exec --cwd",
    ]


def test_control_without_closing_it_the_program_of_the_host_runs(arena: Arena) -> None:
    runtime = arena.altered(
        inside__init="def _close_foreign(first, *kept):\n    return\n",
        inside__root=NO_CHECK_OF_CWD,
        inside__program=NAIVE_CHDIR + "def close_descriptors(context):\n    return\n",
    )
    # Who prepares exec is not in the container's pid namespace: its procfs has no /proc/self for it.
    assert escapes_by_the_callers_leak(arena, runtime) == ["cwd", "args"]


HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
LIST = "for fd in /proc/self/fd/*; do echo ${fd##*/}; done"


def extra_descriptors(arena: Arena, preserve: int = 0, **modules: str) -> dict[str, list[int]]:
    """The descriptors from 3 up that run, exec and each hook have, with two that the caller leaks."""
    runtime = arena.called_by("exec 3</ 9</", arena.altered(**modules) if modules else None)
    container = arena.container(runtime)
    files = {}
    for name in HOOKS:
        path = files[name] = container.bundle.outside(name + ".fds", "")
        if name == "startContainer":
            path = "/tmp/hook.fds"
            files[name] = os.path.join(container.bundle.rootfs, "tmp/hook.fds")
        # The file is opened only after the list was made.
        container.bundle.hook(name, f"list=$({LIST}); echo $list > {path}")
    options = ["--preserve-fds", str(preserve)] if preserve else []
    found = {}
    container.process["args"] = ["/bin/sh", "-c", "/bin/probe fds > /tmp/fds; sleep 100"]
    container.create(*options)
    container.start()
    found["program"] = _numbers(container.wait_file("/tmp/fds"))
    found["exec"] = _numbers(container.exec("/bin/probe", "fds", options=options).stdout)
    container.delete("--force")
    for name, path in files.items():
        with open(path) as file:
            found[name] = [number for number in map(int, file.read().split()) if number > 2]
    return found


def _numbers(text: str) -> list[int]:
    return [int(line.split()[0]) for line in text.splitlines() if int(line.split()[0]) > 2]


def test_programs_and_hooks_have_three_descriptors(arena: Arena) -> None:
    """T-FD3: 0 to 2 and nothing else, whatever the caller leaks."""
    found = extra_descriptors(arena)
    shell = {name: fds for name, fds in found.items() if name in HOOKS}
    assert found["program"] == found["exec"] == []
    # What the shell needs for its own list is the lowest free number.
    assert all(fds == [3] for fds in shell.values()), shell


def test_only_preserved_descriptors_are_passed_on(arena: Arena) -> None:
    """T-FD3: --preserve-fds 1 gives the program, and only it, descriptor 3."""
    found = extra_descriptors(arena, preserve=1)
    assert found["program"] == found["exec"] == [3]


def test_control_without_closing_they_have_more(arena: Arena) -> None:
    found = extra_descriptors(
        arena,
        inside__init="def _close_foreign(first, *kept):\n    return\n",
        inside__program="def close_descriptors(context):\n    return\n",
        linux__oneself="def close_on_exec(first):\n    return\n",
    )
    assert 9 in found["program"] and 9 in found["exec"] and 9 in found["prestart"], found


def descriptors_of_init(arena: Arena, **modules: str) -> list[str]:
    """What a created init holds and should not: anything but 0 to 2, what it waits on, what closes in execve."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.create()
    pid = container.pid
    wrong = []
    line = [
        os.path.join(container.runtime.root, container.id, name)
        for name in ("start.fifo", "report.fifo")
    ]
    for name in sorted(os.listdir(f"/proc/{pid}/fd"), key=int):
        if int(name) < 3:
            continue
        try:
            target = os.readlink(f"/proc/{pid}/fd/{name}")
            with open(f"/proc/{pid}/fdinfo/{name}") as file:
                flags = int(dict(line.split(":", 1) for line in file)["flags"], 8)
        except FileNotFoundError:
            continue  # create is told that all is well before init closes the channel to it
        if not flags & os.O_CLOEXEC:
            wrong.append(f"{name} {target} survives execve")
        # What tells it of signals gives nobody else's away: signalfd(2) reads those of its reader.
        allowed = [*line, "anon_inode:[signalfd]"]
        if not target.startswith("socket:") and target not in allowed:
            wrong.append(f"{name} {target}")
    return wrong


def test_a_created_init_holds_nothing_of_the_host(arena: Arena) -> None:
    """T-FD4: only the two FIFOs, one it reads and one it writes, and what tells of signals."""
    assert descriptors_of_init(arena) == []


# What is closed before the filter is loaded stays open.
UNCLOSED = """
_close_range = oneself.close_range
_close_as_it_is = close_descriptors
def close_descriptors(context):
    oneself.close_range = lambda first, last: None
    _close_as_it_is(context)
    oneself.close_range = _close_range
"""


def test_control_a_leak_of_the_runtime_is_seen(arena: Arena) -> None:
    assert descriptors_of_init(arena, inside__init=LEAKED_DIRECTORY, inside__program=UNCLOSED)


SUBSETS = [(0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)]


def run_with_closed(arena: Arena, closed: tuple[int, ...], **modules: str) -> list[str]:
    """Call create, exec and run with standard descriptors closed; what the programs have then."""
    runtime = arena.altered(**modules) if modules else None
    # Above 2, so that the shell can still say it.
    shell = " ".join(f"{fd}<&-" for fd in closed)
    texts = []
    for verb in ("create", "run", "exec"):
        container = arena.container(runtime)
        container.process["args"] = ["/bin/sh", "-c", "/bin/probe fds > /tmp/fds; sleep 100"]
        container.bundle.write()
        if verb == "run":
            container.process["args"][2] = "/bin/probe fds > /tmp/fds"
            container.bundle.write()
        bundle = ["--bundle", container.bundle.path, container.id]
        if verb == "exec":
            container.process["args"] = ["/bin/sleep", "100"]
            container.launch()
            words = [container.id, "/bin/sh", "-c", "/bin/probe fds > /tmp/fds"]
        else:
            words = bundle
        command = container.runtime.command(verb, *words)
        done = drive.call(["/bin/sh", "-c", f'exec "$@" {shell}', "sh", *command], ok=None)
        if done.status:
            texts.append(f"{verb}: {done.stderr}")
            continue
        if verb == "create":
            container.start()
        texts.append(container.wait_file("/tmp/fds"))
    return texts


@pytest.mark.parametrize("closed", SUBSETS, ids=lambda row: "".join(map(str, row)))
def test_a_closed_standard_descriptor_is_the_null_device(
    arena: Arena, closed: tuple[int, ...]
) -> None:
    """T-PY11: never the first file that the runtime happened to open."""
    for text in run_with_closed(arena, closed):
        rows = dict(line.split(maxsplit=1) for line in text.splitlines())
        assert set(rows) == {"0", "1", "2"}, text
        # The program itself redirects 1 to its file.
        assert all(rows[str(fd)] == "/dev/null" for fd in closed if fd != 1), text


def test_control_unfilled_descriptors_are_taken_by_files_of_the_runtime(arena: Arena) -> None:
    empty = "def _fill_standard_descriptors():\n    return\n"
    texts = run_with_closed(arena, (0, 2), __main__=empty)
    assert any("0 /dev/null" not in text or "2 /dev/null" not in text for text in texts), texts
