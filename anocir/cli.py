"""The command line: one table a command, which parses the words and prints the help.

Side: host.  An own parser, because callers rely on Go's flag package: an option may come twice
(Docker's runtimeArgs; the last one counts), may have one dash (`-no-subreaper`, sent by
go-runc), a boolean may have a value (`--all=true`), a value may be negative, global options may
follow the command, and for exec, kill and ps everything after the id belongs to the command.
argparse would also cost 10 ms.

A row of a table is (name, short, kind, default, metavar, help); a row without help is hidden.
Kinds: flag, text, list, int, size (10M), duration (1m30s, in seconds), choice (of the metavar).
"""

from __future__ import annotations

import sys

import posix

from . import errors, import_
from .base import normal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, Protocol, TypedDict

    Option = tuple[str, str, str, object, str, str]
    Table = tuple[Option, ...]
    Run = Callable[["Settings", "Options", list[str]], int]

    class Options(TypedDict, total=False):
        """The options of all commands by name, as tests/unit/test_cli.py compares with OPTIONS.

        A command has all of its own and no others.
        """

        # create, run; partly exec, restore, explain, spec, check, validate
        bundle: str
        console_socket: str
        pidfd_socket: str
        pid_file: str
        dry_run: bool
        record_seccomp: str
        record_base: str
        no_pivot: bool
        no_new_keyring: bool
        preserve_fds: int
        # run, restore, exec
        detach: bool
        keep: bool
        no_subreaper: bool
        # exec; explain and validate have `process` too
        process: str
        tty: bool
        cwd: str
        env: list[str]
        user: str
        additional_gids: list[str]
        process_label: str
        apparmor: str
        no_new_privs: bool
        cap: list[str]
        cgroup: list[str]
        ignore_paused: bool
        tools: str
        # kill, delete, events, list
        all: bool
        signal: str
        force: bool
        interval: float
        stats: bool
        quiet: bool
        format: str
        # update; validate has `resources` too
        resources: str
        device_add: list[str]
        device_remove: list[str]
        blkio_weight: int | None
        cpu_period: int | None
        cpu_quota: int | None
        cpu_burst: int | None
        cpu_share: int | None
        cpu_rt_period: int | None
        cpu_rt_runtime: int | None
        cpu_idle: int | None
        cpuset_cpus: str | None
        cpuset_mems: str | None
        memory: int | None
        memory_reservation: int | None
        memory_swap: int | None
        pids_limit: int | None
        l3_cache_schema: str | None
        mem_bw_schema: str | None
        kernel_memory: int | None
        kernel_memory_tcp: int | None
        # checkpoint, restore
        image_path: str
        work_path: str
        parent_path: str
        leave_running: bool
        tcp_established: bool
        tcp_skip_in_flight: bool
        tcp_close: bool
        link_remap: bool
        ext_unix_sk: bool
        shell_job: bool
        lazy_pages: bool
        status_fd: int
        page_server: str
        file_locks: bool
        pre_dump: bool
        manage_cgroups_mode: str
        empty_ns: list[str]
        auto_dedup: bool
        lsm_profile: str
        lsm_mount_context: str
        # spec, validate, repack
        rootless: bool
        config: str
        output: str
        compile: bool
        old: str

    class Settings:
        """The global options, and what the door knows of the process itself: from `defaults`."""

        command: str
        # What a second interpreter puts on sys.path: <archive>/site-packages.
        import_path: str
        root: str
        log: str
        log_format: str
        log_level: str
        debug: bool
        trace: str
        trace_format: str
        systemd_cgroup: bool
        cgroup_manager: str
        rootless: str
        start_exec_errors: str
        criu: str
        old_criu: bool
        # --root was given: it is not the default.
        root_given: bool
        # Nothing is to be made, a cache neither (create --dry-run).
        dry_run: bool
        # The words have been read: what fails from here on is the operation.
        understood: bool
        help: bool
        version: bool

    class Command(Protocol):
        """What each file in commands/ defines."""

        HELP: str
        USAGE: str
        OPTIONS: Table
        ARGS: tuple[int, int]
        run: Run


NO_LIMIT: Final = 1 << 30

# In the order of the help.
COMMANDS: Final = (
    "create", "start", "run", "exec", "kill", "delete", "state", "list", "ps",
    "pause", "resume", "update", "mounts", "diff", "events", "checkpoint", "restore", "features",
    "spec", "validate", "explain", "check", "repack", "completion",
)  # fmt: skip
_ALL_IDS: Final = (1 << 32) - 1  # how many the map of the host's user namespace has
HIDDEN: Final = ("init",)

GLOBALS: Final[Table] = (
    ("root", "", "text", "", "DIR",
     "directory of the containers' state; default /run/anocir, without root privileges "
     "$XDG_RUNTIME_DIR/anocir"),
    ("log", "", "text", "", "FILE", "append the error to FILE, besides printing it on stderr"),
    ("log-format", "", "choice", "text", "text|json", "how lines in the log look"),
    ("log-level", "", "choice", "", "error|warning|info|debug", "what is logged; default warning"),
    ("debug", "", "flag", False, "", "the same as --log-level debug"),
    ("trace", "", "text", "", "FILE", "write each system call of the runtime to FILE, decoded"),
    ("trace-format", "", "choice", "text", "text|json", "how lines of the trace look"),
    ("systemd-cgroup", "s", "flag", False, "", "make cgroups through systemd"),
    ("cgroup-manager", "", "choice", "", "cgroupfs|systemd|disabled",
     "who makes cgroups; disabled leaves them alone"),
    ("rootless", "", "choice", "auto", "true|false|auto",
     "tolerate that cgroups cannot be made; default: without root privileges"),
    ("start-exec-errors", "", "choice", "report", "report|container",
     "when the program cannot be executed: start fails and says why (report), or start "
     "succeeds and the container prints the reason and exits with 127 (container)"),
    ("criu", "", "text", "", "PATH", ""),
    ("old-criu", "", "flag", False, "",
     "take a criu older than 4.2.1, in which a container can forge its credentials"),
)  # fmt: skip
HELP_ROW: Final[Option] = ("help", "h", "flag", False, "", "print this help")
VERSION_ROW: Final[Option] = ("version", "v", "flag", False, "", "print the version")


def defaults() -> Settings:
    """Return the settings before a word has been read; `parse` fills in the rest while it reads."""
    # Not a class at run time: making one costs as much as reading a dozen command lines.
    namespace: Any = type(sys.implementation)
    settings: Settings = namespace(
        command="", import_path="", root="", log="", log_format="text", log_level="", debug=False,
        trace="", trace_format="text", systemd_cgroup=False, cgroup_manager="", rootless="auto",
        start_exec_errors="report", criu="", old_criu=False, root_given=False, dry_run=False,
        understood=False, help=False, version=False,
    )  # fmt: skip
    return settings


def parse(argv: list[str], settings: Settings) -> tuple[str, Run, Options, list[str]]:
    """Read a command line: (command, its run function, options, positional arguments).

    Global options are stored in `settings` one by one, so that --log is known even if a later
    word is wrong.
    """
    found: Options = {}
    words = _read(argv, "", (), True, found, settings)
    if settings.version:
        from . import version

        return "version", version.print_version, found, []
    name = words[0] if words else ""
    if not name or name == "help":
        from . import manual

        return "help", manual.print_help, found, words[1:2]
    settings.command = name
    if name not in COMMANDS and name not in HIDDEN:
        from . import manual

        raise manual.unknown(name)
    command = load(name)
    options: Any = {
        row[0].replace("-", "_"): list(row[3]) if row[2] == "list" else row[3]  # type: ignore[call-overload]
        for row in command.OPTIONS
    }
    more = vars(command)
    args = _read(words[1:], name, command.OPTIONS, more.get("IN_ORDER", False), options, settings)
    if settings.help:
        from . import manual

        return "help", manual.print_help, found, [name]
    _check_count(name, command.ARGS, len(args))
    settings.understood = True
    if command.ARGS[0] and not more.get("NO_ID", False):
        check_id(args[0])
    return name, command.run, options, args


def load(name: str) -> Command:
    """Import the one file of a command."""
    module: Command = import_(f"anocir.commands.{name}")
    return module


def _find(name: str, table: Table) -> Option | None:
    """Return the row of an option by its long name, or by its short one, which not each has."""
    for row in table:
        if name in row[:2] and name:
            return row
    return None


def _read(
    words: list[str],
    command: str,
    own: Table,
    in_order: bool,
    options: Any,
    settings: Settings,
) -> list[str]:
    """Sort words into options (stored), global options (stored) and positionals (returned)."""
    args: list[str] = []
    where = f"{command}: " if command else ""
    index = 0
    while index < len(words):
        word = words[index]
        index += 1
        if word == "--":
            return args + words[index:]
        if len(word) < 2 or word[0] != "-":
            args.append(word)
            if in_order:
                # Only what is before it has options that a "--" after the id could end.
                index += bool(command) and words[index : index + 1] == ["--"]
                return args + words[index:]
            continue
        name, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        of_command = _find(name, own)
        row = of_command or _find(name, (*GLOBALS, HELP_ROW, VERSION_ROW))
        if row is None or (row is VERSION_ROW and command):
            from . import manual

            raise errors.Error(
                f"{where}flag provided but not defined: {word.partition('=')[0]}",
                manual.like(name, own, (*GLOBALS, HELP_ROW, VERSION_ROW))
                + f"anocir {command + ' ' if command else ''}--help lists the options",
            )
        if row[2] == "flag":
            result: object = _boolean(where, row[0], value) if equals else True
        else:
            if not equals:
                if index == len(words):
                    raise errors.Error(f"{where}flag needs an argument: {word}")
                value = words[index]
                index += 1
            result = _convert(where, row, value)
        key = row[0].replace("-", "_")
        if of_command is None:
            setattr(settings, key, result)
        elif row[2] == "list":
            options[key].append(result)
        else:
            options[key] = result
    return args


def _boolean(where: str, name: str, value: str) -> bool:
    # The words of Go's strconv.ParseBool.
    if value in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if value in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise errors.Error(f'{where}--{name}: must be true or false, got "{value}"')


_RLIMIT_NOFILE: Final = 7
_BOOLEANS: Final = ("1", "t", "true", "0", "f", "false")


def _convert(where: str, row: Option, value: str) -> object:
    name, _, kind, _, metavar, _ = row
    if kind in ("text", "list"):
        return value
    if kind == "choice":
        if value not in metavar.split("|"):
            if name == "log-format":
                # The words of runc, without the value being believed.
                raise errors.Error(f'invalid log-format "{value}", must be text or json')
            if name == "rootless":
                if value.lower() not in _BOOLEANS:
                    raise errors.Error(f'--rootless: must be true, false or auto, got "{value}"')
                return "true" if _boolean(where, name, value) else "false"
            choices = " or ".join(metavar.split("|")).replace(" or ", ", ", metavar.count("|") - 1)
            raise errors.Error(f'{where}--{name}: must be {choices}, got "{value}"')
        return value
    from . import quantities

    try:
        return quantities.READERS[kind](value)
    except ValueError as error:
        raise errors.Error(f'{where}--{name}: must be {error}, got "{value}"') from None


def _check_count(name: str, bounds: tuple[int, int], count: int) -> None:
    least, most = bounds
    if least <= count <= most:
        return
    usage = f"usage: anocir {name} {load(name).USAGE}"
    if least == most:
        raise errors.Error(f'"{name}" requires exactly {least} argument(s)', usage)
    if count < least:
        raise errors.Error(f'"{name}" requires a minimum of {least} argument(s)', usage)
    raise errors.Error(f'"{name}" requires a maximum of {most} argument(s)', usage)


def check_id(container_id: str) -> None:
    """Refuse an id that could be anything but one name in the state directory."""
    if not container_id:
        raise errors.Error("container id cannot be empty")
    rest = container_id.translate({ord(char): None for char in "_+-."})
    if container_id in (".", "..") or (rest and not (rest.isascii() and rest.isalnum())):
        shown = container_id if len(container_id) <= 80 else container_id[:77] + "..."
        raise errors.Error(
            f'invalid container ID format: "{shown}"', "letters, digits and _ + - . are allowed"
        )


def check_preserved(command: str, options: Options) -> None:
    """Refuse a number of descriptors that makes no sense; what is not open stays a hole."""
    count = options.get("preserve_fds", 0) if command in ("create", "run", "exec") else 0
    if count < 0:
        raise errors.Error(f"{command}: --preserve-fds: must not be negative, got {count}")
    if count:
        from .linux import tasks

        most = tasks.getrlimit(_RLIMIT_NOFILE)[0]
        if count > most - 3:
            text = f"--preserve-fds: {count} is more than the limit of open files, {most}"
            raise errors.Error(f"{command}: {text}")


def settle(settings: Settings) -> None:
    """Fill in what depends on the process: the state directory, absolute and checked."""
    settings.root_given = bool(settings.root)
    root = settings.root or _default_root()
    if root[0] != "/":
        try:
            root = f"{posix.getcwd()}/{root}"
        except OSError as error:
            text = errors.strerror(error.errno or 0)
            raise errors.Error(f"--root {root}: the working directory: {text}") from None
    if normal(root) == "/":
        raise errors.Error('option --root must not be "/"')
    settings.root = root


def _default_root() -> str:
    runtime_dir = posix.environ.get(b"XDG_RUNTIME_DIR", b"")
    # Podman passes the variable empty; that means unset.
    if runtime_dir and (posix.geteuid() != 0 or _is_mapped_root()):
        return runtime_dir.decode("utf-8", "surrogateescape").rstrip("/") + "/anocir"
    uid = posix.geteuid()
    if uid != 0:
        # Where a login without the variable finds its own all the same, as pam_systemd(8) makes it.
        try:
            if posix.stat(f"/run/user/{uid}").st_uid == uid:
                return f"/run/user/{uid}/anocir"
        except OSError:
            return "/run/anocir"
    return "/run/anocir"


def _is_mapped_root() -> bool:
    """Tell whether root is only the root of a user namespace, as rootless Podman starts us."""
    if posix.environ.get(b"USER") == b"root":
        return False
    from .linux import processes

    try:
        return processes.id_map("self", "uid") != [(0, 0, _ALL_IDS)]
    except OSError:
        return False
