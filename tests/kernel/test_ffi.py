"""linux.ffi: arguments reach the kernel as they are, errors come back as OSError."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess
import sys

import pytest

from anocir.errors import Error
from anocir.linux import ffi, nr
from tests import drive
from tests.kernel import child

pytestmark = pytest.mark.kernel


def test_encode_refuses_a_nul_byte() -> None:
    assert ffi.encode("é\udcff") == b"\xc3\xa9\xff" and ffi.encode(b"\xff") == b"\xff"
    for text in ("a\0b", b"a\0b", "\0"):
        with pytest.raises(Error, match="NUL"):
            ffi.encode(text)


@pytest.mark.parametrize("text", [b"a", b"1234567", b"12345678", b"more than a word"])
def test_address_is_where_the_bytes_are(text: bytes) -> None:
    buffer = bytearray(text)
    assert ctypes.string_at(ffi.address(buffer), len(text)) == text
    ctypes.memmove(ffi.address(buffer), b"X", 1)
    assert buffer == b"X" + text[1:]


def test_syscall_returns_the_result_of_the_kernel(tmp_path) -> None:
    getcwd = ffi.syscall("getcwd", ffi.BUF, ffi.INT)
    buffer = bytearray(4096)
    size = getcwd(buffer, len(buffer))
    assert bytes(buffer[: size - 1]) == os.getcwdb()
    assert getcwd.__name__ == "getcwd"


def test_syscall_raises_with_errno_name_and_the_first_string() -> None:
    umount2 = ffi.syscall("umount2", ffi.STR, ffi.INT)
    with pytest.raises(OSError) as caught:
        umount2("/missing\udcff", 0)
    error = caught.value
    assert (error.errno, error.strerror, error.filename) == (
        errno.ENOENT, "umount2", "/missing\udcff",
    )  # fmt: skip
    getcwd = ffi.syscall("getcwd", ffi.BUF, ffi.INT)
    with pytest.raises(OSError) as caught:
        getcwd(bytearray(1), 1)
    assert (caught.value.errno, caught.value.filename) == (errno.ERANGE, None)
    with pytest.raises(OSError) as caught:
        getcwd(None, 4096)
    assert caught.value.errno == errno.EFAULT


def test_syscall_takes_every_64_bit_number_and_no_other() -> None:
    prctl = ffi.syscall("prctl", ffi.INT, ffi.INT, ffi.INT, ffi.INT, ffi.INT)
    for value in (-1, -(1 << 63), (1 << 63) - 1, 1 << 63, (1 << 64) - 1):
        with pytest.raises(OSError) as caught:
            prctl(value, 0, 0, 0, 0)
        assert caught.value.errno == errno.EINVAL
    for value in (1 << 64, -(1 << 63) - 1):
        with pytest.raises(Error, match="64 bits"):
            prctl(value, 0, 0, 0, 0)


def test_syscall_refuses_a_wrong_number_of_arguments_and_a_nul_byte() -> None:
    umount2 = ffi.syscall("umount2", ffi.STR, ffi.INT)
    for arguments in ((), ("/missing",), ("/missing", 0, 0)):
        with pytest.raises(TypeError):
            umount2(*arguments)
    with pytest.raises(Error):
        umount2("/missing\0/etc", 0)


def test_syscall_that_this_machine_lacks_is_enosys() -> None:
    assert "no_such_call" not in nr.NUMBERS
    with pytest.raises(OSError) as caught:
        ffi.syscall("no_such_call", ffi.INT)(0)
    assert (caught.value.errno, caught.value.strerror) == (errno.ENOSYS, "no_such_call")


def test_syscall_goes_on_after_a_signal() -> None:
    def wait() -> bytes:
        signal.signal(signal.SIGALRM, lambda *_: None)
        signal.siginterrupt(signal.SIGALRM, True)
        read_end, write_end = os.pipe()
        if os.fork() == 0:
            signal.setitimer(signal.ITIMER_REAL, 0)
            parent = os.getppid()
            for _ in range(5):
                os.kill(parent, signal.SIGALRM)
                signal.sigtimedwait([signal.SIGUSR2], 0.01)
            os.write(write_end, b"x")
            os._exit(0)
        # flock(2) and read(2) are not in the table; keyctl and clone do not block: read by number.
        nr.NUMBERS["read"] = {"x86_64": 0, "aarch64": 63}[os.uname().machine]
        buffer = bytearray(1)
        assert ffi.syscall("read", ffi.INT, ffi.BUF, ffi.INT)(read_end, buffer, 1) == 1
        return bytes(buffer)

    assert child.run(wait) == b"x"


def test_syscall_reads_bytes_and_writes_bytearrays() -> None:
    def exchange() -> bytes:
        nr.NUMBERS.update({"read": 0, "write": 1} if os.uname().machine == "x86_64"
                          else {"read": 63, "write": 64})  # fmt: skip
        read_end, write_end = os.pipe()
        write = ffi.syscall("write", ffi.INT, ffi.BUF, ffi.INT)
        assert write(write_end, b"a\0b", 3) == 3
        assert write(write_end, bytearray(b"cd"), 2) == 2
        buffer = bytearray(5)
        ffi.syscall("read", ffi.INT, ffi.BUF, ffi.INT)(read_end, buffer, 5)
        buffer += b"the view is gone, so it may grow"
        return bytes(buffer[:5])

    assert child.run(exchange) == b"a\0bcd"


def test_library_takes_the_first_that_is_there() -> None:
    assert ffi.library("libmissing.so.0", "libc.so.6") == ffi.library("libc.so.6")
    with pytest.raises(OSError) as caught:
        ffi.library("libmissing.so.0", "libmissing.so.1")
    assert "libmissing.so.0, libmissing.so.1" in str(caught.value)


def test_function_gives_the_result_of_its_type() -> None:
    handle = ffi.library("libc.so.6")
    assert ffi.function(handle, "labs", ffi.LONG, ffi.INT)(-(1 << 40)) == 1 << 40
    assert ffi.function(handle, "abs", ffi.INT32, ffi.INT)(-7) == 7
    buffer = bytearray(b"abc\0")
    strchr = ffi.function(handle, "strchr", ffi.POINTER, ffi.BUF, ffi.INT)
    assert strchr(buffer, ord("c")) == ffi.address(buffer) + 2
    assert strchr(buffer, ord("z")) is None
    strlen = ffi.function(handle, "strlen", ffi.LONG, ffi.STR)
    assert strlen("é") == 2
    with pytest.raises(Error):
        strlen("a\0b")
    with pytest.raises(AttributeError, match="no_such_function"):
        ffi.function(handle, "no_such_function", ffi.LONG)


def test_the_fallback_on_the_ctypes_package_behaves_the_same() -> None:
    """Without the C module's own names the public package is used."""
    code = """
import sys, types
import _ctypes, ctypes
stand_in = types.ModuleType("_ctypes")
for name in ("CFuncPtr", "dlopen", "dlsym"):
    setattr(stand_in, name, getattr(_ctypes, name))
sys.modules["_ctypes"] = stand_in
from anocir.linux import ffi, oneself, tasks
assert ffi._Word is ctypes.c_void_p
try:
    ffi.syscall("umount2", ffi.STR, ffi.INT)("/missing", 0)
except OSError as error:
    print(error.errno, error.filename)
handle = ffi.library("libc.so.6")
print(ffi.function(handle, "labs", ffi.LONG, ffi.INT)(-5))
oneself.set_name("renamed")
print(open("/proc/self/comm").read())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=drive.REPOSITORY
    )
    assert done.stdout.split() == ["2", "/missing", "5", "renamed"], done.stderr


def test_a_child_of_clone_can_use_every_callable() -> None:
    """The interpreter's lock is held over a call, so a child by clone(2) still owns it."""
    from anocir.linux import oneself, tasks

    def clone() -> int:
        pid = tasks.clone()
        if pid == 0:
            oneself.set_name("inner")
            os._exit(0 if open("/proc/self/comm").read() == "inner\n" else 1)
        return os.waitpid(pid, 0)[1]

    assert child.run(clone) == 0
