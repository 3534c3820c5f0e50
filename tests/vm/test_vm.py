"""What this host cannot test, in machines that can: cgroup v2, AppArmor, systemd, users, all of cgroup v1.

Each test boots one machine (vm.py) and runs tests inside. Two to four minutes each on two processors.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import subprocess
import sys
import warnings

import pytest

from tests.vm import vm

REPOSITORY = os.path.dirname(os.path.dirname(vm.HERE))
RUNTIME = os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir")
SUITE = os.environ.get("RUNTIME_TOOLS", "")

pytestmark = [pytest.mark.vm, pytest.mark.timeout(2700)]

# one test of each kind, so that a machine shows that everything works on it
SMOKE = "test_exec_runs_in_every_namespace*,test_a_readonly_root*,test_a_masked_directory*"


@pytest.fixture(scope="module", autouse=True)
def machine():
    """Skip if there can be no machine; fetch the kernel if only that is missing."""
    missing = vm.lacking()
    if len(missing) == 1 and "kernel" in missing[0]:
        try:
            vm.setup()
        except (vm.MachineError, OSError, StopIteration) as error:
            pytest.skip(f"[vm] this machine has not a kernel to boot: {error}")
        missing = vm.lacking()
    if missing:
        pytest.skip(f"[vm] this machine has not {', '.join(missing)}")


def inside(*command: str, options: tuple[str, ...] = (), timeout: int = 1800) -> str:
    """Run a command in a machine; fails with its output unless it succeeds."""
    words = [sys.executable, os.path.join(vm.HERE, "vm.py"), f"--timeout={timeout}", *options]
    words += [f"--see={directory}" for directory in (os.path.dirname(RUNTIME), SUITE) if directory]
    words += [f"--env=RUNTIME={RUNTIME}", "--env=PYTHONDONTWRITEBYTECODE=1", "--", *command]
    done = subprocess.run(
        words,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout[-30000:]}"
    if "vm.py: " in done.stdout:
        warnings.warn(f"it came up at the second try only:\n{done.stdout}", stacklevel=2)
    return done.stdout


def pytest_words(*words: str) -> tuple[str, ...]:
    """pytest as it runs inside."""
    return (
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "tests.vm.only",
        "--host-guard=off",  # the machine is thrown away
        "--timeout=900",
        *words,
    )


KERNEL_TESTS = tuple(
    f"tests/kernel/test_cgroup{name}.py" for name in ("", "_beside_runc", "_rootless")
)
SYSTEMD_TESTS = "tests/kernel/test_cgroup_systemd.py"


def all_passed(said: str, *gates: str) -> None:
    """No test was left out but for these gates, and none of the machine's own."""
    assert " passed" in said
    rows = re.findall(r"^ *(\d+)  (?:\[(.+?)\])?", said.partition(" left out ")[2], re.MULTILINE)
    assert {gate for _, gate in rows} <= set(gates), said
    counted = re.search(r"(\d+) skipped", said)
    assert sum(int(count) for count, _ in rows) == int(counted[1] if counted else 0), said


def chosen(gates: str, names: str, *whole: str) -> tuple[str, ...]:
    """pytest's words for these gates, names and files (only.py); only files that have some of them, as
    collecting all takes a minute inside."""  # noqa: D209
    patterns = [f'needs("{gate}"' for gate in gates.split(",")]
    patterns += [f"def {name}(" for name in names.split(",")]
    found = list(whole)
    for path in sorted(glob.glob(os.path.join(REPOSITORY, "tests/runtime/test_*.py"))):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        name = os.path.relpath(path, REPOSITORY)
        if name not in whole and any(fnmatch.fnmatch(text, f"*{each}*") for each in patterns):
            found.append(name)
    return (*found, f"--gates={gates}", f"--smoke={names}", f"--whole={','.join(whole)}")


def test_cgroup_v2_apparmor_and_all_capabilities():
    gates = "cgroup2-only,cgroup2:*,cgroup:*,sys_resource,apparmor"
    words = chosen(gates, SMOKE, *KERNEL_TESTS)
    all_passed(inside(*pytest_words(*words)), "hugepages", "cgroup:rdma")


def test_all_hierarchies_of_cgroup_v1():
    gates = "cgroup1:hugetlb,cgroup1:net_cls,cgroup1:net_prio"
    words = chosen(gates, SMOKE, KERNEL_TESTS[0])
    all_passed(inside(*pytest_words(*words), options=("--cgroup1",)))


def test_the_systemd_driver():
    files = ("tests/vm/inside/systemd_driver.py", "tests/vm/inside/felt.py", SYSTEMD_TESTS)
    all_passed(inside(*pytest_words(*files), options=("--systemd",)))


def test_the_systemd_driver_on_its_legacy_layout_of_cgroup_v1():
    words = pytest_words("tests/vm/inside/felt.py", SYSTEMD_TESTS)
    all_passed(inside(*words, options=("--systemd", "--cgroup1")))


def test_a_user_with_a_delegated_cgroup():
    all_passed(inside(*pytest_words("tests/vm/inside/rootless.py"), options=("--user",)))


def test_a_user_with_a_systemd_session():
    words = pytest_words("tests/vm/inside/rootless.py", SYSTEMD_TESTS)
    all_passed(inside(*words, options=("--systemd", "--user")))


# only where a suite was built: there is nothing to skip, the host's own run has the rest
if SUITE:

    def test_conformance_files_that_need_more_than_this_host():
        files = "linux_cgroups_hugetlb,linux_cgroups_relative_hugetlb,linux_cgroups_relative_network,process_capabilities"
        run = f"{sys.executable} tests/conformance/run.py --timeout=300 --suite {SUITE}"
        # the suite wants two interfaces of the host
        script = f"ip link add second type dummy; exec {run} --only {files},linux_cgroups_network {RUNTIME}"
        inside("/bin/sh", "-c", script, options=("--cgroup1", "--lsm=none"))
