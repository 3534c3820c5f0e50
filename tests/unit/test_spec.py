"""config.json is checked whole, and a mistake names its JSON path and what would be right."""

from __future__ import annotations

import ast
import copy
import json
import os
import pathlib

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from anocir import errors
from anocir.base import jsonio
from anocir.model.spec import kinds, linux, process, resources, whole, words

FULL = {
    "ociVersion": "1.3.0",
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.org",
    "annotations": {"org.example.key": "value"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/data",
            "type": "none",
            "source": "/srv/data",
            "options": ["rbind", "ro", "idmap"],
            "uidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
            "gidMappings": [{"containerID": 0, "hostID": 1000, "size": 10}],
        },
    ],
    "process": {
        "terminal": True,
        "consoleSize": {"height": 25, "width": 80},
        "cwd": "/",
        "env": ["PATH=/bin", "EMPTY="],
        "args": ["sh", "-c", ""],
        "user": {"uid": 1, "gid": 2, "umask": 0o77, "additionalGids": [3, 4]},
        "capabilities": {
            "bounding": ["CAP_KILL", "CAP_CHOWN"],
            "effective": ["CAP_KILL"],
            "inheritable": ["CAP_KILL"],
            "permitted": ["CAP_KILL"],
            "ambient": ["CAP_KILL"],
        },
        "apparmorProfile": "profile",
        "oomScoreAdj": -500,
        "selinuxLabel": "system_u:system_r:svirt_lxc_net_t:s0",
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "noNewPrivileges": True,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "flags": ["SCHED_FLAG_RESET_ON_FORK"],
            "nice": 0,
            "priority": 0,
            "runtime": 2000,
            "deadline": 3000,
            "period": 4000,
        },
        "rlimits": [
            {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096},
            {"type": "RLIMIT_CORE", "soft": 0, "hard": (1 << 64) - 1},
        ],
        "execCPUAffinity": {"initial": "7", "final": "0-3,7"},
    },
    "hooks": {
        name: [{"path": "/bin/hook", "args": ["hook"], "env": ["A=b"], "timeout": 3}]
        for name in whole.HOOKS
    },
    "linux": {
        "namespaces": [
            {"type": "mount"},
            {"type": "pid", "path": "/proc/1/ns/pid"},
            {"type": "network"},
            {"type": "uts"},
            {"type": "ipc"},
            {"type": "user"},
            {"type": "cgroup"},
            {"type": "time"},
        ],
        "uidMappings": [
            {"containerID": 0, "hostID": 1000, "size": 1},
            {"containerID": 1, "hostID": 100000, "size": 65535},
        ],
        "gidMappings": [{"containerID": 0, "hostID": 0, "size": 4294967295}],
        "timeOffsets": {"boottime": {"secs": -5, "nanosecs": 9}, "monotonic": {"secs": 1}},
        "devices": [
            {
                "path": "/dev/fuse",
                "type": "c",
                "major": 10,
                "minor": 229,
                "fileMode": 438,
                "uid": 0,
                "gid": 0,
            },
            {"path": "/dev/fifo", "type": "p"},
        ],
        "netDevices": {"eth0": {"name": "inner%d"}, "eth1": {}},
        "cgroupsPath": "system.slice:docker:abc",
        "rootfsPropagation": "slave",
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "system_u:object_r:svirt_sandbox_file_t:s0",
        "personality": {"domain": "LINUX32", "flags": []},
        "memoryPolicy": {
            "mode": "MPOL_BIND",
            "nodes": "0-1, 3",
            "flags": ["MPOL_F_STATIC_NODES"],
        },
        "intelRdt": {
            "closID": "group",
            "schemata": ["L2:0=f"],
            "l3CacheSchema": "L3:0=7f0",
            "memBwSchema": "MB:0=20",
            "enableMonitoring": True,
        },
        "sysctl": {
            "net.ipv4.conf.eth0/1.forwarding": "1",
            "net/ipv4/ip_forward": "1",
            "kernel.shmmax": "1",
            "fs.mqueue.msg_max": "9",
            "kernel.domainname": "x",
        },
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/agent.sock",
            "listenerMetadata": "opaque",
            "architectures": ["SCMP_ARCH_X86_64"],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {
                    "names": ["mknod"],
                    "action": "SCMP_ACT_NOTIFY",
                    "args": [
                        {"index": 1, "value": 1, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ"},
                    ],
                },
                {"names": ["ptrace"], "action": "SCMP_ACT_TRACE", "errnoRet": 65535},
            ],
        },
        "resources": {
            "unified": {"memory.high": "1000", "hugetlb.1GB.max": "0"},
            "devices": [
                {"allow": False, "access": "rwm"},
                {"allow": True, "type": "c", "major": 10, "minor": -1, "access": "rw"},
            ],
            "pids": {"limit": 0},
            "blockIO": {
                "weight": 10,
                "leafWeight": 0,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleReadIOPSDevice": [{"major": 8, "minor": 0, "rate": 0}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 300}],
            },
            "cpu": {
                "shares": 1024,
                "quota": 1000000,
                "burst": 1000000,
                "period": 500000,
                "realtimeRuntime": 950000,
                "realtimePeriod": 1000000,
                "cpus": "2-3",
                "mems": "0-7",
                "idle": 0,
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 209715200}],
            "memory": {
                "limit": 1000,
                "reservation": 500,
                "swap": 1000,
                "kernel": -1,
                "kernelTCP": -1,
                "swappiness": 0,
                "disableOOMKiller": False,
                "useHierarchy": False,
                "checkBeforeUpdate": True,
            },
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}},
        },
    },
}
DELETED = object()


def full():
    return copy.deepcopy(FULL)


def steps(path):
    """Split linux.devices[0].type, where a key with dots stands in quotes."""
    keys = []
    while path:
        if path[0] == "[":
            inner, _, path = path[1:].partition("]")
            keys.append(inner[1:-1] if inner[0] == '"' else int(inner))
        else:
            path = path.lstrip(".")
            end = min([len(path), *(path.find(c) for c in ".[" if c in path)])
            keys.append(path[:end])
            path = path[end:]
    return keys


def changed(*pairs):
    """Return FULL with a value put at each of the given paths, or taken away."""
    config = full()
    for path, value in pairs:
        *way, last = steps(path)
        place = config
        for key in way:
            place = place[key]
        if value is DELETED:
            del place[last]
        else:
            place[last] = value
    return config


def refusal(config):
    """Return the text of the Error that a configuration meets, "" if it passes."""
    try:
        whole.check(config)
    except errors.Error as error:
        assert "\n" not in error.text
        assert error.text[:1].islower() or error.text.startswith("config.json")
        return error.text
    return ""


def places(value, way=()):
    """Yield the way to every value inside of a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*way, key)
        if isinstance(item, (dict, list)):
            yield from places(item, (*way, key))


def put(config, way, value):
    for key in way[:-1]:
        config = config[key]
    config[way[-1]] = value


def test_a_configuration_with_every_property_passes_and_stays_as_it_is():
    config = full()
    whole.check(config)
    assert config == FULL
    assert whole.warnings(config) == []


def test_the_full_configuration_holds_every_property_of_the_tables():
    def missing(kind, values, path):
        check, argument = kind
        if check is kinds.record:
            for key, inner in argument[0].items():
                inside = [each[key] for each in values if key in each]
                if not inside:
                    yield f"{path}.{key}"
                yield from missing(inner, inside, f"{path}.{key}")
        elif check is kinds.array:
            yield from missing(argument, [item for each in values for item in each], path + "[]")
        elif check is kinds.mapping:
            inside = [item for each in values for item in each.values()]
            yield from missing(argument[1], inside, path + "{}")

    left_out = set(missing((kinds.record, whole.CONFIG), [FULL], ""))
    assert left_out == {".process.commandLine", ".process.user.username"}


GOOD = {
    "nothing but what is required": {"ociVersion": "1.0.0", "root": {"path": "r"}},
    "an unknown property": changed(("surprise", [None, {"a": None}]), ("linux.surprise", 1)),
    "properties of another platform": changed(("windows", 7), ("vm", {"kernel": None})),
    "a later minor version": changed(("ociVersion", "1.99.0")),
    "a pre-release": changed(("ociVersion", "1.0.2-dev")),
    "a pre-release with build data": changed(("ociVersion", "1.0.0-rc.1+build-7.01")),
    "a relative mount destination": changed(("mounts[0].destination", "tmp")),
    "the largest user id": changed(("process.user.uid", 4294967294)),
    "null for an optional property": changed(("hostname", None), ("linux.sysctl", None)),
    "maps without a user namespace, as with runc": changed(
        ("linux.namespaces", [{"type": "mount"}]),
        ("hostname", ""),
        ("domainname", DELETED),
        ("linux.sysctl", {}),
        ("linux.timeOffsets", {}),
        ("linux.netDevices", {}),
    ),
    "an empty host name without a uts namespace": changed(
        ("linux.namespaces", [{"type": "mount"}]),
        ("linux.uidMappings", []),
        ("linux.gidMappings", DELETED),
        ("hostname", ""),
        ("domainname", DELETED),
        ("linux.sysctl", {}),
        ("linux.timeOffsets", {}),
        ("linux.netDevices", {}),
    ),
    "a namespace path that is empty": changed(("linux.namespaces[0].path", "")),
    "a joined user namespace without maps": changed(
        ("linux.namespaces[5].path", "/proc/1/ns/user"),
        ("linux.uidMappings", DELETED),
        ("linux.gidMappings", DELETED),
    ),
    "numbers given with a fifo": changed(("linux.devices[1].major", -7)),
    "a file mode with type bits, as Podman wrote it": changed(("linux.devices[0].fileMode", 8630)),
    "Docker's recursive propagation": changed(("linux.rootfsPropagation", "rshared")),
    "a console size that is ignored": changed(
        ("process.terminal", False), ("process.consoleSize.width", 70000)
    ),
    "a console size that is none, and ignored": changed(
        ("process.terminal", DELETED), ("process.consoleSize", ["wide"])
    ),
    "adjacent id ranges": changed(
        ("linux.uidMappings[1].hostID", 1001), ("linux.uidMappings[1].size", 10)
    ),
    "an empty program name, execve says what is wrong": changed(("process.args", [""])),
    "CPU lists with spaces and gaps": changed(("process.execCPUAffinity.final", " 0-3,, 7,")),
    "system call names that nobody knows": changed(
        ("linux.seccomp.syscalls[0].names", ["read", "brand_new"])
    ),
    "real-time priority": changed(("process.scheduler", {"policy": "SCHED_RR", "priority": 99})),
    "nice with SCHED_BATCH": changed(("process.scheduler", {"policy": "SCHED_BATCH", "nice": 19})),
    "a device rule with an empty type and access": changed(
        ("linux.resources.devices[0]", {"allow": True, "type": "", "access": ""})
    ),
    "the root of resctrl": changed(("linux.intelRdt.closID", "/")),
    "preferred memory without nodes": changed(
        ("linux.memoryPolicy", {"mode": "MPOL_PREFERRED", "nodes": ""})
    ),
    "text outside of ASCII": changed(("process.args", ["é", "\U0001f600"])),
}


@pytest.mark.parametrize("name", GOOD)
def test_passes(name):
    config = copy.deepcopy(GOOD[name])
    whole.check(config)
    again = copy.deepcopy(config)
    whole.check(again)
    assert again == config, "a second check changes nothing"
    whole.warnings(config)


NO_SANDBOX = [
    ("linux.namespaces", [{"type": "mount"}]),
    ("linux.uidMappings", DELETED),
    ("linux.gidMappings", DELETED),
    ("linux.sysctl", DELETED),
    ("linux.timeOffsets", DELETED),
    ("linux.netDevices", DELETED),
    ("hostname", DELETED),
    ("domainname", DELETED),
]

# Each row: what is changed, and the whole complaint.
BAD = [
    # the top level
    ([("ociVersion", DELETED)], "ociVersion: is missing, must be a string"),
    ([("ociVersion", None)], "ociVersion: is missing, must be a string"),
    ([("ociVersion", "")], 'ociVersion: must be a version like "1.3.0", got ""'),
    ([("ociVersion", "1.0.0.0")], 'ociVersion: must be a version like "1.3.0", got "1.0.0.0"'),
    ([("ociVersion", "vv1.0.0")], 'ociVersion: must be a version like "1.3.0", got "vv1.0.0"'),
    ([("ociVersion", "1.01.0")], 'ociVersion: must be a version like "1.3.0", got "1.01.0"'),
    ([("ociVersion", "1.0.0-01")], 'ociVersion: must be a version like "1.3.0", got "1.0.0-01"'),
    ([("ociVersion", "1.0.0+")], 'ociVersion: must be a version like "1.3.0", got "1.0.0+"'),
    ([("ociVersion", "invalid")], 'ociVersion: must be a version like "1.3.0", got "invalid"'),
    ([("ociVersion", "１.0.0")], 'ociVersion: must be a version like "1.3.0", got "１.0.0"'),
    ([("ociVersion", "99.0.0")], 'ociVersion: must be a version 1.x, got "99.0.0"'),
    ([("ociVersion", "0.5.0-dev")], 'ociVersion: must be a version 1.x, got "0.5.0-dev"'),
    ([("root", DELETED)], "root: is missing, must be an object"),
    ([("root.path", DELETED)], "root.path: is missing, must be a string"),
    ([("root.path", "")], "root.path: must not be empty"),
    ([("root.path", "a\0b")], "root.path: must not contain a NUL character"),
    ([("root.readonly", 1)], "root.readonly: must be true or false, got a number"),
    ([("hostname", "a\0b")], "hostname: must not contain a NUL character"),
    ([("hostname", "é" * 33)], "hostname: must be at most 64 bytes long, got 66"),
    ([*NO_SANDBOX, ("hostname", "x")], "hostname: must not be set without a uts namespace"),
    ([*NO_SANDBOX, ("domainname", "x")], "domainname: must not be set without a uts namespace"),
    ([("annotations.a", 1)], "annotations.a: must be a string, got a number"),
    ([('annotations["a.b/c"]', None)], 'annotations["a.b/c"]: must be a string, got null'),
    ([('annotations[""]', "x")],
     'annotations[""]: a key must not be empty or contain a NUL character'),
    # mounts
    ([("mounts", {})], "mounts: must be an array, got an object"),
    ([("mounts[0]", None)], "mounts[0]: must be an object, got null"),
    ([("mounts[0].destination", DELETED)], "mounts[0].destination: is missing, must be a string"),
    ([("mounts[0].destination", "/a/..")],
     'mounts[0].destination: must be below the root of the container, got "/a/.."'),
    ([("mounts[0].destination", "/tmp\0/../x")],
     "mounts[0].destination: must not contain a NUL character"),
    ([("mounts[1].options[0]", 7)], "mounts[1].options[0]: must be a string, got a number"),
    ([("mounts[1].options[2]", "a\0")],
     "mounts[1].options[2]: must not contain a NUL character"),
    ([("mounts[1].gidMappings", DELETED)],
     "mounts[1].gidMappings: is missing, must be set along with uidMappings"),
    ([("mounts[1].uidMappings", [])],
     "mounts[1].uidMappings: is missing, must be set along with gidMappings"),
    ([("mounts[1].uidMappings", DELETED), ("mounts[1].gidMappings", DELETED), *NO_SANDBOX],
     "mounts[1].options[2]: idmap must have uidMappings and gidMappings, or a user namespace"),
    ([("mounts[1].uidMappings", DELETED), ("mounts[1].gidMappings", DELETED),
      ("mounts[1].options[2]", "idmap="), *NO_SANDBOX],
     "mounts[1].options[2]: idmap= must have uidMappings and gidMappings, or a user namespace"),
    # process
    ([("process.args", DELETED)], "process.args: is missing, must be an array of strings"),
    ([("process.args", None)], "process.args: is missing, must be an array of strings"),
    ([("process.args", [])],
     "process.args: must not be empty: the first entry is the program to run"),
    ([("process.args", [None])], "process.args[0]: must be a string, got null"),
    ([("process.args", [1])], "process.args[0]: must be a string, got a number"),
    ([("process.args[1]", "\0")], "process.args[1]: must not contain a NUL character"),
    ([("process.cwd", DELETED)], "process.cwd: is missing, must be an absolute path"),
    ([("process.cwd", "tmp")], 'process.cwd: must be an absolute path, got "tmp"'),
    ([("process.cwd", "")], 'process.cwd: must be an absolute path, got ""'),
    ([("process.env[1]", "PATH")], "process.env[1]: must be NAME=value, with a name before the ="),
    ([("process.env[0]", "=x")], "process.env[0]: must be NAME=value, with a name before the ="),
    ([("process.terminal", "true")], "process.terminal: must be true or false, got a string"),
    ([("process.consoleSize.height", "x")],
     "process.consoleSize.height: must be an integer, got a string"),
    ([("process.consoleSize.width", 70000)],
     "process.consoleSize.width: must be between 0 and 65535, got 70000"),
    ([("process.consoleSize.height", DELETED)],
     "process.consoleSize.height: is missing, must be an integer"),
    *([([(f"process.user.{key}", value)], f"process.user.{key}: {text}")]
      [0] for key in ("uid", "gid") for value, text in (
        (4294967295, "must be between 0 and 4294967294, got 4294967295"),
        (4294967296, "must be between 0 and 4294967294, got 4294967296"),
        (-1, "must be between 0 and 4294967294, got -1"),
        (1.0, "must be an integer, got 1.0"),
        ("0", "must be an integer, got a string"),
        (True, "must be an integer, got a boolean"),
        (None, "must be an integer, got null"),
    )),
    ([("process.user.umask", -1)], "process.user.umask: must be between 0 and 4294967295, got -1"),
    ([("process.user.additionalGids", list(range(65537)))],
     "process.user.additionalGids: must not have more than 65536 entries, got 65537"),
    ([("process.user.additionalGids[1]", 1 << 32)],
     "process.user.additionalGids[1]: must be between 0 and 4294967294, got 4294967296"),
    ([("process.capabilities.bounding[0]", "CAP_TEST")],
     'process.capabilities.bounding[0]: must be a capability that the kernel knows, got "CAP_TEST"'),
    ([("process.capabilities.ambient[0]", "chown")],
     "process.capabilities.ambient[0]: must be a capability that the kernel knows, "
     'got "chown" (did you mean CAP_CHOWN?)'),
    ([("process.capabilities.effective[0]", [])],
     "process.capabilities.effective[0]: must be a string, got an array"),
    ([("process.oomScoreAdj", 1001)],
     "process.oomScoreAdj: must be between -1000 and 1000, got 1001"),
    ([("process.rlimits[0].type", "RLIMIT_TEST")],
     'process.rlimits[0].type: must be a limit of getrlimit(2), got "RLIMIT_TEST"'),
    ([("process.rlimits[0].type", "nofile")],
     'process.rlimits[0].type: must be a limit of getrlimit(2), got "nofile" '
     "(did you mean RLIMIT_NOFILE?)"),
    ([("process.rlimits[0].hard", 1 << 64)],
     "process.rlimits[0].hard: must be between 0 and 18446744073709551615, "
     "got 18446744073709551616"),
    ([("process.rlimits[0].hard", 1023)],
     "process.rlimits[0].soft: must not be above the hard limit 1023, got 1024"),
    ([("process.rlimits[1].type", "RLIMIT_NOFILE")],
     "process.rlimits[1].type: must be unique, RLIMIT_NOFILE is there twice"),
    ([("process.scheduler.policy", "SCHED_X")],
     "process.scheduler.policy: must be a scheduling policy (SCHED_BATCH, SCHED_DEADLINE, "
     'SCHED_FIFO, SCHED_IDLE, SCHED_ISO, SCHED_OTHER, SCHED_RR), got "SCHED_X"'),
    ([("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20})],
     "process.scheduler.nice: must be between -20 and 19, got 20"),
    ([("process.scheduler", {"policy": "SCHED_FIFO"})],
     "process.scheduler.priority: must be between 1 and 99 with SCHED_FIFO, got 0"),
    ([("process.scheduler", {"policy": "SCHED_OTHER", "priority": 1})],
     "process.scheduler.priority: is only for SCHED_FIFO and SCHED_RR, policy is SCHED_OTHER"),
    ([("process.scheduler.policy", "SCHED_IDLE")],
     "process.scheduler.runtime: is only for SCHED_DEADLINE, policy is SCHED_IDLE"),
    ([("process.scheduler.runtime", 5000)],
     "process.scheduler.deadline: must not be below runtime 5000, got 3000"),
    ([("process.scheduler.runtime", DELETED)],
     "process.scheduler.runtime: must be at least 1024 ns with SCHED_DEADLINE, got 0"),
    ([("process.scheduler.period", 2999)],
     "process.scheduler.period: must not be below deadline 3000, got 2999"),
    ([("process.ioPriority.class", "BE")],
     "process.ioPriority.class: must be an I/O scheduling class (IOPRIO_CLASS_BE, "
     'IOPRIO_CLASS_IDLE, IOPRIO_CLASS_RT), got "BE" (did you mean IOPRIO_CLASS_BE?)'),
    ([("process.ioPriority.class", DELETED)],
     "process.ioPriority.class: is missing, must be an I/O scheduling class (IOPRIO_CLASS_BE, "
     "IOPRIO_CLASS_IDLE, IOPRIO_CLASS_RT)"),
    ([("process.ioPriority.priority", 8)],
     "process.ioPriority.priority: must be between 0 and 7, got 8"),
    ([("process.execCPUAffinity.initial", "0-")],
     'process.execCPUAffinity.initial: must be a list of numbers and ranges like "0-3,7", '
     'got "0-"'),
    ([("process.execCPUAffinity.final", "3-1")],
     'process.execCPUAffinity.final: has a range that runs backwards: "3-1"'),
    ([("process.execCPUAffinity.final", "0-99999999999")],
     'process.execCPUAffinity.final: must not name a number above 65535, got "0-99999999999"'),
    ([("process.selinuxLabel", "a\0")],
     "process.selinuxLabel: must not contain a NUL character"),
    # hooks
    ([("hooks.poststop[0].path", "hook")],
     'hooks.poststop[0].path: must be an absolute path, got "hook"'),
    ([("hooks.prestart[0].timeout", 0)],
     "hooks.prestart[0].timeout: must be between 1 and 9223372036854775807, got 0"),
    ([("hooks.createRuntime[0].env[0]", {})],
     "hooks.createRuntime[0].env[0]: must be a string, got an object"),
    # namespaces and what needs one
    ([("linux.namespaces[0].type", "mnt")],
     "linux.namespaces[0].type: must be a namespace type (cgroup, ipc, mount, network, pid, "
     'time, user, uts), got "mnt"'),
    ([("linux.namespaces[0].type", "pid")],
     "linux.namespaces[1].type: must be unique, pid is there twice"),
    ([("linux.namespaces[1].path", "proc/1/ns/pid")],
     'linux.namespaces[1].path: must be an absolute path, got "proc/1/ns/pid"'),
    ([("linux.gidMappings", DELETED)],
     "linux.gidMappings: is missing, must be set for a new user namespace"),
    ([("linux.uidMappings", [])],
     "linux.uidMappings: is missing, must be set for a new user namespace"),
    ([("linux.uidMappings[0].size", 0)],
     "linux.uidMappings[0].size: must be between 1 and 4294967295, got 0"),
    ([("linux.uidMappings[0].size", 2)],
     "linux.uidMappings[1].containerID: must not overlap another range, got 1"),
    ([("linux.uidMappings[1].hostID", 1000)],
     "linux.uidMappings[1].hostID: must not overlap another range, got 1000"),
    ([("linux.gidMappings[0].hostID", 1)],
     "linux.gidMappings[0].size: reaches above 4294967294 from hostID 1, got 4294967295"),
    ([("linux.uidMappings[0].hostID", DELETED)],
     "linux.uidMappings[0].hostID: is missing, must be an integer"),
    ([("linux.gidMappings", [{"containerID": n, "hostID": n, "size": 1} for n in range(341)])],
     "linux.gidMappings: must not have more than 340 entries, got 341"),
    ([("linux.namespaces[7].path", "/proc/1/ns/time")],
     "linux.timeOffsets: must not be set without a new time namespace"),
    ([("linux.timeOffsets.realtime", {"secs": 1})],
     "linux.timeOffsets.realtime: must be boottime or monotonic, the clocks of "
     "time_namespaces(7)"),
    ([("linux.timeOffsets.boottime.nanosecs", 1000000000)],
     "linux.timeOffsets.boottime.nanosecs: must be between 0 and 999999999, got 1000000000"),
    ([*NO_SANDBOX, ("linux.netDevices", {"eth0": {}})],
     "linux.netDevices: must not be set without a network namespace"),
    ([("linux.netDevices.eth1.name", "a/b")],
     'linux.netDevices.eth1.name: must be an interface name without slash, colon or space, '
     'got "a/b"'),
    ([("linux.netDevices.eth1.name", "x" * 16)],
     "linux.netDevices.eth1.name: must be an interface name of 1 to 15 bytes, "
     'got "xxxxxxxxxxxxxxxx"'),
    ([("linux.netDevices.eth1.name", "a%s")],
     'linux.netDevices.eth1.name: must have no % but one %d, got "a%s"'),
    ([("linux.netDevices.eth0.name", "eth1")],
     'linux.netDevices.eth1: must be unique, "eth1" is there twice'),
    ([('linux.netDevices[".."]', {})],
     'linux.netDevices[".."]: must be an interface name without slash, colon or space, got ".."'),
    ([*NO_SANDBOX, ("linux.namespaces", [])],
     "linux.maskedPaths: must not be set without a mount namespace: the host would be changed"),
    ([("linux.sysctl", {"vm.overcommit_ratio": "1"})],
     'linux.sysctl["vm.overcommit_ratio"]: is not in a separate kernel namespace, '
     "it would change the host"),
    ([("linux.sysctl", {"kernel/hostname": "x"})],
     'linux.sysctl["kernel/hostname"]: must not be set here, hostname is the property for it'),
    ([*NO_SANDBOX, ("linux.sysctl", {"net.core.somaxconn": "1"})],
     'linux.sysctl["net.core.somaxconn"]: must not be set without a namespace of type network'),
    ([*NO_SANDBOX, ("linux.sysctl", {"kernel.sem": "1"})],
     'linux.sysctl["kernel.sem"]: must not be set without a namespace of type ipc'),
    *[([("linux.sysctl", {name: "1"})],
       f'linux.sysctl["{name}"]: must be the name of a kernel parameter, '
       "like net.ipv4.ip_forward")
      for name in ("net./../vm/overcommit_ratio", "net/../vm/x", "net..x", "/net/x", "net/")],
    ([('linux.sysctl["net.x"]', 1)], 'linux.sysctl["net.x"]: must be a string, got a number'),
    # the rest of linux
    ([("linux.devices[0].type", "x")],
     'linux.devices[0].type: must be a device type (b, c, p, u), got "x"'),
    ([("linux.devices[0].path", "dev/fuse")],
     'linux.devices[0].path: must be an absolute path, got "dev/fuse"'),
    ([("linux.devices[0].major", DELETED)],
     "linux.devices[0].major: is missing, must be an integer for type c"),
    ([("linux.devices[0].minor", 1 << 20)],
     "linux.devices[0].minor: must be between 0 and 1048575, got 1048576"),
    ([("linux.devices[0].uid", (1 << 32) - 1)],
     "linux.devices[0].uid: must be between 0 and 4294967294, got 4294967295"),
    ([("hooks.poststop[0].args", [""])],
     "hooks.poststop[0].args[0]: must not be empty, it is the name of the program"),
    *[([("hooks.poststop[0].env", ["A=b", entry])],
       "hooks.poststop[0].env[1]: must have a name before the =")
      for entry in ("", "=x")],
    *[([("linux.cgroupsPath", path)],
       f'linux.cgroupsPath: must not have ".." in it, got "{path}"')
      for path in ("../../x", "/a/../b", "/../../tmp/h/cg", "..")],
    *[([("linux.cgroupsPath", path)],
       "linux.cgroupsPath: must not have a name of more than 255 bytes, nor more than "
       "3000 characters") for path in ("/a/" + 256 * "x", "/" + 128 * "\xfc", 1501 * "/a")],
    ([("linux.rootfsPropagation", "open")],
     "linux.rootfsPropagation: must be a mount propagation "
     '(private, rprivate, rshared, rslave, runbindable, shared, slave, unbindable), got "open"'),
    ([("linux.maskedPaths[0]", "proc/kcore")],
     'linux.maskedPaths[0]: must be an absolute path, got "proc/kcore"'),
    ([("linux.readonlyPaths[0]", "/proc\0")],
     "linux.readonlyPaths[0]: must not contain a NUL character"),
    ([("linux.personality.domain", "LINUX64")],
     'linux.personality.domain: must be a domain (LINUX, LINUX32), got "LINUX64"'),
    ([("linux.memoryPolicy.mode", DELETED)],
     "linux.memoryPolicy.mode: invalid memory policy mode: is missing, must be a mode (MPOL_BIND, MPOL_DEFAULT, "
     "MPOL_INTERLEAVE, MPOL_LOCAL, MPOL_PREFERRED, MPOL_PREFERRED_MANY, "
     "MPOL_WEIGHTED_INTERLEAVE)"),
    ([("linux.memoryPolicy.mode", "MPOL_DEFAULT")],
     "linux.memoryPolicy.nodes: invalid memory policy node: must be empty with MPOL_DEFAULT: "
     "the mode requires 0 nodes but got 3"),
    ([("linux.memoryPolicy.nodes", "")],
     "linux.memoryPolicy.nodes: invalid memory policy node: must name at least one node with MPOL_BIND"),
    ([("linux.memoryPolicy.nodes", "0-65536")],
     'linux.memoryPolicy.nodes: invalid memory policy node: must not name a number above 65535, got "0-65536"'),
    ([("linux.memoryPolicy.flags", ["MPOL_F_STATIC_NODES", "MPOL_F_RELATIVE_NODES"])],
     "linux.memoryPolicy.flags: invalid memory policy flag: must not have both MPOL_F_STATIC_NODES and "
     "MPOL_F_RELATIVE_NODES"),
    ([("linux.intelRdt.closID", "../x")],
     'linux.intelRdt.closID: must be the name of a directory, or "/", got "../x"'),
    ([("linux.intelRdt.memBwSchema", "L3:0=1")],
     'linux.intelRdt.memBwSchema: must begin with "MB:", got "L3:0=1"'),
    ([("linux.intelRdt.schemata[0]", "MB:0=1\nL3:0=1")],
     "linux.intelRdt.schemata[0]: must not have a newline in it"),
    # seccomp
    ([("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY")],
     "linux.seccomp.defaultAction: must not be SCMP_ACT_NOTIFY: the runtime would wait for "
     "itself"),
    ([("linux.seccomp.defaultAction", "ALLOW")],
     "linux.seccomp.defaultAction: must be an action (SCMP_ACT_ALLOW, SCMP_ACT_ERRNO, "
     "SCMP_ACT_KILL, SCMP_ACT_KILL_PROCESS, SCMP_ACT_KILL_THREAD, SCMP_ACT_LOG, "
     'SCMP_ACT_NOTIFY, SCMP_ACT_TRACE, SCMP_ACT_TRAP), got "ALLOW" '
     "(did you mean SCMP_ACT_ALLOW?)"),
    ([("linux.seccomp.defaultErrnoRet", 4096)],
     "linux.seccomp.defaultErrnoRet: must be between 0 and 4095 with SCMP_ACT_ERRNO, got 4096"),
    ([("linux.seccomp.syscalls[0].errnoRet", 1)],
     "linux.seccomp.syscalls[0].errnoRet: is only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE, "
     "action is SCMP_ACT_ALLOW"),
    ([("linux.seccomp.syscalls[0].names", [])],
     "linux.seccomp.syscalls[0].names: must not be empty: it says which system calls are meant"),
    ([("linux.seccomp.syscalls[1].names[0]", "write")],
     "linux.seccomp.syscalls[1].action: SCMP_ACT_NOTIFY cannot be used for the write syscall"),
    ([("linux.seccomp.listenerPath", DELETED)],
     "linux.seccomp.listenerMetadata: must not be set without listenerPath"),
    ([("linux.seccomp.listenerPath", ""), ("linux.seccomp.listenerMetadata", "")],
     "linux.seccomp.listenerPath: is missing, must be a socket: a rule has SCMP_ACT_NOTIFY"),
    ([("linux.seccomp.listenerPath", "/" + "x" * 107)],
     "linux.seccomp.listenerPath: must be at most 107 bytes long, as unix(7) has it, "
     f'got "/{"x" * 79}..."'),
    ([("linux.seccomp.syscalls[1].args[0].index", 6)],
     "linux.seccomp.syscalls[1].args[0].index: must be between 0 and 5, got 6"),
    ([("linux.seccomp.syscalls[1].args[0].op", "EQ")],
     "linux.seccomp.syscalls[1].args[0].op: must be an operator (SCMP_CMP_EQ, SCMP_CMP_GE, "
     "SCMP_CMP_GT, SCMP_CMP_LE, SCMP_CMP_LT, SCMP_CMP_MASKED_EQ, SCMP_CMP_NE), "
     'got "EQ" (did you mean SCMP_CMP_EQ?)'),
    ([("linux.seccomp.architectures[0]", "x86_64")],
     'linux.seccomp.architectures[0]: must be an architecture, got "x86_64" '
     "(did you mean SCMP_ARCH_X86_64?)"),
    ([("linux.seccomp.flags[0]", "TSYNC")],
     "linux.seccomp.flags[0]: must be a filter flag (SECCOMP_FILTER_FLAG_LOG, "
     "SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_FILTER_FLAG_TSYNC, "
     'SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), got "TSYNC" '
     "(did you mean SECCOMP_FILTER_FLAG_TSYNC?)"),
    # resources
    ([("linux.resources.memory.limit", "1g")],
     "linux.resources.memory.limit: must be an integer, got a string"),
    ([("linux.resources.memory.limit", -5)],
     "linux.resources.memory.limit: must be between -1 and 9223372036854775807, got -5"),
    ([("linux.resources.memory.swap", 999)],
     "linux.resources.memory.swap: is memory and swap together, so must not be below limit "
     "1000, got 999"),
    ([("linux.resources.memory.swappiness", 101)],
     "linux.resources.memory.swappiness: must be between 0 and 100, got 101"),
    ([("linux.resources.cpu.burst", 1000001)],
     "linux.resources.cpu.burst: must not be above quota 1000000, got 1000001"),
    ([("linux.resources.cpu.idle", 2)],
     "linux.resources.cpu.idle: must be between 0 and 1, got 2"),
    ([("linux.resources.cpu.cpus", "a")],
     'linux.resources.cpu.cpus: must be a list of numbers and ranges like "0-3,7", got "a"'),
    ([("linux.resources.cpu.cpus", "1,3-")],
     'linux.resources.cpu.cpus: must be a list of numbers and ranges like "0-3,7", got "3-"'),
    ([("linux.resources.cpu.mems", "0 9-007")],
     'linux.resources.cpu.mems: has a range that runs backwards: "9-007"'),
    ([("linux.resources.blockIO.weight", 5)],
     "linux.resources.blockIO.weight: must be between 10 and 1000, or 0 for not set, got 5"),
    ([("linux.resources.blockIO.weightDevice[0]", {"major": 8, "minor": 0})],
     "linux.resources.blockIO.weightDevice[0].weight: is missing, must be set if leafWeight "
     "is not"),
    ([("linux.resources.blockIO.throttleReadBpsDevice[0].rate", DELETED)],
     "linux.resources.blockIO.throttleReadBpsDevice[0].rate: is missing, must be an integer"),
    *[([("linux.resources.hugepageLimits[0].pageSize", size)],
       "linux.resources.hugepageLimits[0].pageSize: must be a size like "
       f'"64KB", "2MB" or "1GB", got "{size}"')
      for size in ("64kB", "02MB", "MB", "2MiB", "../2MB", "2TB", "")],
    *[([("linux.resources.unified", {key: "1"})],
       f'linux.resources.unified["{key}"]: must be the name of a cgroup file like '
       "memory.max: letters, digits, _ and .")
      for key in ("../../x", "..", ".x", "memory/max", "memory.max ", "x.")],
    ([("linux.resources.unified.memory", "1")],
     "linux.resources.unified.memory: must be the name of a cgroup file like memory.max: "
     "letters, digits, _ and ."),
    ([("linux.resources.devices[0].allow", DELETED)],
     "linux.resources.devices[0].allow: is missing, must be true or false"),
    ([("linux.resources.devices[0].access", "rwx")],
     'linux.resources.devices[0].access: must be made of r, w and m, got "rwx"'),
    ([("linux.resources.devices[1].type", "p")],
     'linux.resources.devices[1].type: must be a type of devices (a, b, c), got "p"'),
    ([("linux.resources.devices[1].minor", -2)],
     "linux.resources.devices[1].minor: must be between -1 and 4294967295, got -2"),
    ([("linux.resources.rdma.mlx5_1", {})],
     "linux.resources.rdma.mlx5_1.hcaHandles: is missing, must be set if hcaObjects is not"),
    ([("linux.resources.network.priorities[0].name", "a b")],
     "linux.resources.network.priorities[0].name: must be an interface name without slash, "
     'colon or space, got "a b"'),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), BAD, ids=[row[1][:60] for row in BAD])
def test_refuses(changes, text):
    assert refusal(changed(*changes)) == text


@pytest.mark.parametrize("value", [None, [], "x", 1, True])
def test_a_configuration_that_is_no_object_is_refused(value):
    assert refusal(value) == f"config.json: must be an object, got {kinds.name(value)}"


WRONG = [None, True, -1, 1.5, 1 << 70, "", "\0", "?", [], [None], {}, {"?": None}]
# Where a value that is right by itself makes another property wrong: the start of that other.
CONSEQUENCES = {
    ("linux", "namespaces"): ("linux.", "hostname", "domainname"),
    ("linux",): ("hostname", "domainname", "mounts"),
    ("linux", "seccomp", "listenerPath"): ("linux.seccomp.",),
}


def test_every_value_of_the_wrong_type_is_named_by_its_own_path():
    for way in places(FULL):
        path = words.join("", list(reversed(way)))
        for value in WRONG:
            config = full()
            put(config, way, copy.deepcopy(value))
            text = refusal(config)
            if not text:
                continue
            named = text.split(": ")[0]
            parent = words.join("", list(reversed(way[:-1])))
            allowed = [path, parent or "config.json"]
            for start, others in CONSEQUENCES.items():
                if way[: len(start)] == start:
                    allowed.extend(others)
            assert named.startswith(tuple(allowed)), (path, value, text)
            if value in ("\0", 1.5) or (value == [None] and not isinstance(value, bool)):
                assert named.startswith(path), (path, value, text)


def test_the_check_takes_out_null_and_fills_in_the_ids():
    config = {
        "ociVersion": "1.0.0",
        "root": {"path": "r", "readonly": None},
        "mounts": None,
        "process": {
            "cwd": "/",
            "args": ["x"],
            "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": None},
        },
        "linux": {"resources": {"memory": {"swappiness": (1 << 64) - 1, "limit": None}}},
        "unknown": None,
    }
    whole.check(config)
    assert config == {
        "ociVersion": "1.0.0",
        "root": {"path": "r"},
        "process": {
            "cwd": "/",
            "args": ["x"],
            "ioPriority": {"class": "IOPRIO_CLASS_RT", "priority": 0},
            "user": {"uid": 0, "gid": 0},
        },
        "linux": {"resources": {"memory": {}}},
        "unknown": None,
    }


def test_a_process_and_resources_are_checked_alone_with_the_path_that_is_given():
    process.check({"cwd": "/", "args": ["sh"]})
    resources.check({"pids": {"limit": 5}})
    with pytest.raises(errors.Error, match=r"^process\.cwd: is missing"):
        process.check({"args": ["sh"]})
    with pytest.raises(errors.Error, match=r"^p\.json\.env\[0\]: must be a string"):
        process.check({"cwd": "/", "args": ["sh"], "env": [1]}, "p.json")
    with pytest.raises(errors.Error, match=r"^linux\.resources\.pids\.limit: must be an integer"):
        resources.check({"pids": {"limit": "5"}})
    with pytest.raises(errors.Error, match=r"^resources: must be an object, got null"):
        resources.check(None, "resources")


WARNINGS = [
    ([("mounts[0].destination", "tmp")],
     'mounts[0].destination: "tmp" is relative, which is deprecated; taken from the root of the '
     "container"),
    ([("mounts[0].type", "bind")],
     "mounts[0]: type bind without the option bind or rbind, taken as a bind"),
    ([("mounts[1].options[2]", "ro")],
     "mounts[1].uidMappings: older runtimes need the option idmap or ridmap too"),
    ([("windows", 1)], "windows: is ignored on Linux"),
    ([("Process", {})], "Process: unknown property is ignored, did you mean process?"),
    ([("linux.resources.rdma.mlx5_1.x", 1)],
     "linux.resources.rdma.mlx5_1.x: unknown property is ignored"),
    ([("linux.devices[0].filemode", 1)],
     "linux.devices[0].filemode: unknown property is ignored, did you mean fileMode?"),
    ([("linux.intelRdt.enableCMT", True)], "linux.intelRdt.enableCMT: is ignored on Linux"),
    ([("linux.intelRdt.l3CacheSchema", "x")],
     'linux.intelRdt.l3CacheSchema: should begin with "L3:"'),
    ([("process.commandLine", "x")], "process.commandLine: is ignored on Linux"),
    ([("process.user.username", "x")], "process.user.username: is ignored on Linux"),
    ([("process.capabilities.effective", ["CAP_CHOWN"])],
     "process.capabilities.effective[0]: CAP_CHOWN cannot be granted, it must be in permitted "
     "too"),
    ([("process.capabilities.inheritable", [])],
     "process.capabilities.ambient[0]: can't raise ambient capability CAP_KILL: it must be in "
     "permitted and inheritable too"),
    ([("process.capabilities.bounding", []), ("process.capabilities.ambient", [])],
     "process.capabilities.inheritable[0]: CAP_KILL cannot be granted, it must be in bounding too"),
    ([("linux.personality.flags", ["x"])],
     "linux.personality.flags: are ignored, no flag is supported"),
    ([("linux.devices[0].fileMode", 1 << 26 | 438)],
     "linux.devices[0].fileMode: only the low 12 bits of 67109302 are used"),
    ([("linux.seccomp.syscalls[1].action", "SCMP_ACT_LOG")],
     "linux.seccomp.listenerPath: is ignored, no rule has SCMP_ACT_NOTIFY"),
    ([("linux.sysctl", {"kernel.domainname": "d" * 65})],
     'linux.sysctl["kernel.domainname"]: the kernel keeps 64 of its 65 bytes'),
    ([("linux.sysctl", {"kernel/domainname": "\u00e9" * 40})],
     'linux.sysctl["kernel/domainname"]: the kernel keeps 64 of its 80 bytes'),
    ([("linux.sysctl", {"kernel.domainname": "one\ntwo"})],
     'linux.sysctl["kernel.domainname"]: the kernel keeps 3 of its 7 bytes'),
    ([("linux.sysctl", {"kernel.domainname": "d" * 64 + "\n"})], None),
    ([("linux.namespaces[0]", {"type": "mount"})], None),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "text"), WARNINGS)
def test_warns_of(changes, text):
    config = changed(*changes)
    whole.check(config)
    assert whole.warnings(config) == ([text] if text else [])


def test_warns_where_the_mounts_would_be_the_hosts():
    config = {"ociVersion": "1.0.0", "root": {"path": "r"}}
    whole.check(config)
    assert whole.warnings(config) == [
        "linux.namespaces: no mount namespace, mounts are made in the host's"
    ]


# A JSON value; numbers include those that JSON can write and no field can hold.
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["/", "/x", "..", "a=b", "0-3", "\0", "1.0.0", "CAP_KILL", "net.x"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner),
    max_leaves=12,
)
WAYS = sorted(places(FULL), key=str)


@given(JSON)
def test_arbitrary_json_meets_an_error_and_nothing_else(value):
    refusal(value)


@given(st.lists(st.tuples(st.sampled_from(WAYS), JSON), min_size=1, max_size=4))
@settings(suppress_health_check=list(HealthCheck), deadline=None)
def test_arbitrary_values_anywhere_meet_an_error_and_nothing_else(changes):
    config = full()
    for way, value in changes:
        try:
            put(config, way, value)
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    before = copy.deepcopy(config)
    if refusal(config) == "":
        whole.warnings(config)
        after = copy.deepcopy(config)
        assert refusal(after) == ""
        assert after == config
        json.dumps(before)


@given(st.text(alphabet="netkrl./-0", max_size=12))
def test_a_sysctl_path_never_leaves_its_directory(name):
    try:
        path = linux.sysctl_path(name)
    except kinds.Mistake:
        return
    assert not set(path.split("/")) & {"", ".", ".."}
    assert len(path) == len(name)


@given(st.lists(st.integers(0, 99), max_size=6))
def test_ranges_give_back_the_numbers(numbers):
    text = ",".join(str(each) for each in numbers)
    assert [low for low, high in kinds.ranges(text, 99) if low == high] == numbers


@given(st.text(max_size=200))
def test_a_value_in_a_message_is_one_printable_line(value):
    shown = kinds.show(value)
    assert shown.isprintable()
    assert shown.isascii() or value


def test_the_order_of_the_names_is_the_order_of_the_kernel():
    assert process.NAMES[21] == "CAP_SYS_ADMIN"
    assert process.NAMES[40] == "CAP_CHECKPOINT_RESTORE"
    resource = pytest.importorskip("resource")
    for number, name in enumerate(process.RLIMITS):
        if hasattr(resource, name):
            assert getattr(resource, name) == number


def test_schema_py_has_the_properties_of_the_tables():
    package = pathlib.Path(whole.__file__).parents[2]
    schema = ast.parse((package / "model" / "schema.py").read_text())
    hooks = ast.walk(ast.parse((package / "base" / "hooks.py").read_text()))
    known = {}
    for node in [*schema.body, *(one for one in hooks if isinstance(one, ast.ClassDef))]:
        if isinstance(node, ast.ClassDef):
            fields = [each for each in node.body if isinstance(each, ast.AnnAssign)]
            known[node.name] = {each.target.id: ast.unparse(each.annotation) for each in fields}
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            pairs = node.value.args[1]
            known[node.targets[0].id] = {
                key.value: ast.unparse(value) for key, value in zip(pairs.keys, pairs.values)
            }

    def compare(kind, annotation):
        check, argument = kind
        if check is kinds.record:
            fields = known[annotation]
            assert set(fields) == set(argument[0]), annotation
            for key, inner in argument[0].items():
                compare(inner, fields[key])
        elif check is kinds.array:
            compare(argument, annotation[len("list[") : -1])
        elif check is kinds.mapping:
            compare(argument[1], annotation[len("dict[str, ") : -1])
        elif check in (kinds.integer, kinds.identity):
            assert annotation == "int"
        elif check is kinds.boolean:
            assert annotation == "bool"

    compare((kinds.record, whole.CONFIG), "Config")


def test_loads_what_was_written(tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps(FULL))
    assert jsonio.load(str(path)) == FULL


def test_refuses_to_read_anything_but_a_regular_file(tmp_path):
    with pytest.raises(errors.Error, match=r"^read .*/config\.json: no such file or directory$"):
        jsonio.load(str(tmp_path / "config.json"))
    with pytest.raises(errors.Error, match="not a regular file$"):
        jsonio.load(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(errors.Error, match="not a regular file$"):
        jsonio.load(str(tmp_path / "fifo"))
    with pytest.raises(errors.Error, match="not a regular file$"):
        jsonio.load("/dev/zero")


def test_refuses_a_file_that_is_too_large_or_not_an_object(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    path.write_text("[]")
    with pytest.raises(errors.Error, match="must hold a JSON object$"):
        jsonio.load(str(path))
    monkeypatch.setattr(jsonio, "MAX_SIZE", 20)
    path.write_text('{"ociVersion":"1.0.0"}')
    with pytest.raises(errors.Error, match="larger than"):
        jsonio.load(str(path))
    for text in ("", "{", '{"a":1,"a":2}', '{"a":NaN}', "{} {}", "\ufeff{}"):
        path.write_text(text)
        with pytest.raises(errors.Error) as caught:
            jsonio.load(str(path))
        assert caught.value.text.startswith(str(path))
