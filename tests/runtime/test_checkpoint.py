"""Checkpoint and restore through CRIU: what a container had before it has after.

The program of most tests counts: it says 1, 2, 3 ... in a file, from a variable of its shell. Numbers that go on after a
restore without a gap and without a new beginning were in its memory.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
from functools import partial
from typing import Any, Callable, Iterator

import pytest

from tests import drive, machine
from tests.drive import Console, Container, Runtime, read_terminal

pytestmark = pytest.mark.needs("criu")

COUNT = "i=0; while :; do i=$((i+1)); echo $i >>/count; usleep 20000; done"


def numbers(container: Container) -> list[int]:
    return [int(word) for word in container.bundle.read("count").split("\n")[:-1]]


def goes_on(container: Container, more: int = 5) -> None:
    """Wait until it counts on, and see that there was neither a gap nor a second beginning."""
    before = len(numbers(container))
    drive.until("it counts on", lambda: len(numbers(container)) >= before + more)
    found = numbers(container)
    assert found == list(range(1, len(found) + 1))


def counting(container: Container, script: str = COUNT) -> None:
    container.launch(script)
    container.wait_file("count")


def there_and_back(container: Container, *options: str, **streams: Any) -> None:
    """Checkpoint and restore; the options are for both."""
    pid = container.pid
    container.checkpoint(*options)
    container.wait_exit(pid)
    assert container.runtime("state", container.id, ok=None).status != 0
    container.restore(*options, **streams)


# what it is for -----------------------------------------------------------------------------------


def test_a_container_goes_on_where_it_was(container: Container) -> None:
    counting(container)
    for _ in range(2):
        there_and_back(container)
        assert container.status == "running"
        goes_on(container)


def test_a_restored_container_obeys_every_command(container: Container) -> None:
    counting(container)
    there_and_back(container)
    assert container.exec("echo", "inside").line == "inside"
    assert str(container.pid) in container.runtime("ps", "-f", "json", container.id).stdout
    container.runtime("pause", container.id)
    assert container.status == "paused"
    container.runtime("resume", container.id)
    goes_on(container)
    assert "already running" in container.start(ok=False).stderr
    container.kill("KILL")
    container.wait_exit(container.state()["pid"] or container_pid(container))
    container.delete()


def container_pid(container: Container) -> int:
    with open(os.path.join(container.runtime.root, container.id, "state.json")) as file:
        return int(json.load(file)["pid"])


def test_processes_of_exec_are_written_down_too(container: Container) -> None:
    counting(container)
    started = container.exec("sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!").line
    there_and_back(container)
    assert container.exec("readlink", f"/proc/{started}/exe").line == "/bin/busybox"


def test_it_stays_with_leave_running(container: Container) -> None:
    counting(container)
    container.checkpoint("--leave-running")
    assert container.status == "running"
    goes_on(container)
    pid = container.pid
    container.delete("--force")
    container.wait_exit(pid)
    at = len(numbers(container))
    container.restore()
    drive.until("it counts on", lambda: len(numbers(container)) > at)
    assert numbers(container)[at] <= at + 1, "it went on from the moment of the checkpoint"


def test_a_paused_container_can_be_written_down(container: Container) -> None:
    counting(container)
    container.runtime("pause", container.id)
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    container.restore()
    goes_on(container)


def test_the_foreground_restore_ends_with_the_program(container: Container) -> None:
    counting(container, COUNT.replace("done", "test -e /end && exit 7; done"))
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    images = ("--image-path", container.images)
    # A file again, since it was one: CRIU does not take another kind.
    with open(container.stdout_path, "ab") as out, open(container.stderr_path, "ab") as err:
        command = ("restore", *images, "-b", container.bundle.path, container.id)
        child = drive.spawn(container.runtime.command(*command), stdout=out, stderr=err)
    drive.until("it runs", lambda: container.runtime("state", container.id, ok=None).status == 0)
    drive.until("it counts", lambda: container.status == "running")
    goes_on(container)
    container.bundle.put("end")
    assert drive.finish(child) == 7
    assert container.runtime("state", container.id, ok=None).status != 0


def test_the_pid_file_holds_the_pid(container: Container) -> None:
    counting(container)
    path = os.path.join(container.bundle.path, "pid")
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    container.restore("--pid-file", path)
    with open(path) as file:
        assert file.read() == str(container.pid)


def test_the_default_places_are_below_the_current_directory(container: Container) -> None:
    counting(container)
    pid = container.pid
    there = container.bundle.path
    container.runtime("checkpoint", container.id, cwd=there)
    container.wait_exit(pid)
    assert os.path.exists(os.path.join(there, "checkpoint", "inventory.img"))
    with open(container.stdout_path, "ab") as out, open(container.stderr_path, "ab") as err:
        container.runtime("restore", "-d", container.id, cwd=there, stdout=out, stderr=err)


def test_logs_go_to_the_work_path(container: Container) -> None:
    counting(container)
    work = os.path.join(container.bundle.path, "work")
    there_and_back(container, "--work-path", work)
    assert {"dump.log", "restore.log"} <= {*os.listdir(work)}
    assert not [name for name in os.listdir(container.images) if name.endswith(".log")]


# mounts -------------------------------------------------------------------------------------------


def test_mounts_are_what_they_were(container: Container) -> None:
    """Bind mounts, a tmpfs with what is in it, masked and read-only paths, a read-only root."""
    source = container.bundle.outside("source")
    file = container.bundle.outside("file", "contents")
    container.bundle.add_mount("/data", "", source, "bind", "rw", "nosuid")
    container.bundle.add_mount("/locked", "", source, "bind", "ro")
    container.bundle.add_mount("/etc/one", "", file, "bind", "ro")
    container.bundle.add_mount("/scratch", "tmpfs", "tmpfs", "nosuid", "size=64k")
    container.linux["maskedPaths"] = [
        "/proc/keys",
        "/proc/timer_list",
        "/sys/firmware",
        "/proc/acpi",
    ]
    container.linux["readonlyPaths"] = ["/proc/sys", "/proc/irq"]
    container.config["root"]["readonly"] = True
    script = (
        "echo kept >/scratch/file; i=0; "
        "while :; do i=$((i+1)); echo $i >>/data/count; usleep 20000; done"
    )
    container.launch(script)
    count = os.path.join(source, "count")
    drive.until("it counts", lambda: os.path.exists(count))

    def table() -> list[tuple[str, str, str]]:
        rows = machine.mountinfo(str(container.pid))
        return sorted((fields[4], fields[5], kind) for fields, kind, _ in rows)

    before = table()
    there_and_back(container)
    assert table() == before
    at = os.path.getsize(count)
    drive.until("it counts on", lambda: os.path.getsize(count) > at)
    assert container.exec("cat", "/scratch/file").line == "kept"
    assert container.exec("cat", "/etc/one").line == "contents"
    assert container.exec("cat", "/proc/keys").stdout == ""
    for path in ("/locked/x", "/etc/one", "/proc/sys/kernel/hostname", "/x"):
        done = container.exec("sh", "-c", f"echo >{path}", ok=False)
        assert "Read-only" in done.stderr, path


def test_a_destination_may_be_a_link(container: Container) -> None:
    source = container.bundle.outside("source", None)
    container.bundle.make_directory("real/place")
    os.symlink("/real/place", os.path.join(container.bundle.rootfs, "place"))
    container.bundle.add_mount("/place", "", source, "bind")
    counting(container)
    there_and_back(container)
    container.exec("sh", "-c", "echo x >/place/seen")
    assert os.path.exists(os.path.join(source, "seen"))


def test_mount_points_are_made_again(container: Container) -> None:
    """What create made below a source, and somebody has removed since."""
    outer, inner = container.bundle.outside("outer"), container.bundle.outside("inner")
    container.bundle.add_mount("/test", "", outer, "bind")
    container.bundle.add_mount("/test/for/nested", "", inner, "bind")
    counting(container)
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    shutil.rmtree(os.path.join(outer, "for"))
    container.restore()
    container.exec("sh", "-c", "echo x >/test/for/nested/seen")
    assert os.path.exists(os.path.join(inner, "seen"))


def test_what_rbind_brought_along_comes_again(container: Container) -> None:
    source = container.bundle.outside("source")
    os.mkdir(os.path.join(source, "below"))
    machine.mount("tmpfs", os.path.join(source, "below"), "tmpfs", 1)  # read-only
    container.bundle.add_mount("/tree", "", source, "rbind")
    counting(container)
    there_and_back(container)
    rows = {fields[4]: fields[5] for fields, _, _ in machine.mountinfo(str(container.pid))}
    assert rows["/tree/below"].startswith("ro")
    goes_on(container)


def test_mounts_of_cgroups_without_a_namespace(container: Container) -> None:
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "nodev")
    counting(container)
    before = container.exec("cat", "/proc/self/mounts").stdout.count(" /sys/fs/cgroup")
    for _ in range(2):  # the second one finds the images of the first, under other names in part
        there_and_back(container)
    assert container.exec("cat", "/proc/self/mounts").stdout.count(" /sys/fs/cgroup") == before
    goes_on(container)


@pytest.mark.needs("cgroup1")
def test_a_mount_of_version_2_beside_version_1(container: Container) -> None:
    container.bundle.add_mount("/unified", "cgroup2", "cgroup2", "ro")
    counting(container)
    there_and_back(container)
    assert container.exec("cat", "/unified/cgroup.procs").stdout.split()
    goes_on(container)


@pytest.mark.needs("runc")
def test_images_that_runc_has_made_and_ones_for_it(container: Container) -> None:
    """It names a mount by its destination: what it leaves we take; what we leave it takes without such mounts."""
    root = container.bundle.outside("runc")
    null = open(os.devnull, "r+b")  # noqa: SIM115
    quiet: dict[str, Any] = {"stdin": null, "stdout": null, "stderr": null}

    def runc(*words: str) -> None:
        drive.call(["runc", "--root", root, *words], **quiet)

    where = ("--image-path", container.images)
    made = ("-d", "--bundle", container.bundle.path)
    mounts = list(container.config["mounts"])
    container.bundle.add_mount("/data", "", container.bundle.outside("source"), "bind", "ro")
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "nodev")
    container.bundle.sh(COUNT)
    container.bundle.write()
    runc("run", *made, container.id)
    try:
        container.wait_file("count")
        runc("checkpoint", *where, container.id)
        container.restore()
        goes_on(container)
        assert "Read-only" in container.exec("sh", "-c", "echo >/data/x", ok=False).stderr
        container.config["mounts"] = mounts
        container.delete("--force")
        os.unlink(os.path.join(container.bundle.rootfs, "count"))
        shutil.rmtree(container.images)
        container.create(**quiet)
        container.start()
        container.wait_file("count")
        pid = container.pid
        container.checkpoint()
        container.wait_exit(pid)
        runc("restore", *where, *made, container.id)
        goes_on(container)
    finally:
        drive.call(["runc", "--root", root, "delete", "--force", container.id], ok=None)
        null.close()


@pytest.mark.needs("cgroup-namespace")
def test_a_cgroup_namespace(container: Container) -> None:
    container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "nodev")
    container.bundle.set_namespace("cgroup")
    counting(container)
    for options in ([], ["--manage-cgroups-mode", "ignore"]):
        there_and_back(container, *options)
    assert container.exec("cat", "/proc/1/cgroup").stdout.count(container.cgroup) == 0
    goes_on(container)


# namespaces ---------------------------------------------------------------------------------------


def test_a_private_network_has_its_loopback(container: Container) -> None:
    counting(container)
    there_and_back(container)
    assert "127.0.0.1" in container.exec("ip", "address", "show", "dev", "lo").stdout


def test_a_joined_network_is_joined_again(container: Container, helper: Callable[..., Any]) -> None:
    holder = helper(["unshare", "-n", "sleep", "1000"])
    path = f"/proc/{holder.pid}/ns/net"
    own = os.stat("/proc/self/ns/net").st_ino
    drive.until("the network is there", lambda: os.stat(path).st_ino != own)
    container.bundle.set_namespace("network", path)
    counting(container)
    there_and_back(container)
    assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == os.stat(path).st_ino
    goes_on(container)


def test_the_hosts_network_stays_the_hosts(container: Container) -> None:
    container.bundle.drop_namespace("network")
    counting(container)
    there_and_back(container)
    inode = os.stat("/proc/self/ns/net").st_ino
    assert os.stat(f"/proc/{container.pid}/ns/net").st_ino == inode
    goes_on(container)


@pytest.mark.needs("user-namespace")
def test_a_user_namespace(container: Container) -> None:
    container.bundle.use_user_namespace()
    os.chown(container.bundle.rootfs, 100000, 100000)
    source = container.bundle.outside("source")
    container.bundle.add_mount("/data", "", source, "bind", "ro")
    for path in (container.stdout_path, container.stderr_path):
        with open(path, "w"):  # CRIU opens them again, as that root
            os.chmod(path, 0o666)
    counting(container)
    there_and_back(container)
    goes_on(container)
    with open(f"/proc/{container.pid}/uid_map") as file:
        assert file.read().split() == ["0", "100000", "65536"]
    assert container.exec("test", "-c", "/dev/null").status == 0
    assert "Read-only" in container.exec("sh", "-c", "echo >/data/x", ok=False).stderr


@pytest.mark.needs("time-namespace")
def test_a_time_namespace_goes_on(container: Container) -> None:
    container.bundle.set_namespace("time")
    container.linux["timeOffsets"] = {"boottime": {"secs": 100000}, "monotonic": {"secs": 50000}}
    counting(container)
    before = float(container.exec("cut", "-d ", "-f1", "/proc/uptime").line)
    there_and_back(container)
    after = float(container.exec("cut", "-d ", "-f1", "/proc/uptime").line)
    assert before <= after < before + 300


# what leads out of it -----------------------------------------------------------------------------


def test_pipes_of_the_caller_are_taken_again(container: Container) -> None:
    script = "while read word; do echo pong $word; done"
    container.bundle.sh(script)
    inputs, outputs = os.pipe(), os.pipe()
    with os.fdopen(inputs[0], "rb") as stdin, os.fdopen(outputs[1], "wb") as stdout:
        container.create(stdin=stdin, stdout=stdout, stderr=stdout)
        pid = container.pid
        container.start()
        os.write(inputs[1], b"one\n")
        assert os.read(outputs[0], 100) == b"pong one\n"
        container.checkpoint()
        container.wait_exit(pid)
        container.restore(stdin=stdin, stdout=stdout, stderr=stdout)
    os.write(inputs[1], b"two\n")
    assert os.read(outputs[0], 100) == b"pong two\n"
    os.close(inputs[1])
    assert os.read(outputs[0], 100) == b""
    os.close(outputs[0])


def test_a_file_of_the_host_as_output_is_written_on(container: Container) -> None:
    counting(
        container, "i=0; while :; do i=$((i+1)); echo $i; echo $i >>/count; usleep 20000; done"
    )
    there_and_back(container)
    goes_on(container)
    container.kill("KILL")
    container.wait()
    said = [int(word) for word in container.output().split()]
    assert said[:-1] == list(range(1, len(said)))


def test_a_terminal_gets_a_new_master(container: Container, console: Console) -> None:
    container.process["terminal"] = True
    container.bundle.sh("stty -echo; echo ready; while read word; do echo pong $word; done")
    container.create("--console-socket", console.path)
    master = console.receive()
    pid = container.pid
    container.start()
    read_terminal(master, b"ready")
    container.checkpoint()
    container.wait_exit(pid)
    os.close(master)
    console.master = -1
    container.restore("--console-socket", console.path)
    master = console.receive()
    os.write(master, b"ping\n")
    assert b"pong ping" in read_terminal(master, b"ping")


def test_a_terminal_wants_somebody_to_hold_it(container: Container, console: Console) -> None:
    container.process["terminal"] = True
    container.bundle.sh("sleep 1000")
    container.create("--console-socket", console.path)
    console.receive()
    pid = container.pid
    container.start()
    container.checkpoint()
    container.wait_exit(pid)
    assert "console socket" in container.restore(ok=False).stderr + container.errors()


def veth(container: Container, script: str) -> None:
    """Give the container's network an interface, as an engine's hook does."""
    container.bundle.hook("createRuntime", script)


@pytest.fixture
def link() -> Iterator[tuple[str, str]]:
    """Names of a pair of interfaces; the host's end goes with the test."""
    name = f"t{os.getpid()}"[:10]
    yield name + "h", name + "c"
    subprocess.run(["ip", "link", "del", name + "h"], capture_output=True, check=False)


@pytest.mark.needs("veth")
def test_a_tcp_connection_over_a_veth(container: Container, link: tuple[str, str]) -> None:
    """The hook that makes the network runs again at restore, before sockets are there."""
    host, inside = link
    script = (
        f"pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); ip link del {host} 2>/dev/null; set -e; "
        f"ip link add {host} type veth peer name {inside}; ip link set {inside} netns $pid; "
        f"ip address add 169.254.77.1/24 dev {host}; ip link set {host} up; "
        f"nsenter -t $pid -n ip address add 169.254.77.2/24 dev {inside}; "
        f"nsenter -t $pid -n ip link set {inside} address 02:00:00:00:00:02 up"
    )
    veth(container, script)
    served = "busybox nc -lp 7777 -e sh -c 'while read word; do echo pong $word; done' & wait"
    container.launch(served)
    peer = drive.until("it listens", partial(connect, "169.254.77.2", 7777))
    with peer:
        peer.sendall(b"one\n")
        assert peer.recv(100) == b"pong one\n"
        refused = container.checkpoint(ok=False)
        assert "tcp" in refused.stderr.lower()
        assert container.status == "running"
        there_and_back(container, "--tcp-established")
        peer.sendall(b"two\n")
        assert peer.recv(100) == b"pong two\n"


def connect(address: str, port: int) -> socket.socket | None:
    try:
        peer = socket.create_connection((address, port), 5)
    except OSError:
        return None
    peer.settimeout(20)
    return peer


# memory -------------------------------------------------------------------------------------------


@pytest.mark.needs("soft-dirty")
def test_a_pre_dump_and_what_changed_since(container: Container) -> None:
    counting(container)
    parent = os.path.join(container.bundle.path, "parent")
    container.runtime("checkpoint", "--pre-dump", "--image-path", parent, container.id)
    assert container.status == "running"
    pid = container.pid
    container.checkpoint("--parent-path", "../parent")
    container.wait_exit(pid)
    assert os.path.islink(os.path.join(container.images, "parent"))
    container.restore()
    goes_on(container)


@pytest.mark.needs("no-soft-dirty")
def test_a_pre_dump_says_what_the_kernel_lacks(container: Container) -> None:
    counting(container)
    done = container.checkpoint("--pre-dump", ok=False)
    assert "criu is missing features" in done.stderr
    goes_on(container)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/parent", "must be relative"),
        ("../nothing", "no such file"),
        ("../config.json", "not a dir"),
    ],
)
def test_a_parent_path_that_cannot_be(container: Container, path: str, said: str) -> None:
    counting(container)
    done = container.checkpoint("--parent-path", path, ok=False)
    assert "--parent-path" in done.stderr
    assert said in done.stderr
    goes_on(container)


@pytest.mark.needs("lazy-pages")
def test_pages_that_come_when_they_are_needed(
    container: Container, new_container: Callable[[], Container], helper: Callable[..., Any]
) -> None:
    counting(container)
    read_end, write_end = os.pipe()
    port = free_port()
    options = ["--lazy-pages", "--page-server", f"127.0.0.1:{port}", "--status-fd", str(write_end)]
    command = container.runtime.command(
        "checkpoint", "--image-path", container.images, *options, container.id
    )
    pid = container.pid
    dump = drive.spawn(command, pass_fds=[write_end])
    os.close(write_end)
    assert os.read(read_end, 10) == b"\0"
    os.close(read_end)
    where = ["--address", "127.0.0.1", "--port", str(port), "-D", container.images]
    server = helper(["criu", "lazy-pages", "--page-server", *where])
    drive.until("it serves", lambda: os.path.exists(container.images + "/lazy-pages.socket"))
    other = new_container()
    shutil.rmtree(other.bundle.rootfs)
    os.rename(container.bundle.rootfs, other.bundle.rootfs)
    other.bundle.config.update(container.bundle.config)
    other.linux["cgroupsPath"] = other.cgroup
    images = ("--image-path", container.images, "--lazy-pages", "--manage-cgroups-mode", "ignore")
    other.make("restore", "-d", *images)
    goes_on(other)
    assert drive.finish(dump) == 0
    container.wait_exit(pid)
    assert server.wait(60) == 0


def test_the_status_descriptor_must_be_writable(container: Container) -> None:
    counting(container)
    options = ("--lazy-pages", "--page-server", "127.0.0.1:1", "--status-fd", "0")
    with open(os.devnull, "rb") as null:
        done = container.checkpoint(*options, ok=False, stdin=null)
    assert "--status-fd: descriptor 0 is not open for writing" in done.stderr
    goes_on(container)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


# hooks, cgroups, configuration --------------------------------------------------------------------


def test_hooks_run_at_restore_while_nothing_runs_yet(container: Container) -> None:
    path = container.bundle.outside("said", "")
    for name in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        container.bundle.hook(name, f"(echo {name}; cat) | tr '\\n' ' ' >>{path}; echo >>{path}")
    counting(container)
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    with open(path) as file:
        assert "poststop" in file.read().split("\n")[-2]
    with open(path, "w"):
        pass
    container.restore()
    with open(path) as file:
        lines = file.read().split("\n")[:-1]
    assert [line.split()[0] for line in lines] == ["prestart", "createRuntime"]
    state = json.loads(lines[1].partition(" ")[2])
    assert (state["id"], state["pid"]) == (container.id, container.pid)


def test_a_failing_hook_ends_the_restore(container: Container) -> None:
    counting(container)
    pid = container.pid
    container.checkpoint()
    container.wait_exit(pid)
    container.bundle.hook("createRuntime", "echo no luck >&2; exit 3")
    container.restore(ok=False)
    assert "createRuntime hook #0" in container.errors()
    assert "no luck" in container.errors()
    assert container.runtime("state", container.id, ok=None).status != 0


def test_limits_are_those_of_the_configuration(container: Container) -> None:
    container.bundle.resources["pids"] = {"limit": 64}
    counting(container)
    there_and_back(container)
    assert container.limit("pids", "pids.max", "pids.max") == "64"
    assert str(container.pid) in cgroup_procs(container)


def cgroup_procs(container: Container) -> list[str]:
    with open(machine.cgroup_directory("pids", container.cgroup) + "/cgroup.procs") as file:
        return file.read().split()


@pytest.mark.parametrize(
    ("before", "mode"), [("strict", "soft"), ("full", "full"), ("ignore", "ignore")]
)
def test_another_cgroup_at_restore(container: Container, before: str, mode: str) -> None:
    counting(container)
    pid = container.pid
    old = machine.cgroup_directory("pids", container.cgroup)
    container.checkpoint("--manage-cgroups-mode", before)
    container.wait_exit(pid)
    assert not os.path.exists(old)
    if (
        before == "strict"
    ):  # criu would find the cgroups that were made for the restore; runc's fails too
        container.restore("--manage-cgroups-mode", "strict", ok=False)
        assert "--manage-cgroups-mode strict" in container.errors()
        assert not os.path.exists(old)
    container.cgroup += "-other"
    container.linux["cgroupsPath"] = container.cgroup
    container.restore("--manage-cgroups-mode", mode)
    assert not os.path.exists(old)
    with open(f"/proc/{container.pid}/cgroup") as file:
        lines = file.read().split()
    assert all(line.endswith(container.cgroup) for line in lines), lines
    goes_on(container)


def test_a_configuration_file_for_criu(container: Container) -> None:
    path = container.bundle.outside("criu.conf", "log-file mine.log\n")
    container.config["annotations"] = {"org.criu.config": path}
    counting(container)
    there_and_back(container)
    assert "mine.log" in os.listdir(container.images)
    assert "restore.log" not in os.listdir(container.images)


# what CRIU asks leave for ---------------------------------------------------------------------------


def test_a_file_whose_name_is_gone_is_written_down_when_it_is_asked_for(
    container: Container,
) -> None:
    counting(container, f"echo x >/a; ln /a /b; exec 3<>/a; rm /a; {COUNT}")
    assert container.checkpoint(ok=False).stderr.startswith("anocir: checkpoint: criu: ")
    assert container.status == "running"
    pid = container.pid
    container.checkpoint("--link-remap")
    container.wait_exit(pid)
    container.restore()
    goes_on(container)


@pytest.mark.needs("compiler")
def test_locks_of_files_are_written_down_when_it_is_asked_for(container: Container) -> None:
    container.process["args"] = ["/bin/probe", "lock", "/lock", "/bin/sh", "-c", COUNT]
    container.launch()
    container.wait_file("count")
    assert "--file-locks" in container.checkpoint(ok=False).stderr
    assert container.status == "running"
    there_and_back(container, "--file-locks")
    goes_on(container)
    assert container.exec("probe", "lock", "/lock", "/bin/true").stdout == "EAGAIN\n"


@pytest.mark.needs("compiler")
def test_a_socket_of_the_host_is_connected_again_when_it_is_asked_for(container: Container) -> None:
    place = container.bundle.outside("run")
    container.bundle.add_mount(place, "bind", place, "bind")  # CRIU connects to the name it has
    container.bundle.drop_namespace("network")  # and knows the peers of this namespace
    script = "while :; do echo said >&9; usleep 50000; done & " + COUNT
    container.process["args"] = ["/bin/probe", "connect", place + "/log", "/bin/sh", "-c", script]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as log:
        log.bind(place + "/log")
        log.settimeout(60)
        container.launch()
        assert log.recv(100) == b"said\n"
        container.wait_file("count")
        assert container.checkpoint(ok=False).stderr.startswith("anocir: checkpoint: criu: ")
        there_and_back(container, "--ext-unix-sk")
        goes_on(container)
        log.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while log.recv(100):
                pass
        log.settimeout(60)
        assert log.recv(100) == b"said\n"


def test_connections_are_closed_at_restore(container: Container) -> None:
    listen = "sleep 1000 | busybox nc -lp 7777 & sleep 0.2; "
    counting(container, listen + "sleep 1000 | busybox nc 127.0.0.1 7777 & " + COUNT)

    def connected() -> bool:
        return ":1E61 01" in container.exec("cat", "/proc/net/tcp").stdout

    drive.until("it is connected", connected)
    pid = container.pid
    container.checkpoint("--tcp-close", "--tcp-skip-in-flight")
    container.wait_exit(pid)
    container.restore("--tcp-close")
    goes_on(container)
    assert not connected()


def test_pages_go_to_a_server(container: Container, helper: Callable[..., Any]) -> None:
    """Of CRIU's own, and come from where it has put them."""
    counting(container)
    elsewhere = container.bundle.outside("pages")
    port = free_port()
    where = ["--address", "127.0.0.1", "--port", str(port), "-D", elsewhere]
    server = helper(["criu", "page-server", *where])
    drive.until("it serves", lambda: listens(port))
    pid = container.pid
    container.checkpoint("--page-server", f"127.0.0.1:{port}", "--auto-dedup")
    container.wait_exit(pid)
    assert server.wait(60) == 0
    moved = [name for name in os.listdir(elsewhere) if name.startswith(("pages-", "pagemap-"))]
    assert moved
    assert not [name for name in os.listdir(container.images) if name.startswith("pages-")]
    for name in moved:
        os.rename(os.path.join(elsewhere, name), os.path.join(container.images, name))
    container.restore("--auto-dedup")
    goes_on(container)


def listens(port: int) -> bool:
    """Whether somebody listens at a port, without a connection that would count as one."""
    with open("/proc/net/tcp") as file:
        return f"0100007F:{port:04X} 00000000:0000 0A" in file.read()


# refusals -----------------------------------------------------------------------------------------


def test_only_what_runs_can_be_written_down(container: Container) -> None:
    container.bundle.sh("true")
    container.create()
    assert "cannot be checkpointed in created state" in container.checkpoint(ok=False).stderr
    container.start()
    container.wait()
    assert "cannot be checkpointed in stopped state" in container.checkpoint(ok=False).stderr
    done = container.runtime("checkpoint", "nobody", ok=False)
    assert "container does not exist" in done.stderr


def test_a_checkpoint_that_fails_leaves_it_running(container: Container) -> None:
    """A connection, which CRIU refuses without --tcp-established, shows when all is frozen."""
    listen = "sleep 1000 | busybox nc -lp 7777 & sleep 0.2; "
    counting(container, listen + "sleep 1000 | busybox nc 127.0.0.1 7777 & " + COUNT)
    drive.until(
        "it is connected", lambda: ":1E61 01" in container.exec("cat", "/proc/net/tcp").stdout
    )
    done = container.checkpoint(ok=False)
    assert done.stderr.startswith("anocir: checkpoint: criu: ")
    assert "dump.log" in done.stderr
    assert container.status == "running"
    goes_on(container)
    there_and_back(container, "--tcp-established")
    goes_on(container)


def test_an_id_that_is_taken(container: Container) -> None:
    counting(container)
    container.checkpoint("--leave-running")
    container.restore(ok=False)
    assert "already exists" in container.errors()
    goes_on(container)


def test_images_that_are_not_there(container: Container) -> None:
    container.restore(ok=False)
    assert "--image-path" in container.errors()
    os.mkdir(container.images)
    container.restore(ok=False)
    assert "descriptors.json: no such file" in container.errors()
    assert container.runtime("state", container.id, ok=None).status != 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--page-server", "nowhere"], "--page-server: must be ADDRESS:PORT"),
        (["--page-server", "1.2.3.4:70000"], "--page-server: must be ADDRESS:PORT"),
        (["--page-server", "::1:5"], "--page-server: must be ADDRESS:PORT"),
        (["--manage-cgroups-mode", "none"], "--manage-cgroups-mode: must be"),
        (["--empty-ns", "pid"], 'namespace "pid" is not supported'),
        (["--image-path"], "flag needs an argument"),
        (["--lazy-pages"], "--lazy-pages needs --page-server"),
        (["--lazy-pages", "--page-server", "127.0.0.1:1", "--status-fd", "77"], "--status-fd"),
    ],
)
def test_options_that_make_no_sense(container: Container, options: list[str], said: str) -> None:
    counting(container)
    there = container.bundle.path
    done = container.runtime("checkpoint", container.id, *options, ok=False, cwd=there)
    assert not os.path.exists(container.images)
    assert said in done.stderr
    assert len(done.stderr.strip().split("\n")) <= 2
    goes_on(container)


# what engines ask ---------------------------------------------------------------------------------


def test_the_help_says_whether_it_can_be_done(runtime: Runtime) -> None:
    """Podman and CRI-O take exit status 0 for "supported"."""
    for command in ("checkpoint", "restore"):
        assert "--image-path" in runtime.bare(command, "--help").stdout
        done = runtime.bare(command, "--help", ok=False, env={"PATH": "/nowhere"})
        assert re.search("criu is not installed.*\n.*package", done.stderr)
        assert "--image-path" in done.stdout  # who reads it wants to know them all the same


def test_podmans_probe_for_the_mount_context(runtime: Runtime) -> None:
    done = runtime.bare("restore", "--lsm-mount-context", ok=False)
    assert "flag needs an argument" in done.stderr


def test_features_tell_of_it(runtime: Runtime) -> None:
    def told(**environment: Any) -> Any:
        text = runtime.bare("features", **environment).stdout
        return json.loads(text)["annotations"]["org.opencontainers.runc.checkpoint.enabled"]

    assert told() == "true"
    assert told(env={"PATH": "/nowhere"}) == "false"
    assert "org.criu.config" in runtime.bare("features").stdout


def test_without_criu_the_container_goes_on(container: Container) -> None:
    counting(container)
    done = container.checkpoint(ok=False, env={"PATH": "/nowhere"})
    assert "criu is not installed" in done.stderr
    assert "the package criu" in done.stderr
    goes_on(container)
