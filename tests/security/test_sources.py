"""T-SRC: devices and terminals that the image provides (CVE-2025-31133, CVE-2025-52565, CVE-2026-88265)."""

from __future__ import annotations

import ctypes
import os
import stat
import struct

import pytest

from tests import drive, machine
from tests.security.conftest import Arena

NULLS = ("link to a marker", "link to a sysctl", "plain file", "dangling", "missing", "1:5")
# One of the container's own UTS namespace: a control does reach it, and may do it no harm that stays.
KNOB = "/proc/sys/kernel/domainname"


def fake_null(directory: str, kind: str) -> None:
    path = os.path.join(directory, "null")
    if kind == "link to a marker":
        os.symlink("/etc/marker", path)
    elif kind == "link to a sysctl":
        os.symlink(KNOB, path)
    elif kind == "dangling":
        os.symlink("/etc/nothing", path)
    elif kind == "1:5":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "plain file":
        with open(path, "w") as file:
            file.write("marker of the image\n")


def unmasked(arena: Arena, runtime: drive.Runtime | None = None) -> list[str]:
    """Bring a /dev with a false null device; the kinds of it with which a masked file could be read."""
    with open(KNOB) as file:
        hosts = file.read()
    found = []
    for kind in NULLS:
        container = arena.container(runtime)
        devices = arena.directory()
        fake_null(devices, kind)
        container.bundle.put("/etc/marker", "marker of the image\n")
        container.bundle.put("/secret", "secret\n")
        container.config["mounts"] = [
            mount for mount in container.config["mounts"] if mount["destination"] == "/proc"
        ]
        container.bundle.add_mount("/dev", "bind", devices, "bind")
        container.config["domainname"] = "sysctl of the container"
        container.linux["maskedPaths"] = ["/secret", "/proc/kcore"]
        result = container.try_run(
            "head -c 100 /secret; echo x > /secret; head -c 100 /secret; true"
        )
        if (
            "secret" in result.stdout
            or "marker" in result.stdout
            or "sysctl" in result.stdout
            or "x" in result.stdout
            or "\0" in result.stdout
        ):
            found.append(kind)
        with open(KNOB) as file:
            assert file.read() == hosts
    return found


def test_masked_paths_are_covered_by_our_own_null(arena: Arena) -> None:
    """T-SRC1, CVE-2025-31133, CVE-2025-62161."""
    assert unmasked(arena) == []


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_unmasks_them(arena: Arena) -> None:
    found = unmasked(arena, arena.installed("runc"))
    assert {"link to a marker", "link to a sysctl"} <= set(found)


def test_control_the_null_of_the_image_unmasks_them(arena: Arena) -> None:
    theirs = (
        "from ..linux import mounts\n"
        "def _mask_file(_context, target, _path):\n"
        "    try:\n"
        "        fd = inroot.open(_root[0], '/dev/null')\n"
        "    except OSError:\n"
        "        return\n"
        "    mounts.move_mount(mounts.open_tree(fd, '', attach.CLONE), target)\n"
        "_root = [-1]\n"
        "_masked_as_it_is = masked_path\n"
        "def masked_path(context, path, label):\n"
        "    _root[0] = context.root_fd\n"
        "    _masked_as_it_is(context, path, label)\n"
    )
    found = unmasked(arena, arena.altered(inside__masks=theirs))
    assert {"link to a marker", "link to a sysctl", "plain file", "missing"} <= set(found)


# the terminal ------------------------------------------------------------------------------------------


class Watch:
    """inotify(7): whether anybody opened a file."""

    def __init__(self, path: str) -> None:
        self.fd = machine.check(machine.LIBC.inotify_init1(os.O_NONBLOCK), "inotify_init1")
        mask = ctypes.c_uint32(0x20)  # IN_OPEN
        machine.check(machine.LIBC.inotify_add_watch(self.fd, os.fsencode(path), mask), path)

    def opened(self) -> int:
        """How often, since the last call."""
        try:
            return len(os.read(self.fd, 65536)) // struct.calcsize("iIII")
        except BlockingIOError:
            return 0

    def close(self) -> None:
        os.close(self.fd)


def opened_by_the_terminal(arena: Arena, runtime: drive.Runtime | None = None) -> int:
    """Let every /dev/pts/N be a link to a marker; how often the marker was opened for a terminal."""
    container = arena.container(runtime)
    marker = container.bundle.put("/etc/marker", "marker\n")
    terminals = arena.directory()
    os.mkdir(os.path.join(terminals, "pts"))
    os.mknod(os.path.join(terminals, "ptmx"), stat.S_IFCHR | 0o666, os.makedev(5, 2))
    os.chmod(os.path.join(terminals, "ptmx"), 0o666)
    for number in range(60):
        os.symlink("/etc/marker", os.path.join(terminals, str(number)))
    container.bundle.drop_mount("/dev/pts")
    mounts = container.config["mounts"]
    where = [mount["destination"] for mount in mounts].index("/dev") + 1
    mounts[where:where] = [
        {"destination": "/dev/pts", "type": "bind", "source": terminals, "options": ["bind"]},
        {
            "destination": "/dev/pts/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
        },
    ]  # fmt: skip
    container.process["terminal"] = True
    container.bundle.sh("sleep 100")
    console = arena.console(container)
    watch = Watch(marker)
    try:
        result = container.create("--console-socket", console.path, ok=None)
        if result.status == 0:
            container.start(ok=None)
        return watch.opened()
    finally:
        watch.close()


def test_a_terminal_is_never_opened_by_its_name(arena: Arena) -> None:
    """T-SRC2, CVE-2025-52565."""
    assert opened_by_the_terminal(arena) == 0


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_opens_what_the_name_leads_to(arena: Arena) -> None:
    assert opened_by_the_terminal(arena, arena.installed("runc")) > 0


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_opens_what_the_name_leads_to(arena: Arena) -> None:
    assert opened_by_the_terminal(arena, arena.installed("crun")) > 0


def test_control_a_slave_by_its_name_is_the_image_s(arena: Arena) -> None:
    by_name = (
        "def console(context, uid, height, width, bind, own):\n"
        "    master = inroot.open(context.root_fd, '/dev/pts/ptmx', files.O_RDWR | files.O_NOCTTY)\n"
        "    number = int.from_bytes(descriptors.ioctl(master, TIOCGPTN, bytes(4)), 'little')\n"
        "    inroot.open(context.root_fd, f'/dev/pts/{number}', files.O_RDWR | files.O_NOCTTY)\n"
    )
    assert opened_by_the_terminal(arena, arena.altered(inside__console=by_name)) > 0


# standard streams --------------------------------------------------------------------------------------


def lost_output(arena: Arena, runtime: drive.Runtime | None = None) -> list[str]:
    """Write to stdout, a regular file, in a container with a false null; the kinds that took the output."""
    found = []
    for kind in ("link to a marker", "plain file"):
        container = arena.container(runtime)
        devices = arena.directory()
        fake_null(devices, kind)
        marker = container.bundle.put("/etc/marker", "marker of the image\n")
        container.bundle.drop_mount("/dev")
        container.bundle.add_mount("/dev", "bind", devices, "bind")
        result = container.try_run("echo output")
        for path in (marker, os.path.join(devices, "null")):
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path) as file:
                    if file.read() != "marker of the image\n":
                        found.append(kind)
        if result.status == 0 and result.stdout != "output\n":
            found.append(kind)
    return sorted(set(found))


def test_output_arrives_where_the_caller_wants_it(arena: Arena) -> None:
    """T-SRC3, CVE-2026-88265."""
    assert lost_output(arena) == []


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_writes_it_to_the_image(arena: Arena) -> None:
    assert lost_output(arena, arena.installed("crun")) == ["link to a marker", "plain file"]


def test_control_streams_by_device_number_alone_are_the_image_s(arena: Arena) -> None:
    # A regular file and a pipe both have device number 0.
    number_only = (
        "def reopen_null(context):\n"
        "    fd = inroot.open(context.root_fd, '/dev/null', files.O_RDWR)\n"
        "    for own in (0, 1, 2):\n"
        "        if files.fstat(own).st_rdev == files.fstat(fd).st_rdev:\n"
        "            files.dup2(fd, own)\n"
    )
    assert lost_output(arena, arena.altered(inside__process=number_only)) == [
        "link to a marker",
        "plain file",
    ]


def test_a_null_that_leads_to_the_host_is_left_alone(arena: Arena) -> None:
    """T-SRC3: not opened and not given to the container's user, for the runtime's own streams either."""
    host = os.path.join(arena.directory(), "file")
    with open(host, "w") as file:
        file.write("host\n")
    before = os.stat(host)
    container = arena.container()
    container.bundle.drop_mount("/dev")
    os.symlink(host, os.path.join(container.bundle.rootfs, "dev/null"))
    container.process["user"] = {"uid": 1000, "gid": 1000}
    container.bundle.sh("sleep 100")
    watch = Watch(host)
    try:
        if container.create(ok=None).status == 0:  # it may be refused
            container.start()
            container.exec("/bin/true", ok=None)
        assert watch.opened() == 0
    finally:
        watch.close()
    after = os.stat(host)
    assert (after.st_uid, after.st_mode, after.st_mtime) == (
        before.st_uid, before.st_mode, before.st_mtime,
    )  # fmt: skip
