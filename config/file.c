#include "config/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/secret.h"

static const char *reason(int error)
{
	return error == ENOENT ? "does not exist: make it, or correct the path" : error == EACCES ? "cannot be read: let the agent's user read it, and enter its folders" : strerror(error);
}

static bool open_plain(const char *path, int *ret_fd, struct stat *ret_facts, char *why, size_t capacity)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0) {
		snprintf(why, capacity, "%s %s", path, reason(errno));
		return false;
	}
	if (fstat(fd, ret_facts) == 0 && S_ISREG(ret_facts->st_mode)) {
		*ret_fd = fd;
		return true;
	}
	snprintf(why, capacity, "%s is %s, not a file", path, S_ISDIR(ret_facts->st_mode) ? "a folder" : "a device, a pipe or a socket");
	close(fd);
	return false;
}

bool file_plain_fault(const char *path, char *why, size_t capacity)
{
	struct stat facts = { 0 };
	int fd;
	if (!open_plain(path, &fd, &facts, why, capacity))
		return true;
	close(fd);
	return false;
}

static const char *content_fault(const char *path, const struct stat *facts)
{
	AUTO_SECRET struct secret secret = SECRET_EMPTY;
	if (facts->st_size == 0)
		return "is empty: it should hold one line";
	if (facts->st_size > 4097)
		return "is too long: it should hold one line of at most 4096 bytes";
	enum status status = secret_read_file(path, &secret);
	if (status == STATUS_LOCAL_INPUT)
		return "should hold one line that is not empty, and nothing else";
	return status == STATUS_OK ? NULL : "cannot be read";
}

static bool closed_file_fault(const char *path, const char *(*judge)(const char *path, const struct stat *facts), char *why, size_t capacity)
{
	struct stat facts = { 0 };
	int fd;
	if (!open_plain(path, &fd, &facts, why, capacity))
		return true;
	close(fd);
	const char *fault = facts.st_mode & S_IRWXO   ? "is open to everybody: it should have mode 0640 or 0600"
	                    : facts.st_mode & S_IWGRP ? "can be written by its group: it should have mode 0640 or 0600"
	                                              : judge(path, &facts);
	if (fault)
		snprintf(why, capacity, "%s %s (its mode is %04o)", path, fault, (unsigned)(facts.st_mode & 07777));
	return fault != NULL;
}

bool file_secret_fault(const char *path, char *why, size_t capacity)
{
	return closed_file_fault(path, content_fault, why, capacity);
}

static const char *empty_fault(const char *path, const struct stat *facts)
{
	return facts->st_size == 0 ? "is empty" : NULL;
}

bool file_private_fault(const char *path, char *why, size_t capacity)
{
	return closed_file_fault(path, empty_fault, why, capacity);
}

static bool may(const struct file_reader *reader, const struct stat *facts, mode_t owner, mode_t group, mode_t others)
{
	return reader->uid == 0 || (facts->st_mode & (facts->st_uid == reader->uid ? owner : facts->st_gid == reader->gid ? group : others)) != 0;
}

bool file_reader_fault(const char *path, const struct file_reader *reader, char *why, size_t capacity)
{
	char part[4096];
	struct stat facts;
	if (!reader || stat(path, &facts) != 0)
		return false;
	if (facts.st_uid != 0 && facts.st_uid != reader->uid) {
		snprintf(why, capacity, "%s belongs to user %u, who could change it: it should belong to root or %s", path, (unsigned)facts.st_uid, reader->name);
		return true;
	}
	if (!may(reader, &facts, S_IRUSR, S_IRGRP, S_IROTH)) {
		snprintf(why, capacity, "%s cannot be read by %s: chown root:%s and chmod 0640", path, reader->name, reader->name);
		return true;
	}
	for (const char *slash = strchr(path + 1, '/'); slash && (size_t)(slash - path) < sizeof part; slash = strchr(slash + 1, '/')) {
		snprintf(part, sizeof part, "%.*s", (int)(slash - path), path);
		if (stat(part, &facts) == 0 && !may(reader, &facts, S_IXUSR, S_IXGRP, S_IXOTH)) {
			snprintf(why, capacity, "%s cannot be reached by %s: the folder %s is closed to it", path, reader->name, part);
			return true;
		}
	}
	return false;
}
