"""What must be known of a program before it runs in a container, that of create or of exec.

Side: host.
"""

from __future__ import annotations

import posix

from ..base import log
from ..errors import Error, reason
from ..linux import files
from ..linux.capabilities import NAMES, SETS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli import Options, Settings
    from ..model.schema import Config, Facts, Process
    from ..wire.shapes import Filter


def _check_callers_terminal(config: Config | None) -> None:
    """Refuse to relay a terminal to nobody: the program would wait for input that never comes."""
    if files.isatty(0) or files.isatty(1) or files.isatty(2):
        return
    try:
        files.close(files.open("/dev/tty", files.O_RDWR | files.O_NOCTTY))
    except OSError as error:
        hint = (
            "there is no terminal here to relay it to: set process.terminal to false, or give a "
            "--console-socket"
        )
        kinds = [one["type"] for one in ((config or {}).get("linux") or {}).get("namespaces") or ()]
        if config and posix.geteuid() and "user" not in kinds:
            hint += "; without root containers need a user namespace: anocir spec --rootless"
        raise Error(f"process.terminal: open {reason(error)}", hint) from None


def check_terminal(
    process: Process, options: Options, foreground: bool, config: Config | None = None
) -> None:
    """Refuse a terminal that nobody would hold, and a console socket for none."""
    terminal = bool(process.get("terminal"))
    socket = options["console_socket"]
    if terminal and not foreground and not socket:
        raise Error(
            "process.terminal: cannot allocate tty if the runtime will detach without setting "
            "console socket"
        )
    if terminal and not socket:
        _check_callers_terminal(config)
    if socket and not terminal:
        raise Error(
            "--console-socket: cannot use console socket if the runtime will not detach or "
            "allocate tty",
            "process.terminal is false",
        )


def check_pidfd_socket(options: Options) -> None:
    """Refuse to promise a pidfd where the kernel has none."""
    if not options["pidfd_socket"]:
        return
    from ..linux import watch

    if not watch.has_pidfds():
        raise Error(f"--pidfd-socket needs Linux 5.3, this is {posix.uname().release}")


def lsm(name: str) -> bool:
    """Tell whether a Linux Security Module is on: "apparmor" or "selinux"."""
    if name == "selinux":
        return files.exists("/sys/fs/selinux/enforce")
    try:
        value = files.read_file("/sys/module/apparmor/parameters/enabled")
    except OSError:
        return False
    return value.startswith(b"Y")


def seccomp_filter(
    settings: Settings, config: Config, process: Process
) -> tuple[Filter | None, bool, bool]:
    """Return the compiled seccomp program, or None, and `clone` and `signals` of Facts."""
    profile = (config.get("linux") or {}).get("seccomp")
    if not profile:
        return None, True, True
    from .. import seccomp

    cache = None if settings.dry_run else f"{settings.root}/:seccomp"
    compiled = seccomp.compile(profile, cache, log.warn)
    last = process.get("noNewPrivileges")
    seccomp.check_after_load(compiled, seccomp.NEEDED_LAST if last else seccomp.NEEDED_EARLY)
    clone = seccomp.lets_clone(compiled, bool(process.get("terminal")))
    return compiled, clone, seccomp.lets_wait(compiled)


def process_facts(settings: Settings, config: Config, process: Process) -> Facts:
    """Return the facts that the plan of any process needs."""
    compiled, clone, signals = seccomp_filter(settings, config, process)
    labelled = process.get("selinuxLabel") or (config.get("linux") or {}).get("mountLabel")
    facts: Facts = {
        "seccomp": compiled,
        "clone": clone,
        "signals": signals,
        "apparmor": bool(process.get("apparmorProfile")) and lsm("apparmor"),
        "selinux": bool(labelled) and lsm("selinux"),
    }
    for name, key in (("apparmor", "apparmorProfile"), ("selinux", "selinuxLabel")):
        if process.get(key) and not facts[name]:  # type: ignore[literal-required]
            log.warn(f"process.{key}: {name} is not enabled on this host, ignored")
    return facts


def kernel_has_newer_capabilities() -> bool:
    """Tell whether the kernel has capabilities that our table does not name yet."""
    try:
        return int(files.read_file("/proc/sys/kernel/cap_last_cap")) >= len(NAMES)
    except (OSError, ValueError):
        return False


def drop_newer_capabilities(process: Any, where: str) -> None:
    """Take out, with a warning, names that only a newer kernel could know (config.md 1.3).

    `process` is not checked yet.  On another kernel they stay, for the check to refuse them.
    """
    sets = process.get("capabilities") if isinstance(process, dict) else None
    if not isinstance(sets, dict):
        return
    for key, listed in sets.items():
        if key not in SETS or not isinstance(listed, list):
            continue
        unknown = [name for name in listed if isinstance(name, str) and name not in NAMES]
        if unknown and kernel_has_newer_capabilities():
            for name in unknown:
                log.warn(f"{where}.capabilities.{key}: {name} is not known, ignored")
            sets[key] = [name for name in listed if name not in unknown]
