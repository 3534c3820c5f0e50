#!/usr/bin/python3
"""Try the README's two commands as a stranger would, on fresh Debian systems made by debootstrap; write a table.

usage: fresh.py [--suites bookworm,trixie] [--users root,sudo] [--steps demo,demo-offline,test,test-offline] [--keep]
                [--words WORDS]

For each suite: a minimal system (debootstrap --variant=minbase, then git, make and sudo, which is what the README asks
for), entered as a container is: namespaces of its own, its directory as "/". For each user: a clone of this repository's
HEAD in a home directory with mode 0700; `make demo`, the same again without a network, `make test` (with WORDS), and
that without a network. The clone and what was installed stay between the steps, as they do with a stranger.
Needs root and debootstrap; takes 10 minutes for the demos and an hour for each whole `make test`. Transcripts and the table
are left in build/fresh; the systems are removed unless --keep.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

TOP = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(TOP))

from tests.engines import tree  # noqa: E402

PLACE = TOP / "build" / "fresh"
SUITES = ("bookworm", "trixie")
USERS = ("root", "sudo")
STEPS = ("demo", "demo-offline", "test", "test-offline")
NEEDED = ("git", "make")
ALICE = "alice"
# Where pip finds what it trusts, if this machine's goes through a proxy with a certificate of its own.
CERTIFICATES = "/etc/ssl/pip.pem"
VALID = "Acquire::Check-Valid-Until"

# What an init would do, and then the way into the system for good: its directory becomes "/".
ENTER = """
set -e
mount --bind "$1" "$1"
cd "$1"
mount -t proc proc proc
mount --rbind /sys sys
mount --make-rprivate sys
mount --rbind /dev dev
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/lock
mount -t tmpfs -o mode=1777 tmpfs tmp
pivot_root . mnt
umount -l /mnt
shift
exec "$@"
"""


class Row(NamedTuple):
    """One step and what became of it."""

    suite: str
    user: str
    step: str
    status: int
    seconds: float
    last: str


def main() -> int:
    """Make the systems, go through the steps, print the table."""
    parser = argparse.ArgumentParser(prog="tests/fresh.py")
    for name, known in (("suites", SUITES), ("users", USERS), ("steps", STEPS)):
        parser.add_argument(f"--{name}", default=",".join(known))
    parser.add_argument("--words", default="", help="words for make test, as TESTS=tests/runtime")
    parser.add_argument("--keep", action="store_true", help="leave the systems for a closer look")
    options = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        print("fresh: this needs root and debootstrap", file=sys.stderr)
        return 2
    for name, known in (("suites", SUITES), ("users", USERS), ("steps", STEPS)):
        strangers = set(getattr(options, name).split(",")) - {*known, "sid"}
        if strangers:
            print(f"fresh: --{name} knows {', '.join(known)}", file=sys.stderr)
            return 2
    PLACE.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for suite in options.suites.split(","):
        root = PLACE / suite
        try:
            make_system(suite, root)
            for user in options.users.split(","):
                clone(root, user)
                for step in options.steps.split(","):
                    rows.append(take(root, suite, user, step, options.words))
                    print(line(rows[-1]), flush=True)
        finally:
            if not options.keep:
                shutil.rmtree(root, ignore_errors=True)
    text = table(rows)
    (PLACE / "table.md").write_text(text)
    print("\n" + text)
    return 1 if any(row.status for row in rows) else 0


def make_system(suite: str, root: Path) -> None:
    """Make a minimal system with a user who may use sudo, unless it was kept."""
    if (root / "etc/sudoers.d/alice").exists():
        return
    print(f"fresh: making a minimal Debian {suite}", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    mirror = os.environ.get("DEBIAN_MIRROR") or tree.mirror_of_this_machine()
    with open(PLACE / f"{suite}-debootstrap.log", "wb") as log:
        words = ["debootstrap", "--variant=minbase", *tree.keyrings(), suite, str(root), mirror]
        tree.run(words, log.fileno())
        shutil.copyfile("/etc/resolv.conf", root / "etc/resolv.conf")
        for path in tree.proxies():
            shutil.copy(path, root / "etc/apt/apt.conf.d")
        # A mirror that stands still is out of date by its own word; who uses one has told apt so.
        told = subprocess.run(["apt-config", "dump", VALID], capture_output=True, check=True).stdout
        (root / "etc/apt/apt.conf.d/99valid").write_bytes(told)
        for words in (
            ["apt-get", "-q", "install", "-y", "--no-install-recommends", *NEEDED, "sudo"],
            ["useradd", "--create-home", "--shell", "/bin/bash", ALICE],
            ["chmod", "700", "/root", f"/home/{ALICE}"],
        ):
            tree.run(["chroot", str(root), *words], log.fileno(), environment("root"))
    if "PIP_CERT" in os.environ:
        (root / CERTIFICATES[1:]).parent.mkdir(exist_ok=True)
        shutil.copyfile(os.environ["PIP_CERT"], root / CERTIFICATES[1:])
    (root / "etc/sudoers.d/alice").write_text(f"{ALICE} ALL=(ALL) NOPASSWD: ALL\n")


def home(user: str) -> str:
    """Name a user's home directory."""
    return "/root" if user == "root" else f"/home/{ALICE}"


def environment(user: str) -> dict[str, str]:
    """Give the environment of a login; what pip and apt read from this one's comes along."""
    own = {
        "HOME": home(user),
        "USER": "root" if user == "root" else ALICE,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
        "DEBIAN_FRONTEND": "noninteractive",
    }
    names = [name for name in os.environ if name.lower().endswith("_proxy")]
    names += ["PIP_INDEX_URL", "DEBIAN_MIRROR"]
    if "PIP_CERT" in os.environ:
        own["PIP_CERT"] = CERTIFICATES
    return {**{name: os.environ[name] for name in names if name in os.environ}, **own}


def clone(root: Path, user: str) -> None:
    """Put a clone of HEAD into the user's home directory."""
    target = root / home(user)[1:] / "anocir"
    if target.exists():
        return
    subprocess.run(["git", "clone", "--quiet", "--no-hardlinks", str(TOP), str(target)], check=True)
    if user != "root":
        tree.run(["chroot", str(root), "chown", "-R", f"{ALICE}:", f"{home(user)}/anocir"], 2)


def take(root: Path, suite: str, user: str, step: str, words: str) -> Row:
    """Go through one step and keep its transcript."""
    target, _, offline = step.partition("-")
    more = shlex.split(words) if target == "test" else []
    command = ["make", "-C", f"{home(user)}/anocir", target, *more]
    if user != "root":
        command = ["setpriv", "--reuid", ALICE, "--regid", ALICE, "--init-groups", "--", *command]
    space = ["unshare", "--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child"]
    space += ["--propagation", "private", *(["--net"] if offline else [])]
    log = PLACE / f"{suite}-{user}-{step}.log"
    began = time.monotonic()
    with open(log, "wb") as file:
        status = subprocess.run(
            [*space, "/bin/sh", "-c", ENTER, "enter", str(root), *command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment(user),
            check=False,
        ).returncode
    lines = [one for one in log.read_text(errors="replace").splitlines() if one.strip()]
    last = next((one for one in reversed(lines) if not one.startswith("make")), "")
    return Row(suite, user, step, status, time.monotonic() - began, last.strip("= ")[:90])


def line(row: Row) -> str:
    """Write a row of the table."""
    step = "`make {}`{}".format(
        row.step.partition("-")[0], ", no network" if "-" in row.step else ""
    )
    user = "root" if row.user == "root" else "a user with sudo"
    return f"| {row.suite} | {user} | {step} | {row.status} | {row.seconds:.0f} | {row.last} |"


def table(rows: list[Row]) -> str:
    """Write the whole table."""
    head = "| system | user | command | status | seconds | last line |\n| --- | --- | --- | ---: | ---: | --- |\n"
    return head + "".join(f"{line(row)}\n" for row in rows)


if __name__ == "__main__":
    sys.exit(main())
