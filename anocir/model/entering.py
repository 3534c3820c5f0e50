"""The plan of exec: a process enters a container that is there.

Side: pure.  plan.py says what a plan is.
"""

from __future__ import annotations

from . import namespaces
from .execution import (
    console,
    cpus,
    domain_steps,
    has_home,
    keeps_groups,
    labels,
    passed_on,
    process_steps,
    program,
    stream_steps,
    user_id,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .schema import Config, Facts, Process
    from ..wire.shapes import Plan, Step


def compile_exec(config: Config, process: Process, facts: Facts) -> Plan:
    """Return the plan for `exec`: the same facts, with `join` (list of (type, path)).

    And `keyring`, the name of the container's, empty for a new one; `tools`, the number of the
    tools' mount among the descriptors, if there are any.
    """
    setup: list[Step] = []
    affinity = process.get("execCPUAffinity") or {}
    if any(kind == "user" for kind, _ in facts["join"]):
        setup.append(
            ("become_root", "linux.namespaces", keeps_groups(config.get("annotations") or {}))
        )
    if affinity.get("initial"):
        setup.append(("affinity", "process.execCPUAffinity.initial", cpus(affinity["initial"])))
    setup.append(("session", ""))
    setup.append(("keyring", "", facts["keyring"], ""))
    if facts.get("tools", -1) >= 0:
        setup.append(("tools", "", facts["tools"]))
    setup.append(("root_here", ""))
    if labels(process, facts):
        setup.append(("open_attributes", "process"))
    if process.get("terminal"):
        setup.append(console(process, bind=False, own=False))
    if not has_home(process):
        setup.append(("home", "process.env", user_id(process)))
    setup += domain_steps(config.get("linux") or {})
    setup.append(("command", "process.args", True))
    setup.append(("join_late", "linux.resources"))
    launch, born = process_steps(process, facts, config.get("annotations") or {}, late=True)
    if affinity.get("final"):
        launch.insert(0, ("affinity", "process.execCPUAffinity.final", cpus(affinity["final"])))
    joined = [
        (namespaces.FLAGS[kind], index, path) for index, (kind, path) in enumerate(facts["join"])
    ]
    return {
        "prepare": [
            *stream_steps(config, process, facts, len(joined)),
            ("join_all", "linux.namespaces", joined),
        ],
        "setup": setup,
        "launch": launch,
        "born": born,
        "start": [],
        "process": program(process, facts),
        "fds": passed_on(facts),
        "holes": facts.get("holes", []),
        "late": True,
        "pids": -1,
        "outside": False,
        "state": facts["state"],
        "bundle": facts["bundle"],
    }
