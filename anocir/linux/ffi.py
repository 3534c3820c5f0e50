"""Typed, errno-checked callables over ctypes: the only file that touches it.

Side: host and init.  `syscall` makes a callable for a system call by number, through the C
library's syscall(2): it is there in every glibc and musl, so a call that is newer than the C
library works too.  `library` and `function` are for libseccomp.

The C module `_ctypes` is used without the `ctypes` package around it, which would add 3 ms to
each of the two boots of a command; the package is the fallback.
"""

from __future__ import annotations

from ..errors import Error
from . import nr

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final

# The fewer classes the better: each costs 0.02 ms, in each of the two processes.
try:
    import _ctypes as _c

    class _Word(_c._SimpleCData):  # type: ignore[type-arg]
        _type_ = "P"

    _functions: Any = (_c.CFuncPtr, _c.dlopen, _c.dlsym, _c.get_errno, _c.addressof)
except (ImportError, AttributeError):  # an interpreter whose _ctypes has another shape
    import ctypes as _ct
    from _ctypes import CFuncPtr, dlopen, dlsym

    _Word = _ct.c_void_p  # type: ignore[misc,assignment]
    _functions = (CFuncPtr, dlopen, dlsym, _ct.get_errno, _ct.addressof)

_CFunction, _open, _symbol, _get_errno, _addressof = _functions

# include/uapi/asm-generic/errno-base.h
_EINTR: Final = 4
_ENOSYS: Final = 38
# Modules/_ctypes/ctypes.h: the C calling convention; the interpreter's lock stays held, so that
# a child of clone(2) still owns it; errno is kept apart for each thread.
_FLAGS: Final = 0x1 | 0x4 | 0x8
_WORD: Final = 8  # bytes
_FAILED: Final = (1 << 64) - 1  # -1 as a word


class _Function(_CFunction):  # type: ignore[misc,valid-type]
    """Takes words, of numbers and of addresses, and returns one: None for 0, else unsigned."""

    _flags_ = _FLAGS
    _restype_ = _Word


# The kinds of an argument.
INT: Final = "int"  # any 64-bit value, signed or not
STR: Final = "str"  # str or bytes; NUL is refused, since C would silently stop there
BUF: Final = "buf"  # bytes to read, bytearray to write, an address, or None for NULL

# The kinds of a result.
LONG: Final = 64
INT32: Final = 32
POINTER: Final = 0  # None for NULL

_libc = _open(None, 0)
_entry = _symbol(_libc, "syscall")


def encode(text: str | bytes) -> bytes:
    """Return the bytes of a path or an argument (UTF-8, surrogateescape), refusing NUL."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    if b"\0" in data:
        raise Error(f"{data[:60]!r} holds a NUL byte")
    return data


def _byte() -> Any:
    """Return the class of one byte; few buffers are shorter than a word."""
    if not _bytes:
        kind: Any = type(_Word)
        _bytes.append(kind("_Byte", (_Word.__base__,), {"_type_": "b"}))
    return _bytes[0]


_bytes: list[Any] = []


def address(buffer: bytearray) -> int:
    """Return the address of `buffer`, 0 for an empty one; the caller keeps it and its size.

    That of what it begins with: an array would be a type of its own for each length.
    """
    if not buffer:
        return 0
    return int(_addressof((_Word if len(buffer) >= _WORD else _byte()).from_buffer(buffer)))


def _integer(value: int) -> int:
    if not -(1 << 63) <= value < 1 << 64:
        raise Error(f"{value} does not fit in 64 bits")
    return value - (1 << 64) if value >= 1 << 63 else value


def _buffer(value: bytes | bytearray | int | None) -> Any:
    return address(value) if isinstance(value, bytearray) else value


_CONVERT: Final[dict[str, Callable[..., Any]]] = {INT: _integer, STR: encode, BUF: _buffer}


def syscall(name: str, *kinds: str, at_once: bool = False) -> Callable[..., int]:
    """Return the system call `name` as a function of arguments of these kinds.

    It returns the call's result, repeats it after EINTR, and raises OSError with the errno and
    the first string argument.  A call that this architecture's table lacks fails with ENOSYS.
    With `at_once` nothing is allocated later, at its first use: it may come after a filter.
    """
    number = nr.NUMBERS.get(name, -1)
    subject = kinds.index(STR) if STR in kinds else -1
    pointer: Any = None
    converters: list[Callable[..., Any]] = []

    def make() -> None:
        nonlocal pointer
        converters[:] = [_CONVERT[kind] for kind in kinds]
        pointer = _Function(_entry)
        pointer.argtypes = (_Word,) * (len(kinds) + 1)

    def call(*args: Any) -> int:
        if pointer is None:  # few of the callables that are declared are called
            make()
        values = [convert(arg) for convert, arg in zip(converters, args)]
        if len(args) != len(kinds):
            raise TypeError(f"{name} takes {len(kinds)} arguments")
        while True:
            result: int = pointer(number, *values) or 0
            if result != _FAILED:
                return result
            code = _get_errno()
            if code != _EINTR:
                raise OSError(code, name, args[subject] if subject >= 0 else None)

    call.__name__ = name
    if at_once:
        make()
    return call


def library(*names: str) -> int:
    """dlopen(3) the first of these libraries that is there; raise OSError with all of them."""
    for name in names:
        try:
            return int(_open(name, 2))
        except OSError:
            continue
    raise OSError(_ENOSYS, "dlopen", ", ".join(names))


def function(handle: int, name: str, result: int, *kinds: str) -> Callable[..., Any]:
    """Return the function `name` of a library; `result` is LONG, INT32 or POINTER.

    The result is returned as it is: libseccomp returns -errno.  Raises AttributeError when the
    library is too old to have it.
    """
    try:
        pointer = _Function(_symbol(handle, name))
    except OSError as error:
        raise AttributeError(name) from error
    pointer.argtypes = (_Word,) * len(kinds)
    converters = [_CONVERT[kind] for kind in kinds]

    def call(*args: Any) -> Any:
        word = pointer(*[convert(arg) for convert, arg in zip(converters, args)])
        return _signed(word or 0, result) if result else word

    call.__name__ = name
    return call


def _signed(word: int, bits: int) -> int:
    """Return the lowest bits of a word as a signed number of C."""
    value = word & (1 << bits) - 1
    return value - (1 << bits) if value >> bits - 1 else value
