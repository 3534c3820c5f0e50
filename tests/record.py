#!/usr/bin/python3
"""Record a short session with the built archive as an SVG: tests/demo.svg, the picture of the README.

usage: sudo tests/record.py [--output FILE]

Every line of output is what the command printed on this machine when the picture was made; nothing is
written by hand but the commands.
"""

from __future__ import annotations

import argparse
import html
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

TOP = Path(__file__).resolve().parents[1]
ARCHIVE = TOP / "dist" / "anocir"
WIDTH, LINE, MARGIN = 94, 17, 14
SHOWN = "/containers/web"
SESSION = (
    "anocir run web",
    "anocir validate --config broken.json",
    "anocir create web && anocir state web | head -5",
    "anocir exec web id",
    "anocir list",
    "anocir delete --force web",
)


def main() -> None:
    """Make a bundle, run the session in it, draw what it printed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, default=TOP / "tests" / "demo.svg")
    options = parser.parse_args()
    # As long as SHOWN, so that columns stay columns.
    with tempfile.TemporaryDirectory(prefix="r-", dir="/tmp") as directory:
        lines = record(Path(directory))
    options.output.write_text(draw(lines))
    print(f"{options.output}: {len(lines)} lines")


def record(directory: Path) -> list[tuple[str, str]]:
    """Return (kind, line): kind is "typed" or "printed"."""
    bundle(directory)
    (directory / "bin").mkdir()
    (directory / "bin" / "anocir").symlink_to(ARCHIVE)
    state = directory / "state"
    environment = {
        "PATH": f"{directory}/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8",
        "XDG_RUNTIME_DIR": str(state),
    }  # fmt: skip
    lines = []
    for command in SESSION:
        lines.append(("typed", f"# {command}"))
        real = command.replace("anocir ", f"anocir --root {state} ")
        if command.startswith("anocir create"):
            sleeping(directory)
        # To a file: a created container keeps what it is given.
        with open(directory / "printed", "w+b") as printed:
            subprocess.run(
                ["sh", "-c", real], cwd=directory, env=environment, check=False,
                stdin=subprocess.DEVNULL, stdout=printed, stderr=printed, timeout=60,
            )  # fmt: skip
            printed.seek(0)
            shown = printed.read().decode("utf-8", "replace")
        text = shown.replace(str(directory), SHOWN)
        lines += [("printed", line) for line in text.splitlines()]
    return lines


def bundle(directory: Path) -> None:
    """Write a bundle whose program says where it is, and a config.json with mistakes."""
    rootfs = directory / "rootfs"
    (rootfs / "bin").mkdir(parents=True)
    shutil.copy("/bin/busybox", rootfs / "bin" / "busybox")
    for name in ("sh", "id", "hostname", "ps", "sleep"):
        (rootfs / "bin" / name).symlink_to("busybox")
    subprocess.run([ARCHIVE, "spec", "--bundle", directory], check=True)
    config = json.loads((directory / "config.json").read_text())
    config["hostname"] = "web"
    config["process"]["terminal"] = False
    config["process"]["args"] = [
        "sh",
        "-c",
        "echo hello from $(hostname), pid $$; ps -o pid,user,args",
    ]
    (directory / "config.json").write_text(json.dumps(config))
    config["process"]["cwd"] = "www"
    config["mounts"][1]["options"] = "nosuid"
    config["linux"]["maskedPath"] = ["/proc/kcore"]
    (directory / "broken.json").write_text(json.dumps(config))


def sleeping(directory: Path) -> None:
    """Let the program of the bundle stay."""
    config = json.loads((directory / "config.json").read_text())
    config["process"]["args"] = ["sleep", "100"]
    (directory / "config.json").write_text(json.dumps(config))


def draw(lines: list[tuple[str, str]]) -> str:
    """Return the picture: one text element a line, in the colours of a dark terminal."""
    height = len(lines) * LINE + 2 * MARGIN
    width = WIDTH * 8 + 2 * MARGIN
    rows = []
    for number, (kind, line) in enumerate(lines):
        y = MARGIN + (number + 1) * LINE - 5
        colour = "#8ae234" if kind == "typed" else "#d3d7cf"
        text = html.escape(line[:WIDTH]).replace(" ", "\u00a0")
        rows.append(f'<text x="{MARGIN}" y="{y}" fill="{colour}">{text}</text>')
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="monospace" font-size="13">\n'
        f'<rect width="{width}" height="{height}" rx="6" fill="#2e3436"/>\n'
        + "\n".join(rows)
        + "\n</svg>\n"
    )


if __name__ == "__main__":
    if os.geteuid() != 0:
        raise SystemExit("tests/record.py: needs root")
    main()
