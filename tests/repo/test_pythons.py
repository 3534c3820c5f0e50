"""One file for every Python: its blocks of compiled modules, and `repack`, which adds one."""

from __future__ import annotations

import glob
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from anocir.base import archive as head
from anocir.base.compiler import NATIVE
from tests.bundle import smallest_bundle
from tests import drive
from tests.repo.test_imports import CALLS, LIFE, PYTHON, await_end

TOP = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.repo


def version_of(python: str) -> tuple[int, ...]:
    code = "import sys; sys.stdout.write('%d %d' % sys.version_info[:2])"
    asked = subprocess.run([python, "-Sc", code], capture_output=True, text=True, check=False)
    return tuple(map(int, asked.stdout.split()))


def installed() -> dict[str, str]:
    """The interpreters of this machine by minor version, the one of the first line first."""
    found = {".".join(map(str, version_of(PYTHON))): PYTHON}
    places = ["/usr/bin", "/usr/local/bin", os.path.expanduser("~/.pyenv/versions/*/bin")]
    for place in places:
        for path in sorted(glob.glob(f"{place}/python*")):
            if re.fullmatch(r"python\d(\.\d+)?", os.path.basename(path)):
                found.setdefault(".".join(map(str, version_of(path))), path)
    return {name: path for name, path in found.items() if name}


INSTALLED = installed()
PYTHONS = {name: path for name, path in INSTALLED.items() if version_of(path) >= (3, 9)}
TOO_OLD = {name: path for name, path in INSTALLED.items() if name not in PYTHONS}
OTHERS = {name: path for name, path in PYTHONS.items() if path != PYTHON}


def run(*command: str, **options: object) -> subprocess.CompletedProcess[str]:
    options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run(command, capture_output=True, text=True, timeout=drive.TIMEOUT, **options)  # type: ignore[call-overload,no-any-return]


def only(archive: str, target: Path, *versions: str, line: str = "", before: str = "") -> str:
    """A copy that has blocks for these Pythons alone."""
    found = head.parse(Path(archive).read_bytes())
    found.blocks = [block for block in found.blocks if block.version.rpartition(".")[0] in versions]
    if line:
        found.line = line.encode()
    found.text = before + found.text
    target.write_bytes(found.pack())
    target.chmod(0o755)
    return str(target)


def blocks(archive: str | Path) -> list[str]:
    found = head.parse(Path(archive).read_bytes())
    return [version.rpartition(".")[0] for version in found.versions().values()]


# what runs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("python", PYTHONS)
def test_the_build_has_a_block_for_each_python(archive: str, python: str) -> None:
    assert python in blocks(archive)


@pytest.mark.parametrize("python", PYTHONS)
@pytest.mark.parametrize("known", [True, False], ids=["block", "no block"])
def test_it_runs_on_every_supported_python(
    archive: str, tmp_path: Path, python: str, known: bool
) -> None:
    others = [name for name in PYTHONS if name != python]
    copy = only(archive, tmp_path / "anocir", *others, *([python] if known else []))
    with open(copy, "rb") as file:
        code = file.readline().decode().partition(" -IBSc")[2].rstrip("\n")
    path = PYTHONS[python]
    for command in ([path, "-IBSc", code, copy], [path, copy]):
        result = run(*command, "features")
        assert (result.returncode, result.stderr) == (0, ""), command
        assert json.loads(result.stdout)["ociVersionMax"] == "1.3.0"
        assert run(*command, "--help").returncode == 0
        said = run(*command, "--version")
        assert (said.returncode, said.stderr) == (0, "")
        line = said.stdout.splitlines()[-1]
        listed, _, remedy = line.partition(";")
        there = ", ".join(blocks(copy))
        assert listed == "compiled for: " + (f"Python {there}" if there else "no Python")
        assert (remedy != "") == (not known)
        assert ("anocir repack" in remedy and python in remedy) == (not known)


@pytest.mark.parametrize("python", TOO_OLD)
def test_a_python_that_is_too_old_is_told_so(archive: str, python: str) -> None:
    path = TOO_OLD[python]
    with open(archive, "rb") as file:
        code = file.readline().decode().partition(" -IBSc")[2].rstrip("\n")
    ways = [[path, archive]]
    if python[0] == "3":
        ways.append([path, "-IBSc", code, archive])
    for command in ways:
        result = run(*command, "--version")
        assert result.returncode == 1
        wanted = rf"anocir: needs Python 3\.9 or newer, \S*{path} is {python}\n"
        assert re.fullmatch(wanted, result.stderr), result.stderr


# Commands that import from the standard library.
LIBRARY = ("ps", "features")
# In the second line, so in both interpreters of a command: what is compiled, what is imported.
WATCH = """\
import sys, posix
def watch(event, args):
    if event in ("compile", "import", "exec"):
        what = args[0] if event == "import" else args[1] if event == "compile" else args[0].co_filename
        if event == "exec" and "anocir/" not in what:
            return
        if isinstance(what, bytes):
            what = what.decode()
        fd = posix.open(%r, posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND, 0o666)
        posix.write(fd, (event + " " + what + "\\n").encode())
        posix.close(fd)
sys.addaudithook(watch)
"""


class Watched:
    """Runs the life of a container, and notes what each command compiles and imports."""

    def __init__(self, archive: str, directory: Path) -> None:
        self.source = archive
        self.directory = directory
        self.note = directory / "note"
        self.said = ""
        self.id = f"pythons-{os.getpid()}"
        self.bundle = directory / "bundle"
        self.root = directory / "root"
        self.root.mkdir()
        smallest_bundle(archive, str(self.bundle))

    def archive_for(self, python: str, versions: list[str]) -> str:
        """The archive with that interpreter in its first line."""
        first = head.parse(Path(self.source).read_bytes()).line.decode()
        line = first.replace(PYTHON, python)
        path = self.directory / "anocir"
        return only(self.source, path, *versions, line=line, before=WATCH % str(self.note))

    def write(self, *args: str) -> None:
        path = self.bundle / "config.json"
        config = json.loads(path.read_text())
        config["process"].update(terminal=False, args=list(args))
        path.write_text(json.dumps(config))

    def call(self, *command: str) -> dict[str, set[str]]:
        self.note.unlink(missing_ok=True)
        with open(self.directory / "output", "wb") as output:
            done = subprocess.run(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                timeout=drive.TIMEOUT, check=False,
            )  # fmt: skip
        self.said += (self.directory / "output").read_text()
        missing = "missing" in command
        assert missing or done.returncode == 0, (self.directory / "output").read_text()
        found: dict[str, set[str]] = {"compile": set(), "import": set()}
        for line in self.note.read_text().splitlines():
            event, _, what = line.partition(" ")
            if event == "exec":  # a module of ours, whoever has loaded it
                what = "anocir/" + what.partition("site-packages/anocir/")[2]
                found["import"].add(what if what != "anocir/" else line.partition(" ")[2])
            elif event == "compile" or not what.startswith("anocir"):
                found[event].add(what)
        return found

    def life(self, *program: str) -> dict[str, dict[str, set[str]]]:
        """What each command of a container's life did, and of others that need none."""
        found = {}
        names = {"bundle": str(self.bundle), "id": self.id}
        root = ["--root", str(self.root)]
        self.write("/bin/sleep", "600")
        more = {
            "events": ["events", "--stats", "{id}"], "update": ["update", "--pids-limit", "99", "{id}"],
            "ps": ["ps", "{id}"], "features": ["features"], "help": ["create", "--help"],
        }  # fmt: skip
        try:
            for name, words in {**CALLS, **LIFE}.items():
                if words[0] == "run":
                    self.write("/bin/true")
                found[name] = self.call(*program, *root, *(word.format(**names) for word in words))
                if name == "start a container":
                    for name, words in more.items():
                        words = [word.format(**names) for word in words]
                        found[name] = self.call(*program, *root, *words)
                if words[0] == "kill" and "missing" not in words:
                    await_end(self.root, self.id)
        finally:
            run(self.source, *root, "delete", "--force", self.id)
        return found


@pytest.fixture
def watched(archive: str, tmp_path: Path) -> Watched:
    if not os.access("/bin/busybox", os.X_OK):
        pytest.skip("[busybox] this machine has not /bin/busybox")
    return Watched(archive, tmp_path)


@pytest.mark.needs("root")
@pytest.mark.parametrize("python", PYTHONS)
def test_nothing_is_compiled_under_any_python_and_the_same_is_imported(
    watched: Watched, python: str
) -> None:
    usual = watched.life(watched.archive_for(PYTHON, list(PYTHONS)))
    copy = watched.archive_for(PYTHONS[python], list(PYTHONS))
    for way in ([copy], [PYTHONS[python], copy]):
        found = watched.life(*way)
        for name, made in found.items():
            # a namedtuple of the standard library is a text
            assert made["compile"] <= ({"<string>"} if name in LIBRARY else set()), name
            ours = {module for module in made["import"] if module.startswith("anocir")}
            assert ours == {
                module for module in usual[name]["import"] if module.startswith("anocir")
            }, f"{name}: other modules are loaded under {python} than under {PYTHON}"
            if name not in LIBRARY:
                # what is built into one Python is a file for another
                assert made["import"] - {*NATIVE} <= usual[name]["import"], name


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    "options", ["-X dev", "-bb -W error", "-OO -X dev -W error -X tracemalloc"]
)
@pytest.mark.parametrize(
    "python", [name for name in PYTHONS if name in (list(PYTHONS)[0], list(PYTHONS)[-1])]
)
def test_a_strict_python_has_nothing_to_say(watched: Watched, python: str, options: str) -> None:
    copy = only(
        watched.source, watched.directory / "anocir", python, before=WATCH % str(watched.note)
    )
    watched.life(PYTHONS[python], *options.split(), copy)
    for word in ("Warning", "Traceback", "bug", "ignored"):
        assert word not in watched.said


def limited(kind: int, value: int, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command below a limit; what it prints is on stderr."""
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, check=False, preexec_fn=lambda: resource.setrlimit(kind, (value, value)),
    )  # fmt: skip


# As the first line does, and an arena more, which is what Python takes memory in.
BEGINS = "import sys,marshal;f=open('/dev/null','rb');f.readline();exec('b=bytearray(1<<20)')"


def one_line(text: str) -> bool:
    """Whether an error is one line; that there is no such container has a hint."""
    return bool(
        re.fullmatch(r"anocir: (.+|container does not exist\nanocir: missing in .+)\n", text)
    )


@pytest.mark.needs("root")
@pytest.mark.parametrize("command", ["--version", "features", "state missing", "run"])
def test_too_little_memory_is_said_in_one_line(watched: Watched, command: str) -> None:
    """From where Python itself can read a line to where the command can be done."""
    watched.write("/bin/true")
    words = command.split()
    if command == "run":
        words = ["run", "--bundle", str(watched.bundle), watched.id]
    step = 128 << 10
    size = 11 << 20
    while limited(resource.RLIMIT_AS, size, PYTHON, "-IBSc", BEGINS).returncode:
        size += step
    said: list[str] = []
    nobody = "anocir: container does not exist\n"
    while said[-2:] != ["", ""] and not all(one.startswith(nobody) for one in [*said[-2:], ""][:2]):
        done = limited(
            resource.RLIMIT_AS, size, watched.source, "--root", str(watched.root), *words
        )
        said.append(done.stderr)
        if command == "run":
            # Where there is no memory to clean up either, that is left to --force.
            words_ = ("--root", str(watched.root), "delete", "--force", watched.id)
            subprocess.run([watched.source, *words_], check=True)
        size += step
        assert size < 64 << 20, said
    # the first line, which has no room to catch anything
    python = (
        'Traceback (most recent call last):\n  File "<string>", line 1, in <module>\nMemoryError\n'
    )
    # nothing, if what this Python begins with is enough for the command as well
    assert python not in said[-3:-2]
    for text in said:
        assert text in ("", python) or one_line(text), text
        assert "bug" not in text
    assert not watched.root.exists() or not any(watched.root.iterdir())


@pytest.mark.parametrize("count", range(4, 9))
def test_too_few_descriptors_are_said_in_one_line(archive: str, tmp_path: Path, count: int) -> None:
    for words in (["--version"], ["list"], ["state", "missing"], ["run", "missing"]):
        root = ["--root", str(tmp_path / "root")]
        said = limited(resource.RLIMIT_NOFILE, count, archive, *root, *words).stderr
        assert said == "" or one_line(said), said
        assert "bug" not in said and "Errno" not in said


@pytest.mark.needs("root")
def test_closed_standard_streams_without_dev_null_are_said_in_one_line(archive: str) -> None:
    script = 'mount -t tmpfs none /dev && "$1" list <&-'
    done = run("unshare", "-m", "sh", "-c", script, "sh", archive)
    assert (done.returncode, done.stdout, done.stderr) == (
        1, "", "anocir: cannot load itself: /dev/null: no such file or directory\n",
    )  # fmt: skip


@pytest.mark.needs("root")
def test_without_a_block_everything_is_compiled_in_both_processes(watched: Watched) -> None:
    """What the test above counts is there to be counted."""
    usual = watched.life(watched.archive_for(PYTHON, list(PYTHONS)))
    found = watched.life(watched.archive_for(PYTHON, []))
    for name, made in found.items():
        ours = {module for module in usual[name]["import"] if module.startswith("anocir/")}
        assert len(made["compile"]) >= len(ours) > 3, name


# repack ---------------------------------------------------------------------------------------


def own(archive: str) -> str:
    return ".".join(map(str, version_of(PYTHON)))


@pytest.fixture
def lone(archive: str, tmp_path: Path) -> Path:
    """An archive with the block of the first line's Python alone, in a directory of its own."""
    directory = tmp_path / "bin"
    directory.mkdir(mode=0o755)
    only(archive, directory / "anocir", own(archive))
    return directory / "anocir"


@pytest.mark.needs("root")
def test_closed_standard_descriptors_are_filled_without_a_block_too(
    watched: Watched, lone: Path
) -> None:
    """The archive itself, which lands on 0 then, is not taken for what the caller has there."""
    watched.write("/bin/sleep", "1000")
    script = 'exec 0<&- 1>&- 2>&-; exec "$@"'
    root = ["--root", str(watched.root)]
    for python in [*OTHERS.values(), PYTHON]:
        start = [python, "-IBS", str(lone), *root]
        create = ["create", "--bundle", str(watched.bundle), watched.id]
        subprocess.run(["/bin/sh", "-c", script, "sh", *start, *create], check=True)
        state = json.loads(run(watched.source, *root, "state", watched.id).stdout)
        found = [os.readlink(f"/proc/{state['pid']}/fd/{number}") for number in range(3)]
        assert run(watched.source, *root, "delete", "--force", watched.id).returncode == 0
        assert found == ["/dev/null"] * 3, python


def intact(path: Path, before: bytes) -> None:
    """The file is what it was, and nothing lies beside it."""
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


def any_other() -> str:
    if not OTHERS:
        pytest.skip("[pythons] this machine has one Python alone")
    return list(OTHERS)[-1]


@pytest.mark.parametrize("python", OTHERS)
def test_repack_adds_what_a_build_would_have(
    archive: str, tmp_path: Path, lone: Path, python: str
) -> None:
    lone.chmod(0o750)
    link = tmp_path / "link"
    link.symlink_to(lone)
    done = run(OTHERS[python], str(link), "repack")
    assert (done.returncode, done.stderr) == (0, "")
    expected = only(archive, tmp_path / "expected", own(archive), python)
    intact(lone, Path(expected).read_bytes())
    assert lone.stat().st_mode & 0o7777 == 0o750
    assert link.is_symlink()
    assert done.stdout == f"{lone}: Python {', '.join(blocks(lone))}\n"
    assert run(str(lone), "--version").stdout.endswith(f"Python {', '.join(blocks(lone))}\n")
    # once more there is nothing to do, and the file is not touched
    inode = lone.stat().st_ino
    again = run(OTHERS[python], str(lone), "repack")
    assert (again.returncode, again.stdout) == (
        0, f"{lone}: has a block for Python {python} already\n",
    )  # fmt: skip
    assert lone.stat().st_ino == inode


def test_repack_does_not_depend_on_how_it_is_started(archive: str, lone: Path) -> None:
    python = OTHERS[any_other()]
    before = lone.read_bytes()
    made = set()
    for options, environment in (
        ([], {}),
        (["-IBS"], {}),
        (["-X", "dev", "-W", "error", "-O"], {"PYTHONHASHSEED": "77", "LC_ALL": "C"}),
        (["-OO"], {"PYTHONSAFEPATH": "1", "PYTHONUTF8": "1", "PYTHONNODEBUGRANGES": "1"}),
    ):
        lone.write_bytes(before)
        done = run(python, *options, str(lone), "repack", env={**os.environ, **environment})
        assert (done.returncode, done.stderr) == (0, "")
        made.add(lone.read_bytes())
    assert len(made) == 1


def test_repack_writes_to_another_place(archive: str, tmp_path: Path, lone: Path) -> None:
    python = any_other()
    before = lone.read_bytes()
    target = tmp_path / "new"
    for _ in range(2):  # the second time it replaces the first
        done = run(OTHERS[python], str(lone), "repack", "--output", "new", cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        intact(lone, before)
        assert sorted(blocks(target)) == sorted([own(archive), python])
        assert target.stat().st_mode & 0o7777 == 0o755
    assert run(str(target), "--version").returncode == 0


def refused(done: subprocess.CompletedProcess[str], *words: str) -> None:
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("anocir: ")
    for word in (*words, "--output FILE"):
        assert word in done.stderr
    assert "Traceback" not in done.stderr
    assert "bug" not in done.stderr


def test_repack_in_a_directory_that_it_may_not_write(
    archive: str, tmp_path: Path, lone: Path
) -> None:
    python = OTHERS[any_other()]
    before = lone.read_bytes()
    lone.parent.chmod(0o555)
    if os.geteuid():
        done = run(python, str(lone), "repack")
    else:  # root may, so one without privileges; its Python may be out of reach
        setpriv = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"]
        if not shutil.which("setpriv"):
            pytest.skip("[setpriv] this machine has not setpriv")
        done = run(*setpriv, python, str(lone), "repack")
    refused(done, str(lone.parent), "permission denied")
    intact(lone, before)


@pytest.mark.needs("root")
def test_repack_on_a_read_only_file_system(archive: str, lone: Path) -> None:
    python = OTHERS[any_other()]
    before = lone.read_bytes()
    directory = str(lone.parent)
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && exec "$2" "$1/anocir" repack'
    )
    done = run("unshare", "-m", "sh", "-c", script, "sh", directory, python)
    refused(done, directory, "read-only file system")
    intact(lone, before)


@pytest.mark.needs("root")
@pytest.mark.parametrize("room", [0, 4096, 100_000])
def test_repack_on_a_full_disk(archive: str, tmp_path: Path, lone: Path, room: int) -> None:
    python = OTHERS[any_other()]
    size = lone.stat().st_size + room + 8192
    target = tmp_path / "full"
    target.mkdir()
    script = (
        'mount -t tmpfs -o size="$3" none "$4" && cp "$1" "$4/anocir" && cd / && '
        '{ "$2" "$4/anocir" repack; status=$?; ls -A "$4" >&2; cmp "$1" "$4/anocir" >&2 || exit 9; exit $status; }'
    )
    done = run("unshare", "-m", "sh", "-c", script, "sh", str(lone), python, str(size), str(target))
    assert done.stderr.splitlines()[-1] == "anocir"
    refused(done, str(target), "no space left on device")


KILLED = ("flock", "write", "fchmod", "fsync", "linkat", "rename")


@pytest.mark.skipif(not shutil.which("strace"), reason="[strace] this machine has not strace")
@pytest.mark.parametrize("call", KILLED)
def test_repack_that_is_killed_leaves_the_old_archive_or_the_new_one(
    archive: str, tmp_path: Path, lone: Path, call: str
) -> None:
    python = any_other()
    before = lone.read_bytes()
    expected = Path(only(archive, tmp_path / "expected", own(archive), python)).read_bytes()
    strace = ["strace", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL"]
    if call == "write":
        # the small ones are those of the program that compiles and reports
        strace[-1] += ":when=1+"
    done = run(*strace, OTHERS[python], str(lone), "repack")
    assert done.returncode in (137, -9), (done.returncode, done.stderr)
    assert lone.read_bytes() in (before, expected)
    assert run(str(lone), "--version").returncode == 0
    # what is left of it, at most a file whose name shows whose it is, goes with the next one
    left = {entry.name for entry in lone.parent.iterdir()}
    assert left <= {"anocir", ".anocir.repack"}
    lone.write_bytes(before)
    assert run(OTHERS[python], str(lone), "repack").returncode == 0
    intact(lone, expected)


def test_two_at_once_lose_nothing(archive: str, tmp_path: Path, lone: Path) -> None:
    if len(OTHERS) < 2:
        pytest.skip("[pythons] this machine has no three Pythons")
    # Each takes its code from the built archive and compiles nothing: sooner, and all the more at
    # the same time, at what this is about, the lock and the new file.
    words = [str(lone), "repack", f"--old={archive}"]
    # Two for each block.
    running = [
        subprocess.Popen([path, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for path in [*OTHERS.values()] * 2
    ]
    for one in running:
        said = one.communicate(timeout=drive.TIMEOUT)
        assert (one.returncode, said[1]) == (0, b""), said
    intact(lone, Path(only(archive, tmp_path / "all", *PYTHONS)).read_bytes())


def test_repack_of_what_is_no_whole_archive(archive: str, lone: Path) -> None:
    """Its own block is whole, so it starts; what is at the end would be lost."""
    with open(lone, "rb") as file:
        code = file.readline().decode().partition(" -IBSc")[2].rstrip("\n")
    whole = lone.read_bytes()
    for cut in (1, 30, 3000):
        lone.write_bytes(whole[:-cut])
        done = run(PYTHON, "-IBSc", code, str(lone), "repack", "--output", f"{lone}.new")
        assert (done.returncode, done.stderr) == (
            1,
            "anocir: this is not a whole archive of anocir\n",
        )
        intact(lone, whole[:-cut])


def test_repack_says_what_else_stops_it(archive: str, tmp_path: Path, lone: Path) -> None:
    python = OTHERS[any_other()]
    result = run(sys.executable, "-m", "anocir", "repack", cwd=TOP)
    assert (result.returncode, result.stderr) == (
        1, "anocir: repack: this runs from a source tree, not from an archive\n",
    )  # fmt: skip
    for target, words in (
        (tmp_path / "no" / "file", "no such file or directory"),
        (tmp_path, "no file that could be replaced"),
        (Path("/dev/null"), "no file that could be replaced"),
    ):
        result = run(python, str(lone), "repack", "--output", str(target))
        assert result.returncode == 1
        assert words in result.stderr
        assert "bug" not in result.stderr
    assert [entry.name for entry in lone.parent.iterdir()] == ["anocir"]


# build.py -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Path]]:
    """Two builds for the same two interpreters, which are named in another order."""
    python = OTHERS[any_other()]
    made = []
    for number in range(2):
        path = tmp_path_factory.mktemp("pair") / "anocir"
        pythons = [PYTHON, python, PYTHON] if number else [PYTHON, python]
        options = [word for name in pythons for word in ("--python", name)]
        build = [sys.executable, str(TOP / "build.py"), *options, "--output", str(path)]
        subprocess.run(build, check=True, capture_output=True)
        made.append(path)
    yield made


def test_build_makes_a_block_for_each_interpreter_that_it_is_given(
    archive: str, tmp_path: Path, pair: list[Path]
) -> None:
    expected = Path(only(archive, tmp_path / "expected", own(archive), any_other())).read_bytes()
    assert pair[0].read_bytes() == pair[1].read_bytes() == expected


def test_the_first_interpreter_that_is_given_is_in_the_first_line(tmp_path: Path) -> None:
    python = OTHERS[any_other()]
    path = tmp_path / "anocir"
    build = [sys.executable, str(TOP / "build.py"), "--python", python, "--output", str(path)]
    subprocess.run(build, check=True, capture_output=True)
    with open(path, "rb") as file:
        line = file.readline().decode()
    assert line.startswith(f"#!{python} -IBSc")
    assert len(line) <= 128
    assert blocks(path) == [any_other()]
    assert run(str(path), "--version").returncode == 0


@pytest.mark.parametrize("python", ["/nonexistent/python3", "/bin/sh", *TOO_OLD.values()])
def test_build_refuses_what_is_no_interpreter_for_it(tmp_path: Path, python: str) -> None:
    build = [sys.executable, str(TOP / "build.py"), "--python", PYTHON, "--python", python]
    result = run(*build, "--output", str(tmp_path / "anocir"))
    assert (result.returncode, result.stderr) == (
        1,
        f"build.py: {python} is no CPython 3.9 or newer\n",
    )


# a Python that is not whole -------------------------------------------------------------------


def lean(python: str, directory: Path, lacking: str) -> str:
    """A copy of an interpreter whose extension modules are there but for one."""
    where = run(
        python, "-IBSc", "import sys, os; print(os.path.realpath(sys.executable), os.__file__)"
    )
    binary, library = where.stdout.split()
    library = os.path.dirname(library)
    target = directory / "lib" / os.path.basename(library)
    dynload = target / "lib-dynload"
    dynload.mkdir(parents=True)
    for name in os.listdir(library):
        if name != "lib-dynload":
            (target / name).symlink_to(os.path.join(library, name))
    for name in os.listdir(os.path.join(library, "lib-dynload")):
        if not name.startswith(lacking + "."):
            (dynload / name).symlink_to(os.path.join(library, "lib-dynload", name))
    (directory / "bin").mkdir()
    return shutil.copy(binary, directory / "bin" / "python3")


@pytest.mark.needs("root")
@pytest.mark.parametrize("lacking", ["_ctypes", "_json", "_socket", "_struct", "fcntl", "select"])
def test_a_python_that_lacks_a_module_is_told_so_by_each_command(
    watched: Watched, tmp_path: Path, lacking: str
) -> None:
    def apart(python: str) -> bool:
        code = f"import {lacking} as m; raise SystemExit(not hasattr(m, '__file__'))"
        return run(python, "-IBSc", code).returncode == 0

    whole = next((path for path in PYTHONS.values() if apart(path)), "")
    if not whole:
        pytest.skip(f"[pythons] every Python of this machine has {lacking} built in")
    python = lean(whole, tmp_path / "lean", lacking)
    archive = watched.source
    root = ["--root", str(watched.root)]
    wanted = f"anocir: {python} lacks {lacking}: install python3 (python3-minimal is not enough)\n"
    watched.write("/bin/true")
    container = ["--bundle", str(watched.bundle), watched.id]
    said = set()
    for words in (
        ["--version"], ["features"], ["list"], ["state", "x"], ["kill", "x"], ["delete", "x"],
        ["run", *container], ["create", *container], ["exec", watched.id, "/bin/true"],
        ["delete", "--force", watched.id],
    ):  # fmt: skip
        with open(tmp_path / "output", "w+") as output:  # a container keeps what it is given
            done = subprocess.run(
                [python, archive, *root, *words],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, check=False,
            )  # fmt: skip
            output.seek(0)
            text = output.read()
        assert "bug" not in text and "Traceback" not in text
        if done.returncode and words[0] not in ("state", "kill", "exec", "delete"):
            assert text == wanted, words
        if f" lacks {lacking}" in text:
            assert text == wanted, words
        said.add(text)
    assert (wanted in said) == (lacking != "_json")  # jsonio does without
    run(archive, *root, "delete", "--force", watched.id)
    assert not watched.root.exists() or not any(watched.root.iterdir())
