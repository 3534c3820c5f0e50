"""Kernel parameters (config-linux.md, "Sysctl")."""

from __future__ import annotations

import pytest

from tests.drive import Container


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("net.ipv4.ip_forward", "1"),
        ("net.core.somaxconn", "256"),
        ("net.ipv4.ip_unprivileged_port_start", "0"),
        ("kernel.shmmax", "1048576"),
        ("kernel.msgmax", "4096"),
        ("fs.mqueue.msg_max", "20"),
        ("kernel.domainname", "example.test"),
    ],
)
def test_a_namespaced_parameter_is_set(container: Container, name: str, value: str) -> None:
    container.linux["sysctl"] = {name: value}
    path = "/proc/sys/" + name.replace(".", "/")
    assert container.run(f"cat {path}") == value + "\n"


def test_the_host_keeps_its_value(container: Container) -> None:
    with open("/proc/sys/net/core/somaxconn") as file:
        before = file.read()
    container.linux["sysctl"] = {"net.core.somaxconn": "99"}
    assert container.run("cat /proc/sys/net/core/somaxconn") == "99\n"
    with open("/proc/sys/net/core/somaxconn") as file:
        assert file.read() == before


def test_slashes_are_taken_as_separators(container: Container) -> None:
    container.linux["sysctl"] = {"net/ipv4/ip_forward": "1"}
    assert container.run("cat /proc/sys/net/ipv4/ip_forward") == "1\n"


def test_a_dot_in_an_interface_name_is_kept_with_slashes(container: Container) -> None:
    container.linux["sysctl"] = {"net/ipv4/conf/lo/forwarding": "1"}
    assert container.run("cat /proc/sys/net/ipv4/conf/lo/forwarding") == "1\n"


def test_parameters_are_written_before_proc_sys_becomes_read_only(container: Container) -> None:
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    container.linux["readonlyPaths"] = ["/proc/sys"]
    assert container.run("cat /proc/sys/net/ipv4/ip_forward") == "1\n"


@pytest.mark.parametrize(
    ("name", "value", "namespace"),
    [
        ("net.ipv4.ip_forward", "1", "network"),
        ("kernel.shmmax", "1048576", "ipc"),
        ("fs.mqueue.msg_max", "20", "ipc"),
        ("kernel.domainname", "x", "uts"),
    ],
)
def test_a_parameter_of_a_namespace_that_is_the_hosts_is_refused(
    container: Container, name: str, value: str, namespace: str
) -> None:
    container.bundle.drop_namespace(namespace)
    if namespace == "uts":
        del container.config["hostname"]
    if namespace == "ipc":
        container.bundle.drop_mount("/dev/mqueue")
    container.linux["sysctl"] = {name: value}
    assert name.split(".")[0] in container.refused()


@pytest.mark.parametrize("name", ["kernel.panic", "vm.swappiness", "fs.file-max", "nonsense"])
def test_a_parameter_of_the_whole_machine_is_refused(container: Container, name: str) -> None:
    container.linux["sysctl"] = {name: "1"}
    container.refused()


def test_a_parameter_that_does_not_exist_is_refused(container: Container) -> None:
    container.linux["sysctl"] = {"net.ipv4.no_such_thing": "1"}
    assert "no_such_thing" in container.refused()


def test_a_value_that_the_kernel_refuses_is_an_error(container: Container) -> None:
    container.linux["sysctl"] = {"net.core.somaxconn": "not a number"}
    container.refused()


def test_a_name_cannot_climb_out_of_proc_sys(container: Container) -> None:
    container.linux["sysctl"] = {"net/../../sys/kernel/panic": "1"}
    container.refused()
