"""Without rights to any cgroup a container is made all the same, but no limit is passed over."""

from __future__ import annotations

import os
import traceback

import pytest

from anocir import cgroup

# What the package imports when it needs it: nobody may not be able to read the sources.
from anocir.cgroup import choice, convert, devices, hierarchy, stats, v1, v2
from anocir.errors import Error

pytestmark = [pytest.mark.kernel, pytest.mark.needs("root")]

NOBODY = 65534
LOADED = (convert, devices, hierarchy, stats, v1, v2)


class Settings:
    systemd_cgroup = False
    cgroup_manager = ""
    rootless = "auto"


def as_nobody(action) -> None:
    """Run the action in a child without any right; its assertions are this test's."""
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            action()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == 0


def test_no_limits_no_error():
    def action():
        manager = cgroup.load(choice.choose(Settings, {}, "anocir-rootless"))
        manager.prepare({"devices": [{"allow": False, "access": "rwm"}]})
        way = manager.joining()
        assert (way.into, way.tasks, way.late, way.by_host, way.asked) == ("", [], [], [], False)
        manager.join(os.getpid())
        manager.finish(os.getpid())
        manager.exec_join(os.getpid(), os.getpid(), [])
        assert manager.frozen() is False
        for each in (manager, cgroup.load(manager.record)):
            for refused in (each.pids, each.freeze, each.thaw):
                with pytest.raises(Error, match="no cgroup of its own"):
                    refused()
            assert (each.stats(), each.oom_watch()) == ({}, (-1, 0))
            with pytest.raises(Error, match="no cgroup of its own"):
                each.update({"pids": {"limit": 5}}, {})
        manager.kill(9)
        manager.destroy()

    as_nobody(action)


@pytest.mark.parametrize(
    ("resources", "path"),
    [({"memory": {"limit": 1 << 26}}, "memory.limit"), ({"pids": {"limit": 5}}, "pids.limit")],
)
def test_a_limit_is_an_error_with_its_path(resources, path):
    def action():
        manager = cgroup.load(choice.choose(Settings, {}, "anocir-rootless"))
        with pytest.raises(Error, match="container could not join or create cgroup") as error:
            manager.prepare(resources)
        assert error.value.text.startswith(f"linux.resources.{path}")
        manager.destroy()

    as_nobody(action)


def test_rootless_can_be_said_by_hand():
    class Said(Settings):
        rootless = "true"

    class Denied(Settings):
        rootless = "false"

    assert choice.choose(Said, {}, "x").get("tolerant")
    assert not choice.choose(Denied, {}, "x").get("tolerant")
