"""Mount options: what each means to the kernel, and which one wins."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.model import mountoptions
from anocir.linux import const

pytestmark = pytest.mark.unit

EMPTY = mountoptions.parse([])

# config.md, "Linux mount options": every name that a runtime must know. Those that the specification
# gives to file systems (data) are not listed.
SPEC = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand noatime nodev
nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow private
ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodiratime rnoexec rnorelatime
rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid
rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable idmap
ridmap rnodev""".split()


def parse(*options: str) -> dict:
    return mountoptions.parse(options)


def changed(*options: str) -> dict:
    """Only what differs from no options."""
    found = parse(*options)
    return {key: value for key, value in found.items() if value != EMPTY[key]}


@pytest.mark.parametrize("name", SPEC)
def test_every_option_of_the_specification_is_understood(name: str) -> None:
    assert parse(name)["data"] == []
    assert name in mountoptions.names()


RO, NOSUID, NODEV = const.MOUNT_ATTR_RDONLY, const.MOUNT_ATTR_NOSUID, const.MOUNT_ATTR_NODEV
NOEXEC, ATIME = const.MOUNT_ATTR_NOEXEC, const.MOUNT_ATTR__ATIME

TABLE = [
    (["ro"], {"set": RO, "ms": const.MS_RDONLY}),
    (["rw"], {"clear": RO}),
    (["ro", "rw"], {"clear": RO}),
    (["rw", "ro"], {"set": RO, "ms": const.MS_RDONLY}),
    (["nosuid", "nodev", "noexec"],
     {"set": NOSUID | NODEV | NOEXEC, "ms": const.MS_NOSUID | const.MS_NODEV | const.MS_NOEXEC}),
    (["nosuid", "suid"], {"clear": NOSUID}),
    (["noatime"], {"set": const.MOUNT_ATTR_NOATIME, "clear": ATIME, "ms": const.MS_NOATIME}),
    (["noatime", "strictatime"],
     {"set": const.MOUNT_ATTR_STRICTATIME, "clear": ATIME, "ms": const.MS_STRICTATIME}),
    (["strictatime", "relatime"], {"clear": ATIME, "ms": const.MS_RELATIME}),
    (["noatime", "nodiratime", "diratime"],
     {"set": const.MOUNT_ATTR_NOATIME, "clear": ATIME | const.MOUNT_ATTR_NODIRATIME, "ms": const.MS_NOATIME}),
    (["nosymfollow"], {"set": const.MOUNT_ATTR_NOSYMFOLLOW, "ms": const.MS_NOSYMFOLLOW}),
    (["rro"], {"recursive_set": RO}),
    (["rro", "rrw"], {"recursive_clear": RO}),
    (["rnoatime", "rrelatime"], {"recursive_clear": ATIME}),
    (["rro", "ro"], {"recursive_set": RO, "set": RO, "ms": const.MS_RDONLY}),
    (["bind"], {"bind": True, "ms": const.MS_BIND}),
    (["rbind"], {"bind": True, "rec": True, "ms": const.MS_BIND | const.MS_REC}),
    (["rbind", "bind"], {"bind": True, "rec": True, "ms": const.MS_BIND | const.MS_REC}),
    (["rprivate"], {"propagation": [const.MS_PRIVATE | const.MS_REC]}),
    (["slave", "shared"], {"propagation": [const.MS_SLAVE, const.MS_SHARED]}),
    (["runbindable"], {"propagation": [const.MS_UNBINDABLE | const.MS_REC]}),
    (["remount", "ro"], {"remount": True, "set": RO, "ms": const.MS_REMOUNT | const.MS_RDONLY}),
    (["sync", "dirsync"],
     {"super": ["sync", "dirsync"], "ms": const.MS_SYNCHRONOUS | const.MS_DIRSYNC}),
    (["lazytime", "nolazytime"], {"super": ["lazytime", "nolazytime"]}),
    (["silent", "iversion"], {"ms": const.MS_SILENT | const.MS_I_VERSION}),
    (["defaults"], {}),
    (["tmpcopyup", "copy-symlink"], {"copyup": True, "copy_symlink": True}),
    (["idmap"], {"idmap": ""}),
    (["ridmap"], {"idmap": "", "idmap_rec": True}),
    (["idmap=uids=0-1-2;gids=0-1-2"], {"idmap": "uids=0-1-2;gids=0-1-2"}),
    (["ridmap=uids=0-1-2;gids=0-1-2", "idmap"], {"idmap": ""}),
    (["size=64k", "mode=1777", "uid=5"], {"data": ["size=64k", "mode=1777", "uid=5"]}),
    (["newinstance", "RO", "ro "], {"data": ["newinstance", "RO", "ro "]}),
    (["lowerdir=/a:/b", "context=\"x:y\""], {"data": ["lowerdir=/a:/b", "context=\"x:y\""]}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("options", "expected"),
    TABLE,
    ids=lambda value: ",".join(value) if isinstance(value, list) else "",
)
def test_options_become_flags(options: list[str], expected: dict) -> None:
    found = changed(*options)
    found.pop("exact", None)
    assert found == expected


NAMED = {*mountoptions.ATTRIBUTES, *mountoptions.SUPERBLOCK}


@pytest.mark.parametrize("name", mountoptions.names())
def test_a_flag_of_the_mount_makes_a_bind_mounts_flags_exact(name: str) -> None:
    """As runc: any flag that is named, set or cleared, but for bind, rbind and remount."""
    assert parse("rbind", name)["exact"] == (name in NAMED)


def test_an_empty_option_is_none() -> None:
    assert parse("ro", "", "nosuid", "") == parse("ro", "nosuid")
    assert changed("") == {}


def test_links_that_are_not_followed() -> None:
    assert changed("src-nofollow") == {"src_nofollow": True}
    assert changed("dest-nofollow", "src-nofollow") == {"src_nofollow": True, "dest_nofollow": True}


def test_the_names_are_sorted_and_without_twins() -> None:
    names = mountoptions.names()
    assert names == sorted(set(names))
    assert all(re.fullmatch(r"[a-z][a-z-]*", name) for name in names)


def test_the_flags_have_the_numbers_of_the_header() -> None:
    header = Path("/usr/include/linux/mount.h")
    if not header.exists():
        pytest.skip("no kernel headers")
    text = header.read_text()
    for name in (
        "RDONLY",
        "NOSUID",
        "NODEV",
        "NOEXEC",
        "NOATIME",
        "STRICTATIME",
        "NODIRATIME",
        "NOSYMFOLLOW",
    ):
        match = re.search(rf"#define MOUNT_ATTR_{name}\s+(0x[0-9a-f]+)", text)
        assert match, name
        assert getattr(const, f"MOUNT_ATTR_{name}") == int(match[1], 16)


KNOWN = st.sampled_from(
    [*mountoptions.ATTRIBUTES, *mountoptions.RECURSIVE, *mountoptions.SUPERBLOCK]
)


@given(st.lists(KNOWN, max_size=10))
def test_a_flag_is_never_set_and_cleared_but_for_access_times(options: list[str]) -> None:
    found = parse(*options)
    assert found["set"] & found["clear"] & ~ATIME == 0
    assert found["recursive_set"] & found["recursive_clear"] & ~ATIME == 0
    # mount_setattr(2) wants the whole field cleared where one of its values is set.
    for prefix in ("", "recursive_"):
        if found[prefix + "set"] & ATIME:
            assert found[prefix + "clear"] & ATIME == ATIME


@given(st.lists(KNOWN, max_size=8), KNOWN)
def test_the_last_one_wins(options: list[str], last: str) -> None:
    whole, alone = parse(*options, last), parse(last)
    for key in ("set", "recursive_set"):
        assert whole[key] & alone[key] == alone[key]
    for key in ("clear", "recursive_clear"):
        assert whole[key] & alone[key] == alone[key]
    # What mount(2) is told for the same mount agrees with what mount_setattr(2) is told.
    for attribute, flag in ((RO, const.MS_RDONLY), (NOSUID, const.MS_NOSUID), (NODEV, const.MS_NODEV),
                            (NOEXEC, const.MS_NOEXEC)):  # fmt: skip
        assert bool(whole["set"] & attribute) == bool(whole["ms"] & flag)


@given(st.lists(KNOWN, max_size=8))
def test_parsing_does_not_keep_anything(options: list[str]) -> None:
    assert parse(*options) == parse(*options)
    assert mountoptions.parse([]) == EMPTY
