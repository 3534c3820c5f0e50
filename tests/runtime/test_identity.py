"""Identity bit for bit: ids, groups, the five capability sets, securebits and no_new_privs, of create and exec.

Two witnesses beside the runtime: a static program inside, which asks the kernel by system calls (what python-prctl
wraps), and /proc/PID/status from outside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import Any, Callable, Iterator

import pytest

from tests import drive, machine
from tests.drive import Container

HERE = os.path.dirname(os.path.abspath(__file__))
pytestmark = pytest.mark.needs("compiler")

# include/uapi/linux/capability.h, by number
NAMES = (
    "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
    "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT "
    "SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE "
    "AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ "
    "PERFMON BPF CHECKPOINT_RESTORE"
).split()
SETS = ("bounding", "effective", "permitted", "inheritable", "ambient")
FILES = {"bounding": "CapBnd", "effective": "CapEff", "permitted": "CapPrm",
         "inheritable": "CapInh", "ambient": "CapAmb"}  # fmt: skip


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The witness inside."""
    directory = tmp_path_factory.mktemp("identity")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    subprocess.run(
        [compiler, "-static", "-O1", "-o", directory / "who", os.path.join(HERE, "who.c")],
        check=True,
    )
    return str(directory / "who")


@pytest.fixture
def box(container: Container, program: str) -> Container:
    """A container with the witness in it."""
    shutil.copy(program, os.path.join(container.bundle.rootfs, "bin/who"))
    container.process["args"] = ["/bin/who", "stay"]
    return container


def mask(names: str) -> int:
    """The bits of some names without CAP_."""
    return sum(1 << NAMES.index(name) for name in names.split())


def parsed(text: str) -> dict[str, Any]:
    """What the witness said."""
    found: dict[str, Any] = {}
    for line in text.splitlines():
        if line.startswith("anocir: warning: "):
            continue  # of a capability that cannot be granted
        key, *words = line.split()
        found[key] = (
            int(words[0], 16) if key in (*SETS, "securebits") else [int(word) for word in words]
        )
    return found


def outside(pid: int) -> dict[str, Any]:
    """The same of /proc/PID/status, as far as it is there."""
    status = machine.process_status(pid)
    return {
        **{name: int(status[key], 16) for name, key in FILES.items()},
        "nnp": [int(status["NoNewPrivs"])],
        "uids": [int(word) for word in status["Uid"].split()[:3]],
        "gids": [int(word) for word in status["Gid"].split()[:3]],
        "groups": [int(word) for word in status["Groups"].split()],
    }


def both(box: Container, pid: int, said: Callable[[], str]) -> dict[str, Any]:
    """What the witness said, once it has, checked against /proc."""
    text = drive.until("the witness", lambda: said() if "groups" in said() else "")
    found = parsed(text)
    seen = outside(pid)
    assert {key: found[key] for key in seen} == seen
    return found


def created(box: Container) -> dict[str, Any]:
    """Identity of the container's own process."""
    return both(box, box.launch(), box.output)


def executed(
    box: Container, *options: str, process: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Identity of a process of exec."""
    pid_file = os.path.join(box.bundle.path, "who.pid")
    out_path = os.path.join(box.bundle.path, "who.out")
    with open(out_path, "wb") as out:
        words = ["--detach", "--pid-file", pid_file, *options]
        if process is None:
            box.exec("/bin/who", "stay", options=words, stdout=out, stderr=out)
        else:
            box.exec_process(
                {**process, "args": ["/bin/who", "stay"]}, *words, stdout=out, stderr=out
            )

    def said() -> str:
        with open(out_path) as file:
            return file.read()

    with open(pid_file) as file:
        return both(box, int(file.read()), said)


def own_bounding() -> int:
    """What this machine can give at all."""
    return int(machine.process_status(os.getpid())["CapBnd"], 16)


def expected(sets: dict[str, str], uid: int, nnp: bool) -> dict[str, Any]:
    """capabilities(7), "Transformation of capabilities during execve()", for a plain file."""
    given = {name: mask(sets.get(name, "")) & own_bounding() for name in SETS}
    ambient = given["ambient"] & given["permitted"] & given["inheritable"]
    if uid == 0:
        permitted = given["inheritable"] | given["bounding"]
        gained = permitted & ~given["permitted"]
        if nnp:  # a downgrade to what there was
            permitted &= given["permitted"]
        sets_now = {**given, "ambient": ambient, "permitted": permitted, "effective": permitted}
        return {**sets_now, "dumpable": [int(nnp or not gained)]}
    return {
        **given,
        "ambient": ambient,
        "permitted": ambient,
        "effective": ambient,
        "dumpable": [1],
    }


USUAL = "AUDIT_WRITE CHOWN DAC_OVERRIDE FOWNER FSETID KILL MKNOD NET_BIND_SERVICE NET_RAW SETFCAP SETGID SETPCAP SETUID SYS_CHROOT"
TABLE = {
    "nothing": {},
    "usual": {"bounding": USUAL, "effective": USUAL, "permitted": USUAL},
    "all five": dict.fromkeys(SETS, USUAL),
    "only bounding": {"bounding": USUAL},
    "smaller effective": {"bounding": USUAL, "permitted": USUAL, "effective": "CHOWN"},
    "smaller permitted": {"bounding": USUAL, "permitted": "CHOWN KILL", "effective": "KILL"},
    "inheritable alone": {"bounding": USUAL, "permitted": USUAL, "effective": USUAL, "inheritable": "NET_RAW"},
    "ambient of one": {
        "bounding": USUAL, "permitted": USUAL, "effective": USUAL, "inheritable": "NET_RAW KILL", "ambient": "NET_RAW"
    },
    "high numbers": dict.fromkeys(SETS, "PERFMON BPF CHECKPOINT_RESTORE CHOWN"),
    "every one": dict.fromkeys(("bounding", "effective", "permitted"), " ".join(NAMES)),
    "every one in all": dict.fromkeys(SETS, " ".join(NAMES)),
}  # fmt: skip


def config(sets: dict[str, str]) -> dict[str, list[str]]:
    """The capabilities object."""
    return {name: ["CAP_" + word for word in words.split()] for name, words in sets.items()}


# no_new_privs by turns, and both where it makes a difference
ROWS = [
    (case, uid, bool(index % 2) ^ bool(uid))
    for index, case in enumerate(TABLE)
    for uid in (0, 1000)
]
ROWS += [(case, 0, nnp) for case in ("only bounding", "smaller permitted") for nnp in (False, True)]


@pytest.mark.parametrize(("case", "uid", "nnp"), sorted(set(ROWS)))
def test_identity_is_the_configured_one(box: Container, case: str, uid: int, nnp: bool) -> None:
    sets = TABLE[case]
    box.process["capabilities"] = config(sets)
    box.process["noNewPrivileges"] = nnp
    box.process["user"] = {"uid": uid, "gid": uid + 1 if uid else 0, "additionalGids": [5, 4242]}
    wanted = {
        **expected(sets, uid, nnp),
        "securebits": 0,
        "nnp": [int(nnp)],
        "keepcaps": [0],
        "uids": [uid] * 3,
        "gids": [uid + 1 if uid else 0] * 3,
        "groups": [5, 4242],
    }
    assert created(box) == wanted
    # of exec, by the container's own process object or by one of exec's own
    assert executed(box, process=box.process if uid else None) == wanted


def test_a_process_object_of_exec_has_an_identity_of_its_own(box: Container) -> None:
    box.launch()
    process = {
        "cwd": "/",
        "user": {"uid": 77, "gid": 78, "additionalGids": [79]},
        "noNewPrivileges": True,
        "capabilities": config(dict.fromkeys(SETS, "KILL")),
    }
    found = executed(box, process=process)
    assert {found[name] for name in SETS} == {mask("KILL")}
    assert (found["uids"], found["gids"], found["groups"]) == ([77] * 3, [78] * 3, [79])
    assert found["nnp"] == [1]


def test_exec_without_capabilities_has_the_containers(box: Container) -> None:
    box.process["capabilities"] = config(dict.fromkeys(SETS, "KILL"))
    box.launch()
    found = executed(box, process={"cwd": "/", "user": {"uid": 0, "gid": 0}})
    assert {found[name] for name in SETS} == {mask("KILL")}


@pytest.mark.parametrize("user", ["0", "1000"])
def test_cap_of_exec_is_never_inheritable_by_accident(box: Container, user: str) -> None:
    # CVE-2022-29162
    box.launch()
    found = executed(box, "--cap", "CAP_SYS_PTRACE", "--user", user)
    assert found["bounding"] == mask(USUAL + " SYS_PTRACE")
    assert found["inheritable"] == found["ambient"] == 0
    full = mask(USUAL + " SYS_PTRACE") if user == "0" else 0
    assert found["permitted"] == found["effective"] == full


def test_cap_of_exec_reaches_another_user_where_the_container_uses_ambient_ones(
    box: Container,
) -> None:
    box.process["capabilities"] = config(dict.fromkeys(SETS, "CHOWN"))
    box.process["user"] = {"uid": 1000, "gid": 1000}
    box.launch()
    found = executed(box, "--cap", "CAP_KILL")
    assert found["ambient"] & mask("CHOWN")
    assert found["bounding"] == mask("CHOWN KILL")


def test_no_new_privs_option_of_exec(box: Container) -> None:
    box.launch()
    assert executed(box, "--no-new-privs")["nnp"] == [1]
    assert executed(box)["nnp"] == [0]


@pytest.mark.parametrize("where", ["inheritable", "ambient", "effective"])
def test_a_set_that_the_kernel_cannot_give_is_refused_or_left_out(
    box: Container, where: str
) -> None:
    # outside of bounding, or of permitted: never silently more than was asked for
    box.process["capabilities"] = config({"bounding": "CHOWN", "permitted": "CHOWN", where: "KILL"})
    box.process["args"] = ["/bin/who"]
    result = box.try_run()
    if result.status == 0:
        assert not parsed(result.stdout)[where] & mask("KILL")
    else:
        assert "process.capabilities" in result.stderr


def test_what_cannot_be_granted_is_a_warning_that_names_it(box: Container) -> None:
    lacking = [name for name in NAMES if not mask(name) & own_bounding()]
    if not lacking:
        pytest.skip("[lacking-cap] this machine has every capability")
    box.process["capabilities"] = config(
        dict.fromkeys(("bounding", "effective", "permitted"), f"CHOWN {lacking[0]}")
    )
    box.process["args"] = ["/bin/who"]
    box.bundle.write()
    command = [
        box.runtime.path,
        "--root",
        box.runtime.root,
        "--debug",
        "run",
        "--bundle",
        box.bundle.path,
        box.id,
    ]
    result = drive.call(command)
    assert parsed(result.stdout)["effective"] == mask("CHOWN")
    if box.runtime.name == "anocir":
        assert "CAP_" + lacking[0] in result.stderr


@pytest.fixture
def groups_of_the_caller() -> Iterator[None]:
    """Give this process supplementary groups, which no container may inherit."""
    before = os.getgroups()
    os.setgroups([4242, 4343])
    yield
    os.setgroups(before)


def test_the_callers_groups_are_not_inherited(groups_of_the_caller: None, box: Container) -> None:
    assert created(box)["groups"] == []
    assert executed(box)["groups"] == []


def test_the_callers_groups_are_kept_on_demand(groups_of_the_caller: None, box: Container) -> None:
    box.config["annotations"] = {"run.oci.keep_original_groups": "1"}
    assert created(box)["groups"] == [4242, 4343]


def test_inheritable_and_ambient_of_the_caller_are_not_inherited(box: Container) -> None:
    box.process["args"] = ["/bin/who"]
    box.bundle.write()
    words = box.runtime.command("run", "--bundle", box.bundle.path, box.id)
    caller = ["setpriv", "--inh-caps=+chown,+kill", "--ambient-caps=+chown,+kill"]
    found = parsed(drive.call([*caller, *words]).stdout)
    assert found["inheritable"] == found["ambient"] == 0
    assert found["effective"] == mask(USUAL)


@pytest.mark.parametrize("uid", [2**32 - 1, 2**32, -1, 1.5, "0", True, None])
@pytest.mark.parametrize("key", ["uid", "gid"])
def test_an_id_that_is_none_is_refused(box: Container, key: str, uid: Any) -> None:
    # setresuid(-1) changes nothing and says so to nobody
    box.process["user"][key] = uid
    assert key in box.refused()


def test_the_largest_id_works(box: Container) -> None:
    box.process["user"] = {"uid": 2**32 - 2, "gid": 2**32 - 2}
    assert created(box)["uids"] == [2**32 - 2] * 3


@pytest.mark.parametrize(
    "text",
    ["+1", "1:", "a", "99999999999", "-1", " 1", "１", "4294967295", "1:2:3", "root", ":1", "",
     "9" * 5000, "1" + "0" * 30],
)  # fmt: skip
def test_a_user_of_exec_that_is_no_number_is_refused(box: Container, text: str) -> None:
    # names would come from the image
    box.bundle.put("/etc/passwd", "a:x:0:0::/:/bin/sh\n1000:x:0:0::/:/bin/sh\n")
    box.launch()
    result = box.exec("/bin/who", options=("--user", text), ok=None)
    if text == "":
        return  # as if it were not given
    assert result.status == 255, result.explain()
    assert "is not a number from 0 to 4294967294" in result.stderr


def test_a_number_is_never_looked_up_as_a_name(box: Container) -> None:
    # CVE-2016-3697
    box.bundle.put("/etc/passwd", "1000:x:0:0::/:/bin/sh\n")
    box.launch()
    assert executed(box, "--user", "1000:1001")["uids"] == [1000] * 3
    assert executed(box, "--user", "0" * 5000 + "1000")["uids"] == [1000] * 3
