"""The options of a mount in config.json, and what each means to the kernel.

Side: pure.  Sources: config.md (Linux mount options), mount(8), mount_setattr(2).
"""

from __future__ import annotations

from ..linux.const import (
    MOUNT_ATTR__ATIME,
    MOUNT_ATTR_NOATIME,
    MOUNT_ATTR_NODEV,
    MOUNT_ATTR_NODIRATIME,
    MOUNT_ATTR_NOEXEC,
    MOUNT_ATTR_NOSUID,
    MOUNT_ATTR_NOSYMFOLLOW,
    MOUNT_ATTR_RDONLY,
    MOUNT_ATTR_RELATIME,
    MOUNT_ATTR_STRICTATIME,
    MS_BIND,
    MS_DIRSYNC,
    MS_I_VERSION,
    MS_LAZYTIME,
    MS_MANDLOCK,
    MS_NOATIME,
    MS_NODEV,
    MS_NODIRATIME,
    MS_NOEXEC,
    MS_NOSUID,
    MS_NOSYMFOLLOW,
    MS_PRIVATE,
    MS_RDONLY,
    MS_REC,
    MS_RELATIME,
    MS_REMOUNT,
    MS_SHARED,
    MS_SILENT,
    MS_SLAVE,
    MS_STRICTATIME,
    MS_SYNCHRONOUS,
    MS_UNBINDABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Final

    from .schema import Mount
    from ..wire.shapes import MountOptions

_ATIME_MS: Final = MS_NOATIME | MS_RELATIME | MS_STRICTATIME

# Flags of one mount: what mount_setattr(2) sets and clears, what mount(2) sets and clears.
ATTRIBUTES: Final = {
    "ro": (MOUNT_ATTR_RDONLY, 0, MS_RDONLY, 0),
    "rw": (0, MOUNT_ATTR_RDONLY, 0, MS_RDONLY),
    "nosuid": (MOUNT_ATTR_NOSUID, 0, MS_NOSUID, 0),
    "suid": (0, MOUNT_ATTR_NOSUID, 0, MS_NOSUID),
    "nodev": (MOUNT_ATTR_NODEV, 0, MS_NODEV, 0),
    "dev": (0, MOUNT_ATTR_NODEV, 0, MS_NODEV),
    "noexec": (MOUNT_ATTR_NOEXEC, 0, MS_NOEXEC, 0),
    "exec": (0, MOUNT_ATTR_NOEXEC, 0, MS_NOEXEC),
    "nosymfollow": (MOUNT_ATTR_NOSYMFOLLOW, 0, MS_NOSYMFOLLOW, 0),
    "symfollow": (0, MOUNT_ATTR_NOSYMFOLLOW, 0, MS_NOSYMFOLLOW),
    "nodiratime": (MOUNT_ATTR_NODIRATIME, 0, MS_NODIRATIME, 0),
    "diratime": (0, MOUNT_ATTR_NODIRATIME, 0, MS_NODIRATIME),
    # The three ways to keep access times are one field of two bits.
    "noatime": (MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME, MS_NOATIME, _ATIME_MS),
    "atime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME, 0, _ATIME_MS),
    "relatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME, MS_RELATIME, _ATIME_MS),
    "norelatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME, 0, _ATIME_MS),
    "strictatime": (MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME, MS_STRICTATIME, _ATIME_MS),
    "nostrictatime": (MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME, 0, _ATIME_MS),
}

# Flags of the superblock: the bit of mount(2), and the name that fsconfig(2) knows.
SUPERBLOCK: Final = {
    "sync": (MS_SYNCHRONOUS, 0, "sync"),
    "async": (0, MS_SYNCHRONOUS, "async"),
    "dirsync": (MS_DIRSYNC, 0, "dirsync"),
    "mand": (MS_MANDLOCK, 0, "mand"),
    "nomand": (0, MS_MANDLOCK, "nomand"),
    "lazytime": (MS_LAZYTIME, 0, "lazytime"),
    "nolazytime": (0, MS_LAZYTIME, "nolazytime"),
    "iversion": (MS_I_VERSION, 0, ""),
    "noiversion": (0, MS_I_VERSION, ""),
    "silent": (MS_SILENT, 0, ""),
    "loud": (0, MS_SILENT, ""),
}

PROPAGATION: Final = {
    "private": MS_PRIVATE,
    "rprivate": MS_PRIVATE | MS_REC,
    "shared": MS_SHARED,
    "rshared": MS_SHARED | MS_REC,
    "slave": MS_SLAVE,
    "rslave": MS_SLAVE | MS_REC,
    "unbindable": MS_UNBINDABLE,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# "rro" and the like: the attribute for the mount and all mounts below it.
RECURSIVE: Final = {"r" + name: value[:2] for name, value in ATTRIBUTES.items()}

OTHER: Final = (
    "bind", "rbind", "remount", "defaults", "tmpcopyup", "copy-symlink", "src-nofollow",
    "dest-nofollow", "idmap", "ridmap",
)  # fmt: skip


def names() -> list[str]:
    """Return every option that anocir itself understands, sorted: `features` lists them."""
    return sorted({*ATTRIBUTES, *SUPERBLOCK, *PROPAGATION, *RECURSIVE, *OTHER})


def is_bind(mount: Mount) -> bool:
    """Tell whether an entry of `mounts` is a bind mount."""
    options = mount.get("options") or []
    return mount.get("type") == "bind" or "bind" in options or "rbind" in options


def idmap_words(mount: Mount) -> list[str] | None:
    """Return the options that ask for an id-mapped mount (mappings may also); None for another."""
    words = [o for o in mount.get("options") or [] if o.split("=")[0] in ("idmap", "ridmap")]
    return words if words or mount.get("uidMappings") else None


def parse(options: Sequence[str]) -> MountOptions:
    """Sort the options of one mount.

    Returns plain data: `set`, `clear` (MOUNT_ATTR_* for the mount), `recursive_set`,
    `recursive_clear`, `ms` (the flags of mount(2)), `super` (fsconfig names), `propagation`
    (MS_* in order), `exact` (a flag of the mount is named, so a bind mount has those that are, and
    no other), `bind`, `rec`, `remount`, `copyup`, `copy_symlink`, `src_nofollow`, `dest_nofollow`,
    `idmap` (None or text, empty for the container's own mapping), `idmap_rec`, and `data` (what is
    left, for the file system).  An empty option is none: Podman 5 writes some.
    """
    result: MountOptions = {
        "set": 0, "clear": 0, "recursive_set": 0, "recursive_clear": 0, "ms": 0, "super": [],
        "propagation": [], "bind": False, "rec": False, "remount": False, "copyup": False,
        "exact": False, "copy_symlink": False, "src_nofollow": False, "dest_nofollow": False,
        "idmap": None, "idmap_rec": False, "data": [],
    }  # fmt: skip
    for option in options:
        attribute = ATTRIBUTES.get(option)
        if attribute is not None:
            add, remove, ms_add, ms_remove = attribute
            result["set"] = result["set"] & ~remove | add
            result["clear"] = result["clear"] & ~add | remove
            result["ms"] = result["ms"] & ~ms_remove | ms_add
            result["exact"] = True
        elif option in PROPAGATION:
            result["propagation"].append(PROPAGATION[option])
        elif option in RECURSIVE:
            add, remove = RECURSIVE[option]
            result["recursive_set"] = result["recursive_set"] & ~remove | add
            result["recursive_clear"] = result["recursive_clear"] & ~add | remove
        elif option in SUPERBLOCK:
            ms_add, ms_remove, name = SUPERBLOCK[option]
            result["ms"] = result["ms"] & ~ms_remove | ms_add
            result["exact"] = True
            if name:
                result["super"].append(name)
        elif option in ("bind", "rbind"):
            result["bind"] = True
            result["rec"] = result["rec"] or option == "rbind"
            result["ms"] |= MS_BIND | (MS_REC if option == "rbind" else 0)
        elif option == "remount":
            result["remount"] = True
            result["ms"] |= MS_REMOUNT
        elif option == "tmpcopyup":
            result["copyup"] = True
        elif option in ("copy-symlink", "src-nofollow", "dest-nofollow"):
            result[option.replace("-", "_")] = True  # type: ignore[literal-required]
        elif option in ("idmap", "ridmap") or option.startswith(("idmap=", "ridmap=")):
            name, _, text = option.partition("=")
            result["idmap"] = text
            result["idmap_rec"] = name == "ridmap"
        elif option not in ("", "defaults"):
            result["data"].append(option)
    if result["bind"] or result["remount"]:
        _keep_access_times(result)
    return result


def _keep_access_times(result: MountOptions) -> None:
    """Treat access times as mount(2) does when it changes a mount, and so runc and crun do.

    Without a word that sets one of their flags they stay what they are (so `atime` alone does
    nothing); with one they are what is named, and relatime if that is only nodiratime.
    """
    ms = result["ms"] & (_ATIME_MS | MS_NODIRATIME)
    kept = MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME
    result["set"] &= ~kept
    result["clear"] &= ~kept
    if not ms:
        return
    if ms & MS_STRICTATIME:
        result["set"] |= MOUNT_ATTR_STRICTATIME
    elif ms & MS_NOATIME:
        result["set"] |= MOUNT_ATTR_NOATIME
    result["clear"] |= MOUNT_ATTR__ATIME
    result["set" if ms & MS_NODIRATIME else "clear"] |= MOUNT_ATTR_NODIRATIME
