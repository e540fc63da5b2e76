#include "base/disk.h"

#include <errno.h>
#include <libgen.h>
#include <limits.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/statvfs.h>

#define LITTLE 1048576

const char *disk_advice(int error)
{
	static const struct {
		int error;
		const char *text;
	} rows[] = {
		{ ENOSPC, ": the file system is full: make room on it" },
		{ EDQUOT, ": the user's quota is used up: make room, or raise it" },
		{ EROFS, ": the file system is mounted read-only: mount it for writing" },
		{ EIO, ": the disk does not take what is written: look into the kernel's log" },
	};
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
		if (rows[i].error == error)
			return rows[i].text;
	return "";
}

void disk_describe(const char *path, char *text, size_t capacity)
{
	struct statvfs facts;
	char folder[PATH_MAX];
	text[0] = 0;
	snprintf(folder, sizeof folder, "%s", path);
	const char *where = dirname(folder);
	if (statvfs(where, &facts) != 0)
		return;
	uint64_t left = (uint64_t)facts.f_bavail * facts.f_frsize;
	if (facts.f_flag & ST_RDONLY)
		snprintf(text, capacity, ": the file system of %s is mounted read-only: mount it for writing", where);
	else if (left < LITTLE)
		snprintf(text, capacity, ": the file system of %s is full (%llu KiB are left): make room on it", where, (unsigned long long)(left / 1024));
	else if (facts.f_files > 0 && facts.f_favail == 0)
		snprintf(text, capacity, ": the file system of %s has no inodes left: remove files from it", where);
}
