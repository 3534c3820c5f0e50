/* Who am I: asks the kernel by system calls and prints it, one "KEY VALUE..." a line; "stay" then waits. */
#define _GNU_SOURCE
#include <linux/capability.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
int main(int count, char **words)
{
	struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct data[2];
	unsigned long long bounding = 0, ambient = 0;
	unsigned ids[6];
	gid_t groups[64];
	syscall(SYS_capget, &header, data);
	for (int i = 0; i < 64; i++) {
		if (prctl(PR_CAPBSET_READ, i, 0, 0, 0) == 1)
			bounding |= 1ULL << i;
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
			ambient |= 1ULL << i;
	}
	getresuid(ids, ids + 1, ids + 2);
	getresgid(ids + 3, ids + 4, ids + 5);
	printf("bounding %llx\neffective %llx\npermitted %llx\ninheritable %llx\nambient %llx\n", bounding,
	       data[0].effective | (unsigned long long)data[1].effective << 32,
	       data[0].permitted | (unsigned long long)data[1].permitted << 32,
	       data[0].inheritable | (unsigned long long)data[1].inheritable << 32, ambient);
	printf("securebits %x\nnnp %d\nkeepcaps %d\ndumpable %d\n", prctl(PR_GET_SECUREBITS),
	       prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0), prctl(PR_GET_KEEPCAPS), prctl(PR_GET_DUMPABLE));
	printf("uids %u %u %u\ngids %u %u %u\ngroups", ids[0], ids[1], ids[2], ids[3], ids[4], ids[5]);
	for (int i = 0, n = getgroups(64, groups); i < n; i++)
		printf(" %u", groups[i]);
	puts("");
	fflush(stdout);
	if (count > 1 && !strcmp(words[1], "stay"))
		pause();
	return 0;
}
