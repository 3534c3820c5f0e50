"""The operations on a container, and when each is allowed.

Side: host.  Sources: runtime.md (Operations, Lifecycle), runc's texts in errors.CONTRACT.

The modules that only some operations need are imported by them: `state`, `start`, `kill` and
`delete` do without ctypes, the plan and the check of config.json.
"""

from __future__ import annotations

import posix

from .. import cgroup
from ..base import jsonio, log
from . import store
from ..errors import at, CONTRACT, Error, reason
from ..linux import files, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from ..wire.channel import Channel
    from ..cli import Options, Settings
    from .store import Container
    from .launch import Init

SPEC_VERSION: Final = "1.3.0"
_INIT_NAME: Final = "anocir:init"  # what init.py calls itself until execve
_KILL_PATIENCE: Final = 10.0  # seconds

CREATING, CREATED, RUNNING, PAUSED, STOPPED = (
    "creating", "created", "running", "paused", "stopped",
)  # fmt: skip

# Which operation is allowed in which state: None, or the text that refuses it.
TRANSITIONS: Final[dict[str, dict[str, str | None]]] = {
    "start": {
        CREATING: "cannot start a container that is being created",
        CREATED: None,
        RUNNING: CONTRACT["already running"],
        PAUSED: CONTRACT["start paused"],
        STOPPED: CONTRACT["already stopped"],
    },
    "kill": {
        CREATING: None,
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: CONTRACT["not running"],
    },
    "delete": {
        # runtime.md: a container that is not stopped MUST NOT be deleted.
        CREATING: CONTRACT["not stopped"],
        CREATED: CONTRACT["not stopped"],
        RUNNING: CONTRACT["not stopped"],
        PAUSED: CONTRACT["not stopped"],
        STOPPED: None,
    },
    "exec": {
        CREATING: "cannot exec in a container that is being created",
        CREATED: None,
        RUNNING: None,
        PAUSED: CONTRACT["exec paused"],
        STOPPED: CONTRACT["exec stopped"],
    },
    "pause": {
        CREATING: CONTRACT["not running"],
        CREATED: None,
        RUNNING: None,
        PAUSED: "container is paused already",
        STOPPED: CONTRACT["not running"],
    },
    "resume": {
        CREATING: CONTRACT["not paused"],
        CREATED: CONTRACT["not paused"],
        RUNNING: CONTRACT["not paused"],
        PAUSED: None,
        STOPPED: CONTRACT["not paused"],
    },
    "update": {
        CREATING: CONTRACT["not running"],
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: CONTRACT["not running"],
    },
    "events": {
        CREATING: "container with id {id} is not running",
        CREATED: None,
        RUNNING: None,
        PAUSED: None,
        STOPPED: "container with id {id} is not running",
    },
}


def check(operation: str, container: Container, status: str) -> None:
    """Raise Error unless the operation is allowed in this state."""
    refused = TRANSITIONS[operation][status]
    if refused is not None:
        raise Error(refused.format(id=container.id, status=status))


def status_of(container: Container) -> str:
    """Tell the state of a loaded container from its files and its init."""
    pid = container.state.get("pid", 0)
    final = container.state.get("created", False)
    if not final:
        return CREATING if _being_created(container) else STOPPED
    try:
        name, letter, _, started = processes.stat(pid)
    except OSError:
        return STOPPED
    if letter in "ZX" or started != container.state["start_time"]:
        return STOPPED
    if cgroup.frozen(container.intent.get("cgroup") or {}):
        return PAUSED
    # Until execve the process has init's name: a start may be on its way.
    return CREATED if name == _INIT_NAME else RUNNING


def _being_created(container: Container) -> bool:
    """Tell whether the runtime that makes the container is still at it."""
    creator: list[int] = container.intent.get("creator") or []
    return bool(creator) and processes.alive(creator[0], creator[1])


def _manager(container: Container) -> Any:
    return cgroup.load(container.intent.get("cgroup") or {})


def open_(settings: Settings, container_id: str) -> tuple[Container, str]:
    """Open and load a container: itself and its status.  Raises Error when it does not exist."""
    container = store.open_container(settings.root, container_id)
    container.load()
    return container, status_of(container)


def oci_state(container: Container, status: str, pid: int | None = None) -> dict[str, Any]:
    """Return the state of runtime.md; the pid of a stopped container is 0."""
    intent = container.intent
    if pid is None:
        pid = 0 if status == STOPPED else container.state.get("pid", 0)
    result = {
        "ociVersion": SPEC_VERSION,
        "id": container.id,
        "pid": pid,
        "status": status,
        "bundle": intent.get("bundle", ""),
        "rootfs": intent.get("rootfs", ""),
        "created": intent.get("created", ""),
        "owner": intent.get("owner", ""),
    }
    if intent.get("annotations"):
        result["annotations"] = intent["annotations"]
    return result


def state(settings: Settings, container_id: str) -> dict[str, Any]:
    """Return the state of one container."""
    container, status = open_(settings, container_id)
    return oci_state(container, status)


def list_(settings: Settings) -> list[dict[str, Any]]:
    """Return the states of all containers; one that cannot be read is passed over."""
    states = []
    for container_id in store.ids(settings.root):
        try:
            container, status = open_(settings, container_id)
        except (Error, OSError) as error:
            log.warn(f"list: {container_id}: {reason(error)}")
            continue
        states.append(oci_state(container, status))
        container.close()
    return states


def create(settings: Settings, container_id: str, options: Options, init: Init) -> None:
    """Make a container of an init that boots already; it waits for start."""
    make(settings, container_id, options, init, foreground=False)
    init.channel.close()


def make(
    settings: Settings, container_id: str, options: Options, init: Init, foreground: bool
) -> None:
    """Make a container; with `foreground` we keep its terminal (init.console)."""
    from . import create as maker

    store.check_free(settings.root, container_id)
    maker.create(settings, container_id, options, init, foreground)


def start(settings: Settings, container_id: str, notified: bool = False) -> None:
    """Let init execute the program; return once it runs, or raise what kept it from running.

    Where the caller has a service manager, return once the program says that it is ready, unless
    the caller of this function is the one who is `notified`.
    """
    from ..wire import channel

    container, status = open_(settings, container_id)
    proxy = None
    pidfd = -1
    try:
        container.lock()
        status = status_of(container)
        check("start", container, status)
        pid = container.state["pid"]
        if not notified and posix.environ.get(b"NOTIFY_SOCKET"):
            from . import notify

            proxy = notify.open_proxy(container.dir_fd)
            pidfd = processes.pidfd_open(pid) if proxy else -1
        try:
            line = channel.connect(container.dir_fd, store.SOCKET)
        except FileNotFoundError:
            raise Error(CONTRACT["already running"]) from None  # another start is on its way
        except ConnectionRefusedError:
            raise Error(CONTRACT["already stopped"]) from None
        mode = b"container" if settings.start_exec_errors == "container" else b""
        try:
            line.send(channel.START, mode)
        except (BrokenPipeError, ConnectionResetError):
            log.debug("start: init has died; the end of the channel tells how")
        files.unlink(store.SOCKET, container.dir_fd)
        container.unlock()
        config = container.config()
        try:
            serve_start(container, config, pid, pidfd, line)
        except Error as error:
            _after_failed_start(settings, container, config, error)
            raise
        _poststart(settings, container, config)
        if proxy:
            proxy.wait(pid, pidfd)
    finally:
        if proxy:
            proxy.close()
            files.close(pidfd)
        container.close()  # and so give back the lock, wherever it failed


def serve_start(
    container: Container, config: dict[str, Any], pid: int, pidfd: int, line: Channel
) -> None:
    """Answer init until execve has succeeded; raises Error when something failed before it.

    A seccomp listener is fetched out of the process, since its profile may trap sendmsg.
    """
    from ..wire import channel

    executing = False
    while True:
        kind, payload = line.receive()
        if kind == channel.EXEC:
            executing = True
        elif kind == channel.LOG:
            log.warn(payload.partition(b" ")[2].decode("utf-8", "replace"))
        elif kind == channel.LISTENER:
            from ..linux import tasks

            own = processes.pidfd_open(pid) if pidfd < 0 else pidfd
            fd = tasks.pidfd_getfd(own, int(payload))
            _listener_sender(container, config, pid)(fd)
            files.close(fd)
            line.send(channel.DONE)
        elif kind == channel.ERROR:
            text, _, hint = payload.decode("utf-8", "surrogateescape").partition("\0")
            raise Error(text, hint)
        elif kind == 0 and executing:
            return
        elif kind == 0:
            raise _died(container, config)


def _died(container: Container, config: dict[str, Any]) -> Error:
    """Say why init is gone: out of memory by the kernel's count, or it is not known."""
    text = want_of_memory(container, config)
    if not text:
        return Error("init died before the program was executed")
    return Error(f"linux.resources.memory.limit: {text}: the limit is {memory_limit(config)} bytes")


def memory_limit(config: dict[str, Any]) -> int | None:
    """Return the memory limit of a configuration in bytes; None without one."""
    resources = (config.get("linux") or {}).get("resources") or {}
    limit: int | None = (resources.get("memory") or {}).get("limit")
    return limit


def want_of_memory(container: Container, config: dict[str, Any], killed: bool = True) -> str:
    """Say, of an init that is dead, that its memory limit was too low; empty if it was not.

    systemd removes the cgroup, with the kernel's count in it, together with the last process:
    then a limit, and that init was `killed`, is all that is known.
    """
    manager = _manager(container)
    try:
        if manager.oom_kills():
            return "container init was OOM-killed (memory limit too low?)"
        if killed and memory_limit(config) and manager.gone():
            return "container init was killed (memory limit too low?)"
    except (Error, OSError) as error:
        log.debug(f"oom: {reason(error)}")
    return ""


def _listener_sender(container: Container, config: dict[str, Any], pid: int) -> Any:
    """Return a function that sends the seccomp listener to its agent."""
    profile = config["linux"]["seccomp"]

    def send(fd: int) -> None:
        from ..wire import channel
        from .. import seccomp

        state = oci_state(container, CREATED)
        message = seccomp.container_process_state(state, pid, profile.get("listenerMetadata", ""))
        try:
            channel.send_fd(profile["listenerPath"], fd, jsonio.dumps(message).encode())
        except OSError as error:
            raise at("linux.seccomp.listenerPath", reason(error)) from None

    return send


def _after_failed_start(
    settings: Settings, container: Container, config: dict[str, Any], error: Error
) -> None:
    """End init; after a failed startContainer hook the lifecycle goes on with destruction."""
    _kill_and_wait(container, container.state["pid"])
    if "startContainer hook" in error.text:
        container.lock()
        destroy(settings, container, config)


def _poststart(settings: Settings, container: Container, config: dict[str, Any]) -> None:
    """Run the poststart hooks; if one fails the container is stopped and destroyed."""
    entries = (config.get("hooks") or {}).get("poststart")
    if not entries:
        return
    try:
        _run_hooks("poststart", entries, oci_state(container, RUNNING))
    except Error:
        _kill_and_wait(container, container.state["pid"])
        container.lock()
        destroy(settings, container, config)
        raise


def _run_hooks(name: str, entries: Sequence[dict[str, Any]], state: dict[str, Any]) -> None:
    from ..base import hooks

    data = jsonio.dumps(state).encode()
    for index, hook in enumerate(entries):
        hooks.run(hook, data, f"{name} hook #{index}")


def signal_number(text: str) -> int:
    """Return the number of a signal given as number or name, with or without SIG, in any case."""
    if text.isascii() and text.isdigit():
        number = int(text)
        if number <= 64:
            return number
    else:
        import _signal

        name = text.upper()
        name = name if name.startswith("SIG") else "SIG" + name
        base, plus, offset = name.partition("+")
        # Names mean what the kernel and glibc mean by them, also where the C library is musl, which
        # begins at 35: systemd in a container halts on 37 = SIGRTMIN+3.
        if base == "SIGRTMIN" and (not plus or (offset.isdecimal() and int(offset) <= 30)):
            return 34 + int(offset or 0)
        value = getattr(_signal, name, None)
        if isinstance(value, int) and not name.startswith("SIG_"):
            return int(value)
    raise Error(f'unknown signal "{text}"')


def kill(settings: Settings, container_id: str, signal_text: str, options: Options) -> None:
    """Send a signal to init, or to every process."""
    number = signal_number(signal_text)
    container, status = open_(settings, container_id)
    everyone = bool(options["all"])
    if status == STOPPED and everyone:
        # Without a pid namespace of its own the container's other processes may outlive init.
        _manager(container).kill(number)
        return
    check("kill", container, status)
    pid = container.state.get("pid", 0)
    together = everyone or (
        number == processes.SIGKILL and not container.intent.get("private_pids")
    )
    if together:
        _manager(container).kill(number)
    # That may have ended init already.
    if not _signal_process(container, pid, number) and not together:
        raise Error(CONTRACT["not running"])
    if number == processes.SIGKILL and status == PAUSED:
        _manager(container).thaw()  # cgroup v1 delivers no signal to a frozen process


def _signal_process(container: Container, pid: int, number: int) -> bool:
    """Signal the process that had this pid at that start time; False when it is gone."""
    if pid <= 1:
        return False  # not made yet, or damaged: never our own group, never the host's init
    try:
        pidfd = processes.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not processes.alive(pid, container.state.get("start_time", -1)):
            return False
        processes.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return False
    finally:
        files.close(pidfd)
    return True


def _kill_and_wait(container: Container, pid: int) -> None:
    """End every process of the container and wait, 10 seconds at the most, for init to be gone."""
    import select

    manager = _manager(container)
    pidfd = -1
    if processes.alive(pid, container.state.get("start_time", -1)):
        try:
            pidfd = processes.pidfd_open(pid)
        except ProcessLookupError:
            pidfd = -1
    manager.kill(processes.SIGKILL)
    if pidfd < 0:
        return
    try:
        if processes.alive(pid, container.state["start_time"]):
            try:
                processes.pidfd_send_signal(pidfd, processes.SIGKILL)
            except ProcessLookupError:
                return
        if manager.frozen():
            manager.thaw()
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        if not poll.poll(_KILL_PATIENCE * 1000):
            raise Error(
                f"container {container.id}: init (pid {pid}) is still there 10 seconds after "
                "SIGKILL"
            )
    finally:
        files.close(pidfd)


def delete(settings: Settings, container_id: str, options: Options) -> None:
    """Remove what create made; with force, whatever state it is in."""
    force = bool(options["force"])
    try:
        container = store.open_container(settings.root, container_id)
        try:
            _delete(settings, container, force)
        finally:
            container.close()
    except Error as error:
        # Also when another delete was faster.
        if not force or error.text != CONTRACT["missing"]:
            raise


def _delete(settings: Settings, container: Container, force: bool) -> None:
    container.lock()
    container.load(damaged=force)
    status = status_of(container) if container.intent else STOPPED
    if not force:
        check("delete", container, status)
    if status != STOPPED or not container.state.get("created"):
        _kill_creator(container)
        _kill_and_wait(container, container.state.get("pid", 0))
    config: dict[str, Any] = {}
    try:
        config = container.config()
    except (OSError, Error) as error:
        if not force:
            raise
        log.warn(f"delete: {reason(error)}")
    if force:
        # Whatever the state said of init: nothing may be left in the container's cgroups.
        _manager(container).kill(processes.SIGKILL)
    destroy(settings, container, config)


def _kill_creator(container: Container) -> None:
    """End a create that is still at work, so that it makes nothing while we remove it."""
    creator = container.intent.get("creator")
    if container.state.get("created") or not creator or creator[0] == posix.getpid():
        return
    if processes.alive(creator[0], creator[1]):
        import select

        pidfd = processes.pidfd_open(creator[0])
        processes.pidfd_send_signal(pidfd, processes.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(_KILL_PATIENCE * 1000)
        files.close(pidfd)


def destroy(settings: Settings, container: Container, config: dict[str, Any]) -> None:
    """Undo what create made, run the poststop hooks, remove the directory."""
    if not container.intent.get("private_pids"):
        _manager(container).kill(processes.SIGKILL)
    cgroup.destroy(container.intent.get("cgroup") or {})
    if container.intent.get("host_mounts") is not None:
        _unmount(container.intent)
    if container.intent.get("resctrl"):
        from . import resctrl

        resctrl.remove(container.intent["resctrl"])
    entries = (config.get("hooks") or {}).get("poststop") or []
    if entries:
        from ..base import hooks

        data = jsonio.dumps(oci_state(container, STOPPED)).encode()
        for index, hook in enumerate(entries):
            try:
                hooks.run(hook, data, f"poststop hook #{index}")
            except Error as error:
                log.warn(error.text)  # runtime.md: log a warning, but go on
    container.remove()


def _unmount(intent: dict[str, Any]) -> None:
    """Undo the mounts of a container without a mount namespace, which are the host's."""
    from ..linux import mounts
    from ..linux.const import MNT_DETACH

    while mount_count(intent["rootfs"]) > intent["host_mounts"]:
        mounts.umount2(intent["rootfs"], MNT_DETACH)


def mount_count(path: str) -> int:
    """Return how many mounts lie on one another at a path (proc_pid_mountinfo(5))."""
    wanted = files.encode(path)
    wanted = wanted.replace(b"\\", b"\\134").replace(b" ", b"\\040").replace(b"\t", b"\\011")
    lines = files.read_file("/proc/self/mountinfo").split(b"\n")
    return sum(1 for line in lines if line.split(b" ")[4:5] == [wanted])


def pause(settings: Settings, container_id: str) -> None:
    """Freeze every process of the container."""
    container, status = open_(settings, container_id)
    check("pause", container, status)
    _manager(container).freeze()


def resume(settings: Settings, container_id: str) -> None:
    """Thaw the processes of the container."""
    container, status = open_(settings, container_id)
    check("resume", container, status)
    _manager(container).thaw()


def ps(settings: Settings, container_id: str) -> list[int]:
    """Return the host's pids of the container's processes, empty when it has stopped."""
    container, status = open_(settings, container_id)
    if status == STOPPED:
        return []
    return sorted(_manager(container).pids())


def run(settings: Settings, container_id: str, options: Options, init: Init) -> int:
    """create, start, wait, delete: the exit status of the process, 0 when detached."""
    from . import foreground

    return foreground.run(settings, container_id, options, init)


def exec_(
    settings: Settings, container_id: str, options: Options, argv: Sequence[str], init: Init
) -> int:
    """Run another process in the container: its exit status, 0 when detached."""
    try:
        container, status = open_(settings, container_id)
        if not (status == PAUSED and options["ignore_paused"]):
            check("exec", container, status)
        from . import exec as execute

        return execute.execute(settings, container, options, argv, init)
    except Error as error:
        if not error.text.startswith(CONTRACT["exec failed"]):
            error.text = CONTRACT["exec failed"] + error.text
        raise


def update(settings: Settings, container_id: str, options: Options) -> None:
    """Change the limits of a container."""
    from . import update as resources

    container, _ = open_(settings, container_id)
    container.lock()
    check("update", container, status_of(container))
    resources.update(container, _manager(container), options)


def events(settings: Settings, container_id: str, options: Options) -> None:
    """Print statistics and out-of-memory events as JSON lines."""
    from . import update as resources

    container, status = open_(settings, container_id)
    check("events", container, status)
    resources.events(container, _manager(container), options, lambda: status_of(container))
