"""Names and properties of the systemd unit that a container is.

Side: pure, cold: only the systemd manager loads it.  Sources: systemd.unit(5), systemd.scope(5),
systemd.slice(5), systemd.resource-control(5), org.freedesktop.systemd1(5); GVariant's text format
for the annotations org.systemd.property.NAME.

A property is (name, signature, value).  Every limit that systemd knows is a property as well as a
write to the files: on daemon-reload systemd writes its own idea of the unit again.
"""

from __future__ import annotations

from ..errors import at, keyed
from .convert import blkio_to_io_weight, shares_to_weight, swap_max
from .devices import MKNOD, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final, NoReturn

    from .devices import Rule
    from ..model.schema import CPU, Resources

    Property = tuple[str, str, Any]

INFINITY: Final = (1 << 64) - 1
_ANNOTATION: Final = "org.systemd.property."
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
# A type before a value, in words.
_WORDS: Final = {
    "boolean": "b",
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
    "double": "d",
    "string": "s",
    "objectpath": "o",
    "signature": "g",
}
_RANGES: Final = {
    "y": (0, 1 << 8),
    "n": (-(1 << 15), 1 << 15),
    "q": (0, 1 << 16),
    "i": (-(1 << 31), 1 << 31),
    "u": (0, 1 << 32),
    "x": (-(1 << 63), 1 << 63),
    "t": (0, 1 << 64),
}
_ESCAPES: Final = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}
_LONGEST: Final = 255  # bytes in the name of a unit
_SUFFIXES: Final = "KMGTPE"


def parse(path: str, container_id: str, user: bool) -> tuple[str, str]:
    """Return the slice and the unit of a cgroupsPath `slice:prefix:name`."""
    source = "linux.cgroupsPath"
    if not path:
        parts = ["", "anocir", container_id]
    else:
        parts = path.split(":")
    if len(parts) != 3 or not parts[2]:
        text = f"must be slice:prefix:name for the systemd cgroup manager, got {path!a}"
        raise at(source, text)
    where, prefix, name = parts
    where = where or ("user.slice" if user else "system.slice")
    if where == "-":
        where = "-.slice"
    above = expand(where)
    if not name.endswith(".slice"):
        name = escape(f"{prefix}-{name}") + ".scope"
    elif expand(name) != f"{above}/{name}":
        raise at(source, f"{name} is not a slice of {where}: its name says what is above it")
    if len(name) > _LONGEST:
        raise at(source, f"the name of the unit has {len(name)} bytes, systemd takes {_LONGEST}")
    return where, name


def escape(text: str) -> str:
    """Return a unit name without what systemd does not take, as systemd-escape(1) writes it."""
    parts = []
    for char in text:
        if char in _PLAIN:
            parts.append(char)
        else:
            parts += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    return "".join(parts)


def expand(name: str, source: str = "linux.cgroupsPath") -> str:
    """Return the directories of a slice: a-b.slice is /a.slice/a-b.slice, -.slice is ""."""
    stem = name[: -len(".slice")]
    if not name.endswith(".slice") or "/" in name or not stem or not _PLAIN.issuperset(name):
        raise at(source, f"{name!a} is no name of a slice")
    if stem == "-":
        return ""
    words = stem.split("-")
    if "" in words:
        raise at(source, f"{name!a} is no name of a slice: it has an empty part between dashes")
    return "".join(f"/{'-'.join(words[: n + 1])}.slice" for n in range(len(words)))


def bits(text: str, source: str) -> bytes:
    """Return a list of CPUs or nodes like 0-2,4 as systemd's mask of bytes."""
    mask = 0
    for part in text.replace("\n", "").split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()) or len(first + last) > 10:
            raise at(source, f"must be a list like 0-2,4, got {text!a}")
        low, high = int(first), int(last or first)
        if high < low or high > 65535:
            raise at(source, f"must be a list like 0-2,4, got {text!a}")
        mask |= (1 << (high + 1)) - (1 << low)
    return mask.to_bytes((mask.bit_length() + 7) // 8 or 1, "little")


def quota_per_second(quota: int, period: int) -> int:
    """Return CPUQuotaPerSecUSec, rounded up to the 10 ms that systemd rounds down to."""
    if quota <= 0:
        return INFINITY
    value = quota * 1_000_000 // (period or 100_000)
    return -(-value // 10_000) * 10_000


def resources(values: Resources, version: int, systemd: int) -> list[Property]:
    """Return the properties for the limits of config.json, for this version of systemd."""
    result = _cpu(values.get("cpu") or {}, version, systemd)
    memory = values.get("memory") or {}
    limit, swap = memory.get("limit") or 0, memory.get("swap") or 0
    if limit:
        name = "MemoryMax" if version == 2 else "MemoryLimit"
        result.append((name, "t", _limit(limit)))
    if version == 2:
        if memory.get("reservation"):
            result.append(("MemoryLow", "t", _limit(memory["reservation"])))
        text = swap_max(limit, swap)
        if text:
            result.append(("MemorySwapMax", "t", INFINITY if text == "max" else int(text)))
    weight = (values.get("blockIO") or {}).get("weight") or 0
    if weight and version == 2:
        result.append(("IOWeight", "t", blkio_to_io_weight(weight)))
    elif weight:
        result.append(("BlockIOWeight", "t", weight))
    pids = (values.get("pids") or {}).get("limit")
    if pids is not None:
        result.append(("TasksMax", "t", _limit(pids or 1)))
    if version == 2:
        result += _unified(values.get("unified") or {}, systemd)
    return result


def _limit(value: int) -> int:
    return INFINITY if value < 0 else value


def _cpu(cpu: CPU, version: int, systemd: int) -> list[Property]:
    result: list[Property] = []
    shares = cpu.get("shares") or 0
    if cpu.get("idle") == 1 and version == 2 and systemd >= 252:
        result.append(("CPUWeight", "t", 0))  # systemd's word for cpu.idle
    elif shares and version == 2:
        result.append(("CPUWeight", "t", shares_to_weight(shares)))
    elif shares:
        result.append(("CPUShares", "t", shares))
    quota, period = cpu.get("quota") or 0, cpu.get("period") or 0
    if period and systemd >= 242:
        result.append(("CPUQuotaPeriodUSec", "t", period))
    if quota or period:
        result.append(("CPUQuotaPerSecUSec", "t", quota_per_second(quota, period)))
    if version == 2 and systemd >= 244:
        for key, name in (("cpus", "AllowedCPUs"), ("mems", "AllowedMemoryNodes")):
            value = str(cpu.get(key) or "")
            if value:
                result.append((name, "ay", bits(value, f"linux.resources.cpu.{key}")))
    return result


def _unified(unified: dict[str, str], systemd: int) -> list[Property]:
    """Return what systemd knows of `unified`; the rest is only written to the files.

    What it knows it would overwrite with its own idea at the next daemon-reload.
    """
    result: list[Property] = []
    for key, text in unified.items():
        source = keyed("linux.resources.unified", key)
        value = text.strip()
        if key in _BYTES:
            name, since = _BYTES[key]
            if systemd >= since:
                result.append((name, "t", kernel_bytes(value, source)))
        elif key == "pids.max":
            # systemd knows no zero; one task, which is there already, is the same.
            result.append(("TasksMax", "t", kernel_number(value, source) or 1))
        elif key == "cpu.weight":
            result.append(("CPUWeight", "t", kernel_number(value, source)))
        elif key == "cpu.idle" and systemd >= 252 and kernel_number(value, source) == 1:
            result.append(("CPUWeight", "t", 0))
        elif key == "io.weight":
            words = value.removeprefix("default").split()
            if len(words) == 1:  # not that of a single device, which systemd leaves alone
                result.append(("IOWeight", "t", kernel_number(words[0], source)))
        elif key == "cpu.max":
            quota, _, period = value.partition(" ")
            limit = -1 if quota == "max" else kernel_number(quota, source)
            span = kernel_number(period, source) if period.strip() else 0
            if span and systemd >= 242:
                result.append(("CPUQuotaPeriodUSec", "t", span))
            result.append(("CPUQuotaPerSecUSec", "t", quota_per_second(limit, span)))
        elif key in ("cpuset.cpus", "cpuset.mems") and systemd >= 244 and value:
            name = "AllowedCPUs" if key == "cpuset.cpus" else "AllowedMemoryNodes"
            result.append((name, "ay", bits(value, source)))
    return result


# Files with a number of bytes, and since which systemd there is a property.
_BYTES: Final = {
    "memory.high": ("MemoryHigh", 231),
    "memory.low": ("MemoryLow", 231),
    "memory.max": ("MemoryMax", 231),
    "memory.min": ("MemoryMin", 240),
    "memory.swap.max": ("MemorySwapMax", 232),
    "memory.zswap.max": ("MemoryZSwapMax", 253),
}


def kernel_number(text: str, source: str) -> int:
    """Return what the kernel reads in a control file: kstrtoull(), base 0, or "max"."""
    word = text.strip()
    if word == "max":
        return INFINITY
    digits = word.removeprefix("+")
    try:
        if not digits.isascii() or not digits[:1].isdigit() or "_" in digits:
            raise ValueError
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        value = int(digits, 8 if octal else 0)
    except ValueError:
        raise at(source, f'must be a number or "max", got {text!a}') from None
    if value > INFINITY:
        raise at(source, f"{text!a} does not fit in 64 bits")
    return value


def kernel_bytes(text: str, source: str) -> int:
    """Return what the kernel reads as bytes: memparse(), with K, M, G, T, P or E behind it."""
    word = text.strip()
    # In a hexadecimal number E is a digit.
    power = _SUFFIXES.find(word[-1:].upper()) + 1 if word else 0
    if power and not (word[-1:] in "eE" and word[:2] in ("0x", "0X")):
        return min(kernel_number(word[:-1], source) << (10 * power), INFINITY)
    return kernel_number(word, source)


def devices(rules: list[Rule], drivers: dict[tuple[str, int], str]) -> list[Property]:
    """Return DevicePolicy and DeviceAllow for the effective rules.

    `drivers` are the names of /proc/devices by (type, major).  systemd knows no order and no
    deny, so its list is a little wider than ours, which decides as well.  DeviceAllow begins
    with an empty list, which resets what is there.
    """
    if rules[0][0]:
        return [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]
    allowed: dict[tuple[str, int | None, int | None], int] = {}
    for allow, kind, major, minor, access in rules[1:]:
        for each in "bc" if kind == "a" else kind:
            key = (each, major, minor)
            before = allowed.get(key, 0)
            allowed[key] = before | access if allow else before & ~access
    entries = []
    for (kind, major, minor), access in allowed.items():
        letters = "".join(
            letter for letter, bit in (("r", READ), ("w", WRITE), ("m", MKNOD)) if access & bit
        )
        group = "char" if kind == "c" else "block"
        if not letters or (major is None and minor is not None):
            continue
        if major is None:
            entries.append((f"{group}-*", letters))
        elif minor is not None:
            entries.append((f"/dev/{group}/{major}:{minor}", letters))
        elif (kind, major) in drivers:
            entries.append((f"{group}-{drivers[kind, major]}", letters))
    return [
        ("DevicePolicy", "s", "strict"),
        ("DeviceAllow", "a(ss)", []),
        ("DeviceAllow", "a(ss)", entries),
    ]


def annotated(values: dict[str, str]) -> list[Property]:
    """Return the properties that annotations org.systemd.property.NAME set.

    A name that ends in Sec takes seconds, and becomes systemd's USec (as in runc).
    """
    result: list[Property] = []
    for key, text in values.items():
        if not key.startswith(_ANNOTATION):
            continue
        name, source = key[len(_ANNOTATION) :], keyed("annotations", key)
        if not name.isascii() or not name.isalpha() or len(name) < 3:
            raise at(source, "must end in the name of a unit property")
        signature, value = gvariant(text, source)
        if name.endswith("Sec") and not name.endswith("USec"):
            if signature not in (*_RANGES, "d") or not 0 <= value < INFINITY / 1_000_000:
                raise at(source, "must be a number of seconds")
            name, signature, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        result.append((name, signature, value))
    return result


def gvariant(text: str, source: str) -> tuple[str, Any]:
    """Return signature and value of a GVariant text: a boolean, number, string or list of such.

    Raises Error that names the annotation and what is wrong with the text.
    """
    try:
        return _Variant(text).whole()
    except ValueError as error:
        raise at(
            source,
            f"must be GVariant text: a boolean, number, string or list: {error}",
        ) from None


class _Variant:
    """A GVariant text that is being read, and how far it is."""

    __slots__ = ("at", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def whole(self) -> tuple[str, Any]:
        found = self.value("")
        if self._peek():
            raise ValueError("something follows the value")
        return found

    def _peek(self) -> str:
        while self.text[self.at : self.at + 1].isspace():
            self.at += 1
        return self.text[self.at : self.at + 1]

    def _word(self) -> str:
        start = self.at
        while self.at < len(self.text) and self.text[self.at] not in " \t\n\r,[]<>{}()'\"":
            self.at += 1
        return self.text[start : self.at]

    def value(self, wanted: str) -> tuple[str, Any]:
        """Read a value: of the type `wanted`, or of its own if that is empty."""
        char = self._peek()
        if char == "@":
            self.at += 1
            kind = self._word()
            if kind.lstrip("a") not in (*_RANGES, "b", "d", "s", "o", "g"):
                raise ValueError(f"type {kind!a} is not supported")
            return self.value(self._same(wanted, kind))
        if char == "[":
            return self._list(wanted)
        if char in ("'", '"') and char:
            return self._same(wanted, wanted if wanted in ("o", "g") else "s"), self._string(char)
        if self.text[self.at : self.at + 2] in ("b'", 'b"'):
            self.at += 1
            return self._same(wanted, "ay"), self._bytes()
        word = self._word()
        if word in ("true", "false"):
            return self._same(wanted, "b"), word == "true"
        if word in _WORDS:
            return self.value(self._same(wanted, _WORDS[word]))
        if not word:
            raise ValueError(f"there is {char!a}" if char else "it ends too early")
        return self._number(word, wanted)

    def _same(self, wanted: str, kind: str) -> str:
        if wanted not in ("", kind):
            raise ValueError(f"type {wanted} is wanted, not {kind}")
        return kind

    def _number(self, word: str, wanted: str) -> tuple[str, Any]:
        hexadecimal = word.lstrip("+-")[:2] in ("0x", "0X")
        decimal = not hexadecimal and any(char in word for char in ".eE")
        kind = wanted or ("d" if decimal or word.lstrip("+-") in ("inf", "nan") else "i")
        if kind == "d":
            try:
                return kind, float(word) if "_" not in word else _fail()
            except ValueError:
                _fail()
        if kind not in _RANGES or decimal or "_" in word:
            _fail()
        digits = word.lstrip("+-")
        octal = len(digits) > 1 and digits.isdigit() and digits[0] == "0"
        try:
            number = int(word, 8 if octal else 0)
        except ValueError:
            _fail()
        low, high = _RANGES[kind]
        if not low <= number < high:
            raise ValueError(f"a number is not from {low} to {high - 1}")
        return kind, number

    def _list(self, wanted: str) -> tuple[str, Any]:
        if wanted and wanted[0] != "a":
            raise ValueError(f"type {wanted} is wanted, not a list")
        inner = wanted[1:]
        items: list[tuple[str, Any]] = []
        self.at += 1
        while self._peek() != "]":
            if items and self._peek() != ",":
                raise ValueError("a list is not closed")
            if items:
                self.at += 1
            items.append(self.value(inner))
        self.at += 1
        kinds = {kind for kind, _ in items}
        if not inner and not items:
            raise ValueError("an empty list needs its type, like @as []")
        if not inner and kinds == {"i", "d"}:
            return "ad", [float(item) for _, item in items]
        if len(kinds) > 1:
            raise ValueError("the items of a list must be of one type")
        return f"a{inner or items[0][0]}", [item for _, item in items]

    def _string(self, quote: str) -> str:
        parts = []
        self.at += 1
        while True:
            char = self.text[self.at : self.at + 1]
            self.at += 1
            if not char:
                raise ValueError("a string is not closed")
            if char == quote:
                break
            if char == "\\":
                char = self._escape()
            if char == "\0":
                raise ValueError("a string must not contain NUL")
            if "\ud800" <= char <= "\udfff":
                raise ValueError("a string must not contain half a surrogate pair")
            parts.append(char)
        return "".join(parts)

    def _escape(self) -> str:
        char = self.text[self.at : self.at + 1]
        self.at += 1
        if char in ("u", "U"):
            size = 4 if char == "u" else 8
            digits = self.text[self.at : self.at + size]
            self.at += size
            if len(digits) < size or any(digit not in _HEXADECIMAL for digit in digits):
                raise ValueError(f"\\{char} takes {size} hexadecimal digits")
            code = int(digits, 16)
            if code >= 0x110000:
                raise ValueError(f"\\{char}{digits} is no character")
            return chr(code)
        return _ESCAPES.get(char, char)

    def _bytes(self) -> list[int]:
        """Read b'...': what a C string of these bytes is, with its NUL at the end."""
        quote = self.text[self.at]
        self.at += 1
        result = bytearray()
        while True:
            char = self.text[self.at : self.at + 1]
            self.at += 1
            if not char:
                raise ValueError("a string is not closed")
            if char == quote:
                return [*result, 0]
            if char == "\\":
                octal = self.text[self.at : self.at + 3]
                if len(octal) == 3 and all(digit in "01234567" for digit in octal):
                    self.at += 3
                    result.append(int(octal, 8) & 0xFF)
                    continue
                char = self._escape()
            result += char.encode("utf-8", "surrogateescape")


_HEXADECIMAL: Final = "0123456789abcdefABCDEF"


def _fail() -> NoReturn:
    raise ValueError("a word in it is no value")
