"""Programs kept by content: a hit is cheap, and only what this user wrote whole is believed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from anocir.base import log
from anocir import seccomp
from anocir.seccomp import cache, generate
from tests import drive
from tests.unit.seccomp_profiles import engine_profile, needs_libseccomp, profile, rule

pytestmark = needs_libseccomp

PROFILE = profile("ALLOW", rule("getpid", "ERRNO"), rule("no_such_call", "ERRNO"))


class Compiler:
    """Counts how often libseccomp was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        real = generate.generate

        def counted(wanted: dict[str, Any]) -> dict[str, Any]:
            self.calls += 1
            return real(wanted)

        monkeypatch.setattr(generate, "generate", counted)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Compiler:
    return Compiler(monkeypatch)


@pytest.fixture
def directory(tmp_path: Any) -> str:
    return str(tmp_path / "seccomp-cache")


def get(directory: str, wanted: dict[str, Any] = PROFILE) -> dict[str, Any]:
    return seccomp.compile(wanted, directory, print)


def entry(directory: str) -> str:
    (name,) = os.listdir(directory)
    return os.path.join(directory, name)


def test_a_hit_is_the_same_as_a_miss(directory: str, compiler: Compiler) -> None:
    first = get(directory)
    assert get(directory) == first
    assert compiler.calls == 1
    assert first == get("")
    status = os.stat(directory)
    assert (status.st_mode & 0o7777, status.st_uid) == (0o700, os.geteuid())
    assert os.stat(entry(directory)).st_mode & 0o7777 == 0o600


def test_what_was_ignored_is_told_on_a_hit_too(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(log, "debug", said.append)
    get(directory)
    get(directory)
    assert said == ["linux.seccomp: syscalls[1]: unknown system calls no_such_call"] * 2


def test_warnings_come_on_a_hit_too(directory: str) -> None:
    wanted = profile("ALLOW", flags=["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"])
    said: list[str] = []
    seccomp.compile(wanted, directory, said.append)
    seccomp.compile(wanted, directory, said.append)
    assert len(said) == 2


def test_where_the_listener_is_does_not_count(directory: str, compiler: Compiler) -> None:
    wanted = profile("ALLOW", rule("getpid", "NOTIFY"), listenerPath="/a")
    get(directory, wanted)
    get(directory, {**wanted, "listenerPath": "/b", "listenerMetadata": "x"})
    assert compiler.calls == 1


def test_every_other_difference_counts(directory: str) -> None:
    variants: list[dict[str, Any]] = [
        PROFILE,
        {**PROFILE, "defaultAction": "SCMP_ACT_LOG"},
        {**PROFILE, "flags": []},
        {**PROFILE, "architectures": ["SCMP_ARCH_X86"]},
        profile("ALLOW", rule("getpid", "ERRNO"), rule("no_such_cal", "ERRNO")),
        profile("ALLOW", rule("getpid", "ERRNO", errno=2), rule("no_such_call", "ERRNO")),
    ]
    assert len({cache.key(wanted) for wanted in variants}) == len(variants)


DAMAGES = {
    "empty": lambda data: b"",
    "cut off": lambda data: data[:-1],
    "longer": lambda data: data + b"\0",
    "another magic": lambda data: b"X" + data[1:],
    "another size": lambda data: data[:8] + b"\1" + data[9:],
    "another checksum": lambda data: data[:20] + bytes([data[20] ^ 1]) + data[21:],
    "another description": lambda data: data.replace(b'"notify":false', b'"notify":true '),
    "last byte": lambda data: data[:-1] + bytes([data[-1] ^ 0x80]),
    "an allow-all program": lambda data: data[:-16] + b"\x06\0\0\0\0\0\xff\x7f" * 2,
}


@pytest.mark.parametrize("damage", sorted(DAMAGES))
def test_a_damaged_entry_is_replaced(directory: str, compiler: Compiler, damage: str) -> None:
    first = get(directory)
    path = entry(directory)
    with open(path, "rb") as file:
        data = file.read()
    with open(path, "wb") as file:
        file.write(DAMAGES[damage](data))
    assert get(directory) == first
    assert compiler.calls == 2
    with open(path, "rb") as file:
        assert file.read() == data


def test_every_flipped_byte_is_noticed(directory: str) -> None:
    get(directory)
    path = entry(directory)
    name = bytes.fromhex(os.path.basename(path))
    with open(path, "rb") as file:
        data = file.read()
    assert cache.load(directory, name) is not None
    for at in range(0, len(data), 7):
        with open(path, "wb") as file:
            file.write(data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :])
        assert cache.load(directory, name) is None, at


def test_an_entry_under_another_name_is_not_believed(directory: str, compiler: Compiler) -> None:
    get(directory)
    stolen = entry(directory)
    other = profile("ALLOW", rule("getuid", "ERRNO"))
    os.rename(stolen, os.path.join(directory, cache.key(other).hex()))
    assert seccomp.run(get(directory, other)["bpf"], 0) == seccomp.RET_ALLOW
    assert compiler.calls == 2


@pytest.mark.parametrize("kind", ["symlink", "fifo", "directory", "readable", "foreign"])
def test_anything_but_a_private_file_is_not_believed(
    directory: str, compiler: Compiler, kind: str, tmp_path: Any
) -> None:
    first = get(directory)
    path = entry(directory)
    if kind == "foreign":
        if os.geteuid():
            pytest.skip("[root] only root can give a file away")
        os.chown(path, 12345, -1)
    elif kind == "readable":
        os.chmod(path, 0o644)
    else:
        os.rename(path, tmp_path / "moved")
        if kind == "symlink":
            os.symlink(tmp_path / "moved", path)
        elif kind == "fifo":
            os.mkfifo(path, 0o600)
        else:
            os.mkdir(path, 0o700)
    assert get(directory) == first
    assert compiler.calls == 2
    if kind != "directory":
        assert get(directory) == first
        assert compiler.calls == 2, "the entry was not replaced"


@pytest.mark.parametrize("kind", ["open", "foreign", "symlink", "file"])
def test_a_directory_of_others_is_neither_read_nor_written(
    directory: str, compiler: Compiler, kind: str, tmp_path: Any
) -> None:
    first = get(directory)
    if kind == "open":
        os.chmod(directory, 0o755)
    elif kind == "foreign":
        if os.geteuid():
            pytest.skip("[root] only root can give a directory away")
        os.chown(directory, 12345, -1)
    else:
        os.rename(directory, tmp_path / "moved")
        if kind == "symlink":
            os.symlink(tmp_path / "moved", directory)
        else:
            (tmp_path / "seccomp-cache").write_bytes(b"")
    assert get(directory) == first
    assert get(directory) == first
    assert compiler.calls == 3


def test_a_missing_parent_only_costs_time(compiler: Compiler, tmp_path: Any) -> None:
    missing = str(tmp_path / "a" / "b")
    assert get(missing) == get(missing)
    assert compiler.calls == 2


def test_another_library_compiles_again(
    directory: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    get(directory)
    real = cache.identity
    monkeypatch.setattr(cache, "identity", lambda path: [*real(path)[:-1], 1])
    get(directory)
    assert compiler.calls == 2
    monkeypatch.setattr(cache, "identity", lambda path: [])
    get(directory)
    assert compiler.calls == 3


def test_writers_at_the_same_time_leave_a_whole_entry(directory: str) -> None:
    os.mkdir(directory, 0o700)
    script = (
        "import sys, json\nfrom anocir import seccomp\n"
        "for _ in range(10):\n"
        "    got = seccomp.cache.load(sys.argv[1], seccomp.cache.key(json.loads(sys.argv[2])))\n"
        "    new = seccomp.compile(json.loads(sys.argv[2]), None, print)\n"
        "    assert got is None or got == new\n"
        "    seccomp.cache.store(sys.argv[1], seccomp.cache.key(json.loads(sys.argv[2])), new)\n"
    )
    command = [sys.executable, "-c", script, directory, json.dumps(PROFILE)]
    writers = [
        subprocess.Popen(command, stderr=subprocess.PIPE, cwd=drive.REPOSITORY) for _ in range(4)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=120)
        assert writer.returncode == 0, errors
    assert os.listdir(directory) == [cache.key(PROFILE).hex()]


def test_the_cache_does_not_grow_for_ever(directory: str) -> None:
    made = seccomp.compile(PROFILE, None, print)
    for number in range(3 * cache.MAX_ENTRIES):
        cache.store(directory, number.to_bytes(32, "big"), made)
    assert cache.MAX_ENTRIES // 2 <= len(os.listdir(directory)) <= cache.MAX_ENTRIES
    assert cache.load(directory, number.to_bytes(32, "big")) is not None


def test_a_hit_loads_neither_libseccomp_nor_a_slow_module(directory: str) -> None:
    get(directory, engine_profile())
    script = (
        "import sys\nfrom anocir import seccomp\nfrom anocir.base import jsonio\n"
        "wanted = jsonio.loads(sys.argv[2].encode())\n"
        "got = seccomp.compile(wanted, sys.argv[1], print)\n"
        "seccomp.check_after_load(got)\n"
        "names = [n for n in sys.modules if n.startswith('anocir.seccomp.')]\n"
        "assert names == ['anocir.seccomp.cache'], names\n"
        "slow = {'hashlib', 'ctypes', '_ctypes', 'struct', 'json', 're'} & set(sys.modules)\n"
        "assert not slow, slow\n"
        "assert 'libseccomp' not in open('/proc/self/maps').read()\n"
    )
    command = [
        sys.executable,
        "-ISc",
        f"import sys; sys.path.insert(0, {drive.REPOSITORY!r})\n{script}",
    ]
    subprocess.run([*command, directory, json.dumps(engine_profile())], check=True, timeout=120)


def test_a_hit_of_an_engine_profile_costs_a_fraction_of_a_miss(directory: str) -> None:
    wanted = engine_profile()

    def cost(place: str | None) -> int:
        """Calls of functions, in Python and in C: the same on every machine, busy or not."""
        events = []
        before = sys.getprofile()
        sys.setprofile(lambda frame, event, argument: events.append(event))
        try:
            seccomp.check_after_load(seccomp.compile(wanted, place, print))
        finally:
            sys.setprofile(before)
        return sum(event in ("call", "c_call") for event in events)

    get(directory, wanted)
    assert 20 * cost(directory) < cost(None)


@pytest.mark.parametrize("lost", [[], ["_blake2"], ["_blake2", "_sha2", "_sha256"]])
def test_the_hash_is_cryptographic_whatever_the_interpreter_has(
    lost: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    for name in lost:
        monkeypatch.setitem(sys.modules, name, None)
    name = "sha256" if lost else "blake2b"
    expected = (
        hashlib.new(name, b"x").digest() if lost else hashlib.blake2b(b"x", digest_size=32).digest()
    )
    assert cache._hash(b"x") == expected
