/* scarce: preloaded into a program of ours. As soon as the file $SCARCE exists, what stands in it comes to pass once: "N", the N-th allocation from then on fails; "random", there are no
 * random numbers any more. */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t count, size_t size);
extern void *__libc_realloc(void *old, size_t size);

static atomic_long left; /* 0: not seen yet; below: over */

static long look(char *text, size_t capacity)
{
	const char *path = getenv("SCARCE");
	int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
	ssize_t size = fd >= 0 ? read(fd, text, capacity - 1) : -1;
	if (fd >= 0)
		close(fd);
	text[size > 0 ? size : 0] = 0;
	return size > 0 ? atol(text) : 0;
}

static int fails(void)
{
	char text[32];
	if (left == 0) {
		long number = look(text, sizeof text), none = 0;
		if (number > 0)
			atomic_compare_exchange_strong(&left, &none, number + 1);
	}
	if (left <= 0)
		return 0;
	if (atomic_fetch_sub(&left, 1) != 2)
		return 0;
	left = -1;
	errno = ENOMEM;
	return 1;
}

void *malloc(size_t size) { return fails() ? NULL : __libc_malloc(size); }
void *calloc(size_t count, size_t size) { return fails() ? NULL : __libc_calloc(count, size); }
void *realloc(void *old, size_t size) { return fails() ? NULL : __libc_realloc(old, size); }

int RAND_bytes(unsigned char *data, int size)
{
	char text[32];
	look(text, sizeof text);
	if (strcmp(text, "random") == 0)
		return 0;
	for (int done = 0; done < size; done += size - done < 256 ? size - done : 256)
		if (getentropy(data + done, size - done < 256 ? size - done : 256) != 0)
			return 0;
	return 1;
}
