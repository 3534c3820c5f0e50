"""T-MNT: mounts that reach the host, rules that are asked for and not set, what --no-pivot leaves behind."""

from __future__ import annotations

import os
from typing import Any, Callable, Iterator

import pytest

from tests import drive, machine
from tests.security.conftest import Arena
from tests.security.test_inodes import peers
from tests.security.test_paths import link

# id-mapped binds ----------------------------------------------------------------------------------------

MAPPING = [{"containerID": 0, "hostID": 0, "size": 65536}]
BINDS: dict[str, list[str]] = {
    "bind": ["bind"], "rbind": ["rbind"], "bind,ro": ["bind", "ro"], "rslave": ["rbind", "rslave"],
    "private": ["bind", "private"], "rshared": ["rbind", "rshared"], "idmap": ["rbind", "idmap"],
    "ridmap": ["rbind", "ridmap"],
}  # fmt: skip


@pytest.fixture
def shared(arena: Arena) -> Iterator[str]:
    """A file system of the host's whose mounts propagate."""
    directory = arena.directory()
    machine.mount("none", directory, "tmpfs", 0)
    machine.mount("none", directory, "", machine.MS_SHARED)
    os.mkdir(os.path.join(directory, "d"))
    yield directory
    for row, _, _ in reversed(machine.mountinfo()):
        if row[4].startswith(directory):
            machine.umount(row[4], machine.MNT_DETACH)


def propagated(
    arena: Arena, shared: str, options: list[str], *, mapped: bool = True,
    runtime: drive.Runtime | None = None, rootfs: str = "",
) -> tuple[bool, str]:  # fmt: skip
    """Mount below a bind in the container: whether the host sees it, and how the bind propagates inside."""
    container = arena.container(runtime)
    for names in container.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    entry = container.bundle.add_mount("/m", "bind", shared, *options)
    if mapped:
        entry["uidMappings"] = entry["gidMappings"] = MAPPING
    if rootfs:
        container.linux["rootfsPropagation"] = rootfs
    container.bundle.sh("mount -t tmpfs inner /m/d; grep ' /m ' /proc/self/mountinfo; sleep 100")
    container.create()
    container.start()
    drive.until("its output", lambda: " /m " in container.output())
    line = next(line for line in container.output().splitlines() if " /m " in line)
    words = line.partition(" - ")[0].split()[6:]
    there = any(row[4] == shared + "/d" for row, _, _ in machine.mountinfo())
    container.delete("--force")
    return there, " ".join(word.partition(":")[0] for word in words)


@pytest.mark.parametrize("kind", BINDS)
def test_a_mount_below_an_idmapped_bind_stays_inside(arena: Arena, shared: str, kind: str) -> None:
    """T-MNT1: whatever propagation was asked for; with rshared it is shared and a slave, as with runc."""
    there, how = propagated(arena, shared, BINDS[kind])
    assert not there
    assert how == {"private": "", "rshared": "shared master"}.get(kind, "master")


@pytest.mark.parametrize("rootfs", ["rprivate", "rslave"])
def test_it_follows_the_propagation_of_the_root(arena: Arena, shared: str, rootfs: str) -> None:
    """T-MNT1: as a plain bind does."""
    mapped = propagated(arena, shared, ["rbind"], rootfs=rootfs)
    plain = propagated(arena, shared, ["rbind"], rootfs=rootfs, mapped=False)
    assert mapped == plain and not mapped[0]


@pytest.mark.parametrize("rootfs", ["private", "slave", "shared", "rshared", "unbindable"])
def test_it_stays_inside_whatever_the_root_is(arena: Arena, shared: str, rootfs: str) -> None:
    """T-MNT1: these leave the mounts below the host's root peers of the host's, as runc does."""
    assert not propagated(arena, shared, ["rbind"], rootfs=rootfs)[0]


def test_control_a_copy_that_stays_a_peer_reaches_the_host(arena: Arena, shared: str) -> None:
    peer = "MS_PRIVATE = MS_SLAVE = 0\n"
    there, how = propagated(arena, shared, ["bind"], runtime=arena.altered(host__idmapped=peer))
    assert there and how == "shared"


# rules that are not set ---------------------------------------------------------------------------------


def to_root(container: drive.Container, how: str) -> str:
    """A path that is the root: by its text, or by a link of the image."""
    if how == "a link":
        link(container, "/to-root", "/")
        return "/to-root"
    if how == "a relative link":
        link(container, "/etc/to-root", "..")
        return "/etc/to-root"
    return {"/": "/", "dots": "/etc/..", "slashes": "//", "above": "/../.."}[how]


TO_ROOT = ("/", "dots", "slashes", "above", "a link", "a relative link")


@pytest.mark.parametrize("how", TO_ROOT)
def test_a_readonly_path_that_is_the_root_makes_it_so(arena: Arena, how: str) -> None:
    """T-MNT2."""
    container = arena.container()
    container.linux["readonlyPaths"] = [to_root(container, how)]
    script = "touch /x 2>/dev/null && echo written; touch /dev/shm/x && echo own"
    assert container.run(script) == "own\n"


@pytest.mark.parametrize("peer", [peers("crun")])
def test_control_a_peer_leaves_it_writable(arena: Arena, peer: str) -> None:
    container = arena.container(arena.installed(peer))
    container.linux["readonlyPaths"] = ["/"]
    result = container.try_run("touch /x 2>/dev/null && echo written; true")
    assert "written" in result.stdout, result.explain()


@pytest.mark.parametrize("how", TO_ROOT)
def test_a_mask_of_the_root_is_an_error(arena: Arena, how: str) -> None:
    """T-MNT2: it would lie above what is entered."""
    container = arena.container()
    container.linux["maskedPaths"] = [to_root(container, how)]
    complaint = container.refused()
    assert "linux.maskedPaths[0]" in complaint and "root itself" in complaint


@pytest.mark.parametrize("kind", ["tmpfs", "bind", "cgroup"])
@pytest.mark.parametrize("how", ["a link", "a relative link"])
def test_a_mount_on_the_root_by_a_link_is_an_error(arena: Arena, how: str, kind: str) -> None:
    """T-MNT2: as by its own path."""
    container = arena.container()
    source = container.bundle.outside("source") if kind == "bind" else kind
    options = ["bind"] if kind == "bind" else []
    container.bundle.add_mount(to_root(container, how), kind, source, *options)
    assert "root itself" in container.refused()


# cgroups over procfs -------------------------------------------------------------------------------------

ONTO_PROC: dict[str, Callable[[drive.Container], str]] = {
    "on it": lambda _c: "/proc",
    "below it": lambda _c: "/proc/sys",
    "a link to it": lambda c: link(c, "/c", "/proc") or "/c",
    "a link below it": lambda c: link(c, "/c", "/proc/sys") or "/c",
    "a path through a link": lambda c: link(c, "/p", "/proc") or "/p/sys/kernel",
}  # fmt: skip


@pytest.mark.parametrize("kind", ["cgroup", "cgroup2"])
@pytest.mark.parametrize("how", ONTO_PROC)
def test_cgroups_do_not_cover_procfs(arena: Arena, how: str, kind: str) -> None:
    """T-MNT3: the guard of CVE-2019-16884 holds for these types too."""
    container = arena.container()
    container.bundle.add_mount(ONTO_PROC[how](container), kind, kind, "ro")
    assert "/proc" in container.refused()


def test_control_without_a_look_at_the_target_they_do(arena: Arena) -> None:
    blind = "def _check_target(context, target, destination, kind):\n    return\n"
    container = arena.container(arena.altered(inside__mounts=blind))
    container.bundle.add_mount(ONTO_PROC["a link below it"](container), "cgroup", "cgroup", "ro")
    assert "kernel" not in container.run("ls /proc/sys").split()


# --no-pivot ------------------------------------------------------------------------------------------------

NESTED = {
    "procfs": "unshare -Urpfm sh -c 'mount -t proc none /mnt && echo mounted'",
    "sysfs": "unshare -Urnm sh -c 'mount -t sysfs none /mnt && echo mounted'",
}


def nested(
    arena: Arena,
    kind: str,
    *options: str,
    runtime: drive.Runtime | None = None,
    apart: bool = False,
    **changes: Any,
) -> str:
    """Mount a fresh procfs or sysfs in a nested user namespace, where ours is masked.

    With `apart` the bundle is in a mount of its own, as on a host with a partition for containers.
    """
    container = arena.container(runtime)
    container.bundle.make_directory("/mnt")
    container.linux["maskedPaths"] = ["/proc/kcore", "/sys/firmware", "/sys/fs"]
    container.linux["readonlyPaths"] = ["/proc/sys"]
    container.linux.update(changes)
    container.bundle.sh(NESTED[kind] + " 2>/dev/null; echo end")
    if not apart:
        return container.make("run", *options).stdout
    machine.mount(container.bundle.path, container.bundle.path, "", machine.MS_BIND)
    try:
        return container.make("run", *options).stdout
    finally:
        machine.umount(container.bundle.path, machine.MNT_DETACH)


@pytest.mark.parametrize("propagation", ["", "rshared", "rslave", "rprivate"])
@pytest.mark.parametrize("kind", NESTED)
def test_no_pivot_leaves_no_procfs_of_the_host(arena: Arena, kind: str, propagation: str) -> None:
    """T-MNT4: what the kernel refuses with pivot_root it refuses without; the host keeps its own."""
    changes = {"rootfsPropagation": propagation} if propagation else {}
    before = machine.mountinfo()
    assert nested(arena, kind, "--no-pivot", apart=True, **changes) == "end\n"
    assert [row[0][4] for row in before] == [row[0][4] for row in machine.mountinfo()]
    assert nested(arena, kind, "--no-pivot", **changes) == "end\n"
    assert nested(arena, kind, **changes) == "end\n"
    after = machine.mountinfo()
    assert [row[0][4] for row in before] == [row[0][4] for row in after]
    assert os.path.exists("/proc/self/status") and os.path.isdir("/sys/kernel")


@pytest.mark.parametrize("kind", NESTED)
def test_control_the_hosts_own_would_allow_it(arena: Arena, kind: str) -> None:
    keeps = arena.altered(inside__root="def _hide_host(context):\n    return\n")
    assert nested(arena, kind, "--no-pivot", runtime=keeps) == "mounted\nend\n"


@pytest.mark.needs("runc-1.1.5+ds1")
def test_runc_takes_them_away_too(arena: Arena) -> None:
    assert nested(arena, "procfs", "--no-pivot", runtime=arena.installed("runc")) == "end\n"


# a number that somebody else has by now ---------------------------------------------------------------------

# The container's process ends, and its number becomes another's, after it was looked at.
REUSED = """
_before = process
def process(*args):
    _, pidfd = _before(*args)
    processes.pidfd_send_signal(pidfd, 9)
    while not processes.exited(pidfd):
        pass
    return %d, pidfd
"""
# As if the pidfd were not asked again.
UNASKED = "_checked = _enter\ndef _enter(pid, fresh, pidfd):\n    _checked(pid, fresh, -1)\n"


@pytest.fixture
def another() -> Iterator[int]:
    """A process in a mount namespace of its own, with the mounts of ours."""
    child = drive.spawn(["unshare", "-m", "sleep", "100"])
    drive.until("a namespace", lambda: machine.command_of(child.pid).startswith("sleep"))
    yield child.pid
    child.kill()
    child.wait()


def added_for_another(arena: Arena, verb: str, pid: int, **altered: str) -> tuple[int, str]:
    """Change a container whose pid is another's by then: how many mounts that one has more, what is said."""
    before = len(machine.mountinfo(str(pid)))
    container = arena.container(arena.altered(host__added=REUSED % pid, **altered))
    container.launch("sleep 100")
    if verb == "update":
        words = ["update", "--device-add", "/dev/null:/dev/shm/anocir-other", container.id]
    else:
        file = container.bundle.outside("mounts", '[{"destination": "/dev/shm", "type": "tmpfs"}]')
        words = ["mounts", "add", container.id, file]
    said = container.runtime(*words, ok=False).stderr
    return len(machine.mountinfo(str(pid))) - before, said


@pytest.mark.parametrize("verb", ["mounts", "update"])
def test_nothing_is_mounted_for_who_got_the_number(arena: Arena, another: int, verb: str) -> None:
    """T-PID: `mounts add` and `update --device-add` enter the process that was looked at, or none."""
    more, said = added_for_another(arena, verb, another)
    assert not os.path.exists("/dev/shm/anocir-other")
    assert more == 0 and "container not running" in said, said


def test_control_unasked_it_is_mounted_for_another(arena: Arena, another: int) -> None:
    more, _ = added_for_another(arena, "mounts", another, host__sources=UNASKED)
    assert more == 1
