"""Kernels from Linux 4.18 on, and container engines that are older than a call (tests/blocked.py).

What a container sees there must be what it sees here: its mounts with every flag, what it may write, its limits. The
table below is each call singly, what each kernel lacks, and all together; each with ENOSYS, as the kernel says it, and with
EPERM, as a filter around us does. What such a kernel really cannot do is refused in words that name the kernel it takes.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import Any, Iterator

import pytest

from tests import blocked, drive, machine
from tests.drive import Container

TOGETHER = ["4.18", "5.4", "5.10", "5.15", "424,428-437,439,441,442"]
MOUNTS = ["open_tree", "move_mount", "fsopen", "fsconfig", "fsmount", "openat2", "mount_setattr"]


def cells(singly: list[str]) -> pytest.MarkDecorator:
    """A parameter for each of these calls alone and for each group, with either error."""
    return pytest.mark.parametrize(
        ("calls", "error"),
        [
            pytest.param(calls, error, id=f"{calls}-{errno.errorcode[error]}")
            for calls in (*singly, *TOGETHER)
            for error in (errno.ENOSYS, errno.EPERM)
        ],
    )


LACK = cells(list(blocked.CALLS))
LACK_MOUNTS = cells(MOUNTS)
RELEASE = os.uname().release
OLD = machine.missing("mount_setattr")  # as a real kernel may lack it, too

Mount = "tuple[str, ...]"


@pytest.fixture
def lacking(runtime: drive.Runtime) -> Iterator[Any]:
    """Let each call of the runtime from here on lack some system calls."""

    def lack(calls: str, error: int) -> None:
        runtime.under = blocked.before_exec(blocked.numbers(calls), error)

    yield lack
    runtime.under = None


def lacks(calls: str, *names: str) -> bool:
    """Whether one of these calls is among those that fail."""
    return any(blocked.CALLS[name] in blocked.numbers(calls) for name in names)


def rich(container: Container) -> None:
    """Every kind of mount, of mask and of flag that needs nothing newer than Linux 4.18."""
    bundle = container.bundle
    container.config["root"]["readonly"] = True
    source = bundle.outside("volume")
    os.makedirs(source + "/sub", exist_ok=True)
    bundle.outside("volume/file", "text\n")
    one = bundle.outside("one-file", "alone\n")
    for path in "ro rbind plain shared data private".split():  # so that a second run finds the same
        bundle.make_directory("/" + path)
    bundle.make_directory("/filled", 0o711)
    bundle.put("/filled/inner", "copied\n")
    bundle.make_directory("/secret")
    bundle.put("/secret/key", "hidden\n")
    bundle.put("/etc/shadow", "hidden\n")
    bundle.add_mount("/ro", "bind", source, "bind", "ro", "nosuid", "nodev", "noexec")
    bundle.add_mount("/rbind", "bind", source, "rbind", "rw", "noatime", "rslave")
    bundle.add_mount("/plain", "bind", source, "rbind")
    bundle.add_mount("/etc/one", "bind", one, "bind", "ro")
    bundle.add_mount("/shared", "bind", source, "bind", "shared")
    bundle.add_mount("/data", "tmpfs", "data", "nosuid", "noexec", "size=1m", "mode=1770")
    bundle.add_mount("/data/below", "tmpfs", "below", "ro", "nodev", "size=64k")
    bundle.add_mount("/filled", "tmpfs", "filled", "tmpcopyup", "ro", "mode=711")
    bundle.add_mount("/private", "tmpfs", "private", "rprivate", "nodiratime")
    bundle.add_mount("/sys/fs/cgroup", "cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev")
    container.linux["maskedPaths"] = [
        "/proc/kcore", "/proc/keys", "/sys/firmware", "/secret", "/etc/shadow", "/bin/none",
    ]  # fmt: skip
    container.linux["readonlyPaths"] = ["/proc/bus", "/proc/fs", "/proc/sys", "/rbind/sub"]
    container.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 120}]
    for place in ("createContainer", "startContainer"):
        bundle.hook(place, "cat >/dev/null")


LOOK = """
cat /proc/self/mountinfo; echo ==
for p in /new /ro/x /rbind/x /rbind/sub/x /plain/x /etc/one /shared/x /data/x /data/below/x /filled/x /private/x \
    /proc/sys/kernel/domainname /secret/x /etc/shadow /sys/fs/cgroup/x; do
    if echo text 2>/dev/null >>$p; then echo "$p writable"; else echo "$p not"; fi
done
cat /filled/inner /etc/one /secret/key /etc/shadow 2>/dev/null
stat -c '%n %a %u:%g %F' /data /filled /private /secret /etc/shadow /dev/null /dev/tty
cat /proc/sys/net/ipv4/ip_forward
ls -l /proc/self/fd | grep -c /
ulimit -n
"""


def seen(container: Container, text: str) -> tuple[list[Mount], list[str]]:
    """What LOOK has printed, without what is another one in every container."""
    table, _, rest = text.partition("==\n")
    groups: dict[str, str] = {}
    rows: list[Mount] = []
    for line in table.splitlines():
        words = line.split()
        dash = words.index("-")
        fields = []
        for word in words[6:dash]:
            name, _, number = word.partition(":")
            fields.append(f"{name}:{groups.setdefault(number, str(len(groups)))}")
        root = words[3].replace(container.id, "ID").replace(container.bundle.path, "BUNDLE")
        # mount(2) makes the file system read-only together with its mount, as runc does
        kept = [word for word in words[-1].split(",") if word not in ("ro", "rw")]
        rows.append((words[4], root, words[5], *fields, *words[dash + 1 : -1], ",".join(kept)))
    return rows, rest.splitlines()


def cycle(container: Container, script: str) -> tuple[list[Mount], list[str]]:
    """run in one container; create, start, state, exec, kill, delete in the same."""
    first = seen(container, container.run(script))
    container.bundle.sh("trap 'exit 7' TERM; echo up >&2; while :; do sleep 0.05; done")
    container.create()
    assert container.status == "created"
    pid = container.pid
    container.start()
    drive.until("it is up", lambda: "up" in container.errors())
    state = container.state()
    assert (state["status"], state["pid"]) == ("running", pid)
    assert seen(container, container.exec("/bin/sh", "-c", script).stdout)[0] == first[0]
    assert container.exec("/bin/sh", "-c", "exit 5", ok=None).status == 5
    assert str(pid) in container.runtime("ps", container.id).stdout
    container.kill("TERM")
    assert container.wait_exit(pid) == 7
    container.wait()
    assert container.kill("TERM", ok=False).stderr.rstrip().endswith("container not running")
    container.delete()
    assert container.runtime("state", container.id, ok=None).status != 0
    return first


@pytest.fixture(scope="module")
def here() -> dict[str, Any]:
    """What the containers see where nothing is lacking, by the name of the configuration."""
    return {}


MOUNTS_ONLY = "cat /proc/self/mountinfo; echo ==; ls -R /m /t; ls /sys/fs/cgroup; stat -c %u:%g /m"


def same(
    here: dict[str, Any], name: str, container: Container, lacking: Any, cell: Any, script: str
) -> None:
    """Go the whole cycle; the first time, before anything is lacking, keep what is seen."""
    if name not in here:
        here[name] = seen(container, container.run(script, ok=None))
    lacking(*cell)
    rows, rest = seen(container, container.run(script, ok=None))
    assert rows
    differences = [pair for pair in zip(rows, here[name][0]) if pair[0] != pair[1]]
    assert not differences and len(rows) == len(here[name][0])
    assert rest == here[name][1]


def test_what_is_seen_is_what_was_asked_for(container: Container) -> None:
    """What the cells of the table are compared with, and what a real kernel is held against (tests/vm)."""
    rich(container)
    rows, rest = cycle(container, LOOK)
    flags = {row[0]: set(row[2].split(",")) for row in rows}
    for point, wanted in {
        "/": "ro", "/ro": "ro nosuid nodev noexec", "/rbind": "rw noatime", "/rbind/sub": "ro noatime",
        "/etc/one": "ro", "/data": "rw nosuid noexec", "/data/below": "ro nodev", "/filled": "ro",
        "/private": "rw nodiratime", "/sys": "ro nosuid nodev noexec", "/proc/bus": "ro",
        "/proc/sys": "ro", "/secret": "ro", "/sys/fs/cgroup": "ro nosuid nodev noexec",
    }.items():  # fmt: skip
        assert set(wanted.split()) <= flags[point], (point, flags[point])
    # A bind mount that names no flag has those of its source, such as the machine's /tmp.
    of_source = os.statvfs(container.bundle.path).f_flag
    bits = {
        "ro": os.ST_RDONLY,
        "nosuid": os.ST_NOSUID,
        "nodev": os.ST_NODEV,
        "noexec": os.ST_NOEXEC,
    }
    assert set(bits) & flags["/plain"] == {name for name, bit in bits.items() if of_source & bit}
    writable = [line.split()[0] for line in rest if line.endswith(" writable")]
    assert writable == ["/rbind/x", "/plain/x", "/shared/x", "/data/x", "/private/x", "/etc/shadow"]
    assert rest[rest.index("copied") :][:2] == ["copied", "alone"]
    assert "hidden" not in rest
    assert {"/filled 711 0:0 directory", "/data 1770 0:0 directory"} <= set(rest)
    assert rest[-1] == "100"


@LACK
def test_a_container_is_the_same(container, lacking, here, calls: str, error: int) -> None:
    rich(container)
    same(here, "rich", container, lacking, (calls, error), LOOK)


@LACK_MOUNTS
def test_cgroup_mounts_are_the_same(new_container, lacking, here, calls: str, error: int) -> None:
    for kind in ("cgroup", "cgroup2"):
        for own in (True, False):
            container = new_container()
            lacking("", error)
            if own:
                container.bundle.set_namespace("cgroup")
            options = ("ro", "nosuid", "nodev", "noexec")
            container.bundle.add_mount("/sys/fs/cgroup", kind, kind, *options)
            same(here, f"{kind} {own}", container, lacking, (calls, error), MOUNTS_ONLY)


@LACK_MOUNTS
@pytest.mark.needs("user-namespace")
def test_a_user_namespace_is_the_same(container, lacking, here, calls: str, error: int) -> None:
    rich(container)
    container.bundle.drop_mount("/sys/fs/cgroup")
    container.bundle.use_user_namespace()
    for entry in container.config["mounts"]:  # locked there: the host's mount has another one
        entry["options"] = [o for o in entry.get("options") or [] if o != "noatime"]
    for path in ("", "rootfs", "volume"):
        os.chmod(os.path.join(container.bundle.path, path), 0o777)
    for path in "ro rbind plain shared data private filled".split():
        container.bundle.make_directory("/" + path, 0o777)
    container.bundle.put("/etc/one", "")
    container.bundle.make_directory("/data/below", 0o777)
    same(here, "user", container, lacking, (calls, error), LOOK)


RECURSIVE = [["rro", "rnosuid"], ["ro", "rnodev", "rnoexec"], ["rrw"], ["rnoatime"]]


@LACK_MOUNTS
def test_recursive_attributes_work_or_name_the_kernel(
    new_container, lacking, here, calls: str, error: int
) -> None:
    for options in RECURSIVE:
        container = new_container()
        lacking("", error)
        source = container.bundle.outside("tree")
        container.bundle.add_mount("/m", "bind", source, "rbind", *options)
        # both times: what the first container makes there lends the second one's tmpfs its mode
        container.bundle.make_directory("/t")
        container.bundle.add_mount("/t", "tmpfs", "tmpfs", *options)
        if lacks(calls, "mount_setattr") or OLD:
            lacking(calls, error)
            said = container.refused()
            assert said.startswith("anocir: mounts[")
            assert f"needs Linux 5.12, this is {RELEASE}" in said, said
        else:
            same(here, " ".join(options), container, lacking, (calls, error), MOUNTS_ONLY)


@LACK_MOUNTS
@pytest.mark.needs("user-namespace")
def test_id_mapped_mounts_work_or_name_the_kernel(
    container, lacking, here, calls: str, error: int
) -> None:
    entry = container.bundle.add_mount(
        "/m", "bind", container.bundle.outside("v"), "rbind", "idmap"
    )
    for key in ("uidMappings", "gidMappings"):
        entry[key] = [{"containerID": 0, "hostID": 1000, "size": 10}]
    if lacks(calls, "mount_setattr", "open_tree", "move_mount") or OLD:
        lacking(calls, error)
        said = container.refused()
        assert said.startswith("anocir: mounts[")
        assert f"needs Linux 5.12, this is {RELEASE}" in said, said
        return
    same(here, "idmap", container, lacking, (calls, error), MOUNTS_ONLY)


@pytest.mark.parametrize("place", ["createRuntime", "createContainer", "startContainer"])
def test_a_hook_is_waited_for_without_pidfds(container, lacking, place: str) -> None:
    """Its end, its failure, and the end of its time; inside there is no /proc that knows it."""
    hook = container.bundle.hook(place, "cat >/dev/null; echo told >&2; exit 3")
    lacking("pidfd_open", errno.ENOSYS)
    said = container.cannot_run("true")
    assert f"error running {place} hook #0: exit status 3, stdout: , stderr: told" in said
    container.delete("--force", ok=None)
    hook.update(args=["sh", "-c", "sleep 100"], timeout=1)
    said = container.cannot_run("true")
    assert f"error running {place} hook #0: hook ran past specified timeout of 1.0s" in said


def test_newer_commands_work_or_name_the_kernel(container, lacking) -> None:
    """exec --tools and mounts add take detached mounts, a recorded profile takes pidfd_getfd."""
    tools, volume = container.bundle.outside("tools"), container.bundle.outside("volume")
    path = container.bundle.outside(
        "added",
        f'[{{"destination": "/new", "type": "bind", "source": "{volume}", "options": ["ro"]}},'
        ' {"destination": "/more", "type": "tmpfs"}]',
    )
    container.launch("exec sleep 1000")
    needs = f"needs Linux 5.12, this is {RELEASE}"
    mounts = [name for name in MOUNTS if name != "openat2"]
    for calls in (*mounts, "openat2", "pidfd_open", *TOGETHER):
        for error in (errno.ENOSYS, errno.EPERM):
            lacking(calls, error)
            fine = not lacks(calls, *mounts) and not OLD
            done = container.exec("true", options=("--tools", tools), ok=None)
            assert (done.status == 0) == fine, done.explain()
            assert fine or f"exec failed: --tools {needs}\n" in done.stderr, done.stderr
            done = container.runtime("mounts", "add", container.id, path, ok=None)
            assert (done.status == 0) == fine, done.explain()
            assert fine or done.stderr.startswith(f"anocir: mounts add {needs}\n"), done.stderr
            if fine:
                container.runtime("mounts", "remove", container.id, path)


@pytest.mark.needs("user-namespace")
def test_a_device_for_a_user_namespace_names_the_kernel(container, lacking) -> None:
    """It is a bind mount there; nothing of a refused one stays."""
    container.bundle.use_user_namespace()
    container.launch("exec sleep 1000")
    words = ("update", "--device-add", "/dev/zero:/dev/more:r", container.id)
    for calls in ("mount_setattr", "open_tree", "4.18"):
        for error in (errno.ENOSYS, errno.EPERM):
            lacking(calls, error)
            said = container.runtime(*words, ok=False).stderr
            wanted = f"anocir: --device-add in a user namespace needs Linux 5.12, this is {RELEASE}"
            assert said.splitlines()[0] == wanted, said
            assert container.exec("test", "-e", "/dev/more", ok=None).status == 1
    lacking("", 0)
    assert "devices" not in container.state()


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.EPERM])
@pytest.mark.parametrize("calls", ["pidfd_open", "pidfd_getfd", "4.18"])
def test_listeners_name_the_kernel(container, lacking, calls: str, error: int) -> None:
    lacking(calls, error)
    needs = f"needs Linux 5.6, this is {RELEASE}\n"
    path = os.path.join(container.bundle.path, "profile")
    done = container.try_run("true", "--record-seccomp", path)
    assert (done.status, container.errors()) == (1, f"anocir: --record-seccomp {needs}")
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        agent.listen(1)
        container.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "listenerPath": path,
            "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_NOTIFY"}],
        }
        said = container.refused()
    assert f"anocir: linux.seccomp: SCMP_ACT_NOTIFY {needs}" in said
