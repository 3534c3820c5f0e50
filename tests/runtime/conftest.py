"""Fixtures of the runtime tier: the runtime under test, containers, and the check that nothing is left.

    RUNTIME=runc pytest tests/runtime      the same tests on another runtime

The whole session lives in a mount namespace of its own, whose mounts are shared among themselves: whatever a runtime
forgets to detach shows up here, and nothing of it reaches the host.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from functools import partial
from typing import Any, Callable, Iterator

import pytest

from tests import drive, leftovers, machine
from tests.bundle import remove_tree
from tests.runtime.known_differences import KNOWN_DIFFERENCES

HERE = os.path.dirname(os.path.abspath(__file__))
PARENT = f"/anocir-test-{os.getpid()}"
GUARD = pytest.StashKey["Guard"]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect the known differences of runc and crun, strictly."""
    base = os.path.basename(drive.find_runtime())
    runtime_name = next((known for known in KNOWN_DIFFERENCES if known in base), "")
    for item in items:
        if not str(item.path).startswith(HERE):
            continue
        item.add_marker(pytest.mark.runtime)
        item.add_marker(pytest.mark.needs("root"))
        name = os.path.basename(item.path) + "::" + item.nodeid.partition("::")[2]
        for key in (name, name.partition("[")[0], name.partition("::")[0]):
            reason = KNOWN_DIFFERENCES.get(runtime_name, {}).get(key)
            if reason:
                strict = not reason.startswith("sometimes: ")
                item.add_marker(pytest.mark.xfail(reason=reason, strict=strict))
                break


def pytest_report_header() -> str:
    """Say which runtime is under test."""
    return f"runtime under test: {drive.find_runtime()}"


@pytest.fixture(scope="session")
def runtime() -> Iterator[drive.Runtime]:
    """The runtime under test, with a --root of this session."""
    path = drive.find_runtime()
    if not os.path.exists(path):
        pytest.fail(f"there is no {path}: run make build, or set RUNTIME")
    if machine.missing("root"):
        pytest.skip("[root] this machine has not " + machine.missing("root"))
    machine.become_subreaper()
    machine.unshare(machine.CLONE_NEWNS)
    machine.mount("none", "/", "", machine.MS_REC | machine.MS_PRIVATE)
    machine.mount("none", "/", "", machine.MS_REC | machine.MS_SHARED)
    hidden = _hide_unified() if "crun" in os.path.basename(path) else ""
    directory = tempfile.mkdtemp(prefix="anocir-test-")
    os.chmod(directory, 0o755)
    machine.make_cgroup_parent(PARENT)
    try:
        yield drive.Runtime(path, directory)
    finally:
        for hierarchy in machine.hierarchies():
            parent = hierarchy.mountpoint + PARENT
            drive.until(f"{parent} is empty", partial(leftovers.rmdir, parent))
        if hidden:
            _remove_plain_directories(hidden)
        remove_tree(directory)


def _hide_unified() -> str:
    """Take version 2 away from a hybrid host: Debian's crun 1.8.1 refuses to work beside it."""
    hidden = ""
    while machine.v2_mountpoint() and not machine.missing("cgroup1"):
        hidden = machine.v2_mountpoint()
        machine.umount(hidden)
    return hidden


def _remove_plain_directories(directory: str) -> None:
    # crun makes cgroup paths, as plain files, below the place where version 2 was, in the tmpfs
    for name in os.listdir(directory):
        if name == PARENT[1:] or f"t{os.getpid()}-" in name:
            shutil.rmtree(os.path.join(directory, name))


class Guard:
    """Clears a test's containers away and tells what stayed."""

    def __init__(self, runtime: drive.Runtime) -> None:
        self.workshop = drive.Workshop(runtime, PARENT)
        self.before = leftovers.Snapshot(PARENT, runtime.root)
        self.open = True

    def close(self) -> list[str]:
        """Delete all containers, then look; what is found is removed so that the next test is clean."""
        if not self.open:
            return []
        self.open = False
        ids = [container.id for container in self.workshop.containers]
        complaints = self.workshop.delete_all()
        found = complaints + self.before.leftovers(ids)
        if found:
            self.before.clear(ids)
        self.workshop.remove_bundles()
        return found


@pytest.fixture(autouse=True)
def guard(request: pytest.FixtureRequest, runtime: drive.Runtime) -> Iterator[Guard]:
    """After every test nothing may be left: mounts, cgroups, processes, keyrings, state, files."""
    made = Guard(runtime)
    request.node.stash[GUARD] = made
    yield made
    found = made.close()
    assert not found, "left behind:\n" + "\n".join(found)


@pytest.hookimpl(wrapper=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> Iterator[Any]:
    """Look for leftovers as the last step of the test itself, so that the table of known differences covers them."""
    guard = pyfuncitem.stash.get(GUARD, None)
    try:
        result = yield
    except BaseException:
        if guard is not None:
            guard.close()
        raise
    found = guard.close() if guard is not None else []
    assert not found, "left behind:\n" + "\n".join(found)
    return result


@pytest.fixture
def new_container(guard: Guard) -> Callable[[], drive.Container]:
    """Make containers, each with a bundle of its own."""
    return guard.workshop.container


@pytest.fixture
def container(guard: Guard) -> drive.Container:
    """A container that is not created yet."""
    return guard.workshop.container()


@pytest.fixture
def helper(guard: Guard) -> Callable[..., Any]:
    """Start a process of the host that ends with the test."""
    return guard.workshop.helper


@pytest.fixture
def console(guard: Guard, container: drive.Container) -> drive.Console:
    """The listening end of a console socket."""
    return guard.workshop.console(container.bundle.path)
