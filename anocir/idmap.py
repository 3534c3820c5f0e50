"""Id-mapped mounts: files of one owner appear as another's.

Side: host.  Source: mount_setattr(2), "ID-mapped mounts" (Linux 5.12); config.md, mounts.
"""

from __future__ import annotations

from . import namespaces
from .errors import at, strerror
from .linux import files, mounts
from .linux.const import (
    AT_EMPTY_PATH,
    AT_RECURSIVE,
    ENOSYS,
    MOUNT_ATTR_IDMAP,
    OPEN_TREE_CLONE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def mount(source: str, entry: dict[str, Any], words: list[str], pid: int, where: str) -> int:
    """Return a detached id-mapped copy of the mount at `source`.

    `words` are the options idmap and ridmap; the mapping is the mount's own, the one in the
    option (crun's form `idmap=uids=0-1000-10;gids=...`), or else the container's, whose user
    namespace process `pid` is in.
    """
    word = words[-1] if words else "idmap"
    name, _, text = word.partition("=")
    recursive = name == "ridmap"
    bind_rec = "rbind" in (entry.get("options") or [])
    if entry.get("uidMappings"):
        pairs = [
            [(m["containerID"], m["hostID"], m["size"]) for m in entry.get(key) or []]
            for key in ("uidMappings", "gidMappings")
        ]
        userns = namespaces.make_user_namespace(*pairs)
    elif text:
        userns = namespaces.make_user_namespace(*_parse(text, where))
    else:
        userns = files.open(f"/proc/{pid}/ns/user", files.O_RDONLY)
    fd = mount_fd = -1
    try:
        fd = files.open(source, files.O_PATH)
        clone = OPEN_TREE_CLONE | AT_EMPTY_PATH | (AT_RECURSIVE if bind_rec else 0)
        mount_fd = mounts.open_tree(fd, "", clone)
        flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
        mounts.mount_setattr(mount_fd, flags, MOUNT_ATTR_IDMAP, userns_fd=userns)
    except OSError as error:
        if mount_fd >= 0:
            files.close(mount_fd)
        hint = "id-mapped mounts need Linux 5.12" if error.errno == ENOSYS else (
            "the file system may not support id-mapped mounts")  # fmt: skip
        raise at(
            where, f"id-mapped mount of {source}: {strerror(error.errno or 0)}", hint
        ) from None
    finally:
        files.close(userns)
        if fd >= 0:
            files.close(fd)
    return mount_fd


def _parse(text: str, where: str) -> tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]:
    """Parse `uids=C-H-N#C-H-N;gids=C-H-N`."""
    result: dict[str, list[tuple[int, int, int]]] = {"uids": [], "gids": []}
    for part in text.split(";"):
        name, _, value = part.partition("=")
        if name not in result:
            raise at(f"{where}.options", f'idmap needs uids= and gids=, got "{name}"')
        for mapping in value.split("#"):
            numbers = mapping.split("-")
            if len(numbers) != 3 or not all(n.isascii() and n.isdigit() for n in numbers):
                raise at(f"{where}.options", f'idmap: "{mapping}" is not CONTAINER-HOST-SIZE')
            inside, outside, size = (int(n) for n in numbers)
            result[name].append((inside, outside, size))
    return result["uids"], result["gids"]
