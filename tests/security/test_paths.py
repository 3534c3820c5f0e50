"""T-PATH: links and races in the image and its volumes (CVE-2021-30465, CVE-2024-45310, CVE-2026-41579)."""

from __future__ import annotations

import os
import stat
import time

import pytest

from tests import drive
from tests.security.conftest import Arena

# The same attacks against each way that the runtime has, on new kernels and on old ones.
WAYS: dict[str, dict[str, str]] = {
    "as shipped": {},
    "without openat2": {"base__inroot": "use_openat2 = False\n"},
    "by mount(2)": {"inside__attach": "use_new_calls = False\n"},
}
# A resolver that joins text and lets the kernel look it up in the host's file system.
NAIVE = """
from anocir.linux import entries

def _host(root_fd, path):
    return entries.readlink(f"/proc/self/fd/{root_fd}") + "/" + path.lstrip("/")

def open(root_fd, path, flags=files.O_PATH, follow_links=True):
    return files.open(_host(root_fd, path), flags)

def make_directory(root_fd, path, mode=0o755, may_make=None):
    whole = _host(root_fd, path)
    for index in [i for i, c in enumerate(whole) if c == "/" and i] + [len(whole)]:
        if not files.exists(whole[:index]):
            entries.mkdir(whole[:index], mode)
    return files.open(whole, files.O_PATH | files.O_DIRECTORY)

def make_file(root_fd, path, may_make=None):
    files.close(make_directory(root_fd, path.rpartition("/")[0] or "/"))
    whole = _host(root_fd, path)
    try:
        files.close(files.open(whole, files.O_WRONLY | files.O_CREAT, 0o644))
    except OSError:
        pass
    return files.open(whole, files.O_PATH)
"""


def listing(directory: str) -> list[tuple[str, int, int, str]]:
    """Everything in a directory of the host: name, mode, device, where a link points."""
    rows = []
    for path, names, files in os.walk(directory):
        for name in names + files:
            whole = os.path.join(path, name)
            found = os.lstat(whole)
            link = os.readlink(whole) if stat.S_ISLNK(found.st_mode) else ""
            rows.append((os.path.relpath(whole, directory), found.st_mode, found.st_rdev, link))
    return sorted(rows)


def link(container: drive.Container, path: str, target: str) -> None:
    """Put a link into the image."""
    whole = os.path.join(container.bundle.rootfs, path.lstrip("/"))
    os.makedirs(os.path.dirname(whole), exist_ok=True)
    os.symlink(target, whole)


def harm_by_links(arena: Arena, **modules: str) -> list[str]:
    """Mount onto, and work in, paths whose links name a directory of the host; what changed there."""
    runtime = arena.altered(**modules) if modules else None
    harm = []
    for kind in ("absolute", "relative", "proc/cwd", "proc/root", "file", "dangling file", "cwd"):
        host = arena.directory()
        with open(os.path.join(host, "marker"), "w") as file:
            file.write("host\n")
        before = listing(host)
        container = arena.container(runtime)
        prefix = {
            "relative": "../../../../../..",
            "proc/cwd": "/proc/self/cwd/../../../../..",
            "proc/root": "/proc/1/root",
        }.get(kind, "")
        link(container, "/link", prefix + host)
        if kind == "file":
            link(container, "/file", host + "/marker")
            source = container.bundle.outside("source", "bound\n")
            container.bundle.add_mount("/file", "bind", source, "bind")
        elif kind == "dangling file":
            link(container, "/file", host + "/new")
            source = container.bundle.outside("source", "bound\n")
            container.bundle.add_mount("/file", "bind", source, "bind")
        elif kind == "cwd":
            container.process["cwd"] = "/link/made/here"
        else:
            container.bundle.add_mount("/link/made", "tmpfs", "tmpfs")
        container.bundle.linux["devices"] = [
            {"path": "/link/node", "type": "c", "major": 1, "minor": 3}
        ]
        result = container.try_run("cat /link/marker")
        if listing(host) != before:
            harm.append(f"{kind}: changed")
        if "host" in result.stdout:
            harm.append(f"{kind}: seen")
    return harm


@pytest.mark.parametrize("way", WAYS)
def test_links_of_the_image_stay_inside(arena: Arena, way: str) -> None:
    """T-PATH1, CVE-2019-18837, CVE-2015-3629."""
    assert harm_by_links(arena, **WAYS[way]) == []


def test_control_a_resolver_on_text_follows_them(arena: Arena) -> None:
    harm = harm_by_links(arena, base__inroot=NAIVE)
    assert {"absolute: changed", "dangling file: changed", "cwd: changed"} <= set(harm), harm


# races ---------------------------------------------------------------------------------------------

# Looks at a path inside the root, and then uses its text: the window is made wider, not opened.
CHECK_THEN_USE = (
    NAIVE
    + """
import time as _time
_open_inside, _make_inside = open, make_directory

def _settle(root_fd, path):
    fd = inodes.openat2(root_fd, path, files.O_PATH, RESOLVE_IN_ROOT)
    found = entries.readlink(f"/proc/self/fd/{fd}")
    files.close(fd)
    return found

def make_directory(root_fd, path, mode=0o755, may_make=None):
    known, rest = path, ""
    while True:
        try:
            whole = _settle(root_fd, known or "/") + rest
            break
        except FileNotFoundError:
            known, _, name = known.rpartition("/")
            rest = "/" + name + rest
    # Use it when the other side has exchanged the directory for the link, which it does all the time.
    head, exchanged, _ = whole.partition("/x/")
    for _ in range(20000 if exchanged else 0):
        try:
            entries.readlink(head + "/x")
            break
        except OSError:
            _time.sleep(0.0001)
    for index in [i for i, c in enumerate(whole) if c == "/" and i] + [len(whole)]:
        if not files.exists(whole[:index]):
            entries.mkdir(whole[:index], mode)
    return files.open(whole, files.O_PATH | files.O_DIRECTORY)
"""
)


def race_a_mount_point(arena: Arena, seconds: float, **modules: str) -> tuple[int, list[str]]:
    """Exchange a directory of a volume for a link to the host while it is mounted on: rounds, harm."""
    runtime = arena.altered(**modules) if modules else None
    host = arena.directory()
    os.mkdir(os.path.join(host, "t"))
    marker = os.path.join(host, "t/marker")
    with open(marker, "w") as file:
        file.write("host\n")
    volume = arena.directory()
    os.makedirs(os.path.join(volume, "x/t"))
    os.symlink(host, os.path.join(volume, "y"))
    before = listing(host)
    swapper = arena.helper(
        arena.programs["attack"], "swap", os.path.join(volume, "x"), os.path.join(volume, "y")
    )
    harm: list[str] = []
    rounds = 0
    end = time.monotonic() + seconds
    while not rounds or (time.monotonic() < end and not harm):
        container = arena.container(runtime)
        container.bundle.add_mount("/v", "bind", volume, "bind")
        for index in range(6):
            container.bundle.add_mount(f"/v/x/n{rounds}-{index}/d", "tmpfs", "tmpfs")
        # A tmpfs that lands on the host's directory is then what the bind mount shows.
        container.bundle.add_mount("/v/x/t", "tmpfs", "tmpfs")
        container.bundle.add_mount("/leak", "bind", os.path.join(host, "t"), "bind")
        result = container.try_run("cat /leak/marker")
        if result.status == 0 and "host" not in result.stdout:
            harm.append("the source of a later mount was covered")
        if listing(host) != before:
            harm.append(f"made on the host: {os.listdir(host)}")
        container.delete("--force", ok=None)
        rounds += 1
    assert swapper.poll() is None, "the racer has ended"
    return rounds, harm


@pytest.mark.parametrize("way", WAYS)
def test_a_race_for_a_mount_point_is_never_won(arena: Arena, way: str, race_seconds: float) -> None:
    """T-PATH2, CVE-2021-30465, CVE-2024-45310."""
    share = 1 if way == "as shipped" else 0.5
    rounds, harm = race_a_mount_point(arena, race_seconds * share, **WAYS[way])
    print(f"{rounds} rounds")
    assert rounds > 0 and harm == []


def test_control_checking_first_loses_the_race(arena: Arena) -> None:
    _, harm = race_a_mount_point(arena, 300, base__inroot=CHECK_THEN_USE)
    assert harm


def harm_to_device_directory(
    arena: Arena, kind: str, runtime: drive.Runtime | None = None
) -> list[str]:
    """Let /dev of the image be a link to a directory of the host; what changed there."""
    host = arena.directory()
    with open(os.path.join(host, "ptmx"), "w") as file:
        file.write("host\n")
    before = listing(host)
    container = arena.container(runtime)
    container.bundle.drop_mount("/dev")
    os.rmdir(os.path.join(container.bundle.rootfs, "dev"))
    link(container, "/dev", host if kind == "absolute" else "../../../../../.." + host)
    container.try_run("true")
    after = listing(host)
    return [row[0] for row in sorted(set(before) ^ set(after))]


@pytest.mark.parametrize("kind", ["absolute", "relative"])
def test_a_linked_dev_is_not_the_hosts(arena: Arena, kind: str) -> None:
    """T-PATH3, CVE-2026-41579, CVE-2026-47766."""
    assert harm_to_device_directory(arena, kind) == []


@pytest.mark.needs("runc-1.1.5+ds1")
def test_control_runc_makes_links_in_it(arena: Arena) -> None:
    assert "ptmx" in harm_to_device_directory(arena, "absolute", arena.installed("runc"))


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_makes_devices_in_it(arena: Arena) -> None:
    assert "null" in harm_to_device_directory(arena, "absolute", arena.installed("crun"))


def test_control_a_resolver_on_text_makes_devices_in_it(arena: Arena) -> None:
    assert "null" in harm_to_device_directory(arena, "absolute", arena.altered(base__inroot=NAIVE))


def harm_by_the_console(arena: Arena, runtime: drive.Runtime | None = None) -> list[str]:
    """Let /dev/console of the image be a link into a directory of the host; what is there afterwards."""
    host = arena.directory()
    container = arena.container(runtime)
    container.bundle.config["mounts"] = [
        mount for mount in container.config["mounts"] if mount["destination"] != "/dev"
    ]
    link(container, "/dev/console", host + "/console")
    container.process["terminal"] = True
    container.bundle.sh("true")
    console = arena.console(container)
    container.create("--console-socket", console.path, ok=None)
    return os.listdir(host)


def test_a_linked_console_makes_no_file_on_the_host(arena: Arena) -> None:
    """T-PATH4, CVE-2026-88264."""
    assert harm_by_the_console(arena) == []


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_makes_the_console_on_the_host(arena: Arena) -> None:
    assert harm_by_the_console(arena, arena.installed("crun")) == ["console"]


def test_control_a_console_made_by_its_name_is_on_the_host(arena: Arena) -> None:
    by_name = (
        "from anocir.linux import entries\n"
        "def _bind_console(context, slave):\n"
        "    root = entries.readlink(f'/proc/self/fd/{context.root_fd}')\n"
        "    files.close(files.open(root + '/dev/console', files.O_WRONLY | files.O_CREAT, 0o600))\n"
    )
    assert harm_by_the_console(arena, arena.altered(inside__console=by_name)) == ["console"]


def mixed_roots(arena: Arena, seconds: float, **modules: str) -> tuple[int, list[str]]:
    """Exchange the root file system for another while containers are made: rounds, and what was mixed up."""
    runtime = arena.altered(**modules) if modules else None
    one, other = arena.container(runtime), arena.container(runtime)
    one.bundle.put("/which", "one\n")
    other.bundle.put("/which", "other\n")
    roots = {"one": os.path.realpath(one.bundle.rootfs), "other": other.bundle.rootfs}
    # Both are reached by links, which are what is exchanged.
    links = {name: os.path.join(arena.directory(), name) for name in roots}
    for name, path in links.items():
        os.symlink(roots[name], path)
    arena.helper(arena.programs["attack"], "swap", links["one"], links["other"])
    mixed: list[str] = []
    rounds = 0
    end = time.monotonic() + seconds
    while not rounds or (time.monotonic() < end and not mixed):
        container = arena.container(runtime)
        container.config["root"]["path"] = links["one"]
        container.config["mounts"] = []
        names = [f"made{rounds}-{index}" for index in range(8)]
        for name in names:
            container.bundle.add_mount("/" + name, "tmpfs", "tmpfs")
        result = container.try_run("cat /which")
        if result.status == 0:
            own = result.stdout.strip()
            for name in names:
                if not os.path.isdir(os.path.join(roots[own], name)):
                    mixed.append(f"{name} is not in the root of the program")
        places = {
            own for own, root in roots.items() for name in names
            if os.path.isdir(os.path.join(root, name))
        }  # fmt: skip
        if len(places) > 1:
            mixed.append("both roots have been changed")
        container.delete("--force", ok=None)
        rounds += 1
    return rounds, mixed


def test_the_root_is_looked_up_once(arena: Arena, race_seconds: float) -> None:
    """T-PATH5: a link to the root that is exchanged all the time."""
    rounds, mixed = mixed_roots(arena, race_seconds * 0.4)
    assert rounds > 0 and mixed == []


def test_control_a_root_that_is_looked_up_again_is_another(arena: Arena) -> None:
    again = NAIVE + (
        "import time as _time\n"
        "_root, _last = [''], ['']\n"
        "def _host(root_fd, path):\n"
        # It meets the other root each time, and not only when the scheduler likes.
        "    for _ in range(20000 if _root[0] else 0):\n"
        "        now = entries.readlink(_root[0])\n"
        "        if now != _last[0]:\n"
        "            _last[0] = now\n"
        "            break\n"
        "        _time.sleep(0.0001)\n"
        "    return _root[0] + '/' + path.lstrip('/')\n"
    )
    remember = (
        "from ..base import inroot as _inroot\n"
        "_root_as_it_is = root\n"
        "def root(context, path, shared, private):\n"
        "    _inroot._root[0] = path\n"
        "    _root_as_it_is(context, path, shared, private)\n"
    )
    _, mixed = mixed_roots(arena, 300, base__inroot=again, inside__root=remember)
    assert mixed


# files that the caller names ---------------------------------------------------------------------------------


def victim_of_a_pid_file(arena: Arena, **modules: str) -> str:
    """Let whoever shares the directory of the pid file prepare links there; what a file of the host holds then."""
    directory = arena.directory()
    victim = os.path.join(arena.directory(), "victim")
    with open(victim, "w") as file:
        file.write("host\n")
    for name in (".pid", ".pid.tmp", "pid.tmp", ".pid.new", "pid.new", "pid~"):
        os.symlink(victim, os.path.join(directory, name))
    container = arena.container(arena.altered(**modules) if modules else None)
    path = os.path.join(directory, "pid")
    result = container.create("--pid-file", path, ok=None)
    if result.status == 0:
        with open(path) as file:
            assert int(file.read()) == container.pid
    with open(victim) as file:
        return file.read()


def test_a_pid_file_is_written_through_no_link(arena: Arena) -> None:
    """Rule 5: the temporary name beside the pid file can be guessed."""
    assert victim_of_a_pid_file(arena) == "host\n"


def test_control_a_temporary_file_that_follows_is_seen(arena: Arena) -> None:
    follow = (
        "def write_pid_file(path, pid):\n"
        "    directory, slash, name = path.rpartition('/')\n"
        "    temporary = f'{directory}{slash}.{name}'\n"
        "    fd = files.open(temporary, files.O_WRONLY | files.O_CREAT | files.O_TRUNC, 0o666)\n"
        "    files.write_all(fd, str(pid).encode())\n"
        "    entries.rename(temporary, path)\n"
    )
    assert victim_of_a_pid_file(arena, host__launch=follow) != "host\n"


PASSWD = ("fifo", "endless", "huge", "link to the host", "directory")


def home_from(arena: Arena, kind: str, **modules: str) -> drive.Result:
    """Take HOME from a false /etc/passwd of the image."""
    container = arena.container(arena.altered(**modules) if modules else None)
    path = os.path.join(container.bundle.rootfs, "etc/passwd")
    os.unlink(path)
    if kind == "fifo":
        os.mkfifo(path)
        if modules:
            # Opened only by the side of who waits for it.
            arena.helper("sh", "-c", f"echo root:x:0:0::/fifo-home:/bin/sh > {path}")
    elif kind == "endless":
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif kind == "huge":
        with open(path, "wb") as file:
            file.truncate(15 << 20)
    elif kind == "link to the host":
        host = os.path.join(arena.directory(), "passwd")
        with open(host, "w") as file:
            file.write("root:x:0:0::/host-home:/bin/sh\n")
        os.symlink(host, path)
    else:
        os.mkdir(path)
    return container.try_run("echo $HOME", ok=True)


@pytest.mark.parametrize("kind", PASSWD)
def test_a_false_passwd_neither_blocks_nor_leads_out(arena: Arena, kind: str) -> None:
    assert home_from(arena, kind).line == "/"


@pytest.mark.parametrize("kind", ["fifo", "link to the host"])
def test_control_a_passwd_that_is_just_opened(arena: Arena, kind: str) -> None:
    just = (
        "from anocir.linux import entries\n"
        "def home(context, uid):\n"
        "    if context.env:\n        return\n"
        "    target = entries.readlink(f'/proc/self/fd/{context.root_fd}') + '/etc/passwd'\n"
        "    text = files.read_file(target)\n"
        "    context.env.append('HOME=' + (_home_in(text, uid) or '/'))\n"
    )
    early = (
        "_setup_as_it_is = _finish_steps\n"
        "def _finish_steps(config, facts):\n"
        "    return [('home', '', 0), *_setup_as_it_is(config, facts)]\n"
    )
    home = {"fifo": "/fifo-home", "link to the host": "/host-home"}[kind]
    assert home_from(arena, kind, inside__program=just, model__plan=early).line == home
