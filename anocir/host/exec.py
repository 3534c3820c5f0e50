"""The exec operation: another process in a container.

Side: host.
"""

from __future__ import annotations

import posix

from .. import cgroup
from ..cgroup.joining import Joining, of_exec
from ..base import jsonio, log
from ..errors import CONTRACT, Error, at, scene
from ..linux import files, processes
from ..linux.capabilities import NAMES
from ..model import entering, namespaces
from ..wire import channel
from . import fifos, foreground, joining, launch, program, states, transitions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Final

    from ..cli import Options, Settings
    from .launch import Init
    from .store import Container
    from .streams import Streams
    from ..model.schema import Capabilities, Config, Facts, Process, User
    from ..wire.shapes import Plan


def exec_(
    settings: Settings, container_id: str, options: Options, argv: Sequence[str], init: Init
) -> int:
    """Run another process in the container: its exit status, 0 when detached."""
    try:
        container, status = states.open_(settings, container_id, hold=True)
        if not (status == states.PAUSED and options["ignore_paused"]):
            transitions.check("exec", container, status)

        return execute(settings, container, options, argv, init)
    except Error as error:
        if not error.text.startswith(CONTRACT["exec failed"]):
            error.text = CONTRACT["exec failed"] + error.text
        if options["cwd"] and "chdir to cwd" in error.text:
            error.hint = error.hint or f"--cwd {options['cwd']} asked for it"
        raise


_MAX_ID: Final = (1 << 32) - 2


def execute(
    settings: Settings,
    container: Container,
    options: Options,
    argv: Sequence[str],
    init: Init,
) -> int:
    """Run a process in a container that allows it; `init` boots already.

    Returns its exit status, or 0 when it is left to itself.
    """
    detached = bool(options["detach"])
    if not detached:
        foreground.block_signals()
    config = container.config()
    process = _process(config, options, argv)
    if options["tools"]:
        from . import tools

        process["env"] = tools.with_path(process.get("env") or [])
    intent = container.intent
    scene.update({"config": config, "process": process, "rootfs": intent.get("rootfs", "")})
    scene["cgroup"] = intent["cgroup"]
    program.check_pidfd_socket(options)
    program.check_terminal(process, options, not detached)
    known = _known(settings, init, container, config, process, options)
    piped = None if detached else foreground.pipes(config, process)
    known["piped"] = piped.places if piped else []
    pid = container.state["pid"]
    # First the process itself, then what is found below its number.
    pidfd = container.hold()
    if pidfd < 0:
        raise Error(CONTRACT["exec stopped"])
    fds = _namespaces(pid, pidfd, known["join"])
    if piped:
        fds += piped.ends
    if options["tools"]:
        from . import tools

        tools.check(known["join"])
        known["tools"] = len(fds)
        fds.append(tools.mount(options["tools"]))
    compiled = entering.compile_exec(config, process, known)
    if log.shows(log.DEBUG):
        from ..model import explain

        for line in explain.describe(compiled):
            log.debug(line)
    try:
        _launch(settings, init, container, config, process, compiled, options, fds)
    except Error as error:
        if not isinstance(error, launch.Full) and not init.killed:
            raise
        # Two do not fit in, one may: init is put there when it is alone, and has done its work.
        init.again(settings, known["preserve_fds"])
        compiled["outside"] = True
        _launch(settings, init, container, config, process, compiled, options, fds)
    joining.close_all(fds)
    fifos.serve_start(container, init.pid, init.channel.fd)
    if options["pidfd_socket"]:
        channel.send_fd(options["pidfd_socket"], init.pidfd, b"exec", "--pidfd-socket")
    if options["pid_file"]:
        launch.write_pid_file(options["pid_file"], init.pid)
    if detached:
        return 0
    return _watch(container, init, piped)


_KILLED: Final = 128 + processes.SIGKILL


def _known(
    settings: Settings,
    init: Init,
    container: Container,
    config: Config,
    process: Process,
    options: Options,
) -> Facts:
    """Return what the plan must know, but for the namespaces and streams that are opened later."""
    return {
        **program.process_facts(settings, config, process),
        "id": container.id,
        "bundle": container.intent["bundle"],
        "state": {},
        "keyring": container.intent.get("keyring") or "",
        "preserve_fds": options["preserve_fds"],
        "listen_fds": init.listen_fds,
        "holes": init.holes,
        "join": [],
    }


def _watch(container: Container, init: Init, piped: Streams | None) -> int:
    """Relay streams and signals until the process ends; its exit status."""
    master = init.console[0] if init.console else -1
    watcher = foreground.Watcher(init.pid, init.pidfd, master, piped)
    try:
        status = watcher.wait()
    finally:
        watcher.close()
    if status == _KILLED:
        from . import oom

        text = oom.killed(container, init.pid)
        if text:
            log.warn(text)
    return status


def _launch(
    settings: Settings,
    init: Init,
    container: Container,
    config: Config,
    process: Process,
    compiled: Plan,
    options: Options,
    fds: list[int],
) -> None:
    compiled["fifos"] = False
    launch.hand_over(init, compiled, fds, settings)
    if (config.get("linux") or {}).get("seccomp"):
        state = states.oci_state(container, states.status_of(container))
        init.listener = joining.listener_sender(config, state)
    record = container.intent["cgroup"]
    subs = list(options["cgroup"])
    init_pid = container.state["pid"]
    waits = launch.must_raise(process)
    outside = compiled["outside"]
    try:
        groups = Joining() if outside else of_exec(record, subs)
        waits = waits or groups.waits()
        joining.send_cgroups(init, groups, -1, waits, always=not outside)
    except (FileNotFoundError, Error):
        if init.gone:
            raise
        # The recorded cgroup is gone or has no such child: exec_join looks where init is now.
        groups = Joining(asked=True)
        joining.send_cgroups(init, groups)
    init.adopt_worker(init.expect(channel.WORKER, "joining the container's cgroups"))
    alone = not init.in_cgroup
    if waits or (alone and not outside):
        init.expect(channel.MADE, "joining the container's namespaces")
        if not outside and (alone or groups.waits()):
            cgroup.load(record).exec_join(init.worker, init_pid, subs)
        launch.raise_limits(init.worker, process)
        init.send(channel.GO)
    init.adopt(init.expect(channel.PID, "joining the container's namespaces"))
    init.reap_worker()
    if process.get("oomScoreAdj") is not None:
        rootless = posix.geteuid() != 0 or processes.in_user_namespace()
        launch.adjust(init, {"process": process}, rootless)
    init.expect(channel.READY, "preparing the process")
    classes = container.intent.get("resctrl")
    if classes:
        from . import resctrl

        resctrl.join(classes, init.pid)
    if outside:
        cgroup.load(record).exec_join(init.pid, init_pid, subs)
    joining.hand_console(init, options, not options["detach"])
    init.send(channel.START)


def _namespaces(pid: int, pidfd: int, join: list[tuple[str, str]]) -> list[int]:
    """Open the namespaces of init that are not ours; `join` gets their kinds and paths."""
    fds: list[int] = []
    try:
        directory = processes.directory(pid)
        for kind, name in namespaces.FILES.items():
            try:
                theirs = files.stat(f"ns/{name}", directory)
                if theirs.st_ino != files.stat(f"/proc/self/ns/{name}").st_ino:
                    fds.append(files.open(f"ns/{name}", files.O_RDONLY, dir_fd=directory))
                    join.append((kind, f"/proc/{pid}/ns/{name}"))
            except FileNotFoundError:
                continue  # a kernel without this kind, or init has died meanwhile
        files.close(directory)
    except ProcessLookupError:
        raise Error(CONTRACT["exec stopped"]) from None
    if processes.exited(pidfd):
        raise Error(CONTRACT["exec stopped"])
    return fds


def _process(config: Config, options: Options, argv: Sequence[str]) -> Process:
    """Return the process object: from --process, or the container's own with the options."""
    if options["process"]:
        process: Process = jsonio.load(options["process"], piped=True, option="--process")
        program.drop_newer_capabilities(process, "process")
        from ..model.spec import process as process_spec

        process_spec.check(process, "process")
        for text in process_spec.not_granted(process.get("capabilities") or {}):
            log.warn(text)
        if not process.get("args"):
            raise at("process.args", "must not be empty")
        return _completed(process, config.get("process") or {})
    process = {"cwd": "/", "env": [], **(config.get("process") or {})}
    process["args"] = list(argv)
    process["terminal"] = bool(options["tty"])
    process["env"] = list(process["env"]) + _environment(options["env"])
    user: User = {**(process.get("user") or {"uid": 0, "gid": 0})}
    if options["user"]:
        user.update(_user(options["user"]))
    if options["additional_gids"]:
        gids = [_number(text, "--additional-gids") for text in options["additional_gids"]]
        user["additionalGids"] = [*(user.get("additionalGids") or []), *gids]
    process["user"] = user
    for key, option in (
        ("cwd", "cwd"),
        ("selinuxLabel", "process_label"),
        ("apparmorProfile", "apparmor"),
    ):
        if options[option]:  # type: ignore[literal-required]
            process[key] = options[option]  # type: ignore[literal-required]
    if not process["cwd"].startswith("/"):
        raise Error("--cwd: must be an absolute path")
    if options["no_new_privs"]:
        process["noNewPrivileges"] = True
    if options["cap"]:
        process["capabilities"] = _capabilities(process.get("capabilities") or {}, options["cap"])
    return process


# What a process object that does not say it takes from the container's, as in runc.
_TAKEN: Final = (
    "apparmorProfile", "capabilities", "execCPUAffinity", "ioPriority", "oomScoreAdj",
    "scheduler", "selinuxLabel",
)  # fmt: skip


def _completed(process: Process, own: Process) -> Process:
    taken: Any = {
        key: own[key] for key in _TAKEN if own.get(key) is not None and not process.get(key)
    }
    for key in ("capabilities", "oomScoreAdj"):
        if process.get(key) is not None:
            taken.pop(key, None)  # none at all, and 0, say something
    umask = (own.get("user") or {}).get("umask")
    user = process.get("user") or {}
    if umask is not None and user.get("umask") is None:
        taken["user"] = {**user, "umask": umask}
    return {**process, **taken}


def _environment(entries: Sequence[str]) -> list[str]:
    for index, entry in enumerate(entries):
        if "=" not in entry[1:]:
            # By its place alone: it may be the value that was meant, and a secret.
            raise Error(f"--env: number {index + 1} must be NAME=VALUE")
    return list(entries)


def _user(text: str) -> User:
    """Parse UID or UID:GID, as numbers only: names would come from the image."""
    uid, colon, gid = text.partition(":")
    result: User = {"uid": _number(uid, "--user")}
    if colon:
        result["gid"] = _number(gid, "--user")
    return result


def _number(text: str, option: str) -> int:
    # Python reads no number of more than 4300 digits, so what is not of the last ten must be zeros.
    digits = text.isascii() and text.isdigit()
    if not digits or text[:-10].strip("0") or int(text[-10:]) > _MAX_ID:
        hint = "UID or UID:GID: names of the image are not looked up" if option == "--user" else ""
        raise Error(f'{option}: "{text}" is not a number from 0 to {_MAX_ID}', hint)
    return int(text[-10:])


def _capabilities(sets: Capabilities, added: Sequence[str]) -> Capabilities:
    """Add capabilities to bounding, effective and permitted.

    Never to the inheritable set, and so not to the ambient one, unless the container uses it
    (CVE-2022-29162).
    """
    for name in added:
        if name not in NAMES and not program.kernel_has_newer_capabilities():
            raise Error(f'--cap {name}: unknown capability "{name}"')
        if name not in NAMES:
            log.warn(f"--cap {name}: capability is not known, ignored")
    added = [name for name in added if name in NAMES]
    result: Any = {key: list(value or []) for key, value in sets.items()}  # type: ignore[call-overload]
    for key in ("bounding", "effective", "permitted"):
        result[key] = [*result.get(key, []), *added]
    if result.get("inheritable"):
        result["ambient"] = [*result.get("ambient", []), *added]
    return result  # type: ignore[no-any-return]
