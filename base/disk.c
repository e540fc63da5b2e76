#include "base/disk.h"

#include <errno.h>
#include <stddef.h>

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
