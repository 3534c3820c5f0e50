"""anocir: an OCI container runtime in one executable file."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__version__ = "0.2.0"
# The version of the OCI Runtime Specification that is implemented.
SPEC_VERSION = "1.3.0"


def import_(name: str) -> "Any":
    """Import a module by its name: by the way of base/preload.py where that is at work.

    For the two imports that each command makes after its start; an `import` costs four times as
    much and ends there too.
    """
    return sys.modules.get(name) or getattr(sys.meta_path[0], "load", _usual)(name)


def _usual(name: str) -> "Any":
    return __import__(name, fromlist=["main"])
