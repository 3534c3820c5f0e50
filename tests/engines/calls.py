"""The golden list: every form of command line that an engine sends to its runtime."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Dict, List, Sequence

from tests.engines.shim import Call

LIST = Path(__file__).with_name("calls.json")

# Options whose value differs from call to call, and the word that stands for it.
PLACES = {
    "--root": "ROOT",
    "--log": "LOG",
    "--bundle": "BUNDLE",
    "-b": "BUNDLE",
    "--pid-file": "PID_FILE",
    "--process": "PROCESS",
    "--console-socket": "SOCKET",
    "--image-path": "DIRECTORY",
    "--work-path": "DIRECTORY",
    "--resources": "RESOURCES",
}

WORDS = frozenset(
    "create start state kill delete exec run ps pause resume update checkpoint restore events list"
    " features spec json cgroupfs disabled SIGKILL SIGTERM network".split()
)


def form(argv: Sequence[str]) -> str:
    """Reduce a command line to its form: option values and ids become words."""
    words: List[str] = []
    place = ""
    for word in argv:
        if place and word == "-":
            words.append("-")
        elif place:
            words.append(place)
        elif "=" in word and word.partition("=")[0] in PLACES:
            option, _, value = word.partition("=")
            words.append(f"{option}={'-' if value == '-' else PLACES[option]}")
        elif word in WORDS or word.startswith("-") or re.fullmatch(r"\d\d?", word):
            words.append(word)
        else:
            words.append("ID")
        place = "" if place else PLACES.get(word, "")
    return " ".join(words)


def forms(calls: Sequence[Call]) -> List[str]:
    """Give the distinct forms of the calls."""
    return sorted({form(call.argv) for call in calls})


def known() -> Dict[str, List[str]]:
    """Read the golden list."""
    if not LIST.exists():
        return {}
    content: Dict[str, List[str]] = json.loads(LIST.read_text())
    return content


def remember(engine: str, seen: List[str]) -> None:
    """Add what was seen to the golden list; asked for with ENGINE_CALLS=write."""
    content = known()
    content[engine] = sorted({*content.get(engine, []), *seen})
    LIST.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n")
