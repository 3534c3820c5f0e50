"""Machines that run while other tiers are tested: those leave a processor idle, and a machine needs little more than one.

usage: python -m tests.vm.ahead DIRECTORY

DIRECTORY/jobs.json is a list of command lines. They are run one after the other; N.out has what the Nth wrote, and when it
has ended N.status its exit status. All ends with the process that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import NoReturn

PR_SET_PDEATHSIG = 1  # /usr/include/linux/prctl.h
# What is tested in the foreground comes first.
NICENESS = 5


def ends_with_parent() -> None:
    """Have the kernel send SIGTERM when the parent is gone."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


class Ahead:
    """Commands that run in the background, each result to be taken once."""

    __slots__ = ("directory", "left", "process")

    def __init__(self, jobs: Sequence[Sequence[str]], cwd: str) -> None:
        """Start; the first job runs at once."""
        self.directory = tempfile.mkdtemp(prefix="anocir-ahead-")
        self.left = {tuple(words): number for number, words in enumerate(jobs)}
        with open(os.path.join(self.directory, "jobs.json"), "w", encoding="utf-8") as stream:
            json.dump([list(words) for words in jobs], stream)
        with open(os.path.join(self.directory, "log"), "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.vm.ahead", self.directory],
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=ends_with_parent,
            )

    def take(self, words: Sequence[str]) -> subprocess.CompletedProcess[str] | None:
        """Wait for a command's end; None if it is not among the jobs, or was taken before, or all ended early."""
        number = self.left.pop(tuple(words), None)
        if number is None:
            return None
        path = os.path.join(self.directory, str(number))
        while not os.path.exists(path + ".status"):
            if self.process.poll() is not None and not os.path.exists(path + ".status"):
                return None
            time.sleep(0.1)
        with open(path + ".status", encoding="ascii") as stream:
            status = int(stream.read())
        with open(path + ".out", encoding="utf-8", errors="replace") as stream:
            return subprocess.CompletedProcess(list(words), status, stream.read())

    def close(self) -> None:
        """End what still runs."""
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
        self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


def main(directory: str) -> int:
    """See the module's text."""
    running: list[subprocess.Popen[bytes]] = []

    def end(number: int, frame: object) -> NoReturn:
        for child in running:
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
            child.wait()
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    os.nice(NICENESS)
    with open(os.path.join(directory, "jobs.json"), encoding="utf-8") as stream:
        jobs = json.load(stream)
    for number, words in enumerate(jobs):
        path = os.path.join(directory, str(number))
        with open(path + ".out", "wb") as out:
            child = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT
            )
            running[:] = [child]
            status = child.wait()
            running.clear()
        with open(path + ".new", "w", encoding="ascii") as stream:
            stream.write(str(status))
        os.rename(path + ".new", path + ".status")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
