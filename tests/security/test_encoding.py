"""T-ENC: what is lost between JSON, Python and the kernel (CVE-2021-43784, CVE-2017-18367, CVE-2019-9893)."""

from __future__ import annotations

import json
import os
from typing import Any, Callable

import pytest

from tests import drive
from tests.security.conftest import Arena

# NUL in every string ---------------------------------------------------------------------------------------


def _fields() -> dict[str, Callable[[dict[str, Any]], Any]]:
    def mount(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        entry = {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", key: value}
        return lambda config: config["mounts"].append(entry)

    def process(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda config: config["process"].update({key: value})

    def linux(key: str, value: Any) -> Callable[[dict[str, Any]], Any]:
        return lambda config: config["linux"].update({key: value})

    hook = {"path": "/bin/true", "args": ["true"]}
    return {
        "args[0]": process("args", ["/bin/true\0x"]),
        "args[1]": process("args", ["/bin/true", "a\0b"]),
        "env": process("env", ["A=b\0c"]),
        "cwd": process("cwd", "/tmp\0/x"),
        "root": lambda config: config["root"].update(path="rootfs\0/x"),
        "hostname": lambda config: config.update(hostname="a\0b"),
        "domainname": lambda config: config.update(domainname="a\0b"),
        "mount destination": mount("destination", "/tmp\0/../x"),
        "mount source": mount("source", "tmpfs\0x"),
        "mount type": mount("type", "tmpfs\0x"),
        "mount option": mount("options", ["mode=755\0,mode=777"]),
        "masked path": linux("maskedPaths", ["/proc/keys\0x"]),
        "read-only path": linux("readonlyPaths", ["/proc/sys\0x"]),
        "cgroups path": linux("cgroupsPath", "/a\0b"),
        "sysctl value": linux("sysctl", {"net.ipv4.ip_forward": "1\0x"}),
        "sysctl name": linux("sysctl", {"net.ipv4.ip_forward\0x": "1"}),
        "device path": linux(
            "devices", [{"path": "/dev/x\0y", "type": "c", "major": 1, "minor": 3}]
        ),
        "hook path": lambda config: config.update(
            hooks={"prestart": [{**hook, "path": "/bin/true\0x"}]}
        ),
        "hook args": lambda config: config.update(
            hooks={"prestart": [{**hook, "args": ["true", "a\0b"]}]}
        ),
        "annotation": lambda config: config.update(annotations={"a": "b\0c"}),
    }


def accepted_nuls(arena: Arena, runtime: drive.Runtime | None = None) -> list[str]:
    """The properties in which a NUL was accepted."""
    found = []
    for name, change in _fields().items():
        container = arena.container(runtime)
        change(container.config)
        result = container.create(ok=None)
        if result.status == 0:
            found.append(name)
        container.delete("--force", ok=None)
    return found


def test_a_nul_is_refused_everywhere(arena: Arena) -> None:
    """T-ENC1: C ends a string where Python goes on."""
    # An annotation never reaches the kernel.
    assert set(accepted_nuls(arena)) <= {"annotation"}


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_accepts_them_cut_off(arena: Arena) -> None:
    found = accepted_nuls(arena, arena.installed("crun"))
    assert {"args[1]", "env", "cwd", "mount destination", "hostname"} <= set(found)


# keys ------------------------------------------------------------------------------------------------------


def ambiguous(arena: Arena, extra: str, runtime: drive.Runtime | None = None) -> drive.Result:
    """Run a configuration with text put before its process's args."""
    container = arena.container(runtime)
    container.process["args"] = ["/bin/echo", "second"]
    container.bundle.write()
    path = os.path.join(container.bundle.path, "config.json")
    with open(path) as file:
        text = json.dumps(json.load(file))
    with open(path, "w") as file:
        file.write(text.replace('"process": {', extra, 1))
    return container.make("run", ok=None, write=False)


TWICE = '"process": {"args": ["/bin/echo", "first"], '
OTHER_CASE = '"Process": {"args": ["/bin/echo", "first"], "cwd": "/"}, "process": {'
OTHER_CASE_INSIDE = '"process": {"Args": ["/bin/echo", "first"], "ARGS": [], '


def test_a_key_that_stands_twice_is_refused(arena: Arena) -> None:
    """T-ENC2: parsers disagree on which one counts."""
    result = ambiguous(arena, TWICE)
    assert result.status != 0 and "duplicate" in result.stderr and result.stdout == ""


@pytest.mark.parametrize("extra", [OTHER_CASE, OTHER_CASE_INSIDE], ids=["Process", "Args"])
def test_a_key_in_another_case_is_another_key(arena: Arena, extra: str) -> None:
    """T-ENC2: Go's parser takes it for the same."""
    assert ambiguous(arena, extra).stdout == "second\n"


@pytest.mark.needs("runc-1.1.5+ds1", "crun-1.8.1")
def test_control_runc_and_crun_disagree(arena: Arena) -> None:
    assert ambiguous(arena, TWICE, arena.installed("runc")).stdout == "second\n"
    assert ambiguous(arena, TWICE, arena.installed("crun")).stdout == "first\n"


# much of everything ----------------------------------------------------------------------------------------

KINDS = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def shared_namespaces(arena: Arena, **modules: str) -> tuple[list[str], int, int]:
    """Ask for all namespaces with a long environment and many id maps: those not new, maps, bytes."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.bundle.use_user_namespace()
    container.bundle.set_namespace("cgroup")
    container.bundle.drop_mount("/dev/mqueue")  # which needs a namespace of one's own
    for key in ("uidMappings", "gidMappings"):
        container.linux[key] = [
            {"containerID": index, "hostID": 100000 + 2 * index, "size": 1} for index in range(300)
        ]
    container.process["env"] += [f"V{index}={'x' * 1000}" for index in range(70)]
    container.launch(
        "cat /proc/self/uid_map > /tmp/maps; env > /tmp/env; echo > /tmp/ready; sleep 100"
    )
    container.wait_file("/tmp/ready")
    pid = container.pid
    shared = [
        kind for kind in KINDS
        if os.stat(f"/proc/{pid}/ns/{kind}").st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino
    ]  # fmt: skip
    maps = container.bundle.read("/tmp/maps").count("\n")
    return shared, maps, len(container.bundle.read("/tmp/env"))


def test_much_of_everything_changes_no_namespace(arena: Arena) -> None:
    """T-ENC3, CVE-2021-43784: 300 id maps and an environment of 70 KiB."""
    shared, maps, size = shared_namespaces(arena)
    assert shared == [] and maps == 300 and size > 70000


def test_too_many_id_maps_are_refused(arena: Arena) -> None:
    """T-ENC3: the kernel takes 340; none may be dropped in silence."""
    container = arena.container()
    container.bundle.use_user_namespace()
    for key in ("uidMappings", "gidMappings"):
        container.linux[key] = [
            {"containerID": index, "hostID": 100000 + 2 * index, "size": 1} for index in range(500)
        ]
    container.refused()


def test_control_a_lost_namespace_is_seen(arena: Arena) -> None:
    lose = (
        "_unshare_as_it_is = unshare\n"
        "def unshare(context, flags):\n    _unshare_as_it_is(context, flags & ~0x08000000)\n"
    )
    assert shared_namespaces(arena, inside__namespaces=lose)[0] == ["ipc"]


# seccomp ---------------------------------------------------------------------------------------------------

DENY = {"action": "SCMP_ACT_ERRNO", "errnoRet": 1}


def made_directories(arena: Arena, profile: dict[str, Any] | None) -> list[str]:
    """The entries of the kernel by which mkdir(2) still works."""
    container = arena.container()
    arena.install(container, "attack", "/bin/attack")
    if profile:
        container.linux["seccomp"] = profile
    found = []
    for verb in ("dir", "enter32", "enterx32"):
        container.process["args"] = ["/bin/attack", verb, f"/tmp/{verb}"]
        result = container.make("run", ok=None)
        if container.bundle.has(f"/tmp/{verb}"):
            found.append(verb)
        else:
            assert "done" not in result.stdout
    return found


@pytest.mark.parametrize(
    "architectures",
    [None, ["SCMP_ARCH_X86_64"], ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]],
    ids=["unnamed", "native", "all"],
)
def test_a_filter_knows_every_entry_of_the_kernel(
    arena: Arena, architectures: list[str] | None
) -> None:
    """T-ENC4: 32-bit and x32 numbers of a call that is denied."""
    profile: dict[str, Any] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], **DENY}],
    }
    if architectures and os.uname().machine == "x86_64":
        profile["architectures"] = architectures
    assert made_directories(arena, profile) == []


def test_control_without_a_filter_they_are_made(arena: Arena) -> None:
    expected = ["dir", "enter32"] if os.uname().machine == "x86_64" else ["dir"]
    assert made_directories(arena, None)[: len(expected)] == expected


BIG = 1 << 32
# (conditions that deny, first argument, second, denied)
COMPARISONS: list[tuple[list[dict[str, Any]], int, int, bool]] = [
    ([{"index": 0, "value": BIG, "op": "SCMP_CMP_EQ"}], BIG, 0, True),
    ([{"index": 0, "value": BIG, "op": "SCMP_CMP_EQ"}], 0, 0, False),
    ([{"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}], BIG, 0, False),
    ([{"index": 0, "value": BIG, "op": "SCMP_CMP_GE"}], BIG, 0, True),
    ([{"index": 0, "value": BIG, "op": "SCMP_CMP_GE"}], 8, 0, False),
    ([{"index": 0, "value": BIG + 8, "op": "SCMP_CMP_GT"}], BIG + 8, 0, False),
    ([{"index": 0, "value": BIG + 7, "op": "SCMP_CMP_GT"}], BIG + 8, 0, True),
    ([{"index": 0, "value": BIG * 2, "op": "SCMP_CMP_LT"}], BIG + 8, 0, True),
    ([{"index": 0, "value": 8, "op": "SCMP_CMP_LE"}], BIG, 0, False),
    ([{"index": 0, "value": 0, "op": "SCMP_CMP_NE"}], BIG, 0, True),
    (
        [
            {"index": 0, "value": BIG, "valueTwo": BIG, "op": "SCMP_CMP_MASKED_EQ"},
        ],
        BIG + 8, 0, True,
    ),
    (
        [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 8, "op": "SCMP_CMP_EQ"},
        ],
        0, 0, False,
    ),
    (
        [
            {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
            {"index": 1, "value": 8, "op": "SCMP_CMP_EQ"},
        ],
        0, 8, True,
    ),
]  # fmt: skip


def wrong_comparisons(arena: Arena, runtime: drive.Runtime | None = None) -> list[int]:
    """The rows of the table in which the kernel's answer is another."""
    wrong = []
    for index, (args, first, second, denied) in enumerate(COMPARISONS):
        container = arena.container(runtime)
        arena.install(container, "attack", "/bin/attack")
        container.linux["seccomp"] = {
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["personality"], "args": args, **DENY}],
        }
        container.process["args"] = ["/bin/attack", "personality", str(first), str(second)]
        result = container.make("run", ok=None)
        if result.line != ("EPERM" if denied else "done"):
            wrong.append(index)
    return wrong


def test_arguments_are_compared_whole_and_all(arena: Arena) -> None:
    """T-ENC4, CVE-2019-9893, CVE-2017-18367: 64 bits, and all conditions of a rule together."""
    assert wrong_comparisons(arena) == []


def test_control_halves_and_alternatives_are_seen(arena: Arena) -> None:
    halve = (
        "_filter_as_it_is = seccomp_filter\n"
        "def seccomp_filter(settings, config, no_new_privileges):\n"
        "    profile = (config.get('linux') or {}).get('seccomp') or {}\n"
        "    for rule in profile.get('syscalls') or []:\n"
        "        for arg in rule.get('args') or []:\n"
        "            arg['value'] &= 0xFFFFFFFF\n"
        "        rule['args'] = (rule.get('args') or [])[:1]\n"
        "    return _filter_as_it_is(settings, config, no_new_privileges)\n"
    )
    wrong = wrong_comparisons(arena, arena.altered(host__program=halve))
    assert {0, 1, 11} <= set(wrong)


# ids -------------------------------------------------------------------------------------------------------

BAD_IDS = [
    "../x", ".", "..", "a/b", "", "x" * 1100, "a b", "a\nb", "é", "a;b", "a%n", "a\\b", "/x", "a:b", "-x y",
]  # fmt: skip
GOOD_IDS = ["_", "+x", "A.b", "9"]


def accepted_names(
    arena: Arena, names: list[str], runtime: drive.Runtime | None = None
) -> list[str]:
    """The ids under which a container could be made."""
    container = arena.container(runtime)
    container.bundle.write()
    found = []
    for name in names:
        with open(container.stdout_path, "ab") as out:
            result = container.runtime(
                "create",
                "--bundle",
                container.bundle.path,
                "--",
                name,
                ok=None,
                stdout=out,
                stderr=out,
            )
        if result.status == 0:
            found.append(name)
            container.runtime("delete", "--force", "--", name, ok=None)
    return found


def test_an_id_is_a_plain_name(arena: Arena) -> None:
    """T-ENC5: it becomes the name of directories, sockets, cgroups and keyrings."""
    before = sorted(os.listdir(os.path.dirname(arena.defender.root)))
    assert accepted_names(arena, BAD_IDS) == []
    after = sorted(os.listdir(os.path.dirname(arena.defender.root)))
    assert [name for name in after if name not in before and not name.startswith("t")] == []


def test_usual_ids_are_accepted(arena: Arena) -> None:
    """T-ENC5: runc's grammar."""
    assert accepted_names(arena, GOOD_IDS) == GOOD_IDS


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_accepts_any_name(arena: Arena) -> None:
    assert {"a b", "a\nb", "a;b"} <= set(accepted_names(arena, BAD_IDS, arena.installed("crun")))
