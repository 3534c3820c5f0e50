"""Numbers of the kernel's interface against the installed headers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from anocir.linux import const, errnos, nr

pytestmark = pytest.mark.repo

HEADERS = """
#define _GNU_SOURCE
#include <linux/types.h>
#include <linux/sched.h>
#include <linux/mount.h>
#include <linux/fcntl.h>
#include <linux/openat2.h>
#include <linux/stat.h>
#include <linux/prctl.h>
#include <linux/capability.h>
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <linux/keyctl.h>
#include <linux/magic.h>
#include <linux/nsfs.h>
#include <linux/bpf.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/if.h>
#include <linux/mempolicy.h>
#include <linux/personality.h>
#include <linux/ioprio.h>
#include <sys/resource.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <asm/ioctls.h>
#include <signal.h>
#include <errno.h>
"""
# Names of the C library, or of kernel headers that are not exported.
ELSEWHERE = {
    "MNT_DETACH": 2, "LINUX_CAPABILITY_VERSION_3": 0x20080522,
    "KEY_POS_ALL": 0x3F000000, "KEY_USR_SEARCH": 0x00080000,
}  # fmt: skip


def names() -> dict[str, int]:
    return {
        name: value
        for name, value in {**vars(const), **vars(errnos)}.items()
        if name.isupper() and isinstance(value, int) and not isinstance(value, bool)
    }


def header_values(wanted: list[str]) -> dict[str, int]:
    """Let the compiler say what each name is; enumerators are tried one by one."""
    macros = subprocess.run(
        ["gcc", "-E", "-dM", "-"], input=HEADERS, capture_output=True, text=True, check=True
    ).stdout
    defined = set(re.findall(r"#define (\w+)", macros))
    known = []
    for name in wanted:
        if name in defined or compiles(f"{HEADERS}\nlong long x = {name};\n"):
            known.append(name)
    lines = "".join(f'printf("{name} %lld\\n", (long long)({name}));' for name in known)
    source = f"{HEADERS}\nint printf(const char *, ...);\nint main(void) {{ {lines} return 0; }}\n"
    return run_c(source)


def compiles(source: str) -> bool:
    command = ["gcc", "-fsyntax-only", "-w", "-x", "c", "-"]
    return (
        subprocess.run(
            command, input=source, capture_output=True, text=True, check=False
        ).returncode
        == 0
    )


def run_c(source: str) -> dict[str, int]:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        program = f"{directory}/values"
        subprocess.run(
            ["gcc", "-w", "-x", "c", "-o", program, "-"], input=source, text=True, check=True
        )
        output = subprocess.run([program], capture_output=True, text=True, check=True).stdout
    return {name: int(value) for name, value in (line.split() for line in output.splitlines())}


@pytest.mark.needs("compiler")
def test_every_constant_has_the_value_of_its_header() -> None:
    mine = names()
    theirs = header_values(sorted(mine))
    wrong = {
        name: (mine[name], theirs[name])
        for name in theirs
        # A signed name may be unsigned in C, and the reverse.
        if (mine[name] - theirs[name]) % (1 << 32)
    }
    assert not wrong, "anocir/linux/const.py or errnos.py: (ours, the header's)"
    unknown = set(mine) - set(theirs)
    assert {name: mine[name] for name in unknown} == {
        name: value for name, value in ELSEWHERE.items() if name in unknown
    }, "in no header here: add the header, or the name to ELSEWHERE"


@pytest.mark.needs("compiler")
def test_the_constants_of_seccomp_have_the_values_of_their_header() -> None:
    from anocir import seccomp

    mine = {
        prefix + name.partition("_")[2]: value
        for name, value in vars(seccomp).items()
        for start, prefix in (("RET_", "SECCOMP_RET_"), ("FLAG_", "SECCOMP_FILTER_FLAG_"))
        if name.startswith(start) and isinstance(value, int)
    }
    mine["SECCOMP_RET_ACTION_FULL"] = mine.pop("SECCOMP_RET_ACTION", 0xFFFF0000)
    theirs = header_values(sorted(mine))
    assert len(theirs) >= len(mine) - 1, f"no header has {sorted(set(mine) - set(theirs))}: HEADERS"
    wrong = {name for name in theirs if (mine[name] - theirs[name]) % (1 << 32)}
    assert not wrong, "anocir/seccomp/__init__.py: linux/seccomp.h has another value"


def table(path: Path) -> dict[str, int]:
    text = path.read_text()
    return {
        name: int(number)
        for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", text)
    }


def compare(mine: dict[str, int], path: Path) -> None:
    theirs = table(path)
    # An older header does not know a newer call: then there is nothing to compare.
    known = set(mine) & set(theirs)
    assert len(known) > len(mine) // 2, f"{path} has hardly a call: is it the right header?"
    wrong = {name: (mine[name], theirs[name]) for name in known if mine[name] != theirs[name]}
    assert not wrong, f"anocir/linux/nr.py: (ours, that of {path})"


def test_the_syscall_numbers_of_x86_64() -> None:
    candidates = [
        Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
        Path("/usr/include/asm/unistd_64.h"),
    ]
    found = [path for path in candidates if path.exists()]
    if not found:
        pytest.skip("no kernel headers for x86_64")
    compare(nr.X86_64, found[0])


def test_the_syscall_numbers_of_aarch64() -> None:
    path = Path("/usr/include/asm-generic/unistd.h")
    if not path.exists():
        pytest.skip("no kernel headers")
    compare(nr.AARCH64, path)


def test_both_architectures_know_the_same_calls() -> None:
    one = set(nr.X86_64) ^ set(nr.AARCH64)
    assert not one, "anocir/linux/nr.py: give these a number in the other table too"
    for table in (nr.X86_64, nr.AARCH64):
        assert list(table) == sorted(table), "anocir/linux/nr.py: sort the table by name"
