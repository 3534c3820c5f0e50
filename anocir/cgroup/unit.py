"""Names and properties of the systemd unit that a container is.

Side: pure, cold: only the systemd manager loads it.  Sources: systemd.unit(5), systemd.scope(5),
systemd.slice(5), systemd.resource-control(5), org.freedesktop.systemd1(5); GVariant's text format
for the annotations org.systemd.property.NAME.

A property is (name, signature, value).  Every limit that systemd knows is a property as well as a
write to the files: on daemon-reload systemd writes its own idea of the unit again.
"""

from __future__ import annotations

from ..errors import at
from .convert import blkio_to_io_weight, shares_to_weight, swap_max
from .devices import MKNOD, READ, WRITE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from .convert import Resources
    from .devices import Rule

    Property = tuple[str, str, Any]

INFINITY: Final = (1 << 64) - 1
_ANNOTATION: Final = "org.systemd.property."
_PLAIN: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@")
_INTEGERS: Final = {
    "byte": "y",
    "int16": "n",
    "uint16": "q",
    "int32": "i",
    "uint32": "u",
    "int64": "x",
    "uint64": "t",
}
_DOUBLE: Final = "d"


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
    expand(where)
    if name.endswith(".slice"):
        expand(name)
        return where, name
    return where, escape(f"{prefix}-{name}" if prefix else name) + ".scope"


def escape(text: str) -> str:
    """Return a unit name without what systemd does not take, as systemd-escape(1) writes it."""
    parts = []
    for char in text:
        if char in _PLAIN:
            parts.append(char)
        else:
            parts += [f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape")]
    return "".join(parts)


def expand(name: str) -> str:
    """Return the directories of a slice: a-b.slice is /a.slice/a-b.slice, -.slice is ""."""
    source = "linux.cgroupsPath"
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


def _cpu(cpu: dict[str, Any], version: int, systemd: int) -> list[Property]:
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
            if cpu.get(key):
                result.append((name, "ay", bits(cpu[key], f"linux.resources.cpu.{key}")))
    return result


def _unified(unified: dict[str, str], systemd: int) -> list[Property]:
    """Return what systemd knows of `unified`; the rest is only written to the files."""
    plain = {
        "cpu.weight": "CPUWeight",
        "memory.min": "MemoryMin",
        "memory.low": "MemoryLow",
        "memory.high": "MemoryHigh",
        "memory.max": "MemoryMax",
        "memory.swap.max": "MemorySwapMax",
        "pids.max": "TasksMax",
    }
    result: list[Property] = []
    for key, text in unified.items():
        value = text.strip()
        if key in plain and (value == "max" or value.isdigit()):
            result.append((plain[key], "t", INFINITY if value == "max" else int(value)))
        elif key == "cpu.max":
            quota, _, period = value.partition(" ")
            words = [int(word) if word.isdigit() else 0 for word in (quota, period)]
            if words[1] and systemd >= 242:
                result.append(("CPUQuotaPeriodUSec", "t", words[1]))
            result.append(("CPUQuotaPerSecUSec", "t", quota_per_second(*words)))
        elif key == "cpuset.cpus" and systemd >= 244:
            result.append(("AllowedCPUs", "ay", bits(value, f"linux.resources.unified[{key!a}]")))
        elif key == "cpuset.mems" and systemd >= 244:
            mask = bits(value, f"linux.resources.unified[{key!a}]")
            result.append(("AllowedMemoryNodes", "ay", mask))
    return result


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
        name, source = key[len(_ANNOTATION) :], f"annotations[{key!a}]"
        if not name.isascii() or not name.isalpha() or len(name) < 3:
            raise at(source, "must end in the name of a unit property")
        signature, value = gvariant(text, source)
        if name.endswith("Sec") and not name.endswith("USec"):
            if not isinstance(value, (int, float)) or isinstance(value, bool):
                raise at(source, "must be a number of seconds")
            name, signature, value = f"{name[:-3]}USec", "t", int(value * 1_000_000)
        result.append((name, signature, value))
    return result


def gvariant(text: str, source: str) -> tuple[str, Any]:
    """Return signature and value of a GVariant text: a boolean, number, string or list of such."""
    word = text.strip()
    try:
        if word.startswith("@"):
            kind, _, rest = word[1:].partition(" ")
            if rest.strip() == "[]" and kind in ("as", "ai", "au", "at", "ab"):
                return kind, []
        if word.startswith("[") and word.endswith("]"):
            items = [gvariant(item, source) for item in _items(word[1:-1])]
            if items and all(item[0] == items[0][0] for item in items):
                return f"a{items[0][0]}", [item[1] for item in items]
        elif word in ("true", "false"):
            return "b", word == "true"
        elif word[:1] in ("'", '"') and word[-1:] == word[:1] and len(word) > 1:
            return "s", _string(word[1:-1], word[0])
        else:
            kind, _, number = word.rpartition(" ")
            if kind.strip() in _INTEGERS:
                return _INTEGERS[kind.strip()], int(number, 0)
            if not kind:
                return ("d", float(word)) if "." in word else ("i", int(word, 0))
    except ValueError:
        pass
    raise at(source, f"must be GVariant text: a boolean, number, string or list, got {text!a}")


def _items(text: str) -> list[str]:
    """Split at the commas that are outside of quotes."""
    items, quote, start, index = [], "", 0, 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            index += 1
        elif quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char == ",":
            items.append(text[start:index])
            start = index + 1
        index += 1
    return [*items, text[start:]]


def _string(text: str, quote: str) -> str:
    result, index = [], 0
    while index < len(text):
        char = text[index]
        if char == quote:
            raise ValueError("a quote inside")
        if char == "\\":
            index += 1
            char = {"n": "\n", "t": "\t"}.get(text[index : index + 1], text[index : index + 1])
            if not char:
                raise ValueError("ends in a backslash")
        result.append(char)
        index += 1
    return "".join(result)
