"""What a checked configuration says that anocir passes over, or that is hardly meant.

Side: pure, cold.  None of it keeps a container from running.  What the specification wants said
stands in `whole.demanded`.
"""

from __future__ import annotations

from .kinds import array, mapping, record
from .whole import CONFIG, NAME_LENGTH
from .words import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .kinds import Kind
    from ..schema import Config

# Properties of the spec that are not for Linux, or not any longer
_OTHER: Final = {
    "": ("windows", "solaris", "vm", "zos", "freebsd"),
    "linux.intelRdt": ("enableCMT", "enableMBM"),
}


def advise(config: Config) -> list[str]:
    """Return one line for each thing worth a warning, the JSON path first."""
    lines: list[str] = []
    _unknown((record, CONFIG), config, "", lines)
    _mounts(config.get("mounts", ()), lines)
    _process(config.get("process", {}), lines)
    _linux(config.get("linux", {}), lines)
    return lines


def _unknown(kind: Kind, value: Any, path: str, lines: list[str]) -> None:
    """Walk the tables beside the value and list the properties that they do not have."""
    check, argument = kind
    if check is record:
        table = argument[0]
        for key, item in value.items():
            if key in table:
                _unknown(table[key], item, join(path, [key]), lines)
            elif key in _OTHER.get(path, ()):
                lines.append(f"{join(path, [key])}: is ignored on Linux")
            else:
                lines.append(f"{join(path, [key])}: unknown property is ignored{_like(key, table)}")
    elif check is mapping and argument[1][0] is record:
        for key, item in value.items():
            _unknown(argument[1], item, join(path, [key]), lines)
    elif check is array and argument[0] is record:
        for index, item in enumerate(value):
            _unknown(argument, item, join(path, [index]), lines)


def _like(key: str, table: Any) -> str:
    """Runc takes names in any case; whoever comes from there finds out here."""
    for known in table:
        if known.lower() == key.lower():
            return f", did you mean {known}?"
    return ""


def _mounts(mounts: Any, lines: list[str]) -> None:
    for index, mount in enumerate(mounts):
        path = f"mounts[{index}]"
        options = mount.get("options", ())
        if mount.get("type") == "bind" and "bind" not in options and "rbind" not in options:
            lines.append(f"{path}: type bind without the option bind or rbind, taken as a bind")
        if mount.get("type") == "bind" or "bind" in options or "rbind" in options:
            for number, word in enumerate(options):
                if word.startswith(("mode=", "size=")):
                    lines.append(
                        f"{path}.options[{number}]: is passed over, a bind mount has what "
                        "the file system has that is there"
                    )
        if mount.get("uidMappings") and "idmap" not in options and "ridmap" not in options:
            lines.append(f"{path}.uidMappings: older runtimes need the option idmap or ridmap too")


def _process(process: Any, lines: list[str]) -> None:
    if "commandLine" in process:
        lines.append("process.commandLine: is ignored on Linux")
    if "username" in process.get("user", {}):
        lines.append("process.user.username: is ignored on Linux")


def _linux(linux: Any, lines: list[str]) -> None:
    if "mount" not in [each["type"] for each in linux.get("namespaces", ())]:
        lines.append("linux.namespaces: no mount namespace, mounts are made in the host's")
    if not linux.get("intelRdt", {}).get("l3CacheSchema", "L3:").startswith("L3:"):
        lines.append('linux.intelRdt.l3CacheSchema: should begin with "L3:"')
    for index, device in enumerate(linux.get("devices", ())):
        # Podman leaves the bits of the file type in, which is harmless
        if device.get("fileMode", 0) > 0o177777:
            lines.append(
                f"linux.devices[{index}].fileMode: only the low 12 bits of "
                f"{device['fileMode']} are used"
            )
    for key in ("kernel.domainname", "kernel/domainname"):
        value = linux.get("sysctl", {}).get(key, "").encode("utf-8", "surrogatepass")
        kept = value.split(b"\n")[0][:NAME_LENGTH]
        if value not in (kept, kept + b"\n"):
            lines.append(
                f"{join('linux.sysctl', [key])}: the kernel keeps {len(kept)} of its "
                f"{len(value)} bytes"
            )
    seccomp = linux.get("seccomp", {})
    actions = [rule["action"] for rule in seccomp.get("syscalls", ())]
    if seccomp.get("listenerPath") and "SCMP_ACT_NOTIFY" not in actions:
        lines.append("linux.seccomp.listenerPath: is ignored, no rule has SCMP_ACT_NOTIFY")
