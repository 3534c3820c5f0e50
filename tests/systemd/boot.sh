#!/bin/bash
# Debian's own systemd as PID 1, natively, without a virtual machine.
#
#   boot.sh [OPTION...] run CMD [ARG...]          boot, run CMD inside, end everything
#   boot.sh [OPTION...] start NAME                boot and leave it up
#   boot.sh [--user USER] exec NAME CMD [ARG...] run CMD inside one that is up
#   boot.sh stop NAME                             end it
#   boot.sh list                                  those that are up
#
#   --cgroup hybrid|v2  hybrid (default): the host's v1 controllers, and a v2
#                       hierarchy by which systemd follows its processes.
#                       v2: one v2 hierarchy with the controllers that the
#                       host's v1 hierarchies have left over (maybe none).
#   --bind DIR          DIR is the host's own inside too (repeatable)
#   --tmpfs DIR         DIR is an empty tmpfs inside (repeatable)
#   --net host          the host's network; otherwise there is a loopback only
#   --user USER         run CMD as USER (name or uid, made inside if missing),
#                       with a user manager and a session bus of its own
#   --timeout SEC       how long the boot may take (60)
#   --log               show systemd's journal on standard error at the end
#
# The systemd lives in its own pid, mount, uts, ipc, cgroup and net namespaces,
# on an overlay of the host's "/" whose upper layer is a tmpfs, with its own
# /run, /tmp, /var/tmp and /dev.  Only what lies below the git checkout of the
# working directory (without one: below the working directory) and below each
# --bind is the host's, writable; everything else that is written inside is gone
# at the end.  CMD is root in a scope of its own, with the caller's standard
# streams, environment, working directory; its exit status comes back.
#
# Exit status: CMD's (128+n for a signal); 125 when boot.sh itself failed.
#
# How an end is certain: all processes are in one pid namespace, which dies with
# its PID 1; all mounts are in one mount namespace, which dies with its last
# process.  A supervisor outside waits at a pipe that the caller holds, kills
# PID 1 when that closes, for whatever reason, and removes the cgroups; PID 1
# has PR_SET_PDEATHSIG against the supervisor's own death, after which the next
# call of boot.sh removes the cgroups.
#
# Traps, for who changes this:
# - A systemd that sees the host's /tmp, /run or /var cleans them: keep the private tmpfs, the masks,
#   and the list of what is never bound.
# - A process that waits outside of the pid namespace must not sit in these cgroups: systemd reads
#   pid 0 there and fails with EIO.  Enter namespaces first, then cgroups, then the cgroup namespace.
# - Frozen processes of cgroup v1 survive SIGKILL until they are thawed.
# - With v2 the lines of v1 are still in /proc/self/cgroup and /proc/cgroups.
set -u -o pipefail

self=$(realpath -e -- "${BASH_SOURCE[0]}")
base=/run/anocir-systemd # one directory for each that is up
prefix=anocir-systemd    # of the cgroups on the host

say() { echo "boot.sh: $*" >&2; }
die() { say "$*"; exit 125; }

usage() { sed -n '3,/^# Exit status/ { /^# Exit/d; s/^# \{0,1\}//; p }' "$self" | sed '/^The systemd lives/,$d'; }

# The cgroups on the host: where its hierarchies are, making and removing ours.

# Lines "kind directory", kind being the v1 controllers, name=... or "v2".
hierarchies() {
	local line fields rest type options option kind
	while read -r line; do
		fields=${line%% - *} rest=${line#* - }
		type=${rest%% *} options=${rest##* }
		read -r _ _ _ root where _ <<<"$fields"
		[ "$root" = / ] || continue
		case $type in
		cgroup2) echo "v2 $where" ;;
		cgroup)
			kind=
			for option in ${options//,/ }; do
				case $option in
				rw|ro|none|xattr|clone_children|noprefix|release_agent=*|cpuset_v2_mode) ;;
				*) kind=$kind${kind:+,}$option ;;
				esac
			done
			echo "$kind $where" ;;
		esac
	done </proc/self/mountinfo | awk '!seen[$1]++'
}

# Writes lines "kind directory" to $base/NAME/cgroups, and what to remove to "made".
make_cgroups() { # NAME MODE
	local kind where dir file
	hierarchies | while read -r kind where; do
		dir=$where/$prefix-$1
		case $2,$kind in
		v2,v2) # the controllers that the host has left over
			for file in $(cat "$where/cgroup.controllers"); do
				{ echo "+$file" >"$where/cgroup.subtree_control"; } 2>/dev/null
			done ;;
		v2,*) continue ;;
		esac
		mkdir -- "$dir" || return 1
		echo "$dir" >>"$base/$1/made"
		case $2,$kind in
		hybrid,v2) # no controllers here, or crun refuses to work
			dir=$dir/root
			mkdir -- "$dir" || return 1 ;;
		*cpuset*)
			for file in cpus mems; do
				cat "$where/cpuset.$file" >"$dir/cpuset.$file" || return 1
			done ;;
		esac
		echo "$kind $dir" >>"$base/$1/cgroups"
	done
}

# Frozen processes of cgroup v1 do not die before they are thawed.
thaw() { # NAME
	local kind dir state
	[ -e "$base/$1/cgroups" ] || return 0
	while read -r kind dir; do
		case ,$kind, in
		*,freezer,*)
			find "$dir" -mindepth 1 -name freezer.state 2>/dev/null |
			while IFS= read -r state; do
				{ echo THAWED >"$state"; } 2>/dev/null
			done ;;
		esac
	done <"$base/$1/cgroups"
}

remove_cgroups() { # NAME
	local dir left
	[ -e "$base/$1/made" ] || return 0
	for _ in {1..100}; do
		left=
		while read -r dir; do
			[ -d "$dir" ] || continue
			find "$dir" -depth -type d -exec rmdir -- {} + 2>/dev/null
			[ ! -d "$dir" ] || left="$left $dir"
		done <"$base/$1/made"
		[ -n "$left" ] || return 0
		sleep 0.05
	done
	say "cannot remove:$left"
	return 1
}

# The directory of those that are up.  Whoever adds to it or removes it holds its lock.

lock_base() { # opens fd 8
	while :; do
		mkdir -p -m 700 "$base"
		exec 8<"$base" && flock 8
		[ ! "$base" -ef /proc/self/fd/8 ] || return 0
	done 2>/dev/null
}

unlock_base() {
	rmdir -- "$base" 2>/dev/null
	exec 8<&-
}

remove() { # NAME
	remove_cgroups "$1" || return 1
	lock_base
	rm -rf --one-file-system -- "$base/${1:?}"
	unlock_base
}

is_up() { # NAME
	[ -e "$base/$1/lock" ] && ! flock -n "$base/$1/lock" true
}

# Remove what is left of those whose supervisor was killed; under the lock of the base.
sweep() {
	local dir name
	for dir in "$base"/*/; do
		name=$(basename "$dir")
		[ -d "$dir" ] && ! is_up "$name" || continue
		say "removing what was left of $name"
		thaw "$name"
		remove_cgroups "$name" && rm -rf --one-file-system -- "$base/${name:?}"
	done
}

# The supervisor: a process in a session of its own, from boot to end.
# Standard input: closed by the caller's end (run), or nothing (start).
# Standard output: "ready" as soon as CMD can come.  Descriptor 9: the lock.

supervise() { # NAME
	local name=$1 dir=$base/$1 boot='' life='' ready='' ended rc=0 net=()
	finish() {
		trap '' TERM INT HUP
		local pid='' dir=$base/$name # this may be called from anywhere
		[ -z "$ready" ] || kill "$ready" 2>/dev/null
		[ ! -s "$dir/init" ] || pid=$(<"$dir/init")
		if [ -n "$boot" ] && kill -0 "$boot" 2>/dev/null; then
			[ "$SD_LOG" = no ] || [ -z "$pid" ] ||
				timeout 10 nsenter -t "$pid" -m -r -W / -p \
					journalctl --no-pager -q -o short-monotonic </dev/null >&2 9>&-
			{
				kill -KILL "${pid:-$boot}"
				while kill -0 "$boot"; do
					thaw "$name"
					sleep 0.02
				done
				wait "$boot"
			} 2>/dev/null # not bash's word that it was killed
		fi
		[ -z "$life" ] || kill "$life" 2>/dev/null
		remove "$name"
		exit "$rc"
	}
	trap finish TERM INT HUP
	echo $$ >"$dir/pid"
	make_cgroups "$name" "$SD_CGROUP" || { say "cannot make cgroups"; rc=125; finish; }
	[ "$SD_NET" = host ] || net=(--net)
	setpriv --pdeathsig KILL -- \
		unshare --fork --pid --kill-child --mount --uts --ipc "${net[@]}" -- \
		/bin/bash "$self" _pid1 "$name" </dev/null >"$dir/log" 2>&1 9>&- &
	boot=$!
	if [ "$SD_LIFE" = yes ]; then
		cat <&0 >/dev/null 9>&- &
		life=$!
	fi
	wait_ready "$name" </dev/null >/dev/null 9>&- &
	ready=$!
	wait -n -p ended $boot $life $ready
	rc=$?
	if [ "$ended" = $ready ] && [ $rc = 0 ]; then
		ready=
		echo ready
		exec >/dev/null
		[ "$SD_LIFE" = yes ] || exec 2>>"$dir/log" # nobody waits for us
		wait -n $boot $life
		rc=0
	else
		if [ "$ended" != "$life" ]; then
			say "the boot failed"
			cat "$dir/log" >&2
			SD_LOG=yes
		fi
		rc=125
	fi
	finish
}

wait_ready() { # NAME: until systemd has booted and answers on the system bus
	local dir=$base/$1 pid state kmsg=no end=$((SECONDS + SD_TIMEOUT))
	until [ -s "$dir/init" ]; do
		[ $SECONDS -lt $end ] && [ -d "$dir" ] || return 1
		sleep 0.01
	done
	pid=$(<"$dir/init")
	until [ -S "/proc/$pid/root/run/systemd/private" ]; do
		[ $SECONDS -lt $end ] && kill -0 "$pid" 2>/dev/null || return 1
		sleep 0.01
	done
	[ ! -e /dev/kmsg ] || kmsg=yes # only now, or systemd would write its boot there
	state=$(timeout $((end - SECONDS + 1)) nsenter -t "$pid" -m -r -W / -u -i -n -p -C /bin/sh -c '
		systemctl is-system-running --wait
		[ "$0" = no ] || mknod -m 600 /dev/kmsg c 1 11
		busctl --timeout=10 call org.freedesktop.systemd1 /org/freedesktop/systemd1 \
			org.freedesktop.DBus.Peer Ping || echo "and the system bus does not answer"' $kmsg)
	case $state in
	running) ;;
	degraded)
		say "degraded: $(nsenter -t "$pid" -m -r -W / -p systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ')" ;;
	*)
		say "systemd is not running but" $state
		return 1 ;;
	esac
}

# Inside, as PID 1 of the new namespaces, still among the host's mounts.

pid1() { # NAME
	local kind dir pid
	umask 022
	read -r pid _ </proc/self/stat # the host's procfs: the pid that the host sees
	while read -r kind dir; do
		echo 0 >"$dir/cgroup.procs" || die "cannot enter $dir"
	done <"$base/$1/cgroups"
	SD_PID=$pid exec unshare --cgroup -- /bin/bash "$self" _mounts "$1"
}

mounts() { # NAME
	set -e
	local dir=$base/$1 old=/run/host/old node type numbers kind where source unit
	mount -n -t tmpfs -o mode=755 boot.sh "$dir/fs"
	cd "$dir/fs"
	mkdir upper work root
	mount -n -t overlay -o "lowerdir=/,upperdir=$PWD/upper,workdir=$PWD/work" boot.sh root
	cd root
	[ -d run ] && [ ! -L run ] || die "/run must be a directory"
	mount -n -t tmpfs -o mode=755 run run
	mkdir -p ".$old"
	pivot_root . ".$old"
	cd /
	# From here on every path is one of the overlay, but those below $old.

	mkdir /run/host/proc /run/host/sys
	mkdir -m 1777 /run/lock
	mount -t proc proc /proc
	mount -t sysfs sysfs /sys
	mount -t tmpfs -o mode=1777 tmp /tmp
	mount -t tmpfs -o mode=1777 tmp /var/tmp

	mount -t tmpfs -o mode=755 dev /dev
	mkdir /dev/pts /dev/shm /dev/mqueue /dev/net
	while read -r node type numbers; do
		[ ! -e "$old/dev/$node" ] || mknod -m 666 "/dev/$node" "$type" ${numbers/:/ }
	done <<-END
		null c 1:3
		zero c 1:5
		full c 1:7
		random c 1:8
		urandom c 1:9
		tty c 5:0
		fuse c 10:229
		net/tun c 10:200
	END
	mount -t devpts -o newinstance,ptmxmode=666,mode=620,gid=5 devpts /dev/pts
	mount -t tmpfs -o mode=1777 shm /dev/shm
	mount -t mqueue mqueue /dev/mqueue
	ln -s pts/ptmx /dev/ptmx
	ln -s /proc/self/fd /dev/fd
	ln -s fd/0 /dev/stdin
	ln -s fd/1 /dev/stdout
	ln -s fd/2 /dev/stderr

	if [ "$SD_CGROUP" = v2 ]; then
		mount -t cgroup2 cgroup2 /sys/fs/cgroup
	else
		mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
		while read -r kind _; do
			where=/sys/fs/cgroup/${kind#name=}
			[ "$kind" != v2 ] || where=/sys/fs/cgroup/unified
			mkdir "$where"
			case $kind in
			v2) mount -t cgroup2 cgroup2 "$where" ;;
			name=*) mount -t cgroup -o "none,$kind" cgroup "$where" ;;
			*) mount -t cgroup -o "$kind" cgroup "$where" ;;
			esac
			[[ $kind != *,* ]] || for node in ${kind//,/ }; do
				ln -s "$kind" "/sys/fs/cgroup/$node"
			done
		done <"$old$dir/cgroups"
	fi

	# The kernel's settings are read-only, but those of a network of our own.  (With
	# covered mounts alone a user namespace could mount no procfs and no sysfs.)
	mount -t proc proc /run/host/proc
	mount -t sysfs sysfs /run/host/sys
	mount --bind /proc/sys /proc/sys
	[ "$SD_NET" = host ] || mount --bind /proc/sys/net /proc/sys/net
	mount -o remount,bind,ro /proc/sys
	if [ -e /proc/sysrq-trigger ]; then
		mount --bind /proc/sysrq-trigger /proc/sysrq-trigger
		mount -o remount,bind,ro /proc/sysrq-trigger
	fi
	mount -o remount,bind,ro /sys

	while IFS= read -r source; do
		mkdir -p -- "$source"
		mount --bind -- "$old$source" "$source"
	done <"$old$dir/binds"
	while IFS= read -r where; do
		mkdir -p -- "$where"
		mount -t tmpfs -o mode=755 tmpfs "$where"
	done <"$old$dir/tmpfs"

	# What systemd may start: nothing of the host's, and of Debian's own units
	# what is listed here and what a bus name or a command asks for.
	rm -rf /etc/systemd/system/* /etc/systemd/user/* \
		/etc/systemd/system-generators /lib/systemd/system-generators \
		/lib/systemd/system/*.wants /lib/systemd/system/*.requires
	: >/etc/fstab
	tr -d - </proc/sys/kernel/random/uuid >/etc/machine-id
	while read -r where unit; do
		mkdir -p "/lib/systemd/system/$where.wants"
		ln -s "../$unit" "/lib/systemd/system/$where.wants/$unit"
	done <<-END
		sockets.target dbus.socket
		sockets.target systemd-journald.socket
		sockets.target systemd-journald-dev-log.socket
		sysinit.target systemd-journald.service
		multi-user.target dbus.service
	END
	# What would reach beyond the namespaces, should somebody ask for it.
	for unit in systemd-{tmpfiles-{clean,setup,setup-dev},sysctl,binfmt,modules-load}.service \
		systemd-{random-seed,pstore,remount-fs,udevd,udev-trigger,timesyncd}.service \
		systemd-{networkd,hwdb-update,update-utmp,firstboot,repart}.service \
		systemd-tmpfiles-clean.timer systemd-udevd-{control,kernel}.socket \
		sys-kernel-{debug,tracing,config}.mount proc-sys-fs-binfmt_misc.{auto,}mount \
		kmod-static-nodes.service console-getty.service getty@.service serial-getty@.service; do
		ln -s /dev/null "/etc/systemd/system/$unit"
	done
	mkdir -p /etc/systemd/journald.conf.d
	printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\nForwardToConsole=no\n' \
		>/etc/systemd/journald.conf.d/boot.sh.conf
	echo "sd-$1" >/etc/hostname
	hostname "sd-$1"

	echo "$SD_PID" >"$old$dir/init.new"
	mv "$old$dir/init.new" "$old$dir/init"
	umount -l "$old"
	rmdir "$old"
	exec env -i container=anocir-test \
		PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
		/lib/systemd/systemd --unit=multi-user.target --show-status=no --log-level=info
}

# The caller's side.

needed() { # what is missing, for prepare.sh to install
	local missing=()
	[ -x /lib/systemd/systemd ] || missing+=(systemd)
	command -v dbus-daemon >/dev/null || missing+=(dbus)
	if [ -n "$user" ]; then
		[ -e /usr/lib/systemd/user/dbus.socket ] || missing+=(dbus-user-session)
		[ -e /usr/lib/pam.d/systemd-user ] || [ -e /etc/pam.d/systemd-user ] || missing+=(libpam-systemd)
		command -v newuidmap >/dev/null || missing+=(uidmap)
	fi
	[ ${#missing[@]} = 0 ] || die "missing here: ${missing[*]} (tests/prepare.sh test installs it)"
}

# Directories that must not be the host's inside: systemd fills or cleans them.
bindable() {
	case $1 in
	/|/bin|/boot|/etc|/home|/lib*|/media|/mnt|/opt|/sbin|/srv|/tmp|/usr|/var) return 1 ;;
	/dev/*|/proc/*|/run/*|/sys/*|/etc/*|/usr/*|/var/lib|/var/log|/var/tmp) return 1 ;;
	/dev|/proc|/run|/sys|~root) return 1 ;;
	esac
}

checkout() { # the git checkout around the working directory, or that directory
	local dir
	dir=$(pwd -P)
	while [ "$dir" != / ]; do
		[ ! -e "$dir/.git" ] || break
		dir=$(dirname -- "$dir")
	done
	[ "$dir" != / ] || dir=$(pwd -P)
	echo "$dir"
}

boot() { # NAME: returns when it is up
	local name=$1 dir=$base/$1 place kind where file word=''
	[[ $name =~ ^[A-Za-z0-9][A-Za-z0-9_.-]{0,40}$ ]] || die "not a name: $name"
	trap 'abandon 143' TERM HUP
	trap 'abandon 130' INT
	needed
	[ -n "$SD_CGROUP" ] || {
		SD_CGROUP=v2
		! hierarchies | grep -q '^name=systemd ' || SD_CGROUP=hybrid
	}
	if [ "$SD_CGROUP" = hybrid ]; then
		for kind in v2 name=systemd; do
			hierarchies | grep -q "^$kind " || die "the host has no $kind hierarchy for hybrid"
		done
	fi
	lock_base
	sweep
	! is_up "$name" || die "$name is up already"
	made=$name
	mkdir "$dir" "$dir/fs" || die "cannot make $dir"
	exec 9>"$dir/lock"
	flock -n 9 || die "cannot lock $dir"
	for file in cgroups made binds tmpfs init; do : >"$dir/$file"; done
	echo "$SD_CGROUP" >"$dir/mode"
	exec 8<&-
	place=$(checkout)
	bindable "$place" && echo "$place" >>"$dir/binds"
	[ ${#binds[@]} = 0 ] || printf '%s\n' "${binds[@]}" >>"$dir/binds"
	[ ${#tmpfs[@]} = 0 ] || printf '%s\n' "${tmpfs[@]}" >>"$dir/tmpfs"
	coproc SUPERVISOR {
		export SD_CGROUP SD_NET SD_LOG SD_LIFE SD_TIMEOUT
		exec setsid /bin/bash "$self" _supervise "$name"
	}
	supervisor=$SUPERVISOR_PID
	exec {life}>&"${SUPERVISOR[1]}" {answer}<&"${SUPERVISOR[0]}" 9>&-
	eval "exec ${SUPERVISOR[0]}<&- ${SUPERVISOR[1]}>&-"
	read -r word <&"$answer"
	exec {answer}<&-
	trap - TERM HUP INT
	[ "$word" = ready ] || { wait "$supervisor"; exit 125; }
}

abandon() { # STATUS
	trap '' TERM HUP INT
	if [ -n "$supervisor" ]; then
		kill -TERM "$supervisor" 2>/dev/null
		wait "$supervisor"
	fi
	exec 9<&-
	if [ -n "$made" ] && [ -d "$base/$made" ]; then # it came too early for the supervisor
		lock_base
		sweep 2>/dev/null
		unlock_base
	fi
	exit "$1"
}

# Become a process inside: enter the namespaces, the cgroups, and last a scope.
enter() { # NAME CMD [ARG...]
	local pid
	pid=$(<"$base/$1/init")
	shift
	exec env --default-signal=INT,QUIT \
		nsenter -t "$pid" -m -r -W / -u -i -n -p -- /bin/bash -c "$inside" boot.sh "$PWD" "$user" "$@"
}

# The last steps, inside.  The waiting nsenter stays out of the cgroups: systemd
# cannot read a list of processes with one that is not in its pid namespace.
# Arguments: working directory, user, CMD...
inside='
	fail() { echo "boot.sh: $*" >&2; exit 125; }
	if [ "${SD_INSIDE-}" != $$ ]; then
		for dir in /sys/fs/cgroup/ /sys/fs/cgroup/*/; do
			[ ! -L "${dir%/}" ] && [ -e "$dir/cgroup.procs" ] || continue
			case $dir in
			/sys/fs/cgroup/|*/unified/|*/systemd/) dir=${dir}init.scope ;;
			esac
			echo $$ >"$dir/cgroup.procs" || fail "cannot enter $dir"
		done
		SD_INSIDE=$$ exec nsenter -t 1 -C -- /bin/bash -c "$BASH_EXECUTION_STRING" boot.sh "$@"
	fi
	unset SD_INSIDE
	[ -z "${TMPDIR-}" ] || [ -d "$TMPDIR" ] || mkdir -p -m 1777 -- "$TMPDIR"
	cd -- "$1" 2>/dev/null || fail "the working directory $1 is not there inside"
	user=$2
	shift 2
	type -P -- "$1" >/dev/null || { echo "boot.sh: $1: not found inside" >&2; exit 127; }
	scope=(systemd-run --scope --quiet --collect)
	[ -n "$user" ] || exec "${scope[@]}" --property=Delegate=yes -- "$@"
	if ! getent passwd "$user" >/dev/null; then
		number=()
		[[ ! $user =~ ^[0-9]+$ ]] || { number=(--uid "$user"); user=user$user; }
		useradd --create-home --shell /bin/bash "${number[@]}" -- "$user" || fail "no user $user"
	fi
	IFS=: read -r user _ uid gid _ home shell < <(getent passwd "$user")
	for map in /etc/subuid /etc/subgid; do
		grep -q "^$user:" "$map" 2>/dev/null || echo "$user:$((100000 + uid % 10000 * 65536)):65536" >>"$map"
	done
	systemctl start "user@$uid.service" || fail "no user manager for $user"
	export HOME=$home USER=$user LOGNAME=$user SHELL=$shell XDG_RUNTIME_DIR=/run/user/$uid
	export DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/$uid/bus
	exec "${scope[@]}" --uid="$uid" --gid="$gid" --slice="user-$uid.slice" -- "$@"
'

# Run CMD inside, and let signals end it.
run() { # NAME CMD [ARG...]: sets $rc
	local child stop='' pid
	trap 'stop=TERM' TERM HUP
	trap 'stop=INT' INT # from a terminal CMD has got it too
	(
		trap - TERM HUP INT
		[ -z "$life" ] || exec {life}>&-
		enter "$@"
	) <&0 &
	child=$!
	{ wait $child; } 2>/dev/null # not bash's word on how it ended
	rc=$?
	if kill -0 $child 2>/dev/null; then
		for pid in $(cat /proc/$child/task/$child/children 2>/dev/null); do
			[ $stop = INT ] || kill -TERM "$pid" 2>/dev/null
		done
		for _ in {1..50}; do
			kill -0 $child || break
			sleep 0.1
		done 2>/dev/null
		disown $child 2>/dev/null
		rc=130
		[ $stop = INT ] || rc=143
	fi
	trap '' TERM HUP INT
}

case ${1-} in
_supervise) supervise "$2" ;;
_pid1) pid1 "$2" ;;
_mounts) mounts "$2" ;;
esac

# All but SD_* is ours alone; these the supervisor gets by its environment.
SD_CGROUP='' SD_NET=own SD_LOG=no SD_LIFE=yes SD_TIMEOUT=60
export -n SD_CGROUP SD_NET SD_LOG SD_LIFE SD_TIMEOUT
user='' life='' binds=() tmpfs=() supervisor='' made=''
while [ $# -gt 0 ]; do
	case $1 in
	--cgroup)
		[[ ${2-} =~ ^(hybrid|v2)$ ]] || die "--cgroup hybrid or v2"
		SD_CGROUP=$2
		shift ;;
	--net)
		[[ ${2-} =~ ^(host|own)$ ]] || die "--net host or own"
		SD_NET=$2
		shift ;;
	--bind)
		binds+=("$(realpath -e -- "${2-}")") || die "no directory: ${2-}"
		[ -d "${binds[-1]}" ] && bindable "${binds[-1]}" || die "will not bind ${binds[-1]}"
		shift ;;
	--tmpfs)
		[[ ${2-} =~ ^/.*[^/]$ ]] || die "--tmpfs wants an absolute path"
		tmpfs+=("$2")
		shift ;;
	--user) user=${2:?} && shift ;;
	--timeout) SD_TIMEOUT=${2:?} && shift ;;
	--log) SD_LOG=yes ;;
	-h|--help) usage; exit 0 ;;
	-*) die "no such option: $1" ;;
	*) break ;;
	esac
	shift
done
verb=${1-}
[ $# = 0 ] || shift
[ "$(id -u)" = 0 ] || die "must be root"
case $verb in
run)
	[ $# -gt 0 ] || die "run what?"
	name=run-$$
	boot "$name"
	run "$name" "$@"
	exec {life}>&-
	wait "$supervisor"
	exit "$rc" ;;
start)
	[ $# = 1 ] || die "usage: boot.sh start NAME"
	SD_LIFE=no
	boot "$1"
	disown -a ;;
exec)
	[ $# -gt 1 ] || die "usage: boot.sh exec NAME CMD [ARG...]"
	is_up "$1" && [ -s "$base/$1/init" ] || die "$1 is not up"
	needed
	run "$@"
	exit "$rc" ;;
stop)
	[ $# = 1 ] || die "usage: boot.sh stop NAME"
	is_up "$1" || die "$1 is not up"
	kill -TERM "$(<"$base/$1/pid")"
	{ exec 9<"$base/$1/lock" && flock -w 60 9; } 2>/dev/null
	[ ! -d "$base/$1" ] || die "$1 has not ended" ;;
list)
	lock_base
	sweep
	unlock_base
	for dir in "$base"/*/; do
		name=$(basename "$dir")
		! is_up "$name" || echo "$name $(<"$dir/mode") $(<"$dir/init")"
	done ;;
*) usage >&2; exit 125 ;;
esac
