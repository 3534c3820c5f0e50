"""Runtimes that are known to fail: an attack counts as a test only once it has been seen to succeed.

The shipped program has no switch for this. `altered` makes a copy of the built archive in which code is appended to
some modules, where it replaces functions: everything else is what users run. Debian's runc 1.1.5 and crun
1.8.1 lack defences of their own and need no change.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import zipfile
from typing import Mapping

from anocir.base import archive as head
from tests import drive, machine

PYTHON = "/usr/bin/python3"


def altered(
    archive: str,
    target: str,
    additions: Mapping[str, str] | None = None,
    interpreter: str = "",
    first_line: str = "",
) -> None:
    """Copy the archive with code appended to modules ("linux/tasks": source) and another first line."""
    left = dict(additions or {})
    with open(archive, "rb") as file:
        found = head.parse(file.read())
    line = first_line or found.line.decode()
    # Else what is meant for a copy of the interpreter would be done to the one that is named there.
    assert not interpreter or PYTHON in line, f"not an archive for {PYTHON}: {line}"
    found.line = line.replace(PYTHON, interpreter or PYTHON, 1).encode()
    # What is in no Python's block comes from the zip.
    names = {"anocir." + name.replace("/", ".") for name in left}
    found.blocks = [block.without(names) for block in found.blocks]
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_STORED) as new:
        for name, data in found.sources().items():
            module = name.partition("anocir/")[2].rpartition(".")[0].replace("/__init__", "")
            new.writestr(name, data + b"\n\n" + left.pop(module, "").encode())
    found.zip = zipped.getvalue()
    assert not left, f"the archive has no module {', '.join(left)}"
    with open(target, "wb") as file:
        file.write(found.pack())
    os.chmod(target, 0o755)


def another(like: drive.Runtime, path: str, name: str, tag: str) -> drive.Runtime:
    """A runtime beside the one under test, with its own --root."""
    made = drive.Runtime.__new__(drive.Runtime)
    made.path = path
    made.name = name
    made.oci_version = drive.OCI_VERSIONS[name]
    made.directory = like.directory
    made.template = like.template
    made.under = like.under
    made.root = os.path.join(like.directory, "root-" + tag)
    os.makedirs(made.root, 0o700, exist_ok=True)
    return made


def lacks_installed(name: str, version: str) -> str:
    """What is missing for a control with an installed runtime, which is vulnerable in one version only."""
    path = shutil.which(name)
    if not path:
        return f"{name} {version}"
    text = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    return "" if text.split("\n")[0].endswith(version) else f"{name} {version}"


def installed(like: drive.Runtime, name: str) -> drive.Runtime:
    """An installed runtime; crun without the version 2 hierarchy of a hybrid host, which it refuses."""
    path = shutil.which(name) or name
    hidden = machine.v2_mountpoint() or "/sys/fs/cgroup/unified"
    if name == "crun" and not machine.missing("cgroup1") and os.path.isdir(hidden):
        script = os.path.join(like.directory, "crun")
        # A fresh tmpfs takes the directories that crun makes in the place of the cgroups.
        with open(script, "w") as file:
            file.write(
                "#!/bin/sh\nexec unshare -m sh -c '\n"
                f'umount {hidden} 2> /dev/null; mount -t tmpfs none {hidden}; exec {path} "$@"\' crun "$@"\n'
            )
        os.chmod(script, 0o755)
        path = script
    return another(like, path, name, name)


# interpreters ---------------------------------------------------------------------------------

_ASK = "import sys;print(*sys.version_info[:2]);print(sys.implementation.name)"


def interpreters() -> dict[str, str]:
    """The other interpreters of this machine by version: $ANOCIR_TEST_PYTHONS, else the usual places."""
    given = os.environ.get("ANOCIR_TEST_PYTHONS")
    if given is not None:
        candidates = given.split(os.pathsep)
    else:
        candidates = []
        pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
        versions = os.path.join(pyenv, "versions")
        if os.path.isdir(versions):
            candidates += [f"{versions}/{name}/bin/python3" for name in os.listdir(versions)]
        for directory in ("/usr/bin", "/usr/local/bin"):
            names = os.listdir(directory) if os.path.isdir(directory) else []
            candidates += [
                f"{directory}/{name}"
                for name in names
                if name.startswith("python3.") and name[8:].isdigit()
            ]
    found: dict[str, str] = {}
    usual = _version(PYTHON)
    for path in sorted(filter(os.path.exists, candidates)):
        version = _version(path)
        if version and version >= (3, 9) and version != usual:
            found.setdefault(".".join(map(str, version)), path)
    return dict(sorted(found.items(), key=lambda row: int(row[0][2:])))


def _version(path: str) -> tuple[int, ...]:
    done = subprocess.run([path, "-IS", "-c", _ASK], capture_output=True, text=True, check=False)
    numbers, _, name = done.stdout.strip().partition("\n")
    return tuple(int(word) for word in numbers.split()) if name == "cpython" else ()


def library_directories(interpreter: str) -> list[str]:
    """The directories of an interpreter's standard library."""
    code = "import sys; print(*[p for p in sys.path if p[-4:] != '.zip'], sep='\\n')"
    done = subprocess.run(
        [interpreter, "-IS", "-c", code], capture_output=True, text=True, check=True
    )
    return [path for path in done.stdout.split("\n") if os.path.isdir(path)]


def library_modules() -> list[str]:
    """The names of the standard library's modules, of all versions near to this one."""
    return sorted(name for name in sys.stdlib_module_names if name.isidentifier())
