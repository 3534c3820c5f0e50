"""What the host side knows and the plan of create needs: facts about the host, caller, bundle.

Side: host.
"""

from __future__ import annotations


import posix

from .. import SPEC_VERSION
from ..base import HOOK_OUTPUTS, log, normal
from ..cgroup import choice
from ..errors import Error, at, keyed, reason, strerror
from ..linux import entries, files, processes
from ..model import namespaces
from . import program

_FEW_MOUNTS: Final = 16
_SPARE: Final = 200  # descriptors that anything else may need

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..cli import Options, Settings
    from ..model.schema import Config, Facts, Intent, State


def absolute(path: str) -> str:
    """Return a path of the caller as an absolute one; empty means the working directory."""
    if path.startswith("/"):
        return path.rstrip("/") or "/"
    try:
        here = entries.getcwd()
    except OSError as error:
        raise Error(
            f"--bundle: the working directory: {strerror(error.errno or 0)}",
            "it has been removed: go to another one, or give --bundle an absolute path",
        ) from None
    return f"{here}/{path}".rstrip("/") if path not in ("", ".") else here


def rootfs(config: Config, bundle: str) -> str:
    """Return the absolute path of the root file system, and take destinations of mounts from there.

    Raises Error when it is no directory.
    """
    if not config.get("root"):
        raise at("root", "must be specified")
    path = config["root"]["path"]
    path = normal(path if path.startswith("/") else f"{bundle}/{path}")
    try:
        found = files.stat(path)
    except OSError as error:
        raise at("root.path", f"invalid rootfs: stat {reason(error)}") from None
    if files.kind(found) != files.S_IFDIR:
        raise at("root.path", f"invalid rootfs: {path}: not a directory")
    for mount in config.get("mounts") or []:
        # A destination that begins with the root's own path is meant from the root, as by runc.
        place = normal(mount["destination"])
        if path != "/" and (place + "/").startswith(path + "/"):
            mount["destination"] = place[len(path) :] or "/"
    return path


def owner() -> str:
    """Return the name of the user who calls, by /etc/passwd of the host."""
    uid = str(posix.getuid())
    if uid == "0":
        return "root"
    try:
        for line in files.read_file("/etc/passwd").split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 3 and fields[2] == uid.encode():
                return files.decode(fields[0])
    except OSError as error:
        log.debug(f"owner: {reason(error)}")
    return uid


def private_pids(config: Config) -> bool:
    """Tell whether all processes end with init: a new pid namespace."""
    return namespaces.of(config).get("pid") == ""


def of_create(
    settings: Settings,
    container_id: str,
    config: Config,
    options: Options,
    intent: Intent,
) -> Facts:
    """Return the facts that the plan of create needs (model/schema.Facts says which)."""
    kinds = [mount.get("type") for mount in config.get("mounts") or []]
    view = fallback = own = unified = None
    if "cgroup" in kinds or "cgroup2" in kinds:
        manager = choice.maker(intent["cgroup"])
        view = manager.mount_view()
        if intent["cgroup"].get("tolerant"):
            own = choice.maker({"manager": "disabled", "reason": ""})
            fallback = own.mount_view()
        if "cgroup2" in kinds:  # beside the hierarchies of v1 such a mount shows that one alone
            unified = (manager.mount_view("cgroup2"), own.mount_view("cgroup2") if own else None)
    state: State = {
        "ociVersion": SPEC_VERSION,
        "id": container_id,
        "bundle": intent["bundle"],
        "rootfs": intent["rootfs"],
    }
    if intent["annotations"]:
        state["annotations"] = intent["annotations"]
    of_process = program.process_facts(settings, config, config.get("process") or {})
    if (config.get("linux") or {}).get("mountLabel") and not of_process["selinux"]:
        log.warn("linux.mountLabel: selinux is not enabled on this host, ignored")
    return {
        **of_process,
        "id": container_id,
        "bundle": intent["bundle"],
        "rootfs": intent["rootfs"],
        "state": state,
        "cgroup": view,
        "cgroup2": unified,
        "cgroup_fallback": fallback,
        "check_command": settings.start_exec_errors != "container",
        "no_pivot": options["no_pivot"],
        "no_new_keyring": options["no_new_keyring"],
        "preserve_fds": options["preserve_fds"],
        "user_namespace": processes.in_user_namespace(),
    }


# The kernel that gave each pid namespace its own; before, it is the host's.
_SYSCTL_SINCE: Final = {"kernel.pid_max": (6, 14), "vm.memfd_noexec": (6, 3)}


def check_sysctls(config: Config) -> None:
    """Refuse what on this kernel belongs to the host and not to a pid namespace."""
    for name in (config.get("linux") or {}).get("sysctl") or ():
        since = _SYSCTL_SINCE.get(name.replace("/", "."))
        if since:
            release = posix.uname().release
            numbers = tuple(int(part) for part in release.split("-")[0].split(".")[:2])
            if numbers < since:
                raise at(
                    keyed("linux.sysctl", name),
                    f"belongs to a pid namespace since Linux {since[0]}.{since[1]}, this is "
                    f"{release}",
                )


# Of crun's annotations those that mean something here, or that only name what was asked.
CRUN_ANNOTATIONS: Final = frozenset((
    *HOOK_OUTPUTS, "run.oci.delegate-cgroup", "run.oci.keep_original_groups",
    "run.oci.mount_context_type", "run.oci.systemd.subgroup",
))  # fmt: skip


def descriptors(config: Config) -> tuple[int, int] | None:
    """Return our limit of open files if the set-up needs more of them than it allows.

    Each bind source is held open, so that the limit of a login (1024), or a smaller one of a
    service, would be a limit of mounts.
    """
    count = len(config.get("mounts") or ())
    if count <= _FEW_MOUNTS:
        return None
    from ..linux import tasks
    from ..linux.const import RLIMIT_NOFILE

    limit = tasks.getrlimit(RLIMIT_NOFILE)
    return limit if limit[0] < limit[1] and limit[0] < count + _SPARE else None
