/* What busybox cannot tell or do, for the tests: one verb a call, static, no library but libc.
 *
 *   probe syscall NAME|NUMBER [ARG...]   make one system call; print its result, or "-1 ERRNO"
 *   probe fds                            the open descriptors, one "NUMBER TARGET" a line
 *   probe signals                        ignored and blocked signals as this process has them
 *   probe sched                          policy, nice, rt priority, io class, io priority
 *   probe affinity                       the processors this process may use
 *   probe rlimits                        every limit: NUMBER SOFT HARD
 *   probe tty                            for 0, 1, 2: isatty, rows, columns; controlling session
 *   probe eat BYTES                      touch so much memory, print "eaten"
 *   probe forks COUNT                    fork so many sleeping children, print how many could be made
 *   probe dumpable                       PR_GET_DUMPABLE
 *   probe read PATH                      open and read one byte; print "ok" or "ERRNO"
 *   probe write PATH                     open for writing and write one byte; print "ok" or "ERRNO"
 *   probe open PATH r|w                  only open it; print "ok" or "ERRNO"
 *   probe environ                        the environment, one entry a line, in order
 *   probe lock PATH CMD...               lock a file (flock) and execute CMD with it open; "ERRNO" if somebody else has it
 *   probe connect SOCKET CMD...          connect a datagram socket to a path and execute CMD with it as descriptor 9
 *   probe clocks                         seconds of CLOCK_MONOTONIC and CLOCK_BOOTTIME
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
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static const struct { const char *name; long number; } calls[] = {
	{"getpid", SYS_getpid}, {"getcwd", SYS_getcwd}, {"getuid", SYS_getuid}, {"getgid", SYS_getgid},
	{"getppid", SYS_getppid}, {"personality", SYS_personality}, {"unshare", SYS_unshare},
	{"mount", SYS_mount}, {"umount2", SYS_umount2}, {"keyctl", SYS_keyctl}, {"add_key", SYS_add_key},
	{"setpriority", SYS_setpriority}, {"getpriority", SYS_getpriority}, {"mkdirat", SYS_mkdirat},
	{"sethostname", SYS_sethostname}, {"clone3", 435}, {"faccessat2", 439}, {"close_range", 436},
	{"get_mempolicy", SYS_get_mempolicy}, {"kcmp", SYS_kcmp}, {"sched_yield", SYS_sched_yield},
	{"umask", SYS_umask}, {"prctl", SYS_prctl}, {"socket", SYS_socket}, {"reboot", SYS_reboot},
	{"bpf", SYS_bpf}, {"ptrace", SYS_ptrace}, {"open_tree", 428}, {"getpgid", SYS_getpgid},
	{"lseek", SYS_lseek}, {"dup", SYS_dup}, {"getsid", SYS_getsid}, {"swapoff", SYS_swapoff},
};

static int do_syscall(int count, char **words)
{
	long arg[6] = {0}, number = -1, result;
	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!strcmp(calls[i].name, words[0]))
			number = calls[i].number;
	if (number < 0)
		number = strtol(words[0], NULL, 0);
	for (int i = 1; i < count && i < 7; i++)
		arg[i - 1] = words[i][0] == ':' ? (long)(words[i] + 1) : (long)strtoull(words[i], NULL, 0);
	errno = 0;
	result = syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	if (result < 0)
		printf("-1 %s\n", strerrorname_np(errno));
	else
		printf("%ld\n", result);
	return 0;
}

static int do_fds(void)
{
	DIR *directory = opendir("/proc/self/fd");
	struct dirent *entry;
	if (!directory)
		return 1;
	while ((entry = readdir(directory))) {
		char path[300], target[4096];
		ssize_t length;
		if (entry->d_name[0] == '.' || atoi(entry->d_name) == dirfd(directory))
			continue;
		snprintf(path, sizeof path, "/proc/self/fd/%s", entry->d_name);
		length = readlink(path, target, sizeof target - 1);
		printf("%s %.*s\n", entry->d_name, length < 0 ? 0 : (int)length, target);
	}
	return 0;
}

static int do_signals(void)
{
	sigset_t mask;
	sigprocmask(SIG_SETMASK, NULL, &mask);
	for (int number = 1; number < 65; number++) {
		struct sigaction action;
		if (!sigaction(number, NULL, &action) && action.sa_handler == SIG_IGN)
			printf("ignored %d\n", number);
		if (sigismember(&mask, number) == 1)
			printf("blocked %d\n", number);
	}
	return 0;
}

static int do_sched(void)
{
	struct sched_param parameter;
	long io = syscall(SYS_ioprio_get, 1, 0);
	sched_getparam(0, &parameter);
	errno = 0;
	printf("policy %d nice %d priority %d io-class %ld io-priority %ld\n", sched_getscheduler(0),
	       getpriority(PRIO_PROCESS, 0), parameter.sched_priority, io >> 13, io & 0x1fff);
	return 0;
}

static int do_affinity(void)
{
	cpu_set_t set;
	sched_getaffinity(0, sizeof set, &set);
	for (int cpu = 0; cpu < CPU_SETSIZE; cpu++)
		if (CPU_ISSET(cpu, &set))
			printf("%d\n", cpu);
	return 0;
}

static int do_rlimits(void)
{
	for (int number = 0; number < 16; number++) {
		struct rlimit limit;
		getrlimit(number, &limit);
		printf("%d %llu %llu\n", number, (unsigned long long)limit.rlim_cur,
		       (unsigned long long)limit.rlim_max);
	}
	return 0;
}

static int do_tty(void)
{
	for (int fd = 0; fd < 3; fd++) {
		struct winsize size = {0};
		ioctl(fd, TIOCGWINSZ, &size);
		printf("%d tty %d rows %d columns %d\n", fd, isatty(fd), size.ws_row, size.ws_col);
	}
	printf("session %d of %d\n", tcgetsid(0), getsid(0));
	return 0;
}

static int do_eat(const char *bytes)
{
	size_t size = strtoull(bytes, NULL, 0);
	char *memory = malloc(size);
	if (!memory)
		return 1;
	memset(memory, 1, size);
	printf("eaten %d\n", memory[size - 1]);
	return 0;
}

static int do_forks(int count)
{
	int made = 0;
	pid_t pids[1024];
	while (made < count && made < 1024) {
		pid_t pid = fork();
		if (pid < 0)
			break;
		if (pid == 0) {
			pause();
			_exit(0);
		}
		pids[made++] = pid;
	}
	printf("%d\n", made);
	for (int i = 0; i < made; i++) {
		kill(pids[i], SIGKILL);
		waitpid(pids[i], NULL, 0);
	}
	return 0;
}

static int do_open(const char *path, int flags)
{
	char byte = 'x';
	int fd = open(path, flags | O_NONBLOCK);
	ssize_t done;
	if (fd < 0) {
		puts(strerrorname_np(errno));
		return 0;
	}
	done = flags == O_WRONLY ? write(fd, &byte, 1) : read(fd, &byte, 1);
	puts(done < 0 ? strerrorname_np(errno) : done == 0 ? "eof" : "ok");
	return 0;
}

static int do_lock(const char *path, char **command)
{
	int fd = open(path, O_RDWR | O_CREAT, 0600);
	if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB)) {
		puts(strerrorname_np(errno));
		return 0;
	}
	execv(command[0], command);
	return 3;
}

static int do_connect(const char *path, char **command)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
	strncpy(address.sun_path, path, sizeof address.sun_path - 1);
	if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof address) || dup2(fd, 9) < 0)
		return 3;
	close(fd);
	execv(command[0], command);
	return 3;
}

static int do_clocks(void)
{
	struct timespec monotonic, boottime;
	clock_gettime(CLOCK_MONOTONIC, &monotonic);
	clock_gettime(CLOCK_BOOTTIME, &boottime);
	printf("%lld %lld\n", (long long)monotonic.tv_sec, (long long)boottime.tv_sec);
	return 0;
}

int main(int argc, char **argv, char **environ)
{
	const char *verb = argc > 1 ? argv[1] : "";
	if (!strcmp(verb, "syscall") && argc > 2)
		return do_syscall(argc - 2, argv + 2);
	if (!strcmp(verb, "fds"))
		return do_fds();
	if (!strcmp(verb, "signals"))
		return do_signals();
	if (!strcmp(verb, "sched"))
		return do_sched();
	if (!strcmp(verb, "affinity"))
		return do_affinity();
	if (!strcmp(verb, "rlimits"))
		return do_rlimits();
	if (!strcmp(verb, "tty"))
		return do_tty();
	if (!strcmp(verb, "eat") && argc > 2)
		return do_eat(argv[2]);
	if (!strcmp(verb, "forks") && argc > 2)
		return do_forks(atoi(argv[2]));
	if (!strcmp(verb, "read") && argc > 2)
		return do_open(argv[2], O_RDONLY);
	if (!strcmp(verb, "write") && argc > 2)
		return do_open(argv[2], O_WRONLY);
	if (!strcmp(verb, "open") && argc > 3) {
		int fd = open(argv[2], (*argv[3] == 'w' ? O_WRONLY : O_RDONLY) | O_NONBLOCK);
		puts(fd < 0 ? strerrorname_np(errno) : "ok");
		return 0;
	}
	if (!strcmp(verb, "lock") && argc > 3)
		return do_lock(argv[2], argv + 3);
	if (!strcmp(verb, "connect") && argc > 3)
		return do_connect(argv[2], argv + 3);
	if (!strcmp(verb, "clocks"))
		return do_clocks();
	if (!strcmp(verb, "dumpable")) {
		printf("%d\n", prctl(PR_GET_DUMPABLE));
		return 0;
	}
	if (!strcmp(verb, "environ")) {
		for (; *environ; environ++)
			puts(*environ);
		return 0;
	}
	return 2;
}
