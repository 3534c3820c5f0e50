"""T-PY: what only a runtime in Python can get wrong: imports, libraries and paths of the image."""

from __future__ import annotations

import ast
import json
import os
import pickle
import random
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any, Callable

import pytest

from tests import drive
from tests.security import controls
from tests.security.conftest import Arena

POISON = "with open('/MARK', 'a') as mark:\n    mark.write(__name__ + '\\n')\n"
LIBRARIES = (
    "libnss_evil.so.2", "libnss_files.so.2", "libnss_dns.so.2", "libseccomp.so.2", "libffi.so.8",
    "libffi.so.7", "libc.so.6", "libm.so.6", "libgcc_s.so.1", "libcrypto.so.3", "libz.so.1",
    "gconv/ISO8859-1.so", "gconv/UTF-16.so",
)  # fmt: skip
TOP = Path(__file__).resolve().parents[2]

# a poisoned image ------------------------------------------------------------------------------------------


def poison_module(source: str, target: str) -> None:
    os.makedirs(os.path.dirname(target), exist_ok=True)
    if not os.path.lexists(target):
        os.link(source, target)


def poison(arena: Arena, container: drive.Container, interpreter: str = controls.PYTHON) -> None:
    """Put into an image, at the host's paths, false copies of the standard library, the archive and libraries."""
    rootfs = container.bundle.rootfs
    source = os.path.join(container.bundle.path, "poison.py")
    with open(source, "w") as file:
        file.write(POISON)
    for directory in controls.library_directories(interpreter):
        for name in os.listdir(directory):
            inside = rootfs + os.path.join(directory, name)
            if name.endswith(".py"):
                poison_module(source, inside)
            elif name.endswith(".so"):
                poison_module(source, os.path.join(rootfs + directory, name.split(".")[0] + ".py"))
                poison_module(arena.programs["library"], inside)
            elif os.path.exists(os.path.join(directory, name, "__init__.py")):
                for inner in os.listdir(os.path.join(directory, name)):
                    if inner.endswith(".py"):
                        poison_module(source, os.path.join(inside, inner))
        for name in controls.library_modules():
            if not os.path.isdir(os.path.join(rootfs + directory, name)):
                poison_module(source, os.path.join(rootfs + directory, name + ".py"))
    # T-PY2: zipimport opens the archive again by its path.
    archive = rootfs + container.runtime.path
    os.makedirs(os.path.dirname(archive), exist_ok=True)
    with zipfile.ZipFile(container.runtime.path) as real, zipfile.ZipFile(archive, "w") as false:
        for name in real.namelist():
            if name.endswith(".py"):
                false.writestr(name, POISON)
    # T-PY4
    for directory in (
        "lib",
        "usr/lib",
        "lib64",
        "lib/x86_64-linux-gnu",
        "usr/lib/x86_64-linux-gnu",
    ):
        for name in LIBRARIES:
            poison_module(arena.programs["library"], os.path.join(rootfs, directory, name))
    container.bundle.put(
        "/etc/nsswitch.conf", "passwd: evil files\ngroup: evil files\nhosts: evil dns\n"
    )


def mark(container: drive.Container) -> str:
    """What of the image was loaded."""
    return container.bundle.read("/MARK") if container.bundle.has("/MARK") else ""


def _args(*words: str) -> Callable[[drive.Container], None]:
    return lambda container: container.process.update(args=list(words))


def _process(**values: Any) -> Callable[[drive.Container], None]:
    return lambda container: container.process.update(values)


def _hook(name: str, script: str, **values: Any) -> Callable[[drive.Container], None]:
    return lambda container: container.bundle.hook(name, script, **values) and None


FAILURES: dict[str, Callable[[drive.Container], Any]] = {
    "no program": _args("/no/such/program"),
    "no program in PATH": _args("no-such-program"),
    "no format": _args("/etc/passwd-program"),
    "a directory": _args("/etc"),
    "no interpreter": _args("/etc/script"),
    "bad cwd": _process(cwd="/etc/passwd"),
    "closed cwd": _process(cwd="/closed", user={"uid": 1000, "gid": 1000}),
    "bad rlimit": _process(rlimits=[{"type": "RLIMIT_NOFILE", "soft": 1 << 40, "hard": 1 << 40}]),
    "bad sysctl": lambda container: container.linux.update(sysctl={"net.no.such": "1"}),
    "bad mount": lambda container: container.bundle.add_mount("/m", "no-such-type", "x"),
    "mount option": lambda container: container.bundle.add_mount("/m", "tmpfs", "x", "no=such"),
    "mount on a file": lambda container: container.bundle.add_mount("/etc/passwd", "tmpfs", "x"),
    "createContainer hook": _hook("createContainer", "exit 3"),
    "startContainer hook": _hook("startContainer", "exit 3"),
    "startContainer hook hangs": _hook("startContainer", "sleep 9", timeout=1),
    "no startContainer hook": lambda container: container.config.update(
        hooks={"startContainer": [{"path": "/no/such/hook"}]}
    ),
    "filter kills": lambda container: container.linux.update(
        seccomp={
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["execve"], "action": "SCMP_ACT_KILL"}],
        }
    ),
    "bytes": _args("/bin/\udcff\udcfe".encode("utf-8", "surrogateescape").decode("latin-1")),
    "label": _process(apparmorProfile="no-such-profile"),
}


def prepare(arena: Arena, runtime: drive.Runtime | None, interpreter: str) -> drive.Container:
    container = arena.container(runtime)
    poison(arena, container, interpreter)
    container.bundle.put("/etc/passwd-program", "no program\n", 0o755)
    container.bundle.put("/etc/script", "#!/no/such/interpreter\n", 0o755)
    container.bundle.make_directory("/closed", 0o700)
    return container


def loaded_by_failures(
    arena: Arena, runtime: drive.Runtime | None = None, interpreter: str = controls.PYTHON
) -> dict[str, str]:
    """Fail in every way, in one image; what was loaded from it."""
    container = prepare(arena, runtime, interpreter)
    original = json.dumps(container.config)
    found = {}
    for name, change in FAILURES.items():
        container.bundle.config = json.loads(original)
        change(container)
        result = container.create(ok=None)
        if result.status == 0:
            container.start(ok=None)
        container.delete("--force", ok=None)
        if mark(container):
            found[name] = mark(container)
            os.unlink(os.path.join(container.bundle.rootfs, "MARK"))
    return found


def loaded_by_commands(
    arena: Arena, runtime: drive.Runtime | None = None, interpreter: str = controls.PYTHON
) -> dict[str, str]:
    """Use every command on a container with a poisoned image; what was loaded from it."""
    container = prepare(arena, runtime, interpreter)
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["reboot"], "action": "SCMP_ACT_ERRNO"}],
    }
    container.linux["maskedPaths"] = ["/proc/keys", "/proc/scsi"]
    container.linux["readonlyPaths"] = ["/proc/sys"]
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    for name in ("createContainer", "startContainer"):
        container.bundle.hook(name, "true")
    container.bundle.sh("sleep 100")
    name = container.id
    found = {}

    def step(what: str, action: Callable[[], Any]) -> None:
        action()
        if mark(container):
            found[what] = mark(container)
            os.unlink(os.path.join(container.bundle.rootfs, "MARK"))

    def call(*words: str, **more: Any) -> Callable[[], Any]:
        return lambda: container.runtime(*words, ok=None, **more)

    step("create", container.create)
    step("start", container.start)
    step("exec", lambda: container.exec("/bin/true"))
    options = ["--user", "1000:1000", "--cwd", "/closed", "--cap", "CAP_KILL"]
    step("exec with options", call("exec", *options, name, "/bin/true"))
    step("exec without a program", call("exec", name, "/no/such/program"))
    step("exec without a format", call("exec", name, "/etc/passwd-program"))
    step("exec with a bad user", call("exec", "--user", "no-such-user", name, "/bin/true"))
    step("exec -d", call("exec", "-d", name, "/bin/true"))
    terminal = drive.Terminal(container.runtime.command("exec", "-t", name, "/bin/true"))
    step("exec -t", terminal.close)
    for words in (
        ["state", name], ["list"], ["ps", name], ["pause", name], ["resume", name],
        ["update", "--memory", "67108864", name], ["events", "--stats", name],
        ["kill", name, "USR1"], ["kill", name, "NO-SUCH-SIGNAL"], ["kill", name, "KILL"],
        ["features"], ["delete", "--force", name],
    ):  # fmt: skip
        step(" ".join(words).replace(name, "ID"), call(*words))
    container.process["args"] = ["/bin/true"]
    container.bundle.config.pop("hooks")
    step("run", lambda: container.make("run"))
    return found


def test_no_command_loads_anything_of_the_image(arena: Arena) -> None:
    """T-PY1, T-PY2, T-PY4."""
    assert loaded_by_commands(arena) == {}


def test_no_failure_loads_anything_of_the_image(arena: Arena) -> None:
    """T-PY1: the paths that nobody runs every day."""
    assert loaded_by_failures(arena) == {}


LATE = (
    "_execute_as_it_is = execute\n"
    "def execute(command):\n"
    "    try:\n        _execute_as_it_is(command)\n"
    "    except Error:\n"
    "        try:\n            import warnings, traceback, plistlib\n"
    "        except ImportError:\n            pass\n"
    "        raise\n"
)
NO_SEAL = "def seal(path_fd):\n    return\n"


def test_a_late_import_is_refused(arena: Arena) -> None:
    """T-PY1: the seal itself, with a mistake that it is there for."""
    assert loaded_by_failures(arena, arena.altered(inside__program=LATE)) == {}


def test_control_without_the_seal_a_late_import_loads_the_image_s_module(arena: Arena) -> None:
    found = loaded_by_failures(arena, arena.altered(inside__program=LATE, inside__init=NO_SEAL))
    assert "plistlib" in found["no format"]


def _interpreters() -> list[Any]:
    found = controls.interpreters()
    return [pytest.param(path, id=version) for version, path in found.items()]


@pytest.mark.parametrize("interpreter", _interpreters())
def test_other_interpreters_load_nothing_either(arena: Arena, interpreter: str) -> None:
    """T-PY1, T-PY12: as the archive runs on them, from its sources."""
    runtime = arena.altered(interpreter=interpreter)
    container = prepare(arena, runtime, interpreter)
    original = json.dumps(container.config)
    container.bundle.sh("/bin/probe fds > /tmp/fds; sleep 100")
    container.launch()
    # An interpreter's own libraries may keep descriptors (cpython#135893).
    numbers = [line.split()[0] for line in container.wait_file("/tmp/fds").splitlines()]
    assert numbers == ["0", "1", "2"]
    assert container.exec("/bin/echo", "inside").stdout == "inside\n"
    assert container.exec("/no/such/program", ok=None).status != 0
    container.delete("--force")
    for name in ("no program", "no format", "bad cwd", "startContainer hook", "mount option"):
        container.bundle.config = json.loads(original)
        FAILURES[name](container)
        result = container.create(ok=None)
        if result.status == 0:
            result = container.start(ok=False)
        assert "Traceback" not in result.stderr + container.errors()
        container.delete("--force")
    assert mark(container) == ""


def signalled(arena: Arena, verb: str, times: int, **modules: str) -> tuple[list[int], str]:
    """Signal `run` or `create` at any moment: the statuses, and what was loaded from the image."""
    container = prepare(arena, arena.altered(**modules) if modules else None, controls.PYTHON)
    container.bundle.sh("trap 'exit 7' TERM INT; sleep 1 & wait")
    container.bundle.write()
    dice = random.Random(7)
    statuses = []
    for turn in range(times):
        command = container.runtime.command(verb, "--bundle", container.bundle.path, container.id)
        with open(container.stdout_path, "ab") as out:
            child = drive.spawn(command, stdout=out, stderr=out)
            time.sleep(dice.random() * 0.12)
            os.kill(child.pid, signal.SIGTERM if turn % 2 else signal.SIGINT)
            statuses.append(drive.finish(child))
        container.delete("--force")
    return statuses, mark(container)


@pytest.mark.parametrize("verb", ["run", "create"])
def test_signals_at_any_time_load_nothing_and_hang_nothing(arena: Arena, verb: str) -> None:
    """T-PY1, T-PY14: SIGINT and SIGTERM, which the interpreter would make exceptions of."""
    statuses, loaded = signalled(arena, verb, 20)
    assert loaded == ""
    # Ended by it, or the program's own answer, or done before it came.
    assert set(statuses) <= {-2, -15, 0, 1, 7, 130, 143}, statuses


def late_signal(arena: Arena, number: int, **modules: str) -> int:
    """Signal `run` once its program is ready; the exit status."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.bundle.sh("trap 'exit 7' TERM INT HUP QUIT; echo > /tmp/ready; sleep 9 & wait; wait")
    container.bundle.write()
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    with open(container.stdout_path, "ab") as out:
        child = drive.spawn(command, stdout=out, stderr=out)
        container.wait_file("/tmp/ready")
        child.send_signal(number)
        return drive.finish(child)


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT"])
def test_a_signal_to_run_reaches_the_program(arena: Arena, name: str) -> None:
    """T-PY14."""
    assert late_signal(arena, getattr(signal, "SIG" + name)) == 7


def test_control_a_signal_that_is_not_blocked_ends_the_runtime(arena: Arena) -> None:
    unblocked = "def block_signals():\n    return\n"
    assert late_signal(arena, signal.SIGTERM, host__foreground=unblocked) != 7


# what the interpreter would do by itself -------------------------------------------------------------------

# In the last thing that init does: all else that is in the root comes before create has ended.
# Its frame has the relative path that those of the block have: what is altered comes from the zip, and would have one
# below /proc/self/fd.
MISTAKE = (
    "_mistake = \"def execute(command):\\n    raise ZeroDivisionError('a mistake')\\n\"\n"
    "exec(compile(_mistake, 'anocir/inside/program.py', 'exec'), globals())\n"
)
TRACEBACK = (
    # which linecache imports with itself before 3.13, and since then when it is to read, which init refuses
    "import os as _os, tokenize as _tokenize, traceback as _traceback\n"
    "_reason_as_it_is = reason\n"
    "def reason(error):\n"
    "    _traceback.print_exception(type(error), error, error.__traceback__)\n"
    "    return _reason_as_it_is(error)\n"
)


def mistake_in_init(arena: Arena, **modules: str) -> drive.Result:
    """Let init make a mistake in a container that has FIFOs at the paths of its sources."""
    runtime = arena.altered(inside__program=MISTAKE, **modules)
    container = arena.container(runtime)
    package = os.path.join(runtime.path, "site-packages", "anocir")
    for top in (package, "/anocir"):
        os.makedirs(f"{container.bundle.rootfs}{top}/inside")
        for name in ("program.py", "init.py"):
            os.mkfifo(f"{container.bundle.rootfs}{top}/inside/{name}")
    container.create()
    return container.start(ok=None, timeout=2 if modules else drive.TIMEOUT)


def test_a_mistake_of_ours_reads_no_source(arena: Arena) -> None:
    """T-PY3: one line, in no time, whatever lies at the path of the source."""
    result = mistake_in_init(arena)
    assert result.status == 1 and "bug in anocir" in result.stderr and "mistake" in result.stderr
    assert result.stderr.count("\n") <= 2 and "Traceback" not in result.stderr


def test_control_a_traceback_hangs_on_the_image_s_fifo(arena: Arena) -> None:
    with pytest.raises(AssertionError, match="no end within"):
        mistake_in_init(arena, errors=TRACEBACK)


NAMES = (
    "import pwd as _pwd\n"
    "_execute_as_it_is = execute\n"
    "def execute(command):\n"
    "    try:\n        _pwd.getpwnam('nobody-at-all')\n"
    "    except KeyError:\n        pass\n"
    "    _execute_as_it_is(command)\n"
)


def test_control_a_name_lookup_loads_a_library_of_the_image(arena: Arena) -> None:
    """T-PY4: what the ban of pwd and grp is for."""
    container = prepare(arena, arena.altered(inside__program=NAMES), controls.PYTHON)
    container.process["args"] = ["/bin/true"]
    container.create(ok=None)
    container.start(ok=None)
    assert "a library of the image" in mark(container)


AUDIT = (
    "_seal_as_it_is = seal\n"
    "def _audit(event, args):\n"
    "    if event in ('import', 'ctypes.dlopen', 'compile', 'exec', 'os.system', 'subprocess.Popen'):\n"
    "        raise RuntimeError(f'audit: {event} {args}')\n"
    "    if event == 'open' and (str(args[0]).endswith(('.py', '.pyc', '.so')) or 'lib/' in str(args[0])):\n"
    "        raise RuntimeError(f'audit: {event} {args}')\n"
    "def seal(path_fd):\n"
    "    _seal_as_it_is(path_fd)\n"
    "    sys.addaudithook(_audit)\n"
)


def audited(arena: Arena, **modules: str) -> list[str]:
    """Live a container's life with an audit hook behind the seal; what it complained of."""
    container = arena.container(arena.altered(inside__init=AUDIT, **modules))
    container.linux["maskedPaths"] = ["/proc/keys", "/proc/scsi"]
    container.linux["readonlyPaths"] = ["/proc/sys"]
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    container.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    container.process["noNewPrivileges"] = True
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    container.bundle.hook("createContainer", "true")
    container.bundle.hook("startContainer", "true")
    container.bundle.sh("sleep 100")
    results = [container.create(ok=None), container.start(ok=None)]
    results.append(container.exec("/bin/true", ok=None))
    # Else nobody came to what is watched.
    assert [r.status for r in results] == [0, 0, 0], "".join(r.stderr for r in results)
    container.bundle.put("/etc/no-format", "no program\n", 0o755)
    results.append(container.exec("/etc/no-format", ok=None))
    return [r.stderr for r in results if "audit:" in r.stderr]


def test_nothing_is_imported_opened_or_linked_behind_the_seal(arena: Arena) -> None:
    """T-PY4: watched by the interpreter itself."""
    assert audited(arena) == []


def test_control_the_audit_hook_complains(arena: Arena) -> None:
    assert audited(arena, inside__program=LATE.replace("except ImportError", "except KeyError"))


@pytest.mark.needs("strace")
def test_no_program_is_run_to_find_a_library(arena: Arena) -> None:
    """T-PY5: ctypes.util.find_library would run ldconfig, gcc and ld."""
    assert programs_run(arena) == []


@pytest.mark.needs("strace")
def test_control_find_library_runs_programs(arena: Arena) -> None:
    find = "import ctypes.util as _u\n_u.find_library('seccomp')\n"
    assert programs_run(arena, model__plan=find)


def programs_run(arena: Arena, **modules: str) -> list[str]:
    """What the runtime executes besides its own init and the container's program."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": [f"mkdir{at}" for at in ("", "at")], "action": "SCMP_ACT_LOG"}],
    }
    container.bundle.write()
    log = os.path.join(container.bundle.path, "strace")
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    strace = ["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", log]
    drive.call([*strace, *command], timeout=2 * drive.TIMEOUT)
    with open(log) as file:
        rows = [line.split('"')[1] for line in file if "exec" in line and '"' in line]
    own = (container.runtime.path, "/bin/true", "/proc/self/fd/")
    return [row for row in rows if row and not row.startswith(own) and row != controls.PYTHON]


BUFFERED = (
    "import atexit as _atexit\n"
    "_atexit.register(lambda: posix.write(2, b'AT EXIT'))\n"
    "class _Late:\n"
    "    def __del__(self):\n        posix.write(2, b'FINALIZER')\n"
    "_late = _Late()\n"
    "sys.stdout.write('BUFFERED')\n"
)


def written_at_exit(arena: Arena, **modules: str) -> str:
    """Register what runs at an interpreter's end, and end init in every way; what was written."""
    runtime = arena.altered(inside__init=BUFFERED + modules.pop("inside__init", ""), **modules)
    container = arena.container(runtime)
    original = json.dumps(container.config)
    for name in ("", "no program", "createContainer hook", "bad mount"):
        container.bundle.config = json.loads(original)
        if name:
            FAILURES[name](container)
        if container.create(ok=None).status == 0:
            container.start(ok=None)
        container.delete("--force")
    return container.output() + container.errors()


def test_nothing_runs_at_the_end_of_init(arena: Arena) -> None:
    """T-PY6: no finalizer, no exit handler, no buffer that is written twice."""
    text = written_at_exit(arena)
    assert "AT EXIT" not in text and "FINALIZER" not in text and "BUFFERED" not in text


def test_control_a_usual_exit_runs_them(arena: Arena) -> None:
    usual = (
        "class _Posix:\n"
        "    def __getattr__(self, name):\n"
        "        return sys.exit if name == '_exit' else getattr(_posix, name)\n"
        "_posix, posix = posix, _Posix()\n"
    )
    assert "AT EXIT" in written_at_exit(arena, inside__init=usual)


# the caller's environment ----------------------------------------------------------------------------------


def evil_environment(arena: Arena) -> tuple[dict[str, str], str, str]:
    """An environment in which each of the interpreter's variables leads to poisoned modules: it, cwd, mark.

    But for PYTHONEXECUTABLE, which getpath obeys in spite of -I since Python 3.11: to a caller it gives what
    LD_PRELOAD gives, and init starts with no environment at all.
    """
    directory = arena.directory()
    marker = os.path.join(directory, "MARK")
    code = f"open({marker!r}, 'a').write(__name__ + '\\n')\n"
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    for place in ("", f".local/lib/{version}/site-packages", f"lib/{version}"):
        os.makedirs(os.path.join(directory, place), exist_ok=True)
        for name in ("sitecustomize", "usercustomize", "os", "sys", "re", "json", "marshal", "anocir",
                     "encodings", "site", "types", "errno", "fcntl", "select", "time", "evil"):  # fmt: skip
            with open(os.path.join(directory, place, name + ".py"), "w") as file:
                file.write(code)
    with open(
        os.path.join(directory, ".local/lib", version, "site-packages/evil.pth"), "w"
    ) as file:
        file.write("import evil\n")
    environment = {
        "PATH": os.environ["PATH"], "HOME": directory, "PYTHONPATH": directory,
        "PYTHONHOME": directory, "PYTHONSTARTUP": directory + "/evil.py", "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": directory + "/.local", "PYTHONPLATLIBDIR": "evil", "PYTHONBREAKPOINT": "evil",
        "PYTHONIOENCODING": "utf-16", "PYTHONWARNINGS": "error::evil.Warning", "PYTHONDEBUG": "1",
        "PYTHONVERBOSE": "1", "PYTHONPROFILEIMPORTTIME": "1", "PYTHONDUMPREFS": "1",
        "PYTHONMALLOC": "debug", "PYTHONFAULTHANDLER": "1", "PYTHONTRACEMALLOC": "1",
        "PYTHONCASEOK": "1", "PYTHONPYCACHEPREFIX": directory,
        "PYTHONOPTIMIZE": "2", "PYTHONHASHSEED": "0", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "warn",
        "PYTHONDEVMODE": "1", "PYTHONSAFEPATH": "", "PYTHONINTMAXSTRDIGITS": "640",
        "PYTHONPERFSUPPORT": "1", "PYTHON_GIL": "1", "PYTHON_FROZEN_MODULES": "off",
    }  # fmt: skip
    return environment, directory, marker


def obeyed_variables(arena: Arena, runtime: drive.Runtime | None = None) -> str:
    """Call with an evil environment, home and working directory; what was loaded, or printed by the interpreter."""
    environment, cwd, marker = evil_environment(arena)
    container = arena.container(runtime)
    container.bundle.sh("env; sleep 100")
    caller: dict[str, Any] = {"env": environment, "cwd": cwd}
    results = [container.create(ok=None, **caller), container.start(ok=None, **caller)]
    results.append(container.exec("/bin/true", ok=None, **caller))
    results.append(container.runtime("state", container.id, ok=None, **caller))
    results.append(container.runtime("features", ok=None, **caller))
    results.append(container.runtime("list", ok=None, **caller))
    text = "".join(result.stderr for result in results)
    text += "".join(f"status {result.status}\n" for result in results if result.status)
    if "PYTHON" in container.output():
        text += "a variable reached the container\n"
    if os.path.exists(marker):
        with open(marker) as file:
            text += file.read()
    return text


def test_no_variable_of_the_interpreter_is_obeyed(arena: Arena) -> None:
    """T-PY7, T-PY8: PYTHON*, HOME, and the working directory."""
    assert obeyed_variables(arena) == ""


def test_control_a_bare_first_line_obeys_them(arena: Arena) -> None:
    runtime = arena.altered(first_line=f"#!{controls.PYTHON} -B")
    assert obeyed_variables(arena, runtime)


def environment_of_init(arena: Arena, **modules: str) -> bytes:
    """The environment of an init that waits for start."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.create(env={**os.environ, "LD_LIBRARY_PATH": "/evil", "SECRET": "caller"})
    with open(f"/proc/{container.pid}/environ", "rb") as file:
        return file.read().strip(b"\0")


def test_init_starts_without_an_environment(arena: Arena) -> None:
    """T-PY8: LD_PRELOAD and its like end with the host side."""
    assert environment_of_init(arena) == b""


def test_control_an_inherited_environment_is_seen(arena: Arena) -> None:
    inherit = (
        "_spawn_as_it_is = spawn\n"
        "def spawn(path, argv, env, *rest, **more):\n"
        "    return _spawn_as_it_is(path, argv, posix.environ, *rest, **more)\n"
    )
    assert b"SECRET=caller" in environment_of_init(arena, linux__spawn=inherit)


SHIV = (
    "SHIV_ENTRY_POINT", "SHIV_MODULE", "SHIV_INTERPRETER", "SHIV_CONSOLE_SCRIPT",
    "SHIV_PREPEND_PYTHONPATH", "SHIV_ROOT", "SHIV_FORCE_EXTRACT", "SHIV_EXTEND_PYTHONPATH",
)  # fmt: skip


def first_starts(arena: Arena, path: str) -> tuple[list[str], list[str]]:
    """Start an archive twenty times at once with all of shiv's variables: what it said, what it unpacked."""
    home = arena.directory()
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
    environment |= dict.fromkeys(SHIV, "evil")
    environment["SHIV_ROOT"] = os.path.join(home, "shiv")
    children = []
    for number in range(20):
        out = open(os.path.join(home, f"out{number}"), "wb")
        with out:
            children.append(
                drive.spawn([path, "--version"], env=environment, stdout=out, stderr=out)
            )
    for child in children:
        drive.finish(child)
    said = []
    for number in range(20):
        with open(os.path.join(home, f"out{number}")) as file:
            said.append(file.read())
    unpacked = [name for name in os.listdir(home) if not name.startswith("out")]
    return sorted(set(said)), unpacked


def test_the_archive_is_no_shiv_at_run_time(arena: Arena) -> None:
    """T-PY9: no variable of it is read, nothing is unpacked, no home is needed."""
    said, unpacked = first_starts(arena, arena.defender.path)
    assert len(said) == 1 and "anocir" in said[0] and unpacked == []


def _shiv() -> list[str]:
    builder = TOP / "build" / "venv" / "bin" / "python3"
    for python in (sys.executable, str(builder)):
        if os.path.exists(python):
            done = subprocess.run([python, "-c", "import shiv"], capture_output=True, check=False)
            if done.returncode == 0:
                return [python, "-m", "shiv"]
    return []


def test_control_a_shiv_unpacks_itself(arena: Arena) -> None:
    shiv = _shiv()
    if not shiv:
        pytest.skip("shiv is not installed (make build)")
    directory = arena.directory()
    site = os.path.join(directory, "site")
    os.mkdir(site)
    with open(os.path.join(site, "door.py"), "w") as file:
        file.write("def main():\n    print('anocir')\n")
    path = os.path.join(directory, "shiv.pyz")
    words = ["--site-packages", site, "-e", "door:main", "-o", path]
    subprocess.run([*shiv, *words], check=True, capture_output=True)
    said, unpacked = first_starts(arena, path)
    assert unpacked or "anocir" not in said[0]


@pytest.mark.parametrize("home", ["/nonexistent", "", None])
def test_neither_home_nor_a_writable_root_is_needed(arena: Arena, home: str | None) -> None:
    """T-PY9: with "/" read-only but for the state and the cgroups."""
    environment = {"PATH": os.environ["PATH"]}
    if home is not None:
        environment["HOME"] = home
    container = arena.container()
    container.process["args"] = ["/bin/echo", "fine"]
    container.bundle.write()
    path = container.runtime.directory
    script = (
        f"mount --make-rprivate / && mount --bind {path} {path} && "
        'mount -o remount,bind,ro / && exec "$@"'
    )
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    words = ["unshare", "-m", "/bin/sh", "-c", script, "sh", *command]
    assert drive.call(words, env=environment).stdout == "fine\n"


# data that could be code -----------------------------------------------------------------------------------


class Bomb:
    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (self.path, "w")


def loaded_pickles(arena: Arena, runtime: drive.Runtime | None = None) -> bool:
    """Replace each file of the state by a pickle and use the container; whether it was executed."""
    marker = os.path.join(arena.directory(), "MARK")
    data = pickle.dumps(Bomb(marker))
    container = arena.container(runtime)
    container.launch("sleep 100")
    directory = os.path.join(container.runtime.root, container.id)
    kept = {}
    for name in os.listdir(directory):
        path = os.path.join(directory, name)
        if not os.path.isfile(path):
            continue
        with open(path, "rb") as file:
            kept[path] = file.read()
        assert json.loads(kept[path]), f"{name} is not JSON"
    for path in kept:
        with open(path, "wb") as file:
            file.write(data)
    for words in (["state"], ["kill"], ["exec"], ["ps"], ["delete"]):
        more = ["/bin/true"] if words == ["exec"] else []
        container.runtime(*words, container.id, *more, ok=None)
    container.runtime("list", ok=None)
    for path, text in kept.items():
        with open(path, "wb") as file:
            file.write(text)
    return os.path.exists(marker)


def test_the_state_is_data(arena: Arena) -> None:
    """T-PY10."""
    assert not loaded_pickles(arena)


def test_control_a_pickled_state_is_code(arena: Arena) -> None:
    code = (
        "import pickle as _pickle\n"
        "_loads_as_it_is = loads\n"
        "def loads(data, name='JSON'):\n"
        "    try:\n        return _pickle.loads(data)\n"
        "    except Exception:\n        return _loads_as_it_is(data, name)\n"
    )
    assert loaded_pickles(arena, arena.altered(base__jsonio=code))


def threads(arena: Arena, **modules: str) -> int:
    """The threads that the life of a container started."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.bundle.sh("true")
    container.bundle.write()
    log = os.path.join(container.bundle.path, "strace")
    command = container.runtime.command("run", "--bundle", container.bundle.path, container.id)
    drive.call(
        ["strace", "-f", "-qq", "-e", "trace=clone,clone3", "-o", log, *command],
        timeout=2 * drive.TIMEOUT,
    )
    with open(log) as file:
        return file.read().count("CLONE_THREAD")


@pytest.mark.needs("strace")
def test_no_thread_is_started(arena: Arena) -> None:
    """T-PY13: fork, unshare and setns of a user namespace need a single one."""
    assert threads(arena) == 0


@pytest.mark.needs("strace")
def test_control_a_thread_is_seen(arena: Arena) -> None:
    code = "import _thread as _t\n_t.start_new_thread(lambda: None, ())\n"
    assert threads(arena, model__plan=code) > 0


def asserts(tree: ast.AST) -> list[int]:
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_no_check_is_an_assert() -> None:
    """T-PY15: they vanish under -O, and in the archive."""
    found = {
        str(path.relative_to(TOP)): lines
        for path in sorted((TOP / "anocir").rglob("*.py"))
        if (lines := asserts(ast.parse(path.read_bytes())))
    }
    assert found == {}


def test_control_an_assert_is_found() -> None:
    assert asserts(ast.parse("def f(x):\n    assert x\n")) == [2]


# documents that break parsers ------------------------------------------------------------------------------

DOCUMENTS: dict[str, bytes] = {
    "5,000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "deep": b"[" * 100_000,
    "deep and whole": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a half of a pair": b'{"a": "\\ud800"}',
    "NaN": b'{"a": NaN}',
    "infinity": b'{"a": 1e400}',
    "not UTF-8": b'{"a": "\xff"}',
    "byte order mark": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "empty": b"",
    "a list": b"[]",
    "twice": b"{} {}",
    "NUL": b"{}\0",
    "comment": b"{} // no",
}


def accepted_documents(arena: Arena, runtime: drive.Runtime | None = None) -> dict[str, str]:
    """Add to a good configuration what breaks parsers; complaints that are not one plain line."""
    found = {}
    for name, data in DOCUMENTS.items():
        container = arena.container(runtime)
        container.bundle.write()
        path = os.path.join(container.bundle.path, "config.json")
        with open(path, "rb") as file:
            good = file.read().strip()
        # As a value that nothing looks at, or in the place of all.
        whole = data
        if data[:1] == b"{" and data[-1:] == b"}":
            whole = good[:-1] + b', "extra": ' + data + b"}"
        with open(path, "wb") as file:
            file.write(whole)
        result = container.make("run", ok=None, write=False)
        lines = result.stderr.splitlines()
        if result.status != 1 or len(lines) > 2 or "Traceback" in result.stderr:
            found[name] = f"status {result.status}"
        elif "bug in" in result.stderr:
            found[name] = result.stderr
        container.delete("--force", ok=None)
    return found


def test_a_document_that_breaks_parsers_is_refused_in_one_line(arena: Arena) -> None:
    """T-PY16."""
    assert accepted_documents(arena) == {}


def test_control_the_usual_parser_takes_some(arena: Arena) -> None:
    usual = "def loads(data, name='JSON'):\n    import json\n    return json.loads(data)\n"
    found = accepted_documents(arena, arena.altered(base__jsonio=usual))
    assert {"5,000 digits", "NaN", "infinity"} <= set(found), found


# names that are not UTF-8 ----------------------------------------------------------------------------------


def with_odd_names(arena: Arena, **modules: str) -> list[str]:
    """Use names and arguments that are not UTF-8; what did not come through."""
    runtime = arena.altered(**modules) if modules else None
    container = arena.container(runtime)
    rootfs = os.fsencode(container.bundle.rootfs)
    os.makedirs(rootfs + b"/data/d\xff")
    with open(rootfs + b"/data/f\xfe", "wb") as file:
        file.write(b"content\n")
    container.bundle.add_mount("/data", "tmpfs", "tmpfs", "tmpcopyup")
    container.bundle.write()
    odd = os.fsencode(container.bundle.path) + b"-\xff"
    os.rename(container.bundle.path, odd)
    wrong = []
    try:
        out = open(odd + b"/stdout", "ab")
        with out:
            command = [*container.runtime.command("run", "-d", "--bundle"), odd, container.id]
            container_json = json.loads((Path(os.fsdecode(odd)) / "config.json").read_text())
            container_json["process"]["args"] = ["/bin/sleep", "100"]
            (Path(os.fsdecode(odd)) / "config.json").write_text(json.dumps(container_json))
            result = drive.call(command, ok=None, stdout=out, stderr=out)
        if result.status:
            wrong.append("bundle")
        else:
            result = container.exec("/bin/sh", "-c", "cat /data/f*; ls -d /data/d*", ok=None)
            if not result.stdout.startswith("content\n/data/d"):
                wrong.append("copied names")
            command = [*container.runtime.command("exec", "--env"), b"V=\xff", container.id]
            script = b'printf %s "$V$0" | od -An -tx1 2>/dev/null || printf %s "$V$0"'
            result = drive.call(
                [
                    *command,
                    b"/bin/sh",
                    b"-c",
                    b'test "$V$0" = "$(printf "\\377\\376")" && echo same',
                    b"\xfe",
                ],
                ok=None,
            )
            assert script
            if result.line != "same":
                wrong.append("arguments")
        state = container.runtime("state", container.id, ok=None)
        if state.status or not json.loads(state.stdout):
            wrong.append("state")
    finally:
        os.rename(odd, container.bundle.path)
    return wrong


def test_names_that_are_not_text_come_through(arena: Arena) -> None:
    """T-PY17: bytes on the way in, the same bytes on the way out."""
    assert with_odd_names(arena) == []


def test_control_a_strict_codec_loses_them(arena: Arena) -> None:
    strict = (
        "def encode(path):\n    return path if isinstance(path, bytes) else path.encode()\n"
        "def decode(path):\n    return path.decode()\n"
    )
    assert with_odd_names(arena, linux__files=strict)
