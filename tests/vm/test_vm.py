"""What this host cannot test, in machines that can: cgroup v2, security modules, systemd, users, all of cgroup v1, other kernels.

Each test boots one machine (vm.py) and runs tests inside, one to two minutes each; beside other tiers it has done so before
its turn comes (ahead.py).
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import shutil
import subprocess
import sys
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from tests.machine import criu_says, missing
from tests.vm import vm

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.vm.ahead import Ahead

REPOSITORY = os.path.dirname(os.path.dirname(vm.HERE))
RUNTIME = os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir")
SUITE = os.environ.get("RUNTIME_TOOLS", "")

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2700)]

# one test of each kind, so that a machine shows that everything works on it
SMOKE = "test_exec_runs_in_every_namespace*,test_a_readonly_root*,test_a_masked_directory*"
KERNEL_TESTS = tuple(
    f"tests/kernel/test_cgroup{name}.py" for name in ("", "_beside_runc", "_rootless")
)
SYSTEMD_TESTS = "tests/kernel/test_cgroup_systemd.py"
# the machine has this one's criu, if there is one
WITHOUT_CRIU = () if criu_says("--version")[0] else ("criu", "soft-dirty", "lazy-pages")
OLD_KERNELS = f"{SMOKE},test_what_is_seen_is_what_was_asked_for"

ahead: Ahead | None = None
"""What boots the machines before their tests' turn; set by conftest.py."""


def chosen(gates: str, names: str, *whole: str) -> tuple[str, ...]:
    """pytest's words for these gates, names and files (only.py); only files that have some of them, as
    collecting all takes a minute inside."""  # noqa: D209
    patterns = [f'needs("{gate}"' for gate in gates.split(",") if gate]
    patterns += [f"def {name}(" for name in names.split(",")]
    found = list(whole)
    for path in sorted(glob.glob(os.path.join(REPOSITORY, "tests/runtime/test_*.py"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        name = os.path.relpath(path, REPOSITORY)
        if name not in whole and any(fnmatch.fnmatch(text, f"*{each}*") for each in patterns):
            found.append(name)
    return (*found, f"--gates={gates}", f"--smoke={names}", f"--whole={','.join(whole)}")


def inside(*names: str) -> tuple[str, ...]:
    """The paths of tests that only make sense in a machine."""
    return tuple(f"tests/vm/inside/{name}.py" for name in names)


def limited(*whole: str) -> tuple[str, ...]:
    """pytest's words for these files, and for what of the systemd manager needs the controllers of cgroup v2: the rest
    is tried by tests/systemd."""  # noqa: D209
    return (*whole, SYSTEMD_TESTS, "--gates=cgroup:*", f"--whole={','.join(whole)}")


@dataclass(frozen=True)
class Machine:
    """A machine's options, what is tested in it, the gates that stay closed there, and the host's programs that it drives."""

    tests: tuple[str, ...]
    options: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()

    @property
    def kernel(self) -> str:
        """The release that --kernel names."""
        return self.options[1] if self.options[:1] == ("--kernel",) else ""


MACHINES = {
    "cgroup v2, AppArmor, all capabilities": Machine(
        chosen(
            "cgroup2-only,cgroup2:*,cgroup:*,sys_resource,apparmor,soft-dirty,lazy-pages",
            f"{SMOKE},test_a_container_goes_on_where_it_was",
            *KERNEL_TESTS,
            *inside("apparmor", "cgroup_namespaces"),
        ),
        gates=("hugepages", "cgroup:rdma", *WITHOUT_CRIU),
        programs=("apparmor_parser", "dockerd", "docker", "containerd"),
    ),
    "all hierarchies of cgroup v1": Machine(
        chosen("cgroup1:hugetlb,cgroup1:net_cls,cgroup1:net_prio", SMOKE), ("--cgroup1",)
    ),
    "systemd and its engines": Machine(
        limited(*inside("systemd_driver", "felt", "engines")),
        ("--systemd",),
        programs=("dockerd", "docker", "containerd", "podman", "conmon", "busybox"),
    ),
    "a user with a delegated cgroup": Machine(inside("rootless"), ("--user",)),
    "a user with a systemd session": Machine(
        limited(*inside("rootless", "rootless_podman")),
        ("--systemd", "--user"),
        programs=("podman",),
    ),
    "SELinux": Machine(inside("selinux"), ("--lsm=selinux",), programs=("checkpolicy",)),
    "Linux 5.10": Machine(chosen("", OLD_KERNELS), ("--kernel", "5.10")),
    "Linux 6.12": Machine(chosen("", OLD_KERNELS), ("--kernel", "6.12")),
}

if missing("cgroup1"):
    # Else tests/systemd does the same on the host's own hierarchies.
    MACHINES["systemd on cgroup v1"] = Machine(
        (*inside("felt"), SYSTEMD_TESTS), ("--systemd", "--cgroup1")
    )


def command(machine: Machine) -> list[str]:
    """The command line that boots a machine and tests in it."""
    words = [sys.executable, os.path.join(vm.HERE, "vm.py"), "--timeout=1800", *machine.options]
    words += [f"--see={directory}" for directory in (os.path.dirname(RUNTIME), SUITE) if directory]
    words += [f"--env=RUNTIME={RUNTIME}", "--env=PYTHONDONTWRITEBYTECODE=1", "--"]
    words += [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    # the machine is thrown away
    words += ["-p", "tests.vm.only", "--host-guard=off", "--timeout=900"]
    return [*words, *machine.tests]


def set_up(release: str) -> list[str]:
    """The command line that fetches a kernel."""
    return [sys.executable, os.path.join(vm.HERE, "vm.py"), "--setup", "--kernel", release]


def absent(machine: Machine) -> list[str]:
    """What of this host's the machine lacks, but for a kernel that can be fetched."""
    found = [name for name in machine.programs if not shutil.which(name)]
    return found + [name for name in vm.lacking(machine.kernel) if "kernel" not in name]


def commands(tests: Iterable[str]) -> list[list[str]]:
    """What boots the machines of these tests (by names with the machine's in brackets), and fetches what they need."""
    wanted = [one for name, one in MACHINES.items() if any(f"[{name}]" in test for test in tests)]
    wanted = [one for one in wanted if not absent(one)]
    lines = [set_up(one.kernel) for one in wanted if not vm.has_kernel(one.kernel)]
    unique = [line for at, line in enumerate(lines) if line not in lines[:at]]
    return [*unique, *map(command, wanted)]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    """Give what a command has said ahead, or run it now."""
    done = ahead.take(words) if ahead else None
    if done is None:
        done = subprocess.run(
            words,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
    return done


def run_inside(words: list[str]) -> str:
    """Run a machine's command; fails with its output unless it succeeds."""
    done = run(words)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-30000:]}"
    if "vm.py: " in done.stdout:
        warnings.warn(f"it came up at the second try only:\n{done.stdout}", stacklevel=2)
    return done.stdout


def all_passed(said: str, *gates: str) -> None:
    """No test was left out but for these gates, and none of the machine's own."""
    assert " passed" in said
    rows = re.findall(r"^ *(\d+)  (?:\[(.+?)\])?", said.partition(" left out ")[2], re.MULTILINE)
    assert {gate for _, gate in rows} <= set(gates), said
    counted = re.search(r"(\d+) skipped", said)
    assert sum(int(count) for count, _ in rows) == int(counted[1] if counted else 0), said


@pytest.mark.parametrize("name", MACHINES)
def test_inside(name: str) -> None:
    """All tests that were chosen for a machine pass in it."""
    machine = MACHINES[name]
    lacking = absent(machine)
    if not lacking and not vm.has_kernel(machine.kernel):
        fetched = run(set_up(machine.kernel))
        if not vm.has_kernel(machine.kernel):
            pytest.skip(f"[vm] this machine has not a kernel to boot: {fetched.stdout[-300:]}")
    if lacking:
        pytest.skip(f"[vm] this machine has not {', '.join(lacking)}")
    all_passed(run_inside(command(machine)), *machine.gates)


# only where a suite was built: there is nothing to skip, the host's own run has the rest
if SUITE:

    def test_conformance_files_that_need_more_than_this_host() -> None:
        """The validation suite's files about hugetlb, network cgroups and capabilities."""
        files = "linux_cgroups_hugetlb,linux_cgroups_relative_hugetlb,linux_cgroups_relative_network,process_capabilities"
        suite = f"{sys.executable} tests/conformance/run.py --timeout=300 --suite {SUITE}"
        # the suite wants two interfaces of the host
        script = f"ip link add second type dummy; exec {suite} --only {files},linux_cgroups_network {RUNTIME}"
        words = command(Machine((), ("--cgroup1", "--lsm=none")))
        run_inside([*words[: words.index("--") + 1], "/bin/sh", "-c", script])
