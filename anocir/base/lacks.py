"""What to say when a module cannot be imported.

Side: host and init.  Cold.  Distributions split Python: Debian's python3-minimal has no _ctypes.
"""

from __future__ import annotations

import sys


def complaint(error: ImportError) -> str:
    """Return one line: what the interpreter lacks and what to install, or what is wrong with it."""
    name = error.name or ""
    if not name or name.partition(".")[0] == "anocir":
        return f"cannot load itself: {error}"
    python = sys.executable or "python3"
    if isinstance(error, ModuleNotFoundError):
        return f"{python} lacks {name}: install python3 (python3-minimal is not enough)"
    return f"{python} cannot load {name}: {error}"
