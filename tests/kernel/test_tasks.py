"""Every function of linux.tasks in a child, seen by /proc, python-prctl, os and the shell.

What a child changes (credentials, namespaces, limits) ends with it.
"""

from __future__ import annotations

import errno
import os
import pwd
import resource
import select
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from anocir.linux import const, ffi, files, oneself, processes, tasks
from tests import machine
from tests import blocked
from tests.kernel import child
from tests.kernel.child import status_field

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]

prctl = pytest.importorskip("prctl", reason="python-prctl is not installed")

NAMESPACES = {
    "mnt": (const.CLONE_NEWNS, machine.CLONE_NEWNS),
    "uts": (const.CLONE_NEWUTS, machine.CLONE_NEWUTS),
    "ipc": (const.CLONE_NEWIPC, machine.CLONE_NEWIPC),
    "net": (const.CLONE_NEWNET, machine.CLONE_NEWNET),
    "cgroup": (const.CLONE_NEWCGROUP, machine.CLONE_NEWCGROUP),
    "user": (const.CLONE_NEWUSER, machine.CLONE_NEWUSER),
    "pid_for_children": (const.CLONE_NEWPID, machine.CLONE_NEWPID),
    "time_for_children": (const.CLONE_NEWTIME, machine.CLONE_NEWTIME),
}


def mask_of(caps) -> int:
    """The bit mask of what python-prctl says of one of the sets."""
    return sum(1 << number for name, number in vars(prctl).items()
               if name.startswith("CAP_") and name != "CAP_LAST_CAP" and name.isupper()
               and name not in ("CAP_EFFECTIVE", "CAP_PERMITTED", "CAP_INHERITABLE")
               and getattr(caps, name[4:].lower()))  # fmt: skip


def status_mask(name: str) -> int:
    return int(status_field(name), 16)


@pytest.mark.parametrize("name", NAMESPACES)
def test_unshare_makes_a_namespace(name: str) -> None:
    flag, same = NAMESPACES[name]
    assert flag == same
    before = os.readlink(f"/proc/self/ns/{name}")

    def action() -> str:
        tasks.unshare(flag)
        if name == "pid_for_children":
            # The link names nothing until the first child is there, which must stay.
            pid = os.fork()
            if pid == 0:
                signal.pause()
            text = os.readlink(f"/proc/self/ns/{name}")
            os.kill(pid, signal.SIGKILL)
            return text
        return os.readlink(f"/proc/self/ns/{name}")

    after = child.run(action)
    assert after != before
    assert os.readlink(f"/proc/self/ns/{name}") == before


def test_unshare_of_nothing_the_kernel_knows_fails() -> None:
    with pytest.raises(OSError) as caught:
        child.run(lambda: tasks.unshare(1 << 62))
    assert caught.value.errno == errno.EINVAL


def test_setns_joins_and_checks_the_kind() -> None:
    home = os.open("/proc/self/ns/uts", os.O_RDONLY)

    def action() -> tuple[str, str, int]:
        machine.unshare(machine.CLONE_NEWUTS)
        away = os.readlink("/proc/self/ns/uts")
        try:
            tasks.setns(home, const.CLONE_NEWNET)
        except OSError as error:
            number = error.errno
        tasks.setns(home, const.CLONE_NEWUTS)
        return away, os.readlink("/proc/self/ns/uts"), number

    away, back, number = child.run(action)
    os.close(home)
    assert away != back == os.readlink("/proc/self/ns/uts") and number == errno.EINVAL


def test_setns_joins_several_by_a_pidfd() -> None:
    ready, done = os.pipe(), os.pipe()
    other = os.fork()
    if other == 0:
        os.close(done[1])
        machine.unshare(machine.CLONE_NEWUTS | machine.CLONE_NEWNET)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    pidfd = os.pidfd_open(other)

    def action() -> list[str]:
        tasks.setns(pidfd, const.CLONE_NEWUTS | const.CLONE_NEWNET)
        return [os.readlink(f"/proc/self/ns/{name}") for name in ("uts", "net", "ipc")]

    try:
        found = child.run(action)
        assert found == [os.readlink(f"/proc/{other}/ns/{name}") for name in ("uts", "net", "ipc")]
        assert found[0] != os.readlink("/proc/self/ns/uts")
    finally:
        for end in (*ready, *done, pidfd):
            os.close(end)
        os.waitpid(other, 0)


def test_clone_returns_twice_as_fork_does() -> None:
    def action() -> tuple[bool, int]:
        own = os.getpid()
        pid = tasks.clone()
        if pid == 0:
            os._exit(7 if os.getppid() == own else 8)
        return pid != own, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert child.run(action) == (True, 7)


def test_clone_with_clone_parent_makes_a_sibling() -> None:
    def action() -> tuple[int, int]:
        middle = os.fork()
        if middle == 0:
            pid = tasks.clone(const.CLONE_PARENT)
            os._exit(0 if pid else 33)
        codes = set()
        for _ in range(2):
            pid, status = os.waitpid(-1, 0)
            codes.add((pid == middle, os.waitstatus_to_exitcode(status)))
        return codes

    assert child.run(action) == {(True, 0), (False, 33)}


def test_clone_makes_the_child_with_namespaces() -> None:
    def action() -> bool:
        read_end, write_end = os.pipe()
        pid = tasks.clone(const.CLONE_NEWPID | const.CLONE_NEWUTS)
        if pid == 0:
            os.write(write_end, f"{os.getpid()} {os.readlink('/proc/self/ns/uts')}".encode())
            os._exit(0)
        os.waitpid(pid, 0)
        return os.read(read_end, 100).decode()

    text = child.run(action)
    # The /proc that is there belongs to the outer namespace, in which the link does not resolve
    # by the inner number, so only the number is sure.
    assert text.split()[0] == "1"


def test_clone_into_is_born_in_the_cgroup(tmp_path) -> None:
    def action() -> tuple[list[int], str]:
        # A hierarchy of version 2 can be mounted beside those of version 1.
        machine.mount("none", str(tmp_path), "cgroup2", 0)
        own = Path("/proc/self/cgroup").read_text().split("0::")[1].strip().rstrip("/")
        name = f"anocir-clone-{os.getpid()}"
        directory = f"{tmp_path}{own}/{name}"
        os.mkdir(directory)
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
            read_end, write_end = os.pipe()
            # The siblings are children of this process; the middle one makes them.
            middle = os.fork()
            if middle == 0:
                pid = tasks.clone_into(fd)
                if pid == 0:
                    os.write(write_end, Path("/proc/self/cgroup").read_bytes())
                    os._exit(5)
                os._exit(0)
            codes = sorted(os.waitstatus_to_exitcode(os.waitpid(-1, 0)[1]) for _ in range(2))
            born = os.read(read_end, 4096).decode()
        finally:
            os.rmdir(directory)
        return codes, born.split("0::")[1].strip() == f"{own}/{name}"

    assert child.run(action, machine.CLONE_NEWNS) == ([0, 5], True)


def test_clone_into_what_is_no_cgroup_fails(tmp_path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    with pytest.raises(OSError) as caught:
        child.run(lambda: tasks.clone_into(fd))
    os.close(fd)
    assert caught.value.errno == errno.EBADF


# prctl(2): what is set here is read with python-prctl and in /proc, and the other way around.


@pytest.mark.parametrize("value", [0, 1])
def test_prctl_sets_dumpable(value: int) -> None:
    def action() -> tuple[int, int]:
        tasks.prctl(const.PR_SET_DUMPABLE, value)
        return prctl.get_dumpable(), os.stat("/proc/self/environ").st_uid

    def as_user() -> tuple[int, int]:
        os.setuid(12345)
        return action()

    assert child.run(action)[0] == value
    found, owner = child.run(as_user)
    assert (found, owner) == (value, 12345 if value else 0)


def test_prctl_sets_no_new_privs() -> None:
    def action() -> tuple[int, str]:
        assert not prctl.get_no_new_privs()
        tasks.prctl(const.PR_SET_NO_NEW_PRIVS, 1)
        return prctl.get_no_new_privs(), status_field("NoNewPrivs")

    assert child.run(action) == (1, "1")


def test_prctl_sets_keepcaps_and_reads_securebits() -> None:
    def action() -> tuple[bool, bool, int, int]:
        tasks.prctl(const.PR_SET_KEEPCAPS, 1)
        kept = prctl.get_keepcaps(), prctl.securebits.keep_caps
        pr_get_securebits = 27
        before = tasks.prctl(pr_get_securebits)
        prctl.securebits.noroot = True
        return (*kept, before, tasks.prctl(pr_get_securebits))

    assert child.run(action) == (True, True, 1 << 4, 1 << 4 | 1)


def test_prctl_sets_securebits() -> None:
    def action() -> list[bool]:
        tasks.prctl(28, 0b101111)  # PR_SET_SECUREBITS: noroot, no_setuid_fixup, both locked, locked
        bits = prctl.securebits
        return [bits.noroot, bits.noroot_locked, bits.no_setuid_fixup, bits.no_setuid_fixup_locked,
                bits.keep_caps, bits.keep_caps_locked]  # fmt: skip

    assert child.run(action) == [True, True, True, True, False, True]


@pytest.mark.parametrize("name", ["sys_admin", "net_raw", "checkpoint_restore"])
def test_drop_bounding_drops_from_the_bounding_set(name: str) -> None:
    from anocir.linux import capabilities

    number = capabilities.NAMES.index("CAP_" + name.upper())

    def action() -> tuple[bool, int, int, int]:
        before = status_mask("CapBnd")
        shown = tasks.prctl(const.PR_CAPBSET_READ, number)
        tasks.drop_bounding(number)
        by_prctl = getattr(prctl.capbset, name) if hasattr(prctl, "CAP_" + name.upper()) else False
        after = tasks.prctl(const.PR_CAPBSET_READ, number)
        return by_prctl, shown, after, before & ~status_mask("CapBnd")

    assert child.run(action) == (False, 1, 0, 1 << number)


def test_prctl_raises_and_clears_ambient_capabilities() -> None:
    def action() -> list[int]:
        effective, permitted, _ = oneself.capget()
        oneself.capset(effective, permitted, 1 << 13 | 1 << 21)
        tasks.prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_RAISE, 13)
        tasks.prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_RAISE, 21)
        raised = status_mask("CapAmb")
        is_set = tasks.prctl(const.PR_CAP_AMBIENT, 1, 13)
        tasks.prctl(const.PR_CAP_AMBIENT, const.PR_CAP_AMBIENT_CLEAR_ALL)
        return [raised, is_set, status_mask("CapAmb")]

    assert child.run(action) == [1 << 13 | 1 << 21, 1, 0]


def test_prctl_makes_a_subreaper_and_sets_the_death_signal() -> None:
    def action() -> tuple[bool, int]:
        tasks.prctl(const.PR_SET_CHILD_SUBREAPER, 1)
        tasks.prctl(const.PR_SET_PDEATHSIG, signal.SIGUSR1)
        return bool(prctl.get_child_subreaper()), prctl.get_pdeathsig()

    assert child.run(action) == (True, signal.SIGUSR1)


def test_prctl_raises_for_what_the_kernel_does_not_know() -> None:
    with pytest.raises(OSError) as caught:
        tasks.prctl(999)
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("name", "shown"), [("anocir:init", "anocir:init"), ("a" * 40, "a" * 15), ("é" * 9, "é" * 7)]
)
def test_set_name_is_what_ps_shows(name: str, shown: str) -> None:
    def action() -> tuple[bytes, str]:
        oneself.set_name(name)
        ps = subprocess.run(["ps", "-o", "comm=", "-p", str(os.getpid())], capture_output=True)
        return Path("/proc/self/comm").read_bytes(), ps.stdout.decode("utf-8", "ignore").strip()

    comm, ps = child.run(action)
    assert comm.decode("utf-8", "ignore").strip() == shown
    assert ps.startswith("a") == shown.startswith("a")


def test_capget_agrees_with_proc_and_prctl() -> None:
    def action():
        prctl.cap_effective.sys_admin = False
        prctl.cap_inheritable.net_raw = True
        rows = [status_mask(name) for name in ("CapEff", "CapPrm", "CapInh")]
        known = (1 << 38) - 1  # up to what python-prctl may not know
        sets = [prctl.cap_effective, prctl.cap_permitted, prctl.cap_inheritable]
        same = [mask_of(one) & known == row & known for one, row in zip(sets, rows)]
        return list(oneself.capget()), list(oneself.capget(os.getpid())), rows, same

    mine, by_pid, rows, same = child.run(action)
    assert mine == by_pid == rows and all(same)
    assert not rows[0] >> 21 & 1 and rows[2] >> 13 & 1


def test_capget_of_another_process() -> None:
    effective, permitted, inheritable = oneself.capget(1)
    for value, name in ((effective, "CapEff"), (permitted, "CapPrm"), (inheritable, "CapInh")):
        assert value == int(status_field(name, 1), 16)


@pytest.mark.parametrize(
    "masks",
    [(0, 0, 0), (1 << 21, 1 << 21 | 1 << 39, 1 << 39), (1 << 40, 1 << 40, 0),
     (1 << 31 | 1 << 32, 1 << 31 | 1 << 32, 1 << 31)],
)  # fmt: skip
def test_capset_sets_all_bits_of_both_words(masks) -> None:
    def action():
        oneself.capset(*masks)
        effective = tuple(
            getattr(prctl.cap_effective, name) for name in ("sys_admin", "setfcap", "chown")
        )
        return tuple(status_mask(name) for name in ("CapEff", "CapPrm", "CapInh")), effective

    found, effective = child.run(action)
    assert found == masks
    assert effective == tuple(bool(masks[0] >> bit & 1) for bit in (21, 31, 0))


def test_capset_cannot_raise_what_is_gone() -> None:
    def action() -> None:
        oneself.capset(0, 0, 0)
        oneself.capset(1, 1, 0)

    with pytest.raises(PermissionError):
        child.run(action)


def without(name: str, number: int) -> None:
    """Make a system call fail from here on, as an old kernel would."""
    blocked.load(blocked.numbers(name), number)


OLD = pytest.mark.parametrize(
    "number", [0, errno.ENOSYS, errno.EPERM], ids=["new", "old", "filtered"]
)


@pytest.mark.parametrize("host_proc", [True, False])
@pytest.mark.parametrize(
    "number",
    [0, errno.ENOSYS, errno.EPERM, errno.EINVAL],
    ids=["new", "5.8", "filtered", "5.10"],
)
def test_close_on_exec_keeps_descriptors_until_execve(number: int, host_proc: bool) -> None:
    def action() -> list[bool]:
        fd = os.open("/", os.O_RDONLY)
        first = child.free_descriptors()
        copies = (first, first + 1, first + 480)
        for copy in copies:
            os.dup2(fd, copy)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + 1000, first + 1000))
        if number:
            without("close_range", number)
        oneself.host_proc = host_proc
        oneself.close_on_exec(first + 1)
        return [os.get_inheritable(copy) for copy in copies]

    assert child.run(action) == [True, False, False]


@pytest.mark.parametrize("host_proc", [True, False])
@OLD
def test_close_range_closes_both_ends_and_nothing_else(number: int, host_proc: bool) -> None:
    def action() -> tuple[list[int], list[int]]:
        fd = os.open("/", os.O_RDONLY)
        first = child.free_descriptors()

        def is_open(copy: int) -> bool:
            return os.path.exists(f"/proc/self/fd/{first + copy}")

        for copy in (*range(6), 700):
            os.dup2(fd, first + copy)
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + 924, first + 924))
        if number:
            without("close_range", number)
        oneself.host_proc = host_proc
        oneself.close_range(first + 1, first + 3)
        some = [copy for copy in range(6) if is_open(copy)]
        oneself.close_range(first + 5, 0xFFFFFFFF)
        return some, [copy for copy in (4, 5, 700) if is_open(copy)]

    assert child.run(action) == ([0, 4, 5], [4])


def test_close_range_refuses_an_end_before_its_start() -> None:
    with pytest.raises(OSError) as caught:
        oneself.close_range(5, 4)
    assert caught.value.errno == errno.EINVAL


def test_close_range_on_an_old_kernel_goes_by_no_odd_limit() -> None:
    def action() -> bool:
        fd = os.open("/", os.O_RDONLY)
        first = child.free_descriptors()
        os.dup2(fd, first + 50)
        real = tasks.getrlimit
        tasks.getrlimit = lambda kind: ((1 << 20) + 7, (1 << 20) + 7)
        without("close_range", errno.ENOSYS)
        oneself.close_range(first, 0xFFFFFFFF)
        tasks.getrlimit = real
        return os.path.exists(f"/proc/self/fd/{first + 50}")

    assert not child.run(action)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM])
def test_close_range_without_the_call_reaches_above_a_limit_that_was_lowered(number: int) -> None:
    """A container's own limit comes before the last descriptors are closed."""

    def action() -> bool:
        fd = os.open("/", os.O_RDONLY)
        first = child.free_descriptors()
        os.dup2(fd, first + 300)
        without("close_range", number)
        oneself.host_proc = True
        oneself.close_range(first + 400, 0xFFFFFFFF)
        oneself.host_proc = False  # as init says it before it enters the root
        resource.setrlimit(resource.RLIMIT_NOFILE, (first + 1, first + 1))
        oneself.close_range(first, 0xFFFFFFFF)
        try:
            os.fstat(first + 300)
        except OSError as error:
            return error.errno == errno.EBADF
        return False

    assert child.run(action)


def test_close_range_without_the_call_looks_at_proc_only_while_it_is_the_hosts() -> None:
    def action() -> tuple[list[str], list[str]]:
        seen: list[str] = []
        real = tasks.files.listdir
        tasks.files.listdir = lambda path: seen.append(path) or real(path)
        without("close_range", errno.ENOSYS)
        first = child.free_descriptors()
        oneself.close_range(first, 0xFFFFFFFF)
        before, seen[:] = list(seen), []
        oneself.host_proc = False
        oneself.close_range(first, 0xFFFFFFFF)
        return before, seen

    assert child.run(action) == (["/proc/self/fd"], [])


def test_strings_make_an_array_that_ends_in_null() -> None:
    array, kept = oneself.strings(["a", b"\xff", ""])
    addresses = struct.unpack("=4Q", array)
    assert list(addresses) == [*(ffi.address(one) for one in kept), 0]
    assert [one.split(b"\0")[0] for one in kept] == [b"a", b"\xff", b""]
    assert all(one.endswith(bytes(8)) for one in kept)
    assert oneself.strings([]) == (bytearray(8), [])
    with pytest.raises(Exception, match="NUL"):
        oneself.strings(["a\0b"])


def executed(call) -> str:
    """What a program prints that a child of ours becomes."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.dup2(write_end, 1)
        try:
            call()
        except OSError as error:
            os.write(1, errno.errorcode[error.errno].encode())
        os._exit(0)
    os.close(write_end)
    with open(read_end) as file:
        text = file.read()
    os.waitpid(pid, 0)
    return text


def test_execve_becomes_the_program_with_these_words() -> None:
    argv, kept = oneself.strings(["name", "-c", 'echo "$0" "$A" "$B" "$1"', "zero", "one two"])
    envp, more = oneself.strings(["A=1", b"B=\xc3\xa9"])
    assert executed(lambda: oneself.execve(b"/bin/sh", argv, envp)) == "zero 1 é one two\n"
    assert executed(lambda: oneself.execve(b"/etc/passwd", argv, envp)) == "EACCES"
    assert executed(lambda: oneself.execve(b"/missing", argv, envp)) == "ENOENT"
    assert kept and more


def test_execveat_executes_an_open_file() -> None:
    fd = os.open("/bin/sh", os.O_PATH | os.O_CLOEXEC)
    argv, kept = oneself.strings(["sh", "-c", "echo $0 $A", "by-descriptor"])
    envp, more = oneself.strings(["A=1"])
    assert executed(lambda: oneself.execveat(fd, argv, envp)) == "by-descriptor 1\n"
    os.close(fd)
    fd = os.open("/etc/passwd", os.O_PATH)
    assert executed(lambda: oneself.execveat(fd, argv, envp)) == "EACCES"
    os.close(fd)
    assert kept and more


def keys() -> list[list[str]]:
    lines = Path("/proc/keys").read_text(errors="replace").splitlines()
    return [row for row in map(str.split, lines) if len(row) > 8]


@pytest.mark.needs("keyrings")
def test_join_session_keyring_makes_a_keyring_of_this_name() -> None:
    name = f"anocir-test-{os.getpid()}"

    def action():
        serial = oneself.join_session_keyring(name)
        return f"{serial:08x}", [row for row in keys() if row[8] == name + ":"]

    serial, rows = child.run(action)
    assert len(rows) == 1 and rows[0][0] == serial and rows[0][7] == "keyring"


@pytest.mark.needs("keyrings")
def test_keyring_permissions_are_those_of_proc_keys() -> None:
    def action():
        serial = oneself.join_session_keyring(f"anocir-test-a-{os.getpid()}")
        shown = [row[4] for row in keys() if row[0] == f"{serial:08x}"]
        return oneself.keyring_permissions(serial), shown

    mask, shown = child.run(action)
    assert [f"{mask:08x}"] == shown


@pytest.mark.needs("keyrings")
def test_set_keyring_permissions_changes_them() -> None:
    def action():
        serial = oneself.join_session_keyring(f"anocir-test-b-{os.getpid()}")
        oneself.set_keyring_permissions(serial, 0x3F3F0000)
        shown = [row[4] for row in keys() if row[0] == f"{serial:08x}"]
        return shown

    assert child.run(action) == ["3f3f0000"]
    with pytest.raises(OSError) as caught:
        oneself.set_keyring_permissions(1, 0)
    assert caught.value.errno == errno.ENOKEY


@pytest.mark.needs("keyrings")
def test_session_keyring_is_the_one_that_was_joined() -> None:
    def action() -> tuple[int, int, int]:
        first = oneself.join_session_keyring(f"anocir-test-c-{os.getpid()}")
        same = oneself.session_keyring()
        second = oneself.join_session_keyring(f"anocir-test-d-{os.getpid()}")
        return first == same, second == oneself.session_keyring(), first != second

    assert child.run(action) == (True, True, True)


def test_pidfd_getfd_takes_a_descriptor_out_of_another_process(tmp_path) -> None:
    ready, done = os.pipe(), os.pipe()
    number = child.free_descriptors()
    other = os.fork()
    if other == 0:
        os.close(done[1])
        os.dup2(os.open(tmp_path, os.O_RDONLY), number)
        os.write(ready[1], b"x")
        os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    pidfd = os.pidfd_open(other)
    fd = tasks.pidfd_getfd(pidfd, number)
    assert os.readlink(f"/proc/self/fd/{fd}") == str(tmp_path) and not os.get_inheritable(fd)
    with pytest.raises(OSError) as caught:
        tasks.pidfd_getfd(pidfd, number + 1)
    assert caught.value.errno == errno.EBADF
    for end in (*ready, *done, pidfd, fd):
        os.close(end)
    os.waitpid(other, 0)


@pytest.mark.parametrize("name", ["mrsdalloway", "h" * 64, "é", ""])
def test_sethostname_is_what_uname_tells(name: str) -> None:
    def action() -> str:
        oneself.sethostname(name)
        return os.uname().nodename, subprocess.run(["hostname"], capture_output=True).stdout

    nodename, shown = child.run(action, machine.CLONE_NEWUTS)
    assert nodename == name
    assert shown.decode().strip() == name


def test_sethostname_refuses_more_than_64_bytes() -> None:
    with pytest.raises(OSError) as caught:
        child.run(lambda: oneself.sethostname("h" * 65), machine.CLONE_NEWUTS)
    assert caught.value.errno == errno.EINVAL


def test_setdomainname_is_what_proc_tells() -> None:
    def action() -> str:
        oneself.setdomainname("example.org")
        return Path("/proc/sys/kernel/domainname").read_text()

    assert child.run(action, machine.CLONE_NEWUTS) == "example.org\n"


def test_personality_changes_uname_and_tells_the_old_one() -> None:
    def action() -> tuple[int, str, str, int]:
        old = oneself.personality(0x0008)  # PER_LINUX32
        return old, os.uname().machine, Path("/proc/self/personality").read_text(), (
            oneself.personality(0xFFFFFFFF))  # fmt: skip

    old, name, shown, again = child.run(action)
    expected = {"x86_64": "i686", "aarch64": "armv8l"}.get(os.uname().machine)
    assert (old, name, shown, again) == (0, expected, "00000008\n", 8)


@pytest.mark.parametrize(("kind", "level", "shown"), [(2, 0, "best-effort: prio 0"),
                                                      (2, 7, "best-effort: prio 7"),
                                                      (3, 0, "idle"),
                                                      (1, 4, "realtime: prio 4")])  # fmt: skip
def test_ioprio_set_is_what_ionice_shows(kind: int, level: int, shown: str) -> None:
    def action() -> str:
        oneself.ioprio_set(kind << 13 | level)
        return subprocess.run(["ionice"], capture_output=True, text=True).stdout.strip()

    assert child.run(action) == shown


def test_ioprio_set_refuses_a_class_that_is_none() -> None:
    with pytest.raises(OSError) as caught:
        child.run(lambda: oneself.ioprio_set(5 << 13))
    assert caught.value.errno == errno.EINVAL


@pytest.mark.parametrize(
    ("policy", "nice", "priority"),
    [(os.SCHED_OTHER, 5, 0), (os.SCHED_OTHER, -3, 0), (os.SCHED_BATCH, 19, 0),
     (os.SCHED_IDLE, 0, 0), (os.SCHED_FIFO, 0, 10), (os.SCHED_RR, 0, 99)],
)  # fmt: skip
def test_sched_setattr_sets_policy_nice_and_priority(policy, nice, priority) -> None:
    def action() -> tuple[int, int, int]:
        oneself.sched_setattr(policy, 0, nice, priority, 0, 0, 0)
        return (os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0),
                os.sched_getparam(0).sched_priority)  # fmt: skip

    try:
        found = child.run(action)
    except PermissionError:
        if not is_realtime_allowed(policy):
            pytest.skip("[realtime] the cgroup has no realtime budget")
        raise
    assert found[0] == policy and found[2] == priority
    if policy in (os.SCHED_OTHER, os.SCHED_BATCH):
        assert found[1] == nice


def is_realtime_allowed(policy: int) -> bool:
    def attempt() -> None:
        os.sched_setscheduler(0, policy, os.sched_param(1))

    return policy not in (os.SCHED_FIFO, os.SCHED_RR) or machine.in_child(attempt)


def test_sched_setattr_sets_a_deadline() -> None:
    def action() -> str:
        # The kernel promises processor time only where it may choose among all processors.
        os.sched_setaffinity(0, range(os.cpu_count() or 1))
        # Without SCHED_FLAG_RESET_ON_FORK a process with a deadline cannot fork.
        oneself.sched_setattr(6, 1, 0, 0, 10_000_000, 50_000_000, 100_000_000)
        shown = subprocess.run(["chrt", "-p", str(os.getpid())], capture_output=True, text=True)
        return shown.stdout

    shown = child.run(action)
    assert "SCHED_DEADLINE" in shown and "10000000/50000000/100000000" in shown


def test_sched_setattr_resets_on_fork() -> None:
    def action() -> tuple[int, int]:
        oneself.sched_setattr(os.SCHED_BATCH, 1, 5, 0, 0, 0, 0)  # SCHED_FLAG_RESET_ON_FORK
        return os.sched_getscheduler(0) & ~os.SCHED_BATCH

    assert child.run(action) == os.SCHED_RESET_ON_FORK


def test_run_anywhere_takes_every_processor_back() -> None:
    def action() -> tuple[set[int], set[int]]:
        own = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(own)})
        oneself.run_anywhere()
        return own, os.sched_getaffinity(0)

    own, found = child.run(action)
    assert found >= own and len(found) <= 1024


def test_set_mempolicy_is_what_numa_maps_shows() -> None:
    def policy(mode: int, nodes: int) -> set[str]:
        oneself.set_mempolicy(mode, nodes)
        return {line.split()[1] for line in Path("/proc/self/numa_maps").read_text().splitlines()}

    if not Path("/proc/self/numa_maps").exists():
        pytest.skip("[numa] this kernel has no memory policies")
    assert "bind:0" in child.run(lambda: policy(2, 1))
    assert "interleave:0" in child.run(lambda: policy(3, 1))
    assert child.run(lambda: policy(0, 0)) == {"default"}
    assert "local" in child.run(lambda: policy(4, 0))


def test_set_mempolicy_refuses_nodes_that_are_not_there() -> None:
    for nodes in (1 << 60, 1 << 100):
        with pytest.raises(OSError) as caught:
            child.run(lambda nodes=nodes: oneself.set_mempolicy(2, nodes))
        assert caught.value.errno in (errno.EINVAL, errno.ENOSYS)


def filters(*rows: tuple[int, int, int, int]) -> bytes:
    return b"".join(struct.pack("=HBBI", *row) for row in rows)


ALLOW = filters((0x06, 0, 0, 0x7FFF0000))


def deny(number: int) -> bytes:
    """A program that answers one system call with EPERM."""
    return filters(
        (0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)
    )


@pytest.mark.parametrize("flags", [0, 2])  # SECCOMP_FILTER_FLAG_LOG
def test_seccomp_filter_denies_what_the_program_says(flags: int) -> None:
    def action() -> tuple[int, str, str]:
        assert oneself.seccomp_filter(deny(tasks.ffi.nr.NUMBERS["personality"]), flags) == 0
        try:
            oneself.personality(0xFFFFFFFF)
        except OSError as error:
            return error.errno, status_field("Seccomp"), status_field("Seccomp_filters")

    assert child.run(action) == (errno.EPERM, "2", "1")


def test_seccomp_filter_gives_a_listener() -> None:
    def action() -> tuple[str, int]:
        fd = oneself.seccomp_filter(ALLOW, const.SECCOMP_FILTER_FLAG_NEW_LISTENER)
        return os.readlink(f"/proc/self/fd/{fd}")

    assert child.run(action) == "anon_inode:seccomp notify"


def test_seccomp_filter_without_privilege_or_no_new_privs_is_refused() -> None:
    def action() -> None:
        oneself.capset(0, 0, 0)
        oneself.seccomp_filter(ALLOW, 0)

    with pytest.raises(OSError) as caught:
        child.run(action)
    assert caught.value.errno == errno.EACCES
    with pytest.raises(OSError) as caught:
        child.run(lambda: oneself.seccomp_filter(b"", 0))
    assert caught.value.errno == errno.EINVAL


def test_signalfd_reads_the_blocked_signals_in_the_mask() -> None:
    def action() -> tuple[list[int], bool, bool, str]:
        wanted = [signal.SIGUSR1, signal.SIGTERM, 64]
        signal.pthread_sigmask(signal.SIG_BLOCK, [*wanted, signal.SIGUSR2])
        fd = tasks.signalfd(sum(1 << (number - 1) for number in wanted))
        info = Path(f"/proc/self/fdinfo/{fd}").read_text()
        for number in (signal.SIGUSR1, signal.SIGUSR2, 64):
            os.kill(os.getpid(), number)
        found = []
        while select.select([fd], [], [], 0)[0]:
            data = os.read(fd, 128)
            found.append(struct.unpack_from("=I", data)[0])
        try:
            os.read(fd, 128)
        except BlockingIOError:
            return found, os.get_inheritable(fd), True, info

    found, inheritable, blocks, info = child.run(action)
    assert sorted(found) == [signal.SIGUSR1, 64] and not inheritable and blocks
    mask = int(info.split("sigmask:")[1].split()[0], 16)
    assert mask == 1 << 9 | 1 << 14 | 1 << 63


def test_setsid_leads_a_session_without_a_terminal() -> None:
    def action() -> tuple[bool, bool, int]:
        oneself.setsid()
        with open("/proc/self/stat") as file:
            terminal = int(file.read().rpartition(") ")[2].split()[4])
        return os.getsid(0) == os.getpid(), os.getpgrp() == os.getpid(), terminal

    assert child.run(action) == (True, True, 0)


def test_setgroups_replaces_all_groups() -> None:
    def action() -> tuple[list[int], str]:
        oneself.setgroups([7, 5, 4294967294])
        first = sorted(os.getgroups()), status_field("Groups").split()
        oneself.setgroups([])
        return first, os.getgroups()

    (groups, shown), none = child.run(action)
    assert groups == [5, 7, 4294967294] == sorted(int(word) for word in shown) and none == []


def test_setresgid_sets_all_three() -> None:
    def action() -> tuple[tuple[int, int, int], str]:
        oneself.setresgid(1234)
        return os.getresgid(), status_field("Gid").split()

    assert child.run(action) == ((1234,) * 3, ["1234"] * 4)


def test_setresuid_sets_all_three_and_takes_the_capabilities() -> None:
    def action():
        oneself.setresuid(4294967294)
        return os.getresuid(), status_field("Uid").split(), status_mask("CapEff")

    assert child.run(action) == ((4294967294,) * 3, ["4294967294"] * 4, 0)


def test_set_fs_ids_says_who_makes_files_and_who_may_read(tmp_path) -> None:
    tmp_path.chmod(0o777)
    (tmp_path / "closed").mkdir(0o700)

    def action():
        os.chdir(tmp_path)  # the way there is root's alone
        oneself.set_fs_ids(1234, 4567)
        Path("mine").touch()
        try:
            os.listdir("closed")
            barred = False
        except PermissionError:
            barred = True
        oneself.set_fs_ids(0, 0)
        return barred, os.listdir("closed"), os.getuid()

    assert child.run(action) == (True, [], 0)
    found = (tmp_path / "mine").stat()
    assert (found.st_uid, found.st_gid) == (1234, 4567)


@pytest.mark.parametrize("kind", range(16))
def test_getrlimit_reads_ours_and_a_childs(kind: int) -> None:
    infinity = (1 << 64) - 1
    expected = tuple(infinity if limit == -1 else limit for limit in resource.getrlimit(kind))
    assert tasks.getrlimit(kind) == tasks.getrlimit(kind, os.getpid()) == expected
    with pytest.raises(OSError, match="Errno 3"):
        tasks.getrlimit(kind, 1 << 30)


def test_setrlimit_reaches_another_process() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as sleeper:
        tasks.setrlimit(resource.RLIMIT_NOFILE, 10, 20, sleeper.pid)
        assert resource.prlimit(sleeper.pid, resource.RLIMIT_NOFILE) == (10, 20)
        sleeper.kill()


def test_loopback_up_brings_up_that_of_our_namespace() -> None:
    def action() -> tuple[bool, bool]:
        tasks.unshare(const.CLONE_NEWNET)
        before = child.loopback_is_up()
        tasks.loopback_up()
        return before, child.loopback_is_up()

    assert child.run(action) == (False, True)


@pytest.mark.parametrize("kind", range(16))
def test_setrlimit_is_what_proc_shows(kind: int) -> None:
    def action() -> tuple[int, int]:
        hard = resource.getrlimit(kind)[1]
        low = 4096 if hard == -1 else hard // 2
        if kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA, resource.RLIMIT_STACK):
            low = 8 << 30  # with less, what follows may find no memory
        tasks.setrlimit(kind, low // 2, low)
        line = Path("/proc/self/limits").read_text().splitlines()[1 + ORDER.index(kind)]
        return low, line[26:].split()[:2]

    low, shown = child.run(action)
    assert shown == [str(low // 2), str(low)]


# The lines of /proc/PID/limits are in the order of the numbers.
ORDER = list(range(16))


def test_setrlimit_refuses_soft_above_hard() -> None:
    for soft, hard in ((2, 1), ((1 << 64) - 1, 5)):
        with pytest.raises(OSError, match="Errno 22"):
            child.run(lambda soft=soft, hard=hard: tasks.setrlimit(7, soft, hard))


@pytest.mark.parametrize("number", [signal.SIGPIPE, 32, 33, 64])
def test_default_signal_resets_even_what_the_c_library_keeps(number: int) -> None:
    bit = 1 << (number - 1)

    def action() -> tuple[int, int]:
        ignore = ffi.syscall("rt_sigaction", ffi.INT, ffi.BUF, ffi.INT, ffi.INT)
        ignore(number, struct.pack("=Q", 1) + bytes(24), 0, 8)
        before = status_mask("SigIgn") & bit
        oneself.default_signal(number)
        return before, (status_mask("SigIgn") | status_mask("SigCgt")) & bit

    assert child.run(action) == (bit, 0)


def test_default_signal_refuses_what_cannot_be_changed() -> None:
    for number in (signal.SIGKILL, 65):
        with pytest.raises(OSError) as caught:
            oneself.default_signal(number)
        assert caught.value.errno == errno.EINVAL


def test_the_user_nobody_can_call_what_needs_no_right() -> None:
    nobody = pwd.getpwnam("nobody").pw_uid

    def action() -> int:
        oneself.setgroups([])
        oneself.setresgid(nobody)
        oneself.setresuid(nobody)
        oneself.set_name("nobody")
        oneself.setsid()
        for call in (lambda: oneself.sethostname("x"), lambda: oneself.setresuid(0),
                     lambda: oneself.setgroups([0]), lambda: tasks.unshare(const.CLONE_NEWNS)):  # fmt: skip
            with pytest.raises(PermissionError):
                call()
        return os.getuid()

    assert child.run(action) == nobody
    assert processes.stat(os.getpid())[0] == Path("/proc/self/comm").read_text().strip()
    assert files.exists(sys.executable)


def test_eventfd_counts_and_does_not_wait() -> None:
    fd = tasks.eventfd()
    try:
        assert not os.get_inheritable(fd)
        with pytest.raises(BlockingIOError):
            os.read(fd, 8)
        os.write(fd, struct.pack("=Q", 3))
        os.write(fd, struct.pack("=Q", 4))
        assert struct.unpack("=Q", os.read(fd, 8)) == (7,)
    finally:
        os.close(fd)


def test_seccomp_tells_the_actions_that_the_kernel_has() -> None:
    available = Path("/proc/sys/kernel/seccomp/actions_avail").read_text().split()
    assert "allow" in available
    get_action_avail = 2
    assert oneself.seccomp(get_action_avail, 0, struct.pack("=I", 0x7FFF0000)) == 0
    with pytest.raises(OSError) as caught:
        oneself.seccomp(get_action_avail, 0, struct.pack("=I", 0x12340000))
    assert caught.value.errno == errno.EOPNOTSUPP


def test_block_signals_leaves_others_blocked_and_tells_which() -> None:
    def action() -> list[int]:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGUSR2})
        return [oneself.block_signals(1 << 14 | 1), status_mask("SigBlk")]

    assert child.run(action) == [1 << 11, 1 << 14 | 1 << 11 | 1]


def test_set_signals_blocks_these_alone() -> None:
    def action() -> int:
        signal.pthread_sigmask(signal.SIG_SETMASK, {signal.SIGTERM, signal.SIGHUP})
        oneself.set_signals(1 << 11)
        return status_mask("SigBlk")

    assert child.run(action) == 1 << 11


def test_wait_readable_tells_which() -> None:
    (one, into), (two, beside) = os.pipe(), os.pipe()
    try:
        os.write(beside, b"x")
        assert oneself.wait_readable(one, two) == [two]
        os.write(into, b"x")
        assert oneself.wait_readable(one, two) == [one, two]
    finally:
        for fd in (one, into, two, beside):
            os.close(fd)
