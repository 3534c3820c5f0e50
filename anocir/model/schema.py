"""The shape of config.json, of the state directory and of facts, for the type checker only.

Side: none.  Never imported at run time: use it below `if TYPE_CHECKING:`.  Spec: config.md,
config-linux.md and runtime.md of version 1.3.  Every property may be missing (`total=False`), as
in a document that came from outside; what `spec` requires is said there, and what may stand
in the state directory in host/record.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..base.hooks import Hook
    from ..wire.shapes import CgroupView, Filter


# A JSON object of which nobody has looked at the keys yet, or that has any.
Json = dict[str, Any]


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
    type: str
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


Status = Literal["creating", "created", "running", "paused", "stopped"]


class State(TypedDict, total=False):
    """The state of a container, as `state` prints it and hooks read it (runtime.md "State")."""

    ociVersion: str
    id: str
    status: Status
    pid: int
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: dict[str, str]
    mounts: list[dict[str, str]]
    devices: list[dict[str, str | int]]


# Mount point, controllers, path below it, how many directories at its end are new.  A list, as
# JSON has it; a tuple says what stands in which place.
HierarchyRow = tuple[str, str, str, int]


class CgroupRecord(TypedDict, total=False):
    """Where the cgroups of a container are: written before the first of them is made.

    `manager`     "v1", "v2", "systemd" or "disabled", with the `reason`
    `tolerant`    whether it is no error that none can be made
    `shielded`    whether the container can use no device nodes of its own
    `foreign`     set when somebody else came first: nothing there may be killed or removed
    `unfinished`  set for a removal when create has not come to its end; never written
    v1            `hierarchies`
    v2            `mountpoint`, `path` below it, `made` (how many directories at its end are new),
                  `owner` (host uid that gets it, or -1), `leaf` (the delegated one below, or "");
                  of a unit `fresh` (whether it was not there) and `at_top` (whether it is the
                  unit's own)
    systemd       `user` (whose manager), `slice`, `unit`, `description` (by which it is ours),
                  `properties`, `cgroup`, `directory` (its path in the tree of systemd, or ""), and
                  `fs`, the record of the files below
    """

    manager: str
    reason: str
    tolerant: bool
    shielded: bool
    foreign: bool
    unfinished: bool
    hierarchies: list[HierarchyRow]
    mountpoint: str
    path: str
    made: int
    owner: int
    leaf: str
    fresh: bool
    at_top: bool
    user: bool
    slice: str
    unit: str
    description: str
    properties: list[Any]
    cgroup: str
    directory: str
    fs: CgroupRecord


class ResctrlRecord(TypedDict):
    """The groups of resctrl: the class, the monitoring one or "", what is made, what was there."""

    group: str
    monitor: str
    made: list[str]
    there: bool


class Intent(TypedDict, total=False):
    """intent.json: what is written down before the first side effect.

    `creator` is the pid and the start time of the runtime, `criu` those of the CRIU of a restore,
    `private_pids` whether all processes end with init, `keyring` its name, `hooks` those that start
    and delete run, `host_mounts` how many mounts lie below the root file system where the container
    has no mount namespace.
    """

    version: int
    id: str
    bundle: str
    rootfs: str
    created: str
    owner: str
    annotations: dict[str, str]
    cgroup: CgroupRecord
    creator: list[int]
    criu: list[int]
    private_pids: bool
    keyring: str
    host_mounts: int | None
    resctrl: ResctrlRecord | None
    hooks: Hooks


class StateFile(TypedDict, total=False):
    """state.json: who init is, how far it has come, and a copy of the intent.

    `hooked` says that hooks have run, `mount_namespace` (device, inode) and what else
    `belonging.evidence` gives by what processes are known that outlive init. Of `update`: the
    device `rules` that were changed, the `devices` that were added, and those of config.json (by
    their paths) that were `taken` away; `resources` are those of config.json, before the first
    update.
    """

    intent: Intent
    pid: int
    start_time: int
    created: bool
    hooked: bool
    mount_namespace: list[int]
    added: list[AddedMount]
    rules: list[DeviceRule]
    devices: list[AddedDevice]
    taken: list[str]
    resources: Resources


class AddedMount(TypedDict):
    """A mount that `mounts add` made; `number` is its mount id."""

    destination: str
    source: str
    type: str
    number: int


class AddedDevice(TypedDict):
    """A device that `update` added: what it is, and its node.

    `number` is its mount id where it is a bind, `own` says that it was not there before.
    """

    path: str
    type: str
    major: int
    minor: int
    mode: int
    uid: int
    gid: int
    access: str
    number: int
    own: bool


class Facts(TypedDict, total=False):
    """What the host side knows and `model/plan.py` needs: all keys, and who asks for them.

    Of any process:
    `id`, `bundle`, `rootfs`   as in the state; `state` is what hooks inside are told
    `seccomp`                  the compiled program, or None
    `clone`, `signals`         whether a process behind the filter can clone init, and can wait
                               for signals
    `apparmor`, `selinux`      whether the host has them and something asks for it
    `keyring`                  the name of the container's, empty for a new one
    `preserve_fds`, `listen_fds`, `holes`   descriptors that are passed on, and which are not open
    `piped`                    standard streams that are pipes of ours, and the place of each
    `tools`                    the place of the mount of `exec --tools`, if it is asked for

    Of create:
    `cgroup`, `cgroup_fallback`   the manager's view, and who could not make a cgroup's, or None
    `cgroup2`                     the same two for a mount of type cgroup2 on a hybrid host
    `check_command`               whether a program that is missing is an error of create
    `no_pivot`, `no_new_keyring`  the options
    `notify`, `notify_source`     the socket inside and its directory, with a service manager
    `user_namespace`              whether the runtime itself is inside one
    `descriptors`                 the limit of open files that was raised for the set-up, or None

    Of exec:
    `join`   (kind, path) of each namespace of init that is not ours
    """

    id: str
    bundle: str
    rootfs: str
    state: State
    seccomp: Filter | None
    clone: bool
    signals: bool
    apparmor: bool
    selinux: bool
    keyring: str
    preserve_fds: int
    listen_fds: int
    holes: list[int]
    piped: list[tuple[int, int]]
    tools: int
    cgroup: CgroupView | None
    cgroup2: tuple[CgroupView, CgroupView | None] | None
    cgroup_fallback: CgroupView | None
    check_command: bool
    no_pivot: bool
    no_new_keyring: bool
    notify: str
    notify_source: str
    user_namespace: bool
    descriptors: tuple[int, int] | None
    join: list[tuple[str, str]]


class CpuUsage(TypedDict, total=False):
    """Nanoseconds, in all and by CPU, which only version 1 has."""

    total: int
    percpu: list[int]
    percpu_kernel: list[int]
    percpu_user: list[int]
    kernel: int
    user: int


class Throttling(TypedDict):
    """How often a quota was used up; nanoseconds."""

    periods: int
    throttledPeriods: int
    throttledTime: int


# "some" and "full" of pressure stall information: avg10, avg60, avg300 and total.
Pressure = dict[str, dict[str, float]]


class CpuStats(TypedDict, total=False):
    """The figures of the cpu controller."""

    usage: CpuUsage
    throttling: Throttling
    psi: Pressure


class MemoryEntry(TypedDict):
    """One kind of memory, in bytes."""

    limit: int
    usage: int
    max: int
    failcnt: int


class MemoryStats(TypedDict, total=False):
    """The figures of the memory controller; `raw` is memory.stat."""

    cache: int
    usage: MemoryEntry
    swap: MemoryEntry
    kernel: MemoryEntry
    kernelTCP: MemoryEntry
    raw: dict[str, int]
    psi: Pressure


class IoEntry(TypedDict):
    """What one block device has done of an operation."""

    major: int
    minor: int
    op: str
    value: int


class HugepageStats(TypedDict):
    """The pages of one size, in bytes."""

    usage: int
    max: int
    failcnt: int


class PidsStats(TypedDict):
    """How many processes there are, and may be."""

    current: int
    limit: int


class Stats(TypedDict, total=False):
    """What `events` shows, in the form of runc's types/events.go; without a cgroup nothing."""

    cpu: CpuStats
    cpuset: Mapping[str, int | list[int]]
    memory: MemoryStats
    pids: PidsStats
    blkio: Mapping[str, list[IoEntry] | Pressure]
    hugetlb: dict[str, HugepageStats]
    intel_rdt: dict[str, int]
    network_interfaces: None


class MemoryUse(TypedDict, total=False):
    """What a container has of memory, in bytes, as far as that is known."""

    limit: int
    peak: int


class Victim(TypedDict, total=False):
    """Whom the kernel killed for want of memory, and the cgroup above whose limit it was."""

    process: str
    pid: int
    above: str


class OomStory(MemoryUse, Victim):
    """The data of an event `oom-kill`."""

    kills: int


class Event(TypedDict, total=False):
    """A line of `events`."""

    type: str
    id: str
    data: Stats | OomStory


class SeccompFeatures(TypedDict, total=False):
    """The object "seccomp" of features-linux.md."""

    enabled: bool
    actions: list[str]
    operators: list[str]
    archs: list[str]
    knownFlags: list[str]
    supportedFlags: list[str]


class ProcessState(TypedDict, total=False):
    """What a seccomp agent gets (config-linux.md, "Container Process State")."""

    ociVersion: str
    fds: list[str]
    pid: int
    metadata: str
    state: State
