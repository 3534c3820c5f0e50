"""The directory with the images of a checkpoint, and what is ours in it.

Side: host.  Cold.  It is untrusted: whoever wrote it may have been another container, another host
or nobody's friend.  What CRIU would believe of it and config.json does not say is refused here,
before CRIU starts.  Sources: images/mnt.proto, magic.h and inventory.proto of CRIU 4.2;
CVE-2026-53489, CVE-2026-53492.
"""

from __future__ import annotations

from _struct import unpack_from

from ..base import jsonio, protobuf
from ..base.protobuf import BYTES, INT, TEXT
from ..errors import Error, reason
from ..linux import descriptors, entries, files
from ..linux.const import CLONE_NEWNET
from . import criu

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, Final, TypedDict

    from ..cli import Options
    from .criu import Inherited, Opts
    from .externals import External
    from ..model.distrust import Entry
    from ..model.schema import Config

    class Place(TypedDict):
        """Where a mount from outside lay: its name, in config.json, below its top, in links."""

        key: str
        destination: str
        below: str
        point: str

    class Record(TypedDict):
        """anocir.json; nobody has looked at `descriptors` when it is read."""

        version: int
        mounts: list[Place]
        descriptors: dict[str, str]


DESCRIPTORS: Final = "descriptors.json"
RECORD: Final = "anocir.json"
_VERSION: Final = 1
# Far more than CRIU or we write, and little enough to be read.
_MOST_TEXT: Final = 1 << 20
_MOST_IMAGE: Final = 16 << 20
_MOST_FILES: Final = 1 << 20
_WORK: Final = ("dump.log", "restore.log", "stats-dump", "stats-restore")
_DEEPEST: Final = 64  # pre-dumps on one another

# criu/include/magic.h
_COMMON: Final = 0x54564319
_MOUNTS: Final = 0x55563928
_CGROUPS: Final = 0x59383330
_FILES: Final = 0x56303138
# images/fdinfo.proto, images/sk-inet.proto; socket(2)
_FILE: Final[protobuf.Table] = {"type": (1, INT), "inet": (4, {"type": (4, INT)})}
_PACKET: Final = 10
_SOCK_RAW: Final = 3

ENTRY: Final[protobuf.Table] = {
    "fstype": (1, INT),
    "id": (2, INT),
    "device": (3, INT),
    "parent": (4, INT),
    "flags": (5, INT),
    "root": (6, TEXT),
    "point": (7, TEXT),
    "source": (8, TEXT),
    "options": (9, TEXT),
    "shared": (10, INT),
    "master": (11, INT),
    "with_plugin": (12, INT),
    "ext_mount": (13, INT),
    "fsname": (14, TEXT),
    "deleted": (16, INT),
    "key": (18, TEXT),
}
# images/cgroup.proto; a directory holds others of its kind.
_SET: Final[protobuf.Table] = {"members": (2, [{"name": (1, TEXT), "path": (2, TEXT)}])}
_CONTROLLER: Final[protobuf.Table] = {"names": (1, [TEXT]), "dirs": (2, [BYTES])}
_CGROUP: Final[protobuf.Table] = {"sets": (1, [_SET]), "controllers": (2, [_CONTROLLER])}
_DIR: Final[protobuf.Table] = {
    "name": (1, TEXT), "dirs": (2, [BYTES]), "files": (3, [{"name": (1, TEXT)}]),
}  # fmt: skip


class Directories:
    """The open image directory, and the one where CRIU works and logs."""

    __slots__ = ("image", "image_fd", "work", "work_fd")

    def __init__(self, options: Options, make: bool) -> None:
        """Open them; with `make` also make them where they are missing."""
        self.image = _absolute(options["image_path"] or "checkpoint")
        self.work = _absolute(options["work_path"]) if options["work_path"] else self.image
        self.image_fd = self.work_fd = -1
        if make:
            _make(self.image)
        flags = files.O_RDONLY | files.O_DIRECTORY
        try:
            self.image_fd = files.open(self.image, flags)
        except OSError as error:
            raise Error(f"--image-path: {reason(error)}") from None
        if options.get("parent_path"):
            _check_parent(options["parent_path"], self.image_fd)
        if self.work != self.image:
            _make(self.work)
            self.work_fd = files.open(self.work, flags)

    def reopen(self) -> None:
        """Open both again by their paths, in another mount namespace: CRIU mounts below them."""
        for path, fd in ((self.image, self.image_fd), (self.work, self.work_fd)):
            if fd < 0:
                continue
            again = files.open(path, files.O_RDONLY | files.O_DIRECTORY)
            same = _identity(again) == _identity(fd)
            if same:
                files.dup2(again, fd, inheritable=False)
            files.close(again)
            if not same:
                raise Error(f"{path} was replaced meanwhile")

    def show(self, path: str) -> None:
        """Let CRIU read the images at another path, and work where it did; empty for no other."""
        if path:
            if self.work_fd < 0:
                self.work_fd = descriptors.dup_above(self.image_fd, 3)
            again = files.open(path, files.O_RDONLY | files.O_DIRECTORY)
            files.dup2(again, self.image_fd, inheritable=False)
            files.close(again)

    def write(self, name: str, text: str) -> None:
        """Write one of our files; never through a link that somebody put there."""
        flags = files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW
        try:
            files.unlink(name, self.image_fd)
        except FileNotFoundError:
            pass
        fd = files.open(name, flags, 0o600, dir_fd=self.image_fd)
        try:
            files.write_all(fd, files.encode(text))
        finally:
            files.close(fd)

    def clear(self) -> None:
        """Remove the mounts of an earlier checkpoint in the same place: CRIU writes anew only those
        of namespaces to which it gives the same numbers again.
        """
        for name in files.listdir(self.image_fd):
            if _is_table(name):
                files.unlink(name, self.image_fd)

    def read(self, name: str, limit: int = _MOST_TEXT) -> bytes:
        """Read a file of the images: a regular one, of bounded size.

        Raises FileNotFoundError when it is not there, Error when it is something else.
        """
        flags = files.O_RDONLY | files.O_NOFOLLOW | files.O_NONBLOCK
        try:
            fd = files.open(name, flags, dir_fd=self.image_fd)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Error(f"--image-path: {name}: {reason(error)}") from None
        try:
            found = files.fstat(fd)
            if files.kind(found) != files.S_IFREG:
                raise Error(f"--image-path: {name} is not a regular file")
            if found.st_size > limit:
                raise Error(f"--image-path: {name} has {found.st_size} bytes, {limit} at the most")
            return files.read_fd(fd, limit + 1)
        finally:
            files.close(fd)

    def close(self) -> None:
        """Close both."""
        for fd in (self.image_fd, self.work_fd):
            if fd >= 0:
                files.close(fd)


def _identity(fd: int) -> tuple[int, int]:
    found = files.fstat(fd)
    return found.st_dev, found.st_ino


def _absolute(path: str) -> str:
    return path if path.startswith("/") else f"{entries.getcwd()}/{path}"


def _make(path: str) -> None:
    """Make a directory and its parents, for its owner only."""
    parent = path.rstrip("/").rpartition("/")[0]
    if parent and not files.exists(parent):
        _make(parent)
    try:
        entries.mkdir(path, 0o700)
    except FileExistsError:
        return


def _check_parent(path: str, image_fd: int) -> None:
    if path.startswith("/"):
        raise Error("--parent-path: must be relative to --image-path")
    try:
        fd = files.open(path, files.O_PATH | files.O_DIRECTORY, dir_fd=image_fd)
    except OSError as error:
        raise Error(f"invalid --parent-path: {reason(error)}") from None
    files.close(fd)


def common(config: Config, options: Options, directory: Directories, log_file: str) -> Opts:
    """Return the options that a dump and a restore share."""
    opts: Opts = {
        "images_dir_fd": directory.image_fd,
        "log_level": 4,
        "log_file": log_file,
        "notify_scripts": True,
        "manage_cgroups": True,
        "manage_cgroups_mode": criu.CGROUP_MODES[options["manage_cgroups_mode"]],
        "shell_job": options["shell_job"],
        "ext_unix_sk": options["ext_unix_sk"],
        "tcp_established": options["tcp_established"],
        "file_locks": options["file_locks"],
        "auto_dedup": options["auto_dedup"],
        "lazy_pages": options["lazy_pages"],
        "tcp_close": options["tcp_close"],
        "orphan_pts_master": True,
        # Interfaces are not ours to make: who made the network does it again.
        "empty_ns": CLONE_NEWNET,
    }
    if directory.work_fd >= 0:
        opts["work_dir_fd"] = directory.work_fd
    annotations = config.get("annotations") or {}
    file = annotations.get("org.criu.config", "/etc/criu/anocir.conf")
    if file:
        opts["config_file"] = file
    return opts


def check_empty_ns(names: Sequence[str]) -> None:
    """Refuse a namespace that cannot be left empty."""
    for name in names:
        if name != "network":
            raise Error(f'--empty-ns: namespace "{name}" is not supported', "network is")


def record(found: Sequence[External], names: Mapping[int, str]) -> str:
    """Return what a restore compares with config.json."""
    mounts: list[Place] = [
        {"key": e.key, "destination": e.destination, "below": e.below, "point": e.point}
        for e in found
    ]
    files_ = {str(fd): name for fd, name in names.items()}
    whole: Record = {"version": _VERSION, "mounts": mounts, "descriptors": files_}
    return jsonio.dumps(whole)


def explain(verb: str, error: BaseException, directory: Directories, name: str) -> BaseException:
    """Add to a failure of CRIU what its log says, in one line."""
    if not isinstance(error, criu.Failed):
        return error
    path = f"{directory.work}/{name}"
    lines: list[str] = []
    try:
        text = files.read_file(name, directory.work_fd if directory.work_fd >= 0 else
                               directory.image_fd).decode("utf-8", "replace")  # fmt: skip
    except OSError:
        text = ""
    for line in text.split("\n"):
        _, found, said = line.partition("Error (")
        if found:
            said = said.partition("): ")[2].strip()
            # The last one is no failure: CRIU goes on with the limit that it has.
            if said and said not in lines and not said.startswith("rlimit: Can't setup"):
                lines.append(said)
    said = "; ".join(lines[:4]) or error.text.removeprefix("criu: ")
    said = "".join(char if char.isprintable() else "?" for char in said)
    return Error(f"{verb}: criu: {said[:600]}", f"its log is {path}" if text else "")


def check_files(directory: Directories) -> None:
    """Refuse an image directory that holds anything but regular files and directories.

    CRIU opens what it needs by name, also through a link, and some where it works, which may be a
    directory of the engine's with pipes and sockets of its own (Podman).  One link is its own:
    `parent`, to the images of an earlier pre-dump.
    """
    if directory.work_fd >= 0:
        for name in {*_WORK} & {*files.listdir(directory.work_fd)}:
            _check_kind("--work-path", name, files.kind(files.lstat(name, directory.work_fd)))
    fd = directory.image_fd
    opened: list[int] = []
    count = 0
    try:
        for depth in range(_DEEPEST + 1):
            parent = False
            for name in files.listdir(fd):
                count += 1
                kind = files.kind(files.lstat(name, fd))
                if kind == files.S_IFLNK and name == "parent":
                    parent = True
                else:
                    _check_kind("--image-path", name, kind)
            if not parent:
                return
            if depth == _DEEPEST or count > _MOST_FILES:
                break
            target = entries.readlink("parent", fd)
            if target.startswith("/"):
                raise Error("--image-path: parent must be a relative link")
            try:
                fd = files.open(target, files.O_RDONLY | files.O_DIRECTORY, dir_fd=fd)
            except OSError as error:
                raise Error(f"--image-path: parent: {reason(error)}") from None
            opened.append(fd)
        raise Error("--image-path: too many files or pre-dumps")
    finally:
        for one in opened:
            files.close(one)


def _check_kind(option: str, name: str, kind: int) -> None:
    if kind == files.S_IFSOCK and name == "lazy-pages.socket":
        return  # where `criu lazy-pages` serves
    if kind not in (files.S_IFREG, files.S_IFDIR):
        raise Error(f"{option}: {name!a} is neither a file nor a directory")


def read_record(directory: Directories) -> Record | None:
    """Return what a checkpoint of ours has recorded; None for images that are not ours."""
    try:
        data = directory.read(RECORD)
    except FileNotFoundError:
        return None
    value: Any = jsonio.loads(data, RECORD)
    if not isinstance(value, dict) or value.get("version") != _VERSION:
        raise Error(f"--image-path: {RECORD}: version is not {_VERSION}")
    mounts = value.get("mounts")
    if not isinstance(mounts, list) or not all(
        isinstance(entry, dict)
        and all(isinstance(entry.get(k), str) for k in ("key", "destination", "below", "point"))
        for entry in mounts
    ):
        raise Error(f"--image-path: {RECORD}: mounts is not a list of mounts")
    checked: Record = value  # type: ignore[assignment]
    return checked


def descriptor_names(directory: Directories, found: Record | None) -> list[Inherited]:
    """Return CRIU's names for what descriptors 0 to 2 were: pipes, and files outside of it."""
    try:
        links = jsonio.loads(directory.read(DESCRIPTORS), DESCRIPTORS)
    except FileNotFoundError:
        raise Error(f"--image-path: {DESCRIPTORS}: no such file or directory") from None
    if not isinstance(links, list) or not all(isinstance(link, str) for link in links):
        raise Error(f"--image-path: {DESCRIPTORS} is not a list of names")
    pipes = enumerate(links[:3])
    inherited = {link: fd for fd, link in pipes if _is_name(link, "pipe:[", "0123456789")}
    names: Any = found.get("descriptors") if found else None
    for fd in (0, 1, 2):
        name = names.get(str(fd)) if isinstance(names, dict) else None
        if isinstance(name, str) and _is_name(name, "file[", "0123456789abcdef:"):
            inherited[name] = fd
    return [{"key": key, "fd": fd} for key, fd in inherited.items()]


def _is_name(text: str, start: str, allowed: str) -> bool:
    inner = text[len(start) : -1]
    named = text.startswith(start) and text.endswith("]")
    return named and bool(inner) and not inner.strip(allowed)


def _is_table(name: str) -> bool:
    return name.startswith("mountpoints-") and name.endswith(".img")


def mount_tables(directory: Directories) -> list[list[Entry]]:
    """Return the mounts of each mount namespace in the images.

    Raises Error for a file that is not one of CRIU's.
    """
    return [
        [protobuf.decode(entry, ENTRY) for entry in _entries(directory, name, _MOUNTS, "mounts")]
        for name in sorted(files.listdir(directory.image_fd))
        if _is_table(name)
    ]


def _entries(directory: Directories, name: str, magic: int, what: str) -> list[bytes]:
    """Return the messages in an image.  Raises Error for another kind of file."""
    data = directory.read(name, _MOST_IMAGE)
    if len(data) < 8 or unpack_from("=II", data) != (_COMMON, magic):
        raise Error(f"--image-path: {name} is no image of {what}")
    found = []
    at = 8
    while at < len(data):
        size = unpack_from("=I", data, at)[0] if at + 4 <= len(data) else len(data)
        at += 4
        if at + size > len(data):
            raise Error(f"--image-path: {name} ends in the middle of an entry")
        found.append(data[at : at + size])
        at += size
    return found


def check_cgroups(directory: Directories) -> None:
    """Refuse names of cgroups and of their files that lead elsewhere.

    CRIU joins them to paths, in which it makes directories and writes as us: with ../ any file of
    the host.
    """
    name = "cgroup.img"
    if not files.exists(name, directory.image_fd):
        return
    for entry in _entries(directory, name, _CGROUPS, "cgroups"):
        whole = protobuf.decode(entry, _CGROUP)
        for member in (one for each in whole["sets"] for one in each["members"]):
            _check_name(name, member.get("name", ""))
            _check_path(name, member.get("path", ""))
        for controller in whole["controllers"]:
            for text in controller["names"]:
                _check_name(name, text)
            left = [(text, 0) for text in controller["dirs"]]
            while left:
                data, depth = left.pop()
                if depth > _DEEPEST:
                    raise Error(f"--image-path: {name} has cgroups too deep in one another")
                one = protobuf.decode(data, _DIR)
                _check_path(name, one.get("name", ""))
                for file in one["files"]:
                    _check_name(name, file.get("name", ""))
                left += [(below, depth + 1) for below in one["dirs"]]


def check_sockets(directory: Directories, bounding: Sequence[str]) -> None:
    """Refuse sockets that CRIU makes with rights that config.json does not give."""
    name = "files.img"
    if "CAP_NET_RAW" in bounding or not files.exists(name, directory.image_fd):
        return
    for entry in _entries(directory, name, _FILES, "files"):
        file = protobuf.decode(entry, _FILE)
        raw = (file.get("inet") or {}).get("type") == _SOCK_RAW
        if raw or file.get("type") == _PACKET:
            kind = "raw" if raw else "packet"
            raise Error(f"--image-path: {name} has a {kind} socket, without CAP_NET_RAW")


def _check_name(image: str, text: str) -> None:
    if "/" in text or text in (".", ".."):
        raise Error(f"--image-path: {image}: {text!a} is no name in a cgroup")


def _check_path(image: str, text: str) -> None:
    if ".." in text.split("/"):
        raise Error(f"--image-path: {image}: {text!a} is no path of a cgroup")
