"""T-INO: mode, owner and times of what belongs to the host: device nodes, terminals, directories that are bound.

A container's root may do what it likes with inodes of its own. No inode of the host may come into its hands in a way in
which it can be changed, and the runtime itself changes none of them. The nodes here stand in for the host's: they
lie over them in the mount namespace of this tier.
"""

from __future__ import annotations

import os
import stat
import subprocess
from typing import Any, Callable, Iterator

import pytest

from tests import drive, machine
from tests.host import describe
from tests.security.conftest import Arena
from tests.security.test_paths import link, listing
from tests.security.test_sources import Watch

NODES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9),
    "tty": (5, 0),
}  # fmt: skip
PEERS = ("runc", "crun")
NO_CAPABILITIES: dict[str, list[str]] = {"bounding": [], "effective": [], "permitted": []}
SLEEP = "sleep 100"
VERBS = ("run", "create", "exec", "exec -d")


def peers(name: str) -> Any:
    version = {"runc": "runc-1.1.5+ds1", "crun": "crun-1.8.1"}[name]
    return pytest.param(name, marks=pytest.mark.needs(version))


def attributes(*paths: str) -> dict[str, str]:
    """Kind, mode, owner, number and time of last modification of files of the host."""
    return {path: f"{describe(path)} {os.lstat(path).st_mtime_ns}" for path in paths}


class Devices:
    """Nodes over those of the host, and more beside them."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        machine.mount("none", directory, "tmpfs", 0)
        for name, (major, minor) in NODES.items():
            self.make(name, major, minor)
            machine.mount(os.path.join(directory, name), "/dev/" + name, "", 0x1000)

    def make(self, name: str, major: int, minor: int, mode: int = 0o666) -> str:
        path = os.path.join(self.directory, name)
        os.mknod(path, stat.S_IFCHR | mode, os.makedev(major, minor))
        os.chmod(path, mode)
        os.utime(path, (1000, 1000))
        return path

    def all(self) -> dict[str, str]:
        """The attributes of all nodes, and of this directory by the names in it."""
        names = sorted(os.listdir(self.directory))
        return attributes(*(os.path.join(self.directory, name) for name in names))

    def inode(self, name: str) -> str:
        """As `stat -L -c %d:%i` prints it."""
        found = os.stat(os.path.join(self.directory, name))
        return f"{found.st_dev}:{found.st_ino}"

    def close(self) -> None:
        for name in NODES:
            machine.umount("/dev/" + name, machine.MNT_DETACH)
        machine.umount(self.directory, machine.MNT_DETACH)


@pytest.fixture
def devices(arena: Arena) -> Iterator[Devices]:
    """Stand-ins for the nodes of the host."""
    made = Devices(arena.directory())
    yield made
    made.close()


CHANGE = (
    "for f in {}; do chmod 0676 $f; chown 5:5 $f; touch -d 2001-02-03 $f; done 2>/dev/null; true"
)


def weak(container: drive.Container) -> drive.Container:
    """Root of the container without any capability."""
    container.process["capabilities"] = dict(NO_CAPABILITIES)
    return container


# masked files --------------------------------------------------------------------------------------


def harm_through_masks(
    arena: Arena, devices: Devices, userns: str = "", runtime: drive.Runtime | None = None
) -> list[str]:
    """Change the attributes of masked files; what has changed on the host, and that they are masked."""
    container = weak(arena.container(runtime))
    container.bundle.put("/etc/secret", "secret\n")
    container.linux["maskedPaths"] = ["/proc/kcore", "/etc/secret", "/proc/timer_list", "/sys/fs"]
    if userns:
        container.bundle.use_user_namespace(int(userns))
        chown_tree(container.bundle.rootfs, int(userns))
    before = devices.all()
    paths = "/proc/kcore /etc/secret /proc/timer_list"
    text = container.try_run(
        CHANGE.format(paths) + "; cat /etc/secret; echo x > /etc/secret && echo written; echo end",
        ok=True,
    ).stdout
    assert text == "written\nend\n", text
    return [path for path, was in before.items() if devices.all()[path] != was]


def chown_tree(path: str, uid: int) -> None:
    """As an engine does with an image for a user namespace; the programs are linked, and readable to all."""
    for directory, names, files in os.walk(path):
        for name in (*names, *files):
            whole = os.path.join(directory, name)
            if os.lstat(whole).st_nlink == 1 or name in names:
                os.lchown(whole, uid, uid)
    os.chown(path, uid, uid)


# The second one maps the host's root, which then owns the host's nodes inside.
USERNS = {"host ids": "", "user namespace": "100000", "user namespace with root": "0"}


@pytest.mark.parametrize("userns", USERNS)
def test_a_masked_file_is_no_inode_of_the_host(arena: Arena, devices: Devices, userns: str) -> None:
    """T-INO1: chmod, chown and utimes of a masked file."""
    assert harm_through_masks(arena, devices, USERNS[userns]) == []


WRITABLE = "NODE = NO_FLAGS\n"


def test_control_a_writable_mask_is_the_hosts_null(arena: Arena, devices: Devices) -> None:
    changed = harm_through_masks(arena, devices, "", arena.altered(inside__attach=WRITABLE))
    assert [os.path.basename(path) for path in changed] == ["null"]


@pytest.mark.parametrize("peer", [peers(name) for name in PEERS])
def test_a_peer_masks_with_the_null_of_the_container(
    arena: Arena, devices: Devices, peer: str
) -> None:
    """It is the image's (test_sources.py), and so not the host's."""
    assert harm_through_masks(arena, devices, "", arena.installed(peer)) == []


# device nodes that are bound -----------------------------------------------------------------------


def harm_through_nodes(
    arena: Arena, devices: Devices, userns: str, runtime: drive.Runtime | None = None
) -> list[str]:
    """Change the attributes of the nodes in /dev; what has changed on the host."""
    container = arena.container(runtime)
    if userns:
        container.bundle.use_user_namespace(int(userns))
        chown_tree(container.bundle.rootfs, int(userns))
    before = devices.all()
    container.try_run(CHANGE.format(" ".join("/dev/" + name for name in NODES)), ok=True)
    return [path for path, was in before.items() if devices.all()[path] != was]


@pytest.mark.parametrize("userns", USERNS)
def test_a_default_device_is_no_inode_of_the_host(
    arena: Arena, devices: Devices, userns: str
) -> None:
    """T-INO2: in a user namespace they can only be bound, and are so read-only."""
    assert harm_through_nodes(arena, devices, USERNS[userns]) == []


@pytest.mark.parametrize("userns", USERNS)
def test_default_devices_can_be_used(arena: Arena, devices: Devices, userns: str) -> None:
    """T-INO2: read-only says nothing about the device behind a node."""
    container = arena.container()
    if USERNS[userns]:
        container.bundle.use_user_namespace(int(USERNS[userns]))
        chown_tree(container.bundle.rootfs, int(USERNS[userns]))
    script = (
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 3 /dev/urandom | wc -c;"
        "echo x > /dev/full || echo full"
    )
    assert container.try_run(script + " 2>/dev/null", ok=True).stdout == "3\n3\nfull\n"


@pytest.mark.parametrize("peer", [peers("runc")])
def test_control_a_peer_binds_them_writable(arena: Arena, devices: Devices, peer: str) -> None:
    assert harm_through_nodes(arena, devices, "0", arena.installed(peer))


# the standard streams: /dev/null ----------------------------------------------------------------------

STREAMS = CHANGE.format("/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2")
WHICH = "stat -L -c %d:%i /proc/self/fd/0"


def harm_through_streams(
    arena: Arena,
    devices: Devices,
    verb: str,
    dev: str,
    runtime: drive.Runtime | None = None,
    userns: bool = False,
) -> list[str]:
    """Give /dev/null for all three streams; what has changed on the host, and whether 0 is its inode."""
    container = weak(arena.container(runtime))
    script = f"{WHICH} > /which; {STREAMS}; echo end >> /which"
    if userns:
        container.bundle.use_user_namespace(0)
    if dev == "none":  # the caller brings a /dev, and there is nothing in it
        container.bundle.add_mount("/dev", "bind", arena.directory(), "bind")
    elif dev == "link":
        container.bundle.drop_mount("/dev")
        container.bundle.put("/etc/marker", "marker\n")
        link(container, "/dev/null", "/etc/marker")
        container.bundle.add_mount("/dev", "bind", container.bundle.rootfs + "/dev", "bind")
    before = devices.all()
    null = {"stdin": subprocess.DEVNULL}
    with open("/dev/null", "r+b", buffering=0) as out:
        null |= {"stdout": out, "stderr": out}
        if verb == "run":
            container.try_run(script, **null)
        elif verb == "create":
            container.bundle.sh(script)
            container.make("create", **null)
            container.start()
            container.wait()
        else:
            container.launch(SLEEP)
            detach = ["--detach"] if verb == "exec -d" else []
            container.exec("/bin/sh", "-c", script, options=detach, **null)
    said = container.wait_file("/which")
    drive.until("the end", lambda: container.bundle.read("/which").endswith("end\n"))
    found = [path for path, was in before.items() if devices.all()[path] != was]
    if said.split("\n")[0] == devices.inode("null"):
        found.append("descriptor 0 is the host's inode")
    return found


@pytest.mark.parametrize("dev", ["usual", "none", "link"])
@pytest.mark.parametrize("verb", VERBS)
def test_a_stream_is_no_null_of_the_host(
    arena: Arena, devices: Devices, verb: str, dev: str
) -> None:
    """T-INO3: also where the container has no null device of its own."""
    assert harm_through_streams(arena, devices, verb, dev) == []


@pytest.mark.parametrize("verb", ["create", "exec"])
def test_a_stream_is_no_null_of_the_host_to_its_root_in_a_user_namespace(
    arena: Arena, devices: Devices, verb: str
) -> None:
    """It owns the host's node there, and can make none of its own."""
    assert harm_through_streams(arena, devices, verb, "none", userns=True) == []


def test_control_what_is_passed_on_is_the_hosts(arena: Arena, devices: Devices) -> None:
    runtime = arena.altered(inside__process="def reopen_null(context):\n    return\n")
    found = harm_through_streams(arena, devices, "create", "usual", runtime)
    assert "descriptor 0 is the host's inode" in found and len(found) == 2


# files of the image that are looked at before they are opened ------------------------------------------


@pytest.mark.parametrize("verb", ["run", "exec"])
@pytest.mark.parametrize("what", ["passwd", "ptmx"])
def test_a_device_of_the_image_is_not_opened(arena: Arena, what: str, verb: str) -> None:
    """T-INO7: a watchdog or a tape in the place of /etc/passwd or of /dev/pts/ptmx acts when it is opened."""
    container = arena.container()
    node = os.path.join(container.bundle.rootfs, "etc/passwd")
    if what == "ptmx":
        container.bundle.drop_mount("/dev/pts")
        terminals = arena.directory()
        node = os.path.join(terminals, "ptmx")
    else:
        os.unlink(node)
    os.mknod(node, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    os.chmod(node, 0o666)
    if what == "ptmx":
        container.bundle.add_mount("/dev/pts", "bind", terminals, "bind")
    if verb == "exec":
        container.launch(SLEEP)
    watch = Watch(node)
    try:
        console = ["--console-socket", arena.console(container).path] if what == "ptmx" else []
        if verb == "exec":
            words = ["--tty", "--detach", *console] if what == "ptmx" else []
            result = container.exec("/bin/true", options=words, ok=None)
        else:
            container.process["terminal"] = what == "ptmx"
            container.bundle.sh("true")
            result = container.make("create", *console, ok=None)
        assert watch.opened() == 0
        assert (result.status == 0) == (what == "passwd"), result.explain()
    finally:
        watch.close()


# the standard streams: what the caller has ------------------------------------------------------------


def streams_after(
    arena: Arena,
    verb: str,
    make: Callable[[], int],
    runtime: drive.Runtime | None = None,
    uid: int = 1000,
) -> tuple[str, str]:
    """Give something as descriptor 0 to a process of another user: its attributes before and after."""
    container = arena.container(runtime)
    fd = make()
    try:
        before = of(fd)
        if verb == "run":
            container.process["user"] = {"uid": uid, "gid": uid}
            container.bundle.sh("true")
            container.make("run", stdin=fd)
        elif verb == "create":
            container.process["user"] = {"uid": uid, "gid": uid}
            container.bundle.sh("true")
            container.make("create", stdin=fd)
            container.start()
            container.wait()
        else:
            container.launch(SLEEP)
            options = ["--user", f"{uid}:{uid}"]
            pid_file = os.path.join(container.bundle.path, "exec.pid")
            if verb == "exec -d":
                options += ["-d", "--pid-file", pid_file]
            container.exec("/bin/true", options=options, stdin=fd)
            if verb == "exec -d":
                with open(pid_file) as file:
                    container.wait_exit(int(file.read()))
        return before, of(fd)
    finally:
        os.close(fd)


def of(fd: int) -> str:
    found = os.fstat(fd)
    return (
        f"{stat.S_IFMT(found.st_mode):o} {found.st_mode & 0o7777:o} {found.st_uid}:{found.st_gid}"
    )


OTHERS = {"zero": (1, 5), "full": (1, 7), "console": (5, 1), "kmsg": (1, 11), "loop": (7, 0)}


def node_of_the_host(directory: str, name: str) -> int:
    path = os.path.join(directory, name)
    kind = stat.S_IFBLK if name == "loop" else stat.S_IFCHR
    os.mknod(path, kind | 0o600, os.makedev(*OTHERS[name]))
    return os.open(path, os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)


def something(directory: str, name: str) -> int:
    """A descriptor that is not to be given away."""
    path = os.path.join(directory, name)
    if name == "terminal":
        master, slave = os.openpty()
        os.set_inheritable(master, False)
        MASTERS.append(master)
        return slave
    if name == "file of another user":
        with open(path, "w"):
            os.chown(path, 4321, 4321)
        return os.open(path, os.O_RDONLY)
    return node_of_the_host(directory, name)


MASTERS: list[int] = []
KEPT = (*OTHERS, "terminal", "file of another user")


@pytest.fixture
def closing() -> Iterator[None]:
    """Close the masters of terminals."""
    yield
    for fd in MASTERS:
        os.close(fd)
    MASTERS.clear()


@pytest.mark.parametrize("what", KEPT)
@pytest.mark.parametrize("verb", VERBS)
def test_only_what_the_caller_owns_is_given_away(
    arena: Arena, closing: None, verb: str, what: str
) -> None:
    """T-INO4: never a device, a terminal, a directory, or a file of somebody else."""
    directory = arena.directory()
    before, after = streams_after(arena, verb, lambda: something(directory, what))
    assert before == after


def a_pipe() -> int:
    read_end, write_end = os.pipe()
    os.close(write_end)
    return read_end


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("what", ["pipe", "fifo", "file", "socket"])
def test_what_the_caller_owns_is_given_away(arena: Arena, verb: str, what: str) -> None:
    """T-INO4: so that /dev/stdin can be opened by its path; the group stays, as with runc."""
    path = os.path.join(arena.directory(), "it")
    kept: list[Any] = []

    def make() -> int:
        if what == "pipe":
            return a_pipe()
        if what == "socket":
            import socket

            one, other = socket.socketpair()
            kept.append(other)
            return one.detach()
        if what == "fifo":
            os.mkfifo(path)
            return os.open(path, os.O_RDWR)
        with open(path, "w"):
            return os.open(path, os.O_RDONLY)

    before, after = streams_after(arena, verb, make)
    assert before.endswith(" 0:0") and after == before[:-3] + "1000:0"


@pytest.mark.parametrize(
    ("peer", "what"),
    [
        pytest.param("crun", "zero", marks=pytest.mark.needs("crun-1.8.1")),
        pytest.param("runc", "zero", marks=pytest.mark.needs("runc-1.1.5+ds1")),
        pytest.param("runc", "terminal", marks=pytest.mark.needs("runc-1.1.5+ds1")),
    ],
)
def test_control_a_peer_gives_devices_away(
    arena: Arena, closing: None, peer: str, what: str
) -> None:
    directory = arena.directory()
    before, after = streams_after(
        arena, "create", lambda: something(directory, what), arena.installed(peer)
    )
    assert before != after


# directories that are bound ----------------------------------------------------------------------------

GUEST = {"path": "/opt/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666, "uid": 1000,
         "gid": 1000}  # fmt: skip


def made_in_a_bound_directory(
    arena: Arena, kind: str, runtime: drive.Runtime | None = None
) -> list[str]:
    """Let a link of the image lead into a directory of the host that is bound; what has changed in it."""
    host = arena.directory()
    os.chmod(host, 0o755)
    os.mknod(os.path.join(host, "null"), stat.S_IFCHR | 0o600, os.makedev(1, 3))
    with open(os.path.join(host, "ptmx"), "w") as file:
        file.write("host\n")
    os.mkdir(os.path.join(host, "there"))
    container = arena.container(runtime)
    bundle = container.bundle
    bundle.make_directory("/vol")
    bundle.add_mount("/vol", "bind", host, "rbind")
    if kind.split()[0] == "dev":
        bundle.drop_mount("/dev")
        os.rmdir(os.path.join(bundle.rootfs, "dev"))
        link(container, "/dev", "/vol/there/.." if "dots" in kind else "/vol")
    else:
        link(container, "/opt", "/vol")
    options: list[str] = []
    if kind == "device there":
        container.linux["devices"] = [dict(GUEST)]
    elif kind == "device new":
        container.linux["devices"] = [{**GUEST, "path": "/opt/new"}]
    elif kind == "device below":
        container.linux["devices"] = [{**GUEST, "path": "/opt/deep/er/new"}]
    elif kind == "device by its own path":
        container.linux["devices"] = [{**GUEST, "path": "/vol/null"}]
    elif kind == "fifo":
        container.linux["devices"] = [{"path": "/opt/fifo", "type": "p"}]
    elif kind == "cwd":
        container.process["cwd"] = "/opt/made/here"
    elif kind == "mount point":
        bundle.add_mount("/opt/made", "tmpfs", "tmpfs")
    elif kind == "mount point of a file":
        bundle.add_mount("/opt/made", "bind", bundle.outside("source", "x\n"), "bind")
    elif kind == "mount point of cgroups":
        bundle.add_mount("/opt/made", "cgroup", "cgroup", "ro")
    elif kind == "copied link":
        source = os.path.join(bundle.path, "a-link")
        os.symlink("anywhere", source)
        bundle.add_mount("/opt/made", "bind", source, "bind", "copy-symlink")
    elif kind == "console":
        link(container, "/opt/pts", "/nowhere")
    if kind in ("console", "dev and console"):
        container.process["terminal"] = True
        options = ["--console-socket", arena.console(container).path]
    before = listing(host) + [("owner", os.stat(host + "/null").st_uid, 0, "")]
    bundle.sh("true")
    if options:
        container.create(*options, ok=None)
        container.delete("--force", ok=None)
    else:
        container.make("run", ok=None)
    after = listing(host) + [("owner", os.stat(host + "/null").st_uid, 0, "")]
    return sorted({row[0] for row in set(before) ^ set(after)})


BOUND = (
    "device there", "device new", "device below", "device by its own path", "fifo", "cwd",
    "mount point", "mount point of a file", "mount point of cgroups", "copied link", "dev",
    "dev by dots", "dev and console",
)  # fmt: skip


@pytest.mark.parametrize("kind", BOUND)
def test_nothing_is_made_in_a_bound_directory_that_a_link_leads_to(arena: Arena, kind: str) -> None:
    """T-INO6: what the runtime makes by itself goes into the container's root or a mount of its own."""
    assert made_in_a_bound_directory(arena, kind) == []


def test_control_without_a_look_at_the_place_it_is_made_there(arena: Arena) -> None:
    anywhere = (
        "def bind_at(context, fd):\n    return None\n"
        "def check(context, fd, path, named=True):\n    return\n"
    )
    runtime = arena.altered(inside__places=anywhere)
    for kind, name in (("device there", "owner"), ("cwd", "made"), ("dev", "zero")):
        assert name in made_in_a_bound_directory(arena, kind, runtime)


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_makes_the_devices_there(arena: Arena) -> None:
    assert "zero" in made_in_a_bound_directory(arena, "dev", arena.installed("runc"))


@pytest.mark.needs("runc-1.1.5+ds1")
def test_runc_leaves_a_node_that_is_there(arena: Arena) -> None:
    assert made_in_a_bound_directory(arena, "device there", arena.installed("runc")) == []


@pytest.mark.parametrize("what", ["mount point", "mount point of a file", "cwd"])
def test_where_the_caller_names_a_volume_it_is_made(arena: Arena, what: str) -> None:
    """T-INO6: docker run -v A:/vol -v B:/vol/made -w /vol/made: asked for by config.json, not by the image."""
    host = arena.directory()
    container = arena.container()
    container.bundle.add_mount("/vol", "bind", host, "rbind")
    if what == "cwd":
        container.process["cwd"] = "/vol/made"
    elif what == "mount point":
        container.bundle.add_mount("/vol/made", "tmpfs", "tmpfs")
    else:
        source = container.bundle.outside("source", "x\n")
        container.bundle.add_mount("/vol/made", "bind", source, "bind")
    container.run("true")
    assert os.listdir(host) == ["made"]


def test_a_link_of_one_volume_into_another_is_not_the_callers_word(arena: Arena) -> None:
    """T-INO6: /a is named, but a link in it leads to /b."""
    one, other = arena.directory(), arena.directory()
    os.symlink("/b", os.path.join(one, "link"))
    container = arena.container()
    container.bundle.add_mount("/b", "bind", other, "rbind")
    container.bundle.add_mount("/a", "bind", one, "rbind")
    container.bundle.add_mount("/a/link/made", "tmpfs", "tmpfs")
    container.try_run("true")
    assert os.listdir(other) == []
