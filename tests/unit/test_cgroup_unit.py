"""The systemd unit of a container: its name, its slices, its properties, annotations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.cgroup import devices, unit
from anocir.errors import Error

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("path", "user", "answer"),
    [
        ("system.slice:docker:abc", False, ("system.slice", "docker-abc.scope")),
        (":cri-containerd:abc", False, ("system.slice", "cri-containerd-abc.scope")),
        (":libpod:abc", True, ("user.slice", "libpod-abc.scope")),
        ("a-b.slice::abc", False, ("a-b.slice", "-abc.scope")),
        ("-:x:y", False, ("-.slice", "x-y.scope")),
        ("a.slice:x:a-b.slice", False, ("a.slice", "a-b.slice")),
        ("-:x:b.slice", False, ("-.slice", "b.slice")),
        ("", False, ("system.slice", "anocir-c1.scope")),
        ("", True, ("user.slice", "anocir-c1.scope")),
        ("system.slice:docker:a+b", False, ("system.slice", "docker-a\\x2bb.scope")),
    ],
)
def test_a_triplet_names_a_slice_and_a_unit(path, user, answer):
    assert unit.parse(path, "c1", user) == answer


@pytest.mark.parametrize(
    "path",
    ["/docker/abc", "a:b", "a:b:c:d", "x:y:z", "a--b.slice:x:y", "-a.slice:x:y", "a/b.slice:x:y",
     "system.slice:docker:", "../a.slice:x:y", ".slice:x:y", "a.slice:x:b.slice",
     "a.slice:x:a-b-c.slice", "system.slice:x:" + "y" * 250, "system.slice:x:" + "+" * 70],
)  # fmt: skip
def test_what_is_no_triplet_is_refused(path):
    with pytest.raises(Error, match=r"^linux\.cgroupsPath: "):
        unit.parse(path, "c1", user=False)


def test_a_nested_slice_is_a_directory_for_each_part():
    assert unit.expand("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert unit.expand("system.slice") == "/system.slice"
    assert unit.expand("-.slice") == ""


@given(st.text(max_size=20))
def test_a_unit_name_has_no_slash_and_only_systemd_s_characters(name):
    assert set(unit.escape(name)) <= set(
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789:-_.\\@"
    )


def test_limits_become_properties():
    values = {
        "cpu": {"shares": 1024, "quota": 12345, "period": 50000, "cpus": "0-2,9"},
        "memory": {"limit": 100, "swap": 300, "reservation": 50},
        "pids": {"limit": 0},
        "blockIO": {"weight": 1000},
    }
    assert unit.resources(values, 2, 252) == [
        ("CPUWeight", "t", 100),
        ("CPUQuotaPeriodUSec", "t", 50000),
        ("CPUQuotaPerSecUSec", "t", 250000),
        ("AllowedCPUs", "ay", b"\x07\x02"),
        ("MemoryMax", "t", 100),
        ("MemoryLow", "t", 50),
        ("MemorySwapMax", "t", 200),
        ("IOWeight", "t", 10000),
        ("TasksMax", "t", 1),
    ]
    assert unit.resources(values, 1, 252) == [
        ("CPUShares", "t", 1024),
        ("CPUQuotaPeriodUSec", "t", 50000),
        ("CPUQuotaPerSecUSec", "t", 250000),
        ("MemoryLimit", "t", 100),
        ("BlockIOWeight", "t", 1000),
        ("TasksMax", "t", 1),
    ]


def test_an_old_systemd_is_not_sent_what_it_does_not_know():
    values = {"cpu": {"quota": 50000, "period": 100000, "cpus": "0", "idle": 1}}
    assert unit.resources(values, 2, 239) == [("CPUQuotaPerSecUSec", "t", 500000)]


def test_unified_becomes_properties_where_systemd_knows_them():
    values = {
        "unified": {
            "memory.high": "5",
            "cpu.max": "max 50000",
            "pids.max": "max",
            "io.max": "8:0 rbps=1",
        }
    }
    assert unit.resources(values, 2, 252) == [
        ("MemoryHigh", "t", 5),
        ("CPUQuotaPeriodUSec", "t", 50000),
        ("CPUQuotaPerSecUSec", "t", unit.INFINITY),
        ("TasksMax", "t", unit.INFINITY),
    ]


@pytest.mark.parametrize(
    ("unified", "properties"),
    [
        ({"cpu.idle": "1"}, [("CPUWeight", "t", 0)]),
        ({"cpu.idle": "0"}, []),
        ({"cpu.weight": "33"}, [("CPUWeight", "t", 33)]),
        ({"memory.high": "1G"}, [("MemoryHigh", "t", 1 << 30)]),
        ({"memory.max": "64m\n"}, [("MemoryMax", "t", 64 << 20)]),
        ({"memory.low": "0x1000"}, [("MemoryLow", "t", 4096)]),
        ({"memory.low": "0xE"}, [("MemoryLow", "t", 14)]),
        ({"memory.min": "010k"}, [("MemoryMin", "t", 8192)]),
        ({"memory.swap.max": "max"}, [("MemorySwapMax", "t", unit.INFINITY)]),
        ({"memory.high": "16E"}, [("MemoryHigh", "t", unit.INFINITY)]),
        ({"pids.max": "0"}, [("TasksMax", "t", 1)]),
        ({"pids.max": " 12"}, [("TasksMax", "t", 12)]),
        ({"io.weight": "default 300"}, [("IOWeight", "t", 300)]),
        ({"io.weight": "300"}, [("IOWeight", "t", 300)]),
        ({"io.weight": "8:0 300"}, []),
        ({"cpu.max": "20000"}, [("CPUQuotaPerSecUSec", "t", 200000)]),
        (
            {"cpu.max": "20000 50000"},
            [("CPUQuotaPeriodUSec", "t", 50000), ("CPUQuotaPerSecUSec", "t", 400000)],
        ),
        ({"cpuset.mems": "0-1"}, [("AllowedMemoryNodes", "ay", b"\x03")]),
        ({"cpuset.cpus": ""}, []),
        ({"memory.oom.group": "1"}, []),
    ],
)
def test_every_value_that_systemd_would_overwrite_is_a_property(unified, properties):
    assert unit.resources({"unified": unified}, 2, 252) == properties


@pytest.mark.parametrize(
    ("key", "text"),
    [("memory.high", "1Q"), ("memory.high", "-5"), ("pids.max", "x"), ("cpu.weight", ""),
     ("memory.max", "99999999999999999999"), ("cpu.max", "fast 100"), ("memory.low", "1_0")],
)  # fmt: skip
def test_a_value_that_the_kernel_would_refuse_is_refused_by_name(key, text):
    with pytest.raises(Error, match=rf'^linux\.resources\.unified\["{key}"\]: '):
        unit.resources({"unified": {key: text}}, 2, 252)


def test_device_rules_become_a_list_after_an_empty_one():
    rules = devices.effective(
        devices.parse([{"allow": True, "type": "b", "major": 8, "access": "r"}])
    )
    properties = unit.devices(rules, {("c", 136): "pts", ("b", 8): "sd"})
    assert properties[:2] == [("DevicePolicy", "s", "strict"), ("DeviceAllow", "a(ss)", [])]
    entries = properties[2][2]
    assert entries[0] == ("block-sd", "r")
    assert ("/dev/char/1:3", "rwm") in entries
    assert ("char-pts", "rwm") in entries
    assert ("char-*", "m") in entries


def test_a_privileged_unit_has_no_device_policy():
    rules = devices.effective(devices.parse([{"allow": True}]))
    assert unit.devices(rules, {}) == [("DevicePolicy", "s", "auto"), ("DeviceAllow", "a(ss)", [])]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("true", ("b", True)),
        ("'inactive-or-failed'", ("s", "inactive-or-failed")),
        ('"it\'s"', ("s", "it's")),
        ("5", ("i", 5)),
        ("1.5", ("d", 1.5)),
        ("uint64 123456789", ("t", 123456789)),
        ("['a', 'b,c']", ("as", ["a", "b,c"])),
        ("@as []", ("as", [])),
        ("@as ['a']", ("as", ["a"])),
        ("@as [ 'a' , \"b\" ]", ("as", ["a", "b"])),
        ("@t 99", ("t", 99)),
        ("@at [1, 2]", ("at", [1, 2])),
        ("@ay [1, 0xff]", ("ay", [1, 255])),
        ("b'a\\n\\101'", ("ay", [97, 10, 65, 0])),
        ("uint64 010", ("t", 8)),
        ("-0x10", ("i", -16)),
        ("1e1", ("d", 10.0)),
        ("double 3", ("d", 3.0)),
        ("[1, 2.5]", ("ad", [1.0, 2.5])),
        ("[[1], [2, 3]]", ("aai", [[1], [2, 3]])),
        ("int64 -9223372036854775808", ("x", -(1 << 63))),
        ("uint64 18446744073709551615", ("t", (1 << 64) - 1)),
        ("'\\u00e9\\U0001f600\\t'", ("s", "\u00e9\U0001f600\t")),
        ("objectpath '/a'", ("o", "/a")),
    ],
)
def test_gvariant_text_is_read(text, answer):
    assert unit.gvariant(text, "x") == answer


@given(st.text(alphabet="'\"[]@ ,\\abtrue019uint64.", max_size=20))
def test_any_text_is_a_value_or_an_error(text):
    try:
        signature, _ = unit.gvariant(text, "x")
    except Error:
        return
    assert signature


def test_annotations_set_properties_and_seconds_become_microseconds():
    values = {
        "org.systemd.property.TimeoutStopSec": "7",
        "org.systemd.property.CollectMode": "'inactive'",
        "other": "x",
    }
    assert unit.annotated(values) == [
        ("TimeoutStopUSec", "t", 7000000),
        ("CollectMode", "s", "inactive"),
    ]
    for bad in ("org.systemd.property.", "org.systemd.property.A/b", "org.systemd.property.X2y"):
        with pytest.raises(Error, match="annotations"):
            unit.annotated({bad: "1"})


@pytest.mark.parametrize(
    "text",
    ["uint64 18446744073709551616", "uint64 -1", "byte 256", "int16 32768", "3000000000",
     "@y 300", "@ay [1, 256]", "[]", "[1, 'a']", "(1, 2)", "{'a': 1}", "<1>", "1 2", "'a' x",
     "'a", "@zz 1", "@(ii) 1", "@t 'a'", "uint64", "1_000", "0x", "'\\ud800'", "'a\\u0000b'",
     "'\\u12'", "'\\Uffffffff'", "nothing", "", "@t 1.5"],
)  # fmt: skip
def test_a_value_that_is_none_is_one_error_that_names_the_annotation(text):
    with pytest.raises(Error, match=r'^annotations\["org\.systemd\.property\.Xyz"\]: must be G'):
        unit.annotated({"org.systemd.property.Xyz": text})


@pytest.mark.parametrize("text", ["-1", "1e300", "nan", "inf", "true", "'5'", "[5]"])
def test_seconds_that_are_none_are_refused(text):
    with pytest.raises(Error, match="must be a number of seconds"):
        unit.annotated({"org.systemd.property.TimeoutStopSec": text})
