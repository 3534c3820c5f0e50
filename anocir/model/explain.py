"""A plan as people read it: what is done, in which order, what asked for it, with which rights.

Side: pure, cold.  One row of TABLE for each step (tests/unit/test_explain.py): a sentence about its
values, and the system calls that it is made of on a kernel of today.
"""

from __future__ import annotations

from .. import errors
from ..linux import const
from ..linux.capabilities import NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Final, TypedDict
    from ..wire.shapes import Plan

    class Row(TypedDict):
        """One step, with the calls that it makes and the rights before it."""

        phase: str
        step: str
        path: str
        what: str
        calls: list[str]
        rights: str


PHASES: Final = {
    "prepare": "init's interpreter, still outside: namespaces",
    "setup": "the container's file system and everything that needs rights",
    "launch": "rights are taken away, until the program is executed",
}
_ATTRIBUTES: Final = {
    const.MOUNT_ATTR_RDONLY: "ro", const.MOUNT_ATTR_NOSUID: "nosuid",
    const.MOUNT_ATTR_NODEV: "nodev", const.MOUNT_ATTR_NOEXEC: "noexec",
}  # fmt: skip
_NAMESPACES: Final = {
    "CLONE_NEWNS": "mount", "CLONE_NEWCGROUP": "cgroup", "CLONE_NEWUTS": "uts",
    "CLONE_NEWIPC": "ipc", "CLONE_NEWUSER": "user", "CLONE_NEWPID": "pid",
    "CLONE_NEWNET": "network", "CLONE_NEWTIME": "time",
}  # fmt: skip
_PROPAGATION: Final = {const.MS_SHARED: "shared", const.MS_SLAVE: "slave",
                       const.MS_PRIVATE: "private", 1 << 17: "unbindable"}  # fmt: skip


def _spaces(flags: int) -> str:
    return ", ".join(name for key, name in _NAMESPACES.items() if flags & getattr(const, key))


def _options(options: Any) -> str:
    """Return the options of a mount as config.json would have them."""
    words = [word for bit, word in _ATTRIBUTES.items() if options.get("set", 0) & bit]
    words += [f"r{word}" for bit, word in _ATTRIBUTES.items() if options.get("recursive_set") and
              options["recursive_set"] & bit]  # fmt: skip
    words += [errors.concealed(word) for word in options.get("data") or []]
    return f" ({', '.join(words)})" if words else ""


def _capabilities(mask: int) -> str:
    names = [name for index, name in enumerate(NAMES) if mask >> index & 1]
    if not names:
        return "none"
    return f"{len(names)} capabilities" if len(names) > 4 else " ".join(names)


def _propagation(flags: int) -> str:
    word = next((word for bit, word in _PROPAGATION.items() if flags & bit), "unchanged")
    return ("r" if flags & const.MS_REC else "") + word


def _groups(gids: Any) -> str:
    if gids is None:
        return "the caller's groups"
    return f"groups {', '.join(str(gid) for gid in gids)}" if gids else "no other groups"


def _join(entries: Any) -> str:
    return ", ".join(f"{_spaces(kind)} ({path})" for kind, _, path in entries)


_MOUNT: Final = "fsopen fsconfig fsmount move_mount"
_BIND: Final = "open_tree mount_setattr move_mount"

# Step -> what it does, by its values, and its system calls.
TABLE: Final[dict[str, tuple[Callable[..., str], str]]] = {
    "affinity": (lambda cpus: f"run on the CPUs {cpus} only", "sched_setaffinity"),
    "become_root": (lambda *_: "become root of the user namespace",
                    "setgroups setresgid setresuid"),
    "bind": (lambda _, source, target, options: f"mount {source} at {target}{_options(options)}",
             _BIND),
    "capabilities": (lambda _e, permitted, _i, ambient, *_:
                     f"keep {_capabilities(permitted)}, ambient {_capabilities(ambient)}",
                     "capset prctl"),
    "cgroup_mount": (lambda target, view, *_:
                     f"show the container's cgroups (version {view['version']}) at {target}",
                     _MOUNT),
    "chdir": (lambda path, as_user: f"enter the working directory {path}"
              + (" again as the user, if root was not let in" if as_user else ""),
              "openat2 fchdir"),
    "chroot": (lambda: "enter the root by chroot: there is no mount namespace", "fchdir chroot"),
    "close_descriptors": (lambda: "close all descriptors but the program's own", "close_range"),
    "command": (lambda _: "look the program up", "openat2 fstat"),
    "console": (lambda uid, *_:
                f"open a terminal of the container's devpts for user {uid}",
                "openat ioctl fchown sendmsg"),
    "controlling_terminal": (lambda: "make it the controlling terminal", "setsid ioctl"),
    "denied_sources": (lambda: "have the host side open the sources that this may not", "recvmsg"),
    "device": (lambda path, kind, major, minor, mode, uid, gid, bind:
               f"{'bind the host-side node' if bind else 'make the node'} {path} "
               f"({kind} {major}:{minor}, mode {mode:04o}, owner {uid}:{gid})",
               "mknodat fchmodat"),
    "device_links": (lambda: "make the links fd, stdin, stdout, stderr, ptmx in /dev",
                     "symlinkat unlinkat"),
    "domainname": (lambda name: f"set the domain name {name}", "setdomainname"),
    "drop_bounding": (lambda keep: f"cut the bounding set down to {_capabilities(keep)}", "prctl"),
    "filesystem": (lambda kind, _, target, options:
                   f"mount a new {kind} at {target}{_options(options)}", _MOUNT),
    "final_propagation": (lambda flags: f"make the root {_propagation(flags)}", "mount"),
    "hold_signals": (lambda: "wait for signals that end a container before its start",
                     "rt_sigprocmask signalfd4"),
    "home": (lambda uid: f"set HOME from /etc/passwd for user {uid}", "openat2 read"),
    "hook_outputs": (lambda _: "open the files that hooks write to", "openat"),
    "hooks": (lambda entries, name: f"run {len(entries)} {name} hook(s)", "vfork execve"),
    "host_hooks": (lambda: "wait while the host side runs prestart and createRuntime hooks",
                   "write recvmsg"),
    "hostname": (lambda name: f"set the host name {name}", "sethostname"),
    "io_priority": (lambda value: f"set the I/O priority {value >> 13}/{value & 0x1FFF}",
                    "ioprio_set"),
    "join_all": (lambda entries: f"join namespaces: {_join(entries)}", "setns"),
    "join_late": (lambda: "join the cgroups that count what is used from here on", "write"),
    "join_pids": (lambda _: "join the pid namespace, now that nothing of the host is held",
                  "setns"),
    "keyring": (lambda *_: "join a session keyring of the container's own", "keyctl"),
    "label": (lambda _, text: f"ask for the label {text.partition(' ')[2] or text} at execve",
              "write"),
    "late_readonly": (lambda: "make mounts read-only that had to be filled first",
                      "mount_setattr"),
    "loopback": (lambda: "bring the loopback interface up", "ioctl"),
    "make_cwd": (lambda path: f"make the working directory {path} if it is missing",
                 "openat2 mkdirat"),
    "masked_path": (lambda path, _: f"hide {path}", _BIND),
    "memory_policy": (lambda mode, nodes: f"set the memory policy {mode:#x} for nodes {nodes:#x}",
                      "set_mempolicy"),
    "move_root": (lambda: "enter the root by moving its mount to / (--no-pivot)",
                  "move_mount chroot"),
    "new_user_namespace": (lambda: "make a user namespace; the host side writes its id maps",
                           "unshare"),
    "no_new_privs": (lambda: "let execve give no privileges any more", "prctl"),
    "no_process": (lambda: "fail at start: there is no process", ""),
    "open_attributes": (lambda: "open the files that take the labels", "openat2"),
    "own_proc": (lambda: "mount a procfs that nothing of the image can cover",
                 "fsopen fsconfig fsmount"),
    "own_stdio": (lambda uid, *_: f"give pipes among descriptors 0 to 2 to user {uid}", "fchown"),
    "personality": (lambda domain: f"set the personality {domain:#x}", "personality"),
    "pivot_root": (lambda: "enter the root and let go of the host's", "pivot_root umount2"),
    "propagation": (lambda flags: f"make all mounts {_propagation(flags)}: none comes back to "
                    "the host", "mount"),
    "readonly_path": (lambda path: f"make {path} read-only", _BIND),
    "remount": (lambda target, options: f"change the flags of {target}{_options(options)}",
                "mount_setattr"),
    "reopen_null": (lambda: "take the container's own /dev/null for the host's", "openat2 dup3"),
    "rlimits": (lambda limits: f"set {len(limits)} resource limit(s)", "prlimit64"),
    "root": (lambda path, *_: f"take {path} as the root", "openat open_tree move_mount"),
    "root_here": (lambda: "take the root of the container's mount namespace", "openat chdir"),
    "root_readonly": (lambda: "make the root read-only", "mount_setattr"),
    "scheduler": (lambda policy, *_: f"set the scheduling policy {policy}", "sched_setattr"),
    "seccomp": (lambda program: f"load the filter of {len(program['bpf']) // 8} instructions",
                "seccomp"),
    "session": (lambda: "lead a session without a terminal", "setsid"),
    "shed": (lambda _e, permitted, *_:
             f"give up the right that loading the filter took; left: {_capabilities(permitted)}",
             "capset"),
    "source": (lambda _, path, *_rest: f"open {path}, before anything is mounted",
               "openat"),
    "streams": (lambda *_: "look at descriptors 0 to 2 while the host's /dev is there",
                "fstat"),
    "sysctl": (lambda path, value: f"set {path.replace('/', '.')} = {value}", "openat2 write"),
    "tools": (lambda _: "show the tools in a mount namespace of its own",
              "unshare fsmount open_tree move_mount pivot_root umount2"),
    "time_offsets": (lambda lines: f"set the clocks: {' '.join(lines.split())}", "write"),
    "umask": (lambda mask: f"set the umask {mask:04o}", "umask"),
    "unshare": (lambda flags: f"make namespaces: {_spaces(flags)}", "unshare"),
    "user": (lambda uid, gid, gids: f"become user {uid}, group {gid}, {_groups(gids)}",
             "setgroups setresgid setresuid"),
}  # fmt: skip

# Steps after which the process has other rights, and the words for those.
_RIGHTS: Final[dict[str, Callable[..., str]]] = {
    "new_user_namespace": lambda: "root of the new user namespace",
    "drop_bounding": lambda keep: f"root, bounding set {_capabilities(keep)}",
    "user": lambda uid, gid, _: f"user {uid}:{gid}, capabilities kept",
    "capabilities": lambda _e, permitted, *_: f"permitted: {_capabilities(permitted)}",
    "shed": lambda _e, permitted, *_: f"permitted: {_capabilities(permitted)}",
}


def rows(plan: Plan) -> list[Row]:
    """Return each step of the plan, and that the program is executed."""
    result: list[Row] = []
    rights = "the caller's"
    for phase in PHASES:
        for name, path, *values in plan[phase]:  # type: ignore[literal-required]
            said, calls = TABLE[name]
            result.append(
                {
                    "phase": phase, "step": name, "path": path, "what": said(*values),
                    "calls": calls.split(), "rights": rights,
                }
            )  # fmt: skip
            if name in _RIGHTS:
                rights = _RIGHTS[name](*values)
    process = plan["process"]
    if process is not None:
        result.append(
            {
                "phase": "launch", "step": "execve", "path": "process.args",
                "what": "execute " + " ".join(process["args"]), "calls": ["execve"],
                "rights": rights,
            }
        )  # fmt: skip
    return result


def text(plan: Plan, host: list[str]) -> str:
    """Return the plan for people; `host` says what the host side does, a line each."""
    lines = ["host side: what needs the caller's rights"]
    lines += [f"       {line}" for line in host]
    phase = rights = ""
    for number, row in enumerate(rows(plan), 1):
        if row["phase"] != phase:
            phase = row["phase"]
            lines += ["", f"{phase}: {PHASES[phase]}"]
        if row["rights"] != rights:
            rights = row["rights"]
            lines.append(f"       rights: {rights}")
        where = f"  # {row['path']}" if row["path"] else ""
        calls = f" [{' '.join(row['calls'])}]" if row["calls"] else ""
        lines.append(f"  {number:3}  {row['what']}{calls}{where}")
    return "\n".join(lines) + "\n"


def _without_secrets(value: Any) -> Any:
    """Return a value of a step as a message may show it.

    Hooks without their environments and arguments, a mount without its passwords.
    """
    if isinstance(value, dict) and "data" in value:
        return {**value, "data": [errors.concealed(word) for word in value["data"]]}
    if not isinstance(value, list):
        return value
    return [
        {key: f"<{len(kept or ())}>" if key in ("env", "args") else kept
         for key, kept in item.items()}
        if isinstance(item, dict) else item
        for item in value
    ]  # fmt: skip


def describe(plan: Plan) -> list[str]:
    """Return the plan as lines for people: phase, step, values, JSON path."""
    lines = []
    for phase in ("prepare", "setup", "launch", "born", "start"):
        for name, path, *values in plan[phase]:
            shown = ", ".join(
                f"<{len(v['bpf']) // 8} instructions>"
                if isinstance(v, dict) and "bpf" in v
                else repr(_without_secrets(v))
                for v in values
            )
            lines.append(f"{phase:8}{name}({shown})" + (f"  # {path}" if path else ""))
    return lines
