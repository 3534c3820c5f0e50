"""Random valid configurations for the differential test, made of features that can be taken away one by one.

A case is a list of (feature, seed): each feature changes the configuration by its own random numbers only, so that a case
without one of them is the same case otherwise, and a difference can be minimised.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

Config = dict[str, Any]


class Able(NamedTuple):
    """What both runtimes can do: specification version they know up to, mount options, namespaces, cgroup version.

    `takes_user` is for crun, whose exec takes the container's user where the process object names none; runc's takes root.
    """

    version: tuple[int, int]
    options: frozenset[str]
    namespaces: frozenset[str]
    v2: bool
    controllers: frozenset[str]
    cpus: int
    takes_user: bool = False


class Case(NamedTuple):
    """A configuration, the process object of an exec or None, and options of the command."""

    config: Config
    process: Config | None
    options: list[str]
    descriptors: int


CAPABILITIES = (
    "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP CAP_NET_BIND_SERVICE"
    " CAP_NET_RAW CAP_SYS_CHROOT CAP_MKNOD CAP_AUDIT_WRITE CAP_SETFCAP CAP_NET_ADMIN CAP_SYS_PTRACE CAP_SYS_NICE"
).split()


class Draft:
    """What the features work on."""

    def __init__(self, able: Able, sources: Sequence[str]) -> None:
        self.able = able
        # directories and files of the host for bind mounts
        self.sources = list(sources)
        self.options: list[str] = []
        self.descriptors = 0
        self.exec: Config | None = None
        self.watched = ["/etc/passwd", "/etc", "/tmp", "/root", "/proc/self/attr/current"]
        self.config: Config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": 0, "gid": 0},
                "args": ["/probe"],
                "env": ["PATH=/usr/bin:/bin"],
                "cwd": "/",
                "capabilities": {
                    name: list(CAPABILITIES[:8]) for name in ("bounding", "effective", "permitted")
                },
            },
            "root": {"path": "rootfs"},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
            "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]},
        }

    @property
    def process(self) -> Config:
        return self.config["process"]

    @property
    def linux(self) -> Config:
        return self.config["linux"]

    def resources(self, group: str) -> Config:
        return self.linux.setdefault("resources", {}).setdefault(group, {})

    def mount(self, destination: str, kind: str, source: str, options: Sequence[str]) -> None:
        if any(entry["destination"] == destination for entry in self.config["mounts"]):
            return  # of two on one place runc makes the upper read-only for the lower's `ro`
        times = [word for word in options if word.endswith(("noatime", "relatime", "strictatime"))]
        # of two words for one thing runc takes both, and the kernel chooses
        options = [word for word in options if word not in times[1:]]
        entry: Config = {"destination": destination, "type": kind, "source": source}
        if options:
            entry["options"] = list(options)
        self.config["mounts"].append(entry)
        self.watched.append(destination)


Feature = Callable[[random.Random, Draft], None]
FEATURES: dict[str, Feature] = {}


def feature(function: Feature) -> Feature:
    FEATURES[function.__name__] = function
    return function


SIGNALLESS = (
    "getcwd",
    "socket",
    "personality",
    "keyctl",
    "sched_getaffinity",
    "fchmodat",
    "ioprio_get",
)


def some(numbers: random.Random, values: Sequence[Any], most: int = 99) -> list[Any]:
    count = numbers.randint(0, min(most, len(values)))
    return numbers.sample(list(values), count)


@feature
def namespaces(numbers: random.Random, draft: Draft) -> None:
    for kind in ("network", "ipc", "uts", "cgroup"):
        if numbers.random() < 0.6 and kind in draft.able.namespaces:
            draft.linux["namespaces"].append({"type": kind})


@feature
def user_namespace(numbers: random.Random, draft: Draft) -> None:
    first = numbers.choice((100000, 200000, 1))
    draft.linux["namespaces"].append({"type": "user"})
    draft.linux["uidMappings"] = [{"containerID": 0, "hostID": first, "size": 70000}]
    draft.linux["gidMappings"] = [{"containerID": 0, "hostID": first, "size": 70000}]


@feature
def time_namespace(numbers: random.Random, draft: Draft) -> None:
    if "time" in draft.able.namespaces and draft.able.version >= (1, 1):
        draft.linux["namespaces"].append({"type": "time"})
        offsets = {}
        for clock in some(numbers, ("monotonic", "boottime")):
            offsets[clock] = {
                "secs": numbers.randint(0, 1000000),
                "nanosecs": numbers.randint(0, 999),
            }
        if offsets:
            draft.linux["timeOffsets"] = offsets


@feature
def dev(numbers: random.Random, draft: Draft) -> None:
    mode = numbers.choice(("mode=755", "mode=0755", "mode=700"))
    draft.mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", mode, "size=65536k"])
    if numbers.random() < 0.8:
        options = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
        draft.mount("/dev/pts", "devpts", "devpts", options + some(numbers, ["gid=5"]))
    if numbers.random() < 0.7:
        draft.mount(
            "/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=64k"]
        )
    if numbers.random() < 0.5:
        draft.mount("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"])


@feature
def sysfs(numbers: random.Random, draft: Draft) -> None:
    if {"type": "network"} not in draft.linux["namespaces"]:
        draft.linux["namespaces"].append({"type": "network"})
    draft.mount("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", *some(numbers, ["ro"])])


@feature
def cgroup_mount(numbers: random.Random, draft: Draft) -> None:
    options = [
        "nosuid",
        "noexec",
        "nodev",
        *some(numbers, ["relatime"]),
        numbers.choice(("ro", "rw")),
    ]
    draft.mount("/sys/fs/cgroup", "cgroup", "cgroup", options)


@feature
def tmpfs(numbers: random.Random, draft: Draft) -> None:
    for _ in range(numbers.randint(1, 3)):
        places = ("/tmp", "/mnt", "/new/deep/place", "/run", "/etc", "/root", "/opt/x y")
        words = [
            "ro",
            "rw",
            "nosuid",
            "nodev",
            "noexec",
            "suid",
            "exec",
            "dev",
            "noatime",
            "relatime",
            "strictatime",
        ]
        words += [
            "mode=1777",
            "mode=0700",
            "mode=555",
            "size=64k",
            "nr_inodes=10",
            "uid=1000",
            "gid=1000",
        ]
        words += [
            "nodiratime",
            "sync",
            "async",
            "nosymfollow",
            "private",
            "rslave",
            "shared",
            "unbindable",
        ]
        words = [word for word in words if "=" in word or word in draft.able.options]
        options = some(numbers, words, 5)
        if sum(word.startswith("mode=") for word in options) > 1:
            options = [word for word in options if not word.startswith("mode=")]
        draft.mount(numbers.choice(places), "tmpfs", "tmpfs", options)


@feature
def tmpcopyup(numbers: random.Random, draft: Draft) -> None:
    if "tmpcopyup" in draft.able.options:
        options = ["tmpcopyup", *some(numbers, ["mode=0711", "size=1m", "nosuid", "nodev"])]
        draft.mount(numbers.choice(("/etc", "/root", "/tmp")), "tmpfs", "tmpfs", options)


@feature
def bind(numbers: random.Random, draft: Draft) -> None:
    for index in range(numbers.randint(1, 3)):
        source = numbers.choice(draft.sources)
        words = [
            "ro",
            "rw",
            "nosuid",
            "nodev",
            "noexec",
            "suid",
            "exec",
            "dev",
            "noatime",
            "relatime",
            "private",
        ]
        words += [
            "rprivate",
            "slave",
            "rslave",
            "shared",
            "rshared",
            "unbindable",
            "nosymfollow",
            "rro",
            "rnosuid",
        ]
        words = [word for word in words if word in draft.able.options]
        options = [numbers.choice(("bind", "rbind")), *some(numbers, words, 4)]
        place = numbers.choice((f"/bound{index}", f"/new/bound{index}", "/mnt", "/etc/passwd"))
        if place == "/etc/passwd" and "file" not in source:
            place = "/mnt"
        if place == "/mnt" and "file" in source:
            place = f"/bound{index}"
        kind = numbers.choice(("bind", "bind", "none", ""))
        draft.mount(place, kind, source, options)
        if draft.config["mounts"][-1].get("type") == "":
            del draft.config["mounts"][-1]["type"]


@feature
def readonly_root(numbers: random.Random, draft: Draft) -> None:
    draft.config["root"]["readonly"] = numbers.random() < 0.8


@feature
def names(numbers: random.Random, draft: Draft) -> None:
    if {"type": "uts"} not in draft.linux["namespaces"]:
        draft.linux["namespaces"].append({"type": "uts"})
    draft.config["hostname"] = numbers.choice(("box", "a.b.example", "x" * 60))
    if draft.able.version >= (1, 1) and numbers.random() < 0.5:
        draft.config["domainname"] = numbers.choice(("example.org", "d"))


@feature
def cwd(numbers: random.Random, draft: Draft) -> None:
    draft.process["cwd"] = numbers.choice(
        ("/tmp", "/root", "/etc", "/made/for/it", "/tmp/../etc", "//tmp")
    )


@feature
def environment(numbers: random.Random, draft: Draft) -> None:
    entries = [
        "HOME=/x",
        "HOME=",
        "A=1",
        "A=2",
        "B=",
        "PATH=/bin",
        "TERM=xterm",
        "C=a=b",
        "D= sp ace",
        "PATH=",
        "E=\u00e4",
    ]
    draft.process["env"] = some(numbers, entries, 6)


@feature
def arguments(numbers: random.Random, draft: Draft) -> None:
    draft.process["args"] = [numbers.choice(("/probe", "probe", "../probe", "/./probe"))]
    if draft.process["args"] == ["probe"]:
        draft.process["env"] = [
            *(e for e in draft.process["env"] if not e.startswith("PATH=")),
            "PATH=/nothing:/bin",
        ]
    draft.process["args"] += some(numbers, ["", "a b", "-x", "\u00e9", "--"], 3)


@feature
def user(numbers: random.Random, draft: Draft) -> None:
    who = {"uid": numbers.choice((0, 1, 1000, 4242)), "gid": numbers.choice((0, 1, 1000, 4242))}
    if numbers.random() < 0.5:
        who["additionalGids"] = some(numbers, (0, 5, 10, 1000, 65533), 4)
    if numbers.random() < 0.4:
        who["umask"] = numbers.choice((0, 0o22, 0o77, 0o777, 0o7))
    draft.process["user"] = who


@feature
def capabilities(numbers: random.Random, draft: Draft) -> None:
    bounding = some(numbers, CAPABILITIES)
    permitted = some(numbers, bounding)
    inheritable = some(numbers, permitted)
    sets = {
        "bounding": bounding,
        "permitted": permitted,
        "effective": some(numbers, permitted),
        "inheritable": inheritable,
        "ambient": some(numbers, inheritable),
    }
    for key in some(numbers, ("inheritable", "ambient")):
        del sets[key]
    if "inheritable" not in sets:
        sets.pop("ambient", None)
    draft.process["capabilities"] = sets


@feature
def no_new_privileges(numbers: random.Random, draft: Draft) -> None:
    draft.process["noNewPrivileges"] = numbers.random() < 0.8


@feature
def rlimits(numbers: random.Random, draft: Draft) -> None:
    values = {
        "RLIMIT_NOFILE": (64, 1024), "RLIMIT_CORE": (0, 0), "RLIMIT_NPROC": (100, 1000), "RLIMIT_STACK": (1 << 20, 8 << 20),
        "RLIMIT_CPU": (100, 1000), "RLIMIT_FSIZE": (1 << 20, 1 << 30), "RLIMIT_MEMLOCK": (0, 65536), "RLIMIT_AS": (1 << 31, 1 << 32),
        "RLIMIT_SIGPENDING": (10, 100), "RLIMIT_MSGQUEUE": (0, 819200), "RLIMIT_LOCKS": (5, 10), "RLIMIT_RSS": (1 << 20, 1 << 30),
        "RLIMIT_DATA": (1 << 28, 1 << 30), "RLIMIT_NICE": (0, 0), "RLIMIT_RTPRIO": (0, 0), "RLIMIT_RTTIME": (1000, 2000),
    }  # fmt: skip
    chosen = some(numbers, sorted(values), 6)
    draft.process["rlimits"] = [
        {"type": name, "soft": values[name][0], "hard": values[name][numbers.randint(0, 1)]}
        for name in chosen
    ]


@feature
def oom_score(numbers: random.Random, draft: Draft) -> None:
    draft.process["oomScoreAdj"] = numbers.choice((0, 1, 500, 1000))


@feature
def io_priority(numbers: random.Random, draft: Draft) -> None:
    if draft.able.version >= (1, 1):
        kind = numbers.choice(("IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE"))
        draft.process["ioPriority"] = {
            "class": kind,
            "priority": 0 if kind.endswith("IDLE") else numbers.randint(0, 7),
        }


@feature
def scheduler(numbers: random.Random, draft: Draft) -> None:
    if draft.able.version >= (1, 1):
        policy = numbers.choice(("SCHED_OTHER", "SCHED_BATCH", "SCHED_IDLE"))
        draft.process["scheduler"] = {"policy": policy}
        if policy != "SCHED_IDLE":
            draft.process["scheduler"]["nice"] = numbers.randint(0, 19)


@feature
def devices(numbers: random.Random, draft: Draft) -> None:
    listed = [
        {
            "path": "/dev/fuse",
            "type": "c",
            "major": 10,
            "minor": 229,
            "fileMode": 0o666,
            "uid": 0,
            "gid": 0,
        },
        {
            "path": "/dev/mine",
            "type": "c",
            "major": 1,
            "minor": 3,
            "fileMode": 0o640,
            "uid": 1000,
            "gid": 5,
        },
        {"path": "/dev/deep/er/node", "type": "c", "major": 1, "minor": 5},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o600},
        {"path": "/opt/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666},
        {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600},
    ]
    draft.linux["devices"] = some(numbers, listed, 4)
    draft.watched += [device["path"] for device in draft.linux["devices"]]


@feature
def masked_paths(numbers: random.Random, draft: Draft) -> None:
    paths = [
        "/proc/kcore",
        "/proc/keys",
        "/etc/passwd",
        "/etc",
        "/nothing",
        "/root",
        "/tmp",
        "/proc/acpi",
        "/proc/sys",
    ]
    draft.linux["maskedPaths"] = some(numbers, paths, 4)
    draft.watched += draft.linux["maskedPaths"]


@feature
def readonly_paths(numbers: random.Random, draft: Draft) -> None:
    paths = [
        "/proc/sys",
        "/proc/bus",
        "/etc",
        "/etc/passwd",
        "/nothing",
        "/root",
        "/tmp",
        "/proc/sysrq-trigger",
    ]
    draft.linux["readonlyPaths"] = some(numbers, paths, 4)
    draft.watched += draft.linux["readonlyPaths"]


@feature
def sysctl(numbers: random.Random, draft: Draft) -> None:
    own = {entry["type"] for entry in draft.linux["namespaces"]}
    values = {}
    if "network" in own:
        values["net.ipv4.ip_forward"] = numbers.choice("01")
        values["net.ipv4.ip_unprivileged_port_start"] = "0"
    if "ipc" in own:
        values["kernel.msgmax"] = "16384"
        values["fs.mqueue.msg_max"] = "20"
    chosen = some(numbers, sorted(values))
    if chosen:
        draft.linux["sysctl"] = {name: values[name] for name in chosen}
        draft.watched += ["/proc/sys/" + name.replace(".", "/") for name in chosen]


@feature
def propagation(numbers: random.Random, draft: Draft) -> None:
    draft.linux["rootfsPropagation"] = numbers.choice(
        ("private", "rprivate", "slave", "rslave", "shared", "rshared")
    )


@feature
def cpu(numbers: random.Random, draft: Draft) -> None:
    group = draft.resources("cpu")
    if numbers.random() < 0.7:
        group["shares"] = numbers.choice((2, 512, 1024, 2048, 10000))
    if numbers.random() < 0.5:
        group["quota"], group["period"] = numbers.choice(
            ((50000, 100000), (-1, 100000), (20000, 50000))
        )
    if numbers.random() < 0.3:
        group["cpus"], group["mems"] = numbers.choice(("0", f"0-{draft.able.cpus - 1}")), "0"


@feature
def memory(numbers: random.Random, draft: Draft) -> None:
    group = draft.resources("memory")
    group["limit"] = numbers.choice((64 << 20, 128 << 20, 1 << 30))
    if numbers.random() < 0.4:
        group["reservation"] = 32 << 20
    if numbers.random() < 0.3:
        group["swap"] = group["limit"] * 2


@feature
def pids(numbers: random.Random, draft: Draft) -> None:
    draft.resources("pids")["limit"] = numbers.choice((1, 10, 1000, -1))


@feature
def device_rules(numbers: random.Random, draft: Draft) -> None:
    rules: list[Config] = [{"allow": False, "access": "rwm"}]
    listed = [
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
        {"allow": True, "type": "b", "major": 8, "minor": 0, "access": "r"},
        {"allow": True, "type": "c", "major": 1, "access": "rw"},
        {"allow": False, "type": "c", "major": 10, "minor": 200, "access": "w"},
    ]
    draft.linux.setdefault("resources", {})["devices"] = rules + some(numbers, listed)


@feature
def seccomp(numbers: random.Random, draft: Draft) -> None:
    profile: Config = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": []}
    if numbers.random() < 0.5:
        profile["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"]
    if numbers.random() < 0.3:
        profile["flags"] = ["SECCOMP_FILTER_FLAG_LOG"]
    for name in some(numbers, SIGNALLESS, 3):
        rule = {
            "names": [name],
            "action": "SCMP_ACT_ERRNO",
            **numbers.choice(({}, {"errnoRet": 38}, {"errnoRet": 13})),
        }
        profile["syscalls"].append(rule)
    draft.linux["seccomp"] = profile


@feature
def annotations(numbers: random.Random, draft: Draft) -> None:
    draft.config["annotations"] = {
        f"org.example.{word}": word for word in some(numbers, ("a", "b", "c"))
    }


@feature
def personality(numbers: random.Random, draft: Draft) -> None:
    if draft.able.version >= (1, 2):
        draft.linux["personality"] = {"domain": numbers.choice(("LINUX", "LINUX32"))}


@feature
def memory_policy(numbers: random.Random, draft: Draft) -> None:
    if draft.able.version >= (1, 3):
        draft.linux["memoryPolicy"] = {
            "mode": numbers.choice(("MPOL_BIND", "MPOL_INTERLEAVE")),
            "nodes": "0",
        }


@feature
def descriptors(numbers: random.Random, draft: Draft) -> None:
    draft.descriptors = numbers.randint(1, 3)
    draft.options += ["--preserve-fds", str(draft.descriptors)]


@feature
def old_keyring(numbers: random.Random, draft: Draft) -> None:
    draft.options.append("--no-new-keyring")


@feature
def exec_process(numbers: random.Random, draft: Draft) -> None:
    """Run the probe by `exec --process`, whose object is whole or leaves things to the container's."""
    draft.exec = {
        "keep": some(numbers, ("env", "user", "capabilities", "rlimits", "noNewPrivileges"), 5)
    }


def build(chosen: Sequence[tuple[str, int]], able: Able, sources: Sequence[str]) -> Case:
    """The case that these features make; what is watched goes into the probe's arguments."""
    draft = Draft(able, sources)
    for name, seed in chosen:
        FEATURES[name](random.Random(seed), draft)
    watched = list(dict.fromkeys(draft.watched))
    config = copy.deepcopy(draft.config)
    config["process"]["args"] += watched
    process = None
    if draft.exec is not None:
        process = {key: config["process"][key] for key in ("args", "cwd")}
        process["env"] = ["PATH=/usr/bin:/bin", "INNER=1"]
        for key in draft.exec["keep"]:
            if key in config["process"]:
                process[key] = config["process"][key]
        if able.takes_user:
            process["user"] = config["process"]["user"]
        config["process"]["args"] = ["/sleeper"]
    return Case(config, process, draft.options, draft.descriptors)


# In this order, as later features look at what earlier ones chose.
ORDER = tuple(FEATURES)


def choose(numbers: random.Random) -> list[tuple[str, int]]:
    """The features of a random case: now and then one alone, mostly some, seldom nearly all."""
    share = numbers.choice((0.05, 0.15, 0.15, 0.3, 0.3, 0.6))
    return [(name, numbers.getrandbits(32)) for name in ORDER if numbers.random() < share]
