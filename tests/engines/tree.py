"""The systems whose engines are driven: a Debian tree below build/, or this machine itself.

SUITE=trixie (the default) and SUITE=sid are made by debootstrap and apt, once: the tree is kept below build/trees
(ENGINE_TREES names another place) and used read-only, so that runs may share it. SUITE=host is this machine.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional, Sequence

TOP = Path(__file__).resolve().parents[2]
DEFAULT = "trixie"
HOST = "host"
SUITES = (DEFAULT, "sid", HOST)
MIRROR = "http://deb.debian.org/debian"

# What each is for stands where it is used; all without recommended packages.
PACKAGES = (
    "docker.io docker-cli docker-buildx docker-compose containerd podman buildah"
    " conmon netavark aardvark-dns containernetworking-plugins passt runc crun catatonit tini python3 libseccomp2 busybox-static"
    " iptables nftables iproute2 procps uidmap util-linux kmod ca-certificates fuse-overlayfs"
    " golang-github-containers-common systemd systemd-sysv dbus"
).split()
SETTINGS: Dict[str, str] = {
    # An old mirror's lists are as good as new ones here.
    "etc/apt/apt.conf.d/99engines": 'Acquire::Check-Valid-Until "false";\n'
    'Acquire::Retries "5";\nAPT::Install-Recommends "false";\n',
    # No daemon is started by its package.
    "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 101\n",
    "etc/dpkg/dpkg.cfg.d/engines": "path-exclude=/usr/share/doc/*\npath-exclude=/usr/share/man/*\n"
    "path-exclude=/usr/share/locale/*\nforce-unsafe-io\n",
}


class TreeError(Exception):
    """The tree could not be made."""


def suite() -> str:
    """Name the system whose engines are driven."""
    return os.environ.get("SUITE") or DEFAULT


def place(name: str) -> Path:
    """Give the root directory of a suite's system."""
    if name == HOST:
        return Path("/")
    trees = os.environ.get("ENGINE_TREES") or str(TOP / "build" / "trees")
    return Path(trees).resolve() / name


def find(root: Path, program: str) -> bool:
    """Tell whether a system has a program; a path, or a name on root's PATH."""
    directories = (
        [""] if "/" in program else ["/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
    )
    # A tree's links may be absolute: what counts is that there is an entry.
    return any(os.path.lexists(f"{root}/{one}/{program}") for one in directories)


def missing(name: str) -> str:
    """Say what is lacking to make a suite's tree, with the name of the gate; empty if nothing is."""
    if name == HOST or stamp(name).exists():
        return ""
    if os.geteuid() != 0:
        return "[root] needs root"
    for program in ("debootstrap", "chroot"):
        if not find(Path("/"), program):
            return f"[{program}] {program} is not installed"
    return ""


def stamp(name: str) -> Path:
    """Name the file that says that a tree is complete, for this list of packages and settings."""
    recipe = repr((PACKAGES, sorted(SETTINGS.items()))).encode()
    return place(name) / f".complete-{hashlib.sha256(recipe).hexdigest()[:12]}"


def make(name: str) -> Path:
    """Make the suite's tree unless it is there, one process at a time; give its root directory."""
    root = place(name)
    if name == HOST or stamp(name).exists():
        return root
    root.parent.mkdir(parents=True, exist_ok=True)
    with open(root.parent / f"{name}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not stamp(name).exists():
            began = time.monotonic()
            say(f"making a tree of Debian {name} in {root}: 1 to 5 minutes, 1.3 GB")
            # An old list of packages, or a half of this one.
            shutil.rmtree(root, ignore_errors=True)
            log = root.parent / f"{name}.log"
            with open(log, "w") as file:
                bootstrap(name, root, file.fileno())
            stamp(name).touch()
            say(f"made in {time.monotonic() - began:.0f} s")
    return root


def bootstrap(name: str, root: Path, log: int) -> None:
    """Run debootstrap and one apt call in a mount namespace of their own, whose output goes to `log`."""
    mirror = os.environ.get("DEBIAN_MIRROR") or mirror_of_this_machine()
    keyring = keyrings()
    words = ["debootstrap", "--variant=minbase", *keyring, name, str(root), mirror]
    run(words, log)
    for path, text in SETTINGS.items():
        target = root / path
        target.write_text(text)
        target.chmod(0o755 if text.startswith("#!") else 0o644)
    for path in ("etc/resolv.conf", "etc/hosts"):
        with contextlib.suppress(OSError):
            shutil.copyfile(f"/{path}", root / path)
    for path in proxies():
        shutil.copy(path, root / "etc/apt/apt.conf.d")
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive", LC_ALL="C.UTF-8")
    inside = ["chroot", str(root), "apt-get", "-q"]
    run([*inside, "update"], log, environment)
    run([*inside, "install", "-y", *PACKAGES], log, environment)
    run([*inside, "clean"], log, environment)


def run(words: Sequence[str], log: int, environment: Optional[Dict[str, str]] = None) -> None:
    """Run a command in a mount namespace of its own (what a postinst mounts goes with it)."""
    space = ["unshare", "--mount", "--propagation", "private", "--"]
    done = subprocess.run(
        [*space, *words],
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        check=False,
    )
    if done.returncode:
        os.lseek(log, 0, os.SEEK_SET)
        raise TreeError(f"{' '.join(words[:4])} failed, see {os.readlink(f'/proc/self/fd/{log}')}")


def mirror_of_this_machine() -> str:
    """Give the address that this machine's own apt takes Debian from, else Debian's."""
    words = ["apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN)", "Created-By: Packages"]
    try:
        told = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return MIRROR
    found = re.findall(r"^(\S+?)/? Debian$", told, re.MULTILINE)
    # A security archive has no whole suite.
    return next((one for one in found if "security" not in one), MIRROR)


def keyrings() -> List[str]:
    """Give debootstrap's option for Debian's keys where it would not find them by itself."""
    path = "/usr/share/keyrings/debian-archive-keyring.gpg"
    return ["--keyring", path] if os.path.exists(path) else []


def proxies() -> List[Path]:
    """Give this machine's settings for apt that name a proxy."""
    directory = Path("/etc/apt/apt.conf.d")
    files = sorted(directory.iterdir()) if directory.is_dir() else []
    return [one for one in files if one.is_file() and "Proxy" in one.read_text(errors="replace")]


def say(text: str) -> None:
    """Tell a person what is going on."""
    print(f"engines: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    print(make(sys.argv[1] if len(sys.argv) > 1 else suite()))
