"""Run critest, Kubernetes' tests of a container runtime, against containerd with a runtime, and compare with a table.

usage: run.py --critest FILE --crictl FILE [--write] [--focus REGEX] RUNTIME...

FILE are the two programs of a built https://github.com/kubernetes-sigs/cri-tools. RUNTIME is a path, or the name of a
program of the Debian tree ($SUITE) whose containerd serves. Each runtime has a box of its own (tests/engines/box.py), with
a registry in it that serves stand-ins (images.py). The table is expected-SUITE.txt: one line a test, with what becomes of
it and why where it does not pass; what differs from it fails. --write renews it, keeping the reasons.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

from tests.drive import until
from tests.engines import tree
from tests.engines.box import Box

HERE = Path(__file__).resolve().parent
TOP = HERE.parents[1]
HOME = "/run/cri"
ENDPOINT = f"unix://{HOME}/containerd.sock"
PORT = 5000
TIME_LIMIT = 3600

CONFIG = f"""
version = 2
root = "{HOME}/root"
state = "{HOME}/state"
[grpc]
  address = "{HOME}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "registry.k8s.io/pause:3.9"
  # Without CAP_SYS_RESOURCE a lower value than one's own is refused.
  restrict_oom_score_adj = true
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "tested"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.tested.options]
        BinaryName = "%s"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{HOME}/net.d"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{HOME}/certs.d"
"""
HOSTS = f"""
server = "http://127.0.0.1:{PORT}"
[host."http://127.0.0.1:{PORT}"]
  capabilities = ["pull", "resolve"]
"""
NETWORK = {
    "cniVersion": "0.4.0",
    "name": "critest",
    "plugins": [
        {
            "type": "bridge",
            "bridge": "cri0",
            "isGateway": True,
            "ipMasq": True,
            "promiscMode": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.216.0.0/16"}]],
                "routes": [{"dst": "0.0.0.0/0"}],
                "dataDir": f"{HOME}/ipam",
            },
        },
        {"type": "portmap", "capabilities": {"portMappings": True}},
    ],
}


def main() -> int:
    """Run the suite for each runtime."""
    parser = argparse.ArgumentParser(prog="make critest")
    parser.add_argument("--critest", type=Path, required=True)
    parser.add_argument("--crictl", type=Path, required=True)
    parser.add_argument(
        "--write", action="store_true", help="renew the table from the first runtime"
    )
    parser.add_argument("--focus", help="only the tests whose names match")
    parser.add_argument("runtimes", nargs="+", metavar="RUNTIME")
    options = parser.parse_args()
    suite = tree.suite()
    if lacking := tree.missing(suite):
        print(f"critest: {lacking}", file=sys.stderr)
        return 2
    tree.make(suite)
    table = HERE / f"expected-{suite}.txt"
    bad = 0
    for number, runtime in enumerate(options.runtimes):
        began = time.monotonic()
        found = run(options, runtime)
        print(f"{runtime}: {summary(found)} in {time.monotonic() - began:.0f} s", flush=True)
        if options.write and number == 0:
            write(table, found)
        for line in differences(read(table), found, whole=not options.focus):
            print(f"{runtime}: {line}", flush=True)
            bad += 1
    return 1 if bad else 0


def run(options: argparse.Namespace, runtime: str) -> dict[str, str]:
    """Run the suite in a box of its own; give what became of each test."""
    box = Box(f"anocir-engines-{os.getpid()}-critest", tree.place(tree.suite()))
    registry = None
    try:
        box.run(["mkdir", "-p", f"{HOME}/net.d", f"{HOME}/certs.d/_default", f"{HOME}/bin"]).ok()
        for program in (options.critest, options.crictl):
            put(program, box.path(f"{HOME}/bin/{program.name}"))
        if "/" in runtime:
            put(Path(runtime), box.path(f"{HOME}/bin/runtime"))
        binary = f"{HOME}/bin/runtime" if "/" in runtime else box.run(["which", runtime]).ok().out
        box.path(f"{HOME}/config.toml").write_text(CONFIG % binary.strip())
        box.path(f"{HOME}/certs.d/_default/hosts.toml").write_text(HOSTS)
        box.path(f"{HOME}/net.d/10-critest.conflist").write_text(json.dumps(NETWORK))
        # For the tests of mount propagation.
        for words in (["--bind", "/run/tmp", "/run/tmp"], ["--make-shared", "/run/tmp"]):
            box.run(["mount", *words]).ok()
        registry = start_registry(box)
        box.spawn(["containerd", "-c", f"{HOME}/config.toml"], log=f"{HOME}/log")
        crictl = [f"{HOME}/bin/{options.crictl.name}", "--runtime-endpoint", ENDPOINT]
        ready(box, crictl)
        words = [f"{HOME}/bin/{options.critest.name}", "--runtime-endpoint", ENDPOINT]
        words += [
            f"--ginkgo.junit-report={HOME}/report.xml",
            "--ginkgo.no-color",
            "--ginkgo.seed=1",
        ]
        words += [f"--ginkgo.focus={options.focus}"] if options.focus else []
        with open(TOP / "build" / f"critest-{Path(runtime).name}.log", "wb") as log:
            child = box.spawn(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            child.wait(TIME_LIMIT)
        left = (
            box.run([*crictl, "ps", "-aq"]).out.split()
            + box.run([*crictl, "pods", "-q"]).out.split()
        )
        found = results(box.path(f"{HOME}/report.xml"))
        found["[ours] nothing is left when the suite has ended"] = "failed" if left else "passed"
        return found
    finally:
        if registry is not None:
            registry.kill()
            registry.wait()
        box.close()


def put(source: Path, target: Path) -> None:
    """Copy a program to where the box sees it."""
    shutil.copyfile(source, target)
    target.chmod(0o755)


def start_registry(box: Box) -> subprocess.Popen[bytes]:
    """Serve the stand-ins on the box's loopback address, with this machine's Python."""
    with tempfile.TemporaryDirectory() as scratch:
        program = f"{scratch}/effective"
        compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))))
        words = [compiler, "-static", "-O1", "-o", program, str(HERE / "effective.c")]
        subprocess.run(words, check=True)
        words = ["nsenter", "-t", str(box.pid), "-n", "--", sys.executable, "-m"]
        words += ["tests.critest.images", str(PORT)]
        child = subprocess.Popen(
            words, cwd=TOP, env={**os.environ, "EFFECTIVE": program}, stdout=subprocess.PIPE
        )
        assert child.stdout is not None
        said = child.stdout.readline()
    if not said.startswith(b"serving on"):
        raise SystemExit("critest: the registry did not start")
    return child


def ready(box: Box, crictl: list[str]) -> None:
    """Wait until runtime and network say that they are ready."""

    def conditions() -> dict[str, bool]:
        result = box.run([*crictl, "info"])
        if result.status != 0:
            return {}
        listed = json.loads(result.out)["status"]["conditions"]
        return {one["type"]: one["status"] for one in listed}

    until(
        "runtime and network are ready",
        conditions,
        pause=0.2,
        found=lambda now: now.get("RuntimeReady") and now.get("NetworkReady"),
    )


def results(report: Path) -> dict[str, str]:
    """Read the suite's report: passed, failed or skipped by name."""
    found = {}
    for case in ET.parse(report).iter("testcase"):
        name = case.get("name", "")
        # The suite's own frame is no test.
        if name.startswith("[It] "):
            states = {child.tag for child in case} & {"failure", "error", "skipped"}
            word = next(iter(states), "passed")
            name = " ".join(name[len("[It] ") :].split())
            found[name] = {"failure": "failed", "error": "failed"}.get(word, word)
    return found


def summary(found: dict[str, str]) -> str:
    """Count what became of the tests."""
    words = ("passed", "failed", "skipped")
    return ", ".join(f"{list(found.values()).count(word)} {word}" for word in words)


def read(table: Path) -> dict[str, tuple[str, str]]:
    """Read the table: state and reason by name."""
    rows = {}
    if table.exists():
        for line in table.read_text().splitlines():
            if line and not line.startswith("#"):
                body, _, reason = line.partition("  # ")
                state, _, name = body.partition(" ")
                rows[name] = (state, reason)
    return rows


def write(table: Path, found: dict[str, str]) -> None:
    """Write the table, with the reasons that it had."""
    old = read(table)
    lines = [
        "# What becomes of critest's tests; a reason stands behind what does not pass (run.py --write renews it)."
    ]
    for name, state in sorted(found.items(), key=lambda row: (row[1] == "passed", row[0])):
        reason = old.get(name, ("", ""))[1] if state != "passed" else ""
        lines.append(f"{state} {name}" + (f"  # {reason}" if reason else ""))
    table.write_text("\n".join(lines) + "\n")


def differences(
    rows: dict[str, tuple[str, str]], found: dict[str, str], *, whole: bool
) -> list[str]:
    """Say where the results are others than the table's."""
    said = []
    for name in sorted({*found, *(rows if whole else ())}):
        expected, now = rows.get(name, ("not in the table", ""))[0], found.get(name, "not run")
        if expected != now and (whole or now != "skipped"):
            said.append(f"{now} in the place of {expected}: {name}")
    return said


if __name__ == "__main__":
    sys.exit(main())
