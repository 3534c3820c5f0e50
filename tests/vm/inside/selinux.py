"""SELinux labels of processes, mounts and keyrings, under a small policy of our own that is enforced."""

from __future__ import annotations

import os
import subprocess
import tempfile

import pytest

from tests import machine
from tests.vm.inside.container import Box

FILE = (
    "ioctl read write create getattr setattr lock relabelfrom relabelto append map unlink link rename execute "
    "quotaon mounton audit_access open execmod watch watch_mount watch_sb watch_with_perm watch_reads"
)
CLASSES = {
    "security": "compute_av compute_create compute_member check_context load_policy compute_relabel compute_user "
    "setenforce setbool setsecparam setcheckreqprot read_policy validate_trans",
    "process": "fork transition sigchld sigkill sigstop signull signal ptrace getsched setsched getsession getpgid "
    "setpgid getcap setcap share getattr setexec setfscreate noatsecure siginh setrlimit rlimitinh "
    "dyntransition setcurrent execmem execstack execheap setkeycreate setsockcreate getrlimit",
    "process2": "nnp_transition nosuid_transition",
    "filesystem": "mount remount unmount getattr relabelfrom relabelto associate quotamod quotaget watch",
    "fd": "use",
    "file": FILE + " execute_no_trans entrypoint",
    "dir": FILE + " add_name remove_name reparent search rmdir",
    "lnk_file": FILE,
    "chr_file": FILE,
    "blk_file": FILE,
    "sock_file": FILE,
    "fifo_file": FILE,
    "key": "view read write search link setattr create",
}
# security/selinux/include/initial_sid_to_string.h: their order is their number
SIDS = [
    "kernel",
    "security",
    "unlabeled",
    "fs",
    "file",
    "file_labels",
    "init",
    "any_socket",
    "port",
    "netif",
    "netmsg",
    "node",
    "igmp_packet",
    "icmp_socket",
    "tcp_socket",
    "sysctl_modprobe",
    "sysctl",
    "sysctl_fs",
    "sysctl_kernel",
    "sysctl_net",
    "sysctl_net_unix",
    "sysctl_vm",
    "sysctl_dev",
    "kmod",
    "policy",
    "scmp_packet",
    "devnull",
]
DOMAINS, FILES = ("kernel_t", "box_t", "other_t"), ("file_t", "box_file_t", "secret_t")


def policy() -> str:
    """The policy in checkpolicy's language."""
    lines = [f"class {name}" for name in CLASSES]
    lines += [f"sid {name}" for name in SIDS]
    lines += [f"class {name} {{ {permissions} }}" for name, permissions in CLASSES.items()]
    lines += ["policycap nnp_nosuid_transition;"]
    lines += [f"type {name};" for name in (*DOMAINS, *FILES)]
    lines += ["role system_r;", *(f"role system_r types {name};" for name in DOMAINS)]
    every = "{ " + " ".join((*DOMAINS, *FILES)) + " }"
    most = every.replace(" secret_t", "")
    for name in CLASSES:
        lines.append(f"allow kernel_t {every}:{name} *;")
        lines.append(f"allow {{ box_t other_t }} {most}:{name} *;")
        lines.append(f"allow {{ file_t box_file_t secret_t }} {every}:{name} *;")
    lines.append("allow { box_t other_t } secret_t:dir { search getattr read open };")
    lines.append("allow { box_t other_t } secret_t:file { getattr read open };")
    lines.append("user system_u roles { system_r };")
    for name in SIDS:
        subject = name in ("kernel", "init", "kmod")
        lines.append(f"sid {name} system_u:{'system_r:kernel_t' if subject else 'object_r:file_t'}")
    for name in ("tmpfs", "devpts", "devtmpfs", "mqueue", "shm", "hugetlbfs", "ramfs"):
        lines.append(f"fs_use_trans {name} system_u:object_r:file_t;")
    lines += [f"fs_use_task {name} system_u:object_r:file_t;" for name in ("pipefs", "sockfs")]
    lines += [f"fs_use_xattr {name} system_u:object_r:file_t;" for name in ("ext4", "overlay")]
    for name in (
        "proc",
        "sysfs",
        "selinuxfs",
        "cgroup",
        "cgroup2",
        "securityfs",
        "virtiofs",
        "bpf",
        "anon_inodefs",
        "nsfs",
    ):
        lines.append(f"genfscon {name} / system_u:object_r:file_t")
    return "\n".join(lines) + "\n"


LABEL, OTHER = "system_u:system_r:box_t", "system_u:system_r:other_t"
MOUNT_LABEL = "system_u:object_r:box_file_t"


@pytest.fixture(scope="module", autouse=True)
def enforcing():
    with tempfile.TemporaryDirectory() as directory:
        source, binary = os.path.join(directory, "policy.conf"), os.path.join(directory, "policy")
        with open(source, "w") as file:
            file.write(policy())
        subprocess.run(["checkpolicy", "-U", "allow", "-c", "31", "-o", binary, source], check=True)
        with open(binary, "rb") as file, open("/sys/fs/selinux/load", "wb", 0) as load:
            load.write(file.read())
    machine.write_file("/sys/fs/selinux/enforce", "1")
    yield
    machine.write_file("/sys/fs/selinux/enforce", "0")


@pytest.fixture
def box():
    made = Box("labelled")
    made.config["root"]["readonly"] = False
    made.config["process"]["selinuxLabel"] = LABEL
    made.config["linux"]["mountLabel"] = MOUNT_LABEL
    yield made
    made.remove()


def label_of(path: str) -> str:
    """The label of a file."""
    return os.getxattr(path, "security.selinux").rstrip(b"\0").decode()


def process_label(pid: int | str) -> str:
    """The label of a process."""
    with open(f"/proc/{pid}/attr/current") as file:
        return file.read().rstrip("\0\n")


def test_the_policy_is_enforced_here():
    with open("/sys/fs/selinux/enforce") as file:
        assert file.read() == "1"
    assert process_label("self") == "system_u:system_r:kernel_t"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_process_has_its_label(box, no_new_privileges):
    box.config["process"]["noNewPrivileges"] = no_new_privileges
    assert process_label(box.create()) == LABEL


def test_the_mounts_have_the_mount_label(box):
    pid = box.create()
    for path in ("/dev", "/dev/shm"):
        assert label_of(f"/proc/{pid}/root{path}") == MOUNT_LABEL
    with open(f"/proc/{pid}/mountinfo") as file:
        lines = [line for line in file if " - tmpfs " in line and line.split()[4] != "/"]
    assert lines and all("context=" in line for line in lines)


def test_masked_directories_have_the_mount_label_too(box):
    box.config["linux"]["maskedPaths"] = ["/sys/firmware", "/proc/acpi"]
    pid = box.create()
    assert label_of(f"/proc/{pid}/root/sys/firmware") == MOUNT_LABEL


def test_the_policy_holds_for_the_container(box):
    secret = os.path.join(box.dir, "secret")
    os.mkdir(secret)
    machine.mount("t", secret, "tmpfs", 0, "mode=777,context=system_u:object_r:secret_t")
    try:
        with open(os.path.join(secret, "file"), "w") as file:
            file.write("text\n")
        box.config["mounts"].append(
            {"destination": "/secret", "type": "bind", "source": secret, "options": ["rbind"]}
        )
        box.config["process"]["args"] = [
            "/bin/sh",
            "-c",
            "cat /secret/file; (echo x >/secret/file) 2>/dev/null || echo denied; (echo x >/dev/shm/y) && echo free",
        ]
        assert box.run().split() == ["text", "denied", "free"]
    finally:
        machine.umount(secret, machine.MNT_DETACH)


def test_exec_has_the_label_of_the_container_or_one_of_its_own(box):
    box.config["process"]["noNewPrivileges"] = False
    box.create()
    assert (
        box.call("exec", box.id, "/bin/cat", "/proc/self/attr/current").stdout.rstrip("\0\n")
        == LABEL
    )
    said = box.call(
        "exec", "--process-label", OTHER, box.id, "/bin/cat", "/proc/self/attr/current"
    ).stdout
    assert said.rstrip("\0\n") == OTHER


def test_a_label_that_the_policy_does_not_know_is_an_error_that_names_it(box):
    box.config["process"]["selinuxLabel"] = "system_u:system_r:nobody_t"
    box.write()
    failed = box.call("run", "--bundle", box.dir, box.id, check=False)
    assert failed.returncode != 0
    assert "nobody_t" in failed.stderr and "process.selinuxLabel" in failed.stderr


# keyctl(2): KEYCTL_GET_SECURITY of KEY_SPEC_SESSION_KEYRING, and of a key that this process adds to it
ASK = """
import ctypes
libc, text = ctypes.CDLL(None), ctypes.create_string_buffer(256)
key = libc.syscall(ctypes.c_long(248), b"user", b"name", b"text", ctypes.c_long(4), ctypes.c_long(-3))
for serial in (-3, key):
    libc.syscall(ctypes.c_long(250), ctypes.c_long(17), ctypes.c_long(serial), text, ctypes.c_long(256))
    print(text.value.decode())
"""


def test_the_session_keyring_has_the_label_of_the_process(box):
    """It may be viewed by its possessor alone, so the process asks; by itself it would be init's, kernel_t."""
    for directory in ("/usr", "/lib", "/lib64"):
        box.config["mounts"].append(
            {"destination": directory, "type": "bind", "source": directory, "options": ["rbind"]}
        )
    box.config["process"]["args"] = ["/usr/bin/python3", "-c", ASK]
    assert box.run().split() == [LABEL, LABEL]
    box.config["process"]["selinuxLabel"] = ""
    assert box.run().split() == ["system_u:system_r:kernel_t"] * 2
