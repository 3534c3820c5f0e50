"""What only newer Dockers have, and streams beyond any buffer, under anocir and under runc."""

from __future__ import annotations

import re
from typing import Any, List, Tuple

import pytest

from tests.engines.docker import Side, Sides
from tests.engines.image import IMAGE

GIB = 1 << 30


def since(sides: Sides, major: int) -> None:
    """Leave a test out where the daemon is older."""
    if sides.docker.version() < (major,):
        pytest.skip(f"[docker-{major}] this Docker is older than {major}")


COMPOSE = """
services:
  plain:
    image: {image}
    runtime: {runtime}
    command: ["sh", "-c", "{look}"]
    user: "1000:44"
    tmpfs:
      - /t1
      - /t2:size=1m,mode=1770,uid=1000
    read_only: true
    network_mode: none
    cap_drop: [ALL]
    security_opt: ["no-new-privileges:true"]
    init: true
    ulimits:
      nofile: {{soft: 100, hard: 200}}
    volumes:
      - type: tmpfs
        target: /t3
        tmpfs: {{size: 2097152, mode: 0o700}}
      - type: bind
        source: /run/tmp
        target: /bound
        read_only: true
    shm_size: 3m
    sysctls:
      net.ipv4.ip_unprivileged_port_start: 0
"""
LOOK = (
    "id; grep -E ' /(t.|bound|dev/shm) ' /proc/mounts | cut -d' ' -f2,3,4 | sort;"
    " touch /t1/a /t2/a; touch /t3/a; touch /bound/a; ulimit -n; grep -E 'CapEff|NoNew' /proc/self/status"
)


def test_compose_with_tmpfs_and_user(sides: Sides) -> None:
    """docker compose up of a service with tmpfs mounts of each kind, a user and a read-only root."""

    def scenario(side: Side) -> List[Any]:
        docker = side.docker
        text = COMPOSE.format(image=IMAGE, runtime=side.runtime, look=LOOK.replace("$", "$$"))
        path = f"/run/tmp/compose-{side.runtime}.yaml"
        docker.box.path(path).write_text(text)
        words = ["compose", "--ansi", "never", "-p", f"proj-{side.runtime}", "-f", path]
        result = docker(*words, "up", "--no-color", "--no-log-prefix")
        down = docker(*words, "down", "-v", "-t", "0")
        # It clears lines, one or several times, although it is told to write no such thing.
        text = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", result.out)
        lines = [line for line in text.splitlines() if "plain" not in line]
        return [result.status, lines, down.status]

    status, lines, down = sides.same(scenario)
    assert (status, down) == (0, 0)
    assert any(line.startswith("uid=1000(anna) gid=44(video)") for line in lines), lines
    assert any(re.match(r"/t2 tmpfs \S*size=1024k,mode=1770,uid=1000", line) for line in lines), (
        lines
    )
    assert "100" in lines and "CapEff:\t0000000000000000" in lines, lines


BINDS: Tuple[Tuple[str, str, int, str], ...] = (
    ("enabled", "", 1, "mnt ro\nsub ro\n"),
    ("disabled", "bind-recursive=disabled", 1, "mnt ro\n"),
    ("writable", "bind-recursive=writable", 1, "mnt ro\nsub rw\n"),
    ("readonly", "bind-recursive=readonly,bind-propagation=rprivate", 1, "mnt ro\nsub ro\n"),
)


@pytest.mark.parametrize(
    ("recursion", "status", "text"), [pytest.param(*one[1:], id=one[0]) for one in BINDS]
)
def test_recursion_of_a_bind(sides: Sides, recursion: str, status: int, text: str) -> None:
    """--mount bind-recursive says what becomes of the mounts below a read-only one."""
    since(sides, 25)
    box = sides.docker.box
    box.run(["mkdir", "-p", "/run/rec"]).ok()
    box.run(["mount", "-t", "tmpfs", "top", "/run/rec"]).ok()
    try:
        box.run(["mkdir", "/run/rec/sub"]).ok()
        box.run(["mount", "-t", "tmpfs", "below", "/run/rec/sub"]).ok()
        mount = ",".join(
            filter(None, ["type=bind,source=/run/rec,target=/mnt,readonly", recursion])
        )
        look = (
            'awk \'$5 ~ "^/mnt" {split($6, o, ","); n = split($5, p, "/"); print p[n], o[1]}\''
            " /proc/self/mountinfo; touch /mnt/x"
        )
        result = sides.compare(["--mount", mount], ["sh", "-c", look])
        assert (result.status, result.out) == (status, text), result
        assert "Read-only file system" in result.err
    finally:
        box.run(["umount", "-R", "/run/rec"]).ok()


def test_a_part_of_a_volume(sides: Sides) -> None:
    """--mount volume-subpath mounts a directory or a file of a volume, and nothing outside of it."""
    since(sides, 26)

    def scenario(side: Side) -> List[Any]:
        volume = f"parts-{side.runtime}"
        make = "mkdir -p /v/a/b; echo in > /v/a/b/file; ln -s /etc /v/out; ln -s a/b /v/in"
        side.run(["-v", f"{volume}:/v"], ["sh", "-c", make]).ok()
        seen: List[Any] = []
        for part, look in (
            ("a/b", "cat /p/file; echo more >> /p/file; ls /p"),
            ("a/b/file", "cat /p"),
            ("in", "ls /p"),
            ("out", "ls /p"),
            ("../..", "ls /p"),
            ("missing", "ls /p"),
        ):
            mount = f"type=volume,source={volume},target=/p,volume-subpath={part}"
            result = side.run(["--mount", mount], ["sh", "-c", look])
            seen.append([result.status, result.out])
        side.docker("volume", "rm", volume).ok()
        return seen

    steps = sides.same(scenario)
    assert steps[:3] == [[0, "in\nfile\n"], [0, "in\nmore\n"], [0, "file\n"]]
    assert all(status != 0 for status, _ in steps[3:]), steps


def test_writable_cgroups(sides: Sides) -> None:
    """--security-opt writable-cgroups lets a container without privileges divide its own cgroup."""
    since(sides, 28)
    options = ["--security-opt", "writable-cgroups=true", "--cgroupns", "private"]
    look = "d=/sys/fs/cgroup/pids; test -d $d || d=/sys/fs/cgroup; mkdir $d/mine && rmdir $d/mine"
    sides.compare(options, ["sh", "-c", look]).ok()
    plain = sides.compare(options[2:], ["sh", "-c", look])
    assert plain.status == 1 and "Read-only file system" in plain.err, plain


def test_a_gibibyte_through_exec(sides: Sides) -> None:
    """docker exec -i takes 1 GiB in and gives 1 GiB out, whole and in order.

    Of what goes through, runc's would be the same processes, so only ours is driven.
    """
    name = sides.ours.background("big", [], ["sleep", "1000"])
    # Numbered blocks: a lost, doubled or displaced one is another byte.
    blocks = f"seq -f %01048575.0f 1 {GIB >> 20}"
    argv = " ".join(sides.docker.argv("exec", "-i", name, "cat"))
    script = f"{blocks} | {argv} | cmp - <({blocks})"
    sides.docker.box.run(["bash", "-c", script], timeout=600).ok()
