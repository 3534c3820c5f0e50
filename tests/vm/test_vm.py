"""What this host cannot test, in machines that can: cgroup v2, AppArmor, systemd, users, all of cgroup v1.

Each test boots one machine (vm.py) and runs tests inside. Two to four minutes each on two processors.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from tests.vm import vm

REPOSITORY = os.path.dirname(os.path.dirname(vm.HERE))
RUNTIME = os.environ.get("RUNTIME") or os.path.join(REPOSITORY, "dist/anocir")
SUITE = os.environ.get("RUNTIME_TOOLS", "")

pytestmark = [pytest.mark.vm, pytest.mark.timeout(1200)]

# one test of each kind, so that a machine shows that everything works on it
SMOKE = "test_root_inside*,test_*exec*joins*,test_*readonly*root*,test_*masked*"


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


def inside(*command: str, options: tuple[str, ...] = (), timeout: int = 420) -> str:
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
        "--timeout=120",
        *words,
    )


def test_cgroup_v2_apparmor_and_all_capabilities():
    gates = "cgroup2-only,cgroup2:*,sys_resource,apparmor"
    said = inside(*pytest_words("tests/runtime", f"--gates={gates}", f"--smoke={SMOKE}"))
    assert " passed" in said


def test_the_systemd_driver():
    said = inside(*pytest_words("tests/vm/inside/systemd_driver.py"), options=("--systemd",))
    assert " passed" in said
    assert "skipped" not in said


def test_a_user_with_a_delegated_cgroup():
    said = inside(*pytest_words("tests/vm/inside/rootless.py"), options=("--user",))
    assert " passed" in said
    assert "skipped" not in said


def test_a_user_with_a_systemd_session():
    said = inside(*pytest_words("tests/vm/inside/rootless.py"), options=("--systemd", "--user"))
    assert " passed" in said
    assert "skipped" not in said


def test_all_hierarchies_of_cgroup_v1():
    gates = "cgroup1:hugetlb,cgroup1:net_cls,cgroup1:net_prio"
    said = inside(
        *pytest_words("tests/runtime", f"--gates={gates}", f"--smoke={SMOKE}"),
        options=("--cgroup1",),
    )
    assert " passed" in said


# only where a suite was built: there is nothing to skip, the host's own run has the rest
if SUITE:

    def test_conformance_files_that_need_more_than_this_host():
        files = "linux_cgroups_hugetlb,linux_cgroups_relative_hugetlb,linux_cgroups_relative_network,process_capabilities"
        run = f"{sys.executable} tests/conformance/run.py --timeout=300 --suite {SUITE}"
        # the suite wants two interfaces of the host
        script = f"ip link add second type dummy; exec {run} --only {files},linux_cgroups_network {RUNTIME}"
        inside("/bin/sh", "-c", script, options=("--cgroup1", "--lsm=none"), timeout=600)
