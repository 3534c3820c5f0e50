"""The configuration as a whole: check it, say what is passed over.

Side: pure.  Spec: config.md.
"""

from __future__ import annotations

from ...base import normal
from .kinds import (
    ABSOLUTE,
    ALNUM,
    array,
    BOOLEAN,
    DIGITS,
    integer,
    made_of,
    mapping,
    Mistake,
    record,
    run,
    show,
    STRING,
    STRINGS,
    text,
)
from .linux import LINUX, mappings, namespaces
from .process import not_granted, PROCESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final
    from ..schema import Config

HOOKS: Final = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
NAME_LENGTH: Final = 64  # __NEW_UTS_LEN, include/uapi/linux/utsname.h


def check(config: Any) -> None:
    """Check a whole configuration.  Raises Error with the JSON path of the first mistake."""
    run((record, CONFIG), config, "")


def check_mounts(entries: Any, path: str = "mounts") -> None:
    """Check an array of mounts, as `mounts add` has it.  Raises Error."""
    run((array, (record, _MOUNT)), entries, path)


def demanded(config: Config) -> list[str]:
    """Return the warnings that the specification asks for (config.md, Mounts, Linux Process)."""
    lines = []
    for index, mount in enumerate(config.get("mounts", ())):
        destination = mount["destination"]
        if destination[0] != "/":
            lines.append(
                f"mounts[{index}].destination: {show(destination)} is relative, which is "
                "deprecated; taken from the root of the container"
            )
    lines += not_granted(config.get("process", {}).get("capabilities", {}))
    if config.get("linux", {}).get("personality", {}).get("flags"):
        lines.append("linux.personality.flags: are ignored, no flag is supported")
    return lines


def warnings(config: Config) -> list[str]:
    """Return what in a checked configuration is passed over or hardly meant, a line each."""
    from . import advice

    return demanded(config) + advice.advise(config)


def _version(value: str) -> str:
    """Complain about what is not SemVer 2.0.0, or has another major version than 1.

    As in runc a "v" may precede it, and "1.0" stands for "1.0.0".
    """
    core, plus, build = value[value[:1] == "v" :].partition("+")
    core, dash, release = core.partition("-")
    numbers = core.split(".")
    if len(numbers) == 2:
        numbers.append("0")
    parts = release.split(".") if dash else []
    well_formed = (
        len(numbers) == 3
        and all(made_of(each, DIGITS) and (each == "0" or each[0] != "0") for each in numbers)
        and all(made_of(each, ALNUM + "-") for each in parts)
        and not any(made_of(each, DIGITS) and each[0] == "0" and each != "0" for each in parts)
        and (not plus or all(made_of(each, ALNUM + "-") for each in build.split(".")))
    )
    if not well_formed:
        return f'must be a version like "1.3.0", got {show(value)}'
    if numbers[0] != "1":
        return f"must be a version 1.x, got {show(value)}"
    return ""


def _uts_name(value: str) -> str:
    length = len(value.encode("utf-8", "surrogatepass"))
    if length > NAME_LENGTH:
        return f"must be at most {NAME_LENGTH} bytes long, got {length}"
    return ""


def _filled(value: str) -> str:
    return "" if value else "must not be empty"


def _destination(value: str) -> str:
    return (
        ""
        if normal(value) != "/"
        else f"must be below the root of the container, got {show(value)}"
    )


def _mount(mount: Any) -> None:
    uid = bool(mount.get("uidMappings"))
    gid = bool(mount.get("gidMappings"))
    if uid != gid:
        missing, given = ("gidMappings", "uidMappings") if uid else ("uidMappings", "gidMappings")
        raise Mistake(f"is missing, must be set along with {given}", missing)


def _config(config: Any) -> None:
    """Check what has to hold between the top level and the namespaces."""
    present = namespaces(config.get("linux", {}))
    for key in ("hostname", "domainname"):
        if config.get(key) and "uts" not in present:
            raise Mistake("must not be set without a uts namespace", key)
    if "user" in present:
        return
    for index, mount in enumerate(config.get("mounts", ())):
        options = mount.get("options", ())
        for place, option in enumerate(options):
            if option.rstrip("=") in ("idmap", "ridmap") and not mount.get("uidMappings"):
                raise Mistake(
                    f"{option} must have uidMappings and gidMappings, or a user namespace",
                    "mounts", index, "options", place,
                )  # fmt: skip


def _hook(hook: Any) -> None:
    if hook.get("args") and not hook["args"][0]:
        raise Mistake("must not be empty, it is the name of the program", "args", 0)
    for index, entry in enumerate(hook.get("env") or ()):
        if entry[:1] in ("", "="):
            raise Mistake("must have a name before the =", "env", index)


_HOOK: Final = (
    {
        "path": ABSOLUTE,
        "args": STRINGS,
        "env": STRINGS,
        "timeout": (integer, (1, (1 << 63) - 1)),
    },
    ("path",),
    _hook,
)
_MOUNT: Final = (
    {
        "destination": (text, _destination),
        "source": STRING,
        "type": STRING,
        "options": STRINGS,
        "uidMappings": (mappings, None),
        "gidMappings": (mappings, None),
    },
    ("destination",),
    _mount,
)
CONFIG: Final = (
    {
        "ociVersion": (text, _version),
        "root": (record, ({"path": (text, _filled), "readonly": BOOLEAN}, ("path",), None)),
        "mounts": (array, (record, _MOUNT)),
        "process": (record, PROCESS),
        "hostname": (text, _uts_name),
        "domainname": (text, _uts_name),
        "hooks": (record, (dict.fromkeys(HOOKS, (array, (record, _HOOK))), (), None)),
        "annotations": (mapping, (None, STRING)),
        "linux": (record, LINUX),
    },
    ("ociVersion", "root"),
    _config,
)
