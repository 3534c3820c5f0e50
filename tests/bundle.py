"""Bundles for the tests: a root file system of static busybox and a config.json to change.

Making one costs a few hard links and symbolic links, so every test has its own.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
from typing import Any

from tests import machine

PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
APPLETS = (
    "sh cat ls echo sleep true false id env pwd hostname mkdir rmdir touch rm ln chmod chown stat "
    "test head tail grep sed awk cut sort tr wc kill mount umount mknod dd df ps ip nice chrt "
    "ionice taskset readlink date printf seq find cp mv sync yes ulimit stty tty uname setsid "
    "usleep nproc chroot unshare cmp mkfifo realpath sysctl expr basename dirname xargs"
).split()
CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
Config = "dict[str, Any]"


def usual_mounts() -> list[dict[str, Any]]:
    """Return what every engine mounts: /proc, /dev and below it, /sys."""
    return [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {
            "destination": "/dev",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
        },
        {
            "destination": "/dev/pts",
            "type": "devpts",
            "source": "devpts",
            "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"],
        },
        {
            "destination": "/dev/shm",
            "type": "tmpfs",
            "source": "shm",
            "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
        },
        {
            "destination": "/dev/mqueue",
            "type": "mqueue",
            "source": "mqueue",
            "options": ["nosuid", "noexec", "nodev"],
        },
        {
            "destination": "/sys",
            "type": "sysfs",
            "source": "sysfs",
            "options": ["nosuid", "noexec", "nodev", "ro"],
        },
    ]


def static_busybox() -> str:
    """Find a busybox that needs no library: the only program in the bundles."""
    for name in ("busybox-static", "busybox"):
        path = shutil.which(name)
        if path:
            with open(path, "rb") as stream:
                # an ELF file with an interpreter names it near its start
                if b"/ld-" not in stream.read(4096):
                    return os.path.realpath(path)
    raise SystemExit("a static busybox is needed (Debian: busybox-static)")


def make_root(path: str, program: str) -> None:
    """Make a root file system: a busybox with its applets, and the directories that mounts go to."""
    make_directories(path)
    shutil.copy2(program, os.path.join(path, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(path, "bin", applet))


def make_directories(path: str) -> None:
    """Make what is in a root file system before any file."""
    for name in ("bin", "dev", "etc", "proc", "sys", "tmp", "root"):
        os.makedirs(os.path.join(path, name), 0o755)
    os.chmod(os.path.join(path, "tmp"), 0o1777)


def smallest_bundle(archive: str, path: str) -> None:
    """Make a bundle as a user does: two programs, and what `spec` writes."""
    binaries = os.path.join(path, "rootfs/bin")
    os.makedirs(binaries)
    for name in ("sleep", "true"):
        shutil.copy(static_busybox(), os.path.join(binaries, name))
    subprocess.run([archive, "spec", "--bundle", path], check=True)


def default_config(oci_version: str) -> dict[str, Any]:
    """Return a configuration like an engine's: all usual mounts and namespaces, fourteen capabilities."""
    return {
        "ociVersion": oci_version,
        "root": {"path": "rootfs"},
        "hostname": "box",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["/bin/true"],
            "env": [PATH],
            "cwd": "/",
            "capabilities": {
                "bounding": list(CAPABILITIES),
                "effective": list(CAPABILITIES),
                "permitted": list(CAPABILITIES),
            },
        },
        "mounts": usual_mounts(),
        "linux": {
            "namespaces": [
                {"type": "pid"},
                {"type": "network"},
                {"type": "ipc"},
                {"type": "uts"},
                {"type": "mount"},
            ],
            "resources": {"devices": [{"allow": False, "access": "rwm"}]},
        },
    }


class Template:
    """The root file system that every bundle of a session is linked from."""

    __slots__ = ("directory", "probe")

    def __init__(self, directory: str) -> None:
        self.directory = os.path.join(directory, "template")
        self.probe = os.path.join(directory, "probe")
        make_root(self.directory, static_busybox())
        self._compile_probe()

    def _compile_probe(self) -> None:
        if machine.missing("compiler"):
            return
        source = os.path.join(os.path.dirname(__file__), "probe.c")
        compiler = next(filter(shutil.which, ("cc", "gcc", "clang", "musl-gcc")))
        command = [compiler, "-static", "-O1", "-o", self.probe, source]
        subprocess.run(command, check=True, timeout=300)

    def unpack(self, rootfs: str) -> None:
        """Make a root file system: files are hard links, so nothing may write into them, and so are the links of applets
        (a new inode for each took 20 of the 25 ms that this takes)."""  # noqa: D209
        make_directories(rootfs)
        for name in ("busybox", *APPLETS):
            source = os.path.join(self.directory, "bin", name)
            os.link(source, os.path.join(rootfs, "bin", name), follow_symlinks=False)
        if os.path.exists(self.probe):
            os.link(self.probe, os.path.join(rootfs, "bin/probe"))
        for name, text in (
            ("passwd", "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
            ("group", "root:x:0:\nuser:x:1000:\n"),
        ):
            with open(os.path.join(rootfs, "etc", name), "w") as file:
                file.write(text)


class Bundle:
    """A bundle directory: its root file system and a configuration that `write` puts down."""

    __slots__ = ("config", "path", "rootfs")

    def __init__(self, path: str, template: Template, oci_version: str) -> None:
        self.path = path
        self.rootfs = os.path.join(path, "rootfs")
        os.makedirs(self.rootfs)
        template.unpack(self.rootfs)
        self.config: dict[str, Any] = default_config(oci_version)

    def write(self) -> None:
        """Write config.json."""
        with open(os.path.join(self.path, "config.json"), "w") as file:
            json.dump(self.config, file, indent=1)

    @property
    def process(self) -> dict[str, Any]:
        """The process object."""
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        """The linux object."""
        linux: dict[str, Any] = self.config["linux"]
        return linux

    @property
    def resources(self) -> dict[str, Any]:
        """The resources object."""
        resources: dict[str, Any] = self.linux.setdefault("resources", {})
        return resources

    def sh(self, script: str) -> None:
        """Make the container's program a shell script."""
        self.process["args"] = ["/bin/sh", "-c", script]

    def add_mount(
        self, destination: str, fstype: str, source: str, *options: str
    ) -> dict[str, Any]:
        """Append a mount and return its entry."""
        entry: dict[str, Any] = {"destination": destination, "source": source}
        if fstype:
            entry["type"] = fstype
        if options:
            entry["options"] = list(options)
        self.config["mounts"].append(entry)
        return entry

    def drop_mount(self, destination: str) -> None:
        """Remove the mount on a destination and those below it."""
        self.config["mounts"] = [
            entry
            for entry in self.config["mounts"]
            if entry["destination"] != destination
            and not entry["destination"].startswith(destination + "/")
        ]

    def set_namespace(self, kind: str, path: str = "") -> None:
        """Ask for a namespace, new or by path, in place of the entry of that type."""
        self.drop_namespace(kind)
        entry = {"type": kind}
        if path:
            entry["path"] = path
        self.linux["namespaces"].append(entry)

    def drop_namespace(self, kind: str) -> None:
        """Stay in the runtime's namespace of that type."""
        self.linux["namespaces"] = [
            entry for entry in self.linux["namespaces"] if entry["type"] != kind
        ]

    def use_user_namespace(self, host_id: int = 100000, size: int = 65536) -> None:
        """Map the container's root to an unprivileged id of the host."""
        self.set_namespace("user")
        for key in ("uidMappings", "gidMappings"):
            self.linux[key] = [{"containerID": 0, "hostID": host_id, "size": size}]

    def hook(self, name: str, script: str, **fields: Any) -> dict[str, Any]:
        """Append a hook that runs a shell script and return its entry."""
        entry: dict[str, Any] = {"path": "/bin/sh", "args": ["sh", "-c", script], **fields}
        self.config.setdefault("hooks", {}).setdefault(name, []).append(entry)
        return entry

    def put(self, path: str, text: str = "", mode: int = 0o644) -> str:
        """Make a file in the root file system; returns the host's path."""
        target = os.path.join(self.rootfs, path.lstrip("/"))
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w") as file:
            file.write(text)
        os.chmod(target, mode)
        return target

    def make_directory(self, path: str, mode: int = 0o755) -> str:
        """Make a directory in the root file system; returns the host's path."""
        target = os.path.join(self.rootfs, path.lstrip("/"))
        os.makedirs(target, exist_ok=True)
        os.chmod(target, mode)
        return target

    def outside(self, name: str, text: str | None = None) -> str:
        """Make a directory, or a file when there is text, beside the root file system."""
        target = os.path.join(self.path, name)
        if text is None:
            os.makedirs(target, exist_ok=True)
        else:
            with open(target, "w") as file:
                file.write(text)
        return target

    def read(self, path: str) -> str:
        """Read a file of the root file system."""
        with open(os.path.join(self.rootfs, path.lstrip("/"))) as file:
            return file.read()

    def has(self, path: str) -> bool:
        """Whether a name exists in the root file system."""
        return os.path.lexists(os.path.join(self.rootfs, path.lstrip("/")))


def remove_tree(path: str) -> None:
    """Remove a directory, never going through a mount that somebody left below it."""
    below = path.rstrip("/") + "/"
    for fields, _, _ in reversed(machine.mountinfo()):
        if fields[4].startswith(below):
            machine.umount(fields[4], machine.MNT_DETACH)
    for directory, names, _ in os.walk(path):
        for name in names:
            inner = os.path.join(directory, name)
            if not os.path.islink(inner) and stat.S_IMODE(os.lstat(inner).st_mode) & 0o700 != 0o700:
                os.chmod(inner, 0o700)
    shutil.rmtree(path)
