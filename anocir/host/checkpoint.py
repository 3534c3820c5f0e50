"""The checkpoint operation: CRIU writes a running container down.

Side: host.  Cold.  Sources: images/rpc.proto of CRIU, runc-checkpoint(8).

What a restore has to know besides is put beside CRIU's images: `descriptors.json`, the container's
descriptors 0 to 2 as runc has them, and `anocir.json`, the names of the external mounts.
"""

from __future__ import annotations


from .. import cgroup
from ..base import jsonio, log
from ..errors import Error, reason, strerror
from ..linux import descriptors, entries, files, processes
from ..model import namespaces
from . import criu, ending, externals, images, lock, mountinfo, states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from ..cli import Options, Settings
    from .store import Container
    from ..model.schema import Config

_LOG: Final = "dump.log"
# The kinds of namespaces that CRIU can leave to whoever made them, and since when.
EXTERNAL_NAMESPACES: Final = {"network": ("net", "extRootNetNS"), "pid": ("pid", "extRootPidNS")}


def checkpoint(settings: Settings, container_id: str, options: Options) -> None:
    """Write a container down; unless it is to go on running, it is removed then.

    Whatever fails leaves it running.
    """
    container, _ = states.open_(settings, container_id)
    try:
        lock.take(container)
        container.load()
        status = states.status_of(container)
        transitions.check("checkpoint", container, status)
        if container.state.get("added"):
            raise Error(
                "checkpoint: the container has mounts that were added while it ran",
                "anocir mounts remove takes them away",
            )
        if container.state.get("devices"):
            raise Error(
                "checkpoint: the container has devices that were added while it ran",
                "anocir update --device-remove takes them away",
            )
        if container.state.get("rules"):
            log.warn("checkpoint: a restored container has the device rules of config.json again")
        warning = criu.usable(settings.old_criu)
        if warning:
            log.warn(warning)
        _check_features(options)
        status_fd = _status_fd(options) if options["lazy_pages"] else -1
        server = page_server(options["page_server"]) if options["page_server"] else None
        config = container.config()
        directory = images.Directories(options, make=True)
        try:
            images.check_files(directory)
            if options["parent_path"]:
                _check_memory_tracking()
            paused = status == states.PAUSED
            _dump(container, config, options, directory, paused, status_fd, server)
        finally:
            directory.close()
        if options["leave_running"] or options["pre_dump"]:
            return
        lock.take(container)
        ending.destroy(container, config)
    finally:
        container.close()


def _dump(
    container: Container,
    config: Config,
    options: Options,
    directory: images.Directories,
    paused: bool,
    status_fd: int,
    server: tuple[str, int] | None,
) -> None:
    pid = container.state["pid"]
    pre_dump = bool(options["pre_dump"])
    manager = cgroup.load(container.intent.get("cgroup") or {})
    opts = _opts(container, config, options, directory, pid)
    if server:
        opts["ps"] = {"address": server[0], "port": server[1]}
    freezer = _freezer(container)
    if freezer:
        opts["freeze_cgroup"] = freezer
    if not pre_dump:
        nested = processes.in_user_namespace()
        wanted = externals.of_config(config, container.intent["bundle"], manager.mount_view, nested)
        found = externals.find(config, wanted, pid)
        opts["ext_mnt"] = [{"key": e.point, "val": e.key} for e in found]
        directory.clear()
        links, names = _descriptors(pid)
        opts["external"] += list(names.values())
        directory.write(images.DESCRIPTORS, jsonio.dumps(links))
        directory.write(images.RECORD, images.record(found, names))

    def notify(script: str, _pid: int, _fds: list[int]) -> None:
        log.debug(f"criu: {script}")
        if script == "status-ready":
            # The pages are served from here on, for as long as it takes: let others look.
            lock.give(container)
            if status_fd >= 0:
                files.write(status_fd, b"\0")
                files.close(status_fd)

    worker = criu.Worker()
    try:
        worker.ask(criu.PRE_DUMP if pre_dump else criu.DUMP, opts, notify=notify)
    except (Error, OSError) as error:
        worker.kill()
        _go_on(container, paused)
        raise images.explain("checkpoint", error, directory, _LOG) from None
    finally:
        worker.close()


def _go_on(container: Container, paused: bool) -> None:
    """Thaw what a dump that ended badly may have left frozen."""
    try:
        if not paused and cgroup.frozen(container.intent.get("cgroup") or {}):
            cgroup.load(container.intent["cgroup"]).thaw()
    except (Error, OSError) as error:
        log.warn(f"checkpoint: the container stays frozen: {reason(error)}")


def _opts(
    container: Container,
    config: Config,
    options: Options,
    directory: images.Directories,
    pid: int,
) -> criu.Opts:
    opts: criu.Opts = {
        **images.common(config, options, directory, _LOG),
        "pid": pid,
        "root": container.intent["rootfs"],
        "leave_running": options["leave_running"],
        "tcp_skip_in_flight": options["tcp_skip_in_flight"],
        "link_remap": options["link_remap"],
        "external": [],
    }
    spaces = namespaces.of(config)
    for kind, (name, key) in EXTERNAL_NAMESPACES.items():
        if spaces.get(kind):
            # As the process has it: the path may be gone, or another's by now.
            inode = files.stat(f"/proc/{pid}/ns/{name}").st_ino
            opts["external"].append(f"{name}[{inode}]:{key}")
    if options["parent_path"]:
        opts["parent_img"] = options["parent_path"]
        opts["track_mem"] = True
    elif options["pre_dump"]:
        opts["track_mem"] = True
    return opts


def page_server(text: str) -> tuple[str, int]:
    """Return the address and the port of ADDRESS:PORT, where an IPv6 address is in brackets."""
    address, colon, port = text.rpartition(":")
    if address[:1] == "[" and address[-1:] == "]":
        address = address[1:-1]
    elif ":" in address:
        colon = ""
    if not (colon and address and port.isascii() and port.isdigit() and int(port) < 65536):
        raise Error(f'checkpoint: --page-server: must be ADDRESS:PORT, got "{text}"')
    return address, int(port)


def _check_features(options: Options) -> None:
    """Refuse before anything is frozen what this kernel has no means for."""
    if options["lazy_pages"] and not options["page_server"]:
        # CRIU would hold the container and wait for nobody.
        raise Error("checkpoint: --lazy-pages needs --page-server ADDRESS:PORT to serve them at")
    if options["pre_dump"] and not options["parent_path"]:
        _check_memory_tracking()
    if options["lazy_pages"] and not criu.features("lazy_pages"):
        raise Error(
            "checkpoint: --lazy-pages: criu is missing features: this kernel has no userfaultfd",
            "it takes CONFIG_USERFAULTFD",
        )


def _check_memory_tracking() -> None:
    if not criu.features("mem_track"):
        raise Error(
            "checkpoint: --pre-dump: criu is missing features: this kernel does not track "
            "changed memory",
            "it takes CONFIG_MEM_SOFT_DIRTY",
        )


def _status_fd(options: Options) -> int:
    fd: int = options["status_fd"]
    if fd == -1:
        return -1
    try:
        flags = descriptors.status_flags(fd)
    except OSError as error:
        text = strerror(error.errno or 0)
        raise Error(f"checkpoint: --status-fd: descriptor {fd}: {text}") from None
    if flags & 3 == files.O_RDONLY:
        raise Error(f"checkpoint: --status-fd: descriptor {fd} is not open for writing")
    return fd


def _freezer(container: Container) -> str:
    """Return the cgroup by which CRIU can stop all processes at once, empty for none."""
    record = container.intent.get("cgroup") or {}
    inner = record.get("fs", record)
    if inner.get("manager") == "v2":
        path = f"{inner['mountpoint']}{inner['path']}"
        return path if files.exists(f"{path}/cgroup.freeze") else ""
    for mountpoint, controllers, path, _ in inner.get("hierarchies", ()):
        if "freezer" in controllers.split(",") and files.exists(mountpoint + path):
            return f"{mountpoint}{path}"
    return ""


def _descriptors(pid: int) -> tuple[list[str], dict[int, str]]:
    """Return what descriptors 0 to 2 of init are, and CRIU's names of files outside of it.

    A file that no mount of the container shows has to be named to be left out; it is the caller's
    to open it again.
    """
    links = []
    names = {}
    own = mountinfo.of(pid)
    for fd in (0, 1, 2):
        path = f"/proc/{pid}/fd/{fd}"
        try:
            links.append(entries.readlink(path))
            found = files.stat(path)
            mount = _mount_id(pid, fd)
        except OSError:
            links.extend([""] * (fd + 1 - len(links)))
            continue  # closed
        if files.kind(found) == files.S_IFREG and mount not in own:
            names[fd] = f"file[{mount:x}:{found.st_ino:x}]"
    return links, names


def _mount_id(pid: int, fd: int) -> int:
    for line in files.read_file(f"/proc/{pid}/fdinfo/{fd}").split(b"\n"):
        name, _, value = line.partition(b":")
        if name == b"mnt_id":
            return int(value)
    return -1
