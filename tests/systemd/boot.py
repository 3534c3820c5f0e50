"""Run commands under a real systemd, natively: boot.sh, whether it can be had, and pytest in it."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
REPOSITORY = os.path.dirname(os.path.dirname(HERE))
SCRIPT = os.path.join(HERE, "boot.sh")
PATIENCE = 280  # seconds


@functools.cache
def lacking(*options: str) -> str:
    """Why no systemd can be booted here; empty if one can: it is tried, which takes a second."""
    if os.geteuid() != 0:
        return "root"
    done = boot(*options, command=("true",))
    lines = done.stdout.strip().splitlines()
    return "" if done.returncode == 0 else f"a systemd that boots: {lines[-1] if lines else '?'}"


def boot(
    *options: str, command: tuple[str, ...], timeout: int = PATIENCE
) -> subprocess.CompletedProcess[str]:
    """Boot, run the command, end everything."""
    return subprocess.run(
        [SCRIPT, *options, "run", *command],
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
        check=False,
    )


def passes(*options: str, files: tuple[str, ...], gates: tuple[str, ...] = ()) -> None:
    """Run these test files inside: all pass, but what needs one of the gates is left out."""
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--host-guard=off")
    # what is tried is what the caller tries, also where it lies outside of the checkout
    runtime = os.path.abspath(os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir"))
    binds = () if runtime.startswith(REPOSITORY) else ("--bind", os.path.dirname(runtime))
    inside = ("env", "-u", "CI", f"RUNTIME={runtime}", "PYTHONDONTWRITEBYTECODE=1", *command)
    done = boot(*options, *binds, command=(*inside, *files))
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-20000:]}"
    assert re.search(r"\d+ passed", done.stdout), done.stdout
    left = re.findall(r"^ *\d+  (?:\[(.+?)\])?", done.stdout, re.MULTILINE)
    assert set(left) <= set(gates), done.stdout
