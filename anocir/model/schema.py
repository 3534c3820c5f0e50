"""The shape of config.json and state.json, for the type checker only: never imported at run time.

Side: none.  Spec: config.md, config-linux.md and runtime.md of version 1.3.  Use it below
`if TYPE_CHECKING:`.  Every property may be missing (`total=False`), as in a document that came
from outside; what `spec.check` requires is said there.
"""

from __future__ import annotations

from typing import Literal, TypedDict


class IDMapping(TypedDict):
    """A range of ids in the container and on the host."""

    containerID: int
    hostID: int
    size: int


class Root(TypedDict, total=False):
    """The root filesystem."""

    path: str
    readonly: bool


class Mount(TypedDict, total=False):
    """One entry of `mounts`."""

    destination: str
    source: str
    type: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class ConsoleSize(TypedDict):
    """The size of the terminal in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    """Ids inside the container; a checked process has uid and gid."""

    uid: int
    gid: int
    umask: int
    additionalGids: list[int]
    username: str


class Capabilities(TypedDict, total=False):
    """The five sets of capabilities(7)."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """One entry of `process.rlimits`."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    """What sched_setattr(2) takes."""

    policy: str
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# `class` is a keyword of Python
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)


class ExecCPUAffinity(TypedDict, total=False):
    """CPU lists for `exec`, before and after it joins the cgroup."""

    initial: str
    final: str


class Process(TypedDict, total=False):
    """The program and what it runs as."""

    args: list[str]
    commandLine: str
    consoleSize: ConsoleSize
    cwd: str
    env: list[str]
    terminal: bool
    user: User
    capabilities: Capabilities
    apparmorProfile: str
    oomScoreAdj: int
    selinuxLabel: str
    ioPriority: IOPriority
    noNewPrivileges: bool
    scheduler: Scheduler
    rlimits: list[Rlimit]
    execCPUAffinity: ExecCPUAffinity


class Hook(TypedDict, total=False):
    """A program that is run at one point of the life cycle."""

    path: str
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """The hooks by the point where they run."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


NamespaceType = Literal["mount", "pid", "network", "uts", "ipc", "user", "cgroup", "time"]


class Namespace(TypedDict, total=False):
    """A namespace: joined by its path, new without one."""

    type: NamespaceType
    path: str


class Device(TypedDict, total=False):
    """A device node in the container."""

    type: Literal["c", "b", "u", "p"]
    path: str
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class NetDevice(TypedDict, total=False):
    """A network interface that moves into the container."""

    name: str


class DeviceRule(TypedDict, total=False):
    """One rule of the device cgroup."""

    allow: bool
    type: Literal["", "a", "b", "c"]
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """Limits of the memory controller."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    """Limits of the cpu and cpuset controllers."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict, total=False):
    """The limit of the pids controller."""

    limit: int


class WeightDevice(TypedDict, total=False):
    """The weight of one block device."""

    major: int
    minor: int
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict):
    """The limit of one block device."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """Limits of the blkio or io controller."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """The limit for one size of huge pages."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    """The priority of the traffic over one interface."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """What the net_cls and net_prio controllers take."""

    classID: int
    priorities: list[InterfacePriority]


class Rdma(TypedDict, total=False):
    """Limits for one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class Resources(TypedDict, total=False):
    """What the cgroup limits."""

    unified: dict[str, str]
    devices: list[DeviceRule]
    pids: Pids
    blockIO: BlockIO
    cpu: CPU
    hugepageLimits: list[HugepageLimit]
    memory: Memory
    network: Network
    rdma: dict[str, Rdma]


class SeccompArgument(TypedDict, total=False):
    """A comparison with one argument of a system call."""

    index: int
    value: int
    valueTwo: int
    op: str


class SeccompRule(TypedDict, total=False):
    """An action for some system calls."""

    names: list[str]
    action: str
    errnoRet: int
    args: list[SeccompArgument]


class Seccomp(TypedDict, total=False):
    """The filter for system calls."""

    defaultAction: str
    defaultErrnoRet: int
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    architectures: list[str]
    syscalls: list[SeccompRule]


class IntelRdt(TypedDict, total=False):
    """Cache and memory bandwidth, over resctrl."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """What set_mempolicy(2) takes."""

    mode: str
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """What personality(2) takes."""

    domain: Literal["LINUX", "LINUX32"]
    flags: list[str]


class TimeOffset(TypedDict, total=False):
    """The offset of one clock."""

    secs: int
    nanosecs: int


class Linux(TypedDict, total=False):
    """What only Linux has."""

    devices: list[Device]
    netDevices: dict[str, NetDevice]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    namespaces: list[Namespace]
    resources: Resources
    cgroupsPath: str
    rootfsPropagation: str
    seccomp: Seccomp
    sysctl: dict[str, str]
    maskedPaths: list[str]
    readonlyPaths: list[str]
    mountLabel: str
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    personality: Personality
    timeOffsets: dict[str, TimeOffset]


class Config(TypedDict, total=False):
    """config.json."""

    ociVersion: str
    root: Root
    mounts: list[Mount]
    process: Process
    hostname: str
    domainname: str
    hooks: Hooks
    annotations: dict[str, str]
    linux: Linux


class State(TypedDict, total=False):
    """The state of a container, as `state` prints it and hooks read it (runtime.md "State")."""

    ociVersion: str
    id: str
    status: Literal["creating", "created", "running", "paused", "stopped"]
    pid: int
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: dict[str, str]


class StateFile(State, total=False):
    """state.json in the directory of the container: the state and what the runtime adds."""

    version: int
    start_time: int
    cgroup: dict[str, object]
