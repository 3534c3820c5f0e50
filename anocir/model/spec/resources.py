"""`linux.resources`: what the cgroup limits.

Side: pure.  Spec: config-linux.md "Control groups" and the sections below it.  Names that become
part of a file name (huge page sizes, keys of `unified`) have a strict grammar, because a `../`
in one of them is an escape from the cgroup tree (runc GHSA-5g49-rx9x-qfc6).
"""

from __future__ import annotations

from .kinds import (
    ALNUM,
    array,
    BOOLEAN,
    choice,
    DIGITS,
    INT64,
    integer,
    interface,
    made_of,
    mapping,
    Mistake,
    record,
    run,
    show,
    STRING,
    text,
    UINT16,
    UINT32,
    UINT64,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_UNSET: Final = (1 << 64) - 1


def page_size(value: str) -> str:
    """Complain about what is not <size><K, M or G>B, as in hugetlb.2MB.max."""
    number = value[:-2]
    if value[-2:] in ("KB", "MB", "GB") and made_of(number, DIGITS) and number[0] != "0":
        return ""
    return f'must be a size like "64KB", "2MB" or "1GB", got {show(value)}'


def _cgroup_file(key: str) -> str:
    # Capital letters are needed for the spec's own example, hugetlb.1GB.max.
    controller, dot, rest = key.partition(".")
    if dot and made_of(controller, ALNUM + "_") and made_of(rest, ALNUM + "_."):
        return ""
    return "must be the name of a cgroup file like memory.max: letters, digits, _ and ."


def _cpuset(value: str) -> str:
    # The kernel's own parser has more than the spec: strides, "all", other blanks.
    if value in ("", "all", "N"):
        return ""
    if made_of(value, DIGITS + ",-:/ \n"):
        parts = value.replace(",", " ").split()
        return next((wrong for part in parts if (wrong := _range(part))), "")
    return f'must be a list of numbers and ranges like "0-3,7", got {show(value)}'


def _range(part: str) -> str:
    low, dash, high = part.partition("-")
    high = high.partition(":")[0] if dash else low
    if not (made_of(low, DIGITS) and made_of(high, DIGITS)):
        return f'must be a list of numbers and ranges like "0-3,7", got {show(part)}'
    if len(low) < 10 and len(high) < 10 and int(low) > int(high):
        return f"has a range that runs backwards: {show(part)}"
    return ""


def _access(value: str) -> str:
    if not value or made_of(value, "rwm"):
        return ""
    return f"must be made of r, w and m, got {show(value)}"


def _rdma_device(key: str) -> str:
    if key.split() == [key] and "/" not in key and "=" not in key:
        return ""
    return "must be the name of an RDMA device"


def _weight(value: Any, _: Any) -> None:
    integer(value, UINT16)
    if value and not 10 <= value <= 1000:
        raise Mistake(f"must be between 10 and 1000, or 0 for not set, got {value}")


def _swappiness(value: Any, _: Any) -> None:
    # Docker and Podman write their -1, "not set", as an unsigned number.
    if value != _UNSET or type(value) is not int:
        integer(value, (0, 100))


def _memory(memory: Any) -> None:
    if memory.get("swappiness") == _UNSET:
        del memory["swappiness"]
    limit = memory.get("limit", 0)
    swap = memory.get("swap", 0)
    if 0 < swap < limit:
        raise Mistake(
            f"is memory and swap together, so must not be below limit {limit}, got {swap}", "swap"
        )


def _cpu(cpu: Any) -> None:
    quota = cpu.get("quota", 0)
    if 0 < quota < cpu.get("burst", 0):
        raise Mistake(f"must not be above quota {quota}, got {cpu['burst']}", "burst")


def _weight_device(device: Any) -> None:
    if "weight" not in device and "leafWeight" not in device:
        raise Mistake("is missing, must be set if leafWeight is not", "weight")


def _rdma_limit(limit: Any) -> None:
    if "hcaHandles" not in limit and "hcaObjects" not in limit:
        raise Mistake("is missing, must be set if hcaObjects is not", "hcaHandles")


_LIMIT: Final = (integer, (-1, INT64[1]))  # -1 is unlimited
_UINT64: Final = (integer, UINT64)
_UINT32: Final = (integer, UINT32)
# dev_t has 12 bits for the major and 20 for the minor number (include/linux/kdev_t.h)
MAJOR: Final = (integer, (0, (1 << 12) - 1))
MINOR: Final = (integer, (0, (1 << 20) - 1))
_MAJOR_MINOR: Final = {"major": MAJOR, "minor": MINOR}
_THROTTLE: Final = (
    array,
    (record, ({**_MAJOR_MINOR, "rate": _UINT64}, ("major", "minor", "rate"), None)),
)
_DEVICE: Final = (
    {
        "allow": BOOLEAN,
        # Go's callers leave the type out for all; "" is what they mean by it
        "type": (choice, (frozenset(("", "a", "b", "c")), "a type of devices")),
        "major": (integer, (-1, UINT32[1])),  # -1 is all
        "minor": (integer, (-1, UINT32[1])),
        "access": (text, _access),
    },
    ("allow",),
    None,
)
_BLOCK_IO: Final = {
    "weight": (_weight, None),
    "leafWeight": (_weight, None),
    "weightDevice": (
        array,
        (
            record,
            (
                {**_MAJOR_MINOR, "weight": (_weight, None), "leafWeight": (_weight, None)},
                ("major", "minor"),
                _weight_device,
            ),
        ),
    ),
    "throttleReadBpsDevice": _THROTTLE,
    "throttleWriteBpsDevice": _THROTTLE,
    "throttleReadIOPSDevice": _THROTTLE,
    "throttleWriteIOPSDevice": _THROTTLE,
}
_MEMORY: Final = {
    "limit": _LIMIT,
    "reservation": _LIMIT,
    "swap": _LIMIT,
    "kernel": _LIMIT,
    "kernelTCP": _LIMIT,
    "swappiness": (_swappiness, None),
    "disableOOMKiller": BOOLEAN,
    "useHierarchy": BOOLEAN,
    "checkBeforeUpdate": BOOLEAN,
}
_CPU: Final = {
    "shares": _UINT64,
    "quota": (integer, INT64),  # each below 0 is unlimited, for the kernel too
    "burst": _UINT64,
    "period": _UINT64,
    "realtimeRuntime": _LIMIT,
    "realtimePeriod": _UINT64,
    "cpus": (text, _cpuset),
    "mems": (text, _cpuset),
    "idle": (integer, (0, 1)),
}
_NETWORK: Final = {
    "classID": _UINT32,
    "priorities": (
        array,
        (
            record,
            (
                {"name": (text, interface), "priority": _UINT32},
                ("name", "priority"),
                None,
            ),
        ),
    ),
}
RESOURCES: Final = (
    {
        "unified": (mapping, (_cgroup_file, STRING)),
        "devices": (array, (record, _DEVICE)),
        # each below 0 is unlimited, as runc has it
        "pids": (record, ({"limit": (integer, INT64)}, (), None)),
        "blockIO": (record, (_BLOCK_IO, (), None)),
        "cpu": (record, (_CPU, (), _cpu)),
        "hugepageLimits": (
            array,
            (
                record,
                (
                    {"pageSize": (text, page_size), "limit": _UINT64},
                    ("pageSize", "limit"),
                    None,
                ),
            ),
        ),
        "memory": (record, (_MEMORY, (), _memory)),
        "network": (record, (_NETWORK, (), None)),
        "rdma": (
            mapping,
            (
                _rdma_device,
                (record, ({"hcaHandles": _UINT32, "hcaObjects": _UINT32}, (), _rdma_limit)),
            ),
        ),
    },
    (),
    None,
)


def check(resources: Any, path: str = "linux.resources") -> None:
    """Check a resources object, as `update --resources` has it.  Raises Error."""
    run((record, RESOURCES), resources, path)
