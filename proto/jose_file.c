/* Key files: apart from the rest because only this does I/O. */
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/jose.h"

enum status jose_key_load(const char *path, enum jose_use use, struct jose_key **ret_key)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;

	*ret_key = NULL;
	enum status status = secret_read_file(path, &text);
	if (status != STATUS_OK)
		return status;
	json_t *jwk = jose_json_parse(secret_bytes(&text));
	if (!jwk)
		return STATUS_LOCAL_INPUT;
	status = jose_key_from_jwk(jwk, use, true, ret_key);
	json_decref(jwk);
	return status;
}

static bool write_all(int fd, struct bytes bytes)
{
	while (bytes.size > 0) {
		ssize_t written = write(fd, bytes.data, bytes.size);

		if (written < 0)
			return false;
		bytes = bytes_of(bytes.data + written, bytes.size - (size_t)written);
	}
	return true;
}

static bool write_new(const char *path, struct bytes text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0)
		return false;
	bool good = write_all(fd, text) && write_all(fd, bytes_of("\n", 1)) && fsync(fd) == 0;
	return close(fd) == 0 && good;
}

/* A rename is on disk only once its directory is. */
static bool sync_folder(const char *path)
{
	char folder[PATH_MAX];

	snprintf(folder, sizeof(folder), "%s", path);
	int fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return false;
	bool good = fsync(fd) == 0;
	close(fd);
	return good;
}

enum status jose_file_write(const char *path, struct bytes text)
{
	char temporary[PATH_MAX];

	if (snprintf(temporary, sizeof(temporary), "%s.new", path) >= (int)sizeof(temporary))
		return STATUS_LOCAL_INPUT;
	unlink(temporary); /* left over by a crash */
	if (write_new(temporary, text) && rename(temporary, path) == 0 && sync_folder(path))
		return STATUS_OK;
	int error = errno;
	unlink(temporary);
	errno = error;
	return STATUS_LOCAL_SYSTEM;
}

enum status jose_key_store(const struct jose_key *key, const char *path)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	enum status status = jose_key_private_jwk(key, &text);

	return status == STATUS_OK ? jose_file_write(path, secret_bytes(&text)) : status;
}
