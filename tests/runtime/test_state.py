"""State (runtime.md, "State" and "Query State")."""

from __future__ import annotations

import json
import os
import signal

from tests import drive, machine
from tests.drive import Container, Runtime


def test_state_of_a_created_container_has_every_required_property(container: Container) -> None:
    container.create()
    state = container.state()
    assert state["id"] == container.id
    assert state["status"] == "created"
    assert state["bundle"] == container.bundle.path
    assert isinstance(state["ociVersion"], str) and state["ociVersion"].startswith("1.")
    assert isinstance(state["pid"], int) and state["pid"] > 0


def test_pid_is_the_host_pid_of_the_container_process(container: Container) -> None:
    pid = container.launch("echo $$ > /pid; exec sleep 100")
    assert container.wait_file("/pid") == "1\n"
    assert machine.process_status(pid)["NSpid"].split() == [str(pid), "1"]


def test_state_tells_created_running_and_stopped(container: Container) -> None:
    container.bundle.sh("sleep 100")
    container.create()
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    container.kill("KILL")
    container.wait("stopped")


def test_state_carries_the_annotations_exactly(container: Container) -> None:
    annotations = {"org.example.key": "value", "empty": "", "ünï": 'quotes " and \\ and \n'}
    container.config["annotations"] = annotations
    container.create()
    assert container.state()["annotations"] == annotations


def test_state_without_annotations_has_none(container: Container) -> None:
    container.create()
    assert not container.state().get("annotations")


def test_bundle_in_the_state_is_absolute_when_it_was_given_relative(
    container: Container, runtime: Runtime
) -> None:
    container.bundle.write()
    parent, name = os.path.split(container.bundle.path)
    runtime("create", "--bundle", name, container.id, cwd=parent)
    assert container.state()["bundle"] == container.bundle.path


def test_state_without_an_id_is_an_error(runtime: Runtime) -> None:
    runtime("state", ok=False)


def test_state_of_an_unknown_container_is_an_error(runtime: Runtime) -> None:
    result = runtime("state", "nobody", ok=False)
    assert result.stdout == ""


def test_state_of_a_stopped_container_stays_the_same(
    container: Container, runtime: Runtime
) -> None:
    container.launch("true")
    container.wait("stopped")
    first = container.state()
    runtime("kill", container.id, "KILL", ok=None)
    assert container.state() == first


def test_a_process_that_nobody_reaped_counts_as_stopped(container: Container) -> None:
    pid = container.launch("exec sleep 100")
    os.kill(pid, signal.SIGKILL)
    drive.until("the process is a zombie", lambda: machine.process_status(pid)["State"][0] == "Z")
    assert container.status == "stopped"
    assert container.wait_exit(pid) == 128 + signal.SIGKILL


def test_state_prints_one_json_document_and_nothing_else(
    container: Container, runtime: Runtime
) -> None:
    container.create()
    result = runtime("state", container.id)
    assert isinstance(json.loads(result.stdout), dict)
    assert result.stderr == ""


def test_state_can_be_asked_after_the_bundle_is_gone(container: Container) -> None:
    container.launch("sleep 100")
    os.unlink(os.path.join(container.bundle.path, "config.json"))
    assert container.status == "running"


def test_state_shows_a_killed_created_container_as_stopped(container: Container) -> None:
    container.create()
    os.kill(container.pid, signal.SIGKILL)
    container.wait("stopped")
