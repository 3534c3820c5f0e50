"""Hosts that are unlike ours, each with a whole life of a container: run, create, start, state, exec, kill, delete.

The amounts at the end are small; HOSTS_SCALE=100 makes them what they are called (2,000 runs, 300 at once and so on).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable, Iterator

import pytest

from tests import blocked, bundle, drive, machine
from tests.drive import Container, Runtime

SCALE = int(os.environ.get("HOSTS_SCALE") or 1)


def life(container: Container, *options: str) -> None:
    """Go through all of it; `options` are the runtime's own."""

    def call(*words: str, ok: bool | None = True) -> drive.Result:
        return container.runtime(*options, *words, ok=ok)

    container.bundle.sh("echo >/dev/null && echo here")
    container.bundle.write()
    words = ("--bundle", container.bundle.path, container.id)
    assert call("run", *words).stdout == "here\n"
    container.bundle.sh("trap 'exit 7' TERM; echo up; while :; do usleep 5000; done")
    container.bundle.write()
    with open(container.stdout_path, "wb") as out:
        container.runtime(*options, "create", *words, stdout=out)
    state = json.loads(call("state", container.id).stdout)
    assert state["status"] == "created"
    call("start", container.id)
    drive.until("it is up", lambda: container.output() == "up\n")
    assert json.loads(call("state", container.id).stdout)["status"] == "running"
    assert call("exec", container.id, "cat", "/proc/1/comm").stdout == "sh\n"
    assert call("exec", container.id, "sh", "-c", "exit 5", ok=None).status == 5
    shown = call("ps", "--format", "json", container.id).stdout
    assert state["pid"] in json.loads(shown)
    call("kill", container.id, "TERM")
    assert container.wait_exit(state["pid"]) == 7
    container.wait()
    call("delete", container.id)


# root file systems --------------------------------------------------------------------------------


def run(*words: str) -> None:
    """Run a program of this machine."""
    done = subprocess.run(words, capture_output=True, check=False)
    assert done.returncode == 0, (words, done.stderr)


def image_of(kind: str, rootfs: str, path: str) -> None:
    """Make a file with a file system that has the contents of a directory."""
    if kind == "squashfs":
        run("mksquashfs", rootfs, path, "-quiet", "-no-progress", "-comp", "gzip")
        return
    if kind == "erofs":
        run("mkfs.erofs", "-Enoinline_data", path, rootfs)
        return
    with open(path, "wb") as file:
        file.truncate((320 if kind == "xfs" else 128) << 20)
    if kind == "btrfs":
        run("mkfs.btrfs", "-q", "--rootdir", rootfs, path)
    elif kind == "ext4":
        run("mkfs.ext4", "-q", "-F", "-d", rootfs, path)
    else:
        run("mkfs.xfs", "-q", path)


TOOLS = {
    "squashfs": "mksquashfs", "erofs": "mkfs.erofs", "btrfs": "mkfs.btrfs", "xfs": "mkfs.xfs",
    "ext4": "mkfs.ext4", "fuse": "fuse-overlayfs",
}  # fmt: skip
ROOTS = ("tmpfs", "overlay", "overlay on overlay", *TOOLS)


def mount_root(kind: str, container: Container, undo: contextlib.ExitStack) -> None:
    """Have the container's root on a file system of that kind."""
    rootfs, work = container.bundle.rootfs, container.bundle.outside("work")
    source = os.path.join(work, "source")
    os.rename(rootfs, source)
    os.mkdir(rootfs)

    def put(what: str, fstype: str, data: str = "", target: str = rootfs) -> None:
        machine.mount(what, target, fstype, 0, data)
        undo.callback(machine.umount, target, machine.MNT_DETACH)

    def layers(name: str) -> str:
        made = [os.path.join(work, name + part) for part in ("upper", "work")]
        for path in made:
            os.mkdir(path)
        return f"upperdir={made[0]},workdir={made[1]}"

    if kind in ("tmpfs", "xfs"):
        image = os.path.join(work, "image")
        if kind == "xfs":
            image_of(kind, source, image)
            run("mount", "-o", "loop", image, rootfs)
            undo.callback(machine.umount, rootfs)
        else:
            put("tmpfs", "tmpfs")
        run("cp", "-a", source + "/.", rootfs)
    elif kind == "fuse":
        options = f"lowerdir={source},{layers('f')}"
        run("fuse-overlayfs", "-o", options, rootfs)
        undo.callback(machine.umount, rootfs)
    elif kind.startswith("overlay"):
        # Layers of an overlay want a file system of their own here: /tmp may be an overlay itself.
        below = os.path.join(work, "below")
        os.mkdir(below)
        put("tmpfs", "tmpfs", target=below)
        work = below
        if kind == "overlay on overlay":
            first = os.path.join(below, "first")
            os.mkdir(first)
            put("overlay", "overlay", f"lowerdir={source},{layers('a')}", first)
            source = first
        put("overlay", "overlay", f"lowerdir={source},{layers('b')}")
    else:
        image = os.path.join(work, "image")
        image_of(kind, source, image)
        run("mount", "-o", "loop", image, rootfs)
        undo.callback(machine.umount, rootfs)


@pytest.mark.parametrize("kind", ROOTS)
def test_root_on(kind: str, container: Container) -> None:
    if kind in TOOLS:
        with open("/proc/filesystems") as file:
            known = f"\t{kind}\n" in file.read()
        if not shutil.which(TOOLS[kind]) or not known:
            pytest.skip(f"[{kind}] this machine has not {TOOLS[kind]} and {kind}")
        if kind != "fuse" and not os.path.exists("/dev/loop-control"):
            pytest.skip("[loop] this machine has not loop devices")
    with contextlib.ExitStack() as undo:
        mount_root(kind, container, undo)
        container.config["root"]["readonly"] = kind in ("squashfs", "erofs")
        life(container)
        if kind not in ("squashfs", "erofs"):
            assert container.run("echo text >/tmp/x; cat /tmp/x") == "text\n"


# what is mounted ----------------------------------------------------------------------------------


def beneath(change: Callable[[], object]) -> Callable[[], None]:
    """What each call of the runtime does first, in a mount namespace of its own."""

    def prepare() -> None:
        machine.unshare(machine.CLONE_NEWNS)
        machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
        change()

    return prepare


@pytest.fixture
def under(runtime: Runtime) -> Iterator[Callable[[Callable[[], object]], None]]:
    """Set what each call of the runtime does first."""

    def set_(action: Callable[[], object]) -> None:
        runtime.under = action  # type: ignore[assignment]

    yield set_
    runtime.under = None


@pytest.mark.parametrize("mode", ["1", "2", "4"])
def test_hidepid(container: Container, under: Any, mode: str) -> None:
    """Other users' processes are not in /proc; with 4 those that may not be traced are not."""
    under(beneath(lambda: machine.mount("proc", "/proc", "proc", 0, f"hidepid={mode}")))
    life(container)


@pytest.mark.needs("cgroup1")
def test_cgroup_v1_elsewhere(container: Container, under: Any, tmp_path: Any) -> None:
    place = str(tmp_path)

    def move() -> None:
        machine.mount("/sys/fs/cgroup", place, "", 4096 | machine.MS_REC)
        machine.umount("/sys/fs/cgroup", machine.MNT_DETACH)

    under(beneath(move))
    container.bundle.resources["pids"] = {"limit": 20}
    life(container)


def keep(*controllers: str) -> Callable[[], None]:
    """Unmount all hierarchies but those that have one of these."""

    def unmount() -> None:
        for hierarchy in machine.hierarchies():
            names = os.path.basename(hierarchy.mountpoint).split(",")
            if not set(names) & set(controllers):
                machine.umount(hierarchy.mountpoint, machine.MNT_DETACH)

    return unmount


@pytest.mark.needs("cgroup1")
@pytest.mark.parametrize(
    "controllers", [("devices",), ("devices", "pids", "freezer"), ("devices", "memory", "cpu")]
)
def test_some_controllers_only(
    container: Container, under: Any, controllers: tuple[str, ...]
) -> None:
    under(beneath(keep(*controllers)))
    life(container)
    container.bundle.resources["pids"] = {"limit": 20}
    if "pids" not in controllers:
        assert "pids" in container.refused()
        # it has no cgroup that could be looked for
        container.delete("--force")
    else:
        assert container.run("echo limited") == "limited\n"


@pytest.mark.needs("cgroup1")
def test_no_controller_of_devices(container: Container, under: Any) -> None:
    """Rules for devices that cannot be set are an error, and no open door."""
    under(beneath(keep("pids", "memory")))
    assert "devices" in container.refused()
    del container.bundle.resources["devices"]
    life(container)


def test_no_cgroups_at_all(container: Container, under: Any) -> None:
    """--cgroup-manager disabled, as in an unprivileged container; ps goes by the namespaces."""
    under(beneath(keep()))
    assert "--cgroup-manager=disabled" in container.refused()
    life(container, "--cgroup-manager", "disabled")
    container.bundle.sh("sleep 1000")
    container.runtime(
        "--cgroup-manager", "disabled", "run", "-d", "-b", container.bundle.path, container.id
    )
    counted = json.loads(container.runtime("events", "--stats", container.id).stdout)
    assert counted == {"type": "stats", "id": container.id, "data": {}}


def test_ps_without_cgroups_knows_all_processes(container: Container) -> None:
    """Those of a namespace below as well; and by the mount namespace where the pids are the host's."""
    for kind in ("pid", ""):
        if not kind:
            container.bundle.drop_namespace("pid")
        script = "sleep 100 & unshare -m -p -f sleep 100 & echo up >&2; wait"
        container.process["capabilities"]["bounding"].append("CAP_SYS_ADMIN")
        container.process["capabilities"]["permitted"].append("CAP_SYS_ADMIN")
        container.process["capabilities"]["effective"].append("CAP_SYS_ADMIN")
        if not kind:
            script = "sleep 100 & sleep 100 & sleep 100 & echo up >&2; wait"
        container.bundle.sh(script)
        container.bundle.write()
        disabled = ("--cgroup-manager", "disabled")
        words = ("--bundle", container.bundle.path, container.id)
        with open(container.stderr_path, "wb") as out:
            container.runtime(*disabled, "create", *words, stderr=out, stdout=out)
        container.start()

        def shown() -> list[str]:
            pids = json.loads(container.runtime("ps", "-f", "json", container.id).stdout)
            return sorted(machine.command_of(pid).split()[0] for pid in pids)

        wanted = ["/bin/sh", "sleep", "sleep", *(["unshare"] if kind else ["sleep"])]
        drive.until("all are shown", lambda expected=wanted: shown() == expected)
        assert str(container.pid) in container.runtime("ps", container.id).stdout
        pids = json.loads(container.runtime("ps", "-f", "json", container.id).stdout)
        container.kill("KILL")
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        container.wait()
        container.delete()


def test_the_callers_cgroup_is_gone(container: Container, under: Any) -> None:
    """A cgroup namespace whose root was removed: /proc/self/cgroup says `/..`."""
    names = [one.mountpoint for one in machine.hierarchies()]

    def leave() -> None:
        own = f"anocir-gone-{os.getpid()}"
        # Out of a namespace that is delegated (nsdelegate) only somebody outside may move us.
        ours, theirs = os.pipe()
        outside = os.fork()
        if outside == 0:
            status = 1
            try:
                os.close(theirs)
                os.read(ours, 1)
                for name in names:
                    if os.path.isdir(f"{name}/{own}"):
                        machine.write_file(f"{name}/cgroup.procs", str(os.getppid()))
                        os.rmdir(f"{name}/{own}")
                status = 0
            finally:
                os._exit(status)
        for name in names:
            with contextlib.suppress(OSError):  # a cpuset without processors, a delegated one
                os.mkdir(f"{name}/{own}")
                machine.write_file(f"{name}/{own}/cgroup.procs", "0")
        machine.unshare(machine.CLONE_NEWCGROUP)
        os.close(theirs)
        os.close(ours)
        assert os.waitpid(outside, 0)[1] == 0

    under(beneath(leave))
    with open("/proc/mounts") as table:
        rows = [line.split() for line in table]
    if not any(row[2] == "cgroup2" and "nsdelegate" in row[3].split(",") for row in rows):
        life(container)
        return
    said = container.refused()
    error, hint = said.splitlines()
    assert re.match("anocir: join cgroup /.*: no such file or directory$", error), said
    assert "outside of its cgroup namespace (/proc/self/cgroup is /..)" in hint, said
    assert "nsdelegate" in hint


def test_the_disk_of_the_standard_library_is_full(
    container: Container, under: Any, tmp_path: Any
) -> None:
    program = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = drive.call(["/usr/bin/python3", "-Ic", program]).stdout.strip()

    def fill() -> None:
        machine.mount("layers", str(tmp_path), "tmpfs", 0, "size=64k")
        for name in ("upper", "work"):
            os.mkdir(tmp_path / name)
        data = f"lowerdir={library},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
        machine.mount("overlay", library, "overlay", 0, data)
        with contextlib.suppress(OSError), open(tmp_path / "fill", "wb", buffering=0) as file:
            while file.write(bytes(4096)):
                pass

    under(beneath(fill))
    life(container)


@pytest.mark.needs("fuse-overlayfs")
def test_the_disk_of_the_standard_library_is_slow(
    container: Container, under: Any, tmp_path: Any
) -> None:
    """Its file system answers two milliseconds of fifty, and once not for two seconds: nothing gives up."""
    program = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = drive.call(["/usr/bin/python3", "-Ic", program]).stdout.strip()
    for name in ("upper", "work", "shown"):
        os.mkdir(tmp_path / name)
    layers = f"lowerdir={library},upperdir={tmp_path}/upper,workdir={tmp_path}/work"
    server = subprocess.Popen(["fuse-overlayfs", "-f", "-o", layers, f"{tmp_path}/shown"])
    over = threading.Event()

    def slow() -> None:
        server.send_signal(signal.SIGSTOP)
        pause = 2.0
        while not over.wait(pause):
            server.send_signal(signal.SIGCONT)
            over.wait(0.002)
            server.send_signal(signal.SIGSTOP)
            pause = 0.05
        server.send_signal(signal.SIGCONT)

    try:
        drive.until("it is mounted", lambda: os.path.exists(f"{tmp_path}/shown/os.py"))
        under(beneath(lambda: machine.mount(f"{tmp_path}/shown", library, "", 4096)))
        slowing = threading.Thread(target=slow)
        slowing.start()
        container.bundle.sh("true")
        container.bundle.write()
        words = ("run", "--bundle", container.bundle.path, container.id)
        assert container.runtime(*words).seconds > 1  # it was slow
        life(container)
    finally:
        over.set()
        slowing.join()
        machine.umount(f"{tmp_path}/shown", machine.MNT_DETACH)
        server.wait(10)


def test_a_locale_with_other_letters(container: Container, tmp_path: Any) -> None:
    """In Turkish the small letter of I is another one."""
    if (
        shutil.which("localedef") is None
        or subprocess.run(
            ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(tmp_path / "tr_TR.UTF-8")],
            capture_output=True,
            check=False,
        ).returncode
    ):
        pytest.skip("[locale] this machine cannot make the locale tr_TR.UTF-8")
    env = {**os.environ, "LOCPATH": str(tmp_path), "LC_ALL": "tr_TR.UTF-8"}
    container.bundle.sh("trap 'exit 3' INT; echo up; while :; do usleep 5000; done")
    container.create("--pid-file", str(tmp_path / "PID"), env=env)
    pid = container.pid
    container.runtime("start", container.id, env=env)
    drive.until("it is up", lambda: container.output() == "up\n")
    container.runtime("kill", container.id, "SIGINT", env=env)
    assert container.wait_exit(pid) == 3
    said = container.runtime("kill", container.id, "NOSIGNAL", ok=False, env=env).stderr
    assert "NOSIGNAL" in said


# rights and limits --------------------------------------------------------------------------------

PR_CAPBSET_READ, PR_CAPBSET_DROP = 23, 24
LIBC = ctypes.CDLL(None, use_errno=True)


class CapHeader(ctypes.Structure):
    """struct __user_cap_header_struct of linux/capability.h, version 3."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


def without(number: int) -> Callable[[], None]:
    """Have no such capability, and no way to get it."""

    def drop() -> None:
        machine.check(LIBC.prctl(PR_CAPBSET_DROP, number, 0, 0, 0), "prctl")
        header, sets = CapHeader(0x20080522, 0), (ctypes.c_uint32 * 6)()
        machine.check(LIBC.capget(ctypes.byref(header), sets), "capget")
        for at in range(3):
            sets[(number // 32) * 3 + at] &= ~(1 << (number % 32))
        machine.check(LIBC.capset(ctypes.byref(header), sets), "capset")

    return drop


NAMES = tuple(
    "chown dac_override dac_read_search fowner fsetid kill setgid setuid setpcap linux_immutable net_bind_service"
    " net_broadcast net_admin net_raw ipc_lock ipc_owner sys_module sys_rawio sys_chroot sys_ptrace sys_pacct"
    " sys_admin sys_boot sys_nice sys_resource sys_time sys_tty_config mknod lease audit_write audit_control"
    " setfcap mac_override mac_admin syslog wake_alarm block_suspend audit_read perfmon bpf"
    " checkpoint_restore".split()
)
# Without which there is no container of the default configuration, and where it is said.
NEEDED = {
    "setpcap": "process.capabilities.bounding: ",
    "net_admin": "linux.namespaces: network: lo: ",
    "sys_admin": ("linux.resources.devices: ", "linux.namespaces: network: "),  # of v1, of v2
}
HELD = [
    name for number, name in enumerate(NAMES) if LIBC.prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1
]


@pytest.mark.parametrize("name", HELD)
def test_without_a_capability(container: Container, under: Any, name: str) -> None:
    """A container works all the same, or one line says what is missing; nothing is left of it."""
    under(without(NAMES.index(name)))
    wanted = f"CAP_{name.upper()}"
    for each in container.process["capabilities"].values():
        if wanted in each:
            each.remove(wanted)
    said = container.try_run("echo here")
    if name in NEEDED:
        assert said.status != 0 and said.stdout == "", said.explain()
        error, hint = container.errors().splitlines()
        place = error.removeprefix("anocir: ")
        assert place.startswith(NEEDED[name]) and "not permitted" in error
        assert hint.startswith(f"anocir: this process is root without {wanted}")
        return
    assert (said.status, container.output()) == (0, "here\n"), container.errors()


LIMITS = {
    "descriptors": (resource.RLIMIT_NOFILE, 40),
    "a file of nothing": (resource.RLIMIT_FSIZE, 1 << 16),
    "no locked memory": (resource.RLIMIT_MEMLOCK, 0),
    "a small stack": (resource.RLIMIT_STACK, 256 << 10),
    "no core": (resource.RLIMIT_CORE, 0),
    "no message queues": (resource.RLIMIT_MSGQUEUE, 0),
    "no pending signals": (resource.RLIMIT_SIGPENDING, 0),
    "little address space": (resource.RLIMIT_AS, 64 << 20),
    "no data": (resource.RLIMIT_DATA, 24 << 20),
}


@pytest.mark.parametrize("name", LIMITS)
def test_a_low_limit(container: Container, under: Any, name: str) -> None:
    kind, value = LIMITS[name]
    under(lambda: resource.setrlimit(kind, (value, value)))
    life(container)


def test_all_signals_are_blocked_and_ignored(container: Container, under: Any) -> None:
    """What the caller blocks and ignores is neither the runtime's nor the container's trouble."""

    def block() -> None:
        for number in range(1, 65):
            if number not in (9, 19, 32, 33):
                signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))

    under(block)
    life(container)
    seen = container.run("grep -E 'SigBlk' /proc/self/status")
    assert seen.split() == ["SigBlk:", "0" * 16]


# arch/x86/entry/syscalls/syscall_64.tbl
REFUSED = {
    "signalfd": 289, "socketpair": 53, "mknod": 259, "prctl": 157, "poll": 7,
    "waitpid": 61, "sendmsg": 46, "ioctl": 16,
}  # fmt: skip


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="[x86_64] numbers of x86_64")
@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("error", [errno.EPERM, errno.ENOSYS])
def test_a_refused_call_without_an_object_is_named(
    container: Container, under: Any, name: str, error: int
) -> None:
    under(blocked.before_exec([REFUSED[name]], error))
    container.try_run("true", ok=False)
    said = container.errors().splitlines()[0]
    assert said == f"anocir: {name}(2): {os.strerror(error).lower()}"
    container.runtime.under = None
    container.delete("--force")


# many ---------------------------------------------------------------------------------------------


def test_many_runs_in_a_row_and_many_at_once(
    container: Container, new_container: Callable[[], Container]
) -> None:
    """Twenty in a row; eight at once with list, state and ps beside them."""
    for number in range(20 * SCALE):
        assert container.run(f"echo {number}") == f"{number}\n"
    many = [new_container() for _ in range(3 * SCALE + 5)]
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda each: each.launch("sleep 100"), many))
        looks = [pool.submit(each.runtime, "ps", "-f", "json", each.id) for each in many]
        looks += [pool.submit(each.runtime, "state", each.id) for each in many]
        listed = pool.submit(container.runtime, "list", "--quiet")
        assert {each.id for each in many} <= set(listed.result().stdout.split())
        for pid, ps, state in zip(made, looks, looks[len(many) :]):
            assert json.loads(ps.result().stdout) == [pid]
            assert json.loads(state.result().stdout)["pid"] == pid
        list(pool.map(lambda each: each.delete("--force"), many))


def test_many_processes_execs_and_bytes(container: Container) -> None:
    """Thirty processes in ps, eight exec at once, 8 MiB through one; all end with a kill."""
    count = 30 * SCALE
    script = f"i=0; while [ $i -lt {count} ]; do sleep 1000 & i=$((i+1)); done; echo up >&2; wait"
    container.launch(script)
    drive.until("all are there", lambda: "up" in container.errors())
    shown = json.loads(container.runtime("ps", "-f", "json", container.id).stdout)
    assert len(shown) == count + 1
    with ThreadPoolExecutor(8) as pool:
        several = [
            pool.submit(container.exec, "sh", "-c", f"echo {n}; exit {n % 100}", ok=None)
            for n in range(2 * SCALE + 6)
        ]
        for number, one in enumerate(several):
            assert (one.result().stdout, one.result().status) == (f"{number}\n", number % 100)
    size = SCALE * 10 << 20
    command = container.runtime.command("exec", container.id, "cat")
    script = f'head -c {size} /dev/urandom >"$0"; "$@" <"$0" | cmp - "$0"'
    path = os.path.join(container.bundle.path, "bytes")
    assert drive.call(["bash", "-c", script, path, *command]).status == 0
    container.delete("--force")
    assert not set(shown) & set(machine.processes_of("1000"))


# within another one -------------------------------------------------------------------------------


def test_within_a_container_of_ours(container: Container, tmp_path: Any) -> None:
    """anocir on both levels: the inner one has cgroups of its own below the outer one's."""
    inner = bundle.Bundle(str(tmp_path / "inner"), container.runtime.template, "1.2.0")
    inner.linux["cgroupsPath"] = "/inner"
    inner.sh("echo innermost; cat /proc/self/status | grep -c CapEff")
    inner.write()
    layers = container.bundle.outside("layers")
    machine.mount("layers", layers, "tmpfs", 0)
    try:
        for name in ("upper", "work"):
            os.mkdir(f"{layers}/{name}")
        data = f"lowerdir=/,upperdir={layers}/upper,workdir={layers}/work"
        machine.mount("overlay", container.bundle.rootfs, "overlay", 0, data)
        container.bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "rw")
        container.bundle.set_namespace("cgroup")
        container.bundle.add_mount("/run", "tmpfs", "tmpfs")
        container.bundle.add_mount("/tmp", "tmpfs", "tmpfs")
        container.bundle.add_mount("/tmp/inner", "bind", inner.path, "rbind")
        container.bundle.add_mount("/tmp/anocir", "bind", container.runtime.path, "bind", "ro")
        everything = [f"CAP_{name.upper()}" for name in HELD]
        for kind in ("bounding", "effective", "permitted"):
            container.process["capabilities"][kind] = everything
        container.bundle.resources["devices"] = [{"allow": True, "access": "rwm"}]
        words = "/tmp/anocir run --bundle /tmp/inner nested"
        container.process["args"] = [
            *("/bin/sh", "-c"),
            f"{words} && /tmp/anocir run --bundle /tmp/inner again && /tmp/anocir list -q"
            f" && /tmp/anocir --cgroup-manager disabled run --bundle /tmp/inner third",
        ]
        assert container.run() == "innermost\n1\n" * 3, container.errors()
    finally:
        machine.umount(container.bundle.rootfs, machine.MNT_DETACH)
        machine.umount(layers, machine.MNT_DETACH)
