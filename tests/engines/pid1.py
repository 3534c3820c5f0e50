"""Pid 1 of a box: private mounts and cgroups first, then catatonit, which reaps what engines leave to it.

Runs as `pid1.py ROOT NAME HIERARCHY...` in fresh mount, network, pid, ipc and uts namespaces; ROOT is the system
whose programs the box has. Below catatonit is a cat that ends with the pipe on its descriptor 0, which the test process
holds, and all else with it: a killed test run takes its daemons with it.
"""

from __future__ import annotations

import ctypes
import os
import sys

CLONE_NEWCGROUP = 0x02000000
MNT_DETACH = 2
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC = 32, 4096, 16384
SAFE = MS_NOSUID | MS_NODEV | MS_NOEXEC
CGROUP = "/sys/fs/cgroup"

libc = ctypes.CDLL(None, use_errno=True)


def call(name: str, *args: object) -> None:
    """Call into libc and raise on failure."""
    if getattr(libc, name)(*args) < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}{args}: {os.strerror(code)}")


def mount(kind: str, target: str, flags: int, data: str = "") -> None:
    """Make a new mount of a file system without a device."""
    call("mount", kind.encode(), target.encode(), kind.encode(), flags, data.encode())


def bind(source: str, target: str, flags: int = 0) -> None:
    """Show a directory at another place, too."""
    call("mount", source.encode(), target.encode(), None, MS_BIND | flags, None)
    if flags & MS_RDONLY:
        call("mount", None, target.encode(), None, MS_BIND | MS_REMOUNT | MS_RDONLY, None)


def enter(root: str) -> None:
    """Make a writable layer over a tree the root directory; the tree itself is /tree of it.

    The layers are in a tmpfs that is mounted over the tree, so nothing of them has to be removed.
    """
    tree = os.open(root, os.O_PATH | os.O_DIRECTORY)
    mount("tmpfs", root, MS_NOSUID | MS_NODEV, "mode=755")
    for name in ("upper", "work", "merged"):
        os.mkdir(f"{root}/{name}")
    lower = f"/proc/self/fd/{tree}"
    layers = f"lowerdir={lower},upperdir={root}/upper,workdir={root}/work"
    new = f"{root}/merged"
    mount("overlay", new, 0, layers)
    for name in ("tree", "old"):
        os.mkdir(f"{new}/{name}")
    bind(lower, f"{new}/tree", MS_RDONLY)
    bind("/dev", f"{new}/dev", MS_REC)
    for name in ("proc", "sys"):
        # Until there are the box's own; the kernel gives a new one only to those who see an old one.
        bind(f"/{name}", f"{new}/{name}", MS_REC)
    os.close(tree)
    os.chdir(new)
    call("pivot_root", b".", b"old")
    os.chdir("/")
    call("umount2", b"/old", MNT_DETACH)
    os.rmdir("/old")


def write(path: str, text: str) -> None:
    """Write to a kernel file."""
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def cgroup_kinds() -> dict[str, tuple[str, str]]:
    """Read file system type and options of each cgroup mount, by the mount's last name."""
    kinds = {}
    with open("/proc/self/mountinfo", encoding="utf-8") as table:
        for line in table:
            before, _, after = line.partition(" - ")
            kind, _, options = after.split()[:3]
            named = ",".join(word for word in options.split(",") if word not in ("rw", "ro"))
            kinds[before.split()[4].rpartition("/")[2]] = (kind, named)
    return kinds


def main(root: str, name: str, hierarchies: list[str]) -> None:
    """Make the box's own view, say so, then reap until the test process lets go."""
    kinds = cgroup_kinds()
    for one in hierarchies:
        write(f"{CGROUP}/{one}/{name}/cgroup.procs", "0")
    # After joining, so that the box's own cgroups are the roots of the mounts below.
    call("unshare", CLONE_NEWCGROUP)
    if root != "/":
        enter(root)
    call("umount2", b"/sys", MNT_DETACH)
    call("umount2", b"/proc", MNT_DETACH)
    mount("proc", "/proc", SAFE)
    mount("sysfs", "/sys", SAFE)
    if hierarchies == ["."]:
        mount("cgroup2", CGROUP, SAFE)
        os.mkdir(f"{CGROUP}/init")
        write(f"{CGROUP}/init/cgroup.procs", "0")
        with open(f"{CGROUP}/cgroup.controllers", encoding="ascii") as file:
            for controller in file.read().split():
                write(f"{CGROUP}/cgroup.subtree_control", f"+{controller}")
    else:
        mount("tmpfs", CGROUP, SAFE, "mode=755")
        for one in hierarchies:
            os.mkdir(f"{CGROUP}/{one}")
            mount(kinds[one][0], f"{CGROUP}/{one}", SAFE, kinds[one][1])
    if os.path.isdir("/dev/shm"):
        # Podman keeps its locks there, one set for all of its storages.
        mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777")
    mount("tmpfs", "/run", MS_NOSUID | MS_NODEV, "mode=755")
    for path in ("/run/tmp", "/run/home", "/run/lock"):
        os.mkdir(path)
    call("sethostname", b"box", 3)
    os.system("/sbin/ip link set lo up")
    os.write(1, b"ready\n")
    quiet = os.open("/dev/null", os.O_WRONLY)
    for number in (1, 2):
        os.dup2(quiet, number)
    os.execv("/usr/bin/catatonit", ["catatonit", "--", "/bin/cat"])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
