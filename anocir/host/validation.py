"""All mistakes of a configuration at once: what `anocir validate` asks.

Side: host.  Cold.  Nothing is made and no privilege is needed: the checks are those of create, as
far as they do not depend on the host.  Each stage asks only what the one before left right.
"""

from __future__ import annotations

import copy

from ..base import jsonio
from ..cgroup import convert
from ..errors import Error, reason
from ..linux import files
from ..model import plan
from ..model.spec import every, whole
from ..model.spec import process as process_spec
from ..model.spec import resources as resources_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final
    from ..model.schema import Config, Facts, Mount, SeccompRule

    Found = tuple[str, str]

_PATH: Final = r'[A-Za-z]\w*(?:\.\w+|\[\d+\]|\["(?:[^"\\]|\\.)*"\])*(?=: )'
_KEY: Final = r'\["((?:[^"\\]|\\.)*)"\]|\[(\d+)\]|(\w+)'
# What stands in the place of an element that was complained about, so that the others keep their
# numbers: harmless, and unlike anything that a configuration has.
_HARMLESS: Final[Mapping[str, Mount | SeccompRule]] = {
    "mounts": {"destination": "/.validated", "type": "tmpfs", "source": "tmpfs"},
    "syscalls": {"names": ["getpid"], "action": "SCMP_ACT_LOG"},
}
# Facts of a usual host: what `validate` says must not depend on where it runs.
_FACTS: Final[Facts] = {
    "id": "validated", "bundle": "/bundle", "rootfs": "/bundle/rootfs", "state": {},
    "cgroup": {"version": 2, "own_path": "/", "host_mountpoint": "/sys/fs/cgroup"},
    "cgroup_fallback": None, "seccomp": None, "apparmor": True, "selinux": True,
    "no_pivot": False, "no_new_keyring": False,
    "keyring": "", "clone": True, "signals": True, "preserve_fds": 0, "listen_fds": 0,
    "user_namespace": False, "check_command": True, "join": [],
}  # fmt: skip


def examine(what: str, value: Any, bundle: str = "") -> tuple[list[Found], list[Found]]:
    """Return (mistakes, warnings), each (JSON path, text), of a parsed `config`, `process` or
    `resources` (every.KINDS); with `bundle` also whether its root file system is there.
    """  # fmt: skip
    wrong = every.not_an_object(value)
    if wrong:
        return [("", wrong)], []
    found = every.mistakes(what, value)
    warnings = every.unknown(what, value)
    left = copy.deepcopy(value)
    # What is left without the mistakes can be asked the questions that need a sound whole.
    for path, _ in found:
        _without(left, path if what == "config" else path.partition(".")[2])
    if not _sound(what, left):
        return found, warnings
    if what == "config":
        more = _config(left, bundle)
        told = {path for path, _ in warnings}
        lines = (split(line) for line in whole.warnings(left))
        warnings += [(path, text) for path, text in lines if path not in told]
    elif what == "process":
        more = [] if left.get("args") else [("process.args", "must not be empty")]
    else:
        more = _limits({"resources": left}, "resources", "linux.resources")
    # Not what only looks wrong because a mistake beside it was taken out.
    owners = {path.rpartition(".")[0] for path, _ in found}
    found += [(path, text) for path, text in more if path.rpartition(".")[0] not in owners]
    return found, warnings


def _sound(what: str, left: Any) -> bool:
    """Check what is left; an object that lacks something now is taken out as a whole."""
    for _ in range(100):
        try:
            if what == "config":
                whole.check(left)
            elif what == "process":
                process_spec.check(left)
            else:
                resources_spec.check(left, "resources")
        except Error as error:
            path, _ = split(error.text)
            if what != "config":
                path = path.partition(".")[2]
            owner = path.rpartition(".")[0]
            if not owner or not _without(left, owner):
                return False
        else:
            return True
    return False


def _config(config: Config, bundle: str) -> list[Found]:
    found = []
    if bundle:
        found += _rootfs(config, bundle)
    limits = {"linux": {"resources": (config.get("linux") or {}).get("resources") or {}}}
    found += _limits(limits, "linux.resources", "linux.resources")
    found += _seccomp(config)
    found += _each(config, lambda left: plan.compile_create(left, _FACTS))
    return found


def _rootfs(config: Config, bundle: str) -> list[Found]:
    from . import facts

    try:
        facts.rootfs(config, bundle)
    except Error as error:
        return [split(error.text)]
    return []


def _limits(value: Any, own: str, told: str) -> list[Found]:
    """Ask both versions of cgroups: which one a host has is not the configuration's affair."""
    found: list[Found] = []
    for version in (convert.v1, convert.v2):

        def ask(left: Any, version: Callable[[Any], Any] = version) -> None:
            version(left["resources"] if "resources" in left else left["linux"]["resources"])

        for path, text in _each(value, ask, told, own):
            if (path, text) not in found:
                found.append((path, text))
    return found


def _seccomp(config: Config) -> list[Found]:
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return []
    from .. import seccomp
    from ..seccomp import library

    if not library.version():
        return []
    return _each(
        {"linux": {"seccomp": profile}},
        lambda left: seccomp.compile(left["linux"]["seccomp"], None, lambda _: None),
    )


def _each(value: Any, ask: Callable[[Any], object], told: str = "", own: str = "") -> list[Found]:
    """Ask until there is no complaint: each time without what the last one was about."""
    left = copy.deepcopy(value)
    found: list[Found] = []
    for _ in range(1000):
        try:
            ask(left)
        except Error as error:
            path, text = split(error.text)
            if told and path.startswith(told):
                path = own + path[len(told) :]
            if (path, text) in found:
                break
            found.append((path, text))
            if not _without(left, path):
                break
        else:
            break
    return found


def _without(value: Any, path: str) -> bool:
    """Take out what a path leads to; an element of a list is replaced by a harmless one."""
    import re

    keys: list[str | int] = [
        int(number) if number else quoted or word for quoted, number, word in re.findall(_KEY, path)
    ]
    for depth, key in enumerate(keys):
        last = depth + 1 == len(keys)
        try:
            if isinstance(key, int) and keys[depth - 1] in _HARMLESS:
                value[key] = copy.deepcopy(_HARMLESS[str(keys[depth - 1])])
                return True
            if last:
                del value[key]
                return True
            value = value[key]
        except (KeyError, IndexError, TypeError):
            return False
    return False


def split(text: str) -> tuple[str, str]:
    """Return the JSON path at the head of an error's text, empty if there is none, and the rest."""
    import re

    match = re.match(_PATH, text)
    return (match.group(), text[match.end() + 2 :]) if match else ("", text)


def load(path: str) -> tuple[Any, str]:
    """Return the value in a JSON file, or None and the one mistake that hides all others."""
    try:
        if path == "-":
            return jsonio.loads(files.read_fd(0), "standard input"), ""
        return jsonio.load(path), ""
    except (Error, OSError) as error:
        return None, reason(error)
