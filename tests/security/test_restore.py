"""T-CR: images of a checkpoint, and links of a container, that ask a restore for more than config.json gives.

CVE-2026-119101 (runc), CVE-2026-115520 (crun): a mount was named by its destination, resolved in the root, so the image's
links had a say in which source it got. CVE-2026-53489, -53492: an image directory was trusted. CVE-2026-18107: credentials.
Each attack is also run against an archive that names mounts and trusts images as those did.
"""

from __future__ import annotations

import os
import shutil
import struct
from typing import Any, Callable, Iterator

import pytest

from anocir.base import protobuf
from tests import drive
from tests.drive import Container
from tests.security.conftest import Arena

pytestmark = pytest.mark.needs("criu")

NAMES = {
    "the key ends early": "a]:b",
    "and a host's directory follows": "x]:/etc",
    "a new line": "a\nb",
    "a backslash": "a\\040b",
    "a control character": "a\x7fb",
}
# No look at the text of a place, nor at what lies there, nor at what the images say.
NO_TEXT = {"host__externals": "def check_text(where, point): pass\n"}
NAIVE = {
    "host__externals": "def _check_source(*args): pass\n",
    "host__restored": "def check_mounts(init, mounted): pass\n",
    "model__distrust": "def check(*args): pass\n",
}


def launched(container: Container) -> int:
    container.launch("echo >/up; exec sleep 1000")
    container.wait_file("up")
    return container.pid


def written_down(container: Container) -> None:
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)


def gone(container: Container) -> bool:
    return container.runtime("state", container.id, ok=None).status != 0


# streams -------------------------------------------------------------------------------------------


def from_a_terminal(container: Container) -> tuple[str, str, str]:
    """Restore what had pipes from a terminal: what it says of its streams; the terminal's mode, before and after."""
    script = "echo >/up; read x; for f in 0 1 2; do readlink /proc/self/fd/$f; done; chmod 606 "
    container.process["args"] = ["/bin/sh", "-c", script + "/proc/self/fd/2; echo got $x >&2"]
    container.bundle.write()
    words = ("--bundle", container.bundle.path, container.id)
    first = drive.Terminal(container.runtime.command("run", *words))
    container.wait_file("up")
    container.checkpoint()
    first.close()
    again = ("--image-path", container.images, *words)
    terminal = drive.Terminal(container.runtime.command("restore", *again))
    name = os.ttyname(terminal.slave)
    before = oct(os.stat(name).st_mode)
    terminal.send("word\n")
    said = terminal.expect("got word\r\n")
    after = oct(os.stat(name).st_mode)
    assert terminal.close() == 0
    return said, before, after


def test_a_restore_from_a_terminal_gives_pipes(arena: Arena) -> None:
    """T-TTY2: root of the container could change the mode of what is handed on."""
    said, before, after = from_a_terminal(arena.container())
    assert said.count("pipe:[") == 3 and before == after, said


def test_control_without_pipes_restore_hands_the_terminal_on(arena: Arena) -> None:
    runtime = arena.altered(host__restore="Restoring._pipe = lambda self, inherited: None\n")
    said, before, after = from_a_terminal(arena.container(runtime))
    assert "/dev/pts/" in said and before != after, said


# names ---------------------------------------------------------------------------------------------


def place(container: Container, name: str, link: bool) -> None:
    """A bind mount at a directory of this name, or at a link to it that the image has."""
    source = container.bundle.outside("source")
    container.bundle.make_directory(name)
    destination = "/" + name
    if link:
        os.symlink("/" + name, os.path.join(container.bundle.rootfs, "link"))
        destination = "/link"
    container.bundle.add_mount(destination, "", source, "bind")


@pytest.mark.parametrize("link", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_place_that_criu_would_read_otherwise(arena: Arena, name: str, link: bool) -> None:
    container = arena.container()
    place(container, NAMES[name], link)
    launched(container)
    done = container.checkpoint(ok=False)
    assert "cannot be handed to criu" in done.stderr
    assert len(done.stderr.strip().split("\n")) == 2, "a name must not make lines of its own"
    assert not os.path.exists(os.path.join(container.images, "dump.log")), "criu was started"
    assert container.status == "running"


@pytest.mark.parametrize("name", ["the key ends early", "a new line"])
def test_the_control_hands_it_over(arena: Arena, name: str) -> None:
    container = arena.container(arena.altered(**NO_TEXT))
    place(container, NAMES[name], True)
    launched(container)
    container.checkpoint(ok=None)
    assert os.path.exists(os.path.join(container.images, "dump.log"))


def test_two_links_to_one_directory(arena: Arena) -> None:
    container = arena.container()
    container.bundle.make_directory("place")
    for name in ("one", "two"):
        os.symlink("/place", os.path.join(container.bundle.rootfs, name))
        container.bundle.add_mount("/" + name, "", container.bundle.outside(f"s{name}"), "bind")
    launched(container)
    done = container.checkpoint(ok=False)
    assert "mounts[6]" in done.stderr or "mounts[7]" in done.stderr
    assert container.status == "running"
    assert not os.path.exists(os.path.join(container.images, "dump.log"))


def swapped(arena: Arena, runtime: drive.Runtime | None = None) -> tuple[str, Container]:
    """A container that has exchanged the links to a read-only and to a writable source."""
    container = arena.container(runtime)
    sources = {}
    for name, option in (("locked", "ro"), ("open", "rw")):
        container.bundle.make_directory("at-" + name)
        os.symlink("/at-" + name, os.path.join(container.bundle.rootfs, name))
        sources[name] = container.bundle.outside("source-" + name)
        container.bundle.add_mount("/" + name, "", sources[name], "bind", option)
    launched(container)
    container.exec("sh", "-c", "rm /locked /open; ln -s /at-open /locked; ln -s /at-locked /open")
    return sources["locked"], container


def test_links_that_have_changed_places(arena: Arena) -> None:
    _, container = swapped(arena)
    done = container.checkpoint(ok=False)
    assert "lies another mount than that of" in done.stderr
    assert container.status == "running"


def test_the_control_writes_to_a_read_only_source(arena: Arena) -> None:
    source, container = swapped(arena, arena.altered(**NAIVE))
    written_down(container)
    container.restore()
    container.exec("sh", "-c", "echo broken >/at-open/file", ok=None)
    assert os.path.exists(os.path.join(source, "file")), "the attack does not work any more"


def test_links_that_change_between_checkpoint_and_restore(arena: Arena) -> None:
    """The image of the container is another one by then: its links lead elsewhere."""
    container = arena.container()
    for name in ("here", "there"):
        container.bundle.make_directory(name)
    link = os.path.join(container.bundle.rootfs, "link")
    os.symlink("/here", link)
    container.bundle.add_mount("/link", "", container.bundle.outside("source"), "bind")
    launched(container)
    written_down(container)
    os.unlink(link)
    os.symlink("/there", link)
    container.restore(ok=False)
    assert "its place is '/there'" in container.errors()
    assert gone(container)


# read-only sources ---------------------------------------------------------------------------------


def without_its_mount_point(arena: Arena, runtime: drive.Runtime | None = None) -> Container:
    container = arena.container(runtime)
    source = container.bundle.outside("source")
    os.mkdir(os.path.join(source, "point"))
    container.bundle.add_mount("/locked", "", source, "bind", "ro")
    container.bundle.add_mount("/locked/point", "tmpfs", "tmpfs")
    launched(container)
    written_down(container)
    os.rmdir(os.path.join(source, "point"))
    return container


def test_nothing_is_made_below_a_read_only_source(arena: Arena) -> None:
    container = without_its_mount_point(arena)
    container.restore(ok=False)
    assert "mounts[7]" in container.errors()
    assert "its mount point is missing below a read-only mount" in container.errors()
    assert os.listdir(container.bundle.outside("source")) == []
    assert gone(container)


def test_the_control_makes_it(arena: Arena) -> None:
    careless = (
        "_careful = _options\n"
        "def _options(external):\n"
        "    return {**_careful(external), 'set': 0}\n"
    )
    container = without_its_mount_point(arena, arena.altered(host__staging=careless))
    container.restore(ok=None)
    assert os.listdir(container.bundle.outside("source")) == ["point"]


# images that somebody has changed ------------------------------------------------------------------


def change_mounts(container: Container, change: Callable[[dict[int, Any]], None]) -> None:
    """Rewrite the mounts in the images: `change` gets the fields of each by their number."""
    (name,) = [n for n in os.listdir(container.images) if n.startswith("mountpoints-")]
    path = os.path.join(container.images, name)
    with open(path, "rb") as file:
        data = file.read()
    out, at = data[:8], 8
    while at < len(data):
        (size,) = struct.unpack_from("=I", data, at)
        fields = {n: v for n, _, v in protobuf._fields(data[at + 4 : at + 4 + size])}
        at += 4 + size
        change(fields)
        table: Any = {
            str(n): (n, protobuf.INT if isinstance(v, int) else protobuf.BYTES)
            for n, v in fields.items()
        }
        new = protobuf.encode({str(n): v for n, v in fields.items()}, table)
        out += struct.pack("=I", len(new)) + new
    with open(path, "wb") as file:
        file.write(out)


def make_writable(fields: dict[int, Any]) -> None:
    if fields.get(18, b"").startswith(b"anocir-"):
        fields[5] &= ~1


def with_a_locked_source(arena: Arena, runtime: drive.Runtime | None = None) -> Container:
    container = arena.container(runtime)
    container.bundle.add_mount("/locked", "", container.bundle.outside("source"), "bind", "ro")
    launched(container)
    written_down(container)
    return container


def test_images_that_make_a_source_writable(arena: Arena) -> None:
    container = with_a_locked_source(arena)
    change_mounts(container, make_writable)
    container.restore(ok=False)
    assert "without ro" in container.errors()
    assert gone(container)


def test_the_control_is_writable(arena: Arena) -> None:
    container = with_a_locked_source(arena, arena.altered(**NAIVE))
    change_mounts(container, make_writable)
    container.restore()
    container.exec("sh", "-c", "echo broken >/locked/file")
    assert os.listdir(container.bundle.outside("source")) == ["file"]


def test_images_whose_mounts_are_looked_at_too_late(arena: Arena) -> None:
    """Without the look before, the one at the stopped processes finds it."""
    runtime = arena.altered(model__distrust="def check(*args): pass\n")
    container = with_a_locked_source(arena, runtime)
    change_mounts(container, make_writable)
    container.restore(ok=False)
    assert "has another mount at '/locked'" in container.errors()
    assert os.listdir(container.bundle.outside("source")) == []


def a_link(path: str) -> None:
    os.rename(path, path + ".real")
    os.symlink(path + ".real", path)


def a_fifo(path: str) -> None:
    os.unlink(path)
    os.mkfifo(path)


def too_large(path: str) -> None:
    os.truncate(path, 2 << 20)


CHANGES: dict[str, tuple[str, Callable[[str], None], str]] = {
    "pages behind a link": ("pages-1.img", a_link, "neither a file nor a directory"),
    "a pipe that nobody writes": ("descriptors.json", a_fifo, "neither a file nor a directory"),
    "descriptors behind a link": ("descriptors.json", a_link, "neither a file nor a directory"),
    "descriptors without end": ("descriptors.json", too_large, "at the most"),
    "a record without end": ("anocir.json", too_large, "at the most"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_are_none(arena: Arena, change: str) -> None:
    name, alter, said = CHANGES[change]
    container = with_a_locked_source(arena)
    alter(os.path.join(container.images, name))
    container.restore(ok=False)
    assert said in container.errors()
    assert gone(container)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("anocir.json", '{"version": 2}', "version"),
        ("anocir.json", '{"version": 1, "mounts": {}}', "mounts is not a list"),
        ("anocir.json", '{"version": 1, "mounts": []}', "no mount at '/locked'"),
        ("descriptors.json", "[1, 2]", "not a list of names"),
        ("descriptors.json", "[", "descriptors.json"),
    ],
)
def test_records_that_lie(arena: Arena, name: str, text: str, said: str) -> None:
    container = with_a_locked_source(arena)
    with open(os.path.join(container.images, name), "w") as file:
        file.write(text)
    container.restore(ok=False)
    assert said in container.errors()
    assert gone(container)


def test_a_record_with_another_name(arena: Arena) -> None:
    container = with_a_locked_source(arena)
    path = os.path.join(container.images, "anocir.json")
    with open(path) as file:
        text = file.read()
    with open(path, "w") as file:
        file.write(text.replace('"anocir-6"', '"x]:/etc"'))
    container.restore(ok=False)
    assert "is no name of a mount" in container.errors()


def test_a_checkpoint_writes_through_no_link(arena: Arena) -> None:
    """Who could write to the directory before has put a link where CRIU will write, or a pipe where it will wait."""
    container = arena.container()
    launched(container)
    mark = container.bundle.outside("mark", "whole")
    work = container.bundle.outside("work")
    os.mkdir(container.images)
    planted = (
        (container.images, "dump.log", ()),
        (container.images, "core-1.img", ()),
        (work, "dump.log", ("--work-path", work)),
        (work, "stats-dump", ("--work-path", work)),
    )
    for directory, name, options in planted:
        path = os.path.join(directory, name)
        for make in (lambda path: os.symlink(mark, path), os.mkfifo):
            make(path)
            said = container.checkpoint(*options, ok=False, timeout=60).stderr
            assert f"'{name}' is neither a file nor a directory" in said
            os.unlink(path)
    with open(mark) as file:
        assert file.read() == "whole"
    assert container.status == "running"


# what a restored process may do --------------------------------------------------------------------


def fewer_capabilities(container: Container) -> None:
    for names in container.process["capabilities"].values():
        names.remove("CAP_NET_RAW")


def no_new_privileges(container: Container) -> None:
    container.process["noNewPrivileges"] = True


def a_filter(container: Container) -> None:
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}


def the_hosts_network(container: Container) -> None:
    container.bundle.drop_namespace("network")


def a_cgroup_namespace(container: Container) -> None:
    container.bundle.set_namespace("cgroup")


def another_user(container: Container) -> None:
    container.process["user"] = {"uid": 1000, "gid": 1000}


PRIVILEGES: dict[str, tuple[Callable[[Container], None], str]] = {
    "a capability": (fewer_capabilities, "CAP_NET_RAW"),
    "new privileges": (no_new_privileges, "process.noNewPrivileges"),
    "no filter": (a_filter, "linux.seccomp"),
    "another network": (the_hosts_network, "another network namespace"),
    "another view of cgroups": (a_cgroup_namespace, "another cgroup namespace"),
}


@pytest.mark.parametrize("more", PRIVILEGES)
def test_images_with_more_than_the_configuration(arena: Arena, more: str) -> None:
    """As if the images had been changed: here it is config.json that gives less than they hold."""
    change, said = PRIVILEGES[more]
    container = with_a_locked_source(arena)
    change(container)
    container.restore(ok=False)
    assert said in container.errors()
    assert gone(container)


def test_images_with_another_user(arena: Arena) -> None:
    container = arena.container()
    container.process["noNewPrivileges"] = True
    container.process["capabilities"] = {}
    launched(container)
    written_down(container)
    another_user(container)
    container.restore(ok=False)
    assert "process.user: restored process" in container.errors()


def test_the_control_does_not_look(arena: Arena) -> None:
    nothing = "def check(*args): pass\ndef check_mounts(*args): pass\n"
    container = with_a_locked_source(arena, arena.altered(host__restored=nothing))
    no_new_privileges(container)
    container.restore()
    assert container.status == "running"


# what CRIU does by the word of an image -------------------------------------------------------------

Fields = "list[tuple[int, int, Any]]"


def packed(fields: Fields) -> bytes:
    """The bytes of a message, in whatever order its fields are."""
    out = b""
    for number, wire, value in fields:
        out += protobuf.varint(number << 3 | wire)
        if wire == 2:
            out += protobuf.varint(len(value))
        out += protobuf.varint(value) if wire == 0 else value
    return out


def within(
    numbers: tuple[int, ...], change: Callable[[Fields], Fields]
) -> Callable[[Fields], Fields]:
    """Do that to each message that these numbers of fields lead to."""
    if not numbers:
        return change

    def deeper(fields: Fields) -> Fields:
        inside = within(numbers[1:], change)
        return [
            (n, w, packed(inside(list(protobuf._fields(v)))) if n == numbers[0] else v)
            for n, w, v in fields
        ]

    return deeper


Whole = Callable[["list[Fields]"], "list[Fields]"]


def rewrite(path: str, change: Whole) -> None:
    """Change the messages of an image."""
    with open(path, "rb") as file:
        data = file.read()
    messages, at = [], 8
    while at < len(data):
        (size,) = struct.unpack_from("=I", data, at)
        messages.append(list(protobuf._fields(data[at + 4 : at + 4 + size])))
        at += 4 + size
    new = [packed(fields) for fields in change(messages)]
    with open(path, "wb") as file:
        file.write(data[:8] + b"".join(struct.pack("=I", len(each)) + each for each in new))


def field(number: int, value: Any) -> Callable[[Fields], Fields]:
    """Put that in the place of a field, or add it."""
    wire = 0 if isinstance(value, int) else 2
    return lambda fields: [*(f for f in fields if f[0] != number), (number, wire, value)]


def lift(numbers: tuple[int, ...], bit: int, away: int = 0) -> Callable[[Fields], Fields]:
    return lambda fields: [(n, w, (v | bit) & ~away if n in numbers else v) for n, w, v in fields]


def each(change: Callable[[Fields], Fields]) -> Whole:
    return lambda messages: [change(fields) for fields in messages]


def at(point: bytes, change: Callable[[Fields], Fields] | None) -> Whole:
    """Change the mount at a place, or leave it out."""
    return lambda messages: [
        change(fields) if change and (7, 2, point) in fields else fields
        for fields in messages
        if change or (7, 2, point) not in fields
    ]


def again(point: bytes, place: bytes) -> Whole:
    """A mount once more, at another place."""
    return lambda messages: [
        new
        for fields in messages
        for new in (fields, field(2, 9999)(field(7, place)(fields)))
        if new is fields or (7, 2, point) in fields
    ]


def elsewhere(path: bytes) -> Callable[[Fields], Fields]:
    """Every process in the cgroup at a path: of all sets, in all hierarchies."""
    return within((1, 2), lambda fields: [(n, w, path if n == 2 else v) for n, w, v in fields])


def in_a_cgroup(name: bytes, file: bytes) -> Callable[[Fields], Fields]:
    """A cgroup more in the first hierarchy, with a file that CRIU writes to."""
    prop = packed([(1, 2, file), (2, 2, b"broken")])
    below = packed([(1, 2, name), (3, 2, prop)])
    return within((2, 2), lambda fields: [*fields, (2, 2, below)])


MARK = f"/tmp/anocir-lie-{os.getpid()}"
CREDENTIALS = (5, 10)  # thread_core.creds in images/core.proto
SYS_ADMIN, NET_RAW = 1 << 21, 1 << 13
ZIGZAG_5 = 9
RDONLY, PROCFS = 1, 1  # flags and fstype in images/mnt.proto
LIES: dict[str, tuple[str, Whole, str]] = {
    "a thread has a capability": (
        "core-2.img", each(within(CREDENTIALS, lift((10, 11, 12), SYS_ADMIN))), "CAP_SYS_ADMIN in Cap",
    ),
    "a thread may get privileges": (
        "core-2.img", each(within(CREDENTIALS, field(18, 0))), "has it not",
    ),
    "a thread is another user": ("core-2.img", each(within(CREDENTIALS, field(3, 7))), "has the ids"),
    "a group more": ("core-1.img", each(within(CREDENTIALS, field(14, 4242))), "has the groups"),
    "another group": ("core-1.img", each(within(CREDENTIALS, field(4, 4242))), "has the groups"),
    "a higher priority": (
        "core-2.img", each(within((5,), field(3, ZIGZAG_5))), "has the nice value -5",
    ),
    "a higher limit": (
        "core-1.img", each(within((3, 8, 1), field(2, 4096))), "has 4096 as its hard limit",
    ),
    "a file of the host by a cgroup": (
        "cgroup.img", each(in_a_cgroup(b"x", 12 * b"../" + MARK[1:].encode())), "is no name in a cgroup",
    ),
    "a cgroup of the host": ("cgroup.img", each(in_a_cgroup(b"a/../../../x", b"x")), "no path of a cgroup"),
    "a directory of the host as a hierarchy": (
        "cgroup.img", each(within((2,), field(1, b"../../x"))), "is no name in a cgroup",
    ),
    "above the cgroup": ("cgroup.img", each(elsewhere(b"/a/../..")), "is no path of a cgroup"),
    "another's cgroup": ("cgroup.img", each(elsewhere(b"/")), "is in the cgroup '/' of another"),
    "a read-only path is writable": (
        "mountpoints-", at(b"/proc/sys", lift((5,), 0, RDONLY)), "linux.readonlyPaths[0]: restored",
    ),
    "a read-only path is left out": (
        "mountpoints-", at(b"/proc/sys", None), "linux.readonlyPaths[0]: restored writable",
    ),
    "a masked directory is left out": (
        "mountpoints-", at(b"/sys/firmware", None), "linux.maskedPaths[0]: restored without",
    ),
    "a masked file is left out": (
        "mountpoints-", at(b"/proc/keys", None), "linux.maskedPaths[1]: restored without the mask",
    ),
    "sysfs is writable": (
        "mountpoints-", at(b"/sys", lift((5,), 0, RDONLY)), "restored at '/sys' without ro",
    ),
    "another file system": (
        "mountpoints-", at(b"/dev/mqueue", field(1, PROCFS)), "has no mqueue at /dev/mqueue",
    ),
    "a file system more": (
        "mountpoints-", again(b"/proc", b"/tmp"), "the images mount proc at '/tmp'",
    ),
}  # fmt: skip


def lied_to(arena: Arena, names: list[str], runtime: drive.Runtime | None = None) -> dict[str, str]:
    """Restore one container with each of these lies in its images: what was said, nothing where it runs."""
    container = arena.container(runtime)
    arena.install(container, "attack", "/bin/attack")
    container.process["args"] = ["/bin/attack", "threads", "/up"]
    container.process["noNewPrivileges"] = True
    for held in container.process["capabilities"].values():
        held[:] = ["CAP_CHOWN"]
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 64, "hard": 64}]
    container.linux["readonlyPaths"] = ["/proc/sys"]
    container.linux["maskedPaths"] = ["/sys/firmware", "/proc/keys"]
    container.launch()
    drive.until("threads", lambda: os.path.exists(os.path.join(container.bundle.rootfs, "up")))
    written_down(container)
    true = container.images + ".true"
    os.rename(container.images, true)
    said = {}
    for name in names:
        shutil.rmtree(container.images, ignore_errors=True)
        shutil.copytree(true, container.images)
        image, change, _ = LIES[name]
        (image,) = [one for one in os.listdir(container.images) if one.startswith(image)]
        rewrite(os.path.join(container.images, image), change)
        os.truncate(container.stderr_path, 0)
        container.restore(ok=None)
        said[name] = container.errors()
        if gone(container):
            continue
        said[name] = ""
        pid = container.pid
        container.delete("--force")
        container.wait_exit(pid)
    return said


@pytest.fixture
def mark() -> Iterator[str]:
    """A file of the host that an image names."""
    with open(MARK, "w") as file:
        file.write("whole")
    yield MARK
    os.unlink(MARK)


def test_what_images_say_of_threads_cgroups_and_mounts(arena: Arena, mark: str) -> None:
    """Each thread has credentials of its own, CRIU writes as us what cgroup.img has, and mounts what is listed."""
    said = lied_to(arena, list(LIES))
    with open(mark) as file:
        assert file.read() == "whole"
    assert [name for name in LIES if LIES[name][2] not in said[name]] == [], said


def with_a_raw_socket(arena: Arena, runtime: drive.Runtime | None = None) -> Container:
    """Images with a socket that takes CAP_NET_RAW, for a configuration without it."""
    container = arena.container(runtime)
    container.bundle.set_namespace("network")
    container.process["args"] = ["/bin/ping", "-i", "100", "127.0.0.1"]
    os.symlink("busybox", os.path.join(container.bundle.rootfs, "bin/ping"))
    container.launch()
    drive.until("ping", lambda: "bytes" in container.output())
    written_down(container)
    for held in container.process["capabilities"].values():
        held.remove("CAP_NET_RAW")
    change = each(within(CREDENTIALS, lift((9, 10, 11, 12), 0, NET_RAW)))
    rewrite(os.path.join(container.images, "core-1.img"), change)
    return container


def test_a_socket_that_takes_a_capability(arena: Arena) -> None:
    container = with_a_raw_socket(arena)
    container.restore(ok=False)
    assert "files.img has a raw socket, without CAP_NET_RAW" in container.errors()
    assert gone(container)


def test_control_criu_makes_the_socket(arena: Arena) -> None:
    runtime = arena.altered(host__images="def check_sockets(*args): pass\n")
    container = with_a_raw_socket(arena, runtime)
    container.restore()
    assert len(container.exec("cat", "/proc/net/raw").stdout.splitlines()) == 2


def test_control_criu_believes_the_images(arena: Arena, mark: str) -> None:
    runtime = arena.altered(
        host__images="def check_cgroups(directory): pass\n",
        host__restored="def _tasks(pid): return [f'/proc/{pid}']\n"
        "def _groups(*args): pass\ndef _scheduling(*args): pass\ndef _limits(*args): pass\ndef check_rules(*args): pass\n",
    )
    names = [
        "a higher limit", "a higher priority",
        "a thread has a capability", "a group more", "a file of the host by a cgroup",
        "a read-only path is left out", "a masked file is left out", "sysfs is writable",
        "a file system more",
    ]  # fmt: skip
    assert lied_to(arena, names, runtime) == dict.fromkeys(names, "")
    with open(mark) as file:
        assert file.read() == "broken"


# which criu ----------------------------------------------------------------------------------------


def old_criu(directory: str) -> dict[str, str]:
    """A criu that says that it is 4.1.1, and else is the one that is there."""
    path = os.path.join(directory, "criu")
    text = (
        "import os, socket, sys\n"
        "fd = int(sys.argv[2])\n"
        "sock = socket.socket(fileno=os.dup(fd))\n"
        "data = sock.recv(65536, socket.MSG_PEEK)\n"
        "if data.startswith(bytes([8, 10])):\n"
        "    sock.recv(65536)\n"
        "    sock.send(bytes([8, 10, 16, 1, 0x52, 6, 8, 4, 16, 1, 32, 1]))\n"
        "    sys.exit()\n"
        f"os.execv({shutil.which('criu')!r}, sys.argv)\n"
    )
    with open(path + ".py", "w") as file:
        file.write(text)
    with open(path, "w") as file:
        file.write(f'#!/bin/sh\nexec /usr/bin/python3 {path}.py "$@"\n')
    os.chmod(path, 0o755)
    return {**os.environ, "PATH": directory + ":" + os.environ["PATH"]}


def test_a_criu_with_known_holes_needs_a_word(arena: Arena) -> None:
    container = arena.container()
    launched(container)
    env = old_criu(arena.directory())
    done = container.checkpoint(ok=False, env=env)
    assert "criu 4.1.1" in done.stderr
    assert "CVE-2026-18107" in done.stderr
    assert "--old-criu" in done.stderr
    assert container.status == "running"
    assert container.runtime.bare("checkpoint", "--help", ok=None, env=env).status == 1
    assert container.runtime.bare("--old-criu", "checkpoint", "--help", env=env).status == 0
    pid = container.pid
    options = ("--image-path", container.images, container.id)
    done = container.runtime("--old-criu", "checkpoint", *options, env=env)
    assert "CVE-2026-18107" in done.stderr, "it warns"
    container.wait_exit(pid)
