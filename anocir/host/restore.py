"""The restore operation: CRIU brings a container back from images.

Side: host.  Cold.  The order, as in create, is what makes a kill -9 harmless: the intent is on disk
before the first cgroup exists, CRIU is in the container's cgroups before it gets the request, what
is mounted is in a mount namespace of CRIU's own, pid and start time are on disk while the restored
processes are still stopped.  Sources: images/rpc.proto of CRIU, runc-restore(8).
"""

from __future__ import annotations

import posix

from .. import cgroup
from ..base import jsonio, log
from ..errors import Error, at, reason
from ..linux import files, oneself, processes, spawn, tasks
from ..linux.const import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    KEY_POS_ALL,
    KEY_USR_SEARCH,
    PR_SET_CHILD_SUBREAPER,
)
from ..linux.errnos import ENOSYS, EPERM
from ..model import distrust, mountoptions, namespaces, plan
from ..model.spec import whole
from . import (
    create,
    criu,
    delete,
    ending,
    externals,
    facts,
    foreground,
    hosthooks,
    images,
    joining,
    launch,
    lock,
    program,
    reserve,
    saving,
    restored,
)
from .checkpoint import EXTERNAL_NAMESPACES
from .externals import External
from .staging import Stage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..cli import Options, Settings
    from ..model.schema import Config

_LOG: Final = "restore.log"
_FIRST_FD: Final = 4  # of what CRIU inherits from us: criu.Worker


def restore(settings: Settings, container_id: str, options: Options) -> int:
    """Bring a container back; the exit status of its process, 0 when detached."""
    detached = bool(options["detach"])
    if options["manage_cgroups_mode"] == "strict":
        raise Error(
            "restore: --manage-cgroups-mode strict: criu would refuse the container's cgroups, "
            "which are made before it starts",
            "soft and full restore into them",
        )
    if not detached:
        if not options["no_subreaper"]:
            tasks.prctl(PR_SET_CHILD_SUBREAPER, 1)
        foreground.block_signals()
    making = Restoring(settings, container_id, options)
    making.make()
    if detached:
        return 0
    if making.master >= 0:
        from . import relay

        relay.make_ready(making.master)
    watcher = foreground.Watcher(making.pid, making.pidfd, making.master, making.streams)
    try:
        status = watcher.wait()
    finally:
        watcher.close()
    delete.delete(settings, container_id, {"force": True})
    return status


class Restoring:
    """One restore: what is known of it and what is open."""

    __slots__ = (
        "bundle", "config", "container", "container_id", "directory", "fds", "hooked", "intent",
        "joined", "manager", "master", "mounted", "options", "pid", "pidfd", "rootfs", "roots",
        "settings", "streams",
    )  # fmt: skip

    def __init__(self, settings: Settings, container_id: str, options: Options) -> None:
        """Read and check config.json; nothing is made yet."""
        self.settings = settings
        self.container_id = container_id
        self.options = options
        self.pid = 0
        self.pidfd = self.master = -1
        self.hooked = False
        # The pipes in the place of the caller's terminals and devices (streams.Streams), or None.
        self.streams: Any = None
        self.bundle = facts.absolute(options["bundle"])
        reserve.check_free(settings.root, container_id)
        config: Config = jsonio.load(f"{self.bundle}/config.json")
        whole.check(config)
        self.config = config
        program.check_terminal(config.get("process") or {}, options, not options["detach"])
        self.rootfs = facts.rootfs(self.config, self.bundle)
        warning = criu.usable(settings.old_criu)
        if warning:
            log.warn(warning)
        self.intent = create.intent_of(
            settings, container_id, self.config, self.bundle, self.rootfs, options
        )
        self.manager = cgroup.load(self.intent["cgroup"])
        self.joined: dict[str, int] = {}
        # Of the container's cgroups: the path by controllers.
        self.roots: dict[str, str] = {}
        self.fds: list[int] = []
        # By place: (device, inode) of what must lie there, and its restricting flags.
        self.mounted: dict[str, tuple[tuple[int, int], int]] = {}

    def make(self) -> None:
        """Make the container; whatever fails leaves nothing behind."""
        self.directory = images.Directories(self.options, make=False)
        try:
            images.check_files(self.directory)
            images.check_cgroups(self.directory)
            images.check_sockets(self.directory, distrust.bounding_set(self.config))
            record = images.read_record(self.directory)
            tables = images.mount_tables(self.directory)
            inherited = images.descriptor_names(self.directory, record)
            self._open_namespaces()
            if not self.options["detach"]:
                self._pipe(inherited)
            self.container = reserve.reserve(self.settings.root, self.container_id)
            try:
                self._make(record, tables, inherited)
            except BaseException as error:
                self._undo(error)
                raise images.explain("restore", error, self.directory, _LOG) from None
            self.container.close()
        finally:
            self.directory.close()
            joining.close_all(self.fds)
            if self.streams is not None:
                joining.close_all(self.streams.ends)

    def _open_namespaces(self) -> None:
        """Open the namespaces that config.json names by path, as create does."""
        fds = joining.open_namespaces(self.config)
        self.fds += fds
        named = [kind for kind, path in namespaces.of(self.config).items() if path]
        for kind, fd in zip(named, fds):
            self.joined[kind] = files.fstat(fd).st_ino
        if "cgroup" in named:
            raise Error("linux.namespaces: criu cannot join a cgroup namespace that is there")

    def _pipe(self, inherited: list[criu.Inherited]) -> None:
        """Have pipes inherited where a terminal or a device of the caller's would be."""
        numbers = sorted(one["fd"] for one in inherited)
        self.streams = foreground.pipes(self.config, self.config.get("process"), numbers)
        if self.streams is None:
            return
        places = dict(self.streams.places)
        for one in inherited:
            if one["fd"] in places:
                one["fd"] = _FIRST_FD + len(self.fds) + places[one["fd"]]

    def _make(
        self,
        record: images.Record | None,
        tables: list[list[distrust.Entry]],
        inherited: list[criu.Inherited],
    ) -> None:
        container = self.container
        saving.config(container, self.config)
        saving.intent(container, self.intent)
        lock.give(container)
        self.manager.prepare((self.config.get("linux") or {}).get("resources") or {})
        stage = Stage(container.path)
        worker = None
        try:
            external = self._stage(stage, record, tables)
            opts = self._opts(stage, external, inherited)
            ends = self.streams.ends if self.streams else []
            worker = criu.Worker([*self.fds, *ends], quiet=False, setup=self._before_criu)
            stage.leave()
            # Before it is in the cgroups: who kills the restore would leave it there.
            self.intent["criu"] = [worker.pid, processes.stat(worker.pid)[3]]
            saving.intent(container, self.intent)
            self._join(worker.pid, opts)
            worker.go()
            worker.ask(criu.RESTORE, opts, notify=self._notify)
        finally:
            stage.close()
            if worker is not None:
                worker.close()
        self._hand_over()

    def _stage(
        self, stage: Stage, record: images.Record | None, tables: list[list[distrust.Entry]]
    ) -> list[External]:
        """Put the root and every source in its place, and hold the images against them."""
        found = self._externals(record, tables)
        stage.open_root(self.rootfs)
        tops = [one for one in found if not one.below]
        peers = {
            entry.get("key", "")
            for table in tables
            for entry in table
            if entry.get("master") or entry.get("shared")
        }
        for one in tops:
            stage.open_source(one, self.config, one.key in peers)
        stage.enter()
        # Before anything is covered, their paths still lead there.
        self.directory.reopen()
        stage.open_places()
        self.directory.show(stage.images(self.directory.image_fd, self.config))
        for one in tops:
            stage.publish(one.key)
        for one in found:
            if one.below:
                stage.open_below(one, one.key.rpartition(".")[0])
                stage.publish(one.key)
        stage.make_points(self.config, tops)
        for one in found:
            if one.below:
                top = stage.points[one.key.rpartition(".")[0]]
                stage.points[one.key] = f"{top}/{one.below}"
        # The null device of masked files: as many as there are, wherever they lie.
        stage.points.pop(externals.NULL, None)
        distrust.check(tables, stage.flags, stage.points, self.config)
        self.mounted = {
            point: (stage.identity(key), stage.flags[key]) for key, point in stage.points.items()
        }
        return found

    def _externals(
        self, record: images.Record | None, tables: list[list[distrust.Entry]]
    ) -> list[External]:
        """Return the external mounts of config.json, by the names that the images have."""
        nested = processes.in_user_namespace()
        found = externals.of_config(self.config, self.bundle, self.manager.mount_view, nested)
        if record is None:
            named = {entry.get("key", "") for table in tables for entry in table}
            found = _names_of_runc(found, named)
        else:
            found = self._recorded(found, record)
        masked = (self.config.get("linux") or {}).get("maskedPaths")
        if masked:
            null = files.NULL_DEVICE
            found.append(
                External(externals.NULL, "linux.maskedPaths", "", externals.NULL, device=null)
            )
        return found

    def _recorded(self, found: list[External], record: images.Record) -> list[External]:
        """Hold what was recorded against config.json: the same mounts, each once."""
        by_destination = {one.destination: one for one in found}
        if len(by_destination) < len(found):
            raise Error("mounts: two entries have the same destination")
        result = []
        below = []
        notify = False
        for entry in record["mounts"]:
            key, destination = entry["key"], entry["destination"]
            if key == externals.NULL:
                continue
            if key == externals.NOTIFY:
                notify = True
                continue
            if entry["below"]:
                below.append(entry)
                continue
            one = by_destination.pop(destination, None)
            if one is None:
                raise Error(
                    f"--image-path: the checkpoint has a mount at {destination!a}, config.json "
                    "has none"
                )
            one.key = _key(key)
            result.append(one)
        for one in by_destination.values():
            if one.device is None:
                raise at(one.where, f"the checkpoint has no mount at {one.destination!a}")
        # In the order of config.json, in which they were mounted.
        result.sort(key=found.index)
        result += _below(result, below)
        if notify:
            result.append(self._notify_directory())
        return result

    def _notify_directory(self) -> External:
        from . import notify

        notify.prepare(self.container.dir_fd)
        return External(
            externals.NOTIFY, "NOTIFY_SOCKET", plan.NOTIFY_AT,
            f"{self.container.path}/{notify.DIRECTORY}",
        )  # fmt: skip

    def _opts(
        self, stage: Stage, found: list[External], inherited: list[criu.Inherited]
    ) -> criu.Opts:
        options = self.options
        opts: criu.Opts = {
            **images.common(self.config, options, self.directory, _LOG),
            "root": stage.root,
            "rst_sibling": True,
            "evasive_devices": True,
            "ext_mnt": [{"key": one.key, "val": stage.places[one.key]} for one in found],
            "inherit_fd": list(inherited),
            "join_ns": [],
        }
        for index, kind in enumerate(self.joined):
            if kind in EXTERNAL_NAMESPACES:
                key = EXTERNAL_NAMESPACES[kind][1]
                opts["inherit_fd"].append({"key": key, "fd": _FIRST_FD + index})
            else:
                path = f"/proc/{posix.getpid()}/fd/{self.fds[index]}"
                opts["join_ns"].append({"ns": namespaces.FILES[kind], "ns_file": path})
        if options["lsm_profile"]:
            opts["lsm_profile"] = options["lsm_profile"]
        if options["lsm_mount_context"]:
            opts["lsm_mount_context"] = options["lsm_mount_context"]
        return opts

    def _join(self, pid: int, opts: criu.Opts) -> None:
        """Put CRIU into the container's cgroups: what it restores is born there."""
        self.manager.join(pid)
        self.manager.finish(pid)
        rdt = (self.config.get("linux") or {}).get("intelRdt")
        if rdt is not None:
            create.intel_rdt(self.container, self.config, pid)
        self.roots = restored.cgroups(f"/proc/{pid}")
        opts["cg_root"] = [{"ctrl": names, "path": path} for names, path in self.roots.items()]

    def _before_criu(self) -> None:
        """What the process that becomes CRIU hands down to the container."""
        _session_keyring(self.intent["keyring"])
        spaces = namespaces.of(self.config)
        if spaces.get("cgroup") == "" and self.options["manage_cgroups_mode"] == "ignore":
            # CRIU makes this namespace only where it is to care for cgroups.
            tasks.unshare(CLONE_NEWCGROUP)

    def _notify(self, script: str, pid: int, fds: list[int]) -> None:
        log.debug(f"criu: {script}")
        if script == "setup-namespaces":
            self._adopt(pid)
            self._network()
            self._hooks()
        elif script == "post-restore":
            if not self.pid:
                self._adopt(pid)
        elif script == "orphan-pts-master":
            self.master = fds.pop()
        elif script == "pre-resume":
            self._check()
            lock.take(self.container)
            saving.state(self.container, created=True)
            lock.give(self.container)

    def _adopt(self, pid: int) -> None:
        self.pid = pid
        self.pidfd = processes.pidfd_open(pid)
        saving.state(self.container, pid=pid, start_time=processes.stat(pid)[3])

    def _network(self) -> None:
        """Bring up the loopback of a new network namespace and give it its devices."""
        if namespaces.of(self.config).get("network") != "":
            return
        own = files.open("/proc/self/ns/net", files.O_RDONLY)
        theirs = files.open(f"/proc/{self.pid}/ns/net", files.O_RDONLY)
        try:
            if files.fstat(own).st_ino == files.fstat(theirs).st_ino:
                return  # `check` refuses it
            tasks.setns(theirs, CLONE_NEWNET)
            try:
                tasks.loopback_up()
            finally:
                tasks.setns(own, CLONE_NEWNET)
        finally:
            files.close(own)
            files.close(theirs)
        entries = (self.config.get("linux") or {}).get("netDevices")
        if entries:
            from . import netdevices

            netdevices.move(entries, self.pid)

    def _hooks(self) -> None:
        entries = self.config.get("hooks") or {}
        if not entries.get("prestart") and not entries.get("createRuntime"):
            return
        self.hooked = True
        hosthooks.before(entries, self.container, self.pid)

    def _check(self) -> None:
        """Hold the processes, which are stopped, against config.json; kill them if they differ."""
        found = files.stat(self.rootfs)
        try:
            pids = self.manager.pids()
        except Error:
            pids = []  # no cgroups, as the caller wanted: init is what is known
        try:
            family = restored.family(self.pid)
            inside = [pid for pid in pids if pid != posix.getpid() and self._is_ours(pid)]
            inside += family
            restored.check_cgroups(family, self.roots)
            restored.check(self.config, inside, self.pid, self.joined, (found.st_dev, found.st_ino))
            restored.check_mounts(self.pid, self.mounted)
            restored.check_rules(self.config, family, self.pid, list(self.mounted))
        except BaseException:
            # CRIU would only note it and let them run.
            for pid in restored.family(self.pid) - {self.pid}:
                processes.kill(pid, processes.SIGKILL)  # stopped by CRIU: it has kept its number
            processes.pidfd_send_signal(self.pidfd, processes.SIGKILL)
            self.manager.kill(processes.SIGKILL)
            raise

    def _is_ours(self, pid: int) -> bool:
        """Tell whether a process of the cgroup was restored: CRIU itself is there too."""
        try:
            return bool(
                files.stat(f"/proc/{pid}/ns/mnt").st_ino
                == files.stat(f"/proc/{self.pid}/ns/mnt").st_ino
                or processes.stat(pid)[2] != posix.getpid()
            )
        except OSError:
            return False

    def _hand_over(self) -> None:
        """Give the caller what it asked for: the terminal's master and the pid."""
        from ..wire import channel

        options = self.options
        if self.master >= 0 and options["console_socket"]:
            channel.send_fd(
                options["console_socket"], self.master, b"/dev/pts/0", "--console-socket"
            )
        if self.master >= 0 and (options["console_socket"] or options["detach"]):
            files.close(self.master)
            self.master = -1
        if options["pid_file"]:
            launch.write_pid_file(options["pid_file"], self.pid)

    def _undo(self, error: BaseException) -> None:
        """Take back what was made; what cannot be is left for delete --force and said."""
        del error
        container = self.container
        if self.master >= 0:
            files.close(self.master)
        try:
            if self.pid and processes.alive(self.pid, container.state.get("start_time", -1)):
                processes.pidfd_send_signal(self.pidfd, processes.SIGKILL)
            self.manager.kill(processes.SIGKILL)
            self._reap()
            lock.take(container)
            ending.destroy(container, self.config if self.hooked else {})
        except (Error, OSError) as failure:
            log.warn(f"cleaning up after a failed restore: {reason(failure)}")
        container.close()

    def _reap(self) -> None:
        if self.pid:
            try:
                spawn.wait(self.pid)
            except ChildProcessError:
                return


def _session_keyring(name: str) -> None:
    """Join a session keyring of the container's own, as init does for create."""
    try:
        serial = oneself.join_session_keyring(name)
        oneself.set_keyring_permissions(serial, KEY_POS_ALL | KEY_USR_SEARCH)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise


def _key(text: str) -> str:
    """Return a name of ours; refuse one that is not."""
    rest = text.removeprefix("anocir-")
    if rest == text or not rest or rest.strip("abcdefghijklmnopqrstuvwxyz0123456789-_=,."):
        raise Error(f"--image-path: {text!a} is no name of a mount")
    return text


def _below(tops: list[External], entries: list[images.Place]) -> list[External]:
    """Return the mounts that came along below a bind with `rbind`."""
    result = []
    for entry in entries:
        key = _key(entry["key"])
        top = next((one for one in tops if one.key == key.rpartition(".")[0]), None)
        if top is None or top.mount is None or "rbind" not in (top.mount.get("options") or []):
            raise Error(f"--image-path: config.json has no rbind for the mount {key}")
        one = External(key, f"{top.where}: the mount below it", "", top.source)
        one.below = entry["below"]
        result.append(one)
    return result


def _names_of_runc(found: list[External], named: set[str]) -> list[External]:
    """Name mounts as runc does, by their destination: never one that the root has a say in.

    Of the cgroups those that the images name: beside version 1 runc mounts no version 2.
    """
    seen: set[str] = set()
    result = []
    for one in found:
        is_cgroup = one.mount is not None and not mountoptions.is_bind(one.mount)
        if is_cgroup and one.destination not in named:
            continue
        externals.check_text(one.where or one.destination, one.destination)
        if one.destination in seen:
            raise at(one.where, f"another mount has the destination {one.destination} too")
        seen.add(one.destination)
        one.key = one.destination
        result.append(one)
    return result
