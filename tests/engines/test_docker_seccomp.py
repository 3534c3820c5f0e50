"""Docker's default seccomp profile, probed call by call from inside under both runtimes."""

from __future__ import annotations

import platform
import shutil
import subprocess
from pathlib import Path
from typing import Dict, List

import pytest

from tests.engines.docker import Dockerd, Side, Sides

SOURCE = Path(__file__).parents[1] / "runtime" / "seccomp_probe.c"

pytestmark = [
    pytest.mark.needs("compiler"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="[x86_64] numbers of x86_64"),
]

# arch/x86/entry/syscalls/syscall_64.tbl; arguments that do no harm where the call is allowed.
# "denied" is what the profile is known for, whatever the capabilities of a default container.
CALLS: Dict[str, str] = {
    # the usual
    "getpid": "n:39", "getuid": "n:102", "getppid": "n:110", "getpgid": "n:121:1", "getsid": "n:124:0", "uname": "n:63:0",
    "lseek": "n:8:99:0:0", "sched_yield": "n:24", "umask": "n:95:18", "chroot": "n:161:0", "ptrace": "n:101:99",
    "clone3": "n:435:0:0", "memfd_create": "n:319:0:0", "openat2": "n:437:0:0:0:0",
    "faccessat2": "n:439:99:0:0:0", "close_range": "n:436:99:99:0", "pidfd_open": "n:434:0:0",
    "statx": "n:332:99:0:0:0:0", "landlock_create_ruleset": "n:444:0:0:0",
    # with conditions on an argument
    "personality 0": "n:135:0", "personality LINUX32": "n:135:8", "personality query": "n:135:0xffffffff",
    "personality ADDR_NO_RANDOMIZE": "n:135:0x40000", "clone NEWUSER": "n:56:0x10000000", "clone NEWNS": "n:56:0x20000",
    "socket VSOCK": "n:41:40:1:0", "socket INET": "n:41:2:1:0", "socket ALG": "n:41:38:5:0",
    # for capabilities that a default container has not
    "unshare NEWUSER": "n:272:0x10000000", "unshare NEWNS": "n:272:0x20000", "setns": "n:308:99:0",
    "mount": "n:165:0:0:0:0:0", "umount2": "n:166:0:0", "pivot_root": "n:155:0:0",
    "fsopen": "n:430:0:0", "open_tree": "n:428:99:0:0", "move_mount": "n:429:99:0:99:0:0",
    "mount_setattr": "n:442:99:0:0:0:0", "bpf": "n:321:99:0:0", "perf_event_open": "n:298:0:0:0:0:0",
    "keyctl": "n:250:0:0", "add_key": "n:248:0:0:0:0:0", "request_key": "n:249:0:0:0:0",
    "init_module": "n:175:0:0:0", "kexec_load": "n:246:0:0:0:0", "swapon": "n:167:0:0", "reboot": "n:169:0:0:0:0",
    "settimeofday": "n:164:0:0", "iopl": "n:172:4", "ioperm": "n:173:0:0:9", "quotactl": "n:179:0:0:0:0",
    "lookup_dcookie": "n:212:0:0:0", "userfaultfd": "n:323:0xffff", "io_uring_setup": "n:425:0:0",
    "process_vm_readv": "n:310:0:0:0:0:0:1", "kcmp": "n:312:0:0:99:0:0", "name_to_handle_at": "n:303:99:0:0:0:0",
    "open_by_handle_at": "n:304:99:0:0", "acct": "n:163:1", "vhangup": "n:153", "syslog": "n:103:99:0:0",
    "nfsservctl": "n:180:0:0:0", "sysfs": "n:139:99:0:0", "ustat": "n:136:0:0",
    # a number that nobody has, and the other tables
    "newer": "n:1000", "32-bit getuid": "i:24", "32-bit mount": "i:21:0:0:0:0:0", "x32 getuid": "x:102",
    "x32 mount": "x:165:0:0:0:0:0",
}  # fmt: skip
DENIED = ("mount", "unshare NEWUSER", "setns", "clone NEWNS", "bpf", "kexec_load", "reboot", "init_module",
          "add_key", "personality ADDR_NO_RANDOMIZE", "swapon", "pivot_root", "32-bit mount")  # fmt: skip


@pytest.fixture(scope="module")
def probe(dockerd: Dockerd, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A directory of the box with the static program that makes the calls."""
    directory = tmp_path_factory.mktemp("probe")
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
    words = [compiler, "-static", "-O1", "-pthread", "-o", str(directory / "probe"), str(SOURCE)]
    subprocess.run(words, check=True)
    dockerd.box.run(["mkdir", "-p", "/run/probe"]).ok()
    shutil.copy(directory / "probe", dockerd.box.path("/run/probe/probe"))
    return "/run/probe"


def answers(side: Side, probe: str, *options: str) -> Dict[str, str]:
    """What becomes of each call in a container of a side."""
    # one process a call and one line an answer, so that a killed one is not mistaken for another
    script = 'for call; do echo "= $(/probe/probe $call | tr "\\n" " ")"; done'
    words = ["sh", "-c", script, "sh", *CALLS.values()]
    done = side.run([*options, "-v", f"{probe}:/probe:ro"], words).ok()
    lines: List[str] = [line[2:].strip() for line in done.out.splitlines() if line.startswith("= ")]
    assert len(lines) == len(CALLS), done
    found = dict(zip(CALLS, lines))
    # numbers of processes and descriptors are nobody's answer
    return {name: "done" if text.startswith("result") else text for name, text in found.items()}


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--user", "1000:1000"),
        ("--security-opt", "no-new-privileges"),
        ("--cap-add", "NET_ADMIN", "--cap-drop", "CHOWN"),
    ],
)
def test_the_default_profile_gives_the_same_answers(sides: Sides, probe: str, options) -> None:
    found = sides.same(lambda side: answers(side, probe, *options))
    assert {name: found[name] for name in DENIED} == dict.fromkeys(DENIED, "errno EPERM")
    assert found["getuid"] == found["32-bit getuid"] == "done"
    assert found["newer"] == found["clone3"] == "errno ENOSYS"


def test_a_capability_opens_its_calls(sides: Sides, probe: str) -> None:
    # the profile itself depends on the capabilities that Docker gives
    found = sides.same(lambda side: answers(side, probe, "--cap-add", "SYS_ADMIN"))
    plain = sides.same(lambda side: answers(side, probe))
    changed = {name for name in CALLS if found[name] != plain[name]}
    assert {"mount", "setns", "bpf"} <= changed
    assert found["kexec_load"] == plain["kexec_load"] == "errno EPERM"


def test_without_a_profile_the_kernel_alone_answers(sides: Sides, probe: str) -> None:
    found = sides.same(lambda side: answers(side, probe, "--security-opt", "seccomp=unconfined"))
    assert found["unshare NEWUSER"] == "done"
    assert found["clone3"] == "errno EINVAL"


def test_a_profile_of_the_users_own_is_applied(sides: Sides, probe: str) -> None:
    path = "/run/tmp/own-profile.json"
    sides.docker.box.path(path).write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getpgid"], "action": "SCMP_ACT_ERRNO",'
        ' "errnoRet": 71}, {"names": ["getsid"], "action": "SCMP_ACT_KILL_PROCESS"}]}'
    )
    found = sides.same(lambda side: answers(side, probe, "--security-opt", f"seccomp={path}"))
    assert found["getsid"] == "signal 31"
    assert found["getpgid"] in (
        "errno EPROTO",
        "errno EPERM",
    )  # Docker 20.10 knows no errnoRet of a rule
