"""Why it failed: each cause provoked, and the hint that names it; where nothing is found, no hint.

A row makes the trouble in the process that becomes the runtime (a mount namespace of its own, a lost capability, a filter), so
that the host never has it.
"""

from __future__ import annotations

import os
import platform
import re
import resource
import shutil
from functools import partial
from typing import Any, Callable

import pytest

from tests import blocked, drive, leftovers, machine
from tests.drive import Container

Under = Callable[[], Any]
Trouble = Callable[[Container], "Under | None"]

pytestmark = pytest.mark.runtime


@pytest.fixture(autouse=True)
def ours(container: Container) -> None:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")


# include/uapi/linux/capability.h
CAPS = {
    "CAP_SETGID": 6, "CAP_SETUID": 7, "CAP_SETPCAP": 8, "CAP_NET_ADMIN": 12, "CAP_SYS_CHROOT": 18,
    "CAP_SYS_ADMIN": 21, "CAP_SYS_RESOURCE": 24, "CAP_SYS_TIME": 25,
}  # fmt: skip
NUMBERS = {
    "mount": {"x86_64": 165, "aarch64": 40},
    "unshare": {"x86_64": 272, "aarch64": 97},
    "setns": {"x86_64": 308, "aarch64": 268},
    "pivot_root": {"x86_64": 155, "aarch64": 41},
    "set_mempolicy": {"x86_64": 238, "aarch64": 237},
}
PR_CAPBSET_DROP = 24
MS_RDONLY, MS_NOEXEC, MS_REMOUNT, MS_BIND = 1, 8, 32, 4096
NOTHING = "/dev/null"


def without(*names: str) -> Under:
    """Lose capabilities: what execve gives root is what the bounding set has."""

    def drop() -> None:
        for name in names:
            machine.check(machine.LIBC.prctl(PR_CAPBSET_DROP, CAPS[name], 0, 0, 0), "prctl")

    return drop


def behind(error: int, *calls: str) -> Under:
    """Be behind a seccomp filter."""
    numbers = [
        blocked.CALLS[call] if call in blocked.CALLS else NUMBERS[call][platform.machine()]
        for call in calls
    ]
    return blocked.before_exec(numbers, error)


def private() -> None:
    """Be in a mount namespace of which nobody is told."""
    machine.unshare(machine.CLONE_NEWNS)
    machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)


def bound(path: str, flags: int) -> Under:
    """Have a directory on a mount of its own with these flags."""

    def mount() -> None:
        private()
        machine.mount(path, path, "", MS_BIND)
        machine.mount(path, path, "", MS_BIND | MS_REMOUNT | flags)

    return mount


def mapped_root(*sysctls: str) -> Under:
    """Be root of a user namespace that has id 0 alone, with sysctls of its own."""

    def enter() -> None:
        machine.unshare(machine.CLONE_NEWUSER | machine.CLONE_NEWNS)
        for name, text in (("setgroups", "deny"), ("uid_map", "0 0 1"), ("gid_map", "0 0 1")):
            machine.write_file(f"/proc/self/{name}", text)
        for name in sysctls:
            machine.write_file(f"/proc/sys/user/{name}", "0")

    return enter


def both(first: Under, second: Under) -> Under:
    def do() -> None:
        first()
        second()

    return do


# the rows ------------------------------------------------------------------------------------------


def no_admin(container: Container) -> Under:
    return without("CAP_SYS_ADMIN")


def no_chroot(container: Container) -> Under:
    container.bundle.drop_namespace("mount")
    container.bundle.config["mounts"] = []
    for key in ("maskedPaths", "readonlyPaths"):
        container.linux.pop(key, None)
    return without("CAP_SYS_CHROOT")


def no_net_admin(container: Container) -> Under:
    return without("CAP_NET_ADMIN")


def no_setgid(container: Container) -> Under:
    container.process["user"] = {"uid": 5, "gid": 6, "additionalGids": [7]}
    return without("CAP_SETGID")


def no_setpcap(container: Container) -> Under:
    return without("CAP_SETPCAP")


def oom_score(container: Container) -> Under:
    container.process["oomScoreAdj"] = -900
    return without("CAP_SYS_RESOURCE")


def hard_limit(container: Container) -> Under:
    container.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 50, "hard": 5000}]
    return both(
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (400, 400)), without("CAP_SYS_RESOURCE")
    )


def filtered_mount(container: Container) -> Under:
    return behind(1, "mount", "open_tree", "fsopen", "move_mount", "mount_setattr")


def filtered_unshare(container: Container) -> Under:
    return behind(1, "unshare")


def filtered_setns(container: Container) -> Under:
    container.bundle.set_namespace("ipc", "/proc/self/ns/ipc")
    return behind(1, "setns")


def filtered_pivot_root(container: Container) -> Under:
    return behind(1, "pivot_root")


def filtered_mempolicy(container: Container) -> Under:
    container.linux["memoryPolicy"] = {"mode": "MPOL_DEFAULT"}
    return behind(38, "set_mempolicy")


def filtered_recursive(container: Container) -> Under:
    container.bundle.add_mount("/x", "bind", "/usr", "rbind", "rro")
    return behind(38, "mount_setattr")


def no_uts_namespaces(container: Container) -> Under:
    return mapped_root("max_uts_namespaces")


def no_user_namespaces(container: Container) -> Under:
    container.bundle.use_user_namespace(0, 1)
    return mapped_root("max_user_namespaces")


def groups_without_newgidmap(container: Container) -> Under:
    container.bundle.use_user_namespace(0, 1)
    container.process["user"]["additionalGids"] = [0]
    return mapped_root()


def the_hosts_network(container: Container) -> Under:
    place = container.bundle.outside("network", "")
    container.bundle.set_namespace("network", place)

    def bind() -> None:
        private()
        machine.mount("/proc/self/ns/net", place, "", MS_BIND)

    return both(bind, mapped_root())


def ids_of_others(container: Container) -> Under:
    container.bundle.use_user_namespace(5, 10)
    return mapped_root()


def covered_proc(container: Container) -> Under:
    container.bundle.use_user_namespace()

    def cover() -> None:
        private()
        machine.mount("/dev/zero", "/proc/version", "", MS_BIND)

    return cover


def a_queue_of_the_hosts(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.drop_namespace("ipc")


def a_closed_image(container: Container) -> None:
    os.chmod(container.bundle.rootfs, 0o700)
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/new/place", "tmpfs", "tmpfs")


def others_image(container: Container) -> None:
    container.bundle.make_directory("/opt", 0o755)
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/opt/new/place", "tmpfs", "tmpfs")


def an_image_that_nobody_here_has(container: Container) -> Under:
    os.chown(container.bundle.rootfs, 5, 5)
    container.bundle.add_mount("/new/place", "bind", "/usr", "bind")
    return mapped_root()


def a_closed_place(container: Container) -> None:
    container.bundle.make_directory("/secret/in", 0o755)
    os.chmod(container.bundle.rootfs + "/secret", 0o700)
    os.symlink("/secret", container.bundle.rootfs + "/link")
    container.bundle.use_user_namespace()


def a_bind_in_a_closed_place(container: Container) -> None:
    a_closed_place(container)
    container.bundle.add_mount("/link/in", "bind", "/usr", "bind")


def a_mask_in_a_closed_place(container: Container) -> None:
    a_closed_place(container)
    container.linux["maskedPaths"] = ["/secret/in"]


def a_path_in_a_closed_place(container: Container) -> None:
    a_closed_place(container)
    container.linux["readonlyPaths"] = ["/secret/in"]


def a_device_in_others_image(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.linux["devices"] = [{"path": "/lib2/x", "type": "c", "major": 1, "minor": 3}]


def a_cwd_in_others_image(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.process["cwd"] = "/work/deep"


def cgroups_in_others_image(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/cgroups", "cgroup", "cgroup")


def below_a_volume_of_others(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/tmp", "bind", container.bundle.outside("volume"), "bind")
    container.bundle.add_mount("/tmp/deeper", "tmpfs", "tmpfs")


def a_bind_without_what_is_below(container: Container) -> Under:
    place = container.bundle.outside("tree")
    os.makedirs(place + "/below")
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/tmp", "bind", place, "bind")

    def mount() -> None:
        private()
        machine.mount("tmpfs", place + "/below", "tmpfs", 0)

    return mount


def a_read_only_path_in_an_unbindable_mount(container: Container) -> None:
    container.bundle.add_mount("/tmp", "tmpfs", "tmpfs", "unbindable")
    container.linux["readonlyPaths"] = ["/tmp"]


def a_device_that_the_host_has_not(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.linux["devices"] = [{"path": "/dev/no/such", "type": "c", "major": 1, "minor": 5}]


def a_file_not_to_copy(container: Container) -> None:
    container.bundle.put("/full/a/file", "x", 0o600)
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/full", "tmpfs", "tmpfs", "tmpcopyup")


def a_program_behind_a_door(container: Container) -> None:
    a_closed_place(container)
    container.process["args"] = ["/secret/in/program"]


def a_read_only_image(container: Container) -> Under:
    container.bundle.add_mount("/new/place", "tmpfs", "tmpfs")
    return bound(container.bundle.rootfs, MS_RDONLY)


def below_a_read_only_mount(container: Container) -> None:
    container.bundle.add_mount("/mnt", "bind", container.bundle.outside("volume"), "bind", "ro")
    container.bundle.add_mount("/mnt/deeper", "tmpfs", "tmpfs")


def a_bad_option(container: Container) -> None:
    container.bundle.add_mount("/x", "tmpfs", "tmpfs", "sise=5m")


def a_bad_value(container: Container) -> None:
    container.bundle.add_mount("/x", "tmpfs", "tmpfs", "size=lots")


def no_such_file_system(container: Container) -> None:
    container.bundle.add_mount("/x", "nosuchfs", "none")


def a_closed_cwd(container: Container) -> None:
    container.bundle.make_directory("/home/other", 0o700)
    container.process["cwd"] = "/home/other"
    container.bundle.use_user_namespace()


def a_noexec_image(container: Container) -> Under:
    return bound(container.bundle.rootfs, MS_NOEXEC)


def a_noexec_mount(container: Container) -> None:
    shutil.copy(shutil.which("busybox") or "", container.bundle.outside("tools") + "/busybox")
    container.bundle.add_mount(
        "/tools", "bind", container.bundle.outside("tools"), "bind", "noexec"
    )
    container.process["args"] = ["/tools/busybox", "true"]


def a_group_of_nobody(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.bundle.add_mount("/dev/pts2", "devpts", "devpts", "newinstance", "gid=70000")


def others_program(container: Container) -> None:
    container.bundle.put("/bin/own", "#!/bin/sh\n", 0o700)
    container.process.update(args=["own"], user={"uid": 7, "gid": 7}, capabilities={})


def others_program_from_here(container: Container) -> None:
    others_program(container)
    container.process["args"] = ["bin/own"]


def a_group_without_a_map(container: Container) -> None:
    container.bundle.use_user_namespace()
    container.process["user"]["additionalGids"] = [5, 70000]


def a_closed_directory(container: Container) -> None:
    container.bundle.put("/opt/app/run", "#!/bin/sh\n", 0o755)
    os.chmod(container.bundle.rootfs + "/opt", 0o700)
    container.process.update(args=["/opt/app/run"], user={"uid": 7, "gid": 7}, capabilities={})


def others_fuse(container: Container) -> Under:
    place = container.bundle.outside("fuse")
    container.bundle.add_mount("/x", "bind", place + "/files", "bind")

    def mount() -> None:
        private()
        fd = os.open("/dev/fuse", os.O_RDWR)  # kept, and nobody answers: it is not asked
        machine.mount("fuse", place, "fuse", 0, f"fd={fd},rootmode=40000,user_id=7,group_id=7")

    return mount


def a_full_state(container: Container) -> Under:
    def mount() -> None:
        private()
        machine.mount("tmpfs", container.runtime.root, "tmpfs", 0, "nr_inodes=1,mode=700")

    return mount


def a_read_only_state(container: Container) -> Under:
    return bound(container.runtime.root, MS_RDONLY)


def no_such_processor(container: Container) -> None:
    container.linux["resources"]["cpu"] = {"cpus": "1000"}


CAUSES: list[tuple[Trouble, str, str]] = [
    (no_admin, "operation not permitted", "without CAP_SYS_ADMIN.*first without it in the bounding set is this process"),
    (no_chroot, "operation not permitted", "without CAP_SYS_CHROOT"),
    (no_net_admin, "operation not permitted", "without CAP_NET_ADMIN"),
    (no_setgid, "operation not permitted", "without CAP_SETGID"),
    (no_setpcap, "operation not permitted", "without CAP_SETPCAP"),
    (oom_score, "permission denied", "without CAP_SYS_RESOURCE"),
    (hard_limit, "operation not permitted", "CAP_SYS_RESOURCE"),
    (filtered_mount, "operation not permitted", r"seccomp filter around the runtime itself refuses mount\(2\)"),
    (filtered_unshare, "operation not permitted", r"seccomp filter .* refuses unshare\(2\)"),
    (filtered_setns, "operation not permitted", r"seccomp filter .* refuses setns\(2\)"),
    (filtered_pivot_root, "operation not permitted", r"seccomp filter .* refuses pivot_root\(2\)"),
    (filtered_mempolicy, "function not implemented", r"seccomp filter .* refuses set_mempolicy\(2\)"),
    (filtered_recursive, "rro needs Linux 5.12", "seccomp filter .* hides it from this kernel"),
    (no_uts_namespaces, "no space left on device", "user.max_uts_namespaces is 0"),
    (no_user_namespaces, "no space left on device", "user.max_user_namespaces is 0"),
    (groups_without_newgidmap, "operation not permitted", r"setgroups\(2\) is denied .* leave process.user.additionalGids out"),
    (the_hosts_network, "operation not permitted", "the network namespace .*/network belongs to a user namespace"),
    (ids_of_others, "operation not permitted", r"linux.uidMappings\[0\] wants 5-14 .* which has 0-0"),
    (covered_proc, "operation not permitted", r"the proc here is covered on /proc/version.*mount_too_revealing"),
    (a_queue_of_the_hosts, "operation not permitted", "it takes an ipc namespace .* else bind /dev/mqueue"),
    (a_closed_image, "permission denied", r"/rootfs \(mode 0700, of 0:0\) does not let user 100000 pass"),
    (others_image, "permission denied", r"/opt \(mode 0755, of 0:0\) does not let user 100000 make new there, who is root"),
    (an_image_that_nobody_here_has, "permission denied", r"/rootfs \(mode 0755, of 65534:65534\) .* user 0 make new there, who is root in this"),
    (a_bind_in_a_closed_place, "permission denied", r"/rootfs/secret \(mode 0700, of 0:0\) does not let user 100000 pass"),
    (a_mask_in_a_closed_place, "permission denied", r"/rootfs/secret \(mode 0700, of 0:0\) does not let user 100000 pass"),
    (a_path_in_a_closed_place, "permission denied", r"/rootfs/secret \(mode 0700, of 0:0\) does not let user 100000 pass"),
    (a_device_in_others_image, "permission denied", r"/rootfs \(mode 0755, of 0:0\) does not let user 100000 make lib2 there"),
    (a_cwd_in_others_image, "permission denied", r"/rootfs \(mode 0755, of 0:0\) does not let user 100000 make work there"),
    (cgroups_in_others_image, "permission denied", r"/rootfs \(mode 0755, of 0:0\) does not let user 100000 make cgroups there"),
    (below_a_volume_of_others, "permission denied", r"/volume \(mode 0755, of 0:0\) does not let user 100000 make deeper there"),
    (a_bind_without_what_is_below, "invalid argument", "/tree/below is mounted below it, .*: rbind takes both"),
    (a_read_only_path_in_an_unbindable_mount, "invalid argument", r"mounts\[6\] on /tmp is unbindable, and would have to be bound"),
    (a_device_that_the_host_has_not, "no such file or directory", "is bound from the host, which has no /dev/no/such"),
    (a_file_not_to_copy, "permission denied", r"/full/a/file \(mode 0600, of 0:0\) does not let user 100000 read it"),
    (a_program_behind_a_door, "permission denied", r"/secret \(mode 0700, of 0:0\) does not let user 100000 of"),
    (a_read_only_image, "read-only file system", "rootfs, which is mounted read-only, and has no /new/place"),
    (below_a_read_only_mount, "read-only file system", r"mounts\[6\] on /mnt is read-only, and has no /mnt/deeper yet"),
    (a_bad_option, "invalid argument", "the kernel says: tmpfs: Unknown parameter 'sise'"),
    (a_bad_value, "invalid argument", "the kernel says: tmpfs: Bad value for 'size'"),
    (no_such_file_system, "no such device", "this kernel has no file system nosuchfs"),
    (a_closed_cwd, "permission denied", r"/home/other \(mode 0700, of 0:0\) does not let user 100000 of"),
    (a_noexec_image, "permission denied", "root file system lies on .*rootfs, which is mounted noexec"),
    (a_noexec_mount, "permission denied", r"mounts\[6\] on /tools is noexec, and /tools/busybox lies there"),
    (a_group_of_nobody, "invalid argument", "its option gid=70000: linux.gidMappings map no gid 70000"),
    (others_program, "permission denied", r"/bin/own \(mode 0700, of 0:0\) may not be executed by user 7"),
    (others_program_from_here, "permission denied", r"^anocir: /bin/own \(mode 0700, of 0:0\) may not be"),
    (a_group_without_a_map, "setgroups: invalid argument", "a group is not mapped in the user namespace"),
    (a_closed_directory, "permission denied", r"/opt \(mode 0700, of 0:0\) does not let user 7"),
    (others_fuse, "permission denied", "/fuse is a FUSE file system of user 7.*allow_other"),
    (a_full_state, "no space left on device", "has no inode left of 1"),
    (a_read_only_state, "read-only file system", "root is mounted read-only: --root names another place"),
    (no_such_processor, "invalid argument|permission denied|numerical result out of range", "the parent cgroup .* has [0-9]"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("trouble", "text", "hint"), CAUSES, ids=[row[0].__name__ for row in CAUSES]
)
def test_the_cause_is_named(container: Container, trouble: Trouble, text: str, hint: str) -> None:
    if trouble is filtered_recursive and machine.missing("mount_setattr"):
        pytest.skip("[mount_setattr] this kernel has nothing that a filter could hide")
    under = trouble(container)
    streams = {"preexec_fn": under} if under else {}
    container.bundle.write()
    words = ("run", "--bundle", container.bundle.path, container.id)
    said = container.runtime(*words, ok=False, **streams).stderr
    lines = ["", *said.splitlines()]
    assert re.search(text, lines[-2]), said
    assert re.search(hint, lines[-1]), said


def test_a_root_file_system_mounted_noexec_is_told_by_create(container: Container) -> None:
    said = container.create(ok=False, preexec_fn=bound(container.bundle.rootfs, MS_NOEXEC)).stderr
    error, hint = said.splitlines()
    assert error == 'anocir: exec: "/bin/true": permission denied'
    assert "root file system lies on" in hint and hint.endswith("which is mounted noexec")


def test_the_process_that_lost_a_capability_is_named(container: Container) -> None:
    container.bundle.write()
    command = " ".join(
        container.runtime.command("create", "-b", container.bundle.path, container.id)
    )
    shell = ["sh", "-c", f"{command}; exit $?"]
    said = drive.call(shell, ok=False, preexec_fn=without("CAP_SYS_ADMIN")).stderr
    assert re.search(r"first without it in the bounding set is process \d+ \(sh\)", said), said


@pytest.mark.parametrize("room", [1, 2])
def test_a_cgroup_without_room_for_processes_is_named(container: Container, room: int) -> None:
    """The runtime's own: with room for one it cannot start init's interpreter, for two not init."""
    directory = machine.cgroup_directory("pids", container.cgroup + "-full")
    os.mkdir(directory)
    try:
        machine.write_file(directory + "/pids.max", str(room))
        join = lambda: machine.write_file(directory + "/cgroup.procs", "0")  # noqa: E731
        # In version 2 init is born in the container's cgroup, and never counted in this one.
        fits = room == 2 and not machine.missing("cgroup2-only")
        said = container.create(ok=fits, preexec_fn=join).stderr
    finally:
        drive.until("the cgroup is empty", partial(leftovers.rmdir, directory))
    assert (f"{directory}/pids.max is {room}" in said) == (not fits), said


def test_who_is_not_root_is_told_of_user_namespaces(container: Container, tmp_path: Any) -> None:
    for path in (container.bundle.path, os.path.dirname(container.bundle.path)):
        os.chmod(path, 0o755)

    def become() -> None:
        os.setsid()  # there is no terminal
        os.setgroups([])
        os.setgid(4321)
        os.setuid(4321)

    root = container.bundle.outside("state")
    os.chown(root, 4321, 4321)
    words = ("--root", root, "run", "--bundle", container.bundle.path, container.id)
    for terminal, told in ((False, "rootless"), (True, "without root")):
        container.process["terminal"] = terminal
        container.bundle.write()
        said = container.runtime.bare(*words, ok=False, preexec_fn=become).stderr
        assert f"{told} containers need a user namespace: anocir spec --rootless" in said


def test_where_nothing_is_found_nothing_is_said(container: Container) -> None:
    """A file in the place of a directory: no right, filter, limit or mount is in the way."""
    container.bundle.put("/x", "")
    container.bundle.add_mount("/x/y", "tmpfs", "tmpfs")
    assert len(container.create(ok=False).stderr.splitlines()) == 1
