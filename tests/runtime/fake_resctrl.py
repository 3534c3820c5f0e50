"""A file system that behaves as resctrl does, for machines without such a processor: run as a program.

    fake_resctrl.py MOUNTPOINT [LIMIT]

It speaks the FUSE protocol by itself (include/uapi/linux/fuse.h). mkdir(2) makes a group with the files tasks and
schemata and, one level down, the directory mon_groups; rmdir(2) takes a group with its files; a line written to
schemata replaces that resource's line; LIMIT is how many groups there may be (ENOSPC beyond, as the hardware says).
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
import sys
from typing import Any

LOOKUP, FORGET, GETATTR, SETATTR, MKDIR, RMDIR, OPEN, READ, WRITE = 1, 2, 3, 4, 9, 11, 14, 15, 16
STATFS, RELEASE, FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR, ACCESS = 17, 18, 25, 26, 27, 28, 29, 34
NO_ANSWER = (FORGET, 36, 42)  # FUSE_INTERRUPT, FUSE_BATCH_FORGET
ENOENT, EEXIST, EINVAL, ENOSPC, ENOSYS, EPERM = 2, 17, 22, 28, 38, 1


class Node:
    """A directory (children) or a file (text)."""

    def __init__(self, children: dict[str, Node] | None = None, text: str = "") -> None:
        self.children = children
        self.text = text


class Tree:
    """The nodes by number; 1 is the root."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.nodes: dict[int, Node] = {}
        self.root = self.group()
        self.number(self.root)

    def group(self, monitor: bool = False) -> Node:
        files = {"tasks": Node(), "mon_data": Node({})}
        if not monitor:
            files["schemata"] = Node(text="    L3:0=7ff;1=7ff\n    MB:0=100;1=100\n")
            files["mon_groups"] = Node({})
        return Node(files)

    def number(self, node: Node) -> int:
        for number, known in self.nodes.items():
            if known is node:
                return number
        self.nodes[len(self.nodes) + 1] = node
        return len(self.nodes)

    def mkdir(self, parent: Node, name: str) -> Node:
        assert parent.children is not None
        monitors = [one.children["mon_groups"] for one in self.nodes.values()
                    if one.children and "mon_groups" in one.children]  # fmt: skip
        if name in parent.children:
            raise OSError(EEXIST, name)
        if parent is self.root:
            groups = [
                one for one in parent.children.values() if one.children and "tasks" in one.children
            ]
            if len(groups) >= self.limit:
                raise OSError(ENOSPC, name)
            parent.children[name] = self.group()
        elif any(parent is one for one in monitors):
            parent.children[name] = self.group(monitor=True)
        else:
            raise OSError(EPERM, name)
        return parent.children[name]

    def write(self, node: Node, name: str, data: str) -> None:
        if name == "tasks":
            os.kill(int(data), 0)  # ESRCH, as the kernel says it
            node.text += data.strip() + "\n"
            return
        resource, colon, value = data.strip().partition(":")
        lines = [line for line in node.text.splitlines() if line.strip().split(":")[0] != resource]
        if not colon or len(lines) == len(node.text.splitlines()) or not value.startswith("0="):
            raise OSError(EINVAL, data)
        node.text = "".join(line + "\n" for line in [*lines, f"    {resource}:{value}"])


def attributes(tree: Tree, node: Node) -> bytes:
    kind = stat.S_IFDIR | 0o755 if node.children is not None else stat.S_IFREG | 0o644
    number = tree.number(node)
    return struct.pack(
        "=6Q10I", number, len(node.text), 0, 0, 0, 0, 0, 0, 0, kind, 1, 0, 0, 0, 4096, 0
    )


def name_of(tree: Tree, node: Node) -> str:
    for parent in tree.nodes.values():
        for name, child in (parent.children or {}).items():
            if child is node:
                return name
    return ""


def answer(tree: Tree, code: int, node: Node, body: bytes) -> bytes:
    if code in (LOOKUP, MKDIR, RMDIR):
        name = body[8 if code == MKDIR else 0 :].split(b"\0")[0].decode()
        assert node.children is not None
        if code == MKDIR:
            found = tree.mkdir(node, name)
        elif name not in node.children:
            raise OSError(ENOENT, name)
        elif code == RMDIR:
            del node.children[name]
            return b""
        else:
            found = node.children[name]
        return struct.pack("=5Q2I", tree.number(found), 0, 0, 0, 0, 0, 0)[:40] + attributes(
            tree, found
        )
    if code in (GETATTR, SETATTR):
        return struct.pack("=QII", 0, 0, 0) + attributes(tree, node)
    if code in (OPEN, OPENDIR):
        return struct.pack("=QII", 0, 1, 0)  # FOPEN_DIRECT_IO
    if code == READ:
        _, offset, size = struct.unpack("=QQI", body[:20])
        return node.text.encode()[offset : offset + size]
    if code == WRITE:
        size = struct.unpack("=QQI", body[:20])[2]
        tree.write(node, name_of(tree, node), body[40 : 40 + size].decode())
        return struct.pack("=II", size, 0)
    if code == READDIR:
        _, offset, _ = struct.unpack("=QQI", body[:20])
        out = b""
        for index, name in enumerate((node.children or {})):
            if index >= offset:
                raw = name.encode()
                entry = struct.pack("=QQII", 1000 + index, index + 1, len(raw), 0) + raw
                out += entry + bytes(-len(entry) % 8)
        return out
    if code in (RELEASE, RELEASEDIR, FLUSH, ACCESS):
        return b""
    raise OSError(ENOSYS, str(code))


def serve(mountpoint: str, limit: int) -> None:
    """Mount, say so, and answer until it is unmounted."""
    fd = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fd},rootmode=40000,user_id=0,group_id=0,allow_other"
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"resctrl", mountpoint.encode(), b"fuse", 0, options.encode()):
        raise OSError(ctypes.get_errno(), "mount")
    print("mounted", flush=True)
    tree = Tree(limit)
    while True:
        try:
            message = os.read(fd, 1 << 20)
        except OSError:
            return  # ENODEV: unmounted
        _, code, unique, number = struct.unpack("=IIQQ", message[:24])
        body: Any = message[40:]
        if code in NO_ANSWER:
            continue
        error, reply = 0, b""
        try:
            if code == INIT:
                major, _ = struct.unpack("=II", body[:8])
                reply = struct.pack(
                    "=IIIIHHIIHHI7I", major, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, 0, *[0] * 7
                )
            else:
                reply = answer(tree, code, tree.nodes[number], body)
        except OSError as failure:
            error = -(failure.errno or EINVAL)
        os.write(fd, struct.pack("=IiQ", 16 + len(reply), error, unique) + reply)


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 16)
