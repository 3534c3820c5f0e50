"""The order in which the session keyring is made."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

import pytest

from anocir.inside import credentials

pytestmark = pytest.mark.unit


def test_the_label_of_keys_is_asked_for_before_there_is_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """keycreate holds until execve(2), for this process alone; the ring is made by its secret name."""
    attribute = tmp_path / "thread-self" / "attr" / "keycreate"
    attribute.parent.mkdir(parents=True)
    attribute.write_text("")
    seen = []

    def join(name: str) -> int:
        seen.append((name, attribute.read_text()))
        return 77

    monkeypatch.setattr(credentials.oneself, "join_session_keyring", join)
    monkeypatch.setattr(
        credentials.oneself,
        "set_keyring_permissions",
        lambda serial, mask: seen.append((serial, mask)),
    )
    context: Any = SimpleNamespace(host_proc=os.open(tmp_path, os.O_PATH), warn=seen.append)
    credentials.keyring(context, "anocir.secret", "system_u:system_r:box_t")
    os.close(context.host_proc)
    assert seen == [("anocir.secret", "system_u:system_r:box_t"), (77, 0x3F080000)]
