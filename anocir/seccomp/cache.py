"""Compiled seccomp programs, kept by content: <state root>/seccomp-cache/<key>.

Side: host.  A program decides what a container may do, so an entry is believed only when the
directory and the file belong to this user, nobody else can write them, and the checksum, which
covers the key as well, is right.  Anything else is a miss and is overwritten.

    magic 8 | size of description u32 | size of program u32 | checksum 32 | description | program

The key covers the profile, the machine and FORMAT.  The library that compiled an entry is named
in its description and compared by stat(2), so that a hit needs no dlopen(3) to learn its version.
"""

from __future__ import annotations

import posix
from _struct import Struct

from ..base import jsonio, log
from ..errors import Error, reason
from ..linux import entries, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final
    from ..wire.shapes import Filter

# Changes whenever the same profile gives another program or another description.
FORMAT: Final = 5
MAGIC: Final = b"anocirSC"
_HEADER: Final = Struct("<8sII32s")
_MAX_SIZE: Final = 1 << 20
# A host has a handful of profiles; more are leftovers of generated ones.
MAX_ENTRIES: Final = 64


def _hash(data: bytes) -> bytes:
    """Return 32 bytes of a cryptographic hash, without hashlib (5 ms to import).

    Which of the C modules is there depends on the version and on how it was built.
    """
    try:
        from _blake2 import blake2b

        return blake2b(data, digest_size=32).digest()
    except (ImportError, ValueError):  # ValueError: refused in FIPS mode
        pass
    try:
        from _sha2 import sha256  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        try:
            from _sha256 import sha256  # type: ignore[import-not-found,no-redef,unused-ignore]
        except ImportError:
            from hashlib import sha256
    digest: bytes = sha256(data).digest()
    return digest


def key(profile: Mapping[str, Any]) -> bytes:
    """Return the name under which the program for this profile is kept.

    The order of the keys counts: what differs only in order is compiled twice, never mixed up.
    """
    text = f"{FORMAT} {posix.uname().machine}\n{jsonio.dumps(profile)}"
    return _hash(text.encode("utf-8", "surrogatepass"))


def load(directory: str, name: bytes) -> Filter | None:
    """Return the entry, or None when there is none that can be believed."""
    try:
        data = _read(directory, name)
        if data is None:
            return None
        entry = _unpack(name, data)
        if identity(entry["library"][0]) == entry["library"]:
            return entry
        log.debug("seccomp cache: the entry is of another libseccomp")
    except FileNotFoundError:
        pass
    except (OSError, Error, ValueError, TypeError, LookupError) as error:
        log.debug(f"seccomp cache: {reason(error)}")
    return None


def _read(directory: str, name: bytes) -> bytes | None:
    dir_fd = _open_directory(directory)
    try:
        # O_NONBLOCK: a FIFO in this place must not hold up the runtime.
        flags = files.O_RDONLY | files.O_NOFOLLOW | files.O_NONBLOCK | files.O_NOCTTY
        fd = files.open(name.hex(), flags, dir_fd=dir_fd)
    finally:
        files.close(dir_fd)
    try:
        status = files.fstat(fd)
        if files.kind(status) != files.S_IFREG or not _ours(status):
            raise Error(f"{directory}/{name.hex()}: not a private file of this user")
        return files.read_fd(fd, _MAX_SIZE)
    finally:
        files.close(fd)


def _open_directory(directory: str) -> int:
    flags = files.O_RDONLY | files.O_DIRECTORY | files.O_NOFOLLOW
    fd = files.open(directory, flags)
    if not _ours(files.fstat(fd)):
        files.close(fd)
        raise Error(f"{directory}: not a private directory of this user")
    return fd


def _ours(status: posix.stat_result) -> bool:
    return status.st_uid == posix.geteuid() and not status.st_mode & 0o077


def _unpack(name: bytes, data: bytes) -> Filter:
    if len(data) < _HEADER.size:
        raise ValueError("entry is cut off")
    magic, described, length, checksum = _HEADER.unpack_from(data)
    body = data[_HEADER.size :]
    if magic != MAGIC or len(body) != described + length or _hash(name + body) != checksum:
        raise ValueError("entry is damaged")
    entry: Filter = jsonio.loads(body[:described], "seccomp cache")
    entry["bpf"] = body[described:]
    return entry


def store(directory: str, name: bytes, entry: Filter) -> None:
    """Keep an entry.  A cache that cannot be written costs time and nothing else."""
    library = entry["library"]
    if not library:
        return
    description = {key: value for key, value in entry.items() if key != "bpf"}
    head = jsonio.dumps(description).encode("utf-8")
    body = head + entry["bpf"]
    packed = _HEADER.pack(MAGIC, len(head), len(entry["bpf"]), _hash(name + body)) + body
    try:
        _write(directory, name, packed)
    except (OSError, Error) as error:
        log.debug(f"seccomp cache: {reason(error)}")


def _write(directory: str, name: bytes, packed: bytes) -> None:
    try:
        entries.mkdir(directory, 0o700)
    except FileExistsError:
        pass
    dir_fd = _open_directory(directory)
    try:
        _evict(dir_fd)
        temporary = f"{name.hex()}.{posix.getpid()}"
        fd = files.open(
            temporary,
            files.O_WRONLY | files.O_CREAT | files.O_EXCL | files.O_NOFOLLOW,
            0o600,
            dir_fd,
        )
        try:
            files.write_all(fd, packed)
            files.close(fd)
            entries.rename(temporary, name.hex(), dir_fd, dir_fd)
        except OSError:
            files.unlink(temporary, dir_fd)
            raise
    finally:
        files.close(dir_fd)


def _evict(dir_fd: int) -> None:
    """Make room: drop the oldest half once there are MAX_ENTRIES, with what a crash left."""
    names = files.listdir(dir_fd)
    if len(names) < MAX_ENTRIES:
        return
    aged = []
    for name in names:
        try:
            aged.append((files.lstat(name, dir_fd).st_mtime_ns, name))
        except FileNotFoundError:  # another runtime was faster
            continue
    for _, name in sorted(aged)[: MAX_ENTRIES // 2]:
        try:
            files.unlink(name, dir_fd)
        except OSError as error:
            log.debug(f"seccomp cache: {reason(error)}")


def identity(path: str) -> list[Any]:
    """Return what tells this file from another version of it; empty when it is gone."""
    try:
        status = files.stat(path)
    except OSError:
        return []
    return [path, status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns]
