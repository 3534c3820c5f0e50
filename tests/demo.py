#!/usr/bin/python3
"""Make a bundle, run one container from it with dist/anocir, and remove it all.

The root file system is static busybox if the machine has it, else the machine's own shell and
tools with the libraries that ldd names.  The container prints what it sees.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

TOP = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
ARCHIVE = os.path.join(TOP, "dist", "anocir")
BUSYBOX = "/bin/busybox"
TOOLS = ("sh", "cat", "grep", "hostname", "id", "ps", "ls", "cut")

SCRIPT = """
echo "hello from $(hostname), process $$ of its own pid namespace, $(id)"
echo; echo "processes:"; ps $PS
echo; echo "mounts:"; cut -d' ' -f2,3,4 /proc/mounts
echo; echo "capabilities: $GRANTED"; grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status
echo; echo "limits:"; grep -E 'open files|processes' /proc/self/limits
for file in memory/memory.limit_in_bytes pids/pids.max memory.max pids.max; do
    [ -e /sys/fs/cgroup/$file ] && echo "cgroup $file: $(cat /sys/fs/cgroup/$file)"
done
echo; echo "interfaces: $(ls /sys/class/net 2>/dev/null)"
exit 7
"""


def main() -> int:
    """Run the demo; its own exit status says whether the container's was as expected."""
    if not root_is_a_mount_point():
        say(
            "this is a plain chroot: its / is no mount point, and the kernel moves no root away from"
        )
        say(
            "such a one (pivot_root(2)).  Go on by making it one, outside: mount --bind DIR DIR, then"
        )
        say("chroot DIR; or enter it by a tool that does: systemd-nspawn, schroot, unshare --root")
        return 1
    directory = tempfile.mkdtemp(prefix="anocir-demo-")
    try:
        return demo(directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def demo(directory: str) -> int:
    """Make bundle and container below `directory`."""
    rootfs = os.path.join(directory, "rootfs")
    static = os.access(BUSYBOX, os.X_OK) and not libraries(BUSYBOX)
    make_rootfs(rootfs, static)
    say(f"root file system: {'static busybox' if static else 'the shell of this machine'}")
    root = os.geteuid() == 0
    command = [ARCHIVE, "spec", "--bundle", directory, *([] if root else ["--rootless"])]
    say("$ " + " ".join(command))
    subprocess.run(command, check=True)
    options = [] if cgroups_writable() else ["--cgroup-manager", "disabled"]
    if options:
        say("the cgroups of this machine cannot be written, so the demo goes without")
    adapt(os.path.join(directory, "config.json"), static, limits=root and not options)
    command = [ARCHIVE, *options, "run", "--bundle", directory, f"demo-{os.getpid()}"]
    say("$ " + " ".join(command))
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    if status != 7:
        say(f"the container ended with exit status {status} in place of 7")
        return 1
    say("the container ended with exit status 7, as its script says")
    return 0


def root_is_a_mount_point() -> bool:
    """Tell whether / is one: the table of mounts, as it is seen from here, lists it then."""
    try:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return any(line.split()[4] == "/" for line in file)
    except FileNotFoundError:
        return True  # without /proc the runtime itself has something to say


def make_rootfs(rootfs: str, static: bool) -> None:
    """Fill a directory with a shell and a few tools."""
    for name in ("bin", "proc", "dev", "sys", "tmp", "etc"):
        os.makedirs(os.path.join(rootfs, name))
    with open(os.path.join(rootfs, "etc", "passwd"), "w", encoding="ascii") as file:
        file.write("root:x:0:0:root:/:/bin/sh\n")
    with open(os.path.join(rootfs, "demo.sh"), "w", encoding="ascii") as file:
        file.write(SCRIPT)
    if static:
        shutil.copy(BUSYBOX, os.path.join(rootfs, "bin", "busybox"))
        for name in TOOLS:
            os.symlink("busybox", os.path.join(rootfs, "bin", name))
        return
    for name in TOOLS:
        path = shutil.which(name)
        if path is None:
            continue
        for wanted, target in [(path, f"/bin/{name}"), *((lib, lib) for lib in libraries(path))]:
            copy = rootfs + target
            os.makedirs(os.path.dirname(copy), exist_ok=True)
            if not os.path.exists(copy):
                shutil.copy(os.path.realpath(wanted), copy)


def libraries(path: str) -> list[str]:
    """Return the libraries that a program needs, its loader among them."""
    result = subprocess.run(["ldd", path], check=False, capture_output=True, text=True)
    return re.findall(r"(/\S+) \(0x", result.stdout) if result.returncode == 0 else []


def cgroups_writable() -> bool:
    """Tell whether some cgroup hierarchy is mounted read-write."""
    with open("/proc/self/mounts", encoding="utf-8") as file:
        mounts = [line.split() for line in file]
    return any(
        kind.startswith("cgroup") and "rw" in options.split(",") and os.access(point, os.W_OK)
        for _, point, kind, options, *_ in mounts
    )


def adapt(path: str, static: bool, limits: bool) -> None:
    """Change the template: no terminal, the script, and limits to be seen."""
    with open(path, encoding="utf-8") as file:
        config = json.load(file)
    process = config["process"]
    process["terminal"] = False
    process["args"] = ["sh", "/demo.sh"]
    process["env"].append("PS=" if static else "PS=-ef")
    process["env"].append("GRANTED=" + " ".join(process["capabilities"]["effective"]))
    config["hostname"] = "demo"
    if limits:
        config["linux"]["resources"].update(memory={"limit": 64 << 20}, pids={"limit": 32})
    else:
        config["mounts"] = [m for m in config["mounts"] if m["type"] != "cgroup"]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(config, file)


def say(text: str) -> None:
    """Tell what happens, in order with what the container prints."""
    print(f"demo: {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
