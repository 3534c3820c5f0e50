"""`--record-seccomp`: a profile from a run, which the same program runs under and others do not."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from typing import Any

import pytest

from tests import drive
from tests.drive import Container

WORK = "ls / >/dev/null; id -u; mkdir /new; rmdir /new"
MACHINE = os.uname().machine


def beside(container: Container, name: str) -> str:
    """A path next to the root file system, where nothing is yet."""
    return os.path.join(container.bundle.path, name)


def recorded(container: Container, script: str, *options: str) -> dict[str, Any]:
    """The profile of a run."""
    path = beside(container, "profile.json")
    container.run(script, "--record-seccomp", path, *options, ok=None)
    return load(path)


def load(path: str) -> dict[str, Any]:
    """A profile from its file."""
    with open(path) as file:
        profile: dict[str, Any] = json.load(file)
    return profile


def names(profile: dict[str, Any]) -> set[str]:
    """All that it allows."""
    return {
        name
        for rule in profile["syscalls"]
        if rule["action"] == "SCMP_ACT_ALLOW"
        for name in rule["names"]
    }


def recorders() -> list[str]:
    """The recorders of this run that are alive: they end as our orphans."""
    drive.reap()
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/comm") as file:
                if file.read() == "anocir:record\n":
                    found.append(entry)
        except OSError:
            continue  # it has just ended
    return found


@pytest.mark.parametrize("sealed", [False, True])
def test_the_program_runs_under_its_profile_and_no_other_does(
    container: Container, sealed: bool
) -> None:
    container.process["noNewPrivileges"] = sealed
    profile = recorded(container, WORK)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    assert {"execve", "mkdir", "rmdir", "getuid", "write"} <= names(profile)
    assert not {"mount", "symlink", "ptrace"} & names(profile)

    container.linux["seccomp"] = profile
    assert container.run(WORK) == "0\n"
    assert "Operation not permitted" in container.try_run("ln -s a /b").stderr + container.errors()
    profile["syscalls"][0]["names"].remove("mkdir")
    container.try_run(WORK)
    assert "/new" in container.errors()


def started(container: Container, path: str) -> subprocess.Popen[bytes]:
    """A run that records, once its program is there."""
    container.bundle.sh("echo here; mkdir /new; exec sleep 1000")
    container.bundle.write()
    run = ("run", "--record-seccomp", path, "--bundle", container.bundle.path, container.id)
    with open(container.stdout_path, "wb") as out:
        child = drive.spawn(container.runtime.command(*run), stdout=out, stderr=out)
    drive.until("the program", lambda: container.bundle.has("/new"))
    return child


def written(path: str) -> None:
    """Wait for the profile; we are the parent, and before Linux 6.11 a filter lives until that has waited."""
    drive.until("the profile", lambda: drive.reap() or os.path.exists(path))


def test_a_program_that_fails_has_its_profile(container: Container) -> None:
    path = beside(container, "profile.json")
    assert container.try_run("mkdir /new; exit 3", "--record-seccomp", path).status == 3
    assert "mkdir" in names(load(path))
    assert " system calls, " in container.errors()


def test_the_recorder_shows_in_a_trace(container: Container) -> None:
    """It held none of the runtime's descriptors, so not the trace either, and died of that."""
    path, trace = beside(container, "profile.json"), beside(container, "trace")
    container.bundle.sh("mkdir /new")
    container.bundle.write()
    run = ("run", "--record-seccomp", path, "--bundle", container.bundle.path, container.id)
    container.runtime("--trace", trace, *run)
    assert "mkdir" in names(load(path))
    with open(trace) as file:
        assert ", SECCOMP_IOCTL_NOTIF_SEND, " in file.read()


def test_a_container_that_is_killed_has_its_profile(container: Container) -> None:
    path = beside(container, "profile.json")
    child = started(container, path)
    container.kill("KILL")
    assert drive.finish(child) == 128 + signal.SIGKILL
    assert "mkdir" in names(load(path))


def test_create_records_what_exec_does_too_until_the_last_has_ended(container: Container) -> None:
    path = beside(container, "profile.json")
    container.bundle.sh("exec sleep 1000")
    container.create("--record-seccomp", path)
    container.start()
    assert recorders()
    container.exec("sh", "-c", "ln -s a /b")
    assert not os.path.exists(path)
    container.delete("--force")
    written(path)
    assert "symlink" in names(load(path))
    drive.until("the end of the recorder", lambda: not recorders())


def test_a_killed_runtime_leaves_the_recorder_and_what_delete_takes(
    container: Container,
) -> None:
    path = beside(container, "profile.json")
    child = started(container, path)
    child.kill()
    drive.finish(child)
    assert container.exec("echo", "on").stdout == "on\n"
    container.delete("--force")
    written(path)
    assert "mkdir" in names(load(path))
    drive.until("the end of the recorder", lambda: not recorders())


def test_a_user_namespace(container: Container) -> None:
    container.bundle.use_user_namespace()
    assert "mkdir" in names(recorded(container, "mkdir /dev/shm/new"))


def test_a_base_keeps_its_arguments_and_is_told_of(container: Container) -> None:
    whole = names(recorded(container, WORK + "; chmod 600 /etc"))
    cond = {"index": 1, "value": 0o600, "op": "SCMP_CMP_EQ"}
    base = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": 95,
        "syscalls": [
            {"names": sorted(whole - {"chmod", "rmdir"}) + ["acct"], "action": "SCMP_ACT_ALLOW"},
            {"names": ["chmod"], "action": "SCMP_ACT_ALLOW", "args": [cond]},
            {"names": ["swapon"], "action": "SCMP_ACT_ERRNO", "errnoRet": 5},
        ],
    }
    path = beside(container, "base.json")
    with open(path, "w") as file:
        json.dump(base, file)
    profile = recorded(container, WORK + "; chmod 600 /etc; chmod 700 /etc", "--record-base", path)
    said = container.errors()
    # What the base denies is denied while it is recorded, and is not in the profile.
    assert "rmdir: '/new': Operation not supported" in said
    assert "chmod: /etc: Operation not supported" in said
    assert "rmdir" not in names(profile)
    assert "acct" not in names(profile)
    assert "not: " in said and " acct" in said
    assert [rule for rule in profile["syscalls"] if "args" in rule] == [base["syscalls"][1]]
    assert base["syscalls"][2] in profile["syscalls"]
    assert profile["defaultErrnoRet"] == 95


def test_the_containers_own_profile_is_the_base(container: Container) -> None:
    container.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["rmdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}],
    }
    profile = recorded(container, WORK)
    assert "No space left on device" in container.errors()
    assert "mkdir" in names(profile)
    assert "rmdir" not in names(profile)
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"


@pytest.mark.needs("compiler")
@pytest.mark.skipif(MACHINE != "x86_64", reason="[x86_64] its 32-bit entries")
def test_calls_of_the_other_architecture_have_their_names(
    container: Container, tmp_path: Any
) -> None:
    source = tmp_path / "probe.c"
    # mkdir of i386 is 39, at an address below 4 GiB; getpid of x86-64 is 39, which is not called
    source.write_text(
        'static char path[] = "/by32";\n'
        "void _start(void) { long r;\n"
        ' __asm__ volatile("int $0x80" : "=a"(r) : "a"(39), "b"(path), "c"(0755) : "memory");\n'
        ' __asm__ volatile("syscall" : : "a"(60), "D"(0)); }\n'
    )
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    program = os.path.join(container.bundle.rootfs, "bin/probe")
    subprocess.run(
        [compiler, "-static", "-nostdlib", "-no-pie", "-o", program, str(source)], check=True
    )
    container.process["args"] = ["/bin/probe"]
    profile = recorded(container, "")
    assert container.bundle.has("/by32")
    assert {"mkdir", "exit"} <= names(profile)
    assert "getpid" not in names(profile)
    assert set(profile["architectures"]) == {"SCMP_ARCH_X86_64", "SCMP_ARCH_X86"}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--record-base", "{here}/base.json"), "--record-base: is only for --record-seccomp"),
        (("--record-seccomp", "{here}/no/file"), "--record-seccomp: {here}/no/file: no such file"),
        (("--record-seccomp", "/dev/null"), "--record-seccomp: /dev/null is not a regular file"),
        (("--record-seccomp", "{here}"), "--record-seccomp: {here} is not a regular file"),
        (
            ("--record-seccomp", "{here}/out", "--record-base", "{here}/base.json"),
            "base.json: linux.seccomp.defaultAction: ",
        ),
        (
            ("--record-seccomp", "{here}/out", "--record-base", "{here}/agent.json"),
            "--record-base.syscalls[0].action: SCMP_ACT_NOTIFY",
        ),
    ],
)
def test_what_cannot_be_recorded_is_said_before_anything_is_made(
    container: Container, options: tuple[str, ...], said: str
) -> None:
    here = container.bundle.outside("recording")
    rule = {"names": ["acct"], "action": "SCMP_ACT_NOTIFY"}
    agent = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "listenerPath": "/agent"}
    for name, text in (
        ("base", {"defaultAction": "no"}),
        ("agent", agent),
    ):
        with open(f"{here}/{name}.json", "w") as file:
            json.dump(text, file)
    result = container.make("run", *[word.format(here=here) for word in options], ok=False)
    assert said.format(here=here) in container.errors(), result.explain()
    assert len(container.errors().splitlines()) == 1
    assert sorted(os.listdir(here)) == ["agent.json", "base.json"]
    assert not recorders()


def test_a_create_that_fails_leaves_no_file_and_no_recorder(container: Container) -> None:
    path = beside(container, "profile.json")
    container.process["args"] = ["/bin/nothing"]
    container.create("--record-seccomp", path, ok=False)
    assert not os.path.exists(path)
    drive.until("the end of the recorder", lambda: not recorders())


SERVER = "busybox httpd -p 127.0.0.1:8080 -h /etc; busybox wget -qO- http://127.0.0.1:8080/page"
SNAKE = """
import json, os, socket, subprocess, threading, time
thread = threading.Thread(target=time.sleep, args=(0.01,)); thread.start(); thread.join()
one, other = socket.socketpair(); one.send(b"sent"); print(other.recv(9).decode())
print(subprocess.check_output(["/bin/echo", json.dumps(sorted(os.listdir("/etc")))]).decode())
"""
BUILD = (
    "cd /tmp; echo 'int puts(const char *); int main(void) { puts(\"compiled\"); }' >a.c; "
    "/usr/bin/gcc -o a a.c && ./a"
)
GO = "cd /tmp; /usr/sbin/runc spec; grep -o ociVersion config.json; /usr/sbin/runc --version"


@pytest.mark.parametrize(
    ("script", "said", "needed"),
    [
        (SERVER, "of the page", ("listen",)),
        (f"/usr/bin/python3 -c '{SNAKE}'", "sent", ("socketpair",)),
        pytest.param(BUILD, "compiled", ("vfork",), marks=pytest.mark.needs("compiler")),
        pytest.param(GO, "ociVersion", ("clone", "clone3"), marks=pytest.mark.needs("runc")),
    ],
    ids=["httpd", "Python", "compiler", "Go"],
)
def test_a_workload_runs_under_its_own_profile_and_not_with_a_call_less(
    container: Container, script: str, said: str, needed: tuple[str, ...]
) -> None:
    """A server, an interpreter with threads, a compiler with its processes, the runtime of Go."""
    container.bundle.put("etc/page", "of the page")
    for name in ("lib", "lib64"):
        os.symlink(f"usr/{name}", os.path.join(container.bundle.rootfs, name))
    options = ["rbind", "ro"]
    container.config["mounts"] += [
        {"destination": "/usr", "source": "/usr", "type": "bind", "options": options},
        {"destination": "/tmp", "source": "tmpfs", "type": "tmpfs"},
    ]
    path = beside(container, "profile.json")
    first = container.try_run(script, "--record-seccomp", path)
    assert said in first.stdout, container.errors()
    profile = load(path)
    container.linux["seccomp"] = profile
    assert container.run(script) == first.stdout
    (rule,) = [rule for rule in profile["syscalls"] if rule["action"] == "SCMP_ACT_ALLOW"]
    assert set(needed) & set(rule["names"])
    rule["names"] = sorted(set(rule["names"]) - set(needed))
    assert container.try_run(script).stdout != first.stdout
