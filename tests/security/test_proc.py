"""T-PROC: a procfs that is not what it seems (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2025-52881)."""

from __future__ import annotations

import os
import re
import time

import pytest


from tests import machine
from tests.security.conftest import Arena
from tests.security.test_paths import WAYS, link

FOLLOW = (
    "def _directory_target(context, destination, kind):\n"
    "    return inroot.make_directory(context.root_fd, destination), True\n"
)


def accepted_links(arena: Arena, **modules: str) -> list[str]:
    """Let /proc or /sys of the image be a link; those with which a container could be created."""
    runtime = arena.altered(**modules) if modules else None
    host = arena.directory()
    accepted = []
    for name in ("proc", "sys"):
        for target in ("/tmp", "../../../../../.." + host, host):
            container = arena.container(runtime)
            os.rmdir(os.path.join(container.bundle.rootfs, name))
            link(container, name, target)
            result = container.create(ok=None)
            if result.status == 0:
                accepted.append(f"{name} -> {target}")
            else:
                assert "must be mounted on ordinary directory" in result.stderr
            assert os.listdir(host) == []
            container.delete("--force", ok=None)
    return accepted


def test_proc_and_sys_are_plain_directories(arena: Arena) -> None:
    """T-PROC1, CVE-2019-19921, CVE-2023-27561, CVE-2025-54867."""
    assert accepted_links(arena) == []


def test_control_a_mount_that_follows_links_accepts_them(arena: Arena) -> None:
    assert accepted_links(arena, inside__mounts=FOLLOW)


# fakes on procfs -----------------------------------------------------------------------------------

FAKES = (
    "sys/net/ipv4/ip_forward", "self/attr/exec", "self/attr/keycreate", "self/oom_score_adj",
    "self/setgroups", "self/uid_map", "thread-self/attr/exec", "thread-self/attr/apparmor/exec",
    "thread-self/attr/keycreate",
)  # fmt: skip


def fake_proc(directory: str) -> list[str]:
    """Make what looks like a procfs; returns the files that somebody may be made to write to."""
    made = []
    for name in FAKES:
        path = os.path.join(directory, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w"):
            made.append(path)
    os.makedirs(os.path.join(directory, "self/fd"), exist_ok=True)
    for number in range(3, 20):
        os.symlink("/etc/passwd", os.path.join(directory, f"self/fd/{number}"))
    return made


def written_fakes(arena: Arena, **modules: str) -> dict[str, str]:
    """Put fakes over procfs and ask for sysctls and labels; per way: "refused", "" or what was written."""
    runtime = arena.altered(**modules) if modules else None
    found = {}
    for way in ("/proc", "/proc/sys", "a link into /proc/sys", "tmpfs on attr", "in the image"):
        fake = arena.directory()
        files = fake_proc(fake)
        container = arena.container(runtime)
        container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        container.process["oomScoreAdj"] = 500
        container.process["apparmorProfile"] = "some-profile"
        if way == "in the image":
            container.bundle.drop_mount("/proc")
            files = fake_proc(os.path.join(container.bundle.rootfs, "proc"))
        elif way == "/proc":
            container.bundle.drop_mount("/proc")
            container.bundle.add_mount("/proc", "bind", fake, "rbind")
        elif way == "/proc/sys":
            container.bundle.add_mount("/proc/sys", "bind", fake + "/sys", "rbind")
        elif way == "tmpfs on attr":
            container.bundle.add_mount("/proc/self/attr", "tmpfs", "tmpfs")
        else:
            link(container, "/sysctls", "/proc/sys/net")
            container.bundle.add_mount("/sysctls", "bind", fake + "/sys/net", "rbind")
        result = container.try_run("true")
        written = [os.path.basename(path) for path in files if os.path.getsize(path)]
        refused = result.status and "proc" in result.stderr
        found[way] = " ".join(written) or ("refused" if refused else "")
        container.delete("--force", ok=None)
    return found


def test_no_fake_of_procfs_gets_a_byte(arena: Arena) -> None:
    """T-PROC2, CVE-2019-16884, CVE-2025-52881."""
    assert written_fakes(arena) == {
        "/proc": "refused",
        "/proc/sys": "refused",
        "a link into /proc/sys": "refused",
        "tmpfs on attr": "refused",
        "in the image": "",
    }


TRUSTING = {
    "model__plan": "def _check_proc(destination, where, bind):\n    return\n",
    "inside__mounts": "def _check_bind(context, target, opened, destination):\n    return\n",
    "inside__procfs": (
        "def open_proc(context, path, flags):\n"
        "    root = entries.readlink(f'/proc/self/fd/{context.root_fd}')\n"
        "    return inroot.open(context.root_fd, '/proc/' + path, flags)\n"
    ),
}


def test_control_a_trusting_runtime_writes_to_fakes(arena: Arena) -> None:
    found = written_fakes(arena, **TRUSTING)
    assert found["/proc"] == found["/proc/sys"] == found["in the image"] == "ip_forward"


# exec into a container with a fake /proc -----------------------------------------------------------

# As on a host with AppArmor, so that there is a label to write.
LABELS = {"host__program": "def lsm(name):\n    return name == 'apparmor'\n"}


def exec_over_a_fake(arena: Arena, **modules: str) -> tuple[str, str]:
    """Exec, with a label, in a container that has covered its /proc; the complaint and what the fakes got."""
    runtime = arena.altered(**{**LABELS, **modules})
    container = arena.container(runtime)
    for names in container.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    make = ["mount -t tmpfs none /proc", "mkdir -p /proc/self/fd"]
    for name in FAKES:
        make += [f"mkdir -p /proc/{os.path.dirname(name)}", f"> /proc/{name}"]
    make += [f"ln -s /etc/passwd /proc/self/fd/{number}" for number in range(3, 20)]
    container.launch("; ".join([*make, "echo ready > /ready; sleep 100"]))
    container.wait_file("/ready")
    before = container.bundle.read("/etc/passwd")
    result = container.exec("/bin/true", ok=None, options=["--apparmor", "some-profile"])
    fakes = f"/proc/{container.pid}/root/proc"
    written = []
    for name in FAKES:
        with open(f"{fakes}/{name}") as file:
            if file.read():
                written.append(name)
    if container.bundle.read("/etc/passwd") != before:
        written.append("the file behind self/fd")
    return result.stderr, " ".join(written)


def test_exec_writes_to_no_fake(arena: Arena) -> None:
    """T-PROC3: the label goes to a procfs of our own, whatever the container has on /proc."""
    complaint, written = exec_over_a_fake(arena)
    assert written == ""
    # The kernel has no such module here, so the real file refuses the label.
    assert "invalid argument" in complaint


def test_exec_works_over_a_fake(arena: Arena) -> None:
    """T-PROC3: a container that covers its /proc harms nobody but itself."""
    container = arena.container()
    for names in container.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    container.launch("mount -t tmpfs none /proc; echo ready > /ready; sleep 100")
    container.wait_file("/ready")
    assert container.exec("/bin/echo", "fine").stdout == "fine\n"


def test_control_a_label_by_path_goes_to_the_fake(arena: Arena) -> None:
    by_path = (
        "def open_attributes(context):\n"
        "    path = '/proc/thread-self/attr/apparmor/exec'\n"
        "    context.attributes['apparmor/exec'] = files.open(path, files.O_WRONLY)\n"
    )
    _, written = exec_over_a_fake(arena, inside__procfs=by_path)
    assert "thread-self/attr/apparmor/exec" in written


# the opener, without a container ---------------------------------------------------------------------


class Context:
    """What rootfs.open_proc needs of a context."""

    def __init__(self, proc_fd: int = -1, root_fd: int = -1) -> None:
        self.proc_fd = proc_fd
        self.root_fd = root_fd


def in_own_namespace(action) -> str:
    """Run the action in a child with its own mounts; the name of what it raised, or an empty string."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        text = ""
        try:
            machine.unshare(machine.CLONE_NEWNS)
            machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
            action()
        except OSError as error:
            text = os.strerror(error.errno or 0)
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(write_end, text.encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def cover(name: str) -> None:
    path = f"/tmp/cover-{os.getpid()}"
    with open(path, "w") as file:
        file.write("covered\n")
    machine.mount(path, name, "", 0x1000)
    os.unlink(path)


def test_the_opener_crosses_no_mount_and_no_magic_link() -> None:
    """T-PROC4: EXDEV for what lies on top, ELOOP for /proc/PID/fd, and the own procfs shows the real file."""
    from anocir.inside import procfs

    def plain() -> None:
        cover("/proc/sys/kernel/hostname")
        fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        os.close(procfs.open_proc(Context(fd), "sys/kernel/hostname", os.O_RDONLY))

    def magic() -> None:
        fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        os.close(procfs.open_proc(Context(fd), "self/fd/0", os.O_RDONLY))

    def up() -> None:
        fd = os.open("/proc", os.O_PATH | os.O_DIRECTORY)
        os.close(procfs.open_proc(Context(fd), "../etc/passwd", os.O_RDONLY))

    def own() -> None:
        cover("/proc/sys/kernel/hostname")
        context = Context()
        procfs.own_proc(context)
        with open("/proc/sys/kernel/hostname") as file:
            assert file.read() == "covered\n"
        with open(procfs.open_proc(context, "sys/kernel/hostname", os.O_RDONLY)) as file:
            assert file.read() == os.uname().nodename + "\n"

    assert in_own_namespace(plain) == os.strerror(18)
    assert in_own_namespace(magic) == os.strerror(40)
    assert in_own_namespace(up) == os.strerror(18)
    assert in_own_namespace(own) == ""


def test_a_proc_of_the_image_is_used_only_if_it_is_one() -> None:
    """T-PROC4: where the kernel gives no procfs of our own."""
    from anocir.inside import attach, procfs

    def fake(*covers: str) -> None:
        attach.new_filesystem = lambda *_: None  # type: ignore[assignment]
        for path in covers:
            machine.mount("none", path, "tmpfs", 0)
        procfs.own_proc(Context(root_fd=os.open("/", os.O_PATH | os.O_DIRECTORY)))

    assert in_own_namespace(fake) == ""
    assert "not a procfs" in in_own_namespace(lambda: fake("/proc"))


def test_control_the_plain_path_reads_the_cover() -> None:
    def plain() -> None:
        cover("/proc/sys/kernel/hostname")
        with open("/proc/sys/kernel/hostname") as file:
            assert file.read() != "covered\n", "covered"

    assert "covered" in in_own_namespace(plain)


# masked and read-only paths under a racer ------------------------------------------------------------

BY_NAME = {
    "inside__masks": (
        "import time as _time\n"
        "from ..linux import entries, mounts\n"
        "from ..linux.const import MS_BIND, MS_RDONLY, MS_REC, MS_REMOUNT\n"
        "def readonly_path(context, path):\n"
        "    one = _meet(context, path, lambda place: not place.endswith('/other'))\n"
        "    name = f'/proc/self/fd/{one}'\n"
        "    mounts.mount(name, name, '', MS_BIND | MS_REC)\n"
        "    again = _meet(context, path, lambda place: place.endswith('/other'))\n"
        "    mounts.mount('', f'/proc/self/fd/{again}', '', MS_REMOUNT | MS_BIND | MS_RDONLY)\n"
        # Which way the exchange happens to stand is not left to the scheduler.
        "def _meet(context, path, wanted):\n"
        "    for _ in range(100000):\n"
        "        try:\n"
        "            fd = inroot.open(context.root_fd, path)\n"
        "        except OSError:\n"
        "            continue\n"
        "        if wanted(entries.readlink(f'/proc/self/fd/{fd}')):\n"
        "            break\n"
        "        files.close(fd)\n"
        "        _time.sleep(0.0001)\n"
        "    return fd\n"
    )
}


def race_a_readonly_path(arena: Arena, seconds: float, **modules: str) -> tuple[int, list[str]]:
    """Exchange the target of a read-only path while it is made: rounds, and mounts that are not as asked for."""
    runtime = arena.altered(**modules) if modules else None
    volume = arena.directory()
    os.mkdir(os.path.join(volume, "x"))
    os.symlink("/other", os.path.join(volume, "y"))
    arena.helper(
        arena.programs["attack"], "swap", os.path.join(volume, "x"), os.path.join(volume, "y")
    )
    wrong: list[str] = []
    rounds = 0
    end = time.monotonic() + seconds
    while not rounds or (time.monotonic() < end and not wrong):
        container = arena.container(runtime)
        container.bundle.make_directory("/other")
        container.bundle.add_mount("/v", "bind", volume, "bind")
        container.bundle.add_mount("/other", "tmpfs", "tmpfs")
        container.linux["readonlyPaths"] = ["/v/x"]
        container.linux["maskedPaths"] = ["/v/x/../x"]
        result = container.try_run("cat /proc/self/mountinfo")
        rows = [line.split() for line in result.stdout.splitlines()]
        # Every mount of the path, wherever it landed, is read-only; a mount that it replaced is not.
        below = [row for row in rows if re.fullmatch(r"/v/[xy]", row[4])]
        wrong += [" ".join(row[4:6]) for row in below if "ro" not in row[5].split(",")]
        others = [row for row in rows if row[4] == "/other"]
        if others and "rw" not in others[0][5].split(","):
            wrong.append("the mount on /other was changed")
        container.delete("--force", ok=None)
        rounds += 1
    return rounds, wrong


@pytest.mark.parametrize("way", WAYS)
def test_a_race_for_a_readonly_path_is_never_won(
    arena: Arena, way: str, race_seconds: float
) -> None:
    """T-PROC5, GHSA-3q8j-pf29-vwv8."""
    share = 1 if way == "as shipped" else 0.5
    rounds, wrong = race_a_readonly_path(arena, race_seconds * share, **WAYS[way])
    assert rounds > 0 and wrong == []


def test_control_a_remount_by_name_hits_another_mount(arena: Arena) -> None:
    _, wrong = race_a_readonly_path(arena, 300, **BY_NAME)
    assert wrong
