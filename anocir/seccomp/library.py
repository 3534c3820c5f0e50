"""libseccomp: its functions and its numbers.

Side: host, before any namespace is entered, so that the library is the host's.  Importing this
module opens the library and raises Error when there is none: import it where it is needed.

Sources: /usr/include/seccomp.h, seccomp_init(3), seccomp_rule_add(3), seccomp_export_bpf(3).
"""

from __future__ import annotations

from .. import errors
from ..linux import ffi, files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# enum scmp_filter_attr
CTL_OPTIMIZE: Final = 8
# SCMP_ACT_*; the actions that carry 16 bits of data are in WITH_DATA
ACTIONS: Final = {
    "SCMP_ACT_ALLOW": 0x7FFF0000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_TRAP": 0x00030000,
}
WITH_DATA: Final = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
# enum scmp_compare
OPERATORS: Final = {
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_MASKED_EQ": 7,
    "SCMP_CMP_NE": 1,
}
# What config-linux.md lists as of libseccomp 2.6; the library knows them in lower case.
ARCHITECTURES: Final = (
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_RISCV64",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
)
# SCMP_ARCH_X32 is a mark of the library's own: the kernel reports AUDIT_ARCH_X86_64
ARCH_X32: Final = 0x4000003E

_PREFIX: Final = len("SCMP_ARCH_")


def _open() -> int:
    try:
        return ffi.library("libseccomp.so.2", "libseccomp.so")
    except OSError:
        raise errors.Error(
            "linux.seccomp: libseccomp.so.2 cannot be loaded",
            hint="install the package libseccomp2 (Debian) or libseccomp (Fedora, Alpine)",
        ) from None


_handle: Final = _open()
_INT: Final = ffi.INT

# scmp_filter_ctx seccomp_init(uint32_t def_action): NULL for an action it does not know
init: Final = ffi.function(_handle, "seccomp_init", ffi.POINTER, _INT)
release: Final = ffi.function(_handle, "seccomp_release", ffi.INT32, _INT)
arch_add: Final = ffi.function(_handle, "seccomp_arch_add", ffi.INT32, _INT, _INT)
attr_set: Final = ffi.function(_handle, "seccomp_attr_set", ffi.INT32, _INT, _INT, _INT)
# int (ctx, action, syscall, count of conditions, const struct scmp_arg_cmp *)
rule_add_array: Final = ffi.function(
    _handle, "seccomp_rule_add_array", ffi.INT32, _INT, _INT, _INT, _INT, ffi.BUF
)
export_bpf: Final = ffi.function(_handle, "seccomp_export_bpf", ffi.INT32, _INT, _INT)
_arch_native: Final = ffi.function(_handle, "seccomp_arch_native", ffi.INT32)
_arch_resolve: Final = ffi.function(_handle, "seccomp_arch_resolve_name", ffi.INT32, ffi.STR)
_resolve: Final = ffi.function(_handle, "seccomp_syscall_resolve_name", ffi.INT32, ffi.STR)
_resolve_arch: Final = ffi.function(
    _handle, "seccomp_syscall_resolve_name_arch", ffi.INT32, _INT, ffi.STR
)
_resolve_number: Final = ffi.function(
    _handle, "seccomp_syscall_resolve_num_arch", ffi.POINTER, _INT, _INT
)
# A library's handle also finds what it depends on; `version` needs to read a struct.
_memcpy: Final = ffi.function(_handle, "memcpy", ffi.POINTER, ffi.BUF, _INT, _INT)
_strlen: Final = ffi.function(_handle, "strlen", ffi.LONG, _INT)
_free: Final = ffi.function(_handle, "free", ffi.INT32, _INT)
_version: Final = ffi.function(_handle, "seccomp_version", ffi.POINTER)


def version() -> str:
    """Return the version as the library tells it, like 2.5.4."""
    words = bytearray(12)
    _memcpy(words, _version(), 12)
    order = "little" if words[0] else "big"
    return ".".join(str(int.from_bytes(words[at : at + 4], order)) for at in (0, 4, 8))  # type: ignore[arg-type]


def path() -> str:
    """Return the file that was loaded, empty when /proc does not tell."""
    try:
        lines = files.read_file("/proc/self/maps").split(b"\n")
    except OSError:
        return ""
    for line in lines:
        if b"/libseccomp.so" in line:
            return files.decode(line[line.index(b"/") :])
    return ""


def native_arch() -> int:
    """Return this machine's AUDIT_ARCH_* value."""
    return int(_arch_native()) & 0xFFFFFFFF


def architecture(word: str) -> int:
    """Return the library's value for SCMP_ARCH_*, 0 when it has none."""
    return int(_arch_resolve(word[_PREFIX:].lower())) & 0xFFFFFFFF


def syscall_number(name: str, arch: int = 0) -> int | None:
    """Return the number of a call, for `arch` or this machine's own.

    Negative for one that only other architectures have, None for a name the library does not
    know (__NR_SCMP_ERROR).
    """
    if "\0" in name:
        return None
    number = int(_resolve_arch(arch, name) if arch else _resolve(name))
    return None if number == -1 else number


def syscall_name(number: int, arch: int) -> str:
    """Return the name of a call of an architecture, empty when the library does not know it."""
    found = _resolve_number(arch, number)
    if not found:
        return ""
    text = bytearray(_strlen(found))
    if text:
        _memcpy(text, found, len(text))
    _free(found)
    return text.decode("ascii", "replace")
