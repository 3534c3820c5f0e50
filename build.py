#!/usr/bin/env python3
"""Build dist/anocir: one executable zip of the package, which depends on no other.

shiv packs; then this script rewrites the archive for start-up time:

* the first line runs `-c` code that puts <archive>/site-packages on sys.path and calls the
  door, so nothing is extracted and neither runpy nor shiv's bootstrap is imported (6 and 45 ms);
* between it and the zip lies a block of compiled modules for each Python from 3.9 on that this
  machine has (anocir/base/archive.py): `repack` of the archive itself adds them, here as anywhere;
* entries are stored, in a fixed order and with a fixed time: equal sources and interpreters give
  equal bytes.

usage: build.py [build]          write dist/anocir
       build.py --check          build twice and compare byte for byte
       build.py tools            install shiv below build/venv (from the network, or --wheels DIR)
       build.py release          build, and write what is published to dist/anocir-VERSION
       build.py share --into DIR write man page and completions of what is built below DIR/share
"""

from __future__ import annotations

import argparse
import calendar
import glob
import hashlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from anocir import __version__ as VERSION  # noqa: N812
from anocir import errors
from anocir.base import archive

TOP = Path(__file__).resolve().parent
PYTHON = "/usr/bin/python3"
DIST = TOP / "dist" / "anocir"
VENV = TOP / "build" / "venv"
TOOLS = ("shiv==1.0.8",)

# Old kernels read 128 bytes of the first line, the last of which is the terminating zero.
FIRST_LINE_LIMIT = 127
FIRST_LINE = (
    '#!{python} -IBScimport sys,marshal;f=open(sys.argv[1],"rb");f.readline();exec(marshal.load(f))'
)
# For `python3 dist/anocir`: on from the second line, as from the first one.  sys.path[0] is the
# archive, in which modules of the standard library would be looked for first.
MAIN = """\
import sys, marshal

if sys.version_info < (3, 9):  # on 2.7 too
    v = (sys.executable,) + sys.version_info[:2]
    sys.exit("anocir: needs Python 3.9 or newer, %s is %d.%d" % v)
del sys.path[0]
f = open(sys.argv[0], "rb")
f.readline()
exec(marshal.load(f))
"""
EPOCH = (1980, 1, 1, 0, 0, 0)


def main() -> int:
    """Read the command line and build."""
    parser = argparse.ArgumentParser(description="Build dist/anocir.")
    kinds = ["build", "tools", "release", "share"]
    parser.add_argument("what", nargs="?", default="build", choices=kinds)
    parser.add_argument(
        "--check",
        action="store_true",
        help="build from nothing, twice or beside --output's, and compare",
    )
    parser.add_argument(
        "--python",
        action="append",
        metavar="FILE",
        help="an interpreter to compile for, may be repeated; the first one is to run the archive "
        f"[{PYTHON}, and what there is from 3.9 on in PATH and pyenv]",
    )
    parser.add_argument("--output", type=Path, default=DIST, metavar="FILE")
    parser.add_argument("--into", type=Path, default=DIST.parent, metavar="DIR")
    parser.add_argument(
        "--wheels", default="", metavar="DIR", help="install shiv from the files in DIR"
    )
    options = parser.parse_args()
    if options.what == "share":
        for name, content in shared(options.output).items():
            put(options.into / name, content)
        return 0
    notes = release_notes() if options.what == "release" else ""
    tools = find_tools(options.wheels)
    if options.what == "tools":
        return 0
    pythons = interpreters(options.python or [])
    data = build(tools, pythons, None if options.check else usable(DIST))
    if options.check:
        beside = options.output if options.output != DIST else None
        again = beside.read_bytes() if beside else build(tools, pythons, None)
        if data != again:
            sys.exit("build.py: two builds of the same sources differ")
        print(f"reproducible: {hashlib.sha256(data).hexdigest()}")
        return 0
    write(options.output, data)
    versions = archive.listed(archive.parse(data).versions())
    print(f"{options.output}: {len(data)} bytes for {pythons[0]}, compiled for {versions}")
    if options.what == "release":
        target = DIST.parent / f"anocir-{VERSION}"
        shutil.rmtree(target, ignore_errors=True)
        for name, content in release(options.output, notes).items():
            put(target / name, content)
        (target / "anocir").chmod(0o755)
        print(f"{target}: try it by tests/fresh.py, then: git tag -a v{VERSION}")
    return 0


def put(path: Path, content: bytes) -> None:
    """Write a file and the directories that it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def release_notes(changelog: str | None = None) -> str:
    """Return the section of this version in the changelog; without one nothing is released."""
    text = changelog or (TOP / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(rf"(?ms)^## {re.escape(VERSION)} - \d{{4}}-\d\d-\d\d\n.*?(?=^## |\Z)", text)
    if found is None:
        sys.exit(f"build.py: CHANGELOG.md has no section `## {VERSION} - YYYY-MM-DD`")
    return found[0].rstrip() + "\n"


def released() -> int:
    """Return the day of this version's section, in seconds since 1970: the man page names it."""
    text = release_notes().split("\n", 1)[0].rpartition(" ")[2]
    year, month, day = (int(part) for part in text.split("-"))
    return calendar.timegm((year, month, day, 0, 0, 0))


# What `completion` prints, and where a system looks for it below PREFIX.
SHARED = {
    "man": "share/man/man8/anocir.8",
    "bash": "share/bash-completion/completions/anocir",
    "zsh": "share/zsh/site-functions/_anocir",
    "fish": "share/fish/vendor_completions.d/anocir.fish",
}


def shared(built: Path) -> dict[str, bytes]:
    """Return the man page and the completions, by their paths below PREFIX."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(released())}
    files = {}
    for kind, path in SHARED.items():
        made = subprocess.run(
            [sys.executable, "-IBS", built, "completion", kind],
            check=False, capture_output=True, env=environment,
        )  # fmt: skip
        if made.returncode:
            said = made.stderr.decode().strip() or f"{built} completion {kind} failed"
            sys.exit(f"build.py: {said}")
        files[path] = made.stdout
    return files


def release(built: Path, notes: str) -> dict[str, bytes]:
    """Return what is published, by name: equal for equal archives and changelogs."""
    files = {Path(path).name: content for path, content in shared(built).items()}
    files["anocir.bash"] = files.pop("anocir")
    files["anocir"] = built.read_bytes()
    files["CHANGES.md"] = notes.encode()
    files["LICENSE"] = (TOP / "LICENSE").read_bytes()
    sums = [f"{hashlib.sha256(files[name]).hexdigest()}  {name}\n" for name in sorted(files)]
    files["SHA256SUMS"] = "".join(sums).encode()
    return files


def usable(path: Path) -> Path | None:
    """Return the path of an older archive if it is one."""
    try:
        archive.parse(path.read_bytes())
    except (OSError, errors.Error):
        return None
    return path


def interpreters(given: list[str]) -> list[str]:
    """Return one interpreter for each minor version, of those given or of all there are."""
    first = given or [PYTHON]
    found: dict[tuple[int, int], str] = {}
    seen = set()
    for path in [*first, *([] if given else candidates())]:
        real = os.path.realpath(path)
        version = (0, 0) if real in seen else version_of(path)
        seen.add(real)
        if version >= (3, 9):
            found.setdefault(version, path)
        elif path in first and real not in map(os.path.realpath, found.values()):
            sys.exit(f"build.py: {path} is no CPython 3.9 or newer")
    return list(found.values())


def candidates() -> list[str]:
    """Return what may be interpreters in PATH, without pyenv's scripts there, and in pyenv."""
    root = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    places = [path for path in os.get_exec_path() if os.path.basename(path) != "shims"]
    patterns = [f"{place}/python3*" for place in places] + [f"{root}/versions/*/bin/python3"]
    paths = [path for pattern in patterns for path in sorted(glob.glob(pattern))]
    return [path for path in paths if re.fullmatch(r"python3(\.\d+)?", os.path.basename(path))]


def version_of(python: str) -> tuple[int, int]:
    """Ask a CPython for its minor version; (0, 0) if it is none, or does not run."""
    code = "import sys; print(*sys.version_info[:2], sys.implementation.name)"
    try:
        asked = subprocess.run(
            [python, "-IBSc", code], check=False, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0, 0
    words = asked.stdout.split()
    if asked.returncode or len(words) != 3 or words[2] != "cpython":
        return 0, 0
    return int(words[0]), int(words[1])


def find_tools(wheels: str = "") -> str:
    """Return an interpreter that has shiv; make a virtual environment if none has.

    `wheels` is a directory with the files of shiv, for who has no network.
    """
    for candidate in (sys.executable, str(VENV / "bin" / "python3")):
        if Path(candidate).exists() and has_tools(candidate):
            return candidate
    print(f"installing {' and '.join(TOOLS)} below {VENV} ...", flush=True)
    made = subprocess.run([PYTHON, "-m", "venv", "--clear", VENV], check=False)
    if made.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        sys.exit(
            "build.py: cannot make a virtual environment\n"
            "build.py: on Debian and Ubuntu: apt-get install python3-venv, or make demo"
        )
    pip = [VENV / "bin" / "python3", "-m", "pip", "install", "--quiet",
           "--disable-pip-version-check", "--retries", "0", "--timeout", "10"]  # fmt: skip
    offline = wheels or os.environ.get("PIP_NO_INDEX")
    if wheels:
        if not Path(wheels).is_dir():
            sys.exit(f"build.py: --wheels: there is no directory {wheels}")
        pip += ["--no-index", "--find-links", wheels]
    said = subprocess.run([*pip, *TOOLS], check=False, capture_output=True, text=True)
    if said.returncode:
        shutil.rmtree(VENV, ignore_errors=True)
        lines = [line for line in said.stderr.split("\n") if line.startswith("ERROR: ")]
        why = lines[-1][7:] if lines else "pip failed"
        where = wheels or os.environ.get("PIP_FIND_LINKS", "")
        sys.exit(
            f"build.py: cannot install {' and '.join(TOOLS)} from {where}: {why}"
            if offline
            else f"build.py: cannot fetch {' and '.join(TOOLS)} ({why}): without a network, "
            f"`pip download -d DIR {' '.join(TOOLS)}` elsewhere and `make build WHEELS=DIR` here"
        )
    return str(VENV / "bin" / "python3")


def has_tools(python: str) -> bool:
    """Tell whether an interpreter has the packages in the versions that are pinned above."""
    code = (
        "import importlib.metadata as m, sys\n"
        "for tool in sys.argv[1:]:\n"
        "    name, version = tool.split('==')\n"
        "    try: sys.exit(1) if m.version(name) != version else None\n"
        "    except m.PackageNotFoundError: sys.exit(1)\n"
    )
    return subprocess.run([python, "-c", code, *TOOLS], check=False).returncode == 0


def build(tools: str, pythons: list[str], old: Path | None) -> bytes:
    """Return the bytes of the archive, with a block for each interpreter; the first one runs it.

    What has not changed since the `old` one is not compiled again.
    """
    line = FIRST_LINE.format(python=pythons[0])
    if len(line) > FIRST_LINE_LIMIT:
        sys.exit(f"build.py: {pythons[0]}: the first line would have {len(line)} characters")
    with tempfile.TemporaryDirectory(prefix="anocir-build-") as scratch:
        site = Path(scratch, "site-packages")
        stage(site)
        packed = Path(scratch, "packed")
        pack(tools, site, packed, line)
        files = {}
        with zipfile.ZipFile(packed) as shivs:
            for name in shivs.namelist():
                inner = name.partition("site-packages/")[2]
                if inner:
                    files[f"site-packages/{inner}"] = shivs.read(name)
            # What shiv wrote about the build, for its command shiv-info.
            files["environment.json"] = shivs.read("environment.json")
        files["__main__.py"] = MAIN.encode()
        bare = archive.Archive(line.encode(), archive.second(), [], zipped(files))
        made = Path(scratch, "anocir")
        made.write_bytes(bare.pack())
        repack(made, pythons, old)
        return made.read_bytes()


def repack(path: Path, pythons: list[str], old: Path | None) -> None:
    """Let each interpreter add its block, side by side."""
    running = [
        subprocess.Popen(
            [python, "-IBS", path, "repack", f"--old={old or ''}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for python in pythons
    ]  # fmt: skip
    said = [one.communicate()[0] for one in running]
    for python, one, text in zip(pythons, running, said):
        if one.returncode:
            sys.exit(f"build.py: {python}: {text.strip()}")


def stage(site: Path) -> None:
    """Lay out what goes in: the package and its commit."""
    shutil.copytree(TOP / "anocir", site / "anocir", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(TOP / "LICENSE", site / "anocir" / "LICENSE")
    Path(site, "anocir", "build_id.py").write_text(
        f'"""Written by build.py."""\n\nCOMMIT = "{commit(site)}"\n', encoding="utf-8"
    )


def commit(site: Path) -> str:
    """Name the sources: the commit if the package is as committed, else a hash of its content."""
    git = shutil.which("git")
    if git and (TOP / ".git").exists():
        run = [git, "-C", str(TOP)]
        state = subprocess.run(
            [*run, "status", "--porcelain", "--", "anocir", "build.py"],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        head = subprocess.run(
            [*run, "rev-parse", "HEAD"], check=False, capture_output=True, text=True
        )
        if state.returncode == head.returncode == 0 and not state.stdout:
            return head.stdout.strip()
    digest = hashlib.sha256()
    for path in sorted(site.rglob("*.py")):
        digest.update(f"{path.relative_to(site)}\0".encode() + path.read_bytes() + b"\0")
    return f"sources-{digest.hexdigest()[:16]}"


def pack(tools: str, site: Path, target: Path, line: str) -> None:
    """Let shiv make the archive."""
    environment = {**os.environ, "SOURCE_DATE_EPOCH": "315532800"}
    command = [tools, "-W", "ignore", "-m", "shiv", "--site-packages", site, "--python", line[2:],
               "--entry-point", "anocir.__main__:main", "--reproducible", "--uncompressed",
               "--output-file", target]  # fmt: skip
    subprocess.run(command, check=True, env=environment)


def zipped(files: dict[str, bytes]) -> bytes:
    """Return the zip of sources, the package first."""
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as made:
        for name in sorted(files, key=_rank):
            info = zipfile.ZipInfo(name, EPOCH)
            info.external_attr = 0o100644 << 16
            made.writestr(info, files[name])
    return target.getvalue()


def _rank(name: str) -> tuple[bool, str]:
    return not name.startswith("site-packages/anocir/"), name


def write(path: Path, data: bytes) -> None:
    """Replace the file at once: a running container may still import from the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.new")
    new.write_bytes(data)
    new.chmod(0o755)
    new.replace(path)


if __name__ == "__main__":
    sys.exit(main())
