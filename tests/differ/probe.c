/* What a process of a container sees, for the differential test: "== SECTION" and lines, then a byte is awaited.
 *
 * Static, no library but libc. /proc is read where the container has one.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

extern char **environ;

static void section(const char *name) { printf("== %s\n", name); }

static void file(const char *path, const char *name)
{
	char line[8192];
	FILE *stream = fopen(path, "r");
	section(name);
	if (!stream) {
		printf("error %s\n", strerrorname_np(errno));
		return;
	}
	while (fgets(line, sizeof line, stream))
		fputs(line, stdout);
	fclose(stream);
}

static void descriptors(void)
{
	section("descriptors");
	for (int fd = 0; fd < 64; fd++) {
		struct stat found;
		int flags = fcntl(fd, F_GETFL);
		if (flags < 0 || fstat(fd, &found))
			continue;
		printf("%d mode=%o owner=%d:%d flags=%o cloexec=%d\n", fd, fd < 3 ? found.st_mode & S_IFMT : found.st_mode,
		       fd < 3 ? -1 : (int)found.st_uid, fd < 3 ? -1 : (int)found.st_gid, flags & ~O_LARGEFILE, fcntl(fd, F_GETFD));
	}
}

static void signals(void)
{
	section("signals");
	for (int number = 1; number <= 64; number++) {
		/* the C library hides 32 and 33 */
		struct { void *handler; unsigned long flags; void *restorer; unsigned long mask; } now;
		if (!syscall(SYS_rt_sigaction, number, NULL, &now, 8) && now.handler == (void *)1)
			printf("ignored %d\n", number);
	}
	unsigned long blocked = 0;
	syscall(SYS_rt_sigprocmask, 0, NULL, &blocked, 8);
	printf("blocked %lx\n", blocked);
}

static void nodes(const char *directory)
{
	DIR *open = opendir(directory);
	struct dirent *entry;
	if (!open) {
		printf("%s error %s\n", directory, strerrorname_np(errno));
		return;
	}
	while ((entry = readdir(open))) {
		char path[4096], target[4096] = "";
		struct stat found;
		if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, ".."))
			continue;
		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		if (lstat(path, &found))
			continue;
		ssize_t length = S_ISLNK(found.st_mode) ? readlink(path, target, sizeof target - 1) : -1;
		if (length >= 0)
			target[length] = 0;
		printf("%s mode=%o owner=%d:%d device=%lx %s\n", path, found.st_mode, (int)found.st_uid, (int)found.st_gid,
		       (unsigned long)found.st_rdev, target);
	}
	closedir(open);
}

static void paths(int count, char **words)
{
	section("paths");
	for (int i = 0; i < count; i++) {
		struct stat found;
		struct statfs where;
		char byte;
		if (lstat(words[i], &found)) {
			printf("%s error %s\n", words[i], strerrorname_np(errno));
			continue;
		}
		int reading = open(words[i], O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
		int why = errno;
		ssize_t got = reading < 0 ? -1 : read(reading, &byte, 1);
		if (reading >= 0)
			why = got < 0 ? errno : 0;
		const char *writing = access(words[i], W_OK) ? strerrorname_np(errno) : "ok";
		printf("%s mode=%o owner=%d:%d fs=%lx read=%ld,%s write=%s\n", words[i], found.st_mode, (int)found.st_uid,
		       (int)found.st_gid, statfs(words[i], &where) ? 0 : (unsigned long)where.f_type, (long)got,
		       why ? strerrorname_np(why) : "0", writing);
		if (reading >= 0)
			close(reading);
	}
}

static void calls(void)
{
	struct utsname names;
	cpu_set_t cpus;
	char where[4096], domain[256] = "";
	struct sched_param priority = {0};
	section("calls");
	uname(&names);
	if (getdomainname(domain, sizeof domain))
		snprintf(domain, sizeof domain, "error %s", strerrorname_np(errno));
	printf("hostname %s\ndomainname %s\nmachine %s\n", names.nodename, domain, names.machine);
	errno = 0;
	printf("cwd %s\n", getcwd(where, sizeof where) ? where : strerrorname_np(errno));
	mode_t mask = umask(0);
	umask(mask);
	printf("umask %o\npersonality %x\n", mask, personality(0xffffffff));
	printf("policy %d\n", sched_getscheduler(0));
	sched_getparam(0, &priority);
	errno = 0;
	printf("priority %d nice %d\n", priority.sched_priority, getpriority(PRIO_PROCESS, 0));
	printf("io %ld\n", syscall(SYS_ioprio_get, 1, 0));
	CPU_ZERO(&cpus);
	sched_getaffinity(0, sizeof cpus, &cpus);
	printf("cpus %d\n", CPU_COUNT(&cpus));
	printf("dumpable %d\nkeepcaps %d\nsecurebits %d\nsubreaper", prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS),
	       prctl(PR_GET_SECUREBITS));
	int value = -1;
	prctl(PR_GET_CHILD_SUBREAPER, &value);
	printf(" %d\npdeathsig", value);
	value = -1;
	prctl(PR_GET_PDEATHSIG, &value);
	printf(" %d\nthp %d\n", value, prctl(PR_GET_THP_DISABLE, 0, 0, 0, 0));
	printf("pid1 %d leader %d group %d\n", getpid() == 1, getsid(0) == getpid(), getpgrp() == getpid());
	long memory = -1;
	printf("mempolicy %ld", syscall(SYS_get_mempolicy, &memory, NULL, 0, NULL, 0));
	printf(" %ld\n", memory);
}

static void keyring(void)
{
	char text[256] = "";
	section("keyring");
	long serial = syscall(SYS_keyctl, 0, -3, 0, 0, 0);
	if (serial < 0) {
		printf("session error %s\n", strerrorname_np(errno));
		return;
	}
	if (syscall(SYS_keyctl, 6, serial, text, sizeof text, 0) < 0)
		printf("describe error %s\n", strerrorname_np(errno));
	else
		printf("session %s\n", text);
}

static void namespaces(void)
{
	static const char *names[] = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts", NULL};
	section("namespaces");
	for (int i = 0; names[i]; i++) {
		char path[64], target[128] = "";
		snprintf(path, sizeof path, "/proc/self/ns/%s", names[i]);
		if (readlink(path, target, sizeof target - 1) < 0)
			snprintf(target, sizeof target, "error %s", strerrorname_np(errno));
		printf("%s %s\n", names[i], target);
	}
}

int main(int count, char **words)
{
	char byte;
	/* buffered in one piece: a filter or a limit may stop the process at any line */
	static char buffer[1 << 18];
	setvbuf(stdout, buffer, _IOFBF, sizeof buffer);
	descriptors();
	signals();
	section("arguments");
	for (int i = 0; i < count; i++)
		printf("%d %s\n", i, words[i]);
	section("environment");
	for (char **entry = environ; *entry; entry++)
		printf("%s\n", *entry);
	file("/proc/self/status", "status");
	file("/proc/self/limits", "limits");
	file("/proc/self/mountinfo", "mounts");
	file("/proc/self/uid_map", "uid_map");
	file("/proc/self/gid_map", "gid_map");
	file("/proc/self/setgroups", "setgroups");
	file("/proc/self/oom_score_adj", "oom_score_adj");
	file("/proc/self/coredump_filter", "coredump_filter");
	file("/proc/self/timens_offsets", "timens_offsets");
	file("/proc/net/dev", "interfaces");
	namespaces();
	calls();
	keyring();
	section("nodes");
	nodes("/");
	nodes("/dev");
	nodes("/tmp");
	paths(count - 1, words + 1);
	section("end");
	fflush(stdout);
	/* the tester looks at the cgroups from outside, then lets us go */
	if (read(0, &byte, 1) < 0)
		return 9;
	return 7;
}
