"""Run the hooks of config.json: the state on stdin, a timeout, the output for the error.

Side: host (prestart, createRuntime, poststart, poststop) and init (createContainer,
startContainer).  Source: config.md, POSIX-platform Hooks.

A hook gets its own environment, or the one that its place has without `env`, descriptors 0 to 2 and
no other, default signal dispositions, and a session of its own, so that a hook that runs past its
timeout is ended with all of its process group.
"""

from __future__ import annotations

import select
import time

import posix

from . import HOOK_OUTPUTS
from ..errors import Error, at, keyed, strerror
from ..linux import descriptors, entries, files, oneself, processes, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Final, TypedDict

    class Hook(TypedDict, total=False):
        """A program that is run at one point of the life cycle; `path` is always there."""

        path: str
        args: list[str]
        env: list[str]
        timeout: int


_KEEP: Final = 32 << 10
_LOOK_EVERY: Final = 10  # milliseconds, where the kernel has no pidfds


class Place:
    """What the hooks of one place share: a hook without `env` gets `env`, and all of them the rest.

    `directory` is the working directory, a path or a descriptor, None for ours; `outputs` take
    standard output and error, -1 for an error message's sake.
    """

    __slots__ = ("directory", "env", "outputs")

    def __init__(
        self,
        env: Mapping[bytes, bytes] | None = None,
        directory: str | int | None = None,
        outputs: tuple[int, int] = (-1, -1),
    ) -> None:
        """Take what is not as it is for createContainer hooks by default: an empty environment."""
        self.env = env or {}
        self.directory = directory
        self.outputs = outputs


def open_outputs(annotations: Mapping[str, str], bundle: str) -> tuple[int, int]:
    """Open the files that crun's annotations name for the output and the errors of hooks; else -1.

    They are appended to, and made if they are not there, as crun does.  Raises Error.
    """
    fds = [-1, -1]
    for index, name in enumerate(HOOK_OUTPUTS):
        path = annotations.get(name)
        if path:
            path = path if path.startswith("/") else f"{bundle}/{path}"
            try:
                flags = files.O_WRONLY | files.O_CREAT | files.O_APPEND | files.O_NOCTTY
                fds[index] = files.open(path, flags, 0o700)
            except OSError as error:
                text = f"open {path}: {strerror(error.errno or 0)}"
                raise at(keyed("annotations", name), text) from None
    return fds[0], fds[1]


def environment(entries: Sequence[str]) -> dict[bytes, bytes]:
    """Return NAME=value entries as what execve takes; of two with one name the last counts."""
    env = {}
    for entry in entries:
        name, _, value = files.encode(entry).partition(b"=")
        env[name] = value
    return env


def run(hook: Hook, state: bytes, what: str, place: Place, watch_fd: int = -1) -> None:
    """Run one hook and wait for it.

    `state` is the container's state as JSON for its standard input; `what` names the hook in
    errors ("prestart hook #0").  While it runs, an end of file on `watch_fd` (the host side's
    channel) ends it.  Raises Error when it cannot be run, fails, or runs past its timeout.
    """
    pipes = [descriptors.pipe(), descriptors.pipe(), descriptors.pipe()]
    ours = [pipes[0][1], pipes[1][0], pipes[2][0]]
    ends = [pipes[0][0], pipes[1][1], pipes[2][1]]
    for index, given in enumerate(place.outputs, 1):
        ends[index] = given if given >= 0 else ends[index]
    try:
        pid = _spawn(hook, ends, place)
    except OSError as error:
        for end in ours:
            files.close(end)
        reason = strerror(error.errno or 0)
        raise Error(f"error running {what}: fork/exec {hook['path']}: {reason}") from None
    finally:
        for end in (pipes[0][0], pipes[1][1], pipes[2][1]):
            files.close(end)
    output = {ours[1]: b"", ours[2]: b""}
    try:
        ended = _feed(pid, ours[0], state, output, hook.get("timeout"), watch_fd)
    finally:
        files.close(ours[1])
        files.close(ours[2])
    if ended is None:
        raise Error(f"error running {what}: the runtime went away")
    if not ended:
        timeout = float(hook["timeout"])
        raise Error(f"error running {what}: hook ran past specified timeout of {timeout}s")
    status = spawn.wait(pid)
    if status:
        text = f"exit status {status}" if status < 128 else f"signal: {_signal_words(status - 128)}"
        shown = [value.decode("utf-8", "replace").strip() for value in output.values()]
        message = f"error running {what}: {text}, stdout: {shown[0]}, stderr: {shown[1]}"
        raise Error(" ".join(message.split("\n")))


def _signal_words(number: int) -> str:
    """Return what Go calls a signal: "killed", "bad system call", "signal 34"."""
    import _signal  # is there in every interpreter from the start, so nothing is looked for

    words = _signal.strsignal(number) if number < 32 else None
    return words.lower() if words else f"signal {number}"


def _spawn(hook: Hook, ends: list[int], place: Place) -> int:
    path = files.encode(hook["path"])
    args = [files.encode(arg) for arg in hook.get("args") or [hook["path"]]]
    env = place.env if hook.get("env") is None else environment(hook["env"])
    # What the caller leaked to us, and what it passes on to the container, is not the hook's.
    oneself.close_on_exec(3)
    actions = [(posix.POSIX_SPAWN_DUP2, end, target) for target, end in enumerate(ends)]
    if place.directory is None:
        return spawn.spawn(path, args, env, actions)
    back = files.open(".", files.O_PATH | files.O_DIRECTORY)
    try:
        if isinstance(place.directory, int):
            files.fchdir(place.directory)
        else:
            entries.chdir(place.directory)
        return spawn.spawn(path, args, env, actions)
    finally:
        files.fchdir(back)
        files.close(back)


def _feed(
    pid: int,
    stdin: int,
    state: bytes,
    output: dict[int, bytes],
    timeout: int | None,
    watch_fd: int,
) -> bool | None:
    """Write the state and read the output until the hook has exited.

    Returns False after a timeout and None when `watch_fd` ended; the hook is killed then.
    """
    # poll(2) takes no more than 24 days.
    deadline = None if not timeout else time.monotonic() + min(timeout, 2000000)
    pidfd = processes.child_pidfd(pid)
    poll = select.poll()
    if pidfd >= 0:
        poll.register(pidfd, select.POLLIN)
    poll.register(stdin, select.POLLOUT)
    for end in output:
        poll.register(end, select.POLLIN)
    if watch_fd >= 0:
        poll.register(watch_fd, select.POLLRDHUP)
    posix.set_blocking(stdin, False)
    result: bool | None = True
    writing = True
    exited = False
    while not exited:
        left = None if deadline is None else max(0.0, (deadline - time.monotonic()) * 1000)
        if pidfd < 0:
            exited = _has_ended(pid)
            pause = 0 if exited else _LOOK_EVERY
            events = poll.poll(pause if left is None else min(left, pause))
        else:
            events = poll.poll(left)
        if not events and not exited and (pidfd >= 0 or left == 0):
            result = False
            break
        for fd, _ in events:
            if fd == pidfd:
                exited = True
            elif fd == watch_fd:
                result = None
                exited = True
            elif fd == stdin and writing:
                state = _write_some(stdin, state)
                if not state:
                    poll.unregister(stdin)
                    files.close(stdin)
                    writing = False
            elif fd in output:
                data = files.read(fd, 65536)
                if not data:
                    poll.unregister(fd)
                output[fd] = (output[fd] + data)[:_KEEP]
    if writing:
        files.close(stdin)
    if pidfd >= 0:
        files.close(pidfd)
    if result:
        _drain(output)
    else:
        spawn.kill_group(pid)
        spawn.wait(pid)
    return result


def _has_ended(pid: int) -> bool:
    """Tell whether a child has exited; its status stays for who waits for it."""
    return posix.waitid(posix.P_PID, pid, posix.WEXITED | posix.WNOHANG | posix.WNOWAIT) is not None


def _write_some(fd: int, data: bytes) -> bytes:
    """Write what fits; a hook that does not read its state is not an error."""
    try:
        return data[files.write(fd, data) :]
    except BlockingIOError:
        return data
    except BrokenPipeError:
        return b""


def _drain(output: dict[int, bytes]) -> None:
    """Read what the hook left in its pipes, without waiting for children that keep them."""
    for fd in output:
        posix.set_blocking(fd, False)
        try:
            output[fd] = (output[fd] + files.read(fd, _KEEP))[:_KEEP]
        except BlockingIOError:
            continue
