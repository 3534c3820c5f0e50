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
from _struct import pack, unpack

import posix

from ..wire import channel
from . import credentials, devices, masks, mounts, namespaces, process, procfs, program, root
from .context import Context
from ..errors import CONTRACT, Error, named, reason, scope, shown, strerror
from ..linux import files, inodes, oneself, tasks
from ..linux.const import CLONE_PARENT, PR_SET_DUMPABLE, PROC_SUPER_MAGIC
from ..linux.nr import NUMBERS
from ..linux.errnos import (
    EACCES,
    EAGAIN,
    EBUSY,
    EINVAL,
    ENODEV,
    ENOENT,
    ENOMEM,
    ENOSYS,
    ENOTSUP,
    EPERM,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, NoReturn

    from ..base.hooks import Hook
    from ..wire.channel import Channel, Line
    from ..wire.shapes import Plan

# The name of init until execve, for people.
NAME: Final = "anocir:init"
PHASES: Final = ("prepare", "setup", "launch", "born", "start")


def _host_hooks(context: Context) -> None:
    """Let the host side run the prestart and createRuntime hooks now."""
    context.channel.send(channel.HOOKS)
    _await(context.channel, channel.DONE)


def _hooks(context: Context, entries: list[Hook], name: str) -> None:
    """Run hooks in the container's namespaces, with the caller's umask.

    A startContainer hook is a program of the image: it runs as the container's process would,
    whose rights are all that init has by then, and in its environment unless it has its own.
    """
    from ..base import hooks, jsonio

    state = {**context.plan["state"], "status": "created", "pid": posix.getpid()}
    data = jsonio.dumps(state).encode()
    late = name == "startContainer"
    watch = -1 if late else context.channel.fd
    if late:
        wanted = context.plan["process"]
        listed = wanted["env"] if wanted else []
        env = hooks.environment(program.environment(listed, context.env))
        place = hooks.Place(env, None, context.hook_outputs)
    else:
        place = hooks.Place(None, context.root_fd, context.hook_outputs)
    mask = files.umask(context.umask)
    for index, hook in enumerate(entries):
        hooks.run(hook, data, f"{name} hook #{index}", place, watch)
    files.umask(mask)
    if late:
        program.pass_on(context)


def _hook_outputs(context: Context, annotations: dict[str, str]) -> None:
    """Open the files that take what the hooks inside print, while the host's are in sight."""
    from ..base import hooks

    context.hook_outputs = hooks.open_outputs(annotations, context.plan["bundle"])


def _console(context: Context, *values: Any) -> None:
    """Open the container's terminal."""
    from . import console

    console.console(context, *values)


def _controlling_terminal(context: Context) -> None:
    """Make descriptor 0 the terminal of our session."""
    from ..linux import terminals

    terminals.control(0)


def _tools(context: Context, index: int) -> None:
    """Enter a root that shows the tools of exec too."""
    from . import tools

    tools.tools(context, index)


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
    "controlling_terminal": _controlling_terminal,
    "console": _console,
    "denied_sources": mounts.denied_sources,
    "device": devices.device,
    "device_links": devices.device_links,
    "domainname": namespaces.domainname,
    "drop_bounding": credentials.drop_bounding,
    "filesystem": mounts.filesystem,
    "final_propagation": root.final_propagation,
    "hold_signals": process.hold_signals,
    "home": program.home,
    "hooks": _hooks,
    "hook_outputs": _hook_outputs,
    "host_hooks": _host_hooks,
    "hostname": namespaces.hostname,
    "io_priority": process.io_priority,
    "join_all": namespaces.join_all,
    "join_late": process.join_late,
    "join_pids": namespaces.join_pids,
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
    "reopen_null": process.reopen_null,
    "rlimits": process.rlimits,
    "root": root.root,
    "root_here": root.root_here,
    "root_readonly": root.root_readonly,
    "scheduler": process.scheduler,
    "seccomp": credentials.seccomp,
    "session": process.session,
    "shed": credentials.shed,
    "streams": process.streams,
    "source": mounts.source,
    "sysctl": procfs.sysctl,
    "time_offsets": namespaces.time_offsets,
    "tools": _tools,
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
    "controlling_terminal": "taking the terminal",
    "denied_sources": "opening the sources of mounts",
    "device": "making the device",
    "device_links": "making the links in /dev",
    "domainname": "setting the domain name",
    "drop_bounding": "dropping capabilities of the bounding set",
    "filesystem": "mounting",
    "final_propagation": "setting the propagation of the root",
    "hold_signals": "blocking signals",
    "home": "looking up the home directory",
    "hook_outputs": "opening the output of hooks",
    "hooks": "running hooks",
    "host_hooks": "waiting for hooks of the host",
    "hostname": "setting the host name",
    "io_priority": "setting the I/O priority",
    "join_all": "joining namespaces",
    "join_late": "joining the cgroup",
    "join_pids": "joining the pid namespace",
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
    "reopen_null": "opening /dev/null",
    "rlimits": "setting resource limits",
    "root": "opening the root",
    "root_here": "opening the root",
    "root_readonly": "making the root read-only",
    "scheduler": "setting the scheduler",
    "seccomp": "loading the seccomp filter",
    "session": "starting a session",
    "shed": "giving up what loading the filter took",
    "source": "opening the source of the mount",
    "streams": "looking at the standard streams",
    "sysctl": "setting the sysctl",
    "time_offsets": "setting the time offsets",
    "tools": "showing the tools",
    "umask": "setting the umask",
    "unshare": "making namespaces",
    "user": "becoming the user",
}


class _Refuse:
    """The finder that is left once imports are sealed."""

    def find_spec(self, name: str, *_: object) -> None:
        """Refuse to import anything."""
        raise ImportError(f"import of {name} after the root was entered")


def _import_rest(plan: Plan) -> None:
    """Import what only some plans need, while importing is possible."""
    steps = {step[0] for phase in PHASES for step in plan[phase]}
    if "console" in steps:
        from . import console  # noqa: F401
    if "tools" in steps:
        from . import tools  # noqa: F401
    if "hooks" in steps:
        from ..base import hooks, jsonio  # noqa: F401


def _archive_fd() -> int:
    """Return the descriptor from which modules are read (base/preload.py), or -1."""
    return getattr(sys.meta_path[0], "fd", -1)


def seal(path_fd: int) -> None:
    """Switch importing off for good: what the image has would run as root."""
    for fd in {_archive_fd(), path_fd}:
        if fd >= 0:
            files.close(fd)
    sys.path[:] = []
    sys.meta_path[:] = [_Refuse()]
    sys.path_hooks[:] = []
    sys.path_importer_cache.clear()


def main() -> NoReturn:
    """Take the plan from the channel and never return."""
    # The interpreter's own handler would let a process of the container end init by SIGINT.
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)
    fd, preserved, path_fd = (int(word) for word in sys.argv[1:4])
    gc.disable()
    files.set_inheritable(fd, False)  # it has come through execve(2), and goes no further
    line = channel.Channel(fd)
    _close_foreign(3 + preserved, fd, path_fd, _archive_fd())
    try:
        if posix.geteuid() == 0:
            # Nobody who shares a namespace with us may look into this process (CVE-2016-9962).
            named("prctl", tasks.prctl, PR_SET_DUMPABLE, 0)
        named("prctl", oneself.set_name, NAME)
        kind, payload = named("recvmsg", line.receive)
    except OSError as error:
        line.send(channel.ERROR, reason(error).encode())
        posix._exit(1)
    if kind != channel.PLAN:
        posix._exit(1)
    context = Context(line, marshal.loads(payload))
    context.host_fds, line.fds = line.fds, []
    try:
        if context.plan["trace"]:
            from ..linux import trace

            trace.attach(context.host_fds.pop(), *context.plan["trace"])
        if context.plan["fifos"]:
            context.host_fds, context.line_fds = context.host_fds[:-2], context.host_fds[-2:]
        _import_rest(context.plan)
        seal(path_fd)
        oneself.host_proc = False
        _run(context)
    except BaseException as error:
        _fail(context, error)
    posix._exit(1)


def _close_foreign(first: int, *kept: int) -> None:
    """Close what the caller leaked to us: everything from `first` on but these descriptors."""
    for fd in sorted(kept):
        if fd > first:
            oneself.close_range(first, fd - 1)
        first = max(first, fd + 1)
    oneself.close_range(first, oneself.LAST_FD)


def _run(context: Context) -> None:
    """Do what the plan says, in this process and those that it clones; then become the program.

    With `late` init is cloned when it has lost every right that its program will not have.
    """
    # A mode is given as it is meant, not as the caller's mask leaves it.
    context.umask = files.umask(0)
    context.host_proc = _host_proc()
    process.reset_affinity()
    if context.plan["late"]:
        _from_outside(context)
    else:
        _from_inside(context)
    context.channel.send(channel.READY)
    _launch(context, _wait_for_start(context))


def _host_proc() -> int:
    """Open the procfs of the host while nothing but the host's mounts is there; -1 without one."""
    try:
        fd = files.open("/proc", files.O_PATH | files.O_DIRECTORY)
    except OSError:
        return -1
    if inodes.fstatfs_type(fd) != PROC_SUPER_MAGIC:
        files.close(fd)
        return -1
    return fd


def _cgroup_frame(context: Context) -> tuple[int, int, int, bool]:
    """Receive the cgroups: (network namespace or -1, cgroup to be born in or -1, at once, waits).

    The cgroups of version 1 are then in `context.late_join`; `at once` is how many come first.
    """
    line = context.channel
    network, into, now, waits = unpack(channel.CGROUP_FRAME, _await(line, channel.CGROUP))
    fds, line.fds = line.fds, []
    network_fd = fds.pop(0) if network else -1
    into_fd = fds.pop(0) if into else -1
    context.late_join = fds
    return network_fd, into_fd, now, waits


def _from_inside(context: Context) -> None:
    """Prepare in this process, the middle one; then clone init, which does the rest.

    For a pid namespace of the container's own: nobody is in there before init.
    """
    line = context.channel
    _execute(context, "prepare")
    network_fd, into_fd, now, waits = _cgroup_frame(context)
    if network_fd >= 0:
        namespaces.enter_network(network_fd)
    in_cgroup = into_fd < 0 and bool(context.late_join)
    pid, born_there, refusal = _clone_into(into_fd)
    if pid < 0:
        pid = _clone() if refusal is None else _clone_again(context, refusal)
    in_cgroup = in_cgroup or born_there
    if pid:
        line.send(channel.PID, pack(channel.PID_FRAME, pid, in_cgroup))
        posix._exit(0)
    if born_there:
        process.own_processors()
    _settle(context, now, waits or not in_cgroup)
    _execute(context, "setup")
    _execute(context, "launch")


def _from_outside(context: Context) -> None:
    """Do all that needs a right before there is a process that the pid namespace can see.

    Who is cloned into the cgroup need not be moved there, for which the kernel would wait.
    """
    line = context.channel
    network_fd, into_fd, now, waits = _cgroup_frame(context)
    in_cgroup = into_fd < 0 and bool(context.late_join)
    pid, in_there, _ = _clone_into(into_fd)
    if pid > 0:
        line.send(channel.WORKER, pack(channel.PID_FRAME, pid, True))
        posix._exit(0)
    in_cgroup = in_cgroup or in_there
    if in_there:
        process.own_processors()
    else:
        line.send(channel.WORKER, pack(channel.PID_FRAME, posix.getpid(), in_cgroup))
    _execute(context, "prepare")
    if network_fd >= 0:
        namespaces.enter_network(network_fd)
    waits = waits or not (in_cgroup or context.plan["outside"])
    if waits:
        line.send(channel.MADE)
    _settle(context, now, waits)
    _execute(context, "setup")
    _execute(context, "launch")
    pid = _clone()
    if pid:
        context.channel.send(channel.PID, pack(channel.PID_FRAME, pid, in_cgroup))
        posix._exit(0)
    _execute(context, "born")


def _settle(context: Context, now: int, waits: bool) -> None:
    """Wait for what only the host side may do; join the cgroups that do not come last."""
    if waits:
        line = context.channel
        indices = _await(line, channel.GO)
        context.spare_fds = dict(zip(channel.unpacked(indices), line.fds))
        line.fds = []
    process.join_cgroups(context.late_join[:now])
    context.late_join = context.late_join[now:]


# ENOENT: the cgroup lies outside of the cgroup namespace that was joined (nsdelegate).
_CLONE_AGAIN: Final = (EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOSYS, ENOTSUP, EPERM)


class Full(Error):
    """There is no room for another process in the container's cgroups."""

    __slots__ = ()


def _clone_into(cgroup_fd: int) -> tuple[int, bool, OSError | None]:
    """Clone a process into a cgroup: (its pid, 0 in itself, or -1 where that cannot be; whether).

    CLONE_PARENT makes it a child of the runtime and not of this process, which ends here.  Third
    comes why it cannot be, where that was tried.
    """
    if cgroup_fd < 0:
        return -1, False, None
    try:
        pid = tasks.clone_into(cgroup_fd)
    except OSError as error:
        files.close(cgroup_fd)
        if error.errno not in _CLONE_AGAIN:
            raise _clone_error(error.errno or 0, "clone3 into the cgroup") from None
        return -1, False, error
    files.close(cgroup_fd)
    return pid, True, None


def _clone_again(context: Context, refusal: OSError) -> int:
    """Clone init where it could not be born in its cgroup; what is told is why it could not."""
    try:
        namespaces.renew_pids(context)
        return tasks.clone(CLONE_PARENT)
    except OSError:
        raise _clone_error(refusal.errno or 0, "clone3 into the cgroup") from None


def _clone() -> int:
    """Clone init: 0 in itself, else its pid."""
    try:
        return tasks.clone(CLONE_PARENT)
    except OSError as error:
        raise _clone_error(error.errno or 0, "clone init") from None


def _clone_error(number: int, what: str) -> Error:
    kind = Full if number in (EAGAIN, ENOMEM) else Error
    return kind(f"{what}: {strerror(number)}")


def _await(line: Channel | Line, wanted: int) -> bytes:
    """Return the payload of the frame that must come next; without a host side, exit."""
    kind, payload = line.receive()
    if kind != wanted:
        posix._exit(1)
    return payload


def _wait_for_start(context: Context) -> bytes:
    """Wait for start on the FIFO in the state directory, or for exec on the channel."""
    if not context.line_fds:
        return _await(context.channel, channel.START)
    _await(context.channel, channel.COMMIT)
    context.channel.close()
    context.channel = channel.Line(*context.line_fds)
    if context.signal_fd >= 0:
        process.wait_or_end(context)
    return _await(context.channel, channel.START)


def _launch(context: Context, mode: bytes) -> NoReturn:
    """Run the startContainer hooks and become the program.

    With mode "container" start is told of success at once and a failure goes to the container's
    own stderr and exit status, as crun does it.
    """
    told = False
    try:
        _execute(context, "start")
        context.channel.send(channel.EXEC)
        told = True
        if mode == b"container":
            context.channel.close()
        program.execute(context.command)
    except BaseException as error:
        if mode != b"container":
            raise
        files.write_all(2, f"anocir: {shown(_text(context, error))}\n".encode())
        if not told:
            context.channel.send(channel.EXEC)
        posix._exit(127)
    posix._exit(1)


def _execute(context: Context, phase: str) -> None:
    for name, path, *values in context.plan[phase]:  # type: ignore[literal-required]
        scope[:] = [phase, name, path]
        STEPS[name](context, *values)
    scope[:] = [phase, "", ""]


def _text(context: Context, error: BaseException) -> str:
    """Say which step failed, on what, and why, with the JSON path that asked for it."""
    _, step, path = scope
    if isinstance(error, OSError) and step in ("bind", "filesystem", "cgroup_mount", "remount"):
        return _mount_text(context, error, path)
    text = reason(error)
    if isinstance(error, OSError):
        if error.filename is None and error.strerror in NUMBERS:
            text = f"{error.strerror}(2): {text}"
        text = f"{DOING.get(step) or 'starting'}: {text}"
    elif not isinstance(error, Error):
        text = f"bug in anocir: {DOING.get(step) or 'starting'}: {text}"
    return f"{path}: {text}" if path and not text.startswith("exec: ") else text


def _mount_text(context: Context, error: OSError, path: str) -> str:
    for name, where, *values in context.plan["setup"]:
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


def _fail(context: Context, error: BaseException) -> None:
    """Tell whoever listens what went wrong."""
    text = _text(context, error)
    hint = error.hint if isinstance(error, Error) else ""
    try:
        told = f"{text}\0{hint}\0{scope[1]}"
        payload = told.encode("utf-8", "backslashreplace")[: channel.MOST_TEXT]
        kind = channel.FULL if isinstance(error, Full) else channel.ERROR
        context.channel.send(kind, payload)
    except OSError:
        posix._exit(1)
