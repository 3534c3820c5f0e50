"""What this runtime can do, as the features document of the specification.

Side: host.  Cold.  Engines decide by it: containerd's CRI plugin offers recursive read-only
mounts if mountOptions has rro, and user namespaces if mountExtensions.idmap is enabled.  It
states what the program can do, whatever the host offers (features.md), and nothing that does
not work.
"""

from __future__ import annotations

from .. import SPEC_VERSION
from ..base import log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings, Table
    from ..model.schema import Json

HELP = "print what the runtime supports as JSON"
USAGE = ""
OPTIONS: Table = ()
ARGS = (0, 0)


def run(settings: Settings, options: Options, args: list[str]) -> int:
    """Print the document; touches neither the state directory nor a cgroup."""
    del options, args
    from ..base import jsonio

    log.result(jsonio.dumps(document(settings), indent=4) + "\n")
    return 0


def document(settings: Settings) -> Json:
    """Return the features document (features.md and features-linux.md of specification 1.3)."""
    from .. import __version__, seccomp
    from ..linux import capabilities
    from ..model import execution, mountoptions, namespaces
    from ..model.spec import whole

    annotations = {
        "org.anocir.version": __version__,
        # The name that engines look for.
        "org.opencontainers.runc.checkpoint.enabled": _checkpoint(settings),
    }
    library = seccomp.library_version()
    if library:
        annotations["io.github.seccomp.libseccomp.version"] = library
    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": SPEC_VERSION,
        "hooks": list(whole.HOOKS),
        "mountOptions": mountoptions.names(),
        "linux": {
            "namespaces": sorted(namespaces.FLAGS),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": seccomp.features(),
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True, "schemata": True, "monitoring": True},
            "memoryPolicy": {
                "modes": list(execution.MEMORY_MODES),
                "flags": list(execution.MEMORY_FLAGS),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": annotations,
        "potentiallyUnsafeConfigAnnotations": [
            "org.criu.config",
            "org.systemd.property.",
            "run.oci.hooks.",
            "run.oci.keep_original_groups",
        ],
    }


def _checkpoint(settings: Settings) -> str:
    """Tell whether there is a criu that checkpoint and restore would take."""
    from ..errors import Error
    from ..host import criu

    try:
        criu.usable(settings.old_criu)
    except (Error, OSError) as error:
        log.debug(f"features: {error}")
        return "false"
    return "true"
