"""Init names sources by their numbers, each of them once, and nothing else."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from anocir.base import inroot
from anocir.errors import Error
from anocir.host import launch, sources
from anocir.wire import channel

pytestmark = pytest.mark.unit


@pytest.fixture
def init():
    """An init in our own mount namespace, whose end of the channel nobody reads."""
    near, far = socket.socketpair()
    made = launch.Init(os.getpid(), channel.Channel(near.detach()), 0)
    made.pid = os.getpid()
    made.sources = {3: ("mounts[3].source", 3, "/nothing", "follow", "/x", "", False, True)}
    yield made
    made.channel.close()
    if made.middle_fd >= 0:
        os.close(made.middle_fd)
    far.close()


@pytest.mark.parametrize(
    "payload",
    [struct.pack("=i", 4), struct.pack("=i", -1), b"/etc/shadow", struct.pack("=ii", 3, 3)],
)
def test_what_is_no_number_of_a_source_is_refused(init: launch.Init, payload: bytes) -> None:
    with pytest.raises(Error, match="^unexpected source"):
        sources.answer(init, payload)


def test_as_long_as_nobody_is_in_the_container_nothing_is_answered(init: launch.Init) -> None:
    init.pid = 0
    near, far = socket.socketpair()
    init.channel.close()
    init.channel = channel.Channel(near.detach())
    with far:
        channel.Channel(far.fileno()).send(channel.SOURCES, struct.pack("=i", 3))
        with pytest.raises(Error, match="^unexpected frame 21"):
            init.expect(channel.HOOKS, "waiting")


def test_where_in_the_root_a_missing_path_leads(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    (tmp_path / "link").symlink_to(root / "dir")
    (tmp_path / "top").symlink_to(tmp_path)
    expected = {
        "link/x/y": "/dir/x/y",
        "top/root/gone/": "/gone",
        "top/rootless/x": "",
        "beside/x": "",
        "link/x/../../../y": "",
        "nothing/at/all": "",
    }
    told = {path: inroot.beneath(str(root), f"{tmp_path}/{path}") for path in expected}
    assert told == expected
    assert inroot.beneath("/", "/gone/file") == "/gone/file"


def test_links_inside_of_a_root_stay_inside(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "dir").mkdir(parents=True)
    (root / "dir" / "file").write_text("inside")
    (root / "dir" / "link").symlink_to("/dir/file")
    (root / "dir" / "out").symlink_to(tmp_path)
    root_fd = os.open(root, os.O_PATH)
    opened = inroot.source("/dir/link", "follow", root_fd)
    assert os.path.samestat(os.fstat(opened), os.stat(root / "dir" / "file"))
    os.close(opened)
    opened = inroot.source("/dir/link", "nofollow", root_fd)
    assert os.readlink("", dir_fd=opened) == inroot.source("/dir/link", "copy", root_fd)
    os.close(opened)
    with pytest.raises(FileNotFoundError):
        inroot.source("/dir/out", "follow", root_fd)
    os.close(root_fd)
