"""bpf(2): device programs on a cgroup2 directory.

Side: host.  Sources: bpf(2); include/uapi/linux/bpf.h, union bpf_attr; kernel 4.15 (device
programs), 5.6 (BPF_F_REPLACE).  No libbpf: four commands of one call are needed.
"""

from __future__ import annotations

import resource
from .errnos import EINVAL, ENOENT, EPERM

from _struct import pack, pack_into, unpack_from

from . import ffi, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# include/uapi/linux/bpf.h
BPF_PROG_LOAD: Final = 5
BPF_PROG_ATTACH: Final = 8
BPF_PROG_DETACH: Final = 9
BPF_PROG_GET_FD_BY_ID: Final = 13
BPF_OBJ_GET_INFO_BY_FD: Final = 15
BPF_PROG_QUERY: Final = 16
BPF_PROG_TYPE_CGROUP_DEVICE: Final = 15
BPF_CGROUP_DEVICE: Final = 6
BPF_F_ALLOW_MULTI: Final = 2
BPF_F_REPLACE: Final = 4
# By this name our own programs are known: systemd attaches one of its own to a unit's cgroup.
NAME: Final = b"anocir"
_NAME_OFFSET: Final = 64  # struct bpf_prog_info, name
_MAX_PROGRAMS: Final = 64

_bpf = ffi.syscall("bpf", ffi.INT, ffi.BUF, ffi.INT)


def _call(command: int, attr: bytes) -> bytearray:
    buffer = bytearray(attr)
    _bpf(command, buffer, len(buffer))
    return buffer


def prog_load(instructions: bytes) -> int:
    """BPF_PROG_LOAD of a device program: a descriptor the caller owns."""
    code, licence = bytearray(instructions), bytearray(b"MIT\0")
    attr = pack(
        "<IIQQIIQII16s",
        BPF_PROG_TYPE_CGROUP_DEVICE,
        len(code) // 8,
        ffi.address(code),
        ffi.address(licence),
        0,
        0,
        0,
        0,
        0,
        NAME,
    )
    try:
        return _bpf(BPF_PROG_LOAD, bytearray(attr), len(attr))
    except OSError as error:
        if error.errno != EPERM:
            raise
    # Before Linux 5.11 a program counts as locked memory of the process that loads it.
    infinity = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    old = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, infinity)
    except (OSError, ValueError):
        raise PermissionError(EPERM, "bpf") from None
    try:
        return _bpf(BPF_PROG_LOAD, bytearray(attr), len(attr))
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, old)


def prog_attach(directory_fd: int, program_fd: int, replaced_fd: int = -1) -> None:
    """BPF_PROG_ATTACH to a cgroup2 directory, beside others or instead of `replaced_fd`."""
    if replaced_fd < 0:
        attr = pack("<IIII", directory_fd, program_fd, BPF_CGROUP_DEVICE, BPF_F_ALLOW_MULTI)
    else:
        flags = BPF_F_ALLOW_MULTI | BPF_F_REPLACE
        attr = pack("<IIIII", directory_fd, program_fd, BPF_CGROUP_DEVICE, flags, replaced_fd)
    _call(BPF_PROG_ATTACH, attr)


def prog_detach(directory_fd: int, program_fd: int) -> None:
    """BPF_PROG_DETACH."""
    _call(BPF_PROG_DETACH, pack("<III", directory_fd, program_fd, BPF_CGROUP_DEVICE))


def prog_query(directory_fd: int) -> list[int]:
    """BPF_PROG_QUERY: the ids of the device programs attached to this very directory."""
    ids = bytearray(4 * _MAX_PROGRAMS)
    attr = pack("<IIIIQI", directory_fd, BPF_CGROUP_DEVICE, 0, 0, ffi.address(ids), _MAX_PROGRAMS)
    # The kernel writes back up to the whole of its query attributes.
    (count,) = unpack_from("<I", _call(BPF_PROG_QUERY, attr + bytes(36)), 24)
    return list(unpack_from(f"<{count}I", ids))


def prog_open(identity: int) -> int:
    """BPF_PROG_GET_FD_BY_ID: a descriptor of a loaded program, which the caller owns."""
    return _bpf(BPF_PROG_GET_FD_BY_ID, bytearray(pack("<III", identity, 0, 0)), 12)


def prog_name(program_fd: int) -> bytes:
    """BPF_OBJ_GET_INFO_BY_FD: the name that a program was loaded with."""
    info = bytearray(_NAME_OFFSET + 16)
    attr = bytearray(16)
    pack_into("<IIQ", attr, 0, program_fd, len(info), ffi.address(info))
    _bpf(BPF_OBJ_GET_INFO_BY_FD, attr, len(attr))
    return bytes(info[_NAME_OFFSET:]).rstrip(b"\0")


def names(directory: str) -> list[bytes]:
    """Return the names of the device programs on a cgroup2 directory, one may be empty."""
    directory_fd = files.open(directory, files.O_RDONLY | files.O_DIRECTORY)
    try:
        found = _programs(directory_fd)
    finally:
        files.close(directory_fd)
    for fd, _ in found:
        files.close(fd)
    return [name for _, name in found]


def _own(directory_fd: int) -> list[int]:
    """Return descriptors of our programs on a directory; the caller owns them."""
    fds = []
    for fd, name in _programs(directory_fd):
        if name == NAME:
            fds.append(fd)
        else:
            files.close(fd)
    return fds


def _programs(directory_fd: int) -> list[tuple[int, bytes]]:
    """Return descriptor and name of each device program on a directory; the caller owns them."""
    found = []
    for identity in prog_query(directory_fd):
        try:
            fd = prog_open(identity)
        except OSError as error:
            if error.errno == ENOENT:
                continue
            raise
        found.append((fd, prog_name(fd)))
    return found


def replace_device_program(directory: str, instructions: bytes, fresh: bool) -> None:
    """Put a device program on a cgroup2 directory, instead of the one we put there before.

    A second one would not take the place of the first: both would have to allow, and 64 are the
    limit.  `fresh` says that the directory was just made.
    """
    directory_fd = files.open(directory, files.O_RDONLY | files.O_DIRECTORY)
    fds = [] if fresh else _own(directory_fd)
    try:
        program_fd = prog_load(instructions)
        try:
            if len(fds) == 1:
                try:
                    prog_attach(directory_fd, program_fd, fds[0])
                    return
                except OSError as error:
                    if error.errno != EINVAL:  # EINVAL: no BPF_F_REPLACE before 5.6
                        raise
            prog_attach(directory_fd, program_fd)
            for fd in fds:
                prog_detach(directory_fd, fd)
        finally:
            files.close(program_fd)
    finally:
        for fd in (*fds, directory_fd):
            files.close(fd)
