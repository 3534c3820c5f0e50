"""T-DIR: a state directory that somebody has written to: every command answers, and delete --force ends it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import stat
import subprocess
from typing import Any, Callable

import pytest

from tests import drive, leftovers
from tests.security.conftest import PARENT, Arena
from tests.security.test_inodes import SLEEP, peers


def edit(path: str, change: Callable[[dict[str, Any]], object]) -> None:
    with open(path) as file:
        value = json.load(file)
    change(value)
    with open(path, "w") as file:
        json.dump(value, file)


def intent(key: str, value: Any) -> Callable[[str], None]:
    """Put a value into the intent, which stands in two files."""

    def damage(directory: str) -> None:
        for name in ("state.json", "intent.json"):
            edit(
                os.path.join(directory, name),
                lambda whole: (whole.get("intent") or whole).__setitem__(key, value),
            )

    return damage


def state(key: str, value: Any) -> Callable[[str], None]:
    return lambda directory: edit(
        os.path.join(directory, "state.json"), lambda whole: whole.__setitem__(key, value)
    )


def replaced(make: Callable[[str], object], *names: str) -> Callable[[str], None]:
    def damage(directory: str) -> None:
        for name in names or ("state.json",):
            path = os.path.join(directory, name)
            os.unlink(path)
            make(path)

    return damage


def write(text: bytes) -> Callable[[str], None]:
    def make(path: str) -> None:
        with open(path, "wb") as file:
            file.write(text)

    return make


def endless(path: str) -> None:
    os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))


def huge(path: str) -> None:
    command = ["prlimit", "--fsize=unlimited", "truncate", "-s", "4G", path]
    subprocess.run(command, check=True)


def a_socket(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        here = os.open(os.path.dirname(path), os.O_RDONLY)
        sock.bind(f"/proc/self/fd/{here}/{os.path.basename(path)}")
        os.close(here)


def full_directory(path: str) -> None:
    os.makedirs(os.path.join(path, "deep/er"))
    write(b"x")(os.path.join(path, "deep/file"))


def a_row_short(directory: str) -> None:
    def change(whole: dict[str, Any]) -> None:
        cgroup = (whole.get("intent") or whole)["cgroup"]
        if "hierarchies" in cgroup:
            cgroup["hierarchies"][0].pop()
        else:
            del cgroup["path"]

    for name in ("state.json", "intent.json"):
        edit(os.path.join(directory, name), change)


DAMAGES: dict[str, Callable[[str], None]] = {
    "a row of the wrong length": a_row_short,
    "rows that are numbers": intent("cgroup", {"manager": "v1", "hierarchies": [1, 2]}),
    "a manager that is none": intent("cgroup", {"manager": "v7"}),
    "a manager that lacks all": intent("cgroup", {"manager": "v2"}),
    "a cgroup that is a list": intent("cgroup", [[]]),
    "cgroups that lead up": intent(
        "cgroup", {"manager": "v2", "mountpoint": "/sys", "path": "/../etc", "made": 1, "owner": 0}
    ),
    "a creator of one": intent("creator", [1]),
    "a creator of words": intent("creator", ["a", "b"]),
    "annotations that are a list": intent("annotations", [1]),
    "a NUL in the bundle": intent("bundle", "/a\0b"),
    "a NUL in the rootfs": intent("rootfs", "/a\0b"),
    "a number as bundle": intent("bundle", 7),
    "another id": intent("id", "other"),
    "host mounts of text": intent("host_mounts", "x"),
    "recorded hooks that are numbers": intent("hooks", {"poststop": [1], "poststart": 2}),
    "a recorded hook that is no path": intent("hooks", {"poststop": [{"path": 7}]}),
    "a wrong resctrl": intent("resctrl", {"group": 1}),
    "a pid of text": state("pid", "1"),
    "a pid that is no number": state("pid", 1.5),
    "a huge pid": state("pid", 1 << 70),
    "a negative pid": state("pid", -1),
    "no start time": state("start_time", None),
    "created is a word": state("created", "yes"),
    "FIFO": replaced(os.mkfifo),
    "FIFOs": replaced(os.mkfifo, "state.json", "intent.json", "config.json"),
    "directory": replaced(full_directory),
    "directories": replaced(full_directory, "state.json", "intent.json", "config.json"),
    "socket": replaced(a_socket),
    "/dev/zero": replaced(endless),
    "/dev/zeros": replaced(endless, "state.json", "intent.json", "config.json"),
    "huge": replaced(huge),
    "NULs": replaced(write(b"\0" * 100)),
    "a list": replaced(write(b"[]"), "state.json", "intent.json"),
    "a text": replaced(write(b'"x"'), "state.json", "intent.json", "config.json"),
    "a link to itself": replaced(lambda path: os.symlink(path, path)),
    "a link to the host's passwd": replaced(lambda path: os.symlink("/etc/passwd", path)),
    "hooks that are numbers": lambda directory: edit(
        os.path.join(directory, "config.json"),
        lambda whole: whole.__setitem__("hooks", {"poststop": [1], "poststart": 2}),
    ),
    "a namespace without type": lambda directory: edit(
        os.path.join(directory, "config.json"),
        lambda whole: whole["linux"].__setitem__("namespaces", [{}]),
    ),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_one_containers_trouble(arena: Arena, damage: str) -> None:
    """T-DIR2: `list` passes over it, each command says so in a line, delete --force leaves nothing."""
    whole, hurt = arena.container(), arena.container()
    whole.launch(SLEEP)
    hurt.launch(SLEEP)
    pid = hurt.pid
    DAMAGES[damage](os.path.join(hurt.runtime.root, hurt.id))
    listed = hurt.runtime("list", timeout=20)
    assert whole.id in listed.stdout and "bug" not in listed.stderr
    for command in (
        ["state", hurt.id], ["exec", hurt.id, "true"], ["kill", hurt.id, "0"], ["start", hurt.id],
        ["pause", hurt.id], ["resume", hurt.id], ["events", "--stats", hurt.id], ["ps", hurt.id],
        ["update", "--memory", "100M", hurt.id],
    ):  # fmt: skip
        result = hurt.runtime(*command, ok=None, timeout=20)
        assert "bug" not in result.stderr and "Traceback" not in result.stderr, result.explain()
        assert result.seconds < 10, result.explain()
    hurt.runtime("resume", hurt.id, ok=None)
    result = hurt.runtime("delete", "--force", hurt.id, timeout=30)
    assert "bug" not in result.stderr
    assert not os.path.lexists(os.path.join(hurt.runtime.root, hurt.id))
    drive.until("its process is gone", lambda: drive.reap() or not os.path.exists(f"/proc/{pid}"))
    assert [path for path in leftovers.cgroups(PARENT, []) if hurt.id in path] == []
    assert whole.status == "running"


@pytest.mark.parametrize("kind", ["file", "FIFO", "link", "socket"])
def test_what_is_no_directory_is_removed(arena: Arena, kind: str) -> None:
    """T-DIR2: in the place of a container's directory."""
    container = arena.container()
    container.bundle.write()
    path = os.path.join(container.runtime.root, container.id)
    victim = arena.directory()
    make: dict[str, Callable[[str], object]] = {
        "file": write(b"x"), "FIFO": os.mkfifo, "link": lambda p: os.symlink(victim, p),
        "socket": a_socket,
    }  # fmt: skip
    make[kind](path)
    assert container.runtime("list", timeout=20).status == 0
    assert "no directory" in container.runtime("state", container.id, ok=False, timeout=20).stderr
    container.runtime("delete", "--force", container.id, timeout=20)
    assert not os.path.lexists(path) and os.path.isdir(victim)


# directories of other users --------------------------------------------------------------------------------

COMMANDS = (
    ["list"], ["state", "ID"], ["start", "ID"], ["exec", "ID", "true"], ["kill", "ID", "0"],
    ["pause", "ID"], ["resume", "ID"], ["ps", "ID"], ["events", "--stats", "ID"], ["delete", "ID"],
    ["update", "--memory", "100M", "ID"], ["delete", "--force", "ID"],
)  # fmt: skip


def planted(
    arena: Arena, kind: str, runtime: drive.Runtime | None = None
) -> tuple[list[str], bool]:
    """Let another user plant a container with a poststop hook: commands that take it, whether the hook ran."""
    container = arena.container(runtime)
    container.bundle.sh("true")
    mark = container.bundle.outside("mark", "")
    container.bundle.hook("poststop", f"echo ran > {mark}")
    container.create()
    container.kill("KILL")
    container.wait()
    top = os.path.join(arena.directory(), "root")
    shutil.copytree(container.runtime.root, top, symlinks=True, ignore=lambda _d, n: [
        name for name in n if name.endswith((".sock", ".fifo")) or ":" in name
    ])  # fmt: skip
    os.chmod(top, 0o700)
    entry = os.path.join(top, container.id)
    if kind == "foreign root":
        os.chown(top, 1234, 1234)
    elif kind == "root for all":
        os.chmod(top, 0o777)
    elif kind == "foreign sticky root":
        os.chmod(top, 0o1777)
        os.chown(top, 1234, 1234)
    elif kind == "foreign entry":
        os.chown(entry, 1234, 1234)
    elif kind == "foreign entry in a sticky root":
        os.chmod(top, 0o1777)
        os.chown(entry, 1234, 1234)
    else:
        os.chmod(entry, 0o770)
    taken = []
    for words in COMMANDS:
        command = [container.id if word == "ID" else word for word in words]
        path = container.runtime.path
        result = drive.call([path, "--root", top, *command], ok=None, timeout=30)
        if container.id in result.stdout or (words[0] != "list" and result.status == 0):
            taken.append(" ".join(words))
    with open(mark) as file:
        ran = "ran" in file.read()
    return taken, ran


FOREIGN = (
    "foreign root", "root for all", "foreign sticky root", "foreign entry",
    "foreign entry in a sticky root", "entry for the group",
)  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_what_another_user_could_write_is_refused(arena: Arena, kind: str) -> None:
    """T-DIR3: by every command; its hooks would run as us."""
    assert planted(arena, kind) == ([], False)


@pytest.mark.parametrize("peer", [peers("runc")])
def test_control_a_peer_runs_its_hook(arena: Arena, peer: str) -> None:
    taken, ran = planted(arena, "foreign entry", arena.installed(peer))
    assert "delete ID" in taken and ran


def test_an_own_container_in_a_sticky_root_is_taken(arena: Arena) -> None:
    container = arena.container()
    container.bundle.sh("true")
    container.bundle.write()
    top = arena.directory()
    os.chmod(top, 0o1777)
    for words in (["run", "--bundle", container.bundle.path, container.id], ["list"]):
        drive.call([container.runtime.path, "--root", top, *words], timeout=30)


def test_a_state_directory_of_any_depth_is_removed(arena: Arena) -> None:
    """T-DIR4: who has CAP_SYS_ADMIN makes the mount of the notify socket's directory writable."""
    container = arena.container()
    for names in container.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    container.bundle.sh(
        "mount -o remount,rw,bind /run/notify; mkdir /run/notify/d; echo >/up; exec sleep 1000"
    )
    path = os.path.join(container.bundle.path, "notify.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(path)
        container.create(env={"PATH": os.environ["PATH"], "NOTIFY_SOCKET": path})
    container.start()
    container.wait_file("up")
    entry = os.path.join(container.runtime.root, container.id)
    os.close(leftovers.dig(os.path.join(entry, "notify/d"), 1500 * ["d"]))
    for name in ("2", "notify/2", "notify/2.", "notify/d/2"):
        os.mkdir(os.path.join(entry, name))
    with open(os.path.join(entry, "notify/d/3"), "w"):
        pass
    container.delete("--force")
    assert not os.path.exists(entry)


@pytest.mark.needs("fuse", "mount_setattr")
def test_a_removal_waits_for_no_file_system_of_the_container(arena: Arena) -> None:
    """T-DIR5: who has the lock does, for ever where the container does not answer."""
    container = arena.container()
    for names in container.process["capabilities"].values():
        names.append("CAP_SYS_ADMIN")
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/attack", "silent", "/silent"]
    fuse = {"type": "c", "major": 10, "minor": 229}
    container.linux["devices"] = [{"path": "/dev/fuse", "fileMode": 0o666, **fuse}]
    container.linux["resources"]["devices"].append({"allow": True, "access": "rw", **fuse})
    container.launch()
    drive.until("a file system", lambda: "mounted" in container.output())
    path = container.bundle.outside(
        "mounts.json", '[{"destination": "/silent/x", "type": "tmpfs"}]'
    )
    adding = drive.spawn(container.runtime.command("mounts", "add", container.id, path))
    entry = os.open(os.path.join(container.runtime.root, container.id), os.O_DIRECTORY)

    def locked() -> bool:
        try:
            fcntl.flock(entry, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(entry, fcntl.LOCK_UN)
        return False

    try:
        drive.until("who waits with the lock", locked)
        drive.call(container.runtime.command("delete", "--force", container.id), timeout=30)
        assert drive.finish(adding) == 1
    finally:
        os.close(entry)
        if adding.poll() is None:
            adding.kill()
            drive.finish(adding)
