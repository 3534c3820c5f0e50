"""Where Debian 12's runc 1.1.5 and crun 1.8.1 differ from what the tests ask, and why.

Each entry is a strict expected failure: when the runtime's behaviour changes, the test run says so. Keys are test ids
without the directory; an id without parameters stands for all of them.
"""

from __future__ import annotations

KNOWN_DIFFERENCES: dict[str, dict[str, str]] = {
    "runc": {},
    "crun": {},
}
