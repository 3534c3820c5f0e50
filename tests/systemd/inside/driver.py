"""The systemd cgroup driver as engines use it: a unit for each container, little asked, nothing left."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile

import pytest

from tests import machine
from tests.vm.inside.container import RUNTIME, Box, awaited, becomes, shown

UNIT = "anocir-scoped.scope"
SLICE = "system.slice"
OWN_SOCKET = "/run/systemd/private"
BUS = "/run/dbus/system_bus_socket"
# all that any runtime asks of systemd
MEMBERS = "StartTransientUnit|SetUnitProperties|StopUnit|ResetFailedUnit|GetUnit|Get|Subscribe|AddMatch|Hello"


def systemctl(*words: str) -> str:
    """What systemctl prints."""
    return subprocess.run(["systemctl", *words], capture_output=True, text=True, check=True).stdout


def directories(name: str = UNIT, where: str = f"/{SLICE}") -> list[str]:
    """The cgroups of a unit that are there."""
    found = [f"{hierarchy.mountpoint}{where}/{name}" for hierarchy in machine.hierarchies()]
    return [path for path in found if os.path.exists(path)]


def unit_is_unknown(name: str = UNIT) -> None:
    awaited(lambda: name not in systemctl("list-units", "--all", "--plain"), f"{name} gone")


def unit_is_gone(name: str = UNIT) -> None:
    unit_is_unknown(name)
    assert directories(name) == []


@pytest.fixture
def box():
    made = Box("scoped", "--systemd-cgroup")
    made.config["linux"]["cgroupsPath"] = f"{SLICE}:anocir:scoped"
    made.config["linux"]["resources"] = {}
    yield made
    made.remove()
    unit_is_gone()


def asked(box: Box, *words: str, root: tuple[str, ...] = ()) -> tuple[list[str], list[str]]:
    """The sockets that a command connects to, and the methods that it calls."""
    # to files: a container may keep them open
    with tempfile.NamedTemporaryFile("r") as trace, tempfile.TemporaryFile("w+") as said:
        calls = "trace=connect,sendmsg,sendto,writev"
        command = ["strace", "-s", "8192", "-e", calls, "-o", trace.name, RUNTIME, *root]
        null = subprocess.DEVNULL
        done = subprocess.run([*command, *words], stdin=null, stdout=said, stderr=said, check=False)
        said.seek(0)
        assert done.returncode == 0, said.read()
        text = trace.read()
    sockets = re.findall(r'connect\(\d+, \{sa_family=AF_UNIX, sun_path="([^"]+)"', text)
    return (
        [path for path in sockets if "systemd" in path or "bus" in path],
        re.findall(rf"\\3\\1s\\0.{{4,16}}?({MEMBERS})\\0", text),
    )


def test_a_container_is_a_scope_until_it_is_deleted(box):
    pid = box.create()
    expected = {
        "ActiveState": "active",
        "Slice": SLICE,
        "Delegate": "yes",
        "CollectMode": "inactive-or-failed",
    }
    assert shown(UNIT, *expected) == expected
    assert UNIT in open(f"/proc/{pid}/cgroup").read()
    assert f"/{SLICE}/{UNIT}" in box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    box.call("pause", box.id)
    assert box.state()["status"] == "paused"
    box.call("resume", box.id)
    systemctl("daemon-reload")
    assert box.state()["status"] == "running"
    box.call("kill", box.id, "KILL")
    awaited(lambda: box.state()["status"] == "stopped", "its end")
    box.call("delete", box.id)
    unit_is_gone()


@pytest.mark.skipif(not shutil.which("runc"), reason="[runc] this machine has not runc")
def test_the_unit_is_what_runc_makes_of_the_same_configuration(box):
    names = (
        "ActiveState",
        "Slice",
        "Delegate",
        "DefaultDependencies",
        "DevicePolicy",
    )
    names += ("MemoryAccounting", "CPUAccounting", "TasksAccounting", "TimeoutStopUSec")
    box.config["annotations"] = {"org.systemd.property.TimeoutStopUSec": "uint64 7000000"}
    box.config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    box.create()
    ours = shown(UNIT, *names)
    box.call("delete", "--force", box.id)
    unit_is_gone()
    runc = ["runc", "--systemd-cgroup", "--root", f"{box.dir}/runc"]
    created = [*runc, "create", "--bundle", box.dir, box.id]
    with open(os.devnull, "r+") as null:
        subprocess.run(created, check=True, stdin=null, stdout=null, stderr=null)
    try:
        assert shown(UNIT, *names) == ours
    finally:
        subprocess.run([*runc, "delete", "--force", box.id], check=True, capture_output=True)


def test_systemd_is_asked_once_to_start_and_not_at_all_for_what_the_files_say(box):
    box.config["linux"]["resources"] = {"devices": [{"allow": False, "access": "rwm"}]}
    box.write()
    words = ("create", "--bundle", box.dir, box.id)
    assert asked(box, *words, root=box.options) == ([OWN_SOCKET], ["StartTransientUnit"])
    for words in (
        ("start", box.id),
        ("state", box.id),
        ("exec", box.id, "/bin/true"),
        ("pause", box.id),
        ("resume", box.id),
        ("ps", box.id),
        ("kill", box.id, "KILL"),
    ):
        assert asked(box, *words) == ([], []), words


def members(box: Box) -> list[list[int]]:
    """The processes of its unit, in each hierarchy that has it."""
    found = []
    for path in directories():
        with open(f"{path}/cgroup.procs", encoding="utf-8") as stream:
            found.append([int(word) for word in stream.read().split()])
    return found


def test_the_unit_is_made_while_init_boots_and_init_gets_in_by_itself(box):
    """It is asked for before the network is made; nobody is moved, which takes a grace period."""
    box.write()
    with tempfile.NamedTemporaryFile("r") as trace:
        calls = "trace=sendmsg,unshare,openat"
        command = ["strace", "-s", "8192", "-e", calls, "-o", trace.name, RUNTIME, *box.options]
        words = ["create", "--bundle", box.dir, box.id]
        with open(os.devnull, "r+b") as null:
            subprocess.run([*command, *words], stdin=null, stdout=null, stderr=null, check=True)
        lines = trace.read().splitlines()
    asks = [number for number, line in enumerate(lines) if "StartTransientUnit" in line]
    makes = [number for number, line in enumerate(lines) if "unshare(CLONE_NEWNET)" in line]
    assert len(asks) == len(makes) == 1
    assert asks < makes
    assert [line for line in lines if "cgroup.procs" in line and "O_WRONLY" in line] == []
    found = members(box)
    assert found
    assert [pids for pids in found if pids != [int(box.state()["pid"])]] == []


def test_a_create_that_is_killed_while_systemd_makes_the_unit_leaves_nobody_in_it(box):
    """The process that would have cloned init ends with the runtime, and the unit with it."""

    def alive() -> list[str]:
        found = []
        for name in os.listdir("/proc"):
            try:
                with open(f"/proc/{name}/cmdline", "rb") as stream:
                    words = stream.read().split(b"\0")
            except OSError:
                continue
            if b"create" in words and box.dir.encode() in words:
                found.append(name)
        return found

    box.write()
    kill = ("-e", "trace=unshare", "-e", "inject=unshare:signal=SIGKILL")
    command = ["strace", "-qq", *kill, "-o", os.devnull, RUNTIME, *box.options]
    with open(os.devnull, "r+b") as null:
        done = subprocess.run(
            [*command, "create", "--bundle", box.dir, box.id],
            stdin=null, stdout=null, stderr=null, check=False,
        )  # fmt: skip
    assert done.returncode == -9
    awaited(lambda: alive() == [], "all processes of the create gone")
    box.call("delete", "--force", box.id)
    unit_is_gone()


def test_delete_asks_nothing_when_the_unit_is_gone(box):
    box.create()
    box.call("kill", box.id, "KILL")
    unit_is_unknown()
    assert asked(box, "delete", box.id) == ([], [])


def test_delete_stops_a_unit_that_is_there_and_only_if_it_is_its_own(box):
    box.create()
    sockets, methods = asked(box, "delete", "--force", box.id)
    assert sockets in ([OWN_SOCKET], [])  # systemd may have been faster
    assert methods in (["Get", "StopUnit"], ["Get", "Get"], [])


@pytest.mark.parametrize(
    "form", ["{nowhere};{bus}", "{nowhere};tcp:host=::9,port=1;{bus};{nowhere}", "{bus}"]
)
def test_the_buses_of_the_environment_are_tried_in_turn(box, monkeypatch, form):
    address = form.format(nowhere="unix:path=/nowhere/bus", bus=f"unix:path={BUS},guid=")
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", address.replace(",guid=", ""))
    box.create()
    assert shown(UNIT, "ActiveState") == {"ActiveState": "active"}
    box.call("update", "--cpu-share", "512", box.id, check=machine.v1_mountpoint("cpu") != "")
    box.call("delete", "--force", box.id)


def test_without_a_bus_nothing_is_made_and_nothing_has_to_be_removed_by_one(box, monkeypatch):
    """The text must not say `no such file or directory`: Podman takes that for a missing program (127)."""
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/one;unix:path=/nowhere/two")
    box.write()
    failed = box.call("create", "--bundle", box.dir, box.id, root=box.options, check=False)
    assert failed.returncode == 1
    first = failed.stderr.splitlines()[0]
    assert first.startswith("anocir: connect to the system bus: ")
    assert "/nowhere/one" in first and "/nowhere/two" in first
    assert "no such file or directory" not in failed.stderr.lower()
    listed = json.loads(box.call("list", "--format", "json").stdout) or []
    assert [entry["id"] for entry in listed] == []
    assert directories() == []
    box.call("delete", "--force", box.id)


def test_a_create_that_was_killed_needs_no_bus_to_be_removed(box, monkeypatch):
    """Its record says systemd, and there never was a unit."""
    box.create()
    box.call("kill", box.id, "KILL")
    unit_is_unknown()
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", "unix:path=/nowhere/one")
    box.call("delete", "--force", box.id)
    assert box.call("state", box.id, check=False).returncode == 1


def test_without_libsystemd_one_sentence_says_what_to_install(box):
    box.write()
    library = (
        subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True)
        .stdout.partition("libsystemd.so.0 ")[2]
        .partition("=> ")[2]
        .split("\n")[0]
    )
    script = f'mount --bind /dev/null "{os.path.realpath(library)}" && exec "$@"'
    command = ["unshare", "-m", "sh", "-c", script, "sh", RUNTIME, "--systemd-cgroup"]
    done = subprocess.run(
        [*command, "create", "--bundle", box.dir, box.id],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "anocir: the systemd cgroup manager needs libsystemd.so.0, which cannot be loaded",
        "anocir: install the package libsystemd0 (Debian) or systemd-libs (Fedora), or use "
        "--cgroup-manager=cgroupfs",
    ]
    assert box.call("state", box.id, check=False).returncode == 1


def test_a_failed_unit_of_the_same_name_is_in_nobodys_way(box):
    command = ["systemd-run", "--quiet", f"--unit={UNIT}", "--scope", "--property=RuntimeMaxSec=1"]
    subprocess.run([*command, "sleep", "1000"], capture_output=True, check=False)
    becomes(UNIT, "failed")
    box.create()
    assert shown(UNIT, "ActiveState") == {"ActiveState": "active"}


def test_a_unit_of_somebody_else_is_neither_taken_nor_stopped(box):
    other = ["systemd-run", "--quiet", f"--unit={UNIT}", "--scope", "sleep", "1000"]
    with subprocess.Popen(other) as stranger:
        try:
            becomes(UNIT, "active")
            box.write()
            words = ("create", "--bundle", box.dir, box.id)
            failed = box.call(*words, root=box.options, check=False)
            assert failed.returncode == 1
            assert "container's cgroup is not empty" in failed.stderr
            box.call("delete", "--force", box.id)
            assert shown(UNIT, "ActiveState") == {"ActiveState": "active"}
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_container_that_failed_to_start_leaves_no_unit(box):
    box.config["mounts"].append(
        {"destination": "/x", "type": "bind", "source": "/nonexistent-here", "options": ["bind"]}
    )
    box.write()
    failed = box.call("create", "--bundle", box.dir, box.id, root=box.options, check=False)
    assert failed.returncode == 1
    unit_is_gone()


def test_systemd_may_execute_itself_anew_meanwhile(box):
    """systemctl daemon-reexec, as each update of the package does it, ends all connections."""
    for _ in range(4):
        with subprocess.Popen(["systemctl", "daemon-reexec"]) as reexec:
            box.create()
            box.call("delete", "--force", box.id)
            assert reexec.wait() == 0
        unit_is_gone()


def test_an_annotation_names_another_slice(box):
    box.config["annotations"] = {"org.systemd.property.Slice": "'anocirtest-other.slice'"}
    pid = box.create()
    assert shown(UNIT, "Slice") == {"Slice": "anocirtest-other.slice"}
    assert f"/anocirtest.slice/anocirtest-other.slice/{UNIT}" in open(f"/proc/{pid}/cgroup").read()
    box.call("delete", "--force", box.id)
    assert directories(UNIT, "/anocirtest.slice/anocirtest-other.slice") == []


@pytest.mark.parametrize("value", ["uint64 18446744073709551616", "(1, 2)", "'\\ud800'"])
def test_a_property_that_is_none_is_one_line_that_names_the_annotation(box, value):
    box.config["annotations"] = {"org.systemd.property.TimeoutStopUSec": value}
    box.write()
    failed = box.call("create", "--bundle", box.dir, box.id, root=box.options, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith('anocir: annotations["org.systemd.property.TimeoutStopUSec"]: ')
    assert len(failed.stderr.splitlines()) == 1


def test_a_sub_cgroup_by_crun_s_annotation(box):
    box.config["annotations"] = {"run.oci.systemd.subgroup": "inner"}
    pid = box.create()
    assert f"/{SLICE}/{UNIT}/inner\n" in open(f"/proc/{pid}/cgroup").read()
    assert "/inner\n" in box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    box.call("delete", "--force", box.id)
    unit_is_gone()


@pytest.mark.needs("cgroup2-only")
def test_a_leaf_below_it_is_the_containers_to_manage(box):
    box.config["annotations"] = {
        "run.oci.systemd.subgroup": "inner",
        "run.oci.delegate-cgroup": "leaf",
    }
    pid = box.create()
    top = f"/sys/fs/cgroup/{SLICE}/{UNIT}"
    assert f"/{SLICE}/{UNIT}/inner/leaf\n" in open(f"/proc/{pid}/cgroup").read()
    for controllers in (f"{top}/inner/cgroup.controllers", f"{top}/inner/leaf/cgroup.controllers"):
        assert open(controllers).read() == open(f"{top}/cgroup.controllers").read()
    assert "/inner/leaf\n" in box.call("exec", box.id, "/bin/cat", "/proc/self/cgroup").stdout
    box.call("delete", "--force", box.id)
    unit_is_gone()
