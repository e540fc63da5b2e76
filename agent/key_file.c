#include "agent/key_file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/disk.h"
#include "base/log.h"

#define CURE "restore it, or revoke this agent at the service, move identity.json away and enroll again"

static const char *const USES[] = { [JOSE_SIGN] = "signing", [JOSE_DECRYPT] = "decryption" };

/* The key to wrap with --------------------------------------------------------------------------------------------------------------- */

/* Not secret_read_file: these are 32 bytes of anything, and a line feed at the end is one of them. */
enum status key_file_read_wrap(const char *path, struct secret *ret_wrap_key, char *why, size_t capacity)
{
	struct stat facts;
	*ret_wrap_key = SECRET_EMPTY;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		snprintf(why, capacity, "keys.wrap_key_file: %s: %s", path, strerror(errno));
		return STATUS_LOCAL_CONFIG;
	}
	bool owned = fstat(fd, &facts) == 0 && S_ISREG(facts.st_mode) && (facts.st_uid == geteuid() || facts.st_uid == 0) && (facts.st_mode & 027) == 0;
	if (!owned)
		snprintf(why, capacity, "keys.wrap_key_file: %s must be a regular file of the agent's user or root with mode 0400, 0440, 0600 or 0640", path);
	else if (facts.st_size != JOSE_WRAP_KEY)
		snprintf(why, capacity, "keys.wrap_key_file: %s must hold exactly 32 bytes, it has %lld: head -c 32 /dev/urandom", path, (long long)facts.st_size);
	bool good = owned && facts.st_size == JOSE_WRAP_KEY && secret_new(JOSE_WRAP_KEY, ret_wrap_key) == STATUS_OK;
	if (good && read(fd, ret_wrap_key->data, JOSE_WRAP_KEY) != JOSE_WRAP_KEY) {
		snprintf(why, capacity, "keys.wrap_key_file: %s cannot be read", path);
		secret_wipe(ret_wrap_key);
		good = false;
	}
	close(fd);
	if (good)
		ret_wrap_key->size = JOSE_WRAP_KEY;
	return good ? STATUS_OK : STATUS_LOCAL_CONFIG;
}

/* Writing ---------------------------------------------------------------------------------------------------------------------------- */

static void overwrite(int fd)
{
	static const char zeros[4096];
	struct stat facts;
	if (fd < 0)
		return;
	for (off_t at = 0; fstat(fd, &facts) == 0 && at < facts.st_size; at += sizeof zeros)
		if (pwrite(fd, zeros, facts.st_size - at < (off_t)sizeof zeros ? (size_t)(facts.st_size - at) : sizeof zeros, at) < 0)
			break;
	(void)fsync(fd);
	close(fd);
}

static int open_to_overwrite(const char *path)
{
	return open(path, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
}

static void path_of(const char *folder, enum jose_use use, const char *kid, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/%s.%s.jwk", folder, USES[use], kid);
}

enum status key_file_prepare(const char *folder, const struct jose_key *key, const struct secret *wrap_key, struct key_file *ret_file)
{
	char path[PATH_MAX];
	AUTO_FREE char *jwe = NULL;
	enum status status;
	path_of(folder, jose_key_use(key), jose_key_id(key), path);
	*ret_file = (struct key_file){ .path = strdup(path) };
	if (wrap_key->size == 0)
		status = jose_key_private_jwk(key, &ret_file->text);
	else if ((status = jose_key_wrap(key, wrap_key, &jwe)) == STATUS_OK)
		status = secret_from(bytes_of_string(jwe), &ret_file->text);
	if (status == STATUS_OK && ret_file->path)
		return STATUS_OK;
	key_file_clear(ret_file);
	return STATUS_AGENT_INTERNAL;
}

enum status key_file_write(const struct key_file *file)
{
	return file->path ? jose_file_write(file->path, secret_bytes(&file->text)) : STATUS_OK;
}

void key_file_clear(struct key_file *file)
{
	free(file->path);
	file->path = NULL;
	secret_wipe(&file->text);
}

static bool is_kept(const char *name, const char *const *kids, size_t count)
{
	char path[PATH_MAX];
	for (size_t i = 0; i < count; i++)
		for (enum jose_use use = JOSE_SIGN; kids[i] && use <= JOSE_DECRYPT; use++) {
			path_of("", use, kids[i], path);
			if (strcmp(path + 1, name) == 0)
				return true;
		}
	return false;
}

/* Also what a crash left of one that was being written (….jwk.new), and an older version's files. */
static bool is_key_file(const char *name)
{
	for (enum jose_use use = JOSE_SIGN; use <= JOSE_DECRYPT; use++)
		if (strncmp(name, USES[use], strlen(USES[use])) == 0 && name[strlen(USES[use])] == '.' && strstr(name, ".jwk"))
			return true;
	return false;
}

bool key_file_any(const char *folder, char *ret_name, size_t capacity)
{
	DIR *listing = opendir(folder);
	const struct dirent *entry;
	bool found = false;
	while (listing && !found && (entry = readdir(listing))) {
		size_t size = strlen(entry->d_name);
		found = is_key_file(entry->d_name) && size > 4 && strcmp(entry->d_name + size - 4, ".jwk") == 0;
		if (found)
			snprintf(ret_name, capacity, "%s", entry->d_name);
	}
	if (listing)
		closedir(listing);
	return found;
}

void key_file_keep_only(const char *folder, const char *const *kids, size_t count)
{
	DIR *listing = opendir(folder);
	const struct dirent *entry;
	while (listing && (entry = readdir(listing))) {
		char path[PATH_MAX];
		if (!is_key_file(entry->d_name) || is_kept(entry->d_name, kids, count) || snprintf(path, sizeof path, "%s/%s", folder, entry->d_name) >= (int)sizeof path)
			continue;
		overwrite(open_to_overwrite(path));
		unlink(path);
	}
	if (listing)
		closedir(listing);
}

/* Reading ---------------------------------------------------------------------------------------------------------------------------- */

static enum status read_plain(const char *path, struct bytes text, enum jose_use use, struct jose_key **ret_key, char *why, size_t capacity)
{
	json_t *jwk = jose_json_parse(text);
	enum status status = jwk ? jose_key_from_jwk(jwk, use, true, ret_key) : STATUS_LOCAL_INPUT;
	json_decref(jwk);
	if (status != STATUS_OK)
		snprintf(why, capacity, "%s is damaged: it holds no private %s key as a JWK; " CURE, path, USES[use]);
	return status;
}

static enum status read_wrapped(const char *path, struct bytes text, enum jose_use use, const struct secret *wrap_key, struct jose_key **ret_key, char *why, size_t capacity)
{
	static const char jwe[] = "eyJ"; /* what a header's base64url begins with */
	if (wrap_key->size == 0 && (text.size < strlen(jwe) || memcmp(text.data, jwe, strlen(jwe)) != 0)) {
		snprintf(why, capacity, "%s is damaged: it is neither a JWK nor a wrapped one; " CURE, path);
		return STATUS_LOCAL_INPUT;
	}
	if (wrap_key->size == 0) {
		snprintf(why, capacity, "%s is wrapped, and there is no key to unwrap it: name the file that holds it as keys.wrap_key_file", path);
		return STATUS_LOCAL_CONFIG;
	}
	enum jose_reason reason = jose_key_unwrap(text, wrap_key, use, ret_key);
	if (reason == JOSE_OK)
		return STATUS_OK;
	if (reason == JOSE_DECRYPTION) {
		snprintf(why, capacity, "%s cannot be unwrapped: keys.wrap_key_file is not the key that it was wrapped with, or the file is damaged; " CURE, path);
		return STATUS_LOCAL_CONFIG;
	}
	snprintf(why, capacity, "%s is damaged (%s): it is neither a JWK nor a wrapped one; " CURE, path, jose_reason_name(reason));
	return STATUS_LOCAL_INPUT;
}

static enum status read_key(const char *path, enum jose_use use, const struct secret *wrap_key, struct jose_key **ret_key, bool *ret_plain, char *why, size_t capacity)
{
	AUTO_SECRET struct secret text = SECRET_EMPTY;
	enum status status = secret_read_file(path, &text);
	if (status == STATUS_LOCAL_SYSTEM && errno == ENOENT)
		return STATUS_LOCAL_TRUST;
	struct stat facts;
	if (status == STATUS_OK && (lstat(path, &facts) != 0 || facts.st_uid != geteuid() || (facts.st_mode & 077) != 0))
		status = STATUS_LOCAL_PERMISSION;
	if (status == STATUS_LOCAL_PERMISSION)
		snprintf(why, capacity, "%s must be a regular file of the agent's user with mode 0600", path);
	else if (status != STATUS_OK)
		snprintf(why, capacity, "%s cannot be read: %s", path, status == STATUS_LOCAL_SYSTEM ? strerror(errno) : "it is empty or too long; " CURE);
	if (status != STATUS_OK)
		return status;
	*ret_plain = text.size > 0 && text.data[0] == '{';
	return *ret_plain ? read_plain(path, secret_bytes(&text), use, ret_key, why, capacity) : read_wrapped(path, secret_bytes(&text), use, wrap_key, ret_key, why, capacity);
}

/* Writes anew what was plain, or had an older version's name, and overwrites what it was. */
static enum status store_again(const char *folder, const char *old_path, bool renamed, const struct jose_key *key, const struct secret *wrap_key, char *why, size_t capacity)
{
	int old = open_to_overwrite(old_path);
	struct key_file file;
	enum status status = key_file_prepare(folder, key, wrap_key, &file);
	if (status == STATUS_OK)
		status = key_file_write(&file);
	if (status != STATUS_OK) {
		snprintf(why, capacity, "%s cannot be written again: %s%s", old_path, strerror(errno), disk_advice(errno));
		key_file_clear(&file);
		if (old >= 0)
			close(old);
		return status;
	}
	key_file_clear(&file);
	if (wrap_key->size > 0)
		log_event(LOG_NOTICE, "keys.wrapped", LOG_FIELDS({ "key", jose_key_id(key) }), "%s was plain and is wrapped now", old_path);
	overwrite(old);
	if (renamed)
		unlink(old_path);
	return STATUS_OK;
}

enum status key_file_load(const char *folder, enum jose_use use, const char *kid, const struct secret *wrap_key, struct jose_key **ret_key, char *why, size_t capacity)
{
	char path[PATH_MAX], older[PATH_MAX];
	bool plain = false, renamed = false;
	path_of(folder, use, kid, path);
	snprintf(older, sizeof older, "%s/%s.jwk", folder, USES[use]);
	*ret_key = NULL;
	enum status status = read_key(path, use, wrap_key, ret_key, &plain, why, capacity);
	if (status == STATUS_LOCAL_TRUST) {
		renamed = true;
		status = read_key(older, use, wrap_key, ret_key, &plain, why, capacity);
	}
	if (status == STATUS_LOCAL_TRUST)
		snprintf(why, capacity, "%s is missing: restore it from the backup that has this identity.json, or revoke this agent at the service and enroll again", path);
	if (status == STATUS_OK && strcmp(jose_key_id(*ret_key), kid) != 0) {
		snprintf(why, capacity, "%s is not the key of identity.json: restore it, or enroll again", renamed ? older : path);
		status = STATUS_LOCAL_TRUST;
	}
	if (status == STATUS_OK && ((plain && wrap_key->size > 0) || renamed))
		status = store_again(folder, renamed ? older : path, renamed, *ret_key, wrap_key, why, capacity);
	if (status != STATUS_OK) {
		jose_key_free(*ret_key);
		*ret_key = NULL;
	}
	return status;
}
