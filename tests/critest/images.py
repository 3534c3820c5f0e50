"""The images that critest pulls, made of static busybox; run in a box to serve them: python3 -m tests.critest.images PORT.

The names are those of cri-tools (pkg/validate, pkg/framework); what stands behind each is the least that does what the
tests ask of it. One image is asked for by the digest of bytes that only its makers have: that test cannot pass.
"""

from __future__ import annotations

import os
import platform
import sys
import tarfile
from typing import Any, Dict, Tuple

from tests.critest.registry import Store, serve
from tests.engines.image import busybox_tar

Files = Dict[str, Tuple[str, int]]
STAGING = "k8s-staging-cri-tools"
E2E = "e2e-test-images"
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Debian's static busybox lacks it.
PGREP = """#!/bin/sh
for directory in /proc/[0-9]*; do
    read -r name 2>/dev/null < $directory/comm || continue
    [ "$name" = "$1" ] && echo ${directory#/proc/} && found=1
done
[ "$found" ]
"""
IPCS = """#!/bin/sh
echo "------ Shared Memory Segments --------"
while read -r key id rest; do
    echo "$key $id"
done < /proc/sysvipc/shm
"""
# A server whose first process is named as nginx' is and that has a pid file; a signal ends it.
SERVER = """#!/bin/sh
trap 'kill $server; exit 0' TERM QUIT INT
mkdir -p /var/run
echo $$ > /var/run/nginx.pid
echo "{said}"
httpd -f -p {port} -h /usr/share/nginx/html &
server=$!
wait $server
"""
PAGE = ("<html><title>Welcome to nginx!</title></html>\n", 0o644)
PASSWD = (
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\ndefault-user:x:1000:1000::/home:/bin/sh\n",
    0o644,
)
GROUP = (
    "root:x:0:\nwww-data:x:33:\nnobody:x:65534:\ndefault-user:x:1000:\n"
    "group-defined-in-image:x:50000:default-user\n",
    0o644,
)


def server(name: str, port: int, said: str) -> Files:
    """Give the files of a web server."""
    return {
        f"usr/sbin/{name}": (SERVER.format(port=port, said=said), 0o755),
        "usr/share/nginx/html/index.html": PAGE,
    }


def fill(store: Store, effective: bytes) -> None:
    """Add all images; `effective` is a static program that prints its effective user id."""

    def add(repository: str, tags: str, files: Files | None = None, **config: Any) -> None:
        own: Files = {
            "etc/passwd": PASSWD,
            "etc/group": GROUP,
            "usr/bin/pgrep": (PGREP, 0o755),
            "usr/bin/ipcs": (IPCS, 0o755),
            "etc/stand-in": (f"{repository} {tags}\n", 0o644),
            **(files or {}),
        }
        programs = {"nnp": effective} if "nonewprivs" in repository else {}
        # One of the tests masks an applet: a link's target would be that of all.
        tar = busybox_tar(own, programs, tarfile.LNKTYPE)
        store.add(repository, tags.split(), tar, {"Env": [PATH], "Cmd": ["sh"], **config})

    add(f"{E2E}/busybox", "1.29-2 1.37.0-1 latest")
    add(
        f"{E2E}/nginx", "1.14-2 1.14-4", server("nginx", 80, "nginx"),
        # The words that the tests look for in its command line.
        Cmd=["/usr/sbin/nginx", "master process"], ExposedPorts={"80/tcp": {}},
    )  # fmt: skip
    add(
        f"{E2E}/httpd", "2.4.39-4", server("httpd-foreground", 80, "httpd"),
        Cmd=["/usr/sbin/httpd-foreground"], ExposedPorts={"80/tcp": {}},
    )  # fmt: skip
    add(f"{E2E}/nonewprivs", "1.3", Cmd=["/nnp"])
    for name in ("amd64", "arm64"):
        add(
            f"{STAGING}/hostnet-nginx-{name}", "latest", server("nginx", 12003, "nginx"),
            Cmd=["/usr/sbin/nginx", "master process"],
        )  # fmt: skip
    for name in ("latest", "1", "2", "3"):
        add(f"{STAGING}/test-image-{name}", "latest")
    add(f"{STAGING}/test-image-tag", "test")
    add(f"{STAGING}/test-image-tag", "all", {"all": ("all\n", 0o644)})
    add(f"{STAGING}/test-image-tags", "1 2 3")
    add(f"{STAGING}/test-image-digest", "test latest")
    add(f"{STAGING}/test-image-user-uid", "latest", User="1002")
    add(f"{STAGING}/test-image-user-username", "latest", User="www-data")
    add(f"{STAGING}/test-image-user-uid-group", "latest", User="1003:1004")
    add(f"{STAGING}/test-image-user-username-group", "latest", User="www-data:www-data")
    add(f"{STAGING}/test-image-predefined-group", "latest", User="1000")
    # Not by sleep(1), for which one of the tests looks among all processes of a pod.
    add("pause", "3.8 3.9 3.10 3.10.1", Cmd=["tail", "-f", "/dev/null"])


def main() -> None:
    """Make and serve them."""
    store = Store()
    with open(os.environ.get("EFFECTIVE", "/bin/busybox"), "rb") as file:
        fill(store, file.read())
    serve(store, int(sys.argv[1]))


if __name__ == "__main__":
    assert platform.system() == "Linux"
    main()
