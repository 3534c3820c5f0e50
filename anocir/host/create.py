"""The create operation on the host side.

Side: host.  The order, and what is on disk at each point, is what makes a kill -9 harmless:
everything is checked before the first side effect; the intent is written before the first cgroup
is made; pid and start time before init is let go; the state "created" before COMMIT, without
which init ends by itself.
"""

from __future__ import annotations

import marshal

import posix

from .. import cgroup
from ..wire import channel
from ..base import jsonio, log
from . import launch, states as lifecycle, store
from ..inside import namespaces
from ..model import plan, spec
from ..errors import at, Error, reason, scope
from ..linux import files, mounts, processes
from ..linux.const import AT_FDCWD, ENOSYS, EPERM, OPEN_TREE_CLONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli import Options, Settings
    from .launch import Init
    from .store import Container


def create(
    settings: Settings,
    container_id: str,
    options: Options,
    init: Init,
    foreground: bool,
) -> None:
    """Make a container up to the point where its init, which boots already, waits for start."""
    bundle = absolute(options["bundle"])
    config = spec.load(f"{bundle}/config.json")
    spec.check(config)
    for text in spec.warnings(config) if settings.level() >= log.WARNING else ():
        log.warn(text)
    check_terminal(config.get("process") or {}, options, foreground)
    rootfs = _rootfs(config, bundle)
    creator = posix.getpid()
    intent = {
        "bundle": bundle,
        "rootfs": rootfs,
        "created": store.now(),
        "owner": _owner(),
        "annotations": config.get("annotations") or {},
        "cgroup": cgroup.choose(settings, config, container_id),
        "creator": [creator, processes.stat(creator)[3]],
        "private_pids": _private_pids(config),
    }
    if "mount" not in plan.namespaces(config):
        intent["host_mounts"] = lifecycle.mount_count(rootfs)
    facts = _facts(settings, container_id, config, options, intent)
    facts["listen_fds"] = init.listen_fds
    if posix.environ.get(b"NOTIFY_SOCKET"):
        from . import notify

        facts.update(notify.facts(f"{settings.root}/{container_id}"))
    compiled = plan.compile_create(config, facts)
    if settings.level() >= log.DEBUG:
        for line in plan.describe(compiled):
            log.debug(line)
    fds = open_namespaces(config)
    container = store.reserve(settings.root, container_id)
    try:
        _make(settings, init, container, config, compiled, intent, options, fds, foreground)
    except BaseException as error:
        _undo(settings, init, container, config, error)
        raise


def absolute(path: str) -> str:
    """Return a path of the caller as an absolute one; empty means the working directory."""
    if path.startswith("/"):
        return path.rstrip("/") or "/"
    return f"{files.getcwd()}/{path}".rstrip("/") if path not in ("", ".") else files.getcwd()


def check_terminal(process: dict[str, Any], options: Options, foreground: bool) -> None:
    """Refuse a terminal that nobody would hold, and a console socket for none."""
    terminal = bool(process.get("terminal"))
    socket = options["console_socket"]
    if terminal and not foreground and not socket:
        raise Error(
            "process.terminal: cannot allocate tty if the runtime will detach without setting "
            "console socket"
        )
    if socket and not terminal:
        raise Error(
            "--console-socket: cannot use console socket if the runtime will not detach or "
            "allocate tty",
            "process.terminal is false",
        )


def _rootfs(config: dict[str, Any], bundle: str) -> str:
    if not config.get("root"):
        raise at("root", "must be specified")
    path = config["root"]["path"]
    path = plan.normal(path if path.startswith("/") else f"{bundle}/{path}")
    try:
        found = files.stat(path)
    except OSError as error:
        raise at("root.path", f"invalid rootfs: stat {reason(error)}") from None
    if found.st_mode & files.S_IFMT != files.S_IFDIR:
        raise at("root.path", f"invalid rootfs: {path}: not a directory")
    return path


def _owner() -> str:
    """Return the name of the user who calls, by /etc/passwd of the host."""
    uid = str(posix.getuid())
    if uid == "0":
        return "root"
    try:
        for line in files.read_file("/etc/passwd").split(b"\n"):
            fields = line.split(b":")
            if len(fields) > 3 and fields[2] == uid.encode():
                return files.decode(fields[0])
    except OSError as error:
        log.debug(f"owner: {reason(error)}")
    return uid


def _private_pids(config: dict[str, Any]) -> bool:
    """Tell whether all processes end with init: a new pid namespace."""
    return plan.namespaces(config).get("pid") == ""


def lsm(name: str) -> bool:
    """Tell whether a Linux Security Module is on: "apparmor" or "selinux"."""
    if name == "selinux":
        return files.exists("/sys/fs/selinux/enforce")
    try:
        value = files.read_file("/sys/module/apparmor/parameters/enabled")
    except OSError:
        return False
    return value.startswith(b"Y")


def program(
    settings: Settings, config: dict[str, Any], no_new_privileges: bool
) -> dict[str, Any] | None:
    """Return the compiled seccomp program of a configuration, or None."""
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return None
    from .. import seccomp

    compiled = seccomp.compile(profile, f"{settings.root}/:seccomp", log.warn)
    if no_new_privileges:
        seccomp.check_after_load(compiled, seccomp.NEEDED_LAST, seccomp.OPTIONAL_LAST)
    else:
        seccomp.check_after_load(compiled)
    return compiled


def process_facts(
    settings: Settings, config: dict[str, Any], process: dict[str, Any]
) -> dict[str, Any]:
    """Return the facts that the plan of any process needs."""
    facts = {
        "seccomp": program(settings, config, bool(process.get("noNewPrivileges"))),
        "apparmor": bool(process.get("apparmorProfile")) and lsm("apparmor"),
        "selinux": bool(
            process.get("selinuxLabel") or (config.get("linux") or {}).get("mountLabel")
        )
        and lsm("selinux"),
    }
    for name, key in (("apparmor", "apparmorProfile"), ("selinux", "selinuxLabel")):
        if process.get(key) and not facts[name]:
            log.warn(f"process.{key}: {name} is not enabled on this host, ignored")
    return facts


def _facts(
    settings: Settings,
    container_id: str,
    config: dict[str, Any],
    options: Options,
    intent: dict[str, Any],
) -> dict[str, Any]:
    kinds = [mount.get("type") for mount in config.get("mounts") or []]
    view = fallback = None
    if "cgroup" in kinds or "cgroup2" in kinds:
        view = cgroup.load(intent["cgroup"]).mount_view()
        if intent["cgroup"].get("tolerant"):
            fallback = cgroup.load({"manager": "disabled", "reason": ""}).mount_view()
    state = {
        "ociVersion": lifecycle.SPEC_VERSION,
        "id": container_id,
        "bundle": intent["bundle"],
        "rootfs": intent["rootfs"],
    }
    if intent["annotations"]:
        state["annotations"] = intent["annotations"]
    return {
        **process_facts(settings, config, config.get("process") or {}),
        "id": container_id,
        "bundle": intent["bundle"],
        "rootfs": intent["rootfs"],
        "state": state,
        "cgroup": view,
        "cgroup_fallback": fallback,
        "check_command": settings.start_exec_errors != "container",
        "no_pivot": options["no_pivot"],
        "no_new_keyring": options["no_new_keyring"],
        "preserve_fds": options["preserve_fds"],
        "user_namespace": in_user_namespace(),
    }


def in_user_namespace() -> bool:
    """Tell whether the runtime itself is inside a user namespace."""
    try:
        return files.read_file("/proc/self/uid_map").split() != [b"0", b"0", b"4294967295"]
    except FileNotFoundError:
        return False  # a kernel without user namespaces


def open_namespaces(config: dict[str, Any]) -> list[int]:
    """Open the namespaces that are given by path, in the order that the plan counts them."""
    fds = []
    listed = (config.get("linux") or {}).get("namespaces") or []
    for index, entry in enumerate(listed):
        if entry.get("path"):
            where = f"linux.namespaces[{index}].path"
            kind = plan.NAMESPACES[entry["type"]]
            fd = namespaces.open_namespace(entry["path"], kind, where)
            fds.append(fd)
            if entry["type"] == "network":
                _check_net_sysctls(config, fd)
            elif entry["type"] == "user" and config["linux"].get("uidMappings"):
                namespaces.check_maps(fd, config["linux"])
    return fds


def _check_net_sysctls(config: dict[str, Any], fd: int) -> None:
    """Refuse to change the network of the host through a namespace that is its own."""
    if files.fstat(fd).st_ino != files.stat("/proc/self/ns/net").st_ino:
        return
    for name in (config.get("linux") or {}).get("sysctl") or {}:
        if name.startswith(("net.", "net/")):
            raise at(
                f'linux.sysctl["{name}"]',
                f'sysctl "{name}" not allowed in host network namespace',
            )


def _make(
    settings: Settings,
    init: Init,
    container: Container,
    config: dict[str, Any],
    compiled: dict[str, Any],
    intent: dict[str, Any],
    options: Options,
    fds: list[int],
    foreground: bool,
) -> None:
    """Do it: every step from the first side effect to COMMIT."""
    container.save_config(config)
    container.save_intent(intent)
    if posix.environ.get(b"NOTIFY_SOCKET"):
        from . import notify

        if notify.wanted():
            notify.prepare(container.dir_fd)
    container.unlock()
    manager = cgroup.load(intent["cgroup"])
    listener = channel.listen(container.dir_fd, store.SOCKET)
    compiled["start_socket"] = len(fds)
    launch.hand_over(init, compiled, [*fds, listener.fileno()], settings)
    listener.close()
    close_all(fds)
    resources = (config.get("linux") or {}).get("resources") or {}
    scope[:] = ["create", "cgroup", "linux.resources"]
    manager.prepare(resources)
    scope[:] = ["create", "", ""]
    if plan.namespaces(config).get("user") == "":
        init.expect(channel.MAP, "making the user namespace")
        namespaces.write_maps(init.middle, config["linux"])
        init.send(channel.MAPPED)
    joining = manager.self_join()
    into = ""
    spaces = plan.namespaces(config)
    mapped = in_user_namespace()
    if "user" in spaces or spaces.get("cgroup") or mapped:
        # Root of a user namespace may not be born there, nor who has joined a cgroup namespace;
        # and where clone3(2) fails for that, the new pid namespace can have no first process any
        # more (ENOMEM).
        into, joining = joining["into"], {**joining, "into": ""}
    network = namespaces.new_network() if plan.host_makes_network(config, mapped) else -1
    waits = bool(into) or _needs_us(config)
    joining = send_cgroups(init, joining, network, waits)
    init.adopt(init.expect(channel.PID, "joining and making namespaces"))
    container.save_state(pid=init.pid, start_time=init.start_time)
    if not init.in_cgroup:
        manager.join(init.pid)
    rootless = posix.geteuid() != 0 or mapped
    if into and joining and rootless:
        manager.join(init.pid)
    elif into and joining:
        files.write_file(f"{into}/cgroup.procs", str(init.pid))
    launch.adjust(init, config, rootless)
    _net_devices(init, config)
    _intel_rdt(container, config, init.pid)
    spare = _idmapped(init, config, intent)
    if waits or not init.in_cgroup:
        init.send(channel.GO, marshal.dumps(list(spare)), list(spare.values()))
    init.reap_middle()
    close_all(spare.values())
    _host_hooks(init, container, config)
    init.expect(channel.READY, "setting up the container")
    if not (joining and joining["late"]):
        manager.finish(init.pid)
    hand_console(init, options, foreground)
    if options["pid_file"]:
        launch.write_pid_file(options["pid_file"], init.pid)
    if options["pidfd_socket"]:
        channel.send_fd(options["pidfd_socket"], init.pidfd, b"init")
    container.lock()
    container.save_state(created=True)
    init.send(channel.COMMIT)
    container.unlock()


def _needs_us(config: dict[str, Any]) -> bool:
    """Tell whether init's set-up needs what this side does once it knows the pid."""
    linux = config.get("linux") or {}
    if linux.get("netDevices") or linux.get("intelRdt") is not None:
        return True
    return any(_idmap_words(mount) is not None for mount in config.get("mounts") or [])


def send_cgroups(
    init: Init, joining: dict[str, Any], network: int = -1, waits: bool = False
) -> dict[str, Any]:
    """Send init the cgroups that it joins by itself: born in one, then by their tasks files.

    And its network namespace, if this side has made it: a descriptor, which is closed.  Unless
    it `waits` for GO, init goes on at once when it is in its cgroups.  `init.reap_middle` closes
    the cgroup that it is born in.
    """
    fds = [network] if network >= 0 else []
    try:
        if joining["into"]:
            init.born_in = _cgroup_directory(joining["into"])
            fds.append(init.born_in)
        paths = [*joining["tasks"], *joining["late"]]
        fds += [files.open(path, files.O_WRONLY) for path in paths]
        waits = waits or not (joining["into"] or paths)
        counts = (network >= 0, bool(joining["into"]), len(joining["tasks"]), waits)
        init.send(channel.CGROUP, marshal.dumps(counts), fds, "joining and making namespaces")
    finally:
        close_all(fd for fd in fds if fd != init.born_in)
    return joining if joining["into"] or paths else {}


def _cgroup_directory(path: str) -> int:
    """Open the cgroup that init is born in so that its descriptor leads nowhere else.

    For a moment the process holds it inside the container's pid namespace, where one with
    CAP_SYS_PTRACE could follow /proc/PID/fd/N/../.. into the host: a detached mount has no parent.
    """
    try:
        return mounts.open_tree(AT_FDCWD, path, OPEN_TREE_CLONE)
    except OSError as error:
        if error.errno not in (ENOSYS, EPERM):
            raise
    return files.open(path, files.O_RDONLY | files.O_DIRECTORY)


def close_all(fds: Any) -> None:
    """Close descriptors."""
    for fd in fds:
        files.close(fd)


def _host_hooks(init: Init, container: Container, config: dict[str, Any]) -> None:
    """Run the prestart and createRuntime hooks at the point where init asks for them."""
    entries = config.get("hooks") or {}
    if not entries.get("prestart") and not entries.get("createRuntime"):
        return
    from ..base import hooks

    init.expect(channel.HOOKS, "setting up mounts and devices")
    # The environment is there, so the container counts as created (CONFORMANCE, hooks_stdin).
    data = jsonio.dumps(lifecycle.oci_state(container, lifecycle.CREATED, init.pid)).encode()
    for name in ("prestart", "createRuntime"):
        for index, hook in enumerate(entries.get(name) or []):
            hooks.run(hook, data, f"{name} hook #{index}")
    init.send(channel.DONE)


def hand_console(init: Init, options: Options, foreground: bool) -> None:
    """Send the master of the terminal to who asked for it, or keep it for the relay."""
    if init.console is None:
        return
    master, name = init.console
    if options["console_socket"]:
        channel.send_fd(options["console_socket"], master, name.encode())
    elif foreground:
        return
    files.close(master)
    init.console = None


def _idmapped(init: Init, config: dict[str, Any], intent: dict[str, Any]) -> dict[int, int]:
    """Make the id-mapped mounts, which need rights over the file system itself.

    Returns detached mounts by the index in `mounts`.
    """
    result: dict[int, int] = {}
    for index, mount in enumerate(config.get("mounts") or []):
        words = _idmap_words(mount)
        if words is None:
            continue
        from . import idmapped as idmap

        where = f"mounts[{index}]"
        source = mount.get("source") or ""
        if not source.startswith("/"):
            source = f"{intent['bundle']}/{source}"
        linux = config.get("linux") or {}
        result[index] = idmap.mount(source, mount, words, init.pid, where, linux)
    return result


def _idmap_words(mount: dict[str, Any]) -> list[str] | None:
    """Return the options that ask for an id-mapped mount (mappings may also); None for another."""
    words = [o for o in mount.get("options") or [] if o.split("=")[0] in ("idmap", "ridmap")]
    return words if words or mount.get("uidMappings") else None


def _net_devices(init: Init, config: dict[str, Any]) -> None:
    """Move interfaces of the host into the container's network namespace."""
    entries = (config.get("linux") or {}).get("netDevices")
    if entries:
        from . import netdevices

        netdevices.move(entries, init.pid)


def _intel_rdt(container: Container, config: dict[str, Any], pid: int) -> None:
    """Put init into its resource control group (resctrl)."""
    entry = (config.get("linux") or {}).get("intelRdt")
    if entry is not None:
        from . import resctrl

        made = resctrl.plan(entry, container.id)
        container.save_intent({**container.intent, "resctrl": made})
        container.save_state()  # which has a copy of the intent
        resctrl.apply(made, entry, pid)


def _undo(
    settings: Settings,
    init: Init,
    container: Container,
    config: dict[str, Any],
    error: BaseException,
) -> None:
    """Take back what was made; what cannot be is left for delete --force and said."""
    text = ""
    if isinstance(error, Error) and container.intent:
        text = lifecycle.want_of_memory(container, config, init.killed)
    init.kill()
    if init.console is not None:
        files.close(init.console[0])
    hooked = "hook" in str(error)
    classes = container.intent.get("resctrl")
    if classes and not classes["there"] and classes["group"] not in classes["made"]:
        classes["made"].insert(0, classes["group"])  # a new class that nobody has used yet
    try:
        container.lock()
        lifecycle.destroy(settings, container, config if hooked else {})
    except (Error, OSError) as failure:
        log.warn(f"cleaning up after a failed create: {reason(failure)}")
    container.close()
    if text and isinstance(error, Error):
        error.text = f"{text}: {error.text}"
