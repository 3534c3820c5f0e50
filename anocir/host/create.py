"""The create operation on the host side.

Side: host.  The order, and what is on disk at each point, is what makes a kill -9 harmless:
everything is checked before the first side effect; the intent is written before the first cgroup
is made; pid and start time before init is let go; the state "created" before COMMIT, without
which init ends by itself.
"""

from __future__ import annotations


import posix

from ..cgroup import choice
from ..base import jsonio, log
from ..errors import Error, keyed, reason, scene, scope
from ..linux import files, processes
from ..model import mountoptions, namespaces, plan
from ..model.spec import whole
from ..wire import channel
from . import facts, joining, launch, lock, program, reserve, saving, states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli import Options, Settings
    from .launch import Init
    from .recorder import Recorder
    from .store import Container
    from ..model.schema import Config, Facts, Hooks, Intent, StateFile
    from ..wire.shapes import Plan
    from ..cgroup import Maker


def create(settings: Settings, container_id: str, options: Options, init: Init) -> None:
    """Make a container of an init that boots already; it waits for start."""
    recorder = make(settings, container_id, options, init, foreground=False)
    init.channel.close()
    if recorder is not None:
        recorder.leave()


def make(
    settings: Settings,
    container_id: str,
    options: Options,
    init: Init,
    foreground: bool,
) -> Recorder | None:
    """Make a container up to the point where its init, which boots already, waits for start.

    Returns who records its system calls, if somebody does.
    """
    config, intent, known, recorder = checked(
        settings, container_id, options, foreground, init.listen_fds, init.holes
    )
    init.descriptors = known["descriptors"]
    if init.descriptors:
        launch.raise_descriptors(init.middle, init.descriptors)
    if foreground:
        from .foreground import pipes

        init.streams = pipes(config, config.get("process"))
        known["piped"] = init.streams.places if init.streams else []
    compiled = plan.compile_create(config, known)
    if log.shows(log.DEBUG):
        from ..model import explain

        for line in explain.describe(compiled):
            log.debug(line)
    fds = joining.open_namespaces(config)
    if init.streams:
        fds += init.streams.ends
    container = reserve.reserve(settings.root, container_id)
    try:
        if recorder is not None:
            recorder.start(container)
        _make(settings, init, container, config, compiled, intent, options, fds, foreground)
    except (Error, OSError) as error:
        failure = error if isinstance(error, Error) else Error(_named(error))
        _find_cause(settings, init, failure)
        _undo(init, container, config, failure, recorder)
        raise failure from None
    except BaseException as error:
        _undo(init, container, config, error, recorder)
        raise
    return recorder


def _named(error: OSError) -> str:
    try:
        from ..base import nameless

        return nameless.text(error, "create")
    except (ImportError, MemoryError, OSError):
        return reason(error)  # no memory, no descriptor: what was made is undone all the same


def checked(
    settings: Settings,
    container_id: str,
    options: Options,
    foreground: bool,
    listen_fds: int,
    holes: list[int],
) -> tuple[Config, Intent, Facts, Recorder | None]:
    """Return configuration, intent, the facts for the plan, and the recorder: all before making."""
    reserve.check_free(settings.root, container_id)
    bundle = facts.absolute(options["bundle"])
    config: Config = jsonio.load(f"{bundle}/config.json")
    program.drop_newer_capabilities(config.get("process"), "process")
    whole.check(config)
    if log.shows(log.WARNING):
        # Engines show what we say unasked: no more than the specification demands.
        asked = settings.debug or settings.log_level
        for text in whole.warnings(config) if asked else whole.demanded(config):
            log.warn(text)
    if log.shows(log.DEBUG):
        for name in config.get("annotations") or {}:
            if name.startswith("run.oci.") and name not in facts.CRUN_ANNOTATIONS:
                log.debug(f"{keyed('annotations', name)}: is not known, ignored")
    program.check_pidfd_socket(options)
    program.check_terminal(config.get("process") or {}, options, foreground, config)
    recorder = None
    if options["record_seccomp"] or options["record_base"]:
        from . import recorder as recording

        recorder = recording.Recorder(settings, container_id, options, config)
    rootfs = facts.rootfs(config, bundle)
    intent = intent_of(settings, container_id, config, bundle, rootfs, options)
    scene.update({"config": config, "rootfs": rootfs, "cgroup": intent["cgroup"]})
    known = facts.of_create(settings, container_id, config, options, intent)
    known["listen_fds"] = listen_fds
    facts.check_sysctls(config)
    known["holes"] = holes
    known["descriptors"] = facts.descriptors(config)
    known["keyring"] = intent["keyring"]
    if posix.environ.get(b"NOTIFY_SOCKET"):
        from . import notify

        known.update(notify.facts(f"{settings.root}/{container_id}"))
    return config, intent, known, recorder


def _find_cause(settings: Settings, init: Init, failure: Error) -> None:
    """Look for the cause while what was made is still there."""
    from . import causes

    scene["pids"] = (init.middle, init.worker, init.pid)
    failure.hint = causes.explain(failure.text, failure.hint, settings.root)


def _later_hooks(config: Config) -> Hooks:
    """Return the hooks that start and delete run."""
    hooks = config.get("hooks") or {}
    later: Hooks = {}
    if hooks.get("poststart"):
        later["poststart"] = hooks["poststart"]
    if hooks.get("poststop"):
        later["poststop"] = hooks["poststop"]
    return later


def intent_of(
    settings: Settings,
    container_id: str,
    config: Config,
    bundle: str,
    rootfs: str,
    options: Options,
) -> Intent:
    """Return what is written down before the first side effect."""
    creator = posix.getpid()
    intent: Intent = {
        "bundle": bundle,
        "rootfs": rootfs,
        "created": reserve.now(),
        "owner": facts.owner(),
        "annotations": config.get("annotations") or {},
        "hooks": _later_hooks(config),
        "cgroup": choice.choose(settings, config, container_id),
        "creator": [creator, processes.stat(creator)[3]],
        "private_pids": facts.private_pids(config),
        "keyring": "" if options.get("no_new_keyring") else "anocir." + posix.urandom(16).hex(),
    }
    if "mount" not in namespaces.of(config):
        from . import ending

        intent["host_mounts"] = ending.mount_count(rootfs)
    return intent


def _make(
    settings: Settings,
    init: Init,
    container: Container,
    config: Config,
    compiled: Plan,
    intent: Intent,
    options: Options,
    fds: list[int],
    foreground: bool,
) -> None:
    """Do it: every step from the first side effect to COMMIT, in the order of wire/channel.py."""
    _record(container, config, intent)
    manager = choice.maker(intent["cgroup"])
    _begin(init, manager, config, born=not compiled["late"])
    _hand_over(settings, init, container, config, compiled, fds)
    network = _network(config)
    _prepare(manager, config)
    # Join and adjust: what differs is who makes init, and when.
    make_init = _outside if compiled["late"] else _inside
    try:
        make_init(init, container, config, manager, network, born=True)
    except Error:
        if not _died_at_birth(init, container):
            raise
        # Without its help: from Linux 6.14 to 6.18 who is born in a cgroup is killed at once when
        # cgroup.kill has been used on the one where we are.
        init.again(settings, options["preserve_fds"])
        _hand_over(settings, init, container, config, compiled, fds)
        make_init(init, container, config, manager, _network(config), born=False)
    joining.close_all(fds)
    joining.hand_console(init, options, foreground)
    _commit(init, container, options)


def _record(container: Container, config: Config, intent: Intent) -> None:
    """Write down what will be made, for whoever has to remove it; from here on others may look."""
    saving.config(container, config)
    saving.intent(container, intent)
    if posix.environ.get(b"NOTIFY_SOCKET"):
        from . import notify

        if notify.wanted():
            notify.prepare(container.dir_fd)
    lock.give(container)


def _hand_over(
    settings: Settings,
    init: Init,
    container: Container,
    config: Config,
    compiled: Plan,
    fds: list[int],
) -> None:
    """Send PLAN with what it counts on: `fds`, the namespaces, and the line to start."""
    line = reserve.make_line(container)
    try:
        compiled["fifos"] = True
        launch.hand_over(init, compiled, [*fds, *line], settings)
    finally:
        joining.close_all(line)
    if (config.get("linux") or {}).get("seccomp"):
        state = states.oci_state(container, states.CREATING, 0)
        init.listener = joining.listener_sender(config, state)


def _begin(init: Init, manager: Maker, config: Config, *, born: bool) -> None:
    """Ask systemd for the unit, where it is asked: it needs as long as init needs to boot.

    With the middle process in it.  Not where a worker is born there first, which might find no
    room beside two others.
    """
    scope[:] = ["create", "cgroup", "linux.resources"]
    resources = (config.get("linux") or {}).get("resources") or {}
    manager.begin(resources, init.middle if born and _is_born(config) else 0)
    scope[:] = ["create", "", ""]


def _is_born(config: Config) -> bool:
    """Tell whether init can be born in its cgroup.

    Root of a user namespace may not, nor who has joined a cgroup namespace; and where clone3(2)
    fails for that, the new pid namespace can have no first process any more (ENOMEM).
    """
    spaces = namespaces.of(config)
    mapped = processes.in_user_namespace()
    return not ("user" in spaces or spaces.get("cgroup") or mapped)


def _prepare(manager: Maker, config: Config) -> None:
    """Make the cgroups, empty, with their limits."""
    scope[:] = ["create", "cgroup", "linux.resources"]
    manager.prepare((config.get("linux") or {}).get("resources") or {})
    scope[:] = ["create", "", ""]


def _commit(init: Init, container: Container, options: Options) -> None:
    """Tell who asked for it who init is, write the state "created", and let init live on."""
    if options["pid_file"]:
        launch.write_pid_file(options["pid_file"], init.pid)
    if options["pidfd_socket"]:
        channel.send_fd(options["pidfd_socket"], init.pidfd, b"init", "--pidfd-socket")
    lock.take(container)
    saving.state(container, created=True, **_evidence(container, init.pid))
    init.send(channel.COMMIT)
    lock.give(container)


def _died_at_birth(init: Init, container: Container) -> bool:
    """Tell whether init, born in its cgroup, was killed before it was heard of.

    Not in a unit: there who clones it is in the same cgroup.
    """
    in_unit = container.intent["cgroup"]["manager"] == "systemd"
    quiet = not init.heard and not container.state.get("hooked")
    return init.killed and init.born and quiet and not in_unit


def _inside(
    init: Init,
    container: Container,
    config: Config,
    manager: Maker,
    network: int,
    *,
    born: bool,
) -> None:
    """Make init by the middle process, and all that is in the container by init."""
    _write_maps(init, config, init.middle)
    mapped = processes.in_user_namespace()
    groups = manager.joining(born=born and _is_born(config))
    waits = _needs_us(config) or groups.waits()
    joining.send_cgroups(init, groups, network, waits)
    init.adopt(init.expect(channel.PID, "joining and making namespaces"))
    saving.state(container, pid=init.pid, start_time=init.start_time)
    if groups.into and not init.in_cgroup:
        groups.by_host.append(groups.into)  # it could not be born there
    if groups.waits():
        manager.join(init.pid, groups)
    launch.adjust(init, config, rootless=posix.geteuid() != 0 or mapped)
    if waits or not init.in_cgroup:
        _go(init, _for_init(init, container, config))
    init.reap_middle()
    _host_hooks(init, container, config)
    if container.intent["private_pids"]:
        saving.foresee(container, created=True)
    init.expect(channel.READY, "setting up the container")
    manager.finish(init.pid, groups)


def _outside(
    init: Init,
    container: Container,
    config: Config,
    manager: Maker,
    network: int,
    *,
    born: bool,
) -> None:
    """Make all by a worker, who clones init into the pid namespace of others at the end."""
    mapped = processes.in_user_namespace()
    groups = manager.joining(born=born)
    waits = _needs_us(config) or groups.waits()
    joining.send_cgroups(init, groups, network, waits)
    init.adopt_worker(init.expect(channel.WORKER, "joining the cgroups"))
    saving.state(container, pid=init.worker, start_time=init.start_time)
    _write_maps(init, config, init.worker)
    if groups.into and not init.in_cgroup:
        groups.by_host.append(groups.into)
    if waits or not init.in_cgroup:
        init.expect(channel.MADE, "joining and making namespaces")
        if groups.waits():
            manager.join(init.worker, groups)
        _go(init, _for_init(init, container, config))
    _host_hooks(init, container, config)
    init.adopt(init.expect(channel.PID, "setting up the container"))
    saving.state(container, pid=init.pid, start_time=init.start_time)
    init.reap_worker()
    launch.adjust(init, config, posix.geteuid() != 0 or mapped)
    init.expect(channel.READY, "becoming the container's process")
    manager.finish(init.pid, groups)


def _network(config: Config) -> int:
    """Make the container's network namespace where this side does: a descriptor of it, or -1."""
    if not namespaces.host_makes_network(config, processes.in_user_namespace()):
        return -1
    from . import network

    return network.make()


def _write_maps(init: Init, config: Config, pid: int) -> None:
    """Answer the process that has made a new user namespace with its id maps."""
    if namespaces.of(config).get("user") == "":
        init.expect(channel.MAP, "making the user namespace")
        from . import idmaps

        idmaps.write_maps(pid, config["linux"])
        init.send(channel.MAPPED)


def _for_init(init: Init, container: Container, config: Config) -> dict[int, int]:
    """Do what only this side may, once the namespaces are there; detached mounts by index."""
    launch.raise_limits(init.subject(), config.get("process") or {})
    _net_devices(init, config)
    intel_rdt(container, config, init.subject())
    return _idmapped(init, container, config)


def _go(init: Init, spare: dict[int, int]) -> None:
    """Let init go on, with the mounts that were made for it."""
    try:
        init.send(channel.GO, channel.packed(list(spare)), list(spare.values()))
    finally:
        joining.close_all(spare.values())


def _evidence(container: Container, pid: int) -> StateFile:
    """Return by what processes that outlive init are known, where some can."""
    if container.intent["private_pids"]:
        return {}
    from . import belonging

    return belonging.evidence(pid)


def _needs_us(config: Config) -> bool:
    """Tell whether init's set-up needs what this side does once it knows the pid."""
    linux = config.get("linux") or {}
    if linux.get("netDevices") or linux.get("intelRdt") is not None:
        return True
    if launch.must_raise(config.get("process") or {}):
        return True
    return any(mountoptions.idmap_words(mount) is not None for mount in config.get("mounts") or [])


def _host_hooks(init: Init, container: Container, config: Config) -> None:
    """Run the prestart and createRuntime hooks at the point where init asks for them."""
    entries = config.get("hooks") or {}
    if not any(map(entries.get, ("prestart", "createRuntime", "createContainer"))):
        return
    from . import hosthooks

    init.expect(channel.HOOKS, "setting up mounts and devices")
    # From here on hooks may have made something, which poststop hooks are there to take back.
    saving.state(container, hooked=True)
    hosthooks.before(entries, container, init.subject())
    init.send(channel.DONE)


def _idmapped(init: Init, container: Container, config: Config) -> dict[int, int]:
    """Make the id-mapped mounts, which need rights over the file system itself.

    Returns detached mounts by the index in `mounts`.  Those whose source only an earlier mount
    brings are made when init comes to them.
    """
    result: dict[int, int] = {}
    rootfs = container.intent["rootfs"]
    for index, mount in enumerate(config.get("mounts") or []):
        words = mountoptions.idmap_words(mount)
        if words is None:
            continue
        from . import idmapped as idmap

        where = f"mounts[{index}]"
        source = mount.get("source") or ""
        if not source.startswith("/"):
            source = f"{container.intent['bundle']}/{source}"
        linux = config.get("linux") or {}
        own = namespaces.own_user(config)
        inside, covered = plan.in_root(config, rootfs, index, source)
        known = (source, mount, words, init.subject(), where, linux, own)
        if not covered and not files.exists(source):
            from ..base import inroot

            inside = inside or inroot.beneath(rootfs, source)
            covered = bool(inside)
        if covered:
            init.mapped[index] = (*known, (rootfs, inside))
        else:
            result[index] = idmap.mount(*known)
    return result


def _net_devices(init: Init, config: Config) -> None:
    """Move interfaces of the host into the container's network namespace."""
    entries = (config.get("linux") or {}).get("netDevices")
    if entries:
        from . import netdevices

        netdevices.move(entries, init.subject())


def intel_rdt(container: Container, config: Config, pid: int) -> None:
    """Put init into its resource control group (resctrl)."""
    entry = (config.get("linux") or {}).get("intelRdt")
    if entry is not None:
        from . import resctrl

        made = resctrl.plan(entry, container.id)
        saving.intent(container, {**container.intent, "resctrl": made})
        saving.state(
            container,
        )  # which has a copy of the intent
        resctrl.apply(made, entry, pid)


def _undo(
    init: Init,
    container: Container,
    config: Config,
    error: BaseException,
    recorder: Recorder | None,
) -> None:
    """Take back what was made; what cannot be is left for delete --force and said."""
    from . import ending, oom

    if recorder is not None:
        recorder.abandon()
    text = ""
    if isinstance(error, Error) and container.intent:
        text = oom.want_of_memory(container, config, init.killed)
        if text:
            text = f"{text}: {oom.told(container, config)}"
    init.kill()
    if init.console is not None:
        files.close(init.console[0])
    hooked = container.state.get("hooked")
    classes = container.intent.get("resctrl")
    if classes and not classes["there"] and classes["group"] not in classes["made"]:
        classes["made"].insert(0, classes["group"])  # a new class that nobody has used yet
    try:
        lock.take(container)
        ending.destroy(container, config if hooked else {})
    except (Error, OSError) as failure:
        log.warn(f"cleaning up after a failed create: {reason(failure)}")
    container.close()
    if text and isinstance(error, Error):
        error.text = f"{text}: {error.text}"
