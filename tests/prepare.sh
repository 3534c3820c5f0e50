#!/bin/sh
# Install what the demo or the tests need and the machine lacks, and say so.
# usage: tests/prepare.sh demo|check|test
set -eu

cd "$(dirname "$0")/.."
venv=build/venv
python=/usr/bin/python3

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

# Each line: package, and a command that succeeds if it is there already.
demo_packages() {
    echo "python3 test -x $python"
    echo "python3-venv $python -c 'import ensurepip, venv'"
    echo "ca-certificates test -s /etc/ssl/certs/ca-certificates.crt"
    echo "libseccomp2 dpkg -s libseccomp2"
    echo "busybox-static test -x /bin/busybox"
}

test_packages() {
    demo_packages
    # For python-prctl, the second witness of the kernel tests, and tests that compile a probe.
    echo "gcc command -v gcc"
    echo "libc6-dev test -e /usr/include/stdio.h"
    echo "python3-dev test -e /usr/include/$($python -c \
        'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null)/Python.h"
    echo "libcap-dev test -e /usr/include/sys/capability.h"
    echo "git command -v git"
    echo "strace command -v strace"
    echo "procps command -v ps"
    echo "util-linux command -v findmnt"
    echo "uidmap command -v newuidmap"
    echo "iptables command -v iptables"
    echo "iproute2 command -v ip"
    echo "runc command -v runc"
    echo "crun command -v crun"
    echo "containerd command -v containerd"
    echo "docker.io command -v dockerd"
    echo "podman command -v podman"
    echo "buildah command -v buildah"
    echo "conmon command -v conmon"
    echo "netavark test -x /usr/lib/podman/netavark"
    echo "tini command -v tini"
    # For the machines of tests/vm: cgroup v2, systemd, AppArmor, SELinux.
    echo "qemu-system-x86 command -v qemu-system-x86_64"
    echo "qemu-system-common test -x /usr/lib/qemu/virtiofsd"
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
optional="busybox-static"

install_packages() {
    missing=""
    while read -r package probe; do
        sh -c "$probe" >/dev/null 2>&1 || missing="$missing $package"
    done
    [ -n "$missing" ] || return 0
    if ! command -v apt-get >/dev/null; then
        say "missing:$missing; please install them (there is no apt-get here)"
        return 0
    fi
    say "installing with apt-get:$missing"
    export DEBIAN_FRONTEND=noninteractive
    as_root apt-get update -qq || say "apt-get update failed, trying with the present lists"
    for package in $missing; do
        # One by one: a package that a release does not have must not stop the others.
        if ! as_root apt-get install -y -qq --no-install-recommends "$package" >/dev/null; then
            case " $optional " in
                *" $package "*) say "$package cannot be installed, going on without it" ;;
                *) say "cannot install $package; what needs it is skipped or fails" ;;
            esac
        fi
    done
}

case "${1:-}" in
    demo) list=$(demo_packages) ;;
    check) list=$(demo_packages | head -2) ;;
    test) list=$(test_packages) ;;
    *) echo "usage: tests/prepare.sh demo|check|test" >&2; exit 2 ;;
esac
install_packages <<END
$list
END

if [ "$1" != demo ]; then
    # The same Python that runs the archive also runs the tests.
    [ -x $venv/bin/pip ] || $python build.py tools
    wanted=$(sed 's/ *#.*//' tests/requirements.txt)
    if [ "$1" = check ]; then
        wanted=$(echo "$wanted" | grep -v prctl)
    fi
    lacking=$($venv/bin/python -c '
import importlib.metadata, sys
for word in sys.argv[1:]:
    name, _, version = word.partition("==")
    try:
        if importlib.metadata.version(name) == version:
            continue
    except importlib.metadata.PackageNotFoundError:
        pass
    print(word)' $wanted)
    if [ -n "$lacking" ]; then
        say "installing with pip below $venv:" $lacking
        $venv/bin/pip install --quiet --disable-pip-version-check $lacking
    fi
fi
