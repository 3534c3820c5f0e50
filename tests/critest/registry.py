"""A read-only registry of images that are made here, for engines that pull what they run.

It speaks the part of the distribution specification (https://github.com/opencontainers/distribution-spec, "Pull") that a
client needs, and answers for every registry name: which one was asked for (`?ns=`) does not matter.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import platform
import sys
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Dict, List, Tuple

MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
CONFIG = "application/vnd.docker.container.image.v1+json"
LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


def digest(data: bytes) -> str:
    """Name a blob by its content."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Store:
    """Blobs by digest, and manifests by (repository, tag or digest)."""

    blobs: Dict[str, bytes] = field(default_factory=dict)
    manifests: Dict[Tuple[str, str], bytes] = field(default_factory=dict)

    def add(self, repository: str, tags: List[str], tar: bytes, config: Dict[str, Any]) -> str:
        """Add an image of one layer; give its manifest's digest."""
        # A fixed time: equal images have equal digests in each run.
        packed = gzip.compress(tar, 1, mtime=0)
        content = json.dumps(
            {
                "architecture": MACHINES.get(platform.machine(), platform.machine()),
                "os": "linux",
                "config": config,
                "rootfs": {"type": "layers", "diff_ids": [digest(tar)]},
                "history": [{"created_by": f"stand-in for {repository}"}],
            }
        ).encode()
        manifest = {"schemaVersion": 2, "mediaType": MANIFEST}
        manifest["config"] = self._blob(CONFIG, content)
        manifest["layers"] = [self._blob(LAYER, packed)]
        data = json.dumps(manifest).encode()
        for reference in (*tags, digest(data)):
            self.manifests[repository, reference] = data
        return digest(data)

    def _blob(self, kind: str, data: bytes) -> Dict[str, Any]:
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "size": len(data), "digest": digest(data)}


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD below /v2/."""

    protocol_version = "HTTP/1.1"
    store = Store()

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.partition("?")[0]
        status, kind, data = 404, "application/json", b'{"errors": [{"code": "NAME_UNKNOWN"}]}'
        name, _, reference = path[len("/v2/") :].rpartition("/")
        if path in ("/v2", "/v2/"):
            status, data = 200, b"{}"
        elif name.endswith("/blobs") and reference in self.store.blobs:
            status, kind, data = 200, "application/octet-stream", self.store.blobs[reference]
        elif name.endswith("/manifests"):
            found = self.store.manifests.get((name[: -len("/manifests")], reference))
            if found is not None:
                status, kind, data = 200, MANIFEST, found
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Docker-Distribution-API-Version", "registry/2.0")
        if status == 200 and name:
            self.send_header("Docker-Content-Digest", digest(data))
        self.end_headers()
        if with_body:
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def serve(store: Store, port: int) -> None:
    """Serve on the loopback address for ever, and say when it begins."""
    Handler.store = store
    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        sys.stdout.write(f"serving on {server.server_address[1]}\n")
        sys.stdout.flush()
        server.serve_forever()
