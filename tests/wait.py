"""The one way to wait for something: look, sleep a little, look again, until it is so or the time is over.

Imports nothing of ours, so that the machine of tests/vm and the measuring scripts wait in the same way.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import Any, Callable

PATIENCE = 120.0 if os.environ.get("RUNTIME", "anocir").endswith("anocir") else 3.0
"""Seconds until a state must be reached; less for the runtimes whose failures are expected."""


def last(
    condition: Callable[[], Any],
    timeout: float = PATIENCE,
    pause: float = 0.01,
    found: Callable[[Any], Any] = bool,
) -> Any:
    """Wait until `found` says yes to the condition's value or the time is over; give the last value."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if found(value) or time.monotonic() >= deadline:
            return value
        time.sleep(pause)


def until(
    what: str,
    condition: Callable[[], Any],
    timeout: float = PATIENCE,
    pause: float = 0.01,
    found: Callable[[Any], Any] = bool,
) -> Any:
    """Wait until the condition is true and return its value; `found` judges a value that says more than yes or no."""
    value = last(condition, timeout, pause, found)
    told = "" if found is bool else f"; last: {value!r}"
    assert found(value), f"after {timeout:.0f} s still not: {what}{told}"
    return value


def others_go_on(naps: int = 20) -> None:
    """Let a process of its own nap so many times 5 ms, before it is asked whether something did not happen.

    What nobody holds back would have happened by then, also on a machine that has much else to do: there
    this process waits for its turns as well.
    """
    script = f"import time\nfor _ in range({naps}): time.sleep(0.005)"
    subprocess.run([sys.executable, "-IS", "-c", script], check=True)
