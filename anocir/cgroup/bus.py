"""systemd's manager over D-Bus, by sd-bus of libsystemd: calls, and jobs until their end.

Side: host, cold: only the systemd manager loads it, and only when it has something to ask.
Importing this module opens the library and raises Error when there is none.  No function with
variable arguments is used: their calling convention is another one on some machines.

Sources: /usr/include/systemd/sd-bus.h, sd_bus_call(3), sd_bus_message_append_basic(3),
sd_bus_process(3); org.freedesktop.systemd1(5); the D-Bus specification.

The manager's own socket is tried before the bus, as systemctl(1) does: there every message takes
one process less, and the signals come without being asked for.  Where the caller has named a bus
by the environment, it is that bus.
"""

from __future__ import annotations

import time
from ..linux.errnos import (
    ECONNREFUSED,
    ECONNRESET,
    EINTR,
    ENOENT,
    ENOTCONN,
    ENOTDIR,
    EPERM,
    EPIPE,
    ESHUTDOWN,
    ETIMEDOUT,
)
from sys import byteorder

import posix

from ..errors import Error, strerror
from ..linux import ffi, files, processes
from ..linux.ffi import BUF, INT, INT32, LONG, POINTER, STR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Final

NAME: Final = "org.freedesktop.systemd1"
PATH: Final = "/org/freedesktop/systemd1"
MANAGER: Final = "org.freedesktop.systemd1.Manager"
UNIT: Final = "org.freedesktop.systemd1.Unit"
PROPERTIES: Final = "org.freedesktop.DBus.Properties"
TIMEOUT: Final = 30.0  # seconds, for a connection, an answer, a job

_SYSTEM_BUS: Final = "unix:path=/run/dbus/system_bus_socket"
_LOST: Final = (ECONNRESET, ENOTCONN, EPIPE, ESHUTDOWN)
# Why there is no connection, in words of our own: Podman takes the kernel's for ENOENT for a
# program that is missing in the image.
_ABSENT: Final = {
    ENOENT: "there is no such socket",
    ENOTDIR: "there is no such socket",
    ECONNREFUSED: "nobody listens there",
}
_LEFT: Final = tuple(
    f"org.freedesktop.DBus.Error.{word}"
    for word in ("NoReply", "Disconnected", "NameHasNoOwner", "ServiceUnknown", "Timeout")
)
_INTEGERS: Final = {"y": 1, "b": 4, "n": 2, "q": 2, "i": 4, "u": 4, "x": 8, "t": 8}
_SIGNED: Final = "nix"


def _open() -> int:
    try:
        return ffi.library("libsystemd.so.0")
    except OSError:
        raise Error(
            "the systemd cgroup manager needs libsystemd.so.0, which cannot be loaded",
            "install the package libsystemd0 (Debian) or systemd-libs (Fedora), or use "
            "--cgroup-manager=cgroupfs",
        ) from None


_handle: Final = _open()


def _function(name: str, *kinds: str, result: Any = INT32) -> Any:
    return ffi.function(_handle, name, result, *kinds)


# Pointers are INT; the address of one is BUF.  All return a negative errno when they fail.
_new: Final = _function("sd_bus_new", BUF)
_set_address: Final = _function("sd_bus_set_address", INT, STR)
_set_bus_client: Final = _function("sd_bus_set_bus_client", INT, INT)
_start: Final = _function("sd_bus_start", INT)
_is_ready: Final = _function("sd_bus_is_ready", INT)
_close: Final = _function("sd_bus_close", INT, result=POINTER)
_unref: Final = _function("sd_bus_unref", INT, result=POINTER)
_process: Final = _function("sd_bus_process", INT, BUF)
_wait: Final = _function("sd_bus_wait", INT, INT)
_send: Final = _function("sd_bus_send", INT, INT, BUF)
# bus, message, microseconds, sd_bus_error *, sd_bus_message **
_call: Final = _function("sd_bus_call", INT, INT, INT, BUF, BUF)
_error_free: Final = _function("sd_bus_error_free", BUF, result=POINTER)
# bus, sd_bus_message **, destination, path, interface, member
_new_method_call: Final = _function("sd_bus_message_new_method_call", INT, BUF, STR, STR, STR, STR)
_set_expect_reply: Final = _function("sd_bus_message_set_expect_reply", INT, INT)
_message_unref: Final = _function("sd_bus_message_unref", INT, result=POINTER)
_append_text: Final = _function("sd_bus_message_append_basic", INT, INT, STR)
_append_number: Final = _function("sd_bus_message_append_basic", INT, INT, BUF)
_append_array: Final = _function("sd_bus_message_append_array", INT, INT, BUF, INT)
_open_container: Final = _function("sd_bus_message_open_container", INT, INT, STR)
_close_container: Final = _function("sd_bus_message_close_container", INT)
_enter_container: Final = _function("sd_bus_message_enter_container", INT, INT, STR)
_read_basic: Final = _function("sd_bus_message_read_basic", INT, INT, BUF)
_is_signal: Final = _function("sd_bus_message_is_signal", INT, STR, STR)
# A library's handle also finds what it depends on.
_memcpy: Final = _function("memcpy", BUF, INT, INT, result=POINTER)
_strlen: Final = _function("strlen", INT, result=LONG)


class BusError(Exception):
    """A D-Bus call was answered with an error; `name` is the last word of its D-Bus name."""

    __slots__ = ("full_name", "name")

    def __init__(self, name: str, text: str) -> None:
        """Take the name and the text of the answer."""
        super().__init__(f"{text} ({name})" if text and text != name else name)
        self.full_name = name
        self.name = name.rsplit(".", 1)[-1]


class LostError(Exception):
    """The connection has ended, as systemd's does when it executes itself anew."""


def _pointer(buffer: bytearray, start: int = 0) -> int:
    return int.from_bytes(buffer[start : start + 8], byteorder)


def _text(address: int) -> str:
    """Return the C string at an address, "" for NULL."""
    size = int(_strlen(address)) if address else 0
    if not size:
        return ""
    buffer = bytearray(size)
    _memcpy(buffer, address, size)
    return files.decode(bytes(buffer))


def _checked(result: int, what: str) -> int:
    if result < 0:
        raise Error(f"systemd: {what}: {strerror(-result)}")
    return result


def split(signature: str) -> list[str]:
    """Return the complete types of a D-Bus signature: "sa{sv}" is "s" and "a{sv}"."""
    types: list[str] = []
    start = depth = 0
    for index, char in enumerate(signature):
        depth += (char in "({") - (char in ")}")
        if depth == 0 and char != "a":
            types.append(signature[start : index + 1])
            start = index + 1
    return types


def _append(message: int, kind: str, value: Any) -> None:
    """Append a value of one complete type."""
    what = "build a message"
    code = ord(kind[0])
    if kind in ("s", "o", "g"):
        _checked(_append_text(message, code, value), what)
    elif kind == "d":
        from _struct import pack

        _checked(_append_number(message, code, pack("=d", value)), what)
    elif kind in _INTEGERS:
        _checked(_append_number(message, code, _number(kind, value)), what)
    elif kind[0] == "a" and kind[1:] in _INTEGERS and kind != "ab":
        items = b"".join(_number(kind[1:], item) for item in value)
        _checked(_append_array(message, ord(kind[1]), items, len(items)), what)
    elif kind[0] == "a":
        _checked(_open_container(message, code, kind[1:]), what)
        for item in value:
            _append(message, kind[1:], item)
        _checked(_close_container(message), what)
    else:  # a variant, of which the value is a pair, or a structure
        inner, values = (value[0], value[1:]) if kind == "v" else (kind[1:-1], value)
        _checked(_open_container(message, ord("v" if kind == "v" else "r"), inner), what)
        for part, item in zip(split(inner), values):
            _append(message, part, item)
        _checked(_close_container(message), what)


def _number(kind: str, value: int) -> bytes:
    size = _INTEGERS[kind]
    return int(value).to_bytes(size, byteorder, signed=kind in _SIGNED)


class Bus:
    """A connection to systemd's manager, the system's or this user's."""

    __slots__ = ("_bus", "_listens", "is_bus", "user")

    def __init__(self, user: bool) -> None:
        """Connect.  Raises Error with each place that was tried."""
        self.user = user
        self._bus = 0
        self._listens = False
        self._connect()

    def _connect(self) -> None:
        failures = []
        denied = False
        for address, is_bus in addresses(self.user):
            number = self._connect_to(address, is_bus)
            if number == 0:
                if self._listens:
                    self._subscribe()
                return
            denied = denied or number == EPERM
            if is_bus:
                failures.append(f"{address}: {_ABSENT.get(number) or strerror(number)}")
        hint = "without systemd use --cgroup-manager=cgroupfs"
        if denied and real_uid() != posix.geteuid():
            hint = "from inside of a user namespace this takes libsystemd 246 or newer"
        raise Error(f"connect to the {self._whose()} bus: {', '.join(failures)}", hint)

    def _reconnect(self, deadline: float) -> None:
        """Connect anew: systemd is there again in a moment.  Raises Error at the deadline."""
        while True:
            self.close()
            time.sleep(0.02)
            try:
                self._connect()
                return
            except (Error, LostError):
                if time.monotonic() > deadline:
                    raise Error(
                        f"systemd: the connection to the {self._whose()} manager ended"
                    ) from None

    def _whose(self) -> str:
        return "user" if self.user else "system"

    def _connect_to(self, address: str, is_bus: bool) -> int:
        """Connect and wait until this side is known there: 0, or the errno."""
        place = bytearray(8)
        _checked(_new(place), "connect")
        self._bus = _pointer(place)
        self.is_bus = is_bus
        deadline = time.monotonic() + TIMEOUT
        result = int(_set_address(self._bus, address))
        result = result if result < 0 else _set_bus_client(self._bus, is_bus)
        result = result if result < 0 else _start(self._bus)
        while result >= 0:
            if _is_ready(self._bus) > 0:
                return 0
            result = int(_process(self._bus, None))
            if result == 0:
                left = deadline - time.monotonic()
                result = _wait(self._bus, int(left * 1_000_000)) if left > 0 else -ETIMEDOUT
            result = 0 if result == -EINTR else result
        self.close()
        return -result

    def __enter__(self) -> Bus:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self.close()

    def close(self) -> None:
        """Close the connection; a second time does nothing."""
        if self._bus:
            _close(self._bus)
            _unref(self._bus)
            self._bus = 0

    # Calls

    def _message(self, names: tuple[str, str, str, str], signature: str, body: Any) -> int:
        """Return a method call: destination, path, interface and method, and what it is given."""
        place = bytearray(8)
        result = _new_method_call(self._bus, place, *names)
        if -result in _LOST:
            raise LostError
        _checked(result, names[3])
        message = _pointer(place)
        try:
            for kind, value in zip(split(signature), body):
                _append(message, kind, value)
        except BaseException:
            _message_unref(message)
            raise
        return message

    def call(
        self, path: str, interface: str, method: str, signature: str, *body: Any, result: str = ""
    ) -> list[str]:
        """Call a method of systemd's and return what `result` says that it answers: s and o.

        A property comes in a variant: "v".  Where systemd executes itself anew meanwhile, the
        call is made again; the caller knows what it means when the first one has had its effect.
        Raises BusError or Error.
        """
        deadline = time.monotonic() + TIMEOUT
        while True:
            try:
                return self._call(path, interface, method, signature, body, result)
            except LostError:
                self._reconnect(deadline)

    def _call(
        self, path: str, interface: str, method: str, signature: str, body: Any, result: str
    ) -> list[str]:
        began = time.monotonic()
        message = self._message((NAME, path, interface, method), signature, body)
        reply = bytearray(8)
        error = bytearray(24)  # sd_bus_error: name, message, int
        try:
            done = int(_call(self._bus, message, int(TIMEOUT * 1_000_000), error, reply))
            if done < 0:
                raise self._failure(method, -done, error, time.monotonic() - began)
        finally:
            _message_unref(message)
            _error_free(error)
        answer = _pointer(reply)
        try:
            return _read(answer, result)
        finally:
            _message_unref(answer)

    def _failure(self, method: str, number: int, error: bytearray, took: float) -> Exception:
        name = _text(_pointer(error))
        # The bus says for a peer that has left what it says for one that is slow.
        if number in _LOST or (name in _LEFT and took < TIMEOUT / 2):
            return LostError()
        if number == ETIMEDOUT:
            return Error(f"systemd: {method}: no answer within {TIMEOUT:.0f} seconds")
        if not name:
            return Error(f"systemd: {method}: {strerror(number)}")
        return BusError(name, _text(_pointer(error, 8)))

    def get(self, path: str, interface: str, name: str) -> str:
        """Return a property that is a string."""
        return self.call(path, PROPERTIES, "Get", "ss", interface, name, result="v")[0]

    def version(self) -> int:
        """Return systemd's version: 252 for "252.39-1~deb12u1" or "v252"."""
        digits = ""
        for char in self.get(PATH, MANAGER, "Version").lstrip("v"):
            if not char.isdigit():
                break
            digits += char
        return int(digits or 0)

    # Jobs

    def _subscribe(self) -> None:
        """Have the signals of jobs sent to us; nobody waits for answers, which come in order."""
        self._listens = True
        if not self.is_bus:
            return  # on its own socket systemd tells everybody
        rule = f"type='signal',interface='{MANAGER}',member='JobRemoved',path='{PATH}'"
        bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus", "AddMatch")
        for names, signature, body in (
            (bus, "s", (rule,)),
            ((NAME, PATH, MANAGER, "Subscribe"), "", ()),
        ):
            message = self._message(names, signature, body)
            try:
                _checked(_set_expect_reply(message, 0), names[3])
                _checked(_send(self._bus, message, None), names[3])
            finally:
                _message_unref(message)

    def job(self, unit: str, method: str, signature: str, *body: Any) -> None:
        """Call a method that makes a job for a unit, and wait for the job's end."""
        self.finish(unit, method, self.begin(method, signature, *body))

    def begin(self, method: str, signature: str, *body: Any) -> str:
        """Call a method that makes a job, and return the job, which goes on meanwhile."""
        if not self._listens:
            try:
                self._subscribe()
            except LostError:
                self._reconnect(time.monotonic() + TIMEOUT)
        (job,) = self.call(PATH, MANAGER, method, signature, *body, result="o")
        return job

    def finish(self, unit: str, method: str, job: str) -> None:
        """Wait for the end of a job that the method has made for a unit."""
        try:
            result = self._job_end(job, f"{method} {unit}")
        except LostError:
            self._reconnect(time.monotonic() + TIMEOUT)
            self.settle(unit)
            return
        if result != "done":
            raise Error(
                f"systemd: {method} {unit}: the job ended with {result}",
                f"look into `journalctl -u {unit}`",
            )

    def _job_end(self, job: str, what: str) -> str:
        """Return how a job ended."""
        deadline = time.monotonic() + TIMEOUT
        place = bytearray(8)
        while True:
            place[:] = bytes(8)
            result = int(_process(self._bus, place))
            message = _pointer(place)
            if message:
                try:
                    if _is_signal(message, MANAGER, "JobRemoved") > 0:
                        path, _, result_text = _read(message, "uoss")
                        if path == job:
                            return result_text
                finally:
                    _message_unref(message)
            elif result == 0:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise Error(f"systemd: {what}: not done within {TIMEOUT:.0f} seconds")
                result = int(_wait(self._bus, int(left * 1_000_000)))
            if -result in _LOST:
                raise LostError
            if result != -EINTR:
                _checked(result, what)

    def settle(self, unit: str) -> None:
        """Wait until a unit is on its way nowhere; one that is not there is not."""
        deadline = time.monotonic() + TIMEOUT
        while time.monotonic() < deadline:
            try:
                state = self.get(unit_path(unit), UNIT, "ActiveState")
            except BusError:
                return
            if state not in ("activating", "deactivating", "reloading"):
                return
            time.sleep(0.02)
        raise Error(f"systemd: unit {unit}: not settled within {TIMEOUT:.0f} seconds")


def _read(message: int, signature: str) -> list[str]:
    """Read the strings of a message; numbers are passed over."""
    result = []
    for kind in signature:
        place = bytearray(8)
        if kind == "v":
            _checked(_enter_container(message, ord("v"), "s"), "read an answer")
            kind = "s"  # noqa: PLW2901
        _checked(_read_basic(message, ord(kind), place), "read an answer")
        if kind in "so":
            result.append(_text(_pointer(place)))
    return result


def unit_path(name: str) -> str:
    """Return the object path of a unit: what is no letter or digit is _ and its code."""
    parts = []
    for index, byte in enumerate(name.encode("utf-8", "surrogateescape")):
        char = chr(byte)
        plain = char.isascii() and char.isalnum() and (index or not char.isdigit())
        parts.append(char if plain else f"_{byte:02x}")
    return f"{PATH}/unit/{''.join(parts) or '_'}"


def real_uid() -> int:
    """Return the uid that the bus sees, which is another one inside of a user namespace."""
    uid = posix.geteuid()
    for inside, outside, count in processes.id_map("self", "uid"):
        if inside <= uid < inside + count:
            return outside + uid - inside
    return uid


def _environment(name: str) -> str:
    return files.decode(posix.environ.get(name.encode(), b""))


def addresses(user: bool) -> list[tuple[str, bool]]:
    """Return where the manager may be, best first, and for each whether it is a bus."""
    if user:
        runtime = _environment("XDG_RUNTIME_DIR") or f"/run/user/{real_uid()}"
        usual = f"unix:path={runtime}/bus"
        named = _environment("DBUS_SESSION_BUS_ADDRESS")
        own = f"unix:path={runtime}/systemd/private"
    else:
        usual = _SYSTEM_BUS
        named = _environment("DBUS_SYSTEM_BUS_ADDRESS")
        own = "unix:path=/run/systemd/private"
    places = [address for address in named.split(";") if address]
    found = [(address, True) for address in places]
    if all(address.split(",")[0] == usual for address in places):
        found.insert(0, (own, False))
    if not places or (user and usual not in places):
        found.append((usual, True))
    return found
