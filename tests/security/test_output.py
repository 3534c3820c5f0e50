"""T-OUT: nothing of the image, of a hook or of a name acts on the terminal of who called; no secret is printed."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests import drive
from tests.security.conftest import Arena
from tests.security.test_inodes import peers

# CSI, OSC 52 (the clipboard), DEL, and U+009B, which is CSI in one character.
EVIL = "\x1b[2Jx\x1b]52;c;cm0gLXJm\x07\x7f\u009b31m\u202e"
ACTING = tuple("\x1b\x07\x7f\u009b\u202e")


def said_by(arena: Arena, kind: str, runtime: drive.Runtime | None = None) -> dict[str, str]:
    """Let something with control characters get into a message: stderr, and the log in both formats."""
    found = {}
    for log_format in ("text", "json"):
        container = arena.container(runtime)
        if kind == "hook":
            container.bundle.outside("evil", EVIL)
            container.bundle.hook("createRuntime", f"cat {container.bundle.path}/evil >&2; exit 1")
        elif kind == "hook in the container":
            container.bundle.put("/evil", EVIL)
            container.bundle.hook("createContainer", f"cat {container.bundle.path}/evil; exit 1")
            container.bundle.outside("evil", EVIL)
        elif kind == "program":
            container.process["args"] = ["/bin/" + EVIL]
        elif kind == "interpreter":
            container.bundle.put("/bin/script", f"#!/bin/{EVIL}\n", 0o755)
            container.process["args"] = ["/bin/script"]
        elif kind == "working directory":
            container.process["cwd"] = "/etc/passwd/" + EVIL
        elif kind == "mount":
            container.bundle.add_mount("/etc/passwd/" + EVIL, "tmpfs", "tmpfs")
        elif kind == "hook that is not there":
            container.config["hooks"] = {"prestart": [{"path": "/nowhere/" + EVIL}]}
        container.bundle.write()
        log = container.bundle.outside("log", "")
        words = ["--log", log, "--log-format", log_format, "--debug"]
        streams: dict[str, Any] = {"ok": None}
        result = container.runtime(
            *words, "run", "--bundle", container.bundle.path, container.id, **streams
        )
        assert result.status != 0
        with open(log, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
        assert text
        found[f"stderr, {log_format}"] = result.stderr
        found[f"log, {log_format}"] = text
        if log_format == "json":
            found["messages"] = "".join(
                json.loads(line)["msg"] for line in text.splitlines() if line.startswith("{")
            )
    return found


KINDS = (
    "hook", "hook in the container", "program", "interpreter", "working directory", "mount",
    "hook that is not there",
)  # fmt: skip


def raw(found: dict[str, str]) -> list[str]:
    return [where for where, text in found.items() if any(char in text for char in ACTING)]


@pytest.mark.parametrize("kind", KINDS)
def test_control_characters_are_escaped(arena: Arena, kind: str) -> None:
    """T-OUT1."""
    assert raw(said_by(arena, kind)) == []


def test_control_without_it_they_come_raw(arena: Arena) -> None:
    found = said_by(arena, "hook", arena.altered(errors="def shown(text):\n    return text\n"))
    assert "stderr, text" in raw(found)


@pytest.mark.parametrize("peer", [peers("runc"), peers("crun")])
def test_control_a_peer_lets_them_pass(arena: Arena, peer: str) -> None:
    kind = {"runc": "hook", "crun": "program"}[peer]  # crun says nothing of a hook's output
    assert raw(said_by(arena, kind, arena.installed(peer)))


def test_a_list_shows_names_without_their_effect(arena: Arena) -> None:
    """T-OUT1: the bundle's path is a name that somebody else may have made."""
    container = arena.container()
    container.bundle.write()
    odd = os.path.join(arena.directory(), EVIL.replace("/", ""))
    os.symlink(container.bundle.path, odd)
    container.runtime(
        "create", "--bundle", odd, container.id,
        stdout=open(container.stdout_path, "ab"), stderr=open(container.stderr_path, "ab"),
    )  # fmt: skip
    for command in (["list"], ["list", "-f", "json"], ["state", container.id]):
        result = container.runtime(*command)
        assert not any(char in result.stdout for char in ACTING), command


# secrets -----------------------------------------------------------------------------------------------

SECRET = "Bearer-abc123"


def set_env(container: drive.Container) -> None:
    container.process["env"].append(SECRET)


def set_empty_name(container: drive.Container) -> None:
    container.process["env"].append("=" + SECRET)


def set_hook(container: drive.Container) -> None:
    container.bundle.hook("poststop", "true", env=["=" + SECRET])


def set_good_hook(container: drive.Container) -> None:
    container.bundle.hook("createContainer", "exit 1", env=["TOKEN=" + SECRET])


def set_surrogate(container: drive.Container) -> None:
    container.process["env"].append("TOKEN=" + SECRET + "\ud800")


def set_nul(container: drive.Container) -> None:
    container.process["env"].append("TOKEN=" + SECRET + "\0")


def set_annotation(container: drive.Container) -> None:
    container.config["annotations"] = {
        "org.systemd.property.X" + "yz": SECRET + "(",
        "run.oci.systemd.subgroup": "../" + SECRET,
    }


def set_annotation_type(container: drive.Container) -> None:
    container.config["annotations"] = {"token": [SECRET]}


def set_hook_argument(container: drive.Container) -> None:
    container.bundle.hook("createContainer", "exit 1")
    container.config["hooks"]["createContainer"][0]["args"].append("--token=" + SECRET)


def set_mount_option(container: drive.Container) -> None:
    container.bundle.add_mount("/dev/x", "nothing", "//host/share", "user=u", "password=" + SECRET)


def set_bind_option(container: drive.Container) -> None:
    container.bundle.add_mount("/dev/x", "", "/etc", "bind", "uid=0,Passwd2=a," + SECRET)


MISTAKES = (
    set_env, set_empty_name, set_hook, set_good_hook, set_surrogate, set_nul, set_annotation,
    set_annotation_type, set_hook_argument, set_mount_option, set_bind_option,
)  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda m: m.__name__)
def test_no_value_of_an_environment_is_printed(arena: Arena, mistake: Any) -> None:
    """T-OUT2: the index names it; also with --debug, which prints the plan, and by `validate`."""
    container = arena.container()
    mistake(container)
    container.bundle.write()
    log = container.bundle.outside("log", "")
    for options in (["--log", log], ["--debug"], ["--systemd-cgroup"]):
        result = container.runtime(
            *options, "create", "--bundle", container.bundle.path, container.id, ok=False
        )
        assert SECRET not in result.stderr, result.stderr
    with open(log) as file:
        assert SECRET not in file.read()
    for verb in ("validate", "explain"):
        result = container.runtime(verb, "--bundle", container.bundle.path, ok=None)
        assert SECRET not in result.stdout + result.stderr, verb


def test_exec_prints_no_value_of_an_environment(arena: Arena) -> None:
    """T-OUT2: an -e without a name, and a process.json."""
    container = arena.container()
    container.launch("sleep 100")
    for option in ("-e", "--env"):
        result = container.exec("true", options=[option, "A=1", option, SECRET], ok=False)
        assert SECRET not in result.stderr and "number 2" in result.stderr
    process = {**container.process, "args": ["true"], "env": ["A=1", SECRET]}
    result = container.exec_process(process, ok=False)
    assert SECRET not in result.stderr and "env[1]" in result.stderr


def traced(arena: Arena, form: str, runtime: drive.Runtime | None = None) -> str:
    """The traces of a create with hooks, a start and an exec; values of environments are SECRET."""
    container = arena.container(runtime)
    container.process["env"].append("TOKEN=" + SECRET)
    container.config["annotations"] = {"token": SECRET}
    for name in ("createRuntime", "createContainer"):
        container.bundle.hook(name, "cat > /dev/null", env=["TOKEN=" + SECRET])
        container.config["hooks"][name][0]["args"].append("--token=" + SECRET)
    # a file system that takes any option, by fsconfig(2) and by mount(2)
    for word in ("pass=" + SECRET, "mode=700,password=" + SECRET, "secret=" + SECRET * 30):
        container.bundle.add_mount("/dev/x", "ramfs", "ramfs", word)
    container.linux["sysctl"] = {"net.ipv4.ip_default_ttl": "77"}
    container.bundle.sh("sleep 100")
    trace = container.bundle.outside("trace", "")
    options = ("--trace", trace, "--trace-format", form)
    container.bundle.write()
    with open(container.stdout_path, "ab") as out:
        container.runtime(
            *options,
            "create",
            "--bundle",
            container.bundle.path,
            container.id,
            stdout=out,
            stderr=out,
        )
    container.runtime(*options, "start", container.id)
    container.runtime(*options, "exec", "-e", "TOKEN=" + SECRET, container.id, "true", stdin=SECRET)
    with open(trace) as file:
        return file.read()


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_trace_shows_no_value_of_an_environment(arena: Arena, form: str) -> None:
    """T-OUT3: nor what else is written to files that are not the kernel's; what is asked of that is shown."""
    text = traced(arena, form)
    assert SECRET[:8] not in text
    assert '"77"' in text.replace("\\", "")
    assert "700,password=..." in text and "secret=..." in text, "only the values are hidden"


def test_control_a_trace_of_all_that_is_written_shows_it(arena: Arena) -> None:
    whole = "def _content(fd, data):\n    return repr(data)\n"
    assert SECRET in traced(arena, "text", arena.altered(linux__trace=whole))


@pytest.mark.parametrize("peer", [peers("runc")])
def test_control_a_peer_prints_it(arena: Arena, peer: str) -> None:
    container = arena.container(arena.installed(peer))
    container.process["env"].append(SECRET)
    assert SECRET in container.try_run("true").stderr
