"""User namespaces from every side: new, by path, nested, and as a user without any privilege.

A rootless runtime is tried in both of its forms: a normal user who makes the namespace, by himself or with newuidmap(1),
and root of a namespace that somebody else has made, as Podman calls it. On a cgroup v1 host neither has a cgroup of its own.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from typing import Any, Callable, Iterator, Sequence

import pytest

from tests import drive, machine
from tests.bundle import remove_tree
from tests.drive import Container

pytestmark = pytest.mark.needs("user-namespace")

UID = 4321
SUBORDINATE = 700000
NEW_USER = "unshare --user --map-root-user"


def maps_of(pid: int) -> list[list[str]]:
    """uid_map and gid_map of a process, as lines of words."""
    found = []
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{pid}/{name}") as file:
            found += [line.split() for line in file]
    return found


# made by root -------------------------------------------------------------------------------------


def test_several_maps_are_those_of_create_and_exec(container: Container) -> None:
    container.bundle.set_namespace("user")
    container.linux["uidMappings"] = [
        {"containerID": 0, "hostID": 200000, "size": 1000},
        {"containerID": 1000, "hostID": 50, "size": 1},
        {"containerID": 2000, "hostID": 300000, "size": 5},
    ]
    container.linux["gidMappings"] = [
        {"containerID": 0, "hostID": 210000, "size": 500},
        {"containerID": 70000, "hostID": 60, "size": 2},
    ]
    pid = container.launch("sleep 100")
    expected = [
        ["0", "200000", "1000"], ["1000", "50", "1"], ["2000", "300000", "5"],
        ["0", "210000", "500"], ["70000", "60", "2"],
    ]  # fmt: skip
    assert maps_of(pid) == expected
    said = container.exec("cat", "/proc/self/uid_map", "/proc/self/gid_map").stdout.splitlines()
    assert [line.split() for line in said] == expected
    ids = container.exec(
        "sh", "-c", "id -u; id -g", options=("--user", "1000:70001")
    ).stdout.split()
    assert ids == ["1000", "70001"]
    outside = container.exec("cat", "/proc/self/status", options=("--user", "2004:0")).stdout
    assert "2004" in outside


def test_setgroups_is_allowed_where_root_wrote_the_map(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7, 8]}
    said = container.run("cat /proc/self/setgroups; grep Groups: /proc/self/status").split()
    assert said == ["allow", "Groups:", "7", "8"]


@pytest.mark.parametrize("equal", [True, False])
def test_maps_beside_a_path_must_be_those_of_the_namespace(
    container: Container, new_container: Callable[[], Container], equal: bool
) -> None:
    container.bundle.use_user_namespace()
    pid = container.launch("sleep 100")
    second = new_container()
    second.bundle.use_user_namespace(100000 if equal else 200000)
    second.bundle.set_namespace("user", f"/proc/{pid}/ns/user")
    second.bundle.sh("cat /proc/self/uid_map")
    result = second.make("run", ok=None)
    if equal:
        assert result.status == 0
        assert second.output().split() == ["0", "100000", "65536"]
    else:
        assert "linux.uidMappings" in result.stderr


def test_exec_into_a_namespace_that_was_joined_by_path(
    container: Container, new_container: Callable[[], Container]
) -> None:
    container.bundle.use_user_namespace()
    pid = container.launch("sleep 100")
    second = new_container()
    second.bundle.set_namespace("user", f"/proc/{pid}/ns/user")
    second.process["user"] = {"uid": 9, "gid": 10}
    second.launch("sleep 100")
    assert second.exec("id", "-u").line == "9"
    assert second.exec("cat", "/proc/self/uid_map").stdout.split() == ["0", "100000", "65536"]


def test_devices_are_the_hosts_nodes(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]
    container.bundle.resources["devices"] = [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}
    ]
    pid = container.launch("sleep 100")
    shown = {row[0][4]: row for row in machine.mountinfo(str(pid))}
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        fields, fstype, _ = shown["/dev/" + name]
        assert (fstype, fields[3]) == ("devtmpfs", "/" + name)
    if os.path.exists("/dev/fuse"):
        assert shown["/dev/fuse"][0][3] == "/fuse"


def test_a_device_that_the_host_has_not_is_refused_by_name(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.linux["devices"] = [{"path": "/dev/no-such", "type": "c", "major": 240, "minor": 1}]
    assert "/dev/no-such" in container.refused()


@pytest.mark.parametrize("key", ["uidMappings", "gidMappings"])
def test_a_map_that_the_kernel_refuses_is_named(container: Container, key: str) -> None:
    container.bundle.use_user_namespace()
    container.linux[key].append({"containerID": 10, "hostID": 900000, "size": 5})  # overlaps
    assert f"linux.{key}" in container.refused()


def test_a_sysfs_of_the_hosts_network_is_refused_in_a_sentence(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.drop_namespace("network")
    said = container.refused().splitlines()
    assert '"/sys": operation not permitted' in said[0]
    if container.runtime.name == "anocir":
        assert "network namespace" in said[1] and len(said) == 2


# nested: the runtime is root of a namespace that somebody else made ---------------------------------


class Caller:
    """Somebody who runs the runtime: a prefix for its command lines, and a --root of his own."""

    def __init__(self, container: Container, prefix: Sequence[str], owner: int) -> None:
        self.container = container
        self.prefix = list(prefix)
        self.root = container.bundle.outside("state")
        container.process["args"] = ["sleep", "100"]
        for path in (self.root, container.bundle.path, container.bundle.rootfs):
            os.chown(path, owner, owner)
        for name in ("dev", "tmp", "etc", "root"):
            os.chown(os.path.join(container.bundle.rootfs, name), owner, owner)
        # no cgroup can be made: whoever has no rights does not ask for one
        container.linux.pop("cgroupsPath", None)
        container.linux["resources"] = {}

    def __call__(self, *words: str, ok: bool | None = True, **streams: Any) -> drive.Result:
        """Call the runtime."""
        command = [*self.prefix, self.container.runtime.path, "--root", self.root, *words]
        return drive.call(command, ok=ok, **streams)

    def run(self, script: str, ok: bool | None = True) -> drive.Result:
        """Run a script in the container in the foreground."""
        self.container.bundle.sh(script)
        self.container.bundle.write()
        # anew for each call: the runtime gives them to the container's user
        with tempfile.TemporaryFile() as out:
            os.fchown(out.fileno(), UID, UID)
            result = self(
                "run", "--bundle", self.container.bundle.path, self.container.id, ok=ok, stdout=out
            )
        return result

    def launch(self) -> int:
        """Create and start the container; the pid."""
        self.container.bundle.write()
        with open(self.container.stdout_path, "ab") as out:
            self(
                "create",
                "--bundle",
                self.container.bundle.path,
                self.container.id,
                stdout=out,
                stderr=out,
            )
        self("start", self.container.id)
        return int(json.loads(self("state", self.container.id).stdout)["pid"])

    def exec(self, *words: str, options: Sequence[str] = ()) -> str:
        """Execute a command in the container; its output."""
        return self("exec", *options, self.container.id, *words).stdout

    def delete(self) -> None:
        """Delete by force; nothing may be left of the state."""
        self("delete", "--force", self.container.id)
        assert self.container.id not in os.listdir(self.root)


WITHOUT_USER = "sh -c 'id -u; id -g; cat /proc/self/setgroups'"


@pytest.fixture
def nested(container: Container, helper: Callable[..., Any]) -> Caller:
    """The runtime as mapped root of one id, which root has made; all calls in the same namespace."""
    holder = helper([*NEW_USER.split(), "--mount", "sleep", "1000"])
    drive.until("the namespace", lambda: machine.command_of(holder.pid) == "sleep 1000")
    assert [words[2] for words in maps_of(holder.pid)] == ["1", "1"]
    prefix = ["nsenter", "--user", "--mount", "--preserve-credentials", "--target", str(holder.pid)]
    return Caller(container, prefix, 0)


def test_root_of_a_namespace_that_maps_each_id_to_itself_is_not_the_hosts(
    container: Container, helper: Callable[..., Any]
) -> None:
    """systemd's PrivateUsers=identity: the map is that of the initial namespace."""
    holder = helper(["unshare", "--user", "--mount", "sleep", "1000"])
    drive.until("the namespace", lambda: machine.command_of(holder.pid) == "sleep 1000")
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{holder.pid}/{name}", "w") as file:
            file.write("0 0 4294967295")
    prefix = ["nsenter", "--user", "--mount", "--target", str(holder.pid)]
    inside = Caller(container, prefix, 0)
    container.bundle.set_namespace("cgroup")
    container.linux["devices"] = [{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]
    said = inside.run("cat /proc/self/uid_map; ls /dev/kmsg; echo x >/dev/null; hostname").stdout
    assert said.split() == ["0", "0", "4294967295", "/dev/kmsg", "box"]


def test_nested_root_runs_a_container_without_a_user_namespace_of_its_own(nested: Caller) -> None:
    nested.container.bundle.set_namespace("cgroup")
    said = nested.run(
        "id -u; cat /proc/self/uid_map; echo x > /tmp/x && echo written; hostname"
    ).stdout
    assert said.split() == ["0", "0", "0", "1", "written", "box"]


def test_nested_root_makes_a_namespace_in_its_own(nested: Caller) -> None:
    nested.container.bundle.use_user_namespace(host_id=0, size=1)
    assert nested.run("cat /proc/self/uid_map /proc/self/setgroups").stdout.split() == [
        "0", "0", "1", "deny"
    ]  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_nested_root_can_create_start_exec_and_delete(nested: Caller, own: bool) -> None:
    if own:
        nested.container.bundle.use_user_namespace(host_id=0, size=1)
    pid = nested.launch()
    assert machine.process_status(pid)["Uid"].split() == ["0"] * 4
    assert nested.exec("cat", "/proc/self/uid_map").split() == ["0", "0", "1"]
    assert nested.exec("sh", "-c", "echo x > /dev/null; echo $$").strip() != "1"
    assert os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user")
    nested.delete()


def test_nested_root_is_refused_additional_groups_in_a_sentence(nested: Caller) -> None:
    # setgroups is denied in a namespace whose map an unprivileged process wrote
    nested.container.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [5]}
    result = nested.run("true", ok=False)
    assert "setgroups" in result.stderr


def test_nested_root_is_refused_ids_that_are_not_mapped(nested: Caller) -> None:
    nested.container.process["user"] = {"uid": 7, "gid": 0}
    assert "not mapped" in nested.run("true", ok=False).stderr


def test_nested_root_gets_read_only_and_masked_paths(nested: Caller) -> None:
    nested.container.linux["readonlyPaths"] = ["/proc/sys"]
    nested.container.linux["maskedPaths"] = ["/proc/kcore", "/sys/firmware"]
    nested.container.config["root"]["readonly"] = True
    said = nested.run(
        "grep -c ' /proc/sys ' /proc/mounts; head -c 1 /proc/kcore | wc -c; touch /x || echo ro"
    ).stdout
    assert said.split() == ["1", "0", "ro"]


# a normal user --------------------------------------------------------------------------------------


def as_user(environment: Sequence[str] = ()) -> list[str]:
    """A prefix that makes the command one of a normal user's."""
    identity = [
        "setpriv",
        f"--reuid={UID}",
        f"--regid={UID}",
        "--clear-groups",
        "--bounding-set=+all",
    ]
    return ["env", "-i", f"PATH={os.environ['PATH']}", *environment, *identity]


@pytest.fixture
def person(container: Container) -> Caller:
    """A normal user with a bundle of his own and a map of his own id alone."""
    caller = Caller(container, as_user(), UID)
    container.bundle.set_namespace("user")
    for key in ("uidMappings", "gidMappings"):
        container.linux[key] = [{"containerID": 0, "hostID": UID, "size": 1}]
    return caller


def test_a_user_is_root_inside_and_himself_outside(person: Caller) -> None:
    said = person.run(
        "id -u; cat /proc/self/uid_map /proc/self/setgroups; echo x > /tmp/x && echo written"
    ).stdout
    assert said.split() == ["0", "0", str(UID), "1", "deny", "written"]
    assert os.stat(os.path.join(person.container.bundle.rootfs, "tmp/x")).st_uid == UID


def test_a_user_can_create_start_exec_kill_and_delete(person: Caller) -> None:
    pid = person.launch()
    assert machine.process_status(pid)["Uid"].split() == [str(UID)] * 4
    assert person.exec("id", "-u").strip() == "0"
    assert person.exec("cat", "/proc/self/setgroups").strip() == "deny"
    if person.container.runtime.name == "anocir":  # by the namespaces, without a cgroup of his
        assert pid in json.loads(person("ps", "--format", "json", person.container.id).stdout)
    person("kill", person.container.id, "KILL")
    drive.until("the end", lambda: drive.reap() or not _alive(pid))
    person.delete()


def _alive(pid: int) -> bool:
    return machine.process_status(pid).get("State", "Z")[0] != "Z"


def test_a_user_has_all_capabilities_inside_and_none_outside(person: Caller) -> None:
    assert (
        person.run(
            "hostname other && hostname; mount -t tmpfs x /tmp || echo refused"
        ).stdout.split()[-1]
        == "refused"
    )
    person.container.process["capabilities"] = {
        key: ["CAP_SYS_ADMIN", "CAP_CHOWN"] for key in ("bounding", "effective", "permitted")
    }
    assert "mounted" in person.run("mount -t tmpfs x /tmp && echo mounted").stdout


@pytest.fixture(scope="module")
def subordinate(runtime: drive.Runtime) -> Iterator[None]:
    """Subordinate ids for the user, in a private copy of the host's files."""
    if not shutil.which("newuidmap"):
        pytest.skip("[newuidmap] this machine has not newuidmap (package uidmap)")
    directory = tempfile.mkdtemp(prefix="anocir-subid-")
    paths = []
    try:
        for name in ("subuid", "subgid", "passwd"):
            path = os.path.join(directory, name)
            text = f"{UID}:{SUBORDINATE}:65536\nperson:{SUBORDINATE}:65536\n"
            if name == "passwd":
                with open("/etc/passwd") as file:
                    text = file.read() + f"person:x:{UID}:{UID}::/:/bin/sh\n"
            with open(path, "w") as file:
                file.write(text)
            if not os.path.exists("/etc/" + name):
                continue
            machine.mount(path, "/etc/" + name, "", 4096)
            paths.append("/etc/" + name)
        yield
    finally:
        for path in paths:
            machine.umount(path, machine.MNT_DETACH)
        remove_tree(directory)


def test_newuidmap_gives_a_user_his_subordinate_ids(subordinate: None, person: Caller) -> None:
    for key in ("uidMappings", "gidMappings"):
        person.container.linux[key].append({"containerID": 1, "hostID": SUBORDINATE, "size": 65536})
    person.container.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 6]}
    pid = person.launch()
    assert machine.process_status(pid)["Uid"].split() == [str(SUBORDINATE + 999)] * 4
    assert machine.process_status(pid)["Groups"].split() == [
        str(SUBORDINATE + 4),
        str(SUBORDINATE + 5),
    ]
    assert maps_of(pid)[:2] == [["0", str(UID), "1"], ["1", str(SUBORDINATE), "65536"]]
    assert person.exec("id", "-u").strip() == "1000"
    assert person.exec("id", "-u", options=("--user", "0:0")).strip() == "0"
    person.delete()


def test_ids_that_are_not_the_users_are_refused_with_the_place_to_look(
    subordinate: None, person: Caller
) -> None:
    person.container.linux["uidMappings"].append({"containerID": 1, "hostID": 0, "size": 10})
    said = person.run("true", ok=False).stderr
    assert "newuidmap" in said and "/etc/subuid" in said


def test_without_newuidmap_the_error_names_the_package(person: Caller) -> None:
    person.container.linux["uidMappings"].append(
        {"containerID": 1, "hostID": SUBORDINATE, "size": 10}
    )
    person.prefix = [
        word if not word.startswith("PATH=") else "PATH=/nowhere" for word in person.prefix
    ]
    person.prefix[0] = shutil.which("env") or "env"
    person.prefix[person.prefix.index("setpriv")] = shutil.which("setpriv") or "setpriv"
    said = person.run("true", ok=False).stderr
    assert "newuidmap: not found" in said and "uidmap" in said


def test_as_podman_calls_it_root_of_a_namespace_with_a_range(
    subordinate: None, container: Container, helper: Callable[..., Any]
) -> None:
    # Podman makes the user and the mount namespace first; the runtime is mapped root with full rights inside
    holder = helper(
        [
            *as_user(),
            "unshare",
            "--user",
            "--mount",
            "--map-root-user",
            "--map-auto",
            "sleep",
            "1000",
        ]
    )
    drive.until(
        "the namespace",
        lambda: holder.poll() is not None or machine.command_of(holder.pid) == "sleep 1000",
    )
    if holder.returncode is not None:
        pytest.skip("[map-auto] this machine has not unshare --map-auto (util-linux 2.38)")
    assert len(maps_of(holder.pid)) == 4
    prefix = ["nsenter", "--user", "--mount", "--target", str(holder.pid)]
    caller = Caller(container, prefix, UID)
    container.process["user"] = {"uid": 33, "gid": 34, "additionalGids": [35]}
    pid = caller.launch()
    assert machine.process_status(pid)["Uid"].split() == [str(SUBORDINATE + 32)] * 4
    assert caller.exec("id", "-u").strip() == "33"
    assert caller.exec("grep", "Groups:", "/proc/self/status").split() == ["Groups:", "35"]
    caller.delete()
    # and with a namespace of the container's own below it (podman run --userns=auto)
    container.bundle.use_user_namespace(host_id=100, size=1000)
    pid = caller.launch()
    assert machine.process_status(pid)["Uid"].split() == [str(SUBORDINATE + 99 + 33)] * 4
    assert caller.exec("cat", "/proc/self/uid_map").split() == ["0", "100", "1000"]
    caller.delete()


def test_spec_rootless_runs_as_it_is_written(person: Caller) -> None:
    bundle = person.container.bundle
    person("spec", "--rootless", "--bundle", bundle.path)
    with open(os.path.join(bundle.path, "config.json")) as file:
        bundle.config.clear()
        bundle.config.update(json.load(file))
    assert bundle.linux["uidMappings"][0]["hostID"] == UID
    bundle.process["terminal"] = False
    assert person.run(
        "id -u; ls /sys/kernel >/dev/null && echo sys; ls /dev/pts"
    ).stdout.split() == ["0", "sys", "ptmx"]


def test_the_state_of_a_user_is_where_xdg_says(person: Caller) -> None:
    home = person.container.bundle.outside("runtime-dir")
    os.chown(home, UID, UID)
    person.container.process["args"] = ["sleep", "100"]
    person.container.bundle.write()
    command = [*as_user([f"XDG_RUNTIME_DIR={home}"]), person.container.runtime.path]
    with open(person.container.stdout_path, "ab") as out:
        drive.call([*command, "run", "-d", "--bundle", person.container.bundle.path, person.container.id],
                   stdout=out, stderr=out)  # fmt: skip
    try:
        listed = drive.call([*command, "list", "-q"]).stdout.split()
        assert listed == [person.container.id]
        (directory,) = os.listdir(home)
        assert os.stat(os.path.join(home, directory)).st_mode & 0o777 == 0o700
    finally:
        drive.call([*command, "delete", "--force", person.container.id])


def test_limits_that_a_user_cannot_have_are_refused_or_ignored_in_a_sentence(
    person: Caller,
) -> None:
    person.container.linux["resources"] = {"memory": {"limit": 64 << 20}}
    result = person.run("echo ran", ok=None)
    if result.status:
        assert "linux.resources" in result.stderr or "cgroup" in result.stderr
    else:
        assert result.stdout == "ran\n"
