"""Limits that are felt and not only read back, with both drivers, on whatever cgroups the machine has."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator

import pytest

from anocir.cgroup import devices
from anocir.linux import bpf
from tests.vm.inside.container import RUNTIME, Box, awaited

SYSTEMD = os.path.exists("/run/systemd/system")
V2 = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
MIB = 1 << 20
LIMITS = not V2 or "pids" in open("/sys/fs/cgroup/cgroup.controllers").read().split()
KMSG, HWRNG = (1, 11), (10, 183)  # no privilege is needed to write to the one and to open the other


@pytest.fixture(params=["cgroupfs", "systemd"] if SYSTEMD else ["cgroupfs"])
def box(request):
    if request.param == "systemd":
        made = Box("felt", "--systemd-cgroup")
        made.config["linux"]["cgroupsPath"] = "system.slice:anocir:felt"
    else:
        made = Box("felt")
        made.config["linux"]["cgroupsPath"] = "/anocir-felt"
    yield made
    made.remove()


def shell(box: Box, script: str) -> None:
    """Let the container run a script of busybox' shell."""
    box.config["process"]["args"] = ["/bin/sh", "-c", script]


def control(pid: int, controller: str, name: str) -> str:
    """One control file of the process' cgroup."""
    with open(f"/proc/{pid}/cgroup") as file:
        rows = [line.rstrip("\n").split(":", 2) for line in file]
    for _, controllers, path in rows:
        if (V2 and not controllers) or controller in controllers.split(","):
            top = "/sys/fs/cgroup" + ("" if V2 else f"/{_mounted(controller)}")
            with open(f"{top}{path}/{name}") as file:
                return file.read()
    raise AssertionError(f"{controller} is nowhere in {rows}")


def _mounted(controller: str) -> str:
    names = os.listdir("/sys/fs/cgroup")  # of two that have it one is a link to another hierarchy
    return next((n for n in names if n == controller), "") or next(
        n for n in names if controller in n.split(",")
    )


def counts(text: str) -> dict[str, int]:
    """A file of names and numbers."""
    return {name: int(number) for name, number in (line.split() for line in text.splitlines())}


@contextlib.contextmanager
def events(box: Box) -> Iterator[str]:
    """`events` of the running container; the file that it writes to."""
    path = os.path.join(box.dir, "events")
    with open(path, "w") as out:
        watching = subprocess.Popen([RUNTIME, "events", box.id], stdout=out, stderr=out)
    try:
        yield path
    finally:
        watching.kill()
        watching.wait()


def test_a_process_over_the_memory_limit_is_killed_and_that_is_an_event(box):
    box.config["linux"]["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    box.config["root"]["readonly"] = False
    shell(
        box,
        "until [ -e /go ]; do sleep 1; done; (exec busybox tail /dev/zero); echo $? >/told; sleep 1000",
    )
    box.create()
    told = os.path.join(box.dir, "rootfs/told")
    with events(box) as path:
        # its first answer shows that it watches
        awaited(lambda: os.path.getsize(path) > 0, "the first statistics")
        open(os.path.join(box.dir, "rootfs/go"), "w").close()
        awaited(lambda: os.path.exists(told) and os.path.getsize(told) > 0, "an end")
        with open(told) as file:
            assert file.read() == "137\n"
        awaited(lambda: '"oom"' in open(path).read(), "an event")
    assert box.state()["status"] == "running"


def test_an_init_that_needs_more_than_its_limit_is_killed_or_refused_by_name(box):
    box.config["linux"]["resources"]["memory"] = {"limit": 4096 * 4, "swap": 4096 * 4}
    box.write()
    failed = box.call("run", "--bundle", box.dir, box.id, root=box.options, check=False)
    # The kernel counts in lots: on v1 it is at times the program already that it kills.
    assert failed.returncode == 137 or (failed.returncode and "memory limit" in failed.stderr)


def test_a_fork_bomb_stops_at_the_limit(box):
    box.config["linux"]["resources"]["pids"] = {"limit": 8}
    shell(box, "(while :; do sleep 1000 & done) 2>/dev/null; sleep 1000; sleep 1000")
    pid = box.create()
    awaited(lambda: counts(control(pid, "pids", "pids.events"))["max"] > 0, "a refused fork")
    assert 2 <= int(control(pid, "pids", "pids.current")) <= 8
    assert 2 <= len(box.call("ps", box.id).stdout.splitlines()[1:]) <= 8


def test_a_quota_of_processor_time_throttles(box):
    box.config["linux"]["resources"]["cpu"] = {"quota": 20000, "period": 100000}
    shell(box, "while :; do :; done")
    pid = box.create()

    def used() -> int:
        if V2:
            return counts(control(pid, "cpu", "cpu.stat"))["usage_usec"]
        return int(control(pid, "cpuacct", "cpuacct.usage")) // 1000

    def periods() -> int:
        return counts(control(pid, "cpu", "cpu.stat"))["nr_periods"]

    before, first = used(), periods()
    awaited(lambda: periods() - first >= 30, "thirty periods")
    share = (used() - before) / ((periods() - first) * 100000)
    awaited(lambda: counts(control(pid, "cpu", "cpu.stat"))["nr_throttled"] >= 10, "ten throttled")
    # a fifth is allowed; an emulated processor counts badly, but without a limit it would be all
    assert 0.02 < share < 0.6


@pytest.mark.parametrize(("allowed", "access"), [(KMSG, "w"), (HWRNG, "r")])
def test_a_denied_device_is_refused_and_an_allowed_one_works(box, allowed, access):
    box.config["linux"]["resources"]["devices"] = [
        {"allow": False, "access": "rwm"},
        {
            "allow": True,
            "type": "c",
            "major": allowed[0],
            "minor": allowed[1],
            "access": access,
        },
    ]
    box.config["linux"]["devices"] = [
        {"path": path, "type": "c", "major": number[0], "minor": number[1], "fileMode": 0o666}
        for path, number in (("/dev/kmsg", KMSG), ("/dev/hwrng", HWRNG))
    ]
    shell(
        box,
        "(echo felt >/dev/kmsg) 2>&1 && echo kmsg works; (: </dev/hwrng) 2>&1 && echo hwrng works; true",
    )
    lines = box.run().splitlines()
    assert len(lines) == 2
    works, refused = lines if allowed == KMSG else reversed(lines)
    assert works.endswith(" works")
    assert "Operation not permitted" in refused


def _exec(box: Box, script: str) -> str:
    return box.call("exec", box.id, "/bin/sh", "-c", script).stdout


def test_a_device_comes_and_goes_while_it_runs(box):
    """Also over a reload of systemd, and for who uses another one all the time."""
    node = "/dev/anocir-felt"
    os.mknod(node, 0o20666, os.makedev(*HWRNG))
    opened = "(: </dev/hwrng) 2>&1 && echo works; true"
    shell(box, "while (: <>/dev/null) 2>/err; do :; done; echo bad >/bad; sleep 1000")
    box.config["linux"]["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    number = {"type": "c", "major": HWRNG[0], "minor": HWRNG[1]}
    box.config["linux"]["devices"] = [{"path": "/dev/hwrng", **number, "fileMode": 0o666}]
    try:
        box.create()
        assert "not permitted" in _exec(box, opened)
        for _ in range(2):
            box.call("update", "--device-add", f"{node}:/dev/new:r", box.id)
            assert _exec(box, opened) == "works\n"
            if SYSTEMD:
                subprocess.run(["systemctl", "daemon-reload"], check=True)
            if LIMITS:
                box.call("update", "--pids-limit", "100", box.id)
            assert _exec(box, opened.replace("hwrng", "new")) == "works\n"
            assert "not permitted" in _exec(box, "(: >>/dev/new) 2>&1; true")
            box.call("update", "--device-remove", "/dev/new", box.id)
            if SYSTEMD:
                subprocess.run(["systemctl", "daemon-reload"], check=True)
            assert "not permitted" in _exec(box, opened)
        assert _exec(box, "cat /bad 2>/dev/null; true") == ""
    finally:
        os.unlink(node)


@pytest.mark.needs("cgroup2-only")
def test_what_programs_of_others_deny_is_an_error():
    """One of a cgroup above, and one that somebody has put in the place of the runtime's."""
    node, above = "/dev/anocir-felt", "/sys/fs/cgroup/anocir-above"
    made = Box("denied")
    made.config["linux"]["cgroupsPath"] = "/anocir-above/felt"
    made.config["linux"]["resources"]["devices"] = [{"allow": False, "access": "rwm"}]
    options = ("--device-add", f"{node}:/dev/new:rw", made.id)
    os.mknod(node, 0o20666, os.makedev(*HWRNG))
    os.mkdir(above)
    try:
        bpf.replace_device_program(above, devices.program([]), True)
        made.create()
        said = made.call("update", *options, check=False).stderr
        assert "c 10:183 rw stays denied" in said
        assert "a program of a cgroup above" in said
        assert _exec(made, "ls /dev/new 2>&1; true").startswith("ls: ")
        assert "devices" not in made.state()
        bpf.replace_device_program(above, devices.program(devices.parse([{"allow": True}])), False)
        made.call("update", *options)
        # an agent that replaces the program has the say from then on
        own = bpf.NAME
        bpf.NAME = b"agent"
        directory = os.open(f"{above}/felt", os.O_RDONLY)
        (present,) = bpf.prog_query(directory)
        assert present
        bpf.replace_device_program(f"{above}/felt", devices.program([]), True)
        bpf.NAME = own
        for fd in bpf._own(directory):
            bpf.prog_detach(directory, fd)
            os.close(fd)
        os.close(directory)
        said = made.call("update", "--device-remove", "/dev/new", made.id, check=False).stderr
        assert "another program decides about the devices of" in said
        assert said.count("agent") == 1
        found = made.call("diff", made.id).stdout
        assert "the device program: config.json anocir, now nothing" in found
        assert "a device program: config.json nothing, now agent" in found
    finally:
        made.remove()
        os.rmdir(above)
        os.unlink(node)
