"""What may stand in the files of the state directory: checked as config.json is.

Side: host, pure.  A key that is not known here is left alone; one that is has its type, and no text
has a NUL.  What is wrong is named by its place, as in config.json.

What is allowed is said in data: a kind is the name of one ("text", "flag", ...), a dictionary of
kinds by key, or a tuple: ("list", kind), ("row", kind, kind, ...), ("maybe", kind) for what may be
null as well, ("needs", dictionary, key, ...).  What few containers have is made when it is there.
"""

from __future__ import annotations

from ..errors import keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

_CGROUP: Final = {
    "tolerant": "flag",
    "hierarchies": "hierarchies",
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
    "resctrl": ("maybe", "resctrl"),
    "hooks": "hooks",
}
_STATE: Final = {
    "rules": ("list", "rule"),
    "devices": ("list", "device"),
    "taken": ("list", "path"),
    "resources": {},
    "pid": "number",
    "start_time": "number",
    "created": "flag",
    "mount_namespace": ("list", "number"),
    "added": ("list", "added"),
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
    if kind == "hierarchies" and _are_hierarchies(value):
        return True
    return _place(value, kind) is None


def _are_hierarchies(rows: Any) -> bool:
    """Tell whether rows are surely as they must be, column by column: there may be a dozen."""
    if type(rows) is not list or set(map(type, rows)) != {list} or set(map(len, rows)) != {4}:
        return False
    mountpoints, controllers, paths, made = zip(*rows)
    texts = [*mountpoints, *paths, *controllers]
    if set(map(type, texts)) != {str} or set(map(type, made)) != {int}:
        return False
    text = "".join(texts)
    return (
        "\0" not in text
        and ".." not in text
        and {path[:1] for path in [*mountpoints, *paths]} <= {"", "/"}
        and min(made) >= 0
        and max(made) < 1 << 63
    )


def _place(value: Any, kind: str) -> str | None:
    """Return where something is wrong in a value of a kind that has a name."""
    if kind in ("text", "number", "path", "flag", "whole", "list"):
        return ""
    if kind == "cgroup":
        return _wrong_in_cgroup(value)
    if kind == "hierarchies":
        return wrong_with(value, ("list", ("row", "path", "text", "path", "number")))
    if kind == "texts":
        return _wrong_in_texts(value)
    if kind == "hooks" and value == {}:
        return None  # of most
    return wrong_with(value, _seldom(kind))


def _seldom(kind: str) -> Any:
    """Return what is meant by the name of a kind that few containers have."""
    if kind == "hooks":
        return {"poststart": ("maybe", ("list", "hook")), "poststop": ("maybe", ("list", "hook"))}
    if kind == "hook":
        texts = ("maybe", ("list", "text"))
        hook = {"path": "path", "args": texts, "env": texts, "timeout": ("maybe", "number")}
        return "needs", hook, "path"
    if kind == "added":
        mount = {"destination": "text", "source": "text", "type": "text", "number": "number"}
        return "needs", mount, "destination", "number"
    return {
        "resctrl": _all(group="path", monitor="path", made=("list", "path"), there="flag"),
        "rule": _all(allow="flag", type="text", major="whole", minor="whole", access="text"),
        "device": _all(
            path="path", type="text", major="number", minor="number", mode="number",
            uid="number", gid="number", access="text", number="number", own="flag",
        ),
    }[kind]  # fmt: skip


def _all(**kinds: Any) -> Any:
    """Return the kind of an object that has all of these keys."""
    return "needs", kinds, *kinds


def _wrong_in_texts(value: Any) -> str | None:
    """Check an object of texts."""
    if type(value) is not dict:
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
        if kind is None or (type(kind) is str and _is(item, kind)):
            continue
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
            "hooks": ("maybe", dict.fromkeys(hooks, ("maybe", ("list", "hook")))),
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
