#!/bin/sh
# Install what the demo or the chosen tests need and the machine lacks, by one call of apt, and say so.
# usage: tests/prepare.sh demo | check | test [TESTS...]
# TESTS are those of `make test`: directories, files or test ids below tests/; none means all.
set -eu

cd "$(dirname "$0")/.."
venv=build/venv
python=/usr/bin/python3
trees=${ENGINE_TREES:-build/trees}
suite=${SUITE:-trixie}

say() { echo "prepare: $*" >&2; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        say "this needs root, and there is no sudo: $*"
        return 1
    fi
}

# Each line: package, and a command that succeeds if what it is wanted for is there already. Two packages with one
# command are the names of one thing in different releases: whichever there is.
build_packages() {
    echo "python3 test -x $python"
    echo "python3-venv $python -c 'import ensurepip, venv'"
    echo "ca-certificates test -s /etc/ssl/certs/ca-certificates.crt"
}

demo_packages() {
    build_packages
    echo "libseccomp2 dpkg -s libseccomp2"
    echo "busybox-static test -x /bin/busybox"
}

# The tiers that run containers by the runtime alone.
runtime_packages() {
    demo_packages
    # For python-prctl, the second witness of the kernel tests, and tests that compile a probe.
    echo "gcc command -v gcc"
    echo "libc6-dev test -e /usr/include/stdio.h"
    echo "python3-dev $python -c 'import os, sysconfig; os.stat(sysconfig.get_path(\"include\") + \"/Python.h\")'"
    echo "libcap-dev test -e /usr/include/sys/capability.h"
    echo "git command -v git"
    echo "strace command -v strace"
    echo "procps command -v ps"
    echo "util-linux command -v findmnt"
    echo "uidmap command -v newuidmap"
    echo "iproute2 command -v ip"
    echo "runc command -v runc"
    echo "crun command -v crun"
    # Root file systems of other kinds.
    echo "e2fsprogs command -v mkfs.ext4"
    echo "btrfs-progs command -v mkfs.btrfs"
    echo "xfsprogs command -v mkfs.xfs"
    echo "erofs-utils command -v mkfs.erofs"
    echo "squashfs-tools command -v mksquashfs"
    echo "fuse-overlayfs command -v fuse-overlayfs"
}

# The engines of a Debian tree need nothing of this machine but what makes the tree.
engines_packages() {
    demo_packages
    echo "util-linux command -v nsenter"
    echo "debootstrap command -v debootstrap"
    echo "debian-archive-keyring test -e /usr/share/keyrings/debian-archive-keyring.gpg"
}

# This machine's engines: tests/engines/test_smoke.py, SUITE=host, and the machines of tests/vm, which see them.
host_engines_packages() {
    echo "catatonit command -v catatonit"
    echo "iptables command -v iptables"
    echo "iproute2 command -v ip"
    echo "procps command -v ps"
    echo "uidmap command -v newuidmap"
    echo "runc command -v runc"
    echo "containerd command -v containerd"
    echo "docker.io command -v dockerd"
    # The client is a package of its own since Debian 13.
    echo "docker-cli command -v docker"
    echo "podman command -v podman"
    echo "buildah command -v buildah"
    echo "conmon command -v conmon"
    echo "netavark test -x /usr/lib/podman/netavark"
    # What newer ones of netavark and Docker drive.
    echo "nftables command -v nft"
    echo "tini command -v tini"
}

# The machines: cgroup v2, systemd, AppArmor, SELinux.
vm_packages() {
    runtime_packages
    host_engines_packages
    echo "qemu-system-x86 command -v qemu-system-x86_64"
    echo "qemu-system-common test -x /usr/lib/qemu/virtiofsd -o -x /usr/libexec/virtiofsd"
    # A package of its own since Debian 13.
    echo "virtiofsd test -x /usr/lib/qemu/virtiofsd -o -x /usr/libexec/virtiofsd"
    echo "kmod command -v depmod"
    echo "e2fsprogs command -v mkfs.ext4"
    echo "apparmor command -v apparmor_parser"
    echo "checkpolicy command -v checkpolicy"
    echo "systemd-sysv test -e /sbin/init"
    echo "dbus command -v dbus-daemon"
    echo "dbus-user-session dpkg -s dbus-user-session"
    echo "libpam-systemd dpkg -s libpam-systemd"
}

# Packages without which the rest still works.
optional=" busybox-static "

# Name the tiers that the chosen tests are in.
tiers_of() {
    for word in "$@"; do
        name=${word#./}
        case "$name" in
            tests/*/*) name=${name#tests/}; name=${name%%/*} ;;
            tests/?*) name=${name#tests/}; name=${name%%::*} ;;
            *) name=all ;;
        esac
        case " unit repo kernel runtime security reliability engines vm " in
            *" $name "*) echo "$name" ;;
            # A folder or file that holds no tier's tests may need anything.
            *) echo unit repo kernel runtime security reliability engines vm ;;
        esac
    done | tr ' ' '\n' | sort -u
}

packages_of() {
    case "$1" in
        unit | repo) build_packages ;;
        kernel | runtime | security | reliability) runtime_packages ;;
        engines)
            [ "$suite" = host ] || engines_packages
            if [ "$suite" = host ] || [ "${CI:-}" = true ]; then
                demo_packages
                host_engines_packages
            fi ;;
        vm) vm_packages ;;
    esac
}

# What the tiers take on two cores, in minutes (measured, rounded up).
minutes_of() {
    case "$1" in
        unit | repo | kernel | security) echo 1 ;;
        reliability) echo 2 ;;
        runtime) echo 4 ;;
        engines) echo 7 ;;
        vm) echo 9 ;;
    esac
}

# The same of the chosen tests in seconds: of a tier's files those that are named, or all of it.
seconds_of() {
    for word in "$@"; do
        name=${word#./}
        name=${name%%::*}
        case "$name" in
            tests/*/test_*.py)
                tier=${name#tests/}
                tier=${tier%%/*}
                all=$(set -- tests/"$tier"/test_*.py; echo $#)
                echo $(($(minutes_of "$tier") * 60 / all + 1)) ;;
            *) for tier in $(tiers_of "$word"); do echo $(($(minutes_of "$tier") * 60)); done ;;
        esac
    done
}

# Say how long the tests will take on two cores, with what surrounds them.
say_time() {
    total=20
    for one in $(seconds_of "$@"); do total=$((total + one)); done
    if [ $total -lt 90 ]; then
        echo "$(((total + 9) / 10 * 10)) seconds"
    else
        echo "$(((total + 59) / 60)) minutes"
    fi
}

lacking() {
    sort -u | while read -r package probe; do
        sh -c "$probe" >/dev/null 2>&1 || echo "$package"
    done | sort -u
}

install_packages() {
    wanted=$(echo "$1" | lacking | tr '\n' ' ')
    [ -n "$wanted" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "missing: $wanted(please install them; there is no apt-get here)"
        return 0
    fi
    export DEBIAN_FRONTEND=noninteractive
    say "apt-get update"
    as_root apt-get -q update >&2 || say "apt-get update failed, trying with the present lists"
    # A package that this release does not have must not stop the others.
    missing=""
    for package in $wanted; do
        if apt-cache show "$package" >/dev/null 2>&1; then
            missing="$missing $package"
        fi
    done
    if [ -n "$missing" ]; then
        say "apt-get install$missing"
        # shellcheck disable=SC2086
        as_root apt-get -q install -y --no-install-recommends $missing >&2 ||
            say "apt-get install failed"
    fi
    for package in $(echo "$1" | lacking); do
        case "$optional" in
            *" $package "*) say "$package cannot be installed, going on without it" ;;
            *) say "cannot install $package; what needs it is skipped or fails" ;;
        esac
    done
}

# A criu that works with this kernel, for the tests of checkpoint and restore. The machine's own may be
# older than its kernel; then Debian's newest goes, with the libraries that it wants, below build/criu,
# and build/criu/bin/criu runs it with them. Nothing of the system is replaced.
criu_works() {
    "$1" check >/dev/null 2>&1 && [ "$("$1" --version | sed -n 's/^Version: *//p' |
        sort -V - build/criu.least | head -1)" = "$(cat build/criu.least)" ]
}

install_criu() {
    mkdir -p build
    echo 4.2.1 >build/criu.least # older ones need --old-criu
    ! criu_works criu && ! criu_works build/criu/bin/criu || return 0
    keys=/usr/share/keyrings/debian-archive-keyring.gpg
    site=$(apt-get indextargets --format '$(SITE) $(ORIGIN)' 2>/dev/null |
        sed -n '/security/d;s/ Debian$//p' | head -1)
    if [ -z "$site" ] || [ ! -e $keys ]; then
        say "no criu that works here, and no Debian archive to take one from; its tests are skipped"
        return 0
    fi
    for release in sid testing stable; do
        say "taking criu of Debian $release into build/criu"
        take_criu "$release" || { say "criu of Debian $release cannot be had"; continue; }
        criu_works build/criu/bin/criu && return 0
        say "criu of Debian $release is not what is wanted, $(cat build/criu.least) or newer that works here: $(
            build/criu/bin/criu --version | head -1), $(build/criu/bin/criu check 2>&1 | tail -1)"
    done
    rm -rf build/criu
}

take_criu() {
    rm -rf build/criu
    mkdir -p build/criu/root build/criu/bin build/criu/apt/lists/partial \
        build/criu/apt/archives/partial
    here=$(pwd)/build/criu
    echo "deb [signed-by=$keys] $site $1 main" >"$here/apt/sources.list"
    # Lists and state of its own: what is installed here does not matter.
    set -- -qq -o Dir::Etc::sourcelist="$here/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$here/apt/lists" -o Dir::Cache="$here/apt" \
        -o Dir::State::status=/dev/null -o APT::Sandbox::User=root
    apt-get "$@" update >/dev/null 2>&1 || return 1
    wanted=$(apt-cache "$@" depends --recurse --no-recommends --no-suggests --no-conflicts \
        --no-breaks --no-replaces --no-enhances criu | grep '^[a-z]' | sort -u)
    (cd "$here/apt/archives" && apt-get "$@" download $wanted >/dev/null 2>&1) || return 1
    for package in "$here"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$here/root"
    done
    loader=$(find "$here/root" -name 'ld-linux-*.so.*' -type f | head -1)
    libraries=$(dirname "$loader")
    cat >"$here/bin/criu" <<END
#!/bin/sh
exec $loader --library-path $libraries $here/root/usr/sbin/criu "\$@"
END
    chmod +x "$here/bin/criu"
    rm -rf "$here/apt"
}

what=${1:-}
[ $# = 0 ] || shift
case "$what" in
    demo) list=$(demo_packages) ;;
    check)
        [ $# -gt 0 ] || set -- tests/unit tests/repo
        say "the checks take about $(say_time "$@") on two cores"
        list=$(build_packages) ;;
    test)
        [ $# -gt 0 ] || set -- tests
        tiers=$(tiers_of "$@")
        say "the tests of" $tiers "take about $(say_time "$@") on two cores"
        case "$tiers" in
            *engines*)
                [ "$suite" = host ] || [ -d "$trees/$suite" ] ||
                    say "for engines: a tree of Debian $suite in $trees (1.3 GB, about a minute)" ;;
        esac
        case "$tiers" in
            *vm*)
                [ -d "${VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/anocir-vm}/kernel" ] ||
                    say "for vm: QEMU (about 0.6 GB) and a kernel in ~/.cache/anocir-vm (0.2 GB)" ;;
        esac
        list=$(for tier in $tiers; do packages_of "$tier"; done) ;;
    *) echo "usage: tests/prepare.sh demo | check | test [TESTS...]" >&2; exit 2 ;;
esac
install_packages "$list"
[ "$what" != demo ] || exit 0
# The tree is made while the rest is fetched.
tree=
case "${tiers:-}" in
    *engines*)
        if [ "$suite" != host ] && [ "$(id -u)" = 0 ]; then
            $python -m tests.engines.tree "$suite" >/dev/null &
            tree=$!
        fi ;;
esac
case "${tiers:-}" in
    *runtime* | *security* | *reliability* | *engines* | *vm*) install_criu ;;
esac

# The same Python that runs the archive also runs the tests.
[ -x $venv/bin/python ] && $venv/bin/python -c 'import pip' 2>/dev/null || $python build.py tools
wanted=$(sed 's/ *#.*//' tests/requirements.txt)
if ! echo "${tiers:-}" | grep -qE 'kernel|runtime|security|reliability|vm'; then
    # It is compiled here, by the compiler that those want.
    wanted=$(echo "$wanted" | grep -v prctl)
fi
# shellcheck disable=SC2086
missing=$($venv/bin/python -c '
import importlib.metadata, sys
for word in sys.argv[1:]:
    name, _, version = word.partition("==")
    try:
        if importlib.metadata.version(name) == version:
            continue
    except importlib.metadata.PackageNotFoundError:
        pass
    print(word)' $wanted)
if [ -n "$missing" ]; then
    say "installing with pip below $venv:" $missing
    # By the interpreter, not by bin/pip: its first line names the folder that the environment was made in, which may
    # be another checkout.
    # shellcheck disable=SC2086
    $venv/bin/python -m pip install --quiet --disable-pip-version-check $missing
fi
[ -z "$tree" ] || wait "$tree" ||
    say "no tree of Debian $suite; the tests of engines will say why"
