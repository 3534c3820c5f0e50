"""What each command imports: start-up time is a feature, so a new import is a reviewed line.

imports.txt holds, for each command, the modules beyond those of a bare interpreter. After a change
that is meant, write it again with UPDATE_IMPORTS=1 and look at the difference.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests import drive, machine
from tests.bundle import smallest_bundle
from tests.repo.test_layers import MODULES, imports

pytestmark = pytest.mark.repo
HERE = Path(__file__).resolve().parent
TABLE = HERE / "imports.txt"
PYTHON = "/usr/bin/python3"

# C modules that cost next to nothing; everything else of the standard library is too slow for a
# command that an engine waits for.
CHEAP = {
    "_ctypes", "_json", "_signal", "_socket", "_struct", "errno", "fcntl", "gc", "marshal",
    "posix", "resource", "select", "sys", "termios", "time",
}  # fmt: skip

# A container that does not exist shows what is imported before the first look at the state.
CALLS = {
    "version": ["--version"],
    "state": ["state", "missing"],
    "start": ["start", "missing"],
    "kill": ["kill", "missing", "9"],
    "delete": ["delete", "missing"],
    "delete --force": ["delete", "--force", "missing"],
    "list": ["list"],
    "list json": ["list", "--format", "json"],
    "ps json": ["ps", "--format", "json", "missing"],
    "pause": ["pause", "missing"],
    "resume": ["resume", "missing"],
}
# The same for a container that lives; in this order.
LIFE = {
    "create a container": ["create", "--bundle", "{bundle}", "{id}"],
    "state of a container": ["state", "{id}"],
    "start a container": ["start", "{id}"],
    "exec in a container": ["exec", "{id}", "/bin/true"],
    "list of a container": ["list"],
    "kill a container": ["kill", "{id}", "KILL"],
    "delete a container": ["delete", "--force", "{id}"],
    "run a container": ["run", "--bundle", "{bundle}", "{id}"],
}
HOT_MODULES = ("host.states", "host.launch", "inside.init")

HOOK = """
import posix as _p, sys as _s
_before = set(_s.modules)
_exit = _p._exit
def _report(status):
    fd = _p.open(_p.environ[b"IMPORTS_TO"], _p.O_WRONLY | _p.O_CREAT | _p.O_TRUNC)
    _p.write(fd, " ".join(sorted(set(_s.modules) - _before)).encode())
    _exit(status)
_p._exit = _report
"""


def modules_of(archive: str, directory: Path, *words: str) -> list[str]:
    with open(archive, "rb") as file:
        code = file.readline().decode().partition(" -IBSc")[2]
    target = directory / "imports"
    environment = {"IMPORTS_TO": str(target), "PATH": os.environ.get("PATH", "")}
    command = [PYTHON, "-IBSc", HOOK + code, archive, "--root", str(directory / "root"), *words]
    # To a file: a container keeps what it is given.
    with open(directory / "output", "wb") as output:
        subprocess.run(
            command,
            env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            timeout=drive.TIMEOUT, check=False,
        )  # fmt: skip
    return target.read_text().split()


def await_end(root: Path, container_id: str) -> None:
    """Wait until a container that was killed is gone: on one that is dying, or a zombie, `delete` does more.

    Not every first process collects it (in a container that may be make): conftest.py makes this one adopt it.
    """
    pid = json.loads((root / container_id / "state.json").read_text())["pid"]
    drive.until("init is gone", lambda: drive.reap() or not machine.process_status(pid))


def recorded() -> dict[str, list[str]]:
    rows = {}
    for line in TABLE.read_text().splitlines() if TABLE.exists() else []:
        name, _, modules = line.partition(": ")
        rows[name] = modules.split()
    return rows


RENEW = (
    "each module costs start-up; if it is meant: UPDATE_IMPORTS=1 build/venv/bin/python -m pytest "
    "tests/repo/test_imports.py, and look at the diff of tests/repo/imports.txt"
)
COSTS = "import it in the function that needs it, or measure it and put it into CHEAP"


def record(name: str, found: list[str]) -> None:
    if os.environ.get("UPDATE_IMPORTS"):
        rows = {**recorded(), name: found}
        names = [*CALLS, *LIFE, *(f"{key}, cgroup v2" for key in LIFE)]
        TABLE.write_text("".join(f"{key}: {' '.join(rows[key])}\n" for key in names if key in rows))


@pytest.mark.parametrize("name", CALLS)
def test_a_command_imports_exactly_what_is_recorded(
    archive: str, tmp_path: Path, name: str
) -> None:
    found = modules_of(archive, tmp_path, *CALLS[name])
    record(name, found)
    assert found == recorded().get(name), RENEW


@pytest.mark.needs("root")
def test_the_commands_on_a_container_import_exactly_what_is_recorded(
    archive: str, tmp_path: Path
) -> None:
    if not os.access("/bin/busybox", os.X_OK):
        pytest.skip("no /bin/busybox")
    bundle = tmp_path / "bundle"
    smallest_bundle(archive, str(bundle))
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["/bin/sleep", "600"])
    names = {"bundle": str(bundle), "id": f"imports-{os.getpid()}"}
    differences = {}
    for name, words in LIFE.items():
        if words[0] == "run":
            config["process"]["args"] = ["/bin/true"]
        (bundle / "config.json").write_text(json.dumps(config))
        found = modules_of(archive, tmp_path, *(word.format(**names) for word in words))
        if words[0] == "kill":
            await_end(tmp_path / "root", names["id"])
        if machine.v2_mountpoint("memory"):
            name += ", cgroup v2"
        record(name, found)
        if found != recorded().get(name):
            differences[name] = set(found) ^ set(recorded().get(name, []))
        slow = {module for module in found if module.partition(".")[0] != "anocir"} - CHEAP
        assert not slow, f"{name}: {COSTS}"
    assert not differences, RENEW
    assert not any((tmp_path / "root").iterdir()), (
        "delete has left something in the state directory"
    )


@pytest.mark.parametrize("name", CALLS)
def test_no_command_imports_a_slow_module(archive: str, tmp_path: Path, name: str) -> None:
    found = modules_of(archive, tmp_path, *CALLS[name])
    slow = {module for module in found if module.partition(".")[0] != "anocir"} - CHEAP
    assert not slow, COSTS


@pytest.mark.parametrize("name", ["state", "start", "kill", "delete", "delete --force", "list"])
def test_a_command_that_needs_no_system_call_of_its_own_has_no_ctypes(
    archive: str, tmp_path: Path, name: str
) -> None:
    found = modules_of(archive, tmp_path, *CALLS[name])
    loaded = {"_ctypes", "ctypes", "anocir.linux.ffi"} & set(found)
    assert not loaded, (
        "2 ms at each start: import linux.tasks, mounts or ffi in the function that calls"
    )


def closure(start: str) -> set[str]:
    """Return the modules of the package that are imported with one, directly or not."""
    seen: set[str] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        todo += sorted(imports(name, top_level_only=True)[0])
    return seen


@pytest.mark.parametrize("start", [name for name in HOT_MODULES if name in MODULES])
def test_what_create_and_init_load_is_cheap(start: str) -> None:
    slow = {
        f"{name} imports {module}"
        for name in closure(start)
        for module in imports(name, top_level_only=True)[1]
        if module not in CHEAP | {"__future__"}
    }
    assert not slow, COSTS
