"""The hooks that run on the host: prestart, createRuntime, poststart, poststop.

Side: host.  Source: config.md, POSIX-platform Hooks.  What the specification leaves open is as in
runc main: a hook without `env` has the caller's environment, and the bundle is the working
directory.
"""

from __future__ import annotations

import posix

from ..base import hooks, jsonio, log
from ..errors import Error, reason
from ..linux import files
from . import states

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..base.hooks import Hook

    from .store import Container
    from ..model.schema import Hooks, State


def before(entries: Hooks, container: Container, pid: int) -> None:
    """Run the prestart and createRuntime hooks, whose state has `pid` as the host sees it.

    The environment is there by then, so the state says "created", as runc's does.
    """
    state = states.oci_state(container, states.CREATED, pid)
    run("prestart", entries.get("prestart") or [], container, state)
    run("createRuntime", entries.get("createRuntime") or [], container, state)


def run(
    name: str,
    entries: Sequence[Hook],
    container: Container,
    state: State,
    tolerant: bool = False,
) -> None:
    """Run the hooks of one place in the listed order, with the state on standard input.

    Raises Error at the first that fails; `tolerant`, warn and go on (runtime.md, poststop).
    """
    if not entries:
        return
    data = jsonio.dumps(state).encode()
    bundle = container.intent["bundle"]
    outputs = (-1, -1)
    try:
        outputs = hooks.open_outputs(container.intent.get("annotations") or {}, bundle)
    except Error as error:
        if not tolerant:
            raise
        log.warn(error.text)
    directory = bundle if files.exists(bundle) else None  # it may be gone before the container is
    place = hooks.Place(_environment(), directory, outputs)
    try:
        for index, hook in enumerate(entries):
            try:
                hooks.run(hook, data, f"{name} hook #{index}", place)
            except Error as error:
                if not tolerant:
                    raise
                log.warn(error.text)
    finally:
        for fd in outputs:
            if fd >= 0:
                files.close(fd)


def _environment() -> Mapping[bytes, bytes]:
    """Return the environment as the caller gave it: CPython may add LC_CTYPE (PEP 538)."""
    if posix.environ.get(b"LC_CTYPE") not in (b"C.UTF-8", b"C.utf8", b"UTF-8"):
        return posix.environ
    env = dict(posix.environ)
    del env[b"LC_CTYPE"]
    try:
        given = files.read_file("/proc/self/environ").split(b"\0")  # as execve(2) left it
    except OSError as error:
        log.debug(f"the caller's environment: {reason(error)}")
        return env
    for entry in given:
        if entry.startswith(b"LC_CTYPE="):
            env[b"LC_CTYPE"] = entry[9:]
    return env
