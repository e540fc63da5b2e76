/* preload: faults of the machine for a program under test. LD_PRELOAD this, and name a file of three 64-bit numbers in $PRELOAD_CONTROL; the test writes them while the program runs:
 *   [0] milliseconds that the wall clock is ahead (the monotonic clock goes on)   [1] not 0: fsync fails with EIO, after so many milliseconds   [2] not 0: writing to files of the journal fails with ENOSPC */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int fdatasync(int fd);

static const volatile int64_t none[3];
static const volatile int64_t *numbers = none;

__attribute__((constructor)) static void start(void)
{
	const char *path = getenv("PRELOAD_CONTROL");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	void *map = fd >= 0 ? mmap(NULL, sizeof none, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
	if (fd >= 0)
		close(fd);
	if (map != MAP_FAILED)
		numbers = map;
}

int clock_gettime(clockid_t clock, struct timespec *out)
{
	int result = (int)syscall(SYS_clock_gettime, clock, out);
	if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
		int64_t ns = out->tv_nsec + numbers[0] % 1000 * 1000000;
		out->tv_sec += numbers[0] / 1000 + (ns >= 1000000000) - (ns < 0);
		out->tv_nsec = (ns + 1000000000) % 1000000000;
	}
	return result;
}

time_t time(time_t *out)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	if (out)
		*out = now.tv_sec;
	return now.tv_sec;
}

int gettimeofday(struct timeval *restrict out, void *restrict zone)
{
	struct timespec now;
	clock_gettime(CLOCK_REALTIME, &now);
	*out = (struct timeval){ now.tv_sec, now.tv_nsec / 1000 };
	return 0;
}

static int fail(int number)
{
	errno = number;
	return -1;
}

static int sync_by(long call, int fd)
{
	if (!numbers[1])
		return (int)syscall(call, fd);
	usleep((useconds_t)numbers[1] * 1000);
	return fail(EIO);
}

int fsync(int fd) { return sync_by(SYS_fsync, fd); }
int fdatasync(int fd) { return sync_by(SYS_fdatasync, fd); }

static int is_of_journal(int fd)
{
	char link[64], path[512];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	ssize_t size = readlink(link, path, sizeof path - 1);
	path[size > 0 ? size : 0] = '\0';
	return strstr(path, "/journal.db") != NULL;
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
	return numbers[2] && is_of_journal(fd) ? fail(ENOSPC) : syscall(SYS_pwrite64, fd, data, size, offset);
}
