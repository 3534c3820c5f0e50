/* Makes system calls and tells what became of each: static, for containers under a seccomp profile.
 *
 *   seccomp_probe [MODE] CALL...     a CALL is ENTRY:NUMBER[:ARG...]
 *
 * ENTRY: n the native one; on x86_64 also i int 0x80 (the kernel's 32-bit table) and x the native one with
 * the bit of x32.
 * Every call is made by a child of its own, which stays single unless MODE says otherwise:
 *
 *   (none)   "result N", "errno NAME" or "signal N"
 *   trap     with a handler for SIGSYS: "trapped NUMBER ARCH ERRNO CODE" and then the result
 *   thread   by a second thread: "thread gone" if only that one died
 *   trace    with a tracer: "traced DATA" and then the result, which the tracer sets to 77
 *   signal   with a handler for SIGUSR1 that does not restart calls
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

static char mode[16];
static long status_of_thread = -1;

static void say(const char *word, long value)
{
	char line[128];
	int length = snprintf(line, sizeof line, "%s %ld\n", word, value);
	if (write(1, line, length) != length)
		_exit(3);
}

static void tell(long result)
{
	char line[128];
	if (result < 0 && result > -4096) {
		const char *name = strerrorname_np(-result);
		int length = snprintf(line, sizeof line, "errno %s\n", name ? name : "?");
		if (write(1, line, length) != length)
			_exit(3);
	} else {
		say("result", result);
	}
}

static long make(const char *text)
{
	char entry = text[0], *rest;
	long number = strtol(text + 2, &rest, 0), arg[6] = {0}, result;
	for (int i = 0; i < 6 && *rest == ':'; i++)
		arg[i] = (long)strtoull(rest + 1, &rest, 0);
#ifdef __x86_64__
	if (entry == 'i') {
		/* the upper halves cannot be passed: 32-bit registers */
		int low;
		__asm__ volatile("int $0x80" : "=a"(low)
				 : "a"((int)number), "b"(arg[0]), "c"(arg[1]), "d"(arg[2]), "S"(arg[3]), "D"(arg[4])
				 : "memory", "r8", "r9", "r10", "r11");
		return low;
	}
	if (entry == 'x')
		number |= 0x40000000;
#endif
	(void)entry;
	result = syscall(number, arg[0], arg[1], arg[2], arg[3], arg[4], arg[5]);
	return result == -1 ? -errno : result;
}

static void trapped(int signal_number, siginfo_t *info, void *context)
{
	char line[128];
	int length = snprintf(line, sizeof line, "trapped %d %#x %d %d\n", info->si_syscall, info->si_arch,
			      info->si_errno, info->si_code);
	if (write(1, line, length) != length)
		_exit(3);
#ifdef __x86_64__
	((ucontext_t *)context)->uc_mcontext.gregs[REG_RAX] = -ETIME;
#else /* aarch64 */
	((ucontext_t *)context)->uc_mcontext.regs[0] = -ETIME;
#endif
	(void)signal_number;
}

static void nothing(int signal_number)
{
	(void)signal_number;
}

static void *thread(void *text)
{
	status_of_thread = make(text);
	return NULL;
}

static int child(char *text)
{
	if (!strcmp(mode, "trap")) {
		struct sigaction action = {.sa_sigaction = trapped, .sa_flags = SA_SIGINFO};
		sigaction(SIGSYS, &action, NULL);
	}
	if (!strcmp(mode, "signal")) {
		struct sigaction action = {.sa_handler = nothing};
		sigaction(SIGUSR1, &action, NULL);
	}
	if (!strcmp(mode, "thread")) {
		pthread_t other;
		pthread_create(&other, NULL, thread, text);
		pthread_join(other, NULL);
		if (status_of_thread == -1)
			puts("thread gone");
		else
			tell(status_of_thread);
		fflush(stdout);
		return 0;
	}
	if (!strcmp(mode, "trace")) {
		ptrace(PTRACE_TRACEME, 0, 0, 0);
		raise(SIGSTOP);
	}
	tell(make(text));
	return 0;
}

static void skip_call(pid_t pid, long result)
{
	struct user_regs_struct registers;
	struct iovec all = {&registers, sizeof registers};
	ptrace(PTRACE_GETREGSET, pid, NT_PRSTATUS, &all);
#ifdef __x86_64__
	registers.orig_rax = (unsigned long)-1;
	registers.rax = result;
#else /* aarch64 */
	int none = -1;
	struct iovec number = {&none, sizeof none};
	ptrace(PTRACE_SETREGSET, pid, NT_ARM_SYSTEM_CALL, &number);
	registers.regs[0] = result;
#endif
	ptrace(PTRACE_SETREGSET, pid, NT_PRSTATUS, &all);
}

static void trace(pid_t pid, int status)
{
	unsigned long data;
	if (WSTOPSIG(status) == SIGTRAP && status >> 8 == (SIGTRAP | PTRACE_EVENT_SECCOMP << 8)) {
		ptrace(PTRACE_GETEVENTMSG, pid, 0, &data);
		say("traced", (long)data);
		skip_call(pid, 77);
	} else if (WSTOPSIG(status) == SIGSTOP) {
		ptrace(PTRACE_SETOPTIONS, pid, 0, PTRACE_O_TRACESECCOMP);
	}
	ptrace(PTRACE_CONT, pid, 0, 0);
}

int main(int count, char **words)
{
	int first = 1;
	if (count > 1 && words[1][1] != ':')
		strncpy(mode, words[first++], sizeof mode - 1);
	for (int i = first; i < count; i++) {
		int status;
		pid_t pid = fork();
		if (!pid)
			_exit(child(words[i]));
		while (waitpid(pid, &status, 0) == pid && WIFSTOPPED(status))
			trace(pid, status);
		if (WIFSIGNALED(status))
			say("signal", WTERMSIG(status));
	}
	return 0;
}
