"""Names and masks of capabilities, against the kernel's header and the running kernel."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.linux import capabilities

pytestmark = pytest.mark.unit


def test_the_names_have_the_numbers_of_the_header() -> None:
    header = Path("/usr/include/linux/capability.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    found = dict(re.findall(r"#define (CAP_[A-Z_]+)\s+(\d+)\s*$", header.read_text(), re.MULTILINE))
    assert {name: int(number) for name, number in found.items()} == {
        name: number for number, name in enumerate(capabilities.NAMES)
    }


def test_no_capability_of_this_kernel_is_unknown() -> None:
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    assert len(capabilities.NAMES) >= last + 1


@given(st.sets(st.sampled_from(capabilities.NAMES)))
def test_a_mask_is_read_back(chosen: set[str]) -> None:
    assert set(capabilities.names(capabilities.mask(chosen))) == chosen


def test_twins_count_once_and_unknown_bits_have_a_number() -> None:
    assert capabilities.mask(["CAP_KILL", "CAP_KILL"]) == 1 << 5
    assert capabilities.names(1 << 63 | 1 << 5) == ["CAP_KILL", "CAP_63"]
    assert capabilities.names(0) == [] and capabilities.mask([]) == 0


def test_the_five_sets_are_in_the_order_of_their_names() -> None:
    one = {name: [capabilities.NAMES[number]] for number, name in enumerate(capabilities.SETS)}
    assert capabilities.masks(one) == (1, 2, 4, 8, 16)
    assert capabilities.masks({"ambient": ["CAP_CHOWN"]}) == (0, 0, 0, 0, 1)
    assert capabilities.masks({"bounding": None}) == (0,) * 5  # type: ignore[dict-item]


def test_an_unknown_name_is_an_error() -> None:
    with pytest.raises(ValueError):
        capabilities.mask(["CAP_NOTHING"])
