#!/usr/bin/python3
"""Strike at one system call of one process that a command starts: ptrace(2), as strace -D would.

usage: strike.py --log FILE [--attach PID] [--process N --call NAME --occurrence K --what SIGKILL|ERRNO] -- COMMAND...

strace counts in each process alike, so it cannot fail a call of a container's init without failing the same one of
the runtime before. This one leaves the command itself alone and counts in each of its descendants (1, 2, ... in
order of birth; threads count for their process), in `--attach PID` too, which is process 1 then. The container's
own program is let go. Without a strike it notes the calls of each process, as JSON; FILE appears when it is done.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import json
import os
import signal
import struct
import sys
import time
from collections.abc import Sequence
from typing import NoReturn

# /usr/include/linux/ptrace.h
PTRACE_CONT = 7
PTRACE_GETREGS = 12
PTRACE_SETREGS = 13
PTRACE_DETACH = 17
PTRACE_SYSCALL = 24
PTRACE_SEIZE = 0x4206
PTRACE_INTERRUPT = 0x4207
PTRACE_LISTEN = 0x4208
PTRACE_GET_SYSCALL_INFO = 0x420E
PTRACE_EVENT_EXEC = 4
PTRACE_EVENT_STOP = 128
# TRACESYSGOOD, TRACEFORK, TRACEVFORK, TRACECLONE, TRACEEXEC
OPTIONS = 0x01 | 0x02 | 0x04 | 0x08 | 0x10
SYSCALL_ENTRY = 1
WALL = 0x40000000  # /usr/include/linux/wait.h
# user_regs_struct of x86_64 (sys/user.h): 27 words; rax is the 11th, orig_rax the 16th
WORDS, RAX, ORIG_RAX = 27, 10, 15
NUMBERS = "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"
PATIENCE = 100.0  # shorter than that of who waits for the command

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p)
_libc.ptrace.restype = ctypes.c_long


def can_strike() -> bool:
    """True where the registers are laid out as above and system calls have names."""
    return os.uname().machine == "x86_64" and os.path.exists(NUMBERS)


def names() -> dict[int, str]:
    """The name of each system call number."""
    found = {}
    with open(NUMBERS, encoding="ascii") as stream:
        for line in stream:
            words = line.split()
            if len(words) == 3 and words[1].startswith("__NR_"):
                found[int(words[2])] = words[1][5:]
    return found


def ptrace(request: int, pid: int, address: int = 0, data: int = 0) -> int:
    """ptrace(2); ESRCH is a process that has just died and is no error here."""
    result: int = _libc.ptrace(request, pid, address, data)
    if result < 0 and ctypes.get_errno() != errno.ESRCH:
        raise OSError(ctypes.get_errno(), f"ptrace {request:#x} of {pid}")
    return result


def group_of(pid: int) -> int:
    """The process that a thread belongs to."""
    try:
        with open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as stream:
            for line in stream:
                if line.startswith("Tgid:"):
                    return int(line.split()[1])
    except OSError:
        pass
    return pid


class Tracer:
    """What is known of the traced processes, and what is to be done to one of them."""

    __slots__ = ("calls", "counts", "main", "names", "numbers", "pending", "struck", "target")

    def __init__(self, main: int, target: tuple[int, str, int, str] | None) -> None:
        self.main = main
        self.target = target
        self.names = names()
        self.numbers: dict[int, int] = {}
        self.calls: list[list[str]] = []
        self.counts: dict[int, int] = {}
        self.pending = 0
        self.struck = False

    def number(self, pid: int) -> int:
        """The number of a thread's process; 0 for the command itself."""
        if pid not in self.numbers:
            group = group_of(pid)
            if group == self.main:
                self.numbers[pid] = 0
            elif group in self.numbers:
                self.numbers[pid] = self.numbers[group]
            else:
                self.calls.append([])
                self.numbers[group] = self.numbers[pid] = len(self.calls)
        return self.numbers[pid]

    def system_call(self, pid: int, number: int) -> bool:
        """Count a call at its entry; strike if it is the one. False when all is done."""
        if pid == self.pending:
            registers = (ctypes.c_ulonglong * WORDS)()
            ptrace(PTRACE_GETREGS, pid, 0, ctypes.addressof(registers))
            assert self.target
            registers[RAX] = (-getattr(errno, self.target[3])) & ((1 << 64) - 1)
            ptrace(PTRACE_SETREGS, pid, 0, ctypes.addressof(registers))
            self.struck = True
            return False
        info = ctypes.create_string_buffer(88)
        if ptrace(PTRACE_GET_SYSCALL_INFO, pid, 88, ctypes.addressof(info)) <= 0:
            return True
        if info.raw[0] != SYSCALL_ENTRY:
            return True
        name = self.names.get(struct.unpack_from("=Q", info.raw, 24)[0], "?")
        self.calls[number - 1].append(name)
        if not self.target or number != self.target[0] or name != self.target[1]:
            return True
        self.counts[number] = self.counts.get(number, 0) + 1
        if self.counts[number] != self.target[2]:
            return True
        if self.target[3] == "SIGKILL":
            os.kill(pid, signal.SIGKILL)
            self.struck = True
            return False
        registers = (ctypes.c_ulonglong * WORDS)()
        ptrace(PTRACE_GETREGS, pid, 0, ctypes.addressof(registers))
        registers[ORIG_RAX] = (1 << 64) - 1
        ptrace(PTRACE_SETREGS, pid, 0, ctypes.addressof(registers))
        self.pending = pid
        return True

    def follow(self) -> None:
        """Let everything run until the strike is done or the command has ended."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            try:
                pid, status = os.waitpid(-1, WALL)
            except ChildProcessError:
                return
            if not os.WIFSTOPPED(status):
                if pid == self.main:
                    return
                continue
            number = self.number(pid)
            stop, event = os.WSTOPSIG(status), status >> 16
            request, data = (PTRACE_SYSCALL if number else PTRACE_CONT), 0
            if stop == signal.SIGTRAP | 0x80:
                if number and not self.system_call(pid, number):
                    return
            elif event == PTRACE_EVENT_EXEC and self.is_program(pid):
                request = PTRACE_DETACH
            elif event == PTRACE_EVENT_STOP:
                if stop != signal.SIGTRAP:
                    request = PTRACE_LISTEN
            elif not event:
                data = stop
            ptrace(request, pid, 0, data)

    def is_program(self, pid: int) -> bool:
        """True for a process that now executes the container's program."""
        try:
            return os.readlink(f"/proc/{pid}/exe").endswith("busybox")
        except OSError:
            return False


def trace(options: argparse.Namespace, main: int, ready: int) -> NoReturn:
    """The tracer's process: nothing of it may be seen by the command."""
    status = 1
    try:
        target = (
            (options.process, options.call, options.occurrence, options.what)
            if options.what
            else None
        )
        tracer = Tracer(main, target)
        signal.alarm(int(PATIENCE) + 5)
        ptrace(PTRACE_SEIZE, main, 0, OPTIONS)
        if options.attach:
            ptrace(PTRACE_SEIZE, options.attach, 0, OPTIONS)
            tracer.number(options.attach)
            ptrace(PTRACE_INTERRUPT, options.attach)
        os.write(ready, b"1")
        os.close(ready)
        tracer.follow()
        with open(options.log + ".new", "w", encoding="ascii") as stream:
            json.dump({"struck": tracer.struck, "calls": tracer.calls}, stream)
        os.rename(options.log + ".new", options.log)
        status = 0
    finally:
        os._exit(status)


def main(arguments: Sequence[str]) -> NoReturn:
    """Become the command, with a tracer that is nobody's child."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--attach", type=int, default=0)
    parser.add_argument("--process", type=int, default=0)
    parser.add_argument("--call", default="")
    parser.add_argument("--occurrence", type=int, default=1)
    parser.add_argument("--what", default="")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    options.log = os.path.abspath(options.log)
    waiting, ready = os.pipe()
    me = os.getpid()
    first = os.fork()
    if first == 0:
        if os.fork() == 0:
            os.close(waiting)
            null = os.open("/dev/null", os.O_RDWR)
            for fd in (0, 1):
                os.dup2(null, fd)
            trace(options, me, ready)
        os._exit(0)
    os.close(ready)
    os.waitpid(first, 0)
    if not os.read(waiting, 1):
        sys.exit("strike.py: the tracer died")
    os.close(waiting)
    os.execv(options.command[0], options.command)


if __name__ == "__main__":
    main(sys.argv[1:])
