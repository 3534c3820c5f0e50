"""The same `docker run` under anocir and under runc: status, output and kind of error must agree."""

from __future__ import annotations

from typing import List, Tuple

import pytest

from tests.engines.docker import Sides
from tests.engines.looks import Case as Look
from tests.engines.looks import option_words, read, runs, script
from tests.engines.sides import MOUNT_OPTIONS, MOUNTS, normal, phrases

Case = Tuple[str, str, str, int, str]

CAPS = "grep -i cap /proc/self/status"
# Without the time: numbers and name of a device, size and name of anything else.
DEVICES = (
    "cd /dev; ls -ln | awk '/^[bc]/ {print $1,$3,$4,$5,$6,$10} /^[^bc]/ {print $1,$3,$4,$5,$9,$11}'"
)
# Only one of both files exists.
LIMIT = "cat /sys/fs/cgroup/{v2} /sys/fs/cgroup/{v1} 2>/dev/null; true"


def limit(v2: str, v1: str) -> str:
    """Give a shell command that reads a cgroup file of either version."""
    return LIMIT.format(v2=v2, v1=v1)


# name, options, shell command, status, text that stdout or stderr holds
SHELL_CASES: Tuple[Case, ...] = (
    ("echo", "", "echo hello", 0, "hello"),
    ("stderr", "", "echo oops >&2", 0, "oops"),
    ("status", "", "exit 3", 3, ""),
    ("environment", "-e A=1 -e B=", "env | sort | grep -v HOSTNAME", 0, "HOME=/root"),
    ("hostname", "--hostname web", "hostname", 0, "web"),
    (
        "domain name",
        "--domainname example.org",
        "cat /proc/sys/kernel/domainname",
        0,
        "example.org",
    ),
    ("descriptors", "", "ls /proc/self/fd | sort -n", 0, "0"),
    ("mounts", "", MOUNTS, 0, "/dev/mqueue rw"),
    ("mount options", "", MOUNT_OPTIONS, 0, "/dev rw,nosuid"),
    ("device nodes", "", DEVICES, 0, "crw-rw-rw-"),
    ("namespaces", "", "ls /proc/self/ns", 0, "cgroup"),
    ("umask", "", "umask", 0, "0022"),
    ("signals", "", "grep Sig /proc/self/status | grep -v SigQ", 0, "SigIgn:\t0000000000000000"),
    ("oom and affinity", "", "cat /proc/self/oom_score_adj; grep Cpus /proc/self/status", 0, "0\n"),
    ("working directory", "-w /new/place", "pwd; stat -c '%u %a' /new", 0, "/new/place"),
    (
        "masked and read-only paths",
        "",
        "wc -c < /proc/kcore; echo 1 > /proc/sys/vm/swappiness",
        1,
        "",
    ),
    ("read-only", "--read-only", "touch /x", 1, "Read-only file system"),
    ("read-only with tmpfs", "--read-only --tmpfs /t", "touch /t/x /dev/shm/x && ls /t", 0, "x"),
    (
        "tmpfs",
        "--tmpfs /t:rw,size=1m,mode=1750,uid=5,noexec",
        "grep ' /t ' /proc/mounts; stat -c '%a %u' /t",
        0,
        "noexec",
    ),
    ("user", "--user 1000:1001 --group-add 44", "id; cd; pwd; touch /root/x", 1, "uid=1000"),
    ("user by name", "--user anna", "id; echo $HOME", 0, "/home/anna"),
    ("user without a name", "--user 4242", "id; echo $HOME", 0, "uid=4242"),
    ("capabilities", "", CAPS, 0, "CapBnd:\t00000000a80425fb"),
    ("cap-drop", "--cap-drop ALL", CAPS, 0, "CapEff:\t0000000000000000"),
    (
        "cap-add",
        "--cap-drop ALL --cap-add NET_ADMIN --cap-add CHOWN",
        CAPS,
        0,
        "CapEff:\t0000000000001001",
    ),
    ("cap of a user", "--user 1000 --cap-add NET_ADMIN", CAPS, 0, "CapEff:\t0000000000000000"),
    (
        "no new privileges",
        "--security-opt no-new-privileges",
        "grep NoNew /proc/self/status",
        0,
        "1",
    ),
    ("seccomp", "", "grep Seccomp: /proc/self/status; unshare -U true", 1, "Seccomp:\t2"),
    ("seccomp off", "--security-opt seccomp=unconfined", "grep Seccomp: /proc/self/status", 0, "0"),
    (
        "device",
        "--device /dev/null:/dev/other:rw",
        "echo x > /dev/other; ls /dev/other",
        0,
        "/dev/other",
    ),
    (
        "device read only",
        "--device /dev/kmsg:/dev/other:r",
        "echo x > /dev/other",
        1,
        "not permitted",
    ),
    ("device refused", "--cap-add MKNOD", "mknod /x c 10 229 && cat /x", 1, "not permitted"),
    (
        "device cgroup rule",
        "--device-cgroup-rule 'c 1:11 r'",
        "mknod /x c 1 11 && echo q > /x",
        1,
        "",
    ),
    ("network none", "--network none", "ls /sys/class/net; cat /proc/net/dev | wc -l", 0, "lo"),
    ("network host", "--network host", "ip link | grep -c test0; hostname", 0, "box"),
    ("network bridge", "", "ip -o -4 addr | awk '{print $2}'; ip route | head -1", 0, "eth0"),
    ("loopback is up", "--network none", "ip link show lo", 0, "UP"),
    (
        "dns and hosts",
        "--add-host db:10.9.8.7 --dns 10.9.9.9",
        "grep -w db /etc/hosts; cat /etc/resolv.conf",
        0,
        "10.9.9.9",
    ),
    ("pid host", "--pid host", "cat /proc/1/cmdline | tr '\\0' ' '", 0, "catatonit"),
    ("ipc host", "--ipc host", "readlink /proc/self/ns/ipc", 0, "ipc:["),
    ("ipc none", "--ipc none", "ls /dev/shm", 1, ""),
    ("shm size", "--shm-size 2m", "df -k /dev/shm | awk 'NR==2 {print $2}'", 0, "2048"),
    ("uts host", "--uts host", "hostname", 0, "box"),
    (
        "ulimit",
        "--ulimit nofile=100:200 --ulimit core=0",
        "ulimit -n; ulimit -Hn; ulimit -c",
        0,
        "100\n200\n0",
    ),
    (
        "sysctl",
        "--sysctl net.ipv4.ip_unprivileged_port_start=7 --sysctl kernel.msgmax=9000",
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax",
        0,
        "7\n9000",
    ),
    ("memory", "--memory 64m", limit("memory.max", "memory/memory.limit_in_bytes"), 0, "67108864"),
    (
        "memory reservation",
        "--memory 64m --memory-reservation 32m",
        limit("memory.low", "memory/memory.soft_limit_in_bytes"),
        0,
        "33554432",
    ),
    ("cpus", "--cpus 0.5", limit("cpu.max", "cpu/cpu.cfs_quota_us"), 0, "50000"),
    ("cpu shares", "--cpu-shares 512", limit("cpu.weight", "cpu/cpu.shares"), 0, ""),
    ("cpuset", "--cpuset-cpus 0", "grep Cpus_allowed_list /proc/self/status", 0, "0"),
    ("pids limit", "--pids-limit 20", limit("pids.max", "pids/pids.max"), 0, "20"),
    (
        "fork bomb",
        "--pids-limit 10",
        "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done",
        2,
        "fork",
    ),
    ("oom score", "--oom-score-adj 321", "cat /proc/self/oom_score_adj", 0, "321"),
    (
        "init",
        "--init",
        "cat /proc/1/cmdline | tr '\\0' ' '; echo; cat /proc/1/comm",
        0,
        "docker-init",
    ),
    ("killed by a signal", "--init", "kill -9 $$", 137, ""),
    ("terminated by a signal", "--init", "kill $$", 143, ""),
    (
        "cgroup view",
        "",
        "cut -d: -f2 /proc/self/cgroup | sort; ls /sys/fs/cgroup | grep -v unified",
        0,
        "",
    ),
    (
        "private cgroup namespace",
        "--cgroupns private",
        "cut -d: -f3 /proc/self/cgroup | sort -u",
        0,
        "/",
    ),
    (
        "host cgroup namespace",
        "--cgroupns host",
        "cut -d: -f3 /proc/self/cgroup | sort -u",
        0,
        "/docker/",
    ),
    ("anonymous volume", "-v /data", "touch /data/x && ls /data", 0, "x"),
)


def split(options: str) -> List[str]:
    """Split an option string; only one case needs a quoted blank."""
    if "'" in options:
        head, quoted, _ = options.split("'")
        return [*head.split(), quoted]
    return options.split()


# Options that stand beside each other in one container, by the cases' names.
TOGETHER: Tuple[Tuple[str, ...], ...] = (
    (
        *("environment", "hostname", "domain name", "working directory", "tmpfs"),
        *("no new privileges", "device", "dns and hosts", "shm size", "ulimit", "sysctl", "memory"),
        *("memory reservation", "cpus", "cpu shares", "cpuset", "pids limit", "oom score"),
        "anonymous volume",
    ),
    ("read-only", "read-only with tmpfs"),
    ("pid host", "ipc host", "uts host", "host cgroup namespace"),
    ("network none", "loopback is up", "ipc none", "private cgroup namespace"),
    # Their container's own status is what is looked at.
    ("status",),
    ("killed by a signal",),
    ("terminated by a signal",),
)
RUNS = runs([(name, split(options), *rest) for name, options, *rest in SHELL_CASES], TOGETHER)


@pytest.mark.parametrize("cases", RUNS, ids=[", ".join(case[0] for case in one) for one in RUNS])
def test_docker_run_is_the_same(sides: Sides, cases: List[Look]) -> None:
    """A shell command in a container sees and does the same under both runtimes."""
    look_at(sides, cases)


def look_at(sides: Sides, cases: List[Look]) -> None:
    """Have these cases, whose options can stand together, in a container of either runtime."""
    words = option_words(cases)
    if len(cases) == 1:
        _, _, command, status, text = cases[0]
        result = sides.compare(words, ["sh", "-c", command])
        assert result.status == status, result
        assert text in result.out + result.err, result
        return
    command = script([case[2] for case in cases])
    ours, peer = (
        read(result.ok(), len(cases))
        for result in sides.gather(lambda side: side.run(words, ["sh", "-c", command]))
    )
    for case, mine, theirs in zip(cases, ours, peer):
        name, _, _, status, text = case
        both = f"{name}\nours: {mine}\npeer: {theirs}"
        assert mine.status == theirs.status == status, both
        assert normal(mine.out) == normal(theirs.out), both
        assert phrases(mine.err) == phrases(theirs.err), both
        assert text in mine.out + mine.err, both


# name, options, command, status, phrase
ERROR_CASES: Tuple[Tuple[str, str, str, int, str], ...] = (
    ("missing executable", "", "no-such-program", 127, "executable file not found in $PATH"),
    ("missing path", "", "/no/such/program", 127, "no such file or directory"),
    ("directory", "", "/etc", 126, ""),
    ("not executable", "", "/etc/not-a-program", 126, "permission denied"),
    ("below a file", "", "/etc/passwd/x", 125, "not a directory"),
    ("not executable for this user", "--user 1000", "/root/x", 127, "no such file or directory"),
    ("directory onto a file", "-v /run/tmp:/etc/passwd", "true", 125, "not a directory"),
    ("file onto a directory", "-v /etc/hostname:/etc", "true", 125, "not a directory"),
    ("mount on proc", "-v /run/tmp:/proc", "true", 125, ""),
    ("bad tmpfs option", "--tmpfs /t:nonsense=1", "true", 125, ""),
    ("sysctl of the host", "--sysctl kernel.pid_max=1000", "true", 125, ""),
    ("foreign sysctl namespace", "--network host --sysctl net.ipv4.ip_forward=1", "true", 125, ""),
    ("unknown user", "--user nobody-here", "true", 125, ""),
    ("missing device", "--device /dev/no-such-device", "true", 127, ""),
    ("working directory is a file", "-w /etc/passwd", "true", 125, ""),
    ("memory too small", "--memory 6m --memory-swap 5m", "true", 125, ""),
    ("cpu set of nothing", "--cpuset-cpus 77", "true", 125, ""),
)


@pytest.mark.parametrize(
    ("options", "command", "status", "text"),
    [pytest.param(*case[1:], id=case[0]) for case in ERROR_CASES],
)
def test_docker_run_fails_the_same_way(
    sides: Sides, options: str, command: str, status: int, text: str
) -> None:
    """A container that cannot start gives the same exit status and the same kind of text."""
    result = sides.compare(options.split(), [command])
    assert result.status == status, result
    assert text in result.err, result


PRIVILEGED = """
grep Cap /proc/self/status
echo 1 > /proc/sys/net/ipv4/ip_forward && ls -d /dev/kmsg && mount -t tmpfs x /mnt && echo mounted
grep Seccomp: /proc/self/status
awk '$5 ~ "^/(proc|sys)" {print $5, $6}' /proc/self/mountinfo | grep -v unified | sort
"""


def test_privileged_is_the_same(sides: Sides) -> None:
    """A privileged container may do the same under both runtimes."""
    result = sides.filtered().compare(["--privileged"], ["sh", "-c", PRIVILEGED])
    assert result.status == 0, result
    assert "mounted" in result.out


@pytest.mark.parametrize(
    ("program", "text"),
    [("no-format", "exec format error"), ("bad-interpreter", "no such file or directory")],
)
def test_a_failing_execve_is_reported_by_start(
    sides: Sides, beyond_runc: None, program: str, text: str
) -> None:
    """What only execve can find out is docker's error, not a line in the container's output.

    runc 1.1 reports success here and leaves the message to the container's stderr.
    """
    result = sides.ours.run([], [program])
    assert result.status in (125, 126, 127), result
    assert text in result.err
    assert "Error response from daemon" in result.err
