"""The registry and the stand-ins of `make critest` (tests/critest), pulled and run by containerd without that suite."""

from __future__ import annotations

import re
from typing import Iterator, List

import pytest

from tests.critest.images import E2E, STAGING
from tests.critest.run import HERE, PORT, differences, read, start_registry
from tests.engines.conftest import need, new_box
from tests.engines.containerd import Containerd, Ctr
from tests.engines.test_containerd import containerd_in

pytestmark = pytest.mark.needs("compiler")
HOST = f"127.0.0.1:{PORT}"


@pytest.fixture(scope="module")
def daemon(engine_runtime: str) -> Iterator[Containerd]:
    """Give a containerd in a box in which the registry serves."""
    need("containerd", "ctr", "runc", "busybox", "python3")
    box = new_box("registry")
    registry = None
    try:
        registry = start_registry(box)
        yield containerd_in(box, engine_runtime)
    finally:
        if registry is not None:
            registry.kill()
            registry.wait()
        box.close()


def pull(side: Ctr, name: str) -> str:
    """Pull an image and give the name that containerd has for it."""
    full = f"{HOST}/{name}"
    side("images", "pull", "--plain-http", full).ok()
    return full


def run(side: Ctr, image: str, options: List[str], command: List[str]) -> str:
    """Run a command, or the image's own, and give its output."""
    name = side.box.fresh("standin")
    words = ["run", "--rm", "--runc-binary", side.runtime, *options, image, name, *command]
    return side(*words).ok().out


def test_a_stand_in_is_pulled_by_tag_and_by_digest(daemon: Containerd) -> None:
    side = Ctr(daemon, "anocir")
    image = pull(side, f"{E2E}/busybox:1.29-2")
    assert run(side, image, [], ["cat", "/etc/stand-in"]).startswith(f"{E2E}/busybox ")
    listed = side("images", "ls", f"name=={image}").ok().out
    digest = re.search(r"sha256:[0-9a-f]{64}", listed).group()  # type: ignore[union-attr]
    again = pull(side, f"{E2E}/busybox@{digest}")
    assert digest in side("images", "ls", f"name=={again}").ok().out


def test_three_tags_are_one_image_and_three_names_are_three(daemon: Containerd) -> None:
    side = Ctr(daemon, "anocir")
    names = [f"{STAGING}/test-image-tags:{number}" for number in "123"]
    names += [f"{STAGING}/test-image-{number}:latest" for number in "123"]
    digests = []
    for name in names:
        image = pull(side, name)
        listed = side("images", "ls", f"name=={image}").ok().out
        digests += re.findall(r"sha256:[0-9a-f]{64}", listed)[:1]
    assert len(set(digests[:3])) == 1
    assert len(set(digests)) == 4


def test_what_the_stand_ins_do(daemon: Containerd) -> None:
    """A setuid program, a masked applet that leaves the others alone, the user that an image names."""
    side = Ctr(daemon, "anocir")
    setuid = pull(side, f"{E2E}/nonewprivs:1.3")
    user = ["--user", "1000", "--allow-new-privs"]
    assert run(side, setuid, user, ["/nnp"]) == "Effective uid: 0\n"
    assert run(side, setuid, ["--user", "1000"], ["/nnp"]) == "Effective uid: 1000\n"
    busybox = pull(side, f"{E2E}/busybox:1.29-2")
    assert (
        run(side, busybox, [], ["sh", "-c", "rm /bin/ls; cat /bin/busybox | wc -c"]).strip() != "0"
    )
    group = pull(side, f"{STAGING}/test-image-predefined-group:latest")
    assert run(side, group, [], ["id"]).startswith("uid=1000(default-user)")


def test_the_registry_is_read_only_and_knows_what_it_has(daemon: Containerd) -> None:
    side = Ctr(daemon, "anocir")
    missing = side("images", "pull", "--plain-http", f"{HOST}/{E2E}/busybox:no-such-tag")
    assert missing.status != 0 and "not found" in missing.err, missing
    ask = (
        "import http.client as h; c = h.HTTPConnection('127.0.0.1', %d); "
        "c.request('POST', '/v2/x/blobs/uploads/'); print(c.getresponse().status)" % PORT
    )
    assert side.box.run(["python3", "-c", ask]).ok().out == "501\n"


def test_the_table_is_compared_in_both_directions() -> None:
    """A test that is not in the table, one that was not run, one that has another result: each is told."""
    rows = {"a": ("passed", ""), "b": ("failed", "why"), "c": ("passed", "")}
    found = {"a": "failed", "b": "failed", "d": "passed"}
    assert differences(rows, found, whole=True) == [
        "failed in the place of passed: a",
        "not run in the place of passed: c",
        "passed in the place of not in the table: d",
    ]
    assert differences(rows, {"b": "failed", "c": "skipped"}, whole=False) == []


def test_what_does_not_pass_in_the_table_has_a_reason() -> None:
    for table in HERE.glob("expected-*.txt"):
        rows = read(table)
        assert rows, table
        assert [name for name, (state, why) in rows.items() if state != "passed" and not why] == []
