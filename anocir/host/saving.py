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
    from typing import Any

    from ..model.schema import Config, Intent, StateFile
    from .store import Container


def intent(container: Container, intent: Intent) -> None:
    """Write what will be made, before it is."""
    container.intent = {"version": store.VERSION, "id": container.id, **intent}
    _write(container, "intent.json", jsonio.dumps(container.intent))


def state(container: Container, **changes: Any) -> None:
    """Replace the state by itself with these changes."""
    container.state = _changed(container, **changes)
    _write(container, "state.json", jsonio.dumps(container.state))


def foresee(container: Container, **changes: Any) -> None:
    """Have the file ready by which `state` will replace it, while there is nothing else to do."""
    global _foreseen
    text = jsonio.dumps(_changed(container, **changes))
    _foreseen = (_aside(container, "state.json", text), text, container)


# What `foresee` has written: the name of the file, its text, whose it is.
_foreseen: tuple[str, str, Container | None] = ("", "", None)


def _changed(container: Container, **changes: Any) -> StateFile:
    return {**container.state, **changes, "intent": container.intent}  # type: ignore[typeddict-item]


def config(container: Container, config: Config) -> None:
    """Keep the configuration (also with changed resources, after update)."""
    _write(container, "config.json", jsonio.dumps(config))


def _write(container: Container, name: str, text: str) -> None:
    global _foreseen
    (temporary, written, whose), _foreseen = _foreseen, ("", "", None)
    if text != written or name != "state.json" or whose is not container:
        temporary = _aside(container, name, text)
    try:
        entries.rename(temporary, name, container.dir_fd, container.dir_fd)
    except OSError as error:
        raise _failed(container, name, error) from None


def _aside(container: Container, name: str, text: str) -> str:
    """Write a file under another name, which is returned."""
    temporary = f".{name}.{posix.getpid()}"
    flags = files.O_WRONLY | files.O_CREAT | files.O_TRUNC | files.O_NOFOLLOW
    try:
        fd = files.open(temporary, flags, 0o600, dir_fd=container.dir_fd)
        try:
            files.write_all(fd, files.encode(text))
        finally:
            files.close(fd)
    except OSError as error:
        raise _failed(container, name, error) from None
    return temporary


def _failed(container: Container, name: str, error: OSError) -> OSError:
    return OSError(error.errno, "write", f"{container.path}/{name}")
