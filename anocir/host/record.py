"""What may stand in the files of the state directory: checked as config.json is.

Side: host, pure.  A key that is not known here is left alone; one that is has its type, and no text
has a NUL.  What is wrong is named by its place, as in config.json.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

    # Returns the place of what is wrong below the value, or None.
    Check = Callable[[Any], "str | None"]


def _text(value: Any) -> str | None:
    return None if type(value) is str and "\0" not in value else ""


def _flag(value: Any) -> str | None:
    return None if type(value) is bool else ""


def _whole(value: Any) -> str | None:
    """Check an integer; True is none."""
    return None if type(value) is int and -1 <= value < 1 << 63 else ""


def _number(value: Any) -> str | None:
    return None if type(value) is int and 0 <= value < 1 << 63 else ""


def _any_list(value: Any) -> str | None:
    return None if type(value) is list else ""


def _path(value: Any) -> str | None:
    """Check a path that something is removed or killed by: absolute, and nothing up."""
    if type(value) is not str or "\0" in value or ".." in value.split("/"):
        return ""
    return None if value[:1] in ("", "/") else ""


def _optional(check: Check) -> Check:
    return lambda value: None if value is None else check(value)


def _list(check: Check) -> Check:
    def each(value: Any) -> str | None:
        if type(value) is not list:
            return ""
        for index, item in enumerate(value):
            wrong = check(item)
            if wrong is not None:
                return f"[{index}]{wrong}"
        return None

    return each


def _row(*checks: Check) -> Check:
    def each(value: Any) -> str | None:
        if type(value) is not list or len(value) != len(checks):
            return ""
        for index, check in enumerate(checks):
            wrong = check(value[index])
            if wrong is not None:
                return f"[{index}]{wrong}"
        return None

    return each


def _object(known: Mapping[str, Check], *needed: str) -> Check:
    def each(value: Any) -> str | None:
        if type(value) is not dict:
            return ""
        for key in needed:
            if key not in value:
                return f".{key}"
        for key, check in known.items():
            wrong = check(value[key]) if key in value else None
            if wrong is not None:
                return f".{key}{wrong}"
        return None

    return each


def _texts(value: Any) -> str | None:
    if type(value) is not dict:
        return ""
    for key, item in value.items():
        if type(item) is not str or "\0" in item or "\0" in key:
            return f"[{key!a}]"
    return None


_NEEDED: Final = {
    "disabled": (),
    "v1": ("tolerant", "hierarchies"),
    "v2": ("tolerant", "mountpoint", "path", "made", "owner"),
    "systemd": ("unit", "slice", "description", "cgroup", "directory", "fs"),
}


def _cgroup(value: Any) -> str | None:
    """Check the record of `choice.choose`."""
    if type(value) is not dict:
        return ""
    manager = value.get("manager")
    if not value:
        return None
    if type(manager) is not str or manager not in _NEEDED:
        return ".manager"
    return _object(_CGROUP, *_NEEDED[manager])(value)


_CGROUP: Final[dict[str, Check]] = {
    "tolerant": _flag,
    "hierarchies": _list(_row(_path, _text, _path, _number)),
    "mountpoint": _path,
    "path": _path,
    "made": _number,
    "owner": _whole,
    "reason": _text,
    "unit": _text,
    "slice": _text,
    "description": _text,
    "cgroup": _path,
    "directory": _path,
    "user": _flag,
    "properties": _list(_any_list),
    "fs": _cgroup,
    "leaf": _path,
    "shielded": _flag,
    "fresh": _flag,
    "at_top": _flag,
    "foreign": _flag,
}
_INTENT: Final = _object(
    {
        "id": _text,
        "bundle": _text,
        "rootfs": _text,
        "created": _text,
        "owner": _text,
        "annotations": _texts,
        "cgroup": _cgroup,
        "creator": _row(_number, _number),
        "criu": _row(_number, _number),
        "keyring": _text,
        "private_pids": _flag,
        "host_mounts": _optional(_number),
        "resctrl": _optional(
            _object(
                {"group": _path, "monitor": _path, "made": _list(_path), "there": _flag},
                "group", "monitor", "made", "there",
            )
        ),
    }
)  # fmt: skip
_STATE: Final = _object(
    {
        "pid": _number,
        "start_time": _number,
        "created": _flag,
        "mount_namespace": _list(_number),
        "added": _list(
            _object(
                {"destination": _text, "source": _text, "type": _text, "number": _number},
                "destination",
                "number",
            )
        ),
        "intent": _INTENT,
    }
)
_HOOKS: Final = _list(
    _object(
        {
            "path": _path,
            "args": _optional(_list(_text)),
            "env": _optional(_list(_text)),
            "timeout": _optional(_number),
        },
        "path",
    )
)
_ANY: Final = _optional(_object({}))
_CONFIG: Final = _object(
    {
        "hooks": _optional(
            _object(
                {
                    name: _optional(_HOOKS)
                    for name in (
                        "prestart", "createRuntime", "createContainer", "startContainer",
                        "poststart", "poststop",
                    )
                }
            )
        ),
        "process": _ANY,
        "annotations": _optional(_texts),
        "mounts": _optional(_list(_object({}))),
        "linux": _optional(
            _object(
                {
                    "resources": _optional(_object({"memory": _ANY})),
                    "seccomp": _ANY,
                    "namespaces": _optional(_list(_object({"type": _text}, "type"))),
                }
            )
        ),
    }
)  # fmt: skip


def intent(value: Any, container_id: str) -> str | None:
    """Return what is wrong with an intent, as `.cgroup.hierarchies[2]`; None if nothing."""
    wrong = _INTENT(value)
    if wrong is None and value.get("id", container_id) != container_id:
        return ".id"
    return wrong


def state(value: Any, container_id: str) -> str | None:
    """Return what is wrong with a state, None if nothing."""
    wrong = _STATE(value)
    if wrong is None and value.get("created") and not value.get("start_time"):
        return ".start_time"
    if wrong is None and value.get("intent"):
        wrong = intent(value["intent"], container_id)
        return None if wrong is None else ".intent" + wrong
    return wrong


def config(value: Any) -> str | None:
    """Return what is wrong with the kept configuration, as far as later commands trust it."""
    return _CONFIG(value)
