"""The image that all engines run: a static busybox and a few files, made here, never fetched."""

from __future__ import annotations

import hashlib
import io
import json
import subprocess
import tarfile
from pathlib import Path
from typing import Dict, Optional, Tuple

IMAGE = "anocir-busybox:1"
FULL_NAME = f"docker.io/library/{IMAGE}"


def busybox_tar(
    user_files: Optional[Dict[str, Tuple[str, int]]] = None,
    setuid_programs: Optional[Dict[str, bytes]] = None,
    link: bytes = tarfile.SYMTYPE,
) -> bytes:
    """Make the image: a static busybox with its applets and the few files that engines look at."""
    busybox = Path("/bin/busybox")
    applets = subprocess.run([str(busybox), "--list"], capture_output=True, check=True).stdout
    files: Dict[str, Tuple[str, int]] = {
        "etc/passwd": (
            "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n"
            "anna:x:1000:1000:Anna:/home/anna:/bin/sh\n",
            0o644,
        ),
        "etc/group": ("root:x:0:\ndaemon:x:1:\nanna:x:1000:\nvideo:x:44:anna\n", 0o644),
        "etc/shadow": ("root:*:::::::\n", 0o600),
        "etc/nsswitch.conf": ("passwd: files\ngroup: files\nhosts: files dns\n", 0o644),
        "etc/not-a-program": ("text\n", 0o644),
        "usr/bin/no-format": ("this is not a program\n", 0o755),
        "usr/bin/bad-interpreter": ("#!/no/such/interpreter\n", 0o755),
        "var/www/index.html": ("page from the container\n", 0o644),
        **(user_files or {}),
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in [
            "bin",
            "dev",
            "etc",
            "home",
            "home/anna",
            "mnt",
            "proc",
            "root",
            "run",
            "sys",
        ] + [
            "tmp",
            "usr",
            "usr/bin",
            "var",
            "var/www",
        ]:
            entry = tarfile.TarInfo(name)
            entry.type = tarfile.DIRTYPE
            entry.mode = 0o1777 if name == "tmp" else 0o755
            if name == "home/anna":
                entry.uid = entry.gid = 1000
            tar.addfile(entry)
        program = tarfile.TarInfo("bin/busybox")
        program.mode = 0o755
        program.size = busybox.stat().st_size
        with busybox.open("rb") as file:
            tar.addfile(program, file)
        for applet in applets.decode().split():
            if applet != "busybox":
                entry = tarfile.TarInfo(f"bin/{applet}")
                entry.type = link
                entry.mode = 0o755
                entry.linkname = "busybox" if link == tarfile.SYMTYPE else "bin/busybox"
                tar.addfile(entry)
        for name, data in (setuid_programs or {}).items():
            entry = tarfile.TarInfo(name)
            entry.mode = 0o4755
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
        for name, (text, mode) in files.items():
            entry = tarfile.TarInfo(name)
            entry.mode = mode
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


def docker_archive() -> bytes:
    """Wrap the image as `docker save` does, for engines that cannot import a bare tree."""
    layer = busybox_tar()
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest()]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [FULL_NAME], "Layers": ["layer.tar"]}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in (
            ("layer.tar", layer),
            ("config.json", json.dumps(config).encode()),
            ("manifest.json", json.dumps(manifest).encode()),
        ):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()
