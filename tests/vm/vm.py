#!/usr/bin/python3
"""Run one command in a throw-away machine that sees this machine's files.

usage: vm.py [options] -- COMMAND [ARG...]
       vm.py --setup

QEMU (software emulation) boots Debian's cloud kernel. The host's "/" comes in through virtiofs, read-only in a mount
namespace of virtiofsd's own, and gets a tmpfs overlay in the machine, so the command may write anywhere and changes
nothing but what --rw names. --kernel takes that of another Debian. By default: cgroup v2 with every controller, AppArmor, all capabilities, root.

Exit status: the command's; 124 when the time is up; 125 when the machine itself failed (its console is shown).

Inside, three scripts take turns: guest/init (initramfs) mounts the shared tree, guest/pid1 makes the machine of it,
guest/job runs the command. They are for busybox' shell: one static program, so there is little to translate,
and translating is what costs here (everything takes 10 to 20 times as long as on the host).

Each writes down how far it got. A machine that does not come as far as the command (--boot-timeout) says nothing about
what was to be tested: what it has to say is shown, and it is booted once more. A command that began is never repeated.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import shlex
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(os.path.dirname(HERE)))

from tests.reliability.ground import mount, unshare_mounts  # noqa: E402

CACHE = os.environ.get("VM_CACHE") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "anocir-vm"
)
GUEST = os.path.join(HERE, "guest")
KERNEL_PACKAGE = "linux-image-cloud-amd64"
# --kernel -> the release of Debian that has it; without the option it is that of this machine
KERNELS = {"5.10": "bullseye", "6.1": "bookworm", "6.12": "trixie"}
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
MIRRORS = ("http://deb.debian.org/debian", "http://archive.debian.org/debian")
# program that shows it is there -> Debian package
PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "busybox": "busybox-static",
    "depmod": "kmod",
    "mkfs.ext4": "e2fsprogs",
}
RETRIES = ("-o", "Acquire::Retries=5")
VIRTIOFSD = ("/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd")
MODULES = ("virtio_pci", "virtiofs", "overlay", "virtio_blk", "virtio-rng")
USER, UID = "vmuser", 4321
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096  # /usr/include/linux/mount.h
PR_SET_PDEATHSIG = 1  # /usr/include/linux/prctl.h
TIME_UP, FAILED = 124, 125
BOOTS = 2
BEGUN = "command"  # the mark that the command itself writes

# norandmaps is the largest gain: QEMU translates code anew for each address. The others skip what only costs. Only
# init_on_alloc=1 must be: QEMU keeps the translation of a page's code until a processor of the machine writes to that
# page, and virtiofsd, which reads files straight into them, is none. Without KVM a page that held a program before
# would go on as that one: random crashes under QEMU 10. So the kernel clears each page first.
WORDS = (
    "console=ttyS0 quiet loglevel=4 printk.devkmsg=on panic=-1 nowatchdog no_timer_check norandmaps nokaslr mitigations=off "
    "init_on_alloc=1 hardened_usercopy=off transparent_hugepage=never preempt=none cryptomgr.notests "
    "rcupdate.rcu_expedited=1 audit=0 tsc=reliable sysrq_always_enabled"
)


class MachineError(Exception):
    """The machine could not be made or did not work."""


# ---------------------------------------------------------------------- setting up


def find_virtiofsd() -> str:
    """The program that shares files, empty if there is none."""
    return next((path for path in VIRTIOFSD if os.access(path, os.X_OK)), "")


def kernel_directory(release: str) -> str:
    """Where the kernel with its modules is unpacked; an empty release means this machine's Debian."""
    return os.path.join(CACHE, f"kernel-{release}" if release else "kernel")


def initramfs(release: str) -> str:
    """The archive that a kernel starts with."""
    return os.path.join(CACHE, f"initramfs-{release}" if release else "initramfs")


def has_kernel(release: str) -> bool:
    """Whether it was unpacked."""
    return os.path.exists(os.path.join(kernel_directory(release), "version"))


def lacking(release: str = "") -> list[str]:
    """What is missing for a machine, by name; empty if one can be booted."""
    found = [program for program in PACKAGES if not shutil.which(program)]
    if not find_virtiofsd():
        found.append("virtiofsd")
    if not has_kernel(release):
        option = f" --kernel {release}" if release else ""
        found.append(f"a kernel (tests/vm/vm.py --setup{option})")
    if os.geteuid() != 0:
        found.append("root")
    return found


def apt(*words: str) -> None:
    """Run apt-get."""
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    done = subprocess.run(
        ["apt-get", *RETRIES, *words], stdout=sys.stderr, env=environment, check=False
    )
    if done.returncode:
        raise MachineError(f"apt-get {words[0]} failed")


def setup(release: str = "") -> None:
    """Install the packages that are missing, fetch and unpack the kernel (it is not installed)."""
    if subprocess.run(
        ["apt-cache", "show", KERNEL_PACKAGE], capture_output=True, check=False
    ).returncode:
        apt("update")
    wanted = [package for program, package in PACKAGES.items() if not shutil.which(program)]
    if not find_virtiofsd() and not wanted:
        wanted.append("virtiofsd")  # a package of its own since Debian 13
    if wanted:
        apt("install", "-y", "--no-install-recommends", *wanted)
    if has_kernel(release):
        return
    os.makedirs(CACHE, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        if not release:
            unpack_kernel(work, release, [])
            return
        lists = apt_of(work, KERNELS[release])
        unpack_kernel(work, release, lists)


def apt_of(work: str, suite: str) -> list[str]:
    """apt's words for another release of Debian, whose lists it has fetched below `work`."""
    os.makedirs(os.path.join(work, "lists/partial"))
    words = ["-o", f"Dir::Etc::SourceList={work}/sources.list", "-o", "Dir::Etc::SourceParts=-"]
    words += ["-o", f"Dir::State::Lists={work}/lists", "-o", "APT::Sandbox::User=root"]
    words += ["-o", "Acquire::Languages=none", "-o", "Acquire::Check-Valid-Until=false"]
    for number, mirror in enumerate(MIRRORS, 1):
        with open(os.path.join(work, "sources.list"), "w", encoding="ascii") as stream:
            stream.write(f"deb [signed-by={KEYS}] {mirror} {suite} main\n")
        try:
            apt(*words, "update", "--error-on=any")
        except MachineError:
            if number == len(MIRRORS):
                raise
        else:
            break
    return words


def unpack_kernel(work: str, release: str, words: Sequence[str]) -> None:
    """Download the kernel that the package depends on, and keep its image and modules."""
    shown = subprocess.run(
        ["apt-cache", *words, "depends", KERNEL_PACKAGE], capture_output=True, text=True, check=True
    ).stdout
    package = next(
        (line.split()[1] for line in shown.splitlines() if line.strip().startswith("Depends:")),
        "",
    )
    done = subprocess.run(
        ["apt-get", *RETRIES, "-o", "APT::Sandbox::User=root", *words, "download", package],
        cwd=work,
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode:
        raise MachineError(f"cannot download {package}")
    archive = next(name for name in os.listdir(work) if name.endswith(".deb"))
    tree = os.path.join(work, "tree")
    subprocess.run(["dpkg-deb", "-x", os.path.join(work, archive), tree], check=True)
    library = os.path.join(tree, "lib")
    if not os.path.isdir(os.path.join(library, "modules")):  # from Debian 13 on below usr
        os.symlink("usr/lib", library)
    version = os.listdir(os.path.join(library, "modules"))[0]
    images = (
        os.path.join(tree, "boot", "vmlinuz-" + version),
        f"{library}/modules/{version}/vmlinuz",
    )
    image = next(path for path in images if os.path.exists(path))
    subprocess.run(["depmod", "-b", tree, version], check=True)
    made = os.path.join(work, "kernel")
    os.makedirs(os.path.join(made, "lib"))
    shutil.move(image, os.path.join(made, "vmlinuz"))
    shutil.move(os.path.join(library, "modules"), os.path.join(made, "lib", "modules"))
    with open(os.path.join(made, "version"), "w", encoding="ascii") as stream:
        stream.write(version)
    shutil.rmtree(kernel_directory(release), ignore_errors=True)
    os.rename(made, kernel_directory(release))
    with contextlib.suppress(FileNotFoundError):
        os.unlink(initramfs(release))


def kernel_version(release: str) -> str:
    """The version that was unpacked."""
    with open(os.path.join(kernel_directory(release), "version"), encoding="ascii") as stream:
        return stream.read().strip()


def cpio(entries: Sequence[tuple[str, int, bytes]]) -> bytes:
    """An archive as the kernel takes it for an initramfs: format newc, documented in the kernel's tree
    (Documentation/driver-api/early-userspace/buffer-format.rst)."""  # noqa: D209
    parts = []
    for number, (name, mode, data) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        encoded = name.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, 0, len(data), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + encoded
        parts.append(header + bytes(-len(header) % 4) + data + bytes(-len(data) % 4))
    return b"".join(parts)


def build_initramfs(release: str) -> None:
    """busybox, the modules that find the shared tree, and guest/init."""
    directory, program, link = stat.S_IFDIR | 0o755, stat.S_IFREG | 0o755, stat.S_IFLNK | 0o777
    entries: list[tuple[str, int, bytes]] = [
        (name, directory, b"")
        for name in ("bin", "proc", "sys", "dev", "modules", "host", "rw", "new")
    ]
    with open(str(shutil.which("busybox")), "rb") as stream:
        entries.append(("bin/busybox", program, stream.read()))
    entries += [
        (f"bin/{name}", link, b"busybox")
        for name in ("sh", "mount", "insmod", "switch_root", "mkdir", "cp")
    ]
    files: list[str] = []
    for module in MODULES:
        shown = subprocess.run(
            [
                *("modprobe", "-d", kernel_directory(release)),
                *("-S", kernel_version(release), "--show-depends", module),
            ],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        files += [line.split()[1] for line in shown.splitlines() if line.startswith("insmod ")]
    for number, path in enumerate(dict.fromkeys(files), 10):
        with open(path, "rb") as stream:
            # the number keeps the order in which they depend on each other
            entries.append((f"modules/{number}-{os.path.basename(path)}", program, stream.read()))
    with open(os.path.join(GUEST, "init"), "rb") as stream:
        entries.append(("init", program, stream.read()))
    temporary = f"{initramfs(release)}.{os.getpid()}"
    with open(temporary, "wb") as out:
        out.write(cpio(entries))
    os.rename(temporary, initramfs(release))


# ---------------------------------------------------------------------- one machine


def share_files(run: str, options: argparse.Namespace, writable: Sequence[str]) -> int:
    """Start virtiofsd over a read-only view of "/" that is writable at the given places; its pid."""
    tree = os.path.join(run, "tree")
    daemon = find_virtiofsd()
    pid = os.fork()
    if pid:
        return pid
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        unshare_mounts()
        own_mount = options.cwd
        while not os.path.ismount(own_mount):
            own_mount = os.path.dirname(own_mount)
        for source in dict.fromkeys(("/", own_mount)):
            mount(source, tree + source.rstrip("/"), None, MS_BIND)
            mount("none", tree + source.rstrip("/"), None, MS_BIND | MS_REMOUNT | MS_RDONLY)
        for path in writable:
            mount(path, tree + path, None, MS_BIND)
        # the machine has a /run of its own, so there is room for the directory of this run
        mount(os.path.join(run, "io"), tree + "/run", None, MS_BIND)
        modules = tree + "/run/modules"
        own = os.path.join(kernel_directory(options.kernel), "lib/modules")
        mount(own, modules, None, MS_BIND)
        mount("none", modules, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        log = os.open(os.path.join(run, "virtiofsd.log"), os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        words = [daemon, f"--socket-path={run}/files"]
        help_text = subprocess.run([daemon, "--help"], capture_output=True, text=True, check=False)
        if "--shared-dir" in help_text.stdout + help_text.stderr:  # the one written in Rust
            words += [f"--shared-dir={tree}", "--cache=always", "--sandbox=chroot", "--xattr"]
            words += ["--no-readdirplus", "--inode-file-handles=prefer"]
            # the overlay in the machine refuses what is announced, /run and whatever else is a mount (EREMOTE)
            if "--no-announce-submounts" in help_text.stdout + help_text.stderr:
                words += ["--no-announce-submounts"]
        else:
            for option in (
                f"source={tree}",
                "cache=always",
                "sandbox=chroot",
                "xattr",
                "log_level=err",
            ):
                words += ["-o", option]
            # it holds a descriptor for each inode that is cached inside; see guest/job for the rest
            words += ["-o", "no_readdirplus", "--rlimit-nofile=0", "-f"]
        os.execv(daemon, words)
    except Exception as error:  # noqa: BLE001
        sys.stderr.write(f"vm.py: cannot share files: {error}\n")
    finally:
        os._exit(1)


def write_scripts(
    options: argparse.Namespace, io: str, writable: Sequence[str], command: Sequence[str]
) -> None:
    """What the machine reads: its settings, the command, and the scripts."""
    lines = [f"read -r now rest </proc/uptime; echo $now {BEGUN} >>/run/vm/marks"]
    lines.append(f"cd {shlex.quote(options.cwd)} || exit 125")
    for text in options.env:
        name, separator, value = text.partition("=")
        if not separator:
            if name not in os.environ:
                continue
            value = os.environ[name]
        lines.append(f"export {name}={shlex.quote(value)}")
    # by env, as busybox' shell would take a bare name for one of its applets
    lines.append("exec /usr/bin/env -- " + " ".join(shlex.quote(word) for word in command))
    with open(os.path.join(io, "command"), "w", encoding="utf-8") as stream:
        stream.write("\n".join(lines) + "\n")
    with open(os.path.join(io, "marks"), "wb") as stream:
        os.fchmod(stream.fileno(), 0o666)  # the last one is written by the command's user
    shown = list(dict.fromkeys([options.cwd, *options.see, *writable]))
    settings = {
        "init": "systemd" if options.systemd else "plain",
        "user": USER if options.user else "",
        "uid": str(UID),
        "cgroups": "1" if options.cgroup1 else "2",
        "lsm": options.lsm,
        "version": kernel_version(options.kernel),
        "disk": str(options.disk),
        "patience": str(int(options.boot_timeout * 3 / 4)),
        "path": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "home": os.environ.get("HOME", "/root"),
        "descriptors": str(resource.getrlimit(resource.RLIMIT_NOFILE)[1]),
        "shown": " ".join(shown),
        "writable": " ".join(writable),
    }
    with open(os.path.join(io, "settings"), "w", encoding="utf-8") as stream:
        stream.writelines(f"{name}={shlex.quote(value)}\n" for name, value in settings.items())
    for name in ("pid1", "job"):
        shutil.copy2(os.path.join(GUEST, name), io)


def _listening(name: str, path: str, more: str = "") -> str:
    return f"socket,id={name},path={path},server=on,wait=off{more}"


def qemu_words(options: argparse.Namespace, run: str) -> list[str]:
    """QEMU's command line."""
    words = WORDS
    if options.lsm == "selinux":
        words += " lsm=landlock,yama,selinux,bpf selinux=1 enforcing=0"
    elif options.lsm == "apparmor":
        words += " lsm=landlock,yama,apparmor,bpf"
    else:
        words += " lsm=landlock,yama,bpf apparmor=0"
    if options.cgroup1:
        words += " systemd.unified_cgroup_hierarchy=0 systemd.legacy_systemd_cgroup_controller=1"
    found = [
        "qemu-system-x86_64",
        "-display",
        "none",
        "-nodefaults",
        "-no-user-config",
        "-no-reboot",
    ]
    # Nehalem and not max: without AVX and SMAP there is less to emulate
    found += ["-M", "q35,usb=off,vmport=off", "-accel", "tcg,thread=multi", "-cpu", "Nehalem"]
    found += ["-smp", str(options.smp), "-m", str(options.mem)]
    # virtiofsd reads and writes the machine's memory
    found += ["-object", f"memory-backend-memfd,id=mem,size={options.mem}M,share=on"]
    found += ["-numa", "node,memdev=mem"]
    found += ["-kernel", os.path.join(kernel_directory(options.kernel), "vmlinuz")]
    found += ["-initrd", initramfs(options.kernel), "-append", words]
    found += ["-chardev", _listening("console", f"{run}/serial", f",logfile={run}/console")]
    found += ["-serial", "chardev:console", "-device", "virtio-rng-pci"]
    found += ["-chardev", _listening("control", f"{run}/control")]
    found += ["-mon", "chardev=control,mode=control"]
    found += ["-chardev", f"socket,id=files,path={run}/files"]
    found += ["-device", "vhost-user-fs-pci,chardev=files,tag=host,queue-size=512"]
    if options.disk:
        found += ["-drive", f"file={run}/disk,format=raw,if=none,id=disk,cache=unsafe"]
        found += ["-device", "virtio-blk-pci,drive=disk"]
    return found


class Tail:
    """Copies what is appended to a file to one of our streams."""

    __slots__ = ("fd", "path", "source")

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self.fd = fd
        self.source = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)

    def pump(self) -> None:
        """Copy what is new."""
        while True:
            data = os.read(self.source, 65536)
            if not data:
                return
            while data:
                data = data[os.write(self.fd, data) :]


def run_machine(options: argparse.Namespace, command: Sequence[str]) -> int:
    """Boot, run the command, return its status; boot once more if it did not come to the command."""
    made = initramfs(options.kernel)
    if not os.path.exists(made) or any(
        os.path.getmtime(made) < os.path.getmtime(path)
        for path in (__file__, os.path.join(GUEST, "init"))
    ):
        build_initramfs(options.kernel)
    for number in range(1, BOOTS + 1):
        run = tempfile.mkdtemp(prefix="anocir-vm-")
        try:
            status = boot(options, run, command)
            if status is not None:
                return status
            sys.stderr.write(_report(run))
        finally:
            shutil.rmtree(run, ignore_errors=True)
        sys.stderr.write(
            f"vm.py: the machine did not come to the command (boot {number} of {BOOTS})\n"
        )
    raise MachineError("the machine does not come up")


def boot(options: argparse.Namespace, run: str, command: Sequence[str]) -> int | None:
    """One machine from its start to its end; None if the command was not begun."""
    writable = [os.path.realpath(path) for path in options.rw]
    io = os.path.join(run, "io")
    children: list[int] = []
    try:
        os.chmod(run, 0o755)
        for path in (io, os.path.join(io, "modules"), os.path.join(run, "tree")):
            os.mkdir(path)
        write_scripts(options, io, writable, command)
        if options.disk:
            with open(os.path.join(run, "disk"), "wb") as stream:
                stream.truncate(options.disk << 20)
            features = ["-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard"]
            subprocess.run(
                ["mkfs.ext4", "-q", "-F", "-m", "0", *features, os.path.join(run, "disk")],
                check=True,
            )
        daemon = share_files(run, options, writable)
        children.append(daemon)
        _await_socket(os.path.join(run, "files"), daemon, run)
        tails = [Tail(os.path.join(io, "stdout"), 1), Tail(os.path.join(io, "stderr"), 2)]
        if options.console:
            tails.append(Tail(os.path.join(run, "console"), 2))
        with open(os.path.join(run, "qemu.log"), "wb") as log:
            qemu = subprocess.Popen(
                qemu_words(options, run), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        children.append(qemu.pid)
        begun = told = False
        end = time.monotonic() + options.boot_timeout
        while qemu.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
            for tail in tails:
                tail.pump()
            if not begun and _begun(run):
                begun = True
                end = time.monotonic() + options.timeout
            if not told and os.path.exists(os.path.join(io, "status")):
                told = True  # all that is left to do is to switch off
                end = min(end, time.monotonic() + 60)
        in_time = qemu.poll() is not None
        for tail in tails:
            tail.pump()
        if not in_time:
            look_at_host(run, children)
            ask_kernel(run)
        if not (begun or _begun(run)):
            return None
        with contextlib.suppress(OSError, ValueError), open(os.path.join(io, "status")) as stream:
            return int(stream.read())
        sys.stderr.write(_report(run))
        if not in_time:
            sys.stderr.write(f"vm.py: no end after {options.timeout:.0f} s\n")
            return TIME_UP
        raise MachineError("the machine ended without saying how the command ended")
    finally:
        for pid in reversed(children):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def look_at_host(run: str, pids: Sequence[int]) -> None:
    """Write down what the threads of the machine's programs do."""
    with contextlib.suppress(OSError), open(os.path.join(run, "host"), "w") as stream:
        for pid in pids:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/stat") as file:
                    words = file.read().rpartition(")")[2].split()
                with open(f"/proc/{pid}/task/{task}/wchan") as file:
                    where = file.read()
                with open(f"/proc/{pid}/task/{task}/comm") as file:
                    name = file.read().strip()
                stream.write(
                    f"{name} {task}: {words[0]} in {where}, {words[11]}+{words[12]} ticks\n"
                )


def ask_kernel(run: str) -> None:
    """Have the kernel tell on its console who waits and what each processor does: a break on the serial line
    and a letter (Documentation/admin-guide/sysrq.rst). It answers also when no process does any more."""  # noqa: D209
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        control, serial = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for end, name in ((control, "control"), (serial, "serial")):
            end.settimeout(10)
            end.connect(os.path.join(run, name))
        control.recv(4096)
        control.sendall(b'{"execute":"qmp_capabilities"}')
        for letter in b"wl":
            control.sendall(b'{"execute":"chardev-send-break","arguments":{"id":"console"}}')
            control.recv(4096)
            time.sleep(1)
            serial.sendall(bytes([letter]))
            time.sleep(5)


def _begun(run: str) -> bool:
    """Whether the command itself was reached."""
    return f" {BEGUN}\n" in _end_of(os.path.join(run, "io/marks"))


def _report(run: str) -> str:
    """What is known of a machine that did not do what it should."""
    text = ""
    for name in (
        "qemu.log",
        "virtiofsd.log",
        "host",
        "console",
        "io/stuck",
        "io/marks",
        "io/alive",
    ):
        if found := _end_of(os.path.join(run, name)):
            text += f"vm.py: the machine's {os.path.basename(name)}:\n{found}\n"
    return text


def _await_socket(path: str, daemon: int, run: str) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        if os.path.exists(path):
            return
        if os.waitpid(daemon, os.WNOHANG)[0]:
            raise MachineError("virtiofsd ended: " + _end_of(os.path.join(run, "virtiofsd.log")))
        time.sleep(0.01)
    raise MachineError("virtiofsd makes no socket")


def _end_of(path: str) -> str:
    with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as stream:
        return stream.read()[-12000:]
    return ""


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """(options, command)."""
    words = list(arguments)
    command: list[str] = []
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    parser = argparse.ArgumentParser(description="run a command in a throw-away machine")
    parser.add_argument("--setup", action="store_true", help="install packages, fetch the kernel")
    parser.add_argument(
        "--kernel", choices=("", *KERNELS), default="", help="another Debian's than this machine's"
    )
    parser.add_argument("--systemd", action="store_true", help="systemd is PID 1, with D-Bus")
    parser.add_argument(
        "--user", action="store_true", help=f"as {USER} ({UID}) in a delegated cgroup"
    )
    parser.add_argument("--cgroup1", action="store_true", help="every cgroup v1 hierarchy, no v2")
    parser.add_argument("--lsm", choices=("apparmor", "selinux", "none"), default="apparmor")
    parser.add_argument(
        "--see", action="append", default=[], metavar="DIR", help="show it below the new /tmp"
    )
    parser.add_argument(
        "--rw", action="append", default=[], metavar="DIR", help="writable, changes stay"
    )
    parser.add_argument("--env", action="append", default=[], metavar="NAME[=VALUE]")
    parser.add_argument("--cwd", default=os.getcwd())
    parser.add_argument("--mem", type=int, default=2048, help="MiB (2048)")
    parser.add_argument("--smp", type=int, default=2, help="processors (2)")
    parser.add_argument(
        "--disk", type=int, default=2048, help="MiB of scratch disk (2048), 0 for none"
    )
    parser.add_argument("--timeout", type=float, default=600, help="seconds for the command (600)")
    parser.add_argument(
        "--boot-timeout", type=float, default=400, help="seconds to come to the command (400)"
    )
    parser.add_argument("--console", action="store_true", help="show the machine's console")
    options = parser.parse_args(words)
    options.cwd = os.path.realpath(options.cwd)
    options.see = [os.path.realpath(path) for path in options.see]
    if not command and not options.setup:
        parser.error("what shall it run? (vm.py [options] -- COMMAND)")
    return options, command


def main(arguments: Sequence[str]) -> int:
    """See the module's text."""
    options, command = parse(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        if options.setup:
            setup(options.kernel)
        if not command:
            return 0
        missing = lacking(options.kernel)
        if missing:
            raise MachineError("missing: " + ", ".join(missing))
        return run_machine(options, command)
    except (MachineError, subprocess.CalledProcessError, OSError) as error:
        sys.stderr.write(f"vm.py: {error}\n")
        return FAILED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
