"""The state directory: whole files, damaged files, and processes that race for one id."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anocir.host import listing, lock, removal, reserve, saving, store
from anocir.errors import CONTRACT, Error
from anocir.linux import entries, files
from tests.kernel import child
from tests.wait import others_go_on

pytestmark = pytest.mark.unit


@pytest.fixture
def root(tmp_path) -> str:
    return str(tmp_path / "run" / "anocir")


@pytest.fixture
def box(root):
    one = reserve.reserve(root, "box")
    yield one
    one.close()


def test_reserve_makes_private_directories(root, box) -> None:
    for path in (root, f"{root}/box"):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o700
    assert (box.id, box.path) == ("box", f"{root}/box")
    assert not os.get_inheritable(box.dir_fd)


def test_what_was_saved_is_read_back(root, box) -> None:
    saving.config(box, {"ociVersion": "1.3.0", "é": [1]})
    saving.intent(box, {"bundle": "/b"})
    saving.state(box, pid=7, start_time=8)
    saving.state(box, created=True, pid=9)
    again = store.open_container(root, "box")
    again.load()
    assert again.intent == {"version": store.VERSION, "id": "box", "bundle": "/b"}
    assert again.state == {"pid": 9, "start_time": 8, "created": True, "intent": again.intent}
    assert again.config() == {"ociVersion": "1.3.0", "é": [1]}
    again.close()


def test_a_state_that_was_foreseen_only_takes_its_name(box, monkeypatch) -> None:
    saving.state(box, pid=7)
    saving.foresee(box, created=True)
    assert json.loads(files.read_file(f"{box.path}/state.json")) == {"pid": 7, "intent": {}}
    with monkeypatch.context() as patch:
        patch.setattr(files, "open", lambda *_, **__: pytest.fail("it is written already"))
        saving.state(box, created=True)
    saved = {"pid": 7, "created": True, "intent": {}}
    assert json.loads(files.read_file(f"{box.path}/state.json")) == saved
    assert os.listdir(box.path) == ["state.json"]


def test_a_state_that_was_not_foreseen_is_written(box) -> None:
    saving.foresee(box, created=True)
    saving.state(box, hooked=True)  # in the place of the other one, and by the same name
    saving.state(box, created=True)
    assert json.loads(files.read_file(f"{box.path}/state.json")) == box.state
    assert box.state == {"hooked": True, "created": True, "intent": {}}


def test_files_are_private_and_nothing_else_is_left(root, box) -> None:
    old = os.umask(0)
    try:
        saving.config(box, {})
        saving.intent(box, {})
        saving.state(box)
    finally:
        os.umask(old)
    assert sorted(os.listdir(box.path)) == ["config.json", "intent.json", "state.json"]
    for name in os.listdir(box.path):
        assert stat.S_IMODE(os.stat(f"{box.path}/{name}").st_mode) == 0o600


def test_a_file_is_replaced_whole(box, monkeypatch) -> None:
    """The old one is there until the new one is complete."""
    saving.state(box, number=1)
    events = []
    for module, name in ((files, "write"), (entries, "rename")):
        real = getattr(module, name)

        def spy(*args, name=name, real=real):
            events.append((name, json.loads(Path(box.path, "state.json").read_text())["number"]))
            return real(*args)

        monkeypatch.setattr(module, name, spy)
    saving.state(box, number=2)
    assert [name for name, _ in events] == ["write", "rename"]
    assert {number for _, number in events} == {1}
    assert json.loads(Path(box.path, "state.json").read_text())["number"] == 2


def test_a_failed_write_leaves_the_old_file_and_names_it(box, monkeypatch) -> None:
    saving.state(box, number=1)

    def full(fd: int, data: bytes) -> int:
        raise OSError(28, "write")

    monkeypatch.setattr(files, "write", full)
    with pytest.raises(OSError) as caught:
        saving.state(box, number=2)
    assert (caught.value.errno, caught.value.filename) == (28, f"{box.path}/state.json")
    assert json.loads(Path(box.path, "state.json").read_text())["number"] == 1


def test_a_link_in_the_place_of_the_temporary_file_is_not_followed(box, tmp_path) -> None:
    target = tmp_path / "target"
    target.write_text("precious")
    os.symlink(target, f"{box.path}/.state.json.{os.getpid()}")
    with pytest.raises(OSError):
        saving.state(box, number=1)
    assert target.read_text() == "precious"


def test_readers_never_see_half_a_file(root, box) -> None:
    saving.intent(box, {})
    saving.state(box, value="x" * 5, length=5)

    def writer() -> None:
        while True:
            for size in range(300):
                saving.state(box, value="x" * size * 100, length=size * 100)

    pid = child.start(writer)
    reads = 0
    seen = set()
    end = time.monotonic() + 60
    try:
        while (reads < 300 or len(seen) < 10) and time.monotonic() < end:
            one = store.open_container(root, "box")
            one.load()
            assert len(one.state["value"]) == one.state["length"]
            seen.add(one.state["length"])
            one.close()
            reads += 1
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "the writer came to an end"
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert reads > 10 and len(seen) > 1


# Damage -------------------------------------------------------------------------------------------

DAMAGE = [b"", b"{", b"[]", b"null", b'"text"', b"\xff", b"{}{}", b'{"a":1,"a":2}', b"\0" * 100]


@pytest.mark.parametrize("data", DAMAGE)
@pytest.mark.parametrize("name", ["intent.json", "state.json"])
def test_a_damaged_file_is_an_error_that_says_how_to_get_rid_of_it(
    root, box, name: str, data: bytes
) -> None:
    saving.intent(box, {"bundle": "/b"})
    if name == "state.json":
        saving.state(box, pid=1)
    Path(box.path, name).write_bytes(data)
    one = store.open_container(root, "box")
    with pytest.raises(Error) as caught:
        one.load()
    assert caught.value.text.startswith(f"container box: {name}: ")
    assert caught.value.hint == "delete --force removes it"
    one.load(damaged=True)
    assert one.state == {}
    assert one.intent == ({} if name == "intent.json" else box.intent)
    one.close()


@pytest.mark.parametrize("data", [None, *DAMAGE])
def test_the_state_alone_is_enough(root, box, data) -> None:
    saving.intent(box, {"bundle": "/b"})
    saving.state(box, pid=1, start_time=1, created=True)
    path = Path(box.path, "intent.json")
    path.write_bytes(data) if data is not None else path.unlink()
    one = store.open_container(root, "box")
    one.load()
    assert one.intent["bundle"] == "/b" and one.state["pid"] == 1
    one.close()


def test_a_configuration_that_is_no_object_is_an_error(box) -> None:
    Path(box.path, "config.json").write_text("[]")
    with pytest.raises(Error, match="config.json: not an object"):
        box.config()


def test_without_an_intent_there_is_no_container(root, box) -> None:
    with pytest.raises(Error) as caught:
        box.load()
    assert caught.value.text == CONTRACT["missing"]
    box.load(damaged=True)
    assert box.intent == {} == box.state


def test_without_a_state_init_never_was(box) -> None:
    saving.intent(box, {"bundle": "/b"})
    box.load()
    assert box.state == {}


@settings(suppress_health_check=list(HealthCheck), max_examples=60)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path, data: bytes) -> None:
    root = str(tmp_path / "fuzz")
    one = (
        reserve.reserve(root, "box")
        if not os.path.exists(root)
        else store.open_container(root, "box")
    )
    Path(one.path, "intent.json").write_bytes(data)
    try:
        one.load()
    except Error as error:
        assert error.text.startswith("container box: intent.json: ")
    one.load(damaged=True)
    assert isinstance(one.intent, dict)
    one.close()


# Removal ------------------------------------------------------------------------------------------


def test_remove_takes_all_with_it(root, box, tmp_path) -> None:
    saving.config(box, {})
    saving.intent(box, {})
    saving.state(box)
    Path(box.path, f".state.json.{1}").write_text("left by a killed runtime")
    Path(box.path, "sub", "deep").mkdir(parents=True)
    Path(box.path, "sub", "deep", "file").touch()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    os.symlink(outside, Path(box.path, "sub", "link"))
    os.mkfifo(Path(box.path, "fifo"))
    removal.remove(box)
    assert not os.path.exists(box.path) and os.listdir(root) == []
    assert (outside / "file").exists(), "links are removed, not followed"


def test_remove_of_what_is_gone_is_no_error(box) -> None:
    os.rmdir(box.path)
    removal.remove(box)


def test_the_intent_goes_last(box, monkeypatch) -> None:
    """While there is one, `delete --force` still knows what was made."""
    saving.config(box, {})
    saving.intent(box, {})
    saving.state(box)
    os.mkfifo(Path(box.path, store.START))
    os.mkfifo(Path(box.path, store.REPORT))
    order = []
    real = files.unlink

    def spy(path, dir_fd=None) -> None:
        order.append(path)
        real(path, dir_fd)

    monkeypatch.setattr(files, "unlink", spy)
    removal.remove(box)
    assert order[-1] == "intent.json" and len(order) == 5


# Who has it ---------------------------------------------------------------------------------------


def test_an_id_is_taken_once(root, box) -> None:
    saving.intent(box, {})
    lock.give(box)
    for call in (reserve.reserve, reserve.check_free):
        with pytest.raises(Error) as caught:
            call(root, "box")
        assert caught.value.text == CONTRACT["exists"]
    reserve.check_free(root, "other")
    removal.remove(box)
    reserve.check_free(root, "box")
    again = reserve.reserve(root, "box")
    again.close()


def test_what_a_killed_create_left_is_taken_over(root) -> None:
    def killed() -> None:
        one = reserve.reserve(root, "box")
        saving.config(one, {})

    assert child.end(killed) == 0
    one = reserve.reserve(root, "box")
    saving.intent(one, {"mine": True})
    one.close()


def test_a_missing_container_is_one_text(root) -> None:
    for make in (lambda: None, lambda: os.makedirs(root)):
        make()
        with pytest.raises(Error) as caught:
            store.open_container(root, "box")
        assert caught.value.text == CONTRACT["missing"]


def test_a_link_in_the_place_of_a_directory_is_not_followed(root, tmp_path) -> None:
    os.makedirs(root, 0o700)
    (tmp_path / "evil").mkdir()
    os.symlink(tmp_path / "evil", f"{root}/box")
    for call in (store.open_container, reserve.reserve):
        with pytest.raises(Error, match="no directory"):
            call(root, "box")


def test_a_lock_keeps_another_process_waiting(root, box) -> None:
    saving.intent(box, {})
    read_end, write_end = os.pipe()

    def other() -> None:
        one = store.open_container(root, "box")
        os.write(write_end, b"1")
        lock.take(one)
        os.write(write_end, b"2")

    pid = child.start(other)
    assert os.read(read_end, 1) == b"1"
    os.set_blocking(read_end, False)
    others_go_on(10)
    with pytest.raises(BlockingIOError):
        os.read(read_end, 1)
    os.set_blocking(read_end, True)
    lock.give(box)
    assert os.read(read_end, 1) == b"2"
    os.waitpid(pid, 0)
    os.close(read_end)
    os.close(write_end)


def test_who_waited_for_the_lock_learns_that_it_was_removed(root, box) -> None:
    saving.intent(box, {})
    read_end, write_end = os.pipe()

    def other() -> None:
        box.close()  # a copy of the descriptor is a copy of the lock
        one = store.open_container(root, "box")
        os.write(write_end, b"1")
        try:
            lock.take(one)
        except Error as error:
            assert error.text == CONTRACT["missing"]
            return
        raise AssertionError("it got a lock of nothing")

    pid = child.start(other)
    os.read(read_end, 1)
    removal.remove(box)
    box.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    os.close(read_end)
    os.close(write_end)


def racers(count: int, action) -> list[bytes]:
    """Start processes that call `action` at the same moment; what each returned, in any order."""
    gate_read, gate_write = os.pipe()
    read_end, write_end = os.pipe()

    def one() -> None:
        os.close(gate_write)
        os.read(gate_read, 1)
        try:
            answer = action()
        except Error as error:
            answer = error.text
        except BaseException as error:
            answer = f"{type(error).__name__}: {error}"
        os.write(write_end, str(answer).encode() + b"\n")

    pids = [child.start(one) for _ in range(count)]
    for end in (gate_read, gate_write, write_end):
        os.close(end)
    with open(read_end, "rb") as file:
        answers = file.read().splitlines()
    for pid in pids:
        assert os.waitpid(pid, 0)[1] == 0
    return [answer.decode() for answer in answers]


@pytest.mark.parametrize("left", [False, True], ids=["nothing there", "a directory was left"])
def test_of_many_who_reserve_one_wins(root, left: bool) -> None:
    if left:
        os.makedirs(f"{root}/box", 0o700)
        os.chmod(root, 0o700)

    def one_of_many() -> str:
        one = reserve.reserve(root, "box")
        time.sleep(0.002)
        saving.intent(one, {"winner": os.getpid()})
        lock.give(one)
        return "won"

    for _ in range(5):
        answers = racers(8, one_of_many)
        assert sorted(answers) == [CONTRACT["exists"]] * 7 + ["won"]
        one = store.open_container(root, "box")
        lock.take(one)
        one.load()
        removal.remove(one)
        one.close()
        if left:
            os.mkdir(f"{root}/box", 0o700)


def test_create_and_delete_again_and_again_never_mix(root) -> None:
    """Each round reserves, writes and removes; whoever loses gets one of two plain errors."""

    def rounds() -> str:
        won = 0
        for _ in range(60):
            try:
                one = reserve.reserve(root, "box")
            except Error as error:
                assert error.text == CONTRACT["exists"], error.text
                continue
            saving.intent(one, {"owner": str(os.getpid())})
            saving.state(one, owner=str(os.getpid()))
            again = store.open_container(root, "box")
            again.load()
            assert again.intent["owner"] == again.state["owner"] == str(os.getpid())
            again.close()
            removal.remove(one)
            one.close()
            won += 1
        return f"won {won}"

    answers = racers(6, rounds)
    assert all(answer.startswith("won ") for answer in answers), answers
    assert sum(int(answer.split()[1]) for answer in answers) >= 1
    assert os.listdir(root) == []


def test_reading_while_others_create_and_delete_gives_a_whole_container_or_none(root) -> None:
    def make() -> str:
        for _ in range(80):
            one = reserve.reserve(root, "box")
            saving.intent(one, {"bundle": "/b"})
            saving.state(one, pid=1)
            lock.give(one)
            lock.take(one)
            removal.remove(one)
            one.close()
        return "done"

    pid = child.start(make)
    seen = set()
    while os.waitpid(pid, os.WNOHANG)[0] == 0:
        try:
            one = store.open_container(root, "box")
        except Error as error:
            seen.add(error.text)
            continue
        try:
            one.load()
            seen.add("whole")
        except Error as error:
            seen.add(error.text)
        one.close()
    assert seen <= {"whole", CONTRACT["missing"]}


# The root -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770])
def test_a_root_that_others_can_write_to_is_refused(root, mode: int) -> None:
    os.makedirs(root)
    os.chmod(root, mode)
    with pytest.raises(Error, match="can be written by others"):
        reserve.reserve(root, "box")


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o770])
def test_a_directory_that_others_could_have_prepared_is_not_taken_over(root, mode: int) -> None:
    """In a sticky root, such as /tmp, anybody may make the directory first."""
    os.makedirs(f"{root}/box")
    os.chmod(root, 0o1777)
    os.chmod(f"{root}/box", mode)
    with pytest.raises(Error, match="written by others"):
        reserve.reserve(root, "box")


@pytest.mark.needs("root")
def test_a_root_of_another_user_is_refused(root) -> None:
    os.makedirs(root, 0o755)
    os.chown(root, 12345, 12345)
    with pytest.raises(Error, match="belongs to another user"):
        reserve.reserve(root, "box")
    os.chown(root, 0, 0)
    os.mkdir(f"{root}/box", 0o700)
    os.chown(f"{root}/box", 12345, 12345)
    with pytest.raises(Error, match="belongs to another user"):
        reserve.reserve(root, "box")


def test_the_ids_are_directories_without_a_colon(root) -> None:
    assert listing.ids(root) == []
    os.makedirs(root)
    for name in ("b", "a", ":seccomp", "c.d-1"):
        os.mkdir(f"{root}/{name}")
    assert listing.ids(root) == ["a", "b", "c.d-1"]


def test_now_is_rfc_3339_with_nanoseconds() -> None:
    before = int(time.time())
    text = reserve.now()
    after = time.time()
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", text)
    whole = time.strptime(text[:19], "%Y-%m-%dT%H:%M:%S")
    import calendar

    assert before <= calendar.timegm(whole) <= after
