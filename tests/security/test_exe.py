"""T-EXE and T-DUMP: the interpreter that becomes the container's process (CVE-2019-5736, CVE-2016-9962)."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import Iterator, NamedTuple

import pytest

from tests import drive
from tests.security.conftest import Arena
from tests.security.test_descriptors import UNCLOSED

LOADERS = ("lib64/ld-linux-x86-64.so.2", "lib/ld-linux-aarch64.so.1")
ATTACKS = ("program", "link", "script", "exec")


class Evidence(NamedTuple):
    """What the attackers said, and what became of the interpreter."""

    said: dict[str, str]
    changed: bool


def attack_interpreter(arena: Arena, interpreter: str = "", **modules: str) -> Evidence:
    """Let four containers write to the file that their runtime's init ran from.

    All are detached: while the runtime itself still runs, ETXTBSY would hide the hole.
    """
    interpreter = interpreter or copy_of_the_interpreter(arena.directory())
    before = _fingerprint(interpreter)
    runtime = arena.altered(interpreter=interpreter, **modules)
    containers = {}
    for attack in ATTACKS:
        container = containers[attack] = arena.container(runtime)
        rootfs = container.bundle.rootfs
        arena.install(container, "exe_attack", "/attacker")
        for loader in LOADERS:
            arena.install(container, "exe_attack", loader)
        container.process["args"] = ["/proc/self/exe"]
        if attack == "link":
            os.symlink("/proc/self/exe", os.path.join(rootfs, "bin/entry"))
            container.process["args"] = ["entry"]
        elif attack == "script":
            container.bundle.put("/entry", "#!/proc/self/exe\n", 0o755)
            container.process["args"] = ["/entry"]
        if attack == "exec":
            container.launch("sleep 1000")
            with open(container.stdout_path, "ab") as out:
                container.exec("/proc/self/exe", options=["--detach"], stdout=out)
        else:
            container.launch()
    for container in containers.values():
        container.bundle.put("/go")
    said = {}
    for attack, container in containers.items():
        drive.until(attack, lambda c=container: _answer(c))
        said[attack] = container.output()
    return Evidence(said, _fingerprint(interpreter) != before)


def copy_of_the_interpreter(directory: str | Path) -> str:
    """A file that nobody misses if an attack succeeds."""
    path = os.path.join(directory, "python3")
    shutil.copy("/usr/bin/python3", path)
    os.utime(path, (1, 1))
    return path


def _answer(container: drive.Container) -> bool:
    text = container.output()
    return text.endswith("\n") and ("WROTE" in text or "refused" in text or "no attack" in text)


def _fingerprint(path: str) -> tuple[float, str]:
    with open(path, "rb") as file:
        return os.stat(path).st_mtime, hashlib.sha256(file.read()).hexdigest()


SEALS = {
    "as shipped": "",
    "overlay": "seal = seal_overlay\n",
    "mount": "seal = seal_mount\n",
    "memory": "seal = seal_memory\n",
}


@pytest.mark.parametrize("way", SEALS)
def test_no_container_writes_to_the_interpreter(arena: Arena, way: str) -> None:
    """T-EXE1..4, CVE-2019-5736: by each of the three seals."""
    evidence = attack_interpreter(arena, host__boot=SEALS[way])
    for attack, said in evidence.said.items():
        assert "exe " in said and "refused" in said, f"{attack}: {said}"
    assert not evidence.changed


@pytest.fixture
def mounted_interpreter(tmp_path: Path) -> Iterator[str]:
    """A file with a copy of the interpreter mounted onto it, for longer than the arena lives."""
    path = tmp_path / "python3-mounted"
    path.write_text("this is not the interpreter")
    subprocess.run(["mount", "--bind", copy_of_the_interpreter(tmp_path), path], check=True)
    yield str(path)
    subprocess.run(["umount", "-l", path], check=True)


def test_no_container_writes_to_an_interpreter_that_is_mounted_itself(
    mounted_interpreter: str, arena: Arena
) -> None:
    """Mounts of its directory show what lies under it: it is sealed in memory."""
    evidence = attack_interpreter(arena, interpreter=mounted_interpreter)
    for attack, said in evidence.said.items():
        assert "exe " in said and "refused" in said, f"{attack}: {said}"
    assert not evidence.changed


def test_control_without_a_seal_it_is_written(arena: Arena) -> None:
    plain = "def seal(path):\n    return files.open(path, files.O_PATH), path\n"
    evidence = attack_interpreter(arena, host__boot=plain)
    assert all("WROTE" in said for said in evidence.said.values()), evidence
    assert evidence.changed


def test_without_any_seal_nothing_is_started(arena: Arena) -> None:
    """T-EXE: a host on which no way works gets an error and no container."""
    broken = (
        "def _no(path):\n    raise OSError(EPERM, 'seal', path)\n"
        "_no.__name__ = 'no'\nseal_overlay = seal_mount = seal_memory = _no\n"
    )
    container = arena.container(arena.altered(host__boot=broken))
    assert "cannot seal the interpreter" in container.refused()


# T-DUMP ------------------------------------------------------------------------------------------


def scan(
    arena: Arena, *, userns: bool, ptrace: bool, wanted: tuple[str, ...] = (), **modules: str
) -> dict[str, int]:
    """Exec into a container whose first process looks into every process that it can see.

    A dozen times; if a sight is wanted, until the scheduler has let the scanner look at the right moment.
    """
    runtime = arena.altered(**modules) if modules else None
    container = arena.container(runtime)
    arena.install(container, "attack", "/bin/attack")
    canary = os.path.join(arena.directory(), "canary")
    with open(canary, "w") as file:
        file.write("host\n")
    if userns:
        container.bundle.use_user_namespace()
    if ptrace:
        for names in container.process["capabilities"].values():
            names.append("CAP_SYS_PTRACE")
    container.process["args"] = ["/bin/attack", "scan", canary]
    container.launch()
    drive.until("the scanner", lambda: "ready" in container.output())
    for _ in range(12):
        container.exec("/bin/true")

    def unseen() -> list[str]:
        container.exec("/bin/true")
        return [sight for sight in wanted if sight not in container.output()]

    drive.until("the sights", unseen, found=lambda left: not left)
    container.exec("/bin/touch", "/tmp/stop", ok=None)  # dies with the scanner, its init
    drive.until("its answer", lambda: "\nexes " in container.output().rpartition(" end\n")[0])
    words = container.output().splitlines()[-1].split()
    counts = {words[i]: int(words[i + 1]) for i in range(0, 8, 2)}
    assert ("escape by" in container.output()) == bool(counts["escapes"]), container.output()
    print(container.output()[-600:])
    return counts


@pytest.mark.parametrize("userns", [False, True], ids=["host ids", "user namespace"])
@pytest.mark.parametrize("ptrace", [False, True], ids=["usual", "CAP_SYS_PTRACE"])
def test_exec_shows_nothing_of_the_host(arena: Arena, userns: bool, ptrace: bool) -> None:
    """T-DUMP, CVE-2016-9962: no descriptor leads out; only CAP_SYS_PTRACE over host ids sees the (sealed) exe."""
    counts = scan(arena, userns=userns, ptrace=ptrace)
    assert counts["escapes"] == 0
    if userns or not ptrace:
        assert counts["exes"] == counts["fds"] == counts["memories"] == 0


DUMPABLE = """
_prctl_as_it_is = prctl
def prctl(option, arg2=0, arg3=0, arg4=0, arg5=0):
    return _prctl_as_it_is(option, 1 if option == 4 else arg2, arg3, arg4, arg5)
"""


def test_control_a_dumpable_init_is_read(arena: Arena) -> None:
    sights = ("sees an exe", "opens a memory")
    counts = scan(arena, userns=True, ptrace=True, wanted=sights, linux__tasks=DUMPABLE)
    assert counts["exes"] > 0 and counts["memories"] > 0


def test_control_a_descriptor_of_the_host_is_found(arena: Arena) -> None:
    leak = (
        "_main_as_it_is = _close_foreign\n"
        "def _close_foreign(first, *kept):\n"
        "    _main_as_it_is(first, *kept)\n"
        "    files.open('/', files.O_PATH)\n"
    )
    found = scan(
        arena,
        userns=False,
        ptrace=True,
        wanted=("escape by",),
        inside__init=leak,
        inside__program=UNCLOSED,
    )
    assert found["escapes"] > 0


CGROUP_DIRECTORY = """
def _cgroup_directory(path):
    return files.open(path, files.O_RDONLY | files.O_DIRECTORY)
"""


@pytest.mark.needs("cgroup2")
def test_the_directory_of_a_cgroup_is_never_in_there(arena: Arena) -> None:
    """What clone3(2) with CLONE_INTO_CGROUP needs was a way out, while the process that had it was cloned last."""
    found = scan(arena, userns=False, ptrace=True, host__joining=CGROUP_DIRECTORY)
    assert found["escapes"] == 0
