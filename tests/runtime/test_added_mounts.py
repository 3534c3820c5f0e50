"""`mounts add` and `mounts remove`: what a container gets while it runs, and loses again."""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any

import pytest

from tests import drive
from tests.drive import Container

pytestmark = pytest.mark.needs("mount_setattr")


def call(container: Container, verb: str, *mounts: dict[str, Any], ok: bool | None = True) -> Any:
    """Add or remove mounts, from a file as crun takes it."""
    path = os.path.join(container.bundle.path, "mounts.json")
    with open(path, "w") as file:
        json.dump(list(mounts), file)
    return container.runtime("mounts", verb, container.id, path, ok=ok)


def table(container: Container) -> dict[str, str]:
    """Destination and options of each mount in the container."""
    with open(f"/proc/{container.pid}/mountinfo") as file:
        return {row.split()[4]: row.split()[5] for row in file}


def bind(source: str, destination: str, *options: str, **more: Any) -> dict[str, Any]:
    """An entry for a bind mount."""
    words = ["rbind", *options]
    return {"destination": destination, "source": source, "type": "bind", "options": words, **more}


@pytest.fixture
def volume(container: Container) -> str:
    """A directory of the host with a file."""
    path = container.bundle.outside("volume")
    with open(os.path.join(path, "file"), "w") as file:
        file.write("of the host")
    return path


@pytest.mark.parametrize("mapped", [False, True])
def test_they_come_and_go(container: Container, volume: str, mapped: bool) -> None:
    if mapped:
        container.bundle.use_user_namespace()
    container.launch("exec sleep 1000")
    before = table(container)
    wanted = [
        bind(volume, "/mnt/new", "ro", "nosuid"),
        {"destination": "/scratch", "type": "tmpfs", "options": ["mode=0711", "size=1m", "noexec"]},
        {"destination": "/one", "source": f"{volume}/file", "options": ["bind", "nodev"]},
    ]
    call(container, "add", *wanted)
    said = container.exec(
        "sh", "-c", "cat /mnt/new/file /one; touch /mnt/new/x 2>&1; stat -c %a /scratch", ok=None
    ).stdout
    assert said.startswith("of the hostof the hosttouch: /mnt/new/x: Read-only file system")
    assert said.endswith("711\n")
    now = table(container)
    assert {"ro", "nosuid"} <= set(now["/mnt/new"].split(","))
    assert "noexec" in now["/scratch"]
    assert "nodev" in now["/one"]
    shown = container.state()["mounts"]
    assert [each["destination"] for each in shown] == ["/mnt/new", "/scratch", "/one"]
    assert [each["type"] for each in shown] == ["bind", "tmpfs", "bind"]
    if not mapped:  # what the container mounts below it stays there
        with open("/proc/self/mountinfo") as file:
            assert " /scratch " not in file.read()
    call(container, "remove", wanted[2])
    call(container, "remove", *wanted[:2])
    assert table(container) == before
    assert "mounts" not in container.state()


def test_only_what_was_added_is_removed(container: Container, volume: str) -> None:
    container.launch("exec sleep 1000")
    before = table(container)
    for place in ("/proc", "/dev/shm", "/nowhere"):
        said = call(container, "remove", {"destination": place}, ok=False).stderr
        assert f'mounts[0].destination: "{place}" was not added' in said
    assert table(container) == before


def test_a_place_that_cannot_be_made_is_named(container: Container, volume: str) -> None:
    container.bundle.config["root"]["readonly"] = True
    container.launch("exec sleep 1000")
    said = call(container, "add", bind(volume, "/new/place"), ok=False).stderr
    assert 'mounts[0].destination: "/new/place": read-only file system\n' in said


def test_all_of_them_or_none(container: Container, volume: str) -> None:
    container.launch("exec sleep 1000")
    before = table(container)
    said = call(container, "add", bind(volume, "/a"), bind(volume, "/proc/self"), ok=False).stderr
    assert "mounts[1].destination: lies in procfs or sysfs" in said or "mounts[1]" in said
    assert table(container) == before
    assert "mounts" not in container.state()


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"destination": "/x", "type": "proc"}, 'mounts[0].type: must be "bind" or "tmpfs"'),
        ({"destination": "/x", "type": "overlay"}, 'mounts[0].type: must be "bind" or "tmpfs"'),
        ({"destination": "x", "type": "tmpfs"}, "mounts[0].destination: must be absolute"),
        ({"destination": "/", "type": "tmpfs"}, "mounts[0].destination: must be below the root"),
        (
            {"destination": "/x/../..", "type": "tmpfs"},
            "mounts[0].destination: must be below the root",
        ),
        ({"destination": "/proc/1/root", "type": "tmpfs"}, "mounts[0].destination: "),
        (
            {"destination": "/x", "type": "tmpfs", "options": ["sise=1m"]},
            "mounts[0]: tmpfs: invalid argument\nanocir: the kernel says: tmpfs: Unknown parameter 'sise'",
        ),
        ({"destination": "/sys/kernel", "type": "tmpfs"}, "lies in procfs or sysfs"),
        (bind("relative", "/x"), "mounts[0].source: must be an absolute path"),
        (bind("/no/such/file", "/x"), "mounts[0]: /no/such/file: no such file or directory"),
        (bind("/etc", "/x", "rshared"), 'mounts[0].options: "rshared" cannot be had'),
        (bind("/etc", "/x", "foo=bar"), 'mounts[0].options: "foo=bar" is no option of a bind'),
        (bind("/etc", "/x", options=7), "mounts[0].options: must be an array"),
        ({"type": "tmpfs"}, "mounts[0].destination"),
    ],
)
def test_what_cannot_be_added(container: Container, entry: dict[str, Any], said: str) -> None:
    container.launch("exec sleep 1000")
    before = table(container)
    result = call(container, "add", entry, ok=False)
    assert said in result.stderr
    assert len(result.stderr.splitlines()) == 1 + said.count("\n")
    assert table(container) == before
    assert not container.bundle.has("/x")


def test_a_stopped_container_has_none_and_delete_needs_nothing(
    container: Container, volume: str
) -> None:
    pid = container.launch("exec sleep 1000")
    call(container, "add", bind(volume, "/mnt"))
    container.kill("KILL")
    container.wait_exit(pid)
    container.wait()
    assert call(container, "add", bind(volume, "/mnt"), ok=False).status
    assert "mounts" not in container.state()
    container.delete()
    assert os.listdir(volume) == ["file"]


def test_a_destination_that_the_container_exchanges_leads_nowhere(
    container: Container, volume: str
) -> None:
    """The program swaps a directory for a link out of its root as fast as it can."""
    outside = container.bundle.outside("victim")
    container.bundle.make_directory("/swap/real")
    os.symlink(
        "/" + "../" * 12 + outside.lstrip("/"), os.path.join(container.bundle.rootfs, "swap/link")
    )
    pid = container.launch("exec sleep 1000")
    swap = os.path.join(container.bundle.rootfs, "swap")
    os.mkdir(f"{swap}/place")

    def exchange() -> None:
        # The runtime may make the directory anew between two of these.
        with contextlib.suppress(OSError):
            os.rename(f"{swap}/place", f"{swap}/kept")
        os.symlink("link", f"{swap}/place")
        os.unlink(f"{swap}/place")
        os.rename(f"{swap}/kept", f"{swap}/place")

    with drive.over_and_over(exchange):
        for _ in range(20):
            call(container, "add", bind(volume, "/swap/place/deep"), ok=None)
    assert os.listdir(outside) == []
    with open("/proc/self/mountinfo") as file:
        assert outside not in file.read()
    assert pid == container.pid
