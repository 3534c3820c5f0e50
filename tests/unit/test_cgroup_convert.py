"""The resources of config.json as values for the files: a table, and what no input may do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from anocir.cgroup import convert
from anocir.errors import Error

pytestmark = pytest.mark.unit

# resources -> (file, value) on v1, on v2; "?" after a file: it may be missing, "|": only if the one before is
TABLE = [
    ({}, [], []),
    ({"cpu": {"shares": 0, "quota": 0, "period": 0}}, [], []),
    ({"cpu": {"shares": 1024}}, [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ({"cpu": {"shares": 2}}, [("cpu.shares", "2")], [("cpu.weight", "1")]),
    ({"cpu": {"shares": 262144}}, [("cpu.shares", "262144")], [("cpu.weight", "10000")]),
    (
        {"cpu": {"quota": 50000}},
        [("cpu.cfs_quota_us", "50000")],
        [("cpu.max", "50000 100000")],
    ),
    ({"cpu": {"quota": -1}}, [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    (
        {"cpu": {"quota": 50000, "period": 200000, "burst": 10}},
        [
            ("cpu.cfs_period_us", "200000"),
            ("cpu.cfs_quota_us", "50000"),
            ("cpu.cfs_burst_us", "10"),
        ],
        [("cpu.max", "50000 200000"), ("cpu.max.burst", "10")],
    ),
    (
        {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 5}},
        [("cpu.rt_period_us", "1000000"), ("cpu.rt_runtime_us", "5")],
        [],
    ),
    (
        {"cpu": {"idle": 1, "shares": 512}},
        [("cpu.shares", "512"), ("cpu.idle", "1")],
        [("cpu.weight", "59"), ("cpu.idle", "1")],
    ),
    (
        {"cpu": {"idle": 0, "shares": 512}},
        [("cpu.idle", "0"), ("cpu.shares", "512")],
        [("cpu.idle", "0"), ("cpu.weight", "59")],
    ),
    (
        {"cpu": {"cpus": "0-1", "mems": "0"}},
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
        [("cpuset.cpus", "0-1"), ("cpuset.mems", "0")],
    ),
    ({"memory": {"limit": 0, "swap": 0, "reservation": 0}}, [], []),
    ({"memory": {"limit": 100}}, [("memory.limit_in_bytes", "100")], [("memory.max", "100")]),
    (
        {"memory": {"limit": 100, "swap": 100}},
        [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "100")],
        [("memory.swap.max?", "0"), ("memory.max", "100")],
    ),
    (
        {"memory": {"limit": 100, "swap": 300}},
        [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes", "300")],
        [("memory.swap.max", "200"), ("memory.max", "100")],
    ),
    (
        {"memory": {"limit": 100, "swap": -1}},
        [("memory.limit_in_bytes", "100"), ("memory.memsw.limit_in_bytes?", "-1")],
        [("memory.swap.max?", "max"), ("memory.max", "100")],
    ),
    (
        {"memory": {"limit": -1}},
        [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes?", "-1")],
        [("memory.swap.max?", "max"), ("memory.max", "max")],
    ),
    (
        {"memory": {"reservation": 50, "kernel": 7, "kernelTCP": 9, "swappiness": 0}},
        [
            ("memory.soft_limit_in_bytes", "50"),
            ("memory.kmem.tcp.limit_in_bytes", "9"),
            ("memory.swappiness", "0"),
        ],
        [("memory.low", "50")],
    ),
    ({"memory": {"disableOOMKiller": True}}, [("memory.oom_control", "1")], []),
    ({"memory": {"disableOOMKiller": False}}, [], []),
    ({"pids": {}}, [], []),
    ({"pids": {"limit": 0}}, [("pids.max", "1")], [("pids.max", "1")]),
    ({"pids": {"limit": -1}}, [("pids.max", "max")], [("pids.max", "max")]),
    ({"pids": {"limit": 7}}, [("pids.max", "7")], [("pids.max", "7")]),
    ({"blockIO": {"weight": 0, "leafWeight": 0}}, [], []),
    (
        {"blockIO": {"weight": 10}},
        [("blkio.weight", "10"), ("blkio.bfq.weight|", "10")],
        [("io.bfq.weight", "10"), ("io.weight|", "1")],
    ),
    (
        {"blockIO": {"weight": 1000, "leafWeight": 300}},
        [("blkio.weight", "1000"), ("blkio.bfq.weight|", "1000"), ("blkio.leaf_weight", "300")],
        [("io.bfq.weight", "1000"), ("io.weight|", "10000")],
    ),
    (
        {"blockIO": {"weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 20}]}},
        [
            ("blkio.weight_device", "8:0 500"),
            ("blkio.bfq.weight_device|", "8:0 500"),
            ("blkio.leaf_weight_device", "8:0 20"),
        ],
        [("io.bfq.weight", "8:0 500"), ("io.weight", "8:0 4950")],
    ),
    (
        {
            "blockIO": {
                "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 0}],
            }
        },
        [
            ("blkio.throttle.read_bps_device", "8:0 600"),
            ("blkio.throttle.write_iops_device", "8:16 0"),
        ],
        [("io.max", "8:0 rbps=600"), ("io.max", "8:16 wiops=max")],
    ),
    (
        {"hugepageLimits": [{"pageSize": "2MB", "limit": 4096}]},
        [("hugetlb.2MB.limit_in_bytes", "4096"), ("hugetlb.2MB.rsvd.limit_in_bytes?", "4096")],
        [("hugetlb.2MB.max", "4096"), ("hugetlb.2MB.rsvd.max?", "4096")],
    ),
    (
        {"network": {"classID": 255, "priorities": [{"name": "lo", "priority": 5}]}},
        [("net_cls.classid", "255"), ("net_prio.ifpriomap", "lo 5")],
        [],
    ),
    (
        {"rdma": {"mlx": {"hcaHandles": 3, "hcaObjects": 9}}},
        [("rdma.max", "mlx hca_handle=3 hca_object=9")],
        [("rdma.max", "mlx hca_handle=3 hca_object=9")],
    ),
    (
        {"unified": {"io.max": "8:0 rbps=1\n8:16 wbps=2", "memory.high": "5"}},
        [],
        [("io.max", "8:0 rbps=1"), ("io.max", "8:16 wbps=2"), ("memory.high", "5")],
    ),
]

REFUSED = [
    ({"memory": {"limit": -2}}, "linux.resources.memory.limit"),
    ({"memory": {"limit": 100, "swap": 50}}, "linux.resources.memory.swap"),
    ({"cpu": {"shares": True}}, "linux.resources.cpu.shares"),
    ({"pids": {"limit": "7"}}, "linux.resources.pids.limit"),
    ({"hugepageLimits": [{"pageSize": "3", "limit": 1}]}, "linux.resources.hugepageLimits[0]"),
    ({"hugepageLimits": [{"pageSize": "02MB", "limit": 1}]}, "linux.resources.hugepageLimits[0]"),
    (
        {"hugepageLimits": [{"pageSize": "../x.2MB", "limit": 1}]},
        "linux.resources.hugepageLimits[0]",
    ),
    ({"rdma": {"mlx": {}}}, 'linux.resources.rdma["mlx"]'),
    ({"rdma": {"a b": {"hcaHandles": 1}}}, 'linux.resources.rdma["a b"]'),
]


def short(writes):
    mark = {"optional": "?", "else": "|"}
    return [(file + mark.get(rule, ""), value) for _, file, value, _, rule in writes]


@pytest.mark.parametrize(("resources", "v1", "v2"), TABLE)
def test_resources_become_these_writes(resources, v1, v2):
    assert short(convert.v1(resources)) == v1
    assert short(convert.v2(resources)) == v2


@pytest.mark.parametrize(("resources", "path"), REFUSED)
def test_a_bad_value_is_refused_with_its_path(resources, path):
    for version in (convert.v1, convert.v2):
        with pytest.raises(Error) as error:
            version(resources)
        assert error.value.text.startswith(path)


def test_a_rate_of_operations_never_becomes_none_by_its_upper_bits():
    limits = [{"major": 8, "minor": 0, "rate": rate} for rate in (7, 2**32, 2**64 - 1)]
    for key in ("throttleReadIOPSDevice", "throttleWriteIOPSDevice"):
        rates = [write[2].split()[1] for write in convert.v1({"blockIO": {key: limits}})]
        assert rates == ["7", "4294967295", "4294967295"]


@pytest.mark.parametrize("shares", [1, 262145, 2**64 - 1])
def test_shares_that_version_1_would_clip_are_refused_there(shares):
    with pytest.raises(Error, match=r"resources\.cpu\.shares: must be between 2 and 262144"):
        convert.v1({"cpu": {"shares": shares}})
    assert convert.v2({"cpu": {"shares": shares}})[0][2] == ("1" if shares == 1 else "10000")


@pytest.mark.parametrize(
    "key", ["../x", "a/b", "memory", "memory..max", "cgroup.procs", "cgroup.kill", "a.b\n", ""]
)
def test_a_unified_key_that_is_no_limit_is_refused(key):
    with pytest.raises(Error, match="unified"):
        convert.unified({"unified": {key: "1"}})


def test_swap_without_memory_is_refused_on_v2():
    with pytest.raises(Error, match="needs memory.limit"):
        convert.v2({"memory": {"swap": 100}})


@given(st.integers(0, 300000))
def test_weight_grows_with_shares_and_stays_in_its_range(shares):
    weight = convert.shares_to_weight(shares)
    assert (weight == 0) == (shares == 0)
    assert 0 <= weight <= 10000
    assert weight <= convert.shares_to_weight(shares + 1)


@given(st.integers(10, 1000))
def test_io_weight_spans_its_range(weight):
    assert 1 <= convert.blkio_to_io_weight(weight) <= 10000
    assert convert.blkio_to_io_weight(weight) < convert.blkio_to_io_weight(weight + 1)


@given(st.text(max_size=12))
def test_a_page_size_never_makes_another_file_name(text):
    try:
        size = convert.page_size(text, "x")
    except Error:
        return
    assert size[:-2].isdigit()
    assert size[-2] in "KMGT"
    assert "/" not in size


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: st.dictionaries(st.sampled_from(["limit", "swap", "shares", "quota"]), inner),
        max_leaves=5,
    )
)
def test_whatever_a_number_is_the_answer_is_an_error_or_words_of_one_line(value):
    for section in ("memory", "cpu", "pids"):
        if not isinstance(value, dict):
            continue
        for version in (convert.v1, convert.v2):
            try:
                writes = version({section: value})
            except Error:
                continue
            assert all("\n" not in text for _, _, text, _, _ in writes)
            assert all("/" not in file for _, file, _, _, _ in writes)


def test_what_v2_does_not_have_is_named():
    resources = {"memory": {"kernel": 5, "swappiness": 0}, "network": {"classID": 1}}
    assert convert.ignored(resources, 2) == [
        "linux.resources.memory.kernel",
        "linux.resources.memory.swappiness",
        "linux.resources.network",
    ]
    assert convert.ignored(resources, 1) == ["linux.resources.memory.kernel"]


@pytest.mark.parametrize(
    ("limit", "swap", "answer"),
    [(-1, 0, "max"), (-1, -1, "max"), (-1, 500, "500"), (100, 300, "200"), (100, 100, "0")],
)
def test_swap_of_v2_is_what_is_left_of_the_sum(limit, swap, answer):
    writes = convert.v2({"memory": {"limit": limit, "swap": swap}})
    assert ("memory.swap.max", answer) in [write[1:3] for write in writes]


WHOLE = {
    "cpu": {"shares": 512, "quota": 30000, "period": 90000, "idle": 1, "cpus": "0"},
    "memory": {"limit": 100, "swap": 300, "reservation": 50},
    "pids": {"limit": 7},
    "unified": {"pids.max": "9", "memory.high": "80"},
}


@pytest.mark.parametrize(
    ("names", "v1", "v2"),
    [
        ({"pids": {"limit": 7}}, [("pids.max", "7")], [("pids.max", "7")]),
        ({"cpu": {"idle": 1}}, [("cpu.idle", "1")], [("cpu.idle", "1")]),
        (
            {"cpu": {"quota": 30000}},
            [("cpu.cfs_quota_us", "30000")],
            [("cpu.max", "30000 90000")],
        ),
        (
            {"memory": {"limit": 100}},
            [("memory.limit_in_bytes", "100")],
            [("memory.swap.max", "200"), ("memory.max", "100")],
        ),
        (
            {"memory": {"reservation": 50}},
            [("memory.soft_limit_in_bytes", "50")],
            [("memory.low", "50")],
        ),
        ({"unified": {"memory.high": "80"}}, [], [("memory.high", "80")]),
        ({}, [], []),
    ],
)
def test_an_update_writes_what_it_names_and_nothing_else(names, v1, v2):
    """`unified` of the container, its shares, what was set by hand: all that stays."""
    for version, convert_one, wanted in ((1, convert.v1, v1), (2, convert.v2, v2)):
        part = convert.named(WHOLE, names, version)
        assert [write[1:3] for write in convert_one(part)] == wanted, version


def test_a_cgroup_that_is_idle_no_more_gets_its_weight_again():
    whole = {"cpu": {"shares": 512, "idle": 0}}
    part = convert.named(whole, {"cpu": {"idle": 0}}, 1)
    assert [write[1:3] for write in convert.v1(part)] == [("cpu.idle", "0"), ("cpu.shares", "512")]
