"""What `events` shows of a container, in the shape that runc prints, and the news of an OOM.

Side: host, cold: only `events` loads this.  Sources: Documentation/admin-guide/cgroup-v1/ and
cgroup-v2.rst; runc's types/events.go for the names.
"""

from __future__ import annotations

import select

from ..errors import Error
from ..linux import files, tasks
from .knobs import read_int, read_map, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..model.schema import (
        CpuStats,
        HugepageStats,
        IoEntry,
        MemoryEntry,
        MemoryStats,
        PidsStats,
        Pressure,
        Stats,
    )

_UNLIMITED: Final = (1 << 64) - 1
_TICK: Final = 10_000_000  # nanoseconds of a clock tick: USER_HZ is 100 on all architectures
# What a container's cpuset is, beside its CPUs and nodes; cgroup v2 has none of it.
_CPUSET: Final = (
    "cpu_exclusive",
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)
# runc's name, v1's file without its beginning
_BLKIO: Final = (
    ("ioServiceBytesRecursive", "io_service_bytes_recursive", "throttle.io_service_bytes"),
    ("ioServicedRecursive", "io_serviced_recursive", "throttle.io_serviced"),
    ("ioQueueRecursive", "io_queued_recursive", ""),
    ("ioServiceTimeRecursive", "io_service_time_recursive", ""),
    ("ioWaitTimeRecursive", "io_wait_time_recursive", ""),
    ("ioMergedRecursive", "io_merged_recursive", ""),
    ("ioTimeRecursive", "time_recursive", ""),
    ("sectorsRecursive", "sectors_recursive", ""),
)


def v1(directories: dict[str, str]) -> Stats:
    """Return the figures of a container on cgroup v1; `directories` are by controller."""
    return {
        "cpu": _v1_cpu(directories.get("cpu", ""), directories.get("cpuacct", "")),
        "cpuset": _v1_cpuset(directories.get("cpuset", "")),
        "memory": _v1_memory(directories.get("memory", "")),
        "pids": _pids(directories.get("pids", "")),
        "blkio": _v1_blkio(directories.get("blkio", "")),
        "hugetlb": _hugetlb(directories.get("hugetlb", ""), "limit_in_bytes"),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def v2(directory: str) -> Stats:
    """Return the figures of a container on cgroup v2."""
    return {
        "cpu": _v2_cpu(directory),
        "cpuset": dict.fromkeys(_CPUSET, 0),
        "memory": _v2_memory(directory),
        "pids": _pids(directory),
        "blkio": _v2_io(directory),
        "hugetlb": _hugetlb(directory, "max"),
        "intel_rdt": {},
        "network_interfaces": None,
    }


def _v2_cpu(directory: str) -> CpuStats:
    cpu = read_map(f"{directory}/cpu.stat")
    result: CpuStats = {
        "usage": {
            "total": cpu.get("usage_usec", 0) * 1000,
            "kernel": cpu.get("system_usec", 0) * 1000,
            "user": cpu.get("user_usec", 0) * 1000,
        },
        "throttling": {
            "periods": cpu.get("nr_periods", 0),
            "throttledPeriods": cpu.get("nr_throttled", 0),
            "throttledTime": cpu.get("throttled_usec", 0) * 1000,
        },
    }
    pressure = _pressure(directory, "cpu")
    if pressure:
        result["psi"] = pressure
    return result


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split() if word.isdigit()]


def _v1_cpu(cpu: str, cpuacct: str) -> CpuStats:
    stat = read_map(f"{cpu}/cpu.stat")
    times = read_map(f"{cpuacct}/cpuacct.stat")
    # "cpu user system", and whatever a kernel adds to that.
    rows = [_numbers(line) for line in read_text(f"{cpuacct}/cpuacct.usage_all").split("\n")[1:]]
    return {
        "usage": {
            "total": read_int(f"{cpuacct}/cpuacct.usage") or 0,
            "percpu": _numbers(read_text(f"{cpuacct}/cpuacct.usage_percpu")),
            "percpu_kernel": [row[2] for row in rows if len(row) >= 3],
            "percpu_user": [row[1] for row in rows if len(row) >= 3],
            "kernel": times.get("system", 0) * _TICK,
            "user": times.get("user", 0) * _TICK,
        },
        "throttling": {
            "periods": stat.get("nr_periods", 0),
            "throttledPeriods": stat.get("nr_throttled", 0),
            "throttledTime": stat.get("throttled_time", 0),
        },
    }


def _ranges(text: str) -> list[int]:
    """Return the numbers of a list like 0-2,4."""
    result: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            result += range(int(first), int(last or first) + 1)
    return result


def _v1_cpuset(directory: str) -> dict[str, int | list[int]]:
    if not directory:
        return {}
    result: dict[str, int | list[int]] = {
        name: _ranges(read_text(f"{directory}/cpuset.{name}")) for name in ("cpus", "mems")
    }
    for name in _CPUSET:
        result[name] = read_int(f"{directory}/cpuset.{name}") or 0
    return result


def _v1_entry(directory: str, name: str) -> MemoryEntry:
    return {
        "limit": read_int(f"{directory}/{name}.limit_in_bytes") or 0,
        "usage": read_int(f"{directory}/{name}.usage_in_bytes") or 0,
        "max": read_int(f"{directory}/{name}.max_usage_in_bytes") or 0,
        "failcnt": read_int(f"{directory}/{name}.failcnt") or 0,
    }


def _v1_memory(directory: str) -> MemoryStats:
    raw = read_map(f"{directory}/memory.stat")
    return {
        "cache": raw.get("cache", 0),
        "usage": _v1_entry(directory, "memory"),
        "swap": _v1_entry(directory, "memory.memsw"),
        "kernel": _v1_entry(directory, "memory.kmem"),
        "kernelTCP": _v1_entry(directory, "memory.kmem.tcp"),
        "raw": raw,
    }


def _limit(path: str) -> int:
    """Return a limit; without one, the number that runc prints for it."""
    value = read_int(path)
    return _UNLIMITED if value is None else value


def _v2_memory(directory: str) -> MemoryStats:
    raw = read_map(f"{directory}/memory.stat")
    events = read_map(f"{directory}/memory.events")
    usage = read_int(f"{directory}/memory.current") or 0
    limit = _limit(f"{directory}/memory.max")
    swap = read_int(f"{directory}/memory.swap.current") or 0
    swap_limit = _limit(f"{directory}/memory.swap.max")
    both = _UNLIMITED if _UNLIMITED in (limit, swap_limit) else limit + swap_limit
    result: MemoryStats = {
        "cache": raw.get("file", 0),
        "usage": {
            "limit": limit,
            "usage": usage,
            "max": read_int(f"{directory}/memory.peak") or 0,
            "failcnt": events.get("max", 0),
        },
        # As on v1: memory and swap together.
        "swap": {"limit": both, "usage": usage + swap, "max": 0, "failcnt": 0},
        "kernel": {"limit": 0, "usage": raw.get("kernel", 0), "max": 0, "failcnt": 0},
        "kernelTCP": {"limit": 0, "usage": raw.get("sock", 0), "max": 0, "failcnt": 0},
        "raw": raw,
    }
    pressure = _pressure(directory, "memory")
    if pressure:
        result["psi"] = pressure
    return result


def _pids(directory: str) -> PidsStats:
    return {
        "current": read_int(f"{directory}/pids.current") or 0,
        "limit": read_int(f"{directory}/pids.max") or 0,
    }


def _io_entry(device: str, operation: str, value: str) -> IoEntry:
    major, _, minor = device.partition(":")
    return {"major": int(major), "minor": int(minor), "op": operation, "value": int(value)}


def _v1_blkio(directory: str) -> dict[str, list[IoEntry] | Pressure]:
    result: dict[str, list[IoEntry] | Pressure] = {}
    for name, file, other in _BLKIO:
        text = read_text(f"{directory}/blkio.bfq.{file}") or read_text(f"{directory}/blkio.{file}")
        if len(text.split("\n")) < 2 and other:  # only the line of the sum: no bfq here
            text = read_text(f"{directory}/blkio.{other}")
        rows = [line.split() for line in text.split("\n")]
        result[name] = [_io_entry(*row) for row in rows if len(row) == 3]
    return result


def _v2_io(directory: str) -> dict[str, list[IoEntry] | Pressure]:
    moved: list[IoEntry] = []
    served: list[IoEntry] = []
    words = {"rbytes": (moved, "Read"), "wbytes": (moved, "Write")}
    words.update({"rios": (served, "Read"), "wios": (served, "Write")})
    for line in read_text(f"{directory}/io.stat").split("\n"):
        device, *pairs = line.split() or [""]
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in words and ":" in device:
                entries, operation = words[key]
                entries.append(_io_entry(device, operation, value))
    result: dict[str, list[IoEntry] | Pressure] = {
        "ioServiceBytesRecursive": moved,
        "ioServicedRecursive": served,
    }
    pressure = _pressure(directory, "io")
    if pressure:
        result["psi"] = pressure
    return result


def _hugetlb(directory: str, file: str) -> dict[str, HugepageStats]:
    if not directory:
        return {}
    result: dict[str, HugepageStats] = {}
    for name in files.listdir(directory):
        words = name.split(".")
        if words[0] != "hugetlb" or words[2:] != [file]:
            continue
        base = f"{directory}/hugetlb.{words[1]}"
        if file == "max":
            usage, most = read_int(f"{base}.current"), None
            failed = read_map(f"{base}.events").get("max")
        else:
            usage, most = read_int(f"{base}.usage_in_bytes"), read_int(f"{base}.max_usage_in_bytes")
            failed = read_int(f"{base}.failcnt")
        result[words[1]] = {"usage": usage or 0, "max": most or 0, "failcnt": failed or 0}
    return result


def _pressure(directory: str, resource: str) -> Pressure:
    """Return the pressure stall information, if the kernel counts it."""
    result: Pressure = {}
    for line in read_text(f"{directory}/{resource}.pressure").split("\n"):
        kind, *pairs = line.split() or [""]
        if kind in ("some", "full"):
            values = dict(pair.split("=", 1) for pair in pairs)
            result[kind] = {
                key: int(value) if key == "total" else float(value) for key, value in values.items()
            }
    return result


def v1_oom_watch(directory: str) -> tuple[int, int]:
    """Register an eventfd for memory.oom_control; it is readable when an OOM happens."""
    event_fd = tasks.eventfd()
    control_fd = files.open(f"{directory}/memory.oom_control", files.O_RDONLY)
    try:
        files.write_file(f"{directory}/cgroup.event_control", f"{event_fd} {control_fd}")
    except OSError as error:
        files.close(event_fd)
        raise Error(f"events: watch {directory}/memory.oom_control: {error.strerror}") from None
    finally:
        files.close(control_fd)
    return event_fd, select.POLLIN


def v2_oom_watch(directory: str) -> tuple[int, int]:
    """Open memory.events, which has an exceptional condition whenever a number in it changes."""
    event_fd = files.open(f"{directory}/memory.events", files.O_RDONLY)
    files.read(event_fd, 4096)
    return event_fd, select.POLLPRI
