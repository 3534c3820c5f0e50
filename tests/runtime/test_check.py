"""`check`: a report of the host, each wrong thing provoked, nothing changed."""

from __future__ import annotations

import json
import os
import subprocess

import pytest

from tests import blocked, machine
from tests.drive import Container

pytestmark = pytest.mark.runtime


@pytest.fixture
def box(container: Container) -> Container:
    if container.runtime.name != "anocir":
        pytest.skip("[anocir] no other runtime has it")
    container.bundle.sh("true")
    container.bundle.write()
    return container


def report(box: Container, *words: str, prefix: tuple[str, ...] = (), **more) -> tuple[int, dict]:
    """The status and the findings by name or JSON path."""
    done = subprocess.run(
        [*prefix, box.runtime.path, "--root", box.runtime.root, "check", "--format", "json", *words],
        capture_output=True, text=True, check=False, **more,
    )  # fmt: skip
    assert done.stderr == "", done.stderr
    document = json.loads(done.stdout)
    assert document["usable"] == (done.returncode == 0)
    return done.returncode, {row.get("path", row["name"]): row for row in document["findings"]}


def test_a_host_that_runs_containers_is_usable(box: Container) -> None:
    status, found = report(box, "--bundle", box.bundle.path)
    assert status == 0
    assert found["kernel"]["text"].startswith(f"Linux {os.uname().release}")
    assert found["interpreter"]["state"] == found["state"]["state"] == "ok"
    assert {row["state"] for row in found.values()} <= {"ok", "limited"}
    assert all(row["text"] for row in found.values())


def test_the_text_says_state_name_and_remedy(box: Container) -> None:
    done = box.runtime.bare("check", env={"PATH": "/nowhere"})
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ok       kernel: Linux ")
    at = lines.index("limited  criu: not installed")
    assert lines[at + 2].strip() == "do: install the package criu"


def test_a_capability_that_is_missing_is_named(box: Container) -> None:
    prefix = ("setpriv", "--bounding-set", "-sys_admin,-mknod")
    status, found = report(box, prefix=prefix)
    assert status == 1
    assert found["CAP_SYS_ADMIN"]["state"] == "missing"
    assert "bounding set" in found["CAP_SYS_ADMIN"]["text"]
    assert found["CAP_MKNOD"]["state"] == "limited"


def test_a_user_is_told_what_rootless_needs(box: Container) -> None:
    status, found = report(box, prefix=("setpriv", "--reuid=65533", "--clear-groups"))
    assert status == 1  # the state directory is root's
    assert "spec --rootless" in found["capabilities"]["costs"]
    assert found["/etc/subuid"]["state"] == "limited"
    assert found["state"]["state"] == "missing"
    assert not [row for row in found.values() if "filter around this process" in row["text"]]


@pytest.mark.parametrize("number", [437, 442, 434])
def test_a_system_call_that_is_missing_is_named(box: Container, number: int) -> None:
    names = {437: "openat2", 442: "mount_setattr", 434: "pidfd_open"}
    _, found = report(box, preexec_fn=blocked.before_exec([number]))
    row = found[names[number]]
    assert row["state"] == "limited" and "no such system call" in row["text"] and row["costs"]


@pytest.mark.parametrize(
    ("change", "path", "told"),
    [
        (lambda c: c["mounts"].append({"destination": "/v", "type": "bind", "source": "/no/where"}),
         "source", "/no/where does not exist"),
        (lambda c: c["mounts"].append({"destination": "/v", "type": "nofs", "source": "x"}),
         "type", "does not list nofs"),
        (lambda c: c["linux"].setdefault("resources", {}).update(rdma={"mlx": {"hcaHandles": 3}}),
         "linux.resources.rdma", "no rdma controller"),
    ],
)  # fmt: skip
def test_what_a_bundle_asks_in_vain_has_its_path(
    box: Container, change, path: str, told: str
) -> None:
    change(box.bundle.config)
    box.bundle.write()
    if "rdma" in told and "rdma" in open("/proc/cgroups").read():
        pytest.skip("[cgroup:rdma] this machine has it")
    _, found = report(box, "--bundle", box.bundle.path)
    rows = [row for where, row in found.items() if where.endswith(path)]
    assert rows and told in rows[0]["text"] and rows[0]["state"] in ("missing", "limited")


def test_a_bundle_with_a_mistake_is_refused_as_create_does(box: Container) -> None:
    box.process["cwd"] = "relative"
    box.bundle.write()
    done = box.runtime.bare("check", "--bundle", box.bundle.path, ok=None)
    assert done.status == 1 and done.stderr.startswith("anocir: process.cwd: must be an absolute")


def test_a_rehearsal_makes_nothing_and_refuses_what_create_refuses(box: Container) -> None:
    """Not even a cached filter: the state directory is looked at, and stays as it is."""
    box.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    box.bundle.resources["pids"] = {"limit": 5}
    words = ("create", "--dry-run", "--bundle", box.bundle.path, box.id)
    directory = machine.cgroup_directory("pids", box.cgroup)

    def rehearse(ok: bool = True) -> str:
        box.bundle.write()
        before = sorted(os.listdir(box.runtime.root))
        said = box.runtime(*words, ok=ok).stderr
        assert sorted(os.listdir(box.runtime.root)) == before and not os.path.exists(directory)
        return said

    assert rehearse() == ""
    missing = os.path.join(box.bundle.path, "no", "state")
    assert "--root" in box.runtime.bare("--root", missing, *words, ok=False).stderr
    assert not os.path.exists(os.path.dirname(missing))
    unwritten = box.runtime(*words, "--pid-file", "/no/such/file", ok=False).stderr
    assert "--pid-file: /no/such does not exist" in unwritten
    unlimited = machine.missing("cgroup:rdma")  # with the controller only the write is refused
    for change, undo, text in (
        (lambda: box.linux.update(sysctl={"vm.swappiness": "1"}), lambda: box.linux.pop("sysctl"), "vm.swappiness"),
        (lambda: box.bundle.resources.update(rdma={"no": {"hcaHandles": 1}}), lambda: box.bundle.resources.pop("rdma"), "linux.resources.rdma"),
        (lambda: box.bundle.set_namespace("ipc", "/etc/passwd"), lambda: box.bundle.set_namespace("ipc"), "is not a namespace"),
        (lambda: box.bundle.config["root"].update(path="none"), lambda: box.bundle.config["root"].update(path="rootfs"), "root.path"),
    ):  # fmt: skip
        if "rdma" in text and not unlimited:
            continue
        change()
        told = rehearse(ok=False)
        assert text in told
        assert box.create(ok=False).stderr.endswith(told)
        undo()
    box.create()
    assert "exists" in box.runtime(*words, ok=False).stderr
