"""The container side: execute a plan, wait for start, become the container's process.

Side: init.  This module runs in a second interpreter that the host side has started from a
sealed copy (host/boot.py), before it entered any namespace.  It never reads config.json.

Before the first step all that it needs is imported, and then importing is switched off: once the
root is entered an import would execute a file of the image with our privileges.
"""

from __future__ import annotations

import _signal
import gc
import marshal
import sys

import posix

from ..wire import channel
from . import credentials, devices, masks, mounts, namespaces, process, procfs, program, root
from .context import Context
from ..errors import CONTRACT, Error, reason, scope, shown, strerror
from ..linux import files, tasks
from ..linux.const import (
    CLONE_PARENT,
    EACCES,
    EBUSY,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOSYS,
    ENOTSUP,
    EPERM,
    PR_SET_DUMPABLE,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

    from ..wire.channel import Channel

# The name of init until execve: the host side knows by it that the program does not run yet.
NAME: Final = "anocir:init"


def _host_hooks(context: Context) -> None:
    """Let the host side run the prestart and createRuntime hooks now."""
    context.channel.send(channel.HOOKS)
    _await(context.channel, channel.DONE)


def _hooks(context: Context, entries: list[dict[str, Any]], name: str) -> None:
    """Run hooks in the container's namespaces."""
    from ..base import hooks, jsonio

    state = {**context.plan["state"], "status": "created", "pid": posix.getpid()}
    data = jsonio.dumps(state).encode()
    watch = context.channel.sock.fileno()
    if name == "startContainer":
        wanted = context.plan["process"] or {"env": []}
        env = hooks.environment(program.environment(wanted["env"], context.env))
        place = hooks.Place(env, None, context.hook_outputs)
    else:
        place = hooks.Place(None, context.root_fd, context.hook_outputs)
    for index, hook in enumerate(entries):
        hooks.run(hook, data, f"{name} hook #{index}", place, watch)


def _hook_outputs(context: Context, annotations: dict[str, str]) -> None:
    """Open the files that take what the hooks inside print, while the host's are in sight."""
    from ..base import hooks

    context.hook_outputs = hooks.open_outputs(annotations, context.plan["bundle"])


def _console(context: Context, *values: Any) -> None:
    """Open the container's terminal."""
    from . import console

    console.console(context, *values)


STEPS: Final[dict[str, Callable[..., None]]] = {
    "affinity": process.affinity,
    "become_root": namespaces.become_root,
    "bind": mounts.bind,
    "capabilities": credentials.capabilities,
    "cgroup_mount": mounts.cgroup_mount,
    "chdir": program.chdir,
    "chroot": root.chroot,
    "close_descriptors": program.close_descriptors,
    "command": program.prepare,
    "console": _console,
    "device": devices.device,
    "device_links": devices.device_links,
    "domainname": namespaces.domainname,
    "drop_bounding": credentials.drop_bounding,
    "filesystem": mounts.filesystem,
    "final_propagation": root.final_propagation,
    "home": program.home,
    "hooks": _hooks,
    "hook_outputs": _hook_outputs,
    "host_hooks": _host_hooks,
    "hostname": namespaces.hostname,
    "io_priority": process.io_priority,
    "join_all": namespaces.join_all,
    "join_late": process.join_late,
    "keyring": credentials.keyring,
    "label": credentials.label,
    "late_readonly": mounts.late_readonly,
    "loopback": namespaces.loopback,
    "make_cwd": root.make_cwd,
    "masked_path": masks.masked_path,
    "memory_policy": process.memory_policy,
    "move_root": root.move_root,
    "new_user_namespace": namespaces.new_user_namespace,
    "no_new_privs": credentials.no_new_privs,
    "no_process": program.no_process,
    "open_attributes": procfs.open_attributes,
    "own_proc": procfs.own_proc,
    "own_stdio": process.own_stdio,
    "personality": process.personality,
    "pivot_root": root.pivot_root,
    "propagation": root.propagation,
    "readonly_path": masks.readonly_path,
    "remount": mounts.remount,
    "rlimits": process.rlimits,
    "root": root.root,
    "root_here": root.root_here,
    "root_readonly": root.root_readonly,
    "scheduler": process.scheduler,
    "seccomp": credentials.seccomp,
    "session": process.session,
    "streams": process.streams,
    "source": mounts.source,
    "sysctl": procfs.sysctl,
    "time_offsets": namespaces.time_offsets,
    "umask": process.umask,
    "unshare": namespaces.unshare,
    "user": credentials.user,
}


# What each step does, for the error of a call in it: nobody outside knows the names above.
DOING: Final = {
    "affinity": "setting the CPU affinity",
    "become_root": "becoming root of the user namespace",
    "bind": "mounting",
    "capabilities": "setting capabilities",
    "cgroup_mount": "mounting the cgroups",
    "chdir": "entering the working directory",
    "chroot": "entering the root",
    "close_descriptors": "closing descriptors",
    "command": "looking for the program",
    "console": "opening the terminal",
    "device": "making the device",
    "device_links": "making the links in /dev",
    "domainname": "setting the domain name",
    "drop_bounding": "dropping capabilities of the bounding set",
    "filesystem": "mounting",
    "final_propagation": "setting the propagation of the root",
    "home": "looking up the home directory",
    "hook_outputs": "opening the output of hooks",
    "hooks": "running hooks",
    "host_hooks": "waiting for hooks of the host",
    "hostname": "setting the host name",
    "io_priority": "setting the I/O priority",
    "join_all": "joining namespaces",
    "join_late": "joining the cgroup",
    "keyring": "joining a session keyring",
    "label": "setting the label of the process",
    "late_readonly": "making mounts read-only",
    "loopback": "bringing the loopback interface up",
    "make_cwd": "making the working directory",
    "masked_path": "masking the path",
    "memory_policy": "setting the memory policy",
    "move_root": "moving the root",
    "new_user_namespace": "making the user namespace",
    "no_new_privs": "setting no_new_privs",
    "no_process": "starting",
    "open_attributes": "opening the attributes of the process",
    "own_proc": "mounting a procfs",
    "own_stdio": "giving the standard streams to the user",
    "personality": "setting the personality",
    "pivot_root": "changing the root",
    "propagation": "setting the propagation of mounts",
    "readonly_path": "making the path read-only",
    "remount": "remounting",
    "rlimits": "setting resource limits",
    "root": "opening the root",
    "root_here": "opening the root",
    "root_readonly": "making the root read-only",
    "scheduler": "setting the scheduler",
    "seccomp": "loading the seccomp filter",
    "session": "starting a session",
    "source": "opening the source of the mount",
    "streams": "looking at the standard streams",
    "sysctl": "setting the sysctl",
    "time_offsets": "setting the time offsets",
    "umask": "setting the umask",
    "unshare": "making namespaces",
    "user": "becoming the user",
}


class _Refuse:
    """The finder that is left once imports are sealed."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse to import anything."""
        raise ImportError(f"import of {name} after the root was entered")


def _import_rest(plan: dict[str, Any]) -> None:
    """Import what only some plans need, while importing is possible."""
    steps = {step[0] for phase in ("prepare", "setup", "launch") for step in plan[phase]}
    if "console" in steps:
        from . import console  # noqa: F401
    if "hooks" in steps:
        from ..base import hooks, jsonio  # noqa: F401


def _archive_fd() -> int:
    """Return the descriptor from which modules are read (base/preload.py), or -1."""
    return getattr(sys.meta_path[0], "fd", -1)


def seal() -> None:
    """Switch importing off for good (THREATS: code of the image, run as root)."""
    if _archive_fd() >= 0:
        files.close(_archive_fd())
    sys.path[:] = []
    sys.meta_path[:] = [_Refuse()]
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


def main() -> NoReturn:
    """Take the plan from the channel and never return."""
    fd, preserved = int(sys.argv[1]), int(sys.argv[2])
    gc.disable()
    if posix.geteuid() == 0:
        # Nobody who shares a namespace with us may look into this process (CVE-2016-9962).
        tasks.prctl(PR_SET_DUMPABLE, 0)
    line = channel.of(fd)
    _close_foreign(3 + preserved, fd, _archive_fd())
    tasks.set_name(NAME)
    try:
        kind, payload = line.receive()
    except OSError as error:
        line.send(channel.ERROR, f"cannot read the plan: {reason(error)}".encode())
        posix._exit(1)
    if kind != channel.PLAN:
        posix._exit(1)
    context = Context(line, marshal.loads(payload))
    context.host_fds, line.fds = line.fds, []
    try:
        if context.plan["trace"]:
            from ..linux import trace

            trace.attach(context.host_fds.pop(), *context.plan["trace"])
        _import_rest(context.plan)
        seal()
        _run(context)
    except BaseException as error:
        _fail(context, error)
    posix._exit(1)


def _close_foreign(first: int, *kept: int) -> None:
    """Close what the caller leaked to us: everything from `first` on but these descriptors."""
    for fd in sorted(kept):
        if fd > first:
            tasks.close_range(first, fd - 1)
        first = max(first, fd + 1)
    tasks.close_range(first, 0xFFFFFFFF)


def _run(context: Context) -> None:
    """Prepare in this process, the middle one; then clone init, which does the rest."""
    line, plan = context.channel, context.plan
    # A mode is given as it is meant, not as the caller's mask leaves it.
    files.umask(0)
    process.reset_affinity()
    _execute(context, "prepare")
    network, into, now, waits = marshal.loads(_await(line, channel.CGROUP))
    cgroup_fds, line.fds = line.fds, []
    if network:
        namespaces.enter_network(cgroup_fds.pop(0))
    pid, born_there = _clone(cgroup_fds.pop(0) if into else -1)
    in_cgroup = born_there or (not into and bool(cgroup_fds))
    if pid:
        line.send(channel.PID, marshal.dumps((pid, in_cgroup)))
        posix._exit(0)
    if waits or not in_cgroup:
        indices = marshal.loads(_await(line, channel.GO))
        context.spare_fds = dict(zip(indices, line.fds))
        line.fds = []
    process.join_cgroups(cgroup_fds[:now])
    context.late_join = cgroup_fds[now:]
    _execute(context, "setup")
    if plan["process"] is not None and not plan["process"]["terminal"]:
        process.reopen_null(context)
    listener = _listener(context)
    line.send(channel.READY)
    _await(line, channel.COMMIT)
    mode = _wait_for_start(context, listener)
    _launch(context, mode)


# ENOENT: the cgroup lies outside of the cgroup namespace that was joined (nsdelegate).
_CLONE_AGAIN: Final = (EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOSYS, ENOTSUP, EPERM)


def _clone(cgroup_fd: int) -> tuple[int, bool]:
    """Clone init: (0 in init, else its pid; whether it was born in the cgroup).

    CLONE_PARENT makes init a child of the runtime and not of this process, which ends here.
    """
    if cgroup_fd >= 0:
        try:
            pid = tasks.clone_into(cgroup_fd)
        except OSError as error:
            if error.errno not in _CLONE_AGAIN:
                raise Error(f"clone3 into the cgroup: {strerror(error.errno or 0)}") from None
        else:
            files.close(cgroup_fd)
            return pid, True
        files.close(cgroup_fd)
    try:
        return tasks.clone(CLONE_PARENT), False
    except OSError as error:
        # ENOMEM also means a new pid namespace that the failed clone3 has used up.
        raise Error(f"clone init: {strerror(error.errno or 0)}") from None


def _listener(context: Context) -> Any:
    """Return the start socket among the host's descriptors, or None for exec."""
    index = context.plan["start_socket"]
    return None if index is None else channel.of(context.host_fds[index]).sock


def _await(line: Channel, wanted: int) -> bytes:
    """Return the payload of the frame that must come next; without a host side, exit."""
    kind, payload = line.receive()
    if kind != wanted:
        posix._exit(1)
    return payload


# Signals that end a container which waits for start; execve makes them what they were.
_ENDING: Final = (_signal.SIGHUP, _signal.SIGINT, _signal.SIGQUIT, _signal.SIGTERM)


def _end(number: int, _: object) -> NoReturn:
    posix._exit(128 + number)


def _wait_for_start(context: Context, listener: Any) -> bytes:
    """Wait for start on the socket in the state directory, or for exec on the channel."""
    if listener is None:
        return _await(context.channel, channel.START)
    context.channel.close()
    for number in _ENDING:
        # The kernel drops what the first process of a pid namespace has no handler for.
        _signal.signal(number, _end)
    while True:
        connection, _ = listener._accept()
        line = channel.of(connection)
        kind, payload = line.receive()
        if kind == channel.START:
            listener.close()
            context.channel = line
            return payload
        line.close()  # a start that was killed before it could say so


def _launch(context: Context, mode: bytes) -> NoReturn:
    """Run the last steps and become the program.

    With mode "container" start is told of success at once and a failure goes to the container's
    own stderr and exit status, as crun does it.
    """
    try:
        _execute(context, "launch")
        context.channel.send(channel.EXEC)
        if mode == b"container":
            context.channel.close()
        program.execute(context.command)
    except BaseException as error:
        if mode != b"container":
            raise
        files.write_all(2, f"anocir: {shown(_text(error))}\n".encode())
        if context.channel.sock.fileno() >= 0:
            context.channel.send(channel.EXEC)
        posix._exit(127)
    posix._exit(1)


def _execute(context: Context, phase: str) -> None:
    for name, path, *values in context.plan[phase]:
        scope[:] = [phase, name, path]
        STEPS[name](context, *values)
    scope[:] = [phase, "", ""]


def _text(error: BaseException) -> str:
    """Say which step failed, on what, and why, with the JSON path that asked for it."""
    _, step, path = scope
    if isinstance(error, OSError) and step in ("bind", "filesystem", "cgroup_mount", "remount"):
        return _mount_text(error, path)
    text = reason(error)
    if isinstance(error, OSError):
        text = f"{DOING.get(step) or 'starting'}: {text}"
    elif not isinstance(error, Error):
        text = f"bug in anocir: {DOING.get(step) or 'starting'}: {text}"
    return f"{path}: {text}" if path and not text.startswith("exec: ") else text


def _mount_text(error: OSError, path: str) -> str:
    for name, where, *values in _plan_steps:
        if where == path and name in ("bind", "filesystem"):
            source, destination = values[1], values[2]
            break
        if where == path:
            source = "cgroup" if name == "cgroup_mount" else "itself"
            destination = values[0]
            break
    else:
        source, destination = "", ""
    detail = strerror(error.errno or 0)
    text = CONTRACT["mount"].format(source=source, destination=destination, reason=detail)
    return f"{path}: {text}"


def _hint(error: BaseException) -> str:
    """Say why a user namespace may not mount what shows a namespace that is not its own."""
    _, step, path = scope
    if step == "filesystem" and isinstance(error, OSError) and error.errno == EPERM:
        for name, where, *values in _plan_steps:
            if (name, where) == (step, path) and values[0] in _OWNED:
                return _OWNED[values[0]]
    return ""


_OWNED: Final = {
    "sysfs": "it takes a network namespace of the container's own user namespace, and a /sys here "
    "that nothing covers; else bind /sys",
    "proc": "it takes a pid namespace of the container's own user namespace, and a /proc here "
    "that nothing covers; else bind /proc",
    "mqueue": "it takes an ipc namespace of the container's own user namespace; else bind "
    "/dev/mqueue",
}
_plan_steps: list[Any] = []


def _fail(context: Context, error: BaseException) -> None:
    """Tell whoever listens what went wrong."""
    _plan_steps[:] = context.plan.get("setup", [])
    text = _text(error)
    hint = error.hint if isinstance(error, Error) else _hint(error)
    try:
        payload = f"{text}\0{hint}".encode("utf-8", "backslashreplace")
        context.channel.send(channel.ERROR, payload)
    except OSError:
        posix._exit(1)
