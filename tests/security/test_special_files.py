"""T-FILE: --pid-file, --log and --trace given a device or another special file leave it what it is."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

import pytest

from tests import drive
from tests.host import describe
from tests.security.conftest import Arena
from tests.security.test_inodes import peers

KINDS = ("null", "full", "zero", "FIFO", "FIFO without a reader", "socket", "link to null", "tty")
OPTIONS = ("--pid-file", "--log", "--trace")


def special(directory: str, kind: str, kept: list[Any]) -> str:
    path = os.path.join(directory, "it")
    minors = {"null": 3, "full": 7, "zero": 5}
    if kind in minors:
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, minors[kind]))
    elif kind.startswith("FIFO"):
        os.mkfifo(path)
        if kind == "FIFO":
            kept.append(os.open(path, os.O_RDWR))
    elif kind == "socket":
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(path)
        kept.append(sock.detach())
    elif kind == "tty":
        master, slave = os.openpty()
        kept += [master, slave]
        return os.ttyname(slave)
    else:
        os.mknod(path + "-node", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.symlink(path + "-node", path)
    return path


def after_a_create(
    arena: Arena, option: str, kind: str, runtime: drive.Runtime | None = None
) -> tuple[str, str, drive.Result]:
    """What the file was, what it is, and what create answered."""
    container = arena.container(runtime)
    container.bundle.write()
    kept: list[Any] = []
    path = special(arena.directory(), kind, kept)
    before = describe(path)
    words = [option, path]
    create = ["create", "--bundle", container.bundle.path]
    command = [*create, *words] if option == "--pid-file" else [*words, *create]
    try:
        with open(container.stdout_path, "ab") as out:
            result = container.runtime(*command, container.id, ok=None, timeout=30, stdout=out)
        return before, describe(path), result
    finally:
        for fd in kept:
            os.close(fd)


@pytest.mark.parametrize(
    ("option", "kind"),
    # A terminal that nobody reads is full after the first page of a trace.
    [(o, k) for o in OPTIONS for k in KINDS if (o, k) != ("--trace", "tty")],
)
def test_a_special_file_stays_what_it_is(arena: Arena, option: str, kind: str) -> None:
    before, after, result = after_a_create(arena, option, kind)
    assert before == after and "bug" not in result.stderr
    if kind in ("null", "zero", "FIFO", "link to null", "tty"):
        assert result.status == 0, result.explain()


@pytest.mark.parametrize("peer", [peers("runc"), peers("crun")])
def test_control_a_peer_puts_a_file_in_its_place(arena: Arena, peer: str) -> None:
    before, after, _ = after_a_create(arena, "--pid-file", "full", arena.installed(peer))
    if peer == "runc":
        assert before != after
    else:
        assert before == after  # crun writes into it


def test_the_pid_is_in_the_pipe(arena: Arena) -> None:
    container = arena.container()
    path = os.path.join(arena.directory(), "pipe")
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    container.create("--pid-file", path)
    assert int(os.read(reader, 100)) == container.pid
    os.close(reader)
