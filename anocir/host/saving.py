"""What is written about a container: its intent, its state, its configuration.

A file is written under another name and renamed: see `store`.

Side: host.
"""

from __future__ import annotations

import posix

from ..base import jsonio
from ..linux import entries, files
from . import store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from ..model.schema import Config, Intent, StateFile
    from .store import Container


def intent(container: Container, intent: Intent) -> None:
    """Write what will be made, before it is."""
    container.intent = {"version": store.VERSION, "id": container.id, **intent}
    _write(container, "intent.json", jsonio.dumps(container.intent))


def state(container: Container, **changes: Any) -> None:
    """Replace the state by itself with these changes."""
    global _foreseen
    container.state = _changed(container, **changes)
    text = jsonio.dumps(container.state)
    ready, _foreseen = _foreseen == (container, text), (None, "")
    if not ready:
        _aside(container, _STATE, text)
    _take_name(container, _STATE)


def foresee(container: Container, **changes: Any) -> None:
    """Have the file ready by which `state` will replace it, while there is nothing else to do."""
    global _foreseen
    _foreseen = container, jsonio.dumps(_changed(container, **changes))
    _aside(container, _STATE, _foreseen[1])


_STATE: Final = "state.json"
# Whose state `foresee` has written, and what.
_foreseen: tuple[Container | None, str] = (None, "")


def _changed(container: Container, **changes: Any) -> StateFile:
    return {**container.state, **changes, "intent": container.intent}  # type: ignore[typeddict-item]


def config(container: Container, config: Config) -> None:
    """Keep the configuration (also with changed resources, after update)."""
    _write(container, "config.json", jsonio.dumps(config))


def _write(container: Container, name: str, text: str) -> None:
    _aside(container, name, text)
    _take_name(container, name)


def _aside(container: Container, name: str, text: str) -> None:
    """Write a file under another name, until it takes its own."""
    flags = files.O_WRONLY | files.O_CREAT | files.O_TRUNC | files.O_NOFOLLOW
    try:
        fd = files.open(_other(name), flags, 0o600, dir_fd=container.dir_fd)
        try:
            files.write_all(fd, files.encode(text))
        finally:
            files.close(fd)
    except OSError as error:
        raise _failed(container, name, error) from None


def _take_name(container: Container, name: str) -> None:
    try:
        entries.rename(_other(name), name, container.dir_fd, container.dir_fd)
    except OSError as error:
        raise _failed(container, name, error) from None


def _other(name: str) -> str:
    return f".{name}.{posix.getpid()}"


def _failed(container: Container, name: str, error: OSError) -> OSError:
    return OSError(error.errno, "write", f"{container.path}/{name}")
