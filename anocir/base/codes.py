"""What programs read of an error besides its text: a stable word, the JSON path, the errno.

Side: host.  Cold: only for a line of JSON that tells of a failure.  The words stand in the README;
they never change their meaning.
"""

from __future__ import annotations

import errno

from .. import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

# Code -> what the text of such an error has in it; the first one that fits.
_TEXTS: Final = (
    ("bug", ("bug in anocir",)),
    ("out-of-memory", ("OOM-killed", "memory limit too low", "out of memory")),
    ("container-not-found", (errors.CONTRACT["missing"],)),
    ("container-exists", (errors.CONTRACT["exists"],)),
    ("container-paused", (errors.CONTRACT["exec paused"], errors.CONTRACT["start paused"],
                          "is paused already")),
    ("container-not-paused", (errors.CONTRACT["not paused"],)),
    ("container-not-stopped", ("cannot delete container ",)),
    ("container-stopped", (errors.CONTRACT["exec stopped"], errors.CONTRACT["already stopped"],
                           errors.CONTRACT["not running"], "is not running")),
    ("container-running", (errors.CONTRACT["already running"],)),
    ("program-not-found", ("executable file not found in $PATH",)),
    ("hook-failed", (" hook #",)),
    ("cwd-failed", ("chdir to cwd",)),
    ("mount-failed", ("error mounting",)),
    ("usage", ("flag provided but not defined", "flag needs an argument", "argument(s)",
               "unknown command", "invalid container ID format", "container id cannot be empty")),
    ("not-supported", ("needs Linux ", "cannot be loaded", "not supported", "is not enabled")),
)  # fmt: skip
_PATH_HEADS: Final = (
    "ociVersion", "root", "mounts", "process", "hostname", "domainname", "hooks", "annotations",
    "linux", "resources", "config.json",
)  # fmt: skip


def of(text: str, hint: str = "") -> dict[str, str]:
    """Return what is known of a failure: code, and where there are any errno, hint, path, step."""
    path = json_path(text)
    number = errno_of(text)
    found = {"code": _code(text, hint, path, number)}
    if number:
        found["errno"] = errno.errorcode[number]
    if hint:
        found["hint"] = errors.shown(hint)
    if path:
        found["path"] = path
    step = errors.scene.get("step") or errors.scope[1]
    if step:
        found["step"] = step
    return found


def _code(text: str, hint: str, path: str, number: int) -> str:
    for code, words in _TEXTS:
        if any(word in text for word in words) or (
            code == "not-supported" and any(word in hint for word in words)
        ):
            return code
    if 'exec: "' in text:
        return "program-not-found" if number == errno.ENOENT else "program-failed"
    if path:
        return "configuration"
    if text.partition(":")[0].startswith("--") or ": --" in text:
        return "usage"
    if number in (errno.EPERM, errno.EACCES):
        return "not-permitted"
    return "failed"


def json_path(text: str) -> str:
    """Return the JSON path of config.json that an error's text begins with, or nothing."""
    text = text.removeprefix(errors.CONTRACT["exec failed"])
    depth = 0
    quoted = escaped = False
    for index, char in enumerate(text):
        if escaped or (quoted and char == "\\"):
            escaped = not escaped
        elif char == '"':
            quoted = not quoted
        elif quoted:
            continue
        elif char == "[":
            depth += 1
        elif char == "]":
            depth -= 1
        elif char == ":" and depth == 0:
            path = text[:index]
            head = path.partition(".")[0].partition("[")[0]
            return path if head in _PATH_HEADS and " " not in path.partition('"')[0] else ""
        elif char == " ":
            return ""
    return ""


def errno_of(text: str) -> int:
    """Return the errno whose words an error's text ends with, but for brackets; 0 for none."""
    if text.endswith(")"):
        text = text[: text.rfind(" (")]
    for number in errno.errorcode:
        words = errors.strerror(number)
        if len(words) > 5 and (text.endswith(f": {words}") or text == words):
            return number
    return 0
