"""Many looks into one container: cases whose options can stand together share a run, and each keeps its own result."""

from __future__ import annotations

import shlex
from typing import Dict, List, NamedTuple, Sequence, Tuple

from tests.engines.box import Result

MARK = "@@@"
# name, options, shell command, status, text that stdout or stderr holds
Case = Tuple[str, List[str], str, int, str]


class Look(NamedTuple):
    """What one of the commands gave."""

    status: int
    out: str
    err: str


def script(commands: Sequence[str]) -> str:
    """Make one shell command of several, each in a shell of its own."""
    each = (
        f"echo {MARK}; echo {MARK} >&2; sh -c {shlex.quote(one)}; echo {MARK}$?" for one in commands
    )
    return "\n".join(each)


def read(result: Result, count: int) -> List[Look]:
    """Take the output of such a command apart."""
    outs = result.out.replace("\r\n", "\n").split(f"{MARK}\n")[1:]
    errs = result.err.split(f"{MARK}\n")[1:]
    assert len(outs) == len(errs) == count, result
    found = []
    for out, err in zip(outs, errs):
        text, _, status = out.rpartition(MARK)
        found.append(Look(int(status), text, err))
    return found


def runs(cases: Sequence[Case], together: Sequence[Sequence[str]]) -> List[List[Case]]:
    """Sort cases into runs of one container each: the groups of names, then the others by their options."""
    by_name = {case[0]: case for case in cases}
    found = [[by_name.pop(name) for name in names] for names in together]
    others: Dict[Tuple[str, ...], List[Case]] = {}
    for case in by_name.values():
        others.setdefault(tuple(case[1]), []).append(case)
    return [*found, *others.values()]


def option_words(cases: Sequence[Case]) -> List[str]:
    """Give the options of all cases of a run, each set once."""
    sets = dict.fromkeys(tuple(case[1]) for case in cases)
    return [word for options in sets for word in options]
