"""--trace: every call is written, decoded, with what it was made for; without it nothing is there."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import posix
import pytest

from anocir import errors
from anocir.linux import const, entries, files, inodes, mounts, oneself, tasks, trace
from tests import drive, machine
from tests.kernel import child

pytestmark = pytest.mark.kernel

LINE = re.compile(r"^(\d+) (\S+) (\S+) (\S+)\((.*)\) = (.+) <(\d+\.\d{6})>$")


def traced(tmp_path: Path, action, flags: int = 0) -> list[tuple[str, ...]]:
    """Run with a trace and return its lines: (phase, JSON path, call, arguments, result)."""
    path = tmp_path / "trace"

    def run() -> int:
        trace.open(str(path))
        action()
        return os.getpid()

    pid = child.run(run, flags)
    rows = []
    for line in path.read_text().splitlines():
        if line[:1] == "#":
            continue  # the summary
        match = LINE.match(line)
        assert match, line
        assert match[1] == str(pid)
        rows.append(tuple(match.group(2, 3, 4, 5, 6)))
    return rows


def attempt(call, *args, **kwargs) -> None:
    try:
        call(*args, **kwargs)
    except OSError:
        pass


def test_a_line_has_phase_path_call_result_and_time(tmp_path) -> None:
    def action() -> None:
        errors.scope[:] = ["setup", "filesystem", "mounts[0]"]
        files.close(files.open("/etc/passwd", files.O_RDONLY))
        errors.scope[:] = ["", "", ""]
        attempt(files.open, "/missing/x", files.O_WRONLY | files.O_CREAT, 0o640)
        attempt(entries.mkdir, "/etc", 0o755)

    rows = traced(tmp_path, action)
    assert rows[0][:4] == ("setup/filesystem", "mounts[0]", "openat", '"/etc/passwd", 0')
    assert rows[1] == ("setup/filesystem", "mounts[0]", "close", rows[0][4], "0")
    assert int(rows[0][4]) > 2
    assert rows[2][3] in (
        '"/missing/x", O_CREAT|O_WRONLY, 0o640',
        '"/missing/x", O_WRONLY|O_CREAT, 0o640',
    )
    assert rows[2][:3] == ("host", "-", "openat") and rows[2][4].startswith("-1 ENOENT")
    assert rows[3] == ("host", "-", "mkdirat", '"/etc", 0o755', "-1 EEXIST (file exists)")


def test_as_json_a_line_is_an_object_with_the_same_parts(tmp_path, monkeypatch) -> None:
    path = tmp_path / "trace"
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    monkeypatch.setenv("TRACEPARENT", parent)
    monkeypatch.setattr(trace.posix, "environ", {b"TRACEPARENT": parent.encode()})

    def action() -> int:
        trace.open(str(path), "json")
        errors.scope[:] = ["setup", "filesystem", 'annotations["a\\"b"]']
        attempt(files.open, "/missing/\u00e9\x07", files.O_RDONLY)
        trace.summary()
        return os.getpid()

    pid = child.run(action)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0].pop("seconds") >= 0
    assert rows[0] == {
        "pid": pid, "phase": "setup", "step": "filesystem", "path": 'annotations["a\\"b"]',
        "call": "openat", "args": ['"/missing/\u00e9\\x07"', "0"],
        "result": "-1 ENOENT (no such file or directory)",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }  # fmt: skip
    assert rows[1]["summary"] == "setup" and rows[1]["calls"] == 1
    assert rows[1]["ms"] >= rows[1]["ms_in_calls"] >= 0


@pytest.mark.parametrize(
    "value", ["", "00", "00-xyz-b7ad6b7169203331-01", f"00-{'0' * 32}-b7ad6b7169203331-01"]
)
def test_a_trace_parent_that_is_none_gives_no_id(monkeypatch, value: str) -> None:
    monkeypatch.setattr(trace.posix, "environ", {b"TRACEPARENT": value.encode()})
    assert trace.trace_id() == ""


def test_the_summary_says_where_the_time_went_once(tmp_path) -> None:
    path = tmp_path / "trace"

    def action() -> None:
        trace.open(str(path))
        for phase in ("prepare", "setup"):
            errors.scope[:] = [phase, "", ""]
            for _ in range(3):
                files.stat("/etc")
        attempt(oneself.execve, b"/no/such/file", *[oneself.strings([])[0]] * 2)
        attempt(oneself.execve, b"/nor/this", *[oneself.strings([])[0]] * 2)

    child.run(action)
    rows = [line for line in path.read_text().splitlines() if line[:1] == "#"]
    assert [
        re.sub(r"[\d.]+ ms", "N ms", line.partition(" ")[2].partition(" ")[2]) for line in rows
    ] == [
        "prepare: 3 calls, N ms in them, N ms in all",
        "setup: 3 calls, N ms in them, N ms in all",
    ]


@pytest.mark.needs("root")
def test_flags_of_mounts_and_namespaces_are_names(tmp_path) -> None:
    place = tmp_path / "place"
    place.mkdir()

    def action() -> None:
        fs_fd = mounts.fsopen("tmpfs")
        mounts.fsconfig_string(fs_fd, "size", "64k")
        mounts.fsconfig_create(fs_fd)
        fd = mounts.fsmount(fs_fd, const.MOUNT_ATTR_NOSUID | const.MOUNT_ATTR_NODEV)
        target = os.open(place, os.O_PATH)
        mounts.move_mount(fd, target)
        mounts.mount("x", str(place), "tmpfs", const.MS_NOSUID | const.MS_RDONLY, "mode=700")
        attempt(inodes.openat2, target, "a/../b", files.O_PATH,
                const.RESOLVE_IN_ROOT | const.RESOLVE_NO_MAGICLINKS)  # fmt: skip
        tasks.unshare(const.CLONE_NEWUTS | const.CLONE_NEWIPC)
        tasks.prctl(const.PR_SET_NO_NEW_PRIVS, 1)

    rows = {row[2]: row for row in traced(tmp_path, action, machine.CLONE_NEWNS)}
    assert rows["fsopen"][3] == '"tmpfs"'
    assert rows["fsconfig"][3].endswith('"size", "64k"')
    assert set(rows["fsmount"][3].split(", ")[1].split("|")) == {
        "MOUNT_ATTR_NOSUID",
        "MOUNT_ATTR_NODEV",
    }
    assert rows["mount"][3].startswith(f'"x", "{place}", "tmpfs", ')
    assert set(rows["mount"][3].split(", ")[3].split("|")) == {"MS_NOSUID", "MS_RDONLY"}
    assert rows["openat2"][4] == "-1 ENOENT (no such file or directory)"
    assert {"RESOLVE_IN_ROOT", "RESOLVE_NO_MAGICLINKS"} == set(
        rows["openat2"][3].split(", ")[3].split("|")
    )
    assert set(rows["unshare"][3].split("|")) == {"CLONE_NEWUTS", "CLONE_NEWIPC"}
    assert rows["prctl"][3].startswith("PR_SET_NO_NEW_PRIVS, 1")


def test_strings_cannot_break_a_line(tmp_path) -> None:
    nasty = 'a"b\n) = 0 <0.0>\x1b[31m\\'
    rows = traced(tmp_path, lambda: (attempt(files.stat, nasty), attempt(files.stat, b"\xff\n")))
    assert rows[0][3] == '"a\\"b\\n) = 0 <0.0>\\x1b[31m\\\\"'
    assert rows[1][3] == '"\\\\xff\\n"'


def test_long_data_is_cut(tmp_path) -> None:
    def action() -> None:
        for path in ("/proc/self/comm", "/dev/null"):
            fd = os.open(path, os.O_WRONLY)
            files.write(fd, b"y" * 4000)

    rows = traced(tmp_path, action)
    assert [row[2] for row in rows[:2]] == ["write", "write"]
    assert rows[0][3].endswith('yyy..."') and len(rows[0][3]) < 250
    # What goes elsewhere than to the kernel's own files may be a secret.
    assert rows[1][3].endswith(", <4000 bytes>")


def test_calls_that_come_back_twice_or_never_are_written_before(tmp_path) -> None:
    path = tmp_path / "trace"

    def action() -> None:
        trace.open(str(path))
        pid = tasks.clone()
        if pid == 0:
            argv, kept = oneself.strings(["true"])
            envp, more = oneself.strings([])
            oneself.execve(b"/bin/true", argv, envp)
            assert kept and more
        os.waitpid(pid, 0)

    child.run(action)
    rows = [LINE.match(line) for line in path.read_text().splitlines() if line[:1] != "#"]
    found = [(row[4], row[6]) for row in rows]
    assert found[0] == ("clone", "...") and found.count(("clone", "0")) == 1
    assert found[-1] == ("execve", "...") or ("execve", "...") in found
    assert {row[1] for row in rows} >= {rows[0][1]} and len({row[1] for row in rows}) == 2


def test_the_trace_is_appended_and_private(tmp_path) -> None:
    path = tmp_path / "trace"
    path.write_text("before\n")

    def action() -> None:
        trace.open(str(path))
        files.stat("/")

    child.run(action)
    assert path.read_text().startswith("before\n") and path.read_text().count("\n") == 2
    path.unlink()
    child.run(action)
    assert path.stat().st_mode & 0o777 == 0o600


def test_fd_is_high_and_not_inherited_and_moves(tmp_path) -> None:
    def action():
        trace.open(str(tmp_path / "trace"))
        first = trace.fd(), os.get_inheritable(trace.fd())
        other = child.free_descriptors()
        trace.move(other)
        files.stat("/")
        return first, trace.fd() == other, os.get_inheritable(other)

    (number, inheritable), moved, again = child.run(action)
    assert number >= 100 and not inheritable and moved and not again
    assert (tmp_path / "trace").read_text().count("stat(") == 1


def test_attach_writes_into_an_open_file() -> None:
    def action() -> str:
        read_end, write_end = os.pipe()
        trace.attach(write_end)
        files.stat("/")
        return os.read(read_end, 1000).decode()

    assert " stat(" in child.run(action)


def test_a_trace_that_cannot_be_written_is_an_error() -> None:
    def action() -> None:
        trace.attach(os.open("/dev/full", os.O_WRONLY))
        files.stat("/")

    with pytest.raises(errors.Error, match="--trace: write: no space left on device"):
        child.run(action)


def test_a_process_that_closes_it_writes_no_more(tmp_path) -> None:
    """A child that keeps no descriptor of ours goes on, and writes into nobody else's file."""

    def action() -> None:
        trace.open(str(tmp_path / "trace"))
        first = trace.fd()
        oneself.close_range(first - 1, first + 10)
        other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
        for fd in range(first - 1, first + 11):
            os.dup2(other, fd)
        files.stat("/")
        trace.summary()

    child.run(action)
    text = (tmp_path / "trace").read_text()
    assert "close_range(" in text and " stat(" not in text
    assert (tmp_path / "other").read_text() == ""


def test_without_it_the_module_is_not_there() -> None:
    code = (
        "import sys\nfrom anocir.host import create, states\nfrom anocir.inside import init\n"
        "print('anocir.linux.trace' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=drive.REPOSITORY,
    )
    assert done.stdout == "False\n"


# What makes no system call, or makes one through another function that is traced.
NOT_CALLS = {
    "files": {
        "encode", "decode", "write_all", "read_fd", "read_file", "write_file", "device", "kind",
        "makedev", "exists", "missing",
    },
    "mounts": {"fsconfig_options", "has_detached"},
    "oneself": {"strings"},
    "processes": {
        "alive", "directory", "exit_code", "hold", "hold_child", "id_map", "in_user_namespace", "is_pidfd",
        "stat",
    },
    "bpf": {"names", "replace_device_program"},
    "capabilities": {"mask", "masks", "names"},
    "ffi": {"address", "encode", "function", "library", "syscall", "view"},  # declares calls
    "notifications": {"let_go"},
    "spawn": {"exit_code"},
    "terminals": {"control", "foreground", "size", "set_size"},
    "watch": {"has_pidfd_getfd", "is_pidfd", "pidfd", "send_signal"},
}  # fmt: skip
# Calls that change nothing and whose answer shows in what is done next.
_QUIET = {
    "files": {"fstatvfs", "isatty", "set_inheritable"},
    "entries": {"getcwd"},
    "descriptors": {"funlock"},
    "watch": {"runs"},  # for a process that has closed the trace
}
MODULES = sorted(
    path.stem
    for path in Path(trace.__file__).parent.glob("*.py")
    if path.stem not in ("__init__", "trace")
)


def public(module) -> set[str]:
    return {name for name, value in vars(module).items() if name[0] != "_" and (
            (inspect.isfunction(value) and value.__module__ == module.__name__)
            # the interpreter's own: `close: Final = posix.close`
            or (inspect.isbuiltin(value) and value is getattr(posix, name, None)))}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
def test_the_table_names_functions_that_exist_and_all_calls(name: str) -> None:
    module = importlib.import_module(f"anocir.linux.{name}")
    table = set(trace._DECODE.get(module, ()))
    assert table <= public(module), "the table names what is not there"
    missing = public(module) - table - NOT_CALLS.get(name, set()) - _QUIET.get(name, set())
    assert not missing, (
        f"these calls of anocir/linux/{name}.py do not show in a trace: give each a row in "
        "trace._DECODE"
    )
