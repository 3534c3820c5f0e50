"""The plan of a bundle on this host, without a side effect.

Side: host.  Cold.
"""

from __future__ import annotations

from ..cgroup import choice
from ..base import jsonio
from ..errors import Error, at
from ..linux import processes
from ..model import entering, namespaces, plan
from ..model.spec import process as process_spec
from ..model.spec import whole
from . import facts, program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from ..cli import Options, Settings
    from ..model.schema import Config, Facts, Process
    from ..wire.shapes import CgroupView, Filter, Plan

_ID = "explained"


def of_bundle(settings: Settings, options: Options) -> tuple[Plan, list[str]]:
    """Return the plan of create, or with --process of exec, and what the host side does.

    Raises Error as create does, as far as that looks at nothing but the configuration.
    """
    bundle = facts.absolute(options["bundle"])
    config: Config = jsonio.load(f"{bundle}/config.json")
    whole.check(config)
    rootfs = facts.rootfs(config, bundle)
    known = _facts(settings, config, options, bundle, rootfs)
    if not options["process"]:
        return plan.compile_create(config, known), _host(settings, config)
    process: Process = jsonio.load(options["process"])
    process_spec.check(process)
    if not process.get("args"):
        raise at("process.args", "must not be empty")
    known["seccomp"] = _program(config)
    known["join"] = [
        (kind, f"/proc/PID/ns/{namespaces.FILES[kind]}") for kind in namespaces.of(config)
    ]
    host = ["join the container's cgroups before anything else", "write process.oomScoreAdj"]
    return entering.compile_exec(config, process, known), host


def _facts(settings: Settings, config: Config, options: Options, bundle: str, rootfs: str) -> Facts:
    """Return what the plan needs; a host without cgroups is no reason not to explain."""
    view: CgroupView | None = None
    kinds = [mount.get("type") for mount in config.get("mounts") or []]
    if "cgroup" in kinds or "cgroup2" in kinds:
        try:
            view = choice.maker(choice.choose(settings, config, _ID)).mount_view()
        except (Error, OSError):
            view = {"version": 2, "own_path": "/", "host_mountpoint": "/sys/fs/cgroup"}
    process = config.get("process") or {}
    return {
        "id": _ID, "bundle": bundle, "rootfs": rootfs, "state": {}, "cgroup": view,
        "cgroup_fallback": None, "seccomp": _program(config),
        "apparmor": bool(process.get("apparmorProfile")) and program.lsm("apparmor"),
        "selinux": bool(process.get("selinuxLabel")) and program.lsm("selinux"),
        "check_command": True, "no_pivot": options["no_pivot"],
        "no_new_keyring": options["no_new_keyring"],
        "keyring": "", "clone": True, "signals": True, "preserve_fds": 0, "listen_fds": 0,
        "user_namespace": processes.in_user_namespace(),
    }  # fmt: skip


def _program(config: Config) -> Filter | None:
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return None
    from .. import seccomp

    return seccomp.compile(profile, None, lambda _: None)


def _host(settings: Settings, config: Config) -> list[str]:
    """Return what the host side does while init works, in order."""
    linux = config.get("linux") or {}
    hooks: Mapping[str, Any] = config.get("hooks") or {}
    spaces = namespaces.of(config)
    lines = [f"write state below {settings.root}/ID"]
    try:
        record = choice.choose(settings, config, _ID)
        lines.append(f"make cgroups ({record['manager']}) and set linux.resources")
    except (Error, OSError) as error:
        lines.append(f"cgroups: {error}")
    if spaces.get("user") == "":
        lines.append("write linux.uidMappings and linux.gidMappings")
    if namespaces.host_makes_network(config, processes.in_user_namespace()):
        lines.append("make the network namespace with its loopback")
    if linux.get("netDevices"):
        lines.append(f"move network devices: {', '.join(linux['netDevices'])}")
    if linux.get("intelRdt") is not None:
        lines.append("put init into its resctrl group (linux.intelRdt)")
    for name in ("prestart", "createRuntime"):
        if hooks.get(name):
            lines.append(f"run {len(hooks[name])} {name} hook(s)")
    lines.append("record the state created; start then lets init go on")
    for name in ("poststart", "poststop"):
        if hooks.get(name):
            when = "start" if name == "poststart" else "delete"
            lines.append(f"{when}: run {len(hooks[name])} {name} hook(s)")
    return lines
