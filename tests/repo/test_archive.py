"""The archive: how it starts, what it prints, and that it can be built again."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from anocir.base import archive as head
from tests import drive
from tests.repo.conftest import commit

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo


def call(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, text=True, timeout=drive.TIMEOUT, **options)  # type: ignore[call-overload,no-any-return]


def test_two_builds_are_equal_byte_for_byte(archive: str, built_from: str) -> None:
    # That of the fixture has taken from dist/anocir what is compiled, this one takes nothing.
    words = ["--check", "--output", archive]
    while True:
        before = commit()
        if before != built_from:  # a commit between the two builds is a name in the second
            del words[1:]
        result = call(sys.executable, str(TOP / "build.py"), *words)
        if commit() == before:
            break
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("reproducible: ")


def test_an_archive_of_other_sources_is_noticed(archive: str, tmp_path: Path) -> None:
    """By content, so a copy with times of today is none of other sources."""
    assert drive.stale(archive) == ""
    shutil.copytree(
        TOP / "anocir", tmp_path / "anocir", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copyfile(TOP / "build.py", tmp_path / "build.py")
    assert drive.stale(archive, str(tmp_path)) == ""
    for name in ("anocir/model/plan.py", "build.py"):
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text.replace("sys.exit", "sys.quit").replace("plan", "plans"))
        assert drive.stale(archive, str(tmp_path)) == name
        path.write_text(text)
    (tmp_path / "anocir/host/uptime.py").touch()
    assert drive.stale(archive, str(tmp_path)) == "anocir/host/uptime.py"
    (tmp_path / "anocir/host/uptime.py").unlink()
    (tmp_path / "anocir/cli.py").unlink()
    assert drive.stale(archive, str(tmp_path)) == "anocir/cli.py"


def test_the_first_line_fits_an_old_kernel(archive: str) -> None:
    with open(archive, "rb") as file:
        line = file.readline().rstrip(b"\n")
    assert line.startswith(b"#!/usr/bin/python3 -I")
    assert len(line) <= 127


def test_every_source_is_in_the_zip_and_in_each_block(archive: str) -> None:
    with zipfile.ZipFile(archive) as file:
        assert file.testzip() is None
        names = set(file.namelist())
        assert all(entry.compress_type == zipfile.ZIP_STORED for entry in file.infolist())
    sources = {name for name in names if name.startswith("site-packages/") and name.endswith(".py")}
    assert not [
        name for name in names if "_bootstrap" in name or "/tests/" in name or name[-4:] == ".pyc"
    ]
    package = {f"site-packages/{path.relative_to(TOP)}" for path in TOP.glob("anocir/**/*.py")}
    assert package <= sources, f"build.py has left out {package - sources}"
    blocks = head.parse(Path(archive).read_bytes()).blocks
    assert blocks, "build.py has compiled no block"
    for block in blocks:
        assert set(block.modules()) == {
            head.module_name(name.partition("/")[2])[0] for name in sources
        }
    assert sources - package == {"site-packages/anocir/build_id.py"}, (
        "more than the package is packed"
    )
    assert "site-packages/anocir/LICENSE" in names


def test_version_is_what_engines_parse(archive: str) -> None:
    result = call(archive, "--version")
    lines = result.stdout.splitlines()
    assert re.fullmatch(r"anocir version \d+\.\d+\.\d+\S*", lines[0])
    assert re.fullmatch(r"commit: \S+", lines[1])
    assert lines[2] == "spec: 1.3.0"
    assert (result.returncode, result.stderr) == (0, "")
    assert call(archive, "-v").stdout == result.stdout


def test_an_archive_that_is_cut_off_says_so_in_one_line(archive: str, tmp_path: Path) -> None:
    """As with no memory and no descriptors, which tests/reliability injects here."""
    cut = tmp_path / "anocir"
    for size in (2000, 20000, 200000):
        cut.write_bytes(Path(archive).read_bytes()[:size])
        cut.chmod(0o755)
        result = call(str(cut), "create", "x")
        assert (result.returncode, result.stdout) == (1, "")
        assert re.fullmatch(r"anocir: cannot load itself: .+\n", result.stderr), result.stderr


def test_it_runs_from_anywhere(archive: str, tmp_path: Path) -> None:
    expected = call(archive, "--version").stdout
    link = tmp_path / "link"
    link.symlink_to(archive)
    directory = os.path.dirname(archive)
    assert call(str(link), "--version").stdout == expected
    assert call("./anocir", "--version", cwd=directory).stdout == expected
    assert call("../link", "--version", cwd=make(tmp_path / "x")).stdout == expected
    assert call("anocir", "--version", env={"PATH": directory}).stdout == expected
    assert call(archive, "--version", env={}, cwd="/").stdout == expected
    assert call("/usr/bin/python3", archive, "--version").stdout == expected
    assert call("/usr/bin/python3", "anocir", "--version", cwd=directory).stdout == expected


def make(path: Path) -> str:
    path.mkdir()
    return str(path)


def test_a_relative_path_of_the_archive_survives_a_change_of_directory(archive: str) -> None:
    code = (
        "import sys;sys.path[:0]=sys.argv[1]+'/site-packages',;import anocir.__main__ as m,posix;"
        "p=m._import_path();posix.chdir('/');import anocir.commands.spec;print(p)"
    )
    where, name = os.path.split(archive)
    result = call("/usr/bin/python3", "-IBSc", code, name, cwd=where)
    assert result.stdout == f"{archive}/site-packages\n", result.stderr


def test_a_modified_environment_of_python_is_ignored(archive: str, tmp_path: Path) -> None:
    for name in ("anocir", "posix", "sitecustomize", "usercustomize", "time"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('poisoned')\n")
    poison = str(tmp_path)
    environment = {
        "HOME": poison, "PYTHONPATH": poison, "PYTHONHOME": poison, "PYTHONSTARTUP": f"{poison}/time.py",
        "PYTHONINSPECT": "1", "PYTHONVERBOSE": "1", "PYTHONIOENCODING": "bogus", "PYTHONWARNINGS": "error",
        "SHIV_ENTRY_POINT": "time:sleep", "SHIV_ROOT": poison, "SHIV_INTERPRETER": "1",
    }  # fmt: skip
    result = call(archive, "--version", env=environment, cwd=poison)
    assert (result.returncode, result.stderr) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "anocir.py", "posix.py", "sitecustomize.py", "time.py", "usercustomize.py",
    ]  # fmt: skip


def test_an_error_is_one_line_on_stderr(archive: str) -> None:
    result = call(archive, "state", "a/b")
    assert result.returncode == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[0] == 'anocir: invalid container ID format: "a/b"'
    assert "Traceback" not in result.stderr


def test_an_error_is_one_object_in_the_log(archive: str, tmp_path: Path) -> None:
    log = tmp_path / "log.json"
    for count in (1, 2):
        result = call(archive, "--log", str(log), "--log-format", "json", "state", "a/b")
        lines = log.read_text().splitlines()
        assert len(lines) == count
    entry = json.loads(lines[-1])
    assert list(entry) == ["level", "msg", "time", "code", "hint"]
    assert entry["code"] == "usage"
    assert entry["level"] == "error"
    assert entry["msg"].startswith('invalid container ID format: "a/b"')
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", entry["time"])
    assert result.stderr.startswith("anocir: invalid container ID format")
    assert (log.stat().st_mode & 0o777) == 0o644 & ~umask()


def umask() -> int:
    value = os.umask(0o022)
    os.umask(value)
    return value


def test_the_text_log_is_one_line_too(archive: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    call(archive, "--log", str(log), "state", "a\nb\udcff")
    text = log.read_text()
    assert re.fullmatch(r'time="\S+" level=error msg="invalid container ID format: .*"\n', text)


def test_a_json_log_without_a_file_is_one_object_on_stderr(archive: str) -> None:
    result = call(archive, "--log-format=json", "state", "a/b")
    assert json.loads(result.stderr)["level"] == "error"


def test_a_log_that_cannot_be_opened_is_reported(archive: str) -> None:
    result = call(archive, "--log", "/nonexistent-here/log", "list")
    assert result.returncode == 1
    assert result.stderr == "anocir: --log: /nonexistent-here/log: no such file or directory\n"


def test_exit_statuses(archive: str) -> None:
    assert call(archive).returncode == 0
    assert call(archive, "--help").returncode == 0
    assert call(archive, "create", "--help").returncode == 0
    assert call(archive, "frobnicate").returncode == 3
    assert call(archive, "state").returncode == 1
    assert call(archive, "exec", "a/b", "true").returncode == 255
    assert call(archive, "exec", "--bogus").returncode == 1
    assert call(archive, "init").returncode == 1
    for command in ("checkpoint", "restore"):
        result = call("/usr/bin/env", "PATH=/nowhere", archive, command, "--help")
        assert result.returncode == 1
        assert "criu is not installed" in result.stderr


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_standard_streams_do_no_harm(archive: str, closed: tuple[int, ...]) -> None:
    redirections = " ".join(f"{fd}{'<' if fd == 0 else '>'}&-" for fd in closed)
    result = call("/bin/sh", "-c", f'"$0" --version {redirections}', archive)
    assert (result.returncode, result.stderr) == (0, "")


def test_a_full_stdout_is_an_error(archive: str) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [archive, "--version"], check=False, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert result.returncode == 1
    assert result.stderr == "anocir: writing to stdout: no space left on device\n"


def test_arguments_that_are_not_utf8_arrive(archive: str) -> None:
    for locale in ("C", "C.UTF-8", "de_DE.ISO-8859-1"):
        result = subprocess.run(
            [archive.encode(), b"state", b"\xff"], check=False, capture_output=True,
            env={"LC_ALL": locale, "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert result.stderr.startswith(b'anocir: invalid container ID format: "\\xff"')


def test_a_number_of_descriptors_is_not_negative(archive: str) -> None:
    result = call(archive, "create", "--preserve-fds", "-1", "abc")
    assert result.returncode == 1
    assert "--preserve-fds: must not be negative, got -1" in result.stderr


def test_spec_writes_a_configuration_and_never_replaces_one(archive: str, tmp_path: Path) -> None:
    assert call(archive, "spec", cwd=str(tmp_path)).returncode == 0
    before = (tmp_path / "config.json").read_text()
    assert json.loads(before)["ociVersion"] == "1.3.0"
    again = call(archive, "spec", "--bundle", str(tmp_path))
    assert again.returncode == 1
    assert "file exists" in again.stderr
    assert (tmp_path / "config.json").read_text() == before
    (tmp_path / "config.json").unlink()
    assert call(archive, "spec", "-b", str(tmp_path), "--rootless").returncode == 0
    linux = json.loads((tmp_path / "config.json").read_text())["linux"]
    assert {"type": "user"} in linux["namespaces"]
    assert linux["uidMappings"][0]["size"] == 1


@pytest.mark.parametrize("rootless", [False, True])
def test_the_configuration_of_spec_passes_our_own_check(rootless: bool) -> None:
    from anocir.model.spec import whole
    from anocir.commands import spec as command

    whole.check(command.template(rootless))


def test_features_has_every_part_of_the_specification(archive: str) -> None:
    document = json.loads(call(archive, "features").stdout)
    assert document["ociVersionMin"] == "1.0.0"
    assert document["hooks"] == [
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    ]  # fmt: skip
    assert {"ro", "rbind", "rro", "rprivate", "tmpcopyup"} <= set(document["mountOptions"])
    linux = document["linux"]
    assert set(linux) == {
        "namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "intelRdt",
        "memoryPolicy", "mountExtensions", "netDevices",
    }  # fmt: skip
    assert len(linux["capabilities"]) == 41
    assert len(linux["namespaces"]) == 8
    assert ("idmap" in document["mountOptions"]) == linux["mountExtensions"]["idmap"]["enabled"]


def test_version_and_features_touch_no_state(archive: str, tmp_path: Path) -> None:
    root = tmp_path / "state"
    for command in ("--version", "features", "--help"):
        assert call(archive, "--root", str(root), command, env={}).returncode == 0
    assert not root.exists()


def test_install_puts_one_executable_file(tmp_path: Path) -> None:
    if not shutil.which("make"):
        pytest.skip("no make")
    result = call("make", "-C", str(TOP), "-n", "install", f"DESTDIR={tmp_path}", "PREFIX=/opt")
    assert f"install -D -m 755 dist/anocir {tmp_path}/opt/bin/anocir" in result.stdout


def build_module():
    spec = importlib.util.spec_from_file_location("build_script", TOP / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_release_is_the_same_bytes_twice_and_has_its_sums(archive: str, monkeypatch) -> None:
    """Of one archive: that two builds of it are equal is tested above."""
    build = build_module()
    monkeypatch.chdir(TOP)
    notes = build.release_notes()
    first = build.release(Path(archive), notes)
    assert first == build.release(Path(archive), notes)
    assert set(first) == {
        "anocir", "anocir.8", "anocir.bash", "_anocir", "anocir.fish", "CHANGES.md", "LICENSE", "SHA256SUMS",
    }  # fmt: skip
    sums = dict(line.split("  ")[::-1] for line in first.pop("SHA256SUMS").decode().splitlines())
    assert sums == {name: hashlib.sha256(data).hexdigest() for name, data in first.items()}
    assert notes.startswith(f"## {build.VERSION} - ") and "\n## " not in notes[3:]
    day = notes.split("\n")[0].split(" - ")[1]
    assert f'.TH ANOCIR 8 "{day}" "anocir {build.VERSION}"' in first["anocir.8"].decode()
    with pytest.raises(SystemExit, match="no section"):
        build.release_notes("# Changelog\n\n## Unreleased\n")


def test_what_is_built_is_installed_as_it_is_and_removed_again(archive: str, tmp_path) -> None:
    words = ("make", "-C", str(TOP), f"DESTDIR={tmp_path}", "PREFIX=/usr")
    before = os.stat(archive).st_mtime_ns
    made = call(*words, "install")
    assert made.returncode == 0, made.stderr
    assert os.stat(archive).st_mtime_ns == before and "build.py build" not in made.stdout
    found = {
        str(path.relative_to(tmp_path)): path for path in tmp_path.rglob("*") if path.is_file()
    }
    assert set(found) == {
        "usr/bin/anocir",
        *(f"usr/{path}" for path in build_module().SHARED.values()),
    }
    same = found["usr/bin/anocir"].read_bytes() == Path(archive).read_bytes()
    assert same, "dist/anocir is of other sources, or of another commit: make build"
    assert call(*words, "uninstall").returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


@pytest.mark.parametrize("wheels", ["", "/tmp"])
def test_who_has_no_network_is_told_in_one_line_what_to_do(
    monkeypatch, tmp_path, wheels: str
) -> None:
    build = build_module()
    calls = []

    def run(command, **options):
        calls.append([str(word) for word in command])
        failed = subprocess.CompletedProcess(
            command, 1, "", "ERROR: No matching distribution found for shiv==1.0.8\n"
        )
        return failed if "pip" in calls[-1] else subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(build, "VENV", tmp_path / "venv")
    monkeypatch.setattr(build, "has_tools", lambda python: False)
    monkeypatch.setattr(build.subprocess, "run", run)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    with pytest.raises(SystemExit) as told:
        build.find_tools(wheels)
    text = str(told.value)
    assert "\n" not in text and "No matching distribution" in text
    assert ("from /tmp" in text) if wheels else ("make build WHEELS=DIR" in text)
    assert ("--find-links" in calls[-1]) == bool(wheels) and "--retries" in calls[-1]
