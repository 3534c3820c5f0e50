"""What this runtime can do, as the features document of the specification.

Side: host.  Cold.  Engines decide by it: containerd's CRI plugin offers recursive read-only
mounts if mountOptions has rro, and user namespaces if mountExtensions.idmap is enabled.  It
states what the program can do, whatever the host offers (features.md), and nothing that does
not work.
"""

from __future__ import annotations

from .. import cli

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli import Options, Settings, Table

HELP = "print what the runtime supports as JSON"
USAGE = ""
OPTIONS: Table = ()
ARGS = (0, 0)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the document; touches neither the state directory nor a cgroup."""
    del settings, options, args
    from .. import jsonio

    cli.write_out(jsonio.dumps(document(), indent=4) + "\n")
    return 0


# Parts of the specification that are not done yet.
_ID_MAPPED_MOUNTS = False
_INTEL_RDT = False
_NET_DEVICES = False


def document() -> dict[str, Any]:
    """Return the features document (features.md and features-linux.md of specification 1.3)."""
    from .. import __version__, capabilities, mountoptions, plan, seccomp, spec

    systemd = _has("cgroup.systemd")
    unsafe = ["run.oci.keep_original_groups"]
    if systemd:
        unsafe.append("org.systemd.property.")
    annotations = {
        "org.anocir.version": __version__,
        # The name that engines look for.
        "org.opencontainers.runc.checkpoint.enabled": "false",
    }
    library = seccomp.library_version()
    if library:
        annotations["io.github.seccomp.libseccomp.version"] = library
    options = mountoptions.names()
    if not _ID_MAPPED_MOUNTS:
        options = [name for name in options if name not in ("idmap", "ridmap")]
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": cli.SPEC_VERSION,
        "hooks": list(spec.HOOKS),
        "mountOptions": options,
        "linux": {
            "namespaces": sorted(plan.NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": _has("cgroup.v1"),
                "v2": _has("cgroup.v2"),
                "systemd": systemd,
                "systemdUser": systemd,
                "rdma": True,
            },
            "seccomp": seccomp.features(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {
                "enabled": _INTEL_RDT,
                "schemata": _INTEL_RDT,
                "monitoring": _INTEL_RDT,
            },
            "memoryPolicy": {
                "modes": list(plan.MEMORY_MODES),
                "flags": list(plan.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": _ID_MAPPED_MOUNTS}},
            "netDevices": {"enabled": _NET_DEVICES},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": unsafe,
    }


def _has(module: str) -> bool:
    """Tell whether a part of the runtime is there, by its module."""
    from importlib.util import find_spec

    return find_spec(f"anocir.{module}") is not None
