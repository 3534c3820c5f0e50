"""The same resources through the installed runc and through ours: the files must say the same.

Differences that are meant are a table with reasons: Debian 12 has runc 1.1.5.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest

from anocir import cgroup
from anocir.cgroup import choice, hierarchy
from tests.kernel import child

RUNC = shutil.which("runc")

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.needs("root"),
    pytest.mark.skipif(RUNC is None, reason="[runc] this machine has not runc"),
]

MIB = 1 << 20
TOP = f"/anocir-beside-{os.getpid()}"
FILES = [
    ("cpu", "cpu.shares", "cpu.weight"),
    ("cpu", "cpu.cfs_quota_us", "cpu.max"),
    ("cpu", "cpu.cfs_period_us", "cpu.max"),
    ("cpuset", "cpuset.cpus", "cpuset.cpus"),
    ("cpuset", "cpuset.mems", "cpuset.mems"),
    ("memory", "memory.limit_in_bytes", "memory.max"),
    ("memory", "memory.memsw.limit_in_bytes", "memory.swap.max"),
    ("memory", "memory.soft_limit_in_bytes", "memory.low"),
    ("memory", "memory.swappiness", "memory.low"),
    ("pids", "pids.max", "pids.max"),
    ("hugetlb", "hugetlb.2MB.limit_in_bytes", "hugetlb.2MB.max"),
    ("net_cls", "net_cls.classid", "pids.max"),
]
CASES = {
    "nothing": {},
    "zeros": {
        "cpu": {"shares": 0, "quota": 0, "period": 0},
        "memory": {"limit": 0, "swap": 0, "reservation": 0},
        "blockIO": {"weight": 0},
    },
    "shares": {"cpu": {"shares": 512}},
    "quota": {"cpu": {"quota": 30000}},
    "quota and period": {"cpu": {"quota": 30000, "period": 60000}},
    "no quota": {"cpu": {"quota": -1, "period": 60000}},
    "cpus": {"cpu": {"cpus": "0", "mems": "0"}},
    "memory": {"memory": {"limit": 64 * MIB}},
    "memory and swap": {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}},
    "no swap": {"memory": {"limit": 64 * MIB, "swap": 64 * MIB}},
    "swap without end": {"memory": {"limit": 64 * MIB, "swap": -1}},
    "memory without end": {"memory": {"limit": -1}},
    "reservation": {"memory": {"reservation": 32 * MIB}},
    "swappiness": {"memory": {"swappiness": 10}},
    "pids": {"pids": {"limit": 77}},
    "pids without end": {"pids": {"limit": -1}},
    "pids zero": {"pids": {"limit": 0}},
}
# (case, file): why ours is another
MEANT = {
    ("shares", "cpu.weight"): "the quadratic formula of runc 1.3.2, 1.1.5 has the linear one",
    ("pids zero", "pids.max"): "since spec 1.3 zero is a limit, 1.1.5 takes it as unset",
}


def snapshot(path: str) -> dict[str, str]:
    """The control files of a cgroup by name, in whatever hierarchies there are."""
    result = {}
    v1, v2 = hierarchy.own()
    for controller, old, new in FILES:
        for mountpoint, controllers, _ in v1:
            if controller in controllers.split(","):
                result[old] = text(f"{mountpoint}{path}/{old}")
        if not v1 and v2:
            result[new] = text(f"{v2[0]}{path}/{new}")
    return result


def text(path: str) -> str:
    try:
        with open(path) as file:
            return file.read().strip()
    except FileNotFoundError:
        return "missing"


def with_runc(tmp_path, resources) -> dict[str, str]:
    path = f"{TOP}/runc"
    config = {
        "ociVersion": "1.0.2",
        "process": {"args": ["/bin/sleep", "300"], "cwd": "/", "user": {"uid": 0, "gid": 0}},
        "root": {"path": "/", "readonly": True},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs"},
        ],
        "linux": {
            "cgroupsPath": path,
            "namespaces": [{"type": "mount"}, {"type": "pid"}],
            "resources": {"devices": [{"allow": False, "access": "rwm"}], **resources},
        },
    }
    rootfs = tmp_path / "rootfs"
    for name in ("bin", "dev", "proc", "sys"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin" / "sleep")
    config["root"]["path"] = str(rootfs)
    (tmp_path / "config.json").write_text(json.dumps(config))
    base = [RUNC, "--root", str(tmp_path / "state")]
    name = f"beside-{os.getpid()}"
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
    result = subprocess.run(
        [*base, "create", "--bundle", str(tmp_path), name],
        stderr=open(tmp_path / "err", "w"),
        check=False,
        **quiet,
    )
    try:
        assert result.returncode == 0, (tmp_path / "err").read_text()
        return snapshot(path)
    finally:
        subprocess.run(
            [*base, "delete", "--force", name], stderr=subprocess.DEVNULL, check=False, **quiet
        )


def with_ours(resources) -> dict[str, str]:
    class Settings:
        systemd_cgroup = False
        cgroup_manager = ""
        rootless = "false"

    path = f"{TOP}/ours"
    manager = cgroup.load(choice.choose(Settings, {"linux": {"cgroupsPath": path}}, "ours"))
    try:
        manager.prepare({"devices": [{"allow": False, "access": "rwm"}], **resources})
        pid = child.sleeper()
        manager.join(pid)
        manager.finish(pid)
        result = snapshot(path)
        manager.kill(9)
        os.waitpid(pid, 0)
        return result
    finally:
        manager.destroy()


@pytest.mark.parametrize("case", CASES)
def test_the_files_say_what_they_say_under_runc(tmp_path, case):
    try:
        theirs = with_runc(tmp_path, CASES[case])
    finally:
        for mountpoint in {row[0] for row in [*hierarchy.own()[0], hierarchy.own()[1]] if row}:
            for path in (f"{mountpoint}{TOP}/runc", mountpoint + TOP):  # runc leaves the parent
                if os.path.isdir(path):
                    os.rmdir(path)
    ours = with_ours(CASES[case])
    differing = {name for name in theirs if theirs[name] != ours[name]}
    meant = {name for each, name in MEANT if each == case}
    assert {name: (theirs[name], ours[name]) for name in differing - meant} == {}
