"""The resources of config.json as values for the files of cgroup v1 and v2.

Side: pure.  Sources: config-linux.md of the runtime specification; the kernel's
Documentation/admin-guide/cgroup-v1/ and cgroup-v2.rst; for what the specification leaves open
(zeros that mean unset, memory plus swap, shares to weight) what callers of runc see.

A write is a tuple (controller, file, value, source, rule).  `source` is the JSON path that asked
for it.  `rule` is "" or one of

    optional   the file may be missing
    spare      only when the file of the write before it is missing or cannot have it; when this
               one is missing as well, a warning
    else       only when the file of the write before it is missing
    retry      the kernel compares it with another value that may be written after it: when it is
               refused, try again after the other writes

Types and bounds are model/spec/resources.py's, which looks first: its errors are those that users
see.  What is looked at here again could become a path, or another line, if it came unchecked.
"""

from __future__ import annotations

from ..errors import at, keyed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from ..model.schema import (
        BlockIO,
        CPU,
        HugepageLimit,
        Memory,
        Network,
        Pids,
        Rdma,
        Resources,
        ThrottleDevice,
    )

    Write = tuple[str, str, str, str, str]

_DEFAULT_PERIOD: Final = 100000
_UNIFIED_CHARACTERS: Final = frozenset(
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_."
)
# Files of the core that move, stop or kill processes: they are no limits.
_UNIFIED_REFUSED: Final = frozenset(
    ("cgroup.procs", "cgroup.threads", "cgroup.kill", "cgroup.freeze", "cgroup.subtree_control")
)
_THROTTLES: Final = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def v1(resources: Resources) -> list[Write]:
    """Return the writes for cgroup v1, in the order in which the kernel takes them."""
    return [
        *_v1_cpu(resources.get("cpu") or {}),
        *_cpuset(resources.get("cpu") or {}),
        *_v1_memory(resources.get("memory") or {}),
        *_pids(resources.get("pids") or {}),
        *_v1_block(resources.get("blockIO") or {}),
        *_hugetlb(resources.get("hugepageLimits") or [], "limit_in_bytes"),
        *_network(resources.get("network") or {}),
        *_rdma(resources.get("rdma") or {}),
    ]


def v2(resources: Resources) -> list[Write]:
    """Return the writes for cgroup v2; `unified` comes last, so that it decides."""
    return [
        *_v2_cpu(resources.get("cpu") or {}),
        *_cpuset(resources.get("cpu") or {}),
        *_v2_memory(resources.get("memory") or {}),
        *_pids(resources.get("pids") or {}),
        *_v2_block(resources.get("blockIO") or {}),
        *_hugetlb(resources.get("hugepageLimits") or [], "max"),
        *_rdma(resources.get("rdma") or {}),
        *unified(resources),
    ]


def named(resources: Resources, names: Resources, version: int) -> Resources:
    """Return of `resources`, an update applied, what the update names: only that is written.

    With what goes into the same file: quota and period, and on v2 memory and swap (config.json
    counts them together); and with the weight that the kernel forgets while cpu.idle is 1.
    """
    cpu: dict[str, object] = {**(names.get("cpu") or {})}
    memory: dict[str, object] = {**(names.get("memory") or {})}
    all_cpu: Mapping[str, object] = resources.get("cpu") or {}
    all_memory: Mapping[str, object] = resources.get("memory") or {}
    pairs = [(cpu, all_cpu, ("quota", "period"))] if version == 2 else []
    if version == 2 or all_memory.get("limit") == -1:
        pairs.append((memory, all_memory, ("limit", "swap")))
    if cpu.get("idle") == 0:
        pairs.append((cpu, all_cpu, ("idle", "shares")))
    for part, whole, keys in pairs:
        if any(part.get(key) for key in keys) or "idle" in keys:
            part.update({key: whole[key] for key in keys if whole.get(key) is not None})
    parts: Any = {key: part for key, part in (("cpu", cpu), ("memory", memory)) if part}
    return {**names, **parts}


def previous(old: Resources, names: Resources) -> Resources:
    """Return what `old` has of that which an update names: to undo it."""
    result: Any = {}
    for key, part in names.items():
        before = old.get(key)
        if isinstance(part, dict) and isinstance(before, dict):
            result[key] = {name: before[name] for name in part if name in before}
        elif before is not None:
            result[key] = before
    return result  # type: ignore[no-any-return]


def ignored(resources: Resources, version: int) -> list[str]:
    """Return the JSON paths that are set but have no meaning on this cgroup version."""
    memory = resources.get("memory") or {}
    paths = ["memory.kernel"] if memory.get("kernel") else []
    if version == 2:
        cpu = resources.get("cpu") or {}
        block = resources.get("blockIO") or {}
        paths += [f"memory.{k}" for k in ("kernelTCP", "disableOOMKiller") if memory.get(k)]
        paths += ["memory.swappiness"] if memory.get("swappiness") is not None else []
        paths += [f"cpu.{k}" for k in ("realtimeRuntime", "realtimePeriod") if cpu.get(k)]
        paths += ["blockIO.leafWeight"] if block.get("leafWeight") else []
        paths += ["network"] if resources.get("network") else []
    return [f"linux.resources.{path}" for path in paths]


def shares_to_weight(shares: int) -> int:
    """Return the cpu.weight that stands for v1's cpu.shares: 2 is 1, 1024 is 100, 2^18 is 10000.

    The quadratic formula that runc, crun and the kubelet use since 2025: the linear one before
    it made 1024 a weight of 39, below what every other process has.
    """
    if shares == 0:
        return 0
    if shares <= 2:
        return 1
    if shares >= 262144:
        return 10000
    import math

    log = math.log2(shares)
    weight: float = 10.0 ** ((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0)
    return math.ceil(weight)


def blkio_to_io_weight(weight: int) -> int:
    """Return the io.weight (1 to 10000) that stands for v1's blkio.weight (10 to 1000)."""
    return 1 + (weight - 10) * 9999 // 990 if weight else 0


def swap_max(limit: int, swap: int) -> str:
    """Return memory.swap.max for v1's memory plus swap limit, "" for unset."""
    if limit == -1 and swap == 0:
        return "max"
    if swap == 0:
        return ""
    if swap == -1:
        return "max"
    if limit == -1:
        return str(swap)  # memory without a limit leaves the whole of it to swap, as in runc
    if limit <= 0:
        raise at("linux.resources.memory.swap", "needs memory.limit: it is memory plus swap")
    return str(swap - limit)


def unified(resources: Resources) -> list[Write]:
    """Return the writes for `unified`, one for each line: io.max takes one device a write."""
    writes: list[Write] = []
    for key, value in (resources.get("unified") or {}).items():
        source = keyed("linux.resources.unified", key)
        if "." not in key or not _UNIFIED_CHARACTERS.issuperset(key) or ".." in key:
            raise at(source, "must be the name of a cgroup file, like memory.high")
        if key in _UNIFIED_REFUSED:
            raise at(source, "is no limit, the runtime itself writes this file")
        controller = key.split(".", 1)[0]
        writes += [(controller, key, line, source, "") for line in str(value).split("\n") if line]
    return writes


def _integer(values: Mapping[str, Any], key: str, source: str, lowest: int = 0) -> int:
    """Return a number, 0 when it is not set."""
    value = values.get(key)
    if value is None:
        return 0
    if not isinstance(value, int) or isinstance(value, bool):
        raise at(f"{source}.{key}", "must be an integer")
    if value < lowest:
        raise at(f"{source}.{key}", f"must not be below {lowest}, got {value}")
    return value


def _token(text: object, source: str) -> str:
    """Return a name that becomes one word of a line."""
    if not isinstance(text, str) or not text or text.split() != [text] or "\0" in text:
        raise at(source, "must be a name without blanks")
    return text


def _v1_cpu(cpu: CPU) -> list[Write]:
    source = "linux.resources.cpu"
    writes: list[Write] = []
    for key, file, lowest in (
        ("realtimePeriod", "cpu.rt_period_us", 0),
        ("realtimeRuntime", "cpu.rt_runtime_us", -1),
        ("period", "cpu.cfs_period_us", 0),
        ("quota", "cpu.cfs_quota_us", -(1 << 63)),
    ):
        value = _integer(cpu, key, source, lowest)
        if value:
            writes.append(("cpu", file, str(max(value, -1)), f"{source}.{key}", "retry"))
    if cpu.get("burst") is not None:
        burst = str(_integer(cpu, "burst", source))
        writes.append(("cpu", "cpu.cfs_burst_us", burst, f"{source}.burst", "retry"))
    shares = _integer(cpu, "shares", source)
    weight: list[Write] = []
    if shares:
        if not 2 <= shares <= 262144:  # the kernel would take the nearest without a word
            raise at(f"{source}.shares", f"must be between 2 and 262144 on cgroup v1, got {shares}")
        weight = [("cpu", "cpu.shares", str(shares), f"{source}.shares", "")]
    return writes + _idle(cpu, weight)


def _v2_cpu(cpu: CPU) -> list[Write]:
    source = "linux.resources.cpu"
    writes: list[Write] = []
    quota = _integer(cpu, "quota", source, -(1 << 63))
    period = _integer(cpu, "period", source)
    if quota or period:
        value = f"{quota if quota > 0 else 'max'} {period or _DEFAULT_PERIOD}"
        path = f"{source}.{'quota' if quota else 'period'}"
        writes.append(("cpu", "cpu.max", value, path, "retry"))
    if cpu.get("burst") is not None:
        burst = str(_integer(cpu, "burst", source))
        writes.append(("cpu", "cpu.max.burst", burst, f"{source}.burst", "retry"))
    weight = shares_to_weight(_integer(cpu, "shares", source))
    shares: list[Write] = []
    if weight:
        shares = [("cpu", "cpu.weight", str(weight), f"{source}.shares", "")]
    return writes + _idle(cpu, shares)


def _idle(cpu: CPU, weight: list[Write]) -> list[Write]:
    """Place cpu.idle around the weight, which the kernel refuses while idle is 1."""
    if cpu.get("idle") is None:
        return weight
    idle = _integer(cpu, "idle", "linux.resources.cpu")
    write = ("cpu", "cpu.idle", str(idle), "linux.resources.cpu.idle", "")
    return [*weight, write] if idle else [write, *weight]


def _cpuset(cpu: CPU) -> list[Write]:
    writes: list[Write] = []
    for key in ("cpus", "mems"):
        value = str(cpu.get(key) or "")
        if value:
            writes.append(("cpuset", f"cpuset.{key}", value, f"linux.resources.cpu.{key}", ""))
    return writes


def _memory_limits(memory: Memory) -> tuple[int, int]:
    source = "linux.resources.memory"
    limit = _integer(memory, "limit", source, -1)
    swap = _integer(memory, "swap", source, -1)
    if limit > 0 and 0 < swap < limit:
        raise at(f"{source}.swap", "must not be below memory.limit: it is memory plus swap")
    return limit, swap


def _v1_memory(memory: Memory) -> list[Write]:
    source = "linux.resources.memory"
    writes: list[Write] = []
    limit, swap = _memory_limits(memory)
    if limit == -1 and swap == 0:
        swap = -1
    if limit:
        write = ("memory", "memory.limit_in_bytes", str(limit), f"{source}.limit", "retry")
        writes.append(write)
    if swap:
        # Without swap accounting the file is missing, and there is nothing to lift.
        rule = "optional" if swap == -1 else ""
        file = "memory.memsw.limit_in_bytes"
        writes.append(("memory", file, str(swap), f"{source}.swap", rule))
    for key, file in (
        ("reservation", "memory.soft_limit_in_bytes"),
        ("kernelTCP", "memory.kmem.tcp.limit_in_bytes"),
    ):
        value = _integer(memory, key, source, -1)
        if value:
            writes.append(("memory", file, str(value), f"{source}.{key}", ""))
    if memory.get("swappiness") is not None:
        swappiness = _integer(memory, "swappiness", source)
        path = f"{source}.swappiness"
        writes.append(("memory", "memory.swappiness", str(swappiness), path, ""))
    if memory.get("disableOOMKiller"):
        writes.append(("memory", "memory.oom_control", "1", f"{source}.disableOOMKiller", ""))
    return writes


def _v2_memory(memory: Memory) -> list[Write]:
    source = "linux.resources.memory"
    writes: list[Write] = []
    limit, swap = _memory_limits(memory)
    value = swap_max(limit, swap)
    if value:
        rule = "optional" if value in ("0", "max") else ""
        writes.append(("memory", "memory.swap.max", value, f"{source}.swap", rule))
    if limit:
        writes.append(("memory", "memory.max", _number(limit), f"{source}.limit", ""))
    reservation = _integer(memory, "reservation", source, -1)
    if reservation:
        path = f"{source}.reservation"
        writes.append(("memory", "memory.low", _number(reservation), path, ""))
    return writes


def _number(value: int) -> str:
    return "max" if value < 0 else str(value)


def _pids(pids: Pids) -> list[Write]:
    if pids.get("limit") is None:
        return []
    limit = _integer(pids, "limit", "linux.resources.pids", -(1 << 63))
    # Since spec 1.3 zero is a limit; systemd cannot express it, and one task, which is there
    # already, is the same for the container.
    return [("pids", "pids.max", _number(limit or 1), "linux.resources.pids.limit", "")]


def _device(entry: Mapping[str, Any], source: str) -> str:
    major = _integer(entry, "major", source)
    return f"{major}:{_integer(entry, 'minor', source)}"


def _throttles(block: Mapping[str, Any], key: str) -> list[ThrottleDevice]:
    return block.get(key) or []


def _v1_block(block: BlockIO) -> list[Write]:
    source = "linux.resources.blockIO"
    writes: list[Write] = []
    # The files without bfq went away with CFQ in Linux 5.0.
    for key, file in (("weight", "weight"), ("leafWeight", "leaf_weight")):
        value = str(_integer(block, key, source))
        if value != "0":
            writes.append(("blkio", f"blkio.{file}", value, f"{source}.{key}", ""))
            if key == "weight":
                writes.append(("blkio", "blkio.bfq.weight", value, f"{source}.{key}", "else"))
    for index, entry in enumerate(block.get("weightDevice") or []):
        path = f"{source}.weightDevice[{index}]"
        device = _device(entry, path)
        weight, leaf = _integer(entry, "weight", path), _integer(entry, "leafWeight", path)
        if weight:
            line = f"{device} {weight}"
            writes.append(("blkio", "blkio.weight_device", line, f"{path}.weight", ""))
            writes.append(("blkio", "blkio.bfq.weight_device", line, f"{path}.weight", "else"))
        if leaf:
            line = f"{device} {leaf}"
            writes.append(("blkio", "blkio.leaf_weight_device", line, f"{path}.leafWeight", ""))
    for key, file, _ in _THROTTLES:
        for index, limit in enumerate(_throttles(block, key)):
            path = f"{source}.{key}[{index}]"
            rate = _integer(limit, "rate", path)
            if file.endswith("iops_device"):  # the kernel keeps the lower 32 bits: 2^32 stops all
                rate = min(rate, 0xFFFFFFFF)
            writes.append(("blkio", file, f"{_device(limit, path)} {rate}", path, ""))
    return writes


def _v2_block(block: BlockIO) -> list[Write]:
    source = "linux.resources.blockIO"
    writes: list[Write] = []
    weight = _integer(block, "weight", source)
    if weight:
        path = f"{source}.weight"
        writes.append(("io", "io.bfq.weight", str(weight), path, ""))
        writes.append(("io", "io.weight", str(blkio_to_io_weight(weight)), path, "else"))
    for index, entry in enumerate(block.get("weightDevice") or []):
        path = f"{source}.weightDevice[{index}]"
        device, weight = _device(entry, path), _integer(entry, "weight", path)
        if weight:
            scaled = blkio_to_io_weight(weight)
            writes.append(("io", "io.bfq.weight", f"{device} {weight}", path, ""))
            writes.append(("io", "io.weight", f"{device} {scaled}", path, "spare"))
    for key, _, word in _THROTTLES:
        for index, limit in enumerate(_throttles(block, key)):
            path = f"{source}.{key}[{index}]"
            rate = _integer(limit, "rate", path)
            line = f"{_device(limit, path)} {word}={rate or 'max'}"
            writes.append(("io", "io.max", line, path, ""))
    return writes


def page_size(text: object, source: str) -> str:
    """Return a huge page size, refusing what is none: it becomes a file name (GHSA-5g49-rx9x)."""
    if not isinstance(text, str) or text[-2:-1] not in ("K", "M", "G", "T") or text[-1:] != "B":
        raise at(source, f"must be a huge page size like 2MB, got {text!a}")
    digits = text[:-2]
    if not digits.isascii() or not digits.isdigit() or digits[0] == "0":
        raise at(source, f"must be a huge page size like 2MB, got {text!a}")
    return text


def _hugetlb(limits: list[HugepageLimit], file: str) -> list[Write]:
    writes: list[Write] = []
    for index, entry in enumerate(limits):
        source = f"linux.resources.hugepageLimits[{index}]"
        size = page_size(entry.get("pageSize"), f"{source}.pageSize")
        limit = str(_integer(entry, "limit", source))
        writes.append(("hugetlb", f"hugetlb.{size}.{file}", limit, source, ""))
        # The reservation limit came with Linux 5.7.
        writes.append(("hugetlb", f"hugetlb.{size}.rsvd.{file}", limit, source, "optional"))
    return writes


def _network(network: Network) -> list[Write]:
    source = "linux.resources.network"
    writes: list[Write] = []
    class_id = _integer(network, "classID", source)
    if class_id:
        write = ("net_cls", "net_cls.classid", str(class_id), f"{source}.classID", "")
        writes.append(write)
    for index, entry in enumerate(network.get("priorities") or []):
        path = f"{source}.priorities[{index}]"
        line = f"{_token(entry.get('name'), f'{path}.name')} {_integer(entry, 'priority', path)}"
        writes.append(("net_prio", "net_prio.ifpriomap", line, path, ""))
    return writes


def _rdma(rdma: dict[str, Rdma]) -> list[Write]:
    writes: list[Write] = []
    for device, entry in rdma.items():
        source = keyed("linux.resources.rdma", device)
        words = [_token(device, source)]
        for key, word in (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object")):
            if entry.get(key) is not None:
                words.append(f"{word}={_integer(entry, key, source)}")
        if len(words) == 1:
            raise at(source, "needs hcaHandles or hcaObjects")
        writes.append(("rdma", "rdma.max", " ".join(words), source, ""))
    return writes
