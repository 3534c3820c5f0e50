"""The shape of what crosses in the frame PLAN, for the type checker only.

Side: none.  Never imported at run time: use it below `if TYPE_CHECKING:`.  The plan is marshalled,
so there is nothing in it but dicts, tuples, lists, text, bytes and numbers.  model/plan.py makes
it, inside/init.py executes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping

# The name of a function in inside/init.STEPS, the JSON path that asks for it, and its arguments:
# tests/unit/test_explain.py binds each step of the golden plans to the function's signature.
Step = tuple[Any, ...]


class Program(TypedDict):
    """What is executed: environment variables are NAME=value, each once."""

    args: list[str]
    env: list[str]
    cwd: str
    terminal: bool


class _Compiled(TypedDict):
    prepare: list[Step]
    setup: list[Step]
    launch: list[Step]
    born: list[Step]
    start: list[Step]
    process: Program | None
    fds: int
    holes: list[int]
    late: bool
    pids: int
    outside: bool
    state: Mapping[str, object]
    bundle: str


class Plan(_Compiled, total=False):
    """A plan: all its keys, in the order of `model/plan.py`, and two that come when it is sent.

    `prepare`  steps of the middle process: join and make namespaces
    `setup`    steps of init until the container is there
    `launch`   steps that take away what the program will not have
    `born`     steps of init when it is cloned after all of these (late), else none
    `start`    steps of init after start, up to execve
    `process`  what to execute, or None
    `fds`      how many descriptors, from 3 on, are the program's
    `holes`    those of them that are not open
    `late`     whether init is cloned last: where others are in its pid namespace already
    `pids`     the place of that namespace among the host's descriptors, or -1
    `outside`  whether init is put into its cgroup by the host, as there is no room for two
    `state`    the state of runtime.md for hooks that run inside, but for status and pid
    `bundle`   the bundle's absolute path
    `fifos`    whether start.fifo and report.fifo come last among the descriptors
    `trace`    None, or the format and the id of the trace, whose descriptor comes after all
    """

    fifos: bool
    trace: tuple[str, str] | None


class _Flags(TypedDict):
    set: int
    clear: int


class Flags(_Flags, total=False):
    """Attributes of a mount to set and to clear, MOUNT_ATTR_*; with `exact` it has no others."""

    exact: bool


class FileSystem(TypedDict):
    """What a new file system is told: flags of mount(2), names and data for fsconfig(2)."""

    ms: int
    super: list[str]
    data: list[str]


class _Parsed(Flags, FileSystem):
    recursive_set: int
    recursive_clear: int
    propagation: list[int]
    bind: bool
    rec: bool
    remount: bool
    copyup: bool
    copy_symlink: bool
    src_nofollow: bool
    dest_nofollow: bool
    idmap: str | None
    idmap_rec: bool


# Container id, host id, how many.
Range = tuple[int, int, int]


class MountOptions(_Parsed, total=False):
    """The options of one mount, sorted: `model/mountoptions.parse` says what each is."""

    mappings: list[list[Range]]


class CgroupView(TypedDict, total=False):
    """What a mount of type cgroup or cgroup2 shows.

    Of version 2 `own_path` below `host_mountpoint`; of version 1 `hierarchies`, each (name of the
    directory, option of mount(2), path, mount point), and `links`, each (name, target).
    """

    version: Literal[1, 2]
    own_path: str
    host_mountpoint: str
    hierarchies: list[tuple[str, str, str, str]]
    links: list[tuple[str, str]]


class Filter(TypedDict):
    """A compiled seccomp program, as it is loaded and as seccomp/cache.py keeps it.

    `outcomes` has every answer to the calls that init makes behind it, `library` the identity of
    the libseccomp that made it.
    """

    bpf: bytes
    flags: int
    notify: bool
    ignored: list[str]
    warnings: list[str]
    outcomes: dict[str, list[int]]
    libseccomp: str
    library: list[Any]
