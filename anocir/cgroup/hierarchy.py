"""Which cgroup hierarchies this host has, where they are mounted, and where a process is in them.

Side: host.  Sources: cgroups(7), proc(5) (/proc/PID/cgroup, /proc/PID/mountinfo).  That a mount
point belongs to a cgroup file system is what mountinfo says of it; inside of one there are no
symbolic links and nothing but the kernel makes files, so paths below it need no further care.
"""

from __future__ import annotations

from ..linux import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    Hierarchy = tuple[str, str, str]

# A hierarchy is (mount point, controllers, own): controllers as in the mount options, like
# "cpu,cpuacct" or "name=systemd", and "" for cgroup2; own is the cgroup of this process below
# the mount point, "" for its top.

UNIFIED: Final = "/sys/fs/cgroup"


def of_process(pid: int | str = "self") -> dict[str, str]:
    """Return the cgroups of a process by controllers, as the kernel names them ("" is v2)."""
    result = {}
    for line in files.decode(files.read_file(f"/proc/{pid}/cgroup")).split("\n"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            # A cgroup that was removed under a dying process keeps its name with this suffix.
            result[parts[1]] = parts[2].removesuffix(" (deleted)")
    return result


def unescape(field: str) -> str:
    r"""Undo mountinfo's \040 and the like."""
    first, *rest = field.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def mounts() -> list[tuple[str, str, list[str]]]:
    """Return (mount point, root, options) of each cgroup mount; options is [] for cgroup2."""
    result = []
    for line in files.read_file("/proc/self/mountinfo").split(b"\n"):
        if b" - cgroup" not in line:
            continue
        before, after = files.decode(line).split(" - ", 1)
        fields, (kind, _, options) = before.split(" "), after.split(" ", 2)
        named = options.split(",") if kind == "cgroup" else []
        result.append((unescape(fields[4]), unescape(fields[3]), named))
    return result


def below(path: str, root: str) -> str | None:
    """Return a cgroup as seen from a mount whose root is `root`; None when it lies elsewhere."""
    if root == "/":
        return "" if path == "/" else path
    if path == root or path.startswith(root + "/"):
        return path[len(root) :]
    if not root.strip("/."):
        # The mount shows more than this cgroup namespace, whose root is /: so /.. is the parent of
        # that.  Where the root itself is below the mount has no name here.
        return ""
    return None


def _is_cgroup(mountpoint: str) -> bool:
    """Tell whether a directory is a cgroup; raise PermissionError where nobody may look."""
    try:
        files.stat(f"{mountpoint}/cgroup.procs")
    except PermissionError:
        raise
    except OSError:
        return False
    return True


def own() -> tuple[list[Hierarchy], Hierarchy | None]:
    """Return the v1 hierarchies that are mounted, and the cgroup2 one if it is.

    On a host with cgroup v2 only, one read of /proc/self/cgroup and one look at the usual mount
    point answer it; mountinfo can be thousands of lines.
    """
    cgroups = of_process()
    if (
        list(cgroups) == [""]
        and not cgroups[""].startswith("/..")
        and files.exists(f"{UNIFIED}{cgroups['']}/cgroup.procs")
        and files.exists(f"{UNIFIED}/cgroup.controllers")
    ):
        return [], (UNIFIED, "", "" if cgroups[""] == "/" else cgroups[""])
    v1: list[Hierarchy] = []
    v2 = None
    table = mounts()
    for controllers, path in cgroups.items():
        words = controllers.split(",") if controllers else []
        for mountpoint, root, options in table:
            if bool(options) != bool(words) or not all(word in options for word in words):
                continue
            place = below(path, root)
            if place is None or not _is_cgroup(mountpoint):
                continue  # a mount of another part of the tree, or one that is covered
            if words:
                v1.append((mountpoint, controllers, place))
            else:
                v2 = (mountpoint, "", place)
            break
    return v1, v2


def only_v2(v1: list[Hierarchy]) -> bool:
    """Tell whether cgroup2 holds the limits: a v1 hierarchy that only names things holds none."""
    return all("=" in controllers for _, controllers, _ in v1)


def directories_of(pid: int) -> dict[str, str]:
    """Return the directories of the cgroups in which a process is now, by controller."""
    result = {}
    cgroups = of_process(pid)
    for mountpoint, root, options in mounts():
        for controllers, path in cgroups.items():
            words = controllers.split(",")
            if (options and words[0] in options) or (not options and not controllers):
                place = below(path, root)
                if place is not None:
                    result.update(dict.fromkeys(words, mountpoint + place))
    return result
