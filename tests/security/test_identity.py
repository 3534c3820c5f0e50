"""T-ID: users, groups and capabilities (CVE-2022-29162, CVE-2026-30892, CVE-2016-3697, CVE-2022-2989)."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests import drive
from tests.security.conftest import Arena

CAP_CHOWN, CAP_KILL, CAP_SETUID, CAP_NET_RAW, CAP_SYS_PTRACE = 0, 5, 7, 13, 19
SLEEP = "sleep 100"


def status(text: str) -> dict[str, str]:
    """The lines of a /proc/PID/status."""
    return {
        key: value.strip() for key, _, value in (row.partition(":") for row in text.splitlines())
    }


def bits(*numbers: int) -> int:
    return sum(1 << number for number in numbers)


# capabilities ------------------------------------------------------------------------------------------


def kept_over_exec(arena: Arena, uid: int, **modules: str) -> dict[str, str]:
    """The status of a process that exec gave a capability."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.launch(SLEEP)
    options = ["--cap", "CAP_SYS_PTRACE", "--user", str(uid)]
    return status(container.exec("/bin/cat", "/proc/self/status", options=options).stdout)


@pytest.mark.parametrize("uid", [0, 1000])
def test_an_added_capability_is_never_inheritable(arena: Arena, uid: int) -> None:
    """T-ID1, CVE-2022-29162, CVE-2022-27650, CVE-2025-27612."""
    found = kept_over_exec(arena, uid)
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == 0
    assert int(found["CapBnd"], 16) & bits(CAP_SYS_PTRACE)


def test_control_an_inheritable_one_is_seen(arena: Arena) -> None:
    generous = (
        "_as_it_is = _capabilities\n"
        "def _capabilities(sets, added):\n"
        "    result = _as_it_is(sets, added)\n"
        "    return {**result, 'inheritable': list(added), 'ambient': list(added)}\n"
    )
    found = kept_over_exec(arena, 1000, host__exec=generous)
    assert int(found["CapInh"], 16) == int(found["CapAmb"], 16) == bits(CAP_SYS_PTRACE)


SETS = {
    0: {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "effective": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
    },
    1000: {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_SETUID"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": ["CAP_CHOWN"],
    },
}
# What execve(2) makes of them: root gets all of the bounding set, a user what is ambient.
EXPECTED = {
    0: {
        "CapBnd": bits(CAP_CHOWN, CAP_KILL, CAP_SETUID),
        "CapPrm": bits(CAP_CHOWN, CAP_KILL, CAP_SETUID),
        "CapEff": bits(CAP_CHOWN, CAP_KILL, CAP_SETUID),
        "CapInh": 0,
        "CapAmb": 0,
    },
    1000: {
        "CapBnd": bits(CAP_CHOWN, CAP_KILL, CAP_SETUID),
        "CapPrm": bits(CAP_CHOWN),
        "CapEff": bits(CAP_CHOWN),
        "CapInh": bits(CAP_CHOWN),
        "CapAmb": bits(CAP_CHOWN),
    },
}
WHO = "cat /proc/self/status; echo Securebits: $(/bin/probe syscall prctl 27)"


def credentials(arena: Arena, uid: int, **modules: str) -> list[dict[str, int]]:
    """What run and exec give to a process, as numbers."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.process["user"] = {"uid": uid, "gid": uid, "additionalGids": [7, 8]}
    container.process["capabilities"] = SETS[uid]
    container.process["noNewPrivileges"] = True
    container.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
    container.bundle.make_directory("/out", 0o777)
    container.launch(f"({WHO}) > /out/status; mv /out/status /out/done; {SLEEP}")
    texts = [container.wait_file("/out/done"), container.exec("/bin/sh", "-c", WHO).stdout]
    rows = []
    for text in texts:
        found = status(text)
        row = {key: int(found[key], 16) for key in EXPECTED[uid]}
        row.update({key: int(found[key]) for key in ("NoNewPrivs", "Seccomp", "Securebits")})
        row["uids"] = sorted({int(word) for word in found["Uid"].split()}) == [uid]
        row["gids"] = sorted({int(word) for word in found["Gid"].split()}) == [uid]
        row["groups"] = found["Groups"].split() == ["7", "8"]
        rows.append(row)
    return rows


def wanted(uid: int) -> dict[str, int]:
    rest = {
        "NoNewPrivs": 1,
        "Seccomp": 2,
        "Securebits": 0,
        "uids": True,
        "gids": True,
        "groups": True,
    }
    return {**EXPECTED[uid], **rest}


@pytest.mark.parametrize("uid", [0, 1000])
def test_credentials_are_those_of_the_configuration(arena: Arena, uid: int) -> None:
    """T-ID5: bit for bit, for the container's process and for exec."""
    assert credentials(arena, uid) == [wanted(uid)] * 2


@pytest.mark.parametrize(
    ("key", "code"),
    {
        "CapBnd": "def drop_bounding(context, keep):\n    return\n",
        "NoNewPrivs": (
            "def no_new_privs(context):\n    return\n"
            "seccomp_as_it_is = seccomp\n"
            "def seccomp(context, program):\n    return\n"
        ),
        "CapAmb": (
            "def capabilities(context, effective, permitted, inheritable, ambient, longer):\n"
            "    oneself.capset(effective, permitted, inheritable)\n"
        ),
        "uids": "def user(context, uid, gid, additional_gids):\n    oneself.setresgid(gid)\n",
    }.items(),
)
def test_control_a_forgotten_step_is_seen(arena: Arena, key: str, code: str) -> None:
    for row in credentials(arena, 1000, inside__credentials=code):
        assert row[key] != wanted(1000)[key]


# users and groups --------------------------------------------------------------------------------------

NO_ID = [4294967295, 4294967296, -1, 1.5, "0", True, None]


def accepted_ids(arena: Arena, runtime: drive.Runtime | None = None) -> dict[str, str]:
    """The values that are no ids and are taken as uid and gid, with the uid that came of it."""
    taken = {}
    for value in NO_ID:
        container = arena.container(runtime)
        container.process["user"] = {"uid": value, "gid": value}
        result = container.try_run("id -u")
        if result.status == 0:
            taken[repr(value)] = result.line
        container.delete("--force", ok=None)
    return taken


def test_what_is_no_id_is_refused(arena: Arena) -> None:
    """T-ID2: -1 and 2**32-1 mean "unchanged" to setresuid(2), which is root here."""
    assert accepted_ids(arena) == {}


def test_the_highest_id_works(arena: Arena) -> None:
    """T-ID2: 2**32-2."""
    container = arena.container()
    container.process["user"] = {"uid": 4294967294, "gid": 4294967294}
    assert container.run("id -u; id -g") == "4294967294\n4294967294\n"


@pytest.mark.needs("crun-1.8.1")
def test_control_crun_runs_them_as_root(arena: Arena) -> None:
    taken = accepted_ids(arena, arena.installed("crun"))
    assert taken["4294967295"] == "0"


UNCHECKED = {"model__spec__kinds": "def integer(value, bounds):\n    return\n"}
UNVERIFIED = {
    "inside__credentials": (
        "def user(context, uid, gid, additional_gids):\n"
        "    posix.setresgid(gid, gid, gid)\n    posix.setresuid(uid, uid, uid)\n"
    )
}


def test_control_unchecked_ids_are_root(arena: Arena) -> None:
    taken = accepted_ids(arena, arena.altered(**UNCHECKED, **UNVERIFIED))
    assert taken["4294967295"] == taken["-1"] == "0"


def test_an_id_that_the_kernel_ignored_is_found_out(arena: Arena) -> None:
    """T-ID2: the second defence alone, reading back, also holds."""
    taken = accepted_ids(arena, arena.altered(**UNCHECKED))
    assert "4294967295" not in taken and "-1" not in taken


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_groups_of_the_caller_are_not_inherited(arena: Arena, verb: str) -> None:
    """T-ID3, CVE-2022-2989, CVE-2022-36109."""
    assert inherited_groups(arena, verb) == []


def inherited_groups(arena: Arena, verb: str, **modules: str) -> list[str]:
    container = arena.container(arena.altered(**modules) if modules else None)
    caller: Any = {"extra_groups": [4242, 4343]}
    if verb == "run":
        text = container.run("cat /proc/self/status", **caller)
    else:
        container.launch(SLEEP)
        text = container.exec("/bin/cat", "/proc/self/status", **caller).stdout
    return status(text)["Groups"].split()


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_control_without_setgroups_they_are(arena: Arena, verb: str) -> None:
    none = "def setgroups(gids):\n    return\n"
    assert inherited_groups(arena, verb, linux__oneself=none) == ["4242", "4343"]


USERS = {
    "1": "1 5",
    "1:2": "1 2",
    "01": "1 5",
    "0": "0 5",
    "+1": "",
    "1:": "",
    ":1": "",
    "a": "",
    "99999999999": "",
    "4294967295": "",
    "-1": "",
    " 1": "",
    "1_0": "",
    "１": "",
    "": "0 5",
}


def exec_users(arena: Arena, **modules: str) -> dict[str, str]:
    """What exec --user makes of a text: uid and gid, nothing if it is refused."""
    container = arena.container(arena.altered(**modules) if modules else None)
    container.process["user"] = {"uid": 0, "gid": 5}
    # Names of the image that look like numbers, and a number that is another user's name.
    container.bundle.put(
        "/etc/passwd", "a:x:0:0::/:/bin/sh\n1:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n"
    )
    container.bundle.put("/etc/group", "a:x:0:\n1:x:0:\n")
    container.launch(SLEEP)
    found = {}
    for text in USERS:
        options = [f"--user={text}"]
        command = ["/bin/sh", "-c", "echo $(id -u) $(id -g)"]
        result = container.exec(*command, ok=None, options=options)
        found[text] = result.line if result.status == 0 else ""
    return found


def test_exec_takes_numbers_only(arena: Arena) -> None:
    """T-ID4, T-ID6, CVE-2026-30892, CVE-2026-46680, CVE-2016-3697: names would come from the image."""
    assert exec_users(arena) == USERS


def test_control_a_lenient_number_is_seen(arena: Arena) -> None:
    lenient = "def _number(text, option):\n    return int(text) & 0xFFFFFFFF\n"
    found = exec_users(arena, host__exec=lenient)
    assert found["+1"] and found[" 1"] and found["１"] and found["99999999999"]


def test_control_a_name_of_the_image_is_seen(arena: Arena) -> None:
    by_name = (
        "def _user(text):\n"
        "    for line in files.read_file(_root[0] + '/etc/passwd').decode().split('\\n'):\n"
        "        if line.split(':')[0] == text:\n"
        "            return {'uid': int(line.split(':')[2])}\n"
        "    return {'uid': int(text)}\n"
        "_root = ['']\n"
        "_process_as_it_is = _process\n"
        "def _process(config, options, argv):\n"
        "    _root[0] = config['root']['path']\n"
        "    return _process_as_it_is(config, options, argv)\n"
    )
    container = arena.container(arena.altered(host__exec=by_name))
    container.config["root"]["path"] = os.path.realpath(container.bundle.rootfs)
    container.bundle.put("/etc/passwd", "1:x:0:0::/:/bin/sh\n")
    container.launch(SLEEP)
    assert container.exec("/bin/id", "-u", options=["--user", "1"]).line == "0"


def test_names_of_the_image_change_no_user(arena: Arena) -> None:
    """T-ID6: neither for the process of config.json."""
    container = arena.container()
    container.bundle.put("/etc/passwd", "1000:x:0:0::/:/bin/sh\n0:x:1000:1000::/:/bin/sh\n")
    container.process["user"] = {"uid": 1000, "gid": 1000}
    assert container.run("cat /proc/self/status | grep -E '^(U|G)id'") == (
        "Uid:\t1000\t1000\t1000\t1000\nGid:\t1000\t1000\t1000\t1000\n"
    )
