/* What a hostile program does, for the tests: one verb a call, static, no library but libc.
 *
 *   attack scan CANARY        look into all other processes until /tmp/stop exists, then tell what was seen
 *   attack swap A B           exchange two names for ever
 *   attack type TEXT          push the text into the input of the terminal at descriptor 0
 *   attack enter32 DIRECTORY  mkdir(2) by the 32-bit entry of the kernel
 *   attack enterx32 DIRECTORY mkdir(2) by its x32 number
 *   attack dir DIRECTORY      mkdir(2) as everybody does it
 *   attack queue NUMBER       send a signal to process 1, from nobody
 *   attack personality A B    personality(2) with all 64 bits of A, and a second argument
 *   attack abstract           the names of abstract sockets, one a line
 *   attack watch PATH         what other processes may do and hold until /tmp/stop exists, a line for each sight;
 *                             and whether PATH is read through the root or the directory of one
 *   attack signal NUMBER      send it to all other processes that are not of the image, for ever
 *   attack leave              go on in a second thread, while the first one ends
 *   attack silent PATH        a file system that never answers (FUSE)
 *   attack threads PATH       go on in two threads, and make a directory once they are there
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static long exes, memories, fds, escapes;
static char example[512];

static void try_way_out(const char *way, const char *canary)
{
	char up[1000], name[400], *base;
	ssize_t size = readlink(way, name, sizeof name - 1);
	int fd;

	if (size < 0)
		return;
	name[size] = 0;
	snprintf(up, sizeof up, "%s/../../../../../../../../../../../../..%s", way, canary);
	if (!access(up, F_OK)) {
		escapes++;
		printf("escape by %s -> %s\n", way, name);
	}
	/* The runtime itself, if it can be opened anew for writing. */
	base = strrchr(name, '/') ? strrchr(name, '/') + 1 : name;
	if (!strncmp(base, "anocir", 6) || !strncmp(base, "altered", 7) || !strncmp(base, "python", 6))
		if ((fd = open(way, O_WRONLY)) >= 0) {
			close(fd);
			escapes++;
			printf("escape by writing to %s -> %s\n", way, name);
		}
}

static void look_into(const char *pid, const char *canary)
{
	char path[600], target[400], up[700];
	DIR *directory;
	struct dirent *entry;
	ssize_t size;
	int fd;

	snprintf(path, sizeof path, "/proc/%s/exe", pid);
	size = readlink(path, target, sizeof target - 1);
	target[size > 0 ? size : 0] = 0;
	if (!strncmp(target, "/bin/", 5))
		return; /* a program of the image */
	if (size > 0) {
		if (!exes++)
			printf("sees an exe: %s\n", target);
		snprintf(example, sizeof example, "%s", target);
	}
	snprintf(up, sizeof up, "/proc/%s/mem", pid);
	if (size > 0 && (fd = open(up, O_RDWR)) >= 0) {
		if (!memories++)
			printf("opens a memory: %s\n", target);
		close(fd);
	}
	snprintf(up, sizeof up, "/proc/%s/fd", pid);
	if (!(directory = opendir(up)))
		return;
	while ((entry = readdir(directory))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(up, sizeof up, "/proc/%s/fd/%s", pid, entry->d_name);
		if (readlink(up, target, sizeof target) >= 0) {
			/* It may have become a program of the image meanwhile, and ended. */
			size = readlink(path, target, sizeof target - 1);
			target[size > 0 ? size : 0] = 0;
			if (size <= 0 || !strncmp(target, "/bin/", 5))
				break;
			fds++; /* the numbers alone can be listed by every root */
		}
		snprintf(up, sizeof up, "/proc/%s/fd/%s", pid, entry->d_name);
		try_way_out(up, canary);
	}
	closedir(directory);
	snprintf(up, sizeof up, "/proc/%s/cwd", pid);
	try_way_out(up, canary);
	snprintf(up, sizeof up, "/proc/%s/root", pid);
	try_way_out(up, canary);
}

static int scan(const char *canary)
{
	puts("ready");
	fflush(stdout);
	while (access("/tmp/stop", F_OK)) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		if (!proc)
			return 1;
		while ((entry = readdir(proc)))
			if (atoi(entry->d_name) > 1)
				look_into(entry->d_name, canary);
		closedir(proc);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	printf("exes %ld memories %ld fds %ld escapes %ld %s end\n", exes, memories, fds, escapes,
	       example);
	return 0;
}

static char seen[400][400];
static int sights;

static void sight(const char *line)
{
	for (int i = 0; i < sights; i++)
		if (!strcmp(seen[i], line))
			return;
	if (sights < 400)
		snprintf(seen[sights++], sizeof seen[0], "%s", line);
	puts(line);
}

/* Whether it is one of the runtime's: no program of the image is called so. */
static int foreign(const char *pid, char *text, size_t size)
{
	char path[300], target[300];
	ssize_t got;
	int fd;

	snprintf(path, sizeof path, "/proc/%s/exe", pid);
	got = readlink(path, target, sizeof target - 1);
	target[got > 0 ? got : 0] = 0;
	if (got <= 0 || !strncmp(target, "/bin/", 5))
		return 0;
	snprintf(path, sizeof path, "/proc/%s/status", pid);
	if ((fd = open(path, O_RDONLY)) < 0)
		return 0;
	got = read(fd, text, size - 1);
	close(fd);
	text[got > 0 ? got : 0] = 0;
	return got > 0;
}

static void field(const char *text, const char *name, char *line)
{
	const char *at = strstr(text, name);
	size_t used = strlen(line), size = at ? strcspn(at, "\n") : 0;

	if (!at || used + size + 2 > 390)
		return;
	for (const char *from = at; from < at + size; from++)
		line[used++] = *from == '\t' ? ' ' : *from;
	line[used++] = ' ';
	line[used] = 0;
}

static void watch_one(const char *pid, const char *canary)
{
	static const char *const FIELDS[] = {"Uid:", "Gid:", "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:",
					     "NoNewPrivs:", "Seccomp:"};
	static const char *const WAYS[] = {"root", "cwd"};
	char text[4096], line[400] = "rights ", path[600], target[300], byte;
	DIR *directory;
	struct dirent *entry;
	ssize_t size;
	int fd;

	if (!foreign(pid, text, sizeof text))
		return;
	for (size_t i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++)
		field(text, FIELDS[i], line);
	for (int i = 0; i < 2; i++) {
		snprintf(path, sizeof path, "/proc/%s/%s%s", pid, WAYS[i], canary);
		if ((fd = open(path, O_RDONLY)) >= 0) {
			if (read(fd, &byte, 1) == 1)
				sight(i ? "reads the host by cwd" : "reads the host by root");
			close(fd);
		}
	}
	snprintf(path, sizeof path, "/proc/%s/fd", pid);
	if ((directory = opendir(path))) {
		while ((entry = readdir(directory))) {
			snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
			size = readlink(path, target, sizeof target - 1);
			if (size <= 0 || atoi(entry->d_name) < 3)
				continue;
			target[size] = 0;
			target[strcspn(target, "[")] = 0;
			snprintf(path, sizeof path, "holds %s", target);
			if (foreign(pid, text, sizeof text)) /* still */
				sight(path);
		}
		closedir(directory);
	}
	if (foreign(pid, text, sizeof text))
		sight(line);
}

static int for_all(const char *canary, int number)
{
	puts("ready");
	fflush(stdout);
	while (access("/tmp/stop", F_OK)) {
		DIR *proc = opendir("/proc");
		struct dirent *entry;
		char text[4096];
		if (!proc)
			return 1;
		while ((entry = readdir(proc)))
			if (atoi(entry->d_name) > 1 && atoi(entry->d_name) != getpid()) {
				if (canary)
					watch_one(entry->d_name, canary);
				else if (foreign(entry->d_name, text, sizeof text))
					kill(atoi(entry->d_name), number);
			}
		closedir(proc);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	puts("end");
	return 0;
}

static void *stay(void *unused)
{
	for (;;)
		sleep(1);
	return unused;
}

static int leave(void)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, stay, NULL))
		return 1;
	puts("gone");
	fflush(stdout);
	syscall(SYS_exit, 0);
	return 1;
}

static int threads(const char *path)
{
	pthread_t thread;
	if (pthread_create(&thread, NULL, stay, NULL) || mkdir(path, 0755))
		return 1;
	stay(NULL);
	return 1;
}

static int silent(const char *path)
{
	char options[80];
	int fd = open("/dev/fuse", O_RDWR);
	snprintf(options, sizeof options, "fd=%d,rootmode=40000,user_id=0,group_id=0", fd);
	if (mkdir(path, 0755) || mount("silent", path, "fuse", 0, options))
		return 1;
	puts("mounted");
	stay(NULL);
	return 1;
}

static int swap(const char *a, const char *b)
{
	for (;;)
		if (renameat2(AT_FDCWD, a, AT_FDCWD, b, RENAME_EXCHANGE))
			return 1;
}

static int type(const char *text)
{
	for (; *text; text++)
		if (ioctl(0, TIOCSTI, text)) {
			puts(strerrorname_np(errno));
			return 0;
		}
	puts("typed");
	return 0;
}

static int answer(long result)
{
	puts(result < 0 ? strerrorname_np((int)-result) : "done");
	return 0;
}

static int enter32(const char *directory)
{
#ifdef __x86_64__
	long result;
	/* The 32-bit entry takes 32-bit addresses. */
	char *low = (char *)0x10000000;
	extern void *mmap(void *, size_t, int, int, int, off_t);
	if (mmap(low, 4096, 3, 0x22 | 0x10, -1, 0) != low)
		return 1;
	strncpy(low, directory, 4095);
	__asm__ volatile("int $0x80" : "=a"(result) : "a"(39L), "b"(low), "c"(0755L) : "memory", "r8", "r9", "r10", "r11");
	return answer((int)result);
#else
	return answer(-ENOSYS);
#endif
}

static long raw(long number, long a, long b)
{
	long result = syscall(number, a, b);
	return result < 0 ? -errno : result;
}

/* The sender of a queued signal says himself who he is: here nobody, as one outside of the namespace would be. */
static int queue(int number)
{
	siginfo_t told;
	memset(&told, 0, sizeof told);
	told.si_signo = number;
	told.si_code = SI_QUEUE;
	return syscall(SYS_rt_sigqueueinfo, 1, number, &told) ? errno : 0;
}

static int abstract(void)
{
	char line[1024];
	FILE *file = fopen("/proc/net/unix", "r");
	if (!file)
		return 1;
	while (fgets(line, sizeof line, file))
		if (strchr(line, '@'))
			fputs(strchr(line, '@'), stdout);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "";
	alarm(900); /* nothing here may outlive its test for long */
	setvbuf(stdout, NULL, _IOLBF, 0); /* what was seen is read at once */
	if (!strcmp(verb, "scan") && argc > 2)
		return scan(argv[2]);
	if (!strcmp(verb, "swap") && argc > 3)
		return swap(argv[2], argv[3]);
	if (!strcmp(verb, "type") && argc > 2)
		return type(argv[2]);
	if (!strcmp(verb, "enter32") && argc > 2)
		return enter32(argv[2]);
	if (!strcmp(verb, "enterx32") && argc > 2)
		return answer(raw(0x40000000L | 83, (long)argv[2], 0755));
	if (!strcmp(verb, "dir") && argc > 2)
		return answer(raw(SYS_mkdirat == 34 ? 34 : 83, SYS_mkdirat == 34 ? AT_FDCWD : (long)argv[2],
				  SYS_mkdirat == 34 ? (long)argv[2] : 0755));
	if (!strcmp(verb, "personality") && argc > 3)
		return answer(raw(SYS_personality, strtoull(argv[2], NULL, 0), strtoull(argv[3], NULL, 0)));
	if (!strcmp(verb, "watch") && argc > 2)
		return for_all(argv[2], 0);
	if (!strcmp(verb, "signal") && argc > 2)
		return for_all(NULL, atoi(argv[2]));
	if (!strcmp(verb, "queue") && argc > 2)
		return queue(atoi(argv[2]));
	if (!strcmp(verb, "leave"))
		return leave();
	if (!strcmp(verb, "silent") && argc > 2)
		return silent(argv[2]);
	if (!strcmp(verb, "threads") && argc > 2)
		return threads(argv[2]);
	if (!strcmp(verb, "abstract"))
		return abstract();
	return 2;
}
