"""Paths inside the root: openat2, the walk by hand, and chroot(2) as the witness give one answer.

Beside every root lies a directory with the same names, so that a path that got out would find
something, and making something outside of the root would show.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal
import stat
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from anocir.base import inroot
from anocir.linux import files
from tests import machine
from tests.kernel import child
from tests.wait import until

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]

DIRECTORY = files.O_PATH | files.O_DIRECTORY


@pytest.fixture(params=["openat2", "walk"])
def way(request):
    """Run a test by both ways."""
    inroot.use_openat2 = request.param == "openat2"
    yield request.param
    assert inroot.use_openat2 == (request.param == "openat2"), "it fell back by itself"
    inroot.use_openat2 = True


class Place:
    """A root with a tree in it, and its surroundings, which nobody may touch."""

    def __init__(self, top: str, tree: dict[str, str | None]) -> None:
        self.top = top
        self.root = f"{top}/around/root"
        os.makedirs(self.root)
        for name in ("a", "b", "c", "etc"):
            os.makedirs(f"{top}/around/{name}/a")
            os.makedirs(f"{top}/{name}")
        make_tree(self.root, tree)
        self.fd = os.open(self.root, os.O_PATH)
        self.outside = self.listing()

    def listing(self) -> list[str]:
        """Every name outside of the root."""
        found = []
        for directory, names, others in os.walk(self.top):
            if directory == f"{self.top}/around":
                names.remove("root")
            found += [f"{directory}/{name}" for name in names + others]
        return sorted(found)

    def inside(self) -> list[str]:
        """Every name inside, with its kind and a link's text."""
        found = []
        for directory, names, others in os.walk(self.root):
            for name in names + others:
                path = f"{directory}/{name}"
                mode = os.lstat(path).st_mode
                text = os.readlink(path) if stat.S_ISLNK(mode) else ""
                found.append(f"{path[len(self.root) :]} {stat.filemode(mode)} {text}")
        return sorted(found)

    def name_of(self, fd: int) -> str:
        """What a descriptor refers to, as a path from the root; it is closed."""
        try:
            path = os.readlink(f"/proc/self/fd/{fd}")
            assert path == self.root or path.startswith(self.root + "/"), f"{path} is outside"
            return path[len(self.root) :] or "/"
        finally:
            os.close(fd)

    def close(self) -> None:
        os.close(self.fd)
        shutil.rmtree(self.top)


DIR = "<a directory>"


def make_tree(top: str, tree: dict[str, str | None]) -> None:
    """Make files (None), directories (DIR) and links (their text), as far as they can be made."""
    for path, content in tree.items():
        full = f"{top}/{path}"
        try:
            if content == DIR:
                os.mkdir(full)
            elif content is None:
                os.close(os.open(full, os.O_CREAT | os.O_EXCL))
            else:
                os.symlink(content, full)
        except OSError:
            continue


def ask(place: Place, path: str, flags: int, follow: bool) -> str:
    """What inroot.open answers: a path from the root, or the name of an errno."""
    try:
        return place.name_of(inroot.open(place.fd, path, flags, follow))
    except OSError as error:
        assert error.errno is not None
        return errno.errorcode[error.errno]


def ask_in_chroot(place: Place, queries: list[tuple[str, int]]) -> list[str]:
    """What the kernel answers to a process whose root it is."""

    def action() -> list[str]:
        os.chroot(place.root)
        os.chdir("/")
        answers = []
        for path, flags in queries:
            try:
                fd = os.open(path or "/", flags)
            except OSError as error:
                answers.append(errno.errorcode[error.errno])
            else:
                found = os.fstat(fd)
                answers.append((found.st_dev, found.st_ino))
                os.close(fd)
        return answers

    by_inode = {}
    for directory, names, others in os.walk(place.root):
        for path in [directory, *(f"{directory}/{name}" for name in names + others)]:
            found = os.lstat(path)
            by_inode[found.st_dev, found.st_ino] = path[len(place.root) :] or "/"
    return [answer if isinstance(answer, str) else by_inode[answer]
            for answer in child.run(action)]  # fmt: skip


TREE: dict[str, str | None] = {
    "a": DIR, "a/b": DIR, "a/b/file": None, "file": None, "etc": DIR, "etc/passwd": None,
    "absolute": "/a/b", "absolute-file": "/etc/passwd", "relative": "a/b", "a/up": "../etc",
    "a/far-up": "../../../../../../etc/passwd", "to-root": "/", "dots": "..", "more": "../..",
    "a/b/dots": "../../..", "chain1": "chain2", "chain2": "chain3", "chain3": "a",
    "loop": "loop", "loop1": "loop2", "loop2": "loop1", "a/loop-through": "/a/loop-through/x",
    "dangling": "missing", "dangling-far": "/missing/deep/file", "dangling-up": "../../missing",
    "through-file": "file/x", "slash": "a/", "dotted": "./a/./b/.", "double": "a//b",
    "out": "../a", "to-file-slash": "file/",
    **{f"forty{n}": f"forty{n + 1}" for n in range(40)}, "forty40": "a",
}  # fmt: skip

PATHS = [
    "", "/", ".", "..", "../..", "a", "/a", "//a", "a/b", "a//b", "/a/./b", "a/../a", "a/../../a",
    "../a/b", "../../../etc/passwd", "file", "file/..", "file/x", "file/../a", "missing", "missing/..",
    "missing/../a", "a/missing/x", "absolute", "absolute/file", "absolute-file", "relative/file",
    "a/up", "a/up/passwd", "a/far-up", "to-root", "to-root/to-root/a", "to-root/..", "dots", "dots/a",
    "more/a", "a/b/dots", "a/b/dots/a", "chain1", "chain1/b/file", "loop", "loop/x", "loop1", "a/loop-through",
    "dangling", "dangling/x", "dangling-far", "dangling-up", "through-file", "slash", "slash/b", "slash/",
    "dotted", "dotted/file", "double", "out", "out/b", "out/../../a", "forty0", "forty1", "forty1/b",
    "absolute/..", "relative/../..", "a/b/../..", "a/", "a/.", "a/b/", "absolute/", "a/up/..", "x" * 300,
]  # fmt: skip


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    place = Place(str(tmp_path_factory.mktemp("tree")), TREE)
    yield place
    assert place.listing() == place.outside
    place.close()


@pytest.mark.parametrize("path", PATHS)
def test_both_ways_agree_with_chroot(tree, way, path: str) -> None:
    ours = ask(tree, path, files.O_PATH, follow=True)
    # On a busy machine the kernel begins anew, and counts links on: forty of them are too many then.
    until(
        f"chroot says {ours}",
        lambda: ask_in_chroot(tree, [(path, os.O_PATH)])[0],
        timeout=1,
        found=lambda theirs: theirs == ours,
    )


TRAILING = ["file/", "file/.", "to-file-slash", "a/b/file/", "absolute-file/", "absolute-file/."]


@pytest.mark.parametrize("path", TRAILING)
def test_a_slash_at_the_end_asks_for_a_directory(tree, way, path: str) -> None:
    assert ask(tree, path, files.O_PATH, follow=True) == "ENOTDIR"


@pytest.mark.parametrize("path", ["file", "absolute-file", "a", "absolute", "dangling", ""])
def test_o_directory_counts_in_both_ways(tree, way, path: str) -> None:
    assert (
        ask(tree, path, DIRECTORY, follow=True)
        == (ask_in_chroot(tree, [(path, os.O_PATH | os.O_DIRECTORY)])[0])
    )


@pytest.mark.parametrize(
    ("path", "answer"),
    [("a/b", "/a/b"), ("absolute", "ELOOP"), ("a/up/passwd", "ELOOP"), ("a/../etc", "/etc"),
     ("dangling", "ELOOP"), ("loop", "ELOOP"), ("missing", "ENOENT"), ("to-root/a", "ELOOP")],
)  # fmt: skip
def test_without_follow_links_no_link_is_followed(tree, way, path: str, answer: str) -> None:
    assert ask(tree, path, files.O_PATH, follow=False) == answer


def test_a_file_is_opened_for_reading_in_both_ways(tree, way) -> None:
    Path(tree.root, "etc/passwd").write_text("inside")
    fd = inroot.open(tree.fd, "a/far-up", files.O_RDONLY)
    assert os.read(fd, 99) == b"inside" and not os.get_inheritable(fd)
    os.close(fd)
    fd = inroot.open(tree.fd, "/etc/passwd", files.O_RDWR | files.O_NONBLOCK)
    assert os.write(fd, b"INSIDE") == 6
    os.close(fd)
    with pytest.raises(OSError) as caught:
        inroot.open(tree.fd, "a", files.O_WRONLY)
    assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, "a")


def test_errors_name_the_path_that_was_asked_for(tree, way) -> None:
    for path in ("missing/x", "loop", "file/x"):
        with pytest.raises(OSError) as caught:
            inroot.open(tree.fd, path)
        assert caught.value.filename == path


@pytest.mark.parametrize("path", ["proc/self/exe", "proc/self/root", "proc/self/cwd/x",
                                  "proc/self/fd/0", "link", "proc/self/ns/mnt"])  # fmt: skip
def test_magic_links_are_never_followed(tmp_path, way, path: str) -> None:
    """They name files without a path, so they would leave the root."""

    def action() -> str:
        machine.mount("proc", str(tmp_path / "proc"), "proc", 0)
        root = os.open(tmp_path, os.O_PATH)
        try:
            inroot.open(root, path)
        except OSError as error:
            return errno.errorcode[error.errno]
        return "opened"

    (tmp_path / "proc").mkdir()
    (tmp_path / "link").symlink_to("/proc/self/root/etc")
    assert child.run(action, machine.CLONE_NEWNS) == "ELOOP"


def test_parent_gives_the_directory_and_the_last_name(tree, way) -> None:
    for path, directory, name in [
        ("/etc/new", "/etc", "new"), ("new", "/", "new"), ("a/up/new", "/etc", "new"),
        ("absolute/x", "/a/b", "x"), ("a/b/", "/a", "b"), ("/etc//new", "/etc", "new"),
    ]:  # fmt: skip
        fd, found = inroot.parent(tree.fd, path)
        assert (tree.name_of(fd), found) == (directory, name)
    for path in ("/", "", "..", "a/..", "a/."):
        with pytest.raises(FileExistsError):
            inroot.parent(tree.fd, path)


MAKE = [
    # what is asked for, and what it must turn out to be
    ("new", "/new"), ("/new/deep/er", "/new/deep/er"), ("a/b", "/a/b"), ("absolute/x", "/a/b/x"),
    ("../../outside", "/outside"), ("dangling", "/missing"), ("dangling-far", "/missing/deep/file"),
    ("dangling-up", "/missing"), ("dangling/x", "/missing/x"), ("a/far-up/..", "ENOTDIR"),
    ("a/up/new", "/etc/new"), ("more/new", "/new"), ("out/new", "/a/new"), ("loop", "ELOOP"),
    ("loop1/x", "ELOOP"), ("file/x", "ENOTDIR"), ("to-root/new", "/new"), ("forty0/x", "ELOOP"),
    ("new/../other", "/other"),
]  # fmt: skip


@pytest.fixture
def fresh():
    place = Place(tempfile.mkdtemp(), TREE)
    yield place
    assert place.listing() == place.outside
    place.close()


def made(place: Place, make, path: str) -> str:
    try:
        return place.name_of(make(place.fd, path))
    except OSError as error:
        return errno.errorcode[error.errno]


@pytest.mark.parametrize(
    ("path", "answer"), [*MAKE, ("file", "ENOTDIR"), ("absolute-file", "ENOTDIR")]
)
def test_make_directory_makes_what_is_missing(fresh, way, path: str, answer: str) -> None:
    assert made(fresh, inroot.make_directory, path) == answer
    if answer.startswith("/"):
        assert os.path.isdir(fresh.root + answer)
        assert made(fresh, inroot.make_directory, path) == answer, "a second time is no error"


@pytest.mark.parametrize(("path", "answer"), [*MAKE, ("file", "/file"), ("absolute-file", "/etc/passwd"),
                                              ("a", "/a")])  # fmt: skip
def test_make_file_makes_a_file_or_takes_what_is_there(fresh, way, path: str, answer: str) -> None:
    existed = os.path.lexists(fresh.root + answer)
    assert made(fresh, inroot.make_file, path) == answer
    if answer.startswith("/") and not existed:
        found = os.lstat(fresh.root + answer)
        assert stat.S_ISREG(found.st_mode) and found.st_size == 0


def test_make_directory_gives_new_directories_their_mode(fresh, way) -> None:
    old = os.umask(0)
    try:
        os.close(inroot.make_directory(fresh.fd, "x/y", 0o711))
    finally:
        os.umask(old)
    assert [os.stat(f"{fresh.root}/{name}").st_mode & 0o7777 for name in ("x", "x/y")] == [
        0o711
    ] * 2


@pytest.mark.parametrize("path", ["x" * 256, "a/" + "y" * 256])
def test_make_directory_says_that_a_name_is_too_long(fresh, way, path: str) -> None:
    assert made(fresh, inroot.make_directory, path) == "ENAMETOOLONG"


def test_make_directory_on_a_read_only_root_says_so(tmp_path, way) -> None:
    def action() -> str:
        machine.mount("t", str(tmp_path), "tmpfs", 1)
        return made_errno(os.open(tmp_path, os.O_PATH), "new")

    assert child.run(action, machine.CLONE_NEWNS) == "EROFS"


def made_errno(root: int, path: str) -> str:
    try:
        inroot.make_directory(root, path)
    except OSError as error:
        return errno.errorcode[error.errno]
    return "made"


# Random trees -----------------------------------------------------------------------------------

PARTS = st.sampled_from(["a", "b", "c", "..", ".", "", "file"])
TEXT = st.builds(
    lambda parts, absolute: ("/" if absolute else "") + "/".join(parts),
    st.lists(PARTS, min_size=1, max_size=5), st.booleans(),
).filter(bool)  # fmt: skip
NAMES = st.lists(st.sampled_from(["a", "b", "c", "file"]), min_size=1, max_size=3).map("/".join)
TREES = st.lists(
    st.tuples(NAMES, st.one_of(st.just(DIR), st.just(DIR), st.none(), TEXT)),
    min_size=1, max_size=14,
)  # fmt: skip
FUZZ = settings.default.max_examples > 1000
RANDOM = settings(
    max_examples=settings.default.max_examples if FUZZ else 60,
    derandomize=not FUZZ,  # as in tests/unit/conftest.py
    deadline=None,
    suppress_health_check=list(HealthCheck),
)


@RANDOM
@given(TREES, st.lists(TEXT, min_size=1, max_size=8))
@example([("a", DIR), ("a/b", "/../.."), ("c", "a/b/../etc")], ["c", "a/b/c", "a/b/../a"])
def test_random_trees_mean_the_same_to_all_three(entries, paths) -> None:
    place = Place(tempfile.mkdtemp(), dict(entries))
    try:
        expected = ask_in_chroot(place, [(path, os.O_PATH) for path in paths])
        assert [ask(place, path, files.O_PATH, follow=True) for path in paths] == expected
        inroot.use_openat2 = False
        assert [ask(place, path, files.O_PATH, follow=True) for path in paths] == expected
        assert place.listing() == place.outside
    finally:
        inroot.use_openat2 = True
        place.close()


@RANDOM
@given(TREES, st.lists(st.tuples(st.booleans(), TEXT), min_size=1, max_size=6))
def test_whatever_is_made_in_random_trees_is_inside(entries, wishes) -> None:
    places = [Place(tempfile.mkdtemp(), dict(entries)) for _ in range(2)]
    try:
        answers: list[list[str]] = [[], []]
        for number, place in enumerate(places):
            inroot.use_openat2 = number == 0
            for directory, path in wishes:
                make = inroot.make_directory if directory else inroot.make_file
                answers[number].append(made(place, make, path))
            assert place.listing() == place.outside
        assert answers[0] == answers[1]
        assert places[0].inside() == places[1].inside()
    finally:
        inroot.use_openat2 = True
        for place in places:
            place.close()


# Somebody changes the tree at the same time -----------------------------------------------------


def test_a_link_that_is_swapped_in_while_we_look_never_leads_out(way) -> None:
    """A directory and a link to the outside take turns; what is opened is always inside."""
    place = Place(tempfile.mkdtemp(), {"a": DIR, "a/b": DIR, "evil": "../../../.."})
    os.symlink(f"{place.top}/around", f"{place.root}/evil2")
    parent = os.getpid()
    swapper = os.fork()  # a process, as a thread and we would take turns at Python's lock
    if swapper == 0:
        os.chdir(place.root)
        while os.getppid() == parent:
            os.rename("a", "c")
            os.rename("evil", "a")
            os.rename("a", "evil")
            os.rename("c", "a")
        os._exit(0)
    seen = set()
    met = 0  # how often the directory was there, and how often not
    rounds = 0
    end = time.monotonic() + 60
    try:
        while rounds < 1500 or (not (seen & {"/a/b", "/c/b"} and met) and time.monotonic() < end):
            rounds += 1
            for path in ("a/b", "a/b/../..", "a/../evil/a", "evil2/a"):
                try:
                    fd = inroot.open(place.fd, path)
                except OSError as error:
                    assert error.errno in (errno.ENOENT, errno.EAGAIN)
                    met += 1
                    continue
                seen.add(place.name_of(fd).replace(" (deleted)", ""))
    finally:
        os.kill(swapper, signal.SIGKILL)
        os.waitpid(swapper, 0)
        place.close()
    assert met
    assert seen & {"/a/b", "/c/b"}  # by the name that it had when we asked


@pytest.mark.parametrize("call", ["ENOSYS", "EPERM"])
def test_without_openat2_it_falls_back_by_itself(tree, call: str) -> None:
    """An old kernel says ENOSYS, a seccomp filter around the runtime may say EPERM."""
    from anocir.linux import nr, oneself
    from tests.kernel.test_tasks import filters

    number = nr.NUMBERS["openat2"]
    program = filters((0x20, 0, 0, 0), (0x15, 0, 1, number),
                      (0x06, 0, 0, 0x00050000 | getattr(errno, call)), (0x06, 0, 0, 0x7FFF0000))  # fmt: skip

    def action() -> tuple[bool, str, str]:
        oneself.seccomp_filter(program, 0)
        first = ask(tree, "absolute/file", files.O_PATH, follow=True)
        return inroot.use_openat2, first, ask(tree, "loop", files.O_PATH, follow=True)

    assert child.run(action) == (False, "/a/b/file", "ELOOP")
