/* A file in memory, for what reads by name. */
#ifndef TESTS_FUZZ_MEMORY_FILE_H
#define TESTS_FUZZ_MEMORY_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* The name of a file that now holds this and nothing else; the same one every time. */
static const char *memory_file(const void *data, size_t size)
{
	static char name[32];
	static int fd = -1;
	if (fd < 0 && ((fd = memfd_create("fuzz", MFD_CLOEXEC)) < 0 || fchmod(fd, 0600) < 0 || snprintf(name, sizeof name, "/proc/self/fd/%d", fd) < 0))
		abort();
	if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		abort();
	return name;
}

#endif
