"""Namespaces, id maps, host name, time (config-linux.md, "Namespaces" to "Offset for Time Namespace")."""

from __future__ import annotations

import os
import subprocess
from typing import Any, Callable

import pytest

from tests import machine
from tests.drive import Container, until

Helper = Callable[..., "subprocess.Popen[bytes]"]

FILES = {
    "pid": "pid",
    "network": "net",
    "mount": "mnt",
    "ipc": "ipc",
    "uts": "uts",
    "user": "user",
    "cgroup": "cgroup",
    "time": "time",
}
PLAIN = ["pid", "network", "mount", "ipc", "uts", "cgroup"]
TIMED = pytest.param("time", marks=pytest.mark.needs("time-namespace"))


def namespace_of(pid: int | str, kind: str) -> str:
    """The identity of a process's namespace."""
    return os.readlink(f"/proc/{pid}/ns/{FILES[kind]}")


def without_host_needs(container: Container, kind: str) -> None:
    """Drop from the configuration what is an error without a namespace of its own."""
    container.bundle.drop_namespace(kind)
    if kind == "uts":
        container.config.pop("hostname", None)
    if kind == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    if kind == "network":
        container.bundle.drop_mount("/sys")


@pytest.mark.parametrize("kind", [*PLAIN, TIMED])
def test_a_namespace_without_path_is_new(container: Container, kind: str) -> None:
    container.bundle.set_namespace(kind)
    container.create()
    assert namespace_of(container.pid, kind) != namespace_of("self", kind)


@pytest.mark.parametrize("kind", [*PLAIN, "user", TIMED])
def test_a_type_that_is_not_listed_is_the_runtimes(container: Container, kind: str) -> None:
    without_host_needs(container, kind)
    if kind == "mount":
        container.config["mounts"] = []
    container.create()
    assert namespace_of(container.pid, kind) == namespace_of("self", kind)


def test_a_container_without_any_namespace_runs_and_leaves_no_mount(container: Container) -> None:
    container.linux["namespaces"] = []
    del container.config["hostname"]
    for place in ("/dev/mqueue", "/sys"):
        container.bundle.drop_mount(place)
    container.bundle.put("/marker", "here\n")
    container.launch("cat /marker > /dev/shm/copy; cat /dev/shm/copy")
    for kind in FILES:
        if os.path.exists(f"/proc/self/ns/{FILES[kind]}"):
            assert container.status in ("running", "stopped")
    container.wait("stopped")
    assert container.output() == "here\n"
    container.delete()


def test_all_namespaces_are_new_at_once(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.set_namespace("cgroup")
    container.create()
    for kind in [*PLAIN, "user"]:
        assert namespace_of(container.pid, kind) != namespace_of("self", kind), kind


# by path ------------------------------------------------------------------------------------------


def sleeper(helper: Helper, *options: str) -> int:
    """A process of the host in new namespaces."""
    child = helper(["unshare", *options, "sleep", "1000"])
    command = f"/proc/{child.pid}/cmdline"

    def ready() -> bool:
        with open(command) as file:
            return file.read().startswith("sleep")

    until("the helper is in its namespaces", ready)
    return child.pid


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        ("network", "--net"),
        ("ipc", "--ipc"),
        ("uts", "--uts"),
        ("cgroup", "--cgroup"),
        ("mount", "--mount"),
    ],
)
def test_a_namespace_by_path_is_joined(
    container: Container, helper: Helper, kind: str, option: str
) -> None:
    pid = sleeper(helper, option)
    container.bundle.set_namespace(kind, f"/proc/{pid}/ns/{FILES[kind]}")
    container.create()
    assert namespace_of(container.pid, kind) == namespace_of(pid, kind)


def test_a_pid_namespace_by_path_is_joined(
    container: Container, new_container: Callable[[], Container]
) -> None:
    first = container
    pid = first.launch("sleep 100")
    second = new_container()
    second.bundle.set_namespace("pid", f"/proc/{pid}/ns/pid")
    assert int(second.run("echo $$")) > 1
    assert first.status == "running"


@pytest.mark.needs("time-namespace")
def test_a_time_namespace_by_path_is_joined(container: Container, helper: Helper) -> None:
    child = helper(["unshare", "--time", "--fork", "--kill-child", "sleep", "1000"])
    path = f"/proc/{child.pid}/ns/time_for_children"
    until("a new time namespace", lambda: os.readlink(path) != os.readlink("/proc/self/ns/time"))
    container.bundle.set_namespace("time", path)
    container.create()
    assert namespace_of(container.pid, "time") == os.readlink(path)


def test_the_namespaces_of_another_container_are_shared(
    container: Container, new_container: Callable[[], Container]
) -> None:
    pid = container.launch("sleep 100")
    second = new_container()
    for kind in ("network", "ipc", "uts"):
        second.bundle.set_namespace(kind, f"/proc/{pid}/ns/{FILES[kind]}")
    del second.config["hostname"]
    assert second.run("hostname") == "box\n"


@pytest.mark.parametrize("kind", [*PLAIN, TIMED])
def test_a_path_of_another_type_is_refused(container: Container, kind: str) -> None:
    other = "ipc" if kind != "ipc" else "uts"
    container.bundle.set_namespace(kind, f"/proc/self/ns/{FILES[other]}")
    container.refused()


@pytest.mark.parametrize("path", ["/proc/self/ns/nothing", "/etc/passwd"])
def test_a_path_that_is_no_namespace_is_refused(container: Container, path: str) -> None:
    container.bundle.set_namespace("network", path)
    container.refused()


def test_a_relative_path_is_refused(container: Container) -> None:
    container.bundle.set_namespace("network", "ns/net")
    container.refused()


def test_a_type_twice_is_refused(container: Container) -> None:
    container.linux["namespaces"].append({"type": "network"})
    container.refused()


def test_an_unknown_type_is_refused(container: Container) -> None:
    container.linux["namespaces"].append({"type": "bogus"})
    assert "bogus" in container.refused()


# each of them works -------------------------------------------------------------------------------


def test_a_new_network_namespace_has_only_the_loopback_and_it_is_up(container: Container) -> None:
    output = container.run("ls /sys/class/net; ip addr show lo")
    assert output.startswith("lo\n") and "127.0.0.1" in output
    assert "UP" in output


def test_the_program_is_process_one_of_a_new_pid_namespace(container: Container) -> None:
    assert container.run("echo $$") == "1\n"


def test_the_hostname_is_set_and_the_host_keeps_its_own(container: Container) -> None:
    before = os.uname().nodename
    container.config["hostname"] = "hostname-specific"
    assert container.run("hostname") == "hostname-specific\n"
    assert os.uname().nodename == before


def test_an_empty_hostname_is_accepted(container: Container) -> None:
    container.config["hostname"] = ""
    assert container.run("echo fine") == "fine\n"


def test_a_hostname_without_uts_namespace_is_refused(container: Container) -> None:
    container.bundle.drop_namespace("uts")
    assert "host" in container.refused().lower()


def test_the_hostname_is_set_in_a_joined_uts_namespace(
    container: Container, helper: Helper
) -> None:
    pid = sleeper(helper, "--uts")
    container.bundle.set_namespace("uts", f"/proc/{pid}/ns/uts")
    container.config["hostname"] = "joined"
    assert container.run("hostname") == "joined\n"


def test_the_domainname_is_set(container: Container) -> None:
    container.config["domainname"] = "example.test"
    assert container.run("cat /proc/sys/kernel/domainname") == "example.test\n"


def test_a_new_cgroup_namespace_starts_at_the_containers_cgroup(container: Container) -> None:
    container.bundle.set_namespace("cgroup")
    lines = container.run("cat /proc/self/cgroup").splitlines()
    controllers = [line for line in lines if line.split(":")[1] and "name=" not in line]
    shown = controllers or lines
    assert all(line.endswith(":/") for line in shown), lines


# time ---------------------------------------------------------------------------------------------


@pytest.mark.needs("time-namespace", "compiler")
def test_time_offsets_move_the_clocks(container: Container) -> None:
    container.bundle.set_namespace("time")
    container.linux["timeOffsets"] = {
        "monotonic": {"secs": 172800, "nanosecs": 0},
        "boottime": {"secs": 864000, "nanosecs": 5},
    }
    container.process["args"] = ["/bin/probe", "clocks"]
    before = machine.clocks()
    monotonic, boottime = (int(word) for word in container.run().split())
    after = machine.clocks()
    assert before[0] <= monotonic - 172800 <= after[0]
    assert before[1] <= boottime - 864000 <= after[1]


@pytest.mark.needs("time-namespace")
def test_time_offsets_without_a_new_time_namespace_are_refused(container: Container) -> None:
    container.linux["timeOffsets"] = {"monotonic": {"secs": 1}}
    container.refused()


@pytest.mark.needs("time-namespace")
def test_an_unknown_clock_is_refused(container: Container) -> None:
    container.bundle.set_namespace("time")
    container.linux["timeOffsets"] = {"realtime": {"secs": 1}}
    container.refused()


# user namespaces ----------------------------------------------------------------------------------

user_namespace = pytest.mark.needs("user-namespace")


def mapped(container: Container) -> None:
    """Give the container a user namespace in which it can be root."""
    container.bundle.use_user_namespace()


@user_namespace
def test_a_user_namespace_has_the_configured_maps(container: Container) -> None:
    container.bundle.set_namespace("user")
    container.linux["uidMappings"] = [
        {"containerID": 0, "hostID": 1000, "size": 2000},
        {"containerID": 5000, "hostID": 90000, "size": 1},
    ]
    container.linux["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 3000}]
    lines = container.run("cat /proc/self/uid_map /proc/self/gid_map").splitlines()
    assert [line.split() for line in lines] == [
        ["0", "1000", "2000"],
        ["5000", "90000", "1"],
        ["0", "1000", "3000"],
    ]


@user_namespace
def test_root_in_a_user_namespace_is_nobody_special_outside(container: Container) -> None:
    mapped(container)
    pid = container.launch("sleep 100")
    assert machine.process_status(pid)["Uid"].split() == ["100000"] * 4


@user_namespace
def test_the_program_of_a_user_namespace_runs_with_its_ids(container: Container) -> None:
    mapped(container)
    container.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9]}
    words = container.run("id -u; id -g; grep ^Groups /proc/self/status").split()
    assert words == ["7", "8", "Groups:", "9"]


@user_namespace
def test_devices_in_a_user_namespace_work(container: Container) -> None:
    mapped(container)
    script = "echo x > /dev/null && head -c 3 /dev/zero | wc -c && stat -c %t:%T /dev/null"
    assert container.run(script) == "3\n1:3\n"


@user_namespace
def test_every_default_mount_works_in_a_user_namespace(container: Container) -> None:
    mapped(container)
    script = (
        'for p in /proc /sys /dev/pts /dev/shm /dev/mqueue; do grep -c " $p " /proc/mounts; done'
    )
    assert container.run(script) == "1\n" * 5


@user_namespace
def test_files_of_unmapped_owners_belong_to_nobody(container: Container) -> None:
    mapped(container)
    container.bundle.put("/file")
    assert container.run("stat -c '%u %g' /file") == "65534 65534\n"


@user_namespace
def test_the_runtime_does_not_change_owners_of_the_root_file_system(container: Container) -> None:
    mapped(container)
    path = container.bundle.put("/file")
    container.run("true")
    assert os.stat(path).st_uid == 0
    assert os.stat(container.bundle.rootfs).st_uid == 0


@user_namespace
def test_a_user_namespace_works_with_every_other_kind(container: Container) -> None:
    mapped(container)
    container.bundle.set_namespace("cgroup")
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    container.config["hostname"] = "mapped"
    assert container.run("hostname; cat /proc/sys/net/ipv4/ip_forward") == "mapped\n1\n"


@user_namespace
def test_a_process_can_be_executed_in_a_user_namespace(container: Container) -> None:
    mapped(container)
    container.launch("sleep 100")
    assert container.exec("cat", "/proc/self/uid_map").stdout.split() == ["0", "100000", "65536"]


@user_namespace
def test_a_user_namespace_by_path_is_joined(
    container: Container, new_container: Callable[[], Container]
) -> None:
    mapped(container)
    pid = container.launch("sleep 100")
    second = new_container()
    second.bundle.set_namespace("user", f"/proc/{pid}/ns/user")
    second.create()
    assert namespace_of(second.pid, "user") == namespace_of(pid, "user")


@user_namespace
def test_the_init_in_a_user_namespace_is_reaped_and_deleted(container: Container) -> None:
    mapped(container)
    pid = container.launch("exit 3")
    assert container.wait_exit(pid) == 3
    container.delete()


@user_namespace
@pytest.mark.parametrize("key", ["uidMappings", "gidMappings"])
def test_a_user_namespace_without_both_maps_is_refused(container: Container, key: str) -> None:
    mapped(container)
    del container.linux[key]
    container.cannot_run("true")


@user_namespace
def test_maps_without_a_user_namespace_are_an_error_or_ignored(container: Container) -> None:
    container.linux["uidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    container.linux["gidMappings"] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    result = container.try_run("cat /proc/self/uid_map")
    assert result.status != 0 or result.stdout.split()[1] in ("0", "1000")


@user_namespace
def test_a_user_that_is_not_mapped_is_refused(container: Container) -> None:
    container.bundle.use_user_namespace(size=10)
    container.process["user"] = {"uid": 10, "gid": 0}
    container.cannot_run("true")


# network devices ----------------------------------------------------------------------------------


@pytest.fixture
def link(container: Container) -> Any:
    """A network link of the host: one end of a pair, which kernels without dummy links have too."""
    name = f"ano{os.getpid() % 100000}"
    pair = ["type", "veth", "peer", "name", name + "p"]
    subprocess.run(["ip", "link", "add", name, *pair], check=True)
    subprocess.run(["ip", "link", "set", name + "p", "up"], check=True)
    subprocess.run(["ip", "addr", "add", "10.98.7.6/24", "dev", name], check=True)
    yield name
    subprocess.run(["ip", "link", "del", name + "p"], check=False, stderr=subprocess.DEVNULL)


@pytest.mark.needs("veth")
def test_a_network_device_moves_with_its_address_and_is_up(container: Container, link: str) -> None:
    container.linux["netDevices"] = {link: {"name": "inside0"}}
    output = container.run("ip addr show inside0")
    assert "10.98.7.6/24" in output and "UP" in output.split("inside0")[1].split(">")[0]


@pytest.mark.needs("veth")
def test_a_network_device_keeps_its_name_by_default(container: Container, link: str) -> None:
    container.linux["netDevices"] = {link: {}}
    assert link in container.run("ls /sys/class/net").split()


@pytest.mark.needs("veth")
def test_a_network_device_that_does_not_exist_is_refused(container: Container) -> None:
    container.linux["netDevices"] = {"nosuchlink0": {}}
    container.refused()


def test_network_devices_without_a_network_namespace_are_refused(container: Container) -> None:
    container.bundle.drop_namespace("network")
    container.linux["netDevices"] = {"lo": {"name": "other0"}}
    container.refused()
