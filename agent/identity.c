#include "agent/identity.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "agent/identity_store.h"
#include "agent/key_file.h"
#include "base/disk.h"

#define FILE_MAX 131072

static void join_path(const struct identity *identity, const char *name, char *path, size_t capacity)
{
	snprintf(path, capacity, "%s/%s", identity->folder, name);
}

/* Files ----------------------------------------------------------------------------------------------------------------------------- */

static enum status check_mode(int fd, const char *path, char *why, size_t capacity)
{
	struct stat facts;
	if (fstat(fd, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_uid != geteuid() || (facts.st_mode & 077) != 0) {
		snprintf(why, capacity, "%s must be a regular file of the agent's user with mode 0600", path);
		return STATUS_LOCAL_PERMISSION;
	}
	return STATUS_OK;
}

/* STATUS_LOCAL_NOT_ENROLLED where the file is missing. */
static enum status read_file(const struct identity *identity, const char *name, char **ret_text, char *why, size_t capacity)
{
	char path[4096];
	join_path(identity, name, path, sizeof path);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0) {
		snprintf(why, capacity, "%s: %s", path, strerror(errno));
		return errno == ENOENT ? STATUS_LOCAL_NOT_ENROLLED : errno == EACCES ? STATUS_LOCAL_PERMISSION : STATUS_LOCAL_SYSTEM;
	}
	enum status status = check_mode(fd, path, why, capacity);
	char *text = status == STATUS_OK ? malloc(FILE_MAX + 1) : NULL;
	ssize_t size = text ? read(fd, text, FILE_MAX) : 0;
	if (size < 0)
		snprintf(why, capacity, "%s cannot be read: %s", path, strerror(errno));
	close(fd);
	if (status != STATUS_OK || !text || size < 0) {
		free(text);
		return status != STATUS_OK ? status : STATUS_LOCAL_SYSTEM;
	}
	text[size] = 0;
	*ret_text = text;
	return STATUS_OK;
}

/* Loading --------------------------------------------------------------------------------------------------------------------------- */

static enum status open_folder(const char *folder, char *why, size_t capacity)
{
	struct stat facts;
	if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
		snprintf(why, capacity, "%s cannot be made: %s%s", folder, strerror(errno), disk_advice(errno));
		return errno == EACCES || errno == EPERM ? STATUS_LOCAL_PERMISSION : STATUS_LOCAL_SYSTEM;
	}
	if (stat(folder, &facts) != 0 || !S_ISDIR(facts.st_mode) || facts.st_uid != geteuid() || (facts.st_mode & 077) != 0) {
		snprintf(why, capacity, "%s must be a folder of the agent's user with mode 0700", folder);
		return STATUS_LOCAL_PERMISSION;
	}
	return STATUS_OK;
}

static enum status load_key(const struct identity *identity, enum jose_use use, const json_t *holder, const char *member, struct jose_key **ret_key, char *why, size_t capacity)
{
	const char *kid = json_string_value(json_object_get(holder, member));
	if (kid && strlen(kid) == JOSE_KID_SIZE - 1 && !strchr(kid, '/'))
		return key_file_load(identity->folder, use, kid, &identity->wrap_key, ret_key, why, capacity);
	snprintf(why, capacity, "%s/identity.json is damaged: %s", identity->folder, member);
	return STATUS_LOCAL_INPUT;
}

static enum status load_pair(const struct identity *identity, const json_t *holder, struct jose_key **ret_signing, struct jose_key **ret_decryption, char *why, size_t capacity)
{
	enum status status = load_key(identity, JOSE_SIGN, holder, "signing_key", ret_signing, why, capacity);
	return status == STATUS_OK ? load_key(identity, JOSE_DECRYPT, holder, "decryption_key", ret_decryption, why, capacity) : status;
}

static int64_t time_of(const json_t *holder, const char *member)
{
	return json_integer_value(json_object_get(holder, member));
}

/* Those of an older version do not say it: the file is as old as its keys. */
static int64_t made_at(const struct identity *identity, const json_t *json)
{
	char path[4096];
	struct stat facts;
	join_path(identity, "identity.json", path, sizeof path);
	return time_of(json, "made_at") > 0 || stat(path, &facts) != 0 ? time_of(json, "made_at") : facts.st_mtime;
}

static enum status load_keys(struct identity *identity, const json_t *json, char *why, size_t capacity)
{
	const json_t *next = json_object_get(json, "next"), *retired = json_object_get(json, "retired");
	enum status status = load_pair(identity, json, &identity->signing, &identity->decryption, why, capacity);
	identity->made_at = made_at(identity, json);
	if (status == STATUS_OK && next)
		status = load_pair(identity, next, &identity->next.signing, &identity->next.decryption, why, capacity);
	identity->next.made_at = time_of(next, "made_at");
	identity->next.first = json_is_true(json_object_get(next, "first"));
	for (size_t i = 0; status == STATUS_OK && i < json_array_size(retired) && i < IDENTITY_RETIRED; i++) {
		identity->retired[i].until = time_of(json_array_get(retired, i), "until");
		status = load_key(identity, JOSE_DECRYPT, json_array_get(retired, i), "decryption_key", &identity->retired[i].key, why, capacity);
	}
	return status;
}

static enum status parse_identity(struct identity *identity, const json_t *json, char *why, size_t capacity)
{
	const char *agent_id = json_string_value(json_object_get(json, "agent_id"));
	const char *instance_id = json_string_value(json_object_get(json, "instance_id"));
	const char *issuer = json_string_value(json_object_get(json, "issuer"));
	const char *name = json_string_value(json_object_get(json, "name"));
	if (!agent_id || !uuid_valid(agent_id) || !instance_id || !uuid_valid(instance_id) || !issuer
	    || jose_key_from_jwk(json_object_get(json, "root_key"), JOSE_SIGN, false, &identity->root) != STATUS_OK) {
		snprintf(why, capacity, "%s/identity.json is damaged; restore it, or revoke this agent at the service, move the file away and enroll again", identity->folder);
		return STATUS_LOCAL_INPUT;
	}
	strcpy(identity->agent_id, agent_id);
	strcpy(identity->instance_id, instance_id);
	identity->issuer = strdup(issuer);
	identity->name = strdup(name ? name : "");
	enum status status = load_keys(identity, json, why, capacity);
	identity->enrolled = status == STATUS_OK;
	return status;
}

/* A missing, torn or expired key set is no failure: the service shows one at every greeting, and the floor is kept in the journal. */
static void load_key_set(struct identity *identity)
{
	char *text = NULL, why[256];
	if (read_file(identity, "key-set.jws", &text, why, sizeof why) != STATUS_OK)
		return;
	text[strcspn(text, "\n")] = 0;
	if (key_set_verify(bytes_of_string(text), identity->root, identity->issuer, 0, &identity->key_set) == STATUS_OK) {
		identity->key_set_floor = identity->key_set.version;
		identity->key_set_jws = text;
	} else
		free(text);
}

enum status identity_load(const char *folder, const char *wrap_key_file, struct identity *ret_identity, char *why, size_t capacity)
{
	memset(ret_identity, 0, sizeof *ret_identity);
	enum status status = open_folder(folder, why, capacity);
	if (status != STATUS_OK)
		return status;
	ret_identity->folder = strdup(folder);
	if (wrap_key_file)
		status = key_file_read_wrap(wrap_key_file, &ret_identity->wrap_key, why, capacity);
	if (status != STATUS_OK)
		return status;
	AUTO_FREE char *text = NULL;
	status = read_file(ret_identity, "identity.json", &text, why, capacity);
	char left[NAME_MAX + 1];
	if (status == STATUS_LOCAL_NOT_ENROLLED && key_file_any(folder, left, sizeof left)) {
		snprintf(why, capacity, "%s/identity.json is missing, and key files such as %s are there: restore it from the backup that has these, or revoke this agent at the service and enroll again", folder, left);
		return STATUS_LOCAL_TRUST;
	}
	if (status == STATUS_LOCAL_NOT_ENROLLED)
		return STATUS_OK;
	if (status != STATUS_OK)
		return status;
	json_t *json = jose_json_parse(bytes_of_string(text));
	status = parse_identity(ret_identity, json, why, capacity);
	json_decref(json);
	if (status == STATUS_OK) {
		load_key_set(ret_identity);
		identity_store_tidy(ret_identity);
	}
	return status;
}

enum status identity_lock(const struct identity *identity, int *ret_fd, char *why, size_t capacity)
{
	char path[4096];
	join_path(identity, "lock", path, sizeof path);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
		*ret_fd = fd;
		return STATUS_OK;
	}
	snprintf(why, capacity, "%s: %s%s", path, errno == EWOULDBLOCK ? "another writebackd runs with this state directory" : strerror(errno), disk_advice(errno));
	if (fd >= 0)
		close(fd);
	return STATUS_LOCAL_SYSTEM;
}

void identity_pair_clear(struct identity_pair *pair)
{
	jose_key_free(pair->signing);
	jose_key_free(pair->decryption);
	memset(pair, 0, sizeof *pair);
}

void identity_clear(struct identity *identity)
{
	free(identity->issuer);
	free(identity->name);
	free(identity->key_set_jws);
	free(identity->folder);
	jose_key_free(identity->root);
	jose_key_free(identity->signing);
	jose_key_free(identity->decryption);
	identity_pair_clear(&identity->next);
	identity_pair_clear(&identity->making);
	for (size_t i = 0; i < IDENTITY_RETIRED; i++)
		jose_key_free(identity->retired[i].key);
	secret_wipe(&identity->wrap_key);
	key_set_clear(&identity->key_set);
	memset(identity, 0, sizeof *identity);
}

/* The key set ----------------------------------------------------------------------------------------------------------------------- */

bool identity_trusts(const struct identity *identity, int64_t now_s)
{
	return identity->enrolled && identity->key_set.keys && identity->key_set.exp > now_s;
}

enum status identity_adopt_key_set(struct identity *identity, struct bytes jws, int64_t now_s, bool *ret_changed, identity_done done, void *arg)
{
	struct key_set fresh = { 0 };
	*ret_changed = false;
	enum status status = key_set_verify(jws, identity->root, identity->issuer, now_s, &fresh);
	if (status != STATUS_OK)
		return status;
	bool same = identity->key_set_jws && bytes_equal(jose_signed_part(bytes_of_string(identity->key_set_jws)), jose_signed_part(jws));
	bool stale = fresh.version < identity->key_set_floor || (!same && identity->key_set_jws && fresh.version == identity->key_set.version);
	if (same || stale) {
		key_set_clear(&fresh);
		return stale ? STATUS_LOCAL_TRUST : STATUS_OK;
	}
	key_set_clear(&identity->key_set);
	free(identity->key_set_jws);
	identity->key_set = fresh;
	identity->key_set_floor = fresh.version;
	identity->key_set_jws = strndup((const char *)jws.data, jws.size);
	*ret_changed = true;
	identity->key_set_unwritten = true;
	identity_save(identity, done, arg);
	return STATUS_OK;
}

/* Rotation --------------------------------------------------------------------------------------------------------------------------- */

void identity_decryption_keys(const struct identity *identity, struct jose_key *ret_keys[IDENTITY_DECRYPTION_KEYS])
{
	size_t count = 0;
	ret_keys[count++] = identity->decryption;
	if (identity->next.decryption)
		ret_keys[count++] = identity->next.decryption;
	for (size_t i = 0; i < IDENTITY_RETIRED; i++)
		if (identity->retired[i].key)
			ret_keys[count++] = identity->retired[i].key;
	ret_keys[count] = NULL;
}

/* IDENTITY_RETIRED where none is free. */
static size_t free_place(const struct identity *identity)
{
	size_t place = 0;
	while (place < IDENTITY_RETIRED && identity->retired[place].key)
		place++;
	return place;
}

enum status identity_begin_rotation(struct identity *identity, int64_t now_s, identity_done done, void *arg)
{
	struct identity_pair *making = &identity->making;
	if (identity->next.signing || making->signing || free_place(identity) == IDENTITY_RETIRED)
		return STATUS_LOCAL_INPUT;
	enum status status = jose_key_generate(JOSE_SIGN, &making->signing);
	if (status == STATUS_OK)
		status = jose_key_generate(JOSE_DECRYPT, &making->decryption);
	if (status != STATUS_OK) {
		identity_pair_clear(making);
		return status;
	}
	making->made_at = now_s;
	identity_save(identity, done, arg);
	return STATUS_OK;
}

enum status identity_finish_rotation(struct identity *identity, int64_t now_s, identity_done done, void *arg)
{
	size_t place = free_place(identity);
	if (!identity->next.signing || place == IDENTITY_RETIRED)
		return STATUS_LOCAL_INPUT;
	jose_key_free(identity->signing);
	identity->retired[place].key = identity->decryption;
	identity->retired[place].until = now_s + IDENTITY_OVERLAP_S;
	identity->signing = identity->next.signing;
	identity->decryption = identity->next.decryption;
	identity->made_at = identity->next.made_at;
	memset(&identity->next, 0, sizeof identity->next);
	identity_save(identity, done, arg);
	return STATUS_OK;
}

void identity_set_turn(struct identity *identity, bool next, identity_done done, void *arg)
{
	if (!identity->next.signing || identity->next.first == next)
		return;
	identity->next.first = next;
	identity->turn_unwritten = true;
	identity_save(identity, done, arg);
}

void identity_drop_retired(struct identity *identity, int64_t now_s, identity_done done, void *arg)
{
	bool dropped = false;
	for (size_t i = 0; i < IDENTITY_RETIRED; i++) {
		/* A clock that was set back does not keep it for years. */
		if (identity->retired[i].until > now_s + IDENTITY_OVERLAP_S)
			identity->retired[i].until = now_s + IDENTITY_OVERLAP_S;
		if (!identity->retired[i].key || identity->retired[i].until > now_s)
			continue;
		jose_key_free(identity->retired[i].key);
		identity->retired[i].key = NULL;
		dropped = true;
	}
	if (dropped)
		identity_save(identity, done, arg);
}
