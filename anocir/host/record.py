"""What may stand in the files of the state directory: checked as config.json is.

Side: host, pure.  A key that is not known here is left alone; one that is has its type, and no text
has a NUL.  What is wrong is named by its place, as in config.json.

What is allowed is said in data, which costs nothing to load: a kind is the name of one ("text",
"flag", ...), a dictionary of kinds by key, or a tuple: ("list", kind), ("row", kind, kind, ...),
("maybe", kind) for what may be null as well, ("needs", dictionary, key, ...).
"""

from __future__ import annotations

from ..errors import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

_HIERARCHY: Final = ("row", "path", "text", "path", "number")
_CGROUP: Final = {
    "tolerant": "flag",
    "hierarchies": ("list", _HIERARCHY),
    "mountpoint": "path",
    "path": "path",
    "made": "number",
    "owner": "whole",
    "reason": "text",
    "unit": "text",
    "slice": "text",
    "description": "text",
    "cgroup": "path",
    "directory": "path",
    "user": "flag",
    "properties": ("list", "list"),
    "fs": "cgroup",
    "leaf": "path",
    "shielded": "flag",
    "fresh": "flag",
    "at_top": "flag",
    "foreign": "flag",
}
_NEEDED: Final = {
    "disabled": (),
    "v1": ("tolerant", "hierarchies"),
    "v2": ("tolerant", "mountpoint", "path", "made", "owner"),
    "systemd": ("unit", "slice", "description", "cgroup", "directory", "fs"),
}
_HOOK: Final = {
    "path": "path",
    "args": ("maybe", ("list", "text")),
    "env": ("maybe", ("list", "text")),
    "timeout": ("maybe", "number"),
}
_HOOKS: Final = ("maybe", ("list", ("needs", _HOOK, "path")))
_RESCTRL: Final = {"group": "path", "monitor": "path", "made": ("list", "path"), "there": "flag"}
_INTENT: Final = {
    "id": "text",
    "bundle": "text",
    "rootfs": "text",
    "created": "text",
    "owner": "text",
    "annotations": "texts",
    "cgroup": "cgroup",
    "creator": ("row", "number", "number"),
    "criu": ("row", "number", "number"),
    "keyring": "text",
    "private_pids": "flag",
    "host_mounts": ("maybe", "number"),
    "resctrl": ("maybe", ("needs", _RESCTRL, "group", "monitor", "made", "there")),
    "hooks": {"poststart": _HOOKS, "poststop": _HOOKS},
}
_ADDED: Final = {"destination": "text", "source": "text", "type": "text", "number": "number"}
_RULE: Final = {
    "allow": "flag", "type": "text", "major": "whole", "minor": "whole", "access": "text",
}  # fmt: skip
_DEVICE: Final = {
    "path": "path", "type": "text", "major": "number", "minor": "number", "mode": "number",
    "uid": "number", "gid": "number", "access": "text", "number": "number", "own": "flag",
}  # fmt: skip
_STATE: Final = {
    "rules": ("list", ("needs", _RULE, *_RULE)),
    "devices": ("list", ("needs", _DEVICE, *_DEVICE)),
    "taken": ("list", "path"),
    "resources": {},
    "pid": "number",
    "start_time": "number",
    "created": "flag",
    "mount_namespace": ("list", "number"),
    "added": ("list", ("needs", _ADDED, "destination", "number")),
    "intent": _INTENT,
}


def wrong_with(value: Any, kind: Any) -> str | None:
    """Return where below the value something is not as its kind says, "" for itself; else None."""
    if type(kind) is str:
        return None if _is(value, kind) else _place(value, kind)
    if type(kind) is dict:
        return _wrong_in(value, kind, ())
    what = kind[0]
    if what == "maybe":
        return None if value is None else wrong_with(value, kind[1])
    if what == "needs":
        return _wrong_in(value, kind[1], kind[2:])
    if type(value) is not list or (what == "row" and len(value) != len(kind) - 1):
        return ""
    for index, item in enumerate(value):
        wrong = wrong_with(item, kind[index + 1] if what == "row" else kind[1])
        if wrong is not None:
            return f"[{index}]{wrong}"
    return None


def _is(value: Any, kind: str) -> bool:
    if kind == "text":
        return type(value) is str and "\0" not in value
    if kind == "number":
        return type(value) is int and 0 <= value < 1 << 63  # True is none
    if kind == "path":  # something is removed or killed by it: absolute, and nothing up
        return (
            type(value) is str
            and "\0" not in value
            and value[:1] in ("", "/")
            and (".." not in value or ".." not in value.split("/"))
        )
    if kind == "flag":
        return type(value) is bool
    if kind == "whole":
        return type(value) is int and -1 <= value < 1 << 63
    if kind == "list":
        return type(value) is list
    return _place(value, kind) is None


def _place(value: Any, kind: str) -> str | None:
    """Return where something is wrong in a value of the kinds that have parts."""
    if kind == "cgroup":
        return _wrong_in_cgroup(value)
    if kind != "texts" or type(value) is not dict:
        return ""
    for key, item in value.items():
        if type(item) is not str or "\0" in item or "\0" in key:
            return keyed("", key)
    return None


def _wrong_in(value: Any, known: Mapping[str, Any], needed: tuple[str, ...]) -> str | None:
    if type(value) is not dict:
        return ""
    for key in needed:
        if key not in value:
            return f".{key}"
    for key, item in value.items():
        kind = known.get(key)
        if kind is not None:
            wrong = wrong_with(item, kind)
            if wrong is not None:
                return f".{key}{wrong}"
    return None


def _wrong_in_cgroup(value: Any) -> str | None:
    """Check the record of `choice.choose`."""
    if type(value) is not dict:
        return ""
    if not value:
        return None
    manager = value.get("manager")
    if type(manager) is not str or manager not in _NEEDED:
        return ".manager"
    return _wrong_in(value, _CGROUP, _NEEDED[manager])


def intent(value: Any, container_id: str) -> str | None:
    """Return what is wrong with an intent, as `.cgroup.hierarchies[2]`; None if nothing."""
    wrong = wrong_with(value, _INTENT)
    if wrong is None and value.get("id", container_id) != container_id:
        return ".id"
    return wrong


def state(value: Any, container_id: str) -> str | None:
    """Return what is wrong with a state, None if nothing."""
    wrong = wrong_with(value, _STATE)
    if wrong is None and value.get("created") and not value.get("start_time"):
        return ".start_time"
    if wrong is None and (value.get("intent") or {}).get("id", container_id) != container_id:
        return ".intent.id"
    return wrong


def config(value: Any) -> str | None:
    """Return what is wrong with the kept configuration, as far as later commands trust it."""
    anything: Any = ("maybe", {})
    hooks = (
        "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
    )  # fmt: skip
    return wrong_with(
        value,
        {
            "hooks": ("maybe", dict.fromkeys(hooks, _HOOKS)),
            "process": anything,
            "annotations": ("maybe", "texts"),
            "mounts": ("maybe", ("list", {})),
            "linux": (
                "maybe",
                {
                    "resources": ("maybe", {"memory": anything}),
                    "seccomp": anything,
                    "namespaces": ("maybe", ("list", ("needs", {"type": "text"}, "type"))),
                },
            ),
        },
    )
