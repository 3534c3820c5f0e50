"""What this machine can do, and what is on it: gates, cgroup hierarchies, mounts, processes.

A gate is a probe that tries the thing in a child process; nothing is concluded from uid or versions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import shutil
import struct
import subprocess
import tempfile
import time
from functools import partial
from typing import Callable

LIBC = ctypes.CDLL(None, use_errno=True)

# linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_NEWTIME = 0x00000080
# linux/mount.h
MS_BIND = 0x1000
MS_REC = 0x4000
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
MNT_DETACH = 2
# linux/prctl.h
PR_SET_CHILD_SUBREAPER = 36


def check(result: int, what: str) -> int:
    """Turn the -1 of a libc call into an OSError."""
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result


def unshare(flags: int) -> None:
    """unshare(2); Python has it only since 3.12."""
    check(LIBC.unshare(flags), "unshare")


def mount(source: str, target: str, fstype: str, flags: int, data: str = "") -> None:
    """mount(2)."""
    encoded = [os.fsencode(word) for word in (source, target, fstype)]
    args = (*encoded, ctypes.c_ulong(flags), os.fsencode(data) or None)
    check(LIBC.mount(*args), f"mount {source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2)."""
    check(LIBC.umount2(os.fsencode(target), flags), f"umount {target}")


def become_subreaper() -> None:
    """Let orphans of the runtime become children of this process, as a container manager does."""
    check(LIBC.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "prctl(PR_SET_CHILD_SUBREAPER)")


def in_child(action: Callable[[], object]) -> bool:
    """Run the action in a forked child; whether it came to its end without an exception."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except BaseException:
            status = 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# cgroups ---------------------------------------------------------------------------------------


class Hierarchy:
    """One mounted cgroup hierarchy: its mount point and its controllers (v1) or none (v2)."""

    __slots__ = ("controllers", "mountpoint", "version")

    def __init__(self, version: int, mountpoint: str, controllers: list[str]) -> None:
        self.version = version
        self.mountpoint = mountpoint
        self.controllers = controllers


def hierarchies() -> list[Hierarchy]:
    """Every cgroup hierarchy that is to be seen in this mount namespace (not one below another mount)."""
    found = []
    top = {row[0][4]: row for row in mountinfo()}
    for fields, fstype, options in top.values():
        if fstype == "cgroup2":
            found.append(Hierarchy(2, fields[4], []))
        elif fstype == "cgroup":
            words = [word for word in options.split(",") if word not in ("rw", "ro", "xattr")]
            found.append(Hierarchy(1, fields[4], words))
    return found


def cgroups_in(directory: str) -> list[str]:
    """The names of the cgroups right below one. Its directory has two links, and one more for each of them: where there
    are none the forty files need not be read."""  # noqa: D209
    try:
        if os.lstat(directory).st_nlink == 2:
            return []
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []


def v1_mountpoint(controller: str) -> str:
    """Where a version 1 controller is mounted, or an empty string."""
    for hierarchy in hierarchies():
        if hierarchy.version == 1 and controller in hierarchy.controllers:
            return hierarchy.mountpoint
    return ""


def v2_mountpoint(controller: str = "") -> str:
    """Where version 2 is mounted, if it offers the controller, else an empty string."""
    for hierarchy in hierarchies():
        if hierarchy.version == 2:
            if not controller:
                return hierarchy.mountpoint
            with open(os.path.join(hierarchy.mountpoint, "cgroup.controllers")) as file:
                if controller in file.read().split():
                    return hierarchy.mountpoint
    return ""


def cgroup_directory(controller: str, path: str) -> str:
    """The directory of a cgroup path in the hierarchy that has the controller."""
    mountpoint = v1_mountpoint(controller) or v2_mountpoint(controller)
    assert mountpoint, f"no cgroup hierarchy has {controller}"
    return mountpoint + "/" + path.lstrip("/")


def make_cgroup_parent(path: str) -> None:
    """Make a parent in every hierarchy in which a container can be made."""
    for hierarchy in hierarchies():
        directory = hierarchy.mountpoint + path
        if hierarchy.version == 2:
            delegate_controllers(hierarchy.mountpoint)
        os.makedirs(directory, exist_ok=True)
        if hierarchy.version == 2:
            delegate_controllers(directory)
        elif "cpuset" in hierarchy.controllers:
            for name in ("cpuset.cpus", "cpuset.mems"):
                with open(hierarchy.mountpoint + "/" + name) as file:
                    write_file(os.path.join(directory, name), file.read().strip())
        elif os.path.exists(directory + "/cpu.rt_runtime_us"):
            write_file(directory + "/cpu.rt_runtime_us", "50000")


def realtime_budget() -> dict[str, int]:
    """The cpu resources without which the kernel lets nobody in a cgroup be a realtime process."""
    mountpoint = v1_mountpoint("cpu")
    if mountpoint and os.path.exists(mountpoint + "/cpu.rt_runtime_us"):
        return {"realtimeRuntime": 10000, "realtimePeriod": 1000000}
    return {}


def delegate_controllers(directory: str) -> None:
    """Give every controller of a version 2 cgroup to its children, as far as the kernel lets us."""
    with open(os.path.join(directory, "cgroup.controllers")) as file:
        for controller in file.read().split():
            try:
                write_file(os.path.join(directory, "cgroup.subtree_control"), "+" + controller)
            except OSError:
                continue


def write_file(path: str, text: str) -> None:
    """One write to a kernel file; no O_CREAT, a missing file is an error."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


# mounts and processes --------------------------------------------------------------------------


def mountinfo(pid: str = "self") -> list[tuple[list[str], str, str]]:
    """The mounts of a process: (fields before the dash, file system type, super block options)."""
    rows = []
    with open(f"/proc/{pid}/mountinfo") as file:
        for line in file:
            words = line.split()
            dash = words.index("-")
            rows.append((words[:dash], words[dash + 1], words[dash + 3]))
    return rows


def children() -> set[int]:
    """The children of this process, adopted orphans included."""
    pids: set[int] = set()
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children") as file:
                pids.update(int(word) for word in file.read().split())
        except FileNotFoundError:
            continue
    return pids


def process_status(pid: int) -> dict[str, str]:
    """/proc/PID/status as a dictionary; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as file:
            return {key: value.strip() for key, _, value in (line.partition(":") for line in file)}
    except (FileNotFoundError, ProcessLookupError):
        return {}


def command_of(pid: int) -> str:
    """What a process is, for messages."""
    try:
        with open(f"/proc/{pid}/cmdline") as file:
            line = file.read().replace("\0", " ").strip()
        return line or process_status(pid).get("Name", "")
    except (FileNotFoundError, ProcessLookupError):
        return "gone"


def clocks() -> tuple[int, int]:
    """CLOCK_MONOTONIC and CLOCK_BOOTTIME in whole seconds, as `probe clocks` says them."""
    return int(time.clock_gettime(time.CLOCK_MONOTONIC)), int(
        time.clock_gettime(time.CLOCK_BOOTTIME)
    )


def processes_of(word: str) -> list[int]:
    """The processes that have a word among their arguments."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
            except OSError:
                continue
            if word.encode() in words:
                found.append(int(entry))
    return found


# gates -----------------------------------------------------------------------------------------


def _root() -> str:
    ok = in_child(lambda: unshare(CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWNET))
    return "" if ok else "the right to make namespaces (run as root)"


def _cgroup1(controller: str) -> str:
    return "" if v1_mountpoint(controller) else f"a mounted cgroup v1 hierarchy with {controller}"


def _cgroup2(controller: str) -> str:
    return "" if v2_mountpoint(controller) else f"cgroup v2 with the controller {controller}"


def _cgroup_any(controller: str) -> str:
    alone = _cgroup2_only() == ""  # beside version 1 hierarchies the runtimes use those alone
    found = v1_mountpoint(controller) or (alone and v2_mountpoint(controller))
    return "" if found else f"a cgroup hierarchy with {controller}"


def _cgroup2_only() -> str:
    only = all(hierarchy.version == 2 for hierarchy in hierarchies())
    return "" if only and v2_mountpoint() else "a host with cgroup v2 only"


def _cgroup1_host() -> str:
    found = any(hierarchy.version == 1 for hierarchy in hierarchies())
    return "" if found else "a host with cgroup v1 hierarchies"


def _sys_resource() -> str:
    def raise_a_limit() -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
        if hard == resource.RLIM_INFINITY:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 4096))
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (4096, 8192))
        else:
            resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard + 4096))

    return "" if in_child(raise_a_limit) else "the right to raise hard limits (CAP_SYS_RESOURCE)"


def _namespace(flag: int, name: str) -> str:
    return "" if in_child(lambda: unshare(flag)) else f"{name} namespaces"


def _overlay() -> str:
    def mount_one() -> None:
        unshare(CLONE_NEWNS)
        mount("none", "/", "", MS_REC | MS_PRIVATE)
        mount("tmpfs", "/tmp", "tmpfs", 0)
        for name in ("lower", "upper", "work", "merged"):
            os.mkdir("/tmp/" + name)
        layers = "lowerdir=/tmp/lower,upperdir=/tmp/upper,workdir=/tmp/work"
        mount("overlay", "/tmp/merged", "overlay", 0, layers)

    return "" if in_child(mount_one) else "overlay mounts"


def _apparmor() -> str:
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return "" if file.read().strip() == "Y" else "AppArmor"
    except OSError:
        return "AppArmor"


def _selinux() -> str:
    return "" if os.path.exists("/sys/fs/selinux/enforce") else "SELinux"


def _negated(probe: Callable[[], str], name: str) -> str:
    return f"a host without {name}" if probe() == "" else ""


def _mount_setattr() -> str:
    """Ask mount_setattr(2), 442 on every architecture, for nothing: ENOSYS before Linux 5.12."""
    LIBC.syscall(442, -1, b"", 0, None, 0)
    there = ctypes.get_errno() != errno.ENOSYS
    return "" if there else "mount_setattr(2), which Linux 5.12 has"


def _cgroup_file(controller: str, old: str, new: str, since: str) -> str:
    """Make a cgroup and look whether it has the controller's file: in version 1, or 2 below the top."""
    mountpoint, name = v1_mountpoint(controller), old
    if not mountpoint:
        mountpoint, name = v2_mountpoint(controller), new
        if not mountpoint:
            return f"the {controller} controller"
        delegate_controllers(mountpoint)
    directory = f"{mountpoint}/anocir-gate-{os.getpid()}"
    os.mkdir(directory)
    there = os.path.exists(f"{directory}/{name}")
    os.rmdir(directory)
    return "" if there else f"{name}, which Linux {since} has"


def _seccomp(action: Callable[[Callable[..., int]], object], what: str) -> str:
    """Try something with seccomp(2) in a child that has no other filter yet."""
    number = {"x86_64": 317, "aarch64": 277}[os.uname().machine]

    def call(operation: int, flags: int, data: bytes | None) -> int:
        return int(LIBC.syscall(number, operation, flags, data))

    return "" if in_child(lambda: action(call)) else what


def _addfd_send(call: Callable[..., int]) -> None:
    """With the flag SECCOMP_ADDFD_FLAG_SEND (2) an unknown descriptor is what is wrong, else the flag."""
    allow = ctypes.create_string_buffer(struct.pack("=HBBI", 6, 0, 0, 0x7FFF0000), 8)
    filters = struct.pack("@HP", 1, ctypes.addressof(allow))
    listener = check(call(1, 1 << 3, filters), "seccomp")  # SET_MODE_FILTER, NEW_LISTENER
    wrong = struct.pack("=QIIII", 0, 2, 0xFFFFFFFF, 0, 0)
    LIBC.ioctl(listener, 0x40182103, wrong)
    assert ctypes.get_errno() == errno.EBADF


def _wait_killable(call: Callable[..., int]) -> None:
    """With flags that it knows (NEW_LISTENER, WAIT_KILLABLE_RECV) the kernel gets to the filter, at NULL."""
    call(1, 1 << 3 | 1 << 5, None)
    assert ctypes.get_errno() == errno.EFAULT


def _preferred_many() -> str:
    """Ask set_mempolicy(2) for MPOL_PREFERRED_MANY (5) of node 0."""
    number = {"x86_64": 238, "aarch64": 237}[os.uname().machine]
    nodes = ctypes.c_ulong(1)
    ask = lambda: check(LIBC.syscall(number, 5, ctypes.byref(nodes), 64), "set_mempolicy")  # noqa: E731
    return "" if in_child(ask) else "MPOL_PREFERRED_MANY, which Linux 5.15 has"


def _two_cpus() -> str:
    return "" if len(os.sched_getaffinity(0)) > 1 else "two processors"


def _compiler() -> str:
    with tempfile.TemporaryDirectory() as directory:
        source = os.path.join(directory, "a.c")
        with open(source, "w") as file:
            file.write("int main(void) { return 0; }\n")
        for compiler in ("cc", "gcc", "clang", "musl-gcc"):
            if shutil.which(compiler):
                command = [compiler, "-static", "-o", os.path.join(directory, "a"), source]
                done = subprocess.run(command, capture_output=True, check=False)
                if done.returncode == 0:
                    return ""
    return "a C compiler that links statically"


def _fuse(program: str = "") -> str:
    """Open the device, which needs its module, its node and the right; `program` is a server."""
    if program and not shutil.which(program):
        return program
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        return f"FUSE (/dev/fuse: {os.strerror(error.errno or 0)})"
    return ""


def _veth() -> str:
    def make_one() -> None:
        unshare(CLONE_NEWNET)
        command = ["ip", "link", "add", "probe0", "type", "veth", "peer", "name", "probe1"]
        subprocess.run(command, check=True, capture_output=True)

    if not shutil.which("ip"):
        return "ip(8)"
    return "" if in_child(make_one) else "virtual network links"


def _session_keyrings() -> str:
    try:
        with open("/proc/keys"):
            return ""
    except OSError:
        return "kernel keyrings (/proc/keys)"


CRIU = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "build/criu/bin")
"""Where tests/prepare.sh puts a criu when the machine's own does not work."""


def use_criu() -> None:
    """Let everything that is started find that criu."""
    if os.path.isdir(CRIU) and CRIU not in os.environ["PATH"].split(":"):
        os.environ["PATH"] = CRIU + ":" + os.environ["PATH"]


def criu_says(*words: str) -> tuple[bool, str]:
    """Whether a command of criu succeeds, and the last that it says."""
    if not shutil.which("criu"):
        return False, "no criu"
    done = subprocess.run(["criu", *words], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).strip().split("\n")
    return done.returncode == 0, lines[-1]


def _criu() -> str:
    good, said = criu_says("check")
    if not good:
        return f"a criu that works: {said}"
    # A program whose C library has registered an rseq area is not dumped without that.
    if not criu_says("check", "--feature", "get_rseq_conf")[0]:
        return "PTRACE_GET_RSEQ_CONFIGURATION for criu, which Linux 5.13 has"
    return ""


def _lazy_pages() -> str:
    """Let criu alone dump and restore a process lazily: 4.2.1 cannot on Linux 6.18."""
    if not criu_says("check", "--feature", "uffd-noncoop")[0]:
        return "criu with userfaultfd"
    port = str(20000 + os.getpid() % 10000)
    with tempfile.TemporaryDirectory() as images:
        null = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        target = subprocess.Popen(["sleep", "100"], start_new_session=True, stderr=-3, **null)
        at = ["--address", "127.0.0.1", "--port", port, "-D", images]
        try:
            dump = subprocess.Popen(
                ["criu", "dump", "-t", str(target.pid), "--lazy-pages", *at, "-o", "dump.log"]
            )
            time.sleep(1)
            serve = ["criu", "lazy-pages", "--page-server", *at, "-o", "lazy.log"]
            server = subprocess.Popen(serve, **null)
            time.sleep(1)
            restore = ["criu", "restore", "--lazy-pages", "-d", "-D", images, "-o", "restore.log"]
            command = ["unshare", "--pid", "--fork", "--mount-proc", *restore]
            subprocess.run(command, **null, stderr=-3, timeout=10, check=False)
            good = server.wait(10) == 0 and dump.wait(10) == 0
        except subprocess.TimeoutExpired:
            good = False
        finally:
            for child in (dump, server, target):
                child.kill()
                child.wait()
    return "" if good else "a criu whose lazy pages work on this kernel"


def _criu_feature(name: str) -> str:
    return "" if criu_says("check", "--feature", name)[0] else f"criu with {name}"


def _page_size_in_hugetlb() -> str:
    sizes = os.listdir("/sys/kernel/mm/hugepages") if os.path.isdir("/sys/kernel/mm") else []
    return "" if sizes else "huge pages"


GATES: dict[str, Callable[[], str]] = {
    "root": _root,
    "cgroup1": _cgroup1_host,
    "cgroup2-only": _cgroup2_only,
    "sys_resource": _sys_resource,
    "user-namespace": lambda: _namespace(CLONE_NEWUSER, "user"),
    "time-namespace": lambda: _namespace(CLONE_NEWTIME, "time"),
    "cgroup-namespace": lambda: _namespace(CLONE_NEWCGROUP, "cgroup"),
    "overlay": _overlay,
    "apparmor": _apparmor,
    "selinux": _selinux,
    "no-apparmor": lambda: _negated(_apparmor, "AppArmor"),
    "no-selinux": lambda: _negated(_selinux, "SELinux"),
    "two-cpus": _two_cpus,
    "mount_setattr": _mount_setattr,
    "cpu-burst": lambda: _cgroup_file("cpu", "cpu.cfs_burst_us", "cpu.max.burst", "5.14"),
    "cpu-idle": lambda: _cgroup_file("cpu", "cpu.idle", "cpu.idle", "5.15"),
    "memory-peak": lambda: _cgroup_file(
        "memory", "memory.max_usage_in_bytes", "memory.peak", "5.19"
    ),
    "seccomp-addfd-send": lambda: _seccomp(
        _addfd_send, "SECCOMP_ADDFD_FLAG_SEND, which Linux 5.14 has"
    ),
    "seccomp-wait-killable": lambda: _seccomp(
        _wait_killable, "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, which Linux 5.19 has"
    ),
    "preferred-many": _preferred_many,
    "compiler": _compiler,
    "fuse": _fuse,
    "fuse-overlayfs": lambda: _fuse("fuse-overlayfs"),
    "veth": _veth,
    "keyrings": _session_keyrings,
    "criu": _criu,
    "runc": lambda: "" if shutil.which("runc") else "runc",
    "soft-dirty": lambda: _criu_feature("mem_dirty_track"),
    "no-soft-dirty": lambda: _negated(lambda: _criu_feature("mem_dirty_track"), "soft-dirty"),
    "lazy-pages": _lazy_pages,
    "hugepages": _page_size_in_hugetlb,
}
for (
    _name
) in "memory cpu cpuacct cpuset pids devices freezer blkio hugetlb net_cls net_prio rdma".split():
    GATES["cgroup1:" + _name] = partial(_cgroup1, _name)
for _name in "memory cpu cpuset pids io hugetlb rdma".split():
    GATES["cgroup2:" + _name] = partial(_cgroup2, _name)
    GATES["cgroup:" + _name] = partial(_cgroup_any, _name)

_answers: dict[str, str] = {}


def missing(gate: str) -> str:
    """What the machine lacks for a gate, or an empty string; each gate is tried once."""
    if gate not in _answers:
        _answers[gate] = GATES[gate]()
    return _answers[gate]
