#include "service/keys.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proto/messages.h"

static char *path_in(const char *directory, const char *name)
{
	char *path;
	return asprintf(&path, "%s/%s", directory, name) < 0 ? NULL : path;
}

__attribute__((format(printf, 3, 4)))
static enum status because(enum status status, char **ret_why, const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	if (ret_why != NULL && *ret_why == NULL && vasprintf(ret_why, format, arguments) < 0)
		*ret_why = NULL;
	va_end(arguments);
	return status;
}

static enum status write_file(const char *path, const char *text, char **ret_why)
{
	enum status status = jose_file_write(path, bytes_of_string(text));
	return status == STATUS_OK ? status : because(status, ret_why, "%s: %s", path, strerror(errno));
}

/* Public files: a line of text of at most 64 KiB. */
static char *read_file(const char *path, char **ret_why)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		because(STATUS_LOCAL_SYSTEM, ret_why, "%s: %s", path, strerror(errno));
		return NULL;
	}
	char *text = calloc(1, MAX_FRAME_BYTES + 2);
	size_t size = 0;
	ssize_t n = 1;
	while (text != NULL && n > 0 && size < MAX_FRAME_BYTES + 1) {
		n = read(fd, text + size, MAX_FRAME_BYTES + 1 - size);
		if (n > 0)
			size += (size_t)n;
	}
	close(fd);
	if (text == NULL || n < 0 || size > MAX_FRAME_BYTES) {
		because(STATUS_LOCAL_SYSTEM, ret_why, "%s: unreadable or too large", path);
		free(text);
		return NULL;
	}
	text[strcspn(text, "\r\n")] = '\0';
	return text;
}

static enum status load_private(const char *directory, const char *name, struct jose_key **ret_key, char **ret_why)
{
	AUTO_FREE char *path = path_in(directory, name);
	if (path == NULL)
		return STATUS_AGENT_INTERNAL;
	errno = 0;
	enum status status = jose_key_load(path, JOSE_SIGN, ret_key);
	if (status != STATUS_OK)
		return because(status, ret_why, "%s: %s", path, status == STATUS_LOCAL_SYSTEM && errno != 0 ? strerror(errno) : status_code(status));
	return STATUS_OK;
}

static enum status load_root_public(const char *directory, struct jose_key **ret_key, char **ret_why)
{
	AUTO_FREE char *path = path_in(directory, "root-public.jwk");
	AUTO_FREE char *text = path != NULL ? read_file(path, ret_why) : NULL;
	if (text == NULL)
		return STATUS_LOCAL_SYSTEM;
	json_t *jwk = jose_json_parse(bytes_of_string(text));
	enum status status = jwk != NULL ? jose_key_from_jwk(jwk, JOSE_SIGN, false, ret_key) : STATUS_LOCAL_INPUT;
	json_decref(jwk);
	if (status != STATUS_OK)
		return because(status, ret_why, "%s: no public P-256 key", path);
	return STATUS_OK;
}

static enum status store_public(const char *directory, struct jose_key *root, char **ret_why)
{
	json_t *jwk = jose_key_public_jwk(root);
	AUTO_FREE char *text = jwk != NULL ? json_dumps(jwk, JSON_COMPACT) : NULL;
	json_decref(jwk);
	AUTO_FREE char *path = path_in(directory, "root-public.jwk");
	if (text == NULL || path == NULL)
		return STATUS_AGENT_INTERNAL;
	return write_file(path, text, ret_why);
}

/* The key set goes first: it names the old key too, so that whoever reads between the two files finds a pair that fits. */
static enum status store_set(const char *directory, const char *issuer, int64_t now, int64_t version, struct jose_key *root,
                             struct jose_key *signing, struct jose_key *const *keys, size_t count, char **ret_why)
{
	AUTO_FREE char *payload = key_set_build(issuer, now, now + KEY_SET_LIFETIME_S, version, keys, count);
	AUTO_FREE char *jws = NULL;
	AUTO_FREE char *set_path = path_in(directory, "key-set.jws");
	AUTO_FREE char *signing_path = path_in(directory, "signing.jwk");
	if (payload == NULL || set_path == NULL || signing_path == NULL)
		return STATUS_AGENT_INTERNAL;
	enum status status = jose_sign(root, TYP_KEYS, bytes_of_string(payload), &jws);
	if (status == STATUS_OK)
		status = write_file(set_path, jws, ret_why);
	if (status == STATUS_OK) {
		status = jose_key_store(signing, signing_path);
		if (status != STATUS_OK)
			because(status, ret_why, "%s: %s", signing_path, strerror(errno));
	}
	return status;
}

enum status keys_init(const char *directory, const char *issuer, int64_t now, char **ret_why)
{
	struct jose_key *root = NULL, *signing = NULL;
	AUTO_FREE char *root_path = path_in(directory, "root.jwk");
	AUTO_FREE char *public_path = path_in(directory, "root-public.jwk");
	if (root_path == NULL || public_path == NULL)
		return STATUS_AGENT_INTERNAL;
	if (mkdir(directory, 0700) != 0 && errno != EEXIST)
		return because(STATUS_LOCAL_SYSTEM, ret_why, "%s: %s", directory, strerror(errno));
	if (access(public_path, F_OK) == 0 || access(root_path, F_OK) == 0)
		return because(STATUS_LOCAL_INPUT, ret_why, "%s holds keys already; 'rotate-keys' makes a new signing key", directory);
	enum status status = jose_key_generate(JOSE_SIGN, &root);
	if (status == STATUS_OK)
		status = jose_key_generate(JOSE_SIGN, &signing);
	if (status == STATUS_OK)
		status = jose_key_store(root, root_path);
	if (status == STATUS_OK)
		status = store_set(directory, issuer, now, 1, root, signing, &signing, 1, ret_why);
	if (status == STATUS_OK)
		status = store_public(directory, root, ret_why);
	jose_key_free(root);
	jose_key_free(signing);
	if (status != STATUS_OK)
		because(status, ret_why, "%s: %s", directory, status_code(status));
	return status;
}

static enum status load_root_private(const char *directory, const char *root_file, struct jose_key **ret_root, char **ret_why)
{
	AUTO_FREE char *own = path_in(directory, "root.jwk");
	if (root_file == NULL && own != NULL && access(own, F_OK) != 0)
		return because(STATUS_LOCAL_CONFIG, ret_why, "%s is not there: bring the root key from where it is kept and name its file, --root FILE", own);
	if (root_file == NULL)
		return load_private(directory, "root.jwk", ret_root, ret_why);
	enum status status = jose_key_load(root_file, JOSE_SIGN, ret_root);
	if (status == STATUS_OK)
		return status;
	return because(status, ret_why, "%s: %s", root_file, status == STATUS_LOCAL_SYSTEM ? strerror(errno) : status == STATUS_LOCAL_PERMISSION
		? "it must be a regular file of the service's user with mode 0600 or less" : "it holds no private signing key");
}

/* The public keys that the present set names besides `signing`, newest first. Their private halves are gone. */
static size_t older_keys(const char *key_set, const struct jose_key *signing, struct jose_key *ret_keys[], size_t capacity)
{
	char kid[JOSE_KID_SIZE];
	json_t *payload = NULL, *jwk;
	size_t index, count = 0;
	/* keys_load has verified it. */
	if (jose_peek_unverified(bytes_of_string(key_set), TYP_KEYS, kid, &payload) != JOSE_OK)
		return 0;
	json_array_foreach(json_object_get(payload, "keys"), index, jwk) {
		const char *other = json_string_value(json_object_get(jwk, "kid"));
		if (count < capacity && other != NULL && strcmp(other, jose_key_id(signing)) != 0 && jose_key_from_jwk(jwk, JOSE_SIGN, false, &ret_keys[count]) == STATUS_OK)
			count++;
	}
	json_decref(payload);
	return count;
}

enum status keys_rotate(const char *directory, const char *root_file, bool drop_old, const char *issuer, int64_t now, char **ret_why)
{
	struct keys present = { 0 };
	struct jose_key *root = NULL, *all[KEY_SET_MAX_KEYS] = { NULL };
	/* An expired set may be renewed: now = 0 asks keys_load not to look at the clock. */
	enum status status = keys_load(directory, issuer, 0, &present, ret_why);
	if (status != STATUS_OK)
		return status;
	status = load_root_private(directory, root_file, &root, ret_why);
	if (status == STATUS_OK && strcmp(jose_key_id(root), jose_key_id(present.root)) != 0)
		status = because(STATUS_LOCAL_TRUST, ret_why, "the root key is not the one that agents have pinned (%s)", jose_key_id(present.root));
	if (status == STATUS_OK)
		status = jose_key_generate(JOSE_SIGN, &all[0]);
	if (status == STATUS_OK) {
		size_t older = older_keys(present.key_set, present.signing, &all[2], KEY_SET_MAX_KEYS - 2);
		all[1] = present.signing;
		present.signing = NULL;
		status = store_set(directory, issuer, now, present.version + 1, root, all[0], all, 2 + older, ret_why);
		/* In a second step, so that set and signing key fit at every moment. */
		if (status == STATUS_OK && drop_old)
			status = store_set(directory, issuer, now, present.version + 2, root, all[0], all, 1, ret_why);
	}
	for (size_t i = 0; i < KEY_SET_MAX_KEYS; i++)
		jose_key_free(all[i]);
	jose_key_free(root);
	keys_clear(&present);
	if (status != STATUS_OK)
		because(status, ret_why, "%s: %s", directory, status_code(status));
	return status;
}

enum status keys_load(const char *directory, const char *issuer, int64_t now, struct keys *ret_keys, char **ret_why)
{
	struct keys keys = { 0 };
	struct key_set set = { 0 };
	AUTO_FREE char *set_path = path_in(directory, "key-set.jws");
	if (set_path == NULL)
		return STATUS_AGENT_INTERNAL;
	enum status status = load_root_public(directory, &keys.root, ret_why);
	if (status == STATUS_OK)
		status = load_private(directory, "signing.jwk", &keys.signing, ret_why);
	if (status == STATUS_OK && (keys.key_set = read_file(set_path, ret_why)) == NULL)
		status = STATUS_LOCAL_SYSTEM;
	if (status == STATUS_OK) {
		status = key_set_verify(bytes_of_string(keys.key_set), keys.root, issuer, now, &set);
		if (status != STATUS_OK)
			because(status, ret_why, "%s: not signed by this root for %s, or expired (see 'rotate-keys')", set_path, issuer);
	}
	if (status == STATUS_OK && jose_keys_find(set.keys, jose_key_id(keys.signing)) == NULL)
		status = because(STATUS_LOCAL_TRUST, ret_why, "%s does not name signing.jwk", set_path);
	keys.version = set.version;
	keys.expires = set.exp;
	key_set_clear(&set);
	if (status != STATUS_OK) {
		keys_clear(&keys);
		return status;
	}
	*ret_keys = keys;
	return STATUS_OK;
}

void keys_clear(struct keys *keys)
{
	jose_key_free(keys->root);
	jose_key_free(keys->signing);
	free(keys->key_set);
	*keys = (struct keys){ 0 };
}
